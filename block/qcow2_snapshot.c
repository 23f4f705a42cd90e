/* SPDX-License-Identifier: MIT */
/*
 * Internal snapshots (spec, "Snapshots"): a snapshot is a copy of the L1 table; everything it leads
 * to gets one more reference, and the copied flags of the active tables are cleared, so that later
 * writes go to new clusters.
 *
 * Order: the new references are on disk before anything uses them; a table that replaces another is
 * written elsewhere and then entered in the header; the old one is freed last.
 */
#include "block/qcow2.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { ENTRY_FIXED = 40, EXTRA_KNOWN = 24 };

void qcow2_free_snapshots(struct qcow2_snapshot *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(list[i].id);
		free(list[i].name);
		free(list[i].extra);
	}
	free(list);
}

/* Parses one entry of at most `room` bytes; its length or 0 if it is damaged. */
static uint64_t parse_entry(struct qcow2_snapshot *s, const uint8_t *b, uint64_t room)
{
	if (room < ENTRY_FIXED)
		return 0;
	uint32_t id = load_be16(b + 12), name = load_be16(b + 14), extra = load_be32(b + 36);
	uint64_t len = (uint64_t)ENTRY_FIXED + extra + id + name;
	if (len > room || extra > 1024)
		return 0;
	*s = (struct qcow2_snapshot){.l1_offset = load_be64(b),
				     .l1_size = load_be32(b + 8),
				     .date_sec = load_be32(b + 16),
				     .date_nsec = load_be32(b + 20),
				     .vm_clock_ns = load_be64(b + 24),
				     .vm_state_size = load_be32(b + 32),
				     .extra_size = extra};
	if (s->l1_size > MAX_L1_BYTES / 8)
		return 0;
	b += ENTRY_FIXED;
	s->extra = xmalloc(extra);
	memcpy(s->extra, b, extra);
	if (extra >= 8)
		s->vm_state_size = load_be64(b);
	if (extra >= 16)
		s->disk_size = load_be64(b + 8);
	b += extra;
	s->id = strndup((const char *)b, id);
	s->name = strndup((const char *)b + id, name);
	return round_up(len, 8);
}

int qcow2_read_snapshots(struct qcow2 *q, struct qcow2_snapshot **list, uint64_t *bytes,
			 struct error *err)
{
	uint32_t n = q->h.nb_snapshots;
	int64_t size = file_size(q->img->file);
	uint64_t room =
		size > (int64_t)q->h.snapshots_offset ? (uint64_t)size - q->h.snapshots_offset : 0;
	*list = NULL;
	*bytes = 0;
	if (!n)
		return 0;
	if (room > MAX_SNAPSHOT_TABLE)
		room = MAX_SNAPSHOT_TABLE;
	/* Entries are padded to 8 bytes; the last one's padding may be behind the end. */
	uint8_t *raw = calloc(1, room + 8);
	int rc = raw ? file_pread(q->img->file, raw, room, q->h.snapshots_offset) : -ENOMEM;
	if (rc) {
		free(raw);
		return error_errno(err, -rc, "the snapshots of '%s' cannot be read", q->img->path);
	}
	struct qcow2_snapshot *s = xcalloc(n, sizeof(*s));
	uint64_t at = 0;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t len = at < room ? parse_entry(&s[i], raw + at, room - at) : 0;
		if (!len) {
			free(raw);
			qcow2_free_snapshots(s, n);
			return error_set(err, EINVAL, "snapshot %" PRIu32 " of '%s' is damaged", i,
					 q->img->path);
		}
		if (!s[i].disk_size)
			s[i].disk_size = q->h.size;
		at += len;
	}
	free(raw);
	*list = s;
	*bytes = at;
	return 0;
}

