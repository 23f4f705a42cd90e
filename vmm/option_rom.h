/* SPDX-License-Identifier: MIT */
/* Option ROM images (PCI Firmware Specification 3.0, 5.1). */
#ifndef VMM_OPTION_ROM_H
#define VMM_OPTION_ROM_H

#include <stddef.h>
#include <stdint.h>

/*
 * Makes a ROM fit a card: the firmware runs a ROM only if it names the card's own vendor and
 * device, and distributions ship ROMs that serve a family of cards and name none of them, or
 * another. What is no PCI option ROM stays as it is.
 */
void option_rom_set_ids(uint8_t *rom, size_t len, uint16_t vendor, uint16_t device);

#endif
