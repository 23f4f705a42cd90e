/* SPDX-License-Identifier: MIT */
/* What the NBD client makes of servers' greetings and offers, and of the names of exports. */
#include "tests/unit/block/nbd_words.h"

static void must_refuse(struct strbuf *words, const char *part)
{
	struct error err = ERROR_INIT;
	struct nbd_client *c = connect_to(words, "disk", false, &err);
	if (c || !strstr(err.text, part))
		fail_msg("it said '%s', not '%s'", c ? "yes" : err.text, part);
}

static void old_servers_are_understood(void **state)
{
	struct strbuf sb = STRBUF_INIT;
	put(&sb, NBD_MAGIC, 8);
	put(&sb, NBD_OLDSTYLE_MAGIC, 8);
	put(&sb, SIZE, 8);
	put(&sb, NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY, 4);
	put_zeroes(&sb, NBD_EXPORT_ZEROES);
	struct nbd_client *c = must_connect(&sb, "");
	assert_int_equal(nbd_client_export(c)->size, SIZE);
	assert_int_equal(nbd_client_export(c)->flags, NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY);
	assert_int_equal(nbd_client_export(c)->min_block, 512);
	nbd_client_close(c);

	/* Newstyle that is not fixed; without NO_ZEROES, and with a size that has no whole sectors. */
	greet(&sb, 0);
	put(&sb, SIZE + 1, 8);
	put(&sb, NBD_FLAG_HAS_FLAGS, 2);
	put_zeroes(&sb, NBD_EXPORT_ZEROES);
	c = must_connect(&sb, "disk");
	assert_int_equal(nbd_client_export(c)->size, SIZE + 1);
	assert_int_equal(nbd_client_export(c)->min_block, 1);
	nbd_client_close(c);

	/* Fixed newstyle without GO. Flags without HAS_FLAGS mean nothing. */
	up_to_go(&sb, false);
	reply(&sb, NBD_OPT_GO, NBD_REP_ERR_UNSUP, 5);
	strbuf_puts(&sb, "never");
	put(&sb, SIZE, 8);
	put(&sb, NBD_FLAG_READ_ONLY, 2);
	c = must_connect(&sb, "disk");
	assert_int_equal(nbd_client_export(c)->flags, 0);
	nbd_client_close(c);
}

static void handshake_negotiates_everything(void **state)
{
	struct strbuf sb = STRBUF_INIT;
	up_to_go(&sb, true);
	/* Information that was not asked for is skipped. */
	reply(&sb, NBD_OPT_GO, NBD_REP_INFO, 6);
	put(&sb, NBD_INFO_NAME, 2);
	strbuf_puts(&sb, "disk");
	info_blocks(&sb, 4096, 65536, UINT32_MAX);
	info_export(&sb, SIZE, ALL_FLAGS);
	reply(&sb, NBD_OPT_GO, NBD_REP_ACK, 0);
	struct nbd_client *c = must_connect(&sb, "disk");
	const struct nbd_export *e = nbd_client_export(c);
	assert_true(e->structured && e->has_context);
	assert_int_equal(e->context, CONTEXT);
	assert_int_equal(e->flags, ALL_FLAGS);
	assert_int_equal(e->min_block, 4096);
	assert_int_equal(e->max_block, NBD_MAX_PAYLOAD);
	nbd_client_close(c);
}

static void what_is_no_server_is_refused(void **state)
{
	struct strbuf sb = STRBUF_INIT;
	must_refuse(&sb, "closed the connection");
	strbuf_puts(&sb, "SSH-2.0-OpenSSH_9.2\r\n and more of it");
	must_refuse(&sb, "NBDMAGIC");
	put(&sb, NBD_MAGIC, 8);
	put(&sb, NBD_MAGIC, 8);
	must_refuse(&sb, "unknown style");
	greet(&sb, NBD_FLAG_FIXED_NEWSTYLE);
	put_zeroes(&sb, 100);
	must_refuse(&sb, "wrong header");
	greet(&sb, NBD_FLAG_FIXED_NEWSTYLE);
	reply(&sb, NBD_OPT_GO, NBD_REP_ACK, 0); /* to another option */
	must_refuse(&sb, "wrong header");
	greet(&sb, NBD_FLAG_FIXED_NEWSTYLE);
	reply(&sb, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, UINT32_MAX);
	must_refuse(&sb, "too long");
	/* A server that says nothing is not waited for without end. */
	struct error err = ERROR_INIT;
	assert_null(connect_to(&sb, "disk", true, &err));
	assert_int_equal(err.code, ETIMEDOUT);
}

static void refusals_of_the_server_are_told(void **state)
{
	struct strbuf sb = STRBUF_INIT;
	greet(&sb, NBD_FLAG_FIXED_NEWSTYLE);
	reply(&sb, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_TLS_REQD, 0);
	must_refuse(&sb, "wants TLS");
	up_to_go(&sb, true);
	reply(&sb, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, 8);
	strbuf_puts(&sb, "\033[2Jno!\n"); /* is no control sequence for our terminal */
	must_refuse(&sb, "refused export 'disk': it has no such export ( [2Jno! )");
	/* A long text is cut. */
	up_to_go(&sb, true);
	reply(&sb, NBD_OPT_GO, NBD_REP_ERR_POLICY, 60000);
	for (int i = 0; i < 60000; i++)
		put(&sb, 'x', 1);
	must_refuse(&sb, "policy forbids");
	up_to_go(&sb, false);
	reply(&sb, NBD_OPT_GO, NBD_REP_ERR_UNSUP, 0); /* and hangs up at EXPORT_NAME */
	must_refuse(&sb, "no export 'disk'");
}

