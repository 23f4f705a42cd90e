/* SPDX-License-Identifier: MIT */
/* minivm-img compare. */
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

enum { STEP = 256 << 10 };
/* Exit codes as documented for qemu-img compare. */
enum { SAME = 0, DIFFERENT = 1, NOT_OPENED = 2, NO_STATUS = 3, NOT_READ = 4 };

struct compare {
	struct image *img[2];
	uint8_t *buf[2];
	bool strict, quiet;
	struct error err;
};

static int read_both(struct compare *c, uint64_t at, size_t len)
{
	for (int i = 0; i < 2; i++) {
		struct iovec iov = {c->buf[i], len};
		int rc = image_read_padded(c->img[i], &iov, 1, at);
		if (rc) {
			error_errno(&c->err, -rc, "error while reading '%s' at byte %" PRIu64,
				    c->img[i]->path, at);
			return img_fail(&c->err) - 1 + NOT_READ;
		}
	}
	return SAME;
}

static int differ_at(struct compare *c, uint64_t at)
{
	if (!c->quiet)
		printf("Content mismatch at offset %" PRIu64 "!\n", round_down(at, 512));
	return DIFFERENT;
}

static int compare_range(struct compare *c, uint64_t at, uint64_t len)
{
	while (len) {
		size_t part = len < STEP ? (size_t)len : STEP;
		int result = read_both(c, at, part);
		if (result)
			return result;
		size_t same = img_differ(c->buf[0], c->buf[1], part);
		if (same < part)
			return differ_at(c, at + same);
		at += part;
		len -= part;
	}
	return SAME;
}

static int compare_all(struct compare *c, bool progress)
{
	uint64_t size[2] = {image_size(c->img[0]), image_size(c->img[1])};
	uint64_t common = size[0] < size[1] ? size[0] : size[1];
	uint64_t longest = size[0] > size[1] ? size[0] : size[1];
	if (c->strict && size[0] != size[1]) {
		if (!c->quiet)
			puts("Strict mode: Image size mismatch!");
		return DIFFERENT;
	}
	for (uint64_t at = 0; at < longest;) {
		uint64_t count[2], n;
		int status[2];
		if (at == common && !c->quiet)
			puts("Warning: Image size mismatch!");
		uint64_t stop = at < common ? common : longest;
		for (int i = 0; i < 2; i++) {
			count[i] = stop - at;
			status[i] = at < size[i]
					    ? image_chain_status(c->img[i], NULL, at, stop - at,
								 &count[i], NULL, NULL, NULL)
					    : BLOCK_ZERO;
			if (status[i] < 0) {
				error_errno(&c->err, -status[i], "error while examining '%s'",
					    c->img[i]->path);
				return img_fail(&c->err) - 1 + NO_STATUS;
			}
		}
		n = count[0] < count[1] ? count[0] : count[1];
		unsigned mask = BLOCK_DATA | BLOCK_ZERO | BLOCK_ALLOCATED | BLOCK_OFFSET_VALID;
		if (c->strict && ((unsigned)(status[0] ^ status[1]) & mask)) {
			if (!c->quiet)
				printf("Strict mode: Offset %" PRIu64 " block status mismatch!\n",
				       at);
			return DIFFERENT;
		}
		if (!(status[0] & status[1] & BLOCK_ZERO)) {
			if (n > STEP)
				n = STEP;
			int result = compare_range(c, at, n);
			if (result)
				return result;
		}
		at += n;
		img_progress(progress, at, longest);
	}
	return SAME;
}

int img_compare(int argc, char **argv)
{
	static const struct option longs[] = {{"help", no_argument, 0, 'h'},
					      {"force-share", no_argument, 0, 'U'},
					      {"image-opts", no_argument, 0, OPT_IMAGE_OPTS},
					      {0}};
	const char *format[2] = {NULL, NULL}, *cache = NULL;
	unsigned flags = 0;
	bool image_opts = false, progress = false;
	struct compare c = {0};
	int o;
	while ((o = img_getopt(argc, argv, ":f:F:T:pqsUh", longs)) != -1) {
		switch (o) {
		case 'f': format[0] = optarg; break;
		case 'F': format[1] = optarg; break;
		case 'T': cache = optarg; break;
		case 'p': progress = true; break;
		case 'q': c.quiet = true; break;
		case 's': c.strict = true; break;
		case 'U': flags |= IMAGE_FORCE_SHARE; break;
		case OPT_IMAGE_OPTS: image_opts = true; break;
		case 'h': return 0;
		default: return 1;
		}
	}
	if (optind != argc - 2)
		return img_usage("compare: expecting two image file names");
	if (!img_cache_flags(cache, "writeback", &flags))
		return NOT_OPENED;
	int result = SAME;
	for (int i = 0; i < 2 && !result; i++) {
		c.img[i] = img_open(argv[optind + i], format[i], image_opts, flags, &c.err);
		c.buf[i] = xmalloc(STEP);
		if (!c.img[i])
			result = img_fail(&c.err) - 1 + NOT_OPENED;
	}
	if (!result) {
		progress &= !c.quiet;
		result = compare_all(&c, progress);
		if (!result)
			img_progress_end(progress);
		if (!result && !c.quiet)
			puts("Images are identical.");
	}
	for (int i = 0; i < 2; i++) {
		image_close(c.img[i]);
		free(c.buf[i]);
	}
	return result;
}
