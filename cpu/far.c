/* SPDX-License-Identifier: MIT */
/*
 * Far transfers of control: JMP, CALL, RET and IRET with a code segment (SDM vol. 2, "JMP", "CALL",
 * "RET", "IRET"; vol. 3A, 5.8 "Privilege Level Checking When Transferring Program Control Between
 * Code Segments").
 *
 * Everything is checked and pushed with copies of the registers first; the CPU changes only when
 * nothing can fault any more. Order of checks and error codes follow the pseudo-code.
 */
#include "cpu/desc.h"

/* In real and V86 mode a far pointer may leave the segment only by its own offset. */
static void set_real_cs(struct soft_cpu *c, uint16_t selector, uint32_t offset)
{
	load_real_segment(c, S_CS, selector);
	c->next_eip = offset;
	cpu_mode_changed(c);
}

static void check_real_offset(struct soft_cpu *c, uint32_t offset)
{
	if (offset > c->seg[S_CS].limit)
		cpu_gp0(c);
}

/* ---- Where a far pointer leads (protected mode) ---- */

/* May code at the current CPL enter this code segment without changing privilege? `rpl` counts only
 * for a direct transfer. */
static void check_same_level_code(struct soft_cpu *c, uint16_t selector, const struct descriptor *d,
				  unsigned rpl)
{
	bool ok = desc_is_conforming(d) ? desc_dpl(d) <= c->cpl
					: desc_dpl(d) == c->cpl && rpl <= c->cpl;
	if (!ok)
		raise_selector(c, EXC_GP, selector, 0);
	if (!desc_present(d))
		raise_selector(c, EXC_NP, selector, 0);
}

/* A gate or TSS must be reachable from the CPL and the selector's RPL. */
static void check_gate_privilege(struct soft_cpu *c, uint16_t selector, const struct descriptor *d)
{
	if (desc_dpl(d) < c->cpl || desc_dpl(d) < (selector & SEL_RPL))
		raise_selector(c, EXC_GP, selector, 0);
}

static void enter_task(struct soft_cpu *c, uint16_t selector, const struct descriptor *d,
		       enum task_switch_cause cause)
{
	check_gate_privilege(c, selector, d);
	if (desc_type(d) == SYS_TASK_GATE) {
		if (!desc_present(d))
			raise_selector(c, EXC_NP, selector, 0);
		selector = gate_selector(d);
	}
	task_switch(c, selector, cause, c->next_eip, false, 0);
}

static bool leads_to_task(const struct descriptor *d)
{
	return !desc_is_segment(d) &&
	       (desc_type(d) == SYS_TASK_GATE || desc_is_available_tss(d) || desc_is_busy_tss(d));
}

static bool is_call_gate(const struct descriptor *d)
{
	return !desc_is_segment(d) && (desc_type(d) & ~SYS_32) == SYS_CALL_GATE16;
}

/* Checks the call gate and reads the descriptor of the code segment behind it. */
static void open_call_gate(struct soft_cpu *c, uint16_t selector, const struct descriptor *gate,
			   struct descriptor *code)
{
	check_gate_privilege(c, selector, gate);
	if (!desc_present(gate))
		raise_selector(c, EXC_NP, selector, 0);
	uint16_t target = gate_selector(gate);
	if (selector_null(target))
		cpu_gp0(c);
	desc_read_or_raise(c, target, EXC_GP, 0, code);
	if (!desc_is_code(code) || desc_dpl(code) > c->cpl)
		raise_selector(c, EXC_GP, target, 0);
}

/* ---- JMP ---- */

static void jump_far(struct soft_cpu *c, uint16_t selector, uint32_t offset)
{
	if (!c->protected_mode) {
		check_real_offset(c, offset);
		set_real_cs(c, selector, offset);
		return;
	}
	struct descriptor d;
	if (selector_null(selector))
		cpu_gp0(c);
	desc_read_or_raise(c, selector, EXC_GP, 0, &d);
	if (desc_is_code(&d)) {
		check_same_level_code(c, selector, &d, selector & SEL_RPL);
	} else if (is_call_gate(&d)) {
		struct descriptor gate = d;
		open_call_gate(c, selector, &gate, &d);
		selector = gate_selector(&gate);
		offset = gate_offset(&gate);
		check_same_level_code(c, selector, &d, 0);
	} else if (leads_to_task(&d)) {
		enter_task(c, selector, &d, TASK_JMP);
		return;
	} else {
		raise_selector(c, EXC_GP, selector, 0);
	}
	if (offset > desc_limit(&d))
		cpu_gp0(c);
	commit_cs(c, selector, &d, c->cpl, offset);
	cpu_mode_changed(c);
}

