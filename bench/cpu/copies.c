/* SPDX-License-Identifier: MIT */
/*
 * Copying and filling memory: by string instructions and by the library, within the caches, between addresses that
 * are 64 MiB apart (the same slot in a hashed TLB), and through more memory than the caches hold.
 */
#include "row.h"
#include <sys/mman.h>

enum { HOT = 32 * 1024, ROUNDS = 64, APART = 64 << 20, BIG = 4 << 20, CHECKED = 256 };
static uint8_t hot_from[HOT] __attribute__((aligned(4096))),
	hot_to[HOT + 16] __attribute__((aligned(4096)));
static uint8_t *far_from, *far_to, *big_from, *big_to;

static void fill(uint8_t *p, size_t size)
{
	uint32_t seed = 14;
	for (size_t n = 0; n < size; n += 4) {
		uint32_t r = next_random(&seed);
		memcpy(p + n, &r, 4);
	}
}

static uint8_t *map(size_t size)
{
	uint8_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		fail("no %zu bytes of memory", size);
	return p;
}

static void hot_setup(void)
{
	fill(hot_from, HOT);
}

static void far_setup(void)
{
	far_from = map(APART + HOT);
	far_to = far_from + APART;
	fill(far_from, HOT);
	memset(far_to, 0, HOT);
}

static void big_setup(void)
{
	big_from = map(BIG);
	big_to = map(BIG);
	fill(big_from, BIG);
	memset(big_to, 0, BIG);
}

static void movsd(void *to, const void *from, size_t size)
{
	size_t count = size / 4;
	__asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

static uint32_t check(const char *name, const uint8_t *to, const uint8_t *from, size_t size)
{
	if (memcmp(to, from, size))
		fail("%s: the copy differs", name);
	return hash_bytes(HASH_START, to, CHECKED);
}

static uint32_t hot_movsd_once(void)
{
	for (int n = 0; n < ROUNDS; n++)
		movsd(hot_to, hot_from, HOT);
	return check("copy-movsd", hot_to, hot_from, HOT);
}

static uint32_t hot_movsb_once(void)
{
	for (int n = 0; n < ROUNDS; n++) {
		void *to = hot_to + 3;
		const void *from = hot_from;
		size_t count = HOT - n;
		__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
	}
	return check("copy-movsb", hot_to + 3, hot_from, HOT);
}

static uint32_t hot_library_once(void)
{
	void *(*volatile copy)(void *, const void *, size_t) = memcpy;
	for (int n = 0; n < ROUNDS; n++)
		copy(hot_to, hot_from, HOT);
	return check("copy-libc", hot_to, hot_from, HOT);
}

static uint32_t far_once(void)
{
	for (int n = 0; n < ROUNDS; n++)
		movsd(far_to, far_from, HOT);
	return check("copy-far", far_to, far_from, HOT);
}

/* The same by single loads and stores. */
static uint32_t far_words_once(void)
{
	for (int n = 0; n < ROUNDS / 8; n++)
		for (size_t at = 0; at < HOT; at += 4) {
			uint32_t word = *(volatile uint32_t *)(far_from + at);
			*(volatile uint32_t *)(far_to + at) = word;
		}
	return check("copy-far-words", far_to, far_from, HOT);
}

static uint32_t big_once(void)
{
	movsd(big_to, big_from, BIG);
	return check("copy-4m", big_to + BIG - 4096, big_from + BIG - 4096, 4096);
}

/* 100 to 500 bytes, as programs mostly copy. */
static uint32_t small_once(void)
{
	void *(*volatile copy)(void *, const void *, size_t) = memcpy;
	uint32_t seed = 15;
	for (int n = 0; n < 3000; n++) {
		uint32_t r = next_random(&seed), at = (r & 0x3FFF), size = 100 + (r >> 16) % 400;
		copy(hot_to + at, hot_from + at, size);
	}
	return check("copy-small", hot_to, hot_from, 0x4000);
}

static uint32_t stosd_once(void)
{
	for (uint32_t n = 1; n <= ROUNDS; n++) {
		void *to = hot_to;
		size_t count = HOT / 4;
		__asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(n) : "memory");
	}
	if (hot_to[0] != ROUNDS || hot_to[1] || memcmp(hot_to, hot_to + 4, HOT - 4))
		fail("fill-stosd: the memory is not full of it");
	return hash_bytes(HASH_START, hot_to, CHECKED);
}

static uint32_t memset_once(void)
{
	void *(*volatile set)(void *, int, size_t) = memset;
	for (int n = 1; n <= ROUNDS; n++)
		set(hot_to, n, HOT);
	if (hot_to[0] != ROUNDS || memcmp(hot_to, hot_to + 1, HOT - 1))
		fail("fill-libc: the memory is not full of it");
	return hash_bytes(HASH_START, hot_to, CHECKED);
}

/* repe cmpsb and repne scasb over equal memory. */
static uint32_t compare_once(void)
{
	uint32_t hash = HASH_START;
	memcpy(hot_to, hot_from, HOT);
	memset(hot_to + HOT, 0, 16);
	for (int n = 0; n < 8; n++) {
		const void *a = hot_from, *b = hot_to;
		size_t count = HOT;
		uint8_t equal;
		__asm__ volatile("repe cmpsb\n\tsete %b3"
				 : "+S"(a), "+D"(b), "+c"(count), "=q"(equal)
				 :
				 : "memory", "cc");
		if (!equal || count)
			fail("compare: %zu bytes left", count);
		/* The first byte of each value, wherever it is. */
		b = hot_to;
		count = HOT;
		__asm__ volatile("repne scasb"
				 : "+D"(b), "+c"(count)
				 : "a"(n * 31)
				 : "memory", "cc");
		hash = hash_word(hash, (uint32_t)count);
	}
	return hash;
}

const struct row copy_rows[] = {
	{"copies", "copy-movsd", "rep movsd, 32 KiB, 64 times", hot_setup, hot_movsd_once, NULL},
	{"copies", "copy-movsb", "rep movsb, 32 KiB, unaligned, 64 times", hot_setup,
	 hot_movsb_once, NULL},
	{"copies", "copy-libc", "memcpy, 32 KiB, 64 times", hot_setup, hot_library_once, NULL},
	{"copies", "copy-small", "memcpy of 100 to 500 bytes, 3000 times", hot_setup, small_once,
	 NULL},
	{"copies", "copy-far", "rep movsd, 32 KiB, 64 MiB apart, 64 times", far_setup, far_once,
	 NULL},
	{"copies", "copy-far-words", "load and store, 64 MiB apart", far_setup, far_words_once,
	 NULL},
	{"copies", "copy-4m", "rep movsd, 4 MiB", big_setup, big_once, NULL},
	{"copies", "fill-stosd", "rep stosd, 32 KiB, 64 times", NULL, stosd_once, NULL},
	{"copies", "fill-libc", "memset, 32 KiB, 64 times", NULL, memset_once, NULL},
	{"copies", "compare", "repe cmpsb and repne scasb, 32 KiB", hot_setup, compare_once, NULL},
	{NULL, NULL, NULL, NULL, NULL, NULL},
};
