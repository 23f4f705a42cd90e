/* SPDX-License-Identifier: MIT */
/* Strings, self-modifying code, single step, breakpoints, interrupts, and the run loop's own
 * promises. */
#include "core_machine.h"
#include <pthread.h>

/* ---- Strings ---- */

static void rep_movs_and_stos(void **state)
{
	struct machine *m = *state;
	for (unsigned n = 0; n < 0x5000; n++)
		m->ram[AT_DATA + n] = (uint8_t)(n ^ n >> 8);
	m->s.gpr[R_ESI] = AT_DATA + 3;
	m->s.gpr[R_EDI] = AT_DATA + 0x8001;
	m->s.gpr[R_ECX] = 0x4001;
	RUN(m, 0xF3, 0xA4);
	assert_ran(m, 2);
	assert_memory_equal(m->ram + AT_DATA + 3, m->ram + AT_DATA + 0x8001, 0x4001);
	assert_int_equal(m->s.gpr[R_ECX], 0);
	assert_int_equal(m->s.gpr[R_EDI], AT_DATA + 0x8001 + 0x4001);
	machine_protected(m);
	m->s.gpr[R_EAX] = 0x11223344;
	m->s.gpr[R_EDI] = AT_DATA + 1;
	m->s.gpr[R_ECX] = 0x1000;
	RUN(m, 0xF3, 0xAB);
	for (unsigned n = 0; n < 0x1000; n++)
		assert_int_equal(load_le32(m->ram + AT_DATA + 1 + 4 * n), 0x11223344);
}

static void overlapping_copy_repeats_the_pattern(void **state)
{
	struct machine *m = *state;
	memcpy(m->ram + AT_DATA, "abc", 3);
	m->s.gpr[R_ESI] = AT_DATA;
	m->s.gpr[R_EDI] = AT_DATA + 3;
	m->s.gpr[R_ECX] = 9;
	RUN(m, 0xF3, 0xA4);
	assert_memory_equal(m->ram + AT_DATA, "abcabcabcabc", 12);
}

static void direction_flag_goes_down(void **state)
{
	struct machine *m = *state;
	for (unsigned n = 0; n < 8; n++)
		store_le16(m->ram + AT_DATA + 2 * n, (uint16_t)n);
	m->s.gpr[R_ESI] = AT_DATA + 14;
	m->s.gpr[R_EDI] = AT_DATA + 0x100;
	m->s.gpr[R_ECX] = 8;
	RUN(m, 0xFD, 0xF3, 0x66, 0xA5);
	assert_ran(m, 4);
	assert_int_equal(m->s.gpr[R_ESI], AT_DATA - 2);
	assert_int_equal(load_le16(m->ram + AT_DATA + 0x100), 7);
	assert_int_equal(load_le16(m->ram + AT_DATA + 0x100 - 14), 0);
}

static void real_mode_string_wraps_at_64_kib(void **state)
{
	struct machine *m = *state;
	machine_real(m);
	m->s.gpr[R_EDI] = 0xABCDFFF0;
	m->s.gpr[R_ECX] = 0x12340020;
	m->s.gpr[R_EAX] = 0x5A;
	RUN(m, 0xF3, 0xAA);
	assert_int_equal(m->s.eip, 3);
	assert_int_equal(m->s.gpr[R_EDI], 0xABCD0010);
	assert_int_equal(m->s.gpr[R_ECX], 0x12340000);
	assert_int_equal(m->ram[AT_DATA + 0xFFFF], 0x5A);
	assert_int_equal(m->ram[AT_DATA + 0xF], 0x5A);
	assert_int_equal(m->ram[AT_DATA + 0x10], 0);
}

static void scas_and_cmps_stop_where_they_should(void **state)
{
	struct machine *m = *state;
	memcpy(m->ram + AT_DATA, "hello, world", 13);
	m->s.gpr[R_EAX] = 'w';
	m->s.gpr[R_EDI] = AT_DATA;
	m->s.gpr[R_ECX] = 100;
	RUN(m, 0xF2, 0xAE);
	assert_int_equal(m->s.gpr[R_EDI], AT_DATA + 8);
	assert_int_equal(m->s.gpr[R_ECX], 92);
	assert_true(m->s.eflags & FL_ZF);
	machine_protected(m);
	memcpy(m->ram + AT_DATA + 0x100, "hellO, world", 13);
	m->s.gpr[R_ESI] = AT_DATA;
	m->s.gpr[R_EDI] = AT_DATA + 0x100;
	m->s.gpr[R_ECX] = 13;
	RUN(m, 0xF3, 0xA6);
	assert_int_equal(m->s.gpr[R_ESI], AT_DATA + 5);
	assert_false(m->s.eflags & FL_ZF);
	machine_protected(m);
	m->s.gpr[R_ECX] = 0;
	m->s.eflags |= FL_CF;
	RUN(m, 0xF3, 0xA6); /* no iteration: nothing changes */
	assert_true(m->s.eflags & FL_CF);
}

