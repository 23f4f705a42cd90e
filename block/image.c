/* SPDX-License-Identifier: MIT */
/*
 * Requests on an open image: bounds, permissions and the generic way of what a driver does not do
 * itself. Opening is in open.c.
 *
 * An image whose format was guessed to be raw is a trap: a guest that writes, say, a qcow2 header
 * with the name of a host file as its backing file to its first sector would see that file at the
 * next start. So a probed raw image takes no first sector that would be probed as anything else.
 */
#include "block/image.h"
#include "block/file.h"
#include "block/iov.h"
#include "block/node.h"
#include "block/remote.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* In image->flags: the user was told of a refused first sector. */
#define IMAGE_TOLD (1u << 30)

uint64_t image_size(const struct image *img)
{
	return __atomic_load_n(&img->size, __ATOMIC_RELAXED);
}

const char *image_data_path(const struct image *img)
{
	return img->data_path ? img->data_path : img->path;
}

bool image_writable(const struct image *img)
{
	return img->flags & IMAGE_WRITABLE;
}

static int check_range(const struct image *img, uint64_t offset, uint64_t len)
{
	return range_in(offset, len, image_size(img)) ? 0 : -EINVAL;
}

static int check_write(const struct image *img, uint64_t offset, uint64_t len)
{
	if (!image_writable(img))
		return -EPERM;
	return check_range(img, offset, len);
}

/* Would the first sector look like a format after this write? iov NULL: zeroes. */
static int guard_first_sector(struct image *img, const struct iovec *iov, int iovcnt,
			      uint64_t offset, uint64_t len)
{
	if (!(img->flags & IMAGE_PROBED) || offset >= PROBE_BYTES || img->driver != &raw_driver)
		return 0;
	uint8_t head[PROBE_BYTES];
	int rc = file_pread(img->file, head, sizeof(head), 0);
	if (rc)
		return rc;
	size_t part = PROBE_BYTES - offset < len ? PROBE_BYTES - (size_t)offset : (size_t)len;
	if (iov) {
		struct iov_iter it = iov_iter(iov, iovcnt);
		iov_read(&it, head + offset, part);
	} else {
		memset(head + offset, 0, part);
	}
	const char *as = image_foreign_format(head, sizeof(head));
	if (!as && image_probe(head, sizeof(head), img->path) != &raw_driver)
		as = image_probe(head, sizeof(head), img->path)->name;
	if (!as)
		return 0;
	if (!(__atomic_fetch_or(&img->flags, IMAGE_TOLD, __ATOMIC_RELAXED) & IMAGE_TOLD))
		warn("'%s': a write that would make this raw image look like a %s image was "
		     "refused; say format=raw to allow it",
		     img->path, as);
	return -EPERM;
}

int image_preadv(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	uint64_t len = iov_total(iov, iovcnt);
	int rc = check_range(img, offset, len);
	if (rc || !len)
		return rc;
	if (img->copies && (rc = image_copy_on_read(img, offset, len)) < 0)
		return rc;
	return img->driver->preadv(img, iov, iovcnt, offset);
}

/* Every change is enclosed by these: none goes on while copy-on-read copies. */
static void change_begin(struct image *img)
{
	if (img->copies)
		pthread_rwlock_rdlock(&img->copies->lock);
}

static int change_end(struct image *img, int rc)
{
	if (img->copies)
		pthread_rwlock_unlock(&img->copies->lock);
	return rc;
}

static int written(struct image *img, int rc)
{
	return rc == 0 && (img->flags & IMAGE_WRITETHROUGH) ? image_flush(img) : rc;
}

static int write_list(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset,
		      bool fua)
{
	uint64_t len = iov_total(iov, iovcnt);
	int rc = check_write(img, offset, len);
	if (!rc && len)
		rc = guard_first_sector(img, iov, iovcnt, offset, len);
	if (rc || !len)
		return rc;
	if (!img->driver->pwritev)
		return -ENOTSUP;
	if ((img->flags & (IMAGE_DETECT_ZEROES | IMAGE_DETECT_UNMAP)) &&
	    iov_all_zero(iov, iovcnt)) {
		rc = image_write_zeroes(img, offset, len, img->flags & IMAGE_DETECT_UNMAP);
		return rc || !fua ? rc : image_flush(img);
	}
	fua = fua || (img->flags & IMAGE_WRITETHROUGH);
	bool at_once = fua && img->driver->pwritev_fua;
	change_begin(img);
	rc = at_once ? img->driver->pwritev_fua(img, iov, iovcnt, offset)
		     : img->driver->pwritev(img, iov, iovcnt, offset);
	rc = change_end(img, rc);
	return rc || !fua || at_once ? rc : image_flush(img);
}

