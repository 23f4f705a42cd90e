/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: the input is what a client sends to the NBD server. Its first byte says how: with a
 * sound handshake put before it or all by itself, to which image. The server must end the client
 * when that has sent everything, whatever it was; its replies are read and dropped.
 */
#include "block/nbd_proto.h"
#include "block/nbd_server.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "tests/fuzz/fuzz.h"
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	DISK = 256 << 10,
	MODE_REQUESTS = 1, /* the handshake is done for the input */
	MODE_STRUCTURED = 2,
	MODE_QCOW2 = 4,
	MODE_READ_ONLY = 8,
	MAX_INPUT = 4096,
};

struct message {
	uint8_t data[2 * MAX_INPUT];
	size_t len;
};

static void put(struct message *m, const void *data, size_t len)
{
	if (len > sizeof(m->data) - m->len)
		len = sizeof(m->data) - m->len;
	if (len)
		memcpy(m->data + m->len, data, len);
	m->len += len;
}

static void put_option(struct message *m, uint32_t option, const void *data, uint32_t len)
{
	uint8_t b[NBD_OPTION_SIZE];
	store_be64(b, NBD_OPTS_MAGIC);
	store_be32(b + 8, option);
	store_be32(b + 12, len);
	put(m, b, sizeof(b));
	put(m, data, len);
}

static void put_request(struct message *m, uint16_t flags, uint16_t type, uint64_t offset,
			uint32_t len, const void *data)
{
	uint8_t b[NBD_REQUEST_SIZE];
	store_be32(b, NBD_REQUEST_MAGIC);
	store_be16(b + 4, flags);
	store_be16(b + 6, type);
	store_be64(b + 8, 0x1122334455667788);
	store_be64(b + 16, offset);
	store_be32(b + 24, len);
	put(m, b, sizeof(b));
	if (data)
		put(m, data, len);
}

static void put_meta(struct message *m, uint32_t option)
{
	static const char *const names[] = {"base:allocation", "qemu:allocation-depth", "qemu:"};
	uint8_t b[128] = {0};
	size_t at = 8;
	store_be32(b + 4, ARRAY_SIZE(names));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		uint32_t len = (uint32_t)strlen(names[i]);
		store_be32(b + at, len);
		memcpy(b + at + 4, names[i], len);
		at += 4 + len;
	}
	put_option(m, option, b, (uint32_t)at);
}

