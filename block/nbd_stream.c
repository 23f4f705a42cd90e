/* SPDX-License-Identifier: MIT */
/*
 * The byte stream to an NBD server: TCP or a unix socket, plain or under TLS.
 *
 * Until the handshake is over every transfer shares one deadline: a server that does not speak, or
 * speaks by the byte, is given up. Afterwards reading from a plain socket blocks; under TLS the socket
 * stays non-blocking and the waiting is done here.
 *
 * Reading goes through a buffer, so that many small replies cost one call. Requests are sent without
 * waiting: the caller learns how much of its list has gone. Under TLS they go through a buffer as
 * well, in which whole records are put together; what was taken into it counts as gone.
 */
#include "block/nbd_client.h"
#include "lib/text.h"
#include "lib/tls.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 64 * 1024, TLS_RECORD = 16 * 1024 };

struct nbd_stream {
	int fd;
	struct tls_session *tls;                   /* NULL: plain */
	int64_t deadline;                          /* CLOCK_MONOTONIC, ms; INT64_MAX: none */
	void (*waiting)(void *opaque, bool waits); /* or NULL */
	void *opaque;
	size_t start, end; /* what is in the buffer */
	uint8_t buffer[BUFFER];
	size_t out_start, out_end; /* TLS: what is still to be sent */
	uint8_t out[TLS_RECORD];
};

static int64_t now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Milliseconds to the deadline for poll(): -1 without one. */
static int time_left(int64_t deadline)
{
	if (deadline == INT64_MAX)
		return -1;
	int64_t left = deadline - now_ms();
	return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

static int wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = events};
	int n = poll(&p, 1, time_left(deadline));
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	return n == 0 ? -ETIMEDOUT : 0;
}

/* ---- Connecting ---- */

static int connect_address(int fd, const struct sockaddr *address, socklen_t len, int64_t deadline)
{
	if (connect(fd, address, len) == 0)
		return 0;
	/* A unix socket whose backlog is full says EAGAIN. */
	if (errno == EAGAIN)
		return -ECONNREFUSED;
	if (errno != EINPROGRESS)
		return -errno;
	int rc = wait_for(fd, POLLOUT, deadline), failed = 0;
	socklen_t size = sizeof(failed);
	if (rc == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &size) < 0)
		rc = -errno;
	return rc < 0 ? rc : -failed;
}

static int open_socket(int family, const struct sockaddr *address, socklen_t len, int64_t deadline)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	int rc = connect_address(fd, address, len, deadline);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	return fd;
}

static int connect_unix(const char *path, int64_t deadline, struct error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	memcpy(address.sun_path, path, strnlen(path, sizeof(address.sun_path) - 1));
	int fd = open_socket(AF_UNIX, (struct sockaddr *)&address, sizeof(address), deadline);
	if (fd < 0)
		error_errno(err, -fd, "cannot connect to socket '%s'", path);
	return fd;
}

static int connect_tcp(const char *host, const char *port, int64_t deadline, struct error *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
	int rc = getaddrinfo(host, port, &hints, &list), fd = -ECONNREFUSED;
	if (rc)
		return error_set(err, EINVAL, "cannot find host '%s' port '%s': %s", host, port,
				 gai_strerror(rc));
	for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
		fd = open_socket(a->ai_family, a->ai_addr, a->ai_addrlen, deadline);
	freeaddrinfo(list);
	if (fd < 0)
		return error_errno(err, -fd, "cannot connect to '%s' port %s", host, port);
	/* Requests go out at once, and a host that vanished is noticed some time. */
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	return fd;
}

struct nbd_stream *nbd_stream_new(int fd, int timeout_ms)
{
	struct nbd_stream *s = xmalloc(sizeof(*s));
	s->fd = fd;
	s->tls = NULL;
	s->deadline = now_ms() + timeout_ms;
	s->start = s->end = s->out_start = s->out_end = 0;
	s->waiting = NULL;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	return s;
}

struct nbd_stream *nbd_stream_connect(const struct nbd_config *config, int timeout_ms,
				      struct error *err)
{
	int64_t deadline = now_ms() + timeout_ms;
	int fd = config->socket ? connect_unix(config->socket, deadline, err)
				: connect_tcp(config->host, config->port, deadline, err);
	if (fd < 0)
		return NULL;
	struct nbd_stream *s = nbd_stream_new(fd, timeout_ms);
	s->deadline = deadline;
	return s;
}

int nbd_stream_start_tls(struct nbd_stream *s, struct tls_creds *creds, const char *hostname,
			 struct error *err)
{
	/* What came before the handshake was not protected: none of it may be believed. */
	if (s->start != s->end)
		return error_set(err, EPROTO, "the server sent data before TLS was set up");
	s->tls = tls_session_new(creds, s->fd, hostname, err);
	if (!s->tls)
		return -EIO;
	return tls_handshake(s->tls, time_left(s->deadline), err);
}

void nbd_stream_established(struct nbd_stream *s)
{
	s->deadline = INT64_MAX;
	if (s->tls)
		return;
	fcntl(s->fd, F_SETFL, fcntl(s->fd, F_GETFL) & ~O_NONBLOCK);
}

void nbd_stream_on_wait(struct nbd_stream *s, void (*waiting)(void *opaque, bool waits),
			void *opaque)
{
	s->waiting = waiting;
	s->opaque = opaque;
}

void nbd_stream_stop_reading(struct nbd_stream *s)
{
	shutdown(s->fd, SHUT_RD);
}

