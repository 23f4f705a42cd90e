/* SPDX-License-Identifier: MIT */
/*
 * Requests to an NBD server (doc/proto.md, "Transmission phase").
 *
 * Each caller's thread sends its own request and waits for its reply; any number are in flight, told
 * apart by their cookies. There is no thread of our own: one of those who wait is the reader. It
 * takes replies off the connection, whosever they are, until its own has come, and then hands the
 * reading to another who waits. So a single request costs no switch between threads.
 *
 * A connection that breaks is made again by the reader, for reconnect_delay seconds from when it
 * broke; who waits sends its request once more over the new one. What was not answered may have been
 * done by the server or not: all requests can be done twice. Writes that were answered but not
 * flushed may be lost with a server that dies, as a disk may lose its cache; the guest flushes where
 * it cares. Without reconnect_delay, or after it, requests fail with EIO, and later ones try to
 * connect at most once a second.
 *
 * A program that ends waits for a server only while replies come (nbd_client_ending()): a thread of its
 * own sees to that, since all others may be waiting for the server.
 *
 * A server that breaks the protocol gets no second chance with the requests of that connection:
 * they fail. Nothing of what it sends is believed before it is checked, and a reply only ever fills
 * the buffer of its request, every byte once.
 */
#include "block/nbd_client.h"
#include "block/iov.h"
#include "block/nbd_proto.h"
#include "lib/bytes.h"
#include "lib/list.h"
#include "lib/log.h"
#include "lib/text.h"
#include "lib/tls.h"
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	HANDSHAKE_MS = 30000, /* for connecting and all of the handshake */
	FIRST_PAUSE_MS = 50,  /* between attempts, doubled up to the last */
	LAST_PAUSE_MS = 1000,
	MAX_REPLAYS = 16,  /* of one request: a server that dies of it must not live for ever */
	MAX_PIECES = 4096, /* of a read that comes out of order */
	LAST_WAIT_S = 5,   /* of a program that ends, for a server that says nothing */
};

struct extent {
	uint32_t start, end;
};

struct request {
	struct list link;
	pthread_cond_t cond;
	uint64_t cookie;
	uint16_t type, flags;
	uint64_t offset;
	uint32_t len;
	const struct iovec *iov; /* of READ and WRITE */
	int iovcnt;

	uint64_t connection; /* on which it was sent; 0: on none yet */
	unsigned replays;
	bool waiting; /* on cond */
	bool done;
	int result; /* 0 or -errno */

	/* What has come of the reply. */
	struct extent *pieces; /* sorted, disjoint, not touching */
	unsigned piece_count;
	bool got_status;
	uint32_t status_flags, status_len;
};

enum state {
	CONNECTED,
	RECONNECTING, /* until the deadline */
	DOWN,         /* a request may try, once in a while */
};

struct nbd_client {
	struct nbd_config config;
	struct tls_creds *creds;
	struct nbd_export export;
	char *uri;

	pthread_mutex_t lock; /* all but the stream's contents */
	struct list requests;
	bool reading; /* somebody reads, or connects */
	bool told_violation;
	bool told; /* the user was told that the server came back with another export */
	enum state state;
	uint64_t connection; /* counts them, from 1 */
	uint64_t next_cookie;
	int64_t deadline; /* of RECONNECTING, ms */
	int64_t next_try; /* of RECONNECTING and DOWN, ms */
	int64_t pause_ms;

	/* The program's end. */
	pthread_t watch;
	pthread_cond_t watch_cond;
	bool ending; /* watch runs */
	bool closing;
	bool given_up;              /* requests fail, nobody connects any more */
	uint64_t replies;           /* that have come */
	struct nbd_stream *attempt; /* one that is being set up in place of the lost one */

	/* Taken before `lock`, never under it: who sends has it, and who replaces the stream. */
	pthread_mutex_t send_lock;
	struct nbd_stream *stream;
};

static int64_t now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- Replies; the reader alone, without the lock ---- */

