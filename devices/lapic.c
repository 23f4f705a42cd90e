/* SPDX-License-Identifier: MIT */
/*
 * Local APICs (P6 family xAPIC), one a processor, all at the same physical page; the page's
 * callbacks ask current_cpu whose registers are meant.
 *
 *   020 ID          080 TPR   0A0 PPR   0B0 EOI   0D0 LDR   0E0 DFR   0F0 SVR
 *   030 version     100..170 ISR   180..1F0 TMR   200..270 IRR   280 ESR
 *   300/310 ICR     320 LVT timer   330 thermal   340 performance   350 LINT0   360 LINT1
 *   370 LVT error   380 initial count   390 current count   3E0 divide configuration
 *
 * Interrupts reach a processor as a level on its INTR pin: high while the highest vector in IRR
 * beats the processor priority, or while LINT0 passes the 8259's request on. lapic_ack() then says
 * which.
 *
 * After RESET the bootstrap processor's LINT0 passes ExtINT on although the APIC is
 * software-disabled, which is the virtual wire mode that firmware sets up on a real board (MP spec
 * 1.4, 3.6.2.2), so that a PC without APIC-aware firmware works.
 *
 * Documents: Intel SDM vol. 3A, chapter 10. Left out: x2APIC, TSC-deadline mode, SMI, focus
 * processor checking, performance and thermal sources (their LVT entries can be programmed but
 * never fire).
 */
#include "devices/lapic.h"
#include "core/current_cpu.h"
#include "core/memory.h"
#include "core/state.h"
#include "devices/lapic_internal.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include <stdlib.h>

enum reg {
	REG_ID = 0x020,
	REG_VERSION = 0x030,
	REG_TPR = 0x080,
	REG_APR = 0x090,
	REG_PPR = 0x0A0,
	REG_EOI = 0x0B0,
	REG_RRD = 0x0C0,
	REG_LDR = 0x0D0,
	REG_DFR = 0x0E0,
	REG_SVR = 0x0F0,
	REG_ISR = 0x100,
	REG_TMR = 0x180,
	REG_IRR = 0x200,
	REG_ESR = 0x280,
	REG_ICR_LOW = 0x300,
	REG_ICR_HIGH = 0x310,
	REG_LVT = 0x320, /* timer, thermal, performance, LINT0, LINT1, error */
	REG_LVT_END = 0x370,
	REG_INITIAL = 0x380,
	REG_CURRENT = 0x390,
	REG_DIVIDE = 0x3E0,

	REG_BANK = 0x80, /* of ISR, TMR and IRR: 8 registers, 16 bytes apart */
};

enum {
	/* SDM 10.4.8: version 14h, six LVT entries. */
	VERSION = 0x14 | (LVT_COUNT - 1) << 16,
	ID_SHIFT = 24,
	MODE_SHIFT = 8,
	MODE = 7,
	PRIORITY_CLASS = 0xF0,
	FIRST_VECTOR = 16, /* lower ones are illegal */

	LVT_PENDING = 1 << 12,
	LVT_REMOTE_IRR = 1 << 14,
	LVT_LEVEL = 1 << 15,

	SVR_ENABLED = 1 << 8,
	SVR_WRITABLE = 0x3FF, /* vector, enable, focus checking */
	DFR_CLUSTER_SHIFT = 28,
	DFR_RESERVED = 0x0FFFFFFF, /* read as ones */
	TPR_WRITABLE = 0xFF,

	ICR_LOGICAL = 1 << 11,
	ICR_ASSERT = 1 << 14,
	ICR_LEVEL = 1 << 15,
	ICR_SHORTHAND_SHIFT = 18,
	ICR_WRITABLE = 0xCCFFF,

	ESR_SEND_ACCEPT = 1 << 2,
	ESR_SEND_ILLEGAL = 1 << 5,
	ESR_RECEIVE_ILLEGAL = 1 << 6,
	ESR_ILLEGAL_REGISTER = 1 << 7,

