/* SPDX-License-Identifier: MIT */
/*
 * The KVM engine with real-mode guests of a few instructions. They run on every host that has
 * /dev/kvm, also where it has no hardware behind it. Port 0xF4 is "done".
 */
#include "core/current_cpu.h"
#include "core/iobus.h"
#include "core/memory.h"
#include "lib/bytes.h"
#include "lib/clock.h"
#include "lib/loop.h"
#include "lib/text.h"
#include "vmm/engine.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	PORT_DONE = 0xf4,
	PORT_SHADOW = 0xf5,
	PORT_DATA = 0x300,
	CODE = 0x1000,
	MMIO = 0xa0000,
	DIRTY_RAM = 0xb0000,
	ROM = 0xc0000,
	VECTOR = 0x40,
	HANDLER = 0x2000,
};

struct rig {
	struct memory *mem;
	struct iobus *io;
	struct loop *loop;
	struct clock *clock;
	struct engine *e;
	struct cpu_model model;
	struct mem_region *ram, *rom, *lfb;
	struct mem_mapping *shadow;
	bool done;
	uint32_t done_value;
	int done_cpu;
	unsigned block_reads, single_reads;
	uint8_t next_byte;
	bool triple_fault, internal_error;
	char detail[512];
	int vector; /* what ack answers next; -1: nothing */
	uint64_t apic_base;
	uint8_t mmio_log[16];
	unsigned mmio_count;
};

static uint32_t port_read(void *opaque, uint16_t port, unsigned size)
{
	struct rig *r = opaque;

	r->single_reads++;
	return r->next_byte++;
}

static void port_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct rig *r = opaque;

	if (port != PORT_DONE)
		return;
	r->done = true;
	r->done_value = value;
	r->done_cpu = current_cpu;
	loop_quit(r->loop);
}

static size_t port_read_block(void *opaque, uint16_t port, unsigned size, void *buf, size_t count)
{
	struct rig *r = opaque;
	uint8_t *p = buf;

	r->block_reads++;
	for (size_t i = 0; i < count * size; i++)
		p[i] = r->next_byte++;
	return count;
}

static const struct io_ops ports = {
	.read = port_read,
	.write = port_write,
	.read_block = port_read_block,
	.sizes = 1 | 2 | 4,
};

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0x5a5a5a00 + offset;
}

static void mmio_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct rig *r = opaque;

	if (r->mmio_count < sizeof(r->mmio_log))
		r->mmio_log[r->mmio_count++] = (uint8_t)value;
}

static const struct mmio_ops mmio = {
	.read = mmio_read, .write = mmio_write, .max_size = 4, .coalesce = true};

static int ack(void *opaque, unsigned cpu)
{
	struct rig *r = opaque;
	int vector = r->vector;

	r->vector = -1;
	r->e->ops->set_intr(r->e, cpu, false);
	return vector;
}

static void apic_base_changed(void *opaque, unsigned cpu, uint64_t value)
{
	((struct rig *)opaque)->apic_base = value;
}

static void event(void *opaque, unsigned cpu, enum engine_event what, const char *detail)
{
	struct rig *r = opaque;

	r->triple_fault |= what == ENGINE_TRIPLE_FAULT;
	r->internal_error |= what == ENGINE_INTERNAL_ERROR;
	snprintf(r->detail, sizeof(r->detail), "%s", detail);
	loop_quit(r->loop);
}

static struct rig *new_rig(unsigned cpus, bool irqchip)
{
	struct rig *r = xcalloc(1, sizeof(*r));
	struct error err = ERROR_INIT;

