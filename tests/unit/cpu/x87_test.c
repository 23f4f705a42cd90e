/* SPDX-License-Identifier: MIT */
/* x87 and MMX: what the differential test cannot see: #NM, #MF and FERR#, and the environment's
 * four layouts. */
#include "core_machine.h"

enum {
	FNINIT = 0xE3DB,
	CW_ALL_UNMASKED = 0x0340,
	CW_PRECISION_UNMASKED = 0x035F,
	SW_ES_B = 0x8080,
	SW_ZE = 4
};

#define MOD_ABS(reg)   (uint8_t)((reg) << 3 | 5)          /* ModRM: [disp32] */
#define DIVIDE_BY_ZERO 0xD9, 0xE8, 0xD9, 0xEE, 0xDE, 0xF9 /* FLD1, FLDZ, FDIVP */

static uint16_t sw(struct machine *m)
{
	return load_le16(m->s.fxsave + FX_SW);
}
static void unmask_all(struct machine *m)
{
	memset(m->s.fxsave, 0, sizeof m->s.fxsave);
	store_le16(m->s.fxsave + FX_CW, CW_ALL_UNMASKED);
	store_le32(m->s.fxsave + 24, 0x1F80);
}

static void escape_raises_nm_with_em_or_ts(void **state)
{
	struct machine *m = *state;

	m->s.cr0 |= CR0_EM;
	RUN(m, 0xD9, 0xE8);
	assert_exception(m, EXC_NM);
	machine_protected(m);
	m->s.cr0 |= CR0_TS;
	RUN(m, 0xDB, 0xE3); /* FNINIT too */
	assert_exception(m, EXC_NM);
}

static void fwait_raises_nm_only_with_mp_and_ts(void **state)
{
	struct machine *m = *state;

	m->s.cr0 |= CR0_TS;
	RUN(m, 0x9B);
	assert_ran(m, 1);
	machine_protected(m);
	m->s.cr0 |= CR0_EM | CR0_MP;
	RUN(m, 0x9B);
	assert_ran(m, 1);
	machine_protected(m);
	m->s.cr0 |= CR0_TS | CR0_MP;
	RUN(m, 0x9B);
	assert_exception(m, EXC_NM);
}

static void mmx_raises_ud_with_em_and_nm_with_ts(void **state)
{
	struct machine *m = *state;

	m->s.cr0 |= CR0_EM | CR0_TS;
	RUN(m, 0x0F, 0xEF, 0xC0);
	assert_exception(m, EXC_UD);
	machine_protected(m);
	m->s.cr0 |= CR0_TS;
	RUN(m, 0x0F, 0xEF, 0xC0);
	assert_exception(m, EXC_NM);
}

static void mf_comes_with_the_next_waiting_instruction(void **state)
{
	struct machine *m = *state;

	m->s.cr0 |= CR0_NE;
	unmask_all(m);
	RUN(m, DIVIDE_BY_ZERO, 0x90, 0xDF, 0xE0 /* FNSTSW AX */, 0xD9, 0xE8);
	assert_exception(m, EXC_MF);
	assert_int_equal(machine_stack(m, 0), AT_CODE + 9);
	assert_int_equal(m->s.gpr[R_EAX] & 0x80FF, SW_ES_B | SW_ZE);
	/* The divisor and dividend are still there: FDIVP did not pop. */
	assert_int_equal(sw(m) >> 11 & 7, 6);
}

static void mmx_instruction_raises_pending_mf(void **state)
{
	struct machine *m = *state;

	m->s.cr0 |= CR0_NE;
	unmask_all(m);
	RUN(m, DIVIDE_BY_ZERO, 0x0F, 0x77);
	assert_exception(m, EXC_MF);
}

