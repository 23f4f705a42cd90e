/* SPDX-License-Identifier: MIT */
/*
 * The qcow2 driver against a disk in memory: random operations on images of many shapes, each
 * followed by a check of the file (ours, and qemu-img's where it is installed).
 */
#include "block/image.h"
#include "block/qcow2.h"
#include "tests/unit/block/tools.h"
#include <fcntl.h>
#include <setjmp.h>
#include <sys/resource.h>
#include <time.h>

#include <cmocka.h>

enum { SIZE = 6 * 1024 * 1024 + 512 * 3, BASE_SIZE = 4 * 1024 * 1024 + 512 };

static void make(const char *path, uint64_t size, const char *options)
{
	struct opts o;
	struct error err = ERROR_INIT;
	assert_int_equal(opts_parse(&o, options, NULL, &err), 0);
	if (image_create(path, "qcow2", size, &o, &err))
		fail_msg("%s", err.text);
	opts_free(&o);
}

static struct image *open_or_fail(const char *path, unsigned flags)
{
	struct error err = ERROR_INIT;
	struct image *img = image_open(path, "qcow2", flags, NULL, &err);
	if (!img)
		fail_msg("%s", err.text);
	return img;
}

static void assert_sound(const char *path)
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
static void assert_same(struct image *img, const uint8_t *model, size_t size)
{
	uint8_t *buf = malloc(size);
	assert_int_equal(image_size(img), size);
	assert_int_equal(image_pread(img, buf, size, 0), 0);
	for (size_t i = 0; i < size; i++)
		if (buf[i] != model[i])
			fail_msg("byte %zu is %02x, not %02x", i, buf[i], model[i]);
	free(buf);
}

static void random_write(struct image *img, uint8_t *model, size_t size)
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

static void random_steps(struct image *img, uint8_t *model, size_t size, int steps)
{
	static uint8_t buf[400000];
	for (int i = 0; i < steps; i++) {
		uint64_t at = rnd_below(size), len = 1 + rnd_below(400000);
		if (len > size - at)
			len = size - at;
		switch (rnd() % 12) {
		case 0:
		case 1:
			assert_int_equal(image_write_zeroes(img, at, len, rnd() % 2), 0);
			memset(model + at, 0, len);
			break;
		case 2: {
			/* A discard may do nothing; where it did something it reads as zeroes. */
			assert_int_equal(image_discard(img, at, len), 0);
			assert_int_equal(image_pread(img, buf, len, at), 0);
			for (uint64_t k = 0; k < len; k++)
				assert_true(buf[k] == 0 || buf[k] == model[at + k]);
			memcpy(model + at, buf, len);
			break;
		}
		case 3: assert_int_equal(image_flush(img), 0); break;
		case 4:
		case 5:
		case 6:
			assert_int_equal(image_pread(img, buf, len, at), 0);
			assert_memory_equal(buf, model + at, len);
			break;
		default: random_write(img, model, size); break;
		}
	}
}

static const char *const shapes[] = {
	"",
	"cluster_size=512",
	"cluster_size=512,refcount_bits=64",
	"cluster_size=4k,refcount_bits=1",
	"cluster_size=2M",
	"compat=0.10",
	"compat=0.10,cluster_size=1k",
	"refcount_bits=8,cluster_size=8k",
	"refcount_bits=2,cluster_size=1k,lazy_refcounts=on",
	"preallocation=metadata,cluster_size=16k",
	"preallocation=full,cluster_size=64k,refcount_bits=32",
	"extended_l2=on",
	"extended_l2=on,cluster_size=16k",
	"extended_l2=on,cluster_size=2M,preallocation=metadata",
	"data_file=t.data",
	"data_file=t.data,cluster_size=512",
	"data_file=t.data,data_file_raw=on,cluster_size=4k",
	"data_file=t.data,extended_l2=on,cluster_size=32k",
};

