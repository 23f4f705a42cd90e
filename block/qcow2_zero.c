/* SPDX-License-Identifier: MIT */
/*
 * Discard, write_zeroes, block status and resizing.
 *
 * These change what guest clusters refer to without moving data, and hold `ops` exclusively while
 * they do. Version 3 marks a cluster as reading zero (spec, "Standard Cluster Descriptor", bit 0);
 * in version 2 an unallocated cluster reads as zero only where no backing image shows through.
 */
#include "block/qcow2.h"
#include <inttypes.h>
#include <string.h>

enum { MAX_FREEING_ZERO = 65536 };

static void begin(struct qcow2 *q)
{
	/* A flush holds `ops` for its time: rather wait here than keep all others waiting there. */
	pthread_mutex_lock(&q->lock);
	while (q->flushing)
		pthread_cond_wait(&q->flushed, &q->lock);
	pthread_mutex_unlock(&q->lock);
	pthread_rwlock_wrlock(&q->ops);
	pthread_mutex_lock(&q->lock);
}

static void end(struct qcow2 *q)
{
	pthread_mutex_unlock(&q->lock);
	pthread_rwlock_unlock(&q->ops);
}

/* What a whole cluster becomes. */
enum zero_mode {
	ZERO_KEEP,  /* write_zeroes: zero, space stays where that is possible */
	ZERO_UNMAP, /* write_zeroes: zero, space is given back */
	DISCARD,    /* zero or unallocated, space is given back */
	CUT_OFF,    /* behind the end of the disk: unallocated */
};

static bool is_unallocated(enum qcow2_type type)
{
	return type == CLUSTER_UNALLOCATED || type == CLUSTER_UNALLOCATED_ALLOC;
}

/* The new entry in place of `old` for a whole cluster; the same if nothing changes. */
static struct qcow2_entry new_entry(const struct qcow2 *q, struct qcow2_entry old, uint64_t guest,
				    enum zero_mode mode)
{
	struct qcow2_entry zero = {q->extended ? 0 : ENTRY_ZERO, q->extended ? BITMAP_ZERO : 0};
	bool v3 = q->h.version >= 3;
	if (mode == CUT_OFF)
		return (struct qcow2_entry){0, 0};
	if (!qcow2_has_host(q, old.entry) && !(old.entry & ENTRY_COMPRESSED)) {
		if (old.entry == zero.entry && old.bitmap == zero.bitmap)
			return old;
		if (!v3 || (mode == DISCARD && !q->img->backing) ||
		    (!old.bitmap && is_unallocated(qcow2_sub_type(q, old, 0)) &&
		     image_reads_zero(q->img->backing, guest, q->cluster_size)))
			return old;
		return zero;
	}
	if (!v3) /* callers made sure that nothing shows through */
		return (struct qcow2_entry){0, 0};
	bool own = (old.entry & ENTRY_COPIED) && !(old.entry & ENTRY_COMPRESSED);
	if (own && (mode == ZERO_KEEP || q->data_raw)) {
		if (!q->extended)
			return (struct qcow2_entry){old.entry | ENTRY_ZERO, 0};
		return (struct qcow2_entry){old.entry, BITMAP_ZERO};
	}
	return zero;
}

/* The new entry where only subclusters [from, to) become zero. */
static struct qcow2_entry part_entry(struct qcow2_entry old, unsigned from, unsigned to)
{
	uint64_t mask = qcow2_sub_mask(from, to);
	return (struct qcow2_entry){old.entry, (old.bitmap & ~mask) | mask << 32};
}

/* Whole clusters of [start, end_offset), with extended entries whole subclusters. Held
 * exclusively. */
