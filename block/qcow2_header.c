/* SPDX-License-Identifier: MIT */
/*
 * The qcow2 header and its extensions (spec, "Header", "Header extensions"): reading.
 *
 * All fields are checked before anything is refused, so that one sentence tells everything that is
 * wrong with a damaged header. Writing is in qcow2_layout.c.
 */
#include "block/qcow2.h"
#include "lib/strbuf.h"
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void parse(struct qcow2_header *h, const uint8_t *b)
{
	*h = (struct qcow2_header){
		.version = load_be32(b + H_VERSION),
		.backing_offset = load_be64(b + H_BACKING_OFFSET),
		.backing_size = load_be32(b + H_BACKING_SIZE),
		.cluster_bits = load_be32(b + H_CLUSTER_BITS),
		.size = load_be64(b + H_SIZE),
		.crypt_method = load_be32(b + H_CRYPT_METHOD),
		.l1_size = load_be32(b + H_L1_SIZE),
		.l1_offset = load_be64(b + H_L1_OFFSET),
		.reftable_offset = load_be64(b + H_REFTABLE_OFFSET),
		.reftable_clusters = load_be32(b + H_REFTABLE_CLUSTERS),
		.nb_snapshots = load_be32(b + H_NB_SNAPSHOTS),
		.snapshots_offset = load_be64(b + H_SNAPSHOTS_OFFSET),
		.refcount_order = 4, /* version 2 */
		.header_length = H_V2_LENGTH,
	};
	if (h->version < 3)
		return;
	h->incompatible = load_be64(b + H_INCOMPATIBLE);
	h->compatible = load_be64(b + H_COMPATIBLE);
	h->autoclear = load_be64(b + H_AUTOCLEAR);
	h->refcount_order = load_be32(b + H_REFCOUNT_ORDER);
	h->header_length = load_be32(b + H_HEADER_LENGTH);
	if (h->header_length > H_COMPRESSION)
		h->compression = b[H_COMPRESSION];
}

