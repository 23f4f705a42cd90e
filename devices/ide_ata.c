/* SPDX-License-Identifier: MIT */
/*
 * Commands of ATA disks.
 *
 *   code            command                         protocol
 *   00              NOP                             always aborted
 *   06              DATA SET MANAGEMENT (TRIM)      DMA out
 *   10-1F           RECALIBRATE                     none
 *   20 21 24        READ SECTORS (EXT)              PIO in, an interrupt a sector
 *   25 C8 C9        READ DMA (EXT)                  DMA in
 *   27 F8           READ NATIVE MAX (EXT)           none
 *   29 C4           READ MULTIPLE (EXT)             PIO in, an interrupt a block
 *   30 31 34 3C     WRITE SECTORS (EXT, VERIFY)     PIO out
 *   35 3D CA CB     WRITE DMA (EXT, FUA EXT)        DMA out
 *   39 C5 CE        WRITE MULTIPLE (EXT, FUA EXT)   PIO out
 *   40 41 42        READ VERIFY (EXT)               none, reads the disk
 *   70-7F           SEEK                            none
 *   91              INITIALIZE DEVICE PARAMETERS    none
 *   94-99 E0-E3 E5 E6  power management             none
 *   C6              SET MULTIPLE MODE               none
 *   E7 EA           FLUSH CACHE (EXT)               none
 *   EC              IDENTIFY DEVICE                 PIO in
 *   EF              SET FEATURES                    none
 *   B0 (SMART), A0, A1 and all others               aborted
 *
 * Addresses are CHS by the current geometry, 28-bit or 48-bit LBA. The whole extent of a transfer
 * is checked before it starts; when it passes the end of the disk, nothing moves and IDNF reports
 * the first sector that is not there.
 *
 * Documents: ATA/ATAPI-6 (T13/1410D), chapter 8; ACS-2 7.10 (DATA SET MANAGEMENT); ATA-1 for
 * RECALIBRATE and INITIALIZE DEVICE PARAMETERS.
 * Left out: SMART, security, host protected area (READ NATIVE MAX tells the size), overlap and
 * queuing, READ/WRITE LONG, microcode download.
 */
#include "devices/ide_internal.h"
#include "lib/log.h"

enum ata_code {
	CMD_NOP = 0x00,
	CMD_DATA_SET_MANAGEMENT = 0x06,
	CMD_RECALIBRATE = 0x10, /* ..0x1F */
	CMD_READ_SECTORS = 0x20,
	CMD_READ_SECTORS_NORETRY = 0x21,
	CMD_READ_SECTORS_EXT = 0x24,
	CMD_READ_DMA_EXT = 0x25,
	CMD_READ_NATIVE_MAX_EXT = 0x27,
	CMD_READ_MULTIPLE_EXT = 0x29,
	CMD_WRITE_SECTORS = 0x30,
	CMD_WRITE_SECTORS_NORETRY = 0x31,
	CMD_WRITE_SECTORS_EXT = 0x34,
	CMD_WRITE_DMA_EXT = 0x35,
	CMD_WRITE_MULTIPLE_EXT = 0x39,
	CMD_WRITE_VERIFY = 0x3C,
	CMD_WRITE_DMA_FUA_EXT = 0x3D,
	CMD_READ_VERIFY = 0x40,
	CMD_READ_VERIFY_NORETRY = 0x41,
	CMD_READ_VERIFY_EXT = 0x42,
	CMD_SEEK = 0x70, /* ..0x7F */
	CMD_INIT_PARAMETERS = 0x91,
	CMD_STANDBY_IMMEDIATE_OLD = 0x94,
	CMD_IDLE_IMMEDIATE_OLD = 0x95,
	CMD_STANDBY_OLD = 0x96,
	CMD_IDLE_OLD = 0x97,
	CMD_CHECK_POWER_OLD = 0x98,
	CMD_SLEEP_OLD = 0x99,
	CMD_READ_MULTIPLE = 0xC4,
	CMD_WRITE_MULTIPLE = 0xC5,
	CMD_SET_MULTIPLE = 0xC6,
	CMD_READ_DMA = 0xC8,
	CMD_READ_DMA_NORETRY = 0xC9,
	CMD_WRITE_DMA = 0xCA,
	CMD_WRITE_DMA_NORETRY = 0xCB,
	CMD_WRITE_MULTIPLE_FUA_EXT = 0xCE,
	CMD_STANDBY_IMMEDIATE = 0xE0,
	CMD_IDLE_IMMEDIATE = 0xE1,
	CMD_STANDBY = 0xE2,
	CMD_IDLE = 0xE3,
	CMD_CHECK_POWER = 0xE5,
	CMD_SLEEP = 0xE6,
	CMD_FLUSH = 0xE7,
	CMD_FLUSH_EXT = 0xEA,
	CMD_IDENTIFY = 0xEC,
	CMD_SET_FEATURES = 0xEF,
	CMD_READ_NATIVE_MAX = 0xF8,
};

