/* SPDX-License-Identifier: MIT */
/*
 * The flat tables that translated code finds host addresses in: for each privilege one entry for
 * each page and kind of access (see jit.h). They are large and sparse: address space, of which only
 * touched pages are memory.
 *
 * An entry is filled with the TLB entry of the same page (mmu.c) if that needs no closer look, and
 * unlike the TLB the tables never lose one to another page. So a page that is missing here is
 * missing or slow in the TLB too, and a miss always ends in a fill. What was filled is noted in a
 * list, so that clearing costs what was used.
 */
#include "cpu/jit.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

/* A page number in bits 31..12 and, below, what was filled. */
struct jit_fill {
	uint32_t word;
};
enum {
	FILL_TYPE = 3, /* enum mem_type, or FILL_CODE: an entry of JIT_CODE */
	FILL_CODE = 3,
	FILL_USER = 1 << 2,
	FILL_GLOBAL = 1 << 3,
	FILL_LARGE = 1 << 4,
	FILL_LOGGED = 1 << 5,
};
enum { FILLS_FIRST = 1 << 12 };

_Static_assert(FILL_CODE > (int)MEM_EXEC, "kinds of entries");

static uint64_t *entry_of(const struct soft_cpu *c, uint32_t fill)
{
	static const int32_t table[] = {
		[MEM_READ] = JIT_READ, [MEM_WRITE] = JIT_WRITE, [MEM_EXEC] = JIT_EXEC};

	if ((fill & FILL_TYPE) == FILL_CODE)
		return (uint64_t *)(c->jit.tables[!!(fill & FILL_USER)] + JIT_CODE) +
		       (fill >> 12) * 2;
	return (uint64_t *)(c->jit.tables[!!(fill & FILL_USER)] + table[fill & FILL_TYPE]) +
	       (fill >> 12);
}

