/* SPDX-License-Identifier: MIT */
/*
 * Emitting bytes into a block, and memory operands: registers that address them are loaded first,
 * so that most hit the data area, at every alignment and across pages; a few miss on purpose.
 */
#include "tests/diff/emit.h"

struct block *out;

void emit8(unsigned v)
{
	out->code[out->len++] = (uint8_t)v;
}
void emit16(unsigned v)
{
	emit8(v);
	emit8(v >> 8);
}
void emit32(uint32_t v)
{
	emit16(v);
	emit16(v >> 16);
}
void maybe_emit8(unsigned percent, unsigned v)
{
	if (chance(percent))
		emit8(v);
}
void begin(unsigned undefined)
{
	out->insn[out->count++] =
		(struct gen_insn){.offset = (uint16_t)out->len, .undefined = (uint16_t)undefined};
}
uint32_t here(void)
{
	return CODE_BASE + out->len;
}

void emit_mov_imm(unsigned reg, uint32_t v)
{
	begin(0);
	emit8(0xB8 + reg);
	emit32(v);
}

void emit_store_imm(uint32_t at, uint32_t v)
{
	begin(0);
	emit8(0xC7); /* MOV dword [at], v */
	emit8(0x05);
	emit32(at);
	emit32(v);
}

unsigned any_reg(unsigned flags)
{
	unsigned r = random_below(8);

	return (flags & F_TAKES_SP) && r == R_ESP && chance(95) ? R_EAX : r;
}

uint32_t data_address(unsigned align)
{
	uint32_t at = DATA_BASE + 0x40 + random_below(DATA_USED - 0x300);

	if (chance(2)) /* across or beyond the end, or into the code */
		return chance(50) ? DATA_BASE - 8 + random_below(16)
				  : CODE_BASE + random_below(CODE_SIZE);
	if (chance(5)) /* across pages */
		at = DATA_BASE + 0xFF0 + random_below(32);
	return align > 1 && !chance(2) ? at & ~(align - 1) : chance(50) ? at & ~7u : at;
}

/* `safe`: no surprises, for operands that must not be split or must hold what was put there. */
struct operand memory_operand(unsigned align, bool safe)
{
	static const uint8_t bases[] = {R_EAX, R_ECX, R_EDX, R_EBX, R_EBP, R_ESI, R_EDI};
	uint32_t at = data_address(align);
	unsigned kind = random_below(100), base = bases[random_below(7)],
		 index = bases[random_below(7)], scale;
	struct operand m = {0};
	int32_t disp = 0;

	if (safe) {
		at = (DATA_BASE + 0x40 + random_below(DATA_USED - 0x300)) & ~63u;
		kind = 0;
	}
	if (kind < 30) { /* [disp32] */
		m.modrm = 5;
		m.disp_size = 4;
		m.disp = at;
		if (chance(10)) { /* the same through SIB */
			m.modrm = 4;
			m.has_sib = true;
			m.sib = 0x25;
		}
		return m;
	}
	if (kind < 31) { /* 16-bit addressing mostly goes nowhere */
		m.adsize16 = true;
		m.modrm = (uint8_t)(random_below(3) << 6 | random_below(8));
		m.disp_size = m.modrm >> 6 == 0 ? ((m.modrm & 7) == 6 ? 2 : 0) : m.modrm >> 6;
		m.disp = random32();
		return m;
	}
	if (kind < 34) { /* whatever the registers hold */
		m.modrm = (uint8_t)(0x80 | base);
		m.disp_size = 4;
		m.disp = interesting();
		return m;
	}
	switch (random_below(3)) {
	case 0: break;
	case 1: disp = (int8_t)random32(); break;
	default: disp = chance(50) ? (int32_t)random32() : (int32_t)random_below(4096) - 2048;
	}
	if (kind < 70 || base == index) { /* [base + disp] */
		emit_mov_imm(base, at - (uint32_t)disp);
		m.modrm = (uint8_t)base;
		if (chance(10)) {
			m.modrm = 4;
			m.has_sib = true;
			m.sib = (uint8_t)(0x20 | base | random_below(4) << 6);
		}
	} else {
		uint32_t offset = chance(70) ? random_below(64) : random32();

		scale = random_below(4);
		emit_mov_imm(index, offset);
		emit_mov_imm(base, at - (uint32_t)disp - (offset << scale));
		m.modrm = 4;
		m.has_sib = true;
		m.sib = (uint8_t)(scale << 6 | index << 3 | base);
	}
	if (disp == 0 && base != R_EBP) {
		m.disp_size = 0;
	} else if (disp == (int8_t)disp) {
		m.disp_size = 1;
		m.modrm |= 0x40;
	} else {
		m.disp_size = 4;
		m.modrm |= 0x80;
	}
	m.disp = (uint32_t)disp;
	return m;
}

void emit_operand(const struct operand *m, unsigned reg)
{
	emit8(m->modrm | reg << 3);
	if (m->has_sib)
		emit8(m->sib);
	if (m->disp_size == 1)
		emit8(m->disp);
	else if (m->disp_size == 2)
		emit16(m->disp);
	else if (m->disp_size == 4)
		emit32(m->disp);
}

void emit_segment_override(void)
{
	static const uint8_t flat[] = {0x26, 0x2E, 0x36, 0x3E};

	if (chance(2))
		emit8(flat[random_below(4)]);
}

/* Flags that an instruction left undefined get a value: all flags by CMP, or just those through the
 * stack. */
void scrub_flags(unsigned undefined)
{
	if (!undefined)
		return;
	if (chance(50)) {
		begin(0);
		emit8(0x81); /* CMP r32, imm32 */
		emit8(0xF8 | random_below(8));
		emit32(interesting());
		return;
	}
	emit_mov_imm(R_ESP, STACK_TOP);
	begin(0);
	emit8(0x9C); /* PUSHFD */
	begin(FL_AF);
	emit8(0x81); /* AND dword [ESP], ~undefined */
	emit8(0x24);
	emit8(0x24);
	emit32(~undefined);
	begin(0);
	emit8(0x9D); /* POPFD */
}
