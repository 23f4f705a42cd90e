/* SPDX-License-Identifier: MIT */
/*
 * Character backends: where a serial port, parallel port, debug console or monitor talks to. A
 * front end (the device) attaches to one; bytes from outside are offered to it, bytes from it are
 * written out.
 *
 * Specs as QEMU's -serial takes them: stdio, file:PATH, unix:PATH[,server=on,wait=off],
 * tcp:HOST:PORT[,server=on,wait=off], pty, null, pipe:PATH, vc (same as null); and as its -chardev
 * takes them: socket,path=PATH,server=on; file,path=PATH,append=on; ... Names for chardevs, and
 * which one gets a mux, are the caller's affair.
 */
#ifndef CORE_CHARDEV_H
#define CORE_CHARDEV_H

#include "lib/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chardev;
struct loop;

/* The front end's side. Called from the loop, lock held. */
struct chardev_frontend {
	size_t (*can_receive)(void *opaque);                           /* bytes it can take now */
	void (*receive)(void *opaque, const uint8_t *buf, size_t len); /* len <= can_receive() */
	void (*opened)(void *opaque, bool open); /* peer connected or left; may be NULL */
	void (*send_break)(void *opaque);        /* a break from outside (Ctrl-A b); may be NULL */
	void (*drained)(
		void *opaque); /* no output waits: it left, or its reader did; may be NULL */
	void *opaque;
};

struct chardev *chardev_open(struct loop *loop, const char *id, const char *spec,
			     struct error *err);
void chardev_free(struct chardev *chr);
/* NULL detaches. One front end at a time, except on a mux (mon:), which takes several; see
 * chardev_mux. */
void chardev_attach(struct chardev *chr, const struct chardev_frontend *fe);
/*
 * Queues bytes for output; never blocks and never loses bytes for files, stdio and connected
 * sockets while the queue (1 MiB) has room. Returns bytes taken. With no peer connected they are
 * dropped and count as taken. Lock held.
 */
size_t chardev_write(struct chardev *chr, const void *buf, size_t len);
/* As chardev_write() without a limit: for replies that make no sense in parts. The writer looks at
 * chardev_backlog() before it takes on more work. */
void chardev_write_all(struct chardev *chr, const void *buf, size_t len);
/* Bytes that wait to be sent. */
size_t chardev_backlog(const struct chardev *chr);
/* The front end has room again after can_receive() said 0. */
void chardev_accept_input(struct chardev *chr);
/* Writes out what is queued, waiting if need be (at exit). */
void chardev_flush(struct chardev *chr);
bool chardev_connected(const struct chardev *chr);
/* What `info chardev` shows: "stdio", "pty:/dev/pts/3", "disconnected:unix:PATH,server=on". */
const char *chardev_describe(const struct chardev *chr);
/* A chardev that keeps its output in memory and takes input from chardev_memory_input(): for tests.
 */
struct chardev *chardev_new_memory(struct loop *loop);
const char *chardev_memory_output(const struct chardev *chr, size_t *len);
void chardev_memory_input(struct chardev *chr, const void *buf, size_t len);

/* The mux behind mon: and -nographic. Ctrl-A c moves input to the next front end, Ctrl-A x calls
 * `quit`, Ctrl-A h prints the help, Ctrl-A b sends a break, Ctrl-A Ctrl-A sends Ctrl-A. */
struct chardev *chardev_new_mux(struct loop *loop, struct chardev *below,
				void (*quit)(void *opaque), void *opaque);
/* A view of the mux for one more front end; freed with the mux. NULL when it has too many. */
struct chardev *chardev_mux_port(struct chardev *mux);
/* Whether signal= of stdio is on when it is not given (it is, until this is called): off leaves
 * Ctrl-C to the guest. */
void chardev_stdio_default_signals(bool on);

/* Signals that end the program by default put the terminal back first; one that has another handler
 * stays as it is. A stdio does this by itself; what handles some of them on its own behalf and
 * passes the rest on wants it done before. */
void chardev_stdio_catch_signals(void);

#endif
