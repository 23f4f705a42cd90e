/* SPDX-License-Identifier: MIT */
/*
 * What a CD/DVD-ROM drive does with the command in a packet.
 *
 *   00 TEST UNIT READY       03 REQUEST SENSE           12 INQUIRY (pages 00, 80)
 *   15 55 MODE SELECT        1A 5A MODE SENSE           1B START STOP UNIT
 *   1E PREVENT ALLOW         25 READ CAPACITY           28 A8 READ (10, 12)
 *   2B SEEK                  42 READ SUB-CHANNEL        43 READ TOC (formats 0, 1, 2)
 *   46 GET CONFIGURATION     4A GET EVENT STATUS        51 READ DISC INFORMATION
 *   52 READ TRACK INFORMATION  AD READ DVD STRUCTURE    B9 BE READ CD (MSF)
 *   BB SET CD SPEED          BD MECHANISM STATUS
 *
 * The medium is one data track of 2048-byte blocks; from CD_MAX_BLOCKS on it counts as a DVD. Every
 * command but those marked ANYTIME first reports a medium change that the host was not told about;
 * those marked MEDIUM fail while there is none.
 *
 * Documents: MMC-3 (T10/1363-D), SPC-2 (T10/1236-D), INF-8090i (Mt. Fuji) for DVD structures.
 * Left out: audio tracks and their playing, writing, sub-channel data with READ CD.
 */
#include "devices/ide_internal.h"
#include "lib/log.h"
#include <stdio.h>
#include <string.h>

enum mmc_code {
	MMC_TEST_UNIT_READY = 0x00,
	MMC_REQUEST_SENSE = 0x03,
	MMC_INQUIRY = 0x12,
	MMC_MODE_SELECT_6 = 0x15,
	MMC_MODE_SENSE_6 = 0x1A,
	MMC_START_STOP = 0x1B,
	MMC_PREVENT_ALLOW = 0x1E,
	MMC_READ_CAPACITY = 0x25,
	MMC_READ_10 = 0x28,
	MMC_SEEK_10 = 0x2B,
	MMC_READ_SUBCHANNEL = 0x42,
	MMC_READ_TOC = 0x43,
	MMC_GET_CONFIGURATION = 0x46,
	MMC_GET_EVENT_STATUS = 0x4A,
	MMC_READ_DISC_INFO = 0x51,
	MMC_READ_TRACK_INFO = 0x52,
	MMC_MODE_SELECT_10 = 0x55,
	MMC_MODE_SENSE_10 = 0x5A,
	MMC_READ_12 = 0xA8,
	MMC_READ_DVD_STRUCTURE = 0xAD,
	MMC_READ_CD_MSF = 0xB9,
	MMC_SET_SPEED = 0xBB,
	MMC_MECHANISM_STATUS = 0xBD,
	MMC_READ_CD = 0xBE,
};

enum { CD_MAX_BLOCKS = 80 * CD_SECONDS * CD_FRAMES, LEAD_OUT = 0xAA, DATA_TRACK = 0x14 };
enum { PROFILE_NONE = 0, PROFILE_CD_ROM = 0x0008, PROFILE_DVD_ROM = 0x0010 };

uint32_t mmc_blocks(const struct ide_drive *d)
{
	uint64_t blocks = atapi_ready(d) ? drive_size(d->drive) / CD_BLOCK : 0;
	return blocks < INT32_MAX ? (uint32_t)blocks : INT32_MAX;
}

static unsigned profile(const struct ide_drive *d)
{
	if (!atapi_ready(d))
		return PROFILE_NONE;
	return mmc_blocks(d) > CD_MAX_BLOCKS ? PROFILE_DVD_ROM : PROFILE_CD_ROM;
}

static uint32_t no_medium(const struct ide_drive *d)
{
	return d->tray_open ? SENSE_NO_MEDIUM_TRAY_OPEN : SENSE_NO_MEDIUM;
}

/* An all-zero buffer of `len` bytes to put a reply into. */
static uint8_t *reply_buffer(struct ide_channel *ch, uint32_t len)
{
	memset(ch->buffer, 0, len);
	return ch->buffer;
}

