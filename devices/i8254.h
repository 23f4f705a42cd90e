/* SPDX-License-Identifier: MIT */
/* The 8254 interval timer: channel 0 is IRQ0, channel 1 was refresh, channel 2 is the speaker. */
#ifndef DEVICES_I8254_H
#define DEVICES_I8254_H

#include "core/device.h"
#include "core/irq.h"
#include <stdbool.h>

#define PIT_HZ 1193182

struct i8254;

struct i8254 *i8254_new(const struct device_env *env, struct irq_line irq0);
void i8254_free(struct i8254 *pit);
/* The gate input and the output of channel 2: bits 0 and 5 of port 61h. */
void i8254_set_gate2(struct i8254 *pit, bool gate);
bool i8254_out2(struct i8254 *pit);

#endif
