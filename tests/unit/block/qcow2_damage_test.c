/* SPDX-License-Identifier: MIT */
/*
 * The qcow2 driver on damaged images: each field of the header out of its range, random damage in
 * headers and tables, wrong refcounts and their repair, tables that point into each other.
 */
#include "tests/unit/block/qcow2_rig.h"
#include <sys/resource.h>

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
		cmocka_unit_test(damaged_headers_are_refused_with_the_field),
		cmocka_unit_test(mutated_headers_take_little_memory),
		cmocka_unit_test(random_damage_is_survived),
		cmocka_unit_test(wrong_refcounts_are_found_and_repaired),
		cmocka_unit_test(a_huge_refcount_is_repaired_at_once),
		cmocka_unit_test(writes_into_tables_are_refused),
	};
	return cmocka_run_group_tests(tests, enter_scratch, leave_scratch);
}
