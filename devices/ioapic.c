/* SPDX-License-Identifier: MIT */
/*
 * Intel 82093AA I/O APIC: 24 inputs, each with a redirection entry that says as which message a
 * request goes to the local APICs.
 *
 *   offset 00h  IOREGSEL  index of the register at IOWIN
 *          10h  IOWIN     00 ID, 01 version, 02 arbitration ID, 10h + 2n / 11h + 2n entry n
 *
 * An edge is forwarded when it happens and forgotten if the entry is masked. A level request is
 * forwarded once and then held back by Remote IRR until its EOI comes; if the line is still active
 * then, it is sent again.
 *
 * Document: Intel 82093AA datasheet (290566), 3.0 "Register Description". Left out: polarity (a
 * line here is a logical request), delivery status (a message is delivered at once).
 */
#include "devices/ioapic.h"
#include "core/memory.h"
#include "core/state.h"
#include "devices/lapic.h"
#include "lib/log.h"
#include "lib/text.h"
#include <stdlib.h>

enum {
	IOREGSEL = 0x00,
	IOWIN = 0x10,
	REG_ID = 0x00,
	REG_VERSION = 0x01,
	REG_ARB = 0x02,
	REG_REDIRECTION = 0x10,
	VERSION = 0x11 | (IOAPIC_PINS - 1) << 16,
	ID_SHIFT = 24,
	ID_MASK = 0x0F,

	RED_VECTOR = 0xFF,
	RED_MODE_SHIFT = 8,
	RED_MODE = 7,
	RED_LOGICAL = 1 << 11,
	RED_STATUS = 1 << 12,
	RED_REMOTE_IRR = 1 << 14,
	RED_LEVEL = 1 << 15,
	RED_MASKED = 1 << 16,
	RED_LOW_WRITABLE = 0x1AFFF,
	RED_DEST_SHIFT = 56,
};

#define RED_HIGH_WRITABLE UINT64_C(0xFF000000)

struct ioapic {
	uint8_t select;
	uint8_t id;
	uint64_t redirection[IOAPIC_PINS];
	uint32_t lines; /* levels of the inputs */

	uint8_t initial_id;
	struct lapic_set *lapics;
	struct memory *mem;
	struct mem_mapping *mapping;
	struct state_registry *states;
};

static const struct state_field ioapic_fields[] = {
	STATE_UINT(ioapic, select),
	STATE_UINT(ioapic, id),
	STATE_UINTS(ioapic, redirection),
	STATE_UINT(ioapic, lines),
	STATE_END,
};

static void send(struct ioapic *io, unsigned n)
{
	uint64_t entry = io->redirection[n];
	struct apic_message msg = {
		.dest = (uint8_t)(entry >> RED_DEST_SHIFT),
		.logical = entry & RED_LOGICAL,
		.mode = entry >> RED_MODE_SHIFT & RED_MODE,
		.vector = entry & RED_VECTOR,
		/* Only fixed and lowest-priority messages are ever ended by an EOI. */
		.level = (entry & RED_LEVEL) && (entry >> RED_MODE_SHIFT & RED_MODE) <= APIC_LOWEST,
	};
	if (msg.mode == APIC_SIPI)
		return; /* not a mode of this chip */
	trace(TRACE_IRQ, "ioapic: input %u vector %02x to %02x", n, msg.vector, msg.dest);
	lapic_deliver(io->lapics, &msg);
}

/* Forwards a level request that is active, not masked and not already being served. */
static void service_level(struct ioapic *io, unsigned n)
{
	uint64_t *entry = &io->redirection[n];

	if (!(*entry & RED_LEVEL) || (*entry & (RED_MASKED | RED_REMOTE_IRR)) ||
	    !(io->lines >> n & 1))
		return;
	if ((*entry >> RED_MODE_SHIFT & RED_MODE) <= APIC_LOWEST)
		*entry |= RED_REMOTE_IRR;
	send(io, n);
}

static void set_line(void *opaque, int pin, bool level)
{
	struct ioapic *io = opaque;
	unsigned n = (unsigned)pin;
	bool was = io->lines >> n & 1;

	if (was == level)
		return;
	trace(TRACE_IRQ, "ioapic: input %u = %d", n, level);
	io->lines ^= UINT32_C(1) << n;
	if (!level)
		return;
	if (io->redirection[n] & RED_LEVEL)
		service_level(io, n);
	else if (!(io->redirection[n] & RED_MASKED))
		send(io, n);
}

