/* SPDX-License-Identifier: MIT */
/*
 * Random instruction streams.
 *
 * Each row of a table is an instruction form; a group is a set of rows. The generator picks a row,
 * chooses operands, and puts in front what makes most memory operands hit the data area (a few miss
 * on purpose). Flags that the SDM leaves undefined are overwritten right after the instruction, so
 * that they cannot spread.
 *
 * Left out: what depends on the host beyond the CPU's architecture (CPUID, RDTSC, SGDT with UMIP),
 * what enters the kernel (INT 80h, SYSENTER), segment register loads of selectors whose descriptors
 * are the kernel's, and encodings that newer processors gave a meaning (F3 BC/BD/B8, VEX in place
 * of LES/LDS with a register).
 */
#include "tests/diff/diff.h"
#include <string.h>

uint64_t random_state = 1;

/* What follows the opcode. */
enum shape {
	S_PLAIN,    /* no ModRM */
	S_REGFIELD, /* no ModRM, a register in the opcode's low three bits */
	S_MODRM,    /* any register in ModRM.reg */
	S_MODRM_8,  /* the same, byte registers (matters for ESP alone) */
	S_GROUP,    /* ModRM.reg is part of the opcode: `reg` */
	S_STRING,   /* may be repeated: REP counts are kept small */
	S_SPECIAL,  /* `reg` is one of enum special */
};
enum special {
	SP_JCC,
	SP_SETUP_RET,
	SP_CALL,
	SP_JMP_INDIRECT,
	SP_CALL_INDIRECT,
	SP_LOOP,
	SP_JMP,
	SP_ENTER,
	SP_LEAVE,
	SP_POPF,
	SP_POPA,
	SP_DIV,
	SP_INT,
	SP_SHIFT_DOUBLE,
	SP_X87_REG,
	SP_X87_FCLEX,
	SP_X87_INIT,
	SP_SEGMENT,
	SP_SREG_READ,
	SP_BAD,
	SP_LDMXCSR,
	SP_FLDCW,
	SP_PUSHF,
	SP_X87_STATE,
	SP_MOFFS,
	SP_XLAT,
	SP_BOUND,
	SP_CMPXCHG8B,
	SP_FAR_LOAD,
	SP_LOCK_BAD,
	SP_ODD_SIMD,
	SP_NEAR16,
};
enum imm { I_NONE, I_8, I_Z, I_16 };
enum {
	F_MEM = 1 << 0,  /* ModRM names memory only */
	F_REG = 1 << 1,  /* a register only */
	F_LOCK = 1 << 2, /* LOCK is allowed with a memory destination */
	F_NO66 = 1 << 3, /* the operand size prefix would make it another instruction */
	F_ALIGN16 = 1 << 4,
	F_TAKES_SP = 1 << 5, /* writes a general register: ESP is mostly avoided */
	F_XCHG = 1 << 6,     /* locked by itself: never split over cache lines */
	F_BITS = 1 << 7,     /* bit string: the register operand addresses memory far away */
	F_SHIFT = 1 << 8,    /* shift or rotate: what is undefined depends on the count */
};

struct form {
	uint8_t map;    /* 0: one byte; 0x0F */
	uint8_t prefix; /* mandatory: 0, 66, F2, F3 */
	uint8_t op;
	uint8_t last; /* `op`..`last` are all of this form; 0: just `op` */
	uint8_t shape, reg, imm;
	uint16_t flags;
	uint16_t undefined;
};

#define LOGIC_UNDEF  FL_AF
#define MUL_UNDEF    (FL_SF | FL_ZF | FL_AF | FL_PF)
#define BITS_UNDEF   (FL_OF | FL_SF | FL_AF | FL_PF)
#define SCAN_UNDEF   (FL_CF | FL_OF | FL_SF | FL_AF | FL_PF)
#define SHIFT_UNDEF  (FL_AF | FL_OF | FL_CF)
#define ROTATE_UNDEF FL_OF

#define ALU_ROWS(base, undef, lock)                                                                \
	{0, 0, base, base + 1, S_MODRM, 0, I_NONE, lock, undef},                                   \
		{0, 0, base + 2, base + 3, S_MODRM, 0, I_NONE, F_TAKES_SP, undef},                 \
		{0, 0, base + 4, 0, S_PLAIN, 0, I_8, 0, undef},                                    \
	{                                                                                          \
		0, 0, base + 5, 0, S_PLAIN, 0, I_Z, 0, undef                                       \
	}
#define ALU_GROUP(n, undef, lock)                                                                  \
	{0, 0, 0x80, 0, S_GROUP, n, I_8, lock, undef},                                             \
		{0, 0, 0x81, 0, S_GROUP, n, I_Z, lock | F_TAKES_SP, undef},                        \
		{0, 0, 0x82, 0, S_GROUP, n, I_8, lock, undef},                                     \
	{                                                                                          \
		0, 0, 0x83, 0, S_GROUP, n, I_8, lock | F_TAKES_SP, undef                           \
	}
#define SHIFT_GROUP(n, undef)                                                                      \
	{0, 0, 0xC0, 0xC1, S_GROUP, n, I_8, F_SHIFT | F_TAKES_SP, undef},                          \
		{0, 0, 0xD0, 0xD1, S_GROUP, n, I_NONE, F_SHIFT | F_TAKES_SP, undef},               \
	{                                                                                          \
		0, 0, 0xD2, 0xD3, S_GROUP, n, I_NONE, F_SHIFT | F_TAKES_SP, undef                  \
	}
#define SPECIAL(which)                                                                             \
	{                                                                                          \
		0, 0, 0, 0, S_SPECIAL, which, 0, 0, 0                                              \
	}

