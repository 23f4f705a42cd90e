/* SPDX-License-Identifier: MIT */
/*
 * The NBD client against a scripted server: what it says is written down beforehand, byte by byte,
 * or by a thread that answers in an order of its own.
 */
#include "block/image.h"
#include "block/nbd_client.h"
#include "block/nbd_proto.h"
#include "lib/bytes.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include "tests/unit/block/tools.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

enum { SIZE = 64 * 1024, CONTEXT = 7, ALL_FLAGS = 0x0d6d };

/* ---- The server's words ---- */

static void put(struct strbuf *sb, uint64_t v, unsigned bytes)
{
	while (bytes--) {
		uint8_t byte = (uint8_t)(v >> 8 * bytes);
		strbuf_append(sb, &byte, 1);
	}
}

static void put_zeroes(struct strbuf *sb, size_t n)
{
	while (n--)
		put(sb, 0, 1);
}

static void greet(struct strbuf *sb, unsigned flags)
{
	put(sb, NBD_MAGIC, 8);
	put(sb, NBD_OPTS_MAGIC, 8);
	put(sb, flags, 2);
}

static void reply(struct strbuf *sb, uint32_t option, uint32_t type, uint32_t len)
{
	put(sb, NBD_REP_MAGIC, 8);
	put(sb, option, 4);
	put(sb, type, 4);
	put(sb, len, 4);
}

static void meta_context(struct strbuf *sb, uint32_t id, const char *name)
{
	reply(sb, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, 4 + (uint32_t)strlen(name));
	put(sb, id, 4);
	strbuf_puts(sb, name);
}

static void info_export(struct strbuf *sb, uint64_t size, unsigned flags)
{
	reply(sb, NBD_OPT_GO, NBD_REP_INFO, 12);
	put(sb, NBD_INFO_EXPORT, 2);
	put(sb, size, 8);
	put(sb, flags, 2);
}

static void info_blocks(struct strbuf *sb, uint32_t min, uint32_t preferred, uint32_t max)
{
	reply(sb, NBD_OPT_GO, NBD_REP_INFO, 14);
	put(sb, NBD_INFO_BLOCK_SIZE, 2);
	put(sb, min, 4);
	put(sb, preferred, 4);
	put(sb, max, 4);
}

