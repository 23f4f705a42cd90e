/* SPDX-License-Identifier: MIT */
/* The image that minivm-nbd serves: its name or options, a snapshot of it, a part of it. */
#include "block/nbd_client.h"
#include "lib/bytes.h"
#include "lib/optstr.h"
#include "lib/text.h"
#include "tools/nbd.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --image-opts: driver=qcow2,file.filename=x; of a raw one also offset= and size=. */
static struct image *open_with_opts(struct nbd_source *s, uint64_t *offset, uint64_t *size,
				    struct error *err)
{
	static const char *const known[] = {
		"driver",        "file.driver", "file.filename",       "filename",
		"offset",        "size",        "read-only",           "cache-size",
		"l2-cache-size", "data-file",   "refcount-cache-size", NULL};
	struct image *img = NULL;
	struct opts o;
	bool read_only = false;
	char *remote = NULL;
	if (opts_parse(&o, s->name, NULL, err))
		return NULL;
	const char *driver = opts_get(&o, "driver"), *protocol = opts_get(&o, "file.driver");
	const char *file = opts_get(&o, "file.filename");
	if (!file)
		file = opts_get(&o, "filename");
	if (driver && strcmp(driver, "file") == 0)
		driver = "raw";
	bool raw = driver && strcmp(driver, "raw") == 0;
	int found = nbd_describe(file, &o, &remote, err);
	if (found > 0)
		file = remote;
	if (found < 0)
		img = NULL;
	else if (!file)
		error_set(err, EINVAL, "'%s' names no file; it needs file.filename=", s->name);
	else if (!found && protocol && strcmp(protocol, "file") != 0 &&
		 strcmp(protocol, "host_device") != 0)
		error_set(err, ENOTSUP, "block protocol '%s' is not supported in --image-opts",
			  protocol);
	else if (!opts_get_bool(&o, "read-only", &read_only, err) &&
		 !(raw && (opts_get_size(&o, "offset", offset, err) ||
			   opts_get_size(&o, "size", size, err))))
		img = image_open(file, driver,
				 read_only ? s->flags & ~(unsigned)IMAGE_WRITABLE : s->flags, &o,
				 err);
	if (img && opts_check_unused(&o, "--image-opts", known, err)) {
		image_close(img);
		img = NULL;
	}
	opts_free(&o);
	free(remote);
	return img;
}

/* The name or id in "NAME", "snapshot.name=NAME", "snapshot.id=ID" or both; malloc'ed. */
static char *snapshot_name(struct image *img, const char *text, struct error *err)
{
	struct opts o;
	struct image_info info;
	char *name = NULL;
	if (strncmp(text, "snapshot.", 9) != 0)
		return xstrdup(text);
	if (opts_parse(&o, text, NULL, err))
		return NULL;
	const char *id = opts_get(&o, "snapshot.id"), *by_name = opts_get(&o, "snapshot.name");
	static const char *const known[] = {"snapshot.id", "snapshot.name", NULL};
	int rc = opts_check_unused(&o, "--load-snapshot", known, err);
	if (!rc) {
		rc = image_get_info(img, &info);
		if (rc)
			error_errno(err, -rc, "cannot read the snapshots of '%s'", img->path);
		/* The driver takes names first: an id may be another one's name. */
		for (size_t i = 0; i < info.snapshot_count && !rc && !name; i++) {
			const struct image_snapshot_info *s = &info.snapshots[i];
			if ((!id || strcmp(id, s->id) == 0) &&
			    (!by_name || strcmp(by_name, s->name) == 0))
				name = xstrdup(s->name[0] ? s->name : s->id);
		}
		if (!rc && !name)
			error_set(err, ENOENT, "'%s' has no snapshot with %s", img->path, text);
		image_info_free(&info);
	}
	opts_free(&o);
	return name;
}

static int load_snapshot(struct image *img, const char *text, struct error *err)
{
	if (!img->driver->snapshot_load)
		return error_set(err, ENOTSUP,
				 "cannot load snapshot '%s': images of format '%s' have none", text,
				 img->driver->name);
	char *name = snapshot_name(img, text, err);
	int rc = name ? img->driver->snapshot_load(img, name, err) : -ENOENT;
	free(name);
	return rc;
}

/* Narrows what is served to [offset, offset + size) of it; size UINT64_MAX: to the end. */
static int narrow(struct nbd_source *s, uint64_t offset, uint64_t size, struct error *err)
{
	if (offset > s->size)
		return error_set(err, EINVAL,
				 "offset (%llu) has to be smaller than or equal to the image size "
				 "(%llu)",
				 (unsigned long long)offset, (unsigned long long)s->size);
	if (size != UINT64_MAX && size > s->size - offset)
		return error_set(err, EINVAL, "offset and size go beyond the end of '%s'", s->name);
	s->from += offset;
	s->size = size == UINT64_MAX ? s->size - offset : size;
	return 0;
}

struct image *nbd_open(struct nbd_source *s, struct error *err)
{
	uint64_t offset = 0, size = UINT64_MAX, typed = 0, from, len;
	if (s->offset && parse_size(s->offset, 1, &typed, err)) {
		error_prefix(err, "invalid offset '%s'", s->offset);
		return NULL;
	}
	struct image *img = s->image_opts ? open_with_opts(s, &offset, &size, err)
					  : image_open(s->name, s->format, s->flags, NULL, err);
	if (!img)
		return NULL;
	if (s->load_snapshot && load_snapshot(img, s->load_snapshot, err))
		goto fail;
	if (s->snapshot) {
		img = image_open_snapshot(img, err);
		if (!img)
			return NULL;
		if (s->flags & IMAGE_FILTERS && image_add_filters(img, s->flags, err))
			goto fail;
	}
	s->from = 0;
	s->size = image_size(img);
	if (narrow(s, offset, size, err))
		goto fail;
	if (s->partition) {
		if (nbd_find_partition(img, s->partition, &from, &len, err) ||
		    narrow(s, from, len, err))
			goto fail;
	}
	if (narrow(s, typed, UINT64_MAX, err))
		goto fail;
	return img;
fail:
	image_close(img);
	return NULL;
}
