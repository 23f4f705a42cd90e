/* SPDX-License-Identifier: MIT */
/* Keys typed by sendkey and QMP's send-key: pressed and released one after the other in guest time.
 */
#ifndef VMM_KEYS_H
#define VMM_KEYS_H

#include "core/input.h"
#include "lib/error.h"
#include <stddef.h>

enum { KEYS_AT_ONCE = 16, KEY_HOLD_MS = 100 };

struct clock;
struct key_typist;

struct key_typist *key_typist_new(struct clock *clock, struct input *input);
/* Drops what is not typed yet; keys that are down stay so. */
void key_typist_free(struct key_typist *t);
/*
 * Presses the keys in this order and releases them in the opposite one, `hold_ms` of guest time
 * between any two steps. Runs behind what was asked for before. While the machine is stopped guest
 * time stands still, and the keys wait. Lock held.
 */
int key_typist_type(struct key_typist *t, const uint8_t *keys, size_t count, unsigned hold_ms,
		    struct error *err);

#endif
