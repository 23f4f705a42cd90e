/* SPDX-License-Identifier: MIT */
/*
 * The socket network: frames to another virtual machine (or a hub program such as vde_plug's) over
 * a stream, or over datagrams.
 *
 *   -netdev socket,listen=[host]:port   one peer at a time; frames with a length in front (frames.h)
 *   -netdev socket,connect=host:port    the other end of it
 *   -netdev socket,mcast=group:port     all who joined the group: a datagram is a frame
 *   -netdev socket,udp=host:port,localaddr=[host]:port
 *   -netdev stream,server=on|off,addr.type=inet|unix,...,reconnect=seconds
 *   -netdev dgram,local.type=,remote.type=inet|unix,...
 *
 * A peer that leaves is no error: the listener waits for the next, and reconnect= tries again. While
 * nobody is there frames are lost, as with a cable that is not plugged in.
 *
 * What a peer sends is untrusted: lengths are bounded in frames.c, and a stream that announces an
 * impossible one is closed.
 */
#include "lib/bytes.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/text.h"
#include "net/frames.h"
#include "net/netdev.h"
#include "net/socket_addr.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FRAMES_A_TURN = 64, CONNECT_MS = 10000, UNSENT_MAX = FRAMES_HEADER + NET_FRAME_MAX };

struct sock {
	struct net *net;
	struct net_port *port;
	const char *model;
	bool stream, server;
	struct socket_addr addr, local; /* peer's or listener's; our own for datagrams */
	int listen_fd, fd;              /* -1: none */
	int send_fd;                    /* datagrams to a group leave by a socket of their own */
	struct socket_addr send_addr;   /* its address: what comes from there is our own echo */
	struct loop_fd *listen_watch, *watch;
	struct timer reconnect;
	uint64_t reconnect_ns; /* 0: never */
	struct frame_reader in;
	bool held;                /* `in` holds a whole frame that the card had no room for */
	size_t held_len;          /* datagrams: its length in in.data */
	size_t unsent, unsent_at; /* the rest of a frame that went out in part */
	uint8_t out[UNSENT_MAX];
	bool wait_write;
	char text[400];
};

static void sock_ready(void *opaque, unsigned events);
static void sock_accept(void *opaque, unsigned events);

static void update_watch(struct sock *s)
{
	unsigned events = (s->held ? 0u : LOOP_READ) | (s->wait_write ? LOOP_WRITE : 0u);
	if (s->fd < 0 || !events) {
		loop_fd_free(s->watch);
		s->watch = NULL;
	} else if (s->watch) {
		loop_fd_set_events(s->watch, events);
	} else {
		s->watch = loop_fd_new(net_loop(s->net), s->fd, events, sock_ready, s, NULL);
	}
}

static void accept_peers(struct sock *s, bool on)
{
	loop_fd_free(s->listen_watch);
	s->listen_watch = NULL;
	if (on && s->listen_fd >= 0)
		s->listen_watch = loop_fd_new(net_loop(s->net), s->listen_fd, LOOP_READ,
					      sock_accept, s, NULL);
}

/* ---- Streams: peers come and go ---- */

