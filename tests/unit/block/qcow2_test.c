/* SPDX-License-Identifier: MIT */
/*
 * The qcow2 driver against a disk in memory: random operations on images of many shapes, each
 * followed by a check of the file (ours, and qemu-img's where it is installed).
 */
#include "tests/unit/block/qcow2_rig.h"
#include <time.h>

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
		cmocka_unit_test(a_killed_writer_leaves_leaks_at_worst),
	};
	return cmocka_run_group_tests(tests, enter_scratch, leave_scratch);
}
