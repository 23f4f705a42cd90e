/* SPDX-License-Identifier: MIT */
/*
 * Delivery of interrupts and exceptions (SDM vol. 3A, chapter 6 and 20.3; vol. 2, "INT
 * n/INTO/INT3/INT1", whose pseudo-code gives the order of checks and the error codes).
 *
 *   real mode       IVT of 4-byte entries at IDTR.base
 *   protected mode  interrupt, trap and task gates in the IDT; to the same or an inner level
 *   V86 mode        the same gates; only to level 0, with the data segments saved and made null
 *
 * EXT, bit 0 of error codes raised here, tells that the event came from outside the program.
 */
#include "cpu/desc.h"

struct event {
	unsigned vector;
	enum intr_source source;
	bool has_error;
	uint32_t error;
	uint32_t return_eip;
	uint32_t flags; /* EFLAGS as they are saved */
	unsigned ext;
};

/* Exceptions of the fault class: the saved image has RF set, so that the instruction's breakpoint
 * does not hit twice (SDM vol. 3B, 17.3.1.1). */
static bool is_fault_class(unsigned vector)
{
	const uint32_t faults = 1u << EXC_DE | 1u << EXC_BR | 1u << EXC_UD | 1u << EXC_NM |
				1u << EXC_TS | 1u << EXC_NP | 1u << EXC_SS | 1u << EXC_GP |
				1u << EXC_PF | 1u << EXC_MF | 1u << EXC_AC | 1u << EXC_XM;
	return vector < 32 && (faults >> vector & 1);
}

static _Noreturn void raise_gate(struct soft_cpu *c, unsigned exception, const struct event *e)
{
	cpu_raise_error(c, exception, e->vector * 8 | ERR_IDT | e->ext);
}

/* ---- Real mode (SDM vol. 3A, 20.1.4) ---- */

static void deliver_real(struct soft_cpu *c, const struct event *e)
{
	if (e->vector * 4 + 3 > c->idt.limit)
		raise_gate(c, EXC_GP, e);
	struct stack s = stack_current(c);
	if (!stack_has_room(&s, 6))
		cpu_raise_error(c, EXC_SS, e->ext);
	uint32_t entry = sys_ld32(c, c->idt.base + e->vector * 4);
	stack_push(&s, false, e->flags);
	stack_push(&s, false, c->seg[S_CS].selector);
	stack_push(&s, false, e->return_eip);
	stack_commit(&s);
	load_real_segment(c, S_CS, (uint16_t)(entry >> 16));
	c->next_eip = entry & 0xFFFF;
	flags_set_all(c, flags_get(c) & ~(FL_IF | FL_TF | FL_AC | FL_RF));
	cpu_mode_changed(c);
}

/* ---- Protected mode ---- */

static void deliver_task_gate(struct soft_cpu *c, const struct descriptor *gate,
			      const struct event *e)
{
	uint16_t selector = gate_selector(gate);
	struct descriptor d;
	if (selector & SEL_TI)
		raise_selector(c, EXC_GP, selector, e->ext);
	desc_read_or_raise(c, selector, EXC_GP, e->ext, &d);
	if (!desc_is_available_tss(&d))
		raise_selector(c, EXC_GP, selector, e->ext);
	if (!desc_present(&d))
		raise_selector(c, EXC_NP, selector, e->ext);
	task_switch_event(c, selector, TASK_INT, e->return_eip, e->flags, e->ext, e->has_error,
			  e->error);
}

/* EFLAGS, CS, EIP and the error code: the part that every frame has. */
static void push_frame(struct stack *s, bool op32, const struct event *e)
{
	stack_push(s, op32, e->flags);
	stack_push(s, op32, s->c->seg[S_CS].selector);
	stack_push(s, op32, e->return_eip);
	if (e->has_error)
		stack_push(s, op32, e->error);
}

static void enter_handler(struct soft_cpu *c, const struct descriptor *gate,
			  struct descriptor *code, unsigned cpl, const struct stack *s)
{
	uint32_t cleared = FL_TF | FL_NT | FL_RF | FL_VM;
	if ((desc_type(gate) & ~SYS_32) == SYS_INT_GATE16)
		cleared |= FL_IF;
	commit_cs(c, gate_selector(gate), code, cpl, gate_offset(gate));
	stack_commit(s);
	flags_set_all(c, flags_get(c) & ~cleared);
	cpu_mode_changed(c);
}

static void deliver_same_level(struct soft_cpu *c, const struct descriptor *gate,
			       struct descriptor *code, const struct event *e)
{
	bool op32 = desc_type(gate) & SYS_32;
	struct stack s = stack_current(c);
	if (!stack_has_room(&s, (3 + e->has_error) * (op32 ? 4 : 2)))
		cpu_raise_error(c, EXC_SS, e->ext);
	if (gate_offset(gate) > desc_limit(code))
		cpu_raise_error(c, EXC_GP, e->ext);
	push_frame(&s, op32, e);
	enter_handler(c, gate, code, c->cpl, &s);
}

