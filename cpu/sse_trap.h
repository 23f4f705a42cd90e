/* SPDX-License-Identifier: MIT */
/* Running one SSE instruction on the host under the guest's MXCSR. */
#ifndef CPU_SSE_TRAP_H
#define CPU_SSE_TRAP_H

#include "cpu/fpu.h"

/* Executes one instruction: *dst = *dst op *src, 16 bytes each. */
typedef void (*sse_kernel)(void *dst, const void *src);

/* Runs the kernel with the guest's MXCSR, but all exceptions masked; returns the flags it signals
 * (enum FPE_*). */
static inline uint32_t sse_run_masked(sse_kernel kernel, void *dst, const void *src, uint32_t mxcsr)
{
	static const uint32_t host_mxcsr = MXCSR_RESET;
	uint32_t after;

	mxcsr = (mxcsr | MXCSR_MASKS) & ~(uint32_t)FPE_ALL;
	__asm__ volatile("ldmxcsr %0" : : "m"(mxcsr) : "memory");
	kernel(dst, src);
	__asm__ volatile("stmxcsr %0\n\tldmxcsr %1" : "=m"(after) : "m"(host_mxcsr) : "memory");
	return after & FPE_ALL;
}

/*
 * The flags that the instruction sets with some exceptions unmasked in `mxcsr`; `flags` are those
 * of sse_run_masked() on these operands. Only arithmetic and conversions between formats (0F 58,
 * 59, 5A, 5C, 5E) can overflow or underflow.
 */
uint32_t sse_unmasked_flags(const struct insn *i, sse_kernel kernel, const void *dst,
			    const void *src, uint32_t mxcsr, uint32_t flags);

#endif
