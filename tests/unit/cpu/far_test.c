/* SPDX-License-Identifier: MIT */
/* Far JMP, CALL, RET and IRET: privilege, gates, stacks, what a fault leaves behind. */
#include "tests/unit/cpu/pm_machine.h"

static void run_far(struct pm *p, uint8_t opcode, uint16_t selector, uint32_t offset)
{
	uint8_t code[] = {opcode, D(offset), W(selector), 0xF4};
	pm_run_bytes(p, code, sizeof(code));
}
enum { JMP_FAR = 0xEA, CALL_FAR = 0x9A, AFTER_FAR = 7 };

static void jump_checks_in_order(void **state)
{
	static const struct {
		unsigned cpl;
		uint16_t selector;
		uint32_t offset;
		unsigned vector, error;
	} cases[] = {
		{0, 0, AT_TARGET, EXC_GP, 0},
		{0, 3, AT_TARGET, EXC_GP, 0},
		{0, BEYOND, AT_TARGET, EXC_GP, BEYOND},
		{0, DATA0, AT_TARGET, EXC_GP, DATA0},
		{0, CODE3, AT_TARGET, EXC_GP, CODE3 & ~3},
		{0, CODE0 | 1, AT_TARGET, EXC_GP, CODE0},
		{0, ABSENT_CODE, AT_TARGET, EXC_NP, ABSENT_CODE},
		{0, SMALL_CODE, 0x1000, EXC_GP, 0},
		{0, LDT, AT_TARGET, EXC_GP, LDT},
		{0, TSS_A, 0, EXC_GP, TSS_A}, /* busy */
		{3, CODE0, AT_TARGET, EXC_GP, CODE0},
		{3, TSS_B, 0, EXC_GP, TSS_B},      /* DPL 0 */
		{3, GATE32 | 3, 0, EXC_GP, CODE0}, /* JMP cannot change level */
	};
	struct pm *p = *state;
	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		pm_level(p, cases[n].cpl);
		run_far(p, JMP_FAR, cases[n].selector, cases[n].offset);
		assert_fault(p, cases[n].vector, cases[n].error, 0);
	}
}

static void jump_to_conforming_keeps_the_level(void **state)
{
	struct pm *p = *state;
	pm_level(p, 3);
	p->ram[AT_TARGET] = 0xCD; /* INT VECTOR_TEST: HLT is for level 0 */
	p->ram[AT_TARGET + 1] = VECTOR_TEST;
	run_far(p, JMP_FAR, CONFORMING, AT_TARGET);
	assert_vector(p, VECTOR_TEST);
	assert_int_equal(pm_stack(p, 0), AT_TARGET + 2);
	assert_int_equal(pm_stack(p, 1), CONFORMING | 3);
	assert_true(p->ram[AT_GDT + CONFORMING + 5] & SEG_ACCESSED);
}

static void jump_through_gate_ignores_the_offset(void **state)
{
	struct pm *p = *state;
	run_far(p, JMP_FAR, GATE32, 0xFFFFFFFF);
	assert_int_equal(p->s.seg[S_CS].selector, CODE0);
	assert_int_equal(p->s.eip, AT_TARGET + 1);
}

static void call_and_return_same_level(void **state)
{
	struct pm *p = *state;
	p->ram[AT_TARGET] = 0xCB; /* RETF */
	run_far(p, CALL_FAR, CODE0, AT_TARGET);
	assert_int_equal(p->s.eip, AT_CODE + AFTER_FAR + 1);
	assert_int_equal(p->s.gpr[R_ESP], STACK0);
	assert_int_equal(pm_ld32(p, STACK0 - 4), CODE0);
	assert_int_equal(pm_ld32(p, STACK0 - 8), AT_CODE + AFTER_FAR);
}

static void call_without_stack_room_changes_nothing(void **state)
{
	struct pm *p = *state;
	/* A stack of which only the upper word can be written: expand-down above 0x5000. The fault
	 * comes through a task gate, because this stack could not take it. */
	pm_segment(p, EXPAND_DOWN, 0, 0x4FFF, 0x4096);
	pm_load(p, S_SS, EXPAND_DOWN);
	p->s.gpr[R_ESP] = 0x5004;
	pm_idt(p, EXC_SS, TSS_B, 0, P_TASK);
	store_le32(p->ram + AT_TSS_B + 0x20, AT_TARGET);
	store_le32(p->ram + AT_TSS_B + 0x24, FL_1);
	store_le32(p->ram + AT_TSS_B + 0x38, STACK1_TSS);
	store_le16(p->ram + AT_TSS_B + 0x4C, CODE0);
	store_le16(p->ram + AT_TSS_B + 0x50, DATA0);
	run_far(p, CALL_FAR, CODE0, AT_TARGET);
	assert_int_equal(p->s.tr.selector, TSS_B);
	assert_int_equal(pm_ld32(p, AT_TSS_A + 0x38), 0x5004);
	assert_int_equal(pm_ld32(p, AT_TSS_A + 0x20), AT_CODE);
	assert_int_equal(pm_stack(p, 0), 0);
}

