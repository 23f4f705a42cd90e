/* SPDX-License-Identifier: MIT */
/*
 * What a user may put over an image of any format: copy-on-read and detect-zeroes.
 *
 * Copy-on-read. A read finds clusters that this layer does not hold, and writes what the backing
 * chain has there into the layer, so that the next read stays here. In between another thread may
 * write to the same cluster, which must not be undone by the older copy: a copy excludes all changes
 * of the image for its time (img->copies->lock, held for reading by every change). Reads that find
 * everything in this layer take no lock.
 *
 * detect-zeroes. A write of nothing but zeroes becomes a write_zeroes.
 */
#include "block/file.h"
#include "block/image.h"
#include "block/iov.h"
#include "block/node.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	COPY_PIECE = 1024 * 1024, /* bytes copied at once */
	COPY_UNIT = 65536,        /* where the format has no clusters */
};

int image_add_filters(struct image *img, unsigned flags, struct error *err)
{
	flags &= IMAGE_FILTERS;
	if ((flags & IMAGE_COPY_ON_READ) && !(img->flags & IMAGE_WRITABLE))
		return error_set(err, EINVAL,
				 "copy-on-read needs '%s' to be writable: it would fill it",
				 img->path);
	if ((flags & IMAGE_COPY_ON_READ) && img->backing && !img->copies) {
		struct image_info info;
		int rc = image_get_info(img, &info);
		uint64_t cluster = rc == 0 ? info.cluster_size : 0;
		image_info_free(&info);
		img->copies = xcalloc(1, sizeof(*img->copies));
		img->copies->unit = cluster ? cluster : COPY_UNIT;
		pthread_rwlock_init(&img->copies->lock, NULL);
	}
	img->flags |= flags;
	return 0;
}

/* Whether nothing has to be copied from `offset` on, and how far that answer holds; -errno. Where
 * the chain below has only holes there is nothing to copy. */
static int held_here(struct image *img, uint64_t offset, uint64_t len, uint64_t *count)
{
	int status = image_block_status(img, offset, len, count, NULL);
	if (status < 0)
		return status;
	if (!*count)
		return -EIO;
	return (status & BLOCK_ALLOCATED) || image_reads_zero(img, offset, *count);
}

/* Copies one run of clusters up. The lock is held for writing. */
static int copy_run(struct image *img, void *buf, uint64_t offset, size_t len)
{
	struct iovec iov = {buf, len};
	int rc = img->driver->preadv(img, &iov, 1, offset);
	if (rc)
		return rc;
	if (all_zero(buf, len) && img->driver->write_zeroes) {
		rc = img->driver->write_zeroes(img, offset, len, false);
		if (rc != -ENOTSUP)
			return rc;
	}
	return img->driver->pwritev(img, &iov, 1, offset);
}

static int copy_range(struct image *img, uint64_t start, uint64_t end)
{
	void *buf = malloc(COPY_PIECE);
	int rc = buf ? 0 : -ENOMEM;
	while (start < end && !rc) {
		uint64_t count;
		uint64_t part = end - start < COPY_PIECE ? end - start : COPY_PIECE;
		int held = held_here(img, start, part, &count);
		if (held < 0)
			rc = held;
		else if (!held)
			rc = copy_run(img, buf, start, (size_t)count);
		start += count;
	}
	free(buf);
	return rc;
}

int image_copy_on_read(struct image *img, uint64_t offset, uint64_t len)
{
	uint64_t at = offset, end = offset + len, count;
	for (; at < end; at += count) {
		int held = held_here(img, at, end - at, &count);
		if (held < 0)
			return held;
		if (!held)
			break;
	}
	if (at >= end)
		return 0;
	uint64_t unit = img->copies->unit;
	at = round_down(at, unit);
	end = round_up(end, unit);
	if (end > image_size(img))
		end = image_size(img);
	pthread_rwlock_wrlock(&img->copies->lock);
	int rc = copy_range(img, at, end);
	pthread_rwlock_unlock(&img->copies->lock);
	return rc;
}

void image_drop_filters(struct image *img)
{
	if (!img->copies)
		return;
	pthread_rwlock_destroy(&img->copies->lock);
	free(img->copies);
	img->copies = NULL;
}
