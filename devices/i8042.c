/* SPDX-License-Identifier: MIT */
/*
 * The 8042 keyboard controller as the PS/2 programs it: one output buffer shared by the
 * controller's own replies, the keyboard and the mouse; a command byte; an output port with A20 and
 * reset.
 *
 *   port 60h  R  output buffer        W  data for the pending command, or for the keyboard
 *   port 64h  R  status               W  command
 *
 *   20..3F read RAM            60..7F write RAM         A4 password test
 *   A7/A8  mouse off/on        A9     mouse line test   AA self-test
 *   AB     keyboard line test  AD/AE  keyboard off/on   C0 read input port
 *   D0/D1  read/write output port                       D4 byte to the mouse
 *   D2/D3  loop a byte back as from keyboard/mouse      DD/DF A20 off/on
 *   E0     test inputs         F0..FF pulse output lines (FE: reset)
 *
 * Bytes from the devices take time on their wire: the next one enters the output buffer BYTE_NS
 * after the last one was read. Until then the buffer keeps answering the old byte, which interrupt
 * handlers that read twice rely on. Replies of the controller itself are there at once.
 *
 * Documents: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
 * Controller"; its table of translated scan codes. Left out: passwords, the diagnostic dump,
 * time-out and parity errors (none can happen).
 */
#include "devices/i8042.h"
#include "core/iobus.h"
#include "core/memory.h"
#include "core/state.h"
#include "devices/ps2.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/text.h"
#include <stdlib.h>

enum {
	DATA_PORT = 0x60,
	COMMAND_PORT = 0x64,

	ST_OBF = 1 << 0,
	ST_SYS = 1 << 2,
	ST_COMMAND = 1 << 3, /* the last write was to port 64h */
	ST_UNLOCKED = 1 << 4,
	ST_AUX = 1 << 5, /* with OBF: the byte is the mouse's */

	CTR_KBD_INT = 1 << 0,
	CTR_AUX_INT = 1 << 1,
	CTR_SYS = 1 << 2,
	CTR_KBD_OFF = 1 << 4,
	CTR_AUX_OFF = 1 << 5,
	CTR_XLATE = 1 << 6,

	OUT_NO_RESET = 1 << 0,
	OUT_A20 = 1 << 1,
	OUT_KBD_IRQ = 1 << 4,
	OUT_AUX_IRQ = 1 << 5,
	OUT_LINES = 0xCC, /* the lines that are always high */

	CMD_READ_RAM = 0x20,
	CMD_WRITE_RAM = 0x60,
	CMD_PASSWORD_TEST = 0xA4,
	CMD_AUX_OFF = 0xA7,
	CMD_AUX_ON = 0xA8,
	CMD_AUX_TEST = 0xA9,
	CMD_SELF_TEST = 0xAA,
	CMD_KBD_TEST = 0xAB,
	CMD_KBD_OFF = 0xAD,
	CMD_KBD_ON = 0xAE,
	CMD_READ_INPUT = 0xC0,
	CMD_READ_OUTPUT = 0xD0,
	CMD_WRITE_OUTPUT = 0xD1,
	CMD_LOOP_KBD = 0xD2,
	CMD_LOOP_AUX = 0xD3,
	CMD_WRITE_AUX = 0xD4,
	CMD_A20_OFF = 0xDD,
	CMD_A20_ON = 0xDF,
	CMD_TEST_INPUTS = 0xE0,
	CMD_PULSE = 0xF0,

	NO_PASSWORD = 0xF1,
	SELF_TEST_OK = 0x55,
	LINE_TEST_OK = 0x00,
	INPUT_PORT = 0x80, /* keyboard not locked */

	RAM_SIZE = 32,
	BREAK_PREFIX = 0xF0,
	BREAK_BIT = 0x80,
	BYTE_NS = 250000,
};

enum source { FROM_NONE, FROM_CONTROLLER, FROM_KBD, FROM_AUX };