static void call_gate_to_inner_level_switches_stacks(void **state)
{
	struct pm *p = *state;
	pm_level(p, 3);
	store_le32(p->ram + STACK3, 0x11111111);
	store_le32(p->ram + STACK3 + 4, 0x22222222);
	run_far(p, CALL_FAR, GATE32 | 3, 0);
	assert_int_equal(p->s.eip, AT_TARGET + 1);
	assert_int_equal(p->s.seg[S_CS].selector, CODE0);
	assert_int_equal(p->s.seg[S_SS].selector, DATA0);
	assert_int_equal(p->s.gpr[R_ESP], STACK0_TSS - 24);
	assert_int_equal(pm_stack(p, 0), AT_CODE + AFTER_FAR);
	assert_int_equal(pm_stack(p, 1), CODE3);
	assert_int_equal(pm_stack(p, 2), 0x11111111);
	assert_int_equal(pm_stack(p, 3), 0x22222222);
	assert_int_equal(pm_stack(p, 4), STACK3);
	assert_int_equal(pm_stack(p, 5), DATA3);
}

static void return_to_outer_level_releases_parameters_and_inner_segments(void **state)
{
	struct pm *p = *state;
	static const uint8_t gate_code[] = {0x66, 0xB8, W(DATA0), 0x8E, 0xC0, /* ES = DATA0 */
					    0xCA, W(8)};                      /* RETF 8 */
	pm_level(p, 3);
	memcpy(p->ram + AT_TARGET, gate_code, sizeof(gate_code));
	uint8_t code[] = {CALL_FAR, D(0), W(GATE32 | 3), 0xCD, VECTOR_TEST};
	pm_run_bytes(p, code, sizeof(code));
	assert_vector(p, VECTOR_TEST);
	assert_int_equal(pm_stack(p, 0), AT_CODE + AFTER_FAR + 2);
	assert_int_equal(pm_stack(p, 1), CODE3);
	assert_int_equal(pm_stack(p, 3), STACK3 + 8);
	assert_int_equal(pm_stack(p, 4), DATA3);
	assert_int_equal(p->s.seg[S_ES].selector, 0);
	assert_int_equal(p->s.seg[S_DS].selector, DATA3);
}

static void gate16_copies_words(void **state)
{
	struct pm *p = *state;
	pm_level(p, 3);
	store_le32(p->ram + STACK3, 0xAAAA1234);
	p->ram[AT_CODE + 0x100] = 0xF4;
	run_far(p, CALL_FAR, GATE16 | 3, 0);
	assert_int_equal(p->s.seg[S_CS].selector, CODE16);
	assert_int_equal(p->s.eip, 0x101);
	assert_int_equal(p->s.gpr[R_ESP], STACK0_TSS - 10);
	assert_int_equal(pm_ld16(p, STACK0_TSS - 10), AFTER_FAR);
	assert_int_equal(pm_ld16(p, STACK0_TSS - 8), CODE3);
	assert_int_equal(pm_ld16(p, STACK0_TSS - 6), 0x1234);
	assert_int_equal(pm_ld16(p, STACK0_TSS - 4), STACK3 & 0xFFFF);
	assert_int_equal(pm_ld16(p, STACK0_TSS - 2), DATA3);
}

static void gate_to_level_1_uses_its_stack(void **state)
{
	struct pm *p = *state;
	pm_level(p, 3);
	p->ram[AT_TARGET] = 0xCD;
	p->ram[AT_TARGET + 1] = VECTOR_TEST;
	run_far(p, CALL_FAR, GATE1 | 3, 0);
	assert_vector(p, VECTOR_TEST);
	assert_int_equal(pm_stack(p, 1), CODE1);
	assert_int_equal(pm_stack(p, 3), STACK1_TSS - 16);
	assert_int_equal(pm_stack(p, 4), DATA1);
}

