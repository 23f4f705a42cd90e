/* SPDX-License-Identifier: MIT */
/* minivm-img snapshot and resize: commands that change an image in place. */
#include "block/image.h"
#include "lib/log.h"
#include "lib/text.h"
#include "tools/img.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

int img_snapshot(int argc, char **argv)
{
	static const struct option longs[] = {
		{"help", no_argument, 0, 'h'}, {"force-share", no_argument, 0, 'U'}, {0}};
	const char *format = NULL, *name = NULL;
	unsigned flags = IMAGE_NO_BACKING;
	int c, action = 'l';
	bool given = false;
	while ((c = img_getopt(argc, argv, ":f:la:c:d:qUh", longs)) != -1) {
		switch (c) {
		case 'f': format = optarg; break;
		case 'U': flags |= IMAGE_FORCE_SHARE; break;
		case 'q': break;
		case 'l':
		case 'a':
		case 'c':
		case 'd':
			if (given)
				return img_usage("snapshot: only one of -l, -a, -c and -d");
			given = true;
			action = c;
			name = optarg;
			break;
		case 'h':
			puts("minivm-img snapshot [-q] [-f fmt] [-U] [-l | -a name | -c name | -d "
			     "name] filename");
			return 0;
		default: return 1;
		}
	}
	if (optind != argc - 1)
		return img_usage("snapshot: expecting one image file name");
	if (action != 'l')
		flags = IMAGE_NO_BACKING | IMAGE_WRITABLE | IMAGE_DISCARD;
	struct error err = ERROR_INIT;
	struct image *img = image_open(argv[optind], format, flags, NULL, &err);
	if (!img)
		return img_fail(&err);
	const struct image_driver *d = img->driver;
	int (*change)(struct image *, const char *, struct error *) =
		action == 'a'   ? d->snapshot_apply
		: action == 'c' ? d->snapshot_create
				: d->snapshot_delete;
	int rc = 0;
	if (action == 'l') {
		struct image_info info;
		rc = image_get_info(img, &info);
		if (rc)
			error_errno(&err, -rc, "cannot read the snapshots of '%s'", img->path);
		if (info.snapshot_count)
			img_print_snapshots(&info);
		image_info_free(&info);
	} else if (!change) {
		rc = error_set(&err, ENOTSUP, "'%s': format '%s' has no snapshots", argv[optind],
			       d->name);
	} else {
		rc = change(img, name, &err);
	}
	image_close(img);
	return rc ? img_fail(&err) : 0;
}

int img_resize(int argc, char **argv)
{
	enum { OPT_SHRINK = 256 };
	static const struct option longs[] = {
		{"help", no_argument, 0, 'h'}, {"shrink", no_argument, 0, OPT_SHRINK}, {0}};
	const char *format = NULL;
	bool shrink = false, quiet = false;
	int c;
	/* "-1G" is a size, not an option: it comes last and is taken away first. */
	const char *text = argc > 2 ? argv[argc - 1] : NULL;
	if (text)
		argc--;
	while ((c = img_getopt(argc, argv, ":f:qh", longs)) != -1) {
		switch (c) {
		case 'f': format = optarg; break;
		case 'q': quiet = true; break;
		case OPT_SHRINK: shrink = true; break;
		case 'h':
			puts("minivm-img resize [-q] [-f fmt] [--shrink] filename [+|-]size");
			return 0;
		default: return 1;
		}
	}
	if (!text || optind != argc - 1)
		return img_usage("resize: expecting an image file name and a size");
	struct error err = ERROR_INIT;
	uint64_t amount, size;
	int sign = text[0] == '+' ? 1 : text[0] == '-' ? -1 : 0;
	if (parse_size(text + (sign != 0), 1, &amount, &err))
		return img_fail(&err);
	struct image *img =
		image_open(argv[optind], format, IMAGE_WRITABLE | IMAGE_DISCARD, NULL, &err);
	if (!img)
		return img_fail(&err);
	uint64_t old = image_size(img);
	int rc = 0;
	size = amount;
	if (sign > 0 && __builtin_add_overflow(old, amount, &size))
		rc = error_set(&err, EFBIG, "'%s' cannot grow by %s", argv[optind], text);
	if (sign < 0 && __builtin_sub_overflow(old, amount, &size))
		rc = error_set(&err, EINVAL, "'%s' has only %" PRIu64 " bytes", argv[optind], old);
	if (!rc && size < old && !shrink)
		rc = error_set(&err, EINVAL,
			       "'%s' would become smaller, which deletes what is at its end; say "
			       "--shrink if that is meant",
			       argv[optind]);
	if (!rc)
		rc = image_truncate(img, size, &err);
	image_close(img);
	if (!rc && !quiet)
		puts("Image resized.");
	return rc ? img_fail(&err) : 0;
}
