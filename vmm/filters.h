/* SPDX-License-Identifier: MIT */
/* -object filter-dump: the frames of a backend into a pcap file. */
#ifndef VMM_FILTERS_H
#define VMM_FILTERS_H

#include "lib/object.h"

extern const struct object_type filter_dump_type;

#endif
