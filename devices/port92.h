/* SPDX-License-Identifier: MIT */
/* System control port A (92h): fast A20 and fast reset. */
#ifndef DEVICES_PORT92_H
#define DEVICES_PORT92_H

#include "core/device.h"

struct port92;

struct port92 *port92_new(const struct device_env *env);
void port92_free(struct port92 *p);

#endif
