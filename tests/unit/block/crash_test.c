/* SPDX-License-Identifier: MIT */
/*
 * Crashes and failures. Every change of the file below a qcow2 image is recorded; then the file is
 * put together as a crash at some point could have left it: all that was synced, and of the rest
 * any part in any order, long writes torn between sectors. Of each such file, `check` must find
 * nothing but leaks, and the disk must hold what was flushed or written since.
 *
 * Each sector of the disk carries the number of the step that wrote it, 0 for zeroes.
 */
#include "block/file.h"
#include "block/image.h"
#include "block/qcow2.h"
#include "tests/unit/block/tools.h"
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { SECTORS = 4096, SECTOR = 512, STEPS = 60, MAX_FILE = 24 << 20, LOG = 20000 };
enum { KEPT_STEP = 8 }; /* the one that makes the snapshot that stays */

struct change {
	enum file_op op;
	uint64_t offset, len;
	uint8_t *data;
	unsigned step; /* of the workload, that made it */
};

static struct change log_[LOG];
static size_t log_len;
static unsigned step_now;
static size_t fail_at = SIZE_MAX; /* this change and later ones fail, */
static size_t fail_to = SIZE_MAX; /* but not from this one on */
static size_t seen_changes;
static int fail_with;

static int record(void *opaque, enum file_op op, uint64_t offset, uint64_t len,
		  const struct iovec *iov, int iovcnt)
{
	bool *recording = opaque;
	size_t n = seen_changes++;
	if (n >= fail_at && n < fail_to)
		return fail_with;
	if (!*recording || log_len == LOG)
		return 0;
	struct change *c = &log_[log_len++];
	*c = (struct change){.op = op, .offset = offset, .len = len, .step = step_now};
	if (op == FILE_WRITE) {
		uint8_t *p = c->data = malloc(len + 1);
		for (int i = 0; i < iovcnt; i++) {
			memcpy(p, iov[i].iov_base, iov[i].iov_len);
			p += iov[i].iov_len;
		}
	}
	return 0;
}

/* Damaged images are worth warnings, which nobody wants to read here; failures are. */
static int muted = -1;

static void quiet_stderr(void)
{
	int null = open("/dev/null", O_WRONLY);
	muted = dup(2);
	dup2(null, 2);
	close(null);
}

static void loud_stderr(void)
{
	if (muted < 0)
		return;
	dup2(muted, 2);
	close(muted);
	muted = -1;
}

#define fail_aloud(...)                                                                            \
	do {                                                                                       \
		loud_stderr();                                                                     \
		fail_msg(__VA_ARGS__);                                                             \
	} while (0)

static void forget_log(void)
{
	while (log_len)
		free(log_[--log_len].data);
}

/* What the workload did: per sector and step, the number it then had. */
static uint16_t history[STEPS + 1][SECTORS];
static bool flushed_after[STEPS + 1];
static uint64_t size_after[STEPS + 1]; /* of the disk, bytes */

static int write_stamps(struct image *img, uint64_t first, uint64_t count, unsigned stamp)
{
	uint16_t *buf = malloc(count * SECTOR);
	for (size_t i = 0; i < count * SECTOR / 2; i++)
		buf[i] = (uint16_t)stamp;
	int rc = image_pwrite(img, buf, count * SECTOR, first * SECTOR);
	free(buf);
	return rc;
}

/* What the workload does besides. */
enum extra { PLAIN, SNAPSHOTS, BITMAPS, RESIZES, AMENDMENTS, PACKED, REUSE, FILL, GROWTH, KEPT };

/* Some change of the two bitmaps "a" and "b", if they are as it needs them. */
static int change_bitmaps(struct image *img)
{
	static const enum image_bitmap_op ops[] = {BITMAP_ADD,   BITMAP_ADD,     BITMAP_REMOVE,
						   BITMAP_CLEAR, BITMAP_DISABLE, BITMAP_ENABLE,
						   BITMAP_MERGE};
	struct image_bitmap_edit edit = {.op = ops[rnd() % ARRAY_SIZE(ops)],
					 .name = rnd() % 2 ? "a" : "b",
					 .granularity = 512 << rnd() % 4,
					 .source = img,
					 .source_name = "a"};
	struct error err = ERROR_INIT;
	int rc = image_bitmap_edit(img, &edit, &err);
	return rc == -ENOENT || rc == -EEXIST ? 0 : rc;
}

