/* SPDX-License-Identifier: MIT */
/*
 * The software CPU, seen from outside: one processor that executes guest instructions from memory.
 * It knows memory and ports, no device. vmm/soft.c turns it into an engine.
 *
 * One thread runs a CPU (and all CPUs of a machine take turns on one thread). set_intr, nmi, init,
 * sipi, kick, flush_tlb and ram_written may be called from any thread; everything else only by the
 * running thread or while it is known not to run.
 */
#ifndef CPU_SOFT_CPU_H
#define CPU_SOFT_CPU_H

#include "core/cpu_model.h"
#include "core/cpu_state.h"
#include "lib/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct memory;
struct iobus;
struct soft_cpu;

struct soft_cpu_config {
	unsigned index; /* of this CPU; its APIC id too */
	unsigned cpus;
	const struct cpu_model *model;
	struct memory *mem;
	struct iobus *io;
	/* Around each port, MMIO and interrupt-acknowledge access: take and release the machine
	 * lock. May be NULL (tests). */
	void (*lock)(void *opaque);
	void (*unlock)(void *opaque);
	/* Vector of the interrupt to deliver, or -1; called with the lock taken. NULL: never
	 * interrupted. */
	int (*ack)(void *opaque, unsigned index);
	void (*apic_base_changed)(void *opaque, unsigned index, uint64_t value);
	/* Virtual time in ns for RDTSC; NULL: the TSC counts instructions (deterministic, for
	 * tests). */
	uint64_t (*time_ns)(void *opaque);
	/* FERR# is asserted: an x87 exception is pending with CR0.NE clear (on a PC: IRQ13).
	 * Called, with the lock taken, each time the CPU finds itself stopped by it. NULL: such
	 * exceptions are ignored. */
	void (*ferr)(void *opaque, unsigned index);
	void *opaque;

	/* The translator. All CPUs on the same memory have the same. */
	bool jit;           /* false: the interpreter alone */
	size_t code_size;   /* bytes of translated code that are kept; 0: SOFT_CODE_SIZE */
	unsigned jit_after; /* which run of a block is the first to be translated: 1, 2, ...; 0: the
			       translator's own choice */
	unsigned verify;    /* each so many-th entry into translated code is checked against the
			       interpreter: SOFT_DIFFERS; 0: none */
	bool perf_map;      /* symbols of translated code into /tmp/perf-PID.map, for perf(1) */
};
enum { SOFT_CODE_SIZE = 16 << 20, SOFT_CODE_MIN = 1 << 20, SOFT_CODE_MAX = 1 << 30 };

enum soft_exit {
	SOFT_BUDGET, /* the instruction budget is used up */
	SOFT_KICKED, /* soft_cpu_kick() */
	SOFT_HALTED, /* HLT (or waiting for SIPI) with nothing pending: run again once
			soft_cpu_has_work() */
	SOFT_TRIPLE_FAULT,
	SOFT_BREAKPOINT, /* an address set by soft_cpu_set_breakpoint() was reached */
	SOFT_DIFFERS,    /* translated code did something else than the interpreter: see
			    soft_cpu_difference(). The CPU cannot go on */
};

/* Whether this host's CPU has what translated code needs (BMI2); else `jit` is an error. */
bool soft_cpu_can_translate(void);
/* The features that this CPU can execute are ANDed into the model's. NULL when the host has no
 * memory. */
struct soft_cpu *soft_cpu_new(const struct soft_cpu_config *config, struct error *err);
void soft_cpu_free(struct soft_cpu *cpu);
/* Features that the user asked for (the model's plus[]) and this CPU does not have. */
void soft_cpu_missing_features(const struct soft_cpu *cpu, uint32_t missing[4]);

/* Runs until something of enum soft_exit; `budget` is in instructions and may be overrun by one
 * block. The return is always between instructions. */
enum soft_exit soft_cpu_run(struct soft_cpu *cpu, uint64_t budget);

/* The INTR pin, level. NMI, INIT and SIPI are edges that are remembered. */
void soft_cpu_set_intr(struct soft_cpu *cpu, bool level);
void soft_cpu_nmi(struct soft_cpu *cpu);
void soft_cpu_init(struct soft_cpu *cpu);
void soft_cpu_sipi(struct soft_cpu *cpu, uint8_t vector);
/* Makes soft_cpu_run() return SOFT_KICKED soon (within a block, or some thousand instructions of
 * translated code); remembered if it is not running. Async-signal-safe. */
void soft_cpu_kick(struct soft_cpu *cpu);
/* False only when halted with nothing to wake it. */
bool soft_cpu_has_work(const struct soft_cpu *cpu);

/* The IGNNE# pin: lets the CPU go on in spite of the pending x87 exception, and drops by itself
 * when that is cleared. Called by the running thread (a write to port F0h). */
void soft_cpu_set_ignne(struct soft_cpu *cpu, bool on);

/* The memory view, the A20 mask or dirty logging changed: drop TLBs before the next instruction. */
void soft_cpu_flush_tlb(struct soft_cpu *cpu);
/* Host RAM was written from outside the CPU (DMA, monitor): drop the blocks decoded from it. Called
 * by memory's write hook with the machine lock; takes effect before the CPU's next block. */
void soft_cpu_ram_written(struct soft_cpu *cpu, const uint8_t *host, size_t len);

/* Carries out the INIT and start-up messages that wait, which the state below does not tell. */
void soft_cpu_settle(struct soft_cpu *cpu);
void soft_cpu_get_state(const struct soft_cpu *cpu, struct cpu_state *s);
void soft_cpu_set_state(struct soft_cpu *cpu, const struct cpu_state *s);

/* Page walk without side effects (no accessed bits, no fault). False if not mapped. */
bool soft_cpu_translate(struct soft_cpu *cpu, uint32_t va, uint64_t *gpa);
void soft_cpu_set_breakpoint(struct soft_cpu *cpu, uint32_t linear, bool on);
/* After SOFT_DIFFERS: what differs, several lines. Valid until the CPU is freed. */
const char *soft_cpu_difference(const struct soft_cpu *cpu);
/* Text for `info jit`: counters of the translator. Any thread; while a CPU runs they are of about
 * now. */
struct strbuf;
void soft_cpu_describe_jit(const struct soft_cpu *cpu, struct strbuf *out);
/* Blocks translated so far; 0 without the translator. */
uint64_t soft_cpu_translated_blocks(const struct soft_cpu *cpu);
/* Instructions executed since soft_cpu_new(). */
uint64_t soft_cpu_instructions(const struct soft_cpu *cpu);

#endif
