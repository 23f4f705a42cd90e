/* SPDX-License-Identifier: MIT */
/*
 * Segment registers and descriptors.
 *
 * In protected mode a selector names a descriptor in the GDT or LDT, which is checked and cached in
 * the register (SDM vol. 3A, 3.4.5 and 5.4..5.7). In real mode only selector and base change: limit
 * and attributes stay what protected mode left there, which is what "unreal mode" lives on. In V86
 * mode all are fixed (SDM vol. 3A, 20.2).
 *
 * The order of the checks and their error codes are those of SDM vol. 2, "MOV", "POP" and
 * "LDS/LES/LFS/LGS/LSS".
 */
#include "cpu/desc.h"

/* ---- Descriptors ---- */

uint32_t desc_linear(const struct soft_cpu *c, uint16_t selector)
{
	uint32_t base = selector & SEL_TI ? c->ldt.base : c->gdt.base;
	return base + (selector & ~7u);
}

bool desc_read(struct soft_cpu *c, uint16_t selector, struct descriptor *d)
{
	if (selector & SEL_TI) {
		if (!(c->ldt.attr & SEG_P) || (selector | 7u) > c->ldt.limit)
			return false;
	} else if ((selector | 7u) > c->gdt.limit) {
		return false;
	}
	uint32_t linear = desc_linear(c, selector);
	d->lo = sys_ld32(c, linear);
	d->hi = sys_ld32(c, linear + 4);
	return true;
}

void desc_read_or_raise(struct soft_cpu *c, uint16_t selector, unsigned vector, unsigned ext,
			struct descriptor *d)
{
	if (!desc_read(c, selector, d))
		raise_selector(c, vector, selector, ext);
}

void desc_mark_accessed(struct soft_cpu *c, uint16_t selector, struct descriptor *d)
{
	if (desc_attr(d) & SEG_ACCESSED)
		return;
	d->hi |= SEG_ACCESSED << 8;
	sys_st8(c, desc_linear(c, selector) + 5, (uint8_t)(d->hi >> 8));
}

void desc_set_busy(struct soft_cpu *c, uint16_t selector, bool busy)
{
	uint32_t linear = desc_linear(c, selector) + 5;
	uint8_t type = sys_ld8(c, linear);
	sys_st8(c, linear, (uint8_t)(busy ? type | SYS_BUSY : type & ~SYS_BUSY));
}

void desc_to_segment(const struct descriptor *d, uint16_t selector, struct cpu_segment *seg)
{
	seg->selector = selector;
	seg->attr = (uint16_t)desc_attr(d);
	seg->base = desc_base(d);
	seg->limit = desc_limit(d);
}

void segment_make_null(struct cpu_segment *seg, uint16_t selector)
{
	*seg = (struct cpu_segment){.selector = selector};
}

void segment_make_v86(struct cpu_segment *seg, uint16_t selector)
{
	*seg = (struct cpu_segment){
		.selector = selector,
		.attr = ATTR_V86,
		.base = (uint32_t)selector << 4,
		.limit = 0xFFFF,
	};
}

bool segment_covers(const struct cpu_segment *seg, uint32_t low, uint32_t high)
{
	if (low > high)
		return false;
	if ((seg->attr & (SEG_CODE | SEG_CE)) == SEG_CE)
		return low > seg->limit && high <= stack_mask(seg);
	return high <= seg->limit;
}

/* ---- Loading ---- */

void load_real_segment(struct soft_cpu *c, unsigned sreg, uint16_t selector)
{
	struct cpu_segment *seg = &c->seg[sreg];
	if (c->v86) {
		segment_make_v86(seg, selector);
		return;
	}
	/* Whatever protected mode left, real mode can read and write it; a null segment has no
	 * limit to keep. CS stays a code segment. */
	bool code = sreg == S_CS && (seg->attr & SEG_P) && (seg->attr & SEG_CODE);
	if (!(seg->attr & SEG_P))
		seg->limit = 0xFFFF;
	seg->attr = (uint16_t)((seg->attr & (SEG_DB | SEG_G | SEG_AVL)) | ATTR_REAL |
			       (code ? SEG_CODE : 0));
	seg->selector = selector;
	seg->base = (uint32_t)selector << 4;
}

static void load_stack_segment(struct soft_cpu *c, uint16_t selector)
{
	struct descriptor d;
	if (selector_null(selector))
		cpu_gp0(c);
	desc_read_or_raise(c, selector, EXC_GP, 0, &d);
	if ((selector & SEL_RPL) != c->cpl || !desc_is_writable_data(&d) || desc_dpl(&d) != c->cpl)
		raise_selector(c, EXC_GP, selector, 0);
	if (!desc_present(&d))
		raise_selector(c, EXC_SS, selector, 0);
	desc_mark_accessed(c, selector, &d);
	desc_to_segment(&d, selector, &c->seg[S_SS]);
}

