/* SPDX-License-Identifier: MIT */
/* -object rng-random, rng-builtin and rng-egd: where a virtio-rng card's random numbers come
 * from. */
#ifndef VMM_RNG_H
#define VMM_RNG_H

#include "lib/error.h"
#include "lib/object.h"

struct virtio_rng_config;

extern const struct object_type rng_random_type, rng_builtin_type, rng_egd_type;

/* The source called `id`, for one card: config->fd becomes a descriptor of the caller's own, or -1
 * for the host kernel's generator, or config->source is set. -errno with a sentence. */
int rng_open(const char *id, struct virtio_rng_config *config, struct error *err);

#endif
