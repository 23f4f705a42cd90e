/* SPDX-License-Identifier: MIT */
/*
 * 8259A pair (datasheet 8259A, "Programming the 8259A"; PIIX3 datasheet, ELCR): initialisation, masks, priorities, EOI forms, rotation,
 * AEOI, special mask, poll, spurious interrupts, edge and level. Requests come from PIT channel 0 (IRQ0: its output follows the mode and
 * the gate is always on), the RTC (IRQ8) and the UART-free keyboard controller (IRQ1, command D2).
 */
#include "rt.h"

enum { MASTER = 0x20, SLAVE = 0xA0 };

static uint8_t read_irr(uint16_t chip)
{
	outb(chip, 0x0A);
	return inb(chip);
}

static uint8_t read_isr(uint16_t chip)
{
	outb(chip, 0x0B);
	return inb(chip);
}

static void show(const char *name)
{
	say("%s: irr %b %b isr %b %b imr %b %b", name, read_irr(MASTER), read_irr(SLAVE), read_isr(MASTER), read_isr(SLAVE),
	    inb(MASTER + 1), inb(SLAVE + 1));
}

/* IRQ0's line: mode 0 with a count that has run out is high, one that was just written with no count is low. */
static void irq0(bool level)
{
	outb(0x43, 0x30);
	if (!level)
		return;
	outb(0x40, 1);
	outb(0x40, 0);
	WAIT_MS(100, read_irr(MASTER) & 1);
}

static void flush_keyboard(void)
{
	while (inb(0x64) & 1)
		inb(0x60);
}

/* IRQ1's line: a byte in the keyboard controller's output buffer, or not. */
static void irq1(bool level)
{
	if (!level) {
		flush_keyboard();
		return;
	}
	WAIT(!(inb(0x64) & 2));
	outb(0x64, 0xD2);
	WAIT(!(inb(0x64) & 2));
	outb(0x60, 0x5A);
	WAIT(inb(0x64) & 1);
}

static void keyboard_interrupts(void)
{
	WAIT(!(inb(0x64) & 2));
	outb(0x64, 0x60);
	WAIT(!(inb(0x64) & 2));
	outb(0x60, 0x21);
	flush_keyboard();
}

static uint8_t cmos(uint8_t index)
{
	outb(0x70, index);
	return inb(0x71);
}

static void set_cmos(uint8_t index, uint8_t value)
{
	outb(0x70, index);
	outb(0x71, value);
}

/* IRQ8's line: a periodic interrupt of the RTC, or none. */
static void irq8(bool level)
{
	if (level) {
		set_cmos(0x0A, 0x26);
		set_cmos(0x0B, 0x42);
		WAIT(read_irr(SLAVE) & 1);
		set_cmos(0x0B, 0x42);
	} else {
		set_cmos(0x0B, 0x02);
		cmos(0x0C);
	}
}

static uint8_t order[8];
static unsigned taken;
static bool no_eoi;

static void take(struct frame *f)
{
	if (taken < sizeof(order))
		order[taken++] = (uint8_t)f->vector;
	if (f->vector == 0x20)
		irq0(false);
	else if (f->vector == 0x21)
		irq1(false);
	else if (f->vector == 0x28)
		irq8(false);
	if (no_eoi)
		return;
	if (f->vector >= 0x28)
		outb(SLAVE, 0x20);
	outb(MASTER, 0x20);
}

static void show_taken(const char *name)
{
	say("%s: %d taken: %b %b %b %b", name, taken, order[0], order[1], order[2], order[3]);
	taken = 0;
	for (unsigned i = 0; i < sizeof(order); i++)
		order[i] = 0;
}

static void open_window(void)
{
	sti();
	delay_ms(1);
	cli();
}

static void masks_and_requests(void)
{
	pic_init(0xFFFF);
	irq0(false);
	irq1(false);
	irq8(false);
	show("after init");
	outb(MASTER + 1, 0x5A);
	outb(SLAVE + 1, 0xA5);
	say("imr: %b %b", inb(MASTER + 1), inb(SLAVE + 1));
	pic_init(0xFFFF);
	irq0(true);
	show("irq0 up");
	irq0(false);
	show("irq0 down");
	irq1(true);
	irq0(true);
	show("irq0 and irq1");
	open_window();
	show_taken("all masked");
	outb(MASTER + 1, 0xFC);
	open_window();
	show_taken("both");
	show("afterwards");
	irq1(true);
	irq8(true);
	show("irq1 and irq8");
	outb(MASTER + 1, 0xF8);
	outb(SLAVE + 1, 0xFE);
	open_window();
	show_taken("irq1, irq8");
	show("afterwards");
}

