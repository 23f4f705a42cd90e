/* SPDX-License-Identifier: MIT */
/*
 * An IDE channel: the registers that the host sees, the data port, the interrupt, resets.
 *
 *   port     read                      write
 *   base+0   Data (16 or 32 bits)      Data
 *   base+1   Error                     Features
 *   base+2   Sector Count              Sector Count (packet: interrupt reason)
 *   base+3   LBA Low                   LBA Low
 *   base+4   LBA Mid                   LBA Mid (packet: byte count)
 *   base+5   LBA High                  LBA High
 *   base+6   Device                    Device
 *   base+7   Status (acknowledges)     Command
 *   control  Alternate Status          Device Control: HOB, SRST, nIEN
 *
 * Both drives take every register write; the selected one answers reads. A drive that is not there
 * answers zeroes (as QEMU does), so that its status shows neither BSY nor DRDY.
 *
 * The disk is never waited for: a request leaves BSY set and its completion goes on. A reset that
 * arrives while a request is in flight is finished when that request is.
 *
 * Documents: ATA/ATAPI-6 (T13/1410D), chapter 7 (registers), 9.2 (software reset), 9.10
 * (diagnostic). Left out: the drives' timing, tagged queuing, interrupt at power-up.
 */
#include "devices/ide_internal.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum ide_reg {
	REG_DATA,
	REG_ERROR_FEATURES,
	REG_COUNT,
	REG_LBA_LOW,
	REG_LBA_MID,
	REG_LBA_HIGH,
	REG_DEVICE,
	REG_STATUS_COMMAND,
	REGS
};

enum { CMD_DEVICE_RESET = 0x08, CMD_DIAGNOSTIC = 0x90 };

static const struct state_field task_file_fields[] = {
	STATE_UINT(ide_task_file, feature),  STATE_UINT(ide_task_file, count),
	STATE_UINT(ide_task_file, lba_low),  STATE_UINT(ide_task_file, lba_mid),
	STATE_UINT(ide_task_file, lba_high), STATE_END,
};

static const struct state_field drive_fields[] = {
	STATE_STRUCTS(ide_drive, tf, task_file_fields),
	STATE_UINT(ide_drive, device),
	STATE_UINT(ide_drive, error),
	STATE_UINT(ide_drive, status),
	STATE_UINT(ide_drive, intrq),
	STATE_UINT(ide_drive, cylinders),
	STATE_UINT(ide_drive, heads),
	STATE_UINT(ide_drive, sectors),
	STATE_UINT(ide_drive, multiple),
	STATE_UINT(ide_drive, write_cache),
	STATE_UINT(ide_drive, look_ahead),
	STATE_UINT(ide_drive, keep_settings),
	STATE_UINT(ide_drive, apm),
	STATE_UINT(ide_drive, pio_mode),
	STATE_UINT(ide_drive, mdma_mode),
	STATE_UINT(ide_drive, udma_mode),
	STATE_UINT(ide_drive, power),
	STATE_UINT(ide_drive, sense_key),
	STATE_UINT(ide_drive, asc),
	STATE_UINT(ide_drive, ascq),
	STATE_UINT(ide_drive, attention),
	STATE_UINT(ide_drive, prevent),
	STATE_UINT(ide_drive, tray_open),
	STATE_UINT(ide_drive, event),
	STATE_END,
};

#define BM_FIELD(f)                                                                                \
	{                                                                                          \
		"bm." #f, STATE_TYPE(((struct ide_channel *)0)->bm.f),                             \
			offsetof(struct ide_channel, bm.f),                                        \
			sizeof(((struct ide_channel *)0)->bm.f), 1, NULL, 0                        \
	}

