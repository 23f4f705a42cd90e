/* SPDX-License-Identifier: MIT */
/*
 * Guest-physical memory: the flat view and accesses through it.
 *
 * Mappings are kept in a list in the order in which they were made. Each change rebuilds the whole
 * view: the starts and ends of all active mappings cut the address space into pieces; for each
 * piece the mapping of highest priority (the later one among equals) answers reads, and the same is
 * found for writes. Neighbouring pieces with the same targets are joined. A PC has about forty
 * mappings and changes them a few hundred times while it boots, so the simple method is fast
 * enough; what must be fast is the lookup, a binary search behind a one-entry cache.
 *
 * Two arrays come out: `all` covers every address, holes included, and is what lookups search;
 * `view` is the same without the holes.
 */
#include "core/memory.h"
#include "lib/bytes.h"
#include "lib/list.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct region_node {
	struct mem_region region;
	struct list link;
};

struct mem_mapping {
	struct memory *mem;
	struct mem_region *region;
	uint64_t offset, base, size;
	int priority;
	unsigned access;
	struct list link;
};

struct memory {
	bool share;                    /* memory_share_ram() was called */
	struct list regions, mappings; /* mappings: oldest first */
	struct mem_range *all, *view;
	size_t all_count, view_count;
	size_t last_hit; /* index into `all`; relaxed atomic, a hint that is always verified */
	unsigned depth;  /* of memory_begin() */
	bool changed;
	bool a20;
	struct mem_listener *listeners;
	void (*write_hook)(void *opaque, const uint8_t *host, size_t len);
	void *write_hook_opaque;
};

/* ---- the view ---- */