static void random_operations_match_a_disk_in_memory(void **state)
{
	uint8_t *model = calloc(1, SIZE), *base_model = calloc(1, SIZE);
	make("base.qcow2", BASE_SIZE, "cluster_size=4k");
	struct image *img = open_or_fail("base.qcow2", IMAGE_WRITABLE);
	for (int i = 0; i < 40; i++)
		random_write(img, base_model, BASE_SIZE);
	image_close(img);
	for (size_t s = 0; s < ARRAY_SIZE(shapes) * 2; s++) {
		char options[256];
		bool backed = s >= ARRAY_SIZE(shapes);
		const char *shape = shapes[s % ARRAY_SIZE(shapes)];
		if (backed && (strstr(shape, "preallocation=full") || strstr(shape, "raw=on") ||
			       (strstr(shape, "prealloc") && !strstr(shape, "extended"))))
			continue;
		snprintf(options, sizeof(options), "%s%s%s", shape, backed && *shape ? "," : "",
			 backed ? "backing_file=base.qcow2,backing_fmt=qcow2" : "");
		unlink("t.qcow2");
		make("t.qcow2", SIZE, options);
		if (backed)
			memcpy(model, base_model, SIZE);
		else
			memset(model, 0, SIZE);
		for (int round = 0; round < 3; round++) {
			img = open_or_fail("t.qcow2", IMAGE_WRITABLE | IMAGE_NO_FLUSH |
							      (round ? IMAGE_DISCARD : 0));
			random_steps(img, model, SIZE, 120);
			assert_same(img, model, SIZE);
			image_close(img);
			img = open_or_fail("t.qcow2", 0);
			assert_same(img, model, SIZE);
			image_close(img);
			assert_sound("t.qcow2");
		}
		if (strstr(shape, "raw=on")) { /* the data file is the disk */
			struct error err = ERROR_INIT;
			img = image_open("t.data", "raw", 0, NULL, &err);
			assert_non_null(img);
			assert_same(img, model, SIZE);
			image_close(img);
		}
	}
	/* the base is what it was */
	img = open_or_fail("base.qcow2", 0);
	assert_same(img, base_model, BASE_SIZE);
	image_close(img);
	free(model);
	free(base_model);
}

/* The noise of checks and warnings on images that were damaged on purpose is of no interest. */
static int mute(void)
{
	int keep = dup(2), null = open("/dev/null", O_WRONLY);
	dup2(null, 2);
	close(null);
	return keep;
}

static void unmute(int keep)
{
	dup2(keep, 2);
	close(keep);
}

/* Tables are thrown out and read back all the time. */
static void small_caches_lose_nothing(void **state)
{
	static const char *const kinds[] = {"cluster_size=512", "cluster_size=512,refcount_bits=64",
					    "cluster_size=16k,extended_l2=on"};
	uint8_t *model = calloc(1, SIZE);
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		struct error err = ERROR_INIT;
		struct opts o;
		unlink("k.qcow2");
		make("k.qcow2", SIZE, kinds[k]);
		memset(model, 0, SIZE);
		opts_parse(&o, "l2-cache-size=1k,refcount-cache-size=1k", NULL, NULL);
		struct image *img =
			image_open("k.qcow2", "qcow2",
				   IMAGE_WRITABLE | IMAGE_NO_FLUSH | IMAGE_DISCARD, &o, &err);
		if (!img)
			fail_msg("%s", err.text);
		assert_int_equal(opts_check_unused(&o, "test", NULL, &err), 0);
		struct qcow2 *q = img->state;
		for (int i = 0; i < 20; i++) {
			random_steps(img, model, SIZE, 15);
			assert_true(q->l2_cache.count <= q->l2_cache.max);
			assert_true(q->rb_cache.count <= q->rb_cache.max);
		}
		assert_true(q->l2_cache.max <= 8 && q->rb_cache.max <= 8);
		assert_same(img, model, SIZE);
		image_close(img);
		opts_free(&o);
		assert_sound("k.qcow2");
	}
	struct opts o;
	struct error err = ERROR_INIT;
	opts_parse(&o, "cache-size=1M,l2-cache-size=2M", NULL, NULL);
	assert_null(image_open("k.qcow2", "qcow2", 0, &o, &err));
	assert_non_null(strstr(err.text, "cache-size"));
	opts_free(&o);
	free(model);
}

/* Millions of L1 entries that lead to one L2 table, and thousands of snapshots with one L1 table:
 * it is found out, quickly. */
static void a_table_that_is_entered_a_million_times_is_read_once(void **state)
{
	struct error err = ERROR_INIT;
	struct image_check r;
	uint8_t head[H_FULL_LENGTH], entry[8];
	make("e.qcow2", UINT64_C(32) << 30, "cluster_size=512");
	struct image *img = open_or_fail("e.qcow2", IMAGE_WRITABLE);
	assert_int_equal(image_pwrite(img, "x", 1, 0), 0);
	image_close(img);
	int fd = open("e.qcow2", O_RDWR);
	assert_int_equal(pread_full(fd, head, sizeof(head), 0), 0);
	uint32_t entries = load_be32(head + H_L1_SIZE);
	uint64_t l1 = load_be64(head + H_L1_OFFSET);
	assert_int_equal(pread_full(fd, entry, 8, l1), 0);
	uint8_t *table = malloc((size_t)entries * 8);
	for (uint32_t i = 0; i < entries; i++)
		memcpy(table + (size_t)i * 8, entry, 8);
	assert_int_equal(pwrite_full(fd, table, (size_t)entries * 8, l1), 0);
	free(table);
	close(fd);
	assert_true(entries > 1000000);
	struct timespec a, b;
	int keep = mute();
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
	img = open_or_fail("e.qcow2", IMAGE_CHECK | IMAGE_NO_BACKING);
	assert_int_equal(image_run_check(img, 0, &r, &err), 0);
	image_close(img);
	img = open_or_fail("e.qcow2", IMAGE_WRITABLE);
	int rc = img->driver->snapshot_create(img, "s", &err);
	image_close(img);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
	unmute(keep);
	assert_true(r.corruptions > 0);
	assert_int_not_equal(rc, 0);
	assert_true(b.tv_sec - a.tv_sec < 10);
	unlink("e.qcow2");
}

