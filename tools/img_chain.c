/* SPDX-License-Identifier: MIT */
/* minivm-img commit and rebase: commands that move data between the layers of a chain. */
#include "block/image.h"
#include "block/iov.h"
#include "block/node.h"
#include "block/path.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include "tools/img.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEP = 2 << 20 };

/* Everything that the layers above `base` hold goes into it. */
static int commit_data(struct image *top, struct image *base, struct img_rate *rate, bool progress,
		       struct error *err)
{
	uint64_t size = image_size(top), count;
	uint8_t *buf = xmalloc(STEP);
	int rc = 0;
	if (size > image_size(base))
		rc = image_truncate(base, size, err);
	img_progress(progress, 0, size);
	for (uint64_t at = 0; at < size && !rc; at += count) {
		int status = image_chain_status(top, base, at, size - at, &count, NULL, NULL, NULL);
		if (status < 0) {
			rc = error_errno(err, -status, "error while examining '%s'", top->path);
		} else if (status & BLOCK_ZERO) {
			rc = image_write_zeroes(base, at, count, true);
			if (rc)
				error_errno(err, -rc, "error while writing '%s'", base->path);
		} else if (status & BLOCK_DATA) {
			if (count > STEP)
				count = STEP;
			rc = image_pread(top, buf, (size_t)count, at);
			if (rc)
				error_errno(err, -rc, "error while reading '%s' at byte %" PRIu64,
					    top->path, at);
			else if ((rc = image_pwrite(base, buf, (size_t)count, at)))
				error_errno(err, -rc, "error while writing '%s'", base->path);
			img_rate_wait(rate, count);
		}
		img_progress(progress, at + count, size);
	}
	free(buf);
	if (!rc && (rc = image_flush(base)))
		error_errno(err, -rc, "error while writing '%s'", base->path);
	return rc;
}

int img_commit(int argc, char **argv)
{
	static const struct option longs[] = {
		{"help", no_argument, 0, 'h'}, {"image-opts", no_argument, 0, OPT_IMAGE_OPTS}, {0}};
	const char *format = NULL, *cache = NULL, *base_name = NULL;
	bool quiet = false, drop = false, progress = false, image_opts = false;
	struct img_rate rate = {0};
	struct error err = ERROR_INIT;
	unsigned flags = IMAGE_DISCARD;
	int c;
	while ((c = img_getopt(argc, argv, ":f:t:b:dpqr:h", longs)) != -1) {
		switch (c) {
		case 'f': format = optarg; break;
		case 't': cache = optarg; break;
		case 'b':
			base_name = optarg;
			drop = true; /* layers between would no longer fit to an emptied top */
			break;
		case OPT_IMAGE_OPTS: image_opts = true; break;
		case 'd': drop = true; break;
		case 'p': progress = true; break;
		case 'q': quiet = true; break;
		case 'r':
			if (parse_size(optarg, 1, &rate.bytes_per_second, &err))
				return img_fail(&err);
			break;
		case 'h': return 0;
		default: return 1;
		}
	}
	if (optind != argc - 1)
		return img_usage("commit: expecting one image file name");
	if (!img_cache_flags(cache, "writeback", &flags))
		return 1;
	struct image *base;
	struct image *top = img_open(argv[optind], format, image_opts,
				     flags | IMAGE_WRITABLE | IMAGE_NO_BACKING, &err);
	if (!top)
		return img_fail(&err);
	progress &= !quiet;
	int rc = image_open_commit(top, flags, base_name, &base, &err);
	if (!rc)
		rc = commit_data(top, base, &rate, progress, &err);
	if (!rc && !drop && top->driver->make_empty)
		rc = top->driver->make_empty(top, &err);
	image_close(top);
	if (rc)
		return img_fail(&err);
	img_progress_end(progress);
	if (!quiet)
		puts("Image committed.");
	return 0;
}

/* Writes a run of whole clusters into the overlay. Zeroes count against what will be below: a
 * write of zeroes where the old backing image has zeroes too would do nothing. */
static int keep_run(struct image *img, struct image *now, const uint8_t *buf, size_t len,
		    uint64_t at)
{
	if (!all_zero(buf, len))
		return image_pwrite(img, buf, len, at);
	struct image *old = img->backing;
	img->backing = now;
	int rc = image_write_zeroes(img, at, len, true);
	img->backing = old;
	return rc;
}