/* Writes a new table with these entries, enters it in the header and frees the old one. */
static int write_snapshots(struct qcow2 *q, const struct qcow2_snapshot *list, uint32_t n,
			   uint64_t old_bytes)
{
	uint64_t bytes = 0;
	for (uint32_t i = 0; i < n; i++)
		bytes += round_up((uint64_t)ENTRY_FIXED +
					  (list[i].extra_size > EXTRA_KNOWN ? list[i].extra_size
									    : EXTRA_KNOWN) +
					  strlen(list[i].id) + strlen(list[i].name),
				  8);
	if (bytes > MAX_SNAPSHOT_TABLE)
		return -EFBIG;
	uint64_t at = 0;
	int rc = 0;
	if (n) {
		uint8_t *raw = calloc(1, bytes), *b = raw;
		int64_t where = raw ? qcow2_alloc_clusters(q, qcow2_clusters(q, bytes)) : -ENOMEM;
		for (uint32_t i = 0; i < n && raw; i++) {
			const struct qcow2_snapshot *s = &list[i];
			uint32_t extra = s->extra_size > EXTRA_KNOWN ? s->extra_size : EXTRA_KNOWN;
			size_t id = strlen(s->id), name = strlen(s->name);
			store_be64(b, s->l1_offset);
			store_be32(b + 8, s->l1_size);
			store_be16(b + 12, (uint16_t)id);
			store_be16(b + 14, (uint16_t)name);
			store_be32(b + 16, s->date_sec);
			store_be32(b + 20, s->date_nsec);
			store_be64(b + 24, s->vm_clock_ns);
			store_be32(b + 32, (uint32_t)s->vm_state_size);
			store_be32(b + 36, extra);
			/* icount: -1 says that it is not known */
			store_be64(b + ENTRY_FIXED + 16, UINT64_MAX);
			if (s->extra_size)
				memcpy(b + ENTRY_FIXED, s->extra, s->extra_size);
			store_be64(b + ENTRY_FIXED, s->vm_state_size);
			store_be64(b + ENTRY_FIXED + 8, s->disk_size);
			memcpy(b + ENTRY_FIXED + extra, s->id, id);
			memcpy(b + ENTRY_FIXED + extra + id, s->name, name);
			b += round_up((uint64_t)ENTRY_FIXED + extra + id + name, 8);
		}
		rc = where < 0 ? (int)where : qcow2_write_tables(q);
		if (!rc)
			rc = file_pwrite(q->img->file, raw, bytes, (uint64_t)where);
		free(raw);
		at = where > 0 ? (uint64_t)where : 0;
	}
	if (!rc)
		rc = file_flush(q->img->file);
	if (!rc) {
		uint8_t fields[12]; /* nb_snapshots and snapshots_offset adjoin */
		store_be32(fields, n);
		store_be64(fields + 4, at);
		rc = file_pwrite(q->img->file, fields, sizeof(fields), H_NB_SNAPSHOTS);
	}
	if (rc) {
		if (at)
			qcow2_free_later(q, at, bytes);
		return rc;
	}
	rc = file_flush(q->img->file);
	uint64_t old = q->h.snapshots_offset;
	bool had = q->h.nb_snapshots != 0;
	q->h.nb_snapshots = n;
	q->h.snapshots_offset = at;
	/* As long as the header on disk may be the old one, what it points to stays; so does what
	 * the old table leads to, which the callers give up next. */
	return rc || !had || !old_bytes ? rc : qcow2_add_refcount(q, old, old_bytes, -1);
}

/* One L2 entry's reference changes; returns the entry with its copied flag set right. */
static int touch_entry(struct qcow2 *q, uint64_t *entry, int delta)
{
	uint64_t refs;
	int rc = 0;
	if (*entry & ENTRY_COMPRESSED) {
		struct qcow2_range r = qcow2_compressed_extent(q, *entry);
		return delta ? qcow2_add_refcount(q, r.offset, r.len, delta) : 0;
	}
	if (!qcow2_has_host(q, *entry))
		return 0;
	uint64_t offset = *entry & ENTRY_OFFSET;
	if (delta)
		rc = qcow2_add_refcount(q, offset, q->cluster_size, delta);
	if (!rc)
		rc = qcow2_get_refcount(q, offset >> q->h.cluster_bits, &refs);
	if (!rc)
		*entry = refs == 1 ? *entry | ENTRY_COPIED : *entry & ~ENTRY_COPIED;
	return rc;
}

/*
 * Changes the references of all that an L1 table leads to by `delta` (0: only sets copied flags).
 * The flags are set in the tables only while this L1 table is the active one (`active`).
 */
