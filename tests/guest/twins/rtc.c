/* SPDX-License-Identifier: MIT */
/*
 * MC146818A (datasheet, "Registers A to D", "Update cycle", "Interrupts"): registers, BCD and binary, 12 and 24 hours, UIP, flags of
 * register C and what clears them, periodic, alarm and update-ended interrupts through IRQ8.
 */
#include "rt.h"

enum { CENTURY = 0x32 };

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

static volatile uint32_t count;
static volatile uint8_t flags;

static void on_rtc(struct frame *f)
{
	(void)f;
	flags = cmos(0x0C);
	count++;
	outb(0xA0, 0x20);
	outb(0x20, 0x20);
}

static void set_time(uint8_t h, uint8_t m, uint8_t s, uint8_t b)
{
	set_cmos(0x0B, b | 0x80);
	set_cmos(0, s);
	set_cmos(2, m);
	set_cmos(4, h);
	set_cmos(7, 0x15);
	set_cmos(8, 0x06);
	set_cmos(9, 0x21);
	set_cmos(CENTURY, b & 0x04 ? 20 : 0x20);
	set_cmos(0x0B, b);
}

static void show_time(const char *name)
{
	say("%s: %b:%b:%b %b.%b.%b", name, cmos(4), cmos(2), cmos(0), cmos(7), cmos(8), cmos(9));
}

/* The time is still while SET is on, so that it can be compared. */
static void formats(void)
{
	set_time(0x23, 0x45, 0x12, 0x02);
	set_cmos(0x0B, 0x82);
	show_time("bcd, 24 hours");
	set_time(23, 45, 12, 0x06);
	set_cmos(0x0B, 0x86);
	show_time("binary, 24 hours");
	set_time(0x91, 0x45, 0x12, 0x00);
	set_cmos(0x0B, 0x80);
	show_time("bcd, 12 hours");
	set_time(0x23, 0x59, 0x58, 0x02);
	say("runs: %s", WAIT(cmos(0) != 0x58) ? "yes" : "no");
	WAIT(cmos(4) == 0);
	set_cmos(0x0B, 0x82);
	say("midnight: %b:%b day %b", cmos(4), cmos(2), cmos(7));
}

static void registers(void)
{
	say("register d: %b", cmos(0x0D));
	set_cmos(0x0D, 0);
	say("register d is read-only: %b", cmos(0x0D));
	set_cmos(0x0A, 0x26);
	say("register a: %b", cmos(0x0A) & 0x7F);
	set_cmos(0x0B, 0x02);
	say("register b: %b", cmos(0x0B));
	set_cmos(0x40, 0xA5);
	set_cmos(0x41, 0x5A);
	say("ram: %b %b", cmos(0x40), cmos(0x41));
	outb(0x70, 0xC0); /* NMI mask bit: the same cell */
	say("ram with the nmi bit: %b", inb(0x71));
	set_cmos(0x40, 0);
	set_cmos(0x41, 0);
	/* Alarm registers. */
	set_cmos(1, 0x59);
	set_cmos(3, 0x58);
	set_cmos(5, 0x23);
	say("alarm: %b:%b:%b", cmos(5), cmos(3), cmos(1));
}

static void updates(void)
{
	set_time(0x10, 0x00, 0x00, 0x02);
	cmos(0x0C);
	say("update ended flag: %s", WAIT(cmos(0x0C) & 0x10) ? "seen" : "missing");
	say("reading clears it: %b", cmos(0x0C) & 0x10);
	set_cmos(0x0B, 0x82);
	say("uip while set: %b", cmos(0x0A) & 0x80);
	set_cmos(0x0B, 0x02);
	bool alarm;
	set_time(0x10, 0x00, 0x00, 0x02);
	set_cmos(1, 0xFF);
	set_cmos(3, 0xFF);
	set_cmos(5, 0xFF);
	cmos(0x0C);
	alarm = WAIT(cmos(0x0C) & 0x20);
	say("alarm flag with don't-care: %s", alarm ? "seen" : "missing");
}

static void interrupts(void)
{
	on_vector(0x28, on_rtc);
	pic_init(0xFEFB);
	cmos(0x0C);
	set_cmos(0x0A, 0x26);
	set_cmos(0x0B, 0x42);
	count = 0;
	sti();
	bool periodic = WAIT(count >= 10);
	cli();
	say("periodic: %s flags %b", periodic ? "interrupts" : "none", flags & 0xC0);
	set_cmos(0x0B, 0x12);
	cmos(0x0C);
	pic_init(0xFEFB); /* forgets edges */
	count = 0;
	sti();
	bool update = WAIT(count >= 1);
	cli();
	say("update ended: %s flags %b", update ? "interrupt" : "none", flags & 0x90);
	set_time(0x10, 0x20, 0x29, 0x22);
	set_cmos(1, 0x30);
	set_cmos(3, 0x20);
	set_cmos(5, 0x10);
	cmos(0x0C);
	pic_init(0xFEFB); /* forgets edges */
	count = 0;
	sti();
	bool alarm = WAIT(count >= 1);
	cli();
	say("alarm: %s flags %b second %b", alarm ? "interrupt" : "none", flags & 0xA0, cmos(0));
	/* Not acknowledged in register C: the line stays up and makes no second edge. */
	set_cmos(0x0B, 0x02);
	cmos(0x0C);
	count = 0;
	flags = 0;
	sti();
	delay_ms(5);
	cli();
	say("all off: %d", count);
	outb(0x21, 0xFF);
	outb(0xA1, 0xFF);
}

void guest_main(void)
{
	registers();
	formats();
	updates();
	interrupts();
	set_cmos(0x0B, 0x82);
}
