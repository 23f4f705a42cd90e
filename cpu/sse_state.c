/* SPDX-License-Identifier: MIT */
/*
 * 0F AE: saving and loading the FPU state, MXCSR, cache line flushes and fences (SDM vol. 1, 10.5
 * and 10.4.6).
 */
#include "cpu/fpu.h"

enum {
	FXSAVE_SIZE = 512,
	FXSAVE_WRITTEN = 288, /* header, eight x87 and eight XMM slots; the rest of the image is
				 left alone */
	FXSAVE_MXCSR = 24,
	FXSAVE_ALIGN = 16,
};

static uint32_t fxsave_address(struct soft_cpu *c, const struct insn *i)
{
	uint32_t off;

	if (!(c->features_edx & CPUID_FXSR))
		cpu_ud(c);
	if (c->cr0 & (CR0_EM | CR0_TS))
		cpu_raise(c, EXC_NM);
	off = effective_address(c, i);
	if ((c->seg[i->seg].base + off) & (FXSAVE_ALIGN - 1))
		cpu_gp0(c);
	return off;
}

static void op_fxsave(struct soft_cpu *c, const struct insn *i)
{
	uint32_t off = fxsave_address(c, i);
	uint8_t image[FXSAVE_SIZE];

	jit_fpu_fxsave(c, image);
	probe_write(c, i->seg, off, FXSAVE_SIZE);
	st_bytes(c, i->seg, off, image, FXSAVE_WRITTEN);
}

static void op_fxrstor(struct soft_cpu *c, const struct insn *i)
{
	uint32_t off = fxsave_address(c, i);
	uint8_t image[FXSAVE_SIZE];

	ld_bytes(c, i->seg, off, image, FXSAVE_SIZE);
	if (load_le32(image + FXSAVE_MXCSR) & ~(uint32_t)MXCSR_WRITABLE)
		cpu_gp0(c);
	jit_fpu_fxrstor(c, image);
}

static void op_ldmxcsr(struct soft_cpu *c, const struct insn *i)
{
	uint32_t v;

	sse_enter(c, CPUID_SSE);
	v = ld32(c, i->seg, effective_address(c, i));
	if (v & ~(uint32_t)MXCSR_WRITABLE)
		cpu_gp0(c);
	c->fpu.mxcsr = v;
}

static void op_stmxcsr(struct soft_cpu *c, const struct insn *i)
{
	sse_enter(c, CPUID_SSE);
	st32(c, i->seg, effective_address(c, i), c->fpu.mxcsr);
}

/* There is no cache to flush; what remains of CLFLUSH are the faults of a byte load. */
static void op_clflush(struct soft_cpu *c, const struct insn *i)
{
	if (!(c->features_edx & CPUID_CLFSH))
		cpu_ud(c);
	ld8(c, i->seg, effective_address(c, i));
}

/* One CPU sees its own accesses in order, and CPUs take turns on one thread: nothing to wait for.
 */
static void op_sfence(struct soft_cpu *c, const struct insn *i)
{
	if (!(c->features_edx & CPUID_SSE))
		cpu_ud(c);
}
static void op_lfence_mfence(struct soft_cpu *c, const struct insn *i)
{
	if (!(c->features_edx & CPUID_SSE2))
		cpu_ud(c);
}

op_fn sse_state_find(const struct insn *i, enum simd_prefix prefix)
{
	static const op_fn mem[8] = {op_fxsave, op_fxrstor, op_ldmxcsr, op_stmxcsr,
				     NULL,      NULL,       NULL,       op_clflush};
	static const op_fn reg[8] = {
		NULL, NULL, NULL, NULL, NULL, op_lfence_mfence, op_lfence_mfence, op_sfence};

	if (prefix != PFX_NONE)
		return NULL;
	return (i->is_mem ? mem : reg)[i->reg];
}
