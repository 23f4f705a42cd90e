/* SPDX-License-Identifier: MIT */
/*
 * Self-announcement: a broadcast frame in a card's name, from which switches learn where its
 * address is now. It asks the question of RARP ("which IP address do I have?"), which nobody
 * answers wrongly.
 *
 * Document: RFC 903.
 */
#include "lib/bytes.h"
#include "net/net.h"
#include <string.h>

enum {
	FRAME_LEN = 60,
	VNET_HDR_MAX = 12,
	ETH_TYPE = 12,
	TYPE_RARP = 0x8035,
	BODY = 14,
	HARDWARE_ETHERNET = 1,
	PROTOCOL_IPV4 = 0x0800,
	REQUEST_REVERSE = 3,
	SENDER_MAC = BODY + 8,
	TARGET_MAC = BODY + 18,
};

void net_send_announcement(struct net_port *port, const uint8_t mac[NET_MAC_LEN])
{
	static const uint8_t no_offload[VNET_HDR_MAX];
	uint8_t frame[FRAME_LEN] = {0};
	struct iovec iov[] = {{(void *)no_offload, net_vnet_hdr(port)}, {frame, sizeof(frame)}};
	memset(frame, 0xFF, NET_MAC_LEN);
	memcpy(frame + NET_MAC_LEN, mac, NET_MAC_LEN);
	store_be16(frame + ETH_TYPE, TYPE_RARP);
	store_be16(frame + BODY, HARDWARE_ETHERNET);
	store_be16(frame + BODY + 2, PROTOCOL_IPV4);
	frame[BODY + 4] = NET_MAC_LEN;
	frame[BODY + 5] = 4;
	store_be16(frame + BODY + 6, REQUEST_REVERSE);
	memcpy(frame + SENDER_MAC, mac, NET_MAC_LEN);
	memcpy(frame + TARGET_MAC, mac, NET_MAC_LEN);
	net_send(port, 0, iov, 2);
}