static int change_clusters(struct qcow2 *q, uint64_t start, uint64_t end_offset,
			   enum zero_mode mode)
{
	uint64_t guest = start;
	while (guest < end_offset) {
		struct qcow2_map m;
		struct qcow2_table *l2;
		int rc = q->failed ? -EIO : qcow2_map(q, guest, end_offset - guest, &m);
		if (rc)
			return rc;
		/* Nothing there and nothing shows through: no table is needed for that. */
		if (m.type == CLUSTER_UNALLOCATED &&
		    (mode == CUT_OFF || q->h.version < 3 ||
		     image_reads_zero(q->img->backing, guest, m.len))) {
			uint64_t skip = guest + m.len;
			if (skip < end_offset)
				skip = round_down(skip, q->cluster_size);
			if (skip > guest) {
				guest = skip;
				continue;
			}
		}
		rc = qcow2_get_l2(q, guest, true, &l2);
		if (rc)
			return rc;
		uint64_t stop = round_up(guest + m.len, q->cluster_size);
		while (guest < stop && guest < end_offset) {
			uint64_t next = round_down(guest, q->cluster_size) + q->cluster_size;
			if (next > end_offset)
				next = end_offset;
			bool whole = next - guest == q->cluster_size;
			uint32_t index = qcow2_l2_index(q, guest);
			struct qcow2_entry old = qcow2_l2_entry(q, l2, index), now;
			now = whole ? new_entry(q, old, guest, mode)
				    : part_entry(old, qcow2_sub_index(q, guest),
						 qcow2_sub_index(q, next - 1) + 1);
			guest = next;
			if (now.entry == old.entry && now.bitmap == old.bitmap)
				continue;
			if (!whole && (old.entry & ENTRY_COMPRESSED))
				return -EINVAL; /* callers see to that */
			qcow2_set_l2_entry(q, l2, index, now);
			if (!qcow2_has_host(q, now.entry))
				qcow2_free_entry(q, old.entry);
		}
		if (q->freeing > MAX_FREEING_ZERO) {
			rc = qcow2_settle(q);
			if (rc)
				return rc;
		}
	}
	return 0;
}

int qcow2_drop_clusters(struct qcow2 *q, uint64_t start, uint64_t end_offset)
{
	return change_clusters(q, start, end_offset, CUT_OFF);
}

/* Zeroes written as data; nothing is held. */
static int write_zero_data(struct image *img, uint64_t offset, uint64_t len)
{
	size_t size = len < MIB ? (size_t)len : MIB;
	void *zeroes = calloc(1, size);
	int rc = zeroes ? 0 : -ENOMEM;
	while (len && !rc) {
		struct iovec iov = {zeroes, len < size ? (size_t)len : size};
		rc = qcow2_pwritev(img, &iov, 1, offset);
		offset += iov.iov_len;
		len -= iov.iov_len;
	}
	free(zeroes);
	return rc;
}

/* A part of one cluster. */
static int zero_part(struct image *img, uint64_t offset, uint64_t len)
{
	if (!len || image_reads_zero(img, offset, len))
		return 0;
	return write_zero_data(img, offset, len);
}

/* Whole subclusters within one cluster; *done says whether that was possible. */
static int zero_subclusters(struct qcow2 *q, uint64_t from, uint64_t to, bool *done)
{
	struct qcow2_map m;
	*done = false;
	if (from >= to)
		return 0;
	begin(q);
	int rc = qcow2_map(q, from, to - from, &m);
	if (!rc && m.type != CLUSTER_COMPRESSED) {
		*done = true;
		rc = change_clusters(q, from, to, ZERO_KEEP);
	}
	end(q);
	return rc;
}

/* A part of one cluster: what it has of whole subclusters is marked, the rest written. */
static int zero_cluster_part(struct image *img, uint64_t offset, uint64_t len)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t from = round_up(offset, q->sub_size), stop = offset + len;
	uint64_t to = stop == image_size(img) ? round_up(stop, q->sub_size)
					      : round_down(stop, q->sub_size);
	bool done = false;
	int rc = q->extended ? zero_subclusters(q, from, to, &done) : 0;
	if (rc)
		return rc;
	if (!done)
		return zero_part(img, offset, len);
	rc = zero_part(img, offset, from - offset);
	return rc || to >= stop ? rc : zero_part(img, to, stop - to);
}

