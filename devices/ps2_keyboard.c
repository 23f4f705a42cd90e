/* SPDX-License-Identifier: MIT */
/*
 * A PS/2 keyboard with scan code sets 1, 2 and 3. Power-on set is 2; the controller usually
 * translates to set 1 on the way (i8042.c).
 *
 *   ED leds   EE echo   F0 scan set   F2 identify   F3 typematic   F4 enable   F5 disable
 *   F6 defaults   F7..FA key types of all keys   FB..FD key type of one key   FE resend   FF reset
 *
 * Documents: IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-Key)":
 * commands, scan code tables. Left out: typematic repeat (the host's keyboard repeats), the fake
 * shifts around grey keys; in set 3 all keys send their release until told otherwise.
 */
#include "core/input.h"
#include "devices/ps2.h"
#include "lib/bytes.h"
#include <string.h>

enum {
	CMD_LEDS = 0xED,
	CMD_ECHO = 0xEE,
	CMD_SCAN_SET = 0xF0,
	CMD_IDENTIFY = 0xF2,
	CMD_TYPEMATIC = 0xF3,
	CMD_ENABLE = 0xF4,
	CMD_DISABLE = 0xF5,
	CMD_DEFAULTS = 0xF6,
	CMD_ALL_TYPEMATIC = 0xF7,
	CMD_ALL_MAKE_BREAK = 0xF8,
	CMD_ALL_MAKE = 0xF9,
	CMD_ALL_TYPEMATIC_MAKE_BREAK = 0xFA,
	CMD_KEY_TYPEMATIC = 0xFB,
	CMD_KEY_MAKE_BREAK = 0xFC,
	CMD_KEY_MAKE = 0xFD,
	CMD_RESEND = 0xFE,
	CMD_RESET = 0xFF,

	ACK = 0xFA,
	SELF_TEST_OK = 0xAA,
	RESEND = 0xFE,
	ID_1 = 0xAB,
	ID_2 = 0x83,
	OVERRUN_SET1 = 0xFF,
	OVERRUN = 0x00,

	E0 = 0xE0,
	E1 = 0xE1,
	BREAK_PREFIX = 0xF0,
	BREAK_BIT = 0x80,
	TYPEMATIC_DEFAULT = 0x2B, /* 10.9 a second after 500 ms */
	KEY_ROOM = 8,             /* the longest sequence of a key: replies keep the rest */

	MOD_CTRL = 1,
	MOD_SHIFT = 2,
	MOD_ALT = 4,
	MOD_CTRL_R = 8,
	MOD_SHIFT_R = 16,
	MOD_ALT_R = 32,
};

static const struct state_field ps2_queue_fields[] = {
	STATE_BYTES(ps2_queue, data),
	STATE_UINT(ps2_queue, head),
	STATE_UINT(ps2_queue, count),
	STATE_END,
};

#define STATE_QUEUE(s)                                                                             \
	{                                                                                          \
		"out", FIELD_STRUCT, offsetof(struct s, out), sizeof(struct ps2_queue), 1,         \
			ps2_queue_fields, 0                                                        \
	}

const struct state_field ps2_keyboard_fields[] = {
	STATE_QUEUE(ps2_keyboard),
	STATE_UINT(ps2_keyboard, scan_set),
	STATE_UINT(ps2_keyboard, scanning),
	STATE_UINT(ps2_keyboard, leds),
	STATE_UINT(ps2_keyboard, typematic),
	STATE_UINT(ps2_keyboard, parameter_of),
	STATE_UINT(ps2_keyboard, last_sent),
	STATE_UINT(ps2_keyboard, modifiers),
	STATE_BYTES(ps2_keyboard, make_only),
	STATE_END,
};

const struct state_field ps2_mouse_fields[] = {
	STATE_QUEUE(ps2_mouse),
	STATE_UINT(ps2_mouse, id),
	STATE_UINT(ps2_mouse, reporting),
	STATE_UINT(ps2_mouse, remote),
	STATE_UINT(ps2_mouse, wrap),
	STATE_UINT(ps2_mouse, scaling2),
	STATE_UINT(ps2_mouse, resolution),
	STATE_UINT(ps2_mouse, rate),
	STATE_UINT(ps2_mouse, parameter_of),
	STATE_UINT(ps2_mouse, knock),
	STATE_UINT(ps2_mouse, last_sent),
	STATE_UINT(ps2_mouse, buttons),
	STATE_UINT(ps2_mouse, sent_buttons),
	STATE_UINT(ps2_mouse, dx),
	STATE_UINT(ps2_mouse, dy),
	STATE_UINT(ps2_mouse, dz),
	STATE_END,
};

