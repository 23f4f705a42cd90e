/* SPDX-License-Identifier: MIT */
/*
 * A drive as a device sees it: something with a medium that may come and go, and a queue that takes
 * requests. The queue runs them on worker threads straight against the image.
 *
 * Functions are for the holder of the machine lock unless noted.
 *
 * The queue itself needs no machine lock: drive_submit() may be called by any thread, with or
 * without it, with any number of requests in flight. There is no order between requests in flight;
 * a flush covers every write that was completed (`done` had run) before it was submitted. How a
 * completion is told is each request's choice:
 *
 *   on_worker false: `done` runs in the event loop (or in drive_drain()) with the machine lock held.
 *   on_worker true:  `done` runs on the thread that did the transfer, without the machine lock, as
 *                    soon as it is over. It must not take the machine lock, call drive_drain() or
 *                    block; it may submit again, and may reuse or free the request. (Held requests
 *                    that are given up, see drive_fail_held(), are told on the caller's thread.)
 *
 * `done` never runs within drive_submit().
 */
#ifndef BLOCK_DRIVE_H
#define BLOCK_DRIVE_H

#include "block/image.h"
#include "block/queue.h"
#include "block/remote.h"
#include "block/ring.h"
#include "block/throttle.h"
#include "lib/loop.h"

struct drive;

enum drive_kind { DRIVE_DISK, DRIVE_CDROM, DRIVE_FLOPPY };

enum drive_op { DRIVE_READ, DRIVE_WRITE, DRIVE_FLUSH, DRIVE_DISCARD, DRIVE_WRITE_ZEROES };

/* One request, storage of the caller, untouched until `done` runs. Buffers are host memory (guest
 * RAM through mem_dma_map(), or a device's own buffer); any number of pieces of any length. */
struct drive_request {
	enum drive_op op;
	uint64_t offset, len; /* bytes; len is the sum of the iovec for READ and WRITE */
	const struct iovec *iov;
	int iovcnt;
	bool fua;
	bool keep_allocated; /* WRITE_ZEROES: the range keeps its space even with discard=unmap */
	bool on_worker;      /* see above */
	/* `result` is 0 or -errno. */
	void (*done)(struct drive_request *req, int result);
	void *opaque;
	/* private */
	struct drive *drive;
	int result;
	struct drive_request *next;
	struct work work;
	struct ring_item ring;
	struct remote_request remote;
	struct throttle_item throttle;
};

/* What becomes of a request that failed: rerror= for reads, werror= for all others. */
enum drive_error_policy {
	DRIVE_ERROR_DEFAULT, /* ENOSPC for writes, REPORT for reads */
	DRIVE_ERROR_REPORT,  /* the guest is told */
	DRIVE_ERROR_IGNORE,  /* the guest believes that it succeeded */
	DRIVE_ERROR_STOP,    /* it is held, and the machine stops; drive_retry() tries again */
	DRIVE_ERROR_ENOSPC,  /* STOP when the host's disk is full, REPORT otherwise */
};

/* How transfers reach a raw file; all others run on worker threads in any case. */
enum drive_aio {
	/* What measures better: io_uring with O_DIRECT (where there is one), which then has the whole
	 * depth at work; threads with the page cache, whose copying they share out among the CPUs. */
	DRIVE_AIO_BEST,
	DRIVE_AIO_THREADS,
	DRIVE_AIO_URING, /* drive_new() fails where there is none */
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
	enum drive_error_policy rerror, werror;
	enum drive_aio aio;
	const struct throttle_limits *limits; /* or NULL */
	const char *throttle_group;           /* shared by the drives that name it; NULL: own */
};

/* Opens the medium, if any. NULL with an error that says what is wrong with which file. */
struct drive *drive_new(struct loop *loop, const struct drive_config *config, struct error *err);
/* Waits for requests in flight, flushes, closes. Held requests are dropped. */
void drive_free(struct drive *drive);

/* Any thread, machine lock held or not. */
void drive_submit(struct drive *drive, struct drive_request *req);
/* The program is about to end: a server that says nothing must not keep it. For the drive's loop's
 * thread, before drive_drain() and drive_free(). */
void drive_ending(struct drive *drive);
/* Waits until no request is in flight, those that a throttle delays included (they go at once);
 * completions run inside (lock held by the caller, the loop's thread or not). Requests held by
 * an error policy stay. */
void drive_drain(struct drive *drive);
/* From pause to resume (they nest) requests are accepted but none starts: with a drive_drain()
 * between them the drive is at rest even if other threads go on submitting. */
void drive_pause(struct drive *drive);
void drive_resume(struct drive *drive);
/* Synchronous transfer for firmware tables, probing and slow devices; 0 or -errno. */
int drive_pread(struct drive *drive, void *buf, size_t len, uint64_t offset);
int drive_pwrite(struct drive *drive, const void *buf, size_t len, uint64_t offset);

/* A request has failed. Runs in the loop, lock held; for ACTION STOP the machine is expected to stop
 * soon. Without a listener every error is reported to the guest. One listener; NULL takes it back. */
struct drive_error {
	enum drive_op op;
	int code;                       /* errno */
	enum drive_error_policy action; /* REPORT, IGNORE or STOP */
};
void drive_on_error(struct drive *drive,
		    void (*failed)(void *opaque, struct drive *drive,
				   const struct drive_error *error),
		    void *opaque);
/* How many requests wait for drive_retry(). */
unsigned drive_held(struct drive *drive);
/* Starts the held requests again (the machine goes on). */
void drive_retry(struct drive *drive);
/* Completes the held requests with the errors they had (the machine is reset, or the device that
 * made them wants to be rid of them). */
void drive_fail_held(struct drive *drive);
/* "ok", "failed" or "nospace": why the machine was stopped, until drive_retry(). */
const char *drive_io_status(struct drive *drive);

/* The limits in force; all zero without any. */
void drive_get_limits(struct drive *drive, struct throttle_limits *limits);
/* Sets the limits of the drive's group, or moves it to the group of that name first. */
int drive_set_limits(struct drive *drive, const struct throttle_limits *limits, const char *group,
		     struct error *err);
/* NULL: the drive is in no group. */
const char *drive_throttle_group(struct drive *drive);

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
