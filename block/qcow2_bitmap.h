/* SPDX-License-Identifier: MIT */
/* What qcow2_bitmap.c (keeping bitmaps up to date) and qcow2_bitmap_edit.c (changing them) share. */
#ifndef BLOCK_QCOW2_BITMAP_H
#define BLOCK_QCOW2_BITMAP_H

#include "block/qcow2.h"

enum {
	DIR_ENTRY = 24,
	MAX_BITMAPS = 65535,
	MAX_DIRECTORY = 64 << 20,
	MAX_TABLE_ENTRIES = 1 << 22,
	MAX_BITS = 256 << 20, /* bytes of one bitmap that is kept in memory */
	MIN_GRANULARITY = 9,
	MAX_GRANULARITY = 31,
	TYPE_DIRTY = 1,
	FLAG_IN_USE = 1,
	FLAG_AUTO = 2,
};

#define TABLE_OFFSET   UINT64_C(0x00fffffffffffe00)
#define TABLE_ALL_ONES UINT64_C(1)

struct bitmap {
	char *name;
	uint64_t table_offset, flags_at; /* the latter: where its flags lie in the file */
	uint32_t table_size, flags;
	uint8_t type, granularity;
	uint64_t *table; /* host byte order */
	uint8_t *bits;   /* of an enabled one while the image is open for writing, else NULL */
	uint8_t *copy;   /* what others were opened with (qcow2_bitmap_open()), or NULL */
	bool changed;
	bool has_extra; /* data that is not understood here */
};

struct qcow2_bitmaps {
	struct bitmap *list;
	uint32_t count;
	uint64_t dir_offset, dir_size;
	pthread_mutex_t lock; /* the bits */
};

/* Bytes of a bitmap's bits. */
uint64_t qcow2_bitmap_bytes(const struct qcow2 *q, const struct bitmap *m);
struct bitmap *qcow2_bitmap_find(struct qcow2 *q, const char *name);
/* The bits to memory (m->bits). */
int qcow2_bitmap_read(struct qcow2 *q, struct bitmap *m);
/* The bits, then the table, in place: until FLAG_IN_USE is cleared nobody trusts them. */
int qcow2_bitmap_store(struct qcow2 *q, struct bitmap *m);
int qcow2_bitmap_write_flags(struct qcow2 *q, const struct bitmap *m);

#endif
