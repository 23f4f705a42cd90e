/* SPDX-License-Identifier: MIT */
/* IDE disks as a driver sees them: registers, PIO, DMA, errors, resets, geometry. */
#include "devices/ide.h"
#include "devices/piix3_ide.h"
#include "storage_rig.h"
#include <string.h>

enum { DATA = 0x1F0, ERR = 0x1F1, CNT = 0x1F2, L0 = 0x1F3, L1 = 0x1F4, L2 = 0x1F5, DEV = 0x1F6 };
enum { CMD = 0x1F7, CTL = 0x3F6, BM = 0xC000, DEVFN = 9, IRQ = 14 };
enum { BSY = 0x80, DRDY = 0x40, DSC = 0x10, DRQ = 0x08, ERRBIT = 0x01 };
enum { ABRT = 0x04, IDNF = 0x10 };
enum { SECTORS = 40960, PRD = 0x1000, MEM = 0x10000 };

struct fixture {
	struct rig *r;
	struct piix3_ide *ide;
	struct drive *disk;
	char *path;
};

static struct fixture *start_with(uint64_t size, unsigned flags)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct error err = ERROR_INIT;

	f->r = rig_new(true);
	f->path = rig_image(size);
	f->disk = rig_drive(f->r, DRIVE_DISK, f->path, flags);
	struct irq_line irq14 = rig_line(f->r, 14), irq15 = rig_line(f->r, 15);
	struct drive *drives[4] = {f->disk};
	f->ide = piix3_ide_new(&f->r->env, f->r->pci, DEVFN, &irq14, &irq15, drives, &err);
	assert_non_null(f->ide);
	config_out(f->r, DEVFN, 0x20, 4, BM);
	config_out(f->r, DEVFN, 0x04, 2, 5);
	return f;
}

static struct fixture *start(void)
{
	return start_with((uint64_t)SECTORS * 512, IMAGE_WRITABLE);
}

