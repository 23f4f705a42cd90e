/* SPDX-License-Identifier: MIT */
/*
 * Moves, unpacking and shuffling of floating-point data between XMM registers, memory, MMX and
 * general registers (SSE: SDM vol. 1, 10.4.1; SSE2: 11.4.1). Nothing here looks at what the bits
 * mean. Non-temporal stores are stores.
 */
#include "cpu/fpu.h"

static inline uint8_t *dst_reg(struct soft_cpu *c, const struct insn *i)
{
	return c->fpu.xmm[i->reg];
}

/* Whole registers, aligned or not. */
static inline void load_whole(struct soft_cpu *c, const struct insn *i, uint32_t feature,
			      bool aligned)
{
	uint8_t tmp[16];
	uint32_t off;

	sse_enter(c, feature);
	if (!i->is_mem) {
		memcpy(tmp, c->fpu.xmm[i->rm], 16);
	} else {
		off = effective_address(c, i);
		if (aligned)
			sse_check_aligned(c, i, off);
		sse_load16(c, i->seg, off, tmp);
	}
	memcpy(dst_reg(c, i), tmp, 16);
}

static inline void store_whole(struct soft_cpu *c, const struct insn *i, uint32_t feature,
			       bool aligned)
{
	uint32_t off;

	sse_enter(c, feature);
	if (!i->is_mem) {
		memmove(c->fpu.xmm[i->rm], dst_reg(c, i), 16);
		return;
	}
	off = effective_address(c, i);
	if (aligned)
		sse_check_aligned(c, i, off);
	sse_store16(c, i->seg, off, dst_reg(c, i));
}

#define DEFINE_WHOLE(name, feature, aligned)                                                       \
	static void op_##name##_load(struct soft_cpu *c, const struct insn *i)                     \
	{                                                                                          \
		load_whole(c, i, feature, aligned);                                                \
	}                                                                                          \
	static void op_##name##_store(struct soft_cpu *c, const struct insn *i)                    \
	{                                                                                          \
		store_whole(c, i, feature, aligned);                                               \
	}
DEFINE_WHOLE(movups, CPUID_SSE, false)
DEFINE_WHOLE(movaps, CPUID_SSE, true)
DEFINE_WHOLE(movupd, CPUID_SSE2, false) /* MOVDQU too */
DEFINE_WHOLE(movapd, CPUID_SSE2, true)  /* MOVDQA, MOVNTPD, MOVNTDQ too */

/* MOVSS, MOVSD, MOVQ: a load from memory clears the rest of the register; between registers only
 * MOVQ does. */
static inline void load_scalar(struct soft_cpu *c, const struct insn *i, uint32_t feature,
			       unsigned size, bool clear)
{
	uint8_t tmp[16] = {0};

	sse_enter(c, feature);
	memcpy(tmp, sse_source_scalar(c, i, tmp, size), size);
	if (i->is_mem || clear)
		memcpy(dst_reg(c, i), tmp, 16);
	else
		memcpy(dst_reg(c, i), tmp, size);
}
static inline void store_scalar(struct soft_cpu *c, const struct insn *i, uint32_t feature,
				unsigned size, bool clear)
{
	const uint8_t *src = dst_reg(c, i);

	sse_enter(c, feature);
	if (i->is_mem && size == 4) {
		st32(c, i->seg, effective_address(c, i), load_le32(src));
	} else if (i->is_mem) {
		st64(c, i->seg, effective_address(c, i), load_le64(src));
	} else {
		memmove(c->fpu.xmm[i->rm], src, size);
		if (clear)
			memset(c->fpu.xmm[i->rm] + size, 0, 16 - size);
	}
}
static void op_movss_load(struct soft_cpu *c, const struct insn *i)
{
	load_scalar(c, i, CPUID_SSE, 4, false);
}
static void op_movss_store(struct soft_cpu *c, const struct insn *i)
{
	store_scalar(c, i, CPUID_SSE, 4, false);
}
static void op_movsd_load(struct soft_cpu *c, const struct insn *i)
{
	load_scalar(c, i, CPUID_SSE2, 8, false);
}
static void op_movsd_store(struct soft_cpu *c, const struct insn *i)
{
	store_scalar(c, i, CPUID_SSE2, 8, false);
}
static void op_movq_load(struct soft_cpu *c, const struct insn *i)
{
	load_scalar(c, i, CPUID_SSE2, 8, true);
}
static void op_movq_store(struct soft_cpu *c, const struct insn *i)
{
	store_scalar(c, i, CPUID_SSE2, 8, true);
}

/* MOVLPS, MOVHPS and the PD forms move one half; between registers 0F 12 is MOVHLPS and 0F 16
 * MOVLHPS. */
