/* SPDX-License-Identifier: MIT */
/* The MSI-X capability of a PCI function: its table and pending bits in a memory BAR. */
#ifndef DEVICES_MSIX_H
#define DEVICES_MSIX_H

#include "core/irq.h"
#include "devices/pci.h"

enum { MSIX_VECTORS_MAX = 128, MSIX_NO_VECTOR = 0xFFFF };

struct msix_entry {
	uint64_t address;
	uint32_t data;
	uint32_t control;
};

/* An eventfd that sends a vector's message where the engine can do that. */
struct msix_route {
	int fd; /* 0: none */
	bool made;
	uint64_t address; /* what it sends now */
	uint32_t data;
};

/* Embed it in the device's struct. */
struct msix {
	struct msix_entry entry[MSIX_VECTORS_MAX];
	uint64_t pending[MSIX_VECTORS_MAX / 64];

	struct pci_device *dev; /* NULL: the function has no MSI-X */
	const struct msi_controller *controller;
	struct state_registry *states;
	unsigned vectors;
	struct msix_route route[MSIX_VECTORS_MAX];
	bool no_routes;      /* the engine has none (left) */
	unsigned capability; /* where it stands in the configuration space */
};

/*
 * Gives `dev` MSI-X with 1..MSIX_VECTORS_MAX vectors, with table and pending bits in memory BAR
 * `bar` (4 KiB). -EINVAL or -ENOSPC with an error.
 */
int msix_init(struct msix *m, const struct device_env *env, struct pci_device *dev,
	      unsigned vectors, int bar, struct error *err);
/* Before pci_device_fini(). Nothing happens if msix_init() was not called (on a zeroed struct). */
void msix_fini(struct msix *m);
/* To be called from the function's config_changed. */
void msix_config_changed(struct msix *m, unsigned first, unsigned count);
/* Whether the guest has switched it on: then INTx is not to be used. */
bool msix_enabled(const struct msix *m);
/* Sends the message of a vector, or notes it as pending while it is masked. Vectors that there are
 * not are ignored. */
void msix_notify(struct msix *m, unsigned vector);

#endif