const struct state_field ide_channel_fields[] = {
	STATE_UINT(ide_channel, selected),
	STATE_UINT(ide_channel, control),
	STATE_STRUCTS(ide_channel, drive, drive_fields),
	BM_FIELD(command),
	BM_FIELD(status),
	BM_FIELD(table),
	BM_FIELD(next),
	BM_FIELD(address),
	BM_FIELD(left),
	BM_FIELD(last),
	STATE_UINT(ide_channel, active),
	STATE_UINT(ide_channel, op),
	STATE_UINT(ide_channel, phase),
	STATE_UINT(ide_channel, dma),
	STATE_UINT(ide_channel, pos),
	STATE_UINT(ide_channel, block_end),
	STATE_UINT(ide_channel, filled),
	STATE_UINT(ide_channel, block),
	STATE_UINT(ide_channel, left),
	STATE_UINT(ide_channel, disk_pos),
	STATE_UINT(ide_channel, lba),
	STATE_UINT(ide_channel, lba48),
	STATE_UINT(ide_channel, fields),
	STATE_UINT(ide_channel, trim_next),
	STATE_UINT(ide_channel, forced_unit_access),
	STATE_BYTES(ide_channel, cdb),
	STATE_BYTES(ide_channel, buffer),
	STATE_END,
};

/* ---- interrupt ---- */

static void update_irq(struct ide_channel *ch)
{
	bool level = ch->drive[ch->selected].intrq && !(ch->control & ATA_NIEN);

	if (level == ch->irq_level)
		return;
	ch->irq_level = level;
	if (level)
		ide_bm_interrupt(ch);
	irq_set(&ch->irq, level);
}

void ide_interrupt(struct ide_drive *d)
{
	d->intrq = true;
	update_irq(d->channel);
}

static void acknowledge(struct ide_drive *d)
{
	d->intrq = false;
	update_irq(d->channel);
}

/* ---- how commands go on and end ---- */

static void end_command(struct ide_channel *ch)
{
	ch->op = IDE_NONE;
	ch->phase = IDE_IDLE;
	ch->dma = false;
	ch->forced_unit_access = false;
	ch->pos = ch->block_end = ch->filled = 0;
	ch->left = 0;
}

void ide_finish(struct ide_channel *ch, bool interrupt)
{
	struct ide_drive *d = ide_active(ch);

	end_command(ch);
	d->status = ATA_DRDY | ATA_DSC;
	d->error = 0;
	if (interrupt)
		ide_interrupt(d);
}

void ide_fail(struct ide_channel *ch, uint8_t error)
{
	struct ide_drive *d = ide_active(ch);

	trace(TRACE_IDE, "%s.%u: error %02x", ch->name, d->unit, error);
	end_command(ch);
	d->status = ATA_DRDY | ATA_DSC | ATA_ERR;
	d->error = error;
	ide_interrupt(d);
}

void ide_data_in(struct ide_channel *ch, bool interrupt)
{
	struct ide_drive *d = ide_active(ch);

	ch->phase = IDE_DATA_IN;
	d->status = ATA_DRDY | ATA_DSC | ATA_DRQ;
	if (interrupt)
		ide_interrupt(d);
}

void ide_data_out(struct ide_channel *ch, bool interrupt)
{
	struct ide_drive *d = ide_active(ch);

	ch->phase = IDE_DATA_OUT;
	d->status = ATA_DRDY | ATA_DSC | ATA_DRQ;
	if (interrupt)
		ide_interrupt(d);
}

void ide_start_dma(struct ide_channel *ch)
{
	ch->phase = IDE_DMA;
	ide_active(ch)->status = ATA_DRDY | ATA_DSC | ATA_BSY;
	ide_dma_run(ch);
}

/* ---- disk requests ---- */

static void finish_reset(struct ide_channel *ch);

static void request_done(struct drive_request *req, int result)
{
	struct ide_channel *ch = req->opaque;

	ch->in_flight = false;
	ide_dma_tell_wrote(ch);
	if (ch->aborting) {
		ch->aborting = false;
		finish_reset(ch);
		return;
	}
	if (ch->phase != IDE_DISK)
		return;
	if (result == 0 && ide_dma_done(ch))
		return;
	if (ide_active(ch)->atapi)
		atapi_disk_done(ch, result);
	else
		ata_disk_done(ch, result);
}

