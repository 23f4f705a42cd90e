/* SPDX-License-Identifier: MIT */
#include "net/socket_addr.h"
#include "lib/text.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int look_up(const char *host, const char *port, int type, bool passive,
		   struct socket_addr *out, struct error *err)
{
	struct addrinfo hints = {.ai_socktype = type, .ai_family = AF_UNSPEC};
	struct addrinfo *list;
	uint64_t number;
	int r = parse_u64(port, "the port", 0, UINT16_MAX, &number, err);
	if (r < 0)
		return r;
	if (passive)
		hints.ai_flags |= AI_PASSIVE;
	if (!*host) {
		host = passive ? NULL : "127.0.0.1";
		hints.ai_family = AF_INET;
	}
	r = getaddrinfo(host, port, &hints, &list);
	if (r)
		return error_set(err, EINVAL, "cannot find the address '%s:%s': %s",
				 host ? host : "", port, gai_strerror(r));
	memcpy(&out->any, list->ai_addr, list->ai_addrlen);
	out->len = list->ai_addrlen;
	freeaddrinfo(list);
	return 0;
}

int socket_addr_parse(const char *text, int type, bool passive, struct socket_addr *out,
		      struct error *err)
{
	const char *colon = strrchr(text, ':');
	if (!colon || !colon[1])
		return error_set(err, EINVAL, "'%s' is no address; it must be [host]:port", text);
	char *host = xstrdup(text);
	host[colon - text] = 0;
	size_t len = strlen(host);
	char *name = host;
	if (len >= 2 && host[0] == '[' && host[len - 1] == ']') {
		host[len - 1] = 0;
		name++;
	}
	int r = look_up(name, colon + 1, type, passive, out, err);
	free(host);
	return r;
}

int socket_addr_from_opts(struct opts *opts, const char *prefix, int type, bool passive,
			  struct socket_addr *out, struct error *err)
{
	static const char *const kinds[] = {"inet", "unix", NULL}; /* "fd": socket.c */
	char key[4][32];
	int kind = 0, r;
	snprintf(key[0], sizeof(key[0]), "%s.type", prefix);
	snprintf(key[1], sizeof(key[1]), "%s.host", prefix);
	snprintf(key[2], sizeof(key[2]), "%s.port", prefix);
	snprintf(key[3], sizeof(key[3]), "%s.path", prefix);
	out->len = 0;
	if (!opts_has(opts, key[0]))
		return -ENOENT;
	if ((r = opts_get_enum(opts, key[0], kinds, &kind, err)) < 0)
		return r;
	const char *host = opts_get(opts, key[1]), *port = opts_get(opts, key[2]);
	const char *path = opts_get(opts, key[3]);
	if (kind == 0) {
		if (!host || !port || path)
			return error_set(err, EINVAL, "%s=inet needs %s= and %s=", key[0], key[1],
					 key[2]);
		return look_up(host, port, type, passive, out, err);
	}
	size_t len = path ? strlen(path) : 0;
	if (!len || len >= sizeof(out->un.sun_path) || host || port)
		return error_set(err, EINVAL, "%s=unix needs %s= of at most %zu characters", key[0],
				 key[3], sizeof(out->un.sun_path) - 1);
	memset(&out->un, 0, sizeof(out->un));
	out->un.sun_family = AF_UNIX;
	memcpy(out->un.sun_path, path, len);
	out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
	return 0;
}

const char *socket_addr_text(const struct socket_addr *a, char out[160])
{
	char host[INET6_ADDRSTRLEN] = "?";
	if (a->any.sa_family == AF_UNIX) {
		snprintf(out, 160, "%s", a->un.sun_path);
	} else if (a->any.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &a->in6.sin6_addr, host, sizeof(host));
		snprintf(out, 160, "[%s]:%u", host, ntohs(a->in6.sin6_port));
	} else {
		inet_ntop(AF_INET, &a->in.sin_addr, host, sizeof(host));
		snprintf(out, 160, "%s:%u", host, ntohs(a->in.sin_port));
	}
	return out;
}

/* A socket left behind by a process that is gone must not be in the way. */
static void remove_stale(const struct socket_addr *a, int type)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (connect(fd, &a->any, a->len) < 0 && errno == ECONNREFUSED)
		unlink(a->un.sun_path);
	close(fd);
}

int socket_addr_bind(const struct socket_addr *a, int type, struct error *err)
{
	char text[160];
	int on = 1;
	int fd = socket(a->any.sa_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_errno(err, errno, "cannot make a socket");
	if (a->any.sa_family == AF_UNIX)
		remove_stale(a, type);
	else if (type == SOCK_STREAM)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, &a->any, a->len) < 0 || (type == SOCK_STREAM && listen(fd, 1) < 0)) {
		int code = errno;
		close(fd);
		return error_errno(err, code, "cannot bind to '%s'", socket_addr_text(a, text));
	}
	return fd;
}