/* Cuts the end off the disk and gives it back, empty; now and then all of it is given up. */
static int cut(struct image *img, uint16_t *now)
{
	uint64_t keep = rnd() % 5 ? SECTORS / 4 + rnd() % (SECTORS * 3 / 4) : 0;
	int rc;
	if (keep == 0)
		rc = img->driver->make_empty(img, NULL);
	else if ((rc = image_truncate(img, keep * SECTOR, NULL)) == 0)
		rc = image_truncate(img, SECTORS * SECTOR, NULL);
	memset(now + keep, 0, (SECTORS - keep) * sizeof(*now));
	return rc;
}

/* Another refcount width, version or use of refcounts. */
static int amend(struct image *img)
{
	static const char *const changes[] = {
		"refcount_bits=8",    "refcount_bits=64",
		"refcount_bits=1",    "refcount_bits=16",
		"lazy_refcounts=off", "refcount_bits=16,lazy_refcounts=off,compat=0.10",
		"compat=1.1"};
	struct opts o;
	struct error err = ERROR_INIT;
	assert_int_equal(opts_parse(&o, changes[rnd() % ARRAY_SIZE(changes)], NULL, NULL), 0);
	int rc = img->driver->amend(img, &o, &err);
	opts_free(&o);
	return rc == -EINVAL || rc == -ENOTSUP ? 0 : rc; /* version 2 has 16 bits */
}

/* Some compressed clusters. */
static int write_packed(struct image *img, uint64_t first, unsigned step)
{
	struct image_info info;
	int rc = image_get_info(img, &info);
	if (rc)
		return rc;
	uint64_t unit = info.cluster_size / SECTOR;
	uint16_t *buf = malloc(info.cluster_size);
	for (size_t i = 0; i < info.cluster_size / 2; i++)
		buf[i] = (uint16_t)step;
	first -= first % unit;
	for (int n = 0; n < 12 && first + unit <= SECTORS && !rc; n++, first += unit) {
		rc = image_pwrite_compressed(img, buf, info.cluster_size, first * SECTOR);
		for (uint64_t i = first; i < first + unit; i++)
			history[step][i] = (uint16_t)step;
	}
	image_info_free(&info);
	free(buf);
	return rc;
}

/* Region after region is written and cut off again, so that the tables of the next one come to lie
 * where data was: stale bytes that must never be taken for a table. */
static int reuse(struct image *img, unsigned step)
{
	enum { REGION = 256 };
	unsigned first = step / 4 % (SECTORS / REGION) * REGION;
	switch (step % 4) {
	case 0:
		for (unsigned i = first; i < first + REGION; i++)
			history[step][i] = (uint16_t)step;
		return write_stamps(img, first, REGION, step);
	case 2: {
		memset(&history[step][first], 0, (SECTORS - first) * sizeof(history[0][0]));
		int rc = first ? image_truncate(img, first * SECTOR, NULL)
			       : image_write_zeroes(img, 0, REGION * SECTOR, true);
		return rc ? rc : image_truncate(img, SECTORS * SECTOR, NULL);
	}
	default: {
		int rc = image_flush(img);
		flushed_after[step] = rc == 0;
		return rc;
	}
	}
}

/* The disk becomes larger again and again, and its L1 table with it. */
static int grow(struct image *img, unsigned step)
{
	enum { MORE = SECTORS * 3 / 4 * 4 / STEPS };
	uint64_t sectors = image_size(img) / SECTOR, first = rnd() % sectors, count = 40;
	if (step % 4 == 0)
		return image_truncate(img, (sectors + MORE) * SECTOR, NULL);
	if (step % 4 == 2) {
		int rc = image_flush(img);
		flushed_after[step] = rc == 0;
		return rc;
	}
	if (count > sectors - first)
		count = sectors - first;
	for (uint64_t i = first; i < first + count; i++)
		history[step][i] = (uint16_t)step;
	return write_stamps(img, first, count, step);
}

/* Beside a snapshot that stays another one comes and goes. 1: nothing was done. */
static int change_snapshots(struct image *img, unsigned step)
{
	if (step == KEPT_STEP)
		return img->driver->snapshot_create(img, "kept", NULL);
	if (step < KEPT_STEP || step % 6)
		return 1;
	return step % 12 ? img->driver->snapshot_delete(img, "s", NULL)
			 : img->driver->snapshot_create(img, "s", NULL);
}

