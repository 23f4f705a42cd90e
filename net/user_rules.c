/* SPDX-License-Identifier: MIT */
/* Takes the user network's texts apart: hostfwd=, guestfwd=, net=. */
#include "net/user_rules.h"
#include "lib/text.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ADDRESS_TEXT = 128 };

/* Copies what stands before the first `end` outside of brackets; returns what follows it, or NULL.
 */
static const char *take(const char *text, char end, char *out, size_t size)
{
	size_t len = 0;
	bool inside = false;
	for (; text[len]; len++) {
		if (text[len] == '[')
			inside = true;
		else if (text[len] == ']')
			inside = false;
		else if (text[len] == end && !inside)
			break;
	}
	if (!text[len] || len >= size)
		return NULL;
	memcpy(out, text, len);
	out[len] = 0;
	return text + len + 1;
}

/* "" is the address of all zeros. */
static int parse_address(const char *text, int port, union forward_address *out, socklen_t *len,
			 struct error *err)
{
	char plain[ADDRESS_TEXT];
	size_t n = strlen(text);
	memset(out, 0, sizeof(*out));
	if (n > 2 && text[0] == '[' && text[n - 1] == ']') {
		snprintf(plain, sizeof(plain), "%.*s", (int)n - 2, text + 1);
		out->in6.sin6_family = AF_INET6;
		out->in6.sin6_port = htons((uint16_t)port);
		*len = sizeof(out->in6);
		if (inet_pton(AF_INET6, plain, &out->in6.sin6_addr) == 1)
			return 0;
		return error_set(err, EINVAL, "'%s' is not an IPv6 address", plain);
	}
	out->in.sin_family = AF_INET;
	out->in.sin_port = htons((uint16_t)port);
	*len = sizeof(out->in);
	if (!*text || inet_pton(AF_INET, text, &out->in.sin_addr) == 1)
		return 0;
	return error_set(err, EINVAL, "'%s' is not an IP address (host names are not looked up)",
			 text);
}

static int parse_port(const char *text, const char *what, int min, int *port, struct error *err)
{
	uint64_t value = 0;
	int r = parse_u64(text, what, (uint64_t)min, UINT16_MAX, &value, err);
	*port = (int)value;
	return r;
}

/* "tcp:", "udp:", ":" or nothing. */
static const char *take_protocol(const char *rule, bool *udp)
{
	*udp = !strncmp(rule, "udp:", 4);
	if (*udp || !strncmp(rule, "tcp:", 4))
		return rule + 4;
	return rule[0] == ':' ? rule + 1 : NULL;
}

static int parse_unix(const char *path, struct hostfwd *out, struct error *err)
{
	size_t len = strlen(path);
	out->host.un.sun_family = AF_UNIX;
	if (!len || len >= sizeof(out->host.un.sun_path))
		return error_set(err, EINVAL,
				 "the path of a unix socket must have 1 to %zu characters",
				 sizeof(out->host.un.sun_path) - 1);
	memcpy(out->host.un.sun_path, path, len);
	out->host_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
	return 0;
}

/* "[address]:port" of the host's side. */
static int parse_host(const char *text, int min, struct hostfwd *out, struct error *err)
{
	char address[ADDRESS_TEXT];
	int port, r;
	const char *rest = take(text, ':', address, sizeof(address));
	if (!rest)
		return error_set(err, EINVAL, "'%s' must be [address]:port", text);
	if ((r = parse_port(rest, "the host's port", min, &port, err)) < 0)
		return r;
	return parse_address(address, port, &out->host, &out->host_len, err);
}

static int bad_rule(const char *rule, struct error *err)
{
	if (err && err->code) {
		error_prefix(err, "forward rule '%s'", rule);
		return -err->code;
	}
	return error_set(
		err, EINVAL, "forward rule '%s': it must be %s-[guestaddr]:guestport", rule,
		strncmp(rule, "unix:", 5) != 0 ? "tcp|udp:[hostaddr]:hostport" : "unix:path");
}

int hostfwd_parse(const char *rule, struct hostfwd *out, struct error *err)
{
	char host[sizeof(((struct sockaddr_un *)0)->sun_path) + ADDRESS_TEXT];
	char address[ADDRESS_TEXT];
	const char *rest, *guest;
	int port;
	memset(out, 0, sizeof(*out));
	if (!strncmp(rule, "unix:", 5)) {
		/* A path may hold '-', the guest's side cannot. */
		const char *dash = strrchr(rule, '-');
		if (!dash || (size_t)(dash - rule) >= sizeof(host))
			return bad_rule(rule, err);
		snprintf(host, sizeof(host), "%.*s", (int)(dash - rule - 5), rule + 5);
		guest = dash + 1;
		if (parse_unix(host, out, err) < 0)
			return bad_rule(rule, err);
	} else {
		rest = take_protocol(rule, &out->udp);
		if (!rest || !(guest = take(rest, '-', host, sizeof(host))) ||
		    parse_host(host, 0, out, err) < 0) /* 0: one that is free */
			return bad_rule(rule, err);
	}
	if (!(rest = take(guest, ':', address, sizeof(address))) ||
	    parse_port(rest, "the guest's port", 1, &port, err) < 0 ||
	    parse_address(address, port, &out->guest, &out->guest_len, err) < 0)
		return bad_rule(rule, err);
	if (!*address && out->host.any.sa_family == AF_INET6)
		return error_set(err, EINVAL,
				 "forward rule '%s': name the guest's IPv6 address, too", rule);
	if (out->host.any.sa_family != AF_UNIX &&
	    out->host.any.sa_family != out->guest.any.sa_family)
		return error_set(err, EINVAL,
				 "forward rule '%s': both addresses must be IPv4 or both IPv6",
				 rule);
	return 0;
}