/* What the reader finds out about a request; put into it under the lock. */
static struct request *find_request(struct nbd_client *c, uint64_t cookie)
{
	struct request *found = NULL;
	struct list *it;
	pthread_mutex_lock(&c->lock);
	list_for_each(it, &c->requests)
	{
		struct request *req = list_entry(it, struct request, link);
		if (req->cookie == cookie && req->connection == c->connection && !req->done) {
			found = req;
			break;
		}
	}
	pthread_mutex_unlock(&c->lock);
	return found;
}

static void finish(struct nbd_client *c, struct request *req)
{
	pthread_mutex_lock(&c->lock);
	req->done = true;
	c->replies++;
	if (req->waiting)
		pthread_cond_signal(&req->cond);
	pthread_mutex_unlock(&c->lock);
}

static int violation(struct nbd_client *c, const char *what)
{
	if (!c->told_violation)
		warn("%s: the server broke the protocol: %s", c->uri, what);
	c->told_violation = true;
	return -EPROTO;
}

/* Notes that [start, end) of a read has come; false if some of it had come before. */
static bool note_piece(struct request *req, uint32_t start, uint32_t end)
{
	unsigned n = req->piece_count, at = 0;
	/* Nearly always it follows the last one. */
	if (n && req->pieces[n - 1].end <= start)
		at = n;
	while (at < n && req->pieces[at].start < start)
		at++;
	if ((at > 0 && req->pieces[at - 1].end > start) || (at < n && req->pieces[at].start < end))
		return false;
	bool joins_left = at > 0 && req->pieces[at - 1].end == start;
	bool joins_right = at < n && req->pieces[at].start == end;
	if (joins_left && joins_right) {
		req->pieces[at - 1].end = req->pieces[at].end;
		memmove(&req->pieces[at], &req->pieces[at + 1],
			(n - at - 1) * sizeof(*req->pieces));
		req->piece_count--;
	} else if (joins_left) {
		req->pieces[at - 1].end = end;
	} else if (joins_right) {
		req->pieces[at].start = start;
	} else {
		if (n == MAX_PIECES)
			return false;
		if (is_power_of_2(n) || n == 0)
			req->pieces = xrealloc(req->pieces, (n ? 2 * n : 1) * sizeof(*req->pieces));
		memmove(&req->pieces[at + 1], &req->pieces[at], (n - at) * sizeof(*req->pieces));
		req->pieces[at] = (struct extent){start, end};
		req->piece_count++;
	}
	return true;
}

/* Reads `len` bytes of a read's data, or fills them with zeroes, at `offset` in the request. */
static int fill(struct nbd_client *c, struct request *req, uint32_t offset, uint32_t len, bool zero)
{
	if (!len || !note_piece(req, offset, offset + len))
		return violation(c, "a read was answered twice, or in too many pieces");
	struct iov_iter it = iov_iter(req->iov, req->iovcnt);
	iov_advance(&it, offset);
	if (zero) {
		iov_zero(&it, len);
		return 0;
	}
	while (len) {
		struct iovec part;
		size_t covered;
		iov_peek(&it, len, &part, 1, &covered);
		int rc = nbd_stream_read(c->stream, part.iov_base, part.iov_len);
		if (rc < 0)
			return rc;
		iov_advance(&it, covered);
		len -= (uint32_t)covered;
	}
	return 0;
}

static void fail_request(struct request *req, uint32_t error)
{
	if (!req->result)
		req->result = -nbd_errno(error);
}

/* The last of the reply has come: is it all that was asked for? */
static int complete(struct nbd_client *c, struct request *req)
{
	if (!req->result && req->type == NBD_CMD_READ &&
	    (req->piece_count != 1 || req->pieces[0].start || req->pieces[0].end != req->len))
		return violation(c, "the answer to a read is incomplete");
	if (!req->result && req->type == NBD_CMD_BLOCK_STATUS && !req->got_status)
		return violation(c, "a question for block status was not answered");
	finish(c, req);
	return 0;
}

