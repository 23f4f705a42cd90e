/* SPDX-License-Identifier: MIT */
/*
 * Paging and the TLBs (SDM vol. 3A, chapter 4).
 *
 * Three formats: none (CR0.PG = 0), 32-bit paging with 4 KiB and, with CR4.PSE, 4 MiB pages
 * (PSE-36), and PAE paging with 4 KiB and 2 MiB pages and EFER.NXE. Entries are read from guest
 * memory with accessed and dirty bits set atomically, because devices and other programs may look
 * at the same memory.
 *
 * There is a TLB for supervisor and one for user accesses, so a hit implies the right. A write
 * entry exists only once the page is dirty. Large pages are entered in pieces of 4 KiB.
 */
#include "core/memory.h"
#include "cpu/jit.h"

/* Bits of paging-structure entries (SDM vol. 3A, tables 4-5, 4-6, 4-9 to 4-11). */
enum {
	PTE_P = 1 << 0,
	PTE_W = 1 << 1,
	PTE_U = 1 << 2,
	PTE_A = 1 << 5,
	PTE_D = 1 << 6,
	PTE_PS = 1 << 7,
	PTE_G = 1 << 8,
};
#define PTE_NX        (UINT64_C(1) << 63)
#define PAE_ADDR      UINT64_C(0x000FFFFFFFFFF000)
#define PAE_LARGE_LOW UINT64_C(0x00000000001FE000) /* reserved in a 2 MiB entry: bits 13..20 */
#define PAE_HIGH      UINT64_C(0x7FF0000000000000) /* bits 52..62, reserved in 32-bit processors */
#define PSE_RESERVED  UINT32_C(0x00200000)         /* bit 21 of a 4 MiB entry */
#define PSE_HIGH      UINT32_C(0x001FE000) /* bits 13..20: address bits 32..39 with PSE-36 */

/* Bits of a page fault's error code (SDM vol. 3A, figure 4-12). */
enum { PF_PRESENT = 1, PF_WRITE = 2, PF_USER = 4, PF_RESERVED = 8, PF_FETCH = 16 };

struct walk {
	uint64_t gpa; /* of the 4 KiB page */
	bool global, large, dirty, writable;
	uint32_t error; /* PF_PRESENT | PF_RESERVED of the fault, if there is one */
};

static uint64_t a20(const struct soft_cpu *c, uint64_t gpa)
{
	return memory_a20(c->config.mem) ? gpa : gpa & ~(UINT64_C(1) << 20);
}

/* Host address of a paging-structure entry in RAM, or NULL. */
static uint8_t *entry_host(struct soft_cpu *c, uint64_t gpa)
{
	const struct mem_range *range = memory_lookup(c->config.mem, gpa);

	if (!range->rd || range->rd->kind == MEM_MMIO || !range->rd->host)
		return NULL;
	return range->rd->host + range->rd_offset + (gpa - range->start);
}

static bool entry_is_ram(struct soft_cpu *c, uint64_t gpa)
{
	const struct mem_range *range = memory_lookup(c->config.mem, gpa);
	return range->wr && range->wr == range->rd && range->wr->kind == MEM_RAM;
}

static uint64_t entry_read(struct soft_cpu *c, uint64_t gpa, unsigned size)
{
	uint8_t *host;
	uint64_t v;

	gpa = a20(c, gpa);
	host = entry_host(c, gpa);
	if (host)
		return size == 4 ? *(volatile uint32_t *)host : *(volatile uint64_t *)host;
	machine_enter(c);
	v = mem_mmio_read(c->config.mem, gpa, 4);
	if (size == 8)
		v |= mem_mmio_read(c->config.mem, gpa + 4, 4) << 32;
	machine_leave(c);
	return v;
}

/* Sets bits in an entry that still is `old`. False: it changed under us, walk again. In ROM and
 * MMIO nothing is set. */
