/* SPDX-License-Identifier: MIT */
/*
 * The SDL window without a screen: SDL's dummy video driver, a display of our own, and events
 * pushed into SDL's queue as a window system would. With SDL_TEST_SHOW=seconds it uses the real
 * driver and keeps the window open, for looking at it.
 */
#include "lib/loop.h"
#include "ui/sdl.h"
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#ifdef HAVE_SDL2
#include <SDL.h>

enum { MAX_EVENTS = 64 };

struct rig {
	struct loop *loop;
	struct sdl_ui *ui;
	struct display display;
	struct input input;
	unsigned width, height; /* that the display shows next */
	unsigned refreshes;
	bool draw;
	unsigned quits;
	int (*push)(SDL_Event *event);
	SDL_bool (*relative)(void);
};

/* What the guest's devices received. */
static struct {
	unsigned count;
	struct {
		uint8_t key;
		bool down, mouse;
		int dx, dy, dz;
		unsigned buttons;
	} event[MAX_EVENTS];
} received;

void input_key(struct input *in, uint8_t key, bool down)
{
	assert_true(received.count < MAX_EVENTS);
	received.event[received.count].key = key;
	received.event[received.count].down = down;
	received.event[received.count++].mouse = false;
}

void input_mouse(struct input *in, int dx, int dy, int dz, unsigned buttons)
{
	assert_true(received.count < MAX_EVENTS);
	received.event[received.count].mouse = true;
	received.event[received.count].dx = dx;
	received.event[received.count].dy = dy;
	received.event[received.count].dz = dz;
	received.event[received.count++].buttons = buttons;
}

static void refresh(void *opaque, struct surface *surface, struct rect *dirty, bool full)
{
	struct rig *r = opaque;

	r->refreshes++;
	*dirty = (struct rect){0};
	if (surface->width != r->width || surface->height != r->height) {
		free(surface->pixels);
		*surface = (struct surface){calloc(r->width * r->height, 4), r->width, r->height};
		r->draw = true;
	}
	if (!r->draw)
		return;
	for (unsigned y = 0; y < r->height; y++)
		for (unsigned x = 0; x < r->width; x++)
			surface->pixels[y * r->width + x] = ((x * 255 / r->width) << 16) |
							    ((y * 255 / r->height) << 8) |
							    (x / 8 + y / 8) % 2 * 255;
	*dirty = (struct rect){0, 0, r->width, r->height};
	r->draw = false;
	r->display.updates++;
}

static const struct display_ops ops = {.refresh = refresh};

static void on_quit(void *opaque)
{
	struct rig *r = opaque;

	assert_true(loop_locked_by_me(r->loop));
	r->quits++;
}

static void pause_ms(unsigned ms)
{
	const struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
	nanosleep(&t, NULL);
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct error err = ERROR_INIT;
	void *lib = dlopen("libSDL2-2.0.so.0", RTLD_NOW | RTLD_LOCAL);

	*state = r;
	if (!getenv("SDL_TEST_SHOW"))
		setenv("SDL_VIDEODRIVER", "dummy", 1);
	memset(&received, 0, sizeof(received));
	r->loop = loop_new(&err);
	r->width = 640;
	r->height = 400;
	r->display = (struct display){.ops = &ops, .opaque = r};
	if (!lib) {
		print_message("no libSDL2: the window is not tested\n");
		return 0;
	}
	*(void **)&r->push = dlsym(lib, "SDL_PushEvent");
	*(void **)&r->relative = dlsym(lib, "SDL_GetRelativeMouseMode");
	struct sdl_config config = {.name = "test", .quit = on_quit, .opaque = r};
	r->ui = sdl_ui_new(r->loop, &r->display, &r->input, &config, &err);
	if (!r->ui)
		print_error("%s\n", err.text);
	return r->ui ? 0 : -1;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	sdl_ui_free(r->ui);
	loop_free(r->loop);
	free(r->display.surface.pixels);
	free(r);
	return 0;
}

static void push_key(struct rig *r, SDL_Scancode scancode, bool down, Uint16 mod)
{
	SDL_Event e = {.key = {.type = down ? SDL_KEYDOWN : SDL_KEYUP,
			       .state = down ? SDL_PRESSED : SDL_RELEASED,
			       .keysym = {.scancode = scancode, .mod = mod}}};
	r->push(&e);
}

