/* SPDX-License-Identifier: MIT */
/* Segment registers: loads, their checks, unreal mode, and the instructions that ask about
 * descriptors. */
#include "tests/unit/cpu/pm_machine.h"

/* MOV AX, selector; MOV sreg, AX; HLT. The load is at offset 4. */
static void run_load(struct pm *p, uint8_t modrm, uint16_t selector)
{
	uint8_t code[] = {0x66, 0xB8, W(selector), 0x8E, modrm, 0xF4};
	pm_run_bytes(p, code, sizeof(code));
}
enum { TO_ES = 0xC0, TO_SS = 0xD0, TO_DS = 0xD8, AT_LOAD = 4 };

static void load_fills_the_cache_and_sets_accessed(void **state)
{
	struct pm *p = *state;
	pm_segment(p, READ_ONLY, 0x12345000, 0x9FFF, 0x4010 | 0x80);
	run_load(p, TO_DS, READ_ONLY);
	assert_int_equal(p->s.eip, AT_CODE + 7);
	assert_int_equal(p->s.seg[S_DS].selector, READ_ONLY);
	assert_int_equal(p->s.seg[S_DS].base, 0x12345000);
	assert_int_equal(p->s.seg[S_DS].limit, 0x9FFF);
	assert_int_equal(p->s.seg[S_DS].attr, 0x4091);
	assert_int_equal(p->ram[AT_GDT + READ_ONLY + 5], 0x91);
}

static void bad_selectors_fault_with_their_error_code(void **state)
{
	static const struct {
		uint8_t modrm;
		uint16_t selector;
		unsigned vector, error;
	} cases[] = {
		{TO_DS, BEYOND, EXC_GP, BEYOND},
		{TO_DS, BEYOND | 2, EXC_GP, BEYOND},
		{TO_DS, LDT, EXC_GP, LDT},
		{TO_DS, EXEC_ONLY, EXC_GP, EXEC_ONLY},
		{TO_DS, DATA0 | 1, EXC_GP, DATA0},
		{TO_DS, ABSENT, EXC_NP, ABSENT},
		{TO_DS, 0x104 | 0, EXC_GP, 0x104}, /* LDT, beyond its limit */
		{TO_SS, 0, EXC_GP, 0},
		{TO_SS, 3, EXC_GP, 0},
		{TO_SS, ABSENT, EXC_SS, ABSENT},
		{TO_SS, READ_ONLY, EXC_GP, READ_ONLY},
		{TO_SS, CODE0, EXC_GP, CODE0},
		{TO_SS, DATA0 | 3, EXC_GP, DATA0},
		{TO_SS, DATA3, EXC_GP, DATA3 & ~3},
		{TO_SS, BEYOND, EXC_GP, BEYOND},
	};
	struct pm *p = *state;
	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		pm_level(p, 0);
		run_load(p, cases[n].modrm, cases[n].selector);
		assert_fault(p, cases[n].vector, cases[n].error, AT_LOAD);
		assert_int_equal(p->s.seg[S_DS].selector, DATA0);
		assert_int_equal(p->s.seg[S_SS].selector, DATA0);
	}
}

static void null_selector_loads_but_access_faults(void **state)
{
	struct pm *p = *state;
	/* MOV AX, 3; MOV DS, AX; MOV EAX, [0x40000] */
	pm_run(p, 0x66, 0xB8, W(3), 0x8E, TO_DS, 0xA1, D(AT_DATA));
	assert_fault(p, EXC_GP, 0, 6);
	assert_int_equal(p->s.seg[S_DS].selector, 3);
}

static void user_code_cannot_load_kernel_data_but_conforming_code(void **state)
{
	struct pm *p = *state;
	pm_level(p, 3);
	run_load(p, TO_DS, DATA0);
	assert_fault(p, EXC_GP, DATA0, AT_LOAD);
	pm_level(p, 3);
	/* MOV AX, CONFORMING; MOV DS, AX; INT VECTOR_TEST */
	pm_run(p, 0x66, 0xB8, W(CONFORMING | 3), 0x8E, TO_DS, 0xCD, VECTOR_TEST);
	assert_vector(p, VECTOR_TEST);
	assert_int_equal(p->s.seg[S_DS].selector, CONFORMING | 3);
}

