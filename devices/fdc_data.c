/* SPDX-License-Identifier: MIT */
/*
 * Floppy commands with an execution phase: READ, READ DELETED, READ TRACK, VERIFY, WRITE, WRITE
 * DELETED, SCAN EQUAL/LOW/HIGH, FORMAT TRACK, and READ ID.
 *
 * One sector at a time: the disk request, then the move between `data` and the host by DMA channel
 * 2 or byte by byte through the FIFO; or the other way round when writing. The command ends at
 * terminal count (normally), after sector EOT of the last head (End of Cylinder, abnormally, as the
 * chip has it without TC), or at an error. The result has the address of the sector that would come
 * next.
 *
 * Two liberties, as in other emulators: the heads follow the cylinder parameter (implied seek,
 * whether or not CONFIGURE asks for it: BIOSes descended from Bochs' count on it), and the motor
 * need not run. Deleted data marks are not kept in images: every sector has the normal mark.
 *
 * Documents: 82078 datasheet (Intel 290474), 6.1 (data transfer commands), 6.1.10 (result values).
 */
#include "core/memory.h"
#include "devices/fdc_internal.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include <string.h>

/* Parameters of data commands within the FIFO. */
enum { P_COMMAND, P_SELECT, P_CYLINDER, P_HEAD, P_SECTOR, P_SIZE, P_EOT, P_GAP, P_DTL };
/* FORMAT TRACK has others. */
enum { F_SIZE = 2, F_SECTORS = 3, F_FILLER = 5, F_ID = 4 /* bytes of a sector's ID */ };
enum { SELECT_DRIVE = 3, SELECT_HEAD = 1 << 2, VERIFY_COUNT = 1 << 7 };
enum { RESULTS = 7 };

static void next_sector(struct fdc *s);
static void start_sector(struct fdc *s);
static void moved(struct fdc *s);

static unsigned code(const struct fdc *s)
{
	return s->fifo[P_COMMAND] & FDC_CODE;
}

static bool is_write(const struct fdc *s)
{
	return code(s) == FDC_WRITE || code(s) == FDC_WRITE_DELETED;
}

static bool is_scan(const struct fdc *s)
{
	return code(s) == FDC_SCAN_EQUAL || code(s) == FDC_SCAN_LOW || code(s) == FDC_SCAN_HIGH;
}

static bool from_host(const struct fdc *s)
{
	return is_write(s) || is_scan(s) || code(s) == FDC_FORMAT;
}

/* ---- ends ---- */

static void end(struct fdc *s, unsigned st0, uint8_t cylinder, uint8_t head, uint8_t sector,
		uint8_t size)
{
	uint8_t st[RESULTS] = {
		(uint8_t)(st0 | (s->fifo[P_SELECT] & SELECT_DRIVE) | (s->head ? ST0_HEAD : 0)),
		s->st1,
		s->st2,
		cylinder,
		head,
		sector,
		size,
	};

	trace(TRACE_FDC, "end: st %02x %02x %02x chs %u/%u/%u", st[0], st[1], st[2], cylinder, head,
	      sector);
	s->wait = WAIT_NONE;
	if (s->dma)
		i8237_request(s->dma, FDC_DMA_CHANNEL, false);
	memcpy(s->fifo, st, sizeof(st));
	fdc_result(s, sizeof(st), true);
}

static void fail(struct fdc *s, uint8_t st1, uint8_t st2)
{
	s->st1 |= st1;
	s->st2 |= st2;
	end(s, ST0_ABNORMAL, s->fifo[P_CYLINDER], s->head, s->sector, s->fifo[P_SIZE]);
}

/* Ends after the present sector: the result is where a next one would be (82078, table 6-?: "Result
 * Phase"). */
static void end_after_sector(struct fdc *s, unsigned st0)
{
	uint8_t cylinder = s->fifo[P_CYLINDER], head = s->head, sector = s->sector;

	if (sector != s->fifo[P_EOT]) {
		sector++;
	} else {
		sector = 1;
		if (!(s->fifo[P_COMMAND] & FDC_MT)) {
			cylinder++;
		} else {
			cylinder = (uint8_t)(cylinder + head);
			head ^= 1;
		}
	}
	end(s, st0, cylinder, head, sector, s->fifo[P_SIZE]);
}

/* ---- the medium ---- */

static bool rate_fits(const struct fdc *s, const struct fdc_format *f)
{
	enum { RATE_500K = 0, RATE_300K = 1, RATE_250K = 2, RATE_1M = 3 };

	switch (f->density) {
	case DENSITY_DOUBLE: return s->rate == RATE_250K || s->rate == RATE_300K;
	case DENSITY_HIGH: return s->rate == RATE_500K;
	default: return s->rate == RATE_1M;
	}
}

