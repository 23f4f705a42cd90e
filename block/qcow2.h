/* SPDX-License-Identifier: MIT */
/*
 * qcow2, inner parts. References are to the qcow2 specification (QEMU's docs/interop/qcow2).
 *
 * Threads. `ops` is held shared by everything that transfers data and exclusively by what takes
 * clusters away from guest addresses (discard, write_zeroes, truncate, snapshots, check): while a
 * transfer runs, the cluster it found stays what it is. `lock` guards the tables; it is held for
 * table work only, never for data transfers.
 *
 * Order on disk. Tables change in memory and reach the file in qcow2_write_tables() or, without
 * holding `lock` meanwhile, in qcow2_flush(): refcounts, sync, L2, sync, L1. New data lies in the
 * file before its L2 entry changes in memory. A cluster that loses its last reference is only
 * queued (qcow2_free_later()) and counted free when the tables without that reference are on disk.
 * So a crash at any point leaves leaked clusters at worst.
 *
 * Subclusters. With extended L2 entries a cluster has 32 parts, each with its own type; otherwise
 * a cluster counts as having one part, so that all code speaks of subclusters.
 *
 * External data file. Guest data then lies in a file of its own (`data`), at the offset where the
 * guest sees it, and has no refcounts.
 */
#ifndef BLOCK_QCOW2_H
#define BLOCK_QCOW2_H

#include "block/file.h"
#include "block/image.h"
#include "block/iov.h"
#include "block/node.h"
#include "lib/bytes.h"
#include "lib/list.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define QCOW2_MAGIC 0x514649fbu /* "QFI\xfb" */

/* Spec, "Header": byte offsets. */
enum qcow2_header_offset {
	H_MAGIC = 0,
	H_VERSION = 4,
	H_BACKING_OFFSET = 8,
	H_BACKING_SIZE = 16,
	H_CLUSTER_BITS = 20,
	H_SIZE = 24,
	H_CRYPT_METHOD = 32,
	H_L1_SIZE = 36,
	H_L1_OFFSET = 40,
	H_REFTABLE_OFFSET = 48,
	H_REFTABLE_CLUSTERS = 56,
	H_NB_SNAPSHOTS = 60,
	H_SNAPSHOTS_OFFSET = 64,
	H_V2_LENGTH = 72,
	H_INCOMPATIBLE = 72,
	H_COMPATIBLE = 80,
	H_AUTOCLEAR = 88,
	H_REFCOUNT_ORDER = 96,
	H_HEADER_LENGTH = 100,
	H_COMPRESSION = 104,
	H_V3_LENGTH = 104,
	H_FULL_LENGTH = 112,
};

enum {
	INCOMPAT_DIRTY = 1 << 0,
	INCOMPAT_CORRUPT = 1 << 1,
	INCOMPAT_DATA_FILE = 1 << 2,
	INCOMPAT_COMPRESSION = 1 << 3,
	INCOMPAT_EXTENDED_L2 = 1 << 4,
	COMPAT_LAZY_REFCOUNTS = 1 << 0,
	AUTOCLEAR_BITMAPS = 1 << 0,
	AUTOCLEAR_DATA_RAW = 1 << 1,
};

/* Spec, "Header extensions". */
enum qcow2_extension {
	EXT_END = 0,
	EXT_BACKING_FORMAT = 0xe2792aca,
	EXT_FEATURE_NAMES = 0x6803f857,
	EXT_BITMAPS = 0x23852875,
	EXT_CRYPTO = 0x0537be77,
	EXT_DATA_FILE = 0x44415441,
};

enum {
	MIN_CLUSTER_BITS = 9,
	MAX_CLUSTER_BITS = 21,
	MAX_REFCOUNT_ORDER = 6,
	SUBCLUSTERS = 32, /* of a cluster with an extended L2 entry */
	MIN_EXTENDED_CLUSTER_BITS = 14,
	MAX_SNAPSHOTS = 65536,
	MAX_BACKING_NAME = 1023,
	MAX_L1_BYTES = 32 << 20,
	MAX_REFTABLE_BYTES = 8 << 20,
	MAX_SNAPSHOT_TABLE = 64 << 20,
};

/* Spec, "Cluster mapping": L1 and L2 entries. */
#define ENTRY_COPIED     (UINT64_C(1) << 63) /* refcount is exactly one */
#define ENTRY_COMPRESSED (UINT64_C(1) << 62)
#define ENTRY_ZERO       UINT64_C(1)
#define ENTRY_OFFSET     UINT64_C(0x00fffffffffffe00)
/* Offsets that an entry can hold. */
#define MAX_HOST_OFFSET (UINT64_C(1) << 56)