static void invalid_field(struct ide_channel *ch)
{
	atapi_check(ch, SENSE_INVALID_FIELD_IN_CDB);
}

/* ---- status ---- */

static void test_unit_ready(struct ide_channel *ch, struct ide_drive *d)
{
	atapi_good(ch);
}

static void request_sense(struct ide_channel *ch, struct ide_drive *d)
{
	enum { FIXED_CURRENT = 0x70, LEN = 18 };
	uint8_t *b = reply_buffer(ch, LEN);

	/* Sense of the command before; else what the next one would report. */
	if (d->sense_key == 0 && d->attention) {
		d->sense_key = (uint8_t)(SENSE_MEDIUM_CHANGED >> 16);
		d->asc = (uint8_t)(SENSE_MEDIUM_CHANGED >> 8 & 0xFF);
		d->attention = false;
	}
	b[0] = FIXED_CURRENT;
	b[2] = d->sense_key;
	b[7] = LEN - 8;
	b[12] = d->asc;
	b[13] = d->ascq;
	d->sense_key = d->asc = d->ascq = 0;
	atapi_reply(ch, LEN, ch->cdb[4]);
}

static void inquiry(struct ide_channel *ch, struct ide_drive *d)
{
	enum { EVPD = 1, CD_DEVICE = 5, REMOVABLE = 0x80, ATAPI_FORMAT = 0x21, LEN = 36 };
	uint32_t allocated = load_be16(ch->cdb + 3);
	uint8_t *b = reply_buffer(ch, 64);

	b[0] = CD_DEVICE;
	if (ch->cdb[1] & EVPD) {
		switch (ch->cdb[2]) {
		case 0x00: /* the pages there are */
			b[3] = 2;
			b[5] = 0x80;
			atapi_reply(ch, 6, allocated);
			return;
		case 0x80: /* unit serial number */
			b[1] = 0x80;
			b[3] = (uint8_t)strlen(d->serial);
			memcpy(b + 4, d->serial, b[3]);
			atapi_reply(ch, 4u + b[3], allocated);
			return;
		default: invalid_field(ch); return;
		}
	}
	if (ch->cdb[2]) {
		invalid_field(ch);
		return;
	}
	b[1] = REMOVABLE;
	b[3] = ATAPI_FORMAT;
	b[4] = LEN - 5;
	memcpy(b + 8, "MINIVM  MINIVM DVD-ROM                  ", LEN - 8);
	memcpy(b + 32, MINIVM_VERSION "    ", 4);
	atapi_reply(ch, LEN, allocated);
}

static void get_event_status(struct ide_channel *ch, struct ide_drive *d)
{
	enum { POLLED = 1, MEDIA_CLASS = 4, HEADER = 4, LEN = 8, NO_EVENT_AVAILABLE = 0x80 };
	enum { TRAY_OPEN = 1, MEDIA_PRESENT = 2 };
	uint32_t allocated = load_be16(ch->cdb + 7);
	uint8_t *b = reply_buffer(ch, LEN);

	if (!(ch->cdb[1] & POLLED)) { /* asynchronous notification needs queuing */
		invalid_field(ch);
		return;
	}
	b[3] = 1 << MEDIA_CLASS;
	if (!(ch->cdb[4] & 1 << MEDIA_CLASS)) {
		b[1] = HEADER - 2;
		b[2] = NO_EVENT_AVAILABLE;
		atapi_reply(ch, HEADER, allocated);
		return;
	}
	b[1] = LEN - 2;
	b[2] = MEDIA_CLASS;
	b[4] = d->event;
	b[5] = (d->tray_open ? TRAY_OPEN : 0) | (atapi_ready(d) ? MEDIA_PRESENT : 0);
	if (allocated > HEADER) /* the event was really delivered */
		d->event = EVENT_NONE;
	atapi_reply(ch, LEN, allocated);
}

