/* SPDX-License-Identifier: MIT */
/*
 * The whole architectural state of one 32-bit x86 processor, as the monitor, reset, the tests and
 * both engines exchange it. Names and layouts are those of the Intel SDM,
 * volumes 1 and 3A.
 */
#ifndef CORE_CPU_STATE_H
#define CORE_CPU_STATE_H

#include <stdbool.h>
#include <stdint.h>

enum cpu_gpr { R_EAX, R_ECX, R_EDX, R_EBX, R_ESP, R_EBP, R_ESI, R_EDI };
enum cpu_sreg { S_ES, S_CS, S_SS, S_DS, S_FS, S_GS };

/* EFLAGS (SDM vol. 1, 3.4.3). */
enum {
	FL_CF = 1 << 0,
	FL_1 = 1 << 1, /* always one */
	FL_PF = 1 << 2,
	FL_AF = 1 << 4,
	FL_ZF = 1 << 6,
	FL_SF = 1 << 7,
	FL_TF = 1 << 8,
	FL_IF = 1 << 9,
	FL_DF = 1 << 10,
	FL_OF = 1 << 11,
	FL_IOPL = 3 << 12,
	FL_NT = 1 << 14,
	FL_RF = 1 << 16,
	FL_VM = 1 << 17,
	FL_AC = 1 << 18,
	FL_VIF = 1 << 19,
	FL_VIP = 1 << 20,
	FL_ID = 1 << 21,
	FL_ARITH = FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF,
};
#define FL_IOPL_SHIFT 12

/* Control registers (SDM vol. 3A, 2.5). */
#define CR0_PE         UINT32_C(0x00000001)
#define CR0_MP         UINT32_C(0x00000002)
#define CR0_EM         UINT32_C(0x00000004)
#define CR0_TS         UINT32_C(0x00000008)
#define CR0_ET         UINT32_C(0x00000010)
#define CR0_NE         UINT32_C(0x00000020)
#define CR0_WP         UINT32_C(0x00010000)
#define CR0_AM         UINT32_C(0x00040000)
#define CR0_NW         UINT32_C(0x20000000)
#define CR0_CD         UINT32_C(0x40000000)
#define CR0_PG         UINT32_C(0x80000000)
#define CR4_VME        UINT32_C(0x001)
#define CR4_PVI        UINT32_C(0x002)
#define CR4_TSD        UINT32_C(0x004)
#define CR4_DE         UINT32_C(0x008)
#define CR4_PSE        UINT32_C(0x010)
#define CR4_PAE        UINT32_C(0x020)
#define CR4_MCE        UINT32_C(0x040)
#define CR4_PGE        UINT32_C(0x080)
#define CR4_PCE        UINT32_C(0x100)
#define CR4_OSFXSR     UINT32_C(0x200)
#define CR4_OSXMMEXCPT UINT32_C(0x400)
#define EFER_SCE       UINT64_C(0x001)
#define EFER_NXE       UINT64_C(0x800)

/* Exception vectors (SDM vol. 3A, 6.3.1). */
enum cpu_exception {
	EXC_DE = 0,
	EXC_DB = 1,
	EXC_NMI = 2,
	EXC_BP = 3,
	EXC_OF = 4,
	EXC_BR = 5,
	EXC_UD = 6,
	EXC_NM = 7,
	EXC_DF = 8,
	EXC_TS = 10,
	EXC_NP = 11,
	EXC_SS = 12,
	EXC_GP = 13,
	EXC_PF = 14,
	EXC_MF = 16,
	EXC_AC = 17,
	EXC_MC = 18,
	EXC_XM = 19,
};

/* A segment register with its descriptor cache. `limit` is in bytes, already expanded by the
 * granularity bit. `attr` is bits 8..23 of the descriptor's second dword shifted down by 8, without
 * the limit bits 16..19 (SDM vol. 3A, 3.4.5). */
struct cpu_segment {
	uint16_t selector;
	uint16_t attr;
	uint32_t base;
	uint32_t limit;
};

