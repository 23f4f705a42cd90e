/* SPDX-License-Identifier: MIT */
/*
 * Floating-point arithmetic, comparisons and conversions on XMM registers (SDM vol. 1, 10.4.1
 * and 11.4.1; exceptions: 11.5).
 *
 * A kernel is one instruction, executed by the host's SSE2 on 16 bytes. Kernels whose instruction
 * can signal an exception run with the guest's MXCSR, all exceptions masked, and the flags they
 * leave are taken over. If one of those is unmasked in the guest's MXCSR, the destination stays as
 * it was and #XM is raised (#UD without CR4.OSXMMEXCPT).
 */
#include "cpu/sse_trap.h"
#include <emmintrin.h>

#define DEFINE_KERNEL(kernel, insn)                                                                \
	static void kernel(void *dst, const void *src)                                             \
	{                                                                                          \
		__m128i d = _mm_loadu_si128(dst), s = _mm_loadu_si128(src);                        \
		__asm__ volatile(insn " %1, %0" : "+x"(d) : "x"(s) : "memory");                    \
		_mm_storeu_si128(dst, d);                                                          \
	}

/* ---- running a kernel ---- */

/* Runs the kernel on the operands; *dst is the result. Raises #XM. */
static inline void run(struct soft_cpu *c, const struct insn *i, sse_kernel kernel, void *dst,
		       const void *src)
{
	uint32_t guest = c->fpu.mxcsr, run_as = guest, flags;
	uint8_t operand[16];

	if (likely((guest & MXCSR_MASKS) == MXCSR_MASKS)) {
		c->fpu.mxcsr |= sse_run_masked(kernel, dst, src, guest);
		return;
	}
	/* Flush-to-zero is for masked underflow alone. */
	if (!(guest & FPE_UNDERFLOW << MXCSR_MASK_SHIFT))
		run_as &= ~(uint32_t)MXCSR_FTZ;
	memcpy(operand, dst, 16);
	flags = sse_run_masked(kernel, dst, src, run_as);
	flags = sse_unmasked_flags(i, kernel, operand, src, guest, flags);
	c->fpu.mxcsr |= flags;
	if (flags & ~(guest >> MXCSR_MASK_SHIFT)) {
		if (!(c->cr4 & CR4_OSXMMEXCPT))
			cpu_ud(c);
		cpu_raise(c, EXC_XM);
	}
}

/* xmm op= xmm/mem, where memory operands have `size` bytes. */
static inline void binary(struct soft_cpu *c, const struct insn *i, sse_kernel kernel,
			  unsigned size, uint32_t feature)
{
	uint8_t tmp[16] __attribute__((aligned(16))), dst[16] = {0};
	const void *src;

	sse_enter(c, feature);
	src = size == 16 ? sse_source(c, i, tmp) : sse_source_scalar(c, i, tmp, size);
	memcpy(dst, c->fpu.xmm[i->reg], 16);
	run(c, i, kernel, dst, src);
	memcpy(c->fpu.xmm[i->reg], dst, 16);
}

/* The same for instructions that signal nothing (and ignore MXCSR). */
static inline void binary_quiet(struct soft_cpu *c, const struct insn *i, sse_kernel kernel,
				unsigned size, uint32_t feature)
{
	uint8_t tmp[16] __attribute__((aligned(16)));
	const void *src;

	sse_enter(c, feature);
	src = size == 16 ? sse_source(c, i, tmp) : sse_source_scalar(c, i, tmp, size);
	kernel(c->fpu.xmm[i->reg], src);
}

/* ---- instructions of one shape ---- */