	DIVIDE_WRITABLE = 0x0B,
	BROADCAST = 0xFF,
	MAX_CPUS = 255,
};

enum shorthand { TO_DEST, TO_SELF, TO_ALL, TO_OTHERS };

/* ID, LDR and the destination in the ICR. */
#define ID_MASK      UINT32_C(0xFF000000)
#define BASE_BSP     (UINT64_C(1) << 8)
#define BASE_ENABLED (UINT64_C(1) << 11)
#define BASE_ADDRESS UINT64_C(0xFFFFFF000)

/* Which bits of each LVT entry the guest can write (SDM figure 10-8). */
static const uint32_t lvt_writable[LVT_COUNT] = {
	[LVT_TIMER] = LVT_VECTOR | LVT_MASKED | LVT_PERIODIC,
	[LVT_THERMAL] = LVT_VECTOR | MODE << MODE_SHIFT | LVT_MASKED,
	[LVT_PERF] = LVT_VECTOR | MODE << MODE_SHIFT | LVT_MASKED,
	[LVT_LINT0] = LVT_VECTOR | MODE << MODE_SHIFT | 1 << 13 | LVT_LEVEL | LVT_MASKED,
	[LVT_LINT1] = LVT_VECTOR | MODE << MODE_SHIFT | 1 << 13 | LVT_LEVEL | LVT_MASKED,
	[LVT_ERROR] = LVT_VECTOR | LVT_MASKED,
};

static const struct state_field lapic_fields[] = {
	STATE_UINT(lapic, base),          STATE_UINT(lapic, id),
	STATE_UINT(lapic, ldr),           STATE_UINT(lapic, dfr),
	STATE_UINT(lapic, svr),           STATE_UINT(lapic, tpr),
	STATE_UINTS(lapic, isr),          STATE_UINTS(lapic, tmr),
	STATE_UINTS(lapic, irr),          STATE_UINT(lapic, esr),
	STATE_UINT(lapic, esr_pending),   STATE_UINT(lapic, icr_low),
	STATE_UINT(lapic, icr_high),      STATE_UINTS(lapic, lvt),
	STATE_UINT(lapic, initial_count), STATE_UINT(lapic, divide),
	STATE_UINT(lapic, timer_start),   STATE_UINT(lapic, timer_first),
	STATE_UINTS(lapic, lint),         STATE_UINT(lapic, extint),
	STATE_TIMER(lapic, timer),        STATE_END,
};

/* ---- vector sets and priorities (SDM 10.8) ---- */

static void set_bit(uint32_t set[8], uint8_t vector)
{
	set[vector / 32] |= UINT32_C(1) << vector % 32;
}

static void clear_bit(uint32_t set[8], uint8_t vector)
{
	set[vector / 32] &= ~(UINT32_C(1) << vector % 32);
}

static bool test_bit(const uint32_t set[8], uint8_t vector)
{
	return set[vector / 32] >> vector % 32 & 1;
}

static int highest(const uint32_t set[8])
{
	for (int i = 7; i >= 0; i--)
		if (set[i])
			return i * 32 + 31 - __builtin_clz(set[i]);
	return -1;
}

static bool enabled(const struct lapic *l)
{
	return l->base & BASE_ENABLED;
}

static bool software_enabled(const struct lapic *l)
{
	return enabled(l) && (l->svr & SVR_ENABLED);
}

/* SDM 10.8.3.1, "Task and Processor Priorities". */
static uint32_t processor_priority(const struct lapic *l)
{
	int in_service = highest(l->isr);
	uint32_t isrv = in_service < 0 ? 0 : (uint32_t)in_service & PRIORITY_CLASS;
	return (l->tpr & PRIORITY_CLASS) >= isrv ? l->tpr : isrv;
}

