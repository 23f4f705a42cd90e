/* SPDX-License-Identifier: MIT */
/*
 * The virtual clock and its timers (clock.h).
 *
 * Virtual time is the host's monotonic clock minus an offset while the clock runs, and a frozen
 * number while it stands. Both live behind a sequence counter, so that any thread can read the time
 * without a lock; only the lock holder writes them.
 *
 * Timers stand in one list, soonest first. A machine has a few dozen of them and nearly all are set
 * for soon, so the insertion walk is short. `armed_ns` is the deadline that the loop sleeps
 * towards: only a timer that is due before it needs to wake the loop.
 */
#include "lib/clock.h"
#include "lib/loop.h"
#include "lib/text.h"
#include <stdlib.h>

enum { MAX_TIMERS_A_RUN = 256 };

struct clock {
	struct loop *loop;
	unsigned seq; /* odd while `running` and `base_ns` change */
	bool running;
	uint64_t base_ns; /* running: host time minus virtual time; stopped: virtual time */
	struct list timers;
	uint64_t armed_ns; /* 0: the loop is awake and will look by itself */
};

struct clock *clock_new(struct loop *loop)
{
	struct clock *clock = xcalloc(1, sizeof(*clock));
	clock->loop = loop;
	list_init(&clock->timers);
	if (loop)
		loop_set_clock(loop, clock);
	return clock;
}

void clock_free(struct clock *clock)
{
	if (!clock)
		return;
	if (clock->loop)
		loop_set_clock(clock->loop, NULL);
	struct list *it, *tmp;
	list_for_each_safe(it, tmp, &clock->timers)
	{
		struct timer *t = list_entry(it, struct timer, link);
		list_remove(&t->link);
		t->pending = false;
	}
	free(clock);
}

uint64_t clock_now(const struct clock *clock)
{
	for (;;) {
		unsigned seq = __atomic_load_n(&clock->seq, __ATOMIC_ACQUIRE);
		bool running = __atomic_load_n(&clock->running, __ATOMIC_RELAXED);
		uint64_t base = __atomic_load_n(&clock->base_ns, __ATOMIC_RELAXED);
		uint64_t now = running ? host_clock_ns() - base : base;
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (!(seq & 1) && seq == __atomic_load_n(&clock->seq, __ATOMIC_RELAXED))
			return now;
	}
}

static void set_state(struct clock *clock, bool running, uint64_t base)
{
	__atomic_store_n(&clock->seq, clock->seq + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	__atomic_store_n(&clock->running, running, __ATOMIC_RELAXED);
	__atomic_store_n(&clock->base_ns, base, __ATOMIC_RELAXED);
	__atomic_store_n(&clock->seq, clock->seq + 1, __ATOMIC_RELEASE);
}

void clock_start(struct clock *clock)
{
	if (clock->running)
		return;
	set_state(clock, true, host_clock_ns() - clock->base_ns);
	if (clock->loop)
		loop_wake(clock->loop);
}

void clock_stop(struct clock *clock)
{
	if (clock->running)
		set_state(clock, false, host_clock_ns() - clock->base_ns);
}

bool clock_running(const struct clock *clock)
{
	return __atomic_load_n(&clock->running, __ATOMIC_RELAXED);
}

/* Whole seconds and the rest apart: each product then fits in 64 bits (10^9 * 2^32 < 2^62). */
uint64_t ns_to_ticks(uint64_t ns, uint32_t hz)
{
	return ns / NS_PER_SEC * hz + ns % NS_PER_SEC * hz / NS_PER_SEC;
}

uint64_t ticks_to_ns(uint64_t ticks, uint32_t hz)
{
	if (hz == 0)
		return UINT64_MAX; /* a counter that stands never gets there */
	uint64_t seconds = ticks / hz, ns;
	uint64_t rest = div_round_up(ticks % hz * NS_PER_SEC, hz);
	if (__builtin_mul_overflow(seconds, NS_PER_SEC, &ns) ||
	    __builtin_add_overflow(ns, rest, &ns))
		return UINT64_MAX;
	return ns;
}

void timer_init(struct timer *t, struct clock *clock, void (*fn)(void *opaque), void *opaque)
{
	*t = (struct timer){.clock = clock, .fn = fn, .opaque = opaque};
	list_init(&t->link);
}

void timer_set(struct timer *t, uint64_t deadline_ns)
{
	struct clock *clock = t->clock;
	struct list *it;
	list_remove(&t->link);
	t->deadline_ns = deadline_ns;
	t->pending = true;
	/* Behind those of the same time: timers fire in the order in which they were set. */
	list_for_each(it, &clock->timers)
	{
		if (list_entry(it, struct timer, link)->deadline_ns > deadline_ns)
			break;
	}
	list_insert_before(it, &t->link);
	if (deadline_ns < clock->armed_ns) {
		clock->armed_ns = deadline_ns;
		if (clock->loop && clock->running)
			loop_wake(clock->loop);
	}
}

void timer_cancel(struct timer *t)
{
	list_remove(&t->link);
	t->pending = false;
}

int64_t clock_next_deadline(struct clock *clock)
{
	if (list_empty(&clock->timers)) {
		clock->armed_ns = UINT64_MAX;
		return -1;
	}
	uint64_t deadline = list_entry(clock->timers.next, struct timer, link)->deadline_ns;
	clock->armed_ns = deadline;
	if (!clock->running)
		return -1;
	uint64_t now = clock_now(clock);
	if (deadline <= now)
		return 0;
	return deadline - now > INT64_MAX ? INT64_MAX : (int64_t)(deadline - now);
}

void clock_run_timers(struct clock *clock)
{
	clock->armed_ns = 0;
	if (!clock->running)
		return;
	uint64_t now = clock_now(clock);
	/* Bounded: a timer that sets itself to the past again and again must not lock others out.
	 */
	for (int i = 0; i < MAX_TIMERS_A_RUN && !list_empty(&clock->timers); i++) {
		struct timer *t = list_entry(clock->timers.next, struct timer, link);
		if (t->deadline_ns > now || !clock->running)
			break;
		list_remove(&t->link);
		t->pending = false;
		t->fn(t->opaque);
	}
}
