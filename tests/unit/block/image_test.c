/* SPDX-License-Identifier: MIT */
/* Opening: names, probing, chains, locks, O_DIRECT, -snapshot; and both ways with QEMU's tools. */
#include "block/image.h"
#include "tests/unit/block/tools.h"
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

static struct image *open_as(const char *path, const char *format, unsigned flags,
			     struct error *err)
{
	*err = ERROR_INIT;
	return image_open(path, format, flags, NULL, err);
}

static void create(const char *path, const char *format, uint64_t size, const char *options)
{
	struct opts o;
	struct error err = ERROR_INIT;
	opts_parse(&o, options, NULL, NULL);
	if (image_create(path, format, size, &o, &err))
		fail_msg("%s", err.text);
	opts_free(&o);
}

static void bad_names_get_clear_sentences(void **state)
{
	struct error err;
	mkdir("dir", 0755);
	mkfifo("fifo", 0644);
	create("r.img", "raw", 1024, "");
	assert_null(open_as("missing.img", "raw", 0, &err));
	assert_string_equal(err.text, "cannot open 'missing.img': No such file or directory");
	assert_null(open_as("dir", "raw", 0, &err));
	assert_string_equal(err.text, "cannot open 'dir': it is a directory");
	assert_null(open_as("fifo", "raw", 0, &err));
	assert_non_null(strstr(err.text, "neither a regular file nor a block device"));
	assert_null(open_as("r.img", "qcow", 0, &err));
	assert_non_null(strstr(err.text, "did you mean 'qcow2'?"));
	assert_null(open_as("sheepdog:x:1", "raw", 0, &err));
	assert_non_null(strstr(err.text, "unknown block protocol 'sheepdog'"));
	assert_null(open_as("r.img", "qcow2", 0, &err));
	assert_non_null(strstr(err.text, "not a qcow2 image"));
	struct image *img = open_as("file:r.img", "raw", 0, &err);
	assert_non_null(img);
	image_close(img);
#ifdef HAVE_JSONC
	img = open_as(
		"json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"r.img\"}}",
		NULL, 0, &err);
	assert_non_null(img);
	assert_false(img->flags & IMAGE_PROBED);
	image_close(img);
#endif
}

static void a_chain_names_the_missing_link(void **state)
{
	struct error err;
	mkdir("images", 0755);
	create("images/overlay.qcow2", "qcow2", 1 << 20,
	       "backing_file=base.qcow2,backing_fmt=qcow2");
	assert_null(open_as("images/overlay.qcow2", NULL, 0, &err));
	assert_string_equal(err.text,
			    "cannot open 'base.qcow2' (backing file of 'images/overlay.qcow2', "
			    "looked for in 'images/'): No such file or directory");
	create("images/base.qcow2", "qcow2", 1 << 19,
	       "backing_file=overlay.qcow2,backing_fmt=qcow2");
	assert_null(open_as("images/overlay.qcow2", NULL, 0, &err));
	assert_non_null(strstr(err.text, "loop"));
	create("images/base.qcow2", "qcow2", 1 << 19, "");
	struct image *img = open_as("images/overlay.qcow2", NULL, IMAGE_WRITABLE, &err);
	assert_non_null(img);
	assert_false(image_writable(img->backing));
	/* behind the end of the base there are zeroes */
	char buf[4096];
	memset(buf, 1, sizeof(buf));
	assert_int_equal(image_pread(img, buf, sizeof(buf), (1 << 19) - 2048), 0);
	for (size_t i = 0; i < sizeof(buf); i++)
		assert_int_equal(buf[i], 0);
	image_close(img);
}

