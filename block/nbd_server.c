/* SPDX-License-Identifier: MIT */
/*
 * The NBD server's exports, and the life of its clients (nbd_server.h).
 *
 * Each client begins as one thread, which shakes hands, serves, and cleans up behind it; it is
 * detached, and the server counts. Ending a client is shutting its socket down: first for reading,
 * so that what is in flight is still answered, and after some seconds altogether.
 */
#include "block/nbd_server.h"
#include "block/nbd_server_internal.h"
#include "lib/log.h"
#include "lib/text.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	GRACE_S = 5,
	/* A large reply or two: who sends one need not wait until the client takes it. */
	UNIX_BUFFER = 512 * 1024,
};

struct nbd_server *nbd_server_new(const struct nbd_server_config *config)
{
	struct nbd_server *s = xcalloc(1, sizeof(*s));
	pthread_condattr_t attr;
	s->config = *config;
	if (s->config.tls)
		tls_creds_ref(s->config.tls);
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	s->cpus = cpus > 0 ? (unsigned)cpus : 1;
	list_init(&s->exports);
	list_init(&s->peers);
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &attr);
	pthread_condattr_destroy(&attr);
	return s;
}

static void free_export(struct nbd_export *e)
{
	for (unsigned i = 0; i < e->bitmaps; i++)
		free(e->bitmap[i].name);
	free(e->name);
	free(e->description);
	free(e);
}

void nbd_server_free(struct nbd_server *s)
{
	struct list *it, *next;
	if (!s)
		return;
	nbd_server_end_clients(s);
	list_for_each_safe(it, next, &s->exports)
	{
		struct nbd_export *e = list_entry(it, struct nbd_export, link);
		int rc = image_flush(e->image);
		if (rc)
			warn("cannot write all of export '%s' to disk: %s", e->name, strerror(-rc));
		free_export(e);
	}
	tls_creds_unref(s->config.tls);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
	free(s);
}

/* The uppermost image of the chain that has this bitmap. */
static int find_bitmap(struct nbd_export *e, const char *name, struct error *err)
{
	for (struct image *img = e->image; img; img = img->backing) {
		int rc = image_bitmap_open(img, name, err);
		if (rc == -ENOENT)
			continue;
		if (rc)
			return rc;
		e->bitmap[e->bitmaps].name = xstrdup(name);
		e->bitmap[e->bitmaps++].image = img;
		return 0;
	}
	return error_set(err, ENOENT, "bitmap '%s' is not found in '%s'", name, e->image->path);
}

int nbd_server_add_export(struct nbd_server *s, const struct nbd_export_config *c,
			  struct error *err)
{
	const char *description = c->description ? c->description : "";
	if (strlen(c->name) > NBD_MAX_STRING)
		return error_set(err, EINVAL,
				 "export name '%.40s...' is too long; %d bytes are allowed",
				 c->name, NBD_MAX_STRING);
	if (strlen(description) > NBD_MAX_STRING)
		return error_set(err, EINVAL,
				 "export description '%.40s...' is too long; %d bytes are allowed",
				 description, NBD_MAX_STRING);
	if (!range_in(c->offset, c->size, image_size(c->image)))
		return error_set(err, EINVAL, "export '%s' goes beyond the end of '%s'", c->name,
				 c->image->path);
	struct nbd_export *e = xcalloc(1, sizeof(*e));
	e->name = xstrdup(c->name);
	e->description = c->description ? xstrdup(c->description) : NULL;
	e->image = c->image;
	e->offset = c->offset;
	e->size = c->size;
	e->allocation_depth = c->allocation_depth;
	e->flags =
		NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_CACHE;
	if (c->read_only || !image_writable(c->image))
		e->flags |= NBD_FLAG_READ_ONLY;
	else
		e->flags |=
			NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
	if (c->multi_conn)
		e->flags |= NBD_FLAG_CAN_MULTI_CONN;
	int rc = 0;
	for (const char *const *b = c->bitmaps; b && *b && !rc; b++)
		rc = e->bitmaps == MAX_BITMAPS_SERVED
			     ? error_set(err, EINVAL, "an export can have %d bitmaps at most",
					 MAX_BITMAPS_SERVED)
			     : find_bitmap(e, *b, err);
	if (rc) {
		free_export(e);
		return rc;
	}
	list_push_back(&s->exports, &e->link);
	return 0;
}

uint16_t nbd_export_flags(const struct nbd_export *e, bool structured)
{
	return e->flags | (structured ? NBD_FLAG_SEND_DF : 0);
}

