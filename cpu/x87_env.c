/* SPDX-License-Identifier: MIT */
/*
 * x87 control: control and status word, environment and whole state in memory (SDM vol. 1, 8.1.10
 * and 8.1.11), stack pointer and tags.
 *
 * The environment has four layouts, by operand size and mode. In protected mode the pointers are
 * selector and offset; in real and V86 mode linear addresses whose upper bits share a word with the
 * opcode:
 *
 *   word   16-bit protected   16-bit real            dword  32-bit protected      32-bit real
 *   0      control            control                0      control               control
 *   1      status             status                 1      status                status
 *   2      tags               tags                   2      tags                  tags
 *   3      FIP                FIP 15..0              3      FIP                   FIP 15..0
 *   4      FCS                FIP 19..16, 0, opcode  4      opcode << 16 | FCS    FIP 31..16 << 12
 * | opcode 5      FDP                FDP 15..0              5      FDP                   FDP 15..0
 *   6      FDS                FDP 19..16, 0          6      FDS                   FDP 31..16 << 12
 */
#include "cpu/x87.h"

enum {
	ENV_WORDS = 7,
	REGISTERS = 8,
	REG_BYTES = 10,
	STATE_MAX = ENV_WORDS * 4 + REGISTERS * REG_BYTES
};
enum { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };
enum { FOP_MASK = 0x7FF, EXPONENT_MAX = 0x7FFF, UPPER_ONES = (int)0xFFFF0000 };

static unsigned tag_of(const void *reg)
{
	uint64_t significand = load_le64(reg);
	unsigned exponent = load_le16((const uint8_t *)reg + 8) & EXPONENT_MAX;

	if (exponent == 0 && significand == 0)
		return TAG_ZERO;
	return exponent == 0 || exponent == EXPONENT_MAX || !(significand >> 63) ? TAG_SPECIAL
										 : TAG_VALID;
}

static uint16_t full_tags(const struct fpu *f)
{
	unsigned tags = 0;

	for (unsigned n = 0; n < REGISTERS; n++)
		tags |= (f->tag_valid >> n & 1 ? tag_of(&f->st[n]) : TAG_EMPTY) << 2 * n;
	return (uint16_t)tags;
}

static unsigned env_size(const struct insn *i)
{
	return ENV_WORDS * (i->opsize32 ? 4 : 2);
}

static void store_env(const struct soft_cpu *c, const struct insn *i, uint8_t *buf)
{
	const struct fpu *f = &c->fpu;
	uint32_t v[ENV_WORDS] = {f->cw, f->sw, full_tags(f)};

	if (c->protected_mode) {
		v[3] = f->fip;
		v[4] = i->opsize32 ? (uint32_t)(f->fop & FOP_MASK) << 16 | f->fcs : f->fcs;
		v[5] = f->fdp;
		v[6] = f->fds;
	} else {
		uint32_t ip = f->fip + (f->fcs << 4), dp = f->fdp + (f->fds << 4);

		v[3] = ip & 0xFFFF;
		v[4] = (ip >> 16) << 12 | (f->fop & FOP_MASK);
		v[5] = dp & 0xFFFF;
		v[6] = (dp >> 16) << 12;
	}
	if (!i->opsize32) {
		for (unsigned n = 0; n < ENV_WORDS; n++)
			store_le16(buf + 2 * n, (uint16_t)v[n]);
		return;
	}
	/* The upper halves of what has only 16 bits are written as ones. */
	for (unsigned n = 0; n < 3; n++)
		v[n] |= (uint32_t)UPPER_ONES;
	v[6] |= c->protected_mode ? (uint32_t)UPPER_ONES : 0;
	for (unsigned n = 0; n < ENV_WORDS; n++)
		store_le32(buf + 4 * n, v[n]);
}

static void load_env(struct soft_cpu *c, const struct insn *i, const uint8_t *buf)
{
	struct fpu *f = &c->fpu;
	uint32_t v[ENV_WORDS];

	for (unsigned n = 0; n < ENV_WORDS; n++)
		v[n] = i->opsize32 ? load_le32(buf + 4 * n) : load_le16(buf + 2 * n);
	f->cw = (uint16_t)((v[0] & CW_WRITABLE) | CW_RESERVED_ONE);
	f->sw = (uint16_t)v[1];
	f->tag_valid = 0;
	for (unsigned n = 0; n < REGISTERS; n++)
		if ((v[2] >> 2 * n & 3) != TAG_EMPTY)
			f->tag_valid |= (uint8_t)(1u << n);
	if (c->protected_mode) {
		f->fip = v[3];
		f->fcs = (uint16_t)v[4];
		if (i->opsize32)
			f->fop = v[4] >> 16 & FOP_MASK;
		f->fdp = v[5];
		f->fds = (uint16_t)v[6];
	} else {
		f->fip = (v[3] & 0xFFFF) | v[4] >> 12 << 16;
		f->fop = v[4] & FOP_MASK;
		f->fdp = (v[5] & 0xFFFF) | v[6] >> 12 << 16;
		f->fcs = f->fds = 0;
	}
	x87_update_summary(c);
}