/* Where the old and the new backing image differ, the overlay gets what the old one showed. */
static int keep_contents(struct image *img, struct image *now, bool progress, struct error *err)
{
	uint64_t size = image_size(img), count, cluster = 65536;
	struct image_info info;
	if (image_get_info(img, &info) >= 0) {
		if (info.cluster_size)
			cluster = info.extended_l2 ? info.cluster_size / 32 : info.cluster_size;
		image_info_free(&info);
	}
	uint8_t *old_buf = xmalloc(STEP), *new_buf = xmalloc(STEP);
	int rc = 0;
	img_progress(progress, 0, size);
	for (uint64_t at = 0; at < size && !rc; at += count) {
		count = size - at;
		int status = image_block_status(img, at, size - at, &count, NULL);
		if (status < 0) {
			rc = error_errno(err, -status, "error while examining '%s'", img->path);
			break;
		}
		if (status & BLOCK_ALLOCATED)
			continue;
		if (image_reads_zero(img->backing, at, count) && image_reads_zero(now, at, count))
			continue;
		if (count > STEP)
			count = STEP;
		struct iovec a = {old_buf, (size_t)count}, b = {new_buf, (size_t)count};
		rc = image_read_padded(img->backing, &a, 1, at);
		if (!rc)
			rc = image_read_padded(now, &b, 1, at);
		if (rc)
			error_errno(err, -rc, "error while reading backing images of '%s'",
				    img->path);
		/* Whole clusters, in runs. */
		for (uint64_t i = 0; i < count && !rc;) {
			uint64_t start = i;
			while (i < count) {
				uint64_t n = cluster - ((at + i) & (cluster - 1));
				if (n > count - i)
					n = count - i;
				if (memcmp(old_buf + i, new_buf + i, n) == 0)
					break;
				i += n;
			}
			if (i > start) {
				rc = keep_run(img, now, old_buf + start, i - start, at + start);
				if (rc)
					error_errno(err, -rc, "error while writing '%s'",
						    img->path);
			} else {
				uint64_t n = cluster - ((at + i) & (cluster - 1));
				i += n > count - i ? count - i : n;
			}
		}
		img_progress(progress, at + count, size);
	}
	free(old_buf);
	free(new_buf);
	if (!rc && (rc = image_flush(img)))
		error_errno(err, -rc, "error while writing '%s'", img->path);
	return rc;
}

struct rebase {
	const char *format, *cache, *source_cache, *backing, *backing_format;
	bool unsafe, progress, quiet, image_opts;
	unsigned flags;
};

static int rebase(const struct rebase *r, const char *name, struct error *err)
{
	unsigned flags = IMAGE_WRITABLE | IMAGE_DISCARD | (r->unsafe ? IMAGE_NO_BACKING : 0);
	unsigned source = r->flags;
	if (!img_cache_flags(r->cache, "writeback", &flags) ||
	    !img_cache_flags(r->source_cache, "writeback", &source))
		return -EINVAL;
	struct image *img = img_open(name, r->format, r->image_opts, flags, err), *now = NULL;
	int rc = img ? 0 : -EINVAL;
	if (!rc && !img->driver->change_backing)
		rc = error_set(err, ENOTSUP, "'%s': format '%s' has no backing files", name,
			       img->driver->name);
	bool some = r->backing && *r->backing;
	if (!rc && some && !r->backing_format)
		rc = error_set(err, EINVAL, "the backing file '%s' needs its format: add -F",
			       r->backing);
	if (!rc && r->backing_format && !image_driver_find(r->backing_format))
		rc = error_set(err, EINVAL, "unknown backing format '%s'", r->backing_format);
	if (!rc && some && !r->unsafe) {
		char *where = path_combine(img->path, r->backing);
		now = image_open(where, r->backing_format, source, NULL, err);
		free(where);
		if (!now) {
			error_prefix(err, "the new backing file cannot be used");
			rc = -EINVAL;
		}
	}
	if (!rc && !r->unsafe)
		rc = keep_contents(img, now, r->progress, err);
	if (!rc && r->unsafe)
		img_progress(r->progress, 0, 1);
	if (!rc)
		rc = img->driver->change_backing(img, r->backing, r->backing_format, err);
	if (!rc)
		img_progress_end(r->progress);
	image_close(now);
	image_close(img);
	return rc;
}

int img_rebase(int argc, char **argv)
{
	static const struct option longs[] = {{"help", no_argument, 0, 'h'},
					      {"force-share", no_argument, 0, 'U'},
					      {"image-opts", no_argument, 0, OPT_IMAGE_OPTS},
					      {0}};
	struct rebase r = {0};
	struct error err = ERROR_INIT;
	int c;
	while ((c = img_getopt(argc, argv, ":f:F:b:upt:T:qUh", longs)) != -1) {
		switch (c) {
		case 'f': r.format = optarg; break;
		case 'F': r.backing_format = optarg; break;
		case 'b': r.backing = optarg; break;
		case 'u': r.unsafe = true; break;
		case 'p': r.progress = true; break;
		case 't': r.cache = optarg; break;
		case 'T': r.source_cache = optarg; break;
		case 'q': r.quiet = true; break;
		case 'U': r.flags |= IMAGE_FORCE_SHARE; break;
		case OPT_IMAGE_OPTS: r.image_opts = true; break;
		case 'h': return 0;
		default: return 1;
		}
	}
	if (optind != argc - 1)
		return img_usage("rebase: expecting one image file name");
	if (!r.backing && !r.unsafe)
		return img_usage("rebase: the new backing file is missing: add -b, with \"\" for "
				 "none");
	r.progress &= !r.quiet;
	return rebase(&r, argv[optind], &err) ? img_fail(&err) : 0;
}
