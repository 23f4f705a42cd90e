/* SPDX-License-Identifier: MIT */
/*
 * Checksums and TCP segmentation in software.
 *
 * A segment gets the headers of the whole frame with: IP length (and identification + n, and header
 * checksum, for IPv4), TCP sequence number + bytes before it, FIN and PSH only in the last, CWR
 * only in the first, and a TCP checksum of its own.
 *
 * Documents: RFC 1071 (checksum), RFC 791 and RFC 8200 (IP), RFC 9293 (TCP), RFC 3168 6.1.2 (CWR),
 * IEEE 802.1Q (tag). Left out: IPv6 extension headers, QinQ; such frames are neither cut nor
 * verified.
 */
#include "devices/net_offload.h"
#include "lib/bytes.h"

enum {
	ETH_TYPE = 12,
	ETH_HEADER = 14,
	VLAN_TAG = 4,
	TYPE_IPV4 = 0x0800,
	TYPE_IPV6 = 0x86DD,
	TYPE_VLAN = 0x8100,

	IPV4_MIN = 20,
	IPV4_LENGTH = 2,
	IPV4_ID = 4,
	IPV4_FRAGMENT = 6,
	IPV4_FRAGMENT_MASK = 0x3FFF, /* more fragments, offset */
	IPV4_PROTOCOL = 9,
	IPV4_CHECKSUM = 10,
	IPV4_ADDRESSES = 12,
	IPV6_HEADER = 40,
	IPV6_LENGTH = 4,
	IPV6_NEXT = 6,
	IPV6_ADDRESSES = 8,

	PROTO_TCP = 6,
	PROTO_UDP = 17,
	TCP_MIN = 20,
	TCP_SEQUENCE = 4,
	TCP_DATA_OFFSET = 12,
	TCP_FLAGS = 13,
	TCP_CHECKSUM = 16,
	UDP_HEADER = 8,
	UDP_CHECKSUM = 6,
	FLAG_FIN = 0x01,
	FLAG_PSH = 0x08,
	FLAG_CWR = 0x80,
};

uint16_t net_sum(const uint8_t *data, size_t len, uint32_t start)
{
	/* Sums of wider words fold to the same 16 bits (RFC 1071, 2(B)); so does host byte order
	 * when the result is swapped at the end. */
	uint64_t sum = __builtin_bswap16((uint16_t)(start & 0xFFFF)) +
		       (uint64_t)__builtin_bswap16((uint16_t)(start >> 16));

	for (; len >= 4; data += 4, len -= 4)
		sum += load_le32(data);
	if (len >= 2) {
		sum += load_le16(data);
		data += 2;
		len -= 2;
	}
	if (len)
		sum += *data;
	while (sum >> 16)
		sum = (sum & 0xFFFF) + (sum >> 16);
	return __builtin_bswap16((uint16_t)sum);
}

bool net_finish_checksum(uint8_t *frame, size_t len, size_t start, size_t offset)
{
	if (start >= len || !range_in(start + offset, 2, len))
		return false;
	uint16_t sum = (uint16_t)~net_sum(frame + start, len - start, 0);
	/* Zero would mean "none" to UDP (RFC 768). */
	store_be16(frame + start + offset, sum ? sum : 0xFFFF);
	return true;
}

/* Where the packet of the network layer begins, and of which type it is. */
static uint16_t ether_type(const uint8_t *frame, size_t len, size_t *at)
{
	*at = ETH_HEADER;
	if (len < ETH_HEADER)
		return 0;
	uint16_t type = load_be16(frame + ETH_TYPE);
	if (type != TYPE_VLAN)
		return type;
	*at += VLAN_TAG;
	return len < *at ? 0 : load_be16(frame + *at - 2);
}

static uint32_t pseudo_sum(const uint8_t *ip, bool v6, uint8_t protocol, size_t len)
{
	uint32_t sum =
		v6 ? net_sum(ip + IPV6_ADDRESSES, 32, 0) : net_sum(ip + IPV4_ADDRESSES, 8, 0);
	return sum + protocol + (uint32_t)(len >> 16) + (uint32_t)(len & 0xFFFF);
}

