/* SPDX-License-Identifier: MIT */
/*
 * An NBD export as a file that image formats lie in (block/file.h).
 *
 * Requests are cut to the server's largest payload and aligned to its smallest block: a read takes
 * the blocks around it, a write that covers a block in part reads that block first, excluding every
 * other write for its time. An export need not end on a sector: what is read behind its end is
 * zeroes, as of a file.
 */
#include "block/file.h"
#include "block/image.h"
#include "block/iov.h"
#include "block/nbd_client.h"
#include "block/nbd_proto.h"
#include "block/remote.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
	IOV_PIECE = 64,
	BOUNCE_SIZE = 256 * 1024, /* of unaligned reads; at least the largest of minimum blocks */
	LONG_COMMAND = 1 << 30,   /* trims and zeroes carry no payload and may be long */
};

struct nbd_file {
	struct nbd_client *client;
	const struct nbd_export *export;
	char *identity;
	pthread_rwlock_t rmw; /* read-modify-write is exclusive among writes */
	/* The same towards writes that nobody waits for. */
	pthread_mutex_t gate;
	pthread_cond_t gate_free;
	unsigned submitted_writes;
	bool rmw_goes_on;
};

static void nbd_file_close(void *remote)
{
	struct nbd_file *f = remote;
	if (f->client)
		nbd_client_close(f->client);
	pthread_rwlock_destroy(&f->rmw);
	pthread_mutex_destroy(&f->gate);
	pthread_cond_destroy(&f->gate_free);
	free(f->identity);
	free(f);
}

static bool aligned(const struct nbd_file *f, uint64_t offset, uint64_t len)
{
	return ((offset | len) & (f->export->min_block - 1)) == 0;
}

/* Whole blocks, in pieces as the server and the client take them. -EAGAIN: the list, which is in small
 * pieces, has a piece that ends within a block. */
static int transfer_aligned(struct nbd_file *f, bool write, struct iov_iter *it, uint64_t len,
			    uint64_t offset, uint16_t flags)
{
	while (len) {
		struct iovec part[IOV_PIECE];
		size_t max = len < f->export->max_block ? (size_t)len : f->export->max_block;
		size_t covered;
		int n = iov_peek(it, max, part, IOV_PIECE, &covered);
		if (!aligned(f, 0, covered))
			return -EAGAIN;
		int rc = write ? nbd_client_write(f->client, part, n, offset, flags)
			       : nbd_client_read(f->client, part, n, offset);
		if (rc < 0)
			return rc;
		iov_advance(it, covered);
		offset += covered;
		len -= covered;
	}
	return 0;
}

/* ---- Reading ---- */

static int read_bounced(struct nbd_file *f, struct iov_iter *it, uint64_t len, uint64_t offset)
{
	uint32_t block = f->export->min_block;
	size_t size = BOUNCE_SIZE < f->export->max_block ? BOUNCE_SIZE : f->export->max_block;
	uint8_t *buf = malloc(size);
	int rc = buf ? 0 : -ENOMEM;
	while (len && !rc) {
		uint64_t start = round_down(offset, block);
		size_t head = (size_t)(offset - start);
		size_t part = size - head < len ? size - head : (size_t)len;
		struct iovec iov = {buf, round_up(head + part, block)};
		rc = nbd_client_read(f->client, &iov, 1, start);
		if (!rc)
			iov_write(it, buf + head, part);
		offset += part;
		len -= part;
	}
	free(buf);
	return rc;
}

static int nbd_file_preadv(void *remote, const struct iovec *iov, int iovcnt, uint64_t offset)
{
	struct nbd_file *f = remote;
	uint64_t len = iov_total(iov, iovcnt), size = f->export->size;
	uint64_t inside = offset >= size ? 0 : size - offset < len ? size - offset : len;
	struct iov_iter it = iov_iter(iov, iovcnt);
	int rc = aligned(f, offset, inside) ? transfer_aligned(f, false, &it, inside, offset, 0)
					    : -EAGAIN;
	if (rc == -EAGAIN) {
		it = iov_iter(iov, iovcnt);
		rc = read_bounced(f, &it, inside, offset);
	}
	if (!rc)
		iov_zero(&it, len - inside);
	return rc;
}

/* ---- Writing ---- */

