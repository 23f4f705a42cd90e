/* SPDX-License-Identifier: MIT */
/*
 * The two Intel 8237A DMA controllers of a PC AT and the page registers that extend their 16-bit
 * addresses.
 *
 *   ports          bytes (ch. 0..3)   words (ch. 4..7)
 *   address/count  00h..07h           C0h..CEh, even
 *   status/command 08h                D0h
 *   request        09h                D2h
 *   single mask    0Ah                D4h
 *   mode           0Bh                D6h
 *   clear flip-flop 0Ch               D8h
 *   temporary/clear 0Dh               DAh
 *   clear mask     0Eh                DCh
 *   all masks      0Fh                DEh
 *   pages          87h 83h 81h 82h (0..3), 8Bh 89h 8Ah (5..7), 8Fh refresh; the other ports of
 *                  80h..8Fh are plain latches (80h shows POST codes)
 *
 * Transfers are made when the device asks, in one go, so single, demand and block mode look the
 * same to the guest except for when they end: at terminal count. Addresses count within 64 KiB (128
 * KiB for words), as the page register does not take the carry.
 *
 * Documents: Intel 8237A datasheet (231466), "Register Description", "Programming"; IBM PC AT
 * Technical Reference, "DMA Controllers". Left out: memory-to-memory transfers (the PC's channel 0
 * is not wired for them), priorities and timing bits of the command register.
 */
#include "devices/i8237.h"
#include "core/iobus.h"
#include "core/memory.h"
#include "core/state.h"
#include "lib/log.h"
#include "lib/text.h"
#include <stdlib.h>

enum {
	LOW_PORT = 0x00,
	HIGH_PORT = 0xC0,
	PAGE_PORT = 0x80,
	PAGES = 16,
	CHANNELS = 4, /* a controller */
	CASCADE = 4,  /* the channel that carries the first controller's requests */

	R_COMMAND = 0x8, /* reads: status */
	R_REQUEST = 0x9,
	R_SINGLE_MASK = 0xA,
	R_MODE = 0xB,
	R_CLEAR_FF = 0xC,
	R_MASTER_CLEAR = 0xD, /* reads: temporary */
	R_CLEAR_MASK = 0xE,
	R_ALL_MASKS = 0xF,

	COMMAND_DISABLE = 1 << 2,
	SELECT = 3,
	MASK_SET = 1 << 2,
	REQUEST_SET = 1 << 2,
	STATUS_REQUEST_SHIFT = 4,

	MODE_TRANSFER_SHIFT = 2,
	MODE_TRANSFER = 3,
	MODE_AUTO_INIT = 1 << 4,
	MODE_DOWN = 1 << 5,
	MODE_KIND_SHIFT = 6,
};

enum transfer { VERIFY, WRITE_MEMORY, READ_MEMORY };
enum kind { DEMAND, SINGLE, BLOCK, CASCADED };

struct channel {
	uint16_t base_address, base_count;
	uint16_t address, count; /* current; in words on the second controller */
	uint8_t mode;
};

struct controller {
	struct channel channel[CHANNELS];
	uint8_t command, mask;
	uint8_t terminal; /* channels that reached terminal count, cleared by a status read */
	uint8_t request;  /* DREQ lines */
	uint8_t soft_request;
	bool high_byte; /* the flip-flop */
};

struct client {
	void (*ready)(void *opaque);
	void *opaque;
};

struct i8237 {
	struct controller ctl[2];
	uint8_t page[PAGES];

	struct client client[2 * CHANNELS];
	struct memory *mem;
	struct iobus *io;
	struct io_range *ranges[3];
	struct state_registry *states;
};

static const struct state_field channel_fields[] = {
	STATE_UINT(channel, base_address), STATE_UINT(channel, base_count),
	STATE_UINT(channel, address),      STATE_UINT(channel, count),
	STATE_UINT(channel, mode),         STATE_END,
};

static const struct state_field controller_fields[] = {
	STATE_STRUCTS(controller, channel, channel_fields),
	STATE_UINT(controller, command),
	STATE_UINT(controller, mask),
	STATE_UINT(controller, terminal),
	STATE_UINT(controller, request),
	STATE_UINT(controller, soft_request),
	STATE_UINT(controller, high_byte),
	STATE_END,
};

static const struct state_field i8237_fields[] = {
	STATE_STRUCTS(i8237, ctl, controller_fields),
	STATE_BYTES(i8237, page),
	STATE_END,
};

/* Index of each channel's page register in 80h..8Fh. */
static const uint8_t page_of[2 * CHANNELS] = {7, 3, 1, 2, 0xF, 0xB, 9, 0xA};

/* ---- transfers ---- */

