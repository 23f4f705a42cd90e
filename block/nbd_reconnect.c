/* SPDX-License-Identifier: MIT */
/*
 * Connecting to an NBD server, and connecting again.
 *
 * A connection that breaks is made again by the client's reader, for reconnect_delay seconds from
 * when it broke; what was not answered is sent once more over the new one. It may have been done by
 * the server or not: all requests can be done twice. Writes that were answered but not flushed may be
 * lost with a server that dies, as a disk may lose its cache; the guest flushes where it cares.
 * Without reconnect_delay, or after it, requests fail with EIO, and later ones try to connect at most
 * once a second.
 *
 * A server that breaks the protocol gets no second chance with the requests of that connection: they
 * fail.
 */
#include "block/nbd_client_internal.h"
#include "lib/log.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int64_t nbd_now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Ends all of a list, which is the caller's own. Lock held, but not for the time of it. */
static void fail_list(struct nbd_client *c, struct list *list)
{
	pthread_mutex_unlock(&c->lock);
	while (!list_empty(list)) {
		struct nbd_request *req = list_entry(list->next, struct nbd_request, link);
		list_remove(&req->link);
		free(req->pieces);
		req->done(req, -EIO);
	}
	pthread_mutex_lock(&c->lock);
}

static void move_all(struct list *from, struct list *to)
{
	struct list *it, *next;
	list_for_each_safe(it, next, from)
	{
		list_remove(it);
		list_push_back(to, it);
	}
}

static void fail_all(struct nbd_client *c)
{
	struct list failed = LIST_INIT(failed);
	move_all(&c->sent, &failed);
	move_all(&c->outgoing, &failed);
	fail_list(c, &failed);
}

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

int nbd_try_to_connect(struct nbd_client *c, int timeout_ms, struct nbd_stream **stream,
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

void nbd_connection_lost(struct nbd_client *c, int code)
{
	struct list failed = LIST_INIT(failed), again = LIST_INIT(again);
	struct list *it, *next;
	trace(TRACE_NBD, "%s: connection lost: %s", c->uri, strerror(-code));
	nbd_stream_shut(c->stream);
	c->state = c->config.reconnect_delay && !c->given_up ? RECONNECTING : DOWN;
	c->next_try = nbd_now_ms();
	c->pause_ms = FIRST_PAUSE_MS;
	c->deadline = c->next_try + (int64_t)c->config.reconnect_delay * 1000;
	nbd_send_quiet(c);
	list_for_each_safe(it, next, &c->sent)
	{
		struct nbd_request *req = list_entry(it, struct nbd_request, link);
		bool replay = c->state == RECONNECTING && code != -EPROTO &&
			      ++req->replays <= MAX_REPLAYS;
		list_remove(it);
		list_push_back(replay ? &again : &failed, it);
	}
	/* In the order in which they were sent, before what has not been. */
	move_all(&c->outgoing, &again);
	move_all(&again, &c->outgoing);
	fail_list(c, &failed);
}

/* An attempt failed, for the reason in `err`; there is a next one. */
static void wait_for_next(struct nbd_client *c, const struct error *err)
{
	trace(TRACE_NBD, "%s: %s", c->uri, err->text);
	c->next_try = nbd_now_ms() + (c->state == DOWN ? LAST_PAUSE_MS : c->pause_ms);
	c->pause_ms = c->pause_ms * 2 < LAST_PAUSE_MS ? c->pause_ms * 2 : LAST_PAUSE_MS;
}

static void use_stream(struct nbd_client *c, struct nbd_stream *stream,
		       const struct nbd_export *export)
{
	nbd_send_quiet(c);
	nbd_stream_free(c->stream);
	c->stream = stream;
	c->told = false;
	c->hung_up = false;
	/* Ids of metadata contexts are the connection's. */
	c->export.context = export->context;
	c->export.structured = export->structured;
	c->state = CONNECTED;
}

static void connect_again(struct nbd_client *c, int timeout_ms)
{
	struct error err = ERROR_INIT;
	struct nbd_stream *stream;
	struct nbd_export export;
	pthread_mutex_unlock(&c->lock);
	int rc = nbd_try_to_connect(c, timeout_ms, &stream, &export, &err);
	if (rc == 0 && (rc = same_export(c, &export, &err)) < 0) {
		if (!c->told)
			warn("%s: %s; the connection is not used", c->uri, err.text);
		c->told = true;
		nbd_stream_free(stream);
	}
	pthread_mutex_lock(&c->lock);
	if (rc < 0)
		wait_for_next(c, &err);
	else
		use_stream(c, stream, &export);
}

void nbd_reconnect(struct nbd_client *c)
{
	int64_t now = nbd_now_ms();
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
	int timeout_ms = HANDSHAKE_MS;
	if (c->state == RECONNECTING && c->deadline - now < timeout_ms)
		timeout_ms = (int)(c->deadline - now);
	connect_again(c, timeout_ms);
}
