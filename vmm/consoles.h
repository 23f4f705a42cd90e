/* SPDX-License-Identifier: MIT */
/* -monitor, -qmp, -mon, and the monitor that -nographic puts on the terminal. */
#ifndef VMM_CONSOLES_H
#define VMM_CONSOLES_H

#include "lib/error.h"

struct machine;

/* Attaches the monitors and QMP servers. Lock held. */
int consoles_build(struct machine *m, struct error *err);

#endif
