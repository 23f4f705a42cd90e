/* SPDX-License-Identifier: MIT */
/*
 * The VGA as a PCI function (QEMU's docs/specs/standard-vga.txt): 1234:1111, VGA class.
 *
 *   BAR0  linear frame buffer: all of VRAM, prefetchable
 *   BAR2  4 KiB of registers:
 *         000..3FF  EDID block of the monitor (what is behind it reads as 0)
 *         400..41F  ports 3C0h..3DFh, bytes or words (index and data in one)
 *         500..515  DISPI registers, 16 bits each at index * 2
 *         600       size of this extended block (8)
 *         604       byte order of the frame buffer: 1E1E1E1Eh, little
 *   ROM   SeaVGABIOS
 *
 * Left out: switching the frame buffer to big-endian at 604 (writes are ignored, as reading shows).
 */
#include "devices/vga_internal.h"
#include <errno.h>

enum {
	VGA_PCI_VENDOR = 0x1234,
	VGA_PCI_DEVICE = 0x1111,
	VGA_PCI_CLASS = 0x0300,
	VGA_PCI_REVISION = 2, /* has the extended registers */
	VGA_PCI_SUBSYSTEM_VENDOR = 0x1AF4,
	VGA_PCI_SUBSYSTEM = 0x1100,
	VGA_BAR_FRAMEBUFFER = 0,
	VGA_BAR_MMIO = 2,
	MMIO_SIZE = 0x1000,
	MMIO_EDID_END = 0x400,
	MMIO_PORTS = 0x400,
	MMIO_PORTS_END = 0x420,
	MMIO_DISPI = 0x500,
	MMIO_DISPI_END = MMIO_DISPI + 2 * DISPI_REGS,
	MMIO_EXTENDED_SIZE = 0x600,
	MMIO_BYTE_ORDER = 0x604,
	MMIO_EXTENDED_END = 0x608,
	BYTE_ORDER_LITTLE = 0x1E1E1E1E,
	ROM_MAX = 1 << 20,
	ROM_MIN = 0x1000,
	DEFAULT_WIDTH = 1280,
	DEFAULT_HEIGHT = 800,
};

static uint8_t mmio_read_byte(struct vga *v, uint64_t offset)
{
	if (offset < MMIO_EDID_END)
		return offset < sizeof(v->edid) ? v->edid[offset] : 0;
	if (offset >= MMIO_PORTS && offset < MMIO_PORTS_END)
		return vga_port_read(v, VGA_PORT_ATTR + (offset - MMIO_PORTS));
	if (offset >= MMIO_DISPI && offset < MMIO_DISPI_END)
		return dispi_read(v, (offset - MMIO_DISPI) / 2) >> (8 * (offset & 1));
	if (offset >= MMIO_EXTENDED_SIZE && offset < MMIO_EXTENDED_END) {
		uint32_t value = offset < MMIO_BYTE_ORDER ? MMIO_EXTENDED_END - MMIO_EXTENDED_SIZE
							  : BYTE_ORDER_LITTLE;
		return value >> (8 * (offset & 3));
	}
	return 0xFF;
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)mmio_read_byte(opaque, offset + i) << (8 * i);
	return value;
}

static void mmio_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct vga *v = opaque;

	if (offset >= MMIO_PORTS && offset + size <= MMIO_PORTS_END) {
		for (unsigned i = 0; i < size; i++)
			vga_port_write(v, VGA_PORT_ATTR + (offset - MMIO_PORTS) + i,
				       value >> (8 * i));
	} else if (offset >= MMIO_DISPI && offset + size <= MMIO_DISPI_END && !(offset & 1)) {
		/* 16-bit registers: a byte is zero-extended, a doubleword is two of them. */
		for (unsigned i = 0; i < size; i += 2)
			dispi_write(v, (offset - MMIO_DISPI + i) / 2, value >> (8 * i));
	}
}

static const struct mmio_ops mmio_ops = {.read = mmio_read, .write = mmio_write, .max_size = 4};

static int make_rom(struct vga *v, const struct vga_config *config, struct error *err)
{
	uint64_t size = ROM_MIN;

	if (!config->rom || !config->rom_size)
		return 0;
	if (config->rom_size > ROM_MAX)
		return error_set(err, EFBIG, "video BIOS of %zu bytes is too large; at most %d",
				 config->rom_size, ROM_MAX);
	while (size < config->rom_size)
		size *= 2;
	v->rom = mem_region_new_rom(v->env.mem, "vga.rom", size, err);
	if (!v->rom)
		return -ENOMEM;
	memcpy(v->rom->host, config->rom, config->rom_size);
	pci_bar_rom(&v->pci, v->rom);
	return 0;
}

int vga_pci_init(struct vga *v, struct pci_bus *bus, int devfn, const struct vga_config *config,
		 struct error *err)
{
	static const struct pci_id id = {
		.vendor = VGA_PCI_VENDOR,
		.device = VGA_PCI_DEVICE,
		.class = VGA_PCI_CLASS,
		.revision = VGA_PCI_REVISION,
		.subsystem_vendor = VGA_PCI_SUBSYSTEM_VENDOR,
		.subsystem = VGA_PCI_SUBSYSTEM,
	};
	int ret = pci_device_init(bus, &v->pci, devfn, "vga", &id, err);

	if (ret < 0)
		return ret;
	v->has_pci = true;
	pci_bar_mem(&v->pci, VGA_BAR_FRAMEBUFFER, v->vram, true);
	v->mmio = mem_region_new_mmio(v->env.mem, "vga.mmio", MMIO_SIZE, &mmio_ops, v);
	pci_bar_mem(&v->pci, VGA_BAR_MMIO, v->mmio, false);
	vga_edid_fill(v->edid, config->preferred_width ? config->preferred_width : DEFAULT_WIDTH,
		      config->preferred_height ? config->preferred_height : DEFAULT_HEIGHT);
	return make_rom(v, config, err);
}

void vga_pci_fini(struct vga *v)
{
	if (v->has_pci)
		pci_device_fini(&v->pci);
}
