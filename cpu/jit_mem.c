/* SPDX-License-Identifier: MIT */
/*
 * Memory operands in translated code, and the stubs beside the straight line. See jit.h for the
 * scheme; nothing here changes the flags.
 */
#include "cpu/jit.h"
#include <stddef.h>

/* ---- Stubs ---- */

void jit_call_site(struct jit *j, struct emitter *e, enum jit_site_kind kind, unsigned index,
		   uint32_t eip, const uint8_t *resume)
{
	struct jit_site site = {
		.resume = resume,
		.code = j->code,
		.eip = eip,
		.index = (uint16_t)index,
		.kind = (uint8_t)kind,
		.needs_fpu = j->fpu_ready,
	};

	emit_call(e, j->cache->thunks.callout);
	emit_bytes(e, &site, sizeof(site));
}

/* The stub that has the current instruction interpreted, in cold code; one for each instruction. */
const uint8_t *jit_interpreter_stub(struct jit *j)
{
	if (!j->interpreter) {
		j->interpreter = emit_exec(&j->cold);
		jit_call_site(j, &j->cold, JIT_SITE_INTERPRET, j->index, j->eip, NULL);
		j->interpret_site = (struct jit_site *)(j->cold.at - sizeof(struct jit_site));
	}
	return j->interpreter;
}

static void jrcxz_to(struct jit *j, const uint8_t *target)
{
	if (j->pending_count == JIT_PENDING_MAX) {
		j->failed = true;
		return;
	}
	j->pending[j->pending_count].rel8 = emit_jrcxz(&j->hot);
	j->pending[j->pending_count].target = target;
	j->pending_count++;
}

void jit_flush_pending(struct jit *j, bool last)
{
	/* A jump reaches 127 bytes; the longest instruction and the jumps written here fit into the
	 * rest. */
	enum { SOON = 52, REACH = 127 };
	uint8_t *over = NULL;

	if (!j->pending_count || (!last && j->hot.at - j->pending[0].rel8 < SOON))
		return;
	if (!last)
		over = emit_jmp_short(&j->hot);
	for (unsigned n = 0; n < j->pending_count; n++) {
		if (!j->pending[n].target)
			continue;
		for (unsigned k = n; k < j->pending_count; k++) {
			if (k != n && j->pending[k].target != j->pending[n].target)
				continue;
			if (j->hot.at - (j->pending[k].rel8 + 1) > REACH)
				j->failed = true;
			emit_here(&j->hot, j->pending[k].rel8);
			if (k != n)
				j->pending[k].target = NULL;
		}
		emit_jmp(&j->hot, j->pending[n].target);
	}
	j->pending_count = 0;
	if (over)
		emit_here(&j->hot, over);
}

void jit_interpret(struct jit *j)
{
	emit_jmp(&j->hot, jit_interpreter_stub(j));
}

void jit_interpret_if_rcx_zero(struct jit *j)
{
	jit_flush_pending(j, false);
	jrcxz_to(j, jit_interpreter_stub(j));
}

void jit_jmp_interpret(struct jit *j)
{
	emit_jmp(&j->hot, jit_interpreter_stub(j));
}

void jit_shift(struct jit *j, int to, int from, int scratch)
{
	int count = R12;

	if (j->mode.window) {
		emit_mov_imm32(&j->hot, scratch, JIT_SHIFT);
		count = scratch;
	}
	emit_shift(&j->hot, EMIT_SHRX, true, to, from, count);
}

/* ---- Addresses ---- */

static bool is_flat(const struct jit *j, unsigned seg)
{
	return j->mode.flat && (seg == S_DS || seg == S_ES || seg == S_SS);
}

/* The offset in a register: R8, or the base register itself. */
static int offset_of(struct jit *j, bool own)
{
	const struct insn *i = j->insn;
	int base = i->base == BASE_NONE ? HOST_NONE : jit_reg(i->base);
	int index = i->index == INDEX_NONE ? HOST_NONE : jit_reg(i->index);

	if (base == HOST_NONE && index == HOST_NONE) {
		emit_mov_imm32(&j->hot, R8, (uint32_t)i->disp & i->ad_mask);
		return R8;
	}
	if (index == HOST_NONE && !i->disp && i->adsize32 && !own)
		return base;
	emit_lea32(&j->hot, R8, base, index, i->scale, i->disp);
	if (!i->adsize32)
		emit_rr(&j->hot, OP_MOVZX16, R8, R8);
	return R8;
}

