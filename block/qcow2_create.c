/* SPDX-License-Identifier: MIT */
/*
 * Making a qcow2 image: header, refcount table, refcount blocks and L1 table one behind the other,
 * then a flush. Preallocation goes through the opened image, so it uses the same code as a guest's
 * writes.
 */
#include "block/path.h"
#include "block/qcow2.h"
#include <inttypes.h>
#include <string.h>

enum { PREALLOC_CACHE_BYTES = 2 << 20 };

struct create_options {
	uint64_t size;
	unsigned version, cluster_bits, refcount_order;
	bool lazy_refcounts, zstd, extended, data_raw;
	int preallocation;
	const char *backing_file, *backing_format, *data_file;
	struct file_layout layout;
};

static int refuse_encryption(const struct opts *opts, struct error *err)
{
	for (size_t i = 0; i < opts->count; i++)
		if (strncmp(opts->item[i].key, "encrypt.", 8) == 0)
			return error_set(err, ENOTSUP,
					 "'%s': encrypted qcow2 images are not supported",
					 opts->item[i].key);
	return 0;
}

static int read_options(struct opts *opts, struct create_options *o, struct error *err)
{
	static const char *const compats[] = {"0.10", "v2", "1.1", "v3", NULL};
	static const char *const modes[] = {"off", "metadata", "falloc", "full", NULL};
	static const char *const types[] = {"zlib", "zstd", NULL};
	static const char *const known[] = {"size",
					    "backing_file",
					    "backing_fmt",
					    "cluster_size",
					    "compat",
					    "refcount_bits",
					    "lazy_refcounts",
					    "preallocation",
					    "compression_type",
					    "extended_l2",
					    "encryption",
					    "data_file",
					    "data_file_raw",
					    "nocow",
					    "extent_size_hint",
					    NULL};
	uint64_t cluster = 65536, bits = 16;
	int compat = 2, type = 0, rc;
	bool encryption = false;
	if ((rc = file_layout_read(opts, &o->layout, err)))
		return rc;
	if (!opts) {
		o->version = 3;
		o->cluster_bits = 16;
		o->refcount_order = 4;
		return 0;
	}
	opts_get(opts, "size");
	o->backing_file = opts_get(opts, "backing_file");
	o->backing_format = opts_get(opts, "backing_fmt");
	o->data_file = opts_get(opts, "data_file");
	if ((rc = opts_get_size(opts, "cluster_size", &cluster, err)) ||
	    (rc = opts_get_enum(opts, "compat", compats, &compat, err)) ||
	    (rc = opts_get_u64(opts, "refcount_bits", &bits, err)) ||
	    (rc = opts_get_bool(opts, "lazy_refcounts", &o->lazy_refcounts, err)) ||
	    (rc = opts_get_enum(opts, "preallocation", modes, &o->preallocation, err)) ||
	    (rc = opts_get_enum(opts, "compression_type", types, &type, err)) ||
	    (rc = opts_get_bool(opts, "extended_l2", &o->extended, err)) ||
	    (rc = opts_get_bool(opts, "data_file_raw", &o->data_raw, err)) ||
	    (rc = opts_get_bool(opts, "encryption", &encryption, err)) ||
	    (rc = refuse_encryption(opts, err)) ||
	    (rc = opts_check_unused(opts, "qcow2", known, err)))
		return rc;
	if (encryption)
		return error_set(err, ENOTSUP, "'encryption' is not supported for qcow2 images");
	if (!is_power_of_2(cluster) || cluster < 512 || cluster > 2 * MIB)
		return error_set(err, EINVAL,
				 "'cluster_size' must be a power of two between 512 and 2M");
	if (!is_power_of_2(bits) || bits > 64)
		return error_set(err, EINVAL,
				 "'refcount_bits' must be a power of two and not more than 64");
	o->version = compat < 2 ? 2 : 3;
	if (o->version == 2 &&
	    (bits != 16 || o->lazy_refcounts || type || o->extended || o->data_file || o->data_raw))
		return error_set(err, EINVAL, "'%s' needs compat=1.1",
				 bits != 16          ? "refcount_bits"
				 : o->lazy_refcounts ? "lazy_refcounts"
				 : type              ? "compression_type=zstd"
				 : o->extended       ? "extended_l2"
				 : o->data_file      ? "data_file"
						     : "data_file_raw");
	if (o->extended && cluster < UINT64_C(1) << MIN_EXTENDED_CLUSTER_BITS)
		return error_set(err, EINVAL,
				 "'extended_l2' needs a 'cluster_size' of at least 16k");
	if (o->data_raw && !o->data_file)
		return error_set(err, EINVAL, "'data_file_raw' needs 'data_file'");
	if (o->data_raw && o->backing_file)
		return error_set(err, EINVAL,
				 "'data_file_raw' does not go together with a backing file");
	if (o->data_raw && o->preallocation == PREALLOC_OFF)
		o->preallocation = PREALLOC_METADATA;
	if (!qcow2_compression_known((unsigned)type))
		return error_set(err, ENOTSUP, "'compression_type' zstd is not in this build");
	o->zstd = type;
	o->cluster_bits = (unsigned)__builtin_ctzll(cluster);
	o->refcount_order = (unsigned)__builtin_ctzll(bits);
	return 0;
}

