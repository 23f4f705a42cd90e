/* SPDX-License-Identifier: MIT */
/*
 * Refcounts and cluster allocation (spec, "Host cluster management").
 *
 * The refcount table (level 1) is in memory as a whole; refcount blocks (level 2) go through a
 * cache. A block that is missing counts as all zeroes. Its own cluster is a free one that another
 * block describes, or the first that it describes itself, so making one never needs another; when
 * the table is too small as well, new blocks and the new table lie together at the start of the
 * first range that nothing describes yet.
 */
#include "block/qcow2.h"
#include <inttypes.h>
#include <string.h>

uint64_t qcow2_refcount_at(const void *block, unsigned order, uint64_t index)
{
	const uint8_t *b = block;
	switch (order) {
	case 3: return b[index];
	case 4: return load_be16(b + index * 2);
	case 5: return load_be32(b + index * 4);
	case 6: return load_be64(b + index * 8);
	default: break;
	}
	unsigned bits = 1u << order, per_byte = 8 / bits;
	return (b[index / per_byte] >> (index % per_byte * bits)) & ((1u << bits) - 1);
}

void qcow2_refcount_put(void *block, unsigned order, uint64_t index, uint64_t value)
{
	uint8_t *b = block;
	switch (order) {
	case 3: b[index] = (uint8_t)value; return;
	case 4: store_be16(b + index * 2, (uint16_t)value); return;
	case 5: store_be32(b + index * 4, (uint32_t)value); return;
	case 6: store_be64(b + index * 8, value); return;
	default: break;
	}
	unsigned bits = 1u << order, per_byte = 8 / bits, shift = index % per_byte * bits;
	uint8_t *p = &b[index / per_byte];
	*p = (uint8_t)((*p & ~(((1u << bits) - 1) << shift)) | value << shift);
}

int qcow2_load_reftable(struct qcow2 *q, struct error *err)
{
	size_t bytes = (size_t)q->h.reftable_clusters << q->h.cluster_bits;
	uint8_t *raw = malloc(bytes);
	int rc = raw ? file_pread(q->img->file, raw, bytes, q->h.reftable_offset) : -ENOMEM;
	if (rc) {
		free(raw);
		return error_errno(err, -rc, "its refcount table cannot be read");
	}
	q->reftable_size = (uint32_t)(bytes / 8);
	q->reftable = (uint64_t *)raw;
	for (uint32_t i = 0; i < q->reftable_size; i++) {
		q->reftable[i] = load_be64(raw + (size_t)i * 8);
		if (q->reftable[i])
			qcow2_set_add(&q->tables, q->reftable[i] >> q->h.cluster_bits);
	}
	return 0;
}

/* The refcount block that describes the cluster; NULL if there is none. */
static int get_block(struct qcow2 *q, uint64_t cluster, struct qcow2_table **block)
{
	uint64_t i = cluster / q->rb_entries;
	*block = NULL;
	if (i >= q->reftable_size || q->reftable[i] == 0)
		return 0;
	uint64_t offset = q->reftable[i];
	*block = qcow2_cache_find(&q->rb_cache, offset);
	if (*block)
		return 0;
	if (offset & (q->cluster_size - 1) || offset >= MAX_HOST_OFFSET ||
	    (int64_t)offset >= file_size(q->img->file))
		return qcow2_corrupt(q, "refcount table entry %" PRIu64 " is 0x%" PRIx64, i,
				     offset);
	if (qcow2_cache_must_write(&q->rb_cache)) {
		int rc = qcow2_cache_write(&q->rb_cache);
		if (rc)
			return rc;
	}
	return qcow2_cache_load(&q->rb_cache, offset, false, block);
}

int qcow2_get_refcount(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
	struct qcow2_table *block;
	int rc = get_block(q, cluster, &block);
	if (rc)
		return rc;
	*count =
		block ? qcow2_refcount_at(block->data, q->h.refcount_order, cluster % q->rb_entries)
		      : 0;
	return 0;
}

int qcow2_get_refblock(struct qcow2 *q, uint64_t cluster, const uint8_t **block)
{
	struct qcow2_table *table;
	int rc = get_block(q, cluster, &table);
	*block = !rc && table ? table->data : NULL;
	return rc;
}

static void put(struct qcow2 *q, struct qcow2_table *block, uint64_t cluster, uint64_t value)
{
	uint64_t i = cluster % q->rb_entries;
	uint64_t byte = (i << q->h.refcount_order) / 8;
	qcow2_refcount_put(block->data, q->h.refcount_order, i, value);
	qcow2_cache_dirty(&q->rb_cache, block, (uint32_t)byte,
			  1u << (q->h.refcount_order > 3 ? q->h.refcount_order - 3 : 0));
}

