/* SPDX-License-Identifier: MIT */
/* Drives: requests through the workers and the loop, draining, media. */
#include "block/drive.h"
#include "block/drive_internal.h"
#include "block/file.h"
#include "block/host_device.h"
#include "lib/bytes.h"
#include "tests/unit/block/tools.h"
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>

#include <cmocka.h>

static struct loop *loop;
static unsigned done_count;
static int last_result;

static void done(struct drive_request *req, int result)
{
	assert_true(loop_locked_by_me(loop));
	done_count++;
	last_result = result;
}

static struct drive *make(enum drive_kind kind, const char *file, unsigned flags, bool snapshot)
{
	struct error err = ERROR_INIT;
	struct drive_config c = {.id = "ide0-hd0",
				 .kind = kind,
				 .file = file,
				 .format = "raw",
				 .image_flags = flags,
				 .snapshot = snapshot,
				 .cylinders = 100,
				 .heads = 16,
				 .sectors = 63};
	struct drive *d = drive_new(loop, &c, &err);
	if (!d)
		fail_msg("%s", err.text);
	return d;
}

static void requests_run_and_complete_in_the_loop(void **state)
{
	enum { N = 64 };
	static uint8_t data[N][4096], back[N][4096];
	static struct drive_request req[N];
	struct iovec iov[N];
	assert_int_equal(shell("truncate -s 1M d.img"), 0);
	loop_lock(loop);
	struct drive *d = make(DRIVE_DISK, "d.img", IMAGE_WRITABLE, false);
	done_count = 0;
	for (int i = 0; i < N; i++) {
		fill(data[i], sizeof(data[i]));
		iov[i] = (struct iovec){data[i], sizeof(data[i])};
		req[i] = (struct drive_request){.op = DRIVE_WRITE,
						.offset = (uint64_t)i * 4096,
						.len = 4096,
						.iov = &iov[i],
						.iovcnt = 1,
						.fua = i % 16 == 0,
						.done = done};
		drive_submit(d, &req[i]);
	}
	assert_int_equal(done_count, 0); /* never from within drive_submit() */
	loop_unlock(loop);
	while (done_count < N)
		loop_run_once(loop, -1);
	loop_lock(loop);
	done_count = 0;
	for (int i = 0; i < N; i++) {
		iov[i].iov_base = back[i];
		req[i].op = DRIVE_READ;
		drive_submit(d, &req[i]);
	}
	drive_drain(d);
	assert_int_equal(done_count, N);
	assert_memory_equal(data, back, sizeof(data));
	struct drive_request bad = {.op = DRIVE_READ,
				    .offset = 1 << 20,
				    .len = 4096,
				    .iov = iov,
				    .iovcnt = 1,
				    .done = done};
	drive_submit(d, &bad);
	drive_drain(d);
	assert_int_equal(last_result, -EINVAL);
	struct drive_request flush = {.op = DRIVE_FLUSH, .done = done};
	drive_submit(d, &flush);
	drive_free(d); /* waits for it */
	assert_int_equal(done_count, N + 2);
	loop_unlock(loop);
	loop_run_once(loop, 0);
}

static unsigned changes, requests;
static bool locked;

static void changed(void *opaque, bool inserted)
{
	changes = changes * 10 + (inserted ? 1 : 2);
}

static void eject_request(void *opaque, bool force)
{
	requests++;
}

static bool is_locked(void *opaque)
{
	return locked;
}

