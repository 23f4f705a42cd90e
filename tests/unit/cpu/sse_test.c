/* SPDX-License-Identifier: MIT */
/* SSE and SSE2: what the differential test cannot see: control register bits, CPUID features, #XM
 * against #UD, alignment. */
#include "core_machine.h"

enum { MXCSR_ALL_MASKED = 0x1F80, MXCSR_NO_ZE_MASK = 0x1D80, FLAG_ZE = 4 };
enum { FXSAVE_WRITTEN = 288 };

#define MOD_ABS(reg) (uint8_t)((reg) << 3 | 5) /* ModRM: [disp32] */
#define ADDPS_0_1    0x0F, 0x58, 0xC1
#define DIVSS_0_1    0xF3, 0x0F, 0x5E, 0xC1

static void enable(struct machine *m)
{
	m->s.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
}
static void set_float(struct machine *m, unsigned reg, float v)
{
	memcpy(m->s.fxsave + FX_XMM + 16 * reg, &v, sizeof v);
}
static uint32_t mxcsr(struct machine *m)
{
	return load_le32(m->s.fxsave + FX_MXCSR);
}

static void ud_without_osfxsr_or_with_em(void **state)
{
	struct machine *m = *state;

	RUN(m, ADDPS_0_1);
	assert_exception(m, EXC_UD);
	machine_protected(m);
	enable(m);
	m->s.cr0 |= CR0_EM;
	RUN(m, ADDPS_0_1);
	assert_exception(m, EXC_UD);
}

static void nm_with_ts(void **state)
{
	struct machine *m = *state;

	enable(m);
	m->s.cr0 |= CR0_TS;
	RUN(m, ADDPS_0_1);
	assert_exception(m, EXC_NM);
}

static void fences_and_movnti_need_no_os_support(void **state)
{
	struct machine *m = *state;

	m->s.cr0 |= CR0_TS | CR0_EM;
	m->s.gpr[R_EAX] = 0x12345678;
	RUN(m, 0x0F, 0xAE, 0xE8, 0x0F, 0xAE, 0xF0, 0x0F, 0xAE, 0xF8, 0x0F, 0xC3, MOD_ABS(0),
	    BYTES32(AT_DATA));
	assert_ran(m, 16);
	assert_int_equal(load_le32(m->ram + AT_DATA), 0x12345678);
}

static void unmasked_exception_is_xm_with_osxmmexcpt(void **state)
{
	struct machine *m = *state;

	enable(m);
	set_float(m, 0, 1);
	set_float(m, 1, 0);
	store_le32(m->s.fxsave + FX_MXCSR, MXCSR_NO_ZE_MASK);
	RUN(m, DIVSS_0_1);
	assert_exception(m, EXC_XM);
	assert_int_equal(mxcsr(m), MXCSR_NO_ZE_MASK | FLAG_ZE);
	assert_int_equal(load_le32(m->s.fxsave + FX_XMM), 0x3F800000);
}

static void unmasked_exception_is_ud_without_osxmmexcpt(void **state)
{
	struct machine *m = *state;

	m->s.cr4 |= CR4_OSFXSR;
	set_float(m, 0, 1);
	set_float(m, 1, 0);
	store_le32(m->s.fxsave + FX_MXCSR, MXCSR_NO_ZE_MASK);
	RUN(m, DIVSS_0_1);
	assert_exception(m, EXC_UD);
}

static void masked_exception_sets_its_flag(void **state)
{
	struct machine *m = *state;

	enable(m);
	set_float(m, 0, 1);
	set_float(m, 1, 0);
	store_le32(m->s.fxsave + FX_MXCSR, MXCSR_ALL_MASKED);
	RUN(m, DIVSS_0_1);
	assert_ran(m, 4);
	assert_int_equal(mxcsr(m), MXCSR_ALL_MASKED | FLAG_ZE);
	assert_int_equal(load_le32(m->s.fxsave + FX_XMM), 0x7F800000);
}

