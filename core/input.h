/* SPDX-License-Identifier: MIT */
/*
 * Keys and pointer movements on their way from a UI, the monitor or QMP to the keyboard controller.
 *
 * A key is its scan code in set 1 (IBM PS/2 Technical Reference, "Keyboard Scan Code Set 1"):
 * 0x01..0x7F for plain keys, 0x80 | code for keys with the E0 prefix. Pause and Print Screen have
 * the special values below.
 */
#ifndef CORE_INPUT_H
#define CORE_INPUT_H

#include <stdbool.h>
#include <stdint.h>

enum {
	KEY_E0 = 0x80,
	KEY_PRINT = KEY_E0 | 0x37,
	KEY_PAUSE = KEY_E0 | 0x46, /* sent as E1 1D 45 E1 9D C5 */
};

enum mouse_buttons {
	MOUSE_LEFT = 1,
	MOUSE_RIGHT = 2,
	MOUSE_MIDDLE = 4,
};

/* The device's side. Lock held. */
struct input_sink {
	void (*key)(void *opaque, uint8_t key, bool down);
	void (*mouse)(void *opaque, int dx, int dy, int dz, unsigned buttons);
	void *opaque;
};

/* The switchboard of one machine. */
struct input {
	const struct input_sink *keyboard;
	const struct input_sink *mouse;
	unsigned leds; /* as last set by the guest: 1 scroll, 2 num, 4 caps */
};

void input_key(struct input *in, uint8_t key, bool down);
void input_mouse(struct input *in, int dx, int dy, int dz, unsigned buttons);

/* The key of that name (QEMU's QKeyCode: "a", "ret", "ctrl", "f1", "kp_enter", ...); -1 if there is
 * none. */
int key_from_name(const char *name);

#endif
