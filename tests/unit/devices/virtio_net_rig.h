/* SPDX-License-Identifier: MIT */
/* A virtio network card on a wire of the test's own: what the card sends is kept, what the wire
 * sends is looked for in the driver's buffers. */
#ifndef TESTS_UNIT_DEVICES_VIRTIO_NET_RIG_H
#define TESTS_UNIT_DEVICES_VIRTIO_NET_RIG_H

#include "devices/virtio_net.h"
#include "virtio_rig.h"
#include <string.h>

enum {
	NET_DRIVER_BUFFERS = DRV_DATA,
	NET_COMMAND = DRV_DATA + 0x80000, /* a command, behind it its answer */
	NET_ANSWER = NET_COMMAND + 0x2000,
	NET_TX = DRV_DATA + 0x90000,
	NET_FRAMES_KEPT = 64,
	NET_QUEUE_SIZE = 64,
	NET_UNTOUCHED = 0xEE,
	NET_HDR = 12,
	NET_HDR_LEGACY = 10,
};

static const uint8_t card_mac[6] = {0x52, 0x54, 0, 0x11, 0x22, 0x33};

struct net_fixture {
	struct rig *r;
	struct drv d;
	struct net *net;
	struct net_port *wire, *port;
	struct virtio_net *card;
	unsigned ctrl;  /* index of the control queue */
	uint32_t rx_at; /* where the next receive buffer lies */

	/* the wire */
	unsigned offloads, hdr_len, peer_offloads, peer_queues, counted;
	bool refuse_hdr, full, only_count;
	unsigned frames;
	struct {
		uint8_t *data;
		size_t len;
		unsigned queue;
	} frame[NET_FRAMES_KEPT];
};

static inline bool wire_receive(void *opaque, unsigned queue, const struct iovec *iov, int count,
				size_t len)
{
	struct net_fixture *f = opaque;

	if (f->full)
		return false;
	if (f->only_count) {
		f->counted++;
		return true;
	}
	assert_true(f->frames < NET_FRAMES_KEPT);
	uint8_t *data = xmalloc(len);
	assert_int_equal(net_iov_copy(data, len, iov, count, 0), len);
	f->frame[f->frames].data = data;
	f->frame[f->frames].queue = queue;
	f->frame[f->frames++].len = len;
	return true;
}

static inline unsigned wire_offloads(void *opaque)
{
	return ((struct net_fixture *)opaque)->offloads;
}

static inline int wire_set_hdr(void *opaque, unsigned len)
{
	struct net_fixture *f = opaque;
	if (f->refuse_hdr && len)
		return -ENOTSUP;
	f->hdr_len = len;
	return 0;
}

static inline void wire_set_offload(void *opaque, unsigned offloads)
{
	((struct net_fixture *)opaque)->peer_offloads = offloads;
}

static inline void wire_set_queues(void *opaque, unsigned queues)
{
	((struct net_fixture *)opaque)->peer_queues = queues;
}

static const struct net_port_ops wire_ops = {
	.receive = wire_receive,
	.offloads = wire_offloads,
	.set_vnet_hdr = wire_set_hdr,
	.set_offload = wire_set_offload,
	.set_queues = wire_set_queues,
};

/* A card of `pairs` queue pairs on a wire with these offloads; no driver yet. */
static inline struct net_fixture *net_new_card(unsigned pairs, unsigned offloads, uint64_t without)
{
	struct net_fixture *f = xcalloc(1, sizeof(*f));
	struct error err = ERROR_INIT;

	f->r = rig_new(true);
	drv_init(&f->d, f->r);
	f->offloads = offloads;
	f->net = net_new(f->r->env.loop, f->r->env.clock);
	f->wire = net_port_new(f->net, NET_BACKEND, "wire", "test", pairs, &wire_ops, f, &err);
	assert_non_null(f->wire);
	struct virtio_net_config config = {
		.nic = {.net = f->net, .id = "card", .peer = f->wire},
		.pairs = pairs,
		.rx_size = NET_QUEUE_SIZE,
		.tx_size = NET_QUEUE_SIZE,
		.mtu = 1400,
		.without = without,
	};
	memcpy(config.nic.mac, card_mac, sizeof(card_mac));
	struct virtio_pci_config pci = {.name = "net", .devfn = -1, .vectors = 2 * pairs + 2};
	f->card = virtio_net_new(&f->r->env, f->r->pci, &pci, &config, &err);
	assert_non_null(f->card);
	f->port = net_find(f->net, "card");
	return f;
}

/* A driver that chooses these features, as far as they are offered. */
static inline void net_start(struct net_fixture *f, bool modern, uint64_t features)
{
	struct virtio *v = container_of(virtio_net_pci(f->card), struct virtio, pci);
	unsigned pairs = net_port_queues(f->wire);

	if (!(features & VIRTIO_NET_F_MQ))
		pairs = 1;
	f->ctrl = 2 * pairs;
	drv_start(&f->d, v, modern, features,
		  2 * pairs + (features & VIRTIO_NET_F_CTRL_VQ ? 1 : 0));
	f->rx_at = NET_DRIVER_BUFFERS;
}

static inline void net_forget_frames(struct net_fixture *f)
{
	while (f->frames)
		free(f->frame[--f->frames].data);
}

static inline void net_stop(struct net_fixture *f)
{
	net_forget_frames(f);
	virtio_net_free(f->card);
	net_free(f->net);
	rig_free(f->r);
	free(f);
}

static inline void net_fill_memory(struct net_fixture *f, uint64_t at, uint8_t value, size_t len)
{
	uint8_t *buf = xmalloc(len);
	memset(buf, value, len);
	put(&f->d, at, buf, len);
	free(buf);
}

/* A receive buffer of `len` bytes, and where it lies; the driver notifies. */
static inline uint64_t net_post(struct net_fixture *f, unsigned pair, uint32_t len)
{
	uint64_t at = f->rx_at;

	if (len)
		net_fill_memory(f, at, NET_UNTOUCHED, len);
	drv_add(&f->d, 2 * pair, &(struct piece){at, len, true}, 1);
	drv_kick(&f->d, 2 * pair);
	f->rx_at += len;
	return at;
}

/* The n-th used entry that the test has not yet passed. */
static inline uint32_t net_used_len(struct net_fixture *f, unsigned queue, unsigned n)
{
	struct drv_queue *q = &f->d.q[queue];
	uint8_t entry[8];
	get(&f->d, q->used + 4 + 8u * ((q->used_seen + n) % q->size), entry, sizeof(entry));
	return load_le32(entry + 4);
}

/* One control command whose bytes are in one piece; its answer. */
static inline uint8_t net_command(struct net_fixture *f, uint8_t class, uint8_t command,
				  const void *data, size_t len)
{
	uint8_t bytes[0x2000] = {class, command}, ack = NET_UNTOUCHED;
	uint32_t written;

	assert_true(len + 2 <= sizeof(bytes));
	if (len)
		memcpy(bytes + 2, data, len);
	put(&f->d, NET_COMMAND, bytes, len + 2);
	put(&f->d, NET_ANSWER, &ack, 1);
	drv_add(&f->d, f->ctrl,
		(struct piece[]){{NET_COMMAND, (uint32_t)len + 2, false}, {NET_ANSWER, 1, true}},
		2);
	drv_kick(&f->d, f->ctrl);
	drv_wait(&f->d, f->ctrl, 1, NULL, &written);
	assert_int_equal(written, 1);
	get(&f->d, NET_ANSWER, &ack, 1);
	return ack;
}

#endif
