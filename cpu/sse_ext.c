/* SPDX-License-Identifier: MIT */
/*
 * SSE3, SSSE3, SSE4.1, SSE4.2, AES and PCLMULQDQ (SDM vol. 1, chapter 12), on the host's own unit:
 * a CPU offers of these features those that the host has.
 *
 * Most instructions are executed as they are by stubs with operands at fixed places: destination
 * XMM1, source XMM2, and the registers that some use without naming them: XMM0, EAX, EDX, ECX. The
 * stubs are tables of eight bytes each, by opcode, or by immediate where there is one. What only
 * moves bytes about under an immediate is done in C.
 *
 * With some exceptions unmasked, an instruction that is several additions or products at once
 * signals what those signal, step by step.
 */
#include "cpu/sse_ext.h"
#include "cpu/sse_trap.h"
#include <cpuid.h>
#include <emmintrin.h>

/* ---- What there is ---- */

enum {
	A16 = EXT_ALIGNED | 16,
	MAP_38 = 2, /* in the upper byte of insn.opcode */
	MAP_3A = 3,
};

static uint32_t find_0f(enum simd_prefix prefix, unsigned op, unsigned *how)
{
	switch (prefix << 8 | op) {
	case PFX_F2 << 8 | 0x12: *how = 8; break; /* MOVDDUP */
	case PFX_F3 << 8 | 0x12:                  /* MOVSLDUP */
	case PFX_F3 << 8 | 0x16: *how = A16; break;
	case PFX_66 << 8 | 0x7C: /* HADD, HSUB, ADDSUB */
	case PFX_F2 << 8 | 0x7C:
	case PFX_66 << 8 | 0x7D:
	case PFX_F2 << 8 | 0x7D:
	case PFX_66 << 8 | 0xD0:
	case PFX_F2 << 8 | 0xD0: *how = A16 | EXT_FLOAT; break;
	case PFX_F2 << 8 | 0xF0: *how = EXT_MEM_ONLY | 16; break; /* LDDQU */
	default: return 0;
	}
	return CPUID_ECX_SSE3;
}

static uint32_t find_38(enum simd_prefix prefix, unsigned op, unsigned *how)
{
	/* PMOVSX and PMOVZX: bytes read, by the low three bits of the opcode. */
	static const uint8_t widened[8] = {8, 4, 2, 8, 4, 8};

	*how = A16;
	if (prefix == PFX_F2 && (op == 0xF0 || op == 0xF1)) {
		*how = EXT_CRC32;
		return CPUID_ECX_SSE42;
	}
	if (prefix > PFX_66)
		return 0;
	if (op <= 0x0B || (op >= 0x1C && op <= 0x1E)) {
		if (prefix == PFX_NONE)
			*how = EXT_MMX | 8;
		return CPUID_ECX_SSSE3;
	}
	if (prefix == PFX_NONE)
		return 0;
	switch (op) {
	case 0x17: *how = A16 | EXT_FLAGS; return CPUID_ECX_SSE41;    /* PTEST */
	case 0x2A: *how = A16 | EXT_MEM_ONLY; return CPUID_ECX_SSE41; /* MOVNTDQA */
	case 0x20 ... 0x25:
	case 0x30 ... 0x35: *how = widened[op & 7]; return CPUID_ECX_SSE41;
	case 0x10:
	case 0x14:
	case 0x15:
	case 0x28:
	case 0x29:
	case 0x2B:
	case 0x38 ... 0x41: return CPUID_ECX_SSE41;
	case 0x37: return CPUID_ECX_SSE42;
	case 0xDB ... 0xDF: return CPUID_ECX_AES;
	default: return 0;
	}
}

