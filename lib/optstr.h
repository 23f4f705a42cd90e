/* SPDX-License-Identifier: MIT */
/*
 * QEMU-style option strings: "value,key=value,flag,other=a,,b" (",," is a literal comma; a bare
 * word is key "on", "noflag" is flag=off only when the consumer says so).
 *
 * Each key is marked when it is read, so that opts_check_unused() can name the one that nobody
 * knows.
 */
#ifndef LIB_OPTSTR_H
#define LIB_OPTSTR_H

#include "lib/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct opt {
	char *key;
	char *value;
	bool bare; /* given as a word without '=' */
	bool used;
};

struct opts {
	struct opt *item;
	size_t count;
	char *source; /* the whole string as typed, for messages */
};

/*
 * Parses `text`. When `implied_key` is not NULL, a first part without '=' is the value of that key
 * ("-drive disk.img" style: implied_key "file"). Owns copies of everything; free with opts_free().
 */
int opts_parse(struct opts *opts, const char *text, const char *implied_key, struct error *err);
void opts_free(struct opts *opts);

/* The last value given for `key`, or NULL. Marks it used. Valid until opts_free(). */
const char *opts_get(struct opts *opts, const char *key);
bool opts_has(const struct opts *opts, const char *key);
/* Appends an entry. */
void opts_set(struct opts *opts, const char *key, const char *value);

/* Typed readers: leave *out alone and return 0 when the key is absent; -EINVAL with a sentence that
 * names the key, the value and what is allowed when it is malformed. */
int opts_get_bool(struct opts *opts, const char *key, bool *out,
		  struct error *err); /* on|off|yes|no|true|false|y|n */
int opts_get_u64(struct opts *opts, const char *key, uint64_t *out,
		 struct error *err); /* 10, 0x10 */
int opts_get_size(struct opts *opts, const char *key, uint64_t *out,
		  struct error *err); /* 10M, 1.5G; bytes */
/* One of `choices` (NULL-terminated); *out becomes its index. */
int opts_get_enum(struct opts *opts, const char *key, const char *const *choices, int *out,
		  struct error *err);
/* -EINVAL naming the first key that nobody read, with the nearest of `known` (NULL-terminated, may
 * be NULL). `what` names the option in the message, such as "-drive". */
int opts_check_unused(const struct opts *opts, const char *what, const char *const *known,
		      struct error *err);
/* QEMU's rule for the ids of objects, devices and backends: a letter, then letters, digits, '-',
 * '.' and '_'. -EINVAL with a sentence if it is broken. */
int opts_check_id(const char *id, struct error *err);

#endif