/* Shuts out all other writes: those that take the lock, and those that nobody waits for. */
static void rmw_begin(struct nbd_file *f)
{
	pthread_rwlock_wrlock(&f->rmw);
	pthread_mutex_lock(&f->gate);
	f->rmw_goes_on = true;
	while (f->submitted_writes)
		pthread_cond_wait(&f->gate_free, &f->gate);
	pthread_mutex_unlock(&f->gate);
}

static void rmw_end(struct nbd_file *f)
{
	pthread_mutex_lock(&f->gate);
	f->rmw_goes_on = false;
	pthread_mutex_unlock(&f->gate);
	pthread_rwlock_unlock(&f->rmw);
}

/* Between rmw_begin() and rmw_end(). */
static int write_bounced(struct nbd_file *f, struct iov_iter *it, uint64_t len, uint64_t offset,
			 uint16_t flags)
{
	uint32_t block = f->export->min_block;
	size_t size = BOUNCE_SIZE < f->export->max_block ? BOUNCE_SIZE : f->export->max_block;
	uint8_t *buf = malloc(size);
	int rc = buf ? 0 : -ENOMEM;
	while (len && !rc) {
		uint64_t start = round_down(offset, block);
		size_t head = (size_t)(offset - start);
		size_t part = size - head < len ? size - head : (size_t)len;
		size_t whole = round_up(head + part, block);
		struct iovec first = {buf, block}, last = {buf + whole - block, block};
		struct iovec all = {buf, whole};
		if (head)
			rc = nbd_client_read(f->client, &first, 1, start);
		if (!rc && whole != head + part && (!head || whole > block))
			rc = nbd_client_read(f->client, &last, 1, start + whole - block);
		if (!rc) {
			iov_read(it, buf + head, part);
			rc = nbd_client_write(f->client, &all, 1, start, flags);
		}
		offset += part;
		len -= part;
	}
	free(buf);
	return rc;
}

static int nbd_file_pwritev(void *remote, const struct iovec *iov, int iovcnt, uint64_t offset,
			    bool fua)
{
	struct nbd_file *f = remote;
	uint64_t len = iov_total(iov, iovcnt);
	bool has_fua = f->export->flags & NBD_FLAG_SEND_FUA;
	uint16_t flags = fua && has_fua ? NBD_CMD_FLAG_FUA : 0;
	struct iov_iter it = iov_iter(iov, iovcnt);
	/* An export does not grow. */
	if (!range_in(offset, len, f->export->size))
		return -ENOSPC;
	int rc = -EAGAIN;
	if (aligned(f, offset, len)) {
		pthread_rwlock_rdlock(&f->rmw);
		rc = transfer_aligned(f, true, &it, len, offset, flags);
		pthread_rwlock_unlock(&f->rmw);
	}
	if (rc == -EAGAIN) {
		it = iov_iter(iov, iovcnt);
		rmw_begin(f);
		rc = write_bounced(f, &it, len, offset, flags);
		rmw_end(f);
	}
	if (!rc && fua && !has_fua && (f->export->flags & NBD_FLAG_SEND_FLUSH))
		rc = nbd_client_command(f->client, NBD_CMD_FLUSH, 0, 0, 0);
	return rc;
}

static int nbd_file_cache(void *remote, uint64_t offset, uint64_t len)
{
	struct nbd_file *f = remote;
	uint64_t size = f->export->size;
	if (!(f->export->flags & NBD_FLAG_SEND_CACHE))
		return -ENOTSUP;
	/* The export is whole blocks, but may end within the image's last sector. */
	uint64_t at = round_down(offset, f->export->min_block);
	uint64_t end = offset >= size || size - offset < len
			       ? size
			       : round_up(offset + len, f->export->min_block);
	int rc = 0;
	while (at < end && !rc) {
		uint64_t part = end - at < f->export->max_block ? end - at : f->export->max_block;
		rc = nbd_client_command(f->client, NBD_CMD_CACHE, at, (uint32_t)part, 0);
		at += part;
	}
	return rc;
}

static int nbd_file_flush(void *remote)
{
	struct nbd_file *f = remote;
	if (!(f->export->flags & NBD_FLAG_SEND_FLUSH))
		return 0;
	return nbd_client_command(f->client, NBD_CMD_FLUSH, 0, 0, 0);
}