/* SET FEATURES subcommands, ATA/ATAPI-6 table 46. */
enum ata_feature {
	FEATURE_WRITE_CACHE = 0x02,
	FEATURE_TRANSFER_MODE = 0x03,
	FEATURE_APM = 0x05,
	FEATURE_NO_LOOK_AHEAD = 0x55,
	FEATURE_KEEP_SETTINGS = 0x66,
	FEATURE_NO_WRITE_CACHE = 0x82,
	FEATURE_NO_APM = 0x85,
	FEATURE_LOOK_AHEAD = 0xAA,
	FEATURE_REVERT_SETTINGS = 0xCC,
};
/* Transfer mode, Sector Count register of that subcommand: type in 7:3, mode in 2:0. */
enum { MODE_PIO_DEFAULT = 0, MODE_PIO = 1, MODE_MDMA = 4, MODE_UDMA = 8 };
enum { MAX_PIO = 4, MAX_MDMA = 2, MAX_UDMA = 5, UDMA_OFF = 0xFF };
enum { DSM_TRIM = 1, DSM_MAX_BLOCKS = 8, DSM_RANGE = 8 /* bytes of an entry */ };

enum addressing { LBA28_OR_CHS, LBA48 };

#define LBA28_MAX UINT64_C(0x0FFFFFFF)

/* ---- addresses ---- */

/* The first sector of the command; false for a CHS address outside the geometry. */
static bool get_lba(const struct ide_drive *d, enum addressing how, uint64_t *lba)
{
	const struct ide_task_file *tf = &d->tf[IDE_CUR], *hob = &d->tf[IDE_PREV];
	uint32_t low = tf->lba_low | (uint32_t)tf->lba_mid << 8 | (uint32_t)tf->lba_high << 16;

	if (how == LBA48) {
		*lba = low | (uint64_t)hob->lba_low << 24 | (uint64_t)hob->lba_mid << 32 |
		       (uint64_t)hob->lba_high << 40;
		return true;
	}
	uint32_t head = d->device & ATA_HEAD;
	if (d->device & ATA_LBA) {
		*lba = low | head << 24;
		return true;
	}
	uint32_t cylinder = low >> 8, sector = tf->lba_low;
	*lba = ((uint64_t)cylinder * d->heads + head) * d->sectors + sector - 1;
	return sector >= 1 && sector <= d->sectors && head < d->heads && cylinder < d->cylinders;
}

/* Puts a sector's address into the registers, in the form in which the command gave its own. */
static void set_lba(struct ide_drive *d, enum addressing how, uint64_t lba)
{
	struct ide_task_file *tf = &d->tf[IDE_CUR], *hob = &d->tf[IDE_PREV];

	if (how != LBA48 && !(d->device & ATA_LBA)) {
		uint32_t track = (uint32_t)(lba / d->sectors);
		tf->lba_low = (uint8_t)(lba % d->sectors + 1);
		d->device = (uint8_t)((d->device & ~ATA_HEAD) | track % d->heads);
		tf->lba_mid = (uint8_t)(track / d->heads);
		tf->lba_high = (uint8_t)(track / d->heads >> 8);
		return;
	}
	tf->lba_low = (uint8_t)lba;
	tf->lba_mid = (uint8_t)(lba >> 8);
	tf->lba_high = (uint8_t)(lba >> 16);
	if (how == LBA48) {
		hob->lba_low = (uint8_t)(lba >> 24);
		hob->lba_mid = (uint8_t)(lba >> 32);
		hob->lba_high = (uint8_t)(lba >> 40);
	} else {
		d->device = (uint8_t)((d->device & ~ATA_HEAD) | (lba >> 24 & ATA_HEAD));
	}
}

static enum addressing addressing(const struct ide_channel *ch)
{
	return ch->lba48 ? LBA48 : LBA28_OR_CHS;
}

static uint32_t get_count(const struct ide_drive *d, enum addressing how)
{
	uint32_t count = d->tf[IDE_CUR].count;

	if (how == LBA48) {
		count |= (uint32_t)d->tf[IDE_PREV].count << 8;
		return count ? count : 65536;
	}
	return count ? count : 256;
}

