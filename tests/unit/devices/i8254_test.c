/* SPDX-License-Identifier: MIT */
#include "devices/i8254.h"
#include "devices/pcspeaker.h"
#include "rig.h"

struct fixture {
	struct rig rig;
	struct i8254 *pit;
	struct pcspeaker *spk;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	rig_init(&f->rig);
	f->pit = i8254_new(&f->rig.env, rig_line(&f->rig, 0));
	f->spk = pcspeaker_new(&f->rig.env, f->pit);
	state_reset_all(f->rig.env.states);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	pcspeaker_free(f->spk);
	i8254_free(f->pit);
	rig_fini(&f->rig);
	free(f);
	return 0;
}

/* Moves the clock to the moment of the tick that is `ticks` after the current one. */
static void tick(struct fixture *f, uint64_t ticks)
{
	uint64_t target = ns_to_ticks(f->rig.env.clock->now, PIT_HZ) + ticks;
	advance(f->rig.env.clock, ticks_to_ns(target, PIT_HZ) - f->rig.env.clock->now);
}

static void program(struct fixture *f, unsigned channel, uint8_t control, uint16_t count)
{
	outb(&f->rig, 0x43, (uint8_t)(channel << 6 | 0x30 | control));
	outb(&f->rig, (uint16_t)(0x40 + channel), (uint8_t)count);
	outb(&f->rig, (uint16_t)(0x40 + channel), (uint8_t)(count >> 8));
}

static uint16_t latched(struct fixture *f, unsigned channel)
{
	outb(&f->rig, 0x43, (uint8_t)(channel << 6));
	uint8_t low = inb(&f->rig, (uint16_t)(0x40 + channel));
	return (uint16_t)(low | inb(&f->rig, (uint16_t)(0x40 + channel)) << 8);
}

static uint8_t status(struct fixture *f, unsigned channel)
{
	outb(&f->rig, 0x43, (uint8_t)(0xE0 | 2 << channel));
	return inb(&f->rig, (uint16_t)(0x40 + channel));
}

static bool out2(struct fixture *f)
{
	return inb(&f->rig, 0x61) & 0x20;
}

static void mode_0_rises_at_terminal_count(void **state)
{
	struct fixture *f = *state;
	program(f, 0, 0, 1000);
	assert_false(f->rig.line[0]);
	tick(f, 1000);
	assert_int_equal(latched(f, 0), 1);
	assert_int_equal(f->rig.edges[0], 0);
	tick(f, 1); /* N + 1 ticks after the write */
	assert_int_equal(f->rig.edges[0], 1);
	assert_true(f->rig.line[0]);
	assert_int_equal(latched(f, 0), 0);
	tick(f, 1);
	assert_int_equal(latched(f, 0), 0xFFFF);
	tick(f, 200000);
	assert_int_equal(f->rig.edges[0], 1);
}

static void mode_0_first_byte_stops_counting(void **state)
{
	struct fixture *f = *state;
	program(f, 0, 0, 100);
	tick(f, 50);
	outb(&f->rig, 0x40, 10);
	tick(f, 1000);
	assert_int_equal(f->rig.edges[0], 0);
	outb(&f->rig, 0x40, 0);
	tick(f, 11);
	assert_int_equal(f->rig.edges[0], 1);
}

static void mode_2_divides(void **state)
{
	struct fixture *f = *state;
	program(f, 0, 4, 11932);
	advance(f->rig.env.clock, NS_PER_SEC);
	assert_in_range(f->rig.edges[0], 99, 100);
	assert_int_equal(status(f, 0) & 0x3F, 0x34);
}

static void mode_2_counts_down_from_n_to_1(void **state)
{
	struct fixture *f = *state;
	tick(f, 5);
	program(f, 0, 4, 3);
	tick(f, 1);
	assert_int_equal(latched(f, 0), 3);
	tick(f, 1);
	assert_int_equal(latched(f, 0), 2);
	assert_true(status(f, 0) & 0x80);
	tick(f, 1);
	assert_int_equal(latched(f, 0), 1);
	assert_false(status(f, 0) & 0x80);
	tick(f, 1);
	assert_int_equal(latched(f, 0), 3);
	assert_true(status(f, 0) & 0x80);
}

