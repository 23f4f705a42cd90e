/* SPDX-License-Identifier: MIT */
/*
 * The run loop: blocks one after the other, and between them whatever must be looked at.
 *
 * A block runs without a test inside: eip and next_eip are set for each instruction, and
 * c->block_end says where to stop. An instruction that needs attention after it (it wrote over its
 * own block, hit a data breakpoint, asked a device for something) sets block_end to NULL.
 *
 * A fault longjmps to soft_cpu_run(), which delivers it. A fault in the delivery of another becomes
 * #DF or a shutdown by the table of SDM vol. 3A, 6.15, "Interrupt 8".
 */
#include "cpu/jit.h"
#include "cpu/ops.h"

/* ---- Raising ---- */

static _Noreturn void raise_fault(struct soft_cpu *c, unsigned vector, bool has_error,
				  uint32_t error)
{
	c->fault_vector = (uint8_t)vector;
	c->fault_has_error = has_error;
	c->fault_error = error;
	longjmp(c->fault_env, 1);
}

void cpu_raise(struct soft_cpu *c, unsigned vector)
{
	raise_fault(c, vector, false, 0);
}

void cpu_raise_error(struct soft_cpu *c, unsigned vector, uint32_t error)
{
	raise_fault(c, vector, true, error);
}

/* ---- Delivering ---- */

enum {
	BENIGN = 0xFF
}; /* inject_vector of an external interrupt: a fault in its delivery is a first fault */

/* Whether a fault `second` while `first` was being delivered is a double fault (SDM vol. 3A, table
 * 6-5). */
static bool is_contributory(unsigned vector)
{
	return vector == EXC_DE || (vector >= EXC_TS && vector <= EXC_GP);
}

static bool makes_double_fault(unsigned first, unsigned second)
{
	if (first == EXC_PF)
		return second == EXC_PF || is_contributory(second);
	return is_contributory(first) && is_contributory(second);
}

static bool makes_shutdown(unsigned first, unsigned second)
{
	return first == EXC_DF && (second == EXC_PF || is_contributory(second));
}

static void inject(struct soft_cpu *c, unsigned vector, enum intr_source source, bool has_error,
		   uint32_t error, uint32_t return_eip)
{
	c->delivering = true;
	c->inject_vector = source == INTR_EXCEPTION ? (uint8_t)vector : BENIGN;
	c->eip = return_eip; /* faults in the delivery return here too */
	c->next_eip = return_eip;
	trace(TRACE_INT, "cpu%u: vector %02x error %x at %04x:%08x", c->config.index, vector,
	      has_error ? error : 0, c->seg[S_CS].selector, return_eip);
	deliver_interrupt(c, vector, source, has_error, error, return_eip);
	c->delivering = false;
}

/* #DB with these bits of DR6 (SDM vol. 3B, 17.2.3). */
static void inject_debug(struct soft_cpu *c, uint32_t status)
{
	enum { DR6_BREAKPOINTS = 15, DR7_GD = 1 << 13 };

	c->dr[6] = (c->dr[6] & ~(uint32_t)DR6_BREAKPOINTS) | status;
	c->dr[7] &= ~(uint32_t)DR7_GD;
	inject(c, EXC_DB, INTR_EXCEPTION, false, 0, c->next_eip);
}

/* The instructions of the running block behind the one at c->eip were counted at its entry but not
 * executed. */
static void uncount_rest(struct soft_cpu *c)
{
	const struct code_block *b = c->block;
	uint32_t eip = c->block_eip;

	if (!b)
		return;
	for (unsigned n = 0; n < b->count; n++) {
		if (eip == c->eip) {
			c->instructions -= b->count - n;
			break;
		}
		eip += b->insn[n].len;
	}
	c->block = NULL;
}

