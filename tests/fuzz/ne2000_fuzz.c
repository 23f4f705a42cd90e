/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: an ISA and a PCI NE2000 programmed at random, with frames coming in, wires that are
 * full, cut, or answer at once, resets, and state saved, damaged and loaded back. Nothing is expected
 * but that every access stays in the card's memory.
 */
#include "core/iobus.h"
#include "core/memory.h"
#include "core/state.h"
#include "devices/ne2000.h"
#include "devices/pci.h"
#include "lib/clock.h"
#include "lib/loop.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>

enum { CARDS = 2, BASE = 0x300, PCI_BASE = 0x400, PCI_SLOT = 3, FRAME = 1600 };
enum operation {
	OP_OUT,
	OP_IN,
	OP_OUTS,
	OP_INS,
	OP_FRAME,
	OP_TURN,
	OP_RESET,
	OP_STATE,
	OP_LINK,
	OP_WIRE,
	OPERATIONS
};
/* What a wire does with a frame. */
enum { WIRE_TAKES, WIRE_FULL, WIRE_ANSWERS, WIRES };

struct wire {
	struct net_port *port;
	uint8_t kind;
	bool down;
};

struct world {
	struct device_env env;
	struct pci_bus *pci;
	struct net *net;
	struct wire wire[CARDS];
	struct ne2000 *card[CARDS];
};

static bool wire_receive(void *opaque, unsigned queue, const struct iovec *iov, int count,
			 size_t len)
{
	static uint8_t copy[NET_FRAME_MAX];
	struct wire *wire = opaque;

	net_iov_copy(copy, sizeof(copy), iov, count, 0);
	if (wire->kind == WIRE_ANSWERS)
		net_send_buf(wire->port, 0, copy, len);
	return wire->kind != WIRE_FULL;
}

static const struct net_port_ops wire_ops = {.receive = wire_receive};

static void damage_state(struct fuzz_input *in, struct state_registry *states)
{
	struct strbuf image = STRBUF_INIT;
	struct error err = ERROR_INIT;

	state_save(states, &image);
	for (unsigned n = fuzz_u8(in) % 4; n; n--) {
		size_t at = fuzz_u16(in);
		image.data[at % image.len] = (char)fuzz_u8(in);
	}
	state_load(states, image.data, image.len, &err);
	strbuf_free(&image);
}

static void configure(struct world *w)
{
	iobus_write(w->env.io, 0xCF8, 4, 0x80000010 | PCI_SLOT << 11);
	iobus_write(w->env.io, 0xCFC, 4, PCI_BASE);
	iobus_write(w->env.io, 0xCF8, 4, 0x80000004 | PCI_SLOT << 11);
	iobus_write(w->env.io, 0xCFC, 2, 1);
}

static void step(struct fuzz_input *in, struct world *w)
{
	static uint8_t buf[4 * FRAME];
	uint8_t op = fuzz_u8(in) % OPERATIONS, where = fuzz_u8(in);
	unsigned card = where / NE2000_PORTS % CARDS;
	uint16_t port = (uint16_t)((card ? PCI_BASE : BASE) + where % NE2000_PORTS);
	unsigned size = 1u << fuzz_u8(in) % 3;
	struct wire *wire = &w->wire[card];
	struct iobus *io = w->env.io;

	switch (op) {
	case OP_OUT: iobus_write(io, port, size, fuzz_u32(in)); break;
	case OP_IN: iobus_read(io, port, size); break;
	case OP_OUTS: iobus_write_block(io, port, size, buf, fuzz_u16(in) % FRAME); break;
	case OP_INS: iobus_read_block(io, port, size, buf, fuzz_u16(in) % FRAME); break;
	case OP_FRAME:
		fuzz_take(in, buf, 16);
		net_send_buf(wire->port, 0, buf, fuzz_u16(in) % sizeof(buf));
		break;
	case OP_TURN:
		loop_unlock(w->env.loop);
		loop_run_once(w->env.loop, 0);
		loop_lock(w->env.loop);
		break;
	case OP_STATE:
		damage_state(in, w->env.states);
		configure(w);
		break;
	case OP_LINK:
		wire->down = !wire->down;
		net_set_link(wire->port, !wire->down);
		break;
	case OP_WIRE:
		wire->kind = fuzz_u8(in) % WIRES;
		if (wire->kind != WIRE_FULL)
			net_receive_ready(wire->port, 0);
		break;
	default:
		state_reset_all(w->env.states);
		configure(w);
		break;
	}
}

