/* SPDX-License-Identifier: MIT */
/* The software CPU from outside: its life, its pins, its state. See soft_cpu.h. */
#include "cpu/soft_cpu.h"
#include "core/memory.h"
#include "cpu/jit.h"
#include "cpu/ops.h"
#include "cpu/sse_ext.h"
#include <errno.h>
#include <stdlib.h>

/* ---- Features: the model's, as far as this CPU executes them ---- */

enum {
	CPUID_HTT = 1 << 28,
	CAN_EDX = CPUID_FPU | CPUID_DE | CPUID_PSE | CPUID_TSC | CPUID_MSR | CPUID_PAE | CPUID_MCE |
		  CPUID_CX8 | CPUID_APIC | CPUID_SEP | CPUID_MTRR | CPUID_PGE | CPUID_MCA |
		  CPUID_CMOV | CPUID_PAT | CPUID_PSE36 | CPUID_CLFSH | CPUID_MMX | CPUID_FXSR |
		  CPUID_SSE | CPUID_SSE2 | CPUID_HTT,
	CPUID_ECX_POPCNT = 1 << 23,
	CAN_ECX = (int)((uint32_t)CPUID_ECX_HYPERVISOR | CPUID_ECX_POPCNT), /* and sse_ext.h's */
	/* AMD repeats in 80000001:EDX most of leaf 1's bits. */
	CAN_EXT_EDX = (CAN_EDX & 0x0183F3FF) | CPUID_EXT_NX,
};

static void setup_features(struct soft_cpu *c)
{
	enum { LEAF_FEATURES = 1, DEFAULT_PHYS_BITS = 36, MAX_PHYS_BITS = 52 };
	const uint32_t LEAF_EXT_FEATURES = 0x80000001, LEAF_ADDRESS_SIZES = 0x80000008;
	struct cpu_model model = *c->config.model;
	struct cpuid_leaf leaf;
	unsigned bits = DEFAULT_PHYS_BITS;

	model.features_edx &= CAN_EDX;
	model.features_ecx &= (uint32_t)CAN_ECX | sse_ext_host_features();
	model.ext_features_edx &= CAN_EXT_EDX;
	model.ext_features_ecx = 0;
	c->leaf_count = cpu_model_leaves(&model, c->config.index, c->config.cpus, c->leaves);
	cpuid_lookup(c->leaves, c->leaf_count, LEAF_FEATURES, 0, &leaf);
	c->features_edx = leaf.edx;
	c->features_ecx = leaf.ecx;
	for (unsigned n = 0; n < c->leaf_count; n++) {
		if (c->leaves[n].function == LEAF_EXT_FEATURES)
			c->ext_features_edx = c->leaves[n].edx;
		if (c->leaves[n].function == LEAF_ADDRESS_SIZES && (c->leaves[n].eax & 0xFF) > 32)
			bits = c->leaves[n].eax & 0xFF;
	}
	if (bits > MAX_PHYS_BITS)
		bits = MAX_PHYS_BITS;
	c->phys_mask_high = ~(uint32_t)((UINT64_C(1) << (bits - 32)) - 1);
}

struct soft_cpu *soft_cpu_new(const struct soft_cpu_config *config, struct error *err)
{
	struct soft_cpu *c = aligned_alloc(64, round_up(sizeof(*c), 64));

	if (!c) {
		error_set(err, ENOMEM, "no memory for a software CPU");
		return NULL;
	}
	memset(c, 0, sizeof(*c));
	c->config = *config;
	c->single = calloc(1, sizeof(*c->single) + sizeof(struct insn));
	if (!c->single) {
		error_set(err, ENOMEM, "no memory for a software CPU");
		goto fail;
	}
	setup_features(c);
	for (unsigned t = 0; t < 2; t++)
		for (unsigned n = 0; n < TLB_SIZE; n++)
			c->tlbs[t].read[n].tag = c->tlbs[t].write[n].tag = c->tlbs[t].exec[n].tag =
				TLB_INVALID;
	if (code_attach(c, err) < 0)
		goto fail;
	cpu_reset_state(c, config->index == 0);
	return c;
fail:
	jit_tables_free(c);
	jit_verify_free(c);
	code_detach(c);
	free(c->single);
	free(c);
	return NULL;
}

void soft_cpu_free(struct soft_cpu *c)
{
	if (!c)
		return;
	jit_tables_free(c);
	jit_verify_free(c);
	code_detach(c);
	free(c->single);
	free(c);
}

void cpu_reset_state(struct soft_cpu *c, bool bsp)
{
	struct cpu_state s;

	cpu_state_reset(&s, bsp, cpu_model_signature(c->config.model));
	soft_cpu_set_state(c, &s);
}

/* ---- Pins ---- */

void soft_cpu_set_intr(struct soft_cpu *c, bool level)
{
	if (level)
		atomic_fetch_or(&c->requests, REQ_INTR);
	else
		atomic_fetch_and(&c->requests, ~(uint32_t)REQ_INTR);
}

void soft_cpu_nmi(struct soft_cpu *c)
{
	atomic_fetch_or(&c->requests, REQ_NMI);
}

void soft_cpu_init(struct soft_cpu *c)
{
	/* A start-up message that came before INIT is gone. */
	atomic_fetch_and(&c->requests, ~(uint32_t)REQ_SIPI);
	atomic_fetch_or(&c->requests, REQ_INIT);
}