/* SDM 10.6.2.4: the arbitration priority for lowest-priority delivery. */
static uint32_t arbitration_priority(const struct lapic *l)
{
	int request = highest(l->irr), service = highest(l->isr);
	uint32_t irrv = request < 0 ? 0 : (uint32_t)request & PRIORITY_CLASS;
	uint32_t isrv = service < 0 ? 0 : (uint32_t)service & PRIORITY_CLASS;
	uint32_t class = l->tpr & PRIORITY_CLASS;

	if (class >= irrv && class > isrv)
		return l->tpr;
	return irrv > isrv ? irrv : isrv;
}

/* The vector that would be delivered now, or -1. */
static int deliverable(const struct lapic *l)
{
	if (!software_enabled(l))
		return -1;
	int vector = highest(l->irr);
	if (vector < 0 ||
	    ((uint32_t)vector & PRIORITY_CLASS) <= (processor_priority(l) & PRIORITY_CLASS))
		return -1;
	return vector;
}

/* True if the 8259's request reaches this processor as an external interrupt. */
static bool passes_extint(const struct lapic *l)
{
	if (!enabled(l))
		return l->cpu == 0; /* LINT0 is the INTR pin then */
	return !(l->lvt[LVT_LINT0] & LVT_MASKED) &&
	       (l->lvt[LVT_LINT0] >> MODE_SHIFT & MODE) == APIC_EXTINT;
}

static void update(struct lapic *l)
{
	int level = deliverable(l) >= 0 || l->extint || (l->lint[0] && passes_extint(l));

	if (level != l->intr) {
		l->intr = level;
		l->set->ops->set_intr(l->set->opaque, l->cpu, level);
	}
}

/* ---- delivery ---- */

static void record_error(struct lapic *l, uint32_t error);

void lapic_accept_fixed(struct lapic *l, uint8_t vector, bool level)
{
	if (!software_enabled(l))
		return;
	if (vector < FIRST_VECTOR) {
		record_error(l, ESR_RECEIVE_ILLEGAL);
		return;
	}
	set_bit(l->irr, vector);
	if (level)
		set_bit(l->tmr, vector);
	else
		clear_bit(l->tmr, vector);
	update(l);
}

/* SDM 10.5.3: the error is collected and the LVT error entry fires. */
static void record_error(struct lapic *l, uint32_t error)
{
	uint32_t entry = l->lvt[LVT_ERROR];
	bool first = !(l->esr_pending & error);

	l->esr_pending |= error;
	if (first && !(entry & LVT_MASKED) && (entry & LVT_VECTOR) >= FIRST_VECTOR)
		lapic_accept_fixed(l, entry & LVT_VECTOR, false);
}

static void registers_reset(struct lapic *l)
{
	timer_cancel(&l->timer);
	l->ldr = 0;
	l->dfr = UINT32_MAX;
	l->svr = LVT_VECTOR;
	l->tpr = 0;
	for (int i = 0; i < 8; i++)
		l->isr[i] = l->tmr[i] = l->irr[i] = 0;
	l->esr = l->esr_pending = 0;
	l->icr_low = l->icr_high = 0;
	for (int i = 0; i < LVT_COUNT; i++)
		l->lvt[i] = LVT_MASKED;
	if (l->cpu == 0)
		l->lvt[LVT_LINT0] = APIC_EXTINT << MODE_SHIFT;
	l->initial_count = l->divide = 0;
	l->timer_start = 0;
	l->timer_first = 0;
	l->extint = false;
}

static void deliver_to(struct lapic *l, uint8_t mode, uint8_t vector, bool level)
{
	const struct lapic_ops *ops = l->set->ops;
	void *opaque = l->set->opaque;

	trace(TRACE_IRQ, "lapic %u: mode %u vector %02x", l->cpu, mode, vector);
	switch (mode) {
	case APIC_FIXED:
	case APIC_LOWEST: lapic_accept_fixed(l, vector, level); break;
	case APIC_NMI: ops->nmi(opaque, l->cpu); break;
	case APIC_INIT:
		registers_reset(l);
		update(l);
		ops->init(opaque, l->cpu);
		break;
	case APIC_SIPI: ops->sipi(opaque, l->cpu, vector); break;
	case APIC_EXTINT:
		l->extint = true;
		update(l);
		break;
	default: break; /* SMI and reserved modes: nothing handles them */
	}
}