/* The fault that was raised, with what must be known of one being delivered already. */
static void take_fault(struct soft_cpu *c)
{
	unsigned vector = c->fault_vector;
	bool has_error = c->fault_has_error, is_trap = c->fault_is_trap;
	uint32_t error = c->fault_error;

	uncount_rest(c);
	/* A guest that does nothing but fault must use up its turn, too. */
	if (c->budget_end > c->instructions)
		c->budget_end--;
	c->fault_is_trap = false;
	c->db_status = 0;
	if (c->delivering) {
		if (makes_shutdown(c->inject_vector, vector)) {
			trace(TRACE_CPU, "cpu%u: triple fault", c->config.index);
			c->delivering = false;
			c->activity = CPU_SHUTDOWN;
			return;
		}
		if (makes_double_fault(c->inject_vector, vector)) {
			vector = EXC_DF;
			has_error = true;
			error = 0;
		}
	}
	/* Faults push RF set, so that an instruction breakpoint does not hit again on return (SDM
	 * vol. 3B, 17.3.1.1). */
	if (!is_trap)
		c->eflags |= FL_RF;
	inject(c, vector, INTR_EXCEPTION, has_error, error, is_trap ? c->next_eip : c->eip);
}

/* ---- Running ---- */

/* Executes a block, or its first `count` instructions. */
static inline void run_block(struct soft_cpu *c, struct code_block *b, unsigned count)
{
	const struct insn *i = b->insn, *end = i + count;
	uint32_t eip = c->next_eip;

	c->block = b;
	c->block_eip = eip;
	c->block_end = end;
	c->instructions += count;
	do {
		c->eip = eip;
		eip += i->len;
		c->next_eip = eip;
		i->exec(c, i);
		i++;
	} while (i < c->block_end);
	if (unlikely(i != end))
		c->instructions -= (unsigned)(end - i);
	c->block = NULL;
}

/* Software interrupts push TF and clear it: the step behind them does not trap (SDM vol.
 * 3B, 17.3.1.4). */
static bool is_software_interrupt(const struct insn *i)
{
	enum { OP_INT3 = 0xCC, OP_INT = 0xCD, OP_INTO = 0xCE, OP_INT1 = 0xF1 };
	return i->opcode == OP_INT3 || i->opcode == OP_INT || i->opcode == OP_INTO ||
	       i->opcode == OP_INT1;
}

enum { DR6_BS = 1 << 14 };

/* Executes one instruction with all that single step and instruction breakpoints ask for. */
static void run_one(struct soft_cpu *c)
{
	bool step = c->eflags & FL_TF;
	uint32_t hits = c->watch_code && !(c->eflags & FL_RF)
				? debug_code_match(c, c->seg[S_CS].base + c->next_eip)
				: 0;

	if (hits) {
		c->eip = c->next_eip;
		c->eflags |= FL_RF;
		inject_debug(c, hits);
		return;
	}

	struct code_block *b = decode_single(c);
	const struct insn *i = &b->insn[0];
	bool software_interrupt = is_software_interrupt(i);

	c->eflags &= ~(uint32_t)FL_RF;
	run_block(c, b, 1);
	if (i->rep != REP_NONE && c->next_eip == c->eip && c->watch_code)
		c->eflags |= FL_RF; /* the rest of a REP instruction is not a new one */
	if (step && !software_interrupt)
		c->db_status |= DR6_BS;
}

static void take_init(struct soft_cpu *c)
{
	struct cpu_state s;

	soft_cpu_get_state(c, &s);
	cpu_state_signal_init(&s, cpu_model_signature(c->config.model));
	trace(TRACE_CPU, "cpu%u: INIT", c->config.index);
	uint64_t tsc_offset = c->tsc_offset; /* time passes while the state is copied */
	cpu_load_state(c, &s);
	c->tsc_offset = tsc_offset;
}

static void take_sipi(struct soft_cpu *c)
{
	if (c->activity != CPU_WAIT_SIPI)
		return;
	trace(TRACE_CPU, "cpu%u: start-up at %02x000", c->config.index, c->sipi_vector);
	c->seg[S_CS].selector = (uint16_t)(c->sipi_vector << 8);
	c->seg[S_CS].base = (uint32_t)c->sipi_vector << 12;
	c->next_eip = c->eip = 0;
	c->activity = CPU_RUNNING;
	cpu_mode_changed(c);
}

