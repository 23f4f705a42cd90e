/* SPDX-License-Identifier: MIT */
/*
 * The qcow2 driver: opening, closing, information. qcow2.h explains threads and the order of
 * writes; the other qcow2_*.c files hold one idea each.
 *
 * Left out, and refused by name: encryption. Refcounts are always written in time, which the
 * lazy_refcounts bit allows: new data has to be synced before its L2 entry as well, and the same
 * sync covers both.
 */
#include "block/qcow2.h"
#include "block/path.h"
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

enum { L2_CACHE_BYTES = 32 << 20, REFCOUNT_CACHE_BYTES = 1 << 20, MIN_TABLES = 8 };

static int qcow2_probe(const uint8_t *head, size_t len, const char *path)
{
	/* "QFI\xfb" with version 1 is the older qcow, a format of its own. */
	return len >= 8 && load_be32(head) == QCOW2_MAGIC && load_be32(head + 4) >= 2 ? 100 : 0;
}

static int load_l1(struct qcow2 *q, struct error *err)
{
	size_t bytes = (size_t)q->h.l1_size * 8;
	uint8_t *raw = malloc(bytes ? bytes : 1);
	int rc = raw ? file_pread(q->img->file, raw, bytes, q->h.l1_offset) : -ENOMEM;
	if (rc) {
		free(raw);
		return error_errno(err, -rc, "its L1 table cannot be read");
	}
	q->l1 = (uint64_t *)raw;
	for (uint32_t i = 0; i < q->h.l1_size; i++)
		q->l1[i] = load_be64(raw + (size_t)i * 8);
	return 0;
}

static void init_locks(struct qcow2 *q)
{
	/* Writers first: a stream of transfers must not keep a discard waiting for ever. */
	pthread_rwlockattr_t attr;
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&q->ops, &attr);
	pthread_rwlockattr_destroy(&attr);
	pthread_mutex_init(&q->lock, NULL);
	pthread_mutex_init(&q->decompress_lock, NULL);
	pthread_cond_init(&q->alloc_done, NULL);
	pthread_cond_init(&q->flushed, NULL);
	list_init(&q->allocs);
}

static void release(struct qcow2 *q)
{
	qcow2_free_bitmaps(q);
	qcow2_cache_fini(&q->l2_cache);
	qcow2_cache_fini(&q->rb_cache);
	for (int i = 0; i < QCOW2_DECOMPRESSED; i++)
		free(q->decompressed[i].data);
	free(q->tables.slot);
	free(q->frees);
	free(q->l1);
	free(q->reftable);
	free(q->backing_file);
	free(q->backing_format);
	free(q->data_name);
	for (size_t i = 0; i < q->ext_count; i++)
		free(q->ext[i].data);
	free(q->ext);
	if (q->data != q->img->file)
		file_close(q->data);
	pthread_cond_destroy(&q->flushed);
	pthread_rwlock_destroy(&q->ops);
	pthread_mutex_destroy(&q->lock);
	pthread_mutex_destroy(&q->decompress_lock);
	pthread_cond_destroy(&q->alloc_done);
}

/* What an opening for writing needs beyond reading. */
static int prepare_writing(struct qcow2 *q, struct error *err)
{
	int rc = qcow2_load_reftable(q, err);
	if (rc)
		return rc;
	for (uint32_t i = 0; i < q->h.l1_size; i++)
		if (q->l1[i] & ENTRY_OFFSET)
			qcow2_set_add(&q->tables, (q->l1[i] & ENTRY_OFFSET) >> q->h.cluster_bits);
	if (q->img->flags & IMAGE_CHECK)
		return 0;
	/* Bits that are not known here stand for data that this writer will not keep right. */
	uint64_t kept = q->h.autoclear & ((q->external ? AUTOCLEAR_DATA_RAW : 0) |
					  (q->bitmaps ? AUTOCLEAR_BITMAPS : 0));
	if (q->h.autoclear != kept) {
		rc = qcow2_header_set64(q, H_AUTOCLEAR, kept);
		if (rc)
			return error_errno(err, -rc, "its header cannot be written");
		q->h.autoclear = kept;
	}
	rc = qcow2_start_bitmaps(q);
	if (rc)
		return error_errno(err, -rc, "its bitmaps cannot be written");
	if (q->h.incompatible & INCOMPAT_DIRTY) {
		struct image_check result = {0};
		warn("'%s' was not closed properly; its refcounts are being repaired",
		     q->img->path);
		rc = qcow2_check_locked(q, IMAGE_FIX_LEAKS | IMAGE_FIX_ERRORS, &result, err);
		if (!rc && (result.corruptions || result.check_errors))
			rc = error_set(err, EIO,
				       "it was not closed properly and could not be repaired; try "
				       "'minivm-img check -r all'");
	}
	return rc;
}

