/* SPDX-License-Identifier: MIT */
/*
 * x87, MMX and SSE in translated code: each program runs on the interpreter and on the translator,
 * from the same state, and must leave the same registers and memory. The differential test has the
 * instructions; here is what happens between them: control words, CR0 and CR4, faults, pages,
 * segments, and the state's ways between home, image and host.
 */
#include "core_machine.h"
#include "cpu/jit.h"
#include <string.h>

enum { CW_INIT = 0x37F, MXCSR_INIT = 0x1F80 };

#define MOD_ABS(reg) (uint8_t)((reg) << 3 | 5) /* ModRM: [disp32] */
#define AT(reg, off) MOD_ABS(reg), BYTES32(AT_DATA + (off))

struct pair {
	struct machine *interpreter, *translator;
};

static struct machine *with_cpu(bool jit)
{
	struct machine *m;
	void *state;

	if (machine_setup(&state) < 0)
		return NULL;
	m = state;
	struct soft_cpu_config config = {.cpus = 1,
					 .model = &m->model,
					 .mem = m->mem,
					 .ack = machine_ack,
					 .opaque = m,
					 .jit = jit,
					 .jit_after = 1};
	soft_cpu_free(m->cpu);
	m->cpu = soft_cpu_new(&config, NULL);
	if (!m->cpu)
		return NULL;
	machine_protected(m);
	m->s.cr0 |= CR0_NE | CR0_MP;
	m->s.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
	store_le16(m->s.fxsave + FX_CW, CW_INIT);
	m->s.fxsave[FX_TAGS] = 0;
	return m;
}

static int setup(void **state)
{
	struct pair *p = calloc(1, sizeof(*p));

	p->interpreter = with_cpu(false);
	p->translator = with_cpu(true);
	*state = p;
	return p->interpreter && p->translator ? 0 : -1;
}

static int teardown(void **state)
{
	struct pair *p = *state;
	void *a = p->interpreter, *b = p->translator;

	machine_teardown(&a);
	machine_teardown(&b);
	free(p);
	return 0;
}

#define BOTH(p, m)                                                                                 \
	for (struct machine *m = (p)->interpreter, *next_ = (p)->translator; m;                    \
	     m = next_, next_ = NULL)

static const struct jit_stats *stats(struct pair *p)
{
	return &p->translator->cpu->code->jit->stats;
}

/* The same code again, after a HLT. */
static void again(struct machine *m)
{
	m->s.eip = AT_CODE;
	m->s.activity = CPU_RUNNING;
}

static void fill_data(struct pair *p)
{
	static const double doubles[] = {1.0, -2.5, 3.0e300, 4.9e-324, -0.0, 1e-310,
					 0.1, -1e9, 123.456, 7.0,      0.5,  1e18};
	static const float floats[] = {1.0f, -0.3f, 1e-40f, 3e38f, -7.25f, 0.0f, 65536.5f, -1e-45f};

	BOTH(p, m)
	{
		memset(m->ram + AT_DATA, 0x5A, 0x4000);
		memcpy(m->ram + AT_DATA, doubles, sizeof doubles);
		memcpy(m->ram + AT_DATA + 0x80, floats, sizeof floats);
		for (unsigned n = 0; n < 8; n++)
			store_le32(m->ram + AT_DATA + 0xC0 + 4 * n, n * 0x01234567 - 3);
	}
}

static void assert_same(struct pair *p)
{
	struct cpu_state *a = &p->interpreter->s, *b = &p->translator->s;

	assert_int_equal(p->interpreter->exit, p->translator->exit);
	assert_int_equal(a->eip, b->eip);
	assert_int_equal(a->eflags, b->eflags);
	assert_int_equal(a->cr2, b->cr2);
	assert_memory_equal(a->gpr, b->gpr, sizeof a->gpr);
	assert_int_equal(load_le16(a->fxsave + FX_CW), load_le16(b->fxsave + FX_CW));
	assert_int_equal(load_le16(a->fxsave + FX_SW), load_le16(b->fxsave + FX_SW));
	assert_memory_equal(a->fxsave, b->fxsave, sizeof a->fxsave);
	assert_memory_equal(p->interpreter->ram, p->translator->ram, RAM_SIZE);
}

