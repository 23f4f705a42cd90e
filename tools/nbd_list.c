/* SPDX-License-Identifier: MIT */
/*
 * minivm-nbd --list: what a server offers, printed as qemu-nbd prints it. A client that only
 * negotiates (block/nbd_proto.h): LIST, then for each export INFO and LIST_META_CONTEXT. What the
 * server says is bounded where it is read.
 */
#include "block/nbd_proto.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include "lib/tls.h"
#include "tools/nbd.h"
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_EXPORTS = 10000, MAX_REPLY = 16384 };

struct export
{
	char *name, *description;
	uint64_t size;
	uint16_t flags;
	bool has_size;
	uint32_t min_block, opt_block, max_block;
	char **contexts;
	size_t context_count;
};

struct connection {
	int fd;
	struct tls_session *tls;
	bool structured;
};

/* The reply to an option. */
struct answer {
	uint32_t type, len;
	uint8_t data[MAX_REPLY + 1];
};

/* All of it; 0 or -errno. */
static int transfer(struct connection *c, bool out, void *buf, size_t len)
{
	size_t done = 0;
	while (done < len) {
		char *at = (char *)buf + done;
		ssize_t n;
		if (c->tls)
			n = out ? tls_write(c->tls, at, len - done)
				: tls_read(c->tls, at, len - done);
		else if ((n = out ? send(c->fd, at, len - done, MSG_NOSIGNAL)
				  : recv(c->fd, at, len - done, 0)) < 0)
			n = -errno;
		if (n == -EAGAIN) {
			struct pollfd p = {.fd = c->fd, .events = out ? POLLOUT : POLLIN};
			poll(&p, 1, -1);
		} else if (n < 0 && n != -EINTR) {
			return (int)n;
		} else if (n == 0) {
			return -ECONNRESET;
		} else if (n > 0) {
			done += (size_t)n;
		}
	}
	return 0;
}

static int ask(struct connection *c, uint32_t option, const void *data, uint32_t len)
{
	uint8_t head[NBD_OPTION_SIZE];
	store_be64(head, NBD_OPTS_MAGIC);
	store_be32(head + 8, option);
	store_be32(head + 12, len);
	int rc = transfer(c, true, head, sizeof(head));
	return rc || !len ? rc : transfer(c, true, (void *)data, len);
}

static int hear(struct connection *c, uint32_t option, struct answer *a, struct error *err)
{
	uint8_t head[NBD_OPTION_REPLY_SIZE];
	int rc = transfer(c, false, head, sizeof(head));
	if (rc)
		return error_errno(err, -rc, "the server does not answer");
	a->type = load_be32(head + 12);
	a->len = load_be32(head + 16);
	if (load_be64(head) != NBD_REP_MAGIC || load_be32(head + 8) != option || a->len > MAX_REPLY)
		return error_set(err, EPROTO, "the server's reply to option %u makes no sense",
				 option);
	rc = transfer(c, false, a->data, a->len);
	if (rc)
		return error_errno(err, -rc, "the server does not answer");
	a->data[a->len] = '\0';
	return 0;
}

/* An option that is either acknowledged or refused; 1 for the latter. */
static int ask_simple(struct connection *c, uint32_t option, struct answer *a, struct error *err)
{
	int rc = ask(c, option, NULL, 0);
	if (rc)
		return error_errno(err, -rc, "the server does not listen");
	rc = hear(c, option, a, err);
	return rc ? rc : a->type != NBD_REP_ACK;
}

/* What the server says to a refusal, if it says anything. */
static int refused(const struct answer *a, const char *what, struct error *err)
{
	if (a->type == NBD_REP_ERR_TLS_REQD)
		return error_set(err, EACCES, "the server requires TLS; say --tls-creds");
	return error_set(err, EINVAL, "the server refuses %s%s%.200s", what, a->len ? ": " : "",
			 (const char *)a->data);
}

static int greet(struct connection *c, struct error *err)
{
	uint8_t b[NBD_GREETING_SIZE], flags[4];
	int rc = transfer(c, false, b, sizeof(b));
	if (rc)
		return error_errno(err, -rc, "the server does not greet");
	if (load_be64(b) != NBD_MAGIC)
		return error_set(err, EPROTO, "the server does not speak NBD");
	if (load_be64(b + 8) != NBD_OPTS_MAGIC || !(load_be16(b + 16) & NBD_FLAG_FIXED_NEWSTYLE))
		return error_set(err, ENOTSUP, "the server is too old to list its exports");
	store_be32(flags, NBD_FLAG_C_FIXED_NEWSTYLE | (load_be16(b + 16) & NBD_FLAG_NO_ZEROES));
	rc = transfer(c, true, flags, sizeof(flags));
	return rc ? error_errno(err, -rc, "the server does not listen") : 0;
}

