/* SPDX-License-Identifier: MIT */
/*
 * Inside the local APICs:
 *
 *   lapic.c        registers, priorities, delivery, the pins
 *   lapic_timer.c  the timer
 */
#ifndef DEVICES_LAPIC_INTERNAL_H
#define DEVICES_LAPIC_INTERNAL_H

#include "devices/lapic.h"
#include "lib/clock.h"
#include <stdbool.h>
#include <stdint.h>

struct memory;
struct mem_mapping;
struct state_registry;

enum lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };
/* Bits of an LVT entry that the timer knows. */
enum { LVT_VECTOR = 0xFF, LVT_MASKED = 1 << 16, LVT_PERIODIC = 1 << 17 };

struct lapic {
	uint64_t base; /* IA32_APIC_BASE */
	uint32_t id, ldr, dfr, svr;
	uint32_t tpr;
	uint32_t isr[8], tmr[8], irr[8];
	uint32_t esr, esr_pending; /* as read; collected since the last write */
	uint32_t icr_low, icr_high;
	uint32_t lvt[LVT_COUNT];
	uint32_t initial_count, divide;
	uint64_t timer_start; /* virtual ns */
	uint32_t timer_first; /* ticks from timer_start to the first expiry; 0: stopped */
	bool lint[2];         /* levels of the pins */
	bool extint;          /* an ExtINT message waits to be acknowledged */
	struct timer timer;

	struct lapic_set *set;
	unsigned cpu;
	struct mem_mapping *mapping;
	int intr; /* last level told to the processor; -1: none yet */
};

struct lapic_set {
	unsigned cpus;
	struct lapic *cpu;
	unsigned next_lowest; /* where the search for equal lowest priorities starts */

	const struct lapic_ops *ops;
	void *opaque;
	void (*eoi_hook)(void *opaque, uint8_t vector);
	void *eoi_opaque;
	struct memory *mem;
	struct clock *clock;
	struct state_registry *states;
};

/* ---- lapic.c ---- */

/* Takes a fixed interrupt for this processor. */
void lapic_accept_fixed(struct lapic *l, uint8_t vector, bool level);

/* ---- lapic_timer.c ---- */

void lapic_timer_init(struct lapic *l);
/* Delivers an expiry that the event loop has not come to yet; before the registers change. */
void lapic_timer_catch_up(struct lapic *l);
/* The counter counts down from `count`, beginning now; 0 stops it. */
void lapic_timer_start(struct lapic *l, uint32_t count);
uint32_t lapic_timer_count(const struct lapic *l);
/* The LVT entry was masked or unmasked: the host timer runs only if somebody wants it. */
void lapic_timer_schedule(struct lapic *l);

#endif
