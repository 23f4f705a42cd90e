/* SPDX-License-Identifier: MIT */
/*
 * Backing chains as a whole: what a range consists of through all layers, and a chain opened so
 * that an upper image can be committed into a lower one. Bitmaps and snapshots by their names.
 */
#include "block/file.h"
#include "block/image.h"
#include "block/node.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int image_chain_status(struct image *img, const struct image *base, uint64_t offset, uint64_t len,
		       uint64_t *count, uint64_t *host_offset, struct image **where, int *depth)
{
	uint64_t ignored;
	struct image *p = img;
	int status = 0, level = 0;
	*count = len;
	for (; p != base; p = p->backing, level++) {
		uint64_t size = image_size(p), part = *count;
		/* Behind the end of a backing image there are zeroes that no layer holds. */
		if (offset >= size) {
			status = BLOCK_ZERO;
			break;
		}
		if (part > size - offset)
			part = size - offset;
		status = image_block_status(p, offset, part, count,
					    host_offset ? host_offset : &ignored);
		if (status < 0 || (status & (BLOCK_ALLOCATED | BLOCK_ZERO)))
			break;
		const struct image *next = p->backing;
		if (!next) {
			status |= BLOCK_ZERO;
			break;
		}
		if (next != base && offset >= image_size(next)) {
			status |= BLOCK_ZERO;
			break;
		}
		if (next != base && *count > image_size(next) - offset)
			*count = image_size(next) - offset;
	}
	if (where)
		*where = p;
	if (depth)
		*depth = level;
	return status;
}

int image_bitmap_edit(struct image *img, const struct image_bitmap_edit *edit, struct error *err)
{
	if (!image_writable(img))
		return error_set(err, EPERM,
				 "cannot change bitmaps of '%s': it is opened read-only",
				 img->path);
	if (!img->driver->bitmap_edit)
		return error_set(err, ENOTSUP, "'%s': format '%s' has no bitmaps", img->path,
				 img->driver->name);
	return img->driver->bitmap_edit(img, edit, err);
}

int image_bitmap_open(struct image *img, const char *name, struct error *err)
{
	if (!img->driver->bitmap_open)
		return error_set(err, ENOENT, "bitmap '%s' is not found: '%s' is a %s image", name,
				 img->path, img->driver->name);
	return img->driver->bitmap_open(img, name, err);
}

int image_bitmap_status(struct image *img, const char *name, uint64_t offset, uint64_t len,
			uint64_t *count)
{
	*count = len;
	if (!img->driver->bitmap_status)
		return -ENOTSUP;
	if (!len || !range_in(offset, len, image_size(img)))
		return -EINVAL;
	return img->driver->bitmap_status(img, name, offset, len, count);
}

/* True if the names mean one file. */
static bool same_name(const char *a, const char *b)
{
	char *x = realpath(a, NULL), *y = realpath(b, NULL);
	bool same = strcmp(a, b) == 0 || (x && y && strcmp(x, y) == 0);
	free(x);
	free(y);
	return same;
}

int image_open_commit(struct image *top, unsigned flags, const char *base_name, struct image **base,
		      struct error *err)
{
	struct image *p = top;
	bool found = false;
	for (int depth = 0; !found; depth++) {
		struct image_info info;
		int rc = image_get_info(p, &info);
		if (rc < 0)
			error_errno(err, -rc, "cannot read '%s'", p->path);
		else if ((!info.backing_path || depth > 100) && base_name)
			rc = error_set(err, EINVAL, "'%s' is not in the backing chain of '%s'",
				       base_name, top->path);
		else if (!info.backing_path || depth > 100)
			rc = error_set(err, ENOTSUP, "'%s' has no backing file to commit to",
				       top->path);
		if (rc < 0) {
			image_info_free(&info);
			return rc;
		}
		found = !base_name || same_name(info.backing_path, base_name) ||
			strcmp(info.backing_file, base_name) == 0;
		unsigned wanted = found ? flags | IMAGE_WRITABLE
					: (flags & ~(unsigned)IMAGE_WRITABLE) | IMAGE_NO_BACKING;
		p->backing = image_open(info.backing_path, info.backing_format, wanted, NULL, err);
		if (!p->backing)
			error_prefix(err, "backing file of '%s'", p->path);
		image_info_free(&info);
		if (!p->backing)
			return -(err && err->code ? err->code : EIO);
		p = p->backing;
	}
	*base = p;
	return 0;
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
	int rc = opts_check_unused(&o, text, known, err);
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

int image_load_snapshot(struct image *img, const char *text, struct error *err)
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
