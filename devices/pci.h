/* SPDX-License-Identifier: MIT */
/*
 * The PCI bus of the PC (one bus, configuration mechanism #1 at 0xCF8/0xCFC) and what a PCI
 * function needs: a configuration space with write masks, BARs that follow the guest's writes, an
 * interrupt pin, and bus-master access to RAM. A device embeds struct pci_device and describes
 * itself with pci_device_init() and the pci_bar_*() calls. The machine lock is held throughout.
 */
#ifndef DEVICES_PCI_H
#define DEVICES_PCI_H

#include "core/device.h"
#include "core/iobus.h"
#include "core/irq.h"
#include "core/memory.h"
#include "lib/strbuf.h"
#include <stdbool.h>
#include <stdint.h>

/* PCI Local Bus Specification 3.0, chapter 6.1: the type 0 header. */
enum pci_reg {
	PCI_VENDOR_ID = 0x00,
	PCI_DEVICE_ID = 0x02,
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_REVISION = 0x08,
	PCI_PROG_IF = 0x09,
	PCI_CLASS = 0x0A, /* subclass in the low byte, base class in the high */
	PCI_HEADER_TYPE = 0x0E,
	PCI_BAR0 = 0x10,
	PCI_SUBSYSTEM_VENDOR_ID = 0x2C,
	PCI_SUBSYSTEM_ID = 0x2E,
	PCI_ROM_ADDRESS = 0x30,
	PCI_CAPABILITIES = 0x34,
	PCI_INTERRUPT_LINE = 0x3C,
	PCI_INTERRUPT_PIN = 0x3D,
	PCI_MIN_GNT = 0x3E,
	PCI_MAX_LAT = 0x3F,
	PCI_CONFIG_SIZE = 0x100,
};

enum pci_command_bits {
	PCI_COMMAND_IO = 1 << 0,
	PCI_COMMAND_MEMORY = 1 << 1,
	PCI_COMMAND_MASTER = 1 << 2,
	PCI_COMMAND_PARITY = 1 << 6,
	PCI_COMMAND_SERR = 1 << 8,
	PCI_COMMAND_INTX_DISABLE = 1 << 10,
};

enum pci_status_bits {
	PCI_STATUS_INTERRUPT = 1 << 3,
	PCI_STATUS_CAP_LIST = 1 << 4,
	PCI_STATUS_FAST_B2B = 1 << 7,
	PCI_STATUS_DEVSEL_MEDIUM = 1 << 9,
};

enum { PCI_ROM_BAR = 6, PCI_BARS = 7 }; /* six base address registers and the expansion ROM */

#define PCI_DEVFN(slot, function) ((uint8_t)((slot) << 3 | (function)))

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM, PCI_BAR_ROM };

struct pci_bus;

struct pci_bar {
	enum pci_bar_kind kind;
	uint32_t size; /* bytes, a power of two */
	/* I/O */
	const struct io_ops *ops;
	void *opaque;
	struct io_range *io; /* while decoded */
	/* memory and ROM */
	struct mem_mapping *mapping;
	uint32_t address; /* where it is decoded now */
	bool decoded;
};

struct pci_device {
	/* guest-visible */
	uint8_t config[PCI_CONFIG_SIZE];
	bool irq_level; /* what the function asks for on its INTx pin */

	bool asserted; /* counted on its PIRQ now: irq_level unless INTx is disabled */

	struct pci_bus *bus;
	const char *name;
	uint8_t devfn;
	uint8_t reset_config[PCI_CONFIG_SIZE]; /* config at power-on */
	uint8_t wmask[PCI_CONFIG_SIZE];        /* bits the guest may change */
	uint8_t w1cmask[PCI_CONFIG_SIZE];      /* bits the guest clears by writing 1 */
	uint8_t capability_end;                /* where the next capability goes, in dwords */
	struct pci_bar bar[PCI_BARS];
	/*
	 * After bytes [first, first + count) of the configuration space may have changed: a guest
	 * write, reset or load (then first = 0, count = 256). May be NULL. BARs and the interrupt
	 * pin need no help.
	 */
	void (*config_changed)(struct pci_device *dev, unsigned first, unsigned count);
	/* Before the guest reads [first, first + count): brings what lives elsewhere up to date.
	 * May be NULL. */
	void (*config_reading)(struct pci_device *dev, unsigned first, unsigned count);
};

