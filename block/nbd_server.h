/* SPDX-License-Identifier: MIT */
/*
 * An NBD server: serves images to clients over stream sockets that somebody else has accepted.
 *
 * Exports are added first, then clients. Each client has threads of its own, which run its requests
 * straight against the image (block/image.h); whatever a client sends or stops sending, the others
 * do not notice. No function here may be called from a client's thread.
 */
#ifndef BLOCK_NBD_SERVER_H
#define BLOCK_NBD_SERVER_H

#include "block/image.h"
#include "lib/error.h"
#include "lib/tls.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nbd_server;

struct nbd_server_config {
	/* NULL: no TLS. Else clients must start TLS before they see anything; the server takes a
	 * reference of its own. */
	struct tls_creds *tls;
	unsigned handshake_limit_ms; /* a client that has not chosen by then is dropped; 0: never */
	/*
	 * A client has gone; `negotiated` says that it came as far as using an export. Runs on the
	 * client's thread and must call nothing of the server, which does not count it any more.
	 */
	void (*gone)(void *opaque, bool negotiated);
	void *opaque;
};

struct nbd_export_config {
	const char *name;        /* "" is what clients get that ask for none */
	const char *description; /* or NULL */
	struct image *image;     /* the caller's; open until nbd_server_free() */
	uint64_t offset, size;   /* bytes of the image that are served */
	bool read_only;          /* the image may be read-only itself, then this must be set */
	bool multi_conn; /* clients may spread over several connections: what one has flushed, all
			    see. True of every image; false keeps clients from trying in vain where
			    only one may connect */
	bool allocation_depth; /* qemu:allocation-depth */
	/* NULL-terminated: dirty bitmaps of the image or of one below it; or NULL. */
	const char *const *bitmaps;
};

struct nbd_server *nbd_server_new(const struct nbd_server_config *config);
/* Ends all clients and waits for them, writes everything to disk. The images stay open. */
void nbd_server_free(struct nbd_server *server);
/* -EINVAL, -ENOENT or what reading a bitmap gives, with a sentence. Before the first client. */
int nbd_server_add_export(struct nbd_server *server, const struct nbd_export_config *config,
			  struct error *err);
/* Serves the client behind this socket, which becomes the server's in any case. */
int nbd_server_add_client(struct nbd_server *server, int fd, struct error *err);
/* The same without a handshake, for the kernel's client: the first export, simple replies. The
 * transmission flags, for NBD_SET_FLAGS, become *flags. */
int nbd_server_add_kernel(struct nbd_server *server, int fd, uint16_t *flags, struct error *err);
/* How many clients there are. Any thread. */
unsigned nbd_server_clients(struct nbd_server *server);
/* Ends all clients: requests that were read are still answered, for at most some seconds. */
void nbd_server_end_clients(struct nbd_server *server);

#endif
