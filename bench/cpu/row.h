/* SPDX-License-Identifier: MIT */
#ifndef BENCH_CPU_ROW_H
#define BENCH_CPU_ROW_H

/*
 * A row of the CPU benchmark: one small program whose unit of work, once(), does the same each time it is called and
 * returns a checksum of what it computed. The checksum depends neither on the number of calls nor on the machine;
 * main.c calls once() as often as it is told, takes the time, and fails if a call returns another value.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct row {
	const char *group; /* rows of one group share a geometric mean */
	const char *name;
	const char *what;
	void (*setup)(void); /* before the time is taken; may be NULL */
	uint32_t (*once)(
		void); /* about a millisecond of a present-day host, or one system operation */
	void (*finish)(void); /* while the time is taken: ends helper processes; may be NULL */
};

/* One table a file; the last row's name is NULL. */
extern const struct row integer_rows[], algorithm_rows[], interpreter_rows[], mix_rows[],
	tool_rows[], x87_rows[], scalar_sse_rows[], simd_rows[], copy_rows[], system_rows[],
	code_rows[];

/* Ends the row with a message: a result is wrong or a system call failed. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Memory that is there for good; fails the row when there is none. */
void *must_alloc(size_t size);

/* What the compiler must not see through. */
#define HIDE(x) __asm__ volatile("" : "+r"(x) : : "memory")

/* xorshift32 (Marsaglia, "Xorshift RNGs"); *state must not be 0. */
static inline uint32_t next_random(uint32_t *state)
{
	uint32_t x = *state;
	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return *state = x;
}

/* FNV-1a over 32-bit pieces; HASH_START is its start value. */
#define HASH_START 2166136261u
static inline uint32_t hash_word(uint32_t hash, uint32_t word)
{
	return (hash ^ word) * 16777619u;
}

static inline uint32_t hash_bytes(uint32_t hash, const void *data, size_t size)
{
	const uint8_t *bytes = data;
	size_t n = 0;
	for (; n + 4 <= size; n += 4) {
		uint32_t word;
		memcpy(&word, bytes + n, 4);
		hash = hash_word(hash, word);
	}
	for (; n < size; n++)
		hash = hash_word(hash, bytes[n]);
	return hash;
}

#endif