static void snapshots_keep_and_bring_back_contents(void **state)
{
	static const char *const kinds[] = {"", "cluster_size=1k,refcount_bits=4", "compat=0.10",
					    "extended_l2=on,cluster_size=16k"};
	uint8_t *model = calloc(1, SIZE), *old = calloc(1, SIZE);
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		struct error err = ERROR_INIT;
		unlink("s.qcow2");
		make("s.qcow2", SIZE, kinds[k]);
		memset(model, 0, SIZE);
		struct image *img =
			open_or_fail("s.qcow2", IMAGE_WRITABLE | IMAGE_NO_FLUSH | IMAGE_DISCARD);
		random_steps(img, model, SIZE, 60);
		memcpy(old, model, SIZE);
		assert_int_equal(img->driver->snapshot_create(img, "one", &err), 0);
		random_steps(img, model, SIZE, 60);
		assert_same(img, model, SIZE);
		assert_int_equal(img->driver->snapshot_create(img, "two", &err), 0);
		image_close(img);
		assert_sound("s.qcow2");
		img = open_or_fail("s.qcow2", IMAGE_WRITABLE | IMAGE_NO_FLUSH);
		random_steps(img, model, SIZE, 30);
		assert_int_equal(img->driver->snapshot_apply(img, "one", &err), 0);
		assert_same(img, old, SIZE);
		memcpy(model, old, SIZE);
		random_steps(img, model, SIZE, 30);
		assert_same(img, model, SIZE);
		image_close(img);
		assert_sound("s.qcow2");
		img = open_or_fail("s.qcow2", IMAGE_WRITABLE);
		assert_int_equal(img->driver->snapshot_delete(img, "one", &err), 0);
		assert_same(img, model, SIZE);
		assert_int_equal(img->driver->snapshot_delete(img, "absent", &err), -ENOENT);
		assert_int_equal(img->driver->snapshot_delete(img, "two", &err), 0);
		random_steps(img, model, SIZE, 30);
		image_close(img);
		assert_sound("s.qcow2");
	}
	free(model);
	free(old);
}

/* As savevm and loadvm do it; QEMU sees the same. */
static void a_machines_state_goes_with_its_snapshot(void **state)
{
	static const char *const kinds[] = {"", "cluster_size=512",
					    "extended_l2=on,cluster_size=16k",
					    "compat=0.10,cluster_size=4k"};
	enum { STATE = 3000000 };
	uint8_t *model = calloc(1, SIZE), *vm = malloc(STATE), *back = malloc(STATE);
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		struct error err = ERROR_INIT;
		struct image_info info;
		unlink("v.qcow2");
		make("v.qcow2", SIZE, kinds[k]);
		memset(model, 0, SIZE);
		struct image *img =
			open_or_fail("v.qcow2", IMAGE_WRITABLE | IMAGE_NO_FLUSH | IMAGE_DISCARD);
		random_steps(img, model, SIZE, 30);
		fill(vm, STATE);
		/* In pieces, as a stream comes. */
		for (size_t at = 0, part; at < STATE; at += part) {
			part = 1 + rnd() % 200000;
			if (part > STATE - at)
				part = STATE - at;
			assert_int_equal(img->driver->vm_state_pwrite(img, vm + at, part, at), 0);
		}
		if (img->driver->snapshot_save(img, "vm", STATE, 1234567890123, &err))
			fail_msg("%s", err.text);
		assert_same(img, model, SIZE);
		image_close(img);
		assert_sound("v.qcow2");
		img = open_or_fail("v.qcow2", IMAGE_WRITABLE | IMAGE_NO_FLUSH | IMAGE_DISCARD);
		uint8_t *other = malloc(SIZE);
		memcpy(other, model, SIZE);
		random_steps(img, other, SIZE, 30);
		free(other);
		assert_int_equal(img->driver->snapshot_apply(img, "vm", &err), 0);
		assert_same(img, model, SIZE);
		assert_true(image_get_info(img, &info) >= 0);
		assert_int_equal(info.snapshots[0].vm_state_size, STATE);
		assert_int_equal(info.snapshots[0].vm_clock_ns, 1234567890123);
		image_info_free(&info);
		assert_int_equal(img->driver->vm_state_pread(img, back, STATE, 0), 0);
		assert_memory_equal(vm, back, STATE);
		assert_int_equal(img->driver->vm_state_pread(img, back, 1, UINT64_C(1) << 60),
				 -EINVAL);
		assert_int_equal(img->driver->vm_state_pwrite(img, back, 1, UINT64_MAX), -EFBIG);
		image_close(img);
		assert_sound("v.qcow2");
		img = open_or_fail("v.qcow2", IMAGE_WRITABLE);
		assert_int_equal(img->driver->snapshot_delete(img, "vm", &err), 0);
		assert_same(img, model, SIZE);
		image_close(img);
		assert_sound("v.qcow2");
	}
	free(model);
	free(vm);
	free(back);
}

