/* SPDX-License-Identifier: MIT */
/* virtio-net-pci: a network card on virtqueues. */
#ifndef DEVICES_VIRTIO_NET_H
#define DEVICES_VIRTIO_NET_H

#include "devices/virtio.h"
#include "net/net.h"

struct virtio_net;

enum { VIRTIO_NET_SPEED_UNKNOWN = -1, VIRTIO_NET_DUPLEX_UNKNOWN = 255 };

struct virtio_net_config {
	struct nic_config nic;
	unsigned pairs;            /* of receive and transmit queues, 1..NET_MAX_QUEUES */
	unsigned rx_size, tx_size; /* of the queues: powers of two, 64..VIRTQUEUE_SIZE_MAX */
	uint16_t mtu;              /* told to the guest; 0: not */
	bool has_speed;            /* speed and duplex are told, too */
	uint32_t speed;            /* Mbit/s */
	uint8_t duplex;            /* 0 half, 1 full, 255 unknown */
	/* csum=off, guest_csum=off, ... */
	uint64_t without; /* features not to offer */
};

/* Feature bits that properties can switch off (virtio 1.2, 5.1.3). */
#define VIRTIO_NET_F_CSUM           (UINT64_C(1) << 0)
#define VIRTIO_NET_F_GUEST_CSUM     (UINT64_C(1) << 1)
#define VIRTIO_NET_F_GUEST_OFFLOADS (UINT64_C(1) << 2)
#define VIRTIO_NET_F_MTU            (UINT64_C(1) << 3)
#define VIRTIO_NET_F_MAC            (UINT64_C(1) << 5)
#define VIRTIO_NET_F_GUEST_TSO4     (UINT64_C(1) << 7)
#define VIRTIO_NET_F_GUEST_TSO6     (UINT64_C(1) << 8)
#define VIRTIO_NET_F_GUEST_ECN      (UINT64_C(1) << 9)
#define VIRTIO_NET_F_HOST_TSO4      (UINT64_C(1) << 11)
#define VIRTIO_NET_F_HOST_TSO6      (UINT64_C(1) << 12)
#define VIRTIO_NET_F_HOST_ECN       (UINT64_C(1) << 13)
#define VIRTIO_NET_F_MRG_RXBUF      (UINT64_C(1) << 15)
#define VIRTIO_NET_F_STATUS         (UINT64_C(1) << 16)
#define VIRTIO_NET_F_CTRL_VQ        (UINT64_C(1) << 17)
#define VIRTIO_NET_F_CTRL_RX        (UINT64_C(1) << 18)
#define VIRTIO_NET_F_CTRL_VLAN      (UINT64_C(1) << 19)
#define VIRTIO_NET_F_CTRL_RX_EXTRA  (UINT64_C(1) << 20)
#define VIRTIO_NET_F_ANNOUNCE       (UINT64_C(1) << 21)
#define VIRTIO_NET_F_MQ             (UINT64_C(1) << 22)
#define VIRTIO_NET_F_CTRL_MAC_ADDR  (UINT64_C(1) << 23)
#define VIRTIO_NET_F_SPEED_DUPLEX   (UINT64_C(1) << 63)

struct virtio_net *virtio_net_new(const struct device_env *env, struct pci_bus *bus,
				  const struct virtio_pci_config *pci,
				  const struct virtio_net_config *config, struct error *err);
void virtio_net_free(struct virtio_net *net);
struct pci_device *virtio_net_pci(struct virtio_net *net);

#endif