/* SDM 10.6.2: does this destination name the APIC? */
static bool matches(const struct lapic *l, uint8_t dest, bool logical)
{
	if (!enabled(l))
		return false;
	if (!logical)
		return dest == BROADCAST || dest == l->id >> ID_SHIFT;
	uint8_t ldr = (uint8_t)(l->ldr >> ID_SHIFT);
	if (l->dfr >> DFR_CLUSTER_SHIFT == 0) /* cluster model */
		return (dest >> 4 == 0xF || dest >> 4 == ldr >> 4) && (dest & ldr & 0x0F);
	return dest & ldr;
}

/* Returns whether any APIC took it. */
static bool deliver(struct lapic_set *set, const struct apic_message *msg)
{
	struct lapic *lowest = NULL;
	bool any = false;

	for (unsigned i = 0; i < set->cpus; i++) {
		unsigned n = msg->mode == APIC_LOWEST ? (set->next_lowest + i) % set->cpus : i;
		struct lapic *l = &set->cpu[n];
		if (!matches(l, msg->dest, msg->logical))
			continue;
		any = true;
		if (msg->mode != APIC_LOWEST)
			deliver_to(l, msg->mode, msg->vector, msg->level);
		else if (software_enabled(l) &&
			 (!lowest || arbitration_priority(l) < arbitration_priority(lowest)))
			lowest = l;
	}
	if (lowest) {
		set->next_lowest = (lowest->cpu + 1) % set->cpus;
		deliver_to(lowest, APIC_LOWEST, msg->vector, msg->level);
	}
	return any;
}

void lapic_deliver(struct lapic_set *set, const struct apic_message *msg)
{
	deliver(set, msg);
}

void lapic_msi(struct lapic_set *set, uint64_t address, uint32_t data)
{
	/* SDM 10.11: address bits 19..12 destination, 2 mode; data bits 7..0 vector, 10..8 delivery
	 * mode, 15 trigger. */
	struct apic_message msg = {
		.dest = (uint8_t)(address >> 12),
		.logical = address >> 2 & 1,
		.mode = data >> MODE_SHIFT & MODE,
		.vector = data & LVT_VECTOR,
		.level = data >> 15 & 1,
	};
	deliver(set, &msg);
}

/* SDM 10.6.1: a write to the low half of the ICR sends. */
static void send_ipi(struct lapic *l)
{
	struct lapic_set *set = l->set;
	uint8_t mode = l->icr_low >> MODE_SHIFT & MODE, vector = l->icr_low & LVT_VECTOR;
	enum shorthand shorthand = l->icr_low >> ICR_SHORTHAND_SHIFT & 3;
	bool level = l->icr_low & ICR_LEVEL;

	if (mode == APIC_EXTINT)
		return; /* reserved */
	/* "INIT Level De-assert" only synchronises arbitration IDs, which nothing uses. */
	if (mode == APIC_INIT && level && !(l->icr_low & ICR_ASSERT))
		return;
	if ((mode == APIC_FIXED || mode == APIC_LOWEST) && vector < FIRST_VECTOR) {
		record_error(l, ESR_SEND_ILLEGAL);
		return;
	}
	/* Only INIT knows the level trigger mode; everything else is edge. */
	struct apic_message msg = {
		.dest = (uint8_t)(l->icr_high >> ID_SHIFT),
		.logical = l->icr_low & ICR_LOGICAL,
		.mode = mode,
		.vector = vector,
	};
	switch (shorthand) {
	case TO_DEST:
		if (!deliver(set, &msg))
			record_error(l, ESR_SEND_ACCEPT);
		break;
	case TO_SELF:
		if (mode == APIC_FIXED)
			lapic_accept_fixed(l, vector, false);
		break;
	default:
		for (unsigned i = 0; i < set->cpus; i++)
			if (enabled(&set->cpu[i]) && (shorthand == TO_ALL || &set->cpu[i] != l))
				deliver_to(&set->cpu[i], mode, vector, false);
	}
}

