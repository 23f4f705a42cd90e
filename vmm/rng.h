/* SPDX-License-Identifier: MIT */
/* -object rng-random and rng-builtin: where a virtio-rng card's random numbers come from. */
#ifndef VMM_RNG_H
#define VMM_RNG_H

#include "lib/error.h"
#include "lib/object.h"

extern const struct object_type rng_random_type, rng_builtin_type;

/* The source called `id`: *fd becomes a descriptor of the caller's own, or -1 for the host
 * kernel's generator. -errno with a sentence. */
int rng_open(const char *id, int *fd, struct error *err);

#endif
