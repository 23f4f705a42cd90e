/* SPDX-License-Identifier: MIT */
/*
 * A virtio disk in slot 4 and a virtio random number card in slot 5 (virtio 1.2: 4.1 transport over PCI, 2.7 split queues, 5.2 and 5.4),
 * through the legacy and the modern interface: requests by polling, by INTA over the 8259s and by MSI-X messages to the local APIC, and
 * resets. Every sector of the disk holds its number.
 */
#include "rt.h"

enum { DISK = 4, RANDOM = 5, IO = 0xC000, IO_STEP = 0x100 };
#define MSIX_TABLE(slot) (0xFE000000u + (slot)*0x10000u)
#define MODERN(slot)     (0xFE800000u + (slot)*0x10000u)

/* Configuration space. */
enum {
	PCI_ID = 0,
	PCI_COMMAND = 4,
	PCI_BAR = 0x10,
	PCI_CAPABILITIES = 0x34,
	COMMAND_ALL = 7,
	CAP_MSIX = 0x11
};
#define MSIX_ENABLE 0x80000000u

/* Registers of the legacy interface and of the modern common structure. */
enum {
	L_FEATURES = 0,
	L_DRIVER = 4,
	L_PAGE = 8,
	L_SIZE = 12,
	L_SELECT = 14,
	L_NOTIFY = 16,
	L_STATUS = 18,
	L_ISR = 19,
	L_CONFIG = 20,
	L_QUEUE_VECTOR = 22
};
enum {
	M_DFSELECT = 0,
	M_DF = 4,
	M_GFSELECT = 8,
	M_GF = 12,
	M_STATUS = 20,
	M_SELECT = 22,
	M_QSIZE = 24,
	M_VECTOR = 26,
	M_ENABLE = 28,
	M_DESC = 32,
	M_AVAIL = 40,
	M_USED = 48,
	M_ISR = 0x1000,
	M_NOTIFY = 0x3000
};
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
enum { DESC_NEXT = 1, DESC_WRITE = 2 };
enum { REQ_READ = 0, REQ_WRITE = 1, REQ_ID = 8 };

/* Guest memory, above what is compared. */
#define RINGS(slot) (0x60000u + ((slot)-DISK) * 0x4000u)
#define DATA        0x70000u

/* Of queue 0 of each card. */
static struct queue {
	uint32_t avail, used; /* where the rings are */
	uint16_t entries, avail_idx, used_seen;
} queues[2];

static struct queue *queue(unsigned slot)
{
	return &queues[slot - DISK];
}

static uint32_t config_read(unsigned slot, unsigned reg)
{
	outl(0xCF8, 0x80000000u | slot << 11 | reg);
	return inl(0xCFC);
}

static void config_write(unsigned slot, unsigned reg, uint32_t value)
{
	outl(0xCF8, 0x80000000u | slot << 11 | reg);
	outl(0xCFC, value);
}

static uint16_t io(unsigned slot)
{
	return (uint16_t)(IO + slot * IO_STEP);
}

static uint16_t read16(uint32_t address)
{
	return (uint16_t)(read32(address & ~3u) >> (address & 2) * 8);
}

static void write16(uint32_t address, uint16_t v)
{
	asm volatile("movw %0, (%1)" : : "r"(v), "r"(address) : "memory");
}

static void write8(uint32_t address, uint8_t v)
{
	asm volatile("movb %0, (%1)" : : "q"(v), "r"(address) : "memory");
}

/* Where the MSI-X capability is. */
static unsigned find_msix(unsigned slot)
{
	unsigned at = config_read(slot, PCI_CAPABILITIES) & 0xFC;

	for (unsigned n = 0; at && n < 48; n++) {
		uint32_t head = config_read(slot, at);
		if ((head & 0xFF) == CAP_MSIX)
			return at;
		at = head >> 8 & 0xFC;
	}
	return 0;
}