int qcow2_write_zeroes(struct image *img, uint64_t offset, uint64_t len, bool may_unmap)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t stop = offset + len, mask = q->cluster_size - 1;
	qcow2_mark_bitmaps(q, offset, len);
	if (q->data_raw) { /* the data file must be right without the tables */
		int rc = file_write_zeroes(q->data, offset, len, may_unmap);
		if (rc)
			return rc;
	}
	/* The last cluster counts as whole where the disk ends within it. */
	uint64_t first = round_up(offset, q->cluster_size);
	uint64_t last = stop == image_size(img) ? round_up(stop, q->cluster_size) : stop & ~mask;
	if (first > last) /* within one cluster */
		return zero_cluster_part(img, offset, len);
	int rc = zero_cluster_part(img, offset, first - offset);
	if (!rc && last < stop)
		rc = zero_cluster_part(img, last, stop - last);
	if (rc || first == last)
		return rc;
	if (q->h.version < 3 && !image_reads_zero(img->backing, first, last - first))
		return write_zero_data(img, first, (last < stop ? last : stop) - first);
	begin(q);
	rc = change_clusters(q, first, last,
			     may_unmap || q->h.version < 3 ? ZERO_UNMAP : ZERO_KEEP);
	end(q);
	return rc;
}

int qcow2_write_zeroes_fast(struct image *img, uint64_t offset, uint64_t len, bool may_unmap)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t stop = offset + len, mask = q->cluster_size - 1;
	/* Whole clusters are a matter of the tables, from version 3 on. */
	if (q->h.version < 3 || q->data_raw || (offset & mask) ||
	    ((stop & mask) && stop != image_size(img)))
		return -ENOTSUP;
	return qcow2_write_zeroes(img, offset, len, may_unmap);
}

int qcow2_discard(struct image *img, uint64_t offset, uint64_t len)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t stop = offset + len, mask = q->cluster_size - 1;
	uint64_t first = round_up(offset, q->cluster_size);
	uint64_t last = stop == image_size(img) ? round_up(stop, q->cluster_size) : stop & ~mask;
	if (first >= last)
		return 0;
	qcow2_mark_bitmaps(q, offset, len);
	/* Version 2 could only uncover old data of the backing image: leave it alone. */
	if (q->h.version < 3 && img->backing)
		return 0;
	if (q->data_raw)
		return qcow2_write_zeroes(img, first, (last < stop ? last : stop) - first, true);
	begin(q);
	int rc = change_clusters(q, first, last, DISCARD);
	end(q);
	return rc;
}

int qcow2_block_status(struct image *img, uint64_t offset, uint64_t len, uint64_t *count,
		       uint64_t *host_offset)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_map m;
	pthread_mutex_lock(&q->lock);
	int rc = qcow2_map(q, offset, len, &m);
	pthread_mutex_unlock(&q->lock);
	if (rc)
		return rc;
	*count = m.len;
	switch (m.type) {
	case CLUSTER_UNALLOCATED: return img->backing || q->backing_file ? 0 : BLOCK_ZERO;
	case CLUSTER_UNALLOCATED_ALLOC:
		*host_offset = m.host;
		return BLOCK_OFFSET_VALID | (img->backing || q->backing_file ? 0 : BLOCK_ZERO);
	case CLUSTER_ZERO: return BLOCK_ALLOCATED | BLOCK_ZERO;
	case CLUSTER_ZERO_ALLOC:
		*host_offset = m.host;
		return BLOCK_ALLOCATED | BLOCK_ZERO | BLOCK_OFFSET_VALID;
	case CLUSTER_NORMAL:
		*host_offset = m.host;
		return BLOCK_ALLOCATED | BLOCK_DATA | BLOCK_OFFSET_VALID;
	case CLUSTER_COMPRESSED: return BLOCK_ALLOCATED | BLOCK_DATA | BLOCK_COMPRESSED;
	}
	return 0;
}