static uint64_t mapping_end(const struct mem_mapping *m)
{
	return m->base + m->size;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

/* The mapping that answers this kind of access at `address`, or NULL. */
static struct mem_mapping *winner(const struct memory *mem, uint64_t address,
				  enum mem_access access)
{
	struct mem_mapping *best = NULL;
	struct list *it;

	list_for_each(it, &mem->mappings)
	{
		struct mem_mapping *m = list_entry(it, struct mem_mapping, link);
		if ((m->access & access) && address >= m->base && address < mapping_end(m) &&
		    (!best || m->priority >= best->priority))
			best = m;
	}
	return best;
}

static bool same_target(struct mem_region *a, uint64_t a_offset, struct mem_region *b,
			uint64_t b_offset)
{
	return a == b && (!a || a_offset == b_offset);
}

/* True if `next` begins where `r` ends and goes on in the same regions. */
static bool continues(const struct mem_range *r, const struct mem_range *next)
{
	uint64_t length = r->end - r->start;
	return r->end == next->start &&
	       same_target(r->rd, r->rd_offset + length, next->rd, next->rd_offset) &&
	       same_target(r->wr, r->wr_offset + length, next->wr, next->wr_offset);
}

static void rebuild(struct memory *mem)
{
	size_t mappings = 0, cuts = 0;
	struct list *it;

	list_for_each(it, &mem->mappings) mappings++;

	uint64_t *cut = xcalloc(2 * mappings + 2, sizeof(*cut));
	cut[cuts++] = 0;
	cut[cuts++] = UINT64_MAX;
	list_for_each(it, &mem->mappings)
	{
		struct mem_mapping *m = list_entry(it, struct mem_mapping, link);
		if (m->access) {
			cut[cuts++] = m->base;
			cut[cuts++] = mapping_end(m);
		}
	}
	qsort(cut, cuts, sizeof(*cut), compare_u64);

	free(mem->all);
	free(mem->view);
	mem->all = xcalloc(cuts, sizeof(*mem->all));
	mem->view = xcalloc(cuts, sizeof(*mem->view));
	mem->all_count = mem->view_count = 0;
	for (size_t i = 0; i + 1 < cuts; i++) {
		struct mem_range r = {.start = cut[i], .end = cut[i + 1]};
		if (r.start == r.end)
			continue;
		struct mem_mapping *rd = winner(mem, r.start, MEM_R);
		struct mem_mapping *wr = winner(mem, r.start, MEM_W);
		if (rd) {
			r.rd = rd->region;
			r.rd_offset = rd->offset + (r.start - rd->base);
		}
		if (wr) {
			r.wr = wr->region;
			r.wr_offset = wr->offset + (r.start - wr->base);
		}
		struct mem_range *last = mem->all_count ? &mem->all[mem->all_count - 1] : NULL;
		if (last && continues(last, &r))
			last->end = r.end;
		else
			mem->all[mem->all_count++] = r;
	}
	free(cut);
	for (size_t i = 0; i < mem->all_count; i++)
		if (mem->all[i].rd || mem->all[i].wr)
			mem->view[mem->view_count++] = mem->all[i];
	__atomic_store_n(&mem->last_hit, 0, __ATOMIC_RELAXED);
	trace(TRACE_MEM, "view rebuilt: %zu ranges from %zu mappings", mem->view_count, mappings);
}

static void tell_view_changed(struct memory *mem)
{
	for (struct mem_listener *l = mem->listeners; l; l = l->next)
		if (l->view_changed)
			l->view_changed(l->opaque);
}

static void changed(struct memory *mem)
{
	if (mem->depth) {
		mem->changed = true;
		return;
	}
	mem->changed = false;
	rebuild(mem);
	tell_view_changed(mem);
}

void memory_begin(struct memory *mem)
{
	mem->depth++;
}

void memory_commit(struct memory *mem)
{
	if (--mem->depth == 0 && mem->changed)
		changed(mem);
}

struct memory *memory_new(void)
{
	struct memory *mem = xcalloc(1, sizeof(*mem));
	list_init(&mem->regions);
	list_init(&mem->mappings);
	mem->a20 = true;
	rebuild(mem);
	return mem;
}

void memory_free(struct memory *mem)
{
	struct list *it, *tmp;

	if (!mem)
		return;
	list_for_each_safe(it, tmp, &mem->mappings) free(list_entry(it, struct mem_mapping, link));
	list_for_each_safe(it, tmp, &mem->regions)
	{
		struct region_node *node = list_entry(it, struct region_node, link);
		if (node->region.host)
			munmap(node->region.host, node->region.size);
		free(node->region.dirty);
		free(node);
	}
	free(mem->all);
	free(mem->view);
	free(mem);
}

void memory_add_listener(struct memory *mem, struct mem_listener *listener)
{
	listener->next = mem->listeners;
	mem->listeners = listener;
}

void memory_remove_listener(struct memory *mem, struct mem_listener *listener)
{
	struct mem_listener **at = &mem->listeners;

	while (*at && *at != listener)
		at = &(*at)->next;
	if (*at)
		*at = listener->next;
}

/* ---- regions and mappings ---- */

static struct mem_region *region_new(struct memory *mem, const char *name, enum mem_kind kind,
				     uint64_t size)
{
	struct region_node *node = xcalloc(1, sizeof(*node));
	node->region.name = name;
	node->region.kind = kind;
	node->region.size = size;
	node->region.shared_fd = -1;
	list_push_back(&mem->regions, &node->link);
	return &node->region;
}

static struct mem_region *region_new_host(struct memory *mem, const char *name, enum mem_kind kind,
					  uint64_t size, struct error *err)
{
	char text[32];

	if (size == 0 || size % GUEST_PAGE_SIZE || size > SIZE_MAX / 2) {
		error_set(err, EINVAL, "the size of memory region '%s' is not a multiple of 4 KiB",
			  name);
		return NULL;
	}
	void *host = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (host == MAP_FAILED) {
		error_set(err, ENOMEM,
			  "the host has no room for %s of guest memory ('%s'); try a smaller -m",
			  format_size(size, text), name);
		return NULL;
	}
	struct mem_region *region = region_new(mem, name, kind, size);
	region->host = host;
	return region;
}

/* Copies the pages of a region that were touched to a file. */
static bool copy_touched(const struct mem_region *r, int fd)
{
	enum { STEP = 512 };
	unsigned char resident[STEP];

	for (uint64_t at = 0; at < r->size; at += STEP * GUEST_PAGE_SIZE) {
		uint64_t left = r->size - at, pages = left / GUEST_PAGE_SIZE;
		if (pages > STEP)
			pages = STEP;
		if (mincore(r->host + at, pages * GUEST_PAGE_SIZE, resident) < 0)
			return false;
		for (uint64_t n = 0; n < pages; n++) {
			uint64_t offset = at + n * GUEST_PAGE_SIZE;
			if (resident[n] & 1 && pwrite(fd, r->host + offset, GUEST_PAGE_SIZE,
						      (off_t)offset) != (ssize_t)GUEST_PAGE_SIZE)
				return false;
		}
	}
	return true;
}

static bool share_region(struct mem_region *r)
{
	int fd = memfd_create("minivm-ram", MFD_CLOEXEC);

	if (fd < 0)
		return false;
	if (ftruncate(fd, (off_t)r->size) < 0 || !copy_touched(r, fd) ||
	    mmap(r->host, r->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
		 fd, 0) == MAP_FAILED) {
		close(fd);
		return false;
	}
	r->shared_fd = fd;
	return true;
}

struct mem_region *mem_region_new_ram(struct memory *mem, const char *name, uint64_t size,
				      struct error *err)
{
	struct mem_region *r = region_new_host(mem, name, MEM_RAM, size, err);

	if (r && mem->share)
		share_region(r);
	return r;
}

bool memory_share_ram(struct memory *mem)
{
	for (struct list *l = mem->regions.next; l != &mem->regions; l = l->next) {
		struct mem_region *r = &container_of(l, struct region_node, link)->region;
		if (r->kind == MEM_RAM && r->shared_fd < 0 && !share_region(r))
			return false;
	}
	mem->share = true;
	return true;
}

struct mem_region *mem_region_new_rom(struct memory *mem, const char *name, uint64_t size,
				      struct error *err)
{
	return region_new_host(mem, name, MEM_ROM, size, err);
}

struct mem_region *mem_region_new_mmio(struct memory *mem, const char *name, uint64_t size,
				       const struct mmio_ops *ops, void *opaque)
{
	struct mem_region *region = region_new(mem, name, MEM_MMIO, size);
	region->ops = ops;
	region->opaque = opaque;
	return region;
}

struct mem_mapping *mem_map(struct memory *mem, struct mem_region *region, uint64_t offset,
			    uint64_t base, uint64_t size, int priority)
{
	struct mem_mapping *m = xcalloc(1, sizeof(*m));
	if (offset > region->size)
		offset = region->size;
	if (size > region->size - offset)
		size = region->size - offset;
	if (base > UINT64_MAX - size)
		base = UINT64_MAX - size;
	m->mem = mem;
	m->region = region;
	m->offset = offset;
	m->base = base;
	m->size = size;
	m->priority = priority;
	list_push_back(&mem->mappings, &m->link);
	return m;
}

void mem_mapping_set(struct mem_mapping *m, uint64_t base, unsigned access)
{
	/* A guest may program a 64-bit BAR to the very top: keep the end representable. */
	if (base > UINT64_MAX - m->size)
		access = 0;
	if (access == 0)
		base = m->base;
	if (m->base == base && m->access == access)
		return;
	trace(TRACE_MEM, "%s: %llx..%llx %s%s", m->region->name, (unsigned long long)base,
	      (unsigned long long)(base + m->size), access & MEM_R ? "r" : "-",
	      access & MEM_W ? "w" : "-");
	m->base = base;
	m->access = access;
	changed(m->mem);
}

void mem_unmap(struct mem_mapping *m)
{
	struct memory *mem;

	if (!m)
		return;
	mem = m->mem;
	bool active = m->access != 0;
	list_remove(&m->link);
	free(m);
	if (active)
		changed(mem);
}

/* ---- lookup ---- */

const struct mem_range *memory_lookup(const struct memory *mem, uint64_t gpa)
{
	size_t hit = __atomic_load_n(&mem->last_hit, __ATOMIC_RELAXED);
	const struct mem_range *r = &mem->all[hit];

	if (gpa >= r->start && gpa < r->end)
		return r;
	size_t low = 0, high = mem->all_count; /* the answer is in [low, high) */
	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;
		if (gpa >= mem->all[mid].start)
			low = mid;
		else
			high = mid;
	}
	__atomic_store_n(&((struct memory *)mem)->last_hit, low, __ATOMIC_RELAXED);
	return &mem->all[low];
}