/* Sizes that follow from the header. */
static void derive(struct qcow2 *q)
{
	q->cluster_size = 1u << q->h.cluster_bits;
	q->extended = q->h.incompatible & INCOMPAT_EXTENDED_L2;
	q->subs = q->extended ? SUBCLUSTERS : 1;
	q->sub_bits = q->extended ? q->h.cluster_bits - 5 : q->h.cluster_bits;
	q->sub_size = 1u << q->sub_bits;
	q->l2_bits = q->h.cluster_bits - qcow2_entry_bits(q);
	q->l2_entries = 1u << q->l2_bits;
	q->rb_entries = (q->cluster_size * 8) >> q->h.refcount_order;
	q->max_refcount = q->h.refcount_order == 6
				  ? UINT64_MAX
				  : (UINT64_C(1) << (1u << q->h.refcount_order)) - 1;
}

/* The tables that each cache may hold: cache-size, l2-cache-size and refcount-cache-size, in
 * bytes. Without them the L2 cache covers the whole disk, up to 32 MiB. */
static int init_caches(struct qcow2 *q, struct opts *opts, struct error *err)
{
	uint64_t total = 0, l2 = L2_CACHE_BYTES, refs = REFCOUNT_CACHE_BYTES;
	if (opts) {
		bool has_total = opts_has(opts, "cache-size"),
		     has_l2 = opts_has(opts, "l2-cache-size");
		bool has_refs = opts_has(opts, "refcount-cache-size");
		int rc = opts_get_size(opts, "cache-size", &total, err);
		if (!rc)
			rc = opts_get_size(opts, "l2-cache-size", &l2, err);
		if (!rc)
			rc = opts_get_size(opts, "refcount-cache-size", &refs, err);
		if (rc)
			return rc;
		if (has_total && ((has_l2 && l2 > total) || (has_refs && refs > total) ||
				  (has_l2 && has_refs && l2 + refs != total)))
			return error_set(err, EINVAL,
					 "cache-size must be the sum of l2-cache-size and "
					 "refcount-cache-size");
		if (has_total && has_refs && !has_l2)
			l2 = total - refs;
		else if (has_total && !has_refs)
			refs = total - (has_l2 ? l2 : (l2 = total - total / 5));
	}
	uint64_t max_l2 = l2 >> q->h.cluster_bits, max_rb = refs >> q->h.cluster_bits;
	if (max_l2 > q->h.l1_size + UINT64_C(1))
		max_l2 = q->h.l1_size + UINT64_C(1);
	if (max_rb > MAX_REFTABLE_BYTES / 8)
		max_rb = MAX_REFTABLE_BYTES / 8;
	qcow2_cache_init(&q->l2_cache, q->img->file, q->cluster_size,
			 max_l2 < MIN_TABLES ? MIN_TABLES : (unsigned)max_l2);
	qcow2_cache_init(&q->rb_cache, q->img->file, q->cluster_size,
			 max_rb < MIN_TABLES ? MIN_TABLES : (unsigned)max_rb);
	return 0;
}

/* The file that holds the guest's data, where that is not the image itself. The option data-file
 * overrides the name in the header. */