void nbd_stream_shut(struct nbd_stream *s)
{
	shutdown(s->fd, SHUT_RDWR);
}

void nbd_stream_free(struct nbd_stream *s)
{
	if (!s)
		return;
	if (s->tls)
		tls_bye(s->tls);
	tls_session_free(s->tls);
	close(s->fd);
	free(s);
}

/* ---- Transfers ---- */

/* At least one byte, or -errno. */
static ssize_t receive_now(struct nbd_stream *s, void *buf, size_t len)
{
	for (;;) {
		ssize_t n = s->tls ? tls_read(s->tls, buf, len) : recv(s->fd, buf, len, 0);
		if (n < 0 && !s->tls)
			n = -errno;
		if (n > 0)
			return n;
		if (n == 0)
			return -ECONNRESET;
		if (n == -EINTR)
			continue;
		if (n != -EAGAIN)
			return n;
		int rc = wait_for(s->fd, POLLIN, s->deadline);
		if (rc < 0)
			return rc;
	}
}

static ssize_t receive(struct nbd_stream *s, void *buf, size_t len)
{
	if (s->waiting)
		s->waiting(s->opaque, true);
	ssize_t n = receive_now(s, buf, len);
	if (s->waiting)
		s->waiting(s->opaque, false);
	return n;
}

int nbd_stream_read(struct nbd_stream *s, void *buf, size_t len)
{
	uint8_t *to = buf;
	while (len) {
		if (s->start == s->end) {
			/* Much of it: straight to where it belongs. */
			bool direct = len >= BUFFER / 2;
			ssize_t n = receive(s, direct ? to : s->buffer, direct ? len : BUFFER);
			if (n < 0)
				return (int)n;
			if (direct) {
				to += n;
				len -= (size_t)n;
				continue;
			}
			s->start = 0;
			s->end = (size_t)n;
		}
		size_t part = s->end - s->start < len ? s->end - s->start : len;
		memcpy(to, s->buffer + s->start, part);
		s->start += part;
		to += part;
		len -= part;
	}
	return 0;
}

int nbd_stream_skip(struct nbd_stream *s, size_t len)
{
	uint8_t scratch[4096];
	int rc = 0;
	while (len && !rc) {
		size_t part = len < sizeof(scratch) ? len : sizeof(scratch);
		rc = nbd_stream_read(s, scratch, part);
		len -= part;
	}
	return rc;
}

static int write_tls(struct nbd_stream *s, const void *buf, size_t len)
{
	const uint8_t *from = buf;
	while (len) {
		ssize_t n = tls_write(s->tls, from, len);
		if (n == -EINTR)
			continue;
		if (n == -EAGAIN) {
			int rc = wait_for(s->fd, POLLOUT, s->deadline);
			if (rc < 0)
				return rc;
			continue;
		}
		if (n < 0)
			return (int)n;
		from += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Bytes that the socket takes now: 0 if none, or -errno. */
static ssize_t send_plain(struct nbd_stream *s, const struct iovec *iov, int iovcnt)
{
	struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)iovcnt};
	ssize_t n;
	do
		n = sendmsg(s->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n >= 0 ? n : errno == EAGAIN ? 0 : -errno;
}

int nbd_stream_write(struct nbd_stream *s, const void *buf, size_t len)
{
	if (s->tls)
		return write_tls(s, buf, len);
	const uint8_t *from = buf;
	while (len) {
		struct iovec iov = {(void *)from, len};
		ssize_t n = send_plain(s, &iov, 1);
		int rc = n < 0 ? (int)n : n ? 0 : wait_for(s->fd, POLLOUT, s->deadline);
		if (rc < 0)
			return rc;
		from += n;
		len -= (size_t)n;
	}
	return 0;
}

/* 0 when the TLS buffer is empty, -EAGAIN, or -errno. */
static int flush_tls(struct nbd_stream *s)
{
	while (s->out_start < s->out_end) {
		ssize_t n = tls_write(s->tls, s->out + s->out_start, s->out_end - s->out_start);
		if (n < 0 && n != -EINTR)
			return (int)n;
		if (n > 0)
			s->out_start += (size_t)n;
	}
	s->out_start = s->out_end = 0;
	return 0;
}

static ssize_t send_tls(struct nbd_stream *s, const struct iovec *iov, int iovcnt)
{
	size_t taken = 0, skip = 0;
	/* A record that did not go out must be offered again just as it was. */
	int rc = flush_tls(s);
	while (rc == 0 && iovcnt) {
		while (iovcnt && s->out_end < TLS_RECORD) {
			size_t part = iov->iov_len - skip, room = TLS_RECORD - s->out_end;
			part = part < room ? part : room;
			memcpy(s->out + s->out_end, (const uint8_t *)iov->iov_base + skip, part);
			s->out_end += part;
			taken += part;
			skip += part;
			if (skip == iov->iov_len) {
				iov++;
				iovcnt--;
				skip = 0;
			}
		}
		rc = flush_tls(s);
	}
	return rc < 0 && rc != -EAGAIN ? rc : (ssize_t)taken;
}

ssize_t nbd_stream_send(struct nbd_stream *s, const struct iovec *iov, int iovcnt)
{
	return s->tls ? send_tls(s, iov, iovcnt) : send_plain(s, iov, iovcnt);
}

bool nbd_stream_unsent(const struct nbd_stream *s)
{
	return s->out_start < s->out_end;
}

int nbd_stream_wait_send(struct nbd_stream *s)
{
	return wait_for(s->fd, POLLOUT, s->deadline);
}
