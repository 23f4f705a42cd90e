/* SPDX-License-Identifier: MIT */
/*
 * Compressed clusters (spec, "Compressed Clusters Descriptor" and "compression_type"): raw deflate
 * with a 4-KiB window, or zstd frames. A guest reads a cluster in small pieces, so the last few
 * that were unpacked are kept. Packing and unpacking run without any lock, so that several threads
 * can do it at once.
 */
#include "block/qcow2.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <zlib.h>
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

enum { TYPE_ZLIB = 0, TYPE_ZSTD = 1, DEFLATE_WINDOW_BITS = 12, MEM_LEVEL = 9 };

bool qcow2_compression_known(unsigned type)
{
#ifdef HAVE_ZSTD
	if (type == TYPE_ZSTD)
		return true;
#endif
	return type == TYPE_ZLIB;
}

const char *qcow2_compression_name(unsigned type)
{
	return type == TYPE_ZLIB ? "zlib" : type == TYPE_ZSTD ? "zstd" : "unknown";
}

/* The stored length is rounded up to sectors, so what follows the stream is ignored. */
static int inflate_cluster(uint8_t *out, size_t out_len, const uint8_t *in, size_t in_len)
{
	z_stream z = {.next_in = (uint8_t *)in,
		      .avail_in = (unsigned)in_len,
		      .next_out = out,
		      .avail_out = (unsigned)out_len};
	if (inflateInit2(&z, -DEFLATE_WINDOW_BITS) != Z_OK)
		return -ENOMEM;
	int rc = inflate(&z, Z_FINISH);
	bool ok = z.avail_out == 0 && (rc == Z_STREAM_END || rc == Z_BUF_ERROR);
	inflateEnd(&z);
	return ok ? 0 : -EIO;
}

#ifdef HAVE_ZSTD
static int unzstd_cluster(uint8_t *out, size_t out_len, const uint8_t *in, size_t in_len)
{
	ZSTD_DCtx *ctx = ZSTD_createDCtx();
	ZSTD_inBuffer src = {in, in_len, 0};
	ZSTD_outBuffer dst = {out, out_len, 0};
	if (!ctx)
		return -ENOMEM;
	while (dst.pos < dst.size) {
		size_t in_before = src.pos, out_before = dst.pos;
		size_t n = ZSTD_decompressStream(ctx, &dst, &src);
		if (ZSTD_isError(n) || (src.pos == in_before && dst.pos == out_before))
			break;
	}
	ZSTD_freeDCtx(ctx);
	return dst.pos == dst.size ? 0 : -EIO;
}
#endif

static int decompress(struct qcow2 *q, uint64_t entry, uint8_t *out)
{
	struct qcow2_range r = qcow2_compressed_extent(q, entry);
	unsigned x = 62 - (q->h.cluster_bits - 8);
	uint32_t skip = (uint32_t)(entry & ((UINT64_C(1) << x) - 1) & 511);
	/* At most twice the cluster size by the width of the field; bounded all the same. */
	if (r.len > 2 * (uint64_t)q->cluster_size + 512 ||
	    !range_in(r.offset, r.len, MAX_HOST_OFFSET))
		return -EIO;
	uint8_t *in = malloc(r.len);
	if (!in)
		return -ENOMEM;
	int rc = file_pread(q->img->file, in, r.len, r.offset);
	if (!rc) {
		switch (q->h.compression) {
#ifdef HAVE_ZSTD
		case TYPE_ZSTD:
			rc = unzstd_cluster(out, q->cluster_size, in + skip, r.len - skip);
			break;
#endif
		default: rc = inflate_cluster(out, q->cluster_size, in + skip, r.len - skip); break;
		}
		if (rc == -EIO)
			trace(TRACE_QCOW2, "bad compressed cluster at 0x%" PRIx64, r.offset + skip);
	}
	free(in);
	return rc;
}

