/* SPDX-License-Identifier: MIT */
/*
 * The handshake (doc/proto.md, "Fixed newstyle negotiation"): options until the client has chosen
 * an export, left, or used up its time. Under TLS nothing but STARTTLS and ABORT is answered before
 * the session is there, and the client's wishes from before are forgotten.
 */
#include "block/nbd_server_internal.h"
#include "lib/log.h"
#include "lib/text.h"
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	MAX_OPTION = 64 * 1024, /* what a name and many queries need */
	MAX_OPTIONS = 1024,     /* of a client that does not get anywhere */
	GO_ON = 1,
};

/* An option as it came. */
struct option {
	uint32_t code, len;
	uint8_t *data;
	uint32_t at; /* how far it is parsed */
};

static int reply(struct nbd_peer *p, const struct option *o, uint32_t type, const void *data,
		 size_t len, const void *more, size_t more_len)
{
	uint8_t head[NBD_OPTION_REPLY_SIZE];
	store_be64(head, NBD_REP_MAGIC);
	store_be32(head + 8, o->code);
	store_be32(head + 12, type);
	store_be32(head + 16, (uint32_t)(len + more_len));
	struct iovec iov[] = {{head, sizeof(head)}, {(void *)data, len}, {(void *)more, more_len}};
	int rc = nbd_peer_write(p, iov, 3);
	return rc ? rc : GO_ON;
}

static int ack(struct nbd_peer *p, const struct option *o)
{
	return reply(p, o, NBD_REP_ACK, NULL, 0, NULL, 0);
}

__attribute__((format(printf, 4, 5))) static int refuse(struct nbd_peer *p, const struct option *o,
							uint32_t type, const char *fmt, ...)
{
	char text[256];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	trace(TRACE_NBD, "option %u refused: %s", o->code, text);
	return reply(p, o, type, text, strlen(text), NULL, 0);
}

/* ---- Parsing; each false where the option is too short ---- */

static bool take(struct option *o, void *to, uint32_t len)
{
	if (o->len - o->at < len)
		return false;
	memcpy(to, o->data + o->at, len);
	o->at += len;
	return true;
}

static bool take_u32(struct option *o, uint32_t *v)
{
	uint8_t b[4];
	bool ok = take(o, b, sizeof(b));
	*v = ok ? load_be32(b) : 0;
	return ok;
}

/* A length and so many bytes, without zeroes among them. */
static bool take_string(struct option *o, char s[NBD_MAX_STRING + 1])
{
	uint32_t len;
	if (!take_u32(o, &len) || len > NBD_MAX_STRING || !take(o, s, len))
		return false;
	s[len] = '\0';
	return strlen(s) == len;
}

static struct nbd_export *find_export(struct nbd_peer *p, const char *name)
{
	struct list *it;
	list_for_each(it, &p->server->exports)
	{
		struct nbd_export *e = list_entry(it, struct nbd_export, link);
		if (strcmp(e->name, name) == 0)
			return e;
	}
	return NULL;
}

/* ---- Options ---- */

/* The export's size and flags, as they stand in two replies. */
static void put_export(const struct nbd_peer *p, const struct nbd_export *e, uint8_t b[10])
{
	store_be64(b, e->size);
	store_be16(b + 8, nbd_export_flags(e, p->structured));
}

/* Contexts count for the export they were chosen for. */
static void use_export(struct nbd_peer *p, struct nbd_export *e)
{
	if (p->metas.export != e)
		p->metas = (struct nbd_metas){0};
	p->export = e;
}

/* Its reply has no way to refuse: a wrong name ends the connection. */
static int opt_export_name(struct nbd_peer *p, struct option *o)
{
	uint8_t b[10 + NBD_EXPORT_ZEROES] = {0};
	char name[NBD_MAX_STRING + 1];
	if (o->len > NBD_MAX_STRING)
		return -EINVAL;
	memcpy(name, o->data, o->len);
	name[o->len] = '\0';
	struct nbd_export *e = strlen(name) == o->len ? find_export(p, name) : NULL;
	if (!e)
		return -ENOENT;
	use_export(p, e);
	put_export(p, e, b);
	struct iovec iov = {b, p->no_zeroes ? 10 : sizeof(b)};
	return nbd_peer_write(p, &iov, 1);
}

static int opt_list(struct nbd_peer *p, struct option *o)
{
	struct list *it;
	if (o->len)
		return refuse(p, o, NBD_REP_ERR_INVALID, "a list takes no data");
	list_for_each(it, &p->server->exports)
	{
		const struct nbd_export *e = list_entry(it, struct nbd_export, link);
		size_t len = strlen(e->name), more = e->description ? strlen(e->description) : 0;
		char *text = xasprintf("%s%s", e->name, more ? e->description : "");
		uint8_t b[4];
		store_be32(b, (uint32_t)len);
		int rc = reply(p, o, NBD_REP_SERVER, b, sizeof(b), text, len + more);
		free(text);
		if (rc != GO_ON)
			return rc;
	}
	return ack(p, o);
}