static bool entry_set(struct soft_cpu *c, uint64_t gpa, uint64_t old, uint32_t bits, unsigned size)
{
	uint8_t *host;

	if ((old & bits) == bits)
		return true;
	gpa = a20(c, gpa);
	if (!entry_is_ram(c, gpa))
		return true;
	host = entry_host(c, gpa);
	if (size == 4) {
		uint32_t expected = (uint32_t)old;
		return __atomic_compare_exchange_n((uint32_t *)host, &expected, expected | bits,
						   false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	}
	return __atomic_compare_exchange_n((uint64_t *)host, &old, old | bits, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Whether the rights `entry & next` (bits W, U; NX of either) allow the access; fills in
 * w->writable. */
static bool rights_allow(const struct soft_cpu *c, uint64_t both, bool nx, enum mem_type type,
			 bool user, struct walk *w)
{
	bool user_page = both & PTE_U, write = both & PTE_W;

	w->writable = user ? user_page && write : write || !(c->cr0 & CR0_WP);
	if (user && !user_page)
		return false;
	if (type == MEM_WRITE)
		return w->writable;
	return !(type == MEM_EXEC && nx);
}

enum walk_result { WALK_OK, WALK_FAULT, WALK_AGAIN };

/* One walk of 32-bit paging. Without `commit` no bit is set. */
static enum walk_result walk32(struct soft_cpu *c, uint32_t linear, enum mem_type type, bool user,
			       bool commit, struct walk *w)
{
	uint64_t pde_at = (c->cr3 & PAGE_ADDR) + (linear >> 22) * 4, pte_at;
	uint32_t pde = (uint32_t)entry_read(c, pde_at, 4), pte;
	uint32_t mark = PTE_A | (type == MEM_WRITE ? PTE_D : 0);

	if (!(pde & PTE_P))
		return WALK_FAULT;
	if (pde & PTE_PS && c->cr4 & CR4_PSE) {
		uint64_t high =
			c->features_edx & CPUID_PSE36 ? (uint64_t)(pde & PSE_HIGH) << 19 : 0;
		uint32_t reserved =
			c->features_edx & CPUID_PSE36 ? PSE_RESERVED : PSE_RESERVED | PSE_HIGH;
		if (pde & reserved || (high >> 32 & c->phys_mask_high)) {
			w->error = PF_PRESENT | PF_RESERVED;
			return WALK_FAULT;
		}
		w->error = PF_PRESENT;
		if (!rights_allow(c, pde, false, type, user, w))
			return WALK_FAULT;
		if (commit && !entry_set(c, pde_at, pde, mark, 4))
			return WALK_AGAIN;
		w->gpa = high | (pde & UINT32_C(0xFFC00000)) | (linear & UINT32_C(0x003FF000));
		w->large = true;
		w->global = pde & PTE_G;
		w->dirty = (pde | mark) & PTE_D;
		return WALK_OK;
	}
	pte_at = (pde & PAGE_ADDR) + (linear >> 12 & 0x3FF) * 4;
	pte = (uint32_t)entry_read(c, pte_at, 4);
	if (!(pte & PTE_P))
		return WALK_FAULT;
	w->error = PF_PRESENT;
	if (!rights_allow(c, pde & pte, false, type, user, w))
		return WALK_FAULT;
	if (commit && (!entry_set(c, pde_at, pde, PTE_A, 4) || !entry_set(c, pte_at, pte, mark, 4)))
		return WALK_AGAIN;
	w->gpa = pte & PAGE_ADDR;
	w->global = pte & PTE_G;
	w->dirty = (pte | mark) & PTE_D;
	return WALK_OK;
}

/* Reserved bits of any PAE entry: above MAXPHYADDR, and NX without EFER.NXE. */
static bool pae_reserved(const struct soft_cpu *c, uint64_t entry)
{
	uint64_t reserved = PAE_HIGH | ((uint64_t)c->phys_mask_high << 32 & PAE_ADDR);

	if (!(c->efer & EFER_NXE))
		reserved |= PTE_NX;
	return entry & reserved;
}

static enum walk_result walk_pae(struct soft_cpu *c, uint32_t linear, enum mem_type type, bool user,
				 bool commit, struct walk *w)
{
	uint64_t pdpte = c->pdpte[linear >> 30], pde_at, pte_at, pde, pte;
	uint32_t mark = PTE_A | (type == MEM_WRITE ? PTE_D : 0);

	if (!(pdpte & PTE_P))
		return WALK_FAULT;
	pde_at = (pdpte & PAE_ADDR) + (linear >> 21 & 0x1FF) * 8;
	pde = entry_read(c, pde_at, 8);
	if (!(pde & PTE_P))
		return WALK_FAULT;
	w->error = PF_PRESENT | PF_RESERVED;
	if (pae_reserved(c, pde))
		return WALK_FAULT;
	if (pde & PTE_PS) {
		if (pde & PAE_LARGE_LOW)
			return WALK_FAULT;
		w->error = PF_PRESENT;
		if (!rights_allow(c, pde, pde & PTE_NX, type, user, w))
			return WALK_FAULT;
		if (commit && !entry_set(c, pde_at, pde, mark, 8))
			return WALK_AGAIN;
		w->gpa = (pde & PAE_ADDR & ~UINT64_C(0x1FFFFF)) | (linear & UINT32_C(0x001FF000));
		w->large = true;
		w->global = pde & PTE_G;
		w->dirty = (pde | mark) & PTE_D;
		return WALK_OK;
	}
	pte_at = (pde & PAE_ADDR) + (linear >> 12 & 0x1FF) * 8;
	pte = entry_read(c, pte_at, 8);
	w->error = 0;
	if (!(pte & PTE_P))
		return WALK_FAULT;
	w->error = PF_PRESENT | PF_RESERVED;
	if (pae_reserved(c, pte))
		return WALK_FAULT;
	w->error = PF_PRESENT;
	if (!rights_allow(c, pde & pte, (pde | pte) & PTE_NX, type, user, w))
		return WALK_FAULT;
	if (commit && (!entry_set(c, pde_at, pde, PTE_A, 8) || !entry_set(c, pte_at, pte, mark, 8)))
		return WALK_AGAIN;
	w->gpa = pte & PAE_ADDR;
	w->global = pte & PTE_G;
	w->dirty = (pte | mark) & PTE_D;
	return WALK_OK;
}

static bool walk(struct soft_cpu *c, uint32_t linear, enum mem_type type, bool user, bool commit,
		 struct walk *w)
{
	enum walk_result r;

	if (!(c->cr0 & CR0_PG)) {
		*w = (struct walk){
			.gpa = a20(c, linear & PAGE_ADDR), .dirty = true, .writable = true};
		return true;
	}
	do {
		*w = (struct walk){0};
		r = c->cr4 & CR4_PAE ? walk_pae(c, linear, type, user, commit, w)
				     : walk32(c, linear, type, user, commit, w);
	} while (r == WALK_AGAIN);
	w->gpa = a20(c, w->gpa);
	return r == WALK_OK;
}

/* ---- TLB ---- */

static struct tlb_entry *tlb_slot(struct soft_cpu *c, uint32_t linear, enum mem_type type,
				  bool user)
{
	struct tlb *t = &c->tlbs[user];
	struct tlb_entry *table = type == MEM_READ    ? t->read
				  : type == MEM_WRITE ? t->write
						      : t->exec;

	return &table[tlb_index(linear)];
}

/* Fills the slot for a translated page. */
static struct tlb_entry *tlb_fill(struct soft_cpu *c, uint32_t linear, enum mem_type type,
				  bool user, const struct walk *w)
{
	struct tlb_entry *e = tlb_slot(c, linear, type, user);
	const struct mem_range *range = memory_lookup(c->config.mem, w->gpa);
	struct mem_region *region = type == MEM_WRITE ? range->wr : range->rd;
	uint64_t offset =
		(type == MEM_WRITE ? range->wr_offset : range->rd_offset) + (w->gpa - range->start);
	uint32_t page = linear & PAGE_ADDR, flags = 0;
	struct code_page *code = NULL;
	bool whole = range->start <= w->gpa && range->end - w->gpa >= GUEST_PAGE_SIZE;

	if (w->global && c->cr4 & CR4_PGE)
		flags |= TLB_GLOBAL;
	if (w->large) {
		flags |= TLB_LARGE;
		c->large_regions[linear >> 22 >> 5] |= UINT32_C(1) << (linear >> 22 & 31);
	}
	if (type != MEM_EXEC && c->watch_data && debug_page_watched(c, linear))
		flags |= TLB_WATCH;
	if (region && whole &&
	    (region->kind == MEM_RAM || (region->kind == MEM_ROM && type != MEM_WRITE))) {
		uint8_t *host = region->host + offset;
		if (type == MEM_WRITE) {
			if (region->log_dirty) {
				mem_dirty_mark(region, offset, GUEST_PAGE_SIZE);
				flags |= TLB_LOGGED;
			}
			code = code_on_page(c->code, host);
			if (code)
				flags |= TLB_CODE;
		}
		e->delta = (uintptr_t)host - page;
	} else {
		flags |= TLB_MMIO;
		e->delta = w->gpa - page;
	}
	e->flags = flags;
	e->tag = page | (flags & (TLB_MMIO | TLB_CODE | TLB_WATCH) ? TLB_SLOW : 0);
	jit_tables_fill(c, linear, type, user, e);
	if (code && !(flags & TLB_WATCH))
		jit_tables_fill_code(c, linear, user, e, code);
	return e;
}

static bool tlb_holds(const struct tlb_entry *e, uint32_t linear)
{
	return (e->tag & ~(uint32_t)TLB_SLOW) == (linear & PAGE_ADDR);
}

struct tlb_entry *mmu_entry(struct soft_cpu *c, uint32_t linear, enum mem_type type, bool user)
{
	struct tlb_entry *e = tlb_slot(c, linear, type, user);
	struct walk w;

	if (tlb_holds(e, linear))
		return e;
	if (!walk(c, linear, type, user, true, &w)) {
		uint32_t error =
			w.error | (type == MEM_WRITE ? PF_WRITE : 0) | (user ? PF_USER : 0);
		if (type == MEM_EXEC && c->cr4 & CR4_PAE && c->efer & EFER_NXE)
			error |= PF_FETCH;
		c->cr2 = linear;
		cpu_raise_error(c, EXC_PF, error);
	}
	/* A read of a page that may be written and is dirty opens it for writing too. */
	if (type == MEM_READ && w.writable && w.dirty &&
	    !tlb_holds(tlb_slot(c, linear, MEM_WRITE, user), linear))
		tlb_fill(c, linear, MEM_WRITE, user, &w);
	return tlb_fill(c, linear, type, user, &w);
}

bool mmu_can(struct soft_cpu *c, uint32_t linear, enum mem_type type, bool user)
{
	struct walk w;

	if (tlb_holds(tlb_slot(c, linear, type, user), linear))
		return true;
	if (!walk(c, linear, type, user, true, &w))
		return false;
	tlb_fill(c, linear, type, user, &w);
	return true;
}

void mmu_page_without_code(struct soft_cpu *c, uint32_t linear, const uint8_t *host)
{
	for (unsigned user = 0; user < 2; user++) {
		struct tlb_entry *e = tlb_slot(c, linear, MEM_WRITE, user);
		if (!tlb_holds(e, linear) || (const uint8_t *)(linear + e->delta) != host)
			continue;
		e->flags &= ~(uint32_t)TLB_CODE;
		if (!(e->flags & (TLB_MMIO | TLB_WATCH))) {
			e->tag &= ~(uint32_t)TLB_SLOW;
			jit_tables_fill(c, linear, MEM_WRITE, user, e);
		}
	}
}

bool mmu_translate(struct soft_cpu *c, uint32_t linear, uint64_t *gpa)
{
	struct walk w;

	if (!walk(c, linear, MEM_READ, false, false, &w))
		return false;
	*gpa = w.gpa | (linear & PAGE_OFFSET);
	return true;
}

/* ---- Flushing ---- */

enum { TLB_ENTRIES = sizeof(struct tlb) / sizeof(struct tlb_entry) };

static struct tlb_entry *tlb_entries(struct tlb *t)
{
	return t->read; /* the three tables lie one behind the other */
}

void tlb_flush_all(struct soft_cpu *c)
{
	for (unsigned t = 0; t < 2; t++)
		for (unsigned n = 0; n < TLB_ENTRIES; n++)
			tlb_entries(&c->tlbs[t])[n].tag = TLB_INVALID;
	memset(c->large_regions, 0, sizeof(c->large_regions));
	jit_tables_clear(c, true);
	cpu_end_block(c);
}

void tlb_flush_non_global(struct soft_cpu *c)
{
	cpu_end_block(c);
	if (jit_tables_clear(c, false))
		return;
	for (unsigned t = 0; t < 2; t++) {
		struct tlb_entry *e = tlb_entries(&c->tlbs[t]);
		for (unsigned n = 0; n < TLB_ENTRIES; n++)
			e[n].tag = e[n].flags & TLB_GLOBAL ? e[n].tag : TLB_INVALID;
	}
}

/* INVLPG drops the whole large page that the address lies in, of which we hold pieces. */
static void flush_large_region(struct soft_cpu *c, uint32_t linear)
{
	enum { REGION_SHIFT = 22 };

	for (unsigned t = 0; t < 2; t++) {
		struct tlb_entry *e = tlb_entries(&c->tlbs[t]);
		for (unsigned n = 0; n < TLB_ENTRIES; n++)
			if (e[n].flags & TLB_LARGE &&
			    e[n].tag >> REGION_SHIFT == linear >> REGION_SHIFT)
				e[n].tag = TLB_INVALID;
	}
}

void tlb_flush_page(struct soft_cpu *c, uint32_t linear)
{
	for (unsigned user = 0; user < 2; user++) {
		for (enum mem_type type = MEM_READ; type <= MEM_EXEC; type++) {
			struct tlb_entry *e = tlb_slot(c, linear, type, user);
			if (tlb_holds(e, linear))
				e->tag = TLB_INVALID;
		}
	}
	bool large = c->large_regions[linear >> 22 >> 5] >> (linear >> 22 & 31) & 1;
	if (large)
		flush_large_region(c, linear);
	jit_tables_clear_page(c, linear, large);
	cpu_end_block(c);
}

/* Marks the page of a logged region that host address is in. */
static void mark_logged_page(struct soft_cpu *c, const uint8_t *host)
{
	size_t count;
	const struct mem_range *view = memory_view(c->config.mem, &count);

	for (size_t k = 0; k < count; k++) {
		struct mem_region *r = view[k].wr;
		if (r && r->log_dirty && host >= r->host && host < r->host + r->size) {
			mem_dirty_mark(r, (uint64_t)(host - r->host), GUEST_PAGE_SIZE);
			break;
		}
	}
}

/*
 * A write through a TLB entry to a page of a logged region marks nothing, because filling the entry
 * did. When somebody has cleared the dirty bits meanwhile and asked for a flush, writes since then
 * must be seen again: mark all such pages.
 */
void mmu_mark_logged(struct soft_cpu *c)
{
	for (unsigned n = 0; n < 2 * TLB_SIZE; n++) {
		const struct tlb_entry *e = &c->tlbs[n / TLB_SIZE].write[n % TLB_SIZE];
		if (e->tag & TLB_INVALID || !(e->flags & TLB_LOGGED))
			continue;
		mark_logged_page(c, (const uint8_t *)((e->tag & PAGE_ADDR) + e->delta));
	}
	jit_tables_logged(c, mark_logged_page);
}

/* SDM vol. 3A, 4.4.1: bits 1, 2, 5..8 and those above MAXPHYADDR are reserved in a present PDPTE.
 */
void mmu_load_pdptes(struct soft_cpu *c, uint32_t cr3)
{
	const uint64_t reserved = UINT64_C(0x1E6) | PTE_NX | PAE_HIGH |
				  ((uint64_t)c->phys_mask_high << 32 & PAE_ADDR);
	uint64_t at = cr3 & ~UINT32_C(31), pdpte[4];

	for (unsigned n = 0; n < 4; n++) {
		pdpte[n] = entry_read(c, at + n * 8, 8);
		if (pdpte[n] & PTE_P && pdpte[n] & reserved)
			cpu_gp0(c);
	}
	memcpy(c->pdpte, pdpte, sizeof(pdpte));
}
