/* SPDX-License-Identifier: MIT */
/*
 * A wired OR: the level of each input is a bit, the output is whether any is set. `out` hears only
 * of changes; what is behind it may be edge-triggered, and an input that rises while another one is
 * high makes no edge there, as on an ISA bus.
 */
#include "core/irq_or.h"
#include "core/state.h"
#include "lib/text.h"
#include <stdlib.h>

struct irq_or {
	uint32_t levels; /* bit per input */

	unsigned inputs;
	struct irq_line out;
	struct state_registry *states;
};

static const struct state_field irq_or_fields[] = {
	STATE_UINT(irq_or, levels),
	STATE_END,
};

static void set_input(void *opaque, int n, bool level)
{
	struct irq_or *gate = opaque;
	uint32_t old = gate->levels, bit = UINT32_C(1) << n;

	gate->levels = level ? old | bit : old & ~bit;
	if (!old != !gate->levels)
		irq_set(&gate->out, level);
}

/* The registry has cleared the inputs; a chip that it does not know (KVM's) is told so. */
static void irq_or_reset(void *opaque)
{
	struct irq_or *gate = opaque;
	irq_lower(&gate->out);
}

static int irq_or_post_load(void *opaque, unsigned version, struct error *err)
{
	struct irq_or *gate = opaque;

	/* A level on an input that nobody drives would stay for ever. */
	if (gate->inputs < IRQ_OR_INPUTS)
		gate->levels &= (UINT32_C(1) << gate->inputs) - 1;
	irq_set(&gate->out, gate->levels != 0);
	return 0;
}

static const struct state_desc irq_or_state = {
	.name = "irq-or",
	.version = 1,
	.fields = irq_or_fields,
	.reset = irq_or_reset,
	.post_load = irq_or_post_load,
};

struct irq_or *irq_or_new(struct state_registry *states, int instance, struct irq_line out)
{
	struct irq_or *gate = xcalloc(1, sizeof(*gate));

	gate->out = out;
	gate->states = states;
	state_register(states, &irq_or_state, instance, gate);
	return gate;
}

void irq_or_free(struct irq_or *gate)
{
	if (!gate)
		return;
	state_unregister(gate->states, gate);
	free(gate);
}

struct irq_line irq_or_input(struct irq_or *gate)
{
	if (gate->inputs == IRQ_OR_INPUTS)
		return (struct irq_line){0};
	return (struct irq_line){set_input, gate, (int)gate->inputs++};
}
