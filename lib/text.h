/* SPDX-License-Identifier: MIT */
/* Small text helpers: numbers and sizes as users type them, the nearest known word, strings that
 * must not fail. */
#ifndef LIB_TEXT_H
#define LIB_TEXT_H

#include "lib/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Parses "64", "64k", "1.5G", "0x200" with suffix b, k, K, M, G, T, P, E (powers of 1024) into
 * bytes. A number without suffix is multiplied by `default_unit` (1 for bytes, MIB for `-m`).
 * -EINVAL for a malformed one, -ERANGE for one that does not fit.
 */
int parse_size(const char *text, uint64_t default_unit, uint64_t *bytes, struct error *err);
/* A whole decimal or 0x number within [min, max]. `what` names it in the message. */
int parse_u64(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *out,
	      struct error *err);
/* "64 MiB", "1.5 GiB", "512 B" as qemu-img info prints sizes. Writes into `out` and returns it. */
char *format_size(uint64_t bytes, char out[32]);
/* The word of the NULL-terminated list nearest to `word` by edit distance, or NULL if none is near.
 */
const char *nearest_word(const char *word, const char *const *list);

/* malloc family that ends the program with a message when the host has no memory. Never pass them a
 * size that the guest or an image chose: those use plain malloc and check. */
void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* write/pread/pwrite until all is done or it fails; -errno, or 0. A short pread at end of file
 * is -EIO. */
int write_full(int fd, const void *buf, size_t len);
int pread_full(int fd, void *buf, size_t len, uint64_t offset);
int pwrite_full(int fd, const void *buf, size_t len, uint64_t offset);
/* Reads a whole file of at most `max` bytes; the malloc'ed contents (NUL-terminated behind *len) or
 * NULL. */
void *read_file(const char *path, size_t max, size_t *len, struct error *err);

#endif
