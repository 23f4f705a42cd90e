/* SPDX-License-Identifier: MIT */
/* virtio-rng-pci: random numbers from the host. */
#ifndef DEVICES_VIRTIO_RNG_H
#define DEVICES_VIRTIO_RNG_H

#include "devices/virtio.h"

struct virtio_rng;

/* A source that is neither a file nor the kernel. The lock is held in all calls. */
struct virtio_rng_source {
	/* Up to `len` random bytes; 0: none now, and ready() is called when there are. */
	size_t (*read)(void *opaque, uint8_t *buf, size_t len);
	/* Its one user, or NULL when that goes. */
	void (*attach)(void *opaque, void (*ready)(void *card), void *card);
	void *opaque;
};

struct virtio_rng_config {
	int fd; /* nonblocking, owned by the device from now on; -1: the host kernel's generator */
	const struct virtio_rng_source *source; /* instead of it, or NULL */
	uint64_t max_bytes;                     /* in each period; 0: no limit */
	uint32_t period_ms;
};

/* On failure the caller keeps the descriptor. */
struct virtio_rng *virtio_rng_new(const struct device_env *env, struct pci_bus *bus,
				  const struct virtio_pci_config *pci,
				  const struct virtio_rng_config *config, struct error *err);
void virtio_rng_free(struct virtio_rng *rng);
struct pci_device *virtio_rng_pci(struct virtio_rng *rng);

#endif
