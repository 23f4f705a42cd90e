/* SPDX-License-Identifier: MIT */
/*
 * The user network's settings: addresses, names, TFTP, forwards.
 *
 * Without settings the network is 10.0.2.0/24 with the gateway (and host) at .2, the name server
 * at .3 and the first guest at .15, and fec0::/64 likewise; other networks get the same places.
 */
#ifdef HAVE_SLIRP
#include "lib/text.h"
#include "net/user_internal.h"
#include "net/user_rules.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HOST_AT = 2, DNS_AT = 3, GUEST_AT = 15, NAME_MAX_LEN = 128, DNS_SEARCH_MAX = 30 };
enum { HOST_NAME_LEN = 32 }; /* what libslirp keeps of it */

/* A literal IPv4 address within the network, or the network's n-th. */
static int address4(struct user *u, struct opts *opts, const char *key, unsigned n,
		    struct in_addr *out, struct error *err)
{
	const char *text = opts_get(opts, key);
	uint32_t mask = u->mask4.s_addr, room = ~ntohl(mask);
	out->s_addr = u->net4.s_addr | htonl(n < room ? n : n % (room - 1) + 1);
	if (!text)
		return 0;
	if (inet_pton(AF_INET, text, out) != 1)
		return error_set(err, EINVAL, "'%s' must be an IPv4 address, not '%s'", key, text);
	/* The name server may be one of the real world, where the guest can get there. */
	if ((out->s_addr & mask) != u->net4.s_addr && !strcmp(key, "dns") && !u->restricted)
		return 0;
	if ((out->s_addr & mask) != u->net4.s_addr)
		return error_set(err, EINVAL, "'%s=%s' does not lie in the network", key, text);
	if (!(out->s_addr & ~mask) || (out->s_addr | mask) == UINT32_MAX)
		return error_set(err, EINVAL,
				 "'%s=%s' is the network's own or its broadcast "
				 "address",
				 key, text);
	return 0;
}

static int config4(struct user *u, struct opts *opts, SlirpConfig *c, struct error *err)
{
	const char *net = opts_get(opts, "net");
	const char *host = opts_get(opts, "host");
	struct in_addr given;
	int r;
	inet_pton(AF_INET, "10.0.2.0", &u->net4);
	inet_pton(AF_INET, "255.255.255.0", &u->mask4);
	if (net && (r = user_parse_net(net, &u->net4, &u->mask4, err)) < 0)
		return r;
	/* host= alone moves the network to where the host is. */
	if (!net && host && inet_pton(AF_INET, host, &given) == 1)
		u->net4.s_addr = given.s_addr & u->mask4.s_addr;
	c->vnetwork = u->net4;
	c->vnetmask = u->mask4;
	if ((r = address4(u, opts, "host", HOST_AT, &c->vhost, err)) < 0 ||
	    (r = address4(u, opts, "dhcpstart", GUEST_AT, &c->vdhcp_start, err)) < 0 ||
	    (r = address4(u, opts, "dns", DNS_AT, &c->vnameserver, err)) < 0)
		return r;
	if (c->vhost.s_addr == c->vdhcp_start.s_addr || c->vhost.s_addr == c->vnameserver.s_addr)
		return error_set(err, EINVAL,
				 "'host', 'dns' and 'dhcpstart' must be different addresses");
	return 0;
}

static int address6(struct opts *opts, const char *key, const SlirpConfig *c, unsigned n,
		    struct in6_addr *out, struct error *err)
{
	const char *text = opts_get(opts, key);
	*out = c->vprefix_addr6;
	out->s6_addr[15] |= (uint8_t)n;
	if (text && inet_pton(AF_INET6, text, out) != 1)
		return error_set(err, EINVAL, "'%s' must be an IPv6 address, not '%s'", key, text);
	return 0;
}

