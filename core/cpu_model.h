/* SPDX-License-Identifier: MIT */
/*
 * CPU models: what CPUID tells the guest. `-cpu NAME,+feat,-feat,feat=on` picks a table and edits
 * it; each engine then masks it with what it can run and warns about what it had to drop.
 */
#ifndef CORE_CPU_MODEL_H
#define CORE_CPU_MODEL_H

#include "lib/error.h"
#include <stdbool.h>
#include <stdint.h>

struct cpuid_leaf {
	uint32_t function, index;
	uint32_t eax, ebx, ecx, edx;
	bool indexed; /* `index` (ECX) matters */
};

#define CPUID_MAX_LEAVES 64

struct cpu_model {
	const char *name; /* as the user gave it: "host", "max", "qemu32", "pentium3", "486", ... */
	unsigned family, model, stepping;
	char vendor[13];
	char brand[49]; /* "" : no leaves 0x80000002.. */
	uint32_t max_basic, max_extended;
	uint32_t features_edx;     /* CPUID.1:EDX */
	uint32_t features_ecx;     /* CPUID.1:ECX */
	uint32_t ext_features_edx; /* CPUID.80000001:EDX (NX is bit 20) */
	uint32_t ext_features_ecx;
	bool host;                  /* pass through what the host and the engine have ("host") */
	bool max;                   /* all that the engine can run */
	uint32_t plus[8], minus[8]; /* edits by the user: indexes 0 edx, 1 ecx, 2 ext edx, 3 ext ecx
				       (bits set = asked) */
};

/* CPUID.1:EDX and ECX bits used in the code (SDM vol. 2A, CPUID). */
enum {
	CPUID_FPU = 1 << 0,
	CPUID_VME = 1 << 1,
	CPUID_DE = 1 << 2,
	CPUID_PSE = 1 << 3,
	CPUID_TSC = 1 << 4,
	CPUID_MSR = 1 << 5,
	CPUID_PAE = 1 << 6,
	CPUID_MCE = 1 << 7,
	CPUID_CX8 = 1 << 8,
	CPUID_APIC = 1 << 9,
	CPUID_SEP = 1 << 11,
	CPUID_MTRR = 1 << 12,
	CPUID_PGE = 1 << 13,
	CPUID_MCA = 1 << 14,
	CPUID_CMOV = 1 << 15,
	CPUID_PAT = 1 << 16,
	CPUID_PSE36 = 1 << 17,
	CPUID_CLFSH = 1 << 19,
	CPUID_MMX = 1 << 23,
	CPUID_FXSR = 1 << 24,
	CPUID_SSE = 1 << 25,
	CPUID_SSE2 = 1 << 26,
	CPUID_ECX_HYPERVISOR = (int)(1u << 31),
	CPUID_EXT_NX = 1 << 20,
};

/* Parses a `-cpu` argument. -EINVAL with the list of models or the nearest feature name. */
int cpu_model_parse(const char *spec, struct cpu_model *model, struct error *err);
/* Name of bit `bit` of the feature word `word` (as in plus and minus), or NULL. */
const char *cpu_feature_name(unsigned word, unsigned bit);
/* Prints models and features (`-cpu help`). */
void cpu_model_help(void);
/* CPUID.1:EAX of the model: also EDX at reset. */
uint32_t cpu_model_signature(const struct cpu_model *model);
/* Fills the leaves that the model gives for one CPU of `cpus` with this APIC id; returns how many.
 */
unsigned cpu_model_leaves(const struct cpu_model *model, unsigned apic_id, unsigned cpus,
			  struct cpuid_leaf leaf[CPUID_MAX_LEAVES]);
/* CPUID as the SDM defines lookups beyond the last leaf: fills eax..edx of `out` for
 * function/index. */
void cpuid_lookup(const struct cpuid_leaf *leaves, unsigned count, uint32_t function,
		  uint32_t index, struct cpuid_leaf *out);

#endif