/* A readable medium under the heads, or the address mark is never found. */
static struct fdc_drive *readable(struct fdc *s)
{
	struct fdc_drive *d = fdc_selected(s);

	if (d && drive_inserted(d->drive) && rate_fits(s, d->format) &&
	    (s->fifo[P_COMMAND] & FDC_MFM))
		return d;
	s->st1 |= ST1_MISSING_ADDRESS;
	return NULL;
}

static uint64_t sector_offset(const struct fdc_drive *d, unsigned head, unsigned sector)
{
	const struct fdc_format *f = d->format;
	return (((uint64_t)d->track * f->heads + head) * f->sectors + sector - 1) * FDC_SECTOR;
}

/* ---- disk requests ---- */

static void disk_done(struct fdc *s, int result);

static void request_done(struct drive_request *req, int result)
{
	struct fdc *s = req->opaque;

	s->in_flight = false;
	if (s->stale) {
		s->stale = false;
		if (s->deferred) {
			s->deferred = false;
			if (code(s) == FDC_FORMAT)
				fdc_format_track(s);
			else
				start_sector(s);
		}
		return;
	}
	if (s->phase == PHASE_EXECUTION && s->wait == WAIT_DISK)
		disk_done(s, result);
}

/* Reads or writes one sector; false when the request is not worth a trip to the disk, *result then
 * has its outcome. */
static bool submit(struct fdc *s, enum drive_op op, uint8_t *buf, uint64_t offset, int *result)
{
	struct drive *drive = fdc_selected(s)->drive;
	uint64_t size = drive_size(drive);
	size_t len = FDC_SECTOR;

	if (op == DRIVE_READ) {
		/* What an image lacks reads as zeroes. */
		memset(buf, 0, FDC_SECTOR);
		len = offset >= size ? 0 : size - offset < len ? (size_t)(size - offset) : len;
	} else if (!range_in(offset, len, size)) {
		*result = -1;
		return false;
	}
	*result = 0;
	if (len == 0)
		return false;
	s->wait = WAIT_DISK;
	s->iov = (struct iovec){buf, len};
	s->request = (struct drive_request){
		.op = op,
		.offset = offset,
		.len = len,
		.iov = &s->iov,
		.iovcnt = 1,
		.done = request_done,
		.opaque = s,
	};
	s->in_flight = true;
	drive_submit(drive, &s->request);
	return true;
}

static void disk(struct fdc *s, enum drive_op op, uint8_t *buf, uint64_t offset)
{
	int result;
	if (!submit(s, op, buf, offset, &result))
		disk_done(s, result);
}

/* ---- the host's side ---- */

/* Offers data[0, len) to the host or asks for it. */
static void exchange(struct fdc *s, enum fdc_wait wait, unsigned len)
{
	s->wait = (uint8_t)wait;
	s->pos = 0;
	s->len = (uint16_t)len;
	if (fdc_uses_dma(s)) {
		i8237_request(s->dma, FDC_DMA_CHANNEL, true);
		fdc_pump(s);
	} else {
		fdc_set_irq(s, true);
	}
}

void fdc_pump(struct fdc *s)
{
	bool to_memory = s->wait == WAIT_TO_HOST, tc = false;

	if (s->phase != PHASE_EXECUTION || !fdc_uses_dma(s) ||
	    (!to_memory && s->wait != WAIT_FROM_HOST))
		return;
	s->pos = (uint16_t)(s->pos + i8237_transfer(s->dma, FDC_DMA_CHANNEL, s->data + s->pos,
						    (size_t)(s->len - s->pos), to_memory, &tc));
	s->terminal_count |= tc;
	if (s->pos >= s->len || tc)
		moved(s);
}

uint8_t fdc_data_read(struct fdc *s)
{
	if (s->wait != WAIT_TO_HOST || s->pos >= s->len)
		return 0;
	fdc_set_irq(s, false);
	uint8_t value = s->data[s->pos++];
	if (s->pos == s->len)
		moved(s);
	return value;
}

void fdc_data_write(struct fdc *s, uint8_t value)
{
	if (s->wait != WAIT_FROM_HOST || s->pos >= s->len)
		return;
	fdc_set_irq(s, false);
	s->data[s->pos++] = value;
	if (s->pos == s->len)
		moved(s);
}

/* ---- SCAN ---- */

/* Compares byte by byte; 0xFF from the host matches anything. Returns whether the search is over.
 */
