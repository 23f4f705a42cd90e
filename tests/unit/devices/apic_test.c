/* SPDX-License-Identifier: MIT */
#include "core/current_cpu.h"
#include "devices/ioapic.h"
#include "devices/lapic.h"
#include "rig.h"

enum { CPUS = 4, LAPIC = 0xFEE00000, IOAPIC = 0xFEC00000 };

struct fixture {
	struct rig rig;
	struct lapic_set *set;
	struct ioapic *io;
	bool intr[CPUS];
	unsigned nmis[CPUS], inits[CPUS], sipis[CPUS];
	uint8_t sipi_vector;
	int pic_vector;
};

static void set_intr(void *opaque, unsigned cpu, bool level)
{
	((struct fixture *)opaque)->intr[cpu] = level;
}

static void nmi(void *opaque, unsigned cpu)
{
	((struct fixture *)opaque)->nmis[cpu]++;
}

static void init(void *opaque, unsigned cpu)
{
	((struct fixture *)opaque)->inits[cpu]++;
}

static void sipi(void *opaque, unsigned cpu, uint8_t vector)
{
	struct fixture *f = opaque;
	f->sipis[cpu]++;
	f->sipi_vector = vector;
}

static int pic_ack(void *opaque)
{
	return ((struct fixture *)opaque)->pic_vector;
}

static const struct lapic_ops ops = {set_intr, nmi, init, sipi, pic_ack};

static uint32_t lread(struct fixture *f, int cpu, uint32_t reg)
{
	current_cpu = cpu;
	return (uint32_t)mem_mmio_read(f->rig.env.mem, LAPIC + reg, 4);
}

static void lwrite(struct fixture *f, int cpu, uint32_t reg, uint32_t value)
{
	current_cpu = cpu;
	mem_mmio_write(f->rig.env.mem, LAPIC + reg, 4, value);
}

static void iowrite(struct fixture *f, uint8_t reg, uint32_t value)
{
	mem_mmio_write(f->rig.env.mem, IOAPIC, 4, reg);
	mem_mmio_write(f->rig.env.mem, IOAPIC + 0x10, 4, value);
}

static uint32_t ioread(struct fixture *f, uint8_t reg)
{
	mem_mmio_write(f->rig.env.mem, IOAPIC, 4, reg);
	return (uint32_t)mem_mmio_read(f->rig.env.mem, IOAPIC + 0x10, 4);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	rig_init(&f->rig);
	f->set = lapic_set_new(&f->rig.env, CPUS, &ops, f);
	f->io = ioapic_new(&f->rig.env, IOAPIC, f->set, 0);
	state_reset_all(f->rig.env.states);
	for (int i = 0; i < CPUS; i++)
		lwrite(f, i, 0xF0, 0x1FF);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	current_cpu = -1;
	ioapic_free(f->io);
	lapic_set_free(f->set);
	rig_fini(&f->rig);
	free(f);
	return 0;
}

static void registers_have_reset_values(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(lread(f, 2, 0x20), 2u << 24);
	assert_int_equal(lread(f, 0, 0x30), 0x50014);
	assert_int_equal(lread(f, 0, 0xE0), 0xFFFFFFFF);
	assert_int_equal(lread(f, 1, 0x350), 0x10000);
	assert_int_equal(lread(f, 0, 0x350), 0x700);
	assert_int_equal(lapic_get_base(f->set, 0), 0xFEE00900);
	assert_int_equal(lapic_get_base(f->set, 1), 0xFEE00800);
	assert_int_equal(ioread(f, 1), 0x170011);
	assert_int_equal(ioread(f, 0x10), 0x10000);
}

static void priorities_nest(void **state)
{
	struct fixture *f = *state;
	lwrite(f, 0, 0x300, 0x40000 | 0x51); /* self */
	assert_true(f->intr[0]);
	assert_int_equal(lapic_ack(f->set, 0), 0x51);
	assert_false(f->intr[0]);
	assert_int_equal(lread(f, 0, 0x100 + 0x20), 1u << (0x51 - 0x40));
	assert_int_equal(lread(f, 0, 0xA0), 0x50);
	lwrite(f, 0, 0x300, 0x40000 | 0x5F); /* the same class waits */
	assert_false(f->intr[0]);
	lwrite(f, 0, 0x300, 0x40000 | 0x61);
	assert_true(f->intr[0]);
	assert_int_equal(lapic_ack(f->set, 0), 0x61);
	lwrite(f, 0, 0xB0, 0);
	assert_false(f->intr[0]);
	lwrite(f, 0, 0xB0, 0);
	assert_int_equal(lapic_ack(f->set, 0), 0x5F);
	lwrite(f, 0, 0xB0, 0);
	lwrite(f, 0, 0x80, 0x70);
	lwrite(f, 0, 0x300, 0x40000 | 0x7F);
	assert_false(f->intr[0]);
	assert_int_equal(lapic_ack(f->set, 0), -1);
	lwrite(f, 0, 0x80, 0x60);
	assert_true(f->intr[0]);
}

