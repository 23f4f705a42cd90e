/* SPDX-License-Identifier: MIT */
/*
 * The software CPU as a user process sees a 32-bit CPU: CPL 3, flat segments with Linux's
 * selectors, paging with the same pages mapped. Each exception goes through an interrupt gate to a
 * HLT of its own in ring 0; the far jump at CODE_EXIT raises #GP, as its selector is empty here.
 */
#include "core/cpu_model.h"
#include "core/iobus.h"
#include "core/memory.h"
#include "cpu/soft_cpu.h"
#include "lib/bytes.h"
#include "tests/diff/diff.h"
#include <stdio.h>
#include <string.h>

/* Offsets in the system's memory. */
enum {
	PAGE_DIRECTORY = 0x0000,
	TABLE_USER = 0x1000,
	TABLE_SYSTEM = 0x2000,
	GDT = 0x3000,
	IDT = 0x3800,
	TSS = 0x4000,
	HANDLERS = 0x5000,
	STACK_END = 0x6F00, /* of ring 0 */
	VECTORS = 32,
	GDT_ENTRIES = 16,
	SYSTEM_CS = 0x10,
	SYSTEM_DS = 0x18,
	TSS_SELECTOR = 0x40,
	TSS_LIMIT = 103,
	PTE_P = 1,
	PTE_W = 2,
	PTE_U = 4,
	PTE_A = 0x20,
	PTE_D = 0x40,
	OP_HLT = 0xF4,
	IF = 0x200,
};

static struct soft_cpu *cpu;
static uint8_t *sys;
static struct cpu_state base;
uint8_t *soft_code, *soft_data;

static struct cpu_segment flat(uint16_t selector, uint16_t attr)
{
	return (struct cpu_segment){selector, attr, 0, 0xFFFFFFFF};
}

static void descriptor(unsigned selector, uint32_t address, uint32_t limit, uint32_t attr)
{
	store_le32(sys + GDT + selector, address << 16 | (limit & 0xFFFF));
	store_le32(sys + GDT + selector + 4,
		   (address & 0xFF000000) | (address >> 16 & 0xFF) | (limit & 0xF0000) | attr << 8);
}

static void map_pages(uint32_t table, uint32_t at, uint32_t size, uint32_t flags)
{
	store_le32(sys + PAGE_DIRECTORY + (at >> 22) * 4,
		   (SYSTEM_BASE + table) | PTE_P | PTE_W | PTE_U | PTE_A);
	for (uint32_t page = at; page < at + size; page += GUEST_PAGE_SIZE)
		store_le32(sys + table + (page >> 12 & 0x3FF) * 4,
			   page | flags | PTE_P | PTE_A | PTE_D);
}

static void build_system(void)
{
	enum {
		CODE0 = 0xC09B,
		DATA0 = 0xC093,
		CODE3 = 0xC0FB,
		DATA3 = 0xC0F3,
		TSS32_BUSY = 0x008B,
		GATE = 0x8E00
	};

	map_pages(TABLE_USER, CODE_BASE, CODE_SIZE, PTE_U);
	map_pages(TABLE_USER, DATA_BASE, DATA_SIZE, PTE_U | PTE_W);
	map_pages(TABLE_SYSTEM, SYSTEM_BASE, SYSTEM_SIZE, PTE_W);
	descriptor(SYSTEM_CS, 0, 0xFFFFF, CODE0);
	descriptor(SYSTEM_DS, 0, 0xFFFFF, DATA0);
	descriptor(USER_CS & ~7, 0, 0xFFFFF, CODE3);
	descriptor(USER_DS & ~7, 0, 0xFFFFF, DATA3);
	descriptor(TSS_SELECTOR, SYSTEM_BASE + TSS, TSS_LIMIT, TSS32_BUSY);
	store_le32(sys + TSS + 4, SYSTEM_BASE + STACK_END); /* ESP0, SS0 */
	store_le32(sys + TSS + 8, SYSTEM_DS);
	store_le16(sys + TSS + 102, TSS_LIMIT + 1); /* no I/O permission bitmap */
	memset(sys + HANDLERS, OP_HLT, VECTORS);
	for (unsigned v = 0; v < VECTORS; v++) {
		uint32_t at = SYSTEM_BASE + HANDLERS + v;
		uint32_t dpl = v == EXC_BP || v == EXC_OF ? 3 : 0;

		store_le32(sys + IDT + 8 * v, (uint32_t)SYSTEM_CS << 16 | (at & 0xFFFF));
		store_le32(sys + IDT + 8 * v + 4, (at & 0xFFFF0000) | GATE | dpl << 13);
	}

	base.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	base.cr3 = SYSTEM_BASE + PAGE_DIRECTORY;
	base.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT;
	base.gdt = (struct cpu_table){SYSTEM_BASE + GDT, GDT_ENTRIES * 8 - 1};
	base.idt = (struct cpu_table){SYSTEM_BASE + IDT, VECTORS * 8 - 1};
	base.tr = (struct cpu_segment){TSS_SELECTOR, TSS32_BUSY, SYSTEM_BASE + TSS, TSS_LIMIT};
	base.seg[S_CS] = flat(USER_CS, CODE3);
	base.seg[S_SS] = base.seg[S_DS] = base.seg[S_ES] = flat(USER_DS, DATA3);
	base.seg[S_FS] = base.seg[S_GS] = (struct cpu_segment){0};
	base.ldt = (struct cpu_segment){0};
}