static void media_change_as_the_guest_allows(void **state)
{
	struct error err = ERROR_INIT;
	assert_int_equal(shell("truncate -s 1M a.iso; truncate -s 2M b.iso"), 0);
	loop_lock(loop);
	struct drive *d = make(DRIVE_CDROM, "a.iso", IMAGE_WRITABLE, false);
	struct drive_media_ops ops = {
		.changed = changed, .eject_request = eject_request, .locked = is_locked};
	drive_set_media_ops(d, &ops);
	assert_false(drive_writable(d));
	assert_int_equal(drive_size(d), 1 << 20);
	changes = 0;
	assert_int_equal(drive_change(d, "missing.iso", "raw", NULL, &err), -ENOENT);
	assert_string_equal(drive_file(d), "a.iso");
	assert_int_equal(changes, 0);
	assert_int_equal(drive_change(d, "b.iso", "raw", "retain", &err), 0);
	assert_int_equal(changes, 21);
	assert_int_equal(drive_size(d), 2 << 20);
	locked = true;
	assert_int_equal(drive_eject(d, false, &err), -EBUSY);
	assert_int_equal(requests, 1);
	assert_true(drive_inserted(d));
	assert_int_equal(drive_eject(d, true, &err), 0);
	assert_false(drive_inserted(d));
	assert_null(drive_file(d));
	locked = false;
	char buf[16];
	assert_int_equal(drive_pread(d, buf, sizeof(buf), 0), -ENOMEDIUM);
	assert_int_equal(drive_change(d, "a.iso", "raw", "backwards", &err), -EINVAL);
	drive_free(d);
	d = make(DRIVE_DISK, "a.iso", IMAGE_WRITABLE, true);
	unsigned c, h, s;
	assert_true(drive_geometry(d, &c, &h, &s));
	assert_int_equal(drive_pwrite(d, "x", 1, 5), 0);
	assert_int_equal(drive_pread(d, buf, 1, 5), 0);
	assert_int_equal(buf[0], 'x');
	assert_string_equal(drive_format(d), "raw");
	assert_int_equal(drive_eject(d, true, &err), -ENOTSUP);
	drive_free(d);
	loop_unlock(loop);
	assert_int_equal(shell("cmp -n 1048576 a.iso /dev/zero"), 0);
}

static void a_disc_comes_and_goes_with_the_hosts_drive(void **state)
{
	assert_int_equal(shell("truncate -s 1M one.iso; truncate -s 2M two.iso; cp one.iso cd"), 0);
	loop_lock(loop);
	struct drive *d = make(DRIVE_CDROM, NULL, 0, false);
	struct drive_media_ops ops = {.changed = changed};
	drive_set_media_ops(d, &ops);
	changes = 0;
	drive_host_seen(d, "cd", "raw", false, false);
	assert_int_equal(changes, 0);
	drive_host_seen(d, "cd", "raw", true, true);
	assert_int_equal(changes, 1);
	assert_int_equal(drive_size(d), 1 << 20);
	drive_host_seen(d, "cd", "raw", true, false);
	assert_int_equal(changes, 1);
	assert_int_equal(shell("cp two.iso cd"), 0);
	drive_host_seen(d, "cd", "raw", true, true);
	assert_int_equal(changes, 121);
	assert_int_equal(drive_size(d), 2 << 20);
	drive_host_seen(d, "cd", "raw", false, false);
	assert_int_equal(changes, 1212);
	assert_false(drive_inserted(d));
	drive_free(d);
	loop_unlock(loop);
}

struct device_number {
	unsigned major, minor;
};

static bool is_number(void *opaque, unsigned major, unsigned minor)
{
	const struct device_number *n = opaque;
	return n->major == major && n->minor == minor;
}

static void a_mounted_device_is_found(void **state)
{
	static char text[] = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
			     "30 22 0:5 / /dev rw - devtmpfs udev rw\n"
			     "41 22 8:17 / /media/my\\040disk rw,nosuid - vfat /dev/sdb1 rw\n";
	static const struct {
		struct device_number dev;
		const char *where;
	} cases[] = {{{8, 1}, "/"}, {{8, 17}, "/media/my disk"}, {{8, 16}, NULL}};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct device_number dev = cases[i].dev;
		FILE *f = fmemopen(text, strlen(text), "r");
		char *where = host_device_find_mount(f, is_number, &dev);
		fclose(f);
		if (cases[i].where)
			assert_string_equal(where, cases[i].where);
		else
			assert_null(where);
		free(where);
	}
}

/* ---- Completions on the workers, from a thread that holds no lock ---- */

enum { WORKER_REQUESTS = 400, WORKER_DEPTH = 16 };

struct pump {
	struct drive *drive;
	pthread_mutex_t lock;
	pthread_cond_t change;
	unsigned submitted, completed, wrong;
	struct drive_request req[WORKER_DEPTH];
	struct iovec iov[WORKER_DEPTH];
	uint8_t data[WORKER_DEPTH][4096];
};

