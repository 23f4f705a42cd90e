/* SPDX-License-Identifier: MIT */
/*
 * Random instruction streams.
 *
 * Each row of a table is an instruction form; a group is a set of rows. The generator picks a row,
 * chooses operands, and puts in front what makes most memory operands hit the data area (a few miss
 * on purpose). Flags that the SDM leaves undefined are overwritten right after the instruction, so
 * that they cannot spread.
 *
 * Left out: what depends on the host beyond the CPU's architecture (CPUID, RDTSC, SGDT with UMIP),
 * what enters the kernel (INT 80h, SYSENTER), segment register loads of selectors whose descriptors
 * are the kernel's, and encodings that newer processors gave a meaning (F3 BC/BD/B8, VEX in place
 * of LES/LDS with a register).
 */
#include "tests/diff/emit.h"
#include <stdio.h>
#include <string.h>

/* ---- instructions that need care ---- */

static void generate_one(unsigned groups);

/* A forward target: a few instructions are skipped. Returns where the displacement is to be
 * patched. */
static void skip_some(unsigned at, unsigned size, unsigned groups)
{
	int32_t distance;

	groups &= ~(1u << GROUP_TRAP | 1u << GROUP_FLOW);
	for (unsigned n = random_below(3); n > 0; n--)
		generate_one(groups & ((1u << GROUPS) - 1) ? groups : 1u << GROUP_ALU);
	distance = (int32_t)(out->len - at - size);
	if (size == 1)
		out->code[at] = (uint8_t)distance;
	else
		memcpy(out->code + at, &distance, 4);
}

static void emit_jcc(unsigned groups)
{
	unsigned cc = random_below(16);

	begin(0);
	if (chance(50)) {
		emit8(0x70 + cc);
		emit8(0);
		skip_some(out->len - 1, 1, groups);
	} else {
		emit8(0x0F);
		emit8(0x80 + cc);
		emit32(0);
		skip_some(out->len - 4, 4, groups);
	}
}

static void emit_loop(unsigned groups)
{
	begin(0);
	if (chance(10))
		emit8(0x67); /* counts in CX */
	emit8(0xE0 + random_below(4));
	emit8(0);
	skip_some(out->len - 1, 1, groups);
}

static void emit_jump(unsigned opcode8, unsigned opcode32, unsigned groups)
{
	begin(0);
	if (opcode8 && chance(50)) {
		emit8(opcode8);
		emit8(0);
		skip_some(out->len - 1, 1, groups);
	} else {
		emit8(opcode32);
		emit32(0);
		skip_some(out->len - 4, 4, groups);
	}
}

/* JMP/CALL through a register or memory: to the instruction after. */
static void emit_indirect(unsigned reg_field)
{
	unsigned r = random_below(8);
	uint32_t at = DATA_BASE + 8 * random_below(64), target_at;

	if (r == R_ESP)
		r = R_EDI;
	emit_mov_imm(R_ESP, STACK_TOP);
	if (chance(50)) {
		emit_mov_imm(r, 0);
		target_at = out->len - 4;
		begin(0);
		emit8(0xFF);
		emit8(0xC0 | reg_field << 3 | r);
	} else {
		begin(0);
		emit8(0xC7); /* MOV dword [at], target */
		emit8(0x05);
		emit32(at);
		emit32(0);
		target_at = out->len - 4;
		begin(0);
		emit8(0xFF);
		emit8(reg_field << 3 | 5);
		emit32(at);
	}
	memcpy(out->code + target_at, &(uint32_t){here()}, 4);
}

static void emit_ret(void)
{
	uint32_t target_at;

	emit_mov_imm(R_ESP, STACK_TOP - 16);
	begin(0);
	emit8(0x68);
	emit32(0);
	target_at = out->len - 4;
	begin(0);
	if (chance(50)) {
		emit8(0xC3);
	} else {
		emit8(0xC2);
		emit16(random_below(32));
	}
	memcpy(out->code + target_at, &(uint32_t){here()}, 4);
}