int jit_tables_new(struct soft_cpu *c, struct error *err)
{
	for (unsigned n = 0; n < 2; n++) {
		void *p = mmap(NULL, JIT_TABLES_SIZE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (p == MAP_FAILED)
			return error_errno(err, errno, "cannot map the translator's tables");
		c->jit.tables[n] = p;
		/* One entry must not make 2 MiB resident. */
		madvise(p, JIT_TABLES_SIZE, MADV_NOHUGEPAGE);
	}
	c->jit.fills = malloc(FILLS_FIRST * sizeof(*c->jit.fills));
	if (!c->jit.fills)
		return error_set(err, ENOMEM, "no memory for the translator's tables");
	c->jit.fill_room = FILLS_FIRST;
	c->jit.current = c->jit.tables[0];
	return 0;
}

void jit_tables_free(struct soft_cpu *c)
{
	for (unsigned n = 0; n < 2; n++) {
		if (c->jit.tables[n])
			munmap(c->jit.tables[n], JIT_TABLES_SIZE);
		c->jit.tables[n] = NULL;
	}
	free(c->jit.fills);
	c->jit.fills = NULL;
	jit_window_free(c);
}

/* The TLB's slot of a noted page, or NULL if it holds another. */
static struct tlb_entry *slot_of(struct soft_cpu *c, uint32_t fill)
{
	struct tlb *t = &c->tlbs[!!(fill & FILL_USER)];
	struct tlb_entry *e;

	switch (fill & FILL_TYPE) {
	case MEM_READ: e = &t->read[tlb_index(fill)]; break;
	case MEM_WRITE: e = &t->write[tlb_index(fill)]; break;
	case MEM_EXEC: e = &t->exec[tlb_index(fill)]; break;
	default: return NULL;
	}
	return (e->tag & ~(uint32_t)TLB_SLOW) == (fill & PAGE_ADDR) ? e : NULL;
}

/* Drops notes of which neither the tables nor the TLB have anything, and of two notes of one entry
 * the second. */
static void compact(struct soft_cpu *c)
{
	enum { SEEN = 1 }; /* no host address minus linear address */
	uint64_t *saved = malloc(c->jit.fill_count * sizeof(*saved));
	unsigned kept = 0;

	if (!saved)
		return;
	for (unsigned n = 0; n < c->jit.fill_count; n++) {
		uint32_t fill = c->jit.fills[n].word;
		uint64_t *entry = entry_of(c, fill);
		if (*entry == SEEN || (!*entry && !slot_of(c, fill)))
			continue;
		saved[kept] = *entry;
		*entry = SEEN;
		c->jit.fills[kept++].word = fill;
	}
	for (unsigned n = 0; n < kept; n++)
		*entry_of(c, c->jit.fills[n].word) = saved[n];
	c->jit.fill_count = kept;
	free(saved);
}

/* Room for one more note; false: there is none, and the entry must not be filled. */
static bool make_room(struct soft_cpu *c)
{
	struct jit_fill *fills;

	if (c->jit.fill_count < c->jit.fill_room)
		return true;
	compact(c);
	if (c->jit.fill_count < c->jit.fill_room / 2)
		return true;
	fills = realloc(c->jit.fills, 2 * c->jit.fill_room * sizeof(*fills));
	if (!fills)
		return c->jit.fill_count < c->jit.fill_room;
	c->jit.fills = fills;
	c->jit.fill_room *= 2;
	return true;
}

void jit_tables_fill(struct soft_cpu *c, uint32_t linear, enum mem_type type, bool user,
		     const struct tlb_entry *e)
{
	uint32_t fill = (linear & PAGE_ADDR) | type | (user ? FILL_USER : 0) |
			(e->flags & TLB_GLOBAL ? FILL_GLOBAL : 0) |
			(e->flags & TLB_LARGE ? FILL_LARGE : 0) |
			(e->flags & TLB_LOGGED ? FILL_LOGGED : 0);

	if (!c->jit.tables[0])
		return;
	if (e->tag & TLB_SLOW)
		jit_window_clear_page(c, linear, user);
	if (!make_room(c)) {
		c->jit.fills_lost = true;
		*entry_of(c, fill) = 0;
		return;
	}
	*entry_of(c, fill) = e->tag & TLB_SLOW ? 0 : e->delta;
	c->jit.fills[c->jit.fill_count++].word = fill;
}

static void fill_code(struct soft_cpu *c, uint32_t fill, uint64_t delta,
		      const struct code_page *page)
{
	uint64_t *entry;

	if (!make_room(c))
		return;
	fill |= FILL_CODE;
	entry = entry_of(c, fill);
	entry[0] = (uintptr_t)&page->granules;
	entry[1] = delta;
	c->jit.fills[c->jit.fill_count++].word = fill;
}

void jit_tables_fill_code(struct soft_cpu *c, uint32_t linear, bool user, const struct tlb_entry *e,
			  const struct code_page *page)
{
	/* Pages that log writes would need a note each time. */
	if (c->jit.tables[0] && !(e->flags & TLB_LOGGED))
		fill_code(c,
			  (linear & PAGE_ADDR) | (user ? FILL_USER : 0) |
				  (e->flags & TLB_GLOBAL ? FILL_GLOBAL : 0) |
				  (e->flags & TLB_LARGE ? FILL_LARGE : 0),
			  e->delta, page);
}

bool jit_tables_clear(struct soft_cpu *c, bool global_too)
{
	bool complete = !c->jit.fills_lost;
	unsigned kept = 0;

	if (!c->jit.tables[0])
		return false;
	jit_window_clear(c);
	for (unsigned n = 0; n < c->jit.fill_count; n++) {
		uint32_t fill = c->jit.fills[n].word;
		if (!global_too && fill & FILL_GLOBAL) {
			c->jit.fills[kept++].word = fill;
			continue;
		}
		*entry_of(c, fill) = 0;
		struct tlb_entry *e = slot_of(c, fill);
		if (e && (global_too || !(e->flags & TLB_GLOBAL)))
			e->tag = TLB_INVALID;
	}
	c->jit.fill_count = kept;
	c->jit.fills_lost = false;
	return complete;
}

void jit_tables_clear_page(struct soft_cpu *c, uint32_t linear, bool large)
{
	enum { REGION_SHIFT = 22 };

	if (!c->jit.tables[0])
		return;
	for (unsigned user = 0; user < 2; user++)
		jit_window_clear_page(c, linear, user);
	for (unsigned user = 0; user < 2; user++)
		for (unsigned type = MEM_READ; type <= FILL_CODE; type++)
			*entry_of(c, (linear & PAGE_ADDR) | type | (user ? FILL_USER : 0)) = 0;
	for (unsigned n = 0; large && n < c->jit.fill_count; n++) {
		uint32_t fill = c->jit.fills[n].word;
		if (fill & FILL_LARGE && fill >> REGION_SHIFT == linear >> REGION_SHIFT)
			jit_window_clear_page(c, fill, fill & FILL_USER), *entry_of(c, fill) = 0;
	}
}

void jit_tables_unwritable(struct soft_cpu *c, const struct code_page *page)
{
	unsigned count = c->jit.fill_count;

	if (!c->jit.tables[0])
		return;
	for (unsigned n = 0; n < count; n++) {
		uint32_t fill = c->jit.fills[n].word;
		if ((fill & FILL_TYPE) != MEM_WRITE)
			continue;
		uint64_t *entry = entry_of(c, fill), delta = *entry;
		if (!delta || delta + (fill & PAGE_ADDR) != page->host)
			continue;
		*entry = 0;
		jit_window_clear_page(c, fill, fill & FILL_USER);
		if (fill & FILL_LOGGED)
			continue;
		/* make_room() may drop notes, of which those before n have been seen. */
		fill_code(c, fill & ~(uint32_t)FILL_TYPE, delta, page);
		if (c->jit.fill_count <= count) {
			count = c->jit.fill_count;
			n = UINT32_MAX;
		}
	}
}

void jit_tables_forget_code(struct soft_cpu *c)
{
	for (unsigned n = 0; c->jit.tables[0] && n < c->jit.fill_count; n++)
		if ((c->jit.fills[n].word & FILL_TYPE) == FILL_CODE)
			*entry_of(c, c->jit.fills[n].word) = 0;
}

void jit_tables_logged(struct soft_cpu *c, void (*fn)(struct soft_cpu *c, const uint8_t *host))
{
	if (!c->jit.tables[0])
		return;
	for (unsigned n = 0; n < c->jit.fill_count; n++) {
		uint32_t fill = c->jit.fills[n].word;
		if (fill & FILL_LOGGED && *entry_of(c, fill))
			fn(c, (const uint8_t *)(*entry_of(c, fill) + (fill & PAGE_ADDR)));
	}
}

void jit_tables_forget_jump(struct soft_cpu *c, const struct jit_code *code)
{
	for (unsigned n = 0; n < 2 && c->jit.tables[0]; n++) {
		uint8_t *tables = c->jit.tables[n];
		if (!code) {
			madvise(tables + JIT_JUMP_TAG, JIT_TABLES_SIZE - JIT_JUMP_TAG,
				MADV_DONTNEED);
			continue;
		}
		uint64_t *tag = (uint64_t *)(tables + JIT_JUMP_TAG) + (uint16_t)code->eip;
		const uint8_t **target =
			(const uint8_t **)(tables + JIT_JUMP_CODE) + (uint16_t)code->eip;
		if (*target == code->indirect)
			*tag = 0;
	}
}
