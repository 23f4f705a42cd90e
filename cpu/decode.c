/* SPDX-License-Identifier: MIT */
/*
 * The decoder: prefixes, opcode, ModRM, SIB, displacement, immediate (SDM vol. 2A, chapter 2), and
 * the fetch of code bytes.
 *
 * decode_insn() works on bytes that are there and says when they are too few; whoever has more (the
 * next page, the next byte of MMIO) calls again. So an instruction faults on exactly the byte that
 * cannot be fetched, and only when it is executed.
 */
#include "core/memory.h"
#include "cpu/code.h"
#include "cpu/ops.h"

struct reader {
	const uint8_t *p;
	unsigned pos, avail;
	bool more;     /* ran out of bytes */
	bool too_long; /* a 16th byte was wanted */
};

static uint32_t take(struct reader *r, unsigned size)
{
	uint32_t v = 0;

	if (r->pos + size > r->avail || r->pos + size > INSN_MAX) {
		if (r->pos + size > INSN_MAX && r->avail >= INSN_MAX)
			r->too_long = true;
		else
			r->more = true;
		return 0;
	}
	memcpy(&v, r->p + r->pos, size);
	r->pos += size;
	return v;
}

/* Base and index of the eight 16-bit addressing forms (SDM vol. 2A, table 2-1). */
static const uint8_t base16[8] = {R_EBX, R_EBX, R_EBP, R_EBP, BASE_NONE, BASE_NONE, R_EBP, R_EBX};
static const uint8_t index16[8] = {R_ESI, R_EDI, R_ESI,      R_EDI,
				   R_ESI, R_EDI, INDEX_NONE, INDEX_NONE};

static void decode_address16(struct reader *r, struct insn *i, unsigned mod, unsigned rm)
{
	i->base = base16[rm];
	i->index = index16[rm];
	if (mod == 0 && rm == 6) {
		i->base = BASE_NONE;
		i->disp = (int32_t)take(r, 2);
	} else if (mod == 1) {
		i->disp = (int8_t)take(r, 1);
	} else if (mod == 2) {
		i->disp = (int16_t)take(r, 2);
	}
}

static void decode_address32(struct reader *r, struct insn *i, unsigned mod, unsigned rm)
{
	enum { RM_SIB = 4, RM_DISP = 5, NO_INDEX = 4 };

	i->base = (uint8_t)rm;
	if (rm == RM_SIB) {
		unsigned sib = take(r, 1), index = sib >> 3 & 7;
		i->base = sib & 7;
		if (index != NO_INDEX) {
			i->index = (uint8_t)index;
			i->scale = sib >> 6;
		}
	}
	if (mod == 0 && i->base == RM_DISP) {
		i->base = BASE_NONE;
		i->disp = (int32_t)take(r, 4);
	} else if (mod == 1) {
		i->disp = (int8_t)take(r, 1);
	} else if (mod == 2) {
		i->disp = (int32_t)take(r, 4);
	}
}

static void decode_modrm(struct reader *r, struct insn *i, bool register_only)
{
	unsigned mod, rm;

	i->modrm = (uint8_t)take(r, 1);
	mod = i->modrm >> 6;
	rm = i->modrm & 7;
	i->reg = i->modrm >> 3 & 7;
	i->rm = (uint8_t)rm;
	if (mod == 3 || register_only)
		return;
	i->is_mem = true;
	if (i->adsize32)
		decode_address32(r, i, mod, rm);
	else
		decode_address16(r, i, mod, rm);
	/* Addresses built on the stack's registers are in the stack segment. */
	if (i->seg == SEG_NONE)
		i->seg = i->base == R_EBP || (i->base == R_ESP && i->adsize32) ? S_SS : S_DS;
}

static void decode_immediate(struct reader *r, struct insn *i, unsigned kind)
{
	unsigned size = i->opsize32 ? 4 : 2;

	switch (kind) {
	case OP_IMM8: i->imm = take(r, 1); break;
	case OP_IMM8S: i->imm = (uint32_t)(int8_t)take(r, 1); break;
	case OP_IMM16: i->imm = take(r, 2); break;
	case OP_IMMZ: i->imm = sign_extend(take(r, size), size); break;
	case OP_FAR:
		i->imm = take(r, size);
		i->imm2 = take(r, 2);
		break;
	case OP_ENTER:
		i->imm = take(r, 2);
		i->imm2 = take(r, 1);
		break;
	default: break;
	}
}

/* Returns the opcode, 0x0NN to 0x3NN, behind all prefixes. */
static unsigned decode_prefixes(struct reader *r, struct insn *i, bool code32)
{
	enum { OPCODE_MAP_38 = 0x138, OPCODE_MAP_3A = 0x13A };
	bool prefix_67 = false;
	unsigned byte;

	for (;;) {
		byte = take(r, 1);
		if (r->more || r->too_long)
			break;
		switch (byte) {
		case 0x26: i->seg = S_ES; continue;
		case 0x2E: i->seg = S_CS; continue;
		case 0x36: i->seg = S_SS; continue;
		case 0x3E: i->seg = S_DS; continue;
		case 0x64: i->seg = S_FS; continue;
		case 0x65: i->seg = S_GS; continue;
		case 0x66: i->prefix_66 = true; continue;
		case 0x67: prefix_67 = true; continue;
		case 0xF0: i->lock = true; continue;
		case REP_NE:
		case REP_E: i->rep = (uint8_t)byte; continue;
		default: break;
		}
		break;
	}
	i->opsize32 = code32 != i->prefix_66;
	i->adsize32 = code32 != prefix_67;
	i->ad_mask = i->adsize32 ? 0xFFFFFFFF : 0xFFFF;
	if (byte == 0x0F)
		byte = 0x100 | take(r, 1);
	if (byte == OPCODE_MAP_38 || byte == OPCODE_MAP_3A)
		byte = (byte == OPCODE_MAP_38 ? 0x200 : 0x300) | take(r, 1);
	return byte;
}

