/* SPDX-License-Identifier: MIT */
/*
 * A qcow2 image against a disk in memory, under everything that is done to images, at the same time:
 *
 *   threads        write, zero, discard, read and flush, each in sectors of its own that lie mixed
 *                  with those of the others, so that they meet in every cluster;
 *   meanwhile      snapshots are made and deleted, the disk grows, its status is walked through;
 *   in between     everything is compared; snapshots are applied, the disk shrinks and grows, an
 *                  overlay is committed into its base, the image is closed, checked and opened again.
 *
 * What the threads do follows from MINIVM_TEST_SEED; how they meet does not.
 */
#include "block/image.h"
#include "lib/bytes.h"
#include "tests/unit/block/tools.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>

#include <cmocka.h>

enum {
	SECTOR = 512,
	START = 2 << 20, /* bytes of the disk when it is made */
	LIMIT = 6 << 20, /* and at most */
	FIXED = 1 << 20, /* the threads stay below; it is never smaller */
	THREADS = 4,
	THREAD_OPS = 300,
	PHASES = 4,
	RUN = 16, /* sectors that belong to one thread together, in the upper half */
};

static struct image *img;
static uint8_t *model; /* LIMIT bytes; behind the disk's end zeroes */
static uint8_t *kept;  /* what the snapshot "kept" holds */
static uint64_t kept_size;

static struct image *open_or_fail(void)
{
	struct error err = ERROR_INIT;
	struct image *i = image_open("t.qcow2", "qcow2",
				     IMAGE_WRITABLE | IMAGE_NO_FLUSH | IMAGE_DISCARD, NULL, &err);
	if (!i)
		fail_msg("%s", err.text);
	return i;
}

static void make(const char *path, uint64_t size, const char *options)
{
	struct opts o;
	struct error err = ERROR_INIT;
	unlink(path);
	assert_int_equal(opts_parse(&o, options, NULL, &err), 0);
	if (image_create(path, "qcow2", size, &o, &err))
		fail_msg("%s", err.text);
	opts_free(&o);
}

/* ---- Threads ---- */

/* A piece of thread `me`: a single sector in the lower half, up to RUN of them in the upper one. */
static void own_piece(uint64_t *s, unsigned me, uint64_t *at, size_t *len)
{
	*s = *s * 6364136223846793005u + 1442695040888963407u;
	uint64_t r = *s >> 20;
	if (r % 2) {
		*at = (r / 2 % (FIXED / 2 / SECTOR / THREADS) * THREADS + me) * SECTOR;
		*len = SECTOR;
		return;
	}
	uint64_t run = r / 2 % (FIXED / 2 / SECTOR / RUN / THREADS) * THREADS + me;
	uint64_t first = (r >> 17) % RUN, count = 1 + (r >> 23) % (RUN - first);
	*at = FIXED / 2 + (run * RUN + first) * SECTOR;
	*len = count * SECTOR;
}

static void *thread(void *arg)
{
	uint64_t s = (uintptr_t)arg;
	unsigned me = s % THREADS;
	uint8_t buf[RUN * SECTOR];
	for (int i = 0; i < THREAD_OPS; i++) {
		uint64_t at;
		size_t len;
		int rc = 0;
		own_piece(&s, me, &at, &len);
		switch (s >> 59) {
		case 0:
		case 1:
		case 2:
			rc = image_write_zeroes(img, at, len, s >> 50 & 1);
			memset(model + at, 0, len);
			break;
		case 3:
		case 4:
		case 5:
			rc = image_discard(img, at, len);
			if (!rc)
				rc = image_pread(img, buf, len, at);
			/* It may do nothing; what it took reads as zeroes. */
			for (size_t k = 0; k < len && !rc; k++)
				if (buf[k] && buf[k] != model[at + k])
					return "a discard changed data";
			memcpy(model + at, buf, len);
			break;
		case 6: rc = image_flush(img); break;
		default:
			if (s >> 57 & 1) {
				rc = image_pread(img, buf, len, at);
				if (!rc && memcmp(buf, model + at, len))
					return "a read shows other data";
				break;
			}
			memset(model + at, (int)(s >> 40), len);
			model[at] = (uint8_t)i;
			rc = image_pwrite(img, model + at, len, at);
		}
		if (rc)
			return "a request failed";
	}
	return NULL;
}

/* ---- Meanwhile ---- */

/* 0, or what images of this shape refuse by their nature (-ENOTSUP). */
static void may_refuse(int rc, const struct error *err)
{
	if (rc && rc != -ENOTSUP)
		fail_msg("%s", err->text);
}

static void meddle(void)
{
	struct error err = ERROR_INIT;
	uint64_t size = image_size(img), count;
	switch (rnd() % 4) {
	case 0: {
		int rc = img->driver->snapshot_create(img, "passing", &err);
		may_refuse(rc, &err);
		assert_int_equal(image_flush(img), 0);
		if (!rc)
			assert_int_equal(img->driver->snapshot_delete(img, "passing", &err), 0);
		break;
	}
	case 1:
		if (size < LIMIT - 64 * SECTOR)
			may_refuse(image_truncate(img, size + (1 + rnd() % 64) * SECTOR, &err),
				   &err);
		break;
	case 2:
		for (uint64_t at = 0; at < size; at += count)
			assert_true(image_block_status(img, at, size - at, &count, NULL) >= 0 &&
				    count > 0);
		break;
	default: assert_int_equal(image_flush(img), 0); break;
	}
}

static void together(void)
{
	pthread_t t[THREADS];
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, thread,
						(void *)((uintptr_t)rnd() / THREADS * THREADS + i)),
				 0);
	for (int i = 0; i < 6; i++)
		meddle();
	for (int i = 0; i < THREADS; i++) {
		void *what;
		pthread_join(t[i], &what);
		if (what)
			fail_msg("%s", (char *)what);
	}
}