int qcow2_read_shape(struct opts *opts, struct qcow2_shape *shape, struct error *err)
{
	struct create_options o = {0};
	int rc = read_options(opts, &o, err);
	*shape = (struct qcow2_shape){.cluster_size = UINT64_C(1) << o.cluster_bits,
				      .refcount_bits = UINT64_C(1) << o.refcount_order,
				      .extended = o.extended,
				      .version = o.version,
				      .preallocated = o.preallocation >= PREALLOC_FALLOC};
	return rc;
}

/* The header cluster; -ENAMETOOLONG if a name does not fit. */
static int build_header(const struct create_options *o, uint8_t *b, uint64_t reftable,
			uint64_t reftable_clusters, uint64_t l1, uint64_t l1_size)
{
	struct qcow2 q = {
		.h = {.version = o->version,
		      .cluster_bits = o->cluster_bits,
		      .size = o->size,
		      .l1_size = (uint32_t)l1_size,
		      .l1_offset = l1,
		      .reftable_offset = reftable,
		      .reftable_clusters = (uint32_t)reftable_clusters,
		      .refcount_order = o->refcount_order,
		      .incompatible = (o->zstd ? INCOMPAT_COMPRESSION : 0) |
				      (o->extended ? INCOMPAT_EXTENDED_L2 : 0) |
				      (o->data_file ? INCOMPAT_DATA_FILE : 0),
		      .compatible = o->lazy_refcounts ? COMPAT_LAZY_REFCOUNTS : 0,
		      .autoclear = o->data_raw ? AUTOCLEAR_DATA_RAW : 0,
		      .compression = o->zstd},
		.backing_file = (char *)o->backing_file,
		.backing_format = (char *)o->backing_format,
		.data_name = (char *)o->data_file,
	};
	int rc = qcow2_layout_header(&q, b);
	return rc < 0 ? rc : 0;
}

/* Header, refcount table, blocks and L1 table of an image without data. */
static int write_empty(struct file_layer *f, const struct create_options *o, const char *path,
		       struct error *err)
{
	uint64_t cluster = UINT64_C(1) << o->cluster_bits;
	uint64_t l1_size = div_round_up(o->size, cluster / (o->extended ? 16 : 8) * cluster);
	uint64_t rb_entries = cluster * 8 >> o->refcount_order;
	if (l1_size > MAX_L1_BYTES / 8)
		return error_set(err, EFBIG,
				 "cannot create '%s': %" PRIu64
				 " bytes are too many for clusters of %" PRIu64
				 "; use a larger cluster_size",
				 path, o->size, cluster);
	uint64_t l1_clusters = div_round_up(l1_size * 8, cluster);
	uint64_t blocks = 0, table = 0, total;
	do {
		total = 1 + table + blocks + l1_clusters;
		blocks = div_round_up(total, rb_entries);
		table = div_round_up(blocks * 8, cluster);
	} while (1 + table + blocks + l1_clusters != total);