static int touch_tree(struct qcow2 *q, uint64_t *l1, uint32_t size, int delta, bool active)
{
	uint8_t *l2 = malloc(q->cluster_size);
	struct qcow2_set seen = {0};
	int rc = l2 ? 0 : -ENOMEM;
	for (uint32_t i = 0; i < size && !rc; i++) {
		uint64_t offset = l1[i] & ENTRY_OFFSET, refs;
		bool changed = false;
		if (!offset)
			continue;
		/* A table that is entered twice would also be a way to keep us busy for years. */
		if (qcow2_set_has(&seen, offset >> q->h.cluster_bits)) {
			rc = qcow2_corrupt(q, "two L1 entries point to 0x%" PRIx64, offset);
			break;
		}
		qcow2_set_add(&seen, offset >> q->h.cluster_bits);
		rc = file_pread(q->img->file, l2, q->cluster_size, offset);
		for (uint32_t k = 0; k < q->l2_entries && !rc; k++) {
			uint8_t *p = l2 + ((size_t)k << qcow2_entry_bits(q));
			uint64_t old = load_be64(p), now = old;
			rc = touch_entry(q, &now, delta);
			changed |= now != old;
			store_be64(p, now);
		}
		if (!rc && active && changed) {
			rc = file_pwrite(q->img->file, l2, q->cluster_size, offset);
			qcow2_cache_forget(&q->l2_cache, offset);
		}
		if (!rc && delta)
			rc = qcow2_add_refcount(q, offset, q->cluster_size, delta);
		if (!rc)
			rc = qcow2_get_refcount(q, offset >> q->h.cluster_bits, &refs);
		if (!rc && active)
			l1[i] = refs == 1 ? l1[i] | ENTRY_COPIED : l1[i] & ~ENTRY_COPIED;
	}
	free(seen.slot);
	free(l2);
	return rc;
}

static int write_l1(struct qcow2 *q, const uint64_t *l1, uint32_t size, uint64_t offset)
{
	uint8_t *raw = malloc(size ? (size_t)size * 8 : 1);
	if (!raw)
		return -ENOMEM;
	for (uint32_t i = 0; i < size; i++)
		store_be64(raw + (size_t)i * 8, l1[i]);
	int rc = file_pwrite(q->img->file, raw, (size_t)size * 8, offset);
	free(raw);
	return rc;
}

static int find_name(const struct qcow2_snapshot *list, uint32_t n, const char *name)
{
	for (uint32_t i = 0; i < n; i++)
		if (strcmp(list[i].name, name) == 0)
			return (int)i;
	return -1;
}

static int find(const struct qcow2_snapshot *list, uint32_t n, const char *name)
{
	int by_name = find_name(list, n, name);
	if (by_name >= 0)
		return by_name;
	for (uint32_t i = 0; i < n; i++)
		if (strcmp(list[i].id, name) == 0)
			return (int)i;
	return -1;
}

/*
 * While references and copied flags change they do not agree: version 3 says so with the dirty bit,
 * and whoever opens the image for writing after a crash repairs them first.
 */
static int set_dirty(struct qcow2 *q, bool dirty)
{
	uint64_t bits = q->h.incompatible & ~(uint64_t)INCOMPAT_DIRTY;
	if (q->h.version < 3)
		return 0;
	bits |= dirty ? INCOMPAT_DIRTY : 0;
	int rc = qcow2_header_set64(q, H_INCOMPATIBLE, bits);
	if (rc)
		return rc;
	q->h.incompatible = bits;
	return file_flush(q->img->file);
}

/* External data files hold no snapshots: their clusters cannot be shared. */
static int begin(struct qcow2 *q, struct error *err)
{
	pthread_rwlock_wrlock(&q->ops);
	pthread_mutex_lock(&q->lock);
	if (q->external)
		return error_set(err, ENOTSUP,
				 "'%s' keeps its data in an external file, which cannot hold "
				 "snapshots",
				 q->img->path);
	int rc = qcow2_settle(q);
	return rc ? rc : set_dirty(q, true);
}