/* Opcodes that simd_lookup() may know; all but EMMS have a ModRM byte (SDM vol. 2D, table A-3). */
enum { OPCODE_EMMS = 0x177 };
static bool is_simd_space(unsigned opcode)
{
	return (opcode >= 0x110 && opcode <= 0x117) || (opcode >= 0x128 && opcode <= 0x12F) ||
	       (opcode >= 0x150 && opcode <= 0x17F) || opcode == 0x1AE ||
	       (opcode >= 0x1C2 && opcode <= 0x1C6) || opcode == 0x1E7 ||
	       (opcode >= 0x1D0 && opcode <= 0x1FE) || opcode >= 0x200;
}

static void op_too_long(struct soft_cpu *c, const struct insn *i)
{
	cpu_gp0(c);
}

/* The instruction function, NULL for #UD, when the bytes are all there. */
static op_fn decode_body(struct reader *r, struct insn *i, unsigned opcode, bool *ends)
{
	enum { OPCODE_NOP = 0x90 };
	const struct op_row *row = optable_find(opcode, 0);

	if (opcode == OPCODE_NOP && i->rep == REP_E) {
		*ends = true;
		return i->lock ? NULL : op_pause;
	}
	if (opcode >= 0xD8 && opcode <= 0xDF) {
		decode_modrm(r, i, false);
		return i->lock ? NULL : x87_lookup(i);
	}
	if (optable_has_modrm(opcode)) {
		decode_modrm(r, i, row && row->flags & OP_REGONLY);
		row = optable_find(opcode, i->reg);
	} else if (!row && is_simd_space(opcode)) {
		if (opcode != OPCODE_EMMS)
			decode_modrm(r, i, false);
		if (simd_has_imm8((uint16_t)opcode))
			i->imm = take(r, 1);
		return i->lock ? NULL : simd_lookup(i);
	}
	if (!row)
		return NULL;
	if (row->flags & OP_OPREG)
		i->reg = opcode & 7;
	if (row->flags & OP_OPMEM)
		i->disp = (int32_t)take(r, i->adsize32 ? 4 : 2);
	decode_immediate(r, i, row->flags & OP_IMM_MASK);
	if (row->flags & OP_END)
		*ends = true;
	if (i->lock && !(row->flags & OP_LOCK && i->is_mem))
		return NULL;
	if (i->opsize32)
		return i->is_mem ? row->mem32 : row->reg32;
	return i->is_mem ? row->mem16 : row->reg16;
}

unsigned decode_insn(const struct soft_cpu *c, const uint8_t *bytes, unsigned avail, bool code32,
		     struct insn *i, bool *ends)
{
	struct reader r = {.p = bytes, .avail = avail};
	unsigned opcode;

	*ends = false;
	*i = (struct insn){.seg = SEG_NONE, .base = BASE_NONE, .index = INDEX_NONE};
	opcode = decode_prefixes(&r, i, code32);
	if (!r.more && !r.too_long) {
		i->opcode = (uint16_t)opcode;
		i->exec = decode_body(&r, i, opcode, ends);
	}
	if (r.more)
		return DECODE_MORE;
	if (r.too_long) {
		i->exec = op_too_long;
		i->opcode = OPCODE_ILLEGAL;
		r.pos = INSN_MAX;
		*ends = true;
	} else if (!i->exec) {
		i->exec = op_undefined;
		i->opcode = OPCODE_ILLEGAL;
		*ends = true;
	}
	if (i->seg == SEG_NONE)
		i->seg = S_DS; /* string sources, XLAT, MOV with an address */
	i->len = (uint8_t)r.pos;
	return r.pos;
}

/* More bytes at CS:EIP + `have`, up to the end of the page (one byte of MMIO). Raises what the
 * fetch raises. */
static unsigned fetch_more(struct soft_cpu *c, uint8_t *buf, unsigned have)
{
	uint32_t eip = c->eip + have, linear = c->seg[S_CS].base + eip, limit = c->seg[S_CS].limit;

	if (eip > limit || eip < c->eip)
		cpu_gp0(c);

	const struct tlb_entry *e = mmu_entry(c, linear, MEM_EXEC, c->cpl == 3);
	if (e->flags & TLB_MMIO) {
		machine_enter(c);
		buf[have] = (uint8_t)mem_mmio_read(c->config.mem, linear + e->delta, 1);
		machine_leave(c);
		return have + 1;
	}
	unsigned n = INSN_MAX - have, room = (unsigned)(GUEST_PAGE_SIZE - (linear & PAGE_OFFSET));
	if (n > room)
		n = room;
	if (n - 1 > limit - eip)
		n = limit - eip + 1;
	memcpy(buf + have, (const uint8_t *)(linear + e->delta), n);
	return have + n;
}

struct code_block *decode_single(struct soft_cpu *c)
{
	struct code_block *b = c->single;
	uint8_t buf[INSN_MAX];
	unsigned have = 0, len;
	bool ends;

	c->eip = c->next_eip;
	do {
		have = fetch_more(c, buf, have);
		len = decode_insn(c, buf, have, c->code32, &b->insn[0], &ends);
	} while (len == DECODE_MORE);
	b->count = 1;
	b->bytes = (uint16_t)len;
	return b;
}
