/* SPDX-License-Identifier: MIT */
/*
 * Secrets (secret.h): the bytes of data= or of a file, plain or in Base64 (RFC 4648, section 4).
 * QEMU's encrypted secrets (keyid=, iv=) are left out.
 */
#include "lib/secret.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SECRET = 64 * 1024 };

struct secret {
	char *bytes; /* NUL behind them */
	size_t len;
};

static int base64_digit(char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;
	return at ? (int)(at - digits) : -1;
}

/* Decodes in place; false if it is not Base64. White space between digits is left out. */
static bool base64_decode(struct secret *s)
{
	unsigned bits = 0, have = 0, digits = 0, pads = 0;
	size_t out = 0;
	for (size_t i = 0; i < s->len; i++) {
		char c = s->bytes[i];
		if (c == '\n' || c == '\r' || c == ' ' || c == '\t')
			continue;
		if (c == '=') {
			pads++;
			continue;
		}
		int digit = base64_digit(c);
		if (digit < 0 || pads)
			return false;
		digits++;
		bits = bits << 6 | (unsigned)digit;
		have += 6;
		if (have >= 8) {
			have -= 8;
			s->bytes[out++] = (char)(bits >> have);
			bits &= (1u << have) - 1;
		}
	}
	s->len = out;
	s->bytes[out] = 0;
	return pads <= 2 && (digits + pads) % 4 == 0;
}

static void secret_free(void *object)
{
	struct secret *s = object;
	if (s->bytes)
		explicit_bzero(s->bytes, s->len);
	free(s->bytes);
	free(s);
}

static void *secret_create(void *context, const char *id, struct opts *opts, struct error *err)
{
	static const char *const formats[] = {"raw", "base64", NULL};
	const char *data = opts_get(opts, "data"), *file = opts_get(opts, "file");
	int format = 0;
	if (opts_get_enum(opts, "format", formats, &format, err) < 0)
		return NULL;
	if (opts_has(opts, "keyid") || opts_has(opts, "iv")) {
		error_set(err, ENOTSUP,
			  "encrypted secrets (keyid=, iv=) are not supported; put it in a file "
			  "that only you can read and use file=");
		return NULL;
	}
	if (!data == !file) {
		error_set(err, EINVAL, "a secret needs either data= or file=");
		return NULL;
	}
	struct secret *s = xcalloc(1, sizeof(*s));
	if (file)
		s->bytes = read_file(file, MAX_SECRET, &s->len, err);
	else
		s->bytes = xstrdup(data), s->len = strlen(data);
	if (!s->bytes) {
		secret_free(s);
		return NULL;
	}
	if (format == 1 && !base64_decode(s)) {
		error_set(err, EINVAL, "secret '%s' is not in Base64; leave format=base64 out", id);
		secret_free(s);
		return NULL;
	}
	return s;
}

const struct object_type secret_type = {
	.name = "secret",
	.help = "data=TEXT or file=PATH, format=raw|base64",
	.create = secret_create,
	.free = secret_free,
};

static int copy(void *object, void *opaque)
{
	const struct secret *s = object;
	struct secret *out = opaque;
	out->bytes = xcalloc(1, s->len + 1);
	out->len = s->len;
	memcpy(out->bytes, s->bytes, s->len);
	return 0;
}

char *secret_copy(const char *id, size_t *len, struct error *err)
{
	struct secret out = {0};
	if (object_use(id, &secret_type, copy, &out, err) < 0)
		return NULL;
	*len = out.len;
	return out.bytes;
}