static int end(struct qcow2 *q, int rc, const char *what, const char *name, struct error *err)
{
	/* What was refused outright changed nothing. Otherwise the refcounts go to the file as
	 * well, of which settling leaves the freed ones in memory. */
	bool whole = rc == 0 || rc == -ENOENT || rc == -EINVAL || rc == -ENOTSUP;
	int clean = whole ? qcow2_settle(q) : 0;
	if (!clean && whole)
		clean = qcow2_cache_write(&q->rb_cache);
	if (!clean && whole)
		clean = file_flush(q->img->file);
	if (!clean && whole && (q->h.incompatible & INCOMPAT_DIRTY))
		clean = set_dirty(q, false);
	if (!rc)
		rc = clean;
	pthread_mutex_unlock(&q->lock);
	pthread_rwlock_unlock(&q->ops);
	if (rc && err && !err->code)
		error_errno(err, -rc, "cannot %s snapshot '%s' of '%s'", what, name, q->img->path);
	return rc;
}

/* Where a machine's state lies: behind the disk's end, from the next L2 table on, as QEMU has it. */
static uint64_t vm_state_start(const struct qcow2 *q)
{
	uint64_t l2_bytes = (uint64_t)q->cluster_size << q->l2_bits;
	return div_round_up(q->h.size, l2_bytes) * l2_bytes;
}

int qcow2_vm_state_pwrite(struct image *img, const void *buf, size_t len, uint64_t offset)
{
	struct qcow2 *q = qcow2_of(img);
	struct error err = ERROR_INIT;
	struct iovec iov = {(void *)buf, len};
	uint64_t l2_bytes = (uint64_t)q->cluster_size << q->l2_bits, start = vm_state_start(q);
	if (!range_in(offset, len, INT64_MAX - start) ||
	    div_round_up(start + offset + len, l2_bytes) > MAX_L1_BYTES / 8)
		return -EFBIG;
	uint32_t needed = (uint32_t)div_round_up(start + offset + len, l2_bytes);
	int rc = 0;
	pthread_mutex_lock(&q->lock);
	bool grow = needed > q->h.l1_size;
	pthread_mutex_unlock(&q->lock);
	if (grow) {
		rc = begin(q, &err);
		if (!rc && needed > q->h.l1_size)
			rc = qcow2_grow_l1(q, needed);
		rc = end(q, rc, "make room for", "a machine's state", &err);
	}
	return rc ? rc : qcow2_pwritev(img, &iov, 1, start + offset);
}

int qcow2_vm_state_pread(struct image *img, void *buf, size_t len, uint64_t offset)
{
	struct qcow2 *q = qcow2_of(img);
	struct iovec iov = {buf, len};
	uint64_t l2_bytes = (uint64_t)q->cluster_size << q->l2_bits, start = vm_state_start(q);
	uint64_t room = (uint64_t)q->h.l1_size * l2_bytes;
	if (room < start || !range_in(offset, len, room - start))
		return -EINVAL;
	return qcow2_preadv(img, &iov, 1, start + offset);
}

int qcow2_snapshot_create(struct image *img, const char *name, struct error *err)
{
	return qcow2_snapshot_save(img, name, 0, 0, err);
}

int qcow2_snapshot_save(struct image *img, const char *name, uint64_t vm_state_size,
			uint64_t vm_clock_ns, struct error *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_snapshot *list = NULL;
	struct error local = ERROR_INIT;
	uint64_t bytes = 0;
	uint32_t n = q->h.nb_snapshots;
	if (!err)
		err = &local;
	int rc = begin(q, err);
	if (!rc)
		rc = qcow2_read_snapshots(q, &list, &bytes, err);
	if (!rc && n >= MAX_SNAPSHOTS)
		rc = error_set(err, EFBIG, "'%s' has too many snapshots", img->path);
	if (rc)
		return end(q, rc, "create", name, err);

	unsigned long id = 0;
	for (uint32_t i = 0; i < n; i++) {
		unsigned long v = strtoul(list[i].id, NULL, 10);
		if (v > id)
			id = v;
	}
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	list = xrealloc(list, (n + 1) * sizeof(*list));
	list[n] = (struct qcow2_snapshot){.l1_size = q->h.l1_size,
					  .disk_size = q->h.size,
					  .date_sec = (uint32_t)now.tv_sec,
					  .date_nsec = (uint32_t)now.tv_nsec,
					  .vm_state_size = vm_state_size,
					  .vm_clock_ns = vm_clock_ns,
					  .id = xasprintf("%lu", id + 1),
					  .name = xstrdup(name)};
	/* References first, with the active flags cleared; then the copy that relies on them. */
	uint64_t l1_bytes = (uint64_t)q->h.l1_size * 8;
	uint64_t count = qcow2_clusters(q, l1_bytes);
	int64_t at = count ? qcow2_alloc_clusters(q, count) : 0;
	rc = at < 0 ? (int)at : touch_tree(q, q->l1, q->h.l1_size, 1, true);
	if (!rc)
		rc = qcow2_settle(q);
	if (!rc)
		rc = write_l1(q, q->l1, q->h.l1_size, q->h.l1_offset);
	if (!rc && count)
		rc = write_l1(q, q->l1, q->h.l1_size, (uint64_t)at);
	if (!rc) {
		list[n].l1_offset = (uint64_t)at;
		rc = write_snapshots(q, list, n + 1, bytes);
	}
	/* The snapshot has the machine's state; in the disk's own table it would only be copied on
	 * the next write there. */
	if (!rc && vm_state_size)
		rc = qcow2_drop_clusters(
			q, vm_state_start(q),
			round_up(vm_state_start(q) + vm_state_size, q->cluster_size));
	if (!rc)
		rc = qcow2_settle(q);
	qcow2_free_snapshots(list, n + 1);
	return end(q, rc, "create", name, err);
}