	size_t head_bytes = (size_t)(1 + table + blocks) << o->cluster_bits;
	uint8_t *b = calloc(1, head_bytes);
	if (!b)
		return error_errno(err, ENOMEM, "cannot create '%s'", path);
	int rc = build_header(o, b, cluster, table,
			      l1_size ? (1 + table + blocks) << o->cluster_bits : 0, l1_size);
	if (rc) {
		free(b);
		return error_set(err, -rc,
				 "cannot create '%s': the names of its backing and data files are "
				 "too long for the header",
				 path);
	}
	for (uint64_t i = 0; i < blocks; i++)
		store_be64(b + cluster + i * 8, (1 + table + i) << o->cluster_bits);
	for (uint64_t i = 0; i < total; i++)
		qcow2_refcount_put(b + ((1 + table + i / rb_entries) << o->cluster_bits),
				   o->refcount_order, i % rb_entries, 1);
	/* The L1 table is all zeroes, which a longer file reads as. */
	rc = file_truncate(f, 0);
	if (!rc)
		file_set_layout(f, &o->layout);
	if (!rc || rc == -ENOSPC) /* a block device keeps its size */
		rc = file_truncate(f, total << o->cluster_bits);
	if (!rc)
		rc = file_pwrite(f, b, head_bytes, 0);
	if (!rc)
		rc = file_write_zeroes(f, head_bytes, l1_clusters << o->cluster_bits, true);
	free(b);
	return rc ? error_errno(err, -rc, "cannot create '%s'", path) : 0;
}

/* One L2 table's worth of clusters. Lock held. */
static int preallocate_some(struct qcow2 *q, uint64_t guest, uint64_t count, int mode)
{
	struct qcow2_table *l2;
	/* The table first: then the data clusters of all tables but one adjoin. */
	int rc = qcow2_get_l2(q, guest, true, &l2);
	uint32_t index = qcow2_l2_index(q, guest);
	for (uint64_t i = 0; i < count && !rc;) {
		struct qcow2_entry e = qcow2_l2_entry(q, l2, index + (uint32_t)i);
		uint64_t n = 0;
		if (e.entry) {
			i++;
			continue;
		}
		while (i + n < count && !qcow2_l2_entry(q, l2, index + (uint32_t)(i + n)).entry)
			n++;
		int64_t at = q->external ? (int64_t)(guest + (i << q->h.cluster_bits))
					 : qcow2_alloc_clusters(q, n);
		if (at < 0)
			return (int)at;
		if (mode == PREALLOC_FALLOC || mode == PREALLOC_FULL)
			rc = file_allocate(q->data, (uint64_t)at, n << q->h.cluster_bits);
		for (; n && !rc; n--, i++, at += q->cluster_size) {
			e.entry = (uint64_t)at | ENTRY_COPIED;
			/* Subclusters stay unallocated: they have a place, but no data yet. */
			qcow2_set_l2_entry(q, l2, index + (uint32_t)i, e);
		}
	}
	return rc;
}

int qcow2_preallocate(struct qcow2 *q, uint64_t from, uint64_t to, int mode)
{
	uint64_t table = (uint64_t)q->cluster_size << q->l2_bits;
	int rc = 0;
	from = round_up(from, q->cluster_size);
	pthread_rwlock_wrlock(&q->ops);
	pthread_mutex_lock(&q->lock);
	/* Tables that are filled are not needed again soon. */
	unsigned max = q->l2_cache.max, few = PREALLOC_CACHE_BYTES >> q->h.cluster_bits;
	if (max > few)
		q->l2_cache.max = few ? few : 1;
	for (uint64_t at = from; at < to && !rc;) {
		uint64_t stop = round_down(at, table) + table;
		if (stop > to)
			stop = to;
		rc = preallocate_some(q, at, qcow2_clusters(q, stop - at), mode);
		at = stop;
	}
	if (!rc)
		rc = qcow2_settle(q);
	q->l2_cache.max = max;
	/* The file covers the last cluster too. */
	if (!rc && file_size(q->img->file) < (int64_t)q->high_water)
		rc = file_truncate(q->img->file, q->high_water);
	pthread_mutex_unlock(&q->lock);
	pthread_rwlock_unlock(&q->ops);
	if (!rc && mode == PREALLOC_FULL) {
		static const uint8_t zeroes[65536];
		for (uint64_t at = from; at < to && !rc; at += sizeof(zeroes)) {
			struct iovec iov = {(void *)zeroes, to - at < sizeof(zeroes)
								    ? (size_t)(to - at)
								    : sizeof(zeroes)};
			rc = qcow2_pwritev(q->img, &iov, 1, at);
		}
		if (!rc)
			rc = qcow2_flush(q->img);
	}
	return rc;
}

