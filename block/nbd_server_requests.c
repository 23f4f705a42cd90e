/* SPDX-License-Identifier: MIT */
/*
 * Transmission: a client's requests and their replies (doc/proto.md, "Transmission phase").
 *
 * A client has one to PEER_THREADS threads. One of them leads: it reads requests. As long as they
 * are small and the image answers quickly (from the host's cache) the leader runs them itself, one
 * after the other, and sends the replies together before it waits for more: that costs no change of
 * threads and few system calls. A request that is large or of a kind that takes long, and any while
 * the image is found slow, makes the leader hand the lead to another thread and run just this one,
 * so that up to PEER_THREADS run at once. What the leader finds is measured with every transfer.
 *
 * Replies come in any order, each under the send lock; data of structured replies goes in pieces of
 * PIECE bytes, those that are all zero as holes. Memory: a buffer of up to PIECE bytes or, out of
 * the client's budget, as long as a payload that must be in one piece. A client that does not read
 * its replies holds up its own threads only.
 */
#include "block/iov.h"
#include "block/nbd_server_internal.h"
#include "lib/log.h"
#include "lib/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
	PIECE = 256 * 1024,
	SMALL = 64 * 1024,    /* the leader runs such transfers itself */
	ALIGN = 4096,         /* of buffers, for O_DIRECT */
	QUICK_NS = 50 * 1000, /* and a nanosecond for each 4 bytes: the host's cache */
	SLOW_FOR = 64,        /* transfers in a row that must be quick before it counts as such */
	MAX_EXTENTS = 16384,  /* of one block status reply */
	/* The longest head of a reply: structured, with offset and length of a hole. */
	HEAD = NBD_STRUCTURED_REPLY_SIZE + 12,
};

struct request {
	uint16_t flags, type;
	uint64_t cookie, offset; /* in the export */
	uint32_t len;
	uint64_t budget; /* taken for its payload */
	int error;       /* positive errno: it is only answered */
	bool batch;      /* its reply may wait in p->out */
};

/* A thread's own. */
struct worker {
	struct nbd_peer *peer;
	uint8_t *buf;
	size_t size;
};

/* ---- Replies ---- */

static int send_out(struct nbd_peer *p)
{
	struct iovec iov = {p->out, p->out_len};
	int rc = p->out_len ? nbd_peer_write(p, &iov, 1) : 0;
	p->out_len = 0;
	return rc;
}

static int emit(struct nbd_peer *p, const struct request *r, const void *head, size_t head_len,
		const void *data, size_t len)
{
	struct iovec iov[] = {{(void *)head, head_len}, {(void *)data, len}};
	if (!r->batch || head_len + len > PEER_OUTPUT)
		return nbd_peer_write(p, iov, len ? 2 : 1);
	int rc = head_len + len > PEER_OUTPUT - p->out_len ? send_out(p) : 0;
	if (rc)
		return rc;
	memcpy(p->out + p->out_len, head, head_len);
	if (len)
		memcpy(p->out + p->out_len + head_len, data, len);
	p->out_len += head_len + len;
	return 0;
}

static size_t put_simple(uint8_t *b, const struct request *r, int error)
{
	store_be32(b, NBD_SIMPLE_REPLY_MAGIC);
	store_be32(b + 4, nbd_error_of(error));
	store_be64(b + 8, r->cookie);
	return NBD_SIMPLE_REPLY_SIZE;
}

/* The head of a chunk whose payload is `len` bytes. */
static size_t put_chunk(uint8_t *b, const struct request *r, bool done, uint16_t type, size_t len)
{
	store_be32(b, NBD_STRUCTURED_REPLY_MAGIC);
	store_be16(b + 4, done ? NBD_REPLY_FLAG_DONE : 0);
	store_be16(b + 6, type);
	store_be64(b + 8, r->cookie);
	store_be32(b + 16, (uint32_t)len);
	return NBD_STRUCTURED_REPLY_SIZE;
}

