/* SPDX-License-Identifier: MIT */
/*
 * The cache of decoded blocks.
 *
 * A block is keyed by the host address of its first byte, so it is right wherever and in whatever
 * address space that memory is mapped; a CR3 load, a moved mapping or the A20 gate need not touch
 * the cache. Only a change of the bytes does:
 *
 *  - by a CPU: a page with blocks is marked in all write TLBs (TLB_CODE), so stores to it take the
 *    slow path, which calls code_written(). Blocks on the bytes written are dropped; the running
 *    one ends after the storing instruction.
 *  - from outside (DMA): soft_cpu_ram_written() queues the range and asks all CPUs to look before
 *    their next block. Pages of which nothing was ever decoded are left out: the decoder marks a
 *    page before it reads it, the writer asks after it has written, so one of the two sees the
 *    other.
 *
 * All CPUs on one memory share a cache; they take turns on one thread, so only the queue needs a
 * lock. Blocks lie in an arena of fixed size; when it is full everything is dropped. Dropped blocks
 * are not reused before that, so the running block stays readable until its instruction ends.
 */
#include "core/memory.h"
#include "cpu/jit.h"
#include "cpu/ops.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { ARENA_SIZE = 28 << 20 };
#define HOST_PAGE(p) ((uintptr_t)(p) & ~(uintptr_t)(GUEST_PAGE_SIZE - 1))

static struct code_cache *caches;
static pthread_mutex_t caches_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t optable_once = PTHREAD_ONCE_INIT;

/* ---- Arena ---- */

static bool arena_has(const struct code_cache *cc, size_t size)
{
	return cc->used + round_up(size, 16) <= ARENA_SIZE;
}

static void *arena_take(struct code_cache *cc, size_t size)
{
	void *p = cc->arena + cc->used;

	cc->used += round_up(size, 16);
	return p;
}

void *code_alloc(struct code_cache *cc, size_t size)
{
	return arena_has(cc, size) ? arena_take(cc, size) : NULL;
}

void code_flush(struct code_cache *cc)
{
	if (cc->jit)
		jit_cache_flush(cc);
	memset(cc->block, 0, sizeof(cc->block));
	memset(cc->page, 0, sizeof(cc->page));
	memset(cc->dropped, 0, sizeof(cc->dropped));
	memset(cc->decoded, 0, sizeof(cc->decoded));
	cc->used = 0;
	for (struct soft_cpu *c = cc->cpus; c; c = c->code_peer)
		c->last_block = NULL;
}

/* ---- Pages with code ---- */

static unsigned page_hash(uintptr_t host)
{
	return (unsigned)(host >> 12 ^ host >> 24) & (PAGE_HASH - 1);
}

static struct code_page *page_find(const struct code_cache *cc, uintptr_t host)
{
	struct code_page *p = cc->page[page_hash(host)];

	while (p && p->host != host)
		p = p->next;
	return p;
}

struct code_page *code_on_page(struct code_cache *cc, const uint8_t *host)
{
	struct code_page *p = page_find(cc, HOST_PAGE(host));

	/* Whoever asks is about to make stores to it fast. */
	if (p && !p->blocks)
		p->watched = false;
	return p && p->blocks ? p : NULL;
}

/* From now on stores to the page take the slow path, on all CPUs and through all mappings. */
static void watch_writes(struct code_cache *cc, struct code_page *p)
{
	uintptr_t host = p->host;

	for (struct soft_cpu *c = cc->cpus; c; c = c->code_peer) {
		for (unsigned n = 0; n < 2 * TLB_SIZE; n++) {
			struct tlb_entry *e = &c->tlbs[n / TLB_SIZE].write[n % TLB_SIZE];
			if (e->tag & TLB_INVALID || e->flags & TLB_MMIO)
				continue;
			if ((e->tag & PAGE_ADDR) + e->delta == host) {
				e->tag |= TLB_SLOW;
				e->flags |= TLB_CODE;
			}
		}
		jit_tables_unwritable(c, p);
	}
}

/* The bytes of a page that a block was decoded from; `link` says which of its pages. */
static void block_range(const struct code_block *b, const struct block_link *link, uintptr_t *from,
			uintptr_t *to)
{
	if (link == &b->link[0]) {
		*from = (uintptr_t)b->host;
		*to = *from + b->bytes;
		if (b->host2)
			*to = HOST_PAGE(b->host) + GUEST_PAGE_SIZE;
	} else {
		*from = (uintptr_t)b->host2;
		*to = *from + b->bytes - (GUEST_PAGE_SIZE - ((uintptr_t)b->host & PAGE_OFFSET));
	}
}

enum { GRANULE_SHIFT = 6 };

