/* SPDX-License-Identifier: MIT */
/*
 * What the x87, MMX and SSE files of the software CPU share: names of the register bits (SDM vol.
 * 1, 8.1 and 10.2.3), access to the register stack, and the checks that stand before each
 * instruction.
 */
#ifndef CPU_FPU_H
#define CPU_FPU_H

#include "cpu/jit.h"
#include <string.h>

/* Exceptions: the same bits in the x87 status word (flags), the control word (masks) and MXCSR
 * (flags). */
enum {
	FPE_INVALID = 1 << 0,
	FPE_DENORMAL = 1 << 1,
	FPE_ZERO_DIVIDE = 1 << 2,
	FPE_OVERFLOW = 1 << 3,
	FPE_UNDERFLOW = 1 << 4,
	FPE_PRECISION = 1 << 5,
	FPE_ALL = 0x3F,
	/* Found before the result is computed: unmasked, they leave the destination alone. */
	FPE_BEFORE = FPE_INVALID | FPE_DENORMAL | FPE_ZERO_DIVIDE,
};

/* x87 status word. */
enum {
	SW_STACK_FAULT = 1 << 6,
	SW_SUMMARY = 1 << 7, /* ES: an unmasked exception is pending */
	SW_C0 = 1 << 8,
	SW_C1 = 1 << 9,
	SW_C2 = 1 << 10,
	SW_TOP = 7 << 11,
	SW_C3 = 1 << 14,
	SW_BUSY = 1 << 15, /* a copy of ES */
	SW_TOP_SHIFT = 11,
};

/* x87 control word. */
enum {
	CW_RESERVED_ONE = 1 << 6,
	CW_WRITABLE = 0x1F3F, /* masks, precision, rounding and infinity control */
	CW_INIT = 0x037F,     /* after FNINIT; also what the x86-64 ABI wants C code to find */
};

/* CPUID.1:ECX. */
enum { CPUID_ECX_SSE3 = 1 << 0 };

/* MXCSR. */
enum {
	MXCSR_DAZ = 1 << 6,
	MXCSR_MASKS = FPE_ALL << 7,
	MXCSR_MASK_SHIFT = 7,
	MXCSR_FTZ = 1 << 15,
	MXCSR_WRITABLE = 0xFFFF,
	MXCSR_RESET = 0x1F80,
};

/* ---- the register stack ---- */

static inline unsigned x87_top(const struct fpu *f)
{
	return f->sw >> SW_TOP_SHIFT & 7;
}
static inline void x87_set_top(struct fpu *f, unsigned top)
{
	f->sw = (uint16_t)((f->sw & ~SW_TOP) | (top & 7) << SW_TOP_SHIFT);
}
/* Physical number of ST(n). */
static inline unsigned x87_physical(const struct fpu *f, unsigned n)
{
	return (x87_top(f) + n) & 7;
}
static inline void *x87_st(struct fpu *f, unsigned n)
{
	return &f->st[x87_physical(f, n)];
}
static inline bool x87_valid(const struct fpu *f, unsigned n)
{
	return f->tag_valid >> x87_physical(f, n) & 1;
}
static inline void x87_pop(struct fpu *f)
{
	unsigned top = x87_top(f);

	f->tag_valid &= (uint8_t) ~(1u << top);
	x87_set_top(f, top + 1);
}
/* Makes room: the new ST(0), marked valid. */
static inline void *x87_push(struct fpu *f)
{
	unsigned top = (x87_top(f) - 1) & 7;

	x87_set_top(f, top);
	f->tag_valid |= (uint8_t)(1u << top);
	return &f->st[top];
}
/* Copies all 80 bits, whatever they mean. */
static inline void x87_copy(void *dst, const void *src)
{
	memcpy(dst, src, 10);
}

/* All exceptions are masked: results can be taken over without looking at what was signalled. */
static inline bool x87_simple(const struct fpu *f)
{
	return (f->cw & FPE_ALL) == FPE_ALL;
}

/* ---- checks ---- */

