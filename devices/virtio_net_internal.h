/* SPDX-License-Identifier: MIT */
/* What the files of virtio-net share. */
#ifndef DEVICES_VIRTIO_NET_INTERNAL_H
#define DEVICES_VIRTIO_NET_INTERNAL_H

#include "devices/virtio_net.h"

enum {
	NET_MAC_TABLE = 64, /* entries; more make the card promiscuous for that kind */
	NET_VLANS = 4096,
	NET_RX_CHAINS = 64, /* buffers of one received frame */
	NET_HEADER = 12,
	NET_HEADER_LEGACY = 10,
};

enum net_status { NET_STATUS_LINK = 1, NET_STATUS_ANNOUNCE = 2 };

struct virtio_net {
	struct virtio virtio;
	/* guest-visible */
	uint8_t mac[NET_MAC_LEN];
	uint8_t status; /* enum net_status, but for the link */
	bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
	uint8_t unicast[NET_MAC_TABLE][NET_MAC_LEN], multicast[NET_MAC_TABLE][NET_MAC_LEN];
	uint32_t unicasts, multicasts;
	bool unicast_overflow, multicast_overflow;
	uint64_t vlan[NET_VLANS / 64]; /* bit set: received */
	uint16_t pairs;                /* in use */
	uint64_t guest_offloads;       /* of the VIRTIO_NET_F_GUEST_* bits, those in force */

	struct virtio_net_config config;
	struct net_port *port;
	bool backend_header; /* frames come and go with virtio's header */
	struct virtio_chain rx_chain[NET_RX_CHAINS], tx_chain, ctrl_chain;
	unsigned turn_segments; /* that large frames were cut into since serve_tx() began */
	struct timer announce;
	uint8_t *buffer;  /* a frame in one piece */
	uint8_t *segment; /* a part of it */
	struct state_registry *states;
};

/* virtio_net.c: what was negotiated or asked for reaches the backend. */
void virtio_net_apply_offloads(struct virtio_net *n);
void virtio_net_apply_pairs(struct virtio_net *n);
size_t virtio_net_header_size(const struct virtio_net *n);

/* virtio_net_ctrl.c */
void virtio_net_serve_ctrl(struct virtio_net *n, struct virtqueue *q);
/* Whether a frame that begins with these `len` bytes is for this card. */
bool virtio_net_wants(const struct virtio_net *n, const uint8_t *start, size_t len);
/* net_port_ops.rx_filter */
void virtio_net_rx_filter(void *opaque, struct net_rx_filter *out);
/* Filters as after a reset. */
void virtio_net_reset_filters(struct virtio_net *n);

#endif
