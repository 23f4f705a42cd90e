/* SPDX-License-Identifier: MIT */
/* From -hda, -cdrom, -drive and -device ide-hd,drive=... to drives in their slots. */
#ifndef VMM_DRIVES_H
#define VMM_DRIVES_H

#include "block/drive.h"
#include "lib/error.h"
#include "vmm/options.h"

enum { IDE_SLOTS = 4, FLOPPY_SLOTS = 2, VIRTIO_SLOTS = 32 };

struct machine_drives {
	struct drive *ide[IDE_SLOTS]; /* bus * 2 + unit; NULL: nothing there */
	struct drive *floppy[FLOPPY_SLOTS];
	struct drive *virtio[VIRTIO_SLOTS];   /* if=virtio and -device virtio-blk-pci,drive= */
	bool virtio_needs_card[VIRTIO_SLOTS]; /* if=virtio: no -device names it */
	int ide_bootindex[IDE_SLOTS];         /* -1: none given */
	int floppy_bootindex[FLOPPY_SLOTS];
};

enum { DRIVE_PLACES = IDE_SLOTS + FLOPPY_SLOTS + VIRTIO_SLOTS };

/* Opens all media. On failure everything opened is closed again. */
int drives_create(struct machine_drives *drives, struct options *o, struct loop *loop,
		  struct error *err);
void drives_free(struct machine_drives *drives);
/* The drive in place n, 0 to DRIVE_PLACES - 1 through all buses, or NULL. */
struct drive *drives_at(const struct machine_drives *drives, unsigned n);
/* The drive with this id ("ide1-cd0", "floppy0", or the user's), or NULL. */
struct drive *drives_find(const struct machine_drives *drives, const char *id);
/* Properties of a disk's -device that its drive is opened with, as if they stood at -drive;
 * NULL-terminated. */
extern const char *const drives_device_keys[];
/* What -device ide-hd, ide-cd and floppy take; NULL-terminated. */
extern const char *const drives_front_end_keys[];
/* True if this -device driver is a drive's front end, which drives_create() has taken care of. */
bool drives_is_front_end(const char *driver);

#endif
