/* SPDX-License-Identifier: MIT */
/* Arithmetic, logic, shifts, bits and decimal adjustment: results and defined flags against the
 * host's own processor. */
#include "core_machine.h"

/* One instruction on EAX and ECX with given flags, run natively (the compiler's red zone is stepped
 * over). */
#define NATIVE(name, text)                                                                         \
	static void name(uint32_t *a, uint32_t *b, uint32_t *flags)                                \
	{                                                                                          \
		uint64_t f = *flags, ra = *a, rc = *b;                                             \
		__asm__ volatile("leaq -128(%%rsp), %%rsp\n pushq %2\n popfq\n" text               \
				 "\n pushfq\n popq %2\n cld\n leaq 128(%%rsp), %%rsp"              \
				 : "+a"(ra), "+c"(rc), "+r"(f)                                     \
				 :                                                                 \
				 : "cc", "memory");                                                \
		*a = (uint32_t)ra;                                                                 \
		*b = (uint32_t)rc;                                                                 \
		*flags = (uint32_t)f;                                                              \
	}

struct alu_case {
	const char *name;
	void (*native)(uint32_t *a, uint32_t *b, uint32_t *flags);
	uint8_t code[4];
	uint8_t len;
	uint32_t undefined; /* flags not compared */
};

NATIVE(n_add8, "addb %%cl, %%al")
NATIVE(n_add16, "addw %%cx, %%ax")
NATIVE(n_add32, "addl %%ecx, %%eax")
NATIVE(n_or8, "orb %%cl, %%al")
NATIVE(n_or32, "orl %%ecx, %%eax")
NATIVE(n_adc8, "adcb %%cl, %%al")
NATIVE(n_adc16, "adcw %%cx, %%ax")
NATIVE(n_adc32, "adcl %%ecx, %%eax")
NATIVE(n_sbb8, "sbbb %%cl, %%al")
NATIVE(n_sbb16, "sbbw %%cx, %%ax")
NATIVE(n_sbb32, "sbbl %%ecx, %%eax")
NATIVE(n_and8, "andb %%cl, %%al")
NATIVE(n_and16, "andw %%cx, %%ax")
NATIVE(n_sub8, "subb %%cl, %%al")
NATIVE(n_sub16, "subw %%cx, %%ax")
NATIVE(n_sub32, "subl %%ecx, %%eax")
NATIVE(n_xor32, "xorl %%ecx, %%eax")
NATIVE(n_cmp8, "cmpb %%cl, %%al")
NATIVE(n_cmp32, "cmpl %%ecx, %%eax")
NATIVE(n_test32, "testl %%ecx, %%eax")
NATIVE(n_inc32, "incl %%eax")
NATIVE(n_inc8, "incb %%al")
NATIVE(n_dec16, "decw %%ax")
NATIVE(n_dec32, "decl %%eax")
NATIVE(n_neg32, "negl %%eax")
NATIVE(n_neg8, "negb %%al")
NATIVE(n_xadd32, "xaddl %%ecx, %%eax")
NATIVE(n_rol8, "rolb %%cl, %%al")
NATIVE(n_rol32, "roll %%cl, %%eax")
NATIVE(n_ror16, "rorw %%cl, %%ax")
NATIVE(n_ror32, "rorl %%cl, %%eax")
NATIVE(n_rcl8, "rclb %%cl, %%al")
NATIVE(n_rcl32, "rcll %%cl, %%eax")
NATIVE(n_rcr16, "rcrw %%cl, %%ax")
NATIVE(n_rcr32, "rcrl %%cl, %%eax")
NATIVE(n_shl8, "shlb %%cl, %%al")
NATIVE(n_shl32, "shll %%cl, %%eax")
NATIVE(n_shr8, "shrb %%cl, %%al")
NATIVE(n_shr32, "shrl %%cl, %%eax")
NATIVE(n_sar16, "sarw %%cl, %%ax")
NATIVE(n_sar32, "sarl %%cl, %%eax")
NATIVE(n_shl1, "shll $1, %%eax")
NATIVE(n_shr1, "shrl $1, %%eax")
NATIVE(n_sar1, "sarl $1, %%eax")
NATIVE(n_rol1, "roll $1, %%eax")
NATIVE(n_ror1, "rorl $1, %%eax")
NATIVE(n_rcl1, "rcll $1, %%eax")
NATIVE(n_rcr1, "rcrl $1, %%eax")
NATIVE(n_shld32, "shldl $5, %%ecx, %%eax")
NATIVE(n_shrd32, "shrdl $5, %%ecx, %%eax")
NATIVE(n_shld16, "shldw $5, %%cx, %%ax")
NATIVE(n_imul32, "imull %%ecx, %%eax")
NATIVE(n_imul16, "imulw %%cx, %%ax")
NATIVE(n_mul8, "mulb %%cl")
NATIVE(n_imul8, "imulb %%cl")
NATIVE(n_bt32, "btl %%ecx, %%eax")
NATIVE(n_bts16, "btsw %%cx, %%ax")
NATIVE(n_btr32, "btrl %%ecx, %%eax")
NATIVE(n_btc32, "btcl %%ecx, %%eax")
NATIVE(n_bsf32, "bsfl %%ecx, %%eax")
NATIVE(n_bsr32, "bsrl %%ecx, %%eax")
NATIVE(n_cmpxchg, "cmpxchgl %%ecx, %%ecx")
NATIVE(n_cmc, "cmc")
NATIVE(n_sahf, "sahf")
NATIVE(n_lahf, "lahf")
NATIVE(n_cwde, "cwtl")
NATIVE(n_bswap, "bswapl %%eax")
NATIVE(n_movsx, "movsbl %%cl, %%eax")
NATIVE(n_movzx, "movzwl %%cx, %%eax")
NATIVE(n_setbe, "setbe %%al")
NATIVE(n_setl, "setl %%al")
NATIVE(n_setp, "setp %%al")
NATIVE(n_cmovg, "cmovgl %%ecx, %%eax")
NATIVE(n_cmovo, "cmovol %%ecx, %%eax")

