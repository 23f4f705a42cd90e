/* SPDX-License-Identifier: MIT */
/* Limits on operations and bytes a second, for one drive or for a group that shares them. */
#ifndef BLOCK_THROTTLE_H
#define BLOCK_THROTTLE_H

#include "lib/error.h"
#include <stdbool.h>
#include <stdint.h>

enum throttle_bucket {
	THROTTLE_BPS_TOTAL,
	THROTTLE_BPS_READ,
	THROTTLE_BPS_WRITE,
	THROTTLE_OPS_TOTAL,
	THROTTLE_OPS_READ,
	THROTTLE_OPS_WRITE,
	THROTTLE_BUCKETS,
};

struct throttle_limit {
	uint64_t avg;    /* units a second in the long run; 0: unlimited */
	uint64_t max;    /* units a second in a burst; 0: a tenth of a second's worth at once */
	uint64_t length; /* seconds that a burst may last, with max; 0 is 1 */
};

struct throttle_limits {
	struct throttle_limit bucket[THROTTLE_BUCKETS];
	uint64_t iops_size; /* a longer request counts as several of this many bytes; 0: never */
};

/* 0, or -EINVAL with a sentence. */
int throttle_check(const struct throttle_limits *limits, struct error *err);
bool throttle_enabled(const struct throttle_limits *limits);

/* One request on its way, storage of the caller until `go` has run. */
struct throttle_item {
	struct throttle_item *next;
	const void *owner;
	uint64_t bytes;
	bool write;
	void (*go)(struct throttle_item *item);
};

/* All functions below: any thread. */
struct throttle_group;
/* The group of this name, made if there is none yet; with throttle_group_put() for each. */
struct throttle_group *throttle_group_get(const char *name);
void throttle_group_put(struct throttle_group *group);
const char *throttle_group_name(const struct throttle_group *group);
void throttle_set(struct throttle_group *group, const struct throttle_limits *limits);
void throttle_get(struct throttle_group *group, struct throttle_limits *limits);
/* Calls item->go as soon as the limits allow: at once, or later from the group's own thread. In
 * each direction the group's requests keep their order. */
void throttle_submit(struct throttle_group *group, struct throttle_item *item);
/* Lets all that this owner has waiting go at once. */
void throttle_release(struct throttle_group *group, const void *owner);

#endif
