/* SPDX-License-Identifier: MIT */
/* What others need to know about IDE disks: their geometry. The controller is piix3_ide.h. */
#ifndef DEVICES_IDE_H
#define DEVICES_IDE_H

#include <stdint.h>

struct drive;

/* BIOS translation, as SeaBIOS reads it from CMOS 0x39 (two bits a drive, primary master lowest).
 */
enum ide_translation {
	IDE_TRANSLATION_NONE = 0,
	IDE_TRANSLATION_LBA = 1,
	IDE_TRANSLATION_LARGE = 2,
};

struct ide_geometry {
	unsigned cylinders, heads, sectors; /* 1..16383, 1..16, 1..63 */
	enum ide_translation translation;
};

/*
 * The default CHS geometry of a disk: what the user asked for, else what its partition table was
 * made with, else 16 heads of 63 sectors. Reads the medium's first sector; for construction time.
 */
void ide_geometry(struct drive *drive, struct ide_geometry *geometry);

#endif