/* Copies from a kept cluster if there is one. */
static bool read_kept(struct qcow2 *q, uint64_t entry, uint32_t skip, struct iov_iter *to,
		      size_t len)
{
	bool found = false;
	pthread_mutex_lock(&q->decompress_lock);
	for (int i = 0; i < QCOW2_DECOMPRESSED && !found; i++) {
		if (q->decompressed[i].descriptor != entry)
			continue;
		q->decompressed[i].age = ++q->decompress_age;
		iov_write(to, q->decompressed[i].data + skip, len);
		found = true;
	}
	pthread_mutex_unlock(&q->decompress_lock);
	return found;
}

/* Keeps an unpacked cluster; takes over `data`. */
static void keep(struct qcow2 *q, uint64_t entry, uint8_t *data)
{
	int oldest = 0;
	pthread_mutex_lock(&q->decompress_lock);
	for (int i = 0; i < QCOW2_DECOMPRESSED; i++) {
		if (q->decompressed[i].descriptor == entry) {
			oldest = i;
			break;
		}
		if (q->decompressed[i].age < q->decompressed[oldest].age)
			oldest = i;
	}
	free(q->decompressed[oldest].data);
	q->decompressed[oldest].data = data;
	q->decompressed[oldest].descriptor = entry;
	q->decompressed[oldest].age = ++q->decompress_age;
	pthread_mutex_unlock(&q->decompress_lock);
}

int qcow2_read_compressed(struct qcow2 *q, uint64_t entry, uint32_t skip, struct iov_iter *to,
			  size_t len)
{
	struct iovec one;
	size_t covered;
	entry &= ~ENTRY_COPIED;
	if (read_kept(q, entry, skip, to, len))
		return 0;
	/* A whole cluster goes straight to where it is wanted. */
	if (len == q->cluster_size && iov_peek(to, len, &one, 1, &covered) == 1 && covered == len) {
		iov_advance(to, len);
		return decompress(q, entry, one.iov_base);
	}
	uint8_t *data = malloc(q->cluster_size);
	int rc = data ? decompress(q, entry, data) : -ENOMEM;
	if (rc) {
		free(data);
		return rc;
	}
	iov_write(to, data + skip, len);
	keep(q, entry, data);
	return 0;
}

void qcow2_forget_decompressed(struct qcow2 *q)
{
	pthread_mutex_lock(&q->decompress_lock);
	for (int i = 0; i < QCOW2_DECOMPRESSED; i++)
		q->decompressed[i].descriptor = 0;
	pthread_mutex_unlock(&q->decompress_lock);
}

/*
 * Deflate takes as long for noise (what is encrypted, or compressed already) as for anything else,
 * only to find that it does not get shorter. Noise shows in much less time: its bytes are spread
 * evenly, so that Huffman codes gain nothing, and hardly any four bytes come back within the window.
 */
static bool is_noise(const uint8_t *p, size_t len)
{
	enum { MIN_LEN = 32768, HASH_BITS = 12, FEW = 256 };
	uint32_t count[4][256] = {{0}}, last[1 << HASH_BITS] = {0};
	double bits = 0;
	if (len < MIN_LEN) /* too few bytes for statistics */
		return false;
	for (size_t i = 0; i + 4 <= len; i += 4)
		for (int k = 0; k < 4; k++)
			count[k][p[i + (size_t)k]]++;
	for (int b = 0; b < 256; b++) {
		double n = count[0][b] + count[1][b] + count[2][b] + count[3][b];
		bits -= n > 0 ? n / (double)len * log2(n / (double)len) : 0;
	}
	if (bits < 7.95)
		return false;
	size_t found = 0;
	for (size_t i = 0; i + 4 <= len; i++) {
		uint32_t word = load_le32(p + i);
		uint32_t *slot = &last[word * 2654435761u >> (32 - HASH_BITS)];
		size_t before = *slot;
		*slot = (uint32_t)i;
		if (i - before <= 1u << DEFLATE_WINDOW_BITS && i != before &&
		    load_le32(p + before) == word && ++found > len / FEW)
			return false;
	}
	return true;
}

