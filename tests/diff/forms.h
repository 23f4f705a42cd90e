/* SPDX-License-Identifier: MIT */
/* The table of instruction forms that the generator draws from. */
#ifndef TESTS_DIFF_FORMS_H
#define TESTS_DIFF_FORMS_H

#include "tests/diff/diff.h"

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
	SP_WRITTEN_CODE,
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
	uint8_t map;    /* 0: one byte; 0x0F; 0x38, 0x3A: behind 0F */
	uint8_t prefix; /* mandatory: 0, 66, F2, F3 */
	uint8_t op;
	uint8_t last; /* `op`..`last` are all of this form; 0: just `op` */
	uint8_t shape, reg, imm;
	uint16_t flags;
	uint16_t undefined;
};

struct form_group {
	const struct form *form;
	unsigned count;
};
enum { GROUPS = 14, GROUP_ALU = 0, GROUP_FLOW = 6, GROUP_TRAP = 8 };
/* In the order of group_names[]. */
extern const struct form_group form_groups[GROUPS];

#endif
