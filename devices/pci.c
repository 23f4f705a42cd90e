/* SPDX-License-Identifier: MIT */
/*
 * PCI bus 0 with configuration mechanism #1.
 *
 *   port   size  what
 *   0xCF8  4     CONFIG_ADDRESS: enable(31) bus(23:16) device(15:11) function(10:8) register(7:2)
 *   0xCFC  1,2,4 CONFIG_DATA: the register that CONFIG_ADDRESS names, at byte port & 3
 *
 * A function's configuration space is 256 bytes with a mask of what the guest may change; after a
 * write that touches the command register or a base address, decoding is worked out anew: an I/O
 * BAR is a range on the I/O bus, a memory BAR or ROM a mapping in guest memory, each there only
 * while the command register enables it and its address is a possible one. All ones (the sizing
 * pattern) and zero are not: software sizes BARs with decoding on.
 *
 * INTx: pin and slot choose one of four PIRQ lines; a line is high while any function on it
 * asserts.
 *
 * Documents: PCI Local Bus Specification 3.0, 3.2.2.3.2 (mechanism #1), 6.1 (header), 6.2.2
 * (command), 6.2.5 (base addresses); 82441FX datasheet 3.1 (CONFADD, CONFDATA). Left out: bridges
 * (every bus but 0 is empty), configuration mechanism #2, 64-bit BARs, parity and SERR reporting
 * (nothing ever fails).
 */
#include "devices/pci.h"
#include "core/state.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>

enum {
	CONFIG_ADDRESS = 0xCF8,
	CONFIG_DATA = 0xCFC,
	FIRST_FREE_SLOT = 2, /* 0 is the host bridge, 1 the PIIX3 */
	SLOTS = 32,
	FUNCTIONS = 256, /* slots times functions */
	PIRQS = 4,
	FIRST_CAPABILITY = 0x40,
};

enum config_address_bits {
	CONFADD_REG = 0xFC,
	CONFADD_DEVFN_SHIFT = 8,
	CONFADD_BUS = 0xFF << 16,
};
#define CONFADD_ENABLE   UINT32_C(0x80000000)
#define CONFADD_WRITABLE UINT32_C(0x80FFFFFC)

/* Low bits of base address registers. */
enum bar_bits { BAR_SPACE_IO = 1, BAR_PREFETCHABLE = 8, ROM_ENABLE = 1 };
#define BAR_IO_MASK  (~UINT32_C(3))
#define BAR_MEM_MASK (~UINT32_C(15))
#define ROM_MASK     (~UINT32_C(0x7FF))

enum { HEADER_MULTIFUNCTION = 0x80 };

struct pci_bus {
	uint32_t config_address;

	struct memory *mem;
	struct iobus *io;
	struct state_registry *states;
	struct io_range *address_range, *data_range;
	struct pci_device *device[FUNCTIONS];
	struct irq_line pirq[PIRQS];
	unsigned asserting[PIRQS]; /* how many functions hold each line up */
};

static const struct state_field bus_fields[] = {
	STATE_UINT(pci_bus, config_address),
	STATE_END,
};

static int bus_post_load(void *opaque, unsigned version, struct error *err)
{
	struct pci_bus *bus = opaque;
	bus->config_address &= CONFADD_WRITABLE;
	return 0;
}

static const struct state_desc bus_state = {
	.name = "pci-host",
	.version = 1,
	.fields = bus_fields,
	.post_load = bus_post_load,
};

/* ---- interrupts ---- */

unsigned pci_pirq(unsigned slot, unsigned pin)
{
	/* As QEMU's pc is wired (and SeaBIOS and the DSDT expect): slot 1's INTA is PIRQA. */
	return (slot + pin - 1) % PIRQS;
}

void pci_bus_set_pirq(struct pci_bus *bus, const struct irq_line pirq[4])
{
	for (int i = 0; i < PIRQS; i++) {
		bus->pirq[i] = pirq[i];
		irq_set(&bus->pirq[i], bus->asserting[i] != 0);
	}
}

