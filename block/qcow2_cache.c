/* SPDX-License-Identifier: MIT */
/*
 * A bounded cache of tables of one cluster each (L2 tables, refcount blocks), and the set of
 * clusters that hold tables. The least recently used table goes first. Only the changed 512-byte
 * blocks of a table are written.
 */
#include "block/qcow2.h"
#include <string.h>

enum { DIRTY_UNIT = 512 };

void qcow2_cache_init(struct qcow2_cache *c, struct file_layer *file, uint32_t table_size,
		      unsigned max)
{
	*c = (struct qcow2_cache){.file = file, .table_size = table_size, .max = max};
	for (c->buckets = 16; c->buckets < max; c->buckets *= 2)
		;
	c->hash = xcalloc(c->buckets, sizeof(*c->hash));
	list_init(&c->lru);
}

static struct qcow2_table **bucket(const struct qcow2_cache *c, uint64_t offset)
{
	uint64_t n = offset / c->table_size * UINT64_C(0x9e3779b97f4a7c15);
	return &c->hash[(n >> 32) & (c->buckets - 1)];
}

static bool is_dirty(const struct qcow2_table *t)
{
	return t->dirty_from != t->dirty_to;
}

static void drop(struct qcow2_cache *c, struct qcow2_table *t)
{
	struct qcow2_table **p = bucket(c, t->offset);
	while (*p != t)
		p = &(*p)->next;
	*p = t->next;
	list_remove(&t->lru);
	if (is_dirty(t))
		c->dirty--;
	c->count--;
	free(t->data);
	free(t);
}

void qcow2_cache_fini(struct qcow2_cache *c)
{
	if (!c->hash)
		return;
	while (!list_empty(&c->lru))
		drop(c, list_entry(c->lru.next, struct qcow2_table, lru));
	free(c->hash);
	c->hash = NULL;
}

struct qcow2_table *qcow2_cache_find(struct qcow2_cache *c, uint64_t offset)
{
	for (struct qcow2_table *t = *bucket(c, offset); t; t = t->next) {
		if (t->offset != offset)
			continue;
		list_remove(&t->lru);
		list_push_front(&c->lru, &t->lru);
		return t;
	}
	return NULL;
}

bool qcow2_cache_must_write(const struct qcow2_cache *c)
{
	return c->count >= c->max && is_dirty(list_entry(c->lru.prev, struct qcow2_table, lru));
}

/* Makes room for one more, as far as that is possible without writing. */
static void evict(struct qcow2_cache *c)
{
	struct list *it = c->lru.prev;
	while (c->count >= c->max && it != &c->lru) {
		struct qcow2_table *t = list_entry(it, struct qcow2_table, lru);
		it = it->prev;
		if (!is_dirty(t) && !t->busy)
			drop(c, t);
	}
}

int qcow2_cache_load(struct qcow2_cache *c, uint64_t offset, bool fresh, struct qcow2_table **out)
{
	struct qcow2_table *t = malloc(sizeof(*t));
	uint8_t *data = malloc(c->table_size);
	int rc = t && data ? 0 : -ENOMEM;
	if (!rc && !fresh)
		rc = file_pread(c->file, data, c->table_size, offset);
	if (rc) {
		free(t);
		free(data);
		return rc;
	}
	if (fresh)
		memset(data, 0, c->table_size);
	evict(c);
	*t = (struct qcow2_table){.offset = offset, .data = data, .next = *bucket(c, offset)};
	*bucket(c, offset) = t;
	list_push_front(&c->lru, &t->lru);
	c->count++;
	*out = t;
	return 0;
}

void qcow2_cache_dirty(struct qcow2_cache *c, struct qcow2_table *t, uint32_t from, uint32_t len)
{
	uint32_t to = (uint32_t)round_up(from + len, DIRTY_UNIT);
	from = (uint32_t)round_down(from, DIRTY_UNIT);
	if (!is_dirty(t)) {
		c->dirty++;
		t->dirty_from = from;
		t->dirty_to = to;
		return;
	}
	if (from < t->dirty_from)
		t->dirty_from = from;
	if (to > t->dirty_to)
		t->dirty_to = to;
}

int qcow2_cache_write(struct qcow2_cache *c)
{
	struct list *it;
	int first_error = 0;
	if (!c->dirty)
		return 0;
	list_for_each(it, &c->lru)
	{
		struct qcow2_table *t = list_entry(it, struct qcow2_table, lru);
		if (!is_dirty(t))
			continue;
		int rc = file_pwrite(c->file, t->data + t->dirty_from, t->dirty_to - t->dirty_from,
				     t->offset + t->dirty_from);
		if (rc) {
			first_error = first_error ? first_error : rc;
			continue; /* stays dirty, is tried again */
		}
		t->dirty_from = t->dirty_to = 0;
		c->dirty--;
	}
	return first_error;
}

void qcow2_cache_forget(struct qcow2_cache *c, uint64_t offset)
{
	struct qcow2_table *t = qcow2_cache_find(c, offset);
	if (t)
		drop(c, t);
}

static size_t slot_of(const struct qcow2_set *set, uint64_t cluster)
{
	size_t i = (size_t)((cluster * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & (set->capacity - 1);
	while (set->slot[i] && set->slot[i] != cluster + 1)
		i = (i + 1) & (set->capacity - 1);
	return i;
}

void qcow2_set_add(struct qcow2_set *set, uint64_t cluster)
{
	if ((set->count + 1) * 2 > set->capacity) {
		struct qcow2_set bigger = {.capacity = set->capacity ? set->capacity * 2 : 64};
		bigger.slot = xcalloc(bigger.capacity, sizeof(*bigger.slot));
		for (size_t i = 0; i < set->capacity; i++) {
			if (!set->slot[i])
				continue;
			bigger.slot[slot_of(&bigger, set->slot[i] - 1)] = set->slot[i];
			bigger.count++;
		}
		free(set->slot);
		*set = bigger;
	}
	size_t i = slot_of(set, cluster);
	set->count += !set->slot[i];
	set->slot[i] = cluster + 1;
}

void qcow2_set_remove(struct qcow2_set *set, uint64_t cluster)
{
	if (!set->count)
		return;
	size_t i = slot_of(set, cluster);
	if (!set->slot[i])
		return;
	set->slot[i] = 0;
	set->count--;
	/* Linear probing: what follows in the run may have to move up. */
	for (size_t j = (i + 1) & (set->capacity - 1); set->slot[j];
	     j = (j + 1) & (set->capacity - 1)) {
		uint64_t moved = set->slot[j];
		set->slot[j] = 0;
		set->slot[slot_of(set, moved - 1)] = moved;
	}
}

bool qcow2_set_has(const struct qcow2_set *set, uint64_t cluster)
{
	return set->count && set->slot[slot_of(set, cluster)];
}
