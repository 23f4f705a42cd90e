/* SPDX-License-Identifier: MIT */
/*
 * x87 loads and stores: reals of 32, 64 and 80 bits, integers of 16, 32 and 64 bits, packed
 * decimals (SDM vol. 1, 8.2).
 *
 * A store converts first, then writes memory, which may fault, and only then changes the FPU. An
 * unmasked exception that is found before or while the result is made (all but precision) keeps the
 * store from happening (SDM vol. 1, 8.5).
 */
#include "cpu/x87.h"

/* Converts between an 80-bit register and memory; returns the host's status word. */
typedef uint16_t (*load_fn)(void *reg, const void *mem);
typedef uint16_t (*store_fn)(const void *reg, void *mem);

#define LOAD_KERNEL(name, insn, type)                                                              \
	static uint16_t name(void *reg, const void *mem)                                           \
	{                                                                                          \
		uint16_t sw;                                                                       \
		__asm__ volatile(insn " %2\n\tfnstsw %0\n\tfstpt %1"                               \
				 : "=a"(sw), "=m"(*(struct m80 *)reg)                              \
				 : "m"(*(const type *)mem)                                         \
				 : "st");                                                          \
		return sw;                                                                         \
	}
LOAD_KERNEL(load_m32, "flds", uint32_t)
LOAD_KERNEL(load_m64, "fldl", uint64_t)
LOAD_KERNEL(load_i16, "filds", uint16_t)
LOAD_KERNEL(load_i32, "fildl", uint32_t)
LOAD_KERNEL(load_i64, "fildll", uint64_t)

#define STORE_KERNEL(name, insn, type)                                                             \
	static uint16_t name(const void *reg, void *mem)                                           \
	{                                                                                          \
		uint16_t sw;                                                                       \
		__asm__ volatile("fldt %2\n\t" insn " %1\n\tfnstsw %0"                             \
				 : "=a"(sw), "=m"(*(type *)mem)                                    \
				 : "m"(*(const struct m80 *)reg)                                   \
				 : "st");                                                          \
		return sw;                                                                         \
	}
STORE_KERNEL(store_m32, "fstps", uint32_t)
STORE_KERNEL(store_m64, "fstpl", uint64_t)
STORE_KERNEL(store_i16, "fistps", uint16_t)
STORE_KERNEL(store_i32, "fistpl", uint32_t)
STORE_KERNEL(store_i64, "fistpll", uint64_t)

static inline void load(struct soft_cpu *c, const struct insn *i, load_fn kernel, unsigned size)
{
	struct fpu *f = &c->fpu;
	uint64_t operand;
	uint32_t off;
	uint16_t sw;

	if (!x87_enter(c))
		return;
	off = effective_address(c, i);
	operand = size == 2   ? ld16(c, i->seg, off)
		  : size == 4 ? ld32(c, i->seg, off)
			      : ld64(c, i->seg, off);
	x87_note_operand(c, i, off);
	if (unlikely(!x87_simple(f) || x87_valid(f, 7))) {
		x87_replay(f, i->opcode, i->modrm, &operand, 0);
		return;
	}
	host_x87_begin(f);
	sw = kernel(x87_push(f), &operand);
	host_x87_end(f, sw);
	f->sw = (uint16_t)((f->sw & ~SW_C1) | (sw & (SW_C1 | FPE_ALL)));
}

/* The exact way of a store: on a copy of the FPU, so that a fault of the memory write undoes all.
 */
static void store_replay(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	struct fpu f = c->fpu;
	uint32_t off = effective_address(c, i);
	uint8_t buf[16] = {0};
	uint16_t pending = x87_hide_pending(&f);

	x87_replay(&f, i->opcode, i->modrm, buf, 0);
	if (!(f.sw & ~f.cw & (FPE_ALL & ~FPE_PRECISION)))
		st_bytes(c, i->seg, off, buf, size);
	x87_show_pending(&f, pending);
	c->fpu = f;
	x87_note_operand(c, i, off);
}

static inline void store(struct soft_cpu *c, const struct insn *i, store_fn kernel, unsigned size,
			 bool pop)
{
	struct fpu *f = &c->fpu;
	uint64_t result = 0;
	uint32_t off;
	uint16_t sw;

	if (!x87_enter(c))
		return;
	if (unlikely(!x87_simple(f) || !x87_valid(f, 0))) {
		store_replay(c, i, size);
		return;
	}
	off = effective_address(c, i);
	host_x87_begin(f);
	sw = kernel(x87_st(f, 0), &result);
	host_x87_end(f, sw);
	if (size == 2)
		st16(c, i->seg, off, (uint16_t)result);
	else if (size == 4)
		st32(c, i->seg, off, (uint32_t)result);
	else
		st64(c, i->seg, off, result);
	x87_note_operand(c, i, off);
	f->sw = (uint16_t)((f->sw & ~SW_C1) | (sw & (SW_C1 | FPE_ALL)));
	if (pop)
		x87_pop(f);
}