/* ---- Self-modifying code ---- */

static void store_to_the_next_instruction_takes_effect(void **state)
{
	struct machine *m = *state;
	/* mov byte [next], 41h (inc ecx); next: inc eax */
	for (unsigned n = 0; n < 2; n++) {
		machine_protected(m);
		m->s.gpr[R_ECX] = 0;
		RUN(m, 0xC6, 0x05, BYTES32(AT_CODE + 7), 0x41, 0x40);
		assert_ran(m, 8);
		assert_int_equal(m->s.gpr[R_EAX], 0);
		assert_int_equal(m->s.gpr[R_ECX], 1);
	}
}

static void loop_that_patches_itself(void **state)
{
	struct machine *m = *state;
	/* top: add eax, imm8; inc byte [imm8]; loop top */
	m->s.gpr[R_ECX] = 10;
	RUN(m, 0x83, 0xC0, 0x01, 0xFE, 0x05, BYTES32(AT_CODE + 2), 0xE2, 0xF5);
	assert_ran(m, 11);
	assert_int_equal(m->s.gpr[R_EAX], 55);
}

static void code_and_data_on_one_page(void **state)
{
	struct machine *m = *state;
	/* A counter right behind the code; the blocks stay right. */
	m->s.gpr[R_ECX] = 1000;
	RUN(m, 0xFF, 0x05, BYTES32(AT_CODE + 0x40), 0xE2, 0xF8);
	assert_ran(m, 8);
	assert_int_equal(load_le32(m->ram + AT_CODE + 0x40), 1000);
}

static void code_seen_through_another_mapping(void **state)
{
	struct machine *m = *state;
	machine_paging(m);
	machine_set_pte(m, AT_DATA, AT_CODE | 7);
	/* Run once; then patch by way of the alias. */
	RUN(m, 0x40);
	assert_int_equal(m->s.gpr[R_EAX], 1);
	machine_code(m, (const uint8_t[]){0xC6, 0x05, BYTES32(AT_DATA + 7), 0x41, 0x40}, 8);
	m->s.eip = AT_CODE;
	m->s.activity = CPU_RUNNING;
	machine_go(m, 100);
	assert_int_equal(m->s.gpr[R_EAX], 1);
	assert_int_equal(m->s.gpr[R_ECX], 1);
}

static void write_from_outside_drops_blocks(void **state)
{
	struct machine *m = *state;
	/* loop: inc eax; jmp loop */
	machine_code(m, (const uint8_t[]){0x40, 0xEB, 0xFD}, 3);
	machine_go(m, 1000);
	assert_int_equal(m->exit, SOFT_BUDGET);
	m->ram[AT_CODE + 1] = OPCODE_HLT;
	soft_cpu_ram_written(m->cpu, m->ram + AT_CODE + 1, 1);
	assert_int_equal(soft_cpu_run(m->cpu, 1000), SOFT_HALTED);
}

