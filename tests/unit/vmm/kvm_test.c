/* SPDX-License-Identifier: MIT */
/*
 * The KVM engine's CPUs with real-mode guests of a few instructions: ports, state, interrupts, the
 * kernel's chips and clock. They run on every host that has /dev/kvm, also where it has no hardware
 * behind it.
 */
#include "tests/unit/vmm/kvm_rig.h"

static void guest_reaches_a_port_and_a_paused_cpu_shows_the_state_behind_it(void **state)
{
	static const uint8_t code[] = {
		0xb8, 0x34, 0x12, /* mov ax, 0x1234 */
		0xbb, 0x78, 0x56, /* mov bx, 0x5678 */
		0xe6, 0xf4,       /* out 0xf4, al */
		0xeb, 0xfe,       /* jmp $ */
	};
	struct rig *r = new_rig(1, false);

	load(r, CODE, code, sizeof(code));
	begin(r, 1);
	wait_done(r);
	assert_true(r->done);
	assert_int_equal(r->done_value, 0x34);
	assert_int_equal(r->done_cpu, 0);
	pause_guest(r);
	struct cpu_state s = state_of(r, 0);
	assert_int_equal(s.gpr[R_EAX] & 0xffff, 0x1234);
	assert_int_equal(s.gpr[R_EBX] & 0xffff, 0x5678);
	assert_int_equal(s.eip, CODE + 8);
	assert_int_equal(s.activity, CPU_RUNNING);
	free_rig(r);
}

static void rep_insb_is_one_block(void **state)
{
	static const uint8_t code[] = {
		0xfc,             /* cld */
		0xbf, 0x00, 0x50, /* mov di, 0x5000 */
		0xb9, 0x40, 0x00, /* mov cx, 64 */
		0xba, 0x00, 0x03, /* mov dx, 0x300 */
		0xf3, 0x6c,       /* rep insb */
		0xe6, 0xf4, 0xf4, /* out 0xf4, al; hlt */
	};
	struct rig *r = new_rig(1, false);

	load(r, CODE, code, sizeof(code));
	begin(r, 1);
	wait_done(r);
	pause_guest(r);
	assert_true(r->done);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(r->ram->host[0x5000 + i], i);
	assert_true(r->block_reads >= 1);
	assert_int_equal(r->single_reads, 0);
	assert_int_equal(state_of(r, 0).gpr[R_ECX] & 0xffff, 0);
	free_rig(r);
}

static void state_survives_a_round_trip(void **state)
{
	struct rig *r = new_rig(1, false);
	struct cpu_state s = start_state(true), t;
	struct error err = ERROR_INIT;

	for (unsigned i = 0; i < 8; i++)
		s.gpr[i] = 0x11111111 * (i + 1);
	s.eflags = FL_1 | FL_CF | FL_ZF | FL_DF;
	s.seg[S_DS] = (struct cpu_segment){0x1234, SEG_P | SEG_S | 3, 0x12340, 0xffff};
	s.gdt = (struct cpu_table){0x4000, 0x27};
	s.idt = (struct cpu_table){0x5000, 0x3ff};
	s.cr2 = 0xdeadb000;
	s.dr[0] = 0x1000;
	s.sysenter_eip = 0x87654321;
	store_le16(s.fxsave, 0x027f);
	s.fxsave[4] = 0x80;
	memcpy(s.fxsave + 32, "\1\2\3\4\5\6\7\x88\xff\x3f", 10);
	memcpy(s.fxsave + 160 + 16 * 7, "0123456789abcdef", 16);
	s.nmi_masked = true;
	assert_int_equal(r->e->ops->set_state(r->e, 0, &s, &err), 0);
	t = state_of(r, 0);
	assert_memory_equal(t.gpr, s.gpr, sizeof(s.gpr));
	assert_int_equal(t.eip, s.eip);
	assert_int_equal(t.eflags, s.eflags);
	assert_memory_equal(&t.seg[S_DS], &s.seg[S_DS], sizeof(s.seg[0]));
	assert_memory_equal(&t.seg[S_CS], &s.seg[S_CS], sizeof(s.seg[0]));
	assert_int_equal(t.gdt.base, s.gdt.base);
	assert_int_equal(t.gdt.limit, s.gdt.limit);
	assert_int_equal(t.idt.base, s.idt.base);
	assert_int_equal(t.cr0, s.cr0);
	assert_int_equal(t.cr2, s.cr2);
	assert_int_equal(t.dr[0], s.dr[0]);
	assert_int_equal(t.sysenter_eip, s.sysenter_eip);
	assert_int_equal(load_le16(t.fxsave), 0x027f);
	assert_memory_equal(t.fxsave + 32, s.fxsave + 32, 10);
	assert_memory_equal(t.fxsave + 160 + 16 * 7, s.fxsave + 160 + 16 * 7, 16);
	assert_true(t.nmi_masked);
	free_rig(r);
}

