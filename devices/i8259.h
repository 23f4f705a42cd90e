/* SPDX-License-Identifier: MIT */
/* The two 8259A interrupt controllers of a PC, cascaded on IRQ2, with the ELCR of the PIIX3. */
#ifndef DEVICES_I8259_H
#define DEVICES_I8259_H

#include "core/device.h"
#include "core/irq.h"
#include <stdbool.h>

struct i8259;

/* `intr` is the INT output of the master: to the CPU's INTR pin or the local APICs' LINT0. */
struct i8259 *i8259_new(const struct device_env *env, struct irq_line intr);
void i8259_free(struct i8259 *pics);
/* Input 0..15. IRQ2 is the cascade: setting its line has no effect. */
struct irq_line i8259_line(struct i8259 *pics, int irq);
/* The processor's acknowledge cycle: returns the vector; a spurious one (IRQ7) if nothing is
 * pending any more. */
int i8259_ack(struct i8259 *pics);
/* Level of the INT output. */
bool i8259_pending(const struct i8259 *pics);

#endif
