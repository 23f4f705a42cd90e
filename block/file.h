/* SPDX-License-Identifier: MIT */
/*
 * The file below a format driver: a regular file or a block device, opened with or without
 * O_DIRECT, locked against other processes on the byte ranges that QEMU uses. Any number of threads
 * may transfer at once.
 */
#ifndef BLOCK_FILE_H
#define BLOCK_FILE_H

#include "lib/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct file_layer;
struct remote_request;

/* What an image user does, and what it lets others do: QEMU's block permissions, whose bit numbers
 * are offsets into the locked byte ranges. */
enum file_perm {
	PERM_CONSISTENT_READ = 1 << 0,
	PERM_WRITE = 1 << 1,
	PERM_WRITE_UNCHANGED = 1 << 2,
	PERM_RESIZE = 1 << 3,
	PERM_ALL = 15,
};

struct file_open_args {
	const char *path;
	const char *name;  /* for messages; NULL: path */
	const char *role;  /* for messages, such as " (backing file of 'x')"; NULL: none */
	unsigned flags;    /* enum image_flags */
	bool create;       /* make it if it is missing; contents are kept until file_truncate() */
	unsigned perms;    /* what this user does (enum file_perm) */
	unsigned unshared; /* what nobody else may do meanwhile */
};

struct file_layer *file_open(const struct file_open_args *args, struct error *err);
/* The program is about to end: transfers fail where they would wait for a server that says nothing. */
void file_ending(struct file_layer *f);
void file_close(struct file_layer *f);
/* Locks a file that was opened with IMAGE_NO_LOCK for its probing. */
int file_lock_later(struct file_layer *f, const char *what, unsigned perms, unsigned unshared,
		    struct error *err);

/* Whole transfers, 0 or -errno. What lies behind the end of the file reads as zeroes. */
int file_preadv(struct file_layer *f, const struct iovec *iov, int iovcnt, uint64_t offset);
int file_pwritev(struct file_layer *f, const struct iovec *iov, int iovcnt, uint64_t offset);
int file_pread(struct file_layer *f, void *buf, size_t len, uint64_t offset);
int file_pwrite(struct file_layer *f, const void *buf, size_t len, uint64_t offset);
/* The descriptor for a transfer that the caller does itself (image_straight_begin()), or -1 where
 * that would not be the same as file_preadv() or file_pwritev(). */
int file_straight_begin(struct file_layer *f, bool write, const struct iovec *iov, int iovcnt,
			uint64_t offset, uint64_t len);
void file_straight_end(struct file_layer *f, bool write);
/* Starts a transfer that no thread waits for (image_submit()), or false. */
bool file_submit(struct file_layer *f, struct remote_request *req);
/* Reading of the range is to be expected: brings it near. -ENOTSUP where only reading would. */
int file_cache(struct file_layer *f, uint64_t offset, uint64_t len);
/* As file_pwritev(), and what was written is on stable storage when it returns 0. */
int file_pwritev_fua(struct file_layer *f, const struct iovec *iov, int iovcnt, uint64_t offset);
/* Everything written before is on stable storage; nothing is done with IMAGE_NO_FLUSH. */
int file_flush(struct file_layer *f);
/* Gives the range back to the host; it may then read as anything. 0 where the host cannot. */
int file_discard(struct file_layer *f, uint64_t offset, uint64_t len);
/* Makes the range read as zeroes by the cheapest way the host has. */
int file_write_zeroes(struct file_layer *f, uint64_t offset, uint64_t len, bool may_unmap);
/* The same, or -ENOTSUP where the host would have to write the zeroes as data. */
int file_write_zeroes_fast(struct file_layer *f, uint64_t offset, uint64_t len, bool may_unmap);
/* Writes them as data, whatever else the host has: the range then has its space. */
int file_write_zero_bytes(struct file_layer *f, uint64_t offset, uint64_t len);
/* Reserves host space for the range (posix_fallocate). */
int file_allocate(struct file_layer *f, uint64_t offset, uint64_t len);
int file_truncate(struct file_layer *f, uint64_t size);
/* How the host's file system is to lay out a new file; -o nocow=, extent_size_hint=. */
struct file_layout {
	bool no_cow;          /* btrfs */
	uint64_t extent_hint; /* bytes, 0: none; XFS */
	bool hint_given;      /* by the user: tell if it cannot be had */
};
struct opts;
int file_layout_read(struct opts *opts, struct file_layout *layout, struct error *err);
/* Asks for it; the file is empty yet. Other file systems have no such thing. */
void file_set_layout(struct file_layer *f, const struct file_layout *layout);
/* Bytes, or -errno. */
int64_t file_size(struct file_layer *f);
/* Bytes that the host stores for it. */
uint64_t file_disk_usage(struct file_layer *f);
/* What is at `offset`: flags of enum file_status, 0 for data; *count becomes how far (1..len) that
 * holds. */