static void fail_at(struct ide_channel *ch, uint64_t lba, uint8_t error)
{
	set_lba(ide_active(ch), addressing(ch), lba);
	ide_fail(ch, error);
}

/* Takes the extent of the command from the registers; false when it was refused. */
static bool begin_extent(struct ide_channel *ch, enum addressing how)
{
	struct ide_drive *d = ide_active(ch);
	uint32_t count = get_count(d, how);
	uint64_t lba;

	ch->lba48 = how == LBA48;
	if (!get_lba(d, how, &lba)) {
		ide_fail(ch, ATA_IDNF);
		return false;
	}
	if (!range_in(lba, count, d->total_sectors)) {
		fail_at(ch, lba < d->total_sectors ? d->total_sectors : lba, ATA_IDNF);
		return false;
	}
	ch->lba = lba;
	ch->disk_pos = lba * IDE_SECTOR;
	ch->left = (uint64_t)count * IDE_SECTOR;
	return true;
}

/* After `bytes` more went through: the registers show the last sector and what remains. */
static void progress(struct ide_channel *ch, uint64_t bytes)
{
	struct ide_drive *d = ide_active(ch);

	ch->lba += bytes / IDE_SECTOR;
	ch->left -= bytes;
	set_lba(d, addressing(ch), ch->lba - 1);
	d->tf[IDE_CUR].count = (uint8_t)(ch->left / IDE_SECTOR);
	if (addressing(ch) == LBA48)
		d->tf[IDE_PREV].count = (uint8_t)(ch->left / IDE_SECTOR >> 8);
}

/* ---- reading and writing ---- */

static void offer_block(struct ide_channel *ch)
{
	uint32_t room = ch->filled - ch->pos;

	ch->block_end = ch->pos + (ch->block < room ? ch->block : room);
	ide_data_in(ch, true);
}

/* The next buffer full of READ or READ VERIFY. */
static void read_ahead(struct ide_channel *ch)
{
	ch->pos = ch->block_end = 0;
	ch->filled = ch->left < IDE_BUFFER ? (uint32_t)ch->left : IDE_BUFFER;
	ide_submit_buffer(ch, DRIVE_READ, ch->disk_pos, 0, ch->filled);
}

static void want_block(struct ide_channel *ch, bool interrupt)
{
	ch->pos = 0;
	ch->filled = ch->block_end = ch->left < ch->block ? (uint32_t)ch->left : ch->block;
	ide_data_out(ch, interrupt);
}

static void start_read(struct ide_channel *ch, enum addressing how, uint32_t block_sectors)
{
	ch->op = IDE_READ;
	ch->block = block_sectors * IDE_SECTOR;
	if (begin_extent(ch, how))
		read_ahead(ch);
}

static void start_write(struct ide_channel *ch, enum addressing how, uint32_t block_sectors)
{
	ch->op = IDE_WRITE;
	ch->block = block_sectors * IDE_SECTOR;
	if (!drive_writable(ide_active(ch)->drive)) {
		ide_fail(ch, ATA_ABRT);
		return;
	}
	if (begin_extent(ch, how))
		want_block(ch, false);
}

static void start_dma(struct ide_channel *ch, enum ide_op op, enum addressing how)
{
	ch->op = (uint8_t)op;
	ch->dma = true;
	if (op == IDE_WRITE && !drive_writable(ide_active(ch)->drive)) {
		ide_fail(ch, ATA_ABRT);
		return;
	}
	if (begin_extent(ch, how))
		ide_start_dma(ch);
}

static void start_verify(struct ide_channel *ch, enum addressing how)
{
	ch->op = IDE_VERIFY;
	if (begin_extent(ch, how))
		read_ahead(ch);
}

static void start_flush(struct ide_channel *ch)
{
	ch->op = IDE_FLUSH;
	ide_submit(ch, DRIVE_FLUSH, 0, 0, 0);
}

/* ---- TRIM ---- */

static void start_trim(struct ide_channel *ch)
{
	struct ide_drive *d = ide_active(ch);
	uint32_t blocks = get_count(d, LBA48);

	if (d->tf[IDE_CUR].feature != DSM_TRIM || blocks > DSM_MAX_BLOCKS ||
	    !drive_writable(d->drive)) {
		ide_fail(ch, ATA_ABRT);
		return;
	}
	ch->op = IDE_TRIM;
	ch->dma = true;
	ch->trim_next = 0;
	ch->pos = 0;
	ch->filled = blocks * IDE_SECTOR;
	ide_start_dma(ch);
}

