/* SPDX-License-Identifier: MIT */
/*
 * The user network: libslirp, a TCP/IP stack in this process that plays the other hosts of a small
 * network (gateway, name server, DHCP, TFTP) and turns the guest's connections into sockets of
 * its own. It needs no privileges.
 *
 * libslirp wants to be polled: it says which descriptors it waits for, and later takes what poll()
 * found. Here each is watched by the event loop; what happened is gathered and handed over once
 * a turn (user_turn()), after which the wanted events are asked for anew. Descriptors come and go
 * with register_poll_fd() and unregister_poll_fd(), so that a number that is used again is never
 * taken for its predecessor.
 *
 * libslirp's own timers run by the virtual clock: a stopped machine finds its connections as it
 * left them.
 *
 * Documents: libslirp.h (4.7). Left out: smb= (it starts a Samba server), the emulation of old
 * protocols.
 */
#include "lib/text.h"
#include "net/netdev.h"
#include <errno.h>

#ifdef HAVE_SLIRP
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "net/user_internal.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { MS = 1000000 };

/* ---- Descriptors ---- */

static struct user_fd *fd_entry(struct user *u, int fd)
{
	if (fd < 0)
		return NULL;
	if ((size_t)fd >= u->fd_count) {
		size_t count = (size_t)fd + 64;
		u->fds = xrealloc(u->fds, count * sizeof(*u->fds));
		memset(u->fds + u->fd_count, 0, (count - u->fd_count) * sizeof(*u->fds));
		u->fd_count = count;
	}
	if (!u->fds[fd]) {
		u->fds[fd] = xcalloc(1, sizeof(*u->fds[fd]));
		u->fds[fd]->user = u;
		u->fds[fd]->fd = fd;
	}
	return u->fds[fd];
}

static void schedule_turn(struct user *u)
{
	loop_call_schedule(net_loop(u->net), &u->turn);
}

static void fd_ready(void *opaque, unsigned events)
{
	struct user_fd *f = opaque;
	if (events & LOOP_READ)
		f->ready |= SLIRP_POLL_IN;
	if (events & LOOP_WRITE)
		f->ready |= SLIRP_POLL_OUT;
	if (events & LOOP_ERROR)
		f->ready |= SLIRP_POLL_ERR | SLIRP_POLL_HUP | (f->wanted & SLIRP_POLL_IN);
	schedule_turn(f->user);
}

static void register_fd(int fd, void *opaque)
{
	struct user_fd *f = fd_entry(opaque, fd);
	if (f)
		f->wanted = f->ready = 0;
}

static void unregister_fd(int fd, void *opaque)
{
	struct user *u = opaque;
	if (fd < 0 || (size_t)fd >= u->fd_count || !u->fds[fd])
		return;
	loop_fd_free(u->fds[fd]->watch);
	free(u->fds[fd]);
	u->fds[fd] = NULL;
}

/* From slirp_pollfds_fill(): the index is the descriptor. */
static int add_poll(int fd, int events, void *opaque)
{
	struct user_fd *f = fd_entry(opaque, fd);
	if (!f)
		return -1;
	f->wanted = (unsigned)events;
	f->asked = true;
	return fd;
}

static int get_ready(int index, void *opaque)
{
	struct user *u = opaque;
	if (index < 0 || (size_t)index >= u->fd_count || !u->fds[index])
		return 0;
	int ready = (int)(u->fds[index]->ready &
			  (u->fds[index]->wanted | SLIRP_POLL_ERR | SLIRP_POLL_HUP));
	u->fds[index]->ready = 0;
	return ready;
}

/* libslirp's listening sockets have room for one connection that was not accepted yet; more that come
 * at once would be reset by the kernel. */
static void widen_backlog(int fd)
{
	int listening = 0;
	socklen_t len = sizeof(listening);
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && listening)
		listen(fd, SOMAXCONN);
}

