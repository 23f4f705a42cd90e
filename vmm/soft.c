/* SPDX-License-Identifier: MIT */
/*
 * The software engine: the contract of engine.h on top of cpu/soft_cpu.h.
 *
 * One thread runs all CPUs. They take turns: each runs for a slice of instructions, or until it
 * halts or is kicked; an event for another CPU than the one that runs ends the slice, so that a CPU
 * that waits for an answer does not wait out its slice. When no CPU has work, the thread sleeps on
 * a condition variable.
 *
 * Locks: `mutex` guards what the thread and its controllers tell each other (pause, quit, asleep);
 * it is a leaf, taken with or without the machine lock. The thread takes the machine lock for
 * device accesses and events only.
 *
 * A waker first changes the CPU (an atomic request), then looks at `asleep`; the thread first sets
 * `asleep`, then looks at the CPUs. So one of the two sees the other, and while the thread is busy
 * a wake-up costs no lock.
 */
#include "core/current_cpu.h"
#include "core/memory.h"
#include "cpu/soft_cpu.h"
#include "lib/bytes.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/optstr.h"
#include "lib/text.h"
#include "vmm/engine.h"
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
	SLICE_ALONE = 1 << 20, /* instructions; a lone CPU is interrupted by kicks anyway */
	SLICE_SHARED = 20000,  /* about 0.1 ms */
};

struct soft_vcpu {
	struct soft_cpu *cpu;
	_Atomic bool stopped; /* by shutdown (until INIT) or a breakpoint, until resume() */
};

struct soft_engine {
	struct engine base;
	struct soft_vcpu *vcpu;
	bool jit;
	struct mem_listener listener;
	pthread_t thread;
	bool thread_started;

	pthread_mutex_t mutex;
	pthread_cond_t wake;  /* for the thread: something changed */
	pthread_cond_t stood; /* for pause(): the thread stands still */
	bool pause, quit;     /* asked for */
	bool standing;        /* the thread obeys `pause` */
	_Atomic bool asleep;  /* waits in `wake` for work */
	_Atomic int running;  /* index of the CPU that runs, or -1 */

	/* While paused, the time that CPUs see stands still: their TSCs, set one after the other,
	 * agree. */
	_Atomic bool time_stands;
	_Atomic uint64_t time_ns;

	/* Counters for describe(). */
	_Atomic uint64_t instructions, busy_ns;
};

static struct soft_engine *self(struct engine *e)
{
	return container_of(e, struct soft_engine, base);
}

/* ---- What the CPUs ask of the machine ---- */

static void cpu_lock(void *opaque)
{
	struct soft_engine *s = opaque;
	loop_lock(s->base.config.loop);
}

static void cpu_unlock(void *opaque)
{
	struct soft_engine *s = opaque;
	loop_unlock(s->base.config.loop);
}

static int cpu_ack(void *opaque, unsigned index)
{
	struct soft_engine *s = opaque;
	return s->base.config.ack(s->base.config.opaque, index);
}

static void cpu_apic_base_changed(void *opaque, unsigned index, uint64_t value)
{
	struct soft_engine *s = opaque;
	if (s->base.config.apic_base_changed)
		s->base.config.apic_base_changed(s->base.config.opaque, index, value);
}

static void cpu_ferr(void *opaque, unsigned index)
{
	struct soft_engine *s = opaque;
	s->base.config.ferr(s->base.config.opaque, index);
}

static uint64_t cpu_time_ns(void *opaque)
{
	struct soft_engine *s = opaque;
	if (atomic_load_explicit(&s->time_stands, memory_order_relaxed))
		return atomic_load(&s->time_ns);
	return clock_now(s->base.config.clock);
}

/* ---- The thread ---- */

static bool has_work(const struct soft_vcpu *v)
{
	return !v->stopped && soft_cpu_has_work(v->cpu);
}

static unsigned cpus_with_work(const struct soft_engine *s)
{
	unsigned count = 0;
	for (unsigned n = 0; n < s->base.config.cpus; n++)
		count += has_work(&s->vcpu[n]);
	return count;
}

