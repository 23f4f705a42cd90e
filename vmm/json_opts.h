/* SPDX-License-Identifier: MIT */
/* Options written as JSON, as QEMU takes them for -netdev, -device and -object, and as QMP's arguments. */
#ifndef VMM_JSON_OPTS_H
#define VMM_JSON_OPTS_H

#include "lib/error.h"
#include "lib/optstr.h"

struct json_object;

/*
 * Appends the members of an object: {"a":{"b":1}} gives a.b=1; a list gives its key once for each
 * element, which may be an object with the one member "str" or that of the text alone.
 */
void json_to_opts(struct json_object *object, struct opts *opts);

/*
 * `arg`, or if it is a JSON object the same as "VALUE-OF-FIRST-KEY,key=value,...". It lives as long as the
 * program. NULL with one sentence.
 */
const char *json_option(const char *option, const char *arg, const char *first_key,
			struct error *err);

#endif
