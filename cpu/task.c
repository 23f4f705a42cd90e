/* SPDX-License-Identifier: MIT */
/*
 * Hardware task switches (SDM vol. 3A, chapter 7).
 *
 * 7.3 gives the steps: check the new TSS, make sure that all memory involved is there, save the old
 * task, mark the descriptors, load the new task's registers, and only then its segments. A fault up
 * to the saving belongs to the old task; a fault in the segments belongs to the new one, with its
 * EIP (table 7-1 lists the exceptions).
 */
#include "cpu/desc.h"

/* Offsets in the 32-bit TSS (figure 7-2) and the 16-bit TSS (figure 7-10). */
enum {
	TSS_LINK = 0,
	TSS32_CR3 = 0x1C,
	TSS32_EIP = 0x20,
	TSS32_EFLAGS = 0x24,
	TSS32_GPR = 0x28,
	TSS32_SEG = 0x48,
	TSS32_LDT = 0x60,
	TSS32_TRAP = 0x64,
	TSS32_MIN_LIMIT = 0x67,
	TSS16_IP = 0x0E,
	TSS16_FLAGS = 0x10,
	TSS16_GPR = 0x12,
	TSS16_SEG = 0x22,
	TSS16_LDT = 0x2A,
	TSS16_MIN_LIMIT = 0x2B,
};

enum {
	DR6_BT = 1 << 15,
	DR7_LOCAL_ENABLES = 0x155, /* L0..L3 and LE */
	EFLAGS_TASK = FL_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_RF | FL_VM | FL_AC |
		      FL_VIF | FL_VIP | FL_ID,
};

/* What a TSS holds of a task. */
struct task {
	uint32_t cr3, eip, eflags, gpr[8];
	uint16_t seg[6], ldt;
	bool trap;
};

static void read_task(struct soft_cpu *c, uint32_t base, bool tss32, struct task *t)
{
	*t = (struct task){0};
	if (tss32) {
		t->cr3 = sys_ld32(c, base + TSS32_CR3);
		t->eip = sys_ld32(c, base + TSS32_EIP);
		t->eflags = sys_ld32(c, base + TSS32_EFLAGS);
		for (unsigned n = 0; n < 8; n++)
			t->gpr[n] = sys_ld32(c, base + TSS32_GPR + 4 * n);
		for (unsigned n = 0; n < 6; n++)
			t->seg[n] = sys_ld16(c, base + TSS32_SEG + 4 * n);
		t->ldt = sys_ld16(c, base + TSS32_LDT);
		t->trap = sys_ld8(c, base + TSS32_TRAP) & 1;
		return;
	}
	t->eip = sys_ld16(c, base + TSS16_IP);
	t->eflags = sys_ld16(c, base + TSS16_FLAGS);
	for (unsigned n = 0; n < 8;
	     n++) /* the upper halves are undefined; ones, as processors do */
		t->gpr[n] = sys_ld16(c, base + TSS16_GPR + 2 * n) | 0xFFFF0000;
	for (unsigned n = 0; n < 4; n++)
		t->seg[n] = sys_ld16(c, base + TSS16_SEG + 2 * n);
	t->ldt = sys_ld16(c, base + TSS16_LDT);
}

/* Faults now if the old task could not be saved later. */
static void probe_old_task(struct soft_cpu *c, bool tss32)
{
	if (c->tr.limit < (tss32 ? TSS32_MIN_LIMIT : TSS16_MIN_LIMIT))
		raise_selector(c, EXC_TS, c->tr.selector, 0);
	if (tss32)
		sys_probe_write(c, c->tr.base + TSS32_EIP, TSS32_LDT - TSS32_EIP);
	else
		sys_probe_write(c, c->tr.base + TSS16_IP, TSS16_LDT - TSS16_IP);
}

static void save_old_task(struct soft_cpu *c, bool tss32, uint32_t eip, uint32_t eflags)
{
	uint32_t base = c->tr.base;
	if (tss32) {
		sys_st32(c, base + TSS32_EIP, eip);
		sys_st32(c, base + TSS32_EFLAGS, eflags);
		for (unsigned n = 0; n < 8; n++)
			sys_st32(c, base + TSS32_GPR + 4 * n, c->gpr[n]);
		for (unsigned n = 0; n < 6; n++)
			sys_st16(c, base + TSS32_SEG + 4 * n, c->seg[n].selector);
		return;
	}
	sys_st16(c, base + TSS16_IP, (uint16_t)eip);
	sys_st16(c, base + TSS16_FLAGS, (uint16_t)eflags);
	for (unsigned n = 0; n < 8; n++)
		sys_st16(c, base + TSS16_GPR + 2 * n, (uint16_t)c->gpr[n]);
	for (unsigned n = 0; n < 4; n++)
		sys_st16(c, base + TSS16_SEG + 2 * n, c->seg[n].selector);
}

