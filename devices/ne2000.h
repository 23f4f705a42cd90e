/* SPDX-License-Identifier: MIT */
/* NE2000 network cards: the ISA original and its PCI descendant, Realtek's RTL8029. */
#ifndef DEVICES_NE2000_H
#define DEVICES_NE2000_H

#include "core/device.h"
#include "core/irq.h"
#include "lib/error.h"
#include "net/net.h"
#include <stdint.h>

struct ne2000;
struct pci_bus;
struct pci_device;

enum { NE2000_ISA_IOBASE = 0x300, NE2000_ISA_IRQ = 9, NE2000_PORTS = 32 };

/* `instance` counts the cards of the machine. `iobase` + 32 <= 0x10000. NULL with a sentence when
 * the id is taken or the backend has a card already. Lock held. */
struct ne2000 *ne2000_isa_new(const struct device_env *env, const struct nic_config *nic,
			      int instance, uint16_t iobase, struct irq_line irq,
			      struct error *err);
/* `devfn` < 0: a free slot. */
struct ne2000 *ne2000_pci_new(const struct device_env *env, const struct nic_config *nic,
			      int instance, struct pci_bus *bus, int devfn, struct error *err);
/* The PCI function, for its option ROM and its place; NULL of the ISA card. */
struct pci_device *ne2000_pci_device(struct ne2000 *s);
void ne2000_free(struct ne2000 *s);

#endif
