/* SPDX-License-Identifier: MIT */
/*
 * minivm-img convert.
 *
 * Threads take the disk in steps. Each reads its step, looks for zeroes and writes what remains.
 * Into a format that allocates space as it is written, steps are written in their order, so that
 * the file is laid out as the disk is; -W lifts that, as do a raw target, where places are given,
 * and -c, where packing takes the time.
 */
#include "block/file.h"
#include "block/image.h"
#include "block/iov.h"
#include "block/node.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include "tools/img.h"
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	STEP = 256 << 10,
	MIN_GRAIN = 512,
	DEFAULT_SPARSE = 4096,
	MAX_SPARSE = 16 << 20,
	MAX_THREADS = 16,
	SOURCES = 64
};

struct convert {
	struct image *from[SOURCES];
	uint64_t start[SOURCES + 1]; /* where each source begins in the target */
	int sources;
	struct image *to;
	uint64_t size, sparse;
	uint32_t grain, step;
	bool compress, ordered, target_zero, target_backed, salvage, offload, progress;
	struct img_rate rate;

	pthread_mutex_t lock;
	pthread_cond_t my_turn[MAX_THREADS]; /* who has ticket t waits at t % MAX_THREADS */
	uint64_t next, tickets; /* the step to hand out next; how many were handed out */
	uint64_t turn, done;    /* whose turn it is to write, by the ticket; bytes */
	int rc;
	struct error err;
};

enum extent { EXTENT_DATA, EXTENT_ZERO, EXTENT_BACKING };

static void fail(struct convert *c, int rc, const char *what, const struct image *img, uint64_t at)
{
	pthread_mutex_lock(&c->lock);
	if (!c->rc) {
		c->rc = rc;
		error_errno(&c->err, -rc, "error while %s '%s' at byte %" PRIu64, what, img->path,
			    at);
	}
	for (int i = 0; i < MAX_THREADS; i++)
		pthread_cond_signal(&c->my_turn[i]);
	pthread_mutex_unlock(&c->lock);
}

static int source_at(const struct convert *c, uint64_t at)
{
	int i = 0;
	while (i + 1 < c->sources && at >= c->start[i + 1])
		i++;
	return i;
}

/* What the disk has at `at`, and for how many bytes of at most `len`. */
static int extent_at(struct convert *c, uint64_t at, uint64_t len, uint64_t *count)
{
	int i = source_at(c, at);
	struct image *img = c->from[i];
	uint64_t offset = at - c->start[i], size = image_size(img);
	if (i + 1 < c->sources && len > c->start[i + 1] - at)
		len = c->start[i + 1] - at;
	*count = len;
	if (offset >= size)
		return EXTENT_ZERO; /* padding up to a whole sector, or a larger target */
	if (len > size - offset)
		len = size - offset;
	int status = image_chain_status(img, c->target_backed ? img->backing : NULL, offset, len,
					count, NULL, NULL, NULL);
	if (status < 0)
		return status;
	if (status & BLOCK_ZERO)
		return c->target_backed && !(status & BLOCK_ALLOCATED) ? EXTENT_BACKING
								       : EXTENT_ZERO;
	return status & BLOCK_DATA ? EXTENT_DATA : EXTENT_BACKING;
}

/* Reads across sources; behind the last one there are zeroes. */
static int read_disk(struct convert *c, uint8_t *buf, uint64_t at, size_t len)
{
	while (len) {
		int i = source_at(c, at);
		size_t part = i + 1 < c->sources && len > c->start[i + 1] - at
				      ? (size_t)(c->start[i + 1] - at)
				      : len;
		struct iovec iov = {buf, part};
		int rc = image_read_padded(c->from[i], &iov, 1, at - c->start[i]);
		if (rc && c->salvage) {
			/* Sector by sector: only what is lost reads as zeroes. */
			for (size_t k = 0; k < part; k += MIN_GRAIN) {
				struct iovec one = {buf + k,
						    part - k < MIN_GRAIN ? part - k : MIN_GRAIN};
				if (image_read_padded(c->from[i], &one, 1, at - c->start[i] + k)) {
					memset(one.iov_base, 0, one.iov_len);
					warn("error while reading offset %" PRIu64
					     "; it is filled with zeroes",
					     at + k);
				}
			}
			rc = 0;
		}
		if (rc) {
			fail(c, rc, "reading", c->from[i], at - c->start[i]);
			return rc;
		}
		buf += part;
		at += part;
		len -= part;
	}
	return 0;
}

