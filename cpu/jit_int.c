/* SPDX-License-Identifier: MIT */
/*
 * Translation of the integer instructions that neither transfer control nor use the stack: the same
 * instruction on the registers that stand for the guest's, and on [address + RCX] for memory.
 *
 * What needs thought:
 *  - AH CH DH BH cannot be named in an instruction with a REX prefix, and CL and CH live in R10.
 *    Without memory, R10 is copied to ECX for the moment; with memory, the register is rotated by 8
 *    bits, so that its second byte is the low one, and back.
 *  - Shifts by CL take their count from ECX, which is scratch.
 *  - Division may raise #DE on the host, so what would is left to the interpreter.
 */
#include "cpu/jit.h"
#include "cpu/ops.h"

enum { GUEST_CL = 1, GUEST_CH = 5, FIRST_HIGH = 4 };

static unsigned size_prefix(unsigned size)
{
	return size == 2 ? EMIT_66 : 0;
}

static void emit_imm(struct emitter *e, uint32_t imm, unsigned size)
{
	emit_bytes(e, &imm, size);
}

/* An instruction's shape: `op` with EMIT_* bits, and the operand in ModRM.reg. */
struct shape {
	unsigned op;
	unsigned size; /* of the operand in ModRM.rm */
	bool has_reg;  /* ModRM.reg is a register of the same size; else it is `digit` */
	unsigned digit;
	bool writes_rm, writes_reg;
	unsigned imm_bytes; /* of insn.imm behind it */
};

static void finish(struct jit *j, const struct shape *s)
{
	if (s->imm_bytes)
		emit_imm(&j->hot, j->insn->imm, s->imm_bytes);
}

/* Byte operands, both in registers. */
static void emit_bytes_rr(struct jit *j, const struct shape *s, const struct insn *i)
{
	unsigned reg = s->has_reg ? i->reg : s->digit, rm = i->rm;
	bool high = (s->has_reg && reg >= FIRST_HIGH) || rm >= FIRST_HIGH;
	bool reg_is_c = s->has_reg && (reg == GUEST_CL || reg == GUEST_CH);
	bool rm_is_c = rm == GUEST_CL || rm == GUEST_CH;

	if (!high) {
		emit_rr(&j->hot, s->op, s->has_reg ? jit_reg(reg) : (int)reg, jit_reg(rm));
		finish(j, s);
		return;
	}
	if (reg_is_c || rm_is_c)
		emit_mov32(&j->hot, RCX, R10);
	emit_rr(&j->hot, s->op, (int)reg, (int)rm);
	finish(j, s);
	if ((reg_is_c && s->writes_reg) || (rm_is_c && s->writes_rm))
		emit_mov32(&j->hot, R10, RCX);
}

static void emit_shape(struct jit *j, const struct insn *i, const struct shape *s)
{
	struct emitter *e = &j->hot;
	unsigned op = s->op | size_prefix(s->size);
	int reg = s->has_reg ? jit_reg(i->reg) : (int)s->digit;

	if (!i->is_mem) {
		if (s->size == 1) {
			emit_bytes_rr(j, s, i);
			return;
		}
		emit_rr(e, op, reg, jit_reg(i->rm));
		finish(j, s);
		return;
	}

	bool high = s->size == 1 && s->has_reg && i->reg >= FIRST_HIGH;
	/* A fault in the window must find the register as it was. */
	j->not_window = high;
	struct jit_place at = jit_place(j, s->size, s->writes_rm ? MEM_WRITE : MEM_READ, high);
	if (i->lock)
		op |= EMIT_LOCK;
	if (high) {
		reg = jit_reg(i->reg - FIRST_HIGH);
		emit_rorx32(e, reg, reg, 8);
	}
	jit_op(j, op, reg, at);
	finish(j, s);
	if (high)
		emit_rorx32(e, reg, reg, 24);
}

/* ADD OR ADC SBB AND SUB XOR CMP, opcodes 00..3D. */
static bool alu(struct jit *j, const struct insn *i)
{
	enum { CMP = 7 };
	unsigned form = i->opcode & 7, operation = i->opcode >> 3 & 7;
	bool compares = operation == CMP;
	struct shape s = {.op = i->opcode, .size = form & 1 ? jit_opsize(i) : 1, .has_reg = true};

	switch (form) {
	case 0:
	case 1: s.writes_rm = !compares; break;
	case 2:
	case 3: s.writes_reg = !compares; break;
	case 4:
		emit8(&j->hot, i->opcode);
		emit8(&j->hot, i->imm);
		return true;
	case 5:
		if (!i->opsize32)
			emit8(&j->hot, 0x66);
		emit8(&j->hot, i->opcode);
		emit_imm(&j->hot, i->imm, s.size);
		return true;
	default: return false;
	}
	emit_shape(j, i, &s);
	return true;
}

