/* SPDX-License-Identifier: MIT */
/*
 * The NBD handshake, client's side (NetworkBlockDevice/nbd, doc/proto.md, "The handshaking phase").
 *
 * Fixed newstyle: STARTTLS if TLS is wanted, STRUCTURED_REPLY, SET_META_CONTEXT, then GO, or
 * EXPORT_NAME with servers that do not know GO. A newstyle server that is not "fixed" takes
 * EXPORT_NAME alone, an oldstyle one nothing at all; neither can do TLS.
 *
 * A server's texts are shown to the user only with their control characters taken out. Its replies
 * to one option are bounded in number and length.
 */
#include "block/nbd_client.h"
#include "block/nbd_proto.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/strbuf.h"
#include "lib/tls.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
	MAX_REPLIES = 64,      /* to one option */
	MAX_REPLY = 64 * 1024, /* bytes of data */
	ASSUMED_BLOCK = 512,   /* of a server that does not tell, "Block size constraints" */
	MAX_MIN_BLOCK = 64 * 1024,
	SHOWN_TEXT = 256,
};

struct handshake {
	struct nbd_stream *stream;
	const struct nbd_config *config;
	struct nbd_export *export;
	bool no_zeroes;
	bool told_blocks; /* the server sent block sizes */
	struct error *err;
};

struct option_reply {
	uint32_t type, len;
};

static int broken(struct handshake *h, int rc)
{
	switch (rc) {
	case -ETIMEDOUT: return error_set(h->err, ETIMEDOUT, "the server does not answer");
	case -ECONNRESET:
		return error_set(h->err, ECONNRESET,
				 "the server closed the connection in the "
				 "middle of the handshake");
	default: return error_errno(h->err, -rc, "the connection to the server failed");
	}
}

static int violation(struct handshake *h, const char *what)
{
	return error_set(h->err, EPROTO, "that is no NBD server, or a broken one: %s", what);
}

static int receive(struct handshake *h, void *buf, size_t len)
{
	int rc = nbd_stream_read(h->stream, buf, len);
	return rc < 0 ? broken(h, rc) : 0;
}

static int skip(struct handshake *h, size_t len)
{
	int rc = nbd_stream_skip(h->stream, len);
	return rc < 0 ? broken(h, rc) : 0;
}

/* ---- Options ---- */

static int send_option(struct handshake *h, uint32_t option, const struct iovec *data, int count)
{
	uint8_t head[NBD_OPTION_SIZE];
	uint64_t len = 0;
	for (int i = 0; i < count; i++)
		len += data[i].iov_len;
	store_be64(head, NBD_OPTS_MAGIC);
	store_be32(head + 8, option);
	store_be32(head + 12, (uint32_t)len);
	struct strbuf message = STRBUF_INIT;
	strbuf_append(&message, head, sizeof(head));
	for (int i = 0; i < count; i++)
		strbuf_append(&message, data[i].iov_base, data[i].iov_len);
	int rc = nbd_stream_write(h->stream, strbuf_str(&message), message.len);
	strbuf_free(&message);
	return rc < 0 ? broken(h, rc) : 0;
}

static int receive_reply(struct handshake *h, uint32_t option, struct option_reply *reply)
{
	uint8_t head[NBD_OPTION_REPLY_SIZE];
	int rc = receive(h, head, sizeof(head));
	if (rc < 0)
		return rc;
	reply->type = load_be32(head + 12);
	reply->len = load_be32(head + 16);
	if (load_be64(head) != NBD_REP_MAGIC || load_be32(head + 8) != option)
		return violation(h, "its reply to an option has a wrong header");
	if (reply->len > MAX_REPLY)
		return violation(h, "its reply to an option is too long");
	trace(TRACE_NBD, "option %u reply 0x%x, %u bytes", option, reply->type, reply->len);
	return 0;
}

/* Reads a text of `len` bytes; what can be shown of it goes to out[]. */
static int receive_text(struct handshake *h, uint32_t len, char out[SHOWN_TEXT])
{
	size_t part = len < SHOWN_TEXT - 1 ? len : SHOWN_TEXT - 1;
	int rc = receive(h, out, part);
	out[part] = 0;
	for (size_t i = 0; i < part; i++)
		if ((unsigned char)out[i] < ' ' || out[i] == 0x7f)
			out[i] = ' ';
	return rc < 0 ? rc : skip(h, len - part);
}

