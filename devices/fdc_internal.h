/* SPDX-License-Identifier: MIT */
/*
 * Inside the floppy controller:
 *
 *   fdc.c        registers, command and result phase, commands that move no data
 *   fdc_data.c   commands that move data: sectors between disk, DMA and FIFO
 *   fdc_media.c  what format a medium has
 */
#ifndef DEVICES_FDC_INTERNAL_H
#define DEVICES_FDC_INTERNAL_H

#include "block/drive.h"
#include "core/iobus.h"
#include "core/irq.h"
#include "devices/fdc.h"
#include "devices/i8237.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

enum { FDC_DRIVES = 2, FDC_SELECTS = 4, FDC_SECTOR = 512, FDC_SECTOR_CODE = 2, FDC_FIFO = 16 };

/* How densely a medium is written; which data rates read it. */
enum fdc_density { DENSITY_DOUBLE, DENSITY_HIGH, DENSITY_EXTRA };

struct fdc_format {
	uint8_t cylinders, heads, sectors;
	uint8_t density;
	uint8_t type; /* CMOS drive type */
};

/* The format of a medium of this many bytes: a standard one, else the smallest that holds it. */
const struct fdc_format *fdc_format_of(uint64_t size);

/* Status registers, 82078 datasheet 5.2. */
enum fdc_st0 {
	ST0_HEAD = 1 << 2,
	ST0_EQUIPMENT_CHECK = 1 << 4,
	ST0_SEEK_END = 1 << 5,
	ST0_ABNORMAL = 1 << 6,
	ST0_INVALID = 2 << 6,
	ST0_POLLING = 3 << 6,
};
enum fdc_st1 {
	ST1_MISSING_ADDRESS = 1 << 0,
	ST1_NOT_WRITABLE = 1 << 1,
	ST1_NO_DATA = 1 << 2,
	ST1_DATA_ERROR = 1 << 5,
	ST1_END_OF_CYLINDER = 1 << 7,
};
enum fdc_st2 {
	ST2_SCAN_NOT_SATISFIED = 1 << 2,
	ST2_SCAN_EQUAL = 1 << 3,
	ST2_DATA_ERROR = 1 << 5,
	ST2_CONTROL_MARK = 1 << 6,
};

enum fdc_command_bits { FDC_MT = 1 << 7, FDC_MFM = 1 << 6, FDC_SK = 1 << 5, FDC_CODE = 0x1F };
enum fdc_command {
	FDC_READ_TRACK = 0x02,
	FDC_WRITE = 0x05,
	FDC_READ = 0x06,
	FDC_WRITE_DELETED = 0x09,
	FDC_READ_ID = 0x0A,
	FDC_READ_DELETED = 0x0C,
	FDC_FORMAT = 0x0D,
	FDC_SCAN_EQUAL = 0x11,
	FDC_VERIFY = 0x16,
	FDC_SCAN_LOW = 0x19,
	FDC_SCAN_HIGH = 0x1D,
};

enum fdc_phase { PHASE_COMMAND, PHASE_EXECUTION, PHASE_RESULT, FDC_PHASES };
/* What the execution phase waits for. */
enum fdc_wait { WAIT_NONE, WAIT_DISK, WAIT_TO_HOST, WAIT_FROM_HOST, FDC_WAITS };

struct fdc_drive {
	uint8_t track; /* where the heads are */
	bool changed;  /* disk change line */

	struct drive *drive; /* NULL: nothing connected */
	const struct fdc_format *format;
	bool changed_kept; /* `changed` over a reset */
};

struct fdc {
	/* registers */
	uint8_t dor, tdr, rate;
	uint8_t specify[2];
	uint8_t config, pretrk; /* CONFIGURE's second and third byte */
	uint8_t perpendicular;
	bool lock;
	bool irq_pending;
	uint8_t reset_sense;              /* drives still to be polled after a reset */
	uint8_t seek_status[FDC_SELECTS]; /* ST0 for SENSE INTERRUPT STATUS, 0: nothing */
	uint8_t busy;                     /* drives that seek, MSR 3:0 */
	struct fdc_drive drive[FDC_DRIVES];
	/* command and result */
	uint8_t phase;
	uint8_t fifo[FDC_FIFO];
	uint8_t fifo_pos, fifo_len;
	/* execution */
	uint8_t wait;
	uint8_t head, sector; /* being transferred */
	uint8_t st1, st2;
	bool terminal_count;
	uint16_t pos, len; /* within data */
	uint16_t verify_left;
	uint16_t format_next;
	uint8_t data[1024]; /* a sector, or the IDs of a track to format */

	/* host side */
	uint8_t sector_data[FDC_SECTOR]; /* SCAN: what the disk holds; FORMAT: the filler */
	struct iobus *io;
	struct state_registry *states;
	struct irq_line irq;
	bool irq_level;
	struct i8237 *dma;
	struct io_range *low_range, *high_range;
	uint16_t base;
	struct drive_request request;
	struct iovec iov;
	bool in_flight, stale, deferred;
};

enum fdc_dor { DOR_SELECT = 3, DOR_NRESET = 1 << 2, DOR_DMAGATE = 1 << 3 };

/* ---- fdc.c ---- */

/* The drive that a command's second byte names; NULL if none is connected there. */
struct fdc_drive *fdc_selected(struct fdc *s);
/* Enters the result phase with fifo[0, len) and an interrupt. */
void fdc_result(struct fdc *s, unsigned len, bool interrupt);
void fdc_set_irq(struct fdc *s, bool pending);
/* Moves the heads; a real step clears the change line when a medium is in. */
void fdc_step_to(struct fdc_drive *d, unsigned track);
bool fdc_uses_dma(const struct fdc *s);

/* ---- fdc_data.c ---- */

/* The parameters of a data command are complete. */
void fdc_data_command(struct fdc *s);
void fdc_read_id(struct fdc *s);
void fdc_format_track(struct fdc *s);
/* The DMA channel became ready. */
void fdc_pump(struct fdc *s);
/* Non-DMA transfers through the data register. */
uint8_t fdc_data_read(struct fdc *s);
void fdc_data_write(struct fdc *s, uint8_t value);
/* Gives up the execution phase: reset. */
void fdc_abort(struct fdc *s);

#endif
