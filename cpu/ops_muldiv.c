/* SPDX-License-Identifier: MIT */
/*
 * MUL IMUL DIV IDIV, the decimal and ASCII adjustments (SDM vol. 1, 7.3.2 and 7.3.4), sign
 * extension of the accumulator.
 *
 * Flags that the manual leaves undefined: after a multiplication SF and PF follow the low half of
 * the product, ZF and AF are as recent Intel processors leave them (SF, PF of the result, ZF and AF
 * clear); division leaves all flags alone.
 */
#include "cpu/ops.h"

/* CF = OF = "the high half says something"; see above for the others. */
ALWAYS_INLINE void flags_mul(struct soft_cpu *c, uint32_t low, bool overflow, unsigned size)
{
	flags_result(c, low, size, overflow, overflow, false);
	flags_set_zf(c, false);
}

ALWAYS_INLINE void mul_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	uint64_t p = (uint64_t)get_reg(c, R_EAX, size) * get_rm(c, i, size, mem);
	uint32_t low = (uint32_t)p & size_mask(size), high = (uint32_t)(p >> 8 * size);

	if (size == 1) {
		set_reg(c, R_EAX, (uint32_t)p, 2);
	} else {
		set_reg(c, R_EAX, low, size);
		set_reg(c, R_EDX, high, size);
	}
	flags_mul(c, low, high != 0, size);
}

ALWAYS_INLINE void imul_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	int64_t p = (int64_t)(int32_t)sign_extend(get_reg(c, R_EAX, size), size) *
		    (int32_t)sign_extend(get_rm(c, i, size, mem), size);
	uint32_t low = (uint32_t)p & size_mask(size);

	if (size == 1) {
		set_reg(c, R_EAX, (uint32_t)p, 2);
	} else {
		set_reg(c, R_EAX, low, size);
		set_reg(c, R_EDX, (uint32_t)(p >> 8 * size), size);
	}
	flags_mul(c, low, p != (int32_t)sign_extend(low, size), size);
}

/* reg = a * b, truncated. */
ALWAYS_INLINE void imul_to_reg(struct soft_cpu *c, const struct insn *i, uint32_t a, uint32_t b,
			       unsigned size)
{
	int64_t p = (int64_t)(int32_t)sign_extend(a, size) * (int32_t)sign_extend(b, size);

	set_reg(c, i->reg, (uint32_t)p, size);
	flags_mul(c, (uint32_t)p, p != (int32_t)sign_extend((uint32_t)p, size), size);
}
ALWAYS_INLINE void imul_ge_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	imul_to_reg(c, i, get_reg(c, i->reg, size), get_rm(c, i, size, mem), size);
}
ALWAYS_INLINE void imul_gei_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	imul_to_reg(c, i, get_rm(c, i, size, mem), i->imm, size);
}

ALWAYS_INLINE uint64_t dividend(struct soft_cpu *c, unsigned size)
{
	if (size == 1)
		return *reg16(c, R_EAX);
	return (uint64_t)get_reg(c, R_EDX, size) << 8 * size | get_reg(c, R_EAX, size);
}
ALWAYS_INLINE void set_quotient(struct soft_cpu *c, uint32_t quotient, uint32_t remainder,
				unsigned size)
{
	if (size == 1) {
		*reg16(c, R_EAX) = (uint16_t)(remainder << 8 | (quotient & 0xFF));
	} else {
		set_reg(c, R_EAX, quotient, size);
		set_reg(c, R_EDX, remainder, size);
	}
}
ALWAYS_INLINE void div_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	uint32_t divisor = get_rm(c, i, size, mem);
	uint64_t n = dividend(c, size);

	/* The quotient fits if and only if the high half is below the divisor (a zero divisor never
	 * is above). */
	if (n >> 8 * size >= divisor)
		cpu_raise(c, EXC_DE);
	set_quotient(c, (uint32_t)(n / divisor), (uint32_t)(n % divisor), size);
}
ALWAYS_INLINE void idiv_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	int64_t divisor = (int32_t)sign_extend(get_rm(c, i, size, mem), size);
	unsigned unused = 64 - 16 * size;
	int64_t n = (int64_t)(dividend(c, size) << unused) >> unused;

	if (divisor == 0 || (divisor == -1 && n == INT64_MIN))
		cpu_raise(c, EXC_DE);
	int64_t q = n / divisor;
	if (q != (int32_t)sign_extend((uint32_t)q, size))
		cpu_raise(c, EXC_DE);
	set_quotient(c, (uint32_t)q, (uint32_t)(n % divisor) & size_mask(size), size);
}
OP_FORMS8(mul, mul_shape)
OP_FORMS(mul, mul_shape)
OP_FORMS8(imul, imul_shape)
OP_FORMS(imul, imul_shape)
OP_FORMS(imul_ge, imul_ge_shape)
OP_FORMS(imul_gei, imul_gei_shape)
OP_FORMS8(div, div_shape)
OP_FORMS(div, div_shape)
OP_FORMS8(idiv, idiv_shape)
OP_FORMS(idiv, idiv_shape)

