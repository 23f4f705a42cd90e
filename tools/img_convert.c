/* SPDX-License-Identifier: MIT */
/*
 * minivm-img convert.
 *
 * Threads take the disk in steps. Each reads its step, looks for zeroes and writes what remains.
 * Into a format that allocates space as it is written, steps are written in their order, so that
 * the file is laid out as the disk is; -W lifts that, as do a raw target, where places are given,
 * and -c, where packing takes the time.
 *
 * In order, two threads that copy take turns many thousand times a second, and waking one that sleeps
 * takes as long as half a step. So a thread that has read looks for a while whether its turn comes,
 * longer if that was of use and shorter if it was not. If it does not come, the step is left to the
 * thread that writes, and the next one is read meanwhile: on a busy host, whoever runs goes on.
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
	DEFAULT_THREADS = 4,
	MAX_THREADS = 16,
	SOURCES = 64,
	MAX_STEPS = 2 * MAX_THREADS + 4,
	SPIN_MIN = 16, /* looks at whose turn it is before a thread sleeps */
	SPIN_MAX = 5000,
};

enum extent { EXTENT_DATA, EXTENT_ZERO, EXTENT_BACKING };

struct piece {
	uint64_t at, len;
	enum extent kind;
};

struct step {
	uint64_t at, len, ticket;
	bool data;            /* nothing but data, as far as the source tells */
	struct piece *pieces; /* room for as many; `count` of them are there */
	size_t room, count;
	uint8_t *buf;      /* convert.step bytes, from its first use on */
	struct step *next; /* of those that are free */
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

	pthread_mutex_t hand_out; /* guards the next three */
	uint64_t next, tickets;   /* the step to hand out next; how many were handed out */
	uint64_t data_end;        /* from the last step on there is nothing but data up to here */

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t room;  /* steps are free again */
	struct step steps[MAX_STEPS], *free;
	struct step *ready[MAX_STEPS]; /* read, by the ticket; it waits for its turn */
	unsigned step_count, free_count;
	unsigned enough; /* free steps for which it is worth waking a thread */
	bool writing;    /* a thread writes what is ready */
	uint64_t turn;   /* atomic: whose turn it is to write, by the ticket */
	uint64_t done;   /* atomic; bytes */
	int rc;
	struct error err;
};

