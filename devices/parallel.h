/* SPDX-License-Identifier: MIT */
/* A parallel port in standard (SPP) mode with a printer behind it. PC default: LPT1 378h/7. */
#ifndef DEVICES_PARALLEL_H
#define DEVICES_PARALLEL_H

#include "core/device.h"
#include "core/irq.h"
#include <stdint.h>

struct chardev;
struct parallel;

/* `chr` may be NULL: no printer. */
struct parallel *parallel_new(const struct device_env *env, int instance, uint16_t iobase,
			      struct irq_line irq, struct chardev *chr);
void parallel_free(struct parallel *port);

#endif
