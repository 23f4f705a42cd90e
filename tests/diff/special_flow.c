/* SPDX-License-Identifier: MIT */
/*
 * Transfers of control. Jumps and calls go forward over a few instructions; returns and computed
 * jumps go to the instruction after. Code written to memory is called there.
 */
#include "tests/diff/special.h"
#include <string.h>

/*
 * A forward target: a few instructions are skipped, whose displacement of `size` bytes is at `at`.
 * What is too long for it goes to the instruction after; backwards the block might never end.
 */
static void skip_some(unsigned at, unsigned size, unsigned groups)
{
	int32_t distance;

	groups &= ~(1u << GROUP_TRAP | 1u << GROUP_FLOW);
	for (unsigned n = random_below(3); n > 0; n--)
		generate_one(groups & ((1u << GROUPS) - 1) ? groups : 1u << GROUP_ALU);
	distance = (int32_t)(out->len - at - size);
	if (size == 1)
		out->code[at] = distance <= INT8_MAX ? (uint8_t)distance : 0;
	else
		memcpy(out->code + at, &distance, 4);
}

void emit_jcc(unsigned groups)
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

void emit_loop(unsigned groups)
{
	begin(0);
	if (chance(10))
		emit8(0x67); /* counts in CX */
	emit8(0xE0 + random_below(4));
	emit8(0);
	skip_some(out->len - 1, 1, groups);
}

void emit_jump(unsigned opcode8, unsigned opcode32, unsigned groups)
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

void emit_indirect(unsigned reg_field)
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

void emit_ret(void)
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

void emit_near16(void)
{
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
}

void emit_int(void)
{
	enum { LINUX_SYSCALL = 0x80, WINDOWS_FASTFAIL = 0x29 };
	unsigned v;

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
		emit8(v == LINUX_SYSCALL || v == WINDOWS_FASTFAIL ? 0x81 : v);
	}
}

void emit_enter(void)
{
	emit_mov_imm(R_ESP, STACK_TOP);
	emit_mov_imm(R_EBP, STACK_TOP - 64);
	begin(0);
	maybe_emit8(20, 0x66);
	emit8(0xC8);
	emit16(random_below(64));
	emit8(chance(50) ? 0 : random_below(chance(20) ? 256 : 8));
}

void emit_leave(void)
{
	if (chance(90))
		emit_mov_imm(R_EBP, STACK_TOP - 128);
	begin(0);
	maybe_emit8(20, 0x66);
	emit8(0xC9);
	emit_mov_imm(R_ESP, STACK_TOP);
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
 * Some of the instructions written change the one behind them. They never reach out of their page
 * and end with RET.
 */
void emit_written_code(void)
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
