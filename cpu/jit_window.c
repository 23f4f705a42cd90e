/* SPDX-License-Identifier: MIT */
/*
 * The windows: guest memory behind the host's own MMU, one for each privilege.
 *
 * The linear addresses of a program, or of a kernel, are mapped, page by page as they are touched,
 * to a range of host addresses, so that translated code reaches memory with one instruction and no
 * look into a table: an access to a page that is not there faults on the host, and the handler maps
 * the page if the tables have an entry for it, or else sends the instruction to its stub, where the
 * interpreter executes it (page walks, guest faults, MMIO, pages with code).
 *
 * The range is 4 GiB and 2 GiB before and behind, where the same pages appear again: a base
 * register plus a displacement, added as 64-bit numbers, then lies in it whatever they are.
 *
 *                       tables (jit_tables.c)         window
 *   an access           6 instructions                1 or 2
 *   a page's first      a callout                     a signal and mmap(): some microseconds
 *   CR3 is written      an entry's clearing           as much again for each page
 *
 * So it pays for what runs long without a change of address space, and only that gets it: after
 * some million instructions without a flush, more of them for a kernel, whose own code is often
 * short of that and touches much memory. How many follows from how it went the last time. Code that
 * keeps faulting (it writes to pages with code, or to display memory) goes back to the tables.
 *
 * Pages can appear twice because RAM is shared memory (memory_share_ram()).
 */
#include "core/memory.h"
#include "cpu/jit.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGES_4G     (UINT32_C(1) << 20)
#define WINDOW_PAGES (2 * PAGES_4G) /* with both margins */
#define MARGIN       (UINT64_C(2) << 30)
enum { MARGIN_PAGES = PAGES_4G / 2, PAGE_SHIFT = 12, MAPPED_MAX = 24000, AROUND = 16 };
/* Calls of mmap() between two flushes, over all windows of a machine: each may split two mappings
 * of the process, of which Linux allows 65530 (vm.max_map_count), and the rest of minivm needs
 * some. */
enum { SPLITS_MAX = 24000 };
/* Instructions, by privilege. */
static const uint64_t after_min[2] = {16 << 20, 1 << 20}, after_first[2] = {16 << 20, 3 << 20};
enum { AFTER_MAX = 1 << 30 };
enum { WORTH = 10000, WORTH_ALLOWANCE = 64 }; /* instructions that one fault may cost */

struct jit_window {
	bool user;
	uint8_t *start; /* of the range; linear address 0 is at start + MARGIN */
	uint64_t mapped[WINDOW_PAGES / 64];   /* bit for each page */
	uint64_t writable[WINDOW_PAGES / 64]; /* mapped for writing */
	uint32_t *list;                       /* of mapped pages, some of them twice */
	unsigned count;
	unsigned splits, splits_max; /* see SPLITS_MAX */

	bool on;
	uint64_t since;  /* instructions when it went on, or at the last flush */
	uint64_t after;  /* instructions without a flush before it goes on */
	uint64_t faults; /* since it is on */

	/* Of the RAM that the last page lay in. */
	struct mem_region *region;
};

/* Whose translated code this thread runs. */
static _Thread_local struct soft_cpu *running;
static struct sigaction old_action;
static pthread_once_t handler_once = PTHREAD_ONCE_INIT;
static bool handler_set;

static bool bit(const uint64_t *bits, uint32_t page)
{
	return bits[page / 64] >> page % 64 & 1;
}
static void set_bit(uint64_t *bits, uint32_t page)
{
	bits[page / 64] |= UINT64_C(1) << page % 64;
}
static void clear_bit(uint64_t *bits, uint32_t page)
{
	bits[page / 64] &= ~(UINT64_C(1) << page % 64);
}

/* ---- Mapping ---- */

static bool is_full(const struct jit_window *w)
{
	return w->count + AROUND > MAPPED_MAX || w->splits >= w->splits_max;
}

static uint64_t entry(const struct soft_cpu *c, const struct jit_window *w, int32_t table,
		      uint32_t page)
{
	return ((const uint64_t *)(c->jit.tables[w->user] + table))[page];
}

/* The region of shared RAM that a host address is in, or NULL. */
static struct mem_region *shared_region(struct soft_cpu *c, struct jit_window *w,
					const uint8_t *host)
{
	const struct mem_range *view;
	size_t count;

	if (w->region && !w->region->log_dirty && host >= w->region->host &&
	    host < w->region->host + w->region->size)
		return w->region;
	view = memory_view(c->config.mem, &count);
	for (size_t n = 0; n < count; n++) {
		struct mem_region *r = view[n].rd;
		if (r && r->kind == MEM_RAM && r->shared_fd >= 0 && !r->log_dirty &&
		    host >= r->host && host < r->host + r->size)
			return w->region = r;
	}
	return NULL;
}

