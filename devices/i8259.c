/* SPDX-License-Identifier: MIT */
/*
 * Two Intel 8259A programmable interrupt controllers as a PC wires them: the slave's INT output is
 * the master's input 2, so inputs 0, 1, 3..7 of the master are IRQ 0, 1, 3..7 and the slave's are
 * IRQ 8..15. The PIIX3 adds a register per chip that makes single inputs level-triggered.
 *
 *   port        read                        write
 *   20h / A0h   IRR or ISR (OCW3), poll     ICW1 (bit 4), OCW2 (bits 4,3 = 00), OCW3 (01)
 *   21h / A1h   IMR                         ICW2, ICW3, ICW4 after ICW1; else OCW1 (the mask)
 *   4D0h/4D1h   ELCR                        ELCR
 *
 * A rising edge on an edge-triggered input stays in IRR until it is acknowledged, even if the line
 * falls before: devices here may pulse their line. The cascade input follows the slave's output, so
 * a request that is withdrawn before the acknowledge ends in the default IRQ 7, as on the chip.
 *
 * Documents: Intel 8259A datasheet (231468), "Initialization Command Words", "Operation Command
 * Words", "Automatic Rotation", "Special Mask Mode", "Poll Command"; 82371SB (PIIX3)
 * datasheet, 2.2.9 "ELCR". Left out: MCS-80/85 mode, buffered mode (no visible effect) and
 * ICW1.LTIM, which the PIIX3 replaces by the ELCR.
 */
#include "devices/i8259.h"
#include "core/iobus.h"
#include "core/state.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include <stdlib.h>

enum {
	MASTER_PORT = 0x20,
	SLAVE_PORT = 0xA0,
	ELCR_PORT = 0x4D0,
	CASCADE = 2, /* the master's input where the slave sits */
	SPURIOUS = 7,

	ICW1_IC4 = 1 << 0,  /* ICW4 follows */
	ICW1_SNGL = 1 << 1, /* single: no ICW3 */
	ICW1_INIT = 1 << 4,
	ICW4_AEOI = 1 << 1,
	ICW4_SFNM = 1 << 4,

	OCW2_LEVEL = 7,
	OCW2_SHIFT = 5,
	OCW2_EOI = 1, /* the command in bits 7..5: EOI, specific level, rotate */
	OCW2_SL = 2,
	OCW2_R = 4,

	OCW3_SELECT = 1 << 3, /* tells OCW3 from OCW2 */
	OCW3_RIS = 1 << 0,    /* with RR: ISR, else IRR */
	OCW3_RR = 1 << 1,
	OCW3_POLL = 1 << 2,
	OCW3_SMM = 1 << 5,
	OCW3_ESMM = 1 << 6,

	POLL_PENDING = 1 << 7,

	/* PIIX3 2.2.9: IRQ 0, 1, 2, 8 and 13 are always edge-triggered. */
	ELCR_MASTER_MASK = 0xF8,
	ELCR_SLAVE_MASK = 0xDE,
};

/* Which word the chip expects next at its odd port. */
enum init_step { READY, WANT_ICW2, WANT_ICW3, WANT_ICW4 };

struct chip {
	uint8_t irr, imr, isr;
	uint8_t lines; /* levels of the inputs */
	uint8_t elcr;
	uint8_t vector_base;
	uint8_t lowest;    /* the input of lowest priority: 7 unless rotated */
	uint8_t init_step; /* enum init_step */
	bool need_icw4, single;
	bool auto_eoi, rotate_on_aeoi, special_mask, special_nested;
	bool read_isr, poll;
};

struct i8259 {
	struct chip chip[2]; /* master, slave */
	bool out;            /* INT of the master */

	struct irq_line intr;
	struct iobus *io;
	struct io_range *ranges[3];
	struct state_registry *states;
};

static const struct state_field chip_fields[] = {
	STATE_UINT(chip, irr),
	STATE_UINT(chip, imr),
	STATE_UINT(chip, isr),
	STATE_UINT(chip, lines),
	STATE_UINT(chip, elcr),
	STATE_UINT(chip, vector_base),
	STATE_UINT(chip, lowest),
	STATE_UINT(chip, init_step),
	STATE_UINT(chip, need_icw4),
	STATE_UINT(chip, single),
	STATE_UINT(chip, auto_eoi),
	STATE_UINT(chip, rotate_on_aeoi),
	STATE_UINT(chip, special_mask),
	STATE_UINT(chip, special_nested),
	STATE_UINT(chip, read_isr),
	STATE_UINT(chip, poll),
	STATE_END,
};

static const struct state_field i8259_fields[] = {
	STATE_STRUCTS(i8259, chip, chip_fields),
	STATE_UINT(i8259, out),
	STATE_END,
};

/* Rank of the highest-priority input in the set (0 is highest), 8 if the set is empty. */
static unsigned top_rank(const struct chip *c, uint8_t set)
{
	unsigned rank = 0;
	while (rank < 8 && !(set & (1u << ((c->lowest + 1 + rank) & 7))))
		rank++;
	return rank;
}

