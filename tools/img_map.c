/* SPDX-License-Identifier: MIT */
/* minivm-img map and measure. */
#include "block/image.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include "tools/img.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A run of the disk with one status. */
struct entry {
	uint64_t start, len, offset;
	int depth;
	bool present, data, zero, has_offset;
	const char *file; /* where the offset counts, or NULL */
};

struct map {
	bool json, first;
	struct error err;
};

static int print_entry(struct map *m, const struct entry *e)
{
	if (m->json) {
		printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64
		       ", \"depth\": %d, \"present\": %s, \"zero\": %s, \"data\": %s",
		       m->first ? "" : ",\n", e->start, e->len, e->depth,
		       e->present ? "true" : "false", e->zero ? "true" : "false",
		       e->data ? "true" : "false");
		if (e->has_offset)
			printf(", \"offset\": %" PRIu64, e->offset);
		putchar('}');
		m->first = false;
		return 0;
	}
	if (e->data && !e->has_offset)
		return error_set(&m->err, EINVAL,
				 "File contains external, encrypted or compressed clusters.");
	if (e->data && !e->zero)
		printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", e->start, e->len,
		       e->has_offset ? e->offset : 0, e->file ? e->file : "");
	return 0;
}

static bool joins(const struct entry *a, const struct entry *b)
{
	return a->len && a->zero == b->zero && a->data == b->data && a->present == b->present &&
	       a->depth == b->depth && a->has_offset == b->has_offset && a->file == b->file &&
	       (!a->has_offset || a->offset + a->len == b->offset);
}

static int print_map(struct map *m, struct image *img, uint64_t start, uint64_t stop)
{
	struct entry now = {0};
	int rc = 0;
	for (uint64_t at = start; at < stop && !rc;) {
		struct image *where;
		struct entry e = {.start = at};
		int status = image_chain_status(img, NULL, at, stop - at, &e.len, &e.offset, &where,
						&e.depth);
		if (status < 0)
			return error_errno(&m->err, -status, "error while examining '%s'",
					   img->path);
		e.present = status & BLOCK_ALLOCATED;
		e.data = status & BLOCK_DATA;
		e.zero = status & BLOCK_ZERO;
		e.has_offset = status & BLOCK_OFFSET_VALID;
		e.file = e.has_offset ? image_data_path(where) : NULL;
		at += e.len;
		if (joins(&now, &e)) {
			now.len += e.len;
			continue;
		}
		if (now.len)
			rc = print_entry(m, &now);
		now = e;
	}
	if (!rc && !now.len && m->json) /* nothing to map: qemu-img says so with an empty run */
		now.start = start;
	return !rc && (now.len || m->json) ? print_entry(m, &now) : rc;
}

int img_map(int argc, char **argv)
{
	enum { OPT_START = OPT_FIRST_OWN, OPT_LENGTH };
	static const struct option longs[] = {{"help", no_argument, 0, 'h'},
					      {"format", required_argument, 0, 'f'},
					      {"output", required_argument, 0, OPT_OUTPUT},
					      {"force-share", no_argument, 0, 'U'},
					      {"image-opts", no_argument, 0, OPT_IMAGE_OPTS},
					      {"start-offset", required_argument, 0, OPT_START},
					      {"max-length", required_argument, 0, OPT_LENGTH},
					      {0}};
	const char *format = NULL;
	unsigned flags = 0;
	bool image_opts = false;
	uint64_t start = 0, length = UINT64_MAX;
	struct map m = {.first = true};
	int c, json = 0;
	while ((c = img_getopt(argc, argv, ":f:s:l:Uh", longs)) != -1) {
		switch (c) {
		case 'f': format = optarg; break;
		case 'U': flags |= IMAGE_FORCE_SHARE; break;
		case OPT_IMAGE_OPTS: image_opts = true; break;
		case 's':
		case OPT_START:
			if (parse_size(optarg, 1, &start, &m.err))
				return img_fail(&m.err);
			break;
		case 'l':
		case OPT_LENGTH:
			if (parse_size(optarg, 1, &length, &m.err))
				return img_fail(&m.err);
			break;
		case OPT_OUTPUT:
			json = img_output(optarg);
			if (json < 0)
				return 1;
			break;
		case 'h': return 0;
		default: return 1;
		}
	}
	if (optind != argc - 1)
		return img_usage("map: expecting one image file name");
	struct image *img = img_open(argv[optind], format, image_opts, flags, &m.err);
	if (!img)
		return img_fail(&m.err);
	m.json = json;
	if (json)
		putchar('[');
	else
		printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
	uint64_t stop = image_size(img);
	if (start < stop && length < stop - start)
		stop = start + length;
	int rc = print_map(&m, img, start, stop);
	if (json)
		puts("]");
	image_close(img);
	return rc ? img_fail(&m.err) : 0;
}