static int write_zeroes(struct convert *c, uint64_t at, uint64_t len)
{
	if (c->target_zero || !len)
		return 0;
	int rc = image_write_zeroes(c->to, at, len, true);
	if (rc)
		fail(c, rc, "writing", c->to, at);
	return rc;
}

/* Data that may hold zeroes: runs of them of at least `sparse` bytes are not written as data. */
static int write_data(struct convert *c, const uint8_t *buf, uint64_t at, size_t len)
{
	size_t i = 0;
	while (i < len) {
		size_t start = i;
		bool zero = false;
		while (i < len) {
			/* Pieces end at multiples of the grain in the target. */
			size_t n = c->grain - (size_t)((at + i) & (c->grain - 1));
			if (n > len - i)
				n = len - i;
			bool z = c->sparse && all_zero(buf + i, n);
			if (i == start)
				zero = z;
			if (z != zero)
				break;
			i += n;
		}
		int rc = 0;
		if (zero) {
			rc = write_zeroes(c, at + start, i - start);
		} else {
			rc = image_pwrite(c->to, buf + start, i - start, at + start);
			if (rc)
				fail(c, rc, "writing", c->to, at + start);
		}
		if (rc)
			return rc;
	}
	return 0;
}

static int write_compressed(struct convert *c, const uint8_t *buf, uint64_t at, size_t len)
{
	for (size_t i = 0; i < len; i += c->grain) {
		size_t n = len - i < c->grain ? len - i : c->grain;
		uint64_t count;
		int kind = extent_at(c, at + i, n, &count);
		if (kind == EXTENT_BACKING && count >= n)
			continue;
		int rc;
		if (c->sparse && all_zero(buf + i, n)) {
			rc = write_zeroes(c, at + i, n);
		} else {
			rc = image_pwrite_compressed(c->to, buf + i, n, at + i);
			if (rc == -ENOSPC)
				rc = image_pwrite(c->to, buf + i, n, at + i);
			if (rc)
				fail(c, rc, "writing", c->to, at + i);
		}
		if (rc)
			return rc;
	}
	return 0;
}

/* -C: the host copies, where both are raw; otherwise all bytes are copied as they are. */
static bool offload(struct convert *c, uint8_t *buf, uint64_t at, size_t len)
{
	int i = source_at(c, at);
	struct image *from = c->from[i];
	int rc = -ENOTSUP;
	if (from->driver == &raw_driver && c->to->driver == &raw_driver &&
	    at - c->start[i] + len <= image_size(from))
		rc = file_copy(from->file, raw_offset(from) + at - c->start[i], c->to->file,
			       raw_offset(c->to) + at, len);
	if (rc == -ENOTSUP) {
		if (read_disk(c, buf, at, len))
			return false;
		rc = image_pwrite(c->to, buf, len, at);
	}
	if (rc)
		fail(c, rc, "writing", c->to, at);
	return rc == 0;
}

struct piece {
	uint64_t at, len;
	enum extent kind;
};