static void update_irq(struct pci_device *dev)
{
	struct pci_bus *bus = dev->bus;
	bool level = dev->irq_level &&
		     !(load_le16(dev->config + PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE);
	unsigned pin = dev->reset_config[PCI_INTERRUPT_PIN];

	if (dev->irq_level)
		dev->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
	else
		dev->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
	if (level == dev->asserted || pin == 0)
		return;
	dev->asserted = level;
	unsigned line = pci_pirq(dev->devfn >> 3, pin - 1);
	trace(TRACE_PCI, "%s: INT%c -> PIRQ%c %s", dev->name, 'A' + (int)pin - 1, 'A' + (int)line,
	      level ? "up" : "down");
	if (level ? bus->asserting[line]++ == 0 : --bus->asserting[line] == 0)
		irq_set(&bus->pirq[line], level);
}

void pci_set_irq(struct pci_device *dev, bool level)
{
	if (dev->irq_level == level)
		return;
	dev->irq_level = level;
	update_irq(dev);
}

/* ---- base addresses ---- */

static unsigned bar_reg(int n)
{
	return n == PCI_ROM_BAR ? PCI_ROM_ADDRESS : PCI_BAR0 + 4 * (unsigned)n;
}

uint32_t pci_bar_address(const struct pci_device *dev, int n)
{
	uint32_t value = load_le32(dev->config + bar_reg(n));

	switch (dev->bar[n].kind) {
	case PCI_BAR_IO: return value & BAR_IO_MASK;
	case PCI_BAR_MEM: return value & BAR_MEM_MASK;
	case PCI_BAR_ROM: return value & ROM_MASK;
	default: return 0;
	}
}

/* Whether the BAR is enabled at an address where it can be decoded. */
static bool bar_wanted(const struct pci_device *dev, int n)
{
	const struct pci_bar *bar = &dev->bar[n];
	uint16_t command = load_le16(dev->config + PCI_COMMAND);
	uint64_t address = pci_bar_address(dev, n);
	uint64_t last = address + bar->size - 1;

	if (address == 0)
		return false;
	switch (bar->kind) {
	case PCI_BAR_IO: return (command & PCI_COMMAND_IO) && last < UINT16_MAX;
	case PCI_BAR_MEM: return (command & PCI_COMMAND_MEMORY) && last < UINT32_MAX;
	case PCI_BAR_ROM:
		return (command & PCI_COMMAND_MEMORY) && last < UINT32_MAX &&
		       (dev->config[PCI_ROM_ADDRESS] & ROM_ENABLE);
	default: return false;
	}
}

static void update_bar(struct pci_device *dev, int n)
{
	struct pci_bar *bar = &dev->bar[n];
	bool wanted = bar_wanted(dev, n);
	uint32_t address = pci_bar_address(dev, n);

	if (bar->kind == PCI_BAR_NONE ||
	    (bar->decoded == wanted && (!wanted || bar->address == address)))
		return;
	trace(TRACE_PCI, "%s: BAR%d %s at %x", dev->name, n, wanted ? "decoded" : "off", address);
	if (bar->kind == PCI_BAR_IO) {
		if (bar->io)
			iobus_remove(dev->bus->io, bar->io);
		bar->io = wanted ? iobus_add(dev->bus->io, dev->name, (uint16_t)address, bar->size,
					     bar->ops, bar->opaque)
				 : NULL;
	} else {
		mem_mapping_set(bar->mapping, address, wanted ? MEM_RW : 0);
	}
	bar->decoded = wanted;
	bar->address = address;
}

static void update_bars(struct pci_device *dev)
{
	memory_begin(dev->bus->mem);
	for (int n = 0; n < PCI_BARS; n++)
		update_bar(dev, n);
	memory_commit(dev->bus->mem);
}

static void add_bar(struct pci_device *dev, int n, enum pci_bar_kind kind, uint32_t size,
		    uint32_t flags, uint32_t wmask)
{
	dev->bar[n] = (struct pci_bar){.kind = kind, .size = size};
	pci_config_define(dev, bar_reg(n), 4, flags, wmask);
}

void pci_bar_io(struct pci_device *dev, int n, uint32_t size, const struct io_ops *ops,
		void *opaque)
{
	add_bar(dev, n, PCI_BAR_IO, size, BAR_SPACE_IO, ~(size - 1) & BAR_IO_MASK);
	dev->bar[n].ops = ops;
	dev->bar[n].opaque = opaque;
}

static void map_bar(struct pci_device *dev, int n, struct mem_region *region)
{
	dev->bar[n].mapping = mem_map(dev->bus->mem, region, 0, 0, region->size, MEM_PRIO_PCI);
}

void pci_bar_mem(struct pci_device *dev, int n, struct mem_region *region, bool prefetchable)
{
	uint32_t size = (uint32_t)region->size;
	add_bar(dev, n, PCI_BAR_MEM, size, prefetchable ? BAR_PREFETCHABLE : 0,
		~(size - 1) & BAR_MEM_MASK);
	map_bar(dev, n, region);
}

void pci_bar_rom(struct pci_device *dev, struct mem_region *rom)
{
	uint32_t size = (uint32_t)rom->size;
	add_bar(dev, PCI_ROM_BAR, PCI_BAR_ROM, size, 0, (~(size - 1) & ROM_MASK) | ROM_ENABLE);
	map_bar(dev, PCI_ROM_BAR, rom);
}

/* ---- configuration space ---- */

/* The function at devfn, or NULL. */
static struct pci_device *pci_find(struct pci_bus *bus, unsigned devfn)
{
	return devfn < FUNCTIONS ? bus->device[devfn] : NULL;
}

uint32_t pci_config_read(struct pci_bus *bus, unsigned devfn, unsigned reg, unsigned size)
{
	struct pci_device *dev = pci_find(bus, devfn);

	if (!dev || !range_in(reg, size, PCI_CONFIG_SIZE))
		return UINT32_MAX;
	if (dev->config_reading)
		dev->config_reading(dev, reg, size);
	return (uint32_t)load_le(dev->config + reg, size);
}

static bool touches(unsigned reg, unsigned size, unsigned first, unsigned count)
{
	return ranges_overlap(reg, size, first, count);
}

void pci_config_write(struct pci_bus *bus, unsigned devfn, unsigned reg, unsigned size,
		      uint32_t value)
{
	struct pci_device *dev = pci_find(bus, devfn);

	if (!dev || !range_in(reg, size, PCI_CONFIG_SIZE))
		return;
	trace(TRACE_PCI, "%s: config %02x.%u <- %x", dev->name, reg, size, value);
	for (unsigned i = 0; i < size; i++, value >>= 8) {
		uint8_t mask = dev->wmask[reg + i], *p = &dev->config[reg + i];
		*p = (uint8_t)((*p & ~mask) | (value & mask));
		*p &= (uint8_t) ~(value & dev->w1cmask[reg + i]);
	}
	bool command = touches(reg, size, PCI_COMMAND, 2);
	if (command)
		update_irq(dev);
	if (command || touches(reg, size, PCI_BAR0, 4 * PCI_ROM_BAR) ||
	    touches(reg, size, PCI_ROM_ADDRESS, 4))
		update_bars(dev);
	if (dev->config_changed)
		dev->config_changed(dev, reg, size);
}

void pci_config_define(struct pci_device *dev, unsigned reg, unsigned size, uint32_t value,
		       uint32_t wmask)
{
	store_le(dev->reset_config + reg, value, size);
	store_le(dev->config + reg, value, size);
	store_le(dev->wmask + reg, wmask, size);
}

int pci_add_capability(struct pci_device *dev, uint8_t id, unsigned size, struct error *err)
{
	unsigned at = dev->capability_end ? 4u * dev->capability_end : FIRST_CAPABILITY;

	if (!range_in(at, size, PCI_CONFIG_SIZE))
		return error_set(err, ENOSPC, "no room is left for a capability of '%s'",
				 dev->name);
	dev->capability_end = (uint8_t)(round_up(at + size, 4) / 4);
	pci_config_define(dev, at, 1, id, 0);
	pci_config_define(dev, at + 1, 1, dev->reset_config[PCI_CAPABILITIES], 0);
	pci_config_define(dev, PCI_CAPABILITIES, 1, at, 0);
	dev->reset_config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	dev->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	return (int)at;
}

/* The whole space was replaced: reset or load. */
static void config_replaced(struct pci_device *dev)
{
	update_irq(dev);
	update_bars(dev);
	if (dev->config_changed)
		dev->config_changed(dev, 0, PCI_CONFIG_SIZE);
}

static void device_reset(void *opaque)
{
	struct pci_device *dev = opaque;
	memcpy(dev->config, dev->reset_config, sizeof(dev->config));
	config_replaced(dev);
}

static int device_post_load(void *opaque, unsigned version, struct error *err)
{
	struct pci_device *dev = opaque;

	/* Only what the guest or the chip can change is taken from the file. */
	for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
		uint8_t mask = dev->wmask[i] | dev->w1cmask[i];
		dev->config[i] =
			(uint8_t)((dev->config[i] & mask) | (dev->reset_config[i] & ~mask));
	}
	config_replaced(dev);
	return 0;
}

