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

/* What -o takes. */
enum { FOR_RAW = 1, FOR_QCOW2 = 2, FOR_AMEND = 4, OF_FILE = 8 };

static const struct {
	const char *name, *help;
	unsigned use;
} options[] = {
	{"backing_file=<str>", "File name of the backing image", FOR_QCOW2 | FOR_AMEND},
	{"backing_fmt=<str>", "Its format", FOR_QCOW2 | FOR_AMEND},
	{"cluster_size=<size>", "512 to 2M, a power of two (default: 64k)", FOR_QCOW2},
	{"compat=<str>", "v2 (0.10) or v3 (1.1, the default)", FOR_QCOW2 | FOR_AMEND},
	{"compression_type=<str>", "zlib (default) or zstd", FOR_QCOW2},
	{"data_file=<str>", "File that holds the data, at the disk's offsets",
	 FOR_QCOW2 | FOR_AMEND},
	{"data_file_raw=<bool (on/off)>", "The data file is a raw image at all times",
	 FOR_QCOW2 | FOR_AMEND},
	{"extended_l2=<bool (on/off)>", "Clusters of 32 parts that are allocated on their own",
	 FOR_QCOW2},
	{"extent_size_hint=<size>",
	 "How much XFS allocates at a time; 0: as it likes (default: 1M)",
	 FOR_RAW | FOR_QCOW2 | OF_FILE},
	{"lazy_refcounts=<bool (on/off)>", "Refcounts may be written late", FOR_QCOW2 | FOR_AMEND},
	{"nocow=<bool (on/off)>", "No copy-on-write of the file's blocks (btrfs)",
	 FOR_RAW | FOR_QCOW2 | OF_FILE},
	{"preallocation=<str>", "off (default), metadata, falloc or full", FOR_QCOW2},
	{"preallocation=<str>", "off (default), falloc or full", FOR_RAW | OF_FILE},
	{"refcount_bits=<num>", "1 to 64, a power of two (default: 16)", FOR_QCOW2 | FOR_AMEND},
	{"size=<size>", "Size of the disk", FOR_RAW | FOR_QCOW2 | FOR_AMEND},
};

bool img_wants_option_help(const char *text)
{
	struct opts o;
	if (opts_parse(&o, text, NULL, NULL))
		return false;
	bool wanted = opts_has(&o, "help") || opts_has(&o, "?");
	opts_free(&o);
	return wanted;
}

int img_option_help(const char *format, bool with_file, bool amend)
{
	bool qcow2 = strcmp(format, "qcow2") == 0;
	if (!image_driver_find(format))
		return img_usage("unknown image format '%s'", format);
	if (amend && !image_driver_find(format)->amend)
		return img_usage("amend: format '%s' has no options that can be changed", format);
	if (amend)
		printf("Amend options for '%s':\n", format);
	else if (with_file)
		puts("Supported options:");
	else
		printf("Supported %s options:\n", format);
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		unsigned use = options[i].use;
		if (use & (qcow2 ? FOR_QCOW2 : FOR_RAW) && (!amend || use & FOR_AMEND) &&
		    (with_file || !(use & OF_FILE)))
			printf("  %-22s - %s\n", options[i].name, options[i].help);
	}
	if (!amend && !with_file)
		puts("\nThe file has further options: name it, too, to see them.");
	return 0;
}

static const char *or_default(struct opts *o, const char *key, const char *value)
{
	const char *given = opts_get(o, key);
	return given ? given : value;
}

/* As one would type it: a comma twice. */
static void say_value(const char *key, const char *value)
{
	printf(" %s=", key);
	for (; *value; value++)
		printf(*value == ',' ? ",," : "%c", *value);
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
			say_value(shown[i], opts_get(o, shown[i]));
	if (qcow2)
		printf(" lazy_refcounts=%s refcount_bits=%s",
		       or_default(o, "lazy_refcounts", "off"),
		       or_default(o, "refcount_bits", "16"));
	if (opts_has(o, "preallocation") && !qcow2)
		printf(" preallocation=%s", opts_get(o, "preallocation"));
	if (opts_has(o, "nocow"))
		printf(" nocow=%s", opts_get(o, "nocow"));
	uint64_t hint;
	if (opts_has(o, "extent_size_hint") && !opts_get_size(o, "extent_size_hint", &hint, NULL))
		printf(" extent_size_hint=%" PRIu64, hint);
	putchar('\n');
}

/* A new image that would overwrite what it is to lie on. */
static int check_own_backing(const char *path, const char *backing, struct error *err)
{
	char *where = path_combine(path, backing);
	char *a = realpath(path, NULL), *b = realpath(where, NULL);
	bool same = strcmp(path, where) == 0 || (a && b && strcmp(a, b) == 0);
	free(a);
	free(b);
	free(where);
	return same ? error_set(err, EINVAL, "'%s' cannot be its own backing file", path) : 0;
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
	if (img_wants_option_help(strbuf_str(&text))) {
		strbuf_free(&text);
		return img_option_help(format, optind < argc, false);
	}
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
		if (!rc && have_size)
			rc = error_set(&err, EINVAL, "'%s': the size is given twice", path);
		have_size = true;
	}
	if (!rc && optind < argc)
		rc = error_set(&err, EINVAL, "create: '%s' is one argument too many", argv[optind]);
	if (!rc && opts_has(&o, "backing_file") && strcmp(format, "qcow2") != 0)
		rc = error_set(&err, EINVAL, "an image of format '%s' cannot have a backing file",
			       format);
	const char *base = opts_get(&o, "backing_file");
	if (!rc && base && *base)
		rc = check_own_backing(path, base, &err);
	if (!rc && base && *base && unsafe && !opts_has(&o, "backing_fmt"))
		rc = error_set(&err, EINVAL, "the backing file '%s' needs its format: add -F",
			       base);
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
