/* SPDX-License-Identifier: MIT */
/*
 * MMX (SDM vol. 1, chapter 9), with the instructions on MMX registers that came with SSE and SSE2.
 * The registers are the significands of the x87 registers R0..R7. Any of these instructions sets
 * TOP to 0 and all tags to valid; EMMS alone empties them.
 */
#include "cpu/simd_int.h"

static inline uint64_t source64(struct soft_cpu *c, const struct insn *i)
{
	return i->is_mem ? ld64(c, i->seg, effective_address(c, i)) : mmx_read(&c->fpu, i->rm);
}

static inline void binary(struct soft_cpu *c, const struct insn *i, simd_kernel kernel,
			  enum mmx_shape shape, uint32_t feature)
{
	__m128i a, b, r;

	if (!mmx_enter(c, feature))
		return;
	if (shape == MM_UNPACK_LOW && i->is_mem)
		b = _mm_cvtsi64_si128(ld32(c, i->seg, effective_address(c, i)));
	else
		b = _mm_cvtsi64_si128((long long)source64(c, i));
	mmx_take_over(&c->fpu);
	a = _mm_cvtsi64_si128((long long)mmx_read(&c->fpu, i->reg));
	switch (shape) {
	case MM_PACK:
		a = _mm_unpacklo_epi64(a, b);
		r = kernel(a, a);
		break;
	case MM_UNPACK_HIGH:
		r = kernel(_mm_unpacklo_epi64(a, a), _mm_unpacklo_epi64(b, b));
		r = _mm_unpackhi_epi64(r, r);
		break;
	default: r = kernel(a, b);
	}
	mmx_write(&c->fpu, i->reg, (uint64_t)_mm_cvtsi128_si64(r));
}

#define DEFINE_OP(byte, name, shape, feature)                                                      \
	static void op_##name(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                          \
		if (shape == MM_NONE)                                                              \
			cpu_ud(c);                                                                 \
		binary(c, i, simd_##name, shape, feature);                                         \
	}
SIMD_INT_OPS(DEFINE_OP)

void op_shift_imm_mm(struct soft_cpu *c, const struct insn *i)
{
	simd_kernel kernel = simd_shift_kernel(i->opcode & 0xFF, i->reg);
	__m128i r;

	if (!mmx_enter(c, CPUID_MMX))
		return;
	mmx_take_over(&c->fpu);
	r = kernel(_mm_cvtsi64_si128((long long)mmx_read(&c->fpu, i->rm)),
		   _mm_cvtsi32_si128(i->imm & 0xFF));
	mmx_write(&c->fpu, i->rm, (uint64_t)_mm_cvtsi128_si64(r));
}

static void op_movd_from_rm(struct soft_cpu *c, const struct insn *i)
{
	uint32_t v;

	if (!mmx_enter(c, CPUID_MMX))
		return;
	v = i->is_mem ? ld32(c, i->seg, effective_address(c, i)) : c->gpr[i->rm];
	mmx_take_over(&c->fpu);
	mmx_write(&c->fpu, i->reg, v);
}

static void op_movd_to_rm(struct soft_cpu *c, const struct insn *i)
{
	uint32_t v;

	if (!mmx_enter(c, CPUID_MMX))
		return;
	v = (uint32_t)mmx_read(&c->fpu, i->reg);
	x87_set_top(&c->fpu, 0); /* even if the store faults */
	if (i->is_mem)
		st32(c, i->seg, effective_address(c, i), v);
	else
		c->gpr[i->rm] = v;
	mmx_take_over(&c->fpu);
}

static void op_movq_from_rm(struct soft_cpu *c, const struct insn *i)
{
	uint64_t v;

	if (!mmx_enter(c, CPUID_MMX))
		return;
	v = source64(c, i);
	mmx_take_over(&c->fpu);
	mmx_write(&c->fpu, i->reg, v);
}

