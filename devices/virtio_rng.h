/* SPDX-License-Identifier: MIT */
/* virtio-rng-pci: random numbers from the host. */
#ifndef DEVICES_VIRTIO_RNG_H
#define DEVICES_VIRTIO_RNG_H

#include "devices/virtio.h"

struct virtio_rng;

struct virtio_rng_config {
	int fd; /* nonblocking, owned by the device from now on; -1: the host kernel's generator */
	uint64_t max_bytes; /* in each period; 0: no limit */
	uint32_t period_ms;
};

/* On failure the caller keeps the descriptor. */
struct virtio_rng *virtio_rng_new(const struct device_env *env, struct pci_bus *bus,
				  const struct virtio_pci_config *pci,
				  const struct virtio_rng_config *config, struct error *err);
void virtio_rng_free(struct virtio_rng *rng);
struct pci_device *virtio_rng_pci(struct virtio_rng *rng);

#endif