/* A cluster just lost its last reference. */
static void released(struct qcow2 *q, uint64_t cluster)
{
	uint64_t offset = cluster << q->h.cluster_bits;
	if (cluster < q->free_hint)
		q->free_hint = cluster;
	if (q->free_byte >> q->h.cluster_bits == cluster)
		q->free_byte = 0;
	qcow2_cache_forget(&q->l2_cache, offset);
	qcow2_set_remove(&q->tables, cluster);
	if (q->img->flags & IMAGE_DISCARD)
		file_discard(q->img->file, offset, q->cluster_size);
}

static int add_one(struct qcow2 *q, uint64_t cluster, int delta)
{
	struct qcow2_table *block;
	int rc = get_block(q, cluster, &block);
	if (rc)
		return rc;
	uint64_t value = 0;
	if (block)
		value = qcow2_refcount_at(block->data, q->h.refcount_order,
					  cluster % q->rb_entries);
	if (!block || (delta < 0 && value == 0))
		return qcow2_corrupt(q, "cluster %" PRIu64 " is in use but has refcount 0",
				     cluster);
	if (delta > 0 && value >= q->max_refcount)
		return -ERANGE;
	value += (uint64_t)(int64_t)delta;
	put(q, block, cluster, value);
	if (value == 0)
		released(q, cluster);
	return 0;
}

int qcow2_set_refcount(struct qcow2 *q, uint64_t cluster, uint64_t value)
{
	struct qcow2_table *block;
	int rc = get_block(q, cluster, &block);
	if (rc || !block)
		return rc ? rc : -ENOENT;
	put(q, block, cluster, value);
	if (value == 0)
		released(q, cluster);
	return 0;
}

int qcow2_add_refcount(struct qcow2 *q, uint64_t offset, uint64_t len, int delta)
{
	if (!len)
		return 0;
	if (!range_in(offset, len, MAX_HOST_OFFSET))
		return qcow2_corrupt(q, "host offset 0x%" PRIx64 " is too large", offset);
	uint64_t first = offset >> q->h.cluster_bits;
	uint64_t last = (offset + len - 1) >> q->h.cluster_bits;
	for (uint64_t c = first; c <= last; c++) {
		int rc = add_one(q, c, delta);
		if (!rc)
			continue;
		while (delta > 0 && c-- > first)
			add_one(q, c, -1); /* all or nothing */
		return rc;
	}
	return 0;
}

static void used_up_to(struct qcow2 *q, uint64_t offset)
{
	if (offset > q->high_water)
		q->high_water = offset;
}

static void reftable_dirty(struct qcow2 *q, uint32_t index)
{
	if (q->reftable_dirty_from == q->reftable_dirty_to) {
		q->reftable_dirty_from = index;
		q->reftable_dirty_to = index + 1;
	} else if (index < q->reftable_dirty_from) {
		q->reftable_dirty_from = index;
	} else if (index >= q->reftable_dirty_to) {
		q->reftable_dirty_to = index + 1;
	}
}

/* A new, empty block at the given cluster; it is not in the refcount table yet. */
static int new_block(struct qcow2 *q, uint64_t cluster, struct qcow2_table **block)
{
	uint64_t offset = cluster << q->h.cluster_bits;
	int rc = 0;
	if (qcow2_hits_metadata(q, offset, q->cluster_size))
		return qcow2_corrupt(q, "cluster %" PRIu64 " holds tables but has refcount 0",
				     cluster);
	if (qcow2_cache_must_write(&q->rb_cache))
		rc = qcow2_cache_write(&q->rb_cache);
	if (!rc)
		rc = qcow2_cache_load(&q->rb_cache, offset, true, block);
	if (!rc) {
		qcow2_cache_dirty(&q->rb_cache, *block, 0, q->cluster_size);
		qcow2_set_add(&q->tables, cluster);
		used_up_to(q, offset + q->cluster_size);
	}
	return rc;
}

/* Blocks that new_block() made did not get into the refcount table: their clusters are free again. */
static void drop_blocks(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
	for (; count; count--, cluster++) {
		qcow2_cache_forget(&q->rb_cache, cluster << q->h.cluster_bits);
		qcow2_set_remove(&q->tables, cluster);
	}
}

