/* SPDX-License-Identifier: MIT */
/*
 * Images that options describe key by key (describe.h).
 *
 *   driver=qcow2,file.driver=file,file.filename=x    format and file
 *   driver=file,filename=x                           the file alone: raw
 *   backing.driver=...,backing.file.filename=...     another backing image than the header's
 *   backing=                                         none
 *   read-only= force-share= cache.direct= cache.no-flush= discard= detect-zeroes=
 *   file.locking= file.aio=                          how it is used; cache.* also with file.
 *
 * Keys of a format (raw: offset=, size=; qcow2: cache-size=, data-file= and so on) and of an NBD
 * node are read where these are opened. QEMU's QAPI schema, "BlockdevOptions", has the names.
 */
#include "block/describe.h"
#include "block/image.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_file_protocol(const char *driver)
{
	return !strcmp(driver, "file") || !strcmp(driver, "host_device") ||
	       !strcmp(driver, "host_cdrom");
}

/* Sets or clears flags by a switch. */
static int read_switch(struct opts *opts, const char *key, unsigned on, unsigned off,
		       struct image_description *d, struct error *err)
{
	bool value = false;
	if (!opts_has(opts, key))
		return 0;
	int rc = opts_get_bool(opts, key, &value, err);
	if (rc)
		return rc;
	d->set = (d->set & ~off) | (value ? on : 0);
	d->clear = (d->clear & ~on) | (value ? off : on);
	return 0;
}

/* What the node and the file below it have in common; `prefix` is "" or "file.". */
static int read_common(struct opts *opts, const char *prefix, struct image_description *d,
		       struct error *err)
{
	static const struct {
		const char *key;
		unsigned on, off;
	} switches[] = {
		{"read-only", 0, IMAGE_WRITABLE},  {"force-share", IMAGE_FORCE_SHARE, 0},
		{"cache.direct", IMAGE_DIRECT, 0}, {"cache.no-flush", IMAGE_NO_FLUSH, 0},
		{"auto-read-only", 0, 0}, /* whoever needs to write says so on opening */
	};
	static const char *const discard_modes[] = {"ignore", "off", "unmap", "on", NULL};
	static const char *const locking_modes[] = {"auto", "on", "off", NULL};
	static const char *const aio_modes[] = {"threads", "io_uring", "native", NULL};
	char key[64];
	int rc = 0, mode = 0;
	for (size_t i = 0; i < ARRAY_SIZE(switches) && !rc; i++) {
		snprintf(key, sizeof(key), "%s%s", prefix, switches[i].key);
		rc = read_switch(opts, key, switches[i].on, switches[i].off, d, err);
	}
	snprintf(key, sizeof(key), "%sdiscard", prefix);
	if (!rc && opts_has(opts, key) &&
	    !(rc = opts_get_enum(opts, key, discard_modes, &mode, err))) {
		d->set |= mode >= 2 ? IMAGE_DISCARD : 0;
		d->clear |= mode < 2 ? IMAGE_DISCARD : 0;
	}
	snprintf(key, sizeof(key), "%slocking", prefix);
	mode = 0;
	if (!rc && !(rc = opts_get_enum(opts, key, locking_modes, &mode, err)) && mode == 2)
		d->set |= IMAGE_NO_LOCK;
	snprintf(key, sizeof(key), "%saio", prefix);
	mode = 0;
	if (!rc && !(rc = opts_get_enum(opts, key, aio_modes, &mode, err)))
		d->native |= mode == 2;
	snprintf(key, sizeof(key), "%snode-name", prefix);
	opts_get(opts, key);
	return rc;
}

static int read_detect_zeroes(struct opts *opts, struct image_description *d, struct error *err)
{
	static const char *const modes[] = {"off", "on", "unmap", NULL};
	int mode = 0;
	int rc = opts_get_enum(opts, "detect-zeroes", modes, &mode, err);
	if (!rc && mode == 2 && !(d->set & IMAGE_DISCARD))
		rc = error_set(err, EINVAL, "detect-zeroes=unmap needs discard=unmap");
	d->set |= mode == 1 ? IMAGE_DETECT_ZEROES : mode == 2 ? IMAGE_DETECT_UNMAP : 0;
	return rc;
}

/* "backing." and what is behind it go into options of their own. */
static int read_backing(struct opts *opts, struct image_description *d, struct error *err)
{
	const char *name = opts_get(opts, "backing");
	if (name && *name)
		return error_set(err, ENOTSUP,
				 "backing=%s: nodes have no names here; describe the image with "
				 "backing.driver= and backing.file.filename=",
				 name);
	if (name)
		d->set |= IMAGE_NO_BACKING;
	for (size_t i = 0; i < opts->count; i++) {
		struct opt *o = &opts->item[i];
		if (strncmp(o->key, "backing.", 8) != 0)
			continue;
		o->used = true;
		opts_set(&d->backing, o->key + 8, o->value);
		d->has_backing = true;
	}
	return 0;
}

/* The name of the file and the format of what is in it. */
static int read_names(struct opts *opts, struct image_description *d, struct error *err)
{
	const char *driver = opts_get(opts, "driver"), *protocol = opts_get(opts, "file.driver");
	d->format = driver;
	if (driver && is_file_protocol(driver)) {
		d->format = "raw";
		d->file = opts_get(opts, "filename");
	} else {
		d->file = opts_get(opts, "file.filename");
		if (!d->file)
			d->file = opts_get(opts, "filename");
	}
	if (protocol && !is_file_protocol(protocol) && strcmp(protocol, "nbd") != 0)
		return error_set(err, ENOTSUP, "block protocol '%s' is not supported", protocol);
	/* An external data file, by the long way. */
	const char *data = opts_get(opts, "data-file.filename"),
		   *data_driver = opts_get(opts, "data-file.driver");
	if (data_driver && !is_file_protocol(data_driver))
		return error_set(err, ENOTSUP, "data-file.driver=%s is not supported", data_driver);
	if (data)
		opts_set(opts, "data-file", data);
	return 0;
}

int image_describe(struct opts *opts, struct image_description *d, struct error *err)
{
	*d = (struct image_description){0};
	int rc = read_names(opts, d, err);
	if (!rc)
		rc = read_common(opts, "", d, err);
	if (!rc)
		rc = read_common(opts, "file.", d, err);
	if (!rc)
		rc = read_detect_zeroes(opts, d, err);
	if (!rc)
		rc = read_backing(opts, d, err);
	if (rc)
		image_description_free(d);
	return rc;
}

void image_description_free(struct image_description *d)
{
	opts_free(&d->backing);
}
