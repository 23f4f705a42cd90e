/* SPDX-License-Identifier: MIT */
#include "devices/i8042.h"
#include "devices/port92.h"
#include "rig.h"

struct fixture {
	struct rig rig;
	struct input input;
	struct i8042 *kbc;
	struct port92 *port92;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	rig_init(&f->rig);
	f->kbc = i8042_new(&f->rig.env, rig_line(&f->rig, 1), rig_line(&f->rig, 12), &f->input);
	f->port92 = port92_new(&f->rig.env);
	state_reset_all(f->rig.env.states);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	port92_free(f->port92);
	i8042_free(f->kbc);
	rig_fini(&f->rig);
	free(f);
	return 0;
}

static void command(struct fixture *f, uint8_t byte)
{
	outb(&f->rig, 0x64, byte);
}

static void control(struct fixture *f, uint8_t value)
{
	command(f, 0x60);
	outb(&f->rig, 0x60, value);
}

/* The next byte as a polling driver reads it; -1 if none comes. */
static int next(struct fixture *f)
{
	advance(f->rig.env.clock, 1000000);
	return inb(&f->rig, 0x64) & 1 ? inb(&f->rig, 0x60) : -1;
}

static void expect(struct fixture *f, const uint8_t *want, size_t len)
{
	for (size_t i = 0; i < len; i++)
		assert_int_equal(next(f), want[i]);
	assert_int_equal(next(f), -1);
}

#define EXPECT(f, ...) expect(f, (const uint8_t[]){__VA_ARGS__}, sizeof((uint8_t[]){__VA_ARGS__}))

static void to_mouse(struct fixture *f, uint8_t byte)
{
	command(f, 0xD4);
	outb(&f->rig, 0x60, byte);
}

static void the_controller_tests_itself(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(inb(&f->rig, 0x64), 0x10);
	command(f, 0xAA);
	assert_int_equal(inb(&f->rig, 0x64) & 0x0D, 0x0D);
	EXPECT(f, 0x55);
	command(f, 0xAB);
	EXPECT(f, 0x00);
	command(f, 0xA9);
	EXPECT(f, 0x00);
	command(f, 0xA4);
	EXPECT(f, 0xF1);
	control(f, 0x65);
	command(f, 0x20);
	EXPECT(f, 0x65);
	command(f, 0xA7);
	command(f, 0xAD);
	command(f, 0x20);
	EXPECT(f, 0x75);
	command(f, 0x7F);
	outb(&f->rig, 0x60, 0x12);
	command(f, 0x3F);
	EXPECT(f, 0x12);
}

static void keyboard_resets_and_identifies(void **state)
{
	struct fixture *f = *state;
	control(f, 0x41);
	outb(&f->rig, 0x60, 0xFF);
	EXPECT(f, 0xFA, 0xAA);
	outb(&f->rig, 0x60, 0xF2);
	EXPECT(f, 0xFA, 0xAB, 0x41); /* 83 translated */
	outb(&f->rig, 0x60, 0xEE);
	EXPECT(f, 0xEE);
	outb(&f->rig, 0x60, 0xFE);
	EXPECT(f, 0xEE);
	outb(&f->rig, 0x60, 0xED);
	EXPECT(f, 0xFA);
	outb(&f->rig, 0x60, 0x05);
	EXPECT(f, 0xFA);
	assert_int_equal(f->input.leds, 5);
	outb(&f->rig, 0x60, 0x00);
	EXPECT(f, 0xFE);
}

static void all_keys_translate_to_set_1(void **state)
{
	struct fixture *f = *state;
	control(f, 0x41);
	for (unsigned key = 1; key < 0x80; key++) {
		input_key(&f->input, (uint8_t)key, true);
		input_key(&f->input, (uint8_t)key, false);
		EXPECT(f, (uint8_t)key, (uint8_t)(key | 0x80));
	}
	input_key(&f->input, KEY_E0 | 0x48, true);
	input_key(&f->input, KEY_E0 | 0x48, false);
	EXPECT(f, 0xE0, 0x48, 0xE0, 0xC8);
}

static void print_and_pause_have_their_sequences(void **state)
{
	struct fixture *f = *state;
	control(f, 0x41);
	input_key(&f->input, KEY_PRINT, true);
	input_key(&f->input, KEY_PRINT, false);
	EXPECT(f, 0xE0, 0x2A, 0xE0, 0x37, 0xE0, 0xB7, 0xE0, 0xAA);
	input_key(&f->input, KEY_PAUSE, true);
	input_key(&f->input, KEY_PAUSE, false);
	EXPECT(f, 0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5);
	input_key(&f->input, 0x1D, true);
	input_key(&f->input, KEY_PAUSE, true);
	EXPECT(f, 0x1D, 0xE0, 0x46, 0xE0, 0xC6);
}