static uint64_t granules(uintptr_t from, uintptr_t to)
{
	unsigned first = (from & PAGE_OFFSET) >> GRANULE_SHIFT;
	unsigned last = ((to - 1) & PAGE_OFFSET) >> GRANULE_SHIFT;

	return UINT64_MAX >> (63 - last) & UINT64_MAX << first;
}

static uint64_t block_granules(const struct code_block *b, const struct block_link *link)
{
	uintptr_t from, to;

	block_range(b, link, &from, &to);
	return granules(from, to);
}

static void page_add_block(struct code_cache *cc, struct code_block *b, unsigned which,
			   const uint8_t *at)
{
	uintptr_t host = HOST_PAGE(at);
	struct code_page *p = page_find(cc, host);

	if (!p) {
		p = arena_take(cc, sizeof(*p));
		*p = (struct code_page){.host = host, .next = cc->page[page_hash(host)]};
		cc->page[page_hash(host)] = p;
	}
	if (!p->watched)
		watch_writes(cc, p);
	p->watched = true;
	p->quiet = 0;
	p->granules |= block_granules(b, &b->link[which]);
	b->link[which] = (struct block_link){.next = p->blocks, .block = b};
	p->blocks = &b->link[which];
}

static void page_unlink(struct code_cache *cc, const uint8_t *at, struct block_link *link)
{
	struct code_page *p = page_find(cc, HOST_PAGE(at));
	struct block_link **where = &p->blocks;

	while (*where != link)
		where = &(*where)->next;
	*where = link->next;
}

static void block_drop(struct code_cache *cc, struct code_block *b)
{
	struct code_block **where = &cc->block[block_hash(b->host)];

	while (*where != b)
		where = &(*where)->hash_next;
	*where = b->hash_next;
	page_unlink(cc, b->host, &b->link[0]);
	if (b->host2)
		page_unlink(cc, b->host2, &b->link[1]);
	if (b->jit)
		jit_block_dropped(cc, b);
	b->key = 0;
	b->hash_next = cc->dropped[b->count];
	cc->dropped[b->count] = b;
}

/* Drops the blocks of one page that lie on [host, host + len). `running` becomes true if the given
 * block was among them. */
static void drop_range(struct code_cache *cc, struct code_page *p, const uint8_t *host, size_t len,
		       const struct code_block *current, bool *running)
{
	uintptr_t start = (uintptr_t)host, end = start + len, from, to;

	if (!(p->granules & granules(start, end)))
		return;
	p->granules = 0;
	for (struct block_link *l = p->blocks, *next; l; l = next) {
		next = l->next;
		block_range(l->block, l, &from, &to);
		if (from >= end || start >= to) {
			p->granules |= granules(from, to);
			continue;
		}
		if (l->block == current)
			*running = true;
		if (l->block->jit && p->rewritten < UINT8_MAX)
			p->rewritten++;
		block_drop(cc, l->block);
	}
}

bool code_written(struct soft_cpu *c, const uint8_t *host, size_t len)
{
	enum { QUIET_MAX = 64 };
	struct code_page *p = page_find(c->code, HOST_PAGE(host));
	bool running = false;

	if (!p)
		return false;
	drop_range(c->code, p, host, len, c->block, &running);
	if (running)
		cpu_end_block(c);
	if (!p->blocks && p->quiet++ == QUIET_MAX)
		p->watched = false;
	return p->watched;
}

/* ---- Writes from outside ---- */

static uint8_t *decoded_mark(struct code_cache *cc, uintptr_t host)
{
	return &cc->decoded[host / GUEST_PAGE_SIZE % PAGE_FILTER];
}

/* Code of this page is going to be read. Returns whether that is new. */
static bool mark_decoded(struct code_cache *cc, const uint8_t *host)
{
	uint8_t *mark = decoded_mark(cc, (uintptr_t)host);

	if (__atomic_load_n(mark, __ATOMIC_RELAXED))
		return false;
	__atomic_store_n(mark, 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return true;
}

/* Whether code may have been read from the bytes before they were written. */
static bool may_be_decoded(struct code_cache *cc, const uint8_t *host, size_t len)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (uintptr_t at = HOST_PAGE(host); at < (uintptr_t)host + len; at += GUEST_PAGE_SIZE)
		if (__atomic_load_n(decoded_mark(cc, at), __ATOMIC_RELAXED))
			return true;
	return false;
}

