/* SPDX-License-Identifier: MIT */
/*
 * MMX and SSE instructions in translated code: the same instruction on the same MM and XMM
 * registers, with the host's register for a general one and jit_operand() for memory.
 *
 * The table says of each opcode how many bytes a memory operand has, which way it goes, and which
 * of the two ModRM operands is a general register. Legacy SSE instructions demand that 16-byte
 * operands are aligned, with the known exceptions; a misaligned one is the interpreter's, to raise
 * #GP.
 *
 * Non-temporal stores become plain ones: theirs is a weaker order, which would have to be fenced
 * wherever another thread looks at guest memory.
 */
#include "cpu/sse_ext.h"
#include <stddef.h>

enum {
	BYTES = 0x1F,  /* 1, 2, 4, 8 or 16: of a memory operand */
	A = 1 << 5,    /* it must be aligned */
	W = 1 << 6,    /* it is written */
	GREG = 1 << 7, /* ModRM.reg is a general register */
	GRM = 1 << 8,  /* ModRM.rm is one, if not memory */
	MM = 1 << 9,   /* no XMM register takes part: whatever CR4.OSFXSR says */
	S1 = 1 << 10,  /* came with SSE; with neither: MMX */
	S2 = 1 << 11,  /* came with SSE2 */
	YES = 1 << 12, /* translated */

	P = YES | S1 | A | 16,  /* packed, SSE */
	P2 = YES | S2 | A | 16, /* packed, SSE2 */
	M = YES | MM | 8,       /* MMX */
	M1 = M | S1,
	M2 = M | S2,
};

