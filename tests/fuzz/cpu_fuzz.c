/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: random bytes as code on the software CPU, in any mode: real, virtual-8086,
 * protected with 16 and 32 bits at any level, with and without paging (4-byte and PAE entries),
 * with descriptor tables and page tables that the code may destroy. The run must end, and the
 * state that the CPU reports must be one it takes back.
 */
#include "core/iobus.h"
#include "core/memory.h"
#include "cpu/soft_cpu.h"
#include "lib/bytes.h"
#include "tests/fuzz/fuzz.h"
#include <stdio.h>
#include <stdlib.h>

#ifndef TRANSLATE
#define TRANSLATE false
#endif

enum {
	RAM_SIZE = 1 << 20,
	AT_GDT = 0x1000,
	AT_IDT = 0x1800,
	AT_TSS = 0x2000,
	AT_DIRECTORY = 0x3000, /* one of 4-byte entries, then PAE's: pointers and directories */
	AT_PAE = 0x4000,
	AT_TABLE = 0x6000,
	AT_PAE_TABLE = 0x8000,
	AT_HANDLERS = 0x9000,
	AT_CODE = 0x10000,
	AT_DATA = 0x20000,
	AT_STACK = 0x2F000,
	AT_MMIO = 0x200000,
	INSTRUCTIONS = 20000,
	TURNS = 40,
};

enum mode_bits {
	MODE_KIND = 3, /* 0 real, 1 virtual-8086, 2 16-bit, 3 32-bit protected */
	MODE_PAGING = 4,
	MODE_PAE = 8,
	MODE_LEVEL3 = 16,
	MODE_SSE = 32,
	MODE_TF = 64,
	MODE_INTR = 128,
};

static struct {
	struct memory *mem;
	struct iobus *io;
	struct cpu_model model;
	struct soft_cpu *cpu;
	uint8_t *ram;
} vm;

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
	return offset * 0x9E3779B97F4A7C15;
}

static void mmio_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
}

static int acknowledge(void *opaque, unsigned index)
{
	soft_cpu_set_intr(vm.cpu, false);
	return 0x30;
}

static void open_machine(void)
{
	static const struct mmio_ops mmio = {.read = mmio_read, .write = mmio_write};
	struct error err = ERROR_INIT;

	vm.mem = memory_new();
	vm.io = iobus_new();
	struct mem_region *ram = mem_region_new_ram(vm.mem, "ram", RAM_SIZE, &err);
	if (!ram || cpu_model_parse("max", &vm.model, &err) < 0)
		abort();
	vm.ram = ram->host;
	mem_mapping_set(mem_map(vm.mem, ram, 0, 0, RAM_SIZE, MEM_PRIO_RAM), 0, MEM_RW);
	struct mem_region *page = mem_region_new_mmio(vm.mem, "mmio", GUEST_PAGE_SIZE, &mmio, NULL);
	mem_mapping_set(mem_map(vm.mem, page, 0, AT_MMIO, GUEST_PAGE_SIZE, MEM_PRIO_RAM), AT_MMIO,
			MEM_RW);
	struct soft_cpu_config config = {
		.cpus = 1,
		.model = &vm.model,
		.mem = vm.mem,
		.io = vm.io,
		.ack = acknowledge,
		/* jit_fuzz.c: all code at once translated, each piece of it also interpreted. */
		.jit = TRANSLATE,
		.jit_after = 1,
		.verify = TRANSLATE,
		.code_size = SOFT_CODE_MIN,
	};
	if (!(vm.cpu = soft_cpu_new(&config, &err)))
		abort();
}

/* Selectors: level 0 and 3, code and data, of 16 and 32 bits; TSS, LDT, call gate. */
enum {
	CODE0_32 = 0x08,
	DATA0 = 0x10,
	CODE3_32 = 0x1B,
	DATA3 = 0x23,
	CODE0_16 = 0x28,
	CODE3_16 = 0x33,
	TSS = 0x38,
	LDT = 0x40,
	CALL_GATE = 0x4B,
	TSS2 = 0x50,
	TASK_GATE = 0x5B,
	EXPAND_DOWN = 0x63
};