/* Set 2 codes by set 1 code, plain keys. */
static const uint8_t set2[0x80] = {
	/* 00 */ 0x00, 0x76, 0x16, 0x1E, 0x26, 0x25, 0x2E, 0x36,
	/* 08 */ 0x3D, 0x3E, 0x46, 0x45, 0x4E, 0x55, 0x66, 0x0D,
	/* 10 */ 0x15, 0x1D, 0x24, 0x2D, 0x2C, 0x35, 0x3C, 0x43,
	/* 18 */ 0x44, 0x4D, 0x54, 0x5B, 0x5A, 0x14, 0x1C, 0x1B,
	/* 20 */ 0x23, 0x2B, 0x34, 0x33, 0x3B, 0x42, 0x4B, 0x4C,
	/* 28 */ 0x52, 0x0E, 0x12, 0x5D, 0x1A, 0x22, 0x21, 0x2A,
	/* 30 */ 0x32, 0x31, 0x3A, 0x41, 0x49, 0x4A, 0x59, 0x7C,
	/* 38 */ 0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0C, 0x03,
	/* 40 */ 0x0B, 0x83, 0x0A, 0x01, 0x09, 0x77, 0x7E, 0x6C,
	/* 48 */ 0x75, 0x7D, 0x7B, 0x6B, 0x73, 0x74, 0x79, 0x69,
	/* 50 */ 0x72, 0x7A, 0x70, 0x71, 0x84, 0x60, 0x61, 0x78,
	/* 58 */ 0x07, 0x0F, 0x17, 0x1F, 0x27, 0x2F, 0x37, 0x3F,
	/* 60 */ 0x47, 0x4F, 0x56, 0x5E, 0x08, 0x10, 0x18, 0x20,
	/* 68 */ 0x28, 0x30, 0x38, 0x40, 0x48, 0x50, 0x57, 0x6F,
	/* 70 */ 0x13, 0x19, 0x39, 0x51, 0x53, 0x5C, 0x5F, 0x62,
	/* 78 */ 0x63, 0x64, 0x65, 0x67, 0x68, 0x6A, 0x6D, 0x6E,
};

/* Set 3 codes by set 1 code where they differ from set 2 (0: the set 2 code). */
static const uint8_t set3_plain[0x80] = {
	[0x01] = 0x08, [0x1D] = 0x11, [0x2B] = 0x5C, [0x37] = 0x7E, [0x38] = 0x19, [0x3A] = 0x14,
	[0x3B] = 0x07, [0x3C] = 0x0F, [0x3D] = 0x17, [0x3E] = 0x1F, [0x3F] = 0x27, [0x40] = 0x2F,
	[0x41] = 0x37, [0x42] = 0x3F, [0x43] = 0x47, [0x44] = 0x4F, [0x45] = 0x76, [0x46] = 0x5F,
	[0x4A] = 0x84, [0x4E] = 0x7C, [0x54] = 0x57, [0x56] = 0x13, [0x57] = 0x56, [0x58] = 0x5E,
};

/* Set 3 codes of the keys with E0. */
static const uint8_t set3_e0[0x80] = {
	[0x1C] = 0x79, [0x1D] = 0x58, [0x35] = 0x77, [0x37] = 0x57, [0x38] = 0x39,
	[0x46] = 0x62, [0x47] = 0x6E, [0x48] = 0x63, [0x49] = 0x6F, [0x4B] = 0x61,
	[0x4D] = 0x6A, [0x4F] = 0x65, [0x50] = 0x60, [0x51] = 0x6D, [0x52] = 0x67,
	[0x53] = 0x64, [0x5B] = 0x8B, [0x5C] = 0x8C, [0x5D] = 0x8D,
};

/* ---- queues ---- */

static void put(struct ps2_queue *q, uint8_t byte)
{
	if (q->count < PS2_QUEUE)
		q->data[(q->head + q->count++) % PS2_QUEUE] = byte;
}

bool ps2_queue_get(struct ps2_queue *q, uint8_t *byte)
{
	if (q->count == 0)
		return false;
	*byte = q->data[q->head];
	q->head = (uint8_t)((q->head + 1) % PS2_QUEUE);
	q->count--;
	return true;
}

