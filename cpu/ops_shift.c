/* SPDX-License-Identifier: MIT */
/*
 * Shifts and rotates (SDM vol. 1, 7.3.6): ROL ROR RCL RCR SHL SHR SAL SAR by 1, CL or an immediate,
 * SHLD and SHRD.
 *
 * The count is masked to five bits. A count of zero leaves all flags alone. Where the manual leaves
 * OF undefined (counts other than 1) we give what the formula for 1 gives on the last step, as the
 * processors do.
 */
#include "cpu/ops.h"

enum shift_op { SH_ROL, SH_ROR, SH_RCL, SH_RCR, SH_SHL, SH_SHR, SH_SAL, SH_SAR };

/* Rotates with the carry as one more bit: `count` is below 32, the ring has 8 * size + 1 bits. */
ALWAYS_INLINE uint32_t rotate_carry(struct soft_cpu *c, bool left, uint32_t a, unsigned count,
				    unsigned size)
{
	unsigned bits = 8 * size, ring = bits + 1;
	uint64_t mask = (UINT64_C(1) << ring) - 1;
	uint64_t v = a | (uint64_t)flag_cf(c) << bits;
	bool top, next;

	count %= ring;
	if (!left)
		count = (ring - count) % ring;
	if (count)
		v = (v << count | v >> (ring - count)) & mask;
	top = v >> (bits - 1) & 1;
	next = v >> (bits - 2) & 1;
	flags_set_cf_of(c, v >> bits & 1, left ? top ^ (v >> bits & 1) : top ^ next);
	return (uint32_t)v;
}

ALWAYS_INLINE uint32_t shift(struct soft_cpu *c, enum shift_op op, uint32_t a, unsigned count,
			     unsigned size)
{
	unsigned bits = 8 * size;
	uint32_t mask = size_mask(size), r;
	bool cf, top, next;

	switch (op) {
	case SH_ROL:
		count &= bits - 1;
		r = count ? (a << count | a >> (bits - count)) & mask : a;
		cf = r & 1;
		flags_set_cf_of(c, cf, cf ^ (r >> (bits - 1) & 1));
		return r;
	case SH_ROR:
		count &= bits - 1;
		r = count ? (a >> count | a << (bits - count)) & mask : a;
		top = r >> (bits - 1) & 1;
		next = r >> (bits - 2) & 1;
		flags_set_cf_of(c, top, top ^ next);
		return r;
	case SH_RCL: return rotate_carry(c, true, a, count, size);
	case SH_RCR: return rotate_carry(c, false, a, count, size);
	case SH_SHR:
		/* OF is the sign bit before the last step. */
		r = a >> count;
		flags_result(c, r, size, a >> (count - 1) & 1, (a >> (count - 1)) >> (bits - 1) & 1,
			     false);
		return r;
	case SH_SAR: {
		int32_t v = (int32_t)sign_extend(a, size);
		r = (uint32_t)(v >> count);
		flags_result(c, r, size, v >> (count - 1) & 1, false, false);
		return r & mask;
	}
	default: {
		uint64_t v = (uint64_t)a << count;
		r = (uint32_t)v & mask;
		cf = v >> bits & 1;
		flags_result(c, r, size, cf, cf ^ (r >> (bits - 1)), false);
		return r;
	}
	}
}

ALWAYS_INLINE void shift_rm(struct soft_cpu *c, const struct insn *i, enum shift_op op,
			    unsigned count, unsigned size, bool mem)
{
	uint32_t a = get_rm_rmw(c, i, size, mem);

	count &= 31;
	/* A count of zero still writes the destination (and may fault), but no flag. */
	set_rm_rmw(c, i, count ? shift(c, op, a, count, size) : a, size, mem);
}

