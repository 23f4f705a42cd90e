/* SPDX-License-Identifier: MIT */
/*
 * A PS/2 mouse with the IntelliMouse extensions.
 *
 *   E6/E7 scaling 1:1, 2:1   E8 resolution    E9 status        EA stream mode   EB read data
 *   EC    leave wrap mode    EE wrap mode     F0 remote mode   F2 identify      F3 sample rate
 *   F4    enable             F5 disable       F6 defaults      FE resend        FF reset
 *
 * Setting the sample rates 200, 100, 80 turns on the wheel (ID 3, reports of 4 bytes); 200, 200, 80
 * after that the two extra buttons (ID 4).
 *
 * Documents: IBM PS/2 Hardware Interface Technical Reference, "Auxiliary Device"; Microsoft "Plug
 * and Play mouse, wheel protocol". Left out: the report rate itself; a report follows as soon as
 * the last one was fetched.
 */
#include "core/input.h"
#include "devices/ps2.h"
#include "lib/bytes.h"
#include <string.h>

enum {
	CMD_SCALE_1 = 0xE6,
	CMD_SCALE_2 = 0xE7,
	CMD_RESOLUTION = 0xE8,
	CMD_STATUS = 0xE9,
	CMD_STREAM = 0xEA,
	CMD_READ = 0xEB,
	CMD_LEAVE_WRAP = 0xEC,
	CMD_WRAP = 0xEE,
	CMD_REMOTE = 0xF0,
	CMD_IDENTIFY = 0xF2,
	CMD_RATE = 0xF3,
	CMD_ENABLE = 0xF4,
	CMD_DISABLE = 0xF5,
	CMD_DEFAULTS = 0xF6,
	CMD_RESEND = 0xFE,
	CMD_RESET = 0xFF,

	ACK = 0xFA,
	NAK = 0xFE,
	SELF_TEST_OK = 0xAA,

	ID_WHEEL = 3,
	ID_EXPLORER = 4,

	REPORT_ONE = 1 << 3,
	REPORT_X_SIGN = 1 << 4,
	REPORT_Y_SIGN = 1 << 5,
	STATUS_SCALING = 1 << 4,
	STATUS_ENABLED = 1 << 5,
	STATUS_REMOTE = 1 << 6,

	BUTTON_4 = 8,
	BUTTON_5 = 16,

	RATE_DEFAULT = 100,
	RESOLUTION_DEFAULT = 2,
	MAX_STEP = 255,     /* of one report: nine bits, two's complement */
	MAX_PENDING = 4096, /* movement that is kept while nobody fetches */
};

static void put(struct ps2_mouse *m, uint8_t byte)
{
	struct ps2_queue *q = &m->out;

	if (q->count < PS2_QUEUE)
		q->data[(q->head + q->count++) % PS2_QUEUE] = byte;
}

static void set_defaults(struct ps2_mouse *m)
{
	m->rate = RATE_DEFAULT;
	m->resolution = RESOLUTION_DEFAULT;
	m->scaling2 = m->remote = m->wrap = m->reporting = false;
	m->dx = m->dy = m->dz = 0;
}

void ps2_mouse_init(struct ps2_mouse *m)
{
	uint8_t buttons = m->buttons; /* stay pressed across a reset */

	memset(m, 0, sizeof(*m));
	m->buttons = buttons;
	set_defaults(m);
}

static int32_t clamp(int32_t v, int32_t low, int32_t high)
{
	return v < low ? low : v > high ? high : v;
}

/* Scaling 2:1 (IBM, "Set Scaling"). */
static int32_t scale(int32_t v)
{
	static const uint8_t small[] = {0, 1, 1, 3, 6, 9};
	int32_t size = v < 0 ? -v : v;
	int32_t scaled = size < (int32_t)sizeof(small) ? small[size] : size * 2;
	return v < 0 ? -scaled : scaled;
}

static void queue_report(struct ps2_mouse *m)
{
	int32_t dx = clamp(m->dx, -MAX_STEP, MAX_STEP), dy = clamp(m->dy, -MAX_STEP, MAX_STEP);
	int32_t x = dx, y = -dy; /* the mouse counts upwards */

	m->dx -= dx;
	m->dy -= dy;
	if (m->scaling2 && !m->remote) {
		x = clamp(scale(x), -MAX_STEP, MAX_STEP);
		y = clamp(scale(y), -MAX_STEP, MAX_STEP);
	}
	m->sent_buttons = m->buttons;
	put(m, (uint8_t)((m->buttons & 7) | REPORT_ONE | (x < 0 ? REPORT_X_SIGN : 0) |
			 (y < 0 ? REPORT_Y_SIGN : 0)));
	put(m, (uint8_t)x);
	put(m, (uint8_t)y);
	if (m->id == ID_WHEEL) {
		int32_t z = clamp(m->dz, -127, 127);
		m->dz -= z;
		put(m, (uint8_t)z);
	} else if (m->id == ID_EXPLORER) {
		int32_t z = clamp(m->dz, -7, 7);
		m->dz -= z;
		put(m, (uint8_t)((z & 0x0F) | (m->buttons & BUTTON_4 ? 1 << 4 : 0) |
				 (m->buttons & BUTTON_5 ? 1 << 5 : 0)));
	} else {
		m->dz = 0;
	}
}