static void run_both(struct pair *p, const uint8_t *code, size_t len)
{
	BOTH(p, m)
	{
		machine_code(m, code, len);
		machine_go(m, 100000);
	}
	assert_same(p);
}
#define RUN_BOTH(p, ...)                                                                           \
	do {                                                                                       \
		const uint8_t bytes_[] = {__VA_ARGS__};                                            \
		run_both(p, bytes_, sizeof bytes_);                                                \
	} while (0)

static void every_rounding_and_precision(void **state)
{
	struct pair *p = *state;
	uint64_t interpreted;

	for (unsigned mode = 0; mode < 16; mode++) {
		fill_data(p);
		BOTH(p, m)
		{
			again(m);
			memset(m->s.fxsave + FX_CW, 0, 8);
			store_le16(m->s.fxsave + FX_CW, (uint16_t)(0x7F | mode << 8));
			store_le32(m->s.fxsave + FX_MXCSR, MXCSR_INIT | (mode & 3) << 13 |
								   (mode & 4) << 13 |
								   (mode & 8) << 3);
		}
		interpreted = stats(p)->callouts[JIT_SITE_INTERPRET];
		RUN_BOTH(p, 0xDD, AT(0, 48),            /* FLD 0.1 */
			 0xDC, AT(6, 72),               /* FDIV 7.0 */
			 0xDD, AT(0, 16), 0xDE, 0xC9,   /* FLD 3e300; FMULP */
			 0xD9, 0xFA,                    /* FSQRT */
			 0xDD, AT(2, 0x200),            /* FST m64 */
			 0xD9, AT(2, 0x208),            /* FST m32: overflow */
			 0xDF, AT(2, 0x20C),            /* FIST m16: invalid */
			 0xD9, AT(0, 0x88),             /* FLD denormal */
			 0xD8, 0xC9, 0xDE, 0xC1,        /* FMUL ST1; FADDP */
			 0xDB, AT(7, 0x210),            /* FSTP m80 */
			 0xF2, 0x0F, 0x10, AT(0, 48),   /* MOVSD 0.1 */
			 0xF2, 0x0F, 0x5E, AT(0, 72),   /* DIVSD 7.0 */
			 0xF2, 0x0F, 0x5A, 0xC8,        /* CVTSD2SS */
			 0xF3, 0x0F, 0x59, AT(1, 0x88), /* MULSS denormal */
			 0x0F, 0x28, AT(2, 0x80),       /* MOVAPS */
			 0x0F, 0x58, AT(2, 0x90),       /* ADDPS */
			 0xF2, 0x0F, 0x2D, AT(0, 64));  /* CVTSD2SI EAX, 123.456 */
		/* HLT, and perhaps the first read and the first write of the page. */
		assert_in_range(stats(p)->callouts[JIT_SITE_INTERPRET], interpreted + 1,
				interpreted + 3);
	}
}

static void stack_overflow_and_underflow(void **state)
{
	struct pair *p = *state;

	fill_data(p);
	RUN_BOTH(p, 0xD9, 0xE8, 0xD9, 0xEB, 0xD9, 0xE8, 0xD9, 0xEB, 0xD9, 0xE8, 0xD9, 0xEB, 0xD9,
		 0xE8, 0xD9, 0xEB, 0xD9, 0xEE); /* nine times */
	BOTH(p, m) again(m);
	RUN_BOTH(p, 0xDB, 0xE3, 0xDE, 0xC1,           /* FNINIT; FADDP on nothing */
		 0xDD, AT(3, 0x200), 0xDF, 0xE0,      /* FSTP m64; FNSTSW AX */
		 0xD9, 0xE8, 0xDB, 0xF1, 0xDF, 0xF2); /* FLD1; FCOMI ST1; FCOMIP ST2 */
}

