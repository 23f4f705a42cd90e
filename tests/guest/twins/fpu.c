/* SPDX-License-Identifier: MIT */
/*
 * x87, MMX, SSE and SSE2 (SDM vol. 1, chapters 8 to 11): control and status words, a table of operations over special values under all
 * precisions and roundings, exceptions through #MF and IRQ13, environments, FXSAVE; MXCSR.
 */
#include "rt.h"

static const uint64_t values[] = {
	0x0000000000000000, 0x8000000000000000, 0x3FF0000000000000, 0xBFF0000000000000,
	0x3FE5555555555555, 0x400921FB54442D18, 0x7FEFFFFFFFFFFFFF, 0x0010000000000000,
	0x0000000000000001, 0x7FF0000000000000, 0xFFF0000000000000, 0x7FF8000000000001,
	0x7FF0000000000001, 0x43E0000000000000, 0xC1E0000000200000, 0x3CA0000000000000,
};
static uint8_t result[10];
static uint16_t status;

static void set_control(uint16_t cw)
{
	asm volatile("fldcw %0" : : "m"(cw));
}

/* The operation on st(0) = a and st(1) = b; the result is st(0). */
#define OPERATION(name, instruction)                                                               \
	do {                                                                                       \
		uint32_t sum = 0, flags = 0;                                                       \
		for (unsigned i = 0; i < ARRAY_SIZE(values); i++)                                  \
			for (unsigned j = 0; j < ARRAY_SIZE(values); j++) {                        \
				asm volatile("fninit\n\tfldcw %4\n\tfldl %3\n\tfldl "              \
					     "%2\n\tfnclex\n\t" instruction                        \
					     "\n\tfnstsw %1\n\tfstpt %0"                           \
					     : "=m"(result), "=m"(status)                          \
					     : "m"(values[i]), "m"(values[j]), "m"(control)        \
					     : "memory");                                          \
				sum = crc32(sum, result, sizeof(result));                          \
				flags = crc32(flags, &status, sizeof(status));                     \
			}                                                                          \
		say("x87 %s under %w: %x", name, control, sum);                                    \
		say("x87 status of %s under %w: %x", name, control, flags);                        \
	} while (0)

static void operations(uint16_t control)
{
	OPERATION("fadd", "fadd %%st(1), %%st");
	OPERATION("fmul", "fmul %%st(1), %%st");
	OPERATION("fdiv", "fdiv %%st(1), %%st");
	OPERATION("fsqrt", "fsqrt");
	OPERATION("frndint", "frndint");
}

static void more_operations(void)
{
	uint16_t control = 0x037F;

	OPERATION("fsub", "fsub %%st(1), %%st");
	OPERATION("fsubr", "fsubr %%st(1), %%st");
	OPERATION("fdivr", "fdivr %%st(1), %%st");
	OPERATION("fprem", "fprem");
	OPERATION("fprem1", "fprem1");
	OPERATION("fabs", "fabs");
	OPERATION("fchs", "fchs");
	OPERATION("fxam", "fxam");
	OPERATION("ftst", "ftst");
	OPERATION("fcom", "fcom %%st(1)");
	OPERATION("fucom", "fucom %%st(1)");
	OPERATION("fcomi", "fcomi %%st(1), %%st");
	OPERATION("fxch", "fxch %%st(1)");
	OPERATION("fscale", "fscale");
}