/* By the opcode behind 0F, for each mandatory prefix. */
static const uint16_t without_prefix[256] = {
	[0x10] = YES | S1 | 16,
	[0x11] = YES | S1 | W | 16,
	[0x12] = YES | S1 | 8,
	[0x13] = YES | S1 | W | 8,
	[0x14] = P,
	[0x15] = P,
	[0x16] = YES | S1 | 8,
	[0x17] = YES | S1 | W | 8,
	[0x28] = P,
	[0x29] = P | W,
	[0x2A] = YES | S1 | 8, /* CVTPI2PS */
	[0x2B] = P | W,        /* MOVNTPS */
	[0x2C] = YES | S1 | 8,
	[0x2D] = YES | S1 | 8,
	[0x2E] = YES | S1 | 4,
	[0x2F] = YES | S1 | 4,
	[0x50] = P | GREG, /* MOVMSKPS */
	[0x51 ... 0x59] = P,
	[0x5A] = YES | S2 | 8, /* CVTPS2PD */
	[0x5B] = P2,
	[0x5C ... 0x5F] = P,
	[0x60 ... 0x62] = YES | MM | 4, /* PUNPCKL* */
	[0x63 ... 0x6B] = M,
	[0x6E] = YES | MM | GRM | 4, /* MOVD */
	[0x6F] = M,
	[0x70] = M1, /* PSHUFW */
	[0x71 ... 0x73] = M,
	[0x74 ... 0x77] = M,
	[0x7E] = YES | MM | GRM | W | 4, /* MOVD */
	[0x7F] = M | W,
	[0xC2] = P,
	[0xC4] = YES | MM | S1 | GRM | 2, /* PINSRW */
	[0xC5] = M1 | GREG,               /* PEXTRW */
	[0xC6] = P,
	[0xD1 ... 0xD3] = M,
	[0xD4] = M2, /* PADDQ */
	[0xD5] = M,
	[0xD7] = M1 | GREG, /* PMOVMSKB */
	[0xD8 ... 0xD9] = M,
	[0xDA] = M1,
	[0xDB ... 0xDD] = M,
	[0xDE] = M1,
	[0xDF] = M,
	[0xE0] = M1,
	[0xE1 ... 0xE2] = M,
	[0xE3 ... 0xE4] = M1,
	[0xE5] = M,
	[0xE7] = M1 | W, /* MOVNTQ */
	[0xE8 ... 0xE9] = M,
	[0xEA] = M1,
	[0xEB ... 0xED] = M,
	[0xEE] = M1,
	[0xEF] = M,
	[0xF1 ... 0xF3] = M,
	[0xF4] = M2, /* PMULUDQ */
	[0xF5] = M,
	[0xF6] = M1, /* PSADBW */
	[0xF7] = M1, /* MASKMOVQ */
	[0xF8 ... 0xFA] = M,
	[0xFB] = M2, /* PSUBQ */
	[0xFC ... 0xFE] = M,
};
static const uint16_t with_66[256] = {
	[0x10] = YES | S2 | 16,
	[0x11] = YES | S2 | W | 16,
	[0x12] = YES | S2 | 8,
	[0x13] = YES | S2 | W | 8,
	[0x14 ... 0x15] = P2,
	[0x16] = YES | S2 | 8,
	[0x17] = YES | S2 | W | 8,
	[0x28] = P2,
	[0x29] = P2 | W,
	[0x2A] = YES | S2 | 8, /* CVTPI2PD */
	[0x2B] = P2 | W,       /* MOVNTPD */
	[0x2C ... 0x2D] = P2,
	[0x2E ... 0x2F] = YES | S2 | 8,
	[0x50] = P2 | GREG,
	[0x51] = P2,
	[0x54 ... 0x6D] = P2,
	[0x6E] = YES | S2 | GRM | 4,
	[0x6F ... 0x76] = P2,
	[0x7E] = YES | S2 | GRM | W | 4,
	[0x7F] = P2 | W,
	[0xC2] = P2,
	[0xC4] = YES | S2 | GRM | 2,
	[0xC5] = P2 | GREG,
	[0xC6] = P2,
	[0xD1 ... 0xD5] = P2,
	[0xD6] = YES | S2 | W | 8,
	[0xD7] = P2 | GREG,
	[0xD8 ... 0xE6] = P2,
	[0xE7] = P2 | W, /* MOVNTDQ */
	[0xE8 ... 0xEF] = P2,
	[0xF1 ... 0xFE] = P2, /* F7: MASKMOVDQU */
};
static const uint16_t with_f3[256] = {
	[0x10] = YES | S1 | 4,
	[0x11] = YES | S1 | W | 4,
	[0x2A] = YES | S1 | GRM | 4,
	[0x2C ... 0x2D] = YES | S1 | GREG | 4,
	[0x51 ... 0x53] = YES | S1 | 4,
	[0x58 ... 0x59] = YES | S1 | 4,
	[0x5A] = YES | S2 | 4, /* CVTSS2SD */
	[0x5B] = P2,           /* CVTTPS2DQ */
	[0x5C ... 0x5F] = YES | S1 | 4,
	[0x6F] = YES | S2 | 16, /* MOVDQU */
	[0x70] = P2,
	[0x7E] = YES | S2 | 8,
	[0x7F] = YES | S2 | W | 16,
	[0xC2] = YES | S1 | 4,
	[0xD6] = P2,           /* MOVQ2DQ */
	[0xE6] = YES | S2 | 8, /* CVTDQ2PD */
};
static const uint16_t with_f2[256] = {
	[0x10] = YES | S2 | 8,
	[0x11] = YES | S2 | W | 8,
	[0x2A] = YES | S2 | GRM | 4,
	[0x2C ... 0x2D] = YES | S2 | GREG | 8,
	[0x51] = YES | S2 | 8,
	[0x58 ... 0x5A] = YES | S2 | 8,
	[0x5C ... 0x5F] = YES | S2 | 8,
	[0x70] = P2,
	[0xC2] = YES | S2 | 8,
	[0xD6] = P2, /* MOVDQ2Q */
	[0xE6] = P2, /* CVTPD2DQ */
};
static const uint16_t *const table[PFX_COUNT] = {
	[PFX_NONE] = without_prefix,
	[PFX_66] = with_66,
	[PFX_F3] = with_f3,
	[PFX_F2] = with_f2,
};

