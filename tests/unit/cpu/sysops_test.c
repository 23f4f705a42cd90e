/* SPDX-License-Identifier: MIT */
/* Flags, control and debug registers, MSRs, CPUID, SYSENTER. */
#include "tests/unit/cpu/pm_machine.h"

/* PUSH value; POPF; PUSHF; POP EAX; INT VECTOR_TEST: what POPF let through. */
static uint32_t popf(struct pm *p, unsigned cpl, uint32_t flags, uint32_t value)
{
	uint8_t code[] = {0x68, D(value), 0x9D, 0x9C, 0x58, 0xCD, VECTOR_TEST};
	pm_level(p, cpl);
	p->s.eflags = FL_1 | flags;
	pm_run_bytes(p, code, sizeof(code));
	assert_vector(p, VECTOR_TEST);
	return p->s.gpr[R_EAX];
}

static void popf_obeys_cpl_and_iopl(void **state)
{
	struct pm *p = *state;
	const uint32_t all = ~(uint32_t)FL_TF;
	const uint32_t plain = FL_1 | FL_ARITH | FL_DF | FL_NT | FL_AC | FL_ID;
	assert_int_equal(popf(p, 0, 0, all), plain | FL_IOPL | FL_IF);
	assert_int_equal(popf(p, 3, 0, all), plain);
	assert_int_equal(popf(p, 3, FL_IF, 0), FL_1 | FL_IF);
	assert_int_equal(popf(p, 3, FL_IOPL | FL_IF, 0), FL_1 | FL_IOPL);
	assert_int_equal(popf(p, 3, FL_IOPL, all), plain | FL_IF | FL_IOPL);
	assert_int_equal(popf(p, 1, 1 << FL_IOPL_SHIFT, all), plain | FL_IF | 1 << FL_IOPL_SHIFT);
}

static void cli_and_sti_need_iopl(void **state)
{
	struct pm *p = *state;
	pm_level(p, 3);
	pm_run(p, 0xFA);
	assert_fault(p, EXC_GP, 0, 0);
	pm_level(p, 3);
	pm_run(p, 0xFB);
	assert_fault(p, EXC_GP, 0, 0);
	pm_level(p, 3);
	p->s.eflags = FL_1 | FL_IOPL;
	pm_run(p, 0xFB, 0xCD, VECTOR_TEST);
	assert_vector(p, VECTOR_TEST);
	assert_true(pm_stack(p, 2) & FL_IF);
}

static void mov_cr0_rejects_impossible_modes(void **state)
{
	struct pm *p = *state;
	pm_run(p, 0xB8, D(CR0_PG | CR0_ET), 0x0F, 0x22, 0xC0);
	assert_fault(p, EXC_GP, 0, 5);
	pm_level(p, 0);
	pm_run(p, 0xB8, D(CR0_PE | CR0_NW), 0x0F, 0x22, 0xC0);
	assert_fault(p, EXC_GP, 0, 5);
	pm_level(p, 3);
	pm_run(p, 0x0F, 0x20, 0xC0);
	assert_fault(p, EXC_GP, 0, 0);
	pm_level(p, 0);
	pm_run(p, 0xB8, D(CR0_PE | CR0_TS), 0x0F, 0x22, 0xC0, 0x0F, 0x20, 0xC1, 0x0F, 0x06, 0xF4);
	assert_int_equal(p->s.gpr[R_ECX], CR0_PE | CR0_TS | CR0_ET); /* ET is always one */
	assert_int_equal(p->s.cr0, CR0_PE | CR0_ET);                 /* after CLTS */
}

static void mov_cr_knows_0_2_3_4(void **state)
{
	struct pm *p = *state;
	pm_run(p, 0x0F, 0x20, 0xC8); /* CR1 */
	assert_vector(p, EXC_UD);
	pm_level(p, 0);
	pm_run(p, 0xB8, D(0x12345678), 0x0F, 0x22, 0xD0, 0x0F, 0x20, 0xD1, 0xF4); /* CR2 */
	assert_int_equal(p->s.gpr[R_ECX], 0x12345678);
	pm_level(p, 0);
	pm_run(p, 0xB8, D(CR4_VME), 0x0F, 0x22, 0xE0); /* not in this model's CPUID */
	assert_fault(p, EXC_GP, 0, 5);
	pm_level(p, 0);
	pm_run(p, 0xB8, D(CR4_PAE | CR4_PSE | CR4_PGE | CR4_DE | CR4_TSD), 0x0F, 0x22, 0xE0, 0xF4);
	assert_int_equal(p->s.cr4, CR4_PAE | CR4_PSE | CR4_PGE | CR4_DE | CR4_TSD);
}

