/* SPDX-License-Identifier: MIT */
/*
 * The translator: blocks that run often become x86-64 code.
 *
 * What stands where while translated code runs:
 *
 *   RAX RDX RBX RBP RSI RDI   guest EAX EDX EBX EBP ESI EDI, zero-extended
 *   R10, R15                  guest ECX, guest ESP, zero-extended
 *   CF PF AF ZF SF OF         the guest's, at every boundary between guest instructions, and so
 *                             whatever translated code does in between leaves them alone: LEA, MOV,
 *                             NOT, the BMI2 shifts, JRCXZ
 *   RCX R8 R9                 scratch
 *   R11                       instructions executed, minus the number at which to leave: negative
 *   R12                       JIT_SHIFT, or the base of the window in code that goes through it
 *   R13                       the address tables of the current privilege (jit_tables.c)
 *   R14                       struct soft_cpu
 *   RSP                       the host's stack, aligned to 16
 *   x87, XMM, MXCSR           the guest's while soft_cpu.jit.fpu is JIT_FPU_LIVE
 *
 * A memory operand is reached in one of two ways. In code that runs long without a change of
 * address space it is an address in the window, where the guest's pages lie as the guest has them;
 * what faults there, a signal handler settles (jit_window.c).
 *
 * Other code goes through a flat table with an 8-byte entry for each page: host address minus
 * linear address, or 0 if a closer look is needed. The index of an access of 2^n bytes is the
 * linear address rotated right by n and then shifted down to the page number, so that misaligned
 * addresses lie in a part of the table which is never filled, and one test settles both questions.
 * An entry of 0 leads to a stub outside the straight line: it looks whether a misaligned access
 * lies in pages next to each other in host memory, or a store beside the code of its page, and
 * otherwise has the interpreter execute the whole instruction, faults included.
 *
 * Either way an exception needs no table to restore state from: at the moment it is raised the
 * guest's state is the interpreter's.
 *
 * Whatever leaves the straight line calls one thunk (jit_thunk.c) with a struct jit_site behind the
 * call; the thunk saves the guest's registers and calls jit_callout(), which says where to go on.
 *
 * A translation belongs to a block, an EIP and a mode (struct jit_mode). Jumps to the same page are
 * linked directly; those to another page, returns and computed jumps enter through code that looks
 * whether the page is mapped as it was when the target was translated.
 */
#ifndef CPU_JIT_H
#define CPU_JIT_H

#include "cpu/code.h"
#include "cpu/jit_emit.h"
#include <stddef.h>
#include <stdio.h>

/* R12: as a 32-bit shift count it is 10, which takes a linear address rotated by 2 to its page
 * number; as a 64-bit one it leaves of a small number nothing and of a negative one something. */
enum { JIT_SHIFT = 42 };

/* Offsets from R13, all within reach of a 32-bit displacement. */
enum jit_table_layout {
	JIT_ENTRY = 8,
	JIT_READ = 0,
	JIT_WRITE =
		(1 << 24) * JIT_ENTRY, /* read and write: page number and 4 bits of misalignment */
	JIT_EXEC = 2 * JIT_WRITE,
	/* The jump cache, indexed by the low 16 bits of EIP: minus (EIP + mode), and code. */
	JIT_JUMP_TAG = JIT_EXEC + (1 << 20) * JIT_ENTRY,
	JIT_JUMP_CODE = JIT_JUMP_TAG + (1 << 16) * JIT_ENTRY,
	/* For pages with code, by page number: address of code_page.granules, and what JIT_WRITE
	 * has for others. */
	JIT_CODE = JIT_JUMP_CODE + (1 << 16) * JIT_ENTRY,
	JIT_TABLES_SIZE = JIT_CODE + (1 << 20) * 2 * JIT_ENTRY,
};

/* What code was translated for, beside its bytes and EIP. Modes are numbered from 1. */
struct jit_mode {
	uint32_t cs_base, cs_limit;
	bool code32, stack32;
	bool flat;   /* DS, ES and SS: base 0, limit 4 GiB, readable and writable */
	bool window; /* flat, and memory through the window (jit_window.c) */
	bool sse;    /* CR4.OSFXSR: instructions on XMM registers are not #UD */
};
enum { JIT_MODES_MAX = 256 };

/* code_block.runs: from BLOCK_WARM on it is translated, except for BLOCK_NEVER. */
enum { BLOCK_WARM = 6, BLOCK_NEVER = 255 };

struct jit_code;