/* ---- CALL ---- */

/* Same level, direct or through a gate of the given size: the return address goes on the current
 * stack. */
static void call_same_level(struct soft_cpu *c, uint16_t selector, struct descriptor *code,
			    uint32_t offset, bool op32)
{
	struct stack s = stack_current(c);
	if (!stack_has_room(&s, op32 ? 8 : 4))
		cpu_raise_error(c, EXC_SS, 0);
	if (offset > desc_limit(code))
		cpu_gp0(c);
	stack_push(&s, op32, c->seg[S_CS].selector);
	stack_push(&s, op32, c->next_eip);
	commit_cs(c, selector, code, c->cpl, offset);
	stack_commit(&s);
	cpu_mode_changed(c);
}

/* To an inner level: the stack comes from the TSS, parameters are copied from the caller's. */
static void call_inner_level(struct soft_cpu *c, const struct descriptor *gate,
			     struct descriptor *code)
{
	enum { PARAMETER_MASK = 0x1F };
	bool op32 = desc_type(gate) & SYS_32;
	unsigned size = op32 ? 4 : 2, parameters = gate->hi & PARAMETER_MASK;
	unsigned dpl = desc_dpl(code);
	uint16_t selector = gate_selector(gate);

	struct stack s = stack_from_tss(c, dpl, 0);
	if (!stack_has_room(&s, (parameters + 4) * size))
		raise_selector(c, EXC_SS, s.ss.selector, 0);
	if (gate_offset(gate) > desc_limit(code))
		cpu_gp0(c);
	stack_push(&s, op32, c->seg[S_SS].selector);
	stack_push(&s, op32, c->gpr[R_ESP]);
	for (unsigned n = parameters; n-- > 0;)
		stack_push(&s, op32, stack_peek(c, op32, n * size));
	stack_push(&s, op32, c->seg[S_CS].selector);
	stack_push(&s, op32, c->next_eip);
	commit_cs(c, selector, code, dpl, gate_offset(gate));
	stack_commit(&s);
	cpu_mode_changed(c);
}

static void call_far(struct soft_cpu *c, uint16_t selector, uint32_t offset, bool op32)
{
	if (!c->protected_mode) {
		struct stack s = stack_current(c);
		if (!stack_has_room(&s, op32 ? 8 : 4))
			cpu_raise_error(c, EXC_SS, 0);
		check_real_offset(c, offset);
		stack_push(&s, op32, c->seg[S_CS].selector);
		stack_push(&s, op32, c->next_eip);
		stack_commit(&s);
		set_real_cs(c, selector, offset);
		return;
	}
	struct descriptor d;
	if (selector_null(selector))
		cpu_gp0(c);
	desc_read_or_raise(c, selector, EXC_GP, 0, &d);
	if (desc_is_code(&d)) {
		check_same_level_code(c, selector, &d, selector & SEL_RPL);
		call_same_level(c, selector, &d, offset, op32);
	} else if (is_call_gate(&d)) {
		struct descriptor code;
		open_call_gate(c, selector, &d, &code);
		if (!desc_present(&code))
			raise_selector(c, EXC_NP, gate_selector(&d), 0);
		if (!desc_is_conforming(&code) && desc_dpl(&code) < c->cpl)
			call_inner_level(c, &d, &code);
		else
			call_same_level(c, gate_selector(&d), &code, gate_offset(&d),
					desc_type(&d) & SYS_32);
	} else if (leads_to_task(&d)) {
		enter_task(c, selector, &d, TASK_CALL);
	} else {
		raise_selector(c, EXC_GP, selector, 0);
	}
}

void op_jmp_far_imm(struct soft_cpu *c, const struct insn *i)
{
	jump_far(c, (uint16_t)i->imm2, i->opsize32 ? i->imm : i->imm & 0xFFFF);
}

void op_call_far_imm(struct soft_cpu *c, const struct insn *i)
{
	call_far(c, (uint16_t)i->imm2, i->opsize32 ? i->imm : i->imm & 0xFFFF, i->opsize32);
}