static const struct form alu[] = {
	ALU_ROWS(0x00, 0, F_LOCK),
	ALU_ROWS(0x08, LOGIC_UNDEF, F_LOCK),
	ALU_ROWS(0x10, 0, F_LOCK),
	ALU_ROWS(0x18, 0, F_LOCK),
	ALU_ROWS(0x20, LOGIC_UNDEF, F_LOCK),
	ALU_ROWS(0x28, 0, F_LOCK),
	ALU_ROWS(0x30, LOGIC_UNDEF, F_LOCK),
	ALU_ROWS(0x38, 0, 0),
	ALU_GROUP(0, 0, F_LOCK),
	ALU_GROUP(1, LOGIC_UNDEF, F_LOCK),
	ALU_GROUP(2, 0, F_LOCK),
	ALU_GROUP(3, 0, F_LOCK),
	ALU_GROUP(4, LOGIC_UNDEF, F_LOCK),
	ALU_GROUP(5, 0, F_LOCK),
	ALU_GROUP(6, LOGIC_UNDEF, F_LOCK),
	ALU_GROUP(7, 0, 0),
	{0, 0, 0x40, 0x4F, S_REGFIELD, 0, I_NONE, F_TAKES_SP, 0},
	{0, 0, 0x84, 0x85, S_MODRM, 0, I_NONE, 0, LOGIC_UNDEF},
	{0, 0, 0xA8, 0, S_PLAIN, 0, I_8, 0, LOGIC_UNDEF},
	{0, 0, 0xA9, 0, S_PLAIN, 0, I_Z, 0, LOGIC_UNDEF},
	{0, 0, 0xF6, 0, S_GROUP, 0, I_8, 0, LOGIC_UNDEF},
	{0, 0, 0xF7, 0, S_GROUP, 0, I_Z, 0, LOGIC_UNDEF},
	{0, 0, 0xF6, 0, S_GROUP, 1, I_8, 0, LOGIC_UNDEF},
	{0, 0, 0xF7, 0, S_GROUP, 1, I_Z, 0, LOGIC_UNDEF},
	{0, 0, 0xF6, 0xF7, S_GROUP, 2, I_NONE, F_LOCK | F_TAKES_SP, 0},
	{0, 0, 0xF6, 0xF7, S_GROUP, 3, I_NONE, F_LOCK | F_TAKES_SP, 0},
	{0, 0, 0xFE, 0xFF, S_GROUP, 0, I_NONE, F_LOCK | F_TAKES_SP, 0},
	{0, 0, 0xFE, 0xFF, S_GROUP, 1, I_NONE, F_LOCK | F_TAKES_SP, 0},
	{0, 0, 0x27, 0, S_PLAIN, 0, I_NONE, 0, FL_OF},
	{0, 0, 0x2F, 0, S_PLAIN, 0, I_NONE, 0, FL_OF},
	{0, 0, 0x37, 0, S_PLAIN, 0, I_NONE, 0, FL_OF | FL_SF | FL_ZF | FL_PF},
	{0, 0, 0x3F, 0, S_PLAIN, 0, I_NONE, 0, FL_OF | FL_SF | FL_ZF | FL_PF},
	{0, 0, 0xD4, 0xD5, S_PLAIN, 0, I_8, 0, FL_OF | FL_AF | FL_CF},
	{0, 0, 0xD6, 0, S_PLAIN, 0, I_NONE, 0, 0},
	{0, 0, 0x98, 0x99, S_PLAIN, 0, I_NONE, 0, 0},
	{0, 0, 0x9E, 0x9F, S_PLAIN, 0, I_NONE, 0, 0},
	{0, 0, 0xF5, 0, S_PLAIN, 0, I_NONE, 0, 0},
	{0, 0, 0xF8, 0xF9, S_PLAIN, 0, I_NONE, 0, 0},
	{0x0F, 0, 0xC0, 0xC1, S_MODRM, 0, I_NONE, F_LOCK | F_TAKES_SP, 0},
	{0x0F, 0, 0xB0, 0xB1, S_MODRM, 0, I_NONE, F_LOCK | F_TAKES_SP, 0},
	SPECIAL(SP_CMPXCHG8B),
};
static const struct form shift[] = {
	SHIFT_GROUP(0, ROTATE_UNDEF), SHIFT_GROUP(1, ROTATE_UNDEF), SHIFT_GROUP(2, ROTATE_UNDEF),
	SHIFT_GROUP(3, ROTATE_UNDEF), SHIFT_GROUP(4, SHIFT_UNDEF),  SHIFT_GROUP(5, SHIFT_UNDEF),
	SHIFT_GROUP(6, SHIFT_UNDEF),  SHIFT_GROUP(7, SHIFT_UNDEF),  SPECIAL(SP_SHIFT_DOUBLE),
	SPECIAL(SP_SHIFT_DOUBLE),
};
static const struct form muldiv[] = {
	{0, 0, 0xF6, 0xF7, S_GROUP, 4, I_NONE, 0, MUL_UNDEF},
	{0, 0, 0xF6, 0xF7, S_GROUP, 5, I_NONE, 0, MUL_UNDEF},
	{0x0F, 0, 0xAF, 0, S_MODRM, 0, I_NONE, F_TAKES_SP, MUL_UNDEF},
	{0, 0, 0x69, 0, S_MODRM, 0, I_Z, F_TAKES_SP, MUL_UNDEF},
	{0, 0, 0x6B, 0, S_MODRM, 0, I_8, F_TAKES_SP, MUL_UNDEF},
	SPECIAL(SP_DIV),
	SPECIAL(SP_DIV),
};
static const struct form bits[] = {
	{0x0F, 0, 0xA3, 0, S_MODRM, 0, I_NONE, F_BITS, BITS_UNDEF},
	{0x0F, 0, 0xAB, 0, S_MODRM, 0, I_NONE, F_BITS | F_TAKES_SP, BITS_UNDEF},
	{0x0F, 0, 0xB3, 0, S_MODRM, 0, I_NONE, F_BITS | F_TAKES_SP, BITS_UNDEF},
	{0x0F, 0, 0xBB, 0, S_MODRM, 0, I_NONE, F_BITS | F_TAKES_SP, BITS_UNDEF},
	{0x0F, 0, 0xBA, 0, S_GROUP, 4, I_8, 0, BITS_UNDEF},
	{0x0F, 0, 0xBA, 0, S_GROUP, 5, I_8, F_LOCK | F_TAKES_SP, BITS_UNDEF},
	{0x0F, 0, 0xBA, 0, S_GROUP, 6, I_8, F_LOCK | F_TAKES_SP, BITS_UNDEF},
	{0x0F, 0, 0xBA, 0, S_GROUP, 7, I_8, F_LOCK | F_TAKES_SP, BITS_UNDEF},
	{0x0F, 0, 0xBC, 0xBD, S_MODRM, 0, I_NONE, F_TAKES_SP, SCAN_UNDEF},
	{0x0F, 0, 0xC8, 0xCF, S_REGFIELD, 0, I_NONE, F_NO66 | F_TAKES_SP, 0},
	{0x0F, 0, 0x90, 0x9F, S_MODRM_8, 0, I_NONE, 0, 0},
	{0x0F, 0, 0x40, 0x4F, S_MODRM, 0, I_NONE, F_TAKES_SP, 0},
};
static const struct form move[] = {
	{0, 0, 0x88, 0x89, S_MODRM, 0, I_NONE, F_TAKES_SP, 0},
	{0, 0, 0x8A, 0x8B, S_MODRM, 0, I_NONE, F_TAKES_SP, 0},
	{0, 0, 0x8D, 0, S_MODRM, 0, I_NONE, F_MEM | F_TAKES_SP, 0},
	{0, 0, 0xC6, 0, S_GROUP, 0, I_8, 0, 0},
	{0, 0, 0xC7, 0, S_GROUP, 0, I_Z, F_TAKES_SP, 0},
	{0, 0, 0xB0, 0xB7, S_REGFIELD, 0, I_8, 0, 0},
	{0, 0, 0xB8, 0xBF, S_REGFIELD, 0, I_Z, F_TAKES_SP, 0},
	{0, 0, 0x86, 0x87, S_MODRM, 0, I_NONE, F_XCHG | F_TAKES_SP, 0},
	{0, 0, 0x90, 0x97, S_REGFIELD, 0, I_NONE, F_TAKES_SP, 0},
	{0x0F, 0, 0xB6, 0xB7, S_MODRM, 0, I_NONE, F_TAKES_SP, 0},
	{0x0F, 0, 0xBE, 0xBF, S_MODRM, 0, I_NONE, F_TAKES_SP, 0},
	{0x0F, 0, 0x1F, 0, S_GROUP, 0, I_NONE, 0, 0},
	{0x0F, 0, 0x18, 0, S_GROUP, 1, I_NONE, F_MEM, 0},
	{0, 0xF3, 0x90, 0, S_PLAIN, 0, I_NONE, 0, 0},
	{0, 0, 0xFC, 0xFD, S_PLAIN, 0, I_NONE, 0, 0},
	SPECIAL(SP_MOFFS),
	SPECIAL(SP_MOFFS),
	SPECIAL(SP_XLAT),
};
static const struct form stack[] = {
	{0, 0, 0x50, 0x57, S_REGFIELD, 0, I_NONE, 0, 0},
	{0, 0, 0x58, 0x5F, S_REGFIELD, 0, I_NONE, F_TAKES_SP, 0},
	{0, 0, 0x60, 0, S_PLAIN, 0, I_NONE, 0, 0},
	{0, 0, 0x68, 0, S_PLAIN, 0, I_Z, 0, 0},
	{0, 0, 0x6A, 0, S_PLAIN, 0, I_8, 0, 0},
	{0, 0, 0x8F, 0, S_GROUP, 0, I_NONE, F_TAKES_SP, 0},
	{0, 0, 0xFF, 0, S_GROUP, 6, I_NONE, 0, 0},
	SPECIAL(SP_ENTER),
	SPECIAL(SP_LEAVE),
	SPECIAL(SP_POPF),
	SPECIAL(SP_PUSHF),
	SPECIAL(SP_POPA),
};
static const struct form flow[] = {
	SPECIAL(SP_JCC),           SPECIAL(SP_JCC),  SPECIAL(SP_JCC),
	SPECIAL(SP_SETUP_RET),     SPECIAL(SP_CALL), SPECIAL(SP_JMP_INDIRECT),
	SPECIAL(SP_CALL_INDIRECT), SPECIAL(SP_LOOP), SPECIAL(SP_JMP),
};
static const struct form string[] = {
	{0, 0, 0xA4, 0xA7, S_STRING, 0, I_NONE, 0, 0},
	{0, 0, 0xAA, 0xAF, S_STRING, 0, I_NONE, 0, 0},
};
static const struct form trap[] = {
	SPECIAL(SP_INT),
	SPECIAL(SP_BAD),
	SPECIAL(SP_SEGMENT),
	SPECIAL(SP_SREG_READ),
	SPECIAL(SP_BOUND),
	SPECIAL(SP_FAR_LOAD),
	SPECIAL(SP_LOCK_BAD),
	SPECIAL(SP_ODD_SIMD),
	SPECIAL(SP_ODD_SIMD),
	SPECIAL(SP_NEAR16),
	{0, 0, 0x63, 0, S_MODRM, 0, I_NONE, F_NO66, 0},
};
static const struct form x87[] = {
	{0, 0, 0xD8, 0, S_MODRM, 0, I_NONE, F_MEM, 0},
	{0, 0, 0xDA, 0, S_MODRM, 0, I_NONE, F_MEM, 0},
	{0, 0, 0xDC, 0, S_MODRM, 0, I_NONE, F_MEM, 0},
	{0, 0, 0xDE, 0, S_MODRM, 0, I_NONE, F_MEM, 0},
#define X87_MEM(op, n)                                                                             \
	{                                                                                          \
		0, 0, op, 0, S_GROUP, n, I_NONE, F_MEM, 0                                          \
	}
	X87_MEM(0xD9, 0),
	X87_MEM(0xD9, 2),
	X87_MEM(0xD9, 3),
	X87_MEM(0xD9, 7),
	X87_MEM(0xDB, 0),
	X87_MEM(0xDB, 2),
	X87_MEM(0xDB, 3),
	X87_MEM(0xDB, 5),
	X87_MEM(0xDB, 7),
	X87_MEM(0xDD, 0),
	X87_MEM(0xDD, 2),
	X87_MEM(0xDD, 3),
	X87_MEM(0xDD, 7),
	X87_MEM(0xDF, 0),
	X87_MEM(0xDF, 2),
	X87_MEM(0xDF, 3),
	X87_MEM(0xDF, 4),
	X87_MEM(0xDF, 5),
	X87_MEM(0xDF, 6),
	X87_MEM(0xDF, 7),
	SPECIAL(SP_X87_REG),
	SPECIAL(SP_X87_REG),
	SPECIAL(SP_X87_REG),
	SPECIAL(SP_X87_REG),
	SPECIAL(SP_X87_REG),
	SPECIAL(SP_X87_REG),
	SPECIAL(SP_X87_REG),
	SPECIAL(SP_X87_REG),
	SPECIAL(SP_X87_REG),
	SPECIAL(SP_X87_REG),
	SPECIAL(SP_X87_REG),
	SPECIAL(SP_X87_REG),
	SPECIAL(SP_X87_FCLEX),
	SPECIAL(SP_X87_INIT),
	SPECIAL(SP_FLDCW),
	SPECIAL(SP_X87_STATE),
	{0, 0, 0x9B, 0, S_PLAIN, 0, I_NONE, 0, 0},
};

