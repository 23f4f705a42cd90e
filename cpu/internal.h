/* SPDX-License-Identifier: MIT */
/*
 * The inside of the software CPU, shared by the files of cpu/ alone.
 *
 * Guest code is decoded into blocks (a straight run of instructions that begin on one page, ended
 * by the first control transfer or by an instruction that changes how the following bytes decode).
 * A block is a vector of `struct insn`, each holding the function that executes it; the run loop
 * (run.c) calls one after the other.
 *
 * Exceptions: any function may raise one with cpu_raise*(), which does not return: it longjmps to
 * the run loop, which delivers it with EIP of the instruction that was executing. So an instruction
 * must change architectural state only after the last thing that can fault (or put it back),
 * exactly as the SDM's faults demand.
 */
#ifndef CPU_INTERNAL_H
#define CPU_INTERNAL_H

#include "core/cpu_model.h"
#include "core/cpu_state.h"
#include "cpu/soft_cpu.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include <setjmp.h>
#include <stdatomic.h>

struct insn;
typedef void (*op_fn)(struct soft_cpu *c, const struct insn *i);

enum { SEG_NONE = 6, INDEX_NONE = 8, BASE_NONE = 8 };
enum rep_prefix { REP_NONE, REP_NE = 0xF2, REP_E = 0xF3 };

/* One decoded instruction. */
struct insn {
	op_fn exec;
	uint16_t opcode; /* 0x0NN one-byte, 0x1NN after 0F, 0x2NN after 0F 38, 0x3NN after 0F 3A */
	uint8_t len;     /* bytes, prefixes included: 1..15 */
	uint8_t modrm;   /* the byte; 0 if the opcode has none */
	uint8_t reg;     /* ModRM.reg, or the register in the opcode's low three bits */
	uint8_t rm;      /* ModRM.rm when it names a register */
	bool is_mem;     /* ModRM names memory */
	bool opsize32;   /* operand size, prefixes applied */
	bool adsize32;   /* address size, prefixes applied */
	bool lock;
	bool prefix_66; /* as a mandatory prefix of SIMD opcodes */
	uint8_t rep;    /* enum rep_prefix: the last one seen */
	uint8_t seg;    /* enum cpu_sreg of the memory operand, override and default applied */
	uint8_t base, index, scale; /* registers of the effective address (BASE_NONE / INDEX_NONE);
				       scale is a shift 0..3 */
	int32_t disp;
	uint32_t ad_mask; /* 0xFFFF or 0xFFFFFFFF: what the address size keeps of an effective
			     address */
	uint32_t imm;     /* sign-extended as the instruction wants it; rel8/16/32 sign-extended */
	uint32_t imm2;    /* selector of a far pointer; second immediate of ENTER */
};

struct code_block;

/* The arithmetic flags, in a form from which each is derived in a step or two; see flags.h. */
struct lazy_flags {
	uint32_t result, carries, fix;
};

/*
 * A translation: guest-linear page to host memory. A hit of the fast path needs tag == page address
 * (bits 31..12). TLB_SLOW in the tag makes the fast path miss though the translation is good:
 * `flags` says why. TLB_INVALID alone: no entry.
 */
struct tlb_entry {
	uint32_t tag;
	uint32_t flags;
	uintptr_t delta; /* host address = linear + delta; with TLB_MMIO: physical address = linear
			    + delta */
};
enum { TLB_SLOW = 1, TLB_INVALID = 2 }; /* in `tag` */
enum {
	TLB_MMIO = 1 << 0,   /* not host memory: through core/memory.h */
	TLB_CODE = 1 << 1,   /* write: blocks were decoded from this page */
	TLB_WATCH = 1 << 2,  /* a data breakpoint is on this page */
	TLB_GLOBAL = 1 << 3, /* survives a CR3 load */
	TLB_LARGE = 1 << 4,  /* part of a 2 MiB or 4 MiB page */
	TLB_LOGGED = 1 << 5, /* write: the region logs dirty pages */
};
enum { TLB_BITS = 10, TLB_SIZE = 1 << TLB_BITS };
struct tlb {
	struct tlb_entry read[TLB_SIZE], write[TLB_SIZE], exec[TLB_SIZE];
};

/*
 * What of a segment can be accessed without a closer look: [0, read_end) and [0, write_end) by
 * accesses of up to 16 bytes. Derived from struct cpu_segment by segment_changed().
 */