static int simple_reply(struct nbd_client *c)
{
	uint8_t head[NBD_SIMPLE_REPLY_SIZE - 4];
	int rc = nbd_stream_read(c->stream, head, sizeof(head));
	if (rc < 0)
		return rc;
	struct request *req = find_request(c, load_be64(head + 4));
	if (!req)
		return violation(c, "a reply to no request");
	if (c->export.structured &&
	    (req->type == NBD_CMD_READ || req->type == NBD_CMD_BLOCK_STATUS))
		return violation(c, "a simple reply where a structured one belongs");
	fail_request(req, load_be32(head));
	if (!req->result && req->type == NBD_CMD_READ &&
	    (rc = fill(c, req, 0, req->len, false)) < 0)
		return rc;
	return complete(c, req);
}

static int data_chunk(struct nbd_client *c, struct request *req, uint32_t len, bool hole)
{
	uint8_t head[12];
	size_t head_len = hole ? 12 : 8;
	if (req->type != NBD_CMD_READ || (hole ? len != head_len : len <= head_len))
		return violation(c, "a chunk of data where none belongs");
	int rc = nbd_stream_read(c->stream, head, head_len);
	if (rc < 0)
		return rc;
	uint64_t offset = load_be64(head);
	uint32_t part = hole ? load_be32(head + 8) : len - 8;
	if (offset < req->offset || !range_in(offset - req->offset, part, req->len))
		return violation(c, "a chunk of data lies outside of what was asked for");
	return fill(c, req, (uint32_t)(offset - req->offset), part, hole);
}

/* Of all extents the first is of interest. */
static int status_chunk(struct nbd_client *c, struct request *req, uint32_t len)
{
	uint8_t head[12];
	if (req->type != NBD_CMD_BLOCK_STATUS || len < 12 || (len - 4) % 8 || req->got_status)
		return violation(c, "a malformed chunk of block status");
	int rc = nbd_stream_read(c->stream, head, sizeof(head));
	if (rc < 0)
		return rc;
	if (load_be32(head) != c->export.context || !load_be32(head + 4))
		return violation(c, "block status of another kind than was asked for");
	req->got_status = true;
	req->status_len = load_be32(head + 4);
	req->status_flags = load_be32(head + 8);
	return nbd_stream_skip(c->stream, len - 12);
}

static int error_chunk(struct nbd_client *c, struct request *req, uint16_t type, uint32_t len)
{
	uint8_t head[6];
	if (len < sizeof(head))
		return violation(c, "a malformed chunk of an error");
	int rc = nbd_stream_read(c->stream, head, sizeof(head));
	if (rc < 0)
		return rc;
	uint32_t error = load_be32(head), text = load_be16(head + 4), rest = len - 6;
	uint32_t tail = type == NBD_REPLY_TYPE_ERROR_OFFSET ? 8 : 0;
	bool known = type == NBD_REPLY_TYPE_ERROR || type == NBD_REPLY_TYPE_ERROR_OFFSET;
	if (!error || (known && (text > NBD_MAX_STRING || rest != text + tail)))
		return violation(c, "a malformed chunk of an error");
	fail_request(req, error);
	return nbd_stream_skip(c->stream, rest);
}

static int structured_reply(struct nbd_client *c)
{
	uint8_t head[NBD_STRUCTURED_REPLY_SIZE - 4];
	if (!c->export.structured)
		return violation(c, "a structured reply although none was negotiated");
	int rc = nbd_stream_read(c->stream, head, sizeof(head));
	if (rc < 0)
		return rc;
	uint16_t flags = load_be16(head), type = load_be16(head + 2);
	uint32_t len = load_be32(head + 12);
	struct request *req = find_request(c, load_be64(head + 4));
	if (!req)
		return violation(c, "a reply to no request");
	if (len > NBD_MAX_PAYLOAD + 8)
		return violation(c, "a chunk is too long");
	if (type == NBD_REPLY_TYPE_NONE)
		rc = len || !(flags & NBD_REPLY_FLAG_DONE)
			     ? violation(c, "an empty chunk in the middle of a reply")
			     : 0;
	else if (type == NBD_REPLY_TYPE_OFFSET_DATA || type == NBD_REPLY_TYPE_OFFSET_HOLE)
		rc = data_chunk(c, req, len, type == NBD_REPLY_TYPE_OFFSET_HOLE);
	else if (type == NBD_REPLY_TYPE_BLOCK_STATUS)
		rc = status_chunk(c, req, len);
	else if (NBD_REPLY_TYPE_IS_ERROR(type))
		rc = error_chunk(c, req, type, len);
	else
		rc = violation(c, "a chunk of unknown type");
	if (rc == 0 && flags & NBD_REPLY_FLAG_DONE)
		rc = complete(c, req);
	return rc;
}

