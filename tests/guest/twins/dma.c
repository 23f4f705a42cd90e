/* SPDX-License-Identifier: MIT */
/*
 * 8237A (datasheet, "Register Description") and 82078 floppy controller (datasheet, chapters 2 and 5): registers, flip-flop, masks, page
 * registers, terminal count; reset, sense interrupt, specify, recalibrate, seek, read, write, read ID by DMA channel 2 and IRQ6.
 */
#include "rt.h"

enum { DOR = 0x3F2, MSR = 0x3F4, FIFO = 0x3F5, DIR = 0x3F7 };
static uint8_t buffer[4096] __attribute__((aligned(4096)));
static volatile uint32_t irqs;

static void on_irq6(struct frame *f)
{
	(void)f;
	irqs++;
	outb(0x20, 0x20);
}

static bool wait_irq(void)
{
	sti();
	bool came = WAIT(irqs);
	cli();
	irqs = 0;
	return came;
}

static void send(uint8_t b)
{
	WAIT((inb(MSR) & 0xC0) == 0x80);
	outb(FIFO, b);
}

static uint32_t result(void)
{
	if (!WAIT_MS(500, (inb(MSR) & 0xC0) == 0xC0))
		return 0xEE00;
	return inb(FIFO);
}

static void say_results(const char *name, unsigned n)
{
	uint32_t r[8] = {0};
	for (unsigned i = 0; i < n && i < 8; i++)
		r[i] = result();
	say("%s: %b %b %b %b %b %b %b, then msr %b", name, r[0], r[1], r[2], r[3], r[4], r[5], r[6],
	    inb(MSR) & 0xF0);
}

static void registers(void)
{
	outb(0x0D, 0);
	outb(0x0C, 0);
	outb(0x00, 0x34);
	outb(0x00, 0x12);
	outb(0x01, 0x78);
	outb(0x01, 0x56);
	outb(0x0C, 0);
	uint8_t a = inb(0x00), b = inb(0x00), c = inb(0x01), d = inb(0x01);
	say("channel 0: address %b%b count %b%b", b, a, d, c);
	outb(0x00, 0xEE);
	outb(0x0C, 0); /* the flip-flop back to the low byte */
	say("flip-flop: %b", inb(0x00));
	outb(0x87, 0x9A);
	outb(0x81, 0xBC);
	outb(0x8B, 0xDE);
	say("pages: %b %b %b", inb(0x87), inb(0x81), inb(0x8B));
	outb(0xD8, 0);
	outb(0xC4, 0x21);
	outb(0xC4, 0x43);
	outb(0xD8, 0);
	a = inb(0xC4);
	say("channel 5: %b%b", inb(0xC4), a);
	say("status: %b %b", inb(0x08) & 0x0F, inb(0xD0) & 0x0F);
	outb(0x0D, 0);
	outb(0xDA, 0);
	outb(0xD6, 0xC0); /* cascade */
	outb(0xD4, 0x00);
}

static void set_up_dma(uint8_t mode, uint16_t bytes)
{
	uint32_t at = (uint32_t)buffer;

	outb(0x0A, 0x06);
	outb(0x0B, mode);
	outb(0x0C, 0);
	outb(0x04, (uint8_t)at);
	outb(0x04, (uint8_t)(at >> 8));
	outb(0x81, (uint8_t)(at >> 16));
	outb(0x05, (uint8_t)(bytes - 1));
	outb(0x05, (uint8_t)((bytes - 1) >> 8));
	outb(0x0A, 0x02);
}

static void say_dma(const char *name)
{
	outb(0x0C, 0);
	uint8_t a = inb(0x05), b = inb(0x05);
	say("%s: count %b%b terminal count %b sum %x", name, b, a, inb(0x08) & 4,
	    crc32(0, buffer, sizeof(buffer)));
}

static void rw(uint8_t command, uint8_t c, uint8_t h, uint8_t s, uint8_t eot)
{
	send(command);
	send((uint8_t)(h << 2));
	send(c);
	send(h);
	send(s);
	send(2);
	send(eot);
	send(0x1B);
	send(0xFF);
}

static void clear(void)
{
	for (unsigned i = 0; i < sizeof(buffer); i++)
		buffer[i] = 0;
}

void guest_main(void)
{
	registers();
	on_vector(0x26, on_irq6);
	pic_init(0xFFBF);
	outb(DOR, 0x00);
	delay_ms(1);
	outb(DOR, 0x1C);
	say("reset interrupt: %s", wait_irq() ? "yes" : "no");
	for (unsigned i = 0; i < 4; i++) {
		send(0x08);
		say_results("sense interrupt after reset", 2);
	}
	send(0x08);
	say_results("sense interrupt with none", 1);
	outb(DIR, 0);
	send(0x03);
	send(0xDF);
	send(0x02);
	send(0x10);
	say_results("version", 1);
	send(0x07);
	send(0x00);
	say("recalibrate: %s", wait_irq() ? "interrupt" : "none");
	send(0x08);
	say_results("sense interrupt", 2);
	send(0x0F);
	send(0x00);
	send(5);
	say("seek: %s", wait_irq() ? "interrupt" : "none");
	send(0x08);
	say_results("sense interrupt", 2);
	send(0x04);
	send(0x00);
	say_results("sense drive", 1);
	clear();
	set_up_dma(0x46, 1024);
	rw(0xE6, 5, 0, 3, 18);
	say("read 2 sectors: %s", wait_irq() ? "interrupt" : "none");
	say_results("read", 7);
	say_dma("read");
	say("first word %b%b", buffer[1], buffer[0]);
	for (unsigned i = 0; i < 1024; i++)
		buffer[i] = (uint8_t)(i * 7);
	set_up_dma(0x4A, 1024);
	rw(0xC5, 5, 0, 10, 18);
	say("write 2 sectors: %s", wait_irq() ? "interrupt" : "none");
	say_results("write", 7);
	clear();
	set_up_dma(0x46, 512);
	rw(0xE6, 5, 0, 11, 18);
	say("read back: %s", wait_irq() ? "interrupt" : "none");
	say_results("read back", 7);
	say_dma("read back");
	set_up_dma(0x46, 512);
	rw(0xE6, 5, 0, 19, 19);
	say("no such sector: %s", wait_irq() ? "interrupt" : "none");
	say_results("no such sector", 7);
	/* Terminal count at the end of a track, with both heads. */
	clear();
	set_up_dma(0x46, 1024);
	rw(0xE6, 5, 0, 18, 18);
	say("over the head: %s", wait_irq() ? "interrupt" : "none");
	say_results("over the head", 7);
	say_dma("over the head");
	send(0x99);
	say_results("unknown command", 1);
	say("dor %b", inb(DOR));
	clear();
	outb(0x21, 0xFF);
}