static const char *option_error_name(uint32_t type)
{
	switch (type) {
	case NBD_REP_ERR_UNSUP: return "it does not support that";
	case NBD_REP_ERR_POLICY: return "its policy forbids that";
	case NBD_REP_ERR_INVALID: return "it finds the request invalid";
	case NBD_REP_ERR_PLATFORM: return "its platform cannot do that";
	case NBD_REP_ERR_TLS_REQD: return "it wants TLS; give tls-creds=, or use an nbds: address";
	case NBD_REP_ERR_UNKNOWN: return "it has no such export";
	case NBD_REP_ERR_SHUTDOWN: return "it is shutting down";
	case NBD_REP_ERR_BLOCK_SIZE_REQD: return "it wants its block sizes to be used";
	case NBD_REP_ERR_TOO_BIG: return "the request is too big";
	default: return "it reports an unknown error";
	}
}

/* The sentence of an error reply to an option, whose text is still to be read. */
static int option_refused(struct handshake *h, const char *what, const struct option_reply *reply)
{
	char text[SHOWN_TEXT];
	int rc = receive_text(h, reply->len, text);
	if (rc < 0)
		return rc;
	int code = reply->type == NBD_REP_ERR_UNKNOWN    ? ENOENT
		   : reply->type == NBD_REP_ERR_TLS_REQD ? EACCES
		   : reply->type == NBD_REP_ERR_POLICY   ? EACCES
							 : EINVAL;
	const char *name = option_error_name(reply->type);
	if (text[0])
		return error_set(h->err, code, "the server refused %s: %s (%s)", what, name, text);
	return error_set(h->err, code, "the server refused %s: %s", what, name);
}

/* Sends an option without data that is answered by ACK: 1, by an error: 0, or fails. `refusal`
 * NULL: an error is no failure. */
static int simple_option(struct handshake *h, uint32_t option, const char *refusal)
{
	struct option_reply reply;
	int rc = send_option(h, option, NULL, 0);
	if (rc == 0)
		rc = receive_reply(h, option, &reply);
	if (rc < 0)
		return rc;
	if (reply.type & NBD_REP_FLAG_ERROR) {
		if (refusal || reply.type == NBD_REP_ERR_TLS_REQD)
			return option_refused(h, refusal ? refusal : "to go on", &reply);
		rc = skip(h, reply.len);
		return rc < 0 ? rc : 0;
	}
	if (reply.type != NBD_REP_ACK || reply.len)
		return violation(h, "its reply to an option is not an acknowledgement");
	return 1;
}

static int start_tls(struct handshake *h, struct tls_creds *creds)
{
	const struct nbd_config *c = h->config;
	int rc = simple_option(h, NBD_OPT_STARTTLS, "TLS");
	if (rc < 0)
		return rc;
	const char *hostname = c->tls_hostname ? c->tls_hostname : c->host;
	return nbd_stream_start_tls(h->stream, creds, hostname, h->err);
}

/* One context is asked for; its id is in the only NBD_REP_META_CONTEXT that comes back. */
static int set_meta_context(struct handshake *h)
{
	const struct nbd_config *c = h->config;
	const char *wanted = c->bitmap ? c->bitmap : NBD_META_BASE_ALLOCATION;
	uint8_t name_len[4], counts[8];
	store_be32(name_len, (uint32_t)strlen(c->export));
	store_be32(counts, 1);
	store_be32(counts + 4, (uint32_t)strlen(wanted));
	struct iovec data[] = {{name_len, sizeof(name_len)},
			       {c->export, strlen(c->export)},
			       {counts, sizeof(counts)},
			       {(char *)wanted, strlen(wanted)}};
	int rc = send_option(h, NBD_OPT_SET_META_CONTEXT, data, ARRAY_SIZE(data));
	for (int n = 0; rc == 0; n++) {
		struct option_reply reply;
		uint8_t id[4];
		char name[NBD_MAX_STRING + 1];
		if ((rc = receive_reply(h, NBD_OPT_SET_META_CONTEXT, &reply)) < 0)
			return rc;
		if (reply.type & NBD_REP_FLAG_ERROR) {
			rc = skip(h, reply.len);
			break;
		}
		if (reply.type == NBD_REP_ACK && !reply.len)
			break;
		if (reply.type != NBD_REP_META_CONTEXT || n >= MAX_REPLIES || reply.len < 4 ||
		    reply.len - 4 > NBD_MAX_STRING)
			return violation(h, "its reply on metadata is malformed");
		if ((rc = receive(h, id, sizeof(id))) < 0 ||
		    (rc = receive(h, name, reply.len - 4)) < 0)
			return rc;
		name[reply.len - 4] = 0;
		if (h->export->has_context || strcmp(name, wanted))
			return violation(h, "it offers metadata that was not asked for");
		h->export->has_context = true;
		h->export->context = load_be32(id);
	}
	if (rc == 0 && c->bitmap && !h->export->has_context)
		return error_set(h->err, ENOENT, "the server has no bitmap '%s' of this export",
				 c->bitmap);
	return rc;
}

