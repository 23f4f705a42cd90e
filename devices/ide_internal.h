/* SPDX-License-Identifier: MIT */
/*
 * Inside the IDE controller: one channel (two drives that share a cable, a task file each, one data
 * buffer and one bus-master engine), and how the files that make it up call each other:
 *
 *   ide.c           registers, data port, interrupt, resets
 *   ide_bm.c        bus master: its registers, the PRD table, DMA transfers
 *   ide_ata.c       commands of disks
 *   ide_identify.c  IDENTIFY DEVICE, geometry
 *   atapi.c         the PACKET protocol of CD-ROM drives
 *   atapi_mmc.c     the commands inside packets
 *   cd_block.c      raw CD blocks
 *   piix3_ide.c     the PCI function that holds two channels
 *
 * A command in progress is described by the channel's `op` (what), `phase` (who moves next) and the
 * transfer fields; everything is plain data, so that it can be saved and restored in the middle.
 */
#ifndef DEVICES_IDE_INTERNAL_H
#define DEVICES_IDE_INTERNAL_H

#include "block/drive.h"
#include "core/device.h"
#include "core/iobus.h"
#include "core/irq.h"
#include "core/state.h"
#include "devices/ide.h"
#include "devices/pci.h"
#include "lib/bytes.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
	IDE_SECTOR = 512,
	IDE_BUFFER = 64 * 1024,
	IDE_MAX_MULTIPLE = 16, /* sectors; divides the buffer */
	IDE_IOV = 256,         /* pieces of one DMA request */
	IDE_CDB = 12,
	CD_BLOCK = 2048,
};

/* ATA/ATAPI-6, 7.15 (Status), 7.9 (Error), 7.8 (Device Control), 7.7 (Device). */
enum ata_status {
	ATA_ERR = 1 << 0, /* CHK for packet commands */
	ATA_DRQ = 1 << 3,
	ATA_DSC = 1 << 4,
	ATA_DF = 1 << 5,
	ATA_DRDY = 1 << 6,
	ATA_BSY = 1 << 7,
};
enum ata_error { ATA_ABRT = 1 << 2, ATA_IDNF = 1 << 4, ATA_UNC = 1 << 6, ATA_DIAG_PASSED = 1 };
enum ata_control { ATA_NIEN = 1 << 1, ATA_SRST = 1 << 2, ATA_HOB = 1 << 7 };
enum ata_device { ATA_HEAD = 0x0F, ATA_DEV = 1 << 4, ATA_LBA = 1 << 6, ATA_OBSOLETE = 0xA0 };

/* What the channel does. */
enum ide_op {
	IDE_NONE,
	IDE_BUFFER_IN, /* the buffer's contents to the host, nothing else (IDENTIFY) */
	IDE_READ,
	IDE_WRITE,
	IDE_VERIFY,
	IDE_FLUSH,
	IDE_TRIM,    /* ranges come in, then are discarded one by one */
	IDE_CDB_OUT, /* the packet comes in */
	IDE_REPLY,   /* the buffer's contents answer a packet */
	IDE_CD_READ, /* user data of CD blocks */
	IDE_CD_RAW,  /* CD blocks dressed up with header and error correction */
	IDE_PARAMS,  /* parameter data of a packet comes in */
	IDE_OPS
};

/* Whose move it is. */
enum ide_phase {
	IDE_IDLE,     /* the host's: a command */
	IDE_DATA_IN,  /* the host's: reads buffer[pos, block_end) from the data port */
	IDE_DATA_OUT, /* the host's: writes it */
	IDE_DMA,      /* the bus master's */
	IDE_DISK,     /* the disk queue's */
	IDE_PHASES
};

/* The registers that go from host to drive and back; two generations for 48-bit commands. */
struct ide_task_file {
	uint8_t feature, count, lba_low, lba_mid, lba_high;
};

enum { IDE_CUR = 0, IDE_PREV = 1 };

