/* SPDX-License-Identifier: MIT */
/*
 * String instructions: MOVS CMPS STOS LODS SCAS and their REP forms (SDM vol. 1, 7.3.9). INS and
 * OUTS are in portio.c.
 *
 * A REP instruction runs in slices: after each iteration the registers are up to date, so a fault
 * finds exact state, and a slice ends early when something must be looked at between iterations (a
 * breakpoint hit, code overwritten, single step). With iterations left, next_eip is the instruction
 * itself: interrupts are taken there and it goes on afterwards.
 *
 * REP MOVS and REP STOS upwards in plain RAM move whole runs (what lies in one page) with the
 * host's memory functions.
 */
#include "cpu/ops.h"

enum {
	SLICE = 512,    /* steps (single iterations or runs) before requests are looked at */
	RUN_MAX = 4096, /* a run lies in one page */
};

/* Source (DS or override) SI and destination ES:DI, by address size. */
ALWAYS_INLINE uint32_t index_get(struct soft_cpu *c, const struct insn *i, unsigned reg)
{
	return c->gpr[reg] & i->ad_mask;
}
ALWAYS_INLINE void index_add(struct soft_cpu *c, const struct insn *i, unsigned reg, uint32_t by)
{
	c->gpr[reg] = (c->gpr[reg] & ~i->ad_mask) | ((c->gpr[reg] + by) & i->ad_mask);
}
ALWAYS_INLINE uint32_t step(const struct soft_cpu *c, unsigned size)
{
	return c->eflags & FL_DF ? 0 - size : size;
}
/* One iteration less in the counter. */
ALWAYS_INLINE void count_down(struct soft_cpu *c, const struct insn *i, uint32_t by)
{
	index_add(c, i, R_ECX, 0 - by);
}
static inline unsigned slice_length(const struct soft_cpu *c)
{
	return c->eflags & FL_TF ? 1 : SLICE;
}
/* After a slice: if iterations are left, come back to this instruction. */
static inline void rep_leave(struct soft_cpu *c, uint32_t left)
{
	if (left) {
		c->next_eip = c->eip;
		cpu_end_block(c);
	}
}

/* How far a run may go upwards from `off` before the address wraps. */
static inline uint32_t cut_run(const struct insn *i, uint32_t off, uint32_t count, unsigned size)
{
	uint64_t room = (uint64_t)i->ad_mask + 1 - off, bytes = (uint64_t)count * size;

	if (bytes > room)
		bytes = room;
	return bytes < RUN_MAX ? (uint32_t)bytes : RUN_MAX;
}

/*
 * MOVS and STOS: `one` does an iteration, `run` as many of `count` as lie in one page and returns
 * their number, or 0 if one by one is needed.
 */
ALWAYS_INLINE void move_loop(struct soft_cpu *c, const struct insn *i, unsigned size,
			     void (*one)(struct soft_cpu *c, const struct insn *i, unsigned size),
			     uint32_t (*run)(struct soft_cpu *c, const struct insn *i,
					     uint32_t count, unsigned size))
{
	if (i->rep == REP_NONE) {
		one(c, i, size);
		return;
	}
	uint32_t left = index_get(c, i, R_ECX);
	unsigned slice = slice_length(c);

	while (left && slice) {
		uint32_t done = 0;
		if (slice > 1 && !(c->eflags & FL_DF))
			done = run(c, i, left, size);
		if (!done) {
			one(c, i, size);
			done = 1;
		}
		count_down(c, i, done);
		left -= done;
		slice--;
		if (c->block_end == NULL)
			break;
		if (done > 1 && c->requests)
			break;
	}
	rep_leave(c, left);
}

/* ---- MOVS ---- */
ALWAYS_INLINE void movs_one(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	uint32_t v = load(c, i->seg, index_get(c, i, R_ESI), size);

	store(c, S_ES, index_get(c, i, R_EDI), v, size);
	index_add(c, i, R_ESI, step(c, size));
	index_add(c, i, R_EDI, step(c, size));
}