/* The L1 table of a snapshot, host byte order, padded with zeroes to `min_size`. */
static uint64_t *read_l1(struct qcow2 *q, const struct qcow2_snapshot *s, uint32_t min_size)
{
	uint32_t size = s->l1_size > min_size ? s->l1_size : min_size;
	uint64_t *l1 = calloc(size ? size : 1, 8);
	if (l1 && file_pread(q->img->file, l1, (size_t)s->l1_size * 8, s->l1_offset) == 0) {
		for (uint32_t i = 0; i < s->l1_size; i++)
			l1[i] = load_be64(&l1[i]);
		return l1;
	}
	free(l1);
	return NULL;
}

int qcow2_snapshot_apply(struct image *img, const char *name, struct error *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_snapshot *list = NULL;
	struct error local = ERROR_INIT;
	uint64_t bytes;
	uint64_t *l1 = NULL;
	if (!err)
		err = &local;
	int rc = begin(q, err);
	if (!rc)
		rc = qcow2_read_snapshots(q, &list, &bytes, err);
	uint32_t n = q->h.nb_snapshots;
	int i = rc ? -1 : find(list, n, name);
	if (!rc && i < 0)
		rc = error_set(err, ENOENT, "'%s' has no snapshot '%s'", img->path, name);
	uint64_t l2_bytes = (uint64_t)q->cluster_size << q->l2_bits;
	if (!rc && (list[i].disk_size > INT64_MAX - 511 ||
		    div_round_up(list[i].disk_size, l2_bytes) > list[i].l1_size))
		rc = error_set(err, EINVAL, "snapshot '%s' of '%s' is damaged", name, img->path);
	/* The snapshot's table may be longer: the disk was larger, or it holds a machine's state.
	 */
	if (!rc && list[i].l1_size > q->h.l1_size)
		rc = qcow2_grow_l1(q, list[i].l1_size);
	if (!rc && !(l1 = read_l1(q, &list[i], q->h.l1_size)))
		rc = -EIO;
	if (!rc && q->bitmaps && list[i].disk_size != q->h.size)
		rc = error_set(err, ENOTSUP,
			       "'%s' has dirty bitmaps, which are as long as the disk; the "
			       "snapshot has another size",
			       img->path);
	if (!rc) /* the whole disk changes */
		qcow2_mark_bitmaps(q, 0, q->h.size);
	/* One more reference to the snapshot's clusters; then its table becomes the active one. */
	uint64_t *old = q->l1;
	if (!rc)
		rc = touch_tree(q, l1, q->h.l1_size, 1, false);
	if (!rc)
		rc = qcow2_settle(q);
	for (uint32_t k = 0; k < q->h.l1_size && !rc; k++)
		l1[k] &= ~ENTRY_COPIED;
	if (!rc)
		rc = write_l1(q, l1, q->h.l1_size, q->h.l1_offset);
	if (!rc)
		rc = file_flush(img->file);
	if (!rc) {
		q->l1 = l1;
		l1 = NULL;
		for (uint32_t k = 0; k < q->h.l1_size; k++) {
			uint64_t off = q->l1[k] & ENTRY_OFFSET;
			qcow2_cache_forget(&q->l2_cache, old[k] & ENTRY_OFFSET);
			if (off)
				qcow2_set_add(&q->tables, off >> q->h.cluster_bits);
		}
		rc = touch_tree(q, old, q->h.l1_size, -1, false);
		if (!rc)
			rc = touch_tree(q, q->l1, q->h.l1_size, 0, true);
		if (!rc)
			rc = write_l1(q, q->l1, q->h.l1_size, q->h.l1_offset);
		qcow2_forget_decompressed(q);
		free(old);
	}
	if (!rc && list[i].disk_size != q->h.size)
		rc = qcow2_header_set64(q, H_SIZE, list[i].disk_size);
	if (!rc) {
		q->h.size = list[i].disk_size;
		__atomic_store_n(&img->size, q->h.size, __ATOMIC_RELAXED);
		rc = qcow2_settle(q);
	}
	free(l1);
	if (list)
		qcow2_free_snapshots(list, n);
	return end(q, rc, "apply", name, err);
}

