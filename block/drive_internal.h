/* SPDX-License-Identifier: MIT */
/* What drive.c (media) and drive_queue.c (requests) share. */
#ifndef BLOCK_DRIVE_INTERNAL_H
#define BLOCK_DRIVE_INTERNAL_H

#include "block/drive.h"
#include <pthread.h>

struct drive {
	struct loop *loop;
	char *id, *serial, *file;
	enum drive_kind kind;
	struct image *image; /* NULL: no medium */
	unsigned image_flags;
	bool snapshot;
	unsigned cylinders, heads, sectors;
	struct drive_media_ops ops;
	void (*moved)(void *opaque, struct drive *drive, bool open);
	void *moved_opaque;

	/* A CD drive of the host: drive_host.c. */
	struct drive_host *host; /* NULL: the medium is no such drive */

	/* The queue: drive_queue.c. */
	struct loop_call call; /* completions and errors for the loop */
	bool ring;             /* raw files by io_uring */
	enum drive_error_policy rerror, werror;
	void (*failed)(void *opaque, struct drive *drive, const struct drive_error *error);
	void *failed_opaque;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t progress;
	unsigned in_flight; /* accepted and started, and not yet told */
	unsigned paused;
	struct drive_request *waiting, **last_waiting;   /* submitted while paused */
	struct drive_request *finished, **last_finished; /* for the loop */
	struct drive_request *held, **last_held;         /* by an error policy */
	unsigned held_count;
	struct drive_event *events, **last_event; /* errors that the loop has to tell */
	bool stopped_on_error, stopped_on_enospc;
	struct throttle_group *throttle; /* NULL: none */
};

/* Before the medium is opened (0 or -errno; drive_queue_fini() is needed in any case), and after it
 * is closed. */
int drive_queue_init(struct drive *drive, const struct drive_config *config, struct error *err);
void drive_queue_fini(struct drive *drive);

/* drive.c. Takes the medium out, or puts one in where there is none; the device is told. */
void drive_remove_medium(struct drive *drive);
int drive_insert_medium(struct drive *drive, const char *file, const char *format, unsigned flags,
			struct error *err);

/* drive_host.c. If `file` is a CD drive of the host, watches it from now on, instead of what was
 * watched before; NULL: nothing. */
void drive_host_watch(struct drive *drive, const char *file, const char *format);
/* What the watch has seen: is there a disc, and is it another one. */
void drive_host_seen(struct drive *drive, const char *file, const char *format, bool disc,
		     bool changed);

#endif
