/* SPDX-License-Identifier: MIT */
/* minivm-img info. */
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
#include <time.h>
#ifdef HAVE_JSONC
#include <json-c/json.h>
#endif

enum { MAX_CHAIN = 100 };

static const char *yes_no(bool b)
{
	return b ? "true" : "false";
}

void img_print_snapshots(const struct image_info *info)
{
	puts("Snapshot list:");
	puts("ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT");
	for (size_t i = 0; i < info->snapshot_count; i++) {
		const struct image_snapshot_info *s = &info->snapshots[i];
		char size[32], date[32], icount[24] = "";
		time_t t = s->date_sec;
		struct tm tm;
		localtime_r(&t, &tm);
		strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
		uint64_t secs = s->vm_clock_ns / 1000000000;
		if (s->icount != UINT64_MAX)
			snprintf(icount, sizeof(icount), "%" PRIu64, s->icount);
		printf("%-10s%-17s%8s %s %02u:%02u:%02u.%03u%11s\n", s->id, s->name,
		       format_size(s->vm_state_size, size), date, (unsigned)(secs / 3600),
		       (unsigned)(secs / 60 % 60), (unsigned)(secs % 60),
		       (unsigned)(s->vm_clock_ns / 1000000 % 1000), icount);
	}
}

static void print_human(const char *name, const struct image_info *info)
{
	char text[32];
	printf("image: %s\nfile format: %s\n", name, info->format);
	printf("virtual size: %s (%" PRIu64 " bytes)\n", format_size(info->virtual_size, text),
	       info->virtual_size);
	printf("disk size: %s\n",
	       info->remote ? "unavailable" : format_size(info->disk_size, text));
	if (info->encrypted)
		puts("encrypted: yes");
	if (info->cluster_size)
		printf("cluster_size: %" PRIu32 "\n", info->cluster_size);
	if (info->dirty)
		puts("cleanly shut down: no");
	if (info->backing_file) {
		printf("backing file: %s", info->backing_file);
		if (!info->backing_path)
			printf(" (cannot determine actual path)");
		else if (strcmp(info->backing_path, info->backing_file) != 0)
			printf(" (actual path: %s)", info->backing_path);
		putchar('\n');
		if (info->backing_format)
			printf("backing file format: %s\n", info->backing_format);
	}
	if (info->snapshot_count)
		img_print_snapshots(info);
	if (!info->compat)
		return;
	printf("Format specific information:\n    compat: %s\n    compression type: %s\n",
	       info->compat, info->compression_type);
	bool v3 = strcmp(info->compat, "0.10") != 0;
	if (v3)
		printf("    lazy refcounts: %s\n", yes_no(info->lazy_refcounts));
	if (info->bitmap_count)
		puts("    bitmaps:");
	for (size_t i = 0; i < info->bitmap_count; i++) {
		const struct image_bitmap_info *b = &info->bitmaps[i];
		int n = 0;
		printf("        [%zu]:\n            flags:\n", i);
		if (b->in_use)
			printf("                [%d]: in-use\n", n++);
		if (b->enabled)
			printf("                [%d]: auto\n", n);
		printf("            name: %s\n            granularity: %" PRIu64 "\n", b->name,
		       b->granularity);
	}
	printf("    refcount bits: %u\n", info->refcount_bits);
	if (info->data_file)
		printf("    data file: %s\n", info->data_file);
	if (info->external_data)
		printf("    data file raw: %s\n", yes_no(info->data_file_raw));
	if (v3)
		printf("    corrupt: %s\n    extended l2: %s\n", yes_no(info->corrupt),
		       yes_no(info->extended_l2));
}

