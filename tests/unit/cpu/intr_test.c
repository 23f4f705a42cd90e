/* SPDX-License-Identifier: MIT */
/* Interrupts and exceptions: the IVT, gates, privilege, virtual-8086 mode, error codes. */
#include "tests/unit/cpu/pm_machine.h"

static void real_mode_int_pushes_and_clears(void **state)
{
	struct pm *p = *state;
	pm_real(p);
	p->s.eflags = FL_1 | FL_IF | FL_CF | FL_AC;
	pm_run(p, 0xCD, 0x21);
	assert_int_equal(p->s.seg[S_CS].selector, AT_HANDLER >> 4);
	assert_int_equal(p->s.eip, 0x211);
	assert_int_equal(p->s.gpr[R_ESP], 0x7FFA);
	assert_int_equal(pm_ld16(p, AT_CODE + 0x7FFA), 2);
	assert_int_equal(pm_ld16(p, AT_CODE + 0x7FFC), AT_CODE >> 4);
	assert_int_equal(pm_ld16(p, AT_CODE + 0x7FFE), FL_1 | FL_IF | FL_CF);
	assert_int_equal(p->s.eflags, FL_1 | FL_CF);
}

static void real_mode_vector_beyond_ivt_is_gp(void **state)
{
	struct pm *p = *state;
	pm_real(p);
	p->s.idt.limit = 4 * 0x20 - 1;
	pm_run(p, 0x90, 0xCD, 0x21);
	assert_int_equal(p->s.eip, 16 * EXC_GP + 1);
	assert_int_equal(pm_ld16(p, AT_CODE + 0x7FFA), 1);
}

static void interrupt_gate_clears_if_trap_gate_does_not(void **state)
{
	struct pm *p = *state;
	p->s.eflags = FL_1 | FL_IF | FL_DF;
	pm_run(p, 0xCD, 0x50);
	assert_vector(p, 0x50);
	assert_int_equal(p->s.eflags, FL_1 | FL_DF);
	assert_int_equal(pm_stack(p, 0), AT_CODE + 2);
	assert_int_equal(pm_stack(p, 1), CODE0);
	assert_int_equal(pm_stack(p, 2), FL_1 | FL_IF | FL_DF);
	pm_idt(p, 0x50, CODE0, AT_HANDLER + 0x500, P_TRAP32);
	pm_level(p, 0);
	p->s.eflags = FL_1 | FL_IF;
	pm_run(p, 0xCD, 0x50);
	assert_int_equal(p->s.eflags, FL_1 | FL_IF);
}

static void software_interrupt_needs_the_gates_dpl(void **state)
{
	struct pm *p = *state;
	pm_level(p, 3);
	pm_run(p, 0xCD, 0x50);
	assert_fault(p, EXC_GP, 0x50 * 8 + 2, 0);
	pm_level(p, 3);
	pm_run(p, 0xCC);
	assert_fault(p, EXC_GP, 3 * 8 + 2, 0);
	pm_level(p, 3);
	pm_run(p, 0xF1); /* INT1 looks at no DPL */
	assert_vector(p, EXC_DB);
	assert_int_equal(pm_stack(p, 0), AT_CODE + 1);
}

static void into_follows_of(void **state)
{
	struct pm *p = *state;
	p->s.eflags = FL_1 | FL_OF;
	pm_run(p, 0xCE);
	assert_vector(p, EXC_OF);
	assert_int_equal(pm_stack(p, 0), AT_CODE + 1);
	pm_level(p, 0);
	pm_run(p, 0xCE, 0xF4);
	assert_int_equal(p->s.eip, AT_CODE + 2);
}

static void inner_level_uses_the_tss_stack(void **state)
{
	struct pm *p = *state;
	pm_level(p, 3);
	p->s.eflags = FL_1 | FL_IF | FL_ZF;
	pm_run(p, 0xCD, VECTOR_TEST);
	assert_vector(p, VECTOR_TEST);
	assert_int_equal(p->s.gpr[R_ESP], STACK0_TSS - 20);
	assert_int_equal(pm_stack(p, 0), AT_CODE + 2);
	assert_int_equal(pm_stack(p, 1), CODE3);
	assert_int_equal(pm_stack(p, 2), FL_1 | FL_IF | FL_ZF);
	assert_int_equal(pm_stack(p, 3), STACK3);
	assert_int_equal(pm_stack(p, 4), DATA3);
	assert_int_equal(p->s.seg[S_DS].selector, DATA3);
}

static void fault_frame_has_rf_and_error(void **state)
{
	struct pm *p = *state;
	pm_level(p, 3);
	pm_run(p, 0xF4); /* HLT at level 3 */
	assert_fault(p, EXC_GP, 0, 0);
	assert_int_equal(pm_stack(p, 3), FL_1 | FL_RF);
	assert_false(p->s.eflags & FL_RF);
}

