/* SPDX-License-Identifier: MIT */
/*
 * Integer instructions: each runs over a table of operands; the log has a checksum of results and defined flags (SDM vol. 2 names the
 * undefined ones) for every instruction and operand size. Then exceptions, software interrupts, single step.
 */
#include "rt.h"

enum {
	CF = 1,
	PF = 4,
	AF = 16,
	ZF = 64,
	SF = 128,
	TF = 256,
	OF = 2048,
	ARITH = CF | PF | AF | ZF | SF | OF
};

static const uint32_t values[] = {0,          1,          0x7F,       0x80,       0x7FFF,    0x8000,
				  0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xDEADBEEF, 0x12345678};
static uint32_t sum;

static void add_up(uint32_t v)
{
	sum = (sum << 5 | sum >> 27) ^ v;
	sum = sum * 0x01000193u + 1;
}

#define WITH_FLAGS(instruction) "pushl %3\n\tpopfl\n\t" instruction "\n\tpushfl\n\tpopl %2\n\t"

/* instruction: on %0 and %1, any size. */
#define BINARY(name, instruction, mask)                                                            \
	do {                                                                                       \
		sum = 0;                                                                           \
		for (unsigned i = 0; i < ARRAY_SIZE(values); i++)                                  \
			for (unsigned j = 0; j < ARRAY_SIZE(values); j++)                          \
				for (uint32_t f = 2; f < 4; f++) {                                 \
					uint32_t a = values[i], b = values[j], c = b & 0xFF,       \
						 flags;                                            \
					asm volatile(WITH_FLAGS(instruction)                       \
						     : "+a"(a), "+d"(b), "=r"(flags)               \
						     : "r"(f), "c"(c)                              \
						     : "cc", "memory");                            \
					add_up(a);                                                 \
					add_up(b);                                                 \
					add_up(flags &(mask));                                     \
				}                                                                  \
		say("%s: %x", name, sum);                                                          \
	} while (0)

#define SIZES(name, op, mask)                                                                      \
	BINARY(name " 8", op "b %%dl, %%al", mask);                                                \
	BINARY(name " 16", op "w %%dx, %%ax", mask);                                               \
	BINARY(name " 32", op "l %%edx, %%eax", mask)
#define UNARY(name, op, mask)                                                                      \
	BINARY(name " 8", op "b %%al", mask);                                                      \
	BINARY(name " 16", op "w %%ax", mask);                                                     \
	BINARY(name " 32", op "l %%eax", mask)
/* Shifts: OF is defined for a count of one alone, so the flags are taken there. */
#define SHIFTS(name, op, mask)                                                                     \
	BINARY(name " 8 by 1", op "b $1, %%al", mask);                                             \
	BINARY(name " 16 by 1", op "w $1, %%ax", mask);                                            \
	BINARY(name " 32 by 1", op "l $1, %%eax", mask);                                           \
	BINARY(name " 8", "andb $7, %%cl; pushl %3; popfl;" op "b %%cl, %%al", CF);                \
	BINARY(name " 16", "andb $15, %%cl; pushl %3; popfl;" op "w %%cl, %%ax", CF);              \
	BINARY(name " 32", op "l %%cl, %%eax", CF)

static void arithmetic(void)
{
	SIZES("add", "add", ARITH);
	SIZES("adc", "adc", ARITH);
	SIZES("sub", "sub", ARITH);
	SIZES("sbb", "sbb", ARITH);
	SIZES("cmp", "cmp", ARITH);
	SIZES("and", "and", ARITH & ~AF);
	SIZES("or", "or", ARITH & ~AF);
	SIZES("xor", "xor", ARITH & ~AF);
	SIZES("test", "test", ARITH & ~AF);
	SIZES("xadd", "xadd", ARITH);
	SIZES("cmpxchg", "cmpxchg", ARITH);
	UNARY("inc", "inc", ARITH);
	UNARY("dec", "dec", ARITH);
	UNARY("neg", "neg", ARITH);
	UNARY("not", "not", ARITH);
}

