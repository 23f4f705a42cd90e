/* SPDX-License-Identifier: MIT */
/* HLT: wakes for an interrupt and goes on behind itself; not for a masked one; STI's shadow covers it. */
#include "rt.h"

static volatile uint32_t ticks;
static volatile uint32_t at;

static void on_tick(struct frame *f)
{
	ticks++;
	at = f->eip;
	outb(0x20, 0x20);
}

static void one_shot(void)
{
	outb(0x43, 0x30);
	outb(0x40, 0x00);
	outb(0x40, 0x20);
}

/* The exact instruction behind which a pending interrupt is taken. */
static void windows(void)
{
	uint32_t from;

	if (left_out(FACT_WINDOW, "sti|popf|mov ss"))
		return;
	ticks = 0;
	one_shot();
	WAIT(inb(0x20) & 1);
	asm volatile("movl $1f, %0\n1:\tsti\n\tnop\n\tnop\n\tcli" : "=m"(from) : : "memory");
	say("sti: %d at +%x", ticks, at - from);
	ticks = 0;
	one_shot();
	WAIT(inb(0x20) & 1);
	asm volatile("sti\n\tcli" : : : "memory");
	say("sti, cli: %d", ticks);
	sti();
	cli();
	say("sti, nop, cli: %d", ticks);
	ticks = 0;
	one_shot();
	WAIT(inb(0x20) & 1);
	asm volatile("movl $1f, %0\n\tpushfl\n\torl $0x200, (%%esp)\n\tpopfl\n1:\tnop\n\tcli"
		     : "=m"(from)
		     :
		     : "memory");
	say("popf: %d at +%x", ticks, at - from);
}

void guest_main(void)
{
	uint32_t from;

	on_vector(0x20, on_tick);
	pic_init(0xFFFE);
	outb(0x43, 0x30);
	pic_init(0xFFFE);
	for (unsigned i = 0; i < 5; i++) {
		one_shot();
		asm volatile("movl $1f, %0\n\tsti\n1:\thlt\n\tcli" : "=m"(from) : : "memory");
		say("woken: %d at +%x", ticks, at - from);
	}
	/* An interrupt that waits already: taken right behind HLT, as STI holds it back for one instruction. */
	ticks = 0;
	one_shot();
	WAIT(inb(0x20) & 1);
	asm volatile("movl $1f, %0\n\tsti\n1:\thlt\n\tcli" : "=m"(from) : : "memory");
	say("waited already: %d at +%x", ticks, at - from);
	windows();
	ticks = at = 0;
	outb(0x21, 0xFF);
}