static void mechanism_status(struct ide_channel *ch, struct ide_drive *d)
{
	enum { LEN = 8, DOOR_OPEN = 1 << 4 };
	uint8_t *b = reply_buffer(ch, LEN);

	b[1] = d->tray_open ? DOOR_OPEN : 0;
	atapi_reply(ch, LEN, load_be16(ch->cdb + 8));
}

/* ---- tray ---- */

static void start_stop(struct ide_channel *ch, struct ide_drive *d)
{
	enum { START = 1, LOAD_EJECT = 2 };
	unsigned power_condition = ch->cdb[4] >> 4;

	if (power_condition == 0 && (ch->cdb[4] & LOAD_EJECT)) {
		bool open = !(ch->cdb[4] & START);
		if (open && d->prevent && !d->tray_open) {
			atapi_check(ch, SENSE_REMOVAL_PREVENTED);
			return;
		}
		atapi_move_tray(d, open);
	}
	atapi_good(ch);
}

static void prevent_allow(struct ide_channel *ch, struct ide_drive *d)
{
	d->prevent = ch->cdb[4] & 1;
	atapi_good(ch);
}

/* ---- reading ---- */

static void read_extent(struct ide_channel *ch, struct ide_drive *d, uint32_t lba, uint32_t blocks,
			uint8_t fields)
{
	if (!range_in(lba, blocks, mmc_blocks(d))) {
		atapi_check(ch, SENSE_LBA_OUT_OF_RANGE);
		return;
	}
	atapi_read_blocks(ch, lba, blocks, fields);
}

static void read_10(struct ide_channel *ch, struct ide_drive *d)
{
	read_extent(ch, d, load_be32(ch->cdb + 2), load_be16(ch->cdb + 7), CD_USER_DATA);
}

static void read_12(struct ide_channel *ch, struct ide_drive *d)
{
	read_extent(ch, d, load_be32(ch->cdb + 2), load_be32(ch->cdb + 6), CD_USER_DATA);
}

/* The part that READ CD and READ CD MSF share. */
static void read_cd_extent(struct ide_channel *ch, struct ide_drive *d, uint32_t lba,
			   uint32_t blocks)
{
	enum { TYPE_ANY = 0, TYPE_MODE_1 = 2, C2_ERRORS = 3 << 1, SUBCHANNEL = 7 };
	unsigned type = ch->cdb[1] >> 2 & 7;
	uint8_t fields = ch->cdb[9] & CD_FIELDS & ~CD_SUBHEADER;

	if ((ch->cdb[9] & C2_ERRORS) || (ch->cdb[10] & SUBCHANNEL) ||
	    ((fields & CD_EDC_ECC) && !(fields & CD_USER_DATA))) {
		invalid_field(ch);
		return;
	}
	if (type != TYPE_ANY && type != TYPE_MODE_1) {
		atapi_check(ch, SENSE_ILLEGAL_MODE_FOR_TRACK);
		return;
	}
	read_extent(ch, d, lba, blocks, fields);
}

static void read_cd(struct ide_channel *ch, struct ide_drive *d)
{
	read_cd_extent(ch, d, load_be32(ch->cdb + 2), load_be32(ch->cdb + 5) & 0xFFFFFF);
}

/* False for what is no address of a block. */
static bool from_msf(const uint8_t *msf, uint32_t *lba)
{
	uint32_t frame = (msf[0] * CD_SECONDS + msf[1]) * CD_FRAMES + msf[2];

	*lba = frame - CD_PREGAP;
	return msf[1] < CD_SECONDS && msf[2] < CD_FRAMES && frame >= CD_PREGAP;
}

static void read_cd_msf(struct ide_channel *ch, struct ide_drive *d)
{
	uint32_t first, end;

	if (!from_msf(ch->cdb + 3, &first) || !from_msf(ch->cdb + 6, &end) || end < first) {
		invalid_field(ch);
		return;
	}
	read_cd_extent(ch, d, first, end - first);
}

static void seek_10(struct ide_channel *ch, struct ide_drive *d)
{
	if (load_be32(ch->cdb + 2) >= mmc_blocks(d))
		atapi_check(ch, SENSE_LBA_OUT_OF_RANGE);
	else
		atapi_good(ch);
}

