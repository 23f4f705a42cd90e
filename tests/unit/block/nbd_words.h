/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the NBD client share: the words of a scripted server, written down byte by byte,
 * and the parts of one that listens at "sock" and answers in an order of its own.
 */
#ifndef TESTS_BLOCK_NBD_WORDS_H
#define TESTS_BLOCK_NBD_WORDS_H

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

static inline void put(struct strbuf *sb, uint64_t v, unsigned bytes)
{
	while (bytes--) {
		uint8_t byte = (uint8_t)(v >> 8 * bytes);
		strbuf_append(sb, &byte, 1);
	}
}

static inline void put_zeroes(struct strbuf *sb, size_t n)
{
	while (n--)
		put(sb, 0, 1);
}

static inline void greet(struct strbuf *sb, unsigned flags)
{
	put(sb, NBD_MAGIC, 8);
	put(sb, NBD_OPTS_MAGIC, 8);
	put(sb, flags, 2);
}

static inline void reply(struct strbuf *sb, uint32_t option, uint32_t type, uint32_t len)
{
	put(sb, NBD_REP_MAGIC, 8);
	put(sb, option, 4);
	put(sb, type, 4);
	put(sb, len, 4);
}

static inline void meta_context(struct strbuf *sb, uint32_t id, const char *name)
{
	reply(sb, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, 4 + (uint32_t)strlen(name));
	put(sb, id, 4);
	strbuf_puts(sb, name);
}

static inline void info_export(struct strbuf *sb, uint64_t size, unsigned flags)
{
	reply(sb, NBD_OPT_GO, NBD_REP_INFO, 12);
	put(sb, NBD_INFO_EXPORT, 2);
	put(sb, size, 8);
	put(sb, flags, 2);
}

static inline void info_blocks(struct strbuf *sb, uint32_t min, uint32_t preferred, uint32_t max)
{
	reply(sb, NBD_OPT_GO, NBD_REP_INFO, 14);
	put(sb, NBD_INFO_BLOCK_SIZE, 2);
	put(sb, min, 4);
	put(sb, preferred, 4);
	put(sb, max, 4);
}

/* Greeting, STRUCTURED_REPLY, SET_META_CONTEXT: up to GO. */
static inline void up_to_go(struct strbuf *sb, bool structured)
{
	greet(sb, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	reply(sb, NBD_OPT_STRUCTURED_REPLY, structured ? NBD_REP_ACK : NBD_REP_ERR_UNSUP, 0);
	if (!structured)
		return;
	meta_context(sb, CONTEXT, NBD_META_BASE_ALLOCATION);
	reply(sb, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, 0);
}

static inline void whole_handshake(struct strbuf *sb, bool structured, uint64_t size)
{
	up_to_go(sb, structured);
	info_export(sb, size, ALL_FLAGS);
	info_blocks(sb, 1, 4096, NBD_MAX_PAYLOAD);
	reply(sb, NBD_OPT_GO, NBD_REP_ACK, 0);
}

static inline void chunk(struct strbuf *sb, bool done, unsigned type, uint64_t cookie, uint32_t len)
{
	put(sb, NBD_STRUCTURED_REPLY_MAGIC, 4);
	put(sb, done ? NBD_REPLY_FLAG_DONE : 0, 2);
	put(sb, type, 2);
	put(sb, cookie, 8);
	put(sb, len, 4);
}

static inline void data_chunk(struct strbuf *sb, bool done, uint64_t cookie, uint64_t offset,
			      uint32_t len, uint8_t byte)
{
	chunk(sb, done, NBD_REPLY_TYPE_OFFSET_DATA, cookie, 8 + len);
	put(sb, offset, 8);
	while (len--)
		put(sb, byte, 1);
}

static inline void hole_chunk(struct strbuf *sb, bool done, uint64_t cookie, uint64_t offset,
			      uint32_t len)
{
	chunk(sb, done, NBD_REPLY_TYPE_OFFSET_HOLE, cookie, 12);
	put(sb, offset, 8);
	put(sb, len, 4);
}

static inline void simple_reply(struct strbuf *sb, uint32_t error, uint64_t cookie)
{
	put(sb, NBD_SIMPLE_REPLY_MAGIC, 4);
	put(sb, error, 4);
	put(sb, cookie, 8);
}

/* ---- A client of them ---- */

static int peer = -1;

/* A client of a server that says this, and then nothing more: it hangs up, or with `waits` does
 * not. Takes over the words. */
static inline struct nbd_client *connect_to(struct strbuf *words, const char *export, bool waits,
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

static inline struct nbd_client *must_connect(struct strbuf *words, const char *export)
{
	struct error err = ERROR_INIT;
	struct nbd_client *c = connect_to(words, export, false, &err);
	if (!c)
		fail_msg("%s", err.text);
	return c;
}

/* ---- A server that listens ---- */

static int listener = -1;

static inline void listen_at(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	strcpy(address.sun_path, path);
	unlink(path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(listener >= 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 8), 0);
}

static inline bool read_bytes(int fd, void *buf, size_t len)
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
static inline int serve_handshake(uint64_t size)
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

struct heard {
	uint16_t type;
	uint64_t cookie, offset;
	uint32_t len;
};

static inline bool hear(int fd, struct heard *h)
{
	uint8_t head[NBD_REQUEST_SIZE];
	if (!read_bytes(fd, head, sizeof(head)) || load_be32(head) != NBD_REQUEST_MAGIC)
		return false;
	*h = (struct heard){load_be16(head + 6), load_be64(head + 8), load_be64(head + 16),
			    load_be32(head + 24)};
	return h->type != NBD_CMD_DISC;
}

#endif