static void conversions(void)
{
	for (uint16_t control = 0x037F; control <= 0x0F7F; control += 0x400) {
		uint32_t sum = 0;
		for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
			uint64_t out[6] = {0};
			asm volatile("fninit\n\tfldcw %2\n\tfldl %1\n\tfld %%st\n\tfistpll "
				     "0(%0)\n\tfld %%st\n\tfistpl 8(%0)\n\tfld %%st\n\t"
				     "fistps 16(%0)\n\tfld %%st\n\tfstps 24(%0)\n\tfld "
				     "%%st\n\tfstpl 32(%0)\n\tfistps 40(%0)"
				     :
				     : "r"(out), "m"(values[i]), "m"(control)
				     : "memory");
			sum = crc32(sum, out, sizeof(out));
		}
		say("x87 stores under %w: %x", control, sum);
	}
	uint8_t bcd[10];
	uint64_t number = 0xFFFFFFFFFFFFFFFF - 1234567890123456788ull;
	asm volatile("fninit\n\tfildll %1\n\tfbstp %0" : "=m"(bcd) : "m"(number));
	say("x87 fbstp: %x", crc32(0, bcd, 10));
	asm volatile("fbld %0\n\tfistpll %1" : : "m"(bcd), "m"(number) : "memory");
	say("x87 fbld: %x%x", (uint32_t)(number >> 32), (uint32_t)number);
	static const char *const names[] = {"fld1",   "fldpi",  "fldl2e", "fldl2t",
					    "fldlg2", "fldln2", "fldz"};
	uint8_t constant[7][10];
	asm volatile("fninit\n\tfldz\n\tfldln2\n\tfldlg2\n\tfldl2t\n\tfldl2e\n\tfldpi\n\tfld1\n\tfs"
		     "tpt 0(%0)\n\tfstpt 10(%0)\n\tfstpt 20(%0)\n\t"
		     "fstpt 30(%0)\n\tfstpt 40(%0)\n\tfstpt 50(%0)\n\tfstpt 60(%0)"
		     :
		     : "r"(constant)
		     : "memory");
	for (unsigned i = 0; i < 7; i++)
		say("x87 %s: %x", names[i], crc32(0, constant[i], 10));
}

static volatile uint32_t irq13;

static void on_irq13(struct frame *f)
{
	(void)f;
	irq13++;
	outb(0xF0, 0);
	asm volatile("fnclex");
	outb(0xA0, 0x20);
	outb(0x20, 0x20);
}

static void exceptions(void)
{
	uint32_t cr0;

	asm volatile("movl %%cr0, %0" : "=r"(cr0));
	asm volatile("fninit");
	asm volatile("movl %0, %%cr0" : : "r"(cr0 | 0x20));
	set_control(0x037B); /* division by zero */
	TRY("fldz; fld1; fdiv %%st(1), %%st; nop; fwait");
	say_caught("x87 #MF at fwait");
	asm volatile("fnstsw %0" : "=m"(status));
	say("x87 status then: %w", status);
	asm volatile("fnclex");
	asm volatile("fnclex\n\tfninit");
	asm volatile("movl %0, %%cr0" : : "r"(cr0 | 0x28)); /* TS */
	TRY("fld1");
	say_caught("x87 with TS");
	TRY("fwait");
	say_caught("fwait with TS, not MP");
	asm volatile("movl %0, %%cr0" : : "r"(cr0 | 0x2A));
	TRY("fwait");
	say_caught("fwait with TS and MP");
	asm volatile("movl %0, %%cr0" : : "r"((cr0 | 0x24) & ~2u)); /* EM */
	TRY("fld1");
	say_caught("x87 with EM");
	TRY("fwait");
	say_caught("fwait with EM");
	/* Without NE: FERR# is IRQ13. */
	if (left_out(FACT_FERR, "x87 irq13"))
		goto out;
	asm volatile("movl %0, %%cr0" : : "r"(cr0 & ~0x2Cu));
	on_vector(0x2D, on_irq13);
	pic_init(0xDFFB);
	asm volatile("fninit");
	set_control(0x037B);
	asm volatile("fldz\n\tfld1\n\tfdiv %%st(1), %%st" : : : "memory");
	sti();
	asm volatile("fwait");
	delay_ms(2);
	cli();
	say("x87 irq13: %s", irq13 ? "came" : "did not come");
	irq13 = 0;
	outb(0x21, 0xFF);
	outb(0xA1, 0xFF);
out:
	asm volatile("movl %0, %%cr0" : : "r"(cr0));
	asm volatile("fninit");
}