enum {
	SHIFTS = FL_AF | FL_OF,
	MULS = FL_SF | FL_ZF | FL_AF | FL_PF,
	BITS = FL_OF | FL_SF | FL_ZF | FL_AF | FL_PF,
	SCANS = FL_OF | FL_SF | FL_CF | FL_AF | FL_PF,
};
static const struct alu_case cases[] = {
	{"add al, cl", n_add8, {0x00, 0xC8}, 2, 0},
	{"add ax, cx", n_add16, {0x66, 0x01, 0xC8}, 3, 0},
	{"add eax, ecx", n_add32, {0x03, 0xC1}, 2, 0},
	{"or al, cl", n_or8, {0x08, 0xC8}, 2, FL_AF},
	{"or eax, ecx", n_or32, {0x09, 0xC8}, 2, FL_AF},
	{"adc al, cl", n_adc8, {0x12, 0xC1}, 2, 0},
	{"adc ax, cx", n_adc16, {0x66, 0x11, 0xC8}, 3, 0},
	{"adc eax, ecx", n_adc32, {0x11, 0xC8}, 2, 0},
	{"sbb al, cl", n_sbb8, {0x18, 0xC8}, 2, 0},
	{"sbb ax, cx", n_sbb16, {0x66, 0x1B, 0xC1}, 3, 0},
	{"sbb eax, ecx", n_sbb32, {0x19, 0xC8}, 2, 0},
	{"and al, cl", n_and8, {0x20, 0xC8}, 2, FL_AF},
	{"and ax, cx", n_and16, {0x66, 0x21, 0xC8}, 3, FL_AF},
	{"sub al, cl", n_sub8, {0x2A, 0xC1}, 2, 0},
	{"sub ax, cx", n_sub16, {0x66, 0x29, 0xC8}, 3, 0},
	{"sub eax, ecx", n_sub32, {0x29, 0xC8}, 2, 0},
	{"xor eax, ecx", n_xor32, {0x31, 0xC8}, 2, FL_AF},
	{"cmp al, cl", n_cmp8, {0x38, 0xC8}, 2, 0},
	{"cmp eax, ecx", n_cmp32, {0x39, 0xC8}, 2, 0},
	{"test eax, ecx", n_test32, {0x85, 0xC8}, 2, FL_AF},
	{"inc eax", n_inc32, {0x40}, 1, 0},
	{"inc al", n_inc8, {0xFE, 0xC0}, 2, 0},
	{"dec ax", n_dec16, {0x66, 0x48}, 2, 0},
	{"dec eax", n_dec32, {0xFF, 0xC8}, 2, 0},
	{"neg eax", n_neg32, {0xF7, 0xD8}, 2, 0},
	{"neg al", n_neg8, {0xF6, 0xD8}, 2, 0},
	{"xadd eax, ecx", n_xadd32, {0x0F, 0xC1, 0xC8}, 3, 0},
	{"rol al, cl", n_rol8, {0xD2, 0xC0}, 2, FL_OF},
	{"rol eax, cl", n_rol32, {0xD3, 0xC0}, 2, FL_OF},
	{"ror ax, cl", n_ror16, {0x66, 0xD3, 0xC8}, 3, FL_OF},
	{"ror eax, cl", n_ror32, {0xD3, 0xC8}, 2, FL_OF},
	{"rcl al, cl", n_rcl8, {0xD2, 0xD0}, 2, FL_OF},
	{"rcl eax, cl", n_rcl32, {0xD3, 0xD0}, 2, FL_OF},
	{"rcr ax, cl", n_rcr16, {0x66, 0xD3, 0xD8}, 3, FL_OF},
	{"rcr eax, cl", n_rcr32, {0xD3, 0xD8}, 2, FL_OF},
	{"shl al, cl", n_shl8, {0xD2, 0xE0}, 2, SHIFTS | FL_CF},
	{"shl eax, cl", n_shl32, {0xD3, 0xE0}, 2, SHIFTS},
	{"shr al, cl", n_shr8, {0xD2, 0xE8}, 2, SHIFTS | FL_CF},
	{"shr eax, cl", n_shr32, {0xD3, 0xE8}, 2, SHIFTS},
	{"sar ax, cl", n_sar16, {0x66, 0xD3, 0xF8}, 3, SHIFTS | FL_CF},
	{"sar eax, cl", n_sar32, {0xD3, 0xF8}, 2, SHIFTS},
	{"shl eax, 1", n_shl1, {0xD1, 0xE0}, 2, FL_AF},
	{"shr eax, 1", n_shr1, {0xD1, 0xE8}, 2, FL_AF},
	{"sar eax, 1", n_sar1, {0xD1, 0xF8}, 2, FL_AF},
	{"rol eax, 1", n_rol1, {0xD1, 0xC0}, 2, 0},
	{"ror eax, 1", n_ror1, {0xD1, 0xC8}, 2, 0},
	{"rcl eax, 1", n_rcl1, {0xD1, 0xD0}, 2, 0},
	{"rcr eax, 1", n_rcr1, {0xD1, 0xD8}, 2, 0},
	{"shld eax, ecx, 5", n_shld32, {0x0F, 0xA4, 0xC8, 5}, 4, SHIFTS},
	{"shrd eax, ecx, 5", n_shrd32, {0x0F, 0xAC, 0xC8, 5}, 4, SHIFTS},
	{"imul eax, ecx", n_imul32, {0x0F, 0xAF, 0xC1}, 3, MULS},
	{"imul ax, cx", n_imul16, {0x66, 0x0F, 0xAF, 0xC1}, 4, MULS},
	{"mul cl", n_mul8, {0xF6, 0xE1}, 2, MULS},
	{"imul cl", n_imul8, {0xF6, 0xE9}, 2, MULS},
	{"bt eax, ecx", n_bt32, {0x0F, 0xA3, 0xC8}, 3, BITS & ~FL_ZF},
	{"bts ax, cx", n_bts16, {0x66, 0x0F, 0xAB, 0xC8}, 4, BITS & ~FL_ZF},
	{"btr eax, ecx", n_btr32, {0x0F, 0xB3, 0xC8}, 3, BITS & ~FL_ZF},
	{"btc eax, ecx", n_btc32, {0x0F, 0xBB, 0xC8}, 3, BITS & ~FL_ZF},
	{"bsf eax, ecx", n_bsf32, {0x0F, 0xBC, 0xC1}, 3, SCANS},
	{"bsr eax, ecx", n_bsr32, {0x0F, 0xBD, 0xC1}, 3, SCANS},
	{"cmpxchg ecx, ecx", n_cmpxchg, {0x0F, 0xB1, 0xC9}, 3, 0},
	{"cmc", n_cmc, {0xF5}, 1, 0},
	{"sahf", n_sahf, {0x9E}, 1, 0},
	{"lahf", n_lahf, {0x9F}, 1, 0},
	{"cwde", n_cwde, {0x98}, 1, 0},
	{"bswap eax", n_bswap, {0x0F, 0xC8}, 2, 0},
	{"movsx eax, cl", n_movsx, {0x0F, 0xBE, 0xC1}, 3, 0},
	{"movzx eax, cx", n_movzx, {0x0F, 0xB7, 0xC1}, 3, 0},
	{"setbe al", n_setbe, {0x0F, 0x96, 0xC0}, 3, 0},
	{"setl al", n_setl, {0x0F, 0x9C, 0xC0}, 3, 0},
	{"setp al", n_setp, {0x0F, 0x9A, 0xC0}, 3, 0},
	{"cmovg eax, ecx", n_cmovg, {0x0F, 0x4F, 0xC1}, 3, 0},
	{"cmovo eax, ecx", n_cmovo, {0x0F, 0x40, 0xC1}, 3, 0},
	{"shld ax, cx, 5", n_shld16, {0x66, 0x0F, 0xA4, 0xC8}, 4, SHIFTS},
};