void soft_cpu_ram_written(struct soft_cpu *c, const uint8_t *host, size_t len)
{
	struct code_cache *cc = c->code;

	if (!may_be_decoded(cc, host, len))
		return;
	pthread_mutex_lock(&cc->lock);
	unsigned n = cc->written_count;
	if (n && cc->written[n - 1].host + cc->written[n - 1].len == host) {
		cc->written[n - 1].len += len;
	} else if (n < WRITTEN_MAX) {
		cc->written[n].host = host;
		cc->written[n].len = len;
		cc->written_count++;
	} else {
		cc->written_overflow = true;
	}
	pthread_mutex_unlock(&cc->lock);
	for (struct soft_cpu *peer = cc->cpus; peer; peer = peer->code_peer)
		atomic_fetch_or(&peer->requests, REQ_SMC);
}

void code_take_written(struct soft_cpu *c)
{
	struct code_cache *cc = c->code;
	bool running = false;

	pthread_mutex_lock(&cc->lock);
	if (cc->written_overflow)
		code_flush(cc);
	for (unsigned n = 0; n < cc->written_count && !cc->written_overflow; n++) {
		const uint8_t *host = cc->written[n].host;
		size_t left = cc->written[n].len;
		while (left) {
			size_t piece = GUEST_PAGE_SIZE - ((uintptr_t)host & PAGE_OFFSET);
			if (piece > left)
				piece = left;
			struct code_page *p = page_find(cc, HOST_PAGE(host));
			if (p)
				drop_range(cc, p, host, piece, NULL, &running);
			host += piece;
			left -= piece;
		}
	}
	cc->written_count = 0;
	cc->written_overflow = false;
	pthread_mutex_unlock(&cc->lock);
}

/* ---- Making blocks ---- */

/* How often a block is interpreted before it is translated: longer where translations were
 * overwritten again and again. */
static uint8_t warm_after(const struct code_cache *cc, const uint8_t *host)
{
	enum { OFTEN = 8, LONGEST = 250 };
	const struct code_page *p = page_find(cc, HOST_PAGE(host));
	unsigned n = p && p->rewritten > OFTEN ? p->rewritten : 0;

	return (uint8_t)(BLOCK_WARM + n < LONGEST ? BLOCK_WARM + n : LONGEST);
}

static struct code_block *block_insert(struct code_cache *cc, const struct code_block *from)
{
	size_t size = sizeof(*from) + from->count * sizeof(from->insn[0]);
	struct code_block *b, **bucket = &cc->block[block_hash(from->host)];

	b = cc->dropped[from->count];
	if (b)
		cc->dropped[from->count] = b->hash_next;
	else
		b = arena_take(cc, size);
	memcpy(b, from, size);
	b->hash_next = *bucket;
	*bucket = b;
	b->warm = warm_after(cc, b->host);
	page_add_block(cc, b, 0, b->host);
	if (b->host2)
		page_add_block(cc, b, 1, b->host2);
	return b;
}

/* Room for any block and its pages. Before a block's bytes are read: a flush forgets which pages
 * were. */
static void make_room(struct code_cache *cc)
{
	enum { ROUNDING = 64 };

	if (!arena_has(cc, sizeof(struct code_block) + BLOCK_MAX_INSNS * sizeof(struct insn) +
				   2 * sizeof(struct code_page) + ROUNDING))
		code_flush(cc);
}

/* Decodes a run of instructions at `host` into `b`; count stays 0 if not even the first is whole.
 */
static void decode_run(struct soft_cpu *c, struct code_block *b, const uint8_t *host,
		       unsigned avail)
{
	bool ends = false;

	*b = (struct code_block){.host = host, .key = block_key(c, host)};
	while (!ends && b->count < BLOCK_MAX_INSNS) {
		unsigned len = decode_insn(c, host + b->bytes, avail - b->bytes, c->code32,
					   &b->insn[b->count], &ends);
		if (len == DECODE_MORE)
			break;
		b->count++;
		b->bytes = (uint16_t)(b->bytes + len);
	}
}

static void trace_block(const struct soft_cpu *c, const struct code_block *b)
{
	const uint8_t *at = b->host;

	trace(TRACE_IN_ASM, "cpu%u: block at %04x:%08x, %u-bit, %u instructions", c->config.index,
	      c->seg[S_CS].selector, c->next_eip, c->code32 ? 32 : 16, b->count);
	for (unsigned n = 0; n < b->count; at += b->insn[n++].len) {
		char text[3 * INSN_MAX + 1] = "";
		for (unsigned k = 0; k < b->insn[n].len; k++)
			snprintf(text + 3 * k, 4, " %02x", at[k]);
		trace(TRACE_IN_ASM, "  %08x:%s", c->next_eip + (uint32_t)(at - b->host), text);
	}
}

/* The host addresses behind the bytes of the instruction at next_eip that begins on one page and
 * ends on the next. */
