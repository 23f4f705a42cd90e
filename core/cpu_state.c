/* SPDX-License-Identifier: MIT */
/*
 * The state after RESET and INIT (SDM vol. 3A, table 9-1), and the dump that `info registers`
 * prints.
 */
#include "core/cpu_state.h"
#include "lib/bytes.h"
#include "lib/strbuf.h"
#include <string.h>

enum {
	FCW_RESET = 0x0040, /* SDM vol. 3A, table 9-1: after RESET, before FINIT */
	MXCSR_RESET = 0x1F80,
	DR6_RESET = (int)0xFFFF0FF0,
	DR7_RESET = 0x400,

	TYPE_DATA_RW = SEG_RW | SEG_ACCESSED,
	TYPE_LDT = 2,
	TYPE_BUSY_TSS = 11,
};

#define PAT_RESET         UINT64_C(0x0007040600070406) /* SDM vol. 3A, table 11-12 */
#define APIC_BASE_RESET   UINT64_C(0xFEE00800)         /* enabled */
#define APIC_BASE_BSP     UINT64_C(0x100)
#define MISC_FAST_STRINGS UINT64_C(1)

void cpu_state_reset(struct cpu_state *s, bool bsp, uint32_t signature)
{
	memset(s, 0, sizeof(*s));
	s->gpr[R_EDX] = signature;
	s->eip = 0xFFF0;
	s->eflags = FL_1;
	for (int i = 0; i < 6; i++) {
		s->seg[i].limit = 0xFFFF;
		s->seg[i].attr = SEG_P | SEG_S | TYPE_DATA_RW;
	}
	/* The first instruction is fetched 16 bytes below 4 GiB. */
	s->seg[S_CS].selector = 0xF000;
	s->seg[S_CS].base = 0xFFFF0000;
	s->seg[S_CS].attr = SEG_P | SEG_S | SEG_CODE | SEG_RW | SEG_ACCESSED;
	s->gdt.limit = s->idt.limit = 0xFFFF;
	s->ldt.limit = s->tr.limit = 0xFFFF;
	s->ldt.attr = SEG_P | TYPE_LDT;
	s->tr.attr = SEG_P | TYPE_BUSY_TSS;
	s->cr0 = CR0_CD | CR0_NW | CR0_ET;
	s->dr[6] = (uint32_t)DR6_RESET;
	s->dr[7] = DR7_RESET;
	s->apic_base = APIC_BASE_RESET | (bsp ? APIC_BASE_BSP : 0);
	s->pat = PAT_RESET;
	s->misc_enable = MISC_FAST_STRINGS;
	store_le16(s->fxsave + FX_CW, FCW_RESET);
	s->fxsave[FX_TAGS] = 0xFF; /* abridged tags: all valid (zero), table 9-1 */
	store_le32(s->fxsave + FX_MXCSR, MXCSR_RESET);
	s->activity = bsp ? CPU_RUNNING : CPU_WAIT_SIPI;
}

void cpu_state_signal_init(struct cpu_state *s, uint32_t signature)
{
	const struct cpu_state old = *s;

	cpu_state_reset(s, old.apic_base & APIC_BASE_BSP, signature);
	s->cr0 = CR0_ET | (old.cr0 & (CR0_CD | CR0_NW));
	memcpy(s->fxsave, old.fxsave, sizeof(s->fxsave));
	s->tsc = old.tsc;
	s->apic_base = old.apic_base;
	s->sysenter_cs = old.sysenter_cs;
	s->sysenter_esp = old.sysenter_esp;
	s->sysenter_eip = old.sysenter_eip;
	s->pat = old.pat;
	s->misc_enable = old.misc_enable;
	s->mtrr_def_type = old.mtrr_def_type;
	memcpy(s->mtrr_phys, old.mtrr_phys, sizeof(s->mtrr_phys));
	memcpy(s->mtrr_fixed, old.mtrr_fixed, sizeof(s->mtrr_fixed));
	s->kvm_wall_clock = old.kvm_wall_clock;
	s->kvm_system_time = old.kvm_system_time;
}

