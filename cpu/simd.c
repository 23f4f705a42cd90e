/* SPDX-License-Identifier: MIT */
/*
 * From an 0F opcode with its prefixes to the MMX or SSE instruction (SDM vol. 2D, appendix A:
 * opcode map). A mandatory prefix selects among up to four instructions; F2 and F3 win over 66.
 */
#include "cpu/simd_int.h"
#include "cpu/sse_ext.h"

enum simd_prefix simd_prefix_of(const struct insn *i)
{
	if (i->rep == REP_E)
		return PFX_F3;
	if (i->rep == REP_NE)
		return PFX_F2;
	return i->prefix_66 ? PFX_66 : PFX_NONE;
}

/* 0F 71, 72, 73: registers only. */
static op_fn shift_find(const struct insn *i, enum simd_prefix prefix)
{
	uint8_t op = i->opcode & 0xFF;

	if (i->is_mem || prefix > PFX_66)
		return NULL;
	if (op == 0x73 && prefix == PFX_66 && (i->reg == 3 || i->reg == 7))
		return op_shift_bytes_xmm;
	if (!simd_shift_kernel(op, i->reg))
		return NULL;
	return prefix == PFX_66 ? op_shift_imm_xmm : op_shift_imm_mm;
}

op_fn simd_lookup(const struct insn *i)
{
	static struct simd_op (*const find[])(enum simd_prefix, uint8_t) = {
		mmx_find, sse_move_find, sse_float_find, sse_int_find};
	enum simd_prefix prefix = simd_prefix_of(i);
	uint8_t op = i->opcode & 0xFF;

	if (i->opcode < 0x100 || i->lock)
		return NULL;
	if (i->opcode > 0x1FF)
		return sse_ext_lookup(i);
	if (op >= 0x71 && op <= 0x73)
		return shift_find(i, prefix);
	if (op == 0xAE)
		return sse_state_find(i, prefix);
	for (unsigned n = 0; n < ARRAY_SIZE(find); n++) {
		struct simd_op found = find[n](prefix, op);

		if (!found.fn)
			continue;
		if ((found.form == FORM_MEM && !i->is_mem) || (found.form == FORM_REG && i->is_mem))
			return NULL;
		return found.fn;
	}
	return sse_ext_lookup(i);
}

bool simd_has_imm8(uint16_t opcode)
{
	if (opcode >= 0x300)
		return true;
	switch (opcode) {
	case 0x170: /* PSHUF* */
	case 0x171:
	case 0x172:
	case 0x173: /* shifts by an immediate */
	case 0x1C2: /* CMP* */
	case 0x1C4: /* PINSRW */
	case 0x1C5: /* PEXTRW */
	case 0x1C6: /* SHUFP* */ return true;
	default: return false;
	}
}

void simd_store_masked(struct soft_cpu *c, const struct insn *i, const uint8_t *src,
		       const uint8_t *mask, unsigned len)
{
	uint32_t off = c->gpr[R_EDI] & i->ad_mask;

	/* All of the operand must be writable, whatever the mask says; the upper half is tried
	 * first. */
	for (unsigned n = len; n > 0; n -= 8)
		probe_write(c, i->seg, off + n - 8, 8);
	for (unsigned n = 0; n < len; n++)
		if (mask[n] & 0x80)
			st8(c, i->seg, off + n, src[n]);
}