static void build_tables(bool pae)
{
	static const uint64_t gdt[] = {0,
				       0x00CF9B000000FFFF,
				       0x00CF93000000FFFF,
				       0x00CFFB000000FFFF,
				       0x00CFF3000000FFFF,
				       0x000F9B000000FFFF,
				       0x000FFB000000FFFF,
				       0x00008B0020000067,
				       0x0000820010000FFF,
				       0x0000EC0000089000,
				       0x0000890021000067,
				       0x0000E50000500000,
				       0x00CFF7000000000F};

	for (unsigned n = 0; n < sizeof(gdt) / sizeof(gdt[0]); n++)
		store_le64(vm.ram + AT_GDT + 8 * n, gdt[n]);
	for (unsigned n = 0; n < 64; n++) {
		uint32_t at = AT_HANDLERS + 16 * n;
		store_le32(vm.ram + AT_IDT + 8 * n, CODE0_32 << 16 | at);
		store_le32(vm.ram + AT_IDT + 8 * n + 4, 0xEE00);
		store_le32(vm.ram + 4 * n, at); /* real mode */
		vm.ram[at] = 0xCF; /* IRET: back into the code, with or without an error code */
	}
	store_le32(vm.ram + AT_TSS + 4, AT_STACK + 0x800);
	store_le32(vm.ram + AT_TSS + 8, DATA0);
	store_le16(vm.ram + AT_TSS + 102, 0x60);
	for (unsigned n = 0; n < 512; n++) {
		uint32_t page = n * 4096 | 7;
		store_le32(vm.ram + AT_TABLE + 4 * n, page);
		store_le64(vm.ram + AT_PAE_TABLE + 8 * n, page);
	}
	store_le32(vm.ram + AT_TABLE + 4 * 512, AT_MMIO | 7);
	store_le32(vm.ram + AT_DIRECTORY, AT_TABLE | 7);
	store_le32(vm.ram + AT_DIRECTORY + 4, 0x87); /* 4 MiB */
	for (unsigned n = 0; n < 4; n++)
		store_le64(vm.ram + AT_PAE + 8 * n, (AT_PAE + 4096) | 1);
	store_le64(vm.ram + AT_PAE + 4096, AT_PAE_TABLE | 7);
	store_le64(vm.ram + AT_PAE + 4096 + 8, 0x87);
}

static struct cpu_segment protected_segment(uint16_t selector)
{
	const uint8_t *d = vm.ram + AT_GDT + (selector & ~7);
	uint32_t low = load_le32(d), high = load_le32(d + 4),
		 limit = (low & 0xFFFF) | (high & 0xF0000);

	return (struct cpu_segment){
		.selector = selector,
		.attr = (uint16_t)(high >> 8 & 0xF0FF),
		.base = low >> 16 | (high & 0xFF) << 16 | (high & 0xFF000000),
		.limit = high >> 8 & SEG_G ? limit << 12 | 0xFFF : limit,
	};
}

static struct cpu_segment real_segment(uint32_t base, uint16_t attr)
{
	return (struct cpu_segment){(uint16_t)(base >> 4), attr, base, 0xFFFF};
}

