/* SPDX-License-Identifier: MIT */
/*
 * Reading and writing guest data (qcow2.h tells the locking).
 *
 * A write to a cluster of its own goes in place. Otherwise it takes new clusters, brings along what
 * the old ones hold outside of the written range (copy on write), and changes the L2 entries when
 * all that is in the file. Until then the guest clusters are listed in `allocs`: another write to
 * them waits, a read still sees the old contents. With subclusters only those that are written in
 * part, and those that hold data in a cluster that is left behind, are brought along.
 */
#include "block/qcow2.h"
#include <inttypes.h>
#include <string.h>

enum {
	PIECE = 64,          /* iovec entries in one transfer */
	MAX_FREEING = 16384, /* clusters that may wait to be freed before the tables are written */
};

/* A transfer of the next `len` bytes of the list with the file or the backing image. */
static int file_piece(struct qcow2 *q, bool write, struct iov_iter *it, uint64_t len, uint64_t host)
{
	while (len) {
		struct iovec part[PIECE];
		size_t covered;
		int n = iov_peek(it, (size_t)len, part, PIECE, &covered);
		int rc = write ? file_pwritev(q->data, part, n, host)
			       : file_preadv(q->data, part, n, host);
		if (rc)
			return rc;
		iov_advance(it, covered);
		host += covered;
		len -= covered;
	}
	return 0;
}

static int read_backing(struct qcow2 *q, struct iov_iter *it, uint64_t len, uint64_t offset)
{
	struct image *backing = q->img->backing;
	if (!backing || offset >= image_size(backing)) {
		iov_zero(it, len);
		return 0;
	}
	while (len) {
		struct iovec part[PIECE];
		size_t covered;
		int n = iov_peek(it, (size_t)len, part, PIECE, &covered);
		int rc = image_read_padded(backing, part, n, offset);
		if (rc)
			return rc;
		iov_advance(it, covered);
		offset += covered;
		len -= covered;
	}
	return 0;
}

/* ops is held, lock is not. */
static int read_range(struct qcow2 *q, struct iov_iter *it, uint64_t len, uint64_t offset)
{
	while (len) {
		struct qcow2_map m;
		pthread_mutex_lock(&q->lock);
		int rc = qcow2_map(q, offset, len, &m);
		pthread_mutex_unlock(&q->lock);
		if (rc)
			return rc;
		switch (m.type) {
		case CLUSTER_NORMAL: rc = file_piece(q, false, it, m.len, m.host); break;
		case CLUSTER_UNALLOCATED:
		case CLUSTER_UNALLOCATED_ALLOC: rc = read_backing(q, it, m.len, offset); break;
		case CLUSTER_COMPRESSED:
			rc = qcow2_read_compressed(
				q, m.entry, (uint32_t)offset & (q->cluster_size - 1), it, m.len);
			break;
		case CLUSTER_ZERO:
		case CLUSTER_ZERO_ALLOC: iov_zero(it, m.len); break;
		}
		if (rc)
			return rc;
		offset += m.len;
		len -= m.len;
	}
	return 0;
}

int qcow2_preadv(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	struct qcow2 *q = qcow2_of(img);
	struct iov_iter it = iov_iter(iov, iovcnt);
	pthread_rwlock_rdlock(&q->ops);
	int rc = read_range(q, &it, iov_total(iov, iovcnt), offset);
	pthread_rwlock_unlock(&q->ops);
	return rc;
}

void qcow2_wait_for_allocs(struct qcow2 *q, uint64_t offset, uint64_t *len)
{
	uint64_t first = offset >> q->h.cluster_bits;
	uint64_t last;
	struct list *it;
again:
	last = (offset + *len - 1) >> q->h.cluster_bits;
	list_for_each(it, &q->allocs)
	{
		const struct qcow2_alloc *a = list_entry(it, struct qcow2_alloc, link);
		if (a->first <= first && first < a->first + a->count) {
			pthread_cond_wait(&q->alloc_done, &q->lock);
			goto again;
		}
		if (a->first > first && a->first <= last) {
			*len = (a->first << q->h.cluster_bits) - offset;
			last = a->first - 1;
		}
	}
}