/* Returns when there is work to do; false: the engine goes away. */
static bool wait_for_work(struct soft_engine *s)
{
	pthread_mutex_lock(&s->mutex);
	for (;;) {
		atomic_store(&s->asleep, true);
		if (s->quit || (!s->pause && cpus_with_work(s)))
			break;
		if (s->pause && !s->standing) {
			for (unsigned n = 0; n < s->base.config.cpus; n++)
				soft_cpu_settle(s->vcpu[n].cpu);
			s->standing = true;
			pthread_cond_broadcast(&s->stood);
		}
		pthread_cond_wait(&s->wake, &s->mutex);
	}
	atomic_store(&s->asleep, false);
	s->standing = false;
	bool go_on = !s->quit;
	pthread_mutex_unlock(&s->mutex);
	return go_on;
}

static void tell_machine(struct soft_engine *s, unsigned index, enum engine_event event,
			 const char *detail)
{
	const struct engine_config *config = &s->base.config;
	loop_lock(config->loop);
	if (config->event)
		config->event(config->opaque, index, event, detail);
	loop_unlock(config->loop);
}

static void stop_vcpu(struct soft_engine *s, unsigned index, enum engine_event event,
		      const char *detail)
{
	atomic_store(&s->vcpu[index].stopped, true);
	tell_machine(s, index, event, detail);
}

static void run_slice(struct soft_engine *s, unsigned index, uint64_t budget)
{
	struct soft_vcpu *v = &s->vcpu[index];
	uint64_t before = soft_cpu_instructions(v->cpu), start = host_clock_ns();

	atomic_store(&s->running, (int)index);
	current_cpu = (int)index;
	enum soft_exit why = soft_cpu_run(v->cpu, budget);
	current_cpu = -1;
	atomic_store(&s->running, -1);

	atomic_fetch_add(&s->busy_ns, host_clock_ns() - start);
	atomic_fetch_add(&s->instructions, soft_cpu_instructions(v->cpu) - before);
	switch (why) {
	case SOFT_TRIPLE_FAULT: stop_vcpu(s, index, ENGINE_TRIPLE_FAULT, NULL); break;
	case SOFT_BREAKPOINT: stop_vcpu(s, index, ENGINE_BREAKPOINT, NULL); break;
	case SOFT_DIFFERS:
		stop_vcpu(s, index, ENGINE_DIFFERENCE, soft_cpu_difference(v->cpu));
		break;
	default: break;
	}
}

static bool pause_asked(struct soft_engine *s)
{
	pthread_mutex_lock(&s->mutex);
	bool asked = s->pause || s->quit;
	pthread_mutex_unlock(&s->mutex);
	return asked;
}

static void *vcpu_thread(void *opaque)
{
	struct soft_engine *s = opaque;
	while (wait_for_work(s)) {
		/* Who wakes another CPU ends the slice of a lone one: wake_for(). */
		uint64_t budget = cpus_with_work(s) > 1 ? SLICE_SHARED : SLICE_ALONE;
		for (unsigned n = 0; n < s->base.config.cpus; n++) {
			if (!has_work(&s->vcpu[n]))
				continue;
			run_slice(s, n, budget);
			if (pause_asked(s))
				break;
		}
	}
	return NULL;
}

/* ---- Waking and stopping it ---- */

/* Something changed for this CPU: wake the thread, or end the turn of another CPU. */
static void wake_for(struct soft_engine *s, unsigned index)
{
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&s->asleep)) {
		pthread_mutex_lock(&s->mutex);
		pthread_cond_signal(&s->wake);
		pthread_mutex_unlock(&s->mutex);
		return;
	}
	int running = atomic_load(&s->running);
	if (running >= 0 && (unsigned)running != index)
		soft_cpu_kick(s->vcpu[running].cpu);
}

static void kick_all(struct soft_engine *s)
{
	for (unsigned n = 0; n < s->base.config.cpus; n++)
		soft_cpu_kick(s->vcpu[n].cpu);
}

