/* SPDX-License-Identifier: MIT */
/*
 * -object throttle-group (throttle_object.h): a named group of limits (block/throttle.h) that
 * exists as long as the object or a drive holds it.
 */
#include "vmm/throttle_object.h"
#include "block/throttle.h"
#include "vmm/drive_options.h"

static void *create(void *context, const char *id, struct opts *opts, struct error *err)
{
	struct throttle_limits limits = {0};
	if (throttle_options_read(opts, "x-", &limits, err) < 0)
		return NULL;
	struct throttle_group *group = throttle_group_get(id);
	throttle_set(group, &limits);
	return group;
}

/* Drives of the group hold references of their own. */
static void free_group(void *object)
{
	throttle_group_put(object);
}

const struct object_type throttle_group_type = {
	.name = "throttle-group",
	.help = "x-iops-total=,x-bps-total= and so on, as -drive's throttling.iops-total=; for "
		"drives "
		"with throttling.group=ID",
	.phase = OBJECT_FIRST,
	.create = create,
	.free = free_group,
};
