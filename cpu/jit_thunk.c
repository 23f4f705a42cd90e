/* SPDX-License-Identifier: MIT */
/*
 * The code between C and translated code: entering it, calling out of it, and the closer look at
 * addresses that the tables do not settle. Written once when the code memory is made.
 */
#include "cpu/jit.h"
#include <stddef.h>

enum { OP_CMP_IMM8 = 0x80, OP_JE = 0x74, OP_RET = 0xC3, PAGE_SHIFT = 12 };

const int8_t jit_host_reg[8] = {RAX, R10, RDX, RBX, R15, RBP, RSI, RDI};

static const int8_t callee_saved[] = {RBX, RBP, R12, R13, R14, R15};

static void emit_push(struct emitter *e, int reg)
{
	emit_opcode(e, 0x50 | (unsigned)(reg & 7), 0, 0, reg);
}
static void emit_pop(struct emitter *e, int reg)
{
	emit_opcode(e, 0x58 | (unsigned)(reg & 7), 0, 0, reg);
}
/* ADD RSP, n: changes the flags. */
static void emit_add_rsp(struct emitter *e, int n)
{
	emit_rr(e, 0x83 | EMIT_W, 0, RSP);
	emit8(e, (unsigned)n);
}

/* A jump over what follows unless a byte of soft_cpu has that value; returns its rel32, for
 * emit_here32(). */
static uint8_t *emit_skip_unless(struct emitter *e, int32_t field, unsigned value)
{
	emit_rm(e, OP_CMP_IMM8, 7, R14, HOST_NONE, 0, field);
	emit8(e, value);
	/* What is skipped is longer than a short jump reaches: jump around a near one. */
	emit8(e, OP_JE);
	emit8(e, 5);
	emit8(e, 0xE9);
	emit32(e, 0);
	return e->at - 4;
}
static void emit_here32(struct emitter *e, uint8_t *rel32)
{
	store_le32(rel32, (uint32_t)(e->at - (rel32 + 4)));
}

/* Loads the guest's registers and goes to the address in RAX. */
static void emit_restore(struct emitter *e)
{
	emit_push(e, RAX);
	uint8_t *skip = emit_skip_unless(e, JIT_CPU(jit.fpu_load), true);
	jit_emit_fpu_load(e);
	emit_here32(e, skip);
	emit_pop(e, RCX);
	/* OF from AL (1 + 127 overflows), the others from AH. */
	emit_rm(e, OP_LOAD, RAX, R14, HOST_NONE, 0, JIT_CPU(jit.flags));
	emit8(e, 0x04);
	emit8(e, 127);
	emit8(e, 0x9E); /* SAHF */
	for (unsigned n = 0; n < 8; n++)
		emit_rm(e, OP_LOAD, jit_reg(n), R14, HOST_NONE, 0, JIT_CPU(gpr) + 4 * (int32_t)n);
	emit_rm(e, OP_LOAD | EMIT_W, R11, R14, HOST_NONE, 0, JIT_CPU(jit.count));
	emit_rm(e, OP_LOAD | EMIT_W, R13, R14, HOST_NONE, 0, JIT_CPU(jit.current));
	emit_rm(e, OP_LOAD | EMIT_W, R12, R14, HOST_NONE, 0, JIT_CPU(jit.r12));
	emit_rr(e, 0xFF, 4, RCX); /* JMP */
}

static void emit_callout(struct emitter *e, const uint8_t *restore)
{
	emit_pop(e, R9); /* the site */
	for (unsigned n = 0; n < 8; n++)
		emit_rm(e, OP_STORE, jit_reg(n), R14, HOST_NONE, 0, JIT_CPU(gpr) + 4 * (int32_t)n);
	emit8(e, 0x9F);                     /* LAHF */
	emit_rr(e, 0x90 | EMIT_0F, 0, RAX); /* SETO AL */
	emit_rm(e, OP_STORE, RAX, R14, HOST_NONE, 0, JIT_CPU(jit.flags));
	emit_rm(e, OP_STORE | EMIT_W, R11, R14, HOST_NONE, 0, JIT_CPU(jit.count));
	emit_rm(e, OP_STORE, R8, R14, HOST_NONE, 0, JIT_CPU(jit.arg));
	emit_push(e, R9);
	uint8_t *skip = emit_skip_unless(e, JIT_CPU(jit.fpu), JIT_FPU_LIVE);
	jit_emit_fpu_save(e);
	emit_here32(e, skip);
	emit_pop(e, RSI);
	emit_rr(e, OP_STORE | EMIT_W, R14, RDI);
	emit_mov_imm64(e, RAX, (uintptr_t)jit_callout);
	emit_rr(e, 0xFF, 2, RAX);
	emit_rr(e, 0x85 | EMIT_W, RAX, RAX);
	emit8(e, OP_JE);
	emit8(e, 5);
	emit_jmp(e, restore);
	emit_add_rsp(e, 8);
	for (int n = sizeof(callee_saved) - 1; n >= 0; n--)
		emit_pop(e, callee_saved[n]);
	emit8(e, 0xC3);
}

