/* SPDX-License-Identifier: MIT */
/*
 * Translation of what kernels do often beside arithmetic: PUSHF, CLI, pushing and reading segment
 * registers, prefetches; and of single string instructions upwards.
 */
#include "cpu/jit.h"
#include <stddef.h>

/* Sets or clears one bit of soft_cpu.eflags: rotated to the top it is shifted out as its new value
 * is shifted in at the bottom, and the word is rotated back. */
static void set_eflag(struct jit *j, unsigned bit, bool on)
{
	enum { WORD = 32 };
	struct emitter *e = &j->hot;

	emit_rm(e, OP_LOAD, RCX, R14, HOST_NONE, 0, JIT_CPU(eflags));
	emit_rorx32(e, RCX, RCX, bit + 1);
	emit_lea32(e, RCX, RCX, RCX, 0, on);
	emit_rorx32(e, RCX, RCX, WORD - bit);
	emit_rm(e, OP_STORE, RCX, R14, HOST_NONE, 0, JIT_CPU(eflags));
}

/* Goes on only at CPL 0. */
static void need_cpl0(struct jit *j)
{
	emit_rm(&j->hot, OP_MOVZX8, RCX, R14, HOST_NONE, 0, JIT_CPU(cpl));
	uint8_t *supervisor = emit_jrcxz(&j->hot);
	jit_jmp_interpret(j);
	emit_here(&j->hot, supervisor);
}

static bool cli(struct jit *j)
{
	enum { IF_BIT = 9 };

	need_cpl0(j);
	set_eflag(j, IF_BIT, false);
	return true;
}

static bool set_direction(struct jit *j, bool down)
{
	enum { DF_BIT = 10 };

	set_eflag(j, DF_BIT, down);
	return true;
}

/* PUSHF outside of V86 mode, whose segments are never flat: the arithmetic flags of the host and
 * the others of soft_cpu.eflags, in which VM and RF are clear here. */
static bool pushf(struct jit *j, const struct insn *i)
{
	enum { TO_OF_BIT = 32 - 11 };
	struct emitter *e = &j->hot;

	if (!j->mode.flat || !i->opsize32)
		return false;
	emit_mov32(e, R9, RAX);
	emit8(e, 0x9F);                     /* LAHF */
	emit_rr(e, 0x90 | EMIT_0F, 0, RAX); /* SETO AL */
	emit_rr(e, OP_MOVZX8, RCX, RAX);
	emit_rorx32(e, RCX, RCX, TO_OF_BIT);
	emit_rr(e, OP_MOVZX8, RAX, 4); /* AH */
	emit_lea32(e, RCX, RCX, RAX, 0, 0);
	emit_rm(e, OP_LOAD, RAX, R14, HOST_NONE, 0, JIT_CPU(eflags));
	/* Bit 1 is set in both. */
	emit_lea32(e, RCX, RCX, RAX, 0, -(int32_t)FL_1);
	emit_mov32(e, RAX, R9);
	emit_rm(e, OP_STORE, RCX, R14, HOST_NONE, 0, JIT_CPU(jit.scratch));
	jit_push_scratch(j, 4);
	return true;
}

static int32_t selector_of(unsigned sreg)
{
	return (int32_t)(offsetof(struct soft_cpu, seg) + sreg * sizeof(struct cpu_segment) +
			 offsetof(struct cpu_segment, selector));
}

static bool push_sreg(struct jit *j, const struct insn *i, unsigned sreg)
{
	emit_rm(&j->hot, OP_MOVZX16, R9, R14, HOST_NONE, 0, selector_of(sreg));
	emit_rm(&j->hot, OP_STORE, R9, R14, HOST_NONE, 0, JIT_CPU(jit.scratch));
	jit_push_scratch(j, jit_opsize(i));
	return true;
}

/* MOV r, sreg */
static bool read_sreg(struct jit *j, const struct insn *i)
{
	if (i->is_mem || i->reg > S_GS)
		return false;
	if (i->opsize32) {
		emit_rm(&j->hot, OP_MOVZX16, jit_reg(i->rm), R14, HOST_NONE, 0,
			selector_of(i->reg));
		return true;
	}
	emit_rm(&j->hot, OP_LOAD | EMIT_66, jit_reg(i->rm), R14, HOST_NONE, 0, selector_of(i->reg));
	return true;
}