static const unsigned prefix_bits[PFX_COUNT] = {0, EMIT_66, EMIT_F3, EMIT_F2};

enum {
	OP_SHIFT_FIRST = 0x71,
	OP_SHIFT_LAST = 0x73,
	OP_EMMS = 0x77,
	OP_FX = 0xAE,
	OP_MOVNTI = 0xC3,
	OP_MASKMOV = 0xF7,
};

/* What stores the same without saying that the data will not be used again. */
static unsigned temporal(unsigned op, enum simd_prefix prefix)
{
	enum { MOVAPS = 0x29, MOVNTPS = 0x2B, MOVNTQ = 0xE7, MOVQ = 0x7F };

	if (op == MOVNTPS)
		return MOVAPS;
	return op == MOVNTQ && prefix <= PFX_66 ? MOVQ : op;
}

/* The instruction on its memory operand. */
static void emit_memory_op(struct jit *j, unsigned op, int reg, unsigned size, bool write,
			   bool aligned)
{
	enum mem_type type = write ? MEM_WRITE : MEM_READ;
	struct jit_place at;

	if (aligned && !jit_windowed(j, j->insn->seg))
		at = (struct jit_place){jit_operand(j, size, type, false, true), RCX, 0};
	else
		at = jit_place(j, size, type, false);
	jit_op(j, op, reg, at);
}

/* MASKMOVQ, MASKMOVDQU: to DS:EDI, which here is RDI. */
static bool emit_maskmov(struct jit *j, const struct insn *i, enum simd_prefix prefix)
{
	enum { MOV64 = OP_STORE | EMIT_W };
	struct emitter *e = &j->hot;
	int rdi = jit_reg(R_EDI), lin;

	if (!i->adsize32)
		return false;
	jit_need_fpu(j);
	jit_flush_pending(j, false);
	lin = jit_translate(j, i->seg, rdi, prefix == PFX_66 ? 16 : 8, MEM_WRITE, false);
	emit_rr(e, MOV64, rdi, R9);
	emit_lea64(e, rdi, lin, RCX, 0, 0);
	emit_rr(e, OP_MASKMOV | EMIT_0F | prefix_bits[prefix], i->reg, i->rm);
	emit_rr(e, MOV64, R9, rdi);
	emit_bytes(e, (const uint8_t[]){0x0F, 0xAE, 0xF8}, 3); /* SFENCE */
	return true;
}

/* 0F AE: MXCSR, CLFLUSH, fences; the rest is the interpreter's. */
static bool emit_state(struct jit *j, const struct insn *i)
{
	enum { LDMXCSR = 2, STMXCSR = 3, LFENCE = 5, SFENCE = 7, CLFLUSH = 7 };
	uint32_t edx = j->cpu->features_edx;

	if (!i->is_mem) {
		if (i->reg < LFENCE || !(edx & (i->reg == SFENCE ? CPUID_SSE : CPUID_SSE2)))
			return false;
		emit_bytes(&j->hot, (const uint8_t[]){0x0F, OP_FX, i->modrm}, 3);
		return true;
	}
	if (i->reg == CLFLUSH && edx & CPUID_CLFSH) {
		emit_memory_op(j, OP_MOVZX8, RCX, 1, false, false); /* it faults as a load does */
		return true;
	}
	if ((i->reg != LDMXCSR && i->reg != STMXCSR) || !(edx & CPUID_SSE) || !j->mode.sse)
		return false;
	jit_need_fpu(j);
	jit_flush_pending(j, false);
	if (i->reg == LDMXCSR) {
		jit_ldmxcsr(j);
	} else {
		emit_memory_op(j, OP_FX | EMIT_0F, STMXCSR, 4, true, false);
	}
	return true;
}

static bool emit_movnti(struct jit *j, const struct insn *i)
{
	if (!(j->cpu->features_edx & CPUID_SSE2))
		return false;
	emit_memory_op(j, OP_STORE, jit_reg(i->reg), 4, true, false);
	return true;
}

/* CRC32, whose operands are general registers. The upper halves of the first four as bytes are the
 * interpreter's. */
