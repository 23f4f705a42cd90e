/* SPDX-License-Identifier: MIT */
/*
 * NBD client: what an export is called, the connection to it, and the file layer on top, on which
 * image formats work as on a file.
 */
#ifndef BLOCK_NBD_CLIENT_H
#define BLOCK_NBD_CLIENT_H

#include "block/file.h"
#include "block/nbd_request.h"
#include "lib/error.h"
#include "lib/optstr.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct tls_creds;

/* ---- Names (nbd_name.c) ---- */

/* Where an export is. Strings are malloc'ed or NULL. */
struct nbd_config {
	char *host, *port; /* TCP */
	char *socket;      /* path of a unix socket, in place of them */
	char *export;      /* never NULL once parsed; "" is the server's default */
	bool tls;          /* nbds: or credentials given */
	char *tls_creds;   /* id of an -object */
	char *tls_hostname;
	char *tls_certificates, *tls_psk_file, *tls_user; /* of a nbds URI */
	char *bitmap; /* "qemu:dirty-bitmap:NAME", asked for in place of base:allocation */
	unsigned reconnect_delay; /* seconds */
	unsigned open_timeout;    /* seconds */
};

/* "nbd:..." and its like. */
bool nbd_is_name(const char *name);
/*
 * For a drive of which `file` (may be NULL) and `opts` say where it is: 1 if that is an NBD export,
 * whose malloc'ed name is *name and whose options are checked and marked as used; 0 if not; -errno
 * with a sentence.
 */
int nbd_describe(const char *file, struct opts *opts, char **name, struct error *err);
/* True if the options with this prefix name a server. */
bool nbd_opts_have_server(const struct opts *opts, const char *prefix);
/* The prefix of the NBD node's keys in a drive's options: "" for driver=nbd, "file." for
 * file.driver=nbd, NULL if they name no NBD node. */
const char *nbd_opts_prefix(const struct opts *opts);
/*
 * Fills `config`, which is zeroed, from a name (NULL: options alone) and from the options with this
 * prefix, which are marked as used (opts NULL: none). On failure there is nothing to free.
 */
int nbd_config_parse(struct nbd_config *config, const char *name, struct opts *opts,
		     const char *prefix, struct error *err);
void nbd_config_free(struct nbd_config *config);
/* The export's URI, malloc'ed. */
char *nbd_config_uri(const struct nbd_config *config);

/* ---- One connection's byte stream (nbd_stream.c) ---- */

struct nbd_stream;

/* Connects. All of it, and of what follows until nbd_stream_established(), ends within timeout_ms.
 * NULL with a sentence. */
struct nbd_stream *nbd_stream_connect(const struct nbd_config *config, int timeout_ms,
				      struct error *err);
/* The same over a connected socket, which it takes over. */
struct nbd_stream *nbd_stream_new(int fd, int timeout_ms);
int nbd_stream_start_tls(struct nbd_stream *s, struct tls_creds *creds, const char *hostname,
			 struct error *err);
/* From now on transfers wait as long as it takes. */
void nbd_stream_established(struct nbd_stream *s);
/* Whole transfers: 0 or -errno; -ECONNRESET at the end of the stream. One thread may read while
 * another writes. */
int nbd_stream_read(struct nbd_stream *s, void *buf, size_t len);
int nbd_stream_skip(struct nbd_stream *s, size_t len);
int nbd_stream_write(struct nbd_stream *s, const void *buf, size_t len);
/* How many bytes of the list have gone without waiting, 0 if none, or -errno. Under TLS some may be
 * unsent all the same, and go with the next call, whose list may be empty. */
ssize_t nbd_stream_send(struct nbd_stream *s, const struct iovec *iov, int iovcnt);
bool nbd_stream_unsent(const struct nbd_stream *s);
/* Waits until it may take more, or has failed. */
int nbd_stream_wait_send(struct nbd_stream *s);
/* Who reads tells when it may be about to wait for the peer, and when that is over. */
void nbd_stream_on_wait(struct nbd_stream *s, void (*waiting)(void *opaque, bool waits),
			void *opaque);
/* Makes the reading of another thread end; what was written still arrives. */
void nbd_stream_stop_reading(struct nbd_stream *s);
/* Makes transfers of other threads fail; the stream stays to be freed. */
void nbd_stream_shut(struct nbd_stream *s);
void nbd_stream_free(struct nbd_stream *s);

/* ---- Handshake (nbd_handshake.c) ---- */

/* What the server says of the export. */
struct nbd_export {
	uint64_t size;
	uint16_t flags; /* enum nbd_transmission_flags */
	bool structured;
	bool has_context;
	uint32_t context; /* id of base:allocation or of the bitmap */
	/* Bytes; min is a power of two, max its multiple and at most NBD_MAX_PAYLOAD. */
	uint32_t min_block, max_block;
};

/* Negotiates up to the transmission phase. `creds` NULL: without TLS. 0 or -errno with a sentence.
 */
int nbd_handshake(struct nbd_stream *s, const struct nbd_config *config, struct tls_creds *creds,
		  struct nbd_export *export, struct error *err);

/* ---- Requests (nbd_client.c) ---- */

struct nbd_client;

/* Connects, retrying for config->open_timeout seconds; takes over the strings of `config`. */
struct nbd_client *nbd_client_open(struct nbd_config *config, struct error *err);
/* The same over a stream that is connected already, which it takes over, whatever the result; only
 * when that breaks it connects to where `config` says. */
struct nbd_client *nbd_client_attach(struct nbd_config *config, struct nbd_stream *s,
				     struct error *err);
/* The program is about to end: from now on requests fail when the server says nothing for some
 * seconds, whatever reconnect_delay says. */
void nbd_client_ending(struct nbd_client *c);
/* Nothing may be in flight. */
void nbd_client_close(struct nbd_client *c);
const struct nbd_export *nbd_client_export(const struct nbd_client *c);

/*
 * Any thread: sends the request, whose `done` runs on the client's reader thread, or on that of a
 * caller who was already waiting for a reply. That must neither wait for another request nor close
 * the client; it may submit. It never runs within this. Never waits for the server. False, and
 * nothing was done: the host has no thread for it, or the list is too long. Offset and length must
 * be within the export and its block sizes.
 */
bool nbd_client_submit(struct nbd_client *c, struct nbd_request *req);
/* One request of any thread; it waits for the reply. 0 or -errno. The list has at most 64 entries.
 * `flags`: enum nbd_command_flags. */
int nbd_client_read(struct nbd_client *c, const struct iovec *iov, int iovcnt, uint64_t offset);
int nbd_client_write(struct nbd_client *c, const struct iovec *iov, int iovcnt, uint64_t offset,
		     uint16_t flags);
/* NBD_CMD_FLUSH, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_CACHE. */
int nbd_client_command(struct nbd_client *c, uint16_t type, uint64_t offset, uint32_t len,
		       uint16_t flags);
/* The status flags at `offset`; *count becomes how many bytes (1..len) they hold for. */
int nbd_client_status(struct nbd_client *c, uint64_t offset, uint32_t len, uint32_t *flags,
		      uint32_t *count);

/* ---- The file layer (nbd_file.c) ---- */

/* Opens an export as a file: `name` and `opts` as for nbd_config_parse(), `flags` of enum
 * image_flags, `what` begins the error ("cannot open 'x'"). */
struct file_layer *nbd_file_open(const char *name, struct opts *opts, const char *prefix,
				 unsigned flags, const char *what, struct error *err);

#endif