/* Quotients that fit, mostly. */
static void emit_div(void)
{
	bool is_signed = chance(50), byte = chance(30), word = chance(30);
	struct operand m = memory_operand(1, false);
	bool mem = chance(40);
	unsigned r = random_below(8);

	if (chance(80) && !mem) {
		r = R_EBX;
		emit_mov_imm(R_EBX, interesting() | 1);
		emit_mov_imm(R_EAX, interesting() & (byte ? 0xFF : 0xFFFFFFFF));
		emit_mov_imm(R_EDX, is_signed && chance(50) ? 0xFFFFFFFF : random_below(4));
	}
	begin(FL_ARITH);
	if (word && !byte)
		emit8(0x66);
	if (mem && m.adsize16)
		emit8(0x67);
	emit8(byte ? 0xF6 : 0xF7);
	if (mem)
		emit_operand(&m, is_signed ? 7 : 6);
	else
		emit8(0xC0 | (is_signed ? 7 : 6) << 3 | r);
	scrub_flags(FL_ARITH);
}

static void emit_shift_double(void)
{
	bool left = chance(50), word = chance(30), by_cl = chance(50), mem = chance(40);
	struct operand m = memory_operand(1, false);
	unsigned count = random_below(word ? 17 : 32), undefined = 0, rm = any_reg(F_TAKES_SP);

	if (by_cl && (word || chance(50))) {
		begin(0);
		emit8(0xB1); /* MOV CL, count */
		emit8(count);
		if (mem && ((m.modrm & 7) == R_ECX || m.has_sib))
			mem = false;
	}
	undefined = FL_AF | FL_OF;
	begin(undefined);
	if (word)
		emit8(0x66);
	if (mem && m.adsize16)
		emit8(0x67);
	emit8(0x0F);
	emit8((left ? 0xA4 : 0xAC) + by_cl);
	if (mem)
		emit_operand(&m, random_below(8));
	else
		emit8(0xC0 | random_below(8) << 3 | rm);
	if (!by_cl)
		emit8(count);
	scrub_flags(undefined);
}

/* Every register form of the x87 that is defined, except those that wait for nothing here. */
static void emit_x87_reg(void)
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

/* A small memory block with a chosen dword, then the instruction on it. */
static void emit_with_dword(uint32_t value, unsigned map, unsigned op, unsigned reg)
{
	uint32_t at = DATA_BASE + 8 * random_below(64);

	begin(0);
	emit8(0xC7);
	emit8(0x05);
	emit32(at);
	emit32(value);
	begin(0);
	if (map)
		emit8(map);
	emit8(op);
	emit8(reg << 3 | 5);
	emit32(at);
}

/* Stores bytes as instructions do: some of 1, 2 or 4, aligned so that EFLAGS.AC prevents none. */
static void emit_store_bytes(uint32_t at, const uint8_t *bytes, unsigned len)
{
	for (unsigned done = 0, n; done < len; done += n) {
		n = chance(70) ? 4 : chance(50) ? 2 : 1;
		while (n > len - done || (at + done) % n)
			n /= 2;
		begin(0);
		if (n == 2)
			emit8(0x66);
		emit8(n == 1 ? 0xC6 : 0xC7); /* MOV [at], imm */
		emit8(0x05);
		emit32(at + done);
		for (unsigned k = 0; k < n; k++)
			emit8(bytes[done + k]);
	}
}

/*
 * Instructions written to data, called, changed and called again; some of them change the one
 * behind them. They never reach out of their page and end with RET.
 */
