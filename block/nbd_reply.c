/* SPDX-License-Identifier: MIT */
/*
 * Replies of an NBD server (doc/proto.md, "Transmission phase"), simple and structured ones, taken
 * off the connection by whoever is the client's reader.
 *
 * Nothing of what the server sends is believed before it is checked, and a reply only ever fills the
 * buffer of its request, every byte once.
 */
#include "block/iov.h"
#include "block/nbd_client_internal.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PIECES = 4096 /* of a read that comes out of order */ };

int nbd_violation(struct nbd_client *c, const char *what)
{
	if (!c->told_violation)
		warn("%s: the server broke the protocol: %s", c->uri, what);
	c->told_violation = true;
	return -EPROTO;
}

/* The request that a reply is for; only the reader ends requests, so that it stays. */
static struct nbd_request *find_request(struct nbd_client *c, uint64_t cookie)
{
	struct nbd_request *found = NULL;
	struct list *it;
	pthread_mutex_lock(&c->lock);
	list_for_each(it, &c->sent)
	{
		struct nbd_request *req = list_entry(it, struct nbd_request, link);
		if (req->cookie == cookie) {
			found = req;
			break;
		}
	}
	/* Who sends it may not have come to say that it is out. But if it waits for the server to take
	 * more, then this is an answer to half a request. */
	while (found && found->being_sent && !c->send_waits)
		pthread_cond_wait(&c->progress, &c->lock);
	if (found && found->being_sent)
		found = NULL;
	pthread_mutex_unlock(&c->lock);
	return found;
}

static void finish(struct nbd_client *c, struct nbd_request *req)
{
	pthread_mutex_lock(&c->lock);
	list_remove(&req->link);
	c->replies++;
	pthread_mutex_unlock(&c->lock);
	free(req->pieces);
	req->done(req, req->result);
}

/* Makes room for one more piece. */
static struct nbd_extent *grow_pieces(struct nbd_request *req)
{
	unsigned n = req->piece_count;
	if (n && is_power_of_2(n)) {
		struct nbd_extent *first = req->pieces;
		req->pieces = xrealloc(req->pieces, 2 * n * sizeof(*req->pieces));
		if (!first)
			req->pieces[0] = req->piece;
	}
	req->piece_count++;
	return n ? req->pieces : &req->piece;
}

/* Notes that [start, end) of a read has come; false if some of it had come before. */
static bool note_piece(struct nbd_request *req, uint32_t start, uint32_t end)
{
	struct nbd_extent *p = req->pieces ? req->pieces : &req->piece;
	unsigned n = req->piece_count, at = 0;
	/* Nearly always it follows the last one. */
	if (n && p[n - 1].end <= start)
		at = n;
	while (at < n && p[at].start < start)
		at++;
	if ((at > 0 && p[at - 1].end > start) || (at < n && p[at].start < end))
		return false;
	bool joins_left = at > 0 && p[at - 1].end == start;
	bool joins_right = at < n && p[at].start == end;
	if (joins_left && joins_right) {
		p[at - 1].end = p[at].end;
		memmove(&p[at], &p[at + 1], (n - at - 1) * sizeof(*p));
		req->piece_count--;
	} else if (joins_left) {
		p[at - 1].end = end;
	} else if (joins_right) {
		p[at].start = start;
	} else {
		if (n == MAX_PIECES)
			return false;
		p = grow_pieces(req);
		memmove(&p[at + 1], &p[at], (n - at) * sizeof(*p));
		p[at] = (struct nbd_extent){start, end};
	}
	return true;
}

