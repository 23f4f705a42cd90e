/* SPDX-License-Identifier: MIT */
/*
 * The switchboard between the sources of input (window, monitor, QMP) and the sinks (keyboard,
 * mouse). Movement is in screen directions: dx right, dy down, dz towards the user (wheel down).
 */
#include "core/input.h"
#include <stddef.h>

void input_key(struct input *in, uint8_t key, bool down)
{
	if (in->keyboard && in->keyboard->key)
		in->keyboard->key(in->keyboard->opaque, key, down);
}

void input_mouse(struct input *in, int dx, int dy, int dz, unsigned buttons)
{
	if (in->mouse && in->mouse->mouse)
		in->mouse->mouse(in->mouse->opaque, dx, dy, dz, buttons);
}