static void build(struct world *w)
{
	static const char *const wires[CARDS] = {"wire0", "wire1"}, *const cards[CARDS] = {"isa",
											   "pci"};
	struct error err = ERROR_INIT;

	for (unsigned n = 0; n < CARDS; n++) {
		w->wire[n].port = net_port_new(w->net, NET_BACKEND, wires[n], "test", 1, &wire_ops,
					       &w->wire[n], &err);
		struct nic_config nic = {.net = w->net,
					 .id = cards[n],
					 .mac = {0x52, 0x54, 0, 0, 0, (uint8_t)n},
					 .peer = w->wire[n].port};
		w->card[n] =
			n ? ne2000_pci_new(&w->env, &nic, (int)n, w->pci, PCI_SLOT << 3, &err)
			  : ne2000_isa_new(&w->env, &nic, (int)n, BASE, (struct irq_line){0}, &err);
		if (!w->card[n])
			abort();
	}
	configure(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);
	struct world w = {.env = {.mem = memory_new(),
				  .io = iobus_new(),
				  .loop = loop_new(NULL),
				  .states = state_registry_new()}};

	w.env.clock = clock_new(w.env.loop);
	loop_lock(w.env.loop);
	w.pci = pci_bus_new(&w.env);
	w.net = net_new(w.env.loop, w.env.clock);
	build(&w);
	while (fuzz_left(&in))
		step(&in, &w);
	for (unsigned n = 0; n < CARDS; n++)
		ne2000_free(w.card[n]);
	net_free(w.net);
	pci_bus_free(w.pci);
	loop_unlock(w.env.loop);
	state_registry_free(w.env.states);
	clock_free(w.env.clock);
	loop_free(w.env.loop);
	iobus_free(w.env.io);
	memory_free(w.env.mem);
	return 0;
}

#define OUT(card, reg, value) OP_OUT, 32 * card + reg, 0, value, 0, 0, 0
/* Page 0, stopped, then a ring of pages 4Ch to 7Fh, all filters open, 16-bit transfers, and go. */
#define START(card, tcr)                                                                           \
	OUT(card, 0, 0x21), OUT(card, 14, 0x49), OUT(card, 1, 0x4C), OUT(card, 2, 0x80),           \
		OUT(card, 3, 0x4C), OUT(card, 12, 0x1F), OUT(card, 13, tcr), OUT(card, 15, 0xFF),  \
		OUT(card, 0, 0x61), OUT(card, 7, 0x4D), OUT(card, 0, 0x22)
#define FRAME_IN(card, len)                                                                        \
	OP_FRAME, 32 * card, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 8, 0, 0x45,  \
		0, len & 0xFF, len >> 8
/* Remote DMA of `len` bytes at `at`, through the data port. */
#define REMOTE(card, command, at, len)                                                             \
	OUT(card, 8, at & 0xFF), OUT(card, 9, at >> 8), OUT(card, 10, len & 0xFF),                 \
		OUT(card, 11, len >> 8), OUT(card, 0, command)
#define SEND(card, page, len)                                                                      \
	OUT(card, 4, page), OUT(card, 5, len & 0xFF), OUT(card, 6, len >> 8), OUT(card, 0, 0x26)