/* Before anything looks at c->fpu: it may be what the translator left for the host's registers. */
static inline void fpu_use(struct soft_cpu *c)
{
	if (unlikely(c->jit.fpu != JIT_FPU_HOME))
		jit_fpu_home(c);
}

/* The pointers to the last x87 instruction alone, from and to an FXSAVE image. */
void fpu_load_pointers(struct fpu *f, const uint8_t image[512]);
void fpu_store_pointers(const struct fpu *f, uint8_t image[512]);

/* ES and B follow from flags and masks; call after either changed other than by an instruction that
 * replays on the host. */
void x87_update_summary(struct soft_cpu *c);
/* An unmasked exception is pending at a waiting instruction: raises #MF, or with CR0.NE clear
 * reports it outside. False: the instruction must not run now (the processor waits for the
 * interrupt; the instruction will be tried again). */
bool x87_pending(struct soft_cpu *c);

/* Before an instruction that does not wait. */
static inline void x87_enter_no_wait(struct soft_cpu *c)
{
	fpu_use(c);
	if (c->cr0 & (CR0_EM | CR0_TS))
		cpu_raise(c, EXC_NM);
}
/* Before any other x87 instruction; false: return without doing anything. */
static inline bool x87_enter(struct soft_cpu *c)
{
	x87_enter_no_wait(c);
	return !(c->fpu.sw & SW_SUMMARY) || x87_pending(c);
}
/*
 * Notes the instruction pointer of a non-control instruction, and while an exception is unmasked
 * its opcode and operand pointer, which on current processors only an unmasked exception changes
 * (SDM vol. 1, 8.1.8 and 8.1.9.1). Call once nothing can fault any more.
 */
static inline void x87_note(struct soft_cpu *c, const struct insn *i)
{
	c->fpu.fip = c->eip;
	c->fpu.fcs = c->seg[S_CS].selector;
	if (!x87_simple(&c->fpu))
		c->fpu.fop = (uint16_t)((i->opcode & 7) << 8 | i->modrm);
}
static inline void x87_note_operand(struct soft_cpu *c, const struct insn *i, uint32_t off)
{
	x87_note(c, i);
	if (x87_simple(&c->fpu))
		return;
	c->fpu.fdp = off;
	c->fpu.fds = c->seg[i->seg].selector;
}

/* ---- the host's x87 (x87_host.c) ---- */

/*
 * Executes the x87 instruction `opcode modrm` (a memory form if `mem` is not NULL) on the host's
 * FPU with the guest's control word, status, tags and registers, and takes over what it leaves
 * behind. This is exact in everything, stack faults and unmasked exceptions included. EFLAGS are
 * passed in (FCMOVcc) and returned (FCOMI).
 */
uint32_t x87_replay(struct fpu *f, unsigned opcode, unsigned modrm, void *mem, uint32_t eflags);
/* Takes the unmasked exceptions that are pending out of the status word, and puts them back. */
uint16_t x87_hide_pending(struct fpu *f);
void x87_show_pending(struct fpu *f, uint16_t pending);

/* ---- MMX ---- */

static inline uint8_t *mmx_reg(struct fpu *f, unsigned n)
{
	return (uint8_t *)&f->st[n];
}
/* What each MMX instruction does to the x87 (SDM vol. 1, 9.5.1): call once nothing can fault any
 * more. */
static inline void mmx_take_over(struct fpu *f)
{
	f->sw &= (uint16_t)~SW_TOP;
	f->tag_valid = 0xFF;
}
/* A write to an MMX register also sets sign and exponent of the x87 register under it to ones. */
static inline void mmx_write(struct fpu *f, unsigned n, uint64_t value)
{
	uint8_t *reg = mmx_reg(f, n);

	memcpy(reg, &value, 8);
	memset(reg + 8, 0xFF, 2);
}
static inline uint64_t mmx_read(struct fpu *f, unsigned n)
{
	uint64_t v;

	memcpy(&v, mmx_reg(f, n), 8);
	return v;
}
/* #UD, #NM, #MF before an instruction on MMX registers; `feature` is the CPUID.1:EDX bit it came
 * with. False: do nothing. */
