/* SPDX-License-Identifier: MIT */
/* minivm-img dd and bench. */
#include "block/image.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include "tools/img.h"
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct dd {
	const char *in, *out, *format, *out_format;
	uint64_t bs, count, skip;
	bool has_count, image_opts;
	unsigned flags;
};

/* One of the name=value words. */
static int dd_operand(struct dd *d, const char *word, struct error *err)
{
	const char *value = strchr(word, '=');
	size_t n = value ? (size_t)(value - word) : 0;
	if (!value)
		return error_set(err, EINVAL, "dd: '%s' is no operand such as if=FILE", word);
	value++;
	if (n == 2 && !strncmp(word, "if", n)) {
		d->in = value;
	} else if (n == 2 && !strncmp(word, "of", n)) {
		d->out = value;
	} else if (n == 2 && !strncmp(word, "bs", n)) {
		int rc = parse_size(value, 1, &d->bs, err);
		if (!rc && (d->bs == 0 || d->bs > INT32_MAX))
			rc = error_set(err, EINVAL, "dd: bs must be from 1 to 2G, not '%s'", value);
		return rc;
	} else if (n == 5 && !strncmp(word, "count", n)) {
		d->has_count = true;
		return parse_size(value, 1, &d->count, err);
	} else if (n == 4 && !strncmp(word, "skip", n)) {
		return parse_size(value, 1, &d->skip, err);
	} else {
		return error_set(err, EINVAL, "dd: unknown operand '%.*s'", (int)n, word);
	}
	return 0;
}

static int dd_copy(struct dd *d, struct image *from, struct error *err)
{
	uint64_t size = image_size(from), start, end, wanted;
	if (__builtin_mul_overflow(d->bs, d->skip, &start) || start > size) {
		warn("dd: cannot skip to the specified offset");
		start = size;
	}
	end = size;
	if (d->has_count && !__builtin_mul_overflow(d->bs, d->count, &wanted) &&
	    wanted < size - start)
		end = start + wanted;
	int rc = image_create(d->out, d->out_format, end - start, NULL, err);
	if (rc)
		return rc;
	struct image *to = image_open(d->out, d->out_format,
				      IMAGE_WRITABLE | IMAGE_DISCARD | IMAGE_NO_BACKING, NULL, err);
	if (!to)
		return -EIO;
	size_t step = d->bs < MIB ? (size_t)(MIB / d->bs * d->bs) : (size_t)d->bs;
	uint8_t *buf = malloc(step);
	if (!buf)
		rc = error_errno(err, ENOMEM, "dd");
	for (uint64_t at = start; at < end && !rc; at += step) {
		size_t len = end - at < step ? (size_t)(end - at) : step;
		rc = image_pread(from, buf, len, at);
		if (rc)
			error_errno(err, -rc, "error while reading from '%s'", d->in);
		else if ((rc = image_pwrite(to, buf, len, at - start)))
			error_errno(err, -rc, "error while writing to '%s'", d->out);
	}
	if (!rc && (rc = image_flush(to)))
		error_errno(err, -rc, "error while writing to '%s'", d->out);
	free(buf);
	image_close(to);
	return rc;
}

int img_dd(int argc, char **argv)
{
	static const struct option longs[] = {{"help", no_argument, 0, 'h'},
					      {"image-opts", no_argument, 0, OPT_IMAGE_OPTS},
					      {"force-share", no_argument, 0, 'U'},
					      {0}};
	struct dd d = {.bs = 512, .out_format = "raw"};
	struct error err = ERROR_INIT;
	int c;
	while ((c = img_getopt(argc, argv, ":f:O:Uh", longs)) != -1) {
		switch (c) {
		case 'f': d.format = optarg; break;
		case 'O': d.out_format = optarg; break;
		case 'U': d.flags |= IMAGE_FORCE_SHARE; break;
		case OPT_IMAGE_OPTS: d.image_opts = true; break;
		case 'h': return 0;
		default: return 1;
		}
	}
	for (; optind < argc; optind++)
		if (dd_operand(&d, argv[optind], &err))
			return img_fail(&err);
	if (!d.in || !d.out)
		return img_usage("dd: must specify both input and output: if=FILE of=FILE");
	struct image *from = img_open(d.in, d.format, d.image_opts, d.flags, &err);
	int rc = from ? dd_copy(&d, from, &err) : -EINVAL;
	image_close(from);
	return rc ? img_fail(&err) : 0;
}

struct bench {
	struct image *img;
	uint64_t count, next, offset, step, flush_interval;
	size_t size;
	bool write, drain;
	int pattern, rc;
	pthread_mutex_t lock;
	pthread_cond_t idle;
	unsigned running; /* requests on their way */
};

/* Each thread has one request on its way, so that as many threads are the depth. */
static void *bench_thread(void *opaque)
{
	struct bench *b = opaque;
	uint8_t *buf;
	if (posix_memalign((void **)&buf, 4096, b->size + 1))
		return NULL;
	memset(buf, b->pattern, b->size);
	uint64_t size = image_size(b->img);
	pthread_mutex_lock(&b->lock);
	while (b->next < b->count && !b->rc) {
		uint64_t n = b->next++;
		uint64_t at = b->offset;
		b->offset += b->step;
		if (b->offset + b->size > size)
			b->offset = size > b->size ? b->offset % (size - b->size) : 0;
		bool flush = b->flush_interval && (n + 1) % b->flush_interval == 0;
		b->running++;
		pthread_mutex_unlock(&b->lock);
		int rc = b->write ? image_pwrite(b->img, buf, b->size, at)
				  : image_pread(b->img, buf, b->size, at);
		pthread_mutex_lock(&b->lock);
		b->running--;
		pthread_cond_broadcast(&b->idle);
		/* Drained: a flush goes out when nothing else is on its way. */
		while (flush && b->drain && b->running && !rc)
			pthread_cond_wait(&b->idle, &b->lock);
		if (flush && !rc) {
			pthread_mutex_unlock(&b->lock);
			rc = image_flush(b->img);
			pthread_mutex_lock(&b->lock);
		}
		if (rc && !b->rc)
			b->rc = rc;
	}
	pthread_mutex_unlock(&b->lock);
	free(buf);
	return NULL;
}