static void control_words_that_unmask_leave_to_the_interpreter(void **state)
{
	struct pair *p = *state;

	fill_data(p);
	BOTH(p, m)
	{
		store_le16(m->ram + AT_DATA + 0x100, 0x0F7F); /* rounds to zero */
		store_le16(m->ram + AT_DATA + 0x102, 0x037B); /* zero divide unmasked */
		store_le16(m->ram + AT_DATA + 0x104, 0xFFFF); /* reserved bits */
	}
	/* FLDCW; FLD 123.456; FISTP m32; FNSTCW */
	RUN_BOTH(p, 0xD9, AT(5, 0x100), 0xDD, AT(0, 64), 0xDB, AT(3, 0x200), 0xD9, AT(7, 0x208),
		 0xD9, AT(5, 0x104), 0xD9, AT(7, 0x20A));
	assert_int_equal(load_le32(p->translator->ram + AT_DATA + 0x200), 123);
	assert_int_equal(load_le16(p->translator->ram + AT_DATA + 0x20A), 0x1F7F);
	/* FLDCW; FLD1; FLDZ; FDIVP; FLD1: #MF here */
	BOTH(p, m) again(m);
	RUN_BOTH(p, 0xD9, AT(5, 0x102), 0xD9, 0xE8, 0xD9, 0xEE, 0xDE, 0xF9, 0xD9, 0xE8);
	assert_exception(p->translator, EXC_MF);
	assert_int_equal(load_le32(p->translator->s.fxsave + FX_FIP), AT_CODE + 10);
}

static void mxcsr_is_checked(void **state)
{
	struct pair *p = *state;

	fill_data(p);
	BOTH(p, m)
	{
		store_le32(m->ram + AT_DATA + 0x100, 0x7F80);
		store_le32(m->ram + AT_DATA + 0x104, 0x1D80);  /* zero divide unmasked */
		store_le32(m->ram + AT_DATA + 0x108, 0x11F80); /* reserved */
	}
	/* LDMXCSR; CVTSD2SI; STMXCSR */
	RUN_BOTH(p, 0x0F, 0xAE, AT(2, 0x100), 0xF2, 0x0F, 0x2D, AT(0, 64), 0x0F, 0xAE,
		 AT(3, 0x200));
	assert_int_equal(p->translator->s.gpr[R_EAX], 123);
	BOTH(p, m) again(m);
	RUN_BOTH(p, 0x0F, 0x57, 0xC9, 0xF2, 0x0F, 0x10, AT(0, 0), 0x0F, 0xAE, AT(2, 0x108));
	assert_exception(p->translator, EXC_GP);
	BOTH(p, m) again(m);
	/* XORPS XMM1; MOVSD XMM0, 1.0; LDMXCSR; DIVSD XMM0, XMM1 */
	RUN_BOTH(p, 0x0F, 0x57, 0xC9, 0xF2, 0x0F, 0x10, AT(0, 0), 0x0F, 0xAE, AT(2, 0x104), 0xF2,
		 0x0F, 0x5E, 0xC1);
	assert_exception(p->translator, EXC_XM);
}

static void a_task_switched_flag_stops_and_clts_goes_on(void **state)
{
	struct pair *p = *state;
	/* The handler of #NM: CLTS; IRETD. */
	static const uint8_t handler[] = {0x0F, 0x06, 0xCF};

	fill_data(p);
	BOTH(p, m) memcpy(m->ram + AT_HANDLER + 16 * EXC_NM, handler, sizeof handler);
	for (unsigned round = 0; round < 3; round++) {
		BOTH(p, m)
		{
			again(m);
			m->s.gpr[R_ECX] = 3;
		}
		RUN_BOTH(p, 0xDB, 0xE3, 0xD9, 0xE8,                            /* FNINIT; FLD1 */
			 0x0F, 0x20, 0xC0, 0x83, 0xC8, 0x08, 0x0F, 0x22, 0xC0, /* CR0.TS */
			 0xDC, AT(0, 8),                                       /* FADD -2.5 */
			 0x0F, 0x20, 0xC0, 0x83, 0xC8, 0x08, 0x0F, 0x22, 0xC0, 0xF2, 0x0F, 0x10,
			 AT(0, 16),          /* MOVSD */
			 0xDD, AT(3, 0x200), /* FSTP */
			 0xE2, 0xD4);        /* LOOP */
	}
	assert_int_equal(load_le32(p->translator->ram + AT_DATA + 0x204), 0xBFF80000); /* -1.5 */
}