struct ide_drive {
	struct ide_task_file tf[2]; /* IDE_CUR, IDE_PREV */
	uint8_t device, error, status;
	bool intrq; /* wants to interrupt; cleared by reading Status */

	/* ATA: what commands set up */
	uint16_t cylinders; /* current logical geometry */
	uint8_t heads, sectors;
	uint8_t multiple; /* sectors a DRQ block of READ/WRITE MULTIPLE; 0: disabled */
	bool write_cache, look_ahead, keep_settings;
	uint8_t apm;                            /* 0: disabled */
	uint8_t pio_mode, mdma_mode, udma_mode; /* UDMA 0xFF: multiword DMA is selected */
	uint8_t power;                          /* enum ide_power */

	/* ATAPI */
	uint8_t sense_key, asc, ascq;
	bool attention; /* the medium changed and the host was not told yet */
	bool prevent;   /* removal is prevented */
	bool tray_open;
	uint8_t event; /* media event for GET EVENT STATUS NOTIFICATION */

	/* host side */
	struct drive *drive; /* NULL: nobody there */
	struct ide_channel *channel;
	bool atapi;
	uint8_t unit; /* 0 or 1 */
	uint64_t total_sectors;
	struct ide_geometry geometry; /* default */
	bool tray_kept;               /* tray_open, which a reset does not change */
	char serial[21];
};

enum ide_power { IDE_ACTIVE = 0xFF, IDE_IDLE_MODE = 0x80, IDE_STANDBY = 0x00, IDE_SLEEP = 0x01 };

/* Programming Interface for Bus Master IDE Controller 1.0, chapter 2. */
struct ide_bus_master {
	uint8_t command, status;
	uint32_t table; /* address of the PRD table */
	/* where the engine stands */
	uint32_t next;    /* address of the next descriptor */
	uint32_t address; /* and what is left of the present one */
	uint32_t left;
	bool last; /* the present one is the last */
};

struct ide_channel {
	/* guest-visible */
	uint8_t selected; /* 0 or 1 */
	uint8_t control;
	struct ide_drive drive[2];
	struct ide_bus_master bm;
	/* the command in progress */
	uint8_t active; /* the drive it belongs to */
	uint8_t op, phase;
	bool dma;
	uint32_t pos, block_end; /* DRQ block within the buffer */
	uint32_t filled;         /* valid or wanted bytes of the buffer */
	uint32_t block;          /* size of a DRQ block: bytes */
	uint64_t left;           /* bytes still to go to or come from the host */
	uint64_t disk_pos;       /* byte on the medium where the next request starts */
	uint64_t lba;            /* sector after the last one moved, for the task file */
	bool lba48;              /* the task file holds a 48-bit address */
	uint8_t fields;          /* IDE_CD_RAW: which parts of a block (atapi_mmc.c) */
	uint16_t trim_next;      /* IDE_TRIM: the next range in the buffer */
	bool forced_unit_access;
	uint8_t cdb[IDE_CDB];
	uint8_t buffer[IDE_BUFFER];

	/* host side */
	const char *name;
	struct irq_line irq;
	bool irq_level;
	struct pci_device *pci; /* for bus mastering */
	struct memory *mem;
	struct iobus *io;
	struct io_range *command_range, *control_range;
	struct drive_request request;
	bool in_flight;
	bool aborting;  /* a reset came while it was in flight: finish it, then reset */
	bool reset_one; /* that reset is for the active drive only (DEVICE RESET) */
	struct iovec iov[IDE_IOV];
	struct {
		uint64_t gpa;
		size_t len;
	} wrote[IDE_IOV]; /* guest memory behind the iovec of a DMA read */
	int iovcnt;
	size_t request_len;
	bool dma_running; /* ide_dma_run() is at work: whoever wants more is served by its loop */
};

/* ---- ide.c ---- */