static void a_probed_raw_image_stays_raw(void **state)
{
	struct error err;
	uint8_t sector[512] = "QFI\xfb\0\0\0\3";
	create("p.img", "raw", 4096, "");
	struct image *img = open_as("p.img", NULL, IMAGE_WRITABLE | IMAGE_DISCARD, &err);
	assert_true(img->flags & IMAGE_PROBED);
	assert_int_equal(image_pwrite(img, sector, sizeof(sector), 0), -EPERM);
	assert_int_equal(image_pwrite(img, "KDMV", 4, 0), -EPERM);
	/* nor in two steps */
	assert_int_equal(image_pwrite(img, sector, 4, 0), 0);
	assert_int_equal(image_pwrite(img, sector + 4, 4, 4), -EPERM);
	assert_int_equal(image_pwrite(img, sector, sizeof(sector), 512), 0);
	memset(sector, 0xeb, sizeof(sector));
	assert_int_equal(image_pwrite(img, sector, sizeof(sector), 0), 0);
	image_close(img);
	img = open_as("p.img", "raw", IMAGE_WRITABLE, &err);
	assert_int_equal(image_pwrite(img, "QFI\xfb\0\0\0\2", 8, 0), 0);
	image_close(img);
	create("v.img", "raw", 4096, "");
	img = open_as("v.img", "raw", IMAGE_WRITABLE, &err);
	assert_int_equal(image_pwrite(img, "KDMV", 4, 0), 0);
	image_close(img);
	assert_null(open_as("v.img", NULL, 0, &err));
	assert_non_null(strstr(err.text, "vmdk"));
}

static void writers_and_readers_exclude_each_other_as_qemu_does(void **state)
{
	static const char *const formats[] = {"raw", "qcow2"};
	for (int i = 0; i < 2; i++) {
		struct error err;
		struct image *a, *b;
		create("l.img", formats[i], 1 << 20, "");
		a = open_as("l.img", formats[i], IMAGE_WRITABLE, &err);
		assert_non_null(a);
		assert_null(open_as("l.img", formats[i], IMAGE_WRITABLE, &err));
		assert_int_equal(err.code, EBUSY);
		assert_non_null(strstr(err.text, "this process"));
		assert_null(open_as("l.img", formats[i], 0, &err));
		b = open_as("l.img", formats[i], IMAGE_FORCE_SHARE, &err);
		assert_non_null(b);
		image_close(b);
		b = open_as("l.img", formats[i], IMAGE_WRITABLE | IMAGE_NO_LOCK, &err);
		assert_non_null(b);
		image_close(b);
		assert_int_not_equal(image_create("l.img", formats[i], 1, NULL, &err), 0);
		assert_int_equal(image_size(a), 1 << 20);
		image_close(a);
		a = open_as("l.img", formats[i], 0, &err);
		b = open_as("l.img", formats[i], 0, &err);
		assert_non_null(a);
		assert_non_null(b);
		assert_null(open_as("l.img", formats[i], IMAGE_WRITABLE, &err));
		image_close(a);
		image_close(b);
	}
}

static void qemu_and_we_refuse_each_others_images(void **state)
{
	struct error err;
	if (!have_qemu())
		skip();
	create("q.img", "qcow2", 1 << 20, "");
	struct image *img = open_as("q.img", "qcow2", IMAGE_WRITABLE, &err);
	assert_int_not_equal(shell("qemu-img info q.img >/dev/null 2>&1"), 0);
	assert_int_equal(shell("qemu-img info -U q.img >/dev/null 2>&1"), 0);
	image_close(img);
	img = open_as("q.img", "qcow2", 0, &err);
	assert_int_equal(shell("qemu-img info q.img >/dev/null 2>&1"), 0);
	assert_int_not_equal(shell("qemu-io -c 'write 0 512' q.img >/dev/null 2>&1"), 0);
	image_close(img);
	/* qemu-io keeps it open until its input ends */
	FILE *io = popen("qemu-io -f qcow2 q.img >io.out", "w");
	fputs("write -P 7 0 64k\nflush\n", io);
	fflush(io);
	for (int i = 0; i < 3000 && shell("grep -q wrote io.out"); i++)
		usleep(20000);
	assert_null(open_as("q.img", "qcow2", IMAGE_WRITABLE, &err));
	assert_non_null(strstr(err.text, "locked by 'qemu-io' (process "));
	assert_null(open_as("q.img", "qcow2", 0, &err));
	pclose(io);
	uint8_t buf[512];
	img = open_as("q.img", "qcow2", IMAGE_WRITABLE, &err);
	assert_non_null(img);
	assert_int_equal(image_pread(img, buf, sizeof(buf), 65024), 0);
	assert_int_equal(buf[511], 7);
	image_close(img);
}