static void fail(struct convert *c, int rc, const char *what, const struct image *img, uint64_t at)
{
	pthread_mutex_lock(&c->lock);
	if (!c->rc) {
		c->rc = rc;
		error_errno(&c->err, -rc, "error while %s '%s' at byte %" PRIu64, what, img->path,
			    at);
	}
	pthread_cond_broadcast(&c->room);
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
	/* A hole that reads as anything is data, unless the target has the same below it. */
	return status & BLOCK_DATA || !c->target_backed ? EXTENT_DATA : EXTENT_BACKING;
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
		if (c->target_backed && extent_at(c, at + i, n, &count) == EXTENT_BACKING &&
		    count >= n)
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

/* The extents of a step; false if that failed. */
static bool find_pieces(struct convert *c, struct step *s)
{
	uint64_t at = s->at, len = s->len;
	while (len) {
		uint64_t count = len;
		int kind = s->data ? EXTENT_DATA : extent_at(c, at, len, &count);
		if (kind < 0) {
			fail(c, kind, "examining", c->from[source_at(c, at)],
			     at - c->start[source_at(c, at)]);
			return false;
		}
		if (!c->sparse && kind == EXTENT_ZERO)
			kind = EXTENT_DATA; /* -S 0: all is written */
		if (s->count && s->pieces[s->count - 1].kind == (enum extent)kind) {
			s->pieces[s->count - 1].len += count;
		} else {
			if (s->count == s->room) {
				s->room = s->room ? s->room * 2 : 16;
				s->pieces = xrealloc(s->pieces, s->room * sizeof(*s->pieces));
			}
			s->pieces[s->count++] = (struct piece){at, count, (enum extent)kind};
		}
		at += count;
		len -= count;
	}
	return true;
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

static void add_done(struct convert *c, uint64_t bytes)
{
	__atomic_add_fetch(&c->done, bytes, __ATOMIC_RELAXED);
	if (!c->progress)
		return;
	pthread_mutex_lock(&c->lock);
	uint64_t done = __atomic_load_n(&c->done, __ATOMIC_RELAXED);
	img_progress(true, done < c->size ? done : c->size, c->size);
	pthread_mutex_unlock(&c->lock);
}

/* Reads what the step has; false if that failed. */
static bool fill(struct convert *c, struct step *s)
{
	if (!find_pieces(c, s))
		return false;
	for (size_t i = 0; i < s->count; i++) {
		const struct piece *p = &s->pieces[i];
		uint8_t *to = s->buf + (p->at - s->at);
		bool needed = p->kind == EXTENT_DATA ? !c->offload
						     : p->kind == EXTENT_BACKING && c->compress;
		if (p->kind == EXTENT_ZERO && c->compress)
			memset(to, 0, (size_t)p->len);
		else if (needed && read_disk(c, to, p->at, (size_t)p->len))
			return false;
	}
	return true;
}

static bool write_pieces(struct convert *c, const struct step *s)
{
	for (size_t i = 0; i < s->count; i++) {
		const struct piece *p = &s->pieces[i];
		uint8_t *from = s->buf + (p->at - s->at);
		bool ok = true;
		if (p->kind == EXTENT_ZERO)
			ok = write_zeroes(c, p->at, p->len) == 0;
		else if (p->kind == EXTENT_DATA && c->offload)
			ok = offload(c, from, p->at, (size_t)p->len);
		else if (p->kind == EXTENT_DATA)
			ok = write_data(c, from, p->at, (size_t)p->len) == 0;
		if (!ok)
			return false;
	}
	return true;
}

/* Brings a step that was read to the target; false if that failed. */
static bool write_step(struct convert *c, const struct step *s)
{
	bool any = !c->target_zero, ok = true;
	for (size_t i = 0; i < s->count; i++)
		any |= s->pieces[i].kind == EXTENT_DATA;
	if (!c->compress)
		ok = write_pieces(c, s);
	else if (any)
		ok = write_compressed(c, s->buf, s->at, (size_t)s->len) == 0;
	if (ok) {
		add_done(c, s->len);
		img_rate_wait(&c->rate, s->len);
	}
	return ok;
}

/* A step that nobody uses; NULL after an error. */
static struct step *new_step(struct convert *c)
{
	pthread_mutex_lock(&c->lock);
	while (!c->free && !c->rc)
		pthread_cond_wait(&c->room, &c->lock);
	struct step *s = c->rc ? NULL : c->free;
	if (s) {
		c->free = s->next;
		c->free_count--;
	}
	pthread_mutex_unlock(&c->lock);
	if (s && !s->buf && !(s->buf = malloc(c->step))) {
		fail(c, -ENOMEM, "writing", c->to, 0);
		return NULL;
	}
	return s;
}

/* The one used last goes first: its buffer is still in the processor's cache. Lock held. */
static void release_step(struct convert *c, struct step *s)
{
	s->next = c->free;
	c->free = s;
	if (++c->free_count >= c->enough)
		pthread_cond_broadcast(&c->room);
}

/* The step has been read: writes it and those ready behind it, unless another thread will. */
static void write_in_order(struct convert *c, struct step *s, unsigned *spin)
{
	unsigned looks = 0;
	while (looks < *spin && __atomic_load_n(&c->turn, __ATOMIC_ACQUIRE) != s->ticket) {
		relax();
		looks++;
	}
	if (looks == *spin)
		*spin = *spin > SPIN_MIN ? *spin - *spin / 8 : SPIN_MIN;
	else
		*spin = *spin < SPIN_MAX * 3 / 4 ? *spin + *spin / 4 : SPIN_MAX;
	pthread_mutex_lock(&c->lock);
	c->ready[s->ticket % MAX_STEPS] = s;
	while (!c->writing && !c->rc && (s = c->ready[c->turn % MAX_STEPS])) {
		c->ready[c->turn % MAX_STEPS] = NULL;
		c->writing = true;
		pthread_mutex_unlock(&c->lock);
		bool ok = write_step(c, s);
		pthread_mutex_lock(&c->lock);
		c->writing = false;
		release_step(c, s);
		if (ok)
			__atomic_store_n(&c->turn, c->turn + 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&c->lock);
}

/* The first step at or behind number `n` that is not a hole through and through: a large sparse disk
 * is passed over in long strides. What is found out about the steps behind it is kept. hand_out
 * held. */
static uint64_t find_step(struct convert *c, uint64_t n)
{
	uint64_t at, count;
	while ((at = n * c->step) < c->size && at >= c->data_end) {
		int kind = extent_at(c, at, c->size - at, &count);
		if (kind == EXTENT_DATA)
			c->data_end = at + count;
		if (kind != EXTENT_ZERO || !c->target_zero || !c->sparse ||
		    count < 2 * (uint64_t)c->step)
			break;
		n = (at + count >= c->size ? c->size + c->step - 1 : at + count) / c->step;
	}
	return n;
}

/* The next step to copy; false at the end. */
static bool take_step(struct convert *c, struct step *step)
{
	pthread_mutex_lock(&c->hand_out);
	uint64_t first = c->next, n = find_step(c, first);
	c->next = n + 1;
	step->at = n * c->step;
	step->len = step->count = 0;
	step->data = false;
	step->ticket = c->tickets++;
	if (step->at < c->size) {
		step->len = c->size - step->at < c->step ? c->size - step->at : c->step;
		step->data = c->data_end >= step->at + step->len;
	}
	pthread_mutex_unlock(&c->hand_out);
	if (n > first)
		add_done(c, (n - first) * c->step);
	return step->at < c->size;
}

static void *work(void *opaque)
{
	struct convert *c = opaque;
	struct step *s;
	unsigned spin = SPIN_MAX;
	bool go_on = true;
	while (go_on && (s = new_step(c))) {
		go_on = take_step(c, s) && fill(c, s);
		if (go_on && c->ordered) {
			write_in_order(c, s, &spin);
			continue;
		}
		if (go_on)
			write_step(c, s);
		pthread_mutex_lock(&c->lock);
		release_step(c, s);
		pthread_mutex_unlock(&c->lock);
	}
	return NULL;
}

/* In order there are some steps more than threads, which those that wait for their turn fill. */
static void make_steps(struct convert *c, unsigned threads)
{
	bool many = c->ordered && c->step <= MIB;
	c->step_count = threads + (many ? threads + 4 : 1);
	c->enough = many ? c->step_count / 2 : 1;
	for (unsigned i = 0; i < c->step_count; i++)
		release_step(c, &c->steps[i]);
}

static void free_steps(struct convert *c)
{
	for (unsigned i = 0; i < c->step_count; i++) {
		free(c->steps[i].buf);
		free(c->steps[i].pieces);
	}
}

static int copy_all(struct convert *c, int threads)
{
	pthread_t t[MAX_THREADS];
	pthread_mutexattr_t attr;
	int started = 0;
	/* It is held for some instructions only. */
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
	pthread_mutex_init(&c->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	pthread_mutex_init(&c->hand_out, NULL);
	pthread_cond_init(&c->room, NULL);
	img_progress(c->progress, 0, c->size);
	if ((uint64_t)threads > c->size / c->step + 1)
		threads = (int)(c->size / c->step + 1);
	make_steps(c, (unsigned)threads);
	while (started < threads - 1 && pthread_create(&t[started], NULL, work, c) == 0)
		started++;
	work(c);
	while (started)
		pthread_join(t[--started], NULL);
	free_steps(c);
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

/* ---- The command ---- */

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

int img_convert(int argc, char **argv)
{
	struct convert c = {.sparse = DEFAULT_SPARSE, .step = STEP};
	struct convert_args a = {.out_format = "raw", .options = STRBUF_INIT};
	int rc = parse(argc, argv, &c, &a);
	if (rc) {
		strbuf_free(&a.options);
		return rc < 0 ? 0 : rc;
	}
	c.progress &= !a.quiet;
	rc = open_sources(&c, &a, argc - 1 - optind, argv + optind);
	if (!rc)
		rc = open_target(&c, &a, argv[argc - 1]);
	if (!rc && a.bitmaps)
		rc = img_bitmaps_check(c.from[0], c.to, a.skip_broken, &c.err);
	if (!rc)
		rc = copy_all(&c, a.threads ? a.threads : DEFAULT_THREADS);
	if (!rc && a.bitmaps)
		rc = img_bitmaps_copy(c.from[0], c.to, &c.err);
	image_close(c.to);
	for (int i = 0; i < c.sources; i++)
		image_close(c.from[i]);
	strbuf_free(&a.options);
	return rc ? img_fail(&c.err) : 0;
}
