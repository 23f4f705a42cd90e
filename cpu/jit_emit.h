/* SPDX-License-Identifier: MIT */
/*
 * x86-64 machine code, an instruction at a time (SDM vol. 2A, chapter 2: REX, ModRM, SIB, VEX).
 *
 * A struct emitter writes through a writable view of the code memory and knows where the same bytes
 * are executed; every address that code holds is of the executable view.
 */
#ifndef CPU_JIT_EMIT_H
#define CPU_JIT_EMIT_H

#include "lib/bytes.h"
#include <stdbool.h>
#include <stdint.h>

enum host_reg {
	RAX,
	RCX,
	RDX,
	RBX,
	RSP,
	RBP,
	RSI,
	RDI,
	R8,
	R9,
	R10,
	R11,
	R12,
	R13,
	R14,
	R15,
	HOST_NONE = -1
};

struct emitter {
	uint8_t *at;       /* in the writable view */
	uint8_t *end;      /* writes behind it are dropped, and `full` is set */
	intptr_t exec_off; /* executable address - writable address */
	bool full;
};

static inline uint8_t *emit_exec(const struct emitter *e)
{
	return e->at + e->exec_off;
}
static inline void emit_bytes(struct emitter *e, const void *bytes, unsigned n)
{
	if ((size_t)(e->end - e->at) < n) {
		e->full = true;
		return;
	}
	memcpy(e->at, bytes, n);
	e->at += n;
}
static inline void emit8(struct emitter *e, unsigned v)
{
	uint8_t b = (uint8_t)v;
	emit_bytes(e, &b, 1);
}
static inline void emit32(struct emitter *e, uint32_t v)
{
	emit_bytes(e, &v, 4);
}
static inline void emit64(struct emitter *e, uint64_t v)
{
	emit_bytes(e, &v, 8);
}

/*
 * How an opcode is encoded: ored to the opcode byte. EMIT_BYTE: the register operands are bytes, so
 * SPL..DIL (4..7) need a REX prefix; without it 4..7 are AH CH DH BH.
 */
enum {
	EMIT_W = 1 << 8,
	EMIT_66 = 1 << 9,
	EMIT_F2 = 1 << 10,
	EMIT_F3 = 1 << 11,
	EMIT_0F = 1 << 12,
	EMIT_0F38 = 1 << 13,
	EMIT_0F3A = 1 << 14,
	EMIT_LOCK = 1 << 15,
};

/* Opcodes that are needed all over. */
enum {
	OP_STORE = 0x89, /* MOV r/m, reg */
	OP_LOAD = 0x8B,  /* MOV reg, r/m */
	OP_MOVZX8 = 0xB6 | EMIT_0F,
	OP_MOVZX16 = 0xB7 | EMIT_0F,
};

static inline void emit_opcode(struct emitter *e, unsigned op, int reg, int index, int base)
{
	unsigned rex = (op & EMIT_W ? 8 : 0) | (reg > 7 ? 4 : 0) | (index > 7 ? 2 : 0) |
		       (base > 7 ? 1 : 0);

	if (op & EMIT_LOCK)
		emit8(e, 0xF0);
	if (op & EMIT_66)
		emit8(e, 0x66);
	if (op & EMIT_F2)
		emit8(e, 0xF2);
	if (op & EMIT_F3)
		emit8(e, 0xF3);
	if (rex)
		emit8(e, 0x40 | rex);
	if (op & (EMIT_0F | EMIT_0F38 | EMIT_0F3A))
		emit8(e, 0x0F);
	if (op & EMIT_0F38)
		emit8(e, 0x38);
	if (op & EMIT_0F3A)
		emit8(e, 0x3A);
	emit8(e, op & 0xFF);
}

/* op reg, rm: both registers (or `reg` a digit). */
static inline void emit_rr(struct emitter *e, unsigned op, int reg, int rm)
{
	emit_opcode(e, op, reg, 0, rm);
	emit8(e, 0xC0 | (unsigned)(reg & 7) << 3 | (unsigned)(rm & 7));
}

/* op reg, [base + index << scale + disp]; base and index may be HOST_NONE. */
static inline void emit_rm(struct emitter *e, unsigned op, int reg, int base, int index,
			   unsigned scale, int32_t disp)
{
	enum { SIB = 4, NO_INDEX = 4, NO_BASE = 5 };
	unsigned modrm_reg = (unsigned)(reg & 7) << 3, mod;

	emit_opcode(e, op, reg, index, base);
	if (base == HOST_NONE) {
		emit8(e, modrm_reg | SIB);
		emit8(e, scale << 6 | (index == HOST_NONE ? NO_INDEX : (unsigned)index & 7) << 3 |
				 NO_BASE);
		emit32(e, (uint32_t)disp);
		return;
	}
	/* RBP and R13 as a base without displacement mean something else. */
	mod = disp == 0 && (base & 7) != NO_BASE ? 0 : disp == (int8_t)disp ? 1 : 2;
	if (index != HOST_NONE || (base & 7) == SIB) {
		emit8(e, mod << 6 | modrm_reg | SIB);
		emit8(e, scale << 6 | (index == HOST_NONE ? NO_INDEX : (unsigned)index & 7) << 3 |
				 (unsigned)(base & 7));
	} else {
		emit8(e, mod << 6 | modrm_reg | (unsigned)(base & 7));
	}
	if (mod == 1)
		emit8(e, (uint32_t)disp);
	else if (mod == 2)
		emit32(e, (uint32_t)disp);
}

