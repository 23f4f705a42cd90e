/* SPDX-License-Identifier: MIT */
/*
 * Repeated SYNs, for the user network.
 *
 * libslirp (4.7 as well as its present source) sets up a connection's two buffers anew at each MSS
 * option it reads, and forgets what was in them. A SYN or SYN-ACK that the guest repeats, since it was
 * too busy to see the answer within its second, thus loses what the host's side has sent so far:
 * the connection stands for ever. Without the option the repeated segment does no harm.
 *
 * Only segments that were seen before lose it, and only if it asks for no less than the
 * network's full segments, which libslirp uses without it.
 */
#ifndef NET_USER_SYN_H
#define NET_USER_SYN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { USER_SYNS = 4096 };

/* SYNs seen last, by a hash; zeros to begin with. */
struct user_syns {
	uint64_t seen[USER_SYNS];
};

/* Remembers the SYN in this Ethernet frame, if there is one. Returns the offset of the MSS option
 * that must not reach libslirp, or 0. */
size_t user_repeated_mss(struct user_syns *syns, const uint8_t *frame, size_t len);
/* Replaces the option by no-operations and mends TCP's checksum. `at` is user_repeated_mss()'s. */
void user_erase_mss(uint8_t *frame, size_t at);

#endif
