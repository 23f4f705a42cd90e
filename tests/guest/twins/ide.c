/* SPDX-License-Identifier: MIT */
/*
 * IDE (ATA/ATAPI-6, chapters 7 to 9) on the primary channel: signature, IDENTIFY, READ and WRITE SECTORS, MULTIPLE, LBA and CHS, errors,
 * interrupts, soft reset, absent drives; bus-master DMA (82371SB datasheet, 2.7). Every sector of the disk holds its number.
 */
#include "rt.h"

enum { BASE = 0x1F0, CONTROL = 0x3F6 };
enum { BSY = 0x80, DRDY = 0x40, DF = 0x20, DRQ = 0x08, ERR = 0x01 };
enum { BUFFER = 0x20000 };

static uint16_t sector[8 * 256];

static uint8_t wait_idle(void)
{
	WAIT(!(inb(CONTROL) & BSY));
	return inb(CONTROL) & (uint8_t)~0x10; /* DSC is history */
}

static void setup(uint32_t lba, uint8_t count, uint8_t command)
{
	wait_idle();
	outb(BASE + 6, (uint8_t)(0xE0 | (lba >> 24 & 15)));
	outb(BASE + 2, count);
	outb(BASE + 3, (uint8_t)lba);
	outb(BASE + 4, (uint8_t)(lba >> 8));
	outb(BASE + 5, (uint8_t)(lba >> 16));
	outb(BASE + 7, command);
	inb(CONTROL);
	inb(CONTROL);
}

static void say_state(const char *name)
{
	uint8_t status = wait_idle();
	say("%s: status %b error %b", name, status, status & ERR ? inb(BASE + 1) : 0);
	say("task file, %s: count %b lba %b%b%b drive %b", name, inb(BASE + 2), inb(BASE + 5),
	    inb(BASE + 4), inb(BASE + 3), inb(BASE + 6));
}

static void read_data(uint16_t *to, uint32_t words)
{
	asm volatile("rep insw" : "+D"(to), "+c"(words) : "d"(BASE) : "memory");
}

static void write_data(const uint16_t *from, uint32_t words)
{
	asm volatile("rep outsw" : "+S"(from), "+c"(words) : "d"(BASE) : "memory");
}

static volatile uint32_t irqs;

static void on_irq14(struct frame *f)
{
	(void)f;
	irqs++;
	inb(BASE + 7);
	outb(0xA0, 0x20);
	outb(0x20, 0x20);
}

static void clear(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(sector); i++)
		sector[i] = 0;
}

static void reads(void)
{
	say_state("after reset");
	setup(0, 0, 0xEC);
	say_state("identify");
	read_data(sector, 256);
	say("identity: chs %d %d %d lba %d capabilities %w multiple %w valid %w", sector[1],
	    sector[3], sector[6], sector[60] | (uint32_t)sector[61] << 16, sector[49], sector[47],
	    sector[53] & 7);
	clear();
	setup(5, 1, 0x20);
	say_state("read 1");
	read_data(sector, 256);
	say("sector 5: %w%w %x", sector[1], sector[0], crc32(0, sector, 512));
	say_state("afterwards");
	setup(100, 3, 0x20);
	for (unsigned i = 0; i < 3; i++) {
		uint8_t s = wait_idle();
		read_data(sector, 256);
		say("sector %d of 3: status %b %w", i, s, sector[0]);
	}
	say_state("afterwards");
	setup(0, 4, 0xC6);
	say_state("set multiple 4");
	setup(200, 6, 0xC4);
	say_state("read multiple");
	read_data(sector, 4 * 256);
	say("first block: %w %w %x", sector[0], sector[3 * 256], crc32(0, sector, 2048));
	say_state("second block");
	read_data(sector, 2 * 256);
	say("second block: %w %w", sector[0], sector[256]);
	say_state("afterwards");
	/* CHS 1/2/3 in the drive's own geometry. */
	wait_idle();
	outb(BASE + 6, 0xA2);
	outb(BASE + 2, 1);
	outb(BASE + 3, 3);
	outb(BASE + 4, 1);
	outb(BASE + 5, 0);
	outb(BASE + 7, 0x20);
	say_state("read chs");
	read_data(sector, 256);
	say("chs 1/2/3 is sector %w", sector[0]);
}

static void writes(void)
{
	for (unsigned i = 0; i < 512; i++)
		sector[i] = (uint16_t)(i * 0x1234 + 7);
	uint32_t sum = crc32(0, sector, 1024);
	setup(300, 2, 0x30);
	say_state("write 2");
	write_data(sector, 256);
	say_state("first written");
	write_data(sector + 256, 256);
	say_state("written");
	clear();
	setup(300, 2, 0x20);
	wait_idle();
	read_data(sector, 256);
	wait_idle();
	read_data(sector + 256, 256);
	say("reads back: %s", crc32(0, sector, 1024) == sum ? "the same" : "something else");
	setup(0, 0, 0xE7);
	say_state("flush cache");
	setup(300, 2, 0xC5);
	say_state("write multiple");
	write_data(sector, 512);
	say_state("written");
	setup(301, 1, 0x40);
	say_state("verify");
}

