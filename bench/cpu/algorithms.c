/* SPDX-License-Identifier: MIT */
/*
 * Integer rows with data structures: LZ compression, quicksort, a linked list, a hash table, short
 * strings.
 */
#include "row.h"
#include <stdio.h>
#include <stdlib.h>

/* ---- LZ: greedy matches found by a hash of three bytes; tokens are (length, distance) or literal runs ---- */

enum { LZ_SIZE = 64 * 1024, LZ_HASH_BITS = 13, LZ_MIN = 4, LZ_MAX = 255 + LZ_MIN };
static uint8_t lz_text[LZ_SIZE], lz_packed[LZ_SIZE * 2], lz_back[LZ_SIZE];
static int32_t lz_heads[1 << LZ_HASH_BITS];

/* Text of words, so that matches have all lengths. */
static void lz_setup(void)
{
	static const char *const words[] = {
		"the ",  "translator ", "of ",    "a ",   "guest ",  "page ", "into ",    "host ",
		"code ", "is ",         "small ", "and ", "quick, ", "but ",  "exact.\n", "it "};
	uint32_t seed = 4;
	size_t at = 0;
	while (at < LZ_SIZE) {
		const char *word = words[next_random(&seed) >> 28];
		size_t length = strlen(word);
		if (length > LZ_SIZE - at)
			length = LZ_SIZE - at;
		memcpy(lz_text + at, word, length);
		at += length;
		if ((next_random(&seed) & 31) == 0 && at < LZ_SIZE)
			lz_text[at++] = (uint8_t)('0' + next_random(&seed) % 10);
	}
}

static uint32_t lz_key(const uint8_t *p)
{
	uint32_t three = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;
	return three * 2654435761u >> (32 - LZ_HASH_BITS);
}

static uint8_t *lz_literals(uint8_t *out, const uint8_t *from, size_t count)
{
	while (count) {
		size_t run = count < 128 ? count : 128;
		*out++ = (uint8_t)(run - 1);
		for (size_t n = 0; n < run; n++)
			*out++ = *from++;
		count -= run;
	}
	return out;
}

static size_t lz_pack(void)
{
	uint8_t *out = lz_packed;
	size_t at = 0, literal = 0;
	for (size_t n = 0; n < sizeof(lz_heads) / sizeof(lz_heads[0]); n++)
		lz_heads[n] = -1;
	while (at + LZ_MIN <= LZ_SIZE) {
		uint32_t key = lz_key(lz_text + at);
		int32_t found = lz_heads[key];
		size_t length = 0;
		lz_heads[key] = (int32_t)at;
		if (found >= 0)
			while (length < LZ_MAX && at + length < LZ_SIZE &&
			       lz_text[(size_t)found + length] == lz_text[at + length])
				length++;
		if (length < LZ_MIN) {
			at++;
			continue;
		}
		size_t distance = at - (size_t)found;
		out = lz_literals(out, lz_text + literal, at - literal);
		*out++ = 128;
		*out++ = (uint8_t)(length - LZ_MIN);
		*out++ = (uint8_t)distance;
		*out++ = (uint8_t)(distance >> 8);
		at += length;
		literal = at;
	}
	out = lz_literals(out, lz_text + literal, LZ_SIZE - literal);
	return (size_t)(out - lz_packed);
}

static size_t lz_unpack(size_t packed)
{
	const uint8_t *in = lz_packed, *end = in + packed;
	size_t at = 0;
	while (in < end) {
		uint8_t token = *in++;
		if (token < 128) {
			for (int n = 0; n <= token; n++)
				lz_back[at++] = *in++;
			continue;
		}
		size_t length = in[0] + (size_t)LZ_MIN, distance = in[1] | (size_t)in[2] << 8;
		in += 3;
		for (size_t n = 0; n < length; n++, at++)
			lz_back[at] = lz_back[at - distance];
	}
	return at;
}

static uint32_t lz_once(void)
{
	size_t packed = lz_pack();
	if (lz_unpack(packed) != LZ_SIZE || memcmp(lz_text, lz_back, LZ_SIZE))
		fail("lz: what was unpacked is not what was packed");
	return hash_bytes(HASH_START, lz_packed, packed);
}

/* ---- Quicksort: one of our own, in place, and the library's with a comparison through a pointer ---- */

enum { SORT_COUNT = 8192 };
static uint32_t unsorted[SORT_COUNT], sorted[SORT_COUNT], by_library[SORT_COUNT];

static void quicksort_setup(void)
{
	uint32_t seed = 5;
	for (int n = 0; n < SORT_COUNT; n++)
		unsorted[n] = next_random(&seed);
}

static void quicksort(uint32_t *first, uint32_t *last)
{
	while (last - first > 12) {
		uint32_t pivot = first[(last - first) / 2], *low = first, *high = last;
		for (;;) {
			while (*low < pivot)
				low++;
			while (pivot < *high)
				high--;
			if (low >= high)
				break;
			uint32_t t = *low;
			*low++ = *high;
			*high-- = t;
		}
		/* The shorter part by recursion. */
		if (high - first < last - high - 1) {
			quicksort(first, high);
			first = high + 1;
		} else {
			quicksort(high + 1, last);
			last = high;
		}
	}
	for (uint32_t *at = first + 1; at <= last; at++) {
		uint32_t value = *at, *to = at;
		for (; to > first && to[-1] > value; to--)
			*to = to[-1];
		*to = value;
	}
}