/* A jump from one translation to another. */
struct jit_link {
	uint8_t *patch;      /* writable address of the rel32; NULL: no such exit */
	const uint8_t *stub; /* where it goes while it is not linked */
	struct jit_code *target;
	struct jit_link *next; /* of those that lead to `target` */
	bool unchecked;        /* it leads to `entry` */
};

struct jit_code {
	struct jit_code *next; /* translations of the same block */
	struct code_block *block;
	uint32_t eip;
	uint16_t mode;
	uint16_t host_bytes;
	const uint8_t *entry;    /* counts, does not look whether to leave */
	const uint8_t *checked;  /* looks whether to leave, then entry */
	const uint8_t *indirect; /* looks whether the page is still mapped so, then checked */
	struct jit_link link[2];
	struct jit_link *incoming;
	uint8_t *prediction; /* writable address of the disp32 that compares with link 0's target */
	struct jit_fault *faults; /* of code that goes through the window */
	uint16_t fault_count;
	uint8_t redirected; /* faults that the window could not settle */
};

/* An instruction that goes through the window: its code, and the stub that has it interpreted. */
struct jit_fault {
	const uint8_t *start, *end, *stub;
};

enum jit_site_kind {
	JIT_SITE_INTERPRET, /* the instruction `index`; then go on at `resume` */
	JIT_SITE_LINK,      /* end of a block: direct jump to `eip`; `index` is the link */
	JIT_SITE_JUMP,      /* end of a block: jump to the address in R8D */
	JIT_SITE_LEAVE,     /* at `eip`, because R11 ran out */
	JIT_SITE_REMAPPED,  /* at `eip`: the page is no longer mapped as it was */
	JIT_SITE_FPU, /* the guest's x87 and SSE state is to be loaded before instruction `index` */
	JIT_SITE_KINDS
};

/* Lies in the code, behind the call of the thunk. */
struct jit_site {
	const uint8_t *resume;
	struct jit_code *code;
	uint32_t eip; /* of the instruction, or of the target */
	uint16_t index;
	uint8_t kind;
	bool needs_fpu; /* the x87 and SSE state must be live at `resume` */
} __attribute__((packed));

/* One block being translated. */
enum { JIT_PENDING_MAX = 16 };
struct jit {
	struct emitter hot;  /* the straight line */
	struct emitter cold; /* stubs */
	struct jit_cache *cache;
	struct jit_code *code;
	const struct soft_cpu *cpu; /* for its features alone */
	struct jit_mode mode;
	const struct insn *insn;    /* being translated */
	unsigned index;             /* its number in the block */
	uint32_t eip;               /* its address */
	bool fpu_ready;             /* x87 and SSE state are known to be live here */
	bool window;                /* the current instruction went through the window */
	bool not_window;            /* it must not */
	bool failed;                /* a jump did not reach: leave the block to the interpreter */
	const uint8_t *interpreter; /* the stub for the current instruction, once there is one */
	struct jit_site
		*interpret_site; /* its site, whose resume address is the next instruction's */
	struct {
		uint8_t *rel8;         /* of a JRCXZ in the straight line */
		const uint8_t *target; /* in the cold code */
	} pending[JIT_PENDING_MAX];
	unsigned pending_count;
};

/* ---- jit_mem.c: memory operands and the ways out of the straight line ---- */
/*
 * Translates the effective address of the instruction's memory operand. Afterwards [returned
 * register + RCX] is the operand in host memory, R9 free, flags untouched. The register is R8 if
 * `own` (else perhaps a guest register: only to be read before that is changed). `size` 1, 2, 4, 8,
 * 10, 16... bytes; `aligned`: a misaligned address always goes to the interpreter (for SSE operands
 * that fault). No guest state may have been changed by the instruction before this: a miss starts
 * it again in the interpreter.
 */
int jit_operand(struct jit *j, unsigned size, enum mem_type type, bool own, bool aligned);
/* The same for a linear or, with `seg` not flat, logical address in `reg` (may be R8). */
int jit_translate(struct jit *j, unsigned seg, int reg, unsigned size, enum mem_type type,
		  bool aligned);
/* The same, as cheap as it gets: the operand is [base + index + disp]. */
struct jit_place {
	int base, index;
	int32_t disp;
};
struct jit_place jit_place(struct jit *j, unsigned size, enum mem_type type, bool own);
/* Whether accesses to that segment go through the window: the host finds what is misaligned. */
bool jit_windowed(const struct jit *j, unsigned seg);
struct jit_place jit_place_at(struct jit *j, unsigned seg, int reg, int32_t disp, unsigned size,
			      enum mem_type type);
