/* SPDX-License-Identifier: MIT */
/*
 * Start-up of a second CPU (SDM vol. 3A, 8.4.4): INIT, start-up IPI, where and how the other one begins, counting together under a lock,
 * IPIs both ways, INIT again.
 */
#include "rt.h"

enum { TRAMPOLINE = 0x8000, STAGE = 0x20000 };

static inline uint32_t lapic(uint32_t reg)
{
	return read32(0xFEE00000 + reg);
}

static inline void set_lapic(uint32_t reg, uint32_t value)
{
	write32(0xFEE00000 + reg, value);
}

/*
 * What the other CPU runs, copied to STAGE. It notes its registers at 0x700.., switches to flat data segments, notes its APIC id, adds
 * 1000 to the counter at 0x720, beats at 0x72C until the word at 0x730 lets it rest, and then sleeps with interrupts off.
 */
asm("	.pushsection .text\n"
    "	.code16\n"
    "	.globl	other_cpu, other_cpu_end\n"
    "other_cpu:\n"
    "	movw	%cs, %cs:0x10\n"
    "	movl	%eax, %cs:0x18\n"
    "	jmp	1f\n"
    "	.org	other_cpu + 0x10\n"
    "	.long	0, 0, 0, 0, 0, 0, 0, 0\n"
    "1:	movl	%cr0, %eax\n"
    "	movl	%eax, %cs:0x14\n"
    "	pushfl\n"
    "	popl	%cs:0x1C\n"
    "	xorw	%ax, %ax\n"
    "	movw	%ax, %ds\n"
    "	movw	%ax, %ss\n"
    "	movl	$0x700, %esp\n"
    "	lgdtl	flat_gdt_pointer\n"
    "	movl	%cr0, %eax\n"
    "	orb	$1, %al\n"
    "	movl	%eax, %cr0\n"
    "	movw	$0x10, %ax\n"
    "	movw	%ax, %ds\n"
    "	fninit\n"
    "	movl	$0xFEE00020, %ebx\n"
    "	movl	(%ebx), %edx\n"
    "	shrl	$24, %edx\n"
    "	movl	$1000, %ecx\n"
    "2:	lock incl 0x720\n"
    "	decl	%ecx\n"
    "	jnz	2b\n"
    "	lock incl 0x724\n"
    "	movl	%edx, 0x728\n"
    "	cli\n"
    "3:	incl	0x72C\n"
    "	pause\n"
    "	cmpl	$0, 0x730\n"
    "	je	3b\n"
    "4:	hlt\n"
    "	jmp	4b\n"
    "other_cpu_end:\n"
    "	.popsection\n"
#ifdef REAL
    "	.code16gcc\n");
#else
    "	.code32\n");
#endif
extern uint8_t other_cpu[], other_cpu_end[];

static volatile uint32_t *const
	counter = (volatile uint32_t *)0x720,
	*const done = (volatile uint32_t *)0x724, *const other_id = (volatile uint32_t *)0x728,
	*const beat = (volatile uint32_t *)0x72C, *const rest = (volatile uint32_t *)0x730;

static void send(uint32_t low)
{
	set_lapic(0x310, 1u << 24);
	set_lapic(0x300, low);
	WAIT(!(lapic(0x300) & 0x1000));
}

static void note(const char *name)
{
	volatile uint16_t *cs = (volatile uint16_t *)(STAGE + 0x10);
	volatile uint32_t *regs = (volatile uint32_t *)(STAGE + 0x14);

	say("%s: done %d counter %d id %d cs %w cr0 %x flags %x", name, *done, *counter, *other_id,
	    *cs, regs[0], regs[2]);
}

/* Until the other CPU has gone round its loop often enough to have taken what was sent to it, however slowly its host lets it run. */
static void let_other_run(void)
{
	uint32_t start = *beat;

	WAIT(*beat - start >= 1000);
}

void guest_main(void)
{
	for (unsigned i = 0; i < (unsigned)(other_cpu_end - other_cpu); i++)
		((volatile uint8_t *)STAGE)[i] = other_cpu[i];
	*counter = *done = *rest = 0;
	*other_id = 0xFF;
	say("own id %d", lapic(0x20) >> 24);
	delay_ms(2);
	note("before");
	send(0x4600 | STAGE >> 12); /* start-up without INIT: it waits for it anyway after reset */
	WAIT(*done >= 1);
	for (uint32_t i = 0; i < 1000; i++)
		asm volatile("lock incl %0" : "+m"(*counter));
	delay_ms(5);
	note("first start");
	send(0x4600 | STAGE >> 12);
	let_other_run();
	note("a start-up that nobody waits for");
	*rest = 1;
	delay_ms(5);
	send(0xC500);
	send(0x8500);
	delay_ms(5);
	note("init");
	send(0x4600 | STAGE >> 12);
	WAIT(*done >= 2);
	delay_ms(5);
	note("second start");
	*counter = *done = *other_id = *beat = *rest = 0;
}