int image_pwritev(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	return write_list(img, iov, iovcnt, offset, false);
}

int image_pwritev_fua(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	return write_list(img, iov, iovcnt, offset, true);
}

int image_pread(struct image *img, void *buf, size_t len, uint64_t offset)
{
	struct iovec iov = {buf, len};
	return image_preadv(img, &iov, 1, offset);
}

int image_pwrite(struct image *img, const void *buf, size_t len, uint64_t offset)
{
	struct iovec iov = {(void *)buf, len};
	return image_pwritev(img, &iov, 1, offset);
}

int image_cache(struct image *img, uint64_t offset, uint64_t len)
{
	int rc = check_range(img, offset, len);
	if (rc || !len)
		return rc;
	/* With copy-on-read, to read is what brings it near. */
	return img->driver->cache && !img->copies ? img->driver->cache(img, offset, len) : -ENOTSUP;
}

int image_flush(struct image *img)
{
	if (!image_writable(img) || !img->driver->flush)
		return 0;
	return img->driver->flush(img);
}

int image_discard(struct image *img, uint64_t offset, uint64_t len)
{
	int rc = check_write(img, offset, len);
	if (!rc && len)
		rc = guard_first_sector(img, NULL, 0, offset, len);
	if (rc || !len || !(img->flags & IMAGE_DISCARD) || !img->driver->discard)
		return rc;
	change_begin(img);
	rc = change_end(img, img->driver->discard(img, offset, len));
	return written(img, rc);
}

/* Writes real zeroes, in pieces. */
static int write_zero_bytes(struct image *img, uint64_t offset, uint64_t len)
{
	size_t size = len < MIB ? (size_t)len : MIB;
	void *zeroes = calloc(1, size);
	int rc = zeroes ? 0 : -ENOMEM;
	while (len && !rc) {
		struct iovec iov = {zeroes, len < size ? (size_t)len : size};
		rc = img->driver->pwritev(img, &iov, 1, offset);
		offset += iov.iov_len;
		len -= iov.iov_len;
	}
	free(zeroes);
	return rc;
}

static int zero_range(struct image *img, uint64_t offset, uint64_t len, bool may_unmap, bool fast)
{
	int rc = check_write(img, offset, len);
	if (!rc && len)
		rc = guard_first_sector(img, NULL, 0, offset, len);
	if (rc || !len)
		return rc;
	if (!img->driver->pwritev)
		return -ENOTSUP;
	int (*zero)(struct image * img, uint64_t offset, uint64_t len, bool may_unmap) =
		fast ? img->driver->write_zeroes_fast : img->driver->write_zeroes;
	rc = -ENOTSUP;
	change_begin(img);
	if (zero)
		rc = zero(img, offset, len, may_unmap && (img->flags & IMAGE_DISCARD));
	if (rc == -ENOTSUP && !fast)
		rc = write_zero_bytes(img, offset, len);
	return written(img, change_end(img, rc));
}

int image_write_zeroes(struct image *img, uint64_t offset, uint64_t len, bool may_unmap)
{
	return zero_range(img, offset, len, may_unmap, false);
}

int image_write_zeroes_fast(struct image *img, uint64_t offset, uint64_t len, bool may_unmap)
{
	return zero_range(img, offset, len, may_unmap, true);
}

int image_pwrite_compressed(struct image *img, const void *buf, size_t len, uint64_t offset)
{
	int rc = check_write(img, offset, len);
	if (rc || !len)
		return rc;
	if (!img->driver->write_compressed)
		return -ENOTSUP;
	change_begin(img);
	rc = change_end(img, img->driver->write_compressed(img, buf, len, offset));
	return written(img, rc);
}

int image_block_status(struct image *img, uint64_t offset, uint64_t len, uint64_t *count,
		       uint64_t *host_offset)
{
	uint64_t ignored;
	int rc = check_range(img, offset, len);
	*count = len;
	if (rc || !len)
		return rc;
	if (!img->driver->block_status)
		return BLOCK_DATA | BLOCK_ALLOCATED;
	return img->driver->block_status(img, offset, len, count,
					 host_offset ? host_offset : &ignored);
}

bool image_reads_zero(struct image *img, uint64_t offset, uint64_t len)
{
	while (len) {
		uint64_t count;
		if (!img || offset >= image_size(img))
			return true;
		uint64_t part = image_size(img) - offset < len ? image_size(img) - offset : len;
		int status = image_block_status(img, offset, part, &count, NULL);
		if (status < 0 || !count)
			return false;
		if (status & BLOCK_ALLOCATED) {
			if (!(status & BLOCK_ZERO))
				return false;
		} else if (!image_reads_zero(img->backing, offset, count)) {
			return false;
		}
		offset += count;
		len -= count;
	}
	return true;
}