/* Moves that leave the flags alone. */
static inline void emit_mov32(struct emitter *e, int to, int from)
{
	emit_rr(e, 0x89, from, to);
}
static inline void emit_mov_imm32(struct emitter *e, int to, uint32_t v)
{
	emit_opcode(e, 0xB8 | (unsigned)(to & 7), 0, 0, to);
	emit32(e, v);
}
static inline void emit_mov_imm64(struct emitter *e, int to, uint64_t v)
{
	emit_opcode(e, 0xB8 | (unsigned)(to & 7) | EMIT_W, 0, 0, to);
	emit64(e, v);
}
static inline void emit_lea32(struct emitter *e, int to, int base, int index, unsigned scale,
			      int32_t disp)
{
	emit_rm(e, 0x8D, to, base, index, scale, disp);
}
static inline void emit_lea64(struct emitter *e, int to, int base, int index, unsigned scale,
			      int32_t disp)
{
	emit_rm(e, 0x8D | EMIT_W, to, base, index, scale, disp);
}
/* NOT is the one arithmetic instruction that leaves the flags alone. */
static inline void emit_not64(struct emitter *e, int reg)
{
	emit_rr(e, 0xF7 | EMIT_W, 2, reg);
}

/* BMI2 shifts, which leave the flags alone (SDM vol. 2B: RORX, SARX/SHLX/SHRX). */
static inline void emit_vex3(struct emitter *e, int reg, int base, unsigned map, bool w,
			     unsigned vvvv, unsigned pp)
{
	emit8(e, 0xC4);
	emit8(e, (reg > 7 ? 0 : 0x80u) | 0x40u | (base > 7 ? 0 : 0x20u) | map);
	emit8(e, (w ? 0x80u : 0) | (~vvvv & 15) << 3 | pp);
}
static inline void emit_rorx32(struct emitter *e, int to, int from, unsigned count)
{
	emit_vex3(e, to, from, 3, false, 0, 3);
	emit8(e, 0xF0);
	emit8(e, 0xC0 | (unsigned)(to & 7) << 3 | (unsigned)(from & 7));
	emit8(e, count);
}
/* The bits of `from` under `mask`, side by side. */
static inline void emit_pext32(struct emitter *e, int to, int from, int mask)
{
	emit_vex3(e, to, mask, 2, false, (unsigned)from, 2);
	emit8(e, 0xF5);
	emit8(e, 0xC0 | (unsigned)(to & 7) << 3 | (unsigned)(mask & 7));
}
enum shift_by_reg { EMIT_SHLX = 1, EMIT_SARX = 2, EMIT_SHRX = 3 }; /* the VEX pp field */
static inline void emit_shift(struct emitter *e, enum shift_by_reg kind, bool w, int to, int from,
			      int count)
{
	emit_vex3(e, to, from, 2, w, (unsigned)count, kind);
	emit8(e, 0xF7);
	emit8(e, 0xC0 | (unsigned)(to & 7) << 3 | (unsigned)(from & 7));
}

/* Jumps and calls to an executable address within 2 GiB. */
static inline void emit_rel32(struct emitter *e, const uint8_t *target)
{
	emit32(e, (uint32_t)(target - (emit_exec(e) + 4)));
}
static inline void emit_jmp(struct emitter *e, const uint8_t *target)
{
	emit8(e, 0xE9);
	emit_rel32(e, target);
}
static inline void emit_call(struct emitter *e, const uint8_t *target)
{
	emit8(e, 0xE8);
	emit_rel32(e, target);
}
/* A short jump whose target comes later: returns where its rel8 is, for emit_here(). */
static inline uint8_t *emit_jrcxz(struct emitter *e)
{
	emit8(e, 0xE3);
	emit8(e, 0);
	return e->at - 1;
}
static inline uint8_t *emit_jmp_short(struct emitter *e)
{
	emit8(e, 0xEB);
	emit8(e, 0);
	return e->at - 1;
}
static inline void emit_here(struct emitter *e, uint8_t *rel8)
{
	*rel8 = (uint8_t)(e->at - (rel8 + 1));
}

#endif
