/* SPDX-License-Identifier: MIT */
/* virtio-blk-pci: a disk on virtqueues. */
#ifndef DEVICES_VIRTIO_BLK_H
#define DEVICES_VIRTIO_BLK_H

#include "block/drive.h"
#include "devices/virtio.h"

struct virtio_blk;

enum {
	VIRTIO_BLK_QUEUES_MAX = 64,
	VIRTIO_BLK_BLOCK_MAX = 32768, /* largest block_size, logical or physical */
};

struct virtio_blk_config {
	struct drive *drive;
	unsigned queues;                        /* 1..VIRTIO_BLK_QUEUES_MAX */
	unsigned queue_size;                    /* a power of two, 4..VIRTQUEUE_SIZE_MAX */
	unsigned logical_block, physical_block; /* bytes, powers of two from 512 */
	unsigned min_io, opt_io;                /* bytes, multiples of logical_block; 0: not told */
	bool write_cache;                       /* at power-on */
	bool no_config_wce, no_discard, no_write_zeroes;
};

/* The drive must outlive it. */
struct virtio_blk *virtio_blk_new(const struct device_env *env, struct pci_bus *bus,
				  const struct virtio_pci_config *pci,
				  const struct virtio_blk_config *config, struct error *err);
void virtio_blk_free(struct virtio_blk *blk);
struct pci_device *virtio_blk_pci(struct virtio_blk *blk);

#endif