static int bench_run(struct bench *b, unsigned depth, bool quiet)
{
	enum { MAX_DEPTH = 1024 };
	pthread_t t[MAX_DEPTH];
	struct timespec a, z;
	unsigned n = 0;
	if (!quiet) {
		printf("Sending %" PRIu64 " %s requests, %zu bytes each, %u in parallel (starting "
		       "at offset %" PRIu64 ", step size %" PRIu64 ")\n",
		       b->count, b->write ? "write" : "read", b->size, depth, b->offset, b->step);
		if (b->flush_interval)
			printf("Sending flush every %" PRIu64 " %srequests\n", b->flush_interval,
			       b->drain ? "" : "draining ");
	}
	clock_gettime(CLOCK_MONOTONIC, &a);
	while (n < depth && n < MAX_DEPTH && pthread_create(&t[n], NULL, bench_thread, b) == 0)
		n++;
	if (!n)
		return -EAGAIN;
	while (n)
		pthread_join(t[--n], NULL);
	clock_gettime(CLOCK_MONOTONIC, &z);
	if (!b->rc && !quiet)
		printf("Run completed in %3.3f seconds.\n",
		       (double)(z.tv_sec - a.tv_sec) + (double)(z.tv_nsec - a.tv_nsec) / 1e9);
	return b->rc;
}

int img_bench(int argc, char **argv)
{
	enum { OPT_FLUSH = OPT_FIRST_OWN, OPT_NO_DRAIN, OPT_PATTERN };
	static const struct option longs[] = {{"help", no_argument, 0, 'h'},
					      {"flush-interval", required_argument, 0, OPT_FLUSH},
					      {"no-drain", no_argument, 0, OPT_NO_DRAIN},
					      {"pattern", required_argument, 0, OPT_PATTERN},
					      {"image-opts", no_argument, 0, OPT_IMAGE_OPTS},
					      {"force-share", no_argument, 0, 'U'},
					      {0}};
	const char *format = NULL, *cache = NULL;
	struct bench b = {.count = 75000, .drain = true, .size = 4096};
	struct error err = ERROR_INIT;
	bool quiet = false, image_opts = false;
	uint64_t depth = 64, v;
	unsigned flags = 0;
	int c, rc = 0;
	while ((c = img_getopt(argc, argv, ":c:d:f:no:qs:S:t:wUh", longs)) != -1) {
		switch (c) {
		case 'c': rc = parse_u64(optarg, "-c", 1, INT32_MAX, &b.count, &err); break;
		case 'd': rc = parse_u64(optarg, "-d", 1, 1024, &depth, &err); break;
		case 'f': format = optarg; break;
		case 'n':
			return img_usage("bench: -n (native AIO) is not supported: requests run on "
					 "threads");
		case 'o': rc = parse_size(optarg, 1, &b.offset, &err); break;
		case 'q': quiet = true; break;
		case 's':
			rc = parse_size(optarg, 1, &v, &err);
			if (!rc && (v == 0 || v > INT32_MAX))
				rc = error_set(&err, EINVAL, "bench: bad buffer size '%s'", optarg);
			b.size = rc ? 0 : (size_t)v;
			break;
		case 'S': rc = parse_size(optarg, 1, &b.step, &err); break;
		case 't': cache = optarg; break;
		case 'w':
			b.write = true;
			flags |= IMAGE_WRITABLE;
			break;
		case 'U': flags |= IMAGE_FORCE_SHARE; break;
		case OPT_FLUSH:
			rc = parse_u64(optarg, "--flush-interval", 0, INT32_MAX, &b.flush_interval,
				       &err);
			break;
		case OPT_NO_DRAIN: b.drain = false; break;
		case OPT_PATTERN:
			rc = parse_u64(optarg, "--pattern", 0, 255, &v, &err);
			b.pattern = rc ? 0 : (int)v;
			break;
		case OPT_IMAGE_OPTS: image_opts = true; break;
		case 'h': return 0;
		default: return 1;
		}
		if (rc)
			return img_fail(&err);
	}
	if (optind != argc - 1)
		return img_usage("bench: expecting one image file name");
	if (!b.write && b.flush_interval)
		return img_usage("bench: --flush-interval is only available in write tests");
	if (!img_cache_flags(cache, "writeback", &flags))
		return 1;
	b.img = img_open(argv[optind], format, image_opts, flags, &err);
	if (!b.img)
		return img_fail(&err);
	if (!b.step)
		b.step = b.size;
	if (!range_in(b.offset, b.size, image_size(b.img)))
		rc = error_set(&err, EINVAL, "bench: the image is smaller than a request");
	pthread_mutex_init(&b.lock, NULL);
	pthread_cond_init(&b.idle, NULL);
	if (!rc) {
		rc = bench_run(&b, (unsigned)depth, quiet);
		if (rc)
			error_errno(&err, -rc, "a request failed");
	}
	image_close(b.img);
	return rc ? img_fail(&err) : 0;
}
