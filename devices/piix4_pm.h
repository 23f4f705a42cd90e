/* SPDX-License-Identifier: MIT */
/* PIIX4 power management function (8086:7113): ACPI PM1, PM timer, GPE0, soft-off, SMI command
 * port. */
#ifndef DEVICES_PIIX4_PM_H
#define DEVICES_PIIX4_PM_H

#include "core/device.h"
#include "core/irq.h"
#include "lib/error.h"
#include <stdbool.h>
#include <stdint.h>

struct pci_bus;
struct piix4_pm;

/* What the ACPI tables have to say about it. Offsets are from the PM base. */
enum {
	PIIX4_PM_BASE = 0x600,    /* where SeaBIOS puts PMBASE */
	PIIX4_PM1_EVT = 0x00,     /* 4 bytes */
	PIIX4_PM1_CNT = 0x04,     /* 2 bytes */
	PIIX4_PM_TMR = 0x08,      /* 4 bytes, 24-bit counter */
	PIIX4_GPE0_BASE = 0xAFE0, /* absolute; 4 bytes: 2 of status, 2 of enable */
	PIIX4_GPE0_LEN = 4,
	PIIX4_SMI_CMD = 0xB2,
	PIIX4_ACPI_ENABLE = 0xF1,
	PIIX4_ACPI_DISABLE = 0xF0,
	PIIX4_SCI_IRQ = 9,
	PIIX4_SLP_TYP_S5 = 0, /* \_S5: SLP_TYPa */
};

/* Function `devfn` (01.3 on the pc). `sci` is ISA interrupt 9. */
struct piix4_pm *piix4_pm_new(const struct device_env *env, struct pci_bus *bus, int devfn,
			      const struct irq_line *sci, struct error *err);
void piix4_pm_free(struct piix4_pm *s);

/* Somebody pressed the power button (system_powerdown). */
void piix4_pm_power_button(struct piix4_pm *s);
/* Whether the guest runs in ACPI mode (SCI_EN), so that it can notice the button. */
bool piix4_pm_acpi_enabled(const struct piix4_pm *s);

#endif