static inline void load_half(struct soft_cpu *c, const struct insn *i, uint32_t feature,
			     unsigned half)
{
	uint64_t v;

	sse_enter(c, feature);
	v = i->is_mem ? ld64(c, i->seg, effective_address(c, i))
		      : load_le64(c->fpu.xmm[i->rm] + (half == 0 ? 8 : 0));
	store_le64(dst_reg(c, i) + 8 * half, v);
}
static inline void store_half(struct soft_cpu *c, const struct insn *i, uint32_t feature,
			      unsigned half)
{
	sse_enter(c, feature);
	st64(c, i->seg, effective_address(c, i), load_le64(dst_reg(c, i) + 8 * half));
}
#define DEFINE_HALF(name, feature, half)                                                           \
	static void op_##name##_load(struct soft_cpu *c, const struct insn *i)                     \
	{                                                                                          \
		load_half(c, i, feature, half);                                                    \
	}                                                                                          \
	static void op_##name##_store(struct soft_cpu *c, const struct insn *i)                    \
	{                                                                                          \
		store_half(c, i, feature, half);                                                   \
	}
DEFINE_HALF(movlps, CPUID_SSE, 0)
DEFINE_HALF(movhps, CPUID_SSE, 1)
DEFINE_HALF(movlpd, CPUID_SSE2, 0)
DEFINE_HALF(movhpd, CPUID_SSE2, 1)

static void op_movd_from_rm(struct soft_cpu *c, const struct insn *i)
{
	uint32_t v[4] = {0};

	sse_enter(c, CPUID_SSE2);
	v[0] = i->is_mem ? ld32(c, i->seg, effective_address(c, i)) : c->gpr[i->rm];
	memcpy(dst_reg(c, i), v, 16);
}
static void op_movd_to_rm(struct soft_cpu *c, const struct insn *i)
{
	uint32_t v;

	sse_enter(c, CPUID_SSE2);
	v = load_le32(dst_reg(c, i));
	if (i->is_mem)
		st32(c, i->seg, effective_address(c, i), v);
	else
		c->gpr[i->rm] = v;
}

static void op_movnti(struct soft_cpu *c, const struct insn *i)
{
	if (!(c->features_edx & CPUID_SSE2))
		cpu_ud(c);
	st32(c, i->seg, effective_address(c, i), c->gpr[i->reg]);
}

static void op_movq2dq(struct soft_cpu *c, const struct insn *i)
{
	sse_enter(c, CPUID_SSE2);
	if (!x87_enter(c))
		return;
	mmx_take_over(&c->fpu);
	store_le64(dst_reg(c, i), mmx_read(&c->fpu, i->rm));
	store_le64(dst_reg(c, i) + 8, 0);
}
static void op_movdq2q(struct soft_cpu *c, const struct insn *i)
{
	sse_enter(c, CPUID_SSE2);
	if (!x87_enter(c))
		return;
	mmx_take_over(&c->fpu);
	mmx_write(&c->fpu, i->reg, load_le64(c->fpu.xmm[i->rm]));
}

static void op_movmskps(struct soft_cpu *c, const struct insn *i)
{
	const uint8_t *src = c->fpu.xmm[i->rm];
	uint32_t mask = 0;

	sse_enter(c, CPUID_SSE);
	for (unsigned n = 0; n < 4; n++)
		mask |= (uint32_t)(src[4 * n + 3] >> 7) << n;
	c->gpr[i->reg] = mask;
}
static void op_movmskpd(struct soft_cpu *c, const struct insn *i)
{
	const uint8_t *src = c->fpu.xmm[i->rm];

	sse_enter(c, CPUID_SSE2);
	c->gpr[i->reg] = (uint32_t)(src[7] >> 7 | src[15] >> 7 << 1);
}

/* UNPCKLPS/HPS: dwords `first`, first + 1 of both operands interleaved; the PD forms do so with one
 * quadword each. */
