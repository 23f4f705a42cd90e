/* SPDX-License-Identifier: MIT */
/*
 * Drives (drive.h): an image that may be exchanged, and requests to it.
 *
 * A request goes to a worker thread (queue.c), which runs it straight against the image and puts it
 * on the drive's list of finished ones. One deferred call of the event loop hands those back. A
 * flush needs no ordering of its own: an image's flush covers all that was complete before it, and
 * a device completes a write before a guest can count on a flush for it.
 *
 * The image is only exchanged while nothing is in flight.
 */
#include "block/drive.h"
#include "block/queue.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

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

	unsigned in_flight; /* machine lock */
	struct loop_call call;

	pthread_mutex_t lock; /* guards the list of finished requests */
	pthread_cond_t some_finished;
	struct drive_request *first, **last;
};

/* What a worker gets: the request has no room for it, so it is allocated. */
struct job {
	struct work work;
	struct drive_request *req;
	struct image *image;
};

static int run_request(struct image *img, const struct drive_request *req)
{
	int rc;
	if (!img)
		return -ENOMEDIUM;
	switch (req->op) {
	case DRIVE_READ: return image_preadv(img, req->iov, req->iovcnt, req->offset);
	case DRIVE_WRITE: rc = image_pwritev(img, req->iov, req->iovcnt, req->offset); break;
	case DRIVE_FLUSH: return image_flush(img);
	case DRIVE_DISCARD: rc = image_discard(img, req->offset, req->len); break;
	case DRIVE_WRITE_ZEROES: rc = image_write_zeroes(img, req->offset, req->len, true); break;
	default: return -EINVAL;
	}
	return rc == 0 && req->fua ? image_flush(img) : rc;
}

static void finished(struct drive *drive, struct drive_request *req)
{
	/* The call is scheduled under the lock: once drive_drain() has seen the request, this
	 * thread touches the drive no more. */
	pthread_mutex_lock(&drive->lock);
	req->next = NULL;
	*drive->last = req;
	drive->last = &req->next;
	loop_call_schedule(drive->loop, &drive->call);
	pthread_cond_signal(&drive->some_finished);
	pthread_mutex_unlock(&drive->lock);
}

static void run_job(struct work *work)
{
	struct job *job = container_of(work, struct job, work);
	struct drive_request *req = job->req;
	req->result = run_request(job->image, req);
	free(job);
	finished(req->drive, req);
}

/* Hands back what has finished. Machine lock held. */
static void complete(void *opaque)
{
	struct drive *drive = opaque;
	for (;;) {
		pthread_mutex_lock(&drive->lock);
		struct drive_request *req = drive->first;
		if (req) {
			drive->first = req->next;
			if (!drive->first)
				drive->last = &drive->first;
		}
		pthread_mutex_unlock(&drive->lock);
		if (!req)
			return;
		drive->in_flight--;
		if (req->result)
			trace(TRACE_BLOCK, "%s: op %d at %" PRIu64 " failed: %s", drive->id,
			      req->op, req->offset, strerror(-req->result));
		req->done(req, req->result);
	}
}

void drive_submit(struct drive *drive, struct drive_request *req)
{
	struct job *job = xcalloc(1, sizeof(*job));
	job->work.run = run_job;
	job->req = req;
	job->image = drive->image;
	req->drive = drive;
	drive->in_flight++;
	trace(TRACE_BLOCK, "%s: op %d at %" PRIu64 ", %" PRIu64 " bytes", drive->id, req->op,
	      req->offset, req->len);
	work_submit(&job->work);
}

void drive_drain(struct drive *drive)
{
	while (drive->in_flight) {
		pthread_mutex_lock(&drive->lock);
		while (!drive->first)
			pthread_cond_wait(&drive->some_finished, &drive->lock);
		pthread_mutex_unlock(&drive->lock);
		complete(drive);
	}
}