/* One step; errors are only expected while failures are injected. */
static int do_step(struct image *img, unsigned step, enum extra extra)
{
	uint64_t first = rnd() % SECTORS, count = 1 + rnd() % (rnd() % 3 ? 40 : 400);
	if (count > SECTORS - first)
		count = SECTORS - first;
	int rc = 0;
	memcpy(history[step], history[step - 1], sizeof(history[step]));
	flushed_after[step] = false;
	if (extra == REUSE)
		return reuse(img, step);
	if (extra == GROWTH)
		return grow(img, step);
	if (extra == KEPT && (rc = change_snapshots(img, step)) <= 0)
		return rc;
	if (extra == FILL && step % 4) {
		/* From the beginning to the end: the file grows all the time. */
		first = step * 72 % SECTORS;
		count = SECTORS - first < 160 ? SECTORS - first : 160;
		for (uint64_t i = first; i < first + count; i++)
			history[step][i] = (uint16_t)step;
		return write_stamps(img, first, count, step);
	}
	if (extra == FILL) {
		rc = image_flush(img);
		flushed_after[step] = rc == 0;
		return rc;
	}
	switch (rnd() % 10) {
	case 0:
		rc = image_write_zeroes(img, first * SECTOR, count * SECTOR, true);
		memset(&history[step][first], 0, count * sizeof(history[0][0]));
		break;
	case 1: {
		/* It may leave parts as they are: look. */
		rc = image_discard(img, first * SECTOR, count * SECTOR);
		for (uint64_t i = first; i < first + count && !rc; i++) {
			uint16_t head;
			if (image_pread(img, &head, 2, i * SECTOR) == 0)
				history[step][i] = head;
		}
		break;
	}
	case 2:
	case 3:
		rc = image_flush(img);
		flushed_after[step] = rc == 0;
		break;
	case 4:
		if (extra == BITMAPS) {
			rc = change_bitmaps(img);
			break;
		}
		if (extra == RESIZES || extra == AMENDMENTS) {
			rc = extra == RESIZES ? cut(img, history[step]) : amend(img);
			break;
		}
		if (extra == SNAPSHOTS && step % 3 == 0) {
			rc = img->driver->snapshot_create(img, "s", NULL);
			if (!rc && rnd() % 2)
				rc = img->driver->snapshot_delete(img, "s", NULL);
			break;
		}
		/* fall through */
	default:
		if (extra == PACKED && rnd() % 2) {
			rc = write_packed(img, first, step);
			break;
		}
		rc = write_stamps(img, first, count, step);
		for (uint64_t i = first; i < first + count; i++)
			history[step][i] = (uint16_t)step;
		break;
	}
	return rc;
}

static const char *const shapes[] = {
	"",
	"cluster_size=512",
	"cluster_size=4k,refcount_bits=1",
	"cluster_size=1k,compat=0.10",
	"extended_l2=on,cluster_size=16k",
	"cluster_size=8k,refcount_bits=64,lazy_refcounts=on",
};

static void make(const char *options, uint64_t sectors)
{
	struct opts o;
	struct error err = ERROR_INIT;
	opts_parse(&o, options, NULL, NULL);
	unlink("c.qcow2");
	if (image_create("c.qcow2", "qcow2", sectors * SECTOR, &o, &err))
		fail_msg("%s", err.text);
	opts_free(&o);
}

/* The snapshot that stays is there, with what the disk held when it was made. */
static void assert_kept(const char *path, const char *what)
{
	static uint16_t disk[SECTORS * SECTOR / 2];
	struct error err = ERROR_INIT;
	struct image *img = image_open(path, "qcow2", 0, NULL, &err);
	int rc = img ? img->driver->snapshot_load(img, "kept", &err) : -EIO;
	if (!rc && image_size(img) != sizeof(disk))
		rc = error_set(&err, EINVAL, "the snapshot has another size");
	if (!rc && image_pread(img, disk, sizeof(disk), 0))
		rc = error_set(&err, EIO, "the snapshot cannot be read");
	image_close(img);
	if (rc)
		fail_aloud("%s: %s", what, err.text);
	for (unsigned s = 0; s < SECTORS; s++)
		if (disk[s * SECTOR / 2] != history[KEPT_STEP][s])
			fail_aloud("%s: sector %u of the snapshot holds %u, not %u", what, s,
				   disk[s * SECTOR / 2], history[KEPT_STEP][s]);
}

/* The image at a path: sound but for leaks, each sector from the last flush before `step` or later.
 */
