/* SPDX-License-Identifier: MIT */
/*
 * The qcow2 driver: opening, closing, information. qcow2.h explains threads and the order of
 * writes; the other qcow2_*.c files hold one idea each.
 *
 * Left out, and refused by name: external data files, extended L2 entries (subclusters),
 * encryption. Dirty bitmaps are not kept up to date, so their autoclear bit is cleared on the first
 * opening for writing, as the specification asks. Refcounts are always written in time, which the
 * lazy_refcounts bit allows.
 */
#include "block/qcow2.h"
#include "block/path.h"
#include <inttypes.h>
#include <string.h>

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
	list_init(&q->allocs);
}

static void release(struct qcow2 *q)
{
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
	if (q->h.autoclear) {
		rc = qcow2_header_set64(q, H_AUTOCLEAR, 0);
		if (rc)
			return error_errno(err, -rc, "its header cannot be written");
		q->h.autoclear = 0;
	}
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

static int qcow2_open(struct image *img, struct opts *opts, struct error *err)
{
	struct qcow2 *q = qcow2_of(img);
	q->img = img;
	init_locks(q);
	int rc = qcow2_read_header(q, err);
	if (rc)
		goto fail;
	q->cluster_size = 1u << q->h.cluster_bits;
	q->l2_entries = q->cluster_size / 8;
	q->l2_bits = q->h.cluster_bits - 3;
	q->rb_entries = (q->cluster_size * 8) >> q->h.refcount_order;
	q->max_refcount = q->h.refcount_order == 6
				  ? UINT64_MAX
				  : (UINT64_C(1) << (1u << q->h.refcount_order)) - 1;
	img->size = q->h.size;
	unsigned max_l2 = L2_CACHE_BYTES >> q->h.cluster_bits;
	if (max_l2 > q->h.l1_size + 1)
		max_l2 = q->h.l1_size + 1;
	unsigned max_rb = REFCOUNT_CACHE_BYTES >> q->h.cluster_bits;
	qcow2_cache_init(&q->l2_cache, img->file, q->cluster_size,
			 max_l2 < MIN_TABLES ? MIN_TABLES : max_l2);
	qcow2_cache_init(&q->rb_cache, img->file, q->cluster_size,
			 max_rb < MIN_TABLES ? MIN_TABLES : max_rb);
	int64_t size = file_size(img->file);
	q->high_water = size > 0 ? (uint64_t)size : 0;
	rc = load_l1(q, err);
	if (rc)
		goto fail;
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
	if (q->backing_file)
		info->backing_path = path_combine(img->path, q->backing_file);
	info->dirty = q->h.incompatible & INCOMPAT_DIRTY;
	info->corrupt = q->h.incompatible & INCOMPAT_CORRUPT;
	info->encrypted = q->h.crypt_method != 0;
	info->compat = q->h.version >= 3 ? "1.1" : "0.10";
	info->compression_type = qcow2_compression_name(q->h.compression);
	info->refcount_bits = 1u << q->h.refcount_order;
	info->lazy_refcounts = q->h.compatible & COMPAT_LAZY_REFCOUNTS;
	info->extended_l2 = q->h.incompatible & INCOMPAT_EXTENDED_L2;
	info_snapshots(q, info);
	return 0;
}

const struct image_driver qcow2_driver = {
	.name = "qcow2",
	.state_size = sizeof(struct qcow2),
	.probe = qcow2_probe,
	.open = qcow2_open,
	.close = qcow2_close,
	.preadv = qcow2_preadv,
	.pwritev = qcow2_pwritev,
	.flush = qcow2_flush,
	.discard = qcow2_discard,
	.write_zeroes = qcow2_write_zeroes,
	.block_status = qcow2_block_status,
	.truncate = qcow2_truncate,
	.info = qcow2_info,
	.check = qcow2_check,
	.create = qcow2_create,
	.snapshot_create = qcow2_snapshot_create,
	.snapshot_apply = qcow2_snapshot_apply,
	.snapshot_delete = qcow2_snapshot_delete,
};