static void place(unsigned slot)
{
	config_write(slot, PCI_BAR, io(slot));
	config_write(slot, PCI_BAR + 4, MSIX_TABLE(slot));
	config_write(slot, PCI_BAR + 16, MODERN(slot));
	config_write(slot, PCI_BAR + 20, 0); /* the upper half where the BAR has 64 bits */
	config_write(slot, PCI_COMMAND, COMMAND_ALL);
}

/* An empty queue: descriptors, the available ring behind them, the used ring in the next page. */
static void lay_out(unsigned slot, uint16_t entries)
{
	for (uint32_t at = RINGS(slot); at < RINGS(slot) + 0x4000; at += 4)
		write32(at, 0);
	uint32_t avail = RINGS(slot) + 16u * entries;
	*queue(slot) = (struct queue){.avail = avail,
				      .used = (avail + 6 + 2u * entries + 0xFFF) & ~0xFFFu,
				      .entries = entries};
}

/* Resets the card and sets up queue 0 through the legacy interface. */
static void start_legacy(unsigned slot, bool msix)
{
	uint16_t base = io(slot);

	outb(base + L_STATUS, 0);
	outb(base + L_STATUS, ACKNOWLEDGE | DRIVER);
	outl(base + L_DRIVER, 0);
	outw(base + L_SELECT, 0);
	lay_out(slot, inw(base + L_SIZE));
	if (slot == DISK)
		say("queue of %d", queue(slot)->entries);
	outl(base + L_PAGE, RINGS(slot) >> 12);
	if (msix) {
		outw(base + L_QUEUE_VECTOR, 1);
		say("vector %d", inw(base + L_QUEUE_VECTOR));
	}
	outb(base + L_STATUS, ACKNOWLEDGE | DRIVER | DRIVER_OK);
	say("slot %d runs: status %b", slot, inb(base + L_STATUS));
}

static uint8_t modern_status(unsigned slot)
{
	return (uint8_t)read32(MODERN(slot) + M_STATUS);
}