const struct mem_range *memory_view(const struct memory *mem, size_t *count)
{
	*count = mem->view_count;
	return mem->view;
}

/* ---- dirty pages ---- */

void mem_region_log_dirty(struct memory *mem, struct mem_region *region, bool on)
{
	if (region->log_dirty == on || !region->host)
		return;
	/* Once allocated the bitmap stays: a vCPU may be marking a page at this moment. */
	if (!region->dirty) {
		uint64_t pages = region->size / GUEST_PAGE_SIZE;
		region->dirty = xcalloc(div_round_up(pages, 64), sizeof(uint64_t));
	}
	region->log_dirty = on;
	tell_view_changed(mem);
}

void mem_dirty_mark(struct mem_region *region, uint64_t offset, uint64_t len)
{
	if (!region->log_dirty || !region->dirty || len == 0 ||
	    !range_in(offset, len, region->size))
		return;
	uint64_t last = (offset + len - 1) / GUEST_PAGE_SIZE;
	for (uint64_t page = offset / GUEST_PAGE_SIZE; page <= last; page++) {
		uint64_t *word = &region->dirty[page / 64], bit = UINT64_C(1) << page % 64;
		if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit))
			__atomic_fetch_or(word, bit, __ATOMIC_RELAXED);
	}
}

static void sync_dirty(struct memory *mem, struct mem_region *region)
{
	for (struct mem_listener *l = mem->listeners; l; l = l->next)
		if (l->dirty_sync)
			l->dirty_sync(l->opaque, region);
}