static void fnclex_and_fninit_drop_the_exception(void **state)
{
	struct machine *m = *state;

	m->s.cr0 |= CR0_NE;
	unmask_all(m);
	RUN(m, DIVIDE_BY_ZERO, 0xDB, 0xE2, 0x9B);
	assert_ran(m, 9);
	assert_int_equal(sw(m) & 0x80FF, 0);
	unmask_all(m);
	machine_protected(m);
	m->s.cr0 |= CR0_NE;
	RUN(m, DIVIDE_BY_ZERO, 0xDB, 0xE3, 0x9B);
	assert_ran(m, 9);
	assert_int_equal(sw(m), 0);
}

static void fldcw_can_unmask_an_old_exception(void **state)
{
	struct machine *m = *state;

	m->s.cr0 |= CR0_NE;
	store_le16(m->ram + AT_DATA, CW_ALL_UNMASKED);
	RUN(m, 0xDB, 0xE3, DIVIDE_BY_ZERO, 0xD9, MOD_ABS(5), BYTES32(AT_DATA), 0x9B);
	assert_exception(m, EXC_MF);
	assert_int_equal(machine_stack(m, 0), AT_CODE + 14);
}

/* ---- CR0.NE = 0: FERR#, IGNNE# ---- */

static struct soft_cpu *ferr_cpu;
static unsigned ferr_calls;

static void on_ferr_ignore(void *opaque, unsigned index)
{
	ferr_calls++;
	soft_cpu_set_ignne(ferr_cpu, true);
}
static void on_ferr(void *opaque, unsigned index)
{
	ferr_calls++;
}

static void with_ferr(struct machine *m, void (*ferr)(void *, unsigned))
{
	struct soft_cpu_config config = {.cpus = 1,
					 .model = &m->model,
					 .mem = m->mem,
					 .ack = machine_ack,
					 .opaque = m,
					 .ferr = ferr};

	soft_cpu_free(m->cpu);
	m->cpu = ferr_cpu = test_cpu_new(&config);
	assert_non_null(m->cpu);
	ferr_calls = 0;
	unmask_all(m);
}

static void without_ne_ferr_is_signalled_and_ignne_lets_go_on(void **state)
{
	struct machine *m = *state;

	with_ferr(m, on_ferr_ignore);
	RUN(m, DIVIDE_BY_ZERO, 0x9B, 0xD9, 0xE8, 0xDB, 0xE2, 0x9B);
	assert_ran(m, 12);
	assert_int_equal(ferr_calls, 1);
}

/* Two constants too many: the second finds the exception of the first still pending. */
static void ignored_exceptions_stay_pending_over_slow_instructions(void **state)
{
	struct machine *m = *state;
	enum { FLD1 = 0xE8, FLDPI = 0xEB };

	with_ferr(m, on_ferr_ignore);
	RUN(m, 0xD9, FLD1, 0xD9, FLD1, 0xD9, FLD1, 0xD9, FLD1, 0xD9, FLD1, 0xD9, FLD1, 0xD9, FLD1,
	    0xD9, FLD1, 0xD9, FLDPI, 0xD9, FLDPI, 0xDF, 0xE0, 0xD9, MOD_ABS(3), BYTES32(AT_DATA));
	assert_ran(m, 28);
	assert_int_equal(ferr_calls, 1);
	assert_int_equal(m->s.gpr[R_EAX] & 0x80C1, 0x80C1);        /* B, ES, SF, IE */
	assert_int_equal(load_le32(m->ram + AT_DATA), 0x3F800000); /* its store has its own fate */
}

static void without_ne_the_cpu_waits_for_the_interrupt(void **state)
{
	struct machine *m = *state;
	const uint8_t code[] = {0xFB, DIVIDE_BY_ZERO, 0x9B};

	with_ferr(m, on_ferr);
	machine_code(m, code, sizeof code);
	machine_go(m, 1000);
	assert_int_equal(m->exit, SOFT_BUDGET);
	assert_int_equal(m->s.eip, AT_CODE + 7);
	assert_true(ferr_calls > 0);
	m->irq = 0x75;
	soft_cpu_set_intr(m->cpu, true);
	machine_go(m, 1000);
	assert_exception(m, 0x75);
	assert_int_equal(machine_stack(m, 0), AT_CODE + 7);
}

