/* SPDX-License-Identifier: MIT */
/* What is known about properties of -device: their help, and those of QEMU's that ask for something
 * that is not here. */
#ifndef VMM_PROPERTIES_H
#define VMM_PROPERTIES_H

#include "lib/error.h"
#include "lib/optstr.h"
#include <stdbool.h>
#include <stddef.h>

/* Whether `text`, an argument of -device, asks for the properties of its driver ("e1000,help");
 * copies the driver's name. */
bool properties_asked(const char *text, char *driver, size_t size);
/* Prints them, as `-device DRIVER,help` shows them; the lists are NULL-terminated, the second may
 * be NULL. */
void properties_print(const char *driver, const char *const *keys, const char *const *more);

/*
 * Looks through what nobody read yet for properties that QEMU's device has and this one has not.
 * One with the value that asks for what is there anyway (aer=off) is marked as read; any other is
 * refused with a sentence.
 */
int properties_check_absent(struct opts *opts, const char *driver, struct error *err);

enum { BOOTINDEX_MAX = 9999 };
/* bootindex=: where the device stands in the boot order, 0 (first) to BOOTINDEX_MAX; -1 if it is not
 * given, or is -1. Returns 0, or -EINVAL. */
int properties_bootindex(struct opts *opts, int *bootindex, struct error *err);

#endif
