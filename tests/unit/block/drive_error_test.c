/* SPDX-License-Identifier: MIT */
/*
 * A drive whose file runs out of space at random moments, while 32 requests are in flight.
 *
 * Each slot has a stretch of the disk and one request of its own: a write, zeroes, a flush, or a read
 * that is compared with what was written. Whatever fails is held (werror=stop); an operator's thread
 * tries it again at random moments, gives it up, pauses the drive or waits until it is at rest, and
 * the drive's listener waits for that too, as a machine does that stops. Each request must be told
 * exactly once, and what was told to be written must be there.
 *
 * Space runs out in two ways: an observer of the file refuses writes, of some after having written a
 * part; or the process may write files no further than a random limit, which the kernel sees to and
 * which reaches io_uring too.
 *
 * MINIVM_TEST_SEED decides what the slots do, not how they meet. MINIVM_TEST_ROUNDS makes it longer.
 */
#include "block/drive.h"
#include "block/file.h"
#include "lib/bytes.h"
#include "tests/unit/block/tools.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>

#include <cmocka.h>

enum {
	SLOTS = 32,
	STRETCH = 96 << 10, /* bytes of the disk that belong to one slot */
	MAX_LEN = 80 << 10,
	DISK = SLOTS * STRETCH,
	REQUESTS = 2000,  /* of one way, if not told otherwise */
	STUCK = 240,      /* seconds without any completion */
	FAILING_IN = 100, /* of so many writes `refuse_percent` fail */
};

enum phase { IDLE, IN_FLIGHT };

struct slot {
	struct drive_request req;
	struct iovec iov[3];
	enum phase phase; /* atomic */
	enum drive_op op;
	uint64_t random;
	uint8_t *buf, *expected; /* STRETCH each: of the request; of the disk */
	bool again;              /* it was given up: the same once more */
};

static struct {
	struct loop *loop;
	struct drive *drive;
	int fd; /* of the file, for the parts of refused writes */
	struct slot slot[SLOTS];
	uint64_t wanted, started, told, held; /* atomic */
	unsigned refuse_percent;              /* atomic; of the observer */
	bool quit;                            /* atomic */
	bool mended;                          /* atomic: there is space again */
	bool give_up;                         /* the operator may give held requests up */
	bool limits;                          /* the kernel's limit, not the observer */
	struct loop_call stop;
} t;

static uint64_t next_random(uint64_t *s)
{
	*s = *s * 6364136223846793005u + 1442695040888963407u;
	return *s >> 24;
}

static void broken(const char *what, const struct slot *s, int result)
{
	/* Any thread: cmocka's assertions are for the main one. */
	fprintf(stderr, "slot %d, op %d at %" PRIu64 ", %" PRIu64 " bytes: %s (%d)\n",
		(int)(s - t.slot), s->req.op, s->req.offset, s->req.len, what, result);
	abort();
}

/* ---- The file ---- */

static void write_part(uint64_t offset, const struct iovec *iov, uint64_t len)
{
	uint64_t part = len / 3;
	if (!iov || !part)
		return;
	if (part > iov->iov_len)
		part = iov->iov_len;
	if (pwrite(t.fd, iov->iov_base, part, (off_t)offset) < 0)
		perror("a part of a write");
}

static int refuse(void *opaque, enum file_op op, uint64_t offset, uint64_t len,
		  const struct iovec *iov, int iovcnt)
{
	static uint64_t counter;
	uint64_t r = __atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED);
	r = next_random(&r);
	if (r % FAILING_IN >= __atomic_load_n(&t.refuse_percent, __ATOMIC_RELAXED))
		return 0;
	if (op == FILE_WRITE && r / FAILING_IN % 2)
		write_part(offset, iov, len);
	return op == FILE_FLUSH || op == FILE_DISCARD ? 0 : -ENOSPC;
}

static void limit_files(uint64_t bytes)
{
	struct rlimit l;
	getrlimit(RLIMIT_FSIZE, &l);
	l.rlim_cur = bytes < l.rlim_max ? bytes : l.rlim_max;
	setrlimit(RLIMIT_FSIZE, &l);
}

static void disturb(uint64_t r)
{
	if (t.limits)
		limit_files(r % 4 ? r / 4 % (2 * DISK / 4096) * 4096 : RLIM_INFINITY);
	else
		__atomic_store_n(&t.refuse_percent, r % 4 ? (unsigned)(r / 4 % 60) : 0,
				 __ATOMIC_RELAXED);
}

