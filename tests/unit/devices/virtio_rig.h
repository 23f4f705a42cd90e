/* SPDX-License-Identifier: MIT */
/*
 * A guest's driver for virtio cards, for tests: finds the card's registers, sets it up through the
 * legacy or the modern interface, puts chains into rings and looks at what comes back.
 */
#ifndef TESTS_UNIT_DEVICES_VIRTIO_RIG_H
#define TESTS_UNIT_DEVICES_VIRTIO_RIG_H

#include "devices/virtio.h"
#include "tests/unit/devices/storage_rig.h"

enum {
	DRV_IO = 0xC000,
	DRV_MODERN = 0xE0000000u,
	DRV_MSIX = 0xE0010000u,
	DRV_RINGS = 0x100000, /* 64 KiB for each queue */
	DRV_DATA = 0x300000,
	DRV_MSI_ADDRESS = 0xFEE00000u,
	DRV_QUEUES = 8,
};

struct drv_queue {
	unsigned index, size;
	uint64_t desc, avail, used;
	uint16_t next_desc, avail_idx, used_seen;
};

struct drv {
	struct rig *r;
	struct virtio *v;
	unsigned devfn;
	bool modern;
	uint64_t features;
	struct drv_queue q[DRV_QUEUES];
	/* what the card sent */
	struct msi_controller msi;
	unsigned messages;
	uint32_t last_message;
};

static inline void drv_message(void *opaque, uint64_t address, uint32_t data)
{
	struct drv *d = opaque;
	assert_int_equal(address, DRV_MSI_ADDRESS);
	d->messages++;
	d->last_message = data;
}

/* Before the card is made: its messages come here. */
static inline void drv_init(struct drv *d, struct rig *r)
{
	*d = (struct drv){.r = r, .msi = {.send = drv_message}};
	d->msi.opaque = d;
	r->env.msi = &d->msi;
}

static inline void put(struct drv *d, uint64_t at, const void *buf, size_t len)
{
	assert_true(mem_write(d->r->env.mem, at, buf, len));
}

static inline void get(struct drv *d, uint64_t at, void *buf, size_t len)
{
	assert_true(mem_read(d->r->env.mem, at, buf, len));
}

static inline uint16_t get16(struct drv *d, uint64_t at)
{
	uint8_t b[2];
	get(d, at, b, 2);
	return load_le16(b);
}

static inline void put16(struct drv *d, uint64_t at, uint16_t value)
{
	put(d, at, &value, 2);
}

static inline uint64_t common(struct drv *d, unsigned offset, unsigned size)
{
	return mem_mmio_read(d->r->env.mem, DRV_MODERN + offset, size);
}

static inline void common_set(struct drv *d, unsigned offset, unsigned size, uint64_t value)
{
	mem_mmio_write(d->r->env.mem, DRV_MODERN + offset, size, value);
}

static inline uint8_t drv_status(struct drv *d)
{
	return d->modern ? (uint8_t)common(d, 20, 1) : (uint8_t)in(d->r, DRV_IO + 18, 1);
}

static inline void drv_set_status(struct drv *d, uint8_t status)
{
	if (d->modern)
		common_set(d, 20, 1, status);
	else
		out(d->r, DRV_IO + 18, 1, status);
}

static inline uint8_t drv_isr(struct drv *d)
{
	return d->modern ? (uint8_t)common(d, 0x1000, 1) : (uint8_t)in(d->r, DRV_IO + 19, 1);
}

/* A byte of the device's configuration. */
static inline uint8_t drv_config(struct drv *d, unsigned offset)
{
	unsigned start = msix_enabled(&d->v->msix) ? 24 : 20;
	return d->modern ? (uint8_t)common(d, 0x2000 + offset, 1)
			 : (uint8_t)in(d->r, (uint16_t)(DRV_IO + start + offset), 1);
}

static inline void drv_set_config(struct drv *d, unsigned offset, uint8_t value)
{
	unsigned start = msix_enabled(&d->v->msix) ? 24 : 20;
	if (d->modern)
		common_set(d, 0x2000 + offset, 1, value);
	else
		out(d->r, (uint16_t)(DRV_IO + start + offset), 1, value);
}