static void ldt_segment_has_its_limit(void **state)
{
	struct pm *p = *state;
	store_le32(p->ram + AT_DATA + 0xFC, 0x11223344);
	/* MOV AX, 4; MOV ES, AX; MOV EAX, ES:[0xFC]; MOV EAX, ES:[0xFD] */
	pm_run(p, 0x66, 0xB8, W(IN_LDT), 0x8E, TO_ES, 0x26, 0xA1, D(0xFC), 0x26, 0xA1, D(0xFD));
	assert_fault(p, EXC_GP, 0, 12);
	assert_int_equal(p->s.gpr[R_EAX], 0x11223344);
}

static void expand_down_is_valid_above_its_limit(void **state)
{
	struct pm *p = *state;
	/* MOV AX, sel; MOV ES, AX; MOV EAX, ES:[0x1000]; MOV EAX, ES:[0xFFF] */
	pm_run(p, 0x66, 0xB8, W(EXPAND_DOWN), 0x8E, TO_ES, 0x26, 0xA1, D(0x1000), 0x26, 0xA1,
	       D(0xFFF));
	assert_fault(p, EXC_GP, 0, 12);
}

static void pop_ss_that_faults_leaves_esp(void **state)
{
	struct pm *p = *state;
	pm_run(p, 0x6A, ABSENT, 0x17); /* PUSH ABSENT; POP SS */
	assert_fault(p, EXC_SS, ABSENT, 2);
	assert_int_equal(p->s.gpr[R_ESP], STACK0 - 4 - 16);
}

static void lss_loads_both_or_nothing(void **state)
{
	struct pm *p = *state;
	store_le32(p->ram + AT_DATA, 0x55000);
	store_le16(p->ram + AT_DATA + 4, DATA0);
	store_le16(p->ram + AT_DATA + 12, CODE0);
	/* LSS ESP, [AT_DATA]; HLT */
	pm_run(p, 0x0F, 0xB2, 0x25, D(AT_DATA), 0xF4);
	assert_int_equal(p->s.gpr[R_ESP], 0x55000);
	pm_level(p, 0);
	pm_run(p, 0x0F, 0xB2, 0x25, D(AT_DATA + 8), 0xF4);
	assert_fault(p, EXC_GP, CODE0, 0);
	assert_int_equal(p->s.gpr[R_ESP], STACK0 - 16);
}

static void mov_to_cs_is_undefined(void **state)
{
	struct pm *p = *state;
	run_load(p, 0xC8, CODE0);
	assert_vector(p, EXC_UD);
}

static void real_mode_load_is_selector_times_16(void **state)
{
	struct pm *p = *state;
	pm_real(p);
	pm_run(p, 0xB8, W(0x1234), 0x8E, 0xC0, 0xF4);
	assert_int_equal(p->s.seg[S_ES].base, 0x12340);
	assert_int_equal(p->s.seg[S_ES].limit, 0xFFFF);
}

static void unreal_mode_keeps_the_limit(void **state)
{
	struct pm *p = *state;
	pm_real(p);
	store_le32(p->ram + 0x8FFFC, 0xCAFEF00D);
	pm_run(p, 0x0F, 0x20, 0xC0,                 /* MOV EAX, CR0 */
	       0x0C, 0x01,                          /* OR AL, 1 */
	       0x0F, 0x22, 0xC0,                    /* MOV CR0, EAX */
	       0xBB, W(DATA0), 0x8E, 0xDB,          /* MOV BX, DATA0; MOV DS, BX */
	       0x24, 0xFE, 0x0F, 0x22, 0xC0,        /* AND AL, FE; MOV CR0, EAX */
	       0x31, 0xDB, 0x8E, 0xDB,              /* XOR BX, BX; MOV DS, BX */
	       0x67, 0x66, 0xA1, D(0x8FFFC), 0xF4); /* MOV EAX, [dword 0x8FFFC]; HLT */
	assert_int_equal(p->s.gpr[R_EAX], 0xCAFEF00D);
	assert_int_equal(p->s.seg[S_DS].limit, UINT32_MAX);
	assert_int_equal(p->s.seg[S_DS].base, 0);
}

