/* SPDX-License-Identifier: MIT */
/*
 * The CPU engine contract: what runs the guest's instructions. Two implementations: KVM (kvm*.c)
 * and the software CPU (soft.c, on top of cpu/). Nothing outside those files knows which one runs.
 *
 * Life: engine_new_...(), then set_state() for each CPU, then start() once; the vCPU threads belong
 * to the engine. The machine pauses and resumes them. A vCPU's state may be read or set only while
 * the vCPUs are paused.
 *
 * Thread rules: "lock held" is the machine lock of the loop. set_intr, nmi, init, sipi and ignne may
 * be called from any thread with the lock held; the rest from the loop's thread unless it says
 * otherwise. Errors are negative errno with a sentence.
 */
#ifndef VMM_ENGINE_H
#define VMM_ENGINE_H

#include "core/cpu_model.h"
#include "core/cpu_state.h"
#include "core/irq.h"
#include "lib/error.h"
#include "lib/strbuf.h"
#include <stdbool.h>
#include <stdint.h>

struct memory;
struct iobus;
struct loop;
struct clock;
struct engine;
struct doorbell;

/* Why the machine must act on behalf of a vCPU. */
enum engine_event {
	ENGINE_TRIPLE_FAULT,   /* shutdown: the machine resets (or stops with -no-reboot) */
	ENGINE_INTERNAL_ERROR, /* the engine cannot go on; `detail` is a full report (registers,
				  bytes at EIP) */
	ENGINE_BREAKPOINT,     /* a debugger's breakpoint or step */
	ENGINE_DIFFERENCE,     /* verify: the translator is wrong; `detail` says where. The machine
				  ends with exit status 1 */
};

struct engine_config {
	unsigned cpus;
	const struct cpu_model *model;
	bool kernel_irqchip; /* KVM only; ignored by soft, which always uses our models */
	struct memory *mem;
	struct iobus *io;
	struct loop *loop;
	struct clock *clock;
	/*
	 * Interrupt acknowledge, lock held, our interrupt controller models only: vector of the
	 * highest pending interrupt for this CPU, marked as in service; -1 if there is none any
	 * more (then nothing is delivered).
	 */
	int (*ack)(void *opaque, unsigned cpu);
	/* The local APIC base MSR was written (lock held); our LAPIC model only. */
	void (*apic_base_changed)(void *opaque, unsigned cpu, uint64_t value);
	/* A CPU is stopped by an x87 exception with CR0.NE clear (its FERR# pin); lock held. soft
	 * only. */
	void (*ferr)(void *opaque, unsigned cpu);
	/* Lock held; called on a vCPU thread. After ENGINE_INTERNAL_ERROR that vCPU stays paused.
	 */
	void (*event)(void *opaque, unsigned cpu, enum engine_event event, const char *detail);
	void *opaque;
};

