/* SPDX-License-Identifier: MIT */
/* The human monitor: lines of commands, QEMU's names and formats. */
#ifndef VMM_MONITOR_H
#define VMM_MONITOR_H

#include "lib/strbuf.h"

struct chardev;
struct machine;
struct monitor;

/* A monitor on a character device; belongs to the machine. Lock held. */
struct monitor *monitor_new(struct machine *m, struct chardev *chr);
void monitor_free_all(struct machine *m);
/* Runs one command line and appends what it prints (QMP's human-monitor-command). Lock held. */
void monitor_run(struct machine *m, unsigned *current_cpu, const char *line, struct strbuf *out);

#endif