static size_t put_hole(uint8_t *b, const struct request *r, bool done, uint64_t offset,
		       uint32_t len)
{
	put_chunk(b, r, done, NBD_REPLY_TYPE_OFFSET_HOLE, 12);
	store_be64(b + 20, offset);
	store_be32(b + 28, len);
	return NBD_STRUCTURED_REPLY_SIZE + 12;
}

/* The answer that has no data. `error` is a positive errno or 0. */
static int finish(struct nbd_peer *p, const struct request *r, int error)
{
	uint8_t b[HEAD + 64];
	size_t len;
	if (error)
		trace(TRACE_NBD, "command %u at %" PRIu64 ", %u bytes: %s", r->type, r->offset,
		      r->len, strerror(error));
	if (!p->structured) {
		len = put_simple(b, r, error);
	} else if (!error) {
		len = put_chunk(b, r, true, NBD_REPLY_TYPE_NONE, 0);
	} else {
		char text[64] = "";
		snprintf(text, sizeof(text), "%s", strerror(error));
		size_t n = strlen(text);
		len = put_chunk(b, r, true, NBD_REPLY_TYPE_ERROR, 6 + n);
		store_be32(b + len, nbd_error_of(error));
		store_be16(b + len + 4, (uint16_t)n);
		memcpy(b + len + 6, text, n);
		len += 6 + n;
	}
	return emit(p, r, b, len, NULL, 0);
}

/* ---- Running a request; 0 or what sending the reply gave ---- */

/* A small read straight into the replies that are sent together. */
static int read_batched(struct nbd_peer *p, const struct request *r)
{
	size_t head = p->structured ? NBD_STRUCTURED_REPLY_SIZE + 8 : NBD_SIMPLE_REPLY_SIZE;
	int rc = head + r->len > PEER_OUTPUT - p->out_len ? send_out(p) : 0;
	if (rc)
		return rc;
	uint8_t *b = p->out + p->out_len;
	rc = image_pread(p->export->image, b + head, r->len, p->export->offset + r->offset);
	if (rc)
		return finish(p, r, -rc);
	if (!p->structured) {
		put_simple(b, r, 0);
	} else if (all_zero(b + head, r->len)) {
		p->out_len += put_hole(b, r, true, r->offset, r->len);
		return 0;
	} else {
		put_chunk(b, r, true, NBD_REPLY_TYPE_OFFSET_DATA, 8 + (size_t)r->len);
		store_be64(b + NBD_STRUCTURED_REPLY_SIZE, r->offset);
	}
	p->out_len += head + r->len;
	return 0;
}

static int do_read(struct worker *w, const struct request *r)
{
	struct nbd_peer *p = w->peer;
	uint8_t head[HEAD];
	uint32_t piece = p->structured && !(r->flags & NBD_CMD_FLAG_DF) ? PIECE : r->len;
	int rc = 0;
	if (p->structured && !r->len)
		return finish(p, r, 0);
	if (r->batch && r->len <= SMALL && !(p->export->image->flags & IMAGE_DIRECT))
		return read_batched(p, r);
	for (uint32_t at = 0; !rc; at += piece) {
		uint64_t offset = r->offset + at;
		uint32_t n = r->len - at < piece ? r->len - at : piece;
		bool done = at + n == r->len;
		rc = image_pread(p->export->image, w->buf, n, p->export->offset + offset);
		if (rc)
			return finish(p, r, -rc);
		if (!p->structured)
			return emit(p, r, head, put_simple(head, r, 0), w->buf, n);
		if (all_zero(w->buf, n)) {
			rc = emit(p, r, head, put_hole(head, r, done, offset, n), NULL, 0);
		} else {
			size_t len =
				put_chunk(head, r, done, NBD_REPLY_TYPE_OFFSET_DATA, 8 + (size_t)n);
			store_be64(head + len, offset);
			rc = emit(p, r, head, len + 8, w->buf, n);
		}
		if (done)
			break;
	}
	return rc;
}

/* Brings the range into the host's cache, or, if the image lies on a server itself, into that
 * one's. */