static void use_peer(struct sock *s, int fd)
{
	int on = 1;
	if (s->addr.any.sa_family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	s->fd = fd;
	frame_reader_next(&s->in);
	update_watch(s);
	trace(TRACE_NET, "%s: peer connected", s->model);
}

static void drop_peer(struct sock *s)
{
	loop_fd_free(s->watch);
	s->watch = NULL;
	close(s->fd);
	s->fd = -1;
	s->unsent = 0;
	s->held = false;
	s->wait_write = false;
	trace(TRACE_NET, "%s: peer left", s->model);
	net_receive_ready(s->port, 0);
	if (s->server)
		accept_peers(s, true);
	else if (s->reconnect_ns)
		timer_set(&s->reconnect, clock_now(net_clock(s->net)) + s->reconnect_ns);
}

static void sock_accept(void *opaque, unsigned events)
{
	struct sock *s = opaque;
	int fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return;
	accept_peers(s, false);
	use_peer(s, fd);
}

/* -errno; a peer that cannot be reached within ten seconds is not there. */
static int connect_peer(struct sock *s)
{
	int fd = socket(s->addr.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	int code = connect(fd, &s->addr.any, s->addr.len) < 0 ? errno : 0;
	if (code == EINPROGRESS) {
		struct pollfd p = {.fd = fd, .events = POLLOUT};
		socklen_t len = sizeof(code);
		/* A machine that runs already is not held up: its reconnect comes again. */
		if (poll(&p, 1, s->port ? 0 : CONNECT_MS) != 1)
			code = ETIMEDOUT;
		else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) < 0)
			code = errno;
	}
	if (code) {
		close(fd);
		return -code;
	}
	use_peer(s, fd);
	return 0;
}

static void reconnect_due(void *opaque)
{
	struct sock *s = opaque;
	if (s->fd < 0 && connect_peer(s) < 0)
		timer_set(&s->reconnect, clock_now(net_clock(s->net)) + s->reconnect_ns);
}

/* ---- In ---- */

static bool pass_up(struct sock *s)
{
	size_t len = s->held_len;
	const uint8_t *frame = s->in.data;
	if (s->stream)
		frame = frame_reader_frame(&s->in, &len);
	struct iovec iov = {(void *)frame, len};
	s->held = !net_try_send(s->port, 0, &iov, 1);
	if (!s->held)
		frame_reader_next(&s->in);
	return !s->held;
}

/* False when the peer is gone. */
static bool read_stream(struct sock *s)
{
	for (unsigned n = 0; n < 2 * FRAMES_A_TURN && !s->held; n++) {
		uint8_t *at;
		size_t len;
		if (frame_reader_want(&s->in, &at, &len) < 0) {
			warn("%s: the peer sent a frame of impossible length; it is disconnected",
			     s->text);
			return false;
		}
		ssize_t r = recv(s->fd, at, len, 0);
		if (r < 0 && (errno == EAGAIN || errno == EINTR))
			return true;
		if (r <= 0)
			return false;
		if (frame_reader_got(&s->in, (size_t)r))
			pass_up(s);
	}
	return true;
}

static bool is_echo(const struct sock *s, const struct socket_addr *from)
{
	return s->send_addr.len && from->any.sa_family == AF_INET &&
	       from->in.sin_port == s->send_addr.in.sin_port &&
	       from->in.sin_addr.s_addr == s->send_addr.in.sin_addr.s_addr;
}

static void read_datagrams(struct sock *s)
{
	for (unsigned n = 0; n < FRAMES_A_TURN && !s->held; n++) {
		struct socket_addr from;
		from.len = sizeof(from.un);
		ssize_t r =
			recvfrom(s->fd, s->in.data, sizeof(s->in.data), 0, &from.any, &from.len);
		if (r < 0 && errno == EAGAIN)
			return;
		if (r <= 0 || is_echo(s, &from))
			continue; /* an error left by a datagram that nobody took */
		s->held_len = (size_t)r;
		pass_up(s);
	}
}

static void sock_resume(void *opaque, unsigned queue)
{
	struct sock *s = opaque;
	if (s->held && s->fd >= 0)
		pass_up(s);
	update_watch(s);
}

/* ---- Out ---- */

/* False: the rest has to wait. */
static bool flush_unsent(struct sock *s)
{
	while (s->unsent) {
		ssize_t r = send(s->fd, s->out + s->unsent_at, s->unsent, MSG_NOSIGNAL);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return errno != EAGAIN;
		s->unsent -= (size_t)r;
		s->unsent_at += (size_t)r;
	}
	return true;
}