static void push_button(struct rig *r, Uint8 button, bool down)
{
	SDL_Event e = {.button = {.type = down ? SDL_MOUSEBUTTONDOWN : SDL_MOUSEBUTTONUP,
				  .button = button,
				  .state = down ? SDL_PRESSED : SDL_RELEASED}};
	r->push(&e);
}

static void push_window(struct rig *r, Uint8 what)
{
	SDL_Event e = {.window = {.type = SDL_WINDOWEVENT, .event = what}};
	r->push(&e);
}

/* Waits for `count` reports, a minute at most. */
static void expect_count(struct rig *r, unsigned count)
{
	for (unsigned i = 0; i < 12000; i++) {
		loop_lock(r->loop);
		unsigned now = received.count;
		loop_unlock(r->loop);
		if (now >= count)
			break;
		pause_ms(5);
	}
	pause_ms(30); /* and no more than that */
	loop_lock(r->loop);
	unsigned now = received.count;
	loop_unlock(r->loop);
	assert_int_equal(now, count);
}

static void expect_key(unsigned n, uint8_t key, bool down)
{
	assert_false(received.event[n].mouse);
	assert_int_equal(received.event[n].key, key);
	assert_int_equal(received.event[n].down, down);
}

static void keys_go_by_their_place(void **state)
{
	struct rig *r = *state;

	if (!r->ui)
		skip();
	push_key(r, SDL_SCANCODE_A, true, 0);
	push_key(r, SDL_SCANCODE_A, false, 0);
	push_key(r, SDL_SCANCODE_RIGHT, true, 0);
	push_key(r, SDL_SCANCODE_RIGHT, false, 0);
	push_key(r, SDL_SCANCODE_PAUSE, true, 0);
	push_key(r, SDL_SCANCODE_AUDIOPLAY, true, 0); /* no such key on a PC */
	expect_count(r, 5);
	expect_key(0, 0x1E, true);
	expect_key(1, 0x1E, false);
	expect_key(2, KEY_E0 | 0x4D, true);
	expect_key(3, KEY_E0 | 0x4D, false);
	expect_key(4, KEY_PAUSE, true);
}

static void losing_the_focus_releases_keys(void **state)
{
	struct rig *r = *state;

	if (!r->ui)
		skip();
	push_key(r, SDL_SCANCODE_LALT, true, KMOD_LALT);
	push_key(r, SDL_SCANCODE_TAB, true, KMOD_LALT);
	push_window(r, SDL_WINDOWEVENT_FOCUS_LOST);
	push_key(r, SDL_SCANCODE_TAB, false, 0); /* the guest knows already */
	expect_count(r, 4);
	expect_key(2, 0x0F, false);
	expect_key(3, 0x38, false);
}

static void hot_keys_stay_outside_and_release_their_modifiers(void **state)
{
	struct rig *r = *state;
	Uint16 mod = KMOD_LCTRL | KMOD_LALT;

	if (!r->ui)
		skip();
	push_key(r, SDL_SCANCODE_LCTRL, true, KMOD_LCTRL);
	push_key(r, SDL_SCANCODE_LALT, true, mod);
	push_key(r, SDL_SCANCODE_G, true, mod);
	push_key(r, SDL_SCANCODE_G, false, mod);
	push_key(r, SDL_SCANCODE_LALT, false, KMOD_LCTRL);
	push_key(r, SDL_SCANCODE_LCTRL, false, 0);
	expect_count(r, 4);
	expect_key(0, 0x1D, true);
	expect_key(1, 0x38, true);
	expect_key(2, 0x1D, false);
	expect_key(3, 0x38, false);
}