/* An empty bus that answers at 0xCF8/0xCFC. */
struct pci_bus *pci_bus_new(const struct device_env *env);
void pci_bus_free(struct pci_bus *bus);
/* Where PIRQA..PIRQD go (the PIIX3 calls it). */
void pci_bus_set_pirq(struct pci_bus *bus, const struct irq_line pirq[4]);

/* Identity of a function; what is 0 stays 0 in its configuration space. */
struct pci_id {
	uint16_t vendor, device;
	uint16_t class; /* base class << 8 | subclass */
	uint8_t prog_if, revision;
	uint16_t subsystem_vendor, subsystem;
	uint8_t interrupt_pin; /* 0 none, 1 INTA .. 4 INTD */
	bool multifunction;    /* function 0 of a device that has more */
};

/*
 * Puts a function onto the bus. `dev` lies in the device's own struct and is zeroed here. `name`
 * must stay valid. A free slot is found for devfn < 0 (from slot 2 up). Returns the devfn, or
 * -EBUSY/-ENOSPC with an error. Registers the configuration space as state "pci" (instance devfn).
 */
int pci_device_init(struct pci_bus *bus, struct pci_device *dev, int devfn, const char *name,
		    const struct pci_id *id, struct error *err);
/* Takes it off the bus; BARs and state entry go away. */
void pci_device_fini(struct pci_device *dev);

/*
 * Further configuration bytes: their power-on value and which bits the guest may change. Call after
 * pci_device_init(), before the guest runs. `reg + size` <= 256, size 1, 2 or 4.
 */
void pci_config_define(struct pci_device *dev, unsigned reg, unsigned size, uint32_t value,
		       uint32_t wmask);

/*
 * Adds a capability of `size` bytes (a multiple of 4, its two header bytes included) to the list
 * (PCI 3.0, 6.7) and returns where it starts; -ENOSPC if the configuration space is full. What
 * follows the header is defined with pci_config_define(). Before the guest runs.
 */
int pci_add_capability(struct pci_device *dev, uint8_t id, unsigned size, struct error *err);

/* BARs. `size` is a power of two: I/O 4..256 bytes or more, memory at least 16. An I/O BAR's
 * callbacks get absolute ports; they are naturally aligned, so port & (size - 1) is the offset. */
void pci_bar_io(struct pci_device *dev, int n, uint32_t size, const struct io_ops *ops,
		void *opaque);
/* `region->size` must be the power of two. */
void pci_bar_mem(struct pci_device *dev, int n, struct mem_region *region, bool prefetchable);
void pci_bar_rom(struct pci_device *dev, struct mem_region *rom);
/* The address a BAR is set to, whether or not it is decoded; 0 for none. */
uint32_t pci_bar_address(const struct pci_device *dev, int n);

/* Drives the function's INTx pin; shared lines are counted. */
void pci_set_irq(struct pci_device *dev, bool level);
/* 0..3: the PIRQ that a slot's pin (0 = INTA) is wired to. */
unsigned pci_pirq(unsigned slot, unsigned pin);

/* Bus-master accesses, bounded to RAM: false (and reads give 0xFF) without the bus-master bit or
 * where there is no RAM. pci_dma_map() is mem_dma_map() with that check. */
bool pci_dma_read(struct pci_device *dev, uint64_t addr, void *buf, size_t len);
bool pci_dma_write(struct pci_device *dev, uint64_t addr, const void *buf, size_t len);
void *pci_dma_map(struct pci_device *dev, uint64_t addr, size_t *len, bool write);

/* Configuration accesses as the guest makes them; absent functions read as all ones. */
uint32_t pci_config_read(struct pci_bus *bus, unsigned devfn, unsigned reg, unsigned size);
void pci_config_write(struct pci_bus *bus, unsigned devfn, unsigned reg, unsigned size,
		      uint32_t value);

/* `info pci`. */
void pci_info(struct pci_bus *bus, struct strbuf *out);

#endif