static int soft_start(struct engine *e, struct error *err)
{
	struct soft_engine *s = self(e);
	int r = pthread_create(&s->thread, NULL, vcpu_thread, s);
	if (r)
		return error_errno(err, r, "cannot start the thread of the software CPUs");
	s->thread_started = true;
	pthread_setname_np(s->thread, "minivm-cpu");
	return 0;
}

static void stop_time(struct soft_engine *s)
{
	atomic_store(&s->time_ns, clock_now(s->base.config.clock));
	atomic_store(&s->time_stands, true);
}

static void soft_hold(struct engine *e)
{
	struct soft_engine *s = self(e);
	pthread_mutex_lock(&s->mutex);
	s->pause = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->mutex);
	kick_all(s);
}

static void soft_pause(struct engine *e)
{
	struct soft_engine *s = self(e);
	soft_hold(e);
	if (!s->thread_started)
		return;
	/* The thread may need the machine lock to come to a stop. */
	loop_unlock(e->config.loop);
	pthread_mutex_lock(&s->mutex);
	while (!s->standing)
		pthread_cond_wait(&s->stood, &s->mutex);
	pthread_mutex_unlock(&s->mutex);
	loop_lock(e->config.loop);
	stop_time(s);
}

static void soft_resume(struct engine *e)
{
	struct soft_engine *s = self(e);
	atomic_store(&s->time_stands, false);
	pthread_mutex_lock(&s->mutex);
	s->pause = false;
	for (unsigned n = 0; n < e->config.cpus; n++)
		s->vcpu[n].stopped = false;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->mutex);
}

/* ---- Pins and messages ---- */

static void soft_set_intr(struct engine *e, unsigned cpu, bool level)
{
	struct soft_engine *s = self(e);
	soft_cpu_set_intr(s->vcpu[cpu].cpu, level);
	if (level)
		wake_for(s, cpu);
}

static void soft_nmi(struct engine *e, unsigned cpu)
{
	struct soft_engine *s = self(e);
	soft_cpu_nmi(s->vcpu[cpu].cpu);
	wake_for(s, cpu);
}

static void soft_init(struct engine *e, unsigned cpu)
{
	struct soft_engine *s = self(e);
	soft_cpu_init(s->vcpu[cpu].cpu);
	atomic_store(&s->vcpu[cpu].stopped, false);
	wake_for(s, cpu);
}

static void soft_sipi(struct engine *e, unsigned cpu, uint8_t vector)
{
	struct soft_engine *s = self(e);
	soft_cpu_sipi(s->vcpu[cpu].cpu, vector);
	wake_for(s, cpu);
}

static void soft_ignne(struct engine *e)
{
	struct soft_engine *s = self(e);
	for (unsigned n = 0; n < e->config.cpus; n++)
		soft_cpu_set_ignne(s->vcpu[n].cpu, true);
}

/* ---- State ---- */

static int soft_get_state(struct engine *e, unsigned cpu, struct cpu_state *state,
			  struct error *err)
{
	soft_cpu_get_state(self(e)->vcpu[cpu].cpu, state);
	return 0;
}

static int soft_set_state(struct engine *e, unsigned cpu, const struct cpu_state *state,
			  struct error *err)
{
	soft_cpu_set_state(self(e)->vcpu[cpu].cpu, state);
	return 0;
}

static int soft_translate(struct engine *e, unsigned cpu, uint32_t va, uint64_t *gpa)
{
	return soft_cpu_translate(self(e)->vcpu[cpu].cpu, va, gpa) ? 0 : -EFAULT;
}

static bool soft_has_irqchip(struct engine *e)
{
	return false;
}

static void soft_describe(struct engine *e, struct strbuf *out)
{
	struct soft_engine *s = self(e);
	uint64_t instructions = atomic_load(&s->instructions), ns = atomic_load(&s->busy_ns);
	strbuf_printf(out, "soft: %s, %u CPU%s on one thread\n",
		      s->jit ? "translator of 32-bit x86 to x86-64" : "interpreter of 32-bit x86",
		      e->config.cpus, e->config.cpus == 1 ? "" : "s");
	strbuf_printf(out, "instructions executed: %llu in %.3f s",
		      (unsigned long long)instructions, (double)ns / (double)NS_PER_SEC);
	if (ns)
		strbuf_printf(out, " (%.1f MIPS)", (double)instructions * 1e3 / (double)ns);
	strbuf_puts(out, "\n");
}