void ide_submit(struct ide_channel *ch, enum drive_op op, uint64_t offset, uint64_t len, int iovcnt)
{
	struct ide_drive *d = ide_active(ch);

	d->status = ATA_DRDY | ATA_DSC | ATA_BSY;
	ch->phase = IDE_DISK;
	ch->in_flight = true;
	ch->request_len = len;
	ch->request = (struct drive_request){
		.op = op,
		.offset = offset,
		.len = len,
		.iov = ch->iov,
		.iovcnt = iovcnt,
		.fua = op == DRIVE_WRITE && (ch->forced_unit_access || !d->write_cache),
		.done = request_done,
		.opaque = ch,
	};
	drive_submit(d->drive, &ch->request);
}

void ide_submit_buffer(struct ide_channel *ch, enum drive_op op, uint64_t offset,
		       uint32_t offset_in_buffer, uint32_t len)
{
	ch->iov[0] = (struct iovec){ch->buffer + offset_in_buffer, len};
	ide_submit(ch, op, offset, len, 1);
}

/* ---- data port ---- */

static void block_done(struct ide_channel *ch)
{
	if (ide_active(ch)->atapi)
		atapi_block_done(ch);
	else
		ata_block_done(ch);
}

/* The part of the DRQ block that a data port access of this direction reaches. */
static uint32_t data_room(const struct ide_channel *ch, enum ide_phase phase)
{
	return ch->phase == phase && ch->selected == ch->active ? ch->block_end - ch->pos : 0;
}

/* Moves up to `len` bytes; returns how many. */
static size_t data_read(struct ide_channel *ch, void *buf, size_t len)
{
	uint32_t room = data_room(ch, IDE_DATA_IN);
	size_t n = len < room ? len : room;

	if (n == 0)
		return 0;
	memcpy(buf, ch->buffer + ch->pos, n);
	ch->pos += (uint32_t)n;
	if (ch->pos == ch->block_end)
		block_done(ch);
	return n;
}

static size_t data_write(struct ide_channel *ch, const void *buf, size_t len)
{
	uint32_t room = data_room(ch, IDE_DATA_OUT);
	size_t n = len < room ? len : room;

	if (n == 0)
		return 0;
	memcpy(ch->buffer + ch->pos, buf, n);
	ch->pos += (uint32_t)n;
	if (ch->pos == ch->block_end)
		block_done(ch);
	return n;
}

static size_t command_read_block(void *opaque, uint16_t port, unsigned size, void *buf,
				 size_t count)
{
	struct ide_channel *ch = opaque;
	size_t room = data_room(ch, IDE_DATA_IN) / size;

	if (port % REGS != REG_DATA || room == 0)
		return 0; /* one by one */
	return data_read(ch, buf, (count < room ? count : room) * size) / size;
}

static size_t command_write_block(void *opaque, uint16_t port, unsigned size, const void *buf,
				  size_t count)
{
	struct ide_channel *ch = opaque;
	size_t room = data_room(ch, IDE_DATA_OUT) / size;

	if (port % REGS != REG_DATA || room == 0)
		return 0;
	return data_write(ch, buf, (count < room ? count : room) * size) / size;
}

/* ---- resets ---- */

void ide_signature(struct ide_drive *d)
{
	/* ATA/ATAPI-6, 9.12 "Signature and persistence". */
	struct ide_task_file *tf = &d->tf[IDE_CUR];

	memset(d->tf, 0, sizeof(d->tf));
	tf->count = 1;
	tf->lba_low = 1;
	if (d->atapi) {
		tf->lba_mid = 0x14;
		tf->lba_high = 0xEB;
	}
	d->device &= ATA_DEV;
}

static void drive_reset(struct ide_drive *d, bool power_on)
{
	if (!d->drive)
		return;
	ide_signature(d);
	d->error = ATA_DIAG_PASSED;
	/* A packet device shows DRDY only after its first command. */
	d->status = d->atapi ? 0 : ATA_DRDY | ATA_DSC;
	d->intrq = false;
	if (d->atapi)
		atapi_reset(d, power_on);
	else
		ata_reset(d, power_on);
}

