/* SPDX-License-Identifier: MIT */
/*
 * Integer arithmetic and logic of two operands, and their relatives (SDM vol. 1, 7.3.2 and 7.3.3):
 * ADD OR ADC SBB AND SUB XOR CMP, TEST, INC DEC NEG NOT, XADD, CMPXCHG, CMPXCHG8B.
 *
 * One inline function computes; the macros below stamp out a function for each form, in which
 * operation, size and kind of operand are constants. ADD to CMP have opcodes in a pattern: 8 *
 * operation + form.
 */
#include "cpu/ops.h"

enum alu_op { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };

ALWAYS_INLINE uint32_t alu(struct soft_cpu *c, enum alu_op op, uint32_t a, uint32_t b,
			   unsigned size)
{
	uint32_t r;

	switch (op) {
	case ALU_ADD:
		r = a + b;
		flags_add(c, a, b, r, size);
		return r;
	case ALU_ADC:
		r = a + b + flag_cf(c);
		flags_add(c, a, b, r, size);
		return r;
	case ALU_SBB:
		r = a - b - flag_cf(c);
		flags_sub(c, a, b, r, size);
		return r;
	case ALU_SUB:
	case ALU_CMP:
		r = a - b;
		flags_sub(c, a, b, r, size);
		return r;
	case ALU_OR: r = a | b; break;
	case ALU_AND: r = a & b; break;
	default: r = a ^ b; break;
	}
	flags_logic(c, r, size);
	return r;
}

/* r/m op= value */
ALWAYS_INLINE void alu_to_rm(struct soft_cpu *c, const struct insn *i, enum alu_op op, uint32_t b,
			     unsigned size, bool mem)
{
	if (op == ALU_CMP) {
		alu(c, op, get_rm(c, i, size, mem), b, size);
	} else {
		uint32_t a = get_rm_rmw(c, i, size, mem);
		set_rm_rmw(c, i, alu(c, op, a, b, size), size, mem);
	}
}

ALWAYS_INLINE void alu_to_reg(struct soft_cpu *c, unsigned reg, enum alu_op op, uint32_t b,
			      unsigned size)
{
	uint32_t r = alu(c, op, get_reg(c, reg, size), b, size);
	if (op != ALU_CMP)
		set_reg(c, reg, r, size);
}