bool mem_dirty_fetch(struct memory *mem, struct mem_region *region, uint64_t first_page,
		     uint64_t pages, uint64_t *bitmap)
{
	bool any = false;

	memset(bitmap, 0, div_round_up(pages, 64) * sizeof(*bitmap));
	if (!region->dirty || !range_in(first_page, pages, region->size / GUEST_PAGE_SIZE))
		return false;
	sync_dirty(mem, region);
	for (uint64_t i = 0; i < pages; i++) {
		uint64_t page = first_page + i;
		uint64_t *word = &region->dirty[page / 64], bit = UINT64_C(1) << page % 64;
		if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit))
			continue;
		__atomic_fetch_and(word, ~bit, __ATOMIC_RELAXED);
		bitmap[i / 64] |= UINT64_C(1) << i % 64;
		any = true;
	}
	if (any)
		for (struct mem_listener *l = mem->listeners; l; l = l->next)
			if (l->dirty_cleared)
				l->dirty_cleared(l->opaque, region);
	return any;
}

/* ---- accesses ---- */

static uint64_t all_ones(unsigned size)
{
	return size >= 8 ? UINT64_MAX : (UINT64_C(1) << size * 8) - 1;
}

static uint64_t region_read(struct mem_region *region, uint64_t offset, unsigned size)
{
	if (region->host)
		return load_le(region->host + offset, size);
	const struct mmio_ops *ops = region->ops;
	unsigned max = ops->max_size ? ops->max_size : 4, min = ops->min_size ? ops->min_size : 1;
	if (!ops->read)
		return all_ones(size);
	if (size < min) {
		/* Naturally aligned units of the least size, so at most two of them. */
		uint64_t at = round_down(offset, min), value = 0;
		unsigned skip = (unsigned)(offset - at), have = min - skip;
		value = ops->read(region->opaque, at, min) >> skip * 8;
		if (have < size && range_in(at + min, min, region->size))
			value |= ops->read(region->opaque, at + min, min) << have * 8;
		return value & all_ones(size);
	}
	if (size <= max)
		return ops->read(region->opaque, offset, size) & all_ones(size);
	uint64_t value = 0;
	for (unsigned done = 0; done < size; done += max)
		value |= (ops->read(region->opaque, offset + done, max) & all_ones(max))
			 << done * 8;
	return value;
}

static void region_write(struct memory *mem, struct mem_region *region, uint64_t offset,
			 unsigned size, uint64_t value)
{
	if (region->kind == MEM_ROM)
		return;
	if (region->host) {
		store_le(region->host + offset, value, size);
		mem_dirty_mark(region, offset, size);
		if (mem->write_hook)
			mem->write_hook(mem->write_hook_opaque, region->host + offset, size);
		return;
	}
	const struct mmio_ops *ops = region->ops;
	unsigned max = ops->max_size ? ops->max_size : 4;
	if (!ops->write)
		return;
	for (unsigned done = 0; done < size; done += max) {
		unsigned part = size - done < max ? size - done : max;
		ops->write(region->opaque, offset + done, part, value >> done * 8 & all_ones(part));
	}
}

uint64_t mem_mmio_read(struct memory *mem, uint64_t gpa, unsigned size)
{
	const struct mem_range *r = memory_lookup(mem, gpa);
	uint64_t value;

	if (!r->rd || !range_in(gpa - r->start, size, r->end - r->start)) {
		trace(TRACE_UNASSIGNED, "read of %u bytes at %llx", size, (unsigned long long)gpa);
		return all_ones(size);
	}
	value = region_read(r->rd, r->rd_offset + (gpa - r->start), size);
	trace(TRACE_MMIO, "read  %llx.%u -> %llx", (unsigned long long)gpa, size,
	      (unsigned long long)value);
	return value;
}

void mem_mmio_write(struct memory *mem, uint64_t gpa, unsigned size, uint64_t value)
{
	const struct mem_range *r = memory_lookup(mem, gpa);

	if (!r->wr || !range_in(gpa - r->start, size, r->end - r->start)) {
		trace(TRACE_UNASSIGNED, "write of %u bytes at %llx", size, (unsigned long long)gpa);
		return;
	}
	trace(TRACE_MMIO, "write %llx.%u <- %llx", (unsigned long long)gpa, size,
	      (unsigned long long)value);
	region_write(mem, r->wr, r->wr_offset + (gpa - r->start), size, value & all_ones(size));
}

