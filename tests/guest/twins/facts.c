/* SPDX-License-Identifier: MIT */
/* Runs the one instruction that `parameter` names and says what came of it; a machine that has it prints "has it". */
#include "rt.h"

static bool stepped;
static int steps;

static void step(struct frame *f)
{
	stepped = true;
	if (parameter == FACT_STEP_EXACT && ++steps < 20)
		return;
	f->eflags &= ~0x100;
}

#ifndef REAL
static void at_cpl3(struct frame *f)
{
	if (f->cs == (SEL_USER_CODE | 3))
		say("has it");
	guest_end();
}
#endif

void guest_main(void)
{
	bool has = true;

	switch (parameter) {
	case FACT_FERR: break; /* only QEMU, and that ends in it */
	case FACT_X87:
		TRY("fld1; fldpi; fmulp; fstp %%st(0)");
		has = caught.vector < 0;
		break;
	case FACT_SIMD:
		TRY("pxor %%mm0, %%mm0; emms");
		has = caught.vector < 0;
		break;
	case FACT_BCD:
		TRY("aaa; aas; daa");
		has = caught.vector < 0;
		break;
	case FACT_BOUND:
		TRY("xorl %%eax, %%eax; boundl %%eax, 0x600");
		has = caught.vector < 0;
		break;
	case FACT_LIMITS:
#ifdef REAL
		TRY("movl $0x10000, %%ebx; movl (%%ebx), %%eax");
#else
		flat_gdt[SEL_FREE / 8] = descriptor(0, 0xFF, 0x4093);
		TRY("movl %0, %%edi; movw %%di, %%fs; movl %%fs:0x200, %%eax", "i"(SEL_FREE));
#endif
		has = caught.vector == 13;
		break;
	case FACT_AAM_FLAGS: {
		uint32_t flags;
		asm volatile("movl $0x80, %%eax\n\taad\n\tpushfl\n\tpopl %0"
			     : "=r"(flags)
			     :
			     : "eax", "cc");
		has = flags & 0x80;
		break;
	}
	case FACT_ENTER: asm volatile("enterl $16, $2\n\tleave" : : : "memory"); break;
	case FACT_INT:
		on_vector(0x42, step);
		asm volatile("int $0x42" : : : "memory");
		has = stepped;
		break;
	case FACT_UNDEFINED:
		TRY(".byte 0x0f, 0xff; .byte 0x0f, 0x0c");
		has = caught.vector == 6;
		break;
	case FACT_STEP_EXACT:
		on_vector(1, step);
		asm volatile("movl $3, %%ecx\n\tmovl $0x700, %%edi\n\tpushfl\n\torl $0x100, "
			     "(%%esp)\n\tpopfl\n\trep stosb\n\tnop\n\t"
			     "pushfl\n\tandl $~0x100, (%%esp)\n\tpopfl"
			     :
			     : "a"(0)
			     : "memory", "cc", "ecx", "edi");
		has = steps == 7;
		break;
	case FACT_WINDOW:
		on_vector(0x20, step);
		pic_init(0xFFFE);
		outb(0x43, 0x30);
		outb(0x40, 0x10);
		outb(0x40, 0x00);
		delay_ms(3);
		asm volatile("sti\n\tnop\n\tnop\n\tcli" : : : "memory");
		has = stepped;
		break;
	case FACT_CONTROL:
		TRY("movl $0x20000010, %%eax; movl %%eax, %%cr0");
		has = caught.vector == 13;
		break;
	case FACT_APIC_ISR:
		on_vector(0x51, step);
		pic_init(0xFFFF);
		write32(0xFEE00310, 0);
		write32(0xFEE00300, 0x44051);
		let_in();
		has = stepped && read32(0xFEE00120);
		break;
	case FACT_STEP:
		on_vector(1, step);
		asm volatile("pushfl\n\torl $0x100, (%%esp)\n\tpopfl\n\tnop\n\tnop"
			     :
			     :
			     : "memory", "cc");
		has = stepped;
		break;
#ifdef REAL
	case FACT_RETF32: asm volatile("pushl $0\n\tpushl $1f\n\tlretl\n1:" : : : "memory"); break;
#else
	case FACT_IRET:
		asm volatile("pushfl\n\tpushl %%cs\n\tpushl $1f\n\tiretl\n1:" : : : "memory");
		break;
	case FACT_CALL_GATE:
		flat_gdt[SEL_FREE / 8] = gate(SEL_CODE, 0, 0x8C00);
		TRY("movl $1f, %%eax; movw %%ax, %c1; shrl $16, %%eax; movw %%ax, %c1 + 6; lcall "
		    "%0, $0; 1: popl %%eax; popl %%eax",
		    "i"(SEL_FREE), "i"(flat_gdt + SEL_FREE / 8));
		has = caught.vector < 0;
		break;
	case FACT_TASK: {
		static struct tss other;
		asm volatile("movl $1f, %0" : "=m"(other.eip));
		flat_gdt[SEL_FREE / 8] = descriptor((uint32_t)&other, sizeof(other) - 1, 0x89);
		other.cs = SEL_CODE;
		other.ss = other.ds = other.es = other.fs = other.gs = SEL_DATA;
		other.eflags = 2;
		TRY("movl %%esp, %0; movl %%ebp, %1; ljmp %2, $0; 1:", "m"(other.esp),
		    "m"(other.ebp), "i"(SEL_FREE));
		has = caught.vector < 0;
		break;
	}
	case FACT_LAR:
		TRY("movw $8, %%ax; lar %%ax, %%ebx; verr %%ax; arpl %%ax, %%bx");
		has = caught.vector < 0;
		break;
	case FACT_OUTER_RETURN:
		on_vector(13, at_cpl3);
		asm volatile("movl %%esp, %%eax\n\tpushl %0\n\tpushl %%eax\n\tpushl %1\n\tpushl "
			     "$1f\n\tlretl\n1:"
			     :
			     : "i"(SEL_USER_DATA | 3), "i"(SEL_USER_CODE | 3)
			     : "eax", "memory");
		/* At CPL 3 now, without the right to use ports. */
		asm volatile("cli");
		has = false;
		break;
#endif
	}
	if (has)
		say("has it");
	/* Some of them end at CPL 3 or in another task. */
}
