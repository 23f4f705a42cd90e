/* SPDX-License-Identifier: MIT */
/*
 * virtio-blk: a disk whose requests come in virtqueues (virtio 1.2, 5.2).
 *
 *   request   readable: type (4 bytes), reserved (4), sector (8), data to write
 *             writable: data read, status (1)
 *   types     0 read, 1 write, 4 flush, 8 get id, 11 discard, 13 write zeroes
 *   status    0 done, 1 error, 2 not supported
 *
 * A turn takes all requests there are, joins neighbours (one follows the other on the disk, same
 * direction) and hands them to the drive's queue, whose workers move the data between the image and
 * the guest's memory; nothing is copied here. Completions come back in the event loop. Buffers may
 * be cut anywhere (ANY_LAYOUT): header and status are taken off the two ends.
 *
 * The write cache is the driver's to switch (CONFIG_WCE). One that does not know flushes at all has
 * each write flushed, 5.2.6.
 *
 * Left out: SCSI commands (legacy), lifetime, secure erase, zones.
 */
#include "devices/virtio_blk.h"
#include "block/iov.h"
#include "core/state.h"
#include "devices/ide.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

/* 5.2.3. */
#define F_SEG_MAX      (UINT64_C(1) << 2)
#define F_GEOMETRY     (UINT64_C(1) << 4)
#define F_RO           (UINT64_C(1) << 5)
#define F_BLK_SIZE     (UINT64_C(1) << 6)
#define F_FLUSH        (UINT64_C(1) << 9)
#define F_TOPOLOGY     (UINT64_C(1) << 10)
#define F_CONFIG_WCE   (UINT64_C(1) << 11)
#define F_MQ           (UINT64_C(1) << 12)
#define F_DISCARD      (UINT64_C(1) << 13)
#define F_WRITE_ZEROES (UINT64_C(1) << 14)

/* 5.2.4. */
enum config_offset {
	CONFIG_CAPACITY = 0,
	CONFIG_SEG_MAX = 12,
	CONFIG_CYLINDERS = 16,
	CONFIG_HEADS = 18,
	CONFIG_SECTORS = 19,
	CONFIG_BLK_SIZE = 20,
	CONFIG_PHYSICAL_EXP = 24,
	CONFIG_MIN_IO = 26,
	CONFIG_OPT_IO = 28,
	CONFIG_WRITEBACK = 32,
	CONFIG_QUEUES = 34,
	CONFIG_MAX_DISCARD = 36,
	CONFIG_MAX_DISCARD_SEG = 40,
	CONFIG_DISCARD_ALIGN = 44,
	CONFIG_MAX_ZEROES = 48,
	CONFIG_MAX_ZEROES_SEG = 52,
	CONFIG_ZEROES_MAY_UNMAP = 56,
	CONFIG_SIZE = 60,
};

/* 5.2.6. */
enum request_type {
	REQ_IN = 0,
	REQ_OUT = 1,
	REQ_FLUSH = 4,
	REQ_GET_ID = 8,
	REQ_DISCARD = 11,
	REQ_WRITE_ZEROES = 13,
	HEADER_SIZE = 16,
	HEADER_SECTOR = 8,
	RANGE_SIZE = 16, /* of discard and write zeroes: sector, sectors, flags */
	RANGE_SECTORS = 8,
	RANGE_FLAGS = 12,
	RANGE_UNMAP = 1,
	ID_SIZE = 20,
};

enum status { STATUS_OK = 0, STATUS_IOERR = 1, STATUS_UNSUPP = 2 };

enum {
	SECTOR = 512,
	MERGE_MAX = 64, /* requests joined into one */
	MERGE_BYTES = 4 << 20,
	TRANSFER_MAX = 1 << 30, /* no driver asks for as much; a reset would have to wait for it */
	PCI_DEVICE = 0x1001,
	CLASS_SCSI = 0x0100,
};

struct blk_request {
	struct virtio_chain chain;
	struct drive_request io;
	struct virtio_blk *blk;
	struct blk_request *next; /* in the list of free ones, or joined behind this one */
	struct iovec *data;       /* of this request alone, in chain.iov */
	int data_count;
	struct iovec *joined; /* of all requests in the list; kept for the next use */
	unsigned joined_size;
	uint8_t *status;
	size_t in_len; /* all of the writable part, the status included */
};

