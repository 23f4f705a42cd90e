/* SPDX-License-Identifier: MIT */
/*
 * What a drive says about itself: IDENTIFY DEVICE and IDENTIFY PACKET DEVICE data, and the default
 * geometry of a disk.
 *
 * Documents: ATA/ATAPI-6 (T13/1410D), 8.15 and 8.16 (the words), annex B (CHS addressing); ACS-2
 * 7.12.7 for words 105 and 169 (TRIM).
 */
#include "devices/ide_internal.h"
#include <string.h>

enum identify_word {
	ID_CONFIG = 0,
	ID_CYLINDERS = 1,
	ID_HEADS = 3,
	ID_SECTORS = 6,
	ID_SERIAL = 10, /* 10 words */
	ID_BUFFER_TYPE = 20,
	ID_BUFFER_SIZE = 21,
	ID_FIRMWARE = 23, /* 4 words */
	ID_MODEL = 27,    /* 20 words */
	ID_MAX_MULTIPLE = 47,
	ID_DWORD_IO = 48,
	ID_CAPABILITIES = 49,
	ID_CAPABILITIES2 = 50,
	ID_PIO_TIMING = 51,
	ID_DMA_TIMING = 52,
	ID_VALID = 53,
	ID_CURRENT_CYLINDERS = 54,
	ID_CURRENT_HEADS = 55,
	ID_CURRENT_SECTORS = 56,
	ID_CURRENT_CAPACITY = 57, /* 2 words */
	ID_MULTIPLE = 59,
	ID_LBA28_SECTORS = 60, /* 2 words */
	ID_MDMA = 63,
	ID_PIO_MODES = 64,
	ID_MDMA_MIN_CYCLE = 65,
	ID_MDMA_CYCLE = 66,
	ID_PIO_CYCLE = 67,
	ID_PIO_IORDY_CYCLE = 68,
	ID_RELEASE_TIME = 71,
	ID_SERVICE_TIME = 72,
	ID_MAJOR = 80,
	ID_FEATURES1 = 82,
	ID_FEATURES2 = 83,
	ID_FEATURES3 = 84,
	ID_ENABLED1 = 85,
	ID_ENABLED2 = 86,
	ID_ENABLED3 = 87,
	ID_UDMA = 88,
	ID_APM = 91,
	ID_RESET_RESULT = 93,
	ID_LBA48_SECTORS = 100, /* 4 words */
	ID_TRIM_BLOCKS = 105,
	ID_SECTOR_SIZE = 106,
	ID_DATA_SET_MANAGEMENT = 169,
	ID_INTEGRITY = 255,
};

enum {
	CONFIG_FIXED_DISK = 0x0040,
	CONFIG_CDROM = 0x85C0, /* ATAPI, CD-ROM, removable, DRQ within 50 us, 12-byte packets */
	MULTIPLE_SIGNATURE = 0x8000,
	MULTIPLE_VALID = 0x0100,
	CAPABLE_DMA = 1 << 8,
	CAPABLE_LBA = 1 << 9,
	CAPABLE_IORDY_DISABLE = 1 << 10,
	CAPABLE_IORDY = 1 << 11,
	VALID_CURRENT = 1 << 0,
	VALID_TIMING = 1 << 1,
	VALID_UDMA = 1 << 2,
	WORD_VALID = 1 << 14, /* words 50, 83, 84, 87, 93, 106: bit 14 set, bit 15 clear */
	PIO_3_AND_4 = 3,
	CYCLE_120NS = 120,
	MAJOR_ATA4_TO_7 = 0xF0,
	F1_POWER = 1 << 3,
	F1_PACKET = 1 << 4,
	F1_WRITE_CACHE = 1 << 5,
	F1_LOOK_AHEAD = 1 << 6,
	F1_DEVICE_RESET = 1 << 9,
	F1_NOP = 1 << 14,
	F2_APM = 1 << 3,
	F2_LBA48 = 1 << 10,
	F2_FLUSH = 1 << 12,
	F2_FLUSH_EXT = 1 << 13,
	F3_FUA = 1 << 6,
	MDMA_0_TO_2 = 0x07,
	UDMA_0_TO_5 = 0x3F,
	UDMA_MODES = 6,
	RESET_80_WIRES = 1 << 13,
	RESET_DEVICE0 = 1 << 0,
	RESET_DEVICE1 = 1 << 8,
	TRIM_SUPPORTED = 1,
	TRIM_MAX_BLOCKS = 8,
	INTEGRITY_SIGNATURE = 0xA5,
	BUFFER_DUAL_PORTED = 3,
	BUFFER_SECTORS = 512,
	MAX_CYLINDERS = 16383,
	DEFAULT_HEADS = 16,
	DEFAULT_SECTORS = 63,
};