static void sse_without_osfxsr_is_undefined_while_x87_runs(void **state)
{
	struct pair *p = *state;

	fill_data(p);
	for (unsigned round = 0; round < 4; round++) {
		BOTH(p, m)
		{
			again(m);
			m->s.gpr[R_ESP] = AT_STACK;
			m->s.cr4 ^= CR4_OSFXSR;
		}
		RUN_BOTH(p, 0xDD, AT(0, 8), 0xDD, AT(3, 0x200), 0x0F, 0x6F, AT(0, 0), 0x0F, 0x77,
			 0xF2, 0x0F, 0x58, AT(0, 8));
		if (round & 1)
			assert_ran(p->translator, 29);
		else
			assert_exception(p->translator, EXC_UD);
	}
}

static void operands_across_pages_that_are_apart(void **state)
{
	struct pair *p = *state;
	enum { EDGE = AT_DATA + 0x1000 };

	fill_data(p);
	BOTH(p, m)
	{
		machine_paging(m);
		/* The second page of the data lies elsewhere. */
		machine_set_pte(m, EDGE, (AT_DATA + 0x3000) | 7);
		for (unsigned n = 0; n < 32; n++) {
			m->ram[EDGE - 16 + n - (n >= 16 ? 0x1000 : 0) + (n >= 16 ? 0x3000 : 0)] =
				(uint8_t)(n * 7);
		}
		m->s.gpr[R_EBX] = EDGE - 3;
	}
	RUN_BOTH(p, 0xDD, 0x03, 0xDB, 0x6B, 0xFB,          /* FLD m64 [EBX]; FLD m80 [EBX-5] */
		 0xDD, 0x5B, 0x02, 0xDB, 0x3B,             /* FSTP m64 [EBX+2]; FSTP m80 [EBX] */
		 0x0F, 0x10, 0x0B, 0x0F, 0x11, 0x4B, 0xFE, /* MOVUPS */
		 0xF3, 0x0F, 0x10, 0x13, 0xF3, 0x0F, 0x11, 0x53, 0x01, /* MOVSS */
		 0x0F, 0x6F, 0x3B, 0x0F, 0x7F, 0x7B, 0xFC);            /* MOVQ MM7 */
	assert_ran(p->translator, 33);
}

static void a_fault_in_the_middle_changes_nothing(void **state)
{
	struct pair *p = *state;
	enum { EDGE = AT_DATA + 0x1000 };
	static const uint8_t last[][6] = {
		{0xDD, 0x1B},             /* FSTP m64 */
		{0xDB, 0x3B},             /* FSTP m80 */
		{0xDC, 0x03},             /* FADD m64 */
		{0xD9, 0x2B},             /* FLDCW */
		{0xDF, 0x33},             /* FBSTP */
		{0x0F, 0x6F, 0x03},       /* MOVQ MM0 */
		{0x0F, 0x7F, 0x03},       /* MOVQ to memory */
		{0x0F, 0x11, 0x03},       /* MOVUPS to memory */
		{0xF2, 0x0F, 0x5C, 0x03}, /* SUBSD */
		{0x0F, 0xF7, 0xC1},       /* MASKMOVQ */
		{0x0F, 0xAE, 0x13},       /* LDMXCSR */
		{0x0F, 0x28, 0x03},       /* MOVAPS: #GP, misaligned */
	};

	for (unsigned n = 0; n < ARRAY_SIZE(last); n++) {
		uint8_t code[16] = {0xD9, 0xE8, 0xD9, 0xEB}; /* FLD1; FLDPI */

		fill_data(p);
		memcpy(code + 4, last[n], sizeof last[n]);
		BOTH(p, m)
		{
			machine_protected(m);
			m->s.cr0 |= CR0_NE | CR0_MP;
			m->s.cr4 |= CR4_OSFXSR;
			memset(m->s.fxsave, 0, FX_ST);
			store_le16(m->s.fxsave + FX_CW, CW_INIT);
			store_le32(m->s.fxsave + FX_MXCSR, MXCSR_INIT);
			machine_paging(m);
			machine_set_pte(m, EDGE, 0);
			m->s.gpr[R_EBX] = m->s.gpr[R_EDI] = EDGE - 1;
		}
		run_both(p, code, sizeof code);
		assert_exception(p->translator, n == 11 ? EXC_GP : EXC_PF);
		assert_int_equal(machine_stack(p->translator, 1), AT_CODE + 4);
		assert_int_equal(load_le32(p->translator->s.fxsave + FX_FIP), AT_CODE + 2);
	}
}

