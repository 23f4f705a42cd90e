/* SPDX-License-Identifier: MIT */
/*
 * The I/O port space as a table of 65,536 owner pointers. The table comes from calloc() and is
 * therefore backed by host memory only in the few pages where ports were ever registered.
 *
 * An access goes to the owner of its first port as a whole when that owner takes the size and all
 * of the access lies in its range; otherwise it is cut into halves, low half first, as the ISA bus
 * does with a 16-bit access to an 8-bit card (IBM PC AT Technical Reference, "I/O Channel").
 */
#include "core/iobus.h"
#include "lib/bytes.h"
#include "lib/list.h"
#include "lib/log.h"
#include "lib/text.h"
#include <stdlib.h>

enum { PORTS = 65536 };

struct io_range {
	const char *name;
	uint16_t base;
	unsigned count;
	const struct io_ops *ops;
	void *opaque;
	unsigned sizes;
	uint64_t order;   /* of registration */
	struct list link; /* in iobus.ranges, sorted by base */
};

struct iobus {
	struct io_range **owner;
	struct list ranges;
	uint64_t registrations;
};

struct iobus *iobus_new(void)
{
	struct iobus *bus = xcalloc(1, sizeof(*bus));
	bus->owner = xcalloc(PORTS, sizeof(*bus->owner));
	list_init(&bus->ranges);
	return bus;
}

void iobus_free(struct iobus *bus)
{
	struct list *it, *tmp;

	if (!bus)
		return;
	list_for_each_safe(it, tmp, &bus->ranges) free(list_entry(it, struct io_range, link));
	free(bus->owner);
	free(bus);
}

struct io_range *iobus_add(struct iobus *bus, const char *name, uint16_t base, unsigned count,
			   const struct io_ops *ops, void *opaque)
{
	struct io_range *range = xcalloc(1, sizeof(*range));
	struct list *it;

	if (count > (unsigned)PORTS - base)
		count = (unsigned)PORTS - base;
	range->name = name;
	range->base = base;
	range->count = count;
	range->ops = ops;
	range->opaque = opaque;
	range->sizes = ops->sizes ? ops->sizes : 1;
	range->order = bus->registrations++;
	for (unsigned i = 0; i < count; i++)
		bus->owner[base + i] = range;
	list_for_each(it,
		      &bus->ranges) if (list_entry(it, struct io_range, link)->base > base) break;
	list_insert_before(it, &range->link);
	return range;
}

/* The range registered last of those that have this port, or NULL. */
static struct io_range *latest_at(const struct iobus *bus, unsigned port)
{
	struct io_range *latest = NULL;
	struct list *it;

	list_for_each(it, &bus->ranges)
	{
		struct io_range *range = list_entry(it, struct io_range, link);
		if (port >= range->base && port - range->base < range->count &&
		    (!latest || range->order > latest->order))
			latest = range;
	}
	return latest;
}

void iobus_remove(struct iobus *bus, struct io_range *range)
{
	if (!range)
		return;
	list_remove(&range->link);
	for (unsigned i = 0; i < range->count; i++)
		if (bus->owner[range->base + i] == range)
			bus->owner[range->base + i] = latest_at(bus, range->base + i);
	free(range);
}

/* True if the range answers an access of this size at this port in one piece. */
static bool takes(const struct io_range *range, uint16_t port, unsigned size)
{
	return (range->sizes & size) && range_in(port - range->base, size, range->count);
}

static uint32_t read_one(struct iobus *bus, uint16_t port, unsigned size)
{
	struct io_range *range = bus->owner[port];

	if (range && takes(range, port, size))
		return range->ops->read ? range->ops->read(range->opaque, port, size) : UINT32_MAX;
	if (size == 1) {
		trace(TRACE_UNASSIGNED, "read from port %04x", port);
		return UINT32_MAX;
	}
	unsigned half = size / 2, bits = half * 8;
	uint32_t mask = (UINT32_C(1) << bits) - 1;
	uint32_t low = read_one(bus, port, half) & mask;
	return low | (read_one(bus, (uint16_t)(port + half), half) & mask) << bits;
}

static void write_one(struct iobus *bus, uint16_t port, unsigned size, uint32_t value)
{
	struct io_range *range = bus->owner[port];

	if (range && takes(range, port, size)) {
		if (range->ops->write)
			range->ops->write(range->opaque, port, size, value);
		return;
	}
	if (size == 1) {
		trace(TRACE_UNASSIGNED, "write of %02x to port %04x", value & 0xFF, port);
		return;
	}
	unsigned half = size / 2, bits = half * 8;
	uint32_t mask = (UINT32_C(1) << bits) - 1;
	write_one(bus, port, half, value & mask);
	write_one(bus, (uint16_t)(port + half), half, value >> bits & mask);
}

static uint32_t size_mask(unsigned size)
{
	return size >= 4 ? UINT32_MAX : (UINT32_C(1) << size * 8) - 1;
}

uint32_t iobus_read(struct iobus *bus, uint16_t port, unsigned size)
{
	uint32_t value = read_one(bus, port, size) & size_mask(size);
	trace(TRACE_IO, "in  %04x.%u -> %0*x", port, size, (int)size * 2, value);
	return value;
}

void iobus_write(struct iobus *bus, uint16_t port, unsigned size, uint32_t value)
{
	value &= size_mask(size);
	trace(TRACE_IO, "out %04x.%u <- %0*x", port, size, (int)size * 2, value);
	write_one(bus, port, size, value);
}

/* The owner that moves blocks at this port, or NULL. */
static struct io_range *block_owner(struct iobus *bus, uint16_t port, unsigned size)
{
	struct io_range *range = bus->owner[port];
	return range && takes(range, port, size) ? range : NULL;
}

void iobus_read_block(struct iobus *bus, uint16_t port, unsigned size, void *buf, size_t count)
{
	uint8_t *p = buf;

	trace(TRACE_IO, "ins  %04x.%u x %zu", port, size, count);
	while (count) {
		/* Looked up anew each time: a device's callback may move ranges. */
		struct io_range *range = block_owner(bus, port, size);
		size_t done = 0;
		if (range && range->ops->read_block)
			done = range->ops->read_block(range->opaque, port, size, p, count);
		if (done == 0 || done > count) {
			store_le(p, read_one(bus, port, size), size);
			done = 1;
		}
		p += done * size;
		count -= done;
	}
}

void iobus_write_block(struct iobus *bus, uint16_t port, unsigned size, const void *buf,
		       size_t count)
{
	const uint8_t *p = buf;

	trace(TRACE_IO, "outs %04x.%u x %zu", port, size, count);
	while (count) {
		struct io_range *range = block_owner(bus, port, size);
		size_t done = 0;
		if (range && range->ops->write_block)
			done = range->ops->write_block(range->opaque, port, size, p, count);
		if (done == 0 || done > count) {
			write_one(bus, port, size, (uint32_t)load_le(p, size));
			done = 1;
		}
		p += done * size;
		count -= done;
	}
}

void iobus_for_each(struct iobus *bus,
		    void (*fn)(void *opaque, const char *name, uint16_t base, unsigned count),
		    void *opaque)
{
	struct list *it;

	list_for_each(it, &bus->ranges)
	{
		struct io_range *range = list_entry(it, struct io_range, link);
		fn(opaque, range->name, range->base, range->count);
	}
}
