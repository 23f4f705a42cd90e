/* SPDX-License-Identifier: MIT */
/*
 * Corners of the system architecture: what holds off interrupts and debug traps, instructions that
 * a CPU model does not have, paging's accessed and dirty bits, accesses that wrap or straddle.
 */
#include "tests/unit/cpu/pm_machine.h"

enum { DR6_BS = 1 << 14 };

/* ---- Shadows ---- */

static void sti_does_not_hold_off_single_step(void **state)
{
	struct pm *p = *state;
	p->s.eflags = FL_1 | FL_TF;
	pm_run(p, 0xFB, 0x90, 0x90);
	assert_vector(p, EXC_DB);
	assert_int_equal(pm_stack(p, 0), AT_CODE + 1);
	assert_int_equal(pm_stack(p, 2), FL_1 | FL_TF | FL_IF);
	assert_true(p->s.dr[6] & DR6_BS);
}

static void mov_ss_holds_off_single_step(void **state)
{
	struct pm *p = *state;
	p->s.eflags = FL_1 | FL_TF;
	p->s.gpr[R_EAX] = DATA0;
	pm_run(p, 0x8E, 0xD0, 0x90, 0x90);
	assert_vector(p, EXC_DB);
	assert_int_equal(pm_stack(p, 0), AT_CODE + 3);
}

static void sti_with_interrupts_enabled_has_no_shadow(void **state)
{
	struct pm *p = *state;
	p->s.eflags = FL_1 | FL_IF;
	pm_run(p, 0xFB, 0xF4);
	assert_false(p->s.interrupt_shadow);
}

/* ---- Features ---- */

/* Each of these is #UD on that model. */
static void expect_undefined(void **state, const char *model, const uint8_t (*codes)[4], size_t n)
{
	pm_teardown(state);
	assert_int_equal(pm_setup_model(state, model), 0);
	struct pm *p = *state;
	for (size_t k = 0; k < n; k++) {
		pm_level(p, 0);
		p->s.gpr[R_EAX] = AT_DATA;
		p->s.fxsave[4] = 0;
		pm_run_bytes(p, codes[k], 4);
		if (p->s.eip != AT_HANDLER + 16 * EXC_UD + 1)
			print_error("%s: %02x %02x %02x\n", model, codes[k][0], codes[k][1],
				    codes[k][2]);
		assert_vector(p, EXC_UD);
		assert_int_equal(pm_stack(p, 0), AT_CODE);
	}
}

static void a_486_has_no_later_instructions(void **state)
{
	static const uint8_t codes[][4] = {
		{0x0F, 0x31},             /* RDTSC */
		{0x0F, 0x32},             /* RDMSR */
		{0x0F, 0x30},             /* WRMSR */
		{0x0F, 0x33},             /* RDPMC */
		{0x0F, 0xC7, 0x08},       /* CMPXCHG8B [eax] */
		{0x0F, 0x40, 0xC3},       /* CMOVO */
		{0xDA, 0xC0},             /* FCMOVB */
		{0xDB, 0xF0},             /* FCOMI */
		{0xDF, 0xE8},             /* FUCOMIP */
		{0x0F, 0x77},             /* EMMS */
		{0x0F, 0x6F, 0xC1},       /* MOVQ */
		{0x0F, 0xAE, 0x00},       /* FXSAVE [eax] */
		{0x0F, 0x34},             /* SYSENTER */
		{0x0F, 0x58, 0xC1},       /* ADDPS */
		{0x66, 0x0F, 0x58, 0xC1}, /* ADDPD */
		{0x0F, 0xAE, 0xF8},       /* SFENCE */
		{0xF3, 0x0F, 0xB8, 0xC0}, /* POPCNT */
	};
	expect_undefined(state, "486", codes, ARRAY_SIZE(codes));
}

