/* SPDX-License-Identifier: MIT */
/*
 * A machine of the KVM engine without devices, for guests of a few instructions in real mode: RAM,
 * ROM with a shadow, a window that logs writes, a port that counts, and port 0xF4, which is "done".
 */
#ifndef TESTS_UNIT_VMM_KVM_RIG_H
#define TESTS_UNIT_VMM_KVM_RIG_H

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

static inline uint32_t port_read(void *opaque, uint16_t port, unsigned size)
{
	struct rig *r = opaque;

	r->single_reads++;
	return r->next_byte++;
}

static inline void port_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct rig *r = opaque;

	if (port != PORT_DONE)
		return;
	r->done = true;
	r->done_value = value;
	r->done_cpu = current_cpu;
	loop_quit(r->loop);
}

static inline size_t port_read_block(void *opaque, uint16_t port, unsigned size, void *buf,
				     size_t count)
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

static inline uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0x5a5a5a00 + offset;
}

static inline void mmio_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct rig *r = opaque;

	if (r->mmio_count < sizeof(r->mmio_log))
		r->mmio_log[r->mmio_count++] = (uint8_t)value;
}

static const struct mmio_ops mmio = {
	.read = mmio_read, .write = mmio_write, .max_size = 4, .coalesce = true};

static inline int ack(void *opaque, unsigned cpu)
{
	struct rig *r = opaque;
	int vector = r->vector;

	r->vector = -1;
	r->e->ops->set_intr(r->e, cpu, false);
	return vector;
}

static inline void apic_base_changed(void *opaque, unsigned cpu, uint64_t value)
{
	((struct rig *)opaque)->apic_base = value;
}

static inline void event(void *opaque, unsigned cpu, enum engine_event what, const char *detail)
{
	struct rig *r = opaque;

	r->triple_fault |= what == ENGINE_TRIPLE_FAULT;
	r->internal_error |= what == ENGINE_INTERNAL_ERROR;
	snprintf(r->detail, sizeof(r->detail), "%s", detail);
	loop_quit(r->loop);
}

static inline struct rig *new_rig(unsigned cpus, bool irqchip)
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

static inline void free_rig(struct rig *r)
{
	r->e->ops->free(r->e);
	memory_free(r->mem);
	iobus_free(r->io);
	clock_free(r->clock);
	loop_free(r->loop);
	free(r);
}

/* A CPU at 0000:CODE in real mode, or waiting for SIPI. */
static inline struct cpu_state start_state(bool bsp)
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

static inline void load(struct rig *r, uint32_t at, const void *code, size_t len)
{
	memcpy(r->ram->host + at, code, len);
}

static inline void begin(struct rig *r, unsigned cpus)
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
static inline void wait_done(struct rig *r)
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

static inline void pause_guest(struct rig *r)
{
	loop_lock(r->loop);
	r->e->ops->pause(r->e);
	loop_unlock(r->loop);
}

static inline struct cpu_state state_of(struct rig *r, unsigned cpu)
{
	struct cpu_state s;
	struct error err = ERROR_INIT;

	assert_int_equal(r->e->ops->get_state(r->e, cpu, &s, &err), 0);
	return s;
}

/* Runs the tests where there is /dev/kvm, and says so where there is none. */
#define RUN_WITH_KVM(tests)                                                                        \
	({                                                                                         \
		struct error err = ERROR_INIT;                                                     \
		bool there = kvm_check_access(&err) == 0;                                          \
		if (!there)                                                                        \
			printf("SKIP: %s\n", err.text);                                            \
		there ? cmocka_run_group_tests(tests, NULL, NULL) : 0;                             \
	})

#endif
