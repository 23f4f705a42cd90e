/* SPDX-License-Identifier: MIT */
/*
 * Instructions that rule the processor: flags (CLI STI PUSHF POPF), HLT, descriptor table registers
 * and machine status word (0F 01), control and debug registers, caches, SYSENTER and SYSEXIT. See
 * SDM vol. 2 under each name; vol. 3A, 2.5 for the control registers; vol. 3B, 17.2 for the debug
 * registers.
 *
 * Left out because CPUID does not offer them: the virtual interrupt flag (CR4.VME, CR4.PVI), SMM.
 */
#include "cpu/desc.h"

static void need_cpl0(struct soft_cpu *c)
{
	if (c->cpl != 0)
		cpu_gp0(c);
}

/* ---- Flags ---- */

static unsigned iopl(const struct soft_cpu *c)
{
	return (c->eflags & FL_IOPL) >> FL_IOPL_SHIFT;
}

/* CLI and STI: the CPL must not exceed IOPL; V86 code runs at CPL 3. */
static void need_iopl(struct soft_cpu *c)
{
	if (c->cpl > iopl(c))
		cpu_gp0(c);
}

void op_cli(struct soft_cpu *c, const struct insn *i)
{
	need_iopl(c);
	c->eflags &= ~(uint32_t)FL_IF;
}

void op_sti(struct soft_cpu *c, const struct insn *i)
{
	need_iopl(c);
	if (c->eflags & FL_IF)
		return;
	c->eflags |= FL_IF;
	c->interrupt_shadow = SHADOW_STI;
	cpu_end_block(c);
}

/* PUSHF and POPF in V86 mode with IOPL < 3 trap to the monitor. */
static void need_v86_iopl(struct soft_cpu *c)
{
	if (c->v86 && iopl(c) != 3)
		cpu_gp0(c);
}

void op_pushf(struct soft_cpu *c, const struct insn *i)
{
	need_v86_iopl(c);
	push_op(c, i->opsize32, flags_get(c) & ~(uint32_t)(FL_VM | FL_RF));
}

void op_popf(struct soft_cpu *c, const struct insn *i)
{
	need_v86_iopl(c);
	uint32_t mask = FL_ARITH | FL_TF | FL_DF | FL_NT, cleared = 0;
	if (i->opsize32) {
		mask |= FL_AC | FL_ID;
		cleared = FL_RF;
		if (c->cpl == 0)
			cleared |= FL_VIF | FL_VIP;
	}
	if (c->cpl <= iopl(c))
		mask |= FL_IF;
	if (c->cpl == 0)
		mask |= FL_IOPL;
	uint32_t value = pop_op(c, i->opsize32);
	flags_set_all(c, (flags_get(c) & ~(mask | cleared)) | (value & mask) | FL_1);
}

void op_hlt(struct soft_cpu *c, const struct insn *i)
{
	need_cpl0(c);
	c->activity = CPU_HALTED;
	cpu_end_block(c);
}

/*
 * A CPU that spins gives up its turn: what it waits for is done by another one, perhaps inside what
 * would be a single block here (a lock that is let go and taken again), so waiting for the end of
 * the slice could take for ever.
 */
void op_pause(struct soft_cpu *c, const struct insn *i)
{
	if (c->config.cpus > 1)
		c->budget_end = 0;
}

/* ---- 0F 01 ---- */

static void store_table(struct soft_cpu *c, const struct insn *i, const struct cpu_table *t)
{
	uint8_t image[6];
	store_le16(image, t->limit);
	store_le32(image + 2, t->base);
	st_bytes(c, i->seg, effective_address(c, i), image, sizeof(image));
}

static void load_table(struct soft_cpu *c, const struct insn *i, struct cpu_table *t)
{
	enum { BASE_286 = 0x00FFFFFF }; /* a 16-bit operand has a 24-bit base */
	uint8_t image[6];
	need_cpl0(c);
	ld_bytes(c, i->seg, effective_address(c, i), image, sizeof(image));
	t->limit = load_le16(image);
	t->base = load_le32(image + 2) & (i->opsize32 ? UINT32_MAX : BASE_286);
}

static void write_cr0(struct soft_cpu *c, uint32_t value);

static void op_smsw(struct soft_cpu *c, const struct insn *i)
{
	if (i->is_mem)
		st16(c, i->seg, effective_address(c, i), (uint16_t)c->cr0);
	else if (i->opsize32)
		c->gpr[i->rm] = c->cr0;
	else
		*reg16(c, i->rm) = (uint16_t)c->cr0;
}

static void op_lmsw(struct soft_cpu *c, const struct insn *i)
{
	const uint32_t msw = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
	need_cpl0(c);
	uint32_t value = i->is_mem ? ld16(c, i->seg, effective_address(c, i)) : c->gpr[i->rm];
	/* PE can be set this way but not cleared. */
	write_cr0(c, (c->cr0 & (~msw | CR0_PE)) | (value & msw));
}

