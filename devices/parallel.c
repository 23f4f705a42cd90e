/* SPDX-License-Identifier: MIT */
/*
 * A parallel port in standard (SPP) mode, with a printer whose paper is a chardev.
 *
 *   base + 0  R/W  data latch
 *        + 1  R    status: bit 3 no error, 4 selected, 5 out of paper, 6 no acknowledge, 7 not busy
 *        + 2  R/W  control: bit 0 strobe, 1 autofeed, 2 no init, 3 select, 4 IRQ enable,
 *                  5 direction
 *
 * The rising edge of strobe prints the byte in the latch; the printer acknowledges at once with an
 * interrupt. While the chardev is full the printer is busy: the byte waits and a timer tries again.
 * Without a chardev the status lines are those of an empty connector.
 *
 * Documents: IBM PC AT Technical Reference, "Serial/Parallel Adapter"; IEEE 1284-1994,
 * compatibility mode. Left out: EPP, ECP, reading from the peripheral in bidirectional mode (reads
 * the latch).
 */
#include "devices/parallel.h"
#include "core/chardev.h"
#include "core/iobus.h"
#include "core/state.h"
#include "lib/clock.h"
#include "lib/text.h"
#include <stdio.h>
#include <stdlib.h>

enum {
	REG_DATA = 0,
	REG_STATUS = 1,
	REG_CONTROL = 2,
	PORTS = 3,

	ST_NO_ERROR = 1 << 3,
	ST_SELECTED = 1 << 4,
	ST_NO_ACK = 1 << 6,
	ST_NOT_BUSY = 1 << 7,
	ST_UNUSED = 7,

	CTL_STROBE = 1 << 0,
	CTL_NO_INIT = 1 << 2,
	CTL_SELECT = 1 << 3,
	CTL_IRQ = 1 << 4,
	CTL_UNUSED = 0xC0, /* read as ones */
	CTL_WRITABLE = 0x3F,

	RETRY_NS = 2000000,
};

struct parallel {
	uint8_t data, control;
	uint8_t waiting; /* the byte that the printer could not take yet */
	bool busy;
	struct timer retry;

	struct irq_line irq;
	struct chardev *chr;
	struct clock *clock;
	struct iobus *io;
	struct io_range *range;
	struct state_registry *states;
	uint16_t iobase;
	char name[16];
};

static const struct state_field parallel_fields[] = {
	STATE_UINT(parallel, data), STATE_UINT(parallel, control), STATE_UINT(parallel, waiting),
	STATE_UINT(parallel, busy), STATE_TIMER(parallel, retry),  STATE_END,
};

/* Hands the waiting byte to the printer. */
static void print(struct parallel *p)
{
	if (chardev_write(p->chr, &p->waiting, 1) == 0) {
		timer_set(&p->retry, clock_now(p->clock) + RETRY_NS);
		return;
	}
	p->busy = false;
	if (p->control & CTL_IRQ)
		irq_pulse(&p->irq); /* the end of the ACK pulse */
}

static void retry_due(void *opaque)
{
	print(opaque);
}

static uint32_t parallel_read(void *opaque, uint16_t port, unsigned size)
{
	struct parallel *p = opaque;

	switch (port - p->iobase) {
	case REG_DATA: return p->data;
	case REG_STATUS:
		if (!p->chr)
			return ST_NO_ERROR | ST_SELECTED | ST_NO_ACK | ST_UNUSED;
		return ST_UNUSED | ST_NO_ERROR | ST_SELECTED | ST_NO_ACK |
		       (p->busy ? 0u : ST_NOT_BUSY);
	default: return p->control | CTL_UNUSED;
	}
}

static void parallel_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct parallel *p = opaque;

	switch (port - p->iobase) {
	case REG_DATA: p->data = (uint8_t)value; break;
	case REG_CONTROL: {
		bool strobe = (value & CTL_STROBE) && !(p->control & CTL_STROBE);
		p->control = value & CTL_WRITABLE;
		if (strobe && p->chr && !p->busy && (p->control & CTL_NO_INIT)) {
			p->waiting = p->data;
			p->busy = true;
			print(p);
		}
		break;
	}
	default: break; /* the status register is read-only */
	}
}

static const struct io_ops parallel_ops = {.read = parallel_read, .write = parallel_write};

static void power_on(struct parallel *p)
{
	p->control = CTL_NO_INIT | CTL_SELECT;
}

static void parallel_reset(void *opaque)
{
	struct parallel *p = opaque;

	power_on(p);
	irq_lower(&p->irq);
}

static int parallel_post_load(void *opaque, unsigned version, struct error *err)
{
	struct parallel *p = opaque;

	p->control &= CTL_WRITABLE;
	if (!p->chr) {
		p->busy = false;
		timer_cancel(&p->retry);
	}
	return 0;
}

static const struct state_desc parallel_desc = {
	.name = "parallel",
	.version = 1,
	.fields = parallel_fields,
	.reset = parallel_reset,
	.post_load = parallel_post_load,
};

struct parallel *parallel_new(const struct device_env *env, int instance, uint16_t iobase,
			      struct irq_line irq, struct chardev *chr)
{
	struct parallel *p = xcalloc(1, sizeof(*p));

	p->irq = irq;
	p->chr = chr;
	p->clock = env->clock;
	p->io = env->io;
	p->states = env->states;
	p->iobase = iobase;
	snprintf(p->name, sizeof(p->name), "parallel%d", instance);
	timer_init(&p->retry, env->clock, retry_due, p);
	power_on(p);
	p->range = iobus_add(env->io, p->name, iobase, PORTS, &parallel_ops, p);
	state_register(env->states, &parallel_desc, instance, p);
	return p;
}

void parallel_free(struct parallel *p)
{
	if (!p)
		return;
	timer_cancel(&p->retry);
	iobus_remove(p->io, p->range);
	state_unregister(p->states, p);
	free(p);
}
