/* SPDX-License-Identifier: MIT */
/* The floppy controller as drivers use it: reset, seek, transfers by DMA and without, format,
 * media. */
#include "devices/fdc.h"
#include "devices/i8237.h"
#include "storage_rig.h"
#include <string.h>

enum { DOR = 0x3F2, MSR = 0x3F4, FIFO = 0x3F5, DIR = 0x3F7, IRQ = 6, MEM = 0x20000 };

struct fixture {
	struct rig *r;
	struct i8237 *dma;
	struct fdc *fdc;
	struct drive *floppy;
	char *path;
	uint8_t st[16];
};

static void reset_chip(struct fixture *f)
{
	outb(f->r, DOR, 0);
	assert_int_equal(inb(f->r, MSR), 0);
	outb(f->r, DOR, 0x1C);
	assert_true(f->r->irq[IRQ]);
	for (unsigned i = 0; i < 4; i++) {
		outb(f->r, FIFO, 0x08);
		assert_int_equal(inb(f->r, FIFO), 0xC0 | i);
		assert_int_equal(inb(f->r, FIFO), 0);
	}
	assert_false(f->r->irq[IRQ]);
	outb(f->r, DIR, 0); /* 500 kbit/s */
}

static struct fixture *start(uint64_t size, unsigned flags)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct irq_line irq;

	f->r = rig_new(true);
	f->path = rig_image(size);
	f->floppy = rig_drive(f->r, DRIVE_FLOPPY, f->path, flags);
	f->dma = i8237_new(&f->r->env);
	irq = rig_line(f->r, IRQ);
	struct drive *drives[2] = {f->floppy, NULL};
	f->fdc = fdc_new(&f->r->env, FDC_BASE, &irq, f->dma, drives);
	reset_chip(f);
	return f;
}

static void stop(struct fixture *f)
{
	fdc_free(f->fdc);
	i8237_free(f->dma);
	drive_free(f->floppy);
	rig_free(f->r);
	unlink(f->path);
	free(f->path);
	free(f);
}

static void command(struct fixture *f, const uint8_t *bytes, unsigned len)
{
	for (unsigned i = 0; i < len; i++) {
		assert_int_equal(inb(f->r, MSR) & 0xC0, 0x80);
		outb(f->r, FIFO, bytes[i]);
	}
}

/* Waits for the result phase and reads it; returns how many bytes it had. */
static unsigned result(struct fixture *f)
{
	unsigned n = 0;

	for (int i = 0; i < 1000 && (inb(f->r, MSR) & 0xC0) != 0xC0; i++)
		rig_turn(f->r);
	while ((inb(f->r, MSR) & 0xD0) == 0xD0 && n < sizeof(f->st))
		f->st[n++] = inb(f->r, FIFO);
	return n;
}