/* The extents of a step; false if that failed. */
static bool find_pieces(struct convert *c, uint64_t at, uint64_t len, struct piece **list,
			size_t *n)
{
	size_t room = 0;
	*list = NULL;
	*n = 0;
	while (len) {
		uint64_t count;
		int kind = extent_at(c, at, len, &count);
		if (kind < 0) {
			fail(c, kind, "examining", c->from[source_at(c, at)],
			     at - c->start[source_at(c, at)]);
			return false;
		}
		if (!c->sparse && kind == EXTENT_ZERO)
			kind = EXTENT_DATA; /* -S 0: all is written */
		if (*n && (*list)[*n - 1].kind == (enum extent)kind) {
			(*list)[*n - 1].len += count;
		} else {
			if (*n == room)
				*list = xrealloc(*list,
						 (room = room ? room * 2 : 16) * sizeof(**list));
			(*list)[(*n)++] = (struct piece){at, count, (enum extent)kind};
		}
		at += count;
		len -= count;
	}
	return true;
}

/* Waits until the steps before are written; false if one of them failed. */
static bool my_turn(struct convert *c, uint64_t ticket)
{
	pthread_mutex_lock(&c->lock);
	while (c->ordered && c->turn != ticket && !c->rc)
		pthread_cond_wait(&c->my_turn[ticket % MAX_THREADS], &c->lock);
	bool ok = !c->rc;
	pthread_mutex_unlock(&c->lock);
	return ok;
}

static void end_turn(struct convert *c, uint64_t bytes)
{
	pthread_mutex_lock(&c->lock);
	c->turn++;
	c->done += bytes;
	img_progress(c->progress, c->done, c->size);
	pthread_cond_signal(&c->my_turn[c->turn % MAX_THREADS]);
	pthread_mutex_unlock(&c->lock);
	img_rate_wait(&c->rate, bytes);
}

/* One step: all of it in `buf` (of c->step bytes), then to the target. */
static void do_step(struct convert *c, uint64_t step, uint64_t ticket, uint8_t *buf)
{
	uint64_t at = step * c->step;
	uint64_t len = c->size - at < c->step ? c->size - at : c->step;
	struct piece *list;
	size_t n;
	bool ok = find_pieces(c, at, len, &list, &n), any = false;
	for (size_t i = 0; i < n && ok; i++) {
		struct piece *p = &list[i];
		if (p->kind == EXTENT_DATA && c->offload)
			continue;
		if (p->kind == EXTENT_DATA)
			ok = read_disk(c, buf + (p->at - at), p->at, (size_t)p->len) == 0;
		else if (p->kind == EXTENT_ZERO && c->compress)
			memset(buf + (p->at - at), 0, (size_t)p->len);
		else if (p->kind == EXTENT_BACKING && c->compress) /* a cluster may need its rest */
			ok = read_disk(c, buf + (p->at - at), p->at, (size_t)p->len) == 0;
		any |= p->kind == EXTENT_DATA;
	}
	if (!ok || !my_turn(c, ticket)) {
		free(list);
		return;
	}
	if (c->compress && (any || !c->target_zero))
		ok = write_compressed(c, buf, at, (size_t)len) == 0;
	for (size_t i = 0; i < n && ok && !c->compress; i++) {
		struct piece *p = &list[i];
		if (p->kind == EXTENT_ZERO)
			ok = write_zeroes(c, p->at, p->len) == 0;
		else if (p->kind == EXTENT_DATA && c->offload)
			ok = offload(c, buf + (p->at - at), p->at, (size_t)p->len);
		else if (p->kind == EXTENT_DATA)
			ok = write_data(c, buf + (p->at - at), p->at, (size_t)p->len) == 0;
	}
	free(list);
	if (ok)
		end_turn(c, len);
}

/* The first step at or behind `step` that is not a hole through and through; a large sparse disk
 * is passed over in long strides. Lock held. */
static uint64_t skip_holes(struct convert *c, uint64_t step)
{
	uint64_t at = step * c->step, count;
	if (!c->target_zero || !c->sparse || at >= c->size)
		return step;
	if (extent_at(c, at, c->size - at, &count) != EXTENT_ZERO || count < 2 * (uint64_t)c->step)
		return step;
	return (at + count >= c->size ? c->size + c->step - 1 : at + count) / c->step;
}