static void read_capacity(struct ide_channel *ch, struct ide_drive *d)
{
	enum { LEN = 8 };
	uint8_t *b = reply_buffer(ch, LEN);
	uint32_t blocks = mmc_blocks(d);

	store_be32(b, blocks ? blocks - 1 : 0);
	store_be32(b + 4, CD_BLOCK);
	atapi_reply(ch, LEN, LEN);
}

/* ---- what is on the disc ---- */

/* An address as TOCs show it: four bytes, LBA or 0-minute-second-frame. */
static void put_address(uint8_t *b, uint32_t lba, bool msf)
{
	if (msf) {
		b[0] = 0;
		cd_msf(lba, b + 1);
	} else {
		store_be32(b, lba);
	}
}

static void put_toc_track(uint8_t *b, uint8_t track, uint32_t lba, bool msf)
{
	b[1] = DATA_TRACK;
	b[2] = track;
	put_address(b + 4, lba, msf);
}

/* Format 2 has all times as minute, second, frame, whatever the MSF bit says. */
static uint32_t put_raw_toc(uint8_t *b, uint32_t blocks)
{
	enum { FIRST_TRACK = 0xA0, LAST_TRACK = 0xA1, LEAD_OUT_START = 0xA2, ENTRY = 11 };
	static const uint8_t points[] = {FIRST_TRACK, LAST_TRACK, LEAD_OUT_START, 1};

	for (size_t i = 0; i < sizeof(points); i++, b += ENTRY) {
		b[0] = 1; /* session */
		b[1] = DATA_TRACK;
		b[3] = points[i];
		if (points[i] == LEAD_OUT_START)
			cd_msf(blocks, b + 8);
		else if (points[i] == 1)
			cd_msf(0, b + 8);
		else
			b[8] = 1; /* number of the first and last track */
	}
	return sizeof(points) * ENTRY;
}

static void read_toc(struct ide_channel *ch, struct ide_drive *d)
{
	enum { MSF = 2, HEADER = 4, TRACK = 8 };
	bool msf = ch->cdb[1] & MSF;
	/* The format stands in byte 2; ATAPI 1.2 drives had it in the top of byte 9. */
	unsigned format = ch->cdb[2] & 15 ? ch->cdb[2] & 15u : ch->cdb[9] >> 6;
	uint8_t start = ch->cdb[6];
	uint8_t *b = reply_buffer(ch, 64);
	uint32_t blocks = mmc_blocks(d), len = HEADER;

	b[2] = b[3] = 1; /* first and last track or session */
	switch (format) {
	case 0:
		if (start > 1 && start != LEAD_OUT) {
			invalid_field(ch);
			return;
		}
		if (start <= 1) {
			put_toc_track(b + len, 1, 0, msf);
			len += TRACK;
		}
		put_toc_track(b + len, LEAD_OUT, blocks, msf);
		len += TRACK;
		break;
	case 1:
		put_toc_track(b + len, 1, 0, msf);
		len += TRACK;
		break;
	case 2: len += put_raw_toc(b + len, blocks); break;
	default: invalid_field(ch); return;
	}
	store_be16(b, (uint16_t)(len - 2));
	atapi_reply(ch, len, load_be16(ch->cdb + 7));
}

static void read_subchannel(struct ide_channel *ch, struct ide_drive *d)
{
	enum { SUBQ = 0x40, MSF = 2, HEADER = 4, NO_AUDIO_STATUS = 0x15 };
	enum { POSITION = 1, CATALOG = 2, ISRC = 3 };
	uint32_t len = HEADER, allocated = load_be16(ch->cdb + 7);
	uint8_t *b = reply_buffer(ch, 24), format = ch->cdb[3];
	bool msf = ch->cdb[1] & MSF;

	b[1] = NO_AUDIO_STATUS;
	if (ch->cdb[2] & SUBQ) {
		b[4] = format;
		switch (format) {
		case POSITION:
			b[5] = DATA_TRACK;
			b[6] = b[7] = 1; /* track and index */
			put_address(b + 8, 0, msf);
			len = 16;
			break;
		case CATALOG:
		case ISRC: len = 24; break; /* there is none: the valid bit stays clear */
		default: invalid_field(ch); return;
		}
		store_be16(b + 2, (uint16_t)(len - HEADER));
	}
	atapi_reply(ch, len, allocated);
}

