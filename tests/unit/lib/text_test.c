/* SPDX-License-Identifier: MIT */
/* Errors, sizes, nearest words, string buffers, option strings, whole files. */
#include "lib/optstr.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void error_texts_join_and_never_overflow(void **state)
{
	struct error err = ERROR_INIT;
	assert_int_equal(error_set(&err, EINVAL, "bad '%s'", "x"), -EINVAL);
	assert_string_equal(err.text, "bad 'x'");
	assert_int_equal(error_errno(&err, ENOENT, "cannot open '%s'", "f"), -ENOENT);
	assert_string_equal(err.text, "cannot open 'f': No such file or directory");
	assert_int_equal(err.code, ENOENT);
	error_prefix(&err, "drive %d", 3);
	assert_string_equal(err.text, "drive 3: cannot open 'f': No such file or directory");
	for (int i = 0; i < 200; i++)
		error_prefix(&err, "a rather long prefix number %d", i);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	assert_int_equal(error_set(NULL, EIO, "nobody listens"), -EIO);
}

static void sizes_parse_as_users_type_them(void **state)
{
	static const struct {
		const char *text;
		uint64_t unit, bytes;
		int rc;
	} cases[] = {
		{"64", 1, 64, 0},
		{"64", 1 << 20, 64 << 20, 0},
		{"64k", 1, 65536, 0},
		{"64K", 1 << 20, 65536, 0},
		{"1.5G", 1, UINT64_C(3) << 29, 0},
		{"0.5k", 1, 512, 0},
		{"0x200", 1, 512, 0},
		{"0b", 1 << 20, 0, 0},
		{"15E", 1, UINT64_C(15) << 60, 0},
		{"16E", 1, 0, -ERANGE},
		{"99999999999999999999", 1, 0, -ERANGE},
		{"", 1, 0, -EINVAL},
		{"-1", 1, 0, -EINVAL},
		{" 1", 1, 0, -EINVAL},
		{"1.5", 1, 0, -EINVAL},
		{"1.k", 1, 0, -EINVAL},
		{"12Q", 1, 0, -EINVAL},
		{"12kk", 1, 0, -EINVAL},
		{"0x", 1, 0, -EINVAL},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t v = 0;
		struct error err = ERROR_INIT;
		int rc = parse_size(cases[i].text, cases[i].unit, &v, &err);
		if (rc != cases[i].rc || (rc == 0 && v != cases[i].bytes))
			fail_msg("'%s': rc %d value %llu", cases[i].text, rc,
				 (unsigned long long)v);
		if (rc)
			assert_int_equal(err.code, -rc);
	}
}

static void numbers_keep_their_bounds(void **state)
{
	uint64_t v = 7;
	struct error err = ERROR_INIT;
	assert_int_equal(parse_u64("10", "cpus", 1, 16, &v, &err), 0);
	assert_int_equal(v, 10);
	assert_int_equal(parse_u64("0x10", "cpus", 1, 16, &v, &err), 0);
	assert_int_equal(v, 16);
	assert_int_equal(parse_u64("17", "cpus", 1, 16, &v, &err), -ERANGE);
	assert_string_equal(err.text, "cpus must be between 1 and 16, not '17'");
	assert_int_equal(parse_u64("1x", "cpus", 1, 16, &v, &err), -EINVAL);
	assert_int_equal(parse_u64("-1", "cpus", 0, UINT64_MAX, &v, &err), -EINVAL);
	assert_int_equal(v, 16);
}

static void sizes_print_with_three_digits(void **state)
{
	char out[32];
	assert_string_equal(format_size(0, out), "0 B");
	assert_string_equal(format_size(512, out), "512 B");
	assert_string_equal(format_size(1000, out), "0.977 KiB");
	assert_string_equal(format_size(196 * 1024, out), "196 KiB");
	assert_string_equal(format_size(UINT64_C(3) << 29, out), "1.5 GiB");
	assert_string_equal(format_size(UINT64_C(1) << 63, out), "8 EiB");
}

static void nearest_word_finds_typing_errors_only(void **state)
{
	static const char *const words[] = {"-hda", "-hdb", "-cdrom", "-snapshot", "-m", NULL};
	assert_string_equal(nearest_word("-snapshto", words), "-snapshot");
	assert_string_equal(nearest_word("-cdorm", words), "-cdrom");
	assert_string_equal(nearest_word("-HDA", words), "-hda");
	assert_null(nearest_word("-frobnicate", words));
	assert_null(nearest_word("", words));
	char longword[300];
	memset(longword, 'a', sizeof(longword));
	longword[299] = 0;
	assert_null(nearest_word(longword, words));
}

static void strbuf_grows_consumes_and_steals(void **state)
{
	struct strbuf sb = STRBUF_INIT;
	assert_string_equal(strbuf_str(&sb), "");
	for (int i = 0; i < 1000; i++)
		strbuf_printf(&sb, "%03d,", i);
	assert_int_equal(sb.len, 4000);
	assert_memory_equal(sb.data + 3996, "999,", 5);
	strbuf_consume(&sb, 3996);
	assert_string_equal(strbuf_str(&sb), "999,");
	strbuf_consume(&sb, 100);
	assert_string_equal(strbuf_str(&sb), "");
	strbuf_append(&sb, "a\0b", 3);
	assert_int_equal(sb.len, 3);
	char *s = strbuf_steal(&sb);
	assert_memory_equal(s, "a\0b", 4);
	free(s);
	s = strbuf_steal(&sb);
	assert_string_equal(s, "");
	free(s);
	strbuf_free(&sb);
}