/* An EOI message came over the APIC bus. */
static void eoi(void *opaque, uint8_t vector)
{
	struct ioapic *io = opaque;

	for (unsigned n = 0; n < IOAPIC_PINS; n++) {
		uint64_t *entry = &io->redirection[n];
		if ((*entry & RED_VECTOR) != vector || !(*entry & RED_REMOTE_IRR))
			continue;
		*entry &= ~(uint64_t)RED_REMOTE_IRR;
		service_level(io, n);
	}
}

static uint32_t register_read(const struct ioapic *io)
{
	switch (io->select) {
	case REG_ID:
	case REG_ARB: return (uint32_t)io->id << ID_SHIFT;
	case REG_VERSION: return VERSION;
	default: break;
	}
	unsigned n = (unsigned)(io->select - REG_REDIRECTION) / 2;
	if (io->select < REG_REDIRECTION || n >= IOAPIC_PINS)
		return 0;
	return (uint32_t)(io->redirection[n] >> (io->select & 1 ? 32 : 0));
}

static void register_write(struct ioapic *io, uint32_t value)
{
	if (io->select == REG_ID) {
		io->id = value >> ID_SHIFT & ID_MASK;
		return;
	}
	unsigned n = (unsigned)(io->select - REG_REDIRECTION) / 2;
	if (io->select < REG_REDIRECTION || n >= IOAPIC_PINS)
		return;
	uint64_t *entry = &io->redirection[n];
	if (io->select & 1) {
		*entry = (*entry & UINT32_MAX) | (value & RED_HIGH_WRITABLE) << 32;
		return;
	}
	*entry = (*entry & ~(uint64_t)RED_LOW_WRITABLE) | (value & RED_LOW_WRITABLE);
	if (!(*entry & RED_LEVEL))
		*entry &= ~(uint64_t)RED_REMOTE_IRR; /* "undefined for edge triggered" */
	service_level(io, n);
}

static uint64_t ioapic_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ioapic *io = opaque;

	if (offset == IOREGSEL)
		return io->select;
	return offset == IOWIN ? register_read(io) : 0;
}

static void ioapic_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct ioapic *io = opaque;

	if (offset == IOREGSEL)
		io->select = (uint8_t)value;
	else if (offset == IOWIN && size == 4)
		register_write(io, (uint32_t)value);
}

static const struct mmio_ops ioapic_mmio = {
	.read = ioapic_read,
	.write = ioapic_write,
	.min_size = 4,
	.max_size = 4,
};

static void ioapic_reset(void *opaque)
{
	struct ioapic *io = opaque;

	io->id = io->initial_id;
	for (unsigned n = 0; n < IOAPIC_PINS; n++)
		io->redirection[n] = RED_MASKED;
}

static int ioapic_post_load(void *opaque, unsigned version, struct error *err)
{
	struct ioapic *io = opaque;

	io->id &= ID_MASK;
	io->lines &= (UINT32_C(1) << IOAPIC_PINS) - 1;
	return 0;
}

static const struct state_desc ioapic_desc = {
	.name = "ioapic",
	.version = 1,
	.fields = ioapic_fields,
	.reset = ioapic_reset,
	.post_load = ioapic_post_load,
};

struct irq_line ioapic_line(struct ioapic *io, int n)
{
	if (n < 0 || n >= IOAPIC_PINS)
		return (struct irq_line){0};
	return (struct irq_line){set_line, io, n};
}

struct ioapic *ioapic_new(const struct device_env *env, uint64_t base, struct lapic_set *lapics,
			  uint8_t id)
{
	struct ioapic *io = xcalloc(1, sizeof(*io));
	struct mem_region *region =
		mem_region_new_mmio(env->mem, "ioapic", GUEST_PAGE_SIZE, &ioapic_mmio, io);

	io->initial_id = id & ID_MASK;
	io->lapics = lapics;
	io->mem = env->mem;
	io->states = env->states;
	io->mapping = mem_map(env->mem, region, 0, base, GUEST_PAGE_SIZE, MEM_PRIO_APIC);
	mem_mapping_set(io->mapping, base, MEM_RW);
	lapic_set_eoi_hook(lapics, eoi, io);
	state_register(env->states, &ioapic_desc, 0, io);
	ioapic_reset(io);
	return io;
}

void ioapic_free(struct ioapic *io)
{
	if (!io)
		return;
	lapic_set_eoi_hook(io->lapics, NULL, NULL);
	mem_unmap(io->mapping);
	state_unregister(io->states, io);
	free(io);
}
