/* SPDX-License-Identifier: MIT */
/*
 * From options to drives (drives.h), in three steps: each -drive, -hda and so on that names its
 * slot, and each -device that is the front end of a drive (ide-hd, floppy, virtio-blk-pci), takes a
 * slot; the other drives get the first free one of their kind; then images are opened and drives
 * made, slot by slot.
 */
#include "vmm/drives.h"
#include "block/describe.h"
#include "block/nbd_client.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include "vmm/drive_options.h"
#include "vmm/pci_devices.h"
#include "vmm/properties.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A drive's place while the command line is sorted out. */
struct slot {
	struct drive_option *option; /* NULL: free */
	struct drive_option empty;   /* a -device front end without medium */
	enum drive_kind kind;
	int bootindex;
};

struct slots {
	struct slot ide[IDE_SLOTS], floppy[FLOPPY_SLOTS], virtio[VIRTIO_SLOTS];
};

static const char *const ide_slot_names[IDE_SLOTS] = {
	"primary master",
	"primary slave",
	"secondary master",
	"secondary slave",
};

/* What the user typed behind the option. */
static const char *describe(const struct drive_option *d)
{
	return d->typed ? d->typed : d->id ? d->id : "no medium";
}

static int slot_taken(const struct slot *slot, const struct drive_option *d,
		      enum drive_interface interface, int index, struct error *err)
{
	if (interface == IF_IDE)
		return error_set(
			err, EINVAL,
			"%s %s: IDE slot %d (%s) is already taken by %s %s; use another index=",
			d->option, describe(d), index, ide_slot_names[index], slot->option->option,
			describe(slot->option));
	if (interface == IF_VIRTIO)
		return error_set(
			err, EINVAL,
			"%s %s: virtio disk %d is already taken by %s %s; use another index=",
			d->option, describe(d), index, slot->option->option,
			describe(slot->option));
	return error_set(err, EINVAL, "%s %s: floppy drive %c is already taken by %s %s", d->option,
			 describe(d), 'A' + index, slot->option->option, describe(slot->option));
}

static int place(struct slots *slots, struct drive_option *d, enum drive_interface interface,
		 int index, enum drive_kind kind, int bootindex, struct error *err)
{
	struct slot *table = interface == IF_IDE      ? slots->ide
			     : interface == IF_VIRTIO ? slots->virtio
						      : slots->floppy;
	int count = interface == IF_IDE      ? IDE_SLOTS
		    : interface == IF_VIRTIO ? VIRTIO_SLOTS
					     : FLOPPY_SLOTS;
	if (index < 0) {
		for (index = 0; index < count && table[index].option; index++)
			;
		if (index == count)
			return error_set(err, EINVAL, "%s %s: all %d %s slots are taken", d->option,
					 describe(d), count,
					 interface == IF_IDE      ? "IDE"
					 : interface == IF_VIRTIO ? "virtio"
								  : "floppy");
	}
	if (table[index].option)
		return slot_taken(&table[index], d, interface, index, err);
	table[index].option = d;
	table[index].kind = kind;
	table[index].bootindex = bootindex;
	return 0;
}

static struct drive_option *find_option(struct options *o, const char *id)
{
	for (size_t n = 0; n < o->drive_count; n++)
		if (o->drives[n].id && !strcmp(o->drives[n].id, id))
			return &o->drives[n];
	return NULL;
}

static bool drive_in_slots(const struct slots *slots, const struct drive_option *d)
{
	for (int n = 0; n < IDE_SLOTS; n++)
		if (slots->ide[n].option == d)
			return true;
	for (int n = 0; n < FLOPPY_SLOTS; n++)
		if (slots->floppy[n].option == d)
			return true;
	for (int n = 0; n < VIRTIO_SLOTS; n++)
		if (slots->virtio[n].option == d)
			return true;
	return false;
}