static void bad_inner_stack_is_invalid_tss(void **state)
{
	static const struct {
		uint16_t selector;
		unsigned vector, error;
	} cases[] = {
		{0, EXC_TS, 0},
		{BEYOND | 1, EXC_TS, BEYOND},
		{DATA0, EXC_TS, DATA0},
		{DATA3, EXC_TS, DATA3 & ~3},
		{CODE1, EXC_TS, CODE1 & ~1},
		{READ_ONLY | 1, EXC_TS, READ_ONLY},
		{EXPAND_DOWN | 1, EXC_SS, EXPAND_DOWN},
	};
	struct pm *p = *state;
	pm_segment(p, EXPAND_DOWN, 0, UINT32_MAX, 0xC033); /* DPL 1, not present */
	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		pm_level(p, 3);
		store_le16(p->ram + AT_TSS_A + 16, cases[n].selector);
		run_far(p, CALL_FAR, GATE1 | 3, 0);
		assert_fault(p, cases[n].vector, cases[n].error, 0);
		assert_int_equal(pm_stack(p, 4), STACK3);
	}
}

static void gate_checks_in_order(void **state)
{
	struct pm *p = *state;
	pm_gate(p, GATE1, CODE0, AT_TARGET, P_CALL32, 0); /* DPL 0 */
	pm_level(p, 3);
	run_far(p, CALL_FAR, GATE1 | 3, 0);
	assert_fault(p, EXC_GP, GATE1, 0);
	pm_level(p, 0);
	run_far(p, CALL_FAR, GATE1 | 3, 0);
	assert_fault(p, EXC_GP, GATE1, 0);
	pm_gate(p, GATE1, CODE0, AT_TARGET, P_CALL32 & 0x7F, 0); /* not present */
	pm_level(p, 0);
	run_far(p, CALL_FAR, GATE1, 0);
	assert_fault(p, EXC_NP, GATE1, 0);
	pm_gate(p, GATE1, 0, AT_TARGET, P_CALL32, 0);
	pm_level(p, 0);
	run_far(p, CALL_FAR, GATE1, 0);
	assert_fault(p, EXC_GP, 0, 0);
	pm_gate(p, GATE1, DATA0, AT_TARGET, P_CALL32, 0);
	pm_level(p, 0);
	run_far(p, CALL_FAR, GATE1, 0);
	assert_fault(p, EXC_GP, DATA0, 0);
	pm_gate(p, GATE1, ABSENT_CODE, AT_TARGET, P_CALL32, 0);
	pm_level(p, 0);
	run_far(p, CALL_FAR, GATE1, 0);
	assert_fault(p, EXC_NP, ABSENT_CODE, 0);
}

static void return_to_inner_level_faults(void **state)
{
	struct pm *p = *state;
	pm_level(p, 3);
	pm_run(p, 0x6A, CODE0, 0x68, D(AT_TARGET), 0xCB);
	assert_fault(p, EXC_GP, CODE0, 7);
	assert_int_equal(pm_stack(p, 4), STACK3 - 8);
}

static void return_to_outer_level_checks_the_stack(void **state)
{
	struct pm *p = *state;
	static const uint16_t bad[] = {0, BEYOND, DATA0, DATA3 & ~3, CODE3};
	for (unsigned n = 0; n < ARRAY_SIZE(bad); n++) {
		uint8_t code[] = {0x68,     D(bad[n]), 0x68,         D(STACK3), 0x68,
				  D(CODE3), 0x68,      D(AT_TARGET), 0xCB};
		pm_level(p, 0);
		pm_run_bytes(p, code, sizeof(code));
		assert_fault(p, EXC_GP, bad[n] & ~3, 20);
		assert_int_equal(p->s.gpr[R_ESP], STACK0 - 16 - 16);
	}
}

/* ---- IRET ---- */

static void iret_to_level_3(void **state)
{
	struct pm *p = *state;
	p->ram[AT_TARGET] = 0xCD;
	p->ram[AT_TARGET + 1] = VECTOR_TEST;
	pm_run(p, 0x68, D(DATA3), 0x68, D(STACK3), 0x68, D(0x3ED7), 0x68, D(CODE3), 0x68,
	       D(AT_TARGET), 0xCF);
	assert_vector(p, VECTOR_TEST);
	assert_int_equal(pm_stack(p, 0), AT_TARGET + 2);
	assert_int_equal(pm_stack(p, 1), CODE3);
	assert_int_equal(pm_stack(p, 2),
			 0x3ED7); /* IOPL and IF as given: it was level 0 that returned */
	assert_int_equal(pm_stack(p, 3), STACK3);
	assert_int_equal(p->s.seg[S_DS].selector, 0); /* was DATA0 */
}

