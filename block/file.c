/* SPDX-License-Identifier: MIT */
/*
 * Files and block devices as images lie in them (file.h).
 *
 * With O_DIRECT the kernel wants address, offset and length aligned. Transfers that are go straight
 * through; all others go through an aligned buffer, a write that covers a block in part reading it
 * first. Such a read-modify-write excludes every other write to the file for its time, so that it
 * puts back nothing stale.
 */
#include "block/file.h"
#include "block/host_device.h"
#include "block/image.h"
#include "block/iov.h"
#include "block/nbd_client.h"
#include "block/remote.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/optstr.h"
#include "lib/text.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	DIRECT_ALIGN = 4096,       /* satisfies 512-byte and 4-KiB sectors alike */
	BOUNCE_SIZE = 1024 * 1024, /* a longer transfer goes in pieces */
	CACHED_PIECE = 64 * 1024,
	IOV_PIECE = 64,       /* entries handed to the kernel at once */
	STRAIGHT_IOVS = 1024, /* what the kernel takes at most: UIO_MAXIOV */
};

struct file_layer {
	const struct file_protocol *protocol; /* NULL: a file of the host's */
	void *remote;
	int fd;
	unsigned flags;
	bool direct;
	bool device;
	unsigned sector; /* of a device, bytes */
	dev_t dev;
	ino_t ino;
	pthread_rwlock_t rmw; /* O_DIRECT only: read-modify-write is exclusive among writes */
	/* The same towards writes that others do on the descriptor. */
	pthread_mutex_t gate;
	pthread_cond_t gate_free;
	unsigned straight_writes;
	bool rmw_goes_on;
};

static const struct file_observer *observer;

void file_set_observer(const struct file_observer *o)
{
	observer = o;
}

static inline int observe(enum file_op op, uint64_t offset, uint64_t len, const struct iovec *iov,
			  int iovcnt)
{
	if (__builtin_expect(!observer, 1))
		return 0;
	return observer->op(observer->opaque, op, offset, len, iov, iovcnt);
}

static int open_error(const struct file_open_args *a, int code, struct error *err)
{
	const char *name = a->name ? a->name : a->path, *role = a->role ? a->role : "";
	if (code == EACCES && (a->flags & IMAGE_WRITABLE) && access(a->path, R_OK) == 0)
		return error_set(err, code,
				 "cannot open '%s'%s for writing: Permission denied; open it "
				 "read-only or change its permissions",
				 name, role);
	if (code == ENOMEDIUM || code == ENXIO)
		return error_set(err, ENOMEDIUM, "cannot open '%s'%s: there is no medium in it",
				 name, role);
	if (code == EROFS)
		return error_set(err, code,
				 "cannot open '%s'%s for writing: it is on a read-only file system",
				 name, role);
	if (code == EINVAL && (a->flags & IMAGE_DIRECT))
		return error_set(err, code,
				 "cannot open '%s'%s with cache.direct: its file system does not "
				 "support O_DIRECT",
				 name, role);
	return error_errno(err, code, "cannot open '%s'%s", name, role);
}

/* Is there a medium in it, and does the host use it itself? */
static int look_at_device(const struct file_open_args *a, int fd, dev_t dev, struct error *err)
{
	const char *name = a->name ? a->name : a->path, *role = a->role ? a->role : "";
	if (host_device_is_cd(dev) && host_cd_status(fd) < 0)
		return error_set(err, ENOMEDIUM,
				 "cannot open '%s'%s: there is no disc in the drive", name, role);
	if (a->flags & IMAGE_WRITABLE && host_device_read_only(fd))
		return error_set(err, EACCES,
				 "cannot open '%s'%s for writing: the device is read-only", name,
				 role);
	char *where = a->flags & IMAGE_WRITABLE ? host_device_mounted_at(dev) : NULL;
	if (where)
		warn("'%s' is mounted on '%s': writing to it from here destroys the file system; "
		     "unmount it first",
		     name, where);
	free(where);
	return 0;
}