static void watch(struct user_fd *f)
{
	unsigned events = 0;
	if (f->wanted & SLIRP_POLL_IN)
		events |= LOOP_READ;
	if (f->wanted & SLIRP_POLL_OUT)
		events |= LOOP_WRITE;
	if (!f->asked || !events) {
		loop_fd_free(f->watch);
		f->watch = NULL;
	} else if (f->watch) {
		loop_fd_set_events(f->watch, events);
	} else {
		widen_backlog(f->fd);
		f->watch = loop_fd_new(net_loop(f->user->net), f->fd, events, fd_ready, f, NULL);
	}
}

static void ask_again(struct user *u)
{
	uint32_t timeout = UINT32_MAX;
	for (size_t n = 0; n < u->fd_count; n++)
		if (u->fds[n])
			u->fds[n]->asked = false;
	slirp_pollfds_fill(u->slirp, &timeout, add_poll, u);
	for (size_t n = 0; n < u->fd_count; n++)
		if (u->fds[n])
			watch(u->fds[n]);
	if (timeout == UINT32_MAX)
		timer_cancel(&u->timeout);
	else
		timer_set(&u->timeout, clock_now(net_clock(u->net)) + (uint64_t)timeout * MS);
}

static void user_turn(void *opaque)
{
	struct user *u = opaque;
	slirp_pollfds_poll(u->slirp, 0, get_ready, u);
	user_streams_poll(u);
	ask_again(u);
}

/* ---- What libslirp calls ---- */

static ssize_t send_packet(const void *buf, size_t len, void *opaque)
{
	struct user *u = opaque;
	if (u->port)
		net_send_buf(u->port, 0, buf, len);
	return (ssize_t)len;
}

static void guest_error(const char *message, void *opaque)
{
	trace(TRACE_NET, "user network: the guest: %s", message);
}

static int64_t clock_get_ns(void *opaque)
{
	struct user *u = opaque;
	return (int64_t)clock_now(net_clock(u->net));
}

struct slirp_timer {
	struct timer timer;
};

static void *timer_new(SlirpTimerCb fn, void *fn_opaque, void *opaque)
{
	struct user *u = opaque;
	struct slirp_timer *t = xcalloc(1, sizeof(*t));
	timer_init(&t->timer, net_clock(u->net), fn, fn_opaque);
	return t;
}

static void timer_free(void *timer, void *opaque)
{
	struct slirp_timer *t = timer;
	if (t)
		timer_cancel(&t->timer);
	free(t);
}

static void timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	struct slirp_timer *t = timer;
	timer_set(&t->timer, expire_ms > 0 ? (uint64_t)expire_ms * MS : 0);
}

static void notify(void *opaque)
{
	schedule_turn(opaque);
}

static const SlirpCb callbacks = {
	.send_packet = send_packet,
	.guest_error = guest_error,
	.clock_get_ns = clock_get_ns,
	.timer_new = timer_new,
	.timer_free = timer_free,
	.timer_mod = timer_mod,
	.register_poll_fd = register_fd,
	.unregister_poll_fd = unregister_fd,
	.notify = notify,
};

/* ---- The port ---- */

static bool user_receive(void *opaque, unsigned queue, const struct iovec *iov, int count,
			 size_t len)
{
	struct user *u = opaque;
	/* A copy: it may be changed here, and the guest's memory may change at any time. */
	if (len <= sizeof(u->frame)) {
		net_iov_copy(u->frame, len, iov, count, 0);
		size_t mss = user_repeated_mss(&u->syns, u->frame, len);
		if (mss)
			user_erase_mss(u->frame, mss);
		slirp_input(u->slirp, u->frame, (int)len);
	}
	schedule_turn(u);
	return true;
}

static void user_describe(void *opaque, struct strbuf *out)
{
	const struct user *u = opaque;
	char net[INET_ADDRSTRLEN];
	inet_ntop(AF_INET, &u->net4, net, sizeof(net));
	strbuf_printf(out, "type=user,net=%s,restrict=%s", net, u->restricted ? "on" : "off");
}

