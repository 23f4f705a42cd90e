/* SPDX-License-Identifier: MIT */
/*
 * Chardevs on sockets: unix:PATH and tcp:HOST:PORT, as client or as server.
 *
 * A server takes one peer at a time; others wait in the listen queue. With wait=on, the default,
 * the program waits for the first peer before it goes on. A client connects at once or fails,
 * except with reconnect=SECONDS, which keeps trying. telnet=on offers character mode to the peer
 * and filters its negotiation (RFC 854, 857, 858) out of the data.
 */
#include "core/chardev_internal.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	IAC = 255,
	TEL_DONT = 254,
	TEL_WILL = 251,
	TEL_SB = 250,
	TEL_BREAK = 243,
	TEL_SE = 240,
	TEL_BINARY = 0,
	TEL_ECHO = 1,
	TEL_SGA = 3,
};

enum telnet_state { TN_DATA, TN_IAC, TN_OPTION, TN_SUB, TN_SUB_IAC };

struct sock {
	char *name; /* "unix:PATH" or "tcp:HOST:PORT", with ",server=on" */
	char *path; /* to unlink */
	struct sockaddr_storage addr;
	socklen_t addr_len;
	bool server, nodelay, telnet;
	uint8_t telnet_state; /* enum telnet_state */
	uint64_t reconnect_s;
	int listen_fd, fd, timer_fd;
	struct loop_fd *listen_watch, *connect_watch, *timer_watch;
};

static void describe(struct chardev *chr)
{
	struct sock *s = chr->data;
	chardev_set_description(chr, "%s%s", chr->connected ? "" : "disconnected:", s->name);
}

static void established(struct chardev *chr, int fd)
{
	struct sock *s = chr->data;
	int one = 1;

	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	if (s->nodelay)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	s->fd = fd;
	s->telnet_state = TN_DATA;
	if (s->listen_watch)
		loop_fd_set_events(s->listen_watch, 0);
	chardev_connect(chr, fd, fd);
	if (s->telnet) {
		static const uint8_t hello[] = {IAC,        TEL_WILL, TEL_ECHO, IAC,
						TEL_WILL,   TEL_SGA,  IAC,      TEL_WILL,
						TEL_BINARY, IAC,      253,      TEL_BINARY};
		chardev_write(chr, hello, sizeof(hello));
	}
	describe(chr);
}

/* ---- telnet ---- */

static size_t telnet_filter(struct chardev *chr, uint8_t *buf, size_t len)
{
	struct sock *s = chr->data;
	size_t kept = 0;

	if (!s->telnet)
		return len;
	for (size_t i = 0; i < len; i++) {
		uint8_t c = buf[i];
		switch (s->telnet_state) {
		case TN_IAC:
			s->telnet_state = TN_DATA;
			if (c == IAC)
				buf[kept++] = c;
			else if (c >= TEL_WILL && c <= TEL_DONT)
				s->telnet_state = TN_OPTION;
			else if (c == TEL_SB)
				s->telnet_state = TN_SUB;
			else if (c == TEL_BREAK && chr->attached && chr->fe.send_break)
				chr->fe.send_break(chr->fe.opaque);
			break;
		case TN_OPTION: s->telnet_state = TN_DATA; break;
		case TN_SUB:
			if (c == IAC)
				s->telnet_state = TN_SUB_IAC;
			break;
		case TN_SUB_IAC: s->telnet_state = c == TEL_SE ? TN_DATA : TN_SUB; break;
		default:
			if (c == IAC)
				s->telnet_state = TN_IAC;
			else if (c != 0) /* the NUL behind a carriage return */
				buf[kept++] = c;
		}
	}
	return kept;
}

/* ---- server ---- */

static void on_listen(void *opaque, unsigned events)
{
	struct chardev *chr = opaque;
	struct sock *s = chr->data;

	if (chr->connected)
		return;
	int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd >= 0)
		established(chr, fd);
}

/* A server's path is unlinked when minivm ends, wherever its working directory is then. */
static char *absolute(const char *path)
{
	char *dir = *path == '/' ? NULL : getcwd(NULL, 0);
	char *full = dir ? xasprintf("%s/%s", dir, path) : xstrdup(path);

	free(dir);
	return full;
}

/* Removes what a program that ended left behind; never a file that is no socket. */
static void unlink_socket(const char *path)
{
	struct stat st;

	if (!lstat(path, &st) && S_ISSOCK(st.st_mode))
		unlink(path);
}

