/* SPDX-License-Identifier: MIT */
/*
 * The PACKET protocol of CD-ROM drives, and the few ATA commands they know.
 *
 *   code      command
 *   00        NOP                       aborted
 *   08        DEVICE RESET              (ide.c)
 *   A0        PACKET                    12 bytes of command, then data by PIO or DMA
 *   A1        IDENTIFY PACKET DEVICE
 *   E0 E1 E5 E6  power management
 *   EF        SET FEATURES              transfer mode
 *   20 EC     READ SECTORS, IDENTIFY    aborted after showing the packet signature
 *
 * A packet command goes through these steps; Sector Count is then the interrupt reason:
 *
 *   host writes A0           DRQ, C/D = 1, I/O = 0: the packet may come (no interrupt)
 *   data to the host, PIO    DRQ, C/D = 0, I/O = 1, byte count in LBA Mid and High, interrupt;
 *                            in blocks of at most the limit that the host put there before
 *   data, DMA                BSY while the bus master works
 *   end                      C/D = 1, I/O = 1, interrupt; CHK and the sense key in Error if it
 *                            failed
 *
 * Documents: ATA/ATAPI-6 (T13/1410D), 8.23 (PACKET), 9.8 and 9.9 (protocol), 7.5 (byte count).
 * Left out: overlap, 16-byte packets, the release interrupt.
 */
#include "devices/ide_internal.h"
#include "lib/log.h"
#include <string.h>

enum atapi_code {
	CMD_NOP = 0x00,
	CMD_READ_SECTORS = 0x20,
	CMD_PACKET = 0xA0,
	CMD_IDENTIFY_PACKET = 0xA1,
	CMD_STANDBY_IMMEDIATE = 0xE0,
	CMD_IDLE_IMMEDIATE = 0xE1,
	CMD_CHECK_POWER = 0xE5,
	CMD_SLEEP = 0xE6,
	CMD_IDENTIFY = 0xEC,
	CMD_SET_FEATURES = 0xEF,
};
enum { FEATURE_TRANSFER_MODE = 0x03, PACKET_DMA = 1 << 0, PACKET_OVERLAP = 1 << 1 };
enum interrupt_reason { REASON_COMMAND = 1 << 0, REASON_TO_HOST = 1 << 1 };
enum { MAX_BYTE_COUNT = 0xFFFE };

static void set_reason(struct ide_drive *d, unsigned reason)
{
	d->tf[IDE_CUR].count = (uint8_t)reason;
}

static void set_byte_count(struct ide_drive *d, uint32_t bytes)
{
	d->tf[IDE_CUR].lba_mid = (uint8_t)bytes;
	d->tf[IDE_CUR].lba_high = (uint8_t)(bytes >> 8);
}

/* ---- ends of a packet command ---- */

void atapi_good(struct ide_channel *ch)
{
	set_reason(ide_active(ch), REASON_COMMAND | REASON_TO_HOST);
	ide_finish(ch, true);
}

void atapi_check(struct ide_channel *ch, uint32_t sense)
{
	struct ide_drive *d = ide_active(ch);

	trace(TRACE_IDE, "%s.%u: packet %02x fails with sense %06x", ch->name, d->unit, ch->cdb[0],
	      sense);
	d->sense_key = (uint8_t)(sense >> 16);
	d->asc = (uint8_t)(sense >> 8);
	d->ascq = (uint8_t)sense;
	set_reason(d, REASON_COMMAND | REASON_TO_HOST);
	ide_fail(ch, (uint8_t)(d->sense_key << 4));
}

void atapi_dma_failed(struct ide_channel *ch)
{
	atapi_check(ch, SENSE_HARDWARE_ERROR);
}

/* ---- data to the host ---- */

/* The next DRQ block out of the buffer. `left` counts what was not offered yet. */
static void offer_block(struct ide_channel *ch)
{
	struct ide_drive *d = ide_active(ch);
	uint32_t room = ch->filled - ch->pos;
	uint32_t n = ch->block < room ? ch->block : room;

	/* Only the last block may be odd (ATA/ATAPI-6, 7.5.2). */
	if (n < room)
		n &= ~1u;
	ch->block_end = ch->pos + n;
	ch->left -= n;
	set_byte_count(d, n);
	set_reason(d, REASON_TO_HOST);
	ide_data_in(ch, true);
}

static void buffer_ready(struct ide_channel *ch)
{
	ch->pos = 0;
	if (ch->dma)
		ide_start_dma(ch);
	else
		offer_block(ch);
}

