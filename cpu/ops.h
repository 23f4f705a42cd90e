/* SPDX-License-Identifier: MIT */
/*
 * How the opcode map is written down: each ops_*.c ends in a table of rows, one for each opcode
 * (and ModRM.reg digit) that it implements, and optable.c joins the tables. Beside the functions a
 * row says how the instruction is laid out.
 */
#ifndef CPU_OPS_H
#define CPU_OPS_H

#include "cpu/flags.h"
#include "cpu/internal.h"

enum op_flags {
	OP_MODRM = 1 << 0,
	OP_LOCK = 1 << 1,    /* LOCK is allowed with a memory operand */
	OP_END = 1 << 2,     /* the block ends after it */
	OP_OPREG = 1 << 3,   /* the register is in the opcode's low three bits: the row stands for
				eight opcodes */
	OP_REGONLY = 1 << 4, /* ModRM.mod is ignored: always a register (MOV to and from CR, DR) */
	OP_CC = 1 << 5,      /* the row stands for the sixteen conditions */
	OP_OPMEM = 1 << 6,   /* no ModRM, and the memory operand is at an address in the instruction
				(A0..A3) */

	/* The immediate, behind ModRM and displacement. */
	OP_IMM_SHIFT = 8,
	OP_IMM8 = 1 << OP_IMM_SHIFT,  /* zero-extended byte */
	OP_IMM8S = 2 << OP_IMM_SHIFT, /* sign-extended byte, also rel8 */
	OP_IMM16 = 3 << OP_IMM_SHIFT,
	OP_IMMZ = 4 << OP_IMM_SHIFT,  /* 16 or 32 bits by operand size; also rel16/32 */
	OP_FAR = 5 << OP_IMM_SHIFT,   /* offset by operand size, then selector */
	OP_ENTER = 6 << OP_IMM_SHIFT, /* imm16, imm8 */
	OP_IMM_MASK = 7 << OP_IMM_SHIFT,
};

/* `digit`: ModRM.reg that selects the row, ANY_DIGIT for all. */
enum { ANY_DIGIT = -1 };

struct op_row {
	uint16_t opcode; /* 0x0NN, 0x1NN after 0F */
	int8_t digit;
	uint16_t flags;
	/* By operand: register (or none) and memory, by operand size 16 and 32. NULL: #UD. */
	op_fn reg16, mem16, reg32, mem32;
};

struct op_table {
	const struct op_row *rows;
	size_t count;
};

extern const struct op_table ops_alu, ops_shift, ops_muldiv, ops_bit, ops_move, ops_stack, ops_flow,
	ops_string, ops_system;

/* The row for an opcode, or NULL. Of an opcode with digits, the row of `digit`. */
const struct op_row *optable_find(unsigned opcode, unsigned digit);
/* Whether a ModRM byte follows the opcode (whatever its digit). */
bool optable_has_modrm(unsigned opcode);
/* Builds the map; once, before the first decoding. */
void optable_init(void);

/* #UD: what unknown and illegal encodings execute. */
void op_undefined(struct soft_cpu *c, const struct insn *i);

/* Short names for rows. The functions are the four of struct op_row or, in ..._SAME, the two for
 * both operand sizes. */
#define ROW(opcode, flags, ...)                                                                    \
	{                                                                                          \
		opcode, ANY_DIGIT, flags, __VA_ARGS__                                              \
	}
#define ROW_SAME(opcode, flags, ...)                                                               \
	{                                                                                          \
		opcode, ANY_DIGIT, flags, __VA_ARGS__, __VA_ARGS__                                 \
	}
#define GRP(opcode, digit, flags, ...)                                                             \
	{                                                                                          \
		opcode, digit, flags, __VA_ARGS__                                                  \
	}
#define GRP_SAME(opcode, digit, flags, ...)                                                        \
	{                                                                                          \
		opcode, digit, flags, __VA_ARGS__, __VA_ARGS__                                     \
	}