enum file_status {
	FILE_HOLE = 1,   /* takes no space */
	FILE_ZEROES = 2, /* reads as zeroes */
};
unsigned file_status(struct file_layer *f, uint64_t offset, uint64_t len, uint64_t *count);
/* Whether `offset` reads as zeroes; *count becomes how far (1..len) that holds. */
bool file_in_hole(struct file_layer *f, uint64_t offset, uint64_t len, uint64_t *count);
/* Copies within the host (copy_file_range); -ENOTSUP where it cannot. */
int file_copy(struct file_layer *from, uint64_t from_offset, struct file_layer *to,
	      uint64_t to_offset, uint64_t len);
/* A block device or a remote file, which is as long as it is and holds whatever it held before. */
bool file_is_device(const struct file_layer *f);
/* What a remote file is called (its URI), NULL of one of the host's. */
const char *file_remote_name(const struct file_layer *f);
/* True if both are the same file. */
bool file_same(const struct file_layer *a, const struct file_layer *b);

/*
 * A file that is not the host's: what a protocol does for it. Any thread, several at once. Transfers
 * are whole, 0 or -errno; what is read behind the end is zeroes; its size does not change.
 */
struct file_protocol {
	void (*close)(void *remote);
	int (*preadv)(void *remote, const struct iovec *iov, int iovcnt, uint64_t offset);
	/* `fua`: it is on stable storage when this returns. */
	int (*pwritev)(void *remote, const struct iovec *iov, int iovcnt, uint64_t offset,
		       bool fua);
	/* Starts a transfer of at least one byte, or a flush. False: this one goes by the functions
	 * above. */
	bool (*submit)(void *remote, struct remote_request *req);
	/* NULL or -ENOTSUP: it cannot bring a range near without its being read. */
	int (*cache)(void *remote, uint64_t offset, uint64_t len);
	int (*flush)(void *remote);
	int (*discard)(void *remote, uint64_t offset, uint64_t len);
	/* -ENOTSUP: plain zeroes are to be written. */
	int (*write_zeroes)(void *remote, uint64_t offset, uint64_t len, bool may_unmap);
	/* The same, or -ENOTSUP at once where it would take as long as writing data. */
	int (*write_zeroes_fast)(void *remote, uint64_t offset, uint64_t len, bool may_unmap);
	uint64_t (*size)(void *remote);
	unsigned (*status)(void *remote, uint64_t offset, uint64_t len, uint64_t *count);
	const char *(*identity)(void *remote);
	/* The program is about to end: a server that says nothing must not keep it. */
	void (*ending)(void *remote);
};
/* Takes over `remote`. */
struct file_layer *file_new_remote(const struct file_protocol *protocol, void *remote,
				   unsigned flags);

/*
 * For tests: sees every change of every file before it happens, and may let it fail (a negative
 * errno is returned in place of doing it). NULL takes it back. Not for use while other threads
 * transfer.
 */
enum file_op { FILE_WRITE, FILE_ZERO, FILE_DISCARD, FILE_TRUNCATE, FILE_FLUSH };
struct file_observer {
	/* iov is NULL but for FILE_WRITE; FILE_TRUNCATE has the new size as its offset. */
	int (*op)(void *opaque, enum file_op op, uint64_t offset, uint64_t len,
		  const struct iovec *iov, int iovcnt);
	void *opaque;
};
void file_set_observer(const struct file_observer *observer);

/* file_lock.c: takes the locks and sees whether others hold conflicting ones. 0 or -EBUSY with a
 * sentence that begins with `what` and names the process that holds the image. */
int file_lock(int fd, const char *what, unsigned perms, unsigned unshared, struct error *err);

#endif
