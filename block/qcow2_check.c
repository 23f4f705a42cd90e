/* SPDX-License-Identifier: MIT */
/*
 * Checking and repairing: counts the references to every cluster (header, L1, L2, data, refcount
 * structures, snapshots) and compares them with the refcounts in the file, and the "copied" flags
 * with both. The messages are those of qemu-img check, so that scripts can read either.
 *
 * A refcount that is too high is a leak; one that is too low, or anything that points where it must
 * not, is a corruption. Repair corrects refcounts in place. Where a refcount block is missing or
 * unusable, all refcount structures are written anew behind the end of the file, where they cannot
 * hit data that the old ones called free.
 */
#include "block/qcow2.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct checker {
	struct qcow2 *q;
	struct image_check *r;
	int fix;
	uint32_t *refs;    /* references found, by cluster; sticks at UINT32_MAX */
	uint64_t clusters; /* entries of it */
	bool rebuild;      /* refcount structures are not usable as they are */
	uint64_t curable;  /* corruptions that a rebuild removes */
	uint64_t expected; /* where the next data cluster lies if nothing is fragmented */
};

static void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void complain(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* Counts a reference to each cluster of the range. */
static void count(struct checker *c, uint64_t offset, uint64_t len, const char *what)
{
	unsigned bits = c->q->h.cluster_bits;
	if (!len)
		return;
	if (!range_in(offset, len, MAX_HOST_OFFSET) || (offset + len - 1) >> bits >= c->clusters) {
		complain("ERROR: %s at 0x%" PRIx64 " lies behind the end of the file", what,
			 offset);
		c->r->corruptions++;
		return;
	}
	for (uint64_t i = offset >> bits; i <= (offset + len - 1) >> bits; i++)
		if (c->refs[i] != UINT32_MAX)
			c->refs[i]++;
}

static bool aligned_or_complain(struct checker *c, uint64_t offset, const char *what)
{
	if (!(offset & (c->q->cluster_size - 1)))
		return true;
	complain("ERROR offset=%" PRIx64 ": %s is not properly aligned; table entry corrupted.",
		 offset, what);
	c->r->corruptions++;
	return false;
}

static void count_l2_entry(struct checker *c, uint64_t entry, bool active)
{
	struct qcow2 *q = c->q;
	enum qcow2_type type = qcow2_entry_type(q, entry);
	if (type == CLUSTER_COMPRESSED) {
		struct qcow2_range x = qcow2_compressed_extent(q, entry);
		count(c, x.offset, x.len, "compressed cluster");
		if (active) {
			c->r->allocated_clusters++;
			c->r->compressed_clusters++;
			c->r->fragmented_clusters++;
		}
		return;
	}
	if (type != CLUSTER_NORMAL && type != CLUSTER_ZERO_ALLOC)
		return;
	uint64_t offset = entry & ENTRY_OFFSET;
	if (!aligned_or_complain(c, offset, "data cluster"))
		return;
	count(c, offset, q->cluster_size, "data cluster");
	if (active) {
		c->r->allocated_clusters++;
		if (c->expected && offset != c->expected)
			c->r->fragmented_clusters++;
		c->expected = offset + q->cluster_size;
	}
}

/* Counts what an L1 table leads to; big-endian entries as in the file. */
static void walk_l1(struct checker *c, const uint8_t *l1, uint32_t size, bool active)
{
	struct qcow2 *q = c->q;
	uint8_t *l2 = malloc(q->cluster_size);
	if (!l2) {
		c->r->check_errors++;
		return;
	}
	for (uint32_t i = 0; i < size; i++) {
		uint64_t offset = load_be64(l1 + (size_t)i * 8) & ENTRY_OFFSET;
		if (!offset || !aligned_or_complain(c, offset, "L2 table"))
			continue;
		count(c, offset, q->cluster_size, "L2 table");
		if (offset >> q->h.cluster_bits >= c->clusters)
			continue;
		if (file_pread(q->img->file, l2, q->cluster_size, offset)) {
			complain("ERROR: the L2 table at 0x%" PRIx64 " cannot be read", offset);
			c->r->check_errors++;
			continue;
		}
		for (uint32_t k = 0; k < q->l2_entries; k++)
			count_l2_entry(c, load_be64(l2 + (size_t)k * 8), active);
	}
	free(l2);
}

static void check_l1(struct checker *c, uint64_t offset, uint32_t size, bool active)
{
	size_t bytes = (size_t)size * 8;
	if (!bytes)
		return;
	count(c, offset, bytes, "L1 table");
	uint8_t *l1 = bytes <= MAX_L1_BYTES ? malloc(bytes) : NULL;
	if (!l1 || file_pread(c->q->img->file, l1, bytes, offset)) {
		complain("ERROR: the L1 table at 0x%" PRIx64 " cannot be read", offset);
		c->r->check_errors++;
	} else {
		walk_l1(c, l1, size, active);
	}
	free(l1);
}

static void check_snapshots(struct checker *c)
{
	struct qcow2 *q = c->q;
	struct qcow2_snapshot *list;
	struct error err = ERROR_INIT;
	uint64_t bytes;
	if (!q->h.nb_snapshots)
		return;
	if (qcow2_read_snapshots(q, &list, &bytes, &err)) {
		complain("ERROR: %s", err.text);
		c->r->check_errors++;
		return;
	}
	count(c, q->h.snapshots_offset, bytes, "snapshot table");
	for (uint32_t i = 0; i < q->h.nb_snapshots; i++)
		if (aligned_or_complain(c, list[i].l1_offset, "snapshot's L1 table"))
			check_l1(c, list[i].l1_offset, list[i].l1_size, false);
	qcow2_free_snapshots(list, q->h.nb_snapshots);
}

static void check_refblocks(struct checker *c)
{
	struct qcow2 *q = c->q;
	count(c, q->h.reftable_offset, (uint64_t)q->h.reftable_clusters << q->h.cluster_bits,
	      "refcount table");
	for (uint32_t i = 0; i < q->reftable_size; i++) {
		uint64_t offset = q->reftable[i];
		if (!offset)
			continue;
		if (offset & (q->cluster_size - 1)) {
			complain("ERROR refcount block %" PRIu32
				 " is not cluster aligned; refcount "
				 "table entry corrupted",
				 i);
			c->curable++;
			c->rebuild = true;
		} else if (offset >> q->h.cluster_bits >= c->clusters) {
			complain("ERROR refcount block %" PRIu32 " is outside image", i);
			c->curable++;
			c->rebuild = true;
		} else {
			count(c, offset, q->cluster_size, "refcount block");
			if (c->refs[offset >> q->h.cluster_bits] != 1) {
				complain("ERROR refcount block %" PRIu32 " refcount=%" PRIu32, i,
					 c->refs[offset >> q->h.cluster_bits]);
				c->curable++;
				c->rebuild = true;
			}
		}
	}
}

/* The refcount in the file; a missing or unusable block counts as zeroes. */
static uint64_t stored_refcount(struct checker *c, uint64_t cluster)
{
	uint64_t value = 0, i = cluster / c->q->rb_entries;
	if (i < c->q->reftable_size && (c->q->reftable[i] & (c->q->cluster_size - 1) ||
					c->q->reftable[i] >> c->q->h.cluster_bits >= c->clusters))
		return 0;
	if (qcow2_get_refcount(c->q, cluster, &value))
		c->r->check_errors++;
	return value;
}

static bool set_refcount(struct checker *c, uint64_t cluster, uint64_t to)
{
	struct qcow2 *q = c->q;
	uint64_t i = cluster / q->rb_entries;
	if (i >= q->reftable_size || !q->reftable[i] || to > q->max_refcount)
		return false;
	return qcow2_set_refcount(q, cluster, to) == 0;
}

static void compare(struct checker *c)
{
	uint64_t highest = 0;
	for (uint64_t i = 0; i < c->clusters; i++) {
		uint64_t stored = stored_refcount(c, i), found = c->refs[i];
		if (stored || found)
			highest = i + 1;
		if (stored == found)
			continue;
		bool leak = stored > found;
		bool wanted = c->fix & (leak ? IMAGE_FIX_LEAKS : IMAGE_FIX_ERRORS);
		uint64_t block = i / c->q->rb_entries;
		/* Without a block there is nothing to repair in place. */
		if (!leak && (block >= c->q->reftable_size || !c->q->reftable[block]))
			c->rebuild = true;
		bool rebuild = c->rebuild && (c->fix & IMAGE_FIX_ERRORS);
		complain("%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
			 wanted ? "Repairing"
			 : leak ? "Leaked"
				: "ERROR",
			 i, stored, found);
		if (wanted && (rebuild || set_refcount(c, i, found))) {
			if (leak)
				c->r->leaks_fixed++;
			else
				c->r->corruptions_fixed++;
		} else if (leak) {
			c->r->leaks++;
		} else {
			c->r->corruptions++;
		}
	}
	c->r->image_end_offset = highest << c->q->h.cluster_bits;
}

/* New refcount blocks and table behind the end of the file, from what was found. */
static int write_anew(struct checker *c)
{
	struct qcow2 *q = c->q;
	uint64_t old = c->clusters, blocks = 0, table = 0, total;
	/* The old structures are not carried over. */
	for (uint64_t i = 0; i < q->h.reftable_clusters; i++) {
		uint64_t at = (q->h.reftable_offset >> q->h.cluster_bits) + i;
		if (at < old && c->refs[at] && c->refs[at] != UINT32_MAX)
			c->refs[at]--;
	}
	for (uint32_t i = 0; i < q->reftable_size; i++) {
		uint64_t at = q->reftable[i] >> q->h.cluster_bits;
		if (q->reftable[i] && !(q->reftable[i] & (q->cluster_size - 1)) && at < old &&
		    c->refs[at] && c->refs[at] != UINT32_MAX)
			c->refs[at]--;
	}
	do {
		total = old + blocks + table;
		blocks = div_round_up(total, q->rb_entries);
		table = qcow2_clusters(q, blocks * 8);
	} while (old + blocks + table != total);
	uint64_t bytes = table << q->h.cluster_bits, at = old << q->h.cluster_bits;
	if (bytes > MAX_REFTABLE_BYTES)
		return -EFBIG;
	uint8_t *block = malloc(q->cluster_size), *raw = calloc(1, bytes);
	int rc = block && raw ? 0 : -ENOMEM;
	for (uint64_t b = 0; b < blocks && !rc; b++) {
		memset(block, 0, q->cluster_size);
		for (uint64_t i = 0; i < q->rb_entries && b * q->rb_entries + i < total; i++) {
			uint64_t cluster = b * q->rb_entries + i;
			uint64_t refs = cluster < old ? c->refs[cluster] : 1;
			if (refs > q->max_refcount)
				rc = -ERANGE;
			qcow2_refcount_put(block, q->h.refcount_order, i, refs);
		}
		store_be64(raw + b * 8, at + (b << q->h.cluster_bits));
		if (!rc)
			rc = file_pwrite(q->img->file, block, q->cluster_size,
					 at + (b << q->h.cluster_bits));
	}
	uint64_t table_at = at + (blocks << q->h.cluster_bits);
	if (!rc)
		rc = file_pwrite(q->img->file, raw, bytes, table_at);
	if (!rc)
		rc = file_flush(q->img->file);
	if (!rc) {
		uint8_t fields[12];
		store_be64(fields, table_at);
		store_be32(fields + 8, (uint32_t)table);
		rc = file_pwrite(q->img->file, fields, sizeof(fields), H_REFTABLE_OFFSET);
	}
	free(block);
	free(raw);
	if (rc)
		return rc;
	for (uint32_t i = 0; i < q->reftable_size; i++) {
		qcow2_cache_forget(&q->rb_cache, q->reftable[i]);
		qcow2_set_remove(&q->tables, q->reftable[i] >> q->h.cluster_bits);
	}
	free(q->reftable);
	q->reftable = NULL;
	q->h.reftable_offset = table_at;
	q->h.reftable_clusters = (uint32_t)table;
	q->free_hint = 0;
	q->high_water = total << q->h.cluster_bits;
	c->r->image_end_offset = q->high_water;
	return qcow2_load_reftable(q, NULL);
}

/* The copied flag of an entry must say whether the refcount is one (after repairs). */
static bool wrong_flag(struct checker *c, uint64_t entry, const char *kind, const char *where,
		       uint64_t index)
{
	uint64_t refs, offset = entry & ENTRY_OFFSET;
	if (!offset || offset & (c->q->cluster_size - 1) ||
	    qcow2_get_refcount(c->q, offset >> c->q->h.cluster_bits, &refs) ||
	    (refs == 1) == !!(entry & ENTRY_COPIED))
		return false;
	bool repair = c->fix & IMAGE_FIX_ERRORS;
	complain("%s OFLAG_COPIED %s cluster: %s=%" PRIu64 " entry=%" PRIx64 " refcount=%" PRIu64,
		 repair ? "Repairing" : "ERROR", kind, where, index, entry, refs);
	if (repair)
		c->r->corruptions_fixed++;
	else
		c->r->corruptions++;
	return repair;
}

static int check_flags(struct checker *c)
{
	struct qcow2 *q = c->q;
	for (uint32_t i = 0; i < q->h.l1_size; i++) {
		uint64_t offset = q->l1[i] & ENTRY_OFFSET;
		struct qcow2_table *l2;
		if (!offset || offset & (q->cluster_size - 1) ||
		    offset >> q->h.cluster_bits >= c->clusters)
			continue;
		if (wrong_flag(c, q->l1[i], "L2", "l1_index", i)) {
			uint8_t raw[8];
			q->l1[i] ^= ENTRY_COPIED;
			store_be64(raw, q->l1[i]);
			int rc =
				file_pwrite(q->img->file, raw, 8, q->h.l1_offset + (uint64_t)i * 8);
			if (rc)
				return rc;
		}
		uint64_t guest = (uint64_t)i << (q->h.cluster_bits + q->l2_bits);
		int rc = qcow2_get_l2(q, guest, false, &l2);
		if (rc || !l2)
			continue;
		for (uint32_t k = 0; k < q->l2_entries; k++) {
			uint64_t e = qcow2_l2_entry(l2, k);
			enum qcow2_type type = qcow2_entry_type(q, e);
			if ((type == CLUSTER_NORMAL || type == CLUSTER_ZERO_ALLOC) &&
			    wrong_flag(c, e, "data", "l2_entry", k))
				qcow2_set_l2_entry(q, l2, k, e ^ ENTRY_COPIED);
		}
	}
	return c->fix ? qcow2_write_tables(q) : 0;
}

int qcow2_check_locked(struct qcow2 *q, int fix, struct image_check *r, struct error *err)
{
	struct checker c = {.q = q, .r = r, .fix = fix};
	int64_t size = file_size(q->img->file);
	if (size < 0)
		return error_errno(err, (int)-size, "cannot check '%s'", q->img->path);
	/* The last cluster may be there in part or, while nothing was written to it, not at all. */
	c.clusters = qcow2_clusters(q, (uint64_t)size) + 1;
	if (c.clusters > SIZE_MAX / sizeof(*c.refs))
		return error_set(err, EFBIG, "cannot check '%s': it is too large", q->img->path);
	c.refs = calloc(c.clusters, sizeof(*c.refs));
	if (!c.refs)
		return error_errno(err, ENOMEM, "cannot check '%s'", q->img->path);
	int rc = 0;
	if (!q->reftable)
		rc = qcow2_load_reftable(q, err);
	if (rc)
		goto out;
	r->total_clusters = qcow2_clusters(q, q->h.size);
	count(&c, 0, q->cluster_size, "header");
	check_l1(&c, q->h.l1_offset, q->h.l1_size, true);
	check_snapshots(&c);
	check_refblocks(&c);
	compare(&c);
	if (c.rebuild && (fix & IMAGE_FIX_ERRORS) && !r->check_errors) {
		complain("Rebuilding refcount structure");
		rc = write_anew(&c);
		if (rc) {
			error_errno(err, -rc, "cannot rebuild the refcounts of '%s'", q->img->path);
			goto out;
		}
		/* What was wrong with the old structures is gone with them. */
		r->corruptions_fixed += c.curable;
		c.curable = 0;
	}
	r->corruptions += c.curable;
	rc = check_flags(&c);
	if (!rc && fix)
		rc = qcow2_settle(q);
	if (!rc && (fix & IMAGE_FIX_ERRORS) && !r->corruptions && !r->check_errors &&
	    (q->h.incompatible & (INCOMPAT_DIRTY | INCOMPAT_CORRUPT))) {
		q->h.incompatible &= ~(uint64_t)(INCOMPAT_DIRTY | INCOMPAT_CORRUPT);
		rc = qcow2_header_set64(q, H_INCOMPATIBLE, q->h.incompatible);
		if (!rc)
			rc = file_flush(q->img->file);
	}
	if (rc)
		error_errno(err, -rc, "cannot repair '%s'", q->img->path);
out:
	free(c.refs);
	return rc;
}

int qcow2_check(struct image *img, int fix, struct image_check *result, struct error *err)
{
	struct qcow2 *q = qcow2_of(img);
	pthread_rwlock_wrlock(&q->ops);
	pthread_mutex_lock(&q->lock);
	int rc = image_writable(img) ? qcow2_settle(q) : 0;
	if (rc)
		error_errno(err, -rc, "cannot check '%s'", img->path);
	else
		rc = qcow2_check_locked(q, fix, result, err);
	pthread_mutex_unlock(&q->lock);
	pthread_rwlock_unlock(&q->ops);
	return rc;
}
