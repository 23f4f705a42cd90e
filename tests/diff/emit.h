/* SPDX-License-Identifier: MIT */
/* Emitting instructions into a block. */
#ifndef TESTS_DIFF_EMIT_H
#define TESTS_DIFF_EMIT_H

#include "tests/diff/forms.h"

extern struct block *out; /* being filled */

/* A ModRM memory operand in parts: registers are loaded first, then the instruction can be emitted.
 */
struct operand {
	uint8_t modrm, sib;
	bool has_sib, adsize16;
	unsigned disp_size;
	uint32_t disp;
};

void emit8(unsigned v);
void emit16(unsigned v);
void emit32(uint32_t v);
/* A prefix, so often. */
void maybe_emit8(unsigned percent, unsigned v);
/* The next byte begins an instruction that leaves these flags undefined. */
void begin(unsigned undefined);
/* Address of the next byte. */
uint32_t here(void);
void emit_mov_imm(unsigned reg, uint32_t v);
void emit_store_imm(uint32_t at, uint32_t v);
/* A register number; rarely ESP if the instruction writes it (F_TAKES_SP). */
unsigned any_reg(unsigned flags);
/* Where an operand may be, mostly aligned as said. */
uint32_t data_address(unsigned align);
/* Chooses an operand and loads its registers. `safe`: on a cache line of its own, by absolute
 * address. */
struct operand memory_operand(unsigned align, bool safe);
/* ModRM with this reg field, SIB and displacement. */
void emit_operand(const struct operand *m, unsigned reg);
void emit_segment_override(void);
/* Flags that an instruction left undefined get a value: all flags by CMP, or just those through the
 * stack. */
void scrub_flags(unsigned undefined);

#endif
