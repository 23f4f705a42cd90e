/* SPDX-License-Identifier: MIT */
/* What the block tests share: a scratch folder of their own, random numbers, other programs. */
#ifndef TESTS_BLOCK_TOOLS_H
#define TESTS_BLOCK_TOOLS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char scratch[64];
static uint64_t seed = 88172645463325252u;

/* Makes a folder and goes there, so that tests use plain names. The random numbers are the same in
 * each run, or those of MINIVM_TEST_SEED. */
static inline int enter_folder(const char *template)
{
	const char *given = getenv("MINIVM_TEST_SEED");
	if (given && strtoull(given, NULL, 0)) {
		seed = strtoull(given, NULL, 0);
		printf("MINIVM_TEST_SEED=%s\n", given);
	}
	strcpy(scratch, template);
	return mkdtemp(scratch) && chdir(scratch) == 0 ? 0 : -1;
}

static inline int enter_scratch(void **state)
{
	return enter_folder("/tmp/minivm-block-XXXXXX");
}

/* In memory where there is such a place: for many short-lived files that nobody has to sync. */
static inline int enter_memory(void **state)
{
	return enter_folder(access("/dev/shm", W_OK) == 0 ? "/dev/shm/minivm-block-XXXXXX"
							  : "/tmp/minivm-block-XXXXXX");
}

static inline int leave_scratch(void **state)
{
	char command[96];
	snprintf(command, sizeof(command), "rm -rf '%s'", scratch);
	return chdir("/") == 0 && system(command) == 0 ? 0 : -1;
}

static inline int shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Runs a command; its exit code. */
static inline int shell(const char *fmt, ...)
{
	char command[1024];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	int rc = system(command);
	return rc == -1 ? -1 : (rc >> 8) & 255;
}

static inline bool have_qemu(void)
{
	static int known = -1;
	if (known < 0) {
		known = shell("command -v qemu-img >/dev/null && command -v qemu-io >/dev/null") ==
			0;
		if (!known)
			printf("SKIPPED: qemu-img and qemu-io are not installed (package "
			       "qemu-utils)\n");
	}
	return known;
}

static inline uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* 0..limit-1, small numbers more often. */
static inline uint64_t rnd_below(uint64_t limit)
{
	uint64_t v = rnd() % limit;
	return rnd() % 3 ? v : v >> (rnd() % 20);
}

static inline void fill(uint8_t *p, size_t n)
{
	uint64_t v = rnd() | 1;
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(v >> (i % 8 * 8)) + (uint8_t)(i / 512);
}

#endif
