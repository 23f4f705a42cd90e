/* SPDX-License-Identifier: MIT */
/* Secrets: plain, in Base64, and encrypted with another one. */
#include "lib/object.h"
#include "lib/secret.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const struct object_type *const types[] = {&secret_type, NULL};

/* NULL if it is taken, else the sentence. */
static const char *add(const char *text)
{
	static struct error err;
	err = (struct error)ERROR_INIT;
	return object_add(NULL, text, &err) ? err.text : NULL;
}

static void expect(const char *id, const void *bytes, size_t len)
{
	struct error err = ERROR_INIT;
	size_t n;
	char *got = secret_copy(id, &n, &err);
	assert_non_null(got);
	assert_int_equal(n, len);
	assert_memory_equal(got, bytes, len);
	assert_int_equal(got[n], 0);
	free(got);
}

static void refuse(const char *text, const char *why)
{
	const char *said = add(text);
	if (!said || !strstr(said, why))
		fail_msg("%s: %s", text, said ? said : "taken");
}

static void bytes_come_as_they_are_or_in_base64(void **state)
{
	assert_null(add("secret,id=plain,data=a b,,c"));
	expect("plain", "a b,c", 5);
	assert_null(add("secret,id=coded,data=AP8B/g==,format=base64"));
	expect("coded", "\0\xff\1\xfe", 4);
	refuse("secret,id=x,data=AP8B/g=,format=base64", "not in Base64");
	refuse("secret,id=x", "either data= or file=");
	refuse("secret,id=x,data=1,file=2", "either data= or file=");
	object_free_all(OBJECT_FIRST);
}

#ifdef HAVE_GNUTLS

/* NIST SP 800-38A, F.2.5: the key, the IV and the first two blocks of CBC-AES256, whose second
 * plaintext block is here the padding of a full block:
 *   openssl enc -aes-256-cbc -K 603deb10... -iv 00010203... */
#define KEY "YD3rEBXKcb4rc67whX13gR81LAc7YQjXLZgQowkU3/Q="
#define IV  "AAECAwQFBgcICQoLDA0ODw=="

static void a_secret_is_decrypted_with_another(void **state)
{
	assert_null(add("secret,id=key,format=base64,data=" KEY));
	/* the 16 bytes of the standard's first block */
	assert_null(add("secret,id=nist,keyid=key,iv=" IV ",format=base64,data="
			"9YxMBNbl8bp3nqv7X3v71khaXIFRnPN4+jbUK4VH7cA="));
	expect("nist", "\x6b\xc1\xbe\xe2\x2e\x40\x9f\x96\xe9\x3d\x7e\x11\x73\x93\x17\x2a", 16);
	/* "correct horse battery staple" */
	assert_null(add("secret,id=word,keyid=key,iv=" IV ",format=base64,data="
			"ITamFLnEyT5A2xCo61nNpuwiEZEkrDwDtmehS/63xJE="));
	expect("word", "correct horse battery staple", 28);
	/* an empty one is padding alone */
	assert_null(add("secret,id=empty,keyid=key,iv=" IV
			",format=base64,data=fpJI5dgpynWT8MVJ2y9bjA=="));
	expect("empty", "", 0);
	/* from a file, as the bytes are */
	static const unsigned char raw[] = {0x7e, 0x92, 0x48, 0xe5, 0xd8, 0x29, 0xca, 0x75,
					    0x93, 0xf0, 0xc5, 0x49, 0xdb, 0x2f, 0x5b, 0x8c};
	char path[] = "/tmp/minivm-secret-XXXXXX", text[200];
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, raw, sizeof(raw)), sizeof(raw));
	close(fd);
	snprintf(text, sizeof(text), "secret,id=file,keyid=key,iv=" IV ",file=%s", path);
	assert_null(add(text));
	expect("file", "", 0);
	unlink(path);
	object_free_all(OBJECT_FIRST);
}

static void a_wrong_key_iv_or_length_is_told(void **state)
{
#define DATA ",format=base64,data=ITamFLnEyT5A2xCo61nNpuwiEZEkrDwDtmehS/63xJE="
	assert_null(add("secret,id=key,format=base64,data=" KEY));
	assert_null(add("secret,id=other,data=0123456789abcdef0123456789abcdef"));
	assert_null(add("secret,id=short,data=0123456789abcdef"));
	refuse("secret,id=x,keyid=none,iv=" IV DATA, "no -object with id=none");
	refuse("secret,id=x,keyid=x,iv=" IV DATA, "no -object with id=x");
	refuse("secret,id=x,keyid=short,iv=" IV DATA, "16 bytes, but AES-256 needs 32");
	refuse("secret,id=x,keyid=other,iv=" IV DATA, "padding is wrong");
	refuse("secret,id=x,keyid=key" DATA, "needs iv=");
	refuse("secret,id=x,iv=" IV DATA, "needs keyid=");
	refuse("secret,id=x,keyid=key,iv=AAEC" DATA, "iv= must be 16 bytes");
	refuse("secret,id=x,keyid=key,iv=%%%" DATA, "iv= must be 16 bytes");
	refuse("secret,id=x,keyid=key,iv=" IV ",data=0123456789", "10 bytes are not");
	refuse("secret,id=x,keyid=key,iv=" IV ",data=", "0 bytes are not");
	object_free_all(OBJECT_FIRST);
}

#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_come_as_they_are_or_in_base64),
#ifdef HAVE_GNUTLS
		cmocka_unit_test(a_secret_is_decrypted_with_another),
		cmocka_unit_test(a_wrong_key_iv_or_length_is_told),
#endif
	};
	object_set_types(types);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