/* A larger refcount table that has room for block `index`, which is behind the present end. */
static int grow_reftable(struct qcow2 *q, uint64_t index)
{
	uint64_t start = index * q->rb_entries, blocks = 0, size, table;
	do {
		blocks++;
		size = index + blocks + 1;
		if (size < (uint64_t)q->reftable_size * 3 / 2)
			size = (uint64_t)q->reftable_size * 3 / 2;
		table = qcow2_clusters(q, size * 8);
	} while (blocks * q->rb_entries < blocks + table);
	uint64_t bytes = table << q->h.cluster_bits;
	uint64_t offset = (start + blocks) << q->h.cluster_bits;
	if (bytes > MAX_REFTABLE_BYTES || !range_in(offset, bytes, MAX_HOST_OFFSET))
		return -EFBIG;
	uint64_t *new_table = calloc(1, bytes);
	uint8_t *raw = malloc(bytes);
	int rc = new_table && raw ? 0 : -ENOMEM;
	if (!rc)
		memcpy(new_table, q->reftable, (size_t)q->reftable_size * 8);
	uint64_t made = 0;
	for (uint64_t i = 0; i < blocks && !rc; i++) {
		struct qcow2_table *block;
		rc = new_block(q, start + i, &block);
		if (rc)
			break;
		made++;
		new_table[index + i] = (start + i) << q->h.cluster_bits;
		for (uint64_t c = i * q->rb_entries;
		     c < (i + 1) * q->rb_entries && c < blocks + table; c++)
			put(q, block, start + c, 1);
	}
	/* Blocks, then the table, then the header that points to it. */
	if (!rc)
		rc = qcow2_cache_write(&q->rb_cache);
	for (uint64_t i = 0; i < bytes / 8 && !rc; i++)
		store_be64(raw + i * 8, new_table[i]);
	if (!rc)
		rc = file_pwrite(q->img->file, raw, bytes, offset);
	if (!rc)
		rc = file_flush(q->img->file);
	if (!rc) {
		uint8_t fields[12];
		store_be64(fields, offset);
		store_be32(fields + 8, (uint32_t)table);
		rc = file_pwrite(q->img->file, fields, sizeof(fields), H_REFTABLE_OFFSET);
	}
	free(raw);
	if (rc) {
		drop_blocks(q, start, made);
		free(new_table);
		return rc;
	}
	rc = file_flush(q->img->file);
	uint64_t old_offset = q->h.reftable_offset;
	uint64_t old_bytes = (uint64_t)q->h.reftable_clusters << q->h.cluster_bits;
	free(q->reftable);
	q->reftable = new_table;
	q->reftable_size = (uint32_t)(bytes / 8);
	q->reftable_dirty_from = q->reftable_dirty_to = 0;
	q->h.reftable_offset = offset;
	q->h.reftable_clusters = (uint32_t)table;
	used_up_to(q, offset + bytes);
	trace(TRACE_QCOW2, "refcount table moved to 0x%" PRIx64 ", %" PRIu64 " clusters", offset,
	      table);
	/* As long as the header on disk may be the old one, what it points to stays. */
	return rc ? rc : qcow2_add_refcount(q, old_offset, old_bytes, -1);
}

/* Where a block for the range that starts at `first` goes: the first free cluster that has a block
 * already, so that it does not cut a run of clusters in two, else the first that it describes. */
static int place_for_block(struct qcow2 *q, uint64_t first, uint64_t *cluster)
{
	for (uint64_t c = q->free_hint; c < first; c++) {
		uint64_t refs;
		if (c / q->rb_entries >= q->reftable_size || !q->reftable[c / q->rb_entries])
			break;
		int rc = qcow2_get_refcount(q, c, &refs);
		if (rc)
			return rc;
		if (!refs) {
			*cluster = c;
			return 0;
		}
	}
	*cluster = first;
	return 0;
}

/* Makes blocks for the clusters. 1: something was made, look again which clusters are free. */
static int ensure_blocks(struct qcow2 *q, uint64_t first, uint64_t count)
{
	for (uint64_t i = first / q->rb_entries; i <= (first + count - 1) / q->rb_entries; i++) {
		int rc;
		if (i >= q->reftable_size) {
			rc = grow_reftable(q, i);
			return rc ? rc : 1;
		}
		if (q->reftable[i])
			continue;
		struct qcow2_table *block;
		uint64_t cluster;
		rc = place_for_block(q, i * q->rb_entries, &cluster);
		if (!rc)
			rc = new_block(q, cluster, &block);
		if (rc)
			return rc;
		bool self = cluster / q->rb_entries == i;
		if (self)
			put(q, block, cluster, 1);
		else
			rc = add_one(q, cluster, 1);
		if (rc) {
			drop_blocks(q, cluster, 1);
			return rc;
		}
		q->reftable[i] = cluster << q->h.cluster_bits;
		reftable_dirty(q, (uint32_t)i);
		return 1;
	}
	return 0;
}

