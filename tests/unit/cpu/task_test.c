/* SPDX-License-Identifier: MIT */
/* Hardware task switches. */
#include "tests/unit/cpu/pm_machine.h"

enum {
	TASK_LINK = 0x00,
	TASK_CR3 = 0x1C,
	TASK_EIP = 0x20,
	TASK_EFLAGS = 0x24,
	TASK_GPR = 0x28,
	TASK_SEG = 0x48,
	TASK_LDT = 0x60,
	TASK_TRAP = 0x64,
	STACK_B = 0x5E000,
};

static void seg_of_task(struct pm *p, uint32_t tss, unsigned sreg, uint16_t selector)
{
	store_le16(p->ram + tss + TASK_SEG + 4 * sreg, selector);
}

/* Task B: level 0, from AT_TARGET on. */
static void make_task_b(struct pm *p)
{
	uint8_t *t = p->ram + AT_TSS_B;
	memset(t, 0, 0x68);
	store_le32(t + TASK_EIP, AT_TARGET);
	store_le32(t + TASK_EFLAGS, FL_1 | FL_CF);
	for (unsigned n = 0; n < 8; n++)
		store_le32(t + TASK_GPR + 4 * n, 0xB0000000 + n);
	store_le32(t + TASK_GPR + 4 * R_ESP, STACK_B);
	for (unsigned n = 0; n < 6; n++)
		seg_of_task(p, AT_TSS_B, n, n == S_CS ? CODE0 : DATA0);
	store_le16(t + TASK_LDT, LDT);
	pm_segment(p, TSS_B, AT_TSS_B, 0x67, P_TSS32);
	pm_segment(p, TSS_A, AT_TSS_A, 0x67, P_TSS32_BUSY);
}

#define assert_busy(p, selector, busy)                                                             \
	assert_int_equal((p)->ram[AT_GDT + (selector) + 5] & 2, (busy) ? 2 : 0)

static void jump_saves_and_loads_everything(void **state)
{
	struct pm *p = *state;
	make_task_b(p);
	p->s.gpr[R_EAX] = 0xA0A0A0A0;
	p->s.eflags = FL_1 | FL_ZF;
	pm_run(p, 0xEA, D(0), W(TSS_B));
	assert_int_equal(p->s.tr.selector, TSS_B);
	assert_int_equal(p->s.eip, AT_TARGET + 1);
	assert_int_equal(p->s.gpr[R_EDI], 0xB0000007);
	assert_int_equal(p->s.gpr[R_ESP], STACK_B);
	assert_int_equal(p->s.eflags, FL_1 | FL_CF);
	assert_int_equal(p->s.ldt.selector, LDT);
	assert_true(p->s.cr0 & CR0_TS);
	assert_busy(p, TSS_A, false);
	assert_busy(p, TSS_B, true);
	assert_int_equal(pm_ld32(p, AT_TSS_A + TASK_EIP), AT_CODE + 7);
	assert_int_equal(pm_ld32(p, AT_TSS_A + TASK_EFLAGS), FL_1 | FL_ZF);
	assert_int_equal(pm_ld32(p, AT_TSS_A + TASK_GPR), 0xA0A0A0A0);
	assert_int_equal(pm_ld32(p, AT_TSS_A + TASK_GPR + 4 * R_ESP), STACK0);
	assert_int_equal(pm_ld16(p, AT_TSS_A + TASK_SEG + 4 * S_CS), CODE0);
	assert_int_equal(pm_ld16(p, AT_TSS_B + TASK_LINK), 0);
}

static void addresses_without_registers_work_in_the_new_task(void **state)
{
	struct pm *p = *state;
	static const uint8_t code[] = {0x8B, 0x0D, D(AT_DATA), 0xF4}; /* mov ecx, [AT_DATA] */
	make_task_b(p);
	memcpy(p->ram + AT_TARGET, code, sizeof(code));
	store_le32(p->ram + AT_DATA, 0x600DDA7A);
	pm_run(p, 0xEA, D(0), W(TSS_B));
	assert_int_equal(p->s.gpr[R_ECX], 0x600DDA7A);
}

