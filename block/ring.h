/* SPDX-License-Identifier: MIT */
/* Transfers between memory and a file's descriptor through io_uring: one thread, any number at once. */
#ifndef BLOCK_RING_H
#define BLOCK_RING_H

#include "lib/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* One transfer, storage of the caller until `done` runs. */
struct ring_item {
	struct ring_item *next;
	int fd;
	bool write;
	const struct iovec *iov;
	int iovcnt; /* at most UIO_MAXIOV, 1024 */
	uint64_t offset;
	size_t len; /* the iovec's sum */
	/* On the ring's thread, which must not be kept. `whole`: all of it was transferred. If not,
	 * nothing is known of how far it came: the caller does it again in another way. */
	void (*done)(struct ring_item *item, bool whole);
};

/* Starts the ring's thread. 0, or an error that says why this host or build has no io_uring. Any
 * thread. */
int ring_start(struct error *err);
/* Any thread, after ring_start() has succeeded. */
void ring_submit(struct ring_item *item);

#endif
