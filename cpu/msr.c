/* SPDX-License-Identifier: MIT */
/*
 * Model-specific registers and the time-stamp counter (SDM vol. 4, table 2-2 "IA-32 Architectural
 * MSRs"; vol. 3A, 11.11 for the MTRRs, 11.12 for the PAT, 10.4.4 for IA32_APIC_BASE; vol. 3B, 17.17
 * for the TSC).
 *
 *   10h TSC            174h..176h SYSENTER_CS/ESP/EIP   200h..20Fh MTRRphysBase/Mask   C0000080h
 * EFER 17h PLATFORM_ID    179h..17Ah MCG_CAP/STATUS        250h..26Fh fixed-range MTRRs 1Bh
 * APIC_BASE      1A0h MISC_ENABLE                 277h PAT, 2FFh MTRRdefType 8Bh BIOS_SIGN_ID   FEh
 * MTRRcap                      0h..1h P5_MC_ADDR/TYPE
 *
 * Each exists if CPUID says so. All others are #GP(0), as are reserved bits. Memory types have no
 * effect: there is no cache. There are no performance counters, so RDPMC has no valid index.
 */
#include "cpu/internal.h"

enum msr {
	MSR_P5_MC_ADDR = 0x0,
	MSR_P5_MC_TYPE = 0x1,
	MSR_TSC = 0x10,
	MSR_PLATFORM_ID = 0x17,
	MSR_APIC_BASE = 0x1B,
	MSR_BIOS_SIGN_ID = 0x8B,
	MSR_MTRRCAP = 0xFE,
	MSR_SYSENTER_CS = 0x174,
	MSR_SYSENTER_ESP = 0x175,
	MSR_SYSENTER_EIP = 0x176,
	MSR_MCG_CAP = 0x179,
	MSR_MCG_STATUS = 0x17A,
	MSR_MISC_ENABLE = 0x1A0,
	MSR_MTRR_PHYS_FIRST = 0x200,
	MSR_MTRR_PHYS_LAST = 0x20F,
	MSR_MTRR_FIX64K = 0x250,
	MSR_MTRR_FIX16K_FIRST = 0x258,
	MSR_MTRR_FIX16K_LAST = 0x259,
	MSR_MTRR_FIX4K_FIRST = 0x268,
	MSR_MTRR_FIX4K_LAST = 0x26F,
	MSR_PAT = 0x277,
	MSR_MTRR_DEF_TYPE = 0x2FF,
};
#define MSR_EFER UINT32_C(0xC0000080)

enum {
	MTRR_VARIABLE = 8,     /* pairs of base and mask */
	MTRRCAP_FIX = 1 << 8,  /* fixed ranges */
	MTRRCAP_WC = 1 << 10,  /* write combining */
	MTRR_DEF_TYPE = 0xCFF, /* type, FE, E */
	MTRR_MASK_VALID = 1 << 11,
	APIC_BASE_BSP = 1 << 8,
	APIC_BASE_ENABLE = 1 << 11,
	/* Fast strings, automatic thermal control, performance monitoring not available, BTS and
	   PEBS unavailable, CPUID limit, xTPR. */
	MISC_ENABLE_WRITABLE = 1 << 0 | 1 << 3 | 1 << 22 | 1 << 23,
};

/* ---- Time ---- */

/* Without a clock the TSC counts instructions; with one it runs at 1 GHz of virtual time. */
static uint64_t tsc_source(const struct soft_cpu *c)
{
	return c->config.time_ns ? c->config.time_ns(c->config.opaque) : c->instructions;
}

uint64_t cpu_tsc(const struct soft_cpu *c)
{
	return tsc_source(c) + c->tsc_offset;
}

static void return_edx_eax(struct soft_cpu *c, uint64_t value)
{
	c->gpr[R_EAX] = (uint32_t)value;
	c->gpr[R_EDX] = (uint32_t)(value >> 32);
}

void op_rdtsc(struct soft_cpu *c, const struct insn *i)
{
	if (!(c->features_edx & CPUID_TSC))
		cpu_ud(c);
	if ((c->cr4 & CR4_TSD) && c->cpl != 0)
		cpu_gp0(c);
	return_edx_eax(c, cpu_tsc(c));
}