struct virtio_blk {
	struct virtio virtio;
	uint8_t writeback; /* guest-visible */

	struct virtio_blk_config config;
	struct ide_geometry geometry;
	struct blk_request *free;
	struct state_registry *states;
};

static const struct state_field blk_fields[] = {
	STATE_UINT(virtio_blk, writeback),
	STATE_END,
};

static struct virtio_blk *from_virtio(struct virtio *v)
{
	return container_of(v, struct virtio_blk, virtio);
}

struct pci_device *virtio_blk_pci(struct virtio_blk *blk)
{
	return &blk->virtio.pci;
}

/* ---- requests ---- */

static struct blk_request *request_new(struct virtio_blk *blk)
{
	struct blk_request *req = blk->free;

	if (req)
		blk->free = req->next;
	else
		req = xcalloc(1, sizeof(*req));
	req->blk = blk;
	req->next = NULL;
	return req;
}

static void request_free(struct blk_request *req)
{
	req->next = req->blk->free;
	req->blk->free = req;
}

static void complete(struct blk_request *req, uint8_t status)
{
	struct virtqueue *q = req->chain.queue;

	*req->status = status;
	virtqueue_push(q, &req->chain, req->in_len);
	request_free(req);
}

/* The drive is done with a request and those joined behind it. */
static void io_done(struct drive_request *io, int result)
{
	struct blk_request *req = io->opaque;
	struct virtqueue *q = req->chain.queue;

	while (req) {
		struct blk_request *next = req->next;
		complete(req, result == 0          ? STATUS_OK
			      : result == -ENOTSUP ? STATUS_UNSUPP
						   : STATUS_IOERR);
		req = next;
	}
	virtqueue_signal(q);
}

/* Whether [offset, offset + len) is on the disk, in whole blocks. */
static bool on_disk(const struct virtio_blk *blk, uint64_t sector, uint64_t len)
{
	uint64_t size = drive_size(blk->config.drive);

	return sector <= size / SECTOR && range_in(sector * SECTOR, len, size) &&
	       len % blk->config.logical_block == 0 &&
	       sector * SECTOR % blk->config.logical_block == 0;
}

static void submit(struct blk_request *first)
{
	struct drive_request *io = &first->io;

	if (first->next) {
		unsigned count = 0;
		uint64_t len = 0;
		for (struct blk_request *r = first; r; r = r->next) {
			count += (unsigned)r->data_count;
			len += r->io.len;
		}
		if (count > first->joined_size) {
			first->joined = xrealloc(first->joined, count * sizeof(*first->joined));
			first->joined_size = count;
		}
		count = 0;
		for (struct blk_request *r = first; r; r = r->next) {
			memcpy(first->joined + count, r->data,
			       (size_t)r->data_count * sizeof(*r->data));
			count += (unsigned)r->data_count;
		}
		io->iov = first->joined;
		io->iovcnt = (int)count;
		io->len = len;
	}
	drive_submit(first->blk->config.drive, io);
}

/* The requests of this turn that may still be joined by a neighbour. */
struct batch {
	struct blk_request *first, *last;
	unsigned requests, pieces;
	unsigned max; /* requests in one */
	uint64_t len;
};

static void batch_submit(struct batch *b)
{
	if (b->first)
		submit(b->first);
	*b = (struct batch){.max = b->max};
}

static void batch_add(struct batch *b, struct blk_request *req)
{
	const struct drive_request *io = &req->io;

	if (b->first && (b->first->io.op != io->op || b->first->io.offset + b->len != io->offset ||
			 b->requests == b->max || b->len + io->len > MERGE_BYTES ||
			 b->pieces + (unsigned)req->data_count > IOV_MAX))
		batch_submit(b);
	if (b->first)
		b->last->next = req;
	else
		b->first = req;
	b->last = req;
	b->requests++;
	b->pieces += (unsigned)req->data_count;
	b->len += io->len;
}

/* Leaves out the pieces that the header has used up. */
static void set_data(struct blk_request *req, struct iovec *iov, unsigned count)
{
	while (count && iov->iov_len == 0) {
		iov++;
		count--;
	}
	while (count && iov[count - 1].iov_len == 0)
		count--;
	req->data = iov;
	req->data_count = (int)count;
}