#define SHIFT_FORMS(name, OP)                                                                      \
	ALWAYS_INLINE void name##_1_shape(struct soft_cpu *c, const struct insn *i, unsigned size, \
					  bool mem)                                                \
	{                                                                                          \
		shift_rm(c, i, OP, 1, size, mem);                                                  \
	}                                                                                          \
	ALWAYS_INLINE void name##_cl_shape(struct soft_cpu *c, const struct insn *i,               \
					   unsigned size, bool mem)                                \
	{                                                                                          \
		shift_rm(c, i, OP, c->gpr[R_ECX], size, mem);                                      \
	}                                                                                          \
	ALWAYS_INLINE void name##_i_shape(struct soft_cpu *c, const struct insn *i, unsigned size, \
					  bool mem)                                                \
	{                                                                                          \
		shift_rm(c, i, OP, i->imm, size, mem);                                             \
	}                                                                                          \
	OP_FORMS8(name##_1, name##_1_shape)                                                        \
	OP_FORMS(name##_1, name##_1_shape)                                                         \
	OP_FORMS8(name##_cl, name##_cl_shape)                                                      \
	OP_FORMS(name##_cl, name##_cl_shape)                                                       \
	OP_FORMS8(name##_i, name##_i_shape)                                                        \
	OP_FORMS(name##_i, name##_i_shape)

SHIFT_FORMS(rol, SH_ROL)
SHIFT_FORMS(ror, SH_ROR)
SHIFT_FORMS(rcl, SH_RCL)
SHIFT_FORMS(rcr, SH_RCR)
SHIFT_FORMS(shl, SH_SHL)
SHIFT_FORMS(shr, SH_SHR)
SHIFT_FORMS(sar, SH_SAR)

#define SHIFT_ROWS(name, n)                                                                        \
	GRP_SAME(0xC0, n, OP_MODRM | OP_IMM8, FORMS8(name##_i)),                                   \
		GRP(0xC1, n, OP_MODRM | OP_IMM8, FORMS(name##_i)),                                 \
		GRP_SAME(0xD0, n, OP_MODRM, FORMS8(name##_1)),                                     \
		GRP(0xD1, n, OP_MODRM, FORMS(name##_1)),                                           \
		GRP_SAME(0xD2, n, OP_MODRM, FORMS8(name##_cl)),                                    \
		GRP(0xD3, n, OP_MODRM, FORMS(name##_cl))

/*
 * SHLD, SHRD. With a 16-bit operand a count above 16 is undefined; the processors go on as if the
 * source's bits came around again, which is what the 48-bit string dest:src:dest gives.
 */
ALWAYS_INLINE void double_shift(struct soft_cpu *c, const struct insn *i, bool left, unsigned count,
				unsigned size, bool mem)
{
	unsigned bits = 8 * size;
	uint32_t a = get_rm_rmw(c, i, size, mem), b = get_reg(c, i->reg, size), r = a;

	count &= 31;
	if (count) {
		uint32_t last; /* the value one step before the end */
		bool cf;
		if (left) {
			uint64_t v =
				size == 2 ? (uint64_t)a << 32 | b << 16 | a : (uint64_t)a << 32 | b;
			r = (uint32_t)(v << count >> 32) & size_mask(size);
			last = (uint32_t)(v << (count - 1) >> 32) & size_mask(size);
			cf = last >> (bits - 1) & 1;
		} else {
			uint64_t v =
				size == 2 ? (uint64_t)a << 32 | b << 16 | a : (uint64_t)b << 32 | a;
			r = (uint32_t)(v >> count) & size_mask(size);
			last = (uint32_t)(v >> (count - 1)) & size_mask(size);
			cf = last & 1;
		}
		flags_result(c, r, size, cf, (r ^ last) >> (bits - 1) & 1, false);
	}
	set_rm_rmw(c, i, r, size, mem);
}
#define DOUBLE_SHIFT(name, left, count)                                                            \
	ALWAYS_INLINE void name##_shape(struct soft_cpu *c, const struct insn *i, unsigned size,   \
					bool mem)                                                  \
	{                                                                                          \
		double_shift(c, i, left, count, size, mem);                                        \
	}                                                                                          \
	OP_FORMS(name, name##_shape)
DOUBLE_SHIFT(shld_i, true, i->imm)
DOUBLE_SHIFT(shld_cl, true, c->gpr[R_ECX])
DOUBLE_SHIFT(shrd_i, false, i->imm)
DOUBLE_SHIFT(shrd_cl, false, c->gpr[R_ECX])

static const struct op_row rows[] = {
	SHIFT_ROWS(rol, SH_ROL),
	SHIFT_ROWS(ror, SH_ROR),
	SHIFT_ROWS(rcl, SH_RCL),
	SHIFT_ROWS(rcr, SH_RCR),
	SHIFT_ROWS(shl, SH_SHL),
	SHIFT_ROWS(shr, SH_SHR),
	SHIFT_ROWS(shl, SH_SAL), /* /6 is a synonym of /4 */
	SHIFT_ROWS(sar, SH_SAR),
	ROW(0x1A4, OP_MODRM | OP_IMM8, FORMS(shld_i)),
	ROW(0x1A5, OP_MODRM, FORMS(shld_cl)),
	ROW(0x1AC, OP_MODRM | OP_IMM8, FORMS(shrd_i)),
	ROW(0x1AD, OP_MODRM, FORMS(shrd_cl)),
};
const struct op_table ops_shift = {rows, ARRAY_SIZE(rows)};