/* Takes one reply, or one chunk of one, off the connection. */
static int read_reply(struct nbd_client *c)
{
	uint8_t magic[4];
	int rc = nbd_stream_read(c->stream, magic, sizeof(magic));
	if (rc < 0)
		return rc;
	switch (load_be32(magic)) {
	case NBD_SIMPLE_REPLY_MAGIC: return simple_reply(c);
	case NBD_STRUCTURED_REPLY_MAGIC: return structured_reply(c);
	default: return violation(c, "a reply begins with none of the magic numbers");
	}
}

/* ---- Connections ---- */

/* What was negotiated must still hold for the guest's disk. */
static int same_export(const struct nbd_client *c, const struct nbd_export *now, struct error *err)
{
	const struct nbd_export *was = &c->export;
	if (now->size != was->size)
		return error_set(err, EIO,
				 "the export has %" PRIu64 " bytes now, and had %" PRIu64 " before",
				 now->size, was->size);
	if ((was->flags & ~now->flags) || (now->flags & ~was->flags & NBD_FLAG_READ_ONLY))
		return error_set(err, EIO, "the export cannot do any more what it could before");
	if (now->min_block > was->min_block || now->max_block < was->max_block)
		return error_set(err, EIO, "the export wants other block sizes than before");
	if (was->has_context && !now->has_context)
		return error_set(err, EIO, "the export does not tell its block status any more");
	return 0;
}

/* One attempt; the new stream in *stream. */
static int try_to_connect(struct nbd_client *c, int timeout_ms, struct nbd_stream **stream,
			  struct nbd_export *export, struct error *err)
{
	*stream = nbd_stream_connect(&c->config, timeout_ms, err);
	if (!*stream)
		return -(err->code ? err->code : EIO);
	pthread_mutex_lock(&c->lock);
	c->attempt = *stream;
	if (c->given_up)
		nbd_stream_shut(*stream);
	pthread_mutex_unlock(&c->lock);
	int rc = nbd_handshake(*stream, &c->config, c->creds, export, err);
	pthread_mutex_lock(&c->lock);
	c->attempt = NULL;
	pthread_mutex_unlock(&c->lock);
	if (rc < 0)
		nbd_stream_free(*stream);
	return rc;
}

/* Marks the connection as lost; lock held. Violations fail what was sent over it. */
static void connection_lost(struct nbd_client *c, int code)
{
	if (c->state != CONNECTED)
		return;
	trace(TRACE_NBD, "%s: connection lost: %s", c->uri, strerror(-code));
	nbd_stream_shut(c->stream);
	c->state = c->config.reconnect_delay && !c->given_up ? RECONNECTING : DOWN;
	c->next_try = now_ms();
	c->pause_ms = FIRST_PAUSE_MS;
	c->deadline = c->next_try + (int64_t)c->config.reconnect_delay * 1000;
	struct list *it;
	list_for_each(it, &c->requests)
	{
		struct request *req = list_entry(it, struct request, link);
		if (req->done || req->connection != c->connection)
			continue;
		bool again = c->state == RECONNECTING && code != -EPROTO &&
			     ++req->replays <= MAX_REPLAYS;
		if (!again) {
			req->result = -EIO;
			req->done = true;
			if (req->waiting)
				pthread_cond_signal(&req->cond);
		}
	}
}

