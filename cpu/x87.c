/* SPDX-License-Identifier: MIT */
/*
 * x87 arithmetic, comparisons and register moves (SDM vol. 1, chapter 8; vol. 2, F*). Memory moves
 * are in x87_mem.c, control in x87_env.c.
 *
 * Each instruction has two ways. The short one is taken when all exceptions are masked and no stack
 * fault can occur: the operands are loaded into the host's x87 with the guest's control word, the
 * same instruction runs there, and result, exception flags and condition codes are taken over. All
 * else goes through x87_replay(), which is slower and exact in every case.
 */
#include "cpu/x87.h"

/* An arithmetic instruction in its five operand forms: *dst = *dst op *src. Returns the host's
 * status word. */
typedef uint16_t (*arith_fn)(void *dst, const void *src);

#define OPERAND80(p) (*(struct m80 *)(p))

#define ARITH_KERNELS(name, fop, fiop)                                                             \
	static uint16_t name##_st(void *dst, const void *src)                                      \
	{                                                                                          \
		uint16_t sw;                                                                       \
		__asm__ volatile("fldt %2\n\tfldt %1\n\t" fop                                      \
				 " %%st(1), %%st\n\tfnstsw %0\n\tfstpt %1\n\tfstp %%st(0)"         \
				 : "=a"(sw), "+m"(OPERAND80(dst))                                  \
				 : "m"(OPERAND80(src))                                             \
				 : "st", "st(1)");                                                 \
		return sw;                                                                         \
	}                                                                                          \
	ARITH_MEM_KERNEL(name##_m32, fop "s", uint32_t)                                            \
	ARITH_MEM_KERNEL(name##_m64, fop "l", uint64_t)                                            \
	ARITH_MEM_KERNEL(name##_i32, fiop "l", uint32_t)                                           \
	ARITH_MEM_KERNEL(name##_i16, fiop "s", uint16_t)
#define ARITH_MEM_KERNEL(name, insn, type)                                                         \
	static uint16_t name(void *dst, const void *src)                                           \
	{                                                                                          \
		uint16_t sw;                                                                       \
		__asm__ volatile("fldt %1\n\t" insn " %2\n\tfnstsw %0\n\tfstpt %1"                 \
				 : "=a"(sw), "+m"(OPERAND80(dst))                                  \
				 : "m"(*(const type *)src)                                         \
				 : "st");                                                          \
		return sw;                                                                         \
	}

ARITH_KERNELS(add, "fadd", "fiadd")
ARITH_KERNELS(mul, "fmul", "fimul")
ARITH_KERNELS(sub, "fsub", "fisub")
ARITH_KERNELS(subr, "fsubr", "fisubr")
ARITH_KERNELS(div, "fdiv", "fidiv")
ARITH_KERNELS(divr, "fdivr", "fidivr")

/* Comparisons leave *dst as it is and answer in C0, C2, C3. */
#define COMPARE_KERNEL(name, load, type, insn)                                                     \
	static uint16_t name(void *dst, const void *src)                                           \
	{                                                                                          \
		uint16_t sw;                                                                       \
		__asm__ volatile(load "fldt %1\n\t" insn "\n\tfnstsw %0\n\tfstp %%st(0)"           \
				 : "=a"(sw)                                                        \
				 : "m"(OPERAND80(dst)), "m"(*(const type *)src)                    \
				 : "st", "st(1)");                                                 \
		return sw;                                                                         \
	}
COMPARE_KERNEL(com_st, "fldt %2\n\t", struct m80, "fcom %%st(1)\n\tfstp %%st(1)")
COMPARE_KERNEL(ucom_st, "fldt %2\n\t", struct m80, "fucom %%st(1)\n\tfstp %%st(1)")
COMPARE_KERNEL(com_m32, "", uint32_t, "fcoms %2")
COMPARE_KERNEL(com_m64, "", uint64_t, "fcoml %2")
COMPARE_KERNEL(com_i32, "", uint32_t, "ficoml %2")
COMPARE_KERNEL(com_i16, "", uint16_t, "ficoms %2")

enum { CODES_ARITH = SW_C1, CODES_COMPARE = SW_C0 | SW_C1 | SW_C2 | SW_C3 };

/* Runs a kernel under the guest's control word and takes over flags and the condition codes in
 * `codes`. */
static inline void run_kernel(struct fpu *f, arith_fn kernel, void *dst, const void *src,
			      uint16_t codes)
{
	uint16_t sw;

	host_x87_begin(f);
	sw = kernel(dst, src);
	host_x87_end(f, sw);
	f->sw = (uint16_t)((f->sw & ~codes) | (sw & (codes | FPE_ALL)));
}

/* ST(0) op memory. */
static inline void arith_mem(struct soft_cpu *c, const struct insn *i, arith_fn kernel,
			     unsigned size, uint16_t codes, bool pop)
{
	struct fpu *f = &c->fpu;
	uint64_t operand;
	uint32_t off;

	if (!x87_enter(c))
		return;
	off = effective_address(c, i);
	operand = size == 2   ? ld16(c, i->seg, off)
		  : size == 4 ? ld32(c, i->seg, off)
			      : ld64(c, i->seg, off);
	x87_note_operand(c, i, off);
	if (unlikely(!x87_simple(f) || !x87_valid(f, 0))) {
		x87_replay(f, i->opcode, i->modrm, &operand, 0);
		return;
	}
	run_kernel(f, kernel, x87_st(f, 0), &operand, codes);
	if (pop)
		x87_pop(f);
}

/* ST(dst) op ST(src), one of them ST(0). */
static inline void arith_reg(struct soft_cpu *c, const struct insn *i, arith_fn kernel,
			     unsigned dst, unsigned src, uint16_t codes, bool pop)
{
	struct fpu *f = &c->fpu;

	if (!x87_enter(c))
		return;
	x87_note(c, i);
	if (unlikely(!x87_simple(f) || !x87_valid(f, dst) || !x87_valid(f, src))) {
		x87_replay(f, i->opcode, i->modrm, NULL, 0);
		return;
	}
	run_kernel(f, kernel, x87_st(f, dst), x87_st(f, src), codes);
	if (pop)
		x87_pop(f);
}

/* The memory forms D8, DA, DC, DE and the register forms D8 (to ST(0)), DC (to ST(i)) and DE (to
 * ST(i), pop). */
#define ARITH_OPS(X) X(add) X(mul) X(sub) X(subr) X(div) X(divr)
#define DEFINE_ARITH(op)                                                                           \
	static void op_##op##_m32(struct soft_cpu *c, const struct insn *i)                        \
	{                                                                                          \
		arith_mem(c, i, op##_m32, 4, CODES_ARITH, false);                                  \
	}                                                                                          \
	static void op_##op##_m64(struct soft_cpu *c, const struct insn *i)                        \
	{                                                                                          \
		arith_mem(c, i, op##_m64, 8, CODES_ARITH, false);                                  \
	}                                                                                          \
	static void op_##op##_i32(struct soft_cpu *c, const struct insn *i)                        \
	{                                                                                          \
		arith_mem(c, i, op##_i32, 4, CODES_ARITH, false);                                  \
	}                                                                                          \
	static void op_##op##_i16(struct soft_cpu *c, const struct insn *i)                        \
	{                                                                                          \
		arith_mem(c, i, op##_i16, 2, CODES_ARITH, false);                                  \
	}                                                                                          \
	static void op_##op##_to_st0(struct soft_cpu *c, const struct insn *i)                     \
	{                                                                                          \
		arith_reg(c, i, op##_st, 0, i->rm, CODES_ARITH, false);                            \
	}                                                                                          \
	static void op_##op##_to_sti(struct soft_cpu *c, const struct insn *i)                     \
	{                                                                                          \
		arith_reg(c, i, op##_st, i->rm, 0, CODES_ARITH, false);                            \
	}                                                                                          \
	static void op_##op##_to_sti_pop(struct soft_cpu *c, const struct insn *i)                 \
	{                                                                                          \
		arith_reg(c, i, op##_st, i->rm, 0, CODES_ARITH, true);                             \
	}
ARITH_OPS(DEFINE_ARITH)

#define DEFINE_COMPARE_MEM(name, kernel, size, pop)                                                \
	static void name(struct soft_cpu *c, const struct insn *i)                                 \
	{                                                                                          \
		arith_mem(c, i, kernel, size, CODES_COMPARE, pop);                                 \
	}
DEFINE_COMPARE_MEM(op_com_m32, com_m32, 4, false)
DEFINE_COMPARE_MEM(op_com_m64, com_m64, 8, false)
DEFINE_COMPARE_MEM(op_com_i32, com_i32, 4, false)
DEFINE_COMPARE_MEM(op_com_i16, com_i16, 2, false)
DEFINE_COMPARE_MEM(op_comp_m32, com_m32, 4, true)
DEFINE_COMPARE_MEM(op_comp_m64, com_m64, 8, true)
DEFINE_COMPARE_MEM(op_comp_i32, com_i32, 4, true)
DEFINE_COMPARE_MEM(op_comp_i16, com_i16, 2, true)

static void op_com(struct soft_cpu *c, const struct insn *i)
{
	arith_reg(c, i, com_st, 0, i->rm, CODES_COMPARE, false);
}
static void op_comp(struct soft_cpu *c, const struct insn *i)
{
	arith_reg(c, i, com_st, 0, i->rm, CODES_COMPARE, true);
}
static void op_ucom(struct soft_cpu *c, const struct insn *i)
{
	arith_reg(c, i, ucom_st, 0, i->rm, CODES_COMPARE, false);
}
static void op_ucomp(struct soft_cpu *c, const struct insn *i)
{
	arith_reg(c, i, ucom_st, 0, i->rm, CODES_COMPARE, true);
}

/* FCOMPP, FUCOMPP: ST(0) with ST(1), pop both. */
static inline void compare_pop2(struct soft_cpu *c, const struct insn *i, arith_fn kernel)
{
	struct fpu *f = &c->fpu;

	if (!x87_enter(c))
		return;
	x87_note(c, i);
	if (unlikely(!x87_simple(f) || !x87_valid(f, 0) || !x87_valid(f, 1))) {
		x87_replay(f, i->opcode, i->modrm, NULL, 0);
		return;
	}
	run_kernel(f, kernel, x87_st(f, 0), x87_st(f, 1), CODES_COMPARE);
	x87_pop(f);
	x87_pop(f);
}
static void op_compp(struct soft_cpu *c, const struct insn *i)
{
	compare_pop2(c, i, com_st);
}
static void op_ucompp(struct soft_cpu *c, const struct insn *i)
{
	compare_pop2(c, i, ucom_st);
}

/* FCMOVcc and FCOMI came with CMOV (SDM vol. 2A, CPUID). */
static void need_cmov(struct soft_cpu *c)
{
	if (!(c->features_edx & CPUID_CMOV))
		cpu_ud(c);
}

/* FCOMI, FUCOMI and their popping forms answer in EFLAGS. */
static void op_comi(struct soft_cpu *c, const struct insn *i)
{
	struct fpu *f = &c->fpu;
	bool unordered_quiet = i->reg == 5, pop = i->opcode == 0xDF;
	uint32_t eflags;

	need_cmov(c);
	if (!x87_enter(c))
		return;
	x87_note(c, i);
	if (unlikely(!x87_simple(f) || !x87_valid(f, 0) || !x87_valid(f, i->rm))) {
		eflags = x87_replay(f, i->opcode, i->modrm, NULL, flags_get(c));
	} else {
		uint16_t sw;

		/* The status word answers what EFLAGS would: C0, C2, C3 stand for CF, PF, ZF. */
		host_x87_begin(f);
		sw = (unordered_quiet ? ucom_st : com_st)(x87_st(f, 0), x87_st(f, i->rm));
		host_x87_end(f, sw);
		f->sw |= sw & FPE_ALL; /* C1 stays */
		eflags = (sw & SW_C0 ? FL_CF : 0) | (sw & SW_C2 ? FL_PF : 0) |
			 (sw & SW_C3 ? FL_ZF : 0);
		if (pop)
			x87_pop(f);
	}
	flags_set_arith(c, eflags);
}

/* FCMOVcc: DA C0.. B, E, BE, U; DB C0.. the opposites. */
static void op_cmov(struct soft_cpu *c, const struct insn *i)
{
	static const uint32_t tested[4] = {FL_CF, FL_ZF, FL_CF | FL_ZF, FL_PF};
	struct fpu *f = &c->fpu;
	uint32_t eflags;

	need_cmov(c);
	if (!x87_enter(c))
		return;
	x87_note(c, i);
	eflags = flags_get(c);
	if (unlikely(!x87_valid(f, 0) || !x87_valid(f, i->rm))) {
		x87_replay(f, i->opcode, i->modrm, NULL, eflags);
		return;
	}
	if (((eflags & tested[i->reg & 3]) != 0) == (i->opcode == 0xDA))
		x87_copy(x87_st(f, 0), x87_st(f, i->rm));
}

/* All that is rare or slow anyway: runs as it is on the host. */
static void op_replay(struct soft_cpu *c, const struct insn *i)
{
	if (!x87_enter(c))
		return;
	x87_note(c, i);
	x87_replay(&c->fpu, i->opcode, i->modrm, NULL, 0);
}

/* D9 FA and FC; the operand is in ST(0). */
#define UNARY_KERNEL(name, insn)                                                                   \
	static uint16_t name(void *dst, const void *src)                                           \
	{                                                                                          \
		uint16_t sw;                                                                       \
		__asm__ volatile("fldt %1\n\t" insn "\n\tfnstsw %0\n\tfstpt %1"                    \
				 : "=a"(sw), "+m"(OPERAND80(dst))                                  \
				 :                                                                 \
				 : "st");                                                          \
		return sw;                                                                         \
	}
UNARY_KERNEL(sqrt_st, "fsqrt")
UNARY_KERNEL(rndint_st, "frndint")

static void op_sqrt(struct soft_cpu *c, const struct insn *i)
{
	arith_reg(c, i, sqrt_st, 0, 0, CODES_ARITH, false);
}
static void op_rndint(struct soft_cpu *c, const struct insn *i)
{
	arith_reg(c, i, rndint_st, 0, 0, CODES_ARITH, false);
}

enum { SIGN_BYTE = 9, SIGN = 0x80 };

/* The byte of ST(0) with the sign becomes (byte & keep) ^ flip. */
static void change_sign(struct soft_cpu *c, const struct insn *i, uint8_t keep, uint8_t flip)
{
	struct fpu *f = &c->fpu;
	uint8_t *byte;

	fpu_use(c);
	if (!x87_valid(f, 0)) {
		op_replay(c, i);
		return;
	}
	if (!x87_enter(c))
		return;
	x87_note(c, i);
	byte = (uint8_t *)x87_st(f, 0) + SIGN_BYTE;
	*byte = (*byte & keep) ^ flip;
	f->sw &= (uint16_t)~SW_C1;
}

static void op_chs(struct soft_cpu *c, const struct insn *i)
{
	change_sign(c, i, 0xFF, SIGN);
}

static void op_abs(struct soft_cpu *c, const struct insn *i)
{
	change_sign(c, i, (uint8_t)~SIGN, 0);
}

static void op_xch(struct soft_cpu *c, const struct insn *i)
{
	struct fpu *f = &c->fpu;
	uint8_t tmp[10];

	if (!x87_enter(c))
		return;
	x87_note(c, i);
	if (unlikely(!x87_valid(f, 0) || !x87_valid(f, i->rm))) {
		x87_replay(f, i->opcode, i->modrm, NULL, 0);
		return;
	}
	x87_copy(tmp, x87_st(f, 0));
	x87_copy(x87_st(f, 0), x87_st(f, i->rm));
	x87_copy(x87_st(f, i->rm), tmp);
	f->sw &= (uint16_t)~SW_C1;
}

/* D9 C0: FLD ST(i). */
static void op_fld_st(struct soft_cpu *c, const struct insn *i)
{
	struct fpu *f = &c->fpu;
	uint8_t tmp[10];

	if (!x87_enter(c))
		return;
	x87_note(c, i);
	if (unlikely(x87_valid(f, 7) || !x87_valid(f, i->rm))) {
		x87_replay(f, i->opcode, i->modrm, NULL, 0);
		return;
	}
	x87_copy(tmp, x87_st(f, i->rm));
	x87_copy(x87_push(f), tmp);
	f->sw &= (uint16_t)~SW_C1;
}

/* FST ST(i), FSTP ST(i) and its aliases. */
static void op_fst_st(struct soft_cpu *c, const struct insn *i)
{
	struct fpu *f = &c->fpu;
	bool pop = i->opcode != 0xDD || i->reg == 3; /* the aliases all pop */

	if (!x87_enter(c))
		return;
	x87_note(c, i);
	if (unlikely(!x87_valid(f, 0))) {
		x87_replay(f, i->opcode, i->modrm, NULL, 0);
		return;
	}
	x87_copy(x87_st(f, i->rm), x87_st(f, 0));
	f->tag_valid |= (uint8_t)(1u << x87_physical(f, i->rm));
	f->sw &= (uint16_t)~SW_C1;
	if (pop)
		x87_pop(f);
}

/* FLD1 and FLDZ, exact under any rounding; the other constants depend on it and are replayed. */
static void op_load_constant(struct soft_cpu *c, const struct insn *i)
{
	static const uint8_t one[10] = {0, 0, 0, 0, 0, 0, 0, 0x80, 0xFF, 0x3F}, zero[10];
	struct fpu *f = &c->fpu;

	fpu_use(c);
	if (x87_valid(f, 7)) {
		op_replay(c, i);
		return;
	}
	if (!x87_enter(c))
		return;
	x87_note(c, i);
	x87_copy(x87_push(f), i->modrm == 0xE8 ? one : zero);
	f->sw &= (uint16_t)~SW_C1;
}

/* ---- lookup ---- */

#define TO_ST0(op)     op_##op##_to_st0
#define TO_STI(op)     op_##op##_to_sti
#define TO_STI_POP(op) op_##op##_to_sti_pop

/* Memory forms of D8, DA, DC, DE, by ModRM.reg. */
static op_fn arith_mem_lookup(const struct insn *i)
{
	static const op_fn m32[8] = {op_add_m32, op_mul_m32,  op_com_m32, op_comp_m32,
				     op_sub_m32, op_subr_m32, op_div_m32, op_divr_m32};
	static const op_fn i32[8] = {op_add_i32, op_mul_i32,  op_com_i32, op_comp_i32,
				     op_sub_i32, op_subr_i32, op_div_i32, op_divr_i32};
	static const op_fn m64[8] = {op_add_m64, op_mul_m64,  op_com_m64, op_comp_m64,
				     op_sub_m64, op_subr_m64, op_div_m64, op_divr_m64};
	static const op_fn i16[8] = {op_add_i16, op_mul_i16,  op_com_i16, op_comp_i16,
				     op_sub_i16, op_subr_i16, op_div_i16, op_divr_i16};

	switch (i->opcode) {
	case 0xD8: return m32[i->reg];
	case 0xDA: return i32[i->reg];
	case 0xDC: return m64[i->reg];
	default: return i16[i->reg];
	}
}

static op_fn lookup_d9(const struct insn *i)
{
	switch (i->reg) {
	case 0: return op_fld_st;
	case 1: return op_xch;
	case 2: return i->rm == 0 ? op_x87_nop : NULL;
	case 3: return op_fst_st; /* FSTP1, an alias */
	}
	switch (i->modrm) {
	case 0xE0: return op_chs;
	case 0xE1: return op_abs;
	case 0xE8:
	case 0xEE: return op_load_constant;
	case 0xE2:
	case 0xE3:
	case 0xE6:
	case 0xE7:
	case 0xEF: return NULL;
	case 0xF6: return op_fdecstp;
	case 0xF7: return op_fincstp;
	case 0xFA: return op_sqrt;
	case 0xFC: return op_rndint;
	default: return op_replay;
	}
}

static op_fn lookup_db(const struct insn *i)
{
	switch (i->reg) {
	case 4:
		switch (i->rm) {
		case 0: /* FENI, FDISI of the 8087 and FSETPM of the 287 do nothing since */
		case 1:
		case 4: return op_x87_ignored;
		case 2: return op_fnclex;
		case 3: return op_fninit;
		default: return NULL;
		}
	case 5:
	case 6: return op_comi;
	case 7: return NULL;
	default: return op_cmov;
	}
}

op_fn x87_lookup(const struct insn *i)
{
	static const op_fn d8[8] = {TO_ST0(add), TO_ST0(mul),  op_com,      op_comp,
				    TO_ST0(sub), TO_ST0(subr), TO_ST0(div), TO_ST0(divr)};
	/* The encodings of the reversed forms are exchanged when ST(i) is the destination. */
	static const op_fn dc[8] = {TO_STI(add),  TO_STI(mul), op_com,       op_comp,
				    TO_STI(subr), TO_STI(sub), TO_STI(divr), TO_STI(div)};
	static const op_fn de[8] = {
		TO_STI_POP(add),  TO_STI_POP(mul), op_comp,          NULL,
		TO_STI_POP(subr), TO_STI_POP(sub), TO_STI_POP(divr), TO_STI_POP(div)};
	static const op_fn dd[8] = {op_ffree, op_xch,   op_fst_st, op_fst_st,
				    op_ucom,  op_ucomp, NULL,      NULL};

	if (i->lock)
		return NULL;
	if (i->is_mem)
		return i->opcode & 1 ? x87_mem_lookup(i) : arith_mem_lookup(i);
	switch (i->opcode) {
	case 0xD8: return d8[i->reg];
	case 0xD9: return lookup_d9(i);
	case 0xDA: return i->reg < 4 ? op_cmov : i->modrm == 0xE9 ? op_ucompp : NULL;
	case 0xDB: return lookup_db(i);
	case 0xDC: return dc[i->reg];
	case 0xDD: return dd[i->reg];
	case 0xDE: return i->modrm == 0xD9 ? op_compp : de[i->reg];
	default: /* DF */
		switch (i->reg) {
		case 0: return op_ffreep;
		case 1: return op_xch;
		case 2:
		case 3: return op_fst_st;
		case 4: return i->rm == 0 ? op_fnstsw_ax : NULL;
		case 5:
		case 6: return op_comi;
		default: return NULL;
		}
	}
}