static void init(struct soft_cpu *c)
{
	struct fpu *f = &c->fpu;

	f->cw = CW_INIT;
	f->sw = 0;
	f->tag_valid = 0;
	f->fip = f->fdp = 0;
	f->fcs = f->fds = f->fop = 0;
	x87_update_summary(c);
}

void op_fldcw(struct soft_cpu *c, const struct insn *i)
{
	uint16_t cw;

	if (!x87_enter(c))
		return;
	cw = ld16(c, i->seg, effective_address(c, i));
	c->fpu.cw = (uint16_t)((cw & CW_WRITABLE) | CW_RESERVED_ONE);
	x87_update_summary(c);
}

void op_fnstcw(struct soft_cpu *c, const struct insn *i)
{
	x87_enter_no_wait(c);
	st16(c, i->seg, effective_address(c, i), c->fpu.cw);
}

void op_fnstsw(struct soft_cpu *c, const struct insn *i)
{
	x87_enter_no_wait(c);
	st16(c, i->seg, effective_address(c, i), c->fpu.sw);
}

void op_fnstsw_ax(struct soft_cpu *c, const struct insn *i)
{
	x87_enter_no_wait(c);
	*reg16(c, R_EAX) = c->fpu.sw;
}

void op_fnstenv(struct soft_cpu *c, const struct insn *i)
{
	uint8_t buf[ENV_WORDS * 4];

	x87_enter_no_wait(c);
	store_env(c, i, buf);
	st_bytes(c, i->seg, effective_address(c, i), buf, env_size(i));
	c->fpu.cw |= FPE_ALL;
	x87_update_summary(c);
}

void op_fldenv(struct soft_cpu *c, const struct insn *i)
{
	uint8_t buf[ENV_WORDS * 4];

	if (!x87_enter(c))
		return;
	ld_bytes(c, i->seg, effective_address(c, i), buf, env_size(i));
	load_env(c, i, buf);
}

void op_fnsave(struct soft_cpu *c, const struct insn *i)
{
	uint8_t buf[STATE_MAX];
	unsigned env = env_size(i);

	x87_enter_no_wait(c);
	store_env(c, i, buf);
	for (unsigned n = 0; n < REGISTERS; n++)
		x87_copy(buf + env + n * REG_BYTES, x87_st(&c->fpu, n));
	st_bytes(c, i->seg, effective_address(c, i), buf, env + REGISTERS * REG_BYTES);
	init(c);
}

void op_frstor(struct soft_cpu *c, const struct insn *i)
{
	uint8_t buf[STATE_MAX];
	unsigned env = env_size(i);

	if (!x87_enter(c))
		return;
	ld_bytes(c, i->seg, effective_address(c, i), buf, env + REGISTERS * REG_BYTES);
	load_env(c, i, buf);
	for (unsigned n = 0; n < REGISTERS; n++)
		x87_copy(x87_st(&c->fpu, n), buf + env + n * REG_BYTES);
}

void op_fnclex(struct soft_cpu *c, const struct insn *i)
{
	x87_enter_no_wait(c);
	c->fpu.sw &= (uint16_t) ~(FPE_ALL | SW_STACK_FAULT);
	x87_update_summary(c);
}

void op_fninit(struct soft_cpu *c, const struct insn *i)
{
	x87_enter_no_wait(c);
	init(c);
}

void op_fincstp(struct soft_cpu *c, const struct insn *i)
{
	if (!x87_enter(c))
		return;
	x87_note(c, i);
	x87_set_top(&c->fpu, x87_top(&c->fpu) + 1);
	c->fpu.sw &= (uint16_t)~SW_C1;
}

void op_fdecstp(struct soft_cpu *c, const struct insn *i)
{
	if (!x87_enter(c))
		return;
	x87_note(c, i);
	x87_set_top(&c->fpu, x87_top(&c->fpu) - 1);
	c->fpu.sw &= (uint16_t)~SW_C1;
}

void op_ffree(struct soft_cpu *c, const struct insn *i)
{
	if (!x87_enter(c))
		return;
	x87_note(c, i);
	c->fpu.tag_valid &= (uint8_t) ~(1u << x87_physical(&c->fpu, i->rm));
	c->fpu.sw &= (uint16_t)~SW_C1;
}

/* DF C0: as FFREE, then pops. */
void op_ffreep(struct soft_cpu *c, const struct insn *i)
{
	struct fpu *f = &c->fpu;

	if (!x87_enter(c))
		return;
	x87_note(c, i);
	f->tag_valid &= (uint8_t) ~(1u << x87_physical(f, i->rm));
	f->sw &= (uint16_t)~SW_C1;
	x87_pop(f);
}

/* FNOP waits for pending exceptions like any other. */
void op_x87_nop(struct soft_cpu *c, const struct insn *i)
{
	if (x87_enter(c))
		x87_note(c, i);
}

void op_x87_ignored(struct soft_cpu *c, const struct insn *i)
{
	x87_enter_no_wait(c);
}