#define COMMAND(f, ...)                                                                            \
	command(f, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* mode: 0x46 memory is written, 0x4A memory is read */
static void program_dma(struct fixture *f, uint8_t mode, unsigned bytes)
{
	outb(f->r, 0x0A, 6);
	outb(f->r, 0x0C, 0);
	outb(f->r, 0x0B, mode);
	outb(f->r, 0x04, MEM & 0xFF);
	outb(f->r, 0x04, MEM >> 8 & 0xFF);
	outb(f->r, 0x81, MEM >> 16);
	outb(f->r, 0x05, (uint8_t)(bytes - 1));
	outb(f->r, 0x05, (uint8_t)((bytes - 1) >> 8));
	outb(f->r, 0x0A, 2);
}

static void seek(struct fixture *f, uint8_t track)
{
	COMMAND(f, 0x0F, 0, track);
	assert_true(f->r->irq[IRQ]);
	COMMAND(f, 0x08);
	assert_int_equal(result(f), 2);
	assert_int_equal(f->st[0], 0x20);
	assert_int_equal(f->st[1], track);
	assert_false(f->r->irq[IRQ]);
}

static void version_and_identification(void **state)
{
	struct fixture *f = start(1440 * 1024, IMAGE_WRITABLE);

	COMMAND(f, 0x10);
	assert_int_equal(result(f), 1);
	assert_int_equal(f->st[0], 0x90);
	COMMAND(f, 0x18);
	result(f);
	assert_int_equal(f->st[0], 0x41);
	COMMAND(f, 0x94);
	result(f);
	assert_int_equal(f->st[0], 0x10);
	COMMAND(f, 0x13, 0, 0x57, 3);
	COMMAND(f, 0x0E);
	assert_int_equal(result(f), 10);
	assert_int_equal(f->st[7] & 0x80, 0x80);
	assert_int_equal(f->st[8], 0x57);
	COMMAND(f, 0x1F);
	assert_int_equal(result(f), 1);
	assert_int_equal(f->st[0], 0x80);
	COMMAND(f, 0x08); /* nothing to sense */
	assert_int_equal(result(f), 1);
	assert_int_equal(f->st[0], 0x80);
	COMMAND(f, 0x04, 0);
	result(f);
	assert_int_equal(f->st[0], 0x38);
	stop(f);
}

static void read_ends_at_terminal_count(void **state)
{
	struct fixture *f = start(1440 * 1024, IMAGE_WRITABLE);

	seek(f, 2);
	program_dma(f, 0x46, 4 * 512);
	COMMAND(f, 0xE6, 4, 2, 1, 15, 2, 18, 0x1B, 0xFF);
	assert_int_equal(result(f), 7);
	assert_int_equal(f->st[0], 0x04);
	assert_int_equal(f->st[1] | f->st[2], 0);
	assert_int_equal(f->st[3], 3); /* the next sector is on the next cylinder */
	assert_int_equal(f->st[4], 0);
	assert_int_equal(f->st[5], 1);
	stop(f);
}

static void read_crosses_to_the_second_head(void **state)
{
	struct fixture *f = start(1440 * 1024, IMAGE_WRITABLE);

	program_dma(f, 0x46, 4 * 512);
	COMMAND(f, 0xE6, 0, 2, 0, 17, 2, 18, 0x1B, 0xFF);
	assert_int_equal(result(f), 7);
	assert_int_equal(f->st[0], 0x04);
	assert_int_equal(f->st[1] | f->st[2], 0);
	assert_int_equal(f->st[3], 2);
	assert_int_equal(f->st[4], 1);
	assert_int_equal(f->st[5], 3);
	for (unsigned i = 0; i < 4; i++)
		assert_true(rig_is_sector(f->r->ram->host + MEM + i * 512, 2 * 36 + 16 + i));
	stop(f);
}

static void read_past_the_last_sector_is_end_of_cylinder(void **state)
{
	struct fixture *f = start(1440 * 1024, IMAGE_WRITABLE);

	program_dma(f, 0x46, 4 * 512);
	COMMAND(f, 0x46, 0, 0, 0, 17, 2, 18, 0x1B, 0xFF);
	assert_int_equal(result(f), 7);
	assert_int_equal(f->st[0], 0x40);
	assert_int_equal(f->st[1], 0x80);
	program_dma(f, 0x46, 512);
	COMMAND(f, 0x46, 0, 0, 0, 19, 2, 19, 0x1B, 0xFF);
	result(f);
	assert_int_equal(f->st[0], 0x40);
	assert_int_equal(f->st[1], 0x04);
	stop(f);
}

static void write_waits_for_the_channel(void **state)
{
	struct fixture *f = start(1440 * 1024, IMAGE_WRITABLE);
	uint8_t back[1024];

	memset(f->r->ram->host + MEM, 0x77, 1024);
	COMMAND(f, 0xC5, 0, 1, 0, 3, 2, 18, 0x1B, 0xFF);
	assert_int_equal(inb(f->r, MSR) & 0xF0, 0x10);
	program_dma(f, 0x4A, 1024);
	assert_int_equal(result(f), 7);
	assert_int_equal(f->st[0], 0);
	assert_int_equal(f->st[5], 5);
	rig_image_read(f->path, back, sizeof(back), (36 + 2) * 512);
	assert_memory_equal(back, f->r->ram->host + MEM, 1024);
	stop(f);
}

static void write_protected_medium_refuses(void **state)
{
	struct fixture *f = start(1440 * 1024, 0);

	program_dma(f, 0x4A, 512);
	COMMAND(f, 0xC5, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF);
	assert_int_equal(result(f), 7);
	assert_int_equal(f->st[0], 0x40);
	assert_int_equal(f->st[1], 0x02);
	COMMAND(f, 0x04, 0);
	result(f);
	assert_int_equal(f->st[0] & 0x40, 0x40);
	stop(f);
}

static void non_dma_read(void **state)
{
	struct fixture *f = start(1440 * 1024, IMAGE_WRITABLE);
	uint8_t buf[512];

	COMMAND(f, 0x03, 0xAF, 0x03);
	COMMAND(f, 0x46, 0, 0, 0, 18, 2, 18, 0x1B, 0xFF);
	for (int i = 0; i < 1000 && !(inb(f->r, MSR) & 0x80); i++)
		rig_turn(f->r);
	assert_true(f->r->irq[IRQ]);
	for (int i = 0; i < 512; i++) {
		assert_int_equal(inb(f->r, MSR) & 0xE0, 0xE0);
		buf[i] = inb(f->r, FIFO);
	}
	assert_true(rig_is_sector(buf, 17));
	assert_int_equal(result(f), 7);
	assert_int_equal(f->st[0], 0x40); /* no terminal count: end of cylinder */
	stop(f);
}

static void format_fills_the_track(void **state)
{
	struct fixture *f = start(1440 * 1024, IMAGE_WRITABLE);
	uint8_t track[18 * 512];

	for (unsigned i = 0; i < 18; i++)
		store_le32(f->r->ram->host + MEM + 4 * i, 5 | 1 << 8 | (i + 1) << 16 | 2u << 24);
	seek(f, 5);
	program_dma(f, 0x4A, 18 * 4);
	COMMAND(f, 0x4D, 4, 2, 18, 0x54, 0xF6);
	assert_int_equal(result(f), 7);
	assert_int_equal(f->st[0], 0x04);
	rig_image_read(f->path, track, sizeof(track), (5 * 36 + 18) * 512);
	for (size_t i = 0; i < sizeof(track); i++)
		assert_int_equal(track[i], 0xF6);
	rig_image_read(f->path, track, 512, (6 * 36) * 512);
	assert_true(rig_is_sector(track, 6 * 36));
	stop(f);
}

static void wrong_data_rate_finds_no_address_mark(void **state)
{
	struct fixture *f = start(720 * 1024, IMAGE_WRITABLE);

	COMMAND(f, 0x4A, 0);
	assert_int_equal(result(f), 7);
	assert_int_equal(f->st[0], 0x40);
	assert_int_equal(f->st[1], 0x01);
	outb(f->r, DIR, 2);
	COMMAND(f, 0x4A, 0);
	result(f);
	assert_int_equal(f->st[0], 0);
	assert_int_equal(f->st[6], 2);
	stop(f);
}

static void change_line_falls_with_a_step(void **state)
{
	struct fixture *f = start(1440 * 1024, IMAGE_WRITABLE);
	struct error err = ERROR_INIT;

	assert_int_equal(inb(f->r, DIR) & 0x80, 0x80);
	seek(f, 1);
	assert_int_equal(inb(f->r, DIR) & 0x80, 0);
	assert_int_equal(drive_eject(f->floppy, false, &err), 0);
	assert_int_equal(inb(f->r, DIR) & 0x80, 0x80);
	seek(f, 2);
	assert_int_equal(inb(f->r, DIR) & 0x80, 0x80);
	COMMAND(f, 0x4A, 0);
	result(f);
	assert_int_equal(f->st[1], 0x01);
	assert_int_equal(drive_change(f->floppy, f->path, "raw", NULL, &err), 0);
	seek(f, 3);
	assert_int_equal(inb(f->r, DIR) & 0x80, 0);
	stop(f);
}

static void recalibrate_without_drive_is_an_equipment_check(void **state)
{
	struct fixture *f = start(1440 * 1024, IMAGE_WRITABLE);

	COMMAND(f, 0x07, 1);
	COMMAND(f, 0x08);
	result(f);
	assert_int_equal(f->st[0], 0x71);
	COMMAND(f, 0x07, 0);
	COMMAND(f, 0x08);
	result(f);
	assert_int_equal(f->st[0], 0x20);
	stop(f);
}

static void reset_during_a_transfer_forgets_it(void **state)
{
	struct fixture *f = start(1440 * 1024, IMAGE_WRITABLE);

	program_dma(f, 0x46, 512);
	COMMAND(f, 0xE6, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF);
	reset_chip(f);
	program_dma(f, 0x46, 512);
	COMMAND(f, 0xE6, 0, 0, 0, 7, 2, 18, 0x1B, 0xFF);
	assert_int_equal(result(f), 7);
	assert_int_equal(f->st[0], 0);
	assert_true(rig_is_sector(f->r->ram->host + MEM, 6));
	stop(f);
}

/* The request of the command that the reset cut off still owns the buffer when FORMAT starts. */
static void format_waits_for_a_request_that_a_reset_left(void **state)
{
	struct fixture *f = start(1440 * 1024, IMAGE_WRITABLE);
	uint8_t track[18 * 512];

	for (unsigned i = 0; i < 18; i++)
		store_le32(f->r->ram->host + MEM + 4 * i, 0 | 0 << 8 | (i + 1) << 16 | 2u << 24);
	program_dma(f, 0x46, 512);
	COMMAND(f, 0xE6, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF);
	reset_chip(f);
	program_dma(f, 0x4A, 18 * 4);
	COMMAND(f, 0x4D, 0, 2, 18, 0x54, 0xE5);
	assert_int_equal(inb(f->r, 0x08) & 4, 0); /* no terminal count: nothing moved yet */
	assert_int_equal(result(f), 7);
	assert_int_equal(f->st[0], 0);
	rig_image_read(f->path, track, sizeof(track), 0);
	for (size_t i = 0; i < sizeof(track); i++)
		assert_int_equal(track[i], 0xE5);
	stop(f);
}

/* A command that claims to be complete but is still being written would run out of the FIFO. */
static void damaged_command_state_is_refused(void **state)
{
	struct fixture *f = start(1440 * 1024, IMAGE_WRITABLE);
	struct strbuf saved = STRBUF_INIT;
	struct error err = ERROR_INIT;

	state_save(f->r->env.states, &saved);
	assert_int_equal(state_load(f->r->env.states, saved.data, saved.len, &err), 0);
	for (size_t i = 0; i + 20 < saved.len; i++)
		if (!memcmp(saved.data + i,
			    "\x08"
			    "fifo_pos",
			    9) ||
		    !memcmp(saved.data + i,
			    "\x08"
			    "fifo_len",
			    9))
			saved.data[i + 9 + 9] = 16;
	assert_true(state_load(f->r->env.states, saved.data, saved.len, &err) < 0);
	strbuf_free(&saved);
	stop(f);
}

static void scan_compares(void **state)
{
	struct fixture *f = start(1440 * 1024, IMAGE_WRITABLE);
	uint8_t *mem = f->r->ram->host + MEM;

	rig_image_read(f->path, mem, 512, 0);
	program_dma(f, 0x4A, 512);
	COMMAND(f, 0x51, 0, 0, 0, 1, 2, 18, 0x1B, 1);
	assert_int_equal(result(f), 7);
	assert_int_equal(f->st[0], 0);
	assert_int_equal(f->st[2], 0x08);
	mem[0] ^= 0x40;
	program_dma(f, 0x4A, 512);
	COMMAND(f, 0x51, 0, 0, 0, 1, 2, 1, 0x1B, 1);
	result(f);
	assert_int_equal(f->st[2], 0x04);
	stop(f);
}

static void drive_types_follow_the_image(void **state)
{
	struct rig *r = rig_new(true);
	static const struct {
		uint64_t size;
		unsigned type;
	} cases[] = {{160 * 1024, 1},  {360 * 1024, 1},  {720 * 1024, 3},  {1200 * 1024, 2},
		     {1440 * 1024, 4}, {1680 * 1024, 4}, {2880 * 1024, 5}, {512, 4}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *path = rig_image(cases[i].size);
		struct drive *d = rig_drive(r, DRIVE_FLOPPY, path, 0);
		assert_int_equal(fdc_drive_type(d), cases[i].type);
		drive_free(d);
		unlink(path);
		free(path);
	}
	assert_int_equal(fdc_drive_type(NULL), 0);
	rig_free(r);
}

static void small_image_reads_zeroes_behind_its_end(void **state)
{
	struct fixture *f = start(512, IMAGE_WRITABLE);

	memset(f->r->ram->host + MEM, 1, 1024);
	program_dma(f, 0x46, 1024);
	COMMAND(f, 0xE6, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF);
	result(f);
	assert_int_equal(f->st[0], 0);
	assert_true(rig_is_sector(f->r->ram->host + MEM, 0));
	assert_int_equal(f->r->ram->host[MEM + 512], 0);
	stop(f);
}

static void survives_random_accesses(void **state)
{
	struct fixture *f = start(1440 * 1024, IMAGE_WRITABLE);
	uint32_t seed = 99;

	for (int i = 0; i < 200000; i++) {
		seed = seed * 1664525 + 1013904223;
		uint16_t port = seed >> 30 ? FIFO : (uint16_t)(0x3F0 + (seed >> 27 & 7));
		if (port == 0x3F6)
			continue;
		if (seed & 0x8000)
			inb(f->r, port);
		else
			outb(f->r, port, (uint8_t)(seed >> 16));
		if (i % 16 == 0)
			program_dma(f, seed & 0x4000 ? 0x46 : 0x4A, 1 + (seed >> 20));
		if (i % 64 == 0)
			rig_turn(f->r);
	}
	state_reset_all(f->r->env.states);
	reset_chip(f);
	stop(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(version_and_identification),
		cmocka_unit_test(read_ends_at_terminal_count),
		cmocka_unit_test(read_crosses_to_the_second_head),
		cmocka_unit_test(read_past_the_last_sector_is_end_of_cylinder),
		cmocka_unit_test(write_waits_for_the_channel),
		cmocka_unit_test(write_protected_medium_refuses),
		cmocka_unit_test(non_dma_read),
		cmocka_unit_test(format_fills_the_track),
		cmocka_unit_test(wrong_data_rate_finds_no_address_mark),
		cmocka_unit_test(change_line_falls_with_a_step),
		cmocka_unit_test(recalibrate_without_drive_is_an_equipment_check),
		cmocka_unit_test(reset_during_a_transfer_forgets_it),
		cmocka_unit_test(format_waits_for_a_request_that_a_reset_left),
		cmocka_unit_test(damaged_command_state_is_refused),
		cmocka_unit_test(scan_compares),
		cmocka_unit_test(drive_types_follow_the_image),
		cmocka_unit_test(small_image_reads_zeroes_behind_its_end),
		cmocka_unit_test(survives_random_accesses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