static void lmsw_sets_but_never_clears_pe(void **state)
{
	struct pm *p = *state;
	pm_run(p, 0x66, 0xB8, W(0x000E), 0x0F, 0x01, 0xF0, 0x0F, 0x01, 0xE1,
	       0xF4); /* LMSW AX; SMSW ECX */
	assert_int_equal(p->s.cr0, CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE);
	assert_int_equal(p->s.gpr[R_ECX], p->s.cr0);
}

static void table_registers(void **state)
{
	struct pm *p = *state;
	store_le16(p->ram + AT_DATA, 0x1234);
	store_le32(p->ram + AT_DATA + 2, 0xAB00F000);
	/* LGDT [AT_DATA]; SGDT [AT_DATA+8]; 16-bit LIDT [AT_DATA]; HLT */
	pm_run(p, 0x0F, 0x01, 0x15, D(AT_DATA), 0x0F, 0x01, 0x05, D(AT_DATA + 8), 0x66, 0x0F, 0x01,
	       0x1D, D(AT_DATA), 0xF4);
	assert_int_equal(p->s.gdt.base, 0xAB00F000);
	assert_int_equal(p->s.gdt.limit, 0x1234);
	assert_memory_equal(p->ram + AT_DATA, p->ram + AT_DATA + 8, 6);
	assert_int_equal(p->s.idt.base, 0x0000F000);
	pm_level(p, 3);
	pm_run(p, 0x0F, 0x01, 0x15, D(AT_DATA));
	assert_fault(p, EXC_GP, 0, 0);
	pm_level(p, 0);
	pm_run(p, 0x0F, 0x01, 0xD0); /* LGDT EAX */
	assert_vector(p, EXC_UD);
}

static void debug_registers(void **state)
{
	struct pm *p = *state;
	/* DR4 is DR6 without CR4.DE. */
	pm_run(p, 0xB8, D(0xFFFFFFFF), 0x0F, 0x23, 0xE0, 0x0F, 0x21, 0xF1, 0xF4);
	assert_int_equal(p->s.gpr[R_ECX], 0xFFFFEFFF);
	pm_level(p, 0);
	p->s.cr4 = CR4_DE;
	pm_run(p, 0x0F, 0x23, 0xE0);
	assert_vector(p, EXC_UD);
	pm_level(p, 0);
	p->s.dr[7] = 0x2400; /* GD */
	pm_run(p, 0x90, 0x0F, 0x21, 0xC0);
	assert_vector(p, EXC_DB);
	assert_int_equal(pm_stack(p, 0), AT_CODE + 1);
	assert_true(p->s.dr[6] & 0x2000);
	assert_false(p->s.dr[7] & 0x2000);
}

static void rdmsr_unknown_is_gp(void **state)
{
	struct pm *p = *state;
	pm_run(p, 0xB9, D(0x12345), 0x0F, 0x32);
	assert_fault(p, EXC_GP, 0, 5);
	pm_level(p, 3);
	pm_run(p, 0xB9, D(0x10), 0x0F, 0x32);
	assert_fault(p, EXC_GP, 0, 5);
}

static void wrmsr_checks_reserved_bits(void **state)
{
	static const struct {
		uint32_t msr, eax, edx;
		bool ok;
	} cases[] = {
		{0x277, 0x00070406, 0x00070406, true},
		{0x277, 0x00070403, 0x00070406, false}, /* memory type 3 */
		{0xC0000080, 0x800, 0, true},
		{0xC0000080, 0x801, 0, false}, /* no SYSCALL */
		{0x2FF, 0xC06, 0, true},
		{0x2FF, 0x1C06, 0, false},
		{0x200, 0xF0000006, 0xF, true},
		{0x200, 0xF0000006, 0x10, false}, /* beyond 36 bits */
		{0x201, 0xF0000800, 0xF, true},
		{0x201, 0xF0000806, 0xF, false},
		{0x250, 0x06060606, 0x06060606, true},
		{0x250, 0x06060602, 0x06060606, false},
		{0xFE, 0x508, 0, false},
		{0x1B, 0xFEE00800, 0, true},
		{0x1B, 0xFEE00801, 0, false},
		{0x174, 0x1234, 0, true},
		{0x1A0, 1, 0, true},
	};
	struct pm *p = *state;
	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		uint8_t code[] = {0xB9, D(cases[n].msr),
				  0xB8, D(cases[n].eax),
				  0xBA, D(cases[n].edx),
				  0x0F, 0x30,
				  0x31, 0xC0,
				  0x31, 0xD2,
				  0x0F, 0x32,
				  0xF4};
		pm_level(p, 0);
		pm_run_bytes(p, code, sizeof(code));
		if (!cases[n].ok) {
			assert_fault(p, EXC_GP, 0, 15);
			continue;
		}
		assert_int_equal(p->s.eip, AT_CODE + sizeof(code));
		/* The flag of the boot processor cannot be written. */
		uint32_t forced = cases[n].msr == 0x1B ? 0x100 : 0;
		assert_int_equal(p->s.gpr[R_EAX], cases[n].eax | forced);
		assert_int_equal(p->s.gpr[R_EDX], cases[n].edx);
	}
}