/* ---- The new task's segments (table 7-1): #TS unless said otherwise ---- */

static void load_task_ldt(struct soft_cpu *c, uint16_t selector, unsigned ext)
{
	struct descriptor d;
	if (selector_null(selector))
		return;
	if (selector & SEL_TI)
		raise_selector(c, EXC_TS, selector, ext);
	desc_read_or_raise(c, selector, EXC_TS, ext, &d);
	if (desc_is_segment(&d) || desc_type(&d) != SYS_LDT || !desc_present(&d))
		raise_selector(c, EXC_TS, selector, ext);
	desc_to_segment(&d, selector, &c->ldt);
}

static void load_task_cs(struct soft_cpu *c, uint16_t selector, unsigned ext)
{
	struct descriptor d;
	unsigned rpl = selector & SEL_RPL;
	if (selector_null(selector))
		raise_selector(c, EXC_TS, selector, ext);
	desc_read_or_raise(c, selector, EXC_TS, ext, &d);
	if (!desc_is_code(&d) ||
	    (desc_is_conforming(&d) ? desc_dpl(&d) > rpl : desc_dpl(&d) != rpl))
		raise_selector(c, EXC_TS, selector, ext);
	if (!desc_present(&d))
		raise_selector(c, EXC_NP, selector, ext);
	desc_mark_accessed(c, selector, &d);
	desc_to_segment(&d, selector, &c->seg[S_CS]);
}

static void load_task_ss(struct soft_cpu *c, uint16_t selector, unsigned cpl, unsigned ext)
{
	struct descriptor d;
	if (selector_null(selector))
		raise_selector(c, EXC_TS, selector, ext);
	desc_read_or_raise(c, selector, EXC_TS, ext, &d);
	if (!desc_is_writable_data(&d) || (selector & SEL_RPL) != cpl || desc_dpl(&d) != cpl)
		raise_selector(c, EXC_TS, selector, ext);
	if (!desc_present(&d))
		raise_selector(c, EXC_SS, selector, ext);
	desc_mark_accessed(c, selector, &d);
	desc_to_segment(&d, selector, &c->seg[S_SS]);
}

static void load_task_data(struct soft_cpu *c, unsigned sreg, uint16_t selector, unsigned cpl,
			   unsigned ext)
{
	struct descriptor d;
	if (selector_null(selector))
		return;
	desc_read_or_raise(c, selector, EXC_TS, ext, &d);
	bool code = desc_is_code(&d);
	if (!desc_is_segment(&d) || (code && !(desc_attr(&d) & SEG_RW)))
		raise_selector(c, EXC_TS, selector, ext);
	if (!(code && desc_is_conforming(&d)) &&
	    (desc_dpl(&d) < cpl || desc_dpl(&d) < (selector & SEL_RPL)))
		raise_selector(c, EXC_TS, selector, ext);
	if (!desc_present(&d))
		raise_selector(c, EXC_NP, selector, ext);
	desc_mark_accessed(c, selector, &d);
	desc_to_segment(&d, selector, &c->seg[sreg]);
	segment_changed(c, sreg);
}

static void load_task_segments(struct soft_cpu *c, const struct task *t, unsigned ext)
{
	static const uint8_t data[] = {S_DS, S_ES, S_FS, S_GS};
	if (t->eflags & FL_VM) {
		for (unsigned n = 0; n < 6; n++)
			segment_make_v86(&c->seg[n], t->seg[n]);
		cpu_mode_changed(c);
		load_task_ldt(c, t->ldt, ext);
		return;
	}
	/* Until it is loaded, each register has its selector and nothing behind it; CS and SS carry
	 * the new CPL already. */
	unsigned cpl = t->seg[S_CS] & SEL_RPL;
	for (unsigned n = 0; n < 6; n++)
		segment_make_null(&c->seg[n], t->seg[n]);
	c->seg[S_CS].attr = c->seg[S_SS].attr = (uint16_t)(cpl << SEG_DPL_SHIFT);
	cpu_mode_changed(c);
	load_task_ldt(c, t->ldt, ext);
	load_task_cs(c, t->seg[S_CS], ext);
	load_task_ss(c, t->seg[S_SS], cpl, ext);
	cpu_mode_changed(c);
	for (unsigned n = 0; n < ARRAY_SIZE(data); n++)
		load_task_data(c, data[n], t->seg[data[n]], cpl, ext);
}

