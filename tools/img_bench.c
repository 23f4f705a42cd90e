/* SPDX-License-Identifier: MIT */
/*
 * minivm-img bench: requests of one size, a step apart, so many at once.
 *
 * Without -i each of them is one of so many threads' own, straight against the image; those for a raw
 * disk on a server need no threads, and are submitted. With -i they go through a drive's queue, as a
 * guest's do.
 */
#include "block/drive.h"
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

struct bench {
	struct image *img;
	uint64_t count, next, offset, step, flush_interval;
	size_t size;
	bool write, drain;
	int pattern, rc;
	pthread_mutex_t lock;
	pthread_cond_t idle;
	unsigned running;    /* requests on their way */
	struct drive *drive; /* -i: what they go through */
	struct slot *slots;
	unsigned slot_count;
	bool flush_due; /* nothing else starts, if flushes are drained */
};

/* The place of the next request; false if there is none left. Lock held. */
static bool next_request(struct bench *b, uint64_t *at, bool *flush)
{
	uint64_t size = b->img ? image_size(b->img) : drive_size(b->drive);
	if (b->next >= b->count || b->rc)
		return false;
	uint64_t n = b->next++;
	*at = b->offset;
	b->offset += b->step;
	if (b->offset + b->size > size)
		b->offset = size > b->size ? b->offset % (size - b->size) : 0;
	*flush = b->flush_interval && (n + 1) % b->flush_interval == 0;
	return true;
}