static void resizing_keeps_contents_and_shows_zeroes(void **state)
{
	uint8_t *model = calloc(1, 3 * SIZE);
	make("base2.qcow2", SIZE, "");
	struct image *img = open_or_fail("base2.qcow2", IMAGE_WRITABLE);
	memset(model, 0xbb, SIZE);
	assert_int_equal(image_pwrite(img, model, SIZE, 0), 0);
	image_close(img);
	/* the overlay is smaller: what the base has behind its end must never appear */
	make("r.qcow2", 1000 * 512, "cluster_size=1k,backing_file=base2.qcow2,backing_fmt=qcow2");
	img = open_or_fail("r.qcow2", IMAGE_WRITABLE | IMAGE_DISCARD | IMAGE_NO_FLUSH);
	memset(model + 1000 * 512, 0, 3 * SIZE - 1000 * 512);
	for (int i = 0; i < 20; i++)
		random_write(img, model, 1000 * 512);
	assert_int_equal(image_truncate(img, 3 * SIZE, NULL), 0);
	assert_same(img, model, 3 * SIZE);
	for (int i = 0; i < 40; i++)
		random_write(img, model, 3 * SIZE);
	assert_same(img, model, 3 * SIZE);
	assert_int_equal(image_truncate(img, 777 * 512, NULL), 0);
	assert_same(img, model, 777 * 512);
	memset(model + 777 * 512, 0, 3 * SIZE - 777 * 512);
	assert_int_equal(image_truncate(img, 2 * SIZE, NULL), 0);
	assert_same(img, model, 2 * SIZE);
	image_close(img);
	assert_sound("r.qcow2");
	free(model);
}

/* Several threads, each on its own interleaved sectors, so that they meet in every cluster. */
enum { THREADS = 4, SECTORS = 4096 };
static struct image *shared;

static void *hammer(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	uint8_t sector[512], back[512];
	uint64_t s = me + 1;
	for (int i = 0; i < 1500; i++) {
		s = s * 6364136223846793005u + 1442695040888963407u;
		uint64_t n = (s >> 33) % (SECTORS / THREADS) * THREADS + me;
		memset(sector, (int)(me * 60 + n % 50 + 1), sizeof(sector));
		if (image_pwrite(shared, sector, sizeof(sector), n * 512) ||
		    image_pread(shared, back, sizeof(back), n * 512) ||
		    memcmp(sector, back, sizeof(back)) != 0)
			return "a write got lost";
		if (i % 500 == 499 && image_flush(shared))
			return "flush failed";
		if (i % 97 == 0 && image_discard(shared, n * 512, 512))
			return "discard failed";
	}
	return NULL;
}

static void hammer_image(const char *shape)
{
	unlink("m.qcow2");
	make("m.qcow2", SECTORS * 512, shape);
	shared = open_or_fail("m.qcow2", IMAGE_WRITABLE | IMAGE_NO_FLUSH | IMAGE_DISCARD);
	pthread_t t[THREADS];
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, hammer, (void *)i), 0);
	for (int i = 0; i < THREADS; i++) {
		void *what;
		pthread_join(t[i], &what);
		if (what)
			fail_msg("%s", (char *)what);
	}
	for (uint64_t n = 0; n < SECTORS; n++) {
		uint8_t sector[512];
		assert_int_equal(image_pread(shared, sector, 512, n * 512), 0);
		unsigned me = n % THREADS;
		assert_true(sector[0] == 0 || sector[0] == (uint8_t)(me * 60 + n % 50 + 1));
		assert_memory_equal(sector, sector + 1, 511);
	}
	image_close(shared);
	assert_sound("m.qcow2");
}

static void threads_share_clusters_without_losing_writes(void **state)
{
	static const char *const kinds[] = {"cluster_size=64k",
					    "extended_l2=on,cluster_size=32k",
					    "cluster_size=512,refcount_bits=1",
					    "data_file=m.data",
					    "cluster_size=2M,extended_l2=on",
					    "compat=0.10"};
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		hammer_image(kinds[i]);
}