/* ---- registers ---- */

static void end_of_interrupt(struct lapic *l)
{
	int vector = highest(l->isr);

	if (vector < 0)
		return;
	clear_bit(l->isr, (uint8_t)vector);
	update(l);
	if (!test_bit(l->tmr, (uint8_t)vector))
		return;
	for (int i = 0; i < 2; i++)
		if ((l->lvt[LVT_LINT0 + i] & LVT_VECTOR) == (uint32_t)vector)
			l->lvt[LVT_LINT0 + i] &= ~(uint32_t)LVT_REMOTE_IRR;
	if (l->set->eoi_hook)
		l->set->eoi_hook(l->set->eoi_opaque, (uint8_t)vector);
}

static void write_lvt(struct lapic *l, unsigned n, uint32_t value)
{
	uint32_t keep = l->lvt[n] & LVT_REMOTE_IRR;
	uint32_t was = l->lvt[n];

	value &= lvt_writable[n];
	/* SDM 10.4.7.2: while software-disabled, mask bits cannot be cleared. */
	if (!(l->svr & SVR_ENABLED))
		value |= LVT_MASKED;
	l->lvt[n] = value | keep;
	if (n == LVT_TIMER) {
		/* A one-shot that has run out stays out when the mode changes. */
		if (((was ^ value) & LVT_PERIODIC) && l->timer_first) {
			uint32_t left = 0;
			l->lvt[n] = was;
			left = lapic_timer_count(l);
			l->lvt[n] = value;
			lapic_timer_start(l, left);
		} else {
			lapic_timer_schedule(l);
		}
	}
	update(l);
}

static void write_svr(struct lapic *l, uint32_t value)
{
	l->svr = value & SVR_WRITABLE;
	if (!(l->svr & SVR_ENABLED)) {
		for (int i = 0; i < LVT_COUNT; i++)
			l->lvt[i] |= LVT_MASKED;
		timer_cancel(&l->timer);
	}
	update(l);
}

static uint64_t lapic_read(void *opaque, uint64_t offset, unsigned size)
{
	struct lapic_set *set = opaque;
	unsigned n =
		current_cpu >= 0 && (unsigned)current_cpu < set->cpus ? (unsigned)current_cpu : 0;
	struct lapic *l = &set->cpu[n];
	uint32_t reg = (uint32_t)offset;

	if (reg & 15)
		return 0; /* SDM 10.4.1: only the first dword of each 16 bytes is a register */
	switch (reg) {
	case REG_ID: return l->id;
	case REG_VERSION: return VERSION;
	case REG_TPR: return l->tpr;
	case REG_APR: return arbitration_priority(l);
	case REG_PPR: return processor_priority(l);
	case REG_EOI:
	case REG_RRD: return 0;
	case REG_LDR: return l->ldr;
	case REG_DFR: return l->dfr;
	case REG_SVR: return l->svr;
	case REG_ESR: return l->esr;
	case REG_ICR_LOW: return l->icr_low;
	case REG_ICR_HIGH: return l->icr_high;
	case REG_INITIAL: return l->initial_count;
	case REG_CURRENT: return lapic_timer_count(l);
	case REG_DIVIDE: return l->divide;
	default: break;
	}
	if (reg >= REG_ISR && reg < REG_ISR + REG_BANK)
		return l->isr[(reg - REG_ISR) >> 4];
	if (reg >= REG_TMR && reg < REG_TMR + REG_BANK)
		return l->tmr[(reg - REG_TMR) >> 4];
	if (reg >= REG_IRR && reg < REG_IRR + REG_BANK)
		return l->irr[(reg - REG_IRR) >> 4];
	if (reg >= REG_LVT && reg <= REG_LVT_END)
		return l->lvt[(reg - REG_LVT) >> 4];
	record_error(l, ESR_ILLEGAL_REGISTER);
	return 0;
}