/* Spec, "Extended L2 Entries": bit x, subcluster x is allocated; bit 32 + x, it reads as zero. */
#define BITMAP_ALLOCATED UINT64_C(0x00000000ffffffff)
#define BITMAP_ZERO      UINT64_C(0xffffffff00000000)

/* An L2 entry; the bitmap is 0 without extended entries. */
struct qcow2_entry {
	uint64_t entry, bitmap;
};

/* A header extension as it stands in the file. */
struct qcow2_ext {
	uint32_t type, len;
	uint8_t *data;
};

struct qcow2_header {
	uint32_t version, cluster_bits, crypt_method, l1_size, reftable_clusters, nb_snapshots;
	uint64_t size, l1_offset, reftable_offset, snapshots_offset, backing_offset;
	uint32_t backing_size, refcount_order, header_length;
	uint64_t incompatible, compatible, autoclear;
	unsigned compression;
};

/* One L2 table or refcount block in memory (qcow2_cache.c). */
struct qcow2_table {
	uint64_t offset;
	uint8_t *data;
	uint32_t dirty_from, dirty_to; /* bytes; equal: clean */
	bool busy;                     /* a flush is writing it: it must not leave the cache */
	struct list lru;
	struct qcow2_table *next; /* same hash bucket */
};

struct qcow2_cache {
	struct file_layer *file;
	uint32_t table_size;
	unsigned count, max, buckets, dirty;
	struct qcow2_table **hash;
	struct list lru; /* most recently used first */
};

/* A set of cluster numbers: where L2 tables and refcount blocks are, so that no data write hits
 * them. */
struct qcow2_set {
	uint64_t *slot; /* cluster number + 1; 0: empty */
	size_t count, capacity;
};

struct qcow2_range {
	uint64_t offset, len;
};

/* A write that is allocating guest clusters [first, first + count). */
struct qcow2_alloc {
	uint64_t first, count;
	struct list link;
};

enum { QCOW2_DECOMPRESSED = 8 };

struct qcow2 {
	struct image *img;
	struct qcow2_header h;
	char *backing_file, *backing_format;
	char *data_name;       /* as the header says it, or NULL */
	struct qcow2_ext *ext; /* all header extensions, in order */
	size_t ext_count;
	struct file_layer *data; /* where guest data lies: img->file or the external data file */
	bool external, data_raw;
	struct qcow2_bitmaps *bitmaps; /* NULL: none */

	pthread_rwlock_t ops;
	pthread_mutex_t lock;
	pthread_cond_t alloc_done;
	struct list allocs;

	uint32_t cluster_size, l2_entries, rb_entries; /* refcounts a block */
	unsigned l2_bits;                              /* log2(l2_entries) */
	bool extended;                                 /* L2 entries of 16 bytes */
	unsigned sub_bits, subs; /* log2 of a subcluster's size; subclusters in a cluster */
	uint32_t sub_size;
	uint64_t max_refcount;

	uint64_t *l1;                        /* host byte order */
	uint32_t l1_dirty_from, l1_dirty_to; /* entries; equal: clean */
	struct qcow2_cache l2_cache, rb_cache;

	uint64_t *reftable; /* host byte order; NULL while refcounts are not needed */
	uint32_t reftable_size;
	uint32_t reftable_dirty_from, reftable_dirty_to;
	struct qcow2_set tables;
	uint64_t free_hint;  /* no free cluster below this number */
	uint64_t high_water; /* nothing was ever written at or behind this file offset */
	uint64_t free_byte;  /* where the next compressed cluster may go on, or 0 */

	struct qcow2_range *frees; /* wait for the tables to be written */
	size_t free_count, free_capacity;
	uint64_t freeing;   /* clusters in it */
	bool data_unsynced; /* data was written since the last sync */
	bool flushing;      /* qcow2_flush() is writing tables without the lock */
	pthread_cond_t flushed;
	bool failed; /* found corrupt: no more changes */

	pthread_mutex_t decompress_lock;
	struct {
		uint64_t descriptor; /* 0: empty */
		uint64_t age;
		uint8_t *data;
	} decompressed[QCOW2_DECOMPRESSED];
	uint64_t decompress_age;
};

