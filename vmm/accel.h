/* SPDX-License-Identifier: MIT */
/* Which engine runs the guest: names, the choice, and `-accel help`. */
#ifndef VMM_ACCEL_H
#define VMM_ACCEL_H

#include "lib/error.h"
#include "vmm/engine.h"
#include "vmm/options.h"

/* Appends an engine to the user's list after checking its name ("tcg" is "soft"). */
int accel_add(struct options *o, const char *name, struct error *err);
/* What each engine is and what the probe of this host found. */
void accel_help(void);
/*
 * Makes the first engine of the user's list that works; without a list KVM if it can run a PC, else
 * soft. What the user should know of the choice is appended to `notes`, a line each: it is printed
 * once nothing can be refused any more, so that a refusal stays one line.
 */
struct engine *accel_create(const struct options *o, const struct engine_config *config,
			    struct strbuf *notes, struct error *err);

#endif