/*
 * Maps the page at `at` (in pages from the start of the range) and its neighbours that continue it
 * in host memory. False if the tables have nothing for it or it cannot be mapped.
 */
static bool map_page(struct soft_cpu *c, struct jit_window *w, uint32_t at, bool write)
{
	uint32_t page = (at - MARGIN_PAGES) % PAGES_4G, n = 1;
	uint64_t delta = entry(c, w, write ? JIT_WRITE : JIT_READ, page);
	bool writable = entry(c, w, JIT_WRITE, page) == delta;
	const uint8_t *host = (const uint8_t *)(delta + ((uint64_t)page << PAGE_SHIFT));
	struct mem_region *r;

	if (!delta || is_full(w))
		return false;
	r = shared_region(c, w, host);
	if (!r)
		return false;
	while (n < AROUND && page + n < PAGES_4G && at + n < WINDOW_PAGES &&
	       !bit(w->mapped, at + n) && entry(c, w, JIT_READ, page + n) == delta &&
	       (entry(c, w, JIT_WRITE, page + n) == delta) == writable &&
	       host + ((uint64_t)(n + 1) << PAGE_SHIFT) <= r->host + r->size)
		n++;
	void *where = w->start + ((uint64_t)at << PAGE_SHIFT);
	if (mmap(where, (size_t)n << PAGE_SHIFT, PROT_READ | (writable ? PROT_WRITE : 0),
		 MAP_SHARED | MAP_FIXED, r->shared_fd, host - r->host) == MAP_FAILED)
		return false;
	w->splits++;
	for (uint32_t k = 0; k < n; k++) {
		set_bit(w->mapped, at + k);
		if (writable)
			set_bit(w->writable, at + k);
		else
			clear_bit(w->writable, at + k);
		w->list[w->count++] = at + k;
	}
	return true;
}

