/* SPDX-License-Identifier: MIT */
/*
 * Port input and output: IN, OUT, INS, OUTS (SDM vol. 1, chapter 18; vol. 2 under each name).
 *
 * In protected mode with CPL > IOPL, and always in V86 mode, the permission bitmap of a 32-bit TSS
 * decides (vol. 1, 18.5.2).
 *
 * REP INS and REP OUTS move pieces of up to a disk sector in one call to the I/O bus. A piece never
 * crosses a page or the end of the segment; ECX and the index register are brought up to date after
 * each, so a fault or an interrupt between two pieces leaves exactly the state that item by item
 * would have.
 */
#include "core/iobus.h"
#include "cpu/desc.h"

/* ---- Permission ---- */

static void check_io_permission(struct soft_cpu *c, uint16_t port, unsigned size)
{
	enum { TSS_IO_MAP_BASE = 0x66, TSS32_MIN_LIMIT = 0x67 };
	unsigned iopl = (c->eflags & FL_IOPL) >> FL_IOPL_SHIFT;
	if (!(c->cr0 & CR0_PE) || (!c->v86 && c->cpl <= iopl))
		return;
	if (!(c->tr.attr & SEG_P) || !(c->tr.attr & SYS_32) || c->tr.limit < TSS32_MIN_LIMIT)
		cpu_gp0(c);
	/* Two bytes are read, whatever the port: the map ends with a byte of ones. */
	uint32_t at = sys_ld16(c, c->tr.base + TSS_IO_MAP_BASE) + port / 8u;
	if (at + 1 > c->tr.limit)
		cpu_gp0(c);
	unsigned denied = sys_ld16(c, c->tr.base + at) >> port % 8;
	if (denied & ((1u << size) - 1))
		cpu_gp0(c);
}

/* ---- Single accesses ---- */

static uint32_t port_in(struct soft_cpu *c, uint16_t port, unsigned size)
{
	machine_enter(c);
	uint32_t value = iobus_read(c->config.io, port, size);
	machine_leave(c);
	return value;
}

static void port_out(struct soft_cpu *c, uint16_t port, unsigned size, uint32_t value)
{
	machine_enter(c);
	iobus_write(c->config.io, port, size, value);
	machine_leave(c);
}

static void in(struct soft_cpu *c, uint16_t port, unsigned size)
{
	check_io_permission(c, port, size);
	uint32_t value = port_in(c, port, size);
	if (size == 1)
		*reg8(c, R_EAX) = (uint8_t)value;
	else if (size == 2)
		*reg16(c, R_EAX) = (uint16_t)value;
	else
		c->gpr[R_EAX] = value;
	debug_io_access(c, port, size);
	cpu_end_block(c); /* the access may have raised an interrupt */
}

static void out(struct soft_cpu *c, uint16_t port, unsigned size)
{
	check_io_permission(c, port, size);
	port_out(c, port, size, c->gpr[R_EAX]);
	debug_io_access(c, port, size);
	cpu_end_block(c);
}

static unsigned operand_bytes(const struct insn *i)
{
	return i->opsize32 ? 4 : 2;
}

void op_in_al_imm(struct soft_cpu *c, const struct insn *i)
{
	in(c, i->imm & 0xFF, 1);
}

void op_in_eax_imm(struct soft_cpu *c, const struct insn *i)
{
	in(c, i->imm & 0xFF, operand_bytes(i));
}

void op_in_al_dx(struct soft_cpu *c, const struct insn *i)
{
	in(c, *reg16(c, R_EDX), 1);
}

void op_in_eax_dx(struct soft_cpu *c, const struct insn *i)
{
	in(c, *reg16(c, R_EDX), operand_bytes(i));
}

void op_out_imm_al(struct soft_cpu *c, const struct insn *i)
{
	out(c, i->imm & 0xFF, 1);
}

void op_out_imm_eax(struct soft_cpu *c, const struct insn *i)
{
	out(c, i->imm & 0xFF, operand_bytes(i));
}

void op_out_dx_al(struct soft_cpu *c, const struct insn *i)
{
	out(c, *reg16(c, R_EDX), 1);
}

void op_out_dx_eax(struct soft_cpu *c, const struct insn *i)
{
	out(c, *reg16(c, R_EDX), operand_bytes(i));
}

/* ---- Strings ---- */

enum { PIECE_BYTES = 512 };

static uint32_t address_mask(const struct insn *i)
{
	return i->adsize32 ? UINT32_MAX : 0xFFFF;
}

