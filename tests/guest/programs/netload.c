/* SPDX-License-Identifier: MIT */
/*
 * Network load, for guests:
 *
 *   netload parallel HOST PORT COUNT BYTES   opens COUNT connections to an echo server at once, and only
 *                                            when all are open sends BYTES through each; checks
 *                                            that every byte comes back where it was sent
 *   netload echo PORT                        serves echoes until it is killed
 *   netload send HOST PORT MIB               sends, waits until the other end closes
 *   netload receive HOST PORT                reads to the end
 *
 * The last line on standard output is "ok" with numbers, or what was wrong.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIECE = 65536, SMALL = 512, CONNECTIONS_MAX = 4096, MIB = 1 << 20 };

struct connection {
	size_t sent, received;
	uint8_t waiting[SMALL]; /* echo server: read and not yet sent */
	size_t wait_len;
};

static struct connection connection[CONNECTIONS_MAX];
static struct pollfd polls[CONNECTIONS_MAX + 1];

static int fail(const char *what)
{
	printf("failed: %s: %s\n", what, strerror(errno));
	return 1;
}

static struct sockaddr_in address(const char *host, const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	if (host)
		inet_pton(AF_INET, host, &a.sin_addr);
	return a;
}

/* What connection n carries at an offset: no two carry the same. */
static uint8_t pattern(unsigned n, size_t at)
{
	uint32_t x = n * 2654435761u + (uint32_t)at * 40503u;
	return (uint8_t)(x >> 16 ^ x);
}

static int open_all(const struct sockaddr_in *to, unsigned count)
{
	for (unsigned n = 0; n < count; n++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		if (fd < 0)
			return fail("socket");
		if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) < 0 &&
		    errno != EINPROGRESS)
			return fail("connect");
		polls[n] = (struct pollfd){.fd = fd, .events = POLLOUT};
	}
	for (unsigned open = 0; open < count;) {
		if (poll(polls, count, -1) < 0)
			return fail("poll");
		for (unsigned n = 0; n < count; n++) {
			int error = 0;
			socklen_t len = sizeof(error);
			if (!polls[n].revents || !polls[n].events)
				continue;
			getsockopt(polls[n].fd, SOL_SOCKET, SO_ERROR, &error, &len);
			errno = error;
			if (error)
				return fail("a connection was not made");
			polls[n].events = 0;
			open++;
		}
	}
	return 0;
}

/* Sends and receives what is possible now; negative if something was wrong. */
static int exchange(unsigned n, size_t bytes)
{
	struct connection *c = &connection[n];
	uint8_t buf[SMALL];

	if (polls[n].revents & POLLOUT) {
		size_t part = bytes - c->sent < SMALL ? bytes - c->sent : SMALL;
		for (size_t i = 0; i < part; i++)
			buf[i] = pattern(n, c->sent + i);
		ssize_t r = send(polls[n].fd, buf, part, MSG_NOSIGNAL);
		if (r < 0 && errno != EAGAIN)
			return -1;
		c->sent += r > 0 ? (size_t)r : 0;
	}
	if (polls[n].revents & (POLLIN | POLLHUP | POLLERR)) {
		ssize_t r = recv(polls[n].fd, buf, sizeof(buf), 0);
		if (r == 0)
			errno = EPIPE;
		if (r <= 0)
			return r < 0 && errno == EAGAIN ? 0 : -1;
		for (ssize_t i = 0; i < r; i++) {
			errno = EILSEQ;
			if (c->received >= bytes || buf[i] != pattern(n, c->received++))
				return -1;
		}
	}
	polls[n].events =
		(short)((c->sent < bytes ? POLLOUT : 0) | (c->received < bytes ? POLLIN : 0));
	return 0;
}

static int parallel(const struct sockaddr_in *to, unsigned count, size_t bytes)
{
	unsigned left = count;

	if (count > CONNECTIONS_MAX || open_all(to, count))
		return 1;
	for (unsigned n = 0; n < count; n++)
		polls[n].events = POLLIN | POLLOUT;
	while (left) {
		if (poll(polls, count, -1) < 0)
			return fail("poll");
		for (unsigned n = 0; n < count; n++) {
			if (polls[n].fd < 0 || !polls[n].revents)
				continue;
			if (exchange(n, bytes) < 0)
				return fail("a connection's data");
			if (!polls[n].events) {
				/* Stays open until all are through; poll() passes over it. */
				polls[n].fd = -polls[n].fd - 1;
				left--;
			}
		}
	}
	printf("ok %u connections, %zu bytes each\n", count, bytes);
	return 0;
}

