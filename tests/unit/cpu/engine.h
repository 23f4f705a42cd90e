/* SPDX-License-Identifier: MIT */
/*
 * What executes the guest code of these tests. The runner runs each program three times, with
 * MINIVM_TEST_CPU unset (the interpreter), "jit" (the translator, which takes over each block at
 * once) and "verify" (the same in lock-step with the interpreter).
 */
#ifndef TESTS_UNIT_CPU_ENGINE_H
#define TESTS_UNIT_CPU_ENGINE_H

#include "cpu/soft_cpu.h"
#include <stdlib.h>
#include <string.h>

/* A CPU with the given settings and what MINIVM_TEST_CPU asks for. */
static inline struct soft_cpu *test_cpu_new(const struct soft_cpu_config *config)
{
	struct soft_cpu_config c = *config;
	const char *what = getenv("MINIVM_TEST_CPU");

	c.jit = what != NULL;
	c.jit_after = 1;
	c.verify = what && !strcmp(what, "verify");
	return soft_cpu_new(&c, NULL);
}

#endif
