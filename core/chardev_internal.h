/* SPDX-License-Identifier: MIT */
/*
 * Inside the chardevs: the common part (chardev.c) owns the queues, the watches and the front end;
 * a backend opens file descriptors and says what happens when the other side goes away.
 */
#ifndef CORE_CHARDEV_INTERNAL_H
#define CORE_CHARDEV_INTERNAL_H

#include "core/chardev.h"
#include "lib/loop.h"
#include "lib/optstr.h"
#include "lib/strbuf.h"
#include <sys/types.h>

enum {
	CHARDEV_OUT_MAX = 1 << 20, /* bytes queued for output */
	CHARDEV_IN_CHUNK = 4096,   /* read ahead of a slow front end */
};

struct chardev_class {
	/* The chardev that output goes on to (a mux and its ports). May be NULL. */
	struct chardev *(*below)(const struct chardev *chr);
	/* Replaces writing to fd_out: takes all that it can and returns how much. May be NULL. */
	size_t (*write)(struct chardev *chr, const void *buf, size_t len);
	/* Edits what was read in place and returns its new length. May be NULL. */
	size_t (*filter)(struct chardev *chr, uint8_t *buf, size_t len);
	/* End of file or an error on the descriptors: they are unwatched already. May be NULL. */
	void (*hangup)(struct chardev *chr);
	/* A front end came or went. May be NULL. */
	void (*attached)(struct chardev *chr);
	/* Frees what the backend made; closes its descriptors. May be NULL. */
	void (*close)(struct chardev *chr);
};

struct chardev {
	char *id, *description;
	struct loop *loop;
	const struct chardev_class *class;
	void *data; /* the backend's */

	struct chardev_frontend fe;
	bool attached;
	bool told_open;        /* the front end's view of `connected` */
	struct loop_call call; /* delivers input and open/close events from the loop */
	struct strbuf in, out;

	bool connected;
	int fd_in, fd_out; /* -1: none; the same for a socket */
	struct loop_fd *watch_in, *watch_out;
	bool eof;            /* fd_in has no more */
	bool broken;         /* writing failed */
	bool dropped;        /* output that waited was, and the front end does not know yet */
	bool out_blocking;   /* fd_out may block: write only what poll() promises */
	bool drop_when_full; /* nobody may ever read: old output is worth less than a stuck guest */
};

struct chardev *chardev_alloc(struct loop *loop, const char *id, const struct chardev_class *class);
void chardev_set_description(struct chardev *chr, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* The descriptors are set: watches them and tells the front end. */
void chardev_connect(struct chardev *chr, int fd_in, int fd_out);
/* Unwatches the descriptors (which stay the backend's to close), drops what was queued for output
 * and tells the front end. */
void chardev_disconnect(struct chardev *chr);
/* Bytes for the front end; delivered as it has room. */
void chardev_push_input(struct chardev *chr, const void *buf, size_t len);
/* Room for input before the other side must wait. */
size_t chardev_input_room(const struct chardev *chr);
/* Tells the front end about connected/told_open and offers it input, now. Loop only. */
void chardev_deliver(struct chardev *chr);

/* Backends; NULL with an error. `value` is what stands behind the colon; opts are the rest. */
struct chardev *chardev_open_stdio(struct loop *loop, const char *id, bool signals,
				   struct error *err);
struct chardev *chardev_open_file(struct loop *loop, const char *id, const char *path, bool append,
				  struct error *err);
struct chardev *chardev_open_pipe(struct loop *loop, const char *id, const char *path,
				  struct error *err);
struct chardev *chardev_open_pty(struct loop *loop, const char *id, struct error *err);
/* Opens unix:PATH and tcp:HOST:PORT (path NULL); reads server, wait, reconnect, nodelay, telnet. */
struct chardev *chardev_open_socket(struct loop *loop, const char *id, const char *path,
				    const char *host, const char *port, struct opts *opts,
				    bool telnet, struct error *err);
/* What chardev_stdio_default_signals() set. */
bool chardev_stdio_signals(void);
/* For a mux above stdio: Ctrl-C goes to the guest. */
void chardev_stdio_keep_signals(struct chardev *chr);

#endif
