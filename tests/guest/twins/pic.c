/* SPDX-License-Identifier: MIT */
/*
 * 8259A pair (datasheet 8259A, "Programming the 8259A"; PIIX3 datasheet, ELCR): initialisation, masks, priorities, EOI forms, rotation,
 * AEOI, special mask, poll, spurious interrupts, edge and level. Requests come from
 * two UARTs (IRQ3 and IRQ4) and the RTC (IRQ8).
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
	say("%s: irr %b %b isr %b %b imr %b %b", name, read_irr(MASTER), read_irr(SLAVE),
	    read_isr(MASTER), read_isr(SLAVE), inb(MASTER + 1), inb(SLAVE + 1));
}

/* A UART's transmitter interrupt (16550A datasheet, IER bit 1): up while enabled and empty, as OUT2 lets it through. */
static void uart(uint16_t base, bool level)
{
	outb(base + 4, 0x08);
	outb(base + 1, 0);
	if (level)
		outb(base + 1, 2);
}

static void irq3(bool level)
{
	uart(0x2F8, level);
	if (level)
		WAIT_MS(100, read_irr(MASTER) & 0x08);
}

static void irq4(bool level)
{
	uart(0x3F8, level);
	if (level)
		WAIT_MS(100, read_irr(MASTER) & 0x10);
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
	if (f->vector == 0x23)
		irq3(false);
	else if (f->vector == 0x24)
		irq4(false);
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
	irq3(false);
	irq4(false);
	irq8(false);
	show("after init");
	outb(MASTER + 1, 0x5A);
	outb(SLAVE + 1, 0xA5);
	say("imr: %b %b", inb(MASTER + 1), inb(SLAVE + 1));
	pic_init(0xFFFF);
	irq3(true);
	show("irq3 up");
	irq3(false);
	show("irq3 down");
	irq4(true);
	irq3(true);
	show("irq3 and irq4");
	open_window();
	show_taken("all masked");
	outb(MASTER + 1, 0xE7);
	open_window();
	show_taken("both");
	show("afterwards");
	irq4(true);
	irq8(true);
	show("irq4 and irq8");
	outb(MASTER + 1, 0xE3);
	outb(SLAVE + 1, 0xFE);
	open_window();
	show_taken("irq4, irq8");
	show("afterwards");
}

static void in_service(void)
{
	pic_init(0xFFE7);
	no_eoi = true;
	irq4(true);
	open_window();
	show_taken("irq4 in service");
	show("in service");
	irq4(true);
	open_window();
	show_taken("irq4 again");
	irq3(true);
	open_window();
	show_taken("irq3 nests");
	show("two in service");
	outb(MASTER, 0x20);
	show("non-specific eoi");
	outb(MASTER, 0x64);
	show("specific eoi of 4");
	open_window();
	show_taken("irq4 left");
	outb(MASTER, 0x20);
	/* Special mask mode lets lower ones through while one is in service but masked. */
	irq3(true);
	open_window();
	show_taken("irq3");
	irq4(true);
	open_window();
	show_taken("irq4 behind irq3");
	outb(MASTER, 0x68);
	outb(MASTER + 1, 0xEF);
	open_window();
	show_taken("special mask");
	show("special mask");
	outb(MASTER, 0x48);
	outb(MASTER, 0x63); /* the datasheet does not say that initialisation clears the ISR */
	outb(MASTER, 0x64);
	irq3(false);
	irq4(false);
	pic_init(0xFFFF);
	show("cleared");
	no_eoi = false;
}

static void rotation(void)
{
	pic_init(0xFFE7);
	outb(MASTER, 0xC3); /* lowest priority: IRQ3 */
	irq3(true);
	irq4(true);
	open_window();
	show_taken("irq3 lowest");
	no_eoi = true;
	irq4(true);
	open_window();
	show_taken("irq4");
	outb(MASTER, 0xA0); /* rotate on non-specific EOI */
	irq3(true);
	irq4(true);
	show("rotated");
	no_eoi = false;
	open_window();
	show_taken("irq4 lowest");
	outb(MASTER, 0xC7);
	/* Automatic EOI. */
	outb(MASTER, 0x11);
	outb(MASTER + 1, 0x20);
	outb(MASTER + 1, 0x04);
	outb(MASTER + 1, 0x03);
	outb(MASTER + 1, 0xE7);
	no_eoi = true;
	irq3(true);
	irq4(true);
	open_window();
	show_taken("aeoi");
	show("aeoi");
	no_eoi = false;
}

static void polling(void)
{
	pic_init(0xFFE7);
	outb(MASTER, 0x0C);
	say("poll, nothing: %b", inb(MASTER) & 0x80);
	irq4(true);
	outb(MASTER, 0x0C);
	say("poll: %b", inb(MASTER) & 0x87);
	show("polled");
	irq4(false);
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
	irq4(true);
	pic_init(0xFFFF);
	show("init forgets edges");
	irq4(false);
	irq4(true);
	show("a new edge");
	irq4(false);
	show("line down");
}

static void spurious(void)
{
	/* The request goes away between INTR and acknowledge: done with interrupts off, IRR clear, nothing comes. */
	pic_init(0xFFE7);
	irq4(true);
	irq4(false);
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
	/* The timer's IRQ0 comes once and then no more. */
	outb(0x43, 0x30);
	pic_init(0xFFFF);
	outb(0x40, 1);
	outb(0x40, 0);
	WAIT(read_irr(MASTER) & 1);
	masks_and_requests();
	in_service();
	rotation();
	polling();
	levels();
	spurious();
	outb(MASTER + 1, 0xFF);
	outb(SLAVE + 1, 0xFF);
}