/* ---- environments ---- */

static void fnstenv_protected_32_and_16(void **state)
{
	struct machine *m = *state;
	const uint8_t *env = m->ram + AT_DATA;

	store_le32(m->ram + AT_DATA + 0x100, 0x3F800000);
	store_le16(m->ram + AT_DATA + 0x110, CW_PRECISION_UNMASKED);
	RUN(m, 0xDB, 0xE3, 0xD9, MOD_ABS(5), BYTES32(AT_DATA + 0x110), 0xD9, MOD_ABS(0),
	    BYTES32(AT_DATA + 0x100), 0xD9, MOD_ABS(6), BYTES32(AT_DATA), 0x66, 0xD9, MOD_ABS(6),
	    BYTES32(AT_DATA + 0x40));
	assert_int_equal(load_le32(env), 0xFFFF0000 | CW_PRECISION_UNMASKED);
	assert_int_equal(load_le32(env + 4), 0xFFFF3800);
	assert_int_equal(load_le32(env + 8), 0xFFFF3FFF);
	assert_int_equal(load_le32(env + 12), AT_CODE + 8);
	assert_int_equal(load_le32(env + 16), 0x0105u << 16 | SEL_CODE);
	assert_int_equal(load_le32(env + 20), AT_DATA + 0x100);
	assert_int_equal(load_le32(env + 24) & 0xFFFF, SEL_DATA);
	env += 0x40;
	assert_int_equal(load_le16(env), 0x037F);
	assert_int_equal(load_le16(env + 4), 0x3FFF);
	assert_int_equal(load_le16(env + 6), (AT_CODE + 8) & 0xFFFF);
	assert_int_equal(load_le16(env + 8), SEL_CODE);
	assert_int_equal(load_le16(env + 10), (AT_DATA + 0x100) & 0xFFFF);
	assert_int_equal(load_le16(env + 12), SEL_DATA);
}

/* As processors with CPUID.7:EBX.FDP_EXCPTN_ONLY. */
static void masked_exceptions_leave_operand_pointer_and_opcode(void **state)
{
	struct machine *m = *state;
	const uint8_t *env = m->ram + AT_DATA;

	RUN(m, 0xDB, 0xE3, 0xD9, MOD_ABS(0), BYTES32(AT_DATA + 0x100), 0xD9, MOD_ABS(6),
	    BYTES32(AT_DATA));
	assert_int_equal(load_le32(env + 12), AT_CODE + 2);
	assert_int_equal(load_le32(env + 16), SEL_CODE);
	assert_int_equal(load_le32(env + 20), 0);
	assert_int_equal(load_le32(env + 24) & 0xFFFF, 0);
}

static void fnstenv_real_mode_gives_linear_addresses(void **state)
{
	struct machine *m = *state;
	const uint8_t *env = m->ram + AT_DATA;

	machine_real(m);
	store_le16(m->ram + AT_DATA + 0x110, CW_PRECISION_UNMASKED);
	/* FNINIT; FLDCW [0x110]; FLD dword [0x100]; FNSTENV [0]; o32 FNSTENV [0x40] */
	RUN(m, 0xDB, 0xE3, 0xD9, 0x2E, 0x10, 0x01, 0xD9, 0x06, 0x00, 0x01, 0xD9, 0x36, 0x00, 0x00,
	    0x66, 0xD9, 0x36, 0x40, 0x00);
	assert_int_equal(load_le16(env + 6), (AT_CODE + 6) & 0xFFFF);
	assert_int_equal(load_le16(env + 8), (AT_CODE >> 16) << 12 | 0x106);
	assert_int_equal(load_le16(env + 10), (AT_DATA + 0x100) & 0xFFFF);
	assert_int_equal(load_le16(env + 12), (AT_DATA >> 16) << 12);
	env += 0x40;
	assert_int_equal(load_le32(env + 12) & 0xFFFF, (AT_CODE + 6) & 0xFFFF);
	assert_int_equal(load_le32(env + 16), (AT_CODE >> 16) << 12 | 0x106);
	assert_int_equal(load_le32(env + 20) & 0xFFFF, (AT_DATA + 0x100) & 0xFFFF);
	assert_int_equal(load_le32(env + 24), (AT_DATA >> 16) << 12);
}