enum qcow2_type {
	CLUSTER_UNALLOCATED,       /* the backing image decides */
	CLUSTER_UNALLOCATED_ALLOC, /* the same, but there is a host cluster */
	CLUSTER_ZERO,              /* reads as zeroes, no host cluster */
	CLUSTER_ZERO_ALLOC,        /* reads as zeroes, keeps a host cluster */
	CLUSTER_NORMAL,
	CLUSTER_COMPRESSED,
};

struct qcow2_map {
	enum qcow2_type type;
	bool copied;
	uint64_t host;  /* of the byte asked for, where there is a host cluster */
	uint64_t entry; /* the L2 entry */
	uint64_t len;   /* bytes for which this holds */
};

static inline struct qcow2 *qcow2_of(struct image *img)
{
	return img->state;
}

static inline uint64_t qcow2_clusters(const struct qcow2 *q, uint64_t bytes)
{
	return (bytes >> q->h.cluster_bits) + ((bytes & (q->cluster_size - 1)) != 0);
}

/* log2 of the bytes of an L2 entry. */
static inline unsigned qcow2_entry_bits(const struct qcow2 *q)
{
	return q->extended ? 4 : 3;
}

/* Which subcluster of its cluster the guest byte is in. */
static inline unsigned qcow2_sub_index(const struct qcow2 *q, uint64_t guest)
{
	return (unsigned)((guest & (q->cluster_size - 1)) >> q->sub_bits);
}

/* Host bytes that a compressed entry covers, from the start of its first sector. */
struct qcow2_range qcow2_compressed_extent(const struct qcow2 *q, uint64_t entry);

/* qcow2_header.c: reads and checks the header; the sentence lists each wrong field. */
int qcow2_read_header(struct qcow2 *q, struct error *err);
/* Lays the header, its extensions and the name of the backing file out anew in `b` (one cluster,
 * zeroed): what q->h, backing_file, backing_format, data_name and ext say. -ENAMETOOLONG if they do
 * not fit. Returns the length. */
int qcow2_layout_header(const struct qcow2 *q, uint8_t *b);
/* The same, written to the file and synced. */
int qcow2_rewrite_header(struct qcow2 *q);
/* Adds, replaces, or with data NULL removes the extension of that type (in memory only). */
void qcow2_set_ext(struct qcow2 *q, uint32_t type, const void *data, uint32_t len);
void qcow2_add_ext(struct qcow2 *q, uint32_t type, const void *data, uint32_t len);
const struct qcow2_ext *qcow2_get_ext(const struct qcow2 *q, uint32_t type);
/* Writes one header field. */
int qcow2_header_set32(struct qcow2 *q, unsigned offset, uint32_t value);
int qcow2_header_set64(struct qcow2 *q, unsigned offset, uint64_t value);
/* Sets the corrupt bit, tells the user once, and lets nothing more be changed. Returns -EIO. */
int qcow2_corrupt(struct qcow2 *q, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* qcow2_cache.c */
void qcow2_cache_init(struct qcow2_cache *c, struct file_layer *file, uint32_t table_size,
		      unsigned max);
void qcow2_cache_fini(struct qcow2_cache *c);
/* The table at `offset`, NULL if it is not in the cache. */
struct qcow2_table *qcow2_cache_find(struct qcow2_cache *c, uint64_t offset);
/* The table, read from the file, or all zeroes with `fresh`. The caller made room before. */
int qcow2_cache_load(struct qcow2_cache *c, uint64_t offset, bool fresh, struct qcow2_table **out);
/* True if qcow2_cache_load() would have to throw out a dirty table. */
bool qcow2_cache_must_write(const struct qcow2_cache *c);
void qcow2_cache_dirty(struct qcow2_cache *c, struct qcow2_table *t, uint32_t from, uint32_t len);
int qcow2_cache_write(struct qcow2_cache *c);
/* Forgets the table at `offset`, dirty or not. */
void qcow2_cache_forget(struct qcow2_cache *c, uint64_t offset);
void qcow2_set_add(struct qcow2_set *set, uint64_t cluster);
void qcow2_set_remove(struct qcow2_set *set, uint64_t cluster);
bool qcow2_set_has(const struct qcow2_set *set, uint64_t cluster);

/* qcow2_refcount.c; lock held */
int qcow2_load_reftable(struct qcow2 *q, struct error *err);
int qcow2_get_refcount(struct qcow2 *q, uint64_t cluster, uint64_t *count);
/* The block that describes the cluster, or NULL where there is none; good until another is asked
 * for. */
int qcow2_get_refblock(struct qcow2 *q, uint64_t cluster, const uint8_t **block);
uint64_t qcow2_refcount_at(const void *block, unsigned order, uint64_t index);
void qcow2_refcount_put(void *block, unsigned order, uint64_t index, uint64_t value);
/* Adds to (+1) or takes from (-1) the refcount of each cluster that the range touches. */
int qcow2_add_refcount(struct qcow2 *q, uint64_t offset, uint64_t len, int delta);
/* For repairs: the block that describes the cluster must exist, the value must fit. */
int qcow2_set_refcount(struct qcow2 *q, uint64_t cluster, uint64_t value);
/* `len` bytes for compressed data, refcounts taken; the host offset or -errno. */
int64_t qcow2_alloc_bytes(struct qcow2 *q, uint32_t len);
/* `count` contiguous clusters with refcount one; the host offset or -errno. */
int64_t qcow2_alloc_clusters(struct qcow2 *q, uint64_t count);
/* Takes a reference from the range once the tables are on disk. */
void qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t len);
/* Drops what was queued; the tables have been written and synced. */
int qcow2_apply_frees(struct qcow2 *q);
/* True if a data write to the range would hit the header or a table. */
bool qcow2_hits_metadata(const struct qcow2 *q, uint64_t offset, uint64_t len);

