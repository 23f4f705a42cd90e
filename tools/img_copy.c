/* SPDX-License-Identifier: MIT */
/* minivm-img convert and compare: commands that read images through. */
#include "block/image.h"
#include "block/node.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include "tools/img.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEP = 2 << 20, GRAIN = 4096 };

static bool all_zero(const uint8_t *p, size_t len)
{
	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

/* Copies one step; what is zero stays a hole. The target reads as zeroes so far. */
static int copy_step(struct image *to, const uint8_t *buf, size_t len, uint64_t at)
{
	size_t i = 0;
	while (i < len) {
		size_t n = len - i < GRAIN ? len - i : GRAIN, start = i;
		bool zero = all_zero(buf + i, n);
		while (i < len) {
			n = len - i < GRAIN ? len - i : GRAIN;
			if (all_zero(buf + i, n) != zero)
				break;
			i += n;
		}
		if (!zero) {
			int rc = image_pwrite(to, buf + start, i - start, at + start);
			if (rc)
				return rc;
		}
	}
	return 0;
}

static int copy_all(struct image *from, struct image *to, struct error *err)
{
	uint8_t *buf = xmalloc(STEP);
	uint64_t size = image_size(from);
	int rc = 0;
	for (uint64_t at = 0; at < size && !rc;) {
		size_t len = size - at < STEP ? (size_t)(size - at) : STEP;
		if (!image_reads_zero(from, at, len)) {
			rc = image_pread(from, buf, len, at);
			if (rc) {
				error_errno(err, -rc, "cannot read '%s' at %" PRIu64, from->path,
					    at);
				break;
			}
			rc = copy_step(to, buf, len, at);
			if (rc)
				error_errno(err, -rc, "cannot write '%s' at %" PRIu64, to->path,
					    at);
		}
		at += len;
	}
	free(buf);
	if (!rc && (rc = image_flush(to)))
		error_errno(err, -rc, "cannot write '%s'", to->path);
	return rc;
}

int img_convert(int argc, char **argv)
{
	static const struct option longs[] = {
		{"help", no_argument, 0, 'h'}, {"force-share", no_argument, 0, 'U'}, {0}};
	const char *format = NULL, *out_format = "raw", *options = "";
	unsigned flags = 0;
	int c;
	while ((c = img_getopt(argc, argv, ":f:O:o:qUh", longs)) != -1) {
		switch (c) {
		case 'f': format = optarg; break;
		case 'O': out_format = optarg; break;
		case 'o': options = optarg; break;
		case 'q': break;
		case 'U': flags |= IMAGE_FORCE_SHARE; break;
		case 'h':
			puts("minivm-img convert [-q] [-U] [-f fmt] [-O fmt] [-o options] filename "
			     "output_filename");
			return 0;
		default: return 1;
		}
	}
	if (optind != argc - 2)
		return img_usage("convert: expecting two image file names");
	struct error err = ERROR_INIT;
	struct opts o;
	if (opts_parse(&o, options, NULL, &err))
		return img_fail(&err);
	struct image *to = NULL;
	struct image *from = image_open(argv[optind], format, flags, NULL, &err);
	int rc = from ? 0 : -EINVAL;
	if (!rc)
		rc = image_create(argv[optind + 1], out_format, image_size(from), &o, &err);
	if (!rc)
		to = image_open(argv[optind + 1], out_format, IMAGE_WRITABLE | IMAGE_NO_BACKING,
				NULL, &err);
	if (!rc)
		rc = to ? copy_all(from, to, &err) : -EINVAL;
	image_close(to);
	image_close(from);
	opts_free(&o);
	return rc ? img_fail(&err) : 0;
}

/* First byte at which they differ from `at` on within len; len if none. */
static size_t differ(const uint8_t *a, const uint8_t *b, size_t len)
{
	if (memcmp(a, b, len) == 0)
		return len;
	size_t i = 0;
	while (a[i] == b[i])
		i++;
	return i;
}

int img_compare(int argc, char **argv)
{
	static const struct option longs[] = {
		{"help", no_argument, 0, 'h'}, {"force-share", no_argument, 0, 'U'}, {0}};
	const char *format[2] = {NULL, NULL};
	unsigned flags = 0;
	bool strict = false, quiet = false;
	int c;
	while ((c = img_getopt(argc, argv, ":f:F:qsUh", longs)) != -1) {
		switch (c) {
		case 'f': format[0] = optarg; break;
		case 'F': format[1] = optarg; break;
		case 'q': quiet = true; break;
		case 's': strict = true; break;
		case 'U': flags |= IMAGE_FORCE_SHARE; break;
		case 'h':
			puts("minivm-img compare [-f fmt] [-F fmt] [-q] [-s] [-U] filename1 "
			     "filename2");
			return 0;
		default: return 2;
		}
	}
	if (optind != argc - 2)
		return img_usage("compare: expecting two image file names") + 1;
	struct error err = ERROR_INIT;
	struct image *a = image_open(argv[optind], format[0], flags, NULL, &err);
	struct image *b = a ? image_open(argv[optind + 1], format[1], flags, NULL, &err) : NULL;
	if (!b) {
		image_close(a);
		return img_fail(&err) + 1;
	}
	uint64_t size = image_size(a) > image_size(b) ? image_size(a) : image_size(b);
	uint8_t *buf = xmalloc(2 * (size_t)STEP);
	int result = 0;
	if (image_size(a) != image_size(b)) {
		if (strict) {
			if (!quiet)
				puts("Strict mode: Image size mismatch!");
			result = 1;
		} else if (!quiet) {
			puts("Warning: Image size mismatch!");
		}
	}
	for (uint64_t at = 0; at < size && !result; at += STEP) {
		size_t len = size - at < STEP ? (size_t)(size - at) : STEP;
		if (image_reads_zero(a, at, len) && image_reads_zero(b, at, len))
			continue;
		struct iovec va = {buf, len}, vb = {buf + STEP, len};
		int rc = image_read_padded(a, &va, 1, at);
		if (rc) {
			error_errno(&err, -rc, "cannot read '%s' at %" PRIu64, a->path, at);
			result = img_fail(&err) + 3;
			break;
		}
		rc = image_read_padded(b, &vb, 1, at);
		if (rc) {
			error_errno(&err, -rc, "cannot read '%s' at %" PRIu64, b->path, at);
			result = img_fail(&err) + 3;
			break;
		}
		size_t where = differ(buf, buf + STEP, len);
		if (where < len) {
			if (!quiet)
				printf("Content mismatch at offset %" PRIu64 "!\n",
				       round_down(at + where, 512));
			result = 1;
		}
	}
	if (!result && !quiet)
		puts("Images are identical.");
	free(buf);
	image_close(a);
	image_close(b);
	return result;
}