/*
 * Waits for the first peer. The signals that end minivm are blocked in all its threads, for the
 * event loop to read; nobody runs that yet, so they are looked for here.
 */
static int wait_for_peer(struct sock *s, struct error *err)
{
	sigset_t set;
	int fd = -1;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	int signals = signalfd(-1, &set, SFD_CLOEXEC);
	struct pollfd p[] = {{.fd = s->listen_fd, .events = POLLIN},
			     {.fd = signals, .events = POLLIN}};
	while (fd < 0) {
		if (poll(p, signals < 0 ? 1 : 2, -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents) {
			close(signals);
			return error_set(err, EINTR, "a signal ended the wait for a connection");
		}
		if (p[0].revents)
			fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0 && errno != EINTR && errno != EAGAIN && errno != ECONNABORTED)
			break;
	}
	int code = errno;
	if (signals >= 0)
		close(signals);
	return fd < 0 ? error_errno(err, code, "cannot accept on '%s'", s->name) : fd;
}

static int start_server(struct chardev *chr, bool wait, struct error *err)
{
	struct sock *s = chr->data;
	int one = 1;

	s->listen_fd = socket(s->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s->listen_fd < 0)
		return error_errno(err, errno, "cannot make a socket for '%s'", s->name);
	if (s->path)
		unlink_socket(s->path);
	else
		setsockopt(s->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(s->listen_fd, (struct sockaddr *)&s->addr, s->addr_len) ||
	    listen(s->listen_fd, 8)) {
		int code = errno;
		free(s->path);
		s->path = NULL; /* not ours to unlink */
		return error_errno(err, code, "cannot listen on '%s'", s->name);
	}
	if (wait) {
		report("waiting for a connection on '%s'", s->name);
		int fd = wait_for_peer(s, err);
		if (fd < 0)
			return fd;
		established(chr, fd);
	}
	fcntl(s->listen_fd, F_SETFL, fcntl(s->listen_fd, F_GETFL) | O_NONBLOCK);
	s->listen_watch = loop_fd_new(chr->loop, s->listen_fd, chr->connected ? 0 : LOOP_READ,
				      on_listen, chr, err);
	return s->listen_watch ? 0 : -EIO;
}

/* ---- client ---- */

static void retry_later(struct chardev *chr);

/* The end of a connect() in progress. */
static void on_connect(void *opaque, unsigned events)
{
	struct chardev *chr = opaque;
	struct sock *s = chr->data;
	int code = 0, fd = s->fd;
	socklen_t len = sizeof(code);

	loop_fd_free(s->connect_watch);
	s->connect_watch = NULL;
	s->fd = -1;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len);
	if (code) {
		close(fd);
		retry_later(chr);
	} else {
		established(chr, fd);
	}
}

static int start_connect(struct chardev *chr, struct error *err)
{
	struct sock *s = chr->data;
	int fd = socket(s->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int code = errno;

	if (fd < 0)
		return error_errno(err, code, "cannot make a socket for '%s'", s->name);
	if (!connect(fd, (struct sockaddr *)&s->addr, s->addr_len)) {
		established(chr, fd);
		return 0;
	}
	code = errno;
	if (code != EINPROGRESS) {
		close(fd);
		return error_errno(err, code, "cannot connect to '%s'", s->name);
	}
	s->fd = fd;
	if (s->reconnect_s) {
		s->connect_watch = loop_fd_new(chr->loop, fd, LOOP_WRITE, on_connect, chr, err);
		return s->connect_watch ? 0 : -EIO;
	}
	/* Without reconnect the user wants to know now. */
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	socklen_t len = sizeof(code);
	while (poll(&p, 1, -1) < 0 && errno == EINTR)
		;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len);
	s->fd = -1;
	if (code) {
		close(fd);
		return error_errno(err, code, "cannot connect to '%s'", s->name);
	}
	established(chr, fd);
	return 0;
}

static void on_timer(void *opaque, unsigned events)
{
	struct chardev *chr = opaque;
	struct sock *s = chr->data;

	loop_fd_free(s->timer_watch);
	s->timer_watch = NULL;
	close(s->timer_fd);
	s->timer_fd = -1;
	if (start_connect(chr, NULL))
		retry_later(chr);
}