int64_t qcow2_alloc_clusters(struct qcow2 *q, uint64_t count)
{
	uint64_t limit = MAX_HOST_OFFSET >> q->h.cluster_bits, start;
	int rc;
	if (q->failed)
		return -EIO;
	do {
		start = q->free_hint;
		for (uint64_t c = start; c < start + count; c++) {
			uint64_t refs;
			if (c >= limit)
				return -EFBIG;
			rc = qcow2_get_refcount(q, c, &refs);
			if (rc)
				return rc;
			if (refs)
				start = c + 1;
		}
		rc = ensure_blocks(q, start, count);
		if (rc < 0)
			return rc;
	} while (rc);
	uint64_t offset = start << q->h.cluster_bits, len = count << q->h.cluster_bits;
	if (qcow2_hits_metadata(q, offset, len))
		return qcow2_corrupt(q, "cluster %" PRIu64 " holds tables but has refcount 0",
				     start);
	rc = qcow2_add_refcount(q, offset, len, 1);
	if (rc)
		return rc;
	q->free_hint = start + count;
	used_up_to(q, offset + len);
	return (int64_t)offset;
}

int64_t qcow2_alloc_bytes(struct qcow2 *q, uint32_t len)
{
	uint64_t at = q->free_byte, refs;
	uint32_t used = (uint32_t)at & (q->cluster_size - 1);
	if (used) {
		/* Its cluster counts one reference for each piece in it. */
		int rc = qcow2_get_refcount(q, at >> q->h.cluster_bits, &refs);
		if (rc)
			return rc;
		if (refs == 0 || refs >= q->max_refcount)
			used = 0;
	}
	if (!used || len > q->cluster_size - used) {
		int64_t fresh = qcow2_alloc_clusters(q, 1);
		if (fresh < 0)
			return fresh;
		/* A piece may go on in the next cluster, which then has its first reference. */
		if (!used || (uint64_t)fresh != round_up(at, q->cluster_size)) {
			q->free_byte = (uint64_t)fresh + len;
			return fresh;
		}
		int rc = qcow2_add_refcount(q, at, 1, 1);
		q->free_byte = at + len;
		return rc ? rc : (int64_t)at;
	}
	int rc = qcow2_add_refcount(q, at, len, 1);
	q->free_byte = at + len;
	return rc ? rc : (int64_t)at;
}

void qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t len)
{
	uint64_t mask = q->cluster_size - 1;
	q->freeing += qcow2_clusters(q, len);
	if (q->free_count && !((offset | len) & mask)) {
		struct qcow2_range *last = &q->frees[q->free_count - 1];
		/* Parts of clusters are not joined: each has its own reference. */
		if (last->offset + last->len == offset && !(last->offset & mask)) {
			last->len += len;
			return;
		}
	}
	if (q->free_count == q->free_capacity) {
		q->free_capacity = q->free_capacity ? q->free_capacity * 2 : 64;
		q->frees = xrealloc(q->frees, q->free_capacity * sizeof(*q->frees));
	}
	q->frees[q->free_count++] = (struct qcow2_range){offset, len};
}

int qcow2_apply_frees(struct qcow2 *q)
{
	int rc = 0;
	for (size_t i = 0; i < q->free_count; i++) {
		int one = qcow2_add_refcount(q, q->frees[i].offset, q->frees[i].len, -1);
		rc = rc ? rc : one;
	}
	if (q->free_count)
		qcow2_forget_decompressed(q);
	q->free_count = 0;
	q->freeing = 0;
	return rc;
}

bool qcow2_hits_metadata(const struct qcow2 *q, uint64_t offset, uint64_t len)
{
	const struct qcow2_header *h = &q->h;
	if (offset < q->cluster_size ||
	    ranges_overlap(offset, len, h->l1_offset, (uint64_t)h->l1_size * 8) ||
	    ranges_overlap(offset, len, h->reftable_offset,
			   (uint64_t)h->reftable_clusters << h->cluster_bits) ||
	    (h->nb_snapshots && ranges_overlap(offset, len, h->snapshots_offset, 1)))
		return true;
	for (uint64_t c = offset >> h->cluster_bits; c <= (offset + len - 1) >> h->cluster_bits;
	     c++)
		if (qcow2_set_has(&q->tables, c))
			return true;
	return false;
}
