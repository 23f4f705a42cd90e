/* SPDX-License-Identifier: MIT */
/*
 * Intel 8254 programmable interval timer, clocked with 1.193182 MHz.
 *
 *   port      read                               write
 *   40h..42h  status or count of channel 0..2    count of channel 0..2
 *   43h       -                                  control word, counter latch, read-back
 *
 * Nothing counts here. A channel remembers at which tick of the input clock its counting element
 * was loaded and with what; count and output at any moment follow from the virtual clock by
 * arithmetic. Only IRQ 0 needs a timer: it is set for the next rising edge of channel 0's output,
 * since everything behind that line is edge-triggered; the falling edge in between is made up then.
 *
 * When the host is late by whole periods, the missed ticks are made up for at twice the normal rate
 * (at most MAX_MISSED of them), so that guests that count ticks keep the time and are not flooded.
 * Periodic edges closer together than MIN_INTERVAL_NS are merged.
 *
 * Document: Intel 8254 datasheet (231164), "Programming the 8254", "Mode Definitions". Left out:
 * what a read returns between a control word and the first count (undefined; zero here).
 */
#include "devices/i8254.h"
#include "core/iobus.h"
#include "core/state.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/text.h"
#include <stdlib.h>

enum {
	PIT_PORT = 0x40,
	PIT_CONTROL = 0x43,

	CW_BCD = 1 << 0,
	CW_MODE_SHIFT = 1,
	CW_MODE = 7,
	CW_RW_SHIFT = 4,
	CW_RW = 3,
	CW_SC_SHIFT = 6,
	CW_READ_BACK = 3, /* in the SC bits */
	RB_NO_COUNT = 1 << 5,
	RB_NO_STATUS = 1 << 4,

	STATUS_OUT = 1 << 7,
	STATUS_NULL = 1 << 6,

	MIN_INTERVAL_NS = 20000,
	MAX_MISSED = 64,
};

enum rw { RW_LATCH, RW_LSB, RW_MSB, RW_WORD };

struct channel {
	uint8_t mode_bits; /* as written, for the status byte */
	uint8_t rw;        /* enum rw */
	bool bcd, gate;
	bool loaded;        /* a count was written since the control word */
	bool counting;      /* the counting element runs (modes 1 and 5: triggered) */
	uint32_t initial;   /* count register, 1..65536 */
	uint32_t period;    /* what the counting element was loaded with, 1..65536 */
	uint64_t start;     /* tick at which it was loaded */
	uint64_t held;      /* ticks counted when the gate stopped modes 0 and 4 */
	uint64_t switch_at; /* modes 2 and 3: tick at which `initial` takes over; 0: none */
	uint8_t low_byte;   /* first byte of a word being written */
	bool high_next_write, high_next_read;
	bool count_latched, status_latched;
	uint16_t latch;
	uint8_t status;
};

struct i8254 {
	struct channel channel[3];
	uint32_t missed; /* IRQ 0 edges still to be made up for */
	uint64_t due;    /* tick of the edge that the timer waits for */
	struct timer timer;

	struct clock *clock;
	struct irq_line irq0;
	struct iobus *io;
	struct io_range *range;
	struct state_registry *states;
};

static const struct state_field channel_fields[] = {
	STATE_UINT(channel, mode_bits),
	STATE_UINT(channel, rw),
	STATE_UINT(channel, bcd),
	STATE_UINT(channel, gate),
	STATE_UINT(channel, loaded),
	STATE_UINT(channel, counting),
	STATE_UINT(channel, initial),
	STATE_UINT(channel, period),
	STATE_UINT(channel, start),
	STATE_UINT(channel, held),
	STATE_UINT(channel, switch_at),
	STATE_UINT(channel, low_byte),
	STATE_UINT(channel, high_next_write),
	STATE_UINT(channel, high_next_read),
	STATE_UINT(channel, count_latched),
	STATE_UINT(channel, status_latched),
	STATE_UINT(channel, latch),
	STATE_UINT(channel, status),
	STATE_END,
};

static const struct state_field i8254_fields[] = {
	STATE_STRUCTS(i8254, channel, channel_fields),
	STATE_UINT(i8254, missed),
	STATE_UINT(i8254, due),
	STATE_TIMER(i8254, timer),
	STATE_END,
};

static uint64_t now_tick(const struct i8254 *pit)
{
	return ns_to_ticks(clock_now(pit->clock), PIT_HZ);
}

/* Modes 6 and 7 are 2 and 3 (datasheet, "Control Word Format": x10, x11). */
static unsigned mode_of(const struct channel *c)
{
	return c->mode_bits >= 6 ? c->mode_bits - 4u : c->mode_bits;
}

static uint32_t modulus(const struct channel *c)
{
	return c->bcd ? 10000 : 65536;
}