static int preallocate(const char *path, const struct create_options *o, struct error *err)
{
	struct image *img = image_open(path, "qcow2", IMAGE_WRITABLE | IMAGE_NO_BACKING, NULL, err);
	if (!img)
		return -(err && err->code ? err->code : EIO);
	int rc = qcow2_preallocate(qcow2_of(img), 0, o->size, o->preallocation);
	image_close(img);
	return rc ? error_errno(err, -rc, "cannot preallocate '%s'", path) : 0;
}

/* The external data file, empty and as long as the disk. */
static int create_data_file(const char *path, const struct create_options *o, struct error *err)
{
	/* From the working folder, as QEMU has it. */
	const char *name = o->data_file;
	char *host = path_of_name(name, NULL, err);
	struct file_open_args a = {.path = host,
				   .name = name,
				   .flags = IMAGE_WRITABLE,
				   .create = true,
				   .perms = PERM_WRITE | PERM_RESIZE,
				   .unshared = PERM_WRITE | PERM_RESIZE};
	struct file_layer *f = host ? file_open(&a, err) : NULL;
	int rc = f ? 0 : -(err && err->code ? err->code : EIO);
	if (f) {
		rc = file_truncate(f, 0);
		if (!rc)
			file_set_layout(f, &o->layout);
		if (!rc || rc == -ENOSPC) /* a block device keeps its size */
			rc = file_truncate(f, o->size);
		if (rc)
			error_errno(err, -rc, "cannot create '%s' (data file of '%s')", name, path);
	}
	file_close(f);
	free(host);
	return rc;
}

int qcow2_create(const char *path, uint64_t size, struct opts *opts, struct error *err)
{
	struct create_options o = {.size = size};
	int rc = read_options(opts, &o, err);
	if (rc)
		return error_prefix(err, "cannot create '%s'", path), rc;
	if (size > INT64_MAX - 511)
		return error_set(err, EFBIG, "cannot create '%s': the size is too large", path);
	o.size = round_up(size, 512);
	if (o.backing_format && !o.backing_file)
		return error_set(err, EINVAL,
				 "cannot create '%s': a backing format needs a backing file", path);
	if (o.backing_file && o.preallocation != PREALLOC_OFF && !o.extended)
		return error_set(err, EINVAL,
				 "cannot create '%s': with a backing file, preallocation needs "
				 "extended_l2=on",
				 path);
	if (o.backing_file && o.preallocation == PREALLOC_FULL)
		return error_set(err, EINVAL,
				 "cannot create '%s': preallocation=full would hide its backing "
				 "file",
				 path);
	if (o.data_file && (rc = create_data_file(path, &o, err)))
		return rc;
	struct file_open_args a = {.path = path,
				   .flags = IMAGE_WRITABLE,
				   .create = true,
				   .perms = PERM_WRITE | PERM_RESIZE,
				   .unshared = PERM_WRITE | PERM_RESIZE};
	struct file_layer *f = file_open(&a, err);
	if (!f)
		return -(err && err->code ? err->code : EIO);
	rc = write_empty(f, &o, path, err);
	file_close(f);
	if (!rc && o.preallocation != PREALLOC_OFF)
		rc = preallocate(path, &o, err);
	return rc;
}