static void unmap(struct jit_window *w, uint32_t at, uint32_t pages)
{
	mmap(w->start + ((uint64_t)at << PAGE_SHIFT), (size_t)pages << PAGE_SHIFT, PROT_NONE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static void unmap_all(struct jit_window *w)
{
	if (!w->count)
		return;
	unmap(w, 0, WINDOW_PAGES);
	for (unsigned n = 0; n < w->count; n++) {
		clear_bit(w->mapped, w->list[n]);
		clear_bit(w->writable, w->list[n]);
	}
	w->count = 0;
	w->splits = 0;
}

/* ---- When it is on ---- */

static void turn_off(struct soft_cpu *c, struct jit_window *w)
{
	bool paid = c->instructions - w->since >= w->faults * (2 * WORTH);

	unmap_all(w);
	w->on = false;
	w->after = paid ? w->after / 2 : w->after * 2;
	if (w->after < after_min[w->user])
		w->after = after_min[w->user];
	if (w->after > AFTER_MAX)
		w->after = AFTER_MAX;
	c->jit.mode = 0;
}

bool jit_window_wanted(struct soft_cpu *c)
{
	struct jit_window *w = c->jit.window[c->cpl == 3];

	if (!w)
		return false;
	if (!w->on) {
		if (c->instructions - w->since < w->after)
			return false;
		w->on = true;
		w->since = c->instructions;
		w->faults = 0;
		c->jit.mode = 0;
	} else if ((w->faults > WORTH_ALLOWANCE &&
		    (w->faults - WORTH_ALLOWANCE) * WORTH > c->instructions - w->since) ||
		   is_full(w)) {
		turn_off(c, w);
		w->since = c->instructions;
	}
	return w->on;
}

bool jit_window_on(const struct soft_cpu *c)
{
	const struct jit_window *w = c->jit.window[c->cpl == 3];

	return w && w->on;
}

uint64_t jit_window_base(const struct soft_cpu *c)
{
	return (uint64_t)c->jit.window[c->cpl == 3]->start + MARGIN;
}

void jit_window_clear(struct soft_cpu *c)
{
	for (unsigned user = 0; user < 2; user++) {
		struct jit_window *w = c->jit.window[user];
		if (!w)
			continue;
		if (w->on)
			turn_off(c, w);
		w->since = c->instructions;
	}
}

void jit_window_clear_page(struct soft_cpu *c, uint32_t linear, bool user)
{
	struct jit_window *w = c->jit.window[user];
	uint32_t page = linear >> PAGE_SHIFT;

	if (!w || !w->count)
		return;
	/* It may appear in the middle and in one of the margins. */
	for (uint64_t at = page >= MARGIN_PAGES ? page - MARGIN_PAGES : page + MARGIN_PAGES;
	     at < WINDOW_PAGES; at += PAGES_4G) {
		if (!bit(w->mapped, (uint32_t)at))
			continue;
		if (w->splits++ >= w->splits_max) {
			unmap_all(w);
			return;
		}
		unmap(w, (uint32_t)at, 1);
		clear_bit(w->mapped, (uint32_t)at);
		clear_bit(w->writable, (uint32_t)at);
		w->faults++;
	}
}

/* ---- Faults ---- */

static const struct jit_fault *find_fault(const struct jit_cache *jc, const uint8_t *rip,
					  struct jit_code **code)
{
	unsigned low = 0, high = jc->windowed_count;

	while (low < high) {
		unsigned middle = (low + high) / 2;
		if (jc->windowed[middle]->indirect <= rip)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low)
		return NULL;
	*code = jc->windowed[low - 1];
	for (unsigned n = 0; n < (*code)->fault_count; n++) {
		const struct jit_fault *f = &(*code)->faults[n];
		if (rip >= f->start && rip < f->end)
			return f;
	}
	return NULL;
}

static bool settle(struct soft_cpu *c, siginfo_t *info, ucontext_t *u)
{
	enum { ERR_WRITE = 2 };
	struct jit_window *w = c->jit.window[c->cpl == 3];
	uint64_t offset;
	bool write = u->uc_mcontext.gregs[REG_ERR] & ERR_WRITE;
	struct jit_code *code;

	if (!w)
		return false;
	offset = (uint64_t)info->si_addr - (uint64_t)w->start;
	/* #GP, without an address: an SSE operand that must be aligned and is not. */
	bool misaligned = u->uc_mcontext.gregs[REG_TRAPNO] == EXC_GP;
	/* One page is kept free behind the range. */
	if (!misaligned && offset > (uint64_t)WINDOW_PAGES << PAGE_SHIFT)
		return false;
	const struct jit_fault *f =
		find_fault(c->code->jit, (const uint8_t *)u->uc_mcontext.gregs[REG_RIP], &code);
	if (!f)
		return false;
	if (misaligned) {
		u->uc_mcontext.gregs[REG_RIP] = (greg_t)f->stub;
		return true;
	}
	w->faults++;
	uint32_t at = (uint32_t)(offset >> PAGE_SHIFT);
	/* What is mapped so already and faults all the same is beyond the end of the file. */
	bool there = at < WINDOW_PAGES && bit(write ? w->writable : w->mapped, at);
	if (at < WINDOW_PAGES && !there && map_page(c, w, at, write))
		return true;
	if (code->redirected < UINT8_MAX)
		code->redirected++;
	u->uc_mcontext.gregs[REG_RIP] = (greg_t)f->stub;
	return true;
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
	bool sent = info->si_code <= 0; /* by kill() and the like, not by an instruction */

	if (!sent && running && settle(running, info, context))
		return;
	/* Not ours: as if there were no handler. The instruction faults again, a signal that was
	 * sent comes again. */
	sigaction(signal, &old_action, NULL);
	if (sent)
		raise(signal);
}

static void set_handler(void)
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	sigemptyset(&action.sa_mask);
	handler_set = sigaction(SIGSEGV, &action, &old_action) == 0;
}

/* ---- Life ---- */

void jit_window_enter(struct soft_cpu *c)
{
	running = c;
}

void jit_window_leave(void)
{
	running = NULL;
}

static struct jit_window *window_new(const struct soft_cpu *c, bool user)
{
	struct jit_window *w = calloc(1, sizeof(*w));
	void *start = mmap(NULL, ((size_t)WINDOW_PAGES + 1) << PAGE_SHIFT, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (w)
		w->list = malloc(MAPPED_MAX * sizeof(*w->list));
	if (!w || !w->list || start == MAP_FAILED) {
		if (start != MAP_FAILED)
			munmap(start, ((size_t)WINDOW_PAGES + 1) << PAGE_SHIFT);
		if (w)
			free(w->list);
		free(w);
		return NULL;
	}
	w->user = user;
	w->splits_max = SPLITS_MAX / (2 * (c->config.cpus ? c->config.cpus : 1));
	w->start = start;
	w->after = after_first[user];
	return w;
}

void jit_window_new(struct soft_cpu *c)
{
#ifdef __SANITIZE_ADDRESS__
	return; /* the sanitizer wants SIGSEGV for itself */
#endif
	if (!memory_share_ram(c->config.mem))
		return;
	pthread_once(&handler_once, set_handler);
	for (unsigned user = 0; user < 2 && handler_set; user++)
		c->jit.window[user] = window_new(c, user);
}

void jit_window_free(struct soft_cpu *c)
{
	for (unsigned user = 0; user < 2; user++) {
		struct jit_window *w = c->jit.window[user];
		if (!w)
			continue;
		munmap(w->start, ((size_t)WINDOW_PAGES + 1) << PAGE_SHIFT);
		free(w->list);
		free(w);
		c->jit.window[user] = NULL;
	}
}