static void lapic_write(void *opaque, uint64_t offset, unsigned size, uint64_t value64)
{
	struct lapic_set *set = opaque;
	unsigned n =
		current_cpu >= 0 && (unsigned)current_cpu < set->cpus ? (unsigned)current_cpu : 0;
	struct lapic *l = &set->cpu[n];
	uint32_t reg = (uint32_t)offset, value = (uint32_t)value64;

	if ((reg & 15) || size != 4)
		return;
	if (reg == REG_LVT || reg == REG_SVR || reg == REG_INITIAL || reg == REG_DIVIDE)
		lapic_timer_catch_up(l);
	switch (reg) {
	case REG_ID: l->id = value & ID_MASK; return;
	case REG_TPR:
		l->tpr = value & TPR_WRITABLE;
		update(l);
		return;
	case REG_EOI: end_of_interrupt(l); return;
	case REG_LDR: l->ldr = value & ID_MASK; return;
	case REG_DFR: l->dfr = value | DFR_RESERVED; return;
	case REG_SVR: write_svr(l, value); return;
	case REG_ESR:
		l->esr = l->esr_pending;
		l->esr_pending = 0;
		return;
	case REG_ICR_LOW:
		l->icr_low = value & ICR_WRITABLE;
		send_ipi(l);
		return;
	case REG_ICR_HIGH: l->icr_high = value & ID_MASK; return;
	case REG_INITIAL:
		l->initial_count = value;
		lapic_timer_start(l, value);
		return;
	case REG_DIVIDE: {
		uint32_t left = lapic_timer_count(l);
		l->divide = value & DIVIDE_WRITABLE;
		lapic_timer_start(l, left);
		return;
	}
	case REG_VERSION:
	case REG_APR:
	case REG_PPR:
	case REG_RRD:
	case REG_CURRENT: return; /* read-only */
	default: break;
	}
	if (reg >= REG_LVT && reg <= REG_LVT_END)
		write_lvt(l, (reg - REG_LVT) >> 4, value);
	else if (reg < REG_ISR || reg >= REG_ESR)
		record_error(l, ESR_ILLEGAL_REGISTER);
}

static const struct mmio_ops lapic_mmio = {
	.read = lapic_read,
	.write = lapic_write,
	.min_size = 4,
	.max_size = 4,
};

/* ---- from and to the processor ---- */

int lapic_ack(struct lapic_set *set, unsigned cpu)
{
	struct lapic *l = &set->cpu[cpu < set->cpus ? cpu : 0];
	int vector = deliverable(l);

	if (vector >= 0) {
		clear_bit(l->irr, (uint8_t)vector);
		set_bit(l->isr, (uint8_t)vector);
		update(l);
		return vector;
	}
	if (l->extint || (l->lint[0] && passes_extint(l))) {
		l->extint = false;
		vector = set->ops->pic_ack ? set->ops->pic_ack(set->opaque) : -1;
	}
	update(l);
	return vector;
}

static void set_lint(struct lapic *l, int pin, bool level)
{
	uint32_t *entry = &l->lvt[LVT_LINT0 + pin];
	bool rising = level && !l->lint[pin];

	l->lint[pin] = level;
	if (enabled(l) && !(*entry & LVT_MASKED)) {
		uint8_t mode = *entry >> MODE_SHIFT & MODE, vector = *entry & LVT_VECTOR;
		if (mode == APIC_FIXED && (*entry & LVT_LEVEL)) {
			if (level && !(*entry & LVT_REMOTE_IRR)) {
				*entry |= LVT_REMOTE_IRR;
				lapic_accept_fixed(l, vector, true);
			}
		} else if (rising && mode != APIC_EXTINT) {
			deliver_to(l, mode, vector, false);
		}
	}
	update(l);
}

/* Both pins go to all processors. n is the pin. */
static void lint_set(void *opaque, int n, bool level)
{
	struct lapic_set *set = opaque;

	for (unsigned i = 0; i < set->cpus; i++)
		set_lint(&set->cpu[i], n, level);
}

