/* SPDX-License-Identifier: MIT */
/*
 * What is special in real mode (SDM vol. 3A, 20.1): segment limits, wrap-around, the interrupt table and its limit, instructions that are
 * not recognised, control registers, unreal mode, the way to protected mode and back.
 */
#include "rt.h"

static uint16_t word_at(uint16_t segment, uint32_t offset)
{
	uint16_t v;

	asm volatile("pushw %%fs\n\tmovw %w1, %%fs\n\tmovw %%fs:(%2), %w0\n\tpopw %%fs"
		     : "=r"(v)
		     : "r"(segment), "r"(offset)
		     : "memory");
	return v;
}

static void limits(void)
{
	if (left_out(FACT_LIMITS, "limit"))
		return;
	TRY("movl $0xFFFF, %%ebx; movb (%%ebx), %%al");
	say_caught("limit, byte at ffff");
	TRY("movl $0xFFFF, %%ebx; movw (%%ebx), %%ax");
	say_caught("limit, word at ffff");
	TRY("movl $0xFFFD, %%ebx; movl (%%ebx), %%eax");
	say_caught("limit, dword at fffd");
	TRY("movl $0x10000, %%ebx; movb %%al, (%%ebx)");
	say_caught("limit, byte at 10000");
	TRY("movl $0x10000, %%ebx; movb %%ss:(%%ebx), %%al");
	say_caught("limit, stack byte at 10000");
	TRY("movl $0xFFFE, %%esi; movl $0x700, %%edi; movl $4, %%ecx; cld; rep movsw");
	say_caught("limit, movsw over the end");
	TRY("movl $0x12345, %%eax; jmpl *%%eax");
	say_caught("limit, jump to 12345");
}

static void wraps(void)
{
	uint32_t a;

	*(volatile uint16_t *)0x600 = 0xBEEF;
	say("wrap: 0060:0000 %w, ffff:0610 %w", word_at(0x60, 0), word_at(0xFFFF, 0x610));
	/* 16-bit addresses wrap inside the segment. */
	asm volatile("movl $0xFFFF, %%ebx\n\tmovl $0x601, %%esi\n\t.byte 0x8b, 0x00\n\tmovzwl "
		     "%%ax, %%eax"
		     : "=a"(a)
		     :
		     : "ebx", "esi", "memory");
	say("wrap: bx+si %w", a & 0xFFFF);
	*(volatile uint16_t *)0x600 = 0;
	/* SP wraps for PUSH of a word at 0. */
	volatile uint16_t *top = (volatile uint16_t *)0xFFFE;
	uint16_t old = *top;
	asm volatile("movl %%esp, %%edx\n\txorl %%esp, %%esp\n\tpushw $0x5AA5\n\tmovl %%esp, "
		     "%0\n\tmovl %%edx, %%esp"
		     : "=a"(a)
		     :
		     : "edx", "memory");
	say("wrap: push at 0 sp %x holds %w", a, *top);
	*top = old;
}

static void instructions(void)
{
	struct {
		uint16_t limit;
		uint32_t base;
	} __attribute__((packed)) table = {0, 0};
	uint32_t a;

	TRIED("sldt %%ax");
	TRIED("str %%ax");
	TRIED("lldt %%ax");
	TRIED("ltr %%ax");
	if (!left_out(FACT_LAR, "lar|lsl|verr|arpl")) {
		TRIED("lar %%ax, %%eax");
		TRIED("lsl %%ax, %%eax");
		TRIED("verr %%ax");
		TRIED("arpl %%ax, %%bx");
	}
	TRIED("sysenter");
	asm volatile("smsw %%ax" : "=a"(a));
	say("smsw: %w", a & 0xFFFF);
	asm volatile("movl %%cr0, %0" : "=r"(a));
	say("cr0: %x", a);
	asm volatile("movl %%cr4, %0" : "=r"(a));
	say("cr4: %x", a);
	if (!left_out(FACT_CONTROL, "control")) {
		TRY("movl $0x80000000, %%eax; movl %%eax, %%cr0");
		say_caught("control: PG without PE");
		TRY("movl $0x20000010, %%eax; movl %%eax, %%cr0");
		say_caught("control: NW without CD");
		TRY("movl $0x80000000, %%eax; movl %%eax, %%cr4");
		say_caught("control: reserved bit of CR4");
	}
	TRIED("movl %%dr7, %%eax; movl %%eax, %%dr7");
	asm volatile("sidtl %0" : "=m"(table));
	say("idt: %x %w", table.base, table.limit);
	asm volatile("cpuid" : "=a"(a) : "a"(0) : "ebx", "ecx", "edx");
	say("cpuid leaves: %s", a >= 1 ? "1 or more" : "none");
	TRIED("movl $0x12345678, %%ecx; rdmsr");
}

