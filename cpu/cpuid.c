/* SPDX-License-Identifier: MIT */
/*
 * CPUID (SDM vol. 2A). The leaves were made by core/cpu_model.c when the CPU was; two answers
 * depend on the state of the machine: the APIC flag follows IA32_APIC_BASE, and IA32_MISC_ENABLE
 * can limit the basic leaves to three.
 */
#include "cpu/internal.h"

#define EXTENDED_FEATURES UINT32_C(0x80000001)

enum {
	APIC_GLOBAL_ENABLE = 1 << 11,
	MISC_ENABLE_LIMIT_CPUID = 1 << 22,
	LIMITED_LEAVES = 3,
};

void op_cpuid(struct soft_cpu *c, const struct insn *i)
{
	struct cpuid_leaf out;
	uint32_t function = c->gpr[R_EAX];
	bool limited = c->misc_enable & MISC_ENABLE_LIMIT_CPUID;
	if (limited && function > LIMITED_LEAVES && function < 0x40000000)
		function = LIMITED_LEAVES;
	cpuid_lookup(c->leaves, c->leaf_count, function, c->gpr[R_ECX], &out);
	if (function == 0 && limited && out.eax > LIMITED_LEAVES)
		out.eax = LIMITED_LEAVES;
	if (function == 1 && !(c->apic_base & APIC_GLOBAL_ENABLE))
		out.edx &= ~(uint32_t)CPUID_APIC;
	c->gpr[R_EAX] = out.eax;
	c->gpr[R_EBX] = out.ebx;
	c->gpr[R_ECX] = out.ecx;
	c->gpr[R_EDX] = out.edx;
}

void soft_cpu_missing_features(const struct soft_cpu *c, uint32_t missing[4])
{
	struct cpuid_leaf basic, extended;
	cpuid_lookup(c->leaves, c->leaf_count, 1, 0, &basic);
	cpuid_lookup(c->leaves, c->leaf_count, EXTENDED_FEATURES, 0, &extended);
	const uint32_t have[4] = {basic.edx, basic.ecx, extended.edx, extended.ecx};
	for (unsigned n = 0; n < 4; n++)
		missing[n] = c->config.model->plus[n] & ~have[n];
}
