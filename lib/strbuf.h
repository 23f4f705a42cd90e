/* SPDX-License-Identifier: MIT */
/* A growing byte buffer that is always NUL-terminated behind `len`. Running out of memory ends the
 * program with a message (host memory for text is not guest-controlled). */
#ifndef LIB_STRBUF_H
#define LIB_STRBUF_H

#include <stdarg.h>
#include <stddef.h>

struct strbuf {
	char *data; /* never NULL after the first append; see strbuf_str() */
	size_t len, cap;
};

#define STRBUF_INIT ((struct strbuf){0})

void strbuf_append(struct strbuf *sb, const void *bytes, size_t len);
void strbuf_puts(struct strbuf *sb, const char *text);
void strbuf_printf(struct strbuf *sb, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void strbuf_vprintf(struct strbuf *sb, const char *fmt, va_list ap);
/* Removes the first `n` bytes. */
void strbuf_consume(struct strbuf *sb, size_t n);
/* The contents as a string; "" while empty. Valid until the next change. */
const char *strbuf_str(const struct strbuf *sb);
/* Hands the malloc'ed string to the caller and empties the buffer. */
char *strbuf_steal(struct strbuf *sb);
void strbuf_free(struct strbuf *sb);

#endif
