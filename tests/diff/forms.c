/* SPDX-License-Identifier: MIT */
/*
 * Instruction forms: all of the user-mode instructions of an i686 with MMX, SSE and SSE2 (SDM vol.
 * 2D, appendix A). What needs operands prepared is a "special", written out in special*.c.
 */
#include "tests/diff/forms.h"

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
	SPECIAL(SP_WRITTEN_CODE),
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

#define EXT(map, prefix, op, last, flags)                                                          \
	{                                                                                          \
		map, prefix, op, last, S_MODRM, 0, I_NONE, F_NO66 | (flags), 0                     \
	}
#define EXTI(op, last, flags)                                                                      \
	{                                                                                          \
		0x3A, 0x66, op, last, S_MODRM, 0, I_8, F_NO66 | (flags), 0                         \
	}
/* SSE3, SSSE3, SSE4.1, SSE4.2, AES, PCLMULQDQ. */
static const struct form sse4[] = {
	X87_MEM(0xDB, 1),
	X87_MEM(0xDD, 1),
	X87_MEM(0xDF, 1),
	EXT(0x0F, 0xF2, 0x12, 0, 0),
	EXT(0x0F, 0xF3, 0x12, 0, F_ALIGN16),
	EXT(0x0F, 0xF3, 0x16, 0, F_ALIGN16),
	EXT(0x0F, 0x66, 0x7C, 0x7D, F_ALIGN16),
	EXT(0x0F, 0xF2, 0x7C, 0x7D, F_ALIGN16),
	EXT(0x0F, 0x66, 0xD0, 0, F_ALIGN16),
	EXT(0x0F, 0xF2, 0xD0, 0, F_ALIGN16),
	EXT(0x0F, 0xF2, 0xF0, 0, F_MEM),
	EXT(0x38, 0, 0x00, 0x0B, 0),
	EXT(0x38, 0, 0x1C, 0x1E, 0),
	EXT(0x38, 0x66, 0x00, 0x0B, F_ALIGN16),
	EXT(0x38, 0x66, 0x1C, 0x1E, F_ALIGN16),
	EXT(0x38, 0x66, 0x10, 0, F_ALIGN16),
	EXT(0x38, 0x66, 0x14, 0x15, F_ALIGN16),
	EXT(0x38, 0x66, 0x17, 0, F_ALIGN16),
	EXT(0x38, 0x66, 0x20, 0x25, 0),
	EXT(0x38, 0x66, 0x28, 0x29, F_ALIGN16),
	EXT(0x38, 0x66, 0x2A, 0, F_MEM | F_ALIGN16),
	EXT(0x38, 0x66, 0x2B, 0, F_ALIGN16),
	EXT(0x38, 0x66, 0x30, 0x35, 0),
	EXT(0x38, 0x66, 0x37, 0x41, F_ALIGN16),
	EXT(0x38, 0x66, 0xDB, 0xDF, F_ALIGN16),
	{0x38, 0xF2, 0xF0, 0xF1, S_MODRM, 0, I_NONE, F_TAKES_SP, 0},
	{0x3A, 0, 0x0F, 0, S_MODRM, 0, I_8, F_NO66, 0},
	EXTI(0x08, 0x09, F_ALIGN16),
	EXTI(0x0A, 0x0B, 0),
	EXTI(0x0C, 0x0F, F_ALIGN16),
	EXTI(0x14, 0x17, F_TAKES_SP),
	EXTI(0x20, 0x22, 0),
	EXTI(0x40, 0x42, F_ALIGN16),
	EXTI(0x44, 0, F_ALIGN16),
	EXTI(0x60, 0x63, 0),
	EXTI(0xDF, 0, F_ALIGN16),
};

#define GROUP(name)                                                                                \
	{                                                                                          \
		name, sizeof name / sizeof name[0]                                                 \
	}
const struct form_group form_groups[GROUPS] = {
	GROUP(alu),   GROUP(shift), GROUP(muldiv), GROUP(bits), GROUP(move),
	GROUP(stack), GROUP(flow),  GROUP(string), GROUP(trap), GROUP(x87),
	GROUP(mmx),   GROUP(sse),   GROUP(sse2),   GROUP(sse4)};
const char *const group_names[] = {"alu",   "shift", "muldiv", "bits", "move",
				   "stack", "flow",  "string", "trap", "x87",
				   "mmx",   "sse",   "sse2",   "sse4", NULL};