/* The -drive that a -device names, not yet used by another. NULL with an error. */
static struct drive_option *named_drive(const struct slots *slots, struct options *o,
					const char *spec, const char *id, struct error *err)
{
	struct drive_option *d = find_option(o, id);
	if (!d) {
		error_set(err, EINVAL, "-device %s: there is no -drive with id=%s", spec, id);
		return NULL;
	}
	if (drive_in_slots(slots, d) || d->interface != IF_NONE) {
		error_set(err, EINVAL,
			  "-device %s: drive '%s' is already in a slot; give it if=none", spec, id);
		return NULL;
	}
	return d;
}

bool drives_is_front_end(const char *driver)
{
	return !strcmp(driver, "ide-hd") || !strcmp(driver, "ide-cd") || !strcmp(driver, "floppy");
}

const char *const drives_device_keys[] = {"serial", "rerror", "werror", "cyls",
					  "heads",  "secs",   NULL};
const char *const drives_front_end_keys[] = {"driver", "drive",  "bus",    "unit",   "bootindex",
					     "id",     "serial", "rerror", "werror", "cyls",
					     "heads",  "secs",   NULL};

/* What stands at -device overrides -drive. */
static void take_properties(struct drive_option *d, struct opts *opts)
{
	for (size_t n = 0; drives_device_keys[n]; n++) {
		const char *value = opts_get(opts, drives_device_keys[n]);
		if (value)
			opts_set(&d->opts, drives_device_keys[n], value);
	}
}

/* The drive of a virtio-blk-pci; the card itself, with the rest of its properties, is made when the
 * other PCI cards are (pci_devices.c). */
static int place_virtio(struct slots *slots, struct options *o, struct opts *opts, const char *spec,
			struct error *err)
{
	const char *id = opts_get(opts, "drive");
	bool share = false;
	int r = opts_get_bool(opts, "share-rw", &share, err);
	if (r < 0)
		return r;
	if (!id)
		return error_set(err, EINVAL,
				 "-device %s: a disk needs drive=ID of a -drive if=none,id=ID",
				 spec);
	struct drive_option *d = named_drive(slots, o, spec, id, err);
	if (!d)
		return -err->code;
	take_properties(d, opts);
	d->share_rw = share;
	return place(slots, d, IF_VIRTIO, -1, DRIVE_DISK, -1, err);
}

/* bus=ide.N and unit=; floppies have unit= alone. */
static int device_slot(struct opts *opts, const char *spec, bool floppy, int *index,
		       struct error *err)
{
	*index = -1;
	uint64_t unit = 0, bus_number = 0;
	const char *bus = opts_get(opts, "bus");
	bool has_unit = opts_has(opts, "unit");
	int r = opts_get_u64(opts, "unit", &unit, err);
	if (r < 0)
		return r;
	if (unit > 1)
		return error_set(err, EINVAL, "-device %s: unit must be 0 or 1", spec);
	if (bus && !floppy) {
		if (strcmp(bus, "ide.0") && strcmp(bus, "ide.1"))
			return error_set(err, EINVAL,
					 "-device %s: there is no bus '%s'; use ide.0 or ide.1",
					 spec, bus);
		bus_number = (uint64_t)(bus[4] - '0');
	}
	if (bus || has_unit)
		*index = (int)(bus_number * 2 + unit);
	return 0;
}

static bool is_virtio_disk(const char *driver)
{
	const struct pci_device_type *type = pci_device_type_find(driver);
	return type && !strcmp(type->driver, "virtio-blk-pci");
}