/* The same with an immediate: 80 81 83. */
static bool alu_imm(struct jit *j, const struct insn *i)
{
	enum { CMP = 7, BYTE_FORM = 0x80, WIDE_IMM = 0x81 };
	struct shape s = {.op = i->opcode,
			  .size = i->opcode == BYTE_FORM ? 1 : jit_opsize(i),
			  .digit = i->reg,
			  .writes_rm = i->reg != CMP};

	s.imm_bytes = i->opcode == WIDE_IMM ? s.size : 1;
	emit_shape(j, i, &s);
	return true;
}

/* F6 F7 without multiplication and division: TEST NOT NEG. */
static bool test_not_neg(struct jit *j, const struct insn *i)
{
	struct shape s = {.op = i->opcode,
			  .size = i->opcode & 1 ? jit_opsize(i) : 1,
			  .digit = i->reg,
			  .writes_rm = i->reg >= 2};

	if (i->reg < 2) {
		s.digit = 0;
		s.imm_bytes = s.size;
	}
	emit_shape(j, i, &s);
	return true;
}

/* Division: what raises #DE goes to the interpreter before anything changes. */
static bool divide(struct jit *j, const struct insn *i)
{
	enum { DIV = 6 };
	struct emitter *e = &j->hot;

	if (!(i->opcode & 1) || !i->opsize32)
		return false;
	if (i->is_mem) {
		jit_op(j, OP_LOAD, R9, jit_place(j, 4, MEM_READ, false));
	} else {
		emit_mov32(e, R9, jit_reg(i->rm));
	}
	if (i->reg == DIV) {
		/* The quotient fits if EDX is below the divisor: EDX - R9 is negative. */
		emit_rr(e, OP_STORE | EMIT_W, R9, RCX);
		emit_not64(e, RCX);
		emit_lea64(e, RCX, RCX, RDX, 0, 1);
		jit_shift(j, RCX, RCX, R8);
		jit_interpret_if_rcx_zero(j);
		emit_rr(e, 0xF7, DIV, R9);
		return true;
	}
	/* It fits if the divisor is neither 0 nor -1 and EDX is the sign of EAX. */
	emit_lea32(e, RCX, R9, HOST_NONE, 0, 1);
	emit_mov_imm32(e, R8, 1);
	emit_shift(e, EMIT_SHRX, false, RCX, RCX, R8);
	jit_interpret_if_rcx_zero(j);
	emit_mov_imm32(e, RCX, 31);
	emit_shift(e, EMIT_SARX, false, RCX, RAX, RCX);
	emit_not64(e, RCX);
	emit_lea32(e, RCX, RCX, RDX, 0, 1);
	uint8_t *fits = emit_jrcxz(e);
	jit_jmp_interpret(j);
	emit_here(e, fits);
	emit_rr(e, 0xF7, i->reg, R9);
	return true;
}

static bool group3(struct jit *j, const struct insn *i)
{
	struct shape s = {
		.op = i->opcode, .size = i->opcode & 1 ? jit_opsize(i) : 1, .digit = i->reg};

	switch (i->reg) {
	case 0:
	case 1:
	case 2:
	case 3: return test_not_neg(j, i);
	case 4:
	case 5: emit_shape(j, i, &s); return true;
	default: return divide(j, i);
	}
}

/* C0 C1 D0..D3: shifts and rotates by an immediate, by 1, by CL. */
static bool shift(struct jit *j, const struct insn *i)
{
	enum { BY_CL = 0xD2 };
	struct emitter *e = &j->hot;
	struct shape s = {.op = i->opcode,
			  .size = i->opcode & 1 ? jit_opsize(i) : 1,
			  .digit = i->reg,
			  .writes_rm = true,
			  .imm_bytes = i->opcode < 0xD0 ? 1 : 0};

	if ((i->opcode & ~1u) != BY_CL) {
		emit_shape(j, i, &s);
		return true;
	}
	if (i->is_mem) {
		int at = jit_operand(j, s.size, MEM_WRITE, false, false);
		emit_lea64(e, R8, at, RCX, 0, 0);
		emit_mov32(e, RCX, R10);
		emit_rm(e, s.op | size_prefix(s.size), (int)s.digit, R8, HOST_NONE, 0, 0);
		return true;
	}
	emit_mov32(e, RCX, R10);
	if (s.size != 1)
		emit_rr(e, s.op | size_prefix(s.size), (int)s.digit, jit_reg(i->rm));
	else
		emit_bytes_rr(j, &s, i);
	return true;
}