static void emit_enter(struct emitter *e, const uint8_t *restore)
{
	for (unsigned n = 0; n < sizeof(callee_saved); n++)
		emit_push(e, callee_saved[n]);
	emit_add_rsp(e, -8);
	emit_rr(e, OP_STORE | EMIT_W, RDI, R14);
	emit_rr(e, OP_STORE | EMIT_W, RSI, RAX);
	emit_jmp(e, restore);
}

/*
 * R8D is an address that the table has no entry for. If the entries of the pages of its first and
 * last byte are equal, both pages are one or lie behind each other in host memory too: RCX is the
 * delta then and the thunk returns; otherwise RCX is 0.
 */
static void emit_misaligned(struct emitter *e, unsigned size, int32_t table)
{
	emit_lea32(e, R9, R8, HOST_NONE, 0, (int32_t)size - 1);
	emit_mov_imm32(e, RCX, PAGE_SHIFT);
	emit_shift(e, EMIT_SHRX, false, R9, R9, RCX);
	emit_shift(e, EMIT_SHRX, false, RCX, R8, RCX);
	emit_rm(e, OP_LOAD | EMIT_W, RCX, R13, RCX, 3, table);
	emit_rm(e, OP_LOAD | EMIT_W, R9, R13, R9, 3, table);
	uint8_t *none = emit_jrcxz(e);
	emit_not64(e, R9);
	emit_lea64(e, R9, R9, RCX, 0, 1);
	emit_rr(e, 0x87 | EMIT_W, RCX, R9); /* XCHG */
	uint8_t *equal = emit_jrcxz(e);
	emit_mov_imm32(e, RCX, 0);
	uint8_t *out = emit_jmp_short(e);
	emit_here(e, equal);
	emit_rr(e, OP_STORE | EMIT_W, R9, RCX);
	emit8(e, OP_RET);
	emit_here(e, none);
	emit_here(e, out);
}

/*
 * A store at R8D to a page with code: if no code lies on its granule of 64 bytes, RCX becomes the
 * delta, otherwise 0. A misaligned one might touch two.
 */
static void emit_beside_code(struct emitter *e, unsigned log2)
{
	enum { GRANULE_SHIFT = 6, TOP_BIT = 63 };
	uint8_t *unknown;

	if (log2) {
		emit_mov_imm32(e, RCX, TOP_BIT + 1 - log2);
		emit_shift(e, EMIT_SHLX, true, RCX, R8, RCX);
		uint8_t *aligned = emit_jrcxz(e);
		emit_mov_imm32(e, RCX, 0);
		emit8(e, OP_RET);
		emit_here(e, aligned);
	}
	emit_push(e, R10);
	emit_mov_imm32(e, RCX, PAGE_SHIFT);
	emit_shift(e, EMIT_SHRX, false, R9, R8, RCX);
	emit_lea64(e, R9, R9, R9, 0, 0);
	emit_rm(e, OP_LOAD | EMIT_W, RCX, R13, R9, 3, JIT_CODE);
	unknown = emit_jrcxz(e);
	emit_rm(e, OP_LOAD | EMIT_W, R10, RCX, HOST_NONE, 0, 0);
	emit_mov_imm32(e, RCX, GRANULE_SHIFT);
	emit_shift(e, EMIT_SHRX, false, RCX, R8, RCX);
	emit_shift(e, EMIT_SHRX, true, R10, R10, RCX);
	emit_mov_imm32(e, RCX, TOP_BIT);
	emit_shift(e, EMIT_SHLX, true, RCX, R10, RCX);
	uint8_t *clean = emit_jrcxz(e);
	emit_mov_imm32(e, RCX, 0);
	uint8_t *out = emit_jmp_short(e);
	emit_here(e, clean);
	emit_rm(e, OP_LOAD | EMIT_W, RCX, R13, R9, 3, JIT_CODE + JIT_ENTRY);
	emit_here(e, unknown);
	emit_here(e, out);
	emit_pop(e, R10);
	emit8(e, OP_RET);
}

static void emit_closer_look(struct emitter *e, unsigned log2, bool write)
{
	if (log2)
		emit_misaligned(e, 1u << log2, write ? JIT_WRITE : JIT_READ);
	if (write) {
		emit_beside_code(e, log2);
	} else {
		emit_mov_imm32(e, RCX, 0);
		emit8(e, OP_RET);
	}
}

void jit_emit_thunks(struct emitter *e, struct jit_thunks *t)
{
	const uint8_t *restore = emit_exec(e);

	emit_restore(e);
	t->callout = emit_exec(e);
	emit_callout(e, restore);
	t->enter = (void (*)(struct soft_cpu *, const uint8_t *))(uintptr_t)emit_exec(e);
	emit_enter(e, restore);
	for (unsigned n = 0; n < ARRAY_SIZE(t->closer_look); n++) {
		for (unsigned write = 0; write < 2; write++) {
			t->closer_look[n][write] = emit_exec(e);
			emit_closer_look(e, n, write);
		}
	}
}
