/* SPDX-License-Identifier: MIT */
/*
 * The bus-master engine of one IDE channel.
 *
 *   offset  register
 *   0       Command: 0 start, 3 direction (1 = to memory)
 *   2       Status: 0 active, 1 error (W1C), 2 interrupt (W1C), 5 and 6 drive 0/1 DMA capable (R/W)
 *   4-7     address of the PRD table, dword-aligned
 *
 * A physical region descriptor is two dwords: address (bit 0 reads as 0), then byte count in 15:0
 * (0 = 64 KiB, even) and end of table in bit 31. The transfer's direction is that of the drive's
 * command.
 *
 * Transfers of a disk's or CD's plain data go straight between image and guest memory: a stretch of
 * the PRD table becomes one iovec and one disk request. Data that lives in the channel's buffer is
 * copied. How a transfer ends (chapter 3.1):
 *
 *   data moved, table used up            active 0, interrupt 1
 *   data moved, table longer             active 1, interrupt 1
 *   table used up, drive wants more      active 0, interrupt 0: the drive's command is dropped
 *   descriptor or region not in RAM      active 0, error 1: the drive's command is aborted
 *
 * Document: Programming Interface for Bus Master IDE Controller, revision 1.0.
 * Left out: simplex mode, PRD tables that wrap at 64 KiB (the address just goes on).
 */
#include "devices/ide_internal.h"
#include "lib/log.h"
#include <string.h>

enum bm_reg { BM_COMMAND = 0, BM_STATUS = 2, BM_TABLE = 4 };
enum bm_command { BM_START = 1 << 0, BM_TO_MEMORY = 1 << 3 };
enum bm_status {
	BM_ACTIVE = 1 << 0,
	BM_ERROR = 1 << 1,
	BM_INTERRUPT = 1 << 2,
	BM_DRIVE_CAPABLE = 3 << 5,
};
#define PRD_END UINT32_C(0x80000000)
enum { PRD_SIZE = 8, PRD_COUNT = 0xFFFE, PRD_COUNT_ZERO = 0x10000 };

/* One request's worth: enough to keep the disk busy, small enough to notice a stop. */
#define DMA_CHUNK (8 * MIB)

uint8_t ide_bm_read(struct ide_channel *ch, unsigned reg)
{
	switch (reg) {
	case BM_COMMAND: return ch->bm.command;
	case BM_STATUS: return ch->bm.status;
	case BM_TABLE:
	case BM_TABLE + 1:
	case BM_TABLE + 2:
	case BM_TABLE + 3: return (uint8_t)(ch->bm.table >> 8 * (reg - BM_TABLE));
	default: return 0;
	}
}

static void start(struct ide_channel *ch)
{
	struct ide_bus_master *bm = &ch->bm;

	bm->status |= BM_ACTIVE;
	bm->next = bm->table;
	bm->address = bm->left = 0;
	bm->last = false;
	ide_dma_run(ch);
}

void ide_bm_write(struct ide_channel *ch, unsigned reg, uint8_t value)
{
	struct ide_bus_master *bm = &ch->bm;
	uint8_t old;

	switch (reg) {
	case BM_COMMAND:
		old = bm->command;
		bm->command = value & (BM_START | BM_TO_MEMORY);
		if (!(old & BM_START) && (value & BM_START))
			start(ch);
		else if (!(value & BM_START))
			bm->status &= (uint8_t)~BM_ACTIVE;
		break;
	case BM_STATUS:
		bm->status = (uint8_t)((bm->status & (BM_ACTIVE | BM_ERROR | BM_INTERRUPT)) |
				       (value & BM_DRIVE_CAPABLE));
		bm->status &= (uint8_t) ~(value & (BM_ERROR | BM_INTERRUPT));
		break;
	case BM_TABLE:
	case BM_TABLE + 1:
	case BM_TABLE + 2:
	case BM_TABLE + 3: {
		unsigned shift = 8 * (reg - BM_TABLE);
		bm->table = (bm->table & ~(UINT32_C(0xFF) << shift)) | (uint32_t)value << shift;
		bm->table &= ~UINT32_C(3);
		break;
	}
	default: break;
	}
}

void ide_bm_interrupt(struct ide_channel *ch)
{
	ch->bm.status |= BM_INTERRUPT;
}

/* Fetches the next descriptor. False if it is not in RAM. */
static bool next_descriptor(struct ide_channel *ch)
{
	struct ide_bus_master *bm = &ch->bm;
	uint8_t prd[PRD_SIZE];

	if (!pci_dma_read(ch->pci, bm->next, prd, sizeof(prd)))
		return false;
	uint32_t count = load_le32(prd + 4);
	bm->address = load_le32(prd) & ~UINT32_C(1);
	bm->left = count & PRD_COUNT ? count & PRD_COUNT : PRD_COUNT_ZERO;
	bm->last = count & PRD_END;
	bm->next += PRD_SIZE;
	return true;
}