static void start(struct blk_request *req, enum drive_op op, uint64_t sector, uint64_t len)
{
	req->io = (struct drive_request){
		.op = op,
		.offset = sector * SECTOR,
		.len = len,
		.iov = req->data,
		.iovcnt = req->data_count,
		.fua = op != DRIVE_READ && op != DRIVE_FLUSH && !req->blk->writeback,
		.done = io_done,
		.opaque = req,
	};
}

static enum status transfer(struct blk_request *req, struct batch *b, enum drive_op op,
			    uint64_t sector, uint64_t len)
{
	struct virtio_blk *blk = req->blk;

	if (len > TRANSFER_MAX || !on_disk(blk, sector, len) ||
	    (op == DRIVE_WRITE && !drive_writable(blk->config.drive)))
		return STATUS_IOERR;
	if (len == 0)
		return STATUS_OK;
	start(req, op, sector, len);
	batch_add(b, req);
	return STATUS_OK;
}

/* Discard and write zeroes: a list of ranges, of which we take one (5.2.6.2). */
static enum status range_request(struct blk_request *req, struct batch *b, enum drive_op op)
{
	struct virtio_blk *blk = req->blk;
	uint8_t range[RANGE_SIZE];

	if (req->chain.out_len != HEADER_SIZE + RANGE_SIZE ||
	    virtio_chain_read(&req->chain, range, sizeof(range)) != sizeof(range))
		return STATUS_UNSUPP;
	uint64_t sector = load_le64(range);
	uint32_t sectors = load_le32(range + RANGE_SECTORS);
	uint32_t flags = load_le32(range + RANGE_FLAGS);
	if (flags & ~(uint32_t)(op == DRIVE_WRITE_ZEROES ? RANGE_UNMAP : 0))
		return STATUS_UNSUPP;
	unsigned max = op == DRIVE_DISCARD ? blk->config.max_discard : blk->config.max_zeroes;
	if (sectors > max || !on_disk(blk, sector, (uint64_t)sectors * SECTOR) ||
	    !drive_writable(blk->config.drive))
		return STATUS_IOERR;
	if (sectors == 0)
		return STATUS_OK;
	req->data = NULL;
	req->data_count = 0;
	start(req, op, sector, (uint64_t)sectors * SECTOR);
	req->io.keep_allocated = op == DRIVE_WRITE_ZEROES && !(flags & RANGE_UNMAP);
	batch_submit(b);
	submit(req);
	return STATUS_OK;
}

static enum status get_id(struct blk_request *req)
{
	char id[ID_SIZE] = {0};
	const char *serial = drive_serial(req->blk->config.drive);

	if (!serial)
		serial = drive_id(req->blk->config.drive);
	memcpy(id, serial, strnlen(serial, ID_SIZE));
	virtio_chain_write(&req->chain, id, sizeof(id));
	return STATUS_OK;
}

/* Takes the status byte off the end of the writable part; false if there is none. */
static bool take_status(struct blk_request *req)
{
	struct virtio_chain *c = &req->chain;

	for (unsigned n = c->in; n--;) {
		struct iovec *last = &c->iov[c->out + n];
		if (last->iov_len == 0)
			continue;
		req->status = (uint8_t *)last->iov_base + --last->iov_len;
		return true;
	}
	return false;
}

static enum status execute(struct blk_request *req, struct batch *b)
{
	struct virtio_chain *c = &req->chain;
	uint8_t header[HEADER_SIZE];

	virtio_chain_read(c, header, sizeof(header));
	uint32_t type = load_le32(header);
	uint64_t sector = load_le64(header + HEADER_SECTOR);
	trace(TRACE_VIRTIO, "%s: request %u at sector %llu", req->blk->virtio.pci.name, type,
	      (unsigned long long)sector);
	switch (type) {
	case REQ_IN:
		set_data(req, c->iov + c->out, c->in);
		return transfer(req, b, DRIVE_READ, sector, c->in_len - 1);
	case REQ_OUT:
		set_data(req, c->iov, c->out);
		return transfer(req, b, DRIVE_WRITE, sector, c->out_len - HEADER_SIZE);
	case REQ_FLUSH:
		req->data = NULL;
		req->data_count = 0;
		start(req, DRIVE_FLUSH, 0, 0);
		batch_submit(b);
		submit(req);
		return STATUS_OK;
	case REQ_GET_ID: return get_id(req);
	case REQ_DISCARD:
		return req->blk->config.no_discard ? STATUS_UNSUPP
						   : range_request(req, b, DRIVE_DISCARD);
	case REQ_WRITE_ZEROES:
		return req->blk->config.no_write_zeroes ? STATUS_UNSUPP
							: range_request(req, b, DRIVE_WRITE_ZEROES);
	default: return STATUS_UNSUPP;
	}
}