int hostfwd_parse_host(const char *rule, struct hostfwd *out, struct error *err)
{
	memset(out, 0, sizeof(*out));
	if (!strncmp(rule, "unix:", 5))
		return parse_unix(rule + 5, out, err);
	const char *rest = take_protocol(rule, &out->udp);
	if (!rest)
		return error_set(err, EINVAL,
				 "'%s' must be tcp|udp:[hostaddr]:hostport or unix:path", rule);
	return parse_host(rest, 1, out, err);
}

bool hostfwd_is_from(const struct hostfwd *rule, const union forward_address *host)
{
	const union forward_address *own = &rule->host;
	if (own->any.sa_family != host->any.sa_family)
		return false;
	switch (own->any.sa_family) {
	case AF_UNIX: return !strcmp(own->un.sun_path, host->un.sun_path);
	case AF_INET6:
		return !memcmp(&own->in6.sin6_addr, &host->in6.sin6_addr,
			       sizeof(own->in6.sin6_addr)) &&
		       (!own->in6.sin6_port || own->in6.sin6_port == host->in6.sin6_port);
	default:
		return own->in.sin_addr.s_addr == host->in.sin_addr.s_addr &&
		       (!own->in.sin_port || own->in.sin_port == host->in.sin_port);
	}
}

int guestfwd_parse(const char *rule, struct guestfwd *out, struct error *err)
{
	char address[ADDRESS_TEXT], port[16];
	union forward_address server;
	socklen_t len;
	bool udp = false;
	*out = (struct guestfwd){0};
	const char *rest = take_protocol(rule, &udp), *target;
	if (!rest)
		rest = rule;
	if (udp)
		return error_set(err, EINVAL, "guestfwd '%s': only tcp can be forwarded so", rule);
	if (!(rest = take(rest, ':', address, sizeof(address))) ||
	    !(target = take(rest, '-', port, sizeof(port))) || !*target || !*address)
		return error_set(err, EINVAL,
				 "guestfwd '%s': it must be tcp:server:port-chardev or "
				 "tcp:server:port-cmd:command",
				 rule);
	int r = parse_port(port, "the server's port", 1, &out->port, err);
	if (r == 0)
		r = parse_address(address, out->port, &server, &len, err);
	if (r == 0 && server.any.sa_family != AF_INET)
		r = error_set(err, EINVAL, "the server's address must be IPv4");
	if (r < 0) {
		error_prefix(err, "guestfwd '%s'", rule);
		return r;
	}
	out->server = server.in.sin_addr;
	if (!strncmp(target, "cmd:", 4))
		out->command = target + 4;
	else
		out->stream = target;
	return 0;
}

/* The mask of an address without one: classes A, B and C (RFC 791, 3.2). */
static uint32_t class_mask(uint32_t net)
{
	if (!(net & 0x80000000))
		return 0xFF000000;
	return (net & 0xC0000000) == 0x80000000 ? 0xFFFF0000 : 0xFFFFFF00;
}

int user_parse_net(const char *text, struct in_addr *net, struct in_addr *mask, struct error *err)
{
	char address[ADDRESS_TEXT];
	const char *rest = take(text, '/', address, sizeof(address));
	if (!rest)
		snprintf(address, sizeof(address), "%s", text);
	if (inet_pton(AF_INET, address, net) != 1)
		return error_set(err, EINVAL,
				 "'net' must be an IPv4 network such as 10.0.2.0/24, "
				 "not '%s'",
				 text);
	uint32_t bits = class_mask(ntohl(net->s_addr));
	if (rest && strchr(rest, '.')) {
		struct in_addr given;
		if (inet_pton(AF_INET, rest, &given) != 1)
			return error_set(err, EINVAL, "'net': '%s' is not a mask", rest);
		bits = ntohl(given.s_addr);
	} else if (rest) {
		uint64_t length;
		int r = parse_u64(rest, "the prefix length of 'net'", 1, 30, &length, err);
		if (r < 0)
			return r;
		bits = ~(UINT32_MAX >> length);
	}
	/* Ones, then zeros, and room for the gateway, the name server and a guest. */
	if ((~bits & (~bits + 1)) || !bits || ~bits < 3)
		return error_set(err, EINVAL, "'net=%s' is too small or its mask has holes", text);
	mask->s_addr = htonl(bits);
	net->s_addr &= mask->s_addr;
	return 0;
}
