/* SPDX-License-Identifier: MIT */
/*
 * Persistent dirty bitmaps (spec, "Bitmaps extension").
 *
 * An enabled bitmap ("auto") records which parts of the disk were written. While the image is open
 * for writing its copy in the file is marked "in use", that is, not to be trusted; the live one is
 * in memory and goes to the file when the image is closed. Disabled bitmaps stay as they are. If
 * the directory cannot be read, a writer clears the autoclear bit, which tells everyone that the
 * bitmaps are out of date.
 *
 *   directory   entries of 24 bytes, extra data and name, padded to 8 bytes
 *   table       for each cluster of bits: its offset, or 0 / 1 for all zeroes / all ones
 *   bits        lowest bit of the first byte first, one for 2^granularity bytes of the disk
 */
#include "block/qcow2_bitmap.h"
#include <inttypes.h>
#include <string.h>

void qcow2_free_bitmaps(struct qcow2 *q)
{
	struct qcow2_bitmaps *b = q->bitmaps;
	for (uint32_t i = 0; b && i < b->count; i++) {
		free(b->list[i].name);
		free(b->list[i].table);
		free(b->list[i].bits);
		free(b->list[i].copy);
	}
	if (b) {
		pthread_mutex_destroy(&b->lock);
		free(b->list);
	}
	free(b);
	q->bitmaps = NULL;
}

uint64_t qcow2_bitmap_bytes(const struct qcow2 *q, const struct bitmap *m)
{
	return div_round_up(div_round_up(q->h.size, UINT64_C(1) << m->granularity), 8);
}

/* One directory entry of at most `room` bytes; its length or 0 if it is damaged. */
static uint64_t parse_entry(const struct qcow2 *q, struct bitmap *m, const uint8_t *p,
			    uint64_t room)
{
	if (room < DIR_ENTRY)
		return 0;
	uint32_t name = load_be16(p + 18), extra = load_be32(p + 20);
	uint64_t len = (uint64_t)DIR_ENTRY + extra + name;
	*m = (struct bitmap){.table_offset = load_be64(p),
			     .table_size = load_be32(p + 8),
			     .flags = load_be32(p + 12),
			     .type = p[16],
			     .granularity = p[17],
			     .has_extra = extra != 0};
	if (len > room || m->table_size > MAX_TABLE_ENTRIES || !m->table_offset ||
	    m->table_offset & (q->cluster_size - 1) ||
	    !range_in(m->table_offset, (uint64_t)m->table_size * 8, MAX_HOST_OFFSET))
		return 0;
	m->name = strndup((const char *)p + DIR_ENTRY + extra, name);
	return round_up(len, 8) < room ? round_up(len, 8) : room;
}

static int read_table(struct qcow2 *q, struct bitmap *m)
{
	size_t bytes = (size_t)m->table_size * 8;
	m->table = malloc(bytes + 1);
	int rc = m->table ? file_pread(q->img->file, m->table, bytes, m->table_offset) : -ENOMEM;
	for (uint32_t i = 0; i < m->table_size && !rc; i++)
		m->table[i] = load_be64(&m->table[i]);
	return rc;
}

int qcow2_load_bitmaps(struct qcow2 *q, struct error *err)
{
	const struct qcow2_ext *e = qcow2_get_ext(q, EXT_BITMAPS);
	if (!e || !(q->h.autoclear & AUTOCLEAR_BITMAPS))
		return 0;
	struct qcow2_bitmaps *b = q->bitmaps = xcalloc(1, sizeof(*b));
	pthread_mutex_init(&b->lock, NULL);
	uint32_t count = e->len >= 24 ? load_be32(e->data) : 0;
	b->dir_size = e->len >= 24 ? load_be64(e->data + 8) : 0;
	b->dir_offset = e->len >= 24 ? load_be64(e->data + 16) : 0;
	int64_t size = file_size(q->img->file);
	uint8_t *raw = NULL;
	int rc = -EINVAL;
	if (count && count <= MAX_BITMAPS && b->dir_size <= MAX_DIRECTORY && size > 0 &&
	    !(b->dir_offset & (q->cluster_size - 1)) &&
	    range_in(b->dir_offset, b->dir_size, (uint64_t)size) && b->dir_offset) {
		raw = malloc(b->dir_size + 1);
		rc = raw ? file_pread(q->img->file, raw, b->dir_size, b->dir_offset) : -ENOMEM;
	}
	uint64_t at = 0;
	b->list = xcalloc(rc ? 1 : count, sizeof(*b->list));
	for (uint32_t i = 0; i < count && !rc; i++) {
		struct bitmap *m = &b->list[i];
		uint64_t len = parse_entry(q, m, raw + at, b->dir_size - at);
		b->count = i + 1;
		m->flags_at = b->dir_offset + at + 12;
		rc = len ? read_table(q, m) : -EINVAL;
		at += len;
	}
	free(raw);
	if (rc) {
		qcow2_free_bitmaps(q);
		return error_errno(err, -rc, "its bitmaps cannot be read");
	}
	return 0;
}

