/* SPDX-License-Identifier: MIT */
/* The 8042 keyboard controller with a PS/2 keyboard and a PS/2 wheel mouse; A20 gate and reset. */
#ifndef DEVICES_I8042_H
#define DEVICES_I8042_H

#include "core/device.h"
#include "core/input.h"
#include "core/irq.h"

struct i8042;

/* Becomes the keyboard and mouse sink of `input`. */
struct i8042 *i8042_new(const struct device_env *env, struct irq_line irq1, struct irq_line irq12,
			struct input *input);
void i8042_free(struct i8042 *kbc);

#endif
