/* SPDX-License-Identifier: MIT */
/*
 * Worker threads (queue.h). They are started when work finds none of them idle, up to a small
 * number: more would only contend for the same disk. Work that waits for a server has workers of its
 * own, more of them, so that a server far away has as much to do at once as the guest wants, and one
 * that hangs keeps nobody from the host's disks. Workers take no signals, and live until the program
 * ends.
 */
#include "block/queue.h"
#include <pthread.h>
#include <signal.h>
#include <stddef.h>

struct pool {
	const unsigned max;
	pthread_cond_t wake;
	struct work *first, **last;
	unsigned workers, idle, waiting;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct pool pools[2] = {
	{.max = 4, .wake = PTHREAD_COND_INITIALIZER, .last = &pools[0].first},
	{.max = 32, .wake = PTHREAD_COND_INITIALIZER, .last = &pools[1].first},
};

static void *worker(void *arg)
{
	struct pool *pool = arg;
	pthread_mutex_lock(&lock);
	for (;;) {
		while (!pool->first) {
			pool->idle++;
			pthread_cond_wait(&pool->wake, &lock);
			pool->idle--;
		}
		struct work *work = pool->first;
		pool->first = work->next;
		if (!pool->first)
			pool->last = &pool->first;
		pool->waiting--;
		pthread_mutex_unlock(&lock);
		work->run(work);
		pthread_mutex_lock(&lock);
	}
	return NULL;
}

/* Signals are for the main thread: block all while a worker inherits the mask. Lock held. */
static bool start_worker(struct pool *pool)
{
	sigset_t all, old;
	pthread_t t;
	pthread_attr_t attr;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	bool ok = pthread_create(&t, &attr, worker, pool) == 0;
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pool->workers += ok;
	return ok;
}

void work_submit(struct work *work)
{
	struct pool *pool = &pools[work->remote];
	pthread_mutex_lock(&lock);
	if (pool->waiting >= pool->idle && pool->workers < pool->max)
		start_worker(pool);
	if (pool->workers == 0) {
		pthread_mutex_unlock(&lock);
		work->run(work);
		return;
	}
	work->next = NULL;
	*pool->last = work;
	pool->last = &work->next;
	pool->waiting++;
	pthread_cond_signal(&pool->wake);
	pthread_mutex_unlock(&lock);
}