static void soft_describe_jit(struct engine *e, struct strbuf *out)
{
	/* All CPUs share the translations and their counters. */
	soft_cpu_describe_jit(self(e)->vcpu[0].cpu, out);
}

/* ---- Memory tells of changes ---- */

static void flush_tlbs(void *opaque)
{
	struct soft_engine *s = opaque;
	for (unsigned n = 0; n < s->base.config.cpus; n++)
		soft_cpu_flush_tlb(s->vcpu[n].cpu);
}

/* TLB entries of pages that were seen dirty let writes pass unseen; they must go when the log is
 * read. */
static void dirty_cleared(void *opaque, struct mem_region *region)
{
	flush_tlbs(opaque);
}

static void ram_written(void *opaque, const uint8_t *host, size_t len)
{
	struct soft_engine *s = opaque;
	for (unsigned n = 0; n < s->base.config.cpus; n++)
		soft_cpu_ram_written(s->vcpu[n].cpu, host, len);
}

/* ---- Life ---- */

static void free_cpus(struct soft_engine *s)
{
	while (s->base.config.cpus)
		soft_cpu_free(s->vcpu[--s->base.config.cpus].cpu);
}

static void soft_free(struct engine *e)
{
	struct soft_engine *s = self(e);
	if (s->thread_started) {
		pthread_mutex_lock(&s->mutex);
		s->quit = true;
		pthread_cond_signal(&s->wake);
		pthread_mutex_unlock(&s->mutex);
		kick_all(s);
		/* It may be waiting for the machine lock. */
		bool locked = loop_locked_by_me(e->config.loop);
		if (locked)
			loop_unlock(e->config.loop);
		pthread_join(s->thread, NULL);
		if (locked)
			loop_lock(e->config.loop);
	}
	memory_remove_listener(e->config.mem, &s->listener);
	memory_set_write_hook(e->config.mem, NULL, NULL);
	free_cpus(s);
	pthread_cond_destroy(&s->wake);
	pthread_cond_destroy(&s->stood);
	pthread_mutex_destroy(&s->mutex);
	free(s->vcpu);
	free(s);
}

static const struct engine_ops soft_ops = {
	.name = "soft",
	.free = soft_free,
	.start = soft_start,
	.hold = soft_hold,
	.pause = soft_pause,
	.resume = soft_resume,
	.set_intr = soft_set_intr,
	.nmi = soft_nmi,
	.init = soft_init,
	.sipi = soft_sipi,
	.ignne = soft_ignne,
	.get_state = soft_get_state,
	.set_state = soft_set_state,
	.has_irqchip = soft_has_irqchip,
	.translate = soft_translate,
	.describe_jit = soft_describe_jit,
	.describe = soft_describe,
};

/* Properties as users of QEMU's TCG give them. All CPUs share a thread here, so thread=multi cannot
 * be had. */
int soft_settings_parse(struct soft_settings *s, struct opts *opts, const char *what,
			struct error *err)
{
	static const char *const thread_choices[] = {"single", "multi", NULL};
	enum { MULTI = 1 };
	bool jit = true, jit_given = opts_has(opts, "jit");
	uint64_t mib = 0, verify = 0;
	int thread = 0, r;