static void pump_one(struct pump *p, unsigned slot)
{
	struct drive_request *req = &p->req[slot];
	*req = (struct drive_request){.op = p->submitted % 8 == 7 ? DRIVE_FLUSH : DRIVE_WRITE,
				      .offset = (uint64_t)p->submitted % 256 * 4096,
				      .len = 4096,
				      .iov = &p->iov[slot],
				      .iovcnt = 1,
				      .on_worker = true,
				      .done = NULL,
				      .opaque = p};
	p->submitted++;
}

static void pumped(struct drive_request *req, int result)
{
	struct pump *p = req->opaque;
	bool again;
	pthread_mutex_lock(&p->lock);
	p->completed++;
	p->wrong += result != 0 || loop_locked_by_me(loop);
	again = p->submitted < WORKER_REQUESTS;
	if (again) {
		pump_one(p, (unsigned)(req - p->req));
		req->done = pumped;
	}
	pthread_cond_signal(&p->change);
	pthread_mutex_unlock(&p->lock);
	if (again)
		drive_submit(p->drive, req);
}

static void *pump_thread(void *opaque)
{
	struct pump *p = opaque;
	for (unsigned i = 0; i < WORKER_DEPTH; i++) {
		pthread_mutex_lock(&p->lock);
		p->iov[i] = (struct iovec){p->data[i], sizeof(p->data[i])};
		pump_one(p, i);
		p->req[i].done = pumped;
		pthread_mutex_unlock(&p->lock);
		drive_submit(p->drive, &p->req[i]);
	}
	pthread_mutex_lock(&p->lock);
	while (p->completed < WORKER_REQUESTS)
		pthread_cond_wait(&p->change, &p->lock);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static void other_threads_submit_and_hear_without_the_lock(void **state)
{
	static struct pump p = {.lock = PTHREAD_MUTEX_INITIALIZER,
				.change = PTHREAD_COND_INITIALIZER};
	pthread_t t;
	assert_int_equal(shell("truncate -s 1M pump.img"), 0);
	loop_lock(loop);
	p.drive = make(DRIVE_DISK, "pump.img", IMAGE_WRITABLE, false);
	drive_pause(p.drive);
	assert_int_equal(pthread_create(&t, NULL, pump_thread, &p), 0);
	/* Paused, the drive is at rest whatever the other thread does. */
	for (int i = 0; i < 50; i++)
		drive_drain(p.drive);
	pthread_mutex_lock(&p.lock);
	assert_int_equal(p.completed, 0);
	pthread_mutex_unlock(&p.lock);
	drive_resume(p.drive);
	/* The lock stays held: nothing of this needs it. */
	pthread_join(t, NULL);
	assert_int_equal(p.completed, WORKER_REQUESTS);
	assert_int_equal(p.wrong, 0);
	drive_free(p.drive);
	loop_unlock(loop);
}

/* ---- Errors ---- */

static int failing_with;
static unsigned told;
static struct drive_error last_error;

static int fail_writes(void *opaque, enum file_op op, uint64_t offset, uint64_t len,
		       const struct iovec *iov, int iovcnt)
{
	return op == FILE_WRITE ? -__atomic_load_n(&failing_with, __ATOMIC_RELAXED) : 0;
}

static void drive_failed(void *opaque, struct drive *drive, const struct drive_error *error)
{
	assert_true(loop_locked_by_me(loop));
	told++;
	last_error = *error;
}

static void run_one(struct drive *d, struct drive_request *req)
{
	told = done_count = 0;
	drive_submit(d, req);
	drive_drain(d);
}

static void failed_requests_go_where_the_policy_says(void **state)
{
	static const struct {
		enum drive_error_policy policy, action;
		int code;
	} cases[] = {
		{DRIVE_ERROR_DEFAULT, DRIVE_ERROR_STOP, ENOSPC},
		{DRIVE_ERROR_DEFAULT, DRIVE_ERROR_REPORT, EIO},
		{DRIVE_ERROR_ENOSPC, DRIVE_ERROR_STOP, ENOSPC},
		{DRIVE_ERROR_ENOSPC, DRIVE_ERROR_REPORT, EIO},
		{DRIVE_ERROR_STOP, DRIVE_ERROR_STOP, EIO},
		{DRIVE_ERROR_REPORT, DRIVE_ERROR_REPORT, ENOSPC},
		{DRIVE_ERROR_IGNORE, DRIVE_ERROR_IGNORE, EIO},
	};
	const struct file_observer observer = {.op = fail_writes};
	uint8_t data[512], back[512];
	struct iovec iov = {data, sizeof(data)};
	assert_int_equal(shell("truncate -s 1M err.img"), 0);
	loop_lock(loop);
	file_set_observer(&observer);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err = ERROR_INIT;
		struct drive_config c = {.id = "d",
					 .file = "err.img",
					 .format = "raw",
					 .image_flags = IMAGE_WRITABLE,
					 .werror = cases[i].policy};
		struct drive *d = drive_new(loop, &c, &err);
		assert_non_null(d);
		drive_on_error(d, drive_failed, NULL);
		fill(data, sizeof(data));
		struct drive_request req = {
			.op = DRIVE_WRITE, .len = 512, .iov = &iov, .iovcnt = 1, .done = done};
		failing_with = cases[i].code;
		run_one(d, &req);
		assert_int_equal(told, 1);
		assert_int_equal(last_error.op, DRIVE_WRITE);
		assert_int_equal(last_error.code, cases[i].code);
		assert_int_equal(last_error.action, cases[i].action);
		bool held = cases[i].action == DRIVE_ERROR_STOP;
		assert_int_equal(done_count, !held);
		assert_int_equal(drive_held(d), held);
		if (!held) {
			assert_int_equal(last_result, cases[i].action == DRIVE_ERROR_IGNORE
							      ? 0
							      : -cases[i].code);
			drive_free(d);
			continue;
		}
		assert_string_equal(drive_io_status(d),
				    cases[i].code == ENOSPC ? "nospace" : "failed");
		/* Still broken, then mended: nothing is lost. */
		drive_retry(d);
		drive_drain(d);
		assert_int_equal(drive_held(d), 1);
		assert_int_equal(told, 2);
		failing_with = 0;
		drive_retry(d);
		drive_drain(d);
		assert_int_equal(done_count, 1);
		assert_int_equal(last_result, 0);
		assert_string_equal(drive_io_status(d), "ok");
		assert_int_equal(drive_pread(d, back, sizeof(back), 0), 0);
		assert_memory_equal(data, back, sizeof(data));
		/* Given up: the request ends with its error. */
		failing_with = cases[i].code;
		run_one(d, &req);
		drive_fail_held(d);
		assert_int_equal(done_count, 1);
		assert_int_equal(last_result, -cases[i].code);
		drive_free(d);
	}
	file_set_observer(NULL);
	loop_unlock(loop);
}