static int config6(struct opts *opts, SlirpConfig *c, struct error *err)
{
	const char *net = opts_get(opts, "ipv6-net"), *prefix = opts_get(opts, "ipv6-prefix");
	uint64_t length = 64;
	char text[INET6_ADDRSTRLEN] = "fec0::";
	int r;
	if (net && prefix)
		return error_set(err, EINVAL, "give either ipv6-net= or ipv6-prefix=");
	if (prefix)
		net = prefix;
	if (net) {
		size_t len = strcspn(net, "/");
		if (len >= sizeof(text))
			len = sizeof(text) - 1;
		memcpy(text, net, len);
		text[len] = 0;
		if (net[len] && (r = parse_u64(net + len + 1, "the prefix length of 'ipv6-net'", 1,
					       126, &length, err)) < 0)
			return r;
	}
	if ((r = opts_get_u64(opts, "ipv6-prefixlen", &length, err)) < 0)
		return r;
	if (length < 1 || length > 126)
		return error_set(err, EINVAL, "'ipv6-prefixlen' must be 1 to 126");
	if (inet_pton(AF_INET6, text, &c->vprefix_addr6) != 1)
		return error_set(err, EINVAL,
				 "'ipv6-net' must be an IPv6 network such as "
				 "fec0::/64, not '%s'",
				 net);
	c->vprefix_len = (uint8_t)length;
	if ((r = address6(opts, "ipv6-host", c, HOST_AT, &c->vhost6, err)) < 0)
		return r;
	return address6(opts, "ipv6-dns", c, DNS_AT, &c->vnameserver6, err);
}

/* What DHCP and TFTP packets carry must fit there (RFC 2132: one byte of length; RFC 951: 128 bytes
 * of file name). */
static int name(struct opts *opts, const char *key, size_t max, const char **out, struct error *err)
{
	*out = opts_get(opts, key);
	if (*out && strlen(*out) > max)
		return error_set(err, EINVAL, "'%s' is longer than %zu characters", key, max);
	return 0;
}

static int check_tftp(const char *path, struct error *err)
{
	struct stat st;
	if (!path)
		return 0;
	if (stat(path, &st) < 0)
		return error_errno(err, errno, "tftp=%s", path);
	if (!S_ISDIR(st.st_mode))
		return error_set(err, ENOTDIR, "tftp=%s: it must be a directory", path);
	return 0;
}

static int dns_search(struct opts *opts, const char ***search, struct error *err)
{
	size_t count = 0;
	for (size_t n = 0; n < opts->count; n++) {
		struct opt *item = &opts->item[n];
		if (strcmp(item->key, "dnssearch"))
			continue;
		item->used = true;
		if (strlen(item->value) > 255 || count == DNS_SEARCH_MAX)
			return error_set(err, EINVAL, "'dnssearch': too long or too many");
		*search = xrealloc(*search, (count + 2) * sizeof(**search));
		(*search)[count++] = item->value;
		(*search)[count] = NULL;
	}
	return 0;
}

int user_config(struct user *u, struct opts *opts, SlirpConfig *c, const char ***search,
		struct error *err)
{
	bool ipv4 = true, ipv6 = true;
	int r;
	memset(c, 0, sizeof(*c));
	c->version = SLIRP_CONFIG_VERSION_MIN;
	if (opts_has(opts, "smb") || opts_has(opts, "smbserver"))
		return error_set(
			err, ENOTSUP,
			"there is no SMB server; share files with tftp=DIR, or run a server "
			"on the host, which the guest reaches at 10.0.2.2");
	if ((r = opts_get_bool(opts, "ipv4", &ipv4, err)) < 0 ||
	    (r = opts_get_bool(opts, "ipv6", &ipv6, err)) < 0 ||
	    (r = opts_get_bool(opts, "restrict", &u->restricted, err)) < 0 ||
	    (r = config4(u, opts, c, err)) < 0 || (r = config6(opts, c, err)) < 0 ||
	    (r = name(opts, "hostname", HOST_NAME_LEN, &c->vhostname, err)) < 0 ||
	    (r = name(opts, "domainname", 255, &c->vdomainname, err)) < 0 ||
	    (r = name(opts, "tftp-server-name", 63, &c->tftp_server_name, err)) < 0 ||
	    (r = name(opts, "bootfile", NAME_MAX_LEN - 1, &c->bootfile, err)) < 0 ||
	    (r = dns_search(opts, search, err)) < 0)
		return r;
	if (!ipv4 && !ipv6)
		return error_set(err, EINVAL, "ipv4=off and ipv6=off leave no network");
	c->tftp_path = opts_get(opts, "tftp");
	if ((r = check_tftp(c->tftp_path, err)) < 0)
		return r;
	c->restricted = u->restricted;
	c->in_enabled = ipv4;
	c->in6_enabled = ipv6;
	c->vdnssearch = *search;
	return 0;
}

