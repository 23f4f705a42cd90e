/* SPDX-License-Identifier: MIT */
/* SSE3 to SSE4.2, AES and PCLMULQDQ: what an instruction of theirs looks like. */
#ifndef CPU_SSE_EXT_H
#define CPU_SSE_EXT_H

#include "cpu/fpu.h"

/* CPUID.1:ECX bits. */
enum {
	CPUID_ECX_PCLMUL = 1 << 1,
	CPUID_ECX_SSSE3 = 1 << 9,
	CPUID_ECX_SSE41 = 1 << 19,
	CPUID_ECX_SSE42 = 1 << 20,
	CPUID_ECX_AES = 1 << 25,
	SSE_EXT_FEATURES = CPUID_ECX_SSE3 | CPUID_ECX_PCLMUL | CPUID_ECX_SSSE3 | CPUID_ECX_SSE41 |
			   CPUID_ECX_SSE42 | CPUID_ECX_AES,
};

enum sse_ext_how {
	EXT_BYTES = 0x1F,       /* of a memory operand */
	EXT_ALIGNED = 1 << 5,   /* which must be aligned */
	EXT_WRITE = 1 << 6,     /* which is written */
	EXT_GENERAL = 1 << 7,   /* ModRM.rm is a general register, if not memory */
	EXT_MMX = 1 << 8,       /* on MMX registers, as the prefix says */
	EXT_FLAGS = 1 << 9,     /* sets the arithmetic flags */
	EXT_TO_XMM0 = 1 << 10,  /* the result is in XMM0 */
	EXT_TO_ECX = 1 << 11,   /* the result is in ECX */
	EXT_FLOAT = 1 << 12,    /* goes by MXCSR */
	EXT_CRC32 = 1 << 13,    /* no XMM register at all */
	EXT_MEM_ONLY = 1 << 14, /* no register form */
};

/* Which feature an instruction came with (a CPUID.1:ECX bit), and its enum sse_ext_how; 0: it is
 * none of these. */
uint32_t sse_ext_find(const struct insn *i, unsigned *how);
/* The function of such an instruction, or NULL. */
op_fn sse_ext_lookup(const struct insn *i);
/* Those of SSE_EXT_FEATURES that the host's CPU can execute. */
uint32_t sse_ext_host_features(void);

#endif
