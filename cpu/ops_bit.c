/* SPDX-License-Identifier: MIT */
/*
 * Bits and conditions: BT BTS BTR BTC, BSF BSR, POPCNT, SETcc, CMOVcc, BSWAP, the carry and
 * direction flags, LAHF SAHF SALC (SDM vol. 1, 7.3.7 and 7.3.13).
 */
#include "cpu/ops.h"

enum bit_op { BIT_TEST, BIT_SET, BIT_RESET, BIT_COMPLEMENT };

ALWAYS_INLINE uint32_t bit_apply(enum bit_op op, uint32_t v, uint32_t bit)
{
	switch (op) {
	case BIT_SET: return v | bit;
	case BIT_RESET: return v & ~bit;
	case BIT_COMPLEMENT: return v ^ bit;
	default: return v;
	}
}
ALWAYS_INLINE void bit_at(struct soft_cpu *c, const struct insn *i, enum bit_op op, unsigned number,
			  uint32_t address, unsigned size, bool mem)
{
	uint32_t bit = UINT32_C(1) << (number & (8 * size - 1)), v;

	if (!mem) {
		v = get_reg(c, i->rm, size);
		if (op != BIT_TEST)
			set_reg(c, i->rm, bit_apply(op, v, bit), size);
	} else if (op == BIT_TEST) {
		v = load(c, i->seg, address, size);
	} else {
		v = (uint32_t)ld_rmw(c, i->seg, address, size);
		st_rmw(c, bit_apply(op, v, bit), size);
	}
	flags_set_cf(c, v & bit);
}
/* The bit number in a register is signed and reaches beyond the operand in memory (SDM vol. 2A,
 * figure 3-2). */
ALWAYS_INLINE void bit_eg(struct soft_cpu *c, const struct insn *i, enum bit_op op, unsigned size,
			  bool mem)
{
	int32_t number = (int32_t)sign_extend(get_reg(c, i->reg, size), size);
	uint32_t address = 0;

	if (mem)
		address = (effective_address(c, i) +
			   (uint32_t)((number >> (size == 2 ? 4 : 5)) * (int)size)) &
			  i->ad_mask;
	bit_at(c, i, op, (unsigned)number, address, size, mem);
}
ALWAYS_INLINE void bit_ei(struct soft_cpu *c, const struct insn *i, enum bit_op op, unsigned size,
			  bool mem)
{
	bit_at(c, i, op, i->imm, mem ? effective_address(c, i) : 0, size, mem);
}
#define BIT_FORMS(name, OP)                                                                        \
	ALWAYS_INLINE void name##_eg_shape(struct soft_cpu *c, const struct insn *i,               \
					   unsigned size, bool mem)                                \
	{                                                                                          \
		bit_eg(c, i, OP, size, mem);                                                       \
	}                                                                                          \
	ALWAYS_INLINE void name##_ei_shape(struct soft_cpu *c, const struct insn *i,               \
					   unsigned size, bool mem)                                \
	{                                                                                          \
		bit_ei(c, i, OP, size, mem);                                                       \
	}                                                                                          \
	OP_FORMS(name##_eg, name##_eg_shape)                                                       \
	OP_FORMS(name##_ei, name##_ei_shape)
BIT_FORMS(bt, BIT_TEST)
BIT_FORMS(bts, BIT_SET)
BIT_FORMS(btr, BIT_RESET)
BIT_FORMS(btc, BIT_COMPLEMENT)

/* A zero source sets ZF and leaves the destination alone (undefined in the manual, but what all
 * processors do). */
ALWAYS_INLINE void bit_scan(struct soft_cpu *c, const struct insn *i, bool forward, unsigned size,
			    bool mem)
{
	uint32_t v = get_rm(c, i, size, mem);

	if (v)
		set_reg(c, i->reg, (uint32_t)(forward ? __builtin_ctz(v) : 31 - __builtin_clz(v)),
			size);
	flags_set_zf(c, v == 0);
}
ALWAYS_INLINE void bsf_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	bit_scan(c, i, true, size, mem);
}
ALWAYS_INLINE void bsr_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	bit_scan(c, i, false, size, mem);
}
/* POPCNT: F3 0F B8, if the model has it. */
ALWAYS_INLINE void popcnt_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	enum { CPUID_ECX_POPCNT = 1 << 23 };
	if (i->rep != REP_E || !(c->features_ecx & CPUID_ECX_POPCNT))
		cpu_ud(c);

	uint32_t v = get_rm(c, i, size, mem);
	set_reg(c, i->reg, (uint32_t)__builtin_popcount(v), size);
	flags_set_arith(c, v ? 0 : FL_ZF);
}
OP_FORMS(bsf, bsf_shape)
OP_FORMS(bsr, bsr_shape)
OP_FORMS(popcnt, popcnt_shape)