static void dress_blocks(struct ide_channel *ch)
{
	uint32_t size = cd_block_size(ch->fields);
	uint32_t lba = (uint32_t)(ch->disk_pos / CD_BLOCK);

	for (uint32_t at = 0; at < ch->filled; at += size)
		cd_block_dress(ch->buffer + at, lba++, ch->fields);
	ch->disk_pos = (uint64_t)lba * CD_BLOCK;
	buffer_ready(ch);
}

/* The next stretch of dressed blocks: their user data is read straight to its places in the buffer.
 */
static void read_raw(struct ide_channel *ch)
{
	uint32_t size = cd_block_size(ch->fields);
	int user = cd_block_user_offset(ch->fields);
	uint64_t blocks = ch->left / size;

	if (blocks > IDE_BUFFER / size)
		blocks = IDE_BUFFER / size;
	ch->filled = (uint32_t)blocks * size;
	if (user < 0) {
		dress_blocks(ch);
		return;
	}
	for (uint32_t i = 0; i < blocks; i++)
		ch->iov[i] = (struct iovec){ch->buffer + i * size + user, CD_BLOCK};
	ide_submit(ch, DRIVE_READ, ch->disk_pos, blocks * CD_BLOCK, (int)blocks);
}

static void read_more(struct ide_channel *ch)
{
	if (ch->op == IDE_CD_RAW) {
		read_raw(ch);
	} else if (ch->dma) {
		ide_start_dma(ch);
	} else {
		ch->filled = ch->left < IDE_BUFFER ? (uint32_t)ch->left : IDE_BUFFER;
		ide_submit_buffer(ch, DRIVE_READ, ch->disk_pos, 0, ch->filled);
	}
}

/* A PIO transfer needs a byte count to go by. */
static bool can_transfer(struct ide_channel *ch)
{
	if (ch->dma || ch->block >= 2)
		return true;
	ide_fail(ch, ATA_ABRT);
	return false;
}

void atapi_reply(struct ide_channel *ch, uint32_t len, uint32_t allocated)
{
	uint32_t n = len < allocated ? len : allocated;

	if (n == 0) {
		atapi_good(ch);
		return;
	}
	if (!can_transfer(ch))
		return;
	ch->op = IDE_REPLY;
	ch->filled = n;
	ch->left = n;
	buffer_ready(ch);
}

void atapi_read_blocks(struct ide_channel *ch, uint32_t lba, uint32_t blocks, uint8_t fields)
{
	uint32_t size = cd_block_size(fields);

	if (blocks == 0 || size == 0) {
		atapi_good(ch);
		return;
	}
	if (!can_transfer(ch))
		return;
	ch->op = fields == CD_USER_DATA ? IDE_CD_READ : IDE_CD_RAW;
	ch->fields = fields;
	ch->disk_pos = (uint64_t)lba * CD_BLOCK;
	ch->left = (uint64_t)blocks * size;
	read_more(ch);
}

void atapi_params(struct ide_channel *ch, uint32_t len)
{
	struct ide_drive *d = ide_active(ch);

	if (!can_transfer(ch))
		return;
	ch->op = IDE_PARAMS;
	ch->pos = 0;
	ch->filled = len;
	if (ch->dma) {
		ide_start_dma(ch);
		return;
	}
	ch->block_end = ch->block < len ? ch->block & ~1u : len;
	set_byte_count(d, ch->block_end);
	set_reason(d, 0);
	ide_data_out(ch, true);
}

/* ---- events ---- */

void atapi_block_done(struct ide_channel *ch)
{
	switch (ch->op) {
	case IDE_CDB_OUT:
		memcpy(ch->cdb, ch->buffer, sizeof(ch->cdb));
		ch->pos = ch->block_end = ch->filled = 0;
		mmc_command(ch);
		break;
	case IDE_BUFFER_IN: ide_finish(ch, false); break;
	case IDE_PARAMS:
		if (ch->pos < ch->filled) {
			uint32_t room = ch->filled - ch->pos;
			uint32_t n = ch->block < room ? ch->block & ~1u : room;
			ch->block_end = ch->pos + n;
			set_byte_count(ide_active(ch), n);
			ide_data_out(ch, true);
		} else {
			mmc_params(ch);
		}
		break;
	default: /* IDE_REPLY, IDE_CD_READ, IDE_CD_RAW */
		if (ch->dma && ch->op != IDE_CD_READ)
			ch->left -= ch->filled;
		if (!ch->dma && ch->pos < ch->filled)
			offer_block(ch);
		else if (ch->left)
			read_more(ch);
		else
			atapi_good(ch);
		break;
	}
}

void atapi_disk_done(struct ide_channel *ch, int result)
{
	if (result < 0) {
		atapi_check(ch, atapi_ready(ide_active(ch)) ? SENSE_READ_ERROR : SENSE_NO_MEDIUM);
		return;
	}
	if (ch->op == IDE_CD_RAW) {
		dress_blocks(ch);
		return;
	}
	ch->disk_pos += ch->filled;
	buffer_ready(ch);
}

