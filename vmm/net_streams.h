/* SPDX-License-Identifier: MIT */
/* Character devices as the streams that guestfwd= ends in (net/netdev.h). */
#ifndef VMM_NET_STREAMS_H
#define VMM_NET_STREAMS_H

#include "net/netdev.h"

struct machine;

struct net_streams net_streams_of(struct machine *m);

#endif
