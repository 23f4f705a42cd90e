/* SPDX-License-Identifier: MIT */
/*
 * Opening images: names, format probing, locks, backing chains.
 *
 * A chain is opened from its top: the image itself as the flags say, each backing image read-only.
 * What an image is used for decides its locks (file_lock.c): a writer reads and writes and lets
 * nobody else write; a reader lets nobody write or resize it either, since it relies on what it
 * read, except under IMAGE_FORCE_SHARE. So a base that several overlays share can be read by all.
 */
#include "block/describe.h"
#include "block/file.h"
#include "block/image.h"
#include "block/nbd_client.h"
#include "block/node.h"
#include "block/path.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct image_driver *const drivers[] = {&raw_driver, &qcow2_driver, &nbd_driver};
static const char *const names[] = {"raw", "qcow2", "nbd", NULL};

/* A longer chain is a mistake or an attack: each link costs an open file and a recursion. */
enum { MAX_CHAIN = 100 };

const char *const *image_formats(void)
{
	return names;
}

const struct image_driver *image_driver_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(drivers); i++)
		if (strcmp(drivers[i]->name, name) == 0)
			return drivers[i];
	return NULL;
}

static const struct image_driver *find_or_explain(const char *format, struct error *err)
{
	const struct image_driver *driver = image_driver_find(format);
	if (driver)
		return driver;
	const char *near = nearest_word(format, names);
	if (near)
		error_set(err, EINVAL, "unknown image format '%s'; did you mean '%s'?", format,
			  near);
	else
		error_set(err, EINVAL, "unknown image format '%s'; there are raw and qcow2",
			  format);
	return NULL;
}

const struct image_driver *image_probe(const uint8_t *head, size_t len, const char *path)
{
	const struct image_driver *best = &raw_driver;
	int best_score = 0;
	for (size_t i = 0; i < ARRAY_SIZE(drivers); i++) {
		int score = drivers[i]->probe ? drivers[i]->probe(head, len, path) : 0;
		if (score > best_score) {
			best_score = score;
			best = drivers[i];
		}
	}
	return best;
}

