/* SPDX-License-Identifier: MIT */
/*
 * What instructions do to the arithmetic flags (SDM vol. 1, appendix A; the instructions' pages in
 * vol. 2), for the lock-step mode: which flags each reads, defines and leaves undefined. Of shifts
 * that depends on the count, of repeated string instructions on ECX. And which instructions the
 * lock-step mode cannot take back: those that change segments, modes or the interrupt flag, or
 * reach devices.
 */
#include "cpu/jit_effect.h"
#include "cpu/ops.h"

enum { FL_ALL = FL_ARITH, FL_NOT_CF = FL_ARITH & ~FL_CF };
/* insn.opcode of 0F xx, 0F 38 xx, 0F 3A xx. */
enum { TWO_BYTE = 0x100, THREE_BYTE_38 = 0x200, THREE_BYTE_3A = 0x300 };

static const struct jit_effect logic = {.defines = FL_ALL & ~FL_AF, .undefines = FL_AF};
static const struct jit_effect all = {.defines = FL_ALL}, none;
static const struct jit_effect product = {.defines = FL_CF | FL_OF,
					  .undefines = FL_ALL & ~(FL_CF | FL_OF)};

static struct jit_effect arithmetic(unsigned which)
{
	enum { OR = 1, ADC = 2, SBB = 3, AND = 4, XOR = 6 };
	struct jit_effect carry = {.reads = FL_CF, .defines = FL_ALL};

	if (which == OR || which == AND || which == XOR)
		return logic;
	return which == ADC || which == SBB ? carry : all;
}

static struct jit_effect shift(const struct soft_cpu *c, const struct insn *i)
{
	enum { RCL = 2, RCR = 3, SHL = 4, SAR = 7, COUNT = 31 };
	bool by_cl = i->opcode == 0xD2 || i->opcode == 0xD3, byte = !(i->opcode & 1);
	unsigned bits = byte ? 8 : i->opsize32 ? 32 : 16;
	unsigned count = i->opcode == 0xD0 || i->opcode == 0xD1 ? 1
			 : by_cl                                ? c->gpr[R_ECX] & COUNT
								: i->imm & COUNT;
	struct jit_effect e = {0};

	if (i->reg == RCL || i->reg == RCR)
		e.reads = FL_CF;
	if (!count)
		return e;
	if (i->reg < SHL) {
		if (!((i->reg == RCL || i->reg == RCR) && count % (bits + 1) == 0))
			e.defines = FL_CF;
	} else {
		e.defines = FL_SF | FL_ZF | FL_PF;
		e.undefines = FL_AF;
		*(i->reg != SAR && count >= bits ? &e.undefines : &e.defines) |= FL_CF;
	}
	*(count == 1 ? &e.defines : &e.undefines) |= FL_OF;
	return e;
}

static struct jit_effect shift_double(const struct soft_cpu *c, const struct insn *i)
{
	unsigned count = (i->opcode & 1 ? c->gpr[R_ECX] : i->imm) & 31;
	struct jit_effect e = {.defines = FL_ALL & ~(FL_AF | FL_OF), .undefines = FL_AF};

	if (!count)
		return (struct jit_effect){0};
	if (!i->opsize32 && count > 16)
		return (struct jit_effect){.reads = JIT_NO_REHEARSAL}; /* undefined altogether */
	*(count == 1 ? &e.defines : &e.undefines) |= FL_OF;
	return e;
}

static uint32_t condition_flags(unsigned cc)
{
	static const uint32_t flags[8] = {FL_OF, FL_CF, FL_ZF,         FL_CF | FL_ZF,
					  FL_SF, FL_PF, FL_SF | FL_OF, FL_SF | FL_OF | FL_ZF};
	return flags[cc >> 1 & 7];
}