static uint32_t movs_run(struct soft_cpu *c, const struct insn *i, uint32_t count, unsigned size)
{
	uint32_t si = index_get(c, i, R_ESI), di = index_get(c, i, R_EDI);
	uint32_t len = cut_run(i, si, count, size), room = cut_run(i, di, count, size);

	if (room < len)
		len = room;
	const uint8_t *src = mem_run(c, i->seg, si, &len, MEM_READ);
	if (!src)
		return 0;
	uint8_t *dst = mem_run(c, S_ES, di, &len, MEM_WRITE);
	if (!dst)
		return 0;
	len -= len % size;
	if (dst > src && dst < src + len) {
		/* The copy reads what it wrote: the pattern between them repeats. */
		for (uint32_t n = 0; n < len; n += size)
			store_le(dst + n, load_le(src + n, size), size);
	} else {
		memmove(dst, src, len);
	}
	index_add(c, i, R_ESI, len);
	index_add(c, i, R_EDI, len);
	return len / size;
}

ALWAYS_INLINE void movs_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	move_loop(c, i, size, movs_one, movs_run);
}

/* ---- STOS ---- */
ALWAYS_INLINE void stos_one(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	store(c, S_ES, index_get(c, i, R_EDI), c->gpr[R_EAX], size);
	index_add(c, i, R_EDI, step(c, size));
}

/* Fills `len` bytes, a multiple of `size`, with the item `v`. */
static void fill(uint8_t *dst, uint32_t v, uint32_t len, unsigned size)
{
	uint64_t pattern =
		size == 4 ? v * UINT64_C(0x100000001) : (uint16_t)v * UINT64_C(0x1000100010001);
	uint32_t n = 0;

	if (size == 1) {
		memset(dst, (int)v, len);
		return;
	}
	if (len >= 64) {
		/* The host's own REP STOS writes whole cache lines. */
		uint8_t *to = dst;
		uint64_t count = len / sizeof(pattern);
		n = (uint32_t)count * sizeof(pattern);
		asm volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(pattern) : "memory");
	}
	for (; n < len; n += size)
		store_le(dst + n, v, size);
}

static uint32_t stos_run(struct soft_cpu *c, const struct insn *i, uint32_t count, unsigned size)
{
	uint32_t di = index_get(c, i, R_EDI), len = cut_run(i, di, count, size);
	uint8_t *dst = mem_run(c, S_ES, di, &len, MEM_WRITE);

	if (!dst)
		return 0;
	len -= len % size;
	fill(dst, c->gpr[R_EAX], len, size);
	index_add(c, i, R_EDI, len);
	return len / size;
}

ALWAYS_INLINE void stos_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	move_loop(c, i, size, stos_one, stos_run);
}

/* ---- LODS ---- */
ALWAYS_INLINE void lods_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	uint32_t left = i->rep == REP_NONE ? 1 : index_get(c, i, R_ECX);
	unsigned slice = slice_length(c);

	while (left && slice) {
		set_reg(c, R_EAX, load(c, i->seg, index_get(c, i, R_ESI), size), size);
		index_add(c, i, R_ESI, step(c, size));
		left--;
		slice--;
		if (i->rep == REP_NONE)
			return;
		count_down(c, i, 1);
		if (c->block_end == NULL)
			break;
	}
	rep_leave(c, left);
}

/* ---- CMPS, SCAS ---- */
ALWAYS_INLINE uint32_t item(const uint8_t *p, uint32_t n, unsigned size)
{
	return size == 1 ? p[n] : size == 2 ? load_le16(p + 2 * n) : load_le32(p + 4 * n);
}

/* How many of `count` items of a and b are equal before the first that is not. */
static uint32_t equal_items(const uint8_t *a, const uint8_t *b, uint32_t count, unsigned size)
{
	uint32_t len = count * size, n = 0;

	for (; n + 8 <= len; n += 8) {
		uint64_t differ = load_le64(a + n) ^ load_le64(b + n);
		if (differ)
			return (n + (uint32_t)__builtin_ctzll(differ) / 8) / size;
	}
	while (n < len && a[n] == b[n])
		n++;
	return n / size;
}

/*
 * Compares as many of `left` iterations as lie in one page of each operand, up to the one that ends
 * the instruction. Returns how many were made, that last one included; 0 if one by one is needed.
 * a and b become the last items.
 */