static void assert_survived(const char *path, unsigned last, unsigned step, enum extra extra,
			    const char *what)
{
	bool repair = extra == SNAPSHOTS || extra == KEPT;
	struct image_check r;
	struct error err = ERROR_INIT;
	static uint16_t disk[SECTORS * SECTOR / 2];
	struct image *img =
		image_open(path, "qcow2", repair ? IMAGE_WRITABLE | IMAGE_NO_FLUSH : 0, NULL, &err);
	if (!img)
		fail_aloud("%s: %s", what, err.text);
	/* Closed before anything fails: the next test makes a file of this name. */
	uint64_t size = image_size(img);
	int rc = image_run_check(img, 0, &r, &err), read = 0;
	memset(disk, 0, sizeof(disk)); /* what was just cut off will be given back empty */
	if (!rc && size <= sizeof(disk))
		read = image_pread(img, disk, (size_t)size, 0);
	image_close(img);
	if (rc)
		fail_aloud("%s: %s", what, err.text);
	if (r.corruptions || r.check_errors)
		fail_aloud("%s: %lu corruptions", what, (unsigned long)r.corruptions);
	if (size > sizeof(disk) || read)
		fail_aloud("%s: the disk has %lu bytes, reading it ended with %d", what,
			   (unsigned long)size, read);
	/* A new size is durable when the resizing returns. */
	if (extra == GROWTH && size != size_after[step] && size != size_after[step ? step - 1 : 0])
		fail_aloud("%s: the disk has %lu bytes, not %lu", what, (unsigned long)size,
			   (unsigned long)size_after[step]);
	for (unsigned s = 0; s < SECTORS; s++) {
		const uint16_t *p = &disk[s * SECTOR / 2];
		bool ok = false;
		for (unsigned k = last; k <= step && !ok; k++)
			ok = history[k][s] == p[0];
		/* A discard that was about to happen leaves zeroes or what was there. */
		ok |= p[0] == 0 && step > last && extra != GROWTH;
		for (unsigned i = 1; i < SECTOR / 2 && ok; i++)
			ok = p[i] == p[0];
		if (!ok)
			fail_aloud("%s: sector %u holds %u, flushed was %u", what, s, p[0],
				   history[last][s]);
	}
	if (extra == KEPT && step > KEPT_STEP)
		assert_kept(path, what);
}

static void apply(uint8_t *file, uint64_t *size, const struct change *c, bool torn)
{
	if (c->op == FILE_TRUNCATE) {
		if (c->offset < *size)
			memset(file + c->offset, 0, *size - c->offset);
		*size = c->offset;
		return;
	}
	if (c->op == FILE_FLUSH || c->offset + c->len > MAX_FILE)
		return;
	for (uint64_t i = 0; i < c->len;) {
		uint64_t n = SECTOR - (c->offset + i) % SECTOR;
		if (n > c->len - i)
			n = c->len - i;
		if (!torn || rnd() % 2) {
			if (c->data)
				memcpy(file + c->offset + i, c->data + i, n);
			else
				memset(file + c->offset + i, 0, n);
			if (c->op != FILE_DISCARD && c->offset + i + n > *size)
				*size = c->offset + i + n;
		}
		i += n;
	}
}

static void dump(const char *path, const uint8_t *file, uint64_t size)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
	assert_true(fd >= 0);
	assert_int_equal(pwrite_full(fd, file, size, 0), 0);
	close(fd);
}

/* Runs the workload on a new image and records it. Returns the file as it was before. */
static uint8_t *run_recorded(const char *shape, enum extra extra, uint64_t *size)
{
	bool recording = true;
	struct file_observer o = {record, &recording};
	struct stat st;
	make(shape, extra == GROWTH ? SECTORS / 4 : SECTORS);
	uint8_t *file = calloc(1, MAX_FILE);
	int fd = open("c.qcow2", O_RDONLY);
	assert_int_equal(fstat(fd, &st), 0);
	*size = (uint64_t)st.st_size;
	assert_int_equal(pread_full(fd, file, *size, 0), 0);
	close(fd);
	memset(history, 0, sizeof(history));
	flushed_after[0] = true;
	forget_log();
	step_now = 0;
	file_set_observer(&o);
	/* Without discard, what is freed keeps its bytes. */
	unsigned flags = IMAGE_WRITABLE | IMAGE_NO_FLUSH | (extra == REUSE ? 0 : IMAGE_DISCARD);
	struct image *img = image_open("c.qcow2", "qcow2", flags, NULL, NULL);
	assert_non_null(img);
	size_after[0] = image_size(img);
	for (step_now = 1; step_now <= STEPS; step_now++) {
		if (do_step(img, step_now, extra))
			fail_aloud("'%s': step %u", shape, step_now);
		size_after[step_now] = image_size(img);
	}
	step_now = STEPS;
	image_close(img);
	file_set_observer(NULL);
	assert_true(log_len < LOG);
	return file;
}