static void *work(void *opaque)
{
	struct convert *c = opaque;
	uint8_t *buf = malloc(c->step);
	if (!buf) {
		fail(c, -ENOMEM, "writing", c->to, 0);
		return NULL;
	}
	for (;;) {
		pthread_mutex_lock(&c->lock);
		uint64_t step = c->rc ? c->next : skip_holes(c, c->next), ticket = c->tickets++;
		c->done += (step - c->next) * c->step;
		c->next = step + 1;
		bool end = c->rc || step * c->step >= c->size;
		pthread_mutex_unlock(&c->lock);
		if (end)
			break;
		do_step(c, step, ticket, buf);
	}
	free(buf);
	return NULL;
}

static int copy_all(struct convert *c, int threads)
{
	pthread_t t[MAX_THREADS];
	int started = 0;
	pthread_mutex_init(&c->lock, NULL);
	for (int i = 0; i < MAX_THREADS; i++)
		pthread_cond_init(&c->my_turn[i], NULL);
	img_progress(c->progress, 0, c->size);
	if ((uint64_t)threads > c->size / c->step + 1)
		threads = (int)(c->size / c->step + 1);
	while (started < threads - 1 && pthread_create(&t[started], NULL, work, c) == 0)
		started++;
	work(c);
	while (started)
		pthread_join(t[--started], NULL);
	if (!c->rc) {
		c->rc = image_flush(c->to);
		if (c->rc)
			error_errno(&c->err, -c->rc, "error while writing '%s'", c->to->path);
	}
	if (!c->rc)
		img_progress_end(c->progress);
	return c->rc;
}

struct convert_args {
	const char *format, *out_format, *cache, *source_cache, *backing, *backing_format;
	const char *snapshot;
	struct strbuf options;
	bool image_opts, target_image_opts, no_create, target_is_zero, quiet, out_of_order;
	bool bitmaps, skip_broken;
	bool sparse_given, out_given;
	unsigned flags;
	int threads;
};

/* A cluster is handled at once: unpacking one, and packing one, is a job for one thread. */
static void fit_step(struct convert *c, const struct image_info *info)
{
	if (info->cluster_size > c->step)
		c->step = info->cluster_size;
}

static int open_sources(struct convert *c, const struct convert_args *a, int count, char **names)
{
	unsigned flags = a->flags;
	if (!img_cache_flags(a->source_cache, "writeback", &flags))
		return -EINVAL;
	for (; c->sources < count; c->sources++) {
		struct image *img =
			img_open(names[c->sources], a->format, a->image_opts, flags, &c->err);
		if (!img)
			return -EINVAL;
		c->from[c->sources] = img;
		struct image_info info;
		if (image_get_info(img, &info) >= 0) {
			fit_step(c, &info);
			image_info_free(&info);
		}
		c->size += round_up(image_size(img), 512);
		c->start[c->sources + 1] = c->size;
	}
	if (!a->snapshot)
		return 0;
	if (count > 1)
		return error_set(&c->err, EINVAL, "-l works with one source image only");
	struct image *img = c->from[0];
	int rc = image_load_snapshot(img, a->snapshot, &c->err);
	c->size = c->start[1] = image_size(img);
	return rc;
}

