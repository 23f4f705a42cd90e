/* SPDX-License-Identifier: MIT */
/*
 * Near control transfers: JMP Jcc CALL RET, LOOPcc JCXZ, and BOUND, UD (SDM vol. 1, 7.3.8). Far
 * ones are in far.c.
 *
 * A target is cut to the operand size and checked against the limit of CS before anything changes,
 * so #GP(0) comes with the address of the branch.
 */
#include "cpu/ops.h"

ALWAYS_INLINE uint32_t checked_target(struct soft_cpu *c, uint32_t target, unsigned size)
{
	if (size == 2)
		target &= 0xFFFF;
	if (unlikely(target > c->seg[S_CS].limit))
		cpu_gp0(c);
	return target;
}
ALWAYS_INLINE void jump_relative(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	c->next_eip = checked_target(c, c->next_eip + i->imm, size);
}

ALWAYS_INLINE void jmp_rel_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	jump_relative(c, i, size);
}
ALWAYS_INLINE void call_rel_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	uint32_t target = checked_target(c, c->next_eip + i->imm, size);

	push_op(c, size == 4, c->next_eip);
	c->next_eip = target;
}
ALWAYS_INLINE void jmp_rm_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	c->next_eip = checked_target(c, get_rm(c, i, size, mem), size);
}
ALWAYS_INLINE void call_rm_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	uint32_t target = checked_target(c, get_rm(c, i, size, mem), size);

	push_op(c, size == 4, c->next_eip);
	c->next_eip = target;
}
/* RET and RET imm16 (imm is 0 without). */
ALWAYS_INLINE void ret_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	uint32_t sp = c->gpr[R_ESP];

	c->next_eip = checked_target(c, load(c, S_SS, sp & c->sp_mask, size), size);
	set_sp(c, sp + size + i->imm);
}
OP_SIZES(jmp_rel, jmp_rel_shape)
OP_SIZES(call_rel, call_rel_shape)
OP_FORMS(jmp_rm, jmp_rm_shape)
OP_FORMS(call_rm, call_rm_shape)
OP_SIZES(ret, ret_shape)

/* One function for each condition, so that the test is a constant. */
#define JCC(n)                                                                                     \
	static void jcc_##n##_16(struct soft_cpu *c, const struct insn *i)                         \
	{                                                                                          \
		if (condition(c, n))                                                               \
			jump_relative(c, i, 2);                                                    \
	}                                                                                          \
	static void jcc_##n##_32(struct soft_cpu *c, const struct insn *i)                         \
	{                                                                                          \
		if (condition(c, n))                                                               \
			jump_relative(c, i, 4);                                                    \
	}
#define JCC_ROWS(n)                                                                                \
	ROW(0x70 + (n), OP_IMM8S | OP_END, jcc_##n##_16, NULL, jcc_##n##_32, NULL),                \
		ROW(0x180 + (n), OP_IMMZ | OP_END, jcc_##n##_16, NULL, jcc_##n##_32, NULL)
JCC(0)
JCC(1)
JCC(2)
JCC(3)
JCC(4)
JCC(5)
JCC(6)
JCC(7)
JCC(8)
JCC(9)
JCC(10)
JCC(11)
JCC(12)
JCC(13)
JCC(14)
JCC(15)

/* LOOPNE LOOPE LOOP JCXZ: the counter is CX or ECX by address size, the target by operand size. */
ALWAYS_INLINE uint32_t loop_count(struct soft_cpu *c, const struct insn *i)
{
	return (c->gpr[R_ECX] - 1) & i->ad_mask;
}
ALWAYS_INLINE void loop(struct soft_cpu *c, const struct insn *i, bool also, unsigned size)
{
	uint32_t count = loop_count(c, i);

	/* The jump first: if it faults the counter stays. */
	if (count && also)
		jump_relative(c, i, size);
	c->gpr[R_ECX] = (c->gpr[R_ECX] & ~i->ad_mask) | count;
}
ALWAYS_INLINE void loopne_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	loop(c, i, !flag_zf(c), size);
}
ALWAYS_INLINE void loope_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	loop(c, i, flag_zf(c), size);
}
ALWAYS_INLINE void loop_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	loop(c, i, true, size);
}
ALWAYS_INLINE void jcxz_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	if ((c->gpr[R_ECX] & i->ad_mask) == 0)
		jump_relative(c, i, size);
}
OP_SIZES(loopne, loopne_shape)
OP_SIZES(loope, loope_shape)
OP_SIZES(loop, loop_shape)
OP_SIZES(jcxz, jcxz_shape)

ALWAYS_INLINE void bound_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	uint32_t off = effective_address(c, i);
	int32_t low = (int32_t)sign_extend(load(c, i->seg, off, size), size);
	int32_t high = (int32_t)sign_extend(load(c, i->seg, (off + size) & i->ad_mask, size), size);
	int32_t v = (int32_t)sign_extend(get_reg(c, i->reg, size), size);

	if (v < low || v > high)
		cpu_raise(c, EXC_BR);
}
OP_SIZES(bound, bound_shape)

void op_undefined(struct soft_cpu *c, const struct insn *i)
{
	cpu_ud(c);
}

static const struct op_row rows[] = {
	JCC_ROWS(0),
	JCC_ROWS(1),
	JCC_ROWS(2),
	JCC_ROWS(3),
	JCC_ROWS(4),
	JCC_ROWS(5),
	JCC_ROWS(6),
	JCC_ROWS(7),
	JCC_ROWS(8),
	JCC_ROWS(9),
	JCC_ROWS(10),
	JCC_ROWS(11),
	JCC_ROWS(12),
	JCC_ROWS(13),
	JCC_ROWS(14),
	JCC_ROWS(15),
	ROW(0xE0, OP_IMM8S | OP_END, loopne_16, NULL, loopne_32, NULL),
	ROW(0xE1, OP_IMM8S | OP_END, loope_16, NULL, loope_32, NULL),
	ROW(0xE2, OP_IMM8S | OP_END, loop_16, NULL, loop_32, NULL),
	ROW(0xE3, OP_IMM8S | OP_END, jcxz_16, NULL, jcxz_32, NULL),
	ROW(0xE8, OP_IMMZ | OP_END, call_rel_16, NULL, call_rel_32, NULL),
	ROW(0xE9, OP_IMMZ | OP_END, jmp_rel_16, NULL, jmp_rel_32, NULL),
	ROW(0xEB, OP_IMM8S | OP_END, jmp_rel_16, NULL, jmp_rel_32, NULL),
	ROW(0xC2, OP_IMM16 | OP_END, ret_16, NULL, ret_32, NULL),
	ROW(0xC3, OP_END, ret_16, NULL, ret_32, NULL),
	GRP(0xFF, 2, OP_MODRM | OP_END, FORMS(call_rm)),
	GRP(0xFF, 4, OP_MODRM | OP_END, FORMS(jmp_rm)),
	ROW(0x62, OP_MODRM, NULL, bound_16, NULL, bound_32),
	/* UD2 (0F 0B), UD1 (0F B9) and UD0 (0F FF); UD1 has a ModRM byte. */
	ROW_SAME(0x10B, OP_END, op_undefined, NULL),
	ROW_SAME(0x1B9, OP_MODRM | OP_END, op_undefined, op_undefined),
	ROW_SAME(0x1FF, OP_END, op_undefined, NULL),
};
const struct op_table ops_flow = {rows, ARRAY_SIZE(rows)};