static void emit_written_code(void)
{
	enum { RET = 0xC3, LONGEST = 32 };
	uint32_t at = WRITTEN_CODE + random_below(WRITTEN_CODE_SIZE - LONGEST), target;
	unsigned r = random_below(8), len = 0, imm_at;
	uint8_t code[LONGEST];

	if (r == R_ESP)
		r = R_EBX;
	emit_mov_imm(R_ESP, STACK_TOP);
	if (chance(30)) { /* MOV byte [into the next instruction's immediate], imm8 */
		code[len++] = 0xC6;
		code[len++] = 0x05;
		target = at + 7 + 2 + random_below(4);
		memcpy(code + len, &target, 4);
		len += 4;
		code[len++] = (uint8_t)random32();
	}
	code[len++] = 0x81; /* op r, imm32 */
	code[len++] = (uint8_t)(0xC0 | random_below(8) << 3 | r);
	imm_at = len;
	target = interesting();
	memcpy(code + len, &target, 4);
	len += 4;
	code[len++] = (uint8_t)(0x40 + r); /* INC r */
	code[len++] = RET;
	emit_store_bytes(at, code, len);
	for (unsigned n = 1 + random_below(4); n > 0; n--) {
		begin(0);
		emit8(0xE8);
		emit32(at - (here() + 4));
		switch (random_below(4)) {
		case 0: /* another immediate */
			target = interesting();
			emit_store_bytes(at + imm_at, (const uint8_t *)&target, 4);
			break;
		case 1: /* another operation */
			emit_store_bytes(at + imm_at - 1,
					 &(uint8_t){(uint8_t)(0xC0 | random_below(8) << 3 | r)}, 1);
			break;
		case 2: /* INC or DEC */
			emit_store_bytes(at + imm_at + 4,
					 &(uint8_t){(uint8_t)((chance(50) ? 0x40 : 0x48) + r)}, 1);
			break;
		default: break;
		}
	}
}

static void emit_bad(void)
{
	static const uint8_t list[][4] = {
		{2, 0x0F, 0x0B},
		{2, 0x0F, 0xFF},
		{3, 0x0F, 0xB9, 0xC0},
		{2, 0xFE, 0xD0},
		{2, 0xFF, 0xF8},
		{2, 0x8F, 0xC8 | 7},
		{2, 0xC6, 0xC8},
		{2, 0x8D, 0xC0},
		{3, 0x0F, 0xC7, 0xC8 - 8},
		{2, 0xF4, 0},
		{1, 0xFA},
		{1, 0xFB},
		{1, 0xEC},
		{1, 0xEF},
		{2, 0xE4, 0x21},
		{3, 0x0F, 0x20, 0xC0},
		{3, 0x0F, 0x22, 0xC0},
		{2, 0x0F, 0x06},
		{2, 0x0F, 0x08},
		{2, 0x0F, 0x30},
		{2, 0x0F, 0x32},
		{3, 0x0F, 0xBA, 0xC0},
		{2, 0x0F, 0x04},
		{3, 0x0F, 0x21, 0xC0},
		{2, 0x6C, 0},
		{1, 0x6F},
		{2, 0xFF, 0xE8 | 0},
		{2, 0x62, 0xC0 - 0xC0 + 0x05},
		{3, 0x0F, 0x71, 0xC0},
		{3, 0x0F, 0x73, 0xD8},
		{3, 0x0F, 0xAE, 0xC0},
		{3, 0x0F, 0x13, 0xC0},
		{3, 0x0F, 0x2B, 0xC0},
		{3, 0x0F, 0xC3, 0xC0},
		{3, 0x0F, 0xE7, 0xC0},
	};
	const uint8_t *b = list[random_below(sizeof list / sizeof list[0])];

	begin(0);
	for (unsigned n = 1; n <= b[0]; n++)
		emit8(b[n]);
}

/*
 * FNSTENV, FNSAVE or FXSAVE, and back. What is stored of the instruction's pointers and opcode is
 * overwritten.
 */
static void emit_x87_state(uint32_t at)
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
static void emit_odd_simd(void)
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

