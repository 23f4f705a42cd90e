/* SPDX-License-Identifier: MIT */
/* minivm-img create. */
#include "block/image.h"
#include "block/path.h"
#include "lib/log.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include "tools/img.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int option_help(const char *format)
{
	printf("Supported %s options:\n", format);
	if (strcmp(format, "qcow2") == 0)
		puts("  backing_file=<str>     - file name of a base image\n"
		     "  backing_fmt=<str>      - format of the base image\n"
		     "  cluster_size=<size>    - 512 to 2M, a power of two (default 64k)\n"
		     "  compat=<str>           - 0.10 (v2) or 1.1 (v3, default)\n"
		     "  compression_type=<str> - zlib (default) or zstd\n"
		     "  data_file=<str>        - file that holds the data, at the disk's offsets\n"
		     "  data_file_raw=<bool>   - the data file is a raw image at all times\n"
		     "  extended_l2=<bool>     - clusters of 32 parts, allocated on their own\n"
		     "  lazy_refcounts=<bool>  - lets refcounts be written late\n"
		     "  preallocation=<str>    - off (default), metadata, falloc, full\n"
		     "  refcount_bits=<num>    - 1 to 64, a power of two (default 16)");
	else
		puts("  preallocation=<str>    - off (default), falloc, full");
	puts("  size=<size>            - size of the disk");
	return 0;
}

static const char *or_default(struct opts *o, const char *key, const char *value)
{
	const char *given = opts_get(o, key);
	return given ? given : value;
}

/* The line that qemu-img prints, with the options in its order. */
static void say(const char *path, const char *format, uint64_t size, struct opts *o)
{
	printf("Formatting '%s', fmt=%s", path, format);
	bool qcow2 = strcmp(format, "qcow2") == 0;
	if (qcow2) {
		uint64_t cluster = 65536;
		opts_get_size(o, "cluster_size", &cluster, NULL);
		printf(" cluster_size=%" PRIu64 " extended_l2=%s", cluster,
		       or_default(o, "extended_l2", "off"));
		if (opts_has(o, "preallocation"))
			printf(" preallocation=%s", opts_get(o, "preallocation"));
		printf(" compression_type=%s", or_default(o, "compression_type", "zlib"));
	}
	printf(" size=%" PRIu64, size);
	static const char *const shown[] = {"compat", "backing_file", "backing_fmt", "data_file",
					    "data_file_raw"};
	for (size_t i = 0; qcow2 && i < 5; i++)
		if (opts_has(o, shown[i]))
			printf(" %s=%s", shown[i], opts_get(o, shown[i]));
	if (qcow2)
		printf(" lazy_refcounts=%s refcount_bits=%s",
		       or_default(o, "lazy_refcounts", "off"),
		       or_default(o, "refcount_bits", "16"));
	if (opts_has(o, "preallocation") && !qcow2)
		printf(" preallocation=%s", opts_get(o, "preallocation"));
	putchar('\n');
}

/* Looks at the backing file: it must open, and its size is the default for the new image. */
static int examine_backing(const char *path, struct opts *o, uint64_t *size, bool have_size,
			   struct error *err)
{
	const char *backing = opts_get(o, "backing_file"), *format = opts_get(o, "backing_fmt");
	char *where = path_combine(path, backing);
	struct image *img = image_open(where, format, IMAGE_FORCE_SHARE, NULL, err);
	free(where);
	if (!img) {
		error_prefix(err, "the backing file '%s' of '%s' cannot be used", backing, path);
		return -EINVAL;
	}
	int rc = 0;
	if (!have_size)
		*size = image_size(img);
	if (!format)
		rc = error_set(
			err, EINVAL,
			"a backing file needs its format: add -F %s, which is what '%s' looks "
			"like",
			img->driver->name, backing);
	image_close(img);
	return rc;
}

int img_create(int argc, char **argv)
{
	static const struct option longs[] = {{"help", no_argument, 0, 'h'}, {0}};
	const char *format = "raw", *backing = NULL, *backing_format = NULL;
	bool quiet = false, unsafe = false, have_size = false;
	struct strbuf text = STRBUF_INIT;
	struct error err = ERROR_INIT;
	uint64_t size = 0;
	int c;
	while ((c = img_getopt(argc, argv, ":f:b:F:o:quh", longs)) != -1) {
		switch (c) {
		case 'f': format = optarg; break;
		case 'b': backing = optarg; break;
		case 'F': backing_format = optarg; break;
		case 'o': strbuf_printf(&text, "%s%s", text.len ? "," : "", optarg); break;
		case 'q': quiet = true; break;
		case 'u': unsafe = true; break;
		case 'h': return 0;
		default: return 1;
		}
	}
	if (!image_driver_find(format)) {
		const char *near = nearest_word(format, image_formats());
		return near ? img_usage("unknown image format '%s', did you mean '%s'?", format,
					near)
			    : img_usage("unknown image format '%s'", format);
	}
	if (strcmp(strbuf_str(&text), "help") == 0 || strcmp(strbuf_str(&text), "?") == 0)
		return option_help(format);
	if (optind >= argc)
		return img_usage("create: the file name is missing");
	const char *path = argv[optind++];
	struct opts o;
	if (opts_parse(&o, strbuf_str(&text), NULL, &err))
		return img_fail(&err);
	strbuf_free(&text);
	int rc = 0;
	if (backing)
		opts_set(&o, "backing_file", backing);
	if (backing_format)
		opts_set(&o, "backing_fmt", backing_format);
	have_size = opts_has(&o, "size");
	rc = opts_get_size(&o, "size", &size, &err);
	if (!rc && optind < argc) {
		rc = parse_size(argv[optind++], 1, &size, &err);
		have_size = true;
	}
	if (!rc && optind < argc)
		rc = error_set(&err, EINVAL, "create: '%s' is one argument too many", argv[optind]);
	if (!rc && opts_has(&o, "backing_file") && strcmp(format, "qcow2") != 0)
		rc = error_set(&err, EINVAL, "an image of format '%s' cannot have a backing file",
			       format);
	if (!rc && opts_has(&o, "backing_file") && !unsafe)
		rc = examine_backing(path, &o, &size, have_size, &err);
	else if (!rc && !have_size)
		rc = error_set(&err, EINVAL, "'%s' needs a size, such as 10G", path);
	have_size = true;
	if (!rc && opts_has(&o, "backing_fmt") && !image_driver_find(opts_get(&o, "backing_fmt")))
		rc = error_set(&err, EINVAL, "unknown backing format '%s'",
			       opts_get(&o, "backing_fmt"));
	if (!rc) {
		rc = image_create(path, format, size, &o, &err);
		if (!rc && !quiet)
			say(path, format, size, &o);
	}
	opts_free(&o);
	return rc ? img_fail(&err) : 0;
}