static void a_pentium3_has_no_sse2(void **state)
{
	static const uint8_t codes[][4] = {
		{0x66, 0x0F, 0x58, 0xC1}, /* ADDPD */
		{0x66, 0x0F, 0xEF, 0xC0}, /* PXOR xmm */
		{0x0F, 0xD4, 0xC1},       /* PADDQ mm */
		{0x0F, 0xC3, 0x00},       /* MOVNTI [eax] */
		{0x0F, 0xAE, 0xE8},       /* LFENCE */
		{0x0F, 0xAE, 0x38},       /* CLFLUSH [eax] */
	};
	expect_undefined(state, "pentium3", codes, ARRAY_SIZE(codes));
}

static void cr4_bits_follow_the_features(void **state)
{
	pm_teardown(state);
	assert_int_equal(pm_setup_model(state, "486"), 0);
	struct pm *p = *state;
	/* mov eax, CR4_PAE; mov cr4, eax */
	pm_run(p, 0xB8, D(CR4_PAE), 0x0F, 0x22, 0xE0);
	assert_fault(p, EXC_GP, 0, 5);
	pm_level(p, 0);
	pm_run(p, 0xB8, D(CR4_PSE), 0x0F, 0x22, 0xE0, 0xF4);
	assert_int_equal(p->s.cr4, CR4_PSE);
}

/* ---- Stack and addresses ---- */

/* A 16-bit stack in 32-bit code: SP wraps, the upper half of ESP stays. */
static void stack16_wraps_and_keeps_the_upper_half(void **state)
{
	struct pm *p = *state;
	p->s.seg[S_SS].attr &= (uint16_t)~SEG_DB;
	p->s.seg[S_SS].base = STACK0;
	p->s.gpr[R_ESP] = 0x12340002;
	p->s.gpr[R_EAX] = 0xAABBCCDD;
	p->s.seg[S_SS].limit = 0xFFFF;
	pm_run(p, 0x66, 0x50, 0x66, 0x50, 0xF4); /* push ax; push ax */
	assert_int_equal(p->s.gpr[R_ESP], 0x1234FFFE);
	assert_int_equal(pm_ld16(p, STACK0), 0xCCDD);
	assert_int_equal(pm_ld16(p, STACK0 + 0xFFFE), 0xCCDD);
}

/* A dword that would wrap around the end of a 64 KiB stack is #SS(0). That is delivered to the same
 * stack here, so look at a level 3 program. */
static void push_across_the_end_of_the_stack_faults(void **state)
{
	struct pm *p = *state;
	pm_level(p, 3);
	p->s.seg[S_SS].attr &= (uint16_t)~SEG_DB;
	p->s.seg[S_SS].base = STACK3;
	p->s.seg[S_SS].limit = 0xFFFF;
	p->s.gpr[R_ESP] = 2;
	pm_run(p, 0x50);
	assert_fault(p, EXC_SS, 0, 0);
}

static void leave_on_a_16_bit_stack_uses_bp(void **state)
{
	struct pm *p = *state;
	p->s.seg[S_SS].attr &= (uint16_t)~SEG_DB;
	p->s.seg[S_SS].base = STACK3;
	p->s.gpr[R_ESP] = 0x55550100;
	p->s.gpr[R_EBP] = 0x77770200;
	store_le32(p->ram + STACK3 + 0x200, 0xCAFEBABE);
	pm_run(p, 0xC9, 0xF4);
	assert_int_equal(p->s.gpr[R_ESP], 0x55550204);
	assert_int_equal(p->s.gpr[R_EBP], 0xCAFEBABE);
}

/* ---- Paging ---- */

enum { DIRECTORY = 0x70000, TABLE = 0x71000, P = 1, WR = 2, US = 4, A = 0x20, DIRTY = 0x40 };

static void paging(struct pm *p)
{
	for (unsigned n = 0; n < RAM_SIZE >> 12; n++)
		store_le32(p->ram + TABLE + 4 * n, n << 12 | P | WR | US);
	store_le32(p->ram + DIRECTORY, TABLE | P | WR | US);
	p->s.cr3 = DIRECTORY;
	p->s.cr0 |= CR0_PG | CR0_WP;
}