static void stack_faults(void)
{
	asm volatile("fninit\n\tfstp %%st(0)\n\tfnstsw %0\n\tfninit" : "=m"(status) : : "memory");
	say("x87 underflow: %w", status);
	asm volatile("fninit\n\t.rept 9; fld1; .endr\n\tfnstsw %0\n\tfstpt %1\n\tfninit"
		     : "=m"(status), "=m"(result)
		     :
		     : "memory");
	say("x87 overflow: %w %x", status, crc32(0, result, 10));
	uint16_t tags[14];
	asm volatile("fninit\n\tfldz\n\tfld1\n\tffree %%st(1)\n\tfincstp\n\tfnstenv %0\n\tfninit"
		     : "=m"(tags)
		     :
		     : "memory");
	say("x87 environment: %w %w %w %w", tags[0], tags[1], tags[2], tags[4]);
}

static uint8_t image[512 + 16];

static void saving(void)
{
	uint32_t cr4;
	uint8_t *aligned = (uint8_t *)(((uint32_t)image + 15) & ~15u);

	asm volatile("movl %%cr4, %0" : "=r"(cr4));
	asm volatile("movl %0, %%cr4" : : "r"(cr4 | 0x600));
	asm volatile("fninit\n\tfld1\n\tfldpi\n\tfxsave (%0)\n\tfninit"
		     :
		     : "r"(aligned)
		     : "memory");
	say("x87 fxsave: %w %w %b st0 %x", *(uint16_t *)aligned, *(uint16_t *)(aligned + 2),
	    aligned[4], crc32(0, aligned + 32, 10));
	asm volatile("fxrstor (%0)\n\tfstpt %1\n\tfninit" : : "r"(aligned), "m"(result) : "memory");
	say("x87 fxrstor: %x", crc32(0, result, 10));
	TRY("movl %0, %%eax; fxsave 8(%%eax)", "m"(aligned));
	say_caught("x87 fxsave, not aligned");
	uint8_t whole[108];
	asm volatile("fninit\n\tfld1\n\tfnsave %0\n\tfrstor %0\n\tfstpt %1"
		     : "+m"(whole), "=m"(result)
		     :
		     : "memory");
	say("x87 fnsave, frstor: %x", crc32(0, result, 10));
	for (unsigned i = 0; i < sizeof(image); i++)
		image[i] = 0;
	asm volatile("movl %0, %%cr4" : : "r"(cr4));
}

static const uint32_t quads[][4] = {
	{0x3F800000, 0xBF800000, 0x00000000, 0x80000000},
	{0x7F800000, 0xFF800000, 0x7FC00001, 0x7F800001},
	{0x00000001, 0x007FFFFF, 0x7F7FFFFF, 0x3F000001},
	{0x12345678, 0x9ABCDEF0, 0x0F1E2D3C, 0x80007FFF},
	{0x00000000, 0x3FF00000, 0x54442D18, 0xC00921FB},
	{0x00000001, 0x7FF00000, 0xFFFFFFFF, 0x7FEFFFFF},
};

#define VECTOR(name, load, instruction, store, size)                                               \
	do {                                                                                       \
		uint32_t sum = 0, all = 0, flags = 0, csr = 0x1F80, out[4] = {0};                  \
		for (unsigned i = 0; i < ARRAY_SIZE(quads); i++)                                   \
			for (unsigned j = 0; j < ARRAY_SIZE(quads); j++) {                         \
				asm volatile("ldmxcsr %3\n\t" load " (%1), %%" size "0\n\t" load   \
					     " (%2), %%" size "1\n\t" instruction " %%" size       \
					     "1, %%" size "0\n\t" store " %%" size "0, (%0)\n\t"   \
					     "stmxcsr %4"                                          \
					     :                                                     \
					     : "r"(out), "r"(quads[i]), "r"(quads[j]), "m"(csr),   \
					       "m"(flags)                                          \
					     : "memory");                                          \
				sum = crc32(sum, out, sizeof(out));                                \
				all = crc32(all, &flags, 4);                                       \
			}                                                                          \
		say("simd " name ": %x", sum);                                                     \
		say("simd flags of " name ": %x", all);                                            \
	} while (0)
#define SSE(name) VECTOR(name, "movups", name, "movups", "xmm")
#define MMX(name) VECTOR(name, "movq", name, "movq", "mm")