static void ipis_reach_whom_they_name(void **state)
{
	struct fixture *f = *state;
	lwrite(f, 0, 0x310, 2u << 24);
	lwrite(f, 0, 0x300, 0x40);
	assert_true(f->intr[2] && !f->intr[0] && !f->intr[1] && !f->intr[3]);
	lwrite(f, 0, 0x300, 0xC0000 | 0x400); /* NMI to all but self */
	assert_true(!f->nmis[0] && f->nmis[1] && f->nmis[2] && f->nmis[3]);
	lwrite(f, 1, 0x300, 0x80000 | 0x41); /* all */
	assert_true(f->intr[0] && f->intr[1] && f->intr[3]);
	lwrite(f, 0, 0x310, 1u << 24);
	lwrite(f, 0, 0x300, 0xC500); /* INIT, assert, level */
	assert_int_equal(f->inits[1], 1);
	assert_int_equal(lread(f, 1, 0xF0), 0xFF);
	assert_false(f->intr[1]);
	lwrite(f, 0, 0x300, 0x8500); /* INIT level de-assert does nothing */
	assert_int_equal(f->inits[1], 1);
	lwrite(f, 0, 0x300, 0x4699);
	assert_int_equal(f->sipis[1], 1);
	assert_int_equal(f->sipi_vector, 0x99);
}

static void logical_destinations_match_flat_and_cluster(void **state)
{
	struct fixture *f = *state;
	for (int i = 0; i < CPUS; i++)
		lwrite(f, i, 0xD0, 1u << (24 + i));
	struct apic_message msg = {.dest = 0x0A, .logical = true, .vector = 0x40};
	lapic_deliver(f->set, &msg);
	assert_true(!f->intr[0] && f->intr[1] && !f->intr[2] && f->intr[3]);
	for (int i = 0; i < CPUS; i++) {
		lwrite(f, i, 0xE0, 0x0FFFFFFF);
		lwrite(f, i, 0xD0, (uint32_t)((i / 2) << 4 | 1 << (i & 1)) << 24);
	}
	msg.dest = 0x11; /* cluster 1, first */
	lapic_deliver(f->set, &msg);
	assert_true(f->intr[2] && !f->intr[0]);
}

static void lowest_priority_picks_the_idlest_and_takes_turns(void **state)
{
	struct fixture *f = *state;
	for (int i = 0; i < CPUS; i++)
		lwrite(f, i, 0xD0, 1u << (24 + i));
	lwrite(f, 0, 0x80, 0x20);
	lwrite(f, 2, 0x80, 0x20);
	lwrite(f, 3, 0x80, 0x20);
	struct apic_message msg = {
		.dest = 0xFF, .logical = true, .mode = APIC_LOWEST, .vector = 0x40};
	lapic_deliver(f->set, &msg);
	assert_true(f->intr[1] && !f->intr[0] && !f->intr[2] && !f->intr[3]);
	lwrite(f, 1, 0x80, 0x90);
	msg.vector = 0x41;
	lapic_deliver(f->set, &msg);
	assert_true(f->intr[2]);
	msg.vector = 0x31;
	lwrite(f, 2, 0x80, 0x90);
	lapic_deliver(f->set, &msg);
	assert_true(f->intr[3] || f->intr[0]);
}

static void lint0_passes_the_pic_on(void **state)
{
	struct fixture *f = *state;
	struct irq_line lint0 = lapic_lint0(f->set);
	f->pic_vector = 0x08;
	lwrite(f, 0, 0x350, 0x700);
	irq_raise(&lint0);
	assert_true(f->intr[0] && !f->intr[1]);
	assert_int_equal(lapic_ack(f->set, 0), 0x08);
	assert_true(f->intr[0]); /* the line is still up */
	lwrite(f, 0, 0x350, 0x10700);
	assert_false(f->intr[0]);
	assert_int_equal(lapic_ack(f->set, 0), -1);
	/* Globally disabled: LINT0 is INTR. */
	lapic_set_base(f->set, 0, 0xFEE00000);
	assert_true(f->intr[0]);
	assert_int_equal(lapic_ack(f->set, 0), 0x08);
}

static void the_bsp_takes_pic_interrupts_after_reset(void **state)
{
	struct fixture *f = *state;
	struct irq_line lint0 = lapic_lint0(f->set);
	state_reset_all(f->rig.env.states);
	irq_raise(&lint0);
	assert_true(f->intr[0] && !f->intr[1]);
}

