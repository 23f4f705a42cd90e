/* SPDX-License-Identifier: MIT */
/*
 * x87 instructions in translated code: the same instruction, its memory operand found by
 * jit_place().
 *
 * With all exceptions masked nothing is signalled, so stack faults, condition codes, rounding and
 * undefined results are the host's own, as they are in the interpreter. FLDCW looks whether all
 * exceptions stay masked. What replaces the whole environment (FLDENV, FRSTOR, FNSAVE, FNINIT) and
 * FNSTENV, which also needs the guest's pointers, are the interpreter's.
 *
 * Of the pointers to the last instruction only FIP and FCS follow while exceptions are masked
 * (x87_note()). Translated code stores them once, at the last x87 instruction of the block; where
 * the interpreter is called before that, jit_fpu_note() finds the instruction that was the last.
 */
#include "cpu/fpu.h"
#include "cpu/ops.h"
#include <stddef.h>

enum {
	OP_FWAIT = 0x9B,
	OP_ESCAPE = 0xD8, /* ..DF */
	OP_MOV_IMM32 = 0xC7,
	OP_NOT = 0xF7,
	DIGIT_NOT = 2,
	DIGIT_FLDCW = 5,
};

/* ---- The pointers ---- */

enum pointers { POINTERS_KEPT, POINTERS_NOTED, POINTERS_REPLACED };

/* What an instruction does to FIP and FCS; POINTERS_REPLACED: with others than its own. */
static enum pointers pointers_after(const struct insn *i)
{
	enum { OP_FX = 0x1AE, REG_FXRSTOR = 1, FNINIT = 0xE3, FNSTSW_AX = 0xE0 };

	if (i->opcode == OP_FX)
		return i->is_mem && i->reg == REG_FXRSTOR ? POINTERS_REPLACED : POINTERS_KEPT;
	if (i->opcode < OP_ESCAPE || i->opcode > OP_ESCAPE + 7 || i->exec == op_undefined)
		return POINTERS_KEPT;
	if (!i->is_mem) {
		if (i->opcode == 0xDB && i->reg == 4) /* FNCLEX and the like */
			return i->modrm == FNINIT ? POINTERS_REPLACED : POINTERS_KEPT;
		return i->opcode == 0xDF && i->modrm == FNSTSW_AX ? POINTERS_KEPT : POINTERS_NOTED;
	}
	if (i->opcode == 0xD9 && i->reg >= 4) /* FLDENV FLDCW FNSTENV FNSTCW */
		return i->reg == 4 ? POINTERS_REPLACED : POINTERS_KEPT;
	if (i->opcode == 0xDD && i->reg >= 4) /* FRSTOR, FNSAVE, FNSTSW */
		return i->reg == 7 ? POINTERS_KEPT : POINTERS_REPLACED;
	return POINTERS_NOTED;
}

void jit_fpu_note(struct soft_cpu *c, const struct jit_site *site)
{
	const struct code_block *b = site->code->block;
	uint32_t eip = site->eip;

	if (!site->needs_fpu)
		return;
	for (unsigned n = site->index; n-- > 0;) {
		eip -= b->insn[n].len;
		switch (pointers_after(&b->insn[n])) {
		case POINTERS_KEPT: break;
		case POINTERS_REPLACED: return;
		case POINTERS_NOTED:
			c->fpu.fip = eip;
			c->fpu.fcs = c->seg[S_CS].selector;
			return;
		}
	}
}

/* Stores the pointers if no instruction behind this one in the block does. */
static void emit_note(struct jit *j)
{
	const struct code_block *b = j->code->block;
	struct emitter *e = &j->hot;

	for (unsigned n = j->index + 1; n < b->count; n++)
		if (pointers_after(&b->insn[n]) != POINTERS_KEPT)
			return;
	jit_flush_pending(j, false);
	emit_rm(e, OP_MOV_IMM32, 0, R14, HOST_NONE, 0, JIT_CPU(fpu.fip));
	emit32(e, j->eip);
	emit_rm(e, OP_MOVZX16, RCX, R14, HOST_NONE, 0, JIT_CPU(seg[S_CS].selector));
	emit_rm(e, OP_STORE | EMIT_66, RCX, R14, HOST_NONE, 0, JIT_CPU(fpu.fcs));
}

/* ---- Control word ---- */

/* A rotation takes the bit behind the masks to bit 0, so that the masks are the uppermost bits; a
 * shift leaves nothing else. */
enum { MASK_BITS = 6, ROTATE_CW = MASK_BITS, ROTATE_MXCSR = 13, TOP_TO_BOTTOM = 32 - MASK_BITS };

/* A control word is in soft_cpu.jit.scratch and R9D: the exceptions that it leaves unmasked, into
 * R9D. */
static void emit_unmasked(struct emitter *e, unsigned rotate)
{
	emit_rr(e, OP_NOT, DIGIT_NOT, R9);
	emit_rorx32(e, R9, R9, rotate);
	emit_mov_imm32(e, RCX, TOP_TO_BOTTOM);
	emit_shift(e, EMIT_SHRX, false, R9, R9, RCX);
}

