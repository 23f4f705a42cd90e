/* SPDX-License-Identifier: MIT */
/*
 * A protected-mode machine built by hand, for tests of what a user process cannot run: one CPU, one
 * MiB of RAM, GDT, LDT, IDT and TSSs as listed below. Every vector's handler is a HLT at level 0,
 * so a test runs a few bytes of code and then sees where it ended and what was pushed.
 */
#ifndef TESTS_UNIT_CPU_PM_MACHINE_H
#define TESTS_UNIT_CPU_PM_MACHINE_H

#include "core/iobus.h"
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

enum { RAM_SIZE = 0x100000 };

/* Where things are. */
enum {
	AT_IVT = 0x0000,
	AT_GDT = 0x1000,
	AT_LDT = 0x1800,
	AT_IDT = 0x2000,
	AT_TSS_A = 0x3000,    /* the running task's */
	AT_TSS_B = 0x4000,    /* 32-bit, available */
	AT_TSS16 = 0x5000,    /* 16-bit, available */
	AT_CODE = 0x10000,    /* the code under test */
	AT_HANDLER = 0x20000, /* 16 bytes for each vector */
	AT_TARGET = 0x30000,  /* where gates lead: HLT */
	AT_DATA = 0x40000,
	STACK0 = 0x50000,     /* top of level 0's stack in use */
	STACK0_TSS = 0x58000, /* the one in TSS A */
	STACK1_TSS = 0x5C000,
	STACK3 = 0x60000,
};

/* The GDT. Levels 1 and 3 carry their RPL. */
enum {
	CODE0 = 0x08,
	DATA0 = 0x10,
	CODE3 = 0x18 | 3,
	DATA3 = 0x20 | 3,
	TSS_A = 0x28,
	TSS_B = 0x30,
	LDT = 0x38,
	GATE32 = 0x40,     /* call gate, DPL 3, to CODE0:AT_TARGET, two parameters */
	CONFORMING = 0x48, /* DPL 0 */
	CODE1 = 0x50 | 1,
	DATA1 = 0x58 | 1,
	TASK_GATE = 0x60, /* DPL 3, to TSS_B */
	ABSENT = 0x68,    /* data, DPL 0 */
	CODE16 = 0x70,    /* DPL 0, 16 bits, 64 KiB at AT_CODE */
	TSS16 = 0x78,
	GATE16 = 0x80, /* call gate, DPL 3, to CODE16:0x100, one parameter */
	EXEC_ONLY = 0x88,
	EXPAND_DOWN = 0x90, /* valid from 0x1000 on, B = 1 */
	READ_ONLY = 0x98,
	ABSENT_CODE = 0xA0,
	GATE1 = 0xA8,      /* call gate, DPL 3, to CODE1:AT_TARGET, no parameters */
	SMALL_CODE = 0xB0, /* DPL 0, limit 0xFFF at AT_CODE */
	GDT_LIMIT = 0xB7,
	BEYOND = 0xC0, /* not in the table */
	IN_LDT = 0x04, /* the LDT's first entry: data, DPL 0, at AT_DATA, limit 0xFF */
};

enum { VECTOR_TEST = 0x40, /* interrupt gate with DPL 3 */ };

struct pm {
	struct memory *mem;
	struct iobus *io;
	struct soft_cpu *cpu;
	struct cpu_model model;
	uint8_t *ram;
	struct cpu_state s;
};

static inline uint32_t pm_ld32(const struct pm *p, uint32_t at)
{
	return load_le32(p->ram + at);
}

static inline uint16_t pm_ld16(const struct pm *p, uint32_t at)
{
	return load_le16(p->ram + at);
}

/* The nth dword from the top of the current stack. */
static inline uint32_t pm_stack(const struct pm *p, unsigned n)
{
	return pm_ld32(p, p->s.seg[S_SS].base + p->s.gpr[R_ESP] + 4 * n);
}

