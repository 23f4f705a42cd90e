/* SPDX-License-Identifier: MIT */
/* The CD-ROM drive as a driver sees it: packets by PIO and DMA, replies, media, sense. */
#include "devices/ide_internal.h"
#include "devices/piix3_ide.h"
#include "storage_rig.h"
#include <string.h>

enum {
	DATA = 0x170,
	ERR,
	CNT,
	L0,
	L1,
	L2,
	DEV,
	CMD,
	CTL = 0x376,
	BM = 0xC008,
	DEVFN = 9,
	IRQ = 15
};
enum { BSY = 0x80, DRDY = 0x40, DSC = 0x10, DRQ = 0x08, CHK = 0x01 };
enum { BLOCKS = 1000, PRD = 0x1000, MEM = 0x10000 };

struct fixture {
	struct rig *r;
	struct piix3_ide *ide;
	struct drive *cd;
	char *path;
	uint8_t data[256 * 1024];
	size_t len; /* of the last packet's data */
};

static struct fixture *start(bool medium)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct error err = ERROR_INIT;

	f->r = rig_new(true);
	f->path = rig_image(BLOCKS * 2048);
	f->cd = rig_drive(f->r, DRIVE_CDROM, medium ? f->path : NULL, 0);
	struct irq_line irq14 = rig_line(f->r, 14), irq15 = rig_line(f->r, 15);
	struct drive *drives[4] = {NULL, NULL, f->cd, NULL};
	f->ide = piix3_ide_new(&f->r->env, f->r->pci, DEVFN, &irq14, &irq15, drives, &err);
	assert_non_null(f->ide);
	config_out(f->r, DEVFN, 0x20, 4, BM & ~15);
	config_out(f->r, DEVFN, 0x04, 2, 5);
	return f;
}

static void stop(struct fixture *f)
{
	piix3_ide_free(f->ide);
	drive_free(f->cd);
	rig_free(f->r);
	unlink(f->path);
	free(f->path);
	free(f);
}

static uint8_t wait_ready(struct fixture *f)
{
	for (int i = 0; i < 1000 && (inb(f->r, CTL) & BSY); i++)
		rig_turn(f->r);
	return inb(f->r, CTL);
}

static void send_cdb(struct fixture *f, const uint8_t cdb[12], uint16_t limit, uint8_t feature)
{
	outb(f->r, DEV, 0xA0);
	outb(f->r, ERR, feature);
	outb(f->r, L1, (uint8_t)limit);
	outb(f->r, L2, (uint8_t)(limit >> 8));
	outb(f->r, CMD, 0xA0);
	assert_int_equal(inb(f->r, CTL), DRDY | DSC | DRQ);
	assert_int_equal(inb(f->r, CNT), 1);
	iobus_write_block(f->r->env.io, DATA, 2, cdb, 6);
}

/* Runs a packet by PIO; returns its status. Every block is within the limit. */
static uint8_t packet_limit(struct fixture *f, const uint8_t cdb[12], uint16_t limit)
{
	send_cdb(f, cdb, limit, 0);
	f->len = 0;
	for (;;) {
		uint8_t status = wait_ready(f);
		assert_true(f->r->irq[IRQ]);
		inb(f->r, CMD);
		if (!(status & DRQ)) {
			assert_int_equal(inb(f->r, CNT), 3);
			return status;
		}
		assert_int_equal(inb(f->r, CNT), 2);
		unsigned n = inb(f->r, L1) | inb(f->r, L2) << 8;
		assert_in_range(n, 1, limit);
		assert_true(f->len + n < sizeof(f->data));
		iobus_read_block(f->r->env.io, DATA, 2, f->data + f->len, (n + 1) / 2);
		f->len += n;
	}
}

static uint8_t packet(struct fixture *f, const uint8_t cdb[12])
{
	return packet_limit(f, cdb, 0xFFFE);
}

