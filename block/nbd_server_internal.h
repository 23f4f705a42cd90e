/* SPDX-License-Identifier: MIT */
/* What the files of the NBD server share. The parts: nbd_server.c (exports, clients' life),
 * nbd_server_wire.c (bytes), nbd_server_options.c (handshake), nbd_server_meta.c (block status),
 * nbd_server_requests.c (transmission). */
#ifndef BLOCK_NBD_SERVER_INTERNAL_H
#define BLOCK_NBD_SERVER_INTERNAL_H

#include "block/nbd_proto.h"
#include "block/nbd_server.h"
#include "lib/list.h"
#include <pthread.h>
#include <sys/uio.h>

enum {
	/* Threads of a client: so many of its requests run at once. */
	PEER_THREADS = 16,
	/* Payloads of a client that are in memory at once. */
	PEER_BUDGET = 2 * NBD_MAX_PAYLOAD,
	PEER_INPUT = 64 * 1024,   /* read ahead from the socket */
	PEER_OUTPUT = 256 * 1024, /* small replies are sent together */
	MAX_BITMAPS_SERVED = 64,
	/* Metadata contexts: base:allocation, the depth, and the bitmaps. A context's number on the
	 * wire is its place here. */
	META_ALLOCATION = 0,
	META_DEPTH = 1,
	META_BITMAPS = 2,
	META_MAX = META_BITMAPS + MAX_BITMAPS_SERVED,
};

struct nbd_export {
	struct list link;
	char *name, *description;
	struct image *image;
	uint64_t offset, size;
	uint16_t flags; /* NBD_FLAG_*, without what depends on structured replies */
	bool allocation_depth;
	struct {
		char *name;
		struct image *image; /* the layer that holds it */
	} bitmap[MAX_BITMAPS_SERVED];
	unsigned bitmaps;
};

struct nbd_server {
	struct nbd_server_config config;
	struct list exports;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct list peers;
	unsigned count; /* of them; changed under the lock, read by clients without */
	unsigned cpus;  /* of the host */
	bool ending;
};

/* Which contexts a client has chosen. */
struct nbd_metas {
	const struct nbd_export *export; /* of which they are; NULL: none chosen */
	unsigned count;
	bool chosen[META_MAX];
};

/* A client. */
struct nbd_peer {
	struct list link; /* in server->peers */
	struct nbd_server *server;
	int fd;
	struct tls_session *tls;
	pthread_t main;
	uint64_t deadline_ms; /* of the handshake; 0: none */
	bool kernel;          /* no handshake */

	/* Handshake */
	bool fixed, no_zeroes, structured, negotiated;
	struct nbd_export *export;
	struct nbd_metas metas;

	/* Input; its user is the thread that leads. */
	uint8_t *in;
	size_t in_at, in_end;
	bool exact; /* large payloads come: read no more than a request ahead of them */
	/* Replies that are not sent yet; the same thread's. */
	uint8_t *out;
	size_t out_len;

	pthread_mutex_t send_lock; /* one reply at a time */

	pthread_mutex_t lock; /* the rest */
	pthread_cond_t wake;  /* a leader is wanted, or the end has come */
	pthread_cond_t freed; /* budget was given back */
	bool led, ending;
	unsigned threads, idle, slow;
	uint64_t budget;
	pthread_t thread[PEER_THREADS];
};

/* nbd_server_wire.c. 0 or -errno; -ECONNRESET where the stream ends early. */
uint64_t nbd_now_ns(void);
/* Exactly `len` bytes. -ENODATA: the stream ended before the first. */
int nbd_peer_read(struct nbd_peer *p, void *buf, size_t len);
/* Reads past `len` bytes. */
int nbd_peer_skip(struct nbd_peer *p, uint64_t len);
/* The same as sendmsg; the list is used up. Takes send_lock. */
int nbd_peer_write(struct nbd_peer *p, struct iovec *iov, int iovcnt);
/* Waits until the socket may be read or written, at most to the deadline. */
int nbd_peer_wait(struct nbd_peer *p, short events);

/* nbd_server_options.c: 0 when p->export is to be used, -ESHUTDOWN when the client has left. */
int nbd_peer_handshake(struct nbd_peer *p);
uint16_t nbd_export_flags(const struct nbd_export *e, bool structured);

/* nbd_server_meta.c */
/* Marks the contexts that a query means; with `list` "base:" and the like mean all of theirs. */
void nbd_meta_match(const struct nbd_export *e, const char *query, bool list,
		    bool chosen[META_MAX]);
/* The name of context `id`, malloc'ed; NULL if the export has none of this number. */
char *nbd_meta_name(const struct nbd_export *e, unsigned id);
/*
 * The extents from `offset` on in context `id`, merged, as pairs of big-endian length and flags;
 * at most `max` of them. Returns how many, or -errno.
 */
int nbd_meta_extents(const struct nbd_export *e, unsigned id, uint64_t offset, uint32_t len,
		     uint32_t *extents, unsigned max);

/* nbd_server_requests.c: returns when the client has left and nothing of it is in flight. */
void nbd_peer_serve(struct nbd_peer *p);

#endif