static void call_nests_and_iret_returns(void **state)
{
	struct pm *p = *state;
	make_task_b(p);
	p->ram[AT_TARGET] = 0xCF; /* IRET */
	pm_run(p, 0x9A, D(0), W(TSS_B), 0xF4);
	assert_int_equal(p->s.tr.selector, TSS_A);
	assert_int_equal(p->s.eip, AT_CODE + 8);
	assert_false(p->s.eflags & FL_NT);
	assert_busy(p, TSS_A, true);
	assert_busy(p, TSS_B, false);
	assert_int_equal(pm_ld16(p, AT_TSS_B + TASK_LINK), TSS_A);
	assert_int_equal(pm_ld32(p, AT_TSS_B + TASK_EIP), AT_TARGET + 1);
	assert_false(pm_ld32(p, AT_TSS_B + TASK_EFLAGS) & FL_NT);
}

static void call_sets_nt_and_keeps_the_caller_busy(void **state)
{
	struct pm *p = *state;
	make_task_b(p);
	pm_run(p, 0x9A, D(0), W(TSS_B));
	assert_true(p->s.eflags & FL_NT);
	assert_busy(p, TSS_A, true);
	assert_busy(p, TSS_B, true);
}

static void task_gate_from_level_3(void **state)
{
	struct pm *p = *state;
	make_task_b(p);
	pm_level(p, 3);
	pm_run(p, 0xEA, D(0), W(TASK_GATE | 3));
	assert_int_equal(p->s.tr.selector, TSS_B);
	assert_int_equal(p->s.seg[S_CS].selector, CODE0);
	assert_int_equal(pm_ld16(p, AT_TSS_A + TASK_SEG + 4 * S_CS), CODE3);
}

static void interrupt_task_gate_pushes_the_error(void **state)
{
	struct pm *p = *state;
	make_task_b(p);
	pm_idt(p, EXC_GP, TSS_B, 0, P_TASK);
	pm_run(p, 0x66, 0xB8, W(BEYOND), 0x8E, 0xD8);
	assert_int_equal(p->s.tr.selector, TSS_B);
	assert_int_equal(p->s.gpr[R_ESP], STACK_B - 4);
	assert_int_equal(pm_stack(p, 0), BEYOND);
	assert_int_equal(pm_ld32(p, AT_TSS_A + TASK_EIP), AT_CODE + 4);
	assert_true(pm_ld32(p, AT_TSS_A + TASK_EFLAGS) & FL_RF);
	assert_true(p->s.eflags & FL_NT);
}

static void to_v86_task(void **state)
{
	struct pm *p = *state;
	make_task_b(p);
	store_le32(p->ram + AT_TSS_B + TASK_EFLAGS, FL_1 | FL_VM | FL_IOPL);
	store_le32(p->ram + AT_TSS_B + TASK_EIP, 0);
	for (unsigned n = 0; n < 6; n++)
		seg_of_task(p, AT_TSS_B, n, AT_TARGET >> 4);
	store_le32(p->ram + AT_TSS_B + 4, STACK_B);
	store_le16(p->ram + AT_TSS_B + 8, DATA0);
	p->ram[AT_TARGET] = 0xCD;
	p->ram[AT_TARGET + 1] = VECTOR_TEST;
	pm_run(p, 0xEA, D(0), W(TSS_B));
	assert_vector(p, VECTOR_TEST);
	assert_int_equal(pm_stack(p, 1), AT_TARGET >> 4);
	assert_int_equal(pm_stack(p, 2), FL_1 | FL_VM | FL_IOPL);
	assert_int_equal(p->s.gpr[R_ESP], STACK_B - 36);
}

