/* SPDX-License-Identifier: MIT */
/* Port 61h: speaker gate and data, timer 2 output, refresh toggle. No sound is made. */
#ifndef DEVICES_PCSPEAKER_H
#define DEVICES_PCSPEAKER_H

#include "core/device.h"

struct i8254;
struct pcspeaker;

struct pcspeaker *pcspeaker_new(const struct device_env *env, struct i8254 *pit);
void pcspeaker_free(struct pcspeaker *spk);

#endif
