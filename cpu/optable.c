/* SPDX-License-Identifier: MIT */
/*
 * The opcode map (SDM vol. 2D, appendix A): the rows of all ops_*.c and of the system instructions,
 * joined into one table that the decoder indexes by opcode. x87 and SIMD opcodes are not in it;
 * x87_lookup() and simd_lookup() know them.
 */
#include "cpu/ops.h"

/* System instructions (seg.c far.c intr.c sysops.c msr.c portio.c). An instruction after which code
 * may decode otherwise, interrupts may have to be taken or a device may have acted ends the block.
 */
static const struct op_row system_rows[] = {
	/* Segment registers. MOV and POP to SS start an interrupt shadow. */
	ROW_SAME(0x8C, OP_MODRM, op_mov_rm_sreg, op_mov_rm_sreg),
	ROW_SAME(0x8E, OP_MODRM | OP_END, op_mov_sreg_rm, op_mov_sreg_rm),
	ROW_SAME(0x06, 0, op_push_sreg, NULL),
	ROW_SAME(0x0E, 0, op_push_sreg, NULL),
	ROW_SAME(0x16, 0, op_push_sreg, NULL),
	ROW_SAME(0x1E, 0, op_push_sreg, NULL),
	ROW_SAME(0x1A0, 0, op_push_sreg, NULL),
	ROW_SAME(0x1A8, 0, op_push_sreg, NULL),
	ROW_SAME(0x07, OP_END, op_pop_sreg, NULL),
	ROW_SAME(0x17, OP_END, op_pop_sreg, NULL),
	ROW_SAME(0x1F, OP_END, op_pop_sreg, NULL),
	ROW_SAME(0x1A1, OP_END, op_pop_sreg, NULL),
	ROW_SAME(0x1A9, OP_END, op_pop_sreg, NULL),
	ROW_SAME(0xC4, OP_MODRM | OP_END, NULL, op_les),
	ROW_SAME(0xC5, OP_MODRM | OP_END, NULL, op_lds),
	ROW_SAME(0x1B2, OP_MODRM | OP_END, NULL, op_lss),
	ROW_SAME(0x1B4, OP_MODRM | OP_END, NULL, op_lfs),
	ROW_SAME(0x1B5, OP_MODRM | OP_END, NULL, op_lgs),

	/* Far transfers, interrupts, flags. */
	ROW_SAME(0xEA, OP_FAR | OP_END, op_jmp_far_imm, NULL),
	ROW_SAME(0x9A, OP_FAR | OP_END, op_call_far_imm, NULL),
	GRP_SAME(0xFF, 3, OP_MODRM | OP_END, NULL, op_call_far_mem),
	GRP_SAME(0xFF, 5, OP_MODRM | OP_END, NULL, op_jmp_far_mem),
	ROW_SAME(0xCB, OP_END, op_ret_far, NULL),
	ROW_SAME(0xCA, OP_IMM16 | OP_END, op_ret_far_imm, NULL),
	ROW_SAME(0xCD, OP_IMM8 | OP_END, op_int_imm, NULL),
	ROW_SAME(0xCC, OP_END, op_int3, NULL),
	ROW_SAME(0xF1, OP_END, op_int1, NULL),
	ROW_SAME(0xCE, OP_END, op_into, NULL),
	ROW_SAME(0xCF, OP_END, op_iret, NULL),
	ROW_SAME(0xF4, OP_END, op_hlt, NULL),
	ROW_SAME(0xFA, OP_END, op_cli, NULL),
	ROW_SAME(0xFB, OP_END, op_sti, NULL),
	ROW_SAME(0x9C, 0, op_pushf, NULL),
	ROW_SAME(0x9D, OP_END, op_popf, NULL),

	/* Protection. */
	GRP_SAME(0x100, 0, OP_MODRM, op_grp6, op_grp6),
	GRP_SAME(0x100, 1, OP_MODRM, op_grp6, op_grp6),
	GRP_SAME(0x100, 2, OP_MODRM | OP_END, op_grp6, op_grp6),
	GRP_SAME(0x100, 3, OP_MODRM | OP_END, op_grp6, op_grp6),
	GRP_SAME(0x100, 4, OP_MODRM, op_grp6, op_grp6),
	GRP_SAME(0x100, 5, OP_MODRM, op_grp6, op_grp6),
	ROW_SAME(0x101, OP_MODRM | OP_END, op_grp7, op_grp7),
	ROW_SAME(0x102, OP_MODRM, op_lar, op_lar),
	ROW_SAME(0x103, OP_MODRM, op_lsl, op_lsl),
	ROW_SAME(0x63, OP_MODRM, op_arpl, op_arpl),
	ROW_SAME(0x106, OP_END, op_clts, NULL),
	ROW_SAME(0x108, OP_END, op_invd, NULL),
	ROW_SAME(0x109, OP_END, op_wbinvd, NULL),
	ROW_SAME(0x120, OP_MODRM | OP_REGONLY | OP_END, op_mov_from_cr, NULL),
	ROW_SAME(0x121, OP_MODRM | OP_REGONLY | OP_END, op_mov_from_dr, NULL),
	ROW_SAME(0x122, OP_MODRM | OP_REGONLY | OP_END, op_mov_to_cr, NULL),
	ROW_SAME(0x123, OP_MODRM | OP_REGONLY | OP_END, op_mov_to_dr, NULL),
	ROW_SAME(0x130, OP_END, op_wrmsr, NULL),
	ROW_SAME(0x131, OP_END, op_rdtsc, NULL),
	ROW_SAME(0x132, OP_END, op_rdmsr, NULL),
	ROW_SAME(0x133, OP_END, op_rdpmc, NULL),
	ROW_SAME(0x134, OP_END, op_sysenter, NULL),
	ROW_SAME(0x135, OP_END, op_sysexit, NULL),
	ROW_SAME(0x1A2, OP_END, op_cpuid, NULL),
	ROW_SAME(0x1AA, OP_END, op_rsm, NULL),

	/* Ports: a device may change anything. */
	ROW_SAME(0xE4, OP_IMM8 | OP_END, op_in_al_imm, NULL),
	ROW_SAME(0xE5, OP_IMM8 | OP_END, op_in_eax_imm, NULL),
	ROW_SAME(0xE6, OP_IMM8 | OP_END, op_out_imm_al, NULL),
	ROW_SAME(0xE7, OP_IMM8 | OP_END, op_out_imm_eax, NULL),
	ROW_SAME(0xEC, OP_END, op_in_al_dx, NULL),
	ROW_SAME(0xED, OP_END, op_in_eax_dx, NULL),
	ROW_SAME(0xEE, OP_END, op_out_dx_al, NULL),
	ROW_SAME(0xEF, OP_END, op_out_dx_eax, NULL),
	ROW_SAME(0x6C, OP_END, op_insb, NULL),
	ROW_SAME(0x6D, OP_END, op_ins, NULL),
	ROW_SAME(0x6E, OP_END, op_outsb, NULL),
	ROW_SAME(0x6F, OP_END, op_outs, NULL),

	ROW_SAME(0x9B, 0, op_fwait, NULL),
};
const struct op_table ops_system = {system_rows, ARRAY_SIZE(system_rows)};