static void sock_ready(void *opaque, unsigned events)
{
	struct sock *s = opaque;
	bool alive = true;
	if ((events & LOOP_WRITE) && flush_unsent(s)) {
		s->wait_write = false;
		net_receive_ready(s->port, 0);
	}
	if (s->stream && (events & (LOOP_READ | LOOP_ERROR)))
		alive = read_stream(s) && (!(events & LOOP_ERROR) || (events & LOOP_READ));
	else if (events & (LOOP_READ | LOOP_ERROR))
		read_datagrams(s);
	if (!alive)
		drop_peer(s);
	else
		update_watch(s);
}

static bool wait_for_room(struct sock *s)
{
	s->wait_write = true;
	update_watch(s);
	return false;
}

static bool send_stream(struct sock *s, const struct iovec *iov, int count, size_t len)
{
	if (s->unsent)
		return false;
	store_be32(s->out, (uint32_t)len);
	net_iov_copy(s->out + FRAMES_HEADER, len, iov, count, 0);
	s->unsent = FRAMES_HEADER + len;
	s->unsent_at = 0;
	/* The frame is ours now; only the next has to wait. */
	if (!flush_unsent(s))
		wait_for_room(s);
	return true;
}

static bool send_datagram(struct sock *s, const struct iovec *iov, int count)
{
	struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count};
	ssize_t r;
	if (s->addr.len) {
		message.msg_name = &s->addr.any;
		message.msg_namelen = s->addr.len;
	}
	do
		r = sendmsg(s->send_fd >= 0 ? s->send_fd : s->fd, &message, MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	if (r < 0 && errno == EAGAIN && s->send_fd < 0)
		return wait_for_room(s);
	return true; /* whoever is not there does not get it */
}

static bool sock_receive(void *opaque, unsigned queue, const struct iovec *iov, int count,
			 size_t len)
{
	struct sock *s = opaque;
	if (s->fd < 0)
		return true;
	return s->stream ? send_stream(s, iov, count, len) : send_datagram(s, iov, count);
}

static void sock_describe(void *opaque, struct strbuf *out)
{
	struct sock *s = opaque;
	strbuf_printf(out, "type=%s,%s%s", s->model, s->text,
		      s->stream ? s->fd >= 0 ? " (connected)" : " (no peer)" : "");
}

static void sock_free(void *opaque)
{
	struct sock *s = opaque;
	timer_cancel(&s->reconnect);
	accept_peers(s, false);
	loop_fd_free(s->watch);
	if (s->listen_fd >= 0 && s->addr.any.sa_family == AF_UNIX)
		unlink(s->addr.un.sun_path);
	if (!s->stream && s->fd >= 0 && s->local.len && s->local.any.sa_family == AF_UNIX)
		unlink(s->local.un.sun_path);
	if (s->listen_fd >= 0)
		close(s->listen_fd);
	if (s->fd >= 0)
		close(s->fd);
	if (s->send_fd >= 0)
		close(s->send_fd);
	free(s);
}

static const struct net_port_ops sock_ops = {
	.receive = sock_receive,
	.resume = sock_resume,
	.describe = sock_describe,
	.free = sock_free,
};

/* ---- Making one ---- */

static struct sock *sock_new(const struct netdev_env *env, const char *model)
{
	struct sock *s = xcalloc(1, sizeof(*s));
	s->net = env->net;
	s->model = model;
	s->listen_fd = s->fd = s->send_fd = -1;
	timer_init(&s->reconnect, net_clock(s->net), reconnect_due, s);
	return s;
}

static struct net_port *finish(struct sock *s, int r, const char *id, struct error *err)
{
	if (r == 0)
		s->port = net_port_new(s->net, NET_BACKEND, id, s->model, 1, &sock_ops, s, err);
	if (!s->port) {
		sock_free(s);
		return NULL;
	}
	update_watch(s);
	return s->port;
}