static void sets_2_and_3_come_raw(void **state)
{
	struct fixture *f = *state;
	control(f, 0x01);
	input_key(&f->input, 0x1E, true);
	input_key(&f->input, 0x1E, false);
	EXPECT(f, 0x1C, 0xF0, 0x1C);
	input_key(&f->input, KEY_E0 | 0x4B, true);
	EXPECT(f, 0xE0, 0x6B);
	outb(&f->rig, 0x60, 0xF0);
	outb(&f->rig, 0x60, 0x03);
	EXPECT(f, 0xFA, 0xFA);
	outb(&f->rig, 0x60, 0xF0);
	outb(&f->rig, 0x60, 0x00);
	EXPECT(f, 0xFA, 0xFA, 0x03);
	input_key(&f->input, KEY_E0 | 0x4B, true);
	input_key(&f->input, KEY_E0 | 0x4B, false);
	EXPECT(f, 0x61, 0xF0, 0x61);
	outb(&f->rig, 0x60, 0xF9); /* all keys: make only */
	EXPECT(f, 0xFA);
	input_key(&f->input, 0x1E, true);
	input_key(&f->input, 0x1E, false);
	EXPECT(f, 0x1C);
}

static void interrupts_follow_the_output_buffer(void **state)
{
	struct fixture *f = *state;
	control(f, 0x43);
	input_key(&f->input, 0x1E, true);
	assert_true(f->rig.line[1]);
	assert_int_equal(inb(&f->rig, 0x64) & 0x21, 0x01);
	inb(&f->rig, 0x60);
	assert_false(f->rig.line[1]);
	control(f, 0x42);
	input_key(&f->input, 0x1E, false);
	advance(f->rig.env.clock, 1000000);
	assert_false(f->rig.line[1]);
	assert_true(inb(&f->rig, 0x64) & 1);
	control(f, 0x43);
	assert_true(f->rig.line[1]);
	assert_int_equal(inb(&f->rig, 0x60), 0x9E);
	command(f, 0xD3);
	outb(&f->rig, 0x60, 0x5A);
	assert_true(f->rig.line[12] && !f->rig.line[1]);
	assert_int_equal(inb(&f->rig, 0x64) & 0x21, 0x21);
	EXPECT(f, 0x5A);
	command(f, 0xD2);
	outb(&f->rig, 0x60, 0xA5);
	assert_true(f->rig.line[1]);
	EXPECT(f, 0xA5);
}

static void reading_twice_gives_the_same_byte(void **state)
{
	struct fixture *f = *state;
	control(f, 0x41);
	input_key(&f->input, 0x1E, true);
	input_key(&f->input, 0x1E, false);
	assert_int_equal(inb(&f->rig, 0x60), 0x1E);
	assert_int_equal(inb(&f->rig, 0x60), 0x1E);
	EXPECT(f, 0x9E);
}

static void a_disabled_keyboard_keeps_its_bytes(void **state)
{
	struct fixture *f = *state;
	control(f, 0x41);
	command(f, 0xAD);
	input_key(&f->input, 0x1E, true);
	assert_int_equal(next(f), -1);
	command(f, 0x20); /* the reply comes although the key waits */
	EXPECT(f, 0x51);
	command(f, 0xAE);
	EXPECT(f, 0x1E);
	outb(&f->rig, 0x60, 0xF5);
	EXPECT(f, 0xFA);
	input_key(&f->input, 0x1E, false);
	assert_int_equal(next(f), -1);
}

static void the_mouse_reports(void **state)
{
	struct fixture *f = *state;
	control(f, 0x43);
	to_mouse(f, 0xFF);
	EXPECT(f, 0xFA, 0xAA, 0x00);
	input_mouse(&f->input, 5, 5, 0, 0);
	assert_int_equal(next(f), -1);
	to_mouse(f, 0xF4);
	EXPECT(f, 0xFA);
	input_mouse(&f->input, 10, 3, 0, MOUSE_LEFT);
	assert_true(f->rig.line[12]);
	EXPECT(f, 0x29, 10, 0xFD); /* down is negative */
	input_mouse(&f->input, -300, 0, 0, 0);
	EXPECT(f, 0x18, 0x01, 0, 0x18, (uint8_t)-45, 0);
	to_mouse(f, 0xE9);
	EXPECT(f, 0xFA, 0x20, 2, 100);
	to_mouse(f, 0xE7);
	EXPECT(f, 0xFA);
	input_mouse(&f->input, 4, 0, 0, 0);
	EXPECT(f, 0x08, 6, 0);
	to_mouse(f, 0x77);
	EXPECT(f, 0xFE);
}