/* For each opcode a row; or, for a group, a row for each digit. */
static const struct op_row *map[0x200][8];
static bool has_modrm[0x200];

static void add_row(unsigned opcode, const struct op_row *row)
{
	for (int digit = 0; digit < 8; digit++)
		if (row->digit == ANY_DIGIT || row->digit == digit)
			map[opcode][digit] = row;
	if (row->flags & OP_MODRM)
		has_modrm[opcode] = true;
}

bool optable_has_modrm(unsigned opcode)
{
	return opcode < ARRAY_SIZE(has_modrm) && has_modrm[opcode];
}

void optable_init(void)
{
	static const struct op_table *const tables[] = {&ops_alu,  &ops_shift,  &ops_muldiv,
							&ops_bit,  &ops_move,   &ops_stack,
							&ops_flow, &ops_string, &ops_system};

	for (size_t t = 0; t < ARRAY_SIZE(tables); t++) {
		for (size_t n = 0; n < tables[t]->count; n++) {
			const struct op_row *row = &tables[t]->rows[n];
			unsigned span = row->flags & OP_OPREG ? 8 : row->flags & OP_CC ? 16 : 1;
			for (unsigned k = 0; k < span; k++)
				add_row(row->opcode + k, row);
		}
	}
}

const struct op_row *optable_find(unsigned opcode, unsigned digit)
{
	return opcode < ARRAY_SIZE(map) ? map[opcode][digit & 7] : NULL;
}
