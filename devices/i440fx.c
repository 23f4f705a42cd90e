/* SPDX-License-Identifier: MIT */
/*
 * Intel 440FX host bridge (82441FX PCI and Memory Controller), function 00.0, 8086:1237.
 *
 * The bridge decides who answers at an address: RAM, the firmware ROM, or the PCI bus.
 *
 *   00000000  RAM
 *   000A0000  the VGA window; RAM (SMRAM) while SMRAM says so
 *   000C0000  12 segments of 16 KiB, then one of 64 KiB: RAM or PCI/ROM by the PAM registers, for
 *             reads and for writes apart
 *   000E0000  the last 128 KiB of the firmware ROM, behind the PAM segments
 *   00100000  RAM, up to 3.5 GiB, or up to 3 GiB when there is more
 *             PCI BARs, I/O APIC and local APIC
 *   ....      the firmware ROM, up to 4 GiB
 *   100000000 the rest of RAM
 *
 *   register  name   bits
 *   0x51      DETURBO, 0x52 CACHE, 0x53 DRAMC, 0x57 DRAMC2, 0x58 DRAMT: plain bytes, no effect
 *   0x59      PAM0   5:4 = F0000..FFFFF
 *   0x5A-5F   PAM1-6 1:0 and 5:4 = 16 KiB each from C0000 up
 *             bit 0 (4): reads come from RAM; bit 1 (5): writes go to RAM
 *   0x60-67   DRB    row boundaries, plain bytes
 *   0x72      SMRAM  6 D_OPEN, 5 D_CLS, 4 D_LCK, 3 G_SMRAME, 2:0 C_BASE_SEG = 010 (A0000)
 *
 * Document: 82441FX datasheet (Intel 290549), 3.2.18 (PAM), 3.2.23 (SMRAM), 4.1 (address map).
 * Left out: DRAM sizing by DRB (SeaBIOS asks fw_cfg or CMOS), SMM itself: no CPU here enters it, so
 * SMRAM is visible only while D_OPEN is set.
 */
#include "devices/i440fx.h"
#include "core/state.h"
#include "devices/pci.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>

enum i440fx_reg {
	REG_PMCCFG = 0x50,
	REG_PAM0 = 0x59,
	REG_PAM1 = 0x5A,
	REG_DRB0 = 0x60,
	REG_SMRAM = 0x72,
};

enum { PAM_RE = 1, PAM_WE = 2, PAM_HIGH_SHIFT = 4, PAM_WRITABLE = 0x33, PAM0_WRITABLE = 0x30 };

enum smram_bits {
	SMRAM_BASE_A0000 = 2,
	SMRAM_G_SMRAME = 1 << 3,
	SMRAM_D_LCK = 1 << 4,
	SMRAM_D_CLS = 1 << 5,
	SMRAM_D_OPEN = 1 << 6,
};

enum { PAM_REGS = 7, SEGMENTS = 13, SMALL_SEGMENTS = 12, DRB_REGS = 8 };

/* The 82441FX as QEMU shows it. */
enum { VENDOR_INTEL = 0x8086, DEVICE_82441 = 0x1237, REVISION = 2, CLASS_HOST_BRIDGE = 0x0600 };
enum { SUBSYSTEM_VENDOR = 0x1AF4, SUBSYSTEM = 0x1100 };

#define VGA_BASE        UINT64_C(0xA0000)
#define SHADOW_BASE     UINT64_C(0xC0000)
#define SMALL_SEGMENT   UINT64_C(0x4000)
#define BIOS_SEGMENT    UINT64_C(0xF0000)
#define FOUR_GIB        (4 * GIB)
#define LEGACY_ROM_SIZE (128 * KIB)

struct i440fx {
	struct pci_device pci;
	struct memory *mem;
	struct mem_mapping *low[2], *high; /* RAM outside the shadow area */
	struct mem_mapping *smram;
	struct mem_mapping *segment[SEGMENTS];
	struct mem_mapping *rom_top, *rom_legacy;
	uint8_t smram_lock; /* D_LCK once it was set */
};

uint64_t i440fx_low_ram(uint64_t ram_size)
{
	if (ram_size < 3584 * MIB)
		return ram_size;
	return 3 * GIB;
}

static void update_pam(struct i440fx *s)
{
	for (unsigned i = 0; i < SEGMENTS; i++) {
		bool small = i < SMALL_SEGMENTS;
		uint8_t reg = small ? s->pci.config[REG_PAM1 + i / 2] : s->pci.config[REG_PAM0];
		unsigned bits = (!small || i % 2) ? reg >> PAM_HIGH_SHIFT : reg;
		uint64_t base = small ? SHADOW_BASE + i * SMALL_SEGMENT : BIOS_SEGMENT;
		unsigned access = (bits & PAM_RE ? MEM_R : 0) | (bits & PAM_WE ? MEM_W : 0);
		mem_mapping_set(s->segment[i], base, access);
	}
}

static void update_smram(struct i440fx *s)
{
	uint8_t *reg = &s->pci.config[REG_SMRAM];

	/* D_LCK can be set but not cleared, and holds D_OPEN at 0 until the next reset. */
	*reg |= s->smram_lock;
	s->smram_lock = *reg & SMRAM_D_LCK;
	if (s->smram_lock)
		*reg &= (uint8_t)~SMRAM_D_OPEN;
	bool open = (*reg & SMRAM_G_SMRAME) && (*reg & SMRAM_D_OPEN);
	mem_mapping_set(s->smram, VGA_BASE, open ? MEM_RW : 0);
}

