/* SPDX-License-Identifier: MIT */
/*
 * NBD client: requests on their way to a server and back, for callers of two kinds.
 *
 *   request -> outgoing -> [nbd_send.c] -> sent -> [nbd_reply.c] -> done
 *                 ^                          |
 *                 +--- [nbd_reconnect.c] <---+ the connection is lost
 *
 * Any number of requests are in flight, told apart by their cookies. One thread at a time is the
 * reader: it takes replies off the connection, whosever they are, and makes the connection again when
 * it is lost. It alone ends requests.
 *
 * Threads that wait for their replies (nbd_client_read() and its like) are the reader in turn: one
 * of them reads until its own reply has come, and then hands the reading to another who waits. So a
 * single request costs no switch between threads.
 *
 * The first request that nobody waits for (nbd_client_submit()) starts a thread that is the reader
 * from then on. It reads many replies with one system call, and sends what its callbacks submit with
 * one. A request of another thread goes out at once, unless the reader is at work anyway and will send
 * it. A server that hangs up on an idle connection is noticed with the next request.
 *
 * A program that ends waits for a server only while replies come (nbd_client_ending()): a thread of its
 * own sees to that, since all others may be waiting for the server.
 */
#include "block/nbd_client.h"
#include "block/iov.h"
#include "block/nbd_client_internal.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include "lib/tls.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { LAST_WAIT_S = 5 /* of a program that ends, for a server that says nothing */ };

bool nbd_thread(pthread_t *thread, void *(*run)(void *), struct nbd_client *c)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	bool ok = pthread_create(thread, NULL, run, c) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ok;
}

/* ---- Requests that nobody waits for ---- */

/* The reader's stream is about to wait for the server, or has come back from it. */
static void reader_waits(void *opaque, bool waits)
{
	struct nbd_client *c = opaque;
	if (waits) {
		pthread_mutex_lock(&c->lock);
		nbd_send(c, false);
		__atomic_store_n(&c->reader_awake, false, __ATOMIC_RELAXED);
		pthread_mutex_unlock(&c->lock);
	} else {
		__atomic_store_n(&c->reader_awake, true, __ATOMIC_RELAXED);
	}
}

/* The next request finds the connection closed, and the reader with it. */
static void hang_up(struct nbd_client *c)
{
	c->hung_up = true;
	nbd_stream_shut(c->stream);
}

