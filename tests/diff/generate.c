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
#include "tests/diff/special.h"
#include <stdio.h>
#include <string.h>

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

void generate_one(unsigned groups)
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
