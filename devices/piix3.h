/* SPDX-License-Identifier: MIT */
/* PIIX3 (82371SB) ISA bridge: routes PIRQA..D to ISA interrupts, holds the reset control register.
 */
#ifndef DEVICES_PIIX3_H
#define DEVICES_PIIX3_H

#include "core/device.h"
#include "core/irq.h"
#include "lib/error.h"

struct pci_bus;
struct piix3;

enum { PIIX3_SLOT = 1 }; /* as on QEMU's pc: ISA 01.0, IDE 01.1, PM 01.3 */

/*
 * Creates the bridge as function 01.0 and makes it the bus's interrupt router. isa[n] is ISA
 * interrupt n; a level set there is ORed by whoever is behind it with the ISA device's own use.
 */
struct piix3 *piix3_new(const struct device_env *env, struct pci_bus *bus,
			const struct irq_line isa[16], struct error *err);
void piix3_free(struct piix3 *s);

#endif