static uint32_t sense(struct fixture *f)
{
	assert_int_equal(packet(f, (uint8_t[12]){0x03, 0, 0, 0, 18}), DRDY | DSC);
	assert_int_equal(f->len, 18);
	assert_int_equal(f->data[0], 0x70);
	return (uint32_t)f->data[2] << 16 | f->data[12] << 8 | f->data[13];
}

static void check(struct fixture *f, const uint8_t cdb[12], uint32_t expected)
{
	assert_int_equal(packet(f, cdb), DRDY | DSC | CHK);
	assert_int_equal(inb(f->r, ERR) >> 4, expected >> 16);
	assert_int_equal(sense(f), expected);
	assert_int_equal(sense(f), 0);
}

static bool is_block(const uint8_t *p, uint32_t lba)
{
	for (unsigned i = 0; i < 4; i++)
		if (!rig_is_sector(p + i * 512, lba * 4 + i))
			return false;
	return true;
}

static const uint8_t test_unit_ready[12];

static void signature_and_identify(void **state)
{
	struct fixture *f = start(true);
	uint16_t id[256];

	assert_int_equal(inb(f->r, CTL), 0);
	assert_int_equal(inb(f->r, L1), 0x14);
	assert_int_equal(inb(f->r, L2), 0xEB);
	outb(f->r, L1, 0);
	outb(f->r, CMD, 0xEC);
	assert_int_equal(inb(f->r, CMD), DRDY | DSC | CHK);
	assert_int_equal(inb(f->r, L1), 0x14);
	outb(f->r, CMD, 0xA1);
	assert_int_equal(wait_ready(f), DRDY | DSC | DRQ);
	iobus_read_block(f->r->env.io, DATA, 2, id, 256);
	assert_int_equal(id[0], 0x85C0); /* DRQ within 50 us, no interrupt for the packet */
	outb(f->r, CMD, 0x08);
	assert_int_equal(wait_ready(f), 0);
	assert_int_equal(inb(f->r, L2), 0xEB);
	stop(f);
}

static void inquiry_and_mode_sense(void **state)
{
	struct fixture *f = start(true);

	packet(f, (uint8_t[12]){0x12, 0, 0, 0, 36});
	assert_int_equal(f->len, 36);
	assert_int_equal(f->data[0], 5);
	assert_int_equal(f->data[1], 0x80);
	packet(f, (uint8_t[12]){0x12, 0, 0, 0, 5});
	assert_int_equal(f->len, 5);
	packet(f, (uint8_t[12]){0x5A, 0, 0x2A, 0, 0, 0, 0, 0, 128});
	assert_int_equal(f->len, 28);
	assert_int_equal(load_be16(f->data), 26);
	assert_int_equal(f->data[8], 0x2A);
	check(f, (uint8_t[12]){0x5A, 0, 0x05, 0, 0, 0, 0, 0, 128}, 0x052400);
	check(f, (uint8_t[12]){0x5A, 0, 0xEA, 0, 0, 0, 0, 0, 128}, 0x053900);
	check(f, (uint8_t[12]){0xE7}, 0x052000);
	stop(f);
}

static void read_10_by_pio_in_blocks_of_the_limit(void **state)
{
	struct fixture *f = start(true);
	const uint8_t cdb[12] = {0x28, 0, 0, 0, 1, 0, 0, 0, 40};

	assert_int_equal(packet_limit(f, cdb, 2048), DRDY | DSC);
	assert_int_equal(f->len, 40 * 2048);
	for (unsigned i = 0; i < 40; i++)
		assert_true(is_block(f->data + i * 2048, 256 + i));
	assert_int_equal(packet_limit(f, cdb, 1001), DRDY | DSC);
	assert_int_equal(f->len, 40 * 2048);
	for (unsigned i = 0; i < 40; i++)
		assert_true(is_block(f->data + i * 2048, 256 + i));
	stop(f);
}

