/* SPDX-License-Identifier: MIT */
/*
 * From guest offsets to host clusters: L1 and L2 tables (spec, "Cluster mapping"), and writing
 * changed tables in the order that keeps the file sound (qcow2.h).
 */
#include "block/qcow2.h"
#include <inttypes.h>
#include <string.h>

uint32_t qcow2_l2_index(const struct qcow2 *q, uint64_t guest)
{
	return (uint32_t)(guest >> q->h.cluster_bits) & (q->l2_entries - 1);
}

uint64_t qcow2_l2_entry(const struct qcow2_table *l2, uint32_t index)
{
	return load_be64(l2->data + (size_t)index * 8);
}

void qcow2_set_l2_entry(struct qcow2 *q, struct qcow2_table *l2, uint32_t index, uint64_t entry)
{
	store_be64(l2->data + (size_t)index * 8, entry);
	qcow2_cache_dirty(&q->l2_cache, l2, index * 8, 8);
}

static int load_l2(struct qcow2 *q, uint64_t offset, bool fresh, struct qcow2_table **l2)
{
	*l2 = fresh ? NULL : qcow2_cache_find(&q->l2_cache, offset);
	if (*l2)
		return 0;
	if (qcow2_cache_must_write(&q->l2_cache)) {
		int rc = qcow2_write_tables(q);
		if (rc)
			return rc;
	}
	return qcow2_cache_load(&q->l2_cache, offset, fresh, l2);
}

static void set_l1(struct qcow2 *q, uint32_t index, uint64_t entry)
{
	q->l1[index] = entry;
	if (q->l1_dirty_from == q->l1_dirty_to) {
		q->l1_dirty_from = index;
		q->l1_dirty_to = index + 1;
	} else if (index < q->l1_dirty_from) {
		q->l1_dirty_from = index;
	} else if (index >= q->l1_dirty_to) {
		q->l1_dirty_to = index + 1;
	}
}

int qcow2_get_l2(struct qcow2 *q, uint64_t guest, bool for_write, struct qcow2_table **l2)
{
	uint64_t index = guest >> (q->h.cluster_bits + q->l2_bits);
	*l2 = NULL;
	if (index >= q->h.l1_size)
		return -EINVAL;
	uint64_t entry = q->l1[index], offset = entry & ENTRY_OFFSET;
	if (offset & (q->cluster_size - 1) ||
	    (offset && (offset < q->cluster_size || !qcow2_cache_find(&q->l2_cache, offset)) &&
	     (int64_t)offset >= file_size(q->img->file)))
		return qcow2_corrupt(q, "L1 entry %" PRIu64 " points to 0x%" PRIx64, index, offset);
	if (!for_write || (offset && (entry & ENTRY_COPIED)))
		return offset ? load_l2(q, offset, false, l2) : 0;

	/* No table yet, or one that a snapshot shares: make one of our own. */
	uint8_t *copy = NULL;
	int rc;
	if (offset) {
		rc = load_l2(q, offset, false, l2);
		if (rc)
			return rc;
		copy = malloc(q->cluster_size);
		if (!copy)
			return -ENOMEM;
		memcpy(copy, (*l2)->data, q->cluster_size);
	}
	int64_t own = qcow2_alloc_clusters(q, 1);
	if (own < 0) {
		free(copy);
		return (int)own;
	}
	rc = load_l2(q, (uint64_t)own, true, l2);
	if (rc) {
		free(copy);
		qcow2_add_refcount(q, (uint64_t)own, q->cluster_size, -1);
		return rc;
	}
	if (copy)
		memcpy((*l2)->data, copy, q->cluster_size);
	free(copy);
	qcow2_cache_dirty(&q->l2_cache, *l2, 0, q->cluster_size);
	qcow2_set_add(&q->tables, (uint64_t)own >> q->h.cluster_bits);
	set_l1(q, (uint32_t)index, (uint64_t)own | ENTRY_COPIED);
	if (offset)
		qcow2_free_later(q, offset, q->cluster_size);
	trace(TRACE_QCOW2, "L2 table for L1 entry %" PRIu64 " at 0x%" PRIx64, index, (uint64_t)own);
	return 0;
}

enum qcow2_type qcow2_entry_type(const struct qcow2 *q, uint64_t entry)
{
	if (entry & ENTRY_COMPRESSED)
		return CLUSTER_COMPRESSED;
	bool host = entry & ENTRY_OFFSET;
	if (q->h.version >= 3 && (entry & ENTRY_ZERO))
		return host ? CLUSTER_ZERO_ALLOC : CLUSTER_ZERO;
	return host ? CLUSTER_NORMAL : CLUSTER_UNALLOCATED;
}