struct file_layer *file_open(const struct file_open_args *a, struct error *err)
{
	const char *name = a->name ? a->name : a->path, *role = a->role ? a->role : "";
	if (nbd_is_name(a->path)) {
		char *what = xasprintf("cannot open '%s'%s", name, role);
		struct file_layer *f = nbd_file_open(a->path, NULL, "file.", a->flags, what, err);
		free(what);
		return f;
	}
	int flags = O_CLOEXEC | (a->flags & IMAGE_WRITABLE ? O_RDWR : O_RDONLY);
	if (a->flags & IMAGE_DIRECT)
		flags |= O_DIRECT;
	if (a->create)
		flags |= O_CREAT;
	struct stat st;
	/* A FIFO would block in open(), and a directory opens read-only: look first. */
	if (stat(a->path, &st) == 0) {
		if (S_ISDIR(st.st_mode)) {
			error_set(err, EISDIR, "cannot open '%s'%s: it is a directory", name, role);
			return NULL;
		}
		if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
			error_set(err, EINVAL,
				  "cannot open '%s'%s: it is neither a regular file nor a block "
				  "device",
				  name, role);
			return NULL;
		}
	}
	/* A CD drive opens without a disc only so. */
	bool cd = stat(a->path, &st) == 0 && S_ISBLK(st.st_mode) && host_device_is_cd(st.st_rdev);
	int fd = open(a->path, flags | (cd ? O_NONBLOCK : 0), 0644);
	if (fd < 0) {
		open_error(a, errno, err);
		return NULL;
	}
	if (!(a->flags & IMAGE_NO_LOCK)) {
		char what[512];
		snprintf(what, sizeof(what), "cannot open '%.300s'%.150s", name, role);
		unsigned unshared = a->flags & IMAGE_FORCE_SHARE ? 0 : a->unshared;
		if (file_lock(fd, what, a->perms, unshared, err)) {
			close(fd);
			return NULL;
		}
	}
	if (fstat(fd, &st) < 0) {
		open_error(a, errno, err);
		close(fd);
		return NULL;
	}
	if (S_ISBLK(st.st_mode) && look_at_device(a, fd, st.st_rdev, err) < 0) {
		close(fd);
		return NULL;
	}
	struct file_layer *f = xcalloc(1, sizeof(*f));
	*f = (struct file_layer){.fd = fd,
				 .flags = a->flags,
				 .direct = a->flags & IMAGE_DIRECT,
				 .device = S_ISBLK(st.st_mode),
				 .dev = st.st_dev,
				 .ino = st.st_ino};
	if (f->device)
		f->sector = host_device_sector(fd);
	pthread_rwlock_init(&f->rmw, NULL);
	pthread_mutex_init(&f->gate, NULL);
	pthread_cond_init(&f->gate_free, NULL);
	trace(TRACE_BLOCK, "open '%s' flags 0x%x", a->path, a->flags);
	return f;
}

struct file_layer *file_new_remote(const struct file_protocol *protocol, void *remote,
				   unsigned flags)
{
	struct file_layer *f = xcalloc(1, sizeof(*f));
	*f = (struct file_layer){
		.protocol = protocol, .remote = remote, .fd = -1, .flags = flags, .device = true};
	pthread_rwlock_init(&f->rmw, NULL);
	pthread_mutex_init(&f->gate, NULL);
	pthread_cond_init(&f->gate_free, NULL);
	return f;
}

const char *file_remote_name(const struct file_layer *f)
{
	return f->protocol ? f->protocol->identity(f->remote) : NULL;
}

void file_ending(struct file_layer *f)
{
	if (f->protocol)
		f->protocol->ending(f->remote);
}

