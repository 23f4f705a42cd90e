/* SPDX-License-Identifier: MIT */
/*
 * The character devices of a machine by name: those of -chardev, and the unnamed ones behind
 * -serial, -parallel, -debugcon, -monitor and -qmp. Lock held.
 */
#ifndef VMM_BACKENDS_H
#define VMM_BACKENDS_H

#include "lib/error.h"
#include "lib/list.h"
#include <stdbool.h>

struct chardev;
struct machine;

struct named_chardev {
	char *id;
	struct chardev *chr;
	bool mux;
	bool taken; /* its own end has a front end; a mux has ports for more */
	struct list link;
};

/* Opens all of -chardev. */
int backends_open(struct machine *m, struct error *err);
/*
 * A chardev for one front end from what -serial and its like take: "chardev:ID" is one of
 * -chardev's, anything else is opened and called `id`. "mon:" puts a mux with a monitor above it.
 * NULL with one sentence.
 */
struct chardev *backend_take(struct machine *m, const char *id, const char *spec,
			     struct error *err);
/* The same for a front end that names one of -chardev's by its id. */
struct chardev *backend_take_named(struct machine *m, const char *id, struct error *err);
/* Writes out what is pending and closes all. */
void backends_free(struct machine *m);

#endif