static void malformed_exports_are_refused(void **state)
{
	static const struct {
		uint64_t size;
		uint32_t min, preferred, max;
		const char *part;
	} rows[] = {
		{UINT64_MAX, 1, 4096, 65536, "2^63"},
		{SIZE, 0, 4096, 65536, "minimum block size"},
		{SIZE, 3, 4096, 65536, "minimum block size"},
		{SIZE, 131072, 131072, 131072, "minimum block size"},
		{SIZE, 4096, 512, 65536, "preferred"},
		{SIZE, 4096, 5000, 65536, "preferred"},
		{SIZE, 4096, 4096, 512, "maximum"},
		{SIZE + 512, 4096, 4096, 65536, "multiple"},
	};
	struct strbuf sb = STRBUF_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		up_to_go(&sb, true);
		info_blocks(&sb, rows[i].min, rows[i].preferred, rows[i].max);
		info_export(&sb, rows[i].size, ALL_FLAGS);
		reply(&sb, NBD_OPT_GO, NBD_REP_ACK, 0);
		must_refuse(&sb, rows[i].part);
	}
	up_to_go(&sb, true);
	reply(&sb, NBD_OPT_GO, NBD_REP_ACK, 0); /* without its size */
	must_refuse(&sb, "NBD_OPT_GO is malformed");
	up_to_go(&sb, true);
	for (int i = 0; i < 1000; i++) /* without end */
		info_export(&sb, SIZE, ALL_FLAGS);
	must_refuse(&sb, "NBD_OPT_GO is malformed");
	greet(&sb, NBD_FLAG_FIXED_NEWSTYLE);
	reply(&sb, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, 0);
	meta_context(&sb, 1, "somebody:else");
	must_refuse(&sb, "not asked for");
}

/* ---- Names ---- */

static void names_are_understood(void **state)
{
	static const struct {
		const char *name, *uri;
	} rows[] = {
		{"nbd://host", "nbd://host"},
		{"nbd://host/", "nbd://host"},
		{"NBD://host:10809/x", "nbd://host/x"},
		{"nbd://host:1234/a/b%20c", "nbd://host:1234/a/b%20c"},
		{"nbd://host//x", "nbd://host//x"},
		{"nbd://[::1]:99/x", "nbd://[::1]:99/x"},
		{"nbd+unix:///?socket=/a/b", "nbd+unix:///?socket=/a/b"},
		{"nbd+unix:///x?socket=%2Fa%3Fb", "nbd+unix:///x?socket=/a%3Fb"},
		{"nbd+unix://?socket=/a", "nbd+unix:///?socket=/a"},
		{"nbds://host/x", "nbds://host/x"},
		{"nbds+unix:///x?socket=s", "nbds+unix:///x?socket=s"},
		{"nbd:host:99", "nbd://host:99"},
		{"nbd:[::1]:99", "nbd://[::1]:99"},
		{"nbd:host:99:exportname=a:b", "nbd://host:99/a:b"},
		{"nbd:unix:/a/b", "nbd+unix:///?socket=/a/b"},
		{"nbd:unix:/a/b:exportname=x", "nbd+unix:///x?socket=/a/b"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct nbd_config config = {0};
		struct error err = ERROR_INIT;
		assert_true(nbd_is_name(rows[i].name));
		if (nbd_config_parse(&config, rows[i].name, NULL, "", &err))
			fail_msg("%s: %s", rows[i].name, err.text);
		char *uri = nbd_config_uri(&config);
		assert_string_equal(uri, rows[i].uri);
		free(uri);
		nbd_config_free(&config);
	}
}

static void malformed_names_are_refused(void **state)
{
	static const struct {
		const char *name, *part;
	} rows[] = {
		{"nbd:", "names no host"},
		{"nbd:host", "names no port"},
		{"nbd:/x", "no NBD address"},
		{"nbd://", "names no host"},
		{"nbd://:99/x", "names no host"},
		{"nbd://[::1/x", "no ']'"},
		{"nbd://[::1]x/y", "behind the ']'"},
		{"nbd://host/%zz", "hexadecimal"},
		{"nbd://host/%0", "hexadecimal"},
		{"nbd://host/%00", "hexadecimal"},
		{"nbd://host/?socket=/a", "host and a socket"},
		{"nbd://host/?foo=bar", "unknown query 'foo'"},
		{"nbd+unix:///x", "names no socket"},
		{"nbd+unix://host/x?socket=/a", "names a host"},
		{"nbd:unix:", "names no socket"},
		{"nbd+ssh://host/x", "no NBD address"},
		{"nbd://host/x?tls-certificates=/a", "nbds:"},
		{"nbd+unix:///?socket="
		 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		 "aa"
		 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		 "longer than"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct nbd_config config = {0};
		struct error err = ERROR_INIT;
		int rc = nbd_config_parse(&config, rows[i].name, NULL, "", &err);
		if (!rc || !strstr(err.text, rows[i].part))
			fail_msg("%s: %s", rows[i].name, rc ? err.text : "taken");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(old_servers_are_understood),
		cmocka_unit_test(handshake_negotiates_everything),
		cmocka_unit_test(what_is_no_server_is_refused),
		cmocka_unit_test(refusals_of_the_server_are_told),
		cmocka_unit_test(malformed_exports_are_refused),
		cmocka_unit_test(names_are_understood),
		cmocka_unit_test(malformed_names_are_refused),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, enter_scratch, leave_scratch);
}