/* Reads `len` bytes of a read's data, or fills them with zeroes, at `offset` in the request. */
static int fill(struct nbd_client *c, struct nbd_request *req, uint32_t offset, uint32_t len,
		bool zero)
{
	if (!len || !note_piece(req, offset, offset + len))
		return nbd_violation(c, "a read was answered twice, or in too many pieces");
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

static void fail_request(struct nbd_request *req, uint32_t error)
{
	if (!req->result)
		req->result = -nbd_errno(error);
}

/* The last of the reply has come: is it all that was asked for? */
static int complete(struct nbd_client *c, struct nbd_request *req)
{
	const struct nbd_extent *p = req->pieces ? req->pieces : &req->piece;
	if (!req->result && req->type == NBD_CMD_READ &&
	    (req->piece_count != 1 || p->start || p->end != req->len))
		return nbd_violation(c, "the answer to a read is incomplete");
	if (!req->result && req->type == NBD_CMD_BLOCK_STATUS && !req->got_status)
		return nbd_violation(c, "a question for block status was not answered");
	finish(c, req);
	return 0;
}

static int simple_reply(struct nbd_client *c)
{
	uint8_t head[NBD_SIMPLE_REPLY_SIZE - 4];
	int rc = nbd_stream_read(c->stream, head, sizeof(head));
	if (rc < 0)
		return rc;
	struct nbd_request *req = find_request(c, load_be64(head + 4));
	if (!req)
		return nbd_violation(c, "a reply to no request");
	if (c->export.structured &&
	    (req->type == NBD_CMD_READ || req->type == NBD_CMD_BLOCK_STATUS))
		return nbd_violation(c, "a simple reply where a structured one belongs");
	fail_request(req, load_be32(head));
	if (!req->result && req->type == NBD_CMD_READ &&
	    (rc = fill(c, req, 0, req->len, false)) < 0)
		return rc;
	return complete(c, req);
}

static int data_chunk(struct nbd_client *c, struct nbd_request *req, uint32_t len, bool hole)
{
	uint8_t head[12];
	size_t head_len = hole ? 12 : 8;
	if (req->type != NBD_CMD_READ || (hole ? len != head_len : len <= head_len))
		return nbd_violation(c, "a chunk of data where none belongs");
	int rc = nbd_stream_read(c->stream, head, head_len);
	if (rc < 0)
		return rc;
	uint64_t offset = load_be64(head);
	uint32_t part = hole ? load_be32(head + 8) : len - 8;
	if (offset < req->offset || !range_in(offset - req->offset, part, req->len))
		return nbd_violation(c, "a chunk of data lies outside of what was asked for");
	return fill(c, req, (uint32_t)(offset - req->offset), part, hole);
}

/* Of all extents the first is of interest. */
static int status_chunk(struct nbd_client *c, struct nbd_request *req, uint32_t len)
{
	uint8_t head[12];
	if (req->type != NBD_CMD_BLOCK_STATUS || len < 12 || (len - 4) % 8 || req->got_status)
		return nbd_violation(c, "a malformed chunk of block status");
	int rc = nbd_stream_read(c->stream, head, sizeof(head));
	if (rc < 0)
		return rc;
	if (load_be32(head) != c->export.context || !load_be32(head + 4))
		return nbd_violation(c, "block status of another kind than was asked for");
	req->got_status = true;
	req->status_len = load_be32(head + 4);
	req->status_flags = load_be32(head + 8);
	return nbd_stream_skip(c->stream, len - 12);
}

static int error_chunk(struct nbd_client *c, struct nbd_request *req, uint16_t type, uint32_t len)
{
	uint8_t head[6];
	if (len < sizeof(head))
		return nbd_violation(c, "a malformed chunk of an error");
	int rc = nbd_stream_read(c->stream, head, sizeof(head));
	if (rc < 0)
		return rc;
	uint32_t error = load_be32(head), text = load_be16(head + 4), rest = len - 6;
	uint32_t tail = type == NBD_REPLY_TYPE_ERROR_OFFSET ? 8 : 0;
	bool known = type == NBD_REPLY_TYPE_ERROR || type == NBD_REPLY_TYPE_ERROR_OFFSET;
	if (!error || (known && (text > NBD_MAX_STRING || rest != text + tail)))
		return nbd_violation(c, "a malformed chunk of an error");
	fail_request(req, error);
	return nbd_stream_skip(c->stream, rest);
}

static int structured_reply(struct nbd_client *c)
{
	uint8_t head[NBD_STRUCTURED_REPLY_SIZE - 4];
	if (!c->export.structured)
		return nbd_violation(c, "a structured reply although none was negotiated");
	int rc = nbd_stream_read(c->stream, head, sizeof(head));
	if (rc < 0)
		return rc;
	uint16_t flags = load_be16(head), type = load_be16(head + 2);
	uint32_t len = load_be32(head + 12);
	struct nbd_request *req = find_request(c, load_be64(head + 4));
	if (!req)
		return nbd_violation(c, "a reply to no request");
	if (len > NBD_MAX_PAYLOAD + 8)
		return nbd_violation(c, "a chunk is too long");
	if (type == NBD_REPLY_TYPE_NONE)
		rc = len || !(flags & NBD_REPLY_FLAG_DONE)
			     ? nbd_violation(c, "an empty chunk in the middle of a reply")
			     : 0;
	else if (type == NBD_REPLY_TYPE_OFFSET_DATA || type == NBD_REPLY_TYPE_OFFSET_HOLE)
		rc = data_chunk(c, req, len, type == NBD_REPLY_TYPE_OFFSET_HOLE);
	else if (type == NBD_REPLY_TYPE_BLOCK_STATUS)
		rc = status_chunk(c, req, len);
	else if (NBD_REPLY_TYPE_IS_ERROR(type))
		rc = error_chunk(c, req, type, len);
	else
		rc = nbd_violation(c, "a chunk of unknown type");
	if (rc == 0 && flags & NBD_REPLY_FLAG_DONE)
		rc = complete(c, req);
	return rc;
}

/* Takes one reply, or one chunk of one, off the connection. */
int nbd_read_reply(struct nbd_client *c)
{
	uint8_t magic[4];
	int rc = nbd_stream_read(c->stream, magic, sizeof(magic));
	if (rc < 0)
		return rc;
	switch (load_be32(magic)) {
	case NBD_SIMPLE_REPLY_MAGIC: return simple_reply(c);
	case NBD_STRUCTURED_REPLY_MAGIC: return structured_reply(c);
	default: return nbd_violation(c, "a reply begins with none of the magic numbers");
	}
}
