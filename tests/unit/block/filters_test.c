/* SPDX-License-Identifier: MIT */
/* Copy-on-read and detect-zeroes, alone and under concurrent writers. */
#include "block/image.h"
#include "lib/bytes.h"
#include "tests/unit/block/tools.h"
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>

#include <cmocka.h>

enum { SIZE = 4 * 1024 * 1024, CLUSTER = 65536 };

static struct image *must_open(const char *path, unsigned flags)
{
	struct error err = ERROR_INIT;
	struct image *img = image_open(path, NULL, flags, NULL, &err);
	if (!img)
		fail_msg("%s", err.text);
	return img;
}

/* An overlay on a base full of 'b' whose second half is a hole. */
static void make_chain(const char *extra)
{
	assert_int_equal(shell("head -c 2097152 /dev/zero | tr '\\0' b >base.img && truncate -s 4M "
			       "base.img"),
			 0);
	struct opts opts = {0};
	opts_set(&opts, "backing_file", "base.img");
	opts_set(&opts, "backing_fmt", "raw");
	if (extra)
		opts_set(&opts, extra, "on");
	struct error err = ERROR_INIT;
	if (image_create("top.qcow2", "qcow2", SIZE, &opts, &err))
		fail_msg("%s", err.text);
	opts_free(&opts);
}

static bool held(struct image *img, uint64_t offset)
{
	uint64_t count;
	return image_block_status(img, offset, 512, &count, NULL) & BLOCK_ALLOCATED;
}

static void what_was_read_stays_in_the_overlay(void **state)
{
	static const char *const options[] = {NULL, "extended_l2"};
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		uint8_t buf[1000];
		make_chain(options[i]);
		struct image *img = must_open("top.qcow2", IMAGE_WRITABLE | IMAGE_COPY_ON_READ);
		assert_false(held(img, 3 * CLUSTER));
		assert_int_equal(image_pread(img, buf, sizeof(buf), 3 * CLUSTER + 12345), 0);
		assert_int_equal(buf[0], 'b');
		assert_int_equal(buf[999], 'b');
		/* Whole clusters, and no others. */
		assert_true(held(img, 3 * CLUSTER));
		assert_true(held(img, 4 * CLUSTER - 512));
		assert_false(held(img, 2 * CLUSTER));
		assert_false(held(img, 4 * CLUSTER));
		/* Holes are not worth a cluster. */
		uint64_t count;
		assert_int_equal(image_pread(img, buf, sizeof(buf), SIZE - 1000), 0);
		int status = image_block_status(img, SIZE - 512, 512, &count, NULL);
		assert_int_equal(status & BLOCK_DATA, 0);
		image_close(img);
		img = must_open("top.qcow2", IMAGE_NO_BACKING);
		assert_int_equal(image_pread(img, buf, sizeof(buf), 3 * CLUSTER), 0);
		assert_int_equal(buf[500], 'b');
		image_close(img);
	}
}

static void copy_on_read_needs_a_writable_image(void **state)
{
	struct error err = ERROR_INIT;
	make_chain(NULL);
	assert_null(image_open("top.qcow2", NULL, IMAGE_COPY_ON_READ, NULL, &err));
	assert_non_null(strstr(err.text, "copy-on-read"));
}

/* Writers own a 512-byte sector in 8 each; readers meanwhile copy the clusters around them. */
enum { THREADS = 4, ROUNDS = 2000 };

static struct image *shared;

static void *writer(void *arg)
{
	uintptr_t id = (uintptr_t)arg;
	uint8_t data[512], back[512];
	uint64_t state = 12345 + id;
	uintptr_t bad = 0;
	for (int i = 0; i < ROUNDS; i++) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		uint64_t at = ((state >> 33) % (SIZE / 4096)) * 4096 + id * 512;
		memset(data, (int)(state >> 56), sizeof(data));
		bad += image_pwrite(shared, data, sizeof(data), at) != 0;
		bad += image_pread(shared, back, sizeof(back), at) != 0;
		bad += memcmp(data, back, sizeof(data)) != 0;
	}
	return (void *)bad;
}

