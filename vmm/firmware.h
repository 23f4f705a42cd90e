/* SPDX-License-Identifier: MIT */
/* Tells the firmware about this machine: from options and devices to bios/bios.h. */
#ifndef VMM_FIRMWARE_H
#define VMM_FIRMWARE_H

#include "lib/error.h"
#include <stddef.h>

struct machine;
struct options;

/* A ROM file from -L and the usual directories; malloc'ed. */
void *firmware_load_rom(const struct options *o, const char *name, size_t *len, char path[4096],
			struct error *err);
/* -L help: the directories in which firmware is looked for. */
void firmware_print_dirs(const struct options *o);
/* fw_cfg with all its contents, CMOS. */
int firmware_build(struct machine *m, struct error *err);

#endif
