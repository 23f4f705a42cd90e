/* SPDX-License-Identifier: MIT */
/* Paging: faults and error codes, accessed and dirty bits, restart in the middle of instructions,
 * TLB, large pages, PAE, MMIO. */
#include "core_machine.h"

enum {
	P = 1,
	W = 2,
	U = 4,
	A = 0x20,
	D = 0x40,
	PS = 0x80,
	G = 0x100,
	/* Error codes */
	ERR_P = 1,
	ERR_W = 2,
	ERR_U = 4,
	ERR_RSVD = 8,
	ERR_I = 16,
};

static void page_fault(struct machine *m, uint32_t error, uint32_t cr2, uint32_t eip)
{
	assert_exception(m, EXC_PF);
	assert_int_equal(machine_stack(m, 0), error);
	assert_int_equal(machine_stack(m, 1), eip);
	assert_int_equal(m->s.cr2, cr2);
}

static void reads_and_writes_mark_the_page(void **state)
{
	struct machine *m = *state;
	machine_paging(m);
	RUN(m, 0xA1, BYTES32(AT_DATA), 0xA3, BYTES32(AT_DATA + 0x1000));
	assert_ran(m, 10);
	assert_int_equal(machine_pte(m, AT_DATA) & (A | D), A);
	assert_int_equal(machine_pte(m, AT_DATA + 0x1000) & (A | D), A | D);
	assert_true(load_le32(m->ram + AT_PAGE_DIR) & A);
}

static void dirty_is_set_by_a_write_after_a_read(void **state)
{
	struct machine *m = *state;
	machine_paging(m);
	RUN(m, 0xA1, BYTES32(AT_DATA), 0xA3, BYTES32(AT_DATA));
	assert_true(machine_pte(m, AT_DATA) & D);
}

static void not_present_faults(void **state)
{
	struct machine *m = *state;
	machine_paging(m);
	machine_set_pte(m, AT_DATA, 0);
	RUN(m, 0x90, 0xA1, BYTES32(AT_DATA + 0x123));
	page_fault(m, 0, AT_DATA + 0x123, AT_CODE + 1);
	machine_protected(m);
	machine_paging(m);
	machine_set_pte(m, AT_DATA, 0);
	RUN(m, 0xA3, BYTES32(AT_DATA + 0x123));
	page_fault(m, ERR_W, AT_DATA + 0x123, AT_CODE);
	assert_false(machine_pte(m, AT_DATA) & A);
}

static void write_protection_depends_on_wp(void **state)
{
	struct machine *m = *state;
	machine_paging(m);
	machine_set_pte(m, AT_DATA, AT_DATA | P | U);
	RUN(m, 0xA3, BYTES32(AT_DATA));
	page_fault(m, ERR_P | ERR_W, AT_DATA, AT_CODE);
	machine_protected(m);
	machine_paging(m);
	machine_set_pte(m, AT_DATA, AT_DATA | P | U);
	m->s.cr0 &= ~CR0_WP;
	RUN(m, 0xA3, BYTES32(AT_DATA));
	assert_ran(m, 5);
}

static void crossing_store_writes_nothing_when_the_second_page_faults(void **state)
{
	struct machine *m = *state;
	machine_paging(m);
	machine_set_pte(m, AT_DATA + 0x1000, 0);
	m->s.gpr[R_EAX] = 0x12345678;
	RUN(m, 0xA3, BYTES32(AT_DATA + 0xFFE));
	page_fault(m, ERR_W, AT_DATA + 0x1000, AT_CODE);
	assert_int_equal(load_le16(m->ram + AT_DATA + 0xFFE), 0);
}