static void advance(struct soft_cpu *c, const struct insn *i, unsigned reg, int32_t by)
{
	uint32_t mask = address_mask(i);
	c->gpr[reg] = (c->gpr[reg] & ~mask) | ((c->gpr[reg] + (uint32_t)by) & mask);
}

/* How many items from `off` on can move as one piece: 1 unless all of it lies in one page and in
 * the segment, going up. */
static uint32_t piece_items(struct soft_cpu *c, const struct insn *i, unsigned seg, uint32_t off,
			    unsigned size, uint32_t count)
{
	if (c->eflags & (FL_DF | FL_TF))
		return 1;
	uint32_t linear = c->seg[seg].base + off;
	uint32_t room = PAGE_OFFSET + 1 - (linear & PAGE_OFFSET);
	uint32_t items = (room < PIECE_BYTES ? room : PIECE_BYTES) / size;
	if (items > count)
		items = count;
	if (items <= 1)
		return 1;
	uint32_t last = off + items * size - 1;
	if (last < off || last > address_mask(i) || !segment_covers(&c->seg[seg], off, last))
		return 1;
	return items;
}

/* Moves one piece; returns the items moved. */
static uint32_t ins_piece(struct soft_cpu *c, const struct insn *i, unsigned size, uint32_t count)
{
	uint8_t buf[PIECE_BYTES];
	uint16_t port = *reg16(c, R_EDX);
	uint32_t off = c->gpr[R_EDI] & address_mask(i);
	uint32_t items = piece_items(c, i, S_ES, off, size, count);
	/* What the device gives must not get lost to a page fault. */
	probe_write(c, S_ES, off, items * size);
	machine_enter(c);
	if (items == 1)
		store_le(buf, iobus_read(c->config.io, port, size), size);
	else
		iobus_read_block(c->config.io, port, size, buf, items);
	machine_leave(c);
	st_bytes(c, S_ES, off, buf, items * size);
	int32_t bytes = (int32_t)(items * size);
	advance(c, i, R_EDI, c->eflags & FL_DF ? -bytes : bytes);
	return items;
}

static uint32_t outs_piece(struct soft_cpu *c, const struct insn *i, unsigned size, uint32_t count)
{
	uint8_t buf[PIECE_BYTES];
	uint16_t port = *reg16(c, R_EDX);
	uint32_t off = c->gpr[R_ESI] & address_mask(i);
	uint32_t items = piece_items(c, i, i->seg, off, size, count);
	ld_bytes(c, i->seg, off, buf, items * size);
	machine_enter(c);
	if (items == 1)
		iobus_write(c->config.io, port, size, (uint32_t)load_le(buf, size));
	else
		iobus_write_block(c->config.io, port, size, buf, items);
	machine_leave(c);
	int32_t bytes = (int32_t)(items * size);
	advance(c, i, R_ESI, c->eflags & FL_DF ? -bytes : bytes);
	return items;
}

typedef uint32_t (*piece_fn)(struct soft_cpu *c, const struct insn *i, unsigned size,
			     uint32_t count);

static void string_io(struct soft_cpu *c, const struct insn *i, unsigned size, piece_fn move)
{
	uint16_t port = *reg16(c, R_EDX);
	uint32_t mask = address_mask(i);
	if (i->rep != REP_NONE && !(c->gpr[R_ECX] & mask))
		return;
	check_io_permission(c, port, size);
	cpu_end_block(c);
	if (i->rep == REP_NONE) {
		move(c, i, size, 1);
		debug_io_access(c, port, size);
		return;
	}
	for (;;) {
		uint32_t moved = move(c, i, size, c->gpr[R_ECX] & mask);
		advance(c, i, R_ECX, -(int32_t)moved);
		debug_io_access(c, port, size);
		if (!(c->gpr[R_ECX] & mask))
			return;
		/* Interrupts, traps and kicks come between the pieces; then the instruction goes on
		 * where it is. */
		if ((c->eflags & FL_TF) ||
		    atomic_load_explicit(&c->requests, memory_order_relaxed)) {
			c->next_eip = c->eip;
			return;
		}
	}
}

void op_insb(struct soft_cpu *c, const struct insn *i)
{
	string_io(c, i, 1, ins_piece);
}

void op_ins(struct soft_cpu *c, const struct insn *i)
{
	string_io(c, i, operand_bytes(i), ins_piece);
}

void op_outsb(struct soft_cpu *c, const struct insn *i)
{
	string_io(c, i, 1, outs_piece);
}

void op_outs(struct soft_cpu *c, const struct insn *i)
{
	string_io(c, i, operand_bytes(i), outs_piece);
}
