/* SPDX-License-Identifier: MIT */
/*
 * Raw images: the file is the disk. A file that does not end on a sector counts as if it did; what
 * is missing reads as zeroes and is added when it is written. With the options offset= and size= the
 * disk is a part of the file; one whose size is given cannot be resized.
 */
#include "block/file.h"
#include "block/image.h"
#include "block/node.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#ifdef HAVE_JSONC
#include <json-c/json.h>
#endif

enum { SECTOR = 512 };

struct raw {
	uint64_t offset; /* where in the file the disk begins */
	bool has_size;   /* and it ends before the file does */
};

uint64_t raw_offset(const struct image *img)
{
	return ((const struct raw *)img->state)->offset;
}

static int raw_probe(const uint8_t *head, size_t len, const char *path)
{
	return 1;
}

/* offset= and size=. */
static int open_part(struct image *img, uint64_t file, struct opts *opts, struct error *err)
{
	struct raw *r = img->state;
	uint64_t size = 0;
	r->has_size = opts_has(opts, "size");
	int rc = opts_get_size(opts, "offset", &r->offset, err);
	if (!rc)
		rc = opts_get_size(opts, "size", &size, err);
	if (rc || (!r->offset && !r->has_size))
		return rc;
	if (img->flags & IMAGE_PROBED)
		return error_set(err, EINVAL, "offset= and size= need driver=raw");
	if (r->offset > file)
		return error_set(err, EINVAL,
				 "offset (%" PRIu64 ") cannot be greater than the size of the file "
				 "(%" PRIu64 ")",
				 r->offset, file);
	if (r->has_size && size > file - r->offset)
		return error_set(err, EINVAL,
				 "offset and size (%" PRIu64 " and %" PRIu64
				 ") go beyond the end of the file (%" PRIu64 ")",
				 r->offset, size, file);
	if (size % SECTOR)
		return error_set(err, EINVAL, "size=%" PRIu64 " is not a multiple of %d", size,
				 SECTOR);
	img->size = r->has_size ? size : round_up(file - r->offset, SECTOR);
	return 0;
}

static int raw_open(struct image *img, struct opts *opts, struct error *err)
{
	int64_t size = file_size(img->file);
	if (size < 0)
		return error_errno(err, (int)-size, "its size is unknown");
	if (size > INT64_MAX - SECTOR)
		return error_set(err, EFBIG, "it is too large");
	img->size = round_up((uint64_t)size, SECTOR);
	return opts && img->driver == &raw_driver ? open_part(img, (uint64_t)size, opts, err) : 0;
}

char *image_filename(const struct image *img)
{
#ifdef HAVE_JSONC
	const struct raw *r = img->state;
	if (img->driver == &raw_driver && (r->offset || r->has_size)) {
		struct json_object *o = json_object_new_object(), *file = json_object_new_object();
		json_object_object_add(o, "driver", json_object_new_string("raw"));
		json_object_object_add(o, "offset", json_object_new_int64((int64_t)r->offset));
		if (r->has_size)
			json_object_object_add(o, "size",
					       json_object_new_int64((int64_t)image_size(img)));
		json_object_object_add(file, "driver", json_object_new_string("file"));
		json_object_object_add(file, "filename", json_object_new_string(img->path));
		json_object_object_add(o, "file", file);
		char *text = xasprintf(
			"json:%s",
			json_object_to_json_string_ext(o, JSON_C_TO_STRING_SPACED |
								  JSON_C_TO_STRING_NOSLASHESCAPE));
		json_object_put(o);
		return text;
	}
#endif
	return xstrdup(img->path);
}

static int raw_preadv(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	return file_preadv(img->file, iov, iovcnt, raw_offset(img) + offset);
}

static int raw_pwritev(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	return file_pwritev(img->file, iov, iovcnt, raw_offset(img) + offset);
}

static int raw_pwritev_fua(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	return file_pwritev_fua(img->file, iov, iovcnt, raw_offset(img) + offset);
}

static int raw_cache(struct image *img, uint64_t offset, uint64_t len)
{
	return file_cache(img->file, raw_offset(img) + offset, len);
}

static int raw_flush(struct image *img)
{
	return file_flush(img->file);
}

static int raw_discard(struct image *img, uint64_t offset, uint64_t len)
{
	return file_discard(img->file, raw_offset(img) + offset, len);
}

static int raw_write_zeroes(struct image *img, uint64_t offset, uint64_t len, bool may_unmap)
{
	return file_write_zeroes(img->file, raw_offset(img) + offset, len, may_unmap);
}

static int raw_write_zeroes_fast(struct image *img, uint64_t offset, uint64_t len, bool may_unmap)
{
	return file_write_zeroes_fast(img->file, raw_offset(img) + offset, len, may_unmap);
}