static void interrupt_table(void)
{
	struct {
		uint16_t limit;
		uint32_t base;
	} __attribute__((packed)) whole = {0x3FF, 0}, moved = {0x3FF, 0x20000};

	/* The table elsewhere: through fs, as 20000 is not in our segment. */
	for (unsigned i = 0; i < 256; i++) {
		uint32_t entry = ((volatile uint32_t *)0)[i];
		asm volatile("movl %0, %%fs:(%1)" : : "r"(entry), "r"(i * 4) : "memory");
	}
	asm volatile("lidtl %0" : : "m"(moved));
	TRY("ud2");
	asm volatile("lidtl %0" : : "m"(whole));
	say_caught("table at 20000");
}

static void unreal(void)
{
	uint32_t v;

	asm volatile("lgdtl flat_gdt_pointer\n\tmovl %%cr0, %%eax\n\torb $1, %%al\n\tmovl %%eax, "
		     "%%cr0\n\tmovw %1, %%ax\n\tmovw %%ax, %%gs\n\t"
		     "movl %%cr0, %%eax\n\tandb $0xFE, %%al\n\tmovl %%eax, %%cr0\n\txorw %%ax, "
		     "%%ax\n\tmovw %%ax, %%gs\n\t"
		     "movl $0x123450, %%ebx\n\tmovl $0xCAFEBABE, %%gs:(%%ebx)\n\tmovl "
		     "%%gs:(%%ebx), %0\n\tmovl $0, %%gs:(%%ebx)"
		     : "=d"(v)
		     : "i"(SEL_DATA)
		     : "eax", "ebx", "memory");
	say("unreal: %x", v);
	asm volatile("movw $0x1000, %%ax\n\tmovw %%ax, %%gs\n\tmovl $0x113450, %%ebx\n\tmovl "
		     "$0x0BADF00D, %%gs:(%%ebx)\n\tmovl %%gs:(%%ebx), %0\n\t"
		     "movl $0, %%gs:(%%ebx)\n\txorw %%ax, %%ax\n\tmovw %%ax, %%gs"
		     : "=d"(v)
		     :
		     : "eax", "ebx", "memory");
	say("unreal, another segment: %x", v);
	/* Back to 64 KiB. */
	asm volatile("movl %%cr0, %%eax\n\torb $1, %%al\n\tmovl %%eax, %%cr0\n\tmovw %0, "
		     "%%ax\n\tmovw %%ax, %%gs\n\tmovl %%cr0, %%eax\n\t"
		     "andb $0xFE, %%al\n\tmovl %%eax, %%cr0\n\txorw %%ax, %%ax\n\tmovw %%ax, %%gs"
		     :
		     : "i"(SEL_DATA16)
		     : "eax", "memory");
	if (left_out(FACT_LIMITS, "no longer unreal"))
		return;
	TRY("movl $0x123450, %%ebx; movl %%gs:(%%ebx), %%eax");
	say_caught("no longer unreal");
}

void guest_main(void)
{
	outb(0x92, inb(0x92) | 2);
	asm volatile("movw %w0, %%fs" : : "r"(0x2000));
	interrupt_table();
	asm volatile("movw %w0, %%fs" : : "r"(0));
	limits();
	wraps();
	instructions();
	unreal();
}