static int open_data_file(struct qcow2 *q, struct opts *opts, struct error *err)
{
	struct image *img = q->img;
	const char *name = opts ? opts_get(opts, "data-file") : NULL;
	q->data = img->file;
	q->external = q->h.incompatible & INCOMPAT_DATA_FILE;
	q->data_raw = q->external && (q->h.autoclear & AUTOCLEAR_DATA_RAW);
	if (!q->external)
		return name ? error_set(err, EINVAL,
					"it has no external data file, but data-file is given")
			    : 0;
	if (img->flags & IMAGE_CHECK && !name && !q->data_name)
		return 0;
	if (!name && !q->data_name)
		return error_set(err, EINVAL,
				 "its data is in an external file whose name it does not say; give "
				 "it as data-file");
	/* QEMU looks for it from the working folder; the image's own folder comes second. */
	char *path = xstrdup(name ? name : q->data_name);
	char *host = path_of_name(path, NULL, err);
	if (host && !name && access(host, F_OK) < 0 && !path_is_absolute(path)) {
		free(host);
		free(path);
		path = path_combine(img->path, q->data_name);
		host = path_of_name(path, NULL, err);
	}
	char *role = xasprintf(" (data file of '%s')", img->path);
	unsigned unshared = PERM_WRITE;
	if (!image_writable(img))
		unshared |= PERM_RESIZE;
	struct file_open_args a = {
		.path = host,
		.name = path,
		.role = role,
		.flags = img->flags,
		.perms =
			PERM_CONSISTENT_READ | (image_writable(img) ? PERM_WRITE | PERM_RESIZE : 0),
		.unshared = unshared,
	};
	struct file_layer *f = host ? file_open(&a, err) : NULL;
	free(role);
	free(host);
	if (f)
		img->data_path = path;
	else
		free(path);
	if (!f)
		return -(err && err->code ? err->code : EIO);
	q->data = f;
	return 0;
}

static int qcow2_open(struct image *img, struct opts *opts, struct error *err)
{
	struct qcow2 *q = qcow2_of(img);
	q->img = img;
	q->data = img->file;
	init_locks(q);
	int rc = qcow2_read_header(q, err);
	if (rc)
		goto fail;
	derive(q);
	img->size = q->h.size;
	rc = init_caches(q, opts, err);
	if (!rc)
		rc = open_data_file(q, opts, err);
	if (rc)
		goto fail;
	int64_t size = file_size(img->file);
	q->high_water = size > 0 ? (uint64_t)size : 0;
	rc = load_l1(q, err);
	if (rc)
		goto fail;
	struct error bitmap_error = ERROR_INIT;
	if (qcow2_load_bitmaps(q, &bitmap_error))
		warn("'%s': %s", img->path, bitmap_error.text);
	bool writable = image_writable(img);
	if ((q->h.incompatible & INCOMPAT_CORRUPT) && writable && !(img->flags & IMAGE_CHECK)) {
		rc = error_set(
			err, EACCES,
			"it is marked as corrupt and cannot be opened for writing; repair it "
			"with 'minivm-img check -r all'");
		goto fail;
	}
	if (writable)
		rc = prepare_writing(q, err);
	if (rc)
		goto fail;
	trace(TRACE_QCOW2, "open '%s': version %" PRIu32 ", size %" PRIu64 ", clusters of %" PRIu32,
	      img->path, q->h.version, img->size, q->cluster_size);
	return 0;
fail:
	release(q);
	return rc;
}

static void qcow2_close(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	if (image_writable(img) && !q->failed) {
		int rc = qcow2_settle(q);
		if (!rc)
			rc = qcow2_store_bitmaps(q);
		if (!rc)
			rc = qcow2_cache_write(&q->rb_cache); /* the clusters that were freed */
		if (rc)
			warn("'%s': writing its tables failed: %s", img->path, strerror(-rc));
	}
	release(q);
}

/* A damaged snapshot table only leaves the list empty: the disk itself may be sound. */
static void info_snapshots(struct qcow2 *q, struct image_info *info)
{
	struct qcow2_snapshot *list;
	uint64_t bytes;
	if (!q->h.nb_snapshots || qcow2_read_snapshots(q, &list, &bytes, NULL))
		return;
	info->snapshot_count = q->h.nb_snapshots;
	info->snapshots = xcalloc(info->snapshot_count, sizeof(*info->snapshots));
	for (size_t i = 0; i < info->snapshot_count; i++) {
		info->snapshots[i] = (struct image_snapshot_info){
			.id = xstrdup(list[i].id),
			.name = xstrdup(list[i].name),
			.vm_state_size = list[i].vm_state_size,
			.disk_size = list[i].disk_size,
			.vm_clock_ns = list[i].vm_clock_ns,
			.icount = list[i].extra_size >= 24 ? load_be64(list[i].extra + 16)
							   : UINT64_MAX,
			.date_sec = list[i].date_sec,
			.date_nsec = list[i].date_nsec,
		};
	}
	qcow2_free_snapshots(list, info->snapshot_count);
}