static uint32_t find_3a(enum simd_prefix prefix, unsigned op, unsigned *how)
{
	*how = A16;
	if (op == 0x0F && prefix <= PFX_66) { /* PALIGNR */
		if (prefix == PFX_NONE)
			*how = EXT_MMX | 8;
		return CPUID_ECX_SSSE3;
	}
	if (prefix != PFX_66)
		return 0;
	switch (op) {
	case 0x08:
	case 0x09: *how = A16 | EXT_FLOAT; break; /* ROUNDPS, PD, SS, SD */
	case 0x0A: *how = EXT_FLOAT | 4; break;
	case 0x0B: *how = EXT_FLOAT | 8; break;
	case 0x0C ... 0x0E: break;
	case 0x14: *how = EXT_GENERAL | EXT_WRITE | 1; break; /* PEXTR* */
	case 0x15: *how = EXT_GENERAL | EXT_WRITE | 2; break;
	case 0x16:
	case 0x17: *how = EXT_GENERAL | EXT_WRITE | 4; break;
	case 0x20: *how = EXT_GENERAL | 1; break; /* PINSRB */
	case 0x21: *how = 4; break;               /* INSERTPS */
	case 0x22: *how = EXT_GENERAL | 4; break; /* PINSRD */
	case 0x40:
	case 0x41: *how = A16 | EXT_FLOAT; break; /* DPPS, DPPD */
	case 0x42: break;
	case 0x44: return CPUID_ECX_PCLMUL;
	case 0x60: /* PCMPESTRM, PCMPISTRM */
	case 0x62: *how = EXT_FLAGS | EXT_TO_XMM0 | 16; return CPUID_ECX_SSE42;
	case 0x61: /* PCMPESTRI, PCMPISTRI */
	case 0x63: *how = EXT_FLAGS | EXT_TO_ECX | 16; return CPUID_ECX_SSE42;
	case 0xDF: return CPUID_ECX_AES;
	default: return 0;
	}
	return CPUID_ECX_SSE41;
}

uint32_t sse_ext_find(const struct insn *i, unsigned *how)
{
	enum simd_prefix prefix = simd_prefix_of(i);
	unsigned op = i->opcode & 0xFF;

	switch (i->opcode >> 8) {
	case 1: return find_0f(prefix, op, how);
	case MAP_38: return find_38(prefix, op, how);
	case MAP_3A: return find_3a(prefix, op, how);
	default: return 0;
	}
}

uint32_t sse_ext_host_features(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(1, &a, &b, &c, &d) ? c & SSE_EXT_FEATURES : 0;
}

/* ---- The stubs ---- */

/* Offsets are used in the assembly. */
struct operands {
	uint8_t xmm0[16], dst[16], src[16];
	uint32_t eax, edx, ecx, eflags;
};

enum { STUB_SIZE = 8 };

extern const uint8_t minivm_sse3_stubs[], minivm_ssse3_mmx_stubs[], minivm_sse38_stubs[],
	minivm_sse3a_stubs[];
void minivm_sse_run(struct operands *o, const void *stub);
void minivm_mmx_run(struct operands *o, const void *stub);