static void real_mode_offset_beyond_64k_faults(void **state)
{
	struct pm *p = *state;
	pm_real(p);
	pm_run(p, 0x67, 0x66, 0xA1, D(0x10000), 0xF4);
	assert_int_equal(p->s.eip, 16 * EXC_GP + 1);
}

/* ---- LAR, LSL, VERR, VERW, ARPL ---- */

enum { LAR_OK = 1, LSL_OK = 2, VERR_OK = 4, VERW_OK = 8 };

/* At `cpl`: LAR EBX, AX; SETZ CL; LSL EDX, AX; SETZ CH; VERR AX; SETZ [..]; VERW AX; SETZ [..]; INT
 */
static unsigned ask(struct pm *p, unsigned cpl, uint16_t selector)
{
	uint8_t code[] = {0x66,           0xB8, W(selector), 0x0F, 0x02, 0xD8, 0x0F,
			  0x94,           0xC1, 0x0F,        0x03, 0xD0, 0x0F, 0x94,
			  0xC5,           0x0F, 0x00,        0xE0, 0x0F, 0x94, 0x05,
			  D(AT_DATA),     0x0F, 0x00,        0xE8, 0x0F, 0x94, 0x05,
			  D(AT_DATA + 1), 0xCD, VECTOR_TEST};
	pm_level(p, cpl);
	p->s.gpr[R_EBX] = p->s.gpr[R_EDX] = 0xDEAD;
	pm_run_bytes(p, code, sizeof(code));
	assert_vector(p, VECTOR_TEST);
	unsigned got = (p->s.gpr[R_ECX] & 1) | (p->s.gpr[R_ECX] >> 8 & 1) << 1 |
		       (unsigned)p->ram[AT_DATA] << 2 | (unsigned)p->ram[AT_DATA + 1] << 3;
	if (!(got & LAR_OK))
		assert_int_equal(p->s.gpr[R_EBX], 0xDEAD);
	if (!(got & LSL_OK))
		assert_int_equal(p->s.gpr[R_EDX], 0xDEAD);
	return got;
}

static void queries_answer_by_type_and_privilege(void **state)
{
	static const struct {
		unsigned cpl;
		uint16_t selector;
		unsigned expected;
	} cases[] = {
		{0, 0, 0},
		{0, 3, 0},
		{0, BEYOND, 0},
		{0, DATA0, LAR_OK | LSL_OK | VERR_OK | VERW_OK},
		{0, DATA0 | 1, 0},
		{3, DATA0, 0},
		{3, DATA3, LAR_OK | LSL_OK | VERR_OK | VERW_OK},
		{0, READ_ONLY, LAR_OK | LSL_OK | VERR_OK},
		{0, CODE0, LAR_OK | LSL_OK | VERR_OK},
		{0, EXEC_ONLY, LAR_OK | LSL_OK},
		{3, CONFORMING, LAR_OK | LSL_OK | VERR_OK},
		{0, ABSENT, LAR_OK | LSL_OK | VERR_OK | VERW_OK},
		{0, LDT, LAR_OK | LSL_OK},
		{0, TSS_A, LAR_OK | LSL_OK},
		{0, TSS_B, LAR_OK | LSL_OK},
		{0, TSS16, LAR_OK | LSL_OK},
		{0, GATE32, LAR_OK},
		{3, GATE32, LAR_OK},
		{0, GATE16, LAR_OK},
		{0, TASK_GATE, LAR_OK},
		{3, LDT, 0},
		{0, IN_LDT, LAR_OK | LSL_OK | VERR_OK | VERW_OK},
	};
	struct pm *p = *state;
	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++)
		assert_int_equal(ask(p, cases[n].cpl, cases[n].selector), cases[n].expected);
}