void op_rdpmc(struct soft_cpu *c, const struct insn *i)
{
	if (!(c->features_edx & CPUID_MMX)) /* came with the P6 and the Pentium with MMX */
		cpu_ud(c);
	cpu_gp0(c);
}

/* ---- Which register an index means ---- */

static bool has(const struct soft_cpu *c, uint32_t feature)
{
	return c->features_edx & feature;
}

static uint64_t *fixed_mtrr(struct soft_cpu *c, uint32_t index)
{
	if (index == MSR_MTRR_FIX64K)
		return &c->mtrr_fixed[0];
	if (index >= MSR_MTRR_FIX16K_FIRST && index <= MSR_MTRR_FIX16K_LAST)
		return &c->mtrr_fixed[1 + index - MSR_MTRR_FIX16K_FIRST];
	if (index >= MSR_MTRR_FIX4K_FIRST && index <= MSR_MTRR_FIX4K_LAST)
		return &c->mtrr_fixed[3 + index - MSR_MTRR_FIX4K_FIRST];
	return NULL;
}

static bool read_msr(struct soft_cpu *c, uint32_t index, uint64_t *value)
{
	if (has(c, CPUID_MTRR)) {
		const uint64_t *fixed = fixed_mtrr(c, index);
		if (fixed) {
			*value = *fixed;
			return true;
		}
		if (index >= MSR_MTRR_PHYS_FIRST && index <= MSR_MTRR_PHYS_LAST) {
			*value = c->mtrr_phys[index - MSR_MTRR_PHYS_FIRST];
			return true;
		}
	}
	switch (index) {
	case MSR_P5_MC_ADDR:
	case MSR_P5_MC_TYPE: *value = 0; return has(c, CPUID_MCE);
	case MSR_TSC: *value = cpu_tsc(c); return has(c, CPUID_TSC);
	case MSR_PLATFORM_ID:
	case MSR_BIOS_SIGN_ID: *value = 0; return true;
	case MSR_APIC_BASE: *value = c->apic_base; return has(c, CPUID_APIC);
	case MSR_MTRRCAP:
		*value = MTRR_VARIABLE | MTRRCAP_FIX | MTRRCAP_WC;
		return has(c, CPUID_MTRR);
	case MSR_MTRR_DEF_TYPE: *value = c->mtrr_def_type; return has(c, CPUID_MTRR);
	case MSR_SYSENTER_CS: *value = c->sysenter_cs; return has(c, CPUID_SEP);
	case MSR_SYSENTER_ESP: *value = c->sysenter_esp; return has(c, CPUID_SEP);
	case MSR_SYSENTER_EIP: *value = c->sysenter_eip; return has(c, CPUID_SEP);
	case MSR_MCG_CAP: /* no banks */
	case MSR_MCG_STATUS: *value = 0; return has(c, CPUID_MCA);
	case MSR_MISC_ENABLE: *value = c->misc_enable; return true;
	case MSR_PAT: *value = c->pat; return has(c, CPUID_PAT);
	case MSR_EFER: *value = c->efer; return c->ext_features_edx & CPUID_EXT_NX;
	default: return false;
	}
}

/* ---- Writing ---- */

/* Memory types of MTRRs: UC, WC, WT, WP, WB; the PAT has UC- too (SDM vol. 3A, tables 11-8 and
 * 11-10). */
static bool memory_type_ok(unsigned type, bool pat)
{
	return type == 0 || type == 1 || (type >= 4 && type <= 6) || (pat && type == 7);
}

static bool memory_types_ok(uint64_t value, bool pat)
{
	for (unsigned n = 0; n < 8; n++) {
		if (!memory_type_ok(value >> 8 * n & 0xFF, pat))
			return false;
	}
	return true;
}

/* All bits of a physical address. */
static uint64_t physical_mask(const struct soft_cpu *c)
{
	return (uint64_t)~c->phys_mask_high << 32 | UINT32_MAX;
}