static void op_invlpg(struct soft_cpu *c, const struct insn *i)
{
	need_cpl0(c);
	tlb_flush_page(c, c->seg[i->seg].base + effective_address(c, i));
	cpu_end_block(c);
}

void op_grp7(struct soft_cpu *c, const struct insn *i)
{
	/* With a register operand, 0, 1, 2, 3 and 7 encode extensions that this processor does not
	 * have. */
	bool needs_memory = i->reg != 4 && i->reg != 6;
	if (needs_memory && !i->is_mem)
		cpu_ud(c);
	switch (i->reg) {
	case 0: store_table(c, i, &c->gdt); break;
	case 1: store_table(c, i, &c->idt); break;
	case 2: load_table(c, i, &c->gdt); break;
	case 3: load_table(c, i, &c->idt); break;
	case 4: op_smsw(c, i); break;
	case 6: op_lmsw(c, i); break;
	case 7: op_invlpg(c, i); break;
	default: cpu_ud(c);
	}
}

/* ---- Control registers ---- */

static bool pae_paging(uint32_t cr0, uint32_t cr4)
{
	return (cr0 & CR0_PG) && (cr4 & CR4_PAE);
}

/* SDM vol. 2, "MOV—Move to/from Control Registers"; vol. 3A, 4.4.1 for when the PDPTEs are loaded.
 */
static void write_cr0(struct soft_cpu *c, uint32_t value)
{
	const uint32_t defined = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM |
				 CR0_NW | CR0_CD | CR0_PG;
	value = (value & defined) | CR0_ET;
	if ((value & CR0_PG) && !(value & CR0_PE))
		cpu_gp0(c);
	if ((value & CR0_NW) && !(value & CR0_CD))
		cpu_gp0(c);
	uint32_t changed = c->cr0 ^ value;
	if (pae_paging(value, c->cr4) && (changed & (CR0_PG | CR0_CD | CR0_NW)))
		mmu_load_pdptes(c, c->cr3);
	c->cr0 = value;
	if (changed & (CR0_PG | CR0_WP | CR0_PE))
		tlb_flush_all(c);
	if (changed & (CR0_PE | CR0_PG))
		trace(TRACE_CPU, "cpu %u: cr0 %08x at %08x", c->config.index, value, c->eip);
	cpu_mode_changed(c);
	cpu_end_block(c);
}

static void write_cr3(struct soft_cpu *c, uint32_t value)
{
	if (pae_paging(c->cr0, c->cr4))
		mmu_load_pdptes(c, value);
	c->cr3 = value;
	tlb_flush_non_global(c);
	cpu_end_block(c);
}

/* The bits of CR4 that the features in CPUID bring; all others are reserved. */
static uint32_t cr4_defined(const struct soft_cpu *c)
{
	static const struct {
		uint32_t feature, bits;
	} table[] = {
		{CPUID_VME, CR4_VME | CR4_PVI}, {CPUID_TSC, CR4_TSD}, {CPUID_DE, CR4_DE},
		{CPUID_PSE, CR4_PSE},           {CPUID_PAE, CR4_PAE}, {CPUID_MCE, CR4_MCE},
		{CPUID_PGE, CR4_PGE},           {CPUID_MMX, CR4_PCE}, {CPUID_FXSR, CR4_OSFXSR},
		{CPUID_SSE, CR4_OSXMMEXCPT},
	};
	uint32_t bits = 0;
	for (unsigned n = 0; n < ARRAY_SIZE(table); n++) {
		if (c->features_edx & table[n].feature)
			bits |= table[n].bits;
	}
	return bits;
}

static void write_cr4(struct soft_cpu *c, uint32_t value)
{
	if (value & ~cr4_defined(c))
		cpu_gp0(c);
	uint32_t changed = c->cr4 ^ value, paging = CR4_PSE | CR4_PAE | CR4_PGE;
	if (pae_paging(c->cr0, value) && (changed & paging))
		mmu_load_pdptes(c, c->cr3);
	c->cr4 = value;
	if (changed & paging)
		tlb_flush_all(c);
	if (changed & CR4_DE)
		debug_changed(c);
	cpu_mode_changed(c);
	cpu_end_block(c);
}

void op_mov_from_cr(struct soft_cpu *c, const struct insn *i)
{
	uint32_t value;
	switch (i->reg) {
	case 0: value = c->cr0; break;
	case 2: value = c->cr2; break;
	case 3: value = c->cr3; break;
	case 4: value = c->cr4; break;
	default: cpu_ud(c);
	}
	need_cpl0(c);
	c->gpr[i->rm] = value;
}

