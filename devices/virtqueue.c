/* SPDX-License-Identifier: MIT */
/*
 * Split virtqueues (virtio 1.2, 2.7).
 *
 *   descriptor table  16 bytes an entry: address, length, flags, next
 *   available ring    flags, idx, size heads, used_event
 *   used ring         flags, idx, size pairs of head and bytes written, avail_event
 *
 * The rings are looked up in host memory once, when the queue is enabled, and must lie in RAM in
 * one piece each; descriptors are copied before they are looked at, so the driver cannot change
 * them between check and use. Every address of a chain is found through mem_dma_map(), which gives
 * only RAM. A chain ends after VIRTQUEUE_SIZE_MAX descriptors, whatever it says.
 *
 * Notifications in both directions are held back by the flags of the rings, or by the event indices
 * where VIRTIO_F_EVENT_IDX was agreed on (2.7.7, 2.7.10).
 *
 * Left out: packed virtqueues (2.8): the driver's ring and ours are in memory of one host, so their
 * gain, fewer cache lines moved, is small (docs/devices.md has the figure); in-order completion;
 * notification data.
 */
#include "core/memory.h"
#include "core/state.h"
#include "devices/virtio.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include <stdlib.h>

enum desc_flags { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
enum { AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };
/* Offsets in 16-bit words of the available ring and in bytes of the used ring. */
enum { AVAIL_FLAGS = 0, AVAIL_IDX = 1, AVAIL_RING = 2 };
enum { USED_FLAGS = 0, USED_IDX = 2, USED_RING = 4, USED_ENTRY = 8 };
enum { LEGACY_ALIGN = 4096, FIRST_CAPACITY = 8 };

static const struct state_field queue_fields[] = {
	STATE_UINT(virtqueue, size),
	STATE_UINT(virtqueue, vector),
	STATE_UINT(virtqueue, enabled),
	STATE_UINT(virtqueue, desc),
	STATE_UINT(virtqueue, avail),
	STATE_UINT(virtqueue, used),
	STATE_UINT(virtqueue, last_avail),
	STATE_UINT(virtqueue, used_idx),
	STATE_UINT(virtqueue, signalled),
	STATE_UINT(virtqueue, signalled_valid),
	STATE_END,
};

static size_t desc_bytes(const struct virtqueue *q)
{
	return sizeof(struct vring_desc) * q->size;
}

static size_t avail_bytes(const struct virtqueue *q)
{
	return 2u * (AVAIL_RING + q->size + 1u);
}

static size_t used_bytes(const struct virtqueue *q)
{
	return USED_RING + (size_t)USED_ENTRY * q->size + 2;
}

/* All of [gpa, gpa + len) as one piece of host memory, or NULL. */
static void *map_whole(const struct virtqueue *q, uint64_t gpa, size_t len, bool write)
{
	size_t have = len;
	void *host = mem_dma_map(q->virtio->env->mem, gpa, &have, write);
	return have == len ? host : NULL;
}

/* ---- life of a queue ---- */

void virtqueue_reset(struct virtqueue *q)
{
	loop_call_cancel(q->virtio->env->loop, &q->call);
	timer_cancel(&q->later);
	q->size = q->max_size;
	q->vector = MSIX_NO_VECTOR;
	q->enabled = false;
	q->desc = q->avail = q->used = 0;
	q->last_avail = q->used_idx = q->signalled = 0;
	q->signalled_valid = false;
	q->filled = 0;
	q->quiet = false;
	q->taken = 0;
	q->generation++;
	q->host_desc = NULL;
	q->host_avail = NULL;
	q->host_used = NULL;
}

static void state_reset(void *opaque)
{
	virtqueue_reset(opaque);
}

void virtqueue_enable(struct virtqueue *q)
{
	struct virtio *v = q->virtio;

	q->host_desc = map_whole(q, q->desc, desc_bytes(q), false);
	q->host_avail = map_whole(q, q->avail, avail_bytes(q), false);
	q->host_used = map_whole(q, q->used, used_bytes(q), true);
	if (!q->host_desc || !q->host_avail || !q->host_used || q->desc % 16 || q->avail % 2 ||
	    q->used % 4) {
		q->host_desc = NULL;
		virtio_broken(v, "queue %u: its rings at %llx, %llx, %llx are not in RAM", q->index,
			      (unsigned long long)q->desc, (unsigned long long)q->avail,
			      (unsigned long long)q->used);
		return;
	}
	q->enabled = true;
	q->signalled_valid = false;
}

void virtqueue_set_legacy_address(struct virtqueue *q, uint64_t base)
{
	/* 2.7.2: the used ring begins at the next page. */
	q->desc = base;
	q->avail = base + desc_bytes(q);
	q->used = round_up(q->avail + avail_bytes(q), LEGACY_ALIGN);
}

static int post_load(void *opaque, unsigned version, struct error *err)
{
	struct virtqueue *q = opaque;
	bool enabled = q->enabled;

	if (q->size > q->max_size || !is_power_of_2(q->size))
		q->size = q->max_size;
	if (q->vector >= q->virtio->msix.vectors)
		q->vector = MSIX_NO_VECTOR;
	q->enabled = false;
	q->host_desc = NULL;
	if (enabled)
		virtqueue_enable(q);
	/* What was taken and not returned was finished before the state was saved. A notification
	 * that was on its way then is not in the state: look once the machine runs. */
	timer_set(&q->later, 0);
	virtio_update_doorbells(q->virtio);
	return 0;
}

static const struct state_desc queue_desc = {
	.name = "virtqueue",
	.version = 1,
	.fields = queue_fields,
	.reset = state_reset,
	.post_load = post_load,
};

bool virtqueue_ready(const struct virtqueue *q)
{
	return q->enabled && q->host_desc && virtio_running(q->virtio);
}

void virtqueue_serve(struct virtqueue *q)
{
	if (!clock_running(q->virtio->env->clock)) {
		/* A stopped machine's memory stays as it is; the timer fires when it goes on. */
		timer_set(&q->later, 0);
		return;
	}
	if (virtqueue_ready(q))
		q->virtio->type->serve(q);
}

static void serve(void *opaque)
{
	virtqueue_serve(opaque);
}

void virtqueue_kick(struct virtqueue *q)
{
	if (virtqueue_ready(q))
		loop_call_schedule(q->virtio->env->loop, &q->call);
}

void virtqueue_init(struct virtqueue *q, struct virtio *v, unsigned index, unsigned size)
{
	*q = (struct virtqueue){.virtio = v, .index = (uint16_t)index, .max_size = (uint16_t)size};
	loop_call_init(&q->call, serve, q);
	timer_init(&q->later, v->env->clock, serve, q);
	virtqueue_reset(q);
	state_register(v->env->states, &queue_desc, (int)(v->pci.devfn * 256u + index), q);
}

void virtqueue_fini(struct virtqueue *q)
{
	virtqueue_reset(q);
	virtqueue_drop_doorbells(q);
	state_unregister(q->virtio->env->states, q);
}

/* ---- rings ---- */

static uint16_t load_index(const uint16_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static bool event_idx(const struct virtqueue *q)
{
	return virtio_has(q->virtio, VIRTIO_F_EVENT_IDX);
}

/* The two words behind the rings (2.7.7, 2.7.10). */
static uint16_t *used_event(const struct virtqueue *q)
{
	return q->host_avail + AVAIL_RING + q->size;
}

static uint16_t *avail_event(const struct virtqueue *q)
{
	return (uint16_t *)(q->host_used + USED_RING + (size_t)USED_ENTRY * q->size);
}

bool virtqueue_empty(const struct virtqueue *q)
{
	return !virtqueue_ready(q) || load_index(q->host_avail + AVAIL_IDX) == q->last_avail;
}

/* The driver notifies when its index passes this one. */
static void announce_avail_event(struct virtqueue *q, uint16_t index)
{
	__atomic_store_n(avail_event(q), index, __ATOMIC_RELAXED);
	/* The index is read after the driver can see that it must notify. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void virtqueue_want_notify(struct virtqueue *q, bool on)
{
	if (!virtqueue_ready(q))
		return;
	q->quiet = !on;
	if (event_idx(q)) {
		/* Its own index, not ours: what it put in before and we left there will not do. */
		if (on)
			announce_avail_event(q, load_index(q->host_avail + AVAIL_IDX));
		return;
	}
	__atomic_store_n((uint16_t *)(q->host_used + USED_FLAGS), on ? 0 : USED_NO_NOTIFY,
			 __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* ---- chains ---- */

void virtio_chain_free(struct virtio_chain *chain)
{
	free(chain->iov);
	free(chain->range);
	*chain = (struct virtio_chain){0};
}

static bool add_piece(struct virtio_chain *chain, void *host, size_t len, uint64_t gpa, bool write)
{
	unsigned n = chain->out + chain->in;

	if (n == VIRTIO_SEGMENTS_MAX)
		return false;
	if (n == chain->capacity) {
		chain->capacity = n ? n * 2 : FIRST_CAPACITY;
		chain->iov = xrealloc(chain->iov, chain->capacity * sizeof(*chain->iov));
		chain->range = xrealloc(chain->range, chain->capacity * sizeof(*chain->range));
	}
	chain->iov[n] = (struct iovec){.iov_base = host, .iov_len = len};
	if (write) {
		chain->range[chain->in++] = (struct virtio_range){.gpa = gpa, .len = len};
		chain->in_len += len;
	} else {
		chain->out++;
		chain->out_len += len;
	}
	return true;
}

/* One descriptor's buffer, which may be in several pieces of host memory. */
static bool add_buffer(struct virtqueue *q, struct virtio_chain *chain, const struct vring_desc *d)
{
	struct virtio *v = q->virtio;
	bool write = d->flags & DESC_WRITE;
	uint64_t gpa = d->addr;
	size_t left = d->len;

	if (!write && chain->in) {
		virtio_broken(v, "queue %u: a readable buffer follows a writable one", q->index);
		return false;
	}
	while (left) {
		size_t part = left;
		void *host = mem_dma_map(v->env->mem, gpa, &part, write);
		if (!host || part == 0) {
			virtio_broken(v, "queue %u: a buffer at %llx is not in RAM", q->index,
				      (unsigned long long)gpa);
			return false;
		}
		if (!add_piece(chain, host, part, gpa, write)) {
			virtio_broken(v, "queue %u: a chain has too many pieces", q->index);
			return false;
		}
		gpa += part;
		left -= part;
	}
	return true;
}

/* Goes from the chain to the table that its last descriptor names. */
static const struct vring_desc *indirect_table(struct virtqueue *q, const struct vring_desc *d,
					       unsigned *count)
{
	struct virtio *v = q->virtio;
	const struct vring_desc *table = NULL;

	if (!virtio_has(v, VIRTIO_F_INDIRECT_DESC) || (d->flags & DESC_NEXT) || d->len == 0 ||
	    d->len % sizeof(*d) || d->len / sizeof(*d) > UINT16_MAX ||
	    !(table = map_whole(q, d->addr, d->len, false)))
		virtio_broken(v, "queue %u: an indirect table of %u bytes at %llx is not valid",
			      q->index, d->len, (unsigned long long)d->addr);
	else
		*count = d->len / sizeof(*d);
	return table;
}

static bool walk(struct virtqueue *q, struct virtio_chain *chain, unsigned i)
{
	const struct vring_desc *table = q->host_desc;
	unsigned count = q->size, seen = 0;
	bool indirect = false;

	for (;;) {
		struct vring_desc d;
		if (i >= count || seen++ == VIRTQUEUE_SIZE_MAX) {
			virtio_broken(q->virtio,
				      i >= count ? "queue %u: a chain leaves its table"
						 : "queue %u: a chain does not end",
				      q->index);
			return false;
		}
		memcpy(&d, &table[i], sizeof(d));
		/* The driver may change it now; the compiler must not look there again. */
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		if (d.flags & DESC_INDIRECT) {
			if (indirect) {
				virtio_broken(q->virtio, "queue %u: an indirect table in another",
					      q->index);
				return false;
			}
			table = indirect_table(q, &d, &count);
			if (!table)
				return false;
			indirect = true;
			i = 0;
			continue;
		}
		if (!add_buffer(q, chain, &d))
			return false;
		if (!(d.flags & DESC_NEXT))
			return true;
		i = d.next;
	}
}

int virtqueue_pop(struct virtqueue *q, struct virtio_chain *chain)
{
	if (!virtqueue_ready(q))
		return 0;
	uint16_t waiting = (uint16_t)(load_index(q->host_avail + AVAIL_IDX) - q->last_avail);
	if (waiting == 0)
		return 0;
	if (waiting > q->size) {
		virtio_broken(q->virtio, "queue %u: its index jumped by %u", q->index, waiting);
		return -1;
	}
	/* Chains that we hold came from the ring, and each has a head of its own. */
	if (q->taken >= q->size) {
		virtio_broken(q->virtio, "queue %u: more requests than entries", q->index);
		return -1;
	}
	uint16_t head = q->host_avail[AVAIL_RING + q->last_avail % q->size];
	chain->queue = q;
	chain->generation = q->generation;
	chain->head = head;
	chain->out = chain->in = 0;
	chain->out_len = chain->in_len = 0;
	if (!walk(q, chain, head))
		return -1;
	q->last_avail++;
	q->taken++;
	if (event_idx(q) && !q->quiet)
		announce_avail_event(q, q->last_avail);
	return 1;
}

void virtqueue_unpop(struct virtqueue *q, unsigned count)
{
	q->last_avail = (uint16_t)(q->last_avail - count);
	q->taken -= count;
}

/* Tells the engine which guest memory was written behind its back. */
static void wrote(struct virtqueue *q, const struct virtio_chain *chain, size_t written)
{
	struct memory *mem = q->virtio->env->mem;

	for (unsigned n = 0; n < chain->in && written; n++) {
		const struct virtio_range *r = &chain->range[n];
		size_t part = r->len < written ? r->len : written;
		mem_dma_wrote(mem, r->gpa, part);
		written -= part;
	}
}

void virtqueue_fill(struct virtqueue *q, struct virtio_chain *chain, size_t written)
{
	/* In a system reset the fields are cleared before the device ends what is in flight. */
	if (chain->generation != q->generation || !q->host_used || !q->enabled)
		return;
	unsigned slot = (uint16_t)(q->used_idx + q->filled) % q->size;
	uint8_t *entry = q->host_used + USED_RING + (size_t)slot * USED_ENTRY;
	wrote(q, chain, written);
	store_le32(entry, chain->head);
	store_le32(entry + 4, written < UINT32_MAX ? (uint32_t)written : UINT32_MAX);
	mem_dma_wrote(q->virtio->env->mem, q->used + (uint64_t)(entry - q->host_used), USED_ENTRY);
	q->filled++;
	q->taken--;
}

void virtqueue_flush(struct virtqueue *q)
{
	if (!q->filled || !q->host_used)
		return;
	uint16_t old = q->used_idx, new = (uint16_t)(old + q->filled);
	q->used_idx = new;
	q->filled = 0;
	__atomic_store_n((uint16_t *)(q->host_used + USED_IDX), new, __ATOMIC_RELEASE);
	mem_dma_wrote(q->virtio->env->mem, q->used + USED_IDX, 2);
	/* The index has gone once round since the last interrupt: nothing can be told from it. */
	if ((uint16_t)(new - q->signalled) < (uint16_t)(new - old))
		q->signalled_valid = false;
}

void virtqueue_push(struct virtqueue *q, struct virtio_chain *chain, size_t written)
{
	virtqueue_fill(q, chain, written);
	virtqueue_flush(q);
}

static bool wants_interrupt(struct virtqueue *q)
{
	/* What we have put into the used ring is seen before the driver's wish is read. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!event_idx(q))
		return !(load_index(q->host_avail + AVAIL_FLAGS) & AVAIL_NO_INTERRUPT);
	uint16_t old = q->signalled, new = q->used_idx;
	bool valid = q->signalled_valid;
	q->signalled = new;
	q->signalled_valid = true;
	/* 2.7.7.2: has the index passed the event? */
	return !valid || (uint16_t)(new - load_index(used_event(q)) - 1) < (uint16_t)(new - old);
}

void virtqueue_signal(struct virtqueue *q)
{
	if (virtqueue_ready(q) && wants_interrupt(q))
		virtio_interrupt_queue(q->virtio, q);
}

/* ---- contents ---- */

/* Moves at most `len` bytes between buf and the front of the pieces, and cuts them off. */
static size_t transfer(struct iovec *iov, unsigned count, uint8_t *buf, size_t len, bool write)
{
	size_t done = 0;

	for (unsigned n = 0; n < count && done < len; n++) {
		size_t part = iov[n].iov_len < len - done ? iov[n].iov_len : len - done;
		if (part == 0)
			continue;
		if (write)
			memcpy(iov[n].iov_base, buf + done, part);
		else
			memcpy(buf + done, iov[n].iov_base, part);
		iov[n].iov_base = (uint8_t *)iov[n].iov_base + part;
		iov[n].iov_len -= part;
		done += part;
	}
	return done;
}

size_t virtio_chain_read(struct virtio_chain *chain, void *buf, size_t len)
{
	return transfer(chain->iov, chain->out, buf, len, false);
}

size_t virtio_chain_write(struct virtio_chain *chain, const void *buf, size_t len)
{
	return transfer(chain->iov + chain->out, chain->in, (uint8_t *)buf, len, true);
}