/* ---- keys ---- */

static void put_all(struct ps2_keyboard *k, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		put(&k->out, bytes[i]);
}

/* One key with its prefix in sets 1 and 2. */
static void put_key(struct ps2_keyboard *k, uint8_t key, bool down)
{
	uint8_t code = key & 0x7F;

	if (key & KEY_E0)
		put(&k->out, E0);
	if (k->scan_set == 1) {
		put(&k->out, code | (down ? 0 : BREAK_BIT));
		return;
	}
	if (!down)
		put(&k->out, BREAK_PREFIX);
	put(&k->out, set2[code]);
}

static void put_set3(struct ps2_keyboard *k, uint8_t key, bool down)
{
	uint8_t plain = key & 0x7F, code;

	if (key & KEY_E0)
		code = set3_e0[plain];
	else
		code = set3_plain[plain] ? set3_plain[plain] : set2[plain];
	if (!code || (!down && (k->make_only[code / 8] >> code % 8 & 1)))
		return;
	if (!down)
		put(&k->out, BREAK_PREFIX);
	put(&k->out, code);
}

/* Pause: everything at once on the press, nothing on the release. */
static void put_pause(struct ps2_keyboard *k, bool down)
{
	static const uint8_t set1_bytes[] = {E1, 0x1D, 0x45, E1, 0x9D, 0xC5};
	static const uint8_t set2_bytes[] = {E1, 0x14, 0x77, E1, 0xF0, 0x14, 0xF0, 0x77};

	if (!down)
		return;
	if (k->modifiers & (MOD_CTRL | MOD_CTRL_R)) { /* Break: Ctrl makes it another key */
		put_key(k, KEY_E0 | 0x46, true);
		put_key(k, KEY_E0 | 0x46, false);
	} else if (k->scan_set == 1) {
		put_all(k, set1_bytes, sizeof(set1_bytes));
	} else {
		put_all(k, set2_bytes, sizeof(set2_bytes));
	}
}

/* Print Screen: with a fake shift, without it under Ctrl or Shift, SysRq under Alt. */
static void put_print(struct ps2_keyboard *k, bool down)
{
	const uint8_t fake_shift = KEY_E0 | 0x2A, sysrq = 0x54;

	if (k->modifiers & (MOD_ALT | MOD_ALT_R)) {
		put_key(k, sysrq, down);
	} else if (k->modifiers & (MOD_CTRL | MOD_CTRL_R | MOD_SHIFT | MOD_SHIFT_R)) {
		put_key(k, KEY_PRINT, down);
	} else if (down) {
		put_key(k, fake_shift, true);
		put_key(k, KEY_PRINT, true);
	} else {
		put_key(k, KEY_PRINT, false);
		put_key(k, fake_shift, false);
	}
}

static uint8_t modifier_of(uint8_t key)
{
	switch (key) {
	case 0x1D: return MOD_CTRL;
	case KEY_E0 | 0x1D: return MOD_CTRL_R;
	case 0x2A: return MOD_SHIFT;
	case 0x36: return MOD_SHIFT_R;
	case 0x38: return MOD_ALT;
	case KEY_E0 | 0x38: return MOD_ALT_R;
	default: return 0;
	}
}

void ps2_keyboard_key(struct ps2_keyboard *k, uint8_t key, bool down)
{
	uint8_t modifier = modifier_of(key);

	if (down)
		k->modifiers |= modifier;
	else
		k->modifiers &= (uint8_t)~modifier;
	if (!k->scanning)
		return;
	/* A full buffer ends in the overrun code. Replies to commands still have room behind it. */
	if (k->out.count > PS2_QUEUE - 3 * KEY_ROOM)
		return;
	if (k->out.count > PS2_QUEUE - 4 * KEY_ROOM) {
		put(&k->out, k->scan_set == 1 ? OVERRUN_SET1 : OVERRUN);
		while (k->out.count <= PS2_QUEUE - 3 * KEY_ROOM)
			put(&k->out, k->scan_set == 1 ? OVERRUN_SET1 : OVERRUN);
		return;
	}
	if (k->scan_set == 3)
		put_set3(k, key, down);
	else if (key == KEY_PAUSE)
		put_pause(k, down);
	else if (key == KEY_PRINT)
		put_print(k, down);
	else
		put_key(k, key, down);
}