static void options_split_at_single_commas(void **state)
{
	struct opts o;
	struct error err = ERROR_INIT;
	assert_int_equal(opts_parse(&o, "a,,b,format=raw,snapshot,x=1,x=2,e=", "file", &err), 0);
	assert_string_equal(opts_get(&o, "file"), "a,b");
	assert_string_equal(opts_get(&o, "format"), "raw");
	assert_string_equal(opts_get(&o, "snapshot"), "on");
	assert_string_equal(opts_get(&o, "e"), "");
	assert_true(o.item[2].bare);
	assert_null(opts_get(&o, "absent"));
	assert_int_equal(opts_check_unused(&o, "-drive", NULL, &err), -EINVAL);
	assert_string_equal(err.text, "-drive: unknown parameter 'x'");
	assert_string_equal(opts_get(&o, "x"), "2");
	assert_int_equal(opts_check_unused(&o, "-drive", NULL, &err), 0);
	opts_set(&o, "fromat", "raw");
	static const char *const known[] = {"file", "format", NULL};
	assert_int_equal(opts_check_unused(&o, "-drive", known, &err), -EINVAL);
	assert_string_equal(err.text, "-drive: unknown parameter 'fromat'; did you mean 'format'?");
	opts_free(&o);

	assert_int_equal(opts_parse(&o, "", "file", &err), 0);
	assert_int_equal(o.count, 0);
	opts_free(&o);
	assert_int_equal(opts_parse(&o, "a=1,=2", NULL, &err), -EINVAL);
	/* a first part with '=' is not the implied key's value */
	assert_int_equal(opts_parse(&o, "file=x=y", "file", &err), 0);
	assert_string_equal(opts_get(&o, "file"), "x=y");
	opts_free(&o);
}

static void typed_options_name_what_is_allowed(void **state)
{
	struct opts o;
	struct error err = ERROR_INIT;
	static const char *const kinds[] = {"ide", "floppy", "none", NULL};
	bool b = false;
	uint64_t v = 0;
	int kind = -1;
	assert_int_equal(opts_parse(&o, "r=on,s=10M,n=0x10,if=floppy,bad=maybe,badif=scsi,big=1Z",
				    NULL, &err),
			 0);
	assert_int_equal(opts_get_bool(&o, "r", &b, &err), 0);
	assert_true(b);
	assert_int_equal(opts_get_size(&o, "s", &v, &err), 0);
	assert_int_equal(v, 10 << 20);
	assert_int_equal(opts_get_u64(&o, "n", &v, &err), 0);
	assert_int_equal(v, 16);
	assert_int_equal(opts_get_enum(&o, "if", kinds, &kind, &err), 0);
	assert_int_equal(kind, 1);
	assert_int_equal(opts_get_bool(&o, "bad", &b, &err), -EINVAL);
	assert_string_equal(err.text, "'bad' must be 'on' or 'off', not 'maybe'");
	assert_int_equal(opts_get_enum(&o, "badif", kinds, &kind, &err), -EINVAL);
	assert_string_equal(err.text, "'badif' must be 'ide', 'floppy' or 'none', not 'scsi'");
	assert_int_equal(opts_get_size(&o, "big", &v, &err), -EINVAL);
	assert_int_equal(opts_get_bool(&o, "absent", &b, &err), 0);
	assert_true(b);
	opts_free(&o);
}

static void read_file_is_bounded(void **state)
{
	char path[] = "/tmp/minivm-text-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write_full(fd, "0123456789", 10), 0);
	size_t len = 0;
	struct error err = ERROR_INIT;
	char *data = read_file(path, 10, &len, &err);
	assert_non_null(data);
	assert_int_equal(len, 10);
	assert_string_equal(data, "0123456789");
	free(data);
	assert_null(read_file(path, 9, &len, &err));
	assert_int_equal(err.code, EFBIG);
	char buf[4];
	assert_int_equal(pread_full(fd, buf, 4, 6), 0);
	assert_memory_equal(buf, "6789", 4);
	assert_int_equal(pread_full(fd, buf, 4, 7), -EIO);
	close(fd);
	unlink(path);
	assert_null(read_file(path, 9, &len, &err));
	assert_int_equal(err.code, ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(error_texts_join_and_never_overflow),
		cmocka_unit_test(sizes_parse_as_users_type_them),
		cmocka_unit_test(numbers_keep_their_bounds),
		cmocka_unit_test(sizes_print_with_three_digits),
		cmocka_unit_test(nearest_word_finds_typing_errors_only),
		cmocka_unit_test(strbuf_grows_consumes_and_steals),
		cmocka_unit_test(options_split_at_single_commas),
		cmocka_unit_test(typed_options_name_what_is_allowed),
		cmocka_unit_test(read_file_is_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