#define SIMD(prefix, op, last, flags)                                                              \
	{                                                                                          \
		0x0F, prefix, op, last, S_MODRM, 0, I_NONE, F_NO66 | (flags), 0                    \
	}
#define SIMDI(prefix, op, last, flags)                                                             \
	{                                                                                          \
		0x0F, prefix, op, last, S_MODRM, 0, I_8, F_NO66 | (flags), 0                       \
	}
#define SHIFT_IMM(prefix, op, n)                                                                   \
	{                                                                                          \
		0x0F, prefix, op, 0, S_GROUP, n, I_8, F_NO66 | F_REG, 0                            \
	}
#define SHIFT_IMMS(prefix)                                                                         \
	SHIFT_IMM(prefix, 0x71, 2), SHIFT_IMM(prefix, 0x71, 4), SHIFT_IMM(prefix, 0x71, 6),        \
		SHIFT_IMM(prefix, 0x72, 2), SHIFT_IMM(prefix, 0x72, 4),                            \
		SHIFT_IMM(prefix, 0x72, 6), SHIFT_IMM(prefix, 0x73, 2), SHIFT_IMM(prefix, 0x73, 6)
static const struct form mmx[] = {
	SIMD(0, 0x60, 0x6B, 0),
	SIMD(0, 0x6E, 0x6F, 0),
	SIMD(0, 0x74, 0x76, 0),
	{0x0F, 0, 0x77, 0, S_PLAIN, 0, I_NONE, F_NO66, 0},
	SIMD(0, 0x7E, 0x7F, 0),
	SIMD(0, 0xD1, 0xD5, 0),
	SIMD(0, 0xD8, 0xDF, 0),
	SIMD(0, 0xE0, 0xE5, 0),
	SIMD(0, 0xE7, 0, F_MEM),
	SIMD(0, 0xE8, 0xEF, 0),
	SIMD(0, 0xF1, 0xF6, 0),
	SIMD(0, 0xF8, 0xFE, 0),
	SIMDI(0, 0x70, 0, 0),
	SIMDI(0, 0xC4, 0, 0),
	SIMDI(0, 0xC5, 0, F_REG | F_TAKES_SP),
	SIMD(0, 0xD7, 0, F_REG | F_TAKES_SP),
	SIMD(0, 0xF7, 0, F_REG),
	SHIFT_IMMS(0),
};
static const struct form sse[] = {
	SIMD(0, 0x10, 0x11, 0),
	SIMD(0, 0x12, 0, 0),
	SIMD(0, 0x13, 0, F_MEM),
	SIMD(0, 0x14, 0x15, F_ALIGN16),
	SIMD(0, 0x16, 0, 0),
	SIMD(0, 0x17, 0, F_MEM),
	SIMD(0, 0x28, 0x29, F_ALIGN16),
	SIMD(0, 0x2B, 0, F_MEM | F_ALIGN16),
	SIMD(0, 0x2A, 0, 0),
	SIMD(0, 0x2C, 0x2F, 0),
	SIMD(0, 0x50, 0, F_REG | F_TAKES_SP),
	SIMD(0, 0x51, 0x59, F_ALIGN16),
	SIMD(0, 0x5C, 0x5F, F_ALIGN16),
	SIMDI(0, 0xC2, 0, F_ALIGN16),
	SIMDI(0, 0xC6, 0, F_ALIGN16),
	SIMD(0xF3, 0x10, 0x11, 0),
	SIMD(0xF3, 0x2A, 0, 0),
	SIMD(0xF3, 0x2C, 0x2D, F_TAKES_SP),
	SIMD(0xF3, 0x51, 0x53, 0),
	SIMD(0xF3, 0x58, 0x59, 0),
	SIMD(0xF3, 0x5C, 0x5F, 0),
	SIMDI(0xF3, 0xC2, 0, 0),
	SPECIAL(SP_LDMXCSR),
	{0x0F, 0, 0xAE, 0, S_GROUP, 3, I_NONE, F_MEM | F_NO66, 0},
	{0x0F, 0, 0xAE, 0, S_GROUP, 7, I_NONE, F_NO66, 0},
	SPECIAL(SP_X87_STATE),
};
static const struct form sse2[] = {
	SIMD(0x66, 0x10, 0x11, 0),
	SIMD(0x66, 0x12, 0x13, F_MEM),
	SIMD(0x66, 0x14, 0x15, F_ALIGN16),
	SIMD(0x66, 0x16, 0x17, F_MEM),
	SIMD(0x66, 0x28, 0x29, F_ALIGN16),
	SIMD(0x66, 0x2A, 0, 0),
	SIMD(0x66, 0x2B, 0, F_MEM | F_ALIGN16),
	SIMD(0x66, 0x2C, 0x2D, F_ALIGN16),
	SIMD(0x66, 0x2E, 0x2F, 0),
	SIMD(0x66, 0x50, 0, F_REG | F_TAKES_SP),
	SIMD(0x66, 0x51, 0, F_ALIGN16),
	SIMD(0x66, 0x54, 0x5F, F_ALIGN16),
	SIMDI(0x66, 0xC2, 0, F_ALIGN16),
	SIMDI(0x66, 0xC6, 0, F_ALIGN16),
	SIMD(0xF2, 0x10, 0x11, 0),
	SIMD(0xF2, 0x2A, 0, 0),
	SIMD(0xF2, 0x2C, 0x2D, F_TAKES_SP),
	SIMD(0xF2, 0x51, 0, 0),
	SIMD(0xF2, 0x58, 0x5A, 0),
	SIMD(0xF2, 0x5C, 0x5F, 0),
	SIMDI(0xF2, 0xC2, 0, 0),
	SIMD(0xF2, 0xE6, 0, F_ALIGN16),
	SIMD(0, 0x5A, 0, 0),
	SIMD(0, 0x5B, 0, F_ALIGN16),
	SIMD(0xF3, 0x5A, 0, 0),
	SIMD(0xF3, 0x5B, 0, F_ALIGN16),
	SIMD(0xF3, 0xE6, 0, 0),
	SIMD(0x66, 0xE6, 0, F_ALIGN16),
	SIMD(0x66, 0x60, 0x6D, F_ALIGN16),
	SIMD(0x66, 0x6E, 0, 0),
	SIMD(0x66, 0x6F, 0, F_ALIGN16),
	SIMD(0xF3, 0x6F, 0, 0),
	SIMD(0x66, 0x74, 0x76, F_ALIGN16),
	SIMD(0x66, 0x7E, 0, F_TAKES_SP),
	SIMD(0xF3, 0x7E, 0x7F, 0),
	SIMD(0x66, 0x7F, 0, F_ALIGN16),
	SIMD(0x66, 0xD1, 0xD5, F_ALIGN16),
	SIMD(0x66, 0xD6, 0, 0),
	SIMD(0xF3, 0xD6, 0, F_REG),
	SIMD(0xF2, 0xD6, 0, F_REG),
	SIMD(0x66, 0xD8, 0xDF, F_ALIGN16),
	SIMD(0x66, 0xE0, 0xE5, F_ALIGN16),
	SIMD(0x66, 0xE7, 0, F_MEM | F_ALIGN16),
	SIMD(0x66, 0xE8, 0xEF, F_ALIGN16),
	SIMD(0x66, 0xF1, 0xF6, F_ALIGN16),
	SIMD(0x66, 0xF8, 0xFE, F_ALIGN16),
	SIMDI(0x66, 0x70, 0, F_ALIGN16),
	SIMDI(0xF3, 0x70, 0, F_ALIGN16),
	SIMDI(0xF2, 0x70, 0, F_ALIGN16),
	SIMDI(0x66, 0xC4, 0, 0),
	SIMDI(0x66, 0xC5, 0, F_REG | F_TAKES_SP),
	SIMD(0x66, 0xD7, 0, F_REG | F_TAKES_SP),
	SIMD(0x66, 0xF7, 0, F_REG),
	SHIFT_IMMS(0x66),
	SHIFT_IMM(0x66, 0x73, 3),
	SHIFT_IMM(0x66, 0x73, 7),
	SIMD(0, 0xC3, 0, F_MEM),
	{0x0F, 0, 0xAE, 0, S_GROUP, 5, I_NONE, F_REG | F_NO66, 0},
	{0x0F, 0, 0xAE, 0, S_GROUP, 6, I_NONE, F_REG | F_NO66, 0},
};