/* Makes the target, unless it is there already, and opens it. */
static int open_target(struct convert *c, const struct convert_args *a, const char *name)
{
	struct opts o;
	struct error *err = &c->err;
	uint64_t size = c->size;
	unsigned flags = IMAGE_WRITABLE | IMAGE_DISCARD;
	int rc = opts_parse(&o, strbuf_str(&a->options), NULL, err);
	if (rc)
		return rc;
	if (!img_cache_flags(a->cache, "unsafe", &flags)) {
		opts_free(&o);
		return -EINVAL;
	}
	if (a->backing)
		opts_set(&o, "backing_file", a->backing);
	if (a->backing_format)
		opts_set(&o, "backing_fmt", a->backing_format);
	const char *backing = opts_get(&o, "backing_file");
	c->target_backed = backing && *backing;
	if (c->target_backed && c->sources > 1)
		rc = error_set(err, EINVAL,
			       "a backing file for the output works with one source image only");
	if (!rc && c->target_backed && !opts_has(&o, "backing_fmt"))
		rc = error_set(err, EINVAL, "-B needs the format of the backing file: add -F");
	if (!rc)
		rc = opts_get_size(&o, "size", &size, err);
	if (!rc && size < c->size)
		rc = error_set(err, EINVAL, "the output is smaller than the input");
	const char *prealloc = opts_get(&o, "preallocation");
	bool full = prealloc && strcmp(prealloc, "off") != 0;
	if (!rc && c->compress && full)
		rc = error_set(err, EINVAL, "compression and preallocation do not go together");
	if (!rc && c->compress && opts_has(&o, "data_file"))
		rc = error_set(err, EINVAL,
			       "compression and an external data file do not go "
			       "together");
	if (!rc && c->compress && strcmp(a->out_format, "qcow2") != 0 && !a->no_create)
		rc = error_set(err, ENOTSUP, "compression is not supported for format '%s'",
			       a->out_format);
	if (!rc && !a->no_create)
		rc = image_create(name, a->out_format, size, &o, err);
	opts_free(&o);
	if (rc)
		return rc;
	/* Without its backing image open, clusters are completed with zeroes: they are written
	 * whole, or their rest is copied. */
	c->to = img_open(name, a->target_image_opts ? NULL : a->out_format, a->target_image_opts,
			 flags | (a->no_create || c->target_backed ? 0 : IMAGE_NO_BACKING), err);
	if (!c->to)
		return -EINVAL;
	if (image_size(c->to) < c->size)
		return error_set(err, EINVAL, "the output '%s' is smaller than the input", name);
	c->target_zero = !c->target_backed &&
			 (a->target_is_zero || (!a->no_create && !file_is_device(c->to->file)) ||
			  (!a->no_create && image_reads_zero(c->to, 0, image_size(c->to))));
	struct image_info info;
	rc = image_get_info(c->to, &info);
	if (rc >= 0) {
		c->grain = (uint32_t)c->sparse;
		if (c->grain < MIN_GRAIN)
			c->grain = MIN_GRAIN;
		while (!is_power_of_2(c->grain))
			c->grain &= c->grain - 1;
		uint32_t unit = info.extended_l2 ? info.cluster_size / 32 : info.cluster_size;
		if (unit > c->grain || c->compress)
			c->grain = c->compress ? info.cluster_size : unit;
		fit_step(c, &info);
		c->ordered = info.cluster_size && !a->out_of_order && !c->compress;
		if (c->compress && !info.cluster_size)
			rc = error_set(err, ENOTSUP, "compression is not supported for format '%s'",
				       c->to->driver->name);
		if (c->compress && info.external_data)
			rc = error_set(err, ENOTSUP,
				       "compression does not work with an external "
				       "data file");
		image_info_free(&info);
	}
	return rc;
}

/* ---- --bitmaps ---- */

/* Before anything is copied: are there bitmaps on both sides, and are they sound. */
static int check_bitmaps(struct convert *c, bool skip_broken)
{
	struct image_info info;
	struct image *from = c->from[0];
	int rc = 0;
	if (!from->driver->bitmap_edit || !c->to->driver->bitmap_edit)
		return error_set(&c->err, ENOTSUP, "--bitmaps: format '%s' of '%s' has no bitmaps",
				 (from->driver->bitmap_edit ? c->to : from)->driver->name,
				 (from->driver->bitmap_edit ? c->to : from)->path);
	if (image_get_info(from, &info) < 0)
		return error_set(&c->err, EIO, "cannot read the bitmaps of '%s'", from->path);
	for (size_t i = 0; i < info.bitmap_count && !rc && !skip_broken; i++)
		if (info.bitmaps[i].in_use)
			rc = error_set(&c->err, EINVAL,
				       "cannot copy inconsistent bitmap '%s'; try "
				       "--skip-broken-bitmaps, or remove it with bitmap --remove",
				       info.bitmaps[i].name);
	image_info_free(&info);
	return rc;
}