static void user_free(void *opaque)
{
	struct user *u = opaque;
	loop_call_cancel(net_loop(u->net), &u->turn);
	timer_cancel(&u->timeout);
	u->port = NULL;
	if (u->slirp)
		slirp_cleanup(u->slirp);
	user_streams_close(u);
	user_forwarded_remove(u);
	for (size_t n = 0; n < u->fd_count; n++)
		if (u->fds[n])
			unregister_fd((int)n, u);
	free(u->fds);
	free(u);
}

static const struct net_port_ops user_ops = {
	.receive = user_receive,
	.describe = user_describe,
	.free = user_free,
};

bool user_is(const struct net_port *port)
{
	return net_port_ops(port) == &user_ops;
}

int user_hostfwd_add(struct net_port *port, const char *rule, struct error *err)
{
	struct user *u = net_port_opaque(port);
	int r = user_add_hostfwd(u, rule, err);
	schedule_turn(u);
	return r;
}

int user_hostfwd_remove(struct net_port *port, const char *rule, struct error *err)
{
	struct user *u = net_port_opaque(port);
	int r = user_remove_hostfwd(u, rule, err);
	schedule_turn(u);
	return r;
}

/* The address of an IPv6 or unix socket of this number, or false. */
static bool other_address(int fd, union forward_address *name)
{
	socklen_t len = sizeof(*name);
	memset(name, 0, sizeof(*name));
	return fd >= 0 && getsockname(fd, &name->any, &len) == 0 && len <= sizeof(*name) &&
	       (name->any.sa_family == AF_UNIX || name->any.sa_family == AF_INET6);
}

/* "[::1]  port" or "unix:path" in columns of 15 and 5. */
static void put_address(struct strbuf *out, const union forward_address *a)
{
	enum { COLUMNS = 15, PORT_COLUMNS = 5 };
	char text[sizeof(a->un.sun_path) + sizeof("unix:")], plain[INET6_ADDRSTRLEN];
	if (a->any.sa_family == AF_UNIX) {
		snprintf(text, sizeof(text), "unix:%.*s", (int)sizeof(a->un.sun_path),
			 a->un.sun_path);
		strbuf_printf(out, " %*s", COLUMNS + 1 + PORT_COLUMNS, text);
	} else if (a->any.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &a->in6.sin6_addr, plain, sizeof(plain));
		snprintf(text, sizeof(text), "[%s]", plain);
		strbuf_printf(out, " %*s %*u", COLUMNS, text, PORT_COLUMNS,
			      ntohs(a->in6.sin6_port));
	} else {
		inet_ntop(AF_INET, &a->in.sin_addr, plain, sizeof(plain));
		strbuf_printf(out, " %*s %*u", COLUMNS, plain, PORT_COLUMNS, ntohs(a->in.sin_port));
	}
}

/* The guest's end of the forward whose host's end is this, or NULL. */
static const union forward_address *forwarded_to(const struct user *u,
						 const union forward_address *host)
{
	struct list *it;
	list_for_each(it, &u->forwarded)
	{
		const struct hostfwd *rule = &list_entry(it, struct user_forwarded, link)->rule;
		if (hostfwd_is_from(rule, host))
			return &rule->guest;
	}
	return NULL;
}

static const char *skip_words(const char *text, const char *end, unsigned words)
{
	while (words--) {
		while (text < end && *text == ' ')
			text++;
		while (text < end && *text != ' ')
			text++;
	}
	return text;
}

/* A line of libslirp's table: "  TCP[STATE]  FD  address  port  address  port  bytes  bytes". It
 * prints every address as if it were IPv4's. */