static const uint8_t *second_page(struct soft_cpu *c, uint32_t linear)
{
	uint32_t next = (linear & PAGE_ADDR) + (uint32_t)GUEST_PAGE_SIZE;
	const struct tlb_entry *e = mmu_entry(c, next, MEM_EXEC, c->cpl == 3);

	return e->flags & TLB_MMIO ? NULL : (const uint8_t *)(next + e->delta);
}

static struct code_block *hash_find(const struct soft_cpu *c, const uint8_t *host)
{
	struct code_block *b = c->code->block[block_hash(host)];
	uint64_t key = block_key(c, host);

	while (b && (b->key & ~BLOCK_CROSSES) != key)
		b = b->hash_next;
	return b;
}

struct code_block *code_find_slow(struct soft_cpu *c)
{
	uint32_t eip = c->next_eip, linear = c->seg[S_CS].base + eip, limit = c->seg[S_CS].limit;
	unsigned avail = (unsigned)(GUEST_PAGE_SIZE - (linear & PAGE_OFFSET));
	struct code_block *draft = c->code->draft;

	c->eip = eip; /* the fetch faults with this address */
	if (eip > limit)
		cpu_gp0(c);
	const struct tlb_entry *e = mmu_entry(c, linear, MEM_EXEC, c->cpl == 3);
	if (e->flags & TLB_MMIO)
		return decode_single(c);
	if (limit - eip < avail)
		avail = limit - eip + 1;

	const uint8_t *host = (const uint8_t *)(linear + e->delta);
	struct code_block *b = hash_find(c, host);
	if (b) {
		if (b->bytes - 1u > limit - eip)
			return decode_single(c); /* made through a segment that goes on */
		if (!b->host2 || second_page(c, linear) == b->host2)
			return b;
		block_drop(c->code, b);
	}
	make_room(c->code);
	mark_decoded(c->code, host);
	decode_run(c, draft, host, avail);
	if (trace_on(TRACE_IN_ASM))
		trace_block(c, draft);
	if (draft->count)
		return block_insert(c->code, draft);

	/* The first instruction crosses into the next page (or the limit, which is #GP). */
	struct code_block *single = decode_single(c);
	const uint8_t *host2 = second_page(c, linear);
	if (!host2)
		return single;
	if (mark_decoded(c->code, host2))
		single = decode_single(c);
	draft->host2 = host2;
	draft->key |= BLOCK_CROSSES;
	draft->count = 1;
	draft->bytes = single->bytes;
	draft->insn[0] = single->insn[0];
	return block_insert(c->code, draft);
}

/* ---- CPUs come and go (while none runs) ---- */

int code_attach(struct soft_cpu *c, struct error *err)
{
	struct code_cache *cc;
	int r = 0;

	pthread_once(&optable_once, optable_init);
	pthread_mutex_lock(&caches_lock);
	for (cc = caches; cc && cc->mem != c->config.mem; cc = cc->next)
		;
	if (!cc) {
		cc = calloc(1, sizeof(*cc));
		void *arena = mmap(NULL, ARENA_SIZE, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		struct code_block *draft =
			malloc(sizeof(*draft) + BLOCK_MAX_INSNS * sizeof(draft->insn[0]));
		if (!cc || !draft || arena == MAP_FAILED) {
			r = error_set(err, ENOMEM, "no memory for the software CPU's code cache");
			if (arena != MAP_FAILED)
				munmap(arena, ARENA_SIZE);
			free(draft);
			free(cc);
			goto out;
		}
		cc->arena = arena;
		cc->draft = draft;
		cc->mem = c->config.mem;
		pthread_mutex_init(&cc->lock, NULL);
		cc->next = caches;
		caches = cc;
	}
	c->code = cc;
	c->code_peer = cc->cpus;
	cc->cpus = c;
	if (c->config.jit)
		r = jit_attach(c, err);
out:
	pthread_mutex_unlock(&caches_lock);
	return r;
}

void code_detach(struct soft_cpu *c)
{
	struct code_cache *cc = c->code, **where = &caches;
	struct soft_cpu **cpu;

	if (!cc)
		return;
	pthread_mutex_lock(&caches_lock);
	cpu = &cc->cpus;
	while (*cpu != c)
		cpu = &(*cpu)->code_peer;
	*cpu = c->code_peer;
	if (!cc->cpus) {
		while (*where != cc)
			where = &(*where)->next;
		*where = cc->next;
		munmap(cc->arena, ARENA_SIZE);
		jit_cache_free(cc->jit);
		pthread_mutex_destroy(&cc->lock);
		free(cc->draft);
		free(cc);
	}
	pthread_mutex_unlock(&caches_lock);
	c->code = NULL;
}
