/* SPDX-License-Identifier: MIT */
/* minivm-nbd: what its files share. Command line, messages' sense and exit codes are qemu-nbd's. */
#ifndef TOOLS_NBD_H
#define TOOLS_NBD_H

#include "block/image.h"
#include "lib/error.h"
#include <stdbool.h>
#include <stdint.h>

struct tls_creds;
struct nbd_server;

/* nbd_open.c: the image, as the options want it. */
struct nbd_source {
	const char *name;
	const char *format; /* NULL: probe */
	bool image_opts;
	unsigned flags;            /* enum image_flags */
	bool snapshot;             /* writes go to a temporary overlay */
	const char *load_snapshot; /* or NULL */
	const char *offset;        /* as typed, or NULL */
	unsigned partition;        /* 0: all of the disk */
	/* Results: what is served. */
	uint64_t from, size;
};
struct image *nbd_open(struct nbd_source *source, struct error *err);

/* nbd_partition.c: where partition `number` of the disk's MBR lies, in bytes; 5 and above are the
 * logical ones. */
int nbd_find_partition(struct image *img, unsigned number, uint64_t *offset, uint64_t *size,
		       struct error *err);

/* nbd_socket.c */
struct nbd_address {
	const char *bind, *port; /* TCP; NULL: 0.0.0.0, 10809 */
	const char *path;        /* a unix socket, or NULL */
};
enum { NBD_LISTENERS = 8 };
/* The number of sockets that systemd hands over (LISTEN_FDS); 0 without. */
int nbd_activated(void);
/* Listening sockets, non-blocking; their number or -errno. */
int nbd_listen(const struct nbd_address *address, int fds[NBD_LISTENERS], struct error *err);
/* A connected one. */
int nbd_connect(const struct nbd_address *address, struct error *err);

/* nbd_list.c: prints what the server there offers. 0 or -errno. */
int nbd_list(const struct nbd_address *address, struct tls_creds *tls, const char *hostname,
	     struct error *err);

/* nbd_device.c: the kernel's client. */
int nbd_device_connect(const char *path, struct nbd_server *server, uint64_t size, bool read_only,
		       struct error *err);
/* Runs until the device is disconnected. */
int nbd_device_run(int device, struct error *err);
/* May be called from a signal handler. */
void nbd_device_stop(int device);
int nbd_device_disconnect(const char *path, struct error *err);

#endif