static void shifts(void)
{
	SHIFTS("shl", "shl", ARITH & ~AF);
	SHIFTS("shr", "shr", ARITH & ~AF);
	SHIFTS("sar", "sar", ARITH & ~AF);
	SHIFTS("rol", "rol", ARITH);
	SHIFTS("ror", "ror", ARITH);
	SHIFTS("rcl", "rcl", ARITH);
	SHIFTS("rcr", "rcr", ARITH);
	BINARY("shld 32", "shldl %%cl, %%edx, %%eax", CF);
	BINARY("shrd 32", "shrdl %%cl, %%edx, %%eax", CF);
	BINARY("shld 16", "andb $15, %%cl; pushl %3; popfl; shldw %%cl, %%dx, %%ax", CF);
	BINARY("shrd 16", "andb $15, %%cl; pushl %3; popfl; shrdw %%cl, %%dx, %%ax", CF);
}

static void multiply(void)
{
	BINARY("mul 8", "mulb %%dl", CF | OF);
	BINARY("mul 16", "mulw %%dx", CF | OF);
	BINARY("mul 32", "mull %%edx", CF | OF);
	BINARY("imul 8", "imulb %%dl", CF | OF);
	BINARY("imul 16", "imulw %%dx", CF | OF);
	BINARY("imul 32", "imull %%edx", CF | OF);
	BINARY("imul r,r", "imull %%edx, %%eax", CF | OF);
	BINARY("imul r,r,i", "imull $-77, %%edx, %%eax", CF | OF);
	BINARY("div 8", "movzbl %%al, %%eax; orb $1, %%cl; divb %%cl", 0);
	BINARY("div 32", "orl $1, %%ecx; xorl %%edx, %%edx; divl %%ecx", 0);
	BINARY("idiv 16", "orl $3, %%ecx; cwtd; idivw %%cx", 0);
	BINARY("idiv 32", "orl $3, %%ecx; cltd; idivl %%ecx", 0);
}

static void bits(void)
{
	/* A source of zero leaves the destination undefined: take it out. */
	BINARY("bsf", "orl $0x80000000, %%edx; bsfl %%edx, %%eax", ZF);
	BINARY("bsr", "orl $1, %%edx; bsrl %%edx, %%eax", ZF);
	BINARY("bt", "btl %%edx, %%eax", CF);
	BINARY("bts", "btsl %%edx, %%eax", CF);
	BINARY("btr 16", "btrw %%dx, %%ax", CF);
	BINARY("btc", "btcl $13, %%eax", CF);
	BINARY("bswap", "bswapl %%eax", ARITH);
	BINARY("movzx", "movzbl %%dl, %%eax; movzwl %%dx, %%edx", ARITH);
	BINARY("movsx", "movsbl %%dl, %%eax; movswl %%dx, %%edx", ARITH);
	BINARY("cbw", "cbtw; cwtl; cltd", ARITH);
	BINARY("setcc", "cmpl %%edx, %%eax; seta %%al; setl %%ah; setp %%dl; seto %%dh", 0);
	BINARY("cmov", "cmpl %%edx, %%eax; cmovl %%edx, %%eax; cmovpl %%ecx, %%edx", 0);
	BINARY("lahf", "lahf", ARITH);
	BINARY("sahf", "sahf", ARITH);
	BINARY("salc", ".byte 0xd6", ARITH);
}

static void decimal(void)
{
	if (!left_out(FACT_AAM_FLAGS, "aam|aad")) {
		BINARY("aam", "aam", PF | ZF | SF);
		BINARY("aad", "aad", PF | ZF | SF);
	}
	BINARY("das", "das", ARITH & ~OF);
	if (left_out(FACT_BCD, "aaa|aas|daa"))
		return;
	BINARY("aaa", "aaa", CF | AF);
	BINARY("aas", "aas", CF | AF);
	BINARY("daa", "daa", ARITH & ~OF);
}

static void wide_compare(void)
{
	static uint64_t cell;
	uint32_t flags, a = 1, d = 2;

	cell = 0x200000001ull;
	asm volatile("lock cmpxchg8b %3\n\tpushfl\n\tpopl %2"
		     : "+a"(a), "+d"(d), "=r"(flags), "+m"(cell)
		     : "b"(3), "c"(4)
		     : "cc");
	say("cmpxchg8b equal: %x %x memory %x%x zf %d", a, d, (uint32_t)(cell >> 32),
	    (uint32_t)cell, flags >> 6 & 1);
	asm volatile("cmpxchg8b %3\n\tpushfl\n\tpopl %2"
		     : "+a"(a), "+d"(d), "=r"(flags), "+m"(cell)
		     : "b"(5), "c"(6)
		     : "cc");
	say("cmpxchg8b other: %x %x memory %x%x zf %d", a, d, (uint32_t)(cell >> 32),
	    (uint32_t)cell, flags >> 6 & 1);
	cell = 0;
}