/* Compressed clusters written by several threads at once, read back, then overwritten in part. */
static uint8_t *packed_model;

static void *pack(void *arg)
{
	size_t me = (size_t)(uintptr_t)arg;
	for (size_t c = me; c < SIZE / 65536; c += THREADS) {
		int rc =
			image_pwrite_compressed(shared, packed_model + c * 65536, 65536, c * 65536);
		if (rc == -ENOSPC)
			rc = image_pwrite(shared, packed_model + c * 65536, 65536, c * 65536);
		if (rc)
			return "a compressed write failed";
		if (c % 7 == 0 && image_flush(shared))
			return "flush failed";
	}
	return NULL;
}

static void threads_write_compressed_clusters(void **state)
{
	static const char *const kinds[] = {
		"",
		"refcount_bits=1",
		"refcount_bits=2",
		"extended_l2=on",
#ifdef HAVE_ZSTD
		"compression_type=zstd",
#endif
	};
	packed_model = calloc(1, SIZE);
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		pthread_t t[THREADS];
		memset(packed_model, 0, SIZE);
		for (size_t c = 0; c < SIZE / 65536; c++) {
			uint8_t *p = packed_model + c * 65536;
			for (size_t i = 0; i < 65536; i++) /* some do not get shorter */
				p[i] = c % 5 ? (uint8_t)(i / 700 + c) : (uint8_t)rnd();
		}
		unlink("z.qcow2");
		make("z.qcow2", SIZE, kinds[k]);
		shared = open_or_fail("z.qcow2", IMAGE_WRITABLE | IMAGE_NO_FLUSH | IMAGE_DISCARD);
		for (uintptr_t i = 0; i < THREADS; i++)
			assert_int_equal(pthread_create(&t[i], NULL, pack, (void *)i), 0);
		for (int i = 0; i < THREADS; i++) {
			void *what;
			pthread_join(t[i], &what);
			if (what)
				fail_msg("'%s': %s", kinds[k], (char *)what);
		}
		assert_same(shared, packed_model, SIZE);
		random_steps(shared, packed_model, SIZE, 60);
		/* over what is there, and the last cluster, which the disk has only in part */
		size_t last = SIZE / 65536 * 65536;
		memset(packed_model, 0x5a, 65536);
		memset(packed_model + last, 0x3c, SIZE - last);
		assert_int_equal(image_pwrite_compressed(shared, packed_model, 65536, 0), 0);
		assert_int_equal(
			image_pwrite_compressed(shared, packed_model + last, SIZE - last, last), 0);
		assert_same(shared, packed_model, SIZE);
		image_close(shared);
		assert_sound("z.qcow2");
	}
	free(packed_model);
}

static void copy_file(const char *from, const char *to)
{
	assert_int_equal(shell("cp '%s' '%s'", from, to), 0);
}

static void poke(const char *path, uint64_t offset, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite_full(fd, data, len, offset), 0);
	close(fd);
}

static void damaged_headers_are_refused_with_the_field(void **state)
{
	static const struct {
		unsigned offset, len;
		uint64_t value;
		const char *says;
	} cases[] = {
		{H_MAGIC, 4, 0, "magic"},
		{H_VERSION, 4, 4, "version 4"},
		{H_CLUSTER_BITS, 4, 8, "cluster_bits 8"},
		{H_CLUSTER_BITS, 4, 0xffffffff, "cluster_bits"},
		{H_SIZE, 8, UINT64_MAX, "size"},
		{H_SIZE, 8, UINT64_C(1) << 50, "l1_size"},
		{H_L1_SIZE, 4, 0xffffffff, "l1_size"},
		{H_L1_OFFSET, 8, 0x30001, "l1_table_offset"},
		{H_L1_OFFSET, 8, UINT64_C(0xffffffffffff0000), "l1_table_offset"},
		{H_REFTABLE_OFFSET, 8, 0, "refcount_table_offset"},
		{H_REFTABLE_CLUSTERS, 4, 0, "refcount_table_clusters"},
		{H_REFTABLE_CLUSTERS, 4, 0x7fffffff, "refcount_table_clusters"},
		{H_NB_SNAPSHOTS, 4, 0x10001, "nb_snapshots"},
		{H_REFCOUNT_ORDER, 4, 7, "refcount_order"},
		{H_HEADER_LENGTH, 4, 3, "header_length"},
		{H_CRYPT_METHOD, 4, 1, "AES"},
		{H_INCOMPATIBLE, 8, 1 << 2, "external file"},
		{H_INCOMPATIBLE, 8, UINT64_C(1) << 40, "bit 40"},
		{H_BACKING_OFFSET, 8, 0xffffff, "backing_file_offset"},
	};
	make("h.qcow2", SIZE, "");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t raw[8];
		struct error err = ERROR_INIT;
		store_be64(raw, cases[i].value << (64 - cases[i].len * 8));
		copy_file("h.qcow2", "d.qcow2");
		if (cases[i].offset == H_BACKING_OFFSET)
			poke("d.qcow2", H_BACKING_SIZE, "\0\0\0\5", 4);
		poke("d.qcow2", cases[i].offset, raw, cases[i].len);
		if (image_open("d.qcow2", "qcow2", 0, NULL, &err) ||
		    !strstr(err.text, cases[i].says))
			fail_msg("case %zu: '%s'", i, err.text);
	}
	for (unsigned len = 0; len < 300; len += 13) {
		struct error err = ERROR_INIT;
		copy_file("h.qcow2", "d.qcow2");
		assert_int_equal(truncate("d.qcow2", len), 0);
		assert_null(image_open("d.qcow2", "qcow2", 0, NULL, &err));
		assert_true(strlen(err.text) > 20 && !strchr(err.text, '\n'));
	}
}

