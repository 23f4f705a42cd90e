/* SPDX-License-Identifier: MIT */
/*
 * Changes to an existing image as a whole: another backing file, another version, refcount width or
 * name of its data file (qemu-img amend), and emptying an overlay after its commit.
 */
#include "block/qcow2.h"
#include <inttypes.h>
#include <string.h>

static void begin(struct qcow2 *q)
{
	pthread_rwlock_wrlock(&q->ops);
	pthread_mutex_lock(&q->lock);
}

static void end(struct qcow2 *q)
{
	pthread_mutex_unlock(&q->lock);
	pthread_rwlock_unlock(&q->ops);
}

static int rewrite(struct qcow2 *q, struct error *err)
{
	int rc = qcow2_rewrite_header(q);
	if (rc == -ENAMETOOLONG)
		return error_set(err, ENAMETOOLONG, "the header of '%s' has no room for that name",
				 q->img->path);
	return rc ? error_errno(err, -rc, "cannot write the header of '%s'", q->img->path) : 0;
}

static void replace(char **field, const char *text)
{
	char *copy = text && *text ? xstrdup(text) : NULL;
	free(*field);
	*field = copy;
}

int qcow2_change_backing(struct image *img, const char *file, const char *format, struct error *err)
{
	struct qcow2 *q = qcow2_of(img);
	if (q->data_raw && file && *file)
		return error_set(err, EINVAL,
				 "'%s' has a raw external data file, which does not go together "
				 "with a backing file",
				 img->path);
	begin(q);
	char *old_file = q->backing_file, *old_format = q->backing_format;
	q->backing_file = q->backing_format = NULL;
	replace(&q->backing_file, file);
	replace(&q->backing_format, q->backing_file ? format : NULL);
	int rc = rewrite(q, err);
	if (rc) {
		free(q->backing_file);
		free(q->backing_format);
		q->backing_file = old_file;
		q->backing_format = old_format;
	} else {
		free(old_file);
		free(old_format);
	}
	end(q);
	return rc;
}

/* Behind the last cluster in use the file is cut off. Held exclusively, all settled. */
static int trim(struct qcow2 *q)
{
	int64_t size = file_size(q->img->file);
	uint64_t refs, last = size > 0 ? qcow2_clusters(q, (uint64_t)size) : 0;
	while (last > 1) {
		int rc = qcow2_get_refcount(q, last - 1, &refs);
		if (rc)
			return rc;
		if (refs)
			break;
		last--;
	}
	/* Not for soundness: no table on disk refers to what goes, and after a crash old refcounts
	 * are leaks, as with anything freed. With the sync none of them lie behind the end. */
	int rc = qcow2_cache_write(&q->rb_cache);
	if (!rc)
		rc = file_flush(q->img->file);
	if (!rc && last << q->h.cluster_bits < (uint64_t)size) {
		rc = file_truncate(q->img->file, last << q->h.cluster_bits);
		if (!rc && q->high_water > last << q->h.cluster_bits)
			q->high_water = last << q->h.cluster_bits;
	}
	return rc == -ENOSPC ? 0 : rc;
}

int qcow2_make_empty(struct image *img, struct error *err)
{
	struct qcow2 *q = qcow2_of(img);
	qcow2_mark_bitmaps(q, 0, q->h.size);
	begin(q);
	int rc = qcow2_drop_clusters(q, 0, round_up(image_size(img), q->cluster_size));
	if (!rc)
		rc = qcow2_settle(q);
	if (!rc)
		rc = trim(q);
	end(q);
	return rc ? error_errno(err, -rc, "cannot empty '%s'", img->path) : 0;
}

/* Version 2 knows no zero clusters: they become unallocated, or data where the backing image would
 * show through. */
static int expand_zeroes(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t size = image_size(img), at = 0;
	uint8_t *zeroes = calloc(1, q->cluster_size);
	int rc = zeroes ? 0 : -ENOMEM;
	while (at < size && !rc) {
		struct qcow2_map m;
		begin(q);
		rc = qcow2_map(q, at, size - at, &m);
		end(q);
		if (rc)
			break;
		uint64_t stop = at + m.len;
		if (m.type != CLUSTER_ZERO && m.type != CLUSTER_ZERO_ALLOC) {
			at = stop;
			continue;
		}
		for (; at < stop && !rc; at += q->cluster_size) {
			uint64_t len = size - at < q->cluster_size ? size - at : q->cluster_size;
			if (image_reads_zero(img->backing, at, len) && !q->backing_file) {
				begin(q);
				rc = qcow2_drop_clusters(q, at, at + q->cluster_size);
				end(q);
			} else {
				struct iovec iov = {zeroes, (size_t)len};
				rc = qcow2_pwritev(img, &iov, 1, at);
			}
		}
	}
	free(zeroes);
	return rc ? rc : qcow2_flush(img);
}

static int downgrade(struct image *img, struct error *err)
{
	struct qcow2 *q = qcow2_of(img);
	const char *what = q->external                     ? "an external data file"
			   : q->extended                   ? "extended L2 entries"
			   : q->h.compression              ? "zstd compression"
			   : q->h.nb_snapshots             ? "snapshots"
			   : qcow2_get_ext(q, EXT_BITMAPS) ? "bitmaps"
			   : (q->h.incompatible & ~(uint64_t)INCOMPAT_DIRTY) ? "unknown features"
									     : NULL;
	if (what)
		return error_set(err, ENOTSUP,
				 "'%s' cannot become a version 2 image (compat=0.10): it has %s",
				 img->path, what);
	if (q->h.refcount_order != 4)
		return error_set(err, ENOTSUP,
				 "'%s' cannot become a version 2 image (compat=0.10): its "
				 "refcounts have %u bits; amend refcount_bits=16 first",
				 img->path, 1u << q->h.refcount_order);
	int rc = expand_zeroes(img);
	if (rc)
		return error_errno(err, -rc, "cannot write zero clusters of '%s'", img->path);
	begin(q);
	rc = qcow2_settle(q);
	q->h.version = 2;
	q->h.incompatible = q->h.compatible = q->h.autoclear = 0;
	if (!rc)
		rc = rewrite(q, err);
	end(q);
	return rc;
}