/* After the contents, whose writing marked nothing in them. */
static int copy_bitmaps(struct convert *c)
{
	struct image_info info;
	int rc = image_get_info(c->from[0], &info);
	for (size_t i = 0; i < info.bitmap_count && rc >= 0; i++) {
		const struct image_bitmap_info *b = &info.bitmaps[i];
		struct image_bitmap_edit edit = {.op = BITMAP_ADD,
						 .name = b->name,
						 .granularity = b->granularity,
						 .source = c->from[0],
						 .source_name = b->name};
		static const enum image_bitmap_op ops[] = {BITMAP_ADD, BITMAP_DISABLE,
							   BITMAP_MERGE};
		if (b->in_use) {
			warn("skipping inconsistent bitmap '%s'", b->name);
			continue;
		}
		for (size_t k = 0; k < 3 && rc >= 0; k++) {
			if (ops[k] == BITMAP_DISABLE && b->enabled)
				continue;
			edit.op = ops[k];
			rc = image_bitmap_edit(c->to, &edit, &c->err);
		}
	}
	image_info_free(&info);
	return rc < 0 ? rc : 0;
}

static int parse(int argc, char **argv, struct convert *c, struct convert_args *a)
{
	enum { OPT_ZERO = OPT_FIRST_OWN, OPT_TARGET_OPTS, OPT_SALVAGE, OPT_BITMAPS, OPT_SKIP };
	static const struct option longs[] = {
		{"help", no_argument, 0, 'h'},
		{"force-share", no_argument, 0, 'U'},
		{"source-format", required_argument, 0, 'f'},
		{"image-opts", no_argument, 0, OPT_IMAGE_OPTS},
		{"target-image-opts", no_argument, 0, OPT_TARGET_OPTS},
		{"target-is-zero", no_argument, 0, OPT_ZERO},
		{"salvage", no_argument, 0, OPT_SALVAGE},
		{"bitmaps", no_argument, 0, OPT_BITMAPS},
		{"skip-broken-bitmaps", no_argument, 0, OPT_SKIP},
		{0}};
	struct error err = ERROR_INIT;
	uint64_t v;
	int o;
	while ((o = img_getopt(argc, argv, ":f:O:B:F:Cco:l:S:pt:T:qnm:WUr:h", longs)) != -1) {
		switch (o) {
		case 'f': a->format = optarg; break;
		case 'O':
			a->out_format = optarg;
			a->out_given = true;
			break;
		case 'B': a->backing = optarg; break;
		case 'F': a->backing_format = optarg; break;
		case 'C': c->offload = true; break;
		case 'c': c->compress = true; break;
		case 'o':
			strbuf_printf(&a->options, "%s%s", a->options.len ? "," : "", optarg);
			break;
		case 'l': a->snapshot = optarg; break;
		case 'S':
			if (parse_size(optarg, 1, &c->sparse, &err))
				return img_fail(&err);
			if (c->sparse % 512 || c->sparse > MAX_SPARSE)
				return img_usage("convert: -S must be a multiple of 512 up to 16M, "
						 "or 0 to write all zeroes, not '%s'",
						 optarg);
			a->sparse_given = true;
			break;
		case 'p': c->progress = true; break;
		case 't': a->cache = optarg; break;
		case 'T': a->source_cache = optarg; break;
		case 'q': a->quiet = true; break;
		case 'n': a->no_create = true; break;
		case 'm':
			if (parse_u64(optarg, "-m", 1, MAX_THREADS, &v, &err))
				return img_fail(&err);
			a->threads = (int)v;
			break;
		case 'W': a->out_of_order = true; break;
		case 'U': a->flags |= IMAGE_FORCE_SHARE; break;
		case 'r':
			if (parse_size(optarg, 1, &c->rate.bytes_per_second, &err))
				return img_fail(&err);
			break;
		case OPT_IMAGE_OPTS: a->image_opts = true; break;
		case OPT_TARGET_OPTS: a->target_image_opts = true; break;
		case OPT_ZERO: a->target_is_zero = true; break;
		case OPT_SALVAGE: c->salvage = true; break;
		case OPT_BITMAPS: a->bitmaps = true; break;
		case OPT_SKIP: a->skip_broken = true; break;
		case 'h': return -1;
		default: return 1;
		}
	}
	if (img_wants_option_help(strbuf_str(&a->options)))
		return img_option_help(a->out_format, optind < argc, false) ? 1 : -1;
	if (optind > argc - 2)
		return img_usage("convert: expecting the names of an input and the output image");
	if (argc - optind - 1 > SOURCES)
		return img_usage("convert: more than %d source images", SOURCES);
	if (c->offload && (c->compress || a->sparse_given))
		return img_usage("convert: -C does not go together with -c and -S");
	if (a->skip_broken && !a->bitmaps)
		return img_usage("convert: --skip-broken-bitmaps needs --bitmaps");
	if (a->bitmaps && argc - optind > 2)
		return img_usage("convert: --bitmaps works with one source image only");
	if (a->target_is_zero && !a->no_create)
		return img_usage("convert: --target-is-zero needs -n");
	if (a->no_create && (a->options.len || a->backing))
		return img_usage("convert: -n does not go together with -o and -B");
	if (a->target_image_opts && !a->no_create)
		return img_usage("convert: --target-image-opts needs -n");
	if (a->target_image_opts && a->out_given)
		return img_usage("convert: --target-image-opts and -O do not go together: say "
				 "driver=");
	return 0;
}

