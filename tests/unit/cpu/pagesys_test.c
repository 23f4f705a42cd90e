/* SPDX-License-Identifier: MIT */
/* Paging under the system's own accesses: descriptor tables, TSSs and inner stacks that fault. */
#include "tests/unit/cpu/pm_machine.h"

enum {
	AT_PD = 0x70000,
	AT_PT = 0x71000,
	AT_PD_B = 0x72000, /* a second address space: AT_DATA shows AT_OTHER */
	AT_PT_B = 0x73000,
	AT_OTHER = 0x44000,
	PTE_P = 1,
	PTE_W = 2,
	PTE_U = 4,
	ALL = PTE_P | PTE_W | PTE_U,
	TASK_EIP = 0x20,
	TASK_ESP = 0x38,
};

static void set_pte(struct pm *p, uint32_t table, uint32_t linear, uint32_t to, unsigned bits)
{
	store_le32(p->ram + table + 4 * (linear >> 12 & 0x3FF), to | bits);
}

/* One-to-one for all of RAM, everything allowed. */
static void make_tables(struct pm *p, uint32_t pd, uint32_t pt)
{
	store_le32(p->ram + pd, pt | ALL);
	for (uint32_t at = 0; at < RAM_SIZE; at += 0x1000)
		set_pte(p, pt, at, at, ALL);
}

static void paged(struct pm *p, unsigned cpl)
{
	make_tables(p, AT_PD, AT_PT);
	pm_level(p, cpl);
	p->s.cr3 = AT_PD;
	p->s.cr0 |= CR0_PG | CR0_WP;
}

/* Task B answers `vector`, so that the faulting state can be read from TSS A. */
static void catch_in_task_b(struct pm *p, unsigned vector)
{
	uint8_t *t = p->ram + AT_TSS_B;
	memset(t, 0, 0x68);
	store_le32(t + 0x1C, AT_PD);
	store_le32(t + TASK_EIP, AT_TARGET);
	store_le32(t + 0x24, FL_1);
	store_le32(t + TASK_ESP, STACK1_TSS);
	for (unsigned n = 0; n < 6; n++)
		store_le16(t + 0x48 + 4 * n, n == S_CS ? CODE0 : DATA0);
	pm_idt(p, vector, TSS_B, 0, P_TASK);
}

static void tables_are_read_with_supervisor_rights(void **state)
{
	struct pm *p = *state;
	paged(p, 3);
	set_pte(p, AT_PT, AT_GDT, AT_GDT, PTE_P | PTE_W);
	set_pte(p, AT_PT, AT_IDT, AT_IDT, PTE_P | PTE_W);
	set_pte(p, AT_PT, AT_TSS_A, AT_TSS_A, PTE_P | PTE_W);
	/* MOV AX, DATA3; MOV ES, AX; INT VECTOR_TEST */
	pm_run(p, 0x66, 0xB8, W(DATA3), 0x8E, 0xC0, 0xCD, VECTOR_TEST);
	assert_vector(p, VECTOR_TEST);
}

static void accessed_bit_in_a_read_only_table_faults(void **state)
{
	struct pm *p = *state;
	paged(p, 0);
	set_pte(p, AT_PT, AT_GDT, AT_GDT, PTE_P);
	pm_run(p, 0x66, 0xB8, W(READ_ONLY), 0x8E, 0xC0); /* its accessed bit is clear */
	assert_fault(p, EXC_PF, 3, 4);
	assert_int_equal(p->s.cr2, AT_GDT + READ_ONLY + 5);
	assert_int_equal(p->s.seg[S_ES].selector, DATA0);
}

static void inner_stack_that_is_not_there_changes_nothing(void **state)
{
	struct pm *p = *state;
	paged(p, 3);
	catch_in_task_b(p, EXC_PF);
	/* The first two dwords fit on a page, the rest would be on an absent one. */
	store_le32(p->ram + AT_TSS_A + 4, STACK0_TSS + 8);
	set_pte(p, AT_PT, STACK0_TSS - 4, 0, 0);
	p->s.eflags |= FL_CF;
	pm_run(p, 0x9A, D(0), W(GATE32 | 3));
	assert_int_equal(p->s.tr.selector, TSS_B);
	assert_int_equal(p->s.cr2, STACK0_TSS - 4);
	assert_int_equal(pm_stack(p, 0), PTE_W); /* not present, write, supervisor */
	assert_int_equal(pm_ld32(p, AT_TSS_A + TASK_EIP), AT_CODE);
	assert_int_equal(pm_ld32(p, AT_TSS_A + TASK_ESP), STACK3);
	assert_int_equal(pm_ld16(p, AT_TSS_A + 0x4C), CODE3);
	assert_int_equal(pm_ld16(p, AT_TSS_A + 0x50), DATA3);
	assert_int_equal(pm_ld32(p, AT_TSS_A + 0x24), FL_1 | FL_CF | FL_RF);
}

static void page_fault_on_the_handlers_stack_is_a_double_fault(void **state)
{
	struct pm *p = *state;
	paged(p, 3);
	catch_in_task_b(p, EXC_DF);
	set_pte(p, AT_PT, STACK0_TSS - 4, 0, 0);
	pm_run(p, 0xA1, D(0xFFFFF000)); /* not mapped at all */
	assert_int_equal(p->s.tr.selector, TSS_B);
	assert_int_equal(pm_stack(p, 0), 0);
	assert_int_equal(pm_ld32(p, AT_TSS_A + TASK_EIP), AT_CODE);
}

static void user_stack_of_a_far_return_is_read_with_user_rights(void **state)
{
	struct pm *p = *state;
	paged(p, 3);
	set_pte(p, AT_PT, STACK3, STACK3, PTE_P | PTE_W);
	pm_run(p, 0xCB);
	assert_fault(p, EXC_PF, PTE_P | PTE_U, 0);
	assert_int_equal(p->s.cr2, STACK3);
}

