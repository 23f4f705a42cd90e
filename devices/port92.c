/* SPDX-License-Identifier: MIT */
/*
 * System control port A (92h): bit 1 is the fast A20 gate, a 0 to 1 change of bit 0 resets the
 * machine, the other bits (security lock, fixed disk lamps) are kept as written.
 *
 * The keyboard controller drives A20 too; whoever wrote last wins, and this port reads back the
 * gate itself. Document: IBM PS/2 Hardware Interface Technical Reference, "System Control Port A".
 */
#include "devices/port92.h"
#include "core/iobus.h"
#include "core/memory.h"
#include "core/state.h"
#include "lib/text.h"
#include <stdlib.h>

enum {
	PORT_A = 0x92,
	A_RESET = 1 << 0,
	A_A20 = 1 << 1,
};

struct port92 {
	uint8_t value;

	struct memory *mem;
	struct iobus *io;
	const struct machine_requests *requests;
	struct io_range *range;
	struct state_registry *states;
};

static const struct state_field port92_fields[] = {STATE_UINT(port92, value), STATE_END};

static uint32_t porta_read(void *opaque, uint16_t port, unsigned size)
{
	struct port92 *p = opaque;

	return (uint32_t)(p->value & ~A_A20) | (memory_a20(p->mem) ? A_A20 : 0u);
}

static void porta_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct port92 *p = opaque;
	bool reset = (value & A_RESET) && !(p->value & A_RESET);

	p->value = (uint8_t)value;
	memory_set_a20(p->mem, value & A_A20);
	if (reset && p->requests && p->requests->reset)
		p->requests->reset(p->requests->opaque);
}

static const struct io_ops porta_ops = {.read = porta_read, .write = porta_write};

static const struct state_desc port92_desc = {
	.name = "port92",
	.version = 1,
	.fields = port92_fields,
};

struct port92 *port92_new(const struct device_env *env)
{
	struct port92 *p = xcalloc(1, sizeof(*p));

	p->mem = env->mem;
	p->io = env->io;
	p->requests = env->requests;
	p->states = env->states;
	p->range = iobus_add(env->io, "port92", PORT_A, 1, &porta_ops, p);
	state_register(env->states, &port92_desc, 0, p);
	return p;
}

void port92_free(struct port92 *p)
{
	if (!p)
		return;
	iobus_remove(p->io, p->range);
	state_unregister(p->states, p);
	free(p);
}