	if ((r = opts_get_enum(opts, "thread", thread_choices, &thread, err)) < 0 ||
	    (r = opts_get_bool(opts, "jit", &jit, err)) < 0 ||
	    (r = opts_get_u64(opts, "tb-size", &mib, err)) < 0 ||
	    (r = opts_get_u64(opts, "verify", &verify, err)) < 0)
		return r;
	if (thread == MULTI)
		return error_set(err, EINVAL,
				 "%s: the software CPU runs all processors on one thread; use "
				 "thread=single",
				 what);
	if (opts_has(opts, "tb-size") && (mib < SOFT_CODE_MIN / MIB || mib > SOFT_CODE_MAX / MIB))
		return error_set(err, EINVAL, "%s: tb-size=%llu must be %llu to %llu (MiB)", what,
				 (unsigned long long)mib, (unsigned long long)(SOFT_CODE_MIN / MIB),
				 (unsigned long long)(SOFT_CODE_MAX / MIB));
	if (verify > INT_MAX)
		return error_set(err, EINVAL, "%s: verify=%llu must be at most %d", what,
				 (unsigned long long)verify, INT_MAX);
	if (verify && !jit)
		return error_set(err, EINVAL,
				 "%s: verify compares the translator with the interpreter; jit=off "
				 "leaves nothing to compare",
				 what);
	if (jit_given)
		s->jit = jit ? SOFT_JIT_ON : SOFT_JIT_OFF;
	else if (verify)
		s->jit = SOFT_JIT_ON;
	if (mib)
		s->code_size = (size_t)(mib * MIB);
	if (verify)
		s->verify = (unsigned)verify;
	return 0;
}

bool soft_can_translate(void)
{
	return soft_cpu_can_translate();
}

static void warn_of_missing_features(const struct soft_cpu *cpu)
{
	uint32_t missing[4];
	soft_cpu_missing_features(cpu, missing);
	for (unsigned n = 0; n < 4 * 32; n++) {
		if (missing[n / 32] >> n % 32 & 1)
			warn("the software CPU has no '%s'; -cpu +%s is left out",
			     cpu_feature_name(n / 32, n % 32), cpu_feature_name(n / 32, n % 32));
	}
}

/* Makes the CPUs, with or without the translator. */
static int make_cpus(struct soft_engine *s, const struct engine_config *config, bool jit,
		     const struct soft_settings *settings, struct error *err)
{
	for (unsigned n = 0; n < config->cpus; n++) {
		struct soft_cpu_config c = {
			.index = n,
			.cpus = config->cpus,
			.model = config->model,
			.mem = config->mem,
			.io = config->io,
			.lock = cpu_lock,
			.unlock = cpu_unlock,
			.ack = config->ack ? cpu_ack : NULL,
			.apic_base_changed = cpu_apic_base_changed,
			.time_ns = cpu_time_ns,
			.ferr = config->ferr ? cpu_ferr : NULL,
			.opaque = s,
			.jit = jit,
			.code_size = settings->code_size,
			.verify = settings->verify,
			.perf_map = settings->perf_map,
		};
		s->vcpu[n].cpu = soft_cpu_new(&c, err);
		if (!s->vcpu[n].cpu)
			return -1;
		s->base.config.cpus++;
	}
	s->jit = jit;
	return 0;
}

struct engine *engine_new_soft(const struct engine_config *config,
			       const struct soft_settings *settings, struct error *err)
{
	static const struct soft_settings defaults;
	struct soft_engine *s = xcalloc(1, sizeof(*s));
	s->base.ops = &soft_ops;
	s->base.config = *config;
	s->base.config.cpus = 0; /* counts those made, for soft_free() */
	s->vcpu = xcalloc(config->cpus, sizeof(*s->vcpu));
	s->pause = true;
	atomic_init(&s->running, -1);
	pthread_mutex_init(&s->mutex, NULL);
	pthread_cond_init(&s->wake, NULL);
	pthread_cond_init(&s->stood, NULL);

	stop_time(s);
	if (!settings)
		settings = &defaults;
	int r = make_cpus(s, config, settings->jit != SOFT_JIT_OFF, settings, err);
	if (r < 0 && settings->jit == SOFT_JIT_AUTO) {
		warn("%s; the software CPU interprets", err->text);
		free_cpus(s);
		r = make_cpus(s, config, false, settings, err);
	}
	if (r < 0) {
		soft_free(&s->base);
		return NULL;
	}
	if (config->cpus)
		warn_of_missing_features(s->vcpu[0].cpu);
	s->listener = (struct mem_listener){
		.view_changed = flush_tlbs,
		.dirty_cleared = dirty_cleared,
		.opaque = s,
	};
	memory_add_listener(config->mem, &s->listener);
	memory_set_write_hook(config->mem, ram_written, s);
	return &s->base;
}
