/* SPDX-License-Identifier: MIT */
/*
 * virtio-net's control queue and receive filters (virtio 1.2, 5.1.6.5).
 *
 *   command  readable: class (1 byte), command (1), data; writable: ack (1)
 *   classes  0 receive mode, 1 MAC addresses, 2 VLAN filter, 3 announcement, 4 queues, 5 offloads
 *
 * A filter table that does not fit makes the card take all frames of that kind, as the
 * specification allows; the guest filters again anyway.
 */
#include "devices/virtio_net_internal.h"
#include "lib/bytes.h"
#include "lib/log.h"

enum { ACK_OK = 0, ACK_ERR = 1 };
enum {
	CLASS_RX = 0,
	CLASS_MAC = 1,
	CLASS_VLAN = 2,
	CLASS_ANNOUNCE = 3,
	CLASS_MQ = 4,
	CLASS_OFFLOADS = 5
};
enum {
	RX_PROMISC = 0,
	RX_ALLMULTI = 1,
	RX_ALLUNI = 2,
	RX_NOMULTI = 3,
	RX_NOUNI = 4,
	RX_NOBCAST = 5
};
enum { MAC_TABLE_SET = 0, MAC_ADDR_SET = 1 };
enum { VLAN_ADD = 0, VLAN_DEL = 1 };
enum { ANNOUNCE_ACK = 0, MQ_PAIRS_SET = 0, OFFLOADS_SET = 0 };
enum { TABLE_ENTRIES_MAX = 65536 };
enum { ETH_HEADER = 14, TAGGED_HEADER = 18, ETH_TYPE = 12, TYPE_VLAN = 0x8100 };

#define GUEST_OFFLOADS                                                                             \
	(VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6 |             \
	 VIRTIO_NET_F_GUEST_ECN)

/* ---- filters ---- */

void virtio_net_reset_filters(struct virtio_net *n)
{
	/* 5.1.6.5.1: without the control queue every frame comes through. */
	n->promisc = true;
	n->allmulti = n->alluni = n->nomulti = n->nouni = n->nobcast = false;
	n->unicasts = n->multicasts = 0;
	n->unicast_overflow = n->multicast_overflow = false;
	memset(n->vlan, 0, sizeof(n->vlan));
}

static bool in_table(const uint8_t (*table)[NET_MAC_LEN], uint32_t count, const uint8_t *mac)
{
	for (uint32_t i = 0; i < count && i < NET_MAC_TABLE; i++)
		if (!memcmp(table[i], mac, NET_MAC_LEN))
			return true;
	return false;
}

bool virtio_net_wants(const struct virtio_net *n, const uint8_t *start, size_t len)
{
	static const uint8_t broadcast[NET_MAC_LEN] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};

	if (len < ETH_HEADER)
		return false;
	if (n->promisc)
		return true;
	if (virtio_has(&n->virtio, VIRTIO_NET_F_CTRL_VLAN) && len >= TAGGED_HEADER &&
	    load_be16(start + ETH_TYPE) == TYPE_VLAN) {
		unsigned id = load_be16(start + ETH_HEADER) & (NET_VLANS - 1);
		if (!(n->vlan[id / 64] >> id % 64 & 1))
			return false;
	}
	if (!memcmp(start, broadcast, NET_MAC_LEN))
		return !n->nobcast;
	if (start[0] & 1)
		return !n->nomulti && (n->allmulti || n->multicast_overflow ||
				       in_table(n->multicast, n->multicasts, start));
	return !n->nouni &&
	       (n->alluni || n->unicast_overflow || !memcmp(start, n->mac, NET_MAC_LEN) ||
		in_table(n->unicast, n->unicasts, start));
}

void virtio_net_rx_filter(void *opaque, struct net_rx_filter *out)
{
	const struct virtio_net *n = opaque;

	*out = (struct net_rx_filter){
		.promiscuous = n->promisc,
		.broadcast_allowed = !n->nobcast,
		.unicast = n->nouni    ? NET_RX_NONE
			   : n->alluni ? NET_RX_ALL
				       : NET_RX_NORMAL,
		.multicast = n->nomulti    ? NET_RX_NONE
			     : n->allmulti ? NET_RX_ALL
					   : NET_RX_NORMAL,
		.vlan = virtio_has(&n->virtio, VIRTIO_NET_F_CTRL_VLAN) ? NET_RX_NORMAL : NET_RX_ALL,
		.unicast_overflow = n->unicast_overflow,
		.multicast_overflow = n->multicast_overflow,
		.mac = n->mac,
		.unicast_table = n->unicast,
		.multicast_table = n->multicast,
		.unicasts = n->unicasts,
		.multicasts = n->multicasts,
		.vlans = n->vlan,
	};
}

/* ---- commands ---- */

static bool read_exactly(struct virtio_chain *c, void *buf, size_t len)
{
	return virtio_chain_read(c, buf, len) == len;
}

static bool set_rx(struct virtio_net *n, uint8_t command, struct virtio_chain *c)
{
	bool *const mode[] = {&n->promisc, &n->allmulti, &n->alluni,
			      &n->nomulti, &n->nouni,    &n->nobcast};
	uint8_t on;

	if (command >= ARRAY_SIZE(mode) || !read_exactly(c, &on, 1) ||
	    !virtio_has(&n->virtio,
			command <= RX_ALLMULTI ? VIRTIO_NET_F_CTRL_RX : VIRTIO_NET_F_CTRL_RX_EXTRA))
		return false;
	*mode[command] = on != 0;
	return true;
}

struct mac_table {
	uint8_t mac[NET_MAC_TABLE][NET_MAC_LEN];
	uint32_t entries;
	bool overflow;
};