static void serve_one(unsigned n)
{
	struct connection *c = &connection[n];
	ssize_t r;

	if (polls[n].revents & POLLOUT) {
		r = send(polls[n].fd, c->waiting, c->wait_len, MSG_NOSIGNAL);
		if (r < 0 && errno != EAGAIN)
			goto close;
		r = r > 0 ? r : 0;
		memmove(c->waiting, c->waiting + r, c->wait_len - (size_t)r);
		c->wait_len -= (size_t)r;
	} else {
		r = recv(polls[n].fd, c->waiting, sizeof(c->waiting), 0);
		if (r == 0 || (r < 0 && errno != EAGAIN))
			goto close;
		c->wait_len = r > 0 ? (size_t)r : 0;
	}
	polls[n].events = c->wait_len ? POLLOUT : POLLIN;
	return;
close:
	close(polls[n].fd);
	polls[n].fd = -1;
}

static int echo(const char *port)
{
	struct sockaddr_in at = address(NULL, port);
	int one = 1, server = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(server, (const struct sockaddr *)&at, sizeof(at)) < 0 || listen(server, 4096) < 0)
		return fail("listen");
	for (unsigned n = 0; n < CONNECTIONS_MAX; n++)
		polls[n].fd = -1;
	polls[CONNECTIONS_MAX] = (struct pollfd){.fd = server, .events = POLLIN};
	for (;;) {
		if (poll(polls, CONNECTIONS_MAX + 1, -1) < 0)
			return fail("poll");
		for (unsigned n = 0; n < CONNECTIONS_MAX; n++)
			if (polls[n].fd >= 0 && polls[n].revents)
				serve_one(n);
		if (!polls[CONNECTIONS_MAX].revents)
			continue;
		int fd = accept4(server, NULL, NULL, SOCK_NONBLOCK);
		unsigned n = 0;
		while (n < CONNECTIONS_MAX && polls[n].fd >= 0)
			n++;
		if (fd < 0 || n == CONNECTIONS_MAX)
			return fail("accept");
		connection[n].wait_len = 0;
		polls[n] = (struct pollfd){.fd = fd, .events = POLLIN};
	}
}

static int stream(const struct sockaddr_in *to, size_t mib)
{
	static uint8_t buf[PIECE];
	size_t left = mib * MIB, total = 0;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	ssize_t r;

	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) < 0)
		return fail("connect");
	for (; left; left -= (size_t)r, total += (size_t)r)
		if ((r = send(fd, buf, left < PIECE ? left : PIECE, MSG_NOSIGNAL)) < 0)
			return fail("send");
	if (mib)
		shutdown(fd, SHUT_WR);
	while ((r = recv(fd, buf, PIECE, 0)) > 0)
		total += (size_t)r;
	if (r < 0)
		return fail("receive");
	printf("ok %zu bytes\n", total);
	return 0;
}

int main(int argc, char **argv)
{
	struct rlimit files = {CONNECTIONS_MAX + 64, CONNECTIONS_MAX + 64};
	const char *what = argc > 1 ? argv[1] : "";

	setrlimit(RLIMIT_NOFILE, &files);
	if (argc == 3 && !strcmp(what, "echo"))
		return echo(argv[2]);
	struct sockaddr_in to = argc > 3 ? address(argv[2], argv[3]) : (struct sockaddr_in){0};
	if (argc == 6 && !strcmp(what, "parallel"))
		return parallel(&to, (unsigned)atoi(argv[4]), (size_t)atoi(argv[5]));
	if (argc == 5 && !strcmp(what, "send"))
		return stream(&to, (size_t)atoi(argv[4]));
	if (argc == 4 && !strcmp(what, "receive"))
		return stream(&to, 0);
	fprintf(stderr, "usage: netload parallel|echo|send|receive ...\n");
	return 2;
}
