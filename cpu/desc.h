/* SPDX-License-Identifier: MIT */
/*
 * Segment and gate descriptors (SDM vol. 3A, 3.4.5 and 5.8.3), and the pieces that far transfers,
 * interrupts and task switches share: reading a descriptor, the inner stack of a TSS, a stack that
 * is not yet the CPU's own.
 */
#ifndef CPU_DESC_H
#define CPU_DESC_H

#include "cpu/internal.h"

struct descriptor {
	uint32_t lo, hi;
};

/* Types of system descriptors and gates (SDM vol. 3A, table 3-2). Bit 3 tells the 32-bit ones. */
enum {
	SYS_TSS16 = 1,
	SYS_LDT = 2,
	SYS_TSS16_BUSY = 3,
	SYS_CALL_GATE16 = 4,
	SYS_TASK_GATE = 5,
	SYS_INT_GATE16 = 6,
	SYS_TRAP_GATE16 = 7,
	SYS_TSS32 = 9,
	SYS_TSS32_BUSY = 11,
	SYS_CALL_GATE32 = 12,
	SYS_INT_GATE32 = 14,
	SYS_TRAP_GATE32 = 15,
	SYS_BUSY = 2, /* the busy bit of a TSS type */
	SYS_32 = 8,
};

/* Selector fields and the bits of an error code that names a selector (SDM vol. 3A, 3.4.2, 6.13).
 */
enum {
	SEL_RPL = 3,
	SEL_TI = 4,
	ERR_EXT = 1,
	ERR_IDT = 2,
};

/* Attributes of segments that no descriptor gave. */
enum {
	ATTR_REAL = SEG_P | SEG_S | SEG_RW | SEG_ACCESSED,
	ATTR_V86 = ATTR_REAL | SEG_DPL,
};

static inline unsigned desc_attr(const struct descriptor *d)
{
	return (d->hi >> 8) & (0xFFFF & ~0x0F00); /* limit bits 16..19 are no attributes */
}

static inline unsigned desc_type(const struct descriptor *d)
{
	return d->hi >> 8 & SEG_TYPE;
}

static inline unsigned desc_dpl(const struct descriptor *d)
{
	return d->hi >> 13 & 3;
}

static inline bool desc_is_segment(const struct descriptor *d)
{
	return desc_attr(d) & SEG_S;
}

static inline bool desc_is_code(const struct descriptor *d)
{
	return (desc_attr(d) & (SEG_S | SEG_CODE)) == (SEG_S | SEG_CODE);
}

static inline bool desc_is_conforming(const struct descriptor *d)
{
	return desc_attr(d) & SEG_CE;
}

static inline bool desc_is_writable_data(const struct descriptor *d)
{
	return (desc_attr(d) & (SEG_S | SEG_CODE | SEG_RW)) == (SEG_S | SEG_RW);
}

static inline bool desc_present(const struct descriptor *d)
{
	return desc_attr(d) & SEG_P;
}

static inline uint32_t desc_base(const struct descriptor *d)
{
	return d->lo >> 16 | (d->hi & 0xFF) << 16 | (d->hi & 0xFF000000);
}

static inline uint32_t desc_limit(const struct descriptor *d)
{
	uint32_t limit = (d->lo & 0xFFFF) | (d->hi & 0xF0000);
	return desc_attr(d) & SEG_G ? limit << 12 | 0xFFF : limit;
}

/* Gates: where they lead. */
static inline uint16_t gate_selector(const struct descriptor *d)
{
	return (uint16_t)(d->lo >> 16);
}

static inline uint32_t gate_offset(const struct descriptor *d)
{
	uint32_t low = d->lo & 0xFFFF;
	return desc_type(d) & SYS_32 ? low | (d->hi & 0xFFFF0000) : low;
}

static inline bool desc_is_available_tss(const struct descriptor *d)
{
	return !desc_is_segment(d) && (desc_type(d) & ~SYS_32) == SYS_TSS16;
}

static inline bool desc_is_busy_tss(const struct descriptor *d)
{
	return !desc_is_segment(d) && (desc_type(d) & ~SYS_32) == SYS_TSS16_BUSY;
}

