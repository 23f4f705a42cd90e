/* SPDX-License-Identifier: MIT */
/*
 * The arithmetic flags, kept as the ingredients from which each follows in a step or two (SDM vol.
 * 1, 3.4.3.1):
 *
 *   result   the last result, sign-extended to 32 bits:  ZF = (result == 0)
 *   fix      normally 0:                                 SF = bit 31 of result ^ fix
 *                                                        PF = even parity of the low byte of
 *                                                             result ^ fix
 *   carries  carries out of bit positions:               CF = bit 31, the carry out of the top bit
 *                                                        OF = bit 31 ^ bit 30 (carry out of, carry
 *                                                             into the top bit)
 *                                                        AF = bit 3
 *
 * So an addition stores three words and computes no flag, and a conditional jump computes one.
 * `fix` exists for flags that are set at will (POPF, SAHF) and fit no result, such as ZF and SF
 * together.
 *
 * The carries of a + b = r out of each bit are (a & b) | ((a | b) & ~r); the borrows of a - b = r
 * are (~a & b) | ((~a | b) & r). Both hold with a carry or borrow in, too.
 */
#ifndef CPU_FLAGS_H
#define CPU_FLAGS_H

#include "cpu/internal.h"

#define CARRY_OUT UINT32_C(0x80000000) /* in `carries` */
#define CARRY_IN  UINT32_C(0x40000000)
#define CARRY_AUX UINT32_C(0x00000008)

static inline bool flag_cf(const struct soft_cpu *c)
{
	return c->cc.carries >> 31;
}
static inline bool flag_zf(const struct soft_cpu *c)
{
	return c->cc.result == 0;
}
static inline bool flag_sf(const struct soft_cpu *c)
{
	return (c->cc.result ^ c->cc.fix) >> 31;
}
static inline bool flag_of(const struct soft_cpu *c)
{
	return (c->cc.carries ^ c->cc.carries << 1) >> 31;
}
static inline bool flag_pf(const struct soft_cpu *c)
{
	return !__builtin_parity((c->cc.result ^ c->cc.fix) & 0xFF);
}
static inline bool flag_af(const struct soft_cpu *c)
{
	return c->cc.carries & CARRY_AUX;
}

/* `v` of `size` bytes, sign-extended. */
static inline uint32_t sign_extend(uint32_t v, unsigned size)
{
	switch (size) {
	case 1: return (uint32_t)(int8_t)v;
	case 2: return (uint32_t)(int16_t)v;
	default: return v;
	}
}

/* A vector of carries out of each bit of a `size`-byte operation, moved to where `carries` has
 * them. */
static inline uint32_t place_carries(uint32_t vector, unsigned size)
{
	if (size == 4)
		return vector;
	return vector << (32 - 8 * size) | (vector & CARRY_AUX);
}

static inline void flags_add(struct soft_cpu *c, uint32_t a, uint32_t b, uint32_t r, unsigned size)
{
	c->cc.result = sign_extend(r, size);
	c->cc.carries = place_carries((a & b) | ((a | b) & ~r), size);
	c->cc.fix = 0;
}
static inline void flags_sub(struct soft_cpu *c, uint32_t a, uint32_t b, uint32_t r, unsigned size)
{
	c->cc.result = sign_extend(r, size);
	c->cc.carries = place_carries((~a & b) | ((~a | b) & r), size);
	c->cc.fix = 0;
}
/* AND, OR, XOR, TEST: CF, OF and AF are clear. */
static inline void flags_logic(struct soft_cpu *c, uint32_t r, unsigned size)
{
	c->cc.result = sign_extend(r, size);
	c->cc.carries = 0;
	c->cc.fix = 0;
}
/* SF, ZF and PF from a result, the others as given. */
static inline void flags_result(struct soft_cpu *c, uint32_t r, unsigned size, bool cf, bool of,
				bool af)
{
	c->cc.result = sign_extend(r, size);
	c->cc.carries = (uint32_t)cf << 31 | (uint32_t)(cf ^ of) << 30 | (uint32_t)af << 3;
	c->cc.fix = 0;
}
static inline void flags_set_cf(struct soft_cpu *c, bool cf)
{
	uint32_t of = (uint32_t)flag_of(c);
	c->cc.carries =
		(c->cc.carries & CARRY_AUX) | (uint32_t)cf << 31 | ((uint32_t)cf ^ of) << 30;
}
static inline void flags_set_cf_of(struct soft_cpu *c, bool cf, bool of)
{
	c->cc.carries =
		(c->cc.carries & CARRY_AUX) | (uint32_t)cf << 31 | (uint32_t)(cf ^ of) << 30;
}
static inline void flags_set_zf(struct soft_cpu *c, bool zf)
{
	/* Keep SF and PF: they follow from result ^ fix. */
	uint32_t seen = c->cc.result ^ c->cc.fix;
	c->cc.result = !zf;
	c->cc.fix = seen ^ c->cc.result;
}

/* The conditions of Jcc, SETcc and CMOVcc (SDM vol. 1, appendix B): the opcode's low four bits. */
enum condition {
	COND_O,
	COND_B = 2,
	COND_E = 4,
	COND_BE = 6,
	COND_S = 8,
	COND_P = 10,
	COND_L = 12,
	COND_LE = 14
};
static inline bool condition(const struct soft_cpu *c, unsigned cc)
{
	unsigned o = flag_of(c), b = flag_cf(c), z = flag_zf(c), n = flag_sf(c), v;
	switch (cc & 14) {
	case COND_O: v = o; break;
	case COND_B: v = b; break;
	case COND_E: v = z; break;
	case COND_BE: v = b | z; break;
	case COND_S: v = n; break;
	case COND_P: v = flag_pf(c); break;
	case COND_L: v = n ^ o; break;
	default: v = (n ^ o) | z; break;
	}
	return v ^ (cc & 1);
}

#endif