/* ---- The export ---- */

static int take_export(struct handshake *h, uint64_t size, uint16_t flags)
{
	if (size > INT64_MAX)
		return violation(h, "its export is larger than 2^63 bytes");
	h->export->size = size;
	h->export->flags = flags & NBD_FLAG_HAS_FLAGS ? flags : 0;
	return 0;
}

static int take_block_sizes(struct handshake *h, uint32_t min, uint32_t preferred, uint32_t max)
{
	if (!is_power_of_2(min) || min > MAX_MIN_BLOCK)
		return violation(h, "its minimum block size is not a power of two up to 64 KiB");
	if (!is_power_of_2(preferred) || preferred < min)
		return violation(h, "its preferred block size is malformed");
	if (max < min)
		return violation(h, "its maximum block size is below the minimum");
	h->told_blocks = true;
	h->export->min_block = min;
	h->export->max_block = max;
	return 0;
}

/* The data of one NBD_REP_INFO; *got_export is set by the one that must be there. */
static int receive_info(struct handshake *h, uint32_t len, bool *got_export)
{
	uint8_t data[14];
	if (len < 2)
		return violation(h, "its information on the export is malformed");
	int rc = receive(h, data, 2);
	if (rc < 0)
		return rc;
	uint16_t info = load_be16(data);
	len -= 2;
	switch (info) {
	case NBD_INFO_EXPORT:
		if (len != 10)
			return violation(h, "its information on the export has a wrong length");
		*got_export = true;
		rc = receive(h, data, len);
		return rc < 0 ? rc : take_export(h, load_be64(data), load_be16(data + 8));
	case NBD_INFO_BLOCK_SIZE:
		if (len != 12)
			return violation(h, "its block sizes have a wrong length");
		rc = receive(h, data, len);
		return rc < 0 ? rc
			      : take_block_sizes(h, load_be32(data), load_be32(data + 4),
						 load_be32(data + 8));
	default: return skip(h, len);
	}
}

/* 1: the transmission phase has begun, 0: the server does not know GO. */
static int go(struct handshake *h)
{
	uint8_t name_len[4], requests[4];
	store_be32(name_len, (uint32_t)strlen(h->config->export));
	store_be16(requests, 1);
	store_be16(requests + 2, NBD_INFO_BLOCK_SIZE);
	struct iovec data[] = {{name_len, sizeof(name_len)},
			       {h->config->export, strlen(h->config->export)},
			       {requests, sizeof(requests)}};
	bool got_export = false;
	int rc = send_option(h, NBD_OPT_GO, data, ARRAY_SIZE(data));
	for (int n = 0; rc == 0; n++) {
		struct option_reply reply;
		if ((rc = receive_reply(h, NBD_OPT_GO, &reply)) < 0)
			return rc;
		if (reply.type == NBD_REP_ERR_UNSUP)
			return skip(h, reply.len);
		if (reply.type & NBD_REP_FLAG_ERROR) {
			char what[SHOWN_TEXT];
			snprintf(what, sizeof(what), "export '%.200s'", h->config->export);
			return option_refused(h, what, &reply);
		}
		if (reply.type == NBD_REP_ACK && !reply.len && got_export)
			return 1;
		if (reply.type != NBD_REP_INFO || n >= MAX_REPLIES)
			return violation(h, "its reply to NBD_OPT_GO is malformed");
		rc = receive_info(h, reply.len, &got_export);
	}
	return rc;
}