static inline void unpack_ps(struct soft_cpu *c, const struct insn *i, unsigned first)
{
	uint32_t tmp[4] __attribute__((aligned(16))), a[4], b[4], r[4];

	sse_enter(c, CPUID_SSE);
	memcpy(b, sse_source(c, i, tmp), 16);
	memcpy(a, dst_reg(c, i), 16);
	for (unsigned n = 0; n < 2; n++) {
		r[2 * n] = a[first + n];
		r[2 * n + 1] = b[first + n];
	}
	memcpy(dst_reg(c, i), r, 16);
}
static inline void select_pd(struct soft_cpu *c, const struct insn *i, unsigned from_dst,
			     unsigned from_src)
{
	uint64_t tmp[2] __attribute__((aligned(16))), r[2];

	sse_enter(c, CPUID_SSE2);
	r[1] = load_le64((const uint8_t *)sse_source(c, i, tmp) + 8 * from_src);
	r[0] = load_le64(dst_reg(c, i) + 8 * from_dst);
	memcpy(dst_reg(c, i), r, 16);
}
static void op_unpcklps(struct soft_cpu *c, const struct insn *i)
{
	unpack_ps(c, i, 0);
}
static void op_unpckhps(struct soft_cpu *c, const struct insn *i)
{
	unpack_ps(c, i, 2);
}
static void op_unpcklpd(struct soft_cpu *c, const struct insn *i)
{
	select_pd(c, i, 0, 0);
}
static void op_unpckhpd(struct soft_cpu *c, const struct insn *i)
{
	select_pd(c, i, 1, 1);
}
static void op_shufpd(struct soft_cpu *c, const struct insn *i)
{
	select_pd(c, i, i->imm & 1, i->imm >> 1 & 1);
}
static void op_shufps(struct soft_cpu *c, const struct insn *i)
{
	uint32_t tmp[4] __attribute__((aligned(16))), a[4], b[4], r[4];

	sse_enter(c, CPUID_SSE);
	memcpy(b, sse_source(c, i, tmp), 16);
	memcpy(a, dst_reg(c, i), 16);
	for (unsigned n = 0; n < 4; n++)
		r[n] = (n < 2 ? a : b)[i->imm >> 2 * n & 3];
	memcpy(dst_reg(c, i), r, 16);
}

struct simd_op sse_move_find(enum simd_prefix prefix, uint8_t op)
{
	static const struct simd_op table[PFX_COUNT][256] = {
		[PFX_NONE] =
			{
				[0x10] = {op_movups_load, FORM_ANY},
				[0x11] = {op_movups_store, FORM_ANY},
				[0x12] = {op_movlps_load, FORM_ANY},
				[0x13] = {op_movlps_store, FORM_MEM},
				[0x14] = {op_unpcklps, FORM_ANY},
				[0x15] = {op_unpckhps, FORM_ANY},
				[0x16] = {op_movhps_load, FORM_ANY},
				[0x17] = {op_movhps_store, FORM_MEM},
				[0x28] = {op_movaps_load, FORM_ANY},
				[0x29] = {op_movaps_store, FORM_ANY},
				[0x2B] = {op_movaps_store, FORM_MEM}, /* MOVNTPS */
				[0x50] = {op_movmskps, FORM_REG},
				[0xC3] = {op_movnti, FORM_MEM},
				[0xC6] = {op_shufps, FORM_ANY},
			},
		[PFX_66] =
			{
				[0x10] = {op_movupd_load, FORM_ANY},
				[0x11] = {op_movupd_store, FORM_ANY},
				[0x12] = {op_movlpd_load, FORM_MEM},
				[0x13] = {op_movlpd_store, FORM_MEM},
				[0x14] = {op_unpcklpd, FORM_ANY},
				[0x15] = {op_unpckhpd, FORM_ANY},
				[0x16] = {op_movhpd_load, FORM_MEM},
				[0x17] = {op_movhpd_store, FORM_MEM},
				[0x28] = {op_movapd_load, FORM_ANY},
				[0x29] = {op_movapd_store, FORM_ANY},
				[0x2B] = {op_movapd_store, FORM_MEM}, /* MOVNTPD */
				[0x50] = {op_movmskpd, FORM_REG},
				[0x6E] = {op_movd_from_rm, FORM_ANY},
				[0x6F] = {op_movapd_load, FORM_ANY}, /* MOVDQA */
				[0x7E] = {op_movd_to_rm, FORM_ANY},
				[0x7F] = {op_movapd_store, FORM_ANY}, /* MOVDQA */
				[0xC6] = {op_shufpd, FORM_ANY},
				[0xD6] = {op_movq_store, FORM_ANY},
				[0xE7] = {op_movapd_store, FORM_MEM}, /* MOVNTDQ */
			},
		[PFX_F3] =
			{
				[0x10] = {op_movss_load, FORM_ANY},
				[0x11] = {op_movss_store, FORM_ANY},
				[0x6F] = {op_movupd_load, FORM_ANY}, /* MOVDQU */
				[0x7E] = {op_movq_load, FORM_ANY},
				[0x7F] = {op_movupd_store, FORM_ANY}, /* MOVDQU */
				[0xD6] = {op_movq2dq, FORM_REG},
			},
		[PFX_F2] =
			{
				[0x10] = {op_movsd_load, FORM_ANY},
				[0x11] = {op_movsd_store, FORM_ANY},
				[0xD6] = {op_movdq2q, FORM_REG},
			},
	};

	return table[prefix][op];
}
