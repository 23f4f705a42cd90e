/* SPDX-License-Identifier: MIT */
/* Image names as users and image headers write them. */
#ifndef BLOCK_PATH_H
#define BLOCK_PATH_H

#include "lib/error.h"
#include "lib/optstr.h"
#include <stdbool.h>

/*
 * The host path behind `name`: "file:PATH" loses its prefix, "json:{...}" gives its file.filename
 * (and its driver through *format, malloc'ed, if it names one; format may be NULL), an NBD address
 * stays as it is, any other protocol is refused. malloc'ed, or NULL with an error.
 */
char *path_of_name(const char *name, char **format, struct error *err);
/* True if `name` is "json:{...}" with an NBD node: its members in *opts, those of an object within it
 * with dotted keys ("file.server.host"), for opts_free(). */
bool path_nbd_json(const char *name, struct opts *opts);
/* The members of a "json:{...}" name likewise, whatever it describes. 0 or -errno with a sentence. */
int path_json(const char *name, struct opts *opts, struct error *err);
/* True for "/x" and for names with a protocol, which do not depend on a directory. */
bool path_is_absolute(const char *name);
/* The directory part of a path with its slash ("./" if it has none), malloc'ed. */
char *path_directory(const char *path);
/* `name` as seen from the directory of `of`, malloc'ed. */
char *path_combine(const char *of, const char *name);

#endif
