/* SPDX-License-Identifier: MIT */
/*
 * Local APIC (SDM vol. 3A, chapter 10) and 82093AA IOAPIC (datasheet, chapter 3): registers, self IPI, IRR, ISR and priorities, TPR, timer
 * one-shot and periodic, IOAPIC redirection by edge with PIT and RTC, masks, remote IRR, NMI to oneself, spurious vector.
 */
#include "rt.h"

static inline uint32_t lapic(uint32_t reg)
{
	return read32(0xFEE00000 + reg);
}

static inline void set_lapic(uint32_t reg, uint32_t value)
{
	write32(0xFEE00000 + reg, value);
}

static uint32_t ioapic(uint32_t reg)
{
	write32(0xFEC00000, reg);
	return read32(0xFEC00010);
}

static void set_ioapic(uint32_t reg, uint32_t value)
{
	write32(0xFEC00000, reg);
	write32(0xFEC00010, value);
}

enum {
	ID = 0x20,
	VERSION = 0x30,
	TPR = 0x80,
	PPR = 0xA0,
	EOI = 0xB0,
	LDR = 0xD0,
	DFR = 0xE0,
	SVR = 0xF0,
	ISR = 0x100,
	TMR = 0x180,
	IRR = 0x200,
	ESR = 0x280,
	ICR = 0x300,
	ICR2 = 0x310,
	LVTT = 0x320,
	LINT0 = 0x350,
	LINT1 = 0x360,
	LVTERR = 0x370,
	INITIAL = 0x380,
	CURRENT = 0x390,
	DIVIDE = 0x3E0
};

static bool bit(uint32_t base, unsigned vector)
{
	return lapic(base + vector / 32 * 16) >> vector % 32 & 1;
}

static volatile uint8_t order[8];
static volatile uint32_t taken;
static volatile bool hold; /* handlers do not send EOI */

static void take(struct frame *f)
{
	if (taken < sizeof(order))
		order[taken] = (uint8_t)f->vector;
	taken++;
	if (!hold)
		set_lapic(EOI, 0);
}

static volatile uint32_t nmis;

static void on_nmi(struct frame *f)
{
	(void)f;
	nmis++;
}

static void spurious(struct frame *f)
{
	(void)f;
}

static void show_taken(const char *name)
{
	say("%s: %d taken: %b %b %b %b", name, taken, order[0], order[1], order[2], order[3]);
	taken = 0;
	for (unsigned i = 0; i < sizeof(order); i++)
		order[i] = 0;
}

static void self_ipi(uint8_t vector)
{
	set_lapic(ICR2, 0);
	set_lapic(ICR, 0x44000u | vector);
	WAIT_MS(100, !(lapic(ICR) & 0x1000));
}

static void registers(void)
{
	say("lint0 at reset: %x", lint0_at_reset);
	say("id %x version %b, %s entries", lapic(ID) >> 24, lapic(VERSION) & 0xF0,
	    (lapic(VERSION) >> 16 & 0xFF) >= 4 ? "5 or more" : "few");
	say("tpr %x ppr %x ldr %x dfr %x svr %x", lapic(TPR), lapic(PPR), lapic(LDR), lapic(DFR),
	    lapic(SVR));
	say("lvt: timer %x lint1 %x error %x", lapic(LVTT), lapic(LINT1), lapic(LVTERR));
	set_lapic(LDR, 0x01FFFFFF);
	set_lapic(DFR, 0xFFFFFFFF);
	set_lapic(TPR, 0xFFFFFF35);
	say("ldr %x dfr %x tpr %x ppr %x", lapic(LDR), lapic(DFR), lapic(TPR), lapic(PPR));
	set_lapic(TPR, 0);
	set_lapic(DIVIDE, 0xFF);
	say("divide %x", lapic(DIVIDE));
	uint32_t low, high;
	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(0x1B));
	say("apic base %x%x", high, low);
	say("ioapic: id %x version %x, entry 5 %x %x", ioapic(0) & 0x0F000000, ioapic(1) & 0xFF0000,
	    ioapic(0x10 + 10), ioapic(0x11 + 10));
	set_ioapic(0, 0x07000000);
	say("ioapic id: %x", ioapic(0));
	set_ioapic(0, 0);
}

