/* SPDX-License-Identifier: MIT */
#include "devices/mc146818.h"
#include "rig.h"
#include <stdio.h>
#include <string.h>

struct fixture {
	struct rig rig;
	struct mc146818 *rtc;
};

/* On the virtual clock, from a date. */
static struct fixture *make(const char *options)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct rtc_config config = {0};
	rig_init(&f->rig);
	assert_int_equal(rtc_config_parse(options, &config, NULL), 0);
	f->rtc = mc146818_new(&f->rig.env, rig_line(&f->rig, 8), &config);
	state_reset_all(f->rig.env.states);
	return f;
}

static int setup(void **state)
{
	*state = make("base=1999-12-31T23:59:58,clock=vm");
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	mc146818_free(f->rtc);
	rig_fini(&f->rig);
	free(f);
	return 0;
}

static uint8_t get(struct fixture *f, uint8_t index)
{
	outb(&f->rig, 0x70, index);
	return inb(&f->rig, 0x71);
}

static void put(struct fixture *f, uint8_t index, uint8_t value)
{
	outb(&f->rig, 0x70, index);
	outb(&f->rig, 0x71, value);
}

static void assert_time(struct fixture *f, const char *want)
{
	char got[32];
	snprintf(got, sizeof(got), "%02x%02x-%02x-%02x %02x:%02x:%02x", get(f, 0x32), get(f, 9),
		 get(f, 8), get(f, 7), get(f, 4), get(f, 2), get(f, 0));
	assert_string_equal(got, want);
}

static void the_clock_runs_over_the_century(void **state)
{
	struct fixture *f = *state;
	assert_time(f, "1999-12-31 23:59:58");
	assert_int_equal(get(f, 6), 6); /* a Friday */
	advance(f->rig.env.clock, 2 * NS_PER_SEC);
	assert_time(f, "2000-01-01 00:00:00");
	assert_int_equal(get(f, 6), 7);
	assert_int_equal(get(f, 0x0D), 0x80);
}

static void formats_convert(void **state)
{
	struct fixture *f = *state;
	put(f, 0x0B, 0x06); /* binary */
	assert_int_equal(get(f, 4), 23);
	assert_int_equal(get(f, 9), 99);
	put(f, 0x0B, 0x00); /* BCD, 12 hours */
	assert_int_equal(get(f, 4), 0x91);
	advance(f->rig.env.clock, 2 * NS_PER_SEC);
	assert_int_equal(get(f, 4), 0x12);
	put(f, 0x0B, 0x04);
	assert_int_equal(get(f, 4), 12);
}

static void setting_the_time_holds_and_goes_on(void **state)
{
	struct fixture *f = *state;
	static const uint8_t when[][2] = {{0, 0x30}, {2, 0x59}, {4, 0x12}, {7, 0x28},
					  {8, 0x02}, {9, 0x24}, {6, 0x04}, {0x32, 0x20}};
	put(f, 0x0B, 0x82);
	for (size_t i = 0; i < sizeof(when) / sizeof(when[0]); i++)
		put(f, when[i][0], when[i][1]);
	advance(f->rig.env.clock, 10 * NS_PER_SEC);
	assert_time(f, "2024-02-28 12:59:30");
	put(f, 0x0B, 0x02);
	assert_time(f, "2024-02-28 12:59:30");
	advance(f->rig.env.clock, 86400 * NS_PER_SEC + 30 * NS_PER_SEC);
	assert_time(f, "2024-02-29 13:00:00");
	assert_int_equal(get(f, 6), 5);
}

static void after_a_divider_reset_the_first_update_comes_in_half_a_second(void **state)
{
	struct fixture *f = *state;
	advance(f->rig.env.clock, 123456789);
	put(f, 0x0A, 0x76);
	put(f, 0, 0x10);
	advance(f->rig.env.clock, 5 * NS_PER_SEC);
	put(f, 0x0A, 0x26);
	assert_int_equal(get(f, 0), 0x10);
	advance(f->rig.env.clock, 499000000);
	assert_int_equal(get(f, 0), 0x10);
	assert_int_equal(get(f, 0x0A), 0x26);
	advance(f->rig.env.clock, 900000);
	assert_int_equal(get(f, 0x0A), 0xA6); /* update in progress */
	advance(f->rig.env.clock, 100000);
	assert_int_equal(get(f, 0x0A), 0x26);
	assert_int_equal(get(f, 0), 0x11);
}

static void periodic_interrupts_come_at_their_rate(void **state)
{
	struct fixture *f = *state;
	put(f, 0x0B, 0x42); /* 1024 Hz */
	unsigned count = 0;
	for (int i = 0; i < 10000; i++) {
		advance(f->rig.env.clock, 100000);
		if (f->rig.line[8]) {
			assert_int_equal(get(f, 0x0C) & 0xC0, 0xC0);
			assert_false(f->rig.line[8]);
			count++;
		}
	}
	assert_in_range(count, 1023, 1024);
	put(f, 0x0A, 0x2F); /* 2 Hz */
	get(f, 0x0C);
	unsigned before = f->rig.edges[8];
	for (int i = 0; i < 100; i++) {
		advance(f->rig.env.clock, 100000000);
		get(f, 0x0C);
	}
	assert_int_equal(f->rig.edges[8] - before, 20);
	put(f, 0x0B, 0x02);
	before = f->rig.edges[8];
	advance(f->rig.env.clock, NS_PER_SEC);
	assert_int_equal(f->rig.edges[8], before);
	assert_int_equal(get(f, 0x0C) & 0x40, 0x40); /* the flag is set all the same */
}

