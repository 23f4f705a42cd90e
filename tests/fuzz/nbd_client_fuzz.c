/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: the input is what an NBD server sends, from its greeting on. The client shakes hands
 * and sends some requests; their cookies count from 1.
 */
#include "block/nbd_client.h"
#include "block/nbd_proto.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include "tests/fuzz/fuzz.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DISK = 64 * 1024 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t over = PTHREAD_COND_INITIALIZER;
static unsigned pending;

static void submitted_done(struct nbd_request *req, int result)
{
	pthread_mutex_lock(&lock);
	pending--;
	pthread_cond_signal(&over);
	pthread_mutex_unlock(&lock);
}

/* Two at once, whose replies the client's own thread reads. */
static void submit(struct nbd_client *c, struct iovec *iov)
{
	static uint8_t data[1024];
	struct iovec out = {data, sizeof(data)};
	struct nbd_request req[2] = {{.type = NBD_CMD_READ,
				      .offset = 4096,
				      .len = 2048,
				      .iov = iov,
				      .iovcnt = 2,
				      .done = submitted_done},
				     {.type = NBD_CMD_WRITE,
				      .len = sizeof(data),
				      .iov = &out,
				      .iovcnt = 1,
				      .done = submitted_done}};
	for (int i = 0; i < 2; i++) {
		pthread_mutex_lock(&lock);
		pending++;
		pthread_mutex_unlock(&lock);
		if (!nbd_client_submit(c, &req[i]))
			submitted_done(&req[i], 0);
	}
	pthread_mutex_lock(&lock);
	while (pending)
		pthread_cond_wait(&over, &lock);
	pthread_mutex_unlock(&lock);
}

static void use(struct nbd_client *c)
{
	static uint8_t buf[4096];
	struct iovec iov[2] = {{buf, 1024}, {buf + 2048, 1024}};
	uint32_t flags, count;
	if (nbd_client_export(c)->size < DISK)
		return;
	nbd_client_read(c, iov, 2, 4096);
	nbd_client_status(c, 0, DISK, &flags, &count);
	nbd_client_write(c, iov, 1, 0, NBD_CMD_FLAG_FUA);
	nbd_client_read(c, iov, 2, 8192);
	nbd_client_command(c, NBD_CMD_WRITE_ZEROES, 0, 4096, 0);
	nbd_client_command(c, NBD_CMD_FLUSH, 0, 0, 0);
	submit(c, iov);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int null = -1, terminal = -1;
	int fd[2];
	if (null < 0) {
		null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		terminal = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	}
	struct nbd_config config = {.socket = xstrdup("/nonexistent/socket"),
				    .export = xstrdup("disk")};
	if (size > 32768 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0) {
		nbd_config_free(&config);
		return 0;
	}
	if (write(fd[1], data, size) == (ssize_t)size && shutdown(fd[1], SHUT_WR) == 0) {
		struct error err = ERROR_INIT;
		/* Each input may earn a warning. */
		dup2(null, STDERR_FILENO);
		struct nbd_client *c =
			nbd_client_attach(&config, nbd_stream_new(fd[0], 10000), &err);
		if (c) {
			use(c);
			nbd_client_close(c);
		}
		dup2(terminal, STDERR_FILENO);
	} else {
		close(fd[0]);
		nbd_config_free(&config);
	}
	close(fd[1]);
	return 0;
}

/* ---- Seeds ---- */

struct out {
	uint8_t *at;
};

static void put(struct out *o, uint64_t v, unsigned bytes)
{
	while (bytes--)
		*o->at++ = (uint8_t)(v >> 8 * bytes);
}

static void reply(struct out *o, uint32_t option, uint32_t type, uint32_t len)
{
	put(o, NBD_REP_MAGIC, 8);
	put(o, option, 4);
	put(o, type, 4);
	put(o, len, 4);
}

static void chunk(struct out *o, uint16_t flags, uint16_t type, uint64_t cookie, uint32_t len)
{
	put(o, NBD_STRUCTURED_REPLY_MAGIC, 4);
	put(o, flags, 2);
	put(o, type, 2);
	put(o, cookie, 8);
	put(o, len, 4);
}

static void simple(struct out *o, uint32_t error, uint64_t cookie)
{
	put(o, NBD_SIMPLE_REPLY_MAGIC, 4);
	put(o, error, 4);
	put(o, cookie, 8);
}

