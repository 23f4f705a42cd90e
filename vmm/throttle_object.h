/* SPDX-License-Identifier: MIT */
/* -object throttle-group,id=,...: limits that drives with throttling.group=ID share. */
#ifndef VMM_THROTTLE_OBJECT_H
#define VMM_THROTTLE_OBJECT_H

#include "lib/object.h"

extern const struct object_type throttle_group_type;

#endif
