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
	uint8_t *refs;        /* references found, by cluster; MANY: `many` has the number */
	uint32_t *many;       /* NULL: there are none; sticks at UINT32_MAX */
	uint64_t clusters;    /* entries of both */
	const uint8_t *block; /* the refcount block looked at last, or NULL: it is missing */
	uint64_t block_index; /* which it is; UINT64_MAX: none yet */
	bool block_bad;
	bool rebuild;      /* refcount structures are not usable as they are */
	uint64_t curable;  /* corruptions that a rebuild removes */
	uint64_t expected; /* where the next data cluster lies if nothing is fragmented */
	struct seen *seen; /* L2 tables and how many entries point to each; open addressing */
	size_t seen_count, seen_capacity;
};

enum { MANY = UINT8_MAX };

/* An L2 table is read once, however many L1 entries of the disk and its snapshots lead to it: a
 * hostile image could have millions. */
struct seen {
	uint64_t offset; /* 0: empty slot */
	uint32_t times;
	bool done, flags_done;
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

static uint64_t found_refs(const struct checker *c, uint64_t cluster)
{
	return c->refs[cluster] == MANY ? c->many[cluster] : c->refs[cluster];
}

static void add_refs(struct checker *c, uint64_t cluster, uint32_t times)
{
	uint64_t sum = found_refs(c, cluster) + times;
	if (sum < MANY) {
		c->refs[cluster] = (uint8_t)sum;
		return;
	}
	/* A page of it takes memory when it is written to. */
	if (!c->many)
		c->many = xcalloc(c->clusters, sizeof(*c->many));
	c->many[cluster] = sum < UINT32_MAX ? (uint32_t)sum : UINT32_MAX;
	c->refs[cluster] = MANY;
}

/* Takes one back. */
static void drop_ref(struct checker *c, uint64_t cluster)
{
	uint64_t n = found_refs(c, cluster);
	if (n == 0 || n == UINT32_MAX)
		return;
	if (c->refs[cluster] == MANY)
		c->many[cluster]--;
	else
		c->refs[cluster]--;
}

/* Counts `times` references to each cluster of the range. */
static void count_times(struct checker *c, uint64_t offset, uint64_t len, const char *what,
			uint32_t times)
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
		add_refs(c, i, times);
}

static void count(struct checker *c, uint64_t offset, uint64_t len, const char *what)
{
	count_times(c, offset, len, what, 1);
}