static void fixed_newstyle(struct out *o, bool structured, bool knows_go)
{
	put(o, NBD_MAGIC, 8);
	put(o, NBD_OPTS_MAGIC, 8);
	put(o, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES, 2);
	reply(o, NBD_OPT_STRUCTURED_REPLY, structured ? NBD_REP_ACK : NBD_REP_ERR_UNSUP, 0);
	if (structured) {
		reply(o, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, 4 + 15);
		put(o, 7, 4);
		memcpy(o->at, NBD_META_BASE_ALLOCATION, 15);
		o->at += 15;
		reply(o, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, 0);
	}
	if (!knows_go) {
		reply(o, NBD_OPT_GO, NBD_REP_ERR_UNSUP, 3);
		put(o, 'n' << 16 | 'o' << 8 | '!', 3);
		put(o, 2 * DISK, 8);
		put(o, 0x0d6d, 2);
		return;
	}
	reply(o, NBD_OPT_GO, NBD_REP_INFO, 12);
	put(o, NBD_INFO_EXPORT, 2);
	put(o, 2 * DISK, 8);
	put(o, 0x0d6d, 2);
	reply(o, NBD_OPT_GO, NBD_REP_INFO, 14);
	put(o, NBD_INFO_BLOCK_SIZE, 2);
	put(o, 512, 4);
	put(o, 4096, 4);
	put(o, NBD_MAX_PAYLOAD, 4);
	reply(o, NBD_OPT_GO, NBD_REP_ACK, 0);
}

static void structured_replies(struct out *o)
{
	chunk(o, 0, NBD_REPLY_TYPE_OFFSET_DATA, 1, 8 + 1024);
	put(o, 4096 + 1024, 8);
	o->at += 1024;
	chunk(o, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_OFFSET_HOLE, 1, 12);
	put(o, 4096, 8);
	put(o, 1024, 4);
	chunk(o, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_BLOCK_STATUS, 2, 12);
	put(o, 7, 4);
	put(o, 4096, 4);
	put(o, NBD_STATE_HOLE | NBD_STATE_ZERO, 4);
	chunk(o, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, 3, 0);
	chunk(o, 0, NBD_REPLY_TYPE_ERROR_OFFSET, 4, 6 + 4 + 8);
	put(o, NBD_EIO, 4);
	put(o, 4, 2);
	put(o, 'o' << 24 | 'o' << 16 | 'p' << 8 | 's', 4);
	put(o, 8192, 8);
	chunk(o, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, 4, 0);
	simple(o, 0, 5);
	simple(o, NBD_ENOSPC, 6);
	chunk(o, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, 8, 0);
	chunk(o, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_OFFSET_HOLE, 7, 12);
	put(o, 4096, 8);
	put(o, 2048, 4);
}

static void simple_replies(struct out *o)
{
	simple(o, 0, 1);
	o->at += 2048;
	simple(o, NBD_EINVAL, 2);
	simple(o, 0, 3);
	simple(o, NBD_EIO, 4);
	simple(o, 0, 5);
	simple(o, 0, 6);
	simple(o, NBD_EIO, 8);
	simple(o, 0, 7);
	o->at += 2048;
}

static size_t seed(unsigned n, uint8_t *buf, size_t max)
{
	struct out o = {buf};
	if (n > 3 || max < 8192)
		return 0;
	memset(buf, 0, 8192);
	switch (n) {
	case 0:
		fixed_newstyle(&o, true, true);
		structured_replies(&o);
		break;
	case 1:
		fixed_newstyle(&o, false, false);
		simple_replies(&o);
		break;
	case 2: /* oldstyle */
		put(&o, NBD_MAGIC, 8);
		put(&o, NBD_OLDSTYLE_MAGIC, 8);
		put(&o, 2 * DISK, 8);
		put(&o, 0x006d, 4);
		o.at += NBD_EXPORT_ZEROES;
		simple_replies(&o);
		break;
	default: /* newstyle, not fixed */
		put(&o, NBD_MAGIC, 8);
		put(&o, NBD_OPTS_MAGIC, 8);
		put(&o, 0, 2);
		put(&o, 2 * DISK, 8);
		put(&o, 0x006d, 2);
		o.at += NBD_EXPORT_ZEROES;
		simple_replies(&o);
		break;
	}
	return (size_t)(o.at - buf);
}

const struct fuzz_target fuzz_target = {"nbd_client", 100000, 8192, seed};
