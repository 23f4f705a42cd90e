/* SPDX-License-Identifier: MIT */
/*
 * Changing the set of persistent dirty bitmaps (spec, "Bitmaps extension").
 *
 * The directory is never changed in its place but for single flag words: a new one is written to
 * new clusters, then the header's extension is switched over to it, then the old one is freed. So a
 * crash leaves the old set or the new one, and at worst lost clusters. The bits of a bitmap change
 * in place while its "in use" flag says that they are not to be trusted.
 */
#include "block/qcow2_bitmap.h"
#include <string.h>

enum {
	MAX_NAME = 1023,
	EXT_BYTES = 24, /* of the header extension */
	DEFAULT_GRANULARITY_MIN = 4096,
};

/* ---- The directory ---- */

static uint8_t *lay_out_directory(const struct qcow2_bitmaps *b, uint64_t *bytes)
{
	*bytes = 0;
	for (uint32_t i = 0; i < b->count; i++)
		*bytes += round_up(DIR_ENTRY + (uint64_t)strlen(b->list[i].name), 8);
	uint8_t *raw = *bytes <= MAX_DIRECTORY ? calloc(1, *bytes + 1) : NULL, *p = raw;
	for (uint32_t i = 0; raw && i < b->count; i++) {
		const struct bitmap *m = &b->list[i];
		size_t name = strlen(m->name);
		store_be64(p, m->table_offset);
		store_be32(p + 8, m->table_size);
		store_be32(p + 12, m->flags);
		p[16] = m->type;
		p[17] = m->granularity;
		store_be16(p + 18, (uint16_t)name);
		memcpy(p + DIR_ENTRY, m->name, name);
		p += round_up(DIR_ENTRY + (uint64_t)name, 8);
	}
	return raw;
}

/* Where each bitmap's flags now lie. */
static void place_flags(struct qcow2_bitmaps *b)
{
	uint64_t at = b->dir_offset;
	for (uint32_t i = 0; i < b->count; i++) {
		b->list[i].flags_at = at + 12;
		at += round_up(DIR_ENTRY + (uint64_t)strlen(b->list[i].name), 8);
	}
}

/* Enters the directory, or that there is none, in the header. */
static int switch_header(struct qcow2 *q, uint32_t count, uint64_t offset, uint64_t bytes)
{
	uint8_t ext[EXT_BYTES] = {0};
	store_be32(ext, count);
	store_be64(ext + 8, bytes);
	store_be64(ext + 16, offset);
	qcow2_set_ext(q, EXT_BITMAPS, count ? ext : NULL, count ? sizeof(ext) : 0);
	if (count)
		q->h.autoclear |= AUTOCLEAR_BITMAPS;
	else
		q->h.autoclear &= ~(uint64_t)AUTOCLEAR_BITMAPS;
	return qcow2_rewrite_header(q);
}

static int write_directory(struct qcow2 *q)
{
	struct qcow2_bitmaps *b = q->bitmaps;
	uint64_t old = b->dir_offset, old_bytes = b->dir_size, bytes = 0;
	int64_t at = 0;
	int rc = 0;
	if (b->count) {
		uint8_t *raw = lay_out_directory(b, &bytes);
		if (!raw)
			return -ENOMEM;
		at = qcow2_alloc_clusters(q, qcow2_clusters(q, bytes));
		rc = at < 0 ? (int)at : file_pwrite(q->img->file, raw, bytes, (uint64_t)at);
		free(raw);
	}
	if (!rc)
		rc = qcow2_settle(q);
	if (!rc)
		rc = switch_header(q, b->count, (uint64_t)at, bytes);
	if (rc) {
		if (at > 0)
			qcow2_free_later(q, (uint64_t)at, bytes);
		return rc;
	}
	b->dir_offset = (uint64_t)at;
	b->dir_size = bytes;
	if (at)
		qcow2_set_add(&q->tables, b->dir_offset >> q->h.cluster_bits);
	place_flags(b);
	if (old) {
		qcow2_set_remove(&q->tables, old >> q->h.cluster_bits);
		qcow2_free_later(q, old, old_bytes);
	}
	return 0;
}

/* ---- Single operations ---- */