static void strings(void)
{
	static uint8_t from[64], to[64];
	uint32_t s, d, c, flags;

	for (unsigned i = 0; i < sizeof(from); i++) {
		from[i] = (uint8_t)(i * 37 + 1);
		to[i] = 0;
	}
	s = (uint32_t)from, d = (uint32_t)to, c = 7;
	asm volatile("rep movsw" : "+S"(s), "+D"(d), "+c"(c) : : "memory");
	say("rep movsw: %x %x %x sum %x", s - (uint32_t)from, d - (uint32_t)to, c,
	    crc32(0, to, 64));
	s = (uint32_t)from + 63, d = (uint32_t)to + 63, c = 9;
	asm volatile("std\n\trep movsb\n\tcld" : "+S"(s), "+D"(d), "+c"(c) : : "memory");
	say("backwards: %x %x %x sum %x", s - (uint32_t)from, d - (uint32_t)to, c,
	    crc32(0, to, 64));
	s = (uint32_t)from, d = (uint32_t)to, c = 64;
	asm volatile("repe cmpsb\n\tpushfl\n\tpopl %3"
		     : "+S"(s), "+D"(d), "+c"(c), "=r"(flags)
		     :
		     : "memory", "cc");
	say("repe cmpsb: %x %x %x flags %x", s - (uint32_t)from, d - (uint32_t)to, c,
	    flags & ARITH);
	d = (uint32_t)from, c = 64;
	asm volatile("repne scasb\n\tpushfl\n\tpopl %2"
		     : "+D"(d), "+c"(c), "=r"(flags)
		     : "a"(from[20])
		     : "memory", "cc");
	say("repne scasb: %x %x flags %x", d - (uint32_t)from, c, flags & ARITH);
	d = (uint32_t)to, c = 5;
	asm volatile("rep stosl" : "+D"(d), "+c"(c) : "a"(0xA5A55A5A) : "memory");
	say("rep stosl: %x %x sum %x", d - (uint32_t)to, c, crc32(0, to, 64));
	d = (uint32_t)to, c = 0;
	asm volatile("rep stosl" : "+D"(d), "+c"(c) : "a"(0) : "memory");
	say("rep stosl, 0 times: %x %x", d - (uint32_t)to, c);
	s = (uint32_t)from;
	uint32_t a = 0;
	asm volatile("lodsb\n\tlodsw\n\tlodsl" : "+S"(s), "+a"(a) : : "memory");
	say("lods: %x at %x", a, s - (uint32_t)from);
	asm volatile("xlat" : "=a"(a) : "a"(0x11223305), "b"(from) : "memory");
	say("xlat: %x", a);
}

static void stack(void)
{
	static uint32_t out[10];
	uint32_t before, after;

	asm volatile("movl %%esp, %0\n\tpushal\n\tpopal\n\tpushl $-3\n\tpopl %1"
		     : "=m"(before), "=m"(out[0])
		     :
		     : "memory");
	asm volatile("movl %%esp, %0" : "=m"(after));
	say("push imm8: %x, stack %s", out[0], before == after ? "level" : "uneven");
	if (!left_out(FACT_ENTER, "enter")) {
		asm volatile(
			"pushl %%ebp\n\tmovl %%esp, %%ecx\n\tmovl %%ecx, %%ebp\n\tpushl "
			"$0x1111\n\tpushl $0x2222\n\tmovl %%ecx, %%ebp\n\t"
			"enterl $16, $2\n\tmovl %%ecx, %%eax\n\tsubl %%esp, %%eax\n\tmovl %%ecx, "
			"%%ebx\n\tsubl %%ebp, %%ebx\n\tleave\n\t"
			"movl %%ecx, %%edx\n\tsubl %%esp, %%edx\n\tmovl %%ecx, %%esp\n\tpopl %%ebp"
			: "=a"(out[1]), "=b"(out[2]), "=d"(out[3])
			:
			: "ecx", "memory", "cc");
		say("enter 16, 2: esp -%x ebp -%x after leave -%x", out[1], out[2], out[3]);
	}
	asm volatile("pushl %%esp\n\tpopl %0\n\tsubl %%esp, %0" : "=r"(out[4]));
	say("push esp: %x", out[4]);
	asm volatile("pushl $0x12345678\n\tpushw $0x9ABC\n\tpopw %w0\n\tpopl %1"
		     : "=r"(out[5]), "=r"(out[6]));
	say("push word: %w %x", out[5] & 0xFFFF, out[6]);
}