static int upgrade(struct qcow2 *q, struct error *err)
{
	begin(q);
	q->h.version = 3;
	q->h.header_length = H_FULL_LENGTH;
	int rc = rewrite(q, err);
	end(q);
	return rc;
}

static int amend_refcounts(struct image *img, uint64_t bits, struct error *err)
{
	struct qcow2 *q = qcow2_of(img);
	if (!is_power_of_2(bits) || bits > 64)
		return error_set(err, EINVAL,
				 "'refcount_bits' must be a power of two and not more than 64");
	if (bits == 1u << q->h.refcount_order)
		return 0;
	if (q->h.version < 3)
		return error_set(err, EINVAL, "'refcount_bits' other than 16 need compat=1.1");
	begin(q);
	int rc = qcow2_settle(q);
	if (!rc)
		rc = qcow2_set_refcount_order(q, (unsigned)__builtin_ctzll(bits), err);
	end(q);
	if (rc == -ERANGE)
		return error_set(err, ERANGE,
				 "'%s' has clusters with more references than %" PRIu64
				 " bits can count",
				 img->path, bits);
	return rc && !err->code
		       ? error_errno(err, -rc, "cannot change the refcounts of '%s'", img->path)
		       : rc;
}

static int amend_data_file(struct image *img, struct opts *opts, struct error *err)
{
	struct qcow2 *q = qcow2_of(img);
	bool raw = q->data_raw;
	const char *name = opts_get(opts, "data_file");
	int rc = opts_get_bool(opts, "data_file_raw", &raw, err);
	if (rc)
		return rc;
	if (name && !q->external)
		return error_set(err, EINVAL,
				 "'data_file' cannot be set: '%s' has no external data file",
				 img->path);
	if (raw && !q->data_raw)
		return error_set(err, EINVAL, "'data_file_raw' cannot be set on an existing image");
	if (!name && raw == q->data_raw)
		return 0;
	begin(q);
	if (name)
		replace(&q->data_name, name);
	if (!raw)
		q->h.autoclear &= ~(uint64_t)AUTOCLEAR_DATA_RAW;
	q->data_raw = raw;
	rc = rewrite(q, err);
	end(q);
	return rc;
}

int qcow2_amend(struct image *img, struct opts *opts, struct error *err)
{
	static const char *const compats[] = {"0.10", "v2", "1.1", "v3", NULL};
	static const char *const known[] = {"backing_file",  "backing_fmt",   "compat",
					    "data_file",     "data_file_raw", "lazy_refcounts",
					    "refcount_bits", "size",          NULL};
	static const char *const fixed[] = {"cluster_size", "compression_type", "encryption",
					    "extended_l2",  "preallocation",    NULL};
	struct qcow2 *q = qcow2_of(img);
	int compat = q->h.version < 3 ? 0 : 2, rc;
	bool lazy = q->h.compatible & COMPAT_LAZY_REFCOUNTS;
	uint64_t bits = UINT64_C(1) << q->h.refcount_order, size = image_size(img);
	for (size_t i = 0; fixed[i]; i++)
		if (opts_has(opts, fixed[i]))
			return error_set(err, ENOTSUP,
					 "'%s' of an existing image cannot be changed; convert it "
					 "into a new one",
					 fixed[i]);
	const char *file = opts_get(opts, "backing_file"), *format = opts_get(opts, "backing_fmt");
	opts_get(opts, "data_file");
	opts_get(opts, "data_file_raw");
	if ((rc = opts_get_enum(opts, "compat", compats, &compat, err)) ||
	    (rc = opts_get_bool(opts, "lazy_refcounts", &lazy, err)) ||
	    (rc = opts_get_u64(opts, "refcount_bits", &bits, err)) ||
	    (rc = opts_get_size(opts, "size", &size, err)) ||
	    (rc = opts_check_unused(opts, "amend", known, err)))
		return rc;
	unsigned version = compat < 2 ? 2 : 3;
	if (lazy && version < 3)
		return error_set(err, EINVAL, "'lazy_refcounts' needs compat=1.1");
	if ((file && strcmp(file, q->backing_file ? q->backing_file : "") != 0) ||
	    (format && strcmp(format, q->backing_format ? q->backing_format : "") != 0))
		return error_set(
			err, EINVAL,
			"the backing file cannot be amended; use rebase, with -u to change "
			"its name alone");
	if (version > q->h.version)
		rc = upgrade(q, err);
	if (!rc)
		rc = amend_refcounts(img, bits, err);
	if (!rc)
		rc = amend_data_file(img, opts, err);
	if (!rc && version < q->h.version)
		rc = downgrade(img, err);
	if (!rc && lazy != !!(q->h.compatible & COMPAT_LAZY_REFCOUNTS) && version >= 3) {
		begin(q);
		q->h.compatible ^= COMPAT_LAZY_REFCOUNTS;
		rc = rewrite(q, err);
		end(q);
	}
	if (!rc && size != image_size(img))
		rc = image_truncate(img, size, err);
	return rc;
}