static void mode_2_takes_a_new_count_at_the_end_of_the_cycle(void **state)
{
	struct fixture *f = *state;
	program(f, 0, 4, 1000);
	tick(f, 1 + 400);
	outb(&f->rig, 0x40, 200);
	outb(&f->rig, 0x40, 0);
	assert_int_equal(latched(f, 0), 600);
	assert_true(status(f, 0) & 0x40); /* null count: not loaded yet */
	tick(f, 600);
	assert_int_equal(f->rig.edges[0], 2); /* the control word's and the cycle's */
	assert_int_equal(latched(f, 0), 200);
	assert_false(status(f, 0) & 0x40);
	tick(f, 200);
	assert_int_equal(f->rig.edges[0], 3);
}

static void mode_3_is_a_square_wave(void **state)
{
	struct fixture *f = *state;
	i8254_set_gate2(f->pit, true);
	program(f, 2, 6, 5); /* odd: high for 3, low for 2 */
	tick(f, 1);
	static const bool wave[] = {1, 1, 1, 0, 0, 1, 1, 1, 0, 0};
	static const uint16_t counts[] = {4, 2, 0, 4, 2};
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(out2(f), wave[i]);
		assert_int_equal(latched(f, 2), counts[i % 5]);
		tick(f, 1);
	}
}

static void mode_1_is_a_retriggerable_one_shot(void **state)
{
	struct fixture *f = *state;
	program(f, 2, 2, 100);
	assert_true(out2(f));
	tick(f, 300);
	assert_true(out2(f));
	outb(&f->rig, 0x61, 1);
	tick(f, 1);
	assert_false(out2(f));
	tick(f, 60);
	outb(&f->rig, 0x61, 0);
	outb(&f->rig, 0x61, 1);
	tick(f, 100);
	assert_false(out2(f));
	tick(f, 1);
	assert_true(out2(f));
}

static void mode_4_and_5_strobe_for_one_tick(void **state)
{
	struct fixture *f = *state;
	i8254_set_gate2(f->pit, true);
	program(f, 2, 8, 50);
	tick(f, 50);
	assert_true(out2(f));
	tick(f, 1);
	assert_false(out2(f));
	tick(f, 1);
	assert_true(out2(f));
	program(f, 2, 10, 20);
	tick(f, 100);
	assert_true(out2(f));
	i8254_set_gate2(f->pit, false);
	i8254_set_gate2(f->pit, true);
	tick(f, 21);
	assert_false(out2(f));
	tick(f, 1);
	assert_true(out2(f));
}

static void the_gate_pauses_mode_0(void **state)
{
	struct fixture *f = *state;
	outb(&f->rig, 0x61, 1);
	program(f, 2, 0, 1000);
	tick(f, 501);
	outb(&f->rig, 0x61, 0);
	assert_int_equal(latched(f, 2), 500);
	tick(f, 5000);
	assert_int_equal(latched(f, 2), 500);
	assert_false(out2(f));
	outb(&f->rig, 0x61, 1);
	tick(f, 500);
	assert_true(out2(f));
}

static void bcd_counts_decimal(void **state)
{
	struct fixture *f = *state;
	program(f, 0, 5, 0x0100);
	tick(f, 1 + 1);
	assert_int_equal(latched(f, 0), 0x0099);
	program(f, 0, 5, 0);
	tick(f, 1 + 1);
	assert_int_equal(latched(f, 0), 0x9999);
}

static void a_latch_holds_until_read(void **state)
{
	struct fixture *f = *state;
	program(f, 0, 4, 1000);
	tick(f, 101);
	outb(&f->rig, 0x43, 0x00);
	tick(f, 300);
	outb(&f->rig, 0x43, 0x00); /* ignored: still latched */
	assert_int_equal(inb(&f->rig, 0x40), 900 & 0xFF);
	assert_int_equal(inb(&f->rig, 0x40), 900 >> 8);
	assert_int_equal(latched(f, 0), 600);
}

