/* SPDX-License-Identifier: MIT */
/* Intel 440FX host bridge (82441FX PMC): maps RAM and the firmware ROM, shadows and hides them. */
#ifndef DEVICES_I440FX_H
#define DEVICES_I440FX_H

#include "core/device.h"
#include "core/memory.h"
#include <stdint.h>

struct pci_bus;
struct i440fx;

/*
 * Creates the bridge as function 00.0 and maps `ram` (at least 1 MiB) below and above the PCI hole
 * and `bios` (a ROM of 64 KiB to 16 MiB) below 4 GiB, with its last 128 KiB (or all) below 1 MiB.
 */
struct i440fx *i440fx_new(const struct device_env *env, struct pci_bus *bus, struct mem_region *ram,
			  struct mem_region *bios, struct error *err);
void i440fx_free(struct i440fx *s);

/* How much of `ram_size` bytes lies below 4 GiB; the rest starts at 4 GiB. All of it while smaller
 * than 3.5 GiB, otherwise 3 GiB. */
uint64_t i440fx_low_ram(uint64_t ram_size);

#endif
