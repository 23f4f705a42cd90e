/* SPDX-License-Identifier: MIT */
/*
 * The packed-integer instructions that exist on MMX registers, on XMM registers or on both, in one
 * list. Their arithmetic is done by the host's SSE2 in both cases: eight bytes of an MMX operand
 * are the low half of an XMM operand.
 */
#ifndef CPU_SIMD_INT_H
#define CPU_SIMD_INT_H

#include "cpu/fpu.h"
#include <emmintrin.h>

/* How the 64-bit form follows from the 128-bit one. */
enum mmx_shape {
	MM_LOW,         /* low half in, low half out */
	MM_PACK,        /* both operands side by side, packed with itself */
	MM_UNPACK_LOW,  /* as MM_LOW, but the memory operand has 32 bits */
	MM_UNPACK_HIGH, /* both operands doubled, high half out */
	MM_NONE,        /* on XMM registers only */
};

/* X(byte after 0F, mnemonic, shape of the MMX form, CPUID.1:EDX bit of the MMX form); the XMM forms
 * are SSE2 */
#define SIMD_INT_OPS(X)                                                                            \
	X(0x60, punpcklbw, MM_UNPACK_LOW, CPUID_MMX)                                               \
	X(0x61, punpcklwd, MM_UNPACK_LOW, CPUID_MMX)                                               \
	X(0x62, punpckldq, MM_UNPACK_LOW, CPUID_MMX)                                               \
	X(0x63, packsswb, MM_PACK, CPUID_MMX)                                                      \
	X(0x64, pcmpgtb, MM_LOW, CPUID_MMX)                                                        \
	X(0x65, pcmpgtw, MM_LOW, CPUID_MMX)                                                        \
	X(0x66, pcmpgtd, MM_LOW, CPUID_MMX)                                                        \
	X(0x67, packuswb, MM_PACK, CPUID_MMX)                                                      \
	X(0x68, punpckhbw, MM_UNPACK_HIGH, CPUID_MMX)                                              \
	X(0x69, punpckhwd, MM_UNPACK_HIGH, CPUID_MMX)                                              \
	X(0x6A, punpckhdq, MM_UNPACK_HIGH, CPUID_MMX)                                              \
	X(0x6B, packssdw, MM_PACK, CPUID_MMX)                                                      \
	X(0x6C, punpcklqdq, MM_NONE, 0)                                                            \
	X(0x6D, punpckhqdq, MM_NONE, 0)                                                            \
	X(0x74, pcmpeqb, MM_LOW, CPUID_MMX)                                                        \
	X(0x75, pcmpeqw, MM_LOW, CPUID_MMX)                                                        \
	X(0x76, pcmpeqd, MM_LOW, CPUID_MMX)                                                        \
	X(0xD1, psrlw, MM_LOW, CPUID_MMX)                                                          \
	X(0xD2, psrld, MM_LOW, CPUID_MMX)                                                          \
	X(0xD3, psrlq, MM_LOW, CPUID_MMX)                                                          \
	X(0xD4, paddq, MM_LOW, CPUID_SSE2)                                                         \
	X(0xD5, pmullw, MM_LOW, CPUID_MMX)                                                         \
	X(0xD8, psubusb, MM_LOW, CPUID_MMX)                                                        \
	X(0xD9, psubusw, MM_LOW, CPUID_MMX)                                                        \
	X(0xDA, pminub, MM_LOW, CPUID_SSE)                                                         \
	X(0xDB, pand, MM_LOW, CPUID_MMX)                                                           \
	X(0xDC, paddusb, MM_LOW, CPUID_MMX)                                                        \
	X(0xDD, paddusw, MM_LOW, CPUID_MMX)                                                        \
	X(0xDE, pmaxub, MM_LOW, CPUID_SSE)                                                         \
	X(0xDF, pandn, MM_LOW, CPUID_MMX)                                                          \
	X(0xE0, pavgb, MM_LOW, CPUID_SSE)                                                          \
	X(0xE1, psraw, MM_LOW, CPUID_MMX)                                                          \
	X(0xE2, psrad, MM_LOW, CPUID_MMX)                                                          \
	X(0xE3, pavgw, MM_LOW, CPUID_SSE)                                                          \
	X(0xE4, pmulhuw, MM_LOW, CPUID_SSE)                                                        \
	X(0xE5, pmulhw, MM_LOW, CPUID_MMX)                                                         \
	X(0xE8, psubsb, MM_LOW, CPUID_MMX)                                                         \
	X(0xE9, psubsw, MM_LOW, CPUID_MMX)                                                         \
	X(0xEA, pminsw, MM_LOW, CPUID_SSE)                                                         \
	X(0xEB, por, MM_LOW, CPUID_MMX)                                                            \
	X(0xEC, paddsb, MM_LOW, CPUID_MMX)                                                         \
	X(0xED, paddsw, MM_LOW, CPUID_MMX)                                                         \
	X(0xEE, pmaxsw, MM_LOW, CPUID_SSE)                                                         \
	X(0xEF, pxor, MM_LOW, CPUID_MMX)                                                           \
	X(0xF1, psllw, MM_LOW, CPUID_MMX)                                                          \
	X(0xF2, pslld, MM_LOW, CPUID_MMX)                                                          \
	X(0xF3, psllq, MM_LOW, CPUID_MMX)                                                          \
	X(0xF4, pmuludq, MM_LOW, CPUID_SSE2)                                                       \
	X(0xF5, pmaddwd, MM_LOW, CPUID_MMX)                                                        \
	X(0xF6, psadbw, MM_LOW, CPUID_SSE)                                                         \
	X(0xF8, psubb, MM_LOW, CPUID_MMX)                                                          \
	X(0xF9, psubw, MM_LOW, CPUID_MMX)                                                          \
	X(0xFA, psubd, MM_LOW, CPUID_MMX)                                                          \
	X(0xFB, psubq, MM_LOW, CPUID_SSE2)                                                         \
	X(0xFC, paddb, MM_LOW, CPUID_MMX)                                                          \
	X(0xFD, paddw, MM_LOW, CPUID_MMX)                                                          \
	X(0xFE, paddd, MM_LOW, CPUID_MMX)