/* Each thread has one request on its way, so that as many threads are the depth. */
static void *bench_thread(void *opaque)
{
	struct bench *b = opaque;
	uint8_t *buf;
	if (posix_memalign((void **)&buf, 4096, b->size + 1))
		return NULL;
	memset(buf, b->pattern, b->size);
	uint64_t at;
	bool flush;
	pthread_mutex_lock(&b->lock);
	while (next_request(b, &at, &flush)) {
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

/* ---- Requests that no thread waits for: through a drive's queue, or to a server ---- */

struct slot {
	struct bench *bench;
	union {
		struct drive_request req;
		struct remote_request remote;
	};
	struct work work; /* of what is not submitted */
	struct iovec iov;
	bool flushes; /* a flush follows */
	bool flush_now;
};

static void slot_over(struct slot *slot, int result);

static void drive_over(struct drive_request *req, int result)
{
	slot_over(req->opaque, result);
}

static void remote_over(struct remote_request *req, int result)
{
	slot_over(container_of(req, struct slot, remote), result);
}

/* Makes the slot's request. Lock held. */
static void slot_make(struct slot *slot, bool flush_now, uint64_t at)
{
	struct bench *b = slot->bench;
	slot->flush_now = flush_now;
	struct iovec *iov = flush_now ? NULL : &slot->iov;
	if (b->drive)
		slot->req = (struct drive_request){.op = flush_now  ? DRIVE_FLUSH
							 : b->write ? DRIVE_WRITE
								    : DRIVE_READ,
						   .offset = flush_now ? 0 : at,
						   .len = flush_now ? 0 : b->size,
						   .iov = iov,
						   .iovcnt = iov != NULL,
						   .on_worker = true,
						   .done = drive_over,
						   .opaque = slot};
	else
		slot->remote = (struct remote_request){.op = flush_now  ? REMOTE_FLUSH
							     : b->write ? REMOTE_WRITE
									: REMOTE_READ,
						       .offset = flush_now ? 0 : at,
						       .len = flush_now ? 0 : b->size,
						       .iov = iov,
						       .iovcnt = iov != NULL,
						       .done = remote_over};
	b->running++;
}

/* What comes after a request that is over: false if nothing does for now. Lock held. */
static bool slot_next(struct slot *slot)
{
	struct bench *b = slot->bench;
	uint64_t at;
	if (slot->flushes && !b->rc) {
		slot->flushes = false;
		b->flush_due = true;
	}
	if (b->flush_due && !b->rc) {
		/* Drained: it goes out when nothing else is on its way, and is the last one's. */
		if (b->drain && b->running)
			return false;
		b->flush_due = b->drain;
		slot_make(slot, true, 0);
		return true;
	}
	if (!next_request(b, &at, &slot->flushes))
		return false;
	slot_make(slot, false, at);
	return true;
}

static void slot_work(struct work *work)
{
	struct slot *slot = container_of(work, struct slot, work);
	struct image *img = slot->bench->img;
	const struct remote_request *req = &slot->remote;
	slot_over(slot, req->op == REMOTE_FLUSH ? image_flush(img)
			: req->op == REMOTE_WRITE
				? image_pwritev(img, req->iov, req->iovcnt, req->offset)
				: image_preadv(img, req->iov, req->iovcnt, req->offset));
}

static void slot_submit(struct slot *slot)
{
	struct bench *b = slot->bench;
	if (b->drive)
		drive_submit(b->drive, &slot->req);
	else if (!image_submit(b->img, &slot->remote))
		work_submit(&slot->work);
}

/* Starts all slots, which are idle; the caller counts as running until then, so that they are. */
static void slots_start(struct bench *b)
{
	for (unsigned i = 0; i < b->slot_count; i++) {
		pthread_mutex_lock(&b->lock);
		bool go = slot_next(&b->slots[i]);
		pthread_mutex_unlock(&b->lock);
		if (go)
			slot_submit(&b->slots[i]);
	}
	pthread_mutex_lock(&b->lock);
	b->running--;
	/* They are idle again already, and have left the next thing to do. */
	bool go = b->running == 0 && slot_next(b->slots);
	if (!b->running)
		pthread_cond_broadcast(&b->idle);
	pthread_mutex_unlock(&b->lock);
	if (go)
		slot_submit(b->slots);
}

static void slot_over(struct slot *slot, int result)
{
	struct bench *b = slot->bench;
	pthread_mutex_lock(&b->lock);
	if (result && !b->rc)
		b->rc = result;
	bool drained = slot->flush_now && b->drain, again = false;
	if (drained) {
		b->flush_due = false;
	} else {
		b->running--;
		again = slot_next(slot);
	}
	if (!b->running)
		pthread_cond_broadcast(&b->idle);
	pthread_mutex_unlock(&b->lock);
	if (again)
		slot_submit(slot);
	if (drained)
		slots_start(b);
}

static int run_queue(struct bench *b, unsigned depth)
{
	int rc = 0;
	b->slots = xcalloc(depth, sizeof(*b->slots));
	for (unsigned i = 0; i < depth && !rc; i++) {
		struct slot *slot = &b->slots[i];
		slot->bench = b;
		slot->work = (struct work){.run = slot_work, .remote = true};
		if (posix_memalign(&slot->iov.iov_base, 4096, b->size + 1)) {
			rc = -ENOMEM;
			break;
		}
		slot->iov.iov_len = b->size;
		memset(slot->iov.iov_base, b->pattern, b->size);
		b->slot_count++;
	}
	if (!rc) {
		b->running = 1;
		slots_start(b);
	}
	pthread_mutex_lock(&b->lock);
	while (b->running)
		pthread_cond_wait(&b->idle, &b->lock);
	pthread_mutex_unlock(&b->lock);
	if (b->drive)
		drive_drain(b->drive);
	for (unsigned i = 0; i < b->slot_count; i++)
		free(b->slots[i].iov.iov_base);
	free(b->slots);
	return rc ? rc : b->rc;
}

/* ---- All ---- */

static int run_threads(struct bench *b, unsigned depth)
{
	enum { MAX_DEPTH = 1024 };
	pthread_t t[MAX_DEPTH];
	unsigned n = 0;
	while (n < depth && n < MAX_DEPTH && pthread_create(&t[n], NULL, bench_thread, b) == 0)
		n++;
	if (!n)
		return -EAGAIN;
	while (n)
		pthread_join(t[--n], NULL);
	return b->rc;
}

static int bench_run(struct bench *b, unsigned depth, bool quiet)
{
	struct timespec a, z;
	if (!quiet) {
		printf("Sending %" PRIu64 " %s requests, %zu bytes each, %u in parallel (starting "
		       "at offset %" PRIu64 ", step size %" PRIu64 ")\n",
		       b->count, b->write ? "write" : "read", b->size, depth, b->offset, b->step);
		if (b->flush_interval)
			printf("Sending flush every %" PRIu64 " requests\n", b->flush_interval);
	}
	clock_gettime(CLOCK_MONOTONIC, &a);
	bool queue = b->drive || image_can_submit(b->img);
	int rc = queue ? run_queue(b, depth) : run_threads(b, depth);
	clock_gettime(CLOCK_MONOTONIC, &z);
	if (!rc && !quiet)
		printf("Run completed in %3.3f seconds.\n",
		       (double)(z.tv_sec - a.tv_sec) + (double)(z.tv_nsec - a.tv_nsec) / 1e9);
	return rc;
}

/* -i: the drive whose queue it is. */
static struct drive *open_drive(struct loop **loop, const char *file, const char *format,
				const char *aio, unsigned flags, struct error *err)
{
	struct drive_config config = {
		.id = "bench", .file = file, .format = format, .image_flags = flags};
	if (strcmp(aio, "threads") == 0)
		config.aio = DRIVE_AIO_THREADS;
	else if (strcmp(aio, "io_uring") == 0 || strcmp(aio, "native") == 0)
		config.aio = DRIVE_AIO_URING; /* the kernel's asynchronous transfers both */
	else
		error_set(err, EINVAL, "bench: -i is threads, native or io_uring, not '%s'", aio);
	if (strcmp(aio, "native") == 0 && !(flags & IMAGE_DIRECT))
		error_set(
			err, EINVAL,
			"bench: aio=native was specified, but it requires cache.direct=on: add -t "
			"none");
	if (err->code)
		return NULL;
	*loop = loop_new(err);
	return *loop ? drive_new(*loop, &config, err) : NULL;
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
	const char *format = NULL, *cache = NULL, *aio = NULL;
	struct loop *loop = NULL;
	struct bench b = {.count = 75000, .drain = true, .size = 4096};
	struct error err = ERROR_INIT;
	bool quiet = false, image_opts = false;
	uint64_t depth = 64, v;
	unsigned flags = 0;
	int c, rc = 0;
	while ((c = img_getopt(argc, argv, ":c:d:f:i:no:qs:S:t:wUh", longs)) != -1) {
		switch (c) {
		case 'c': rc = parse_u64(optarg, "-c", 0, INT32_MAX, &b.count, &err); break;
		case 'd': rc = parse_u64(optarg, "-d", 1, 1024, &depth, &err); break;
		case 'f': format = optarg; break;
		case 'n': aio = "native"; break;
		case 'i': aio = optarg; break;
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
	if (b.flush_interval && b.flush_interval < depth)
		return img_usage("bench: --flush-interval can't be smaller than the depth");
	if (!img_cache_flags(cache, "writeback", &flags))
		return 1;
	if (aio && image_opts)
		return img_usage("bench: -i and --image-opts cannot be given together");
	if (aio)
		b.drive = open_drive(&loop, argv[optind], format, aio, flags, &err);
	else
		b.img = img_open(argv[optind], format, image_opts, flags, &err);
	if (!b.img && !b.drive)
		return img_fail(&err);
	if (!b.step)
		b.step = b.size;
	if (!range_in(b.offset, b.size, b.img ? image_size(b.img) : drive_size(b.drive)))
		rc = error_set(&err, EINVAL, "bench: the image is smaller than a request");
	pthread_mutex_init(&b.lock, NULL);
	pthread_cond_init(&b.idle, NULL);
	if (!rc) {
		rc = bench_run(&b, (unsigned)depth, quiet);
		if (rc)
			error_errno(&err, -rc, "a request failed");
	}
	image_close(b.img);
	drive_free(b.drive);
	loop_free(loop);
	return rc ? img_fail(&err) : 0;
}