/* Headers with a few fields or bytes changed, with and without extensions, in an address space that
 * lets no field's value decide how much memory is taken. */
static void mutated_headers_take_little_memory(void **state)
{
	static const char *const kinds[] = {"", "compat=0.10,cluster_size=512",
					    "extended_l2=on,refcount_bits=1", "data_file=u.data",
					    "backing_file=absent,backing_fmt=raw"};
	static const uint64_t values[] = {0,
					  1,
					  2,
					  3,
					  7,
					  9,
					  21,
					  22,
					  63,
					  64,
					  0x7fffffff,
					  0xffffffff,
					  UINT64_C(1) << 40,
					  UINT64_C(1) << 56,
					  INT64_MAX,
					  UINT64_MAX};
	struct rlimit old, small;
	uint8_t head[1024], buf[4096];
	unsigned opened = 0;
	assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
	small = old;
#ifndef __SANITIZE_ADDRESS__
	small.rlim_cur = (rlim_t)1 << 30;
#endif
	assert_int_equal(setrlimit(RLIMIT_AS, &small), 0);
	int keep = mute();
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		make("u.qcow2", SIZE, kinds[k]);
		int fd = open("u.qcow2", O_RDWR);
		assert_true(fd >= 0);
		assert_int_equal(pread_full(fd, head, sizeof(head), 0), 0);
		for (int i = 0; i < 1500; i++) {
			uint8_t changed[sizeof(head)], raw[8];
			struct error err = ERROR_INIT;
			struct image_check r;
			memcpy(changed, head, sizeof(head));
			for (unsigned n = 1 + rnd() % 3; n; n--) {
				size_t at = 4 + rnd() % (rnd() % 4 ? 108 : 500),
				       len = 1 + rnd() % 8;
				store_be64(raw,
					   rnd() % 4 ? values[rnd() % ARRAY_SIZE(values)] : rnd());
				memcpy(changed + (len > 2 ? at & ~(size_t)3 : at), raw + 8 - len,
				       len);
			}
			assert_int_equal(pwrite_full(fd, changed, sizeof(changed), 0), 0);
			unsigned flags = rnd() % 2 ? IMAGE_CHECK | IMAGE_NO_BACKING : 0;
			struct image *img =
				image_open("u.qcow2", "qcow2", flags | IMAGE_NO_LOCK, NULL, &err);
			if (!img) {
				if (strlen(err.text) < 20 || strchr(err.text, '\n'))
					fail_msg("'%s'", err.text);
				continue;
			}
			opened++;
			uint64_t size = image_size(img);
			if (size >= sizeof(buf))
				image_pread(img, buf, sizeof(buf),
					    rnd() % (size - sizeof(buf) + 1));
			image_run_check(img, 0, &r, &err);
			image_close(img);
		}
		close(fd);
	}
	unmute(keep);
	assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
	assert_true(opened > 100);
}

/* Random damage anywhere in the tables: no crash, no hang, and repair makes the check pass or says
 * that it cannot. */