/* What is not taken back by restoring registers and memory: segments, modes, ports, interrupts. */
static bool is_final(const struct insn *i)
{
	enum { CALL_FAR = 3, JMP_FAR = 5 };

	switch (i->opcode) {
	case 0x07: /* POP ES, SS, DS */
	case 0x17:
	case 0x1F:
	case 0x6C ... 0x6F: /* INS OUTS */
	case 0x8E:          /* MOV Sreg */
	case 0x9A:          /* CALL far */
	case 0x9D:          /* POPF */
	case 0xC4:          /* LES LDS */
	case 0xC5:
	case 0xCA ... 0xCF: /* RETF INT INTO IRET */
	case 0xE4 ... 0xE7: /* IN OUT */
	case 0xEC ... 0xEF:
	case 0xEA: /* JMP far */
	case 0xF1: /* INT1 */
	case 0xF4: /* HLT */
	case 0xFA: /* CLI STI */
	case 0xFB:
	case TWO_BYTE + 0x00 ... TWO_BYTE + 0x0F: /* system tables, CLTS, cache control, #UD */
	case TWO_BYTE + 0x20 ... TWO_BYTE + 0x23: /* MOV CRn, DRn */
	case TWO_BYTE + 0x30 ... TWO_BYTE + 0x3F: /* MSRs, counters, SYSENTER */
	case TWO_BYTE + 0xA1:                     /* POP FS, GS */
	case TWO_BYTE + 0xA9:
	case TWO_BYTE + 0xAA: /* RSM */
	case TWO_BYTE + 0xB2: /* LSS LFS LGS */
	case TWO_BYTE + 0xB4:
	case TWO_BYTE + 0xB5: return true;
	case 0xFF: return i->reg == CALL_FAR || i->reg == JMP_FAR;
	default: return i->exec == op_pause;
	}
}

/* F6 and F7: TEST NOT NEG MUL IMUL DIV IDIV. */
static struct jit_effect unary(unsigned which)
{
	enum { NOT = 2, NEG = 3, MUL = 4, IMUL = 5 };

	if (which < NOT)
		return logic;
	if (which == NOT)
		return none;
	if (which == NEG)
		return all;
	if (which == MUL || which == IMUL)
		return product;
	return (struct jit_effect){.undefines = FL_ALL};
}

/* DB and DF: FCMOVcc read flags, FCOMI and the like write them. */
static struct jit_effect x87(const struct insn *i)
{
	enum { UCOMI = 5, COMI = 6, CMOV_END = 4 };

	if (i->is_mem)
		return none;
	if (i->reg == UCOMI || i->reg == COMI)
		return all;
	return (struct jit_effect){.reads = i->reg < CMOV_END ? FL_CF | FL_ZF | FL_PF : 0};
}

static struct jit_effect one_byte(const struct soft_cpu *c, const struct insn *i)
{
	enum { DEC = 1 };
	unsigned op = i->opcode;

