/* SPDX-License-Identifier: MIT */
/* minivm-img snapshot, resize and amend: commands that change an image in place. */
#include "block/image.h"
#include "lib/log.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include "tools/img.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int img_snapshot(int argc, char **argv)
{
	static const struct option longs[] = {{"help", no_argument, 0, 'h'},
					      {"force-share", no_argument, 0, 'U'},
					      {"image-opts", no_argument, 0, OPT_IMAGE_OPTS},
					      {0}};
	const char *format = NULL, *name = NULL;
	bool image_opts = false;
	unsigned flags = IMAGE_NO_BACKING;
	int c, action = 'l';
	bool given = false;
	while ((c = img_getopt(argc, argv, ":f:la:c:d:qUh", longs)) != -1) {
		switch (c) {
		case 'f': format = optarg; break;
		case 'U': flags |= IMAGE_FORCE_SHARE; break;
		case 'q': break; /* it prints nothing anyway */
		case OPT_IMAGE_OPTS: image_opts = true; break;
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
		case 'h': return 0;
		default: return 1;
		}
	}
	if (optind != argc - 1)
		return img_usage("snapshot: expecting one image file name");
	if (action != 'l')
		flags |= IMAGE_WRITABLE | IMAGE_DISCARD;
	struct error err = ERROR_INIT;
	struct image *img = img_open(argv[optind], format, image_opts, flags, &err);
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

/* Gives what a disk grew by its host space. */
static int preallocate(struct image *img, uint64_t old, const char *mode, struct error *err)
{
	if (strcmp(mode, "off") == 0)
		return 0;
	return img->driver->preallocate
		       ? img->driver->preallocate(img, old, image_size(img), mode, err)
		       : error_set(err, ENOTSUP, "'%s' cannot be preallocated", img->path);
}

int img_resize(int argc, char **argv)
{
	enum { OPT_SHRINK = OPT_FIRST_OWN, OPT_PREALLOCATION };
	static const struct option longs[] = {
		{"help", no_argument, 0, 'h'},
		{"shrink", no_argument, 0, OPT_SHRINK},
		{"preallocation", required_argument, 0, OPT_PREALLOCATION},
		{"image-opts", no_argument, 0, OPT_IMAGE_OPTS},
		{0}};
	const char *format = NULL, *mode = "off";
	bool shrink = false, quiet = false, image_opts = false;
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
		case OPT_PREALLOCATION: mode = optarg; break;
		case OPT_IMAGE_OPTS: image_opts = true; break;
		case 'h': return 0;
		default: return 1;
		}
	}
	if (!text || optind != argc - 1)
		return img_usage("resize: expecting an image file name and a size");
	if (strcmp(mode, "off") && strcmp(mode, "metadata") && strcmp(mode, "falloc") &&
	    strcmp(mode, "full"))
		return img_usage("resize: --preallocation must be off, metadata, falloc or full, "
				 "not '%s'",
				 mode);
	struct error err = ERROR_INIT;
	uint64_t amount, size;
	int sign = text[0] == '+' ? 1 : text[0] == '-' ? -1 : 0;
	if (parse_size(text + (sign != 0), 1, &amount, &err))
		return img_fail(&err);
	struct image *img =
		img_open(argv[optind], format, image_opts, IMAGE_WRITABLE | IMAGE_DISCARD, &err);
	if (!img)
		return img_fail(&err);
	uint64_t old = image_size(img);
	int rc = 0;
	size = amount;
	if (sign > 0 && __builtin_add_overflow(old, amount, &size))
		rc = error_set(&err, EFBIG, "'%s' cannot grow by %s", argv[optind], text);
	if (sign < 0 && __builtin_sub_overflow(old, amount, &size))
		rc = error_set(&err, EINVAL, "'%s' has only %" PRIu64 " bytes", argv[optind], old);
	if (!rc && size <= old && strcmp(mode, "off") != 0)
		rc = error_set(&err, EINVAL, "preallocation can only be used when growing '%s'",
			       argv[optind]);
	if (!rc && size < old && !shrink)
		rc = error_set(&err, EINVAL,
			       "'%s' would become smaller, which deletes what is at its end; say "
			       "--shrink if that is meant",
			       argv[optind]);
	if (!rc && strcmp(mode, "metadata") == 0 && !img->driver->make_empty)
		rc = error_set(&err, ENOTSUP, "images of format '%s' have no preallocation '%s'",
			       img->driver->name, mode);
	if (!rc)
		rc = image_truncate(img, size, &err);
	if (!rc && (rc = preallocate(img, old, mode, &err)))
		image_truncate(img, old, NULL); /* as it was */
	image_close(img);
	if (!rc && !quiet)
		puts("Image resized.");
	return rc ? img_fail(&err) : 0;
}

int img_amend(int argc, char **argv)
{
	enum { OPT_FORCE = OPT_FIRST_OWN };
	static const struct option longs[] = {{"help", no_argument, 0, 'h'},
					      {"image-opts", no_argument, 0, OPT_IMAGE_OPTS},
					      {"force", no_argument, 0, OPT_FORCE},
					      {0}};
	const char *format = NULL, *cache = NULL;
	struct strbuf text = STRBUF_INIT;
	bool quiet = false, image_opts = false, progress = false;
	unsigned flags = IMAGE_WRITABLE | IMAGE_DISCARD;
	struct error err = ERROR_INIT;
	int c;
	while ((c = img_getopt(argc, argv, ":f:o:pqt:h", longs)) != -1) {
		switch (c) {
		case 'f': format = optarg; break;
		case 'o': strbuf_printf(&text, "%s%s", text.len ? "," : "", optarg); break;
		case 'p': progress = true; break;
		case 'q': quiet = true; break;
		case 't': cache = optarg; break;
		case OPT_IMAGE_OPTS: image_opts = true; break;
		case OPT_FORCE: break; /* only changes of keys would ask for it */
		case 'h': return 0;
		default: return 1;
		}
	}
	if (!text.len)
		return img_usage("amend: the options to change are missing: add -o");
	if (img_wants_option_help(text.data) && (format || optind == argc)) {
		strbuf_free(&text);
		return format ? img_option_help(format, false, true)
			      : img_usage("amend: expecting one image file name, or -f");
	}
	if (optind != argc - 1)
		return img_usage("amend: expecting one image file name");
	struct opts o;
	if (!img_cache_flags(cache, "writeback", &flags))
		return 1;
	if (opts_parse(&o, text.data, NULL, &err))
		return img_fail(&err);
	strbuf_free(&text);
	struct image *img = img_open(argv[optind], format, image_opts, flags, &err);
	int rc = img ? 0 : -EINVAL;
	if (img && (opts_has(&o, "help") || opts_has(&o, "?"))) {
		format = img->driver->name;
		image_close(img);
		opts_free(&o);
		return img_option_help(format, false, true);
	}
	if (!rc)
		img_progress(progress && !quiet, 0, 1);
	if (!rc && !img->driver->amend)
		rc = error_set(&err, ENOTSUP, "format '%s' has no options that can be changed",
			       img->driver->name);
	if (!rc)
		rc = img->driver->amend(img, &o, &err);
	image_close(img);
	opts_free(&o);
	if (!rc)
		img_progress_end(progress && !quiet);
	return rc ? img_fail(&err) : 0;
}
