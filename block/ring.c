/* SPDX-License-Identifier: MIT */
/*
 * io_uring (ring.h; io_uring(7), liburing).
 *
 * One thread owns the ring. What is submitted is put on a list; the thread, when it sleeps, does so
 * in io_uring_enter(), where the completion of a read of an eventfd wakes it. So one system call
 * hands over and collects whatever has come together meanwhile: with many requests in flight that
 * saves most of the context switches that a pool of threads pays for each.
 */
#include "block/ring.h"
#include <errno.h>
#include <pthread.h>

#ifdef HAVE_LIBURING
#include <liburing.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { ENTRIES = 128 };

static struct {
	pthread_mutex_t lock;
	struct ring_item *first, **last;
	bool sleeping;
	int state; /* 0: not tried, 1: runs, else -errno */
	int event;
	/* The thread's own. */
	struct io_uring uring;
	uint64_t event_count;
	unsigned in_flight;
} ring = {.lock = PTHREAD_MUTEX_INITIALIZER, .last = &ring.first};

static void await_event(void)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring.uring);
	io_uring_prep_read(sqe, ring.event, &ring.event_count, sizeof(ring.event_count), 0);
	io_uring_sqe_set_data(sqe, NULL);
}

/* Moves what is on the list to the submission queue, as far as there is room. */
static void fill(void)
{
	pthread_mutex_lock(&ring.lock);
	while (ring.first && ring.in_flight < ENTRIES - 1) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring.uring);
		if (!sqe)
			break;
		struct ring_item *item = ring.first;
		ring.first = item->next;
		if (!ring.first)
			ring.last = &ring.first;
		if (item->write)
			io_uring_prep_writev(sqe, item->fd, item->iov, (unsigned)item->iovcnt,
					     item->offset);
		else
			io_uring_prep_readv(sqe, item->fd, item->iov, (unsigned)item->iovcnt,
					    item->offset);
		io_uring_sqe_set_data(sqe, item);
		ring.in_flight++;
	}
	ring.sleeping = !ring.first;
	pthread_mutex_unlock(&ring.lock);
}

static void *ring_thread(void *arg)
{
	await_event();
	for (;;) {
		struct io_uring_cqe *cqe;
		fill();
		/* An error here (EINTR, EBUSY) leaves the entries queued for the next turn. */
		io_uring_submit_and_wait(&ring.uring, 1);
		pthread_mutex_lock(&ring.lock);
		ring.sleeping = false;
		pthread_mutex_unlock(&ring.lock);
		while (io_uring_peek_cqe(&ring.uring, &cqe) == 0) {
			struct ring_item *item = io_uring_cqe_get_data(cqe);
			int res = cqe->res;
			io_uring_cqe_seen(&ring.uring, cqe);
			if (item) {
				ring.in_flight--;
				item->done(item, res >= 0 && (size_t)res == item->len);
			} else {
				await_event();
			}
		}
	}
	return NULL;
}

/* 1 or -errno. Lock held. */
static int start(void)
{
	pthread_t t;
	sigset_t all, old;
	ring.event = eventfd(0, EFD_CLOEXEC);
	if (ring.event < 0)
		return -errno;
	int rc = io_uring_queue_init(ENTRIES, &ring.uring, 0);
	if (rc < 0) {
		close(ring.event);
		return rc;
	}
	/* Signals are for the main thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&t, NULL, ring_thread, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc) {
		io_uring_queue_exit(&ring.uring);
		close(ring.event);
		return -rc;
	}
	pthread_detach(t);
	return 1;
}

int ring_start(struct error *err)
{
	pthread_mutex_lock(&ring.lock);
	if (!ring.state)
		ring.state = start();
	int state = ring.state;
	pthread_mutex_unlock(&ring.lock);
	if (state > 0)
		return 0;
	return error_errno(err, -state, "this host does not allow io_uring; use aio=threads");
}

void ring_submit(struct ring_item *item)
{
	pthread_mutex_lock(&ring.lock);
	item->next = NULL;
	*ring.last = item;
	ring.last = &item->next;
	bool wake = ring.sleeping;
	ring.sleeping = false;
	pthread_mutex_unlock(&ring.lock);
	uint64_t one = 1;
	while (wake && write(ring.event, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

#else

int ring_start(struct error *err)
{
	return error_set(err, ENOTSUP,
			 "this build has no io_uring (it was made without liburing); use "
			 "aio=threads");
}

void ring_submit(struct ring_item *item)
{
	item->done(item, false);
}

#endif