/* What follows SRST going down, DEVICE RESET, or the last request before one of them. */
static void finish_reset(struct ide_channel *ch)
{
	struct ide_drive *one = ch->reset_one ? ide_active(ch) : NULL;

	ch->reset_one = false;
	end_command(ch);
	if (ch->control & ATA_SRST)
		return; /* still held: this comes again when it is let go */
	for (int i = 0; i < 2; i++)
		if (!one || one == &ch->drive[i])
			drive_reset(&ch->drive[i], false);
	if (!one) {
		ch->selected = 0;
		/* The register is the same in both drives, DEV included (ATA/ATAPI-6, 9.2). */
		ch->drive[0].device = ch->drive[1].device = 0;
	}
	update_irq(ch);
}

static void begin_reset(struct ide_channel *ch, bool one)
{
	ch->reset_one = one;
	if (ch->in_flight)
		ch->aborting = true;
	else
		finish_reset(ch);
}

static void control_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct ide_channel *ch = opaque;
	uint8_t old = ch->control;

	ch->control = value & (ATA_NIEN | ATA_SRST | ATA_HOB);
	if (!(old & ATA_SRST) && (value & ATA_SRST)) {
		trace(TRACE_IDE, "%s: software reset", ch->name);
		for (int i = 0; i < 2; i++)
			if (ch->drive[i].drive) {
				ch->drive[i].status = ATA_BSY | ATA_DSC;
				ch->drive[i].intrq = false;
			}
		begin_reset(ch, false);
	} else if ((old & ATA_SRST) && !(value & ATA_SRST)) {
		begin_reset(ch, false);
	}
	update_irq(ch);
}

/* EXECUTE DEVICE DIAGNOSTIC: both drives answer with their signature, drive 0 with the interrupt.
 */
static void diagnostic(struct ide_channel *ch)
{
	for (int i = 0; i < 2; i++) {
		struct ide_drive *d = &ch->drive[i];
		if (!d->drive)
			continue;
		ide_signature(d);
		d->device = 0;
		d->error = ATA_DIAG_PASSED;
		d->status = d->atapi ? 0 : ATA_DRDY | ATA_DSC;
	}
	ch->selected = 0;
	if (ch->drive[0].drive)
		ide_interrupt(&ch->drive[0]);
}

void ide_channel_drain(struct ide_channel *ch)
{
	for (int i = 0; i < 2; i++)
		if (ch->drive[i].drive)
			drive_drain(ch->drive[i].drive);
}

void ide_channel_reset(struct ide_channel *ch)
{
	/* What is in flight writes to memory that stays ours; only its consequences are dropped. */
	ch->phase = IDE_IDLE;
	ch->aborting = false;
	ide_channel_drain(ch);
	ch->in_flight = ch->reset_one = false;
	end_command(ch);
	for (int i = 0; i < 2; i++)
		drive_reset(&ch->drive[i], true);
	update_irq(ch);
}

/* ---- registers ---- */

static void command(struct ide_channel *ch, uint8_t value)
{
	struct ide_drive *d = &ch->drive[ch->selected];

	trace(TRACE_IDE, "%s.%u: command %02x count %02x lba %02x%02x%02x device %02x feature %02x",
	      ch->name, d->unit, value, d->tf[0].count, d->tf[0].lba_high, d->tf[0].lba_mid,
	      d->tf[0].lba_low, d->device, d->tf[0].feature);
	if (ch->control & ATA_SRST)
		return;
	if (value == CMD_DIAGNOSTIC && ch->phase == IDE_IDLE) {
		diagnostic(ch);
		return;
	}
	if (!d->drive)
		return;
	if (ch->aborting)
		return; /* a reset is already on its way, perhaps one of both drives */
	if (d->atapi && value == CMD_DEVICE_RESET) {
		acknowledge(d);
		/* Nothing of the other drive's command may be lost. */
		if (ch->phase == IDE_IDLE || ch->active == ch->selected) {
			ch->active = ch->selected;
			d->status = ATA_BSY;
			begin_reset(ch, true);
		}
		return;
	}
	if (ch->phase != IDE_IDLE || (d->status & (ATA_BSY | ATA_DRQ)))
		return;
	acknowledge(d);
	ch->active = ch->selected;
	d->error = 0;
	if (d->atapi)
		atapi_command(ch, d, value);
	else
		ata_command(ch, d, value);
}

