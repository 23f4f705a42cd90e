/* SPDX-License-Identifier: MIT */
/* The types of -object in minivm, and the objects of the command line (lib/object.h). */
#ifndef VMM_OBJECTS_H
#define VMM_OBJECTS_H

#include "lib/error.h"
#include "lib/object.h"

struct machine;
struct options;

/* Makes the types known; before options are parsed. */
void objects_init(void);
/* Makes the objects of the command line that belong to this phase; types create them with the
 * machine as context. Lock held. */
int objects_create(struct machine *m, enum object_phase phase, struct error *err);

#endif
