/* SPDX-License-Identifier: MIT */
/*
 * The event loop and the machine lock (loop.h).
 *
 * One turn: with the lock held, find out how long to sleep (not at all when a deferred call waits);
 * without it, wait in epoll; with it again, run due timers, then fd callbacks, then the calls that
 * were deferred before this turn. An eventfd in the epoll set wakes the loop.
 *
 * The lock is a mutex behind a gate: who has to wait holds the gate meanwhile, and while anybody
 * waits everybody else must pass the gate too. So a vCPU thread that unlocks and locks again in a
 * tight loop queues up behind the loop instead of overtaking it; without contention it is one
 * trylock.
 *
 * A freed fd handle goes to a list of dead ones and is released at the end of a turn, since events
 * that epoll has already handed out may still point to it. Files that epoll refuses (regular files
 * as standard input, say) are always ready, as poll(2) has it.
 */
#include "lib/loop.h"
#include "lib/clock.h"
#include "lib/list.h"
#include "lib/text.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_A_TURN = 32 };

struct loop_fd {
	struct loop *loop;
	int fd;
	unsigned events;
	bool always; /* epoll cannot watch it; it is always ready */
	bool dead;
	loop_fd_fn fn;
	void *opaque;
	struct list link; /* in loop->always or loop->dead */
};

struct loop {
	int epoll_fd, wake_fd;
	bool wake_pending; /* atomic: a wake-up is written and not yet read */
	bool quit;         /* atomic */
	bool no_pwait2;    /* the kernel is older than 5.11 */

	pthread_mutex_t lock, gate;
	unsigned waiters;  /* atomic: threads at or in the gate */
	const void *owner; /* atomic: identity of the thread that holds the lock */

	struct clock *clock;
	struct list always, dead;

	pthread_mutex_t call_lock; /* guards the queue of calls; a leaf lock */
	struct loop_call *first, **last;
};

/* Its address identifies a thread. */
static _Thread_local char thread_mark;

struct loop *loop_new(struct error *err)
{
	struct loop *loop = xcalloc(1, sizeof(*loop));
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
	if (loop->epoll_fd < 0 || loop->wake_fd < 0 ||
	    epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &ev) < 0) {
		error_errno(err, errno, "cannot create the event loop");
		if (loop->epoll_fd >= 0)
			close(loop->epoll_fd);
		if (loop->wake_fd >= 0)
			close(loop->wake_fd);
		free(loop);
		return NULL;
	}
	pthread_mutex_init(&loop->lock, NULL);
	pthread_mutex_init(&loop->gate, NULL);
	pthread_mutex_init(&loop->call_lock, NULL);
	loop->last = &loop->first;
	list_init(&loop->always);
	list_init(&loop->dead);
	return loop;
}

static void free_dead(struct loop *loop)
{
	while (!list_empty(&loop->dead)) {
		struct loop_fd *h = list_entry(loop->dead.next, struct loop_fd, link);
		list_remove(&h->link);
		free(h);
	}
}

/* A call that loop_defer() allocated: runs it and releases the storage. */
struct deferred {
	struct loop_call call;
	loop_fn fn;
	void *opaque;
};

static void run_deferred(void *opaque)
{
	struct deferred *d = opaque;
	loop_fn fn = d->fn;
	void *arg = d->opaque;
	free(d);
	fn(arg);
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	free_dead(loop);
	while (loop->first) {
		struct loop_call *call = loop->first;
		loop->first = call->next;
		call->queued = false;
		if (call->fn == run_deferred)
			free(call->opaque);
	}
	close(loop->epoll_fd);
	close(loop->wake_fd);
	pthread_mutex_destroy(&loop->lock);
	pthread_mutex_destroy(&loop->gate);
	pthread_mutex_destroy(&loop->call_lock);
	free(loop);
}

void loop_lock(struct loop *loop)
{
	if (__atomic_load_n(&loop->waiters, __ATOMIC_SEQ_CST) != 0 ||
	    pthread_mutex_trylock(&loop->lock) != 0) {
		__atomic_add_fetch(&loop->waiters, 1, __ATOMIC_SEQ_CST);
		pthread_mutex_lock(&loop->gate);
		pthread_mutex_lock(&loop->lock);
		pthread_mutex_unlock(&loop->gate);
		__atomic_sub_fetch(&loop->waiters, 1, __ATOMIC_SEQ_CST);
	}
	__atomic_store_n(&loop->owner, &thread_mark, __ATOMIC_RELAXED);
}

void loop_unlock(struct loop *loop)
{
	__atomic_store_n(&loop->owner, NULL, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&loop->lock);
}

