/* SPDX-License-Identifier: MIT */
/* The SDL2 window; see sdl.c. libSDL2 is loaded when a window is opened, never before. */
#ifndef UI_SDL_H
#define UI_SDL_H

#include "core/display.h"
#include "core/input.h"
#include "lib/error.h"
#include <stdbool.h>

struct loop;
struct sdl_ui;

/* The keys that, held together, make a hot key of the next one (-display sdl,grab-mod=...). */
enum sdl_grab_mod {
	SDL_GRAB_CTRL_ALT,       /* default */
	SDL_GRAB_CTRL_ALT_SHIFT, /* lshift-lctrl-lalt */
	SDL_GRAB_RIGHT_CTRL,     /* rctrl */
};

struct sdl_config {
	const char *name; /* of the machine, for the title; may be NULL */
	bool full_screen;
	enum sdl_grab_mod grab_mod;
	bool ignore_close;          /* window-close=off: the close button does nothing */
	void (*quit)(void *opaque); /* the window was closed; from the loop's thread, lock held */
	void *opaque;
};

/* Whether a window can be tried: built in, and $DISPLAY or $WAYLAND_DISPLAY is set. */
bool sdl_ui_possible(void);

/*
 * Opens the window, in a thread of its own, which takes the machine lock while it reads the display
 * or sends input. NULL with an error that says what is missing. Call without the lock.
 */
struct sdl_ui *sdl_ui_new(struct loop *loop, struct display *display, struct input *input,
			  const struct sdl_config *config, struct error *err);
/* Closes the window and ends its thread. Call without the lock, while `display` and `input` live.
 */
void sdl_ui_free(struct sdl_ui *ui);
/* Says so in the title while the machine is stopped. Any thread. */
void sdl_ui_set_stopped(struct sdl_ui *ui, bool stopped);

#endif
