/* SPDX-License-Identifier: MIT */
/*
 * The software CPUs as a user process sees a 32-bit CPU: CPL 3, flat segments with Linux's
 * selectors, paging with the same pages mapped. Each exception goes through an interrupt gate to a
 * HLT of its own in ring 0; the far jump at CODE_EXIT raises #GP, as its selector is empty here.
 *
 * A run begins with an NMI, whose handler loads the registers from memory and returns to the code:
 * so nothing that the CPU remembers of code is lost between runs. Pages that lie behind each other
 * lie before each other in RAM, so that an access across pages is one of two places.
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
	START = 0x5400, /* the handler of NMI */
	START_FX = 0x5800,
	START_GPR = 0x5A00,
	START_FRAME = 0x5A40, /* for IRET: EIP CS EFLAGS ESP SS */
	STACK_END = 0x6F00,   /* of ring 0 */
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
	NMI = 2,
	USER_SIZE = DATA_BASE + DATA_SIZE - CODE_BASE,
};

struct soft_machine {
	struct soft_cpu *cpu;
	uint8_t *user, *sys;    /* RAM */
	unsigned overhead_each; /* instructions executed on behalf of the test, each run */
	uint64_t runs;
};
static struct soft_machine machines[SOFT_ENGINES];
const char *const soft_names[SOFT_ENGINES] = {"interpreter", "translator"};
uint8_t soft_data[SOFT_ENGINES][DATA_SIZE];

static struct cpu_segment flat(uint16_t selector, uint16_t attr)
{
	return (struct cpu_segment){selector, attr, 0, 0xFFFFFFFF};
}

static void descriptor(uint8_t *sys, unsigned selector, uint32_t address, uint32_t limit,
		       uint32_t attr)
{
	store_le32(sys + GDT + selector, address << 16 | (limit & 0xFFFF));
	store_le32(sys + GDT + selector + 4,
		   (address & 0xFF000000) | (address >> 16 & 0xFF) | (limit & 0xF0000) | attr << 8);
}

/* Where a user page is. */
static uint32_t physical(uint32_t linear)
{
	uint32_t offset = linear - CODE_BASE, page = offset & ~(uint32_t)(GUEST_PAGE_SIZE - 1);

	return (uint32_t)(CODE_BASE + USER_SIZE - GUEST_PAGE_SIZE) - page + (offset - page);
}

static void map_pages(uint8_t *sys, uint32_t table, uint32_t at, uint32_t size, uint32_t flags,
		      bool reversed)
{
	store_le32(sys + PAGE_DIRECTORY + (at >> 22) * 4,
		   (SYSTEM_BASE + table) | PTE_P | PTE_W | PTE_U | PTE_A);
	for (uint32_t page = at; page < at + size; page += GUEST_PAGE_SIZE)
		store_le32(sys + table + (page >> 12 & 0x3FF) * 4,
			   (reversed ? physical(page) : page) | flags | PTE_P | PTE_A | PTE_D);
}

/* fxrstor; data segments; general registers; iret. */
static unsigned write_start(uint8_t *at)
{
	static const uint8_t segments[] = {
		0xB8, USER_DS, 0,    0,    0,    0x8E, 0xD8, /* mov ds, USER_DS */
		0x8E, 0xC0,                                  /* es */
		0x31, 0xC0,    0x8E, 0xE0, 0x8E, 0xE8,       /* fs, gs: 0 */
		0x0F, 0xAE,    0x0D,                         /* fxrstor [...] */
	};
	uint8_t *p = at;
	unsigned insns = 7;

	memcpy(p, segments, sizeof segments);
	store_le32(p + sizeof segments, SYSTEM_BASE + START_FX);
	p += sizeof segments + 4;
	for (unsigned n = 0; n < 8; n++) {
		if (n == R_ESP)
			continue;
		p[0] = 0x8B; /* mov reg, [...] */
		p[1] = (uint8_t)(n << 3 | 5);
		store_le32(p + 2, SYSTEM_BASE + START_GPR + 4 * n);
		p += 6;
		insns++;
	}
	*p = 0xBC; /* mov esp, frame */
	store_le32(p + 1, SYSTEM_BASE + START_FRAME);
	p[5] = 0xCF;
	return insns + 2;
}