int qcow2_snapshot_delete(struct image *img, const char *name, struct error *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_snapshot *list = NULL;
	struct error local = ERROR_INIT;
	uint64_t bytes = 0;
	uint64_t *l1 = NULL;
	if (!err)
		err = &local;
	int rc = begin(q, err);
	if (!rc)
		rc = qcow2_read_snapshots(q, &list, &bytes, err);
	uint32_t n = q->h.nb_snapshots;
	/* By its name alone: a number that names one no longer must not hit another's id. */
	int i = rc ? -1 : find_name(list, n, name);
	if (!rc && i < 0)
		rc = error_set(err, ENOENT, "'%s' has no snapshot '%s'", img->path, name);
	if (!rc && !(l1 = read_l1(q, &list[i], 0)))
		rc = -EIO;
	if (!rc) {
		/* Out of the table first: from then on its clusters can only leak. */
		struct qcow2_snapshot gone = list[i];
		memmove(&list[i], &list[i + 1], (n - 1 - (uint32_t)i) * sizeof(*list));
		rc = write_snapshots(q, list, n - 1, bytes);
		list[n - 1] = gone;
		if (!rc)
			rc = touch_tree(q, l1, gone.l1_size, -1, false);
		if (!rc && gone.l1_size)
			rc = qcow2_add_refcount(q, gone.l1_offset, (uint64_t)gone.l1_size * 8, -1);
		if (!rc)
			rc = touch_tree(q, q->l1, q->h.l1_size, 0, true);
		if (!rc)
			rc = write_l1(q, q->l1, q->h.l1_size, q->h.l1_offset);
		qcow2_forget_decompressed(q);
	}
	if (!rc)
		rc = qcow2_settle(q);
	free(l1);
	if (list)
		qcow2_free_snapshots(list, n);
	return end(q, rc, "delete", name, err);
}

int qcow2_snapshot_load(struct image *img, const char *name, struct error *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_snapshot *list = NULL;
	uint64_t bytes, l2_bytes = (uint64_t)q->cluster_size << q->l2_bits;
	if (image_writable(img))
		return error_set(err, EINVAL, "'%s' is open for writing", img->path);
	int rc = qcow2_read_snapshots(q, &list, &bytes, err);
	if (rc)
		return rc;
	int i = find(list, q->h.nb_snapshots, name);
	uint64_t *l1 = NULL;
	if (i < 0)
		rc = error_set(err, ENOENT, "'%s' has no snapshot '%s'", img->path, name);
	else if (div_round_up(list[i].disk_size, l2_bytes) > list[i].l1_size ||
		 !(l1 = read_l1(q, &list[i], 0)))
		rc = error_set(err, EIO, "snapshot '%s' of '%s' cannot be read", name, img->path);
	if (!rc) {
		free(q->l1);
		q->l1 = l1;
		q->h.l1_size = list[i].l1_size;
		q->h.size = list[i].disk_size;
		__atomic_store_n(&img->size, q->h.size, __ATOMIC_RELAXED);
	}
	qcow2_free_snapshots(list, q->h.nb_snapshots);
	return rc;
}