static size_t deflate_cluster(uint8_t *out, size_t out_len, const uint8_t *in, size_t in_len)
{
	z_stream z = {.next_in = (uint8_t *)in,
		      .avail_in = (unsigned)in_len,
		      .next_out = out,
		      .avail_out = (unsigned)out_len};
	if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -DEFLATE_WINDOW_BITS, MEM_LEVEL,
			 Z_DEFAULT_STRATEGY) != Z_OK)
		return 0;
	int rc = deflate(&z, Z_FINISH);
	size_t n = rc == Z_STREAM_END ? out_len - z.avail_out : 0;
	deflateEnd(&z);
	return n;
}

/* The packed length, 0 if it is not shorter than `out_len`. */
static size_t compress_cluster(const struct qcow2 *q, uint8_t *out, size_t out_len,
			       const uint8_t *in)
{
#ifdef HAVE_ZSTD
	if (q->h.compression == TYPE_ZSTD) {
		size_t n = ZSTD_compress(out, out_len, in, q->cluster_size, ZSTD_CLEVEL_DEFAULT);
		return ZSTD_isError(n) ? 0 : n;
	}
#endif
	if (is_noise(in, q->cluster_size))
		return 0;
	return deflate_cluster(out, out_len, in, q->cluster_size);
}

/* Enters `len` packed bytes as the guest cluster at `offset`. */
static int store_packed(struct qcow2 *q, const uint8_t *packed, size_t len, uint64_t offset)
{
	struct qcow2_alloc a = {.first = offset >> q->h.cluster_bits, .count = 1};
	struct qcow2_table *l2;
	uint64_t whole = q->cluster_size;
	pthread_rwlock_rdlock(&q->ops);
	pthread_mutex_lock(&q->lock);
	qcow2_wait_for_allocs(q, offset, &whole);
	int rc = qcow2_get_l2(q, offset, true, &l2);
	int64_t at = rc ? rc : qcow2_alloc_bytes(q, (uint32_t)len);
	if (at > 0) {
		list_push_back(&q->allocs, &a.link);
		pthread_mutex_unlock(&q->lock);
		rc = file_pwrite(q->img->file, packed, len, (uint64_t)at);
		pthread_mutex_lock(&q->lock);
		q->data_unsynced = true;
		if (!rc)
			rc = qcow2_get_l2(q, offset, true, &l2);
		if (!rc) {
			unsigned x = 62 - (q->h.cluster_bits - 8);
			uint64_t last = (uint64_t)at + len - 1;
			uint64_t sectors = (last >> 9) - ((uint64_t)at >> 9);
			uint32_t index = qcow2_l2_index(q, offset);
			struct qcow2_entry old = qcow2_l2_entry(q, l2, index);
			qcow2_set_l2_entry(
				q, l2, index,
				(struct qcow2_entry){ENTRY_COMPRESSED | (uint64_t)at | sectors << x,
						     0});
			qcow2_free_entry(q, old.entry);
		} else {
			qcow2_free_later(q, (uint64_t)at, len);
		}
		list_remove(&a.link);
		pthread_cond_broadcast(&q->alloc_done);
	} else {
		rc = (int)at;
	}
	pthread_mutex_unlock(&q->lock);
	pthread_rwlock_unlock(&q->ops);
	return rc;
}

int qcow2_write_compressed(struct image *img, const void *buf, size_t len, uint64_t offset)
{
	struct qcow2 *q = qcow2_of(img);
	if (q->external)
		return -ENOTSUP;
	if (offset & (q->cluster_size - 1) || len > q->cluster_size ||
	    (len < q->cluster_size && offset + len != image_size(img)))
		return -EINVAL;
	uint8_t *packed = malloc(q->cluster_size), *whole = NULL;
	if (len < q->cluster_size) { /* the disk ends within the cluster */
		whole = calloc(1, q->cluster_size);
		if (whole)
			memcpy(whole, buf, len);
	}
	int rc = !packed || (len < q->cluster_size && !whole) ? -ENOMEM : 0;
	qcow2_mark_bitmaps(q, offset, len);
	if (!rc) {
		size_t n = compress_cluster(q, packed, q->cluster_size - 1, whole ? whole : buf);
		rc = n ? store_packed(q, packed, n, offset) : -ENOSPC;
	}
	free(whole);
	free(packed);
	return rc;
}