static struct seen *slot_of(struct seen *table, size_t capacity, uint64_t offset)
{
	size_t i = (size_t)(offset * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (capacity - 1);
	while (table[i].offset && table[i].offset != offset)
		i = (i + 1) & (capacity - 1);
	return &table[i];
}

/* The record of the L2 table at `offset`. */
static struct seen *seen_table(struct checker *c, uint64_t offset)
{
	if ((c->seen_count + 1) * 2 > c->seen_capacity) {
		size_t capacity = c->seen_capacity ? c->seen_capacity * 2 : 1024;
		struct seen *bigger = xcalloc(capacity, sizeof(*bigger));
		for (size_t i = 0; i < c->seen_capacity; i++)
			if (c->seen[i].offset)
				*slot_of(bigger, capacity, c->seen[i].offset) = c->seen[i];
		free(c->seen);
		c->seen = bigger;
		c->seen_capacity = capacity;
	}
	struct seen *s = slot_of(c->seen, c->seen_capacity, offset);
	if (!s->offset)
		c->seen_count++;
	s->offset = offset;
	return s;
}

static void count_bitmap(void *opaque, uint64_t offset, uint64_t len, const char *what)
{
	count(opaque, offset, len, what);
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

/* The refcount in the file, 0 where there is no block for it; false if the block is not usable.
 * Neighbours ask for the same block again and again: it stays in its cache until another one is
 * asked for. */
static bool stored_refcount(struct checker *c, uint64_t cluster, uint64_t *refs)
{
	struct qcow2 *q = c->q;
	uint64_t index = cluster / q->rb_entries;
	if (index != c->block_index) {
		uint64_t at = index < q->reftable_size ? q->reftable[index] : 0;
		c->block = NULL;
		c->block_index = index;
		c->block_bad = at & (q->cluster_size - 1) ||
			       (at && (int64_t)at >= file_size(q->img->file));
		if (!c->block_bad && qcow2_get_refblock(q, cluster, &c->block)) {
			c->block_bad = true;
			c->r->check_errors++;
		}
	}
	*refs = c->block ? qcow2_refcount_at(c->block, q->h.refcount_order,
					     cluster & (q->rb_entries - 1))
			 : 0;
	return !c->block_bad;
}

/* The copied flag of an entry must say whether the refcount is one. */
static bool wrong_flag(struct checker *c, uint64_t entry, uint64_t *refs)
{
	uint64_t offset = entry & ENTRY_OFFSET;
	return offset && !(offset & (c->q->cluster_size - 1)) &&
	       stored_refcount(c, offset >> c->q->h.cluster_bits, refs) &&
	       (*refs == 1) != !!(entry & ENTRY_COPIED);
}

static void statistics(struct checker *c, uint64_t offset)
{
	c->r->allocated_clusters++;
	if (c->expected && offset != c->expected)
		c->r->fragmented_clusters++;
	c->expected = offset + c->q->cluster_size;
}

/* True if the bitmap of an extended entry says what its offset does not allow. */
static bool bad_bitmap(struct checker *c, struct qcow2_entry e)
{
	if (!c->q->extended)
		return false;
	const char *what = NULL;
	if ((e.bitmap & BITMAP_ALLOCATED) & (e.bitmap >> 32))
		what = "a subcluster that is both allocated and zero";
	else if ((e.entry & ENTRY_COMPRESSED) && e.bitmap)
		what = "a bitmap in the entry of a compressed cluster";
	else if (!(e.entry & ENTRY_COMPRESSED) && !qcow2_has_host(c->q, e.entry) &&
		 (e.bitmap & BITMAP_ALLOCATED))
		what = "allocated subclusters without a cluster";
	if (!what)
		return false;
	complain("ERROR: L2 entry %" PRIx64 " has %s", e.entry, what);
	c->r->corruptions++;
	return true;
}

static void count_l2_entry(struct checker *c, struct qcow2_entry e, uint32_t times, bool active)
{
	struct qcow2 *q = c->q;
	bad_bitmap(c, e);
	if (e.entry & ENTRY_COMPRESSED) {
		struct qcow2_range x = qcow2_compressed_extent(q, e.entry);
		if (q->external) {
			complain("ERROR: compressed cluster %" PRIx64
				 " in an image with an external data file",
				 e.entry);
			c->r->corruptions++;
			return;
		}
		count_times(c, x.offset, x.len, "compressed cluster", times);
		if (active) {
			c->r->allocated_clusters++;
			c->r->compressed_clusters++;
			c->r->fragmented_clusters++;
		}
		return;
	}
	if (!qcow2_has_host(q, e.entry))
		return;
	uint64_t offset = e.entry & ENTRY_OFFSET;
	if (!aligned_or_complain(c, offset, "data cluster"))
		return;
	if (!q->external)
		count_times(c, offset, q->cluster_size, "data cluster", times);
	if (active)
		statistics(c, offset);
}

/* What one L2 table leads to. `active`: it belongs to the disk itself. Flags that are right now need
 * no second look, unless refcounts are going to be changed. */
static void walk_l2(struct checker *c, uint8_t *buf, struct seen *s, bool active)
{
	struct qcow2 *q = c->q;
	uint64_t hole, refs;
	bool flags_wrong = c->fix != 0;
	count_times(c, s->offset, q->cluster_size, "L2 table", s->times);
	if (s->offset >> q->h.cluster_bits >= c->clusters)
		return;
	if (file_in_hole(q->img->file, s->offset, q->cluster_size, &hole) &&
	    hole >= q->cluster_size) {
		s->flags_done = true; /* all zeroes */
		return;
	}
	if (file_pread(q->img->file, buf, q->cluster_size, s->offset)) {
		complain("ERROR: the L2 table at 0x%" PRIx64 " cannot be read", s->offset);
		c->r->check_errors++;
		return;
	}
	for (uint32_t k = 0; k < q->l2_entries; k++) {
		struct qcow2_entry e = qcow2_raw_entry(q, buf, k);
		if (!e.entry && !e.bitmap)
			continue;
		count_l2_entry(c, e, s->times, active);
		if (active && !flags_wrong && !q->external && qcow2_has_host(q, e.entry))
			flags_wrong = wrong_flag(c, e.entry, &refs);
	}
	s->flags_done = !flags_wrong;
}

/* Notes the L2 tables of an L1 table that `times` users have. The malloc'ed table (big-endian) goes
 * to *out if that is not NULL. */
static void note_l1(struct checker *c, uint64_t offset, uint32_t size, uint32_t times,
		    uint8_t **out)
{
	size_t bytes = (size_t)size * 8;
	if (!bytes)
		return;
	count_times(c, offset, bytes, "L1 table", times);
	uint8_t *l1 = bytes <= MAX_L1_BYTES ? malloc(bytes) : NULL;
	if (!l1 || file_pread(c->q->img->file, l1, bytes, offset)) {
		complain("ERROR: the L1 table at 0x%" PRIx64 " cannot be read", offset);
		c->r->check_errors++;
		free(l1);
		return;
	}
	for (uint32_t i = 0; i < size; i++) {
		uint64_t table = load_be64(l1 + (size_t)i * 8) & ENTRY_OFFSET;
		if (!table || !aligned_or_complain(c, table, "L2 table"))
			continue;
		struct seen *s = seen_table(c, table);
		if (__builtin_add_overflow(s->times, times, &s->times))
			s->times = UINT32_MAX;
	}
	if (out)
		*out = l1;
	else
		free(l1);
}

/* All L2 tables that were noted; those of the disk itself in its order, for the statistics. */
static void walk_tables(struct checker *c, const uint8_t *l1)
{
	uint8_t *buf = malloc(c->q->cluster_size);
	if (!buf) {
		c->r->check_errors++;
		return;
	}
	for (uint32_t i = 0; l1 && i < c->q->h.l1_size; i++) {
		uint64_t table = load_be64(l1 + (size_t)i * 8) & ENTRY_OFFSET;
		if (!table || table & (c->q->cluster_size - 1))
			continue;
		struct seen *s = seen_table(c, table);
		if (!s->done)
			walk_l2(c, buf, s, true);
		s->done = true;
	}
	for (size_t i = 0; i < c->seen_capacity; i++)
		if (c->seen[i].offset && !c->seen[i].done)
			walk_l2(c, buf, &c->seen[i], false);
	free(buf);
}

static int by_l1(const void *a, const void *b)
{
	const struct qcow2_snapshot *x = a, *y = b;
	if (x->l1_offset != y->l1_offset)
		return x->l1_offset < y->l1_offset ? -1 : 1;
	return x->l1_size < y->l1_size ? -1 : x->l1_size > y->l1_size;
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
	/* Tables that several snapshots claim to own are read once as well. */
	qsort(list, q->h.nb_snapshots, sizeof(*list), by_l1);
	for (uint32_t i = 0, n; i < q->h.nb_snapshots; i += n) {
		for (n = 1; i + n < q->h.nb_snapshots && by_l1(&list[i], &list[i + n]) == 0; n++)
			;
		if (aligned_or_complain(c, list[i].l1_offset, "snapshot's L1 table"))
			note_l1(c, list[i].l1_offset, list[i].l1_size, n, NULL);
	}
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
			uint64_t refs = found_refs(c, offset >> q->h.cluster_bits);
			if (refs != 1) {
				complain("ERROR refcount block %" PRIu32 " refcount=%" PRIu64, i,
					 refs);
				c->curable++;
				c->rebuild = true;
			}
		}
	}
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
		uint64_t stored, found = found_refs(c, i);
		stored_refcount(c, i, &stored);
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
static int write_anew(struct checker *c, unsigned order)
{
	uint64_t max_refcount =
		order == 6 ? UINT64_MAX : (UINT64_C(1) << (UINT64_C(1) << order)) - 1;
	uint64_t rb_entries = ((uint64_t)c->q->cluster_size * 8) >> order;
	struct qcow2 *q = c->q;
	uint64_t old = c->clusters, blocks = 0, table = 0, total;
	/* The old structures are not carried over. */
	for (uint64_t i = 0; i < q->h.reftable_clusters; i++) {
		uint64_t at = (q->h.reftable_offset >> q->h.cluster_bits) + i;
		if (at < old)
			drop_ref(c, at);
	}
	for (uint32_t i = 0; i < q->reftable_size; i++) {
		uint64_t at = q->reftable[i] >> q->h.cluster_bits;
		if (q->reftable[i] && !(q->reftable[i] & (q->cluster_size - 1)) && at < old)
			drop_ref(c, at);
	}
	do {
		total = old + blocks + table;
		blocks = div_round_up(total, rb_entries);
		table = qcow2_clusters(q, blocks * 8);
	} while (old + blocks + table != total);
	uint64_t bytes = table << q->h.cluster_bits, at = old << q->h.cluster_bits;
	if (bytes > MAX_REFTABLE_BYTES)
		return -EFBIG;
	uint8_t *block = malloc(q->cluster_size), *raw = calloc(1, bytes);
	int rc = block && raw ? 0 : -ENOMEM;
	for (uint64_t b = 0; b < blocks && !rc; b++) {
		memset(block, 0, q->cluster_size);
		for (uint64_t i = 0; i < rb_entries && b * rb_entries + i < total; i++) {
			uint64_t cluster = b * rb_entries + i;
			uint64_t refs = cluster < old ? found_refs(c, cluster) : 1;
			if (refs > max_refcount)
				rc = -ERANGE;
			qcow2_refcount_put(block, order, i, refs);
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
	/* Place and width change with one write. */
	uint8_t head[H_FULL_LENGTH];
	if (!rc)
		rc = file_pread(q->img->file, head, sizeof(head), 0);
	if (!rc) {
		size_t len = q->h.version < 3 ? H_V2_LENGTH : sizeof(head);
		store_be64(head + H_REFTABLE_OFFSET, table_at);
		store_be32(head + H_REFTABLE_CLUSTERS, (uint32_t)table);
		if (q->h.version >= 3)
			store_be32(head + H_REFCOUNT_ORDER, order);
		rc = file_pwrite(q->img->file, head, len, 0);
	}
	/* Before anything is written into the old ones, which are free from here on. */
	if (!rc)
		rc = file_flush(q->img->file);
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
	q->h.refcount_order = order;
	q->rb_entries = (uint32_t)rb_entries;
	q->max_refcount = max_refcount;
	q->free_hint = 0;
	q->high_water = total << q->h.cluster_bits;
	c->r->image_end_offset = q->high_water;
	c->block_index = UINT64_MAX;
	return qcow2_load_reftable(q, NULL);
}

/* wrong_flag() of an entry (after repairs), with a sentence and, if wanted, a repair. */
static bool repair_flag(struct checker *c, uint64_t entry, const char *kind, const char *where,
			uint64_t index)
{
	uint64_t refs;
	if (!wrong_flag(c, entry, &refs))
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
		if (repair_flag(c, q->l1[i], "L2", "l1_index", i)) {
			uint8_t raw[8];
			q->l1[i] ^= ENTRY_COPIED;
			store_be64(raw, q->l1[i]);
			int rc =
				file_pwrite(q->img->file, raw, 8, q->h.l1_offset + (uint64_t)i * 8);
			if (rc)
				return rc;
		}
		struct seen *s = seen_table(c, offset);
		if (s->flags_done)
			continue;
		s->flags_done = true;
		uint64_t guest = (uint64_t)i << (q->h.cluster_bits + q->l2_bits);
		int rc = qcow2_get_l2(q, guest, false, &l2);
		if (rc || !l2)
			continue;
		/* Data in an external file has no refcounts. */
		for (uint32_t k = 0; k < q->l2_entries && !q->external; k++) {
			struct qcow2_entry e = qcow2_l2_entry(q, l2, k);
			if (!qcow2_has_host(q, e.entry) ||
			    !repair_flag(c, e.entry, "data", "l2_entry", k))
				continue;
			e.entry ^= ENTRY_COPIED;
			qcow2_set_l2_entry(q, l2, k, e);
		}
	}
	return c->fix ? qcow2_write_tables(q) : 0;
}

/* Counts all references. */
static int examine(struct checker *c, struct error *err)
{
	struct qcow2 *q = c->q;
	int64_t size = file_size(q->img->file);
	if (size < 0)
		return error_errno(err, (int)-size, "cannot check '%s'", q->img->path);
	/* The last cluster may be there in part or, while nothing was written to it, not at all. */
	c->clusters = qcow2_clusters(q, (uint64_t)size) + 1;
	if (c->clusters > SIZE_MAX / sizeof(*c->many))
		return error_set(err, EFBIG, "cannot check '%s': it is too large", q->img->path);
	c->refs = calloc(c->clusters, sizeof(*c->refs));
	if (!c->refs)
		return error_errno(err, ENOMEM, "cannot check '%s'", q->img->path);
	if (!q->reftable) {
		int rc = qcow2_load_reftable(q, err);
		if (rc)
			return rc;
	}
	uint8_t *l1 = NULL;
	count(c, 0, q->cluster_size, "header");
	note_l1(c, q->h.l1_offset, q->h.l1_size, 1, &l1);
	check_snapshots(c);
	qcow2_count_bitmaps(q, count_bitmap, c);
	walk_tables(c, l1);
	free(l1);
	check_refblocks(c);
	return 0;
}

int qcow2_set_refcount_order(struct qcow2 *q, unsigned order, struct error *err)
{
	struct image_check r = {0};
	struct checker c = {.q = q, .r = &r, .block_index = UINT64_MAX};
	int rc = examine(&c, err);
	if (!rc && (r.corruptions || r.check_errors || c.curable))
		rc = error_set(err, EIO, "'%s' is damaged; repair it first", q->img->path);
	if (!rc)
		rc = write_anew(&c, order);
	free(c.refs);
	free(c.many);
	free(c.seen);
	return rc;
}

int qcow2_check_locked(struct qcow2 *q, int fix, struct image_check *r, struct error *err)
{
	struct checker c = {.q = q, .r = r, .fix = fix, .block_index = UINT64_MAX};
	int rc = examine(&c, err);
	if (rc)
		goto out;
	r->total_clusters = qcow2_clusters(q, q->h.size);
	compare(&c);
	if (c.rebuild && (fix & IMAGE_FIX_ERRORS) && !r->check_errors) {
		complain("Rebuilding refcount structure");
		rc = write_anew(&c, q->h.refcount_order);
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
	free(c.many);
	free(c.seen);
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