static bool emit_crc32(struct jit *j, const struct insn *i)
{
	enum { CRC_BYTE = 0x2F0, HIGH_BYTES = 4 };
	unsigned bytes = i->opcode == CRC_BYTE ? 1 : i->opsize32 ? 4 : 2;
	unsigned op = (i->opcode & 0xFF) | EMIT_0F38 | EMIT_F2 | (bytes == 2 ? EMIT_66 : 0);

	if (i->is_mem) {
		emit_memory_op(j, op, jit_reg(i->reg), bytes, false, false);
		return true;
	}
	if (bytes == 1 && i->rm >= HIGH_BYTES)
		return false;
	emit_rr(&j->hot, op, jit_reg(i->reg), jit_reg(i->rm));
	return true;
}

/* SSE3 and later. */
static bool emit_ext(struct jit *j, const struct insn *i)
{
	static const unsigned maps[] = {0, EMIT_0F, EMIT_0F38, EMIT_0F3A};
	unsigned how = 0, op = (i->opcode & 0xFF) | prefix_bits[simd_prefix_of(i)] |
			       maps[i->opcode >> 8 & 3];
	int rm;

	if (!(j->cpu->features_ecx & sse_ext_find(i, &how)))
		return false;
	if (how & EXT_CRC32)
		return emit_crc32(j, i);
	if (!(j->cpu->features_edx & (how & EXT_MMX ? CPUID_MMX : CPUID_SSE2)) ||
	    (!(how & EXT_MMX) && !j->mode.sse))
		return false;
	jit_need_fpu(j);
	if (i->is_mem) {
		jit_flush_pending(j, false);
		emit_memory_op(j, op, i->reg, how & EXT_BYTES, how & EXT_WRITE, how & EXT_ALIGNED);
	} else {
		rm = how & EXT_GENERAL ? jit_reg(i->rm) : i->rm;
		emit_rr(&j->hot, op, i->reg, rm);
	}
	if (simd_has_imm8(i->opcode))
		emit8(&j->hot, i->imm);
	if (how & EXT_TO_ECX)
		emit_mov32(&j->hot, jit_reg(R_ECX), RCX);
	return true;
}

bool jit_simd_insn(struct jit *j, const struct insn *i)
{
	enum simd_prefix prefix = simd_prefix_of(i);
	unsigned op = i->opcode & 0xFF, how = table[prefix][op], ext;
	unsigned host_op = temporal(op, prefix) | EMIT_0F | prefix_bits[prefix];
	int reg = how & GREG ? jit_reg(i->reg) : i->reg, rm = how & GRM ? jit_reg(i->rm) : i->rm;
	uint32_t feature = how & S2 ? CPUID_SSE2 : how & S1 ? CPUID_SSE : CPUID_MMX;

	/* An undefined instruction has another function. */
	if (i->opcode < 0x100 || simd_lookup(i) != i->exec)
		return false;
	if (sse_ext_find(i, &ext))
		return emit_ext(j, i);
	if (op == OP_FX)
		return emit_state(j, i);
	if (op == OP_MOVNTI)
		return emit_movnti(j, i);
	if (!(how & YES) || !(j->cpu->features_edx & feature) || (!(how & MM) && !j->mode.sse))
		return false;
	if (op == OP_MASKMOV)
		return emit_maskmov(j, i, prefix);
	jit_need_fpu(j);
	if (op == OP_EMMS) {
		emit8(&j->hot, 0x0F);
		emit8(&j->hot, OP_EMMS);
		return true;
	}
	if (i->is_mem) {
		jit_flush_pending(j, false);
		int lin =
			jit_operand(j, how & BYTES, how & W ? MEM_WRITE : MEM_READ, false, how & A);
		emit_rm(&j->hot, host_op, reg, lin, RCX, 0, 0);
	} else {
		emit_rr(&j->hot, host_op, reg, rm);
	}
	if (simd_has_imm8(i->opcode))
		emit8(&j->hot, i->imm);
	return true;
}