static int place_device(struct slots *slots, struct options *o, const char *spec, struct error *err)
{
	struct opts *opts = xcalloc(1, sizeof(*opts));
	int r = opts_parse(opts, spec, "driver", err);
	if (r < 0)
		return r;
	const char *driver = opts_get(opts, "driver");
	if (driver && is_virtio_disk(driver))
		return place_virtio(slots, o, opts, spec, err);
	if (!driver || !drives_is_front_end(driver))
		return 0;
	bool floppy = !strcmp(driver, "floppy");
	enum drive_kind kind = floppy                      ? DRIVE_FLOPPY
			       : !strcmp(driver, "ide-cd") ? DRIVE_CDROM
							   : DRIVE_DISK;
	int index = -1, bootindex;
	if ((r = device_slot(opts, spec, floppy, &index, err)) < 0)
		return r;
	if ((r = properties_bootindex(opts, &bootindex, err)) < 0) {
		error_prefix(err, "-device %s", spec);
		return r;
	}
	struct drive_option *d;
	const char *id = opts_get(opts, "drive");
	const char *device_id = opts_get(opts, "id");
	for (size_t n = 0; drives_device_keys[n]; n++)
		opts_get(opts, drives_device_keys[n]);
	if ((r = opts_check_unused(opts, driver, drives_front_end_keys, err)) < 0) {
		error_prefix(err, "-device %s", spec);
		return r;
	}
	if (id) {
		d = named_drive(slots, o, spec, id, err);
		if (!d)
			return -err->code;
		take_properties(d, opts);
	} else if (kind == DRIVE_DISK) {
		return error_set(err, EINVAL,
				 "-device %s: a disk needs drive=ID of a -drive if=none,id=ID",
				 spec);
	} else {
		d = xcalloc(1, sizeof(*d));
		d->option = "-device";
		d->id = device_id;
		take_properties(d, opts);
	}
	return place(slots, d, floppy ? IF_FLOPPY : IF_IDE, index, kind, bootindex, err);
}

static int place_all(struct slots *slots, struct options *o, struct error *err)
{
	int r;
	/* Those with a fixed slot first, so that the others find what is left. */
	for (int fixed = 1; fixed >= 0; fixed--) {
		for (size_t n = 0; n < o->drive_count; n++) {
			struct drive_option *d = &o->drives[n];
			if (d->interface == IF_NONE || (d->index >= 0) != fixed)
				continue;
			enum drive_kind kind = d->interface == IF_FLOPPY   ? DRIVE_FLOPPY
					       : d->interface == IF_VIRTIO ? DRIVE_DISK
					       : d->cdrom                  ? DRIVE_CDROM
									   : DRIVE_DISK;
			if ((r = place(slots, d, d->interface, d->index, kind, -1, err)) < 0)
				return r;
		}
		for (size_t n = 0; fixed && n < o->device.count; n++)
			if ((r = place_device(slots, o, o->device.item[n], err)) < 0)
				return r;
	}
	for (size_t n = 0; n < o->drive_count; n++)
		if (!drive_in_slots(slots, &o->drives[n]))
			return error_set(err, EINVAL,
					 "-drive %s: nothing uses it; add -device ide-hd,drive=%s",
					 describe(&o->drives[n]), o->drives[n].id);
	if (!o->no_default_drives) {
		static struct drive_option empty_cd = {.option = "default"};
		static struct drive_option empty_floppy = {.option = "default"};
		if (!slots->ide[2].option)
			slots->ide[2] = (struct slot){
				.option = &empty_cd, .kind = DRIVE_CDROM, .bootindex = -1};
		if (!slots->floppy[0].option)
			slots->floppy[0] = (struct slot){
				.option = &empty_floppy, .kind = DRIVE_FLOPPY, .bootindex = -1};
	}
	return 0;
}

static int geometry(struct opts *opts, struct drive_config *config, struct error *err)
{
	uint64_t cylinders = 0, heads = 0, sectors = 0;
	int r;
	if ((r = opts_get_u64(opts, "cyls", &cylinders, err)) < 0 ||
	    (r = opts_get_u64(opts, "heads", &heads, err)) < 0 ||
	    (r = opts_get_u64(opts, "secs", &sectors, err)) < 0)
		return r;
	if (!cylinders && !heads && !sectors)
		return 0;
	/* ATA-6 limits: 65,535 cylinders, 16 heads, 255 sectors. */
	if (cylinders < 1 || cylinders > 65535 || heads < 1 || heads > 16 || sectors < 1 ||
	    sectors > 255)
		return error_set(
			err, EINVAL,
			"the geometry needs cyls= 1 to 65535, heads= 1 to 16 and secs= 1 to 255");
	config->cylinders = (unsigned)cylinders;
	config->heads = (unsigned)heads;
	config->sectors = (unsigned)sectors;
	return 0;
}

/* Refuses what nobody reads, before anything is opened. Whether the image's format takes the keys of
 * formats is seen when it was. */