static void pio_without_byte_count_aborts(void **state)
{
	struct fixture *f = start(true);
	const uint8_t cdb[12] = {0x28, 0, 0, 0, 1, 0, 0, 0, 1};

	send_cdb(f, cdb, 0, 0);
	assert_int_equal(wait_ready(f), DRDY | DSC | CHK);
	assert_int_equal(inb(f->r, ERR), 4);
	stop(f);
}

static void dma_packet(struct fixture *f, const uint8_t cdb[12], uint32_t bytes)
{
	for (unsigned i = 0; i * 60000u < bytes; i++) {
		uint32_t n = bytes - i * 60000 < 60000 ? bytes - i * 60000 : 60000;
		store_le32(f->r->ram->host + PRD + 8 * i, MEM + i * 60000);
		store_le32(f->r->ram->host + PRD + 8 * i + 4,
			   n | ((i + 1) * 60000u >= bytes ? 0x80000000u : 0));
	}
	outb(f->r, BM, 0);
	out(f->r, BM + 4, 4, PRD);
	outb(f->r, BM + 2, 6);
	send_cdb(f, cdb, 0, 1);
	outb(f->r, BM, 9);
	wait_ready(f);
}

static void read_12_and_replies_by_dma(void **state)
{
	struct fixture *f = start(true);
	uint8_t *mem = f->r->ram->host + MEM;

	dma_packet(f, (uint8_t[12]){0xA8, 0, 0, 0, 0, 7, 0, 0, 0, 100}, 100 * 2048);
	assert_int_equal(inb(f->r, BM + 2) & 7, 4);
	assert_int_equal(inb(f->r, CMD), DRDY | DSC);
	assert_int_equal(inb(f->r, CNT), 3);
	for (unsigned i = 0; i < 100; i++)
		assert_true(is_block(mem + i * 2048, 7 + i));
	dma_packet(f, (uint8_t[12]){0x25}, 8);
	assert_int_equal(inb(f->r, CMD), DRDY | DSC);
	assert_int_equal(load_be32(mem), BLOCKS - 1);
	assert_int_equal(load_be32(mem + 4), 2048);
	dma_packet(f, (uint8_t[12]){0xBE, 0, 0, 0, 0, 16, 0, 0, 60, 0xF8}, 60 * 2352);
	assert_int_equal(inb(f->r, CMD), DRDY | DSC);
	for (unsigned i = 0; i < 60; i++)
		assert_true(is_block(mem + i * 2352 + 16, 16 + i));
	stop(f);
}

static void reads_past_the_end_are_refused(void **state)
{
	struct fixture *f = start(true);

	check(f, (uint8_t[12]){0x28, 0, 0, 0, BLOCKS >> 8, BLOCKS & 0xFF, 0, 0, 1}, 0x052100);
	check(f, (uint8_t[12]){0xA8, 0, 0, 0, 0, 5, 0xFF, 0xFF, 0xFF, 0xFF}, 0x052100);
	check(f, (uint8_t[12]){0xBE, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 2, 0xF8}, 0x052100);
	check(f, (uint8_t[12]){0xBE, 4, 0, 0, 0, 0, 0, 0, 1, 0xF8}, 0x056400);
	assert_int_equal(packet(f, (uint8_t[12]){0x28}), DRDY | DSC);
	assert_int_equal(f->len, 0);
	stop(f);
}

/* All code words of a dressed block must have zero syndromes (ECMA-130, annex A). */
static uint8_t times_a(uint8_t v)
{
	return (uint8_t)(v << 1 ^ (v & 0x80 ? 0x1D : 0));
}