/* ---- commands ---- */

static void set_defaults(struct ps2_keyboard *k)
{
	k->typematic = TYPEMATIC_DEFAULT;
	memset(k->make_only, 0, sizeof(k->make_only));
}

void ps2_keyboard_init(struct ps2_keyboard *k)
{
	uint8_t modifiers = k->modifiers; /* keys stay down across a reset */

	memset(k, 0, sizeof(*k));
	k->modifiers = modifiers;
	k->scan_set = 2;
	k->scanning = true;
	set_defaults(k);
}

static void write_parameter(struct ps2_keyboard *k, uint8_t command, uint8_t value)
{
	switch (command) {
	case CMD_LEDS:
		k->leds = value & 7;
		put(&k->out, ACK);
		break;
	case CMD_TYPEMATIC:
		k->typematic = value & 0x7F;
		put(&k->out, ACK);
		break;
	case CMD_SCAN_SET:
		if (value > 3) {
			put(&k->out, RESEND);
			break;
		}
		put(&k->out, ACK);
		if (value == 0)
			put(&k->out, k->scan_set);
		else
			k->scan_set = value;
		break;
	default: /* FB..FD: any number of keys until the next command */
		if (command == CMD_KEY_MAKE || command == CMD_KEY_TYPEMATIC)
			k->make_only[value / 8] |= (uint8_t)(1u << value % 8);
		else
			k->make_only[value / 8] &= (uint8_t) ~(1u << value % 8);
		put(&k->out, ACK);
		k->parameter_of = command;
		break;
	}
}

static void write_command(struct ps2_keyboard *k, uint8_t command)
{
	if (command == CMD_ECHO) {
		put(&k->out, CMD_ECHO);
		return;
	}
	if (command == CMD_RESEND) {
		put(&k->out, k->last_sent);
		return;
	}
	if (command < CMD_LEDS || command == 0xEF || command == 0xF1) {
		put(&k->out, RESEND);
		return;
	}
	/* A command discards the codes that were not fetched yet. */
	if (command == CMD_RESET || command == CMD_DEFAULTS || command == CMD_DISABLE ||
	    command == CMD_ENABLE)
		k->out.count = 0;
	if (command == CMD_RESET)
		ps2_keyboard_init(k);
	put(&k->out, ACK);
	switch (command) {
	case CMD_LEDS:
	case CMD_SCAN_SET:
	case CMD_TYPEMATIC:
	case CMD_KEY_TYPEMATIC:
	case CMD_KEY_MAKE_BREAK:
	case CMD_KEY_MAKE: k->parameter_of = command; break;
	case CMD_IDENTIFY:
		put(&k->out, ID_1);
		put(&k->out, ID_2);
		break;
	case CMD_ENABLE: k->scanning = true; break;
	case CMD_DISABLE:
		set_defaults(k);
		k->scanning = false;
		break;
	case CMD_DEFAULTS: set_defaults(k); break;
	case CMD_ALL_TYPEMATIC:
	case CMD_ALL_MAKE: memset(k->make_only, 0xFF, sizeof(k->make_only)); break;
	case CMD_ALL_MAKE_BREAK:
	case CMD_ALL_TYPEMATIC_MAKE_BREAK: memset(k->make_only, 0, sizeof(k->make_only)); break;
	case CMD_RESET: put(&k->out, SELF_TEST_OK); break;
	default: break;
	}
}

void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte)
{
	uint8_t command = k->parameter_of;

	k->parameter_of = 0;
	/* A command where a parameter is due cancels the one that waited for it. */
	if (command && byte < CMD_LEDS)
		write_parameter(k, command, byte);
	else
		write_command(k, byte);
}

static void check_queue(struct ps2_queue *q)
{
	q->head %= PS2_QUEUE;
	if (q->count > PS2_QUEUE)
		q->count = PS2_QUEUE;
}

void ps2_keyboard_check(struct ps2_keyboard *k)
{
	check_queue(&k->out);
	if (k->scan_set < 1 || k->scan_set > 3)
		k->scan_set = 2;
}

void ps2_mouse_check(struct ps2_mouse *m)
{
	check_queue(&m->out);
	if (m->id != 0 && m->id != 3 && m->id != 4)
		m->id = 0;
	m->resolution &= 3;
	if (m->rate == 0)
		m->rate = 100;
	m->dx = m->dy = m->dz = 0;
}
