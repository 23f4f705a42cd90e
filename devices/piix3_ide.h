/* SPDX-License-Identifier: MIT */
/* PIIX3 IDE (8086:7010): two channels of two drives, bus-master DMA. */
#ifndef DEVICES_PIIX3_IDE_H
#define DEVICES_PIIX3_IDE_H

#include "core/device.h"
#include "core/irq.h"
#include "lib/error.h"

struct drive;
struct pci_bus;
struct piix3_ide;

/*
 * Function `devfn` (01.1 on the pc). drives[] is primary master, primary slave, secondary master,
 * secondary slave; NULL for none; a DRIVE_CDROM is an ATAPI drive, any other kind a disk. The
 * drives stay the caller's and must outlive the controller.
 */
struct piix3_ide *piix3_ide_new(const struct device_env *env, struct pci_bus *bus, int devfn,
				const struct irq_line *irq14, const struct irq_line *irq15,
				struct drive *const drives[4], struct error *err);
void piix3_ide_free(struct piix3_ide *s);

#endif