static void write_from_outside_reaches_both_pages_of_an_instruction(void **state)
{
	struct machine *m = *state;
	enum { PAGE = 4096 };
	/* mov ebx, imm32 across the end of the page, add ecx, ebx, jmp back: run often. */
	uint8_t *code = m->ram + AT_CODE + PAGE - 3;
	memcpy(code, (const uint8_t[]){0xBB, 1, 0, 0, 0, 0x01, 0xD9, 0xEB, 0xF7}, 9);
	m->s.eip = AT_CODE + PAGE - 3;
	soft_cpu_set_state(m->cpu, &m->s);
	assert_int_equal(soft_cpu_run(m->cpu, 3000), SOFT_BUDGET);
	/* A flood of writes elsewhere does not hide one. */
	for (unsigned n = 0; n < 2000; n++)
		soft_cpu_ram_written(m->cpu, m->ram + AT_DATA + n % 64 * 2 * PAGE, 16);
	assert_int_equal(soft_cpu_run(m->cpu, 3000), SOFT_BUDGET);
	code[4] = 0x7F;
	soft_cpu_ram_written(m->cpu, code + 4, 1);
	code[7] = OPCODE_HLT;
	soft_cpu_ram_written(m->cpu, code + 7, 1);
	/* Wherever it is in the loop, it comes to the HLT within one round. */
	assert_int_equal(soft_cpu_run(m->cpu, 1000), SOFT_HALTED);
	soft_cpu_get_state(m->cpu, &m->s);
	m->s.eip = AT_CODE + PAGE - 3;
	m->s.activity = CPU_RUNNING;
	soft_cpu_set_state(m->cpu, &m->s);
	assert_int_equal(soft_cpu_run(m->cpu, 1000), SOFT_HALTED);
	soft_cpu_get_state(m->cpu, &m->s);
	assert_int_equal(m->s.gpr[R_EBX], 0x7F000001);
}

static void rep_stos_over_its_own_code(void **state)
{
	struct machine *m = *state;
	/* The fill reaches the instructions behind it: they are HLTs when it is done. */
	m->s.gpr[R_EAX] = OPCODE_HLT;
	m->s.gpr[R_EDI] = AT_CODE + 2;
	m->s.gpr[R_ECX] = 32;
	RUN(m, 0xF3, 0xAA, 0x40, 0x40, 0x40);
	assert_int_equal(m->s.eip, AT_CODE + 3);
	assert_int_equal(m->s.gpr[R_ECX], 0);
}

/* ---- Single step and breakpoints ---- */

enum { DR6_BS = 1 << 14 };

static void single_step_traps_after_each_instruction(void **state)
{
	struct machine *m = *state;
	m->s.eflags |= FL_TF;
	RUN(m, 0x40, 0x40);
	assert_exception(m, EXC_DB);
	assert_int_equal(machine_stack(m, 0), AT_CODE + 1);
	assert_true(machine_stack(m, 2) & FL_TF);
	assert_false(m->s.eflags & FL_TF);
	assert_true(m->s.dr[6] & DR6_BS);
	assert_int_equal(m->s.gpr[R_EAX], 1);
}

static void single_step_stops_between_rep_iterations(void **state)
{
	struct machine *m = *state;
	m->s.eflags |= FL_TF;
	m->s.gpr[R_EDI] = AT_DATA;
	m->s.gpr[R_ECX] = 3;
	RUN(m, 0xF3, 0xAA);
	assert_exception(m, EXC_DB);
	assert_int_equal(machine_stack(m, 0), AT_CODE);
	assert_int_equal(m->s.gpr[R_ECX], 2);
}

static void popf_setting_tf_traps_one_later(void **state)
{
	struct machine *m = *state;
	RUN(m, 0x68, BYTES32(FL_1 | FL_TF), 0x9D, 0x40, 0x40);
	assert_exception(m, EXC_DB);
	assert_int_equal(machine_stack(m, 0), AT_CODE + 7);
}

static void mov_ss_holds_off_the_step(void **state)
{
	struct machine *m = *state;
	m->s.eflags |= FL_TF;
	m->s.gpr[R_EAX] = SEL_DATA;
	RUN(m, 0x8E, 0xD0, 0x41, 0x41);
	assert_exception(m, EXC_DB);
	assert_int_equal(machine_stack(m, 0), AT_CODE + 3);
	assert_int_equal(m->s.gpr[R_ECX], 1);
}

static void software_interrupt_does_not_step(void **state)
{
	struct machine *m = *state;
	m->s.eflags |= FL_TF;
	RUN(m, 0xCD, 0x40);
	assert_exception(m, 0x40);
	assert_true(machine_stack(m, 2) & FL_TF);
}

static void instruction_breakpoint_faults_once(void **state)
{
	struct machine *m = *state;
	m->s.dr[0] = AT_CODE + 1;
	m->s.dr[7] = 1;
	RUN(m, 0x40, 0x41, 0x42);
	assert_exception(m, EXC_DB);
	assert_int_equal(machine_stack(m, 0), AT_CODE + 1);
	assert_true(machine_stack(m, 2) & FL_RF);
	assert_int_equal(m->s.dr[6] & 15, 1);
	assert_int_equal(m->s.gpr[R_ECX], 0);
	/* IRET with RF set goes past it. */
	machine_protected(m);
	m->ram[AT_HANDLER + 16 * EXC_DB] = 0xCF;
	machine_go(m, 100);
	assert_ran(m, 3);
	assert_int_equal(m->s.gpr[R_ECX], 1);
}

