/* SPDX-License-Identifier: MIT */
/* What the parts of the NBD client share: nbd_client.c, nbd_send.c, nbd_reply.c, nbd_reconnect.c. */
#ifndef BLOCK_NBD_CLIENT_INTERNAL_H
#define BLOCK_NBD_CLIENT_INTERNAL_H

#include "block/nbd_client.h"
#include "block/nbd_proto.h"
#include <pthread.h>

enum {
	HANDSHAKE_MS = 30000, /* for connecting and all of the handshake */
	FIRST_PAUSE_MS = 50,  /* between attempts, doubled up to the last */
	LAST_PAUSE_MS = 1000,
	MAX_REPLAYS = 16,    /* of one request: a server that dies of it must not live for ever */
	BATCH_REQUESTS = 64, /* sent at once */
	BATCH_PIECES = 1024, /* the same, in memory: what the kernel takes at most, UIO_MAXIOV */
};

enum nbd_state {
	CONNECTED,
	RECONNECTING, /* until the deadline */
	DOWN,         /* a request may try, once in a while */
};

/* Requests that go out with one system call; its owner is who has `sending`. */
struct nbd_batch {
	uint8_t heads[BATCH_REQUESTS][NBD_REQUEST_SIZE];
	unsigned head_count;
	struct iovec iov[BATCH_PIECES];
	int next, count; /* iov[next..count) is still to go */
	/* The writes among them, and the last entry of each. */
	struct nbd_request *writes[BATCH_REQUESTS];
	int last[BATCH_REQUESTS];
	unsigned write_next, write_count;
};

struct nbd_client {
	struct nbd_config config;
	struct tls_creds *creds;
	struct nbd_export export;
	char *uri;

	pthread_mutex_t lock; /* all that follows, but the stream's contents and the batch's */
	struct list outgoing; /* requests to be sent */
	struct list sent;     /* over this connection; without their replies */
	struct list waiters;  /* callers' threads */
	bool reading;         /* somebody reads, or connects */
	bool told_violation;
	bool told; /* the user was told that the server came back with another export */
	enum nbd_state state;
	uint64_t next_cookie;
	int64_t deadline; /* of RECONNECTING, ms */
	int64_t next_try; /* of RECONNECTING and DOWN, ms */
	int64_t pause_ms;
	struct nbd_stream *stream; /* exchanged by the reader while nobody sends */

	/* Sending. */
	bool sending;            /* somebody does, and has the batch */
	bool send_waits;         /* until the server takes more */
	pthread_cond_t progress; /* of sending */
	struct nbd_batch batch;
	pthread_t sender; /* waits in place of those who must not */
	bool sender_runs, sender_wanted;
	pthread_cond_t sender_cond;

	/* The thread that reads when nobody waits for replies. */
	pthread_t reader;
	bool reader_runs;
	bool reader_awake; /* it sends before it waits for replies again; atomic */
	bool hung_up;      /* the server, while nothing was asked of it */
	pthread_cond_t reader_cond;

	/* The program's end. */
	pthread_t watch;
	pthread_cond_t watch_cond;
	bool ending; /* watch runs */
	bool closing;
	bool given_up;              /* requests fail, nobody connects any more */
	uint64_t replies;           /* that have come */
	struct nbd_stream *attempt; /* one that is being set up in place of the lost one */
};

static inline bool nbd_idle(const struct nbd_client *c)
{
	return list_empty(&c->outgoing) && list_empty(&c->sent);
}

/* Milliseconds of CLOCK_MONOTONIC. */
int64_t nbd_now_ms(void);
/* Starts a thread that takes no signals; false if there is none to be had. */
bool nbd_thread(pthread_t *thread, void *(*run)(void *), struct nbd_client *c);

/* ---- nbd_send.c; lock held, but not for the time of system calls ---- */

/* Sends what is outgoing, unless somebody does already. Who may not wait for a server that takes
 * nothing leaves the rest to a thread of its own. */
void nbd_send(struct nbd_client *c, bool may_wait);
/* Waits until nobody sends, which is soon once the connection is shut. */
void nbd_send_quiet(struct nbd_client *c);

/* ---- nbd_reply.c; the reader alone, lock not held ---- */

/* Takes one reply, or one chunk of one, off the connection. -EPROTO: the server broke the protocol;
 * any other -errno: the connection is gone. */
int nbd_read_reply(struct nbd_client *c);
/* The user is told once. -EPROTO. */
int nbd_violation(struct nbd_client *c, const char *what);

/* ---- nbd_reconnect.c; lock held, but not for the time of it ---- */

/* One attempt to connect; the new stream in *stream. Lock not held. */
int nbd_try_to_connect(struct nbd_client *c, int timeout_ms, struct nbd_stream **stream,
		       struct nbd_export *export, struct error *err);
/* The connection is lost: what was sent over it is sent again over the next, or fails. */
void nbd_connection_lost(struct nbd_client *c, int code);
/* The reader, while not connected: sleeps until the next attempt, or gives up, or connects. */
void nbd_reconnect(struct nbd_client *c);

#endif
