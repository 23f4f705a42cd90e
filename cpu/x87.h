/* SPDX-License-Identifier: MIT */
/* What the x87 files share among themselves. */
#ifndef CPU_X87_H
#define CPU_X87_H

#include "cpu/fpu.h"

/* Ten bytes of memory, for asm operands. */
struct m80 {
	uint8_t bytes[10];
};

/* Around an instruction that the host's x87 executes for the guest: the guest's precision and
 * rounding in, the host's back and no flags left behind. The usual guest has the same control word
 * as the host. */
static inline void host_x87_begin(const struct fpu *f)
{
	if (f->cw != CW_INIT)
		__asm__ volatile("fldcw %0" : : "m"(f->cw));
}
static inline void host_x87_end(const struct fpu *f, uint16_t sw)
{
	static const uint16_t host_cw = CW_INIT;

	if (sw & FPE_ALL)
		__asm__ volatile("fnclex");
	if (f->cw != CW_INIT)
		__asm__ volatile("fldcw %0" : : "m"(host_cw));
}

/* x87_mem.c: memory forms of D9, DB, DD, DF. */
op_fn x87_mem_lookup(const struct insn *i);

/* x87_env.c: control instructions. */
void op_fldcw(struct soft_cpu *c, const struct insn *i);
void op_fnstcw(struct soft_cpu *c, const struct insn *i);
void op_fnstsw(struct soft_cpu *c, const struct insn *i);
void op_fnstsw_ax(struct soft_cpu *c, const struct insn *i);
void op_fldenv(struct soft_cpu *c, const struct insn *i);
void op_fnstenv(struct soft_cpu *c, const struct insn *i);
void op_frstor(struct soft_cpu *c, const struct insn *i);
void op_fnsave(struct soft_cpu *c, const struct insn *i);
void op_fnclex(struct soft_cpu *c, const struct insn *i);
void op_fninit(struct soft_cpu *c, const struct insn *i);
void op_fincstp(struct soft_cpu *c, const struct insn *i);
void op_fdecstp(struct soft_cpu *c, const struct insn *i);
void op_ffree(struct soft_cpu *c, const struct insn *i);
void op_ffreep(struct soft_cpu *c, const struct insn *i);
void op_x87_nop(struct soft_cpu *c, const struct insn *i);
void op_x87_ignored(struct soft_cpu *c, const struct insn *i);

#endif