static uint32_t read_far_pointer(struct soft_cpu *c, const struct insn *i, uint16_t *selector)
{
	if (!i->is_mem)
		cpu_ud(c);
	uint32_t ea = effective_address(c, i), ea_selector = ea + (i->opsize32 ? 4 : 2);
	if (!i->adsize32)
		ea_selector &= 0xFFFF;
	uint32_t offset = i->opsize32 ? ld32(c, i->seg, ea) : ld16(c, i->seg, ea);
	*selector = ld16(c, i->seg, ea_selector);
	return offset;
}

void op_jmp_far_mem(struct soft_cpu *c, const struct insn *i)
{
	uint16_t selector;
	uint32_t offset = read_far_pointer(c, i, &selector);
	jump_far(c, selector, offset);
}

void op_call_far_mem(struct soft_cpu *c, const struct insn *i)
{
	uint16_t selector;
	uint32_t offset = read_far_pointer(c, i, &selector);
	call_far(c, selector, offset, i->opsize32);
}

/* ---- RET and the protected-mode part of IRET ---- */

/* Checks the code segment to return to (same or outer level) and reads its descriptor. */
static void check_return_code(struct soft_cpu *c, uint16_t selector, struct descriptor *d)
{
	unsigned rpl = selector & SEL_RPL;
	if (selector_null(selector))
		cpu_gp0(c);
	desc_read_or_raise(c, selector, EXC_GP, 0, d);
	if (!desc_is_code(d) || rpl < c->cpl ||
	    (desc_is_conforming(d) ? desc_dpl(d) > rpl : desc_dpl(d) != rpl))
		raise_selector(c, EXC_GP, selector, 0);
	if (!desc_present(d))
		raise_selector(c, EXC_NP, selector, 0);
}

/* Checks the stack segment of the outer level `rpl`. */
static void check_return_stack(struct soft_cpu *c, uint16_t selector, unsigned rpl,
			       struct descriptor *d)
{
	if (selector_null(selector))
		cpu_gp0(c);
	desc_read_or_raise(c, selector, EXC_GP, 0, d);
	if ((selector & SEL_RPL) != rpl || !desc_is_writable_data(d) || desc_dpl(d) != rpl)
		raise_selector(c, EXC_GP, selector, 0);
	if (!desc_present(d))
		raise_selector(c, EXC_SS, selector, 0);
	desc_mark_accessed(c, selector, d);
}

/*
 * Returns to selector:eip. The stack holds `frame` bytes that go away, then (outer level) ESP and
 * SS; `release` more bytes go from the stack returned to. Returns without having changed anything
 * but by a fault.
 */
static void return_far(struct soft_cpu *c, uint16_t selector, uint32_t eip, bool op32,
		       unsigned frame, unsigned release)
{
	struct descriptor code, ss;
	check_return_code(c, selector, &code);
	unsigned rpl = selector & SEL_RPL;
	if (rpl == c->cpl) {
		if (eip > desc_limit(&code))
			cpu_gp0(c);
		commit_cs(c, selector, &code, rpl, eip);
		set_stack_pointer(c, &c->seg[S_SS], c->gpr[R_ESP] + frame + release);
		cpu_mode_changed(c);
		return;
	}
	unsigned size = op32 ? 4 : 2;
	uint32_t esp = stack_peek(c, op32, frame + release);
	uint16_t ss_selector = (uint16_t)stack_peek(c, op32, frame + release + size);
	check_return_stack(c, ss_selector, rpl, &ss);
	if (eip > desc_limit(&code))
		cpu_gp0(c);
	commit_cs(c, selector, &code, rpl, eip);
	desc_to_segment(&ss, ss_selector, &c->seg[S_SS]);
	set_stack_pointer(c, &c->seg[S_SS], esp + release);
	cpu_mode_changed(c);
	drop_inner_data_segments(c);
}

static void ret_far(struct soft_cpu *c, bool op32, unsigned release)
{
	unsigned size = op32 ? 4 : 2;
	uint32_t eip = stack_peek(c, op32, 0);
	uint16_t selector = (uint16_t)stack_peek(c, op32, size);
	if (c->protected_mode) {
		return_far(c, selector, eip, op32, 2 * size, release);
		return;
	}
	check_real_offset(c, eip);
	set_stack_pointer(c, &c->seg[S_SS], c->gpr[R_ESP] + 2 * size + release);
	set_real_cs(c, selector, eip);
}

void op_ret_far(struct soft_cpu *c, const struct insn *i)
{
	ret_far(c, i->opsize32, 0);
}

