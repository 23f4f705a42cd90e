/* SPDX-License-Identifier: MIT */
/*
 * The event loop: one thread, epoll; file descriptors, timers (lib/clock.h), deferred calls,
 * wake-ups from other threads. It also owns the machine lock: every callback that the loop makes
 * runs with the lock held, and a vCPU thread takes it around each device access. The lock is not
 * recursive.
 *
 * "Any thread, lock held" below means: call it with the machine lock held, from whatever thread.
 */
#ifndef LIB_LOOP_H
#define LIB_LOOP_H

#include "lib/error.h"
#include <stdbool.h>
#include <stdint.h>

struct loop;
struct clock;

/* What an fd callback reports and what loop_fd_new() asks for. ERROR is always reported. */
enum loop_events {
	LOOP_READ = 1,
	LOOP_WRITE = 2,
	LOOP_ERROR = 4, /* hang-up or error; the owner must remove the fd or it is reported again */
};

typedef void (*loop_fd_fn)(void *opaque, unsigned events);
typedef void (*loop_fn)(void *opaque);

struct loop *loop_new(struct error *err);
void loop_free(struct loop *loop);

/* Runs callbacks until loop_quit(). Called by the thread that owns the loop, lock not held. */
void loop_run(struct loop *loop);
/* One turn: waits at most `timeout_ns` (-1: until something happens). For tests. Lock not held. */
void loop_run_once(struct loop *loop, int64_t timeout_ns);
/* Makes loop_run() return after the current turn. Any thread; async-signal-safe. */
void loop_quit(struct loop *loop);

/* The machine lock. */
void loop_lock(struct loop *loop);
void loop_unlock(struct loop *loop);
/* True if the calling thread holds the lock (for checks in debug builds and tests). */
bool loop_locked_by_me(const struct loop *loop);

/*
 * Watches a file descriptor. The handle stays valid until loop_fd_free(); freeing it from any
 * callback, its own included, is safe. The loop does not own `fd`: free the handle before closing
 * it. Any thread, lock held.
 */
struct loop_fd;
struct loop_fd *loop_fd_new(struct loop *loop, int fd, unsigned events, loop_fd_fn fn, void *opaque,
			    struct error *err);
/* What is reported from now on; 0: errors alone. */
void loop_fd_set_events(struct loop_fd *h, unsigned events);
void loop_fd_free(struct loop_fd *h);

/*
 * Calls fn(opaque) once from the loop's thread, lock held, soon. Any thread, lock held or not, also
 * from worker threads. Calls run in the order they were deferred. Not cancellable: `opaque` must
 * live until it ran.
 */
void loop_defer(struct loop *loop, loop_fn fn, void *opaque);
/* As loop_defer() with storage of the caller, so that it allocates nothing; scheduling it again
 * before it ran does nothing. It may be cancelled with loop_call_cancel() (lock held). */
struct loop_call {
	struct loop_call *next;
	loop_fn fn;
	void *opaque;
	bool queued;
};
void loop_call_init(struct loop_call *call, loop_fn fn, void *opaque);
void loop_call_schedule(struct loop *loop, struct loop_call *call);
void loop_call_cancel(struct loop *loop, struct loop_call *call);

/* The loop runs the timers of this clock (set once, by clock_new()). */
void loop_set_clock(struct loop *loop, struct clock *clock);

/* Wakes the loop so that it looks again at its timers. Any thread; async-signal-safe. */
void loop_wake(struct loop *loop);

#endif