static void instruction_pointer_is_exact_wherever_it_is_read(void **state)
{
	struct pair *p = *state;

	fill_data(p);
	BOTH(p, m) m->s.gpr[R_ECX] = 3;
	/* FLD1; FADD; FNSTENV; FSTP; FXSAVE; FNSTENV in a loop: control instructions do not count. */
	RUN_BOTH(p, 0xD9, 0xE8, 0xDC, AT(0, 8), 0xD9, AT(6, 0x200), 0xDD, 0xD8, 0xD9, AT(7, 0x300),
		 0x0F, 0xAE, AT(0, 0x400), 0xD9, AT(6, 0x220), 0xE2, 0xDB);
	assert_ran(p->translator, 37);
	assert_int_equal(load_le32(p->translator->ram + AT_DATA + 0x20C), AT_CODE + 2);
	assert_int_equal(load_le32(p->translator->ram + AT_DATA + 0x408), AT_CODE + 14);
	assert_int_equal(load_le32(p->translator->ram + AT_DATA + 0x22C), AT_CODE + 14);
}

static void mmx_and_x87_share_registers(void **state)
{
	struct pair *p = *state;

	fill_data(p);
	RUN_BOTH(p, 0xD9, 0xE8, 0xD9, 0xEB,                        /* FLD1; FLDPI */
		 0x0F, 0x6F, AT(3, 0xC0), 0x0F, 0xFE, AT(3, 0xC8), /* MOVQ MM3; PADDD */
		 0xD9, AT(6, 0x200), 0x0F, 0xC5, 0xC3, 0x02,       /* FNSTENV; PEXTRW EAX, MM3, 2 */
		 0x0F, 0xD7, 0xD3, 0x0F, 0x7E, 0xDE,               /* PMOVMSKB EDX; MOVD ESI */
		 0xF3, 0x0F, 0xD6, 0xD3,                           /* MOVQ2DQ XMM2, MM3 */
		 0x0F, 0x77, 0xD9, 0xE8, 0xDB, AT(7, 0x220));      /* EMMS; FLD1; FSTP m80 */
}

static void masked_and_non_temporal_stores(void **state)
{
	struct pair *p = *state;

	fill_data(p);
	BOTH(p, m) m->s.gpr[R_EDI] = AT_DATA + 0x203;
	RUN_BOTH(p, 0x0F, 0x28, AT(0, 0), 0x66, 0x0F, 0x6F, AT(1, 0xC0), /* MOVAPS; MOVDQA */
		 0x66, 0x0F, 0xF7, 0xC1,                                 /* MASKMOVDQU */
		 0x0F, 0x2B, AT(0, 0x240), 0x66, 0x0F, 0xE7, AT(1, 0x250), 0x66, 0x0F, 0x2B,
		 AT(1, 0x260),                                   /* MOVNTPS, MOVNTDQ, MOVNTPD */
		 0x0F, 0x6F, AT(0, 8), 0x0F, 0xE7, AT(0, 0x270), /* MOVQ; MOVNTQ */
		 0x0F, 0xC3, AT(7, 0x278), 0x0F, 0xAE, 0xF8);    /* MOVNTI; SFENCE */
	assert_int_equal(p->translator->s.gpr[R_EDI], AT_DATA + 0x203);
}

static void comparisons_answer_in_the_flags(void **state)
{
	struct pair *p = *state;

	for (unsigned n = 0; n < 4; n++) {
		static const double b[] = {0.5, 1.0, 2.0, __builtin_nan("")};

		fill_data(p);
		BOTH(p, m)
		{
			memcpy(m->ram + AT_DATA + 0x100, &b[n], 8);
			again(m);
		}
		/* STC; MOVSD; UCOMISD; PUSHFD; FLD; FLD; FUCOMIP; PUSHFD; FCMOVB; FSTP */
		RUN_BOTH(p, 0xF9, 0xF2, 0x0F, 0x10, AT(0, 0), 0x66, 0x0F, 0x2E, AT(0, 0x100), 0x9C,
			 0xDD, AT(0, 0x100), 0xDD, AT(0, 0), 0xDF, 0xE9, 0x9C, 0xD9, 0xE8, 0xDA,
			 0xC1, 0xDD, 0xD9, 0xDD, AT(3, 0x200));
	}
}

