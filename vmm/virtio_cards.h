/* SPDX-License-Identifier: MIT */
/* The virtio cards of -device: rows for the table in pci_devices.c. */
#ifndef VMM_VIRTIO_CARDS_H
#define VMM_VIRTIO_CARDS_H

#include "devices/virtio.h"
#include "vmm/pci_devices.h"

extern const struct pci_device_type virtio_blk_card, virtio_net_card, virtio_rng_card,
	virtio_serial_card;

/* The length of a driver's name without -transitional or -non-transitional. */
size_t virtio_base_name(const char *driver);

/* -device virtserialport and virtconsole: whether a driver is one, and all of them, once the cards
 * are there. */
bool virtio_is_serial_port(const char *driver);
extern const char *const virtio_serial_port_keys[];
int virtio_build_serial_ports(struct machine *m, struct error *err);

/* Properties that all of them have, for the lists of keys. */
#define VIRTIO_PROPERTIES                                                                          \
	"disable-legacy", "disable-modern", "vectors", "indirect_desc", "event_idx", "ioeventfd",  \
		"packed", "queue_reset", "any_layout"

/* Reads them; `vectors` is what the card has without vectors=. */
int virtio_card_options(const struct pci_device_args *args, unsigned vectors,
			struct virtio_pci_config *config, struct error *err);

#endif