/* ---- Clients ---- */

static void free_peer(struct nbd_peer *p)
{
	tls_session_free(p->tls);
	close(p->fd);
	pthread_mutex_destroy(&p->send_lock);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->wake);
	pthread_cond_destroy(&p->freed);
	free(p->in);
	free(p);
}

static void *peer_main(void *arg)
{
	struct nbd_peer *p = arg;
	struct nbd_server *s = p->server;
	int rc = p->kernel ? 0 : nbd_peer_handshake(p);
	p->negotiated = rc == 0;
	p->deadline_ms = 0;
	if (rc == 0)
		nbd_peer_serve(p);
	else
		trace(TRACE_NBD, "handshake ends: %s", strerror(-rc));
	if (p->tls)
		tls_bye(p->tls);
	bool negotiated = p->negotiated;
	pthread_mutex_lock(&s->lock);
	list_remove(&p->link);
	pthread_mutex_unlock(&s->lock);
	free_peer(p);
	/* The server waits for the count; it goes down last but for the caller's function, which
	 * runs while the server cannot be freed. */
	pthread_mutex_lock(&s->lock);
	__atomic_sub_fetch(&s->count, 1, __ATOMIC_RELAXED);
	if (s->config.gone)
		s->config.gone(s->config.opaque, negotiated);
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static int start_peer(struct nbd_peer *p, struct error *err)
{
	struct nbd_server *s = p->server;
	sigset_t all, old;
	pthread_attr_t attr;
	pthread_mutex_lock(&s->lock);
	list_push_back(&s->peers, &p->link);
	__atomic_add_fetch(&s->count, 1, __ATOMIC_RELAXED);
	/* Signals are for the main thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	int code = pthread_create(&p->main, &attr, peer_main, p);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (code) {
		list_remove(&p->link);
		__atomic_sub_fetch(&s->count, 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&s->lock);
	if (!code)
		return 0;
	free_peer(p);
	return error_errno(err, code, "cannot start a thread for a client");
}

static void tune_socket(int fd)
{
	int on = 1, size = UNIX_BUFFER, domain = AF_UNSPEC;
	socklen_t len = sizeof(domain);
	getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len);
	if (domain == AF_UNIX) {
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		return;
	}
	/* Replies are sent when they are complete, and TCP sizes its buffers itself. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

static struct nbd_peer *new_peer(struct nbd_server *s, int fd, struct error *err)
{
	struct nbd_peer *p = calloc(1, sizeof(*p));
	if (p)
		p->in = malloc(PEER_INPUT);
	if (!p || !p->in) {
		error_errno(err, ENOMEM, "cannot serve another client");
		free(p);
		close(fd);
		return NULL;
	}
	p->server = s;
	p->fd = fd;
	list_init(&p->link);
	pthread_mutex_init(&p->send_lock, NULL);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, NULL);
	pthread_cond_init(&p->freed, NULL);
	tune_socket(fd);
	return p;
}

int nbd_server_add_client(struct nbd_server *s, int fd, struct error *err)
{
	struct nbd_peer *p = new_peer(s, fd, err);
	if (!p)
		return -ENOMEM;
	if (s->config.handshake_limit_ms)
		p->deadline_ms = nbd_now_ns() / 1000000 + s->config.handshake_limit_ms;
	return start_peer(p, err);
}

int nbd_server_add_kernel(struct nbd_server *s, int fd, uint16_t *flags, struct error *err)
{
	struct nbd_peer *p = new_peer(s, fd, err);
	if (!p)
		return -ENOMEM;
	p->kernel = true;
	p->export = list_entry(s->exports.next, struct nbd_export, link);
	*flags = nbd_export_flags(p->export, false);
	return start_peer(p, err);
}

unsigned nbd_server_clients(struct nbd_server *s)
{
	pthread_mutex_lock(&s->lock);
	unsigned n = s->count;
	pthread_mutex_unlock(&s->lock);
	return n;
}

/* Lock held. */
static void shut_down(struct nbd_server *s, int how)
{
	struct list *it;
	list_for_each(it, &s->peers) shutdown(list_entry(it, struct nbd_peer, link)->fd, how);
}

void nbd_server_end_clients(struct nbd_server *s)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += GRACE_S;
	pthread_mutex_lock(&s->lock);
	shut_down(s, SHUT_RD);
	while (s->count && pthread_cond_timedwait(&s->changed, &s->lock, &until) != ETIMEDOUT)
		;
	shut_down(s, SHUT_RDWR);
	while (s->count)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}