/* Begins one request; false if the device is broken now. */
static bool begin(struct virtqueue *q, struct blk_request *req, struct batch *b)
{
	req->in_len = req->chain.in_len;
	if (req->chain.out_len < HEADER_SIZE || !take_status(req)) {
		virtio_broken(q->virtio, "queue %u: a request without header or status", q->index);
		request_free(req);
		return false;
	}
	req->io.opaque = NULL;
	enum status status = execute(req, b);
	/* What was started has its completion to come. */
	if (!req->io.opaque) {
		complete(req, (uint8_t)status);
		virtqueue_signal(q);
	}
	return true;
}

static void serve(struct virtqueue *q)
{
	struct virtio_blk *blk = from_virtio(q->virtio);
	struct batch batch = {.max = blk->config.no_merging ? 1 : MERGE_MAX};
	unsigned left = virtqueue_budget(q);
	int r;

	virtqueue_want_notify(q, false);
	do {
		struct blk_request *req = request_new(blk);
		r = virtqueue_pop(q, &req->chain);
		if (r <= 0) {
			request_free(req);
			if (r < 0)
				break;
			virtqueue_want_notify(q, true);
			if (virtqueue_empty(q))
				break;
			virtqueue_want_notify(q, false);
			continue;
		}
		if (!begin(q, req, &batch))
			break;
		left--;
	} while (left);
	batch_submit(&batch);
	if (!left)
		virtqueue_kick(q);
}

/* ---- device ---- */

static void get_config(struct virtio *v, uint8_t *config)
{
	const struct virtio_blk *blk = from_virtio(v);
	const struct virtio_blk_config *c = &blk->config;
	unsigned exp = 0;

	while ((c->logical_block << exp) < c->physical_block)
		exp++;
	store_le64(config + CONFIG_CAPACITY, drive_size(c->drive) / SECTOR);
	store_le32(config + CONFIG_SEG_MAX, c->queue_size - 2);
	store_le16(config + CONFIG_CYLINDERS, (uint16_t)blk->geometry.cylinders);
	config[CONFIG_HEADS] = (uint8_t)blk->geometry.heads;
	config[CONFIG_SECTORS] = (uint8_t)blk->geometry.sectors;
	store_le32(config + CONFIG_BLK_SIZE, c->logical_block);
	config[CONFIG_PHYSICAL_EXP] = (uint8_t)exp;
	store_le16(config + CONFIG_MIN_IO, (uint16_t)(c->min_io / c->logical_block));
	store_le32(config + CONFIG_OPT_IO, c->opt_io / c->logical_block);
	config[CONFIG_WRITEBACK] = blk->writeback;
	store_le16(config + CONFIG_QUEUES, (uint16_t)c->queues);
	if (!c->no_discard) {
		store_le32(config + CONFIG_MAX_DISCARD, c->max_discard);
		store_le32(config + CONFIG_MAX_DISCARD_SEG, 1);
		store_le32(config + CONFIG_DISCARD_ALIGN, c->discard_granularity / SECTOR);
	}
	if (!c->no_write_zeroes) {
		store_le32(config + CONFIG_MAX_ZEROES, c->max_zeroes);
		store_le32(config + CONFIG_MAX_ZEROES_SEG, 1);
		config[CONFIG_ZEROES_MAY_UNMAP] = 1;
	}
}

static void set_config(struct virtio *v, const uint8_t *config, unsigned offset, unsigned size)
{
	struct virtio_blk *blk = from_virtio(v);

	/* The one field that is the driver's (5.2.4). */
	if (virtio_has(v, F_CONFIG_WCE) && ranges_overlap(offset, size, CONFIG_WRITEBACK, 1))
		blk->writeback = config[CONFIG_WRITEBACK] & 1;
}

