/* SPDX-License-Identifier: MIT */
/*
 * The two NE2000 boards: 32 ports on the ISA bus with an interrupt line of its own, or the same
 * ports behind BAR 0 of a PCI function with pin INTA (RTL8029AS datasheet, "PCI Configuration
 * Space Table").
 *
 * The PROM holds the address in its first six bytes and 'W' (57h) at 14 and 15, by which drivers
 * tell a 16-bit card; each byte is stored twice, as drivers that read words from it expect (Novell
 * NE2000 design, followed by the RTL8029).
 */
#include "core/iobus.h"
#include "devices/ne2000_internal.h"
#include "lib/text.h"
#include <stdlib.h>
#include <string.h>

enum {
	VENDOR_REALTEK = 0x10EC,
	DEVICE_RTL8029 = 0x8029,
	CLASS_ETHERNET = 0x0200,
	PIN_INTA = 1,
	PROM_WORD_MARK = 0x57,
	PROM_MARK_AT = 14,
};

static void fill_prom(struct ne2000 *s)
{
	uint8_t bytes[NE2000_PROM_SIZE / 2] = {0};
	memcpy(bytes, s->mac, sizeof(s->mac));
	bytes[PROM_MARK_AT] = bytes[PROM_MARK_AT + 1] = PROM_WORD_MARK;
	for (unsigned n = 0; n < NE2000_PROM_SIZE; n++)
		s->prom[n] = bytes[n / 2];
}

/* What both boards have. */
static struct ne2000 *new_board(const struct device_env *env, const struct nic_config *nic,
				const char *model, struct error *err)
{
	struct ne2000 *s = xcalloc(1, sizeof(*s));
	memcpy(s->mac, nic->mac, sizeof(s->mac));
	s->states = env->states;
	fill_prom(s);
	s->port = net_port_new(nic->net, NET_NIC, nic->id, model, 1, &ne2000_port_ops, s, err);
	if (s->port && (!nic->peer || net_join(s->port, nic->peer, err) == 0))
		return s;
	net_port_free(s->port);
	free(s);
	return NULL;
}

struct ne2000 *ne2000_isa_new(const struct device_env *env, const struct nic_config *nic,
			      int instance, uint16_t iobase, struct irq_line irq, struct error *err)
{
	struct ne2000 *s = new_board(env, nic, "ne2k_isa", err);
	if (!s)
		return NULL;
	s->irq = irq;
	s->io = env->io;
	s->range = iobus_add(env->io, "ne2k_isa", iobase, NE2000_PORTS, &ne2000_io_ops, s);
	state_register(env->states, &ne2000_desc, instance, s);
	ne2000_power_on(s);
	return s;
}

static void set_pci_irq(void *opaque, int n, bool level)
{
	struct ne2000 *s = opaque;
	pci_set_irq(&s->pci, level);
}

struct ne2000 *ne2000_pci_new(const struct device_env *env, const struct nic_config *nic,
			      int instance, struct pci_bus *bus, int devfn, struct error *err)
{
	static const struct pci_id id = {
		.vendor = VENDOR_REALTEK,
		.device = DEVICE_RTL8029,
		.class = CLASS_ETHERNET,
		.subsystem_vendor = VENDOR_REALTEK,
		.subsystem = DEVICE_RTL8029,
		.interrupt_pin = PIN_INTA,
	};
	struct ne2000 *s = new_board(env, nic, "ne2k_pci", err);
	if (!s)
		return NULL;
	s->realtek = true;
	if (pci_device_init(bus, &s->pci, devfn, "ne2k_pci", &id, err) < 0) {
		net_port_free(s->port);
		free(s);
		return NULL;
	}
	s->on_pci = true;
	s->irq = (struct irq_line){set_pci_irq, s, 0};
	pci_bar_io(&s->pci, 0, NE2000_PORTS, &ne2000_io_ops, s);
	state_register(env->states, &ne2000_desc, instance, s);
	ne2000_power_on(s);
	return s;
}

struct pci_device *ne2000_pci_device(struct ne2000 *s)
{
	return s->on_pci ? &s->pci : NULL;
}

void ne2000_free(struct ne2000 *s)
{
	if (!s)
		return;
	state_unregister(s->states, s);
	if (s->on_pci)
		pci_device_fini(&s->pci);
	else
		iobus_remove(s->io, s->range);
	net_port_free(s->port);
	free(s);
}
