/* SPDX-License-Identifier: MIT */
/* isa-debug-exit: writing v ends the program with exit status (v << 1) | 1. */
#ifndef DEVICES_DEBUG_EXIT_H
#define DEVICES_DEBUG_EXIT_H

#include "core/device.h"
#include <stdint.h>

#define DEBUG_EXIT_PORT 0x501
#define DEBUG_EXIT_SIZE 2

struct debug_exit;

struct debug_exit *debug_exit_new(const struct device_env *env, uint16_t iobase, unsigned iosize);
void debug_exit_free(struct debug_exit *d);

#endif
