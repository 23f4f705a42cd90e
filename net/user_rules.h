/* SPDX-License-Identifier: MIT */
/* The rules of the user network's port forwards, as text and taken apart. */
#ifndef NET_USER_RULES_H
#define NET_USER_RULES_H

#include "lib/error.h"
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/un.h>

union forward_address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
};

/* [tcp|udp]:[host address]:host port-[guest address]:guest port, or
 * unix:path-[guest address]:guest port. IPv6 addresses stand in brackets. */
struct hostfwd {
	bool udp;
	union forward_address host;
	socklen_t host_len;
	union forward_address guest; /* zero address: the guest's default */
	socklen_t guest_len;
};

int hostfwd_parse(const char *rule, struct hostfwd *out, struct error *err);
/* The part before '-', as hostfwd_remove takes it. */
int hostfwd_parse_host(const char *rule, struct hostfwd *out, struct error *err);

/* Whether the rule's host's end is this address; port 0 of the rule stands for any. */
bool hostfwd_is_from(const struct hostfwd *rule, const union forward_address *host);

/* [tcp:]server address:port-target, where target is "cmd:command" or a character device. */
struct guestfwd {
	struct in_addr server;
	int port;
	const char *command; /* or NULL */
	const char *stream;  /* or NULL */
};
/* The strings of `out` point into `rule`. */
int guestfwd_parse(const char *rule, struct guestfwd *out, struct error *err);

/* "10.0.2.0/24", "10.0.2.0/255.255.255.0", "10.0.2.0" (by its class). */
int user_parse_net(const char *text, struct in_addr *net, struct in_addr *mask, struct error *err);

#endif
