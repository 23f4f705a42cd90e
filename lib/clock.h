/* SPDX-License-Identifier: MIT */
/*
 * The virtual clock, in nanoseconds since the machine was created; it stops while the machine is
 * stopped. Timers on it run in the event loop's thread with the machine lock held.
 */
#ifndef LIB_CLOCK_H
#define LIB_CLOCK_H

#include "lib/list.h"
#include <stdbool.h>
#include <stdint.h>

struct loop;
struct clock;

#define NS_PER_SEC UINT64_C(1000000000)

/* The host's monotonic time, ns: for what the guest does not see. Any thread. */
uint64_t host_clock_ns(void);

/* Starts stopped at 0. */
struct clock *clock_new(struct loop *loop);
void clock_free(struct clock *clock);
/* Virtual time now, ns. Any thread, without the lock. Never goes back. */
uint64_t clock_now(const struct clock *clock);
/* Lock held. While stopped, clock_now() stands still and no timer fires. */
void clock_start(struct clock *clock);
void clock_stop(struct clock *clock);
bool clock_running(const struct clock *clock);

/* (ticks of a counter of `hz` at time `ns`), exact, without overflow for any uptime and hz < 2^32.
 */
uint64_t ns_to_ticks(uint64_t ns, uint32_t hz);
/* First ns at which that counter has reached `ticks`. */
uint64_t ticks_to_ns(uint64_t ticks, uint32_t hz);

/*
 * A timer: embed it, timer_init() once, then set and cancel at will (lock held). The callback runs
 * at or after `deadline_ns`; the timer is then idle and may be set again from the callback.
 */
struct timer {
	struct clock *clock;
	void (*fn)(void *opaque);
	void *opaque;
	uint64_t deadline_ns;
	struct list link; /* in the clock's queue while pending */
	bool pending;
};

void timer_init(struct timer *t, struct clock *clock, void (*fn)(void *opaque), void *opaque);
/* Arms it (or moves it) to an absolute virtual time. One in the past fires at once. */
void timer_set(struct timer *t, uint64_t deadline_ns);
void timer_cancel(struct timer *t);

/* For the loop: ns until the first timer is due (0: now, -1: none), and running those that are due.
 */
int64_t clock_next_deadline(struct clock *clock);
void clock_run_timers(struct clock *clock);

#endif