/* ---- Operands of a size that is a constant where it is used ---- */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE uint32_t size_mask(unsigned size)
{
	return size == 1 ? 0xFF : size == 2 ? 0xFFFF : 0xFFFFFFFF;
}
ALWAYS_INLINE uint32_t get_reg(struct soft_cpu *c, unsigned n, unsigned size)
{
	return size == 1 ? *reg8(c, n) : size == 2 ? *reg16(c, n) : c->gpr[n];
}
ALWAYS_INLINE void set_reg(struct soft_cpu *c, unsigned n, uint32_t v, unsigned size)
{
	if (size == 1)
		*reg8(c, n) = (uint8_t)v;
	else if (size == 2)
		*reg16(c, n) = (uint16_t)v;
	else
		c->gpr[n] = v;
}
ALWAYS_INLINE uint32_t load(struct soft_cpu *c, unsigned seg, uint32_t off, unsigned size)
{
	return size == 1 ? ld8(c, seg, off) : size == 2 ? ld16(c, seg, off) : ld32(c, seg, off);
}
ALWAYS_INLINE void store(struct soft_cpu *c, unsigned seg, uint32_t off, uint32_t v, unsigned size)
{
	if (size == 1)
		st8(c, seg, off, (uint8_t)v);
	else if (size == 2)
		st16(c, seg, off, (uint16_t)v);
	else
		st32(c, seg, off, v);
}
/* The ModRM operand, read only; and read to be written by set_rm(). */
ALWAYS_INLINE uint32_t get_rm(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	return mem ? load(c, i->seg, effective_address(c, i), size) : get_reg(c, i->rm, size);
}
ALWAYS_INLINE uint32_t get_rm_rmw(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	return mem ? (uint32_t)ld_rmw(c, i->seg, effective_address(c, i), size)
		   : get_reg(c, i->rm, size);
}
ALWAYS_INLINE void set_rm_rmw(struct soft_cpu *c, const struct insn *i, uint32_t v, unsigned size,
			      bool mem)
{
	if (mem)
		st_rmw(c, v, size);
	else
		set_reg(c, i->rm, v, size);
}
/* A store without a read. */
ALWAYS_INLINE void put_rm(struct soft_cpu *c, const struct insn *i, uint32_t v, unsigned size,
			  bool mem)
{
	if (mem)
		store(c, i->seg, effective_address(c, i), v, size);
	else
		set_reg(c, i->rm, v, size);
}

/* Four functions of one shape: operand size 16 or 32, register or memory. `shape` is an inline
 * function of (c, i, size, mem). */
#define OP_FORMS(name, shape)                                                                      \
	static void name##_r16(struct soft_cpu *c, const struct insn *i)                           \
	{                                                                                          \
		shape(c, i, 2, false);                                                             \
	}                                                                                          \
	static void name##_m16(struct soft_cpu *c, const struct insn *i)                           \
	{                                                                                          \
		shape(c, i, 2, true);                                                              \
	}                                                                                          \
	static void name##_r32(struct soft_cpu *c, const struct insn *i)                           \
	{                                                                                          \
		shape(c, i, 4, false);                                                             \
	}                                                                                          \
	static void name##_m32(struct soft_cpu *c, const struct insn *i)                           \
	{                                                                                          \
		shape(c, i, 4, true);                                                              \
	}
/* Two functions for bytes. */
#define OP_FORMS8(name, shape)                                                                     \
	static void name##_r8(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                          \
		shape(c, i, 1, false);                                                             \
	}                                                                                          \
	static void name##_m8(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                          \
		shape(c, i, 1, true);                                                              \
	}
/* A function for each operand size. `shape` is an inline function of (c, i, size). */
#define OP_SIZES(name, shape)                                                                      \
	static void name##_16(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                          \
		shape(c, i, 2);                                                                    \
	}                                                                                          \
	static void name##_32(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                          \
		shape(c, i, 4);                                                                    \
	}
#define FORMS(name)  name##_r16, name##_m16, name##_r32, name##_m32
#define FORMS8(name) name##_r8, name##_m8

#endif