/* The transport packet of an IP packet that is whole and no fragment. */
static bool transport(const uint8_t *frame, size_t len, bool *v6, size_t *ip, size_t *at,
		      size_t *packet_len, uint8_t *protocol)
{
	uint16_t type = ether_type(frame, len, ip);
	const uint8_t *p = frame + *ip;
	size_t room = len > *ip ? len - *ip : 0, header, total;

	*v6 = type == TYPE_IPV6;
	if (type == TYPE_IPV4) {
		if (room < IPV4_MIN || p[0] >> 4 != 4)
			return false;
		header = (size_t)(p[0] & 15) * 4;
		total = load_be16(p + IPV4_LENGTH);
		*protocol = p[IPV4_PROTOCOL];
		if (header < IPV4_MIN || (load_be16(p + IPV4_FRAGMENT) & IPV4_FRAGMENT_MASK))
			return false;
	} else if (type == TYPE_IPV6) {
		if (room < IPV6_HEADER || p[0] >> 4 != 6)
			return false;
		header = IPV6_HEADER;
		total = header + load_be16(p + IPV6_LENGTH);
		*protocol = p[IPV6_NEXT];
	} else {
		return false;
	}
	if (total < header || total > room)
		return false;
	*at = *ip + header;
	*packet_len = total - header;
	return true;
}

bool net_verify_checksum(const uint8_t *frame, size_t len)
{
	size_t ip, at, packet;
	uint8_t protocol;
	bool v6;

	if (!transport(frame, len, &v6, &ip, &at, &packet, &protocol))
		return false;
	if (protocol == PROTO_UDP) {
		if (packet < UDP_HEADER || load_be16(frame + at + UDP_CHECKSUM) == 0)
			return false;
	} else if (protocol != PROTO_TCP || packet < TCP_MIN) {
		return false;
	}
	return net_sum(frame + at, packet, pseudo_sum(frame + ip, v6, protocol, packet)) == 0xFFFF;
}

bool net_segmenter_init(struct net_segmenter *s, const uint8_t *frame, size_t len, size_t mss,
			bool v6)
{
	size_t ip, header;

	*s = (struct net_segmenter){.frame = frame, .len = len, .mss = mss, .v6 = v6};
	if (mss == 0 || ether_type(frame, len, &ip) != (v6 ? TYPE_IPV6 : TYPE_IPV4))
		return false;
	header = v6 ? IPV6_HEADER : IPV4_MIN;
	if (!range_in(ip, header, len))
		return false;
	if (!v6)
		header = (size_t)(frame[ip] & 15) * 4;
	uint8_t protocol = frame[ip + (v6 ? IPV6_NEXT : IPV4_PROTOCOL)];
	if (header < IPV4_MIN || protocol != PROTO_TCP || !range_in(ip + header, TCP_MIN, len))
		return false;
	s->ip = ip;
	s->tcp = ip + header;
	s->payload = s->tcp + (size_t)(frame[s->tcp + TCP_DATA_OFFSET] >> 4) * 4;
	s->next = s->payload;
	return s->payload >= s->tcp + TCP_MIN && s->payload <= len;
}

size_t net_segmenter_next(struct net_segmenter *s, uint8_t *out)
{
	size_t left = s->len - s->next, part = left < s->mss ? left : s->mss;

	if (left == 0 && s->index > 0)
		return 0;
	memcpy(out, s->frame, s->payload);
	memcpy(out + s->payload, s->frame + s->next, part);
	uint8_t *ip = out + s->ip, *tcp = out + s->tcp;
	size_t tcp_len = s->payload - s->tcp + part;
	if (s->v6) {
		store_be16(ip + IPV6_LENGTH, (uint16_t)tcp_len);
	} else {
		store_be16(ip + IPV4_LENGTH, (uint16_t)(s->tcp - s->ip + tcp_len));
		store_be16(ip + IPV4_ID, (uint16_t)(load_be16(ip + IPV4_ID) + s->index));
		store_be16(ip + IPV4_CHECKSUM, 0);
		store_be16(ip + IPV4_CHECKSUM, (uint16_t)~net_sum(ip, s->tcp - s->ip, 0));
	}
	store_be32(tcp + TCP_SEQUENCE,
		   load_be32(tcp + TCP_SEQUENCE) + (uint32_t)(s->next - s->payload));
	if (left > part)
		tcp[TCP_FLAGS] &= (uint8_t) ~(FLAG_FIN | FLAG_PSH);
	if (s->index > 0)
		tcp[TCP_FLAGS] &= (uint8_t)~FLAG_CWR;
	store_be16(tcp + TCP_CHECKSUM, 0);
	store_be16(tcp + TCP_CHECKSUM,
		   (uint16_t)~net_sum(tcp, tcp_len, pseudo_sum(ip, s->v6, PROTO_TCP, tcp_len)));
	s->next += part;
	s->index++;
	return s->payload + part;
}