#define GROUP(name)                                                                                \
	{                                                                                          \
		name, sizeof name / sizeof name[0]                                                 \
	}
static const struct {
	const struct form *form;
	unsigned count;
} groups_table[] = {GROUP(alu),   GROUP(shift), GROUP(muldiv), GROUP(bits), GROUP(move),
		    GROUP(stack), GROUP(flow),  GROUP(string), GROUP(trap), GROUP(x87),
		    GROUP(mmx),   GROUP(sse),   GROUP(sse2)};
const char *const group_names[] = {"alu",    "shift", "muldiv", "bits", "move", "stack", "flow",
				   "string", "trap",  "x87",    "mmx",  "sse",  "sse2",  NULL};
enum {
	GROUPS = sizeof groups_table / sizeof groups_table[0],
	GROUP_ALU = 0,
	GROUP_FLOW = 6,
	GROUP_TRAP = 8
};

/* ---- emitting ---- */

static struct block *out;

static void emit8(unsigned v)
{
	out->code[out->len++] = (uint8_t)v;
}
static void emit16(unsigned v)
{
	emit8(v);
	emit8(v >> 8);
}
static void emit32(uint32_t v)
{
	emit16(v);
	emit16(v >> 16);
}
/* The next byte begins an instruction. */
static void begin(unsigned undefined)
{
	out->insn[out->count++] =
		(struct gen_insn){.offset = (uint16_t)out->len, .undefined = (uint16_t)undefined};
}
static uint32_t here(void)
{
	return CODE_BASE + out->len;
}

static void emit_mov_imm(unsigned reg, uint32_t v)
{
	begin(0);
	emit8(0xB8 + reg);
	emit32(v);
}

static void emit_store_imm(uint32_t at, uint32_t v)
{
	begin(0);
	emit8(0xC7); /* MOV dword [at], v */
	emit8(0x05);
	emit32(at);
	emit32(v);
}

/* Numbers that tend to find errors. */
static uint32_t interesting(void)
{
	static const uint32_t v[] = {0,       1,          2,          0x7F,       0x80,
				     0xFF,    0x100,      0x7FFF,     0x8000,     0xFFFF,
				     0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE,
				     31,      32,         33};

	return chance(40) ? v[random_below(sizeof v / sizeof v[0])] : random32();
}

static unsigned any_reg(unsigned flags)
{
	unsigned r = random_below(8);

	return (flags & F_TAKES_SP) && r == R_ESP && chance(95) ? R_EAX : r;
}

static uint32_t data_address(unsigned align)
{
	uint32_t at = DATA_BASE + 0x40 + random_below(DATA_USED - 0x300);

	if (chance(2)) /* across or beyond the end, or into the code */
		return chance(50) ? DATA_BASE - 8 + random_below(16)
				  : CODE_BASE + random_below(CODE_SIZE);
	if (chance(5)) /* across pages */
		at = DATA_BASE + 0xFF0 + random_below(32);
	return align > 1 && !chance(2) ? at & ~(align - 1) : chance(50) ? at & ~7u : at;
}

/* A ModRM memory operand in parts: registers are loaded first, then the instruction can be emitted.
 */
struct operand {
	uint8_t modrm, sib;
	bool has_sib, adsize16;
	unsigned disp_size;
	uint32_t disp;
};

/* `safe`: no surprises, for operands that must not be split or must hold what was put there. */
static struct operand memory_operand(unsigned align, bool safe)
{
	static const uint8_t bases[] = {R_EAX, R_ECX, R_EDX, R_EBX, R_EBP, R_ESI, R_EDI};
	uint32_t at = data_address(align);
	unsigned kind = random_below(100), base = bases[random_below(7)],
		 index = bases[random_below(7)], scale;
	struct operand m = {0};
	int32_t disp = 0;

	if (safe) {
		at = (DATA_BASE + 0x40 + random_below(DATA_USED - 0x300)) & ~63u;
		kind = 0;
	}
	if (kind < 30) { /* [disp32] */
		m.modrm = 5;
		m.disp_size = 4;
		m.disp = at;
		if (chance(10)) { /* the same through SIB */
			m.modrm = 4;
			m.has_sib = true;
			m.sib = 0x25;
		}
		return m;
	}
	if (kind < 31) { /* 16-bit addressing mostly goes nowhere */
		m.adsize16 = true;
		m.modrm = (uint8_t)(random_below(3) << 6 | random_below(8));
		m.disp_size = m.modrm >> 6 == 0 ? ((m.modrm & 7) == 6 ? 2 : 0) : m.modrm >> 6;
		m.disp = random32();
		return m;
	}
	if (kind < 34) { /* whatever the registers hold */
		m.modrm = (uint8_t)(0x80 | base);
		m.disp_size = 4;
		m.disp = interesting();
		return m;
	}
	switch (random_below(3)) {
	case 0: break;
	case 1: disp = (int8_t)random32(); break;
	default: disp = chance(50) ? (int32_t)random32() : (int32_t)random_below(4096) - 2048;
	}
	if (kind < 70 || base == index) { /* [base + disp] */
		emit_mov_imm(base, at - (uint32_t)disp);
		m.modrm = (uint8_t)base;
		if (chance(10)) {
			m.modrm = 4;
			m.has_sib = true;
			m.sib = (uint8_t)(0x20 | base | random_below(4) << 6);
		}
	} else {
		uint32_t offset = chance(70) ? random_below(64) : random32();

		scale = random_below(4);
		emit_mov_imm(index, offset);
		emit_mov_imm(base, at - (uint32_t)disp - (offset << scale));
		m.modrm = 4;
		m.has_sib = true;
		m.sib = (uint8_t)(scale << 6 | index << 3 | base);
	}
	if (disp == 0 && base != R_EBP) {
		m.disp_size = 0;
	} else if (disp == (int8_t)disp) {
		m.disp_size = 1;
		m.modrm |= 0x40;
	} else {
		m.disp_size = 4;
		m.modrm |= 0x80;
	}
	m.disp = (uint32_t)disp;
	return m;
}