int image_read_padded(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	uint64_t len = iov_total(iov, iovcnt), size = img ? image_size(img) : 0;
	uint64_t inside = offset >= size ? 0 : size - offset < len ? size - offset : len;
	struct iov_iter it = iov_iter(iov, iovcnt);
	if (inside == len)
		return image_preadv(img, iov, iovcnt, offset);
	while (inside) {
		struct iovec part[64];
		size_t covered;
		int n = iov_peek(&it, inside > SIZE_MAX ? SIZE_MAX : (size_t)inside, part,
				 ARRAY_SIZE(part), &covered);
		int rc = image_preadv(img, part, n, offset);
		if (rc)
			return rc;
		iov_advance(&it, covered);
		offset += covered;
		inside -= covered;
		len -= covered;
	}
	iov_zero(&it, len);
	return 0;
}

int image_truncate(struct image *img, uint64_t size, struct error *err)
{
	if (!image_writable(img))
		return error_set(err, EPERM, "cannot resize '%s': it is opened read-only",
				 img->path);
	if (!img->driver->truncate)
		return error_set(err, ENOTSUP, "cannot resize '%s': format '%s' does not allow it",
				 img->path, img->driver->name);
	return img->driver->truncate(img, size, err);
}

int image_get_info(struct image *img, struct image_info *info)
{
	*info = (struct image_info){.format = img->driver->name,
				    .virtual_size = image_size(img),
				    .disk_size = img->file ? file_disk_usage(img->file) : 0,
				    .remote = img->file && file_remote_name(img->file)};
	return img->driver->info ? img->driver->info(img, info) : 0;
}

void image_info_free(struct image_info *info)
{
	free(info->backing_file);
	free(info->backing_format);
	free(info->backing_path);
	free(info->data_file);
	for (size_t i = 0; i < info->snapshot_count; i++) {
		free(info->snapshots[i].id);
		free(info->snapshots[i].name);
	}
	free(info->snapshots);
	for (size_t i = 0; i < info->bitmap_count; i++)
		free(info->bitmaps[i].name);
	free(info->bitmaps);
	*info = (struct image_info){0};
}

int image_run_check(struct image *img, int fix, struct image_check *result, struct error *err)
{
	*result = (struct image_check){0};
	if (!img->driver->check)
		return error_set(err, ENOTSUP, "'%s': format '%s' does not support checks",
				 img->path, img->driver->name);
	if (fix && !image_writable(img))
		return error_set(err, EPERM, "cannot repair '%s': it is opened read-only",
				 img->path);
	return img->driver->check(img, fix, result, err);
}

/* Are the disk's bytes just the file's? */
static bool is_plain(const struct image *img)
{
	return (img->driver == &raw_driver || img->driver == &nbd_driver) && !raw_offset(img) &&
	       !(img->flags & IMAGE_FILTERS);
}

/* Is this transfer nothing but the same transfer of the file? */
static bool is_straight(const struct image *img, bool write, const struct iovec *iov, int iovcnt,
			uint64_t offset, uint64_t len)
{
	if (!is_plain(img) || !len || iov_total(iov, iovcnt) != len ||
	    check_range(img, offset, len))
		return false;
	return !write ||
	       (image_writable(img) && !((img->flags & IMAGE_PROBED) && offset < PROBE_BYTES));
}

int image_straight_begin(struct image *img, bool write, const struct iovec *iov, int iovcnt,
			 uint64_t offset, uint64_t len)
{
	if (!is_straight(img, write, iov, iovcnt, offset, len) ||
	    (write && (img->flags & IMAGE_WRITETHROUGH)))
		return -1;
	return file_straight_begin(img->file, write, iov, iovcnt, offset, len);
}

void image_straight_end(struct image *img, bool write)
{
	file_straight_end(img->file, write);
}

bool image_can_submit(const struct image *img)
{
	return is_plain(img) && file_remote_name(img->file);
}

bool image_is_remote(const struct image *img)
{
	while (img && !file_remote_name(img->file))
		img = img->backing;
	return img != NULL;
}

bool image_submit(struct image *img, struct remote_request *req)
{
	bool write = req->op == REMOTE_WRITE, flush = req->op == REMOTE_FLUSH;
	if (flush ? !is_plain(img) || !image_writable(img)
		  : !is_straight(img, write, req->iov, req->iovcnt, req->offset, req->len))
		return false;
	if (write && (img->flags & IMAGE_WRITETHROUGH))
		req->fua = true;
	return file_submit(img->file, req);
}