/* Each option set: one of the two creates, both write, both read and check. */
static void images_go_back_and_forth_with_qemu(void **state)
{
	static const char *const shapes[] = {
		"compat=1.1",
		"compat=0.10",
		"cluster_size=512",
		"cluster_size=2M",
		"cluster_size=4k,refcount_bits=1",
		"refcount_bits=2",
		"refcount_bits=4",
		"refcount_bits=8",
		"refcount_bits=32",
		"refcount_bits=64",
		"lazy_refcounts=on",
		"preallocation=metadata",
		"preallocation=falloc",
		"preallocation=full",
		"compression_type=zstd",
		"extended_l2=on",
		"extended_l2=on,cluster_size=16k",
		"data_file=x.data",
		"data_file=x.data,data_file_raw=on",
	};
	enum { SIZE = 8 << 20 };
	if (!have_qemu())
		skip();
	uint8_t *model = malloc(SIZE), *buf = malloc(SIZE);
	for (size_t i = 0; i < 2 * sizeof(shapes) / sizeof(shapes[0]); i++) {
		const char *shape = shapes[i / 2];
		struct error err = ERROR_INIT;
		unlink("x.qcow2");
#ifndef HAVE_ZSTD
		if (strstr(shape, "zstd"))
			continue;
#endif
		if (i % 2)
			create("x.qcow2", "qcow2", SIZE, shape);
		else
			assert_int_equal(
				shell("qemu-img create -q -f qcow2 -o %s x.qcow2 %d", shape, SIZE),
				0);
		memset(model, 0, SIZE);
		for (int round = 0; round < 3; round++) {
			struct image *img =
				open_as("x.qcow2", "qcow2", IMAGE_WRITABLE | IMAGE_DISCARD, &err);
			if (!img)
				fail_msg("%s: %s", shape, err.text);
			for (int k = 0; k < 12; k++) {
				uint64_t at = rnd_below(SIZE - 100000), len = 1 + rnd_below(99999);
				fill(model + at, len);
				assert_int_equal(image_pwrite(img, model + at, len, at), 0);
			}
			image_close(img);
			uint64_t at = rnd() % (SIZE >> 10) << 9, len = 150 * 512;
			unsigned byte = 1 + (unsigned)(rnd() % 200);
			assert_int_equal(shell("qemu-io -c 'write -P %u %lu %lu' -c 'write -z %lu "
					       "64k' x.qcow2 >/dev/null",
					       byte, (unsigned long)at, (unsigned long)len,
					       (unsigned long)(at + 65536)),
					 0);
			memset(model + at, (int)byte, len);
			memset(model + at + 65536, 0, 65536);
			assert_int_equal(shell("qemu-img check -q x.qcow2"), 0);
			img = open_as("x.qcow2", "qcow2", 0, &err);
			assert_int_equal(image_pread(img, buf, SIZE, 0), 0);
			if (memcmp(buf, model, SIZE) != 0)
				fail_msg("%s: we read other bytes than were written", shape);
			image_close(img);
		}
		int fd = open("x.raw", O_CREAT | O_TRUNC | O_WRONLY, 0644);
		assert_int_equal(write(fd, model, SIZE), SIZE);
		close(fd);
		assert_int_equal(shell("qemu-img compare -q -f qcow2 -F raw x.qcow2 x.raw"), 0);
		/* compressed by them, overwritten by us */
		assert_int_equal(shell("qemu-img convert -c -O qcow2 %s x.qcow2 c.qcow2",
				       strstr(shape, "zstd") ? "-o compression_type=zstd" : ""),
				 0);
		struct image *img = open_as("c.qcow2", "qcow2", IMAGE_WRITABLE, &err);
		assert_int_equal(image_pread(img, buf, SIZE, 0), 0);
		assert_memory_equal(buf, model, SIZE);
		for (int k = 0; k < 10; k++) {
			uint64_t at = rnd_below(SIZE - 100000), len = 1 + rnd_below(99999);
			fill(model + at, len);
			assert_int_equal(image_pwrite(img, model + at, len, at), 0);
		}
		assert_int_equal(image_pread(img, buf, SIZE, 0), 0);
		assert_memory_equal(buf, model, SIZE);
		image_close(img);
		assert_int_equal(shell("qemu-img check -q c.qcow2"), 0);
	}
	free(model);
	free(buf);
}