/* ModRM CA: XMM1 or MM1, XMM2 or MM2. */
__asm__(".pushsection .text\n"
	"	.macro minivm_sse3 prefix, op\n"
	"	.byte \\prefix, 0x0F, \\op, 0xCA, 0xC3\n"
	"	.balign 8\n"
	"	.endm\n"
	"	.balign 8\n"
	"minivm_sse3_stubs:\n"
	"	minivm_sse3 0xF2, 0x12\n"
	"	minivm_sse3 0xF3, 0x12\n"
	"	minivm_sse3 0xF3, 0x16\n"
	"	minivm_sse3 0x66, 0x7C\n"
	"	minivm_sse3 0xF2, 0x7C\n"
	"	minivm_sse3 0x66, 0x7D\n"
	"	minivm_sse3 0xF2, 0x7D\n"
	"	minivm_sse3 0x66, 0xD0\n"
	"	minivm_sse3 0xF2, 0xD0\n"
	"minivm_ssse3_mmx_stubs:\n"
	"	.set minivm_n, 0\n"
	"	.rept 32\n"
	"	.byte 0x0F, 0x38, minivm_n, 0xCA, 0xC3, 0x90, 0x90, 0x90\n"
	"	.set minivm_n, minivm_n + 1\n"
	"	.endr\n"
	"minivm_sse38_stubs:\n"
	"	.set minivm_n, 0\n"
	"	.rept 256\n"
	"	.byte 0x66, 0x0F, 0x38, minivm_n, 0xCA, 0xC3, 0x90, 0x90\n"
	"	.set minivm_n, minivm_n + 1\n"
	"	.endr\n"
	"minivm_sse3a_stubs:\n"
	"	.irp op, 0x08, 0x09, 0x0A, 0x0B, 0x40, 0x41, 0x42, 0x44, 0x60, 0x61, 0x62, 0x63, "
	"0xDF\n"
	"	.set minivm_n, 0\n"
	"	.rept 256\n"
	"	.byte 0x66, 0x0F, 0x3A, \\op, 0xCA, minivm_n, 0xC3, 0x90\n"
	"	.set minivm_n, minivm_n + 1\n"
	"	.endr\n"
	"	.endr\n"
	"	.type minivm_sse_run, @function\n"
	"minivm_sse_run:\n"
	"	movdqu (%rdi), %xmm0\n"
	"	movdqu 16(%rdi), %xmm1\n"
	"	movdqu 32(%rdi), %xmm2\n"
	"	mov 48(%rdi), %eax\n"
	"	mov 52(%rdi), %edx\n"
	"	call *%rsi\n"
	"	movdqu %xmm0, (%rdi)\n"
	"	movdqu %xmm1, 16(%rdi)\n"
	"	mov %ecx, 56(%rdi)\n"
	"	pushfq\n"
	"	pop %rax\n"
	"	mov %eax, 60(%rdi)\n"
	"	ret\n"
	"	.size minivm_sse_run, . - minivm_sse_run\n"
	"	.type minivm_mmx_run, @function\n"
	"minivm_mmx_run:\n"
	"	movq 16(%rdi), %mm1\n"
	"	movq 32(%rdi), %mm2\n"
	"	call *%rsi\n"
	"	movq %mm1, 16(%rdi)\n"
	"	emms\n"
	"	ret\n"
	"	.size minivm_mmx_run, . - minivm_mmx_run\n"
	".popsection\n");

static const uint8_t *stub_0f(enum simd_prefix prefix, unsigned op)
{
	unsigned n;

	switch (op) {
	case 0x12: n = prefix == PFX_F2 ? 0 : 1; break;
	case 0x16: n = 2; break;
	case 0x7C: n = prefix == PFX_66 ? 3 : 4; break;
	case 0x7D: n = prefix == PFX_66 ? 5 : 6; break;
	default: n = prefix == PFX_66 ? 7 : 8; break;
	}
	return minivm_sse3_stubs + n * STUB_SIZE;
}

static const uint8_t *stub_3a(unsigned op, unsigned imm)
{
	static const uint8_t row[256] = {
		[0x08] = 0,  [0x09] = 1,  [0x0A] = 2, [0x0B] = 3, [0x40] = 4,
		[0x41] = 5,  [0x42] = 6,  [0x44] = 7, [0x60] = 8, [0x61] = 9,
		[0x62] = 10, [0x63] = 11, [0xDF] = 12};

	return minivm_sse3a_stubs + (row[op] * 256u + imm) * STUB_SIZE;
}

static const uint8_t *stub_of(const struct insn *i)
{
	unsigned op = i->opcode & 0xFF;

	switch (i->opcode >> 8) {
	case MAP_38: return minivm_sse38_stubs + op * STUB_SIZE;
	case MAP_3A: return stub_3a(op, i->imm & 0xFF);
	default: return stub_0f(simd_prefix_of(i), op);
	}
}

/* ---- Execution ---- */