static uint8_t reg_read(struct ide_channel *ch, unsigned reg)
{
	struct ide_drive *d = &ch->drive[ch->selected];
	const struct ide_task_file *tf = &d->tf[ch->control & ATA_HOB ? IDE_PREV : IDE_CUR];

	if (!d->drive)
		return 0;
	switch (reg) {
	case REG_ERROR_FEATURES: return ch->control & ATA_HOB ? 0 : d->error;
	case REG_COUNT: return tf->count;
	case REG_LBA_LOW: return tf->lba_low;
	case REG_LBA_MID: return tf->lba_mid;
	case REG_LBA_HIGH: return tf->lba_high;
	case REG_DEVICE: return d->device | ATA_OBSOLETE;
	default: acknowledge(d); return d->status;
	}
}

static void shift_in(uint8_t *current, uint8_t *previous, uint8_t value)
{
	*previous = *current;
	*current = value;
}

static void reg_write(struct ide_channel *ch, unsigned reg, uint8_t value)
{
	ch->control &= (uint8_t)~ATA_HOB;
	if (reg == REG_STATUS_COMMAND) {
		command(ch, value);
		return;
	}
	/* A busy drive's registers are its own. */
	if (ch->drive[ch->selected].status & ATA_BSY)
		return;
	for (int i = 0; i < 2; i++) {
		struct ide_drive *d = &ch->drive[i];
		struct ide_task_file *tf = &d->tf[IDE_CUR], *hob = &d->tf[IDE_PREV];
		switch (reg) {
		case REG_ERROR_FEATURES: shift_in(&tf->feature, &hob->feature, value); break;
		case REG_COUNT: shift_in(&tf->count, &hob->count, value); break;
		case REG_LBA_LOW: shift_in(&tf->lba_low, &hob->lba_low, value); break;
		case REG_LBA_MID: shift_in(&tf->lba_mid, &hob->lba_mid, value); break;
		case REG_LBA_HIGH: shift_in(&tf->lba_high, &hob->lba_high, value); break;
		default: d->device = value; break;
		}
	}
	if (reg == REG_DEVICE) {
		ch->selected = value & ATA_DEV ? 1 : 0;
		update_irq(ch);
	}
}

static uint32_t command_port_read(void *opaque, uint16_t port, unsigned size)
{
	struct ide_channel *ch = opaque;
	unsigned reg = port % REGS;
	uint32_t value = 0;

	if (reg == REG_DATA) {
		data_read(ch, &value, size);
		return value;
	}
	for (unsigned i = 0; i < size && reg + i < REGS; i++)
		value |= (uint32_t)reg_read(ch, reg + i) << 8 * i;
	return value;
}

static void command_port_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct ide_channel *ch = opaque;
	unsigned reg = port % REGS;

	if (reg == REG_DATA) {
		data_write(ch, &value, size);
		return;
	}
	for (unsigned i = 0; i < size && reg + i < REGS; i++)
		reg_write(ch, reg + i, (uint8_t)(value >> 8 * i));
}

static uint32_t control_read(void *opaque, uint16_t port, unsigned size)
{
	struct ide_channel *ch = opaque;
	struct ide_drive *d = &ch->drive[ch->selected];
	return d->drive ? d->status : 0;
}

static const struct io_ops command_ops = {
	.read = command_port_read,
	.write = command_port_write,
	.read_block = command_read_block,
	.write_block = command_write_block,
	.sizes = 1 | 2 | 4,
};
static const struct io_ops control_ops = {.read = control_read, .write = control_write};