static void task_switch_changes_the_address_space(void **state)
{
	struct pm *p = *state;
	paged(p, 0);
	catch_in_task_b(p, 0x50);
	make_tables(p, AT_PD_B, AT_PT_B);
	set_pte(p, AT_PT_B, AT_DATA, AT_OTHER, ALL);
	store_le32(p->ram + AT_TSS_B + 0x1C, AT_PD_B);
	store_le32(p->ram + AT_DATA, 0x11111111);
	store_le32(p->ram + AT_OTHER, 0x22222222);
	static const uint8_t task[] = {0xA1, D(AT_DATA), 0xF4};
	memcpy(p->ram + AT_TARGET, task, sizeof(task));
	/* MOV EBX, [AT_DATA]; JMP TSS_B */
	pm_run(p, 0x8B, 0x1D, D(AT_DATA), 0xEA, D(0), W(TSS_B));
	assert_int_equal(pm_ld32(p, AT_TSS_A + 0x34), 0x11111111);
	assert_int_equal(p->s.gpr[R_EAX], 0x22222222);
	assert_int_equal(p->s.cr3, AT_PD_B);
}

static void task_state_on_an_absent_page_faults_before_the_switch(void **state)
{
	struct pm *p = *state;
	paged(p, 0);
	set_pte(p, AT_PT, AT_TSS_B, 0, 0);
	pm_run(p, 0xEA, D(0), W(TSS_B));
	assert_vector(p, EXC_PF);
	assert_int_equal(p->s.tr.selector, TSS_A);
	assert_int_equal(p->ram[AT_GDT + TSS_B + 5], P_TSS32);
	assert_int_equal(p->ram[AT_GDT + TSS_A + 5], P_TSS32_BUSY);
}

static void ins_into_an_absent_page_takes_nothing_from_the_device(void **state)
{
	struct pm *p = *state;
	paged(p, 0);
	set_pte(p, AT_PT, AT_DATA + 0x1000, 0, 0);
	p->s.gpr[R_EDI] = AT_DATA + 0xFFC;
	p->s.gpr[R_ECX] = 4;
	p->s.gpr[R_EDX] = 0x1234;
	pm_run(p, 0xF3, 0x6D);
	assert_fault(p, EXC_PF, PTE_W, 0);
	assert_int_equal(p->s.gpr[R_ECX], 3);
	assert_int_equal(p->s.gpr[R_EDI], AT_DATA + 0x1000);
	assert_int_equal(pm_ld32(p, AT_DATA + 0xFFC), 0xFFFFFFFF);
}

static void invlpg_and_mov_cr3_drop_translations(void **state)
{
	struct pm *p = *state;
	/* MOV EBX, [data]; MOV [pte], ECX; INVLPG [data]; MOV ECX, [data]; HLT. The mapping goes to
	 * AT_OTHER. */
	static const uint8_t with_invlpg[] = {
		0x8B,       0x1D, D(AT_DATA), 0x89,       0x0D, D(AT_PT + 4 * (AT_DATA >> 12)),
		0x0F,       0x01, 0x3D,       D(AT_DATA), 0x8B, 0x0D,
		D(AT_DATA), 0xF4};
	/* ... with MOV EAX, CR3; MOV CR3, EAX instead. */
	static const uint8_t with_cr3[] = {
		0x8B, 0x1D, D(AT_DATA), 0x89, 0x0D, D(AT_PT + 4 * (AT_DATA >> 12)),
		0x0F, 0x20, 0xD8,       0x0F, 0x22, 0xD8,
		0x8B, 0x0D, D(AT_DATA), 0xF4};
	for (unsigned n = 0; n < 2; n++) {
		paged(p, 0);
		store_le32(p->ram + AT_DATA, 1);
		store_le32(p->ram + AT_OTHER, 2);
		p->s.gpr[R_ECX] = AT_OTHER | ALL;
		if (n == 0)
			pm_run_bytes(p, with_invlpg, sizeof(with_invlpg));
		else
			pm_run_bytes(p, with_cr3, sizeof(with_cr3));
		assert_int_equal(p->s.gpr[R_EBX], 1);
		assert_int_equal(p->s.gpr[R_ECX], 2);
	}
}

static void bad_pdptes_are_gp_and_cr3_stays(void **state)
{
	struct pm *p = *state;
	paged(p, 0);
	p->s.cr0 &= ~CR0_PG;
	p->s.cr4 = CR4_PAE;
	store_le64(p->ram + AT_PD, 0x1E7); /* reserved bits beside P */
	/* MOV EAX, CR0 | PG; MOV CR0, EAX */
	pm_run(p, 0x0F, 0x20, 0xC0, 0x0D, D(CR0_PG), 0x0F, 0x22, 0xC0);
	assert_fault(p, EXC_GP, 0, 8);
	assert_false(p->s.cr0 & CR0_PG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		PM_TEST(tables_are_read_with_supervisor_rights),
		PM_TEST(accessed_bit_in_a_read_only_table_faults),
		PM_TEST(inner_stack_that_is_not_there_changes_nothing),
		PM_TEST(page_fault_on_the_handlers_stack_is_a_double_fault),
		PM_TEST(user_stack_of_a_far_return_is_read_with_user_rights),
		PM_TEST(task_switch_changes_the_address_space),
		PM_TEST(task_state_on_an_absent_page_faults_before_the_switch),
		PM_TEST(ins_into_an_absent_page_takes_nothing_from_the_device),
		PM_TEST(invlpg_and_mov_cr3_drop_translations),
		PM_TEST(bad_pdptes_are_gp_and_cr3_stays),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