static void random_damage_is_survived(void **state)
{
	uint8_t *model = calloc(1, SIZE), *buf = malloc(SIZE);
	make("g.qcow2", SIZE, "cluster_size=1k");
	struct image *img = open_or_fail("g.qcow2", IMAGE_WRITABLE | IMAGE_NO_FLUSH);
	for (int i = 0; i < 30; i++)
		random_write(img, model, SIZE);
	assert_int_equal(img->driver->snapshot_create(img, "snap", NULL), 0);
	for (int i = 0; i < 10; i++)
		random_write(img, model, SIZE);
	image_close(img);
	int keep = mute();
	for (int i = 0; i < 150; i++) {
		struct image_check r;
		copy_file("g.qcow2", "d.qcow2");
		for (unsigned k = 1 + rnd() % 20; k; k--) {
			uint64_t v = rnd() % 2 ? rnd() : (rnd() % 8000) << 10;
			uint64_t at = rnd() % 3 ? rnd() % 65536 : rnd() % 112;
			poke("d.qcow2", rnd() % 2 ? at & ~UINT64_C(7) : at, &v, 1 + rnd() % 8);
		}
		img = image_open("d.qcow2", "qcow2",
				 IMAGE_WRITABLE | IMAGE_NO_FLUSH | IMAGE_DISCARD | IMAGE_NO_BACKING,
				 NULL, NULL);
		if (img) {
			for (int k = 0; k < 30; k++) {
				uint64_t size = image_size(img) ? image_size(img) : 1;
				uint64_t at = rnd_below(size), len = 1 + rnd_below(100000);
				if (len > size - at)
					len = size - at;
				switch (rnd() % 4) {
				case 0: image_pread(img, buf, len, at); break;
				case 1: image_write_zeroes(img, at, len, rnd() % 2); break;
				case 2: image_discard(img, at, len); break;
				default: image_pwrite(img, buf, len, at); break;
				}
			}
			image_close(img);
		}
		img = image_open("d.qcow2", "qcow2",
				 IMAGE_WRITABLE | IMAGE_CHECK | IMAGE_NO_FLUSH | IMAGE_NO_BACKING,
				 NULL, NULL);
		if (!img)
			continue;
		image_run_check(img, IMAGE_FIX_LEAKS | IMAGE_FIX_ERRORS, &r, NULL);
		image_close(img);
	}
	unmute(keep);
	free(model);
	free(buf);
}

static void wrong_refcounts_are_found_and_repaired(void **state)
{
	uint8_t *model = calloc(1, SIZE);
	make("w.qcow2", SIZE, "cluster_size=4k");
	struct image *img = open_or_fail("w.qcow2", IMAGE_WRITABLE);
	for (int i = 0; i < 20; i++)
		random_write(img, model, SIZE);
	image_close(img);
	uint8_t head[112], block[8];
	for (int kind = 0; kind < 3; kind++) {
		struct image_check r;
		struct error err = ERROR_INIT;
		copy_file("w.qcow2", "d.qcow2");
		int fd = open("d.qcow2", O_RDWR);
		assert_int_equal(pread_full(fd, head, sizeof(head), 0), 0);
		uint64_t table = load_be64(head + H_REFTABLE_OFFSET);
		assert_int_equal(pread_full(fd, block, 8, table), 0);
		uint64_t at = load_be64(block);
		if (kind == 0) /* cluster 5 is called free, cluster 6 has three references */
			assert_int_equal(pwrite_full(fd, "\0\0\0\3", 4, at + 10), 0);
		else if (kind == 1) /* the block is gone */
			assert_int_equal(pwrite_full(fd, "\0\0\0\0\0\0\0\0", 8, table), 0);
		else /* it points to nowhere, and the image was not closed */
			assert_int_equal(pwrite_full(fd, "\0\0\7\0\0\0\0\0", 8, table), 0);
		assert_int_equal(pwrite_full(fd, "\1", 1, H_INCOMPATIBLE + 7), 0);
		close(fd);
		int keep = mute();
		img = open_or_fail("d.qcow2", IMAGE_CHECK | IMAGE_NO_BACKING);
		assert_int_equal(image_run_check(img, 0, &r, &err), 0);
		unmute(keep);
		assert_true(r.corruptions > 0);
		image_close(img);
		/* the dirty bit makes an opening for writing repair it */
		keep = mute();
		img = open_or_fail("d.qcow2", IMAGE_WRITABLE);
		unmute(keep);
		assert_same(img, model, SIZE);
		for (int i = 0; i < 10; i++)
			random_write(img, model, SIZE);
		assert_same(img, model, SIZE);
		image_close(img);
		assert_sound("d.qcow2");
		memset(model, 0, SIZE);
		img = open_or_fail("w.qcow2", 0);
		assert_int_equal(image_pread(img, model, SIZE, 0), 0);
		image_close(img);
	}
	free(model);
}

static void a_huge_refcount_is_repaired_at_once(void **state)
{
	uint8_t head[112], block[8];
	struct image_check r;
	make("u.qcow2", SIZE, "refcount_bits=64");
	int fd = open("u.qcow2", O_RDWR);
	assert_int_equal(pread_full(fd, head, sizeof(head), 0), 0);
	assert_int_equal(pread_full(fd, block, 8, load_be64(head + H_REFTABLE_OFFSET)), 0);
	assert_int_equal(pwrite_full(fd, "\x7f", 1, load_be64(block) + 8), 0);
	close(fd);
	int keep = mute();
	struct image *img = open_or_fail("u.qcow2", IMAGE_CHECK | IMAGE_WRITABLE);
	assert_int_equal(image_run_check(img, IMAGE_FIX_LEAKS, &r, NULL), 0);
	unmute(keep);
	assert_int_equal(r.leaks_fixed, 1);
	image_close(img);
	assert_sound("u.qcow2");
}

