/* SPDX-License-Identifier: MIT */
/*
 * A doorbell is a register whose writes only say "look": a device may ask that such a write signals
 * an eventfd instead of coming to its callback, so that the vCPU need not leave the guest and take
 * the machine lock. Which engine runs, and whether it can do that, the device does not know: where
 * it cannot, writes come to the callback as ever, and they do so also for what the doorbell's
 * description does not match.
 */
#ifndef CORE_DOORBELL_H
#define CORE_DOORBELL_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

struct doorbell {
	uint64_t address; /* port, or guest-physical */
	bool port;
	uint8_t size; /* of the write: 1, 2, 4, or 0 for any */
	bool match;   /* only writes of `value`; needs a size */
	uint32_t value;
};

struct doorbell_ops {
	/* Switches one on or off; the same description both times. Negative errno: it is not there.
	 * Machine lock held; writes that are on their way meanwhile may go either way. */
	int (*set)(void *opaque, const struct doorbell *bell, int fd, bool on);
	void *opaque;
};

static inline int doorbell_set(const struct doorbell_ops *ops, const struct doorbell *bell, int fd,
			       bool on)
{
	return ops && ops->set ? ops->set(ops->opaque, bell, fd, on) : -ENOTSUP;
}

#endif