/* dst op src, by the instruction of that name. */
typedef __m128i (*simd_kernel)(__m128i dst, __m128i src);
#define DEFINE_SIMD_KERNEL(byte, name, shape, feature)                                             \
	static inline __m128i simd_##name(__m128i dst, __m128i src)                                \
	{                                                                                          \
		__asm__(#name " %1, %0" : "+x"(dst) : "x"(src));                                   \
		return dst;                                                                        \
	}
SIMD_INT_OPS(DEFINE_SIMD_KERNEL)

/* The shift that 0F 71, 72 or 73 with this ModRM.reg does by an immediate, or NULL. A count beyond
 * the element gives zeros or signs, as with a count from a register. */
static inline simd_kernel simd_shift_kernel(uint8_t op, unsigned reg)
{
	switch (op << 4 | reg) {
	case 0x712: return simd_psrlw;
	case 0x714: return simd_psraw;
	case 0x716: return simd_psllw;
	case 0x722: return simd_psrld;
	case 0x724: return simd_psrad;
	case 0x726: return simd_pslld;
	case 0x732: return simd_psrlq;
	case 0x736: return simd_psllq;
	default: return NULL;
	}
}

/* 0F 71, 72, 73 on the two kinds of registers. */
void op_shift_imm_mm(struct soft_cpu *c, const struct insn *i);
void op_shift_imm_xmm(struct soft_cpu *c, const struct insn *i);
void op_shift_bytes_xmm(struct soft_cpu *c, const struct insn *i); /* PSRLDQ, PSLLDQ */

#endif