/* How the edge of a new cluster outside of the written range gets its old contents. */
struct edge {
	uint64_t offset;
	uint32_t len;
	uint8_t *data; /* NULL: nothing to write */
};

/* ops is held, lock is not. `fresh`: the host cluster reads as zeroes already. */
static int fetch_edge(struct qcow2 *q, struct edge *e, bool fresh)
{
	if (!e->len)
		return 0;
	struct qcow2_map m;
	pthread_mutex_lock(&q->lock);
	int rc = qcow2_map(q, e->offset, e->len, &m);
	pthread_mutex_unlock(&q->lock);
	if (rc)
		return rc;
	bool whole = m.len == e->len;
	bool zero = m.type == CLUSTER_ZERO || m.type == CLUSTER_ZERO_ALLOC ||
		    ((m.type == CLUSTER_UNALLOCATED || m.type == CLUSTER_UNALLOCATED_ALLOC) &&
		     image_reads_zero(q->img->backing, e->offset, e->len));
	zero &= whole; /* with subclusters the rest may be of another type */
	if (zero && fresh)
		return 0;
	e->data = calloc(1, e->len);
	if (!e->data)
		return -ENOMEM;
	if (zero)
		return 0;
	struct iovec iov = {e->data, e->len};
	struct iov_iter it = iov_iter(&iov, 1);
	return read_range(q, &it, e->len, e->offset);
}

/* Writes head, data and tail to the new clusters; one transfer where that is possible. */
static int write_new(struct qcow2 *q, struct edge *head, struct iov_iter *it, uint64_t len,
		     struct edge *tail, uint64_t host)
{
	struct iovec part[PIECE];
	size_t covered;
	int n = 0, rc;
	if (head->data)
		part[n++] = (struct iovec){head->data, head->len};
	n += iov_peek(it, (size_t)len, part + n, PIECE - 2, &covered);
	uint64_t at = host + (head->data ? 0 : head->len);
	if (covered == len) {
		if (tail->data)
			part[n++] = (struct iovec){tail->data, tail->len};
		iov_advance(it, covered);
		return file_pwritev(q->data, part, n, at);
	}
	rc = head->data ? file_pwrite(q->data, head->data, head->len, host) : 0;
	if (!rc)
		rc = file_piece(q, true, it, len, host + head->len);
	if (!rc && tail->data)
		rc = file_pwrite(q->data, tail->data, tail->len, host + head->len + len);
	return rc;
}

/* Number of clusters from `index` on, at most `max`, that a write has to allocate anew. */
static uint64_t count_new(const struct qcow2 *q, const struct qcow2_table *l2, uint32_t index,
			  uint64_t max)
{
	uint64_t n = 0;
	for (; n < max && index + n < q->l2_entries; n++) {
		uint64_t e = qcow2_l2_entry(q, l2, index + (uint32_t)n).entry;
		if (qcow2_has_host(q, e) && (e & ENTRY_COPIED))
			break;
	}
	return n;
}

/* Points the L2 entries to the new clusters, of which the guest bytes [from, to), whole
 * subclusters, are filled. Lock held. */
static int link_new(struct qcow2 *q, const struct qcow2_alloc *a, uint64_t host, bool reused,
		    uint64_t from, uint64_t to)
{
	struct qcow2_table *l2;
	uint64_t guest = a->first << q->h.cluster_bits;
	int rc = qcow2_get_l2(q, guest, true, &l2);
	if (rc)
		return rc;
	uint32_t index = qcow2_l2_index(q, guest);
	for (uint64_t i = 0; i < a->count; i++, guest += q->cluster_size) {
		struct qcow2_entry old = qcow2_l2_entry(q, l2, index + (uint32_t)i);
		struct qcow2_entry now = {(host + (i << q->h.cluster_bits)) | ENTRY_COPIED, 0};
		if (q->extended) {
			unsigned first = from > guest ? qcow2_sub_index(q, from) : 0;
			unsigned end =
				to < guest + q->cluster_size ? qcow2_sub_index(q, to) : SUBCLUSTERS;
			uint64_t filled = qcow2_sub_mask(first, end);
			now.bitmap = old.bitmap & ~(filled << 32);
			if (!reused) /* what it held was brought along */
				now.bitmap &= BITMAP_ZERO;
			if (old.entry & ENTRY_COMPRESSED)
				now.bitmap = 0;
			now.bitmap |= filled;
		}
		qcow2_set_l2_entry(q, l2, index + (uint32_t)i, now);
		if (!reused)
			qcow2_free_entry(q, old.entry);
	}
	return 0;
}

