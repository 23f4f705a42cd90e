/* SPDX-License-Identifier: MIT */
/* The window: whether there is one, and what it does to the machine. */
#ifndef VMM_WINDOW_H
#define VMM_WINDOW_H

#include "lib/error.h"

struct machine;

/* Opens the SDL window if the options (or, without -display, the presence of a screen) ask for one.
 * Lock not held. */
int window_open(struct machine *m, struct error *err);
void window_close(struct machine *m);

#endif
