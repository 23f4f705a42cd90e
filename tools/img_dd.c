/* SPDX-License-Identifier: MIT */
/* minivm-img dd. */
#include "block/image.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include "tools/img.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct dd {
	const char *in, *out, *format, *out_format;
	uint64_t bs, count, skip;
	bool has_count, image_opts;
	unsigned flags;
};

/* One of the name=value words. */
static int dd_operand(struct dd *d, const char *word, struct error *err)
{
	const char *value = strchr(word, '=');
	size_t n = value ? (size_t)(value - word) : 0;
	if (!value)
		return error_set(err, EINVAL, "dd: '%s' is no operand such as if=FILE", word);
	value++;
	if (n == 2 && !strncmp(word, "if", n)) {
		d->in = value;
	} else if (n == 2 && !strncmp(word, "of", n)) {
		d->out = value;
	} else if (n == 2 && !strncmp(word, "bs", n)) {
		int rc = parse_size(value, 1, &d->bs, err);
		if (!rc && (d->bs == 0 || d->bs > INT32_MAX))
			rc = error_set(err, EINVAL, "dd: bs must be from 1 to 2G, not '%s'", value);
		return rc;
	} else if (n == 5 && !strncmp(word, "count", n)) {
		d->has_count = true;
		return parse_size(value, 1, &d->count, err);
	} else if (n == 4 && !strncmp(word, "skip", n)) {
		return parse_size(value, 1, &d->skip, err);
	} else {
		return error_set(err, EINVAL, "dd: unknown operand '%.*s'", (int)n, word);
	}
	return 0;
}

static int dd_copy(struct dd *d, struct image *from, struct error *err)
{
	uint64_t size = image_size(from), start, end, wanted;
	if (__builtin_mul_overflow(d->bs, d->skip, &start) || start > size) {
		warn("dd: cannot skip to the specified offset");
		start = size;
	}
	end = size;
	if (d->has_count && !__builtin_mul_overflow(d->bs, d->count, &wanted) &&
	    wanted < size - start)
		end = start + wanted;
	int rc = image_create(d->out, d->out_format, end - start, NULL, err);
	if (rc)
		return rc;
	struct image *to = image_open(d->out, d->out_format,
				      IMAGE_WRITABLE | IMAGE_DISCARD | IMAGE_NO_BACKING, NULL, err);
	if (!to)
		return -EIO;
	size_t step = d->bs < MIB ? (size_t)(MIB / d->bs * d->bs) : (size_t)d->bs;
	uint8_t *buf = malloc(step);
	if (!buf)
		rc = error_errno(err, ENOMEM, "dd");
	for (uint64_t at = start; at < end && !rc; at += step) {
		size_t len = end - at < step ? (size_t)(end - at) : step;
		rc = image_pread(from, buf, len, at);
		if (rc)
			error_errno(err, -rc, "error while reading from '%s'", d->in);
		else if ((rc = image_pwrite(to, buf, len, at - start)))
			error_errno(err, -rc, "error while writing to '%s'", d->out);
	}
	if (!rc && (rc = image_flush(to)))
		error_errno(err, -rc, "error while writing to '%s'", d->out);
	free(buf);
	image_close(to);
	return rc;
}

int img_dd(int argc, char **argv)
{
	static const struct option longs[] = {{"help", no_argument, 0, 'h'},
					      {"image-opts", no_argument, 0, OPT_IMAGE_OPTS},
					      {"force-share", no_argument, 0, 'U'},
					      {0}};
	struct dd d = {.bs = 512, .out_format = "raw"};
	struct error err = ERROR_INIT;
	int c;
	while ((c = img_getopt(argc, argv, ":f:O:Uh", longs)) != -1) {
		switch (c) {
		case 'f': d.format = optarg; break;
		case 'O': d.out_format = optarg; break;
		case 'U': d.flags |= IMAGE_FORCE_SHARE; break;
		case OPT_IMAGE_OPTS: d.image_opts = true; break;
		case 'h': return 0;
		default: return 1;
		}
	}
	for (; optind < argc; optind++)
		if (dd_operand(&d, argv[optind], &err))
			return img_fail(&err);
	if (!d.in || !d.out)
		return img_usage("dd: must specify both input and output: if=FILE of=FILE");
	struct image *from = img_open(d.in, d.format, d.image_opts, d.flags, &err);
	int rc = from ? dd_copy(&d, from, &err) : -EINVAL;
	image_close(from);
	return rc ? img_fail(&err) : 0;
}
