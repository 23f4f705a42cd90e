/* SPDX-License-Identifier: MIT */
/* What an instruction does, as the lock-step mode has to know (jit_verify.c). */
#ifndef CPU_JIT_EFFECT_H
#define CPU_JIT_EFFECT_H

#include "cpu/code.h"

/* Sets of FL_ARITH. */
struct jit_effect {
	uint32_t reads, defines, undefines;
};

/* In `reads`: the instruction does what putting registers and memory back does not undo. */
#define JIT_NO_REHEARSAL (UINT32_C(1) << 31)

/* Of the instruction, executed with the registers as they are. */
struct jit_effect jit_effect_of(const struct soft_cpu *c, const struct insn *i);

/* Whether the instruction may look at the x87, MMX or SSE state. */
bool jit_effect_on_fpu(const struct insn *i);

#endif