static void crossing_access_follows_both_pages(void **state)
{
	struct machine *m = *state;
	machine_paging(m);
	/* The second page is elsewhere. */
	machine_set_pte(m, AT_DATA + 0x1000, (AT_DATA + 0x5000) | P | W | U);
	m->s.gpr[R_EAX] = 0x44332211;
	RUN(m, 0xA3, BYTES32(AT_DATA + 0xFFD), 0x8B, 0x0D, BYTES32(AT_DATA + 0xFFD), 0x01, 0x05,
	    BYTES32(AT_DATA + 0xFFD));
	assert_ran(m, 17);
	assert_int_equal(m->s.gpr[R_ECX], 0x44332211);
	assert_int_equal(m->ram[AT_DATA + 0x5000], 0x88);
	assert_int_equal(m->ram[AT_DATA + 0xFFD], 0x22);
	assert_int_equal(m->ram[AT_DATA + 0x1000], 0);
}

static void instruction_crossing_into_an_absent_page(void **state)
{
	struct machine *m = *state;
	machine_paging(m);
	machine_set_pte(m, AT_CODE + 0x1000, 0);
	/* inc ecx; mov eax, imm32 whose last two bytes are on the next page */
	m->ram[AT_CODE + 0xFFC] = 0x41;
	m->ram[AT_CODE + 0xFFD] = 0xB8;
	m->s.eip = AT_CODE + 0xFFC;
	machine_go(m, 100);
	page_fault(m, 0, AT_CODE + 0x1000, AT_CODE + 0xFFD);
	assert_int_equal(m->s.gpr[R_ECX], 1); /* what stands before it was executed */

	/* With the page there it runs, also when that page is then mapped elsewhere. */
	for (unsigned n = 0; n < 2; n++) {
		uint32_t at = AT_CODE + 0x1000 + n * 0x5000;
		machine_protected(m);
		machine_paging(m);
		machine_set_pte(m, AT_CODE + 0x1000, at | P | W | U);
		store_le16(m->ram + AT_CODE + 0xFFE, 0x5678);
		store_le16(m->ram + at, (uint16_t)(0x1234 + n));
		m->ram[at + 2] = OPCODE_HLT;
		m->s.eip = AT_CODE + 0xFFC;
		machine_go(m, 100);
		assert_int_equal(m->s.gpr[R_EAX], 0x12345678 + (n << 16));
	}
}

static void branch_to_an_absent_page_faults_there(void **state)
{
	struct machine *m = *state;
	machine_paging(m);
	machine_set_pte(m, AT_DATA, 0);
	RUN(m, 0xE9, BYTES32(AT_DATA - AT_CODE - 5));
	page_fault(m, 0, AT_DATA, AT_DATA);
}

static void rep_movs_stops_at_the_fault_and_restarts(void **state)
{
	struct machine *m = *state;
	machine_paging(m);
	machine_set_pte(m, AT_DATA + 0x12000, 0);
	for (unsigned n = 0; n < 0x3000; n++)
		m->ram[AT_DATA + n] = (uint8_t)(n * 7);
	m->s.gpr[R_ESI] = AT_DATA;
	m->s.gpr[R_EDI] = AT_DATA + 0x10800;
	m->s.gpr[R_ECX] = 0x3000 / 4;
	RUN(m, 0xF3, 0xA5);
	page_fault(m, ERR_W, AT_DATA + 0x12000, AT_CODE);
	assert_int_equal(m->s.gpr[R_ECX], (0x3000 - 0x1800) / 4);
	assert_int_equal(m->s.gpr[R_ESI], AT_DATA + 0x1800);
	assert_int_equal(m->s.gpr[R_EDI], AT_DATA + 0x12000);
	machine_set_pte(m, AT_DATA + 0x12000, (AT_DATA + 0x12000) | P | W | U);
	m->s.activity = CPU_RUNNING;
	m->s.eip = AT_CODE;
	machine_go(m, 1000);
	assert_ran(m, 2);
	assert_memory_equal(m->ram + AT_DATA + 0x10800, m->ram + AT_DATA, 0x3000);
}

static void flags_of_repe_cmps_stay_when_it_faults(void **state)
{
	struct machine *m = *state;
	machine_paging(m);
	machine_set_pte(m, AT_DATA + 0x1000, 0);
	m->s.gpr[R_ESI] = AT_DATA + 0xFF0;
	m->s.gpr[R_EDI] = AT_DATA + 0x8000;
	m->s.gpr[R_ECX] = 100;
	m->s.eflags |= FL_CF | FL_SF;
	RUN(m, 0xF3, 0xA6);
	page_fault(m, 0, AT_DATA + 0x1000, AT_CODE);
	assert_int_equal(machine_stack(m, 3) & FL_ARITH, FL_CF | FL_SF);
	assert_int_equal(m->s.gpr[R_ECX], 100 - 16);
}

