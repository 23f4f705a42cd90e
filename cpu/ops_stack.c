/* SPDX-License-Identifier: MIT */
/*
 * The stack: PUSH POP, PUSHA POPA, ENTER LEAVE (SDM vol. 1, chapter 6). Segment registers are
 * pushed and popped in seg.c, flags in intr.c.
 *
 * The width of an item is the operand size, the width of the stack pointer is SS.B (c->sp_mask).
 * ESP changes last, so that an instruction that faults can start again.
 */
#include "cpu/ops.h"

ALWAYS_INLINE void push(struct soft_cpu *c, uint32_t v, unsigned size)
{
	if (size == 2)
		push16(c, (uint16_t)v);
	else
		push32(c, v);
}

ALWAYS_INLINE void push_reg_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	push(c, c->gpr[i->reg], size);
}
ALWAYS_INLINE void pop_reg_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	/* The register last: POP ESP keeps what was popped. */
	set_reg(c, i->reg, size == 2 ? pop16(c) : pop32(c), size);
}
ALWAYS_INLINE void push_imm_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	push(c, i->imm, size);
}
ALWAYS_INLINE void push_rm_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	push(c, get_rm(c, i, size, mem), size);
}
ALWAYS_INLINE void pop_rm_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	uint32_t v = load(c, S_SS, c->gpr[R_ESP] & c->sp_mask, size), old = c->gpr[R_ESP], off;

	set_sp(c, old + size);
	if (mem) {
		/* The address is computed with ESP behind the pop; a fault finds the old one. */
		uint32_t popped = c->gpr[R_ESP];
		off = effective_address(c, i);
		c->gpr[R_ESP] = old;
		store(c, i->seg, off, v, size);
		c->gpr[R_ESP] = popped;
	} else {
		set_reg(c, i->rm, v, size);
	}
}
OP_SIZES(push_reg, push_reg_shape)
OP_SIZES(pop_reg, pop_reg_shape)
OP_SIZES(push_imm, push_imm_shape)
OP_FORMS(push_rm, push_rm_shape)
OP_FORMS(pop_rm, pop_rm_shape)

ALWAYS_INLINE void pusha_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	uint32_t sp = c->gpr[R_ESP];

	for (unsigned n = 0; n < 8; n++) {
		sp -= size;
		store(c, S_SS, sp & c->sp_mask, c->gpr[n], size);
	}
	set_sp(c, sp);
}
ALWAYS_INLINE void popa_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	uint32_t sp = c->gpr[R_ESP], v[8];

	for (int n = 7; n >= 0; n--) {
		v[n] = load(c, S_SS, sp & c->sp_mask, size);
		sp += size;
	}
	for (unsigned n = 0; n < 8; n++)
		if (n != R_ESP)
			set_reg(c, n, v[n], size);
	set_sp(c, sp);
}
OP_SIZES(pusha, pusha_shape)
OP_SIZES(popa, popa_shape)

/* SDM vol. 2A, ENTER. imm: bytes of locals; imm2: nesting level. */
ALWAYS_INLINE void enter_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	unsigned level = i->imm2 & 31;
	uint32_t sp = c->gpr[R_ESP] - size, bp = c->gpr[R_EBP], frame;

	store(c, S_SS, sp & c->sp_mask, bp, size);
	frame = (c->gpr[R_ESP] & ~c->sp_mask) | (sp & c->sp_mask);
	for (unsigned n = 1; n < level; n++) {
		bp -= size;
		sp -= size;
		store(c, S_SS, sp & c->sp_mask, load(c, S_SS, bp & c->sp_mask, size), size);
	}
	if (level) {
		sp -= size;
		store(c, S_SS, sp & c->sp_mask, frame, size);
	}
	sp -= i->imm;
	/* It faults if the new top of the stack cannot be written. */
	probe_write(c, S_SS, sp & c->sp_mask, size);
	set_reg(c, R_EBP, frame, size);
	set_sp(c, sp);
}
ALWAYS_INLINE void leave_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	uint32_t bp = c->gpr[R_EBP], v = load(c, S_SS, bp & c->sp_mask, size);

	set_sp(c, bp + size);
	set_reg(c, R_EBP, v, size);
}
OP_SIZES(enter, enter_shape)
OP_SIZES(leave, leave_shape)

static const struct op_row rows[] = {
	ROW(0x50, OP_OPREG, push_reg_16, NULL, push_reg_32, NULL),
	ROW(0x58, OP_OPREG, pop_reg_16, NULL, pop_reg_32, NULL),
	ROW(0x68, OP_IMMZ, push_imm_16, NULL, push_imm_32, NULL),
	ROW(0x6A, OP_IMM8S, push_imm_16, NULL, push_imm_32, NULL),
	GRP(0xFF, 6, OP_MODRM, FORMS(push_rm)),
	GRP(0x8F, 0, OP_MODRM, FORMS(pop_rm)),
	ROW(0x60, 0, pusha_16, NULL, pusha_32, NULL),
	ROW(0x61, 0, popa_16, NULL, popa_32, NULL),
	ROW(0xC8, OP_ENTER, enter_16, NULL, enter_32, NULL),
	ROW(0xC9, 0, leave_16, NULL, leave_32, NULL),
};
const struct op_table ops_stack = {rows, ARRAY_SIZE(rows)};