/* Programs that the fuzzer starts from. */
static const uint8_t receive[] = {START(0, 0),
				  FRAME_IN(0, 100),
				  FRAME_IN(0, 1500),
				  REMOTE(0, 0x0A, 0x4D00, 64),
				  OP_INS,
				  16,
				  1,
				  32,
				  0,
				  OUT(0, 3, 0x4E),
				  FRAME_IN(0, 6000),
				  OP_TURN,
				  0,
				  0};
static const uint8_t overflow[] = {START(0, 0),
				   FRAME_IN(0, 1500),
				   FRAME_IN(0, 1500),
				   FRAME_IN(0, 1500),
				   FRAME_IN(0, 1500),
				   FRAME_IN(0, 1500),
				   FRAME_IN(0, 1500),
				   FRAME_IN(0, 1500),
				   FRAME_IN(0, 1500),
				   FRAME_IN(0, 1500),
				   FRAME_IN(0, 1500),
				   OUT(0, 3, 0x60),
				   OP_TURN,
				   0,
				   0,
				   OP_STATE,
				   0,
				   0,
				   0,
				   OP_TURN,
				   0,
				   0};
static const uint8_t transmit[] = {START(0, 0),
				   REMOTE(0, 0x12, 0x4000, 1514),
				   OP_OUTS,
				   16,
				   1,
				   0xF5,
				   2,
				   OP_WIRE,
				   0,
				   0,
				   WIRE_ANSWERS,
				   SEND(0, 0x40, 1514),
				   OP_WIRE,
				   0,
				   0,
				   WIRE_FULL,
				   SEND(0, 0x40, 60),
				   OP_LINK,
				   0,
				   0,
				   OP_LINK,
				   0,
				   0,
				   OP_WIRE,
				   0,
				   0,
				   WIRE_TAKES,
				   OP_TURN,
				   0,
				   0};
static const uint8_t loopback[] = {START(0, 2),
				   REMOTE(0, 0x12, 0x4000, 64),
				   OP_OUTS,
				   16,
				   1,
				   32,
				   0,
				   SEND(0, 0x40, 64),
				   OP_IN,
				   6,
				   0,
				   OP_IN,
				   6,
				   0,
				   START(0, 4),
				   SEND(0, 0x40, 8),
				   SEND(0, 0xFF, 0xFFFF)};
static const uint8_t pci[] = {START(1, 0),
			      FRAME_IN(1, 400),
			      REMOTE(1, 0x0A, 0x4D00, 256),
			      OP_INS,
			      48,
			      2,
			      64,
			      0,
			      REMOTE(1, 0x12, 0x7FFE, 64),
			      OP_OUTS,
			      48,
			      2,
			      32,
			      0,
			      OUT(1, 0, 0xE2),
			      OP_IN,
			      37,
			      0,
			      OP_IN,
			      46,
			      0,
			      OP_IN,
			      47,
			      0,
			      OP_STATE,
			      0,
			      0,
			      3,
			      0,
			      1,
			      0xFF,
			      0x10,
			      2,
			      0x80,
			      0,
			      3,
			      0x7F,
			      START(1, 0),
			      FRAME_IN(1, 60),
			      OP_RESET,
			      0,
			      0,
			      FRAME_IN(1, 60)};
static const struct {
	const uint8_t *bytes;
	size_t len;
} seeds[] = {{receive, sizeof(receive)},
	     {overflow, sizeof(overflow)},
	     {transmit, sizeof(transmit)},
	     {loopback, sizeof(loopback)},
	     {pci, sizeof(pci)}};

static size_t seed(unsigned n, uint8_t *buf, size_t max)
{
	if (n >= sizeof(seeds) / sizeof(seeds[0]) || seeds[n].len > max)
		return 0;
	memcpy(buf, seeds[n].bytes, seeds[n].len);
	return seeds[n].len;
}

const struct fuzz_target fuzz_target = {
	.name = "ne2000", .runs = 1000, .max_len = 4096, .seed = seed};