static bool scan_hit(struct fdc *s)
{
	bool equal = true, low = true, high = true;

	for (unsigned i = 0; i < s->pos; i++) {
		uint8_t host = s->data[i], disk_byte = s->sector_data[i];
		if (host == 0xFF || disk_byte == 0xFF || host == disk_byte)
			continue;
		equal = false;
		if (disk_byte > host)
			low = false;
		else
			high = false;
	}
	s->st2 &= (uint8_t) ~(ST2_SCAN_EQUAL | ST2_SCAN_NOT_SATISFIED);
	if (equal) {
		s->st2 |= ST2_SCAN_EQUAL;
		return true;
	}
	if ((code(s) == FDC_SCAN_LOW && low) || (code(s) == FDC_SCAN_HIGH && high))
		return true;
	s->st2 |= ST2_SCAN_NOT_SATISFIED;
	return false;
}

/* ---- FORMAT TRACK ---- */

/* Writes the filler into the next sector of the list; the command ends after the last. */
static void format_next(struct fdc *s)
{
	struct fdc_drive *d = fdc_selected(s);

	while (s->format_next < s->fifo[F_SECTORS]) {
		const uint8_t *id = s->data + (size_t)F_ID * s->format_next++;
		/* An image has the sectors of its format and no others. */
		if (id[0] != d->track || id[1] != s->head || id[2] < 1 ||
		    id[2] > d->format->sectors || id[3] != FDC_SECTOR_CODE)
			continue;
		memset(s->sector_data, s->fifo[F_FILLER], FDC_SECTOR);
		disk(s, DRIVE_WRITE, s->sector_data, sector_offset(d, s->head, id[2]));
		return;
	}
	end(s, 0, d->track, s->head, s->fifo[F_SECTORS], s->fifo[F_SIZE]);
}

void fdc_format_track(struct fdc *s)
{
	s->phase = PHASE_EXECUTION;
	s->wait = WAIT_NONE;
	s->st1 = s->st2 = 0;
	s->terminal_count = false;
	s->head = s->fifo[P_SELECT] & SELECT_HEAD ? 1 : 0;
	s->format_next = 0;

	struct fdc_drive *d = readable(s);
	uint8_t sectors = s->fifo[F_SECTORS];
	if (!d || s->head >= d->format->heads || s->fifo[F_SIZE] != FDC_SECTOR_CODE ||
	    sectors == 0) {
		end(s, ST0_ABNORMAL, 0, s->head, sectors, s->fifo[F_SIZE]);
		return;
	}
	if (!drive_writable(d->drive)) {
		s->st1 |= ST1_NOT_WRITABLE;
		end(s, ST0_ABNORMAL, d->track, s->head, sectors, s->fifo[F_SIZE]);
		return;
	}
	if (s->in_flight) { /* of a command that a reset cut off: it still owns the buffer */
		s->deferred = true;
		return;
	}
	memset(s->data, 0, sizeof(s->data));
	exchange(s, WAIT_FROM_HOST, (unsigned)F_ID * sectors);
}

/* ---- sector by sector ---- */

/* A sector's worth has been moved (or terminal count came within it). */
static void moved(struct fdc *s)
{
	s->wait = WAIT_NONE;
	if (code(s) == FDC_FORMAT) {
		s->format_next = 0;
		format_next(s);
	} else if (is_write(s)) {
		memset(s->data + s->pos, 0, (size_t)(FDC_SECTOR - s->pos));
		disk(s, DRIVE_WRITE, s->data, sector_offset(fdc_selected(s), s->head, s->sector));
	} else if (is_scan(s) && scan_hit(s)) {
		end_after_sector(s, 0);
	} else {
		next_sector(s);
	}
}

static void disk_done(struct fdc *s, int result)
{
	s->wait = WAIT_NONE;
	if (result < 0) {
		fail(s, from_host(s) && !is_scan(s) ? ST1_NO_DATA : ST1_DATA_ERROR,
		     from_host(s) && !is_scan(s) ? 0 : ST2_DATA_ERROR);
		return;
	}
	switch (code(s)) {
	case FDC_FORMAT: format_next(s); break;
	case FDC_WRITE:
	case FDC_WRITE_DELETED:
	case FDC_VERIFY: next_sector(s); break;
	case FDC_SCAN_EQUAL:
	case FDC_SCAN_LOW:
	case FDC_SCAN_HIGH: exchange(s, WAIT_FROM_HOST, FDC_SECTOR); break;
	default: exchange(s, WAIT_TO_HOST, FDC_SECTOR); break;
	}
}