const char *image_foreign_format(const uint8_t *head, size_t len)
{
	static const struct {
		const char *format;
		unsigned offset, len;
		const char *magic;
	} known[] = {
		{"vmdk", 0, 4, "KDMV"},
		{"vmdk", 0, 4, "COWD"},
		{"vmdk", 0, 21, "# Disk DescriptorFile"},
		{"vpc", 0, 8, "conectix"},
		{"vhdx", 0, 8, "vhdxfile"},
		{"vdi", 64, 4, "\x7f\x10\xda\xbe"},
		{"qed", 0, 4, "QED\0"},
		{"luks", 0, 6, "LUKS\xba\xbe"},
		{"parallels", 0, 16, "WithoutFreeSpace"},
		{"parallels", 0, 16, "WithouFreSpacExt"},
		{"bochs", 0, 22, "Bochs Virtual HD Image"},
		{"qcow", 0, 8, "QFI\xfb\0\0\0\x01"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (range_in(known[i].offset, known[i].len, len) &&
		    memcmp(head + known[i].offset, known[i].magic, known[i].len) == 0)
			return known[i].format;
	return NULL;
}

/* What a name stands for. */
struct target {
	char *name;   /* for messages */
	char *path;   /* where that is */
	char *format; /* that the name gives itself, or NULL */
	/* An NBD node: its keys in the options have this prefix; NULL for a file of the host's. */
	const char *prefix;
	bool addressed;    /* and the path is its address */
	struct opts *opts; /* of the NBD node; NULL: none */
	struct opts json;  /* of a json: name */
	/* Options describe all of it, the caller's or those of a json: name. */
	struct opts *described;
	struct image_description about;
};

/* What one level of the chain is opened with. */
struct node_args {
	struct target *target;
	const char *name;   /* as the user or the header says it */
	const char *path;   /* where that is */
	const char *format; /* NULL: probe */
	const char *role;   /* for messages */
	unsigned flags;
	struct opts *opts;
	unsigned depth;
	const struct link {
		const struct image *img;
		const struct link *above;
	} * above; /* the images that lead here */
};

static struct image *open_node(const struct node_args *a, struct error *err);

static void target_free(struct target *t)
{
	free(t->name);
	free(t->path);
	free(t->format);
	if (t->described)
		image_description_free(&t->about);
	opts_free(&t->json);
}

/* An NBD node that is described by options alone is called by its URI. */
static int name_nbd_node(struct target *t, struct error *err)
{
	struct nbd_config config = {0};
	const char *format = opts_get(t->opts, "driver");
	int rc = nbd_config_parse(&config, NULL, t->opts, t->prefix, err);
	if (rc < 0)
		return rc;
	t->path = nbd_config_uri(&config);
	if (format)
		t->format = xstrdup(format);
	nbd_config_free(&config);
	return 0;
}

/* What `opts` describe. They stay the caller's. */
static int find_described(struct target *t, struct opts *opts, struct error *err)
{
	char *remote = NULL;
	int rc = image_describe(opts, &t->about, err);
	if (rc < 0)
		return rc;
	t->described = t->opts = opts;
	rc = nbd_describe(t->about.file, opts, &remote, err);
	if (rc < 0)
		return rc;
	if (!remote && !t->about.file)
		return error_set(err, EINVAL, "no file is named; it needs file.filename=");
	t->path = remote ? remote : xstrdup(t->about.file);
	if (t->about.format)
		t->format = xstrdup(t->about.format);
	if (!remote)
		t->opts = NULL;
	return 0;
}

/* Sorts out `name`, which may be NULL if the options say what to open. On failure there is nothing
 * to free. */
static int find_target(struct target *t, const char *name, struct opts *opts, struct error *err)
{
	int rc = 0;
	*t = (struct target){.opts = opts};
	if (name && path_nbd_json(name, &t->json)) {
		t->opts = &t->json;
	} else if (name && strncmp(name, "json:", 5) == 0) {
		rc = path_json(name, &t->json, err);
		if (!rc && (rc = find_described(t, &t->json, err)))
			error_prefix(err, "'%s'", name);
		if (!rc)
			t->name = xstrdup(name);
		else
			target_free(t);
		return rc;
	} else if (name) {
		t->path = path_of_name(name, &t->format, err);
	}
	if (name && !t->path && !t->json.count)
		return -EINVAL;
	if (!t->path) {
		t->prefix = t->opts ? nbd_opts_prefix(t->opts) : NULL;
		rc = t->prefix ? name_nbd_node(t, err)
			       : error_set(err, EINVAL, "no image file is named");
	} else if (nbd_is_name(t->path)) {
		const char *prefix = opts ? nbd_opts_prefix(opts) : NULL;
		t->prefix = prefix ? prefix : "file.";
		/* A drive that its options describe is called by its URI: nbd_describe(). */
		t->addressed = !opts || !nbd_opts_have_server(opts, t->prefix);
	}
	if (rc == 0)
		t->name = xstrdup(name ? name : t->path);
	else
		target_free(t);
	return rc;
}

/* The flags of a node: the caller's, as its description changes them. */
static unsigned target_flags(const struct target *t, unsigned flags)
{
	return t->described ? (flags | t->about.set) & ~t->about.clear : flags;
}

/* Of the flags of an image those that its backing images have, too. */
enum { INHERITED = IMAGE_NO_LOCK | IMAGE_FORCE_SHARE | IMAGE_DIRECT };

/* The backing image that a description has in place of the header's. */
static int open_described_backing(struct image *img, const struct node_args *a, struct error *err)
{
	struct opts *opts = &a->target->about.backing;
	struct target target = {0};
	int rc = find_described(&target, opts, err);
	if (!rc && a->depth >= MAX_CHAIN)
		rc = error_set(err, ELOOP, "the backing chain of '%s' has more than %d images",
			       a->name, MAX_CHAIN);
	if (rc) {
		error_prefix(err, "backing image of '%s'", a->name);
		target_free(&target);
		return rc;
	}
	char *role = xasprintf(" (backing file of '%s')", a->name);
	struct link link = {img, a->above};
	struct node_args b = {
		.target = &target,
		.name = target.path,
		.path = target.path,
		.format = target.format,
		.role = role,
		.flags = target_flags(&target, a->flags & INHERITED),
		.opts = opts,
		.depth = a->depth + 1,
		.above = &link,
	};
	img->backing = open_node(&b, err);
	free(role);
	target_free(&target);
	return img->backing ? 0 : -(err && err->code ? err->code : EIO);
}

/* Opens what the header names as backing file. */
static int open_backing(struct image *img, const struct node_args *a, struct error *err)
{
	struct image_info info;
	int rc = image_get_info(img, &info);
	if (rc < 0 || !info.backing_file || !info.backing_file[0])
		goto out;
	char *dir = NULL, *role = NULL;
	char *from_top = path_combine(img->path, info.backing_file);
	bool relative = !path_is_absolute(info.backing_file);
	struct target target;
	dir = path_directory(img->path);
	if (relative)
		role = xasprintf(" (backing file of '%s', looked for in '%s')", a->name, dir);
	else
		role = xasprintf(" (backing file of '%s')", a->name);
	if (relative && file_remote_name(img->file)) {
		rc = error_set(
			err, ENOTSUP,
			"cannot open '%s'%s: a name relative to an NBD export leads nowhere; "
			"rebase -u the image onto the whole name",
			info.backing_file, role);
	} else if ((rc = find_target(&target, from_top, NULL, err)) < 0) {
		error_prefix(err, "cannot open '%s'%s", info.backing_file, role);
	} else if (a->depth >= MAX_CHAIN) {
		rc = error_set(err, ELOOP, "the backing chain of '%s' has more than %d images",
			       a->name, MAX_CHAIN);
		target_free(&target);
	} else {
		struct link link = {img, a->above};
		struct node_args b = {
			.target = &target,
			.name = info.backing_file,
			.path = target.path,
			.format = info.backing_format ? info.backing_format : target.format,
			.role = role,
			.flags = target_flags(&target, a->flags & INHERITED),
			.opts = target.described,
			.depth = a->depth + 1,
			.above = &link,
		};
		img->backing = open_node(&b, err);
		rc = img->backing ? 0 : -(err && err->code ? err->code : EIO);
		target_free(&target);
	}
	free(role);
	free(dir);
	free(from_top);
out:
	image_info_free(&info);
	return rc;
}

/* The format of an open file, by its first bytes. */
static const struct image_driver *probe_file(struct file_layer *file, const struct node_args *a,
					     struct error *err)
{
	uint8_t head[PROBE_BYTES] = {0};
	int rc = file_pread(file, head, sizeof(head), 0);
	if (rc) {
		error_errno(err, -rc, "cannot read '%s'%s", a->name, a->role);
		return NULL;
	}
	const char *foreign = image_foreign_format(head, sizeof(head));
	if (foreign) {
		error_set(err, ENOTSUP,
			  "cannot open '%s'%s: it is a %s image, which is not supported; convert "
			  "it with qemu-img, or say format=raw to use it byte by byte",
			  a->name, a->role, foreign);
		return NULL;
	}
	return image_probe(head, sizeof(head), a->path);
}

static int lock_node(struct file_layer *file, const struct node_args *a, bool resizes,
		     struct error *err)
{
	if (a->flags & IMAGE_NO_LOCK)
		return 0;
	bool writes = a->flags & IMAGE_WRITABLE;
	unsigned perms = PERM_CONSISTENT_READ, unshared = PERM_WRITE;
	if (writes)
		perms |= PERM_WRITE | (resizes ? PERM_RESIZE : 0);
	if (!writes || resizes)
		unshared |= PERM_RESIZE;
	if (a->flags & IMAGE_SHARE_WRITE && !resizes)
		unshared &= ~(unsigned)PERM_WRITE;
	if (a->flags & IMAGE_FORCE_SHARE)
		unshared = 0;
	char what[512];
	snprintf(what, sizeof(what), "cannot open '%.200s'%.250s", a->name, a->role);
	return file_lock_later(file, what, perms, unshared, err);
}

/* The file below a node. */
static struct file_layer *open_file(const struct node_args *a, struct error *err)
{
	const struct target *t = a->target;
	struct file_open_args fa = {.path = a->path,
				    .name = a->name,
				    .role = a->role,
				    .flags = a->flags | IMAGE_NO_LOCK};
	if (!t->prefix || (t->addressed && !t->opts))
		return file_open(&fa, err);
	char *what = xasprintf("cannot open '%s'%s", a->name, a->role);
	struct file_layer *file = nbd_file_open(t->addressed ? t->path : NULL, t->opts, t->prefix,
						a->flags, what, err);
	free(what);
	return file;
}

static struct image *open_node(const struct node_args *a, struct error *err)
{
	const struct image_driver *driver = NULL;
	bool probed = !a->format;
	if (a->format && !(driver = find_or_explain(a->format, err))) {
		error_prefix(err, "cannot open '%s'%s", a->name, a->role);
		return NULL;
	}
	if (driver == &nbd_driver && !a->target->prefix) {
		error_set(err, EINVAL,
			  "cannot open '%s'%s: format=nbd is for NBD servers, and that is a file",
			  a->name, a->role);
		return NULL;
	}
	struct file_layer *file = open_file(a, err);
	if (!file)
		return NULL;
	for (const struct link *l = a->above; l; l = l->above) {
		if (file_same(file, l->img->file)) {
			error_set(err, ELOOP, "cannot open '%s'%s: the backing chain is a loop",
				  a->name, a->role);
			file_close(file);
			return NULL;
		}
	}
	if (!driver)
		driver = probe_file(file, a, err);
	if (!driver || lock_node(file, a, driver != &raw_driver, err)) {
		file_close(file);
		return NULL;
	}
	struct image *img = xcalloc(1, sizeof(*img));
	img->driver = driver;
	img->file = file;
	img->path = xstrdup(a->path);
	img->flags = a->flags & ~(unsigned)(IMAGE_PROBED | IMAGE_FILTERS);
	if (probed && driver == &raw_driver)
		img->flags |= IMAGE_PROBED;
	img->state = xcalloc(1, driver->state_size);
	if (driver->open(img, a->opts, err)) {
		error_prefix(err, "cannot open '%s'%s", a->name, a->role);
		free(img->state);
		img->state = NULL;
		image_close(img);
		return NULL;
	}
	const struct target *t = a->target;
	int rc = 0;
	if (t->described && t->about.has_backing && !driver->change_backing)
		rc = error_set(err, EINVAL, "'%s': format '%s' has no backing images", a->name,
			       driver->name);
	else if (!(a->flags & IMAGE_NO_BACKING))
		rc = t->described && t->about.has_backing ? open_described_backing(img, a, err)
							  : open_backing(img, a, err);
	if (!rc && t->described && (rc = opts_check_unused(t->described, driver->name, NULL, err)))
		error_prefix(err, "cannot open '%s'%s", a->name, a->role);
	if (rc) {
		image_close(img);
		return NULL;
	}
	return img;
}

/* From the target to the open image; `t` is freed. */
static struct image *open_top(struct target *t, const char *format, unsigned flags,
			      struct opts *opts, struct error *err)
{
	struct node_args a = {.target = t,
			      .name = t->name,
			      .path = t->path,
			      .format = format ? format : t->format,
			      .role = "",
			      .flags = target_flags(t, flags),
			      .opts = t->described ? t->described : opts};
	struct image *img = NULL;
	if (a.flags & IMAGE_FORCE_SHARE && a.flags & IMAGE_WRITABLE)
		error_set(err, EINVAL,
			  "cannot open '%s': force-share=on can only be used with read-only images",
			  a.name);
	else if (t->described && t->about.native && !(a.flags & IMAGE_DIRECT))
		error_set(err, EINVAL, "cannot open '%s': aio=native needs cache.direct=on",
			  a.name);
	else
		img = open_node(&a, err);
	if (img && image_add_filters(img, a.flags, err)) {
		image_close(img);
		img = NULL;
	}
	if (img && (img->flags & IMAGE_PROBED) && (a.flags & IMAGE_WRITABLE))
		warn("the format of '%s' was not given and is guessed to be raw; writes to its "
		     "first sector are restricted, say format=raw to lift that",
		     t->name);
	target_free(t);
	return img;
}

struct image *image_open(const char *path, const char *format, unsigned flags, struct opts *opts,
			 struct error *err)
{
	struct error local = ERROR_INIT;
	struct target target;
	if (!err)
		err = &local;
	if (find_target(&target, path, opts, err) < 0)
		return NULL;
	return open_top(&target, format, flags, opts, err);
}

struct image *image_open_described(struct opts *opts, unsigned flags, struct error *err)
{
	struct error local = ERROR_INIT;
	struct target target = {0};
	if (!err)
		err = &local;
	if (find_described(&target, opts, err) < 0) {
		target_free(&target);
		return NULL;
	}
	target.name = xstrdup(target.path);
	if (nbd_is_name(target.path) && target.opts) {
		const char *prefix = nbd_opts_prefix(opts);
		target.prefix = prefix ? prefix : "file.";
		target.addressed = !nbd_opts_have_server(opts, target.prefix);
	}
	return open_top(&target, NULL, flags, NULL, err);
}

void image_ending(struct image *img)
{
	for (; img; img = img->backing)
		file_ending(img->file);
}

void image_close(struct image *img)
{
	if (!img)
		return;
	if (img->state && img->driver->close)
		img->driver->close(img);
	image_drop_filters(img);
	image_close(img->backing);
	file_close(img->file);
	free(img->state);
	free(img->path);
	free(img->data_path);
	free(img);
}

int image_create(const char *path, const char *format, uint64_t size, struct opts *opts,
		 struct error *err)
{
	const struct image_driver *driver = find_or_explain(format, err);
	if (!driver)
		return -EINVAL;
	char *real = path_of_name(path, NULL, err);
	if (!real)
		return -EINVAL;
	int rc = driver->create ? driver->create(real, size, opts, err)
				: error_set(err, ENOTSUP, "images of format '%s' cannot be created",
					    format);
	free(real);
	return rc;
}

/* An empty file of its own in the first directory that takes one; its malloc'ed path or NULL. */
static char *temporary_file(struct error *err)
{
	const char *dirs[] = {getenv("TMPDIR"), "/var/tmp", "/tmp"};
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		if (!dirs[i] || !dirs[i][0])
			continue;
		char *path = xasprintf("%s/minivm-snapshot-XXXXXX", dirs[i]);
		int fd = mkstemp(path);
		if (fd >= 0) {
			close(fd);
			return path;
		}
		error_errno(err, errno, "cannot create a temporary file in '%s'", dirs[i]);
		free(path);
		if (i == 0)
			break; /* the user chose it: do not go elsewhere silently */
	}
	return NULL;
}

struct image *image_open_snapshot(struct image *base, struct error *err)
{
	struct image *img = NULL;
	char *path = temporary_file(err);
	if (path && qcow2_driver.create(path, image_size(base), NULL, err) == 0)
		img = image_open(path, "qcow2",
				 IMAGE_WRITABLE | IMAGE_NO_BACKING | IMAGE_NO_FLUSH | IMAGE_DISCARD,
				 NULL, err);
	if (path)
		unlink(path);
	free(path);
	if (!img) {
		error_prefix(err, "cannot make a snapshot of '%s'", base->path);
		image_close(base);
		return NULL;
	}
	free(img->path);
	img->path = xstrdup(base->path);
	img->backing = base;
	return img;
}
