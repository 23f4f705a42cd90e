/* SPDX-License-Identifier: MIT */
/*
 * A bare machine for tests of the integer core: one CPU, 4 MiB of RAM (with the last 64 KiB of the
 * low MiB as ROM and an MMIO page behind the RAM), flat 32-bit protected mode at level 0 or real
 * mode. In protected mode each exception leads to a HLT at AT_HANDLER + 16 * vector with the frame
 * on the stack; in real mode the IVT leads to the same places.
 */
#ifndef TESTS_UNIT_CPU_CORE_MACHINE_H
#define TESTS_UNIT_CPU_CORE_MACHINE_H

#include "core/memory.h"
#include "cpu/soft_cpu.h"
#include "lib/bytes.h"
#include "tests/unit/cpu/engine.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

enum {
	RAM_SIZE = 4 << 20,
	AT_GDT = 0x1000,
	AT_IDT = 0x2000,
	AT_HANDLER = 0x8000,
	AT_CODE = 0x10000,
	AT_STACK = 0x30000, /* top */
	AT_DATA = 0x40000,
	AT_ROM = 0xF0000,
	AT_PAGE_DIR = 0x200000,
	AT_PAGE_TABLE = 0x201000,
	AT_MMIO = 0x500000,
	SEL_CODE = 0x08,
	SEL_DATA = 0x10,
	OPCODE_HLT = 0xF4,
};

struct machine {
	struct memory *mem;
	struct cpu_model model;
	struct soft_cpu *cpu;
	uint8_t *ram, *rom;
	struct cpu_state s;
	enum soft_exit exit;
	/* The MMIO page: a log of writes; reads give the offset. */
	unsigned mmio_writes, mmio_reads;
	uint64_t mmio_last, mmio_value;
	unsigned mmio_size;
	int irq; /* vector that ack() gives, then -1 */
};

static inline uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
	struct machine *m = opaque;
	m->mmio_reads++;
	return offset == 0 ? OPCODE_HLT : offset;
}

static inline void mmio_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct machine *m = opaque;
	m->mmio_writes++;
	m->mmio_last = offset;
	m->mmio_value = value;
	m->mmio_size = size;
}

static inline int machine_ack(void *opaque, unsigned index)
{
	struct machine *m = opaque;
	int vector = m->irq;
	m->irq = -1;
	soft_cpu_set_intr(m->cpu, false);
	return vector;
}

static const struct mmio_ops mmio_ops = {.read = mmio_read, .write = mmio_write};

/* Flat protected mode, everything else as after reset. */
static inline void machine_protected(struct machine *m)
{
	soft_cpu_get_state(m->cpu, &m->s);
	for (unsigned n = 0; n < 6; n++) {
		m->s.seg[n] = (struct cpu_segment){
			.selector = n == S_CS ? SEL_CODE : SEL_DATA,
			.limit = 0xFFFFFFFF,
			.attr = SEG_P | SEG_S | SEG_DB | SEG_G | SEG_RW | SEG_ACCESSED |
				(n == S_CS ? SEG_CODE : 0),
		};
	}
	store_le64(m->ram + AT_GDT + SEL_CODE, UINT64_C(0x00CF9B000000FFFF));
	store_le64(m->ram + AT_GDT + SEL_DATA, UINT64_C(0x00CF93000000FFFF));
	for (unsigned n = 0; n < 256; n++) {
		uint32_t at = AT_HANDLER + 16 * n;
		m->ram[at] = OPCODE_HLT;
		store_le32(m->ram + AT_IDT + 8 * n, SEL_CODE << 16 | (at & 0xFFFF));
		store_le32(m->ram + AT_IDT + 8 * n + 4, (at & 0xFFFF0000) | 0x8E00);
	}
	m->s.gdt = (struct cpu_table){.base = AT_GDT, .limit = 0xFF};
	m->s.idt = (struct cpu_table){.base = AT_IDT, .limit = 0x7FF};
	m->s.cr0 = CR0_PE | CR0_ET;
	m->s.eip = AT_CODE;
	m->s.gpr[R_ESP] = AT_STACK;
	m->s.activity = CPU_RUNNING;
	m->s.eflags = FL_1;
}

/* Real mode with CS at AT_CODE, SS at AT_STACK - 64 KiB, DS and ES at AT_DATA. */
static inline void machine_real(struct machine *m)
{
	static const uint32_t base[6] = {AT_DATA, AT_CODE, AT_STACK - 0x10000,
					 AT_DATA, AT_DATA, AT_DATA};

	cpu_state_reset(&m->s, true, 0);
	for (unsigned n = 0; n < 6; n++) {
		m->s.seg[n].base = base[n];
		m->s.seg[n].selector = (uint16_t)(base[n] >> 4);
	}
	for (unsigned n = 0; n < 256; n++) {
		m->ram[AT_HANDLER + 16 * n] = OPCODE_HLT;
		store_le32(m->ram + 4 * n, (uint32_t)(AT_HANDLER / 16 + n) << 16);
	}
	m->s.idt = (struct cpu_table){.base = 0, .limit = 0x3FF};
	m->s.gpr[R_ESP] = 0xFFF0;
	m->s.eip = 0;
}