bool loop_locked_by_me(const struct loop *loop)
{
	return __atomic_load_n(&loop->owner, __ATOMIC_RELAXED) == &thread_mark;
}

void loop_wake(struct loop *loop)
{
	if (__atomic_exchange_n(&loop->wake_pending, true, __ATOMIC_SEQ_CST))
		return;
	int saved = errno; /* a signal handler must not change it */
	uint64_t one = 1;
	ssize_t n;
	do {
		n = write(loop->wake_fd, &one, sizeof(one));
	} while (n < 0 && errno == EINTR);
	errno = saved;
}

void loop_quit(struct loop *loop)
{
	__atomic_store_n(&loop->quit, true, __ATOMIC_SEQ_CST);
	loop_wake(loop);
}

/* The eventfd is read before the flag is cleared: a wake-up in between is not written, but what it
 * announces is looked at after this. The other order could leave the flag set and nothing to read.
 */
static void consume_wake(struct loop *loop)
{
	uint64_t count;
	ssize_t n = read(loop->wake_fd, &count, sizeof(count));
	(void)n;
	__atomic_store_n(&loop->wake_pending, false, __ATOMIC_SEQ_CST);
}

static int wait_events(struct loop *loop, struct epoll_event *ev, int64_t timeout_ns)
{
	struct timespec ts = {.tv_sec = (time_t)(timeout_ns / (int64_t)NS_PER_SEC),
			      .tv_nsec = (long)(timeout_ns % (int64_t)NS_PER_SEC)};
	struct timespec *tp = timeout_ns < 0 ? NULL : &ts;
	if (timeout_ns == 0 || timeout_ns == -1)
		return epoll_wait(loop->epoll_fd, ev, EVENTS_A_TURN, timeout_ns < 0 ? -1 : 0);
#ifdef SYS_epoll_pwait2
	if (!loop->no_pwait2) {
		long n = syscall(SYS_epoll_pwait2, loop->epoll_fd, ev, EVENTS_A_TURN, tp, NULL, 0);
		if (n >= 0 || errno != ENOSYS)
			return (int)n;
		loop->no_pwait2 = true;
	}
#endif
	struct pollfd pfd = {.fd = loop->epoll_fd, .events = POLLIN};
	if (ppoll(&pfd, 1, tp, NULL) <= 0)
		return 0;
	return epoll_wait(loop->epoll_fd, ev, EVENTS_A_TURN, 0);
}

static void run_calls(struct loop *loop)
{
	/* Only those that wait now: one that schedules itself again must not hold up the rest. */
	pthread_mutex_lock(&loop->call_lock);
	size_t count = 0;
	for (struct loop_call *c = loop->first; c; c = c->next)
		count++;
	while (count-- && loop->first) {
		struct loop_call *call = loop->first;
		loop->first = call->next;
		if (!loop->first)
			loop->last = &loop->first;
		call->queued = false;
		loop_fn fn = call->fn;
		void *opaque = call->opaque;
		pthread_mutex_unlock(&loop->call_lock);
		fn(opaque);
		pthread_mutex_lock(&loop->call_lock);
	}
	pthread_mutex_unlock(&loop->call_lock);
}

static bool calls_waiting(struct loop *loop)
{
	pthread_mutex_lock(&loop->call_lock);
	bool any = loop->first != NULL;
	pthread_mutex_unlock(&loop->call_lock);
	return any;
}

static void run_always(struct loop *loop)
{
	/* A callback may free any handle: dead ones leave this list, so start again after each
	 * one, at most once around. */
	size_t count = 0;
	struct list *it;
	list_for_each(it, &loop->always) count++;
	while (count-- && !list_empty(&loop->always)) {
		struct loop_fd *h = list_entry(loop->always.next, struct loop_fd, link);
		list_remove(&h->link);
		list_push_back(&loop->always, &h->link);
		unsigned events = h->events & (LOOP_READ | LOOP_WRITE);
		if (events)
			h->fn(h->opaque, events);
	}
}

static bool always_ready(struct loop *loop)
{
	struct list *it;
	list_for_each(it,
		      &loop->always) if (list_entry(it, struct loop_fd, link)->events) return true;
	return false;
}