static void crash_everywhere(const char *shape, enum extra extra, size_t every)
{
	uint64_t size;
	uint8_t *durable = run_recorded(shape, extra, &size), *file = malloc(MAX_FILE);
	size_t synced = 0; /* changes before this one are in `durable` */
	unsigned flushed = 0;
	for (size_t i = 0; i <= log_len; i++) {
		const struct change *c = &log_[i];
		if (i % every == rnd() % every || i == log_len) {
			char what[96];
			uint64_t len = size;
			unsigned step = i < log_len ? c->step : STEPS;
			/* The flush of a step is done when a later one begins. */
			for (unsigned k = flushed; k < step; k++)
				if (flushed_after[k])
					flushed = k;
			snprintf(what, sizeof(what), "'%s' after change %zu of %zu", shape, i,
				 log_len);
			/* The header decides most: what may go wrong with it is tried again. */
			unsigned tries = 1;
			for (size_t k = synced; k < i; k++)
				if (log_[k].op == FILE_WRITE && log_[k].offset < SECTOR)
					tries = 12;
			for (; tries; tries--) {
				memcpy(file, durable, MAX_FILE);
				len = size;
				for (size_t k = synced; k < i; k++)
					if (rnd() % 3)
						apply(file, &len, &log_[k], rnd() % 3 == 0);
				dump("crash.qcow2", file, len);
				assert_survived("crash.qcow2", flushed, step, extra, what);
			}
		}
		if (i < log_len && c->op == FILE_FLUSH)
			for (; synced < i; synced++)
				apply(durable, &size, &log_[synced], false);
	}
	free(durable);
	free(file);
}

static void a_crash_at_any_change_leaves_leaks_at_worst(void **state)
{
	quiet_stderr();
	for (size_t s = 0; s < ARRAY_SIZE(shapes); s++)
		for (int round = 0; round < 2; round++) /* once at each change */
			crash_everywhere(shapes[s], PLAIN, round ? 3 : 1);
	loud_stderr();
}

static void a_crash_in_a_snapshot_is_repaired_at_the_next_opening(void **state)
{
	static const char *const kinds[] = {"", "cluster_size=2k",
					    "extended_l2=on,cluster_size=32k"};
	quiet_stderr();
	for (size_t s = 0; s < ARRAY_SIZE(kinds); s++)
		crash_everywhere(kinds[s], SNAPSHOTS, 4);
	loud_stderr();
}

static void a_crash_while_bitmaps_change_leaves_leaks_at_worst(void **state)
{
	static const char *const kinds[] = {"", "cluster_size=512"};
	quiet_stderr();
	for (size_t s = 0; s < ARRAY_SIZE(kinds); s++)
		crash_everywhere(kinds[s], BITMAPS, 3);
	loud_stderr();
}

static void a_crash_while_the_disk_is_cut_leaves_leaks_at_worst(void **state)
{
	static const char *const kinds[] = {"", "cluster_size=512,compat=0.10",
					    "extended_l2=on,cluster_size=16k"};
	quiet_stderr();
	for (size_t s = 0; s < ARRAY_SIZE(kinds); s++)
		crash_everywhere(kinds[s], RESIZES, 3);
	loud_stderr();
}

static void a_crash_while_the_image_is_amended_leaves_leaks_at_worst(void **state)
{
	static const char *const kinds[] = {"", "cluster_size=512"};
	quiet_stderr();
	for (size_t s = 0; s < ARRAY_SIZE(kinds); s++)
		crash_everywhere(kinds[s], AMENDMENTS, 3);
	loud_stderr();
}

static void a_crash_with_compressed_clusters_leaves_leaks_at_worst(void **state)
{
	static const char *const kinds[] = {"", "cluster_size=4k,refcount_bits=8"};
	quiet_stderr();
	for (size_t s = 0; s < ARRAY_SIZE(kinds); s++)
		crash_everywhere(kinds[s], PACKED, 3);
	loud_stderr();
}