static void print_segment(struct strbuf *out, const char *name, const struct cpu_segment *seg)
{
	strbuf_printf(out, "%-3s=%04x %08x %08x %04x", name, seg->selector, seg->base, seg->limit,
		      seg->attr);
	if (seg->attr & SEG_S) {
		bool code = seg->attr & SEG_CODE;
		strbuf_printf(out, " DPL=%d %s%s [%c%c%c]", (seg->attr & SEG_DPL) >> SEG_DPL_SHIFT,
			      code ? "CS" : "DS", seg->attr & SEG_DB ? "32" : "16",
			      seg->attr & SEG_CE ? (code ? 'C' : 'E') : '-',
			      seg->attr & SEG_RW ? (code ? 'R' : 'W') : '-',
			      seg->attr & SEG_ACCESSED ? 'A' : '-');
	}
	strbuf_puts(out, "\n");
}

void cpu_state_print(const struct cpu_state *s, struct strbuf *out)
{
	static const char *const gpr[] = {"EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI"};
	static const uint8_t order[] = {R_EAX, R_EBX, R_ECX, R_EDX, R_ESI, R_EDI, R_EBP, R_ESP};
	static const char *const sreg[] = {"ES", "CS", "SS", "DS", "FS", "GS"};
	static const struct {
		uint32_t bit;
		char letter;
	} flags[] = {{FL_DF, 'D'}, {FL_OF, 'O'}, {FL_SF, 'S'}, {FL_ZF, 'Z'},
		     {FL_AF, 'A'}, {FL_PF, 'P'}, {FL_CF, 'C'}};
	char letters[ARRAY_SIZE(flags) + 1] = "";

	for (size_t i = 0; i < ARRAY_SIZE(order); i++)
		strbuf_printf(out, "%s=%08x%c", gpr[order[i]], s->gpr[order[i]],
			      i % 4 == 3 ? '\n' : ' ');
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		letters[i] = s->eflags & flags[i].bit ? flags[i].letter : '-';
	int cpl = (s->seg[S_SS].attr & SEG_DPL) >> SEG_DPL_SHIFT;
	strbuf_printf(out, "EIP=%08x EFL=%08x [%s] CPL=%d II=%d HLT=%d\n", s->eip, s->eflags,
		      letters, cpl, s->interrupt_shadow, s->activity == CPU_HALTED);
	for (int i = 0; i < 6; i++)
		print_segment(out, sreg[i], &s->seg[i]);
	print_segment(out, "LDT", &s->ldt);
	print_segment(out, "TR", &s->tr);
	strbuf_printf(out, "GDT=     %08x %08x\nIDT=     %08x %08x\n", s->gdt.base, s->gdt.limit,
		      s->idt.base, s->idt.limit);
	strbuf_printf(out, "CR0=%08x CR2=%08x CR3=%08x CR4=%08x\n", s->cr0, s->cr2, s->cr3, s->cr4);
	strbuf_printf(out, "DR0=%08x DR1=%08x DR2=%08x DR3=%08x\nDR6=%08x DR7=%08x\n", s->dr[0],
		      s->dr[1], s->dr[2], s->dr[3], s->dr[6], s->dr[7]);
	strbuf_printf(out, "EFER=%016llx\n", (unsigned long long)s->efer);
	strbuf_printf(out, "FCW=%04x FSW=%04x [ST=%d] FTW=%02x MXCSR=%08x\n",
		      load_le16(s->fxsave + FX_CW), load_le16(s->fxsave + FX_SW),
		      load_le16(s->fxsave + FX_SW) >> 11 & 7, s->fxsave[FX_TAGS],
		      load_le32(s->fxsave + FX_MXCSR));
	for (int i = 0; i < 8; i++)
		strbuf_printf(out, "FPR%d=%016llx %04x%c", i,
			      (unsigned long long)load_le64(s->fxsave + FX_ST + 16 * i),
			      load_le16(s->fxsave + FX_ST + 16 * i + 8), i % 2 ? '\n' : ' ');
	for (int i = 0; i < 8; i++)
		strbuf_printf(out, "XMM%02d=%016llx%016llx%c", i,
			      (unsigned long long)load_le64(s->fxsave + FX_XMM + 16 * i + 8),
			      (unsigned long long)load_le64(s->fxsave + FX_XMM + 16 * i),
			      i % 2 ? '\n' : ' ');
}
