/* SPDX-License-Identifier: MIT */
/* minivm-img check. */
#include "block/image.h"
#include "lib/log.h"
#include "lib/text.h"
#include "tools/img.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#ifdef HAVE_JSONC
#include <json-c/json.h>
#endif

/* Exit codes, as documented for qemu-img check. */
enum { SOUND = 0, NOT_DONE = 1, DAMAGED = 2, LEAKS = 3, UNSUPPORTED = 63 };

static void print_human(const struct image_check *r)
{
	if (!r->corruptions && !r->leaks && !r->check_errors)
		puts("No errors were found on the image.");
	if (r->corruptions)
		printf("\n%" PRIu64 " errors were found on the image.\n"
		       "Data may be corrupted, or further writes to the image may corrupt it.\n",
		       r->corruptions);
	if (r->leaks)
		printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
		       "This means waste of disk space, but no harm to data.\n",
		       r->leaks);
	if (r->check_errors)
		printf("\n%" PRIu64 " internal errors have occurred during the check.\n",
		       r->check_errors);
	if (r->total_clusters && r->allocated_clusters)
		printf("%" PRIu64 "/%" PRIu64 " = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% "
		       "compressed clusters\n",
		       r->allocated_clusters, r->total_clusters,
		       (double)r->allocated_clusters * 100.0 / (double)r->total_clusters,
		       (double)r->fragmented_clusters * 100.0 / (double)r->allocated_clusters,
		       (double)r->compressed_clusters * 100.0 / (double)r->allocated_clusters);
	if (r->image_end_offset)
		printf("Image end offset: %" PRIu64 "\n", r->image_end_offset);
}

#ifdef HAVE_JSONC
static void add(struct json_object *o, const char *key, uint64_t value, bool always)
{
	if (value || always)
		json_object_object_add(o, key, json_object_new_int64((int64_t)value));
}

static void print_json(const char *name, const char *format, const struct image_check *r)
{
	struct json_object *o = json_object_new_object();
	add(o, "image-end-offset", r->image_end_offset, false);
	add(o, "compressed-clusters", r->compressed_clusters, false);
	add(o, "total-clusters", r->total_clusters, false);
	add(o, "check-errors", r->check_errors, true);
	add(o, "allocated-clusters", r->allocated_clusters, false);
	add(o, "corruptions", r->corruptions, false);
	add(o, "leaks", r->leaks, false);
	add(o, "corruptions-fixed", r->corruptions_fixed, false);
	add(o, "leaks-fixed", r->leaks_fixed, false);
	json_object_object_add(o, "filename", json_object_new_string(name));
	json_object_object_add(o, "format", json_object_new_string(format));
	add(o, "fragmented-clusters", r->fragmented_clusters, false);
	img_print_json(o);
}
#endif

int img_check(int argc, char **argv)
{
	static const struct option longs[] = {{"help", no_argument, 0, 'h'},
					      {"format", required_argument, 0, 'f'},
					      {"repair", required_argument, 0, 'r'},
					      {"output", required_argument, 0, OPT_OUTPUT},
					      {"force-share", no_argument, 0, 'U'},
					      {"image-opts", no_argument, 0, OPT_IMAGE_OPTS},
					      {0}};
	const char *format = NULL, *cache = NULL;
	bool image_opts = false;
	unsigned flags = IMAGE_CHECK;
	bool quiet = false;
	int c, json = 0, fix = 0;
	while ((c = img_getopt(argc, argv, ":f:r:T:qUh", longs)) != -1) {
		switch (c) {
		case 'f': format = optarg; break;
		case 'T': cache = optarg; break;
		case OPT_IMAGE_OPTS: image_opts = true; break;
		case 'q': quiet = true; break;
		case 'U': flags |= IMAGE_FORCE_SHARE; break;
		case 'r':
			if (strcmp(optarg, "leaks") == 0)
				fix = IMAGE_FIX_LEAKS;
			else if (strcmp(optarg, "all") == 0)
				fix = IMAGE_FIX_LEAKS | IMAGE_FIX_ERRORS;
			else
				return img_usage("-r must be 'leaks' or 'all', not '%s'", optarg);
			flags |= IMAGE_WRITABLE;
			break;
		case OPT_OUTPUT:
			json = img_output(optarg);
			if (json < 0)
				return NOT_DONE;
			break;
		case 'h': return 0;
		default: return NOT_DONE;
		}
	}
	if (optind != argc - 1)
		return img_usage("check: expecting one image file name");
	const char *name = argv[optind];
	if (!img_cache_flags(cache, "writeback", &flags))
		return NOT_DONE;
	struct error err = ERROR_INIT;
	struct image_check r;
	struct image *img = img_open(name, format, image_opts, flags, &err);
	if (!img)
		return img_fail(&err);
	const char *found = img->driver->name;
	int rc = image_run_check(img, fix, &r, &err);
	if (rc == -ENOTSUP) {
		report("This image format does not support checks");
		image_close(img);
		return UNSUPPORTED;
	}
	if (!rc && (r.corruptions_fixed || r.leaks_fixed)) {
		uint64_t corruptions = r.corruptions_fixed, leaks = r.leaks_fixed;
		if (!quiet && !json)
			printf("The following inconsistencies were found and repaired:\n\n"
			       "    %" PRIu64 " leaked clusters\n    %" PRIu64 " corruptions\n\n"
			       "Double checking the fixed image now...\n",
			       leaks, corruptions);
		rc = image_run_check(img, 0, &r, &err);
		r.corruptions_fixed = corruptions;
		r.leaks_fixed = leaks;
	}
	image_close(img);
	if (rc)
		return img_fail(&err);
#ifdef HAVE_JSONC
	if (json)
		print_json(name, found, &r);
#endif
	if (!json && !quiet)
		print_human(&r);
	if (r.check_errors)
		return NOT_DONE;
	return r.corruptions ? DAMAGED : r.leaks ? LEAKS : SOUND;
}
