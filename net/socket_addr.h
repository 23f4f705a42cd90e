/* SPDX-License-Identifier: MIT */
/* Socket addresses as options write them. */
#ifndef NET_SOCKET_ADDR_H
#define NET_SOCKET_ADDR_H

#include "lib/error.h"
#include "lib/optstr.h"
#include <netinet/in.h>
#include <sys/un.h>

struct socket_addr {
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
	};
	socklen_t len; /* 0: none given */
};

/* "[host]:port"; no host is any address (`passive`) or 127.0.0.1. Names are looked up. */
int socket_addr_parse(const char *text, int type, bool passive, struct socket_addr *out,
		      struct error *err);
/* `prefix`.type=inet|unix with .host and .port, or .path. -ENOENT without sentence if there is no
 * `prefix`.type. */
int socket_addr_from_opts(struct opts *opts, const char *prefix, int type, bool passive,
			  struct socket_addr *out, struct error *err);
/* "127.0.0.1:1234", "[::1]:1234", or the path. */
const char *socket_addr_text(const struct socket_addr *a, char out[160]);
/* A nonblocking socket of the address's family, bound to it; listening if it is a stream. */
int socket_addr_bind(const struct socket_addr *a, int type, struct error *err);

#endif