/* Lock held. */
static void fail_all(struct nbd_client *c)
{
	struct list *it;
	list_for_each(it, &c->requests)
	{
		struct request *req = list_entry(it, struct request, link);
		if (req->done)
			continue;
		req->result = -EIO;
		req->done = true;
		if (req->waiting)
			pthread_cond_signal(&req->cond);
	}
}

/* The reader: sleeps until the next attempt, or gives up, or connects. Lock held, but not for the
 * time of it. */
static void reconnect(struct nbd_client *c)
{
	int64_t now = now_ms();
	if (c->given_up) {
		fail_all(c);
		return;
	}
	if (c->state == RECONNECTING && now >= c->deadline) {
		warn("%s: the server did not come back within %u seconds; requests fail", c->uri,
		     c->config.reconnect_delay);
		c->state = DOWN;
		c->next_try = now + LAST_PAUSE_MS;
		fail_all(c);
		return;
	}
	if (now < c->next_try) {
		if (c->state == DOWN) {
			fail_all(c);
			return;
		}
		int64_t until = c->next_try < c->deadline ? c->next_try : c->deadline;
		pthread_mutex_unlock(&c->lock);
		usleep((useconds_t)(until - now) * 1000);
		pthread_mutex_lock(&c->lock);
		return;
	}
	struct error err = ERROR_INIT;
	struct nbd_stream *stream;
	struct nbd_export export;
	int timeout_ms = HANDSHAKE_MS;
	if (c->state == RECONNECTING && c->deadline - now < timeout_ms)
		timeout_ms = (int)(c->deadline - now);
	pthread_mutex_unlock(&c->lock);
	int rc = try_to_connect(c, timeout_ms, &stream, &export, &err);
	if (rc == 0 && (rc = same_export(c, &export, &err)) < 0) {
		if (!c->told)
			warn("%s: %s; the connection is not used", c->uri, err.text);
		c->told = true;
		nbd_stream_free(stream);
	}
	if (rc == 0) {
		pthread_mutex_lock(&c->send_lock);
		nbd_stream_free(c->stream);
		c->stream = stream;
		c->told = false;
		/* Ids of metadata contexts are the connection's. */
		c->export.context = export.context;
		c->export.structured = export.structured;
		pthread_mutex_lock(&c->lock);
		c->state = CONNECTED;
		c->connection++;
		pthread_mutex_unlock(&c->lock);
		pthread_mutex_unlock(&c->send_lock);
	}
	pthread_mutex_lock(&c->lock);
	if (rc < 0) {
		trace(TRACE_NBD, "%s: %s", c->uri, err.text);
		c->next_try = now_ms() + (c->state == DOWN ? LAST_PAUSE_MS : c->pause_ms);
		c->pause_ms = c->pause_ms * 2 < LAST_PAUSE_MS ? c->pause_ms * 2 : LAST_PAUSE_MS;
		return;
	}
	/* All that wait send again. */
	struct list *it;
	list_for_each(it, &c->requests)
	{
		struct request *req = list_entry(it, struct request, link);
		if (req->waiting)
			pthread_cond_signal(&req->cond);
	}
}

/* ---- Requests ---- */

/* Sends it over the present connection. Lock held, but not for the time of it. */
static void send_request(struct nbd_client *c, struct request *req)
{
	uint8_t head[NBD_REQUEST_SIZE];
	store_be32(head, NBD_REQUEST_MAGIC);
	store_be16(head + 4, req->flags);
	store_be16(head + 6, req->type);
	store_be64(head + 16, req->offset);
	store_be32(head + 24, req->len);
	pthread_mutex_unlock(&c->lock);
	pthread_mutex_lock(&c->send_lock);
	pthread_mutex_lock(&c->lock);
	/* It may have been lost meanwhile: then this is for the next time round. */
	bool up = c->state == CONNECTED && !req->done;
	if (up) {
		req->connection = c->connection;
		req->cookie = c->next_cookie++;
		req->piece_count = 0;
		req->got_status = false;
		req->result = 0;
	}
	store_be64(head + 8, req->cookie);
	pthread_mutex_unlock(&c->lock);
	if (up) {
		bool write = req->type == NBD_CMD_WRITE;
		int rc = nbd_stream_write(c->stream, head, sizeof(head), write ? req->iov : NULL,
					  write ? req->iovcnt : 0);
		/* The reader sees it, too. */
		if (rc < 0)
			nbd_stream_shut(c->stream);
	}
	pthread_mutex_unlock(&c->send_lock);
	pthread_mutex_lock(&c->lock);
}