static void in_service(void)
{
	if (left_out(FACT_APIC_ISR, "service|ipi|in service|one|only the|irr 41|the others"))
		return;
	self_ipi(0x51);
	say("ipi: irr %d isr %d", bit(IRR, 0x51), bit(ISR, 0x51));
	hold = true;
	let_in();
	say("in service: irr %d isr %d ppr %x", bit(IRR, 0x51), bit(ISR, 0x51), lapic(PPR));
	show_taken("one");
	self_ipi(0x41);
	self_ipi(0x5A);
	self_ipi(0x61);
	let_in();
	show_taken("only the higher class");
	say("irr 41 %d 5a %d 61 %d, isr 51 %d 61 %d", bit(IRR, 0x41), bit(IRR, 0x5A),
	    bit(IRR, 0x61), bit(ISR, 0x51), bit(ISR, 0x61));
	set_lapic(EOI, 0);
	say("one eoi: isr 51 %d 61 %d ppr %x", bit(ISR, 0x51), bit(ISR, 0x61), lapic(PPR));
	set_lapic(EOI, 0);
	hold = false;
	let_in();
	show_taken("the others");
}

static void ipis(void)
{
	in_service();
	set_lapic(TPR, 0x60);
	self_ipi(0x65);
	self_ipi(0x70);
	let_in();
	show_taken("tpr 60");
	set_lapic(TPR, 0);
	let_in();
	show_taken("tpr 0");
	/* To all but self: nobody. To logical id 1: us. To physical id 0: us. */
	set_lapic(ICR, 0xC4000 | 0x52);
	sti();
	delay_ms(1);
	cli();
	show_taken("all but self");
	set_lapic(LDR, 0x01000000);
	set_lapic(ICR2, 0x01000000);
	set_lapic(ICR, 0x4800 | 0x53);
	sti();
	delay_ms(1);
	cli();
	show_taken("logical");
	set_lapic(ICR2, 0);
	set_lapic(ICR, 0x4000 | 0x54);
	sti();
	delay_ms(1);
	cli();
	show_taken("physical");
	set_lapic(ICR, 0x84000 | 0x55);
	sti();
	delay_ms(1);
	cli();
	show_taken("all with self");
	on_vector(2, on_nmi);
	set_lapic(ICR, 0x4400);
	delay_ms(1);
	say("nmi: %d", nmis);
	nmis = 0;
	/* A vector below 16 is an error. */
	set_lapic(ESR, 0);
	set_lapic(ESR, 0);
	set_lapic(ICR, 0x44000 | 0x05);
	delay_ms(1);
	set_lapic(ESR, 0);
	say("illegal vector: %s", lapic(ESR) & 0x60 ? "noted" : "not noted");
}

static void timer(void)
{
	set_lapic(DIVIDE, 0x3); /* by 16 */
	set_lapic(LVTT, 0x10066);
	set_lapic(INITIAL, 0xFFFFFFFF);
	uint32_t a = lapic(CURRENT);
	delay_ms(1);
	uint32_t b = lapic(CURRENT);
	say("timer: %s", b < a ? "counts down" : "stands still");
	set_lapic(INITIAL, 0);
	say("stopped: %x", lapic(CURRENT));
	set_lapic(LVTT, 0x66);
	set_lapic(INITIAL, 10000);
	sti();
	WAIT(taken);
	delay_ms(3);
	cli();
	say("one-shot: current %x", lapic(CURRENT));
	show_taken("one-shot");
	set_lapic(LVTT, 0x20067);
	set_lapic(INITIAL, 30000);
	sti();
	bool many = WAIT(taken >= 5);
	cli();
	set_lapic(LVTT, 0x10067);
	say("periodic: %s", many ? "goes on" : "ends");
	set_lapic(INITIAL, 0);
	sti();
	delay_ms(1);
	cli();
	taken = 0;
	for (unsigned i = 0; i < sizeof(order); i++)
		order[i] = 0;
}