/* The input that the chip would deliver now, or -1. */
static int pending_input(const struct i8259 *p, const struct chip *c)
{
	if (c->init_step != READY)
		return -1;
	unsigned request = top_rank(c, c->irr & (uint8_t)~c->imr);
	if (request == 8)
		return -1;
	uint8_t blocking = c->isr;
	if (c->special_mask)
		blocking &= (uint8_t)~c->imr;
	/* Special fully nested mode: a slave in service does not hold back the slave's own
	 * higher-priority requests. */
	if (c->special_nested && c == &p->chip[0])
		blocking &= (uint8_t) ~(1u << CASCADE);
	if (request >= top_rank(c, blocking))
		return -1;
	return (c->lowest + 1 + (int)request) & 7;
}

/* Recomputes both INT outputs and drives the processor's line. */
static void update(struct i8259 *p)
{
	struct chip *master = &p->chip[0];
	uint8_t cascade = 1u << CASCADE;

	if (pending_input(p, &p->chip[1]) >= 0) {
		master->lines |= cascade;
		master->irr |= cascade;
	} else {
		master->lines &= (uint8_t)~cascade;
		master->irr &= (uint8_t)~cascade;
	}
	bool out = pending_input(p, master) >= 0;
	if (out != p->out) {
		p->out = out;
		trace(TRACE_IRQ, "pic: INT %d", out);
		irq_set(&p->intr, out);
	}
}

static void set_line(void *opaque, int irq, bool level)
{
	struct i8259 *p = opaque;
	struct chip *c = &p->chip[irq >> 3 & 1];
	uint8_t bit = (uint8_t)(1u << (irq & 7));
	bool was = (c->lines & bit) != 0;

	if (irq == CASCADE || was == level)
		return;
	trace(TRACE_IRQ, "pic: IRQ %d = %d", irq, level);
	if (level) {
		c->lines |= bit;
		c->irr |= bit;
	} else {
		c->lines &= (uint8_t)~bit;
		if (c->elcr & bit)
			c->irr &= (uint8_t)~bit;
	}
	update(p);
}

/* The acknowledge cycle on one chip for one of its inputs. */
static void acknowledge(struct chip *c, int input)
{
	uint8_t bit = (uint8_t)(1u << input);

	if (!(c->elcr & bit))
		c->irr &= (uint8_t)~bit;
	if (!c->auto_eoi)
		c->isr |= bit;
	else if (c->rotate_on_aeoi)
		c->lowest = (uint8_t)input;
}

int i8259_ack(struct i8259 *p)
{
	struct chip *master = &p->chip[0], *slave = &p->chip[1];
	int input = pending_input(p, master), vector;

	if (input < 0) {
		/* 8259A, "Edge and Level Triggered Modes": the request was gone too early; no ISR
		 * bit is set. */
		vector = master->vector_base + SPURIOUS;
	} else if (input == CASCADE && !master->single) {
		int from_slave = pending_input(p, slave);
		acknowledge(master, CASCADE);
		if (from_slave >= 0)
			acknowledge(slave, from_slave);
		else
			from_slave = SPURIOUS;
		vector = slave->vector_base + from_slave;
	} else {
		acknowledge(master, input);
		vector = master->vector_base + input;
	}
	update(p);
	trace(TRACE_INT, "pic: vector %02x", vector);
	return vector;
}

bool i8259_pending(const struct i8259 *p)
{
	return p->out;
}

/* ---- registers ---- */

static void write_icw1(struct chip *c, uint8_t value)
{
	/* "The edge sense circuit is reset": only level-triggered requests survive. */
	c->irr = c->lines & c->elcr;
	c->imr = 0;
	c->isr = 0;
	c->lowest = 7;
	c->special_mask = false;
	c->read_isr = false;
	c->poll = false;
	c->auto_eoi = false;
	c->rotate_on_aeoi = false;
	c->special_nested = false;
	c->need_icw4 = value & ICW1_IC4;
	c->single = value & ICW1_SNGL;
	c->init_step = WANT_ICW2;
}

static void end_of_interrupt(struct chip *c, bool specific, bool rotate, uint8_t level)
{
	if (!specific) {
		uint8_t candidates = c->isr;
		/* "An IS bit that is masked by an IMR bit will not be cleared by a non-specific EOI
		 * command if the 8259A is in the Special Mask Mode." */
		if (c->special_mask)
			candidates &= (uint8_t)~c->imr;
		unsigned rank = top_rank(c, candidates);
		if (rank == 8)
			return;
		level = (uint8_t)((c->lowest + 1 + rank) & 7);
	}
	c->isr &= (uint8_t) ~(1u << level);
	if (rotate)
		c->lowest = level;
}

static void write_ocw2(struct chip *c, uint8_t value)
{
	unsigned command = value >> OCW2_SHIFT;
	uint8_t level = value & OCW2_LEVEL;

	if (command & OCW2_EOI)
		end_of_interrupt(c, command & OCW2_SL, command & OCW2_R, level);
	else if (command == (OCW2_R | OCW2_SL))
		c->lowest = level;
	else if (command == OCW2_R)
		c->rotate_on_aeoi = true;
	else if (command == 0)
		c->rotate_on_aeoi = false;
}