/* A code, data or system segment; `attr` as in struct cpu_segment. */
static inline void pm_segment(struct pm *p, uint16_t selector, uint32_t base, uint32_t limit,
			      uint16_t attr)
{
	uint8_t *d = p->ram + (selector & 4 ? AT_LDT : AT_GDT) + (selector & ~7u);
	uint32_t raw = attr & SEG_G ? limit >> 12 : limit;
	store_le32(d, (raw & 0xFFFF) | base << 16);
	store_le32(d + 4, (base >> 16 & 0xFF) | (uint32_t)attr << 8 | (raw & 0xF0000) |
				  (base & 0xFF000000));
}

static inline void pm_gate_at(uint8_t *d, uint16_t selector, uint32_t offset, uint8_t type_dpl_p,
			      unsigned parameters)
{
	store_le32(d, (offset & 0xFFFF) | (uint32_t)selector << 16);
	store_le32(d + 4, (offset & 0xFFFF0000) | (uint32_t)type_dpl_p << 8 | parameters);
}

static inline void pm_gate(struct pm *p, uint16_t where, uint16_t selector, uint32_t offset,
			   uint8_t type_dpl_p, unsigned parameters)
{
	pm_gate_at(p->ram + AT_GDT + where, selector, offset, type_dpl_p, parameters);
}

static inline void pm_idt(struct pm *p, unsigned vector, uint16_t selector, uint32_t offset,
			  uint8_t type_dpl_p)
{
	pm_gate_at(p->ram + AT_IDT + 8 * vector, selector, offset, type_dpl_p, 0);
}

/* Types of gates and system segments, present. */
enum {
	P_LDT = 0x82,
	P_TSS16 = 0x81,
	P_TSS32 = 0x89,
	P_TSS32_BUSY = 0x8B,
	P_CALL16 = 0x84,
	P_TASK = 0x85,
	P_INT16 = 0x86,
	P_CALL32 = 0x8C,
	P_INT32 = 0x8E,
	P_TRAP32 = 0x8F,
	DPL3 = 0x60,
	FLAT_CODE = 0xC09B,
	FLAT_DATA = 0xC093,
};

static inline void pm_tables(struct pm *p)
{
	pm_segment(p, CODE0, 0, UINT32_MAX, FLAT_CODE);
	pm_segment(p, DATA0, 0, UINT32_MAX, FLAT_DATA);
	pm_segment(p, CODE3, 0, UINT32_MAX, FLAT_CODE | DPL3);
	pm_segment(p, DATA3, 0, UINT32_MAX, FLAT_DATA | DPL3);
	pm_segment(p, TSS_A, AT_TSS_A, 0x67, P_TSS32_BUSY);
	pm_segment(p, TSS_B, AT_TSS_B, 0x67, P_TSS32);
	pm_segment(p, LDT, AT_LDT, 0xFF, P_LDT);
	pm_gate(p, GATE32, CODE0, AT_TARGET, P_CALL32 | DPL3, 2);
	pm_segment(p, CONFORMING, 0, UINT32_MAX, 0xC09E);
	pm_segment(p, CODE1, 0, UINT32_MAX, FLAT_CODE | 0x20);
	pm_segment(p, DATA1, 0, UINT32_MAX, FLAT_DATA | 0x20);
	pm_gate(p, TASK_GATE, TSS_B, 0, P_TASK | DPL3, 0);
	pm_segment(p, ABSENT, 0, UINT32_MAX, 0xC013);
	pm_segment(p, CODE16, AT_CODE, 0xFFFF, 0x009A);
	pm_segment(p, TSS16, AT_TSS16, 0x2B, P_TSS16);
	pm_gate(p, GATE16, CODE16, 0x100, P_CALL16 | DPL3, 1);
	pm_segment(p, EXEC_ONLY, 0, UINT32_MAX, 0xC098);
	pm_segment(p, EXPAND_DOWN, 0, 0xFFF, 0x4096);
	pm_segment(p, READ_ONLY, 0, UINT32_MAX, 0xC090);
	pm_segment(p, ABSENT_CODE, 0, UINT32_MAX, 0xC01A);
	pm_gate(p, GATE1, CODE1, AT_TARGET, P_CALL32 | DPL3, 0);
	pm_segment(p, SMALL_CODE, AT_CODE, 0xFFF, 0x409A);
	pm_segment(p, IN_LDT, AT_DATA, 0xFF, 0x4092);
	for (unsigned v = 0; v < 256; v++) {
		pm_idt(p, v, CODE0, AT_HANDLER + 16 * v, P_INT32);
		p->ram[AT_HANDLER + 16 * v] = 0xF4; /* HLT */
	}
	pm_idt(p, VECTOR_TEST, CODE0, AT_HANDLER + 16 * VECTOR_TEST, P_INT32 | DPL3);
	p->ram[AT_TARGET] = 0xF4;
	store_le32(p->ram + AT_TSS_A + 4, STACK0_TSS);
	store_le16(p->ram + AT_TSS_A + 8, DATA0);
	store_le32(p->ram + AT_TSS_A + 12, STACK1_TSS);
	store_le16(p->ram + AT_TSS_A + 16, DATA1);
	store_le16(p->ram + AT_TSS_A + 0x66, 0x68); /* no I/O map */
}