int drive_pread(struct drive *drive, void *buf, size_t len, uint64_t offset)
{
	return drive->image ? image_pread(drive->image, buf, len, offset) : -ENOMEDIUM;
}

int drive_pwrite(struct drive *drive, const void *buf, size_t len, uint64_t offset)
{
	return drive->image ? image_pwrite(drive->image, buf, len, offset) : -ENOMEDIUM;
}

/* Opens a medium as the drive is configured. */
static struct image *open_medium(const struct drive *drive, const char *file, const char *format,
				 unsigned flags, struct opts *opts, struct error *err)
{
	if (drive->kind == DRIVE_CDROM)
		flags &= ~(unsigned)IMAGE_WRITABLE;
	if (!drive->snapshot || drive->kind == DRIVE_CDROM)
		return image_open(file, format, flags, opts, err);
	struct image *base = image_open(file, format, flags & ~(unsigned)IMAGE_WRITABLE, opts, err);
	return base ? image_open_snapshot(base, err) : NULL;
}

struct drive *drive_new(struct loop *loop, const struct drive_config *config, struct error *err)
{
	struct drive *drive = xcalloc(1, sizeof(*drive));
	*drive = (struct drive){
		.loop = loop,
		.id = xstrdup(config->id),
		.serial = config->serial ? xstrdup(config->serial) : NULL,
		.kind = config->kind,
		.image_flags = config->image_flags,
		.snapshot = config->snapshot,
		.cylinders = config->cylinders,
		.heads = config->heads,
		.sectors = config->sectors,
	};
	drive->last = &drive->first;
	loop_call_init(&drive->call, complete, drive);
	pthread_mutex_init(&drive->lock, NULL);
	pthread_cond_init(&drive->some_finished, NULL);
	if (config->file) {
		drive->image = open_medium(drive, config->file, config->format, config->image_flags,
					   config->opts, err);
		if (!drive->image) {
			drive_free(drive);
			return NULL;
		}
		drive->file = xstrdup(config->file);
	}
	return drive;
}

/* Flushes and closes the medium, if there is one; nothing is in flight. */
static void close_medium(struct drive *drive)
{
	if (!drive->image)
		return;
	int rc = image_flush(drive->image);
	if (rc)
		warn("%s: writing back '%s' failed: %s", drive->id, drive->file, strerror(-rc));
	image_close(drive->image);
	drive->image = NULL;
	free(drive->file);
	drive->file = NULL;
}

void drive_free(struct drive *drive)
{
	if (!drive)
		return;
	drive_drain(drive);
	close_medium(drive);
	loop_call_cancel(drive->loop, &drive->call);
	pthread_mutex_destroy(&drive->lock);
	pthread_cond_destroy(&drive->some_finished);
	free(drive->id);
	free(drive->serial);
	free(drive->file);
	free(drive);
}

const char *drive_id(const struct drive *drive)
{
	return drive->id;
}

enum drive_kind drive_get_kind(const struct drive *drive)
{
	return drive->kind;
}

const char *drive_serial(const struct drive *drive)
{
	return drive->serial;
}

bool drive_inserted(const struct drive *drive)
{
	return drive->image != NULL;
}

bool drive_writable(const struct drive *drive)
{
	return drive->image && image_writable(drive->image);
}

uint64_t drive_size(const struct drive *drive)
{
	return drive->image ? image_size(drive->image) : 0;
}

const char *drive_file(const struct drive *drive)
{
	return drive->file;
}

const char *drive_format(const struct drive *drive)
{
	if (!drive->image)
		return NULL;
	/* A snapshot's overlay is ours; the user asks about what is below it. */
	const struct image *img = drive->image;
	if (drive->snapshot && img->backing)
		img = img->backing;
	return img->driver->name;
}

bool drive_geometry(const struct drive *drive, unsigned *cylinders, unsigned *heads,
		    unsigned *sectors)
{
	if (!drive->cylinders || !drive->heads || !drive->sectors)
		return false;
	*cylinders = drive->cylinders;
	*heads = drive->heads;
	*sectors = drive->sectors;
	return true;
}

