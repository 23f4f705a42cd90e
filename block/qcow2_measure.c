/* SPDX-License-Identifier: MIT */
/* How large a qcow2 file becomes that holds a given disk, before it is made. */
#include "block/qcow2.h"
#include <inttypes.h>
#include <string.h>

/* Header, L1 and L2 tables, refcounts of an image whose every cluster is allocated, and the data.
 */
static uint64_t full_size(uint64_t disk, uint64_t cluster, uint64_t refcount_bits, bool extended)
{
	uint64_t entry = extended ? 16 : 8;
	uint64_t l2 = round_up(disk / cluster, cluster / entry) * entry;
	uint64_t l1 = round_up(l2 / cluster, cluster / 8) * 8;
	uint64_t clusters = (cluster + l1 + l2 + disk) / cluster;
	uint64_t blocks = 0, table = 0, total;
	do {
		total = clusters + blocks + table;
		blocks = div_round_up(total, cluster * 8 / refcount_bits);
		table = div_round_up(blocks, cluster / 8);
	} while (clusters + blocks + table != total);
	return total * cluster;
}

int qcow2_measure(struct opts *opts, struct image *from, uint64_t size, struct image_measure *m,
		  struct error *err)
{
	struct qcow2_shape shape;
	int rc = qcow2_read_shape(opts, &shape, err);
	if (rc)
		return rc;
	uint64_t cluster = shape.cluster_size, l2_bytes = cluster / (shape.extended ? 16 : 8);
	if (size > INT64_MAX - cluster || div_round_up(size, l2_bytes * cluster) > MAX_L1_BYTES / 8)
		return error_set(err, EFBIG,
				 "the image is too large for clusters of %" PRIu64
				 " bytes; use a larger cluster_size",
				 cluster);
	uint64_t disk = round_up(size, cluster), data = 0, count;
	if (shape.preallocated || !from)
		data = shape.preallocated ? disk : 0;
	for (uint64_t at = 0; from && !shape.preallocated && at < image_size(from); at += count) {
		int status = image_chain_status(from, NULL, at, image_size(from) - at, &count, NULL,
						NULL, NULL);
		if (status < 0)
			return error_errno(err, -status, "cannot examine '%s'", from->path);
		if ((status & BLOCK_ZERO) || !(status & BLOCK_DATA))
			continue;
		/* Clusters that are touched count as whole. */
		uint64_t head = at % cluster, whole = round_up(at + count, cluster) - at;
		data += head + whole;
		count = whole;
	}
	if (from && from->driver == &qcow2_driver)
		m->has_bitmaps = shape.version >= 3 && qcow2_of(from)->h.version >= 3;
	struct image_info info;
	if (m->has_bitmaps && image_get_info(from, &info) >= 0) {
		uint64_t directory = 0;
		for (size_t i = 0; i < info.bitmap_count; i++) {
			const struct image_bitmap_info *b = &info.bitmaps[i];
			uint64_t bits =
				div_round_up(image_size(from), b->granularity ? b->granularity : 1);
			uint64_t clusters = div_round_up(div_round_up(bits, 8), cluster);
			if (b->in_use)
				continue;
			m->bitmaps += (clusters + div_round_up(clusters * 8, cluster)) * cluster;
			directory += round_up(24 + strlen(b->name), 8);
		}
		m->bitmaps += round_up(directory, cluster);
		image_info_free(&info);
	}
	m->fully_allocated = full_size(disk, cluster, shape.refcount_bits, shape.extended);
	m->required = m->fully_allocated - disk + data;
	return 0;
}