/* The way before GO. A server that does not have the export can only hang up. */
static int export_name(struct handshake *h)
{
	struct iovec data = {h->config->export, strlen(h->config->export)};
	uint8_t reply[10];
	int rc = send_option(h, NBD_OPT_EXPORT_NAME, &data, 1);
	if (rc < 0)
		return rc;
	rc = nbd_stream_read(h->stream, reply, sizeof(reply));
	if (rc == -ECONNRESET || rc == -EPIPE)
		return error_set(h->err, ENOENT, "the server has no export '%.200s'%s",
				 h->config->export,
				 h->config->tls ? "" : ", or wants TLS (tls-creds=)");
	if (rc < 0)
		return broken(h, rc);
	rc = take_export(h, load_be64(reply), load_be16(reply + 8));
	return rc < 0 || h->no_zeroes ? rc : skip(h, NBD_EXPORT_ZEROES);
}

static int newstyle(struct handshake *h, struct tls_creds *creds)
{
	uint8_t flags[4];
	int rc = receive(h, flags, 2);
	if (rc < 0)
		return rc;
	uint16_t server = load_be16(flags);
	uint32_t client = 0;
	bool fixed = server & NBD_FLAG_FIXED_NEWSTYLE;
	if (fixed)
		client |= NBD_FLAG_C_FIXED_NEWSTYLE;
	if (server & NBD_FLAG_NO_ZEROES) {
		client |= NBD_FLAG_C_NO_ZEROES;
		h->no_zeroes = true;
	}
	store_be32(flags, client);
	if ((rc = nbd_stream_write(h->stream, flags, sizeof(flags))) < 0)
		return broken(h, rc);
	if (!fixed) {
		if (creds)
			return error_set(h->err, ENOTSUP, "the server is too old for TLS");
		return export_name(h);
	}
	if (creds && (rc = start_tls(h, creds)) < 0)
		return rc;
	if ((rc = simple_option(h, NBD_OPT_STRUCTURED_REPLY, NULL)) < 0)
		return rc;
	h->export->structured = rc;
	if (h->export->structured && (rc = set_meta_context(h)) < 0)
		return rc;
	rc = go(h);
	return rc ? rc : export_name(h);
}

static int oldstyle(struct handshake *h, struct tls_creds *creds)
{
	uint8_t reply[12 + NBD_EXPORT_ZEROES];
	int rc = receive(h, reply, sizeof(reply));
	if (rc < 0)
		return rc;
	if (creds)
		return error_set(h->err, ENOTSUP, "the server is too old for TLS");
	if (*h->config->export)
		return error_set(h->err, ENOENT,
				 "the server is too old for export names; leave '%.200s' out",
				 h->config->export);
	return take_export(h, load_be64(reply), load_be16(reply + 10));
}

/* Completes and checks the block sizes. */
static int settle_blocks(struct handshake *h)
{
	struct nbd_export *e = h->export;
	if (!h->told_blocks) {
		e->min_block = e->size % ASSUMED_BLOCK ? 1 : ASSUMED_BLOCK;
		e->max_block = NBD_MAX_PAYLOAD;
	}
	if (e->size % e->min_block)
		return violation(h, "its export is not a multiple of the minimum block size");
	if (e->max_block > NBD_MAX_PAYLOAD)
		e->max_block = NBD_MAX_PAYLOAD;
	e->max_block = (uint32_t)round_down(e->max_block, e->min_block);
	return 0;
}

int nbd_handshake(struct nbd_stream *s, const struct nbd_config *config, struct tls_creds *creds,
		  struct nbd_export *export, struct error *err)
{
	struct handshake h = {.stream = s, .config = config, .export = export, .err = err};
	uint8_t magic[16];
	*export = (struct nbd_export){0};
	int rc = receive(&h, magic, sizeof(magic));
	if (rc < 0)
		return rc;
	if (load_be64(magic) != NBD_MAGIC)
		return violation(&h, "it does not begin with NBDMAGIC");
	if (load_be64(magic + 8) == NBD_OPTS_MAGIC)
		rc = newstyle(&h, creds);
	else if (load_be64(magic + 8) == NBD_OLDSTYLE_MAGIC)
		rc = oldstyle(&h, creds);
	else
		return violation(&h, "its handshake is of an unknown style");
	if (rc < 0)
		return rc;
	rc = settle_blocks(&h);
	if (rc == 0)
		nbd_stream_established(s);
	return rc;
}