static void read_disc_info(struct ide_channel *ch, struct ide_drive *d)
{
	enum { LEN = 34, COMPLETE = 2, LAST_SESSION_COMPLETE = 3 << 2, UNRESTRICTED = 1 << 5 };
	uint8_t *b = reply_buffer(ch, LEN);

	store_be16(b, LEN - 2);
	b[2] = COMPLETE | LAST_SESSION_COMPLETE;
	b[3] = b[4] = b[5] = b[6] = 1; /* first track, sessions, first and last track of the last */
	b[7] = UNRESTRICTED;
	memset(b + 16, 0xFF, 8); /* lead-in and last possible lead-out: does not apply */
	atapi_reply(ch, LEN, load_be16(ch->cdb + 7));
}

static void read_track_info(struct ide_channel *ch, struct ide_drive *d)
{
	enum { LEN = 28, BY_LBA = 0, BY_TRACK = 1, BY_SESSION = 2, DATA_CONTROL = 4, MODE_1 = 1 };
	uint8_t *b = reply_buffer(ch, LEN);
	uint32_t which = load_be32(ch->cdb + 2);
	unsigned type = ch->cdb[1] & 3;

	if ((type == BY_LBA && which >= mmc_blocks(d)) || (type != BY_LBA && which != 1) ||
	    type > BY_SESSION) {
		invalid_field(ch);
		return;
	}
	store_be16(b, LEN - 2);
	b[2] = b[3] = 1; /* track and session */
	b[5] = DATA_CONTROL;
	b[6] = MODE_1;
	store_be32(b + 24, mmc_blocks(d));
	atapi_reply(ch, LEN, load_be16(ch->cdb + 7));
}

static void read_dvd_structure(struct ide_channel *ch, struct ide_drive *d)
{
	enum { PHYSICAL = 0, COPYRIGHT = 1, MANUFACTURER = 4, HEADER = 4, PHYSICAL_LEN = 2048 };
	enum { DISC_120MM = 0x0F, ONE_LAYER_READ_ONLY = 1, FIRST_SECTOR = 0x30000 };
	uint32_t len;

	if (profile(d) != PROFILE_DVD_ROM) {
		atapi_check(ch, SENSE_INCOMPATIBLE_FORMAT);
		return;
	}
	uint8_t *b = reply_buffer(ch, HEADER + PHYSICAL_LEN);
	switch (ch->cdb[7]) {
	case PHYSICAL:
		if (ch->cdb[6]) { /* layer */
			invalid_field(ch);
			return;
		}
		b[4] = 1; /* DVD-ROM, part version 1 */
		b[5] = DISC_120MM;
		b[6] = ONE_LAYER_READ_ONLY;
		store_be32(b + 8, FIRST_SECTOR);
		store_be32(b + 12, FIRST_SECTOR + mmc_blocks(d) - 1);
		len = HEADER + PHYSICAL_LEN;
		break;
	case COPYRIGHT: len = HEADER + 4; break; /* no protection, all regions */
	case MANUFACTURER: len = HEADER + PHYSICAL_LEN; break;
	default: invalid_field(ch); return;
	}
	store_be16(b, (uint16_t)(len - 2));
	atapi_reply(ch, len, load_be16(ch->cdb + 8));
}

/* ---- features (MMC-3, 5.3) ---- */

enum { FEATURE_CURRENT = 1, FEATURE_PERSISTENT = 2 };

/* Appends a feature descriptor; returns where the next one goes. */
static uint8_t *put_feature(uint8_t *b, unsigned code, unsigned version, unsigned flags,
			    const uint8_t *data, uint8_t len)
{
	store_be16(b, (uint16_t)code);
	b[2] = (uint8_t)(version << 2 | flags);
	b[3] = len;
	memcpy(b + 4, data, len);
	return b + 4 + len;
}

