/* SPDX-License-Identifier: MIT */
/*
 * Drives (drive.h): what they are called, their medium and its change. Their requests are in
 * drive_queue.c.
 *
 * The image is only exchanged while the queue is paused and nothing is in flight.
 */
#include "block/drive_internal.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

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
	if (!(flags & IMAGE_WRITABLE))
		flags &= ~(unsigned)IMAGE_FILTERS;
	if (!drive->snapshot || drive->kind == DRIVE_CDROM)
		return image_open(file, format, flags, opts, err);
	/* What is put over the drive goes over the temporary overlay. */
	unsigned filters = flags & IMAGE_FILTERS;
	flags &= ~(unsigned)(IMAGE_WRITABLE | IMAGE_FILTERS);
	struct image *base = image_open(file, format, flags, opts, err);
	struct image *overlay = base ? image_open_snapshot(base, err) : NULL;
	if (overlay && image_add_filters(overlay, filters, err)) {
		image_close(overlay);
		overlay = NULL;
	}
	return overlay;
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
	if (drive_queue_init(drive, config, err)) {
		drive_free(drive);
		return NULL;
	}
	if (config->file) {
		drive->image = open_medium(drive, config->file, config->format, config->image_flags,
					   config->opts, err);
		/* A drive of the host's may be empty as ours may. */
		bool empty = !drive->image && err->code == ENOMEDIUM && drive->kind != DRIVE_DISK;
		if (!drive->image && !empty) {
			drive_free(drive);
			return NULL;
		}
		if (empty)
			*err = (struct error)ERROR_INIT;
		else
			drive->file = xstrdup(config->file);
		drive_host_watch(drive, config->file, config->format);
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

void drive_ending(struct drive *drive)
{
	if (drive->image)
		image_ending(drive->image);
}

void drive_free(struct drive *drive)
{
	if (!drive)
		return;
	drive_host_watch(drive, NULL, NULL);
	drive_drain(drive);
	close_medium(drive);
	drive_queue_fini(drive);
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

void drive_remove_medium(struct drive *drive)
{
	bool was_open = drive_tray_open(drive);
	drive_pause(drive);
	drive_drain(drive);
	bool had_medium = drive->image != NULL;
	close_medium(drive);
	drive_resume(drive);
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
	drive_host_watch(drive, NULL, NULL);
	drive_remove_medium(drive);
	return 0;
}

static void put_in(struct drive *drive, struct image *image, const char *file, unsigned flags)
{
	drive_pause(drive);
	drive_drain(drive);
	drive->image = image;
	drive->image_flags = flags;
	drive->file = xstrdup(file);
	drive_resume(drive);
	if (drive->ops.changed)
		drive->ops.changed(drive->ops.opaque, true);
	if (drive_has_tray(drive))
		drive_tray_moved(drive, false);
}

int drive_insert_medium(struct drive *drive, const char *file, const char *format, unsigned flags,
			struct error *err)
{
	struct image *image = open_medium(drive, file, format, flags, NULL, err);
	if (!image)
		return -(err->code ? err->code : EIO);
	put_in(drive, image, file, flags);
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
	drive_host_watch(drive, NULL, NULL);
	drive_remove_medium(drive);
	put_in(drive, image, file, flags);
	drive_host_watch(drive, file, format);
	return 0;
}