static void set_mode(struct cpu_state *s, uint8_t mode)
{
	unsigned kind = mode & MODE_KIND;
	bool level3 = kind == 1 || (kind && mode & MODE_LEVEL3);

	cpu_state_reset(s, true, 0);
	s->gdt = (struct cpu_table){AT_GDT, 0x67};
	s->idt = (struct cpu_table){kind ? AT_IDT : 0, 0x1FF};
	s->tr = protected_segment(TSS);
	s->ldt = protected_segment(LDT);
	s->cr0 = CR0_ET | (kind ? CR0_PE : 0) | (kind && mode & MODE_PAGING ? CR0_PG | CR0_WP : 0) |
		 (mode & MODE_TF ? CR0_AM : 0);
	s->cr4 = (mode & MODE_PAE ? CR4_PAE : 0) | CR4_PSE | CR4_PGE | CR4_DE |
		 (mode & MODE_SSE ? CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_VME | CR4_PVI : 0);
	s->efer = mode & MODE_PAE ? EFER_NXE : 0;
	s->cr3 = mode & MODE_PAE ? AT_PAE : AT_DIRECTORY;
	for (unsigned n = 0; n < 4; n++)
		s->pdpte[n] = (AT_PAE + 4096) | 1;
	s->eflags = FL_1 | (mode & MODE_TF && mode & MODE_SSE ? FL_TF | FL_AC : 0) |
		    (mode & MODE_INTR ? FL_IF : 0) | (mode & MODE_TF ? FL_IOPL : 0);
	s->eip = 0;
	s->activity = CPU_RUNNING;
	if (kind < 2) {
		uint16_t attr = SEG_P | SEG_S | SEG_RW | SEG_ACCESSED | (kind ? SEG_DPL : 0);
		for (unsigned n = 0; n < 6; n++)
			s->seg[n] = real_segment(AT_DATA, attr);
		s->seg[S_CS] = real_segment(AT_CODE, kind ? attr : attr | SEG_CODE);
		s->eflags |= kind ? FL_VM : 0;
		s->gpr[R_ESP] = AT_STACK - AT_DATA;
		return;
	}
	for (unsigned n = 0; n < 6; n++)
		s->seg[n] = protected_segment(level3 ? DATA3 : DATA0);
	if (mode & MODE_SSE)
		s->seg[S_FS] = protected_segment(EXPAND_DOWN);
	s->seg[S_CS] = protected_segment(kind == 3 ? (level3 ? CODE3_32 : CODE0_32)
						   : (level3 ? CODE3_16 : CODE0_16));
	s->gpr[R_ESP] = AT_STACK;
	s->eip = kind == 3 ? AT_CODE : 0;
	if (kind == 2)
		s->seg[S_CS].base = AT_CODE;
}

static void run(bool interrupts)
{
	struct cpu_state s;

	for (unsigned turn = 0; turn < TURNS; turn++) {
		enum soft_exit reason = soft_cpu_run(vm.cpu, INSTRUCTIONS / TURNS);

		if (reason == SOFT_HALTED || reason == SOFT_TRIPLE_FAULT)
			break;
		if (reason == SOFT_DIFFERS) {
			fputs(soft_cpu_difference(vm.cpu), stderr);
			abort();
		}
		if (interrupts && turn % 4 == 1)
			soft_cpu_set_intr(vm.cpu, true);
		if (interrupts && turn == 6)
			soft_cpu_nmi(vm.cpu);
		if (turn == 8) { /* as the monitor or a snapshot would */
			soft_cpu_get_state(vm.cpu, &s);
			soft_cpu_set_state(vm.cpu, &s);
		}
	}
	soft_cpu_get_state(vm.cpu, &s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);
	uint8_t mode = fuzz_u8(&in);
	struct cpu_state s;

	if (!vm.cpu)
		open_machine();
	memset(vm.ram, 0, RAM_SIZE);
	soft_cpu_set_intr(vm.cpu, false);
	build_tables(mode & MODE_PAE);
	set_mode(&s, mode);
	for (unsigned n = 0; n < 8; n++) {
		/* Addresses of data, small numbers or anything. */
		uint8_t kind = fuzz_u8(&in);
		uint32_t value = kind & 1 ? fuzz_u32(&in) : kind;
		if (n != R_ESP)
			s.gpr[n] = kind & 2 ? AT_DATA + value % 0x8000 : value;
	}
	soft_cpu_set_state(vm.cpu, &s);
	size_t len = fuzz_left(&in) < 4096 ? fuzz_left(&in) : 4096;
	fuzz_take(&in, vm.ram + AT_CODE, len);
	for (unsigned n = 0; n < 0x8000; n++)
		vm.ram[AT_DATA + n] = (uint8_t)(n * 37 ^ n >> 7);
	soft_cpu_ram_written(vm.cpu, vm.ram, RAM_SIZE);
	run(mode & MODE_INTR);
	return 0;
}