static void raw_blocks_satisfy_edc_and_ecc(void **state)
{
	struct fixture *f = start(true);

	assert_int_equal(packet(f, (uint8_t[12]){0xBE, 0, 0, 0, 0, 16, 0, 0, 1, 0xF8}), DRDY | DSC);
	assert_int_equal(f->len, 2352);
	const uint8_t *b = f->data, *h = b + 12;
	assert_memory_equal(b, "\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\x00\x02\x16\x01", 16);
	uint32_t crc = 0; /* over data and EDC together: zero */
	for (int i = 0; i < 2068; i++) {
		crc ^= b[i];
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0xD8018001u : 0);
	}
	assert_int_equal(crc, 0);
	for (int n = 0; n < 86; n++) {
		uint8_t s0 = 0, s1 = 0;
		for (int i = 0; i < 26; i++) {
			s0 ^= h[n + 86 * i];
			s1 = times_a(s1) ^ h[n + 86 * i];
		}
		assert_int_equal(s0 | s1, 0);
	}
	for (int n = 0; n < 52; n++) {
		uint8_t s0 = 0, s1 = 0;
		for (int i = 0; i < 45; i++) {
			int word = i < 43 ? (44 * i + 43 * (n / 2)) % 1118
					  : 1118 + 26 * (i - 43) + n / 2;
			s0 ^= h[2 * word + n % 2];
			s1 = times_a(s1) ^ h[2 * word + n % 2];
		}
		assert_int_equal(s0 | s1, 0);
	}
	stop(f);
}

static void toc_formats(void **state)
{
	struct fixture *f = start(true);

	packet(f, (uint8_t[12]){0x43, 0, 0, 0, 0, 0, 0, 0, 64});
	assert_int_equal(f->len, 20);
	assert_int_equal(load_be16(f->data), 18);
	assert_int_equal(f->data[6], 1);
	assert_int_equal(f->data[14], 0xAA);
	assert_int_equal(load_be32(f->data + 16), BLOCKS);
	packet(f, (uint8_t[12]){0x43, 2, 0, 0, 0, 0, 0xAA, 0, 64});
	assert_int_equal(f->len, 12);
	assert_memory_equal(f->data + 8, "\0\0\x0F\x19", 4); /* 1150 frames */
	packet(f, (uint8_t[12]){0x43, 0, 1, 0, 0, 0, 0, 0, 64});
	assert_int_equal(f->len, 12);
	packet(f, (uint8_t[12]){0x43, 0, 0, 0, 0, 0, 0, 0, 64, 0x80});
	assert_int_equal(f->len, 48);
	assert_int_equal(f->data[7], 0xA0);
	check(f, (uint8_t[12]){0x43, 0, 0, 0, 0, 0, 2, 0, 64}, 0x052400);
	stop(f);
}

static void configuration_and_events(void **state)
{
	struct fixture *f = start(true);

	packet(f, (uint8_t[12]){0x46, 0, 0, 0, 0, 0, 0, 1, 0});
	assert_int_equal(load_be32(f->data), f->len - 4);
	assert_int_equal(load_be16(f->data + 6), 0x08);
	packet(f, (uint8_t[12]){0x46, 2, 0, 3, 0, 0, 0, 1, 0});
	assert_int_equal(f->len, 16);
	assert_int_equal(f->data[9], 3);
	packet(f, (uint8_t[12]){0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8});
	assert_int_equal(f->data[2], 4);
	assert_int_equal(f->data[4], 0);
	assert_int_equal(f->data[5], 2);
	check(f, (uint8_t[12]){0x4A, 0, 0, 0, 0x10, 0, 0, 0, 8}, 0x052400);
	stop(f);
}

static void no_medium_and_medium_change(void **state)
{
	struct fixture *f = start(false);
	struct error err = ERROR_INIT;

	check(f, test_unit_ready, 0x023A00);
	check(f, (uint8_t[12]){0x28, 0, 0, 0, 0, 0, 0, 0, 1}, 0x023A00);
	assert_int_equal(drive_change(f->cd, f->path, "raw", NULL, &err), 0);
	packet(f, (uint8_t[12]){0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8});
	assert_int_equal(f->data[4], 2); /* new media */
	check(f, test_unit_ready, 0x062800);
	assert_int_equal(packet(f, test_unit_ready), DRDY | DSC);
	assert_int_equal(drive_eject(f->cd, false, &err), 0);
	check(f, test_unit_ready, 0x023A02);
	stop(f);
}

