/* SPDX-License-Identifier: MIT */
/* A transfer of a file on a server that no thread waits for (image_submit()). */
#ifndef BLOCK_REMOTE_H
#define BLOCK_REMOTE_H

#include "block/nbd_request.h"

enum remote_op { REMOTE_READ, REMOTE_WRITE, REMOTE_FLUSH };

/* Storage of the caller's, untouched until `done` runs. */
struct remote_request {
	enum remote_op op;
	bool fua; /* of a write: it is on stable storage when it is done */
	uint64_t offset, len;
	const struct iovec *iov; /* of reads and writes: `len` bytes */
	int iovcnt;
	/* On the thread that hears the server, which must not be kept: it may submit again, but not
	 * wait for anything that the same server does. `result` is 0 or -errno. */
	void (*done)(struct remote_request *req, int result);
	/* private */
	void *remote;
	struct nbd_request nbd;
};

#endif