void file_close(struct file_layer *f)
{
	if (!f)
		return;
	if (f->protocol)
		f->protocol->close(f->remote);
	else
		close(f->fd);
	pthread_rwlock_destroy(&f->rmw);
	pthread_mutex_destroy(&f->gate);
	pthread_cond_destroy(&f->gate_free);
	free(f);
}

int file_lock_later(struct file_layer *f, const char *what, unsigned perms, unsigned unshared,
		    struct error *err)
{
	/* Who shares an export is the server's business. */
	return f->protocol ? 0 : file_lock(f->fd, what, perms, unshared, err);
}

bool file_same(const struct file_layer *a, const struct file_layer *b)
{
	if (a->protocol || b->protocol)
		return a->protocol == b->protocol &&
		       strcmp(file_remote_name(a), file_remote_name(b)) == 0;
	return a->dev == b->dev && a->ino == b->ino;
}

bool file_is_device(const struct file_layer *f)
{
	return f->device;
}

int file_copy(struct file_layer *from, uint64_t from_offset, struct file_layer *to,
	      uint64_t to_offset, uint64_t len)
{
	off_t in = (off_t)from_offset, out = (off_t)to_offset;
	bool any = false;
	if (from->protocol || to->protocol)
		return -ENOTSUP;
	while (len) {
		ssize_t n = copy_file_range(from->fd, &in, to->fd, &out, len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && any)
			return -errno;
		if (n <= 0)
			return any ? -EIO : -ENOTSUP;
		any = true;
		len -= (uint64_t)n;
	}
	return 0;
}

int64_t file_size(struct file_layer *f)
{
	struct stat st;
	if (f->protocol)
		return (int64_t)f->protocol->size(f->remote);
	if (f->device) {
		uint64_t bytes;
		if (ioctl(f->fd, BLKGETSIZE64, &bytes) < 0)
			return -errno;
		return bytes > INT64_MAX ? -EFBIG : (int64_t)bytes;
	}
	if (fstat(f->fd, &st) < 0)
		return -errno;
	return st.st_size;
}