/* Sets up a channel at `base` (8 ports) and `control_port`. drives[2] may hold NULL. */
void ide_channel_init(struct ide_channel *ch, const struct device_env *env, const char *name,
		      uint16_t base, uint16_t control_port, const struct irq_line *irq,
		      struct pci_device *pci, struct drive *const drives[2]);
void ide_channel_fini(struct ide_channel *ch);
/* Power-on reset of the channel and its drives; waits for requests in flight. */
void ide_channel_reset(struct ide_channel *ch);
int ide_channel_post_load(struct ide_channel *ch, struct error *err);
void ide_channel_drain(struct ide_channel *ch);
extern const struct state_field ide_channel_fields[];

static inline struct ide_drive *ide_active(struct ide_channel *ch)
{
	return &ch->drive[ch->active];
}

/* The drive asks for attention. */
void ide_interrupt(struct ide_drive *d);
/* The command is over; status becomes DRDY | DSC. */
void ide_finish(struct ide_channel *ch, bool interrupt);
/* The command is over with an error. */
void ide_fail(struct ide_channel *ch, uint8_t error);
/* Offers buffer[pos, block_end) to the host, or asks for it. */
void ide_data_in(struct ide_channel *ch, bool interrupt);
void ide_data_out(struct ide_channel *ch, bool interrupt);
/* BSY, and the bus master starts or goes on as soon as it can. */
void ide_start_dma(struct ide_channel *ch);
/* Sends a disk request; ch->iov describes the memory for READ and WRITE. */
void ide_submit(struct ide_channel *ch, enum drive_op op, uint64_t offset, uint64_t len,
		int iovcnt);
/* The same for buffer[offset_in_buffer, +len). */
void ide_submit_buffer(struct ide_channel *ch, enum drive_op op, uint64_t offset,
		       uint32_t offset_in_buffer, uint32_t len);
/* Puts a drive's registers to what they are after a reset (signature). */
void ide_signature(struct ide_drive *d);

/* ---- ide_bm.c ---- */

enum { BM_SIZE = 8 }; /* registers of one channel */
uint8_t ide_bm_read(struct ide_channel *ch, unsigned reg);
void ide_bm_write(struct ide_channel *ch, unsigned reg, uint8_t value);
/* The drive's interrupt line went up. */
void ide_bm_interrupt(struct ide_channel *ch);
/* Moves on if the channel is in its DMA phase and the engine is started. */
void ide_dma_run(struct ide_channel *ch);
/* Requests to guest memory have written there, even those that failed or that nobody waits for any
 * more: says so to dirty logs and translated code. */
void ide_dma_tell_wrote(struct ide_channel *ch);
/* The request of a DMA transfer has finished: true if it was one and it is dealt with. */
bool ide_dma_done(struct ide_channel *ch);

/* ---- ide_ata.c ---- */

void ata_reset(struct ide_drive *d, bool power_on);
void ata_command(struct ide_channel *ch, struct ide_drive *d, uint8_t command);
/* A DRQ block (or the whole DMA transfer) is through. */
void ata_block_done(struct ide_channel *ch);
void ata_disk_done(struct ide_channel *ch, int result);
/* SET FEATURES, subcommand 03h; false for a mode that is not offered. */
bool ata_set_transfer_mode(struct ide_drive *d, uint8_t value);

/* ---- ide_identify.c ---- */

void ata_identify(const struct ide_drive *d, uint8_t page[IDE_SECTOR]);
void atapi_identify(const struct ide_drive *d, uint8_t page[IDE_SECTOR]);

/* ---- atapi.c ---- */

void atapi_init(struct ide_drive *d);
void atapi_reset(struct ide_drive *d, bool power_on);
void atapi_command(struct ide_channel *ch, struct ide_drive *d, uint8_t command);
void atapi_block_done(struct ide_channel *ch);
void atapi_disk_done(struct ide_channel *ch, int result);
/* PCI memory error during DMA. */
void atapi_dma_failed(struct ide_channel *ch);