static void misaligned_operand_is_gp(void **state)
{
	struct machine *m = *state;

	enable(m);
	RUN(m, 0x0F, 0x28, MOD_ABS(0), BYTES32(AT_DATA + 8)); /* MOVAPS */
	assert_exception(m, EXC_GP);
	machine_protected(m);
	enable(m);
	RUN(m, 0x0F, 0x10, MOD_ABS(0), BYTES32(AT_DATA + 8)); /* MOVUPS */
	assert_ran(m, 7);
}

static void alignment_is_of_the_linear_address(void **state)
{
	struct machine *m = *state;

	enable(m);
	m->s.seg[S_DS].base = 8;
	RUN(m, 0x0F, 0x28, MOD_ABS(0), BYTES32(AT_DATA + 8));
	assert_ran(m, 7);
}

static void ldmxcsr_reserved_bits_are_gp(void **state)
{
	struct machine *m = *state;

	enable(m);
	store_le32(m->ram + AT_DATA, 0x11F80);
	RUN(m, 0x0F, 0xAE, MOD_ABS(2), BYTES32(AT_DATA));
	assert_exception(m, EXC_GP);
	assert_int_equal(mxcsr(m), MXCSR_ALL_MASKED);
}

static void fxsave_leaves_the_end_of_its_area_alone(void **state)
{
	struct machine *m = *state;

	memset(m->ram + AT_DATA, 0xA5, 512);
	RUN(m, 0xDB, 0xE3, 0x0F, 0xAE, MOD_ABS(0), BYTES32(AT_DATA));
	assert_ran(m, 9);
	assert_int_equal(load_le16(m->ram + AT_DATA), 0x037F);
	for (unsigned n = FXSAVE_WRITTEN; n < 512; n++)
		assert_int_equal(m->ram[AT_DATA + n], 0xA5);
}

static void fxsave_and_fxrstor_faults(void **state)
{
	struct machine *m = *state;

	RUN(m, 0x0F, 0xAE, MOD_ABS(0), BYTES32(AT_DATA + 8));
	assert_exception(m, EXC_GP);
	machine_protected(m);
	m->s.cr0 |= CR0_EM;
	RUN(m, 0x0F, 0xAE, MOD_ABS(0), BYTES32(AT_DATA));
	assert_exception(m, EXC_NM);
	machine_protected(m);
	memset(m->ram + AT_DATA, 0, 512);
	store_le32(m->ram + AT_DATA + FX_MXCSR, 0xFFFF0000);
	RUN(m, 0x0F, 0xAE, MOD_ABS(1), BYTES32(AT_DATA));
	assert_exception(m, EXC_GP);
}

static void features_decide_what_exists(void **state)
{
	struct machine *m = *state;
	struct cpu_model old;
	struct soft_cpu_config config = {.cpus = 1, .model = &old, .mem = m->mem, .opaque = m};

	assert_int_equal(cpu_model_parse("pentium3", &old, NULL), 0); /* SSE, no SSE2 */
	soft_cpu_free(m->cpu);
	m->cpu = test_cpu_new(&config);
	enable(m);
	RUN(m, ADDPS_0_1);
	assert_ran(m, 3);
	machine_protected(m);
	enable(m);
	RUN(m, 0x66, ADDPS_0_1); /* ADDPD */
	assert_exception(m, EXC_UD);
	machine_protected(m);
	RUN(m, 0x0F, 0xD4, 0xC1); /* PADDQ mm */
	assert_exception(m, EXC_UD);
}