static const struct state_field device_fields[] = {
	STATE_BYTES(pci_device, config),
	STATE_UINT(pci_device, irq_level),
	STATE_END,
};

static const struct state_desc device_state = {
	.name = "pci",
	.version = 1,
	.fields = device_fields,
	.reset = device_reset,
	.post_load = device_post_load,
};

static int free_slot(struct pci_bus *bus)
{
	for (unsigned slot = FIRST_FREE_SLOT; slot < SLOTS; slot++)
		if (!bus->device[PCI_DEVFN(slot, 0)])
			return PCI_DEVFN(slot, 0);
	return -1;
}

int pci_device_init(struct pci_bus *bus, struct pci_device *dev, int devfn, const char *name,
		    const struct pci_id *id, struct error *err)
{
	if (devfn < 0)
		devfn = free_slot(bus);
	if (devfn < 0 || devfn >= FUNCTIONS)
		return error_set(err, ENOSPC, "no PCI slot is left for '%s'", name);
	if (bus->device[devfn])
		return error_set(err, EBUSY, "PCI address %02x.%x of '%s' is taken by '%s'",
				 (unsigned)devfn >> 3, (unsigned)devfn & 7, name,
				 bus->device[devfn]->name);
	*dev = (struct pci_device){.bus = bus, .name = name, .devfn = (uint8_t)devfn};
	pci_config_define(dev, PCI_VENDOR_ID, 2, id->vendor, 0);
	pci_config_define(dev, PCI_DEVICE_ID, 2, id->device, 0);
	pci_config_define(dev, PCI_COMMAND, 2, 0,
			  PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
				  PCI_COMMAND_PARITY | PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE);
	pci_config_define(dev, PCI_REVISION, 1, id->revision, 0);
	pci_config_define(dev, PCI_PROG_IF, 1, id->prog_if, 0);
	pci_config_define(dev, PCI_CLASS, 2, id->class, 0);
	pci_config_define(dev, PCI_HEADER_TYPE, 1, id->multifunction ? HEADER_MULTIFUNCTION : 0, 0);
	pci_config_define(dev, PCI_SUBSYSTEM_VENDOR_ID, 2, id->subsystem_vendor, 0);
	pci_config_define(dev, PCI_SUBSYSTEM_ID, 2, id->subsystem, 0);
	pci_config_define(dev, PCI_INTERRUPT_LINE, 1, 0, UINT8_MAX);
	pci_config_define(dev, PCI_INTERRUPT_PIN, 1, id->interrupt_pin & 7, 0);
	bus->device[devfn] = dev;
	state_register(bus->states, &device_state, devfn, dev);
	return devfn;
}