/* Steps that are written in order are so by one thread at a time: where reading is a copy out of the
 * page cache, a second one that reads ahead is all that can be of use, and more would only change
 * places with each other. Sources that make a reader wait, or unpack and decrypt, are worth more. */
static int default_threads(const struct convert *c, const struct convert_args *a)
{
	enum { ENOUGH_TO_COPY = 2, ENOUGH_TO_WAIT = 4 };
	if (!c->ordered || a->source_cache)
		return ENOUGH_TO_WAIT;
	for (int i = 0; i < c->sources; i++)
		for (const struct image *img = c->from[i]; img; img = img->backing)
			if (img->driver != &raw_driver || file_is_device(img->file))
				return ENOUGH_TO_WAIT;
	return ENOUGH_TO_COPY;
}

int img_convert(int argc, char **argv)
{
	struct convert c = {.sparse = DEFAULT_SPARSE, .step = STEP};
	struct convert_args a = {.out_format = "raw", .options = STRBUF_INIT};
	int rc = parse(argc, argv, &c, &a);
	if (rc)
		return rc < 0 ? 0 : rc;
	c.progress &= !a.quiet;
	rc = open_sources(&c, &a, argc - 1 - optind, argv + optind);
	if (!rc)
		rc = open_target(&c, &a, argv[argc - 1]);
	if (!rc && a.bitmaps)
		rc = check_bitmaps(&c, a.skip_broken);
	if (!rc)
		rc = copy_all(&c, a.threads ? a.threads : default_threads(&c, &a));
	if (!rc && a.bitmaps)
		rc = copy_bitmaps(&c);
	image_close(c.to);
	for (int i = 0; i < c.sources; i++)
		image_close(c.from[i]);
	strbuf_free(&a.options);
	return rc ? img_fail(&c.err) : 0;
}