static inline struct cpu_segment pm_cache(const struct pm *p, uint16_t selector)
{
	const uint8_t *d = p->ram + (selector & 4 ? AT_LDT : AT_GDT) + (selector & ~7u);
	uint32_t lo = load_le32(d), hi = load_le32(d + 4);
	struct cpu_segment seg = {
		.selector = selector,
		.attr = (uint16_t)(hi >> 8 & 0xF0FF),
		.base = lo >> 16 | (hi & 0xFF) << 16 | (hi & 0xFF000000),
		.limit = (lo & 0xFFFF) | (hi & 0xF0000),
	};
	if (seg.attr & SEG_G)
		seg.limit = seg.limit << 12 | 0xFFF;
	return seg;
}

static inline void pm_load(struct pm *p, unsigned sreg, uint16_t selector)
{
	p->s.seg[sreg] = pm_cache(p, selector);
}

/* A CPU in protected mode at level 0, 1 or 3, about to run what pm_run() gives it. */
static inline void pm_level(struct pm *p, unsigned cpl)
{
	static const uint16_t code[] = {CODE0, CODE1, 0, CODE3}, data[] = {DATA0, DATA1, 0, DATA3};
	static const uint32_t stack[] = {STACK0, STACK1_TSS - 0x400, 0, STACK3};
	struct cpu_state *s = &p->s;
	memset(s, 0, sizeof(*s));
	pm_load(p, S_CS, code[cpl]);
	for (unsigned n = 0; n < 6; n++) {
		if (n != S_CS)
			pm_load(p, n, data[cpl]);
	}
	s->tr = pm_cache(p, TSS_A);
	s->ldt = pm_cache(p, LDT);
	s->gdt = (struct cpu_table){.base = AT_GDT, .limit = GDT_LIMIT};
	s->idt = (struct cpu_table){.base = AT_IDT, .limit = 0x7FF};
	s->cr0 = CR0_PE | CR0_ET | CR0_NE;
	s->eflags = FL_1;
	s->eip = AT_CODE;
	s->gpr[R_ESP] = stack[cpl];
	s->dr[6] = 0xFFFF0FF0;
	s->dr[7] = 0x400;
	s->apic_base = 0xFEE00900;
	s->pat = UINT64_C(0x0007040600070406);
	store_le16(s->fxsave, 0x37F);
	store_le32(s->fxsave + 24, 0x1F80);
}