static void without_an_acknowledge_there_is_one_edge(void **state)
{
	struct fixture *f = *state;
	put(f, 0x0B, 0x42);
	advance(f->rig.env.clock, NS_PER_SEC);
	assert_int_equal(f->rig.edges[8], 1);
}

static void slew_makes_up_for_missed_ones(void **state)
{
	struct fixture *f = make("base=2000-01-01,clock=vm,driftfix=slew");
	put(f, 0x0A, 0x2A); /* 64 Hz */
	put(f, 0x0B, 0x42);
	unsigned count = 0;
	for (int i = 0; i < 10; i++) {
		advance(f->rig.env.clock, NS_PER_SEC / 10);
		for (int n = 0; n < 20 && (get(f, 0x0C) & 0x40); n++)
			count++;
	}
	assert_in_range(count, 62, 64);
	void *p = f;
	teardown(&p);
}

static void update_and_alarm_interrupt(void **state)
{
	struct fixture *f = *state;
	put(f, 0x0B, 0x12);
	advance(f->rig.env.clock, NS_PER_SEC - 1);
	assert_false(f->rig.line[8]);
	advance(f->rig.env.clock, 1);
	assert_true(f->rig.line[8]);
	assert_int_equal(get(f, 0x0C) & 0xB0, 0x90);
	put(f, 1, 0x05);
	put(f, 3, 0x00);
	put(f, 5, 0xC0); /* any hour */
	put(f, 0x0B, 0x22);
	advance(f->rig.env.clock, 5 * NS_PER_SEC + NS_PER_SEC / 2);
	assert_false(f->rig.line[8]);
	advance(f->rig.env.clock, NS_PER_SEC / 2 + 1);
	assert_true(f->rig.line[8]);
	assert_int_equal(get(f, 0x0C) & 0xA0, 0xA0);
	assert_int_equal(get(f, 0x0C), 0);
	advance(f->rig.env.clock, 3600 * NS_PER_SEC);
	assert_true(f->rig.line[8]);
}

static void ram_and_time_survive_a_reset(void **state)
{
	struct fixture *f = *state;
	mc146818_set_nvram(f->rtc, 0x34, 0x5A);
	mc146818_set_nvram(f->rtc, 0x0B, 0xFF); /* not RAM: ignored */
	put(f, 0x40, 0x77);
	put(f, 0x0B, 0x72);
	put(f, 4, 0x05);
	advance(f->rig.env.clock, NS_PER_SEC);
	state_reset_all(f->rig.env.states);
	assert_false(f->rig.line[8]);
	assert_int_equal(get(f, 0x34), 0x5A);
	assert_int_equal(mc146818_get_nvram(f->rtc, 0x40), 0x77);
	assert_int_equal(get(f, 0x0B), 0x02);
	assert_int_equal(get(f, 4), 0x05);
	assert_int_equal(inb(&f->rig, 0x70), 0xFF);
}

static void hostile_values_do_no_harm(void **state)
{
	struct fixture *f = *state;
	for (unsigned mode = 0; mode < 256; mode += 2) {
		put(f, 0x0B, (uint8_t)mode);
		for (unsigned i = 0; i < 128; i++)
			put(f, (uint8_t)i, i == 0x0B ? (uint8_t)mode : 0xFF);
		put(f, 0x0A, 0x26);
		advance(f->rig.env.clock, NS_PER_SEC);
		for (unsigned i = 0; i < 128; i++)
			get(f, (uint8_t)i);
	}
}

static void options_are_checked(void **state)
{
	struct rtc_config c = {0};
	struct error err = ERROR_INIT;
	assert_int_equal(rtc_config_parse("base=localtime,clock=host", &c, NULL), 0);
	assert_int_equal(c.base, RTC_LOCALTIME);
	assert_false(c.vm_clock);
	assert_int_equal(rtc_config_parse("base=2006-06-17T16:01:21", &c, NULL), 0);
	assert_int_equal(c.date, 1150560081);
	assert_true(rtc_config_parse("base=tomorrow", &c, &err) < 0);
	assert_true(rtc_config_parse("clock=sun", &c, &err) < 0);
	assert_true(rtc_config_parse("bas=utc", &c, &err) < 0);
}

static void state_survives_saving(void **state)
{
	struct fixture *f = *state;
	put(f, 0x0B, 0x42);
	put(f, 4, 0x07);
	advance(f->rig.env.clock, NS_PER_SEC / 3);
	get(f, 0x0C);
	rig_save_reset_load(&f->rig);
	assert_int_equal(get(f, 4), 0x07);
	advance(f->rig.env.clock, 2000000);
	assert_true(f->rig.line[8]);
	rig_save_reset_load(&f->rig);
	assert_true(f->rig.line[8]);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_clock_runs_over_the_century),
		T(formats_convert),
		T(setting_the_time_holds_and_goes_on),
		T(after_a_divider_reset_the_first_update_comes_in_half_a_second),
		T(periodic_interrupts_come_at_their_rate),
		T(without_an_acknowledge_there_is_one_edge),
		cmocka_unit_test(slew_makes_up_for_missed_ones),
		T(update_and_alarm_interrupt),
		T(ram_and_time_survive_a_reset),
		T(hostile_values_do_no_harm),
		cmocka_unit_test(options_are_checked),
		T(state_survives_saving),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
