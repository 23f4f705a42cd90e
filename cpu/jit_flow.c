/* SPDX-License-Identifier: MIT */
/*
 * Translation of near control transfers and of the stack.
 *
 * A direct jump first leads to a stub that asks for its target, and is patched to lead to the
 * target's code once there is some. A computed one looks into the jump cache.
 */
#include "cpu/jit.h"
#include <stddef.h>

enum { OP_LEA = 0x8D };

static uint32_t next_eip(const struct jit *j)
{
	return j->eip + j->insn->len;
}

/* The target of a relative jump; false if it lies outside of the segment, which is a fault. */
static bool relative_target(const struct jit *j, uint32_t *target)
{
	*target = next_eip(j) + j->insn->imm;
	if (!j->insn->opsize32)
		*target &= 0xFFFF;
	return *target <= j->mode.cs_limit;
}

/* Whether any computed target of that size lies in the segment. */
static bool targets_fit(const struct jit *j, unsigned size)
{
	return j->mode.cs_limit >= (size == 2 ? 0xFFFF : 0xFFFFFFFF);
}

/* Ends the block: `op` is a jump with a rel32, or several bytes of it. */
static void exit_to(struct jit *j, unsigned link, uint32_t target, unsigned op)
{
	struct jit_link *l = &j->code->link[link];

	l->stub = emit_exec(&j->cold);
	jit_call_site(j, &j->cold, JIT_SITE_LINK, link, target, NULL);
	emit_opcode(&j->hot, op, 0, 0, 0);
	l->patch = j->hot.at;
	emit_rel32(&j->hot, l->stub);
}

void jit_exit_to(struct jit *j, unsigned link, uint32_t target)
{
	exit_to(j, link, target, 0xE9);
	jit_flush_pending(j, true);
}

/*
 * Goes to the address in R8D. `predict`: the first target is kept in the code, as link 0, because
 * it is likely to be the only one (returns, calls through pointers).
 */
static void exit_computed(struct jit *j, bool predict)
{
	struct emitter *e = &j->hot;
	const uint8_t *miss = emit_exec(&j->cold);
	uint8_t *predicted = NULL;

	jit_call_site(j, &j->cold, JIT_SITE_JUMP, 0, j->eip, NULL);
	jit_flush_pending(j, false);
	if (predict) {
		/* ECX = R8D - target, with a displacement that takes 4 bytes until it is known. */
		emit_lea32(e, RCX, R8, HOST_NONE, 0, INT32_MIN);
		j->code->prediction = e->at - sizeof(int32_t);
		predicted = emit_jrcxz(e);
	}
	emit_rr(e, OP_MOVZX16, R9, R8);
	emit_rm(e, OP_LOAD | EMIT_W, RCX, R13, R9, 3, JIT_JUMP_TAG);
	emit_lea64(e, RCX, RCX, R8, 0, j->code->mode);
	uint8_t *hit = emit_jrcxz(e);
	emit_jmp(e, miss);
	emit_here(e, hit);
	emit_rm(e, 0xFF, 4, R13, R9, 3, JIT_JUMP_CODE);
	if (predicted) {
		emit_here(e, predicted);
		emit8(e, 0xE9);
		j->code->link[0].stub = miss;
		j->code->link[0].patch = e->at;
		emit_rel32(e, miss);
	}
	jit_flush_pending(j, true);
}

/* ---- Stack ---- */

/* The address of the stack's top plus `offset`, translated: [returned + RCX]. */
static struct jit_place stack_operand(struct jit *j, int offset, unsigned size, enum mem_type type)
{
	if (j->mode.stack32)
		return jit_place_at(j, S_SS, R15, offset, size, type);
	emit_lea32(&j->hot, R8, R15, HOST_NONE, 0, offset);
	emit_rr(&j->hot, OP_MOVZX16, R8, R8);
	return jit_place_at(j, S_SS, R8, 0, size, type);
}

static void add_sp(struct jit *j, int n)
{
	emit_rm(&j->hot, OP_LEA | (j->mode.stack32 ? 0 : EMIT_66), R15, R15, HOST_NONE, 0, n);
}

static bool push_reg(struct jit *j, const struct insn *i)
{
	unsigned size = jit_opsize(i);
	struct jit_place at = stack_operand(j, -(int)size, size, MEM_WRITE);

	jit_op(j, OP_STORE | (size == 2 ? EMIT_66 : 0), jit_reg(i->opcode & 7), at);
	add_sp(j, -(int)size);
	return true;
}

static void push_imm(struct jit *j, uint32_t v, unsigned size)
{
	struct jit_place at = stack_operand(j, -(int)size, size, MEM_WRITE);

	jit_op(j, 0xC7 | (size == 2 ? EMIT_66 : 0), 0, at);
	emit_bytes(&j->hot, &v, size);
	add_sp(j, -(int)size);
}

static bool pop_reg(struct jit *j, const struct insn *i)
{
	unsigned size = jit_opsize(i);
	int to = jit_reg(i->opcode & 7);

	if (to == R15 && size == 2)
		return false;
	jit_op(j, OP_LOAD | (size == 2 ? EMIT_66 : 0), to, stack_operand(j, 0, size, MEM_READ));
	if (to != R15)
		add_sp(j, (int)size);
	return true;
}

