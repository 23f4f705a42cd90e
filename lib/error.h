/* SPDX-License-Identifier: MIT */
/*
 * Errors that a user can act on.
 *
 * A function that can fail takes a `struct error *` as its last parameter, returns a negative errno
 * (or NULL from a constructor) and fills the error with one sentence: what failed, on what, why,
 * and after a semicolon what to try. Lower case, no full stop, values in single quotes.
 */
#ifndef LIB_ERROR_H
#define LIB_ERROR_H

struct error {
	int code; /* the positive errno; 0 while nothing failed */
	char text[1024];
};

#define ERROR_INIT ((struct error){0})

/*
 * Fills `err` (which may be NULL: the caller does not want the text) with the formatted sentence
 * and returns -code, so that `return error_set(err, EINVAL, "...")` reads well. `code` is a
 * positive errno.
 */
int error_set(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* As error_set(), with ": " and strerror(code) appended. */
int error_errno(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts the formatted text and ": " before the sentence already in `err`. */
void error_prefix(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