static void rdtsc_obeys_tsd(void **state)
{
	struct pm *p = *state;
	pm_level(p, 3);
	p->s.cr4 = CR4_TSD;
	pm_run(p, 0x0F, 0x31);
	assert_fault(p, EXC_GP, 0, 0);
	pm_level(p, 0);
	p->s.cr4 = CR4_TSD;
	p->s.tsc = UINT64_C(0x500000000);
	pm_run(p, 0x0F, 0x31, 0xF4);
	assert_int_equal(p->s.gpr[R_EDX], 5);
}

static void cpuid_answers(void **state)
{
	struct pm *p = *state;
	p->s.gpr[R_EAX] = 1;
	pm_run(p, 0x0F, 0xA2, 0xF4);
	assert_int_equal(p->s.gpr[R_EAX], cpu_model_signature(&p->model));
	assert_true(p->s.gpr[R_EDX] & CPUID_APIC);
	/* Switched off globally, the local APIC is gone from CPUID. */
	pm_level(p, 0);
	p->s.apic_base = 0xFEE00000;
	p->s.gpr[R_EAX] = 1;
	pm_run(p, 0x0F, 0xA2, 0xF4);
	assert_false(p->s.gpr[R_EDX] & CPUID_APIC);
}

static void sysenter_and_sysexit(void **state)
{
	struct pm *p = *state;
	pm_level(p, 3);
	p->s.eflags = FL_1 | FL_IF;
	p->s.sysenter_cs = CODE0;
	p->s.sysenter_esp = STACK0;
	p->s.sysenter_eip = AT_TARGET;
	pm_run(p, 0x0F, 0x34);
	assert_int_equal(p->s.eip, AT_TARGET + 1);
	assert_int_equal(p->s.seg[S_CS].selector, CODE0);
	assert_int_equal(p->s.seg[S_SS].selector, DATA0);
	assert_int_equal(p->s.gpr[R_ESP], STACK0);
	assert_false(p->s.eflags & FL_IF);
	pm_level(p, 0);
	p->s.sysenter_cs = CODE0;
	p->s.gpr[R_ECX] = STACK3;
	p->s.gpr[R_EDX] = AT_DATA;
	p->ram[AT_DATA] = 0xCD;
	p->ram[AT_DATA + 1] = VECTOR_TEST;
	pm_run(p, 0x0F, 0x35);
	assert_vector(p, VECTOR_TEST);
	assert_int_equal(pm_stack(p, 0), AT_DATA + 2);
	assert_int_equal(pm_stack(p, 1), CODE3);
	assert_int_equal(pm_stack(p, 3), STACK3);
	assert_int_equal(pm_stack(p, 4), DATA3);
	pm_level(p, 3);
	p->s.sysenter_cs = 3;
	pm_run(p, 0x0F, 0x34);
	assert_fault(p, EXC_GP, 0, 0);
	pm_level(p, 3);
	p->s.sysenter_cs = CODE0;
	pm_run(p, 0x0F, 0x35);
	assert_fault(p, EXC_GP, 0, 0);
}

static void privileged_instructions_fault_at_level_3(void **state)
{
	static const uint8_t codes[][3] = {{0xF4},
					   {0x0F, 0x06},
					   {0x0F, 0x08},
					   {0x0F, 0x09},
					   {0x0F, 0x01, 0xF0},
					   {0x0F, 0x01, 0x38},
					   {0x0F, 0x22, 0xC0},
					   {0x0F, 0x23, 0xC0},
					   {0x0F, 0x30}};
	struct pm *p = *state;
	for (unsigned n = 0; n < ARRAY_SIZE(codes); n++) {
		pm_level(p, 3);
		pm_run_bytes(p, codes[n], 3);
		assert_fault(p, EXC_GP, 0, 0);
	}
}

static void rsm_outside_smm_is_undefined(void **state)
{
	struct pm *p = *state;
	pm_run(p, 0x0F, 0xAA);
	assert_vector(p, EXC_UD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		PM_TEST(popf_obeys_cpl_and_iopl),
		PM_TEST(cli_and_sti_need_iopl),
		PM_TEST(mov_cr0_rejects_impossible_modes),
		PM_TEST(mov_cr_knows_0_2_3_4),
		PM_TEST(lmsw_sets_but_never_clears_pe),
		PM_TEST(table_registers),
		PM_TEST(debug_registers),
		PM_TEST(rdmsr_unknown_is_gp),
		PM_TEST(wrmsr_checks_reserved_bits),
		PM_TEST(rdtsc_obeys_tsd),
		PM_TEST(cpuid_answers),
		PM_TEST(sysenter_and_sysexit),
		PM_TEST(privileged_instructions_fault_at_level_3),
		PM_TEST(rsm_outside_smm_is_undefined),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
