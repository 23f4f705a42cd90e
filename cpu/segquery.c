/* SPDX-License-Identifier: MIT */
/*
 * Instructions about descriptors: SLDT STR LLDT LTR VERR VERW (0F 00), LAR, LSL, ARPL. See SDM vol.
 * 2 under each name, and vol. 3A, 5.10 "Pointer Validation". All exist in protected mode alone.
 */
#include "cpu/desc.h"

static void set_zf(struct soft_cpu *c, bool on)
{
	uint32_t flags = flags_get(c);
	flags_set_arith(c, on ? flags | FL_ZF : flags & ~(uint32_t)FL_ZF);
}

static void need_protected_mode(struct soft_cpu *c)
{
	if (!c->protected_mode)
		cpu_ud(c);
}

static void need_cpl0(struct soft_cpu *c)
{
	if (c->cpl != 0)
		cpu_gp0(c);
}

static uint16_t read_rm16(struct soft_cpu *c, const struct insn *i)
{
	return i->is_mem ? ld16(c, i->seg, effective_address(c, i)) : *reg16(c, i->rm);
}

/* A selector register goes to memory as a word, to a register by operand size. */
static void write_selector(struct soft_cpu *c, const struct insn *i, uint16_t selector)
{
	if (i->is_mem)
		st16(c, i->seg, effective_address(c, i), selector);
	else if (i->opsize32)
		c->gpr[i->rm] = selector;
	else
		*reg16(c, i->rm) = selector;
}

static void load_ldtr(struct soft_cpu *c, uint16_t selector)
{
	struct descriptor d;
	if (selector_null(selector)) {
		segment_make_null(&c->ldt, selector);
		return;
	}
	if (selector & SEL_TI)
		raise_selector(c, EXC_GP, selector, 0);
	desc_read_or_raise(c, selector, EXC_GP, 0, &d);
	if (desc_is_segment(&d) || desc_type(&d) != SYS_LDT)
		raise_selector(c, EXC_GP, selector, 0);
	if (!desc_present(&d))
		raise_selector(c, EXC_NP, selector, 0);
	desc_to_segment(&d, selector, &c->ldt);
}

static void load_task_register(struct soft_cpu *c, uint16_t selector)
{
	struct descriptor d;
	if (selector_null(selector))
		cpu_gp0(c);
	if (selector & SEL_TI)
		raise_selector(c, EXC_GP, selector, 0);
	desc_read_or_raise(c, selector, EXC_GP, 0, &d);
	if (!desc_is_available_tss(&d))
		raise_selector(c, EXC_GP, selector, 0);
	if (!desc_present(&d))
		raise_selector(c, EXC_NP, selector, 0);
	desc_set_busy(c, selector, true);
	desc_to_segment(&d, selector, &c->tr);
	c->tr.attr |= SYS_BUSY;
}

/* Is the segment visible from CPL and RPL? Conforming code always is. */
static bool segment_visible(const struct soft_cpu *c, uint16_t selector, const struct descriptor *d)
{
	if (desc_is_code(d) && desc_is_conforming(d))
		return true;
	return desc_dpl(d) >= c->cpl && desc_dpl(d) >= (selector & SEL_RPL);
}

/* VERR and VERW. */
static bool verify(struct soft_cpu *c, uint16_t selector, bool write)
{
	struct descriptor d;
	if (selector_null(selector) || !desc_read(c, selector, &d) || !desc_is_segment(&d) ||
	    !segment_visible(c, selector, &d))
		return false;
	if (write)
		return desc_is_writable_data(&d);
	return !desc_is_code(&d) || (desc_attr(&d) & SEG_RW);
}

void op_grp6(struct soft_cpu *c, const struct insn *i)
{
	need_protected_mode(c);
	switch (i->reg) {
	case 0: write_selector(c, i, c->ldt.selector); break;
	case 1: write_selector(c, i, c->tr.selector); break;
	case 2:
		need_cpl0(c);
		load_ldtr(c, read_rm16(c, i));
		break;
	case 3:
		need_cpl0(c);
		load_task_register(c, read_rm16(c, i));
		break;
	case 4: set_zf(c, verify(c, read_rm16(c, i), false)); break;
	case 5: set_zf(c, verify(c, read_rm16(c, i), true)); break;
	default: cpu_ud(c);
	}
}

/* Which system types LAR and LSL know: bit n is type n (SDM vol. 2, tables 3-52 and 3-55). */
enum {
	LSL_TYPES = 1 << SYS_TSS16 | 1 << SYS_LDT | 1 << SYS_TSS16_BUSY | 1 << SYS_TSS32 |
		    1 << SYS_TSS32_BUSY,
	LAR_TYPES = LSL_TYPES | 1 << SYS_CALL_GATE16 | 1 << SYS_TASK_GATE | 1 << SYS_CALL_GATE32,
};

static bool query(struct soft_cpu *c, uint16_t selector, unsigned system_types,
		  struct descriptor *d)
{
	if (selector_null(selector) || !desc_read(c, selector, d))
		return false;
	if (!desc_is_segment(d) && !(system_types >> desc_type(d) & 1))
		return false;
	return segment_visible(c, selector, d);
}

static void query_result(struct soft_cpu *c, const struct insn *i, uint32_t value)
{
	if (i->opsize32)
		c->gpr[i->reg] = value;
	else
		*reg16(c, i->reg) = (uint16_t)value;
}

void op_lar(struct soft_cpu *c, const struct insn *i)
{
	enum { ACCESS_RIGHTS = 0x00F0FF00 };
	struct descriptor d;
	need_protected_mode(c);
	bool ok = query(c, read_rm16(c, i), LAR_TYPES, &d);
	if (ok)
		query_result(c, i, d.hi & ACCESS_RIGHTS);
	set_zf(c, ok);
}

void op_lsl(struct soft_cpu *c, const struct insn *i)
{
	struct descriptor d;
	need_protected_mode(c);
	bool ok = query(c, read_rm16(c, i), LSL_TYPES, &d);
	if (ok)
		query_result(c, i, desc_limit(&d));
	set_zf(c, ok);
}

void op_arpl(struct soft_cpu *c, const struct insn *i)
{
	need_protected_mode(c);
	unsigned rpl = *reg16(c, i->reg) & SEL_RPL;
	uint32_t off = effective_address(c, i);
	uint16_t value = i->is_mem ? ld16(c, i->seg, off) : *reg16(c, i->rm);
	bool adjust = (value & SEL_RPL) < rpl;
	if (adjust)
		value = (uint16_t)((value & ~SEL_RPL) | rpl);
	/* Processors read first, and write only what changed. */
	if (i->is_mem && adjust)
		st16(c, i->seg, off, value);
	else if (adjust)
		*reg16(c, i->rm) = value;
	set_zf(c, adjust);
}