static void flags(void)
{
	uint32_t f, g;

	asm volatile("pushl $0x00244FD7\n\tandl $~0x300, (%%esp)\n\tpopfl\n\tpushfl\n\tpopl "
		     "%0\n\tcld\n\tpushl $2\n\tpopfl"
		     : "=r"(f)
		     :
		     : "cc");
	say("popfl: %x", f);
	asm volatile("pushw $0x7CD7\n\tpopfw\n\tpushfw\n\tpopw %w0\n\tcld\n\tpushl $2\n\tpopfl"
		     : "=r"(f)
		     :
		     : "cc");
	say("popfw: %w", f & 0xFFFF);
	asm volatile("stc\n\tcmc\n\tpushfl\n\tpopl %0\n\tstc\n\tpushfl\n\tpopl %1"
		     : "=r"(f), "=r"(g)
		     :
		     : "cc");
	say("cmc %d stc %d", f & 1, g & 1);
}

static void loops(void)
{
	uint32_t c = 5, n = 0;

	asm volatile("1: incl %1\n\tloop 1b" : "+c"(c), "+r"(n) : : "cc");
	say("loop: %x %d", c, n);
	c = 9, n = 0;
	asm volatile("1: incl %1\n\tcmpl $4, %1\n\tloopne 1b" : "+c"(c), "+r"(n) : : "cc");
	say("loopne: %x %d", c, n);
	c = 9, n = 0;
	asm volatile("1: incl %1\n\tcmpl %1, %1\n\tloope 1b" : "+c"(c), "+r"(n) : : "cc");
	say("loope: %x %d", c, n);
	c = 0x10000;
	asm volatile("movl $1, %1\n\tjcxz 1f\n\tmovl $2, %1\n1:" : "+c"(c), "=r"(n));
	say("jcxz (16 bits in real mode): %d", n);
}

/* Software interrupts: what the handler found. */
static uint32_t int_vector, int_at, int_flags;

static void on_software_interrupt(struct frame *f)
{
	int_vector = f->vector;
	int_at = f->eip;
	int_flags = f->eflags;
}

static uint32_t steps, step_at[8];

static void on_step(struct frame *f)
{
	if (steps < ARRAY_SIZE(step_at))
		step_at[steps] = f->eip;
	steps++;
}

extern char step_from[], step_stack_from[];

static void say_steps(const char *name, uint32_t from)
{
	say("%s: %d steps, first at +%x %x %x", name, steps, step_at[0] - from, step_at[1] - from,
	    step_at[2] - from);
	steps = 0;
	step_at[0] = step_at[1] = step_at[2] = 0;
}

static void undefined(void)
{
	if (left_out(FACT_UNDEFINED, "\\.byte|\\.rept"))
		return;
	TRIED(".byte 0x0f, 0xff");
	TRIED(".byte 0xf0; nop"); /* LOCK where it may not be */
	TRIED(".byte 0xf0; incl %%eax");
	TRIED(".byte 0xf0; incl 0x600");
	TRIED(".byte 0x8e, 0xc8"); /* MOV CS, AX */
	TRIED(".byte 0x8c, 0xf8"); /* MOV AX, a seventh segment register */
	TRIED(".byte 0xc6, 0xc8, 0x00");
	TRIED(".byte 0xfe, 0xf8");
	TRIED(".byte 0x8d, 0xc0");                 /* LEA with a register */
	TRIED(".byte 0x0f, 0x20, 0xc8");           /* CR1 */
	TRIED(".rept 16; .byte 0x66; .endr; nop"); /* longer than 15 bytes */
	TRIED(".byte 0x0f, 0x01, 0xc8");           /* MONITOR, not in our CPUID */
}