bool i8237_ready(const struct i8237 *dma, unsigned channel)
{
	const struct controller *c = &dma->ctl[channel >> 2 & 1];
	unsigned n = channel & 3;

	if ((c->command & COMMAND_DISABLE) || (c->mask >> n & 1))
		return false;
	/* The first controller works through the second one's channel 4. */
	if (channel < CHANNELS &&
	    ((dma->ctl[1].command & COMMAND_DISABLE) || (dma->ctl[1].mask & 1)))
		return false;
	return c->channel[n].mode >> MODE_KIND_SHIFT != CASCADED;
}

/* Tells the clients that wait for a channel which may have become ready. */
static void wake_clients(struct i8237 *dma)
{
	for (unsigned n = 0; n < 2 * CHANNELS; n++) {
		struct client *client = &dma->client[n];
		if (client->ready && (dma->ctl[n >> 2].request >> (n & 3) & 1) &&
		    i8237_ready(dma, n))
			client->ready(client->opaque);
	}
}

void i8237_set_client(struct i8237 *dma, unsigned channel, void (*ready)(void *opaque),
		      void *opaque)
{
	dma->client[channel & 7] = (struct client){ready, opaque};
}

void i8237_request(struct i8237 *dma, unsigned channel, bool level)
{
	struct controller *c = &dma->ctl[channel >> 2 & 1];
	uint8_t bit = (uint8_t)(1u << (channel & 3));

	if (level)
		c->request |= bit;
	else
		c->request &= (uint8_t)~bit;
}

/* Moves `len` bytes at one run of ascending guest addresses. */
static void move(struct i8237 *dma, uint64_t address, uint8_t *buf, size_t len, bool to_memory)
{
	if (to_memory)
		mem_write(dma->mem, address, buf, len);
	else
		mem_read(dma->mem, address, buf, len);
}

size_t i8237_transfer(struct i8237 *dma, unsigned channel, void *buf, size_t len, bool to_memory,
		      bool *terminal_count)
{
	struct controller *c = &dma->ctl[channel >> 2 & 1];
	struct channel *ch = &c->channel[channel & 3];
	unsigned shift = channel >= CHANNELS; /* words */
	enum transfer transfer = ch->mode >> MODE_TRANSFER_SHIFT & MODE_TRANSFER;
	uint8_t *p = buf;
	size_t units = len >> shift, done = 0;

	*terminal_count = false;
	if (channel >= 2 * CHANNELS || !i8237_ready(dma, channel))
		return 0;
	if (transfer != VERIFY && transfer != (to_memory ? WRITE_MEMORY : READ_MEMORY))
		return 0;
	/* Page bit 0 is not used for words: their address has 17 bits. */
	uint64_t page = (uint64_t)(dma->page[page_of[channel]] & (shift ? 0xFE : 0xFF)) << 16;
	while (done < units && !*terminal_count) {
		bool down = ch->mode & MODE_DOWN;
		/* Up: as far as the count and the wrap of the address allow. Down: one by one. */
		size_t run = units - done;
		if (run > (size_t)ch->count + 1)
			run = (size_t)ch->count + 1;
		if (run > (size_t)65536 - ch->address)
			run = (size_t)65536 - ch->address;
		if (down)
			run = 1;
		if (transfer != VERIFY)
			move(dma, page | (uint64_t)ch->address << shift, p + (done << shift),
			     run << shift, to_memory);
		ch->address = (uint16_t)(ch->address + (down ? 0xFFFFu : (unsigned)run));
		*terminal_count = run == (size_t)ch->count + 1;
		ch->count = (uint16_t)(ch->count - run);
		done += run;
	}
	trace(TRACE_DMA, "dma %u: %zu units %s memory%s", channel, done, to_memory ? "to" : "from",
	      *terminal_count ? ", terminal count" : "");
	if (*terminal_count) {
		uint8_t bit = (uint8_t)(1u << (channel & 3));
		c->terminal |= bit;
		c->soft_request &= (uint8_t)~bit;
		if (ch->mode & MODE_AUTO_INIT) {
			ch->address = ch->base_address;
			ch->count = ch->base_count;
		} else {
			c->mask |= bit;
		}
	}
	return done << shift;
}

/* ---- registers ---- */

static uint8_t read_word(struct controller *c, uint16_t value)
{
	bool high = c->high_byte;

	c->high_byte = !high;
	return (uint8_t)(high ? value >> 8 : value);
}

static uint16_t replace_byte(uint16_t word, bool high, uint8_t value)
{
	return (uint16_t)(high ? (word & 0x00FF) | value << 8 : (word & 0xFF00) | value);
}

static uint8_t controller_read(struct controller *c, unsigned reg)
{
	uint8_t value;

	if (reg < R_COMMAND) {
		const struct channel *ch = &c->channel[reg >> 1];
		return read_word(c, reg & 1 ? ch->count : ch->address);
	}
	switch (reg) {
	case R_COMMAND:
		value = (uint8_t)(c->terminal | (c->request | c->soft_request)
							<< STATUS_REQUEST_SHIFT);
		c->terminal = 0;
		return value;
	case R_ALL_MASKS: return c->mask | 0xF0;
	default: return 0; /* the temporary register: no memory-to-memory transfers */
	}
}

