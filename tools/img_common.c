/* SPDX-License-Identifier: MIT */
/* What several commands of minivm-img share. */
#include "block/image.h"
#include "lib/log.h"
#include "lib/optstr.h"
#include "lib/text.h"
#include "tools/img.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef HAVE_JSONC
#include <json-c/json.h>
#endif

struct image *img_open(const char *name, const char *format, bool image_opts, unsigned flags,
		       struct error *err)
{
	if (!image_opts)
		return image_open(name, format, flags, NULL, err);
	struct opts o;
	if (format) {
		error_set(err, EINVAL, "--image-opts and a format do not go together: say driver=");
		return NULL;
	}
	if (opts_parse(&o, name, NULL, err))
		return NULL;
	struct image *img = image_open_described(&o, flags, err);
	if (!img)
		error_prefix(err, "--image-opts");
	opts_free(&o);
	if (img && (flags & IMAGE_WRITABLE) && !image_writable(img)) {
		error_set(err, EPERM, "'%s' is to be changed: leave read-only=on out", name);
		image_close(img);
		img = NULL;
	}
	return img;
}

bool img_cache_flags(const char *mode, const char *otherwise, unsigned *flags)
{
	static const struct {
		const char *name;
		unsigned flags;
	} modes[] = {{"none", IMAGE_DIRECT},
		     {"off", IMAGE_DIRECT},
		     {"writeback", 0},
		     {"writethrough", IMAGE_WRITETHROUGH},
		     {"directsync", IMAGE_DIRECT | IMAGE_WRITETHROUGH},
		     {"unsafe", IMAGE_NO_FLUSH}};
	if (!mode)
		mode = otherwise;
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (strcmp(mode, modes[i].name) == 0) {
			*flags |= modes[i].flags;
			return true;
		}
	}
	img_usage("unknown cache mode '%s'; there are none, writeback, writethrough, directsync "
		  "and unsafe",
		  mode);
	return false;
}

size_t img_differ(const uint8_t *a, const uint8_t *b, size_t len)
{
	if (memcmp(a, b, len) == 0)
		return len;
	size_t i = 0;
	while (a[i] == b[i])
		i++;
	return i;
}

void img_progress(bool shown, uint64_t done, uint64_t total)
{
	static int last = -1;
	if (!shown)
		return;
	double percent = total ? (double)done * 100.0 / (double)total : 100.0;
	if ((int)(percent * 10) == last)
		return;
	last = (int)(percent * 10);
	printf("    (%3.2f/100%%)\r", percent);
	fflush(stdout);
}

void img_progress_end(bool shown)
{
	if (shown)
		printf("    (100.00/100%%)\r\n");
}

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void img_rate_wait(struct img_rate *rate, uint64_t bytes)
{
	if (!rate->bytes_per_second)
		return;
	if (!rate->start_ns)
		rate->start_ns = now_ns();
	rate->done += bytes;
	double due = (double)rate->done / (double)rate->bytes_per_second;
	double passed = (double)(now_ns() - rate->start_ns) / 1e9;
	if (due > passed) {
		struct timespec t = {.tv_sec = (time_t)(due - passed)};
		t.tv_nsec = (long)((due - passed - (double)t.tv_sec) * 1e9);
		nanosleep(&t, NULL);
	}
}

#ifdef HAVE_JSONC
void img_print_json(struct json_object *o)
{
	/* json-c indents by two, qemu-img by four. Strings hold no line ends, so that what stands
	 * first in a line is indentation. */
	const char *p = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY |
								  JSON_C_TO_STRING_SPACED |
								  JSON_C_TO_STRING_NOSLASHESCAPE);
	while (*p) {
		size_t indent = strspn(p, " "), len = strcspn(p, "\n");
		printf("%*s%.*s\n", (int)indent, "", (int)len, p);
		p += len + (p[len] == '\n');
	}
	json_object_put(o);
}
#endif