static void emit_special(enum special which, unsigned groups)
{
	struct operand m;
	uint32_t at = DATA_BASE + 8 * random_below(64), v;

	switch (which) {
	case SP_JCC: emit_jcc(groups); break;
	case SP_LOOP: emit_loop(groups); break;
	case SP_JMP: emit_jump(0xEB, 0xE9, groups); break;
	case SP_CALL:
		emit_mov_imm(R_ESP, STACK_TOP);
		emit_jump(0, 0xE8, groups);
		break;
	case SP_JMP_INDIRECT: emit_indirect(4); break;
	case SP_CALL_INDIRECT: emit_indirect(2); break;
	case SP_SETUP_RET: emit_ret(); break;
	case SP_DIV: emit_div(); break;
	case SP_SHIFT_DOUBLE: emit_shift_double(); break;
	case SP_ENTER:
		emit_mov_imm(R_ESP, STACK_TOP);
		emit_mov_imm(R_EBP, STACK_TOP - 64);
		begin(0);
		if (chance(20))
			emit8(0x66);
		emit8(0xC8);
		emit16(random_below(64));
		emit8(chance(50) ? 0 : random_below(chance(20) ? 256 : 8));
		break;
	case SP_LEAVE:
		if (chance(90))
			emit_mov_imm(R_EBP, STACK_TOP - 128);
		begin(0);
		if (chance(20))
			emit8(0x66);
		emit8(0xC9);
		emit_mov_imm(R_ESP, STACK_TOP);
		break;
	case SP_POPF:
		/* Not TF; AC rarely, as all misaligned accesses fault from then on. */
		v = random32() &
		    (FL_ARITH | FL_DF | FL_NT | FL_ID | FL_IF | FL_IOPL | FL_VIF | FL_VIP | 0x28);
		if (chance(3))
			v |= FL_AC;
		emit_mov_imm(R_ESP, STACK_TOP);
		begin(0);
		emit8(0x68);
		emit32(v);
		begin(0);
		if (chance(20))
			emit8(0x66);
		emit8(0x9D);
		emit_mov_imm(R_ESP, STACK_TOP);
		break;
	case SP_PUSHF:
		begin(0);
		if (chance(20))
			emit8(0x66);
		emit8(0x9C);
		break;
	case SP_POPA:
		emit_mov_imm(R_ESP, STACK_TOP - 64);
		begin(0);
		if (chance(30))
			emit8(0x66);
		emit8(0x61);
		break;
	case SP_INT:
		begin(0);
		switch (random_below(4)) {
		case 0: emit8(0xCC); break;
		case 1: emit8(0xCE); break;
		case 2:
			emit8(0xCD);
			emit8(3);
			break;
		default:
			emit8(0xCD);
			v = random_below(256);
			emit8(v == 0x80 || v == 0x29 ? 0x81 : v);
		}
		break;
	case SP_BAD: emit_bad(); break;
	case SP_WRITTEN_CODE: emit_written_code(); break;
	case SP_ODD_SIMD: emit_odd_simd(); break;
	case SP_NEAR16: /* a near transfer with 16-bit operand size cuts EIP */
		emit_mov_imm(R_ESP, STACK_TOP);
		begin(0);
		emit8(0x66);
		switch (random_below(4)) {
		case 0:
			emit8(0x70 + random_below(16));
			emit8(0);
			break;
		case 1:
			emit8(chance(50) ? 0xE8 : 0xE9);
			emit16(0);
			break;
		case 2: emit8(0xC3); break;
		default: emit8(0xFF); emit8((chance(50) ? 0xD0 : 0xE0) | random_below(8));
		}
		break;
	case SP_LOCK_BAD: /* LOCK where it is not allowed */
		begin(0);
		emit8(0xF0);
		emit8(chance(50) ? 0x90 : 0x8B);
		if (out->code[out->len - 1] == 0x8B)
			emit8(0xC0 | random_below(64));
		break;
	case SP_SEGMENT: /* DS and ES: null, then what they were */
	{
		bool es = chance(50);

		emit_mov_imm(R_EAX, chance(50) ? random_below(4) : USER_DS);
		begin(0);
		emit8(0x8E);
		emit8(es ? 0xC0 : 0xD8);
		generate_one(1u << GROUP_ALU);
		emit_mov_imm(R_ESP, STACK_TOP);
		begin(0);
		emit8(0x6A);
		emit8(USER_DS);
		begin(0);
		emit8(es ? 0x07 : 0x1F);
		break;
	}
	case SP_SREG_READ:
		if (chance(50)) {
			/* Newer processors write only 16 of the 32 bits (SDM vol. 2B, PUSH): make
			 * the rest zero. */
			emit_mov_imm(R_ESP, STACK_TOP);
			emit_store_imm(STACK_TOP - 4, 0);
			begin(0);
			if (chance(30))
				emit8(0x66);
			emit8("\x06\x0E\x16\x1E"[random_below(4)]);
		} else {
			begin(0);
			if (chance(30))
				emit8(0x66);
			emit8(0x8C);
			emit8(0xC0 | random_below(4) << 3 | any_reg(F_TAKES_SP));
		}
		break;
	case SP_FAR_LOAD: /* LES, LDS with the usual selector */
		emit_with_dword(interesting(), 0, 0x8B, 0);
		v = random_below(2);
		begin(0);
		emit8(0xC7);
		emit8(0x05);
		emit32(at + 4);
		emit32(USER_DS | random32() << 16);
		begin(0);
		emit8(v ? 0xC4 : 0xC5);
		emit8(random_below(4) << 3 | 5);
		emit32(at);
		break;
	case SP_BOUND:
		emit_mov_imm(R_ECX, interesting());
		begin(0);
		if (chance(30))
			emit8(0x66);
		emit8(0x62);
		emit8(R_ECX << 3 | 5);
		emit32(at);
		break;
	case SP_MOFFS:
		begin(0);
		if (chance(30))
			emit8(0x66);
		emit_segment_override();
		emit8(0xA0 + random_below(4));
		emit32(data_address(1));
		break;
	case SP_XLAT:
		if (chance(90))
			emit_mov_imm(R_EBX, DATA_BASE + random_below(256));
		begin(0);
		emit_segment_override();
		emit8(0xD7);
		break;
	case SP_CMPXCHG8B:
		m = memory_operand(8, true);
		if (chance(50)) {
			begin(0);
			emit8(0xA1); /* equal more often */
			emit32(m.disp);
			begin(0);
			emit8(0x8B);
			emit8(R_EDX << 3 | 5);
			emit32(m.disp + 4);
		}
		begin(0);
		if (chance(30))
			emit8(0xF0);
		emit8(0x0F);
		emit8(0xC7);
		emit_operand(&m, 1);
		break;
	case SP_X87_REG: emit_x87_reg(); break;
	case SP_X87_FCLEX:
		begin(0);
		emit8(0xDB);
		emit8(0xE2);
		break;
	case SP_X87_INIT:
		begin(0);
		emit8(0xDB);
		emit8(chance(30) ? 0xE3 : 0xE2);
		break;
	case SP_FLDCW:
		emit_with_dword(random_control_word() | (chance(10) ? random32() : 0), 0, 0xD9, 5);
		break;
	case SP_LDMXCSR:
		emit_with_dword(random_mxcsr() | (chance(2) ? 0x10000 : 0), 0x0F, 0xAE, 2);
		break;
	case SP_X87_STATE: emit_x87_state(at); break;
	}
}