enum {
	SEG_TYPE = 0x000F, /* with SEG_S: bit 3 code, bit 2 conforming/expand-down, bit 1
			      readable/writable, bit 0 accessed */
	SEG_ACCESSED = 0x0001,
	SEG_RW = 0x0002, /* data: writable, code: readable */
	SEG_CE = 0x0004, /* data: expand-down, code: conforming */
	SEG_CODE = 0x0008,
	SEG_S = 0x0010, /* code or data, not system */
	SEG_DPL = 0x0060,
	SEG_P = 0x0080,
	SEG_AVL = 0x1000,
	SEG_L = 0x2000,
	SEG_DB = 0x4000, /* D (code) or B (stack, data) */
	SEG_G = 0x8000,
};
#define SEG_DPL_SHIFT 5

struct cpu_table {
	uint32_t base;
	uint16_t limit;
};

/* What the processor is doing between instructions. */
enum cpu_activity {
	CPU_RUNNING,
	CPU_HALTED,    /* HLT: until an interrupt, NMI, INIT */
	CPU_WAIT_SIPI, /* an application processor after reset or INIT */
	CPU_SHUTDOWN,  /* triple fault */
};

struct cpu_state {
	uint32_t gpr[8];
	uint32_t eip, eflags;
	struct cpu_segment seg[6];
	struct cpu_segment ldt, tr;
	struct cpu_table gdt, idt;
	uint32_t cr0, cr2, cr3, cr4;
	uint32_t dr[8]; /* DR4 and DR5 are unused */

	uint64_t tsc;
	uint64_t efer;
	uint64_t apic_base; /* IA32_APIC_BASE */
	uint32_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, misc_enable;
	uint64_t mtrr_def_type, mtrr_phys[16],
		mtrr_fixed[11]; /* base/mask pairs; 64K, 16K x2, 4K x8 */
	uint64_t pdpte[4];      /* PAE: as loaded by the last CR3 load */
	/* KVM's paravirtual clock (Linux, Documentation/virt/kvm/x86/msr.rst:
	 * MSR_KVM_WALL_CLOCK_NEW and MSR_KVM_SYSTEM_TIME_NEW); 0 where the engine has none. */
	uint64_t kvm_wall_clock, kvm_system_time;

	/* x87, MMX and SSE: the FXSAVE image (SDM vol. 1, 10.5.1), 32-bit layout. */
	uint8_t fxsave[512] __attribute__((aligned(16)));

	/* Events between instructions. */
	uint8_t activity;      /* enum cpu_activity */
	bool interrupt_shadow; /* after STI, MOV SS, POP SS */
	bool nmi_pending, nmi_masked;
	bool exception_pending; /* taken but not yet delivered (KVM: injected) */
	uint8_t exception_vector;
	bool exception_has_error;
	uint32_t exception_error;
	bool interrupt_injected; /* KVM: acknowledged, not yet delivered */
	uint8_t interrupt_vector;
};

/* Byte offsets in cpu_state.fxsave (SDM vol. 1, table 10-2). */
enum {
	FX_CW = 0,
	FX_SW = 2,
	FX_TAGS = 4, /* abridged: a bit for each register that is not empty */
	FX_FOP = 6,
	FX_FIP = 8,
	FX_FCS = 12,
	FX_FDP = 16,
	FX_FDS = 20,
	FX_MXCSR = 24,
	FX_MXCSR_MASK = 28,
	FX_ST = 32,
	FX_XMM = 160,
	FX_SLOT = 16, /* bytes from one register to the next */
};

/* The state after RESET (SDM vol. 3A, table 9-1); `bsp` false: waits for SIPI. EDX holds the CPUID
 * signature given. */
void cpu_state_reset(struct cpu_state *s, bool bsp, uint32_t signature);
/* INIT's effect on *s (SDM vol. 3A, table 9-1): as RESET, but FPU, SSE, MSRs, TSC and the cache
 * bits of CR0 stay. */
void cpu_state_signal_init(struct cpu_state *s, uint32_t signature);
/* A register dump like `info registers` prints it, into a strbuf. */
struct strbuf;
void cpu_state_print(const struct cpu_state *s, struct strbuf *out);

#endif
