/* SPDX-License-Identifier: MIT */
/* The options of a drive that concern its image and its queue, not its place in the machine. */
#ifndef VMM_DRIVE_OPTIONS_H
#define VMM_DRIVE_OPTIONS_H

#include "block/drive.h"
#include "lib/error.h"
#include "lib/optstr.h"

/* Reads cache, locking, discard, detect-zeroes, copy-on-read, aio, rerror, werror and the limits
 * into `config` (its kind is set); `limits` has to live as long as config is used. */
int drive_options_read(struct opts *opts, struct drive_config *config,
		       struct throttle_limits *limits, struct error *err);

/* Limits whose keys begin with `prefix`; with "throttling." their short names too. */
int throttle_options_read(struct opts *opts, const char *prefix, struct throttle_limits *limits,
			  struct error *err);

/* All keys of -drive, for opts_check_unused(). */
extern const char *const drive_option_names[];

/* The limits by the names that QMP's block_set_io_throttle, query-block and -drive share. */
struct throttle_name {
	const char *qmp;    /* "bps_rd" */
	const char *option; /* "bps-read", behind a prefix */
	enum throttle_bucket bucket;
};
enum { THROTTLE_NAMES = 6 };
extern const struct throttle_name throttle_names[THROTTLE_NAMES];

#endif