struct segment_window {
	uint32_t base, read_end, write_end;
};

/* An access of at most two pages, translated and checked, ready to be carried out (mem.c). */
struct access_piece {
	uint8_t *host; /* NULL: MMIO at `gpa` */
	uint64_t gpa;
	uint32_t linear;
	uint16_t len;
	uint16_t flags; /* of the TLB entry */
};
struct cpu_access {
	struct access_piece piece[2];
	unsigned pieces;
};

/* Requests from other threads, tested at block ends. */
enum {
	REQ_INTR = 1 << 0, /* the INTR pin is high */
	REQ_NMI = 1 << 1,
	REQ_INIT = 1 << 2,
	REQ_SIPI = 1 << 3,
	REQ_KICK = 1 << 4,
	REQ_FLUSH = 1 << 5,   /* TLBs are stale */
	REQ_SMC = 1 << 6,     /* RAM was written from outside: see code_cache */
	REQ_DIFFERS = 1 << 8, /* the lock-step mode found a difference */
	REQ_TRAP = 1 << 7,    /* TF, a data breakpoint or the like must be looked at after this
			       instruction */
};

/* What waits until after the next instruction: interrupts after STI; after MOV SS and POP SS debug
 * traps, too (SDM vol. 3A, 6.8.3). */
enum interrupt_shadow { SHADOW_NONE, SHADOW_STI, SHADOW_SS };

/* The x87, MMX and SSE state, in a form that is quick to use; fpu_load_fxsave()/fpu_store_fxsave()
 * convert. Layout of st[] is physical (R0..R7), `top` from the status word. */
struct fpu {
	long double st[8]; /* physical registers R0..R7, 80 bits */
	uint16_t cw, sw;   /* sw holds TOP in bits 11..13, always up to date */
	uint8_t tag_valid; /* bit n: physical register n is not empty (the abridged tag word) */
	uint16_t fop;
	uint32_t fip, fdp;
	uint16_t fcs, fds;
	uint32_t mxcsr;
	uint8_t xmm[8][16] __attribute__((aligned(16)));
};

struct soft_cpu {
	uint32_t gpr[9]; /* gpr[8] is always 0: BASE_NONE and INDEX_NONE read it */
	uint32_t
		eip; /* of the instruction being executed (fault address), until it sets next_eip */
	uint32_t next_eip;    /* where execution goes on: set to eip + len (16-bit code: & 0xFFFF)
				 before exec, changed by branches */
	struct lazy_flags cc; /* CF PF AF ZF SF OF */
	uint32_t eflags; /* all other bits of EFLAGS, bit 1 set; arithmetic bits are zero here */
	struct cpu_segment seg[6];
	struct cpu_segment ldt, tr;
	struct cpu_table gdt, idt;
	uint32_t cr0, cr2, cr3, cr4;
	uint32_t dr[8];
	uint64_t efer, apic_base, pat, misc_enable;
	uint64_t mtrr_def_type, mtrr_phys[16], mtrr_fixed[11];
	uint32_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pdpte[4];
	uint64_t tsc_offset; /* guest TSC = source + offset */
	struct fpu fpu;
	bool ignne; /* IGNNE#: pending x87 exceptions do not stop the CPU */

	/* Derived from the above by cpu_mode_changed(). */
	uint8_t cpl;         /* 0 in real mode, 3 in V86 */
	bool code32;         /* CS.D: default operand and address size */
	bool stack32;        /* SS.B */
	bool protected_mode; /* CR0.PE and not EFLAGS.VM */
	bool v86;
	uint32_t sp_mask;     /* 0xFFFFFFFF or 0xFFFF by SS.B */
	struct tlb *page_tlb; /* of the current privilege: &tlbs[cpl == 3] */
	struct tlb *tlb; /* page_tlb, or one without entries while alignment is checked (#AC) */
	struct segment_window window[6];
	const struct insn
		*block_end; /* the run loop stops before it; NULL: after this instruction */

	uint8_t activity;         /* enum cpu_activity */
	uint8_t interrupt_shadow; /* enum interrupt_shadow of the instruction just executed */
	bool nmi_masked;