#define LBA28_SECTORS_MAX UINT64_C(0x0FFFFFFF)

static void put(uint8_t *page, unsigned word, unsigned value)
{
	store_le16(page + 2 * word, (uint16_t)value);
}

static void put32(uint8_t *page, unsigned word, uint32_t value)
{
	store_le32(page + 2 * word, value);
}

/* Strings are padded with blanks, two characters a word, the first in the high byte. */
static void put_string(uint8_t *page, unsigned word, unsigned words, const char *text)
{
	size_t len = strlen(text);

	for (unsigned i = 0; i < 2 * words; i++)
		page[(2 * word + i) ^ 1] = i < len ? (uint8_t)text[i] : ' ';
}

static void put_names(const struct ide_drive *d, uint8_t *page, const char *model)
{
	put_string(page, ID_SERIAL, 10, d->serial);
	put_string(page, ID_FIRMWARE, 4, MINIVM_VERSION);
	put_string(page, ID_MODEL, 20, model);
}

static void put_transfer_modes(const struct ide_drive *d, uint8_t *page)
{
	bool udma = d->udma_mode < UDMA_MODES;

	put(page, ID_MDMA, MDMA_0_TO_2 | (udma ? 0 : 1u << (8 + (d->mdma_mode & 3))));
	put(page, ID_PIO_MODES, PIO_3_AND_4);
	put(page, ID_MDMA_MIN_CYCLE, CYCLE_120NS);
	put(page, ID_MDMA_CYCLE, CYCLE_120NS);
	put(page, ID_PIO_CYCLE, CYCLE_120NS);
	put(page, ID_PIO_IORDY_CYCLE, CYCLE_120NS);
	put(page, ID_UDMA, UDMA_0_TO_5 | (udma ? 1u << (8 + d->udma_mode) : 0));
	put(page, ID_RESET_RESULT,
	    WORD_VALID | RESET_80_WIRES | (d->unit ? RESET_DEVICE1 : RESET_DEVICE0));
}

/* All 512 bytes sum to zero. */
static void put_integrity(uint8_t *page)
{
	uint8_t sum = INTEGRITY_SIGNATURE;

	for (unsigned i = 0; i < 2 * ID_INTEGRITY; i++)
		sum = (uint8_t)(sum + page[i]);
	page[2 * ID_INTEGRITY] = INTEGRITY_SIGNATURE;
	page[2 * ID_INTEGRITY + 1] = (uint8_t)-sum;
}

