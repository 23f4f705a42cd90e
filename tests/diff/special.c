/* SPDX-License-Identifier: MIT */
/*
 * Instructions on integers, flags and segments that are more than a row, and the list of all such
 * forms.
 */
#include "tests/diff/special.h"

void emit_with_dword(uint32_t value, unsigned map, unsigned op, unsigned reg)
{
	uint32_t at = DATA_BASE + 8 * random_below(64);

	emit_store_imm(at, value);
	begin(0);
	if (map)
		emit8(map);
	emit8(op);
	emit8(reg << 3 | 5);
	emit32(at);
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

/* Not TF; AC rarely, as all misaligned accesses fault from then on. */
static void emit_popf(void)
{
	enum { RESERVED_BITS = 0x28 };
	uint32_t v = random32() & (FL_ARITH | FL_DF | FL_NT | FL_ID | FL_IF | FL_IOPL | FL_VIF |
				   FL_VIP | RESERVED_BITS);

	if (chance(3))
		v |= FL_AC;
	emit_mov_imm(R_ESP, STACK_TOP);
	begin(0);
	emit8(0x68);
	emit32(v);
	begin(0);
	maybe_emit8(20, 0x66);
	emit8(0x9D);
	emit_mov_imm(R_ESP, STACK_TOP);
}

static void emit_pushf(void)
{
	begin(0);
	maybe_emit8(20, 0x66);
	emit8(0x9C);
}

static void emit_popa(void)
{
	emit_mov_imm(R_ESP, STACK_TOP - 64);
	begin(0);
	maybe_emit8(30, 0x66);
	emit8(0x61);
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

/* LOCK where it is not allowed. */
static void emit_lock_bad(void)
{
	bool mov = !chance(50);

	begin(0);
	emit8(0xF0);
	emit8(mov ? 0x8B : 0x90);
	if (mov)
		emit8(0xC0 | random_below(64));
}

/* DS or ES: null, then what it was. */
static void emit_segment(void)
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
}

static void emit_segment_read(void)
{
	if (chance(50)) {
		/* Newer processors write only 16 of the 32 bits (SDM vol. 2B, PUSH): make the rest
		 * zero. */
		emit_mov_imm(R_ESP, STACK_TOP);
		emit_store_imm(STACK_TOP - 4, 0);
		begin(0);
		maybe_emit8(30, 0x66);
		emit8("\x06\x0E\x16\x1E"[random_below(4)]);
	} else {
		begin(0);
		maybe_emit8(30, 0x66);
		emit8(0x8C);
		emit8(0xC0 | random_below(4) << 3 | any_reg(F_TAKES_SP));
	}
}

/* LES or LDS of `at` with the usual selector. */
static void emit_far_load(uint32_t at)
{
	bool les;

	emit_with_dword(interesting(), 0, 0x8B, 0);
	les = random_below(2);
	emit_store_imm(at + 4, USER_DS | random32() << 16);
	begin(0);
	emit8(les ? 0xC4 : 0xC5);
	emit8(random_below(4) << 3 | 5);
	emit32(at);
}

static void emit_bound(uint32_t at)
{
	emit_mov_imm(R_ECX, interesting());
	begin(0);
	maybe_emit8(30, 0x66);
	emit8(0x62);
	emit8(R_ECX << 3 | 5);
	emit32(at);
}

static void emit_moffs(void)
{
	begin(0);
	maybe_emit8(30, 0x66);
	emit_segment_override();
	emit8(0xA0 + random_below(4));
	emit32(data_address(1));
}

static void emit_xlat(void)
{
	if (chance(90))
		emit_mov_imm(R_EBX, DATA_BASE + random_below(256));
	begin(0);
	emit_segment_override();
	emit8(0xD7);
}

static void emit_cmpxchg8b(void)
{
	struct operand m = memory_operand(8, true);

	if (chance(50)) { /* equal more often */
		begin(0);
		emit8(0xA1);
		emit32(m.disp);
		begin(0);
		emit8(0x8B);
		emit8(R_EDX << 3 | 5);
		emit32(m.disp + 4);
	}
	begin(0);
	maybe_emit8(30, 0xF0);
	emit8(0x0F);
	emit8(0xC7);
	emit_operand(&m, 1);
}

void emit_special(enum special which, unsigned groups)
{
	uint32_t at = DATA_BASE + 8 * random_below(64);

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
	case SP_NEAR16: emit_near16(); break;
	case SP_INT: emit_int(); break;
	case SP_ENTER: emit_enter(); break;
	case SP_LEAVE: emit_leave(); break;
	case SP_WRITTEN_CODE: emit_written_code(); break;
	case SP_DIV: emit_div(); break;
	case SP_SHIFT_DOUBLE: emit_shift_double(); break;
	case SP_POPF: emit_popf(); break;
	case SP_PUSHF: emit_pushf(); break;
	case SP_POPA: emit_popa(); break;
	case SP_BAD: emit_bad(); break;
	case SP_LOCK_BAD: emit_lock_bad(); break;
	case SP_SEGMENT: emit_segment(); break;
	case SP_SREG_READ: emit_segment_read(); break;
	case SP_FAR_LOAD: emit_far_load(at); break;
	case SP_BOUND: emit_bound(at); break;
	case SP_MOFFS: emit_moffs(); break;
	case SP_XLAT: emit_xlat(); break;
	case SP_CMPXCHG8B: emit_cmpxchg8b(); break;
	case SP_X87_REG: emit_x87_reg(); break;
	case SP_X87_FCLEX: emit_x87_clear(0); break;
	case SP_X87_INIT: emit_x87_clear(30); break;
	case SP_X87_STATE: emit_x87_state(at); break;
	case SP_FLDCW: emit_fldcw(); break;
	case SP_LDMXCSR: emit_ldmxcsr(); break;
	case SP_ODD_SIMD: emit_odd_simd(); break;
	}
}