static void redirection(void)
{
	pic_init(0xFFFF);
	set_ioapic(0x11 + 4, 0);
	set_ioapic(0x10 + 4, 0x10072);
	say("pin 2: %x %x", ioapic(0x10 + 4), ioapic(0x11 + 4));
	/* IRQ0 is on pin 2. */
	outb(0x43, 0x30);
	set_ioapic(0x10 + 4, 0x72);
	outb(0x40, 0);
	outb(0x40, 4);
	sti();
	WAIT(taken);
	delay_ms(3);
	cli();
	show_taken("pit by pin 2");
	set_ioapic(0x10 + 4, 0x10000);
	/* RTC by pin 8. */
	outb(0x70, 0x0B);
	outb(0x71, 0x02);
	outb(0x70, 0x0C);
	inb(0x71);
	set_ioapic(0x11 + 16, 0);
	set_ioapic(0x10 + 16, 0x83);
	outb(0x70, 0x0A);
	outb(0x71, 0x26);
	outb(0x70, 0x0B);
	outb(0x71, 0x42);
	sti();
	WAIT(taken);
	delay_ms(5);
	cli();
	show_taken("rtc by pin 8, not acknowledged");
	outb(0x70, 0x0C);
	inb(0x71);
	sti();
	bool again = WAIT(taken);
	cli();
	say("rtc acknowledged: %s", again ? "another" : "none");
	outb(0x70, 0x0B);
	outb(0x71, 0x02);
	outb(0x70, 0x0C);
	inb(0x71);
	set_ioapic(0x10 + 16, 0x10000);
	sti();
	delay_ms(1);
	cli();
	taken = 0;
	for (unsigned i = 0; i < sizeof(order); i++)
		order[i] = 0;
}

static void level_triggered(void)
{
	if (left_out(FACT_APIC_ISR, "level|remote"))
		return;
	/* A level that stays: once until EOI, then again. The keyboard controller's output buffer is the source. */
	while (inb(0x64) & 1)
		inb(0x60);
	outb(0x64, 0x60);
	WAIT(!(inb(0x64) & 2));
	outb(0x60, 0x21);
	set_ioapic(0x11 + 2, 0);
	set_ioapic(0x10 + 2, 0x8091);
	outb(0x64, 0xD2);
	WAIT(!(inb(0x64) & 2));
	outb(0x60, 0x77);
	hold = true;
	sti();
	WAIT(taken);
	delay_ms(2);
	cli();
	show_taken("level");
	say("remote irr: %d tmr %d", ioapic(0x10 + 2) >> 14 & 1, bit(TMR, 0x91));
	set_lapic(EOI, 0);
	sti();
	WAIT(taken);
	cli();
	show_taken("level still up after eoi");
	inb(0x60);
	set_lapic(EOI, 0);
	sti();
	delay_ms(2);
	cli();
	show_taken("level down");
	say("remote irr: %d", ioapic(0x10 + 2) >> 14 & 1);
	hold = false;
	set_ioapic(0x10 + 2, 0x10000);
}

static void software_disable(void)
{
	set_lapic(SVR, 0x0FF);
	say("disabled: lint0 %x timer %x", lapic(LINT0) & 0x10000, lapic(LVTT) & 0x10000);
	set_lapic(SVR, 0x1FF);
	say("enabled again: lint0 %x", lapic(LINT0) & 0x10000);
}

void guest_main(void)
{
	for (unsigned v = 0x40; v < 0xFF; v++)
		on_vector(v, take);
	on_vector(0xFF, spurious);
	on_vector(5, spurious); /* QEMU delivers the illegal vector */
	pic_init(0xFFFF);
	registers();
	ipis();
	timer();
	redirection();
	level_triggered();
	software_disable();
}