static void mend(void)
{
	if (t.limits)
		limit_files(RLIM_INFINITY);
	__atomic_store_n(&t.refuse_percent, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&t.mended, true, __ATOMIC_SEQ_CST);
}

/* ---- The slots ---- */

static void told(struct drive_request *req, int result);

static void prepare(struct slot *s)
{
	struct drive_request *req = &s->req;
	uint64_t r = next_random(&s->random), kind = r % 16;
	uint64_t unit = r / 16 % 2 ? 4096 : 512;
	uint64_t len = (next_random(&s->random) % (MAX_LEN / unit) + 1) * unit;
	uint64_t at = next_random(&s->random) % ((STRETCH - len) / unit + 1) * unit;
	size_t cut[2] = {len / 3 & ~511u, len / 2 & ~511u};
	if (s->again) {
		req->on_worker = r / 32 % 2;
		return;
	}
	s->op = kind < 10   ? DRIVE_WRITE
		: kind < 13 ? DRIVE_READ
		: kind < 14 ? DRIVE_FLUSH
			    : DRIVE_WRITE_ZEROES;
	for (size_t i = 0; i < len && s->op == DRIVE_WRITE; i += 8)
		store_le64(s->buf + i, s->random + i);
	s->iov[0] = (struct iovec){s->buf, cut[0]};
	s->iov[1] = (struct iovec){s->buf + cut[0], cut[1] - cut[0]};
	s->iov[2] = (struct iovec){s->buf + cut[1], len - cut[1]};
	*req = (struct drive_request){.op = s->op,
				      .offset = (uint64_t)(s - t.slot) * STRETCH + at,
				      .len = len,
				      .iov = s->iov,
				      .iovcnt = 3,
				      .fua = s->op != DRIVE_READ && r / 64 % 16 == 0,
				      .on_worker = r / 32 % 2,
				      .done = told,
				      .opaque = s};
	if (s->op == DRIVE_FLUSH)
		req->offset = req->len = req->iovcnt = 0;
}

/* The slot's next request, if there are any left. */
static void go_on(struct slot *s)
{
	if (!s->again && __atomic_fetch_add(&t.started, 1, __ATOMIC_RELAXED) >=
				 __atomic_load_n(&t.wanted, __ATOMIC_RELAXED))
		return;
	prepare(s);
	s->again = false;
	if (__atomic_exchange_n(&s->phase, IN_FLIGHT, __ATOMIC_SEQ_CST) != IDLE)
		broken("is in flight already", s, 0);
	drive_submit(t.drive, &s->req);
}

static void told(struct drive_request *req, int result)
{
	struct slot *s = req->opaque;
	uint64_t at = req->offset % STRETCH;
	if (!req->on_worker && !loop_locked_by_me(t.loop))
		broken("told without the lock", s, result);
	if (__atomic_exchange_n(&s->phase, IDLE, __ATOMIC_SEQ_CST) != IN_FLIGHT)
		broken("told twice", s, result);
	if (result && !(t.give_up && s->op != DRIVE_READ))
		broken("failed", s, result);
	s->again = result != 0;
	if (s->op == DRIVE_WRITE)
		memcpy(s->expected + at, s->buf, req->len);
	else if (s->op == DRIVE_WRITE_ZEROES)
		memset(s->expected + at, 0, req->len);
	else if (s->op == DRIVE_READ && memcmp(s->buf, s->expected + at, req->len))
		broken("reads what was not written", s, result);
	__atomic_add_fetch(&t.told, 1, __ATOMIC_SEQ_CST);
	if (next_random(&s->random) % 32 == 0 && !__atomic_load_n(&t.mended, __ATOMIC_SEQ_CST))
		disturb(next_random(&s->random));
	go_on(s);
}

/* ---- Machine and operator ---- */

static void rest(void)
{
	drive_pause(t.drive);
	drive_drain(t.drive);
	drive_resume(t.drive);
}

static void stop(void *opaque)
{
	rest();
}

static void failed(void *opaque, struct drive *drive, const struct drive_error *error)
{
	__atomic_add_fetch(&t.held, 1, __ATOMIC_RELAXED);
	loop_call_schedule(t.loop, &t.stop);
}

