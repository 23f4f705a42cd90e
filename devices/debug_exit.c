/* SPDX-License-Identifier: MIT */
/*
 * isa-debug-exit: a write of v anywhere in its ports ends the program with exit status
 * (v << 1) | 1, so that a test guest can report a result and 0 stays for an orderly power-off.
 * Reads answer 0. There is no state. Document: QEMU "isa-debug-exit" device.
 */
#include "devices/debug_exit.h"
#include "core/iobus.h"
#include "lib/text.h"
#include <stdlib.h>

struct debug_exit {
	const struct machine_requests *requests;
	struct iobus *io;
	struct io_range *range;
};

static uint32_t debug_exit_read(void *opaque, uint16_t port, unsigned size)
{
	return 0;
}

static void debug_exit_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct debug_exit *d = opaque;

	if (d->requests && d->requests->exit)
		d->requests->exit(d->requests->opaque, (int)((value << 1 | 1) & 0xFF));
}

static const struct io_ops debug_exit_ops = {
	.read = debug_exit_read,
	.write = debug_exit_write,
	.sizes = 1 | 2 | 4,
};

struct debug_exit *debug_exit_new(const struct device_env *env, uint16_t iobase, unsigned iosize)
{
	struct debug_exit *d = xcalloc(1, sizeof(*d));

	d->requests = env->requests;
	d->io = env->io;
	d->range = iobus_add(env->io, "isa-debug-exit", iobase, iosize, &debug_exit_ops, d);
	return d;
}

void debug_exit_free(struct debug_exit *d)
{
	if (!d)
		return;
	iobus_remove(d->io, d->range);
	free(d);
}