/* Mode 3: the output is high for this many of `n` ticks. */
static uint32_t high_ticks(uint32_t n)
{
	return (n + 1) / 2;
}

static void load(struct channel *c, uint64_t at)
{
	c->period = c->initial;
	c->start = at;
	c->held = 0;
	c->switch_at = 0;
}

/* Lets a count written in modes 2 and 3 take over when its time has come. */
static void catch_up(struct channel *c, uint64_t now)
{
	if (!c->switch_at || now < c->switch_at)
		return;
	uint64_t at = c->switch_at;
	bool after_high_half =
		mode_of(c) == 3 && (at - c->start) % c->period == high_ticks(c->period);
	uint32_t lead = after_high_half ? high_ticks(c->initial) : 0;
	load(c, at > lead ? at - lead : 0);
}

/* Ticks since the counting element was loaded. */
static uint64_t elapsed(const struct channel *c, uint64_t now)
{
	if (!c->counting)
		return c->held;
	return now > c->start ? now - c->start : 0;
}

static bool output(struct channel *c, uint64_t now)
{
	unsigned mode = mode_of(c);

	catch_up(c, now);
	uint64_t e = elapsed(c, now);
	switch (mode) {
	case 0: return c->loaded && e >= c->period;
	case 1: return !c->counting || e >= c->period;
	case 2: return !c->counting || e % c->period != c->period - 1;
	case 3: return !c->counting || e % c->period < high_ticks(c->period);
	default: return !c->loaded || !c->counting || e != c->period;
	}
}

/* The counting element as the guest would read it, binary or BCD. */
static uint16_t count(struct channel *c, uint64_t now)
{
	uint32_t value;

	if (!c->loaded)
		return 0;
	catch_up(c, now);
	uint64_t e = elapsed(c, now);
	switch (mode_of(c)) {
	case 2: value = c->period - (uint32_t)(e % c->period); break;
	case 3: {
		uint32_t in_period = (uint32_t)(e % c->period), half = high_ticks(c->period);
		uint32_t in_half = in_period < half ? in_period : in_period - half;
		/* Counts by two from the even part of the count. */
		value = (c->period & ~UINT32_C(1)) - 2 * in_half;
		break;
	}
	default: {
		/* Goes on below zero, through the largest count. */
		uint32_t m = modulus(c), down = (uint32_t)(e % m);
		value = (c->period % m + m - down) % m;
	}
	}
	value %= modulus(c);
	if (!c->bcd)
		return (uint16_t)value;
	return (uint16_t)(value / 1000 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 |
			  value % 10);
}

/* Tick of the first rising edge of the output after `now`; 0 if none will come by itself. */
static uint64_t next_rising_edge(struct channel *c, uint64_t now)
{
	uint64_t edge;

	catch_up(c, now);
	if (!c->loaded || !c->counting)
		return 0;
	switch (mode_of(c)) {
	case 0:
	case 1: edge = c->start + c->period; break;
	case 2:
	case 3:
		edge = c->start + (elapsed(c, now) / c->period + 1) * c->period;
		if (c->switch_at && c->switch_at < edge) {
			struct channel later = *c;
			catch_up(&later, c->switch_at);
			edge = later.start + later.period;
		}
		break;
	default: edge = c->start + c->period + 1; break;
	}
	return edge > now ? edge : 0;
}

/* ---- IRQ 0 ---- */

/* Sets the timer for the first edge after tick `now`. */
static void schedule(struct i8254 *pit, uint64_t now)
{
	uint64_t now_ns = clock_now(pit->clock);
	uint64_t edge = next_rising_edge(&pit->channel[0], now);

	if (!edge) {
		pit->missed = 0;
		timer_cancel(&pit->timer);
		return;
	}
	pit->due = edge;
	uint64_t at = ticks_to_ns(edge, PIT_HZ);
	if (pit->missed) {
		uint64_t soon = now_ns + ticks_to_ns(pit->channel[0].period, PIT_HZ) / 2;
		if (soon < at) {
			at = soon;
			pit->due = 0;
		}
	}
	bool periodic = mode_of(&pit->channel[0]) == 2 || mode_of(&pit->channel[0]) == 3;
	if (periodic && at < now_ns + MIN_INTERVAL_NS)
		at = now_ns + MIN_INTERVAL_NS;
	timer_set(&pit->timer, at);
}

/* After the guest changed channel 0: the line shows the new output, the timer the next edge. One
 * look at the clock for both: an edge in between would be lost. */
static void channel0_changed(struct i8254 *pit)
{
	uint64_t now = now_tick(pit);

	pit->missed = 0;
	irq_set(&pit->irq0, output(&pit->channel[0], now));
	schedule(pit, now);
}

