/* SPDX-License-Identifier: MIT */
/* The local APICs of all processors, at 0xFEE00000; which one answers is told by current_cpu. */
#ifndef DEVICES_LAPIC_H
#define DEVICES_LAPIC_H

#include "core/device.h"
#include "core/irq.h"
#include <stdbool.h>
#include <stdint.h>

#define LAPIC_DEFAULT_BASE UINT64_C(0xFEE00000)

struct lapic_set;

/* What the set does to the processors. Lock held. */
struct lapic_ops {
	void (*set_intr)(void *opaque, unsigned cpu, bool level); /* the INTR pin */
	void (*nmi)(void *opaque, unsigned cpu);
	void (*init)(void *opaque, unsigned cpu);
	void (*sipi)(void *opaque, unsigned cpu, uint8_t vector);
	/* Acknowledge cycle to the 8259s (i8259_ack): for ExtINT. May be NULL: no PIC. */
	int (*pic_ack)(void *opaque);
};

/* SDM vol. 3A, 10.5.1 (LVT delivery modes) and 10.6.1; the IOAPIC and MSIs use the same numbers. */
enum apic_delivery_mode {
	APIC_FIXED = 0,
	APIC_LOWEST = 1,
	APIC_SMI = 2,
	APIC_NMI = 4,
	APIC_INIT = 5,
	APIC_SIPI = 6,
	APIC_EXTINT = 7,
};

struct apic_message {
	uint8_t dest;
	bool logical; /* destination mode */
	uint8_t mode; /* enum apic_delivery_mode */
	uint8_t vector;
	bool level; /* trigger mode: level, so its EOI is broadcast */
};

/* `ops` must stay valid. CPU 0 is the bootstrap processor; APIC ids are the CPU numbers. */
struct lapic_set *lapic_set_new(const struct device_env *env, unsigned cpus,
				const struct lapic_ops *ops, void *opaque);
void lapic_set_free(struct lapic_set *set);
/* Interrupt acknowledge of one CPU: the vector, now in service; the PIC's answer when LINT0 passes
 * its interrupt on; -1 if nothing is pending. */
int lapic_ack(struct lapic_set *set, unsigned cpu);
/* Where the PIC's INT output goes (all processors' LINT0). */
struct irq_line lapic_lint0(struct lapic_set *set);
/* An interrupt message from the IOAPIC or a device. */
void lapic_deliver(struct lapic_set *set, const struct apic_message *msg);
/* A message-signalled interrupt as a PCI device writes it (SDM vol. 3A, 10.11). */
void lapic_msi(struct lapic_set *set, uint64_t address, uint32_t data);
/* IA32_APIC_BASE of one CPU was written (or its state was set): moves, enables, disables. */
void lapic_set_base(struct lapic_set *set, unsigned cpu, uint64_t value);
uint64_t lapic_get_base(const struct lapic_set *set, unsigned cpu);
/* Called with the vector of each level-triggered interrupt that is ended (the IOAPIC's hook). */
void lapic_set_eoi_hook(struct lapic_set *set, void (*fn)(void *opaque, uint8_t vector),
			void *opaque);

#endif
