/* SPDX-License-Identifier: MIT */
/*
 * An interrupt line is a value: whom to tell, and which of its inputs. A device is handed its line
 * and sets its level; what is behind it (8259, IOAPIC, KVM's chips, a PCI router) it cannot know.
 * The machine lock is held.
 */
#ifndef CORE_IRQ_H
#define CORE_IRQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct irq_line {
	void (*set)(void *opaque, int n, bool level); /* NULL: not connected */
	void *opaque;
	int n;
};

static inline void irq_set(const struct irq_line *line, bool level)
{
	if (line->set)
		line->set(line->opaque, line->n, level);
}

static inline void irq_raise(const struct irq_line *line)
{
	irq_set(line, true);
}

static inline void irq_lower(const struct irq_line *line)
{
	irq_set(line, false);
}

/* A pulse for an edge-triggered input. */
static inline void irq_pulse(const struct irq_line *line)
{
	irq_set(line, true);
	irq_set(line, false);
}

/*
 * Who takes message-signalled interrupts: a write of `data` to the local APICs' address range (SDM
 * vol. 3A, 10.11) that a PCI function makes instead of raising a line.
 */
struct msi_controller {
	/* NULL: nobody. Lock held. */
	void (*send)(void *opaque, uint64_t address, uint32_t data);
	/*
	 * Both or none. From route() to unroute() each signal of the eventfd `fd` sends this
	 * message: any thread may signal it, with no lock. route() again gives it another message.
	 * Negative errno: that cannot be had (any more); use send(). Lock held.
	 */
	int (*route)(void *opaque, int fd, uint64_t address, uint32_t data);
	void (*unroute)(void *opaque, int fd);
	void *opaque;
};

static inline void msi_send(const struct msi_controller *msi, uint64_t address, uint32_t data)
{
	if (msi && msi->send)
		msi->send(msi->opaque, address, data);
}

#endif