static void controller_write(struct controller *c, unsigned reg, uint8_t value)
{
	uint8_t bit = (uint8_t)(1u << (value & SELECT));

	if (reg < R_COMMAND) {
		struct channel *ch = &c->channel[reg >> 1];
		bool high = c->high_byte;
		c->high_byte = !high;
		/* Base and current registers are written together. */
		if (reg & 1) {
			ch->base_count = replace_byte(ch->base_count, high, value);
			ch->count = ch->base_count;
		} else {
			ch->base_address = replace_byte(ch->base_address, high, value);
			ch->address = ch->base_address;
		}
		return;
	}
	switch (reg) {
	case R_COMMAND: c->command = value; break;
	case R_REQUEST:
		if (value & REQUEST_SET)
			c->soft_request |= bit;
		else
			c->soft_request &= (uint8_t)~bit;
		break;
	case R_SINGLE_MASK:
		if (value & MASK_SET)
			c->mask |= bit;
		else
			c->mask &= (uint8_t)~bit;
		break;
	case R_MODE: c->channel[value & SELECT].mode = value & (uint8_t)~SELECT; break;
	case R_CLEAR_FF: c->high_byte = false; break;
	case R_MASTER_CLEAR:
		c->command = 0;
		c->terminal = 0;
		c->soft_request = 0;
		c->high_byte = false;
		c->mask = 0x0F;
		break;
	case R_CLEAR_MASK: c->mask = 0; break;
	case R_ALL_MASKS: c->mask = value & 0x0F; break;
	default: break;
	}
}

static uint32_t low_read(void *opaque, uint16_t port, unsigned size)
{
	struct i8237 *dma = opaque;
	return controller_read(&dma->ctl[0], port - LOW_PORT);
}

static void low_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct i8237 *dma = opaque;
	controller_write(&dma->ctl[0], port - LOW_PORT, (uint8_t)value);
	wake_clients(dma);
}

/* The second controller's address line 0 is the bus's line 1. */
static uint32_t high_read(void *opaque, uint16_t port, unsigned size)
{
	struct i8237 *dma = opaque;
	return controller_read(&dma->ctl[1], (port - HIGH_PORT) >> 1);
}

static void high_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct i8237 *dma = opaque;
	controller_write(&dma->ctl[1], (port - HIGH_PORT) >> 1, (uint8_t)value);
	wake_clients(dma);
}

static uint32_t page_read(void *opaque, uint16_t port, unsigned size)
{
	struct i8237 *dma = opaque;
	return dma->page[port - PAGE_PORT];
}

static void page_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct i8237 *dma = opaque;
	dma->page[port - PAGE_PORT] = (uint8_t)value;
}

static const struct io_ops low_ops = {.read = low_read, .write = low_write};
static const struct io_ops high_ops = {.read = high_read, .write = high_write};
static const struct io_ops page_ops = {.read = page_read, .write = page_write};

/* ---- life ---- */

static void i8237_reset(void *opaque)
{
	struct i8237 *dma = opaque;

	dma->ctl[0].mask = dma->ctl[1].mask = 0x0F;
	/* Firmware sets the cascade up; one that does not expects what its predecessor left. */
	dma->ctl[1].channel[0].mode = CASCADED << MODE_KIND_SHIFT;
	dma->ctl[1].mask &= (uint8_t)~1u;
}

static int i8237_post_load(void *opaque, unsigned version, struct error *err)
{
	struct i8237 *dma = opaque;

	for (int i = 0; i < 2; i++)
		dma->ctl[i].mask &= 0x0F;
	return 0;
}

static const struct state_desc i8237_desc = {
	.name = "i8237",
	.version = 1,
	.fields = i8237_fields,
	.reset = i8237_reset,
	.post_load = i8237_post_load,
};

struct i8237 *i8237_new(const struct device_env *env)
{
	struct i8237 *dma = xcalloc(1, sizeof(*dma));

	dma->mem = env->mem;
	dma->io = env->io;
	dma->states = env->states;
	dma->ranges[0] = iobus_add(env->io, "dma1", LOW_PORT, 16, &low_ops, dma);
	dma->ranges[1] = iobus_add(env->io, "dma2", HIGH_PORT, 32, &high_ops, dma);
	dma->ranges[2] = iobus_add(env->io, "dma-page", PAGE_PORT, PAGES, &page_ops, dma);
	state_register(env->states, &i8237_desc, 0, dma);
	i8237_reset(dma);
	return dma;
}

void i8237_free(struct i8237 *dma)
{
	if (!dma)
		return;
	for (int i = 0; i < 3; i++)
		iobus_remove(dma->io, dma->ranges[i]);
	state_unregister(dma->states, dma);
	free(dma);
}