	r->vector = -1;
	r->loop = loop_new(&err);
	r->clock = clock_new(r->loop);
	r->mem = memory_new();
	r->io = iobus_new();
	iobus_add(r->io, "test", PORT_DONE, 1, &ports, r);
	iobus_add(r->io, "data", PORT_DATA, 4, &ports, r);
	r->ram = mem_region_new_ram(r->mem, "ram", 2 * MIB, &err);
	mem_mapping_set(mem_map(r->mem, r->ram, 0, 0, MMIO, MEM_PRIO_RAM), 0, MEM_RW);
	mem_mapping_set(mem_map(r->mem, r->ram, MIB, MIB, MIB, MEM_PRIO_RAM), MIB, MEM_RW);
	struct mem_region *io = mem_region_new_mmio(r->mem, "mmio", 4096, &mmio, r);
	mem_mapping_set(mem_map(r->mem, io, 0, MMIO, 4096, MEM_PRIO_VGA), MMIO, MEM_RW);
	r->lfb = mem_region_new_ram(r->mem, "lfb", 4 * 4096, &err);
	mem_mapping_set(mem_map(r->mem, r->lfb, 0, DIRTY_RAM, 4 * 4096, MEM_PRIO_VGA), DIRTY_RAM,
			MEM_RW);
	r->rom = mem_region_new_rom(r->mem, "rom", 8192, &err);
	/* The second page reads ROM and writes RAM, as PAM registers can have it. */
	mem_mapping_set(mem_map(r->mem, r->ram, ROM, ROM, 8192, MEM_PRIO_RAM), ROM, MEM_RW);
	mem_mapping_set(mem_map(r->mem, r->rom, 0, ROM, 4096, MEM_PRIO_ROM), ROM, MEM_RW);
	mem_mapping_set(mem_map(r->mem, r->rom, 4096, ROM + 4096, 4096, MEM_PRIO_ROM), ROM + 4096,
			MEM_R);
	assert_int_equal(cpu_model_parse("pentium3", &r->model, &err), 0);
	struct engine_config c = {
		.cpus = cpus,
		.model = &r->model,
		.kernel_irqchip = irqchip,
		.mem = r->mem,
		.io = r->io,
		.loop = r->loop,
		.clock = r->clock,
		.ack = ack,
		.apic_base_changed = apic_base_changed,
		.event = event,
		.opaque = r,
	};
	r->e = engine_new_kvm(&c, &err);
	if (!r->e)
		print_message("%s\n", err.text);
	assert_non_null(r->e);
	return r;
}

static void free_rig(struct rig *r)
{
	r->e->ops->free(r->e);
	memory_free(r->mem);
	iobus_free(r->io);
	clock_free(r->clock);
	loop_free(r->loop);
	free(r);
}

/* A CPU at 0000:CODE in real mode, or waiting for SIPI. */
static struct cpu_state start_state(bool bsp)
{
	struct cpu_state s;

	cpu_state_reset(&s, bsp, 0x673);
	if (bsp) {
		s.seg[S_CS].selector = 0;
		s.seg[S_CS].base = 0;
		s.eip = CODE;
		s.gpr[R_ESP] = 0x7000;
	}
	return s;
}

static void load(struct rig *r, uint32_t at, const void *code, size_t len)
{
	memcpy(r->ram->host + at, code, len);
}

static void begin(struct rig *r, unsigned cpus)
{
	struct error err = ERROR_INIT;

	for (unsigned i = 0; i < cpus; i++) {
		struct cpu_state s = start_state(i == 0);
		assert_int_equal(r->e->ops->set_state(r->e, i, &s, &err), 0);
	}
	assert_int_equal(r->e->ops->start(r->e, &err), 0);
	loop_lock(r->loop);
	clock_start(r->clock);
	r->e->ops->resume(r->e);
	loop_unlock(r->loop);
}

/* Runs the loop until the guest is done, or a minute has passed. */
static void wait_done(struct rig *r)
{
	bool over = false;

	/* loop_run_once() may return early once loop_quit() was called: count the time. */
	for (int i = 0; i < 6000 && !over; i++) {
		loop_run_once(r->loop, 0);
		usleep(10000);
		loop_lock(r->loop);
		over = r->done || r->triple_fault || r->internal_error;
		loop_unlock(r->loop);
	}
}