static inline void jit_op(struct jit *j, unsigned op, int reg, struct jit_place at)
{
	emit_rm(&j->hot, op, reg, at.base, at.index, 0, at.disp);
}
/* The whole instruction by the interpreter. */
void jit_interpret(struct jit *j);
/* A JRCXZ to where the interpreter executes the instruction instead. */
void jit_interpret_if_rcx_zero(struct jit *j);
/* A jump there. */
void jit_jmp_interpret(struct jit *j);
/* The stub that has the current instruction interpreted. */
const uint8_t *jit_interpreter_stub(struct jit *j);
/* `from` shifted right as a 64-bit number by JIT_SHIFT, into `to`; `scratch` may be used up. */
void jit_shift(struct jit *j, int to, int from, int scratch);
/* Makes room: call before each instruction and at the end of the block. `last`: nothing falls
 * through here. */
void jit_flush_pending(struct jit *j, bool last);
/* Emits into cold code a call of the thunk with a site. */
void jit_call_site(struct jit *j, struct emitter *e, enum jit_site_kind kind, unsigned index,
		   uint32_t eip, const uint8_t *resume);

/* Where a guest register lives (jit_thunk.c). */
extern const int8_t jit_host_reg[8];
static inline int jit_reg(unsigned guest)
{
	return jit_host_reg[guest];
}
/* Displacement of a field of soft_cpu from R14. */
#define JIT_CPU(field) ((int32_t)offsetof(struct soft_cpu, field))
/* Bytes of an operand that is a word or a dword. */
static inline unsigned jit_opsize(const struct insn *i)
{
	return i->opsize32 ? 4 : 2;
}

/*
 * soft_cpu.jit.flags is EAX as SETO AL and LAHF leave it: OF in bit 0, SF ZF AF PF CF in AH. These
 * take it to the places of EFLAGS and back.
 */
enum { JIT_SAVED_OF = 1, JIT_SAVED_LOW_SHIFT = 8, JIT_OF_SHIFT = 11 };
static inline uint32_t jit_flags_to_guest(uint32_t saved)
{
	return ((saved >> JIT_SAVED_LOW_SHIFT & 0xFF) | (saved & JIT_SAVED_OF) << JIT_OF_SHIFT) &
	       FL_ARITH;
}
static inline uint32_t jit_flags_from_guest(uint32_t flags)
{
	return (flags & 0xFF) << JIT_SAVED_LOW_SHIFT | (flags >> JIT_OF_SHIFT & JIT_SAVED_OF);
}

/* ---- The instructions: true if translated, false if it shall be interpreted ---- */
bool jit_int_insn(struct jit *j, const struct insn *i);  /* jit_int.c */
bool jit_flow_insn(struct jit *j, const struct insn *i); /* jit_flow.c: control transfers, stack */
/* Ends the block with a jump to an EIP, as exit `link` of two. */
void jit_exit_to(struct jit *j, unsigned link, uint32_t target);
/* Pushes the low `size` bytes of soft_cpu.jit.scratch. */
void jit_push_scratch(struct jit *j, unsigned size);
bool jit_system_insn(struct jit *j, const struct insn *i); /* jit_system.c */
bool jit_x87_insn(struct jit *j, const struct insn *i);    /* jit_x87.c */
bool jit_simd_insn(struct jit *j, const struct insn *i);   /* jit_simd.c: MMX, SSE */
/* LDMXCSR, which looks at its operand as FLDCW does (jit_x87.c). */
void jit_ldmxcsr(struct jit *j);
/* Before translated x87, MMX or SSE instructions: their state is live from here on (jit_fpu.c). */
void jit_need_fpu(struct jit *j);

/* ---- jit_fpu.c: the guest's x87 and SSE state in the host's registers ---- */
/*
 * The state is in one of three places (soft_cpu.jit.fpu): at home in soft_cpu.fpu, where the
 * interpreter uses it; live in the host's registers; or as the image of FXSAVE64 in
 * soft_cpu.jit.fx, while C code runs between translated code that has it live. Each callout saves a
 * live state into the image; going on where it must be live loads it from there.
 */
enum jit_fpu_place { JIT_FPU_HOME, JIT_FPU_LIVE, JIT_FPU_IMAGE };
/* Emits the part of the thunk that turns LIVE into IMAGE, and gives C the x87 and SSE control words
 * it expects. All integer registers but R14 and RSP are free, flags too. */