static void knocking_unlocks_the_wheel(void **state)
{
	struct fixture *f = *state;
	static const uint8_t wheel[] = {200, 100, 80}, five[] = {200, 200, 80};
	control(f, 0x43);
	for (int i = 0; i < 3; i++) {
		to_mouse(f, 0xF3);
		to_mouse(f, wheel[i]);
		EXPECT(f, 0xFA, 0xFA);
	}
	to_mouse(f, 0xF2);
	EXPECT(f, 0xFA, 3);
	to_mouse(f, 0xF4);
	EXPECT(f, 0xFA);
	input_mouse(&f->input, 0, 0, -1, 0);
	EXPECT(f, 0x08, 0, 0, 0xFF);
	for (int i = 0; i < 3; i++) {
		to_mouse(f, 0xF3);
		to_mouse(f, five[i]);
		EXPECT(f, 0xFA, 0xFA);
	}
	to_mouse(f, 0xF2);
	EXPECT(f, 0xFA, 4);
	input_mouse(&f->input, 0, 0, 1, 8);
	EXPECT(f, 0x08, 0, 0, 0x11);
	to_mouse(f, 0xF0);
	EXPECT(f, 0xFA);
	input_mouse(&f->input, 1, 0, 0, 0);
	assert_int_equal(next(f), -1);
	to_mouse(f, 0xEB);
	EXPECT(f, 0xFA, 0x08, 1, 0, 0);
}

static void a20_and_reset_by_both_ports(void **state)
{
	struct fixture *f = *state;
	struct memory *mem = f->rig.env.mem;
	assert_true(memory_a20(mem));
	command(f, 0xDD);
	assert_false(memory_a20(mem));
	assert_int_equal(inb(&f->rig, 0x92) & 2, 0);
	outb(&f->rig, 0x92, 2);
	assert_true(memory_a20(mem));
	command(f, 0xD0);
	assert_int_equal(next(f) & 3, 3);
	command(f, 0xD1);
	outb(&f->rig, 0x60, 0xDD);
	assert_false(memory_a20(mem));
	command(f, 0xDF);
	assert_true(memory_a20(mem));
	assert_int_equal(f->rig.resets, 0);
	command(f, 0xFE);
	assert_int_equal(f->rig.resets, 1);
	command(f, 0xFF); /* pulses nothing */
	assert_int_equal(f->rig.resets, 1);
	outb(&f->rig, 0x92, 3);
	outb(&f->rig, 0x92, 3); /* no edge */
	assert_int_equal(f->rig.resets, 2);
	command(f, 0xD1);
	outb(&f->rig, 0x60, 0xDE);
	assert_int_equal(f->rig.resets, 3);
}

static void a_flood_of_keys_leaves_room_for_replies(void **state)
{
	struct fixture *f = *state;
	control(f, 0x41);
	for (int i = 0; i < 1000; i++)
		input_key(&f->input, KEY_PAUSE, true);
	outb(&f->rig, 0x60, 0xED);
	int last = -1, byte;
	while ((byte = next(f)) >= 0)
		last = byte;
	assert_int_equal(last, 0xFA);
	for (int i = 0; i < 100000; i++)
		input_mouse(&f->input, 1 << 30, -(1 << 30), 1 << 30, (unsigned)i);
}

static void random_accesses_do_no_harm(void **state)
{
	struct fixture *f = *state;
	unsigned seed = 1;
	for (int i = 0; i < 200000; i++) {
		uint16_t port = rand_r(&seed) & 1 ? 0x60 : 0x64;
		if (rand_r(&seed) % 3)
			outb(&f->rig, port, (uint8_t)(rand_r(&seed) >> 8));
		else
			inb(&f->rig, port);
		if (i % 5 == 0)
			input_key(&f->input, (uint8_t)(rand_r(&seed) >> 8), i & 1);
		if (i % 7 == 0)
			input_mouse(&f->input, i, -i, i, (unsigned)i);
		if (i % 3 == 0)
			advance(f->rig.env.clock, 100000);
	}
}

static void state_survives_saving(void **state)
{
	struct fixture *f = *state;
	control(f, 0x41);
	input_key(&f->input, 0x1E, true);
	input_key(&f->input, 0x1E, false);
	memory_set_a20(f->rig.env.mem, false);
	assert_true(f->rig.line[1]);
	rig_save_reset_load(&f->rig);
	assert_true(f->rig.line[1]);
	assert_false(memory_a20(f->rig.env.mem));
	EXPECT(f, 0x1E, 0x9E);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_controller_tests_itself),
		T(keyboard_resets_and_identifies),
		T(all_keys_translate_to_set_1),
		T(print_and_pause_have_their_sequences),
		T(sets_2_and_3_come_raw),
		T(interrupts_follow_the_output_buffer),
		T(reading_twice_gives_the_same_byte),
		T(a_disabled_keyboard_keeps_its_bytes),
		T(the_mouse_reports),
		T(knocking_unlocks_the_wheel),
		T(a20_and_reset_by_both_ports),
		T(a_flood_of_keys_leaves_room_for_replies),
		T(random_accesses_do_no_harm),
		T(state_survives_saving),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