static void put_line(const struct user *u, struct strbuf *out, const char *line, size_t len)
{
	union forward_address host;
	const char *at = memchr(line, ']', len), *end = line + len;
	char *address;
	long fd = at ? strtol(at + 1, &address, 10) : -1;
	if (!at || address == at + 1 || address >= end || !other_address((int)fd, &host)) {
		strbuf_append(out, line, len);
		return;
	}
	strbuf_append(out, line, (size_t)(address - line));
	put_address(out, &host);
	const char *rest = skip_words(address, end, 2);
	const union forward_address *guest = forwarded_to(u, &host);
	if (guest && guest->any.sa_family == AF_INET6) {
		put_address(out, guest);
		rest = skip_words(rest, end, 2);
	}
	strbuf_append(out, rest, (size_t)(end - rest));
}

void user_info(struct net_port *port, struct strbuf *out)
{
	struct user *u = net_port_opaque(port);
	char *text = slirp_connection_info(u->slirp);
	for (const char *line = text; *line;) {
		const char *end = strchr(line, '\n');
		size_t len = end ? (size_t)(end - line) + 1 : strlen(line);
		put_line(u, out, line, len);
		line += len;
	}
	free(text); /* g_malloc() is malloc() since GLib 2.46 */
}

/* ---- Making one ---- */

static struct net_port *user_open(const struct netdev_env *env, const char *id, struct opts *opts,
				  struct error *err)
{
	struct user *u = xcalloc(1, sizeof(*u));
	SlirpConfig config;
	const char **search = NULL;
	u->net = env->net;
	u->streams = env->streams;
	list_init(&u->forwards);
	list_init(&u->forwarded);
	loop_call_init(&u->turn, user_turn, u);
	timer_init(&u->timeout, net_clock(u->net), user_turn, u);
	if (user_config(u, opts, &config, &search, err) < 0)
		goto fail;
	u->slirp = slirp_new(&config, &callbacks, u);
	if (!u->slirp) {
		error_set(err, EINVAL, "libslirp does not take these settings");
		goto fail;
	}
	if (user_forwards(u, id, opts, err) < 0)
		goto fail;
	u->port = net_port_new(env->net, NET_BACKEND, id, "user", 1, &user_ops, u, err);
	if (!u->port)
		goto fail;
	free(search);
	schedule_turn(u);
	return u->port;
fail:
	free(search);
	user_free(u);
	return NULL;
}

#else /* without libslirp */

static struct net_port *user_open(const struct netdev_env *env, const char *id, struct opts *opts,
				  struct error *err)
{
	error_set(
		err, ENOTSUP,
		"the user network needs libslirp, which this build lacks; install libslirp-dev and "
		"build again");
	return NULL;
}

bool user_is(const struct net_port *port)
{
	return false;
}

int user_hostfwd_add(struct net_port *port, const char *rule, struct error *err)
{
	return error_set(err, ENOTSUP, "there is no user network");
}

int user_hostfwd_remove(struct net_port *port, const char *rule, struct error *err)
{
	return error_set(err, ENOTSUP, "there is no user network");
}

void user_info(struct net_port *port, struct strbuf *out)
{
}

#endif

static const char *const properties[] = {
	"ipv4",     "ipv6",           "net",        "host",      "dhcpstart",
	"dns",      "ipv6-net",       "ipv6-host",  "ipv6-dns",  "ipv6-prefix",
	"hostname", "ipv6-prefixlen", "domainname", "dnssearch", "restrict",
	"hostfwd",  "guestfwd",       "tftp",       "bootfile",  "tftp-server-name",
	"smb",      "smbserver",      NULL,
};

const struct netdev_type netdev_user = {
	.name = "user",
	.help = "net=,host=,dhcpstart=,dns=,hostname=,domainname=,dnssearch=,ipv4=,ipv6=,ipv6-net=,"
		"ipv6-host=,ipv6-dns=,restrict=,hostfwd=,guestfwd=,tftp=,bootfile=,"
		"tftp-server-name=",
	.properties = properties,
	.open = user_open,
};