/* The bits of one table entry: where they are in memory, and how many bytes. */
static uint8_t *chunk(const struct qcow2 *q, const struct bitmap *m, uint32_t i, uint64_t *len)
{
	uint64_t at = (uint64_t)i << q->h.cluster_bits, total = qcow2_bitmap_bytes(q, m);
	*len = at >= total ? 0 : total - at < q->cluster_size ? total - at : q->cluster_size;
	return m->bits + at;
}

int qcow2_bitmap_read(struct qcow2 *q, struct bitmap *m)
{
	uint64_t total = qcow2_bitmap_bytes(q, m);
	if (m->type != TYPE_DIRTY || m->granularity < MIN_GRANULARITY ||
	    m->granularity > MAX_GRANULARITY || total > MAX_BITS ||
	    m->table_size != qcow2_clusters(q, total))
		return -ENOTSUP;
	m->bits = calloc(1, total + 1);
	int rc = m->bits ? 0 : -ENOMEM;
	for (uint32_t i = 0; i < m->table_size && !rc; i++) {
		uint64_t len, offset = m->table[i] & TABLE_OFFSET;
		uint8_t *p = chunk(q, m, i, &len);
		if (offset & (q->cluster_size - 1))
			rc = -EINVAL;
		else if (offset)
			rc = file_pread(q->img->file, p, len, offset);
		else
			memset(p, m->table[i] & TABLE_ALL_ONES ? 0xff : 0, len);
	}
	if (rc) {
		free(m->bits);
		m->bits = NULL;
	}
	return rc;
}

int qcow2_bitmap_write_flags(struct qcow2 *q, const struct bitmap *m)
{
	uint8_t b[4];
	store_be32(b, m->flags);
	return file_pwrite(q->img->file, b, sizeof(b), m->flags_at);
}

int qcow2_start_bitmaps(struct qcow2 *q)
{
	struct qcow2_bitmaps *b = q->bitmaps;
	bool any = false;
	int rc = 0;
	if (!b)
		return 0;
	qcow2_set_add(&q->tables, b->dir_offset >> q->h.cluster_bits);
	for (uint32_t i = 0; i < b->count && !rc; i++) {
		struct bitmap *m = &b->list[i];
		qcow2_set_add(&q->tables, m->table_offset >> q->h.cluster_bits);
		for (uint32_t k = 0; k < m->table_size; k++)
			if (m->table[k] & TABLE_OFFSET)
				qcow2_set_add(&q->tables,
					      (m->table[k] & TABLE_OFFSET) >> q->h.cluster_bits);
		if (!(m->flags & FLAG_AUTO) || (m->flags & FLAG_IN_USE))
			continue;
		/* One that cannot be kept up to date stays marked as in use for ever. */
		if (qcow2_bitmap_read(q, m))
			warn("bitmap '%s' of '%s' cannot be kept up to date and becomes "
			     "inconsistent",
			     m->name, q->img->path);
		m->flags |= FLAG_IN_USE;
		rc = qcow2_bitmap_write_flags(q, m);
		any = true;
	}
	return rc || !any ? rc : file_flush(q->img->file);
}

void qcow2_mark_bitmaps(struct qcow2 *q, uint64_t offset, uint64_t len)
{
	struct qcow2_bitmaps *b = q->bitmaps;
	if (!b || !len || offset >= q->h.size)
		return;
	uint64_t last = len > q->h.size - offset ? q->h.size - 1 : offset + len - 1;
	pthread_mutex_lock(&b->lock);
	for (uint32_t i = 0; i < b->count; i++) {
		struct bitmap *m = &b->list[i];
		if (!m->bits)
			continue;
		for (uint64_t k = offset >> m->granularity; k <= last >> m->granularity; k++)
			m->bits[k / 8] |= (uint8_t)(1u << k % 8);
		m->changed = true;
	}
	pthread_mutex_unlock(&b->lock);
}

int qcow2_bitmap_store(struct qcow2 *q, struct bitmap *m)
{
	int rc = 0;
	for (uint32_t i = 0; i < m->table_size && !rc; i++) {
		uint64_t len, offset = m->table[i] & TABLE_OFFSET;
		const uint8_t *p = chunk(q, m, i, &len);
		bool same = len && memcmp(p, p + 1, len - 1) == 0;
		if (!offset && same && (p[0] == 0 || p[0] == 0xff)) {
			m->table[i] = p[0] ? TABLE_ALL_ONES : 0;
			continue;
		}
		if (!offset) {
			int64_t at = qcow2_alloc_clusters(q, 1);
			if (at < 0)
				return (int)at;
			m->table[i] = offset = (uint64_t)at;
			rc = file_write_zeroes(q->img->file, offset, q->cluster_size, true);
		}
		if (!rc)
			rc = file_pwrite(q->img->file, p, len, offset);
	}
	if (!rc)
		rc = qcow2_settle(q);
	uint8_t *raw = malloc((size_t)m->table_size * 8 + 1);
	if (!raw)
		return -ENOMEM;
	for (uint32_t i = 0; i < m->table_size; i++)
		store_be64(raw + (size_t)i * 8, m->table[i]);
	if (!rc)
		rc = file_pwrite(q->img->file, raw, (size_t)m->table_size * 8, m->table_offset);
	free(raw);
	return rc ? rc : file_flush(q->img->file);
}