	/* Exception being raised (filled by cpu_raise). */
	jmp_buf fault_env;
	uint8_t fault_vector;
	bool fault_has_error;
	bool fault_is_trap; /* EIP to push is next_eip (software interrupts and #DB traps) */
	uint32_t fault_error;
	uint32_t
		db_status; /* DR6 bits to set with the #DB that is pending after this instruction */

	_Atomic uint32_t requests;
	uint8_t sipi_vector;
	uint64_t instructions; /* executed so far */
	uint64_t budget_end;   /* soft_cpu_run() returns at this count */

	struct tlb tlbs[2];         /* supervisor, user */
	uint32_t large_regions[32]; /* bit per 4 MiB of linear memory: TLB_LARGE entries were made
				       there */
	struct code_cache *code; /* blocks decoded: one for all CPUs on the same memory (they take
				    turns on one thread) */
	struct soft_cpu *code_peer;    /* the next CPU that shares it */
	uint32_t block_eip;            /* of its first instruction */
	struct code_block *block;      /* being executed */
	struct code_block *last_block; /* the one before, while it may guess its successor */
	struct code_block *single;     /* a block for one instruction that is not kept */

	/* Read-modify-write in progress (ld*_rmw to st*_rmw): where to write. NULL host: as `rmw`
	 * says. */
	uint8_t *rmw_host;
	struct cpu_access rmw;

	/* Derived from DR7 and the debugger's list by debug_changed(). */
	bool watch_code, watch_data;
	uint32_t phys_mask_high; /* reserved bits of the upper half of PAE entries (MAXPHYADDR) */
	uint8_t inject_vector;   /* vector of the event being delivered, for #DF; valid with
				    `delivering` */
	bool delivering;
	bool skip_breakpoint; /* soft_cpu_run() was called on a debugger's breakpoint: go past it */

	/* The translator (jit.h). */
	struct jit_cpu {
		uint8_t *tables[2];  /* flat address tables, supervisor and user; NULL: interpret */
		uint8_t *current;    /* those of the current privilege: R13 */
		int64_t count;       /* R11 at the last callout */
		uint64_t origin;     /* instructions = origin + count */
		uint32_t flags;      /* AH as LAHF stores it in bits 8..15, OF in bit 0 */
		uint32_t arg;        /* R8D at the last callout */
		uint32_t scratch;    /* a value to be pushed: jit_push_scratch() */
		int64_t limit[6][2]; /* minus the end of the segment window, by write */
		uint16_t mode;       /* number of the current struct jit_mode; 0: to be found */
		uint16_t last_mode[2];  /* the one before, by CPL 3: probably it again */
		uint8_t flat;           /* bit for each flat segment */
		uint8_t fpu;            /* enum jit_fpu_place */
		bool fpu_load;          /* to be made live on the way back into translated code */
		uint32_t fpu_absent;    /* 0 while live: what translated code looks at */
		struct jit_fill *fills; /* entries of the tables to be cleared */
		struct jit_verify *verify; /* lock-step mode, or NULL */
		bool rehearsing;           /* memory accesses are the journal's: jit_verify.c */
		unsigned fill_count, fill_room;
		bool fills_lost; /* the TLB has entries that are not noted */
		uint64_t r12;    /* R12 in translated code: JIT_SHIFT, or the base of the window */
		struct jit_window *window[2]; /* by CPL 3; NULL: there is none */
		uint8_t fx[512] __attribute__((aligned(64)));
	} jit;

	struct soft_cpu_config config;
	struct cpuid_leaf leaves[CPUID_MAX_LEAVES];
	unsigned leaf_count;
	uint32_t features_edx, features_ecx,
		ext_features_edx; /* of leaves 1 and 0x80000001: what #UD and CR4 bits depend on */
	/* Debugger breakpoints */
	uint32_t breakpoint[32];
	unsigned breakpoints;
};

/* Registers by width. 8-bit numbers 4..7 are AH CH DH BH. */
static inline uint8_t *reg8(struct soft_cpu *c, unsigned n)
{
	return (uint8_t *)&c->gpr[n & 3] + (n >> 2 & 1);
}
static inline uint16_t *reg16(struct soft_cpu *c, unsigned n)
{
	return (uint16_t *)&c->gpr[n];
}

/* ---- soft_cpu.c ---- */
/* RESET; `bsp`: this CPU boots, the others wait for SIPI. */
void cpu_reset_state(struct soft_cpu *c, bool bsp);
/* soft_cpu_set_state(), with the messages that wait kept. */
void cpu_load_state(struct soft_cpu *c, const struct cpu_state *s);