/* SHLD SHRD: 0F A4 A5 AC AD. */
static bool double_shift(struct jit *j, const struct insn *i)
{
	struct emitter *e = &j->hot;
	bool by_cl = i->opcode & 1;
	unsigned op = (i->opcode & 0xFF) | EMIT_0F | size_prefix(jit_opsize(i));

	if (i->is_mem) {
		int at = jit_operand(j, jit_opsize(i), MEM_WRITE, false, false);
		emit_lea64(e, R8, at, RCX, 0, 0);
		if (by_cl)
			emit_mov32(e, RCX, R10);
		emit_rm(e, op, jit_reg(i->reg), R8, HOST_NONE, 0, 0);
	} else {
		if (by_cl)
			emit_mov32(e, RCX, R10);
		emit_rr(e, op, jit_reg(i->reg), jit_reg(i->rm));
	}
	if (!by_cl)
		emit8(e, i->imm);
	return true;
}

/* BT BTS BTR BTC with a register (0F A3 AB B3 BB): memory is a string of bits. */
static bool bit_by_reg(struct jit *j, const struct insn *i)
{
	enum { BT = 0x1A3, DWORD_SHIFT = 5, UNUSED_BITS = 27 };
	struct emitter *e = &j->hot;
	unsigned op = (i->opcode & 0xFF) | EMIT_0F;
	int base, index;

	if (!i->is_mem) {
		emit_rr(e, op | size_prefix(jit_opsize(i)), jit_reg(i->reg), jit_reg(i->rm));
		return true;
	}
	if (!i->opsize32 || !i->adsize32)
		return false;
	emit_mov_imm32(e, RCX, DWORD_SHIFT);
	emit_shift(e, EMIT_SARX, false, R9, jit_reg(i->reg), RCX);
	base = i->base == BASE_NONE ? HOST_NONE : jit_reg(i->base);
	index = i->index == INDEX_NONE ? HOST_NONE : jit_reg(i->index);
	if (base == HOST_NONE && index == HOST_NONE)
		emit_mov_imm32(e, R8, (uint32_t)i->disp);
	else
		emit_lea32(e, R8, base, index, i->scale, i->disp);
	emit_lea32(e, R8, R8, R9, 2, 0);
	int at = jit_translate(j, i->seg, R8, 4, i->opcode == BT ? MEM_READ : MEM_WRITE, false);
	emit_lea64(e, R8, at, RCX, 0, 0);
	emit_mov_imm32(e, RCX, UNUSED_BITS);
	emit_shift(e, EMIT_SHLX, false, R9, jit_reg(i->reg), RCX);
	emit_shift(e, EMIT_SHRX, false, R9, R9, RCX);
	emit_rm(e, op | (i->lock ? EMIT_LOCK : 0), R9, R8, HOST_NONE, 0, 0);
	return true;
}

/* MOVZX MOVSX: 0F B6 B7 BE BF. */
static bool extend(struct jit *j, const struct insn *i)
{
	struct emitter *e = &j->hot;
	unsigned from = i->opcode & 1 ? 2 : 1;
	unsigned op = (i->opcode & 0xFF) | EMIT_0F | size_prefix(jit_opsize(i));
	int to = jit_reg(i->reg);

	if (i->is_mem) {
		jit_op(j, op, to, jit_place(j, from, MEM_READ, false));
		return true;
	}
	if (from == 2 || i->rm < FIRST_HIGH) {
		int rm = jit_reg(i->rm);
		/* BPL, SIL and DIL cannot come up: byte registers below 4 are AL DL BL R10B. */
		emit_rr(e, op, to, rm);
		return true;
	}
	if (i->rm == GUEST_CH)
		emit_mov32(e, RCX, R10);
	if (to < R8) {
		emit_rr(e, op, to, i->rm);
		return true;
	}
	emit_rr(e, op, RCX, i->rm);
	emit_rr(e, OP_STORE | size_prefix(jit_opsize(i)), RCX, to);
	return true;
}