static void stale_translation_until_invlpg(void **state)
{
	struct machine *m = *state;
	machine_paging(m);
	store_le32(m->ram + AT_DATA, 1);
	store_le32(m->ram + AT_DATA + 0x5000, 2);
	/* read; change the entry; invlpg; read */
	RUN(m, 0xA1, BYTES32(AT_DATA), 0xC7, 0x05, BYTES32(AT_PAGE_TABLE + 4 * (AT_DATA >> 12)),
	    BYTES32((AT_DATA + 0x5000) | P | W | U), 0x0F, 0x01, 0x3D, BYTES32(AT_DATA), 0x8B, 0x1D,
	    BYTES32(AT_DATA));
	assert_int_equal(m->s.gpr[R_EAX], 1);
	assert_int_equal(m->s.gpr[R_EBX], 2);
}

static void cr3_load_keeps_global_pages(void **state)
{
	struct machine *m = *state;
	const uint8_t code[] = {0xA1,
				BYTES32(AT_DATA),
				0xC7,
				0x05,
				BYTES32(AT_PAGE_TABLE + 4 * (AT_DATA >> 12)),
				BYTES32((AT_DATA + 0x5000) | P | W | U),
				0x0F,
				0x20,
				0xD9,
				0x0F,
				0x22,
				0xD9,
				0x8B,
				0x1D,
				BYTES32(AT_DATA)};
	for (unsigned global = 0; global < 2; global++) {
		machine_protected(m);
		machine_paging(m);
		m->s.cr4 = CR4_PGE;
		store_le32(m->ram + AT_DATA, 1);
		store_le32(m->ram + AT_DATA + 0x5000, 2);
		machine_set_pte(m, AT_DATA, AT_DATA | P | W | U | (global ? G : 0));
		machine_code(m, code, sizeof(code));
		machine_go(m, 100);
		assert_ran(m, sizeof(code));
		assert_int_equal(m->s.gpr[R_EBX], global ? 1 : 2);
	}
}

static void page_of_4_mib(void **state)
{
	struct machine *m = *state;
	machine_paging(m);
	m->s.cr4 = CR4_PSE;
	store_le32(m->ram + AT_PAGE_DIR + 4, 0 | P | W | U | PS); /* linear 4 MiB is physical 0 */
	store_le32(m->ram + AT_DATA, 0x1234);
	RUN(m, 0xA1, BYTES32(0x400000 + AT_DATA), 0xA3, BYTES32(0x400000 + AT_DATA + 4));
	assert_ran(m, 10);
	assert_int_equal(m->s.gpr[R_EAX], 0x1234);
	assert_int_equal(load_le32(m->ram + AT_DATA + 4), 0x1234);
	assert_int_equal(load_le32(m->ram + AT_PAGE_DIR + 4) & (A | D), A | D);
	machine_protected(m);
	machine_paging(m);
	m->s.cr4 = CR4_PSE;
	store_le32(m->ram + AT_PAGE_DIR + 4, 1u << 21 | P | W | U | PS); /* a reserved bit */
	RUN(m, 0xA1, BYTES32(0x400000));
	page_fault(m, ERR_P | ERR_RSVD, 0x400000, AT_CODE);
}

enum { AT_PDPT = 0x210000, AT_PAE_DIR = 0x211000, AT_PAE_TABLE = 0x212000 };

