/* SPDX-License-Identifier: MIT */
/*
 * A bare machine for device tests: buses, a registry, and a virtual clock that moves only when the
 * test says so. The functions of lib/clock.h are defined here, so that the library's are not
 * linked. Include it from one .c file a program.
 */
#ifndef TESTS_DEVICES_RIG_H
#define TESTS_DEVICES_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/device.h"
#include "core/iobus.h"
#include "core/irq.h"
#include "core/memory.h"
#include "core/state.h"
#include "lib/clock.h"
#include "lib/loop.h"
#include "lib/text.h"
#include <stdlib.h>

/* ---- the clock ---- */

struct clock {
	uint64_t now;
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

/* ---- the machine ---- */

struct rig {
	struct device_env env;
	struct machine_requests requests;
	unsigned resets;
	int exit_status; /* -1: not asked for */
	bool line[24];   /* levels of rig_line() */
	unsigned edges[24];
};

static void rig_reset_request(void *opaque)
{
	((struct rig *)opaque)->resets++;
}

static void rig_exit_request(void *opaque, int status)
{
	((struct rig *)opaque)->exit_status = status;
}

static void rig_set_line(void *opaque, int n, bool level)
{
	struct rig *rig = opaque;
	if (level && !rig->line[n])
		rig->edges[n]++;
	rig->line[n] = level;
}

/* An interrupt line whose level and rising edges the test can see. */
static __attribute__((unused)) struct irq_line rig_line(struct rig *rig, int n)
{
	return (struct irq_line){rig_set_line, rig, n};
}

static __attribute__((unused)) void rig_init(struct rig *rig)
{
	*rig = (struct rig){.exit_status = -1};
	rig->requests = (struct machine_requests){
		.reset = rig_reset_request, .exit = rig_exit_request, .opaque = rig};
	rig->env.mem = memory_new();
	rig->env.io = iobus_new();
	rig->env.loop = loop_new(NULL);
	rig->env.clock = clock_new(rig->env.loop);
	rig->env.states = state_registry_new();
	rig->env.requests = &rig->requests;
	loop_lock(rig->env.loop);
}

static __attribute__((unused)) void rig_fini(struct rig *rig)
{
	loop_unlock(rig->env.loop);
	state_registry_free(rig->env.states);
	clock_free(rig->env.clock);
	loop_free(rig->env.loop);
	iobus_free(rig->env.io);
	memory_free(rig->env.mem);
}

static __attribute__((unused)) uint8_t inb(struct rig *rig, uint16_t port)
{
	return (uint8_t)iobus_read(rig->env.io, port, 1);
}

static __attribute__((unused)) void outb(struct rig *rig, uint16_t port, uint8_t value)
{
	iobus_write(rig->env.io, port, 1, value);
}

/* Saves all states, resets the machine and loads them back. */
static __attribute__((unused)) void rig_save_reset_load(struct rig *rig)
{
	struct strbuf image = STRBUF_INIT, again = STRBUF_INIT;

	state_save(rig->env.states, &image);
	state_reset_all(rig->env.states);
	assert_int_equal(state_load(rig->env.states, image.data, image.len, NULL), 0);
	state_save(rig->env.states, &again);
	assert_int_equal(image.len, again.len);
	assert_memory_equal(image.data, again.data, image.len);
	strbuf_free(&image);
	strbuf_free(&again);
}

#endif