static int check_known(struct opts *opts, const char *option, struct error *err)
{
	static const char *const of_formats[] = {
		"offset",   "size", "cache-size", "l2-cache-size", "refcount-cache-size",
		"data-file"};
	struct opts others = {.item = xcalloc(opts->count + 1, sizeof(*others.item))};
	for (size_t i = 0; i < opts->count; i++) {
		bool of_format = false;
		for (size_t k = 0; k < ARRAY_SIZE(of_formats); k++)
			of_format |= !strcmp(opts->item[i].key, of_formats[k]);
		if (!of_format)
			others.item[others.count++] = opts->item[i];
	}
	int r = opts_check_unused(&others, option, drive_option_names, err);
	free(others.item);
	return r;
}

/* What -drive has in common with the description of an image (block/describe.h). */
static int describe_image(struct opts *opts, struct drive_config *config, struct error *err)
{
	struct image_description about;
	int r = image_describe(opts, &about, err);
	if (r < 0)
		return r;
	if (!config->file)
		config->file = about.file;
	if (config->file && !*config->file)
		config->file = NULL;
	config->image_flags |=
		about.set & (IMAGE_NO_LOCK | IMAGE_FORCE_SHARE | IMAGE_DIRECT | IMAGE_NO_FLUSH);
	if (about.has_backing || about.set & IMAGE_NO_BACKING)
		r = error_set(err, ENOTSUP,
			      "backing= describes another backing image, which -drive does in "
			      "file=json:{...} only");
	image_description_free(&about);
	config->format = opts_get(opts, "format");
	if (!config->format)
		config->format = about.format;
	return r;
}

/* `interface` is where it is placed. */
static int read_drive_options(const struct options *o, struct drive_option *d,
			      enum drive_interface interface, struct drive_config *config,
			      struct throttle_limits *limits, struct error *err)
{
	struct opts *opts = &d->opts;
	bool readonly = config->kind == DRIVE_CDROM || d->cdrom, snapshot = o->snapshot;
	int r;
	config->file = opts_get(opts, "file");
	if (!config->file)
		config->file = opts_get(opts, "file.filename");
	char *name;
	if ((r = nbd_describe(config->file, opts, &name, err)) < 0)
		return r;
	if (r) {
		opts_set(opts, "file", name);
		config->file = opts_get(opts, "file");
		free(name);
	}
	if (!config->file && config->kind == DRIVE_DISK)
		return error_set(err, EINVAL, "a disk needs file=");
	if ((r = describe_image(opts, config, err)) < 0)
		return r;
	config->serial = opts_get(opts, "serial");
	if ((r = opts_get_bool(opts, "readonly", &readonly, err)) < 0 ||
	    (r = opts_get_bool(opts, "read-only", &readonly, err)) < 0 ||
	    (r = opts_get_bool(opts, "snapshot", &snapshot, err)) < 0 ||
	    (r = geometry(opts, config, err)) < 0)
		return r;
	/* ATA-6 8.15 gives the serial number 20 characters. */
	if (config->serial && strlen(config->serial) > 20)
		return error_set(err, EINVAL, "serial=%s is longer than 20 characters",
				 config->serial);
	if (config->kind == DRIVE_CDROM && !readonly)
		return error_set(err, EINVAL, "a CD-ROM cannot be written; leave readonly=off out");
	if (config->kind == DRIVE_DISK && interface == IF_IDE && readonly && !snapshot)
		return error_set(err, EINVAL,
				 "an IDE disk cannot be read-only; use snapshot=on to keep the "
				 "file unchanged");
	config->snapshot = snapshot && config->kind != DRIVE_CDROM;
	if (!readonly)
		config->image_flags |= IMAGE_WRITABLE;
	config->opts = opts;
	if (d->share_rw)
		config->image_flags |= IMAGE_SHARE_WRITE;
	if ((r = drive_options_read(opts, config, limits, err)) < 0)
		return r;
	return check_known(opts, d->option, err);
}