static int qcow2_info(struct image *img, struct image_info *info)
{
	struct qcow2 *q = qcow2_of(img);
	info->cluster_size = q->cluster_size;
	info->backing_file = q->backing_file ? xstrdup(q->backing_file) : NULL;
	info->backing_format =
		q->backing_file && q->backing_format ? xstrdup(q->backing_format) : NULL;
	/* Names of exports are no paths: nothing is relative to one. */
	if (q->backing_file && (path_is_absolute(q->backing_file) || !file_remote_name(img->file)))
		info->backing_path = path_combine(img->path, q->backing_file);
	info->dirty = q->h.incompatible & INCOMPAT_DIRTY;
	info->corrupt = q->h.incompatible & INCOMPAT_CORRUPT;
	info->encrypted = q->h.crypt_method != 0;
	info->compat = q->h.version >= 3 ? "1.1" : "0.10";
	info->compression_type = qcow2_compression_name(q->h.compression);
	info->refcount_bits = 1u << q->h.refcount_order;
	info->lazy_refcounts = q->h.compatible & COMPAT_LAZY_REFCOUNTS;
	info->extended_l2 = q->extended;
	info->data_file = q->data_name ? xstrdup(q->data_name) : NULL;
	info->data_file_raw = q->h.autoclear & AUTOCLEAR_DATA_RAW;
	info->external_data = q->external;
	qcow2_info_bitmaps(q, info);
	info_snapshots(q, info);
	return 0;
}

static int qcow2_preallocate_named(struct image *img, uint64_t from, uint64_t to, const char *mode,
				   struct error *err)
{
	int m = strcmp(mode, "metadata") == 0 ? PREALLOC_METADATA
		: strcmp(mode, "falloc") == 0 ? PREALLOC_FALLOC
		: strcmp(mode, "full") == 0   ? PREALLOC_FULL
					      : -1;
	if (m < 0)
		return error_set(err, EINVAL, "unknown preallocation '%s'", mode);
	int rc = qcow2_preallocate(qcow2_of(img), from, to, m);
	return rc ? error_errno(err, -rc, "cannot preallocate '%s'", img->path) : 0;
}

const struct image_driver qcow2_driver = {
	.name = "qcow2",
	.state_size = sizeof(struct qcow2),
	.probe = qcow2_probe,
	.open = qcow2_open,
	.close = qcow2_close,
	.preadv = qcow2_preadv,
	.pwritev = qcow2_pwritev,
	.write_compressed = qcow2_write_compressed,
	.flush = qcow2_flush,
	.discard = qcow2_discard,
	.write_zeroes = qcow2_write_zeroes,
	.write_zeroes_fast = qcow2_write_zeroes_fast,
	.block_status = qcow2_block_status,
	.truncate = qcow2_truncate,
	.info = qcow2_info,
	.check = qcow2_check,
	.create = qcow2_create,
	.snapshot_create = qcow2_snapshot_create,
	.snapshot_save = qcow2_snapshot_save,
	.vm_state_pwrite = qcow2_vm_state_pwrite,
	.vm_state_pread = qcow2_vm_state_pread,
	.snapshot_apply = qcow2_snapshot_apply,
	.snapshot_delete = qcow2_snapshot_delete,
	.snapshot_load = qcow2_snapshot_load,
	.bitmap_open = qcow2_bitmap_open,
	.bitmap_edit = qcow2_bitmap_edit,
	.bitmap_status = qcow2_bitmap_status,
	.change_backing = qcow2_change_backing,
	.make_empty = qcow2_make_empty,
	.preallocate = qcow2_preallocate_named,
	.amend = qcow2_amend,
	.measure = qcow2_measure,
};