static void fsave_frstor_keep_every_bit(void **state)
{
	struct machine *m = *state;
	uint8_t before[512];

	unmask_all(m);
	store_le16(m->s.fxsave + FX_CW, 0x037F);
	store_le16(m->s.fxsave + FX_SW, 5 << 11);
	m->s.fxsave[FX_TAGS] = 0xE7;
	for (unsigned n = 0; n < 8; n++)
		for (unsigned b = 0; b < 10; b++)
			m->s.fxsave[FX_ST + 16 * n + b] = (uint8_t)(n * 37 + b * 11 + 1);
	memcpy(before, m->s.fxsave, sizeof before);
	RUN(m, 0xDD, MOD_ABS(6), BYTES32(AT_DATA), 0xDB, 0xE3, 0xDD, MOD_ABS(4), BYTES32(AT_DATA));
	assert_ran(m, 14);
	assert_memory_equal(m->s.fxsave, before, FX_FOP);
	assert_memory_equal(m->s.fxsave + FX_ST, before + FX_ST, 128);
}

static void store_that_faults_changes_nothing(void **state)
{
	struct machine *m = *state;

	machine_paging(m);
	machine_set_pte(m, AT_DATA, AT_DATA);
	m->s.cr3 = AT_PAGE_DIR;
	RUN(m, 0xDB, 0xE3, 0xD9, 0xEB /* FLDPI */, 0xD9, MOD_ABS(3),
	    BYTES32(AT_DATA)); /* FSTP m32 is inexact */
	assert_exception(m, EXC_PF);
	assert_int_equal(sw(m) >> 11 & 7, 7);
	assert_int_equal(sw(m) & 0x3F, 0);
}

static void fisttp_needs_sse3(void **state)
{
	struct machine *m = *state;
	struct cpu_model old;
	struct soft_cpu_config config = {.cpus = 1, .model = &old, .mem = m->mem, .opaque = m};

	assert_int_equal(cpu_model_parse("pentium3", &old, NULL), 0);
	soft_cpu_free(m->cpu);
	m->cpu = test_cpu_new(&config);
	RUN(m, 0xDB, 0xE3, 0xD9, 0xE8, 0xDB, MOD_ABS(1), BYTES32(AT_DATA));
	assert_exception(m, EXC_UD);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(escape_raises_nm_with_em_or_ts),
		TEST(fwait_raises_nm_only_with_mp_and_ts),
		TEST(mmx_raises_ud_with_em_and_nm_with_ts),
		TEST(mf_comes_with_the_next_waiting_instruction),
		TEST(mmx_instruction_raises_pending_mf),
		TEST(fnclex_and_fninit_drop_the_exception),
		TEST(fldcw_can_unmask_an_old_exception),
		TEST(without_ne_ferr_is_signalled_and_ignne_lets_go_on),
		TEST(ignored_exceptions_stay_pending_over_slow_instructions),
		TEST(without_ne_the_cpu_waits_for_the_interrupt),
		TEST(fnstenv_protected_32_and_16),
		TEST(masked_exceptions_leave_operand_pointer_and_opcode),
		TEST(fnstenv_real_mode_gives_linear_addresses),
		TEST(fsave_frstor_keep_every_bit),
		TEST(store_that_faults_changes_nothing),
		TEST(fisttp_needs_sse3),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
