/* SPDX-License-Identifier: MIT */
/* The growing byte buffer of strbuf.h. Capacity doubles, so appending is linear overall. */
#include "lib/strbuf.h"
#include "lib/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for `extra` more bytes and the NUL. */
static void reserve(struct strbuf *sb, size_t extra)
{
	size_t need;
	if (__builtin_add_overflow(sb->len, extra, &need) || __builtin_add_overflow(need, 1, &need))
		need = SIZE_MAX; /* xrealloc() reports it */
	if (need <= sb->cap)
		return;
	size_t cap = sb->cap > SIZE_MAX / 2 ? need : sb->cap * 2;
	if (cap < need)
		cap = need;
	if (cap < 64)
		cap = 64;
	sb->data = xrealloc(sb->data, cap);
	sb->cap = cap;
}

void strbuf_append(struct strbuf *sb, const void *bytes, size_t len)
{
	reserve(sb, len);
	if (len)
		memcpy(sb->data + sb->len, bytes, len);
	sb->len += len;
	sb->data[sb->len] = '\0';
}

void strbuf_puts(struct strbuf *sb, const char *text)
{
	strbuf_append(sb, text, strlen(text));
}

void strbuf_vprintf(struct strbuf *sb, const char *fmt, va_list ap)
{
	va_list again;
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	if (n >= 0) {
		reserve(sb, (size_t)n);
		vsnprintf(sb->data + sb->len, (size_t)n + 1, fmt, again);
		sb->len += (size_t)n;
	}
	va_end(again);
}

void strbuf_printf(struct strbuf *sb, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	strbuf_vprintf(sb, fmt, ap);
	va_end(ap);
}

void strbuf_consume(struct strbuf *sb, size_t n)
{
	if (n > sb->len)
		n = sb->len;
	if (!n)
		return;
	sb->len -= n;
	memmove(sb->data, sb->data + n, sb->len + 1);
}

const char *strbuf_str(const struct strbuf *sb)
{
	return sb->data ? sb->data : "";
}

char *strbuf_steal(struct strbuf *sb)
{
	reserve(sb, 0);
	char *text = sb->data;
	text[sb->len] = '\0';
	*sb = STRBUF_INIT;
	return text;
}

void strbuf_free(struct strbuf *sb)
{
	free(sb->data);
	*sb = STRBUF_INIT;
}
