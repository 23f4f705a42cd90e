/* SPDX-License-Identifier: MIT */
/*
 * Worker threads (queue.h). They are started when work finds none of them idle, up to a small
 * number: more would only contend for the same disk. They take no signals, and live until the
 * program ends.
 */
#include "block/queue.h"
#include <pthread.h>
#include <signal.h>
#include <stddef.h>

enum { MAX_WORKERS = 4 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static struct work *first, **last = &first;
static unsigned workers, idle, waiting;

static void *worker(void *arg)
{
	pthread_mutex_lock(&lock);
	for (;;) {
		while (!first) {
			idle++;
			pthread_cond_wait(&wake, &lock);
			idle--;
		}
		struct work *work = first;
		first = work->next;
		if (!first)
			last = &first;
		waiting--;
		pthread_mutex_unlock(&lock);
		work->run(work);
		pthread_mutex_lock(&lock);
	}
	return NULL;
}

/* Signals are for the main thread: block all while a worker inherits the mask. Lock held. */
static bool start_worker(void)
{
	sigset_t all, old;
	pthread_t t;
	pthread_attr_t attr;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	bool ok = pthread_create(&t, &attr, worker, NULL) == 0;
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	workers += ok;
	return ok;
}

void work_submit(struct work *work)
{
	pthread_mutex_lock(&lock);
	if (waiting >= idle && workers < MAX_WORKERS)
		start_worker();
	if (workers == 0) {
		pthread_mutex_unlock(&lock);
		work->run(work);
		return;
	}
	work->next = NULL;
	*last = work;
	last = &work->next;
	waiting++;
	pthread_cond_signal(&wake);
	pthread_mutex_unlock(&lock);
}
