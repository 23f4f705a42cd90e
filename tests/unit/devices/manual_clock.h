/* SPDX-License-Identifier: MIT */
/*
 * A virtual clock that moves only when the test says so. The functions of lib/clock.h are defined
 * here, so that the library's are not linked. Include it from one .c file a program.
 */
#ifndef TESTS_DEVICES_MANUAL_CLOCK_H
#define TESTS_DEVICES_MANUAL_CLOCK_H

#include "lib/clock.h"
#include "lib/list.h"
#include "lib/text.h"
#include <stdlib.h>

struct clock {
	uint64_t now;
	uint64_t step; /* passes with each look, as on a real clock; normally 0 */
	struct list timers;
};

struct clock *clock_new(struct loop *loop)
{
	struct clock *clock = xcalloc(1, sizeof(*clock));
	list_init(&clock->timers);
	return clock;
}

void clock_free(struct clock *clock)
{
	free(clock);
}

uint64_t clock_now(const struct clock *clock)
{
	((struct clock *)clock)->now += clock->step;
	return clock->now;
}

void clock_start(struct clock *clock)
{
}

void clock_stop(struct clock *clock)
{
}

bool clock_running(const struct clock *clock)
{
	return true;
}

uint64_t ns_to_ticks(uint64_t ns, uint32_t hz)
{
	return (uint64_t)((unsigned __int128)ns * hz / NS_PER_SEC);
}

uint64_t ticks_to_ns(uint64_t ticks, uint32_t hz)
{
	return (uint64_t)(((unsigned __int128)ticks * NS_PER_SEC + hz - 1) / hz);
}

void timer_init(struct timer *t, struct clock *clock, void (*fn)(void *opaque), void *opaque)
{
	*t = (struct timer){.clock = clock, .fn = fn, .opaque = opaque};
	list_init(&t->link);
}

void timer_cancel(struct timer *t)
{
	if (t->pending)
		list_remove(&t->link);
	t->pending = false;
}

void timer_set(struct timer *t, uint64_t deadline_ns)
{
	timer_cancel(t);
	t->deadline_ns = deadline_ns;
	t->pending = true;
	list_push_back(&t->clock->timers, &t->link);
}

int64_t clock_next_deadline(struct clock *clock)
{
	return -1;
}

void clock_run_timers(struct clock *clock)
{
}

static struct timer *first_timer(struct clock *clock)
{
	struct timer *first = NULL;
	struct list *it;

	list_for_each(it, &clock->timers)
	{
		struct timer *t = list_entry(it, struct timer, link);
		if (!first || t->deadline_ns < first->deadline_ns)
			first = t;
	}
	return first;
}

/* Lets time pass; each timer runs at its exact deadline. */
static __attribute__((unused)) void advance(struct clock *clock, uint64_t ns)
{
	uint64_t end = clock->now + ns;
	struct timer *t;

	while ((t = first_timer(clock)) && t->deadline_ns <= end) {
		if (t->deadline_ns > clock->now)
			clock->now = t->deadline_ns;
		timer_cancel(t);
		t->fn(t->opaque);
	}
	clock->now = end;
}

/* As a host that was busy: time passes first, then the timers run late. */
static __attribute__((unused)) void advance_late(struct clock *clock, uint64_t ns)
{
	struct timer *t;

	clock->now += ns;
	while ((t = first_timer(clock)) && t->deadline_ns <= clock->now) {
		timer_cancel(t);
		t->fn(t->opaque);
	}
}

#endif