static int compare_words(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

static uint32_t quicksort_once(void)
{
	memcpy(sorted, unsorted, sizeof(sorted));
	quicksort(sorted, sorted + SORT_COUNT - 1);
	for (int n = 1; n < SORT_COUNT; n++)
		if (sorted[n - 1] > sorted[n])
			fail("quicksort: not sorted at %d", n);
	memcpy(by_library, unsorted, sizeof(by_library) / 4);
	qsort(by_library, SORT_COUNT / 4, sizeof(by_library[0]), compare_words);
	return hash_bytes(hash_bytes(HASH_START, sorted, sizeof(sorted)), by_library,
			  sizeof(by_library) / 4);
}

/* ---- Linked list: a pointer chase through 16 Ki nodes in random order ---- */

enum { NODES = 16 * 1024 };
struct node {
	struct node *next;
	uint32_t value;
	uint32_t filler[2];
};
static struct node nodes[NODES];

static void list_setup(void)
{
	static uint16_t order[NODES];
	uint32_t seed = 6;
	for (uint32_t n = 0; n < NODES; n++)
		order[n] = (uint16_t)n;
	for (uint32_t n = NODES - 1; n; n--) {
		uint32_t other = next_random(&seed) % (n + 1);
		uint16_t t = order[n];
		order[n] = order[other];
		order[other] = t;
	}
	for (uint32_t n = 0; n < NODES; n++) {
		nodes[order[n]].next = &nodes[order[(n + 1) % NODES]];
		nodes[order[n]].value = n * 2654435761u;
	}
}

static uint32_t list_once(void)
{
	uint32_t hash = HASH_START, steps = 0;
	for (int pass = 0; pass < 6; pass++) {
		const struct node *n = &nodes[0];
		do {
			hash += n->value ^ (hash << 1);
			n = n->next;
			steps++;
		} while (n != &nodes[0]);
	}
	if (steps != 6 * NODES)
		fail("list: %u steps", steps);
	return hash;
}

/* ---- Hash table: open addressing; inserts, finds and deletes ---- */

enum { SLOTS = 16 * 1024, KEYS = 8 * 1024, FREE = 0, DELETED = 1 };
static struct {
	uint32_t key, value;
} slots[SLOTS];

static uint32_t slot_of(uint32_t key)
{
	return key * 2654435761u >> 18;
}

static void table_put(uint32_t key, uint32_t value)
{
	uint32_t n = slot_of(key);
	while (slots[n].key > DELETED && slots[n].key != key)
		n = (n + 1) % SLOTS;
	slots[n].key = key;
	slots[n].value = value;
}

static int64_t table_find(uint32_t key)
{
	for (uint32_t n = slot_of(key); slots[n].key != FREE; n = (n + 1) % SLOTS)
		if (slots[n].key == key)
			return n;
	return -1;
}

static uint32_t hashtable_once(void)
{
	uint32_t seed = 7, hash = HASH_START, found = 0;
	memset(slots, 0, sizeof(slots));
	for (uint32_t n = 0; n < KEYS; n++)
		table_put(next_random(&seed) | 2, n);
	seed = 7;
	for (uint32_t n = 0; n < KEYS; n++) {
		int64_t at = table_find(next_random(&seed) | 2);
		if (at < 0)
			fail("hashtable: key %u was lost", n);
		hash = hash_word(hash, slots[at].value);
		if (n & 1)
			slots[at].key = DELETED;
	}
	seed = 7;
	for (uint32_t n = 0; n < 2 * KEYS; n++)
		found += table_find(next_random(&seed) | 2) >= 0;
	return hash_word(hash, found);
}

/* ---- Strings: the library's functions on short ones ---- */

enum { STRINGS = 512 };
static char strings[STRINGS][40];

static void strings_setup(void)
{
	uint32_t seed = 8;
	for (int n = 0; n < STRINGS; n++) {
		size_t length = 3 + next_random(&seed) % 30;
		for (size_t k = 0; k < length; k++)
			strings[n][k] = (char)('a' + next_random(&seed) % 3);
		strings[n][length] = 0;
	}
}

static uint32_t strings_once(void)
{
	uint32_t hash = HASH_START;
	char buffer[128];
	for (int n = 0; n < STRINGS; n++) {
		const char *a = strings[n];
		uint32_t order = 0;
		for (int k = 1; k <= 24; k++)
			order = order * 3 +
				(uint32_t)((strcmp(a, strings[(n + k) % STRINGS]) > 0) + 1);
		size_t length = strlen(a);
		const char *b = strchr(a, 'c');
		memcpy(buffer, a, length + 1);
		strcat(buffer, strings[(n + 7) % STRINGS]);
		if (memcmp(buffer, a, length) || strncmp(buffer, a, length))
			fail("strings: a copy differs");
		hash = hash_word(hash, order);
		hash = hash_word(hash, (uint32_t)strlen(buffer) | (b ? (uint32_t)(b - a) << 8 : 0));
		hash = hash_word(hash, strstr(buffer, "abca") ? 1 : 0);
	}
	return hash;
}

const struct row algorithm_rows[] = {
	{"integer", "lz", "LZ compression and decompression of 64 KiB", lz_setup, lz_once, NULL},
	{"integer", "quicksort", "quicksort of 8192 numbers, and the library's", quicksort_setup,
	 quicksort_once, NULL},
	{"integer", "list", "pointer chase through 16384 list nodes", list_setup, list_once, NULL},
	{"integer", "hashtable", "hash table with 8192 keys", NULL, hashtable_once, NULL},
	{"integer", "strings", "strlen, strcmp, memcpy... of short strings", strings_setup,
	 strings_once, NULL},
	{NULL, NULL, NULL, NULL, NULL, NULL},
};
