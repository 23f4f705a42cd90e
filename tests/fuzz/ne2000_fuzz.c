/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: the NE2000 programmed at random, with frames coming in, resets and state loaded
 * back. Nothing is expected but that every access stays in the card's memory.
 */
#include "core/iobus.h"
#include "core/memory.h"
#include "core/state.h"
#include "devices/ne2000.h"
#include "lib/clock.h"
#include "lib/loop.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>

enum { BASE = 0x300, FRAME = 1600 };
enum operation { OP_OUT, OP_IN, OP_OUTS, OP_INS, OP_FRAME, OP_TURN, OP_RESET, OPERATIONS };

static bool wire_receive(void *opaque, unsigned queue, const struct iovec *iov, int count,
			 size_t len)
{
	static uint8_t copy[NET_FRAME_MAX];
	net_iov_copy(copy, sizeof(copy), iov, count, 0);
	return true;
}

static const struct net_port_ops wire_ops = {.receive = wire_receive};

static void step(struct fuzz_input *in, const struct device_env *env, struct net_port *wire)
{
	static uint8_t buf[FRAME];
	uint8_t op = fuzz_u8(in) % OPERATIONS;
	uint16_t port = (uint16_t)(BASE + fuzz_u8(in) % NE2000_PORTS);
	unsigned size = 1u << fuzz_u8(in) % 3;
	switch (op) {
	case OP_OUT: iobus_write(env->io, port, size, fuzz_u32(in)); break;
	case OP_IN: iobus_read(env->io, port, size); break;
	case OP_OUTS:
		iobus_write_block(env->io, port, size, buf, fuzz_u16(in) % (FRAME / 4));
		break;
	case OP_INS: iobus_read_block(env->io, port, size, buf, fuzz_u16(in) % (FRAME / 4)); break;
	case OP_FRAME:
		fuzz_take(in, buf, 16);
		net_send_buf(wire, 0, buf, fuzz_u16(in) % FRAME);
		break;
	case OP_TURN:
		loop_unlock(env->loop);
		loop_run_once(env->loop, 0);
		loop_lock(env->loop);
		break;
	default: state_reset_all(env->states); break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);
	struct error err = ERROR_INIT;
	struct device_env env = {.mem = memory_new(),
				 .io = iobus_new(),
				 .loop = loop_new(NULL),
				 .states = state_registry_new()};
	env.clock = clock_new(env.loop);
	loop_lock(env.loop);
	struct net *net = net_new(env.loop, env.clock);
	struct net_port *wire =
		net_port_new(net, NET_BACKEND, "wire", "test", 1, &wire_ops, NULL, &err);
	struct nic_config nic = {.net = net, .id = "card", .mac = {0x52, 0x54}, .peer = wire};
	struct ne2000 *card = ne2000_isa_new(&env, &nic, 0, BASE, (struct irq_line){0}, &err);
	while (fuzz_left(&in))
		step(&in, &env, wire);
	ne2000_free(card);
	net_free(net);
	loop_unlock(env.loop);
	state_registry_free(env.states);
	clock_free(env.clock);
	loop_free(env.loop);
	iobus_free(env.io);
	memory_free(env.mem);
	return 0;
}

static size_t seed(unsigned n, uint8_t *buf, size_t max)
{
	/* Start, all filters open, a ring, frames. */
	static const uint8_t input[] = {
		0, 1, 0, 0x46, 0, 0,    0, 0, 2, 0, 0x50, 0, 0,    0,    0,    12,   0,    0x1F, 0,
		0, 0, 0, 0,    0, 0x22, 0, 0, 0, 4, 0,    0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
	};
	if (n || max < sizeof(input))
		return 0;
	memcpy(buf, input, sizeof(input));
	return sizeof(input);
}

const struct fuzz_target fuzz_target = {
	.name = "ne2000", .runs = 2000, .max_len = 4096, .seed = seed};