static inline void store_movq(struct soft_cpu *c, const struct insn *i, uint32_t feature)
{
	uint64_t v;

	if (!mmx_enter(c, feature))
		return;
	v = mmx_read(&c->fpu, i->reg);
	x87_set_top(&c->fpu, 0); /* even if the store faults */
	if (i->is_mem)
		st64(c, i->seg, effective_address(c, i), v);
	mmx_take_over(&c->fpu);
	if (!i->is_mem)
		mmx_write(&c->fpu, i->rm, v);
}
static void op_movq_to_rm(struct soft_cpu *c, const struct insn *i)
{
	store_movq(c, i, CPUID_MMX);
}
static void op_movntq(struct soft_cpu *c, const struct insn *i)
{
	store_movq(c, i, CPUID_SSE);
}

static void op_pshufw(struct soft_cpu *c, const struct insn *i)
{
	uint64_t v, r = 0;

	if (!mmx_enter(c, CPUID_SSE))
		return;
	v = source64(c, i);
	for (unsigned n = 0; n < 4; n++)
		r |= (v >> 16 * (i->imm >> 2 * n & 3) & 0xFFFF) << 16 * n;
	mmx_take_over(&c->fpu);
	mmx_write(&c->fpu, i->reg, r);
}

static void op_pinsrw(struct soft_cpu *c, const struct insn *i)
{
	unsigned shift = 16 * (i->imm & 3);
	uint64_t v;

	if (!mmx_enter(c, CPUID_SSE))
		return;
	v = i->is_mem ? ld16(c, i->seg, effective_address(c, i)) : (uint16_t)c->gpr[i->rm];
	mmx_take_over(&c->fpu);
	v = (mmx_read(&c->fpu, i->reg) & ~(UINT64_C(0xFFFF) << shift)) | v << shift;
	mmx_write(&c->fpu, i->reg, v);
}

static void op_pextrw(struct soft_cpu *c, const struct insn *i)
{
	if (!mmx_enter(c, CPUID_SSE))
		return;
	mmx_take_over(&c->fpu);
	c->gpr[i->reg] = (uint16_t)(mmx_read(&c->fpu, i->rm) >> 16 * (i->imm & 3));
}

static void op_pmovmskb(struct soft_cpu *c, const struct insn *i)
{
	if (!mmx_enter(c, CPUID_SSE))
		return;
	mmx_take_over(&c->fpu);
	c->gpr[i->reg] =
		(uint32_t)_mm_movemask_epi8(_mm_cvtsi64_si128((long long)mmx_read(&c->fpu, i->rm)));
}

/* Stores the bytes whose mask byte is negative at DS:(E)DI. */
static void op_maskmovq(struct soft_cpu *c, const struct insn *i)
{
	uint64_t v, mask;

	if (!mmx_enter(c, CPUID_SSE))
		return;
	v = mmx_read(&c->fpu, i->reg);
	mask = mmx_read(&c->fpu, i->rm);
	mmx_take_over(&c->fpu); /* even if the store faults */
	simd_store_masked(c, i, (const uint8_t *)&v, (const uint8_t *)&mask, 8);
}

static void op_emms(struct soft_cpu *c, const struct insn *i)
{
	if (!mmx_enter(c, CPUID_MMX))
		return;
	mmx_take_over(&c->fpu);
	c->fpu.tag_valid = 0;
}

struct simd_op mmx_find(enum simd_prefix prefix, uint8_t op)
{
#define ENTRY(byte, name, shape, feature) [byte] = {shape == MM_NONE ? NULL : op_##name, FORM_ANY},
	static const struct simd_op table[256] = {
		SIMD_INT_OPS(ENTRY)[0x6E] = {op_movd_from_rm, FORM_ANY},
		[0x6F] = {op_movq_from_rm, FORM_ANY},
		[0x70] = {op_pshufw, FORM_ANY},
		[0x77] = {op_emms, FORM_ANY},
		[0x7E] = {op_movd_to_rm, FORM_ANY},
		[0x7F] = {op_movq_to_rm, FORM_ANY},
		[0xC4] = {op_pinsrw, FORM_ANY},
		[0xC5] = {op_pextrw, FORM_REG},
		[0xD7] = {op_pmovmskb, FORM_REG},
		[0xE7] = {op_movntq, FORM_MEM},
		[0xF7] = {op_maskmovq, FORM_REG},
	};
#undef ENTRY

	return prefix == PFX_NONE ? table[op] : (struct simd_op){0};
}