static void prevent_holds_the_tray(void **state)
{
	struct fixture *f = start(true);
	struct error err = ERROR_INIT;
	const uint8_t eject[12] = {0x1B, 0, 0, 0, 2}, load[12] = {0x1B, 0, 0, 0, 3};

	assert_int_equal(packet(f, (uint8_t[12]){0x1E, 0, 0, 0, 1}), DRDY | DSC);
	check(f, eject, 0x055302);
	assert_int_equal(drive_eject(f->cd, false, &err), -16);
	packet(f, (uint8_t[12]){0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8});
	assert_int_equal(f->data[4], 1); /* eject request */
	assert_int_equal(packet(f, (uint8_t[12]){0x1E}), DRDY | DSC);
	assert_int_equal(packet(f, eject), DRDY | DSC);
	check(f, test_unit_ready, 0x023A02);
	/* A reset does not close the tray: an installer that ejects its CD boots the disk. */
	state_reset_all(f->r->env.states);
	check(f, test_unit_ready, 0x023A02);
	assert_int_equal(packet(f, load), DRDY | DSC);
	check(f, test_unit_ready, 0x062800);
	assert_int_equal(packet(f, test_unit_ready), DRDY | DSC);
	stop(f);
}

static void mode_select_takes_what_it_knows(void **state)
{
	struct fixture *f = start(true);
	uint8_t params[16] = {[8] = 0x01, [9] = 6, [11] = 5};
	const uint8_t cdb[12] = {0x55, 0x10, 0, 0, 0, 0, 0, 0, 16};

	send_cdb(f, cdb, 0xFFFE, 0);
	assert_int_equal(wait_ready(f), DRDY | DSC | DRQ);
	assert_int_equal(inb(f->r, CNT), 0);
	iobus_write_block(f->r->env.io, DATA, 2, params, 8);
	assert_int_equal(inb(f->r, CMD), DRDY | DSC);
	params[8] = 0x0D;
	send_cdb(f, cdb, 0xFFFE, 0);
	iobus_write_block(f->r->env.io, DATA, 2, params, 8);
	assert_int_equal(inb(f->r, CMD), DRDY | DSC | CHK);
	assert_int_equal(sense(f), 0x052600);
	stop(f);
}

/* Any packet, by PIO and DMA, with any parameters, leaves a drive that answers the next one. */
static void survives_random_packets(void **state)
{
	struct fixture *f = start(true);
	uint32_t seed = 4711;

	for (int i = 0; i < 4000; i++) {
		uint8_t cdb[12];
		for (int k = 0; k < 12; k++) {
			seed = seed * 1664525 + 1013904223;
			cdb[k] = seed >> 28 < 9 ? 0 : (uint8_t)(seed >> 16);
		}
		static const uint8_t codes[] = {0x03, 0x12, 0x15, 0x1A, 0x25, 0x28, 0x43,
						0x46, 0x4A, 0x51, 0x52, 0x55, 0x5A, 0xA8,
						0xAD, 0xB9, 0xBD, 0xBE, 0x42, 0x2B};
		cdb[0] = codes[seed >> 8 & 0xFF ? (seed >> 8) % sizeof(codes) : 0];
		if (i % 3 == 0)
			dma_packet(f, cdb, 100000);
		else
			send_cdb(f, cdb, (uint16_t)(seed >> 4), 0);
		for (int k = 0; k < 40; k++) {
			uint8_t buf[4096];
			if (!(wait_ready(f) & DRQ))
				break;
			iobus_read_block(f->r->env.io, DATA, 2, buf, 2048);
			iobus_write_block(f->r->env.io, DATA, 2, buf, 2048);
		}
		outb(f->r, CMD, 0x08);
		wait_ready(f);
	}
	assert_int_equal(packet(f, (uint8_t[12]){0x12, 0, 0, 0, 36}), DRDY | DSC);
	assert_int_equal(f->len, 36);
	stop(f);
}

