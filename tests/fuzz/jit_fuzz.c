/* SPDX-License-Identifier: MIT */
/*
 * Hostile guest code against the translator: the inputs of cpu_fuzz.c, translated at first sight and
 * in lock-step with the interpreter. A difference ends the run with its report.
 */
#define TRANSLATE true
#include "tests/fuzz/cpu_fuzz.c"