/* ---- Decimal adjustments: the algorithms are those of the SDM, vol. 2 ---- */
static void op_daa(struct soft_cpu *c, const struct insn *i)
{
	uint8_t al = *reg8(c, R_EAX), old = al;
	bool cf = old > 0x99 || flag_cf(c), af = (al & 15) > 9 || flag_af(c);

	if (af)
		al += 6;
	if (cf)
		al += 0x60;
	*reg8(c, R_EAX) = al;
	flags_result(c, al, 1, cf, (~old & al) >> 7 & 1, af);
}
static void op_das(struct soft_cpu *c, const struct insn *i)
{
	uint8_t al = *reg8(c, R_EAX), old = al;
	bool old_cf = flag_cf(c), cf = false, af = false;

	if ((al & 15) > 9 || flag_af(c)) {
		cf = old_cf || al < 6;
		al -= 6;
		af = true;
	}
	if (old > 0x99 || old_cf) {
		al -= 0x60;
		cf = true;
	}
	*reg8(c, R_EAX) = al;
	flags_result(c, al, 1, cf, (old & ~al) >> 7 & 1, af);
}
/* AAA and AAS: `sign` is +1 or -1. */
static void ascii_adjust(struct soft_cpu *c, int sign)
{
	uint16_t ax = *reg16(c, R_EAX);
	bool adjust = (ax & 15) > 9 || flag_af(c);

	if (adjust)
		ax = (uint16_t)(ax + sign * 0x106);
	*reg16(c, R_EAX) = ax & 0xFF0F;
	flags_result(c, ax & 0x0F, 1, adjust, false, adjust);
}
static void op_aaa(struct soft_cpu *c, const struct insn *i)
{
	ascii_adjust(c, 1);
}
static void op_aas(struct soft_cpu *c, const struct insn *i)
{
	ascii_adjust(c, -1);
}
static void op_aam(struct soft_cpu *c, const struct insn *i)
{
	uint8_t al = *reg8(c, R_EAX), base = (uint8_t)i->imm;

	if (base == 0)
		cpu_raise(c, EXC_DE);
	*reg16(c, R_EAX) = (uint16_t)((al / base) << 8 | al % base);
	flags_logic(c, al % base, 1);
}
static void op_aad(struct soft_cpu *c, const struct insn *i)
{
	uint16_t ax = *reg16(c, R_EAX);
	uint8_t al = (uint8_t)ax, add = (uint8_t)((ax >> 8) * i->imm), r = (uint8_t)(al + add);

	*reg16(c, R_EAX) = r;
	flags_logic(c, r, 1);
}

/* ---- CBW CWDE CWD CDQ ---- */
static void op_cbw(struct soft_cpu *c, const struct insn *i)
{
	*reg16(c, R_EAX) = (uint16_t)(int8_t)c->gpr[R_EAX];
}
static void op_cwde(struct soft_cpu *c, const struct insn *i)
{
	c->gpr[R_EAX] = (uint32_t)(int16_t)c->gpr[R_EAX];
}
static void op_cwd(struct soft_cpu *c, const struct insn *i)
{
	*reg16(c, R_EDX) = (int16_t)c->gpr[R_EAX] < 0 ? 0xFFFF : 0;
}
static void op_cdq(struct soft_cpu *c, const struct insn *i)
{
	c->gpr[R_EDX] = (uint32_t)((int32_t)c->gpr[R_EAX] >> 31);
}

static const struct op_row rows[] = {
	GRP_SAME(0xF6, 4, OP_MODRM, FORMS8(mul)),
	GRP(0xF7, 4, OP_MODRM, FORMS(mul)),
	GRP_SAME(0xF6, 5, OP_MODRM, FORMS8(imul)),
	GRP(0xF7, 5, OP_MODRM, FORMS(imul)),
	GRP_SAME(0xF6, 6, OP_MODRM, FORMS8(div)),
	GRP(0xF7, 6, OP_MODRM, FORMS(div)),
	GRP_SAME(0xF6, 7, OP_MODRM, FORMS8(idiv)),
	GRP(0xF7, 7, OP_MODRM, FORMS(idiv)),
	ROW(0x69, OP_MODRM | OP_IMMZ, FORMS(imul_gei)),
	ROW(0x6B, OP_MODRM | OP_IMM8S, FORMS(imul_gei)),
	ROW(0x1AF, OP_MODRM, FORMS(imul_ge)),
	ROW_SAME(0x27, 0, op_daa, NULL),
	ROW_SAME(0x2F, 0, op_das, NULL),
	ROW_SAME(0x37, 0, op_aaa, NULL),
	ROW_SAME(0x3F, 0, op_aas, NULL),
	ROW_SAME(0xD4, OP_IMM8, op_aam, NULL),
	ROW_SAME(0xD5, OP_IMM8, op_aad, NULL),
	ROW(0x98, 0, op_cbw, NULL, op_cwde, NULL),
	ROW(0x99, 0, op_cwd, NULL, op_cdq, NULL),
};
const struct op_table ops_muldiv = {rows, ARRAY_SIZE(rows)};