unsigned drive_image_flags(const struct drive *drive)
{
	return drive->image_flags;
}

const char *drive_backing_file(const struct drive *drive)
{
	const struct image *img = drive->image;
	if (img && drive->snapshot && img->backing)
		img = img->backing;
	return img && img->backing ? img->backing->path : NULL;
}

bool drive_has_tray(const struct drive *drive)
{
	return drive->ops.tray_open != NULL;
}

bool drive_tray_open(const struct drive *drive)
{
	return drive->ops.tray_open && drive->ops.tray_open(drive->ops.opaque);
}

bool drive_locked(const struct drive *drive)
{
	return drive->ops.locked && drive->ops.locked(drive->ops.opaque);
}

void drive_on_tray_moved(struct drive *drive,
			 void (*moved)(void *opaque, struct drive *drive, bool open), void *opaque)
{
	drive->moved = moved;
	drive->moved_opaque = opaque;
}

void drive_tray_moved(struct drive *drive, bool open)
{
	if (drive->moved)
		drive->moved(drive->moved_opaque, drive, open);
}

void drive_set_media_ops(struct drive *drive, const struct drive_media_ops *ops)
{
	drive->ops = ops ? *ops : (struct drive_media_ops){0};
}

/* 0 if the medium may be taken out. */
static int may_remove(struct drive *drive, bool force, struct error *err)
{
	const struct drive_media_ops *ops = &drive->ops;
	if (drive->kind == DRIVE_DISK)
		return error_set(err, ENOTSUP, "drive '%s' is a hard disk and cannot be ejected",
				 drive->id);
	bool open = ops->tray_open && ops->tray_open(ops->opaque);
	if (open || !ops->locked || !ops->locked(ops->opaque))
		return 0;
	if (ops->eject_request)
		ops->eject_request(ops->opaque, force);
	if (force)
		return 0;
	return error_set(
		err, EBUSY,
		"drive '%s' is locked by the guest, which was asked to eject it; try again "
		"or use force",
		drive->id);
}

static void remove_medium(struct drive *drive)
{
	bool was_open = drive_tray_open(drive);
	drive_drain(drive);
	bool had_medium = drive->image != NULL;
	close_medium(drive);
	if (drive->ops.changed && (had_medium || drive_has_tray(drive)))
		drive->ops.changed(drive->ops.opaque, false);
	if (drive_has_tray(drive) && !was_open)
		drive_tray_moved(drive, true);
}

int drive_eject(struct drive *drive, bool force, struct error *err)
{
	int rc = may_remove(drive, force, err);
	if (rc)
		return rc;
	remove_medium(drive);
	return 0;
}

int drive_change(struct drive *drive, const char *file, const char *format, const char *mode,
		 struct error *err)
{
	unsigned flags = drive->image_flags;
	if (mode && strcmp(mode, "read-only") == 0)
		flags &= ~(unsigned)IMAGE_WRITABLE;
	else if (mode && strcmp(mode, "read-write") == 0)
		flags |= IMAGE_WRITABLE;
	else if (mode && strcmp(mode, "retain") != 0)
		return error_set(err, EINVAL,
				 "the mode must be 'retain', 'read-only' or 'read-write', not '%s'",
				 mode);
	int rc = may_remove(drive, false, err);
	if (rc)
		return rc;
	/* The new medium first: if it cannot be opened the old one stays in. */
	struct image *image = open_medium(drive, file, format, flags, NULL, err);
	if (!image)
		return -(err && err->code ? err->code : EIO);
	remove_medium(drive);
	drive->image = image;
	drive->image_flags = flags;
	drive->file = xstrdup(file);
	if (drive->ops.changed)
		drive->ops.changed(drive->ops.opaque, true);
	if (drive_has_tray(drive))
		drive_tray_moved(drive, false);
	return 0;
}