enum { DR7_WRITE_4 = 0xD << 16, DR7_ACCESS_1 = 0x3 << 16 };

static void data_breakpoint_traps_after_the_write(void **state)
{
	struct machine *m = *state;
	m->s.dr[0] = AT_DATA + 4;
	m->s.dr[7] = 1 | DR7_WRITE_4;
	RUN(m, 0xA1, BYTES32(AT_DATA + 4), 0xA3, BYTES32(AT_DATA), 0xA3, BYTES32(AT_DATA + 2),
	    0x40);
	assert_exception(m, EXC_DB);
	assert_int_equal(machine_stack(m, 0), AT_CODE + 15);
	assert_int_equal(m->s.dr[6] & 15, 1);
	machine_protected(m);
	m->s.dr[0] = AT_DATA + 5;
	m->s.dr[7] = 1 | DR7_ACCESS_1;
	RUN(m, 0xA0, BYTES32(AT_DATA + 4), 0xA1, BYTES32(AT_DATA + 4), 0x40);
	assert_exception(m, EXC_DB);
	assert_int_equal(machine_stack(m, 0), AT_CODE + 10);
}

static void debugger_breakpoint_stops_before_the_instruction(void **state)
{
	struct machine *m = *state;
	soft_cpu_set_breakpoint(m->cpu, AT_CODE + 1, true);
	RUN(m, 0x40, 0x41, 0x42);
	assert_int_equal(m->exit, SOFT_BREAKPOINT);
	assert_int_equal(m->s.eip, AT_CODE + 1);
	assert_int_equal(soft_cpu_run(m->cpu, 100), SOFT_HALTED); /* goes on from it */
	soft_cpu_set_breakpoint(m->cpu, AT_CODE + 1, false);
	machine_protected(m);
	machine_go(m, 100);
	assert_ran(m, 3);
}

static void unaligned_access_at_level_3_is_ac(void **state)
{
	struct machine *m = *state;
	m->s.seg[S_CS].attr |= SEG_DPL;
	m->s.seg[S_CS].selector |= 3;
	m->s.seg[S_SS].attr |= SEG_DPL;
	m->s.seg[S_SS].selector |= 3;
	m->s.seg[S_DS].attr |= SEG_DPL;
	m->s.cr0 |= CR0_AM;
	m->s.eflags |= FL_AC;
	/* The TSS for the way to level 0. */
	enum { AT_TSS = 0x3000 };
	m->s.tr = (struct cpu_segment){.base = AT_TSS, .limit = 0x67, .attr = 0x8B};
	store_le32(m->ram + AT_TSS + 4, AT_STACK);
	store_le32(m->ram + AT_TSS + 8, SEL_DATA);
	m->s.gpr[R_ESP] = AT_STACK - 0x1000;
	RUN(m, 0xA1, BYTES32(AT_DATA), 0xA1, BYTES32(AT_DATA + 1));
	assert_exception(m, EXC_AC);
	assert_int_equal(machine_stack(m, 0), 0);
	assert_int_equal(machine_stack(m, 1), AT_CODE + 5);
}

/* ---- Interrupts ---- */

static void interrupt_is_taken_between_instructions(void **state)
{
	struct machine *m = *state;
	m->irq = 0x55;
	soft_cpu_set_intr(m->cpu, true);
	m->s.eflags |= FL_IF;
	RUN(m, 0x40);
	assert_exception(m, 0x55);
	assert_int_equal(machine_stack(m, 0), AT_CODE);
	assert_int_equal(m->s.gpr[R_EAX], 0);
}

static void sti_shadow_covers_one_instruction(void **state)
{
	struct machine *m = *state;
	m->irq = 0x55;
	soft_cpu_set_intr(m->cpu, true);
	RUN(m, 0xFB, 0x40, 0x40);
	assert_exception(m, 0x55);
	assert_int_equal(machine_stack(m, 0), AT_CODE + 2);
	assert_int_equal(m->s.gpr[R_EAX], 1);
}