void jit_emit_fpu_save(struct emitter *e);
/* The part that makes it LIVE from IMAGE, under the same terms. */
void jit_emit_fpu_load(struct emitter *e);
/* Makes it an IMAGE if it is at home. False if the state is one that translated code may not run
 * with: CR0.EM or TS, unmasked or pending exceptions. */
bool jit_fpu_may_load(struct soft_cpu *c);
/* Brings an image home. To be called before anything but translated code and callouts that leave
 * x87 and SSE alone looks at soft_cpu.fpu. */
void jit_fpu_home(struct soft_cpu *c);
/* The same for who may not change anything: copies the state, from home or from the image. */
void jit_fpu_read(const struct soft_cpu *c, struct fpu *f);
/* What FXSAVE stores and FXRSTOR loads. An image stays one, and becomes one where it can: operating
 * systems switch tasks this way. */
void jit_fpu_fxsave(const struct soft_cpu *c, uint8_t image[512]);
void jit_fpu_fxrstor(struct soft_cpu *c, const uint8_t image[512]);
/* At a JIT_SITE_INTERPRET, before the interpreter runs: notes the x87 instruction that was executed
 * last, whose pointers translated code stores but once a block. */
void jit_fpu_note(struct soft_cpu *c, const struct jit_site *site);

/* ---- jit_window.c: guest memory behind the host's own MMU ---- */
/* Makes the CPU's windows, if the host and the memory allow it. */
void jit_window_new(struct soft_cpu *c);
void jit_window_free(struct soft_cpu *c);
/* Between stretches: decides whether code of the current privilege goes through its window from now
 * on. */
bool jit_window_wanted(struct soft_cpu *c);
/* Whether it does. */
bool jit_window_on(const struct soft_cpu *c);
/* Base of the window of the current privilege, for R12. */
uint64_t jit_window_base(const struct soft_cpu *c);
/* The guest's translations of addresses go away: all of both privileges, or of one page. */
void jit_window_clear(struct soft_cpu *c);
void jit_window_clear_page(struct soft_cpu *c, uint32_t linear, bool user);
/* Around translated code: faults in the window on this thread are this CPU's. */
void jit_window_enter(struct soft_cpu *c);
void jit_window_leave(void);

/* ---- jit_thunk.c ---- */
struct jit_thunks {
	void (*enter)(struct soft_cpu *c, const uint8_t *entry);
	const uint8_t *callout; /* called with a struct jit_site behind the call */
	/* By log2 of the size (1, 2, 4, 8, 16) and write: called with a linear address in R8D that
	 * the tables did not settle: misaligned, or on a page with code. RCX becomes the delta, or
	 * 0. */
	const uint8_t *closer_look[5][2];
};
/* Writes them all at the start of code memory. */
void jit_emit_thunks(struct emitter *e, struct jit_thunks *t);

/* ---- jit_cache.c: code memory, links, lookup ---- */
struct jit_stats {
	uint64_t translated, translated_bytes, host_bytes, flushes, dropped;
	uint64_t enters, callouts[JIT_SITE_KINDS];
	uint64_t verified, unverified; /* pieces of lock-step mode; too long to be rehearsed */
};
struct jit_cache {
	uint8_t *write, *exec; /* two views of the same memory */
	size_t size;
	struct emitter hot, cold;
	uint8_t *hot_start, *cold_start; /* behind the thunks */
	struct jit_thunks thunks;
	struct jit_mode modes[JIT_MODES_MAX];
	unsigned mode_count;
	struct jit_code **windowed; /* code that goes through a window, by address */
	unsigned windowed_count, windowed_room;
	struct jit_stats stats;
	FILE *perf_map;
	bool linked; /* some translation leads straight to another */
};

/* NULL, with a sentence, if the host has no BMI2 or no executable memory. */
struct jit_cache *jit_cache_new(size_t size, struct error *err);
void jit_cache_free(struct jit_cache *jc);
/* Forgets all translations (with the blocks they belong to: by code_flush()). */
void jit_cache_flush(struct code_cache *cc);
/* The block goes away: its translations too. */
void jit_block_dropped(struct code_cache *cc, struct code_block *b);
/* Makes exit `n` of `from` lead straight to `to`, if it does not lead anywhere yet and both are for
 * one mode. */