#define DEFINE_LOAD(type, size)                                                                    \
	static void op_ld_##type(struct soft_cpu *c, const struct insn *i)                         \
	{                                                                                          \
		load(c, i, load_##type, size);                                                     \
	}
#define DEFINE_STORE(name, type, size, pop)                                                        \
	static void name(struct soft_cpu *c, const struct insn *i)                                 \
	{                                                                                          \
		store(c, i, store_##type, size, pop);                                              \
	}
DEFINE_LOAD(m32, 4)
DEFINE_LOAD(m64, 8)
DEFINE_LOAD(i16, 2)
DEFINE_LOAD(i32, 4)
DEFINE_LOAD(i64, 8)
DEFINE_STORE(op_st_m32, m32, 4, false)
DEFINE_STORE(op_st_m64, m64, 8, false)
DEFINE_STORE(op_st_i16, i16, 2, false)
DEFINE_STORE(op_st_i32, i32, 4, false)
DEFINE_STORE(op_stp_m32, m32, 4, true)
DEFINE_STORE(op_stp_m64, m64, 8, true)
DEFINE_STORE(op_stp_i16, i16, 2, true)
DEFINE_STORE(op_stp_i32, i32, 4, true)
DEFINE_STORE(op_stp_i64, i64, 8, true)

static void op_ld_m80(struct soft_cpu *c, const struct insn *i)
{
	struct fpu *f = &c->fpu;
	uint8_t operand[10];
	uint32_t off;

	if (!x87_enter(c))
		return;
	off = effective_address(c, i);
	ld_bytes(c, i->seg, off, operand, sizeof operand);
	x87_note_operand(c, i, off);
	if (unlikely(x87_valid(f, 7))) {
		x87_replay(f, i->opcode, i->modrm, operand, 0);
		return;
	}
	x87_copy(x87_push(f), operand);
	f->sw &= (uint16_t)~SW_C1;
}

static void op_stp_m80(struct soft_cpu *c, const struct insn *i)
{
	struct fpu *f = &c->fpu;
	uint32_t off;

	if (!x87_enter(c))
		return;
	if (unlikely(!x87_valid(f, 0))) {
		store_replay(c, i, 10);
		return;
	}
	off = effective_address(c, i);
	st_bytes(c, i->seg, off, x87_st(f, 0), 10);
	x87_note_operand(c, i, off);
	f->sw &= (uint16_t)~SW_C1;
	x87_pop(f);
}

static void op_fbld(struct soft_cpu *c, const struct insn *i)
{
	uint8_t operand[10];
	uint32_t off;

	if (!x87_enter(c))
		return;
	off = effective_address(c, i);
	ld_bytes(c, i->seg, off, operand, sizeof operand);
	x87_note_operand(c, i, off);
	x87_replay(&c->fpu, i->opcode, i->modrm, operand, 0);
}

static void op_fbstp(struct soft_cpu *c, const struct insn *i)
{
	if (x87_enter(c))
		store_replay(c, i, 10);
}

/* DB, DD, DF /1: came with SSE3, which a guest may not have. */
static void op_fisttp(struct soft_cpu *c, const struct insn *i)
{
	if (!(c->features_ecx & CPUID_ECX_SSE3))
		cpu_ud(c);
	if (x87_enter(c))
		store_replay(c, i, i->opcode == 0xDB ? 4 : i->opcode == 0xDD ? 8 : 2);
}

op_fn x87_mem_lookup(const struct insn *i)
{
	static const op_fn d9[8] = {op_ld_m32, NULL,     op_st_m32,  op_stp_m32,
				    op_fldenv, op_fldcw, op_fnstenv, op_fnstcw};
	static const op_fn db[8] = {op_ld_i32, op_fisttp, op_st_i32, op_stp_i32,
				    NULL,      op_ld_m80, NULL,      op_stp_m80};
	static const op_fn dd[8] = {op_ld_m64, op_fisttp, op_st_m64, op_stp_m64,
				    op_frstor, NULL,      op_fnsave, op_fnstsw};
	static const op_fn df[8] = {op_ld_i16, op_fisttp, op_st_i16, op_stp_i16,
				    op_fbld,   op_ld_i64, op_fbstp,  op_stp_i64};

	switch (i->opcode) {
	case 0xD9: return d9[i->reg];
	case 0xDB: return db[i->reg];
	case 0xDD: return dd[i->reg];
	default: return df[i->reg];
	}
}