struct irq_line lapic_lint0(struct lapic_set *set)
{
	return (struct irq_line){lint_set, set, 0};
}

static void map(struct lapic *l)
{
	mem_mapping_set(l->mapping, l->base & BASE_ADDRESS, enabled(l) ? MEM_RW : 0);
}

void lapic_set_base(struct lapic_set *set, unsigned cpu, uint64_t value)
{
	if (cpu >= set->cpus)
		return;
	struct lapic *l = &set->cpu[cpu];
	bool was = enabled(l);
	l->base = (value & (BASE_ADDRESS | BASE_ENABLED)) | (cpu == 0 ? BASE_BSP : 0);
	/* SDM 10.4.3: disabling loses the state; enabling is like a reset. */
	if (was && !enabled(l))
		registers_reset(l);
	map(l);
	update(l);
}

uint64_t lapic_get_base(const struct lapic_set *set, unsigned cpu)
{
	return cpu < set->cpus ? set->cpu[cpu].base : 0;
}

void lapic_set_eoi_hook(struct lapic_set *set, void (*fn)(void *opaque, uint8_t vector),
			void *opaque)
{
	set->eoi_hook = fn;
	set->eoi_opaque = opaque;
}

/* ---- life ---- */

static void power_on(struct lapic *l)
{
	l->id = l->cpu << ID_SHIFT;
	l->base = LAPIC_DEFAULT_BASE | BASE_ENABLED | (l->cpu == 0 ? BASE_BSP : 0);
	registers_reset(l);
	map(l);
}

static void lapic_reset(void *opaque)
{
	struct lapic *l = opaque;

	power_on(l);
	l->intr = -1;
	update(l);
}

static int lapic_post_load(void *opaque, unsigned version, struct error *err)
{
	struct lapic *l = opaque;

	l->divide &= DIVIDE_WRITABLE;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		l->lvt[i] &= lvt_writable[i] | LVT_REMOTE_IRR;
	map(l);
	l->intr = -1;
	update(l);
	return 0;
}

static const struct state_desc lapic_desc = {
	.name = "lapic",
	.version = 1,
	.fields = lapic_fields,
	.reset = lapic_reset,
	.post_load = lapic_post_load,
};

struct lapic_set *lapic_set_new(const struct device_env *env, unsigned cpus,
				const struct lapic_ops *ops, void *opaque)
{
	struct lapic_set *set = xcalloc(1, sizeof(*set));
	struct mem_region *region =
		mem_region_new_mmio(env->mem, "lapic", GUEST_PAGE_SIZE, &lapic_mmio, set);

	set->cpus = cpus == 0 ? 1 : cpus > MAX_CPUS ? (unsigned)MAX_CPUS : cpus;
	set->cpu = xcalloc(set->cpus, sizeof(*set->cpu));
	set->ops = ops;
	set->opaque = opaque;
	set->mem = env->mem;
	set->clock = env->clock;
	set->states = env->states;
	memory_begin(env->mem);
	for (unsigned i = 0; i < set->cpus; i++) {
		struct lapic *l = &set->cpu[i];
		l->set = set;
		l->cpu = i;
		l->mapping = mem_map(env->mem, region, 0, LAPIC_DEFAULT_BASE, GUEST_PAGE_SIZE,
				     MEM_PRIO_APIC);
		lapic_timer_init(l);
		state_register(env->states, &lapic_desc, (int)i, l);
		power_on(l);
	}
	memory_commit(env->mem);
	return set;
}

void lapic_set_free(struct lapic_set *set)
{
	if (!set)
		return;
	memory_begin(set->mem);
	for (unsigned i = 0; i < set->cpus; i++) {
		timer_cancel(&set->cpu[i].timer);
		mem_unmap(set->cpu[i].mapping);
		state_unregister(set->states, &set->cpu[i]);
	}
	memory_commit(set->mem);
	free(set->cpu);
	free(set);
}