void op_ret_far_imm(struct soft_cpu *c, const struct insn *i)
{
	ret_far(c, i->opsize32, i->imm & 0xFFFF);
}

/* ---- IRET ---- */

enum {
	/* What any IRET may change; the privileged bits are added by mode and CPL. */
	IRET_FLAGS16 = FL_ARITH | FL_TF | FL_DF | FL_NT,
	IRET_FLAGS32 = IRET_FLAGS16 | FL_RF | FL_AC | FL_ID,
};

static void set_masked_flags(struct soft_cpu *c, uint32_t value, uint32_t mask)
{
	flags_set_all(c, ((flags_get(c) & ~mask) | (value & mask)) | FL_1);
}

static void iret_real(struct soft_cpu *c, bool op32)
{
	unsigned size = op32 ? 4 : 2;
	uint32_t eip = stack_peek(c, op32, 0);
	uint16_t selector = (uint16_t)stack_peek(c, op32, size);
	uint32_t flags = stack_peek(c, op32, 2 * size);
	uint32_t mask = (op32 ? IRET_FLAGS32 : IRET_FLAGS16) | FL_IF;
	if (!c->v86)
		mask |= FL_IOPL;
	check_real_offset(c, eip);
	set_stack_pointer(c, &c->seg[S_SS], c->gpr[R_ESP] + 3 * size);
	set_real_cs(c, selector, eip);
	set_masked_flags(c, flags, mask);
}

/* From CPL 0 to virtual-8086 mode (SDM vol. 3A, 20.2.5): nine dwords on the stack. */
static void iret_to_v86(struct soft_cpu *c, uint32_t eip, uint16_t selector, uint32_t flags)
{
	static const uint8_t order[] = {S_SS, S_ES, S_DS, S_FS, S_GS};
	uint16_t selectors[ARRAY_SIZE(order)];
	uint32_t esp = stack_peek(c, true, 12);
	for (unsigned n = 0; n < ARRAY_SIZE(order); n++)
		selectors[n] = (uint16_t)stack_peek(c, true, 16 + 4 * n);
	if ((eip & 0xFFFF) != eip)
		cpu_gp0(c);
	segment_make_v86(&c->seg[S_CS], selector);
	for (unsigned n = 0; n < ARRAY_SIZE(order); n++)
		segment_make_v86(&c->seg[order[n]], selectors[n]);
	c->gpr[R_ESP] = esp;
	c->next_eip = eip;
	set_masked_flags(c, flags, IRET_FLAGS32 | FL_IF | FL_IOPL | FL_VM | FL_VIF | FL_VIP);
	cpu_mode_changed(c);
}

static void iret_protected(struct soft_cpu *c, bool op32)
{
	unsigned size = op32 ? 4 : 2;
	uint32_t eip = stack_peek(c, op32, 0);
	uint16_t selector = (uint16_t)stack_peek(c, op32, size);
	uint32_t flags = stack_peek(c, op32, 2 * size);
	if (op32 && (flags & FL_VM) && c->cpl == 0) {
		iret_to_v86(c, eip, selector, flags);
		return;
	}
	/* The CPL before the return decides which flags may change. */
	uint32_t mask = op32 ? IRET_FLAGS32 : IRET_FLAGS16;
	unsigned iopl = (c->eflags & FL_IOPL) >> FL_IOPL_SHIFT;
	if (c->cpl <= iopl)
		mask |= FL_IF;
	if (c->cpl == 0)
		mask |= op32 ? FL_IOPL | FL_VIF | FL_VIP : FL_IOPL;
	return_far(c, selector, eip, op32, 3 * size, 0);
	set_masked_flags(c, flags, mask);
}

void op_iret(struct soft_cpu *c, const struct insn *i)
{
	/* NMIs are let through again even if this IRET faults (SDM vol. 3A, 6.7.1). */
	c->nmi_masked = false;
	if (c->v86 && (c->eflags & FL_IOPL) != FL_IOPL)
		cpu_gp0(c);
	if (!c->protected_mode) {
		iret_real(c, i->opsize32);
	} else if (c->eflags & FL_NT) {
		/* Back to the task that the link field of this TSS names. */
		task_switch(c, sys_ld16(c, c->tr.base), TASK_IRET, c->next_eip, false, 0);
	} else {
		iret_protected(c, i->opsize32);
	}
	cpu_end_block(c);
}
