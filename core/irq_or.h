/* SPDX-License-Identifier: MIT */
/*
 * One interrupt line with several devices on it (COM1 and COM3 on IRQ 4, the SCI and the PIRQs on
 * IRQ 9): the line is high while any of them holds its own input high. A device is given an input
 * and need not know that it shares.
 */
#ifndef CORE_IRQ_OR_H
#define CORE_IRQ_OR_H

#include "core/irq.h"

struct irq_or;
struct state_registry;

enum { IRQ_OR_INPUTS = 32 };

/* Drives `out`. The inputs are saved and reset as device "irq-or", number `instance`; create it
 * before the devices that use it, so that their reset finds it done. */
struct irq_or *irq_or_new(struct state_registry *states, int instance, struct irq_line out);
void irq_or_free(struct irq_or *gate);
/* A further input, low at first; the caller sees to it that there are not more than IRQ_OR_INPUTS
 * (those beyond are not connected). */
struct irq_line irq_or_input(struct irq_or *gate);

#endif