/* Two 2 MiB pages for the first 4 MiB, and a page table for what follows. */
static void machine_pae(struct machine *m)
{
	store_le64(m->ram + AT_PDPT, AT_PAE_DIR | P);
	store_le64(m->ram + AT_PAE_DIR, 0 | P | W | U | PS);
	store_le64(m->ram + AT_PAE_DIR + 8, 0x200000 | P | W | U | PS);
	store_le64(m->ram + AT_PAE_DIR + 16, AT_PAE_TABLE | P | W | U);
	for (unsigned n = 0; n < 512; n++)
		store_le64(m->ram + AT_PAE_TABLE + 8 * n, (n << 12) | P | W | U);
	m->s.cr3 = AT_PDPT;
	m->s.cr4 = CR4_PAE;
	m->s.pdpte[0] = AT_PAE_DIR | P;
	m->s.cr0 |= CR0_PG | CR0_WP;
}

static void pae_maps_and_checks_reserved_bits(void **state)
{
	struct machine *m = *state;
	machine_pae(m);
	store_le32(m->ram + AT_DATA, 77);
	RUN(m, 0xA1, BYTES32(0x400000 + AT_DATA));
	assert_ran(m, 5);
	assert_int_equal(m->s.gpr[R_EAX], 77);
	machine_protected(m);
	machine_pae(m);
	store_le64(m->ram + AT_PAE_TABLE, UINT64_C(1) << 60 | P | W | U);
	RUN(m, 0xA1, BYTES32(0x400000));
	page_fault(m, ERR_P | ERR_RSVD, 0x400000, AT_CODE);
	machine_protected(m);
	machine_pae(m);
	store_le64(m->ram + AT_PAE_TABLE, UINT64_C(1) << 63 | P | W | U); /* NX without EFER.NXE */
	RUN(m, 0xA1, BYTES32(0x400000));
	page_fault(m, ERR_P | ERR_RSVD, 0x400000, AT_CODE);
}

static void nx_page_does_not_execute(void **state)
{
	struct machine *m = *state;
	machine_pae(m);
	m->s.efer = EFER_NXE;
	store_le64(m->ram + AT_PAE_TABLE + 8 * 0x10, UINT64_C(1) << 63 | AT_CODE | P | W | U);
	RUN(m, 0xA1, BYTES32(0x410000), 0xE9, BYTES32(0x400000 - 10));
	page_fault(m, ERR_P | ERR_I, 0x410000, 0x410000);
}

static void pae_reaches_above_4_gib(void **state)
{
	struct machine *m = *state;
	struct mem_region *high = mem_region_new_ram(m->mem, "high", 0x10000, NULL);
	mem_mapping_set(mem_map(m->mem, high, 0, UINT64_C(0x100000000), 0x10000, MEM_PRIO_RAM),
			UINT64_C(0x100000000), MEM_RW);
	machine_pae(m);
	store_le64(m->ram + AT_PAE_TABLE, UINT64_C(0x100000000) | P | W | U);
	RUN(m, 0xC7, 0x05, BYTES32(0x400010), BYTES32(0xABCD));
	assert_ran(m, 10);
	assert_int_equal(load_le32(high->host + 0x10), 0xABCD);
}

static void mmio_sees_each_access_once(void **state)
{
	struct machine *m = *state;
	m->s.gpr[R_EAX] = 0xA5A5;
	RUN(m, 0xA3, BYTES32(AT_MMIO + 8));
	assert_ran(m, 5);
	assert_int_equal(m->mmio_writes, 1);
	assert_int_equal(m->mmio_size, 4);
	assert_int_equal(m->mmio_last, 8);
	assert_int_equal(m->mmio_value, 0xA5A5);
	machine_protected(m);
	RUN(m, 0x80, 0x05, BYTES32(AT_MMIO + 0x10), 0x01); /* add byte [mmio], 1 */
	assert_int_equal(m->mmio_reads, 1);
	assert_int_equal(m->mmio_writes, 2);
	assert_int_equal(m->mmio_value, 0x11);
}

static void unmapped_memory_reads_as_ones(void **state)
{
	struct machine *m = *state;
	RUN(m, 0xA1, BYTES32(0x40000000), 0xA3, BYTES32(0x40000000));
	assert_ran(m, 10);
	assert_int_equal(m->s.gpr[R_EAX], 0xFFFFFFFF);
}