void loop_run_once(struct loop *loop, int64_t timeout_ns)
{
	struct epoll_event ev[EVENTS_A_TURN];

	loop_lock(loop);
	if (loop->clock) {
		int64_t due = clock_next_deadline(loop->clock);
		if (due >= 0 && (timeout_ns < 0 || due < timeout_ns))
			timeout_ns = due;
	}
	if (always_ready(loop) || calls_waiting(loop) ||
	    __atomic_load_n(&loop->quit, __ATOMIC_SEQ_CST))
		timeout_ns = 0;
	loop_unlock(loop);

	int n = wait_events(loop, ev, timeout_ns);

	loop_lock(loop);
	for (int i = 0; i < n; i++)
		if (!ev[i].data.ptr)
			consume_wake(loop);
	if (loop->clock)
		clock_run_timers(loop->clock);
	for (int i = 0; i < n; i++) {
		struct loop_fd *h = ev[i].data.ptr;
		if (!h || h->dead)
			continue;
		unsigned events = 0;
		if (ev[i].events & EPOLLIN)
			events |= LOOP_READ;
		if (ev[i].events & EPOLLOUT)
			events |= LOOP_WRITE;
		events &= h->events; /* an earlier callback may have changed its mind */
		if (ev[i].events & (EPOLLERR | EPOLLHUP))
			events |= LOOP_ERROR;
		if (events)
			h->fn(h->opaque, events);
	}
	run_always(loop);
	run_calls(loop);
	free_dead(loop);
	loop_unlock(loop);
}

void loop_run(struct loop *loop)
{
	/* Timers to the microsecond: by default the kernel may be 50 us late. */
	prctl(PR_SET_TIMERSLACK, 1UL, 0, 0, 0);
	while (!__atomic_load_n(&loop->quit, __ATOMIC_SEQ_CST))
		loop_run_once(loop, -1);
	__atomic_store_n(&loop->quit, false, __ATOMIC_SEQ_CST);
}

static uint32_t epoll_bits(unsigned events)
{
	return (events & LOOP_READ ? (uint32_t)EPOLLIN : 0) |
	       (events & LOOP_WRITE ? (uint32_t)EPOLLOUT : 0);
}

struct loop_fd *loop_fd_new(struct loop *loop, int fd, unsigned events, loop_fd_fn fn, void *opaque,
			    struct error *err)
{
	struct loop_fd *h = xcalloc(1, sizeof(*h));
	*h = (struct loop_fd){.loop = loop, .fd = fd, .events = events, .fn = fn, .opaque = opaque};
	list_init(&h->link);
	struct epoll_event ev = {.events = epoll_bits(events), .data.ptr = h};
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0)
		return h;
	if (errno == EPERM) {
		h->always = true;
		list_push_back(&loop->always, &h->link);
		loop_wake(loop);
		return h;
	}
	error_errno(err, errno, "cannot watch file descriptor %d", fd);
	free(h);
	return NULL;
}

void loop_fd_set_events(struct loop_fd *h, unsigned events)
{
	if (h->events == events)
		return;
	h->events = events;
	if (h->always) {
		loop_wake(h->loop);
		return;
	}
	struct epoll_event ev = {.events = epoll_bits(events), .data.ptr = h};
	epoll_ctl(h->loop->epoll_fd, EPOLL_CTL_MOD, h->fd, &ev);
}

void loop_fd_free(struct loop_fd *h)
{
	if (!h)
		return;
	if (h->always)
		list_remove(&h->link);
	else
		epoll_ctl(h->loop->epoll_fd, EPOLL_CTL_DEL, h->fd, NULL);
	h->dead = true;
	list_push_back(&h->loop->dead, &h->link);
}

void loop_call_init(struct loop_call *call, loop_fn fn, void *opaque)
{
	*call = (struct loop_call){.fn = fn, .opaque = opaque};
}

void loop_call_schedule(struct loop *loop, struct loop_call *call)
{
	pthread_mutex_lock(&loop->call_lock);
	bool was_queued = call->queued;
	if (!was_queued) {
		call->queued = true;
		call->next = NULL;
		*loop->last = call;
		loop->last = &call->next;
	}
	pthread_mutex_unlock(&loop->call_lock);
	if (!was_queued)
		loop_wake(loop);
}

void loop_call_cancel(struct loop *loop, struct loop_call *call)
{
	pthread_mutex_lock(&loop->call_lock);
	for (struct loop_call **p = &loop->first; *p; p = &(*p)->next) {
		if (*p != call)
			continue;
		*p = call->next;
		if (!*p)
			loop->last = p;
		break;
	}
	call->queued = false;
	pthread_mutex_unlock(&loop->call_lock);
}

void loop_defer(struct loop *loop, loop_fn fn, void *opaque)
{
	struct deferred *d = xcalloc(1, sizeof(*d));
	d->fn = fn;
	d->opaque = opaque;
	loop_call_init(&d->call, run_deferred, d);
	loop_call_schedule(loop, &d->call);
}

void loop_set_clock(struct loop *loop, struct clock *clock)
{
	loop->clock = clock;
}