static void stop(struct fixture *f)
{
	piix3_ide_free(f->ide);
	drive_free(f->disk);
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

static void task_file(struct fixture *f, uint32_t lba, uint8_t count, uint8_t command)
{
	outb(f->r, DEV, (uint8_t)(0xE0 | (lba >> 24 & 15)));
	outb(f->r, CNT, count);
	outb(f->r, L0, (uint8_t)lba);
	outb(f->r, L1, (uint8_t)(lba >> 8));
	outb(f->r, L2, (uint8_t)(lba >> 16));
	outb(f->r, CMD, command);
}

static void task_file48(struct fixture *f, uint64_t lba, uint16_t count, uint8_t command)
{
	outb(f->r, DEV, 0x40);
	outb(f->r, CNT, (uint8_t)(count >> 8));
	outb(f->r, CNT, (uint8_t)count);
	for (int i = 0; i < 3; i++) {
		outb(f->r, (uint16_t)(L0 + i), (uint8_t)(lba >> (24 + 8 * i)));
		outb(f->r, (uint16_t)(L0 + i), (uint8_t)(lba >> 8 * i));
	}
	outb(f->r, CMD, command);
}

static void ins(struct fixture *f, void *buf, size_t words)
{
	iobus_read_block(f->r->env.io, DATA, 2, buf, words);
}

static void outs(struct fixture *f, const void *buf, size_t words)
{
	iobus_write_block(f->r->env.io, DATA, 2, buf, words);
}

static void prd(struct fixture *f, unsigned i, uint32_t address, uint16_t count, bool last)
{
	store_le32(f->r->ram->host + PRD + 8 * i, address);
	store_le32(f->r->ram->host + PRD + 8 * i + 4, count | (last ? 0x80000000u : 0));
}

static void start_bm(struct fixture *f, bool to_memory)
{
	out(f->r, BM + 4, 4, PRD);
	outb(f->r, BM + 2, 6);
	outb(f->r, BM, to_memory ? 9 : 1);
}

static void identify_is_consistent(void **state)
{
	struct fixture *f = start();
	uint16_t id[256];
	uint8_t sum = 0;

	task_file(f, 0, 0, 0xEC);
	assert_int_equal(wait_ready(f), DRDY | DSC | DRQ);
	assert_true(f->r->irq[IRQ]);
	ins(f, id, 256);
	assert_int_equal(inb(f->r, CMD), DRDY | DSC);
	assert_int_equal(id[1], SECTORS / 16 / 63);
	assert_int_equal(id[60] | (uint32_t)id[61] << 16, SECTORS);
	assert_int_equal(id[100] | (uint32_t)id[101] << 16, SECTORS);
	assert_int_equal(id[47], 0x8010);
	assert_int_equal(id[49] & 0x300, 0x300);
	assert_int_equal(id[83] & 0x3400, 0x3400);
	assert_int_equal(id[54] * id[55] * id[56], id[57] | id[58] << 16);
	assert_memory_equal(&id[27], "IMINMVH RADDSI K", 16);
	for (int i = 0; i < 512; i++)
		sum = (uint8_t)(sum + ((uint8_t *)id)[i]);
	assert_int_equal(sum, 0);
	stop(f);
}

static void pio_read_interrupts_for_each_sector(void **state)
{
	struct fixture *f = start();
	uint8_t buf[512];

	task_file(f, 1000, 3, 0x20);
	for (unsigned n = 0; n < 3; n++) {
		assert_int_equal(wait_ready(f), DRDY | DSC | DRQ);
		assert_true(f->r->irq[IRQ]);
		inb(f->r, CMD);
		assert_false(f->r->irq[IRQ]);
		ins(f, buf, 256);
		assert_true(rig_is_sector(buf, 1000 + n));
	}
	assert_int_equal(f->r->edges[IRQ], 3);
	assert_int_equal(inb(f->r, CMD), DRDY | DSC);
	assert_int_equal(inb(f->r, CNT), 0);
	assert_int_equal(inb(f->r, L0), (1002 & 0xFF));
	stop(f);
}

static void pio_read_of_256_sectors_needs_two_buffers(void **state)
{
	struct fixture *f = start();
	uint8_t buf[512];

	task_file(f, 5, 0, 0x20);
	for (unsigned n = 0; n < 256; n++) {
		assert_int_equal(wait_ready(f), DRDY | DSC | DRQ);
		for (int i = 0; i < 128; i++)
			store_le32(buf + 4 * i, in(f->r, DATA, 4));
		assert_true(rig_is_sector(buf, 5 + n));
	}
	assert_int_equal(inb(f->r, CTL), DRDY | DSC);
	stop(f);
}

static void read_multiple_interrupts_for_each_block(void **state)
{
	struct fixture *f = start();
	uint8_t buf[20 * 512];

	task_file(f, 0, 8, 0xC6);
	assert_int_equal(wait_ready(f), DRDY | DSC);
	inb(f->r, CMD);
	f->r->edges[IRQ] = 0;
	task_file(f, 77, 20, 0xC4);
	uint8_t *p = buf;
	for (unsigned left = 20; left;) {
		unsigned n = left < 8 ? left : 8;
		assert_int_equal(wait_ready(f), DRDY | DSC | DRQ);
		inb(f->r, CMD);
		ins(f, p, n * 256);
		p += n * 512;
		left -= n;
	}
	assert_int_equal(inb(f->r, CMD), DRDY | DSC);
	assert_int_equal(f->r->edges[IRQ], 3);
	for (unsigned n = 0; n < 20; n++)
		assert_true(rig_is_sector(buf + n * 512, 77 + n));
	stop(f);
}

static void set_multiple_refuses_odd_counts(void **state)
{
	struct fixture *f = start();

	task_file(f, 0, 3, 0xC6);
	assert_int_equal(inb(f->r, CMD), DRDY | DSC | ERRBIT);
	assert_int_equal(inb(f->r, ERR), ABRT);
	task_file(f, 0, 32, 0xC6);
	assert_int_equal(inb(f->r, ERR), ABRT);
	stop(f);
}

static void pio_write_reaches_the_image(void **state)
{
	struct fixture *f = start();
	uint8_t buf[1024], back[1024];

	memset(buf, 0xA5, sizeof(buf));
	task_file(f, 9, 2, 0x30);
	assert_int_equal(inb(f->r, CTL), DRDY | DSC | DRQ);
	assert_false(f->r->irq[IRQ]);
	outs(f, buf, 256);
	assert_int_equal(wait_ready(f), DRDY | DSC | DRQ);
	assert_true(f->r->irq[IRQ]);
	inb(f->r, CMD);
	outs(f, buf + 512, 256);
	assert_int_equal(wait_ready(f), DRDY | DSC);
	assert_int_equal(f->r->edges[IRQ], 2);
	rig_image_read(f->path, back, sizeof(back), 9 * 512);
	assert_memory_equal(buf, back, sizeof(buf));
	stop(f);
}

static void chs_follows_initialize_device_parameters(void **state)
{
	struct fixture *f = start();
	uint8_t buf[512];

	outb(f->r, DEV, 0xA0 | 7); /* 8 heads, 32 sectors */
	outb(f->r, CNT, 32);
	outb(f->r, CMD, 0x91);
	assert_int_equal(wait_ready(f), DRDY | DSC);
	outb(f->r, DEV, 0xA0 | 3);
	outb(f->r, CNT, 1);
	outb(f->r, L0, 6);
	outb(f->r, L1, 2);
	outb(f->r, L2, 0);
	outb(f->r, CMD, 0x20);
	assert_int_equal(wait_ready(f), DRDY | DSC | DRQ);
	ins(f, buf, 256);
	assert_true(rig_is_sector(buf, (2 * 8 + 3) * 32 + 5));
	/* sector 0 and sector 33 do not exist */
	outb(f->r, L0, 0);
	outb(f->r, CMD, 0x20);
	wait_ready(f);
	assert_int_equal(inb(f->r, ERR), IDNF);
	outb(f->r, L0, 33);
	outb(f->r, CMD, 0x20);
	wait_ready(f);
	assert_int_equal(inb(f->r, ERR), IDNF);
	stop(f);
}

static void lba48_read_and_hob(void **state)
{
	struct fixture *f = start();
	uint8_t buf[512];

	task_file48(f, 4321, 1, 0x24);
	assert_int_equal(wait_ready(f), DRDY | DSC | DRQ);
	ins(f, buf, 256);
	assert_true(rig_is_sector(buf, 4321));
	task_file48(f, UINT64_C(0x123456789A), 1, 0x24);
	wait_ready(f);
	assert_int_equal(inb(f->r, ERR), IDNF);
	assert_int_equal(inb(f->r, L0), 0x9A);
	outb(f->r, CTL, 0x80);
	assert_int_equal(inb(f->r, L0), 0x34);
	assert_int_equal(inb(f->r, L1), 0x12);
	outb(f->r, CNT, 1); /* clears HOB */
	assert_int_equal(inb(f->r, L0), 0x9A);
	stop(f);
}

static void extent_past_the_end_is_idnf(void **state)
{
	struct fixture *f = start();

	task_file(f, SECTORS - 2, 3, 0x30);
	assert_int_equal(inb(f->r, CTL), DRDY | DSC | ERRBIT);
	assert_int_equal(inb(f->r, ERR), IDNF);
	assert_int_equal(inb(f->r, L0) | inb(f->r, L1) << 8, SECTORS);
	task_file(f, SECTORS - 1, 1, 0x40);
	assert_int_equal(wait_ready(f), DRDY | DSC);
	stop(f);
}

static void dma_read_scatters(void **state)
{
	struct fixture *f = start();
	uint8_t *ram = f->r->ram->host;

	prd(f, 0, MEM, 600, false);
	prd(f, 1, MEM + 0x3000, 424, false);
	prd(f, 2, MEM + 0x8000, 1024, true);
	start_bm(f, true);
	task_file(f, 300, 4, 0xC8);
	wait_ready(f);
	assert_true(f->r->irq[IRQ]);
	assert_int_equal(inb(f->r, BM + 2) & 7, 4);
	uint8_t all[2048];
	memcpy(all, ram + MEM, 600);
	memcpy(all + 600, ram + MEM + 0x3000, 424);
	memcpy(all + 1024, ram + MEM + 0x8000, 1024);
	for (unsigned n = 0; n < 4; n++)
		assert_true(rig_is_sector(all + n * 512, 300 + n));
	assert_int_equal(inb(f->r, CMD), DRDY | DSC);
	assert_int_equal(inb(f->r, CNT), 0);
	stop(f);
}

static void dma_write_ext_with_start_after_the_command(void **state)
{
	struct fixture *f = start();
	uint8_t back[65536];

	memset(f->r->ram->host + MEM, 0x3C, 65536);
	prd(f, 0, MEM, 0, true); /* 0: 64 KiB */
	task_file48(f, 512, 128, 0x35);
	assert_true(inb(f->r, CTL) & BSY);
	start_bm(f, false);
	assert_int_equal(wait_ready(f), DRDY | DSC);
	assert_int_equal(inb(f->r, BM + 2) & 7, 4);
	rig_image_read(f->path, back, sizeof(back), 512 * 512);
	assert_memory_equal(back, f->r->ram->host + MEM, sizeof(back));
	stop(f);
}

static void dma_with_a_long_table_stays_active(void **state)
{
	struct fixture *f = start();

	prd(f, 0, MEM, 4096, true);
	start_bm(f, true);
	task_file(f, 0, 1, 0xC8);
	wait_ready(f);
	assert_int_equal(inb(f->r, BM + 2) & 7, 5);
	outb(f->r, BM, 0);
	assert_int_equal(inb(f->r, BM + 2) & 7, 4);
	outb(f->r, BM + 2, 4);
	assert_int_equal(inb(f->r, BM + 2) & 7, 0);
	stop(f);
}

static void dma_with_a_short_table_does_not_interrupt(void **state)
{
	struct fixture *f = start();

	prd(f, 0, MEM, 512, true);
	start_bm(f, true);
	task_file(f, 0, 2, 0xC8);
	wait_ready(f);
	assert_int_equal(inb(f->r, BM + 2) & 7, 0);
	assert_false(f->r->irq[IRQ]);
	stop(f);
}

static void dma_outside_ram_is_an_error(void **state)
{
	struct fixture *f = start();

	prd(f, 0, 0xE0000000u, 512, true);
	start_bm(f, true);
	task_file(f, 0, 1, 0xC8);
	assert_int_equal(wait_ready(f), DRDY | DSC | ERRBIT);
	assert_int_equal(inb(f->r, BM + 2) & 3, 2);
	outb(f->r, BM, 0);
	out(f->r, BM + 4, 4, 0xFFFFFFF8u);
	outb(f->r, BM, 9);
	task_file(f, 0, 1, 0xC8);
	assert_int_equal(wait_ready(f), DRDY | DSC | ERRBIT);
	stop(f);
}

static void read_only_disk_aborts_writes(void **state)
{
	struct fixture *f = start_with(1024 * 1024, 0);

	task_file(f, 0, 1, 0x30);
	assert_int_equal(inb(f->r, CTL), DRDY | DSC | ERRBIT);
	assert_int_equal(inb(f->r, ERR), ABRT);
	task_file(f, 0, 1, 0xCA);
	assert_int_equal(inb(f->r, ERR), ABRT);
	stop(f);
}

static void unknown_commands_and_smart_abort(void **state)
{
	struct fixture *f = start();
	static const uint8_t codes[] = {0x00, 0xB0, 0xA0, 0xA1, 0xF1, 0x08, 0x92, 0xFF};

	for (size_t i = 0; i < sizeof(codes); i++) {
		task_file(f, 0, 1, codes[i]);
		assert_int_equal(inb(f->r, CTL), DRDY | DSC | ERRBIT);
		assert_int_equal(inb(f->r, ERR), ABRT);
	}
	stop(f);
}

static void features_power_and_flush(void **state)
{
	struct fixture *f = start();

	outb(f->r, ERR, 0x03);
	task_file(f, 0, 0x42, 0xEF); /* UDMA 2 */
	assert_int_equal(inb(f->r, CTL), DRDY | DSC);
	uint16_t id[256];
	task_file(f, 0, 0, 0xEC);
	ins(f, id, 256);
	assert_int_equal(id[88] >> 8, 1 << 2);
	outb(f->r, ERR, 0x03);
	task_file(f, 0, 0x47, 0xEF); /* UDMA 7 */
	assert_int_equal(inb(f->r, ERR), ABRT);
	outb(f->r, ERR, 0x82);
	task_file(f, 0, 0, 0xEF);
	assert_int_equal(wait_ready(f), DRDY | DSC);
	task_file(f, 0, 0, 0xEC);
	ins(f, id, 256);
	assert_int_equal(id[85] & 0x20, 0);
	task_file(f, 0, 0, 0xE0);
	wait_ready(f);
	task_file(f, 0, 0, 0xE5);
	assert_int_equal(inb(f->r, CNT), 0x00);
	task_file(f, 0, 1, 0x40);
	wait_ready(f);
	task_file(f, 0, 0, 0xE5);
	assert_int_equal(inb(f->r, CNT), 0xFF);
	task_file(f, 0, 0, 0xEA);
	assert_int_equal(wait_ready(f), DRDY | DSC);
	task_file(f, 0, 0, 0xF8);
	assert_int_equal(inb(f->r, L0) | inb(f->r, L1) << 8, SECTORS - 1);
	stop(f);
}

static void trim_takes_a_list_and_bounds_it(void **state)
{
	struct fixture *f = start();
	uint8_t *list = f->r->ram->host + MEM;

	store_le64(list, UINT64_C(8) << 48 | 100);
	prd(f, 0, MEM, 512, true);
	start_bm(f, false);
	outb(f->r, ERR, 1);
	task_file48(f, 0, 1, 0x06);
	assert_int_equal(wait_ready(f), DRDY | DSC);
	outb(f->r, BM, 0);
	store_le64(list + 8, UINT64_C(8) << 48 | (SECTORS - 1));
	start_bm(f, false);
	outb(f->r, ERR, 1);
	task_file48(f, 0, 1, 0x06);
	assert_int_equal(wait_ready(f), DRDY | DSC | ERRBIT);
	stop(f);
}

static void software_reset_shows_the_signature(void **state)
{
	struct fixture *f = start();

	task_file(f, 0x123456, 9, 0x20); /* a request is in flight */
	outb(f->r, CTL, 4);
	assert_int_equal(inb(f->r, CTL) & BSY, BSY);
	outb(f->r, CTL, 0);
	assert_int_equal(wait_ready(f), DRDY | DSC);
	assert_int_equal(inb(f->r, ERR), 1);
	assert_int_equal(inb(f->r, CNT), 1);
	assert_int_equal(inb(f->r, L0), 1);
	assert_int_equal(inb(f->r, L1), 0);
	assert_int_equal(inb(f->r, L2), 0);
	assert_false(f->r->irq[IRQ]);
	uint8_t buf[512];
	task_file(f, 3, 1, 0x20);
	assert_int_equal(wait_ready(f), DRDY | DSC | DRQ);
	ins(f, buf, 256);
	assert_true(rig_is_sector(buf, 3));
	stop(f);
}

static void nien_holds_the_interrupt_back(void **state)
{
	struct fixture *f = start();

	outb(f->r, CTL, 2);
	task_file(f, 0, 0, 0xEC);
	assert_false(f->r->irq[IRQ]);
	outb(f->r, CTL, 0);
	assert_true(f->r->irq[IRQ]);
	stop(f);
}

static void absent_drives_read_as_zero(void **state)
{
	struct fixture *f = start();

	outb(f->r, DEV, 0xB0);
	outb(f->r, CNT, 0x55);
	assert_int_equal(inb(f->r, CMD), 0);
	assert_int_equal(inb(f->r, CNT), 0);
	outb(f->r, CMD, 0xEC);
	assert_int_equal(inb(f->r, CMD), 0);
	assert_int_equal(inb(f->r, 0x177), 0);
	outb(f->r, DEV, 0xA0);
	assert_int_equal(inb(f->r, DEV), 0xA0);
	assert_int_equal(inb(f->r, CNT), 0x55);
	stop(f);
}

static void state_is_restored_in_the_middle_of_a_block(void **state)
{
	struct fixture *f = start();
	struct strbuf saved = STRBUF_INIT;
	struct error err = ERROR_INIT;
	uint8_t buf[1024];

	task_file(f, 20, 2, 0x20);
	wait_ready(f);
	ins(f, buf, 100);
	state_save(f->r->env.states, &saved);
	state_reset_all(f->r->env.states);
	assert_int_equal(inb(f->r, CTL), DRDY | DSC);
	assert_int_equal(state_load(f->r->env.states, saved.data, saved.len, &err), 0);
	assert_true(f->r->irq[IRQ]);
	ins(f, buf + 200, 156);
	assert_int_equal(wait_ready(f), DRDY | DSC | DRQ);
	ins(f, buf + 512, 256);
	assert_true(rig_is_sector(buf, 20));
	assert_true(rig_is_sector(buf + 512, 21));
	strbuf_free(&saved);
	stop(f);
}

static void software_reset_selects_drive_0(void **state)
{
	struct fixture *f = start();

	outb(f->r, DEV, 0xF0);
	outb(f->r, CTL, 4);
	outb(f->r, CTL, 0);
	assert_int_equal(wait_ready(f), DRDY | DSC);
	assert_int_equal(inb(f->r, DEV), 0xA0);
	stop(f);
}

static unsigned hook_calls;

static void count_write(void *opaque, const uint8_t *host, size_t len)
{
	hook_calls++;
}

/* The worker has written to guest memory although nobody wants the data any more. */
static void aborted_dma_read_still_tells_what_it_wrote(void **state)
{
	struct fixture *f = start();

	hook_calls = 0;
	memory_set_write_hook(f->r->env.mem, count_write, NULL);
	prd(f, 0, MEM, 4096, true);
	start_bm(f, true);
	task_file(f, 0, 8, 0xC8);
	assert_int_equal(inb(f->r, CTL) & BSY, BSY);
	outb(f->r, CTL, 4);
	outb(f->r, CTL, 0);
	assert_int_equal(wait_ready(f), DRDY | DSC);
	assert_true(hook_calls > 0);
	assert_true(rig_is_sector(f->r->ram->host + MEM, 0));
	stop(f);
}

static void geometry_follows_size_and_partition_table(void **state)
{
	struct rig *r = rig_new(true);
	static const struct {
		uint64_t sectors;
		uint8_t head, sector; /* of the partition's end; 0: no table */
		unsigned c, h, s, translation;
	} cases[] = {
		{40960, 0, 0, 40, 16, 63, IDE_TRANSLATION_NONE},
		{UINT64_C(4) << 21, 0, 0, 8322, 16, 63, IDE_TRANSLATION_LBA},
		{UINT64_C(100) << 21, 0, 0, 16383, 16, 63, IDE_TRANSLATION_LBA},
		{40960, 3, 17, 602, 4, 17, IDE_TRANSLATION_NONE},
		{UINT64_C(4) << 21, 254, 63, 8322, 16, 63, IDE_TRANSLATION_LBA},
		{UINT64_C(2) << 21, 254, 63, 4161, 16, 63, IDE_TRANSLATION_LARGE},
		{1, 0, 0, 2, 16, 63, IDE_TRANSLATION_NONE},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *path = rig_image(cases[i].sectors * 512);
		uint8_t mbr[512] = {0};
		struct ide_geometry g;

		mbr[446 + 5] = cases[i].head;
		mbr[446 + 6] = cases[i].sector;
		mbr[446 + 12] = cases[i].head ? 1 : 0;
		store_le16(mbr + 510, 0xAA55);
		int fd = open(path, O_WRONLY);
		assert_int_equal(pwrite_full(fd, mbr, 512, 0), 0);
		close(fd);
		struct drive *d = rig_drive(r, DRIVE_DISK, path, 0);
		ide_geometry(d, &g);
		assert_int_equal(g.cylinders, cases[i].c);
		assert_int_equal(g.heads, cases[i].h);
		assert_int_equal(g.sectors, cases[i].s);
		assert_int_equal(g.translation, cases[i].translation);
		drive_free(d);
		unlink(path);
		free(path);
	}
	rig_free(r);
}

/* Random register writes and data accesses must leave a controller that still works. */
static void survives_random_accesses(void **state)
{
	struct fixture *f = start();
	uint32_t seed = 12345;

	for (int i = 0; i < 200000; i++) {
		seed = seed * 1664525 + 1013904223;
		uint32_t v = seed >> 8;
		static const uint16_t ports[] = {DATA,  ERR,   CNT,   L0,    L1,     L2,
						 DEV,   CMD,   CTL,   BM,    BM + 2, BM + 4,
						 0x170, 0x177, 0x376, BM + 8};
		uint16_t port = ports[v & 15];
		unsigned size = port == DATA || port == BM + 4 ? 1u << (v >> 4 & 1) * 2 : 1;
		if (v & 0x100000)
			in(f->r, port, size);
		else
			out(f->r, port, size, seed >> 3);
		if (i % 64 == 0)
			rig_turn(f->r);
	}
	state_reset_all(f->r->env.states);
	uint8_t buf[512];
	task_file(f, 8000, 1, 0x40);
	assert_int_equal(wait_ready(f), DRDY | DSC);
	task_file(f, 0, 0, 0xEC);
	assert_int_equal(wait_ready(f), DRDY | DSC | DRQ);
	ins(f, buf, 256);
	stop(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(identify_is_consistent),
		cmocka_unit_test(pio_read_interrupts_for_each_sector),
		cmocka_unit_test(pio_read_of_256_sectors_needs_two_buffers),
		cmocka_unit_test(read_multiple_interrupts_for_each_block),
		cmocka_unit_test(set_multiple_refuses_odd_counts),
		cmocka_unit_test(pio_write_reaches_the_image),
		cmocka_unit_test(chs_follows_initialize_device_parameters),
		cmocka_unit_test(lba48_read_and_hob),
		cmocka_unit_test(extent_past_the_end_is_idnf),
		cmocka_unit_test(dma_read_scatters),
		cmocka_unit_test(dma_write_ext_with_start_after_the_command),
		cmocka_unit_test(dma_with_a_long_table_stays_active),
		cmocka_unit_test(dma_with_a_short_table_does_not_interrupt),
		cmocka_unit_test(dma_outside_ram_is_an_error),
		cmocka_unit_test(read_only_disk_aborts_writes),
		cmocka_unit_test(unknown_commands_and_smart_abort),
		cmocka_unit_test(features_power_and_flush),
		cmocka_unit_test(trim_takes_a_list_and_bounds_it),
		cmocka_unit_test(software_reset_shows_the_signature),
		cmocka_unit_test(nien_holds_the_interrupt_back),
		cmocka_unit_test(absent_drives_read_as_zero),
		cmocka_unit_test(state_is_restored_in_the_middle_of_a_block),
		cmocka_unit_test(software_reset_selects_drive_0),
		cmocka_unit_test(aborted_dma_read_still_tells_what_it_wrote),
		cmocka_unit_test(geometry_follows_size_and_partition_table),
		cmocka_unit_test(survives_random_accesses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