static void a_crash_finds_no_stale_bytes_in_place_of_a_table(void **state)
{
	static const char *const kinds[] = {"cluster_size=512", "cluster_size=1k,compat=0.10"};
	quiet_stderr();
	for (int round = 0; round < 4; round++)
		crash_everywhere(kinds[round % 2], REUSE, 1);
	loud_stderr();
}

static void a_crash_while_the_refcount_table_moves_leaves_leaks_at_worst(void **state)
{
	quiet_stderr();
	for (int round = 0; round < 3; round++)
		crash_everywhere("cluster_size=512,refcount_bits=64", FILL, 1);
	loud_stderr();
}

static void a_crash_while_the_disk_grows_leaves_leaks_at_worst(void **state)
{
	static const char *const kinds[] = {"cluster_size=512", "cluster_size=1k,compat=0.10"};
	quiet_stderr();
	for (size_t s = 0; s < ARRAY_SIZE(kinds); s++)
		crash_everywhere(kinds[s], GROWTH, 1);
	loud_stderr();
}

static void a_crash_while_one_snapshot_changes_keeps_the_other(void **state)
{
	static const char *const kinds[] = {"", "cluster_size=4k"};
	quiet_stderr();
	for (size_t s = 0; s < ARRAY_SIZE(kinds); s++)
		crash_everywhere(kinds[s], KEPT, 2);
	loud_stderr();
}

/* From some change on, every one fails, as on a full or broken disk. */
static void failing_writes_leave_leaks_at_worst(void **state)
{
	static const int errors[] = {-ENOSPC, -EIO};
	bool recording = false;
	struct file_observer o = {record, &recording};
	quiet_stderr();
	for (size_t s = 0; s < 2 * ARRAY_SIZE(shapes); s++) {
		const char *shape = shapes[s / 2];
		for (size_t at = 0; at < 120; at += 1 + rnd() % 7) {
			char what[96];
			make(shape, SECTORS);
			memset(history, 0, sizeof(history));
			unsigned flushed = 0, step;
			seen_changes = 0;
			fail_at = at;
			fail_with = errors[s % 2];
			file_set_observer(&o);
			struct image *img = image_open(
				"c.qcow2", "qcow2", IMAGE_WRITABLE | IMAGE_DISCARD | IMAGE_NO_FLUSH,
				NULL, NULL);
			for (step = 1; img && step <= STEPS; step++) {
				do_step(img, step, PLAIN);
				if (flushed_after[step])
					flushed = step;
			}
			image_close(img);
			file_set_observer(NULL);
			fail_at = SIZE_MAX;
			snprintf(what, sizeof(what), "'%s', failing with %d from change %zu", shape,
				 fail_with, at);
			assert_survived("c.qcow2", flushed, STEPS, PLAIN, what);
		}
	}
	loud_stderr();
}

/* A single change fails while a table moves; the work goes on, and what it then uses is free. */
static void a_change_that_fails_once_leaves_leaks_at_worst(void **state)
{
	bool recording = false, hit = true;
	struct file_observer o = {record, &recording};
	static uint16_t disk[SECTORS][SECTOR / 2];
	fail_with = -EIO;
	quiet_stderr();
	for (size_t at = 0; hit; at++) {
		char what[64];
		struct image_check r;
		struct error err = ERROR_INIT;
		snprintf(what, sizeof(what), "change %zu fails", at);
		make("cluster_size=512", SECTORS / 4);
		struct image *img =
			image_open("c.qcow2", "qcow2", IMAGE_WRITABLE | IMAGE_NO_FLUSH, NULL, NULL);
		assert_non_null(img);
		assert_int_equal(img->driver->snapshot_create(img, "kept", NULL), 0);
		assert_int_equal(write_stamps(img, 0, SECTORS / 8, 1), 0);
		assert_int_equal(image_flush(img), 0);
		seen_changes = 0;
		fail_at = at;
		fail_to = at + 1;
		file_set_observer(&o);
		image_truncate(img, SECTORS / 2 * SECTOR, NULL);
		img->driver->snapshot_create(img, "s", NULL);
		img->driver->snapshot_delete(img, "kept", NULL);
		file_set_observer(NULL);
		hit = seen_changes > at;
		fail_at = fail_to = SIZE_MAX;
		int rc = image_flush(img); /* what was given up is used again */
		if (!rc)
			rc = write_stamps(img, SECTORS / 8, SECTORS / 8, 2);
		image_close(img);
		if (rc)
			fail_aloud("%s: writing ended with %d", what, rc);
		img = image_open("c.qcow2", "qcow2", IMAGE_WRITABLE | IMAGE_NO_FLUSH, NULL, &err);
		if (!img)
			fail_aloud("%s: %s", what, err.text);
		rc = image_run_check(img, 0, &r, &err);
		if (!rc)
			rc = image_pread(img, disk, SECTORS / 4 * SECTOR, 0);
		image_close(img);
		if (rc || r.corruptions || r.check_errors)
			fail_aloud("%s: %d, %lu corruptions", what, rc,
				   (unsigned long)r.corruptions);
		for (unsigned s = 0; s < SECTORS / 4; s++)
			if (disk[s][0] != (s < SECTORS / 8 ? 1 : 2))
				fail_aloud("%s: sector %u holds %u", what, s, disk[s][0]);
	}
	loud_stderr();
}