/* A process that dies between writes must leave nothing worse than leaks. */
static void a_killed_writer_leaves_leaks_at_worst(void **state)
{
	uint8_t *model = calloc(1, SIZE);
	for (int i = 0; i < 12; i++) {
		struct image_check r;
		unlink("k.qcow2");
		make("k.qcow2", SIZE,
		     i % 2 ? "cluster_size=512" : "cluster_size=4k,refcount_bits=64");
		fflush(NULL);
		pid_t pid = fork();
		if (pid == 0) {
			struct image *img = image_open(
				"k.qcow2", "qcow2", IMAGE_WRITABLE | IMAGE_NO_FLUSH | IMAGE_DISCARD,
				NULL, NULL);
			for (int k = 0; k < 60 + i * 7; k++) {
				uint64_t at = rnd_below(SIZE - 200000);
				if (k % 5 == 4)
					image_discard(img, at, 1 + rnd_below(200000));
				else
					image_pwrite(img, model, 1 + rnd_below(200000), at);
				if (k % 20 == 19)
					image_flush(img);
			}
			_exit(0);
		}
		assert_int_equal(shell("while kill -0 %d 2>/dev/null && ! grep -q '^State:.*Z' "
				       "/proc/%d/status; do sleep 0.05; done",
				       (int)pid, (int)pid),
				 0);
		int keep = mute();
		struct image *img = open_or_fail("k.qcow2", IMAGE_CHECK | IMAGE_WRITABLE);
		assert_int_equal(image_run_check(img, 0, &r, NULL), 0);
		if (r.corruptions || r.check_errors)
			fail_msg("%lu corruptions", (unsigned long)r.corruptions);
		assert_int_equal(image_run_check(img, IMAGE_FIX_LEAKS, &r, NULL), 0);
		unmute(keep);
		image_close(img);
		assert_sound("k.qcow2");
		rnd();
	}
	free(model);
}

static void writes_into_tables_are_refused(void **state)
{
	uint8_t data[512] = {1}, entry[8], head[112];
	make("o.qcow2", SIZE, "");
	struct image *img = open_or_fail("o.qcow2", IMAGE_WRITABLE);
	assert_int_equal(image_pwrite(img, data, 512, 0), 0);
	image_close(img);
	/* let the first data cluster be the refcount table */
	int fd = open("o.qcow2", O_RDWR);
	assert_int_equal(pread_full(fd, head, sizeof(head), 0), 0);
	assert_int_equal(pread_full(fd, entry, 8, load_be64(head + H_L1_OFFSET)), 0);
	uint64_t l2 = load_be64(entry) & ENTRY_OFFSET;
	store_be64(entry, load_be64(head + H_REFTABLE_OFFSET) | ENTRY_COPIED);
	assert_int_equal(pwrite_full(fd, entry, 8, l2), 0);
	close(fd);
	img = open_or_fail("o.qcow2", IMAGE_WRITABLE);
	assert_int_equal(image_pwrite(img, data, 512, 0), -EIO);
	assert_int_equal(image_pwrite(img, data, 512, 1 << 20), -EIO);
	image_close(img);
	struct error err = ERROR_INIT;
	assert_null(image_open("o.qcow2", "qcow2", IMAGE_WRITABLE, NULL, &err));
	assert_non_null(strstr(err.text, "corrupt"));
	img = open_or_fail("o.qcow2", 0);
	image_close(img);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_operations_match_a_disk_in_memory),
		cmocka_unit_test(small_caches_lose_nothing),
		cmocka_unit_test(a_table_that_is_entered_a_million_times_is_read_once),
		cmocka_unit_test(snapshots_keep_and_bring_back_contents),
		cmocka_unit_test(a_machines_state_goes_with_its_snapshot),
		cmocka_unit_test(resizing_keeps_contents_and_shows_zeroes),
		cmocka_unit_test(threads_share_clusters_without_losing_writes),
		cmocka_unit_test(threads_write_compressed_clusters),
		cmocka_unit_test(damaged_headers_are_refused_with_the_field),
		cmocka_unit_test(mutated_headers_take_little_memory),
		cmocka_unit_test(random_damage_is_survived),
		cmocka_unit_test(wrong_refcounts_are_found_and_repaired),
		cmocka_unit_test(a_huge_refcount_is_repaired_at_once),
		cmocka_unit_test(a_killed_writer_leaves_leaks_at_worst),
		cmocka_unit_test(writes_into_tables_are_refused),
	};
	return cmocka_run_group_tests(tests, enter_scratch, leave_scratch);
}