/* Somebody who waits shall take over the reading. Lock held. */
static void hand_over(struct nbd_client *c)
{
	struct list *it;
	list_for_each(it, &c->requests)
	{
		struct request *req = list_entry(it, struct request, link);
		if (req->waiting && !req->done) {
			pthread_cond_signal(&req->cond);
			return;
		}
	}
}

static int run(struct nbd_client *c, struct request *req)
{
	pthread_cond_init(&req->cond, NULL);
	pthread_mutex_lock(&c->lock);
	list_push_back(&c->requests, &req->link);
	while (!req->done) {
		if (c->state == CONNECTED && req->connection != c->connection) {
			send_request(c, req);
		} else if (!c->reading) {
			c->reading = true;
			if (c->state != CONNECTED) {
				reconnect(c);
			} else {
				pthread_mutex_unlock(&c->lock);
				int rc = read_reply(c);
				pthread_mutex_lock(&c->lock);
				if (rc < 0)
					connection_lost(c, rc);
			}
			c->reading = false;
		} else {
			req->waiting = true;
			pthread_cond_wait(&req->cond, &c->lock);
			req->waiting = false;
		}
	}
	list_remove(&req->link);
	if (!c->reading)
		hand_over(c);
	pthread_mutex_unlock(&c->lock);
	pthread_cond_destroy(&req->cond);
	free(req->pieces);
	return req->result;
}

int nbd_client_read(struct nbd_client *c, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	struct request req = {.type = NBD_CMD_READ,
			      .offset = offset,
			      .len = (uint32_t)iov_total(iov, iovcnt),
			      .iov = iov,
			      .iovcnt = iovcnt};
	return run(c, &req);
}

int nbd_client_write(struct nbd_client *c, const struct iovec *iov, int iovcnt, uint64_t offset,
		     uint16_t flags)
{
	struct request req = {.type = NBD_CMD_WRITE,
			      .flags = flags,
			      .offset = offset,
			      .len = (uint32_t)iov_total(iov, iovcnt),
			      .iov = iov,
			      .iovcnt = iovcnt};
	return run(c, &req);
}

int nbd_client_command(struct nbd_client *c, uint16_t type, uint64_t offset, uint32_t len,
		       uint16_t flags)
{
	struct request req = {.type = type, .flags = flags, .offset = offset, .len = len};
	return run(c, &req);
}

int nbd_client_status(struct nbd_client *c, uint64_t offset, uint32_t len, uint32_t *flags,
		      uint32_t *count)
{
	struct request req = {.type = NBD_CMD_BLOCK_STATUS,
			      .flags = NBD_CMD_FLAG_REQ_ONE,
			      .offset = offset,
			      .len = len};
	int rc = run(c, &req);
	*flags = req.status_flags;
	/* A server may know of more than it was asked for. */
	*count = req.status_len < len ? req.status_len : len;
	return rc;
}

/* ---- The program's end ---- */