void ps2_mouse_report(struct ps2_mouse *m)
{
	bool moved = m->dx || m->dy || m->dz || m->buttons != m->sent_buttons;

	if (moved && m->reporting && !m->remote && !m->wrap && m->out.count == 0 &&
	    !m->parameter_of)
		queue_report(m);
}

void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, unsigned buttons)
{
	m->buttons = buttons & (MOUSE_LEFT | MOUSE_RIGHT | MOUSE_MIDDLE | BUTTON_4 | BUTTON_5);
	if (!m->reporting && !m->remote)
		return;
	m->dx = clamp(m->dx + clamp(dx, -MAX_PENDING, MAX_PENDING), -MAX_PENDING, MAX_PENDING);
	m->dy = clamp(m->dy + clamp(dy, -MAX_PENDING, MAX_PENDING), -MAX_PENDING, MAX_PENDING);
	m->dz = clamp(m->dz + clamp(dz, -MAX_PENDING, MAX_PENDING), -MAX_PENDING, MAX_PENDING);
	ps2_mouse_report(m);
}

/* ---- commands ---- */

/* Follows the sequences of sample rates that unlock the extensions. */
static void knock(struct ps2_mouse *m, uint8_t rate)
{
	enum { NONE, AFTER_200, AFTER_200_100, AFTER_200_200 };

	if (m->knock == AFTER_200_100 && rate == 80) {
		m->id = ID_WHEEL;
		m->knock = NONE;
	} else if (m->knock == AFTER_200_200 && rate == 80) {
		m->id = ID_EXPLORER;
		m->knock = NONE;
	} else if (m->knock == AFTER_200 && rate == 100) {
		m->knock = AFTER_200_100;
	} else if (rate == 200) {
		m->knock = m->knock == AFTER_200 || m->knock == AFTER_200_200 ? AFTER_200_200
									      : AFTER_200;
	} else {
		m->knock = NONE;
	}
}

static void write_parameter(struct ps2_mouse *m, uint8_t command, uint8_t value)
{
	if (command == CMD_RATE) {
		m->rate = value ? value : RATE_DEFAULT;
		knock(m, value);
	} else {
		m->resolution = value & 3;
	}
	put(m, ACK);
}

static void write_command(struct ps2_mouse *m, uint8_t command)
{
	/* Any command ends the report being sent (IBM, "Stream Mode"). */
	if (command != CMD_RESEND)
		m->out.count = 0;
	switch (command) {
	case CMD_SCALE_1:
	case CMD_SCALE_2:
		m->scaling2 = command == CMD_SCALE_2;
		put(m, ACK);
		break;
	case CMD_RESOLUTION:
	case CMD_RATE:
		m->parameter_of = command;
		put(m, ACK);
		break;
	case CMD_STATUS:
		put(m, ACK);
		put(m, (uint8_t)((m->buttons & MOUSE_RIGHT ? 1 : 0) |
				 (m->buttons & MOUSE_MIDDLE ? 2 : 0) |
				 (m->buttons & MOUSE_LEFT ? 4 : 0) |
				 (m->scaling2 ? STATUS_SCALING : 0) |
				 (m->reporting ? STATUS_ENABLED : 0) |
				 (m->remote ? STATUS_REMOTE : 0)));
		put(m, m->resolution);
		put(m, m->rate);
		break;
	case CMD_STREAM:
	case CMD_REMOTE:
		m->remote = command == CMD_REMOTE;
		put(m, ACK);
		break;
	case CMD_READ:
		put(m, ACK);
		queue_report(m);
		break;
	case CMD_LEAVE_WRAP:
	case CMD_WRAP:
		m->wrap = command == CMD_WRAP;
		put(m, ACK);
		break;
	case CMD_IDENTIFY:
		put(m, ACK);
		put(m, m->id);
		break;
	case CMD_ENABLE:
	case CMD_DISABLE:
		m->reporting = command == CMD_ENABLE;
		m->dx = m->dy = m->dz = 0;
		m->sent_buttons = m->buttons;
		put(m, ACK);
		break;
	case CMD_DEFAULTS:
		set_defaults(m);
		put(m, ACK);
		break;
	case CMD_RESEND: put(m, m->last_sent); break;
	case CMD_RESET:
		ps2_mouse_init(m);
		put(m, ACK);
		put(m, SELF_TEST_OK);
		put(m, m->id);
		break;
	default: put(m, NAK); break;
	}
}

void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte)
{
	uint8_t command = m->parameter_of;

	if (m->wrap && byte != CMD_LEAVE_WRAP && byte != CMD_RESET) {
		put(m, byte);
		return;
	}
	m->parameter_of = 0;
	if (command)
		write_parameter(m, command, byte);
	else
		write_command(m, byte);
}