static int raw_block_status(struct image *img, uint64_t offset, uint64_t len, uint64_t *count,
			    uint64_t *host_offset)
{
	unsigned status = file_status(img->file, raw_offset(img) + offset, len, count);
	*host_offset = raw_offset(img) + offset;
	return BLOCK_ALLOCATED | BLOCK_OFFSET_VALID | (status & FILE_ZEROES ? BLOCK_ZERO : 0) |
	       (status & FILE_HOLE ? 0 : BLOCK_DATA);
}

static int raw_truncate(struct image *img, uint64_t size, struct error *err)
{
	const struct raw *r = img->state;
	if (r->has_size)
		return error_set(err, ENOTSUP, "cannot resize '%s': size= fixes it", img->path);
	int rc = size > INT64_MAX - r->offset ? -EFBIG : file_truncate(img->file, r->offset + size);
	if (rc)
		return error_errno(err, -rc, "cannot resize '%s'", img->path);
	__atomic_store_n(&img->size, round_up(size, SECTOR), __ATOMIC_RELAXED);
	return 0;
}

static int fill_with_zeroes(struct file_layer *f, uint64_t offset, uint64_t len)
{
	int rc = file_write_zero_bytes(f, offset, len);
	return rc ? rc : file_flush(f);
}

static int raw_preallocate(struct image *img, uint64_t from, uint64_t to, const char *mode,
			   struct error *err)
{
	int rc = 0;
	if (strcmp(mode, "falloc") == 0) {
		rc = file_allocate(img->file, raw_offset(img) + from, to - from);
	} else if (strcmp(mode, "full") == 0) {
		rc = fill_with_zeroes(img->file, raw_offset(img) + from, to - from);
	} else {
		return error_set(err, ENOTSUP, "raw images have no preallocation '%s'", mode);
	}
	return rc ? error_errno(err, -rc, "cannot preallocate '%s'", img->path) : 0;
}

static int raw_measure(struct opts *opts, struct image *from, uint64_t size,
		       struct image_measure *m, struct error *err)
{
	static const char *const known[] = {"size", "preallocation", NULL};
	if (opts) {
		opts_get(opts, "size");
		opts_get(opts, "preallocation");
		int rc = opts_check_unused(opts, "raw", known, err);
		if (rc)
			return rc;
	}
	m->required = m->fully_allocated =
		size > INT64_MAX - SECTOR ? size : round_up(size, SECTOR);
	return 0;
}

static int raw_create(const char *path, uint64_t size, struct opts *opts, struct error *err)
{
	static const char *const modes[] = {"off", "falloc", "full", NULL};
	static const char *const known[] = {"size", "preallocation", "nocow", "extent_size_hint",
					    NULL};
	struct file_layout layout;
	int mode = 0, rc = file_layout_read(opts, &layout, err);
	if (rc)
		return rc;
	if (opts) {
		opts_get(opts, "size");
		rc = opts_get_enum(opts, "preallocation", modes, &mode, err);
		if (!rc)
			rc = opts_check_unused(opts, "raw", known, err);
		if (rc)
			return rc;
	}
	struct file_open_args a = {.path = path,
				   .flags = IMAGE_WRITABLE,
				   .create = true,
				   .perms = PERM_WRITE | PERM_RESIZE,
				   .unshared = PERM_WRITE | PERM_RESIZE};
	struct file_layer *f = file_open(&a, err);
	if (!f)
		return -(err && err->code ? err->code : EIO);
	rc = file_truncate(f, 0);
	if (!rc)
		file_set_layout(f, &layout);
	if (!rc || rc == -ENOSPC)
		rc = file_truncate(f, size);
	if (!rc && mode == 1)
		rc = file_allocate(f, 0, size);
	if (!rc && mode == 2)
		rc = fill_with_zeroes(f, 0, size);
	file_close(f);
	if (rc)
		error_errno(err, -rc, "cannot make '%s' %llu bytes long", path,
			    (unsigned long long)size);
	return rc;
}

const struct image_driver raw_driver = {
	.name = "raw",
	.state_size = sizeof(struct raw),
	.probe = raw_probe,
	.open = raw_open,
	.preadv = raw_preadv,
	.pwritev = raw_pwritev,
	.pwritev_fua = raw_pwritev_fua,
	.cache = raw_cache,
	.flush = raw_flush,
	.discard = raw_discard,
	.write_zeroes = raw_write_zeroes,
	.write_zeroes_fast = raw_write_zeroes_fast,
	.block_status = raw_block_status,
	.truncate = raw_truncate,
	.create = raw_create,
	.preallocate = raw_preallocate,
	.measure = raw_measure,
};

/* The same for an NBD export that is not to be probed (driver=nbd). */
const struct image_driver nbd_driver = {
	.name = "nbd",
	.state_size = sizeof(struct raw),
	.open = raw_open,
	.preadv = raw_preadv,
	.pwritev = raw_pwritev,
	.pwritev_fua = raw_pwritev_fua,
	.cache = raw_cache,
	.flush = raw_flush,
	.discard = raw_discard,
	.write_zeroes = raw_write_zeroes,
	.write_zeroes_fast = raw_write_zeroes_fast,
	.block_status = raw_block_status,
};