struct i8042 {
	uint8_t status; /* without OBF and AUX, which follow from `source` */
	uint8_t output; /* the output buffer */
	uint8_t source; /* enum source of what fills it */
	uint8_t reply;  /* a reply that waits for the buffer */
	uint8_t reply_source;
	uint8_t ram[RAM_SIZE]; /* 0 is the command byte */
	uint8_t pending;       /* command that waits for its data byte */
	bool break_seen;       /* translation: F0 came, the next code is a release */
	bool a20;              /* the gate, as it was when the state was saved */
	struct ps2_keyboard kbd;
	struct ps2_mouse aux;
	struct timer wire; /* the next device byte may enter the buffer */

	struct irq_line irq1, irq12;
	struct input *input;
	struct input_sink kbd_sink, aux_sink;
	struct memory *mem;
	struct clock *clock;
	const struct machine_requests *requests;
	struct iobus *io;
	struct io_range *ranges[2];
	struct state_registry *states;
};

static const struct state_field i8042_fields[] = {
	STATE_UINT(i8042, status),
	STATE_UINT(i8042, output),
	STATE_UINT(i8042, source),
	STATE_UINT(i8042, reply),
	STATE_UINT(i8042, reply_source),
	STATE_BYTES(i8042, ram),
	STATE_UINT(i8042, pending),
	STATE_UINT(i8042, break_seen),
	STATE_UINT(i8042, a20),
	{"kbd", FIELD_STRUCT, offsetof(struct i8042, kbd), sizeof(struct ps2_keyboard), 1,
	 ps2_keyboard_fields, 0},
	{"aux", FIELD_STRUCT, offsetof(struct i8042, aux), sizeof(struct ps2_mouse), 1,
	 ps2_mouse_fields, 0},
	STATE_TIMER(i8042, wire),
	STATE_END,
};

/* Set 2 to set 1, as the controller's firmware has it. */
static const uint8_t translation[0x85] = {
	/* 00 */ 0xFF, 0x43, 0x41, 0x3F, 0x3D, 0x3B, 0x3C, 0x58,
	/* 08 */ 0x64, 0x44, 0x42, 0x40, 0x3E, 0x0F, 0x29, 0x59,
	/* 10 */ 0x65, 0x38, 0x2A, 0x70, 0x1D, 0x10, 0x02, 0x5A,
	/* 18 */ 0x66, 0x71, 0x2C, 0x1F, 0x1E, 0x11, 0x03, 0x5B,
	/* 20 */ 0x67, 0x2E, 0x2D, 0x20, 0x12, 0x05, 0x04, 0x5C,
	/* 28 */ 0x68, 0x39, 0x2F, 0x21, 0x14, 0x13, 0x06, 0x5D,
	/* 30 */ 0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5E,
	/* 38 */ 0x6A, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5F,
	/* 40 */ 0x6B, 0x33, 0x25, 0x17, 0x18, 0x0B, 0x0A, 0x60,
	/* 48 */ 0x6C, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0C, 0x61,
	/* 50 */ 0x6D, 0x73, 0x28, 0x74, 0x1A, 0x0D, 0x62, 0x6E,
	/* 58 */ 0x3A, 0x36, 0x1C, 0x1B, 0x75, 0x2B, 0x63, 0x76,
	/* 60 */ 0x55, 0x56, 0x77, 0x78, 0x79, 0x7A, 0x0E, 0x7B,
	/* 68 */ 0x7C, 0x4F, 0x7D, 0x4B, 0x47, 0x7E, 0x7F, 0x6F,
	/* 70 */ 0x52, 0x53, 0x50, 0x4C, 0x4D, 0x48, 0x01, 0x45,
	/* 78 */ 0x57, 0x4E, 0x51, 0x4A, 0x37, 0x49, 0x46, 0x54,
	/* 80 */ 0x80, 0x81, 0x82, 0x41, 0x54,
};

static uint8_t control(const struct i8042 *k)
{
	return k->ram[0];
}