static uint32_t interesting(unsigned n, uint32_t *seed)
{
	static const uint32_t values[] = {0,      1,      0x7F,       0x80,       0xFF,      0x7FFF,
					  0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
	*seed = *seed * 1664525 + 1013904223;
	return n < ARRAY_SIZE(values) ? values[n] : *seed;
}

static void results_and_flags_are_the_hosts(void **state)
{
	struct machine *m = *state;
	uint32_t seed = 1;

	for (size_t k = 0; k < ARRAY_SIZE(cases); k++) {
		const struct alu_case *t = &cases[k];
		uint8_t code[8];
		unsigned len = t->len;

		memcpy(code, t->code, len);
		if (t->native == n_shld16)
			code[len++] = 5;
		machine_code(m, code, len);
		for (unsigned x = 0; x < 18; x++) {
			for (unsigned y = 0; y < 18; y++) {
				uint32_t a = interesting(x, &seed), b = interesting(y, &seed);
				uint32_t flags = FL_1 | (seed >> 8 & FL_ARITH);
				uint32_t ha = a, hb = b, hf = flags;

				m->s.gpr[R_EAX] = a;
				m->s.gpr[R_ECX] = b;
				m->s.eflags = flags;
				m->s.eip = AT_CODE;
				m->s.activity = CPU_RUNNING;
				machine_go(m, 100);
				t->native(&ha, &hb, &hf);
				assert_ran(m, len);
				if (m->s.gpr[R_EAX] != ha || m->s.gpr[R_ECX] != hb ||
				    ((m->s.eflags ^ hf) & FL_ARITH & ~t->undefined))
					fail_msg("%s: eax %08x ecx %08x flags %03x gave %08x %08x "
						 "%03x, host %08x %08x %03x",
						 t->name, a, b, flags, m->s.gpr[R_EAX],
						 m->s.gpr[R_ECX], m->s.eflags & FL_ARITH, ha, hb,
						 hf & FL_ARITH);
			}
		}
	}
}

static void division_gives_quotient_and_remainder(void **state)
{
	struct machine *m = *state;
	m->s.gpr[R_EAX] = 0x89ABCDEF;
	m->s.gpr[R_EDX] = 0x123;
	m->s.gpr[R_ECX] = 0x1000;
	RUN(m, 0xF7, 0xF1);
	assert_ran(m, 2);
	assert_int_equal(m->s.gpr[R_EAX], 0x12389ABC);
	assert_int_equal(m->s.gpr[R_EDX], 0xDEF);
	machine_protected(m);
	m->s.gpr[R_EAX] = (uint32_t)-7;
	m->s.gpr[R_EDX] = 0xFFFFFFFF;
	m->s.gpr[R_ECX] = 2;
	RUN(m, 0xF7, 0xF9);
	assert_int_equal((int32_t)m->s.gpr[R_EAX], -3);
	assert_int_equal((int32_t)m->s.gpr[R_EDX], -1);
}

static void division_overflow_is_de(void **state)
{
	struct machine *m = *state;
	m->s.gpr[R_EDX] = 1;
	m->s.gpr[R_ECX] = 1;
	RUN(m, 0xF7, 0xF1);
	assert_exception(m, EXC_DE);
	assert_int_equal(machine_stack(m, 0), AT_CODE);
	machine_protected(m);
	m->s.gpr[R_EAX] = 0x80;
	m->s.gpr[R_ECX] = 0;
	RUN(m, 0xF6, 0xF9); /* idiv cl by zero */
	assert_exception(m, EXC_DE);
	machine_protected(m);
	m->s.gpr[R_EAX] = 0x80000000;
	m->s.gpr[R_EDX] = 0xFFFFFFFF;
	m->s.gpr[R_ECX] = 0xFFFFFFFF;
	RUN(m, 0xF7, 0xF9); /* the quotient 2^31 does not fit */
	assert_exception(m, EXC_DE);
}

static void decimal_adjustments(void **state)
{
	struct machine *m = *state;
	m->s.gpr[R_EAX] = 0x79;
	RUN(m, 0x04, 0x35, 0x27); /* add al, 35h; daa: 79 + 35 = 114 */
	assert_int_equal(m->s.gpr[R_EAX] & 0xFF, 0x14);
	assert_true(m->s.eflags & FL_CF);
	machine_protected(m);
	m->s.gpr[R_EAX] = 0x35;
	RUN(m, 0x2C, 0x47, 0x2F); /* sub al, 47h; das: 35 - 47 = -12 */
	assert_int_equal(m->s.gpr[R_EAX] & 0xFF, 0x88);
	assert_true(m->s.eflags & FL_CF);
	machine_protected(m);
	m->s.gpr[R_EAX] = 0x0105;
	RUN(m, 0x04, 0x09, 0x37); /* add al, 9; aaa */
	assert_int_equal(m->s.gpr[R_EAX] & 0xFFFF, 0x0204);
	machine_protected(m);
	m->s.gpr[R_EAX] = 0x0105;
	RUN(m, 0x2C, 0x09, 0x3F); /* sub al, 9; aas */
	assert_int_equal(m->s.gpr[R_EAX] & 0xFFFF, 0x0006);
	machine_protected(m);
	m->s.gpr[R_EAX] = 99;
	RUN(m, 0xD4, 0x0A); /* aam */
	assert_int_equal(m->s.gpr[R_EAX] & 0xFFFF, 0x0909);
	RUN(m, 0xD4, 0x00); /* aam 0 */
	machine_protected(m);
	m->s.gpr[R_EAX] = 0x0207;
	RUN(m, 0xD5, 0x0A); /* aad */
	assert_int_equal(m->s.gpr[R_EAX] & 0xFFFF, 27);
}

static void cmpxchg8b_compares_edx_eax(void **state)
{
	struct machine *m = *state;
	store_le64(m->ram + AT_DATA, UINT64_C(0x1122334455667788));
	m->s.gpr[R_EAX] = 0x55667788;
	m->s.gpr[R_EDX] = 0x11223344;
	m->s.gpr[R_EBX] = 1;
	m->s.gpr[R_ECX] = 2;
	RUN(m, 0xF0, 0x0F, 0xC7, 0x0D, BYTES32(AT_DATA));
	assert_ran(m, 8);
	assert_true(m->s.eflags & FL_ZF);
	assert_int_equal(load_le64(m->ram + AT_DATA), UINT64_C(0x0000000200000001));
	machine_protected(m);
	m->s.gpr[R_EAX] = 5;
	RUN(m, 0xF0, 0x0F, 0xC7, 0x0D, BYTES32(AT_DATA));
	assert_false(m->s.eflags & FL_ZF);
	assert_int_equal(m->s.gpr[R_EAX], 1);
	assert_int_equal(m->s.gpr[R_EDX], 2);
}

static void bit_string_reaches_beyond_the_operand(void **state)
{
	struct machine *m = *state;
	m->s.gpr[R_EAX] = (uint32_t)-33; /* bit 31 of the dword two before */
	RUN(m, 0x0F, 0xAB, 0x05, BYTES32(AT_DATA + 8));
	assert_int_equal(load_le32(m->ram + AT_DATA), 0x80000000);
	machine_protected(m);
	m->s.gpr[R_EAX] = 100;
	RUN(m, 0x0F, 0xAB, 0x05, BYTES32(AT_DATA));
	assert_int_equal(load_le32(m->ram + AT_DATA + 12), 1u << 4);
}

#define T(f) cmocka_unit_test_setup_teardown(f, machine_setup, machine_teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(results_and_flags_are_the_hosts), T(division_gives_quotient_and_remainder),
		T(division_overflow_is_de),         T(decimal_adjustments),
		T(cmpxchg8b_compares_edx_eax),      T(bit_string_reaches_beyond_the_operand),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
