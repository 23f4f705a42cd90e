/* SPDX-License-Identifier: MIT */
/*
 * Decoded code: decode.c turns bytes into struct insn, code_cache.c keeps blocks of them and drops
 * them when their bytes change.
 */
#ifndef CPU_CODE_H
#define CPU_CODE_H

#include "cpu/internal.h"
#include <pthread.h>

enum { INSN_MAX = 15, BLOCK_MAX_INSNS = 48 };

struct block_link {
	struct block_link *next;
	struct code_block *block;
};

/*
 * A run of instructions, identified by the host address of its first byte and the mode it was
 * decoded for: whatever linear address the page is mapped at, the instructions are the same. It
 * lies in one page, except for a block of one instruction that crosses into a second page.
 */
struct code_block {
	uint64_t key; /* block_key() of `host`; 0 once dropped */
	/* What ran after it the last time it fell through, and when it branched: a guess, checked
	 * by the key. */
	struct code_block *successor[2];
	uint16_t bytes;
	uint8_t count;
	bool flat_only;       /* its translations leave the window alone */
	uint8_t runs, warm;   /* by the interpreter; when it is worth translating */
	struct jit_code *jit; /* its translations */
	struct code_block *hash_next;
	const uint8_t *host;       /* first byte */
	const uint8_t *host2;      /* first byte of the second page, or NULL */
	struct block_link link[2]; /* in the lists of its pages */
	struct insn insn[];
};

/* Host addresses have 48 bits; above them is the mode. BLOCK_CROSSES sets blocks apart that also
 * depend on what the next page is: code_find() never finds them. */
#define BLOCK_CODE32  (UINT64_C(1) << 63)
#define BLOCK_CROSSES (UINT64_C(1) << 62)
static inline uint64_t block_key(const struct soft_cpu *c, const uint8_t *host)
{
	return (uintptr_t)host | (c->code32 ? BLOCK_CODE32 : 0);
}

/*
 * A page of host memory that blocks were decoded from. Stores to it are looked at while it is
 * `watched`; a page that lost its last block stays so for a while, because what is written next is
 * often code again.
 */
struct code_page {
	uint64_t granules; /* bit n: blocks may lie on bytes 64 n to 64 n + 63 */
	struct code_page *next;
	uintptr_t host;
	struct block_link *blocks;
	bool watched;
	uint8_t quiet;     /* stores looked at in vain since the last block went */
	uint8_t rewritten; /* translated blocks that were dropped: it takes longer to translate again */
};

enum { BLOCK_HASH = 1 << 15, PAGE_HASH = 1 << 12, WRITTEN_MAX = 256, PAGE_FILTER = 1 << 16 };

struct code_cache {
	struct code_cache *next; /* all caches of the process */
	struct memory *mem;
	struct soft_cpu *cpus; /* that share it, by code_peer */
	uint8_t *arena;
	size_t used;
	struct jit_cache *jit;                           /* NULL: the interpreter alone */
	struct code_block *dropped[BLOCK_MAX_INSNS + 1]; /* by count: memory to be used again */
	struct code_block *draft; /* with room for BLOCK_MAX_INSNS: a block being decoded */
	struct code_block *block[BLOCK_HASH];
	struct code_page *page[PAGE_HASH];

	/* By host page number: set before code of the page is read, so that writes from outside to
	 * all others need not be looked at. Pages share entries. */
	uint8_t decoded[PAGE_FILTER];
	/* RAM written from outside and not yet looked at. */
	pthread_mutex_t lock;
	struct {
		const uint8_t *host;
		size_t len;
	} written[WRITTEN_MAX];
	unsigned written_count;
	bool written_overflow;
};

/* ---- decode.c ---- */
enum { OPCODE_ILLEGAL = 0x4FF }; /* of what only raises an exception, whatever its bytes */
enum { DECODE_MORE = 0 };        /* the bytes given are not a whole instruction */
/*
 * Decodes one instruction for the code size `code32`. Returns its length, or DECODE_MORE. What is
 * illegal becomes an instruction that raises #UD (or #GP(0) past 15 bytes). *ends: the block ends
 * behind it.
 */
unsigned decode_insn(const struct soft_cpu *c, const uint8_t *bytes, unsigned avail, bool code32,
		     struct insn *i, bool *ends);
/* Fetches and decodes the instruction at CS:EIP by itself; raises #GP(0) and #PF as the fetch does.
 */
struct code_block *decode_single(struct soft_cpu *c);

/* ---- code_cache.c ---- */
int code_attach(struct soft_cpu *c, struct error *err);
void code_detach(struct soft_cpu *c);
/* The block at next_eip; decoded if need be, which may raise. */
struct code_block *code_find_slow(struct soft_cpu *c);
/* The host page if stores to it must be looked at, for the bits of its `granules`; or NULL. */
struct code_page *code_on_page(struct code_cache *cache, const uint8_t *host);
/* The running CPU wrote these bytes (in one page): drops the blocks on them. Returns whether stores
 * to the page must be looked at further. */
bool code_written(struct soft_cpu *c, const uint8_t *host, size_t len);
/* Drops all blocks, and every CPU's memory of the last one. Only between blocks. */
void code_flush(struct code_cache *cache);
/* Looks at what was written from outside. Only between blocks. */
void code_take_written(struct soft_cpu *c);

/* Memory that lives until the next code_flush(); NULL: full, which asks for one. */
void *code_alloc(struct code_cache *cache, size_t size);

static inline unsigned block_hash(const uint8_t *host)
{
	uintptr_t h = (uintptr_t)host;
	return (unsigned)(h ^ h >> 15) & (BLOCK_HASH - 1);
}

/*
 * The block at CS:next_eip, after `last` (or NULL) ran: by the exec TLB and then by its guess or
 * the hash. What these do not settle is code_find_slow()'s.
 */
static inline struct code_block *code_find(struct soft_cpu *c, struct code_block *last,
					   bool branched)
{
	uint32_t eip = c->next_eip, linear = c->seg[S_CS].base + eip;
	const struct tlb_entry *e = &c->page_tlb->exec[tlb_index(linear)];
	struct code_block *b;

	if (likely(e->tag == (linear & PAGE_ADDR))) {
		const uint8_t *host = (const uint8_t *)(linear + e->delta);
		uint64_t key = block_key(c, host);

		b = last ? last->successor[branched] : NULL;
		if (unlikely(!b || b->key != key)) {
			b = c->code->block[block_hash(host)];
			while (b && b->key != key)
				b = b->hash_next;
			if (last)
				last->successor[branched] = b;
		}
		if (likely(b && (uint64_t)eip + b->bytes <= (uint64_t)c->seg[S_CS].limit + 1))
			return b;
	}
	return code_find_slow(c);
}

/* ---- debug.c ---- */
/* Notes in db_status a data breakpoint that covers the access. */
void debug_data_access(struct soft_cpu *c, uint32_t linear, unsigned len, bool write);
/* Whether the linear page has an enabled data breakpoint. */
bool debug_page_watched(const struct soft_cpu *c, uint32_t linear);
/* DR6 bits of the instruction breakpoints at a linear address. */
uint32_t debug_code_match(const struct soft_cpu *c, uint32_t linear);
/* Whether the page of a linear address has an instruction breakpoint, the guest's or a debugger's.
 */
bool debug_code_page(const struct soft_cpu *c, uint32_t linear);
/* Whether the debugger has a breakpoint at that address. */
bool debug_breakpoint_at(const struct soft_cpu *c, uint32_t linear);

#endif