static void get_configuration(struct ide_channel *ch, struct ide_drive *d)
{
	enum { ALL = 0, CURRENT = 1, ONE = 2, HEADER = 8 };
	unsigned now = profile(d), want = ch->cdb[1] & 3, start = load_be16(ch->cdb + 2);
	bool cd = now == PROFILE_CD_ROM, dvd = now == PROFILE_DVD_ROM;
	const uint8_t profiles[] = {PROFILE_DVD_ROM >> 8, PROFILE_DVD_ROM & 0xFF, dvd, 0,
				    PROFILE_CD_ROM >> 8,  PROFILE_CD_ROM & 0xFF,  cd,  0};
	static const uint8_t core[] = {0, 0, 0, 2 /* ATAPI */, 0, 0, 0, 0};
	static const uint8_t morphing[] = {0, 0, 0, 0};
	static const uint8_t removable[] = {0x29 /* tray, eject, lock */, 0, 0, 0};
	static const uint8_t random[] = {0, 0, CD_BLOCK >> 8, 0, 0, 1, 0, 0};
	static const uint8_t none[] = {0, 0, 0, 0};
	const struct {
		uint16_t code;
		uint8_t version, flags;
		const uint8_t *data;
		uint8_t len;
	} features[] = {
		{0x0000, 0, FEATURE_PERSISTENT | FEATURE_CURRENT, profiles, sizeof(profiles)},
		{0x0001, 1, FEATURE_PERSISTENT | FEATURE_CURRENT, core, sizeof(core)},
		{0x0002, 0, FEATURE_PERSISTENT | FEATURE_CURRENT, morphing, sizeof(morphing)},
		{0x0003, 0, FEATURE_PERSISTENT | FEATURE_CURRENT, removable, sizeof(removable)},
		{0x0010, 0, cd || dvd ? FEATURE_CURRENT : 0, random, sizeof(random)},
		{0x001E, 1, cd ? FEATURE_CURRENT : 0, none, sizeof(none)},
		{0x001F, 0, dvd ? FEATURE_CURRENT : 0, none, 0},
		{0x0105, 0, FEATURE_PERSISTENT | FEATURE_CURRENT, none, 0},
	};

	if (want > ONE) {
		invalid_field(ch);
		return;
	}
	uint8_t *b = reply_buffer(ch, 256), *end = b + HEADER;
	store_be16(b + 6, (uint16_t)now);
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		if (want == ONE ? features[i].code != start : features[i].code < start)
			continue;
		if (want == CURRENT && !(features[i].flags & FEATURE_CURRENT))
			continue;
		end = put_feature(end, features[i].code, features[i].version, features[i].flags,
				  features[i].data, features[i].len);
	}
	store_be32(b, (uint32_t)(end - b - 4));
	atapi_reply(ch, (uint32_t)(end - b), load_be16(ch->cdb + 7));
}

/* ---- mode pages (MMC-3, 6.8) ---- */

enum {
	PAGE_ERROR_RECOVERY = 0x01,
	PAGE_AUDIO = 0x0E,
	PAGE_CAPABILITIES = 0x2A,
	PAGE_ALL = 0x3F,
	MODE_HEADER_6 = 4,
	MODE_HEADER_10 = 8,
};

/* Appends a page. `changeable`: the mask of what MODE SELECT could change, which is nothing. */
static uint8_t *put_page(uint8_t *b, uint8_t code, const uint8_t *data, uint8_t len,
			 bool changeable)
{
	b[0] = code;
	b[1] = len;
	if (changeable)
		memset(b + 2, 0, len);
	else
		memcpy(b + 2, data, len);
	return b + 2 + len;
}

