/* SPDX-License-Identifier: MIT */
/* Inner parts of block/: what image.c, open.c and the drivers share. */
#ifndef BLOCK_NODE_H
#define BLOCK_NODE_H

#include "block/image.h"
#include <pthread.h>

extern const struct image_driver raw_driver, qcow2_driver, nbd_driver;

/* Where in its file a raw image begins; of an image of raw_driver or nbd_driver. */
uint64_t raw_offset(const struct image *img);

/* The driver that is surest about these first bytes of a file; never NULL (raw takes anything). */
const struct image_driver *image_probe(const uint8_t *head, size_t len, const char *path);
/* The name of a format that these bytes belong to but that has no driver here, or NULL. */
const char *image_foreign_format(const uint8_t *head, size_t len);
/* filters.c. What a change of an image with copy-on-read holds for reading. */
struct image_copies {
	pthread_rwlock_t lock;
	uint64_t unit; /* bytes copied together */
};
/* Brings what the layer lacks of this range up into it. */
int image_copy_on_read(struct image *img, uint64_t offset, uint64_t len);
void image_drop_filters(struct image *img);

/* How much of a file's beginning probing looks at. */
enum { PROBE_BYTES = 512 };

/* True if the range certainly reads as zeroes through the whole chain from `img` down; ranges
 * behind its end do. */
bool image_reads_zero(struct image *img, uint64_t offset, uint64_t len);
/* Reads through `img`, which may be NULL or shorter than the range: the rest reads as zeroes. */
int image_read_padded(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset);

#endif