static void emit_operand(const struct operand *m, unsigned reg)
{
	emit8(m->modrm | reg << 3);
	if (m->has_sib)
		emit8(m->sib);
	if (m->disp_size == 1)
		emit8(m->disp);
	else if (m->disp_size == 2)
		emit16(m->disp);
	else if (m->disp_size == 4)
		emit32(m->disp);
}

static void emit_segment_override(void)
{
	static const uint8_t flat[] = {0x26, 0x2E, 0x36, 0x3E};

	if (chance(2))
		emit8(flat[random_below(4)]);
}

/* Flags that an instruction left undefined get a value: all flags by CMP, or just those through the
 * stack. */
static void scrub_flags(unsigned undefined)
{
	if (!undefined)
		return;
	if (chance(50)) {
		begin(0);
		emit8(0x81); /* CMP r32, imm32 */
		emit8(0xF8 | random_below(8));
		emit32(interesting());
		return;
	}
	emit_mov_imm(R_ESP, STACK_TOP);
	begin(0);
	emit8(0x9C); /* PUSHFD */
	begin(FL_AF);
	emit8(0x81); /* AND dword [ESP], ~undefined */
	emit8(0x24);
	emit8(0x24);
	emit32(~undefined);
	begin(0);
	emit8(0x9D); /* POPFD */
}

/* ---- instructions that need care ---- */

static void generate_one(unsigned groups);

/* A forward target: a few instructions are skipped. Returns where the displacement is to be
 * patched. */
static void skip_some(unsigned at, unsigned size, unsigned groups)
{
	int32_t distance;

	groups &= ~(1u << GROUP_TRAP | 1u << GROUP_FLOW);
	for (unsigned n = random_below(3); n > 0; n--)
		generate_one(groups & ((1u << GROUPS) - 1) ? groups : 1u << GROUP_ALU);
	distance = (int32_t)(out->len - at - size);
	if (size == 1)
		out->code[at] = (uint8_t)distance;
	else
		memcpy(out->code + at, &distance, 4);
}

static void emit_jcc(unsigned groups)
{
	unsigned cc = random_below(16);

	begin(0);
	if (chance(50)) {
		emit8(0x70 + cc);
		emit8(0);
		skip_some(out->len - 1, 1, groups);
	} else {
		emit8(0x0F);
		emit8(0x80 + cc);
		emit32(0);
		skip_some(out->len - 4, 4, groups);
	}
}

static void emit_loop(unsigned groups)
{
	begin(0);
	if (chance(10))
		emit8(0x67); /* counts in CX */
	emit8(0xE0 + random_below(4));
	emit8(0);
	skip_some(out->len - 1, 1, groups);
}

static void emit_jump(unsigned opcode8, unsigned opcode32, unsigned groups)
{
	begin(0);
	if (opcode8 && chance(50)) {
		emit8(opcode8);
		emit8(0);
		skip_some(out->len - 1, 1, groups);
	} else {
		emit8(opcode32);
		emit32(0);
		skip_some(out->len - 4, 4, groups);
	}
}

/* JMP/CALL through a register or memory: to the instruction after. */
static void emit_indirect(unsigned reg_field)
{
	unsigned r = random_below(8);
	uint32_t at = DATA_BASE + 8 * random_below(64), target_at;

	if (r == R_ESP)
		r = R_EDI;
	emit_mov_imm(R_ESP, STACK_TOP);
	if (chance(50)) {
		emit_mov_imm(r, 0);
		target_at = out->len - 4;
		begin(0);
		emit8(0xFF);
		emit8(0xC0 | reg_field << 3 | r);
	} else {
		begin(0);
		emit8(0xC7); /* MOV dword [at], target */
		emit8(0x05);
		emit32(at);
		emit32(0);
		target_at = out->len - 4;
		begin(0);
		emit8(0xFF);
		emit8(reg_field << 3 | 5);
		emit32(at);
	}
	memcpy(out->code + target_at, &(uint32_t){here()}, 4);
}

static void emit_ret(void)
{
	uint32_t target_at;

	emit_mov_imm(R_ESP, STACK_TOP - 16);
	begin(0);
	emit8(0x68);
	emit32(0);
	target_at = out->len - 4;
	begin(0);
	if (chance(50)) {
		emit8(0xC3);
	} else {
		emit8(0xC2);
		emit16(random_below(32));
	}
	memcpy(out->code + target_at, &(uint32_t){here()}, 4);
}

/* Quotients that fit, mostly. */
static void emit_div(void)
{
	bool is_signed = chance(50), byte = chance(30), word = chance(30);
	struct operand m = memory_operand(1, false);
	bool mem = chance(40);
	unsigned r = random_below(8);

	if (chance(80) && !mem) {
		r = R_EBX;
		emit_mov_imm(R_EBX, interesting() | 1);
		emit_mov_imm(R_EAX, interesting() & (byte ? 0xFF : 0xFFFFFFFF));
		emit_mov_imm(R_EDX, is_signed && chance(50) ? 0xFFFFFFFF : random_below(4));
	}
	begin(FL_ARITH);
	if (word && !byte)
		emit8(0x66);
	if (mem && m.adsize16)
		emit8(0x67);
	emit8(byte ? 0xF6 : 0xF7);
	if (mem)
		emit_operand(&m, is_signed ? 7 : 6);
	else
		emit8(0xC0 | (is_signed ? 7 : 6) << 3 | r);
	scrub_flags(FL_ARITH);
}

static void emit_shift_double(void)
{
	bool left = chance(50), word = chance(30), by_cl = chance(50), mem = chance(40);
	struct operand m = memory_operand(1, false);
	unsigned count = random_below(word ? 17 : 32), undefined = 0, rm = any_reg(F_TAKES_SP);

	if (by_cl && (word || chance(50))) {
		begin(0);
		emit8(0xB1); /* MOV CL, count */
		emit8(count);
		if (mem && ((m.modrm & 7) == R_ECX || m.has_sib))
			mem = false;
	}
	undefined = FL_AF | FL_OF;
	begin(undefined);
	if (word)
		emit8(0x66);
	if (mem && m.adsize16)
		emit8(0x67);
	emit8(0x0F);
	emit8((left ? 0xA4 : 0xAC) + by_cl);
	if (mem)
		emit_operand(&m, random_below(8));
	else
		emit8(0xC0 | random_below(8) << 3 | rm);
	if (!by_cl)
		emit8(count);
	scrub_flags(undefined);
}

/* Every register form of the x87 that is defined, except those that wait for nothing here. */
static void emit_x87_reg(void)
{
	unsigned op, modrm;

	for (;;) {
		op = 0xD8 + random_below(8);
		modrm = 0xC0 + random_below(64);
		unsigned reg = modrm >> 3 & 7, rm = modrm & 7;
		bool bad = false;

		switch (op) {
		case 0xD9:
			bad = (reg == 2 && rm != 0) || modrm == 0xE2 || modrm == 0xE3 ||
			      modrm == 0xE6 || modrm == 0xE7 || modrm == 0xEF;
			break;
		case 0xDA: bad = reg >= 4 && modrm != 0xE9; break;
		case 0xDB:
			bad = reg == 7 ||
			      (reg == 4 && modrm != 0xE2 && modrm != 0xE3 && modrm > 0xE4);
			break;
		case 0xDD: bad = reg >= 6; break;
		case 0xDE: bad = reg == 3 && modrm != 0xD9; break;
		case 0xDF: bad = (reg == 4 && rm != 0) || reg == 7; break;
		}
		if (!bad || chance(1))
			break;
	}
	begin(0);
	emit8(op);
	emit8(modrm);
}

