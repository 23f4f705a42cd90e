/* SPDX-License-Identifier: MIT */
/*
 * From guest offsets to host clusters: L1 and L2 tables (spec, "Cluster mapping", "Extended L2
 * Entries").
 */
#include "block/qcow2.h"
#include <inttypes.h>
#include <string.h>

uint32_t qcow2_l2_index(const struct qcow2 *q, uint64_t guest)
{
	return (uint32_t)(guest >> q->h.cluster_bits) & (q->l2_entries - 1);
}

struct qcow2_entry qcow2_raw_entry(const struct qcow2 *q, const uint8_t *table, uint32_t index)
{
	const uint8_t *p = table + ((size_t)index << qcow2_entry_bits(q));
	return (struct qcow2_entry){load_be64(p), q->extended ? load_be64(p + 8) : 0};
}

struct qcow2_entry qcow2_l2_entry(const struct qcow2 *q, const struct qcow2_table *l2,
				  uint32_t index)
{
	return qcow2_raw_entry(q, l2->data, index);
}

void qcow2_set_l2_entry(struct qcow2 *q, struct qcow2_table *l2, uint32_t index,
			struct qcow2_entry e)
{
	unsigned bits = qcow2_entry_bits(q);
	uint8_t *p = l2->data + ((size_t)index << bits);
	store_be64(p, e.entry);
	if (q->extended)
		store_be64(p + 8, e.bitmap);
	qcow2_cache_dirty(&q->l2_cache, l2, index << bits, 1u << bits);
}

static int load_l2(struct qcow2 *q, uint64_t offset, bool fresh, struct qcow2_table **l2)
{
	*l2 = fresh ? NULL : qcow2_cache_find(&q->l2_cache, offset);
	if (*l2)
		return 0;
	/* While a flush runs the cache grows instead: only one may write L2 tables. */
	if (!q->flushing && qcow2_cache_must_write(&q->l2_cache)) {
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

bool qcow2_has_host(const struct qcow2 *q, uint64_t entry)
{
	if (entry & ENTRY_COMPRESSED)
		return false;
	if (entry & ENTRY_OFFSET)
		return true;
	/* Offset 0 is a cluster like others in an external data file. */
	return q->external && (entry & ENTRY_COPIED) && (q->extended || !(entry & ENTRY_ZERO));
}

uint64_t qcow2_sub_mask(unsigned from, unsigned to)
{
	return (UINT64_C(1) << to) - (UINT64_C(1) << from);
}

enum qcow2_type qcow2_sub_type(const struct qcow2 *q, struct qcow2_entry e, unsigned sub)
{
	if (e.entry & ENTRY_COMPRESSED)
		return CLUSTER_COMPRESSED;
	bool host = qcow2_has_host(q, e.entry);
	if (q->extended) {
		if (e.bitmap >> (32 + sub) & 1)
			return host ? CLUSTER_ZERO_ALLOC : CLUSTER_ZERO;
		if (!host)
			return CLUSTER_UNALLOCATED;
		return e.bitmap >> sub & 1 ? CLUSTER_NORMAL : CLUSTER_UNALLOCATED_ALLOC;
	}
	if (q->h.version >= 3 && (e.entry & ENTRY_ZERO))
		return host ? CLUSTER_ZERO_ALLOC : CLUSTER_ZERO;
	return host ? CLUSTER_NORMAL : CLUSTER_UNALLOCATED;
}

/* Subclusters of the entry from `sub` on that are of one type. */
static unsigned same_type(const struct qcow2 *q, struct qcow2_entry e, unsigned sub,
			  enum qcow2_type type)
{
	unsigned n = 0;
	while (sub + n < q->subs && qcow2_sub_type(q, e, sub + n) == type)
		n++;
	return n;
}

int qcow2_map(struct qcow2 *q, uint64_t offset, uint64_t len, struct qcow2_map *m)
{
	struct qcow2_table *l2;
	uint32_t in_cluster = (uint32_t)offset & (q->cluster_size - 1);
	uint32_t index = qcow2_l2_index(q, offset);
	unsigned sub = qcow2_sub_index(q, offset);
	int rc = qcow2_get_l2(q, offset, false, &l2);
	if (rc)
		return rc;
	*m = (struct qcow2_map){.type = CLUSTER_UNALLOCATED};
	uint64_t subs = (uint64_t)(q->l2_entries - index) * q->subs - sub;
	if (l2) {
		struct qcow2_entry first = qcow2_l2_entry(q, l2, index);
		m->entry = first.entry;
		m->type = qcow2_sub_type(q, first, sub);
		m->copied = first.entry & ENTRY_COPIED;
		uint64_t host = first.entry & ENTRY_OFFSET;
		bool has_host = qcow2_has_host(q, first.entry);
		if (has_host && (host & (q->cluster_size - 1)))
			return qcow2_corrupt(
				q, "L2 entry for guest offset 0x%" PRIx64 " points to 0x%" PRIx64,
				offset, host);
		m->host = host + in_cluster;
		uint64_t wanted = ((len + in_cluster - 1) >> q->h.cluster_bits) + 1;
		if (wanted > q->l2_entries - index)
			wanted = q->l2_entries - index;
		subs = same_type(q, first, sub, m->type);
		uint64_t n = 1;
		while (n < wanted && m->type != CLUSTER_COMPRESSED &&
		       subs == n * q->subs - sub) { /* all of the last entry is of this type */
			struct qcow2_entry e = qcow2_l2_entry(q, l2, index + (uint32_t)n);
			if (qcow2_has_host(q, e.entry) != has_host ||
			    !(e.entry & ENTRY_COPIED) != !m->copied ||
			    (has_host &&
			     (e.entry & ENTRY_OFFSET) != host + (n << q->h.cluster_bits)))
				break;
			subs += same_type(q, e, 0, m->type);
			n++;
		}
	}
	m->len = (subs << q->sub_bits) - (offset & (q->sub_size - 1));
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
	if (entry & ENTRY_COMPRESSED) {
		struct qcow2_range r = qcow2_compressed_extent(q, entry);
		qcow2_free_later(q, r.offset, r.len);
	} else if (q->external && qcow2_has_host(q, entry)) {
		/* Nobody counts references there: the space goes back at once. */
		if (q->img->flags & IMAGE_DISCARD)
			file_discard(q->data, entry & ENTRY_OFFSET, q->cluster_size);
	} else if (entry & ENTRY_OFFSET) {
		qcow2_free_later(q, entry & ENTRY_OFFSET, q->cluster_size);
	}
}