/* ---- In between ---- */

static void compare(void)
{
	static uint8_t buf[LIMIT];
	uint64_t size = image_size(img);
	assert_true(size <= LIMIT);
	assert_int_equal(image_pread(img, buf, size, 0), 0);
	for (uint64_t i = 0; i < size; i++)
		if (buf[i] != model[i])
			fail_msg("byte %lu is %02x, not %02x", (unsigned long)i, buf[i], model[i]);
}

static void check_file(const char *path)
{
	struct error err = ERROR_INIT;
	struct image_check r;
	struct image *i = image_open(path, "qcow2", IMAGE_CHECK | IMAGE_NO_BACKING, NULL, &err);
	if (!i || image_run_check(i, 0, &r, &err))
		fail_msg("%s", err.text);
	image_close(i);
	if (r.corruptions || r.leaks || r.check_errors)
		fail_msg("'%s': %lu corruptions, %lu leaks", path, (unsigned long)r.corruptions,
			 (unsigned long)r.leaks);
}

static void resize(void)
{
	struct error err = ERROR_INIT;
	uint64_t size = FIXED + rnd() % ((LIMIT - FIXED) / SECTOR) * SECTOR;
	int rc = image_truncate(img, size, &err);
	may_refuse(rc, &err);
	if (!rc)
		memset(model + size, 0, LIMIT - size);
}

static void snapshot(void)
{
	struct error err = ERROR_INIT;
	if (!kept_size) {
		int rc = img->driver->snapshot_create(img, "kept", &err);
		may_refuse(rc, &err);
		if (rc)
			return;
		memcpy(kept, model, LIMIT);
		kept_size = image_size(img);
		return;
	}
	if (rnd() % 2) {
		int rc = img->driver->snapshot_apply(img, "kept", &err);
		if (rc)
			fail_msg("%s", err.text);
		assert_int_equal(image_size(img), kept_size);
		memcpy(model, kept, LIMIT);
		compare();
	}
	if (img->driver->snapshot_delete(img, "kept", &err))
		fail_msg("%s", err.text);
	kept_size = 0;
}

/* What the overlay holds goes into its base, and the overlay is emptied. */
static void commit(void)
{
	struct error err = ERROR_INIT;
	struct image *base;
	static uint8_t buf[LIMIT];
	uint64_t count;
	image_close(img);
	unsigned flags = IMAGE_NO_FLUSH | IMAGE_DISCARD;
	img = image_open("t.qcow2", "qcow2", flags | IMAGE_WRITABLE | IMAGE_NO_BACKING, NULL, &err);
	if (!img || image_open_commit(img, flags, NULL, &base, &err))
		fail_msg("%s", err.text);
	uint64_t size = image_size(img);
	if (image_size(base) < size)
		assert_int_equal(image_truncate(base, size, &err), 0);
	for (uint64_t at = 0; at < size; at += count) {
		int status = image_chain_status(img, base, at, size - at, &count, NULL, NULL, NULL);
		assert_true(status >= 0 && count > 0);
		if (!(status & (BLOCK_ZERO | BLOCK_DATA)))
			continue;
		assert_int_equal(image_pread(img, buf, count, at), 0);
		assert_int_equal(image_pwrite(base, buf, count, at), 0);
	}
	if (img->driver->make_empty(img, &err))
		fail_msg("%s", err.text);
	compare();
	image_close(img);
	check_file("base.qcow2");
	img = open_or_fail();
}

static const char *const shapes[] = {
	"",
	"cluster_size=512",
	"cluster_size=4k,refcount_bits=2",
	"cluster_size=2M",
	"compat=0.10,cluster_size=8k",
	"refcount_bits=64,lazy_refcounts=on,cluster_size=1k",
	"preallocation=metadata,cluster_size=16k",
	"extended_l2=on",
	"extended_l2=on,cluster_size=16k",
	"data_file=t.data,cluster_size=4k",
	"data_file=t.data,data_file_raw=on",
};

static void stress(const char *shape, bool backed)
{
	char options[256];
	snprintf(options, sizeof(options), "%s%s%s", shape, backed && *shape ? "," : "",
		 backed ? "backing_file=base.qcow2,backing_fmt=qcow2" : "");
	memset(model, 0, LIMIT);
	kept_size = 0;
	if (backed) {
		make("base.qcow2", START, "cluster_size=4k");
		struct error err = ERROR_INIT;
		struct image *base = image_open("base.qcow2", "qcow2",
						IMAGE_WRITABLE | IMAGE_NO_FLUSH, NULL, &err);
		assert_non_null(base);
		fill(model, START / 2);
		assert_int_equal(image_pwrite(base, model, START / 2, 0), 0);
		image_close(base);
	}
	make("t.qcow2", START, options);
	img = open_or_fail();
	for (int phase = 0; phase < PHASES; phase++) {
		together();
		compare();
		snapshot();
		resize();
		compare();
		if (backed && !kept_size && rnd() % 2)
			commit();
		image_close(img);
		check_file("t.qcow2");
		img = open_or_fail();
		compare();
	}
	image_close(img);
}

static void all_at_once_matches_a_disk_in_memory(void **state)
{
	model = calloc(1, LIMIT);
	kept = calloc(1, LIMIT);
	for (size_t s = 0; s < ARRAY_SIZE(shapes); s++) {
		bool raw = strstr(shapes[s], "raw=on"), full = strstr(shapes[s], "prealloc");
		stress(shapes[s], false);
		if (!raw && !full)
			stress(shapes[s], true);
	}
	free(model);
	free(kept);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_at_once_matches_a_disk_in_memory),
	};
	return cmocka_run_group_tests(tests, enter_scratch, leave_scratch);
}