/* A small memory block with a chosen dword, then the instruction on it. */
static void emit_with_dword(uint32_t value, unsigned map, unsigned op, unsigned reg)
{
	uint32_t at = DATA_BASE + 8 * random_below(64);

	begin(0);
	emit8(0xC7);
	emit8(0x05);
	emit32(at);
	emit32(value);
	begin(0);
	if (map)
		emit8(map);
	emit8(op);
	emit8(reg << 3 | 5);
	emit32(at);
}

static uint32_t random_mxcsr(void)
{
	uint32_t v = 0x1F80;

	if (chance(60))
		return v;
	v |= random_below(4) << 13; /* rounding */
	if (chance(30))
		v |= 0x40; /* denormals are zeros */
	if (chance(30))
		v |= 0x8000; /* flush to zero */
	if (chance(20))
		v |= random_below(64);
	if (chance(30)) /* unmasked exceptions */
		v &= ~(random_below(64) << 7);
	return v;
}

static uint16_t random_cw(void)
{
	if (chance(40))
		return 0x37F;
	return (uint16_t)(0x40 | random_below(16) << 8 | (chance(70) ? 0x3F : random_below(64)));
}

static void emit_bad(void)
{
	static const uint8_t list[][4] = {
		{2, 0x0F, 0x0B},
		{2, 0x0F, 0xFF},
		{3, 0x0F, 0xB9, 0xC0},
		{2, 0xFE, 0xD0},
		{2, 0xFF, 0xF8},
		{2, 0x8F, 0xC8 | 7},
		{2, 0xC6, 0xC8},
		{2, 0x8D, 0xC0},
		{3, 0x0F, 0xC7, 0xC8 - 8},
		{2, 0xF4, 0},
		{1, 0xFA},
		{1, 0xFB},
		{1, 0xEC},
		{1, 0xEF},
		{2, 0xE4, 0x21},
		{3, 0x0F, 0x20, 0xC0},
		{3, 0x0F, 0x22, 0xC0},
		{2, 0x0F, 0x06},
		{2, 0x0F, 0x08},
		{2, 0x0F, 0x30},
		{2, 0x0F, 0x32},
		{3, 0x0F, 0xBA, 0xC0},
		{2, 0x0F, 0x04},
		{3, 0x0F, 0x21, 0xC0},
		{2, 0x6C, 0},
		{1, 0x6F},
		{2, 0xFF, 0xE8 | 0},
		{2, 0x62, 0xC0 - 0xC0 + 0x05},
		{3, 0x0F, 0x71, 0xC0},
		{3, 0x0F, 0x73, 0xD8},
		{3, 0x0F, 0xAE, 0xC0},
		{3, 0x0F, 0x13, 0xC0},
		{3, 0x0F, 0x2B, 0xC0},
		{3, 0x0F, 0xC3, 0xC0},
		{3, 0x0F, 0xE7, 0xC0},
	};
	const uint8_t *b = list[random_below(sizeof list / sizeof list[0])];

	begin(0);
	for (unsigned n = 1; n <= b[0]; n++)
		emit8(b[n]);
}

/*
 * FNSTENV, FNSAVE or FXSAVE, and back. What is stored of the instruction's pointers and opcode is
 * overwritten.
 */
static void emit_x87_state(uint32_t at)
{
	enum { FNSTENV, FNSAVE, FXSAVE, KINDS };
	static const struct {
		uint8_t map, op, save, load;
		uint32_t ignored[2]; /* bytes, with 32-bit and 16-bit operand size */
	} kinds[KINDS] = {
		[FNSTENV] = {0, 0xD9, 6, 4, {0x0FFF0000, 0x3F00}},
		[FNSAVE] = {0, 0xDD, 6, 4, {0x0FFF0000, 0x3F00}},
		[FXSAVE] = {0x0F, 0xAE, 0, 1, {0x00FFF0C0, 0x00FFF0C0}},
	};
	unsigned k = random_below(KINDS);
	bool word = k != FXSAVE && chance(30);

	if (k == FXSAVE)
		at &= ~15u;
	begin(0);
	out->insn[out->count - 1].env = (uint16_t)(at - DATA_BASE);
	out->insn[out->count - 1].env_bytes = kinds[k].ignored[word];
	for (unsigned pass = 0; pass < 2; pass++) {
		if (word)
			emit8(0x66);
		if (kinds[k].map)
			emit8(kinds[k].map);
		emit8(kinds[k].op);
		emit8((pass ? kinds[k].load : kinds[k].save) << 3 | 5);
		emit32(at);
		if (pass)
			break;
		for (unsigned n = 0; n < 32; n += 2)
			if (kinds[k].ignored[word] >> n & 1) {
				begin(0);
				emit8(0x66); /* MOV word [at + n], 0 */
				emit8(0xC7);
				emit8(0x05);
				emit32(at + n);
				emit16(0);
			}
		if (chance(50))
			emit_x87_reg();
		begin(0);
	}
}

/* An MMX or SSE opcode with any prefixes: mostly #UD. Not what SSE3 and later made of such
 * combinations. */
static void emit_odd_simd(void)
{
	static const uint8_t prefixes[][3] = {{0},          {0x66},       {0xF2},
					      {0xF3},       {0x66, 0xF2}, {0x66, 0xF3},
					      {0xF2, 0xF3}, {0xF3, 0xF2}};
	const uint8_t *prefix = prefixes[random_below(8)];
	unsigned op;

	do {
		op = chance(50) ? 0x10 + random_below(0x70) : 0xC2 + random_below(0x3D);
	} while ((op >= 0x18 && op < 0x28) || (op >= 0x30 && op < 0x50) || op == 0x12 ||
		 op == 0x16 || op == 0x78 || op == 0x79 || op == 0x7C || op == 0x7D || op == 0xD0 ||
		 op == 0xF0 || (op >= 0xC7 && op <= 0xCF) || op == 0xC3);
	begin(0);
	for (unsigned n = 0; n < 3 && prefix[n]; n++)
		emit8(prefix[n]);
	emit8(0x0F);
	emit8(op);
	if (op != 0x77)
		emit8(0xC0 | random_below(64));
	if ((op >= 0x70 && op <= 0x73) || op == 0xC2 || (op >= 0xC4 && op <= 0xC6))
		emit8(random32());
}