void jit_push_scratch(struct jit *j, unsigned size)
{
	struct jit_place to = stack_operand(j, -(int)size, size, MEM_WRITE);

	emit_rm(&j->hot, OP_LOAD, R9, R14, HOST_NONE, 0, JIT_CPU(jit.scratch));
	jit_op(j, OP_STORE | (size == 2 ? EMIT_66 : 0), R9, to);
	add_sp(j, -(int)size);
}

/* PUSH rm: memory is read to soft_cpu.jit.scratch first. */
static bool push_rm(struct jit *j, const struct insn *i)
{
	if (!i->is_mem || !i->opsize32)
		return false;
	jit_op(j, OP_LOAD, R9, jit_place(j, 4, MEM_READ, false));
	emit_rm(&j->hot, OP_STORE, R9, R14, HOST_NONE, 0, JIT_CPU(jit.scratch));
	jit_push_scratch(j, 4);
	return true;
}

static bool leave(struct jit *j, const struct insn *i)
{
	if (!i->opsize32 || !j->mode.stack32)
		return false;
	jit_op(j, OP_LOAD, R9, jit_place_at(j, S_SS, RBP, 0, 4, MEM_READ));
	emit_lea32(&j->hot, R15, RBP, HOST_NONE, 0, 4);
	emit_mov32(&j->hot, RBP, R9);
	return true;
}

/* ---- Transfers ---- */

static bool jump_relative(struct jit *j)
{
	uint32_t target;

	if (!relative_target(j, &target))
		return false;
	jit_exit_to(j, 0, target);
	return true;
}

static bool jump_conditional(struct jit *j, const struct insn *i)
{
	uint32_t target;

	if (!relative_target(j, &target))
		return false;
	exit_to(j, 0, target, 0x80 | (i->opcode & 15) | EMIT_0F);
	jit_exit_to(j, 1, next_eip(j));
	return true;
}

/* LOOP and JCXZ; the counter is ECX or CX. */
static bool jump_by_count(struct jit *j, const struct insn *i)
{
	enum { LOOP = 0xE2, JCXZ = 0xE3 };
	struct emitter *e = &j->hot;
	uint32_t target;

	if (i->opcode < LOOP || !relative_target(j, &target))
		return false;
	if (i->opcode == LOOP)
		emit_rm(e, OP_LEA | (i->adsize32 ? 0 : EMIT_66), R10, R10, HOST_NONE, 0, -1);
	if (i->adsize32)
		emit_mov32(e, RCX, R10);
	else
		emit_rr(e, OP_MOVZX16, RCX, R10);
	/* Over a jump with a rel32: 5 bytes. */
	uint8_t *zero = emit_jrcxz(e);
	exit_to(j, 0, i->opcode == LOOP ? target : next_eip(j), 0xE9);
	emit_here(e, zero);
	jit_exit_to(j, 1, i->opcode == LOOP ? next_eip(j) : target);
	return true;
}

static bool call_relative(struct jit *j, const struct insn *i)
{
	uint32_t target;

	if (!relative_target(j, &target))
		return false;
	push_imm(j, next_eip(j), jit_opsize(i));
	jit_exit_to(j, 0, target);
	return true;
}

static bool ret(struct jit *j, const struct insn *i)
{
	unsigned size = jit_opsize(i);

	if (!targets_fit(j, size))
		return false;
	jit_op(j, size == 2 ? OP_MOVZX16 : OP_LOAD, R8, stack_operand(j, 0, size, MEM_READ));
	add_sp(j, (int)(size + i->imm));
	exit_computed(j, true);
	return true;
}

/* JMP rm, CALL rm. */
static bool transfer_rm(struct jit *j, const struct insn *i, bool call)
{
	struct emitter *e = &j->hot;
	unsigned size = jit_opsize(i);
	unsigned load = size == 2 ? OP_MOVZX16 : OP_LOAD;

	if (!targets_fit(j, size) || (call && !i->is_mem && i->rm == R_ESP))
		return false;
	if (i->is_mem) {
		jit_op(j, load, R8, jit_place(j, size, MEM_READ, false));
		if (call)
			emit_rm(e, OP_STORE, R8, R14, HOST_NONE, 0, JIT_CPU(jit.scratch));
	}
	if (call)
		push_imm(j, next_eip(j), size);
	if (!i->is_mem)
		emit_rr(e, load, R8, jit_reg(i->rm));
	else if (call)
		emit_rm(e, OP_LOAD, R8, R14, HOST_NONE, 0, JIT_CPU(jit.scratch));
	exit_computed(j, call);
	return true;
}

bool jit_flow_insn(struct jit *j, const struct insn *i)
{
	switch (i->opcode) {
	case 0x50 ... 0x57: return push_reg(j, i);
	case 0x58 ... 0x5F: return pop_reg(j, i);
	case 0x68:
	case 0x6A: push_imm(j, i->imm, jit_opsize(i)); return true;
	case 0x70 ... 0x7F:
	case 0x180 ... 0x18F: return jump_conditional(j, i);
	case 0xC2:
	case 0xC3: return ret(j, i);
	case 0xC9: return leave(j, i);
	case 0xE0 ... 0xE3: return jump_by_count(j, i);
	case 0xE8: return call_relative(j, i);
	case 0xE9:
	case 0xEB: return jump_relative(j);
	case 0xFF:
		switch (i->reg) {
		case 2: return transfer_rm(j, i, true);
		case 4: return transfer_rm(j, i, false);
		case 6: return push_rm(j, i);
		default: return false;
		}
	default: return false;
	}
}