static inline void drv_queue_setup(struct drv *d, unsigned n)
{
	struct drv_queue *q = &d->q[n];
	uint64_t base = DRV_RINGS + n * 0x10000u;

	*q = (struct drv_queue){.index = n, .desc = base};
	uint8_t zero[0x1000] = {0};
	for (unsigned i = 0; i < 16; i++)
		put(d, base + i * sizeof(zero), zero, sizeof(zero));
	if (d->modern) {
		common_set(d, 22, 2, n);
		q->size = (unsigned)common(d, 24, 2);
		q->avail = base + 0x8000;
		q->used = base + 0xA000;
		common_set(d, 32, 4, (uint32_t)q->desc);
		common_set(d, 36, 4, 0);
		common_set(d, 40, 4, (uint32_t)q->avail);
		common_set(d, 44, 4, 0);
		common_set(d, 48, 4, (uint32_t)q->used);
		common_set(d, 52, 4, 0);
		common_set(d, 28, 2, 1);
		return;
	}
	out(d->r, DRV_IO + 14, 2, n);
	q->size = in(d->r, DRV_IO + 12, 2);
	q->avail = base + 16 * q->size;
	q->used = round_up(q->avail + 6 + 2 * q->size, 4096);
	out(d->r, DRV_IO + 8, 4, (uint32_t)(base >> 12));
}

/* What firmware and driver do until DRIVER_OK, with `queues` queues. `wanted` features are chosen as
 * far as they are offered. */
static inline void drv_start(struct drv *d, struct virtio *v, bool modern, uint64_t wanted,
			     unsigned queues)
{
	d->v = v;
	d->modern = modern;
	d->devfn = v->pci.devfn;
	config_out(d->r, d->devfn, 0x10, 4, DRV_IO);
	config_out(d->r, d->devfn, 0x14, 4, DRV_MSIX);
	config_out(d->r, d->devfn, 0x20, 4, DRV_MODERN);
	config_out(d->r, d->devfn, 0x04, 2, 7);
	drv_set_status(d, 0);
	drv_set_status(d, 1);
	drv_set_status(d, 3);
	if (modern) {
		uint64_t offered = 0;
		for (unsigned i = 0; i < 2; i++) {
			common_set(d, 0, 4, i);
			offered |= common(d, 4, 4) << 32 * i;
		}
		assert_true(offered & VIRTIO_F_VERSION_1);
		d->features = offered & (wanted | VIRTIO_F_VERSION_1);
		for (unsigned i = 0; i < 2; i++) {
			common_set(d, 8, 4, i);
			common_set(d, 12, 4, (uint32_t)(d->features >> 32 * i));
		}
		drv_set_status(d, 3 | 8);
		assert_int_equal(drv_status(d), 3 | 8);
	} else {
		d->features = in(d->r, DRV_IO, 4) & wanted;
		out(d->r, DRV_IO + 4, 4, (uint32_t)d->features);
	}
	for (unsigned n = 0; n < queues; n++)
		drv_queue_setup(d, n);
	drv_set_status(d, modern ? 15 : 7);
}

/* MSI-X on, vector n + 1 for queue n, 0 for the configuration; the message of vector v is 0x40 + v. */
static inline void drv_use_msix(struct drv *d, unsigned queues)
{
	unsigned cap = config_in(d->r, d->devfn, 0x34, 1);
	while (cap && config_in(d->r, d->devfn, cap, 1) != 0x11)
		cap = config_in(d->r, d->devfn, cap + 1, 1);
	assert_true(cap);
	for (unsigned v = 0; v <= queues; v++) {
		uint64_t entry = DRV_MSIX + 16 * v;
		mem_mmio_write(d->r->env.mem, entry, 4, DRV_MSI_ADDRESS);
		mem_mmio_write(d->r->env.mem, entry + 4, 4, 0);
		mem_mmio_write(d->r->env.mem, entry + 8, 4, 0x40 + v);
		mem_mmio_write(d->r->env.mem, entry + 12, 4, 0);
	}
	config_out(d->r, d->devfn, cap + 2, 2, 0x8000);
	for (unsigned n = 0; n < queues; n++) {
		if (d->modern) {
			common_set(d, 22, 2, n);
			common_set(d, 26, 2, n + 1);
		} else {
			out(d->r, DRV_IO + 14, 2, n);
			out(d->r, DRV_IO + 22, 2, n + 1);
		}
	}
	if (d->modern)
		common_set(d, 16, 2, 0);
	else
		out(d->r, DRV_IO + 20, 2, 0);
}

/* One piece of a chain. */
struct piece {
	uint64_t at;
	uint32_t len;
	bool write;
};

static inline void drv_desc(struct drv *d, uint64_t at, uint64_t addr, uint32_t len, uint16_t flags,
			    uint16_t next)
{
	uint8_t b[16];
	store_le64(b, addr);
	store_le32(b + 8, len);
	store_le16(b + 12, flags);
	store_le16(b + 14, next);
	put(d, at, b, sizeof(b));
}