static void triple_fault_is_reported(void **state)
{
	static const uint8_t code[] = {
		0x0f, 0x01, 0x1e, 0x00, 0x60, /* lidt [0x6000]: limit 0 */
		0x0f, 0x20, 0xc0,             /* mov eax, cr0 */
		0x0c, 0x01,                   /* or al, 1 */
		0x0f, 0x22, 0xc0,             /* mov cr0, eax */
		0x0f, 0x0b,                   /* ud2 */
		0xe6, 0xf4, 0xf4,
	};
	struct rig *r = new_rig(1, false);

	load(r, CODE, code, sizeof(code));
	begin(r, 1);
	wait_done(r);
	pause_guest(r);
	assert_false(r->done);
	assert_true(r->triple_fault);
	assert_int_equal(state_of(r, 0).activity, CPU_SHUTDOWN);
	free_rig(r);
}

/* With our own chips: HLT waits for INTR, and the vector that ack() gives is taken. */
static void interrupt_wakes_a_halted_cpu(void **state)
{
	static const uint8_t code[] = {
		0xfb, 0xf4,       /* sti; hlt */
		0xb0, 0x77,       /* mov al, 0x77 */
		0xe6, 0xf4, 0xf4, /* out 0xf4, al; hlt */
	};
	static const uint8_t handler[] = {0xc6, 0x06, 0x00, 0x50, 0x99, 0xcf}; /* [0x5000]=0x99 */
	struct rig *r = new_rig(1, false);

	load(r, CODE, code, sizeof(code));
	load(r, HANDLER, handler, sizeof(handler));
	store_le16(r->ram->host + 4 * VECTOR, HANDLER);
	begin(r, 1);
	loop_run_once(r->loop, 50000000);
	assert_false(r->done);
	loop_lock(r->loop);
	r->vector = VECTOR;
	r->e->ops->set_intr(r->e, 0, true);
	loop_unlock(r->loop);
	wait_done(r);
	assert_true(r->done);
	assert_int_equal(r->done_value, 0x77);
	assert_int_equal(r->ram->host[0x5000], 0x99);
	free_rig(r);
}

/* An interrupt that comes while IF is clear is taken once it is set. */
static void interrupt_waits_for_the_window(void **state)
{
	static const uint8_t code[] = {
		0xb9, 0x00, 0x80,       /* mov cx, 0x8000 */
		0xe2, 0xfe,             /* loop $ */
		0xa0, 0x00, 0x50,       /* mov al, [0x5000] */
		0x88, 0x06, 0x01, 0x50, /* mov [0x5001], al */
		0xfb, 0x90, 0x90,       /* sti; nop; nop */
		0xe6, 0xf4, 0xf4,       /* out 0xf4, al; hlt */
	};
	static const uint8_t handler[] = {0xc6, 0x06, 0x00, 0x50, 0x99, 0xcf};
	struct rig *r = new_rig(1, false);

	load(r, CODE, code, sizeof(code));
	load(r, HANDLER, handler, sizeof(handler));
	store_le16(r->ram->host + 4 * VECTOR, HANDLER);
	r->vector = VECTOR;
	loop_lock(r->loop);
	r->e->ops->set_intr(r->e, 0, true);
	loop_unlock(r->loop);
	begin(r, 1);
	wait_done(r);
	assert_true(r->done);
	assert_int_equal(r->ram->host[0x5001], 0);
	assert_int_equal(r->ram->host[0x5000], 0x99);
	free_rig(r);
}