static void emit_string(unsigned op)
{
	unsigned rep = random_below(4);

	if (rep < 2)
		emit_mov_imm(R_ECX, chance(90) ? random_below(40) : interesting());
	if (chance(90))
		emit_mov_imm(R_ESI, data_address(1));
	if (chance(90))
		emit_mov_imm(R_EDI, data_address(1));
	/* Between iterations processors differ in whether the flags are up to date. */
	begin(rep < 2 && (op == 0xA6 || op == 0xA7 || op == 0xAE || op == 0xAF) ? FL_ARITH : 0);
	if (chance(20))
		emit8(0x66);
	emit_segment_override();
	if (rep == 0)
		emit8(0xF3);
	else if (rep == 1)
		emit8(0xF2);
	emit8(op);
}

static unsigned shift_undefined(const struct form *f, unsigned op, unsigned count)
{
	if (op == 0xD0 || op == 0xD1)
		return f->undefined & FL_AF;
	if (op == 0xD2 || op == 0xD3)
		return f->undefined; /* by CL */
	count &= 31;
	return count == 0 ? 0 : count == 1 ? f->undefined & FL_AF : f->undefined;
}

static void emit_form(const struct form *f, unsigned groups)
{
	unsigned op = f->last ? f->op + random_below(f->last - f->op + 1u) : f->op;
	bool has_modrm = f->shape == S_MODRM || f->shape == S_MODRM_8 || f->shape == S_GROUP, mem,
	     op16 = false, lock = false;
	unsigned reg = f->shape == S_GROUP ? f->reg : any_reg(f->flags & F_TAKES_SP),
		 rm = any_reg(f->flags & F_TAKES_SP), imm = interesting(), undefined = f->undefined;
	struct operand m;

	if (f->shape == S_SPECIAL) {
		emit_special(f->reg, groups);
		return;
	}
	if (f->shape == S_STRING) {
		emit_string(op);
		return;
	}
	mem = has_modrm && !(f->flags & F_REG) && ((f->flags & F_MEM) || chance(50));
	if (mem) {
		lock = (f->flags & F_LOCK) && chance(10);
		if ((f->flags & F_XCHG) || lock)
			m = memory_operand(64, true);
		else
			m = memory_operand(f->flags & F_ALIGN16 ? 16 : 1, false);
		if ((f->flags & F_BITS) && !chance(2))
			emit_mov_imm(reg, random_below(DATA_USED * 4) - DATA_USED * 2);
	}
	if (f->flags & F_SHIFT) {
		if (f->imm == I_8 && chance(70))
			imm &= 31;
		undefined = shift_undefined(f, op, imm);
	}
	if ((f->shape == S_MODRM || f->shape == S_GROUP) && f->map == 0x0F && op == 0xF7 &&
	    f->flags & F_REG && !chance(5))
		emit_mov_imm(R_EDI, data_address(1)); /* MASKMOV */
	begin(undefined);
	if (!(f->flags & F_NO66) && (!f->prefix || f->map == 0x38) && chance(20)) {
		op16 = true;
		emit8(0x66);
	}
	if (mem && m.adsize16)
		emit8(0x67);
	emit_segment_override();
	if (lock)
		emit8(0xF0);
	if (f->prefix)
		emit8(f->prefix);
	if (f->map)
		emit8(0x0F);
	if (f->map && f->map != 0x0F)
		emit8(f->map);
	if (f->shape == S_REGFIELD && (f->flags & F_TAKES_SP) && (op & 7) == R_ESP && chance(95))
		op ^= 1;
	emit8(op);
	if (mem)
		emit_operand(&m, reg);
	else if (has_modrm)
		emit8(0xC0 | reg << 3 | rm);
	switch (f->imm) {
	case I_8: emit8(imm); break;
	case I_16: emit16(imm); break;
	case I_Z:
		if (op16)
			emit16(imm);
		else
			emit32(imm);
		break;
	}
	scrub_flags(undefined);
}

