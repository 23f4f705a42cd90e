/* SPDX-License-Identifier: MIT */
/*
 * A whole machine for fuzz targets: every device, a CPU that never runs, drives in memory, firmware
 * files that hold nothing, a clock that moves only when told.
 */
#ifndef TESTS_FUZZ_RIG_H
#define TESTS_FUZZ_RIG_H

#include "vmm/machine.h"

enum {
	RIG_DISK_SIZE = 1 << 20,
	RIG_CD_SIZE = 64 << 11,
	RIG_FLOPPY_SIZE = 1440 << 10,
};

/* A machine of these options (NULL at the end) besides those that every one here has. NULL, and the
 * sentence in `err`, if they do not make a machine. */
struct machine *rig_machine(const char *const *options, struct error *err);
void rig_machine_free(struct machine *m);
/* The options of a machine with a disk, a CD and a floppy, with the same contents each time. */
const char *const *rig_drives(void);
/* Where the firmware files are; made at the first call. */
const char *rig_firmware_dir(void);

/* Lock held. Lets time pass, with what is due then; a timer that is due again and again is cut off.
 */
void rig_advance(struct machine *m, uint64_t ns);
/* Lets the requests in flight end and carries out what was put off. */
void rig_settle(struct machine *m);

#endif