static int start_stream(struct sock *s, struct error *err)
{
	char text[160];
	int r;
	s->stream = true;
	if (s->server) {
		r = socket_addr_bind(&s->addr, SOCK_STREAM, err);
		if (r < 0)
			return r;
		s->listen_fd = r;
		accept_peers(s, true);
		return 0;
	}
	r = connect_peer(s);
	if (r < 0 && !s->reconnect_ns)
		return error_errno(err, -r, "cannot connect to '%s'",
				   socket_addr_text(&s->addr, text));
	if (r < 0)
		timer_set(&s->reconnect, clock_now(net_clock(s->net)) + s->reconnect_ns);
	return 0;
}

static int start_datagrams(struct sock *s, struct error *err)
{
	char text[160];
	if (s->local.len) {
		int fd = socket_addr_bind(&s->local, SOCK_DGRAM, err);
		if (fd < 0)
			return fd;
		s->fd = fd;
		return 0;
	}
	s->fd = socket(s->addr.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0)
		return error_errno(err, errno, "cannot make a socket for '%s'",
				   socket_addr_text(&s->addr, text));
	return 0;
}

/* All members of the group on this host share the port. What we send comes back to us by the group,
 * too; it is known by the address it was sent from. */
static int start_group(struct sock *s, const struct socket_addr *local, struct error *err)
{
	struct ip_mreq join = {.imr_multiaddr = s->addr.in.sin_addr};
	int on = 1;
	unsigned char loop = 1;
	char text[160];
	socket_addr_text(&s->addr, text);
	if (s->addr.any.sa_family != AF_INET || !IN_MULTICAST(ntohl(s->addr.in.sin_addr.s_addr)))
		return error_set(err, EINVAL,
				 "mcast=%s is no multicast address; it must lie in 224.0.0.0/4",
				 text);
	if (local->len)
		join.imr_interface = local->in.sin_addr;
	s->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	s->send_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0 || s->send_fd < 0 ||
	    setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(s->fd, &s->addr.any, s->addr.len) < 0 ||
	    setsockopt(s->fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &join, sizeof(join)) < 0 ||
	    setsockopt(s->send_fd, IPPROTO_IP, IP_MULTICAST_LOOP, &loop, sizeof(loop)) < 0)
		return error_errno(err, errno, "cannot join the group '%s'", text);
	if (local->len && setsockopt(s->send_fd, IPPROTO_IP, IP_MULTICAST_IF, &local->in.sin_addr,
				     sizeof(local->in.sin_addr)) < 0)
		return error_errno(err, errno, "cannot send to '%s' from the given localaddr",
				   text);
	/* connect() chooses the address that the frames will carry. */
	if (connect(s->send_fd, &s->addr.any, s->addr.len) < 0)
		return error_errno(err, errno, "cannot send to the group '%s'", text);
	s->send_addr.len = sizeof(s->send_addr.in);
	if (getsockname(s->send_fd, &s->send_addr.any, &s->send_addr.len) < 0)
		return error_errno(err, errno, "mcast=%s", text);
	s->addr.len = 0; /* connected: sendmsg() takes no address */
	return 0;
}