static void build_system(struct soft_machine *m)
{
	uint8_t *sys = m->sys;

	enum {
		CODE0 = 0xC09B,
		DATA0 = 0xC093,
		CODE3 = 0xC0FB,
		DATA3 = 0xC0F3,
		TSS32_BUSY = 0x008B,
		GATE = 0x8E00
	};

	map_pages(sys, TABLE_USER, CODE_BASE, CODE_SIZE, PTE_U, true);
	map_pages(sys, TABLE_USER, DATA_BASE, DATA_SIZE, PTE_U | PTE_W, true);
	map_pages(sys, TABLE_SYSTEM, SYSTEM_BASE, SYSTEM_SIZE, PTE_W, false);
	descriptor(sys, SYSTEM_CS, 0, 0xFFFFF, CODE0);
	descriptor(sys, SYSTEM_DS, 0, 0xFFFFF, DATA0);
	descriptor(sys, USER_CS & ~7, 0, 0xFFFFF, CODE3);
	descriptor(sys, USER_DS & ~7, 0, 0xFFFFF, DATA3);
	descriptor(sys, TSS_SELECTOR, SYSTEM_BASE + TSS, TSS_LIMIT, TSS32_BUSY);
	store_le32(sys + TSS + 4, SYSTEM_BASE + STACK_END); /* ESP0, SS0 */
	store_le32(sys + TSS + 8, SYSTEM_DS);
	store_le16(sys + TSS + 102, TSS_LIMIT + 1); /* no I/O permission bitmap */
	memset(sys + HANDLERS, OP_HLT, VECTORS);
	for (unsigned v = 0; v < VECTORS; v++) {
		uint32_t at = SYSTEM_BASE + (v == NMI ? START : HANDLERS + v);
		uint32_t dpl = v == EXC_BP || v == EXC_OF ? 3 : 0;

		store_le32(sys + IDT + 8 * v, (uint32_t)SYSTEM_CS << 16 | (at & 0xFFFF));
		store_le32(sys + IDT + 8 * v + 4, (at & 0xFFFF0000) | GATE | dpl << 13);
	}

	m->overhead_each = write_start(sys + START) + 1;

	struct cpu_state base;
	soft_cpu_get_state(m->cpu, &base);
	base.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	base.cr3 = SYSTEM_BASE + PAGE_DIRECTORY;
	base.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT;
	base.gdt = (struct cpu_table){SYSTEM_BASE + GDT, GDT_ENTRIES * 8 - 1};
	base.idt = (struct cpu_table){SYSTEM_BASE + IDT, VECTORS * 8 - 1};
	base.tr = (struct cpu_segment){TSS_SELECTOR, TSS32_BUSY, SYSTEM_BASE + TSS, TSS_LIMIT};
	base.seg[S_CS] = flat(SYSTEM_CS, CODE0);
	base.seg[S_SS] = base.seg[S_DS] = base.seg[S_ES] = flat(SYSTEM_DS, DATA0);
	base.eip = SYSTEM_BASE + HANDLERS;
	base.gpr[R_ESP] = SYSTEM_BASE + STACK_END;
	base.eflags = FL_1;
	base.activity = CPU_HALTED;
	base.seg[S_FS] = base.seg[S_GS] = (struct cpu_segment){0};
	base.ldt = (struct cpu_segment){0};
	soft_cpu_set_state(m->cpu, &base);
}

static bool open_machine(enum soft_engine e, bool verify)
{
	static struct cpu_model model;
	struct soft_machine *m = &machines[e];
	struct soft_cpu_config config = {
		.cpus = 1,
		.model = &model,
		.jit = e == SOFT_TRANSLATOR,
		.jit_after = 1,
		.verify = e == SOFT_TRANSLATOR && verify,
	};
	struct error err;
	struct mem_region *user, *system;

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
	m->user = user->host;
	m->sys = system->host;
	m->cpu = soft_cpu_new(&config, &err);
	if (!m->cpu) {
		fprintf(stderr, "diff: %s\n", err.text);
		return false;
	}
	build_system(m);
	return true;
}