static void started(struct virtio *v)
{
	struct virtio_blk *blk = from_virtio(v);

	if (!virtio_has(v, F_CONFIG_WCE))
		blk->writeback = virtio_has(v, F_FLUSH) && blk->config.write_cache;
}

static void reset(struct virtio *v)
{
	struct virtio_blk *blk = from_virtio(v);

	drive_drain(blk->config.drive);
	drive_fail_held(blk->config.drive);
	blk->writeback = blk->config.write_cache;
}

static void reset_queue(struct virtqueue *q)
{
	struct drive *drive = from_virtio(q->virtio)->config.drive;

	drive_drain(drive);
	drive_fail_held(drive);
}

static const struct virtio_type blk_type = {
	.name = "virtio-blk",
	.id = VIRTIO_ID_BLOCK,
	.pci_class = CLASS_SCSI,
	.legacy_device_id = PCI_DEVICE,
	.config_size = CONFIG_SIZE,
	.get_config = get_config,
	.set_config = set_config,
	.started = started,
	.reset = reset,
	.reset_queue = reset_queue,
	.serve = serve,
};

static void blk_pre_save(void *opaque)
{
	struct virtio_blk *blk = opaque;
	drive_drain(blk->config.drive);
}

static int blk_post_load(void *opaque, unsigned version, struct error *err)
{
	struct virtio_blk *blk = opaque;
	blk->writeback &= 1;
	return 0;
}

static void blk_state_reset(void *opaque)
{
	struct virtio_blk *blk = opaque;
	blk->writeback = blk->config.write_cache;
}

static const struct state_desc blk_desc = {
	.name = "virtio-blk",
	.version = 1,
	.fields = blk_fields,
	.reset = blk_state_reset,
	.pre_save = blk_pre_save,
	.post_load = blk_post_load,
};

static uint64_t offered(const struct virtio_blk_config *c)
{
	uint64_t f = F_SEG_MAX | F_GEOMETRY | F_BLK_SIZE | F_TOPOLOGY;

	if (!drive_writable(c->drive))
		f |= F_RO;
	if (!c->no_config_wce)
		f |= F_CONFIG_WCE;
	/* A disk whose cache is off for good has nothing to flush (5.2.5.2). */
	if (c->write_cache || !c->no_config_wce)
		f |= F_FLUSH;
	if (c->queues > 1)
		f |= F_MQ;
	if (!c->no_discard)
		f |= F_DISCARD;
	if (!c->no_write_zeroes)
		f |= F_WRITE_ZEROES;
	return f;
}

struct virtio_blk *virtio_blk_new(const struct device_env *env, struct pci_bus *bus,
				  const struct virtio_pci_config *pci,
				  const struct virtio_blk_config *config, struct error *err)
{
	struct virtio_blk *blk = xcalloc(1, sizeof(*blk));

	blk->config = *config;
	if (!config->max_discard)
		blk->config.max_discard = VIRTIO_BLK_RANGE_MAX;
	if (!config->max_zeroes)
		blk->config.max_zeroes = VIRTIO_BLK_RANGE_MAX;
	if (!config->discard_granularity)
		blk->config.discard_granularity = config->logical_block;
	blk->writeback = config->write_cache;
	blk->states = env->states;
	ide_geometry(config->drive, &blk->geometry);
	if (virtio_init(&blk->virtio, env, bus, &blk_type, offered(config), pci, err) < 0) {
		free(blk);
		return NULL;
	}
	for (unsigned n = 0; n < config->queues; n++)
		virtio_add_queue(&blk->virtio, config->queue_size);
	state_register(env->states, &blk_desc, blk->virtio.pci.devfn, blk);
	return blk;
}

void virtio_blk_free(struct virtio_blk *blk)
{
	if (!blk)
		return;
	state_unregister(blk->states, blk);
	virtio_fini(&blk->virtio);
	while (blk->free) {
		struct blk_request *req = blk->free;
		blk->free = req->next;
		virtio_chain_free(&req->chain);
		free(req->joined);
		free(req);
	}
	free(blk);
}