static bool write_mtrr(struct soft_cpu *c, uint32_t index, uint64_t value)
{
	uint64_t *fixed = fixed_mtrr(c, index);
	if (fixed) {
		if (!memory_types_ok(value, false))
			return false;
		*fixed = value;
		return true;
	}
	if (index == MSR_MTRR_DEF_TYPE) {
		if ((value & ~(uint64_t)MTRR_DEF_TYPE) || !memory_type_ok(value & 0xFF, false))
			return false;
		c->mtrr_def_type = value;
		return true;
	}
	if (index < MSR_MTRR_PHYS_FIRST || index > MSR_MTRR_PHYS_LAST)
		return false;
	bool is_mask = index & 1;
	uint64_t page_bits = physical_mask(c) & ~UINT64_C(0xFFF);
	if (value & ~(page_bits | (is_mask ? MTRR_MASK_VALID : 0xFF)))
		return false;
	if (!is_mask && !memory_type_ok(value & 0xFF, false))
		return false;
	c->mtrr_phys[index - MSR_MTRR_PHYS_FIRST] = value;
	return true;
}

static bool write_apic_base(struct soft_cpu *c, uint64_t value)
{
	uint64_t page_bits = physical_mask(c) & ~UINT64_C(0xFFF);
	if ((value & ~(page_bits | APIC_BASE_ENABLE | APIC_BASE_BSP)))
		return false;
	/* The BSP flag is read-only. */
	c->apic_base = (value & ~(uint64_t)APIC_BASE_BSP) | (c->apic_base & APIC_BASE_BSP);
	if (c->config.apic_base_changed) {
		machine_enter(c);
		c->config.apic_base_changed(c->config.opaque, c->config.index, c->apic_base);
		machine_leave(c);
	}
	return true;
}

static bool write_efer(struct soft_cpu *c, uint64_t value)
{
	if (value & ~EFER_NXE)
		return false;
	if (value != c->efer) {
		c->efer = value;
		tlb_flush_all(c);
	}
	return true;
}

static bool write_msr(struct soft_cpu *c, uint32_t index, uint64_t value)
{
	uint64_t old;
	if (!read_msr(c, index, &old)) /* there is none that can only be written */
		return false;
	switch (index) {
	case MSR_P5_MC_ADDR:
	case MSR_P5_MC_TYPE:
	case MSR_MCG_STATUS: return value == 0;
	case MSR_TSC: c->tsc_offset = value - tsc_source(c); return true;
	case MSR_APIC_BASE: return write_apic_base(c, value);
	case MSR_BIOS_SIGN_ID: return true; /* CPUID would put the microcode revision there: 0 */
	case MSR_SYSENTER_CS: c->sysenter_cs = (uint32_t)value; return true;
	case MSR_SYSENTER_ESP: c->sysenter_esp = (uint32_t)value; return true;
	case MSR_SYSENTER_EIP: c->sysenter_eip = (uint32_t)value; return true;
	case MSR_MISC_ENABLE:
		/* What is not writable keeps its value: firmware and systems rewrite all they read.
		 */
		c->misc_enable = (c->misc_enable & ~(uint64_t)MISC_ENABLE_WRITABLE) |
				 (value & MISC_ENABLE_WRITABLE);
		return true;
	case MSR_PAT:
		if (!memory_types_ok(value, true))
			return false;
		c->pat = value;
		return true;
	case MSR_EFER: return write_efer(c, value);
	default: return write_mtrr(c, index, value);
	}
}

/* ---- Instructions ---- */

static void check_msr_access(struct soft_cpu *c)
{
	if (!has(c, CPUID_MSR))
		cpu_ud(c);
	if (c->cpl != 0)
		cpu_gp0(c);
}

void op_rdmsr(struct soft_cpu *c, const struct insn *i)
{
	uint64_t value;
	check_msr_access(c);
	if (!read_msr(c, c->gpr[R_ECX], &value)) {
		trace(TRACE_UNASSIGNED, "cpu %u: rdmsr %x at %08x", c->config.index, c->gpr[R_ECX],
		      c->eip);
		cpu_gp0(c);
	}
	return_edx_eax(c, value);
}

void op_wrmsr(struct soft_cpu *c, const struct insn *i)
{
	uint64_t value = (uint64_t)c->gpr[R_EDX] << 32 | c->gpr[R_EAX];
	check_msr_access(c);
	if (!write_msr(c, c->gpr[R_ECX], value)) {
		trace(TRACE_UNASSIGNED, "cpu %u: wrmsr %x = %llx at %08x", c->config.index,
		      c->gpr[R_ECX], (unsigned long long)value, c->eip);
		cpu_gp0(c);
	}
	cpu_end_block(c);
}