static void wrong(struct strbuf *sb, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void wrong(struct strbuf *sb, const char *fmt, ...)
{
	va_list ap;
	if (sb->len)
		strbuf_puts(sb, ", ");
	va_start(ap, fmt);
	strbuf_vprintf(sb, fmt, ap);
	va_end(ap);
}

/* A table of `bytes` at a cluster boundary within the file. */
static void check_table(struct strbuf *bad, const char *field, uint64_t offset, uint64_t bytes,
			uint64_t cluster_size, uint64_t file_size)
{
	if (offset & (cluster_size - 1))
		wrong(bad, "%s 0x%" PRIx64 " (not a multiple of the cluster size %" PRIu64 ")",
		      field, offset, cluster_size);
	else if (bytes && offset < cluster_size)
		wrong(bad, "%s 0x%" PRIx64 " (overlaps the header)", field, offset);
	else if (!range_in(offset, bytes, file_size))
		wrong(bad,
		      "%s 0x%" PRIx64 " (its %" PRIu64 " bytes end behind the file's %" PRIu64 ")",
		      field, offset, bytes, file_size);
}

static void check_fields(const struct qcow2_header *h, uint64_t file_size, struct strbuf *bad)
{
	if (h->cluster_bits < MIN_CLUSTER_BITS || h->cluster_bits > MAX_CLUSTER_BITS) {
		wrong(bad, "cluster_bits %" PRIu32 " (9 to 21 are allowed)", h->cluster_bits);
		return; /* every other check needs it */
	}
	uint64_t cluster = UINT64_C(1) << h->cluster_bits;
	if (h->version >= 3) {
		if (h->header_length < H_V3_LENGTH || h->header_length > cluster ||
		    h->header_length % 8)
			wrong(bad, "header_length %" PRIu32, h->header_length);
		if (h->refcount_order > MAX_REFCOUNT_ORDER)
			wrong(bad, "refcount_order %" PRIu32 " (0 to 6 are allowed)",
			      h->refcount_order);
		if (!!(h->incompatible & INCOMPAT_COMPRESSION) != (h->compression != 0))
			wrong(bad, "compression_type %u (does not agree with the feature bit)",
			      h->compression);
	}
	bool extended = h->incompatible & INCOMPAT_EXTENDED_L2;
	if (extended && h->cluster_bits < MIN_EXTENDED_CLUSTER_BITS)
		wrong(bad, "cluster_bits %" PRIu32 " (extended L2 entries need 14)",
		      h->cluster_bits);
	uint64_t l2_bytes = cluster / (extended ? 16 : 8) * cluster;
	if (h->size > INT64_MAX)
		wrong(bad, "size %" PRIu64 " (too large)", h->size);
	else if (div_round_up(h->size, l2_bytes) > h->l1_size)
		wrong(bad, "l1_size %" PRIu32 " (size %" PRIu64 " needs %" PRIu64 ")", h->l1_size,
		      h->size, div_round_up(h->size, l2_bytes));
	if (h->l1_size > MAX_L1_BYTES / 8)
		wrong(bad, "l1_size %" PRIu32 " (more than 32 MiB)", h->l1_size);
	else
		check_table(bad, "l1_table_offset", h->l1_offset, (uint64_t)h->l1_size * 8, cluster,
			    file_size);
	if (h->reftable_clusters == 0)
		wrong(bad, "refcount_table_clusters 0");
	else if (h->reftable_clusters > (uint32_t)MAX_REFTABLE_BYTES >> h->cluster_bits)
		wrong(bad, "refcount_table_clusters %" PRIu32 " (more than 8 MiB)",
		      h->reftable_clusters);
	else
		check_table(bad, "refcount_table_offset", h->reftable_offset,
			    (uint64_t)h->reftable_clusters << h->cluster_bits, cluster, file_size);
	if (h->nb_snapshots > MAX_SNAPSHOTS)
		wrong(bad, "nb_snapshots %" PRIu32 " (more than 65536)", h->nb_snapshots);
	else if (h->nb_snapshots)
		check_table(bad, "snapshots_offset", h->snapshots_offset, 1, cluster, file_size);
	if (h->backing_offset) {
		if (h->backing_size > MAX_BACKING_NAME)
			wrong(bad, "backing_file_size %" PRIu32 " (more than 1023)",
			      h->backing_size);
		else if (!range_in(h->backing_offset, h->backing_size, cluster) ||
			 !range_in(h->backing_offset, h->backing_size, file_size))
			wrong(bad, "backing_file_offset 0x%" PRIx64 " (outside the first cluster)",
			      h->backing_offset);
	}
}

/* Spec, "Feature name table": 48-byte entries of type, bit number and name. */
static void feature_name(const uint8_t *table, size_t len, unsigned bit, char out[64])
{
	snprintf(out, 64, "bit %u", bit);
	for (size_t at = 0; table && at + 48 <= len; at += 48) {
		if (table[at] != 0 || table[at + 1] != bit)
			continue;
		char name[47];
		memcpy(name, table + at + 2, 46);
		name[46] = '\0';
		for (char *p = name; *p; p++)
			if (!isprint((unsigned char)*p))
				*p = '?';
		snprintf(out, 64, "'%s'", name);
	}
}

static int check_features(struct qcow2 *q, const uint8_t *names, size_t names_len,
			  struct error *err)
{
	static const char *const known_names[] = {"dirty", "corrupt", "external data file",
						  "compression type", "extended L2 entries"};
	uint64_t handled = INCOMPAT_DIRTY | INCOMPAT_CORRUPT | INCOMPAT_COMPRESSION |
			   INCOMPAT_DATA_FILE | INCOMPAT_EXTENDED_L2;
	uint64_t unknown = q->h.incompatible & ~handled;
	struct strbuf list = STRBUF_INIT;
	for (unsigned bit = 0; bit < 64; bit++) {
		char name[64];
		if (!(unknown >> bit & 1))
			continue;
		feature_name(names, names_len, bit, name);
		if (bit < ARRAY_SIZE(known_names))
			snprintf(name, sizeof(name), "'%s'", known_names[bit]);
		wrong(&list, "%s", name);
	}
	if (list.len)
		error_set(err, ENOTSUP, "it uses qcow2 features that are not supported: %s",
			  list.data);
	strbuf_free(&list);
	if (unknown)
		return -ENOTSUP;
	if (q->h.crypt_method)
		return error_set(err, ENOTSUP, "it is encrypted (%s), which is not supported",
				 q->h.crypt_method == 1   ? "AES"
				 : q->h.crypt_method == 2 ? "LUKS"
							  : "unknown method");
	if (!qcow2_compression_known(q->h.compression))
		return error_set(err, ENOTSUP,
				 "its compression type %u (%s) is not supported by this build",
				 q->h.compression, qcow2_compression_name(q->h.compression));
	return 0;
}

int qcow2_read_header(struct qcow2 *q, struct error *err)
{
	struct file_layer *file = q->img->file;
	uint8_t fixed[H_FULL_LENGTH];
	int64_t size = file_size(file);
	if (size < 0)
		return error_errno(err, (int)-size, "its size is unknown");
	int rc = file_pread(file, fixed, sizeof(fixed), 0);
	if (rc)
		return error_errno(err, -rc, "its header cannot be read");
	if (size < 8 || load_be32(fixed) != QCOW2_MAGIC)
		return error_set(err, EINVAL, "not a qcow2 image: the magic number is missing");
	parse(&q->h, fixed);
	if (q->h.version < 2 || q->h.version > 3)
		return error_set(err, ENOTSUP,
				 "qcow2 version %" PRIu32 " is not supported (there are 2 and 3)",
				 q->h.version);
	unsigned needed = q->h.version == 2 ? H_V2_LENGTH : H_V3_LENGTH;
	if (size < needed)
		return error_set(err, EINVAL,
				 "the qcow2 header is truncated: the file has %" PRId64
				 " bytes, a version %" PRIu32 " header %u",
				 size, q->h.version, needed);
	struct strbuf bad = STRBUF_INIT;
	check_fields(&q->h, (uint64_t)size, &bad);
	if (bad.len) {
		error_set(err, EINVAL, "the qcow2 image is damaged or truncated; header fields: %s",
			  bad.data);
		strbuf_free(&bad);
		return -EINVAL;
	}

	/* The rest of the first cluster: extensions, then the name of the backing file. */
	uint32_t cluster = 1u << q->h.cluster_bits;
	uint8_t *b = malloc(cluster);
	if (!b)
		return error_errno(err, ENOMEM, "its header cannot be read");
	rc = file_pread(file, b, cluster, 0);
	if (rc) {
		free(b);
		return error_errno(err, -rc, "its header cannot be read");
	}
	const uint8_t *names = NULL;
	size_t names_len = 0;
	uint32_t end = q->h.backing_offset ? (uint32_t)q->h.backing_offset : cluster;
	for (uint32_t at = q->h.header_length; at + 8 <= end;) {
		uint32_t type = load_be32(b + at), len = load_be32(b + at + 4);
		if (type == EXT_END)
			break;
		if (!range_in(at + 8, len, end)) {
			rc = error_set(err, EINVAL,
				       "the qcow2 image is damaged: header extension 0x%" PRIx32
				       " of %" PRIu32 " bytes does not fit in the header",
				       type, len);
			break;
		}
		const uint8_t *data = b + at + 8;
		qcow2_add_ext(q, type, data, len);
		if (type == EXT_BACKING_FORMAT && len < 64 && !q->backing_format) {
			q->backing_format = strndup((const char *)data, len);
		} else if (type == EXT_DATA_FILE && len && len <= MAX_BACKING_NAME &&
			   !q->data_name) {
			q->data_name = strndup((const char *)data, len);
		} else if (type == EXT_FEATURE_NAMES) {
			names = data;
			names_len = len;
		}
		at += 8 + (uint32_t)round_up(len, 8);
	}
	if (!rc && q->h.backing_offset && q->h.backing_size)
		q->backing_file = strndup((const char *)b + q->h.backing_offset, q->h.backing_size);
	if (!rc)
		rc = check_features(q, names, names_len, err);
	free(b);
	return rc;
}

int qcow2_header_set32(struct qcow2 *q, unsigned offset, uint32_t value)
{
	uint8_t b[4];
	store_be32(b, value);
	return file_pwrite(q->img->file, b, sizeof(b), offset);
}

int qcow2_header_set64(struct qcow2 *q, unsigned offset, uint64_t value)
{
	uint8_t b[8];
	store_be64(b, value);
	return file_pwrite(q->img->file, b, sizeof(b), offset);
}

int qcow2_corrupt(struct qcow2 *q, const char *fmt, ...)
{
	char text[256];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (q->failed || (q->img->flags & IMAGE_CHECK))
		return -EIO;
	q->failed = true;
	warn("'%s' is damaged: %s; %s", q->img->path, text,
	     image_writable(q->img) ? "no more changes are made to it, repair it with "
				      "'minivm-img check -r all'"
				    : "check it with 'minivm-img check'");
	if (image_writable(q->img) && q->h.version >= 3) {
		q->h.incompatible |= INCOMPAT_CORRUPT;
		qcow2_header_set64(q, H_INCOMPATIBLE, q->h.incompatible);
	}
	return -EIO;
}