/* ---- media ---- */

void atapi_move_tray(struct ide_drive *d, bool open)
{
	if (d->tray_open == open)
		return;
	d->tray_open = d->tray_kept = open;
	if (open) {
		d->event = EVENT_REMOVAL;
	} else if (drive_inserted(d->drive)) {
		d->event = EVENT_NEW_MEDIA;
		d->attention = true;
	}
	drive_tray_moved(d->drive, open);
}

static void media_changed(void *opaque, bool inserted)
{
	struct ide_drive *d = opaque;

	/* The user opened the tray and took the medium out, or put one in and closed it. */
	d->tray_open = d->tray_kept = !inserted;
	d->event = inserted ? EVENT_NEW_MEDIA : EVENT_REMOVAL;
	d->attention = inserted;
}

static void media_eject_request(void *opaque, bool force)
{
	struct ide_drive *d = opaque;

	if (force)
		d->prevent = false;
	d->event = EVENT_EJECT_REQUEST;
}

static bool media_tray_open(void *opaque)
{
	struct ide_drive *d = opaque;
	return d->tray_open;
}

static bool media_locked(void *opaque)
{
	struct ide_drive *d = opaque;
	return d->prevent;
}

void atapi_init(struct ide_drive *d)
{
	const struct drive_media_ops ops = {
		.changed = media_changed,
		.eject_request = media_eject_request,
		.tray_open = media_tray_open,
		.locked = media_locked,
		.opaque = d,
	};
	drive_set_media_ops(d->drive, &ops);
}

void atapi_reset(struct ide_drive *d, bool power_on)
{
	d->power = IDE_ACTIVE;
	d->prevent = false;
	d->sense_key = d->asc = d->ascq = 0;
	d->tray_open = d->tray_kept;
	if (power_on) {
		d->attention = false;
		d->event = EVENT_NONE;
		d->pio_mode = 4;
		d->mdma_mode = 2;
		d->udma_mode = 5;
	}
}

/* ---- commands ---- */

static void packet(struct ide_channel *ch, struct ide_drive *d)
{
	const struct ide_task_file *tf = &d->tf[IDE_CUR];
	uint32_t limit = tf->lba_mid | (uint32_t)tf->lba_high << 8;

	if (tf->feature & PACKET_OVERLAP) {
		ide_fail(ch, ATA_ABRT);
		return;
	}
	ch->op = IDE_CDB_OUT;
	ch->dma = tf->feature & PACKET_DMA;
	ch->block = limit > MAX_BYTE_COUNT ? MAX_BYTE_COUNT : limit;
	ch->pos = 0;
	ch->filled = ch->block_end = IDE_CDB;
	set_reason(d, REASON_COMMAND);
	ide_data_out(ch, false);
}

static void set_features(struct ide_channel *ch, struct ide_drive *d)
{
	const struct ide_task_file *tf = &d->tf[IDE_CUR];

	if (tf->feature == FEATURE_TRANSFER_MODE && ata_set_transfer_mode(d, tf->count))
		ide_finish(ch, true);
	else
		ide_fail(ch, ATA_ABRT);
}

void atapi_command(struct ide_channel *ch, struct ide_drive *d, uint8_t command)
{
	if (d->power == IDE_SLEEP)
		return;
	switch (command) {
	case CMD_PACKET:
		d->power = IDE_ACTIVE;
		packet(ch, d);
		break;
	case CMD_IDENTIFY_PACKET:
		atapi_identify(d, ch->buffer);
		ch->op = IDE_BUFFER_IN;
		ch->pos = 0;
		ch->filled = ch->block_end = IDE_SECTOR;
		ide_data_in(ch, true);
		break;
	case CMD_SET_FEATURES: set_features(ch, d); break;
	case CMD_CHECK_POWER:
		d->tf[IDE_CUR].count = d->power;
		ide_finish(ch, true);
		break;
	case CMD_IDLE_IMMEDIATE:
		d->power = IDE_IDLE_MODE;
		ide_finish(ch, true);
		break;
	case CMD_STANDBY_IMMEDIATE:
		d->power = IDE_STANDBY;
		ide_finish(ch, true);
		break;
	case CMD_SLEEP:
		d->power = IDE_SLEEP;
		ide_finish(ch, true);
		break;
	case CMD_READ_SECTORS:
	case CMD_IDENTIFY:
		ide_signature(d);
		ide_fail(ch, ATA_ABRT);
		break;
	default: ide_fail(ch, ATA_ABRT); break;
	}
}
