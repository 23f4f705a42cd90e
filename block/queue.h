/* SPDX-License-Identifier: MIT */
/* The worker threads that all drives share. */
#ifndef BLOCK_QUEUE_H
#define BLOCK_QUEUE_H

#include <stdbool.h>

/* One piece of work, storage of the caller; it is the worker's until `run` returns. */
struct work {
	struct work *next;
	void (*run)(struct work *work);
	bool remote; /* mostly it waits for a server: many of these may run at once */
};

/* Runs it soon on some worker. Work is taken up in the order of submission, but several workers run
 * at once, so it may end in another order. Any thread. If no worker can be started at all it runs
 * before this returns. */
void work_submit(struct work *work);

#endif