void soft_cpu_sipi(struct soft_cpu *c, uint8_t vector)
{
	c->sipi_vector = vector;
	atomic_fetch_or(&c->requests, REQ_SIPI);
}

void soft_cpu_kick(struct soft_cpu *c)
{
	atomic_fetch_or(&c->requests, REQ_KICK);
}

void soft_cpu_flush_tlb(struct soft_cpu *c)
{
	atomic_fetch_or(&c->requests, REQ_FLUSH);
}

bool soft_cpu_has_work(const struct soft_cpu *c)
{
	uint32_t requests = atomic_load(&c->requests);

	if (requests & (REQ_KICK | REQ_INIT))
		return true;
	switch (c->activity) {
	case CPU_HALTED:
		return c->db_status || (requests & REQ_NMI && !c->nmi_masked) ||
		       (requests & REQ_INTR && c->eflags & FL_IF);
	case CPU_WAIT_SIPI: return requests & REQ_SIPI;
	default: return true;
	}
}

uint64_t soft_cpu_instructions(const struct soft_cpu *c)
{
	return c->instructions;
}

bool soft_cpu_translate(struct soft_cpu *c, uint32_t va, uint64_t *gpa)
{
	return mmu_translate(c, va, gpa);
}

/* ---- State ---- */

void soft_cpu_get_state(const struct soft_cpu *c, struct cpu_state *s)
{
	struct fpu fpu;

	memset(s, 0, sizeof(*s));
	memcpy(s->gpr, c->gpr, sizeof(s->gpr));
	s->eip = c->next_eip;
	s->eflags = flags_get(c);
	memcpy(s->seg, c->seg, sizeof(s->seg));
	s->ldt = c->ldt;
	s->tr = c->tr;
	s->gdt = c->gdt;
	s->idt = c->idt;
	s->cr0 = c->cr0;
	s->cr2 = c->cr2;
	s->cr3 = c->cr3;
	s->cr4 = c->cr4;
	memcpy(s->dr, c->dr, sizeof(s->dr));
	s->tsc = cpu_tsc(c);
	s->efer = c->efer;
	s->apic_base = c->apic_base;
	s->sysenter_cs = c->sysenter_cs;
	s->sysenter_esp = c->sysenter_esp;
	s->sysenter_eip = c->sysenter_eip;
	s->pat = c->pat;
	s->misc_enable = c->misc_enable;
	s->mtrr_def_type = c->mtrr_def_type;
	memcpy(s->mtrr_phys, c->mtrr_phys, sizeof(s->mtrr_phys));
	memcpy(s->mtrr_fixed, c->mtrr_fixed, sizeof(s->mtrr_fixed));
	memcpy(s->pdpte, c->pdpte, sizeof(s->pdpte));
	jit_fpu_read(c, &fpu);
	fpu_store_fxsave(&fpu, s->fxsave);
	s->activity = c->activity;
	s->interrupt_shadow = c->interrupt_shadow != SHADOW_NONE;
	s->nmi_pending = atomic_load(&c->requests) & REQ_NMI;
	s->nmi_masked = c->nmi_masked;
}

void cpu_load_state(struct soft_cpu *c, const struct cpu_state *s)
{
	memcpy(c->gpr, s->gpr, sizeof(s->gpr));
	c->eip = c->next_eip = s->eip;
	memcpy(c->seg, s->seg, sizeof(c->seg));
	c->ldt = s->ldt;
	c->tr = s->tr;
	c->gdt = s->gdt;
	c->idt = s->idt;
	c->cr0 = s->cr0;
	c->cr2 = s->cr2;
	c->cr3 = s->cr3;
	c->cr4 = s->cr4;
	memcpy(c->dr, s->dr, sizeof(c->dr));
	c->tsc_offset += s->tsc - cpu_tsc(c);
	c->efer = s->efer;
	c->apic_base = s->apic_base;
	c->sysenter_cs = s->sysenter_cs;
	c->sysenter_esp = s->sysenter_esp;
	c->sysenter_eip = s->sysenter_eip;
	c->pat = s->pat;
	c->misc_enable = s->misc_enable;
	c->mtrr_def_type = s->mtrr_def_type;
	memcpy(c->mtrr_phys, s->mtrr_phys, sizeof(c->mtrr_phys));
	memcpy(c->mtrr_fixed, s->mtrr_fixed, sizeof(c->mtrr_fixed));
	memcpy(c->pdpte, s->pdpte, sizeof(c->pdpte));
	jit_fpu_home(c);
	fpu_load_fxsave(&c->fpu, s->fxsave);
	c->activity = s->activity;
	c->interrupt_shadow = s->interrupt_shadow ? SHADOW_STI : SHADOW_NONE;
	c->nmi_masked = s->nmi_masked;
	if (s->nmi_pending)
		atomic_fetch_or(&c->requests, REQ_NMI);
	else
		atomic_fetch_and(&c->requests, ~(uint32_t)REQ_NMI);
	c->db_status = 0;
	c->delivering = false;
	c->fault_is_trap = false;

	flags_set_all(c, s->eflags);
	cpu_mode_changed(c);
	debug_changed(c);
	/* Whoever sets the state may have set memory too. */
	code_flush(c->code);
}

void soft_cpu_set_state(struct soft_cpu *c, const struct cpu_state *s)
{
	/* Messages to the CPU that was are none to the one that will be. */
	atomic_fetch_and(&c->requests, ~(uint32_t)(REQ_INIT | REQ_SIPI));
	cpu_load_state(c, s);
}
