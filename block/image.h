/* SPDX-License-Identifier: MIT */
/*
 * Disk images. A driver (raw, qcow2, nbd) is a struct of plain synchronous functions that several
 * threads may call at once; it locks inside where it must. Offsets and lengths are bytes, and need
 * no alignment (a driver on O_DIRECT bounces inside). Concurrency comes from the request queue
 * above (block/drive.h), never from callbacks in here.
 *
 * Everything read from an image file is hostile: each offset, size and count is checked where it is
 * read.
 */
#ifndef BLOCK_IMAGE_H
#define BLOCK_IMAGE_H

#include "lib/error.h"
#include "lib/optstr.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct image;
struct remote_request;

enum image_flags {
	IMAGE_WRITABLE = 1 << 0,
	IMAGE_NO_BACKING = 1 << 1,   /* do not open the backing chain (info, rebase -u) */
	IMAGE_NO_LOCK = 1 << 2,      /* locking=off */
	IMAGE_FORCE_SHARE = 1 << 3,  /* -U: read even if another process writes */
	IMAGE_DIRECT = 1 << 4,       /* cache.direct: O_DIRECT */
	IMAGE_NO_FLUSH = 1 << 5,     /* cache=unsafe: flush does nothing */
	IMAGE_WRITETHROUGH = 1 << 6, /* each write is on disk when it returns */
	IMAGE_DISCARD =
		1 << 7,       /* discard=unmap: discard gives space back; otherwise it is a no-op */
	IMAGE_CHECK = 1 << 8, /* open even a damaged image as far as possible (check, info) */
	IMAGE_PROBED = 1 << 9,         /* set by image_open() when it had to guess the format */
	IMAGE_DETECT_ZEROES = 1 << 10, /* detect-zeroes=on: writes of zeroes become write_zeroes */
	IMAGE_DETECT_UNMAP = 1 << 11,  /* detect-zeroes=unmap: the same, giving the space back */
	IMAGE_COPY_ON_READ = 1 << 12,  /* copy-on-read=on: what was read from below stays here */
	/* Another process may write meanwhile, as this one does: a raw file's locks say so. The
	 * formats have tables of their own in the file, and share nothing. */
	IMAGE_SHARE_WRITE = 1 << 13,
	IMAGE_FILTERS = IMAGE_DETECT_ZEROES | IMAGE_DETECT_UNMAP | IMAGE_COPY_ON_READ,
};

/* What block_status says about a range. */
enum block_status {
	BLOCK_DATA = 1,      /* reads come from this layer */
	BLOCK_ZERO = 2,      /* reads as zeroes */
	BLOCK_ALLOCATED = 4, /* this layer decides (data or zero); clear: the backing image decides,
				or zeroes without one */
	BLOCK_OFFSET_VALID = 8, /* *host_offset is where it lies in the image file */
	BLOCK_COMPRESSED = 16,
};

struct image_snapshot_info {
	char *id, *name;
	uint64_t vm_state_size, disk_size, vm_clock_ns;
	uint64_t icount; /* UINT64_MAX: unknown */
	uint32_t date_sec, date_nsec;
};

struct image_bitmap_info {
	char *name;
	uint64_t granularity; /* bytes a bit */
	bool in_use, enabled;
};

struct image_info {
	const char *format;
	uint64_t virtual_size; /* bytes */
	uint64_t disk_size;    /* bytes really allocated on the host */
	bool remote;           /* which is not known, as it is a server's */
	uint32_t cluster_size; /* 0: the format has none */
	char *backing_file;    /* as written in the image, or NULL */
	char *backing_format;  /* or NULL */
	char *backing_path;    /* resolved, or NULL */
	bool dirty, corrupt;
	bool encrypted;
	/* qcow2 */
	const char *compat; /* "0.10" or "1.1" */
	const char *compression_type;
	unsigned refcount_bits;
	bool lazy_refcounts, extended_l2;
	bool external_data, data_file_raw;
	char *data_file;                   /* as written in the image, or NULL */
	struct image_bitmap_info *bitmaps; /* persistent dirty bitmaps */
	size_t bitmap_count;
	struct image_snapshot_info *snapshots; /* internal ones */
	size_t snapshot_count;
};