int qcow2_store_bitmaps(struct qcow2 *q)
{
	struct qcow2_bitmaps *b = q->bitmaps;
	int first = 0;
	bool any = false;
	for (uint32_t i = 0; b && i < b->count; i++) {
		struct bitmap *m = &b->list[i];
		if (!m->bits)
			continue;
		int rc = m->changed ? qcow2_bitmap_store(q, m) : 0;
		if (!rc) {
			m->flags &= ~(uint32_t)FLAG_IN_USE;
			rc = qcow2_bitmap_write_flags(q, m);
			any = true;
		}
		first = first ? first : rc;
	}
	return first || !any ? first : file_flush(q->img->file);
}

void qcow2_count_bitmaps(struct qcow2 *q,
			 void (*count)(void *opaque, uint64_t offset, uint64_t len,
				       const char *what),
			 void *opaque)
{
	const struct qcow2_bitmaps *b = q->bitmaps;
	if (!b)
		return;
	count(opaque, b->dir_offset, b->dir_size, "bitmap directory");
	for (uint32_t i = 0; i < b->count; i++) {
		const struct bitmap *m = &b->list[i];
		count(opaque, m->table_offset, (uint64_t)m->table_size * 8, "bitmap table");
		for (uint32_t k = 0; k < m->table_size; k++)
			if (m->table[k] & TABLE_OFFSET)
				count(opaque, m->table[k] & TABLE_OFFSET, q->cluster_size,
				      "bitmap");
	}
}

void qcow2_info_bitmaps(struct qcow2 *q, struct image_info *info)
{
	const struct qcow2_bitmaps *b = q->bitmaps;
	if (!b)
		return;
	info->bitmap_count = b->count;
	info->bitmaps = xcalloc(b->count, sizeof(*info->bitmaps));
	for (uint32_t i = 0; i < b->count; i++) {
		const struct bitmap *m = &b->list[i];
		info->bitmaps[i] = (struct image_bitmap_info){
			.name = xstrdup(m->name),
			.granularity = m->granularity < 64 ? UINT64_C(1) << m->granularity : 0,
			.in_use = (m->flags & FLAG_IN_USE) && !m->bits,
			.enabled = m->flags & FLAG_AUTO,
		};
	}
}

struct bitmap *qcow2_bitmap_find(struct qcow2 *q, const char *name)
{
	struct qcow2_bitmaps *b = q->bitmaps;
	for (uint32_t i = 0; b && i < b->count; i++)
		if (strcmp(b->list[i].name, name) == 0)
			return &b->list[i];
	return NULL;
}

int qcow2_bitmap_open(struct image *img, const char *name, struct error *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct bitmap *m = qcow2_bitmap_find(q, name);
	if (!m)
		return error_set(err, ENOENT, "'%s' has no bitmap '%s'", img->path, name);
	if (m->bits || m->copy)
		return 0;
	if (m->flags & FLAG_IN_USE)
		return error_set(err, EINVAL,
				 "bitmap '%s' of '%s' is inconsistent: it was in use when its "
				 "writer ended",
				 name, img->path);
	int rc = qcow2_bitmap_read(q, m);
	if (rc)
		return error_errno(err, -rc, "cannot read bitmap '%s' of '%s'", name, img->path);
	m->copy = m->bits;
	m->bits = NULL;
	return 0;
}

int qcow2_bitmap_status(struct image *img, const char *name, uint64_t offset, uint64_t len,
			uint64_t *count)
{
	struct qcow2 *q = qcow2_of(img);
	struct bitmap *m = qcow2_bitmap_find(q, name);
	if (!m || !(m->bits || m->copy))
		return -ENOENT;
	pthread_mutex_lock(&q->bitmaps->lock);
	const uint8_t *bits = m->bits ? m->bits : m->copy;
	uint64_t k = offset >> m->granularity, last = (offset + len - 1) >> m->granularity;
	bool dirty = bits[k / 8] >> k % 8 & 1;
	while (++k <= last) {
		/* Bytes that say the same all over go at once. */
		if (k % 8 == 0 && k + 8 <= last && bits[k / 8] == (dirty ? 0xff : 0))
			k += 7;
		else if ((bits[k / 8] >> k % 8 & 1) != dirty)
			break;
	}
	pthread_mutex_unlock(&q->bitmaps->lock);
	*count = k > last ? len : (k << m->granularity) - offset;
	return dirty;
}