static void gate16_pushes_words(void **state)
{
	struct pm *p = *state;
	pm_idt(p, 0x50, CODE16, 0x200, P_INT16);
	p->ram[AT_CODE + 0x200] = 0xF4;
	pm_run(p, 0xCD, 0x50);
	assert_int_equal(p->s.seg[S_CS].selector, CODE16);
	assert_int_equal(p->s.eip, 0x201);
	assert_int_equal(p->s.gpr[R_ESP], STACK0 - 6);
	assert_int_equal(pm_ld16(p, STACK0 - 6), 2);
	assert_int_equal(pm_ld16(p, STACK0 - 4), CODE0);
	assert_int_equal(pm_ld16(p, STACK0 - 2), FL_1);
}

static void bad_gates_fault_with_the_vector(void **state)
{
	struct pm *p = *state;
	p->s.idt.limit = 0x50 * 8 + 6;
	pm_run(p, 0xCD, 0x50);
	assert_fault(p, EXC_GP, 0x50 * 8 + 2, 0);
	pm_level(p, 0);
	pm_idt(p, 0x50, CODE0, AT_TARGET, P_CALL32);
	pm_run(p, 0xCD, 0x50);
	assert_fault(p, EXC_GP, 0x50 * 8 + 2, 0);
	pm_level(p, 0);
	pm_idt(p, 0x50, CODE0, AT_TARGET, P_INT32 & 0x7F);
	pm_run(p, 0xCD, 0x50);
	assert_fault(p, EXC_NP, 0x50 * 8 + 2, 0);
	pm_level(p, 0);
	pm_idt(p, 0x50, 0, AT_TARGET, P_INT32);
	pm_run(p, 0xCD, 0x50);
	assert_fault(p, EXC_GP, 0, 0);
	pm_level(p, 0);
	pm_idt(p, 0x50, CODE3, AT_TARGET, P_INT32); /* an outer level */
	pm_run(p, 0xCD, 0x50);
	assert_fault(p, EXC_GP, CODE3 & ~3, 0);
	pm_level(p, 0);
	pm_idt(p, 0x50, ABSENT_CODE, AT_TARGET, P_INT32);
	pm_run(p, 0xCD, 0x50);
	assert_fault(p, EXC_NP, ABSENT_CODE, 0);
	pm_level(p, 0);
	pm_idt(p, 0x50, SMALL_CODE, 0x1000, P_INT32);
	pm_run(p, 0xCD, 0x50);
	assert_fault(p, EXC_GP, 0, 0);
}

static void exception_in_delivery_sets_ext_and_doubles(void **state)
{
	struct pm *p = *state;
	/* #UD through an absent gate: #NP with EXT, which is a contributory fault after a benign
	 * one. */
	pm_idt(p, EXC_UD, CODE0, AT_TARGET, P_INT32 & 0x7F);
	pm_run(p, 0x0F, 0x0B);
	assert_fault(p, EXC_NP, EXC_UD * 8 + 2 + 1, 0);
	/* #GP through an absent gate: #NP after #GP is a double fault. */
	pm_level(p, 0);
	pm_idt(p, EXC_GP, CODE0, AT_TARGET, P_INT32 & 0x7F);
	pm_run(p, 0x66, 0xB8, W(BEYOND), 0x8E, 0xD8);
	assert_vector(p, EXC_DF);
	assert_int_equal(pm_stack(p, 0), 0);
	/* And with no gate for that either: shutdown. */
	pm_level(p, 0);
	pm_idt(p, EXC_DF, CODE0, AT_TARGET, P_INT32 & 0x7F);
	assert_int_equal(pm_go(p), SOFT_TRIPLE_FAULT);
	assert_int_equal(p->s.activity, CPU_SHUTDOWN);
}

/* ---- Virtual-8086 mode ---- */

/* Into V86 code at AT_CODE, stack below STACK3, by IRET at level 0 from AT_DATA. */
static void enter_v86(struct pm *p, unsigned iopl, const uint8_t *code, size_t len)
{
	static const uint16_t selectors[] = {STACK3 >> 4, 0x1111, 0x2222, 0x3333,
					     0x4444}; /* SS ES DS FS GS */
	uint32_t frame = STACK0 - 36;
	pm_level(p, 0);
	p->s.gpr[R_ESP] = frame;
	store_le32(p->ram + frame, 0);
	store_le32(p->ram + frame + 4, AT_CODE >> 4);
	store_le32(p->ram + frame + 8, FL_1 | FL_VM | FL_IF | iopl << FL_IOPL_SHIFT);
	store_le32(p->ram + frame + 12, 0x8000);
	for (unsigned n = 0; n < 5; n++)
		store_le32(p->ram + frame + 16 + 4 * n, selectors[n]);
	memcpy(p->ram + AT_CODE, code, len);
	soft_cpu_ram_written(p->cpu, p->ram + AT_CODE, len);
	p->s.eip = AT_DATA;
	pm_run(p, 0xCF);
}
#define V86(p, iopl, ...)                                                                          \
	do {                                                                                       \
		static const uint8_t v86_[] = {__VA_ARGS__};                                       \
		enter_v86(p, iopl, v86_, sizeof(v86_));                                            \
	} while (0)

