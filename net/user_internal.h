/* SPDX-License-Identifier: MIT */
/* The user network's state, shared by its run (user.c) and its settings (user_config.c). */
#ifndef NET_USER_INTERNAL_H
#define NET_USER_INTERNAL_H

#include "lib/clock.h"
#include "lib/list.h"
#include "lib/loop.h"
#include "net/netdev.h"
#include "net/user_rules.h"
#include "net/user_syn.h"
#include <libslirp.h>

struct user;

struct user_fd {
	struct user *user;
	int fd;
	unsigned wanted, ready; /* SLIRP_POLL_* */
	bool asked;             /* in this turn */
	struct loop_fd *watch;
};

/* guestfwd= to a character device. */
struct user_forward {
	struct user *user;
	struct in_addr server;
	int port;
	struct net_stream *stream;
	struct list link;
};

/* hostfwd= that is not of IPv4 alone: what libslirp leaves behind (a unix socket's file), and what
 * `info usernet` cannot learn from it. */
struct user_forwarded {
	struct list link;
	struct hostfwd rule;
};

struct user {
	struct net *net;
	struct net_port *port;
	Slirp *slirp;
	const struct net_streams *streams;
	struct user_fd **fds; /* by descriptor */
	size_t fd_count;
	struct loop_call turn;
	struct timer timeout;
	struct list forwards;
	struct list forwarded; /* struct user_forwarded */
	struct in_addr net4, mask4;
	bool restricted;
	struct user_syns syns;
	uint8_t frame[NET_FRAME_MAX];
};

/* Reads what stands in `opts` into libslirp's settings; their strings belong to `opts`, *search to
 * the caller. */
int user_config(struct user *u, struct opts *opts, SlirpConfig *config, const char ***search,
		struct error *err);
/* hostfwd= and guestfwd= of `opts`. */
int user_forwards(struct user *u, const char *id, struct opts *opts, struct error *err);
int user_add_hostfwd(struct user *u, const char *rule, struct error *err);
int user_remove_hostfwd(struct user *u, const char *rule, struct error *err);
/* Lets the streams of guestfwd= bring what libslirp has room for now. */
void user_streams_poll(struct user *u);
void user_streams_close(struct user *u);
/* Forgets all, and removes the sockets of hostfwd=unix. */
void user_forwarded_remove(struct user *u);

#endif
