/* SPDX-License-Identifier: MIT */
/* A 16550A UART. PC defaults: COM1 3F8h/4, COM2 2F8h/3, COM3 3E8h/4, COM4 2E8h/3. */
#ifndef DEVICES_SERIAL16550_H
#define DEVICES_SERIAL16550_H

#include "core/device.h"
#include "core/irq.h"
#include <stdint.h>

struct chardev;
struct serial16550;

/* `chr` may be NULL: then what is sent is gone and nothing arrives. */
struct serial16550 *serial16550_new(const struct device_env *env, int instance, uint16_t iobase,
				    struct irq_line irq, struct chardev *chr);
void serial16550_free(struct serial16550 *uart);

#endif
