/* SPDX-License-Identifier: MIT */
/* minivm-img bitmap: persistent dirty bitmaps of qcow2 images. */
#include "block/image.h"
#include "block/node.h"
#include "lib/log.h"
#include "lib/text.h"
#include "tools/img.h"
#include <errno.h>
#include <stdlib.h>

enum { OPT_ADD = OPT_FIRST_OWN, OPT_REMOVE, OPT_CLEAR, OPT_ENABLE, OPT_DISABLE, OPT_MERGE };

/* The actions, in the order of the command line. */
struct action {
	enum image_bitmap_op op;
	const char *source; /* of a merge */
};

struct bitmap_args {
	struct action *list;
	size_t count;
	const char *format, *source_file, *source_format;
	bool image_opts, add, merge;
	uint64_t granularity;
};

static void note(struct bitmap_args *a, enum image_bitmap_op op, const char *source)
{
	a->list = xrealloc(a->list, (a->count + 1) * sizeof(*a->list));
	a->list[a->count++] = (struct action){op, source};
	a->add |= op == BITMAP_ADD;
	a->merge |= op == BITMAP_MERGE;
}

/* 0, 1 after saying what is wrong, -1 after the help. */
static int parse(struct bitmap_args *a, int argc, char **argv)
{
	static const struct option longs[] = {{"help", no_argument, 0, 'h'},
					      {"image-opts", no_argument, 0, OPT_IMAGE_OPTS},
					      {"add", no_argument, 0, OPT_ADD},
					      {"remove", no_argument, 0, OPT_REMOVE},
					      {"clear", no_argument, 0, OPT_CLEAR},
					      {"enable", no_argument, 0, OPT_ENABLE},
					      {"disable", no_argument, 0, OPT_DISABLE},
					      {"merge", required_argument, 0, OPT_MERGE},
					      {0}};
	struct error err = ERROR_INIT;
	int o;
	while ((o = img_getopt(argc, argv, ":b:f:F:g:h", longs)) != -1) {
		switch (o) {
		case 'b': a->source_file = optarg; break;
		case 'f': a->format = optarg; break;
		case 'F': a->source_format = optarg; break;
		case 'g':
			if (parse_size(optarg, 1, &a->granularity, &err))
				return img_fail(&err);
			break;
		case OPT_IMAGE_OPTS: a->image_opts = true; break;
		case OPT_ADD: note(a, BITMAP_ADD, NULL); break;
		case OPT_REMOVE: note(a, BITMAP_REMOVE, NULL); break;
		case OPT_CLEAR: note(a, BITMAP_CLEAR, NULL); break;
		case OPT_ENABLE: note(a, BITMAP_ENABLE, NULL); break;
		case OPT_DISABLE: note(a, BITMAP_DISABLE, NULL); break;
		case OPT_MERGE: note(a, BITMAP_MERGE, optarg); break;
		case 'h': return -1;
		default: return 1;
		}
	}
	if (optind != argc - 2)
		return img_usage("bitmap: expecting the names of the image and of the bitmap");
	if (!a->count)
		return img_usage("bitmap: need at least one of --add, --remove, --clear, --enable, "
				 "--disable or --merge");
	if (a->granularity && !a->add)
		return img_usage("bitmap: -g is only for --add");
	if (a->source_file && !a->merge)
		return img_usage("bitmap: -b is only for --merge");
	if (a->source_format && !a->source_file)
		return img_usage("bitmap: -F needs -b");
	return 0;
}

int img_bitmap(int argc, char **argv)
{
	struct bitmap_args a = {0};
	struct error err = ERROR_INIT;
	int rc = parse(&a, argc, argv);
	struct image *img = NULL, *source = NULL;
	if (rc) {
		free(a.list);
		return rc > 0;
	}
	img = img_open(argv[optind], a.format, a.image_opts, IMAGE_WRITABLE | IMAGE_NO_BACKING,
		       &err);
	if (img && a.source_file)
		source = img_open(a.source_file, a.source_format, false, IMAGE_NO_BACKING, &err);
	if (!img || (a.source_file && !source))
		rc = -EINVAL;
	for (size_t i = 0; i < a.count && !rc; i++) {
		const struct image_bitmap_edit edit = {
			.op = a.list[i].op,
			.name = argv[optind + 1],
			.granularity = a.granularity,
			.source = source ? source : img,
			.source_name = a.list[i].source,
		};
		rc = image_bitmap_edit(img, &edit, &err);
	}
	image_close(source);
	image_close(img);
	free(a.list);
	return rc ? img_fail(&err) : 0;
}

/* ---- convert --bitmaps ---- */

int img_bitmaps_check(struct image *from, struct image *to, bool skip_broken, struct error *err)
{
	struct image_info info;
	int rc = 0;
	if (!from->driver->bitmap_edit || !to->driver->bitmap_edit)
		return error_set(err, ENOTSUP, "--bitmaps: format '%s' of '%s' has no bitmaps",
				 (from->driver->bitmap_edit ? to : from)->driver->name,
				 (from->driver->bitmap_edit ? to : from)->path);
	if (image_get_info(from, &info) < 0)
		return error_set(err, EIO, "cannot read the bitmaps of '%s'", from->path);
	for (size_t i = 0; i < info.bitmap_count && !rc && !skip_broken; i++)
		if (info.bitmaps[i].in_use)
			rc = error_set(err, EINVAL,
				       "cannot copy inconsistent bitmap '%s'; try "
				       "--skip-broken-bitmaps, or remove it with bitmap --remove",
				       info.bitmaps[i].name);
	image_info_free(&info);
	return rc;
}

int img_bitmaps_copy(struct image *from, struct image *to, struct error *err)
{
	struct image_info info;
	int rc = image_get_info(from, &info);
	for (size_t i = 0; i < info.bitmap_count && rc >= 0; i++) {
		const struct image_bitmap_info *b = &info.bitmaps[i];
		struct image_bitmap_edit edit = {.op = BITMAP_ADD,
						 .name = b->name,
						 .granularity = b->granularity,
						 .source = from,
						 .source_name = b->name};
		static const enum image_bitmap_op ops[] = {BITMAP_ADD, BITMAP_DISABLE,
							   BITMAP_MERGE};
		if (b->in_use) {
			warn("skipping inconsistent bitmap '%s'", b->name);
			continue;
		}
		for (size_t k = 0; k < 3 && rc >= 0; k++) {
			if (ops[k] == BITMAP_DISABLE && b->enabled)
				continue;
			edit.op = ops[k];
			rc = image_bitmap_edit(to, &edit, err);
		}
	}
	image_info_free(&info);
	return rc < 0 ? rc : 0;
}