static void put_handshake(struct message *m, bool structured)
{
	static const uint8_t flags[4] = {0, 0, 0, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES};
	static const uint8_t go[6] = {0};
	put(m, flags, sizeof(flags));
	if (structured) {
		put_option(m, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
		put_meta(m, NBD_OPT_SET_META_CONTEXT);
	}
	put_option(m, NBD_OPT_GO, go, sizeof(go));
}

/* ---- The server ---- */

static struct image *open_image(bool qcow2)
{
	static struct image *opened[2];
	struct error err = ERROR_INIT;
	if (opened[qcow2])
		return opened[qcow2];
	fuzz_sandbox();
	const char *format = qcow2 ? "qcow2" : "raw", *name = qcow2 ? "q" : "r";
	if (image_create(name, format, DISK, NULL, &err) == 0)
		opened[qcow2] = image_open(
			name, format, IMAGE_WRITABLE | IMAGE_DISCARD | IMAGE_NO_FLUSH, NULL, &err);
	if (!opened[qcow2]) {
		report("%s", err.text);
		exit(1);
	}
	return opened[qcow2];
}

/* Sends everything, and drops what comes until the server closes. */
static void talk(int fd, const struct message *m)
{
	static uint8_t scrap[1 << 16];
	size_t sent = 0;
	if (!m->len)
		shutdown(fd, SHUT_WR);
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (sent < m->len)
			p.events |= POLLOUT;
		if (poll(&p, 1, -1) < 0)
			continue;
		if (p.revents & POLLOUT) {
			ssize_t n = send(fd, m->data + sent, m->len - sent,
					 MSG_NOSIGNAL | MSG_DONTWAIT);
			sent = n < 0 ? m->len : sent + (size_t)n;
			if (sent == m->len)
				shutdown(fd, SHUT_WR);
		}
		if (p.revents & (POLLIN | POLLHUP | POLLERR) &&
		    recv(fd, scrap, sizeof(scrap), 0) <= 0)
			return;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct message m;
	struct error err = ERROR_INIT;
	int pair[2];
	uint8_t mode = size ? data[0] : 0;
	m.len = 0;
	if (mode & MODE_REQUESTS)
		put_handshake(&m, mode & MODE_STRUCTURED);
	if (size)
		put(&m, data + 1, size - 1);
	struct nbd_server_config config = {.handshake_limit_ms = 60000};
	struct nbd_export_config export = {.name = "",
					   .description = "fuzzed",
					   .image = open_image(mode & MODE_QCOW2),
					   .size = DISK,
					   .read_only = mode & MODE_READ_ONLY,
					   .multi_conn = true,
					   .allocation_depth = true};
	struct nbd_server *server = nbd_server_new(&config);
	if (nbd_server_add_export(server, &export, &err) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		report("%s", err.text);
		exit(1);
	}
	if (nbd_server_add_client(server, pair[1], &err) == 0)
		talk(pair[0], &m);
	close(pair[0]);
	nbd_server_free(server);
	return 0;
}

/* ---- Seeds: a handshake with every option, and one request of each kind in every mode ---- */

static void seed_options(struct message *m)
{
	static const uint8_t flags[4] = {0, 0, 0, 3}, go[6] = {0},
			     info[12] = {[5] = 3, [7] = 1, [9] = 2, [11] = 3};
	put(m, flags, sizeof(flags));
	put_option(m, NBD_OPT_LIST, NULL, 0);
	put_option(m, NBD_OPT_STARTTLS, NULL, 0);
	put_option(m, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	put_meta(m, NBD_OPT_LIST_META_CONTEXT);
	put_meta(m, NBD_OPT_SET_META_CONTEXT);
	put_option(m, NBD_OPT_INFO, info, sizeof(info));
	put_option(m, 77, "what", 4);
	put_option(m, NBD_OPT_GO, go, sizeof(go));
	put_request(m, NBD_CMD_FLAG_REQ_ONE, NBD_CMD_BLOCK_STATUS, 0, DISK, NULL);
	put_request(m, 0, NBD_CMD_DISC, 0, 0, NULL);
}

static void seed_requests(struct message *m)
{
	static const uint8_t payload[600] = "payload";
	put_request(m, 0, NBD_CMD_WRITE, 1000, sizeof(payload), payload);
	put_request(m, 0, NBD_CMD_READ, 900, 1000, NULL);
	put_request(m, NBD_CMD_FLAG_DF, NBD_CMD_READ, 0, 100000, NULL);
	put_request(m, NBD_CMD_FLAG_NO_HOLE, NBD_CMD_WRITE_ZEROES, 5000, 70000, NULL);
	put_request(m, NBD_CMD_FLAG_FUA, NBD_CMD_TRIM, 65536, 65536, NULL);
	put_request(m, 0, NBD_CMD_CACHE, 0, DISK, NULL);
	put_request(m, 0, NBD_CMD_BLOCK_STATUS, 0, DISK, NULL);
	put_request(m, 0, NBD_CMD_FLUSH, 0, 0, NULL);
	put_request(m, 0, NBD_CMD_READ, DISK - 1, 2, NULL);
	put_request(m, 0, NBD_CMD_DISC, 0, 0, NULL);
}

static size_t seed(unsigned n, uint8_t *buf, size_t max)
{
	static const uint8_t modes[] = {0,
					MODE_QCOW2,
					MODE_REQUESTS,
					MODE_REQUESTS | MODE_STRUCTURED,
					MODE_REQUESTS | MODE_STRUCTURED | MODE_QCOW2,
					MODE_REQUESTS | MODE_READ_ONLY | MODE_STRUCTURED};
	struct message m = {.len = 0};
	if (n >= ARRAY_SIZE(modes))
		return 0;
	put(&m, &modes[n], 1);
	if (modes[n] & MODE_REQUESTS)
		seed_requests(&m);
	else
		seed_options(&m);
	if (m.len > max)
		m.len = max;
	memcpy(buf, m.data, m.len);
	return m.len;
}

const struct fuzz_target fuzz_target = {
	.name = "nbd_server", .runs = 3000, .max_len = MAX_INPUT, .seed = seed};