static int parse_fd(struct sock *s, const char *key, const char *text, struct error *err)
{
	uint64_t fd;
	int type = 0, r = parse_u64(text, key, 0, INT32_MAX, &fd, err);
	socklen_t len = sizeof(type);
	if (r < 0)
		return r;
	if (getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return error_errno(err, errno, "%s=%s is no socket", key, text);
	int flags = fcntl((int)fd, F_GETFL);
	if (flags < 0 || fcntl((int)fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
	    fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0)
		return error_errno(err, errno, "%s=%s", key, text);
	s->stream = type == SOCK_STREAM;
	s->fd = (int)fd;
	return 0;
}

/* PREFIX.type=fd,PREFIX.str=N: a socket that somebody else made; with `listening` one that peers come
 * to. 1, 0 if the type is another one, or -errno. */
static int socket_from_opts(struct sock *s, struct opts *opts, const char *prefix, bool stream,
			    bool listening, struct error *err)
{
	char type_key[32], key[32];
	int accepts = 0;
	socklen_t len = sizeof(accepts);
	snprintf(type_key, sizeof(type_key), "%s.type", prefix);
	snprintf(key, sizeof(key), "%s.str", prefix);
	const char *type = opts_get(opts, type_key);
	if (!type || strcmp(type, "fd") != 0)
		return 0;
	const char *text = opts_get(opts, key);
	if (!text)
		return error_set(err, EINVAL, "%s=fd needs %s= with the number of a socket",
				 type_key, key);
	int r = parse_fd(s, key, text, err);
	if (r < 0)
		return r;
	if (s->stream != stream)
		return error_set(err, EINVAL, "%s=%s must be a %s socket", key, text,
				 stream ? "stream" : "datagram");
	getsockopt(s->fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &len);
	if (stream && !!accepts != listening)
		return error_set(err, EINVAL, "%s=%s must be a %s socket", key, text,
				 listening ? "listening" : "connected");
	if (listening) {
		s->listen_fd = s->fd;
		s->fd = -1;
	}
	snprintf(s->text, sizeof(s->text), "fd=%s", text);
	return 1;
}

static struct net_port *socket_open(const struct netdev_env *env, const char *id, struct opts *opts,
				    struct error *err)
{
	struct sock *s = sock_new(env, "socket");
	const char *listen_at = opts_get(opts, "listen"), *peer = opts_get(opts, "connect");
	const char *group = opts_get(opts, "mcast"), *udp = opts_get(opts, "udp");
	const char *fd = opts_get(opts, "fd"), *localaddr = opts_get(opts, "localaddr");
	struct socket_addr local = {.len = 0};
	int ways = !!listen_at + !!peer + !!group + !!udp + !!fd;
	int r = 0;
	if (ways != 1)
		r = error_set(err, EINVAL,
			      "exactly one of listen=, connect=, mcast=, udp= and fd= is needed");
	else if (localaddr && !group && !udp)
		r = error_set(err, EINVAL, "'localaddr' goes with mcast= and udp= only");
	else if (udp && !localaddr)
		r = error_set(err, EINVAL, "udp= needs localaddr=[host]:port");
	if (r < 0)
		return finish(s, r, id, err);
	const char *address = listen_at ? listen_at : peer ? peer : group ? group : udp;
	s->server = listen_at != NULL;
	if (fd)
		r = parse_fd(s, "fd", fd, err);
	else
		r = socket_addr_parse(address, listen_at || peer ? SOCK_STREAM : SOCK_DGRAM,
				      s->server, &s->addr, err);
	if (r == 0 && localaddr && udp)
		r = socket_addr_parse(localaddr, SOCK_DGRAM, true, &s->local, err);
	if (r == 0 && localaddr && group) {
		/* An interface's address; QEMU takes it without a port. */
		char *with_port = xasprintf("%s:0", localaddr);
		r = socket_addr_parse(with_port, SOCK_DGRAM, true, &local, err);
		free(with_port);
		if (r == 0 && local.any.sa_family != AF_INET)
			r = error_set(err, EINVAL, "'localaddr' must be an IPv4 address");
	}
	snprintf(s->text, sizeof(s->text), "%s=%s",
		 listen_at ? "listen"
		 : peer    ? "connect"
		 : group   ? "mcast"
		 : udp     ? "udp"
			   : "fd",
		 fd ? fd : address);
	if (r == 0 && (listen_at || peer))
		r = start_stream(s, err);
	else if (r == 0 && group)
		r = start_group(s, &local, err);
	else if (r == 0 && udp)
		r = start_datagrams(s, err);
	return finish(s, r, id, err);
}

static struct net_port *stream_open(const struct netdev_env *env, const char *id, struct opts *opts,
				    struct error *err)
{
	struct sock *s = sock_new(env, "stream");
	uint64_t seconds = 0;
	char text[160];
	int r = opts_get_bool(opts, "server", &s->server, err);
	if (r == 0)
		r = opts_get_u64(opts, "reconnect", &seconds, err);
	if (r == 0 && (seconds > 3600 || (seconds && s->server)))
		r = error_set(err, EINVAL, "'reconnect' is for server=off, in seconds up to 3600");
	if (r == 0)
		r = socket_from_opts(s, opts, "addr", true, s->server, err);
	if (r > 0) {
		if (s->server)
			accept_peers(s, true);
		return finish(s, 0, id, err);
	}
	if (r == 0)
		r = socket_addr_from_opts(opts, "addr", SOCK_STREAM, s->server, &s->addr, err);
	if (r == -ENOENT && !err->code)
		r = error_set(err, EINVAL, "it needs addr.type=inet, unix or fd");
	s->reconnect_ns = seconds * NS_PER_SEC;
	if (r == 0) {
		snprintf(s->text, sizeof(s->text), "server=%s,addr=%s", s->server ? "on" : "off",
			 socket_addr_text(&s->addr, text));
		r = start_stream(s, err);
	}
	return finish(s, r, id, err);
}

static struct net_port *dgram_open(const struct netdev_env *env, const char *id, struct opts *opts,
				   struct error *err)
{
	struct sock *s = sock_new(env, "dgram");
	struct socket_addr none = {.len = 0};
	char local[160] = "", remote[160] = "";
	int r = socket_from_opts(s, opts, "local", false, false, err);
	if (r > 0)
		return finish(s, 0, id, err);
	if (r == 0)
		r = socket_addr_from_opts(opts, "local", SOCK_DGRAM, true, &s->local, err);
	bool has_local = r == 0;
	if (r == 0 || (r == -ENOENT && !err->code))
		r = socket_addr_from_opts(opts, "remote", SOCK_DGRAM, false, &s->addr, err);
	bool has_remote = r == 0;
	if (r == -ENOENT && !err->code)
		r = error_set(err, EINVAL, "it needs remote.type=inet or remote.type=unix");
	bool group = has_remote && s->addr.any.sa_family == AF_INET &&
		     IN_MULTICAST(ntohl(s->addr.in.sin_addr.s_addr));
	if (r == 0 && !group && !has_local)
		r = error_set(err, EINVAL, "it needs local.type= with the address to receive at");
	if (r == 0 && has_local && s->local.any.sa_family != s->addr.any.sa_family)
		r = error_set(err, EINVAL, "local.type and remote.type must be the same");
	if (r == 0) {
		if (has_local)
			socket_addr_text(&s->local, local);
		snprintf(s->text, sizeof(s->text), "local=%s,remote=%s", local,
			 socket_addr_text(&s->addr, remote));
		r = group ? start_group(s, has_local ? &s->local : &none, err)
			  : start_datagrams(s, err);
	}
	return finish(s, r, id, err);
}

const struct netdev_type netdev_socket = {
	.name = "socket",
	.help = "listen=[host]:port | connect=host:port | mcast=group:port[,localaddr=] | "
		"udp=host:port,localaddr= | fd=",
	.properties =
		(const char *const[]){"listen", "connect", "mcast", "udp", "localaddr", "fd", NULL},
	.open = socket_open,
};

const struct netdev_type netdev_stream = {
	.name = "stream",
	.help = "server=on|off,addr.type=inet,addr.host=,addr.port= | "
		"addr.type=unix,addr.path=[,reconnect=seconds] | addr.type=fd,addr.str=N",
	.properties = (const char *const[]){"server", "reconnect", "addr.type", "addr.host",
					    "addr.port", "addr.path", "addr.str", NULL},
	.open = stream_open,
};

const struct netdev_type netdev_dgram = {
	.name = "dgram",
	.help = "local.type=inet|unix,local.host=,local.port=|local.path=,remote.type=,... | "
		"local.type=fd,local.str=N",
	.properties = (const char *const[]){"local.type", "local.host", "local.port", "local.path",
					    "local.str", "remote.type", "remote.host",
					    "remote.port", "remote.path", NULL},
	.open = dgram_open,
};