static void application_processor_starts_by_sipi(void **state)
{
	static const uint8_t boot[] = {0xf4, 0xeb, 0xfd};           /* hlt; jmp */
	static const uint8_t ap[] = {0xb0, 0x42, 0xe6, 0xf4, 0xf4}; /* mov al, 0x42; out; hlt */
	struct rig *r = new_rig(2, false);

	load(r, CODE, boot, sizeof(boot));
	load(r, 0x8000, ap, sizeof(ap));
	begin(r, 2);
	loop_run_once(r->loop, 20000000);
	assert_false(r->done);
	loop_lock(r->loop);
	r->e->ops->init(r->e, 1);
	r->e->ops->sipi(r->e, 1, 0x08);
	loop_unlock(r->loop);
	wait_done(r);
	assert_true(r->done);
	assert_int_equal(r->done_value, 0x42);
	assert_int_equal(r->done_cpu, 1);
	pause_guest(r);
	assert_int_equal(state_of(r, 1).seg[S_CS].selector, 0x800);
	free_rig(r);
}

/* CPUID's hypervisor leaves: KVM's signature, and of its features only the clock and the I/O delay. */
static void guest_sees_kvm_and_the_features_that_a_reset_ends(void **state)
{
	static const uint8_t code[] = {
		0x66, 0xb8, 0x00, 0x00, 0x00, 0x40, /* mov eax, 0x40000000 */
		0x0f, 0xa2,                         /* cpuid */
		0x66, 0xa3, 0x00, 0x50,             /* mov [0x5000], eax */
		0x66, 0x89, 0x1e, 0x04, 0x50,       /* mov [0x5004], ebx */
		0x66, 0xb8, 0x01, 0x00, 0x00, 0x40, /* mov eax, 0x40000001 */
		0x0f, 0xa2,                         /* cpuid */
		0x66, 0xa3, 0x08, 0x50,             /* mov [0x5008], eax */
		0xe6, 0xf4, 0xf4,                   /* out 0xf4, al; hlt */
	};
	enum { CLOCK = 1 << 0, NO_IO_DELAY = 1 << 1, CLOCK2 = 1 << 3, STABLE = 1 << 24 };
	struct rig *r = new_rig(1, false);

	load(r, CODE, code, sizeof(code));
	begin(r, 1);
	wait_done(r);
	assert_true(r->done);
	assert_int_equal(load_le32(r->ram->host + 0x5000), 0x40000001);
	assert_memory_equal(r->ram->host + 0x5004, "KVMK", 4);
	assert_int_equal(load_le32(r->ram->host + 0x5008) &
				 ~(uint32_t)(CLOCK | NO_IO_DELAY | CLOCK2 | STABLE),
			 0);
	free_rig(r);
}

/* The page that the guest gave to the clock is not written any more after a reset. */
static void reset_ends_the_paravirtual_clock(void **state)
{
	static const uint8_t code[] = {
		0x66, 0xb9, 0x01, 0x4d, 0x56, 0x4b, /* mov ecx, 0x4b564d01 */
		0x66, 0xb8, 0x01, 0x50, 0x00, 0x00, /* mov eax, 0x5001: there, enabled */
		0x66, 0x31, 0xd2,                   /* xor edx, edx */
		0x0f, 0x30,                         /* wrmsr */
		0xe6, 0xf4, 0xeb, 0xfe,             /* out 0xf4, al; jmp $ */
	};
	struct rig *r = new_rig(1, false);
	struct error err = ERROR_INIT;

	load(r, CODE, code, sizeof(code));
	begin(r, 1);
	wait_done(r);
	assert_true(r->done);
	pause_guest(r);
	assert_int_equal(state_of(r, 0).kvm_system_time, 0x5001);
	struct cpu_state s = start_state(true);
	assert_int_equal(r->e->ops->set_state(r->e, 0, &s, &err), 0);
	assert_int_equal(state_of(r, 0).kvm_system_time, 0);
	free_rig(r);
}

