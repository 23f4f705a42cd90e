/* SPDX-License-Identifier: MIT */
/*
 * Writing changed tables in the order that keeps the file sound (qcow2.h), and flush.
 *
 * A flush copies the changed L2 tables and the L1 table while it holds the lock, and lets go of it
 * for the syncs, so that reads and writes go on meanwhile. The tables it copied are `busy` until
 * they are in the file: thrown out of the cache they would be read back as they were before. Only
 * one flush runs at a time, and whoever holds `ops` exclusively meets none.
 */
#include "block/qcow2.h"
#include <string.h>

int qcow2_sync_files(struct qcow2 *q)
{
	int rc = q->external ? file_flush(q->data) : 0;
	return rc ? rc : file_flush(q->img->file);
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

/* Refcount blocks, and what points to new ones. *synced: the file was synced after the blocks. */
static int write_refcounts(struct qcow2 *q, bool *changed)
{
	bool reftable = q->reftable_dirty_from != q->reftable_dirty_to;
	*changed = q->rb_cache.dirty != 0 || reftable;
	int rc = q->failed ? -EIO : qcow2_cache_write(&q->rb_cache);
	if (rc || !reftable)
		return rc;
	rc = file_flush(q->img->file);
	if (!rc)
		rc = write_entries(q, q->reftable, q->h.reftable_offset, q->reftable_dirty_from,
				   q->reftable_dirty_to);
	if (!rc)
		q->reftable_dirty_from = q->reftable_dirty_to = 0;
	return rc;
}

int qcow2_write_tables(struct qcow2 *q)
{
	bool l1 = q->l1_dirty_from != q->l1_dirty_to, refs;
	int rc = write_refcounts(q, &refs);
	if (!rc && (q->l2_cache.dirty || l1)) {
		if (refs || q->data_unsynced)
			rc = qcow2_sync_files(q);
		if (!rc)
			q->data_unsynced = false;
		if (!rc)
			rc = qcow2_cache_write(&q->l2_cache);
	}
	if (!rc && l1) {
		rc = file_flush(q->img->file);
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
		rc = qcow2_sync_files(q);
	if (!rc) {
		q->data_unsynced = false;
		if (q->free_count)
			rc = qcow2_apply_frees(q);
	}
	return rc;
}

/* What a flush has to write behind the first sync. */
struct copied_table {
	struct qcow2_table *table;
	uint32_t from, to;
	uint8_t *data;
};

struct flush_job {
	struct copied_table *tables;
	size_t count;
	uint64_t *l1; /* entries [l1_from, l1_to) */
	uint64_t l1_offset;
	uint32_t l1_from, l1_to;
};

/* Takes over what is dirty. Lock held. */
static int collect(struct qcow2 *q, struct flush_job *job)
{
	struct qcow2_cache *c = &q->l2_cache;
	struct list *it;
	*job = (struct flush_job){
		.l1_offset = q->h.l1_offset, .l1_from = q->l1_dirty_from, .l1_to = q->l1_dirty_to};
	size_t l1_bytes = (size_t)(job->l1_to - job->l1_from) * 8;
	job->tables = malloc((c->dirty + 1) * sizeof(*job->tables));
	job->l1 = malloc(l1_bytes + 1);
	if (!job->tables || !job->l1)
		return -ENOMEM;
	memcpy(job->l1, q->l1 + job->l1_from, l1_bytes);
	list_for_each(it, &c->lru)
	{
		struct qcow2_table *t = list_entry(it, struct qcow2_table, lru);
		if (t->dirty_from == t->dirty_to)
			continue;
		uint8_t *data = malloc(t->dirty_to - t->dirty_from);
		if (!data)
			return -ENOMEM;
		memcpy(data, t->data + t->dirty_from, t->dirty_to - t->dirty_from);
		job->tables[job->count++] =
			(struct copied_table){t, t->dirty_from, t->dirty_to, data};
	}
	for (size_t i = 0; i < job->count; i++) {
		struct qcow2_table *t = job->tables[i].table;
		t->dirty_from = t->dirty_to = 0;
		t->busy = true;
		c->dirty--;
	}
	q->l1_dirty_from = q->l1_dirty_to = 0;
	return 0;
}

/* Lock not held. */
static int write_collected(struct qcow2 *q, const struct flush_job *job)
{
	int rc = qcow2_sync_files(q);
	for (size_t i = 0; i < job->count && !rc; i++) {
		const struct copied_table *t = &job->tables[i];
		rc = file_pwrite(q->img->file, t->data, t->to - t->from,
				 t->table->offset + t->from);
	}
	if (!rc && job->l1_from != job->l1_to) {
		rc = job->count ? file_flush(q->img->file) : 0;
		for (uint32_t i = 0; i < job->l1_to - job->l1_from; i++)
			store_be64(&job->l1[i], job->l1[i]);
		if (!rc)
			rc = file_pwrite(q->img->file, job->l1,
					 (size_t)(job->l1_to - job->l1_from) * 8,
					 job->l1_offset + (uint64_t)job->l1_from * 8);
	}
	if (!rc && (job->count || job->l1_from != job->l1_to))
		rc = file_flush(q->img->file);
	return rc;
}

/* The tables are no longer busy; after a failure they are dirty again. Lock held. */
static void release_collected(struct qcow2 *q, struct flush_job *job, bool failed)
{
	for (size_t i = 0; i < job->count; i++) {
		struct copied_table *t = &job->tables[i];
		t->table->busy = false;
		if (failed)
			qcow2_cache_dirty(&q->l2_cache, t->table, t->from, t->to - t->from);
		free(t->data);
	}
	if (failed && job->l1_from != job->l1_to) {
		bool dirty = q->l1_dirty_from != q->l1_dirty_to;
		if (!dirty || job->l1_from < q->l1_dirty_from)
			q->l1_dirty_from = job->l1_from;
		if (!dirty || job->l1_to > q->l1_dirty_to)
			q->l1_dirty_to = job->l1_to;
	}
}

/* Frees clusters that no table on disk refers to any more. Readers that found them before have to
 * end first, and what was written into them since must not go on: ops is taken exclusively. */
static int apply_frees(struct qcow2 *q, struct qcow2_range *frees, size_t count)
{
	int rc = 0;
	pthread_rwlock_wrlock(&q->ops);
	pthread_mutex_lock(&q->lock);
	for (size_t i = 0; i < count; i++) {
		int one = qcow2_add_refcount(q, frees[i].offset, frees[i].len, -1);
		rc = rc ? rc : one;
	}
	if (count)
		qcow2_forget_decompressed(q);
	pthread_mutex_unlock(&q->lock);
	pthread_rwlock_unlock(&q->ops);
	free(frees);
	return rc;
}

int qcow2_flush(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	struct flush_job job = {0};
	bool refs;
	pthread_rwlock_rdlock(&q->ops);
	pthread_mutex_lock(&q->lock);
	while (q->flushing)
		pthread_cond_wait(&q->flushed, &q->lock);
	struct qcow2_range *frees = NULL;
	size_t free_count = 0;
	int rc = image_writable(img) ? write_refcounts(q, &refs) : 0;
	if (!rc)
		rc = collect(q, &job);
	if (!rc) {
		frees = q->frees;
		free_count = q->free_count;
		q->frees = NULL;
		q->free_count = q->free_capacity = 0;
		q->freeing = 0;
		q->data_unsynced = false;
		q->flushing = true;
		pthread_mutex_unlock(&q->lock);
		rc = write_collected(q, &job);
		pthread_mutex_lock(&q->lock);
		q->flushing = false;
		pthread_cond_broadcast(&q->flushed);
		if (rc) {
			q->data_unsynced = true;
			for (size_t i = 0; i < free_count; i++)
				qcow2_free_later(q, frees[i].offset, frees[i].len);
			free_count = 0;
		}
		release_collected(q, &job, rc != 0);
	} else {
		for (size_t i = 0; i < job.count; i++)
			free(job.tables[i].data);
	}
	free(job.tables);
	free(job.l1);
	pthread_mutex_unlock(&q->lock);
	pthread_rwlock_unlock(&q->ops);
	if (free_count)
		return apply_frees(q, frees, free_count);
	free(frees);
	return rc;
}
