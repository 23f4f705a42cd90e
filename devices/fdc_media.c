/* SPDX-License-Identifier: MIT */
/*
 * Floppy formats, told by the size of the image. An image of a size that is no format's (cut off
 * after its last used sector, or a bare boot sector) is taken for the smallest of 1.44M and 2.88M
 * that holds it; what it lacks reads as zeroes.
 */
#include "devices/fdc_internal.h"
#include "lib/bytes.h"

enum cmos_type { TYPE_360K = 1, TYPE_1200K, TYPE_720K, TYPE_1440K, TYPE_2880K };

static const struct fdc_format formats[] = {
	{80, 2, 18, DENSITY_HIGH, TYPE_1440K}, /* 1.44M: also what an unknown size becomes */
	{80, 2, 36, DENSITY_EXTRA, TYPE_2880K}, {40, 1, 8, DENSITY_DOUBLE, TYPE_360K},
	{40, 1, 9, DENSITY_DOUBLE, TYPE_360K},  {40, 2, 8, DENSITY_DOUBLE, TYPE_360K},
	{40, 2, 9, DENSITY_DOUBLE, TYPE_360K},  {80, 2, 9, DENSITY_DOUBLE, TYPE_720K},
	{80, 2, 10, DENSITY_DOUBLE, TYPE_720K}, {82, 2, 10, DENSITY_DOUBLE, TYPE_720K},
	{83, 2, 10, DENSITY_DOUBLE, TYPE_720K}, {80, 2, 15, DENSITY_HIGH, TYPE_1200K},
	{82, 2, 18, DENSITY_HIGH, TYPE_1440K},  {83, 2, 18, DENSITY_HIGH, TYPE_1440K},
	{80, 2, 20, DENSITY_HIGH, TYPE_1440K},  {80, 2, 21, DENSITY_HIGH, TYPE_1440K}, /* DMF */
	{82, 2, 21, DENSITY_HIGH, TYPE_1440K},  {83, 2, 21, DENSITY_HIGH, TYPE_1440K},
	{80, 2, 22, DENSITY_HIGH, TYPE_1440K},  {80, 2, 23, DENSITY_HIGH, TYPE_1440K},
	{80, 2, 24, DENSITY_HIGH, TYPE_1440K},  {80, 2, 39, DENSITY_EXTRA, TYPE_2880K},
	{80, 2, 40, DENSITY_EXTRA, TYPE_2880K}, {80, 2, 44, DENSITY_EXTRA, TYPE_2880K},
	{80, 2, 48, DENSITY_EXTRA, TYPE_2880K},
};

static uint64_t format_bytes(const struct fdc_format *f)
{
	return (uint64_t)f->cylinders * f->heads * f->sectors * FDC_SECTOR;
}

const struct fdc_format *fdc_format_of(uint64_t size)
{
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		if (format_bytes(&formats[i]) == size)
			return &formats[i];
	return &formats[size > format_bytes(&formats[0])];
}

unsigned fdc_drive_type(const struct drive *drive)
{
	if (!drive)
		return 0;
	/* An empty drive is the one that takes every 3.5" medium that may come. */
	return drive_inserted(drive) ? fdc_format_of(drive_size(drive))->type : TYPE_2880K;
}