bool soft_open(bool verify)
{
	for (unsigned e = 0; e < SOFT_ENGINES; e++)
		if (!open_machine(e, verify))
			return false;
	return true;
}

static uint8_t *host_of(const struct soft_machine *m, uint32_t linear)
{
	return m->user + (physical(linear) - CODE_BASE);
}

/* Gives the guest what it may have executed: the CPU is told if that changes. */
static void load_page(struct soft_machine *m, uint32_t linear, const uint8_t *from, size_t len)
{
	uint8_t *to = host_of(m, linear);

	if (!memcmp(to, from, len))
		return;
	memcpy(to, from, len);
	soft_cpu_ram_written(m->cpu, to, len);
}

void soft_load_code(enum soft_engine e, const uint8_t *code, size_t len)
{
	for (size_t at = 0; at < len; at += GUEST_PAGE_SIZE)
		load_page(&machines[e], (uint32_t)(CODE_BASE + at), code + at,
			  len - at < GUEST_PAGE_SIZE ? len - at : GUEST_PAGE_SIZE);
}

uint64_t soft_instructions(enum soft_engine e)
{
	const struct soft_machine *m = &machines[e];
	uint64_t all = soft_cpu_instructions(m->cpu), overhead = m->runs * m->overhead_each;

	return all > overhead ? all - overhead : 0;
}

uint64_t soft_translated(void)
{
	return soft_cpu_translated_blocks(machines[SOFT_TRANSLATOR].cpu);
}

/* Whether the exception pushes an error code (SDM vol. 3A, table 6-1). */
static bool has_error(unsigned vector)
{
	return vector == EXC_DF || (vector >= EXC_TS && vector <= EXC_PF) || vector == EXC_AC;
}

/* The state that the handler of NMI loads. */
static void write_state(struct soft_machine *m, const struct machine_state *s)
{
	uint8_t *sys = m->sys;

	memcpy(sys + START_FX, s->fx, sizeof s->fx);
	memcpy(sys + START_GPR, s->gpr, sizeof s->gpr);
	store_le32(sys + START_FRAME, s->eip);
	store_le32(sys + START_FRAME + 4, USER_CS);
	store_le32(sys + START_FRAME + 8, s->eflags | IF);
	store_le32(sys + START_FRAME + 12, s->gpr[R_ESP]);
	store_le32(sys + START_FRAME + 16, USER_DS);
}

void soft_run(enum soft_engine e, struct machine_state *s, struct outcome *out)
{
	static struct cpu_state state;
	struct soft_machine *m = &machines[e];
	const uint8_t *frame;
	enum soft_exit reason;

	write_state(m, s);
	for (uint32_t at = 0; at < DATA_SIZE; at += GUEST_PAGE_SIZE)
		load_page(m, DATA_BASE + at, soft_data[e] + at, GUEST_PAGE_SIZE);
	*out = (struct outcome){0};
	m->runs++;
	soft_cpu_nmi(m->cpu);
	do
		reason = soft_cpu_run(m->cpu, 100000);
	while (reason == SOFT_KICKED || reason == SOFT_BUDGET);
	for (uint32_t at = 0; at < DATA_SIZE; at += GUEST_PAGE_SIZE)
		memcpy(soft_data[e] + at, host_of(m, DATA_BASE + at), GUEST_PAGE_SIZE);
	soft_cpu_get_state(m->cpu, &state);
	memcpy(s->gpr, state.gpr, sizeof s->gpr);
	memcpy(s->fx, state.fxsave, sizeof s->fx);
	if (reason == SOFT_DIFFERS)
		printf("%s", soft_cpu_difference(m->cpu));
	if (reason != SOFT_HALTED) {
		out->vector = 100 + reason; /* no exception: differs from whatever the host did */
		s->eip = state.eip;
		return;
	}
	out->vector = state.eip - 1 - (SYSTEM_BASE + HANDLERS);
	frame = m->sys + (state.gpr[R_ESP] - SYSTEM_BASE) % SYSTEM_SIZE;
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