void op_mov_to_cr(struct soft_cpu *c, const struct insn *i)
{
	uint32_t value = c->gpr[i->rm];
	if (i->reg != 0 && i->reg != 2 && i->reg != 3 && i->reg != 4)
		cpu_ud(c);
	need_cpl0(c);
	switch (i->reg) {
	case 0: write_cr0(c, value); break;
	case 2: c->cr2 = value; break;
	case 3: write_cr3(c, value); break;
	default: write_cr4(c, value); break;
	}
}

void op_clts(struct soft_cpu *c, const struct insn *i)
{
	need_cpl0(c);
	c->cr0 &= ~CR0_TS;
	cpu_mode_changed(c);
	cpu_end_block(c);
}

/* ---- Debug registers ---- */

enum {
	DR6_BD = 1 << 13,
	DR6_WRITABLE = 0xE00F, /* B0..B3, BD, BS, BT */
	DR7_GD = 1 << 13,
	DR7_ONES = 0x400,
	DR7_ZEROS = 0xD800,
};
#define DR6_ONES UINT32_C(0xFFFF0FF0)

/* DR4 and DR5 are other names of DR6 and DR7, or #UD with CR4.DE. With DR7.GD any access is a #DB.
 */
static unsigned check_debug_access(struct soft_cpu *c, const struct insn *i)
{
	unsigned n = i->reg;
	if (n == 4 || n == 5) {
		if (c->cr4 & CR4_DE)
			cpu_ud(c);
		n += 2;
	}
	need_cpl0(c);
	if (c->dr[7] & DR7_GD) {
		c->dr[6] |= DR6_BD;
		c->dr[7] &= ~(uint32_t)DR7_GD;
		cpu_raise(c, EXC_DB);
	}
	return n;
}

void op_mov_from_dr(struct soft_cpu *c, const struct insn *i)
{
	c->gpr[i->rm] = c->dr[check_debug_access(c, i)];
}

void op_mov_to_dr(struct soft_cpu *c, const struct insn *i)
{
	unsigned n = check_debug_access(c, i);
	uint32_t value = c->gpr[i->rm];
	if (n == 6)
		value = (value & DR6_WRITABLE) | DR6_ONES;
	else if (n == 7)
		value = (value & ~(uint32_t)DR7_ZEROS) | DR7_ONES;
	c->dr[n] = value;
	if (n != 6)
		debug_changed(c);
	cpu_end_block(c);
}

/* ---- Caches: there are none to write back ---- */

void op_invd(struct soft_cpu *c, const struct insn *i)
{
	need_cpl0(c);
}

void op_wbinvd(struct soft_cpu *c, const struct insn *i)
{
	need_cpl0(c);
}

/* RSM outside system-management mode (SDM vol. 3C, 30.3). */
void op_rsm(struct soft_cpu *c, const struct insn *i)
{
	cpu_ud(c);
}

/* ---- SYSENTER and SYSEXIT: flat segments that no descriptor is read for ---- */

static void set_flat_segments(struct soft_cpu *c, uint16_t cs, uint16_t ss, unsigned cpl)
{
	const uint16_t common = (uint16_t)(SEG_G | SEG_DB | SEG_P | SEG_S | SEG_RW | SEG_ACCESSED |
					   cpl << SEG_DPL_SHIFT);
	c->seg[S_CS] = (struct cpu_segment){
		.selector = (uint16_t)(cs | cpl), .attr = common | SEG_CODE, .limit = UINT32_MAX};
	c->seg[S_SS] = (struct cpu_segment){
		.selector = (uint16_t)(ss | cpl), .attr = common, .limit = UINT32_MAX};
}

static uint16_t sysenter_selector(struct soft_cpu *c)
{
	if (!(c->features_edx & CPUID_SEP))
		cpu_ud(c);
	uint16_t selector = (uint16_t)(c->sysenter_cs & ~(uint32_t)SEL_RPL);
	if (!(c->cr0 & CR0_PE) || !selector)
		cpu_gp0(c);
	return selector;
}

void op_sysenter(struct soft_cpu *c, const struct insn *i)
{
	uint16_t selector = sysenter_selector(c);
	set_flat_segments(c, selector, (uint16_t)(selector + 8), 0);
	c->gpr[R_ESP] = c->sysenter_esp;
	c->next_eip = c->sysenter_eip;
	flags_set_all(c, flags_get(c) & ~(uint32_t)(FL_VM | FL_IF | FL_RF));
	cpu_mode_changed(c);
	cpu_end_block(c);
}

void op_sysexit(struct soft_cpu *c, const struct insn *i)
{
	uint16_t selector = sysenter_selector(c);
	need_cpl0(c);
	set_flat_segments(c, (uint16_t)(selector + 16), (uint16_t)(selector + 24), 3);
	c->gpr[R_ESP] = c->gpr[R_ECX];
	c->next_eip = c->gpr[R_EDX];
	cpu_mode_changed(c);
	cpu_end_block(c);
}