static void *reader_thread(void *arg)
{
	struct nbd_client *c = arg;
	pthread_mutex_lock(&c->lock);
	/* Who reads while it waits goes first. */
	while (c->reading)
		pthread_cond_wait(&c->reader_cond, &c->lock);
	c->reading = true;
	while (!c->closing) {
		if (nbd_idle(c) && (c->hung_up || c->state != CONNECTED)) {
			pthread_cond_wait(&c->reader_cond, &c->lock);
		} else if (c->state != CONNECTED) {
			nbd_reconnect(c);
		} else {
			nbd_stream_on_wait(c->stream, reader_waits, c);
			pthread_mutex_unlock(&c->lock);
			int rc = nbd_read_reply(c);
			pthread_mutex_lock(&c->lock);
			if (rc < 0 && !nbd_idle(c))
				nbd_connection_lost(c, rc);
			else if (rc < 0 && !c->closing)
				hang_up(c);
		}
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* Lock held. */
static void enlist(struct nbd_client *c, struct nbd_request *req)
{
	req->replays = 0;
	req->being_sent = false;
	req->pieces = NULL;
	req->status_flags = req->status_len = 0;
	list_push_back(&c->outgoing, &req->link);
}

bool nbd_client_submit(struct nbd_client *c, struct nbd_request *req)
{
	if (req->iovcnt >= BATCH_PIECES)
		return false;
	pthread_mutex_lock(&c->lock);
	if (!c->reader_runs)
		c->reader_runs = nbd_thread(&c->reader, reader_thread, c);
	bool ok = c->reader_runs;
	if (ok) {
		enlist(c, req);
		if (!__atomic_load_n(&c->reader_awake, __ATOMIC_RELAXED))
			nbd_send(c, false);
		pthread_cond_signal(&c->reader_cond);
	}
	pthread_mutex_unlock(&c->lock);
	return ok;
}

/* ---- Requests whose caller waits ---- */

struct waiter {
	struct nbd_request req;
	struct nbd_client *client;
	struct list link;
	pthread_cond_t cond;
	bool waiting; /* on cond */
	bool done;
	int result;
};

static void waiter_done(struct nbd_request *req, int result)
{
	struct waiter *w = container_of(req, struct waiter, req);
	struct nbd_client *c = w->client;
	pthread_mutex_lock(&c->lock);
	w->result = result;
	w->done = true;
	if (w->waiting)
		pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&c->lock);
}

/* Somebody who waits shall take over the reading. Lock held. */
static void hand_over(struct nbd_client *c)
{
	struct list *it;
	if (c->reader_runs) {
		pthread_cond_signal(&c->reader_cond);
		return;
	}
	list_for_each(it, &c->waiters)
	{
		struct waiter *w = list_entry(it, struct waiter, link);
		if (w->waiting && !w->done) {
			pthread_cond_signal(&w->cond);
			return;
		}
	}
}

/* The reader for one turn. Lock held, but not for the time of it. */
static void read_or_reconnect(struct nbd_client *c)
{
	c->reading = true;
	if (c->state != CONNECTED) {
		nbd_reconnect(c);
	} else {
		pthread_mutex_unlock(&c->lock);
		int rc = nbd_read_reply(c);
		pthread_mutex_lock(&c->lock);
		if (rc < 0)
			nbd_connection_lost(c, rc);
	}
	c->reading = false;
}

static int run(struct nbd_client *c, struct waiter *w)
{
	w->client = c;
	w->req.done = waiter_done;
	pthread_cond_init(&w->cond, NULL);
	pthread_mutex_lock(&c->lock);
	list_push_back(&c->waiters, &w->link);
	enlist(c, &w->req);
	while (!w->done) {
		if (c->state == CONNECTED && !c->sending && !list_empty(&c->outgoing)) {
			/* While this may have to wait for the server, it may for a reader. */
			if (!c->reading)
				hand_over(c);
			nbd_send(c, true);
		} else if (!c->reading && !c->reader_runs) {
			read_or_reconnect(c);
		} else {
			pthread_cond_signal(&c->reader_cond);
			w->waiting = true;
			pthread_cond_wait(&w->cond, &c->lock);
			w->waiting = false;
		}
	}
	list_remove(&w->link);
	if (!c->reading)
		hand_over(c);
	pthread_mutex_unlock(&c->lock);
	pthread_cond_destroy(&w->cond);
	return w->result;
}

int nbd_client_read(struct nbd_client *c, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	struct waiter w = {.req = {.type = NBD_CMD_READ,
				   .offset = offset,
				   .len = (uint32_t)iov_total(iov, iovcnt),
				   .iov = iov,
				   .iovcnt = iovcnt}};
	return run(c, &w);
}

int nbd_client_write(struct nbd_client *c, const struct iovec *iov, int iovcnt, uint64_t offset,
		     uint16_t flags)
{
	struct waiter w = {.req = {.type = NBD_CMD_WRITE,
				   .flags = flags,
				   .offset = offset,
				   .len = (uint32_t)iov_total(iov, iovcnt),
				   .iov = iov,
				   .iovcnt = iovcnt}};
	return run(c, &w);
}

int nbd_client_command(struct nbd_client *c, uint16_t type, uint64_t offset, uint32_t len,
		       uint16_t flags)
{
	struct waiter w = {.req = {.type = type, .flags = flags, .offset = offset, .len = len}};
	return run(c, &w);
}

int nbd_client_status(struct nbd_client *c, uint64_t offset, uint32_t len, uint32_t *flags,
		      uint32_t *count)
{
	struct waiter w = {.req = {.type = NBD_CMD_BLOCK_STATUS,
				   .flags = NBD_CMD_FLAG_REQ_ONE,
				   .offset = offset,
				   .len = len}};
	int rc = run(c, &w);
	*flags = w.req.status_flags;
	/* A server may know of more than it was asked for. */
	*count = w.req.status_len < len ? w.req.status_len : len;
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
		if (c->closing || nbd_idle(c) || replies != c->replies)
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
	if (!c->ending)
		c->ending = nbd_thread(&c->watch, watch, c);
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
	list_init(&c->outgoing);
	list_init(&c->sent);
	list_init(&c->waiters);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->progress, NULL);
	pthread_cond_init(&c->sender_cond, NULL);
	pthread_cond_init(&c->reader_cond, NULL);
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
	int64_t deadline = nbd_now_ms() + (int64_t)c->config.open_timeout * 1000;
	int rc = find_creds(c, err);
	for (int64_t pause = FIRST_PAUSE_MS; rc == 0; pause *= 2) {
		*err = ERROR_INIT;
		rc = nbd_try_to_connect(c, HANDSHAKE_MS, &c->stream, &c->export, err);
		if (rc == 0)
			return c;
		int64_t left = deadline - nbd_now_ms();
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

static void say_goodbye(struct nbd_client *c)
{
	uint8_t head[NBD_REQUEST_SIZE] = {0};
	store_be32(head, NBD_REQUEST_MAGIC);
	store_be16(head + 6, NBD_CMD_DISC);
	nbd_stream_write(c->stream, head, sizeof(head));
}

/* Ends the client's threads. */
static void end_threads(struct nbd_client *c)
{
	pthread_mutex_lock(&c->lock);
	c->closing = true;
	pthread_cond_signal(&c->watch_cond);
	pthread_cond_signal(&c->sender_cond);
	pthread_cond_signal(&c->reader_cond);
	pthread_mutex_unlock(&c->lock);
	if (c->reader_runs) {
		nbd_stream_stop_reading(c->stream);
		pthread_join(c->reader, NULL);
	}
	if (c->sender_runs)
		pthread_join(c->sender, NULL);
	if (c->ending)
		pthread_join(c->watch, NULL);
}

void nbd_client_close(struct nbd_client *c)
{
	if (c->stream && c->state == CONNECTED)
		say_goodbye(c);
	end_threads(c);
	nbd_stream_free(c->stream);
	tls_creds_unref(c->creds);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->progress);
	pthread_cond_destroy(&c->sender_cond);
	pthread_cond_destroy(&c->reader_cond);
	pthread_cond_destroy(&c->watch_cond);
	nbd_config_free(&c->config);
	free(c->uri);
	free(c);
}