/* TRIM or WRITE_ZEROES of whole blocks. */
static int long_command(struct nbd_file *f, uint16_t type, uint64_t offset, uint64_t len,
			uint16_t flags)
{
	int rc = 0;
	pthread_rwlock_rdlock(&f->rmw);
	while (len && !rc) {
		uint32_t part = len < LONG_COMMAND ? (uint32_t)len : LONG_COMMAND;
		rc = nbd_client_command(f->client, type, offset, part, flags);
		offset += part;
		len -= part;
	}
	pthread_rwlock_unlock(&f->rmw);
	return rc;
}

static int nbd_file_discard(void *remote, uint64_t offset, uint64_t len)
{
	struct nbd_file *f = remote;
	uint64_t size = f->export->size, block = f->export->min_block;
	if (!(f->export->flags & NBD_FLAG_SEND_TRIM) || offset >= size)
		return 0;
	/* The partial blocks at the ends just stay. */
	uint64_t end = round_down(size - offset < len ? size : offset + len, block);
	offset = round_up(offset, block);
	return offset < end ? long_command(f, NBD_CMD_TRIM, offset, end - offset, 0) : 0;
}

static int nbd_file_write_zeroes(void *remote, uint64_t offset, uint64_t len, bool may_unmap)
{
	static uint8_t zeroes[64 * 1024];
	struct nbd_file *f = remote;
	uint64_t size = f->export->size, block = f->export->min_block;
	/* An image's last sector may be longer than the export: what is behind reads as zeroes. */
	if (offset >= size)
		return 0;
	uint64_t end = size - offset < len ? size : offset + len;
	if (!(f->export->flags & NBD_FLAG_SEND_WRITE_ZEROES))
		return -ENOTSUP;
	uint64_t first = round_up(offset, block), last = round_down(end, block);
	int rc = 0;
	if (first < last)
		rc = long_command(f, NBD_CMD_WRITE_ZEROES, first, last - first,
				  may_unmap ? 0 : NBD_CMD_FLAG_NO_HOLE);
	else
		first = last = end;
	/* nbdkit offers it in the oldstyle handshake and then calls it invalid. */
	if (rc == -EINVAL)
		return -ENOTSUP;
	/* What is left are parts of one block at each end. */
	struct iovec head = {zeroes, (size_t)(first - offset)},
		     tail = {zeroes, (size_t)(end - last)};
	if (!rc && head.iov_len)
		rc = nbd_file_pwritev(f, &head, 1, offset, false);
	if (!rc && tail.iov_len)
		rc = nbd_file_pwritev(f, &tail, 1, last, false);
	return rc;
}

static int nbd_file_write_zeroes_fast(void *remote, uint64_t offset, uint64_t len, bool may_unmap)
{
	struct nbd_file *f = remote;
	const uint16_t needed = NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
	if ((f->export->flags & needed) != needed || !aligned(f, offset, len) ||
	    !range_in(offset, len, f->export->size))
		return -ENOTSUP;
	return long_command(f, NBD_CMD_WRITE_ZEROES, offset, len,
			    NBD_CMD_FLAG_FAST_ZERO | (may_unmap ? 0 : NBD_CMD_FLAG_NO_HOLE));
}

/* ---- Transfers that nobody waits for ---- */

/* A server of single bytes never needs a read-modify-write. */
static bool write_may_go(struct nbd_file *f)
{
	if (f->export->min_block == 1)
		return true;
	pthread_mutex_lock(&f->gate);
	bool ok = !f->rmw_goes_on;
	f->submitted_writes += ok;
	pthread_mutex_unlock(&f->gate);
	return ok;
}

static void write_has_gone(struct nbd_file *f)
{
	if (f->export->min_block == 1)
		return;
	pthread_mutex_lock(&f->gate);
	if (--f->submitted_writes == 0)
		pthread_cond_signal(&f->gate_free);
	pthread_mutex_unlock(&f->gate);
}

static void submitted_done(struct nbd_request *nbd, int result)
{
	struct remote_request *req = container_of(nbd, struct remote_request, nbd);
	if (req->op == REMOTE_WRITE)
		write_has_gone(req->remote);
	req->done(req, result);
}

