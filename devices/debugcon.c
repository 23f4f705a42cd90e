/* SPDX-License-Identifier: MIT */
/*
 * The debug console of Bochs and QEMU: one 8-bit port. A written byte goes to the chardev; a read
 * answers 0xE9, by which firmware finds out that the port exists. There is no state.
 *
 * Document: QEMU "isa-debugcon" device (behaviour as SeaBIOS and OVMF use it).
 */
#include "devices/debugcon.h"
#include "core/chardev.h"
#include "core/iobus.h"
#include "lib/text.h"
#include <stdlib.h>

enum { DEBUGCON_PRESENT = 0xE9 };

struct debugcon {
	struct chardev *chr;
	struct iobus *io;
	struct io_range *range;
};

static uint32_t debugcon_read(void *opaque, uint16_t port, unsigned size)
{
	return DEBUGCON_PRESENT;
}

static void debugcon_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct debugcon *d = opaque;
	uint8_t byte = (uint8_t)value;

	if (d->chr)
		chardev_write(d->chr, &byte, 1);
}

static size_t debugcon_write_block(void *opaque, uint16_t port, unsigned size, const void *buf,
				   size_t count)
{
	struct debugcon *d = opaque;

	if (d->chr)
		chardev_write(d->chr, buf, count);
	return count;
}

static const struct io_ops debugcon_ops = {
	.read = debugcon_read,
	.write = debugcon_write,
	.write_block = debugcon_write_block,
};

struct debugcon *debugcon_new(const struct device_env *env, uint16_t iobase, struct chardev *chr)
{
	struct debugcon *d = xcalloc(1, sizeof(*d));

	d->chr = chr;
	d->io = env->io;
	d->range = iobus_add(env->io, "debugcon", iobase, 1, &debugcon_ops, d);
	return d;
}

void debugcon_free(struct debugcon *d)
{
	if (!d)
		return;
	iobus_remove(d->io, d->range);
	free(d);
}
