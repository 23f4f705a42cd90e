/* SPDX-License-Identifier: MIT */
/*
 * The options of a drive that concern its image and its queue (drive_options.h): cache modes,
 * locking, what to do on errors, limits, asynchronous I/O; each from QEMU's words to the flags of
 * block/image.h and struct drive_config.
 */
#include "vmm/drive_options.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *const drive_option_names[] = {
	"file",
	"file.filename",
	"file.driver",
	"file.aio",
	"file.cache.direct",
	"driver",
	"offset",
	"size",
	"cache-size",
	"l2-cache-size",
	"refcount-cache-size",
	"data-file",
	"if",
	"index",
	"bus",
	"unit",
	"media",
	"format",
	"readonly",
	"snapshot",
	"cache",
	"cache.direct",
	"cache.writeback",
	"cache.no-flush",
	"discard",
	"detect-zeroes",
	"copy-on-read",
	"werror",
	"rerror",
	"id",
	"serial",
	"cyls",
	"heads",
	"secs",
	"aio",
	"locking",
	"file.locking",
	"force-share",
	"throttling.group",
	"throttling.iops-size",
	"throttling.bps-total",
	"throttling.bps-read",
	"throttling.bps-write",
	"throttling.iops-total",
	"throttling.iops-read",
	"throttling.iops-write",
	"bps",
	"bps_rd",
	"bps_wr",
	"iops",
	"iops_rd",
	"iops_wr",
	NULL,
};

const struct throttle_name throttle_names[THROTTLE_NAMES] = {
	{"bps", "bps-total", THROTTLE_BPS_TOTAL},    {"bps_rd", "bps-read", THROTTLE_BPS_READ},
	{"bps_wr", "bps-write", THROTTLE_BPS_WRITE}, {"iops", "iops-total", THROTTLE_OPS_TOTAL},
	{"iops_rd", "iops-read", THROTTLE_OPS_READ}, {"iops_wr", "iops-write", THROTTLE_OPS_WRITE},
};

static int cache_flags(struct opts *opts, unsigned *flags, struct error *err)
{
	static const char *const modes[] = {
		"writeback", "none", "writethrough", "directsync", "unsafe", "off", NULL};
	static const unsigned mode_flags[] = {
		0,
		IMAGE_DIRECT,
		IMAGE_WRITETHROUGH,
		IMAGE_DIRECT | IMAGE_WRITETHROUGH,
		IMAGE_NO_FLUSH,
		IMAGE_DIRECT,
	};
	int mode = 0, r;
	bool direct, no_flush, writeback;
	if ((r = opts_get_enum(opts, "cache", modes, &mode, err)) < 0)
		return r;
	direct = mode_flags[mode] & IMAGE_DIRECT;
	writeback = !(mode_flags[mode] & IMAGE_WRITETHROUGH);
	no_flush = mode_flags[mode] & IMAGE_NO_FLUSH;
	if ((r = opts_get_bool(opts, "cache.direct", &direct, err)) < 0 ||
	    (r = opts_get_bool(opts, "cache.writeback", &writeback, err)) < 0 ||
	    (r = opts_get_bool(opts, "cache.no-flush", &no_flush, err)) < 0)
		return r;
	*flags |= (direct ? IMAGE_DIRECT : 0) | (no_flush ? IMAGE_NO_FLUSH : 0) |
		  (writeback ? 0 : IMAGE_WRITETHROUGH);
	return 0;
}

static int locking_flags(struct opts *opts, unsigned *flags, struct error *err)
{
	static const char *const modes[] = {"auto", "on", "off", NULL};
	int mode = 0;
	bool share = false;
	int r = opts_get_enum(opts, opts_has(opts, "locking") ? "locking" : "file.locking", modes,
			      &mode, err);
	if (r < 0 || (r = opts_get_bool(opts, "force-share", &share, err)) < 0)
		return r;
	if (mode == 2)
		*flags |= IMAGE_NO_LOCK;
	if (share)
		*flags |= IMAGE_FORCE_SHARE;
	return 0;
}

static int content_flags(struct opts *opts, struct drive_config *config, struct error *err)
{
	static const char *const discard_modes[] = {"ignore", "off", "unmap", "on", NULL};
	static const char *const detect_modes[] = {"off", "on", "unmap", NULL};
	static const unsigned detect_flags[] = {0, IMAGE_DETECT_ZEROES, IMAGE_DETECT_UNMAP};
	int discard = 0, detect = 0, r;
	bool copy = false;
	if ((r = opts_get_enum(opts, "discard", discard_modes, &discard, err)) < 0 ||
	    (r = opts_get_enum(opts, "detect-zeroes", detect_modes, &detect, err)) < 0 ||
	    (r = opts_get_bool(opts, "copy-on-read", &copy, err)) < 0)
		return r;
	if (detect == 2 && discard < 2)
		return error_set(err, EINVAL, "detect-zeroes=unmap needs discard=unmap");
	if (discard >= 2)
		config->image_flags |= IMAGE_DISCARD;
	config->image_flags |= detect_flags[detect];
	if (copy && !(config->image_flags & IMAGE_WRITABLE))
		warn("drive '%s' is read-only: copy-on-read is off", config->id);
	else if (copy)
		config->image_flags |= IMAGE_COPY_ON_READ;
	return 0;
}

