/* SPDX-License-Identifier: MIT */
/*
 * Backends by type: what -netdev takes. Each type is a row of the table in netdev.c; its file says
 * what it does. The machine lock is held.
 */
#ifndef NET_NETDEV_H
#define NET_NETDEV_H

#include "lib/error.h"
#include "lib/optstr.h"
#include "lib/strbuf.h"
#include "net/net.h"

/* A byte stream that guestfwd= of the user network ends in, given by whoever opens backends: this
 * folder knows no character devices. */
struct net_stream;
struct net_stream_user {
	size_t (*can_receive)(void *opaque);
	void (*receive)(void *opaque, const uint8_t *buf, size_t len);
	void *opaque;
};
struct net_streams {
	/* `spec` as -serial takes it. NULL with one sentence. */
	struct net_stream *(*open)(void *opaque, const char *id, const char *spec,
				   const struct net_stream_user *user, struct error *err);
	size_t (*write)(struct net_stream *stream, const void *buf, size_t len);
	/* can_receive() may have risen. */
	void (*accept)(struct net_stream *stream);
	void (*close)(struct net_stream *stream);
	void *opaque;
};

struct netdev_env {
	struct net *net;
	const struct net_streams *streams; /* NULL: guestfwd= to a stream is refused */
};

struct netdev_type {
	const char *name;
	const char *help;              /* its properties, one line */
	const char *const *properties; /* its keys, NULL-terminated */
	/* Reads its properties and makes a port. NULL with one sentence. */
	struct net_port *(*open)(const struct netdev_env *env, const char *id, struct opts *opts,
				 struct error *err);
};

/* Makes the backend described by `opts`: type=, id= and the type's properties; `option` stands
 * in messages ("-netdev"). Unknown properties are refused. */
struct net_port *netdev_open(const struct netdev_env *env, const char *option, struct opts *opts,
			     struct error *err);
/* The type of this name, or NULL with a sentence that names the nearest or says what is missing in
 * this build. */
const struct netdev_type *netdev_type_find(const char *name, struct error *err);
/* `-netdev help`. */
void netdev_print_help(void);
/* For -version: the libraries that are built in, and the backends missing without theirs. */
void netdev_built_with(struct strbuf *with, struct strbuf *without);

/* -1 with a sentence unless `text` is six pairs of hexadecimal digits (separated by ':' or '-') of
 * a card's address: not multicast, not zero. */
int net_parse_mac(const char *text, uint8_t mac[NET_MAC_LEN], struct error *err);
/* The default address of card number `n` of the machine known as `seed` (may be empty): 52:54:00
 * and three bytes of a hash, the last one plus n. */
void net_default_mac(const char *seed, unsigned n, uint8_t mac[NET_MAC_LEN]);

/* The user network's port forwards while the machine runs; -EINVAL with a sentence. `port` must be
 * of type user (user_is()). */
bool user_is(const struct net_port *port);
int user_hostfwd_add(struct net_port *port, const char *rule, struct error *err);
int user_hostfwd_remove(struct net_port *port, const char *rule, struct error *err);
/* `info usernet`: the table of connections. */
void user_info(struct net_port *port, struct strbuf *out);

extern const struct netdev_type netdev_user, netdev_tap, netdev_socket, netdev_stream, netdev_dgram,
	netdev_vde, netdev_hubport, netdev_bridge;

#endif