/* The kernel's chips: a masked PIC's register keeps what is written until they are reset. */
static void kernel_chips_go_back_to_power_on(void **state)
{
	static const uint8_t code[] = {
		0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x08, 0xe6, 0x21, /* ICW1, ICW2 */
		0xb0, 0x04, 0xe6, 0x21, 0xb0, 0x01, 0xe6, 0x21, /* ICW3, ICW4 */
		0xb0, 0xa5, 0xe6, 0x21,                         /* mask */
		0xe4, 0x21, 0xe6, 0xf4,                         /* in al, 0x21; out 0xf4, al */
		0xeb, 0xfe,
	};
	static const uint8_t look[] = {0xe4, 0x21, 0xe6, 0xf4, 0xeb, 0xfe};
	struct rig *r = new_rig(1, true);
	struct error err = ERROR_INIT;

	assert_true(r->e->ops->has_irqchip(r->e));
	load(r, CODE, code, sizeof(code));
	begin(r, 1);
	wait_done(r);
	assert_true(r->done);
	assert_int_equal(r->done_value, 0xa5);
	loop_lock(r->loop);
	r->e->ops->pause(r->e);
	r->e->ops->irqchip_reset(r->e);
	struct cpu_state s = start_state(true);
	assert_int_equal(r->e->ops->set_state(r->e, 0, &s, &err), 0);
	load(r, CODE, look, sizeof(look));
	r->done = false;
	r->e->ops->resume(r->e);
	loop_unlock(r->loop);
	wait_done(r);
	assert_true(r->done);
	assert_int_not_equal(r->done_value, 0xa5);
	free_rig(r);
}

/* The kernel's timer interrupts through the kernel's PIC and wakes a halted CPU. */
static void kernel_timer_wakes_a_halted_cpu(void **state)
{
	static const uint8_t code[] = {
		0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x40, 0xe6, 0x21, /* ICW1, ICW2: base 0x40 */
		0xb0, 0x04, 0xe6, 0x21, 0xb0, 0x01, 0xe6, 0x21, /* ICW3, ICW4 */
		0xb0, 0xfe, 0xe6, 0x21,                         /* only IRQ 0 */
		0xb0, 0x34, 0xe6, 0x43,                         /* channel 0, mode 2 */
		0xb0, 0x00, 0xe6, 0x40, 0xb0, 0x10, 0xe6, 0x40, /* every 0x1000 */
		0xfb, 0xf4, 0xeb, 0xfd,                         /* sti; 1: hlt; jmp 1b */
	};
	static const uint8_t handler[] = {0xe6, 0xf4, 0xcf};
	struct rig *r = new_rig(1, true);

	load(r, CODE, code, sizeof(code));
	load(r, HANDLER, handler, sizeof(handler));
	store_le16(r->ram->host + 4 * VECTOR, HANDLER);
	begin(r, 1);
	wait_done(r);
	assert_true(r->done);
	free_rig(r);
}

static void probe_gives_a_verdict_with_a_reason(void **state)
{
	char reason[256] = "";
	enum kvm_verdict v = kvm_probe(reason);

	print_message("%s\n", reason);
	assert_true(v == KVM_USABLE || v == KVM_CANNOT_RUN_PC);
	assert_true(strlen(reason) > 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(probe_gives_a_verdict_with_a_reason),
		cmocka_unit_test(guest_reaches_a_port_and_a_paused_cpu_shows_the_state_behind_it),
		cmocka_unit_test(rep_insb_is_one_block),
		cmocka_unit_test(state_survives_a_round_trip),
		cmocka_unit_test(triple_fault_is_reported),
		cmocka_unit_test(interrupt_wakes_a_halted_cpu),
		cmocka_unit_test(interrupt_waits_for_the_window),
		cmocka_unit_test(application_processor_starts_by_sipi),
		cmocka_unit_test(guest_sees_kvm_and_the_features_that_a_reset_ends),
		cmocka_unit_test(reset_ends_the_paravirtual_clock),
		cmocka_unit_test(kernel_chips_go_back_to_power_on),
		cmocka_unit_test(kernel_timer_wakes_a_halted_cpu),
	};

	return RUN_WITH_KVM(tests);
}