struct image_check {
	uint64_t corruptions, leaks;
	uint64_t corruptions_fixed, leaks_fixed;
	uint64_t check_errors; /* could not be examined */
	uint64_t total_clusters, allocated_clusters, fragmented_clusters, compressed_clusters;
	uint64_t image_end_offset;
};
struct image_measure {
	uint64_t required, fully_allocated; /* bytes */
	uint64_t bitmaps;                   /* what copies of the source's bitmaps would add */
	bool has_bitmaps;                   /* source and target could have some */
};
enum { IMAGE_FIX_LEAKS = 1, IMAGE_FIX_ERRORS = 2 };

enum image_bitmap_op {
	BITMAP_ADD,
	BITMAP_REMOVE,
	BITMAP_CLEAR,
	BITMAP_ENABLE,
	BITMAP_DISABLE,
	BITMAP_MERGE,
};

/* A change of the persistent dirty bitmaps of an image that is open for writing. */
struct image_bitmap_edit {
	enum image_bitmap_op op;
	const char *name;
	uint64_t granularity; /* ADD: bytes a bit; 0: what suits the image */
	struct image *source; /* MERGE: what is dirty in this bitmap becomes dirty here too */
	const char *source_name;
};

/* A driver. Functions that a format cannot do are NULL; the wrappers below then return -ENOTSUP or
 * do the generic thing. */
struct image_driver {
	const char *name; /* "raw", "qcow2" */
	size_t state_size;
	/* How sure this format is about a file that starts with these bytes: 0 no, 1 (raw:
	 * anything), 100 certain. */
	int (*probe)(const uint8_t *head, size_t len, const char *path);
	/* img->file, img->flags and img->path are set; fills img->size and its own state
	 * (img->state, zeroed, state_size bytes). */
	int (*open)(struct image *img, struct opts *opts, struct error *err);
	void (*close)(struct image *img);
	int (*preadv)(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset);
	int (*pwritev)(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset);
	/* The same, and what was written is on stable storage when it returns 0. NULL: pwritev and
	 * flush. */
	int (*pwritev_fua)(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset);
	/* Writes one cluster (info.cluster_size; the disk's last one may be shorter) in compressed
	 * form. -ENOSPC: it does not get shorter, write it plainly. */
	int (*write_compressed)(struct image *img, const void *buf, size_t len, uint64_t offset);
	/* Brings the range near, or -ENOTSUP. */
	int (*cache)(struct image *img, uint64_t offset, uint64_t len);
	/* What was written before it was called is on stable storage when it returns 0. */
	int (*flush)(struct image *img);
	int (*discard)(struct image *img, uint64_t offset, uint64_t len);
	int (*write_zeroes)(struct image *img, uint64_t offset, uint64_t len, bool may_unmap);
	/* The same, or -ENOTSUP at once where it would take as long as writing data. */
	int (*write_zeroes_fast)(struct image *img, uint64_t offset, uint64_t len, bool may_unmap);
	/* Status of the range at `offset`; *count becomes how many bytes (1..len) it holds for.
	 * Flags of enum block_status or -errno. */
	int (*block_status)(struct image *img, uint64_t offset, uint64_t len, uint64_t *count,
			    uint64_t *host_offset);
	int (*truncate)(struct image *img, uint64_t size, struct error *err);
	int (*info)(struct image *img, struct image_info *info);
	int (*check)(struct image *img, int fix, struct image_check *result, struct error *err);
	/* `size` is the virtual size; `opts` the -o options; the file does not exist yet or is to
	 * be overwritten. */
	int (*create)(const char *path, uint64_t size, struct opts *opts, struct error *err);
	int (*snapshot_create)(struct image *img, const char *name, struct error *err);
	/*
	 * A machine's state in a snapshot: vm_state_pwrite() (offsets from 0) while the disk stands
	 * still, then snapshot_save() with its size, which takes it over. After snapshot_apply()
	 * vm_state_pread() reads it; its size is in image_snapshot_info.
	 */
	int (*vm_state_pwrite)(struct image *img, const void *buf, size_t len, uint64_t offset);
	int (*vm_state_pread)(struct image *img, void *buf, size_t len, uint64_t offset);
	int (*snapshot_save)(struct image *img, const char *name, uint64_t vm_state_size,
			     uint64_t vm_clock_ns, struct error *err);
	int (*snapshot_apply)(struct image *img, const char *name, struct error *err);
	int (*snapshot_delete)(struct image *img, const char *name, struct error *err);
	/* Shows the disk as the snapshot has it from now on; the image is open read-only. */
	int (*snapshot_load)(struct image *img, const char *name, struct error *err);
	/* Makes the persistent dirty bitmap `name` ready for bitmap_status(). -ENOENT with a
	 * sentence if there is none. Before other threads use the image. */
	int (*bitmap_open)(struct image *img, const char *name, struct error *err);
	int (*bitmap_edit)(struct image *img, const struct image_bitmap_edit *edit,
			   struct error *err);
	/* Whether the bitmap says that the range at `offset` is dirty: 1, 0 or -errno; *count
	 * becomes how many bytes (1..len) that holds for. */
	int (*bitmap_status)(struct image *img, const char *name, uint64_t offset, uint64_t len,
			     uint64_t *count);
	/* Another backing file in the header; file NULL or "": none. The open chain stays. */
	int (*change_backing)(struct image *img, const char *file, const char *format,
			      struct error *err);
	/* Gives up all data of this layer: the backing image shows through. */
	int (*make_empty)(struct image *img, struct error *err);
	/* Gives [from, to) of the disk host space: "metadata", "falloc" or "full". */
	int (*preallocate)(struct image *img, uint64_t from, uint64_t to, const char *mode,
			   struct error *err);
	int (*amend)(struct image *img, struct opts *opts, struct error *err);
	/* Size of an image file created with `opts` that holds `from` or, with NULL, an empty disk
	 * of `size` bytes. */
	int (*measure)(struct opts *opts, struct image *from, uint64_t size,
		       struct image_measure *m, struct error *err);
};