static void direct_io_takes_any_alignment(void **state)
{
	enum { SIZE = 1000 * 512 };
	struct error err;
	uint8_t *model = calloc(1, SIZE), *buf = malloc(SIZE + 4096);
	create("direct.img", "raw", SIZE, "");
	struct image *img = open_as("direct.img", "raw", IMAGE_WRITABLE | IMAGE_DIRECT, &err);
	if (!img) {
		printf("SKIPPED: %s\n", err.text);
		skip();
	}
	for (int i = 0; i < 200; i++) {
		uint64_t at = rnd() % SIZE, len = 1 + rnd_below(SIZE - at);
		fill(model + at, len);
		assert_int_equal(image_pwrite(img, model + at, len, at), 0);
		at = rnd() % SIZE;
		len = 1 + rnd_below(SIZE - at);
		assert_int_equal(image_pread(img, buf + rnd() % 4096, 1, at), 0);
		assert_int_equal(image_pread(img, buf, len, at), 0);
		assert_memory_equal(buf, model + at, len);
	}
	image_close(img);
	struct stat st;
	assert_int_equal(stat("direct.img", &st), 0);
	assert_int_equal(st.st_size, SIZE);
	free(model);
	free(buf);
}

static void a_snapshot_leaves_the_base_and_no_file(void **state)
{
	struct error err;
	uint8_t a[1000], b[1000];
	mkdir("tmp", 0755);
	setenv("TMPDIR", "tmp", 1);
	create("base.img", "raw", 1 << 20, "");
	struct image *img = open_as("base.img", "raw", IMAGE_WRITABLE, &err);
	memset(a, 3, sizeof(a));
	assert_int_equal(image_pwrite(img, a, sizeof(a), 5000), 0);
	image_close(img);
	img = image_open_snapshot(open_as("base.img", "raw", 0, &err), &err);
	assert_non_null(img);
	assert_true(image_writable(img));
	memset(b, 4, sizeof(b));
	assert_int_equal(image_pwrite(img, b, 500, 5000), 0);
	memset(a, 4, 500);
	assert_int_equal(image_pread(img, b, sizeof(b), 5000), 0);
	assert_memory_equal(a, b, sizeof(a));
	assert_int_equal(shell("test -z \"$(ls tmp)\""), 0);
	image_close(img);
	img = open_as("base.img", "raw", 0, &err);
	assert_int_equal(image_pread(img, b, sizeof(b), 5000), 0);
	assert_int_equal(b[0], 3);
	image_close(img);
	setenv("TMPDIR", "/nonexistent", 1);
	assert_null(image_open_snapshot(open_as("base.img", "raw", 0, &err), &err));
	assert_non_null(strstr(err.text, "/nonexistent"));
	unsetenv("TMPDIR");
}

static void bounds_and_permissions_hold(void **state)
{
	struct error err;
	char buf[1024] = "";
	create("b.img", "raw", 1024, "");
	struct image *img = open_as("b.img", "raw", 0, &err);
	assert_int_equal(image_pread(img, buf, 1024, 0), 0);
	assert_int_equal(image_pread(img, buf, 1024, 1), -EINVAL);
	assert_int_equal(image_pread(img, buf, 1, UINT64_MAX), -EINVAL);
	assert_int_equal(image_pwrite(img, buf, 1, 0), -EPERM);
	image_close(img);
	/* a file that ends within a sector counts as whole */
	assert_int_equal(truncate("b.img", 700), 0);
	img = open_as("b.img", "raw", IMAGE_WRITABLE, &err);
	assert_int_equal(image_size(img), 1024);
	memset(buf, 1, sizeof(buf));
	assert_int_equal(image_pread(img, buf, 1024, 0), 0);
	assert_int_equal(buf[1023], 0);
	image_close(img);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_names_get_clear_sentences),
		cmocka_unit_test(a_chain_names_the_missing_link),
		cmocka_unit_test(a_probed_raw_image_stays_raw),
		cmocka_unit_test(writers_and_readers_exclude_each_other_as_qemu_does),
		cmocka_unit_test(qemu_and_we_refuse_each_others_images),
		cmocka_unit_test(images_go_back_and_forth_with_qemu),
		cmocka_unit_test(direct_io_takes_any_alignment),
		cmocka_unit_test(a_snapshot_leaves_the_base_and_no_file),
		cmocka_unit_test(bounds_and_permissions_hold),
	};
	return cmocka_run_group_tests(tests, enter_scratch, leave_scratch);
}