static void edge_due(void *opaque)
{
	struct i8254 *pit = opaque;
	struct channel *c = &pit->channel[0];
	uint64_t now = now_tick(pit);
	bool periodic = mode_of(c) == 2 || mode_of(c) == 3;

	if (pit->due == 0) {
		if (pit->missed)
			pit->missed--;
	} else if (periodic && now > pit->due && c->period) {
		uint64_t lost = (now - pit->due) / c->period;
		bool too_fast = ticks_to_ns(c->period, PIT_HZ) < MIN_INTERVAL_NS * 2;
		if (!too_fast)
			pit->missed = lost + pit->missed > MAX_MISSED
					      ? (uint32_t)MAX_MISSED
					      : pit->missed + (uint32_t)lost;
	}
	trace(TRACE_TIMER, "pit: IRQ 0 edge, %u missed", pit->missed);
	irq_lower(&pit->irq0);
	irq_raise(&pit->irq0);
	schedule(pit, now);
}

/* Makes an edge that the event loop has not come to yet; before channel 0 is changed. */
static void catch_up_irq0(struct i8254 *pit)
{
	if (!pit->timer.pending || pit->timer.deadline_ns > clock_now(pit->clock))
		return;
	timer_cancel(&pit->timer);
	edge_due(pit);
}

/* ---- counts and control words ---- */

static uint32_t decode_count(const struct channel *c, uint16_t raw)
{
	uint32_t value = raw;

	if (c->bcd)
		value = (raw >> 12) * 1000u + (raw >> 8 & 15) * 100u + (raw >> 4 & 15) * 10u +
			(raw & 15);
	value %= modulus(c);
	return value ? value : modulus(c);
}

/* A whole new count was written. It reaches the counting element on the next tick. */
static void count_written(struct channel *c, uint16_t raw, uint64_t now)
{
	bool first = !c->loaded;

	catch_up(c, now);
	c->initial = decode_count(c, raw);
	c->loaded = true;
	switch (mode_of(c)) {
	case 0:
	case 4:
		load(c, now + 1);
		c->counting = c->gate;
		break;
	case 1:
	case 5: /* waits for the next trigger */
		if (first)
			c->period = c->initial;
		break;
	default:
		if (first || !c->counting) {
			load(c, now + 1);
			c->counting = c->gate;
			break;
		}
		/* "The new count will be loaded at the end of the current counting cycle" (mode 2)
		 * or half-cycle (mode 3). */
		uint64_t e = elapsed(c, now), in_period = e % c->period;
		uint64_t cycle = c->start + (e - in_period);
		uint32_t half = mode_of(c) == 3 ? high_ticks(c->period) : c->period;
		c->switch_at = cycle + (in_period < half ? half : c->period);
	}
}

static void write_count(struct i8254 *pit, unsigned n, uint8_t value)
{
	struct channel *c = &pit->channel[n];

	if (n == 0)
		catch_up_irq0(pit);
	uint64_t now = now_tick(pit);
	switch (c->rw) {
	case RW_LSB: count_written(c, value, now); break;
	case RW_MSB: count_written(c, (uint16_t)(value << 8), now); break;
	default:
		if (!c->high_next_write) {
			c->low_byte = value;
			c->high_next_write = true;
			/* Mode 0: "Writing the first byte disables counting. OUT is set low
			 * immediately." */
			if (mode_of(c) == 0) {
				c->held = 0;
				c->counting = false;
			}
		} else {
			c->high_next_write = false;
			count_written(c, (uint16_t)(value << 8 | c->low_byte), now);
		}
	}
	if (n == 0)
		channel0_changed(pit);
}

static void latch_count(struct channel *c, uint64_t now)
{
	if (c->count_latched)
		return;
	c->latch = count(c, now);
	c->count_latched = true;
}

static void latch_status(struct channel *c, uint64_t now)
{
	if (c->status_latched)
		return;
	bool null_count = !c->loaded || c->switch_at || (c->counting && now < c->start);
	c->status = (uint8_t)((output(c, now) ? STATUS_OUT : 0) | (null_count ? STATUS_NULL : 0) |
			      c->rw << CW_RW_SHIFT | c->mode_bits << CW_MODE_SHIFT |
			      (c->bcd ? CW_BCD : 0));
	c->status_latched = true;
}