static void deliver_inner_level(struct soft_cpu *c, const struct descriptor *gate,
				struct descriptor *code, const struct event *e)
{
	static const uint8_t data[] = {S_GS, S_FS, S_DS, S_ES};
	bool op32 = desc_type(gate) & SYS_32, from_v86 = c->v86;
	unsigned items = 5 + e->has_error + (from_v86 ? ARRAY_SIZE(data) : 0);
	unsigned dpl = desc_dpl(code);

	struct stack s = stack_from_tss(c, dpl, e->ext);
	if (!stack_has_room(&s, items * (op32 ? 4 : 2)))
		raise_selector(c, EXC_SS, s.ss.selector, e->ext);
	if (gate_offset(gate) > desc_limit(code))
		cpu_raise_error(c, EXC_GP, e->ext);
	if (from_v86) {
		for (unsigned n = 0; n < ARRAY_SIZE(data); n++)
			stack_push(&s, op32, c->seg[data[n]].selector);
	}
	stack_push(&s, op32, c->seg[S_SS].selector);
	stack_push(&s, op32, c->gpr[R_ESP]);
	push_frame(&s, op32, e);
	enter_handler(c, gate, code, dpl, &s);
	for (unsigned n = 0; from_v86 && n < ARRAY_SIZE(data); n++) {
		segment_make_null(&c->seg[data[n]], 0);
		segment_changed(c, data[n]);
	}
}

static void deliver_protected(struct soft_cpu *c, const struct event *e)
{
	struct descriptor gate, code;
	if (e->vector * 8 + 7 > c->idt.limit)
		raise_gate(c, EXC_GP, e);
	gate.lo = sys_ld32(c, c->idt.base + e->vector * 8);
	gate.hi = sys_ld32(c, c->idt.base + e->vector * 8 + 4);
	unsigned type = desc_type(&gate), size_free = type & ~SYS_32;
	bool is_gate = size_free == SYS_INT_GATE16 || size_free == SYS_TRAP_GATE16;
	if (desc_is_segment(&gate) || (!is_gate && type != SYS_TASK_GATE))
		raise_gate(c, EXC_GP, e);
	if (e->source == INTR_SOFTWARE && desc_dpl(&gate) < c->cpl)
		raise_gate(c, EXC_GP, e);
	if (!desc_present(&gate))
		raise_gate(c, EXC_NP, e);
	if (type == SYS_TASK_GATE) {
		deliver_task_gate(c, &gate, e);
		return;
	}

	uint16_t selector = gate_selector(&gate);
	if (selector_null(selector))
		cpu_raise_error(c, EXC_GP, e->ext);
	desc_read_or_raise(c, selector, EXC_GP, e->ext, &code);
	if (!desc_is_code(&code) || desc_dpl(&code) > c->cpl)
		raise_selector(c, EXC_GP, selector, e->ext);
	if (!desc_present(&code))
		raise_selector(c, EXC_NP, selector, e->ext);
	bool inner = !desc_is_conforming(&code) && desc_dpl(&code) < c->cpl;
	/* V86 mode can be left for level 0 alone. */
	if (c->v86 && (!inner || desc_dpl(&code) != 0))
		raise_selector(c, EXC_GP, selector, e->ext);
	if (inner)
		deliver_inner_level(c, &gate, &code, e);
	else
		deliver_same_level(c, &gate, &code, e);
}

void deliver_interrupt(struct soft_cpu *c, unsigned vector, enum intr_source source, bool has_error,
		       uint32_t error, uint32_t return_eip)
{
	struct event e = {
		.vector = vector,
		.source = source,
		.has_error = has_error,
		.error = error,
		.return_eip = return_eip,
		.flags = flags_get(c),
		.ext = source == INTR_SOFTWARE ? 0 : ERR_EXT,
	};
	if (source == INTR_EXCEPTION && is_fault_class(vector))
		e.flags |= FL_RF;
	if (c->cr0 & CR0_PE)
		deliver_protected(c, &e);
	else
		deliver_real(c, &e);
}

/* ---- Instructions ---- */

void op_int_imm(struct soft_cpu *c, const struct insn *i)
{
	/* In V86 mode INT n is sensitive to IOPL; INT3, INTO and INT1 are not (SDM vol.
	 * 3A, 20.2.7). */
	if (c->v86 && (c->eflags & FL_IOPL) != FL_IOPL)
		cpu_gp0(c);
	deliver_interrupt(c, i->imm & 0xFF, INTR_SOFTWARE, false, 0, c->next_eip);
	cpu_end_block(c);
}

void op_int3(struct soft_cpu *c, const struct insn *i)
{
	deliver_interrupt(c, EXC_BP, INTR_SOFTWARE, false, 0, c->next_eip);
	cpu_end_block(c);
}

void op_int1(struct soft_cpu *c, const struct insn *i)
{
	deliver_interrupt(c, EXC_DB, INTR_ICEBP, false, 0, c->next_eip);
	cpu_end_block(c);
}

void op_into(struct soft_cpu *c, const struct insn *i)
{
	if (!(flags_get(c) & FL_OF))
		return;
	deliver_interrupt(c, EXC_OF, INTR_SOFTWARE, false, 0, c->next_eip);
	cpu_end_block(c);
}