static void sti_nop_cli_lets_interrupts_in(void **state)
{
	struct machine *m = *state;
	m->irq = 0x55;
	soft_cpu_set_intr(m->cpu, true);
	RUN(m, 0xFB, 0x90, 0xFA);
	assert_exception(m, 0x55);
}

static void hlt_waits_and_wakes(void **state)
{
	struct machine *m = *state;
	m->s.eflags |= FL_IF;
	RUN(m, 0xF4);
	assert_int_equal(m->exit, SOFT_HALTED);
	assert_false(soft_cpu_has_work(m->cpu));
	m->irq = 0x20;
	soft_cpu_set_intr(m->cpu, true);
	assert_true(soft_cpu_has_work(m->cpu));
	assert_int_equal(soft_cpu_run(m->cpu, 100), SOFT_HALTED);
	soft_cpu_get_state(m->cpu, &m->s);
	assert_exception(m, 0x20);
	assert_int_equal(machine_stack(m, 0), AT_CODE + 1);
}

static void nmi_is_taken_with_if_clear_and_masks_itself(void **state)
{
	struct machine *m = *state;
	soft_cpu_nmi(m->cpu);
	soft_cpu_set_state(m->cpu, &m->s);
	soft_cpu_nmi(m->cpu);
	m->ram[AT_CODE] = 0x40;
	soft_cpu_run(m->cpu, 100);
	soft_cpu_get_state(m->cpu, &m->s);
	assert_exception(m, EXC_NMI);
	assert_true(m->s.nmi_masked);
	soft_cpu_nmi(m->cpu);
	assert_false(soft_cpu_has_work(m->cpu));
}

static void long_rep_gives_way_to_interrupts(void **state)
{
	struct machine *m = *state;
	m->s.eflags |= FL_IF;
	m->s.gpr[R_EDI] = 0x100000;
	m->s.gpr[R_ECX] = 0x200000;
	machine_code(m, (const uint8_t[]){0xF3, 0xAA}, 2);
	soft_cpu_set_state(m->cpu, &m->s);
	soft_cpu_run(m->cpu, 1);
	m->irq = 0x31;
	soft_cpu_set_intr(m->cpu, true);
	soft_cpu_run(m->cpu, 100);
	soft_cpu_get_state(m->cpu, &m->s);
	assert_exception(m, 0x31);
	if (m->s.gpr[R_ECX])
		assert_int_equal(machine_stack(m, 0), AT_CODE);
	assert_int_equal(m->s.gpr[R_EDI] + m->s.gpr[R_ECX], 0x300000);
}

static void *kicker(void *opaque)
{
	soft_cpu_kick(opaque);
	return NULL;
}

static void kick_ends_an_endless_loop(void **state)
{
	struct machine *m = *state;
	pthread_t thread;
	machine_code(m, (const uint8_t[]){0xEB, 0xFE}, 2);
	soft_cpu_set_state(m->cpu, &m->s);
	assert_int_equal(pthread_create(&thread, NULL, kicker, m->cpu), 0);
	assert_int_equal(soft_cpu_run(m->cpu, UINT64_MAX / 2), SOFT_KICKED);
	pthread_join(thread, NULL);
}

/* The handler of #UD is the instruction that raised it: nothing is ever executed. */
static void budget_ends_an_endless_row_of_faults(void **state)
{
	struct machine *m = *state;

	store_le32(m->ram + AT_IDT + 8 * EXC_UD, SEL_CODE << 16 | (AT_CODE & 0xFFFF));
	store_le32(m->ram + AT_IDT + 8 * EXC_UD + 4, (AT_CODE & 0xFFFF0000) | 0x8E00);
	machine_code(m, (const uint8_t[]){0x0F, 0x0B}, 2);
	machine_go(m, 500);
	assert_int_equal(m->exit, SOFT_BUDGET);
	assert_int_equal(m->s.eip, AT_CODE);
}

static void budget_ends_a_run(void **state)
{
	struct machine *m = *state;
	machine_code(m, (const uint8_t[]){0x40, 0xEB, 0xFD}, 3);
	machine_go(m, 1000);
	assert_int_equal(m->exit, SOFT_BUDGET);
	uint64_t first = soft_cpu_instructions(m->cpu);
	assert_in_range(first, 1000, 1050);
	assert_int_equal(m->s.gpr[R_EAX], first / 2);
}