/* ---- the channel ---- */

/* What a snapshot claims is bounded before anything uses it. */
static bool transfer_plausible(struct ide_channel *ch)
{
	const struct ide_drive *d = ide_active(ch);

	if (ch->phase == IDE_IDLE)
		return true;
	if (!d->drive || ch->phase == IDE_DISK || ch->op == IDE_NONE || ch->op >= IDE_OPS)
		return false;
	if (ch->filled > IDE_BUFFER || ch->block_end > ch->filled || ch->pos > ch->block_end)
		return false;
	switch (ch->op) {
	case IDE_CD_RAW:
		if (cd_block_size(ch->fields) == 0)
			return false;
		break;
	case IDE_READ:
	case IDE_WRITE:
		if (ch->block == 0 && !ch->dma)
			return false;
		/* fall through */
	case IDE_CD_READ:
		if (!range_in(ch->disk_pos, 0, drive_size(d->drive)))
			return false;
		break;
	default: break;
	}
	return ch->block <= IDE_BUFFER;
}

int ide_channel_post_load(struct ide_channel *ch, struct error *err)
{
	bool good = ch->selected <= 1 && ch->active <= 1 && ch->phase < IDE_PHASES &&
		    transfer_plausible(ch);

	for (int i = 0; good && i < 2; i++) {
		struct ide_drive *d = &ch->drive[i];
		if (d->multiple > IDE_MAX_MULTIPLE ||
		    (d->drive && !d->atapi && (d->heads == 0 || d->sectors == 0)))
			good = false;
	}
	if (!good)
		return error_set(err, EINVAL, "the saved state of '%s' is damaged", ch->name);
	ch->in_flight = ch->aborting = ch->reset_one = false;
	/* Drives the line anew without making it an edge that the bus master sees. */
	ch->irq_level = ch->drive[ch->selected].intrq && !(ch->control & ATA_NIEN);
	irq_set(&ch->irq, ch->irq_level);
	return 0;
}

static void drive_init(struct ide_channel *ch, unsigned unit, struct drive *drive, int number)
{
	struct ide_drive *d = &ch->drive[unit];

	d->channel = ch;
	d->unit = (uint8_t)unit;
	d->drive = drive;
	if (!drive)
		return;
	d->atapi = drive_get_kind(drive) == DRIVE_CDROM;
	const char *serial = drive_serial(drive);
	if (serial && *serial)
		snprintf(d->serial, sizeof(d->serial), "%s", serial);
	else
		snprintf(d->serial, sizeof(d->serial), "MV%05d", number + 1);
	if (d->atapi) {
		atapi_init(d);
		return;
	}
	d->total_sectors = drive_size(drive) / IDE_SECTOR;
	ide_geometry(drive, &d->geometry);
}

void ide_channel_init(struct ide_channel *ch, const struct device_env *env, const char *name,
		      uint16_t base, uint16_t control_port, const struct irq_line *irq,
		      struct pci_device *pci, struct drive *const drives[2])
{
	ch->name = name;
	ch->irq = *irq;
	ch->pci = pci;
	ch->mem = env->mem;
	ch->io = env->io;
	for (unsigned i = 0; i < 2; i++)
		drive_init(ch, i, drives[i], (base == 0x1F0 ? 0 : 2) + (int)i);
	ch->command_range = iobus_add(env->io, name, base, REGS, &command_ops, ch);
	ch->control_range = iobus_add(env->io, name, control_port, 1, &control_ops, ch);
	ide_channel_reset(ch);
}

void ide_channel_fini(struct ide_channel *ch)
{
	ch->phase = IDE_IDLE;
	ch->aborting = false;
	ide_channel_drain(ch);
	for (int i = 0; i < 2; i++)
		if (ch->drive[i].drive && ch->drive[i].atapi)
			drive_set_media_ops(ch->drive[i].drive, NULL);
	iobus_remove(ch->io, ch->command_range);
	iobus_remove(ch->io, ch->control_range);
}
