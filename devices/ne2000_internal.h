/* SPDX-License-Identifier: MIT */
/* The NE2000's state, shared by its core (ne2000.c) and its bus sides (ne2000_bus.c). */
#ifndef DEVICES_NE2000_INTERNAL_H
#define DEVICES_NE2000_INTERNAL_H

#include "core/state.h"
#include "devices/ne2000.h"
#include "devices/pci.h"

enum {
	NE2000_RAM_BASE = 0x4000,
	NE2000_RAM_SIZE = 0x8000,
	NE2000_PROM_SIZE = 32,
	NE2000_TALLIES = 3,
	NE2000_FIFO = 8,
};

struct ne2000 {
	/* DP8390 registers under their datasheet names. */
	uint8_t cr, isr, imr, dcr, tcr, rcr, tsr, rsr;
	uint8_t pstart, pstop, bnry, curr, tpsr;
	uint8_t ncr;
	uint8_t cntr[NE2000_TALLIES]; /* frame alignment errors, CRC errors, missed frames */
	uint16_t tbcr, rsar, rbcr;
	uint16_t crda; /* where remote DMA is */
	uint16_t left; /* bytes that remote DMA has yet to move */
	uint16_t clda; /* where reception is */
	bool unseen;   /* a frame came since the host last read ISR or CURR */
	uint8_t par[NET_MAC_LEN];
	uint8_t mar[8];
	uint8_t fifo[NE2000_FIFO], fifo_pos; /* what loopback left there */
	uint8_t ram[NE2000_RAM_SIZE];

	uint8_t prom[NE2000_PROM_SIZE];
	uint8_t mac[NET_MAC_LEN];
	struct irq_line irq;
	struct net_port *port;
	const struct device_env *env;
	struct state_registry *states;
	bool realtek; /* has the RTL8029's identification and page 3 */

	/* ISA */
	struct iobus *io;
	struct io_range *range;
	/* PCI */
	struct pci_device pci;
	bool on_pci;
};

extern const struct io_ops ne2000_io_ops;
extern const struct state_desc ne2000_desc;
extern const struct net_port_ops ne2000_port_ops;

void ne2000_power_on(struct ne2000 *s);

#endif