static int add(struct qcow2 *q, const struct image_bitmap_edit *e, struct error *err)
{
	const char *path = q->img->path;
	uint64_t granularity = e->granularity;
	if (q->h.version < 3)
		return error_set(err, ENOTSUP,
				 "'%s' is a qcow2 image of version 2 (compat=0.10), which has no "
				 "bitmaps; amend it with -o compat=1.1",
				 path);
	if (!granularity)
		granularity = q->cluster_size < DEFAULT_GRANULARITY_MIN ? DEFAULT_GRANULARITY_MIN
									: q->cluster_size;
	struct bitmap m = {.type = TYPE_DIRTY, .flags = FLAG_AUTO | FLAG_IN_USE, .changed = true};
	while (m.granularity < MAX_GRANULARITY && UINT64_C(1) << m.granularity != granularity)
		m.granularity++;
	if (m.granularity < MIN_GRANULARITY || UINT64_C(1) << m.granularity != granularity)
		return error_set(err, EINVAL,
				 "the granularity of a bitmap is a power of two from 512 to 2G");
	if (!e->name[0] || strlen(e->name) > MAX_NAME)
		return error_set(err, EINVAL, "a bitmap's name has 1 to %d bytes", MAX_NAME);
	uint64_t bytes = qcow2_bitmap_bytes(q, &m), clusters = qcow2_clusters(q, bytes);
	if (bytes > MAX_BITS || clusters > MAX_TABLE_ENTRIES)
		return error_set(
			err, EFBIG,
			"a bitmap of '%s' with this granularity would be too large; take a "
			"coarser one",
			path);
	if (!q->bitmaps) {
		q->bitmaps = xcalloc(1, sizeof(*q->bitmaps));
		pthread_mutex_init(&q->bitmaps->lock, NULL);
	}
	struct qcow2_bitmaps *b = q->bitmaps;
	if (b->count >= MAX_BITMAPS)
		return error_set(err, ENOSPC, "'%s' has %d bitmaps, and can have no more", path,
				 MAX_BITMAPS);
	m.table_size = (uint32_t)clusters;
	size_t table_bytes = (size_t)clusters * 8;
	m.bits = calloc(1, bytes + 1);
	m.table = calloc(1, table_bytes + 1);
	/* Even an empty disk's table has a place. */
	int64_t at =
		m.bits && m.table
			? qcow2_alloc_clusters(q, table_bytes ? qcow2_clusters(q, table_bytes) : 1)
			: -ENOMEM;
	int rc = at < 0 ? (int)at
			: file_write_zeroes(q->img->file, (uint64_t)at,
					    round_up(table_bytes + 1, q->cluster_size), false);
	if (rc) {
		free(m.bits);
		free(m.table);
		return error_errno(err, -rc, "cannot add a bitmap to '%s'", path);
	}
	m.table_offset = (uint64_t)at;
	m.name = xstrdup(e->name);
	qcow2_set_add(&q->tables, m.table_offset >> q->h.cluster_bits);
	b->list = xrealloc(b->list, (b->count + 1) * sizeof(*b->list));
	b->list[b->count++] = m;
	rc = write_directory(q);
	return rc ? error_errno(err, -rc, "cannot write the bitmaps of '%s'", path) : 0;
}

static int drop(struct qcow2 *q, struct bitmap *m)
{
	struct qcow2_bitmaps *b = q->bitmaps;
	struct bitmap gone = *m;
	uint32_t at = (uint32_t)(m - b->list);
	memmove(m, m + 1, (b->count - at - 1) * sizeof(*m));
	b->count--;
	int rc = write_directory(q);
	if (!rc) {
		for (uint32_t i = 0; i < gone.table_size; i++) {
			uint64_t offset = gone.table[i] & TABLE_OFFSET;
			if (!offset)
				continue;
			qcow2_set_remove(&q->tables, offset >> q->h.cluster_bits);
			qcow2_free_later(q, offset, q->cluster_size);
		}
		qcow2_set_remove(&q->tables, gone.table_offset >> q->h.cluster_bits);
		qcow2_free_later(q, gone.table_offset,
				 gone.table_size ? (uint64_t)gone.table_size * 8 : 1);
	}
	free(gone.name);
	free(gone.table);
	free(gone.bits);
	free(gone.copy);
	if (!b->count && !rc)
		qcow2_free_bitmaps(q);
	return rc;
}

static int merge(struct qcow2 *q, struct bitmap *m, const struct image_bitmap_edit *e)
{
	uint64_t size = q->h.size, count;
	for (uint64_t at = 0; at < size; at += count) {
		int dirty = image_bitmap_status(e->source, e->source_name, at, size - at, &count);
		if (dirty < 0)
			return dirty;
		if (!count)
			return -EIO;
		uint64_t last = (at + count - 1) >> m->granularity;
		for (uint64_t k = at >> m->granularity; dirty && k <= last; k++)
			m->bits[k / 8] |= (uint8_t)(1u << k % 8);
	}
	return 0;
}

