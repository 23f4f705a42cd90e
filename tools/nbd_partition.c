/* SPDX-License-Identifier: MIT */
/*
 * Partitions of an MBR disk. The table of a boot record: four entries of 16 bytes from 446 on, then
 * the bytes 55h AAh. An entry: type at 4, first sector at 8, number of sectors at 12, little-endian.
 * An extended partition is a chain of such records: their first entry is a logical partition,
 * counted from the record, their second the next record, counted from the extended partition's
 * start.
 */
#include "lib/bytes.h"
#include "tools/nbd.h"
#include <errno.h>

enum {
	SECTOR = 512,
	TABLE = 446,
	ENTRY = 16,
	PRIMARIES = 4,
	TYPE_EXTENDED = 0x05,
	TYPE_EXTENDED_LBA = 0x0f,
	TYPE_EXTENDED_LINUX = 0x85,
	MAX_LOGICAL = 1000, /* a longer chain is a loop */
};

struct entry {
	uint8_t type;
	uint32_t start, sectors;
};

static bool is_extended(const struct entry *e)
{
	return e->type == TYPE_EXTENDED || e->type == TYPE_EXTENDED_LBA ||
	       e->type == TYPE_EXTENDED_LINUX;
}

/* The table in the sector at `lba`; -EINVAL if there is none. */
static int read_table(struct image *img, uint64_t lba, struct entry table[PRIMARIES])
{
	uint8_t b[SECTOR];
	int rc = range_in(lba * SECTOR, SECTOR, image_size(img)) ? 0 : -EINVAL;
	if (!rc)
		rc = image_pread(img, b, sizeof(b), lba * SECTOR);
	if (!rc && (b[SECTOR - 2] != 0x55 || b[SECTOR - 1] != 0xaa))
		rc = -EINVAL;
	for (int i = 0; i < PRIMARIES && !rc; i++) {
		const uint8_t *e = b + TABLE + i * ENTRY;
		table[i] = (struct entry){e[4], load_le32(e + 8), load_le32(e + 12)};
	}
	return rc;
}

/* Looks for logical partition `number`, from 0 on, of the extended partition at `base`; *found has
 * sectors if it is there. Returns how many it passed. */
static unsigned find_logical(struct image *img, uint32_t base, unsigned number, struct entry *found,
			     uint64_t *lba)
{
	uint64_t at = base;
	unsigned n = 0;
	for (; n < MAX_LOGICAL; n++) {
		struct entry table[PRIMARIES];
		if (read_table(img, at, table) || !table[0].sectors)
			break;
		if (n == number) {
			*found = table[0];
			*lba = at + table[0].start;
			break;
		}
		at = (uint64_t)base + table[1].start;
		if (!is_extended(&table[1]) || !table[1].sectors)
			return n + 1;
	}
	return n;
}

int nbd_find_partition(struct image *img, unsigned number, uint64_t *offset, uint64_t *size,
		       struct error *err)
{
	struct entry table[PRIMARIES], found = {0};
	uint64_t lba = 0;
	int rc = read_table(img, 0, table);
	if (rc == -EINVAL)
		return error_set(err, EINVAL,
				 "cannot find partition %u: '%s' has no MBR partition "
				 "table",
				 number, img->path);
	if (rc)
		return error_errno(err, -rc, "cannot read the partition table of '%s'", img->path);
	if (number <= PRIMARIES) {
		found = table[number - 1];
		lba = found.start;
	} else {
		unsigned wanted = number - PRIMARIES - 1;
		for (int i = 0; i < PRIMARIES && !found.sectors; i++) {
			if (is_extended(&table[i]))
				wanted -= find_logical(img, table[i].start, wanted, &found, &lba);
		}
	}
	if (!found.sectors)
		return error_set(err, ENOENT,
				 "cannot find partition %u: '%s' has none of this number", number,
				 img->path);
	if (!range_in(lba * SECTOR, (uint64_t)found.sectors * SECTOR, image_size(img)))
		return error_set(err, EINVAL, "partition %u goes beyond the end of '%s'", number,
				 img->path);
	*offset = lba * SECTOR;
	*size = (uint64_t)found.sectors * SECTOR;
	return 0;
}