/* ---- run.c: raising exceptions (SDM vol. 3A, 6.15) ---- */
_Noreturn void cpu_raise(struct soft_cpu *c,
			 unsigned vector); /* without error code: #UD, #NM, ... */
_Noreturn void cpu_raise_error(struct soft_cpu *c, unsigned vector,
			       uint32_t error); /* #GP(error), #SS, #NP, #TS, #PF, #AC */
static inline _Noreturn void cpu_gp0(struct soft_cpu *c)
{
	cpu_raise_error(c, EXC_GP, 0);
}
static inline _Noreturn void cpu_ud(struct soft_cpu *c)
{
	cpu_raise(c, EXC_UD);
}

/* ---- flags.h / flags.c ---- */
/* The whole EFLAGS register, and setting arithmetic flags at once (from `value`, other bits
 * ignored). */
uint32_t flags_get(const struct soft_cpu *c);
void flags_set_arith(struct soft_cpu *c, uint32_t value);
/* Sets all of EFLAGS without checks of privilege, and re-derives the mode if VM changed; TF is
 * noticed. */
void flags_set_all(struct soft_cpu *c, uint32_t value);

/*
 * ---- mem.h / mem.c: memory as instructions see it (included at the end) ----
 *   ld8 ld16 ld32 ld64 (c, seg, off), st8 st16 st32 st64 (c, seg, off, value), ld_bytes, st_bytes,
 * probe_write, ld8_rmw .. ld64_rmw, st8_rmw .. st64_rmw, sys_ld8 .. sys_ld32, sys_st8 .. sys_st32,
 * sys_probe_write, effective_address, push16 push32 pop16 pop32 push_op pop_op; machine_enter() and
 * machine_leave() around port accesses
 */

/* ---- mmu.c ---- */
/* Drops translations of addresses, those of the translator too, and ends the block: all of them,
 * those of pages that are not global, those of one page (of 4 KiB, or the large one it is in). */
void tlb_flush_all(struct soft_cpu *c);
void tlb_flush_non_global(struct soft_cpu *c);
void tlb_flush_page(struct soft_cpu *c, uint32_t linear);
/* CR3 load with PAE: reads and checks the four PDPTEs; raises #GP(0) for reserved bits. */
void mmu_load_pdptes(struct soft_cpu *c, uint32_t cr3);
/* Before a flush that was asked for from outside: see mmu.c. */
void mmu_mark_logged(struct soft_cpu *c);

/* ---- run.c ---- */
/* Call after any change of CR0, EFLAGS.VM, EFLAGS.AC, CS, SS or CPL. Re-derives everything, all
 * segment windows too. */
void cpu_mode_changed(struct soft_cpu *c);
/* Call after any change of c->seg[sreg] that cpu_mode_changed() does not follow: accesses go by
 * c->window[sreg]. */
void segment_changed(struct soft_cpu *c, unsigned sreg);
/* Ends the block after this instruction, because what follows may decode or run differently. */
static inline void cpu_end_block(struct soft_cpu *c)
{
	c->block_end = NULL;
}

/* ---- debug.c: debug registers (SDM vol. 3B, chapter 17) ---- */
/* Call after any change of DR0..DR3, DR7 or CR4.DE: breakpoints on code and data take effect. */
void debug_changed(struct soft_cpu *c);
/* Call for each port access (of each iteration of INS/OUTS): notes an I/O breakpoint, which traps
 * after the instruction. */
void debug_io_access(struct soft_cpu *c, uint16_t port, unsigned size);

/* ---- seg.c: loading segment registers, descriptors (SDM vol. 3A, chapter 5) ---- */
/* MOV/POP to a data segment or stack register with all checks of the current mode. */
void load_data_segment(struct soft_cpu *c, unsigned sreg, uint16_t selector);
/* Real and V86 mode: base = selector * 16; in real mode limit and attributes stay. */
void load_real_segment(struct soft_cpu *c, unsigned sreg, uint16_t selector);

/* ---- intr.c: delivery (SDM vol. 3A, chapter 6) ---- */
enum intr_source {
	INTR_EXTERNAL,
	INTR_SOFTWARE /* INT n, INT3, INTO */,
	INTR_EXCEPTION,
	INTR_ICEBP
};
/* Delivers through the IVT or IDT: pushes `return_eip`. May itself raise (the run loop turns that
 * into #DF and triple fault by the table "Conditions for Generating a Double Fault"). */