static void start_modern(unsigned slot, bool msix)
{
	uint32_t m = MODERN(slot), rings = RINGS(slot);

	write8(m + M_STATUS, 0);
	write8(m + M_STATUS, ACKNOWLEDGE | DRIVER);
	write32(m + M_DFSELECT, 1);
	say("version 1: %d", read32(m + M_DF) & 1);
	write32(m + M_GFSELECT, 0);
	write32(m + M_GF, 0);
	write32(m + M_GFSELECT, 1);
	write32(m + M_GF, 1);
	write8(m + M_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
	say("features: status %b", modern_status(slot));
	write16(m + M_SELECT, 0);
	write16(m + M_QSIZE, 8);
	lay_out(slot, 8);
	write16(m + M_VECTOR, msix ? 1 : 0xFFFF);
	write32(m + M_DESC, rings);
	write32(m + M_DESC + 4, 0);
	write32(m + M_AVAIL, queue(slot)->avail);
	write32(m + M_AVAIL + 4, 0);
	write32(m + M_USED, queue(slot)->used);
	write32(m + M_USED + 4, 0);
	write16(m + M_ENABLE, 1);
	write8(m + M_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
	say("slot %d runs: status %b", slot, modern_status(slot));
}

static void describe(unsigned slot, unsigned n, uint32_t at, uint32_t len, uint16_t flags)
{
	uint32_t d = RINGS(slot) + 16 * n;

	write32(d, at);
	write32(d + 4, 0);
	write32(d + 8, len);
	write32(d + 12, flags | (n + 1) << 16);
}

/* Makes the chain that begins at descriptor `head` available and tells the card. */
static void offer(unsigned slot, unsigned head, bool modern)
{
	struct queue *q = queue(slot);

	write16(q->avail + 4 + q->avail_idx % q->entries * 2u, (uint16_t)head);
	write16(q->avail + 2, ++q->avail_idx);
	if (modern)
		write16(MODERN(slot) + M_NOTIFY, 0);
	else
		outw(io(slot) + L_NOTIFY, 0);
}

static bool returned(unsigned slot)
{
	return read16(queue(slot)->used + 2) != queue(slot)->used_seen;
}

/* Bytes that the card says it wrote. */
static uint32_t take_back(unsigned slot)
{
	struct queue *q = queue(slot);

	WAIT(returned(slot));
	return read32(q->used + 8 + q->used_seen++ % q->entries * 8u);
}

/* A request of `len` bytes to or from DATA + 0x200; its status byte is at DATA + 0x100. */
static void request(uint32_t type, uint32_t sector, uint32_t len, bool modern)
{
	write32(DATA, type);
	write32(DATA + 4, 0);
	write32(DATA + 8, sector);
	write32(DATA + 12, 0);
	write32(DATA + 0x100, 0xEE);
	describe(DISK, 0, DATA, 16, DESC_NEXT);
	describe(DISK, 1, DATA + 0x200, len,
		 type == REQ_WRITE ? DESC_NEXT : DESC_NEXT | DESC_WRITE);
	describe(DISK, 2, DATA + 0x100, 1, DESC_WRITE);
	offer(DISK, 0, modern);
}

static void say_request(const char *what, uint32_t len)
{
	uint32_t written = take_back(DISK);
	static uint32_t copy[512];

	for (unsigned n = 0; n < len / 4; n++)
		copy[n] = read32(DATA + 0x200 + 4 * n);
	say("%s: %d written, status %b, first %x, sum %x", what, written,
	    read32(DATA + 0x100) & 0xFF, copy[0], crc32(0, copy, len));
}

static void polled(bool modern)
{
	request(REQ_READ, 7, 1024, modern);
	say_request("read", 1024);
	for (unsigned n = 0; n < 256; n++)
		write32(DATA + 0x200 + 4 * n, n * 0x01234567 + modern);
	request(REQ_WRITE, 300, 1024, modern);
	say_request("write", 1024);
	write32(DATA + 0x200, 0);
	request(REQ_READ, 300, 1024, modern);
	say_request("what was written", 1024);
	request(REQ_READ, 8192, 512, modern);
	WAIT(returned(DISK));
	take_back(DISK);
	say("behind the end: status %b", read32(DATA + 0x100) & 0xFF);
	request(99, 0, 512, modern);
	take_back(DISK);
	say("unknown request: status %b", read32(DATA + 0x100) & 0xFF);
	write32(DATA + 0x204, 0);
	request(REQ_ID, 0, 20, modern);
	take_back(DISK);
	say("id: %x %x", read32(DATA + 0x200), read32(DATA + 0x204));
	/* Many in a row: each is found. */
	uint32_t sum = 0;
	for (uint32_t n = 0; n < 600; n++) {
		request(REQ_READ, n, 512, modern);
		take_back(DISK);
		sum += read32(DATA + 0x200);
	}
	say("sum of 600: %d", sum);
}

static void random(bool modern)
{
	uint32_t or = 0;

	for (unsigned n = 0; n < 16; n++)
		write32(DATA + 0x200 + 4 * n, 0);
	describe(RANDOM, 0, DATA + 0x200, 64, DESC_WRITE);
	offer(RANDOM, 0, modern);
	uint32_t written = take_back(RANDOM);
	for (unsigned n = 0; n < 16; n++)
		or |= read32(DATA + 0x200 + 4 * n);
	say("random bytes: %s, %s", written > 0 && written <= 64 ? "some" : "wrong",
	    or ? "not zero" : "zero");
}

static volatile uint32_t interrupts, isr_bits;
static volatile bool message;

static void on_interrupt(struct frame *f)
{
	(void)f;
	interrupts++;
	if (message) {
		write32(0xFEE000B0, 0);
		return;
	}
	isr_bits |= inb(io(DISK) + L_ISR);
	outb(0xA0, 0x20);
	outb(0x20, 0x20);
}

static void interrupted(const char *what, bool modern)
{
	interrupts = isr_bits = 0;
	for (uint32_t n = 0; n < 20; n++) {
		request(REQ_READ, n, 512, modern);
		sti();
		WAIT(interrupts == n + 1);
		cli();
		take_back(DISK);
	}
	say("%s: %d interrupts for 20 requests, isr %b, last sector %x", what, interrupts, isr_bits,
	    read32(DATA + 0x200));
}

static void by_pin(void)
{
	enum { ISA_BRIDGE = 1, PIRQ_ROUTES = 0x60, PIRQD_IS_IRQ11 = 0x0B808080, ELCR2 = 0x4D1 };

	config_write(ISA_BRIDGE, PIRQ_ROUTES, PIRQD_IS_IRQ11);
	outb(ELCR2, 1 << (11 - 8));
	on_vector(0x2B, on_interrupt);
	start_legacy(DISK, false);
	pic_init((uint16_t) ~(1 << 11 | 1 << 2));
	interrupted("INTA, legacy", false);
	start_modern(DISK, false);
	interrupted("INTA, modern", true);
	outb(0x21, 0xFF);
	outb(0xA1, 0xFF);
}

static void by_message(void)
{
	enum { VECTOR = 0x61 };
	unsigned cap = find_msix(DISK);

	write32(0xFEE000F0, 0x1FF); /* the local APIC on, spurious vector FFh */
	on_vector(VECTOR, on_interrupt);
	on_vector(VECTOR + 1, on_interrupt);
	message = true;
	write32(MSIX_TABLE(DISK) + 16, 0xFEE00000);
	write32(MSIX_TABLE(DISK) + 20, 0);
	write32(MSIX_TABLE(DISK) + 24, VECTOR);
	write32(MSIX_TABLE(DISK) + 28, 0);
	config_write(DISK, cap, config_read(DISK, cap) | MSIX_ENABLE);
	start_legacy(DISK, true);
	interrupted("MSI-X, legacy", false);
	start_modern(DISK, true);
	interrupted("MSI-X, modern", true);
	/* Masked: one that is pending comes when it is unmasked, and with what the entry says then. */
	write32(MSIX_TABLE(DISK) + 28, 1);
	interrupts = 0;
	request(REQ_READ, 3, 512, true);
	take_back(DISK);
	sti();
	delay_ms(2);
	cli();
	say("masked: %d interrupts, pending %x", interrupts, read32(MSIX_TABLE(DISK) + 0x800) & 2);
	write32(MSIX_TABLE(DISK) + 24, VECTOR + 1);
	write32(MSIX_TABLE(DISK) + 28, 0);
	sti();
	WAIT(interrupts);
	cli();
	say("unmasked: %d interrupts", interrupts);
	interrupted("MSI-X, another message", true);
}

void guest_main(void)
{
	place(DISK);
	place(RANDOM);
	say("disk %x, random %x", config_read(DISK, PCI_ID), config_read(RANDOM, PCI_ID));
	start_legacy(DISK, false);
	polled(false);
	say("capacity %d", inl(io(DISK) + L_CONFIG));
	start_legacy(RANDOM, false);
	random(false);
	start_modern(DISK, false);
	polled(true);
	start_modern(RANDOM, false);
	random(true);
	/* Elsewhere: the notification registers move with the BARs. */
	config_write(DISK, PCI_BAR, 0xD000);
	config_write(DISK, PCI_BAR + 16, 0xFEA00000);
	config_write(DISK, PCI_BAR, io(DISK));
	config_write(DISK, PCI_BAR + 16, MODERN(DISK));
	request(REQ_READ, 9, 512, true);
	say_request("read after moving", 512);
	by_pin();
	by_message();
	/* What differs between machines, and the tables of the registers, stay out of the comparison. */
	write8(MODERN(RANDOM) + M_STATUS, 0);
	outl(0xCF8, 0);
}