/* ---- Seeds: some of each kind of instruction, in each mode ---- */

enum { REGISTERS = 8 };

static size_t seed(unsigned n, uint8_t *buf, size_t max)
{
	static const struct {
		uint8_t len, bytes[30];
	} code[] = {
		{14,
		 {0x01, 0xC8, 0x8B, 0x03, 0x89, 0x03, 0xFF, 0x03, 0x0F, 0xAF, 0xC3, 0xF7, 0xFB,
		  0x74}},
		{12, {0xF3, 0xA4, 0xF3, 0xAB, 0xF2, 0xAE, 0x60, 0x61, 0x9C, 0x9D, 0xEB, 0xF4}},
		{15,
		 {0x0F, 0x20, 0xC0, 0x0F, 0x22, 0xC0, 0x0F, 0x01, 0x13, 0x0F, 0x00, 0xD8, 0x0F,
		  0x08, 0xF4}},
		{16, {0x9A, 0, 0, 0, 0, 0x4B, 0, 0xEA, 0, 0, 0, 0, 0x5B, 0, 0xCF, 0xCB}},
		{14,
		 {0xD9, 0xE8, 0xD9, 0xEB, 0xDE, 0xC1, 0xDF, 0x33, 0xD9, 0x33, 0xD9, 0x23, 0xDD,
		  0x33}},
		{16,
		 {0x0F, 0x6F, 0x03, 0x0F, 0xFE, 0xC1, 0x0F, 0x7F, 0x03, 0x0F, 0x77, 0x66, 0x0F,
		  0x58, 0xC1, 0xF4}},
		{15,
		 {0xF2, 0x0F, 0x10, 0x03, 0x0F, 0xAE, 0x03, 0x0F, 0xAE, 0x0B, 0x0F, 0xC7, 0x0B,
		  0xEB, 0xFE}},
		{14,
		 {0x8E, 0xD8, 0x8E, 0xD0, 0x0F, 0xB2, 0x23, 0xC8, 0x10, 0, 3, 0xC9, 0xCD, 0x80}},
		{14,
		 {0xEC, 0xEE, 0x6C, 0x6E, 0xE4, 0x60, 0x0F, 0xA2, 0x0F, 0x31, 0x0F, 0x32, 0x0F,
		  0x30}},
		{12, {0xC6, 0x05, 0x08, 0, 1, 0, 0x90, 0x90, 0x90, 0xCC, 0xEB, 0xF4}},
		{15,
		 {0x0F, 0x34, 0x0F, 0x35, 0xF0, 0x0F, 0xB1, 0x03, 0x0F, 0x23, 0xF8, 0x0F, 0x09,
		  0xFB, 0xFA}},
		{13,
		 {0x63, 0xC3, 0x0F, 0x02, 0xC3, 0x0F, 0x03, 0xC3, 0x62, 0x03, 0xD7, 0x27, 0xD4}},
	};
	static const uint8_t modes[] = {0,
					1,
					2,
					3,
					3 | MODE_PAGING,
					3 | MODE_PAGING | MODE_PAE | MODE_LEVEL3 | MODE_SSE,
					3 | MODE_LEVEL3 | MODE_INTR,
					1 | MODE_PAGING | MODE_SSE | MODE_INTR,
					3 | MODE_SSE | MODE_TF,
					2 | MODE_LEVEL3 | MODE_PAGING | MODE_PAE};
	enum { CODES = sizeof(code) / sizeof(code[0]), MODES = sizeof(modes) / sizeof(modes[0]) };

	if (n >= CODES * MODES || max < 64)
		return 0;
	buf[0] = modes[n % MODES];
	memset(buf + 1, 2, REGISTERS);
	memcpy(buf + 1 + REGISTERS, code[n / MODES].bytes, code[n / MODES].len);
	return 1u + REGISTERS + code[n / MODES].len;
}

const struct fuzz_target fuzz_target = {
	.name = TRANSLATE ? "jit" : "cpu", .runs = 2500, .max_len = 600, .seed = seed};