static void update_irqs(struct i8042 *k)
{
	bool kbd = k->source == FROM_KBD || k->source == FROM_CONTROLLER;

	irq_set(&k->irq1, kbd && (control(k) & CTR_KBD_INT));
	irq_set(&k->irq12, k->source == FROM_AUX && (control(k) & CTR_AUX_INT));
}

static void fill(struct i8042 *k, enum source source, uint8_t byte)
{
	k->output = byte;
	k->source = (uint8_t)source;
	trace(TRACE_PS2, "kbc: %s byte %02x",
	      source == FROM_AUX   ? "mouse"
	      : source == FROM_KBD ? "keyboard"
				   : "controller",
	      byte);
	update_irqs(k);
}

/* A byte as the keyboard's wire brings it; false if translation swallowed it. */
static bool translate(struct i8042 *k, uint8_t *byte)
{
	if (!(control(k) & CTR_XLATE))
		return true;
	if (*byte == BREAK_PREFIX) {
		k->break_seen = true;
		return false;
	}
	if (*byte < sizeof(translation))
		*byte = translation[*byte];
	if (k->break_seen)
		*byte |= BREAK_BIT;
	k->break_seen = false;
	return true;
}

/* Moves the next byte into the output buffer if it is free and the wire is too. */
static void feed(struct i8042 *k)
{
	uint8_t byte;

	if (k->source != FROM_NONE)
		return;
	if (k->reply_source != FROM_NONE) {
		enum source source = k->reply_source;
		k->reply_source = FROM_NONE;
		fill(k, source, k->reply);
		return;
	}
	if (k->wire.pending)
		return;
	if (!(control(k) & CTR_KBD_OFF))
		while (ps2_queue_get(&k->kbd.out, &byte)) {
			k->kbd.last_sent = byte;
			if (translate(k, &byte)) {
				fill(k, FROM_KBD, byte);
				return;
			}
		}
	if (control(k) & CTR_AUX_OFF)
		return;
	ps2_mouse_report(&k->aux);
	if (ps2_queue_get(&k->aux.out, &byte)) {
		k->aux.last_sent = byte;
		fill(k, FROM_AUX, byte);
	}
}

static void wire_free(void *opaque)
{
	feed(opaque);
}

/* The controller's own answer. A byte that is still unread stays in front of it. */
static void answer(struct i8042 *k, enum source source, uint8_t byte)
{
	k->reply = byte;
	k->reply_source = (uint8_t)source;
	feed(k);
}

/* ---- output port ---- */

static void request_reset(struct i8042 *k)
{
	trace(TRACE_PS2, "kbc: reset");
	if (k->requests && k->requests->reset)
		k->requests->reset(k->requests->opaque);
}

static uint8_t read_output_port(const struct i8042 *k)
{
	bool kbd = k->source == FROM_KBD || k->source == FROM_CONTROLLER;

	return (uint8_t)(OUT_LINES | OUT_NO_RESET | (memory_a20(k->mem) ? OUT_A20 : 0) |
			 (kbd ? OUT_KBD_IRQ : 0) | (k->source == FROM_AUX ? OUT_AUX_IRQ : 0));
}

static void write_output_port(struct i8042 *k, uint8_t value)
{
	memory_set_a20(k->mem, value & OUT_A20);
	if (!(value & OUT_NO_RESET))
		request_reset(k);
}

/* ---- commands ---- */

static void control_changed(struct i8042 *k)
{
	if (control(k) & CTR_SYS)
		k->status |= ST_SYS;
	else
		k->status &= (uint8_t)~ST_SYS;
	update_irqs(k);
	feed(k);
}

static void set_control(struct i8042 *k, uint8_t clear, uint8_t set)
{
	k->ram[0] = (uint8_t)((k->ram[0] & ~clear) | set);
	control_changed(k);
}