/* X(mnemonic, bytes of a memory operand, CPUID.1:EDX bit) */
#define FOUR_FORMS(X, op)                                                                          \
	X(op##ps, 16, CPUID_SSE)                                                                   \
	X(op##pd, 16, CPUID_SSE2) X(op##ss, 4, CPUID_SSE) X(op##sd, 8, CPUID_SSE2)
#define FLOAT_OPS(X)                                                                               \
	FOUR_FORMS(X, sqrt)                                                                        \
	FOUR_FORMS(X, add)                                                                         \
	FOUR_FORMS(X, mul)                                                                         \
	FOUR_FORMS(X, sub)                                                                         \
	FOUR_FORMS(X, min)                                                                         \
	FOUR_FORMS(X, div)                                                                         \
	FOUR_FORMS(X, max)                                                                         \
	X(cvtps2pd, 8, CPUID_SSE2)                                                                 \
	X(cvtpd2ps, 16, CPUID_SSE2)                                                                \
	X(cvtss2sd, 4, CPUID_SSE2)                                                                 \
	X(cvtsd2ss, 8, CPUID_SSE2)                                                                 \
	X(cvtdq2ps, 16, CPUID_SSE2)                                                                \
	X(cvtps2dq, 16, CPUID_SSE2)                                                                \
	X(cvttps2dq, 16, CPUID_SSE2)                                                               \
	X(cvtpd2dq, 16, CPUID_SSE2)                                                                \
	X(cvttpd2dq, 16, CPUID_SSE2)                                                               \
	X(cvtdq2pd, 8, CPUID_SSE2)
#define QUIET_OPS(X)                                                                               \
	X(rsqrtps, 16, CPUID_SSE)                                                                  \
	X(rsqrtss, 4, CPUID_SSE)                                                                   \
	X(rcpps, 16, CPUID_SSE)                                                                    \
	X(rcpss, 4, CPUID_SSE)                                                                     \
	X(andps, 16, CPUID_SSE)                                                                    \
	X(andpd, 16, CPUID_SSE2)                                                                   \
	X(andnps, 16, CPUID_SSE)                                                                   \
	X(andnpd, 16, CPUID_SSE2)                                                                  \
	X(orps, 16, CPUID_SSE)                                                                     \
	X(orpd, 16, CPUID_SSE2)                                                                    \
	X(xorps, 16, CPUID_SSE)                                                                    \
	X(xorpd, 16, CPUID_SSE2)

#define DEFINE_FLOAT_OP(name, size, feature)                                                       \
	DEFINE_KERNEL(k_##name, #name)                                                             \
	static void op_##name(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                          \
		binary(c, i, k_##name, size, feature);                                             \
	}
#define DEFINE_QUIET_OP(name, size, feature)                                                       \
	DEFINE_KERNEL(k_##name, #name)                                                             \
	static void op_##name(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                          \
		binary_quiet(c, i, k_##name, size, feature);                                       \
	}
FLOAT_OPS(DEFINE_FLOAT_OP)
QUIET_OPS(DEFINE_QUIET_OP)

/* CMPccPS etc.: the predicate is in the immediate's low three bits. */
#define DEFINE_COMPARE(suffix, size, feature)                                                      \
	DEFINE_KERNEL(k_cmp0##suffix, "cmp" #suffix " $0,")                                        \
	DEFINE_KERNEL(k_cmp1##suffix, "cmp" #suffix " $1,")                                        \
	DEFINE_KERNEL(k_cmp2##suffix, "cmp" #suffix " $2,")                                        \
	DEFINE_KERNEL(k_cmp3##suffix, "cmp" #suffix " $3,")                                        \
	DEFINE_KERNEL(k_cmp4##suffix, "cmp" #suffix " $4,")                                        \
	DEFINE_KERNEL(k_cmp5##suffix, "cmp" #suffix " $5,")                                        \
	DEFINE_KERNEL(k_cmp6##suffix, "cmp" #suffix " $6,")                                        \
	DEFINE_KERNEL(k_cmp7##suffix, "cmp" #suffix " $7,")                                        \
	static void op_cmp##suffix(struct soft_cpu *c, const struct insn *i)                       \
	{                                                                                          \
		static const sse_kernel by_predicate[8] = {                                        \
			k_cmp0##suffix, k_cmp1##suffix, k_cmp2##suffix, k_cmp3##suffix,            \
			k_cmp4##suffix, k_cmp5##suffix, k_cmp6##suffix, k_cmp7##suffix};           \
		binary(c, i, by_predicate[i->imm & 7], size, feature);                             \
	}
DEFINE_COMPARE(ps, 16, CPUID_SSE)
DEFINE_COMPARE(pd, 16, CPUID_SSE2)
DEFINE_COMPARE(ss, 4, CPUID_SSE)
DEFINE_COMPARE(sd, 8, CPUID_SSE2)

/* ---- (U)COMISS, (U)COMISD: the answer goes to EFLAGS ---- */

/* The kernels leave ZF, PF and CF in the first bytes of dst. */
#define DEFINE_COMI_KERNEL(kernel, insn)                                                           \
	static void kernel(void *dst, const void *src)                                             \
	{                                                                                          \
		__m128i d = _mm_loadu_si128(dst), s = _mm_loadu_si128(src);                        \
		bool zf, pf, cf;                                                                   \
		uint32_t flags;                                                                    \
		__asm__ volatile(insn " %4, %3"                                                    \
				 : "=@ccz"(zf), "=@ccp"(pf), "=@ccc"(cf)                           \
				 : "x"(d), "x"(s)                                                  \
				 : "memory");                                                      \
		flags = (zf ? FL_ZF : 0) | (pf ? FL_PF : 0) | (cf ? FL_CF : 0);                    \
		memcpy(dst, &flags, sizeof flags);                                                 \
	}
#define DEFINE_COMI(name, size, feature)                                                           \
	DEFINE_COMI_KERNEL(k_##name, #name)                                                        \
	static void op_##name(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                          \
		uint8_t tmp[16] __attribute__((aligned(16))), dst[16];                             \
		const void *src;                                                                   \
		sse_enter(c, feature);                                                             \
		src = sse_source_scalar(c, i, tmp, size);                                          \
		memcpy(dst, c->fpu.xmm[i->reg], 16);                                               \
		run(c, i, k_##name, dst, src);                                                     \
		flags_set_arith(c, load_le32(dst));                                                \
	}
DEFINE_COMI(ucomiss, 4, CPUID_SSE)
DEFINE_COMI(ucomisd, 8, CPUID_SSE2)
DEFINE_COMI(comiss, 4, CPUID_SSE)
DEFINE_COMI(comisd, 8, CPUID_SSE2)

/* ---- conversions to and from general registers ---- */

#define DEFINE_FROM_INT_KERNEL(kernel, insn)                                                       \
	static void kernel(void *dst, const void *src)                                             \
	{                                                                                          \
		__m128i d = _mm_loadu_si128(dst);                                                  \
		__asm__ volatile(insn " %1, %0" : "+x"(d) : "r"(load_le32(src)) : "memory");       \
		_mm_storeu_si128(dst, d);                                                          \
	}
#define DEFINE_TO_INT_KERNEL(kernel, insn)                                                         \
	static void kernel(void *dst, const void *src)                                             \
	{                                                                                          \
		uint32_t v;                                                                        \
		__m128i s = _mm_loadu_si128(src);                                                  \
		__asm__ volatile(insn " %1, %0" : "=r"(v) : "x"(s) : "memory");                    \
		memcpy(dst, &v, sizeof v);                                                         \
	}
DEFINE_FROM_INT_KERNEL(k_cvtsi2ss, "cvtsi2ssl")
DEFINE_FROM_INT_KERNEL(k_cvtsi2sd, "cvtsi2sdl")
DEFINE_TO_INT_KERNEL(k_cvtss2si, "cvtss2si")
DEFINE_TO_INT_KERNEL(k_cvttss2si, "cvttss2si")
DEFINE_TO_INT_KERNEL(k_cvtsd2si, "cvtsd2si")
DEFINE_TO_INT_KERNEL(k_cvttsd2si, "cvttsd2si")

static inline void from_int(struct soft_cpu *c, const struct insn *i, sse_kernel kernel,
			    uint32_t feature)
{
	uint8_t dst[16];
	uint32_t v;

	sse_enter(c, feature);
	v = i->is_mem ? ld32(c, i->seg, effective_address(c, i)) : c->gpr[i->rm];
	memcpy(dst, c->fpu.xmm[i->reg], 16);
	run(c, i, kernel, dst, &v);
	memcpy(c->fpu.xmm[i->reg], dst, 16);
}
static inline void to_int(struct soft_cpu *c, const struct insn *i, sse_kernel kernel,
			  unsigned size, uint32_t feature)
{
	uint8_t tmp[16] __attribute__((aligned(16))), dst[16] = {0};
	const void *src;

	sse_enter(c, feature);
	src = sse_source_scalar(c, i, tmp, size);
	run(c, i, kernel, dst, src);
	c->gpr[i->reg] = load_le32(dst);
}
static void op_cvtsi2ss(struct soft_cpu *c, const struct insn *i)
{
	from_int(c, i, k_cvtsi2ss, CPUID_SSE);
}
static void op_cvtsi2sd(struct soft_cpu *c, const struct insn *i)
{
	from_int(c, i, k_cvtsi2sd, CPUID_SSE2);
}
static void op_cvtss2si(struct soft_cpu *c, const struct insn *i)
{
	to_int(c, i, k_cvtss2si, 4, CPUID_SSE);
}
static void op_cvttss2si(struct soft_cpu *c, const struct insn *i)
{
	to_int(c, i, k_cvttss2si, 4, CPUID_SSE);
}
static void op_cvtsd2si(struct soft_cpu *c, const struct insn *i)
{
	to_int(c, i, k_cvtsd2si, 8, CPUID_SSE2);
}
static void op_cvttsd2si(struct soft_cpu *c, const struct insn *i)
{
	to_int(c, i, k_cvttsd2si, 8, CPUID_SSE2);
}

/* ---- conversions to and from MMX registers: as the XMM conversion of the low half ---- */

/* CVTPI2PS, CVTPI2PD */
static inline void from_mmx(struct soft_cpu *c, const struct insn *i, sse_kernel kernel,
			    uint32_t feature, unsigned result_bytes)
{
	uint8_t src[16] = {0}, dst[16] = {0};
	uint64_t v;

	sse_enter(c, feature);
	if (!i->is_mem && !x87_enter(c)) /* only then an MMX register takes part */
		return;
	v = i->is_mem ? ld64(c, i->seg, effective_address(c, i)) : mmx_read(&c->fpu, i->rm);
	memcpy(src, &v, 8);
	if (!i->is_mem) /* even if #XM follows */
		mmx_take_over(&c->fpu);
	run(c, i, kernel, dst, src);
	memcpy(c->fpu.xmm[i->reg], dst, result_bytes);
}
static void op_cvtpi2ps(struct soft_cpu *c, const struct insn *i)
{
	from_mmx(c, i, k_cvtdq2ps, CPUID_SSE, 8);
}
static void op_cvtpi2pd(struct soft_cpu *c, const struct insn *i)
{
	from_mmx(c, i, k_cvtdq2pd, CPUID_SSE2, 16);
}

/* CVT(T)PS2PI reads 8 bytes, CVT(T)PD2PI 16 aligned ones. */
static inline void to_mmx(struct soft_cpu *c, const struct insn *i, sse_kernel kernel,
			  uint32_t feature, unsigned size)
{
	uint8_t tmp[16] __attribute__((aligned(16))), src[16] = {0}, dst[16] = {0};

	sse_enter(c, feature);
	if (!x87_enter(c))
		return;
	memcpy(src, size == 16 ? sse_source(c, i, tmp) : sse_source_scalar(c, i, tmp, 8), size);
	mmx_take_over(&c->fpu);
	run(c, i, kernel, dst, src);
	mmx_write(&c->fpu, i->reg, load_le64(dst));
}
static void op_cvtps2pi(struct soft_cpu *c, const struct insn *i)
{
	to_mmx(c, i, k_cvtps2dq, CPUID_SSE, 8);
}
static void op_cvttps2pi(struct soft_cpu *c, const struct insn *i)
{
	to_mmx(c, i, k_cvttps2dq, CPUID_SSE, 8);
}
static void op_cvtpd2pi(struct soft_cpu *c, const struct insn *i)
{
	to_mmx(c, i, k_cvtpd2dq, CPUID_SSE2, 16);
}
static void op_cvttpd2pi(struct soft_cpu *c, const struct insn *i)
{
	to_mmx(c, i, k_cvttpd2dq, CPUID_SSE2, 16);
}

struct simd_op sse_float_find(enum simd_prefix prefix, uint8_t op)
{
#define ENTRY(byte, name) [byte] = { op_##name, FORM_ANY }
	static const struct simd_op table[PFX_COUNT][256] = {
		[PFX_NONE] =
			{
				ENTRY(0x2A, cvtpi2ps), ENTRY(0x2C, cvttps2pi),
				ENTRY(0x2D, cvtps2pi), ENTRY(0x2E, ucomiss),
				ENTRY(0x2F, comiss),   ENTRY(0x51, sqrtps),
				ENTRY(0x52, rsqrtps),  ENTRY(0x53, rcpps),
				ENTRY(0x54, andps),    ENTRY(0x55, andnps),
				ENTRY(0x56, orps),     ENTRY(0x57, xorps),
				ENTRY(0x58, addps),    ENTRY(0x59, mulps),
				ENTRY(0x5A, cvtps2pd), ENTRY(0x5B, cvtdq2ps),
				ENTRY(0x5C, subps),    ENTRY(0x5D, minps),
				ENTRY(0x5E, divps),    ENTRY(0x5F, maxps),
				ENTRY(0xC2, cmpps),
			},
		[PFX_66] =
			{
				ENTRY(0x2A, cvtpi2pd), ENTRY(0x2C, cvttpd2pi),
				ENTRY(0x2D, cvtpd2pi), ENTRY(0x2E, ucomisd),
				ENTRY(0x2F, comisd),   ENTRY(0x51, sqrtpd),
				ENTRY(0x54, andpd),    ENTRY(0x55, andnpd),
				ENTRY(0x56, orpd),     ENTRY(0x57, xorpd),
				ENTRY(0x58, addpd),    ENTRY(0x59, mulpd),
				ENTRY(0x5A, cvtpd2ps), ENTRY(0x5B, cvtps2dq),
				ENTRY(0x5C, subpd),    ENTRY(0x5D, minpd),
				ENTRY(0x5E, divpd),    ENTRY(0x5F, maxpd),
				ENTRY(0xC2, cmppd),    ENTRY(0xE6, cvttpd2dq),
			},
		[PFX_F3] =
			{
				ENTRY(0x2A, cvtsi2ss),
				ENTRY(0x2C, cvttss2si),
				ENTRY(0x2D, cvtss2si),
				ENTRY(0x51, sqrtss),
				ENTRY(0x52, rsqrtss),
				ENTRY(0x53, rcpss),
				ENTRY(0x58, addss),
				ENTRY(0x59, mulss),
				ENTRY(0x5A, cvtss2sd),
				ENTRY(0x5B, cvttps2dq),
				ENTRY(0x5C, subss),
				ENTRY(0x5D, minss),
				ENTRY(0x5E, divss),
				ENTRY(0x5F, maxss),
				ENTRY(0xC2, cmpss),
				ENTRY(0xE6, cvtdq2pd),
			},
		[PFX_F2] =
			{
				ENTRY(0x2A, cvtsi2sd),
				ENTRY(0x2C, cvttsd2si),
				ENTRY(0x2D, cvtsd2si),
				ENTRY(0x51, sqrtsd),
				ENTRY(0x58, addsd),
				ENTRY(0x59, mulsd),
				ENTRY(0x5A, cvtsd2ss),
				ENTRY(0x5C, subsd),
				ENTRY(0x5D, minsd),
				ENTRY(0x5E, divsd),
				ENTRY(0x5F, maxsd),
				ENTRY(0xC2, cmpsd),
				ENTRY(0xE6, cvtpd2dq),
			},
	};
#undef ENTRY

	return table[prefix][op];
}
