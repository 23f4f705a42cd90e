/* SPDX-License-Identifier: MIT */
/*
 * Sending requests to an NBD server.
 *
 * Requests wait in a list. One thread at a time is the sender: it takes as many as there are, up to
 * a batch, and gives them to the socket with one system call; what is listed meanwhile goes with the
 * next. Others only list theirs, and leave.
 *
 * The sender is whoever comes first: a caller's thread that is going to wait for its reply anyway may
 * wait for the socket as well. Who may not, since it is the guest's or since it is the reader, for
 * which the server may be waiting in turn, leaves what the socket does not take to a thread that is
 * started for that the first time.
 *
 * The memory of a write is read until it has gone out, and no longer. The reader therefore does not
 * complete a write whose `being_sent` is set, and a connection is only given up while nobody sends.
 */
#include "block/nbd_client_internal.h"
#include "lib/bytes.h"
#include <stdlib.h>

static void put_head(struct nbd_batch *b, const struct nbd_request *req)
{
	uint8_t *head = b->heads[b->head_count++];
	store_be32(head, NBD_REQUEST_MAGIC);
	store_be16(head + 4, req->flags);
	store_be16(head + 6, req->type);
	store_be64(head + 8, req->cookie);
	store_be64(head + 16, req->offset);
	store_be32(head + 24, req->len);
	b->iov[b->count++] = (struct iovec){head, NBD_REQUEST_SIZE};
}

static void put_payload(struct nbd_batch *b, struct nbd_request *req)
{
	for (int i = 0; i < req->iovcnt; i++)
		if (req->iov[i].iov_len)
			b->iov[b->count++] = req->iov[i];
	req->being_sent = true;
	b->last[b->write_count] = b->count - 1;
	b->writes[b->write_count++] = req;
}

/* Moves requests from the list to the empty batch; their replies may come from now on. */
static void fill_batch(struct nbd_client *c)
{
	struct nbd_batch *b = &c->batch;
	b->next = b->count = 0;
	b->head_count = b->write_next = b->write_count = 0;
	while (!list_empty(&c->outgoing) && b->head_count < BATCH_REQUESTS) {
		struct nbd_request *req = list_entry(c->outgoing.next, struct nbd_request, link);
		bool write = req->type == NBD_CMD_WRITE;
		if (b->count + 1 + (write ? req->iovcnt : 0) > BATCH_PIECES)
			break;
		list_remove(&req->link);
		list_push_back(&c->sent, &req->link);
		req->cookie = c->next_cookie++;
		/* What came of a reply over an earlier connection does not count. */
		free(req->pieces);
		req->pieces = NULL;
		req->piece_count = 0;
		req->got_status = false;
		req->result = 0;
		put_head(b, req);
		if (write)
			put_payload(b, req);
	}
}

/* Writes up to this entry have gone out. */
static void written_up_to(struct nbd_batch *b, int next)
{
	while (b->write_next < b->write_count && b->last[b->write_next] < next)
		b->writes[b->write_next++]->being_sent = false;
}

static void advance(struct nbd_batch *b, size_t sent)
{
	while (b->next < b->count && sent >= b->iov[b->next].iov_len)
		sent -= b->iov[b->next++].iov_len;
	if (sent) {
		struct iovec *iov = &b->iov[b->next];
		iov->iov_base = (uint8_t *)iov->iov_base + sent;
		iov->iov_len -= sent;
	}
	written_up_to(b, b->next);
}

static void drop_batch(struct nbd_batch *b)
{
	b->next = b->count;
	written_up_to(b, b->count);
}

static void *sender_thread(void *arg)
{
	struct nbd_client *c = arg;
	pthread_mutex_lock(&c->lock);
	while (!c->closing) {
		if (!c->sender_wanted) {
			pthread_cond_wait(&c->sender_cond, &c->lock);
			continue;
		}
		/* What was handed over. */
		c->sender_wanted = false;
		c->sending = false;
		nbd_send(c, true);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* Leaves the sending, with the batch as it is, to the thread; false if there is none. */
static bool hand_to_sender(struct nbd_client *c)
{
	if (!c->sender_runs)
		c->sender_runs = nbd_thread(&c->sender, sender_thread, c);
	c->sender_wanted = c->sender_runs;
	if (c->sender_runs)
		pthread_cond_signal(&c->sender_cond);
	return c->sender_runs;
}

void nbd_send(struct nbd_client *c, bool may_wait)
{
	struct nbd_batch *b = &c->batch;
	if (c->sending)
		return;
	c->sending = true;
	while (c->state == CONNECTED) {
		if (b->next == b->count) {
			if (list_empty(&c->outgoing) && !nbd_stream_unsent(c->stream))
				break;
			fill_batch(c);
		}
		pthread_mutex_unlock(&c->lock);
		ssize_t n = nbd_stream_send(c->stream, b->iov + b->next, b->count - b->next);
		pthread_mutex_lock(&c->lock);
		if (n < 0) {
			/* The reader sees it, too. */
			nbd_stream_shut(c->stream);
			break;
		}
		advance(b, (size_t)n);
		if (n)
			continue;
		if (!may_wait && hand_to_sender(c))
			return;
		c->send_waits = true;
		pthread_cond_broadcast(&c->progress);
		pthread_mutex_unlock(&c->lock);
		nbd_stream_wait_send(c->stream);
		pthread_mutex_lock(&c->lock);
		c->send_waits = false;
	}
	drop_batch(b);
	c->sending = false;
	pthread_cond_broadcast(&c->progress);
}

void nbd_send_quiet(struct nbd_client *c)
{
	while (c->sending)
		pthread_cond_wait(&c->progress, &c->lock);
}
