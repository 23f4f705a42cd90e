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

enum prealloc { PREALLOC_OFF, PREALLOC_METADATA, PREALLOC_FALLOC, PREALLOC_FULL };

struct create_options {
	uint64_t size;
	unsigned version, cluster_bits, refcount_order;
	bool lazy_refcounts, zstd;
	int preallocation;
	const char *backing_file, *backing_format;
};

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
					    "nocow",
					    NULL};
	uint64_t cluster = 65536, bits = 16;
	int compat = 2, type = 0, rc;
	bool extended = false, encryption = false, nocow = false;
	if (!opts) {
		o->version = 3;
		o->cluster_bits = 16;
		o->refcount_order = 4;
		return 0;
	}
	opts_get(opts, "size");
	o->backing_file = opts_get(opts, "backing_file");
	o->backing_format = opts_get(opts, "backing_fmt");
	const char *data_file = opts_get(opts, "data_file");
	if ((rc = opts_get_size(opts, "cluster_size", &cluster, err)) ||
	    (rc = opts_get_enum(opts, "compat", compats, &compat, err)) ||
	    (rc = opts_get_u64(opts, "refcount_bits", &bits, err)) ||
	    (rc = opts_get_bool(opts, "lazy_refcounts", &o->lazy_refcounts, err)) ||
	    (rc = opts_get_enum(opts, "preallocation", modes, &o->preallocation, err)) ||
	    (rc = opts_get_enum(opts, "compression_type", types, &type, err)) ||
	    (rc = opts_get_bool(opts, "extended_l2", &extended, err)) ||
	    (rc = opts_get_bool(opts, "encryption", &encryption, err)) ||
	    (rc = opts_get_bool(opts, "nocow", &nocow, err)) ||
	    (rc = opts_check_unused(opts, "qcow2", known, err)))
		return rc;
	if (extended || encryption || data_file || nocow)
		return error_set(err, ENOTSUP, "'%s' is not supported for qcow2 images",
				 extended     ? "extended_l2"
				 : encryption ? "encryption"
				 : data_file  ? "data_file"
					      : "nocow");
	if (!is_power_of_2(cluster) || cluster < 512 || cluster > 2 * MIB)
		return error_set(err, EINVAL,
				 "'cluster_size' must be a power of two between 512 and 2M");
	if (!is_power_of_2(bits) || bits > 64)
		return error_set(err, EINVAL,
				 "'refcount_bits' must be a power of two and not more than 64");
	o->version = compat < 2 ? 2 : 3;
	if (o->version == 2 && (bits != 16 || o->lazy_refcounts || type))
		return error_set(err, EINVAL, "'%s' needs compat=1.1",
				 bits != 16          ? "refcount_bits"
				 : o->lazy_refcounts ? "lazy_refcounts"
						     : "compression_type=zstd");
	if (!qcow2_compression_known((unsigned)type))
		return error_set(err, ENOTSUP, "'compression_type' zstd is not in this build");
	o->zstd = type;
	o->cluster_bits = (unsigned)__builtin_ctzll(cluster);
	o->refcount_order = (unsigned)__builtin_ctzll(bits);
	return 0;
}

