/* SPDX-License-Identifier: MIT */
/*
 * Disk geometry: the cylinders, heads and sectors that an IDE disk claims to have, and how the BIOS
 * translates them for INT 13h, whose cylinders end at 1024.
 *
 * A disk that was partitioned with some geometry has to keep it, or the boot loader on it computes
 * wrong addresses; the end of each partition in the MBR, as cylinder/head/sector, tells which.
 *
 * Documents: ATA-3 6.2 (default translation: 16 heads, 63 sectors); Phoenix, "Enhanced Disk Drive
 * Specification" 3.0, section 5 (translations).
 */
#include "bios/bios.h"
#include "lib/bytes.h"

enum {
	MAX_CYLINDERS = 16383, /* ATA-3: more are addressed by LBA only */
	DEFAULT_HEADS = 16,
	DEFAULT_SECTORS = 63,
	BIOS_CYLINDERS = 1024,
	/* Up to here doubling the heads (LARGE) gets below 1024 cylinders with 128 heads. */
	LARGE_LIMIT = BIOS_CYLINDERS * 128,
};

/* The partition table of a master boot record. */
enum {
	MBR_TABLE = 446,
	MBR_ENTRY = 16,
	MBR_ENTRIES = 4,
	MBR_SIGNATURE = 510,
	MBR_MAGIC = 0xaa55,
	ENTRY_END_HEAD = 5,
	ENTRY_END_SECTOR = 6, /* bits 6 and 7 belong to the cylinder */
	ENTRY_SECTORS = 12,
};

enum disk_translation disk_geometry_translation(unsigned cylinders, unsigned heads,
						unsigned sectors)
{
	if (cylinders <= BIOS_CYLINDERS && heads <= DEFAULT_HEADS && sectors <= DEFAULT_SECTORS)
		return TRANSLATE_NONE;
	return TRANSLATE_LBA;
}

static unsigned clamp_cylinders(uint64_t cylinders)
{
	if (cylinders > MAX_CYLINDERS)
		return MAX_CYLINDERS;
	return cylinders < 2 ? 2 : (unsigned)cylinders;
}

/* The logical geometry with which the first usable partition was made. */
static bool guess_from_mbr(const uint8_t *mbr, uint64_t disk_sectors, unsigned *cylinders,
			   unsigned *heads, unsigned *sectors)
{
	if (load_le16(mbr + MBR_SIGNATURE) != MBR_MAGIC)
		return false;
	for (int i = 0; i < MBR_ENTRIES; i++) {
		const uint8_t *e = mbr + MBR_TABLE + i * MBR_ENTRY;
		if (load_le32(e + ENTRY_SECTORS) == 0 || e[ENTRY_END_HEAD] == 0)
			continue;
		/* Partitions end at the end of a cylinder. */
		unsigned h = e[ENTRY_END_HEAD] + 1u;
		unsigned s = e[ENTRY_END_SECTOR] & 63;
		if (s == 0)
			continue;
		uint64_t c = disk_sectors / (h * s);
		if (c < 1 || c > MAX_CYLINDERS)
			continue;
		*heads = h;
		*sectors = s;
		*cylinders = (unsigned)c;
		return true;
	}
	return false;
}

void disk_geometry_guess(const uint8_t mbr[512], uint64_t sectors, struct disk_geometry *out)
{
	unsigned c, h, s;

	*out = (struct disk_geometry){
		.cylinders = clamp_cylinders(sectors / (DEFAULT_HEADS * DEFAULT_SECTORS)),
		.heads = DEFAULT_HEADS,
		.sectors = DEFAULT_SECTORS,
	};
	if (!mbr || !guess_from_mbr(mbr, sectors, &c, &h, &s)) {
		out->translation =
			disk_geometry_translation(out->cylinders, out->heads, out->sectors);
	} else if (h > DEFAULT_HEADS) {
		/* It was made under a translation: the physical geometry is the default one. */
		out->translation = out->cylinders * out->heads <= LARGE_LIMIT ? TRANSLATE_LARGE
									      : TRANSLATE_LBA;
	} else {
		*out = (struct disk_geometry){c, h, s, TRANSLATE_NONE};
	}
}