/* Greeting, STRUCTURED_REPLY, SET_META_CONTEXT: up to GO. */
static void up_to_go(struct strbuf *sb, bool structured)
{
	greet(sb, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	reply(sb, NBD_OPT_STRUCTURED_REPLY, structured ? NBD_REP_ACK : NBD_REP_ERR_UNSUP, 0);
	if (!structured)
		return;
	meta_context(sb, CONTEXT, NBD_META_BASE_ALLOCATION);
	reply(sb, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, 0);
}

static void whole_handshake(struct strbuf *sb, bool structured, uint64_t size)
{
	up_to_go(sb, structured);
	info_export(sb, size, ALL_FLAGS);
	info_blocks(sb, 1, 4096, NBD_MAX_PAYLOAD);
	reply(sb, NBD_OPT_GO, NBD_REP_ACK, 0);
}

static void chunk(struct strbuf *sb, bool done, unsigned type, uint64_t cookie, uint32_t len)
{
	put(sb, NBD_STRUCTURED_REPLY_MAGIC, 4);
	put(sb, done ? NBD_REPLY_FLAG_DONE : 0, 2);
	put(sb, type, 2);
	put(sb, cookie, 8);
	put(sb, len, 4);
}

static void data_chunk(struct strbuf *sb, bool done, uint64_t cookie, uint64_t offset, uint32_t len,
		       uint8_t byte)
{
	chunk(sb, done, NBD_REPLY_TYPE_OFFSET_DATA, cookie, 8 + len);
	put(sb, offset, 8);
	while (len--)
		put(sb, byte, 1);
}

static void hole_chunk(struct strbuf *sb, bool done, uint64_t cookie, uint64_t offset, uint32_t len)
{
	chunk(sb, done, NBD_REPLY_TYPE_OFFSET_HOLE, cookie, 12);
	put(sb, offset, 8);
	put(sb, len, 4);
}

static void simple_reply(struct strbuf *sb, uint32_t error, uint64_t cookie)
{
	put(sb, NBD_SIMPLE_REPLY_MAGIC, 4);
	put(sb, error, 4);
	put(sb, cookie, 8);
}

/* ---- Connecting to it ---- */

static int peer = -1;

/* A client of a server that says this, and then nothing more: it hangs up, or with `waits` does
 * not. Takes over the words. */
static struct nbd_client *connect_to(struct strbuf *words, const char *export, bool waits,
				     struct error *err)
{
	int fd[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	assert_true(words->len < 100000);
	assert_int_equal(write_full(fd[1], strbuf_str(words), words->len), 0);
	strbuf_free(words);
	if (!waits)
		shutdown(fd[1], SHUT_WR);
	if (peer >= 0)
		close(peer);
	peer = fd[1];
	struct nbd_config config = {.socket = xstrdup("none"), .export = xstrdup(export)};
	return nbd_client_attach(&config, nbd_stream_new(fd[0], waits ? 50 : 60000), err);
}

static void must_refuse(struct strbuf *words, const char *part)
{
	struct error err = ERROR_INIT;
	struct nbd_client *c = connect_to(words, "disk", false, &err);
	if (c || !strstr(err.text, part))
		fail_msg("it said '%s', not '%s'", c ? "yes" : err.text, part);
}

static struct nbd_client *must_connect(struct strbuf *words, const char *export)
{
	struct error err = ERROR_INIT;
	struct nbd_client *c = connect_to(words, export, false, &err);
	if (!c)
		fail_msg("%s", err.text);
	return c;
}

/* ---- Handshakes ---- */

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

/* ---- Replies ---- */

enum { READ_LEN = 4096, READ_AT = 8192 };

/* The first request, a read, is answered with `words`. */
static int read_answered(struct strbuf *words, uint8_t buf[READ_LEN])
{
	struct strbuf sb = STRBUF_INIT;
	whole_handshake(&sb, true, SIZE);
	strbuf_append(&sb, strbuf_str(words), words->len);
	strbuf_free(words);
	struct nbd_client *c = must_connect(&sb, "disk");
	/* In two pieces that do not lie together. */
	struct iovec iov[] = {{buf, 1000}, {buf + 1000, READ_LEN - 1000}};
	int rc = nbd_client_read(c, iov, 2, READ_AT);
	nbd_client_close(c);
	return rc;
}

static void a_read_is_put_together_from_its_chunks(void **state)
{
	uint8_t buf[READ_LEN];
	struct strbuf sb = STRBUF_INIT;
	memset(buf, 0xee, sizeof(buf));
	/* Out of order, with a hole, the last chunk empty. */
	data_chunk(&sb, false, 1, READ_AT + 3000, 1096, 'c');
	hole_chunk(&sb, false, 1, READ_AT + 500, 2500);
	data_chunk(&sb, false, 1, READ_AT, 500, 'a');
	chunk(&sb, true, NBD_REPLY_TYPE_NONE, 1, 0);
	assert_int_equal(read_answered(&sb, buf), 0);
	for (int i = 0; i < READ_LEN; i++)
		assert_int_equal(buf[i], i < 500 ? 'a' : i < 3000 ? 0 : 'c');
	/* A byte at a time, every second first. */
	for (uint32_t i = 0; i < 512; i += 2)
		data_chunk(&sb, false, 1, READ_AT + i, 1, (uint8_t)i);
	for (uint32_t i = 1; i < 512; i += 2)
		data_chunk(&sb, false, 1, READ_AT + i, 1, (uint8_t)i);
	hole_chunk(&sb, true, 1, READ_AT + 512, READ_LEN - 512);
	assert_int_equal(read_answered(&sb, buf), 0);
	for (int i = 0; i < 512; i++)
		assert_int_equal(buf[i], (uint8_t)i);
}

static void errors_of_a_read_are_passed_on(void **state)
{
	uint8_t buf[READ_LEN];
	struct strbuf sb = STRBUF_INIT;
	chunk(&sb, true, NBD_REPLY_TYPE_ERROR, 1, 6 + 4);
	put(&sb, NBD_ENOSPC, 4);
	put(&sb, 4, 2);
	strbuf_puts(&sb, "full");
	assert_int_equal(read_answered(&sb, buf), -ENOSPC);
	/* In the middle of data; the first one counts. */
	data_chunk(&sb, false, 1, READ_AT, 512, 'a');
	chunk(&sb, false, NBD_REPLY_TYPE_ERROR_OFFSET, 1, 6 + 8);
	put(&sb, NBD_EIO, 4);
	put(&sb, 0, 2);
	put(&sb, READ_AT + 512, 8);
	chunk(&sb, false, NBD_REPLY_TYPE_ERROR, 1, 6);
	put(&sb, NBD_ENOMEM, 4);
	put(&sb, 0, 2);
	chunk(&sb, true, NBD_REPLY_TYPE_NONE, 1, 0);
	assert_int_equal(read_answered(&sb, buf), -EIO);
	/* Of a type that is not known yet. */
	chunk(&sb, true, 0x8123, 1, 10);
	put(&sb, NBD_EPERM, 4);
	put_zeroes(&sb, 6);
	assert_int_equal(read_answered(&sb, buf), -EPERM);
}

static void replies_that_break_the_protocol_fail_the_read(void **state)
{
	uint8_t buf[READ_LEN];
	for (int row = 0;; row++) {
		struct strbuf sb = STRBUF_INIT;
		switch (row) {
		case 0: break; /* hangs up */
		case 1: data_chunk(&sb, true, 2, READ_AT, READ_LEN, 'x'); break;
		case 2: data_chunk(&sb, true, 1, READ_AT - 1, READ_LEN, 'x'); break;
		case 3: data_chunk(&sb, true, 1, READ_AT, READ_LEN + 1, 'x'); break;
		case 4: data_chunk(&sb, true, 1, UINT64_MAX - 10, READ_LEN, 'x'); break;
		case 5: data_chunk(&sb, true, 1, READ_AT, READ_LEN - 1, 'x'); break;
		case 6: data_chunk(&sb, true, 1, READ_AT, 0, 'x'); break;
		case 7:
			data_chunk(&sb, false, 1, READ_AT, 2048, 'x');
			data_chunk(&sb, false, 1, READ_AT + 2047, 2049, 'x');
			break;
		case 8:
			data_chunk(&sb, false, 1, READ_AT, READ_LEN, 'x');
			hole_chunk(&sb, true, 1, READ_AT, READ_LEN);
			break;
		case 9: hole_chunk(&sb, true, 1, READ_AT, UINT32_MAX); break;
		case 10: chunk(&sb, true, NBD_REPLY_TYPE_NONE, 1, 0); break;
		case 11: chunk(&sb, false, NBD_REPLY_TYPE_NONE, 1, 0); break;
		case 12: chunk(&sb, true, NBD_REPLY_TYPE_OFFSET_DATA, 1, UINT32_MAX); break;
		case 13: chunk(&sb, true, 77, 1, 0); break;
		case 14:
			chunk(&sb, true, NBD_REPLY_TYPE_BLOCK_STATUS, 1, 12);
			put_zeroes(&sb, 12);
			break;
		case 15: /* an error that is none */
			chunk(&sb, true, NBD_REPLY_TYPE_ERROR, 1, 6);
			put_zeroes(&sb, 6);
			break;
		case 16: /* a message longer than its chunk */
			chunk(&sb, true, NBD_REPLY_TYPE_ERROR, 1, 6);
			put(&sb, NBD_EIO, 4);
			put(&sb, 100, 2);
			break;
		case 17: simple_reply(&sb, 0, 1); break;
		case 18: put_zeroes(&sb, 64); break;
		case 19: /* pieces without end */
			for (uint32_t i = 0; i < READ_LEN; i += 2)
				data_chunk(&sb, false, 1, READ_AT + i, 1, 'x');
			break;
		default: return;
		}
		int rc = read_answered(&sb, buf);
		if (rc != -EIO)
			fail_msg("row %d: %d", row, rc);
	}
}

static void simple_replies_serve_old_servers(void **state)
{
	uint8_t buf[512];
	struct iovec iov = {buf, sizeof(buf)};
	struct strbuf sb = STRBUF_INIT;
	whole_handshake(&sb, false, SIZE);
	simple_reply(&sb, 0, 1);
	for (int i = 0; i < 512; i++)
		put(&sb, 'r', 1);
	simple_reply(&sb, NBD_ENOSPC, 2);
	simple_reply(&sb, 12345, 3);
	chunk(&sb, true, NBD_REPLY_TYPE_NONE, 4, 0); /* which was not negotiated */
	struct nbd_client *c = must_connect(&sb, "disk");
	assert_int_equal(nbd_client_read(c, &iov, 1, 0), 0);
	assert_int_equal(buf[0], 'r');
	assert_int_equal(buf[511], 'r');
	assert_int_equal(nbd_client_write(c, &iov, 1, 0, 0), -ENOSPC);
	assert_int_equal(nbd_client_command(c, NBD_CMD_FLUSH, 0, 0, 0), -EINVAL);
	assert_int_equal(nbd_client_command(c, NBD_CMD_FLUSH, 0, 0, 0), -EIO);
	nbd_client_close(c);
}

static int status_answered(uint32_t context, uint32_t len, uint32_t flags, uint32_t *count)
{
	struct strbuf sb = STRBUF_INIT;
	uint32_t found = 99;
	whole_handshake(&sb, true, SIZE);
	chunk(&sb, true, NBD_REPLY_TYPE_BLOCK_STATUS, 1, 4 + 16);
	put(&sb, context, 4);
	put(&sb, len, 4);
	put(&sb, flags, 4);
	put(&sb, 1000, 4); /* a second extent, not of interest */
	put(&sb, 0, 4);
	struct nbd_client *c = must_connect(&sb, "disk");
	int rc = nbd_client_status(c, 0, 8192, &found, count);
	nbd_client_close(c);
	return rc < 0 ? rc : (int)found;
}

static void block_status_is_checked(void **state)
{
	uint32_t count;
	assert_int_equal(status_answered(CONTEXT, 512, NBD_STATE_ZERO, &count), NBD_STATE_ZERO);
	assert_int_equal(count, 512);
	/* More than was asked for is as much as was. */
	assert_int_equal(status_answered(CONTEXT, UINT32_MAX, 0, &count), 0);
	assert_int_equal(count, 8192);
	assert_int_equal(status_answered(CONTEXT + 1, 512, 0, &count), -EIO);
	assert_int_equal(status_answered(CONTEXT, 0, 0, &count), -EIO);
}

/* ---- Several at once, and servers that go ---- */

static int listener = -1;

static void listen_at(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	strcpy(address.sun_path, path);
	unlink(path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(listener >= 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 8), 0);
}

static bool read_bytes(int fd, void *buf, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = read(fd, (char *)buf + done, len - done);
		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

/* What a client says in such a handshake: its flags, STRUCTURED_REPLY, SET_META_CONTEXT of "disk" for
 * base:allocation, GO for its block sizes. */
enum { CLIENT_WORDS = 4 + 16 + (16 + 4 + 4 + 8 + 15) + (16 + 4 + 4 + 4) };

/* Accepts a client and says all of the handshake at once; takes what the client says in it, whose
 * length does not depend on the answers. */
static int serve_handshake(uint64_t size)
{
	struct strbuf sb = STRBUF_INIT;
	uint8_t buf[CLIENT_WORDS];
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return -1;
	whole_handshake(&sb, true, size);
	bool ok = write_full(fd, strbuf_str(&sb), sb.len) == 0 && read_bytes(fd, buf, sizeof(buf));
	strbuf_free(&sb);
	if (ok)
		return fd;
	close(fd);
	return -1;
}

enum { THREADS = 16, ROUNDS = 50 };

struct heard {
	uint16_t type;
	uint64_t cookie, offset;
	uint32_t len;
};

static bool hear(int fd, struct heard *h)
{
	uint8_t head[NBD_REQUEST_SIZE];
	if (!read_bytes(fd, head, sizeof(head)) || load_be32(head) != NBD_REQUEST_MAGIC)
		return false;
	*h = (struct heard){load_be16(head + 6), load_be64(head + 8), load_be64(head + 16),
			    load_be32(head + 24)};
	return h->type != NBD_CMD_DISC;
}

/* Waits for a request of every thread, then answers them in the wrong order and piece by piece. */
static void *reversing_server(void *opaque)
{
	int fd = serve_handshake(THREADS * 4096);
	struct heard h[THREADS];
	for (int round = 0; round < ROUNDS; round++) {
		struct strbuf sb = STRBUF_INIT;
		for (int i = 0; i < THREADS; i++) {
			if (!hear(fd, &h[i]) || h[i].len != 4096) {
				close(fd);
				return "a request was wrong";
			}
		}
		for (int half = 1; half >= 0; half--)
			for (int i = THREADS - 1; i >= 0; i--)
				data_chunk(&sb, half == 0, h[i].cookie,
					   h[i].offset + (half ? 2048 : 0), 2048,
					   (uint8_t)(h[i].offset / 4096 + (unsigned)round));
		int rc = write_full(fd, strbuf_str(&sb), sb.len);
		strbuf_free(&sb);
		if (rc)
			return "the client is gone";
	}
	close(fd);
	return NULL;
}

static struct nbd_client *shared;
static unsigned turns[ROUNDS];

/* Reads its own page, in every round once. */
static void *reader(void *opaque)
{
	uint64_t page = (uintptr_t)opaque;
	uint8_t buf[4096];
	for (int round = 0; round < ROUNDS; round++) {
		struct iovec iov = {buf, sizeof(buf)};
		/* The server wants a request of each before it answers any. */
		if (nbd_client_read(shared, &iov, 1, page * 4096))
			return "a read failed";
		for (int i = 0; i < 4096; i++)
			if (buf[i] != (uint8_t)(page + (unsigned)round))
				return "a read returned another's data";
		__atomic_add_fetch(&turns[round], 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static struct nbd_client *connect_here(unsigned reconnect_delay)
{
	struct error err = ERROR_INIT;
	struct nbd_config config = {.socket = xstrdup("sock"),
				    .export = xstrdup("disk"),
				    .reconnect_delay = reconnect_delay};
	struct nbd_client *c = nbd_client_open(&config, &err);
	if (!c)
		fail_msg("%s", err.text);
	return c;
}

static void many_requests_are_in_flight_and_answered_in_any_order(void **state)
{
	pthread_t server, threads[THREADS];
	void *said;
	listen_at("sock");
	pthread_create(&server, NULL, reversing_server, NULL);
	shared = connect_here(0);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, reader, (void *)i);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &said);
		if (said)
			fail_msg("%s", (char *)said);
	}
	pthread_join(server, &said);
	if (said)
		fail_msg("%s", (char *)said);
	for (int round = 0; round < ROUNDS; round++)
		assert_int_equal(turns[round], THREADS);
	nbd_client_close(shared);
	close(listener);
}

enum { WRITES = 200 };

static uint8_t disk[THREADS * 4096];

/* Takes writes, forgets to answer the seventh of each connection and hangs up. */
static void *dying_server(void *opaque)
{
	for (;;) {
		int fd = serve_handshake(sizeof(disk));
		if (fd < 0)
			return NULL;
		struct heard h;
		for (int n = 0; n < 7 && hear(fd, &h); n++) {
			struct strbuf sb = STRBUF_INIT;
			if (h.type != NBD_CMD_WRITE || !range_in(h.offset, h.len, sizeof(disk)) ||
			    !read_bytes(fd, disk + h.offset, h.len))
				break;
			if (n == 6)
				break;
			chunk(&sb, true, NBD_REPLY_TYPE_NONE, h.cookie, 0);
			write_full(fd, strbuf_str(&sb), sb.len);
			strbuf_free(&sb);
		}
		close(fd);
	}
}

static void *writer(void *opaque)
{
	uint64_t page = (uintptr_t)opaque;
	uint8_t buf[4096];
	for (int n = 0; n < WRITES / THREADS; n++) {
		struct iovec iov = {buf, sizeof(buf)};
		memset(buf, (int)(page * 16) + n, sizeof(buf));
		if (nbd_client_write(shared, &iov, 1, page * 4096, 0))
			return "a write failed";
		if (memcmp(disk + page * 4096, buf, sizeof(buf)))
			return "a write was answered but not done";
	}
	return NULL;
}

static void requests_are_sent_again_after_a_reconnect(void **state)
{
	pthread_t server, threads[THREADS];
	void *said;
	listen_at("sock");
	pthread_create(&server, NULL, dying_server, NULL);
	shared = connect_here(1000);
	for (uintptr_t i = 0; i < THREADS / 4; i++)
		pthread_create(&threads[i], NULL, writer, (void *)i);
	for (int i = 0; i < THREADS / 4; i++) {
		pthread_join(threads[i], &said);
		if (said)
			fail_msg("%s", (char *)said);
	}
	nbd_client_close(shared);
	shutdown(listener, SHUT_RDWR);
	pthread_join(server, NULL);
	close(listener);
}

/* Hangs up on the first client's request; to the second it offers a longer export. */
static void *growing_server(void *opaque)
{
	struct heard h;
	for (uint64_t size = SIZE;; size += 512) {
		int fd = serve_handshake(size);
		if (fd < 0)
			return NULL;
		hear(fd, &h);
		close(fd);
	}
}

static void an_export_of_another_size_is_not_used(void **state)
{
	pthread_t server;
	listen_at("sock");
	pthread_create(&server, NULL, growing_server, NULL);
	shared = connect_here(1);
	assert_int_equal(nbd_client_command(shared, NBD_CMD_FLUSH, 0, 0, 0), -EIO);
	assert_int_equal(nbd_client_export(shared)->size, SIZE);
	nbd_client_close(shared);
	shutdown(listener, SHUT_RDWR);
	pthread_join(server, NULL);
	close(listener);
}

static void a_server_that_appears_late_is_waited_for(void **state)
{
	pthread_t server;
	struct error err = ERROR_INIT;
	struct nbd_config config = {
		.socket = xstrdup("late"), .export = xstrdup("disk"), .open_timeout = 1};
	assert_null(nbd_client_open(&config, &err));
	assert_int_equal(err.code, ENOENT);
	/* The name is there already, but whoever connects is refused until there is a listener. */
	listen_at("sock");
	rename("sock", "hidden");
	assert_int_equal(shell("(sleep 0.2; mv hidden late) &"), 0);
	pthread_create(&server, NULL, growing_server, NULL);
	config = (struct nbd_config){
		.socket = xstrdup("late"), .export = xstrdup("disk"), .open_timeout = 600};
	struct nbd_client *c = nbd_client_open(&config, &err);
	assert_non_null(c);
	nbd_client_close(c);
	shutdown(listener, SHUT_RDWR);
	pthread_join(server, NULL);
	close(listener);
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

/* ---- The file above ---- */

/* A plain server of `disk` with blocks of 4 KiB that refuses everything else. */
static void *block_server(void *opaque)
{
	struct strbuf sb = STRBUF_INIT;
	uint8_t buf[CLIENT_WORDS];
	struct heard h;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	up_to_go(&sb, true);
	info_export(&sb, sizeof(disk), NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH);
	info_blocks(&sb, 4096, 4096, 8192);
	reply(&sb, NBD_OPT_GO, NBD_REP_ACK, 0);
	write_full(fd, strbuf_str(&sb), sb.len);
	strbuf_free(&sb);
	read_bytes(fd, buf, sizeof(buf));
	while (hear(fd, &h)) {
		bool ok = h.type == NBD_CMD_FLUSH ||
			  (h.offset % 4096 == 0 && h.len % 4096 == 0 && h.len && h.len <= 8192 &&
			   range_in(h.offset, h.len, sizeof(disk)));
		if (ok && h.type == NBD_CMD_WRITE)
			read_bytes(fd, disk + h.offset, h.len);
		if (ok && h.type == NBD_CMD_READ) {
			chunk(&sb, true, NBD_REPLY_TYPE_OFFSET_DATA, h.cookie, 8 + h.len);
			put(&sb, h.offset, 8);
			strbuf_append(&sb, disk + h.offset, h.len);
		} else if (ok) {
			simple_reply(&sb, 0, h.cookie);
		} else {
			chunk(&sb, true, NBD_REPLY_TYPE_ERROR, h.cookie, 6);
			put(&sb, NBD_EINVAL, 4);
			put(&sb, 0, 2);
		}
		write_full(fd, strbuf_str(&sb), sb.len);
		strbuf_free(&sb);
	}
	close(fd);
	return NULL;
}

static void block_sizes_of_the_server_are_kept_to(void **state)
{
	static uint8_t want[sizeof(disk)], buf[sizeof(disk)];
	pthread_t server;
	struct error err = ERROR_INIT;
	memset(disk, 0, sizeof(disk));
	listen_at("sock");
	pthread_create(&server, NULL, block_server, NULL);
	struct image *img =
		image_open("nbd+unix:///disk?socket=sock", "raw", IMAGE_WRITABLE, NULL, &err);
	if (!img)
		fail_msg("%s", err.text);
	for (int n = 0; n < 300; n++) {
		uint64_t at = rnd_below(sizeof(disk)), len = 1 + rnd_below(20000);
		if (len > sizeof(disk) - at)
			len = sizeof(disk) - at;
		if (n % 3 == 0) {
			memset(want + at, 0, len);
			assert_int_equal(image_write_zeroes(img, at, len, false), 0);
		} else {
			fill(want + at, len);
			assert_int_equal(image_pwrite(img, want + at, len, at), 0);
		}
		at = rnd_below(sizeof(disk));
		len = sizeof(disk) - at;
		assert_int_equal(image_pread(img, buf, len, at), 0);
		assert_memory_equal(buf, want + at, len);
	}
	assert_memory_equal(disk, want, sizeof(disk));
	assert_int_equal(image_flush(img), 0);
	image_close(img);
	pthread_join(server, NULL);
	close(listener);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(old_servers_are_understood),
		cmocka_unit_test(handshake_negotiates_everything),
		cmocka_unit_test(what_is_no_server_is_refused),
		cmocka_unit_test(refusals_of_the_server_are_told),
		cmocka_unit_test(malformed_exports_are_refused),
		cmocka_unit_test(a_read_is_put_together_from_its_chunks),
		cmocka_unit_test(errors_of_a_read_are_passed_on),
		cmocka_unit_test(replies_that_break_the_protocol_fail_the_read),
		cmocka_unit_test(simple_replies_serve_old_servers),
		cmocka_unit_test(block_status_is_checked),
		cmocka_unit_test(many_requests_are_in_flight_and_answered_in_any_order),
		cmocka_unit_test(requests_are_sent_again_after_a_reconnect),
		cmocka_unit_test(an_export_of_another_size_is_not_used),
		cmocka_unit_test(a_server_that_appears_late_is_waited_for),
		cmocka_unit_test(names_are_understood),
		cmocka_unit_test(malformed_names_are_refused),
		cmocka_unit_test(block_sizes_of_the_server_are_kept_to),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, enter_scratch, leave_scratch);
}