/* Patches the field `name` (an unsigned number) of a saved state. */
static void patch_state(struct strbuf *saved, const char *name, uint8_t value)
{
	size_t len = strlen(name);

	for (size_t i = 0; i + len + 10 < saved->len; i++)
		if ((uint8_t)saved->data[i] == len && !memcmp(saved->data + i + 1, name, len))
			saved->data[i + 1 + len + 9] = (char)value;
}

/* A block without fields has no bytes; nobody may divide by that. */
static void damaged_raw_transfer_is_refused(void **state)
{
	struct fixture *f = start(true);
	struct strbuf saved = STRBUF_INIT;
	struct error err = ERROR_INIT;

	send_cdb(f, (uint8_t[12]){0xBE, 0, 0, 0, 0, 0, 0, 0, 100, 0xF8}, 2352, 0);
	wait_ready(f);
	state_save(f->r->env.states, &saved);
	assert_int_equal(state_load(f->r->env.states, saved.data, saved.len, &err), 0);
	patch_state(&saved, "fields", 0);
	assert_true(state_load(f->r->env.states, saved.data, saved.len, &err) < 0);
	strbuf_free(&saved);
	stop(f);
}

/* DEVICE RESET while SRST waits for a request in flight must not turn it into a reset of one. */
static void device_reset_does_not_take_over_a_software_reset(void **state)
{
	struct fixture *f = start(true);
	struct drive *disk = rig_drive(f->r, DRIVE_DISK, f->path, 0);
	struct irq_line irq = rig_line(f->r, 11);
	struct drive *drives[4] = {disk, f->cd};
	struct error err = ERROR_INIT;

	/* The disk is drive 0 of the other channel, the CD-ROM drive 1. */
	piix3_ide_free(f->ide);
	f->ide = piix3_ide_new(&f->r->env, f->r->pci, DEVFN, &irq, &irq, drives, &err);
	enum { OTHER = 0x1F0, OTHER_CTL = 0x3F6 };
	static const uint8_t read_10[12] = {0x28, 0, 0, 0, 0, 0, 0, 0, 1};
	outb(f->r, OTHER + 6, 0xB0);
	outb(f->r, OTHER + 5, 8);
	outb(f->r, OTHER + 7, 0xA0);
	iobus_write_block(f->r->env.io, OTHER, 2, read_10, 6);
	assert_int_equal(inb(f->r, OTHER_CTL) & BSY, BSY);
	outb(f->r, OTHER_CTL, 4);
	outb(f->r, OTHER_CTL, 0);
	outb(f->r, OTHER + 7, 0x08);
	for (int i = 0; i < 1000 && (inb(f->r, OTHER_CTL) & BSY); i++)
		rig_turn(f->r);
	outb(f->r, OTHER + 6, 0xE0);
	assert_int_equal(inb(f->r, OTHER_CTL), DRDY | DSC);
	outb(f->r, OTHER + 6, 0xF0);
	assert_int_equal(inb(f->r, OTHER_CTL), 0);
	piix3_ide_free(f->ide);
	f->ide = NULL;
	drive_free(disk);
	stop(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signature_and_identify),
		cmocka_unit_test(inquiry_and_mode_sense),
		cmocka_unit_test(read_10_by_pio_in_blocks_of_the_limit),
		cmocka_unit_test(pio_without_byte_count_aborts),
		cmocka_unit_test(read_12_and_replies_by_dma),
		cmocka_unit_test(reads_past_the_end_are_refused),
		cmocka_unit_test(raw_blocks_satisfy_edc_and_ecc),
		cmocka_unit_test(toc_formats),
		cmocka_unit_test(configuration_and_events),
		cmocka_unit_test(no_medium_and_medium_change),
		cmocka_unit_test(prevent_holds_the_tray),
		cmocka_unit_test(mode_select_takes_what_it_knows),
		cmocka_unit_test(damaged_raw_transfer_is_refused),
		cmocka_unit_test(device_reset_does_not_take_over_a_software_reset),
		cmocka_unit_test(survives_random_packets),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
