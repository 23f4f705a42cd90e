/* SPDX-License-Identifier: MIT */
/*
 * A mix in the proportions of embedded programs, after the idea of CoreMark: list work, a small matrix, a state machine
 * over text, and a 16-bit CRC over the results of each.
 */
#include "row.h"

static uint16_t crc16(uint16_t crc, uint32_t word)
{
	for (int bit = 0; bit < 32; bit++, word >>= 1)
		crc = (uint16_t)(crc >> 1 ^ ((crc ^ word) & 1 ? 0xA001 : 0));
	return crc;
}

/* ---- Lists: build, find, reverse, merge sort by value and back by index ---- */

enum { ITEMS = 200 };
struct item {
	struct item *next;
	int16_t value;
	uint16_t index;
};
static struct item items[ITEMS];

static struct item *list_build(uint32_t seed)
{
	for (uint16_t n = 0; n < ITEMS; n++) {
		items[n].next = n + 1 < ITEMS ? &items[n + 1] : NULL;
		items[n].value = (int16_t)(next_random(&seed) >> 22);
		items[n].index = n;
	}
	return items;
}

static struct item *list_find(struct item *list, int16_t value)
{
	while (list && list->value != value)
		list = list->next;
	return list;
}

static struct item *list_reverse(struct item *list)
{
	struct item *done = NULL;
	while (list) {
		struct item *next = list->next;
		list->next = done;
		done = list;
		list = next;
	}
	return done;
}

static int by_value(const struct item *a, const struct item *b)
{
	return a->value != b->value ? a->value - b->value : a->index - b->index;
}

static int by_index(const struct item *a, const struct item *b)
{
	return a->index - b->index;
}

static struct item *list_sort(struct item *list,
			      int (*compare)(const struct item *, const struct item *))
{
	struct item *half = list, *end = list, head, *last = &head;
	if (!list || !list->next)
		return list;
	while (end->next && end->next->next) {
		half = half->next;
		end = end->next->next;
	}
	struct item *b = half->next;
	half->next = NULL;
	struct item *a = list_sort(list, compare);
	b = list_sort(b, compare);
	while (a && b) {
		struct item **from = compare(a, b) <= 0 ? &a : &b;
		last->next = *from;
		last = *from;
		*from = (*from)->next;
	}
	last->next = a ? a : b;
	return head.next;
}

static uint16_t lists(uint16_t crc)
{
	struct item *list = list_build(9);
	for (int16_t value = 0; value < 40; value++) {
		struct item *found = list_find(list, value);
		list = list_reverse(list);
		crc = crc16(crc, found ? found->index : 0xFFFF);
	}
	list = list_sort(list, by_value);
	for (const struct item *n = list; n->next; n = n->next)
		if (n->value > n->next->value)
			fail("mix: the list is not sorted");
	crc = crc16(crc, (uint32_t)list->value << 16 | list->index);
	list = list_sort(list, by_index);
	if (list != items)
		fail("mix: the list did not come back");
	return crc;
}

/* ---- Matrix of 16-bit numbers: plus a constant, times a vector, times itself with bit fields ---- */

enum { SIDE = 14 };

static uint16_t matrices(uint16_t crc)
{
	int16_t m[SIDE][SIDE], v[SIDE];
	uint32_t seed = 10;
	for (int y = 0; y < SIDE; y++) {
		v[y] = (int16_t)(next_random(&seed) >> 24);
		for (int x = 0; x < SIDE; x++)
			m[y][x] = (int16_t)(next_random(&seed) >> 20);
	}
	for (int pass = 0; pass < 2; pass++)
		for (int y = 0; y < SIDE; y++) {
			int32_t sum = 0;
			for (int x = 0; x < SIDE; x++) {
				int32_t cell = 0, bits = 0;
				m[y][x] = (int16_t)(m[y][x] + pass);
				sum += m[y][x] * v[x];
				for (int k = 0; k < SIDE; k++) {
					int32_t p = m[y][k] * m[k][x];
					cell += p;
					bits += (p >> 2 & 15) * (p >> 5 & 127);
				}
				crc = (uint16_t)(crc + cell + bits);
			}
			crc = crc16(crc, (uint32_t)sum);
		}
	return crc;
}

/* ---- State machine: which kind of number each field of a text is ---- */

enum state {
	START,
	INTEGER,
	SIGN,
	POINT,
	FRACTION,
	EXPONENT,
	EXPONENT_SIGN,
	SCIENTIFIC,
	INVALID,
	STATES
};

static enum state step(enum state s, char c)
{
	int digit = c >= '0' && c <= '9', sign = c == '+' || c == '-';
	switch (s) {
	case START: return digit ? INTEGER : sign ? SIGN : c == '.' ? POINT : INVALID;
	case SIGN: return digit ? INTEGER : c == '.' ? POINT : INVALID;
	case INTEGER: return digit ? INTEGER : c == '.' ? FRACTION : c == 'e' ? EXPONENT : INVALID;
	case POINT: return digit ? FRACTION : INVALID;
	case FRACTION: return digit ? FRACTION : c == 'e' ? EXPONENT : INVALID;
	case EXPONENT: return digit ? SCIENTIFIC : sign ? EXPONENT_SIGN : INVALID;
	case EXPONENT_SIGN:
	case SCIENTIFIC: return digit ? SCIENTIFIC : INVALID;
	default: return INVALID;
	}
}

static uint16_t states(uint16_t crc)
{
	static const char fields[] = "5012,1234,-874,+122,35.54400,.1234500,-110.700,+0.64400,5."
				     "500e+3,-.123e-2,-87e+832,"
				     "+0.6e-12,T0.3e-1F,-T.T++Tq,1T3.4e4z,34.0e-T^,";
	uint32_t counts[STATES] = {0};
	enum state s = START;
	for (int pass = 0; pass < 12; pass++)
		for (const char *c = fields; *c; c++)
			if (*c == ',') {
				counts[s]++;
				s = START;
			} else {
				s = step(s, *c);
			}
	if (counts[INTEGER] != 48 || counts[FRACTION] != 48 || counts[SCIENTIFIC] != 48 ||
	    counts[INVALID] != 48)
		fail("mix: wrong kinds of numbers");
	for (int n = 0; n < STATES; n++)
		crc = crc16(crc, counts[n]);
	return crc;
}

static uint32_t mix_once(void)
{
	uint16_t crc = 0;
	for (int n = 0; n < 8; n++)
		crc = states(matrices(lists(crc)));
	return crc;
}

const struct row mix_rows[] = {
	{"busybox", "mix", "lists, matrix, state machine, CRC: after CoreMark", NULL, mix_once,
	 NULL},
	{NULL, NULL, NULL, NULL, NULL, NULL},
};
