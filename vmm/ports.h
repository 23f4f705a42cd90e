/* SPDX-License-Identifier: MIT */
/* -serial, -parallel, -debugcon and the ISA devices of -device. */
#ifndef VMM_PORTS_H
#define VMM_PORTS_H

#include "lib/error.h"

struct machine;

/* Creates the ports on their character devices. Lock held. */
int ports_build(struct machine *m, struct error *err);
/* `-device help`. */
void ports_device_help(void);
/* `-device DRIVER,help`; negative with a sentence if there is no such device. */
int ports_print_properties(const char *driver, struct error *err);

#endif