static void the_timer_counts_and_interrupts(void **state)
{
	struct fixture *f = *state;
	lwrite(f, 0, 0x3E0, 3); /* by 16 */
	lwrite(f, 0, 0x320, 0x10000);
	lwrite(f, 0, 0x380, 1000);
	advance(f->rig.env.clock, 1600);
	assert_int_equal(lread(f, 0, 0x390), 900);
	lwrite(f, 0, 0x320, 0x30);
	advance(f->rig.env.clock, 14399);
	assert_false(f->intr[0]);
	advance(f->rig.env.clock, 1);
	assert_int_equal(lapic_ack(f->set, 0), 0x30);
	assert_int_equal(lread(f, 0, 0x390), 0);
	lwrite(f, 0, 0xB0, 0);
	lwrite(f, 0, 0x3E0, 0xB); /* by 1 */
	lwrite(f, 0, 0x320, 0x20031);
	lwrite(f, 0, 0x380, 1000000);
	unsigned ticks = 0;
	for (int i = 0; i < 100; i++) {
		advance(f->rig.env.clock, 100000);
		if (f->intr[0]) {
			assert_int_equal(lapic_ack(f->set, 0), 0x31);
			lwrite(f, 0, 0xB0, 0);
			ticks++;
		}
	}
	assert_int_equal(ticks, 10);
	advance(f->rig.env.clock, 250000);
	assert_int_equal(lread(f, 0, 0x390), 750000);
	lwrite(f, 0, 0x380, 0);
	advance(f->rig.env.clock, 5000000);
	assert_false(f->intr[0]);
}

static void errors_are_collected_until_written(void **state)
{
	struct fixture *f = *state;
	lwrite(f, 0, 0x370, 0xFE);
	lwrite(f, 0, 0x300, 0x40000 | 0x05);
	assert_int_equal(lread(f, 0, 0x280), 0);
	assert_int_equal(lapic_ack(f->set, 0), 0xFE);
	lwrite(f, 0, 0x280, 0);
	assert_int_equal(lread(f, 0, 0x280), 0x20);
	lread(f, 0, 0x3F0);
	lwrite(f, 0, 0x280, 0);
	assert_int_equal(lread(f, 0, 0x280), 0x80);
}

static void software_disable_masks(void **state)
{
	struct fixture *f = *state;
	lwrite(f, 1, 0x350, 0x700);
	lwrite(f, 1, 0xF0, 0xFF);
	assert_int_equal(lread(f, 1, 0x350), 0x10700);
	lwrite(f, 1, 0x350, 0x700);
	assert_int_equal(lread(f, 1, 0x350), 0x10700);
	struct apic_message msg = {.dest = 1, .vector = 0x40};
	lapic_deliver(f->set, &msg);
	assert_false(f->intr[1]);
	msg.mode = APIC_NMI;
	lapic_deliver(f->set, &msg);
	assert_int_equal(f->nmis[1], 1);
}

static void the_page_moves_and_disappears(void **state)
{
	struct fixture *f = *state;
	for (unsigned i = 0; i < CPUS; i++)
		lapic_set_base(f->set, i, 0xFED00800);
	current_cpu = 3;
	assert_int_equal(mem_mmio_read(f->rig.env.mem, 0xFED00020, 4), 3u << 24);
	assert_int_equal(mem_mmio_read(f->rig.env.mem, 0xFEE00020, 4), 0xFFFFFFFF);
	for (unsigned i = 0; i < CPUS; i++)
		lapic_set_base(f->set, i, 0xFED00000);
	assert_int_equal(mem_mmio_read(f->rig.env.mem, 0xFED00020, 4), 0xFFFFFFFF);
}

static void msis_are_decoded(void **state)
{
	struct fixture *f = *state;
	lapic_msi(f->set, 0xFEE03000, 0x4077);
	assert_int_equal(lapic_ack(f->set, 3), 0x77);
}

static void ioapic_edges_are_sent_once_and_lost_when_masked(void **state)
{
	struct fixture *f = *state;
	struct irq_line line = ioapic_line(f->io, 4);
	irq_pulse(&line);
	iowrite(f, 0x18, 0x34);
	iowrite(f, 0x19, 1u << 24);
	assert_false(f->intr[1]);
	irq_raise(&line);
	assert_int_equal(lapic_ack(f->set, 1), 0x34);
	assert_false(f->intr[1]);
	assert_int_equal(ioread(f, 0x18), 0x34);
	assert_int_equal(ioread(f, 0x19), 1u << 24);
}