static void pause_guest(struct rig *r)
{
	loop_lock(r->loop);
	r->e->ops->pause(r->e);
	loop_unlock(r->loop);
}

static struct cpu_state state_of(struct rig *r, unsigned cpu)
{
	struct cpu_state s;
	struct error err = ERROR_INIT;

	assert_int_equal(r->e->ops->get_state(r->e, cpu, &s, &err), 0);
	return s;
}

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

static void writes_to_rom_are_dropped_and_behind_a_shadow_reach_ram(void **state)
{
	static const uint8_t code[] = {
		0xb8, 0x00, 0xc0,             /* mov ax, 0xc000 */
		0x8e, 0xd8,                   /* mov ds, ax */
		0xc6, 0x06, 0x00, 0x00, 0x55, /* mov byte [0], 0x55 */
		0xc6, 0x06, 0x00, 0x10, 0x66, /* mov byte [0x1000], 0x66 */
		0xa0, 0x00, 0x10,             /* mov al, [0x1000] */
		0xe6, 0xf4, 0xf4,             /* out 0xf4, al; hlt */
	};
	struct rig *r = new_rig(1, false);

	r->rom->host[0] = 0x11;
	r->rom->host[4096] = 0x22;
	load(r, CODE, code, sizeof(code));
	begin(r, 1);
	wait_done(r);
	assert_true(r->done);
	assert_int_equal(r->rom->host[0], 0x11);
	assert_int_equal(r->rom->host[4096], 0x22);
	assert_int_equal(r->ram->host[ROM], 0);
	assert_int_equal(r->ram->host[ROM + 4096], 0x66);
	assert_int_equal(r->done_value, 0x22);
	free_rig(r);
}

static void mmio_writes_arrive_in_order_before_the_next_port_access(void **state)
{
	static const uint8_t code[] = {
		0xb8, 0x00, 0xa0,             /* mov ax, 0xa000 */
		0x8e, 0xd8,                   /* mov ds, ax */
		0xc6, 0x06, 0x00, 0x00, 0x01, /* mov byte [0], 1 */
		0xc6, 0x06, 0x01, 0x00, 0x02, /* mov byte [1], 2 */
		0xc6, 0x06, 0x02, 0x00, 0x03, /* mov byte [2], 3 */
		0xa0, 0x07, 0x00,             /* mov al, [7] */
		0xe6, 0xf4, 0xf4,             /* out 0xf4, al; hlt */
	};
	struct rig *r = new_rig(1, false);

	load(r, CODE, code, sizeof(code));
	begin(r, 1);
	wait_done(r);
	assert_true(r->done);
	assert_int_equal(r->done_value, 0x07);
	assert_int_equal(r->mmio_count, 3);
	assert_memory_equal(r->mmio_log, "\1\2\3", 3);
	free_rig(r);
}

/* A guest that never leaves KVM_RUN again: what it wrote to a device may still stand in the queue. */
static void queued_writes_arrive_before_the_monitor_reads(void **state)
{
	static const uint8_t code[] = {
		0xe6, 0xf4,                   /* out 0xf4, al */
		0xb8, 0x00, 0xa0,             /* mov ax, 0xa000 */
		0x8e, 0xd8,                   /* mov ds, ax */
		0xc6, 0x06, 0x00, 0x00, 0x07, /* mov byte [0], 7 */
		0x2e, 0xc6, 0x06, 0x00, 0x50, /* mov byte [cs:0x5000], 1 */
		0x01, 0xeb, 0xfe,             /* jmp $ */
	};
	struct rig *r = new_rig(1, false);
	uint8_t byte;

	load(r, CODE, code, sizeof(code));
	begin(r, 1);
	wait_done(r);
	for (int i = 0; i < 6000; i++) {
		if (__atomic_load_n(&r->ram->host[0x5000], __ATOMIC_ACQUIRE))
			break;
		usleep(10000);
	}
	assert_int_equal(r->ram->host[0x5000], 1);
	loop_lock(r->loop);
	mem_read(r->mem, MMIO, &byte, 1);
	assert_int_equal(r->mmio_count, 1);
	assert_int_equal(r->mmio_log[0], 7);
	loop_unlock(r->loop);
	free_rig(r);
}