void load_data_segment(struct soft_cpu *c, unsigned sreg, uint16_t selector)
{
	if (!c->protected_mode) {
		load_real_segment(c, sreg, selector);
		if (sreg == S_SS)
			cpu_mode_changed(c);
		else
			segment_changed(c, sreg);
		return;
	}
	if (sreg == S_SS) {
		load_stack_segment(c, selector);
		cpu_mode_changed(c);
		return;
	}
	if (selector_null(selector)) {
		segment_make_null(&c->seg[sreg], selector);
		segment_changed(c, sreg);
		return;
	}
	struct descriptor d;
	desc_read_or_raise(c, selector, EXC_GP, 0, &d);
	bool code = desc_is_code(&d);
	if (!desc_is_segment(&d) || (code && !(desc_attr(&d) & SEG_RW)))
		raise_selector(c, EXC_GP, selector, 0);
	if (!(code && desc_is_conforming(&d)) &&
	    ((selector & SEL_RPL) > desc_dpl(&d) || c->cpl > desc_dpl(&d)))
		raise_selector(c, EXC_GP, selector, 0);
	if (!desc_present(&d))
		raise_selector(c, EXC_NP, selector, 0);
	desc_mark_accessed(c, selector, &d);
	desc_to_segment(&d, selector, &c->seg[sreg]);
	segment_changed(c, sreg);
}

void commit_cs(struct soft_cpu *c, uint16_t selector, struct descriptor *d, unsigned cpl,
	       uint32_t eip)
{
	desc_mark_accessed(c, selector, d);
	desc_to_segment(d, (uint16_t)((selector & ~SEL_RPL) | cpl), &c->seg[S_CS]);
	c->next_eip = eip;
}

void drop_inner_data_segments(struct soft_cpu *c)
{
	static const uint8_t data[] = {S_ES, S_FS, S_GS, S_DS};
	for (unsigned n = 0; n < ARRAY_SIZE(data); n++) {
		struct cpu_segment *seg = &c->seg[data[n]];
		bool conforming_code = (seg->attr & SEG_CODE) && (seg->attr & SEG_CE);
		unsigned dpl = (seg->attr & SEG_DPL) >> SEG_DPL_SHIFT;
		if ((seg->attr & SEG_P) && !conforming_code && dpl < c->cpl) {
			segment_make_null(seg, 0);
			segment_changed(c, data[n]);
		}
	}
}

/* ---- Stacks ---- */

struct stack stack_current(struct soft_cpu *c)
{
	return (struct stack){
		.c = c,
		.ss = c->seg[S_SS],
		.esp = c->gpr[R_ESP],
		.mask = stack_mask(&c->seg[S_SS]),
		.current = true,
	};
}

struct stack stack_from_tss(struct soft_cpu *c, unsigned dpl, unsigned ext)
{
	bool tss32 = c->tr.attr & SYS_32;
	uint32_t at = tss32 ? dpl * 8 + 4 : dpl * 4 + 2;
	if (at + (tss32 ? 5 : 3) > c->tr.limit)
		raise_selector(c, EXC_TS, c->tr.selector, ext);
	uint32_t esp = tss32 ? sys_ld32(c, c->tr.base + at) : sys_ld16(c, c->tr.base + at);
	uint16_t selector = sys_ld16(c, c->tr.base + at + (tss32 ? 4 : 2));

	struct descriptor d;
	if (selector_null(selector))
		cpu_raise_error(c, EXC_TS, ext);
	desc_read_or_raise(c, selector, EXC_TS, ext, &d);
	if ((selector & SEL_RPL) != dpl || desc_dpl(&d) != dpl || !desc_is_writable_data(&d))
		raise_selector(c, EXC_TS, selector, ext);
	if (!desc_present(&d))
		raise_selector(c, EXC_SS, selector, ext);
	desc_mark_accessed(c, selector, &d);

	struct stack s = {.c = c, .esp = esp};
	desc_to_segment(&d, selector, &s.ss);
	s.mask = stack_mask(&s.ss);
	return s;
}

bool stack_has_room(const struct stack *s, unsigned bytes)
{
	uint32_t low = (s->esp - bytes) & s->mask, high = (s->esp - 1) & s->mask;
	if (low > high) /* wraps around the end of a stack that covers everything */
		return segment_covers(&s->ss, low, s->mask) && segment_covers(&s->ss, 0, high);
	return segment_covers(&s->ss, low, high);
}