static bool nbd_file_submit(void *remote, struct remote_request *req)
{
	static const uint16_t types[] = {[REMOTE_READ] = NBD_CMD_READ,
					 [REMOTE_WRITE] = NBD_CMD_WRITE,
					 [REMOTE_FLUSH] = NBD_CMD_FLUSH};
	struct nbd_file *f = remote;
	unsigned needs = req->op == REMOTE_FLUSH ? NBD_FLAG_SEND_FLUSH
			 : req->fua              ? NBD_FLAG_SEND_FUA
						 : 0;
	if ((f->export->flags & needs) != needs)
		return false;
	req->remote = f;
	req->nbd = (struct nbd_request){.type = types[req->op], .done = submitted_done};
	if (req->op != REMOTE_FLUSH) {
		if (req->len > f->export->max_block || !aligned(f, req->offset, req->len) ||
		    !range_in(req->offset, req->len, f->export->size))
			return false;
		req->nbd.flags = req->fua ? NBD_CMD_FLAG_FUA : 0;
		req->nbd.offset = req->offset;
		req->nbd.len = (uint32_t)req->len;
		req->nbd.iov = req->iov;
		req->nbd.iovcnt = req->iovcnt;
	}
	if (req->op == REMOTE_WRITE && !write_may_go(f))
		return false;
	bool ok = nbd_client_submit(f->client, &req->nbd);
	if (!ok && req->op == REMOTE_WRITE)
		write_has_gone(f);
	return ok;
}

/* ---- Questions ---- */

static uint64_t nbd_file_size(void *remote)
{
	const struct nbd_file *f = remote;
	return f->export->size;
}

static unsigned nbd_file_status(void *remote, uint64_t offset, uint64_t len, uint64_t *count)
{
	struct nbd_file *f = remote;
	uint64_t size = f->export->size, block = f->export->min_block;
	*count = len;
	if (offset >= size)
		return FILE_HOLE | FILE_ZEROES;
	if (!f->export->has_context)
		return 0;
	uint64_t start = round_down(offset, block);
	uint64_t end = size - offset < len ? size : round_up(offset + len, block);
	uint32_t flags, found;
	if (end - start > LONG_COMMAND)
		end = start + LONG_COMMAND;
	int rc = nbd_client_status(f->client, start, (uint32_t)(end - start), &flags, &found);
	/* Who cannot tell has data, and reading it will say what is wrong. */
	if (rc < 0 || found <= offset - start)
		return 0;
	if (found - (offset - start) < len)
		*count = found - (offset - start);
	return (flags & NBD_STATE_HOLE ? FILE_HOLE : 0) |
	       (flags & NBD_STATE_ZERO ? FILE_ZEROES : 0);
}

static const char *nbd_file_identity(void *remote)
{
	const struct nbd_file *f = remote;
	return f->identity;
}

static void nbd_file_ending(void *remote)
{
	struct nbd_file *f = remote;
	nbd_client_ending(f->client);
}

static const struct file_protocol protocol = {
	.close = nbd_file_close,
	.preadv = nbd_file_preadv,
	.pwritev = nbd_file_pwritev,
	.submit = nbd_file_submit,
	.cache = nbd_file_cache,
	.flush = nbd_file_flush,
	.discard = nbd_file_discard,
	.write_zeroes = nbd_file_write_zeroes,
	.write_zeroes_fast = nbd_file_write_zeroes_fast,
	.size = nbd_file_size,
	.status = nbd_file_status,
	.identity = nbd_file_identity,
	.ending = nbd_file_ending,
};

struct file_layer *nbd_file_open(const char *name, struct opts *opts, const char *prefix,
				 unsigned flags, const char *what, struct error *err)
{
	struct nbd_config config = {0};
	if (nbd_config_parse(&config, name, opts, prefix, err) < 0) {
		error_prefix(err, "%s", what);
		return NULL;
	}
	struct nbd_file *f = xcalloc(1, sizeof(*f));
	pthread_rwlock_init(&f->rmw, NULL);
	pthread_mutex_init(&f->gate, NULL);
	pthread_cond_init(&f->gate_free, NULL);
	f->identity = nbd_config_uri(&config);
	f->client = nbd_client_open(&config, err);
	if (!f->client) {
		error_prefix(err, "%s", what);
		nbd_file_close(f);
		return NULL;
	}
	f->export = nbd_client_export(f->client);
	if ((flags & IMAGE_WRITABLE) && (f->export->flags & NBD_FLAG_READ_ONLY)) {
		error_set(err, EROFS,
			  "%s for writing: the server offers it read-only; use readonly=on or "
			  "snapshot=on",
			  what);
		nbd_file_close(f);
		return NULL;
	}
	return file_new_remote(&protocol, f, flags);
}
