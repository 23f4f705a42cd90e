/* SPDX-License-Identifier: MIT */
/*
 * Repeated SYNs (see user_syn.h). Documents: RFC 791, 3.1 (IP header), RFC 8200, 3, RFC 9293, 3.1
 * (TCP header) and 3.2 (options), RFC 1624 (mending a checksum).
 */
#include "net/user_syn.h"
#include "lib/bytes.h"

enum {
	ETH_TYPE = 12,
	ETH_HEADER = 14,
	TYPE_IPV4 = 0x0800,
	TYPE_IPV6 = 0x86DD,
	IPV4_FRAGMENT = 6,
	IPV4_FRAGMENT_MASK = 0x3FFF, /* more fragments, offset */
	IPV4_PROTOCOL = 9,
	IPV4_HEADER = 20,
	IPV6_NEXT = 6,
	IPV6_HEADER = 40,
	PROTOCOL_TCP = 6,
};
enum { TCP_SEQ = 4, TCP_OFFSET = 12, TCP_FLAGS = 13, TCP_CHECKSUM = 16, TCP_HEADER = 20 };
enum { FLAG_SYN = 2 };
enum { OPTION_END = 0, OPTION_NOP = 1, OPTION_MSS = 2, MSS_SIZE = 4 };
enum { MTU = 1500 };

/* The offset of the TCP header, or 0; *full becomes the largest segment that the network uses. */
static size_t find_tcp(const uint8_t *frame, size_t len, unsigned *full)
{
	const uint8_t *ip = frame + ETH_HEADER;
	size_t header = 0;

	if (len < ETH_HEADER + IPV4_HEADER + TCP_HEADER)
		return 0;
	unsigned type = load_be16(frame + ETH_TYPE);
	if (type == TYPE_IPV4) {
		header = (size_t)(ip[0] & 15) * 4;
		if (header < IPV4_HEADER || ip[IPV4_PROTOCOL] != PROTOCOL_TCP ||
		    (load_be16(ip + IPV4_FRAGMENT) & IPV4_FRAGMENT_MASK))
			return 0;
		*full = MTU - IPV4_HEADER - TCP_HEADER;
	} else if (type == TYPE_IPV6) {
		header = IPV6_HEADER;
		if (ip[IPV6_NEXT] != PROTOCOL_TCP)
			return 0;
		*full = MTU - IPV6_HEADER - TCP_HEADER;
	}
	return header && len >= ETH_HEADER + header + TCP_HEADER ? ETH_HEADER + header : 0;
}

static bool remember(struct user_syns *syns, const uint8_t *tcp)
{
	/* Both ports and the sequence number. A slot that another SYN took in between is only a
	 * repetition that goes unseen. */
	uint64_t key = (uint64_t)load_be32(tcp) << 32 | load_be32(tcp + TCP_SEQ);
	uint64_t *slot = &syns->seen[(key * 0x9E3779B97F4A7C15u >> 32) % USER_SYNS];
	bool known = *slot == key;
	*slot = key;
	return known;
}

size_t user_repeated_mss(struct user_syns *syns, const uint8_t *frame, size_t len)
{
	unsigned full = 0;
	size_t tcp = find_tcp(frame, len, &full);

	if (!tcp || !(frame[tcp + TCP_FLAGS] & FLAG_SYN) || !remember(syns, frame + tcp))
		return 0;
	size_t end = tcp + (size_t)(frame[tcp + TCP_OFFSET] >> 4) * 4, at = tcp + TCP_HEADER;
	if (end > len)
		return 0;
	while (at < end && frame[at] != OPTION_END) {
		if (frame[at] == OPTION_NOP) {
			at++;
			continue;
		}
		if (end - at < 2 || frame[at + 1] < 2 || frame[at + 1] > end - at)
			return 0;
		if (frame[at] == OPTION_MSS)
			return frame[at + 1] == MSS_SIZE && load_be16(frame + at + 2) >= full ? at
											      : 0;
		at += frame[at + 1];
	}
	return 0;
}

void user_erase_mss(uint8_t *frame, size_t at)
{
	unsigned full;
	size_t tcp = find_tcp(frame, at + MSS_SIZE, &full);
	uint32_t sum = (uint16_t)~load_be16(frame + tcp + TCP_CHECKSUM);

	for (size_t i = at; i < at + MSS_SIZE; i++) {
		/* The header's even bytes are the high ones of the sum's words. */
		unsigned shift = (i - tcp) % 2 ? 0 : 8;
		sum += (uint16_t) ~((unsigned)frame[i] << shift) + ((uint32_t)OPTION_NOP << shift);
		frame[i] = OPTION_NOP;
	}
	while (sum >> 16)
		sum = (sum & 0xFFFF) + (sum >> 16);
	store_be16(frame + tcp + TCP_CHECKSUM, (uint16_t)~sum);
}