static void old_16_bit_task(void **state)
{
	struct pm *p = *state;
	uint8_t *t = p->ram + AT_TSS16;
	store_le16(t + 0x0E, 0x300);
	store_le16(t + 0x10, FL_1 | FL_SF);
	for (unsigned n = 0; n < 8; n++)
		store_le16(t + 0x12 + 2 * n, 0x1600 + n);
	store_le16(t + 0x22, DATA0);    /* ES */
	store_le16(t + 0x24, CODE16);   /* CS */
	store_le16(t + 0x26, DATA0);    /* SS */
	store_le16(t + 0x28, DATA0);    /* DS */
	p->ram[AT_CODE + 0x300] = 0xCF; /* IRET: back */
	pm_run(p, 0x9A, D(0), W(TSS16), 0xF4);
	assert_int_equal(p->s.tr.selector, TSS_A);
	assert_int_equal(p->s.eip, AT_CODE + 8);
	assert_int_equal(pm_ld16(p, AT_TSS16), TSS_A);
	assert_int_equal(pm_ld16(p, AT_TSS16 + 0x0E), 0x301);
	assert_int_equal(pm_ld16(p, AT_TSS16 + 0x10), FL_1 | FL_SF);
	assert_int_equal(pm_ld16(p, AT_TSS16 + 0x12 + 2 * R_EDI), 0x1607);
	assert_int_equal(p->s.seg[S_FS].selector, DATA0);
}

static void bad_tss_faults_in_the_old_task(void **state)
{
	struct pm *p = *state;
	make_task_b(p);
	pm_segment(p, TSS_B, AT_TSS_B, 0x66, P_TSS32);
	pm_run(p, 0xEA, D(0), W(TSS_B));
	assert_fault(p, EXC_TS, TSS_B, 0);
	pm_level(p, 0);
	pm_segment(p, TSS_B, AT_TSS_B, 0x67, P_TSS32 & 0x7F);
	pm_run(p, 0xEA, D(0), W(TSS_B));
	assert_fault(p, EXC_NP, TSS_B, 0);
	assert_busy(p, TSS_A, true);
	/* IRET to a task that is not busy. */
	make_task_b(p);
	pm_level(p, 0);
	p->s.eflags |= FL_NT;
	store_le16(p->ram + AT_TSS_A, TSS_B);
	pm_run(p, 0xCF);
	assert_fault(p, EXC_TS, TSS_B, 0);
}

static void bad_segments_fault_in_the_new_task(void **state)
{
	static const struct {
		unsigned sreg;
		uint16_t selector;
		unsigned vector, error;
	} cases[] = {
		{S_DS, BEYOND, EXC_TS, BEYOND},
		{S_DS, ABSENT, EXC_NP, ABSENT},
		{S_ES, EXEC_ONLY, EXC_TS, EXEC_ONLY},
		{S_GS, DATA0 | 3, EXC_TS, DATA0},
	};
	struct pm *p = *state;
	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		make_task_b(p);
		pm_level(p, 0);
		seg_of_task(p, AT_TSS_B, cases[n].sreg, cases[n].selector);
		pm_run(p, 0xEA, D(0), W(TSS_B));
		assert_vector(p, cases[n].vector);
		assert_int_equal(p->s.tr.selector, TSS_B);
		assert_int_equal(pm_stack(p, 0), cases[n].error);
		assert_int_equal(pm_stack(p, 1), AT_TARGET);
	}
}

static void trap_bit_raises_debug_exception(void **state)
{
	struct pm *p = *state;
	make_task_b(p);
	p->ram[AT_TSS_B + TASK_TRAP] = 1;
	p->s.dr[7] = 0x455;
	pm_run(p, 0xEA, D(0), W(TSS_B));
	assert_vector(p, EXC_DB);
	assert_int_equal(pm_stack(p, 0), AT_TARGET);
	assert_true(p->s.dr[6] & 0x8000);
	assert_int_equal(p->s.dr[7], 0x400);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		PM_TEST(jump_saves_and_loads_everything),
		PM_TEST(addresses_without_registers_work_in_the_new_task),
		PM_TEST(call_nests_and_iret_returns),
		PM_TEST(call_sets_nt_and_keeps_the_caller_busy),
		PM_TEST(task_gate_from_level_3),
		PM_TEST(interrupt_task_gate_pushes_the_error),
		PM_TEST(to_v86_task),
		PM_TEST(old_16_bit_task),
		PM_TEST(bad_tss_faults_in_the_old_task),
		PM_TEST(bad_segments_fault_in_the_new_task),
		PM_TEST(trap_bit_raises_debug_exception),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
