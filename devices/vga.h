/* SPDX-License-Identifier: MIT */
/* The standard VGA with the Bochs VBE extensions (PCI 1234:1111); see vga.c. */
#ifndef DEVICES_VGA_H
#define DEVICES_VGA_H

#include "core/device.h"
#include "core/display.h"
#include "core/memory.h"
#include "lib/error.h"
#include <stddef.h>
#include <stdint.h>

struct pci_bus;
struct vga;

struct vga_config {
	unsigned vram_mib;         /* 1..256, rounded up to a power of two; 0: 16 (vgamem_mb) */
	const void *rom;           /* option ROM image (SeaVGABIOS stdvga); NULL: none. Copied */
	size_t rom_size;           /* bytes, at most 1 MiB */
	unsigned preferred_width;  /* what the EDID block recommends; 0: 1280 */
	unsigned preferred_height; /* 0: 800 */
};

enum { VGA_DEFAULT_VRAM_MIB = 16, VGA_MAX_VRAM_MIB = 256 };

/*
 * Makes the adapter: legacy ports and window, DISPI ports, and the PCI function at `devfn` of `pci`
 * (negative: a free slot). `pci` NULL gives the legacy part alone. NULL with an error on bad
 * configuration or when the host has no memory.
 */
struct vga *vga_new(const struct device_env *env, struct pci_bus *pci, int devfn,
		    const struct vga_config *config, struct error *err);
void vga_free(struct vga *v);
struct display *vga_display(struct vga *v);

#endif