/* The present sector is done: ends the command or goes on with the one after it. */
static void next_sector(struct fdc *s)
{
	uint8_t eot = s->fifo[P_EOT];
	bool counted = code(s) == FDC_VERIFY && (s->fifo[P_SELECT] & VERIFY_COUNT);
	/* SCAN may look at every second sector only. */
	uint8_t step = is_scan(s) && s->fifo[P_DTL] == 2 ? 2 : 1;

	if (s->terminal_count || (counted && --s->verify_left == 0) ||
	    (s->st2 & ST2_CONTROL_MARK)) {
		end_after_sector(s, 0);
		return;
	}
	if (s->sector < eot && eot - s->sector >= step) {
		s->sector = (uint8_t)(s->sector + step);
	} else if ((s->fifo[P_COMMAND] & FDC_MT) && s->head == 0) {
		s->head = 1;
		s->sector = 1;
	} else if (is_scan(s) || (code(s) == FDC_VERIFY && !counted)) {
		end_after_sector(s, 0);
		return;
	} else {
		s->st1 |= ST1_END_OF_CYLINDER;
		end_after_sector(s, ST0_ABNORMAL);
		return;
	}
	start_sector(s);
}

/* Begins with the sector at head/sector of the command's cylinder. */
static void start_sector(struct fdc *s)
{
	struct fdc_drive *d = fdc_selected(s);

	if (s->in_flight) { /* of a command that a reset cut off */
		s->deferred = true;
		return;
	}
	if (!readable(s)) {
		fail(s, 0, 0);
		return;
	}
	if (s->head >= d->format->heads || s->sector < 1 || s->sector > d->format->sectors ||
	    s->fifo[P_CYLINDER] >= d->format->cylinders || s->fifo[P_SIZE] != FDC_SECTOR_CODE) {
		fail(s, ST1_NO_DATA, 0);
		return;
	}
	fdc_step_to(d, s->fifo[P_CYLINDER]);
	if (is_write(s)) {
		if (!drive_writable(d->drive))
			fail(s, ST1_NOT_WRITABLE, 0);
		else
			exchange(s, WAIT_FROM_HOST, FDC_SECTOR);
		return;
	}
	disk(s, DRIVE_READ, is_scan(s) ? s->sector_data : s->data,
	     sector_offset(d, s->head, s->sector));
}

void fdc_data_command(struct fdc *s)
{
	s->phase = PHASE_EXECUTION;
	s->wait = WAIT_NONE;
	s->st1 = s->st2 = 0;
	s->terminal_count = false;
	s->head = s->fifo[P_HEAD];
	s->sector = code(s) == FDC_READ_TRACK ? 1 : s->fifo[P_SECTOR];
	s->verify_left = s->fifo[P_DTL] ? s->fifo[P_DTL] : 256;
	trace(TRACE_FDC, "command %02x drive %u chs %u/%u/%u eot %u", s->fifo[P_COMMAND],
	      s->fifo[P_SELECT] & SELECT_DRIVE, s->fifo[P_CYLINDER], s->head, s->sector,
	      s->fifo[P_EOT]);
	/* The ID's head must be the one that is selected. */
	if (s->head != (s->fifo[P_SELECT] & SELECT_HEAD ? 1 : 0)) {
		fail(s, ST1_NO_DATA, 0);
		return;
	}
	if (code(s) == FDC_READ_DELETED) {
		/* All marks are normal ones: read one sector all the same, or skip them all. */
		s->st2 |= ST2_CONTROL_MARK;
		if (s->fifo[P_COMMAND] & FDC_SK) {
			s->sector = s->fifo[P_EOT];
			end_after_sector(s, 0);
			return;
		}
	}
	start_sector(s);
}

void fdc_read_id(struct fdc *s)
{
	struct fdc_drive *d;

	s->phase = PHASE_EXECUTION;
	s->st1 = s->st2 = 0;
	s->head = s->fifo[P_SELECT] & SELECT_HEAD ? 1 : 0;
	d = readable(s);
	if (!d || s->head >= d->format->heads || d->track >= d->format->cylinders) {
		s->st1 |= ST1_MISSING_ADDRESS;
		end(s, ST0_ABNORMAL, 0, s->head, 0, 0);
		return;
	}
	/* The disk turns: another ID passes each time. */
	s->sector = (uint8_t)(s->sector % d->format->sectors + 1);
	end(s, 0, d->track, s->head, s->sector, FDC_SECTOR_CODE);
}

void fdc_abort(struct fdc *s)
{
	s->stale = s->in_flight;
	s->deferred = false;
	s->wait = WAIT_NONE;
	s->terminal_count = false;
	s->pos = s->len = 0;
	if (s->dma)
		i8237_request(s->dma, FDC_DMA_CHANNEL, false);
}
