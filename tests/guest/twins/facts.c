/* SPDX-License-Identifier: MIT */
/* Runs the one instruction that `parameter` names and says what came of it; a machine that has it prints "has it". */
#include "rt.h"
#include <stddef.h>

static bool stepped;
static int steps;

static void step(struct frame *f)
{
	stepped = true;
	if (parameter == FACT_STEP_EXACT && ++steps < 20)
		return;
	f->eflags &= ~0x100;
}

/* ---- Exceptions that there are, or are not ---- */

static bool no_exception(void)
{
	return caught.vector < 0;
}

static bool has_x87(void)
{
	TRY("fld1; fldpi; fmulp; fstp %%st(0)");
	return no_exception();
}

static bool has_simd(void)
{
	TRY("pxor %%mm0, %%mm0; emms");
	return no_exception();
}

static bool has_bcd(void)
{
	TRY("aaa; aas; daa");
	return no_exception();
}

static bool has_bound(void)
{
	TRY("xorl %%eax, %%eax; boundl %%eax, 0x600");
	return no_exception();
}

static bool has_limits(void)
{
#ifdef REAL
	TRY("movl $0x10000, %%ebx; movl (%%ebx), %%eax");
#else
	flat_gdt[SEL_FREE / 8] = descriptor(0, 0xFF, 0x4093);
	TRY("movl %0, %%edi; movw %%di, %%fs; movl %%fs:0x200, %%eax", "i"(SEL_FREE));
#endif
	return caught.vector == 13;
}

static bool has_undefined(void)
{
	TRY(".byte 0x0f, 0xff; .byte 0x0f, 0x0c");
	return caught.vector == 6;
}

static bool has_control(void)
{
	TRY("movl $0x20000010, %%eax; movl %%eax, %%cr0");
	return caught.vector == 13;
}

/* ---- Instructions that come back at all ---- */

static bool has_enter(void)
{
	asm volatile("enterl $16, $2\n\tleave" : : : "memory");
	return true;
}

static bool has_aam_flags(void)
{
	uint32_t flags;

	asm volatile("movl $0x80, %%eax\n\taad\n\tpushfl\n\tpopl %0" : "=r"(flags) : : "eax", "cc");
	return flags & 0x80;
}

/* ---- Interrupts and single steps ---- */

static bool has_int(void)
{
	on_vector(0x42, step);
	asm volatile("int $0x42" : : : "memory");
	return stepped;
}

static bool has_step(void)
{
	on_vector(1, step);
	asm volatile("pushfl\n\torl $0x100, (%%esp)\n\tpopfl\n\tnop\n\tnop" : : : "memory", "cc");
	return stepped;
}

static bool has_step_exact(void)
{
	on_vector(1, step);
	asm volatile("movl $3, %%ecx\n\tmovl $0x700, %%edi\n\tpushfl\n\torl $0x100, "
		     "(%%esp)\n\tpopfl\n\trep stosb\n\tnop\n\t"
		     "pushfl\n\tandl $~0x100, (%%esp)\n\tpopfl"
		     :
		     : "a"(0)
		     : "memory", "cc", "ecx", "edi");
	return steps == 7;
}

static bool has_window(void)
{
	on_vector(0x20, step);
	pic_init(0xFFFE);
	outb(0x43, 0x30);
	outb(0x40, 0x10);
	outb(0x40, 0x00);
	delay_ms(3);
	asm volatile("sti\n\tnop\n\tnop\n\tcli" : : : "memory");
	return stepped;
}

static bool has_apic_isr(void)
{
	on_vector(0x51, step);
	pic_init(0xFFFF);
	write32(0xFEE00310, 0);
	write32(0xFEE00300, 0x44051);
	let_in();
	return stepped && read32(0xFEE00120);
}

/* ---- Far transfers ---- */

#ifdef REAL
static bool has_retf32(void)
{
	asm volatile("pushl $0\n\tpushl $1f\n\tlretl\n1:" : : : "memory");
	return true;
}
#else
static bool has_iret(void)
{
	asm volatile("pushfl\n\tpushl %%cs\n\tpushl $1f\n\tiretl\n1:" : : : "memory");
	return true;
}

static bool has_call_gate(void)
{
	flat_gdt[SEL_FREE / 8] = gate(SEL_CODE, 0, 0x8C00);
	TRY("movl $1f, %%eax; movw %%ax, %c1; shrl $16, %%eax; movw %%ax, %c1 + 6; lcall "
	    "%0, $0; 1: popl %%eax; popl %%eax",
	    "i"(SEL_FREE), "i"(flat_gdt + SEL_FREE / 8));
	return no_exception();
}

static bool has_task(void)
{
	static struct tss other;

	asm volatile("movl $1f, %0" : "=m"(other.eip));
	flat_gdt[SEL_FREE / 8] = descriptor((uint32_t)&other, sizeof(other) - 1, 0x89);
	other.cs = SEL_CODE;
	other.ss = other.ds = other.es = other.fs = other.gs = SEL_DATA;
	other.eflags = 2;
	TRY("movl %%esp, %c0; movl %%ebp, %c1; ljmp %2, $0; 1:", "i"(&other.esp), "i"(&other.ebp),
	    "i"(SEL_FREE));
	return no_exception();
}

static bool has_lar(void)
{
	TRY("movw $8, %%ax; lar %%ax, %%ebx; verr %%ax; arpl %%ax, %%bx");
	return no_exception();
}

static void at_cpl3(struct frame *f)
{
	if (f->cs == (SEL_USER_CODE | 3))
		say("has it");
	guest_end();
}

static bool has_outer_return(void)
{
	on_vector(13, at_cpl3);
	asm volatile("movl %%esp, %%eax\n\tpushl %0\n\tpushl %%eax\n\tpushl %1\n\tpushl "
		     "$1f\n\tlretl\n1:"
		     :
		     : "i"(SEL_USER_DATA | 3), "i"(SEL_USER_CODE | 3)
		     : "eax", "memory");
	/* At CPL 3 now, without the right to use ports. */
	asm volatile("cli");
	return false;
}
#endif

static bool (*const facts[])(void) = {
	[FACT_X87] = has_x87,
	[FACT_SIMD] = has_simd,
	[FACT_BCD] = has_bcd,
	[FACT_BOUND] = has_bound,
	[FACT_LIMITS] = has_limits,
	[FACT_UNDEFINED] = has_undefined,
	[FACT_CONTROL] = has_control,
	[FACT_ENTER] = has_enter,
	[FACT_AAM_FLAGS] = has_aam_flags,
	[FACT_INT] = has_int,
	[FACT_STEP] = has_step,
	[FACT_STEP_EXACT] = has_step_exact,
	[FACT_WINDOW] = has_window,
	[FACT_APIC_ISR] = has_apic_isr,
#ifdef REAL
	[FACT_RETF32] = has_retf32,
#else
	[FACT_IRET] = has_iret,
	[FACT_CALL_GATE] = has_call_gate,
	[FACT_TASK] = has_task,
	[FACT_LAR] = has_lar,
	[FACT_OUTER_RETURN] = has_outer_return,
#endif
};

/* FACT_FERR has no test: only QEMU may have it, and that ends in it. */
void guest_main(void)
{
	bool (*has)(void) = parameter < ARRAY_SIZE(facts) ? facts[parameter] : NULL;

	if (!has || has())
		say("has it");
	/* Some of them end at CPL 3 or in another task. */
}