/* Real mode, CS and DS at AT_CODE, IVT at 0, stack in its own segment. */
static inline void pm_real(struct pm *p)
{
	pm_level(p, 0);
	struct cpu_state *s = &p->s;
	for (unsigned n = 0; n < 6; n++)
		s->seg[n] = (struct cpu_segment){
			.selector = AT_CODE >> 4, .attr = 0x93, .base = AT_CODE, .limit = 0xFFFF};
	s->tr = s->ldt = (struct cpu_segment){0};
	s->idt = (struct cpu_table){.base = AT_IVT, .limit = 0x3FF};
	s->cr0 = CR0_ET;
	s->eip = 0;
	s->gpr[R_ESP] = 0x8000;
	for (unsigned v = 0; v < 256; v++)
		store_le32(p->ram + AT_IVT + 4 * v, (AT_HANDLER >> 4) << 16 | 16 * v);
}

/* Runs the state in p->s until the CPU halts. */
static inline enum soft_exit pm_go(struct pm *p)
{
	soft_cpu_set_state(p->cpu, &p->s);
	enum soft_exit why = soft_cpu_run(p->cpu, 10000);
	soft_cpu_get_state(p->cpu, &p->s);
	return why;
}

/* Puts the code at CS:EIP and runs it. */
static inline void pm_run_bytes(struct pm *p, const uint8_t *code, size_t len)
{
	uint32_t at = p->s.seg[S_CS].base + p->s.eip;
	memcpy(p->ram + at, code, len);
	soft_cpu_ram_written(p->cpu, p->ram + at, len);
	assert_int_equal(pm_go(p), SOFT_HALTED);
}
#define pm_run(p, ...)                                                                             \
	do {                                                                                       \
		static const uint8_t code_[] = {__VA_ARGS__};                                      \
		pm_run_bytes(p, code_, sizeof(code_));                                             \
	} while (0)

/* The bytes of a little-endian number in code. */
#define W(v) (uint8_t)(v), (uint8_t)((v) >> 8)
#define D(v) W(v), (uint8_t)((uint32_t)(v) >> 16), (uint8_t)((uint32_t)(v) >> 24)

/* The CPU stands in the handler of `vector`. */
#define assert_vector(p, vector)                                                                   \
	do {                                                                                       \
		assert_int_equal((p)->s.seg[S_CS].selector, CODE0);                                \
		assert_int_equal((p)->s.eip, AT_HANDLER + 16 * (vector) + 1);                      \
	} while (0)
/* ... with this error code, for the instruction `at` bytes into the code. */
#define assert_fault(p, vector, error, at)                                                         \
	do {                                                                                       \
		assert_vector(p, vector);                                                          \
		assert_int_equal(pm_stack(p, 0), error);                                           \
		assert_int_equal(pm_stack(p, 1), AT_CODE + (at));                                  \
	} while (0)

static inline int pm_setup_model(void **state, const char *model)
{
	struct pm *p = calloc(1, sizeof(*p));
	struct error err = ERROR_INIT;
	assert_int_equal(cpu_model_parse(model, &p->model, &err), 0);
	p->mem = memory_new();
	p->io = iobus_new();
	struct mem_region *ram = mem_region_new_ram(p->mem, "ram", RAM_SIZE, &err);
	mem_mapping_set(mem_map(p->mem, ram, 0, 0, RAM_SIZE, MEM_PRIO_RAM), 0, MEM_RW);
	p->ram = ram->host;
	struct soft_cpu_config config = {.cpus = 1, .model = &p->model, .mem = p->mem, .io = p->io};
	p->cpu = test_cpu_new(&config);
	assert_non_null(p->cpu);
	pm_tables(p);
	pm_level(p, 0);
	*state = p;
	return 0;
}

static inline int pm_setup(void **state)
{
	return pm_setup_model(state, "qemu32,nx=on");
}

static inline int pm_teardown(void **state)
{
	struct pm *p = *state;
	soft_cpu_free(p->cpu);
	iobus_free(p->io);
	memory_free(p->mem);
	free(p);
	return 0;
}

#define PM_TEST(name) cmocka_unit_test_setup_teardown(name, pm_setup, pm_teardown)

#endif
