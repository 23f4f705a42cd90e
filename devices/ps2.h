/* SPDX-License-Identifier: MIT */
/*
 * The two devices behind the 8042: a PS/2 keyboard and a PS/2 wheel mouse. Each takes bytes from
 * the controller and queues bytes for it; the controller fetches them when its line is free.
 */
#ifndef DEVICES_PS2_H
#define DEVICES_PS2_H

#include "core/state.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PS2_QUEUE = 64 };

struct ps2_queue {
	uint8_t data[PS2_QUEUE];
	uint8_t head, count;
};

struct ps2_keyboard {
	struct ps2_queue out;
	uint8_t scan_set; /* 1, 2 or 3 */
	bool scanning;
	uint8_t leds, typematic;
	uint8_t parameter_of; /* the command that waits for its parameter; 0: none */
	uint8_t last_sent;
	uint8_t modifiers;     /* of Print Screen and Pause: enum in ps2_keyboard.c */
	uint8_t make_only[32]; /* set 3: bit per code whose release is not sent */
};

struct ps2_mouse {
	struct ps2_queue out;
	uint8_t id; /* 0 plain, 3 wheel, 4 wheel and five buttons */
	bool reporting, remote, wrap, scaling2;
	uint8_t resolution, rate;
	uint8_t parameter_of;
	uint8_t knock; /* how far the sequence of sample rates that unlocks the wheel has come */
	uint8_t last_sent;
	uint8_t buttons;      /* as last moved */
	uint8_t sent_buttons; /* as last reported */
	int32_t dx, dy, dz;   /* not yet reported */
};

extern const struct state_field ps2_keyboard_fields[], ps2_mouse_fields[];

/* Power-on state, without the self-test byte. */
void ps2_keyboard_init(struct ps2_keyboard *k);
void ps2_mouse_init(struct ps2_mouse *m);
/* Bounds what came from a saved state. */
void ps2_keyboard_check(struct ps2_keyboard *k);
void ps2_mouse_check(struct ps2_mouse *m);

/* A byte from the host. */
void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte);
void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte);
/* A key (see core/input.h) or a movement. */
void ps2_keyboard_key(struct ps2_keyboard *k, uint8_t key, bool down);
void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, unsigned buttons);
/* Queues a report if something moved, the mouse may report and its queue is empty. */
void ps2_mouse_report(struct ps2_mouse *m);

/* The next byte for the controller; false if there is none. */
bool ps2_queue_get(struct ps2_queue *q, uint8_t *byte);

#endif