void soft_cpu_settle(struct soft_cpu *c)
{
	uint32_t requests = atomic_fetch_and(&c->requests, ~(uint32_t)(REQ_INIT | REQ_SIPI));

	if (requests & REQ_INIT)
		take_init(c);
	if (requests & REQ_SIPI)
		take_sipi(c);
}

/* An interrupt that can be delivered now, NMI first. True if one was. */
static bool take_interrupt(struct soft_cpu *c, uint32_t requests)
{
	int vector;

	if (requests & REQ_NMI && !c->nmi_masked) {
		atomic_fetch_and(&c->requests, ~(uint32_t)REQ_NMI);
		c->nmi_masked = true;
		c->activity = CPU_RUNNING;
		inject(c, EXC_NMI, INTR_EXTERNAL, false, 0, c->next_eip);
		return true;
	}
	if (!(requests & REQ_INTR) || !(c->eflags & FL_IF) || !c->config.ack)
		return false;
	machine_enter(c);
	vector = c->config.ack(c->config.opaque, c->config.index);
	machine_leave(c);
	if (vector < 0)
		return false;
	c->activity = CPU_RUNNING;
	inject(c, (unsigned)vector, INTR_EXTERNAL, false, 0, c->next_eip);
	return true;
}

enum what_next { GO_ON, GO_ON_BLOCK, LEAVE };

/* Between two blocks, when anything is out of the ordinary. In the order of SDM vol. 3A, table 6-2.
 */
static enum what_next attention(struct soft_cpu *c, enum soft_exit *exit)
{
	uint32_t requests = atomic_load(&c->requests), linear;
	enum interrupt_shadow shadow;

	if (requests & REQ_FLUSH) {
		atomic_fetch_and(&c->requests, ~(uint32_t)REQ_FLUSH);
		mmu_mark_logged(c);
		tlb_flush_all(c);
	}
	if (requests & REQ_SMC) {
		atomic_fetch_and(&c->requests, ~(uint32_t)REQ_SMC);
		code_take_written(c);
	}
	if (requests & REQ_TRAP)
		atomic_fetch_and(&c->requests, ~(uint32_t)REQ_TRAP);
	if (requests & REQ_DIFFERS) {
		*exit = SOFT_DIFFERS;
		return LEAVE;
	}
	if (requests & REQ_KICK) {
		atomic_fetch_and(&c->requests, ~(uint32_t)REQ_KICK);
		*exit = SOFT_KICKED;
		return LEAVE;
	}
	if (requests & REQ_INIT) {
		atomic_fetch_and(&c->requests, ~(uint32_t)REQ_INIT);
		take_init(c);
		return GO_ON;
	}
	if (requests & REQ_SIPI) {
		atomic_fetch_and(&c->requests, ~(uint32_t)REQ_SIPI);
		take_sipi(c);
		return GO_ON;
	}
	if (c->activity == CPU_SHUTDOWN) {
		*exit = SOFT_TRIPLE_FAULT;
		return LEAVE;
	}
	if (c->activity == CPU_WAIT_SIPI) {
		*exit = SOFT_HALTED;
		return LEAVE;
	}

	shadow = c->interrupt_shadow;
	c->interrupt_shadow = SHADOW_NONE;
	if (c->db_status && shadow != SHADOW_SS) {
		uint32_t status = c->db_status;
		c->db_status = 0;
		c->activity = CPU_RUNNING;
		inject_debug(c, status);
		return GO_ON;
	}
	if (shadow == SHADOW_NONE && take_interrupt(c, requests))
		return GO_ON;
	if (c->activity == CPU_HALTED) {
		*exit = SOFT_HALTED;
		return LEAVE;
	}

	linear = c->seg[S_CS].base + c->next_eip;
	if (c->breakpoints && !c->skip_breakpoint && debug_breakpoint_at(c, linear)) {
		*exit = SOFT_BREAKPOINT;
		return LEAVE;
	}
	if (shadow != SHADOW_NONE || c->eflags & (FL_TF | FL_RF) ||
	    (c->watch_code && debug_code_page(c, linear))) {
		c->skip_breakpoint = false;
		run_one(c);
		return GO_ON;
	}
	trace(TRACE_EXEC, "cpu%u: %04x:%08x eax=%08x ebx=%08x ecx=%08x edx=%08x esp=%08x",
	      c->config.index, c->seg[S_CS].selector, c->next_eip, c->gpr[R_EAX], c->gpr[R_EBX],
	      c->gpr[R_ECX], c->gpr[R_EDX], c->gpr[R_ESP]);
	return GO_ON_BLOCK;
}