/* One of the two tables: a count and as many addresses. */
static bool read_table(struct virtio_chain *c, struct mac_table *table)
{
	uint8_t count_bytes[4], mac[NET_MAC_LEN];

	if (!read_exactly(c, count_bytes, sizeof(count_bytes)))
		return false;
	uint32_t count = load_le32(count_bytes);
	table->entries = 0;
	table->overflow = count > NET_MAC_TABLE;
	/* No driver has that many; a chain may hold far more bytes than there is RAM. */
	if (count > TABLE_ENTRIES_MAX || count > c->out_len / NET_MAC_LEN)
		return false;
	for (uint32_t i = 0; i < count; i++) {
		if (!read_exactly(c, mac, sizeof(mac)))
			return false;
		if (!table->overflow)
			memcpy(table->mac[table->entries++], mac, sizeof(mac));
	}
	return true;
}

/* Both tables take effect, or neither. */
static bool set_mac_tables(struct virtio_net *n, struct virtio_chain *c)
{
	struct mac_table unicast, multicast;

	if (!read_table(c, &unicast) || !read_table(c, &multicast))
		return false;
	memcpy(n->unicast, unicast.mac, unicast.entries * NET_MAC_LEN);
	n->unicasts = unicast.entries;
	n->unicast_overflow = unicast.overflow;
	memcpy(n->multicast, multicast.mac, multicast.entries * NET_MAC_LEN);
	n->multicasts = multicast.entries;
	n->multicast_overflow = multicast.overflow;
	return true;
}

static bool set_mac(struct virtio_net *n, uint8_t command, struct virtio_chain *c)
{
	uint8_t mac[NET_MAC_LEN];

	if (command == MAC_TABLE_SET)
		return virtio_has(&n->virtio, VIRTIO_NET_F_CTRL_RX) && set_mac_tables(n, c);
	if (command != MAC_ADDR_SET || !virtio_has(&n->virtio, VIRTIO_NET_F_CTRL_MAC_ADDR) ||
	    !read_exactly(c, mac, sizeof(mac)))
		return false;
	memcpy(n->mac, mac, sizeof(mac));
	return true;
}

static bool set_vlan(struct virtio_net *n, uint8_t command, struct virtio_chain *c)
{
	uint8_t bytes[2];

	if (command > VLAN_DEL || !virtio_has(&n->virtio, VIRTIO_NET_F_CTRL_VLAN) ||
	    !read_exactly(c, bytes, sizeof(bytes)))
		return false;
	unsigned id = load_le16(bytes);
	if (id >= NET_VLANS)
		return false;
	uint64_t bit = UINT64_C(1) << id % 64;
	if (command == VLAN_ADD)
		n->vlan[id / 64] |= bit;
	else
		n->vlan[id / 64] &= ~bit;
	return true;
}

static bool set_pairs(struct virtio_net *n, uint8_t command, struct virtio_chain *c)
{
	uint8_t bytes[2];

	if (command != MQ_PAIRS_SET || !virtio_has(&n->virtio, VIRTIO_NET_F_MQ) ||
	    !read_exactly(c, bytes, sizeof(bytes)))
		return false;
	unsigned pairs = load_le16(bytes);
	if (pairs < 1 || pairs > n->config.pairs)
		return false;
	n->pairs = (uint16_t)pairs;
	virtio_net_apply_pairs(n);
	return true;
}

static bool set_offloads(struct virtio_net *n, uint8_t command, struct virtio_chain *c)
{
	uint8_t bytes[8];

	if (command != OFFLOADS_SET || !virtio_has(&n->virtio, VIRTIO_NET_F_GUEST_OFFLOADS) ||
	    !read_exactly(c, bytes, sizeof(bytes)))
		return false;
	uint64_t offloads = load_le64(bytes);
	if (offloads & ~(n->virtio.features & GUEST_OFFLOADS))
		return false;
	n->guest_offloads = offloads;
	virtio_net_apply_offloads(n);
	return true;
}

static bool execute(struct virtio_net *n, struct virtio_chain *c)
{
	uint8_t header[2];

	if (!read_exactly(c, header, sizeof(header)))
		return false;
	trace(TRACE_VIRTIO, "%s: control %u.%u", n->virtio.pci.name, header[0], header[1]);
	switch (header[0]) {
	case CLASS_RX: return set_rx(n, header[1], c);
	case CLASS_MAC: return set_mac(n, header[1], c);
	case CLASS_VLAN: return set_vlan(n, header[1], c);
	case CLASS_ANNOUNCE:
		if (header[1] != ANNOUNCE_ACK || !virtio_has(&n->virtio, VIRTIO_NET_F_ANNOUNCE))
			return false;
		n->status &= (uint8_t)~NET_STATUS_ANNOUNCE;
		return true;
	case CLASS_MQ: return set_pairs(n, header[1], c);
	case CLASS_OFFLOADS: return set_offloads(n, header[1], c);
	default: return false;
	}
}

void virtio_net_serve_ctrl(struct virtio_net *n, struct virtqueue *q)
{
	for (unsigned left = virtqueue_budget(q); left; left--) {
		if (virtqueue_pop(q, &n->ctrl_chain) <= 0)
			return;
		if (n->ctrl_chain.in_len < 1) {
			virtio_broken(&n->virtio, "a control command without room for its answer");
			return;
		}
		uint8_t ack = execute(n, &n->ctrl_chain) ? ACK_OK : ACK_ERR;
		virtio_chain_write(&n->ctrl_chain, &ack, 1);
		virtqueue_push(q, &n->ctrl_chain, 1);
		virtqueue_signal(q);
	}
	virtqueue_kick(q);
}
