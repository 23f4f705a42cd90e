/* SPDX-License-Identifier: MIT */
/* The PC's x87 error logic: FERR# becomes IRQ13, port F0h makes IGNNE#. */
#ifndef DEVICES_COPROCESSOR_H
#define DEVICES_COPROCESSOR_H

#include "core/device.h"
#include "core/irq.h"

struct coprocessor;

/* `ignne`: asserts the CPUs' IGNNE# pin, which drops by itself with FERR#; lock held. */
struct coprocessor *coprocessor_new(const struct device_env *env, struct irq_line irq13,
				    void (*ignne)(void *opaque), void *opaque);
void coprocessor_free(struct coprocessor *p);

/* A CPU asserts FERR#: an x87 exception is pending and CR0.NE is clear. Lock held. */
void coprocessor_ferr(struct coprocessor *p);

#endif