static void iret_at_level_3_cannot_change_iopl_or_if(void **state)
{
	struct pm *p = *state;
	pm_level(p, 3);
	p->s.eflags = FL_1 | FL_IF;
	/* PUSH flags, CS, EIP; IRET to the INT behind it. */
	pm_run(p, 0x68, D(0x3000 | FL_AC | FL_ID | FL_VM), 0x68, D(CODE3), 0x68, D(AT_CODE + 16),
	       0xCF, 0xCD, VECTOR_TEST);
	assert_vector(p, VECTOR_TEST);
	assert_int_equal(pm_stack(p, 2), FL_1 | FL_IF | FL_AC | FL_ID);
}

static void iret_offset_beyond_limit_changes_nothing(void **state)
{
	struct pm *p = *state;
	pm_run(p, 0x6A, 0, 0x68, D(SMALL_CODE), 0x68, D(0x1000), 0xCF);
	assert_fault(p, EXC_GP, 0, 12);
	assert_int_equal(p->s.gpr[R_ESP], STACK0 - 12 - 16);
}

static void iret_in_real_mode(void **state)
{
	struct pm *p = *state;
	pm_real(p);
	p->ram[AT_TARGET] = 0xF4;
	pm_run(p, 0x68, W(0x7ED5), 0x68, W(AT_TARGET >> 4), 0x6A, 0, 0xCF);
	assert_int_equal(p->s.seg[S_CS].base, AT_TARGET);
	assert_int_equal(p->s.eip, 1);
	assert_int_equal(p->s.eflags & 0xFFFF, 0x7ED7);
}

static void far_call_in_real_mode(void **state)
{
	struct pm *p = *state;
	pm_real(p);
	p->ram[AT_TARGET] = 0xCB;
	pm_run(p, CALL_FAR, W(0), W(AT_TARGET >> 4), 0xF4);
	assert_int_equal(p->s.seg[S_CS].selector, AT_CODE >> 4);
	assert_int_equal(p->s.eip, 6);
	assert_int_equal(p->s.gpr[R_ESP], 0x8000);
	assert_int_equal(pm_ld16(p, AT_CODE + 0x7FFE), AT_CODE >> 4);
	assert_int_equal(pm_ld16(p, AT_CODE + 0x7FFC), 5);
}

static void real_mode_to_protected_and_back(void **state)
{
	struct pm *p = *state;
	pm_real(p);
	/* In protected mode, 16-bit code segment at the same base; then back through the same
	 * offset. */
	pm_run(p, 0x0F, 0x20, 0xC0, 0x0C, 0x01, 0x0F, 0x22, 0xC0, /* PE on */
	       0xEA, W(13), W(CODE16),                            /* JMP CODE16:13 */
	       0x8C, 0xC9,                                        /* MOV CX, CS */
	       0x24, 0xFE, 0x0F, 0x22, 0xC0,                      /* PE off */
	       0xEA, W(25), W(AT_CODE >> 4),                      /* at 20 */
	       0x8C, 0xCA, 0xF4);                                 /* MOV DX, CS; HLT */
	assert_int_equal(p->s.gpr[R_ECX] & 0xFFFF, CODE16);
	assert_int_equal(p->s.gpr[R_EDX] & 0xFFFF, AT_CODE >> 4);
	assert_int_equal(p->s.eip, 28);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		PM_TEST(jump_checks_in_order),
		PM_TEST(jump_to_conforming_keeps_the_level),
		PM_TEST(jump_through_gate_ignores_the_offset),
		PM_TEST(call_and_return_same_level),
		PM_TEST(call_without_stack_room_changes_nothing),
		PM_TEST(call_gate_to_inner_level_switches_stacks),
		PM_TEST(return_to_outer_level_releases_parameters_and_inner_segments),
		PM_TEST(gate16_copies_words),
		PM_TEST(gate_to_level_1_uses_its_stack),
		PM_TEST(bad_inner_stack_is_invalid_tss),
		PM_TEST(gate_checks_in_order),
		PM_TEST(return_to_inner_level_faults),
		PM_TEST(return_to_outer_level_checks_the_stack),
		PM_TEST(iret_to_level_3),
		PM_TEST(iret_at_level_3_cannot_change_iopl_or_if),
		PM_TEST(iret_offset_beyond_limit_changes_nothing),
		PM_TEST(iret_in_real_mode),
		PM_TEST(far_call_in_real_mode),
		PM_TEST(real_mode_to_protected_and_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
