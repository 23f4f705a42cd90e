/* SPDX-License-Identifier: MIT */
/*
 * The differential test of the software CPU: random streams of 32-bit user-mode instructions run
 * natively on the host, on the interpreter and on the translator, from the same state, at the same
 * addresses; then registers, flags, FPU state, memory and faults are compared.
 */
#ifndef TESTS_DIFF_H
#define TESTS_DIFF_H

#include "core/cpu_state.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where things are, in the host process and in the guest alike. The code is read-only, the data
 * read-write; all around is unmapped. */
enum {
	CODE_BASE = 0x10000000,
	CODE_SIZE = 0x2000,
	CODE_EXIT = CODE_BASE + 0x1FF0, /* a far jump back into the test */
	DATA_BASE = 0x10010000,
	DATA_SIZE = 0x4000,
	STACK_TOP = DATA_BASE + 0x3800,    /* where ESP is put: the upper half of the data */
	DATA_USED = 0x2000,                /* memory operands go below this */
	WRITTEN_CODE = DATA_BASE + 0x2000, /* a page of data that instructions are written to */
	WRITTEN_CODE_SIZE = 0x1000,
	TRAMPOLINE = 0x6B7D0000, /* mapped in the host process alone: the way out */
	TRAMPOLINE_SIZE = 0x1000,
	USER_CS = 0x23, /* Linux's GDT */
	USER_DS = 0x2B,
};

/* The guest's ring 0, where stray addresses hardly come to. */
#define SYSTEM_BASE UINT32_C(0xD1560000)
#define SYSTEM_SIZE UINT32_C(0x7000)

/* What is compared, besides memory. */
struct machine_state {
	uint32_t gpr[8];
	uint32_t eip, eflags;
	uint8_t fx[512] __attribute__((aligned(16)));
};

/* How a run ended. */
struct outcome {
	bool finished; /* reached CODE_EXIT */
	/* The host did what cannot be compared: a far transfer took it into 64-bit code, which a
	 * guest has not got, or it ran on for seconds. */
	bool astray;
	unsigned vector; /* else: the exception, its error code, CR2 of a page fault */
	uint32_t error, cr2;
};

/* ---- native.c ---- */
extern uint8_t *native_code; /* writable view of the code */
extern uint8_t *native_data;
/* After soft_open(). */
bool native_open(void);
/* Runs from *s until the exit or an exception. */
void native_run(struct machine_state *s, struct outcome *out);

/* ---- soft.c ---- */
enum soft_engine { SOFT_INTERPRETER, SOFT_TRANSLATOR, SOFT_ENGINES };
extern const char *const soft_names[SOFT_ENGINES];
/* The data as the guest sees it: given to it by soft_run(), and taken back. */
extern uint8_t soft_data[SOFT_ENGINES][DATA_SIZE];
/* `verify`: the translator in lock-step with an interpreter of its own. */
bool soft_open(bool verify);
/* The first `len` bytes at CODE_BASE. */
void soft_load_code(enum soft_engine e, const uint8_t *code, size_t len);
void soft_run(enum soft_engine e, struct machine_state *s, struct outcome *out);
/* Blocks that the translator translated. */
uint64_t soft_translated(void);
/* Of the streams, by one engine. */
uint64_t soft_instructions(enum soft_engine e);

/* ---- values.c: random numbers of all kinds ---- */
uint32_t interesting(void); /* an integer that tends to find errors */
uint16_t random_control_word(void);
uint32_t random_mxcsr(void);
/* Registers to start with. */
void generate_state(struct machine_state *s);
/* Fills memory. */
void generate_data(uint8_t *data, size_t size);

/* ---- generate.c ---- */
enum { BLOCK_MAX_INSNS = 512, BLOCK_MAX_BYTES = 0x1F00 };

struct gen_insn {
	uint16_t offset;
	uint16_t undefined; /* flags that it leaves undefined */
	/* It stores x87 pointers and opcode, which processors track in different ways: at data
	 * offset `env`, these bytes (bit 0 = the first). */
	uint16_t env;
	uint32_t env_bytes;
};
struct block {
	uint8_t code[BLOCK_MAX_BYTES];
	unsigned len;
	struct gen_insn insn[BLOCK_MAX_INSNS + 1]; /* the last is the end */
	unsigned count;
};

extern const char *const group_names[]; /* NULL at the end */
/* Fills a block with `wanted` instructions of the groups in the mask (bit n: group_names[n]). */
void generate_block(struct block *b, unsigned wanted, unsigned groups);
/* How often each form of each group was generated, the least often one last. */
void print_form_counts(void);

/* ---- random numbers: xorshift64* ---- */
extern uint64_t random_state;
static inline uint32_t random32(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t)(random_state * UINT64_C(0x2545F4914F6CDD1D) >> 32);
}
static inline unsigned random_below(unsigned n)
{
	return (unsigned)((uint64_t)random32() * n >> 32);
}
static inline bool chance(unsigned percent)
{
	return random_below(100) < percent;
}

#endif