static void write_command(struct i8042 *k, uint8_t command)
{
	trace(TRACE_PS2, "kbc: command %02x", command);
	k->status |= ST_COMMAND;
	k->pending = 0;
	if (command >= CMD_READ_RAM && command < CMD_READ_RAM + RAM_SIZE) {
		answer(k, FROM_CONTROLLER, k->ram[command - CMD_READ_RAM]);
		return;
	}
	if (command >= CMD_WRITE_RAM && command < CMD_WRITE_RAM + RAM_SIZE) {
		k->pending = command;
		return;
	}
	if (command >= CMD_PULSE) {
		/* Bits 3..0 say which lines stay as they are. */
		if (!(command & OUT_NO_RESET))
			request_reset(k);
		return;
	}
	switch (command) {
	case CMD_PASSWORD_TEST: answer(k, FROM_CONTROLLER, NO_PASSWORD); break;
	case CMD_AUX_OFF: set_control(k, 0, CTR_AUX_OFF); break;
	case CMD_AUX_ON: set_control(k, CTR_AUX_OFF, 0); break;
	case CMD_KBD_OFF: set_control(k, 0, CTR_KBD_OFF); break;
	case CMD_KBD_ON: set_control(k, CTR_KBD_OFF, 0); break;
	case CMD_SELF_TEST:
		k->status |= ST_SYS;
		k->ram[0] |= CTR_SYS;
		answer(k, FROM_CONTROLLER, SELF_TEST_OK);
		break;
	case CMD_AUX_TEST:
	case CMD_KBD_TEST: answer(k, FROM_CONTROLLER, LINE_TEST_OK); break;
	case CMD_READ_INPUT: answer(k, FROM_CONTROLLER, INPUT_PORT); break;
	case CMD_READ_OUTPUT: answer(k, FROM_CONTROLLER, read_output_port(k)); break;
	case CMD_TEST_INPUTS: answer(k, FROM_CONTROLLER, 0); break;
	case CMD_A20_OFF: memory_set_a20(k->mem, false); break;
	case CMD_A20_ON: memory_set_a20(k->mem, true); break;
	case CMD_WRITE_OUTPUT:
	case CMD_LOOP_KBD:
	case CMD_LOOP_AUX:
	case CMD_WRITE_AUX: k->pending = command; break;
	default: break; /* unknown ones do nothing */
	}
}

static void write_data(struct i8042 *k, uint8_t value)
{
	uint8_t command = k->pending;

	trace(TRACE_PS2, "kbc: data %02x for %02x", value, command);
	k->status &= (uint8_t)~ST_COMMAND;
	k->pending = 0;
	switch (command) {
	case 0:
		/* Talking to a device turns its line on. */
		ps2_keyboard_write(&k->kbd, value);
		k->input->leds = k->kbd.leds;
		set_control(k, CTR_KBD_OFF, 0);
		break;
	case CMD_WRITE_OUTPUT: write_output_port(k, value); break;
	case CMD_LOOP_KBD: answer(k, FROM_KBD, value); break;
	case CMD_LOOP_AUX: answer(k, FROM_AUX, value); break;
	case CMD_WRITE_AUX:
		ps2_mouse_write(&k->aux, value);
		set_control(k, CTR_AUX_OFF, 0);
		break;
	default:
		k->ram[command % RAM_SIZE] = value;
		if (command == CMD_WRITE_RAM)
			control_changed(k);
	}
}

static uint32_t data_read(void *opaque, uint16_t port, unsigned size)
{
	struct i8042 *k = opaque;
	uint8_t value = k->output;

	if (k->source != FROM_NONE) {
		bool device = k->source != FROM_CONTROLLER;
		k->source = FROM_NONE;
		update_irqs(k);
		if (device)
			timer_set(&k->wire, clock_now(k->clock) + BYTE_NS);
		feed(k);
	}
	return value;
}

static uint32_t status_read(void *opaque, uint16_t port, unsigned size)
{
	struct i8042 *k = opaque;

	return k->status | ST_UNLOCKED | (k->source != FROM_NONE ? ST_OBF : 0u) |
	       (k->source == FROM_AUX ? ST_AUX : 0u);
}

