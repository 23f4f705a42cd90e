/* SPDX-License-Identifier: MIT */
/* Drives: requests through the workers and the loop, draining, media. */
#include "block/drive.h"
#include "lib/bytes.h"
#include "tests/unit/block/tools.h"
#include <errno.h>
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
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
