/* SPDX-License-Identifier: MIT */
/*
 * The timer of a local APIC: a 32-bit counter that runs down from the initial count, once or
 * periodically, and then delivers the vector of its LVT entry.
 *
 * Nothing counts here. The input clock is 1 GHz, a tick of the virtual clock, divided by 1, 2, 4 ..
 * 128; the current count follows from the time at which the counter was loaded. A host timer runs
 * only while the LVT entry is unmasked. Periodic expiries closer together than MIN_PERIOD_NS are
 * merged, so that no guest can keep the event loop from everything else.
 *
 * Document: Intel SDM vol. 3A, 10.5.4 "APIC Timer". Left out: TSC-deadline mode.
 */
#include "devices/lapic_internal.h"
#include "lib/log.h"

enum { MIN_PERIOD_NS = 20000 };

/* log2 of the divider: 2, 4, 8 ... 128, 1 for 0..7. */
static unsigned divide_shift(const struct lapic *l)
{
	unsigned code = (l->divide & 3) | (l->divide >> 1 & 4);
	return (code + 1) & 7;
}

static bool periodic(const struct lapic *l)
{
	return l->lvt[LVT_TIMER] & LVT_PERIODIC;
}

uint32_t lapic_timer_count(const struct lapic *l)
{
	uint64_t ticks = (clock_now(l->set->clock) - l->timer_start) >> divide_shift(l);

	if (!l->timer_first)
		return 0;
	if (ticks < l->timer_first)
		return l->timer_first - (uint32_t)ticks;
	if (!periodic(l) || !l->initial_count)
		return 0;
	return l->initial_count - (uint32_t)((ticks - l->timer_first) % l->initial_count);
}

/* Sets the host timer for the next expiry after `now`, if anyone wants it. */
static void schedule_after(struct lapic *l, uint64_t now)
{
	unsigned shift = divide_shift(l);
	uint64_t at = l->timer_start + ((uint64_t)l->timer_first << shift);

	if (!l->timer_first || (l->lvt[LVT_TIMER] & LVT_MASKED)) {
		timer_cancel(&l->timer);
		return;
	}
	if (at <= now) {
		uint64_t period = (uint64_t)l->initial_count << shift;
		if (!periodic(l) || !period) {
			timer_cancel(&l->timer);
			return;
		}
		at += ((now - at) / period + 1) * period;
		if (at < now + MIN_PERIOD_NS)
			at = now + MIN_PERIOD_NS;
	}
	timer_set(&l->timer, at);
}

void lapic_timer_schedule(struct lapic *l)
{
	schedule_after(l, clock_now(l->set->clock));
}

void lapic_timer_start(struct lapic *l, uint32_t count)
{
	l->timer_start = clock_now(l->set->clock);
	l->timer_first = count;
	/* Not after a second look at the clock: a few ticks have passed by then, and a one-shot of
	 * so few would count as over. */
	schedule_after(l, l->timer_start);
}

static void timer_expired(void *opaque)
{
	struct lapic *l = opaque;

	trace(TRACE_TIMER, "lapic %u: timer", l->cpu);
	lapic_accept_fixed(l, l->lvt[LVT_TIMER] & LVT_VECTOR, false);
	lapic_timer_schedule(l);
}

void lapic_timer_catch_up(struct lapic *l)
{
	if (!l->timer.pending || l->timer.deadline_ns > clock_now(l->set->clock))
		return;
	timer_cancel(&l->timer);
	timer_expired(l);
}

void lapic_timer_init(struct lapic *l)
{
	timer_init(&l->timer, l->set->clock, timer_expired, l);
}