/* Gives up when no reply comes for a while although some are awaited. */
static void *watch(void *arg)
{
	struct nbd_client *c = arg;
	struct timespec until;
	pthread_mutex_lock(&c->lock);
	while (!c->closing && !c->given_up) {
		uint64_t replies = c->replies;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += LAST_WAIT_S;
		int rc = 0;
		while (!c->closing && rc != ETIMEDOUT)
			rc = pthread_cond_timedwait(&c->watch_cond, &c->lock, &until);
		if (c->closing || list_empty(&c->requests) || replies != c->replies)
			continue;
		warn("%s: the server does not answer; what it was asked for last is given up",
		     c->uri);
		c->given_up = true;
		/* Who waits for it finds the connection closed, and fails all requests. */
		if (c->state == CONNECTED)
			nbd_stream_shut(c->stream);
		if (c->attempt)
			nbd_stream_shut(c->attempt);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

void nbd_client_ending(struct nbd_client *c)
{
	sigset_t all, old;
	if (c->ending)
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	c->ending = pthread_create(&c->watch, NULL, watch, c) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* ---- Life ---- */

const struct nbd_export *nbd_client_export(const struct nbd_client *c)
{
	return &c->export;
}

static int find_creds(struct nbd_client *c, struct error *err)
{
	const struct nbd_config *config = &c->config;
	if (!config->tls)
		return 0;
	c->creds = config->tls_creds
			   ? tls_creds_find(config->tls_creds, TLS_CLIENT, err)
			   : tls_creds_for_client(config->tls_certificates, config->tls_psk_file,
						  config->tls_user, err);
	return c->creds ? 0 : -(err->code ? err->code : EINVAL);
}

static struct nbd_client *client_new(struct nbd_config *config)
{
	struct nbd_client *c = xcalloc(1, sizeof(*c));
	c->config = *config;
	*config = (struct nbd_config){0};
	c->uri = nbd_config_uri(&c->config);
	c->next_cookie = 1;
	c->connection = 1;
	list_init(&c->requests);
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->send_lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->watch_cond, &attr);
	pthread_condattr_destroy(&attr);
	return c;
}

struct nbd_client *nbd_client_attach(struct nbd_config *config, struct nbd_stream *s,
				     struct error *err)
{
	struct error local = ERROR_INIT;
	struct nbd_client *c = client_new(config);
	c->stream = s;
	int rc = find_creds(c, err ? err : &local);
	if (rc == 0)
		rc = nbd_handshake(s, &c->config, c->creds, &c->export, err ? err : &local);
	if (rc == 0)
		return c;
	/* There is nothing yet to say farewell to. */
	c->state = DOWN;
	nbd_client_close(c);
	return NULL;
}

struct nbd_client *nbd_client_open(struct nbd_config *config, struct error *err)
{
	struct error local = ERROR_INIT;
	if (!err)
		err = &local;
	struct nbd_client *c = client_new(config);
	int64_t deadline = now_ms() + (int64_t)c->config.open_timeout * 1000;
	int rc = find_creds(c, err);
	for (int64_t pause = FIRST_PAUSE_MS; rc == 0; pause *= 2) {
		*err = ERROR_INIT;
		rc = try_to_connect(c, HANDSHAKE_MS, &c->stream, &c->export, err);
		if (rc == 0)
			return c;
		int64_t left = deadline - now_ms();
		if (left <= 0)
			break;
		pause = pause > LAST_PAUSE_MS ? LAST_PAUSE_MS : pause;
		usleep((useconds_t)(pause < left ? pause : left) * 1000);
		rc = 0;
	}
	c->stream = NULL;
	nbd_client_close(c);
	return NULL;
}

void nbd_client_close(struct nbd_client *c)
{
	if (c->ending) {
		pthread_mutex_lock(&c->lock);
		c->closing = true;
		pthread_cond_signal(&c->watch_cond);
		pthread_mutex_unlock(&c->lock);
		pthread_join(c->watch, NULL);
	}
	if (c->stream && c->state == CONNECTED) {
		uint8_t head[NBD_REQUEST_SIZE] = {0};
		store_be32(head, NBD_REQUEST_MAGIC);
		store_be16(head + 6, NBD_CMD_DISC);
		nbd_stream_write(c->stream, head, sizeof(head), NULL, 0);
	}
	nbd_stream_free(c->stream);
	tls_creds_unref(c->creds);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->send_lock);
	pthread_cond_destroy(&c->watch_cond);
	nbd_config_free(&c->config);
	free(c->uri);
	free(c);
}