static void *reader(void *arg)
{
	uint8_t buf[8192];
	uint64_t state = (uintptr_t)arg;
	uintptr_t bad = 0;
	for (int i = 0; i < ROUNDS; i++) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		uint64_t at = (state >> 33) % (SIZE - sizeof(buf));
		bad += image_pread(shared, buf, sizeof(buf), at) != 0;
	}
	return (void *)bad;
}

static void copies_undo_no_write(void **state)
{
	pthread_t t[2 * THREADS];
	void *bad;
	make_chain(NULL);
	shared = must_open("top.qcow2", IMAGE_WRITABLE | IMAGE_COPY_ON_READ);
	for (uintptr_t i = 0; i < 2 * THREADS; i++)
		assert_int_equal(
			pthread_create(&t[i], NULL, i < THREADS ? writer : reader, (void *)i), 0);
	for (int i = 0; i < 2 * THREADS; i++) {
		pthread_join(t[i], &bad);
		assert_null(bad);
	}
	/* Sector 7 of each block belongs to nobody. */
	uint8_t buf[512];
	for (uint64_t at = 7 * 512; at < SIZE; at += 4096) {
		assert_int_equal(image_pread(shared, buf, sizeof(buf), at), 0);
		assert_int_equal(buf[0], at < SIZE / 2 ? 'b' : 0);
	}
	struct image_check check;
	struct error err = ERROR_INIT;
	assert_int_equal(image_run_check(shared, 0, &check, &err), 0);
	assert_int_equal(check.corruptions + check.leaks, 0);
	image_close(shared);
}

static void written_zeroes_are_detected(void **state)
{
	static uint8_t zeroes[2 * CLUSTER];
	static const struct {
		unsigned flags;
		int status; /* of what was data and is overwritten with zeroes */
	} cases[] = {
		{0, BLOCK_ALLOCATED | BLOCK_DATA | BLOCK_OFFSET_VALID},
		/* Kept allocated, so that the next write needs no new cluster. */
		{IMAGE_DETECT_ZEROES | IMAGE_DISCARD,
		 BLOCK_ALLOCATED | BLOCK_ZERO | BLOCK_OFFSET_VALID},
		{IMAGE_DETECT_UNMAP | IMAGE_DISCARD, BLOCK_ALLOCATED | BLOCK_ZERO},
		{IMAGE_DETECT_UNMAP, BLOCK_ALLOCATED | BLOCK_ZERO | BLOCK_OFFSET_VALID},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t count;
		uint8_t data[512];
		make_chain(NULL);
		struct image *img = must_open("top.qcow2", IMAGE_WRITABLE | cases[i].flags);
		memset(data, 1, sizeof(data));
		assert_int_equal(image_pwrite(img, data, sizeof(data), 0), 0);
		struct iovec iov[2] = {{zeroes, 1000}, {zeroes, CLUSTER - 1000}};
		assert_int_equal(image_pwritev(img, iov, 2, 0), 0);
		assert_int_equal(image_block_status(img, 0, 512, &count, NULL), cases[i].status);
		/* One byte is enough to make it data. */
		zeroes[sizeof(zeroes) - 1] = 1;
		assert_int_equal(image_pwrite(img, zeroes, sizeof(zeroes), CLUSTER), 0);
		zeroes[sizeof(zeroes) - 1] = 0;
		assert_int_equal(image_block_status(img, 2 * CLUSTER, 512, &count, NULL) &
					 (BLOCK_DATA | BLOCK_ZERO),
				 BLOCK_DATA);
		image_close(img);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_read_stays_in_the_overlay),
		cmocka_unit_test(copy_on_read_needs_a_writable_image),
		cmocka_unit_test(copies_undo_no_write),
		cmocka_unit_test(written_zeroes_are_detected),
	};
	return cmocka_run_group_tests(tests, enter_scratch, leave_scratch);
}