static void *operate(void *opaque)
{
	uint64_t r = *(uint64_t *)opaque;
	while (!__atomic_load_n(&t.quit, __ATOMIC_SEQ_CST)) {
		uint64_t what = next_random(&r);
		bool mended = __atomic_load_n(&t.mended, __ATOMIC_SEQ_CST);
		struct timespec pause = {.tv_nsec = (long)(next_random(&r) % 400000)};
		nanosleep(&pause, NULL);
		if (!mended)
			disturb(next_random(&r));
		loop_lock(t.loop);
		switch (what % 8) {
		case 0: drive_drain(t.drive); break;
		case 1: rest(); break;
		case 2:
			if (t.give_up)
				drive_fail_held(t.drive);
			break;
		default: drive_retry(t.drive); break;
		}
		loop_unlock(t.loop);
	}
	return NULL;
}

/* Runs the loop until all requests were told. */
static void run(void)
{
	uint64_t last = 0;
	time_t moved = time(NULL);
	for (;;) {
		loop_run_once(t.loop, 10000000);
		uint64_t now = __atomic_load_n(&t.told, __ATOMIC_SEQ_CST);
		bool idle = __atomic_load_n(&t.started, __ATOMIC_SEQ_CST) >= t.wanted;
		for (int i = 0; i < SLOTS; i++)
			idle &= __atomic_load_n(&t.slot[i].phase, __ATOMIC_SEQ_CST) == IDLE;
		if (idle)
			return;
		if (now >= t.wanted - t.wanted / 16)
			mend();
		if (now != last)
			moved = time(NULL);
		else if (time(NULL) - moved > STUCK)
			break;
		last = now;
	}
	for (int i = 0; i < SLOTS; i++)
		if (t.slot[i].phase == IN_FLIGHT)
			broken("was never told", &t.slot[i], (int)drive_held(t.drive));
}

/* ---- The ways ---- */

struct way {
	const char *format, *options;
	enum drive_aio aio;
	unsigned flags;
	bool limits, give_up, throttled;
};

static struct drive *open_drive(const struct way *w)
{
	static const struct throttle_limits limits = {
		.bucket[THROTTLE_OPS_TOTAL] = {.avg = 20000},
		.bucket[THROTTLE_BPS_WRITE] = {.avg = 400000000}};
	struct error err = ERROR_INIT;
	struct opts o;
	unlink("d.img");
	assert_int_equal(opts_parse(&o, w->options ? w->options : "", NULL, &err), 0);
	if (image_create("d.img", w->format, DISK, &o, &err))
		fail_msg("%s", err.text);
	opts_free(&o);
	struct drive_config c = {.id = "d",
				 .file = "d.img",
				 .format = w->format,
				 .image_flags = IMAGE_WRITABLE | w->flags,
				 .aio = w->aio,
				 .rerror = DRIVE_ERROR_STOP,
				 .werror = DRIVE_ERROR_STOP,
				 .limits = w->throttled ? &limits : NULL};
	struct drive *d = drive_new(t.loop, &c, &err);
	if (!d && w->aio == DRIVE_AIO_URING)
		printf("SKIPPED io_uring: %s\n", err.text);
	else if (!d)
		fail_msg("%s", err.text);
	return d;
}

static void check_all(const struct way *w)
{
	static uint8_t back[STRETCH];
	struct error err = ERROR_INIT;
	for (int i = 0; i < SLOTS; i++) {
		assert_int_equal(drive_pread(t.drive, back, STRETCH, (uint64_t)i * STRETCH), 0);
		if (memcmp(back, t.slot[i].expected, STRETCH))
			fail_msg("%s: slot %d is not what was written", w->format, i);
	}
	drive_free(t.drive);
	/* The same once the file was closed. */
	struct image *img =
		image_open("d.img", w->format, IMAGE_WRITABLE | IMAGE_CHECK, NULL, &err);
	assert_non_null(img);
	for (int i = 0; i < SLOTS; i++) {
		assert_int_equal(image_pread(img, back, STRETCH, (uint64_t)i * STRETCH), 0);
		assert_memory_equal(back, t.slot[i].expected, STRETCH);
	}
	struct image_check result;
	if (strcmp(w->format, "raw")) {
		assert_int_equal(image_run_check(img, 0, &result, &err), 0);
		assert_int_equal(result.corruptions, 0);
	}
	image_close(img);
}