static void config_changed(struct pci_device *dev, unsigned first, unsigned count)
{
	struct i440fx *s = container_of(dev, struct i440fx, pci);

	memory_begin(s->mem);
	if (ranges_overlap(first, count, REG_PAM0, PAM_REGS))
		update_pam(s);
	if (ranges_overlap(first, count, REG_SMRAM, 1)) {
		if (count == PCI_CONFIG_SIZE) /* reset or load */
			s->smram_lock = 0;
		update_smram(s);
	}
	memory_commit(s->mem);
}

static void map_ram(struct i440fx *s, struct mem_region *ram)
{
	uint64_t low = i440fx_low_ram(ram->size);

	s->low[0] = mem_map(s->mem, ram, 0, 0, VGA_BASE, MEM_PRIO_RAM);
	mem_mapping_set(s->low[0], 0, MEM_RW);
	if (low > MIB) {
		s->low[1] = mem_map(s->mem, ram, MIB, MIB, low - MIB, MEM_PRIO_RAM);
		mem_mapping_set(s->low[1], MIB, MEM_RW);
	}
	if (ram->size > low) {
		s->high = mem_map(s->mem, ram, low, FOUR_GIB, ram->size - low, MEM_PRIO_RAM);
		mem_mapping_set(s->high, FOUR_GIB, MEM_RW);
	}
	s->smram = mem_map(s->mem, ram, VGA_BASE, VGA_BASE, SHADOW_BASE - VGA_BASE, MEM_PRIO_SMRAM);
	for (unsigned i = 0; i < SEGMENTS; i++) {
		bool small = i < SMALL_SEGMENTS;
		uint64_t base = small ? SHADOW_BASE + i * SMALL_SEGMENT : BIOS_SEGMENT;
		s->segment[i] = mem_map(s->mem, ram, base, base,
					small ? SMALL_SEGMENT : MIB - BIOS_SEGMENT, MEM_PRIO_PAM);
	}
}

static void map_rom(struct i440fx *s, struct mem_region *bios)
{
	uint64_t legacy = bios->size < LEGACY_ROM_SIZE ? bios->size : LEGACY_ROM_SIZE;

	s->rom_top = mem_map(s->mem, bios, 0, FOUR_GIB - bios->size, bios->size, MEM_PRIO_ROM);
	mem_mapping_set(s->rom_top, FOUR_GIB - bios->size, MEM_RW);
	s->rom_legacy =
		mem_map(s->mem, bios, bios->size - legacy, MIB - legacy, legacy, MEM_PRIO_ROM);
	mem_mapping_set(s->rom_legacy, MIB - legacy, MEM_RW);
}

struct i440fx *i440fx_new(const struct device_env *env, struct pci_bus *bus, struct mem_region *ram,
			  struct mem_region *bios, struct error *err)
{
	static const struct pci_id id = {
		.vendor = VENDOR_INTEL,
		.device = DEVICE_82441,
		.class = CLASS_HOST_BRIDGE,
		.revision = REVISION,
		.subsystem_vendor = SUBSYSTEM_VENDOR,
		.subsystem = SUBSYSTEM,
	};

	if (ram->size < MIB) {
		error_set(err, EINVAL, "a PC needs at least 1 MiB of RAM, not %llu bytes",
			  (unsigned long long)ram->size);
		return NULL;
	}
	if (bios->size > 16 * MIB) {
		error_set(err, EFBIG, "firmware of %llu bytes is too large; at most 16 MiB fit",
			  (unsigned long long)bios->size);
		return NULL;
	}
	struct i440fx *s = xcalloc(1, sizeof(*s));
	s->mem = env->mem;
	if (pci_device_init(bus, &s->pci, PCI_DEVFN(0, 0), "i440FX", &id, err) < 0) {
		free(s);
		return NULL;
	}
	/* The bridge is always a memory target and a master. */
	pci_config_define(&s->pci, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER,
			  PCI_COMMAND_SERR);
	pci_config_define(&s->pci, PCI_STATUS, 2, PCI_STATUS_FAST_B2B | PCI_STATUS_DEVSEL_MEDIUM,
			  0);
	for (unsigned reg = REG_PMCCFG; reg < REG_PAM0; reg++)
		pci_config_define(&s->pci, reg, 1, 0, UINT8_MAX);
	pci_config_define(&s->pci, REG_PAM0, 1, 0, PAM0_WRITABLE);
	for (unsigned i = 1; i < PAM_REGS; i++)
		pci_config_define(&s->pci, REG_PAM0 + i, 1, 0, PAM_WRITABLE);
	for (unsigned i = 0; i < DRB_REGS; i++)
		pci_config_define(&s->pci, REG_DRB0 + i, 1, 1, UINT8_MAX);
	pci_config_define(&s->pci, REG_SMRAM, 1, SMRAM_BASE_A0000,
			  SMRAM_D_OPEN | SMRAM_D_CLS | SMRAM_D_LCK | SMRAM_G_SMRAME);
	memory_begin(s->mem);
	map_ram(s, ram);
	map_rom(s, bios);
	memory_commit(s->mem);
	s->pci.config_changed = config_changed;
	return s;
}

void i440fx_free(struct i440fx *s)
{
	if (!s)
		return;
	memory_begin(s->mem);
	for (unsigned i = 0; i < SEGMENTS; i++)
		mem_unmap(s->segment[i]);
	mem_unmap(s->smram);
	mem_unmap(s->low[0]);
	mem_unmap(s->low[1]);
	mem_unmap(s->high);
	mem_unmap(s->rom_top);
	mem_unmap(s->rom_legacy);
	memory_commit(s->mem);
	pci_device_fini(&s->pci);
	free(s);
}