/* The first (or the last, then its end) guest byte of a cluster that a write which replaces the
 * cluster must bring along; `none` if there is no data in it. */
static uint64_t data_edge(const struct qcow2 *q, struct qcow2_entry e, uint64_t cluster, bool last,
			  uint64_t none)
{
	if (e.entry & ENTRY_COMPRESSED)
		return last ? cluster + q->cluster_size : cluster;
	uint64_t held = e.bitmap & BITMAP_ALLOCATED;
	if (!qcow2_has_host(q, e.entry) || !held)
		return none;
	unsigned sub =
		last ? 64 - (unsigned)__builtin_clzll(held) : (unsigned)__builtin_ctzll(held);
	return cluster + ((uint64_t)sub << q->sub_bits);
}

/* Which bytes around [offset, offset + len) a write has to bring along: down to *from, up to *to.
 * Lock held. */
static void find_edges(const struct qcow2 *q, const struct qcow2_table *l2, uint64_t offset,
		       uint64_t len, bool reused, uint64_t *from, uint64_t *to)
{
	uint64_t stop = offset + len;
	*from = round_down(offset, q->sub_size);
	*to = round_up(stop, q->sub_size);
	if (!q->extended || reused)
		return;
	uint64_t first = round_down(offset, q->cluster_size);
	uint64_t last = round_down(stop - 1, q->cluster_size);
	uint32_t index = qcow2_l2_index(q, offset);
	uint64_t edge = data_edge(q, qcow2_l2_entry(q, l2, index), first, false, *from);
	if (edge < *from)
		*from = edge;
	index += (uint32_t)((last - first) >> q->h.cluster_bits);
	edge = data_edge(q, qcow2_l2_entry(q, l2, index), last, true, *to);
	if (edge > *to)
		*to = edge;
}

/* Where the data of a write goes that needs new clusters or fills those that are there already.
 * Lock held. */
static int place(struct qcow2 *q, struct qcow2_alloc *a, uint64_t offset, uint64_t len,
		 const struct qcow2_map *m, bool reused, uint64_t *host, bool *fresh)
{
	uint32_t in_cluster = (uint32_t)offset & (q->cluster_size - 1);
	struct qcow2_table *l2;
	int rc = qcow2_get_l2(q, offset, true, &l2);
	if (rc)
		return rc;
	*fresh = false;
	a->count = qcow2_clusters(q, (reused ? m->len : len) + in_cluster);
	if (reused) {
		*host = m->host - in_cluster;
		if (!q->external && qcow2_hits_metadata(q, *host, a->count << q->h.cluster_bits))
			return qcow2_corrupt(
				q, "L2 entry for guest offset 0x%" PRIx64 " points into tables",
				offset);
		return 0;
	}
	a->count = count_new(q, l2, qcow2_l2_index(q, offset), a->count);
	if (a->count == 0) /* only damaged tables lead here */
		return -EIO;
	if (q->external) {
		*host = a->first << q->h.cluster_bits;
		return 0;
	}
	uint64_t water = q->high_water;
	int64_t at = qcow2_alloc_clusters(q, a->count);
	if (at < 0)
		return (int)at;
	*host = (uint64_t)at;
	*fresh = *host >= water;
	return 0;
}

