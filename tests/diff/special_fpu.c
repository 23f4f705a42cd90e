/* SPDX-License-Identifier: MIT */
/*
 * x87, MMX and SSE instructions that are more than a row: all the register forms of the x87, its
 * state stored and loaded, control words, and SIMD opcodes under prefixes that do not belong to
 * them.
 */
#include "tests/diff/special.h"

/* Every register form of the x87 that is defined, except those that wait for nothing here. */
void emit_x87_reg(void)
{
	unsigned op, modrm;

	for (;;) {
		op = 0xD8 + random_below(8);
		modrm = 0xC0 + random_below(64);
		unsigned reg = modrm >> 3 & 7, rm = modrm & 7;
		bool bad = false;

		switch (op) {
		case 0xD9:
			bad = (reg == 2 && rm != 0) || modrm == 0xE2 || modrm == 0xE3 ||
			      modrm == 0xE6 || modrm == 0xE7 || modrm == 0xEF;
			break;
		case 0xDA: bad = reg >= 4 && modrm != 0xE9; break;
		case 0xDB:
			bad = reg == 7 ||
			      (reg == 4 && modrm != 0xE2 && modrm != 0xE3 && modrm > 0xE4);
			break;
		case 0xDD: bad = reg >= 6; break;
		case 0xDE: bad = reg == 3 && modrm != 0xD9; break;
		case 0xDF: bad = (reg == 4 && rm != 0) || reg == 7; break;
		}
		if (!bad || chance(1))
			break;
	}
	begin(0);
	emit8(op);
	emit8(modrm);
}

/* FNCLEX; or FNINIT, so often. */
void emit_x87_clear(unsigned percent_init)
{
	begin(0);
	emit8(0xDB);
	emit8(percent_init && chance(percent_init) ? 0xE3 : 0xE2);
}

void emit_fldcw(void)
{
	emit_with_dword(random_control_word() | (chance(10) ? random32() : 0), 0, 0xD9, 5);
}

void emit_ldmxcsr(void)
{
	enum { RESERVED_BIT = 0x10000 };

	emit_with_dword(random_mxcsr() | (chance(2) ? RESERVED_BIT : 0), 0x0F, 0xAE, 2);
}

/* What is stored of the instruction's pointers and opcode is overwritten. */
void emit_x87_state(uint32_t at)
{
	enum { FNSTENV, FNSAVE, FXSAVE, KINDS };
	static const struct {
		uint8_t map, op, save, load;
		uint32_t ignored[2]; /* bytes, with 32-bit and 16-bit operand size */
	} kinds[KINDS] = {
		[FNSTENV] = {0, 0xD9, 6, 4, {0x0FFF0000, 0x3F00}},
		[FNSAVE] = {0, 0xDD, 6, 4, {0x0FFF0000, 0x3F00}},
		[FXSAVE] = {0x0F, 0xAE, 0, 1, {0x00FFF0C0, 0x00FFF0C0}},
	};
	unsigned k = random_below(KINDS);
	bool word = k != FXSAVE && chance(30);

	if (k == FXSAVE)
		at &= ~15u;
	begin(0);
	out->insn[out->count - 1].env = (uint16_t)(at - DATA_BASE);
	out->insn[out->count - 1].env_bytes = kinds[k].ignored[word];
	for (unsigned pass = 0; pass < 2; pass++) {
		if (word)
			emit8(0x66);
		if (kinds[k].map)
			emit8(kinds[k].map);
		emit8(kinds[k].op);
		emit8((pass ? kinds[k].load : kinds[k].save) << 3 | 5);
		emit32(at);
		if (pass)
			break;
		for (unsigned n = 0; n < 32; n += 2)
			if (kinds[k].ignored[word] >> n & 1) {
				begin(0);
				emit8(0x66); /* MOV word [at + n], 0 */
				emit8(0xC7);
				emit8(0x05);
				emit32(at + n);
				emit16(0);
			}
		if (chance(50))
			emit_x87_reg();
		begin(0);
	}
}

/* An MMX or SSE opcode with any prefixes: mostly #UD. Not what SSE3 and later made of such
 * combinations. */
void emit_odd_simd(void)
{
	static const uint8_t prefixes[][3] = {{0},          {0x66},       {0xF2},
					      {0xF3},       {0x66, 0xF2}, {0x66, 0xF3},
					      {0xF2, 0xF3}, {0xF3, 0xF2}};
	const uint8_t *prefix = prefixes[random_below(8)];
	unsigned op;

	do {
		op = chance(50) ? 0x10 + random_below(0x70) : 0xC2 + random_below(0x3D);
	} while ((op >= 0x18 && op < 0x28) || (op >= 0x30 && op < 0x50) || op == 0x12 ||
		 op == 0x16 || op == 0x78 || op == 0x79 || op == 0x7C || op == 0x7D || op == 0xD0 ||
		 op == 0xF0 || (op >= 0xC7 && op <= 0xCF) || op == 0xC3);
	begin(0);
	for (unsigned n = 0; n < 3 && prefix[n]; n++)
		emit8(prefix[n]);
	emit8(0x0F);
	emit8(op);
	if (op != 0x77)
		emit8(0xC0 | random_below(64));
	if ((op >= 0x70 && op <= 0x73) || op == 0xC2 || (op >= 0xC4 && op <= 0xC6))
		emit8(random32());
}