static int send_info(struct nbd_peer *p, struct option *o, uint16_t type, const void *data,
		     size_t len)
{
	uint8_t b[2];
	store_be16(b, type);
	return reply(p, o, NBD_REP_INFO, b, sizeof(b), data, len);
}

/* INFO and GO. */
static int opt_info(struct nbd_peer *p, struct option *o)
{
	char name[NBD_MAX_STRING + 1];
	uint8_t count[2], export_info[10], sizes[12], wish[2];
	bool want_name = false, want_description = false;
	if (!take_string(o, name) || !take(o, count, sizeof(count)))
		return refuse(p, o, NBD_REP_ERR_INVALID, "the request is malformed");
	for (unsigned n = load_be16(count); n; n--) {
		if (!take(o, wish, sizeof(wish)))
			return refuse(p, o, NBD_REP_ERR_INVALID, "the request is malformed");
		want_name |= load_be16(wish) == NBD_INFO_NAME;
		want_description |= load_be16(wish) == NBD_INFO_DESCRIPTION;
	}
	if (o->at != o->len)
		return refuse(p, o, NBD_REP_ERR_INVALID, "the request is malformed");
	struct nbd_export *e = find_export(p, name);
	if (!e)
		return refuse(p, o, NBD_REP_ERR_UNKNOWN, "there is no export '%.128s'", name);
	int rc = GO_ON;
	if (want_name)
		rc = send_info(p, o, NBD_INFO_NAME, e->name, strlen(e->name));
	if (rc == GO_ON && want_description && e->description)
		rc = send_info(p, o, NBD_INFO_DESCRIPTION, e->description, strlen(e->description));
	/* Any offset and length will do: drivers bounce where their file wants it aligned. */
	store_be32(sizes, 1);
	store_be32(sizes + 4, 4096);
	store_be32(sizes + 8, NBD_MAX_PAYLOAD);
	if (rc == GO_ON)
		rc = send_info(p, o, NBD_INFO_BLOCK_SIZE, sizes, sizeof(sizes));
	put_export(p, e, export_info);
	if (rc == GO_ON)
		rc = send_info(p, o, NBD_INFO_EXPORT, export_info, sizeof(export_info));
	if (rc == GO_ON)
		rc = ack(p, o);
	if (rc != GO_ON || o->code == NBD_OPT_INFO)
		return rc;
	use_export(p, e);
	return 0;
}

/* LIST_META_CONTEXT and SET_META_CONTEXT. */
static int opt_meta(struct nbd_peer *p, struct option *o)
{
	bool list = o->code == NBD_OPT_LIST_META_CONTEXT, chosen[META_MAX] = {false};
	char text[NBD_MAX_STRING + 1];
	uint32_t queries;
	if (!p->structured)
		return refuse(p, o, NBD_REP_ERR_INVALID, "structured replies come first");
	if (!list)
		p->metas = (struct nbd_metas){0};
	if (!take_string(o, text) || !take_u32(o, &queries))
		return refuse(p, o, NBD_REP_ERR_INVALID, "the request is malformed");
	struct nbd_export *e = find_export(p, text);
	if (!e)
		return refuse(p, o, NBD_REP_ERR_UNKNOWN, "there is no export '%.128s'", text);
	for (unsigned id = 0; list && !queries && id < META_BITMAPS + e->bitmaps; id++)
		chosen[id] = true;
	/* Each takes four bytes of the option at least, so that its length bounds them. */
	for (uint32_t n = 0; n < queries; n++) {
		if (!take_string(o, text))
			return refuse(p, o, NBD_REP_ERR_INVALID, "the request is malformed");
		nbd_meta_match(e, text, list, chosen);
	}
	if (o->at != o->len)
		return refuse(p, o, NBD_REP_ERR_INVALID, "the request is malformed");
	struct nbd_metas metas = {.export = e};
	for (unsigned id = 0; id < META_BITMAPS + e->bitmaps; id++) {
		char *name = chosen[id] ? nbd_meta_name(e, id) : NULL;
		uint8_t b[4];
		if (!name)
			continue;
		store_be32(b, list ? 0 : id);
		int rc = reply(p, o, NBD_REP_META_CONTEXT, b, sizeof(b), name, strlen(name));
		free(name);
		if (rc != GO_ON)
			return rc;
		metas.chosen[id] = true;
		metas.count++;
	}
	if (!list)
		p->metas = metas;
	return ack(p, o);
}