static void emit_special(enum special which, unsigned groups)
{
	struct operand m;
	uint32_t at = DATA_BASE + 8 * random_below(64), v;

	switch (which) {
	case SP_JCC: emit_jcc(groups); break;
	case SP_LOOP: emit_loop(groups); break;
	case SP_JMP: emit_jump(0xEB, 0xE9, groups); break;
	case SP_CALL:
		emit_mov_imm(R_ESP, STACK_TOP);
		emit_jump(0, 0xE8, groups);
		break;
	case SP_JMP_INDIRECT: emit_indirect(4); break;
	case SP_CALL_INDIRECT: emit_indirect(2); break;
	case SP_SETUP_RET: emit_ret(); break;
	case SP_DIV: emit_div(); break;
	case SP_SHIFT_DOUBLE: emit_shift_double(); break;
	case SP_ENTER:
		emit_mov_imm(R_ESP, STACK_TOP);
		emit_mov_imm(R_EBP, STACK_TOP - 64);
		begin(0);
		if (chance(20))
			emit8(0x66);
		emit8(0xC8);
		emit16(random_below(64));
		emit8(chance(50) ? 0 : random_below(chance(20) ? 256 : 8));
		break;
	case SP_LEAVE:
		if (chance(90))
			emit_mov_imm(R_EBP, STACK_TOP - 128);
		begin(0);
		if (chance(20))
			emit8(0x66);
		emit8(0xC9);
		emit_mov_imm(R_ESP, STACK_TOP);
		break;
	case SP_POPF:
		/* Not TF; AC rarely, as all misaligned accesses fault from then on. */
		v = random32() &
		    (FL_ARITH | FL_DF | FL_NT | FL_ID | FL_IF | FL_IOPL | FL_VIF | FL_VIP | 0x28);
		if (chance(3))
			v |= FL_AC;
		emit_mov_imm(R_ESP, STACK_TOP);
		begin(0);
		emit8(0x68);
		emit32(v);
		begin(0);
		if (chance(20))
			emit8(0x66);
		emit8(0x9D);
		emit_mov_imm(R_ESP, STACK_TOP);
		break;
	case SP_PUSHF:
		begin(0);
		if (chance(20))
			emit8(0x66);
		emit8(0x9C);
		break;
	case SP_POPA:
		emit_mov_imm(R_ESP, STACK_TOP - 64);
		begin(0);
		if (chance(30))
			emit8(0x66);
		emit8(0x61);
		break;
	case SP_INT:
		begin(0);
		switch (random_below(4)) {
		case 0: emit8(0xCC); break;
		case 1: emit8(0xCE); break;
		case 2:
			emit8(0xCD);
			emit8(3);
			break;
		default:
			emit8(0xCD);
			v = random_below(256);
			emit8(v == 0x80 || v == 0x29 ? 0x81 : v);
		}
		break;
	case SP_BAD: emit_bad(); break;
	case SP_ODD_SIMD: emit_odd_simd(); break;
	case SP_NEAR16: /* a near transfer with 16-bit operand size cuts EIP */
		emit_mov_imm(R_ESP, STACK_TOP);
		begin(0);
		emit8(0x66);
		switch (random_below(4)) {
		case 0:
			emit8(0x70 + random_below(16));
			emit8(0);
			break;
		case 1:
			emit8(chance(50) ? 0xE8 : 0xE9);
			emit16(0);
			break;
		case 2: emit8(0xC3); break;
		default: emit8(0xFF); emit8((chance(50) ? 0xD0 : 0xE0) | random_below(8));
		}
		break;
	case SP_LOCK_BAD: /* LOCK where it is not allowed */
		begin(0);
		emit8(0xF0);
		emit8(chance(50) ? 0x90 : 0x8B);
		if (out->code[out->len - 1] == 0x8B)
			emit8(0xC0 | random_below(64));
		break;
	case SP_SEGMENT: /* DS and ES: null, then what they were */
	{
		bool es = chance(50);

		emit_mov_imm(R_EAX, chance(50) ? random_below(4) : USER_DS);
		begin(0);
		emit8(0x8E);
		emit8(es ? 0xC0 : 0xD8);
		generate_one(1u << GROUP_ALU);
		emit_mov_imm(R_ESP, STACK_TOP);
		begin(0);
		emit8(0x6A);
		emit8(USER_DS);
		begin(0);
		emit8(es ? 0x07 : 0x1F);
		break;
	}
	case SP_SREG_READ:
		if (chance(50)) {
			/* Newer processors write only 16 of the 32 bits (SDM vol. 2B, PUSH): make
			 * the rest zero. */
			emit_mov_imm(R_ESP, STACK_TOP);
			emit_store_imm(STACK_TOP - 4, 0);
			begin(0);
			if (chance(30))
				emit8(0x66);
			emit8("\x06\x0E\x16\x1E"[random_below(4)]);
		} else {
			begin(0);
			if (chance(30))
				emit8(0x66);
			emit8(0x8C);
			emit8(0xC0 | random_below(4) << 3 | any_reg(F_TAKES_SP));
		}
		break;
	case SP_FAR_LOAD: /* LES, LDS with the usual selector */
		emit_with_dword(interesting(), 0, 0x8B, 0);
		v = random_below(2);
		begin(0);
		emit8(0xC7);
		emit8(0x05);
		emit32(at + 4);
		emit32(USER_DS | random32() << 16);
		begin(0);
		emit8(v ? 0xC4 : 0xC5);
		emit8(random_below(4) << 3 | 5);
		emit32(at);
		break;
	case SP_BOUND:
		emit_mov_imm(R_ECX, interesting());
		begin(0);
		if (chance(30))
			emit8(0x66);
		emit8(0x62);
		emit8(R_ECX << 3 | 5);
		emit32(at);
		break;
	case SP_MOFFS:
		begin(0);
		if (chance(30))
			emit8(0x66);
		emit_segment_override();
		emit8(0xA0 + random_below(4));
		emit32(data_address(1));
		break;
	case SP_XLAT:
		if (chance(90))
			emit_mov_imm(R_EBX, DATA_BASE + random_below(256));
		begin(0);
		emit_segment_override();
		emit8(0xD7);
		break;
	case SP_CMPXCHG8B:
		m = memory_operand(8, true);
		if (chance(50)) {
			begin(0);
			emit8(0xA1); /* equal more often */
			emit32(m.disp);
			begin(0);
			emit8(0x8B);
			emit8(R_EDX << 3 | 5);
			emit32(m.disp + 4);
		}
		begin(0);
		if (chance(30))
			emit8(0xF0);
		emit8(0x0F);
		emit8(0xC7);
		emit_operand(&m, 1);
		break;
	case SP_X87_REG: emit_x87_reg(); break;
	case SP_X87_FCLEX:
		begin(0);
		emit8(0xDB);
		emit8(0xE2);
		break;
	case SP_X87_INIT:
		begin(0);
		emit8(0xDB);
		emit8(chance(30) ? 0xE3 : 0xE2);
		break;
	case SP_FLDCW:
		emit_with_dword(random_cw() | (chance(10) ? random32() : 0), 0, 0xD9, 5);
		break;
	case SP_LDMXCSR:
		emit_with_dword(random_mxcsr() | (chance(2) ? 0x10000 : 0), 0x0F, 0xAE, 2);
		break;
	case SP_X87_STATE: emit_x87_state(at); break;
	}
}

static void emit_string(unsigned op)
{
	unsigned rep = random_below(4);

	if (rep < 2)
		emit_mov_imm(R_ECX, chance(90) ? random_below(40) : interesting());
	if (chance(90))
		emit_mov_imm(R_ESI, data_address(1));
	if (chance(90))
		emit_mov_imm(R_EDI, data_address(1));
	/* Between iterations processors differ in whether the flags are up to date. */
	begin(rep < 2 && (op == 0xA6 || op == 0xA7 || op == 0xAE || op == 0xAF) ? FL_ARITH : 0);
	if (chance(20))
		emit8(0x66);
	emit_segment_override();
	if (rep == 0)
		emit8(0xF3);
	else if (rep == 1)
		emit8(0xF2);
	emit8(op);
}

static unsigned shift_undefined(const struct form *f, unsigned op, unsigned count)
{
	if (op == 0xD0 || op == 0xD1)
		return f->undefined & FL_AF;
	if (op == 0xD2 || op == 0xD3)
		return f->undefined; /* by CL */
	count &= 31;
	return count == 0 ? 0 : count == 1 ? f->undefined & FL_AF : f->undefined;
}