static inline bool selector_null(uint16_t selector)
{
	return !(selector & ~SEL_RPL);
}

static inline _Noreturn void raise_selector(struct soft_cpu *c, unsigned vector, uint16_t selector,
					    unsigned ext)
{
	cpu_raise_error(c, vector, (selector & ~SEL_RPL) | ext);
}

/* ---- seg.c ---- */
/* Reads the descriptor from GDT or LDT. False if the selector lies beyond the table's limit (a null
 * selector reads entry 0 of the GDT: exclude it first). May raise #PF. */
bool desc_read(struct soft_cpu *c, uint16_t selector, struct descriptor *d);
/* The same, raising `vector`(selector | ext) when it lies outside. */
void desc_read_or_raise(struct soft_cpu *c, uint16_t selector, unsigned vector, unsigned ext,
			struct descriptor *d);
/* Sets the accessed bit in memory and in `d` if it is clear. Code and data descriptors only. */
void desc_mark_accessed(struct soft_cpu *c, uint16_t selector, struct descriptor *d);
/* Sets or clears the busy bit of the TSS descriptor in the GDT. */
void desc_set_busy(struct soft_cpu *c, uint16_t selector, bool busy);
/* Linear address of the descriptor (the selector must be within its table). */
uint32_t desc_linear(const struct soft_cpu *c, uint16_t selector);
/* Fills a segment register's cache from a descriptor. */
void desc_to_segment(const struct descriptor *d, uint16_t selector, struct cpu_segment *seg);
/* A segment register that holds a null selector: every access faults. */
void segment_make_null(struct cpu_segment *seg, uint16_t selector);
/* Loads V86 attributes and base = selector * 16. */
void segment_make_v86(struct cpu_segment *seg, uint16_t selector);
/* After a return to an outer level: data segments that it may not use become null (SDM vol. 2,
 * RET). */
void drop_inner_data_segments(struct soft_cpu *c);
/* May [low, high] be accessed in this segment? Limit and expand-down only. */
bool segment_covers(const struct cpu_segment *seg, uint32_t low, uint32_t high);

/* Loads CS (RPL becomes `cpl`) and sets next_eip. All checks are done. The caller calls
 * cpu_mode_changed(). */
void commit_cs(struct soft_cpu *c, uint16_t selector, struct descriptor *d, unsigned cpl,
	       uint32_t eip);

/*
 * A stack being pushed to before it is known that all will go well. `current`: the CPU's own SS,
 * with its rights and checks; otherwise a stack of an inner level, reached with supervisor rights.
 */
struct stack {
	struct soft_cpu *c;
	struct cpu_segment ss;
	uint32_t esp, mask;
	bool current;
};

static inline uint32_t stack_mask(const struct cpu_segment *ss)
{
	return ss->attr & SEG_DB ? UINT32_MAX : 0xFFFF;
}

/* The CPU's own stack. */
struct stack stack_current(struct soft_cpu *c);
/* The stack that the current TSS holds for privilege `dpl`; #TS and #SS with EXT as SDM vol. 2 says
 * under CALL and INT n. */
struct stack stack_from_tss(struct soft_cpu *c, unsigned dpl, unsigned ext);
bool stack_has_room(const struct stack *s, unsigned bytes);
void stack_push(struct stack *s, bool op32, uint32_t value);
/* The word or dword `bytes` above the top of the CPU's own stack; nothing moves. */
uint32_t stack_peek(struct soft_cpu *c, bool op32, unsigned bytes);
/* Makes SS (unless it is the current one) and ESP the CPU's. */
void stack_commit(const struct stack *s);
/* ESP or SP, by the size of the stack. */
void set_stack_pointer(struct soft_cpu *c, const struct cpu_segment *ss, uint32_t esp);

/* ---- task.c ---- */
/* task_switch() with the EFLAGS to save for the old task and the EXT bit for error codes. */
void task_switch_event(struct soft_cpu *c, uint16_t selector, enum task_switch_cause cause,
		       uint32_t return_eip, uint32_t saved_flags, unsigned ext, bool has_error,
		       uint32_t error);

#endif
