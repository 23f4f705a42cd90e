/* SPDX-License-Identifier: MIT */
/*
 * A hostile guest: random register writes, memory accesses and refreshes. Nothing is expected but
 * that the device stays within its memory (run it with SAN=1). Set VGA_FUZZ_ROUNDS for longer runs,
 * VGA_FUZZ_SEED for another sequence.
 */
#include "tests/unit/devices/vga_rig.h"
#include <stdio.h>
#include <stdlib.h>

enum { DEFAULT_ROUNDS = 3000, WRITES_A_ROUND = 40 };

static uint64_t seed;

static uint32_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed >> 16;
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	return text ? strtoull(text, NULL, 0) : otherwise;
}

static void random_dispi(struct rig *r)
{
	static const uint16_t telling[] = {0,    1,    7,    8,      640,    1024,   1920,
					   7680, 4320, 4096, 0x7FFF, 0x8000, 0xFFFF, 255};
	static const uint8_t depths[] = {4, 8, 15, 16, 24, 32, 0};
	unsigned index = rnd() % 12;
	uint16_t value = rnd() % 3 ? telling[rnd() % ARRAY_SIZE(telling)] : rnd();

	if (index == 3)
		value = depths[rnd() % ARRAY_SIZE(depths)];
	if (index == 4 && rnd() % 2)
		value |= 0x81; /* enabled, not cleared */
	if ((index == 1 || index == 2) && rnd() % 4)
		value %= 1000; /* the largest pictures are slow under a sanitizer */
	out_dispi(r, index, value);
}

static void random_access(struct rig *r)
{
	uint32_t where = rnd() % 4 ? 0xA0000 + rnd() % 0x20000 : RIG_FB + rnd() % (16 << 20);
	uint32_t value = rnd();

	if (rnd() % 2)
		mem_write(r->env.mem, where, &value, 1 + rnd() % 4);
	else
		mem_read(r->env.mem, where, &value, 1 + rnd() % 4);
}

static void random_step(struct rig *r)
{
	uint32_t mmio_value = rnd();

	switch (rnd() % 8) {
	case 0: out_crtc(r, rnd() % 0x1A, rnd()); break;
	case 1: out_seq(r, rnd(), rnd()); break;
	case 2: out_gc(r, rnd(), rnd()); break;
	case 3: out_attr(r, rnd() % 0x16, rnd()); break;
	case 4: iobus_write(r->env.io, 0x3B0 + rnd() % 0x30, 1 << rnd() % 3, rnd()); break;
	case 5:
		if (rnd() % 4 == 0)
			random_dispi(r);
		break;
	case 6: random_access(r); break;
	default:
		mem_write(r->env.mem, RIG_MMIO + 0x400 + rnd() % 0x220, &mmio_value, 1 + rnd() % 4);
		mem_read(r->env.mem, RIG_MMIO + rnd() % 0xFFC, &mmio_value, 4);
		break;
	}
}

static void hostile_registers_stay_in_bounds(void **state)
{
	struct rig *r = *state;
	struct text_screen *screen = calloc(1, sizeof(*screen));
	uint64_t rounds = env_number("VGA_FUZZ_ROUNDS", DEFAULT_ROUNDS);
	static const struct mode_table *const modes[] = {&mode_01, &mode_03, &mode_04, &mode_06,
							 &mode_0d, &mode_12, &mode_13};
	seed = env_number("VGA_FUZZ_SEED", 0x9E3779B97F4A7C15);

	for (uint64_t i = 0; i < rounds; i++) {
		if (rnd() % 8 == 0) {
			out_dispi(r, 4, 0);
			set_mode(r, modes[rnd() % ARRAY_SIZE(modes)]);
		}
		for (unsigned w = rnd() % WRITES_A_ROUND; w; w--)
			random_step(r);
		if (rnd() % 2) { /* make it show something */
			out_attr(r, 0x10, rnd());
			out8(r, 0x3C4, 1);
			out8(r, 0x3C5, rnd() & ~0x20);
		}
		struct surface *s = rig_refresh(r);
		assert_true(r->dirty.x + r->dirty.width <= s->width);
		assert_true(r->dirty.y + r->dirty.height <= s->height);
		if (r->display->ops->text(r->display->opaque, screen))
			assert_true(screen->columns * screen->rows * 2 <= sizeof(screen->cells));
	}
	free(screen);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(hostile_registers_stay_in_bounds, rig_setup,
						rig_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