/* Opens what is to be measured, at the snapshot that was asked for. */
static struct image *open_measured(const char *name, const char *format, bool image_opts,
				   unsigned flags, const char *snapshot, struct error *err)
{
	struct image *img = img_open(name, format, image_opts, flags, err);
	int rc = 0;
	if (img && snapshot)
		rc = image_load_snapshot(img, snapshot, err);
	if (rc) {
		image_close(img);
		return NULL;
	}
	return img;
}

int img_measure(int argc, char **argv)
{
	enum { OPT_SIZE = OPT_FIRST_OWN };
	static const struct option longs[] = {{"help", no_argument, 0, 'h'},
					      {"image-opts", no_argument, 0, OPT_IMAGE_OPTS},
					      {"output", required_argument, 0, OPT_OUTPUT},
					      {"size", required_argument, 0, OPT_SIZE},
					      {"force-share", no_argument, 0, 'U'},
					      {0}};
	const char *format = NULL, *out_format = "raw", *snapshot = NULL;
	struct strbuf text = STRBUF_INIT;
	struct error err = ERROR_INIT;
	bool image_opts = false, has_size = false;
	unsigned flags = 0;
	uint64_t size = 0;
	int c, json = 0;
	while ((c = img_getopt(argc, argv, ":f:l:o:O:Uh", longs)) != -1) {
		switch (c) {
		case 'f': format = optarg; break;
		case 'O': out_format = optarg; break;
		case 'l': snapshot = optarg; break;
		case 'o': strbuf_printf(&text, "%s%s", text.len ? "," : "", optarg); break;
		case 'U': flags |= IMAGE_FORCE_SHARE; break;
		case OPT_IMAGE_OPTS: image_opts = true; break;
		case OPT_SIZE:
			if (parse_size(optarg, 1, &size, &err))
				return img_fail(&err);
			has_size = true;
			break;
		case OPT_OUTPUT:
			json = img_output(optarg);
			if (json < 0)
				return 1;
			break;
		case 'h': return 0;
		default: return 1;
		}
	}
	if (has_size == (optind == argc - 1) || optind < argc - 1)
		return img_usage("measure: expecting either --size or one image file name");
	const struct image_driver *driver = image_driver_find(out_format);
	if (!driver || !driver->measure)
		return img_usage("unknown image format '%s'", out_format);
	struct opts o;
	if (opts_parse(&o, strbuf_str(&text), NULL, &err))
		return img_fail(&err);
	strbuf_free(&text);
	struct image *from = NULL;
	int rc = 0;
	if (!has_size) {
		from = open_measured(argv[optind], format, image_opts, flags, snapshot, &err);
		rc = from ? 0 : -EINVAL;
		size = from ? image_size(from) : 0;
	}
	struct image_measure m = {0};
	if (!rc)
		rc = driver->measure(&o, from, size, &m, &err);
	image_close(from);
	opts_free(&o);
	if (rc)
		return img_fail(&err);
	if (json) {
		puts("{");
		if (m.has_bitmaps)
			printf("    \"bitmaps\": %" PRIu64 ",\n", m.bitmaps);
		printf("    \"required\": %" PRIu64 ",\n    \"fully-allocated\": %" PRIu64 "\n}\n",
		       m.required, m.fully_allocated);
	} else {
		printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n",
		       m.required, m.fully_allocated);
		if (m.has_bitmaps)
			printf("bitmaps size: %" PRIu64 "\n", m.bitmaps);
	}
	return 0;
}
