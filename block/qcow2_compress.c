/* SPDX-License-Identifier: MIT */
/*
 * Compressed clusters (spec, "Compressed Clusters Descriptor" and "compression_type"): raw deflate
 * with a 4-KiB window, or zstd frames. A guest reads a cluster in small pieces, so the last few
 * that were unpacked are kept.
 */
#include "block/qcow2.h"
#include <inttypes.h>
#include <string.h>
#include <zlib.h>
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

enum { TYPE_ZLIB = 0, TYPE_ZSTD = 1, DEFLATE_WINDOW_BITS = 12 };

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

int qcow2_read_compressed(struct qcow2 *q, uint64_t entry, uint32_t skip, struct iov_iter *to,
			  size_t len)
{
	int oldest = 0, rc = 0;
	entry &= ~ENTRY_COPIED;
	pthread_mutex_lock(&q->decompress_lock);
	for (int i = 0; i < QCOW2_DECOMPRESSED; i++) {
		if (q->decompressed[i].descriptor == entry) {
			oldest = i;
			goto found;
		}
		if (q->decompressed[i].age < q->decompressed[oldest].age)
			oldest = i;
	}
	uint8_t **data = &q->decompressed[oldest].data;
	q->decompressed[oldest].descriptor = 0;
	if (!*data)
		*data = malloc(q->cluster_size);
	rc = *data ? decompress(q, entry, *data) : -ENOMEM;
	if (!rc)
		q->decompressed[oldest].descriptor = entry;
found:
	if (!rc) {
		q->decompressed[oldest].age = ++q->decompress_age;
		iov_write(to, q->decompressed[oldest].data + skip, len);
	}
	pthread_mutex_unlock(&q->decompress_lock);
	return rc;
}

void qcow2_forget_decompressed(struct qcow2 *q)
{
	pthread_mutex_lock(&q->decompress_lock);
	for (int i = 0; i < QCOW2_DECOMPRESSED; i++)
		q->decompressed[i].descriptor = 0;
	pthread_mutex_unlock(&q->decompress_lock);
}