static void run_way(const struct way *w, uint64_t requests)
{
	static const struct file_observer observer = {.op = refuse};
	pthread_t operator;
	uint64_t operator_seed = rnd();
	loop_lock(t.loop);
	t.drive = open_drive(w);
	if (!t.drive) {
		loop_unlock(t.loop);
		return;
	}
	t.fd = open("d.img", O_RDWR | O_CLOEXEC);
	assert_true(t.fd >= 0);
	t.wanted = requests;
	t.started = t.told = 0;
	t.quit = t.mended = false;
	t.give_up = w->give_up;
	t.limits = w->limits;
	if (!w->limits)
		file_set_observer(&observer);
	loop_call_init(&t.stop, stop, NULL);
	drive_on_error(t.drive, failed, NULL);
	for (int i = 0; i < SLOTS; i++) {
		struct slot *s = &t.slot[i];
		s->random = rnd();
		s->again = false;
		memset(s->expected, 0, STRETCH);
	}
	disturb(operator_seed | 1);
	assert_int_equal(pthread_create(&operator, NULL, operate, &operator_seed), 0);
	for (int i = 0; i < SLOTS; i++)
		go_on(&t.slot[i]);
	loop_unlock(t.loop);
	run();
	__atomic_store_n(&t.quit, true, __ATOMIC_SEQ_CST);
	pthread_join(operator, NULL);
	loop_lock(t.loop);
	mend();
	drive_drain(t.drive);
	loop_call_cancel(t.loop, &t.stop);
	drive_on_error(t.drive, NULL, NULL);
	assert_int_equal(drive_held(t.drive), 0);
	check_all(w);
	file_set_observer(NULL);
	close(t.fd);
	loop_unlock(t.loop);
}

static void nothing_is_lost_or_told_twice_when_space_runs_out(void **state)
{
	const char *given = getenv("MINIVM_TEST_ROUNDS");
	uint64_t rounds = given ? strtoull(given, NULL, 0) : 1;
	static const struct way ways[] = {
		{.format = "raw", .aio = DRIVE_AIO_THREADS},
		{.format = "raw", .aio = DRIVE_AIO_THREADS, .limits = true, .give_up = true},
		{.format = "raw", .aio = DRIVE_AIO_THREADS, .flags = IMAGE_DIRECT, .limits = true},
		{.format = "raw", .aio = DRIVE_AIO_URING, .limits = true},
		{.format = "raw",
		 .aio = DRIVE_AIO_URING,
		 .limits = true,
		 .flags = IMAGE_DIRECT,
		 .give_up = true},
		{.format = "raw", .aio = DRIVE_AIO_URING, .limits = true, .throttled = true},
		{.format = "qcow2", .aio = DRIVE_AIO_THREADS},
		{.format = "qcow2", .aio = DRIVE_AIO_THREADS, .limits = true, .give_up = true},
		{.format = "qcow2",
		 .options = "cluster_size=4096,lazy_refcounts=on",
		 .throttled = true},
		/* The refcount table grows. */
		{.format = "qcow2", .options = "cluster_size=512,refcount_bits=64"},
		{.format = "qcow2", .options = "preallocation=metadata", .flags = IMAGE_DIRECT},
		{.format = "qcow2",
		 .options = "extended_l2=on,cluster_size=131072",
		 .give_up = true},
	};
	while (rounds--)
		for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
			run_way(&ways[i], REQUESTS);
	assert_true(t.held > 0);
}

static int setup(void **state)
{
	signal(SIGXFSZ, SIG_IGN);
	for (int i = 0; i < SLOTS; i++) {
		t.slot[i].buf = aligned_alloc(4096, STRETCH);
		t.slot[i].expected = malloc(STRETCH);
		if (!t.slot[i].buf || !t.slot[i].expected)
			return -1;
	}
	t.loop = loop_new(NULL);
	return t.loop ? enter_scratch(state) : -1;
}

static int teardown(void **state)
{
	for (int i = 0; i < SLOTS; i++) {
		free(t.slot[i].buf);
		free(t.slot[i].expected);
	}
	loop_free(t.loop);
	return leave_scratch(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_lost_or_told_twice_when_space_runs_out),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