static int error_policy(struct opts *opts, struct drive_config *config, struct error *err)
{
	static const char *const modes[] = {"auto", "report", "ignore", "stop", "enospc", NULL};
	static const enum drive_error_policy policies[] = {
		DRIVE_ERROR_DEFAULT, DRIVE_ERROR_REPORT, DRIVE_ERROR_IGNORE,
		DRIVE_ERROR_STOP,    DRIVE_ERROR_ENOSPC,
	};
	int read = 0, write = 0, r;
	if ((r = opts_get_enum(opts, "rerror", modes, &read, err)) < 0 ||
	    (r = opts_get_enum(opts, "werror", modes, &write, err)) < 0)
		return r;
	if (policies[read] == DRIVE_ERROR_ENOSPC)
		return error_set(err, EINVAL,
				 "rerror=enospc makes no sense: reading fills no disk");
	config->rerror = policies[read];
	config->werror = policies[write];
	if (config->kind != DRIVE_FLOPPY)
		return 0;
	/* The controller's request has no place to wait in. */
	if (read > 1 || write > 1)
		return error_set(
			err, EINVAL,
			"a floppy drive reports its errors to the guest; leave rerror= and "
			"werror= out");
	config->rerror = config->werror = DRIVE_ERROR_REPORT;
	return 0;
}

static int get_number(struct opts *opts, const char *key, const char *alias, uint64_t *out,
		      struct error *err)
{
	if (!alias)
		return opts_get_u64(opts, key, out, err);
	if (opts_has(opts, key) && opts_has(opts, alias))
		return error_set(err, EINVAL, "%s and %s are the same; give one of them", key,
				 alias);
	return opts_get_u64(opts, opts_has(opts, alias) ? alias : key, out, err);
}

int throttle_options_read(struct opts *opts, const char *prefix, struct throttle_limits *limits,
			  struct error *err)
{
	/* Only -drive has the short names. */
	bool drive = strcmp(prefix, "throttling.") == 0;
	char key[64], alias[64];
	int r;
	for (int i = 0; i < THROTTLE_NAMES; i++) {
		const struct throttle_name *n = &throttle_names[i];
		struct throttle_limit *l = &limits->bucket[n->bucket];
		static const char *const ends[] = {"", "-max", "-max-length"};
		static const char *const alias_ends[] = {"", "_max", "_max_length"};
		uint64_t *const values[] = {&l->avg, &l->max, &l->length};
		for (int k = 0; k < 3; k++) {
			snprintf(key, sizeof(key), "%s%s%s", prefix, n->option, ends[k]);
			snprintf(alias, sizeof(alias), "%s%s", n->qmp, alias_ends[k]);
			r = get_number(opts, key, drive ? alias : NULL, values[k], err);
			if (r < 0)
				return r;
		}
		if (opts_has(opts, key) && !l->length)
			return error_set(err, EINVAL, "%s must be 1 second or more", key);
	}
	snprintf(key, sizeof(key), "%siops-size", prefix);
	if ((r = get_number(opts, key, drive ? "iops_size" : NULL, &limits->iops_size, err)) < 0)
		return r;
	return throttle_check(limits, err);
}

/* native is Linux' older way of asynchronous transfers with O_DIRECT; io_uring does the same. */
static int aio_mode(struct opts *opts, struct drive_config *config, struct error *err)
{
	static const char *const modes[] = {"threads", "io_uring", "native", NULL};
	static const enum drive_aio kinds[] = {DRIVE_AIO_THREADS, DRIVE_AIO_URING, DRIVE_AIO_BEST};
	const char *key = opts_has(opts, "aio") ? "aio" : "file.aio";
	int mode = 0;
	if (!opts_has(opts, key))
		return 0;
	int r = opts_get_enum(opts, key, modes, &mode, err);
	if (r < 0)
		return r;
	if (mode == 2 && !(config->image_flags & IMAGE_DIRECT))
		return error_set(err, EINVAL,
				 "aio=native was specified, but it requires cache.direct=on");
	config->aio = kinds[mode];
	return 0;
}

int drive_options_read(struct opts *opts, struct drive_config *config,
		       struct throttle_limits *limits, struct error *err)
{
	int r;
	*limits = (struct throttle_limits){0};
	if ((r = cache_flags(opts, &config->image_flags, err)) < 0 ||
	    (r = locking_flags(opts, &config->image_flags, err)) < 0 ||
	    (r = content_flags(opts, config, err)) < 0 ||
	    (r = error_policy(opts, config, err)) < 0 ||
	    (r = throttle_options_read(opts, "throttling.", limits, err)) < 0 ||
	    (r = aio_mode(opts, config, err)) < 0)
		return r;
	config->throttle_group = opts_get(opts, "throttling.group");
	if (!config->throttle_group)
		config->throttle_group = opts_get(opts, "group");
	config->limits = limits;
	return 0;
}