bool soft_open(void)
{
	static struct cpu_model model;
	struct soft_cpu_config config = {.cpus = 1, .model = &model};
	struct error err;
	struct mem_region *user, *system;
	enum { USER_SIZE = DATA_BASE + DATA_SIZE - CODE_BASE };

	config.mem = memory_new();
	config.io = iobus_new();
	if (cpu_model_parse("max", &model, &err) < 0 ||
	    !(user = mem_region_new_ram(config.mem, "user", USER_SIZE, &err)) ||
	    !(system = mem_region_new_ram(config.mem, "system", SYSTEM_SIZE, &err))) {
		fprintf(stderr, "diff: %s\n", err.text);
		return false;
	}
	mem_mapping_set(mem_map(config.mem, user, 0, CODE_BASE, USER_SIZE, MEM_PRIO_RAM), CODE_BASE,
			MEM_RW);
	mem_mapping_set(mem_map(config.mem, system, 0, SYSTEM_BASE, SYSTEM_SIZE, MEM_PRIO_RAM),
			SYSTEM_BASE, MEM_RW);
	soft_code = user->host;
	soft_data = user->host + (DATA_BASE - CODE_BASE);
	sys = system->host;
	cpu = soft_cpu_new(&config, &err);
	if (!cpu) {
		fprintf(stderr, "diff: %s\n", err.text);
		return false;
	}
	soft_cpu_get_state(cpu, &base);
	build_system();
	return true;
}

void soft_code_changed(size_t len)
{
	soft_cpu_ram_written(cpu, soft_code, len);
}

uint64_t soft_instructions(void)
{
	return soft_cpu_instructions(cpu);
}

/* Whether the exception pushes an error code (SDM vol. 3A, table 6-1). */
static bool has_error(unsigned vector)
{
	return vector == EXC_DF || (vector >= EXC_TS && vector <= EXC_PF) || vector == EXC_AC;
}

void soft_run(struct machine_state *s, struct outcome *out)
{
	static struct cpu_state state;
	const uint8_t *frame;
	enum soft_exit reason;

	state = base;
	state.activity = CPU_RUNNING;
	memcpy(state.gpr, s->gpr, sizeof s->gpr);
	state.eip = s->eip;
	state.eflags = s->eflags | IF;
	memcpy(state.fxsave, s->fx, sizeof s->fx);
	soft_cpu_set_state(cpu, &state);
	*out = (struct outcome){0};
	do
		reason = soft_cpu_run(cpu, 100000);
	while (reason == SOFT_KICKED || reason == SOFT_BUDGET);
	soft_cpu_get_state(cpu, &state);
	memcpy(s->gpr, state.gpr, sizeof s->gpr);
	memcpy(s->fx, state.fxsave, sizeof s->fx);
	if (reason != SOFT_HALTED) {
		out->vector = 100 + reason; /* no exception: differs from whatever the host did */
		s->eip = state.eip;
		return;
	}
	out->vector = state.eip - 1 - (SYSTEM_BASE + HANDLERS);
	frame = sys + (state.gpr[R_ESP] - SYSTEM_BASE) % SYSTEM_SIZE;
	if (has_error(out->vector)) {
		out->error = load_le32(frame);
		frame += 4;
	}
	out->cr2 = state.cr2;
	s->eip = load_le32(frame);
	s->eflags = load_le32(frame + 8);
	s->gpr[R_ESP] = load_le32(frame + 12);
	out->finished = out->vector == EXC_GP && s->eip == CODE_EXIT;
}