static void errors(void)
{
	setup(8191, 1, 0x20);
	say_state("last sector");
	read_data(sector, 256);
	say("last sector: %w", sector[0]);
	setup(8192, 1, 0x20);
	say_state("behind the end");
	setup(0, 0, 0xFF);
	say_state("unknown command");
	setup(0, 0, 0xA1);
	say_state("identify packet device on a disk");
	say("signature: %b %b %b %b", inb(BASE + 2), inb(BASE + 3), inb(BASE + 4), inb(BASE + 5));
	setup(0, 0, 0x91 & 0xFF);
	say_state("initialize parameters");
	setup(0, 0, 0xE5);
	say_state("check power mode");
	setup(0, 0, 0xE0);
	say_state("standby immediate");
	outb(BASE + 1, 0x03);
	setup(0, 0x0C, 0xEF);
	say_state("set features: pio 4");
	outb(BASE + 1, 0x77);
	setup(0, 0, 0xEF);
	say_state("set features: unknown");
	setup(0, 0, 0x90);
	say("diagnostics: status %b error %b %b %b %b %b", wait_idle(), inb(BASE + 1),
	    inb(BASE + 2), inb(BASE + 3), inb(BASE + 4), inb(BASE + 5));
	outb(CONTROL, 0x0E);
	delay_ms(1);
	outb(CONTROL, 0x0A);
	delay_ms(5);
	say("soft reset: status %b error %b %b %b %b %b", wait_idle(), inb(BASE + 1), inb(BASE + 2),
	    inb(BASE + 3), inb(BASE + 4), inb(BASE + 5));
	outb(BASE + 6, 0xB0);
	inb(CONTROL);
	say("no slave: %b", inb(CONTROL));
	outb(BASE + 6, 0xA0);
}

static void interrupts(void)
{
	on_vector(0x2E, on_irq14);
	pic_init(0xBFFB);
	outb(CONTROL, 0x08);
	irqs = 0;
	setup(7, 2, 0x20);
	sti();
	WAIT(irqs >= 1);
	read_data(sector, 256);
	WAIT(irqs >= 2);
	read_data(sector, 256);
	delay_ms(5);
	cli();
	say("interrupts for 2 sectors read: %d", irqs);
	irqs = 0;
	setup(7, 2, 0x30);
	sti();
	WAIT(inb(CONTROL) & DRQ);
	write_data(sector, 256);
	WAIT(irqs >= 1);
	write_data(sector, 256);
	WAIT(irqs >= 2);
	delay_ms(5);
	cli();
	say("interrupts for 2 sectors written: %d", irqs);
	outb(CONTROL, 0x0A);
	irqs = 0;
	setup(7, 1, 0x20);
	sti();
	wait_idle();
	delay_ms(2);
	cli();
	say("nIEN: %d", irqs);
	read_data(sector, 256);
}

static void config_write(uint8_t reg, uint32_t value)
{
	outl(0xCF8, 0x80000900 | reg);
	outl(0xCFC, value);
}

static uint32_t config_read(uint8_t reg)
{
	outl(0xCF8, 0x80000900 | reg);
	return inl(0xCFC);
}

static void bus_master(void)
{
	enum { BM = 0xC000, COMMAND = BM, STATUS = BM + 2, TABLE = BM + 4 };
	static uint32_t prd[4] __attribute__((aligned(4)));
	static uint8_t target[1024] __attribute__((aligned(4)));

	say("pci ide: %x class %x", config_read(0), config_read(8) >> 8);
	config_write(0x20, BM | 1);
	config_write(4, 5);
	say("bmiba: %x", config_read(0x20));
	outb(CONTROL, 0x08);
	pic_init(0xBFFB);
	prd[0] = (uint32_t)target;
	prd[1] = 512 + 256;
	prd[2] = (uint32_t)target + 768;
	prd[3] = 0x80000000u | 256;
	outb(COMMAND, 0);
	outb(STATUS, 0x06);
	outl(TABLE, (uint32_t)prd);
	irqs = 0;
	outb(COMMAND, 0x08);
	setup(40, 2, 0xC8);
	say("dma set up: status %b", inb(STATUS) & 7);
	sti();
	outb(COMMAND, 0x09);
	WAIT(irqs);
	cli();
	say("dma read: irqs %d status %b drive %b sum %x", irqs, inb(STATUS) & 7, wait_idle(),
	    crc32(0, target, 1024));
	outb(COMMAND, 0);
	outb(STATUS, 0x06);
	say("acknowledged: %b", inb(STATUS) & 7);
	for (unsigned i = 0; i < 1024; i++)
		target[i] = (uint8_t)(i * 3);
	irqs = 0;
	setup(500, 2, 0xCA);
	sti();
	outb(COMMAND, 0x01);
	WAIT(irqs);
	cli();
	say("dma write: irqs %d status %b drive %b", irqs, inb(STATUS) & 7, wait_idle());
	outb(COMMAND, 0);
	outb(STATUS, 0x06);
	clear();
	setup(500, 1, 0x20);
	wait_idle();
	read_data(sector, 256);
	say("reads back: %w %w %x", sector[0], sector[255], crc32(0, sector, 512));
	outb(BASE + 6, 0xA0);
	irqs = 0;
	outb(0x21, 0xFF);
	outb(0xA1, 0xFF);
	outl(0xCF8, 0);
}

void guest_main(void)
{
	outb(CONTROL, 0x0A);
	reads();
	writes();
	errors();
	interrupts();
	bus_master();
	clear();
}