/* The requests that ask for attention now. INTR with interrupts disabled does not: programs run
 * long that way. */
static inline uint32_t requests_now(const struct soft_cpu *c)
{
	uint32_t requests = atomic_load_explicit(&c->requests, memory_order_relaxed);
	return c->eflags & FL_IF ? requests : requests & ~(uint32_t)REQ_INTR;
}

/*
 * The loop itself, apart from setjmp() so that the compiler keeps its variables in registers.
 *
 * Whatever an instruction does that needs attention ends its block early (cpu_end_block()), so
 * behind a block that ran to its end only requests from outside and the budget are looked at.
 */
static __attribute__((noinline)) enum soft_exit run_loop(struct soft_cpu *c)
{
	enum soft_exit exit;

	for (;;) {
		uint32_t unusual = requests_now(c) | c->db_status | (c->eflags & (FL_TF | FL_RF)) |
				   c->activity | c->interrupt_shadow | c->watch_code;
		bool traced = trace_on(TRACE_EXEC);
		if (unlikely(unusual || traced)) {
			enum what_next next = attention(c, &exit);
			c->last_block = NULL;
			if (next == LEAVE)
				return exit;
			if (next == GO_ON) {
				if (c->instructions >= c->budget_end && !c->interrupt_shadow)
					return SOFT_BUDGET;
				continue;
			}
		}
		do {
			if (unlikely(c->instructions >= c->budget_end))
				return SOFT_BUDGET;

			struct code_block *last = c->last_block;
			bool branched = last && c->next_eip != c->block_eip + last->bytes;
			struct code_block *b = code_find(c, last, branched);
			c->skip_breakpoint = false;
			if (c->jit.tables[0] && !unusual && jit_run(c, b)) {
				c->last_block = NULL;
				break;
			}
			run_block(c, b, b->count);
			c->last_block = b != c->single ? b : NULL;
		} while (likely(!unusual && !traced && c->block_end && !requests_now(c)));
	}
}

enum soft_exit soft_cpu_run(struct soft_cpu *c, uint64_t budget)
{
	c->budget_end = c->instructions + budget;
	c->skip_breakpoint = true;
	c->last_block = NULL;
	if (setjmp(c->fault_env)) {
		c->last_block = NULL;
		jit_window_leave();
		take_fault(c);
	}
	return run_loop(c);
}

/* ---- Mode ---- */

void cpu_mode_changed(struct soft_cpu *c)
{
	/* A TLB in which nothing is ever found: while alignment is checked each access takes the
	 * slow path. */
	static struct tlb no_tlb;
	bool pe = c->cr0 & CR0_PE, vm = c->eflags & FL_VM;

	if (!no_tlb.read[0].tag)
		for (unsigned n = 0; n < TLB_SIZE; n++)
			no_tlb.read[n].tag = no_tlb.write[n].tag = no_tlb.exec[n].tag = TLB_INVALID;

	c->protected_mode = pe && !vm;
	c->v86 = pe && vm;
	/* CPL is SS.DPL, also where CS is conforming and while CS still is that of real mode. */
	c->cpl = c->v86 ? 3 : pe ? (c->seg[S_SS].attr & SEG_DPL) >> SEG_DPL_SHIFT : 0;
	c->code32 = c->seg[S_CS].attr & SEG_DB;
	c->stack32 = c->seg[S_SS].attr & SEG_DB;
	c->sp_mask = c->stack32 ? 0xFFFFFFFF : 0xFFFF;
	c->page_tlb = &c->tlbs[c->cpl == 3];
	c->tlb = c->cr0 & CR0_AM && c->eflags & FL_AC && c->cpl == 3 ? &no_tlb : c->page_tlb;
	for (unsigned n = 0; n < 6; n++)
		segment_changed(c, n);
	c->jit.mode = 0;
	cpu_end_block(c);
}