void jit_link(struct jit_cache *jc, struct jit_code *from, unsigned n, struct jit_code *to);
/* The number of the CPU's mode; 0: there are too many, nothing is translated for it. */
uint16_t jit_mode_now(struct soft_cpu *c);
/* Makes `to` what the computed jump of `from` expects, if that has no prediction yet. */
void jit_predict(struct jit_cache *jc, struct jit_code *from, struct jit_code *to);
/* c->window[sreg] is new. */
void jit_segment_changed(struct soft_cpu *c, unsigned sreg);
/* Runs translated code of `b`, the block at next_eip, and what follows, until something needs the
 * run loop. Returns false if `b` is not translated (yet) and the interpreter must run it. */
bool jit_run(struct soft_cpu *c, struct code_block *b);
/* Translates the block for the CPU's EIP and mode. NULL if code memory is full (code_flush() makes
 * room), or if the block cannot be translated: its `runs` is BLOCK_NEVER then. */
struct jit_code *jit_translate_block(struct soft_cpu *c, struct code_block *b, uint16_t mode);
/* What the thunk calls: where to go on, or NULL to return from jit_run(). */
const uint8_t *jit_callout(struct soft_cpu *c, const struct jit_site *site);

/* Gives the CPU its tables, and the cache that it shares code memory. If the host cannot do that,
 * the CPU is left to the interpreter: a negative errno, and the error says why. */
int jit_attach(struct soft_cpu *c, struct error *err);

/* ---- jit_verify.c: lock-step mode ---- */
/* 0, or -ENOMEM. */
int jit_verify_new(struct soft_cpu *c, struct error *err);
void jit_verify_free(struct soft_cpu *c);
/* Translated code is about to run at `where`, from instruction `index` of `code` on, with the
 * guest's registers in c->gpr and its flags in c->jit.flags. */
void jit_verify_begin(struct soft_cpu *c, const struct jit_code *code, unsigned index, uint32_t eip,
		      const uint8_t *where);
/* A callout came. NULL: go on with it; else this is where to go on at once, to try the piece again.
 * A difference is noted for soft_cpu_difference(), and requested attention to (REQ_DIFFERS). */
const uint8_t *jit_verify_end(struct soft_cpu *c, const struct jit_site *site);
/* Memory accesses while c->jit.rehearsing; these may not return. */
void jit_rehearse_load(struct soft_cpu *c, const struct access_piece *p, uint8_t *buf);
void jit_rehearse_store(struct soft_cpu *c, const struct access_piece *p, const uint8_t *buf);
_Noreturn void jit_rehearse_device(struct soft_cpu *c);

/* ---- jit_report.c ---- */
/* Opens /tmp/perf-PID.map for jit_report_code(); 0, or a negative errno. */
int jit_perf_map_open(struct jit_cache *jc, struct error *err);
/* A block was translated: what was written between the given places and the emitters' ends. For
 * -d out_asm and perf. */
void jit_report_code(struct soft_cpu *c, const struct jit_code *code, const struct emitter *hot,
		     const uint8_t *hot_from, const struct emitter *cold, const uint8_t *cold_from);

/* ---- jit_tables.c: the address tables; all do nothing for a CPU without them ---- */
/* 0, or a negative errno; what there is then, jit_tables_free() frees. */
int jit_tables_new(struct soft_cpu *c, struct error *err);
/* The windows too. */
void jit_tables_free(struct soft_cpu *c);
/* A translation that the fast path of the interpreter may use too; `flags` of the TLB entry. */
void jit_tables_fill(struct soft_cpu *c, uint32_t linear, enum mem_type type, bool user,
		     const struct tlb_entry *e);
/* Clears them, and the TLB's entries of the same pages. False if there may be more in the TLB. */
bool jit_tables_clear(struct soft_cpu *c, bool global_too);
/* Clears the page, or with `large` the 4 MiB around it as far as they are pieces of large pages. */
void jit_tables_clear_page(struct soft_cpu *c, uint32_t linear, bool large);
/* A writable page with code: stores where `page` has none need no closer look. */
void jit_tables_fill_code(struct soft_cpu *c, uint32_t linear, bool user, const struct tlb_entry *e,
			  const struct code_page *page);
/* All code_page structs go away. */
void jit_tables_forget_code(struct soft_cpu *c);
/* Stores to that page must be looked at from now on. */
void jit_tables_unwritable(struct soft_cpu *c, const struct code_page *page);
/* Calls `fn` for each page of a logged region that can be written. */
void jit_tables_logged(struct soft_cpu *c, void (*fn)(struct soft_cpu *c, const uint8_t *host));
/* Forgets one entry of the jump cache if it leads to `code`, or all if that is NULL. */
void jit_tables_forget_jump(struct soft_cpu *c, const struct jit_code *code);

#endif