static void interrupts(void)
{
	uint32_t from;

#ifndef REAL
	if (left_out(FACT_INT, "int3?|into"))
		goto no_int;
#endif
	on_vector(0x42, on_software_interrupt);
	asm volatile("movl $1f, %0\n1:\tint $0x42" : "=m"(from));
	say("int 42: vector %x returns to +%x flags %x", int_vector, int_at - from,
	    int_flags & 0x3F300);
	TRY("int3");
	say_caught("int3");
	TRY("int $3");
	say_caught("int 3");
	TRY("movb $0x7F, %%al; addb $1, %%al; into");
	say_caught("into with OF");
	TRY("xorl %%eax, %%eax; into");
	say_caught("into without OF");
#ifndef REAL
no_int:
#endif
	int_vector = 0;
	TRIED("xorl %%ecx, %%ecx; divl %%ecx");
	TRIED("xorl %%edx, %%edx; movl $0x80000000, %%eax; movl $-1, %%edx; movl %%edx, %%ecx; "
	      "xorl %%edx, %%edx; divl %%ecx");
	TRIED("movl $0x80000000, %%eax; cltd; movl $-1, %%ecx; idivl %%ecx");
	TRIED("movw $0x100, %%ax; movb $1, %%cl; divb %%cl");
	TRIED("aam $0");
	TRIED("ud2");
	undefined();
	if (!left_out(FACT_BOUND, "bound")) {
		*(volatile uint64_t *)0x600 = 0x0000000500000001ull;
		for (uint32_t i = 0; i < 8; i++) {
			TRY("movl %0, %%eax; boundl %%eax, 0x600", "m"(i));
			say_caught("bound");
		}
		*(volatile uint64_t *)0x600 = 0;
	}
	if (left_out(FACT_STEP, "step"))
		return;
#ifndef REAL /* a handler that returns without IRET cannot step on */
	if (left_out(FACT_IRET, "step"))
		return;
#endif
	on_vector(1, on_step);
	asm volatile("movl $1f, %0\n1:\tpushfl\n\torl $0x100, "
		     "(%%esp)\n\tpopfl\n\tnop\n\tnop\n\tpushfl\n\tandl $~0x100, (%%esp)\n\tpopfl"
		     : "=m"(from)
		     :
		     : "memory", "cc");
	say_steps("step", from);
	if (left_out(FACT_STEP_EXACT, "step (over|in|dr6)"))
		return;
	/* A load of SS holds the trap back for one instruction. */
	asm volatile("movl $1f, %0\n\tmovw %%ss, %%ax\n1:\tpushfl\n\torl $0x100, "
		     "(%%esp)\n\tpopfl\n\tmovw %%ax, %%ss\n\tnop\n\tnop\n\t"
		     "pushfl\n\tandl $~0x100, (%%esp)\n\tpopfl"
		     : "=m"(from)
		     :
		     : "memory", "cc", "eax");
	say_steps("step over mov ss", from);
	/* One trap for each round of a string instruction. */
	asm volatile("movl $1f, %0\n\tmovl $3, %%ecx\n\tmovl $0x700, %%edi\n1:\tpushfl\n\torl "
		     "$0x100, (%%esp)\n\tpopfl\n\trep stosb\n\tnop\n\t"
		     "pushfl\n\tandl $~0x100, (%%esp)\n\tpopfl"
		     : "=m"(from)
		     : "a"(0)
		     : "memory", "cc", "ecx", "edi");
	say_steps("step in rep stosb", from);
	/* INT clears TF and the trap is not taken at its return. */
	asm volatile("movl $1f, %0\n1:\tpushfl\n\torl $0x100, (%%esp)\n\tpopfl\n\tint "
		     "$0x42\n\tnop\n\tpushfl\n\tandl $~0x100, (%%esp)\n\tpopfl"
		     : "=m"(from)
		     :
		     : "memory", "cc");
	say_steps("step over int", from);
	uint32_t dr6;
	asm volatile("movl %%dr6, %0\n\tmovl %1, %%dr6" : "=&r"(dr6) : "r"(0xFFFF0FF0));
	say("step dr6: %x", dr6);
}

void guest_main(void)
{
	arithmetic();
	shifts();
	multiply();
	bits();
	decimal();
	wide_compare();
	strings();
	stack();
	flags();
	loops();
	interrupts();
	asm volatile("movl %0, %%dr6" : : "r"(0xFFFF0FF0)); /* what single steps left */
	sum = 0;
	int_vector = int_at = int_flags = 0;
}
