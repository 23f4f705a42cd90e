/* SPDX-License-Identifier: MIT */
/*
 * Coprocessor errors as the PC/AT reports them, for programs that leave CR0.NE clear.
 *
 * The CPU stops with FERR# asserted before the x87 instruction that follows an unmasked exception.
 * The chipset latches that and raises IRQ13. The handler writes to port F0h: the latch and IRQ13
 * fall, and IGNNE# lets the CPU execute the handler's own x87 instructions; it falls with FERR#,
 * when they have cleared the exception.
 *
 *   F0h W  any value: clear the latch, assert IGNNE#
 *   F1h W  any value: clear the latch (on the AT: reset the coprocessor, which ours ignores)
 *   both read as FFh
 *
 * Documents: 82371SB datasheet, "Coprocessor Error Register"; SDM vol. 1, appendix D.2.
 */
#include "devices/coprocessor.h"
#include "core/iobus.h"
#include "core/state.h"
#include "lib/text.h"
#include <stdlib.h>

enum {
	PORT_CLEAR_BUSY = 0xF0,
	PORTS = 2,
};

struct coprocessor {
	bool latch; /* IRQ13 is high */

	struct irq_line irq;
	void (*ignne)(void *opaque);
	void *opaque;
	struct iobus *io;
	struct io_range *range;
	struct state_registry *states;
};

static const struct state_field fields[] = {STATE_UINT(coprocessor, latch), STATE_END};

void coprocessor_ferr(struct coprocessor *p)
{
	p->latch = true;
	irq_raise(&p->irq);
}

static uint32_t coprocessor_read(void *opaque, uint16_t port, unsigned size)
{
	return 0xFF;
}

static void coprocessor_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct coprocessor *p = opaque;

	p->latch = false;
	irq_lower(&p->irq);
	if (port == PORT_CLEAR_BUSY)
		p->ignne(p->opaque);
}

static const struct io_ops ops = {.read = coprocessor_read, .write = coprocessor_write};

static void reset(void *opaque)
{
	struct coprocessor *p = opaque;

	irq_set(&p->irq, p->latch);
}

static const struct state_desc desc = {
	.name = "coprocessor",
	.version = 1,
	.fields = fields,
	.reset = reset,
};

struct coprocessor *coprocessor_new(const struct device_env *env, struct irq_line irq13,
				    void (*ignne)(void *opaque), void *opaque)
{
	struct coprocessor *p = xcalloc(1, sizeof(*p));

	p->irq = irq13;
	p->ignne = ignne;
	p->opaque = opaque;
	p->io = env->io;
	p->states = env->states;
	p->range = iobus_add(env->io, "coprocessor", PORT_CLEAR_BUSY, PORTS, &ops, p);
	state_register(env->states, &desc, 0, p);
	return p;
}

void coprocessor_free(struct coprocessor *p)
{
	if (!p)
		return;
	iobus_remove(p->io, p->range);
	state_unregister(p->states, p);
	free(p);
}