/* Discards the next range that says something; the command ends after the last. */
static void trim_next(struct ide_channel *ch)
{
	struct ide_drive *d = ide_active(ch);

	while (ch->trim_next < ch->filled / DSM_RANGE) {
		uint64_t entry = load_le64(ch->buffer + (size_t)DSM_RANGE * ch->trim_next++);
		uint64_t lba = entry & UINT64_C(0xFFFFFFFFFFFF), count = entry >> 48;
		if (count == 0)
			continue;
		if (!range_in(lba, count, d->total_sectors)) {
			ide_fail(ch, ATA_ABRT);
			return;
		}
		ide_submit(ch, DRIVE_DISCARD, lba * IDE_SECTOR, count * IDE_SECTOR, 0);
		return;
	}
	ide_finish(ch, true);
}

/* ---- events ---- */

void ata_block_done(struct ide_channel *ch)
{
	struct ide_drive *d = ide_active(ch);

	switch (ch->op) {
	case IDE_READ:
		if (ch->dma) {
			ch->lba = ch->disk_pos / IDE_SECTOR;
			progress(ch, 0);
			ide_finish(ch, true);
			break;
		}
		progress(ch, ch->pos - (ch->pos - 1) / ch->block * ch->block);
		if (ch->left == 0)
			ide_finish(ch, false);
		else if (ch->pos < ch->filled)
			offer_block(ch);
		else
			read_ahead(ch);
		break;
	case IDE_WRITE:
		if (ch->dma) {
			ch->lba = ch->disk_pos / IDE_SECTOR;
			progress(ch, 0);
			ide_finish(ch, true);
			break;
		}
		ide_submit_buffer(ch, DRIVE_WRITE, ch->disk_pos, 0, ch->filled);
		break;
	case IDE_TRIM: trim_next(ch); break;
	default: /* IDE_BUFFER_IN */
		ide_finish(ch, false);
		d->tf[IDE_CUR].count = 0;
		break;
	}
}

void ata_disk_done(struct ide_channel *ch, int result)
{
	if (result < 0) {
		trace(TRACE_IDE, "%s.%u: disk error %d at sector %llu", ch->name, ch->active,
		      result, (unsigned long long)(ch->disk_pos / IDE_SECTOR));
		if (ch->op == IDE_READ || ch->op == IDE_VERIFY)
			fail_at(ch, ch->disk_pos / IDE_SECTOR, ATA_UNC);
		else if (ch->op == IDE_WRITE)
			fail_at(ch, ch->disk_pos / IDE_SECTOR, ATA_ABRT);
		else
			ide_fail(ch, ATA_ABRT);
		return;
	}
	switch (ch->op) {
	case IDE_READ:
		ch->disk_pos += ch->filled;
		offer_block(ch);
		break;
	case IDE_VERIFY:
		ch->disk_pos += ch->filled;
		progress(ch, ch->filled);
		if (ch->left)
			read_ahead(ch);
		else
			ide_finish(ch, true);
		break;
	case IDE_WRITE:
		ch->disk_pos += ch->filled;
		progress(ch, ch->filled);
		if (ch->left)
			want_block(ch, true);
		else
			ide_finish(ch, true);
		break;
	case IDE_TRIM: trim_next(ch); break;
	default: ide_finish(ch, true); break; /* IDE_FLUSH */
	}
}

/* ---- settings ---- */

static void default_settings(struct ide_drive *d)
{
	d->cylinders = (uint16_t)d->geometry.cylinders;
	d->heads = (uint8_t)d->geometry.heads;
	d->sectors = (uint8_t)d->geometry.sectors;
	d->multiple = IDE_MAX_MULTIPLE;
	d->write_cache = d->look_ahead = true;
	d->apm = 0;
}

void ata_reset(struct ide_drive *d, bool power_on)
{
	d->power = IDE_ACTIVE;
	if (power_on) {
		d->keep_settings = false;
		d->pio_mode = MAX_PIO;
		d->mdma_mode = MAX_MDMA;
		d->udma_mode = MAX_UDMA;
	}
	if (power_on || !d->keep_settings)
		default_settings(d);
}