/* Writes to clusters that are not ours alone, or not filled, yet. Lock held on entry and return. */
static int write_allocating(struct qcow2 *q, struct iov_iter *it, uint64_t offset, uint64_t len,
			    const struct qcow2_map *m, uint64_t *done)
{
	uint32_t in_cluster = (uint32_t)offset & (q->cluster_size - 1);
	struct qcow2_alloc a = {.first = offset >> q->h.cluster_bits};
	struct qcow2_table *l2;
	bool reused = (m->type == CLUSTER_ZERO_ALLOC || m->type == CLUSTER_UNALLOCATED_ALLOC) &&
		      m->copied;
	bool fresh;
	uint64_t host = 0, from, to;
	int rc = place(q, &a, offset, len, m, reused, &host, &fresh);
	if (rc)
		return rc;
	uint64_t room = reused ? m->len : (a.count << q->h.cluster_bits) - in_cluster;
	if (len > room)
		len = room;
	/* The table was made a moment ago and is the one used last: this reads nothing. */
	rc = qcow2_get_l2(q, offset, true, &l2);
	if (rc) {
		if (!reused && !q->external)
			qcow2_free_later(q, host, a.count << q->h.cluster_bits);
		return rc;
	}
	find_edges(q, l2, offset, len, reused, &from, &to);
	struct edge head = {.offset = from, .len = (uint32_t)(offset - from)};
	struct edge tail = {.offset = offset + len, .len = (uint32_t)(to - offset - len)};
	list_push_back(&q->allocs, &a.link);
	pthread_mutex_unlock(&q->lock);

	rc = fetch_edge(q, &head, fresh);
	if (!rc)
		rc = fetch_edge(q, &tail, fresh);
	if (!rc)
		rc = write_new(q, &head, it, len, &tail,
			       host + (from - (a.first << q->h.cluster_bits)));
	free(head.data);
	free(tail.data);

	pthread_mutex_lock(&q->lock);
	q->data_unsynced = true;
	if (!rc)
		rc = link_new(q, &a, host, reused, from, to);
	if (rc && !reused && !q->external)
		qcow2_free_later(q, host, a.count << q->h.cluster_bits);
	list_remove(&a.link);
	pthread_cond_broadcast(&q->alloc_done);
	*done = len;
	return rc;
}

/* Writes the first part of the request that can go in one way. Lock held on entry and return. */
static int write_step(struct qcow2 *q, struct iov_iter *it, uint64_t offset, uint64_t len,
		      uint64_t *done)
{
	struct qcow2_map m;
	qcow2_wait_for_allocs(q, offset, &len);
	if (q->failed)
		return -EIO;
	int rc = qcow2_map(q, offset, len, &m);
	if (rc)
		return rc;
	if (m.type != CLUSTER_NORMAL || !m.copied)
		return write_allocating(q, it, offset, len, &m, done);
	if (!q->external && qcow2_hits_metadata(q, m.host, m.len))
		return qcow2_corrupt(
			q, "L2 entry for guest offset 0x%" PRIx64 " points into tables", offset);
	pthread_mutex_unlock(&q->lock);
	rc = file_piece(q, true, it, m.len, m.host);
	pthread_mutex_lock(&q->lock);
	q->data_unsynced = true;
	*done = m.len;
	return rc;
}

int qcow2_pwritev(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	struct qcow2 *q = qcow2_of(img);
	struct iov_iter it = iov_iter(iov, iovcnt);
	uint64_t len = iov_total(iov, iovcnt);
	int rc = 0;
	qcow2_mark_bitmaps(q, offset, len);
	pthread_rwlock_rdlock(&q->ops);
	pthread_mutex_lock(&q->lock);
	while (len && !rc) {
		uint64_t done = 0;
		rc = write_step(q, &it, offset, len, &done);
		offset += done;
		len -= done;
	}
	bool settle = q->freeing > MAX_FREEING;
	pthread_mutex_unlock(&q->lock);
	pthread_rwlock_unlock(&q->ops);
	return !rc && settle ? qcow2_flush(img) : rc;
}