/* qcow2_map.c; lock held */
int qcow2_get_l2(struct qcow2 *q, uint64_t guest, bool for_write, struct qcow2_table **l2);
struct qcow2_entry qcow2_l2_entry(const struct qcow2 *q, const struct qcow2_table *l2,
				  uint32_t index);
/* The same in raw table bytes. */
struct qcow2_entry qcow2_raw_entry(const struct qcow2 *q, const uint8_t *table, uint32_t index);
void qcow2_set_l2_entry(struct qcow2 *q, struct qcow2_table *l2, uint32_t index,
			struct qcow2_entry e);
uint32_t qcow2_l2_index(const struct qcow2 *q, uint64_t guest);
/* True if the entry points to an uncompressed host cluster. */
bool qcow2_has_host(const struct qcow2 *q, uint64_t entry);
enum qcow2_type qcow2_sub_type(const struct qcow2 *q, struct qcow2_entry e, unsigned sub);
/* The bits of subclusters [from, to), shifted for the allocation half. */
uint64_t qcow2_sub_mask(unsigned from, unsigned to);
/* Where the guest bytes from `offset` on lie, for at most `len`. */
int qcow2_map(struct qcow2 *q, uint64_t offset, uint64_t len, struct qcow2_map *m);
/* Drops what an entry refers to (queued). */
void qcow2_free_entry(struct qcow2 *q, uint64_t entry);

/* qcow2_flush.c */
/* All dirty tables to the file, in order. Lock held, and ops exclusively unless no flush runs. */
int qcow2_write_tables(struct qcow2 *q);
/* The same, synced, with the queued frees done. Lock held, ops exclusively. */
int qcow2_settle(struct qcow2 *q);
int qcow2_flush(struct image *img);
/* Data and tables. */
int qcow2_sync_files(struct qcow2 *q);

/* qcow2_io.c */
int qcow2_preadv(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset);
int qcow2_pwritev(struct image *img, const struct iovec *iov, int iovcnt, uint64_t offset);
/* Waits until nobody allocates the cluster at `offset`, and cuts *len before the next cluster that
 * somebody does. Lock held. */
void qcow2_wait_for_allocs(struct qcow2 *q, uint64_t offset, uint64_t *len);

/* qcow2_zero.c */
int qcow2_discard(struct image *img, uint64_t offset, uint64_t len);
int qcow2_write_zeroes(struct image *img, uint64_t offset, uint64_t len, bool may_unmap);
int qcow2_write_zeroes_fast(struct image *img, uint64_t offset, uint64_t len, bool may_unmap);
int qcow2_block_status(struct image *img, uint64_t offset, uint64_t len, uint64_t *count,
		       uint64_t *host_offset);
/* Whole clusters become unallocated. Lock held, ops exclusively. */
int qcow2_drop_clusters(struct qcow2 *q, uint64_t start, uint64_t end);
/* A larger L1 table. Lock held, ops exclusively. */
int qcow2_grow_l1(struct qcow2 *q, uint32_t entries);
int qcow2_truncate(struct image *img, uint64_t size, struct error *err);

/* qcow2_compress.c: reads `len` bytes at `skip` of the compressed cluster. */
int qcow2_read_compressed(struct qcow2 *q, uint64_t entry, uint32_t skip, struct iov_iter *to,
			  size_t len);