static void ioapic_levels_repeat_after_eoi(void **state)
{
	struct fixture *f = *state;
	struct irq_line line = ioapic_line(f->io, 16);
	iowrite(f, 0x30, 0x18000 | 0x45);
	irq_raise(&line);
	assert_false(f->intr[0]);
	iowrite(f, 0x30, 0x8000 | 0x45);
	assert_int_equal(ioread(f, 0x30), 0xC045);
	assert_int_equal(lapic_ack(f->set, 0), 0x45);
	assert_int_equal(lread(f, 0, 0x180 + 0x20), 1u << 5);
	lwrite(f, 0, 0xB0, 0);
	assert_int_equal(ioread(f, 0x30), 0xC045); /* sent again */
	assert_int_equal(lapic_ack(f->set, 0), 0x45);
	irq_lower(&line);
	lwrite(f, 0, 0xB0, 0);
	assert_int_equal(ioread(f, 0x30), 0x8045);
	assert_false(f->intr[0]);
}

static void ioapic_registers_are_bounded(void **state)
{
	struct fixture *f = *state;
	for (unsigned reg = 0; reg < 256; reg++)
		iowrite(f, (uint8_t)reg, 0xFFFFFFFF);
	for (unsigned reg = 0x40; reg < 256; reg++)
		assert_int_equal(ioread(f, (uint8_t)reg), 0);
	assert_int_equal(ioread(f, 0), 0x0F000000);
	assert_int_equal(ioread(f, 0x10), 0x1AFFF);
	assert_null(ioapic_line(f->io, 24).set);
}

static void state_survives_saving(void **state)
{
	struct fixture *f = *state;
	struct irq_line line = ioapic_line(f->io, 16);
	iowrite(f, 0x30, 0x8000 | 0x45);
	irq_raise(&line);
	lwrite(f, 0, 0x320, 0x20031);
	lwrite(f, 0, 0x380, 1000000);
	rig_save_reset_load(&f->rig);
	assert_true(f->intr[0]);
	assert_int_equal(lapic_ack(f->set, 0), 0x45);
	advance(f->rig.env.clock, 5000000);
	lwrite(f, 0, 0xB0, 0);
	assert_int_equal(lapic_ack(f->set, 0), 0x45);
}

/* Time goes on while the registers are written: even the shortest one-shot must fire. */
static void the_shortest_one_shot_fires(void **state)
{
	struct fixture *f = *state;

	lwrite(f, 0, 0x3E0, 0x0B); /* divide by 1 */
	lwrite(f, 0, 0x320, 0x41);
	f->rig.env.clock->step = 100;
	lwrite(f, 0, 0x380, 1);
	advance(f->rig.env.clock, 1000);
	assert_true(f->intr[0]);
	assert_int_equal(lapic_ack(f->set, 0), 0x41);
	lwrite(f, 0, 0xB0, 0);
	advance(f->rig.env.clock, 1000000);
	assert_false(f->intr[0]);
}

/* The loop is late; what is over by the clock is not undone by writing the registers. */
static void a_late_expiry_is_not_lost(void **state)
{
	struct fixture *f = *state;

	lwrite(f, 0, 0x3E0, 0x0B);
	lwrite(f, 0, 0x320, 0x41);
	lwrite(f, 0, 0x380, 500);
	f->rig.env.clock->now += 1000;
	lwrite(f, 0, 0x320, 0x10041); /* masked, too late */
	assert_true(f->intr[0]);
	assert_int_equal(lapic_ack(f->set, 0), 0x41);
	advance(f->rig.env.clock, 1000);
	assert_false(f->intr[0]);
}

/* A period of one tick is merged into something that the event loop can stand. */
static void the_shortest_period_is_bounded(void **state)
{
	struct fixture *f = *state;
	unsigned interrupts = 0;

	lwrite(f, 0, 0x3E0, 0x0B);
	lwrite(f, 0, 0x320, 0x20041);
	lwrite(f, 0, 0x380, 1);
	for (int i = 0; i < 1000; i++) {
		advance(f->rig.env.clock, 1000);
		if (f->intr[0]) {
			interrupts++;
			assert_int_equal(lapic_ack(f->set, 0), 0x41);
			lwrite(f, 0, 0xB0, 0);
		}
	}
	assert_in_range(interrupts, 40, 51); /* in a millisecond */
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(registers_have_reset_values),
		T(priorities_nest),
		T(ipis_reach_whom_they_name),
		T(logical_destinations_match_flat_and_cluster),
		T(lowest_priority_picks_the_idlest_and_takes_turns),
		T(lint0_passes_the_pic_on),
		T(the_bsp_takes_pic_interrupts_after_reset),
		T(the_timer_counts_and_interrupts),
		T(the_shortest_one_shot_fires),
		T(a_late_expiry_is_not_lost),
		T(the_shortest_period_is_bounded),
		T(errors_are_collected_until_written),
		T(software_disable_masks),
		T(the_page_moves_and_disappears),
		T(msis_are_decoded),
		T(ioapic_edges_are_sent_once_and_lost_when_masked),
		T(ioapic_levels_repeat_after_eoi),
		T(ioapic_registers_are_bounded),
		T(state_survives_saving),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