static uint32_t pte(struct pm *p, uint32_t linear)
{
	return pm_ld32(p, TABLE + 4 * (linear >> 12)) & 0xFFF;
}

static void reading_marks_accessed_writing_marks_dirty(void **state)
{
	struct pm *p = *state;
	paging(p);
	pm_run(p, 0xA1, D(AT_DATA), 0xF4); /* mov eax, [data] */
	assert_int_equal(pte(p, AT_DATA), P | WR | US | A);
	assert_int_equal(pm_ld32(p, DIRECTORY) & 0xFFF, P | WR | US | A);
	pm_level(p, 0);
	paging(p);
	pm_run(p, 0xA1, D(AT_DATA), 0xA3, D(AT_DATA), 0xF4);
	assert_int_equal(pte(p, AT_DATA), P | WR | US | A | DIRTY);
}

/* A write that faults on its second page stores no byte on its first. */
static void write_across_pages_is_all_or_nothing(void **state)
{
	struct pm *p = *state;
	paging(p);
	store_le32(p->ram + TABLE + 4 * ((AT_DATA >> 12) + 1), 0);
	store_le32(p->ram + AT_DATA + 0xFFC, 0x11111111);
	pm_run(p, 0xC7, 0x05, D(AT_DATA + 0xFFE), D(0x22222222)); /* mov dword [..], */
	assert_vector(p, EXC_PF);
	assert_int_equal(pm_stack(p, 0), 2);
	assert_int_equal(p->s.cr2, AT_DATA + 0x1000);
	assert_int_equal(pm_ld32(p, AT_DATA + 0xFFC), 0x11111111);
}

/* XCHG, ADD and CMPXCHG on a read-only page fault as writes, whatever they would store. */
static void read_modify_write_faults_as_a_write(void **state)
{
	static const uint8_t codes[][8] = {
		{0x87, 0x05, D(AT_DATA)},       /* xchg */
		{0x01, 0x05, D(AT_DATA)},       /* add */
		{0x0F, 0xB1, 0x0D, D(AT_DATA)}, /* cmpxchg */
		{0x0F, 0xC7, 0x0D, D(AT_DATA)}, /* cmpxchg8b */
		{0x0F, 0xBA, 0x2D, D(AT_DATA)}, /* bts */
	};
	struct pm *p = *state;
	for (unsigned n = 0; n < ARRAY_SIZE(codes); n++) {
		pm_level(p, 0);
		paging(p);
		store_le32(p->ram + TABLE + 4 * (AT_DATA >> 12), AT_DATA | P | US);
		p->s.gpr[R_EAX] = 0x12345678; /* not equal: CMPXCHG writes back what it read */
		pm_run_bytes(p, codes[n], sizeof(codes[n]));
		assert_vector(p, EXC_PF);
		assert_int_equal(pm_stack(p, 0), 3);
		assert_int_equal(p->s.gpr[R_EAX], 0x12345678);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		PM_TEST(sti_does_not_hold_off_single_step),
		PM_TEST(mov_ss_holds_off_single_step),
		PM_TEST(sti_with_interrupts_enabled_has_no_shadow),
		PM_TEST(a_486_has_no_later_instructions),
		PM_TEST(a_pentium3_has_no_sse2),
		PM_TEST(cr4_bits_follow_the_features),
		PM_TEST(stack16_wraps_and_keeps_the_upper_half),
		PM_TEST(push_across_the_end_of_the_stack_faults),
		PM_TEST(leave_on_a_16_bit_stack_uses_bp),
		PM_TEST(reading_marks_accessed_writing_marks_dirty),
		PM_TEST(write_across_pages_is_all_or_nothing),
		PM_TEST(read_modify_write_faults_as_a_write),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