void stack_push(struct stack *s, bool op32, uint32_t value)
{
	unsigned size = op32 ? 4 : 2;
	uint32_t off = (s->esp - size) & s->mask;
	if (s->current) {
		if (op32)
			st32(s->c, S_SS, off, value);
		else
			st16(s->c, S_SS, off, (uint16_t)value);
	} else {
		if (op32)
			sys_st32(s->c, s->ss.base + off, value);
		else
			sys_st16(s->c, s->ss.base + off, (uint16_t)value);
	}
	s->esp = (s->esp & ~s->mask) | off;
}

uint32_t stack_peek(struct soft_cpu *c, bool op32, unsigned bytes)
{
	uint32_t off = (c->gpr[R_ESP] + bytes) & stack_mask(&c->seg[S_SS]);
	return op32 ? ld32(c, S_SS, off) : ld16(c, S_SS, off);
}

void set_stack_pointer(struct soft_cpu *c, const struct cpu_segment *ss, uint32_t esp)
{
	uint32_t mask = stack_mask(ss);
	c->gpr[R_ESP] = (c->gpr[R_ESP] & ~mask) | (esp & mask);
}

void stack_commit(const struct stack *s)
{
	if (!s->current)
		s->c->seg[S_SS] = s->ss;
	set_stack_pointer(s->c, &s->ss, s->esp);
}

/* ---- Instructions ---- */

void op_mov_sreg_rm(struct soft_cpu *c, const struct insn *i)
{
	if (i->reg == S_CS || i->reg > S_GS)
		cpu_ud(c);
	uint16_t selector = i->is_mem ? ld16(c, i->seg, effective_address(c, i)) : *reg16(c, i->rm);
	load_data_segment(c, i->reg, selector);
	if (i->reg == S_SS)
		c->interrupt_shadow = SHADOW_SS;
}

void op_mov_rm_sreg(struct soft_cpu *c, const struct insn *i)
{
	if (i->reg > S_GS)
		cpu_ud(c);
	uint16_t selector = c->seg[i->reg].selector;
	if (i->is_mem)
		st16(c, i->seg, effective_address(c, i), selector);
	else if (i->opsize32)
		c->gpr[i->rm] = selector;
	else
		*reg16(c, i->rm) = selector;
}

/* 06 0E 16 1E (and 07 17 1F) carry the register in bits 3..4; FS and GS have 0F A0/A1 and 0F A8/A9.
 */
static unsigned sreg_of_opcode(const struct insn *i)
{
	return i->opcode < 0x100 ? i->opcode >> 3 & 3 : S_FS + (i->opcode >> 3 & 1);
}

void op_push_sreg(struct soft_cpu *c, const struct insn *i)
{
	push_op(c, i->opsize32, c->seg[sreg_of_opcode(i)].selector);
}

void op_pop_sreg(struct soft_cpu *c, const struct insn *i)
{
	unsigned sreg = sreg_of_opcode(i);
	/* ESP moves by the size of the old stack, and only if the load succeeds. */
	struct cpu_segment old_ss = c->seg[S_SS];
	uint32_t esp = c->gpr[R_ESP] + (i->opsize32 ? 4 : 2);
	load_data_segment(c, sreg, (uint16_t)stack_peek(c, i->opsize32, 0));
	set_stack_pointer(c, &old_ss, esp);
	if (sreg == S_SS)
		c->interrupt_shadow = SHADOW_SS;
}

static void load_far_pointer(struct soft_cpu *c, const struct insn *i, unsigned sreg)
{
	if (!i->is_mem)
		cpu_ud(c);
	uint32_t ea = effective_address(c, i);
	uint32_t ea_selector = ea + (i->opsize32 ? 4 : 2);
	if (!i->adsize32)
		ea_selector &= 0xFFFF;
	uint32_t offset = i->opsize32 ? ld32(c, i->seg, ea) : ld16(c, i->seg, ea);
	load_data_segment(c, sreg, ld16(c, i->seg, ea_selector));
	if (i->opsize32)
		c->gpr[i->reg] = offset;
	else
		*reg16(c, i->reg) = (uint16_t)offset;
}

void op_les(struct soft_cpu *c, const struct insn *i)
{
	load_far_pointer(c, i, S_ES);
}

void op_lds(struct soft_cpu *c, const struct insn *i)
{
	load_far_pointer(c, i, S_DS);
}

void op_lss(struct soft_cpu *c, const struct insn *i)
{
	load_far_pointer(c, i, S_SS);
}

void op_lfs(struct soft_cpu *c, const struct insn *i)
{
	load_far_pointer(c, i, S_FS);
}

void op_lgs(struct soft_cpu *c, const struct insn *i)
{
	load_far_pointer(c, i, S_GS);
}