/* Bytes of [gpa, gpa + len) within the range. */
static size_t within(const struct mem_range *r, uint64_t gpa, size_t len)
{
	uint64_t room = r->end - gpa;
	return len < room ? len : (size_t)room;
}

/* The widest aligned access of at most 4 bytes that begins at `offset` and stays within `len`. */
static unsigned mmio_unit(uint64_t offset, size_t len)
{
	if (offset % 4 == 0 && len >= 4)
		return 4;
	return offset % 2 == 0 && len >= 2 ? 2 : 1;
}

bool mem_read(struct memory *mem, uint64_t gpa, void *buf, size_t len)
{
	uint8_t *p = buf;
	bool ok = true;

	while (len) {
		const struct mem_range *r = memory_lookup(mem, gpa);
		size_t part = within(r, gpa, len);
		uint64_t offset = r->rd_offset + (gpa - r->start);
		if (gpa == UINT64_MAX) {
			memset(p, 0xFF, len);
			return false;
		}
		if (!r->rd) {
			memset(p, 0xFF, part);
			ok = false;
		} else if (r->rd->host) {
			memcpy(p, r->rd->host + offset, part);
		} else {
			/* Writes that an engine still holds back come first. */
			if (r->rd->ops->coalesce)
				sync_dirty(mem, r->rd);
			part = mmio_unit(offset, part);
			store_le(p, region_read(r->rd, offset, (unsigned)part), (unsigned)part);
		}
		p += part;
		gpa += part;
		len -= part;
	}
	return ok;
}

bool mem_write(struct memory *mem, uint64_t gpa, const void *buf, size_t len)
{
	const uint8_t *p = buf;
	bool ok = true;

	while (len) {
		const struct mem_range *r = memory_lookup(mem, gpa);
		size_t part = within(r, gpa, len);
		uint64_t offset = r->wr_offset + (gpa - r->start);
		if (gpa == UINT64_MAX)
			return false;
		if (!r->wr || r->wr->kind == MEM_ROM) {
			ok = false;
		} else if (r->wr->host) {
			memcpy(r->wr->host + offset, p, part);
			mem_dirty_mark(r->wr, offset, part);
			if (mem->write_hook)
				mem->write_hook(mem->write_hook_opaque, r->wr->host + offset, part);
		} else {
			part = mmio_unit(offset, part);
			region_write(mem, r->wr, offset, (unsigned)part,
				     load_le(p, (unsigned)part));
		}
		p += part;
		gpa += part;
		len -= part;
	}
	return ok;
}

void *mem_dma_map(struct memory *mem, uint64_t gpa, size_t *len, bool write)
{
	const struct mem_range *r = memory_lookup(mem, gpa);
	struct mem_region *region = write ? r->wr : r->rd;
	uint64_t offset = (write ? r->wr_offset : r->rd_offset) + (gpa - r->start);
	const struct mem_range *end = mem->all + mem->all_count;

	if (!region || !region->host || (write && region->kind != MEM_RAM))
		return NULL;
	/* Ranges may be cut where only the other direction changes: go on while this one does not.
	 */
	uint64_t room = r->end - gpa;
	for (r++; r < end && room < *len; r++) {
		struct mem_region *next = write ? r->wr : r->rd;
		uint64_t next_offset = write ? r->wr_offset : r->rd_offset;
		if (next != region || next_offset != offset + room)
			break;
		room += r->end - r->start;
	}
	if (*len > room)
		*len = (size_t)room;
	return region->host + offset;
}

void mem_dma_wrote(struct memory *mem, uint64_t gpa, size_t len)
{
	while (len) {
		const struct mem_range *r = memory_lookup(mem, gpa);
		size_t part = within(r, gpa, len);
		if (part == 0)
			return;
		if (r->wr && r->wr->kind == MEM_RAM) {
			uint64_t offset = r->wr_offset + (gpa - r->start);
			mem_dirty_mark(r->wr, offset, part);
			if (mem->write_hook)
				mem->write_hook(mem->write_hook_opaque, r->wr->host + offset, part);
		}
		gpa += part;
		len -= part;
	}
}

void memory_set_write_hook(struct memory *mem,
			   void (*fn)(void *opaque, const uint8_t *host, size_t len), void *opaque)
{
	mem->write_hook = fn;
	mem->write_hook_opaque = opaque;
}

/* ---- A20 ---- */

void memory_set_a20(struct memory *mem, bool on)
{
	if (mem->a20 == on)
		return;
	mem->a20 = on;
	trace(TRACE_MEM, "A20 %s", on ? "on" : "off");
	tell_view_changed(mem);
}

bool memory_a20(const struct memory *mem)
{
	return mem->a20;
}