static inline int machine_setup(void **state)
{
	struct machine *m = calloc(1, sizeof(*m));
	struct mem_region *ram, *rom, *mmio;

	if (!m)
		return -1;
	m->irq = -1;
	m->mem = memory_new();
	ram = mem_region_new_ram(m->mem, "ram", RAM_SIZE, NULL);
	rom = mem_region_new_rom(m->mem, "rom", 0x10000, NULL);
	mmio = mem_region_new_mmio(m->mem, "mmio", 4096, &mmio_ops, m);
	m->ram = ram->host;
	m->rom = rom->host;
	mem_mapping_set(mem_map(m->mem, ram, 0, 0, RAM_SIZE, MEM_PRIO_RAM), 0, MEM_RW);
	mem_mapping_set(mem_map(m->mem, rom, 0, AT_ROM, 0x10000, MEM_PRIO_ROM), AT_ROM, MEM_R);
	mem_mapping_set(mem_map(m->mem, mmio, 0, AT_MMIO, 4096, MEM_PRIO_PCI), AT_MMIO, MEM_RW);
	if (cpu_model_parse("max", &m->model, NULL) < 0)
		return -1;
	struct soft_cpu_config config = {
		.cpus = 1, .model = &m->model, .mem = m->mem, .ack = machine_ack, .opaque = m};
	m->cpu = test_cpu_new(&config);
	if (!m->cpu)
		return -1;
	machine_protected(m);
	*state = m;
	return 0;
}

static inline int machine_teardown(void **state)
{
	struct machine *m = *state;
	soft_cpu_free(m->cpu);
	memory_free(m->mem);
	free(m);
	return 0;
}

/* Runs from m->s until HLT (or `budget` instructions); m->s is the state afterwards. */
static inline void machine_go(struct machine *m, uint64_t budget)
{
	soft_cpu_set_state(m->cpu, &m->s);
	m->exit = soft_cpu_run(m->cpu, budget);
	soft_cpu_get_state(m->cpu, &m->s);
}

static inline void machine_code(struct machine *m, const uint8_t *code, size_t len)
{
	memcpy(m->ram + AT_CODE, code, len);
	m->ram[AT_CODE + len] = OPCODE_HLT;
}

/* Puts the bytes at AT_CODE with a HLT behind them and runs them. */
#define RUN(m, ...)                                                                                \
	do {                                                                                       \
		const uint8_t code_[] = {__VA_ARGS__};                                             \
		machine_code(m, code_, sizeof(code_));                                             \
		machine_go(m, 100000);                                                             \
	} while (0)

#define BYTES16(v) (uint8_t)(v), (uint8_t)((v) >> 8)
#define BYTES32(v) (uint8_t)(v), (uint8_t)((v) >> 8), (uint8_t)((v) >> 16), (uint8_t)((v) >> 24)

/* It stopped at the HLT behind `len` bytes of code, without an exception. */
#define assert_ran(m, len) assert_int_equal((m)->s.eip, AT_CODE + (len) + 1)
/* It stopped in the handler of an exception (protected mode). */
#define assert_exception(m, vector) assert_int_equal((m)->s.eip, AT_HANDLER + 16 * (vector) + 1)

/* Dword `n` of the stack. */
static inline uint32_t machine_stack(struct machine *m, unsigned n)
{
	return load_le32(m->ram + m->s.gpr[R_ESP] + 4 * n);
}

/* Identity-maps the first 4 MiB with 4 KiB pages, all present, writable, for users; paging on from
 * the next go. */
static inline void machine_paging(struct machine *m)
{
	enum { P_W_U = 7 };
	store_le32(m->ram + AT_PAGE_DIR, AT_PAGE_TABLE | P_W_U);
	for (unsigned n = 0; n < 1024; n++)
		store_le32(m->ram + AT_PAGE_TABLE + 4 * n, n << 12 | P_W_U);
	m->s.cr3 = AT_PAGE_DIR;
	m->s.cr0 |= CR0_PG | CR0_WP;
}

static inline void machine_set_pte(struct machine *m, uint32_t linear, uint32_t pte)
{
	store_le32(m->ram + AT_PAGE_TABLE + 4 * (linear >> 12), pte);
}

static inline uint32_t machine_pte(struct machine *m, uint32_t linear)
{
	return load_le32(m->ram + AT_PAGE_TABLE + 4 * (linear >> 12));
}

#endif
