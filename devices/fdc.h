/* SPDX-License-Identifier: MIT */
/* Floppy disk controller, Intel 82078 (PC/AT mode), with up to two drives. */
#ifndef DEVICES_FDC_H
#define DEVICES_FDC_H

#include "core/device.h"
#include "core/irq.h"
#include <stdint.h>

struct drive;
struct i8237;
struct fdc;

enum { FDC_BASE = 0x3F0, FDC_DMA_CHANNEL = 2, FDC_IRQ = 6 };

/*
 * Ports base + 1..5 and base + 7 (base + 6 belongs to IDE), DMA channel 2 of `dma` (NULL: only
 * non-DMA transfers). drives[] may hold NULL. The drives stay the caller's and must outlive the
 * controller.
 */
struct fdc *fdc_new(const struct device_env *env, uint16_t base, const struct irq_line *irq,
		    struct i8237 *dma, struct drive *const drives[2]);
void fdc_free(struct fdc *s);

/* CMOS 0x10 type of a drive: 0 none (NULL), 1 360K, 2 1.2M, 3 720K, 4 1.44M, 5 2.88M; from the
 * medium's size, 5 while there is none. */
unsigned fdc_drive_type(const struct drive *drive);

#endif