static void instructions_are_counted_up_to_a_fault(void **state)
{
	struct machine *m = *state;
	RUN(m, 0x90, 0x90, 0x90, 0x0F, 0x0B, 0x90, 0x90);
	assert_exception(m, EXC_UD);
	/* Three NOPs and the handler's HLT. */
	assert_int_equal(soft_cpu_instructions(m->cpu), 4);
}

static void messages_do_not_outlive_a_reset(void **state)
{
	struct machine *m = *state;
	struct soft_cpu_config config = {.index = 1, .cpus = 2, .model = &m->model, .mem = m->mem};
	struct soft_cpu *ap = test_cpu_new(&config);
	struct cpu_state after_reset;
	assert_non_null(ap);
	soft_cpu_get_state(ap, &after_reset);
	soft_cpu_init(ap);
	soft_cpu_sipi(ap, 0x12);
	/* Settled, they show in the state... */
	soft_cpu_settle(ap);
	soft_cpu_get_state(ap, &m->s);
	assert_int_equal(m->s.seg[S_CS].selector, 0x1200);
	assert_int_equal(m->s.activity, CPU_RUNNING);
	/* ...and those that wait when the state is replaced are gone. */
	soft_cpu_init(ap);
	soft_cpu_sipi(ap, 0x13);
	soft_cpu_set_state(ap, &after_reset);
	assert_false(soft_cpu_has_work(ap));
	soft_cpu_free(ap);
}

static void init_and_sipi_start_a_processor(void **state)
{
	struct machine *m = *state;
	struct soft_cpu_config config = {.index = 1, .cpus = 2, .model = &m->model, .mem = m->mem};
	struct soft_cpu *ap = test_cpu_new(&config);
	assert_non_null(ap);
	assert_int_equal(soft_cpu_run(ap, 10), SOFT_HALTED);
	m->ram[0x12000] = 0x40;
	m->ram[0x12001] = OPCODE_HLT;
	soft_cpu_init(ap);
	soft_cpu_sipi(ap, 0x12);
	assert_int_equal(soft_cpu_run(ap, 10), SOFT_HALTED);
	soft_cpu_get_state(ap, &m->s);
	assert_int_equal(m->s.seg[S_CS].selector, 0x1200);
	assert_int_equal(m->s.eip, 2);
	assert_int_equal(m->s.activity, CPU_HALTED);
	soft_cpu_free(ap);
}

static void other_cpus_stores_drop_blocks(void **state)
{
	struct machine *m = *state;
	struct soft_cpu_config config = {.index = 1, .cpus = 2, .model = &m->model, .mem = m->mem};
	struct soft_cpu *other = test_cpu_new(&config);
	struct cpu_state s;

	assert_non_null(other);
	/* Both write and halt, then write again: the first write fills the TLB, before there is
	 * code on the page. */
	const uint8_t patch[] = {0xC6, 0x05, BYTES32(AT_CODE + 0x80), 0x90,       OPCODE_HLT,
				 0xC6, 0x05, BYTES32(AT_CODE + 1),    OPCODE_HLT, OPCODE_HLT};
	memcpy(m->ram + AT_DATA, patch, sizeof(patch));
	s = m->s;
	s.eip = AT_DATA;
	s.eflags |= FL_IF;
	m->ram[AT_HANDLER + 16 * EXC_NMI] = 0xCF;
	soft_cpu_set_state(other, &s);
	assert_int_equal(soft_cpu_run(other, 100), SOFT_HALTED);
	/* loop: inc eax; jmp loop */
	machine_code(m, (const uint8_t[]){0x40, 0xEB, 0xFD}, 3);
	machine_go(m, 1000);
	assert_int_equal(m->exit, SOFT_BUDGET);
	soft_cpu_nmi(other);
	assert_int_equal(soft_cpu_run(other, 100), SOFT_HALTED);
	assert_int_equal(m->ram[AT_CODE + 1], OPCODE_HLT);
	assert_int_equal(soft_cpu_run(m->cpu, 1000), SOFT_HALTED);
	soft_cpu_free(other);
}

/* ---- From real to protected mode, as a boot loader does it ---- */

