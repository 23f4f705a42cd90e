/* SPDX-License-Identifier: MIT */
/* -object secret: a password or key, given on the command line or in a file. */
#ifndef LIB_SECRET_H
#define LIB_SECRET_H

#include "lib/error.h"
#include "lib/object.h"
#include <stddef.h>

extern const struct object_type secret_type;

/* A malloc'ed copy of the secret with this id, with a NUL byte behind its *len bytes; NULL with a
 * sentence. */
char *secret_copy(const char *id, size_t *len, struct error *err);

#endif