/* ---- Limits ---- */

static void throttled_requests_wait_until_they_may_or_must_go(void **state)
{
	struct error err = ERROR_INIT;
	/* At a byte a second 4096 of them fill the bucket for more than an hour. */
	struct throttle_limits limits = {.bucket[THROTTLE_BPS_WRITE] = {.avg = 1}};
	static uint8_t data[4096];
	struct iovec iov = {data, sizeof(data)};
	assert_int_equal(shell("truncate -s 1M slow.img other.img"), 0);
	loop_lock(loop);
	struct drive_config c = {.id = "slow",
				 .file = "slow.img",
				 .format = "raw",
				 .image_flags = IMAGE_WRITABLE,
				 .limits = &limits,
				 .throttle_group = "both"},
			    other = c;
	other.id = "other";
	other.file = "other.img";
	other.limits = NULL;
	struct drive *d = drive_new(loop, &c, &err), *shared = drive_new(loop, &other, &err);
	assert_non_null(d);
	assert_non_null(shared);
	struct drive_request req[4];
	done_count = 0;
	for (int i = 0; i < 4; i++) {
		req[i] = (struct drive_request){.op = i == 3 ? DRIVE_READ : DRIVE_WRITE,
						.len = 4096,
						.iov = &iov,
						.iovcnt = 1,
						.done = done};
		drive_submit(i == 2 ? shared : d, &req[i]);
	}
	loop_unlock(loop);
	while (done_count < 2)
		loop_run_once(loop, -1);
	for (int i = 0; i < 20; i++)
		loop_run_once(loop, 0);
	assert_int_equal(done_count, 2); /* the first write, and the read, which has no limit */
	loop_lock(loop);
	struct throttle_limits now;
	drive_get_limits(shared, &now);
	assert_int_equal(now.bucket[THROTTLE_BPS_WRITE].avg, 1);
	drive_drain(d); /* lets its own go */
	assert_int_equal(done_count, 3);
	/* Without limits the rest goes too. */
	assert_int_equal(drive_set_limits(shared, &(struct throttle_limits){0}, NULL, &err), 0);
	drive_drain(shared);
	assert_int_equal(done_count, 4);
	assert_null(drive_throttle_group(shared));
	assert_string_equal(drive_throttle_group(d), "both");
	limits.bucket[THROTTLE_BPS_TOTAL].avg = 5;
	assert_int_equal(drive_set_limits(d, &limits, NULL, &err), -EINVAL);
	drive_free(d);
	drive_free(shared);
	loop_unlock(loop);
}