struct file_layer; /* the file below a format driver: block/file.h */

/* An open image: a node of a chain. Only drivers and block/ look inside. */
struct image {
	const struct image_driver *driver;
	void *state;
	struct file_layer *file;
	struct image *backing; /* owned; NULL at the end of a chain */
	char *path;            /* as opened */
	char *data_path;       /* of an external data file, or NULL */
	uint64_t size;         /* virtual, bytes; atomic reads */
	unsigned flags;
	struct image_copies *copies; /* with copy-on-read (filters.c) */
};

/*
 * Opens an image and its backing chain (backing images read-only). `format` NULL means probe; a
 * probed raw image refuses writes to its first sector that would make it look like another format.
 * `opts` may be NULL; driver options it holds are marked used. Errors name the file, the role it
 * plays in the chain and the path tried.
 */
struct image *image_open(const char *path, const char *format, unsigned flags, struct opts *opts,
			 struct error *err);
/*
 * The same for what options describe as QEMU's --image-opts do: driver=qcow2,file.driver=file,
 * file.filename=x,... (block/describe.c). They add to the flags and may take IMAGE_WRITABLE away; a
 * key that nobody knows is refused.
 */
struct image *image_open_described(struct opts *opts, unsigned flags, struct error *err);
void image_close(struct image *img);
/* What it is called where its path alone does not do: a raw image that is a part of its file is
 * "json:{...}". malloc'ed. */
char *image_filename(const struct image *img);

/* The program is about to end: transfers of the image and its chain fail where they would wait for a
 * server that says nothing. */
void image_ending(struct image *img);

/* Whole transfers; 0 or -errno. Reads past the end of the image are -EINVAL, as are writes. */
int image_pread(struct image *img, void *buf, size_t len, uint64_t offset);
int image_pwrite(struct image *img, const void *buf, size_t len, uint64_t offset);
int image_preadv(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset);
int image_pwritev(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset);
/* What was written is on stable storage when it returns 0. */
int image_pwritev_fua(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset);
/* -ENOTSUP where the format has no compression. */
int image_pwrite_compressed(struct image *img, const void *buf, size_t len, uint64_t offset);
/* Reading of the range is to be expected: brings it near, as into the cache of a server on which
 * it lies, without reading it. -ENOTSUP where only reading would do that. */
