/* SPDX-License-Identifier: MIT */
/*
 * Instruction forms that are more than a row: what needs registers, memory or a stack prepared, or
 * consists of several instructions.
 */
#ifndef TESTS_DIFF_SPECIAL_H
#define TESTS_DIFF_SPECIAL_H

#include "tests/diff/emit.h"

/* ---- generate.c ---- */
/* One instruction form of the groups in the mask. */
void generate_one(unsigned groups);

/* ---- special.c ---- */
/* `groups`: of which instructions may be skipped by a jump. */
void emit_special(enum special which, unsigned groups);
/* MOV dword [at], value; then an instruction with opcode `map` (0: one byte) and `op` on it. */
void emit_with_dword(uint32_t value, unsigned map, unsigned op, unsigned reg);

/* ---- special_flow.c: transfers of control ---- */
void emit_jcc(unsigned groups);
void emit_loop(unsigned groups);
/* `opcode8`: the form with an 8-bit displacement, 0 if there is none. */
void emit_jump(unsigned opcode8, unsigned opcode32, unsigned groups);
/* JMP or CALL through a register or memory: to the instruction after. */
void emit_indirect(unsigned reg_field);
void emit_ret(void);
/* A near transfer with 16-bit operand size, which cuts EIP. */
void emit_near16(void);
void emit_int(void);
void emit_enter(void);
void emit_leave(void);
/* Instructions written to data, called, changed and called again. */
void emit_written_code(void);

/* ---- special_fpu.c: x87, MMX, SSE ---- */
void emit_x87_reg(void);
void emit_x87_clear(unsigned percent_init);
void emit_fldcw(void);
void emit_ldmxcsr(void);
/* FNSTENV, FNSAVE or FXSAVE at data address `at`, and back. */
void emit_x87_state(uint32_t at);
void emit_odd_simd(void);

#endif
