/* SPDX-License-Identifier: MIT */
#include "rt.h"
#include <stdarg.h>

uint32_t parameter;
uint32_t lint0_at_reset SCRATCH;
uint32_t left_out_mask SCRATCH;
struct caught caught;
volatile uint32_t try_start, try_resume;
static handler *handlers[256];

enum { LOG_PORT = 0x402 };

static void put(char c)
{
	outb(LOG_PORT, (uint8_t)c);
}

static void put_hex(uint32_t v, int digits)
{
	while (digits-- > 0)
		put("0123456789abcdef"[v >> 4 * digits & 15]);
}

static void put_decimal(uint32_t v)
{
	if (v >= 10)
		put_decimal(v / 10);
	put((char)('0' + v % 10));
}

void say(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	for (const char *p = format; *p; p++) {
		if (*p != '%') {
			put(*p);
			continue;
		}
		switch (*++p) {
		case 'x': put_hex(va_arg(ap, uint32_t), 8); break;
		case 'w': put_hex(va_arg(ap, uint32_t), 4); break;
		case 'b': put_hex(va_arg(ap, uint32_t), 2); break;
		case 'd': put_decimal(va_arg(ap, uint32_t)); break;
		case 'c': put((char)va_arg(ap, int)); break;
		case 's':
			for (const char *s = va_arg(ap, const char *); *s; s++)
				put(*s);
		}
	}
	va_end(ap);
	put('\n');
}

bool left_out(unsigned bit, const char *name)
{
	if (!(left_out_mask >> bit & 1))
		return false;
	say("LEFT OUT %s", name);
	return true;
}

void say_caught(const char *name)
{
	if (caught.vector < 0)
		say("%s: no exception", name);
	else
		say("%s: exception %b error %x at +%x", name, caught.vector, caught.error,
		    caught.at);
}

void on_vector(unsigned vector, handler *h)
{
	handlers[vector] = h;
}

void on_interrupt(struct frame *f);
void on_interrupt(struct frame *f)
{
	uint32_t error = 0;

#ifndef REAL
	error = f->error;
#endif
	if (f->vector < 256 && handlers[f->vector]) {
		handlers[f->vector](f);
		return;
	}
	if (f->vector < 32 && try_resume) {
		caught.vector = (int)f->vector;
		caught.error = error;
		caught.at = f->eip - try_start;
		caught.eflags = f->eflags;
#ifdef REAL
		f->eip = (uint16_t)try_resume;
#else
		f->eip = try_resume;
#endif
		try_resume = 0;
		return;
	}
	say("UNEXPECTED interrupt %b error %x at %w:%x flags %x", f->vector, error, f->cs, f->eip,
	    f->eflags);
	guest_end();
}

void guest_end(void)
{
	cli();
	/* Left-overs of the last interrupts. */
	caught = (struct caught){0};
	try_start = try_resume = 0;
	say("END");
	guest_halt();
}

#ifndef REAL
uint64_t idt[256];
struct tss tss;
uint32_t user_call_esp, user_flags = 0x3000;
void user_return(void);
#endif

/* PIIX4 function 3 (82371AB datasheet, 7.1): base of the power management ports and their enable bit. */
enum { PM_BASE = 0x600, PM_TIMER = PM_BASE + 8, PM_CONFIG = (int)0x80000B00 };

static void timer_init(void)
{
	outl(0xCF8, (uint32_t)PM_CONFIG | 0x40);
	outl(0xCFC, PM_BASE | 1);
	outl(0xCF8, (uint32_t)PM_CONFIG | 0x80);
	outb(0xCFC, 1);
	outl(0xCF8, 0);
}

uint32_t timer_now(void)
{
	return inl(PM_TIMER) & TIMER_MASK;
}

void delay_ms(uint32_t ms)
{
	WAIT_MS(ms, false);
}

void rt_init(void);
void rt_init(void)
{
	asm volatile("fninit");
	timer_init();
	for (unsigned i = 0; i < 256; i++) {
		uint32_t entry = (uint32_t)entries + ENTRY_SIZE * i;
#ifdef REAL
		*(volatile uint32_t *)(4 * i) = entry;
#else
		idt[i] = gate(SEL_CODE, entry, 0x8E00);
#endif
	}
#ifndef REAL
	struct {
		uint16_t limit;
		uint32_t base;
	} __attribute__((packed)) pointer = {sizeof(idt) - 1, (uint32_t)idt};
	asm volatile("lidtl %0" : : "m"(pointer));
	idt[0x80] = gate(SEL_CODE, (uint32_t)user_return, 0xEE00);
	tss.esp0 = INNER_STACK_TOP;
	tss.ss0 = SEL_DATA;
	tss.io_map = sizeof(tss);
	flat_gdt[SEL_TSS / 8] = descriptor((uint32_t)&tss, sizeof(tss) - 1, 0x89);
	asm volatile("ltrw %w0" : : "r"(SEL_TSS));
	if (left_out_mask >> FACT_IRET & 1) { /* SYSEXIT and SYSENTER take its place */
		asm volatile("wrmsr" : : "c"(0x174), "a"(SEL_CODE), "d"(0));
		asm volatile("wrmsr" : : "c"(0x175), "a"(INNER_STACK_TOP), "d"(0));
		asm volatile("wrmsr" : : "c"(0x176), "a"(user_return), "d"(0));
	}
#endif
}

void pic_init(uint16_t mask)
{
	outb(0x20, 0x11);
	outb(0x21, 0x20);
	outb(0x21, 0x04);
	outb(0x21, 0x01);
	outb(0xA0, 0x11);
	outb(0xA1, 0x28);
	outb(0xA1, 0x02);
	outb(0xA1, 0x01);
	outb(0x21, (uint8_t)mask);
	outb(0xA1, (uint8_t)(mask >> 8));
}

uint32_t crc32(uint32_t crc, const void *data, uint32_t size)
{
	const uint8_t *p = data;

	crc = ~crc;
	while (size--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
	}
	return ~crc;
}

/* The compiler calls these for struct copies. */
void *memcpy(void *to, const void *from, unsigned long n);
void *memset(void *to, int c, unsigned long n);
void *memcpy(void *to, const void *from, unsigned long n)
{
	for (unsigned long i = 0; i < n; i++)
		((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
	return to;
}

void *memset(void *to, int c, unsigned long n)
{
	for (unsigned long i = 0; i < n; i++)
		((volatile uint8_t *)to)[i] = (uint8_t)c;
	return to;
}