static inline bool mmx_enter(struct soft_cpu *c, uint32_t feature)
{
	if ((c->cr0 & CR0_EM) || !(c->features_edx & feature))
		cpu_ud(c);
	return x87_enter(c);
}

/* ---- SSE ---- */

/* #UD and #NM before an instruction on XMM registers (SDM vol. 3A, 13.1). */
static inline void sse_enter(struct soft_cpu *c, uint32_t feature)
{
	fpu_use(c);
	if ((c->cr0 & CR0_EM) || !(c->cr4 & CR4_OSFXSR) || !(c->features_edx & feature))
		cpu_ud(c);
	if (c->cr0 & CR0_TS)
		cpu_raise(c, EXC_NM);
}
/* 16-byte operands must be aligned (linear address), else #GP(0). */
static inline void sse_check_aligned(struct soft_cpu *c, const struct insn *i, uint32_t off)
{
	if ((c->seg[i->seg].base + off) & 15)
		cpu_gp0(c);
}
static inline void sse_load16(struct soft_cpu *c, unsigned seg, uint32_t off, void *buf)
{
	const uint8_t *p = fast_read(c, seg, off, 16);

	if (likely(p != NULL))
		memcpy(buf, p, 16);
	else
		ld_bytes(c, seg, off, buf, 16);
}
static inline void sse_store16(struct soft_cpu *c, unsigned seg, uint32_t off, const void *buf)
{
	uint8_t *p = fast_write(c, seg, off, 16);

	if (likely(p != NULL))
		memcpy(p, buf, 16);
	else
		st_bytes(c, seg, off, buf, 16);
}
/* Source operand xmm/m128: where its 16 bytes are; `tmp` receives a memory operand. */
static inline const void *sse_source(struct soft_cpu *c, const struct insn *i, void *tmp)
{
	uint32_t off;

	if (!i->is_mem)
		return c->fpu.xmm[i->rm];
	off = effective_address(c, i);
	sse_check_aligned(c, i, off);
	sse_load16(c, i->seg, off, tmp);
	return tmp;
}
/* The same for scalars: only `size` bytes (4 or 8) are read from memory, the rest of `tmp` is zero.
 */
static inline const void *sse_source_scalar(struct soft_cpu *c, const struct insn *i, void *tmp,
					    unsigned size)
{
	uint64_t v;

	if (!i->is_mem)
		return c->fpu.xmm[i->rm];
	v = size == 4 ? ld32(c, i->seg, effective_address(c, i))
		      : ld64(c, i->seg, effective_address(c, i));
	memset((uint8_t *)tmp + 8, 0, 8);
	memcpy(tmp, &v, 8);
	return tmp;
}

/* MASKMOVQ and MASKMOVDQU: stores the bytes of `src` whose mask byte has its top bit set at
 * DS:(E)DI. */
void simd_store_masked(struct soft_cpu *c, const struct insn *i, const uint8_t *src,
		       const uint8_t *mask, unsigned len);

/* ---- opcode tables ---- */

/* The mandatory prefix that selects among up to four instructions on one opcode; F2 and F3 win
 * over 66. */
enum simd_prefix { PFX_NONE, PFX_66, PFX_F3, PFX_F2, PFX_COUNT };
enum simd_prefix simd_prefix_of(const struct insn *i);
enum simd_form { FORM_ANY, FORM_MEM, FORM_REG }; /* which kind of operand ModRM must name */

struct simd_op {
	op_fn fn;
	uint8_t form;
};
/* Each gives its entry or one with fn NULL. `op` is the byte after 0F. */
struct simd_op mmx_find(enum simd_prefix prefix, uint8_t op);
struct simd_op sse_move_find(enum simd_prefix prefix, uint8_t op);
struct simd_op sse_float_find(enum simd_prefix prefix, uint8_t op);
struct simd_op sse_int_find(enum simd_prefix prefix, uint8_t op);
/* 0F AE, where ModRM.reg selects. */
op_fn sse_state_find(const struct insn *i, enum simd_prefix prefix);

#endif
