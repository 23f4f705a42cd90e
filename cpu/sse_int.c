/* SPDX-License-Identifier: MIT */
/*
 * Packed integers on XMM registers: SSE2 (SDM vol. 1, chapter 11.4.2). Computed by the host's SSE2.
 */
#include "cpu/simd_int.h"

static inline __m128i load_xmm(const struct soft_cpu *c, unsigned n)
{
	return _mm_load_si128((const __m128i *)c->fpu.xmm[n]);
}
static inline void store_xmm(struct soft_cpu *c, unsigned n, __m128i v)
{
	_mm_store_si128((__m128i *)c->fpu.xmm[n], v);
}

static inline void binary(struct soft_cpu *c, const struct insn *i, simd_kernel kernel)
{
	__m128i tmp;

	sse_enter(c, CPUID_SSE2);
	tmp = _mm_load_si128(sse_source(c, i, &tmp));
	store_xmm(c, i->reg, kernel(load_xmm(c, i->reg), tmp));
}

#define DEFINE_OP(byte, name, shape, feature)                                                      \
	static void op_##name(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                          \
		binary(c, i, simd_##name);                                                         \
	}
SIMD_INT_OPS(DEFINE_OP)

void op_shift_imm_xmm(struct soft_cpu *c, const struct insn *i)
{
	simd_kernel kernel = simd_shift_kernel(i->opcode & 0xFF, i->reg);

	sse_enter(c, CPUID_SSE2);
	store_xmm(c, i->rm, kernel(load_xmm(c, i->rm), _mm_cvtsi32_si128(i->imm & 0xFF)));
}

void op_shift_bytes_xmm(struct soft_cpu *c, const struct insn *i)
{
	uint8_t v[3][16] = {0}; /* the register between zeros */
	unsigned count = i->imm & 0xFF;

	sse_enter(c, CPUID_SSE2);
	if (count > 16)
		count = 16;
	memcpy(v[1], c->fpu.xmm[i->rm], 16);
	memcpy(c->fpu.xmm[i->rm], i->reg == 3 ? v[1] + count : v[1] - count, 16);
}

/* PSHUFD, PSHUFHW, PSHUFLW: `first` and `count` words or dwords are shuffled, the rest is copied.
 */
static void op_pshufd(struct soft_cpu *c, const struct insn *i)
{
	uint32_t tmp[4] __attribute__((aligned(16))), src[4], dst[4];

	sse_enter(c, CPUID_SSE2);
	memcpy(src, sse_source(c, i, tmp), 16);
	for (unsigned n = 0; n < 4; n++)
		dst[n] = src[i->imm >> 2 * n & 3];
	memcpy(c->fpu.xmm[i->reg], dst, 16);
}

static inline void shuffle_words(struct soft_cpu *c, const struct insn *i, unsigned first)
{
	uint16_t tmp[8] __attribute__((aligned(16))), src[8], dst[8];

	sse_enter(c, CPUID_SSE2);
	memcpy(src, sse_source(c, i, tmp), 16);
	memcpy(dst, src, 16);
	for (unsigned n = 0; n < 4; n++)
		dst[first + n] = src[first + (i->imm >> 2 * n & 3)];
	memcpy(c->fpu.xmm[i->reg], dst, 16);
}
static void op_pshufhw(struct soft_cpu *c, const struct insn *i)
{
	shuffle_words(c, i, 4);
}
static void op_pshuflw(struct soft_cpu *c, const struct insn *i)
{
	shuffle_words(c, i, 0);
}

static void op_pinsrw(struct soft_cpu *c, const struct insn *i)
{
	uint16_t v;

	sse_enter(c, CPUID_SSE2);
	v = i->is_mem ? ld16(c, i->seg, effective_address(c, i)) : (uint16_t)c->gpr[i->rm];
	store_le16(c->fpu.xmm[i->reg] + 2 * (i->imm & 7), v);
}

static void op_pextrw(struct soft_cpu *c, const struct insn *i)
{
	sse_enter(c, CPUID_SSE2);
	c->gpr[i->reg] = load_le16(c->fpu.xmm[i->rm] + 2 * (i->imm & 7));
}

static void op_pmovmskb(struct soft_cpu *c, const struct insn *i)
{
	sse_enter(c, CPUID_SSE2);
	c->gpr[i->reg] = (uint32_t)_mm_movemask_epi8(load_xmm(c, i->rm));
}

static void op_maskmovdqu(struct soft_cpu *c, const struct insn *i)
{
	sse_enter(c, CPUID_SSE2);
	simd_store_masked(c, i, c->fpu.xmm[i->reg], c->fpu.xmm[i->rm], 16);
}

struct simd_op sse_int_find(enum simd_prefix prefix, uint8_t op)
{
#define ENTRY(byte, name, shape, feature) [byte] = {op_##name, FORM_ANY},
	static const struct simd_op table_66[256] = {
		SIMD_INT_OPS(ENTRY)[0x70] = {op_pshufd, FORM_ANY},
		[0xC4] = {op_pinsrw, FORM_ANY},
		[0xC5] = {op_pextrw, FORM_REG},
		[0xD7] = {op_pmovmskb, FORM_REG},
		[0xF7] = {op_maskmovdqu, FORM_REG},
	};
#undef ENTRY

	if (prefix == PFX_66)
		return table_66[op];
	if (op == 0x70 && prefix == PFX_F3)
		return (struct simd_op){op_pshufhw, FORM_ANY};
	if (op == 0x70 && prefix == PFX_F2)
		return (struct simd_op){op_pshuflw, FORM_ANY};
	return (struct simd_op){0};
}
