/* SPDX-License-Identifier: MIT */
/*
 * Bytes to and from a client, plain or through TLS.
 *
 * A plain socket is blocking but for the handshake, whose limit makes each step wait in poll();
 * ending a client shuts the socket down, which wakes whoever waits. Under TLS the socket is
 * non-blocking (lib/tls.h). What is read beyond a request stays in the input buffer, so that many
 * small requests cost one system call.
 */
#include "block/nbd_server_internal.h"
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

uint64_t nbd_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int nbd_peer_wait(struct nbd_peer *p, short events)
{
	int timeout = -1;
	if (p->deadline_ms) {
		uint64_t now = nbd_now_ns() / 1000000;
		if (now >= p->deadline_ms)
			return -ETIMEDOUT;
		timeout = (int)(p->deadline_ms - now);
	}
	struct pollfd fd = {.fd = p->fd, .events = events};
	int n = poll(&fd, 1, timeout);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	return n ? 0 : -ETIMEDOUT;
}

/* Some bytes, at least one; their number, 0 at the end of the stream, -errno. */
static ssize_t receive(struct nbd_peer *p, void *buf, size_t len)
{
	for (;;) {
		bool ready = p->tls && tls_pending(p->tls);
		int rc = p->deadline_ms && !ready ? nbd_peer_wait(p, POLLIN) : 0;
		if (rc)
			return rc;
		ssize_t n = p->tls ? tls_read(p->tls, buf, len) : recv(p->fd, buf, len, 0);
		if (n < 0 && !p->tls)
			n = -errno;
		if (n == -EAGAIN)
			rc = nbd_peer_wait(p, POLLIN);
		else if (n != -EINTR)
			return n;
		if (rc)
			return rc;
	}
}

int nbd_peer_read(struct nbd_peer *p, void *buf, size_t len)
{
	size_t done = 0;
	while (done < len) {
		size_t ready = p->in_end - p->in_at, want = len - done;
		if (ready) {
			size_t part = ready < want ? ready : want;
			memcpy((char *)buf + done, p->in + p->in_at, part);
			p->in_at += part;
			done += part;
			continue;
		}
		/* What would fill the buffer alone goes straight to its place. */
		bool direct = want >= PEER_INPUT / 2;
		ssize_t n = direct ? receive(p, (char *)buf + done, want)
				   : receive(p, p->in, p->exact ? want : PEER_INPUT);
		if (n <= 0)
			return n < 0 ? (int)n : done ? -ECONNRESET : -ENODATA;
		if (direct) {
			done += (size_t)n;
		} else {
			p->in_at = 0;
			p->in_end = (size_t)n;
		}
	}
	return 0;
}

int nbd_peer_skip(struct nbd_peer *p, uint64_t len)
{
	uint8_t scrap[4096];
	while (len) {
		size_t part = len < sizeof(scrap) ? (size_t)len : sizeof(scrap);
		int rc = nbd_peer_read(p, scrap, part);
		if (rc)
			return rc;
		len -= part;
	}
	return 0;
}

static int send_tls(struct nbd_peer *p, const struct iovec *iov)
{
	size_t done = 0;
	while (done < iov->iov_len) {
		ssize_t n = tls_write(p->tls, (char *)iov->iov_base + done, iov->iov_len - done);
		int rc = 0;
		if (n == -EAGAIN)
			rc = nbd_peer_wait(p, POLLOUT);
		else if (n < 0 && n != -EINTR)
			rc = (int)n;
		else if (n > 0)
			done += (size_t)n;
		if (rc)
			return rc;
	}
	return 0;
}

static int send_plain(struct nbd_peer *p, struct iovec *iov, int iovcnt)
{
	while (iovcnt) {
		struct msghdr m = {.msg_iov = iov, .msg_iovlen = (size_t)iovcnt};
		int rc = p->deadline_ms ? nbd_peer_wait(p, POLLOUT) : 0;
		if (rc)
			return rc;
		ssize_t n = sendmsg(p->fd, &m, MSG_NOSIGNAL | (p->deadline_ms ? MSG_DONTWAIT : 0));
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		for (; n > 0 && iovcnt; iov++, iovcnt--) {
			size_t part = (size_t)n < iov->iov_len ? (size_t)n : iov->iov_len;
			iov->iov_base = (char *)iov->iov_base + part;
			iov->iov_len -= part;
			n -= (ssize_t)part;
			if (iov->iov_len)
				break;
		}
		while (iovcnt && !iov->iov_len)
			iov++, iovcnt--;
	}
	return 0;
}

int nbd_peer_write(struct nbd_peer *p, struct iovec *iov, int iovcnt)
{
	int rc = 0;
	pthread_mutex_lock(&p->send_lock);
	if (!p->tls)
		rc = send_plain(p, iov, iovcnt);
	for (int i = 0; p->tls && i < iovcnt && !rc; i++)
		rc = send_tls(p, &iov[i]);
	pthread_mutex_unlock(&p->send_lock);
	return rc;
}
