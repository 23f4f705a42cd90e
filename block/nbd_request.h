/* SPDX-License-Identifier: MIT */
/* One request to an NBD server, as the client (nbd_client.h) and who stores it for others know it. */
#ifndef BLOCK_NBD_REQUEST_H
#define BLOCK_NBD_REQUEST_H

#include "lib/list.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct nbd_extent {
	uint32_t start, end;
};

/* Storage of the caller's, zeroed but for the first part, until `done` runs. */
struct nbd_request {
	uint16_t type;  /* enum nbd_command */
	uint16_t flags; /* enum nbd_command_flags */
	uint64_t offset;
	uint32_t len;
	const struct iovec *iov; /* of READ and WRITE: `len` bytes */
	int iovcnt;
	/* The reply has come, or never will; `result` is 0 or -errno. */
	void (*done)(struct nbd_request *req, int result);

	/* Of BLOCK_STATUS, when it is done. */
	uint32_t status_flags, status_len;

	/* private */
	struct list link;
	uint64_t cookie;
	unsigned replays;
	bool being_sent; /* a WRITE of which not all has gone out */
	bool got_status;
	int result;
	/* What has come of a read: sorted, disjoint, not touching. Mostly it is one piece. */
	struct nbd_extent piece, *pieces; /* NULL: `piece` alone */
	unsigned piece_count;
};

#endif