/* A larger L1 table at a new place. Held exclusively. */
int qcow2_grow_l1(struct qcow2 *q, uint32_t entries)
{
	int rc = qcow2_settle(q);
	if (rc)
		return rc;
	uint64_t bytes = qcow2_clusters(q, (uint64_t)entries * 8) << q->h.cluster_bits;
	uint64_t *table = calloc(1, bytes);
	uint8_t *raw = calloc(1, bytes);
	int64_t at = table && raw ? qcow2_alloc_clusters(q, bytes >> q->h.cluster_bits) : -ENOMEM;
	rc = at < 0 ? (int)at : qcow2_write_tables(q);
	for (uint32_t i = 0; i < q->h.l1_size && !rc; i++) {
		table[i] = q->l1[i];
		store_be64(raw + (size_t)i * 8, table[i]);
	}
	if (!rc)
		rc = file_pwrite(q->img->file, raw, bytes, (uint64_t)at);
	if (!rc)
		rc = file_flush(q->img->file);
	if (!rc) {
		uint8_t fields[12];
		store_be32(fields, entries);
		store_be64(fields + 4, (uint64_t)at);
		rc = file_pwrite(q->img->file, fields, sizeof(fields), H_L1_SIZE);
	}
	free(raw);
	if (rc) {
		free(table);
		if (at > 0)
			qcow2_free_later(q, (uint64_t)at, bytes);
		return rc;
	}
	rc = file_flush(q->img->file);
	uint64_t old = q->h.l1_offset, old_bytes = (uint64_t)q->h.l1_size * 8;
	free(q->l1);
	q->l1 = table;
	q->h.l1_offset = (uint64_t)at;
	q->h.l1_size = entries;
	/* As long as the header on disk may be the old one, what it points to stays. */
	return rc || !old_bytes ? rc : qcow2_add_refcount(q, old, old_bytes, -1);
}

int qcow2_truncate(struct image *img, uint64_t size, struct error *err)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t old = image_size(img), l2_bytes = (uint64_t)q->cluster_size << q->l2_bits;
	if (size % 512)
		return error_set(err, EINVAL,
				 "cannot resize '%s': the new size must be a multiple of 512",
				 img->path);
	if (size > INT64_MAX - 511 || div_round_up(size, l2_bytes) > MAX_L1_BYTES / 8)
		return error_set(err, EFBIG,
				 "cannot resize '%s': %" PRIu64
				 " bytes are too many for its cluster size",
				 img->path, size);
	if (q->bitmaps)
		return error_set(err, ENOTSUP,
				 "cannot resize '%s': it has dirty bitmaps, which are as long as "
				 "the disk",
				 img->path);
	if (q->h.nb_snapshots && q->h.version < 3)
		return error_set(
			err, ENOTSUP,
			"cannot resize '%s': a version 2 image with snapshots has one size",
			img->path);
	int rc = 0;
	begin(q);
	if (div_round_up(size, l2_bytes) > q->h.l1_size)
		rc = qcow2_grow_l1(q, (uint32_t)div_round_up(size, l2_bytes));
	if (!rc && size < old)
		rc = change_clusters(q, round_up(size, q->cluster_size),
				     round_up(old, q->cluster_size), CUT_OFF);
	end(q);
	/* What the backing image has behind the old end must not appear. */
	if (!rc && size > old)
		__atomic_store_n(&img->size, size, __ATOMIC_RELAXED);
	uint64_t shown = img->backing ? image_size(img->backing) : 0;
	if (shown > size)
		shown = size;
	if (!rc && shown > old)
		rc = qcow2_write_zeroes(img, old, shown - old, true);
	if (!rc && size < old && (size & (q->cluster_size - 1))) {
		/* The rest of the last cluster would reappear when the disk grows again. */
		uint64_t rest = round_up(size, q->cluster_size) - size;
		if (rest > old - size)
			rest = old - size;
		rc = zero_part(img, size, rest);
	}
	begin(q);
	if (!rc && q->external)
		rc = file_truncate(q->data, size);
	if (!rc)
		rc = qcow2_settle(q);
	if (!rc)
		rc = qcow2_header_set64(q, H_SIZE, size);
	if (!rc) /* nothing depends on it, but a disk that was resized stays so */
		rc = file_flush(img->file);
	if (!rc) {
		q->h.size = size;
		__atomic_store_n(&img->size, size, __ATOMIC_RELAXED);
	} else {
		__atomic_store_n(&img->size, old, __ATOMIC_RELAXED);
	}
	end(q);
	return rc ? error_errno(err, -rc, "cannot resize '%s'", img->path) : 0;
}