bool ata_set_transfer_mode(struct ide_drive *d, uint8_t value)
{
	uint8_t mode = value & 7;

	switch (value >> 3) {
	case MODE_PIO_DEFAULT: return mode <= 1;
	case MODE_PIO:
		if (mode > MAX_PIO)
			return false;
		d->pio_mode = mode;
		return true;
	case MODE_MDMA:
		if (mode > MAX_MDMA)
			return false;
		d->mdma_mode = mode;
		d->udma_mode = UDMA_OFF;
		return true;
	case MODE_UDMA:
		if (mode > MAX_UDMA)
			return false;
		d->udma_mode = mode;
		return true;
	default: return false;
	}
}

static void set_features(struct ide_channel *ch, struct ide_drive *d)
{
	uint8_t value = d->tf[IDE_CUR].count;

	switch (d->tf[IDE_CUR].feature) {
	case FEATURE_WRITE_CACHE: d->write_cache = true; break;
	case FEATURE_NO_WRITE_CACHE:
		/* What the cache still holds must reach the disk now. */
		d->write_cache = false;
		start_flush(ch);
		return;
	case FEATURE_LOOK_AHEAD: d->look_ahead = true; break;
	case FEATURE_NO_LOOK_AHEAD: d->look_ahead = false; break;
	case FEATURE_KEEP_SETTINGS: d->keep_settings = true; break;
	case FEATURE_REVERT_SETTINGS: d->keep_settings = false; break;
	case FEATURE_APM:
		if (value == 0 || value == 0xFF) {
			ide_fail(ch, ATA_ABRT);
			return;
		}
		d->apm = value;
		break;
	case FEATURE_NO_APM: d->apm = 0; break;
	case FEATURE_TRANSFER_MODE:
		if (!ata_set_transfer_mode(d, value)) {
			ide_fail(ch, ATA_ABRT);
			return;
		}
		break;
	default: ide_fail(ch, ATA_ABRT); return;
	}
	ide_finish(ch, true);
}

static void init_parameters(struct ide_channel *ch, struct ide_drive *d)
{
	unsigned heads = (d->device & ATA_HEAD) + 1u, sectors = d->tf[IDE_CUR].count;

	if (sectors == 0) {
		ide_fail(ch, ATA_ABRT);
		return;
	}
	uint64_t cylinders = d->total_sectors / (heads * sectors);
	d->heads = (uint8_t)heads;
	d->sectors = (uint8_t)sectors;
	d->cylinders = (uint16_t)(cylinders < UINT16_MAX ? cylinders : UINT16_MAX);
	ide_finish(ch, true);
}

static void set_multiple(struct ide_channel *ch, struct ide_drive *d)
{
	uint8_t count = d->tf[IDE_CUR].count;

	if (count > IDE_MAX_MULTIPLE || (count && !is_power_of_2(count))) {
		ide_fail(ch, ATA_ABRT);
		return;
	}
	d->multiple = count;
	ide_finish(ch, true);
}

static void read_native_max(struct ide_channel *ch, struct ide_drive *d, enum addressing how)
{
	uint64_t last = d->total_sectors ? d->total_sectors - 1 : 0;

	if (how == LBA28_OR_CHS && !(d->device & ATA_LBA)) {
		/* The answer is an address in the form that was asked for. */
		uint64_t chs = (uint64_t)d->cylinders * d->heads * d->sectors;
		last = last < chs || chs == 0 ? last : chs - 1;
	} else if (how == LBA28_OR_CHS && last > LBA28_MAX) {
		last = LBA28_MAX;
	}
	set_lba(d, how, last);
	ide_finish(ch, true);
}

static void seek(struct ide_channel *ch, struct ide_drive *d)
{
	uint64_t lba;

	if (!get_lba(d, LBA28_OR_CHS, &lba) || lba >= d->total_sectors)
		ide_fail(ch, ATA_IDNF);
	else
		ide_finish(ch, true);
}

static void identify(struct ide_channel *ch, struct ide_drive *d)
{
	ata_identify(d, ch->buffer);
	ch->op = IDE_BUFFER_IN;
	ch->pos = 0;
	ch->filled = ch->block_end = IDE_SECTOR;
	ide_data_in(ch, true);
}

static void power(struct ide_channel *ch, struct ide_drive *d, enum ide_power mode)
{
	bool flush = mode == IDE_STANDBY || mode == IDE_SLEEP;

	d->power = (uint8_t)mode;
	if (flush)
		start_flush(ch);
	else
		ide_finish(ch, true);
}