static void vectors(void)
{
	uint32_t cr4, a, b, c, d;

	asm volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(1));
	if (!(d >> 23 & 1) || !(d >> 25 & 1) || !(d >> 26 & 1)) {
		say("simd: not in cpuid");
		return;
	}
	TRY("movups (%%esp), %%xmm0");
	say_caught("simd without OSFXSR");
	asm volatile("movl %%cr4, %0" : "=r"(cr4));
	asm volatile("movl %0, %%cr4" : : "r"(cr4 | 0x600));
	MMX("paddb");
	MMX("paddsw");
	MMX("psubusb");
	MMX("pmullw");
	MMX("pmulhw");
	MMX("pmaddwd");
	MMX("packsswb");
	MMX("punpckhbw");
	MMX("pcmpgtd");
	MMX("psrlq");
	MMX("psraw");
	MMX("pxor");
	MMX("pandn");
	MMX("pavgb");
	MMX("pmaxub");
	MMX("psadbw");
	MMX("pmuludq");
	asm volatile("emms");
	SSE("addps");
	SSE("mulps");
	SSE("divps");
	SSE("subss");
	SSE("sqrtps");
	SSE("minps");
	SSE("maxss");
	SSE("cmpltps");
	SSE("unpcklps");
	SSE("andnps");
	SSE("addpd");
	SSE("mulpd");
	SSE("divsd");
	SSE("sqrtpd");
	SSE("minpd");
	SSE("cvtps2dq");
	SSE("cvttps2dq");
	SSE("cvtdq2ps");
	SSE("cvtpd2ps");
	SSE("cvtps2pd");
	SSE("cvtpd2dq");
	SSE("cvtdq2pd");
	SSE("paddq");
	SSE("pmuludq");
	SSE("psubd");
	SSE("packssdw");
	SSE("punpcklqdq");
	SSE("pcmpeqd");
	SSE("psllq");
	SSE("psadbw");
	SSE("ucomiss");
	SSE("comisd");
	uint32_t csr = 0x1D80; /* division by zero unmasked */
	asm volatile("ldmxcsr %0" : : "m"(csr));
	TRY("xorps %%xmm1, %%xmm1; movups %0, %%xmm0; divps %%xmm1, %%xmm0", "m"(quads[0]));
	say_caught("simd #XM");
	asm volatile("stmxcsr %0" : "=m"(csr));
	say("simd mxcsr then: %x", csr);
	csr = 0x10000;
	TRY("ldmxcsr %0", "m"(csr));
	say("simd reserved bit of mxcsr: exception %b", caught.vector & 0xFF);
	csr = 0x1F80;
	asm volatile("ldmxcsr %0" : : "m"(csr));
	asm volatile("pxor %xmm0, %xmm0\n\tpxor %xmm1, %xmm1");
	asm volatile("movl %0, %%cr4" : : "r"(cr4));
	asm volatile("fninit");
}

static void fninit_alone(void)
{
	uint16_t cw = 0;

	asm volatile("fninit\n\tfnstcw %0\n\tfnstsw %1" : "=m"(cw), "=m"(status));
	say("fninit: %w %w", cw, status);
}

/* Empty registers keep what was in them, and engines differ in that. */
static void wipe(void)
{
	asm volatile("fninit\n\t.rept 8; fldz; .endr\n\tfninit");
}

void guest_main(void)
{
	fninit_alone();
	if (!left_out(FACT_X87, "x87|fwait")) {
		for (unsigned precision = 0; precision < 4; precision++)
			if (precision != 1)
				for (unsigned rounding = 0; rounding < 4; rounding++)
					operations(
						(uint16_t)(0x7F | precision << 8 | rounding << 10));
		more_operations();
		conversions();
		stack_faults();
		exceptions();
		saving();
		wipe();
	}
	if (!left_out(FACT_SIMD, "simd"))
		vectors();
	if (!(left_out_mask >> FACT_X87 & 1))
		wipe();
	status = 0;
	for (unsigned i = 0; i < sizeof(result); i++)
		result[i] = 0;
}