static int start_tls(struct connection *c, struct tls_creds *creds, const char *hostname,
		     struct answer *a, struct error *err)
{
	int rc = ask_simple(c, NBD_OPT_STARTTLS, a, err);
	if (rc)
		return rc < 0 ? rc : refused(a, "TLS", err);
	int flags = fcntl(c->fd, F_GETFL);
	if (flags < 0 || fcntl(c->fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return error_errno(err, errno, "cannot use the socket");
	c->tls = tls_session_new(creds, c->fd, hostname, err);
	return c->tls ? tls_handshake(c->tls, -1, err) : -EIO;
}

/* ---- What there is ---- */

static int list_exports(struct connection *c, struct export **list, size_t *count, struct answer *a,
			struct error *err)
{
	int rc = ask(c, NBD_OPT_LIST, NULL, 0);
	if (rc)
		return error_errno(err, -rc, "the server does not listen");
	for (;;) {
		rc = hear(c, NBD_OPT_LIST, a, err);
		if (rc || a->type == NBD_REP_ACK)
			return rc;
		if (a->type & NBD_REP_FLAG_ERROR)
			return refused(a, "to list its exports", err);
		uint32_t len = a->len >= 4 ? load_be32(a->data) : UINT32_MAX;
		if (a->type != NBD_REP_SERVER || a->len < 4 || len > a->len - 4 ||
		    *count == MAX_EXPORTS)
			return error_set(err, EPROTO, "the server's list makes no sense");
		*list = xrealloc(*list, (*count + 1) * sizeof(**list));
		struct export *e = &(*list)[(*count)++];
		*e = (struct export){.name = strndup((char *)a->data + 4, len)};
		if (a->len > len + 4)
			e->description = strndup((char *)a->data + 4 + len, a->len - len - 4);
	}
}

/* An option about one export: the name with its length, then `tail` zero bytes. */
static int ask_about(struct connection *c, uint32_t option, const char *name, uint32_t tail)
{
	uint32_t len = (uint32_t)strlen(name);
	uint8_t *b = xcalloc(1, 4 + len + tail);
	store_be32(b, len);
	memcpy(b + 4, name, len);
	int rc = ask(c, option, b, 4 + len + tail);
	free(b);
	return rc;
}

static int get_info(struct connection *c, struct export *e, struct answer *a, struct error *err)
{
	int rc = ask_about(c, NBD_OPT_INFO, e->name, 2);
	if (rc)
		return error_errno(err, -rc, "the server does not listen");
	for (;;) {
		rc = hear(c, NBD_OPT_INFO, a, err);
		/* An old server has no INFO: there is a name then, and nothing more. */
		if (rc || a->type == NBD_REP_ACK || a->type & NBD_REP_FLAG_ERROR)
			return rc;
		uint16_t what =
			a->type == NBD_REP_INFO && a->len >= 2 ? load_be16(a->data) : 0xffff;
		if (what == NBD_INFO_EXPORT && a->len == 12) {
			e->has_size = true;
			e->size = load_be64(a->data + 2);
			e->flags = load_be16(a->data + 10);
		} else if (what == NBD_INFO_BLOCK_SIZE && a->len == 14) {
			e->min_block = load_be32(a->data + 2);
			e->opt_block = load_be32(a->data + 6);
			e->max_block = load_be32(a->data + 10);
		}
	}
}

static int get_contexts(struct connection *c, struct export *e, struct answer *a, struct error *err)
{
	int rc = ask_about(c, NBD_OPT_LIST_META_CONTEXT, e->name, 4);
	if (rc)
		return error_errno(err, -rc, "the server does not listen");
	for (;;) {
		rc = hear(c, NBD_OPT_LIST_META_CONTEXT, a, err);
		if (rc || a->type == NBD_REP_ACK || a->type & NBD_REP_FLAG_ERROR)
			return rc;
		if (a->type != NBD_REP_META_CONTEXT || a->len < 4 ||
		    e->context_count == MAX_EXPORTS)
			return error_set(err, EPROTO, "the server's contexts make no sense");
		e->contexts = xrealloc(e->contexts, (e->context_count + 1) * sizeof(*e->contexts));
		e->contexts[e->context_count++] = xstrdup((char *)a->data + 4);
	}
}

static void print_export(const struct export *e)
{
	static const char *const flags[] = {"",           "readonly", "flush",  "fua",
					    "rotational", "trim",     "zeroes", "df",
					    "multi",      "resize",   "cache",  "fast-zero"};
	printf(" export: '%s'\n", e->name);
	if (e->description)
		printf("  description: %s\n", e->description);
	if (e->has_size) {
		printf("  size:  %" PRIu64 "\n  flags: 0x%x (", e->size, e->flags);
		for (size_t i = 1; i < ARRAY_SIZE(flags); i++)
			if (e->flags >> i & 1)
				printf(" %s", flags[i]);
		printf(" )\n");
	}
	if (e->min_block)
		printf("  min block: %u\n  opt block: %u\n  max block: %u\n", e->min_block,
		       e->opt_block, e->max_block);
	if (e->context_count)
		printf("  available meta contexts: %zu\n", e->context_count);
	for (size_t i = 0; i < e->context_count; i++)
		printf("   %s\n", e->contexts[i]);
}

int nbd_list(const struct nbd_address *address, struct tls_creds *tls, const char *hostname,
	     struct error *err)
{
	struct connection c = {.fd = nbd_connect(address, err)};
	struct export *list = NULL;
	size_t count = 0;
	if (c.fd < 0)
		return c.fd;
	struct answer *a = xmalloc(sizeof(*a));
	int rc = greet(&c, err);
	if (!rc && tls)
		rc = start_tls(&c, tls, hostname, a, err);
	if (!rc && (rc = ask_simple(&c, NBD_OPT_STRUCTURED_REPLY, a, err)) >= 0) {
		c.structured = rc == 0;
		rc = list_exports(&c, &list, &count, a, err);
	}
	for (size_t i = 0; i < count && !rc; i++) {
		rc = get_info(&c, &list[i], a, err);
		if (!rc && c.structured)
			rc = get_contexts(&c, &list[i], a, err);
	}
	if (!rc) {
		ask_simple(&c, NBD_OPT_ABORT, a, NULL);
		printf("exports available: %zu\n", count);
		for (size_t i = 0; i < count; i++)
			print_export(&list[i]);
	}
	for (size_t i = 0; i < count; i++) {
		for (size_t k = 0; k < list[i].context_count; k++)
			free(list[i].contexts[k]);
		free(list[i].contexts);
		free(list[i].name);
		free(list[i].description);
	}
	free(list);
	free(a);
	if (c.tls)
		tls_bye(c.tls);
	tls_session_free(c.tls);
	close(c.fd);
	return rc;
}