static void code_runs_from_rom_and_mmio(void **state)
{
	struct machine *m = *state;
	m->rom[0] = 0x40;
	m->rom[1] = OPCODE_HLT;
	m->s.eip = AT_ROM;
	machine_go(m, 10);
	assert_int_equal(m->s.eip, AT_ROM + 2);
	assert_int_equal(m->s.gpr[R_EAX], 1);
	machine_protected(m);
	m->s.eip = AT_MMIO; /* reads as HLT */
	machine_go(m, 10);
	assert_int_equal(m->s.eip, AT_MMIO + 1);
}

static void rom_ignores_writes(void **state)
{
	struct machine *m = *state;
	m->rom[0x100] = 0x77;
	RUN(m, 0xC6, 0x05, BYTES32(AT_ROM + 0x100), 0x11);
	assert_ran(m, 7);
	assert_int_equal(m->rom[0x100], 0x77);
}

static void a20_off_clears_bit_20(void **state)
{
	struct machine *m = *state;
	store_le32(m->ram + AT_DATA, 0x1111);
	store_le32(m->ram + AT_DATA + 0x100000, 0x2222);
	memory_set_a20(m->mem, false);
	soft_cpu_flush_tlb(m->cpu);
	RUN(m, 0xA1, BYTES32(AT_DATA + 0x100000));
	assert_int_equal(m->s.gpr[R_EAX], 0x1111);
	memory_set_a20(m->mem, true);
	soft_cpu_flush_tlb(m->cpu);
	machine_protected(m);
	RUN(m, 0xA1, BYTES32(AT_DATA + 0x100000));
	assert_int_equal(m->s.gpr[R_EAX], 0x2222);
}

static void logged_writes_are_seen_after_each_fetch(void **state)
{
	struct machine *m = *state;
	struct mem_region *fb = mem_region_new_ram(m->mem, "fb", 0x10000, NULL);
	uint64_t bits = 0;
	mem_mapping_set(mem_map(m->mem, fb, 0, 0x600000, 0x10000, MEM_PRIO_RAM), 0x600000, MEM_RW);
	mem_region_log_dirty(m->mem, fb, true);
	soft_cpu_flush_tlb(m->cpu);
	RUN(m, 0xA3, BYTES32(0x602000));
	assert_true(mem_dirty_fetch(m->mem, fb, 0, 16, &bits));
	assert_int_equal(bits, 1 << 2);
	soft_cpu_flush_tlb(m->cpu);
	m->s.eip = AT_CODE;
	m->s.activity = CPU_RUNNING;
	machine_go(m, 100);
	assert_true(mem_dirty_fetch(m->mem, fb, 0, 16, &bits));
	assert_int_equal(bits, 1 << 2);
}

static void fault_in_fault_delivery(void **state)
{
	struct machine *m = *state;
	/* #GP whose gate is absent: #NP in its delivery makes #DF; with that gate absent too, a
	 * shutdown. */
	m->ram[AT_IDT + 8 * EXC_GP + 5] &= 0x7F;
	m->s.seg[S_DS].limit = 0;
	RUN(m, 0xA1, BYTES32(AT_DATA));
	assert_exception(m, EXC_DF);
	assert_int_equal(machine_stack(m, 0), 0);
	assert_int_equal(machine_stack(m, 1), AT_CODE);
	machine_protected(m);
	m->ram[AT_IDT + 8 * EXC_GP + 5] &= 0x7F;
	m->ram[AT_IDT + 8 * EXC_DF + 5] &= 0x7F;
	m->s.seg[S_DS].limit = 0;
	RUN(m, 0xA1, BYTES32(AT_DATA));
	assert_int_equal(m->exit, SOFT_TRIPLE_FAULT);
	assert_int_equal(m->s.activity, CPU_SHUTDOWN);
	/* #UD is benign: its absent gate gives plain #NP. */
	machine_protected(m);
	m->ram[AT_IDT + 8 * EXC_UD + 5] &= 0x7F;
	RUN(m, 0x0F, 0x0B);
	assert_exception(m, EXC_NP);
}

