/* SPDX-License-Identifier: MIT */
/*
 * Keyboard controller 8042 (IBM PS/2 Technical Reference, "Keyboard and Auxiliary Device Controller") with keyboard and mouse: self test,
 * command byte, device commands, IRQ1 and IRQ12, output port, A20 as wrap of memory at 1 MiB.
 */
#include "rt.h"

static void command(uint8_t c)
{
	WAIT(!(inb(0x64) & 2));
	outb(0x64, c);
}

static void data(uint8_t d)
{
	WAIT(!(inb(0x64) & 2));
	outb(0x60, d);
}

/* The next byte, or 0xEE00 for none. */
static uint32_t answer(void)
{
	if (!WAIT_MS(500, inb(0x64) & 1))
		return 0xEE00;
	return inb(0x60);
}

static void flush(void)
{
	delay_ms(2);
	while (inb(0x64) & 1) {
		inb(0x60);
		delay_ms(1);
	}
}

static volatile uint32_t irqs1, irqs12;
static volatile uint8_t byte1, byte12;

static void on_irq1(struct frame *f)
{
	(void)f;
	byte1 = inb(0x60);
	irqs1++;
	outb(0x20, 0x20);
}

static void on_irq12(struct frame *f)
{
	(void)f;
	byte12 = inb(0x60);
	irqs12++;
	outb(0xA0, 0x20);
	outb(0x20, 0x20);
}

static void controller(void)
{
	flush();
	command(0xAA);
	say("self test: %w", answer());
	command(0x20);
	say("command byte after it: %w", answer());
	command(0xAB);
	say("keyboard interface test: %w", answer());
	command(0xA9);
	say("mouse interface test: %w", answer());
	command(0x60);
	data(0x47);
	command(0x20);
	say("command byte: %w", answer());
	command(0xAD);
	command(0x20);
	say("keyboard off: %w", answer());
	command(0xAE);
	command(0xA7);
	command(0x20);
	say("mouse off: %w", answer());
	command(0xA8);
	command(0x20);
	say("mouse on: %w", answer());
	command(0xD0);
	say("output port: %b", answer() & 0x03);
	command(0xC0);
	say("input port answers: %s", answer() == 0xEE00 ? "no" : "yes");
	say("status: %b", inb(0x64) & 0xCF);
}

static void keyboard(void)
{
	command(0x60);
	data(0x00); /* no interrupts, no translation */
	flush();
	data(0xF5);
	say("stop scanning: %w", answer());
	data(0xEE);
	say("echo: %w", answer());
	data(0xF2);
	uint32_t a = answer(), b = answer(), c = answer();
	say("identify: %w %w %w", a, b, c);
	data(0xED);
	a = answer();
	data(0x07);
	say("leds: %w %w", a, answer());
	data(0xF3);
	a = answer();
	data(0x20);
	say("typematic: %w %w", a, answer());
	data(0xF0);
	a = answer();
	data(0x00);
	b = answer();
	say("scan code set: %w %w %w", a, b, answer());
	data(0xFF);
	a = answer();
	say("reset: %w %w", a, answer());
	data(0xFE);
	say("resend: %w", answer());
	data(0xF4);
	say("start scanning: %w", answer());
}

static void mouse_command(uint8_t c)
{
	command(0xD4);
	data(c);
}

static void mouse(void)
{
	mouse_command(0xFF);
	uint32_t a = answer(), b = answer(), c = answer();
	say("mouse reset: %w %w %w", a, b, c);
	mouse_command(0xF2);
	a = answer();
	say("mouse identify: %w %w", a, answer());
	mouse_command(0xE8);
	a = answer();
	mouse_command(0x02);
	say("mouse resolution: %w %w", a, answer());
	mouse_command(0xE9);
	a = answer();
	b = answer();
	c = answer();
	say("mouse status: %w %w %w %w", a, b, c, answer());
	mouse_command(0xEB);
	a = answer();
	b = answer();
	c = answer();
	say("mouse packet: %w %w %w %w", a, b, c, answer());
	/* The wheel's knock. */
	for (unsigned i = 0; i < 3; i++) {
		static const uint8_t rates[] = {200, 100, 80};
		mouse_command(0xF3);
		answer();
		mouse_command(rates[i]);
		answer();
	}
	mouse_command(0xF2);
	a = answer();
	say("wheel mouse: %w %w", a, answer());
	mouse_command(0xF6);
	say("mouse defaults: %w", answer());
}

static void interrupts(void)
{
	on_vector(0x21, on_irq1);
	on_vector(0x2C, on_irq12);
	flush();
	pic_init(0xEFF9);
	command(0x60);
	data(0x03); /* both interrupts, no translation */
	sti();
	command(0xD2);
	data(0x3C);
	WAIT(irqs1);
	command(0xD3);
	data(0xC3);
	WAIT(irqs12);
	cli();
	say("irq1: %d with %b, irq12: %d with %b", irqs1, byte1, irqs12, byte12);
	irqs1 = irqs12 = 0;
	sti();
	data(0xEE);
	WAIT(irqs1);
	cli();
	say("echo by irq1: %d with %b", irqs1, byte1);
	command(0x60);
	data(0x00);
	irqs1 = 0;
	sti();
	command(0xD2);
	data(0x11);
	delay_ms(5);
	cli();
	say("irq1 off: %d, status %b", irqs1, inb(0x64) & 1);
	flush();
	irqs1 = irqs12 = byte1 = byte12 = 0;
	outb(0x21, 0xFF);
	outb(0xA1, 0xFF);
}

#ifdef REAL
static uint8_t at_1m(void)
{
	uint8_t v;

	/* Linear 0x100600: FFFF:0610. */
	asm volatile("pushw %%fs\n\tmovw $0xFFFF, %%ax\n\tmovw %%ax, %%fs\n\tmovb %%fs:0x610, "
		     "%%al\n\tpopw %%fs"
		     : "=a"(v)
		     :
		     : "memory");
	return v;
}
#else
static uint8_t at_1m(void)
{
	return *(volatile uint8_t *)0x100600;
}
#endif

static void a20(void)
{
	volatile uint8_t *low = (volatile uint8_t *)0x600;

	*low = 0x12;
	/* What is above 1 MiB is zero: the guest has not written there. */
	outb(0x92, inb(0x92) | 2);
	say("a20 on by port 92h: %b", at_1m());
	outb(0x92, inb(0x92) & ~3);
	say("a20 off by port 92h: %b", at_1m());
	command(0xD1);
	data(0xDF);
	WAIT(!(inb(0x64) & 2));
	say("a20 on by the output port: %b", at_1m());
	command(0xD1);
	data(0xDD);
	WAIT(!(inb(0x64) & 2));
	say("a20 off by the output port: %b", at_1m());
	command(0xDF);
	WAIT(!(inb(0x64) & 2));
	say("a20 on by command df: %b", at_1m());
	command(0xDD);
	WAIT(!(inb(0x64) & 2));
	say("a20 off by command dd: %b", at_1m());
	outb(0x92, 2);
	say("a20 on: %b, port 92h %b", at_1m(), inb(0x92) & 3);
	*low = 0;
}

void guest_main(void)
{
	controller();
	keyboard();
	mouse();
	interrupts();
	a20();
}
