/* SPDX-License-Identifier: MIT */
/* The monitor's `info` subcommands. Lock held. */
#ifndef VMM_MONITOR_INFO_H
#define VMM_MONITOR_INFO_H

#include "lib/strbuf.h"

struct machine;

/* Appends what `info WHAT ARG` prints; `what` NULL lists the subcommands. */
void monitor_info(struct machine *m, unsigned cpu, const char *what, const char *arg,
		  struct strbuf *out);
void monitor_info_help(struct strbuf *out);
/* The names of the subcommands. */
size_t monitor_info_count(void);
const char *monitor_info_name(size_t n);

#endif