static void in_service(void)
{
	pic_init(0xFFFC);
	no_eoi = true;
	irq1(true);
	open_window();
	show_taken("irq1 in service");
	show("in service");
	irq1(true);
	open_window();
	show_taken("irq1 again");
	irq0(true);
	open_window();
	show_taken("irq0 nests");
	show("two in service");
	outb(MASTER, 0x20);
	show("non-specific eoi");
	outb(MASTER, 0x61);
	show("specific eoi of 1");
	open_window();
	show_taken("irq1 left");
	outb(MASTER, 0x20);
	/* Special mask mode lets lower ones through while one is in service but masked. */
	irq0(true);
	open_window();
	show_taken("irq0");
	irq1(true);
	open_window();
	show_taken("irq1 behind irq0");
	outb(MASTER + 1, 0xFD);
	outb(MASTER, 0x68);
	open_window();
	show_taken("special mask");
	show("special mask");
	outb(MASTER, 0x48);
	outb(MASTER, 0x60);
	outb(MASTER, 0x61);
	show("cleared");
	no_eoi = false;
}

static void rotation(void)
{
	pic_init(0xFFFC);
	outb(MASTER, 0xC0); /* lowest priority: IRQ0 */
	irq0(true);
	irq1(true);
	open_window();
	show_taken("irq0 lowest");
	no_eoi = true;
	irq1(true);
	open_window();
	show_taken("irq1");
	outb(MASTER, 0xA0); /* rotate on non-specific EOI */
	irq0(true);
	irq1(true);
	show("rotated");
	no_eoi = false;
	open_window();
	show_taken("irq1 lowest");
	outb(MASTER, 0xC7);
	/* Automatic EOI. */
	outb(MASTER, 0x11);
	outb(MASTER + 1, 0x20);
	outb(MASTER + 1, 0x04);
	outb(MASTER + 1, 0x03);
	outb(MASTER + 1, 0xFC);
	no_eoi = true;
	irq0(true);
	irq1(true);
	open_window();
	show_taken("aeoi");
	show("aeoi");
	no_eoi = false;
}

static void polling(void)
{
	pic_init(0xFFFC);
	outb(MASTER, 0x0C);
	say("poll, nothing: %b", inb(MASTER) & 0x80);
	irq1(true);
	outb(MASTER, 0x0C);
	say("poll: %b", inb(MASTER) & 0x87);
	show("polled");
	irq1(false);
	outb(MASTER, 0x20);
	show("after eoi");
}

static void levels(void)
{
	say("elcr after reset: %b %b", inb(0x4D0), inb(0x4D1));
	outb(0x4D0, 0xFF);
	outb(0x4D1, 0xFF);
	say("elcr all ones: %b %b", inb(0x4D0), inb(0x4D1));
	outb(0x4D0, 0);
	outb(0x4D1, 0);
	/* An edge is remembered while masked and taken when the line stays up. */
	pic_init(0xFFFF);
	irq1(true);
	pic_init(0xFFFF);
	show("init forgets edges");
	irq1(false);
	irq1(true);
	show("a new edge");
	irq1(false);
	show("line down");
}

static void spurious(void)
{
	/* The request goes away between INTR and acknowledge: done with interrupts off, IRR clear, nothing comes. */
	pic_init(0xFFFC);
	irq1(true);
	irq1(false);
	open_window();
	show_taken("request withdrawn");
	outb(MASTER + 1, 0x7F & ~0);
	outb(MASTER, 0x0B);
	say("isr: %b", inb(MASTER));
}

void guest_main(void)
{
	for (unsigned v = 0x20; v < 0x30; v++)
		on_vector(v, take);
	keyboard_interrupts();
	masks_and_requests();
	in_service();
	rotation();
	polling();
	levels();
	spurious();
	outb(MASTER + 1, 0xFF);
	outb(SLAVE + 1, 0xFF);
}