/* ---- Forwards ---- */

/* A socket that a program left behind when it ended is in the way; one that is listened to is not
 * touched. */
static void remove_dead_socket(const struct sockaddr_un *name, socklen_t len)
{
	struct stat st;
	if (lstat(name->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	if (connect(fd, (const struct sockaddr *)name, len) < 0 && errno == ECONNREFUSED)
		unlink(name->sun_path);
	close(fd);
}

static void remember(struct user *u, const struct hostfwd *rule)
{
	struct user_forwarded *f = xcalloc(1, sizeof(*f));
	f->rule = *rule;
	list_push_back(&u->forwarded, &f->link);
}

/* Those from this host's end; NULL: all. */
static void forget(struct user *u, const struct hostfwd *rule)
{
	struct list *it, *next;
	list_for_each_safe(it, next, &u->forwarded)
	{
		struct user_forwarded *f = list_entry(it, struct user_forwarded, link);
		const struct hostfwd *r = &f->rule;
		if (rule && (rule->udp != r->udp || !hostfwd_is_from(r, &rule->host)))
			continue;
		if (r->host.any.sa_family == AF_UNIX)
			unlink(r->host.un.sun_path);
		list_remove(&f->link);
		free(f);
	}
}

void user_forwarded_remove(struct user *u)
{
	forget(u, NULL);
}

static bool have_unix_sockets(void)
{
	unsigned major = 0, minor = 0;
	sscanf(slirp_version_string(), "%u.%u", &major, &minor);
	return major > 4 || (major == 4 && minor >= 7);
}

int user_add_hostfwd(struct user *u, const char *rule, struct error *err)
{
	struct hostfwd f;
	int r = hostfwd_parse(rule, &f, err), failed;
	if (r < 0)
		return r;
	bool unix_socket = f.host.any.sa_family == AF_UNIX;
	if (unix_socket)
		remove_dead_socket(&f.host.un, f.host_len);
	errno = 0;
	if (f.host.any.sa_family == AF_INET)
		failed = slirp_add_hostfwd(u->slirp, f.udp, f.host.in.sin_addr,
					   ntohs(f.host.in.sin_port), f.guest.in.sin_addr,
					   ntohs(f.guest.in.sin_port)) < 0;
	else
#if SLIRP_CHECK_VERSION(4, 5, 0)
		failed = slirp_add_hostxfwd(u->slirp, &f.host.any, f.host_len, &f.guest.any,
					    f.guest_len, f.udp ? SLIRP_HOSTFWD_UDP : 0) < 0;
#else
		return error_set(err, ENOTSUP,
				 "forward rule '%s': this libslirp forwards IPv4 only", rule);
#endif
	if (failed && unix_socket && !have_unix_sockets())
		return error_set(err, ENOTSUP,
				 "cannot forward '%s': libslirp %s has no unix sockets, 4.7 does",
				 rule, slirp_version_string());
	if (failed)
		return error_errno(err, errno ? errno : EADDRINUSE,
				   "cannot set up the host's end of '%s'", rule);
	if (f.host.any.sa_family != AF_INET)
		remember(u, &f);
	return 0;
}

int user_remove_hostfwd(struct user *u, const char *rule, struct error *err)
{
	struct hostfwd f;
	int r = hostfwd_parse_host(rule, &f, err), failed;
	if (r < 0)
		return r;
	if (f.host.any.sa_family == AF_INET)
		failed = slirp_remove_hostfwd(u->slirp, f.udp, f.host.in.sin_addr,
					      ntohs(f.host.in.sin_port)) < 0;
	else
#if SLIRP_CHECK_VERSION(4, 5, 0)
		failed = slirp_remove_hostxfwd(u->slirp, &f.host.any, f.host_len,
					       f.udp ? SLIRP_HOSTFWD_UDP : 0) < 0;
#else
		failed = true;
#endif
	if (failed)
		return error_set(err, ENOENT, "there is no forward from '%s'", rule);
	if (f.host.any.sa_family != AF_INET)
		forget(u, &f);
	return 0;
}

static size_t forward_room(void *opaque)
{
	struct user_forward *f = opaque;
	return f->user->slirp ? slirp_socket_can_recv(f->user->slirp, f->server, f->port) : 0;
}

static void forward_input(void *opaque, const uint8_t *buf, size_t len)
{
	struct user_forward *f = opaque;
	slirp_socket_recv(f->user->slirp, f->server, f->port, buf, (int)len);
	loop_call_schedule(net_loop(f->user->net), &f->user->turn);
}

static ssize_t forward_output(const void *buf, size_t len, void *opaque)
{
	struct user_forward *f = opaque;
	return (ssize_t)f->user->streams->write(f->stream, buf, len);
}

void user_streams_poll(struct user *u)
{
	struct list *it;
	list_for_each(it, &u->forwards)
	{
		struct user_forward *f = list_entry(it, struct user_forward, link);
		if (forward_room(f))
			u->streams->accept(f->stream);
	}
}

void user_streams_close(struct user *u)
{
	while (!list_empty(&u->forwards)) {
		struct user_forward *f = list_entry(u->forwards.next, struct user_forward, link);
		list_remove(&f->link);
		if (f->stream)
			u->streams->close(f->stream);
		free(f);
	}
}

static int add_guestfwd(struct user *u, const char *id, const char *rule, struct error *err)
{
	struct guestfwd g;
	int r = guestfwd_parse(rule, &g, err), failed;
	if (r < 0)
		return r;
	if ((g.server.s_addr & u->mask4.s_addr) != u->net4.s_addr)
		return error_set(err, EINVAL,
				 "guestfwd '%s': the server must be an address of the guest's "
				 "network",
				 rule);
	if (g.command) {
		failed = slirp_add_exec(u->slirp, g.command, &g.server, g.port) < 0;
	} else {
		struct user_forward *f = xcalloc(1, sizeof(*f));
		struct net_stream_user user = {forward_room, forward_input, f};
		f->user = u;
		f->server = g.server;
		f->port = g.port;
		list_push_back(&u->forwards, &f->link);
		if (!u->streams)
			return error_set(err, ENOTSUP, "guestfwd '%s': only cmd: is possible here",
					 rule);
		char *name = xasprintf("%s.guestfwd.%d", id, g.port);
		f->stream = u->streams->open(u->streams->opaque, name, g.stream, &user, err);
		free(name);
		if (!f->stream) {
			error_prefix(err, "guestfwd '%s'", rule);
			return -err->code;
		}
		failed = slirp_add_guestfwd(u->slirp, forward_output, f, &g.server, g.port) < 0;
	}
	if (failed)
		return error_set(err, EINVAL,
				 "guestfwd '%s': the address is the host's own or taken already",
				 rule);
	return 0;
}

int user_forwards(struct user *u, const char *id, struct opts *opts, struct error *err)
{
	int r = 0;
	for (size_t n = 0; n < opts->count && r == 0; n++) {
		struct opt *item = &opts->item[n];
		bool host = !strcmp(item->key, "hostfwd"), guest = !strcmp(item->key, "guestfwd");
		if (!host && !guest)
			continue;
		item->used = true;
		r = host ? user_add_hostfwd(u, item->value, err)
			 : add_guestfwd(u, id, item->value, err);
	}
	return r;
}
#endif
