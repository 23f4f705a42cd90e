/* SPDX-License-Identifier: MIT */
/*
 * Data movement: MOV, MOVZX MOVSX, XCHG, LEA, XLAT, NOP (SDM vol. 1, 7.3.1). Segment, control and
 * debug registers are in seg.c and sysops.c.
 */
#include "cpu/ops.h"

ALWAYS_INLINE void mov_eg_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	put_rm(c, i, get_reg(c, i->reg, size), size, mem);
}
ALWAYS_INLINE void mov_ge_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	set_reg(c, i->reg, get_rm(c, i, size, mem), size);
}
ALWAYS_INLINE void mov_ei_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	put_rm(c, i, i->imm, size, mem);
}
ALWAYS_INLINE void mov_reg_imm_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	set_reg(c, i->reg, i->imm, size);
}
static void mov_reg_imm_8(struct soft_cpu *c, const struct insn *i)
{
	*reg8(c, i->reg) = (uint8_t)i->imm;
}
OP_FORMS8(mov_eg, mov_eg_shape)
OP_FORMS(mov_eg, mov_eg_shape)
OP_FORMS8(mov_ge, mov_ge_shape)
OP_FORMS(mov_ge, mov_ge_shape)
OP_FORMS8(mov_ei, mov_ei_shape)
OP_FORMS(mov_ei, mov_ei_shape)
OP_SIZES(mov_reg_imm, mov_reg_imm_shape)

/* A0..A3: the accumulator and an address in the instruction. */
ALWAYS_INLINE void mov_acc_mem_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	set_reg(c, R_EAX, load(c, i->seg, (uint32_t)i->disp, size), size);
}
ALWAYS_INLINE void mov_mem_acc_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	store(c, i->seg, (uint32_t)i->disp, get_reg(c, R_EAX, size), size);
}
OP_SIZES(mov_acc_mem, mov_acc_mem_shape)
OP_SIZES(mov_mem_acc, mov_mem_acc_shape)
static void mov_acc_mem_8(struct soft_cpu *c, const struct insn *i)
{
	mov_acc_mem_shape(c, i, 1);
}
static void mov_mem_acc_8(struct soft_cpu *c, const struct insn *i)
{
	mov_mem_acc_shape(c, i, 1);
}

/* MOVZX MOVSX: `size` is the destination's. */
ALWAYS_INLINE void movzx8_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	set_reg(c, i->reg, get_rm(c, i, 1, mem), size);
}
ALWAYS_INLINE void movzx16_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	set_reg(c, i->reg, get_rm(c, i, 2, mem), size);
}
ALWAYS_INLINE void movsx8_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	set_reg(c, i->reg, sign_extend(get_rm(c, i, 1, mem), 1), size);
}
ALWAYS_INLINE void movsx16_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	set_reg(c, i->reg, sign_extend(get_rm(c, i, 2, mem), 2), size);
}
OP_FORMS(movzx8, movzx8_shape)
OP_FORMS(movzx16, movzx16_shape)
OP_FORMS(movsx8, movsx8_shape)
OP_FORMS(movsx16, movsx16_shape)

ALWAYS_INLINE void xchg_shape(struct soft_cpu *c, const struct insn *i, unsigned size, bool mem)
{
	uint32_t v = get_rm_rmw(c, i, size, mem), r = get_reg(c, i->reg, size);

	set_rm_rmw(c, i, r, size, mem);
	set_reg(c, i->reg, v, size);
}
ALWAYS_INLINE void xchg_acc_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	uint32_t v = get_reg(c, R_EAX, size);

	set_reg(c, R_EAX, get_reg(c, i->reg, size), size);
	set_reg(c, i->reg, v, size);
}
OP_FORMS8(xchg, xchg_shape)
OP_FORMS(xchg, xchg_shape)
OP_SIZES(xchg_acc, xchg_acc_shape)

ALWAYS_INLINE void lea_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	set_reg(c, i->reg, effective_address(c, i), size);
}
OP_SIZES(lea, lea_shape)

static void op_xlat(struct soft_cpu *c, const struct insn *i)
{
	uint32_t off = (c->gpr[R_EBX] + *reg8(c, R_EAX)) & i->ad_mask;
	*reg8(c, R_EAX) = ld8(c, i->seg, off);
}

/* NOP, PAUSE, prefetches and hints: their memory operand is not touched. */
static void op_nop(struct soft_cpu *c, const struct insn *i)
{
}

static const struct op_row rows[] = {
	ROW_SAME(0x88, OP_MODRM, FORMS8(mov_eg)),
	ROW(0x89, OP_MODRM, FORMS(mov_eg)),
	ROW_SAME(0x8A, OP_MODRM, FORMS8(mov_ge)),
	ROW(0x8B, OP_MODRM, FORMS(mov_ge)),
	GRP_SAME(0xC6, 0, OP_MODRM | OP_IMM8, FORMS8(mov_ei)),
	GRP(0xC7, 0, OP_MODRM | OP_IMMZ, FORMS(mov_ei)),
	ROW_SAME(0xB0, OP_OPREG | OP_IMM8, mov_reg_imm_8, NULL),
	ROW(0xB8, OP_OPREG | OP_IMMZ, mov_reg_imm_16, NULL, mov_reg_imm_32, NULL),
	ROW_SAME(0xA0, OP_OPMEM, mov_acc_mem_8, NULL),
	ROW(0xA1, OP_OPMEM, mov_acc_mem_16, NULL, mov_acc_mem_32, NULL),
	ROW_SAME(0xA2, OP_OPMEM, mov_mem_acc_8, NULL),
	ROW(0xA3, OP_OPMEM, mov_mem_acc_16, NULL, mov_mem_acc_32, NULL),
	ROW(0x1B6, OP_MODRM, FORMS(movzx8)),
	ROW(0x1B7, OP_MODRM, FORMS(movzx16)),
	ROW(0x1BE, OP_MODRM, FORMS(movsx8)),
	ROW(0x1BF, OP_MODRM, FORMS(movsx16)),
	ROW_SAME(0x86, OP_MODRM | OP_LOCK, FORMS8(xchg)),
	ROW(0x87, OP_MODRM | OP_LOCK, FORMS(xchg)),
	ROW(0x90, OP_OPREG, xchg_acc_16, NULL, xchg_acc_32, NULL),
	ROW(0x8D, OP_MODRM, NULL, lea_16, NULL, lea_32),
	ROW_SAME(0xD7, 0, op_xlat, NULL),
	/* 0F 0D, 18..1F: prefetch and multi-byte NOP (SDM vol. 2B, NOP and PREFETCHh; vol. 2D,
	   table A-3). */
	ROW_SAME(0x10D, OP_MODRM, op_nop, op_nop),
	ROW_SAME(0x118, OP_MODRM, op_nop, op_nop),
	ROW_SAME(0x119, OP_MODRM, op_nop, op_nop),
	ROW_SAME(0x11A, OP_MODRM, op_nop, op_nop),
	ROW_SAME(0x11B, OP_MODRM, op_nop, op_nop),
	ROW_SAME(0x11C, OP_MODRM, op_nop, op_nop),
	ROW_SAME(0x11D, OP_MODRM, op_nop, op_nop),
	ROW_SAME(0x11E, OP_MODRM, op_nop, op_nop),
	ROW_SAME(0x11F, OP_MODRM, op_nop, op_nop),
};
const struct op_table ops_move = {rows, ARRAY_SIZE(rows)};