/* The source is read in any case: a false CMOVcc can fault. */
ALWAYS_INLINE void cmov_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	if (!(c->features_edx & CPUID_CMOV))
		cpu_ud(c);
	uint32_t v = get_rm(c, i, size, mem);
	if (condition(c, i->opcode))
		set_reg(c, i->reg, v, size);
}
ALWAYS_INLINE void setcc_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	put_rm(c, i, condition(c, i->opcode), size, mem);
}
OP_FORMS(cmov, cmov_shape)
OP_FORMS8(setcc, setcc_shape)

/* A 16-bit operand is undefined; the processors give zero. */
static void op_bswap_16(struct soft_cpu *c, const struct insn *i)
{
	*reg16(c, i->reg) = 0;
}
static void op_bswap_32(struct soft_cpu *c, const struct insn *i)
{
	c->gpr[i->reg] = __builtin_bswap32(c->gpr[i->reg]);
}

static void op_clc(struct soft_cpu *c, const struct insn *i)
{
	flags_set_cf(c, false);
}
static void op_stc(struct soft_cpu *c, const struct insn *i)
{
	flags_set_cf(c, true);
}
static void op_cmc(struct soft_cpu *c, const struct insn *i)
{
	flags_set_cf(c, !flag_cf(c));
}
static void op_cld(struct soft_cpu *c, const struct insn *i)
{
	c->eflags &= ~(uint32_t)FL_DF;
}
static void op_std(struct soft_cpu *c, const struct insn *i)
{
	c->eflags |= FL_DF;
}
enum { R_AH = 4 };
static void op_lahf(struct soft_cpu *c, const struct insn *i)
{
	*reg8(c, R_AH) = (uint8_t)flags_get(c);
}
static void op_sahf(struct soft_cpu *c, const struct insn *i)
{
	flags_set_arith(c, *reg8(c, R_AH) | (flag_of(c) ? FL_OF : 0));
}
static void op_salc(struct soft_cpu *c, const struct insn *i)
{
	*reg8(c, R_EAX) = flag_cf(c) ? 0xFF : 0;
}

static const struct op_row rows[] = {
	ROW(0x1A3, OP_MODRM, FORMS(bt_eg)),
	ROW(0x1AB, OP_MODRM | OP_LOCK, FORMS(bts_eg)),
	ROW(0x1B3, OP_MODRM | OP_LOCK, FORMS(btr_eg)),
	ROW(0x1BB, OP_MODRM | OP_LOCK, FORMS(btc_eg)),
	GRP(0x1BA, 4, OP_MODRM | OP_IMM8, FORMS(bt_ei)),
	GRP(0x1BA, 5, OP_MODRM | OP_IMM8 | OP_LOCK, FORMS(bts_ei)),
	GRP(0x1BA, 6, OP_MODRM | OP_IMM8 | OP_LOCK, FORMS(btr_ei)),
	GRP(0x1BA, 7, OP_MODRM | OP_IMM8 | OP_LOCK, FORMS(btc_ei)),
	ROW(0x1BC, OP_MODRM, FORMS(bsf)),
	ROW(0x1BD, OP_MODRM, FORMS(bsr)),
	ROW(0x1B8, OP_MODRM, FORMS(popcnt)),
	ROW(0x140, OP_MODRM | OP_CC, FORMS(cmov)),
	ROW_SAME(0x190, OP_MODRM | OP_CC, FORMS8(setcc)),
	ROW(0x1C8, OP_OPREG, op_bswap_16, NULL, op_bswap_32, NULL),
	ROW_SAME(0xF8, 0, op_clc, NULL),
	ROW_SAME(0xF9, 0, op_stc, NULL),
	ROW_SAME(0xF5, 0, op_cmc, NULL),
	ROW_SAME(0xFC, 0, op_cld, NULL),
	ROW_SAME(0xFD, 0, op_std, NULL),
	ROW_SAME(0x9F, 0, op_lahf, NULL),
	ROW_SAME(0x9E, 0, op_sahf, NULL),
	ROW_SAME(0xD6, 0, op_salc, NULL),
};
const struct op_table ops_bit = {rows, ARRAY_SIZE(rows)};