enum { FORMS_MAX = 256 };
static uint64_t form_counts[GROUPS][FORMS_MAX];

void print_form_counts(void)
{
	uint64_t least = UINT64_MAX;
	unsigned group = 0, form = 0;

	for (unsigned g = 0; g < GROUPS; g++) {
		printf("%s:", group_names[g]);
		for (unsigned n = 0; n < form_groups[g].count && n < FORMS_MAX; n++) {
			printf(" %llu", (unsigned long long)form_counts[g][n]);
			if (form_counts[g][n] < least) {
				least = form_counts[g][n];
				group = g;
				form = n;
			}
		}
		printf("\n");
	}
	printf("least often: %s form %u (opcode %02x %02x, /%u), %llu times\n", group_names[group],
	       form, form_groups[group].form[form].map, form_groups[group].form[form].op,
	       form_groups[group].form[form].reg, (unsigned long long)least);
}

static void generate_one(unsigned groups)
{
	unsigned g, n;

	do
		g = random_below(GROUPS);
	while (!(groups >> g & 1) || (g == GROUP_TRAP && groups != 1u << g && !chance(5)));
	n = random_below(form_groups[g].count);
	if (n < FORMS_MAX)
		form_counts[g][n]++;
	emit_form(&form_groups[g].form[n], groups);
}

void generate_block(struct block *b, unsigned wanted, unsigned groups)
{
	out = b;
	b->len = b->count = 0;
	while (b->count < wanted && b->len < BLOCK_MAX_BYTES - 512)
		generate_one(groups);
	begin(0);
	emit8(0xE9); /* JMP CODE_EXIT */
	emit32(CODE_EXIT - (here() + 4));
	b->insn[b->count] = (struct gen_insn){.offset = (uint16_t)b->len};
}