/* Changes the bits; those of a disabled bitmap are in memory for that time alone. */
static int change_bits(struct qcow2 *q, struct bitmap *m, const struct image_bitmap_edit *e)
{
	bool visiting = !m->bits;
	int rc = visiting ? qcow2_bitmap_read(q, m) : 0;
	if (rc)
		return rc;
	if (e->op == BITMAP_CLEAR)
		memset(m->bits, 0, qcow2_bitmap_bytes(q, m));
	else
		rc = merge(q, m, e);
	m->changed = true;
	if (!visiting)
		return rc;
	m->flags |= FLAG_IN_USE;
	if (!rc)
		rc = qcow2_bitmap_write_flags(q, m);
	if (!rc)
		rc = file_flush(q->img->file);
	if (!rc)
		rc = qcow2_bitmap_store(q, m);
	m->flags &= ~(uint32_t)FLAG_IN_USE;
	if (!rc)
		rc = qcow2_bitmap_write_flags(q, m);
	free(m->bits);
	free(m->copy);
	m->bits = m->copy = NULL;
	return rc;
}

static int enable(struct qcow2 *q, struct bitmap *m)
{
	if (m->flags & FLAG_AUTO)
		return 0;
	int rc = m->bits ? 0 : qcow2_bitmap_read(q, m);
	if (rc)
		return rc;
	free(m->copy);
	m->copy = NULL;
	m->flags |= FLAG_AUTO | FLAG_IN_USE;
	return qcow2_bitmap_write_flags(q, m);
}

static int disable(struct qcow2 *q, struct bitmap *m)
{
	if (!(m->flags & FLAG_AUTO))
		return 0;
	int rc = m->bits && m->changed ? qcow2_bitmap_store(q, m) : 0;
	if (rc)
		return rc;
	m->flags &= ~(uint32_t)(FLAG_AUTO | FLAG_IN_USE);
	free(m->bits);
	m->bits = NULL;
	return qcow2_bitmap_write_flags(q, m);
}

/* ---- All ---- */

static int edit_one(struct qcow2 *q, const struct image_bitmap_edit *e, struct error *err)
{
	const char *path = q->img->path;
	struct bitmap *m = qcow2_bitmap_find(q, e->name);
	for (uint32_t i = 0; q->bitmaps && i < q->bitmaps->count; i++)
		if (q->bitmaps->list[i].has_extra)
			return error_set(err, ENOTSUP,
					 "bitmap '%s' of '%s' holds data that is not understood; "
					 "the bitmaps can be read but not changed",
					 q->bitmaps->list[i].name, path);
	if (e->op == BITMAP_ADD)
		return m ? error_set(err, EEXIST, "'%s' has a bitmap '%s' already", path, e->name)
			 : add(q, e, err);
	if (!m)
		return error_set(err, ENOENT, "'%s' has no bitmap '%s'", path, e->name);
	bool inconsistent = (m->flags & FLAG_IN_USE) && !m->bits;
	if (inconsistent && e->op != BITMAP_REMOVE)
		return error_set(err, EINVAL,
				 "bitmap '%s' of '%s' is inconsistent: it was in use when its "
				 "writer ended; it can only be removed",
				 e->name, path);
	int rc = e->op == BITMAP_REMOVE    ? drop(q, m)
		 : e->op == BITMAP_ENABLE  ? enable(q, m)
		 : e->op == BITMAP_DISABLE ? disable(q, m)
					   : change_bits(q, m, e);
	return rc ? error_errno(err, -rc, "cannot change bitmap '%s' of '%s'", e->name, path) : 0;
}

int qcow2_bitmap_edit(struct image *img, const struct image_bitmap_edit *e, struct error *err)
{
	struct qcow2 *q = qcow2_of(img);
	int rc = 0;
	if (e->op == BITMAP_MERGE) {
		if (image_size(e->source) != q->h.size)
			return error_set(err, EINVAL,
					 "bitmap '%s' is of a disk of another size and cannot be "
					 "merged",
					 e->source_name);
		rc = image_bitmap_open(e->source, e->source_name, err);
		if (rc)
			return rc;
	}
	pthread_rwlock_wrlock(&q->ops);
	pthread_mutex_lock(&q->lock);
	rc = edit_one(q, e, err);
	if (!rc) {
		rc = qcow2_settle(q);
		if (!rc)
			rc = file_flush(img->file);
		if (rc)
			error_errno(err, -rc, "cannot write the bitmaps of '%s'", img->path);
	}
	pthread_mutex_unlock(&q->lock);
	pthread_rwlock_unlock(&q->ops);
	return rc;
}