static void the_mouse_reports_while_grabbed(void **state)
{
	struct rig *r = *state;
	SDL_Event motion = {.motion = {.type = SDL_MOUSEMOTION, .xrel = 3, .yrel = -2}};
	SDL_Event wheel = {.wheel = {.type = SDL_MOUSEWHEEL, .y = 1}};

	if (!r->ui)
		skip();
	r->push(&motion); /* not grabbed: nobody's */
	push_button(r, SDL_BUTTON_LEFT, true);
	push_button(r, SDL_BUTTON_LEFT, false); /* grabs, and is not the guest's */
	for (unsigned i = 0; i < 12000 && !r->relative(); i++)
		pause_ms(5);
	pause_ms(100); /* SDL drops queued motion when the mode changes */
	r->push(&motion);
	push_button(r, SDL_BUTTON_RIGHT, true);
	r->push(&wheel);
	push_button(r, SDL_BUTTON_RIGHT, false);
	expect_count(r, 4);
	assert_int_equal(received.event[0].dx, 3);
	assert_int_equal(received.event[0].dy, -2);
	assert_int_equal(received.event[0].buttons, 0);
	assert_int_equal(received.event[1].buttons, MOUSE_RIGHT);
	assert_int_equal(received.event[2].dz, -1); /* away from the user */
	assert_int_equal(received.event[2].buttons, MOUSE_RIGHT);
	assert_int_equal(received.event[3].buttons, 0);
	assert_true(received.event[3].mouse);
}

static void locks_follow_the_host_until_the_guest_ignores_them(void **state)
{
	struct rig *r = *state;

	if (!r->ui)
		skip();
	/* The dummy driver's host has all locks off; the guest's Caps Lock LED is on. */
	loop_lock(r->loop);
	r->input.leds = 4;
	loop_unlock(r->loop);
	push_window(r, SDL_WINDOWEVENT_FOCUS_GAINED);
	expect_count(r, 2);
	expect_key(0, 0x3A, true);
	expect_key(1, 0x3A, false);
	push_window(r, SDL_WINDOWEVENT_FOCUS_GAINED); /* the LED has not moved: no more taps */
	push_window(r, SDL_WINDOWEVENT_FOCUS_GAINED);
	expect_count(r, 2);
}

static void the_close_button_asks_to_quit(void **state)
{
	struct rig *r = *state;

	if (!r->ui)
		skip();
	push_window(r, SDL_WINDOWEVENT_CLOSE);
	for (unsigned i = 0; i < 6000 && !r->quits; i++)
		loop_run_once(r->loop, 10000000);
	assert_int_equal(r->quits, 1);
}

static unsigned refreshes(struct rig *r)
{
	loop_lock(r->loop);
	unsigned now = r->refreshes;
	loop_unlock(r->loop);
	return now;
}

/* Refreshes in the time that `ms` take at least, and how many fit into it at 60 a second. */
static unsigned refreshes_within(struct rig *r, unsigned ms, unsigned *fit)
{
	struct timespec from, to;
	clock_gettime(CLOCK_MONOTONIC, &from);
	unsigned before = refreshes(r);
	pause_ms(ms);
	unsigned seen = refreshes(r) - before;
	clock_gettime(CLOCK_MONOTONIC, &to);
	int64_t took = (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000;
	*fit = (unsigned)(took * 60 / 1000);
	return seen;
}

static void refreshes_are_paced_and_stop_while_hidden(void **state)
{
	struct rig *r = *state;
	unsigned fit, tries = 0;

	if (!r->ui)
		skip();
	loop_lock(r->loop);
	r->width = 800; /* a mode change */
	r->height = 600;
	unsigned before = r->refreshes;
	loop_unlock(r->loop);
	for (unsigned i = 0; i < 12000 && refreshes(r) < before + 2; i++)
		pause_ms(5);
	assert_true(refreshes(r) >= before + 2);
	unsigned shown = refreshes_within(r, 300, &fit);
	assert_in_range(shown, 0, fit + fit / 2 + 5);
	push_window(r, SDL_WINDOWEVENT_MINIMIZED);
	while (refreshes_within(r, 200, &fit))
		assert_true(tries++ < 300);
	if (getenv("SDL_TEST_SHOW")) {
		push_window(r, SDL_WINDOWEVENT_RESTORED);
		pause_ms(1000 * atoi(getenv("SDL_TEST_SHOW")));
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(keys_go_by_their_place),
		T(losing_the_focus_releases_keys),
		T(hot_keys_stay_outside_and_release_their_modifiers),
		T(the_mouse_reports_while_grabbed),
		T(locks_follow_the_host_until_the_guest_ignores_them),
		T(the_close_button_asks_to_quit),
		T(refreshes_are_paced_and_stop_while_hidden),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void)
{
	puts("built without SDL2: the window is not tested");
	return 0;
}
#endif