/* Register and memory moves: 88..8B A0..A3 B0..BF C6 C7. */
static bool move(struct jit *j, const struct insn *i)
{
	struct emitter *e = &j->hot;
	unsigned opcode = i->opcode;
	struct shape s = {.size = opcode & 1 ? jit_opsize(i) : 1, .has_reg = true};

	if (opcode >= 0xB8) {
		if (opcode >= 0xC6) {
			s = (struct shape){.op = opcode,
					   .size = opcode & 1 ? jit_opsize(i) : 1,
					   .writes_rm = true,
					   .imm_bytes = opcode & 1 ? jit_opsize(i) : 1};
			emit_shape(j, i, &s);
			return true;
		}
		if (i->opsize32) {
			emit_mov_imm32(e, jit_reg(i->reg), i->imm);
			return true;
		}
		emit_rr(e, 0xC7 | EMIT_66, 0, jit_reg(i->reg));
		emit_imm(e, i->imm, 2);
		return true;
	}
	if (opcode >= 0xB0) {
		/* MOV r8, imm8 */
		struct insn as_rm = *i;
		as_rm.rm = i->reg;
		s = (struct shape){.op = 0xC6, .size = 1, .writes_rm = true, .imm_bytes = 1};
		emit_bytes_rr(j, &s, &as_rm);
		return true;
	}
	if (opcode >= 0xA0) {
		bool store = opcode & 2;
		struct jit_place at = jit_place(j, s.size, store ? MEM_WRITE : MEM_READ, false);
		jit_op(j, (store ? 0x88 : 0x8A) | (opcode & 1) | size_prefix(s.size), RAX, at);
		return true;
	}
	s.op = opcode;
	s.writes_rm = !(opcode & 2);
	s.writes_reg = opcode & 2;
	emit_shape(j, i, &s);
	return true;
}

static bool lea(struct jit *j, const struct insn *i)
{
	struct emitter *e = &j->hot;
	int to = jit_reg(i->reg);
	int base = i->base == BASE_NONE ? HOST_NONE : jit_reg(i->base);
	int index = i->index == INDEX_NONE ? HOST_NONE : jit_reg(i->index);

	if (!i->is_mem)
		return false;
	if (base == HOST_NONE && index == HOST_NONE) {
		emit_mov_imm32(e, R8, (uint32_t)i->disp & i->ad_mask);
	} else {
		emit_lea32(e, i->adsize32 && i->opsize32 ? to : R8, base, index, i->scale, i->disp);
		if (i->adsize32 && i->opsize32)
			return true;
		if (!i->adsize32)
			emit_rr(e, 0xB7 | EMIT_0F, R8, R8);
	}
	emit_rr(e, OP_STORE | size_prefix(jit_opsize(i)), R8, to);
	return true;
}

/* CMPXCHG8B: ECX:EBX is the new value. */
static bool cmpxchg8b(struct jit *j, const struct insn *i)
{
	enum { DIGIT = 1 };

	if (!i->is_mem || i->reg != DIGIT)
		return false;
	int at = jit_operand(j, 8, MEM_WRITE, false, false);
	emit_lea64(&j->hot, R8, at, RCX, 0, 0);
	emit_mov32(&j->hot, RCX, R10);
	emit_rm(&j->hot, 0xC7 | EMIT_0F | (i->lock ? EMIT_LOCK : 0), DIGIT, R8, HOST_NONE, 0, 0);
	return true;
}

/* Instructions without operands that are the same on the host. */
static bool same(struct jit *j, const struct insn *i)
{
	if (!i->opsize32 && (i->opcode == 0x98 || i->opcode == 0x99))
		emit8(&j->hot, 0x66);
	emit8(&j->hot, i->opcode);
	return true;
}

static bool xchg_eax(struct jit *j, const struct insn *i)
{
	if (i->opcode != 0x90)
		emit_rr(&j->hot, 0x87 | size_prefix(jit_opsize(i)), jit_reg(i->opcode & 7), RAX);
	return true;
}