static uint8_t *put_capabilities(uint8_t *b, const struct ide_drive *d, bool changeable)
{
	enum { SPEED = 4 * 1412, BUFFER_KB = 512, LOCK = 1, LOCKED = 2, EJECT = 8, TRAY = 1 << 5 };
	uint8_t page[18] = {
		0x3B,       /* reads CD-R, CD-RW, method 2, DVD-ROM, DVD-R */
		0,    0x70, /* multi-session, mode 2 forms 1 and 2 */
		0x00, (uint8_t)(LOCK | (d->prevent ? LOCKED : 0) | EJECT | TRAY),
		0,
	};

	store_be16(page + 6, SPEED);
	store_be16(page + 10, BUFFER_KB);
	store_be16(page + 12, SPEED);
	return put_page(b, PAGE_CAPABILITIES, page, sizeof(page), changeable);
}

static void mode_sense(struct ide_channel *ch, struct ide_drive *d, uint32_t header,
		       uint32_t allocated)
{
	enum { CURRENT, CHANGEABLE, DEFAULT, SAVED };
	enum { DATA_DISC = 0x01, NO_DISC = 0x70, DOOR_OPEN = 0x71 };
	static const uint8_t recovery[6] = {0, 5 /* retries */};
	static const uint8_t audio[14] = {4 /* immediate */, 0, 0, 0, 0, 75, 1, 255, 2, 255};
	unsigned page = ch->cdb[2] & 0x3F, control = ch->cdb[2] >> 6;
	bool changeable = control == CHANGEABLE;
	uint8_t *b = reply_buffer(ch, 128), *end = b + header;

	if (control == SAVED) {
		atapi_check(ch, SENSE_SAVING_NOT_SUPPORTED);
		return;
	}
	if (page == PAGE_ERROR_RECOVERY || page == PAGE_ALL)
		end = put_page(end, PAGE_ERROR_RECOVERY, recovery, sizeof(recovery), changeable);
	if (page == PAGE_AUDIO || page == PAGE_ALL)
		end = put_page(end, PAGE_AUDIO, audio, sizeof(audio), changeable);
	if (page == PAGE_CAPABILITIES || page == PAGE_ALL)
		end = put_capabilities(end, d, changeable);
	if (end == b + header) {
		invalid_field(ch);
		return;
	}
	uint8_t medium = d->tray_open ? DOOR_OPEN : atapi_ready(d) ? DATA_DISC : NO_DISC;
	if (header == MODE_HEADER_10) {
		store_be16(b, (uint16_t)(end - b - 2));
		b[2] = medium;
	} else {
		b[0] = (uint8_t)(end - b - 1);
		b[1] = medium;
	}
	atapi_reply(ch, (uint32_t)(end - b), allocated);
}

static void mode_sense_6(struct ide_channel *ch, struct ide_drive *d)
{
	mode_sense(ch, d, MODE_HEADER_6, ch->cdb[4]);
}

static void mode_sense_10(struct ide_channel *ch, struct ide_drive *d)
{
	mode_sense(ch, d, MODE_HEADER_10, load_be16(ch->cdb + 7));
}

static uint32_t mode_select_header(const struct ide_channel *ch)
{
	return ch->cdb[0] == MMC_MODE_SELECT_6 ? MODE_HEADER_6 : MODE_HEADER_10;
}

static void mode_select(struct ide_channel *ch, struct ide_drive *d)
{
	enum { SAVE_PAGES = 1 };
	bool six = ch->cdb[0] == MMC_MODE_SELECT_6;
	uint32_t len = six ? ch->cdb[4] : load_be16(ch->cdb + 7);

	if (ch->cdb[1] & SAVE_PAGES)
		invalid_field(ch);
	else if (len == 0)
		atapi_good(ch);
	else if (len < mode_select_header(ch) || len > IDE_BUFFER)
		atapi_check(ch, SENSE_PARAMETER_LIST_LENGTH);
	else
		atapi_params(ch, len);
}