void ata_identify(const struct ide_drive *d, uint8_t page[IDE_SECTOR])
{
	const struct ide_geometry *g = &d->geometry;
	uint64_t total = d->total_sectors;
	uint64_t lba28 = total < LBA28_SECTORS_MAX ? total : LBA28_SECTORS_MAX;
	uint64_t current = (uint64_t)d->cylinders * d->heads * d->sectors;

	memset(page, 0, IDE_SECTOR);
	put(page, ID_CONFIG, CONFIG_FIXED_DISK);
	put(page, ID_CYLINDERS, g->cylinders);
	put(page, ID_HEADS, g->heads);
	put(page, ID_SECTORS, g->sectors);
	put_names(d, page, "MINIVM HARDDISK");
	put(page, ID_BUFFER_TYPE, BUFFER_DUAL_PORTED);
	put(page, ID_BUFFER_SIZE, BUFFER_SECTORS);
	put(page, ID_MAX_MULTIPLE, MULTIPLE_SIGNATURE | IDE_MAX_MULTIPLE);
	put(page, ID_DWORD_IO, 1);
	put(page, ID_CAPABILITIES,
	    CAPABLE_IORDY | CAPABLE_IORDY_DISABLE | CAPABLE_LBA | CAPABLE_DMA);
	put(page, ID_CAPABILITIES2, WORD_VALID);
	put(page, ID_PIO_TIMING, 2 << 8);
	put(page, ID_DMA_TIMING, 2 << 8);
	put(page, ID_VALID, VALID_CURRENT | VALID_TIMING | VALID_UDMA);
	put(page, ID_CURRENT_CYLINDERS, d->cylinders);
	put(page, ID_CURRENT_HEADS, d->heads);
	put(page, ID_CURRENT_SECTORS, d->sectors);
	put32(page, ID_CURRENT_CAPACITY, (uint32_t)current);
	if (d->multiple)
		put(page, ID_MULTIPLE, MULTIPLE_VALID | d->multiple);
	put32(page, ID_LBA28_SECTORS, (uint32_t)lba28);
	put_transfer_modes(d, page);
	put(page, ID_MAJOR, MAJOR_ATA4_TO_7);

	unsigned features1 = F1_NOP | F1_POWER;
	put(page, ID_FEATURES1, features1 | F1_LOOK_AHEAD | F1_WRITE_CACHE);
	put(page, ID_FEATURES2, WORD_VALID | F2_FLUSH_EXT | F2_FLUSH | F2_LBA48 | F2_APM);
	put(page, ID_FEATURES3, WORD_VALID | F3_FUA);
	put(page, ID_ENABLED1,
	    features1 | (d->look_ahead ? F1_LOOK_AHEAD : 0) |
		    (d->write_cache ? F1_WRITE_CACHE : 0));
	put(page, ID_ENABLED2, F2_FLUSH_EXT | F2_FLUSH | F2_LBA48 | (d->apm ? F2_APM : 0));
	put(page, ID_ENABLED3, WORD_VALID | F3_FUA);
	put(page, ID_APM, d->apm);
	put32(page, ID_LBA48_SECTORS, (uint32_t)total);
	put32(page, ID_LBA48_SECTORS + 2, (uint32_t)(total >> 32));
	put(page, ID_SECTOR_SIZE, WORD_VALID);
	put(page, ID_TRIM_BLOCKS, TRIM_MAX_BLOCKS);
	put(page, ID_DATA_SET_MANAGEMENT, TRIM_SUPPORTED);
	put_integrity(page);
}

void atapi_identify(const struct ide_drive *d, uint8_t page[IDE_SECTOR])
{
	memset(page, 0, IDE_SECTOR);
	put(page, ID_CONFIG, CONFIG_CDROM);
	put_names(d, page, "MINIVM DVD-ROM");
	put(page, ID_BUFFER_TYPE, BUFFER_DUAL_PORTED);
	put(page, ID_BUFFER_SIZE, BUFFER_SECTORS);
	put(page, ID_DWORD_IO, 1);
	put(page, ID_CAPABILITIES, CAPABLE_IORDY | CAPABLE_LBA | CAPABLE_DMA);
	put(page, ID_VALID, VALID_CURRENT | VALID_TIMING | VALID_UDMA);
	put_transfer_modes(d, page);
	put(page, ID_RELEASE_TIME, 30);
	put(page, ID_SERVICE_TIME, 30);
	put(page, ID_MAJOR, MAJOR_ATA4_TO_7);
	put(page, ID_FEATURES1, F1_NOP | F1_DEVICE_RESET | F1_PACKET);
	put(page, ID_FEATURES2, WORD_VALID);
	put(page, ID_FEATURES3, WORD_VALID);
	put(page, ID_ENABLED1, F1_NOP | F1_DEVICE_RESET | F1_PACKET);
	put(page, ID_ENABLED3, WORD_VALID);
	put_integrity(page);
}

