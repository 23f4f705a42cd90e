/* SPDX-License-Identifier: MIT */
/*
 * Code that changes: constants patched in code that runs, data beside code, code generated anew and run at once,
 * pages that are writable and executable by turns, the same addresses with other code. Functions made here take
 * nothing and return eax.
 */
#include "row.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	PAGE = 4096,
	RET = 0xC3,
	MOV_EAX = 0xB8,
	ADD_EAX = 0x05,
	XOR_EAX = 0x35,
	DEC_ECX = 0x49,
	MOV_ECX = 0xB9
};
enum { JNZ = 0x75, ROL_EAX = 0xC0C1 };

typedef uint32_t (*function)(void);

static uint8_t *code;

static uint8_t *emit8(uint8_t *p, uint8_t byte)
{
	*p = byte;
	return p + 1;
}

static uint8_t *emit32(uint8_t *p, uint32_t word)
{
	memcpy(p, &word, 4);
	return p + 4;
}

/* Compiled code knows nothing of what the bytes mean: writes before, calls after. */
static uint32_t run(const void *at)
{
	__asm__ volatile("" : : : "memory");
	return ((function)(uintptr_t)at)();
}

static void map_code(size_t size)
{
	code = mmap(NULL, size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
	if (code == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
}

/* mov eax, A; add eax, B; ret */
static void patch_setup(void)
{
	map_code(PAGE);
	uint8_t *p = emit32(emit8(code, MOV_EAX), 0);
	emit8(emit32(emit8(p, ADD_EAX), 0), RET);
}

static uint32_t patch_once(void)
{
	uint32_t hash = HASH_START;
	for (uint32_t n = 0; n < 1000; n++) {
		emit32(code + 1, n * 3);
		emit32(code + 6, n);
		uint32_t got = run(code);
		if (got != n * 4)
			fail("patch: %u, not %u", got, n * 4);
		hash = hash_word(hash, got);
	}
	return hash;
}

/* A patch every 50 calls of a loop of 20 turns: what inline caches and static keys do. */
static void patch_seldom_setup(void)
{
	map_code(PAGE);
	uint8_t *p = emit32(emit8(code, MOV_EAX), 1);
	p = emit32(emit8(p, MOV_ECX), 20);
	p = emit32(emit8(p, ADD_EAX), 0); /* at 10 */
	p = emit8(emit8(p, ROL_EAX & 0xFF), ROL_EAX >> 8);
	p = emit8(p, 3);
	p = emit8(p, DEC_ECX);
	p = emit8(emit8(p, JNZ), (uint8_t)-11);
	emit8(p, RET);
}

static uint32_t patch_seldom_once(void)
{
	uint32_t hash = HASH_START;
	for (uint32_t n = 0; n < 20; n++) {
		uint32_t expected = 1;
		emit32(code + 11, n * 0x01234567u);
		for (int k = 0; k < 20; k++) {
			expected += n * 0x01234567u;
			expected = expected << 3 | expected >> 29;
		}
		for (int call = 0; call < 50; call++)
			if (run(code) != expected)
				fail("patch-seldom: wrong result");
		hash = hash_word(hash, expected);
	}
	return hash;
}

/* A loop that counts in a variable on its own page, 256 bytes behind its code: inc dword [x]; dec ecx; jnz; ret */
static void beside_setup(void)
{
	map_code(PAGE);
	uint8_t *p = emit32(emit8(code, MOV_ECX), 20000);
	p = emit32(emit8(emit8(p, 0xFF), 0x05), (uint32_t)(uintptr_t)(code + 256)); /* at 5 */
	p = emit8(p, DEC_ECX);
	p = emit8(emit8(p, JNZ), (uint8_t)-9);
	p = emit8(emit32(emit8(p, 0xA1), (uint32_t)(uintptr_t)(code + 256)),
		  RET); /* mov eax, [x] */
}

static uint32_t beside_once(void)
{
	emit32(code + 256, 5);
	uint32_t got = run(code);
	if (got != 20005)
		fail("data-beside: %u", got);
	return got;
}

/* A function of a few hundred bytes, generated from a seed, with what it must return. */
static uint32_t generate(uint8_t *p, uint32_t seed, int length)
{
	uint32_t value = seed;
	p = emit32(emit8(p, MOV_EAX), value);
	for (int n = 0; n < length; n++) {
		uint32_t r = next_random(&seed);
		switch (r & 3) {
		case 0:
			p = emit32(emit8(p, ADD_EAX), r);
			value += r;
			break;
		case 1:
			p = emit32(emit8(p, XOR_EAX), r);
			value ^= r;
			break;
		case 2:
			p = emit8(emit8(emit8(p, ROL_EAX & 0xFF), ROL_EAX >> 8), 5);
			value = value << 5 | value >> 27;
			break;
		default: /* lea eax, [eax + eax * 1 + r] */
			p = emit8(emit8(emit8(p, 0x8D), 0x84), 0x00);
			p = emit32(p, r);
			value += value + r;
		}
	}
	emit8(p, RET);
	return value;
}

enum { FRESH_PAGES = 16, FRESH_STEP = 512, FRESH_LENGTH = 40 };

static void fresh_setup(void)
{
	map_code(FRESH_PAGES * PAGE);
}

/* Every function is generated, run once, and soon written over by another one. */
static uint32_t fresh_once(void)
{
	uint32_t hash = HASH_START;
	for (uint32_t n = 0; n < FRESH_PAGES * PAGE / FRESH_STEP; n++) {
		uint8_t *at = code + n * FRESH_STEP;
		uint32_t expected = generate(at, n * 7919 + 1, FRESH_LENGTH), got = run(at);
		if (got != expected)
			fail("fresh: function %u gave %08x, not %08x", n, got, expected);
		hash = hash_word(hash, got);
	}
	/* The next round finds other code at each address. */
	memset(code, RET, FRESH_PAGES * PAGE);
	return hash;
}

/* The same at one address all the time: a buffer that a JIT uses again and again. */
static uint32_t fresh_same_once(void)
{
	uint32_t hash = HASH_START;
	for (uint32_t n = 0; n < 100; n++) {
		uint32_t expected = generate(code, n + 1, FRESH_LENGTH);
		for (int k = 0; k < 3; k++)
			if (run(code) != expected)
				fail("fresh-same: wrong result");
		hash = hash_word(hash, expected);
	}
	return hash;
}

/* Pages that are written or executed, never both: generate under rw, run under rx. */
static uint32_t mprotect_once(void)
{
	uint32_t hash = HASH_START;
	for (uint32_t n = 0; n < 50; n++) {
		uint8_t *at = code + (n & 3) * PAGE;
		if (mprotect(at, PAGE, PROT_READ | PROT_WRITE))
			fail("mprotect: %s", strerror(errno));
		uint32_t expected = generate(at, n + 99, FRESH_LENGTH);
		if (mprotect(at, PAGE, PROT_READ | PROT_EXEC))
			fail("mprotect: %s", strerror(errno));
		for (int k = 0; k < 10; k++)
			if (run(at) != expected)
				fail("mprotect: wrong result");
		hash = hash_word(hash, expected);
	}
	return hash;
}

/* Two views of the same memory, as careful JITs have them: written through one, run through the other. */
static uint8_t *view;

static void views_setup(void)
{
	int f = memfd_create("code", 0);
	if (f < 0)
		fail("memfd_create: %s", strerror(errno));
	uint8_t page[PAGE] = {RET};
	if (pwrite(f, page, PAGE, 0) != PAGE)
		fail("write: %s", strerror(errno));
	view = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
	code = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, f, 0);
	if (view == MAP_FAILED || code == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
}

static uint32_t views_once(void)
{
	uint32_t hash = HASH_START;
	for (uint32_t n = 0; n < 100; n++) {
		uint32_t expected = generate(view + (n & 7) * FRESH_STEP, n + 1, FRESH_LENGTH);
		uint32_t got = run(code + (n & 7) * FRESH_STEP);
		if (got != expected)
			fail("two-views: %08x, not %08x", got, expected);
		hash = hash_word(hash, got);
	}
	return hash;
}

/* New memory with new code each time, as a loader has it: map, fill, run, unmap. */
static uint32_t loader_once(void)
{
	uint32_t hash = HASH_START;
	for (uint32_t n = 0; n < 20; n++) {
		map_code(2 * PAGE);
		/* Across the border of the two pages. */
		uint32_t expected = generate(code + PAGE - 64, n + 3, FRESH_LENGTH);
		for (int k = 0; k < 5; k++)
			if (run(code + PAGE - 64) != expected)
				fail("loader: wrong result");
		hash = hash_word(hash, expected);
		munmap(code, 2 * PAGE);
	}
	return hash;
}

/* A small compiler in the guest: polynomials become loops of machine code, each run over a hundred values. */
static void jit_setup(void)
{
	map_code(4 * PAGE);
}

static uint32_t jit_once(void)
{
	uint32_t hash = HASH_START, seed = 17;
	uint8_t *at = code;
	for (int polynomial = 0; polynomial < 30; polynomial++) {
		uint32_t factors[8], count = 3 + next_random(&seed) % 6;
		for (uint32_t n = 0; n < count; n++)
			factors[n] = next_random(&seed);
		if (at > code + 4 * PAGE - 256)
			at = code;
		/* for (ecx = 100, sum = 0; ecx; ecx--) { t = f0; t = t * ecx + f1; ... sum = rol(sum, 1) ^ t; } */
		uint8_t *p = emit8(emit8(at, 0x31), 0xD2); /* xor edx, edx */
		p = emit32(emit8(p, MOV_ECX), 100);
		uint8_t *loop = p;
		p = emit32(emit8(p, MOV_EAX), factors[0]);
		for (uint32_t n = 1; n < count; n++) {
			p = emit8(emit8(emit8(p, 0x0F), 0xAF), 0xC1); /* imul eax, ecx */
			p = emit32(emit8(p, ADD_EAX), factors[n]);
		}
		p = emit8(emit8(p, 0xD1), 0xC2); /* rol edx, 1 */
		p = emit8(emit8(p, 0x31), 0xC2); /* xor edx, eax */
		p = emit8(p, DEC_ECX);
		p = emit8(p, JNZ);
		p = emit8(p, (uint8_t)(loop - (p + 1)));
		p = emit8(emit8(p, 0x89), 0xD0); /* mov eax, edx */
		p = emit8(p, RET);
		uint32_t sum = 0;
		for (uint32_t x = 100; x; x--) {
			uint32_t t = factors[0];
			for (uint32_t n = 1; n < count; n++)
				t = t * x + factors[n];
			sum = (sum << 1 | sum >> 31) ^ t;
		}
		if (run(at) != sum)
			fail("jit: polynomial %d is wrong", polynomial);
		hash = hash_word(hash, sum);
		at = p + (16 - (uintptr_t)p % 16);
	}
	return hash;
}

const struct row code_rows[] = {
	{"code", "patch", "two constants patched in place before each of 1000 calls", patch_setup,
	 patch_once, NULL},
	{"code", "patch-seldom", "a constant patched every 50 calls of a loop", patch_seldom_setup,
	 patch_seldom_once, NULL},
	{"code", "data-beside", "20000 writes to data on the page of the code that writes",
	 beside_setup, beside_once, NULL},
	{"code", "fresh", "128 functions generated, run once, written over", fresh_setup,
	 fresh_once, NULL},
	{"code", "fresh-same", "100 functions generated at one address", fresh_setup,
	 fresh_same_once, NULL},
	{"code", "mprotect", "generated while writable, run while executable", fresh_setup,
	 mprotect_once, NULL},
	{"code", "two-views", "written at one address, run at another", views_setup, views_once,
	 NULL},
	{"code", "loader", "mapped, filled with code, run, unmapped", NULL, loader_once, NULL},
	{"code", "jit", "30 small loops compiled and run", jit_setup, jit_once, NULL},
	{NULL, NULL, NULL, NULL, NULL, NULL},
};
