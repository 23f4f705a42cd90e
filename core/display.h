/* SPDX-License-Identifier: MIT */
/*
 * What a display device shows and what a user interface reads. The device owns one `struct
 * display`; a UI (SDL window, screendump, a test) asks it to refresh and then reads the surface.
 * Lock held throughout.
 */
#ifndef CORE_DISPLAY_H
#define CORE_DISPLAY_H

#include <stdbool.h>
#include <stdint.h>

struct surface {
	uint32_t *pixels; /* XRGB8888, host order (0x00RRGGBB), `width` to a row */
	unsigned width, height;
};

struct rect {
	unsigned x, y, width, height;
};

/* The text screen, when the device is in a text mode: cells of (character, attribute) as in display
 * memory. */
struct text_screen {
	unsigned columns, rows;
	uint8_t cells[2 * 256 * 128];
	unsigned cursor_x, cursor_y;
	bool cursor_visible;
};

struct display_ops {
	/*
	 * Brings the surface up to date. `*dirty` becomes the bounding box of what changed since
	 * the last call (width 0: nothing). When the mode changed, the surface has new
	 * pixels/width/height and all is dirty. With `full`, everything is redrawn.
	 */
	void (*refresh)(void *opaque, struct surface *surface, struct rect *dirty, bool full);
	/* Fills the text screen and returns true in a text mode. */
	bool (*text)(void *opaque, struct text_screen *screen);
};

struct display {
	const struct display_ops *ops;
	void *opaque;
	struct surface surface; /* owned by the device */
	/* How many refreshes found something to draw. A reader that sees it move between two of its
	 * own refreshes knows that another reader took a dirty box, and rereads the whole surface.
	 */
	unsigned updates;
};

#endif