/* ---- geometry ---- */

enum mbr_layout {
	MBR_TABLE = 446,
	MBR_ENTRIES = 4,
	MBR_ENTRY = 16,
	MBR_END_HEAD = 5,
	MBR_END_SECTOR = 6, /* 5:0 */
	MBR_SECTORS = 12,
	MBR_SIGNATURE = 510,
	MBR_MAGIC = 0xAA55,
	MBR_SECTOR_MASK = 0x3F,
};

/* The logical geometry that the partition table was made with, if it shows one. */
static bool partition_geometry(struct drive *drive, uint64_t total, unsigned *cylinders,
			       unsigned *heads, unsigned *sectors)
{
	uint8_t mbr[IDE_SECTOR];

	if (drive_size(drive) < IDE_SECTOR || drive_pread(drive, mbr, sizeof(mbr), 0) < 0 ||
	    load_le16(mbr + MBR_SIGNATURE) != MBR_MAGIC)
		return false;
	for (unsigned i = 0; i < MBR_ENTRIES; i++) {
		const uint8_t *entry = mbr + MBR_TABLE + (size_t)i * MBR_ENTRY;
		/* A partition ends on a cylinder boundary: at the last head and sector. */
		unsigned last_head = entry[MBR_END_HEAD];
		unsigned last_sector = entry[MBR_END_SECTOR] & MBR_SECTOR_MASK;
		if (!load_le32(entry + MBR_SECTORS) || !last_head || !last_sector)
			continue;
		uint64_t count = total / ((last_head + 1) * last_sector);
		if (count < 1 || count > MAX_CYLINDERS)
			continue;
		*cylinders = (unsigned)count;
		*heads = last_head + 1;
		*sectors = last_sector;
		return true;
	}
	return false;
}

static unsigned cylinders_for(uint64_t total, unsigned heads, unsigned sectors)
{
	uint64_t cylinders = total / (heads * sectors);

	if (cylinders > MAX_CYLINDERS)
		return MAX_CYLINDERS;
	return cylinders < 2 ? 2 : (unsigned)cylinders;
}

void ide_geometry(struct drive *drive, struct ide_geometry *g)
{
	uint64_t total = drive_size(drive) / IDE_SECTOR;

	g->heads = DEFAULT_HEADS;
	g->sectors = DEFAULT_SECTORS;
	g->cylinders = cylinders_for(total, g->heads, g->sectors);
	/* The BIOS interface has 1024 cylinders: beyond that something must be translated. */
	g->translation = g->cylinders <= 1024 ? IDE_TRANSLATION_NONE : IDE_TRANSLATION_LBA;

	unsigned c, h, s;
	if (drive_geometry(drive, &c, &h, &s) && c >= 1 && c <= MAX_CYLINDERS && h >= 1 &&
	    h <= DEFAULT_HEADS && s >= 1 && s <= DEFAULT_SECTORS) {
		g->cylinders = c;
		g->heads = h;
		g->sectors = s;
		g->translation = c <= 1024 ? IDE_TRANSLATION_NONE : IDE_TRANSLATION_LBA;
		return;
	}
	if (!partition_geometry(drive, total, &c, &h, &s))
		return;
	if (h > DEFAULT_HEADS) {
		/* A translated geometry: the drive keeps its own, and the BIOS is told the
		 * translation that QEMU would choose, so that a disk made there looks the same
		 * here. */
		g->translation = g->cylinders * g->heads <= 131072 ? IDE_TRANSLATION_LARGE
								   : IDE_TRANSLATION_LBA;
	} else {
		g->cylinders = c;
		g->heads = h;
		g->sectors = s;
		g->translation = IDE_TRANSLATION_NONE;
	}
}