uint64_t file_disk_usage(struct file_layer *f)
{
	struct stat st;
	return f->protocol || fstat(f->fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

/* Offsets in the file must fit in off_t. */
static bool offset_ok(uint64_t offset, uint64_t len)
{
	return range_in(offset, len, INT64_MAX);
}

static int plain_transfer(struct file_layer *f, bool write, struct iov_iter it, uint64_t len,
			  uint64_t offset)
{
	while (len) {
		struct iovec part[IOV_PIECE];
		size_t covered;
		int n = iov_peek(&it, len > SIZE_MAX ? SIZE_MAX : (size_t)len, part, IOV_PIECE,
				 &covered);
		ssize_t done = write ? pwritev(f->fd, part, n, (off_t)offset)
				     : preadv(f->fd, part, n, (off_t)offset);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		if (done == 0) {
			if (write)
				return -EIO;
			iov_zero(&it, len);
			return 0;
		}
		iov_advance(&it, (size_t)done);
		offset += (uint64_t)done;
		len -= (uint64_t)done;
	}
	return 0;
}

/* True if O_DIRECT takes this list as it is. */
static bool aligned(const struct iovec *iov, int iovcnt, uint64_t offset)
{
	if (offset % DIRECT_ALIGN)
		return false;
	for (int i = 0; i < iovcnt; i++)
		if ((uintptr_t)iov[i].iov_base % DIRECT_ALIGN || iov[i].iov_len % DIRECT_ALIGN)
			return false;
	return iovcnt <= IOV_PIECE;
}

/* Aligned read into an aligned buffer; what is behind the end becomes zero. */
static int direct_read(struct file_layer *f, void *buf, size_t len, uint64_t offset)
{
	size_t done = 0;
	while (done < len) {
		ssize_t n = pread(f->fd, (char *)buf + done, len - done, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
		if (n == 0 || done % DIRECT_ALIGN)
			break; /* the end of the file */
	}
	memset((char *)buf + done, 0, len - done);
	return 0;
}

static int bounce_read(struct file_layer *f, struct iov_iter it, uint64_t len, uint64_t offset)
{
	void *buf;
	int rc = 0;
	if (posix_memalign(&buf, DIRECT_ALIGN, BOUNCE_SIZE))
		return -ENOMEM;
	while (len && !rc) {
		uint64_t start = round_down(offset, DIRECT_ALIGN);
		size_t head = (size_t)(offset - start);
		size_t part = BOUNCE_SIZE - head < len ? BOUNCE_SIZE - head : (size_t)len;
		rc = direct_read(f, buf, round_up(head + part, DIRECT_ALIGN), start);
		if (!rc)
			iov_write(&it, (char *)buf + head, part);
		offset += part;
		len -= part;
	}
	free(buf);
	return rc;
}

/* rmw is held for writing. */
static int bounce_write(struct file_layer *f, struct iov_iter it, uint64_t len, uint64_t offset)
{
	void *buf;
	int rc = 0;
	int64_t old_size = file_size(f);
	uint64_t end = offset + len;
	if (old_size < 0)
		return (int)old_size;
	if (posix_memalign(&buf, DIRECT_ALIGN, BOUNCE_SIZE))
		return -ENOMEM;
	while (len && !rc) {
		uint64_t start = round_down(offset, DIRECT_ALIGN);
		size_t head = (size_t)(offset - start);
		size_t part = BOUNCE_SIZE - head < len ? BOUNCE_SIZE - head : (size_t)len;
		size_t whole = round_up(head + part, DIRECT_ALIGN);
		if (head)
			rc = direct_read(f, buf, DIRECT_ALIGN, start);
		if (!rc && whole != head + part && (!head || whole > DIRECT_ALIGN))
			rc = direct_read(f, (char *)buf + whole - DIRECT_ALIGN, DIRECT_ALIGN,
					 start + whole - DIRECT_ALIGN);
		if (!rc) {
			iov_read(&it, (char *)buf + head, part);
			rc = pwrite_full(f->fd, buf, whole, start);
		}
		offset += part;
		len -= part;
	}
	free(buf);
	/* Whole blocks were written: cut off what that added behind the real end. */
	if (end < (uint64_t)old_size)
		end = (uint64_t)old_size;
	if (!rc && !f->device && file_size(f) > (int64_t)end && ftruncate(f->fd, (off_t)end) < 0)
		rc = -errno;
	return rc;
}

int file_preadv(struct file_layer *f, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	uint64_t len = iov_total(iov, iovcnt);
	struct iov_iter it = iov_iter(iov, iovcnt);
	if (!offset_ok(offset, len))
		return -EINVAL;
	if (f->protocol)
		return f->protocol->preadv(f->remote, iov, iovcnt, offset);
	/* Even an aligned direct read may end within a block at the end of the file; only the
	 * buffered way pads that without surprise. */
	if (f->direct && !(aligned(iov, iovcnt, offset) &&
			   range_in(offset, len, (uint64_t)(file_size(f) & ~(DIRECT_ALIGN - 1)))))
		return bounce_read(f, it, len, offset);
	return plain_transfer(f, false, it, len, offset);
}

/* Shuts out all other writes for a read-modify-write: those that take the lock, and those that go
 * past it on the descriptor. */
static void rmw_begin(struct file_layer *f)
{
	pthread_rwlock_wrlock(&f->rmw);
	pthread_mutex_lock(&f->gate);
	f->rmw_goes_on = true;
	while (f->straight_writes)
		pthread_cond_wait(&f->gate_free, &f->gate);
	pthread_mutex_unlock(&f->gate);
}

static void rmw_end(struct file_layer *f)
{
	pthread_mutex_lock(&f->gate);
	f->rmw_goes_on = false;
	pthread_mutex_unlock(&f->gate);
}

static int write_at(struct file_layer *f, const struct iovec *iov, int iovcnt, uint64_t offset,
		    bool fua)
{
	uint64_t len = iov_total(iov, iovcnt);
	struct iov_iter it = iov_iter(iov, iovcnt);
	if (!offset_ok(offset, len))
		return -EINVAL;
	int seen = observe(FILE_WRITE, offset, len, iov, iovcnt);
	if (seen)
		return seen;
	if (f->protocol)
		return f->protocol->pwritev(f->remote, iov, iovcnt, offset, fua);
	if (!f->direct)
		return plain_transfer(f, true, it, len, offset);
	bool straight = aligned(iov, iovcnt, offset);
	if (straight)
		pthread_rwlock_rdlock(&f->rmw);
	else
		rmw_begin(f);
	int rc = straight ? plain_transfer(f, true, it, len, offset)
			  : bounce_write(f, it, len, offset);
	if (!straight)
		rmw_end(f);
	pthread_rwlock_unlock(&f->rmw);
	return rc;
}

int file_straight_begin(struct file_layer *f, bool write, const struct iovec *iov, int iovcnt,
			uint64_t offset, uint64_t len)
{
	bool ok = !f->protocol && !observer && iovcnt <= STRAIGHT_IOVS && offset_ok(offset, len);
	if (!ok || (f->direct && !aligned(iov, iovcnt, offset)))
		return -1;
	if (!write || !f->direct)
		return f->fd;
	pthread_mutex_lock(&f->gate);
	ok = !f->rmw_goes_on;
	f->straight_writes += ok;
	pthread_mutex_unlock(&f->gate);
	return ok ? f->fd : -1;
}

void file_straight_end(struct file_layer *f, bool write)
{
	if (!write || !f->direct)
		return;
	pthread_mutex_lock(&f->gate);
	if (--f->straight_writes == 0)
		pthread_cond_signal(&f->gate_free);
	pthread_mutex_unlock(&f->gate);
}

bool file_submit(struct file_layer *f, struct remote_request *req)
{
	return f->protocol && !observer &&
	       !(req->op == REMOTE_FLUSH && f->flags & IMAGE_NO_FLUSH) &&
	       f->protocol->submit(f->remote, req);
}

int file_cache(struct file_layer *f, uint64_t offset, uint64_t len)
{
	if (!offset_ok(offset, len))
		return -EINVAL;
	return f->protocol && f->protocol->cache ? f->protocol->cache(f->remote, offset, len)
						 : -ENOTSUP;
}

int file_pwritev(struct file_layer *f, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	return write_at(f, iov, iovcnt, offset, false);
}

int file_pwritev_fua(struct file_layer *f, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	int rc = write_at(f, iov, iovcnt, offset, !(f->flags & IMAGE_NO_FLUSH));
	/* A host's file has only the flush of all of it. */
	return rc || f->protocol ? rc : file_flush(f);
}

int file_pread(struct file_layer *f, void *buf, size_t len, uint64_t offset)
{
	struct iovec iov = {buf, len};
	return file_preadv(f, &iov, 1, offset);
}

int file_pwrite(struct file_layer *f, const void *buf, size_t len, uint64_t offset)
{
	struct iovec iov = {(void *)buf, len};
	return file_pwritev(f, &iov, 1, offset);
}

int file_flush(struct file_layer *f)
{
	int seen = observe(FILE_FLUSH, 0, 0, NULL, 0);
	if (seen || (f->flags & IMAGE_NO_FLUSH))
		return seen;
	if (f->protocol)
		return f->protocol->flush(f->remote);
	return fdatasync(f->fd) < 0 ? -errno : 0;
}

int file_discard(struct file_layer *f, uint64_t offset, uint64_t len)
{
	int rc = observe(FILE_DISCARD, offset, len, NULL, 0);
	if (rc || !len)
		return rc;
	if (f->protocol)
		return f->protocol->discard(f->remote, offset, len);
	if (f->device) {
		/* The ioctl wants whole sectors; the partial ones at the ends just stay. */
		uint64_t start = round_up(offset, f->sector),
			 end = round_down(offset + len, f->sector);
		uint64_t range[2] = {start, end - start};
		if (end <= start)
			return 0;
		rc = ioctl(f->fd, BLKDISCARD, range);
	} else {
		rc = fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			       (off_t)len);
	}
	if (rc < 0 && errno != EOPNOTSUPP && errno != ENOTTY && errno != ENOSYS && errno != EINVAL)
		return -errno;
	return 0;
}

int file_write_zero_bytes(struct file_layer *f, uint64_t offset, uint64_t len)
{
	/* The page cache takes small pieces best: for a large one the kernel looks for large pages. */
	size_t size = f->direct || f->protocol ? BOUNCE_SIZE : CACHED_PIECE;
	void *zeroes;
	int rc = 0;
	if (len < size)
		size = round_up(len, DIRECT_ALIGN);
	if (posix_memalign(&zeroes, DIRECT_ALIGN, size))
		return -ENOMEM;
	memset(zeroes, 0, size);
	while (len && !rc) {
		size_t part = len < size ? (size_t)len : size;
		rc = file_pwrite(f, zeroes, part, offset);
		offset += part;
		len -= part;
	}
	free(zeroes);
	return rc;
}

/* The device zeroes whole sectors by itself, where it can; the partial ones at the ends and all of
 * it where it cannot is written. */
static int device_write_zeroes(struct file_layer *f, uint64_t offset, uint64_t len, bool may_unmap)
{
	uint64_t start = round_up(offset, f->sector), end = round_down(offset + len, f->sector);
	int mode = may_unmap ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : FALLOC_FL_ZERO_RANGE;
	if (end <= start || fallocate(f->fd, mode, (off_t)start, (off_t)(end - start)) != 0)
		return file_write_zero_bytes(f, offset, len);
	int rc = start > offset ? file_write_zero_bytes(f, offset, start - offset) : 0;
	return rc || end == offset + len ? rc : file_write_zero_bytes(f, end, offset + len - end);
}

/* By the file system, without writing data; -ENOTSUP if it cannot. */
static int allocate_zeroes(struct file_layer *f, uint64_t offset, uint64_t len, bool may_unmap)
{
	int64_t size = file_size(f);
	bool inside = size >= 0 && range_in(offset, len, (uint64_t)size);
	/* A punched hole reads as zeroes, but does not make the file longer. */
	if (may_unmap && inside &&
	    fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
		      (off_t)len) == 0)
		return 0;
	if (fallocate(f->fd, FALLOC_FL_ZERO_RANGE, (off_t)offset, (off_t)len) == 0)
		return 0;
	return -ENOTSUP;
}

int file_write_zeroes_fast(struct file_layer *f, uint64_t offset, uint64_t len, bool may_unmap)
{
	if (!len)
		return 0;
	if (!offset_ok(offset, len))
		return -EINVAL;
	if (f->device && !f->protocol)
		return -ENOTSUP;
	int seen = observe(FILE_ZERO, offset, len, NULL, 0);
	if (!seen && f->protocol)
		return f->protocol->write_zeroes_fast(f->remote, offset, len, may_unmap);
	return seen ? seen : allocate_zeroes(f, offset, len, may_unmap);
}

int file_write_zeroes(struct file_layer *f, uint64_t offset, uint64_t len, bool may_unmap)
{
	if (!len)
		return 0;
	if (!offset_ok(offset, len))
		return -EINVAL;
	int seen = observe(FILE_ZERO, offset, len, NULL, 0);
	if (seen)
		return seen;
	if (f->protocol) {
		int rc = f->protocol->write_zeroes(f->remote, offset, len, may_unmap);
		return rc == -ENOTSUP ? file_write_zero_bytes(f, offset, len) : rc;
	}
	if (f->device)
		return device_write_zeroes(f, offset, len, may_unmap);
	if (allocate_zeroes(f, offset, len, may_unmap) == 0)
		return 0;
	return file_write_zero_bytes(f, offset, len);
}

int file_allocate(struct file_layer *f, uint64_t offset, uint64_t len)
{
	if (!len)
		return 0;
	if (f->protocol)
		return -ENOTSUP;
	return -posix_fallocate(f->fd, (off_t)offset, (off_t)len);
}

int file_truncate(struct file_layer *f, uint64_t size)
{
	if (f->device)
		return file_size(f) >= (int64_t)size ? 0 : -ENOSPC;
	if (size > INT64_MAX)
		return -EFBIG;
	int seen = observe(FILE_TRUNCATE, size, 0, NULL, 0);
	if (seen)
		return seen;
	return ftruncate(f->fd, (off_t)size) < 0 ? -errno : 0;
}

int file_layout_read(struct opts *opts, struct file_layout *layout, struct error *err)
{
	*layout = (struct file_layout){.extent_hint = MIB};
	if (!opts)
		return 0;
	layout->hint_given = opts_has(opts, "extent_size_hint");
	int rc = opts_get_bool(opts, "nocow", &layout->no_cow, err);
	return rc ? rc : opts_get_size(opts, "extent_size_hint", &layout->extent_hint, err);
}

void file_set_layout(struct file_layer *f, const struct file_layout *layout)
{
	int flags;
	struct fsxattr attr;
	if (f->protocol || f->device)
		return;
	if (layout->no_cow && ioctl(f->fd, FS_IOC_GETFLAGS, &flags) == 0) {
		flags |= FS_NOCOW_FL;
		ioctl(f->fd, FS_IOC_SETFLAGS, &flags); /* file systems without it need none */
	}
	if (!layout->extent_hint || layout->extent_hint > UINT32_MAX) {
		if (layout->extent_hint)
			warn("extent_size_hint: at most 4 GiB; it is left out");
		return;
	}
	int rc = ioctl(f->fd, FS_IOC_FSGETXATTR, &attr);
	if (rc == 0) {
		attr.fsx_xflags |= FS_XFLAG_EXTSIZE;
		attr.fsx_extsize = (uint32_t)layout->extent_hint;
		rc = ioctl(f->fd, FS_IOC_FSSETXATTR, &attr);
	}
	if (rc < 0 && layout->hint_given)
		warn("the file system takes no extent_size_hint: %s", strerror(errno));
}

/* A hole of a file of the host's. */
static bool in_hole(struct file_layer *f, uint64_t offset, uint64_t len, uint64_t *count)
{
	*count = len;
	if (f->device || offset > INT64_MAX)
		return false;
	/* SEEK_DATA and SEEK_HOLE move the file position, which nothing here uses. */
	off_t data = lseek(f->fd, (off_t)offset, SEEK_DATA);
	if (data < 0)
		return errno == ENXIO; /* no data up to the end */
	if ((uint64_t)data > offset) {
		if ((uint64_t)data - offset < len)
			*count = (uint64_t)data - offset;
		return true;
	}
	off_t hole = lseek(f->fd, (off_t)offset, SEEK_HOLE);
	if (hole > (off_t)offset && (uint64_t)hole - offset < len)
		*count = (uint64_t)hole - offset;
	return false;
}

unsigned file_status(struct file_layer *f, uint64_t offset, uint64_t len, uint64_t *count)
{
	if (f->protocol)
		return f->protocol->status(f->remote, offset, len, count);
	return in_hole(f, offset, len, count) ? FILE_HOLE | FILE_ZEROES : 0;
}

bool file_in_hole(struct file_layer *f, uint64_t offset, uint64_t len, uint64_t *count)
{
	return file_status(f, offset, len, count) & FILE_ZEROES;
}