/* The features after SSE2, which a CPU has where its host has them. */
static void later_features_decide_too(void **state)
{
	struct machine *m = *state;
	static const struct {
		const char *without;
		uint8_t code[8];
	} rows[] = {
		{"max,-pni", {0xF2, 0x0F, 0x12, 0xC1, 0x90, 0x90, 0x90}},       /* MOVDDUP */
		{"max,-ssse3", {0x66, 0x0F, 0x38, 0x00, 0xC1, 0x90, 0x90}},     /* PSHUFB */
		{"max,-ssse3", {0x0F, 0x38, 0x1C, 0xC1, 0x90, 0x90, 0x90}},     /* PABSB mm */
		{"max,-sse4.1", {0x66, 0x0F, 0x38, 0x17, 0xC1, 0x90, 0x90}},    /* PTEST */
		{"max,-sse4.2", {0x66, 0x0F, 0x38, 0x37, 0xC1, 0x90, 0x90}},    /* PCMPGTQ */
		{"max,-sse4.2", {0xF2, 0x0F, 0x38, 0xF1, 0xC1, 0x90, 0x90}},    /* CRC32 */
		{"max,-aes", {0x66, 0x0F, 0x38, 0xDC, 0xC1, 0x90, 0x90}},       /* AESENC */
		{"max,-pclmulqdq", {0x66, 0x0F, 0x3A, 0x44, 0xC1, 0x11, 0x90}}, /* PCLMULQDQ */
	};

	bool host_has_all = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("aes") &&
			    __builtin_cpu_supports("pclmul");

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		struct cpu_model model;
		struct soft_cpu_config config = {
			.cpus = 1, .model = &model, .mem = m->mem, .opaque = m};

		for (unsigned with = 0; with < 2; with++) {
			assert_int_equal(
				cpu_model_parse(with ? "max" : rows[n].without, &model, NULL), 0);
			soft_cpu_free(m->cpu);
			m->cpu = test_cpu_new(&config);
			machine_protected(m);
			enable(m);
			machine_code(m, rows[n].code, 7);
			machine_go(m, 100);
			if (!with)
				assert_exception(m, EXC_UD);
			else if (host_has_all)
				assert_ran(m, 7);
		}
	}
}

static void crc32_needs_no_os_support(void **state)
{
	struct machine *m = *state;

	if (!__builtin_cpu_supports("sse4.2"))
		skip();
	m->s.cr0 |= CR0_TS | CR0_EM;
	m->s.gpr[R_EAX] = 0xFFFFFFFF;
	memcpy(m->ram + AT_DATA, "123456789", 9);
	/* CRC32 EAX, dword, dword, byte: the check value of CRC-32C is E3069283. */
	RUN(m, 0xF2, 0x0F, 0x38, 0xF1, MOD_ABS(0), BYTES32(AT_DATA), 0x66, 0xF2, 0x0F, 0x38, 0xF1,
	    MOD_ABS(0), BYTES32(AT_DATA + 4), 0x66, 0xF2, 0x0F, 0x38, 0xF1, MOD_ABS(0),
	    BYTES32(AT_DATA + 6), 0xF2, 0x0F, 0x38, 0xF0, MOD_ABS(0), BYTES32(AT_DATA + 8));
	assert_int_equal(m->s.gpr[R_EAX], (uint32_t)~0xE3069283);
}

static void string_comparison_answers_in_ecx_and_flags(void **state)
{
	struct machine *m = *state;

	if (!__builtin_cpu_supports("sse4.2"))
		skip();
	enable(m);
	memcpy(m->s.fxsave + FX_XMM, "xyz", 4);
	memcpy(m->ram + AT_DATA + 3, "hello, zed", 11);
	/* PCMPISTRI XMM0, [misaligned], any of these bytes: 'z' is at 7. */
	RUN(m, 0x66, 0x0F, 0x3A, 0x63, MOD_ABS(0), BYTES32(AT_DATA + 3), 0x00);
	assert_int_equal(m->s.gpr[R_ECX], 7);
	assert_int_equal(m->s.eflags & FL_ARITH, FL_CF | FL_ZF | FL_SF);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(ud_without_osfxsr_or_with_em),
		TEST(nm_with_ts),
		TEST(fences_and_movnti_need_no_os_support),
		TEST(unmasked_exception_is_xm_with_osxmmexcpt),
		TEST(unmasked_exception_is_ud_without_osxmmexcpt),
		TEST(masked_exception_sets_its_flag),
		TEST(misaligned_operand_is_gp),
		TEST(alignment_is_of_the_linear_address),
		TEST(ldmxcsr_reserved_bits_are_gp),
		TEST(fxsave_leaves_the_end_of_its_area_alone),
		TEST(fxsave_and_fxrstor_faults),
		TEST(features_decide_what_exists),
		TEST(later_features_decide_too),
		TEST(crc32_needs_no_os_support),
		TEST(string_comparison_answers_in_ecx_and_flags),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