#ifdef HAVE_JSONC
static struct json_object *json_snapshots(const struct image_info *info)
{
	struct json_object *a = json_object_new_array();
	for (size_t i = 0; i < info->snapshot_count; i++) {
		const struct image_snapshot_info *s = &info->snapshots[i];
		struct json_object *o = json_object_new_object();
		if (s->icount != UINT64_MAX)
			json_object_object_add(o, "icount",
					       json_object_new_int64((int64_t)s->icount));
		json_object_object_add(
			o, "vm-clock-nsec",
			json_object_new_int64((int64_t)(s->vm_clock_ns % 1000000000)));
		json_object_object_add(o, "name", json_object_new_string(s->name));
		json_object_object_add(o, "date-sec", json_object_new_int64(s->date_sec));
		json_object_object_add(o, "date-nsec", json_object_new_int64(s->date_nsec));
		json_object_object_add(
			o, "vm-clock-sec",
			json_object_new_int64((int64_t)(s->vm_clock_ns / 1000000000)));
		json_object_object_add(o, "id", json_object_new_string(s->id));
		json_object_object_add(o, "vm-state-size",
				       json_object_new_int64((int64_t)s->vm_state_size));
		json_object_array_add(a, o);
	}
	return a;
}

static struct json_object *json_specific(const struct image_info *info)
{
	struct json_object *o = json_object_new_object(), *d = json_object_new_object();
	bool v3 = strcmp(info->compat, "0.10") != 0;
	json_object_object_add(o, "type", json_object_new_string(info->format));
	json_object_object_add(d, "compat", json_object_new_string(info->compat));
	json_object_object_add(d, "compression-type",
			       json_object_new_string(info->compression_type));
	if (v3)
		json_object_object_add(d, "lazy-refcounts",
				       json_object_new_boolean(info->lazy_refcounts));
	struct json_object *bitmaps = info->bitmap_count ? json_object_new_array() : NULL;
	for (size_t i = 0; i < info->bitmap_count; i++) {
		const struct image_bitmap_info *b = &info->bitmaps[i];
		struct json_object *m = json_object_new_object(), *f = json_object_new_array();
		if (b->in_use)
			json_object_array_add(f, json_object_new_string("in-use"));
		if (b->enabled)
			json_object_array_add(f, json_object_new_string("auto"));
		json_object_object_add(m, "flags", f);
		json_object_object_add(m, "name", json_object_new_string(b->name));
		json_object_object_add(m, "granularity",
				       json_object_new_int64((int64_t)b->granularity));
		json_object_array_add(bitmaps, m);
	}
	if (bitmaps)
		json_object_object_add(d, "bitmaps", bitmaps);
	json_object_object_add(d, "refcount-bits",
			       json_object_new_int((int32_t)info->refcount_bits));
	if (info->data_file)
		json_object_object_add(d, "data-file", json_object_new_string(info->data_file));
	if (info->external_data)
		json_object_object_add(d, "data-file-raw",
				       json_object_new_boolean(info->data_file_raw));
	if (v3) {
		json_object_object_add(d, "corrupt", json_object_new_boolean(info->corrupt));
		json_object_object_add(d, "extended-l2",
				       json_object_new_boolean(info->extended_l2));
	}
	json_object_object_add(o, "data", d);
	return o;
}

static struct json_object *json_info(const char *name, const struct image_info *info)
{
	struct json_object *o = json_object_new_object();
	if (info->backing_format)
		json_object_object_add(o, "backing-filename-format",
				       json_object_new_string(info->backing_format));
	if (info->snapshot_count)
		json_object_object_add(o, "snapshots", json_snapshots(info));
	json_object_object_add(o, "virtual-size",
			       json_object_new_int64((int64_t)info->virtual_size));
	json_object_object_add(o, "filename", json_object_new_string(name));
	if (info->cluster_size)
		json_object_object_add(o, "cluster-size",
				       json_object_new_int64(info->cluster_size));
	json_object_object_add(o, "format", json_object_new_string(info->format));
	if (!info->remote)
		json_object_object_add(o, "actual-size",
				       json_object_new_int64((int64_t)info->disk_size));
	if (info->encrypted)
		json_object_object_add(o, "encrypted", json_object_new_boolean(true));
	if (info->compat)
		json_object_object_add(o, "format-specific", json_specific(info));
	if (info->backing_path)
		json_object_object_add(o, "full-backing-filename",
				       json_object_new_string(info->backing_path));
	if (info->backing_file)
		json_object_object_add(o, "backing-filename",
				       json_object_new_string(info->backing_file));
	json_object_object_add(o, "dirty-flag", json_object_new_boolean(info->dirty));
	return o;
}

#endif

