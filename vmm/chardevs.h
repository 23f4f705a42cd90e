/* SPDX-License-Identifier: MIT */
/* -chardev, -serial, -parallel, -debugcon, -monitor, -qmp, -mon and -nographic: which backend goes
 * where. */
#ifndef VMM_CHARDEVS_H
#define VMM_CHARDEVS_H

#include "lib/error.h"

struct machine;

/* Opens the backends of -chardev and finds out what -nographic and the defaults mean. Lock held. */
int chardevs_open_all(struct machine *m, struct error *err);
/* Creates the serial and parallel ports and debug consoles on their backends. */
int chardevs_build_ports(struct machine *m, struct error *err);
/* `-device help`. */
void chardevs_device_help(void);
/* Attaches the monitors and QMP servers. */
int chardevs_build_monitors(struct machine *m, struct error *err);
/* Writes out what is pending and closes all. */
void chardevs_free(struct machine *m);

#endif
