/* SPDX-License-Identifier: MIT */
/*
 * Secrets (secret.h): the bytes of data= or of a file, plain or in Base64 (RFC 4648, section 4).
 *
 * With keyid= they are encrypted, so that they can stand on a command line: AES-256 in CBC mode
 * (FIPS 197; NIST SP 800-38A, 6.2) with PKCS #7 padding (RFC 5652, 6.3), the key being the 32 bytes
 * of another secret and iv= 16 bytes in Base64.
 */
#include "lib/secret.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#ifdef HAVE_GNUTLS
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#endif

enum { MAX_SECRET = 64 * 1024, KEY_BYTES = 32, BLOCK_BYTES = 16 };

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

static void wipe(struct secret *s)
{
	if (s->bytes)
		explicit_bzero(s->bytes, s->len);
	free(s->bytes);
	*s = (struct secret){0};
}

static void secret_free(void *object)
{
	wipe(object);
	free(object);
}

#ifdef HAVE_GNUTLS
static int decipher(struct secret *s, const struct secret *key, const struct secret *iv,
		    struct error *err)
{
	gnutls_cipher_hd_t cipher;
	gnutls_datum_t k = {(unsigned char *)key->bytes, (unsigned)key->len};
	gnutls_datum_t v = {(unsigned char *)iv->bytes, (unsigned)iv->len};
	int rc = gnutls_cipher_init(&cipher, GNUTLS_CIPHER_AES_256_CBC, &k, &v);
	if (rc >= 0) {
		rc = gnutls_cipher_decrypt(cipher, s->bytes, s->len);
		gnutls_cipher_deinit(cipher);
	}
	return rc < 0 ? error_set(err, EIO, "AES-256-CBC: %s", gnutls_strerror(rc)) : 0;
}
#else
static int decipher(struct secret *s, const struct secret *key, const struct secret *iv,
		    struct error *err)
{
	return error_set(err, ENOTSUP,
			 "encrypted secrets (keyid=) are not in this build: it was made without "
			 "GnuTLS");
}
#endif

/* Each byte of the padding says how many there are. */
static int drop_padding(struct secret *s, struct error *err)
{
	unsigned n = (unsigned char)s->bytes[s->len - 1];
	bool ok = n >= 1 && n <= BLOCK_BYTES;
	for (unsigned i = 1; ok && i <= n; i++)
		ok = (unsigned char)s->bytes[s->len - i] == n;
	if (!ok)
		return error_set(err, EINVAL,
				 "it is not encrypted with this key and IV: the padding is wrong");
	s->len -= n;
	s->bytes[s->len] = 0;
	return 0;
}

static int decrypt(struct secret *s, const char *keyid, const char *iv_text, struct error *err)
{
	struct secret key = {0}, iv = {0};
	int rc = 0;
	if (!iv_text)
		return error_set(err, EINVAL, "an encrypted secret (keyid=) needs iv=");
	iv = (struct secret){xstrdup(iv_text), strlen(iv_text)};
	key.bytes = secret_copy(keyid, &key.len, err);
	if (!key.bytes)
		rc = -EINVAL;
	else if (key.len != KEY_BYTES)
		rc = error_set(err, EINVAL, "the key '%s' has %zu bytes, but AES-256 needs %d",
			       keyid, key.len, KEY_BYTES);
	else if (!base64_decode(&iv) || iv.len != BLOCK_BYTES)
		rc = error_set(err, EINVAL, "iv= must be %d bytes in Base64", BLOCK_BYTES);
	else if (!s->len || s->len % BLOCK_BYTES)
		rc = error_set(err, EINVAL,
			       "%zu bytes are not AES-CBC blocks of %d; format=base64 is for text",
			       s->len, BLOCK_BYTES);
	else if (!(rc = decipher(s, &key, &iv, err)))
		rc = drop_padding(s, err);
	wipe(&key);
	wipe(&iv);
	return rc;
}

static void *secret_create(void *context, const char *id, struct opts *opts, struct error *err)
{
	static const char *const formats[] = {"raw", "base64", NULL};
	const char *data = opts_get(opts, "data"), *file = opts_get(opts, "file");
	int format = 0;
	if (opts_get_enum(opts, "format", formats, &format, err) < 0)
		return NULL;
	const char *keyid = opts_get(opts, "keyid"), *iv = opts_get(opts, "iv");
	if (iv && !keyid) {
		error_set(err, EINVAL, "iv= needs keyid=, the secret that is the key");
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
	if (keyid && decrypt(s, keyid, iv, err)) {
		error_prefix(err, "secret '%s'", id);
		secret_free(s);
		return NULL;
	}
	return s;
}

const struct object_type secret_type = {
	.name = "secret",
	.help = "data=TEXT or file=PATH, format=raw|base64, keyid=ID, iv=BASE64",
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
