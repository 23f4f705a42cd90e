/* SPDX-License-Identifier: MIT */
/*
 * What a fuzz target consists of: LLVMFuzzerTestOneInput(), which libFuzzer calls, and a struct
 * fuzz_target, which replay.c needs to make inputs of its own.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_target {
	const char *name;
	unsigned runs;  /* of a replay without --runs: some seconds' worth */
	size_t max_len; /* of an input that a replay makes */
	/* Writes the n-th hand-made input and returns its length; 0 when there are no more. */
	size_t (*seed)(unsigned n, uint8_t *buf, size_t max);
};
extern const struct fuzz_target fuzz_target;

/* Reads an input piece by piece; behind its end come zeroes. */
struct fuzz_input {
	const uint8_t *at, *end;
};

static inline struct fuzz_input fuzz_input(const uint8_t *data, size_t size)
{
	return (struct fuzz_input){data, data + size};
}

static inline size_t fuzz_left(const struct fuzz_input *in)
{
	return (size_t)(in->end - in->at);
}

static inline void fuzz_take(struct fuzz_input *in, void *buf, size_t len)
{
	size_t n = fuzz_left(in) < len ? fuzz_left(in) : len;

	memset(buf, 0, len);
	if (n)
		memcpy(buf, in->at, n);
	in->at += n;
}

static inline uint8_t fuzz_u8(struct fuzz_input *in)
{
	uint8_t v;
	fuzz_take(in, &v, sizeof(v));
	return v;
}

static inline uint16_t fuzz_u16(struct fuzz_input *in)
{
	uint8_t v[2];
	fuzz_take(in, v, sizeof(v));
	return (uint16_t)(v[0] | v[1] << 8);
}

static inline uint32_t fuzz_u32(struct fuzz_input *in)
{
	uint32_t low = fuzz_u16(in);
	return low | (uint32_t)fuzz_u16(in) << 16;
}

/* A seed that is text. */
static inline size_t fuzz_text_seed(const char *text, uint8_t *buf, size_t max)
{
	size_t len = strlen(text);

	if (len > max)
		len = max;
	memcpy(buf, text, len);
	return len;
}

/* sandbox.c */
/* Moves the program into a new empty folder, which its exit removes with the files in it, and its
 * standard output into /dev/null; more calls do nothing. */
void fuzz_sandbox(void);
/* The path of an open file in memory that holds these bytes; the same file with each call for the
 * same `slot` (0..FUZZ_FILES - 1). */
enum { FUZZ_FILES = 8 };
const char *fuzz_file(unsigned slot, const void *data, size_t len);

#endif