static void interrupt_gates_are_no_answer(void **state)
{
	struct pm *p = *state;
	pm_gate(p, GATE32, CODE0, AT_TARGET, P_INT32, 0);
	assert_int_equal(ask(p, 0, GATE32), 0);
}

static void lar_and_lsl_values(void **state)
{
	struct pm *p = *state;
	pm_segment(p, READ_ONLY, 0x12345678, 0x54FFF, 0xD0B1);
	ask(p, 0, READ_ONLY | 1);
	assert_int_equal(p->s.gpr[R_EBX], 0x00D0B100);
	assert_int_equal(p->s.gpr[R_EDX], 0x54FFF);
}

static void arpl_raises_the_rpl(void **state)
{
	struct pm *p = *state;
	/* MOV EAX, 0x1230; MOV ECX, 3; ARPL AX, CX; SETZ BL; ARPL AX, CX; SETZ BH; HLT */
	pm_run(p, 0xB8, D(0x1230), 0xB9, D(3), 0x63, 0xC8, 0x0F, 0x94, 0xC3, 0x63, 0xC8, 0x0F, 0x94,
	       0xC7, 0xF4);
	assert_int_equal(p->s.gpr[R_EAX], 0x1233);
	assert_int_equal(p->s.gpr[R_EBX], 1);
}

static void lldt_and_ltr_check_the_type(void **state)
{
	struct pm *p = *state;
	pm_run(p, 0x66, 0xB8, W(TSS_B), 0x0F, 0x00, 0xD0, 0xF4); /* LLDT TSS_B */
	assert_fault(p, EXC_GP, TSS_B, 4);
	pm_level(p, 0);
	pm_run(p, 0x66, 0xB8, W(TSS_A), 0x0F, 0x00, 0xD8, 0xF4); /* LTR of a busy TSS */
	assert_fault(p, EXC_GP, TSS_A, 4);
	pm_level(p, 0);
	pm_run(p, 0x66, 0xB8, W(TSS_B), 0x0F, 0x00, 0xD8, 0x0F, 0x00, 0xC9,
	       0xF4); /* LTR; STR ECX */
	assert_int_equal(p->s.gpr[R_ECX], TSS_B);
	assert_int_equal(p->s.tr.base, AT_TSS_B);
	assert_int_equal(p->ram[AT_GDT + TSS_B + 5], P_TSS32_BUSY);
	pm_level(p, 3);
	pm_run(p, 0x66, 0xB8, W(LDT), 0x0F, 0x00, 0xD0, 0xF4);
	assert_fault(p, EXC_GP, 0, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		PM_TEST(load_fills_the_cache_and_sets_accessed),
		PM_TEST(bad_selectors_fault_with_their_error_code),
		PM_TEST(null_selector_loads_but_access_faults),
		PM_TEST(user_code_cannot_load_kernel_data_but_conforming_code),
		PM_TEST(ldt_segment_has_its_limit),
		PM_TEST(expand_down_is_valid_above_its_limit),
		PM_TEST(pop_ss_that_faults_leaves_esp),
		PM_TEST(lss_loads_both_or_nothing),
		PM_TEST(mov_to_cs_is_undefined),
		PM_TEST(real_mode_load_is_selector_times_16),
		PM_TEST(unreal_mode_keeps_the_limit),
		PM_TEST(real_mode_offset_beyond_64k_faults),
		PM_TEST(queries_answer_by_type_and_privilege),
		PM_TEST(interrupt_gates_are_no_answer),
		PM_TEST(lar_and_lsl_values),
		PM_TEST(arpl_raises_the_rpl),
		PM_TEST(lldt_and_ltr_check_the_type),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
