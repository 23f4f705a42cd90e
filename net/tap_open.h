/* SPDX-License-Identifier: MIT */
/* Where a TAP interface's descriptors come from. */
#ifndef NET_TAP_OPEN_H
#define NET_TAP_OPEN_H

#include "lib/error.h"
#include "lib/optstr.h"
#include "net/net.h"

struct tap_source {
	int fd[NET_MAX_QUEUES]; /* nonblocking */
	unsigned fd_count;
	unsigned hdr_len; /* of the header on the descriptors; 0: none */
	char ifname[16];
	char *script, *downscript; /* NULL: none */
	char *helper, *bridge;     /* NULL: not by the bridge helper */
};

extern const char *const tap_source_properties[];
extern const char *const tap_bridge_properties[];

/* Reads the properties, opens or takes the descriptors, runs the script; `bridge`: those of the
 * backend bridge, always by the helper. */
int tap_source_open(struct tap_source *source, struct opts *opts, bool bridge, struct error *err);
/* Closes them and runs the second script. */
void tap_source_close(struct tap_source *source);

#endif
