/* SPDX-License-Identifier: MIT */
/*
 * The KVM engine's memory: ROM and its shadow, queued writes to devices, dirty pages, the A20 gate,
 * and the kernel's slots, which follow the view while CPUs run.
 */
#include "tests/unit/vmm/kvm_rig.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_to_rom_are_dropped_and_behind_a_shadow_reach_ram),
		cmocka_unit_test(mmio_writes_arrive_in_order_before_the_next_port_access),
		cmocka_unit_test(queued_writes_arrive_before_the_monitor_reads),
		cmocka_unit_test(dirty_pages_are_those_written),
		cmocka_unit_test(closed_a20_gate_wraps_the_second_megabyte),
		cmocka_unit_test(slots_follow_the_view_when_the_guest_goes_on),
		cmocka_unit_test(code_runs_on_while_another_cpu_switches_its_memory),
	};

	return RUN_WITH_KVM(tests);
}
