/* SPDX-License-Identifier: MIT */
/* The debug console: one port whose written bytes go to a chardev; reads answer 0xE9. */
#ifndef DEVICES_DEBUGCON_H
#define DEVICES_DEBUGCON_H

#include "core/device.h"
#include <stdint.h>

#define DEBUGCON_PORT 0x402 /* where SeaBIOS writes its log */

struct chardev;
struct debugcon;

struct debugcon *debugcon_new(const struct device_env *env, uint16_t iobase, struct chardev *chr);
void debugcon_free(struct debugcon *d);

#endif