struct engine_ops {
	const char *name; /* "kvm", "soft" */
	/* Ends the vCPU threads, wherever they are. Lock not held. */
	void (*free)(struct engine *e);
	/* Starts the vCPU threads, paused. 0, or a negative errno. */
	int (*start)(struct engine *e, struct error *err);
	/* Begins what pause() completes and returns at once, so that a guest executes nothing
	 * behind the access that asked for a reset or its end. pause() or resume() must follow. Any
	 * thread, lock held. */
	void (*hold)(struct engine *e);
	/* Stops all vCPUs between instructions and returns when they stand still; lets them run.
	 * Both from the loop's thread, lock held (pause() drops it while it waits). Not nested. */
	void (*pause)(struct engine *e);
	void (*resume)(struct engine *e);
	/* The level of the CPU's INTR input from our models (PIC or LAPIC has something to
	 * deliver). */
	void (*set_intr)(struct engine *e, unsigned cpu, bool level);
	/* NMI, INIT and SIPI (start at vector * 4096) arrive at the CPU. */
	void (*nmi)(struct engine *e, unsigned cpu);
	void (*init)(struct engine *e, unsigned cpu);
	void (*sipi)(struct engine *e, unsigned cpu, uint8_t vector);
	/* Asserts IGNNE# at all CPUs; the answer to ferr(). May be NULL. */
	void (*ignne)(struct engine *e);
	/* Paused: the whole state of one CPU. */
	int (*get_state)(struct engine *e, unsigned cpu, struct cpu_state *s, struct error *err);
	int (*set_state)(struct engine *e, unsigned cpu, const struct cpu_state *s,
			 struct error *err);
	/*
	 * In-kernel interrupt chips, NULL or unused without them: the level of ISA IRQ / GSI `gsi`
	 * at the chips, and the state of chips, their input lines and PIT put back to power-on
	 * (after the devices were reset, before set_state() for the CPUs).
	 */
	bool (*has_irqchip)(struct engine *e);
	void (*irqchip_set_gsi)(void *engine, int gsi,
				bool level); /* shaped as an irq_line's set */
	void (*irqchip_reset)(struct engine *e);
	/* A message-signalled interrupt for the in-kernel chips. Any thread. */
	void (*irqchip_msi)(struct engine *e, uint64_t address, uint32_t data);
	/* core/irq.h, msi_controller, for the in-kernel chips; NULL: no such thing. */
	int (*msi_route)(struct engine *e, int fd, uint64_t address, uint32_t data);
	void (*msi_unroute)(struct engine *e, int fd);
	/* core/doorbell.h; NULL: there are none. */
	int (*doorbell)(struct engine *e, const struct doorbell *bell, int fd, bool on);
	/* Paused: guest-virtual to guest-physical of this CPU, without side effects; -EFAULT if
	 * unmapped. */
	int (*translate)(struct engine *e, unsigned cpu, uint32_t va, uint64_t *gpa);
	/* Text for `info jit`; NULL: no translator. */
	void (*describe_jit)(struct engine *e, struct strbuf *out);
	/* Text for `info engine`: what runs, counters. */
	void (*describe)(struct engine *e, struct strbuf *out);
};

struct engine {
	const struct engine_ops *ops;
	struct engine_config config;
};

/* How the software CPU runs its guest: the properties of -accel soft. */
enum soft_jit { SOFT_JIT_AUTO, SOFT_JIT_OFF, SOFT_JIT_ON }; /* AUTO: if this host can */
struct soft_settings {
	enum soft_jit jit;
	size_t code_size; /* of translated code, bytes; 0: the default */
	unsigned verify;  /* see struct soft_cpu_config */
	bool perf_map;
};
/* Whether this host's CPU can run what the translator makes. */
bool soft_can_translate(void);
struct opts;
/* Takes the properties of -accel soft out of `opts`; `what` is the option, for messages. */
int soft_settings_parse(struct soft_settings *s, struct opts *opts, const char *what,
			struct error *err);

/* Constructors; NULL and an error if it cannot run. */
struct engine *engine_new_kvm(const struct engine_config *config, struct error *err);
/* `settings` may be NULL. */
struct engine *engine_new_soft(const struct engine_config *config,
			       const struct soft_settings *settings, struct error *err);

/* What the KVM probe found. */
enum kvm_verdict {
	KVM_ABSENT,        /* no /dev/kvm or no permission */
	KVM_CANNOT_RUN_PC, /* it is there but does not run paged 32-bit code, or only at interpreter
			      speed */
	KVM_USABLE,
};
/* Runs a few thousand instructions of paged ring-0 code in a scratch VM; a millisecond or so.
 * `reason` (256 bytes) becomes a sentence without full stop that says what was found. */
enum kvm_verdict kvm_probe(char reason[256]);
/* 0, or -errno with a sentence that says how to get permission: can /dev/kvm be opened at all? */
int kvm_check_access(struct error *err);

#endif
