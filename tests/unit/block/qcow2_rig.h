/* SPDX-License-Identifier: MIT */
/* What the qcow2 tests share: images made, checked and compared with a disk in memory. */
#ifndef TESTS_BLOCK_QCOW2_RIG_H
#define TESTS_BLOCK_QCOW2_RIG_H

#include "block/image.h"
#include "block/qcow2.h"
#include "tests/unit/block/tools.h"
#include <fcntl.h>
#include <setjmp.h>

#include <cmocka.h>

enum { SIZE = 6 * 1024 * 1024 + 512 * 3, BASE_SIZE = 4 * 1024 * 1024 + 512 };

static inline void make(const char *path, uint64_t size, const char *options)
{
	struct opts o;
	struct error err = ERROR_INIT;
	assert_int_equal(opts_parse(&o, options, NULL, &err), 0);
	if (image_create(path, "qcow2", size, &o, &err))
		fail_msg("%s", err.text);
	opts_free(&o);
}

static inline struct image *open_or_fail(const char *path, unsigned flags)
{
	struct error err = ERROR_INIT;
	struct image *img = image_open(path, "qcow2", flags, NULL, &err);
	if (!img)
		fail_msg("%s", err.text);
	return img;
}

static inline void assert_sound(const char *path)
{
	struct error err = ERROR_INIT;
	struct image_check r;
	struct image *img = open_or_fail(path, IMAGE_CHECK | IMAGE_NO_BACKING);
	if (image_run_check(img, 0, &r, &err))
		fail_msg("%s", err.text);
	image_close(img);
	if (r.corruptions || r.leaks || r.check_errors)
		fail_msg("'%s': %lu corruptions, %lu leaks, %lu errors", path,
			 (unsigned long)r.corruptions, (unsigned long)r.leaks,
			 (unsigned long)r.check_errors);
	if (have_qemu())
		assert_int_equal(shell("qemu-img check -q '%s'", path), 0);
}

/* The disk must read as the model. */
static inline void assert_same(struct image *img, const uint8_t *model, size_t size)
{
	uint8_t *buf = malloc(size);
	assert_int_equal(image_size(img), size);
	assert_int_equal(image_pread(img, buf, size, 0), 0);
	for (size_t i = 0; i < size; i++)
		if (buf[i] != model[i])
			fail_msg("byte %zu is %02x, not %02x", i, buf[i], model[i]);
	free(buf);
}

static inline void random_write(struct image *img, uint8_t *model, size_t size)
{
	uint64_t at = rnd_below(size), len = 1 + rnd_below(300000);
	if (rnd() % 2) {
		at &= ~UINT64_C(511);
		len = (len + 511) & ~UINT64_C(511);
	}
	if (len > size - at)
		len = size - at;
	fill(model + at, len);
	/* in up to three pieces */
	uint64_t a = rnd() % (len + 1), b = a + rnd() % (len - a + 1);
	struct iovec iov[3] = {{model + at, a}, {model + at + a, b - a}, {model + at + b, len - b}};
	assert_int_equal(image_pwritev(img, iov, 3, at), 0);
}

/* The noise of checks and warnings on images that were damaged on purpose is of no interest. */
static inline int mute(void)
{
	int keep = dup(2), null = open("/dev/null", O_WRONLY);
	dup2(null, 2);
	close(null);
	return keep;
}

static inline void unmute(int keep)
{
	dup2(keep, 2);
	close(keep);
}

#endif
