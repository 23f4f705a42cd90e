/* SPDX-License-Identifier: MIT */
/*
 * A drive as a device sees it: something with a medium that may come and go, and a queue that takes
 * requests. The queue runs them on worker threads straight against the image and reports each
 * completion in the event loop with the machine lock held.
 *
 * Functions are for the lock holder unless noted.
 */
#ifndef BLOCK_DRIVE_H
#define BLOCK_DRIVE_H

#include "block/image.h"
#include "lib/loop.h"

struct drive;

enum drive_kind { DRIVE_DISK, DRIVE_CDROM, DRIVE_FLOPPY };

enum drive_op { DRIVE_READ, DRIVE_WRITE, DRIVE_FLUSH, DRIVE_DISCARD, DRIVE_WRITE_ZEROES };

/* One request, storage of the caller, untouched until `done` runs. Buffers are host memory (guest
 * RAM through mem_dma_map(), or a device's own buffer). */
struct drive_request {
	enum drive_op op;
	uint64_t offset, len; /* bytes; len is the sum of the iovec for READ and WRITE */
	const struct iovec *iov;
	int iovcnt;
	bool fua;
	/* Event loop, lock held; `result` is 0 or -errno. */
	void (*done)(struct drive_request *req, int result);
	void *opaque;
	/* private */
	struct drive *drive;
	int result;
	struct drive_request *next;
	struct loop_call call;
};

struct drive_config {
	const char *id; /* "ide0-hd0", "floppy0" or the user's id= */
	enum drive_kind kind;
	const char *file;                   /* NULL: no medium */
	const char *format;                 /* NULL: probe */
	unsigned image_flags;               /* IMAGE_* ; IMAGE_WRITABLE absent: read-only */
	bool snapshot;                      /* writes go to a temporary overlay */
	unsigned cylinders, heads, sectors; /* geometry asked for by the user, or 0 */
	const char *serial;                 /* or NULL */
	struct opts *opts;                  /* further driver options, may be NULL */
};

/* Opens the medium, if any. NULL with an error that says what is wrong with which file. */
struct drive *drive_new(struct loop *loop, const struct drive_config *config, struct error *err);
/* Waits for requests in flight, flushes, closes. */
void drive_free(struct drive *drive);

void drive_submit(struct drive *drive, struct drive_request *req);
/* Waits until no request is in flight; completions run inside (lock held by the caller, the loop's
 * thread or not). */
void drive_drain(struct drive *drive);
/* Synchronous transfer for firmware tables, probing and slow devices; 0 or -errno. */
int drive_pread(struct drive *drive, void *buf, size_t len, uint64_t offset);
int drive_pwrite(struct drive *drive, const void *buf, size_t len, uint64_t offset);

const char *drive_id(const struct drive *drive);
enum drive_kind drive_get_kind(const struct drive *drive);
const char *drive_serial(const struct drive *drive);
bool drive_inserted(const struct drive *drive);
bool drive_writable(const struct drive *drive);
uint64_t drive_size(const struct drive *drive);    /* bytes; 0 without a medium */
const char *drive_file(const struct drive *drive); /* NULL without a medium */
const char *drive_format(const struct drive *drive);
/* IMAGE_* as the medium was opened with: the cache mode stands there. */
unsigned drive_image_flags(const struct drive *drive);
/* The medium's backing file, or NULL. */
const char *drive_backing_file(const struct drive *drive);
/* What the device says of its tray. False where there is none (floppies). */
bool drive_has_tray(const struct drive *drive);
bool drive_tray_open(const struct drive *drive);
bool drive_locked(const struct drive *drive);
/* Geometry asked for by the user: false if none. */
bool drive_geometry(const struct drive *drive, unsigned *cylinders, unsigned *heads,
		    unsigned *sectors);

/* Media change. The device is told through the callback; a locked tray refuses eject without
 * `force` (-EBUSY, and the device is asked to signal an eject request). */
struct drive_media_ops {
	void (*changed)(void *opaque, bool inserted);
	void (*eject_request)(void *opaque, bool force); /* may be NULL */
	bool (*tray_open)(void *opaque);                 /* may be NULL: no tray */
	bool (*locked)(void *opaque);                    /* may be NULL: never */
	void *opaque;
};
/* Who wants to know when the tray moves, by the guest or by the functions below. One listener; NULL
 * takes it back. */
void drive_on_tray_moved(struct drive *drive,
			 void (*moved)(void *opaque, struct drive *drive, bool open), void *opaque);
/* The device: its tray has just moved. */
void drive_tray_moved(struct drive *drive, bool open);
/* Copies `ops`; NULL takes them back. */
void drive_set_media_ops(struct drive *drive, const struct drive_media_ops *ops);
int drive_eject(struct drive *drive, bool force, struct error *err);
/* Replaces the medium. read_only: NULL keeps the drive's mode, else "read-only", "read-write",
 * "retain". */
int drive_change(struct drive *drive, const char *file, const char *format, const char *mode,
		 struct error *err);

#endif
