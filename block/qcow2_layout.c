/* SPDX-License-Identifier: MIT */
/*
 * Writing the qcow2 header (spec, "Header", "Header extensions"): the fixed fields, the extensions,
 * the name of the backing file, all within the first cluster. Extensions that are not known here
 * are kept as they are.
 */
#include "block/qcow2.h"
#include <string.h>

/* Spec, "Feature name table". */
static const struct {
	uint8_t type, bit;
	const char *name;
} features[] = {
	{0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
	{0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
	{2, 0, "bitmaps"},          {2, 1, "raw external data"},
};

void qcow2_add_ext(struct qcow2 *q, uint32_t type, const void *data, uint32_t len)
{
	q->ext = xrealloc(q->ext, (q->ext_count + 1) * sizeof(*q->ext));
	q->ext[q->ext_count] = (struct qcow2_ext){type, len, xmalloc(len + 1)};
	memcpy(q->ext[q->ext_count++].data, data, len);
}

void qcow2_set_ext(struct qcow2 *q, uint32_t type, const void *data, uint32_t len)
{
	size_t i = 0;
	while (i < q->ext_count && q->ext[i].type != type)
		i++;
	if (i < q->ext_count)
		free(q->ext[i].data);
	if (!data) {
		if (i < q->ext_count)
			memmove(&q->ext[i], &q->ext[i + 1], (--q->ext_count - i) * sizeof(*q->ext));
		return;
	}
	if (i == q->ext_count) {
		qcow2_add_ext(q, type, data, len);
		return;
	}
	q->ext[i] = (struct qcow2_ext){type, len, xmalloc(len + 1)};
	memcpy(q->ext[i].data, data, len);
}

const struct qcow2_ext *qcow2_get_ext(const struct qcow2 *q, uint32_t type)
{
	for (size_t i = 0; i < q->ext_count; i++)
		if (q->ext[i].type == type)
			return &q->ext[i];
	return NULL;
}

/* Appends an extension; false if it does not fit before `end`. */
static bool put_ext(uint8_t *b, size_t *at, size_t end, uint32_t type, const void *data,
		    uint32_t len)
{
	if (*at + 8 + round_up(len, 8) > end)
		return false;
	store_be32(b + *at, type);
	store_be32(b + *at + 4, len);
	memcpy(b + *at + 8, data, len);
	*at += 8 + round_up(len, 8);
	return true;
}

static void put_fields(const struct qcow2_header *h, uint8_t *b, size_t length)
{
	store_be32(b + H_MAGIC, QCOW2_MAGIC);
	store_be32(b + H_VERSION, h->version);
	store_be32(b + H_CLUSTER_BITS, h->cluster_bits);
	store_be64(b + H_SIZE, h->size);
	store_be32(b + H_CRYPT_METHOD, h->crypt_method);
	store_be32(b + H_L1_SIZE, h->l1_size);
	store_be64(b + H_L1_OFFSET, h->l1_offset);
	store_be64(b + H_REFTABLE_OFFSET, h->reftable_offset);
	store_be32(b + H_REFTABLE_CLUSTERS, h->reftable_clusters);
	store_be32(b + H_NB_SNAPSHOTS, h->nb_snapshots);
	store_be64(b + H_SNAPSHOTS_OFFSET, h->snapshots_offset);
	if (h->version < 3)
		return;
	store_be64(b + H_INCOMPATIBLE, h->incompatible);
	store_be64(b + H_COMPATIBLE, h->compatible);
	store_be64(b + H_AUTOCLEAR, h->autoclear);
	store_be32(b + H_REFCOUNT_ORDER, h->refcount_order);
	store_be32(b + H_HEADER_LENGTH, (uint32_t)length);
	b[H_COMPRESSION] = (uint8_t)h->compression;
}

int qcow2_layout_header(const struct qcow2 *q, uint8_t *b)
{
	size_t cluster = (size_t)1 << q->h.cluster_bits;
	/* Fields behind those known here (spec, "Additional fields") are kept: see the caller. */
	size_t length = q->h.version < 3                     ? H_V2_LENGTH
			: q->h.header_length > H_FULL_LENGTH ? q->h.header_length
							     : H_FULL_LENGTH;
	size_t name = q->backing_file ? strlen(q->backing_file) : 0, at = length;
	size_t format = q->backing_format ? strlen(q->backing_format) : 0;
	if (name > MAX_BACKING_NAME || format > 63 || length + 8 + name > cluster)
		return -ENAMETOOLONG;
	size_t end = cluster - 8 - name; /* the end mark and the name come behind */
	put_fields(&q->h, b, length);
	if (format &&
	    !put_ext(b, &at, end, EXT_BACKING_FORMAT, q->backing_format, (uint32_t)format))
		return -ENAMETOOLONG;
	if (q->data_name &&
	    !put_ext(b, &at, end, EXT_DATA_FILE, q->data_name, (uint32_t)strlen(q->data_name)))
		return -ENAMETOOLONG;
	for (size_t i = 0; i < q->ext_count; i++) {
		const struct qcow2_ext *e = &q->ext[i];
		if (e->type == EXT_BACKING_FORMAT || e->type == EXT_DATA_FILE ||
		    e->type == EXT_FEATURE_NAMES)
			continue;
		if (!put_ext(b, &at, end, e->type, e->data, e->len))
			return -ENAMETOOLONG;
	}
	/* The names only help messages of other programs: left out where the cluster is small. */
	uint8_t table[ARRAY_SIZE(features) * 48] = {0};
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		table[i * 48] = features[i].type;
		table[i * 48 + 1] = features[i].bit;
		memcpy(table + i * 48 + 2, features[i].name, strlen(features[i].name));
	}
	if (q->h.version >= 3)
		put_ext(b, &at, end, EXT_FEATURE_NAMES, table, sizeof(table));
	at += 8; /* EXT_END: type and length zero */
	if (name) {
		memcpy(b + at, q->backing_file, name);
		store_be64(b + H_BACKING_OFFSET, at);
		store_be32(b + H_BACKING_SIZE, (uint32_t)name);
	}
	return (int)(at + name);
}

int qcow2_rewrite_header(struct qcow2 *q)
{
	uint8_t *b = calloc(1, q->cluster_size), *old = malloc(q->cluster_size);
	int rc = b && old ? file_pread(q->img->file, old, q->cluster_size, 0) : -ENOMEM;
	if (!rc && q->h.version >= 3 && load_be32(old + H_VERSION) >= 3 &&
	    q->h.header_length > H_FULL_LENGTH)
		memcpy(b + H_FULL_LENGTH, old + H_FULL_LENGTH, q->h.header_length - H_FULL_LENGTH);
	if (!rc)
		rc = qcow2_layout_header(q, b);
	if (rc > 0) {
		rc = file_pwrite(q->img->file, b, q->cluster_size, 0);
		if (!rc) {
			q->h.header_length =
				q->h.version < 3 ? H_V2_LENGTH : load_be32(b + H_HEADER_LENGTH);
			q->h.backing_offset = load_be64(b + H_BACKING_OFFSET);
			q->h.backing_size = load_be32(b + H_BACKING_SIZE);
			rc = file_flush(q->img->file);
		}
	}
	free(b);
	free(old);
	return rc;
}