/* Nothing in the pages is changeable: known pages of the right length are taken, others refused. */
void mmc_params(struct ide_channel *ch)
{
	uint32_t at = mode_select_header(ch), len = ch->filled;
	uint32_t descriptors = at == MODE_HEADER_6 ? ch->buffer[3] : load_be16(ch->buffer + 6);

	at += descriptors;
	while (at < len) {
		static const uint8_t sizes[][2] = {
			{PAGE_ERROR_RECOVERY, 6}, {PAGE_AUDIO, 14}, {PAGE_CAPABILITIES, 18}};
		uint8_t code = ch->buffer[at] & 0x3F;
		bool known = false;
		if (len - at < 2) {
			atapi_check(ch, SENSE_PARAMETER_LIST_LENGTH);
			return;
		}
		uint8_t size = ch->buffer[at + 1];
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
			known |= sizes[i][0] == code && sizes[i][1] == size;
		if (!known) {
			atapi_check(ch, SENSE_INVALID_FIELD_IN_PARAMETERS);
			return;
		}
		at += 2u + size;
	}
	if (at != len)
		atapi_check(ch, SENSE_PARAMETER_LIST_LENGTH);
	else
		atapi_good(ch);
}

static void set_speed(struct ide_channel *ch, struct ide_drive *d)
{
	atapi_good(ch); /* the image is always faster */
}

/* ---- dispatch ---- */

enum { ANYTIME = 1, MEDIUM = 2 };

static const struct {
	uint8_t code, flags;
	void (*run)(struct ide_channel *ch, struct ide_drive *d);
} commands[] = {
	{MMC_TEST_UNIT_READY, MEDIUM, test_unit_ready},
	{MMC_REQUEST_SENSE, ANYTIME, request_sense},
	{MMC_INQUIRY, ANYTIME, inquiry},
	{MMC_MODE_SELECT_6, 0, mode_select},
	{MMC_MODE_SENSE_6, 0, mode_sense_6},
	{MMC_START_STOP, 0, start_stop},
	{MMC_PREVENT_ALLOW, 0, prevent_allow},
	{MMC_READ_CAPACITY, MEDIUM, read_capacity},
	{MMC_READ_10, MEDIUM, read_10},
	{MMC_SEEK_10, MEDIUM, seek_10},
	{MMC_READ_SUBCHANNEL, MEDIUM, read_subchannel},
	{MMC_READ_TOC, MEDIUM, read_toc},
	{MMC_GET_CONFIGURATION, ANYTIME, get_configuration},
	{MMC_GET_EVENT_STATUS, ANYTIME, get_event_status},
	{MMC_READ_DISC_INFO, MEDIUM, read_disc_info},
	{MMC_READ_TRACK_INFO, MEDIUM, read_track_info},
	{MMC_MODE_SELECT_10, 0, mode_select},
	{MMC_MODE_SENSE_10, 0, mode_sense_10},
	{MMC_READ_12, MEDIUM, read_12},
	{MMC_READ_DVD_STRUCTURE, MEDIUM, read_dvd_structure},
	{MMC_READ_CD_MSF, MEDIUM, read_cd_msf},
	{MMC_SET_SPEED, 0, set_speed},
	{MMC_MECHANISM_STATUS, ANYTIME, mechanism_status},
	{MMC_READ_CD, MEDIUM, read_cd},
};

void mmc_command(struct ide_channel *ch)
{
	struct ide_drive *d = ide_active(ch);

	trace(TRACE_IDE, "%s.%u: packet %02x %02x %02x%02x%02x%02x %02x%02x%02x %02x %02x %02x",
	      ch->name, d->unit, ch->cdb[0], ch->cdb[1], ch->cdb[2], ch->cdb[3], ch->cdb[4],
	      ch->cdb[5], ch->cdb[6], ch->cdb[7], ch->cdb[8], ch->cdb[9], ch->cdb[10], ch->cdb[11]);
	if (ch->cdb[0] != MMC_REQUEST_SENSE)
		d->sense_key = d->asc = d->ascq = 0;
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (commands[i].code != ch->cdb[0])
			continue;
		if (d->attention && !(commands[i].flags & ANYTIME)) {
			d->attention = false;
			atapi_check(ch, SENSE_MEDIUM_CHANGED);
		} else if ((commands[i].flags & MEDIUM) && !atapi_ready(d)) {
			atapi_check(ch, no_medium(d));
		} else {
			commands[i].run(ch, d);
		}
		return;
	}
	atapi_check(ch, SENSE_INVALID_OPCODE);
}