void pci_device_fini(struct pci_device *dev)
{
	struct pci_bus *bus = dev->bus;

	if (!bus)
		return;
	pci_set_irq(dev, false);
	for (int n = 0; n < PCI_BARS; n++) {
		if (dev->bar[n].io)
			iobus_remove(bus->io, dev->bar[n].io);
		if (dev->bar[n].mapping)
			mem_unmap(dev->bar[n].mapping);
	}
	state_unregister(bus->states, dev);
	bus->device[dev->devfn] = NULL;
	dev->bus = NULL;
}

/* ---- bus mastering ---- */

void *pci_dma_map(struct pci_device *dev, uint64_t addr, size_t *len, bool write)
{
	if (!(dev->config[PCI_COMMAND] & PCI_COMMAND_MASTER))
		return NULL;
	return mem_dma_map(dev->bus->mem, addr, len, write);
}

bool pci_dma_read(struct pci_device *dev, uint64_t addr, void *buf, size_t len)
{
	uint8_t *to = buf;

	while (len) {
		size_t part = len;
		const void *from = pci_dma_map(dev, addr, &part, false);
		if (!from || part == 0) {
			memset(to, UINT8_MAX, len);
			return false;
		}
		memcpy(to, from, part);
		to += part;
		addr += part;
		len -= part;
	}
	return true;
}