/* The forms of one operation: E is r/m, G is reg, I an immediate, A the accumulator. */
#define ALU_FORMS(name, OP)                                                                        \
	ALWAYS_INLINE void name##_eg_shape(struct soft_cpu *c, const struct insn *i,               \
					   unsigned size, bool mem)                                \
	{                                                                                          \
		alu_to_rm(c, i, OP, get_reg(c, i->reg, size), size, mem);                          \
	}                                                                                          \
	ALWAYS_INLINE void name##_ge_shape(struct soft_cpu *c, const struct insn *i,               \
					   unsigned size, bool mem)                                \
	{                                                                                          \
		alu_to_reg(c, i->reg, OP, get_rm(c, i, size, mem), size);                          \
	}                                                                                          \
	ALWAYS_INLINE void name##_ei_shape(struct soft_cpu *c, const struct insn *i,               \
					   unsigned size, bool mem)                                \
	{                                                                                          \
		alu_to_rm(c, i, OP, i->imm, size, mem);                                            \
	}                                                                                          \
	static void name##_ai_8(struct soft_cpu *c, const struct insn *i)                          \
	{                                                                                          \
		alu_to_reg(c, R_EAX, OP, i->imm, 1);                                               \
	}                                                                                          \
	ALWAYS_INLINE void name##_ai_shape(struct soft_cpu *c, const struct insn *i,               \
					   unsigned size)                                          \
	{                                                                                          \
		alu_to_reg(c, R_EAX, OP, i->imm, size);                                            \
	}                                                                                          \
	OP_FORMS8(name##_eg, name##_eg_shape)                                                      \
	OP_FORMS(name##_eg, name##_eg_shape)                                                       \
	OP_FORMS8(name##_ge, name##_ge_shape)                                                      \
	OP_FORMS(name##_ge, name##_ge_shape)                                                       \
	OP_FORMS8(name##_ei, name##_ei_shape)                                                      \
	OP_FORMS(name##_ei, name##_ei_shape)                                                       \
	OP_SIZES(name##_ai, name##_ai_shape)

ALU_FORMS(add, ALU_ADD)
ALU_FORMS(or, ALU_OR)
ALU_FORMS(adc, ALU_ADC)
ALU_FORMS(sbb, ALU_SBB)
ALU_FORMS(and, ALU_AND)
ALU_FORMS(sub, ALU_SUB)
ALU_FORMS(xor, ALU_XOR)
ALU_FORMS(cmp, ALU_CMP)

/* The rows of one operation: six opcodes, and a digit of the immediate group 80..83. */
#define ALU_ROWS(name, n, lock)                                                                    \
	ROW_SAME(8 * (n) + 0, OP_MODRM | (lock), name##_eg_r8, name##_eg_m8),                      \
		ROW(8 * (n) + 1, OP_MODRM | (lock), FORMS(name##_eg)),                             \
		ROW_SAME(8 * (n) + 2, OP_MODRM, name##_ge_r8, name##_ge_m8),                       \
		ROW(8 * (n) + 3, OP_MODRM, FORMS(name##_ge)),                                      \
		ROW_SAME(8 * (n) + 4, OP_IMM8, name##_ai_8, NULL),                                 \
		ROW(8 * (n) + 5, OP_IMMZ, name##_ai_16, NULL, name##_ai_32, NULL),                 \
		GRP_SAME(0x80, n, OP_MODRM | OP_IMM8 | (lock), FORMS8(name##_ei)),                 \
		GRP(0x81, n, OP_MODRM | OP_IMMZ | (lock), FORMS(name##_ei)),                       \
		GRP_SAME(0x82, n, OP_MODRM | OP_IMM8 | (lock), FORMS8(name##_ei)),                 \
		GRP(0x83, n, OP_MODRM | OP_IMM8S | (lock), FORMS(name##_ei))

/* ---- TEST ---- */
ALWAYS_INLINE void test_eg_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	flags_logic(c, get_rm(c, i, size, mem) & get_reg(c, i->reg, size), size);
}
ALWAYS_INLINE void test_ei_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	flags_logic(c, get_rm(c, i, size, mem) & i->imm, size);
}
ALWAYS_INLINE void test_ai_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	flags_logic(c, c->gpr[R_EAX] & i->imm, size);
}
static void test_ai_8(struct soft_cpu *c, const struct insn *i)
{
	flags_logic(c, c->gpr[R_EAX] & i->imm, 1);
}
OP_FORMS8(test_eg, test_eg_shape)
OP_FORMS(test_eg, test_eg_shape)
OP_FORMS8(test_ei, test_ei_shape)
OP_FORMS(test_ei, test_ei_shape)
OP_SIZES(test_ai, test_ai_shape)

/* ---- INC, DEC (CF stays), NEG, NOT ---- */
ALWAYS_INLINE uint32_t inc_dec(struct soft_cpu *c, uint32_t a, bool dec, unsigned size)
{
	uint32_t sign = UINT32_C(1) << (8 * size - 1);
	uint32_t r = (dec ? a - 1 : a + 1) & size_mask(size);
	bool of = r == (dec ? sign - 1 : sign);
	bool af = (r & 15) == (dec ? 15 : 0);

	flags_result(c, r, size, flag_cf(c), of, af);
	return r;
}
ALWAYS_INLINE void inc_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	set_rm_rmw(c, i, inc_dec(c, get_rm_rmw(c, i, size, mem), false, size), size, mem);
}
ALWAYS_INLINE void dec_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	set_rm_rmw(c, i, inc_dec(c, get_rm_rmw(c, i, size, mem), true, size), size, mem);
}
/* 40..4F: the register in the opcode. */
ALWAYS_INLINE void inc_reg_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	set_reg(c, i->reg, inc_dec(c, get_reg(c, i->reg, size), false, size), size);
}
ALWAYS_INLINE void dec_reg_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	set_reg(c, i->reg, inc_dec(c, get_reg(c, i->reg, size), true, size), size);
}
ALWAYS_INLINE void neg_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	uint32_t a = get_rm_rmw(c, i, size, mem);
	uint32_t r = 0 - a;

	flags_sub(c, 0, a, r, size);
	set_rm_rmw(c, i, r, size, mem);
}
ALWAYS_INLINE void not_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	set_rm_rmw(c, i, ~get_rm_rmw(c, i, size, mem), size, mem);
}
OP_FORMS8(inc, inc_shape)
OP_FORMS(inc, inc_shape)
OP_FORMS8(dec, dec_shape)
OP_FORMS(dec, dec_shape)
OP_SIZES(inc_reg, inc_reg_shape)
OP_SIZES(dec_reg, dec_reg_shape)
OP_FORMS8(neg, neg_shape)
OP_FORMS(neg, neg_shape)
OP_FORMS8(not, not_shape)
OP_FORMS(not, not_shape)

/* ---- XADD, CMPXCHG ---- */
ALWAYS_INLINE void xadd_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	uint32_t a = get_rm_rmw(c, i, size, mem);
	uint32_t r = alu(c, ALU_ADD, a, get_reg(c, i->reg, size), size);

	/* The register first: with both operands the same register the sum stays. */
	set_reg(c, i->reg, a, size);
	set_rm_rmw(c, i, r, size, mem);
}
/* The destination is written in either case, with itself if it differs: a #PF for writing comes in
 * both. */
ALWAYS_INLINE void cmpxchg_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	uint32_t a = get_rm_rmw(c, i, size, mem);
	uint32_t expected = get_reg(c, R_EAX, size);

	alu(c, ALU_CMP, expected, a, size);
	if (a == expected) {
		set_rm_rmw(c, i, get_reg(c, i->reg, size), size, mem);
	} else {
		if (mem)
			set_rm_rmw(c, i, a, size, mem);
		set_reg(c, R_EAX, a, size);
	}
}
OP_FORMS8(xadd, xadd_shape)
OP_FORMS(xadd, xadd_shape)
OP_FORMS8(cmpxchg, cmpxchg_shape)
OP_FORMS(cmpxchg, cmpxchg_shape)

static void op_cmpxchg8b(struct soft_cpu *c, const struct insn *i)
{
	if (!(c->features_edx & CPUID_CX8))
		cpu_ud(c);

	uint64_t value = ld64_rmw(c, i->seg, effective_address(c, i));
	uint64_t expected = (uint64_t)c->gpr[R_EDX] << 32 | c->gpr[R_EAX];

	if (value == expected) {
		st64_rmw(c, (uint64_t)c->gpr[R_ECX] << 32 | c->gpr[R_EBX]);
	} else {
		st64_rmw(c, value);
		c->gpr[R_EAX] = (uint32_t)value;
		c->gpr[R_EDX] = (uint32_t)(value >> 32);
	}
	flags_set_zf(c, value == expected);
}

static const struct op_row rows[] = {
	ALU_ROWS(add, ALU_ADD, OP_LOCK),
	ALU_ROWS(or, ALU_OR, OP_LOCK),
	ALU_ROWS(adc, ALU_ADC, OP_LOCK),
	ALU_ROWS(sbb, ALU_SBB, OP_LOCK),
	ALU_ROWS(and, ALU_AND, OP_LOCK),
	ALU_ROWS(sub, ALU_SUB, OP_LOCK),
	ALU_ROWS(xor, ALU_XOR, OP_LOCK),
	ALU_ROWS(cmp, ALU_CMP, 0),

	ROW_SAME(0x84, OP_MODRM, FORMS8(test_eg)),
	ROW(0x85, OP_MODRM, FORMS(test_eg)),
	ROW_SAME(0xA8, OP_IMM8, test_ai_8, NULL),
	ROW(0xA9, OP_IMMZ, test_ai_16, NULL, test_ai_32, NULL),
	GRP_SAME(0xF6, 0, OP_MODRM | OP_IMM8, FORMS8(test_ei)),
	GRP_SAME(0xF6, 1, OP_MODRM | OP_IMM8, FORMS8(test_ei)),
	GRP(0xF7, 0, OP_MODRM | OP_IMMZ, FORMS(test_ei)),
	GRP(0xF7, 1, OP_MODRM | OP_IMMZ, FORMS(test_ei)),

	ROW(0x40, OP_OPREG, inc_reg_16, NULL, inc_reg_32, NULL),
	ROW(0x48, OP_OPREG, dec_reg_16, NULL, dec_reg_32, NULL),
	GRP_SAME(0xFE, 0, OP_MODRM | OP_LOCK, FORMS8(inc)),
	GRP_SAME(0xFE, 1, OP_MODRM | OP_LOCK, FORMS8(dec)),
	GRP(0xFF, 0, OP_MODRM | OP_LOCK, FORMS(inc)),
	GRP(0xFF, 1, OP_MODRM | OP_LOCK, FORMS(dec)),
	GRP_SAME(0xF6, 2, OP_MODRM | OP_LOCK, FORMS8(not )),
	GRP_SAME(0xF6, 3, OP_MODRM | OP_LOCK, FORMS8(neg)),
	GRP(0xF7, 2, OP_MODRM | OP_LOCK, FORMS(not )),
	GRP(0xF7, 3, OP_MODRM | OP_LOCK, FORMS(neg)),

	ROW_SAME(0x1B0, OP_MODRM | OP_LOCK, FORMS8(cmpxchg)),
	ROW(0x1B1, OP_MODRM | OP_LOCK, FORMS(cmpxchg)),
	ROW_SAME(0x1C0, OP_MODRM | OP_LOCK, FORMS8(xadd)),
	ROW(0x1C1, OP_MODRM | OP_LOCK, FORMS(xadd)),
	GRP_SAME(0x1C7, 1, OP_MODRM | OP_LOCK, NULL, op_cmpxchg8b),
};
const struct op_table ops_alu = {rows, ARRAY_SIZE(rows)};