/* Spec, "Feature name table". */
static const struct {
	uint8_t type, bit;
	const char *name;
} features[] = {
	{0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
	{0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
	{2, 0, "bitmaps"},          {2, 1, "raw external data"},
};

/* The header cluster; -EINVAL if the backing file's name does not fit. */
static int build_header(const struct create_options *o, uint8_t *b, uint64_t reftable,
			uint64_t reftable_clusters, uint64_t l1, uint64_t l1_size)
{
	size_t cluster = (size_t)1 << o->cluster_bits, at = H_V2_LENGTH;
	store_be32(b + H_MAGIC, QCOW2_MAGIC);
	store_be32(b + H_VERSION, o->version);
	store_be32(b + H_CLUSTER_BITS, o->cluster_bits);
	store_be64(b + H_SIZE, o->size);
	store_be32(b + H_L1_SIZE, (uint32_t)l1_size);
	store_be64(b + H_L1_OFFSET, l1);
	store_be64(b + H_REFTABLE_OFFSET, reftable);
	store_be32(b + H_REFTABLE_CLUSTERS, (uint32_t)reftable_clusters);
	if (o->version >= 3) {
		at = H_FULL_LENGTH;
		store_be64(b + H_INCOMPATIBLE, o->zstd ? INCOMPAT_COMPRESSION : 0);
		store_be64(b + H_COMPATIBLE, o->lazy_refcounts ? COMPAT_LAZY_REFCOUNTS : 0);
		store_be32(b + H_REFCOUNT_ORDER, o->refcount_order);
		store_be32(b + H_HEADER_LENGTH, (uint32_t)at);
		b[H_COMPRESSION] = o->zstd;
	}
	size_t name_len = o->backing_file ? strlen(o->backing_file) : 0;
	size_t format_len = o->backing_format ? strlen(o->backing_format) : 0;
	size_t table_len = sizeof(features) / sizeof(features[0]) * 48;
	if (name_len > MAX_BACKING_NAME || format_len > 63)
		return -ENAMETOOLONG;
	if (o->backing_format) {
		if (at + 8 + round_up(format_len, 8) + 8 + name_len > cluster)
			return -ENAMETOOLONG;
		store_be32(b + at, EXT_BACKING_FORMAT);
		store_be32(b + at + 4, (uint32_t)format_len);
		memcpy(b + at + 8, o->backing_format, format_len);
		at += 8 + round_up(format_len, 8);
	}
	/* The names only help messages of other programs: left out where the cluster is small. */
	if (o->version >= 3 && at + 8 + table_len + 8 + name_len <= cluster) {
		store_be32(b + at, EXT_FEATURE_NAMES);
		store_be32(b + at + 4, (uint32_t)table_len);
		at += 8;
		for (size_t i = 0; i < ARRAY_SIZE(features); i++, at += 48) {
			b[at] = features[i].type;
			b[at + 1] = features[i].bit;
			memcpy(b + at + 2, features[i].name, strlen(features[i].name));
		}
	}
	at += 8; /* EXT_END: type and length zero */
	if (name_len) {
		if (at + name_len > cluster)
			return -ENAMETOOLONG;
		memcpy(b + at, o->backing_file, name_len);
		store_be64(b + H_BACKING_OFFSET, at);
		store_be32(b + H_BACKING_SIZE, (uint32_t)name_len);
	}
	return 0;
}

/* Header, refcount table, blocks and L1 table of an image without data. */
static int write_empty(struct file_layer *f, const struct create_options *o, const char *path,
		       struct error *err)
{
	uint64_t cluster = UINT64_C(1) << o->cluster_bits;
	uint64_t l1_size = div_round_up(o->size, cluster / 8 * cluster);
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
				 "cannot create '%s': the name of its backing file is too long for "
				 "the header",
				 path);
	}
	for (uint64_t i = 0; i < blocks; i++)
		store_be64(b + cluster + i * 8, (1 + table + i) << o->cluster_bits);
	for (uint64_t i = 0; i < total; i++)
		qcow2_refcount_put(b + ((1 + table + i / rb_entries) << o->cluster_bits),
				   o->refcount_order, i % rb_entries, 1);
	/* The L1 table is all zeroes, which a longer file reads as. */
	rc = file_truncate(f, 0);
	if (!rc || rc == -ENOSPC) /* a block device keeps its size */
		rc = file_truncate(f, total << o->cluster_bits);
	if (!rc)
		rc = file_pwrite(f, b, head_bytes, 0);
	if (!rc)
		rc = file_write_zeroes(f, head_bytes, l1_clusters << o->cluster_bits, true);
	free(b);
	return rc ? error_errno(err, -rc, "cannot create '%s'", path) : 0;
}

/* Gives each guest cluster its host cluster, in order. */
static int preallocate(const char *path, const struct create_options *o, struct error *err)
{
	struct image *img = image_open(path, "qcow2", IMAGE_WRITABLE | IMAGE_NO_BACKING, NULL, err);
	if (!img)
		return -(err && err->code ? err->code : EIO);
	struct qcow2 *q = qcow2_of(img);
	uint64_t clusters = qcow2_clusters(q, o->size);
	int rc = 0;
	pthread_mutex_lock(&q->lock);
	for (uint64_t done = 0; done < clusters && !rc;) {
		uint64_t n = clusters - done < q->l2_entries ? clusters - done : q->l2_entries;
		struct qcow2_table *l2;
		/* The table first: then the data clusters of all tables but one adjoin. */
		rc = qcow2_get_l2(q, done << q->h.cluster_bits, true, &l2);
		int64_t at = rc ? rc : qcow2_alloc_clusters(q, n);
		if (at < 0) {
			rc = (int)at;
			break;
		}
		if (o->preallocation == PREALLOC_FALLOC || o->preallocation == PREALLOC_FULL)
			rc = file_allocate(img->file, (uint64_t)at, n << q->h.cluster_bits);
		for (uint64_t i = 0; i < n && !rc; i++)
			qcow2_set_l2_entry(q, l2, (uint32_t)i,
					   ((uint64_t)at + (i << q->h.cluster_bits)) |
						   ENTRY_COPIED);
		done += n;
	}
	if (!rc)
		rc = qcow2_settle(q);
	/* The file covers the last cluster too. */
	if (!rc && file_size(img->file) < (int64_t)q->high_water)
		rc = file_truncate(img->file, q->high_water);
	pthread_mutex_unlock(&q->lock);
	if (!rc && o->preallocation == PREALLOC_FULL) {
		static const uint8_t zeroes[65536];
		for (uint64_t at = 0; at < o->size && !rc; at += sizeof(zeroes))
			rc = image_pwrite(img, zeroes,
					  o->size - at < sizeof(zeroes) ? (size_t)(o->size - at)
									: sizeof(zeroes),
					  at);
	}
	image_close(img);
	return rc ? error_errno(err, -rc, "cannot preallocate '%s'", path) : 0;
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
	if (o.backing_file && o.preallocation >= PREALLOC_FALLOC)
		return error_set(err, EINVAL,
				 "cannot create '%s': with a backing file only metadata can be "
				 "preallocated",
				 path);
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