static void multiple(struct ide_channel *ch, struct ide_drive *d, bool write, enum addressing how)
{
	if (d->multiple == 0)
		ide_fail(ch, ATA_ABRT);
	else if (write)
		start_write(ch, how, d->multiple);
	else
		start_read(ch, how, d->multiple);
}

/* Commands that move the heads bring a resting drive back to work. */
static void wake(struct ide_drive *d, uint8_t command)
{
	if (command < CMD_STANDBY_IMMEDIATE && command != CMD_CHECK_POWER_OLD)
		d->power = IDE_ACTIVE;
}

void ata_command(struct ide_channel *ch, struct ide_drive *d, uint8_t command)
{
	if (d->power == IDE_SLEEP) /* only a reset wakes it */
		return;
	wake(d, command);
	ch->forced_unit_access =
		command == CMD_WRITE_DMA_FUA_EXT || command == CMD_WRITE_MULTIPLE_FUA_EXT;
	switch (command) {
	case CMD_READ_SECTORS:
	case CMD_READ_SECTORS_NORETRY: start_read(ch, LBA28_OR_CHS, 1); break;
	case CMD_READ_SECTORS_EXT: start_read(ch, LBA48, 1); break;
	case CMD_READ_MULTIPLE: multiple(ch, d, false, LBA28_OR_CHS); break;
	case CMD_READ_MULTIPLE_EXT: multiple(ch, d, false, LBA48); break;
	case CMD_READ_DMA:
	case CMD_READ_DMA_NORETRY: start_dma(ch, IDE_READ, LBA28_OR_CHS); break;
	case CMD_READ_DMA_EXT: start_dma(ch, IDE_READ, LBA48); break;
	case CMD_WRITE_SECTORS:
	case CMD_WRITE_SECTORS_NORETRY:
	case CMD_WRITE_VERIFY: start_write(ch, LBA28_OR_CHS, 1); break;
	case CMD_WRITE_SECTORS_EXT: start_write(ch, LBA48, 1); break;
	case CMD_WRITE_MULTIPLE: multiple(ch, d, true, LBA28_OR_CHS); break;
	case CMD_WRITE_MULTIPLE_EXT:
	case CMD_WRITE_MULTIPLE_FUA_EXT: multiple(ch, d, true, LBA48); break;
	case CMD_WRITE_DMA:
	case CMD_WRITE_DMA_NORETRY: start_dma(ch, IDE_WRITE, LBA28_OR_CHS); break;
	case CMD_WRITE_DMA_EXT:
	case CMD_WRITE_DMA_FUA_EXT: start_dma(ch, IDE_WRITE, LBA48); break;
	case CMD_READ_VERIFY:
	case CMD_READ_VERIFY_NORETRY: start_verify(ch, LBA28_OR_CHS); break;
	case CMD_READ_VERIFY_EXT: start_verify(ch, LBA48); break;
	case CMD_DATA_SET_MANAGEMENT: start_trim(ch); break;
	case CMD_FLUSH:
	case CMD_FLUSH_EXT: start_flush(ch); break;
	case CMD_IDENTIFY: identify(ch, d); break;
	case CMD_SET_FEATURES: set_features(ch, d); break;
	case CMD_SET_MULTIPLE: set_multiple(ch, d); break;
	case CMD_INIT_PARAMETERS: init_parameters(ch, d); break;
	case CMD_READ_NATIVE_MAX: read_native_max(ch, d, LBA28_OR_CHS); break;
	case CMD_READ_NATIVE_MAX_EXT: read_native_max(ch, d, LBA48); break;
	case CMD_CHECK_POWER:
	case CMD_CHECK_POWER_OLD:
		d->tf[IDE_CUR].count = d->power;
		ide_finish(ch, true);
		break;
	case CMD_IDLE:
	case CMD_IDLE_OLD:
	case CMD_IDLE_IMMEDIATE:
	case CMD_IDLE_IMMEDIATE_OLD: power(ch, d, IDE_IDLE_MODE); break;
	case CMD_STANDBY:
	case CMD_STANDBY_OLD:
	case CMD_STANDBY_IMMEDIATE:
	case CMD_STANDBY_IMMEDIATE_OLD: power(ch, d, IDE_STANDBY); break;
	case CMD_SLEEP:
	case CMD_SLEEP_OLD: power(ch, d, IDE_SLEEP); break;
	default:
		if ((command & 0xF0) == CMD_SEEK)
			seek(ch, d);
		else if ((command & 0xF0) == CMD_RECALIBRATE)
			ide_finish(ch, true);
		else
			ide_fail(ch, ATA_ABRT);
		break;
	}
}