static void retry_later(struct chardev *chr)
{
	struct sock *s = chr->data;
	struct itimerspec when = {.it_value.tv_sec = (time_t)s->reconnect_s};

	s->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (s->timer_fd < 0)
		return;
	timerfd_settime(s->timer_fd, 0, &when, NULL);
	s->timer_watch = loop_fd_new(chr->loop, s->timer_fd, LOOP_READ, on_timer, chr, NULL);
}

/* ---- life ---- */

static void socket_hangup(struct chardev *chr)
{
	struct sock *s = chr->data;

	close(s->fd);
	s->fd = -1;
	describe(chr);
	if (s->listen_watch)
		loop_fd_set_events(s->listen_watch, LOOP_READ);
	else if (s->reconnect_s)
		retry_later(chr);
}

static void socket_close(struct chardev *chr)
{
	struct sock *s = chr->data;

	loop_fd_free(s->listen_watch);
	loop_fd_free(s->connect_watch);
	loop_fd_free(s->timer_watch);
	if (s->fd >= 0)
		close(s->fd);
	if (s->listen_fd >= 0)
		close(s->listen_fd);
	if (s->timer_fd >= 0)
		close(s->timer_fd);
	if (s->path)
		unlink(s->path);
	free(s->path);
	free(s->name);
	free(s);
}

static const struct chardev_class socket_class = {
	.filter = telnet_filter,
	.hangup = socket_hangup,
	.close = socket_close,
};

static int resolve(struct sock *s, const char *path, const char *host, const char *port,
		   struct error *err)
{
	if (path) {
		struct sockaddr_un *un = (struct sockaddr_un *)&s->addr;
		if (strlen(path) >= sizeof(un->sun_path))
			return error_set(err, ENAMETOOLONG,
					 "socket path '%s' is longer than %zu characters", path,
					 sizeof(un->sun_path) - 1);
		un->sun_family = AF_UNIX;
		strcpy(un->sun_path, path);
		s->addr_len = sizeof(*un);
		return 0;
	}
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = s->server ? AI_PASSIVE : 0},
			*list = NULL;
	/* QEMU's ":PORT" is every address for a server and this host for a client. */
	const char *node = host && *host ? host : s->server ? "0.0.0.0" : "127.0.0.1";
	int ret = getaddrinfo(node, port, &hints, &list);
	if (ret)
		return error_set(err, EINVAL, "cannot find '%s' port '%s': %s", node, port,
				 gai_strerror(ret));
	memcpy(&s->addr, list->ai_addr, list->ai_addrlen);
	s->addr_len = list->ai_addrlen;
	freeaddrinfo(list);
	return 0;
}

struct chardev *chardev_open_socket(struct loop *loop, const char *id, const char *path,
				    const char *host, const char *port, struct opts *opts,
				    bool telnet, struct error *err)
{
	bool server = false, wait = true, nodelay = false;
	uint64_t reconnect = 0;

	if (opts_has(opts, "nowait")) {
		opts_get(opts, "nowait");
		wait = false;
	}
	if (opts_get_bool(opts, "server", &server, err) ||
	    opts_get_bool(opts, "wait", &wait, err) ||
	    opts_get_bool(opts, "nodelay", &nodelay, err) ||
	    opts_get_bool(opts, "telnet", &telnet, err) ||
	    opts_get_u64(opts, "reconnect", &reconnect, err))
		return NULL;
	if (server && reconnect) {
		error_set(err, EINVAL, "reconnect is for clients, not with server=on");
		return NULL;
	}
	struct chardev *chr = chardev_alloc(loop, id, &socket_class);
	struct sock *s = xcalloc(1, sizeof(*s));
	chr->data = s;
	s->listen_fd = s->fd = s->timer_fd = -1;
	s->server = server;
	s->nodelay = nodelay && !path;
	s->telnet = telnet;
	s->reconnect_s = reconnect > 86400 ? 86400 : reconnect;
	s->name = path ? xasprintf("unix:%s%s", path, server ? ",server=on" : "")
		       : xasprintf("%s:%s:%s%s", telnet ? "telnet" : "tcp", host, port,
				   server ? ",server=on" : "");
	int ret = resolve(s, path, host, port, err);
	if (!ret && server && path)
		s->path = absolute(path);
	describe(chr);
	if (!ret)
		ret = server ? start_server(chr, wait, err) : start_connect(chr, err);
	if (ret && !server && reconnect && s->addr_len) {
		retry_later(chr);
		ret = 0;
	}
	if (ret) {
		chardev_free(chr);
		return NULL;
	}
	return chr;
}