int image_cache(struct image *img, uint64_t offset, uint64_t len);
int image_flush(struct image *img);
int image_discard(struct image *img, uint64_t offset, uint64_t len);
int image_write_zeroes(struct image *img, uint64_t offset, uint64_t len, bool may_unmap);
/* The same, or -ENOTSUP at once where it would take as long as writing data. */
int image_write_zeroes_fast(struct image *img, uint64_t offset, uint64_t len, bool may_unmap);
int image_block_status(struct image *img, uint64_t offset, uint64_t len, uint64_t *count,
		       uint64_t *host_offset);
/* The status of a range through all layers from `img` down to, but without, `base` (NULL: the whole
 * chain). *where becomes the layer that decides, *depth how far down it is; both may be NULL. A
 * range that nobody holds is BLOCK_ZERO at the end of the chain, 0 above `base`. */
int image_chain_status(struct image *img, const struct image *base, uint64_t offset, uint64_t len,
		       uint64_t *count, uint64_t *host_offset, struct image **where, int *depth);
/* Persistent dirty bitmaps of this layer, as struct image_driver has it; -ENOENT from the first
 * where the format has none. Bits that writes set are seen at once. */
int image_bitmap_open(struct image *img, const char *name, struct error *err);
/* -ENOTSUP where the format has no bitmaps. */
int image_bitmap_edit(struct image *img, const struct image_bitmap_edit *edit, struct error *err);
int image_bitmap_status(struct image *img, const char *name, uint64_t offset, uint64_t len,
			uint64_t *count);
/* Opens the chain below `top`, which is open with IMAGE_WRITABLE and IMAGE_NO_BACKING, for a commit:
 * *base, its backing image or the one of its chain that is called `base_name`, for writing. On
 * failure `top` is still to be closed. */
int image_open_commit(struct image *top, unsigned flags, const char *base_name, struct image **base,
		      struct error *err);
/* Shows an internal snapshot from now on: `text` is its name or id, or
 * "snapshot.id=ID,snapshot.name=NAME" or one of the two. The image is open read-only. */
int image_load_snapshot(struct image *img, const char *text, struct error *err);
int image_truncate(struct image *img, uint64_t size, struct error *err);
int image_get_info(struct image *img, struct image_info *info);
void image_info_free(struct image_info *info);
int image_run_check(struct image *img, int fix, struct image_check *result, struct error *err);
int image_create(const char *path, const char *format, uint64_t size, struct opts *opts,
		 struct error *err);
uint64_t image_size(const struct image *img);
/* The file in which the host offsets of image_block_status() count. */
const char *image_data_path(const struct image *img);
bool image_writable(const struct image *img);
/* NULL-terminated list of format names. */
const char *const *image_formats(void);
const struct image_driver *image_driver_find(const char *name);
/*
 * For the request queue: a transfer that is nothing but the same transfer of a host file may be done
 * on that file's descriptor, which is returned, or -1. Between begin and end, which any thread may
 * call, the image stays open.
 */
int image_straight_begin(struct image *img, bool write, const struct iovec *iov, int iovcnt,
			 uint64_t offset, uint64_t len);
void image_straight_end(struct image *img, bool write);
/*
 * The same for a disk that lies on a server just as it is: starts the transfer, whose `done` runs
 * later on a thread of the server's client, never within this. The image stays open until then. Any
 * thread; never waits for the server. False: the functions above are to be used.
 */
bool image_submit(struct image *img, struct remote_request *req);
/* Whether that takes most transfers. */
bool image_can_submit(const struct image *img);
/* Whether the image, or one of its chain, lies on a server. */
bool image_is_remote(const struct image *img);
/* Puts detect-zeroes and copy-on-read (IMAGE_FILTERS of the flags) over an open image;
 * image_open() does so with its own flags. */
int image_add_filters(struct image *img, unsigned flags, struct error *err);
/* Opens a temporary qcow2 overlay on `base` that vanishes when closed (-snapshot); takes over
 * `base`. */
struct image *image_open_snapshot(struct image *base, struct error *err);

#endif