void deliver_interrupt(struct soft_cpu *c, unsigned vector, enum intr_source source, bool has_error,
		       uint32_t error, uint32_t return_eip);

/* ---- task.c ---- */
enum task_switch_cause { TASK_JMP, TASK_CALL, TASK_IRET, TASK_INT };
/* Hardware task switch to the TSS `selector`; `return_eip` is saved in the old TSS. Sets next_eip.
 */
void task_switch(struct soft_cpu *c, uint16_t selector, enum task_switch_cause cause,
		 uint32_t return_eip, bool has_error, uint32_t error);

/* ---- msr.c, cpuid.c ---- */
/* The time-stamp counter, which follows the virtual clock. */
uint64_t cpu_tsc(const struct soft_cpu *c);

/* ---- x87.c, mmx.c, sse*.c ---- */
/* The function for an x87 escape (opcode D8..DF, modrm set), or NULL for #UD. */
op_fn x87_lookup(const struct insn *i);
/* The function for an MMX or SSE opcode (0x1NN to 0x3NN, prefixes set), or NULL when it is not one
 * of them (then #UD). */
op_fn simd_lookup(const struct insn *i);
/* True if that opcode is followed by an imm8 after ModRM. */
bool simd_has_imm8(uint16_t opcode);
/* fpu.c: the state after RESET; from and to the image of FXSAVE (SDM vol. 1, table 10-2). */
void fpu_reset(struct fpu *f);
void fpu_load_fxsave(struct fpu *f, const uint8_t image[512]);
void fpu_store_fxsave(const struct fpu *f, uint8_t image[512]);

/* ---- Instruction functions outside the integer core that the opcode table names ---- */
/* seg.c, far.c, intr.c, sysops.c, msr.c, portio.c (system instructions) */
/* The formatter finds no rest on a list of macro calls. */
/* clang-format off */
#define SYSTEM_OPS(X)                                                                       \
	X(op_mov_sreg_rm) X(op_mov_rm_sreg) X(op_push_sreg) X(op_pop_sreg) X(op_les)         \
	X(op_lds) X(op_lss) X(op_lfs) X(op_lgs) X(op_jmp_far_imm) X(op_call_far_imm)         \
	X(op_jmp_far_mem) X(op_call_far_mem) X(op_ret_far) X(op_ret_far_imm)                 \
	X(op_int_imm) X(op_int3) X(op_int1) X(op_into) X(op_iret) X(op_hlt) X(op_cli)        \
	X(op_sti) X(op_pushf) X(op_popf)                                                     \
	X(op_grp6) /* 0F 00: SLDT STR LLDT LTR VERR VERW */                                  \
	X(op_grp7) /* 0F 01: SGDT SIDT LGDT LIDT SMSW LMSW INVLPG */                         \
	X(op_lar) X(op_lsl) X(op_arpl) X(op_clts) X(op_invd) X(op_wbinvd)                    \
	X(op_mov_from_cr) X(op_mov_to_cr) X(op_mov_from_dr) X(op_mov_to_dr)                  \
	X(op_rdmsr) X(op_wrmsr) X(op_rdtsc) X(op_rdpmc) X(op_cpuid) X(op_sysenter)           \
	X(op_sysexit) X(op_in_al_imm) X(op_in_eax_imm) X(op_out_imm_al)                      \
	X(op_out_imm_eax) X(op_in_al_dx) X(op_in_eax_dx) X(op_out_dx_al)                     \
	X(op_out_dx_eax) X(op_insb) X(op_ins) X(op_outsb) X(op_outs) X(op_rsm) X(op_pause)
/* clang-format on */
/* fpu.c. 0F AE (FXSAVE FXRSTOR LDMXCSR STMXCSR CLFLUSH LFENCE MFENCE SFENCE) goes through
 * simd_lookup(). */
#define FPU_OPS(X)       X(op_fwait)
#define DECLARE_OP(name) void name(struct soft_cpu *c, const struct insn *i);
SYSTEM_OPS(DECLARE_OP)
FPU_OPS(DECLARE_OP)
#undef DECLARE_OP

#include "cpu/mem.h"

#endif