ALWAYS_INLINE uint32_t compare_run(struct soft_cpu *c, const struct insn *i, bool scas,
				   unsigned size, uint32_t left, uint32_t *a, uint32_t *b)
{
	uint32_t si = index_get(c, i, R_ESI), di = index_get(c, i, R_EDI), n = 0, count;
	uint32_t len = cut_run(i, di, left, size), eax = get_reg(c, R_EAX, size);
	const uint8_t *src = NULL, *dst;

	if (!scas) {
		uint32_t room = cut_run(i, si, left, size);
		if (room < len)
			len = room;
		src = mem_run(c, i->seg, si, &len, MEM_READ);
		if (!src)
			return 0;
	}
	dst = mem_run(c, S_ES, di, &len, MEM_READ);
	count = len / size;
	if (!dst || !count)
		return 0;
	if (!scas && i->rep == REP_E) {
		n = equal_items(src, dst, count, size);
	} else if (scas && i->rep == REP_NE && size == 1) {
		const uint8_t *found = memchr(dst, (int)eax, count);
		n = found ? (uint32_t)(found - dst) : count;
	} else {
		bool stop_at_equal = i->rep == REP_NE;
		while (n < count &&
		       ((scas ? eax : item(src, n, size)) == item(dst, n, size)) != stop_at_equal)
			n++;
	}
	/* The iteration that ends it is one, too. */
	if (n < count)
		n++;
	*a = scas ? eax : item(src, n - 1, size);
	*b = item(dst, n - 1, size);
	return n;
}

/*
 * The flags are set when the instruction leaves, so that a fault in a later iteration finds them as
 * they were (SDM vol. 2B, REP: "EFLAGS is restored to the state prior to the execution of the
 * instruction").
 */
ALWAYS_INLINE void compare_loop(struct soft_cpu *c, const struct insn *i, bool scas, unsigned size)
{
	bool repeat = i->rep != REP_NONE;
	uint32_t left = repeat ? index_get(c, i, R_ECX) : 1, a = 0, b = 0;
	unsigned slice = slice_length(c);
	bool any = false;

	while (left && slice) {
		uint32_t done = 0;
		if (repeat && slice > 1 && !(c->eflags & FL_DF))
			done = compare_run(c, i, scas, size, left, &a, &b);
		if (done) {
			if (!scas)
				index_add(c, i, R_ESI, done * size);
			index_add(c, i, R_EDI, done * size);
			any = true;
			left -= done;
			slice--;
			count_down(c, i, done);
			if ((a == b) != (i->rep == REP_E)) {
				left = 0;
				break;
			}
			if (c->block_end == NULL || c->requests)
				break;
			continue;
		}
		/* Processors access the operand at (E)DI first. */
		b = load(c, S_ES, index_get(c, i, R_EDI), size);
		a = scas ? get_reg(c, R_EAX, size) : load(c, i->seg, index_get(c, i, R_ESI), size);
		if (!scas)
			index_add(c, i, R_ESI, step(c, size));
		index_add(c, i, R_EDI, step(c, size));
		any = true;
		left--;
		slice--;
		if (!repeat)
			break;
		count_down(c, i, 1);
		if ((a == b) != (i->rep == REP_E)) {
			left = 0;
			break;
		}
		if (c->block_end == NULL)
			break;
	}
	if (any)
		flags_sub(c, a, b, a - b, size);
	if (repeat)
		rep_leave(c, left);
}
ALWAYS_INLINE void cmps_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	compare_loop(c, i, false, size);
}
ALWAYS_INLINE void scas_shape(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	compare_loop(c, i, true, size);
}

#define STRING_OP(name)                                                                            \
	static void name##_8(struct soft_cpu *c, const struct insn *i)                             \
	{                                                                                          \
		name##_shape(c, i, 1);                                                             \
	}                                                                                          \
	OP_SIZES(name, name##_shape)
STRING_OP(movs)
STRING_OP(stos)
STRING_OP(lods)
STRING_OP(cmps)
STRING_OP(scas)

static const struct op_row rows[] = {
	ROW_SAME(0xA4, 0, movs_8, NULL), ROW(0xA5, 0, movs_16, NULL, movs_32, NULL),
	ROW_SAME(0xA6, 0, cmps_8, NULL), ROW(0xA7, 0, cmps_16, NULL, cmps_32, NULL),
	ROW_SAME(0xAA, 0, stos_8, NULL), ROW(0xAB, 0, stos_16, NULL, stos_32, NULL),
	ROW_SAME(0xAC, 0, lods_8, NULL), ROW(0xAD, 0, lods_16, NULL, lods_32, NULL),
	ROW_SAME(0xAE, 0, scas_8, NULL), ROW(0xAF, 0, scas_16, NULL, scas_32, NULL),
};
const struct op_table ops_string = {rows, ARRAY_SIZE(rows)};