/* Makes a head available; the device is not notified. */
static inline void drv_offer(struct drv *d, unsigned queue, uint16_t head)
{
	struct drv_queue *q = &d->q[queue];
	put16(d, q->avail + 4 + 2 * (q->avail_idx % q->size), head);
	put16(d, q->avail + 2, ++q->avail_idx);
}

/* Puts a chain into the ring and returns its head. */
static inline uint16_t drv_add(struct drv *d, unsigned queue, const struct piece *p, unsigned count)
{
	struct drv_queue *q = &d->q[queue];
	uint16_t head = q->next_desc;
	for (unsigned i = 0; i < count; i++) {
		uint16_t at = q->next_desc, next = (uint16_t)((at + 1) % q->size);
		drv_desc(d, q->desc + 16u * at, p[i].at, p[i].len,
			 (uint16_t)((i + 1 < count ? 1 : 0) | (p[i].write ? 2 : 0)), next);
		q->next_desc = next;
	}
	drv_offer(d, queue, head);
	return head;
}

/* The same through an indirect table at `table`. */
static inline uint16_t drv_add_indirect(struct drv *d, unsigned queue, uint64_t table,
					const struct piece *p, unsigned count)
{
	struct drv_queue *q = &d->q[queue];
	uint16_t head = q->next_desc;
	for (unsigned i = 0; i < count; i++)
		drv_desc(d, table + 16u * i, p[i].at, p[i].len,
			 (uint16_t)((i + 1 < count ? 1 : 0) | (p[i].write ? 2 : 0)),
			 (uint16_t)(i + 1));
	drv_desc(d, q->desc + 16u * head, table, 16 * count, 4, 0);
	q->next_desc = (uint16_t)((head + 1) % q->size);
	drv_offer(d, queue, head);
	return head;
}

static inline void drv_kick(struct drv *d, unsigned queue)
{
	if (d->modern)
		common_set(d, 0x3000 + 4 * queue, 2, queue);
	else
		out(d->r, DRV_IO + 16, 2, queue);
}

static inline unsigned drv_returned(struct drv *d, unsigned queue)
{
	struct drv_queue *q = &d->q[queue];
	return (uint16_t)(get16(d, q->used + 2) - q->used_seen);
}

/* Waits for `count` chains to come back; *head and *len of the last of them. */
static inline void drv_wait(struct drv *d, unsigned queue, unsigned count, uint16_t *head,
			    uint32_t *len)
{
	struct drv_queue *q = &d->q[queue];
	for (unsigned turn = 0; drv_returned(d, queue) < count; turn++) {
		assert_true(turn < 10000);
		rig_turn(d->r);
	}
	q->used_seen = (uint16_t)(q->used_seen + count);
	uint8_t entry[8];
	get(d, q->used + 4 + 8u * ((q->used_seen - 1u) % q->size), entry, sizeof(entry));
	if (head)
		*head = load_le16(entry);
	if (len)
		*len = load_le32(entry + 4);
}

/* ---- what the engine is told of writes by the card ---- */

struct drv_writes {
	struct drv *d;
	uint8_t before[RIG_RAM];
	bool told[RIG_RAM];
};

static inline void drv_told(void *opaque, const uint8_t *host, size_t len)
{
	struct drv_writes *w = opaque;
	size_t at = (size_t)(host - w->d->r->ram->host);

	assert_true(at <= RIG_RAM && len <= RIG_RAM - at);
	memset(w->told + at, true, len);
}

static inline struct drv_writes *drv_watch(struct drv *d)
{
	struct drv_writes *w = xcalloc(1, sizeof(*w));

	w->d = d;
	memcpy(w->before, d->r->ram->host, RIG_RAM);
	memory_set_write_hook(d->r->env.mem, drv_told, w);
	return w;
}

/* Every byte that changed since was told of, but for the card's wishes about notifications, which lie
 * in the used rings of the first `queues`. How many changed. */
static inline unsigned drv_check_writes(struct drv_writes *w, unsigned queues)
{
	struct drv *d = w->d;
	unsigned changed = 0;

	memory_set_write_hook(d->r->env.mem, NULL, NULL);
	for (unsigned n = 0; n < queues; n++) {
		const struct drv_queue *q = &d->q[n];
		memset(w->told + q->used, true, 2);
		memset(w->told + q->used + 4 + 8 * q->size, true, 2);
	}
	for (size_t at = 0; at < RIG_RAM; at++)
		if (d->r->ram->host[at] != w->before[at]) {
			changed++;
			if (!w->told[at])
				fail_msg("a write at %zx was not told", at);
		}
	free(w);
	return changed;
}

/* Some turns of the loop in which nothing is expected to happen. */
static inline void drv_idle(struct drv *d)
{
	for (unsigned n = 0; n < 3; n++)
		rig_turn(d->r);
}

#endif