bool qcow2_compression_known(unsigned type);
const char *qcow2_compression_name(unsigned type);
void qcow2_forget_decompressed(struct qcow2 *q);
/* Writes one cluster (or what the disk has of its last one) compressed; -ENOSPC if that would take
 * no less space. */
int qcow2_write_compressed(struct image *img, const void *buf, size_t len, uint64_t offset);

/* qcow2_check.c; ops held exclusively or the image not yet shared */
int qcow2_check_locked(struct qcow2 *q, int fix, struct image_check *result, struct error *err);
int qcow2_check(struct image *img, int fix, struct image_check *result, struct error *err);

/* Rebuilds all refcounts with another width. */
int qcow2_set_refcount_order(struct qcow2 *q, unsigned order, struct error *err);

/* qcow2_bitmap.c */
/* Reads the directory of the dirty bitmaps, if they are up to date. */
int qcow2_load_bitmaps(struct qcow2 *q, struct error *err);
/* Takes the enabled ones into memory, for a writer; they count as in use from then on. */
int qcow2_start_bitmaps(struct qcow2 *q);
/* The range is or may be written. */
void qcow2_mark_bitmaps(struct qcow2 *q, uint64_t offset, uint64_t len);
/* Back to the file, at the end; nothing else is going on. */
int qcow2_store_bitmaps(struct qcow2 *q);
void qcow2_free_bitmaps(struct qcow2 *q);
/* Calls `count` for each range of the file that bitmaps occupy. */
void qcow2_count_bitmaps(struct qcow2 *q,
			 void (*count)(void *opaque, uint64_t offset, uint64_t len,
				       const char *what),
			 void *opaque);
void qcow2_info_bitmaps(struct qcow2 *q, struct image_info *info);
/* qcow2_bitmap_edit.c */
int qcow2_bitmap_edit(struct image *img, const struct image_bitmap_edit *edit, struct error *err);
int qcow2_bitmap_open(struct image *img, const char *name, struct error *err);
int qcow2_bitmap_status(struct image *img, const char *name, uint64_t offset, uint64_t len,
			uint64_t *count);

/* qcow2_amend.c */
int qcow2_change_backing(struct image *img, const char *file, const char *format,
			 struct error *err);
int qcow2_make_empty(struct image *img, struct error *err);
int qcow2_amend(struct image *img, struct opts *opts, struct error *err);

/* qcow2_measure.c */
int qcow2_measure(struct opts *opts, struct image *from, uint64_t size, struct image_measure *m,
		  struct error *err);

/* qcow2_create.c */
/* What the -o options say about the shape of a new image. */
struct qcow2_shape {
	uint64_t cluster_size, refcount_bits;
	bool extended, preallocated; /* with host space: falloc or full */
	unsigned version;
};
int qcow2_read_shape(struct opts *opts, struct qcow2_shape *shape, struct error *err);
enum { PREALLOC_OFF, PREALLOC_METADATA, PREALLOC_FALLOC, PREALLOC_FULL };
/* Gives the guest bytes [from, to) that have none host clusters, in order. */
int qcow2_preallocate(struct qcow2 *q, uint64_t from, uint64_t to, int mode);
int qcow2_create(const char *path, uint64_t size, struct opts *opts, struct error *err);

/* qcow2_snapshot.c */
struct qcow2_snapshot {
	uint64_t l1_offset;
	uint32_t l1_size;
	uint64_t vm_state_size, disk_size, vm_clock_ns;
	uint32_t date_sec, date_nsec;
	char *id, *name;
	uint8_t *extra;
	uint32_t extra_size;
};
/* The table as it stands in the file; malloc'ed array of h.nb_snapshots. *bytes: its length. */
int qcow2_read_snapshots(struct qcow2 *q, struct qcow2_snapshot **list, uint64_t *bytes,
			 struct error *err);
void qcow2_free_snapshots(struct qcow2_snapshot *list, size_t count);
int qcow2_snapshot_save(struct image *img, const char *name, uint64_t vm_state_size,
			uint64_t vm_clock_ns, struct error *err);
int qcow2_vm_state_pwrite(struct image *img, const void *buf, size_t len, uint64_t offset);
int qcow2_vm_state_pread(struct image *img, void *buf, size_t len, uint64_t offset);
int qcow2_snapshot_create(struct image *img, const char *name, struct error *err);
int qcow2_snapshot_apply(struct image *img, const char *name, struct error *err);
int qcow2_snapshot_load(struct image *img, const char *name, struct error *err);
int qcow2_snapshot_delete(struct image *img, const char *name, struct error *err);

#endif