static void tasks_switch_by_fxsave_and_fxrstor(void **state)
{
	struct pair *p = *state;

	fill_data(p);
	/* FLD1; FLDPI; MOVSD; FXSAVE A; FNINIT; FLDZ; FXSAVE B; FXRSTOR A; FSTP m64; FXRSTOR B;
	 * FXSAVE C; FNSTENV */
	RUN_BOTH(p, 0xD9, 0xE8, 0xD9, 0xEB, 0xF2, 0x0F, 0x10, AT(1, 8), 0x0F, 0xAE, AT(0, 0x400),
		 0xDB, 0xE3, 0xD9, 0xEE, 0x0F, 0xAE, AT(0, 0x600), 0x0F, 0xAE, AT(1, 0x400), 0xDD,
		 AT(3, 0x200), 0x0F, 0xAE, AT(1, 0x600), 0x0F, 0xAE, AT(0, 0x800), 0xD9,
		 AT(6, 0x300));
	assert_ran(p->translator, 63);
	/* An image whose reserved bytes hold something, with an exception pending and masked. */
	BOTH(p, m)
	{
		again(m);
		memset(m->ram + AT_DATA + 0xA00, 0x5A, 512);
		store_le16(m->ram + AT_DATA + 0xA00 + FX_CW, 0x5A7F);
		store_le16(m->ram + AT_DATA + 0xA00 + FX_SW, 0xB901);
		store_le32(m->ram + AT_DATA + 0xA00 + FX_MXCSR, MXCSR_INIT | 0x21);
	}
	RUN_BOTH(p, 0x0F, 0xAE, AT(1, 0xA00), 0x0F, 0xAE, AT(0, 0x800), 0xD9, 0xC9, 0x0F, 0xAE,
		 AT(0, 0xC00), 0xD9, AT(6, 0x300));
	assert_ran(p->translator, 29);
}

static void real_mode_and_segments(void **state)
{
	struct pair *p = *state;

	fill_data(p);
	BOTH(p, m)
	{
		uint32_t cr4 = m->s.cr4;

		machine_real(m);
		m->s.cr4 = cr4;
		store_le16(m->s.fxsave + FX_CW, CW_INIT);
		store_le32(m->s.fxsave + FX_MXCSR, MXCSR_INIT);
		m->s.gpr[R_EBX] = 0xFFFF0008;
		m->s.gpr[R_ESI] = 8;
	}
	/* FLD m64 [BX]; FADD m64 [BX+SI]; FSTP m64 [0x200]; MOVSD XMM0, [BX]; FLD m64 [0xFFFC]: #GP */
	RUN_BOTH(p, 0xDD, 0x07, 0xDC, 0x00, 0xDD, 0x1E, 0x00, 0x02, 0xF2, 0x0F, 0x10, 0x07, 0xDD,
		 0x06, 0xFC, 0xFF);
	assert_int_equal(p->translator->s.seg[S_CS].selector, AT_HANDLER / 16 + EXC_GP);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(every_rounding_and_precision),
		TEST(stack_overflow_and_underflow),
		TEST(control_words_that_unmask_leave_to_the_interpreter),
		TEST(mxcsr_is_checked),
		TEST(a_task_switched_flag_stops_and_clts_goes_on),
		TEST(sse_without_osfxsr_is_undefined_while_x87_runs),
		TEST(operands_across_pages_that_are_apart),
		TEST(a_fault_in_the_middle_changes_nothing),
		TEST(instruction_pointer_is_exact_wherever_it_is_read),
		TEST(mmx_and_x87_share_registers),
		TEST(masked_and_non_temporal_stores),
		TEST(comparisons_answer_in_the_flags),
		TEST(tasks_switch_by_fxsave_and_fxrstor),
		TEST(real_mode_and_segments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