	if (op < 0x40 && (op & 7) < 6)
		return arithmetic(op >> 3);
	switch (op) {
	case 0x27: /* DAA DAS */
	case 0x2F: return (struct jit_effect){FL_AF | FL_CF, FL_ALL & ~FL_OF, FL_OF};
	case 0x37: /* AAA AAS */
	case 0x3F: return (struct jit_effect){FL_AF, FL_AF | FL_CF, FL_ALL & ~(FL_AF | FL_CF)};
	case 0x40 ... 0x4F: return (struct jit_effect){.defines = FL_NOT_CF}; /* INC DEC */
	case 0x63: return (struct jit_effect){.defines = FL_ZF};              /* ARPL */
	case 0x69:                                                            /* IMUL */
	case 0x6B: return product;
	case 0x70 ... 0x7F: return (struct jit_effect){.reads = condition_flags(op)};
	case 0x80 ... 0x83: return arithmetic(i->reg);
	case 0x84: /* TEST */
	case 0x85:
	case 0xA8:
	case 0xA9: return logic;
	case 0x9C: return (struct jit_effect){.reads = FL_ALL};            /* PUSHF */
	case 0x9E: return (struct jit_effect){.defines = FL_ALL & ~FL_OF}; /* SAHF */
	case 0x9F: return (struct jit_effect){.reads = FL_ALL & ~FL_OF};   /* LAHF */
	case 0xA6:                                                         /* CMPS SCAS */
	case 0xA7:
	case 0xAE:
	case 0xAF: return i->rep && !(c->gpr[R_ECX] & i->ad_mask) ? none : all;
	case 0xC0:
	case 0xC1:
	case 0xD0 ... 0xD3: return shift(c, i);
	case 0xD4: /* AAM AAD */
	case 0xD5: return (struct jit_effect){0, FL_SF | FL_ZF | FL_PF, FL_OF | FL_AF | FL_CF};
	case 0xD6: return (struct jit_effect){.reads = FL_CF}; /* SALC */
	case 0xDA: return (struct jit_effect){.reads = i->is_mem ? 0 : FL_CF | FL_ZF | FL_PF};
	case 0xDB:
	case 0xDF: return x87(i);
	case 0xE0: /* LOOPNE LOOPE */
	case 0xE1: return (struct jit_effect){.reads = FL_ZF};
	case 0xF5: return (struct jit_effect){FL_CF, FL_CF, 0}; /* CMC */
	case 0xF8:                                              /* CLC STC */
	case 0xF9: return (struct jit_effect){.defines = FL_CF};
	case 0xF6:
	case 0xF7: return unary(i->reg);
	case 0xFE:
	case 0xFF: return (struct jit_effect){.defines = i->reg <= DEC ? FL_NOT_CF : 0};
	default: return none;
	}
}

static struct jit_effect two_byte(const struct soft_cpu *c, const struct insn *i)
{
	unsigned op = i->opcode - TWO_BYTE;

	switch (op) {
	case 0x2E: /* UCOMISS COMISS CMPXCHG XADD */
	case 0x2F:
	case 0xB0:
	case 0xB1:
	case 0xC0:
	case 0xC1: return all;
	case 0x40 ... 0x4F:
	case 0x80 ... 0x8F:
	case 0x90 ... 0x9F: return (struct jit_effect){.reads = condition_flags(op)};
	case 0xA3: /* BT BTS BTR BTC */
	case 0xAB:
	case 0xB3:
	case 0xBA:
	case 0xBB: return (struct jit_effect){0, FL_CF, FL_OF | FL_SF | FL_AF | FL_PF};
	case 0xA4:
	case 0xA5:
	case 0xAC:
	case 0xAD: return shift_double(c, i);
	case 0xAF: return product;
	case 0xB8: return all; /* POPCNT */
	case 0xBC:             /* BSF BSR */
	case 0xBD: return (struct jit_effect){0, FL_ZF, FL_ALL & ~FL_ZF};
	case 0xC7: return (struct jit_effect){.defines = FL_ZF}; /* CMPXCHG8B */
	default: return none;
	}
}

struct jit_effect jit_effect_of(const struct soft_cpu *c, const struct insn *i)
{
	if (is_final(i))
		return (struct jit_effect){.reads = JIT_NO_REHEARSAL};
	if (i->opcode < TWO_BYTE)
		return one_byte(c, i);
	if (i->opcode < THREE_BYTE_38)
		return two_byte(c, i);
	switch (i->opcode) {
	case THREE_BYTE_38 + 0x17: /* PTEST, PCMPxSTRx */
	case THREE_BYTE_3A + 0x60 ... THREE_BYTE_3A + 0x63: return all;
	default: return none;
	}
}

bool jit_effect_on_fpu(const struct insn *i)
{
	unsigned op = i->opcode;

	if (op < 0x100)
		return (op >= 0xD8 && op <= 0xDF) || op == 0x9B;
	return !((op >= 0x140 && op <= 0x14F) || (op >= 0x180 && op <= 0x1AD) ||
		 (op >= 0x1AF && op <= 0x1C1) || op >= 0x1C7) ||
	       op >= 0x1D0;
}
