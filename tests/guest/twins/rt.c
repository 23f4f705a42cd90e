/* SPDX-License-Identifier: MIT */
#include "rt.h"
#include <stdarg.h>

uint32_t parameter, left_out_mask;
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
		say("%s: exception %b error %x at +%x", name, caught.vector, caught.error, caught.at);
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
	say("UNEXPECTED interrupt %b error %x at %w:%x flags %x", f->vector, error, f->cs, f->eip, f->eflags);
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
static uint64_t idt[256];
#endif

void rt_init(void);
void rt_init(void)
{
	for (unsigned i = 0; i < 256; i++) {
		uint32_t entry = (uint32_t)entries + ENTRY_SIZE * i;
#ifdef REAL
		*(volatile uint32_t *)(4 * i) = entry;
#else
		idt[i] = (uint64_t)(entry >> 16) << 48 | 0x8E00ull << 32 | (uint64_t)SEL_CODE << 16 | (entry & 0xFFFF);
#endif
	}
#ifndef REAL
	struct {
		uint16_t limit;
		uint32_t base;
	} __attribute__((packed)) pointer = {sizeof(idt) - 1, (uint32_t)idt};
	asm volatile("lidtl %0" : : "m"(pointer));
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

void wait_ticks(uint16_t ticks)
{
	outb(0x61, inb(0x61) & ~3);
	outb(0x43, 0xB0); /* channel 2, mode 0 */
	outb(0x42, (uint8_t)ticks);
	outb(0x42, (uint8_t)(ticks >> 8));
	outb(0x61, (inb(0x61) & ~2) | 1);
	while (!(inb(0x61) & 0x20))
		;
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