static void v86_round_trip(void **state)
{
	struct pm *p = *state;
	V86(p, 3, 0xB8, W(0x7000), 0x8E, 0xD8, 0xCD,
	    VECTOR_TEST); /* MOV AX, 7000h; MOV DS, AX; INT */
	assert_vector(p, VECTOR_TEST);
	assert_int_equal(p->s.gpr[R_ESP], STACK0_TSS - 36);
	assert_int_equal(pm_stack(p, 0), 7);
	assert_int_equal(pm_stack(p, 1), AT_CODE >> 4);
	assert_int_equal(pm_stack(p, 2), FL_1 | FL_VM | FL_IF | FL_IOPL);
	assert_int_equal(pm_stack(p, 3), 0x8000);
	assert_int_equal(pm_stack(p, 4), STACK3 >> 4);
	assert_int_equal(pm_stack(p, 5), 0x1111);
	assert_int_equal(pm_stack(p, 6), 0x7000);
	assert_int_equal(pm_stack(p, 7), 0x3333);
	assert_int_equal(pm_stack(p, 8), 0x4444);
	for (unsigned n = 0; n < 6; n++) {
		if (n != S_CS && n != S_SS)
			assert_int_equal(p->s.seg[n].selector, 0);
	}
	assert_false(p->s.eflags & (FL_VM | FL_IF));
}

static void v86_sensitive_instructions_need_iopl_3(void **state)
{
	struct pm *p = *state;
	V86(p, 0, 0xCD, VECTOR_TEST);
	assert_vector(p, EXC_GP);
	assert_int_equal(pm_stack(p, 0), 0);
	assert_int_equal(pm_stack(p, 1), 0);
	V86(p, 0, 0xFA);
	assert_vector(p, EXC_GP);
	V86(p, 0, 0x9C);
	assert_vector(p, EXC_GP);
	V86(p, 0, 0x9D);
	assert_vector(p, EXC_GP);
	V86(p, 0, 0xCF);
	assert_vector(p, EXC_GP);
	V86(p, 0, 0xF4);
	assert_vector(p, EXC_GP);
}

static void v86_iret_and_pushf_with_iopl_3(void **state)
{
	struct pm *p = *state;
	/* PUSHF; PUSH CS; PUSH 7; IRET; (7:) INT */
	V86(p, 3, 0x9C, 0x0E, 0x6A, 0x06, 0xCF, 0xF4, 0xCD, VECTOR_TEST);
	assert_vector(p, VECTOR_TEST);
	assert_int_equal(pm_stack(p, 0), 8);
	assert_int_equal(pm_stack(p, 2), FL_1 | FL_VM | FL_IF | FL_IOPL);
	assert_int_equal(pm_stack(p, 3), 0x8000);
}

static void v86_handler_must_be_level_0(void **state)
{
	struct pm *p = *state;
	pm_idt(p, 0x50, CONFORMING, AT_TARGET, P_INT32 | DPL3);
	V86(p, 3, 0xCD, 0x50);
	assert_vector(p, EXC_GP);
	assert_int_equal(pm_stack(p, 0), CONFORMING);
	pm_idt(p, 0x50, CODE1, AT_TARGET, P_INT32 | DPL3);
	V86(p, 3, 0xCD, 0x50);
	assert_vector(p, EXC_GP);
	assert_int_equal(pm_stack(p, 0), CODE1 & ~3);
}

static void v86_has_no_lar(void **state)
{
	struct pm *p = *state;
	V86(p, 3, 0x0F, 0x02, 0xC0);
	assert_vector(p, EXC_UD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		PM_TEST(real_mode_int_pushes_and_clears),
		PM_TEST(real_mode_vector_beyond_ivt_is_gp),
		PM_TEST(interrupt_gate_clears_if_trap_gate_does_not),
		PM_TEST(software_interrupt_needs_the_gates_dpl),
		PM_TEST(into_follows_of),
		PM_TEST(inner_level_uses_the_tss_stack),
		PM_TEST(fault_frame_has_rf_and_error),
		PM_TEST(gate16_pushes_words),
		PM_TEST(bad_gates_fault_with_the_vector),
		PM_TEST(exception_in_delivery_sets_ext_and_doubles),
		PM_TEST(v86_round_trip),
		PM_TEST(v86_sensitive_instructions_need_iopl_3),
		PM_TEST(v86_iret_and_pushf_with_iopl_3),
		PM_TEST(v86_handler_must_be_level_0),
		PM_TEST(v86_has_no_lar),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