static void write_control(struct i8254 *pit, uint8_t value)
{
	unsigned select = value >> CW_SC_SHIFT;
	uint64_t now = now_tick(pit);

	if (select == CW_READ_BACK) {
		for (unsigned n = 0; n < 3; n++) {
			if (!(value & 2u << n))
				continue;
			if (!(value & RB_NO_COUNT))
				latch_count(&pit->channel[n], now);
			if (!(value & RB_NO_STATUS))
				latch_status(&pit->channel[n], now);
		}
		return;
	}
	struct channel *c = &pit->channel[select];
	unsigned rw = value >> CW_RW_SHIFT & CW_RW;
	if (rw == RW_LATCH) {
		latch_count(c, now);
		return;
	}
	bool gate = c->gate;
	if (select == 0)
		catch_up_irq0(pit);
	*c = (struct channel){
		.mode_bits = value >> CW_MODE_SHIFT & CW_MODE,
		.rw = (uint8_t)rw,
		.bcd = value & CW_BCD,
		.gate = gate,
		.initial = 65536,
		.period = 65536,
	};
	trace(TRACE_TIMER, "pit: channel %u mode %u", select, mode_of(c));
	if (select == 0)
		channel0_changed(pit);
}

static uint8_t read_count(struct i8254 *pit, unsigned n)
{
	struct channel *c = &pit->channel[n];

	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	uint16_t value = c->count_latched ? c->latch : count(c, now_tick(pit));
	bool high = c->rw == RW_MSB;
	if (c->rw == RW_WORD) {
		high = c->high_next_read;
		c->high_next_read = !high;
	}
	if (c->rw != RW_WORD || high)
		c->count_latched = false;
	return (uint8_t)(high ? value >> 8 : value);
}

static uint32_t pit_read(void *opaque, uint16_t port, unsigned size)
{
	return port == PIT_CONTROL ? 0xFF : read_count(opaque, port - PIT_PORT);
}

static void pit_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	if (port == PIT_CONTROL)
		write_control(opaque, (uint8_t)value);
	else
		write_count(opaque, port - PIT_PORT, (uint8_t)value);
}

static const struct io_ops pit_ops = {.read = pit_read, .write = pit_write};

/* ---- channel 2 from outside ---- */

void i8254_set_gate2(struct i8254 *pit, bool gate)
{
	struct channel *c = &pit->channel[2];
	uint64_t now = now_tick(pit);

	if (c->gate == gate)
		return;
	catch_up(c, now);
	switch (mode_of(c)) {
	case 0:
	case 4: /* a level: stops and resumes */
		if (!gate) {
			c->held = elapsed(c, now);
			c->counting = false;
		} else if (c->loaded && !(c->rw == RW_WORD && c->high_next_write)) {
			c->start = now - (now > c->held ? c->held : now);
			c->counting = true;
		}
		break;
	case 1:
	case 5: /* the rising edge triggers */
		if (gate && c->loaded) {
			load(c, now + 1);
			c->counting = true;
		}
		break;
	default: /* low stops with the output high, the rising edge starts anew */
		if (gate && c->loaded)
			load(c, now + 1);
		c->counting = gate && c->loaded;
	}
	c->gate = gate;
}

bool i8254_out2(struct i8254 *pit)
{
	return output(&pit->channel[2], now_tick(pit));
}

/* ---- life ---- */

static void power_on(struct i8254 *pit)
{
	for (int n = 0; n < 3; n++) {
		struct channel *c = &pit->channel[n];
		c->mode_bits = 3;
		c->rw = RW_WORD;
		c->initial = c->period = 65536;
		c->gate = n != 2;
	}
}

static void i8254_reset(void *opaque)
{
	struct i8254 *pit = opaque;

	power_on(pit);
	irq_lower(&pit->irq0);
}

static int i8254_post_load(void *opaque, unsigned version, struct error *err)
{
	struct i8254 *pit = opaque;

	for (int n = 0; n < 3; n++) {
		struct channel *c = &pit->channel[n];
		c->mode_bits &= CW_MODE;
		c->rw &= CW_RW;
		if (c->period == 0 || c->period > 65536)
			c->period = 65536;
		if (c->initial == 0 || c->initial > 65536)
			c->initial = 65536;
	}
	if (pit->missed > MAX_MISSED)
		pit->missed = MAX_MISSED;
	return 0;
}

static const struct state_desc i8254_desc = {
	.name = "i8254",
	.version = 1,
	.fields = i8254_fields,
	.reset = i8254_reset,
	.post_load = i8254_post_load,
};

struct i8254 *i8254_new(const struct device_env *env, struct irq_line irq0)
{
	struct i8254 *pit = xcalloc(1, sizeof(*pit));

	pit->clock = env->clock;
	pit->irq0 = irq0;
	pit->io = env->io;
	pit->states = env->states;
	timer_init(&pit->timer, env->clock, edge_due, pit);
	pit->range = iobus_add(env->io, "pit", PIT_PORT, 4, &pit_ops, pit);
	state_register(env->states, &i8254_desc, 0, pit);
	power_on(pit);
	return pit;
}

void i8254_free(struct i8254 *pit)
{
	if (!pit)
		return;
	timer_cancel(&pit->timer);
	iobus_remove(pit->io, pit->range);
	state_unregister(pit->states, pit);
	free(pit);
}