static struct drive *create(const struct options *o, struct slot *slot,
			    enum drive_interface interface, const char *default_id,
			    struct loop *loop, struct error *err)
{
	struct drive_option *d = slot->option;
	struct drive_config config = {.id = d->id ? d->id : default_id, .kind = slot->kind};
	struct throttle_limits limits;
	struct drive *drive = NULL;
	if (d->opts.source) {
		if (read_drive_options(o, d, interface, &config, &limits, err) < 0) {
			error_prefix(err, "%s %s", d->option, describe(d));
			return NULL;
		}
	} else {
		config.image_flags = slot->kind == DRIVE_FLOPPY ? IMAGE_WRITABLE : 0;
	}
	drive = drive_new(loop, &config, err);
	if (!drive)
		error_prefix(err, "%s", d->option);
	/* The image's driver has taken its own. */
	if (drive && d->opts.source &&
	    opts_check_unused(&d->opts, d->option, drive_option_names, err) < 0) {
		error_prefix(err, "%s %s", d->option, describe(d));
		drive_free(drive);
		drive = NULL;
	}
	return drive;
}

int drives_create(struct machine_drives *drives, struct options *o, struct loop *loop,
		  struct error *err)
{
	static const char *const ide_disk_ids[IDE_SLOTS] = {"ide0-hd0", "ide0-hd1", "ide1-hd0",
							    "ide1-hd1"};
	static const char *const ide_cd_ids[IDE_SLOTS] = {"ide0-cd0", "ide0-cd1", "ide1-cd0",
							  "ide1-cd1"};
	static const char *const floppy_ids[FLOPPY_SLOTS] = {"floppy0", "floppy1"};
	struct slots slots = {0};
	memset(drives, 0, sizeof(*drives));
	int r = place_all(&slots, o, err);
	if (r < 0)
		return r;
	for (int n = 0; n < IDE_SLOTS; n++) {
		drives->ide_bootindex[n] = slots.ide[n].bootindex;
		if (!slots.ide[n].option)
			continue;
		const char *id = slots.ide[n].kind == DRIVE_CDROM ? ide_cd_ids[n] : ide_disk_ids[n];
		drives->ide[n] = create(o, &slots.ide[n], IF_IDE, id, loop, err);
		if (!drives->ide[n])
			goto fail;
	}
	for (int n = 0; n < FLOPPY_SLOTS; n++) {
		drives->floppy_bootindex[n] = slots.floppy[n].bootindex;
		if (!slots.floppy[n].option)
			continue;
		drives->floppy[n] =
			create(o, &slots.floppy[n], IF_FLOPPY, floppy_ids[n], loop, err);
		if (!drives->floppy[n])
			goto fail;
	}
	for (int n = 0; n < VIRTIO_SLOTS; n++) {
		char id[16];
		if (!slots.virtio[n].option)
			continue;
		snprintf(id, sizeof(id), "virtio%d", n);
		drives->virtio_needs_card[n] = slots.virtio[n].option->interface == IF_VIRTIO;
		drives->virtio[n] = create(o, &slots.virtio[n], IF_VIRTIO, id, loop, err);
		if (!drives->virtio[n])
			goto fail;
	}
	return 0;
fail:
	drives_free(drives);
	return err->code ? -err->code : -EINVAL;
}

void drives_free(struct machine_drives *drives)
{
	for (unsigned n = 0; n < DRIVE_PLACES; n++)
		if (drives_at(drives, n))
			drive_free(drives_at(drives, n));
	memset(drives, 0, sizeof(*drives));
}

struct drive *drives_at(const struct machine_drives *drives, unsigned n)
{
	if (n < IDE_SLOTS)
		return drives->ide[n];
	n -= IDE_SLOTS;
	return n < FLOPPY_SLOTS ? drives->floppy[n] : drives->virtio[n - FLOPPY_SLOTS];
}

struct drive *drives_find(const struct machine_drives *drives, const char *id)
{
	for (unsigned n = 0; n < DRIVE_PLACES; n++)
		if (drives_at(drives, n) && !strcmp(drive_id(drives_at(drives, n)), id))
			return drives_at(drives, n);
	return NULL;
}
