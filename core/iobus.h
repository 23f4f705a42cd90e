/* SPDX-License-Identifier: MIT */
/*
 * The I/O port space: 65,536 ports, each with at most one owner; lookup is one table access. The
 * machine lock is held in every callback.
 */
#ifndef CORE_IOBUS_H
#define CORE_IOBUS_H

#include <stddef.h>
#include <stdint.h>

struct iobus;

/* `port` is the absolute port number. `size` is 1, 2 or 4 and one of `sizes`. */
struct io_ops {
	uint32_t (*read)(void *opaque, uint16_t port, unsigned size);
	void (*write)(void *opaque, uint16_t port, unsigned size, uint32_t value);
	/*
	 * REP INS / REP OUTS in one call, both may be NULL (then the bus loops over read/write):
	 * moves up to `count` items of `size` bytes and returns how many it moved, at least 1 (the
	 * caller goes on with the rest).
	 */
	size_t (*read_block)(void *opaque, uint16_t port, unsigned size, void *buf, size_t count);
	size_t (*write_block)(void *opaque, uint16_t port, unsigned size, const void *buf,
			      size_t count);
	/* Mask of access sizes the device takes (1 | 2 | 4); 0 means 1. Larger accesses to it are
	 * split into accesses to neighbouring ports, low first, as the ISA bus does; each part goes
	 * to that port's owner. So is an access that would leave the device's range: `port + size`
	 * never passes its end. */
	unsigned sizes;
};

struct iobus *iobus_new(void);
void iobus_free(struct iobus *bus);

/*
 * Gives ports [base, base + count) to a device; a later registration takes over where they overlap,
 * and when it is removed the ports go back to the one before (a guest may move a PCI BAR across
 * anything). `name` must stay valid. Returns a handle.
 */
struct io_range;
struct io_range *iobus_add(struct iobus *bus, const char *name, uint16_t base, unsigned count,
			   const struct io_ops *ops, void *opaque);
void iobus_remove(struct iobus *bus, struct io_range *range);

/* Accesses by a vCPU. Ports without owner read as all ones. The lock is held. */
uint32_t iobus_read(struct iobus *bus, uint16_t port, unsigned size);
void iobus_write(struct iobus *bus, uint16_t port, unsigned size, uint32_t value);
/* `count` items; returns when all are done. */
void iobus_read_block(struct iobus *bus, uint16_t port, unsigned size, void *buf, size_t count);
void iobus_write_block(struct iobus *bus, uint16_t port, unsigned size, const void *buf,
		       size_t count);

/* Calls fn for each range in port order (`info ioports`). */
void iobus_for_each(struct iobus *bus,
		    void (*fn)(void *opaque, const char *name, uint16_t base, unsigned count),
		    void *opaque);

#endif