/* How a packet command ends. */
void atapi_good(struct ide_channel *ch);
/* `sense` is key << 16 | asc << 8 | ascq. */
void atapi_check(struct ide_channel *ch, uint32_t sense);
/* The first `len` bytes of the buffer, at most `allocated`, are the answer. */
void atapi_reply(struct ide_channel *ch, uint32_t len, uint32_t allocated);
/* `blocks` blocks from `lba`, within the medium; `fields` are enum cd_field. */
void atapi_read_blocks(struct ide_channel *ch, uint32_t lba, uint32_t blocks, uint8_t fields);
/* Opens or closes the tray. */
void atapi_move_tray(struct ide_drive *d, bool open);
/* Asks for `len` bytes of parameters, then calls mmc_params(). */
void atapi_params(struct ide_channel *ch, uint32_t len);

/* A medium is there and the tray is closed. */
static inline bool atapi_ready(const struct ide_drive *d)
{
	return !d->tray_open && drive_inserted(d->drive);
}

enum media_event { EVENT_NONE, EVENT_EJECT_REQUEST, EVENT_NEW_MEDIA, EVENT_REMOVAL };

/* ---- atapi_mmc.c ---- */

/* Runs the command in ch->cdb. */
void mmc_command(struct ide_channel *ch);
/* The parameter data has arrived: buffer[0, filled). */
void mmc_params(struct ide_channel *ch);
/* The blocks of the medium. */
uint32_t mmc_blocks(const struct ide_drive *d);

/* ---- cd_block.c ---- */

/* Parts of a mode 1 block, READ CD byte 9 (MMC-3, 6.14.2.5). */
enum cd_field {
	CD_EDC_ECC = 1 << 3,
	CD_USER_DATA = 1 << 4,
	CD_HEADER = 1 << 5,
	CD_SUBHEADER = 1 << 6, /* mode 1 has none */
	CD_SYNC = 1 << 7,
	CD_FIELDS = CD_EDC_ECC | CD_USER_DATA | CD_HEADER | CD_SUBHEADER | CD_SYNC,
};
enum { CD_RAW_BLOCK = 2352, CD_FRAMES = 75, CD_SECONDS = 60, CD_PREGAP = 150 };

/* Bytes of one block with these fields, and where its user data begins (-1: it has none). */
uint32_t cd_block_size(uint8_t fields);
int cd_block_user_offset(uint8_t fields);
/* Fills in everything but the user data, which is in place, of block `lba`. */
void cd_block_dress(uint8_t *block, uint32_t lba, uint8_t fields);
/* Minute, second, frame of a block, binary. */
void cd_msf(uint32_t lba, uint8_t msf[3]);

/* Sense codes (SPC-2, 7.20; MMC-3, annex F): key << 16 | asc << 8 | ascq. */
enum {
	SENSE_NONE = 0,
	SENSE_NO_MEDIUM = 0x023A00,
	SENSE_NO_MEDIUM_TRAY_OPEN = 0x023A02,
	SENSE_READ_ERROR = 0x031100,
	SENSE_HARDWARE_ERROR = 0x044400,
	SENSE_INVALID_OPCODE = 0x052000,
	SENSE_LBA_OUT_OF_RANGE = 0x052100,
	SENSE_INVALID_FIELD_IN_CDB = 0x052400,
	SENSE_PARAMETER_LIST_LENGTH = 0x051A00,
	SENSE_INVALID_FIELD_IN_PARAMETERS = 0x052600,
	SENSE_INCOMPATIBLE_FORMAT = 0x053002,
	SENSE_SAVING_NOT_SUPPORTED = 0x053900,
	SENSE_REMOVAL_PREVENTED = 0x055302,
	SENSE_ILLEGAL_MODE_FOR_TRACK = 0x056400,
	SENSE_MEDIUM_CHANGED = 0x062800,
};

#endif
