/* SPDX-License-Identifier: MIT */
/*
 * Which flags an SSE instruction sets when some exceptions are unmasked (SDM vol. 1, 11.5.3
 * and 4.9.1.5).
 *
 *  - An unmasked exception found in the operands (invalid, denormal, divide by zero) keeps results
 * from being computed: nothing that depends on a result is signalled.
 *  - Unmasked underflow is any tiny result, inexact or not; tiny results are those that
 * flush-to-zero would replace.
 *  - With an unmasked overflow or underflow, "inexact" is about the result rounded as if exponents
 * had no bounds. The x87, whose exponents have 15 bits, computes it with the precision control set
 * to the result's format.
 */
#include "cpu/sse_trap.h"

enum lane_op { OP_CONVERT = 0x5A, OP_ADD = 0x58, OP_MUL = 0x59, OP_SUB = 0x5C, OP_DIV = 0x5E };
enum { POST = FPE_OVERFLOW | FPE_UNDERFLOW };
enum { PC_SINGLE = 0x0000, PC_DOUBLE = 0x0200, MXCSR_RC_SHIFT = 13, CW_RC_SHIFT = 10 };

/* Whether a op b (the doubles at a and b) is inexact in a format with unbounded exponents. */
static bool inexact_unbounded(enum lane_op op, const double *a, const double *b, bool to_double,
			      uint32_t mxcsr)
{
	static const uint16_t host_cw = CW_INIT;
	uint16_t cw = (uint16_t)(CW_RESERVED_ONE | FPE_ALL | (to_double ? PC_DOUBLE : PC_SINGLE) |
				 (mxcsr >> MXCSR_RC_SHIFT & 3) << CW_RC_SHIFT);
	uint16_t sw;

#define RUN(insn)                                                                                  \
	__asm__ volatile("fldcw %3\n\tfldl %2\n\tfldl %1\n\t" insn                                 \
			 " %%st(1), %%st\n\tfnstsw %0\n\t"                                         \
			 "fstp %%st(0)\n\tfstp %%st(0)\n\tfnclex\n\tfldcw %4"                      \
			 : "=a"(sw)                                                                \
			 : "m"(*a), "m"(*b), "m"(cw), "m"(host_cw)                                 \
			 : "st", "st(1)")
	switch (op) {
	case OP_ADD: RUN("fadd"); break;
	case OP_SUB: RUN("fsub"); break;
	case OP_DIV: RUN("fdiv"); break;
	default: RUN("fmul"); /* multiplication, and conversion as multiplication by one */
	}
#undef RUN
	return sw & FPE_PRECISION;
}

static double lane_value(const uint8_t *vector, unsigned n, bool is_double)
{
	double d;
	float f;

	if (is_double) {
		memcpy(&d, vector + 8 * n, 8);
		return d;
	}
	memcpy(&f, vector + 4 * n, 4);
	return f;
}

/* The kernel on one lane of packed operands: the others hold 0 op 1, which signals nothing. */
static uint32_t run_lane(sse_kernel kernel, const uint8_t *dst, const uint8_t *src, unsigned n,
			 bool is_double, uint32_t mxcsr)
{
	static const float one_f = 1;
	static const double one_d = 1;
	unsigned size = is_double ? 8 : 4;
	uint8_t d[16] = {0}, s[16];

	for (unsigned at = 0; at < 16; at += size)
		memcpy(s + at, is_double ? (const void *)&one_d : (const void *)&one_f, size);
	memcpy(d + n * size, dst + n * size, size);
	memcpy(s + n * size, src + n * size, size);
	return sse_run_masked(kernel, d, s, mxcsr);
}

uint32_t sse_unmasked_flags(const struct insn *i, sse_kernel kernel, const void *dst,
			    const void *src, uint32_t mxcsr, uint32_t flags)
{
	uint32_t unmasked = ~mxcsr >> MXCSR_MASK_SHIFT & FPE_ALL, inexact = 0;
	enum lane_op op = i->opcode & 0xFF;
	/* The operands are doubles with 66 (PD) and F2 (SD); F2 and F3 are scalars. */
	bool is_double = i->rep == REP_NE || (i->rep == REP_NONE && i->prefix_66);
	unsigned lanes = i->rep != REP_NONE ? 1 : is_double ? 2 : 4;
	uint8_t scratch[16];

	if (flags & unmasked & FPE_BEFORE)
		return flags & FPE_BEFORE;
	if (unmasked & FPE_UNDERFLOW) {
		memcpy(scratch, dst, 16);
		flags |= sse_run_masked(kernel, scratch, src, mxcsr | MXCSR_FTZ) & FPE_UNDERFLOW;
	}
	if (!(flags & unmasked & POST))
		return flags;
	for (unsigned n = 0; n < lanes; n++) {
		uint32_t lane =
			run_lane(kernel, dst, src, n, is_double, mxcsr & ~(uint32_t)MXCSR_FTZ);
		uint32_t tiny =
			run_lane(kernel, dst, src, n, is_double, mxcsr | MXCSR_FTZ) & FPE_UNDERFLOW;
		double a, b;

		if (!((lane | tiny) & unmasked & POST)) {
			if (mxcsr & MXCSR_FTZ && !(unmasked & FPE_UNDERFLOW) && tiny)
				lane |= FPE_PRECISION;
			inexact |= lane & FPE_PRECISION;
			continue;
		}
		a = lane_value(op == OP_CONVERT ? src : dst, n, is_double);
		b = op == OP_CONVERT ? 1 : lane_value(src, n, is_double);
		if (inexact_unbounded(op, &a, &b, is_double && op != OP_CONVERT, mxcsr))
			inexact = FPE_PRECISION;
	}
	return (flags & ~(uint32_t)FPE_PRECISION) | inexact;
}