static int opt_starttls(struct nbd_peer *p, struct option *o)
{
	struct error err = ERROR_INIT;
	if (o->len)
		return refuse(p, o, NBD_REP_ERR_INVALID, "starting TLS takes no data");
	if (!p->server->config.tls)
		return refuse(p, o, NBD_REP_ERR_POLICY, "TLS is not configured");
	if (p->tls)
		return refuse(p, o, NBD_REP_ERR_INVALID, "TLS is in use already");
	/* What was sent ahead came in the clear, perhaps from somebody else. */
	if (p->in_at != p->in_end)
		return -EPROTO;
	int rc = ack(p, o);
	if (rc != GO_ON)
		return rc;
	int flags = fcntl(p->fd, F_GETFL);
	if (flags < 0 || fcntl(p->fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	p->tls = tls_session_new(p->server->config.tls, p->fd, NULL, &err);
	int left = -1;
	if (p->deadline_ms) {
		uint64_t now = nbd_now_ns() / 1000000;
		left = now < p->deadline_ms ? (int)(p->deadline_ms - now) : 0;
	}
	rc = p->tls ? tls_handshake(p->tls, left, &err) : -EIO;
	if (rc) {
		trace(TRACE_NBD, "no TLS: %s", err.text);
		return rc;
	}
	p->structured = false;
	p->metas = (struct nbd_metas){0};
	return GO_ON;
}

static int do_option(struct nbd_peer *p, struct option *o)
{
	trace(TRACE_NBD, "option %u, %u bytes", o->code, o->len);
	if (p->server->config.tls && !p->tls && o->code != NBD_OPT_STARTTLS &&
	    o->code != NBD_OPT_ABORT) {
		if (o->code == NBD_OPT_EXPORT_NAME)
			return -EPERM;
		return refuse(p, o, NBD_REP_ERR_TLS_REQD, "TLS is required");
	}
	/* The first newstyle had no replies, and so only one option. */
	if (!p->fixed && o->code != NBD_OPT_EXPORT_NAME)
		return -EPROTO;
	switch (o->code) {
	case NBD_OPT_EXPORT_NAME: return opt_export_name(p, o);
	case NBD_OPT_ABORT: ack(p, o); return -ESHUTDOWN;
	case NBD_OPT_LIST: return opt_list(p, o);
	case NBD_OPT_STARTTLS: return opt_starttls(p, o);
	case NBD_OPT_INFO:
	case NBD_OPT_GO: return opt_info(p, o);
	case NBD_OPT_STRUCTURED_REPLY:
		if (o->len)
			return refuse(p, o, NBD_REP_ERR_INVALID, "this option takes no data");
		p->structured = true;
		return ack(p, o);
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT: return opt_meta(p, o);
	default: return refuse(p, o, NBD_REP_ERR_UNSUP, "option %u is not supported", o->code);
	}
}

int nbd_peer_handshake(struct nbd_peer *p)
{
	uint8_t b[NBD_GREETING_SIZE], head[NBD_OPTION_SIZE];
	store_be64(b, NBD_MAGIC);
	store_be64(b + 8, NBD_OPTS_MAGIC);
	store_be16(b + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	struct iovec iov = {b, sizeof(b)};
	int rc = nbd_peer_write(p, &iov, 1);
	if (!rc)
		rc = nbd_peer_read(p, head, 4);
	if (rc)
		return rc;
	uint32_t flags = load_be32(head);
	if (flags & ~(uint32_t)(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES))
		return -EPROTO;
	p->fixed = flags & NBD_FLAG_C_FIXED_NEWSTYLE;
	p->no_zeroes = flags & NBD_FLAG_C_NO_ZEROES;
	rc = GO_ON;
	for (int n = 0; rc == GO_ON; n++) {
		struct option o = {0};
		rc = n < MAX_OPTIONS ? nbd_peer_read(p, head, sizeof(head)) : -EPROTO;
		if (rc)
			return rc;
		o.code = load_be32(head + 8);
		o.len = load_be32(head + 12);
		if (load_be64(head) != NBD_OPTS_MAGIC || o.len > NBD_MAX_PAYLOAD)
			return -EPROTO;
		if (o.len > MAX_OPTION) {
			rc = nbd_peer_skip(p, o.len);
			if (!rc && (!p->fixed || o.code == NBD_OPT_EXPORT_NAME))
				rc = -EPROTO;
			if (!rc)
				rc = refuse(p, &o, NBD_REP_ERR_TOO_BIG, "the option is too long");
			continue;
		}
		o.data = malloc(o.len + 1);
		rc = o.data ? nbd_peer_read(p, o.data, o.len) : -ENOMEM;
		if (!rc)
			rc = do_option(p, &o);
		free(o.data);
	}
	return rc;
}