bool pci_dma_write(struct pci_device *dev, uint64_t addr, const void *buf, size_t len)
{
	const uint8_t *from = buf;

	while (len) {
		size_t part = len;
		void *to = pci_dma_map(dev, addr, &part, true);
		if (!to || part == 0)
			return false;
		memcpy(to, from, part);
		mem_dma_wrote(dev->bus->mem, addr, part);
		from += part;
		addr += part;
		len -= part;
	}
	return true;
}

/* ---- ports ---- */

static uint32_t address_read(void *opaque, uint16_t port, unsigned size)
{
	struct pci_bus *bus = opaque;
	/* Only whole dwords are CONFIG_ADDRESS; anything narrower is an ordinary I/O cycle to
	 * nobody. */
	return port == CONFIG_ADDRESS && size == 4 ? bus->config_address : UINT32_MAX;
}

static void address_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct pci_bus *bus = opaque;
	if (port == CONFIG_ADDRESS && size == 4)
		bus->config_address = value & CONFADD_WRITABLE;
}

/* The function and register that a data port access means; false while nothing is selected. */
static bool selected(const struct pci_bus *bus, uint16_t port, unsigned *devfn, unsigned *reg)
{
	uint32_t address = bus->config_address;

	*devfn = address >> CONFADD_DEVFN_SHIFT & UINT8_MAX;
	*reg = (address & CONFADD_REG) | (port & 3);
	return (address & CONFADD_ENABLE) && !(address & CONFADD_BUS);
}

static uint32_t data_read(void *opaque, uint16_t port, unsigned size)
{
	unsigned devfn, reg;
	return selected(opaque, port, &devfn, &reg) ? pci_config_read(opaque, devfn, reg, size)
						    : UINT32_MAX;
}

static void data_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	unsigned devfn, reg;
	if (selected(opaque, port, &devfn, &reg))
		pci_config_write(opaque, devfn, reg, size, value);
}

static const struct io_ops address_ops = {
	.read = address_read, .write = address_write, .sizes = 1 | 2 | 4};
static const struct io_ops data_ops = {.read = data_read, .write = data_write, .sizes = 1 | 2 | 4};

/* ---- info pci ---- */