/* An image of the chain. */
struct level {
	char *name;
	struct image_info info;
};

/* An NBD export is called as it was typed, all else by its file. */
static char *shown_name(const struct image *img, const struct image_info *info, const char *typed,
			bool image_opts)
{
	return info->remote && !image_opts ? xstrdup(typed) : image_filename(img);
}

/* What is to be said of the image, and with `chain` of all below it, before anything of it is said:
 * a chain that is broken is an error alone. */
static int collect(const char *typed, const char *format, bool image_opts, bool chain,
		   unsigned flags, struct level **levels, size_t *count)
{
	char *name = xstrdup(typed), *next_format = format ? xstrdup(format) : NULL;
	int rc = 0;
	while (name && !rc) {
		struct error err = ERROR_INIT;
		struct image_info info = {0};
		struct image *img = img_open(name, next_format, image_opts && !*count, flags, &err);
		if (img && image_get_info(img, &info) < 0)
			error_set(&err, EIO, "cannot read '%s'", name);
		if (img && chain && info.backing_file && !info.backing_path)
			error_set(&err, ENOTSUP,
				  "cannot open '%s' (backing file of '%s'): a name relative to an "
				  "NBD export leads nowhere; rebase -u the image onto the whole "
				  "name",
				  info.backing_file, name);
		else if (img && *count > MAX_CHAIN)
			error_set(&err, ELOOP, "the backing chain of '%s' does not end", typed);
		else if (!img && *count)
			error_prefix(&err, "backing file of '%s'", (*levels)[*count - 1].name);
		if (!img || err.code) {
			rc = img_fail(&err);
			image_info_free(&info);
			image_close(img);
			break;
		}
		*levels = xrealloc(*levels, (*count + 1) * sizeof(**levels));
		(*levels)[*count].name = shown_name(img, &info, name, image_opts && !*count);
		(*levels)[(*count)++].info = info;
		image_close(img);
		free(name);
		free(next_format);
		name = chain && info.backing_path ? xstrdup(info.backing_path) : NULL;
		next_format = info.backing_format ? xstrdup(info.backing_format) : NULL;
	}
	free(name);
	free(next_format);
	return rc;
}

int img_info(int argc, char **argv)
{
	enum { OPT_CHAIN = OPT_FIRST_OWN };
	static const struct option longs[] = {{"help", no_argument, 0, 'h'},
					      {"format", required_argument, 0, 'f'},
					      {"output", required_argument, 0, OPT_OUTPUT},
					      {"backing-chain", no_argument, 0, OPT_CHAIN},
					      {"force-share", no_argument, 0, 'U'},
					      {"image-opts", no_argument, 0, OPT_IMAGE_OPTS},
					      {0}};
	const char *format = NULL;
	unsigned flags = IMAGE_NO_BACKING | IMAGE_CHECK;
	bool chain = false, image_opts = false;
	int c, json = 0;
	while ((c = img_getopt(argc, argv, ":f:Uh", longs)) != -1) {
		switch (c) {
		case 'f': format = optarg; break;
		case 'U': flags |= IMAGE_FORCE_SHARE; break;
		case OPT_IMAGE_OPTS: image_opts = true; break;
		case OPT_CHAIN: chain = true; break;
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
		return img_usage("info: expecting one image file name");
	struct level *levels = NULL;
	size_t count = 0;
	int rc = collect(argv[optind], format, image_opts, chain, flags, &levels, &count);
#ifdef HAVE_JSONC
	struct json_object *list = json && !rc ? json_object_new_array() : NULL;
#endif
	for (size_t i = 0; i < count; i++) {
		if (!rc && !json) {
			if (i)
				putchar('\n');
			print_human(levels[i].name, &levels[i].info);
		}
#ifdef HAVE_JSONC
		if (list)
			json_object_array_add(list, json_info(levels[i].name, &levels[i].info));
#endif
		image_info_free(&levels[i].info);
		free(levels[i].name);
	}
	free(levels);
#ifdef HAVE_JSONC
	if (list)
		img_print_json(chain ? json_object_get(list)
				     : json_object_get(json_object_array_get_idx(list, 0)));
	json_object_put(list);
#endif
	return rc;
}
