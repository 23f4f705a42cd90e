/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: the input is a qcow2 file. It is opened, read, checked, repaired, and written to.
 */
#include "block/image.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>
#include <unistd.h>

static void use(struct image *img)
{
	static uint8_t buf[70000];
	uint64_t total = image_size(img);
	for (int i = 0; i < 8; i++) {
		/* spread over the disk, odd lengths */
		uint64_t at = total / 8 * (unsigned)i, len = sizeof(buf) - (unsigned)i * 77;
		uint64_t count;
		if (len > total - at)
			len = total - at;
		image_pread(img, buf, len, at);
		image_block_status(img, at, len, &count, NULL);
		if (!image_writable(img))
			continue;
		if (i % 4 == 0)
			image_discard(img, at, len);
		else if (i % 4 == 1)
			image_write_zeroes(img, at, len, true);
		else
			image_pwrite(img, buf, len, at);
	}
	image_flush(img);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const unsigned modes[] = {
		IMAGE_CHECK | IMAGE_WRITABLE | IMAGE_NO_BACKING | IMAGE_NO_FLUSH | IMAGE_NO_LOCK,
		IMAGE_NO_BACKING | IMAGE_NO_LOCK,
		IMAGE_WRITABLE | IMAGE_DISCARD | IMAGE_NO_BACKING | IMAGE_NO_FLUSH | IMAGE_NO_LOCK,
	};
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		struct error err = ERROR_INIT;
		struct image *img =
			image_open(fuzz_file(0, data, size), "qcow2", modes[i], NULL, &err);
		if (!img)
			continue;
		struct image_info info;
		image_get_info(img, &info);
		image_info_free(&info);
		if (modes[i] & IMAGE_CHECK) {
			struct image_check r;
			image_run_check(img, 0, &r, NULL);
			image_run_check(img, IMAGE_FIX_LEAKS | IMAGE_FIX_ERRORS, &r, NULL);
		}
		use(img);
		image_close(img);
	}
	return 0;
}

/* Small images of every kind, with some data in them. */
static size_t seed(unsigned n, uint8_t *buf, size_t max)
{
	static const char *const kinds[] = {
		"cluster_size=512",
		"cluster_size=512,compat=0.10",
		"cluster_size=1024,lazy_refcounts=on",
		"cluster_size=512,refcount_bits=1",
		"cluster_size=512,refcount_bits=64",
		"cluster_size=16k,extended_l2=on",
		"cluster_size=512,preallocation=metadata",
	};
	struct error err = ERROR_INIT;
	struct opts opts;
	size_t len = 0;

	if (n >= ARRAY_SIZE(kinds))
		return 0;
	fuzz_sandbox();
	if (opts_parse(&opts, kinds[n], NULL, &err) < 0 ||
	    image_create("seed.qcow2", "qcow2", 100000, &opts, &err) < 0)
		report("%s: %s", kinds[n], err.text);
	opts_free(&opts);
	struct image *img =
		image_open("seed.qcow2", "qcow2", IMAGE_WRITABLE | IMAGE_NO_LOCK, NULL, &err);
	if (img) {
		image_pwrite(img, "data", 4, 70000);
		image_write_zeroes(img, 10000, 5000, false);
		if (n % 2)
			img->driver->snapshot_create(img, "first", &err);
		image_close(img);
	}
	uint8_t *data = read_file("seed.qcow2", max, &len, &err);
	if (data)
		memcpy(buf, data, len);
	else
		report("%s: %s", kinds[n], err.text);
	free(data);
	return data ? len : 0;
}

const struct fuzz_target fuzz_target = {
	.name = "qcow2", .runs = 1500, .max_len = 256 << 10, .seed = seed};