static void emit_interpret_unless_rcx_zero(struct jit *j)
{
	uint8_t *zero = emit_jrcxz(&j->hot);

	jit_jmp_interpret(j);
	emit_here(&j->hot, zero);
}

static void emit_fldcw(struct jit *j)
{
	struct emitter *e = &j->hot;

	jit_op(j, OP_MOVZX16, R9, jit_place(j, 2, MEM_READ, false));
	emit_rm(e, OP_STORE, R9, R14, HOST_NONE, 0, JIT_CPU(jit.scratch));
	jit_flush_pending(j, false);
	emit_unmasked(e, ROTATE_CW);
	emit_mov32(e, RCX, R9);
	emit_interpret_unless_rcx_zero(j);
	emit_rm(e, 0xD9, DIGIT_FLDCW, R14, HOST_NONE, 0, JIT_CPU(jit.scratch));
}

void jit_ldmxcsr(struct jit *j)
{
	enum { OP_FX = 0xAE | EMIT_0F, DIGIT_LDMXCSR = 2 };
	struct emitter *e = &j->hot;

	jit_op(j, OP_LOAD, R9, jit_place(j, 4, MEM_READ, false));
	emit_rm(e, OP_STORE, R9, R14, HOST_NONE, 0, JIT_CPU(jit.scratch));
	jit_flush_pending(j, false);
	emit_unmasked(e, ROTATE_MXCSR);
	/* The upper half is reserved: #GP unless zero. */
	emit_rm(e, OP_MOVZX16, RCX, R14, HOST_NONE, 0, JIT_CPU(jit.scratch) + 2);
	emit_lea32(e, RCX, RCX, R9, 0, 0);
	emit_interpret_unless_rcx_zero(j);
	jit_flush_pending(j, false);
	emit_rm(e, OP_FX, DIGIT_LDMXCSR, R14, HOST_NONE, 0, JIT_CPU(jit.scratch));
}

/* ---- Instructions ---- */

/* Bytes of the memory operand by opcode and ModRM.reg, negative if it is written; 0: interpreted.
 * FLDCW and FNSTCW are D9 /5 and /7. */
static const int8_t operand_bytes[8][8] = {
	{4, 4, 4, 4, 4, 4, 4, 4}, {4, 0, -4, -4, 0, 2, 0, -2},
	{4, 4, 4, 4, 4, 4, 4, 4}, {4, -4, -4, -4, 0, 10, 0, -10},
	{8, 8, 8, 8, 8, 8, 8, 8}, {8, -8, -8, -8, 0, 0, 0, -2},
	{2, 2, 2, 2, 2, 2, 2, 2}, {2, -2, -2, -2, 10, 8, -10, -8},
};

static bool is_fisttp(const struct insn *i)
{
	return i->is_mem && i->reg == 1 && i->opcode & 1 && i->opcode != 0xD9;
}
static bool is_fcmov_or_fcomi(const struct insn *i)
{
	if (i->is_mem)
		return false;
	return (i->opcode == 0xDA && i->reg < 4) ||
	       (i->opcode == 0xDB && (i->reg < 4 || i->reg == 5 || i->reg == 6)) ||
	       (i->opcode == 0xDF && (i->reg == 5 || i->reg == 6));
}

static bool emit_memory_form(struct jit *j, const struct insn *i)
{
	int bytes = operand_bytes[i->opcode & 7][i->reg];
	unsigned size = (unsigned)(bytes < 0 ? -bytes : bytes);
	enum mem_type type = bytes < 0 ? MEM_WRITE : MEM_READ;

	if (!bytes)
		return false;
	jit_need_fpu(j);
	jit_flush_pending(j, false);
	if (i->opcode == 0xD9 && i->reg == DIGIT_FLDCW) {
		emit_fldcw(j);
		return true;
	}
	jit_op(j, i->opcode, i->reg, jit_place(j, size, type, false));
	return true;
}

bool jit_x87_insn(struct jit *j, const struct insn *i)
{
	uint32_t edx = j->cpu->features_edx, ecx = j->cpu->features_ecx;

	if (i->opcode == OP_FWAIT && i->exec == op_fwait) {
		jit_need_fpu(j);
		return true;
	}
	/* An undefined instruction has another function. */
	if (i->opcode < OP_ESCAPE || i->opcode > OP_ESCAPE + 7 || x87_lookup(i) != i->exec)
		return false;
	if ((is_fisttp(i) && !(ecx & CPUID_ECX_SSE3)) ||
	    (is_fcmov_or_fcomi(i) && !(edx & CPUID_CMOV)))
		return false;
	if (i->is_mem) {
		if (!emit_memory_form(j, i))
			return false;
	} else if (i->opcode == 0xDB && i->reg == 4 && i->rm != 2) {
		if (i->rm == 3) /* FNINIT */
			return false;
		jit_need_fpu(j); /* FENI, FDISI, FSETPM: nothing */
		return true;
	} else {
		jit_need_fpu(j);
		emit8(&j->hot, i->opcode);
		emit8(&j->hot, i->modrm);
	}
	if (pointers_after(i) == POINTERS_NOTED)
		emit_note(j);
	return true;
}