static int do_cache(struct worker *w, const struct request *r)
{
	const struct nbd_export *e = w->peer->export;
	int rc = image_cache(e->image, e->offset + r->offset, r->len);
	if (rc != -ENOTSUP)
		return finish(w->peer, r, -rc);
	rc = 0;
	for (uint32_t at = 0; at < r->len && !rc; at += PIECE)
		rc = image_pread(e->image, w->buf, r->len - at < PIECE ? r->len - at : PIECE,
				 e->offset + r->offset + at);
	return finish(w->peer, r, -rc);
}

static int do_block_status(struct nbd_peer *p, const struct request *r)
{
	unsigned max = r->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : MAX_EXTENTS, left = p->metas.count;
	uint32_t *extents = malloc((size_t)max * 8);
	int rc = 0;
	if (!extents)
		return finish(p, r, ENOMEM);
	for (unsigned id = 0; id < META_MAX && left && !rc; id++) {
		uint8_t b[NBD_STRUCTURED_REPLY_SIZE + 4];
		if (!p->metas.chosen[id])
			continue;
		int n = nbd_meta_extents(p->export, id, r->offset, r->len, extents, max);
		if (n < 0) {
			rc = finish(p, r, -n);
			break;
		}
		size_t len = put_chunk(b, r, --left == 0, NBD_REPLY_TYPE_BLOCK_STATUS,
				       4 + (size_t)n * 8);
		store_be32(b + len, id);
		rc = emit(p, r, b, len + 4, extents, (size_t)n * 8);
	}
	free(extents);
	return rc;
}

static int run(struct worker *w, const struct request *r)
{
	struct nbd_peer *p = w->peer;
	struct image *img = p->export->image;
	uint64_t offset = p->export->offset + r->offset;
	int rc = -EINVAL;
	if (r->error)
		return finish(p, r, r->error);
	switch (r->type) {
	case NBD_CMD_READ: return do_read(w, r);
	case NBD_CMD_BLOCK_STATUS: return do_block_status(p, r);
	case NBD_CMD_CACHE: return do_cache(w, r);
	case NBD_CMD_FLUSH: return finish(p, r, -image_flush(img));
	case NBD_CMD_WRITE:
		if (r->flags & NBD_CMD_FLAG_FUA)
			return finish(p, r,
				      -image_pwritev_fua(img, &(struct iovec){w->buf, r->len}, 1,
							 offset));
		rc = image_pwrite(img, w->buf, r->len, offset);
		break;
	case NBD_CMD_TRIM: rc = image_discard(img, offset, r->len); break;
	case NBD_CMD_WRITE_ZEROES:
		if (r->flags & NBD_CMD_FLAG_FAST_ZERO)
			rc = image_write_zeroes_fast(img, offset, r->len,
						     !(r->flags & NBD_CMD_FLAG_NO_HOLE));
		else
			rc = image_write_zeroes(img, offset, r->len,
						!(r->flags & NBD_CMD_FLAG_NO_HOLE));
		break;
	}
	if (!rc && (r->flags & NBD_CMD_FLAG_FUA))
		rc = image_flush(img);
	return finish(p, r, -rc);
}

/* The same, and notes whether the image is quick. */
static int run_timed(struct worker *w, const struct request *r)
{
	bool transfer = r->type == NBD_CMD_READ || r->type == NBD_CMD_WRITE;
	uint64_t start = nbd_now_ns();
	int rc = run(w, r);
	if (transfer && !r->error) {
		bool slow = nbd_now_ns() - start > QUICK_NS + r->len / 4;
		unsigned left = __atomic_load_n(&w->peer->slow, __ATOMIC_RELAXED);
		if (slow || left)
			__atomic_store_n(&w->peer->slow, slow ? SLOW_FOR : left - 1,
					 __ATOMIC_RELAXED);
	}
	return rc;
}

/* ---- Reading requests ---- */