/* ---- String instructions without REP ---- */

/* Goes on only with DF clear. */
static void need_upwards(struct jit *j)
{
	struct emitter *e = &j->hot;

	emit_rm(e, OP_LOAD, RCX, R14, HOST_NONE, 0, JIT_CPU(eflags));
	emit_mov_imm32(e, R9, FL_DF);
	emit_pext32(e, RCX, RCX, R9);
	uint8_t *upwards = emit_jrcxz(e);
	jit_jmp_interpret(j);
	emit_here(e, upwards);
}

static void advance(struct jit *j, int reg, unsigned by)
{
	emit_lea32(&j->hot, reg, reg, HOST_NONE, 0, (int32_t)by);
}

static bool string(struct jit *j, const struct insn *i)
{
	enum { MOVS = 0xA4, CMPS = 0xA6, STOS = 0xAA, LODS = 0xAC, SCAS = 0xAE, CMP = 0x3A };
	struct emitter *e = &j->hot;
	unsigned wide = i->opcode & 1, size = wide ? jit_opsize(i) : 1;
	unsigned prefix = size == 2 ? EMIT_66 : 0;
	int at;

	if (i->rep != REP_NONE || !i->adsize32)
		return false;
	need_upwards(j);
	switch (i->opcode & ~1u) {
	case STOS:
		at = jit_translate(j, S_ES, RDI, size, MEM_WRITE, false);
		emit_rm(e, 0x88 | wide | prefix, RAX, at, RCX, 0, 0);
		break;
	case LODS:
		at = jit_translate(j, i->seg, RSI, size, MEM_READ, false);
		emit_rm(e, 0x8A | wide | prefix, RAX, at, RCX, 0, 0);
		advance(j, RSI, size);
		return true;
	case SCAS:
		at = jit_translate(j, S_ES, RDI, size, MEM_READ, false);
		emit_rm(e, CMP | wide | prefix, RAX, at, RCX, 0, 0);
		break;
	default:
		/* MOVS and CMPS: the item at ESI by way of soft_cpu.jit.scratch. */
		at = jit_translate(j, i->seg, RSI, size, MEM_READ, false);
		emit_rm(e, 0x8A | wide | prefix, R9, at, RCX, 0, 0);
		emit_rm(e, OP_STORE, R9, R14, HOST_NONE, 0, JIT_CPU(jit.scratch));
		bool moves = (i->opcode & ~1u) == MOVS;
		at = jit_translate(j, S_ES, RDI, size, moves ? MEM_WRITE : MEM_READ, false);
		emit_rm(e, OP_LOAD, R9, R14, HOST_NONE, 0, JIT_CPU(jit.scratch));
		emit_rm(e, (moves ? 0x88u : CMP) | wide | prefix, R9, at, RCX, 0, 0);
		advance(j, RSI, size);
	}
	advance(j, RDI, size);
	return true;
}

bool jit_system_insn(struct jit *j, const struct insn *i)
{
	switch (i->opcode) {
	case 0x06: return push_sreg(j, i, S_ES);
	case 0x0E: return push_sreg(j, i, S_CS);
	case 0x16: return push_sreg(j, i, S_SS);
	case 0x1E: return push_sreg(j, i, S_DS);
	case 0x1A0: return push_sreg(j, i, S_FS);
	case 0x1A8: return push_sreg(j, i, S_GS);
	case 0x8C: return read_sreg(j, i);
	case 0x9C: return pushf(j, i);
	case 0xA4 ... 0xA7:
	case 0xAA ... 0xAF: return string(j, i);
	case 0xFA: return cli(j);
	case 0xFC:
	case 0xFD: return set_direction(j, i->opcode == 0xFD);
	case 0x10D:
	case 0x118 ... 0x11E: return true; /* prefetches and NOPs: no effect that a program sees */
	default: return false;
	}
}