static void emit_form(const struct form *f, unsigned groups)
{
	unsigned op = f->last ? f->op + random_below(f->last - f->op + 1u) : f->op;
	bool has_modrm = f->shape == S_MODRM || f->shape == S_MODRM_8 || f->shape == S_GROUP, mem,
	     op16 = false, lock = false;
	unsigned reg = f->shape == S_GROUP ? f->reg : any_reg(f->flags & F_TAKES_SP),
		 rm = any_reg(f->flags & F_TAKES_SP), imm = interesting(), undefined = f->undefined;
	struct operand m;

	if (f->shape == S_SPECIAL) {
		emit_special(f->reg, groups);
		return;
	}
	if (f->shape == S_STRING) {
		emit_string(op);
		return;
	}
	mem = has_modrm && !(f->flags & F_REG) && ((f->flags & F_MEM) || chance(50));
	if (mem) {
		lock = (f->flags & F_LOCK) && chance(10);
		if ((f->flags & F_XCHG) || lock)
			m = memory_operand(64, true);
		else
			m = memory_operand(f->flags & F_ALIGN16 ? 16 : 1, false);
		if ((f->flags & F_BITS) && !chance(2))
			emit_mov_imm(reg, random_below(DATA_USED * 4) - DATA_USED * 2);
	}
	if (f->flags & F_SHIFT) {
		if (f->imm == I_8 && chance(70))
			imm &= 31;
		undefined = shift_undefined(f, op, imm);
	}
	if ((f->shape == S_MODRM || f->shape == S_GROUP) && f->map == 0x0F && op == 0xF7 &&
	    f->flags & F_REG && !chance(5))
		emit_mov_imm(R_EDI, data_address(1)); /* MASKMOV */
	begin(undefined);
	if (!(f->flags & F_NO66) && !f->prefix && chance(20)) {
		op16 = true;
		emit8(0x66);
	}
	if (mem && m.adsize16)
		emit8(0x67);
	emit_segment_override();
	if (lock)
		emit8(0xF0);
	if (f->prefix)
		emit8(f->prefix);
	if (f->map)
		emit8(f->map);
	if (f->shape == S_REGFIELD && (f->flags & F_TAKES_SP) && (op & 7) == R_ESP && chance(95))
		op ^= 1;
	emit8(op);
	if (mem)
		emit_operand(&m, reg);
	else if (has_modrm)
		emit8(0xC0 | reg << 3 | rm);
	switch (f->imm) {
	case I_8: emit8(imm); break;
	case I_16: emit16(imm); break;
	case I_Z:
		if (op16)
			emit16(imm);
		else
			emit32(imm);
		break;
	}
	scrub_flags(undefined);
}

static void generate_one(unsigned groups)
{
	unsigned g;

	do
		g = random_below(GROUPS);
	while (!(groups >> g & 1) || (g == GROUP_TRAP && groups != 1u << g && !chance(5)));
	emit_form(&groups_table[g].form[random_below(groups_table[g].count)], groups);
}

void generate_block(struct block *b, unsigned wanted, unsigned groups)
{
	out = b;
	b->len = b->count = 0;
	while (b->count < wanted && b->len < BLOCK_MAX_BYTES - 512)
		generate_one(groups);
	begin(0);
	emit8(0xE9); /* JMP CODE_EXIT */
	emit32(CODE_EXIT - (here() + 4));
	b->insn[b->count] = (struct gen_insn){.offset = (uint16_t)b->len};
}

/* ---- states and data ---- */

/* An 80-bit number of any class, pseudo-classes included. */
static void random_m80(uint8_t *p)
{
	static const uint16_t exponents[] = {0,      1,      0x3FFE, 0x3FFF, 0x4000, 0x401D,
					     0x401E, 0x403D, 0x403E, 0x403F, 0x7FFE, 0x7FFF,
					     0x3F80, 0x3F81, 0x407E, 0x43FE, 0x3C01};
	static const uint64_t significands[] = {0,
						UINT64_C(1) << 63,
						UINT64_C(3) << 62,
						UINT64_MAX,
						1,
						UINT64_C(0x8000000000000001),
						UINT64_C(0xA000000000000000)};
	uint16_t exponent = chance(60) ? exponents[random_below(17)]
				       : (uint16_t)(chance(70) ? 0x3FFF - 40 + random_below(80)
							       : random_below(0x8000));
	uint64_t significand = chance(40) ? significands[random_below(7)]
					  : (uint64_t)random32() << 32 | random32();

	if (!chance(5) && exponent)
		significand |= UINT64_C(1) << 63;
	if (chance(20))
		significand &= UINT64_C(0xFFFFFF) << 40;
	exponent |= (uint16_t)(chance(50) << 15);
	memcpy(p, &significand, 8);
	memcpy(p + 8, &exponent, 2);
}

static uint32_t random_float(void)
{
	static const uint32_t v[] = {0,          0x80000000, 0x3F800000, 0xBF800000, 0x7F800000,
				     0xFF800000, 0x7FC00000, 0x7F800001, 0xFFA00000, 1,
				     0x807FFFFF, 0x00800000, 0x7F7FFFFF, 0x4F000000, 0xCF000000,
				     0x4EFFFFFF, 0x5F000000, 0x3F000000, 0x3FC00000};

	if (chance(40))
		return v[random_below(sizeof v / sizeof v[0])];
	if (chance(60))
		return random_below(2) << 31 | (0x70 + random_below(32)) << 23 | (random32() >> 9);
	return random32();
}

static uint64_t random_double(void)
{
	static const uint64_t v[] = {0,
				     UINT64_C(1) << 63,
				     0x3FF0000000000000,
				     0x7FF0000000000000,
				     0xFFF0000000000000,
				     0x7FF8000000000000,
				     0x7FF0000000000001,
				     1,
				     0x000FFFFFFFFFFFFF,
				     0x0010000000000000,
				     0x7FEFFFFFFFFFFFFF,
				     0x41E0000000000000,
				     0xC1E0000000000000,
				     0x41DFFFFFFFC00000,
				     0x43E0000000000000,
				     0x3FE0000000000000,
				     0x47EFFFFFF0000000,
				     0x3690000000000000,
				     0x3FF8000000000000};

	if (chance(40))
		return v[random_below(sizeof v / sizeof v[0])];
	if (chance(60))
		return (uint64_t)random_below(2) << 63 |
		       (uint64_t)(0x3E0 + random_below(64)) << 52 |
		       (((uint64_t)random32() << 32 | random32()) >> 12);
	return (uint64_t)random32() << 32 | random32();
}

static void random_16_bytes(uint8_t *p)
{
	uint64_t d[2];
	uint32_t f[4];

	switch (random_below(5)) {
	case 0:
	case 1:
		for (unsigned n = 0; n < 4; n++)
			f[n] = random_float();
		memcpy(p, f, 16);
		break;
	case 2:
	case 3:
		d[0] = random_double();
		d[1] = random_double();
		memcpy(p, d, 16);
		break;
	default:
		for (unsigned n = 0; n < 4; n++)
			f[n] = interesting();
		memcpy(p, f, 16);
	}
}

void generate_data(uint8_t *data, size_t size)
{
	for (size_t at = 0; at + 16 <= size; at += 16) {
		random_16_bytes(data + at);
		if (chance(15)) {
			random_m80(data + at);
		} else if (chance(5)) { /* a packed decimal, valid or nearly */
			for (unsigned n = 0; n < 9; n++)
				data[at + n] = (uint8_t)(random_below(10) << 4 | random_below(10));
			data[at + 9] = chance(50) ? 0x80 : 0;
		}
	}
}

void generate_state(struct machine_state *s)
{
	uint16_t cw = random_cw(), sw = (uint16_t)(random_below(8) << 11);
	uint32_t mxcsr = random_mxcsr();

	memset(s, 0, sizeof *s);
	for (unsigned n = 0; n < 8; n++)
		s->gpr[n] = interesting();
	s->gpr[R_EBX] = DATA_BASE + random_below(DATA_USED);
	s->gpr[R_ESI] = DATA_BASE + random_below(DATA_USED);
	s->gpr[R_EDI] = DATA_BASE + random_below(DATA_USED);
	s->gpr[R_EBP] = STACK_TOP - 64;
	s->gpr[R_ESP] = STACK_TOP - 4 * random_below(64);
	s->eip = CODE_BASE;
	s->eflags = FL_1 | FL_IF | (random32() & FL_ARITH) | (chance(10) ? FL_DF : 0);
	if (chance(30))
		sw |= random32() & 0x4700;
	if (chance(20)) /* flags whose exceptions are masked */
		sw |= (uint16_t)(random_below(64) & cw & 0x3F);
	memcpy(s->fx + 0, &cw, 2);
	memcpy(s->fx + 2, &sw, 2);
	s->fx[4] = chance(30) ? (uint8_t)random32() : chance(50) ? 0 : 0x0F << random_below(5);
	memcpy(s->fx + 24, &mxcsr, 4);
	for (unsigned n = 0; n < 8; n++) {
		random_m80(s->fx + 32 + 16 * n);
		random_16_bytes(s->fx + 160 + 16 * n);
	}
}