/* What is wrong with the request by itself: a positive errno, or 0. */
static int judge(const struct nbd_peer *p, const struct request *r)
{
	bool writes = r->type == NBD_CMD_WRITE || r->type == NBD_CMD_TRIM ||
		      r->type == NBD_CMD_WRITE_ZEROES;
	unsigned flags = NBD_CMD_FLAG_FUA;
	switch (r->type) {
	case NBD_CMD_READ: flags |= p->structured ? NBD_CMD_FLAG_DF : 0; break;
	case NBD_CMD_WRITE_ZEROES: flags |= NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO; break;
	case NBD_CMD_BLOCK_STATUS: flags |= NBD_CMD_FLAG_REQ_ONE; break;
	case NBD_CMD_FLUSH: return r->flags & ~flags ? EINVAL : 0;
	case NBD_CMD_WRITE:
	case NBD_CMD_TRIM:
	case NBD_CMD_CACHE: break;
	default: return EINVAL;
	}
	if (writes && (p->export->flags & NBD_FLAG_READ_ONLY))
		return EPERM;
	if (r->flags & ~flags)
		return EINVAL;
	if (r->len > NBD_MAX_PAYLOAD &&
	    (r->type == NBD_CMD_READ || r->type == NBD_CMD_WRITE || r->type == NBD_CMD_CACHE))
		return EINVAL;
	if (!range_in(r->offset, r->len, p->export->size))
		return r->type == NBD_CMD_WRITE || r->type == NBD_CMD_WRITE_ZEROES ? ENOSPC
										   : EINVAL;
	if (r->type == NBD_CMD_BLOCK_STATUS && (!r->len || !p->metas.count))
		return EINVAL;
	return 0;
}

/* Waits until `bytes` more of the client's payloads may be in memory. */
static int take_budget(struct nbd_peer *p, uint64_t bytes)
{
	pthread_mutex_lock(&p->lock);
	while (p->budget + bytes > PEER_BUDGET && !p->ending)
		pthread_cond_wait(&p->freed, &p->lock);
	bool ending = p->ending;
	p->budget += bytes;
	pthread_mutex_unlock(&p->lock);
	return ending ? -ESHUTDOWN : 0;
}

static int make_room(struct worker *w, struct request *r)
{
	bool whole =
		r->type == NBD_CMD_WRITE ||
		(r->type == NBD_CMD_READ && (!w->peer->structured || (r->flags & NBD_CMD_FLAG_DF)));
	size_t want = whole || r->len < PIECE ? r->len : PIECE;
	int rc = 0;
	if (want > PIECE) {
		rc = take_budget(w->peer, want);
		r->budget = want;
	}
	if (rc || want <= w->size)
		return rc;
	free(w->buf);
	w->buf = NULL;
	w->size = 0;
	want = round_up(want < SMALL ? SMALL : want, ALIGN);
	if (posix_memalign((void **)&w->buf, ALIGN, want)) {
		w->buf = NULL;
		r->error = ENOMEM;
	} else {
		w->size = want;
	}
	return 0;
}

/* A request with its payload. -errno ends the connection. */
static int read_request(struct worker *w, struct request *r)
{
	struct nbd_peer *p = w->peer;
	uint8_t b[NBD_REQUEST_SIZE];
	*r = (struct request){0};
	/* Nobody waits for a reply that is finished. */
	int rc = p->in_end - p->in_at < sizeof(b) ? send_out(p) : 0;
	if (!rc)
		rc = nbd_peer_read(p, b, sizeof(b));
	if (rc)
		return rc;
	if (load_be32(b) != NBD_REQUEST_MAGIC)
		return -EPROTO;
	r->flags = load_be16(b + 4);
	r->type = load_be16(b + 6);
	r->cookie = load_be64(b + 8);
	r->offset = load_be64(b + 16);
	r->len = load_be32(b + 24);
	trace(TRACE_NBD, "command %u, flags 0x%x, at %" PRIu64 ", %u bytes", r->type, r->flags,
	      r->offset, r->len);
	if (r->type == NBD_CMD_DISC)
		return -ESHUTDOWN;
	r->error = judge(p, r);
	if (!r->error && r->type != NBD_CMD_FLUSH)
		rc = make_room(w, r);
	p->exact = r->type == NBD_CMD_WRITE && r->len >= SMALL;
	if (!rc && r->type == NBD_CMD_WRITE) {
		if (p->in_end - p->in_at < r->len)
			rc = send_out(p);
		if (!rc)
			rc = r->error ? nbd_peer_skip(p, r->len) : nbd_peer_read(p, w->buf, r->len);
	}
	return rc;
}