static void read_back_gives_status_then_count(void **state)
{
	struct fixture *f = *state;
	program(f, 0, 6, 0x1234);
	tick(f, 1);
	outb(&f->rig, 0x43, 0xC2);
	assert_int_equal(inb(&f->rig, 0x40), 0xB6);
	assert_int_equal(inb(&f->rig, 0x40), 0x34);
	assert_int_equal(inb(&f->rig, 0x40), 0x12);
}

static void lost_ticks_are_made_up_for_without_a_storm(void **state)
{
	struct fixture *f = *state;
	program(f, 0, 4, 1193); /* 1 kHz */
	unsigned start = f->rig.edges[0];
	advance_late(f->rig.env.clock, 10000000);
	assert_in_range(f->rig.edges[0] - start, 1, 2);
	advance(f->rig.env.clock, 40000000);
	assert_in_range(f->rig.edges[0] - start, 48, 51);
}

static void a_tiny_count_does_not_flood_the_host(void **state)
{
	struct fixture *f = *state;
	program(f, 0, 4, 1);
	advance(f->rig.env.clock, 1000000);
	assert_true(f->rig.edges[0] <= 51);
}

/* Time goes on while the registers are written: even the shortest one-shot interrupts. */
static void the_shortest_one_shot_interrupts(void **state)
{
	struct fixture *f = *state;

	for (unsigned step = 300; step < 1500; step += 100) {
		unsigned before = f->rig.edges[0];
		f->rig.env.clock->step = step;
		program(f, 0, 0, 1);
		f->rig.env.clock->step = 0;
		advance(f->rig.env.clock, 100000);
		assert_int_equal(f->rig.edges[0], before + 1);
	}
}

/* The loop is late; an edge that is over by the clock is not undone by a new control word. */
static void a_late_edge_is_not_lost(void **state)
{
	struct fixture *f = *state;

	program(f, 0, 0, 100);
	f->rig.env.clock->now += 1000000;
	program(f, 0, 0, 50000);
	assert_int_equal(f->rig.edges[0], 1);
	advance(f->rig.env.clock, 1000000);
	assert_int_equal(f->rig.edges[0], 1);
}

static void refresh_toggles_and_bits_read_back(void **state)
{
	struct fixture *f = *state;
	uint8_t first = inb(&f->rig, 0x61) & 0x10;
	advance(f->rig.env.clock, 15085);
	assert_int_not_equal(inb(&f->rig, 0x61) & 0x10, first);
	outb(&f->rig, 0x61, 0xFF);
	assert_int_equal(inb(&f->rig, 0x61) & 0x0F, 0x0F);
	assert_int_equal(inb(&f->rig, 0x61) & 0xC0, 0);
}

static void state_survives_saving(void **state)
{
	struct fixture *f = *state;
	program(f, 0, 4, 1000);
	tick(f, 101);
	rig_save_reset_load(&f->rig);
	assert_int_equal(latched(f, 0), 900);
	unsigned before = f->rig.edges[0];
	tick(f, 900);
	assert_int_equal(f->rig.edges[0], before + 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(mode_0_rises_at_terminal_count),
		T(mode_0_first_byte_stops_counting),
		T(mode_2_divides),
		T(mode_2_counts_down_from_n_to_1),
		T(mode_2_takes_a_new_count_at_the_end_of_the_cycle),
		T(mode_3_is_a_square_wave),
		T(mode_1_is_a_retriggerable_one_shot),
		T(mode_4_and_5_strobe_for_one_tick),
		T(the_gate_pauses_mode_0),
		T(bcd_counts_decimal),
		T(a_latch_holds_until_read),
		T(read_back_gives_status_then_count),
		T(lost_ticks_are_made_up_for_without_a_storm),
		T(a_tiny_count_does_not_flood_the_host),
		T(the_shortest_one_shot_interrupts),
		T(a_late_edge_is_not_lost),
		T(refresh_toggles_and_bits_read_back),
		T(state_survives_saving),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
