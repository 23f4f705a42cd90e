/* SPDX-License-Identifier: MIT */
/* virtio-blk-pci: a disk on virtqueues. */
#ifndef DEVICES_VIRTIO_BLK_H
#define DEVICES_VIRTIO_BLK_H

#include "block/drive.h"
#include "devices/virtio.h"

struct virtio_blk;

enum {
	VIRTIO_BLK_QUEUES_MAX = 64,
	VIRTIO_BLK_BLOCK_MAX = 32768,         /* largest block_size, logical or physical */
	VIRTIO_BLK_RANGE_MAX = (1 << 22) - 1, /* sectors of a discard: just below 2 GiB */
};

struct virtio_blk_config {
	struct drive *drive;
	unsigned queues;                        /* 1..VIRTIO_BLK_QUEUES_MAX */
	unsigned queue_size;                    /* a power of two, 4..VIRTQUEUE_SIZE_MAX */
	unsigned logical_block, physical_block; /* bytes, powers of two from 512 */
	unsigned min_io, opt_io;                /* bytes, multiples of logical_block; 0: not told */
	unsigned discard_granularity;           /* bytes, a multiple of logical_block; 0: that */
	unsigned max_discard, max_zeroes;       /* sectors a request; 0: VIRTIO_BLK_RANGE_MAX */
	bool write_cache;                       /* at power-on */
	bool no_merging;                        /* each request goes to the drive alone */
	bool no_config_wce, no_discard, no_write_zeroes;
};

/* The drive must outlive it. */
struct virtio_blk *virtio_blk_new(const struct device_env *env, struct pci_bus *bus,
				  const struct virtio_pci_config *pci,
				  const struct virtio_blk_config *config, struct error *err);
void virtio_blk_free(struct virtio_blk *blk);
struct pci_device *virtio_blk_pci(struct virtio_blk *blk);

#endif
