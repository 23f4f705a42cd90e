/* SPDX-License-Identifier: MIT */
/* -daemonize and -pidfile. */
#ifndef VMM_BACKGROUND_H
#define VMM_BACKGROUND_H

#include "lib/error.h"

struct options;

struct background {
	int ready_fd; /* to the waiting parent; -1 without -daemonize */
};

/*
 * With -daemonize forks before any thread exists; the parent waits until the child says that its
 * machine is built and then exits with 0 (1 if the child failed, whose message is on stderr).
 * Returns in the child.
 */
int background_start(struct background *b, const struct options *o, struct error *err);
/* The machine is built: prints `notes`, a line each, writes the pid file (locked, as QEMU does),
 * lets the parent go, closes the terminal. */
int background_ready(struct background *b, const struct options *o, const char *notes,
		     struct error *err);
/* Removes the pid file. */
void background_end(void);

#endif