static void real_mode_enters_protected_mode(void **state)
{
	struct machine *m = *state;
	machine_real(m);
	store_le64(m->ram + AT_GDT + SEL_CODE, UINT64_C(0x00CF9B000000FFFF));
	store_le64(m->ram + AT_GDT + SEL_DATA, UINT64_C(0x00CF93000000FFFF));
	store_le16(m->ram + AT_DATA, 0x17);
	store_le32(m->ram + AT_DATA + 2, AT_GDT);
	/* lgdt [0]; mov eax, cr0; or al, 1; mov cr0, eax; jmp dword SEL_CODE:AT_CODE + 24;
	   mov ax, SEL_DATA; mov ds, eax; mov dword [AT_DATA + 0x100000], 12345678h */
	RUN(m, 0x0F, 0x01, 0x16, 0, 0, 0x0F, 0x20, 0xC0, 0x0C, 0x01, 0x0F, 0x22, 0xC0, 0x66, 0xEA,
	    BYTES32(AT_CODE + 21), BYTES16(SEL_CODE), 0x66, 0xB8, BYTES16(SEL_DATA), 0x8E, 0xD8,
	    0xC7, 0x05, BYTES32(AT_DATA + 0x100000), BYTES32(0x12345678));
	assert_int_equal(m->s.eip, AT_CODE + 21 + 17);
	assert_int_equal(load_le32(m->ram + AT_DATA + 0x100000), 0x12345678);
	assert_true(m->s.cr0 & CR0_PE);
}

static void state_round_trip(void **state)
{
	struct machine *m = *state;
	struct cpu_state a, b;
	m->s.eflags = FL_1 | FL_CF | FL_ZF | FL_SF | FL_PF | FL_OF | FL_AF | FL_IF | FL_ID;
	m->s.gpr[R_EDI] = 0x1234;
	m->s.tsc = 5000;
	soft_cpu_set_state(m->cpu, &m->s);
	soft_cpu_get_state(m->cpu, &a);
	assert_int_equal(a.eflags, m->s.eflags);
	assert_int_equal(a.tsc, 5000);
	soft_cpu_set_state(m->cpu, &a);
	soft_cpu_get_state(m->cpu, &b);
	assert_memory_equal(&a, &b, sizeof(a));
	for (uint32_t n = 0; n < 64; n++) {
		static const uint32_t flag[6] = {FL_CF, FL_PF, FL_AF, FL_ZF, FL_SF, FL_OF};
		uint32_t flags = FL_1;
		for (unsigned k = 0; k < 6; k++)
			flags |= n >> k & 1 ? flag[k] : 0;
		m->s.eflags = flags;
		soft_cpu_set_state(m->cpu, &m->s);
		soft_cpu_get_state(m->cpu, &a);
		assert_int_equal(a.eflags, flags);
	}
}

#define T(f) cmocka_unit_test_setup_teardown(f, machine_setup, machine_teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(rep_movs_and_stos),
		T(overlapping_copy_repeats_the_pattern),
		T(direction_flag_goes_down),
		T(real_mode_string_wraps_at_64_kib),
		T(scas_and_cmps_stop_where_they_should),
		T(store_to_the_next_instruction_takes_effect),
		T(loop_that_patches_itself),
		T(code_and_data_on_one_page),
		T(code_seen_through_another_mapping),
		T(write_from_outside_drops_blocks),
		T(write_from_outside_reaches_both_pages_of_an_instruction),
		T(rep_stos_over_its_own_code),
		T(single_step_traps_after_each_instruction),
		T(single_step_stops_between_rep_iterations),
		T(popf_setting_tf_traps_one_later),
		T(mov_ss_holds_off_the_step),
		T(software_interrupt_does_not_step),
		T(instruction_breakpoint_faults_once),
		T(data_breakpoint_traps_after_the_write),
		T(debugger_breakpoint_stops_before_the_instruction),
		T(unaligned_access_at_level_3_is_ac),
		T(interrupt_is_taken_between_instructions),
		T(sti_shadow_covers_one_instruction),
		T(sti_nop_cli_lets_interrupts_in),
		T(hlt_waits_and_wakes),
		T(nmi_is_taken_with_if_clear_and_masks_itself),
		T(long_rep_gives_way_to_interrupts),
		T(kick_ends_an_endless_loop),
		T(budget_ends_a_run),
		T(budget_ends_an_endless_row_of_faults),
		T(instructions_are_counted_up_to_a_fault),
		T(init_and_sipi_start_a_processor),
		T(messages_do_not_outlive_a_reset),
		T(other_cpus_stores_drop_blocks),
		T(real_mode_enters_protected_mode),
		T(state_round_trip),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