/*
 * Turns the next stretch of the table into ch->iov, at most `want` bytes. Returns its length, 0
 * when the table is used up, -1 when a descriptor or region is not in RAM.
 */
static int64_t map(struct ide_channel *ch, uint64_t want, bool to_memory)
{
	struct ide_bus_master *bm = &ch->bm;
	uint64_t total = 0;

	ch->iovcnt = 0;
	while (total < want && ch->iovcnt < IDE_IOV) {
		if (bm->left == 0) {
			if (bm->last)
				break;
			if (!next_descriptor(ch))
				return total ? (int64_t)total : -1;
		}
		size_t len = bm->left < want - total ? bm->left : (size_t)(want - total);
		void *host = pci_dma_map(ch->pci, bm->address, &len, to_memory);
		if (!host || len == 0)
			return total ? (int64_t)total : -1;
		ch->iov[ch->iovcnt] = (struct iovec){host, len};
		ch->wrote[ch->iovcnt].gpa = bm->address;
		ch->wrote[ch->iovcnt].len = len;
		ch->iovcnt++;
		bm->address += (uint32_t)len;
		bm->left -= (uint32_t)len;
		total += len;
	}
	return (int64_t)total;
}

static void tell_wrote(struct ide_channel *ch)
{
	for (int i = 0; i < ch->iovcnt; i++)
		mem_dma_wrote(ch->mem, ch->wrote[i].gpa, ch->wrote[i].len);
}

static bool to_memory(const struct ide_channel *ch)
{
	return ch->op != IDE_WRITE && ch->op != IDE_TRIM && ch->op != IDE_PARAMS;
}

static bool straight(const struct ide_channel *ch)
{
	return ch->op == IDE_READ || ch->op == IDE_WRITE || ch->op == IDE_CD_READ;
}

/* The engine is through with the drive's data: it goes inactive unless descriptors are left. */
static void settle(struct ide_channel *ch)
{
	if (ch->bm.left == 0 && ch->bm.last)
		ch->bm.status &= (uint8_t)~BM_ACTIVE;
}

static void block_done(struct ide_channel *ch)
{
	if (ide_active(ch)->atapi)
		atapi_block_done(ch);
	else
		ata_block_done(ch);
}

static void copy_buffered(struct ide_channel *ch, bool in)
{
	for (int i = 0; i < ch->iovcnt; i++) {
		uint8_t *here = ch->buffer + ch->pos;
		size_t len = ch->iov[i].iov_len;
		if (in)
			memcpy(ch->iov[i].iov_base, here, len);
		else
			memcpy(here, ch->iov[i].iov_base, len);
		ch->pos += (uint32_t)len;
	}
	if (in)
		tell_wrote(ch);
}

/* Moves one stretch of the table. */
static void dma_step(struct ide_channel *ch)
{
	bool in = to_memory(ch);
	uint64_t want = straight(ch) ? ch->left : ch->filled - ch->pos;
	int64_t n = map(ch, want < DMA_CHUNK ? want : DMA_CHUNK, in);

	if (n < 0) {
		trace(TRACE_IDE, "%s: DMA outside RAM, descriptor before %x", ch->name,
		      ch->bm.next);
		ch->bm.status &= (uint8_t)~BM_ACTIVE;
		ch->bm.status |= BM_ERROR;
		if (ide_active(ch)->atapi)
			atapi_dma_failed(ch);
		else
			ide_fail(ch, ATA_ABRT);
	} else if (n == 0) {
		trace(TRACE_IDE, "%s: PRD table too short", ch->name);
		ch->bm.status &= (uint8_t)~BM_ACTIVE;
		ide_finish(ch, false);
	} else if (straight(ch)) {
		ide_submit(ch, in ? DRIVE_READ : DRIVE_WRITE, ch->disk_pos, (uint64_t)n,
			   ch->iovcnt);
	} else {
		copy_buffered(ch, in);
		if (ch->pos == ch->filled) {
			settle(ch);
			block_done(ch);
		}
	}
}

void ide_dma_run(struct ide_channel *ch)
{
	if (ch->dma_running)
		return;
	ch->dma_running = true;
	while (ch->phase == IDE_DMA && (ch->bm.command & BM_START) && (ch->bm.status & BM_ACTIVE))
		dma_step(ch);
	ch->dma_running = false;
}

void ide_dma_tell_wrote(struct ide_channel *ch)
{
	if (ch->dma && straight(ch) && to_memory(ch))
		tell_wrote(ch);
}

bool ide_dma_done(struct ide_channel *ch)
{
	if (!ch->dma || !straight(ch))
		return false;
	ch->disk_pos += ch->request_len;
	ch->left -= ch->request_len;
	if (ch->left) {
		ide_start_dma(ch);
	} else {
		settle(ch);
		block_done(ch);
	}
	return true;
}
