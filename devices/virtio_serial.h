/* SPDX-License-Identifier: MIT */
/* virtio-serial-pci: a card with up to 31 ports, each on a character device. */
#ifndef DEVICES_VIRTIO_SERIAL_H
#define DEVICES_VIRTIO_SERIAL_H

#include "devices/virtio.h"

struct chardev;
struct virtio_serial;

enum { VIRTIO_SERIAL_PORTS_MAX = 31, VIRTIO_SERIAL_NAME_MAX = 63 };

/* A card with room for `ports` ports, 1..VIRTIO_SERIAL_PORTS_MAX. */
struct virtio_serial *virtio_serial_new(const struct device_env *env, struct pci_bus *bus,
					const struct virtio_pci_config *pci, unsigned ports,
					struct error *err);
void virtio_serial_free(struct virtio_serial *s);
struct pci_device *virtio_serial_pci(struct virtio_serial *s);

/*
 * Puts a port on it, before the guest runs. `nr` < 0: the first free one (port 0 is only for
 * consoles). `name` is how the guest knows it (/dev/virtio-ports/NAME), or NULL. The chardev must
 * outlive the card and have no other front end. -EINVAL or -EBUSY with an error.
 */
int virtio_serial_add_port(struct virtio_serial *s, int nr, bool console, const char *name,
			   struct chardev *chr, struct error *err);

#endif