static void give_back(struct worker *w, struct request *r)
{
	struct nbd_peer *p = w->peer;
	if (!r->budget)
		return;
	free(w->buf);
	w->buf = NULL;
	w->size = 0;
	pthread_mutex_lock(&p->lock);
	p->budget -= r->budget;
	r->budget = 0;
	pthread_cond_broadcast(&p->freed);
	pthread_mutex_unlock(&p->lock);
}

/* Whether the leader runs it itself. */
static bool runs_here(const struct nbd_peer *p, const struct request *r)
{
	if (r->error)
		return true;
	if ((r->type != NBD_CMD_READ && r->type != NBD_CMD_WRITE) || r->flags & NBD_CMD_FLAG_FUA ||
	    __atomic_load_n(&p->slow, __ATOMIC_RELAXED))
		return false;
	/* Clients enough to keep the host's CPUs busy need no more threads for that. */
	bool alone = p->in_at == p->in_end ||
		     __atomic_load_n(&p->server->count, __ATOMIC_RELAXED) >= p->server->cpus;
	return r->len <= SMALL || (r->len <= PIECE && alone);
}

/* ---- Threads ---- */

/* Reads and runs requests. 0: `r` is left for this thread to run while another one leads; -errno:
 * no more will come. */
static int lead(struct worker *w, struct request *r)
{
	struct nbd_peer *p = w->peer;
	int rc;
	while (!(rc = read_request(w, r)) && runs_here(p, r)) {
		r->batch = true;
		rc = run_timed(w, r);
		r->batch = false;
		give_back(w, r);
		/* Those that are ready do not wait for a slow image. */
		if (!rc && __atomic_load_n(&p->slow, __ATOMIC_RELAXED))
			rc = send_out(p);
		if (rc)
			break;
	}
	int sent = send_out(p);
	return rc ? rc : sent;
}

static void *work(void *arg);

/* Somebody else leads from here on. Lock held. */
static void pass_the_lead(struct nbd_peer *p)
{
	p->led = false;
	if (p->idle) {
		pthread_cond_signal(&p->wake);
	} else if (p->threads < PEER_THREADS &&
		   pthread_create(&p->thread[p->threads], NULL, work, p) == 0) {
		p->threads++;
	}
}

static void *work(void *arg)
{
	struct nbd_peer *p = arg;
	struct worker w = {.peer = p};
	pthread_mutex_lock(&p->lock);
	for (;;) {
		p->idle++;
		while (p->led && !p->ending)
			pthread_cond_wait(&p->wake, &p->lock);
		p->idle--;
		if (p->ending)
			break;
		p->led = true;
		pthread_mutex_unlock(&p->lock);
		struct request r;
		int rc = lead(&w, &r);
		pthread_mutex_lock(&p->lock);
		if (rc) {
			trace(TRACE_NBD, "client leaves: %s", strerror(-rc));
			p->ending = true;
			pthread_cond_broadcast(&p->wake);
			pthread_cond_broadcast(&p->freed);
		} else {
			pass_the_lead(p);
		}
		pthread_mutex_unlock(&p->lock);
		/* A client that cannot be answered need not be read either. */
		if (!rc && run_timed(&w, &r))
			shutdown(p->fd, SHUT_RDWR);
		give_back(&w, &r);
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	free(w.buf);
	return NULL;
}

void nbd_peer_serve(struct nbd_peer *p)
{
	p->out = malloc(PEER_OUTPUT);
	if (p->out)
		work(p);
	/* All that were started: none starts another once the end is known. */
	pthread_mutex_lock(&p->lock);
	unsigned threads = p->threads;
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < threads; i++)
		pthread_join(p->thread[i], NULL);
	free(p->out);
}