static void data_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	write_data(opaque, (uint8_t)value);
}

static void command_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	write_command(opaque, (uint8_t)value);
}

static const struct io_ops data_ops = {.read = data_read, .write = data_write};
static const struct io_ops command_ops = {.read = status_read, .write = command_write};

/* ---- from the user ---- */

static void on_key(void *opaque, uint8_t key, bool down)
{
	struct i8042 *k = opaque;

	ps2_keyboard_key(&k->kbd, key, down);
	feed(k);
}

static void on_mouse(void *opaque, int dx, int dy, int dz, unsigned buttons)
{
	struct i8042 *k = opaque;

	ps2_mouse_move(&k->aux, dx, dy, dz, buttons);
	feed(k);
}

/* ---- life ---- */

static void power_on(struct i8042 *k)
{
	k->ram[0] = CTR_KBD_INT | CTR_AUX_INT;
	ps2_keyboard_init(&k->kbd);
	ps2_mouse_init(&k->aux);
}

static void i8042_reset(void *opaque)
{
	struct i8042 *k = opaque;

	power_on(k);
	k->input->leds = 0;
	memory_set_a20(k->mem, true);
	update_irqs(k);
}

/* The gate is the memory's; whoever drives it, its state is saved with the controller's. */
static void i8042_pre_save(void *opaque)
{
	struct i8042 *k = opaque;
	k->a20 = memory_a20(k->mem);
}

static int i8042_post_load(void *opaque, unsigned version, struct error *err)
{
	struct i8042 *k = opaque;

	ps2_keyboard_check(&k->kbd);
	ps2_mouse_check(&k->aux);
	if (k->source > FROM_AUX)
		k->source = FROM_NONE;
	if (k->reply_source > FROM_AUX)
		k->reply_source = FROM_NONE;
	bool ram = k->pending >= CMD_WRITE_RAM && k->pending < CMD_WRITE_RAM + RAM_SIZE;
	if (!ram && k->pending != CMD_WRITE_OUTPUT && k->pending != CMD_LOOP_KBD &&
	    k->pending != CMD_LOOP_AUX && k->pending != CMD_WRITE_AUX)
		k->pending = 0;
	k->input->leds = k->kbd.leds & 7;
	memory_set_a20(k->mem, k->a20);
	update_irqs(k);
	return 0;
}

static const struct state_desc i8042_desc = {
	.name = "i8042",
	.version = 1,
	.fields = i8042_fields,
	.reset = i8042_reset,
	.pre_save = i8042_pre_save,
	.post_load = i8042_post_load,
};

struct i8042 *i8042_new(const struct device_env *env, struct irq_line irq1, struct irq_line irq12,
			struct input *input)
{
	struct i8042 *k = xcalloc(1, sizeof(*k));

	k->irq1 = irq1;
	k->irq12 = irq12;
	k->input = input;
	k->mem = env->mem;
	k->clock = env->clock;
	k->requests = env->requests;
	k->io = env->io;
	k->states = env->states;
	timer_init(&k->wire, env->clock, wire_free, k);
	k->kbd_sink = (struct input_sink){.key = on_key, .opaque = k};
	k->aux_sink = (struct input_sink){.mouse = on_mouse, .opaque = k};
	input->keyboard = &k->kbd_sink;
	input->mouse = &k->aux_sink;
	power_on(k);
	k->ranges[0] = iobus_add(env->io, "i8042-data", DATA_PORT, 1, &data_ops, k);
	k->ranges[1] = iobus_add(env->io, "i8042-cmd", COMMAND_PORT, 1, &command_ops, k);
	state_register(env->states, &i8042_desc, 0, k);
	return k;
}

void i8042_free(struct i8042 *k)
{
	if (!k)
		return;
	k->input->keyboard = k->input->mouse = NULL;
	timer_cancel(&k->wire);
	iobus_remove(k->io, k->ranges[0]);
	iobus_remove(k->io, k->ranges[1]);
	state_unregister(k->states, k);
	free(k);
}