int qcow2_map(struct qcow2 *q, uint64_t offset, uint64_t len, struct qcow2_map *m)
{
	struct qcow2_table *l2;
	uint32_t in_cluster = (uint32_t)offset & (q->cluster_size - 1);
	uint32_t index = qcow2_l2_index(q, offset);
	int rc = qcow2_get_l2(q, offset, false, &l2);
	if (rc)
		return rc;
	*m = (struct qcow2_map){.type = CLUSTER_UNALLOCATED};
	uint64_t clusters = q->l2_entries - index;
	if (l2) {
		uint64_t first = m->entry = qcow2_l2_entry(l2, index);
		m->type = qcow2_entry_type(q, first);
		m->copied = first & ENTRY_COPIED;
		uint64_t host = first & ENTRY_OFFSET;
		bool has_host = m->type == CLUSTER_NORMAL || m->type == CLUSTER_ZERO_ALLOC;
		if (has_host && (host & (q->cluster_size - 1)))
			return qcow2_corrupt(
				q, "L2 entry for guest offset 0x%" PRIx64 " points to 0x%" PRIx64,
				offset, host);
		m->host = host + (m->type == CLUSTER_NORMAL ? in_cluster : 0);
		uint64_t wanted = ((len + in_cluster - 1) >> q->h.cluster_bits) + 1;
		if (wanted < clusters)
			clusters = wanted;
		uint64_t n = 1;
		while (n < clusters && m->type != CLUSTER_COMPRESSED) {
			uint64_t e = qcow2_l2_entry(l2, index + (uint32_t)n);
			if (qcow2_entry_type(q, e) != m->type ||
			    !(e & ENTRY_COPIED) != !m->copied ||
			    (has_host && (e & ENTRY_OFFSET) != host + (n << q->h.cluster_bits)))
				break;
			n++;
		}
		clusters = n;
	}
	m->len = (clusters << q->h.cluster_bits) - in_cluster;
	if (m->len > len)
		m->len = len;
	return 0;
}

struct qcow2_range qcow2_compressed_extent(const struct qcow2 *q, uint64_t entry)
{
	/* Spec, "Compressed Clusters Descriptor": x = 62 - (cluster_bits - 8) offset bits, then the
	 * number of further 512-byte sectors. */
	unsigned x = 62 - (q->h.cluster_bits - 8);
	uint64_t offset = entry & ((UINT64_C(1) << x) - 1);
	uint64_t sectors = ((entry & (ENTRY_COMPRESSED - 1)) >> x) + 1;
	return (struct qcow2_range){offset & ~UINT64_C(511), sectors * 512};
}

void qcow2_free_entry(struct qcow2 *q, uint64_t entry)
{
	switch (qcow2_entry_type(q, entry)) {
	case CLUSTER_NORMAL:
	case CLUSTER_ZERO_ALLOC: qcow2_free_later(q, entry & ENTRY_OFFSET, q->cluster_size); break;
	case CLUSTER_COMPRESSED: {
		struct qcow2_range r = qcow2_compressed_extent(q, entry);
		qcow2_free_later(q, r.offset, r.len);
		break;
	}
	case CLUSTER_UNALLOCATED:
	case CLUSTER_ZERO: break;
	}
}

/* Writes entries [from, to) of a table of big-endian 64-bit numbers. */
static int write_entries(struct qcow2 *q, const uint64_t *table, uint64_t offset, uint32_t from,
			 uint32_t to)
{
	uint8_t *raw = malloc((size_t)(to - from) * 8);
	if (!raw)
		return -ENOMEM;
	for (uint32_t i = from; i < to; i++)
		store_be64(raw + (size_t)(i - from) * 8, table[i]);
	int rc = file_pwrite(q->img->file, raw, (size_t)(to - from) * 8,
			     offset + (uint64_t)from * 8);
	free(raw);
	return rc;
}

int qcow2_write_tables(struct qcow2 *q)
{
	struct file_layer *file = q->img->file;
	bool reftable = q->reftable_dirty_from != q->reftable_dirty_to;
	bool l1 = q->l1_dirty_from != q->l1_dirty_to;
	bool refs = q->rb_cache.dirty != 0 || reftable;
	int rc = q->failed ? -EIO : qcow2_cache_write(&q->rb_cache);
	if (!rc && reftable) {
		rc = file_flush(file);
		if (!rc)
			rc = write_entries(q, q->reftable, q->h.reftable_offset,
					   q->reftable_dirty_from, q->reftable_dirty_to);
		if (!rc)
			q->reftable_dirty_from = q->reftable_dirty_to = 0;
	}
	if (!rc && (q->l2_cache.dirty || l1)) {
		if (refs || q->data_unsynced)
			rc = file_flush(file);
		if (!rc)
			q->data_unsynced = false;
		if (!rc)
			rc = qcow2_cache_write(&q->l2_cache);
	}
	if (!rc && l1) {
		rc = file_flush(file);
		if (!rc)
			rc = write_entries(q, q->l1, q->h.l1_offset, q->l1_dirty_from,
					   q->l1_dirty_to);
		if (!rc)
			q->l1_dirty_from = q->l1_dirty_to = 0;
	}
	return rc;
}

int qcow2_settle(struct qcow2 *q)
{
	int rc = qcow2_write_tables(q);
	if (!rc)
		rc = file_flush(q->img->file);
	if (!rc && q->free_count)
		rc = qcow2_apply_frees(q);
	return rc;
}