/* It fails for a while, then the host's disk has room or works again: nothing is lost that was
 * reported as written. */
static void after_a_full_or_broken_disk_all_goes_on(void **state)
{
	bool recording = false;
	struct file_observer o = {record, &recording};
	static uint16_t sector[SECTOR / 2], disk[SECTORS][SECTOR / 2];
	static uint16_t model[SECTORS];
	for (size_t s = 0; s < 2 * ARRAY_SIZE(shapes); s++) {
		const char *shape = shapes[s / 2];
		make(shape, SECTORS);
		memset(model, 0, sizeof(model));
		seen_changes = 0;
		fail_with = s % 2 ? -EIO : -ENOSPC;
		file_set_observer(&o);
		struct image *img =
			image_open("c.qcow2", "qcow2", IMAGE_WRITABLE | IMAGE_NO_FLUSH, NULL, NULL);
		assert_non_null(img);
		for (unsigned i = 1; i < 2000; i++) {
			unsigned n = (unsigned)(rnd() % SECTORS);
			fail_at = i % 100 > 60 ? 0 : SIZE_MAX;
			for (size_t k = 0; k < SECTOR / 2; k++)
				sector[k] = (uint16_t)i;
			if (image_pwrite(img, sector, SECTOR, n * SECTOR) == 0)
				model[n] = (uint16_t)i;
			if (i % 37 == 0)
				image_flush(img);
		}
		fail_at = SIZE_MAX;
		assert_int_equal(image_flush(img), 0);
		image_close(img);
		file_set_observer(NULL);
		img = image_open("c.qcow2", "qcow2", 0, NULL, NULL);
		assert_int_equal(image_pread(img, disk, sizeof(disk), 0), 0);
		for (unsigned n = 0; n < SECTORS; n++)
			if (disk[n][0] != model[n])
				fail_msg("'%s': sector %u holds %u, not %u", shape, n, disk[n][0],
					 model[n]);
		struct image_check r;
		assert_int_equal(image_run_check(img, 0, &r, NULL), 0);
		assert_int_equal(r.corruptions, 0);
		image_close(img);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_crash_at_any_change_leaves_leaks_at_worst),
		cmocka_unit_test(a_crash_in_a_snapshot_is_repaired_at_the_next_opening),
		cmocka_unit_test(a_crash_while_bitmaps_change_leaves_leaks_at_worst),
		cmocka_unit_test(a_crash_while_the_disk_is_cut_leaves_leaks_at_worst),
		cmocka_unit_test(a_crash_while_the_image_is_amended_leaves_leaks_at_worst),
		cmocka_unit_test(a_crash_with_compressed_clusters_leaves_leaks_at_worst),
		cmocka_unit_test(a_crash_finds_no_stale_bytes_in_place_of_a_table),
		cmocka_unit_test(a_crash_while_the_refcount_table_moves_leaves_leaks_at_worst),
		cmocka_unit_test(a_crash_while_the_disk_grows_leaves_leaks_at_worst),
		cmocka_unit_test(a_crash_while_one_snapshot_changes_keeps_the_other),
		cmocka_unit_test(failing_writes_leave_leaks_at_worst),
		cmocka_unit_test(a_change_that_fails_once_leaves_leaks_at_worst),
		cmocka_unit_test(after_a_full_or_broken_disk_all_goes_on),
	};
	return cmocka_run_group_tests(tests, enter_memory, leave_scratch);
}