static void dirty_pages_are_those_written(void **state)
{
	static const uint8_t code[] = {
		0xb8, 0x00, 0xb0,             /* mov ax, 0xb000 */
		0x8e, 0xd8,                   /* mov ds, ax */
		0xc6, 0x06, 0x00, 0x20, 0x55, /* mov byte [0x2000], 0x55 */
		0xe6, 0xf4, 0xf4,             /* out 0xf4, al; hlt */
	};
	struct rig *r = new_rig(1, false);
	uint64_t bits[1] = {0};

	mem_region_log_dirty(r->mem, r->lfb, true);
	mem_dirty_fetch(r->mem, r->lfb, 0, 4, bits);
	load(r, CODE, code, sizeof(code));
	begin(r, 1);
	wait_done(r);
	pause_guest(r);
	assert_true(r->done);
	loop_lock(r->loop);
	bits[0] = 0;
	assert_true(mem_dirty_fetch(r->mem, r->lfb, 0, 4, bits));
	assert_int_equal(bits[0], 1 << 2);
	assert_false(mem_dirty_fetch(r->mem, r->lfb, 0, 4, bits));
	loop_unlock(r->loop);
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

static void closed_a20_gate_wraps_the_second_megabyte(void **state)
{
	static const uint8_t code[] = {
		0xb8, 0xff, 0xff, /* mov ax, 0xffff */
		0x8e, 0xd8,       /* mov ds, ax */
		0xa0, 0x10, 0x50, /* mov al, [0x5010]: 0x105000 */
		0xe6, 0xf4, 0xf4, /* out 0xf4, al; hlt */
	};

	for (int open = 0; open < 2; open++) {
		struct rig *r = new_rig(1, false);
		memory_set_a20(r->mem, open);
		load(r, CODE, code, sizeof(code));
		r->ram->host[0x5000] = 0x11;
		r->ram->host[0x105000] = 0x22;
		begin(r, 1);
		wait_done(r);
		assert_true(r->done);
		assert_int_equal(r->done_value, open ? 0x22 : 0x11);
		free_rig(r);
	}
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

static unsigned slots_of(struct rig *r)
{
	struct strbuf text = STRBUF_INIT;
	unsigned slots = 0;

	r->e->ops->describe(r->e, &text);
	const char *at = strstr(strbuf_str(&text), " memory slots");
	while (at && at[-1] >= '0' && at[-1] <= '9')
		at--;
	if (at)
		slots = (unsigned)strtoul(at, NULL, 10);
	strbuf_free(&text);
	return slots;
}

/* Construction and reset change the view often: the kernel hears of the outcome alone. */
static void slots_follow_the_view_when_the_guest_goes_on(void **state)
{
	static const uint8_t code[] = {0xe6, 0xf4, 0xeb, 0xfe}; /* out 0xf4, al; jmp $ */
	struct rig *r = new_rig(1, false);

	load(r, CODE, code, sizeof(code));
	assert_int_equal(slots_of(r), 0);
	begin(r, 1);
	wait_done(r);
	unsigned running = slots_of(r);
	assert_true(running >= 4);
	loop_lock(r->loop);
	r->e->ops->pause(r->e);
	struct mem_mapping *more = mem_map(r->mem, r->lfb, 0, 16 * MIB, r->lfb->size, MEM_PRIO_PCI);
	mem_mapping_set(more, 16 * MIB, MEM_RW);
	assert_int_equal(slots_of(r), running);
	r->e->ops->resume(r->e);
	assert_int_equal(slots_of(r), running + 1);
	loop_unlock(r->loop);
	free_rig(r);
}

static void switch_shadow(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct rig *r = opaque;

	mem_mapping_set(r->shadow, ROM, value & 1 ? MEM_RW : 0);
	if (value == 0xff)
		port_write(r, PORT_DONE, size, value);
}

static const struct io_ops shadow_port = {.write = switch_shadow};

/*
 * One CPU maps RAM over ROM and away again, 255 times, while the other one runs in that ROM. The
 * RAM holds the same code; were the other CPU not kept out meanwhile, it would meet a hole.
 */
static void code_runs_on_while_another_cpu_switches_its_memory(void **state)
{
	static const uint8_t boot[] = {
		0x30, 0xc0,                               /* xor al, al */
		0xfe, 0xc0, 0xe6, 0xf5, 0x3c, 0xff, 0x75, /* 1: inc al; out 0xf5, al; cmp al, 255 */
		0xf8, 0xeb, 0xfe,                         /* jne 1b; jmp $ */
	};
	static const uint8_t enter[] = {0xea, 0x00, 0x00, 0x00, 0xc0}; /* jmp 0xc000:0 */
	/* 1: mov [ds:0x5000], ax; inc ax; jmp 1b: ds is 0. */
	static const uint8_t spin[] = {0xa3, 0x00, 0x50, 0x40, 0xeb, 0xfa};
	struct rig *r = new_rig(2, false);
	struct error err = ERROR_INIT;

	iobus_add(r->io, "shadow", PORT_SHADOW, 1, &shadow_port, r);
	struct mem_region *ram = mem_region_new_ram(r->mem, "shadow", 4096, &err);
	r->shadow = mem_map(r->mem, ram, 0, ROM, 4096, MEM_PRIO_PAM);
	memcpy(ram->host, spin, sizeof(spin));
	memcpy(r->rom->host, spin, sizeof(spin));
	load(r, CODE, boot, sizeof(boot));
	load(r, 0x8000, enter, sizeof(enter));
	begin(r, 2);
	loop_lock(r->loop);
	r->e->ops->init(r->e, 1);
	r->e->ops->sipi(r->e, 1, 0x08);
	loop_unlock(r->loop);
	wait_done(r);
	pause_guest(r);
	assert_true(r->done);
	assert_false(r->internal_error);
	assert_false(r->triple_fault);
	struct cpu_state s = state_of(r, 1);
	assert_int_equal(s.activity, CPU_RUNNING);
	assert_true(s.seg[S_CS].base == ROM || s.seg[S_CS].base == 0x8000);
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
		cmocka_unit_test(writes_to_rom_are_dropped_and_behind_a_shadow_reach_ram),
		cmocka_unit_test(mmio_writes_arrive_in_order_before_the_next_port_access),
		cmocka_unit_test(queued_writes_arrive_before_the_monitor_reads),
		cmocka_unit_test(dirty_pages_are_those_written),
		cmocka_unit_test(triple_fault_is_reported),
		cmocka_unit_test(interrupt_wakes_a_halted_cpu),
		cmocka_unit_test(interrupt_waits_for_the_window),
		cmocka_unit_test(application_processor_starts_by_sipi),
		cmocka_unit_test(closed_a20_gate_wraps_the_second_megabyte),
		cmocka_unit_test(guest_sees_kvm_and_the_features_that_a_reset_ends),
		cmocka_unit_test(reset_ends_the_paravirtual_clock),
		cmocka_unit_test(slots_follow_the_view_when_the_guest_goes_on),
		cmocka_unit_test(code_runs_on_while_another_cpu_switches_its_memory),
		cmocka_unit_test(kernel_chips_go_back_to_power_on),
		cmocka_unit_test(kernel_timer_wakes_a_halted_cpu),
	};
	struct error err = ERROR_INIT;

	if (kvm_check_access(&err) < 0) {
		printf("SKIP: %s\n", err.text);
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
