/* SPDX-License-Identifier: MIT */
/*
 * Objects that the user makes with -object type,id=ID,... (in minivm-img and minivm-nbd: --object)
 * and that other options name by their id: TLS credentials, secrets and so on.
 *
 * A program has one table of types and one set of objects, which any thread may look up. A type's
 * own functions run one at a time.
 */
#ifndef LIB_OBJECT_H
#define LIB_OBJECT_H

#include "lib/error.h"
#include "lib/optstr.h"
#include <stdbool.h>

/* When minivm makes an object of the command line. */
enum object_phase {
	OBJECT_FIRST, /* before character devices, drives and network backends */
	OBJECT_LAST,  /* when network backends and devices exist (filters) */
};

struct object_type {
	const char *name;
	const char *help; /* its properties, as in "dir=,endpoint=client|server" */
	enum object_phase phase;
	/*
	 * Makes one. `context` is what object_add() was given: the struct machine in minivm, NULL
	 * in the tools. Reads its properties with opts_get...(), which marks them; what is left
	 * unread is refused by the caller. NULL with one sentence.
	 */
	void *(*create)(void *context, const char *id, struct opts *opts, struct error *err);
	/* NULL: it can always be deleted. Else 0, or -EBUSY with a sentence. */
	int (*may_delete)(void *object, struct error *err);
	/* The last act; whoever still needs the object holds a reference of the type's own. */
	void (*free)(void *object);
};

/* The program's table, NULL-terminated; before any other call. */
void object_set_types(const struct object_type *const *types);
/* The type of this name; NULL with a sentence that names the nearest. */
const struct object_type *object_find_type(const char *name, struct error *err);
/* Writes the list of types to stdout (-object help). */
void object_print_help(void);

/* Makes an object from "type,id=ID,prop=value" (the first word may be qom-type=type). */
int object_add(void *context, const char *text, struct error *err);
/* The same from options that are parsed already, with the keys qom-type and id. */
int object_add_opts(void *context, struct opts *opts, struct error *err);
int object_delete(const char *id, struct error *err);
/*
 * Calls found() on the object of this id and type while it cannot go away; `found` may be NULL. 0
 * or what found() returns; -ENOENT or -EINVAL with a sentence if there is none or it is of another
 * type.
 */
int object_use(const char *id, const struct object_type *type,
	       int (*found)(void *object, void *opaque), void *opaque, struct error *err);
/* Calls each() for every object, in the order of their making. */
void object_each(void (*each)(const char *id, const struct object_type *type, void *object,
			      void *opaque),
		 void *opaque);
/* Frees the objects of one phase, the youngest first. */
void object_free_all(enum object_phase phase);

#endif