static bool one_byte(struct jit *j, const struct insn *i)
{
	unsigned op = i->opcode;
	struct shape s = {.op = op, .size = op & 1 ? jit_opsize(i) : 1, .has_reg = true};

	if (op < 0x40)
		return (op & 7) < 6 && alu(j, i);
	switch (op) {
	case 0x40 ... 0x4F: /* INC DEC r */
		emit_rr(&j->hot, 0xFF | size_prefix(jit_opsize(i)), op >= 0x48, jit_reg(op & 7));
		return true;
	case 0x69:
	case 0x6B: /* IMUL r, rm, imm */
		s.size = jit_opsize(i);
		s.imm_bytes = op == 0x6B ? 1 : s.size;
		emit_shape(j, i, &s);
		return true;
	case 0x80:
	case 0x81:
	case 0x83: return alu_imm(j, i);
	case 0x84:
	case 0x85: /* TEST */ emit_shape(j, i, &s); return true;
	case 0x86:
	case 0x87: /* XCHG */
		s.writes_rm = s.writes_reg = true;
		emit_shape(j, i, &s);
		return true;
	case 0x88 ... 0x8B: return move(j, i);
	case 0x8D: return lea(j, i);
	case 0x90 ... 0x97: return i->rep == REP_NONE && xchg_eax(j, i);
	case 0x98:
	case 0x99: /* CBW CWDE CWD CDQ */
	case 0x9E:
	case 0x9F: /* SAHF LAHF */
	case 0xF5:
	case 0xF8:
	case 0xF9: /* CMC CLC STC */ return same(j, i);
	case 0xA0 ... 0xA3: return move(j, i);
	case 0xA8:
	case 0xA9: /* TEST AL/EAX, imm */
		if (s.size == 2)
			emit8(&j->hot, 0x66);
		emit8(&j->hot, op);
		emit_imm(&j->hot, i->imm, s.size);
		return true;
	case 0xB0 ... 0xBF:
	case 0xC6:
	case 0xC7: return move(j, i);
	case 0xC0:
	case 0xC1:
	case 0xD0 ... 0xD3: return shift(j, i);
	case 0xF6:
	case 0xF7: return group3(j, i);
	case 0xFE:
	case 0xFF: /* INC DEC rm */
		if (i->reg > 1)
			return false;
		s.has_reg = false;
		s.digit = i->reg;
		s.writes_rm = true;
		emit_shape(j, i, &s);
		return true;
	default: return false;
	}
}

static bool two_byte(struct jit *j, const struct insn *i)
{
	enum { POPCNT = 0x1B8, IMM_GROUP = 0x1BA, BT_DIGIT = 4 };
	unsigned op = i->opcode & 0xFF;
	struct shape s = {.op = op | EMIT_0F, .size = jit_opsize(i), .has_reg = true};

	switch (i->opcode) {
	case 0x11F: /* NOP rm */ return true;
	case 0x140 ... 0x14F: /* CMOVcc */
	case 0x1AF: /* IMUL r, rm */ emit_shape(j, i, &s); return true;
	case 0x190 ... 0x19F: /* SETcc */
		s.size = 1;
		s.has_reg = false;
		s.writes_rm = true;
		emit_shape(j, i, &s);
		return true;
	case 0x1A3:
	case 0x1AB:
	case 0x1B3:
	case 0x1BB: return bit_by_reg(j, i);
	case IMM_GROUP:
		s.has_reg = false;
		s.digit = i->reg;
		s.writes_rm = i->reg != BT_DIGIT;
		s.imm_bytes = 1;
		emit_shape(j, i, &s);
		return true;
	case 0x1A4:
	case 0x1A5:
	case 0x1AC:
	case 0x1AD: return double_shift(j, i);
	case 0x1B0:
	case 0x1B1:
	case 0x1C0:
	case 0x1C1: /* CMPXCHG XADD */
		s.size = op & 1 ? jit_opsize(i) : 1;
		s.writes_rm = true;
		s.writes_reg = op >= 0xC0;
		/* CMPXCHG also uses AL, which must stay where it is. */
		if (s.size == 1 && op < 0xC0 && (!i->is_mem || i->reg >= FIRST_HIGH))
			return false;
		emit_shape(j, i, &s);
		return true;
	case 0x1B6:
	case 0x1B7:
	case 0x1BE:
	case 0x1BF: return extend(j, i);
	case POPCNT:
		if (i->rep != REP_E)
			return false;
		s.op |= EMIT_F3;
		emit_shape(j, i, &s);
		return true;
	case 0x1BC:
	case 0x1BD: /* BSF BSR */ emit_shape(j, i, &s); return true;
	case 0x1C7: return cmpxchg8b(j, i);
	case 0x1C8 ... 0x1CF: /* BSWAP */
		if (!i->opsize32)
			return false;
		emit_opcode(&j->hot, 0xC8 | (unsigned)(jit_reg(op & 7) & 7) | EMIT_0F, 0, 0,
			    jit_reg(op & 7));
		return true;
	default: return false;
	}
}

bool jit_int_insn(struct jit *j, const struct insn *i)
{
	return i->opcode < 0x100 ? one_byte(j, i) : i->opcode < 0x200 && two_byte(j, i);
}