static void need_feature(struct soft_cpu *c, const struct insn *i, unsigned *how)
{
	if (!(c->features_ecx & sse_ext_find(i, how)))
		cpu_ud(c);
}

/* The operand named by ModRM.rm, with zeros behind it. */
static void load_source(struct soft_cpu *c, const struct insn *i, unsigned how, uint8_t src[16])
{
	unsigned bytes = how & EXT_BYTES;
	uint32_t off;

	if (!i->is_mem) {
		memcpy(src, c->fpu.xmm[i->rm], 16);
		return;
	}
	off = effective_address(c, i);
	if (how & EXT_ALIGNED)
		sse_check_aligned(c, i, off);
	memset(src, 0, 16);
	if (bytes == 16)
		sse_load16(c, i->seg, off, src);
	else if (bytes == 8)
		store_le64(src, ld64(c, i->seg, off));
	else if (bytes == 4)
		store_le32(src, ld32(c, i->seg, off));
	else
		store_le16(src, ld16(c, i->seg, off));
}

#define DEFINE_KERNEL(insn)                                                                        \
	static void k_##insn(void *dst, const void *src)                                           \
	{                                                                                          \
		__m128i d = _mm_loadu_si128(dst), v = _mm_loadu_si128(src);                        \
		__asm__ volatile(#insn " %1, %0" : "+x"(d) : "x"(v) : "memory");                   \
		_mm_storeu_si128(dst, d);                                                          \
	}
DEFINE_KERNEL(addps)
DEFINE_KERNEL(addpd)
DEFINE_KERNEL(subps)
DEFINE_KERNEL(subpd)
DEFINE_KERNEL(mulps)
DEFINE_KERNEL(mulpd)

enum step { STEP_ADD, STEP_SUB, STEP_MUL };

/* The flags of one step with some exceptions unmasked; *d becomes d op s. */
static uint32_t step_flags(enum step step, bool is_double, void *d, const void *s, uint32_t mxcsr)
{
	static const sse_kernel kernels[3][2] = {
		{k_addps, k_addpd}, {k_subps, k_subpd}, {k_mulps, k_mulpd}};
	static const uint16_t opcodes[3] = {0x158, 0x15C, 0x159};
	const struct insn as = {.opcode = opcodes[step], .prefix_66 = is_double};
	sse_kernel kernel = kernels[step][is_double];
	uint32_t run_as = mxcsr, flags;
	uint8_t operand[16];

	/* Flush-to-zero is for masked underflow alone. */
	if (!(mxcsr & FPE_UNDERFLOW << MXCSR_MASK_SHIFT))
		run_as &= ~(uint32_t)MXCSR_FTZ;
	memcpy(operand, d, 16);
	flags = sse_run_masked(kernel, d, s, run_as);
	return sse_unmasked_flags(&as, kernel, operand, s, mxcsr, flags);
}

/* HADD, HSUB, ADDSUB: as additions or subtractions of lanes side by side. */
static uint32_t flags_of_sse3(const struct insn *i, const struct operands *o, uint32_t mxcsr)
{
	enum { ADDSUB = 0xD0, HSUB = 0x7D, SIGN = 0x80 };
	bool is_double = i->rep == REP_NONE;
	unsigned op = i->opcode & 0xFF, size = is_double ? 8 : 4, lanes = 16 / size;
	uint8_t both[32], d[16], s[16];

	if (op == ADDSUB) {
		memcpy(d, o->dst, 16);
		memcpy(s, o->src, 16);
		for (unsigned n = 0; n < lanes; n += 2)
			s[n * size + size - 1] ^= SIGN;
		return step_flags(STEP_ADD, is_double, d, s, mxcsr);
	}
	memcpy(both, o->dst, 16);
	memcpy(both + 16, o->src, 16);
	for (unsigned n = 0; n < lanes; n++) {
		memcpy(d + n * size, both + 2 * n * size, size);
		memcpy(s + n * size, both + (2 * n + 1) * size, size);
	}
	return step_flags(op == HSUB ? STEP_SUB : STEP_ADD, is_double, d, s, mxcsr);
}

/* DPPS and DPPD: products, then sums of pairs, until a step signals. What takes no part is 0 and
 * 1. */
static uint32_t flags_of_dot_product(const struct insn *i, const struct operands *o, uint32_t mxcsr)
{
	enum { DPPD = 0x41, FIRST_FACTOR_BIT = 4 };
	const uint32_t unmasked = ~mxcsr >> MXCSR_MASK_SHIFT & FPE_ALL;
	const float one_f = 1;
	const double one_d = 1;
	bool is_double = (i->opcode & 0xFF) == DPPD;
	unsigned size = is_double ? 8 : 4, lanes = 16 / size;
	const void *one = is_double ? (const void *)&one_d : &one_f;
	uint8_t d[16] = {0}, s[16];
	uint32_t flags;

	for (unsigned n = 0; n < lanes; n++) {
		bool factor = i->imm >> (FIRST_FACTOR_BIT + n) & 1;
		if (factor)
			memcpy(d + n * size, o->dst + n * size, size);
		memcpy(s + n * size, factor ? o->src + n * size : one, size);
	}
	flags = step_flags(STEP_MUL, is_double, d, s, mxcsr);
	for (; lanes > 1 && !(flags & unmasked); lanes /= 2) {
		uint8_t terms[16];

		memcpy(terms, d, 16);
		memset(d, 0, 16);
		for (unsigned n = 0; n < 16 / size; n++)
			memcpy(s + n * size, one, size);
		for (unsigned n = 0; n < lanes / 2; n++) {
			memcpy(d + n * size, terms + 2 * n * size, size);
			memcpy(s + n * size, terms + (2 * n + 1) * size, size);
		}
		flags |= step_flags(STEP_ADD, is_double, d, s, mxcsr);
	}
	return flags;
}

/* The flags to set with some exceptions unmasked, if those of the masked instruction are
 * `flags`. */
static uint32_t flags_unmasked(const struct insn *i, const struct operands *o, uint32_t mxcsr,
			       uint32_t flags)
{
	enum { DPPS = 0x340, DPPD = 0x341 };

	if (i->opcode < 0x200)
		return flags_of_sse3(i, o, mxcsr);
	if (i->opcode == DPPS || i->opcode == DPPD)
		return flags_of_dot_product(i, o, mxcsr);
	return flags & ~(mxcsr >> MXCSR_MASK_SHIFT) & FPE_BEFORE ? flags & FPE_BEFORE : flags;
}

/* The stub under the guest's MXCSR; raises #XM. */
static void run_float(struct soft_cpu *c, const struct insn *i, struct operands *o)
{
	const struct operands before = *o;
	uint32_t guest = c->fpu.mxcsr, flags;

	_mm_setcsr((guest | MXCSR_MASKS) & ~(uint32_t)FPE_ALL);
	minivm_sse_run(o, stub_of(i));
	flags = _mm_getcsr() & FPE_ALL;
	_mm_setcsr(MXCSR_RESET);
	if ((guest & MXCSR_MASKS) != MXCSR_MASKS)
		flags = flags_unmasked(i, &before, guest, flags);
	c->fpu.mxcsr |= flags;
	if (flags & ~(guest >> MXCSR_MASK_SHIFT)) {
		if (!(c->cr4 & CR4_OSXMMEXCPT))
			cpu_ud(c);
		cpu_raise(c, EXC_XM);
	}
}

static void op_ext(struct soft_cpu *c, const struct insn *i)
{
	struct operands o = {.eax = c->gpr[R_EAX], .edx = c->gpr[R_EDX]};
	unsigned how;

	need_feature(c, i, &how);
	sse_enter(c, CPUID_SSE2);
	load_source(c, i, how, o.src);
	memcpy(o.xmm0, c->fpu.xmm[0], 16);
	memcpy(o.dst, c->fpu.xmm[i->reg], 16);
	if (how & EXT_FLOAT)
		run_float(c, i, &o);
	else if (how & EXT_MEM_ONLY)
		memcpy(o.dst, o.src, 16);
	else
		minivm_sse_run(&o, stub_of(i));
	if (how & EXT_FLAGS)
		flags_set_arith(c, o.eflags & FL_ARITH);
	else
		memcpy(c->fpu.xmm[i->reg], o.dst, 16);
	if (how & EXT_TO_XMM0)
		memcpy(c->fpu.xmm[0], o.xmm0, 16);
	if (how & EXT_TO_ECX)
		c->gpr[R_ECX] = o.ecx;
}

/* The operands of an instruction on MMX registers, which takes the x87's over. False: do nothing. */
static bool load_mmx_operands(struct soft_cpu *c, const struct insn *i, uint8_t *src, uint8_t *dst)
{
	uint64_t v;

	if (!mmx_enter(c, CPUID_MMX))
		return false;
	v = i->is_mem ? ld64(c, i->seg, effective_address(c, i)) : mmx_read(&c->fpu, i->rm);
	mmx_take_over(&c->fpu);
	store_le64(src, v);
	store_le64(dst, mmx_read(&c->fpu, i->reg));
	return true;
}

/* SSSE3 on MMX registers. */
static void op_ext_mmx(struct soft_cpu *c, const struct insn *i)
{
	struct operands o = {0};
	unsigned how;

	need_feature(c, i, &how);
	if (!load_mmx_operands(c, i, o.src, o.dst))
		return;
	minivm_mmx_run(&o, minivm_ssse3_mmx_stubs + (i->opcode & 0xFF) * STUB_SIZE);
	mmx_write(&c->fpu, i->reg, load_le64(o.dst));
}

/* Destination above source, shifted right by whole bytes. */
static void align_right(uint8_t *dst, const uint8_t *src, unsigned size, unsigned count)
{
	uint8_t both[48] = {0};

	memcpy(both, src, size);
	memcpy(both + size, dst, size);
	memcpy(dst, both + (count < 2 * size ? count : 2 * size), size);
}

static void op_palignr(struct soft_cpu *c, const struct insn *i)
{
	uint8_t src[16];
	unsigned how;

	need_feature(c, i, &how);
	sse_enter(c, CPUID_SSE2);
	load_source(c, i, how, src);
	align_right(c->fpu.xmm[i->reg], src, 16, i->imm & 0xFF);
}

static void op_palignr_mmx(struct soft_cpu *c, const struct insn *i)
{
	uint8_t src[8], dst[8];
	unsigned how;

	need_feature(c, i, &how);
	if (!load_mmx_operands(c, i, src, dst))
		return;
	align_right(dst, src, 8, i->imm & 0xFF);
	mmx_write(&c->fpu, i->reg, load_le64(dst));
}

/* BLENDPS, BLENDPD, PBLENDW: lanes of 4, 8, 2 bytes. */
static void op_blend(struct soft_cpu *c, const struct insn *i)
{
	unsigned how, op = i->opcode & 0xFF, size = op == 0x0C ? 4 : op == 0x0D ? 8 : 2;
	uint8_t src[16];

	need_feature(c, i, &how);
	sse_enter(c, CPUID_SSE2);
	load_source(c, i, how, src);
	for (unsigned n = 0; n < 16 / size; n++)
		if (i->imm >> n & 1)
			memcpy(c->fpu.xmm[i->reg] + n * size, src + n * size, size);
}

static void op_insertps(struct soft_cpu *c, const struct insn *i)
{
	unsigned how, from = i->is_mem ? 0 : i->imm >> 6 & 3;
	uint8_t src[16], *dst = c->fpu.xmm[i->reg];

	need_feature(c, i, &how);
	sse_enter(c, CPUID_SSE2);
	load_source(c, i, how, src);
	memcpy(dst + 4 * (i->imm >> 4 & 3), src + 4 * from, 4);
	for (unsigned n = 0; n < 4; n++)
		if (i->imm >> n & 1)
			memset(dst + 4 * n, 0, 4);
}

/* PINSRB, PINSRD. */
static void op_pinsr(struct soft_cpu *c, const struct insn *i)
{
	unsigned how;
	uint32_t v;

	need_feature(c, i, &how);
	sse_enter(c, CPUID_SSE2);
	if ((how & EXT_BYTES) == 1) {
		v = i->is_mem ? ld8(c, i->seg, effective_address(c, i)) : c->gpr[i->rm];
		c->fpu.xmm[i->reg][i->imm & 15] = (uint8_t)v;
		return;
	}
	v = i->is_mem ? ld32(c, i->seg, effective_address(c, i)) : c->gpr[i->rm];
	store_le32(c->fpu.xmm[i->reg] + 4 * (i->imm & 3), v);
}

/* PEXTRB, PEXTRW, PEXTRD, EXTRACTPS. */
static void op_pextr(struct soft_cpu *c, const struct insn *i)
{
	const uint8_t *src = c->fpu.xmm[i->reg];
	unsigned how;
	uint32_t v;

	need_feature(c, i, &how);
	sse_enter(c, CPUID_SSE2);
	switch (how & EXT_BYTES) {
	case 1:
		v = src[i->imm & 15];
		if (i->is_mem)
			st8(c, i->seg, effective_address(c, i), (uint8_t)v);
		break;
	case 2:
		v = load_le16(src + 2 * (i->imm & 7));
		if (i->is_mem)
			st16(c, i->seg, effective_address(c, i), (uint16_t)v);
		break;
	default:
		v = load_le32(src + 4 * (i->imm & 3));
		if (i->is_mem)
			st32(c, i->seg, effective_address(c, i), v);
	}
	if (!i->is_mem)
		c->gpr[i->rm] = v;
}

/* CRC-32C, bit by bit reflected (SDM vol. 2A, CRC32). */
static void op_crc32(struct soft_cpu *c, const struct insn *i)
{
	enum { CRC_BYTE = 0x2F0 };
	const uint32_t polynomial = 0x82F63B78;
	unsigned how, bits = i->opcode == CRC_BYTE ? 8 : i->opsize32 ? 32 : 16;
	uint32_t v, off;

	need_feature(c, i, &how);
	if (i->is_mem) {
		off = effective_address(c, i);
		v = bits == 8    ? ld8(c, i->seg, off)
		    : bits == 16 ? ld16(c, i->seg, off)
				 : ld32(c, i->seg, off);
	} else {
		v = bits == 8 ? *reg8(c, i->rm) : bits == 16 ? *reg16(c, i->rm) : c->gpr[i->rm];
	}
	v ^= c->gpr[i->reg];
	for (unsigned n = 0; n < bits; n++)
		v = v >> 1 ^ (v & 1 ? polynomial : 0);
	c->gpr[i->reg] = v;
}

op_fn sse_ext_lookup(const struct insn *i)
{
	unsigned how = 0;

	if (i->lock || !sse_ext_find(i, &how) || (how & EXT_MEM_ONLY && !i->is_mem))
		return NULL;
	if (how & EXT_CRC32)
		return op_crc32;
	if (i->opcode >> 8 == MAP_3A) {
		switch (i->opcode & 0xFF) {
		case 0x0C ... 0x0E: return op_blend;
		case 0x0F: return how & EXT_MMX ? op_palignr_mmx : op_palignr;
		case 0x14 ... 0x17: return op_pextr;
		case 0x20:
		case 0x22: return op_pinsr;
		case 0x21: return op_insertps;
		}
	}
	return how & EXT_MMX ? op_ext_mmx : op_ext;
}