/* ---- The switch ---- */

/* Reads and checks the descriptor of the new TSS. */
static void check_new_tss(struct soft_cpu *c, uint16_t selector, enum task_switch_cause cause,
			  unsigned ext, struct descriptor *d)
{
	unsigned bad = cause == TASK_IRET ? EXC_TS : EXC_GP;
	if ((selector & SEL_TI) || selector_null(selector))
		raise_selector(c, bad, selector, ext);
	desc_read_or_raise(c, selector, bad, ext, d);
	if (!(cause == TASK_IRET ? desc_is_busy_tss(d) : desc_is_available_tss(d)))
		raise_selector(c, bad, selector, ext);
	if (!desc_present(d))
		raise_selector(c, EXC_NP, selector, ext);
	if (desc_limit(d) < (desc_type(d) & SYS_32 ? TSS32_MIN_LIMIT : TSS16_MIN_LIMIT))
		raise_selector(c, EXC_TS, selector, ext);
}

void task_switch_event(struct soft_cpu *c, uint16_t selector, enum task_switch_cause cause,
		       uint32_t return_eip, uint32_t saved_flags, unsigned ext, bool has_error,
		       uint32_t error)
{
	struct descriptor d;
	struct task t;
	check_new_tss(c, selector, cause, ext, &d);
	bool new32 = desc_type(&d) & SYS_32, old32 = c->tr.attr & SYS_32;
	bool nested = cause == TASK_CALL || cause == TASK_INT;
	bool leaves_old = cause == TASK_JMP || cause == TASK_IRET;
	uint32_t new_base = desc_base(&d);
	uint16_t old_selector = c->tr.selector;

	/* All memory that the switch touches: whatever faults, faults here, in the old task. */
	read_task(c, new_base, new32, &t);
	probe_old_task(c, old32);
	if (nested)
		sys_probe_write(c, new_base + TSS_LINK, 2);
	sys_probe_write(c, desc_linear(c, selector) + 5, 1);
	if (leaves_old)
		sys_probe_write(c, desc_linear(c, old_selector) + 5, 1);

	if (leaves_old)
		desc_set_busy(c, old_selector, false);
	if (cause == TASK_IRET)
		saved_flags &= ~FL_NT;
	save_old_task(c, old32, return_eip, saved_flags);
	if (nested) {
		sys_st16(c, new_base + TSS_LINK, old_selector);
		t.eflags |= FL_NT;
	}
	if (cause != TASK_IRET)
		desc_set_busy(c, selector, true);

	trace(TRACE_CPU, "cpu %u: task %04x to %04x, eip %08x", c->config.index, old_selector,
	      selector, t.eip);
	desc_to_segment(&d, selector, &c->tr);
	c->tr.attr |= SYS_BUSY;
	c->cr0 |= CR0_TS;
	c->dr[7] &= ~(uint32_t)DR7_LOCAL_ENABLES;
	/* From here on, a fault is the new task's. */
	c->eip = c->next_eip = t.eip;
	memcpy(c->gpr, t.gpr, sizeof(t.gpr));
	segment_make_null(&c->ldt, t.ldt);
	flags_set_all(c, (t.eflags & EFLAGS_TASK) | FL_1);
	if (new32 && (c->cr0 & CR0_PG)) {
		if (c->cr4 & CR4_PAE)
			mmu_load_pdptes(c, t.cr3);
		c->cr3 = t.cr3;
		tlb_flush_non_global(c);
	}
	load_task_segments(c, &t, ext);
	if (has_error) {
		struct stack s = stack_current(c);
		if (!stack_has_room(&s, new32 ? 4 : 2))
			cpu_raise_error(c, EXC_SS, ext);
		stack_push(&s, new32, error);
		stack_commit(&s);
	}
	if (t.trap) {
		c->db_status |= DR6_BT;
		atomic_fetch_or(&c->requests, REQ_TRAP);
	}
	if (t.eip > c->seg[S_CS].limit)
		cpu_raise_error(c, EXC_GP, ext);
	cpu_end_block(c);
}

void task_switch(struct soft_cpu *c, uint16_t selector, enum task_switch_cause cause,
		 uint32_t return_eip, bool has_error, uint32_t error)
{
	task_switch_event(c, selector, cause, return_eip, flags_get(c), 0, has_error, error);
}