static void supervisor_store_to_a_code_page_from_level_3(void **state)
{
	struct machine *m = *state;
	enum { AT_TSS = 0x3000, STACK0 = 0x50800, RING3_CODE = 0x28, CODE_ON_STACK_PAGE = 0x50000 };
	/* The stack of level 0 is on a supervisor page that code ran on; an interrupt from level 3
	 * pushes there. */
	machine_paging(m);
	m->ram[CODE_ON_STACK_PAGE] = OPCODE_HLT;
	m->s.eip = CODE_ON_STACK_PAGE;
	m->ram[CODE_ON_STACK_PAGE] = 0x90;
	m->ram[CODE_ON_STACK_PAGE + 1] = 0xE9; /* jmp AT_CODE */
	store_le32(m->ram + CODE_ON_STACK_PAGE + 2, AT_CODE - CODE_ON_STACK_PAGE - 6);
	machine_set_pte(m, CODE_ON_STACK_PAGE, CODE_ON_STACK_PAGE | P | W);
	store_le64(m->ram + AT_GDT + 0x18, UINT64_C(0x00CFFB000000FFFF));
	store_le64(m->ram + AT_GDT + 0x20, UINT64_C(0x00CFF3000000FFFF));
	m->s.tr = (struct cpu_segment){.base = AT_TSS, .limit = 0x67, .attr = 0x8B};
	store_le32(m->ram + AT_TSS + 4, STACK0);
	store_le32(m->ram + AT_TSS + 8, SEL_DATA);
	m->ram[AT_IDT + 8 * 0x40 + 5] |= 0x60;
	/* To level 3 by IRET, then INT 40h; the handler halts. */
	const uint8_t code[] = {0x6A, 0x23, 0x68, BYTES32(AT_STACK - 0x1000), 0x6A, 0x02,
				0x6A, 0x1B, 0x68, BYTES32(AT_CODE + 17),      0xCF, 0xCD,
				0x40};
	machine_code(m, code, sizeof(code));
	machine_go(m, 1000);
	assert_exception(m, 0x40);
	assert_int_equal(m->s.gpr[R_ESP], STACK0 - 20);
	assert_int_equal(machine_stack(m, 0), AT_CODE + 19);
}

static void translate_has_no_side_effect(void **state)
{
	struct machine *m = *state;
	uint64_t gpa;
	machine_paging(m);
	machine_set_pte(m, AT_DATA, 0x123000 | P);
	soft_cpu_set_state(m->cpu, &m->s);
	assert_true(soft_cpu_translate(m->cpu, AT_DATA + 5, &gpa));
	assert_int_equal(gpa, 0x123005);
	assert_int_equal(machine_pte(m, AT_DATA), 0x123000 | P);
	assert_false(soft_cpu_translate(m->cpu, 0x40000000, &gpa));
}

#define T(f) cmocka_unit_test_setup_teardown(f, machine_setup, machine_teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(reads_and_writes_mark_the_page),
		T(dirty_is_set_by_a_write_after_a_read),
		T(not_present_faults),
		T(write_protection_depends_on_wp),
		T(crossing_store_writes_nothing_when_the_second_page_faults),
		T(crossing_access_follows_both_pages),
		T(instruction_crossing_into_an_absent_page),
		T(branch_to_an_absent_page_faults_there),
		T(rep_movs_stops_at_the_fault_and_restarts),
		T(flags_of_repe_cmps_stay_when_it_faults),
		T(stale_translation_until_invlpg),
		T(cr3_load_keeps_global_pages),
		T(page_of_4_mib),
		T(pae_maps_and_checks_reserved_bits),
		T(nx_page_does_not_execute),
		T(pae_reaches_above_4_gib),
		T(mmio_sees_each_access_once),
		T(unmapped_memory_reads_as_ones),
		T(code_runs_from_rom_and_mmio),
		T(rom_ignores_writes),
		T(a20_off_clears_bit_20),
		T(logged_writes_are_seen_after_each_fetch),
		T(fault_in_fault_delivery),
		T(supervisor_store_to_a_code_page_from_level_3),
		T(translate_has_no_side_effect),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