static void write_ocw3(struct chip *c, uint8_t value)
{
	if (value & OCW3_ESMM)
		c->special_mask = value & OCW3_SMM;
	if (value & OCW3_RR)
		c->read_isr = value & OCW3_RIS;
	c->poll = value & OCW3_POLL;
}

/* The odd port: the rest of an initialization, or the mask. */
static void write_odd(struct chip *c, uint8_t value)
{
	switch (c->init_step) {
	case WANT_ICW2:
		c->vector_base = value & 0xF8; /* bits 2..0 are the input number */
		c->init_step = !c->single ? WANT_ICW3 : c->need_icw4 ? WANT_ICW4 : READY;
		break;
	case WANT_ICW3: /* the wiring of a PC is fixed */
		c->init_step = c->need_icw4 ? WANT_ICW4 : READY;
		break;
	case WANT_ICW4:
		c->auto_eoi = value & ICW4_AEOI;
		c->special_nested = value & ICW4_SFNM;
		c->init_step = READY;
		break;
	default: c->imr = value; break;
	}
}

static void pic_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct i8259 *p = opaque;
	struct chip *c = &p->chip[port >= SLAVE_PORT];
	uint8_t v = (uint8_t)value;

	if (port & 1)
		write_odd(c, v);
	else if (v & ICW1_INIT)
		write_icw1(c, v);
	else if (v & OCW3_SELECT)
		write_ocw3(c, v);
	else
		write_ocw2(c, v);
	update(p);
}

static uint32_t pic_read(void *opaque, uint16_t port, unsigned size)
{
	struct i8259 *p = opaque;
	struct chip *c = &p->chip[port >= SLAVE_PORT];

	if (c->poll) {
		int input = pending_input(p, c);
		c->poll = false;
		if (input < 0)
			return 0;
		acknowledge(c, input);
		update(p);
		return POLL_PENDING | (uint32_t)input;
	}
	if (port & 1)
		return c->imr;
	return c->read_isr ? c->isr : c->irr;
}

static void elcr_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct i8259 *p = opaque;
	struct chip *c = &p->chip[port & 1];
	uint8_t elcr = (uint8_t)value & (port & 1 ? ELCR_SLAVE_MASK : ELCR_MASTER_MASK);
	uint8_t changed = c->elcr ^ elcr;

	c->elcr = elcr;
	/* A level-triggered request is the line itself; a line that is already high is no edge. */
	c->irr = (uint8_t)((c->irr & ~changed) | (c->lines & elcr & changed));
	update(p);
}

static uint32_t elcr_read(void *opaque, uint16_t port, unsigned size)
{
	struct i8259 *p = opaque;
	return p->chip[port & 1].elcr;
}

static const struct io_ops pic_ops = {.read = pic_read, .write = pic_write};
static const struct io_ops elcr_ops = {.read = elcr_read, .write = elcr_write};

/* ---- life ---- */

static void power_on(struct i8259 *p)
{
	p->chip[0].lowest = p->chip[1].lowest = 7;
	p->out = false;
}

static void i8259_reset(void *opaque)
{
	struct i8259 *p = opaque;

	power_on(p);
	irq_lower(&p->intr);
}

static int i8259_post_load(void *opaque, unsigned version, struct error *err)
{
	struct i8259 *p = opaque;

	for (int i = 0; i < 2; i++) {
		p->chip[i].lowest &= 7;
		p->chip[i].vector_base &= 0xF8;
		if (p->chip[i].init_step > WANT_ICW4)
			p->chip[i].init_step = READY;
	}
	irq_set(&p->intr, p->out);
	return 0;
}

static const struct state_desc i8259_desc = {
	.name = "i8259",
	.version = 1,
	.fields = i8259_fields,
	.reset = i8259_reset,
	.post_load = i8259_post_load,
};

struct irq_line i8259_line(struct i8259 *p, int irq)
{
	return (struct irq_line){set_line, p, irq & 15};
}

struct i8259 *i8259_new(const struct device_env *env, struct irq_line intr)
{
	struct i8259 *p = xcalloc(1, sizeof(*p));

	p->intr = intr;
	p->io = env->io;
	p->states = env->states;
	p->ranges[0] = iobus_add(env->io, "pic1", MASTER_PORT, 2, &pic_ops, p);
	p->ranges[1] = iobus_add(env->io, "pic2", SLAVE_PORT, 2, &pic_ops, p);
	p->ranges[2] = iobus_add(env->io, "elcr", ELCR_PORT, 2, &elcr_ops, p);
	state_register(env->states, &i8259_desc, 0, p);
	power_on(p);
	return p;
}

void i8259_free(struct i8259 *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(p->ranges); i++)
		iobus_remove(p->io, p->ranges[i]);
	state_unregister(p->states, p);
	free(p);
}