/* Segment limit and base: offset in `reg` to linear address in R8. */
static void apply_segment(struct jit *j, unsigned seg, int reg, enum mem_type type)
{
	struct emitter *e = &j->hot;
	int32_t limit = (int32_t)(offsetof(struct soft_cpu, jit.limit) +
				  (seg * 2 + (type == MEM_WRITE)) * sizeof(int64_t));
	int32_t base =
		(int32_t)(offsetof(struct soft_cpu, window) + seg * sizeof(struct segment_window) +
			  offsetof(struct segment_window, base));

	emit_rm(e, OP_LOAD | EMIT_W, RCX, R14, HOST_NONE, 0, limit);
	emit_lea64(e, RCX, RCX, reg, 0, 0);
	jit_shift(j, RCX, RCX, R9);
	jit_interpret_if_rcx_zero(j);
	emit_rm(e, OP_LOAD, RCX, R14, HOST_NONE, 0, base);
	emit_lea32(e, R8, RCX, reg, 0, 0);
}

/* What the table says of a linear address, into RCX. */
static void look_up(struct jit *j, int reg, unsigned log2, int32_t table)
{
	enum { PAGE_SHIFT = 12, DWORD = 2 };
	struct emitter *e = &j->hot;

	if (log2 == DWORD && !j->mode.window) {
		emit_rorx32(e, R9, reg, DWORD);
		emit_shift(e, EMIT_SHRX, false, R9, R9, R12);
	} else {
		emit_mov_imm32(e, RCX, PAGE_SHIFT - log2);
		if (log2)
			emit_rorx32(e, R9, reg, log2);
		emit_shift(e, EMIT_SHRX, false, R9, log2 ? R9 : reg, RCX);
	}
	emit_rm(e, OP_LOAD | EMIT_W, RCX, R13, R9, 3, table);
}

/* Where a miss goes first. */
static const uint8_t *closer_look_stub(struct jit *j, int reg, unsigned log2, bool write)
{
	const uint8_t *interpreter = jit_interpreter_stub(j), *stub = emit_exec(&j->cold);
	/* Behind the JRCXZ that leads here. */
	const uint8_t *resume = emit_exec(&j->hot) + 2;

	if (reg != R8)
		emit_mov32(&j->cold, R8, reg);
	emit_call(&j->cold, j->cache->thunks.closer_look[log2][write]);
	uint8_t *miss = emit_jrcxz(&j->cold);
	emit_jmp(&j->cold, resume);
	emit_here(&j->cold, miss);
	emit_jmp(&j->cold, interpreter);
	return stub;
}

bool jit_windowed(const struct jit *j, unsigned seg)
{
	enum { MASKMOV = 0x1F7 }; /* changes a register before it stores */

	return j->mode.window && !j->not_window && is_flat(j, seg) && j->insn->opcode != MASKMOV;
}

struct jit_place jit_place_at(struct jit *j, unsigned seg, int reg, int32_t disp, unsigned size,
			      enum mem_type type)
{
	if (jit_windowed(j, seg)) {
		j->window = true;
		return (struct jit_place){reg, R12, disp};
	}
	if (disp) {
		emit_lea32(&j->hot, R8, reg, HOST_NONE, 0, disp);
		reg = R8;
	}
	return (struct jit_place){jit_translate(j, seg, reg, size, type, false), RCX, 0};
}

struct jit_place jit_place(struct jit *j, unsigned size, enum mem_type type, bool own)
{
	const struct insn *i = j->insn;

	/* A base with a displacement needs no LEA: the window has the same pages again where their
	 * sum leaves 4 GiB. */
	if (!own && jit_windowed(j, i->seg) && i->adsize32 && i->base != BASE_NONE &&
	    i->index == INDEX_NONE)
		return jit_place_at(j, i->seg, jit_reg(i->base), i->disp, size, type);
	return jit_place_at(j, i->seg, offset_of(j, own), 0, size, type);
}

int jit_translate(struct jit *j, unsigned seg, int reg, unsigned size, enum mem_type type,
		  bool aligned)
{
	unsigned log2 = size <= 1 ? 0 : size <= 2 ? 1 : size <= 4 ? 2 : size <= 8 ? 3 : 4;
	bool write = type == MEM_WRITE;

	if (jit_windowed(j, seg)) {
		j->window = true;
		emit_rr(&j->hot, OP_STORE | EMIT_W, R12, RCX);
		return reg;
	}
	/* Long instructions have several. */
	jit_flush_pending(j, false);
	if (!is_flat(j, seg)) {
		apply_segment(j, seg, reg, type);
		reg = R8;
	}
	look_up(j, reg, log2, write ? JIT_WRITE : JIT_READ);
	/* FS and GS may reach to the end of 4 GiB from a base that is not 0: only aligned accesses
	 * are known not to wrap. */
	if ((!log2 && !write) || aligned || seg == S_FS || seg == S_GS)
		jit_interpret_if_rcx_zero(j);
	else
		jrcxz_to(j, closer_look_stub(j, reg, log2, write));
	return reg;
}

int jit_operand(struct jit *j, unsigned size, enum mem_type type, bool own, bool aligned)
{
	const struct insn *i = j->insn;
	int reg = offset_of(j, own);

	return jit_translate(j, i->seg, reg, size, type, aligned);
}