/* ---- By threads and by io_uring, with and without O_DIRECT ---- */

static void transfers_are_whole_by_every_way(void **state)
{
	enum { N = 64, MAX = 20000, FILE_SIZE = 1 << 20 };
	static uint8_t disk[FILE_SIZE], buf[N][MAX] __attribute__((aligned(4096)));
	static struct drive_request req[N];
	struct iovec iov[N][3];
	for (int way = 0; way < 4; way++) {
		struct error err = ERROR_INIT;
		unsigned flags = IMAGE_WRITABLE | (way & 1 ? IMAGE_DIRECT : 0);
		struct drive_config c = {.id = "d",
					 .file = "way.img",
					 .format = "raw",
					 .image_flags = flags,
					 .aio = way & 2 ? DRIVE_AIO_URING : DRIVE_AIO_THREADS};
		/* An odd end: the last sector is there in part only. */
		assert_int_equal(shell("rm -f way.img; truncate -s %d way.img", FILE_SIZE - 100),
				 0);
		memset(disk, 0, sizeof(disk));
		loop_lock(loop);
		struct drive *d = drive_new(loop, &c, &err);
		if (!d) {
			printf("SKIPPED way %d: %s\n", way, err.text);
			loop_unlock(loop);
			continue;
		}
		for (int round = 0; round < 40; round++) {
			bool write = round % 3 != 2;
			uint64_t slot = FILE_SIZE / N;
			for (int i = 0; i < N; i++) {
				/* Each in its own 16 KiB; some aligned, some not, some in pieces. */
				uint64_t unit = rnd() % 2 ? 4096 : 512;
				uint64_t at = rnd() % (slot / unit) * unit;
				uint64_t len = (rnd() % ((slot - at) / unit) + 1) * unit;
				size_t cut = len / 2 & ~511u;
				uint64_t offset = (uint64_t)i * slot + at;
				if (write) {
					fill(buf[i], len);
					memcpy(disk + offset, buf[i], len);
				}
				iov[i][0] = (struct iovec){buf[i], cut};
				iov[i][1] = (struct iovec){buf[i] + cut, len - cut};
				req[i] = (struct drive_request){.op = write ? DRIVE_WRITE
									    : DRIVE_READ,
								.offset = offset,
								.len = len,
								.iov = iov[i],
								.iovcnt = 2,
								.fua = rnd() % 50 == 0,
								.done = done};
				last_result = 0;
				drive_submit(d, &req[i]);
			}
			drive_drain(d);
			assert_int_equal(last_result, 0);
			for (int i = 0; i < N && !write; i++)
				assert_memory_equal(buf[i], disk + req[i].offset, req[i].len);
		}
		for (int i = 0; i < N; i++) {
			assert_int_equal(drive_pread(d, buf[i], 16384, (uint64_t)i * 16384), 0);
			assert_memory_equal(buf[i], disk + i * 16384, 16384);
		}
		drive_free(d);
		loop_unlock(loop);
	}
}

static int setup(void **state)
{
	loop = loop_new(NULL);
	return loop ? enter_scratch(state) : -1;
}

static int teardown(void **state)
{
	loop_free(loop);
	return leave_scratch(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_run_and_complete_in_the_loop),
		cmocka_unit_test(media_change_as_the_guest_allows),
		cmocka_unit_test(a_disc_comes_and_goes_with_the_hosts_drive),
		cmocka_unit_test(a_mounted_device_is_found),
		cmocka_unit_test(other_threads_submit_and_hear_without_the_lock),
		cmocka_unit_test(transfers_are_whole_by_every_way),
		cmocka_unit_test(failed_requests_go_where_the_policy_says),
		cmocka_unit_test(throttled_requests_wait_until_they_may_or_must_go),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