static const char *class_name(unsigned class)
{
	/* PCI Code and ID Assignment Specification, chapter 1. */
	static const struct {
		uint16_t class;
		const char *name;
	} names[] = {
		{0x0100, "SCSI controller"},
		{0x0101, "IDE controller"},
		{0x0180, "Storage controller"},
		{0x0200, "Ethernet controller"},
		{0x0280, "Network controller"},
		{0x0300, "VGA controller"},
		{0x0380, "Display controller"},
		{0x0401, "Audio controller"},
		{0x0500, "RAM controller"},
		{0x0600, "Host bridge"},
		{0x0601, "ISA bridge"},
		{0x0604, "PCI bridge"},
		{0x0680, "Bridge"},
		{0x0780, "Communication controller"},
		{0x0C03, "USB controller"},
		{0x0C05, "SMBus"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].class == class)
			return names[i].name;
	return NULL;
}

static void info_bar(const struct pci_device *dev, int n, struct strbuf *out)
{
	const struct pci_bar *bar = &dev->bar[n];
	uint32_t address = pci_bar_address(dev, n);
	bool prefetchable =
		bar->kind == PCI_BAR_MEM && (dev->config[bar_reg(n)] & BAR_PREFETCHABLE);

	if (bar->kind == PCI_BAR_NONE)
		return;
	/* What is not decoded is shown at all ones, as QEMU does. */
	if (!bar->decoded)
		address = UINT32_MAX;
	uint32_t last = address + bar->size - 1;
	if (bar->kind == PCI_BAR_IO)
		strbuf_printf(out, "      BAR%d: I/O at 0x%04x [0x%04x].\n", n,
			      address & UINT16_MAX, last & UINT16_MAX);
	else
		strbuf_printf(out, "      BAR%d: 32 bit %smemory at 0x%08x [0x%08x].\n", n,
			      prefetchable ? "prefetchable " : "", address, last);
}

void pci_info(struct pci_bus *bus, struct strbuf *out)
{
	for (unsigned devfn = 0; devfn < FUNCTIONS; devfn++) {
		const struct pci_device *dev = bus->device[devfn];
		if (!dev)
			continue;
		unsigned class = load_le16(dev->config + PCI_CLASS);
		const char *name = class_name(class);
		strbuf_printf(out, "  Bus  0, device %3u, function %u:\n    ", devfn >> 3,
			      devfn & 7);
		if (name)
			strbuf_puts(out, name);
		else
			strbuf_printf(out, "Class %04x", class);
		strbuf_printf(out, ": PCI device %04x:%04x\n", load_le16(dev->config),
			      load_le16(dev->config + PCI_DEVICE_ID));
		if (load_le16(dev->config + PCI_SUBSYSTEM_VENDOR_ID))
			strbuf_printf(out, "      PCI subsystem %04x:%04x\n",
				      load_le16(dev->config + PCI_SUBSYSTEM_VENDOR_ID),
				      load_le16(dev->config + PCI_SUBSYSTEM_ID));
		if (dev->config[PCI_INTERRUPT_PIN])
			strbuf_printf(out, "      IRQ %u, pin %c\n",
				      dev->config[PCI_INTERRUPT_LINE],
				      'A' + dev->config[PCI_INTERRUPT_PIN] - 1);
		for (int n = 0; n < PCI_BARS; n++)
			info_bar(dev, n, out);
		strbuf_printf(out, "      id \"%s\"\n", dev->name);
	}
}

/* ---- the bus ---- */

struct pci_bus *pci_bus_new(const struct device_env *env)
{
	struct pci_bus *bus = xcalloc(1, sizeof(*bus));

	bus->mem = env->mem;
	bus->io = env->io;
	bus->states = env->states;
	bus->address_range =
		iobus_add(env->io, "pci-conf-idx", CONFIG_ADDRESS, 4, &address_ops, bus);
	bus->data_range = iobus_add(env->io, "pci-conf-data", CONFIG_DATA, 4, &data_ops, bus);
	state_register(env->states, &bus_state, 0, bus);
	return bus;
}

void pci_bus_free(struct pci_bus *bus)
{
	if (!bus)
		return;
	state_unregister(bus->states, bus);
	iobus_remove(bus->io, bus->address_range);
	iobus_remove(bus->io, bus->data_range);
	free(bus);
}
