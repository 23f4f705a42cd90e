/* SPDX-License-Identifier: MIT */
/* The 82093AA I/O APIC with 24 inputs. */
#ifndef DEVICES_IOAPIC_H
#define DEVICES_IOAPIC_H

#include "core/device.h"
#include "core/irq.h"
#include <stdint.h>

#define IOAPIC_DEFAULT_BASE UINT64_C(0xFEC00000)
#define IOAPIC_PINS         24

struct lapic_set;
struct ioapic;

struct ioapic *ioapic_new(const struct device_env *env, uint64_t base, struct lapic_set *lapics,
			  uint8_t id);
void ioapic_free(struct ioapic *io);
/* Input 0..23. On a PC, ISA IRQ 0 goes to input 2, the others to the input of their number. */
struct irq_line ioapic_line(struct ioapic *io, int n);

#endif
