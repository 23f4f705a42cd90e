/* SPDX-License-Identifier: MIT */
/*
 * PCI option ROMs (option_rom.h): the ids in the PCI data structure are replaced and the checksum
 * is made good.
 */
#include "vmm/option_rom.h"
#include "lib/bytes.h"

enum {
	/* PCI Firmware Specification 3.0, tables 5-1 and 5-2 */
	ROM_SIGNATURE = 0xAA55,
	ROM_CHECKSUM = 6, /* in the room left for the boot code, where iPXE and EtherBoot balance */
	ROM_PCIR_POINTER = 0x18,
	PCIR_VENDOR = 4,
	PCIR_DEVICE = 6,
	PCIR_LEN = 24,
};

void option_rom_set_ids(uint8_t *rom, size_t len, uint16_t vendor, uint16_t device)
{
	if (len < ROM_PCIR_POINTER + 2 || load_le16(rom) != ROM_SIGNATURE)
		return;
	size_t at = load_le16(rom + ROM_PCIR_POINTER);
	if (!range_in(at, PCIR_LEN, len) || memcmp(rom + at, "PCIR", 4) != 0 || at <= ROM_CHECKSUM)
		return;
	uint8_t before = 0, after = 0;
	for (size_t n = 0; n < PCIR_LEN; n++)
		before += rom[at + n];
	store_le16(rom + at + PCIR_VENDOR, vendor);
	store_le16(rom + at + PCIR_DEVICE, device);
	for (size_t n = 0; n < PCIR_LEN; n++)
		after += rom[at + n];
	/* The bytes of the image add up to zero. */
	rom[ROM_CHECKSUM] += (uint8_t)(before - after);
}
