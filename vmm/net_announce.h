/* SPDX-License-Identifier: MIT */
/* announce_self: network cards tell switches where they are. Lock held. */
#ifndef VMM_NET_ANNOUNCE_H
#define VMM_NET_ANNOUNCE_H

#include "lib/error.h"
#include <stdint.h>

struct machine;

/* `rounds` times: at once, after `initial` ms, then after `step` ms more each time, `max` ms at
 * most. */
struct announcement {
	uint64_t initial, max, rounds, step;
};
#define ANNOUNCEMENT_DEFAULT                                                                       \
	((struct announcement){.initial = 50, .max = 550, .rounds = 5, .step = 100})

/* Takes the place of one that is under way. `names`: the cards, NULL-terminated; NULL: all. */
int net_announce(struct machine *m, const struct announcement *how, const char *const *names,
		 struct error *err);
void net_announce_free(struct machine *m);

#endif
