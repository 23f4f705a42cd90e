/* SPDX-License-Identifier: MIT */
/*
 * What a network card with offloads does to frames when the backend cannot: finishing checksums,
 * cutting large TCP frames into segments, verifying checksums. Frames are contiguous and without
 * any header of virtio's; their contents are the guest's or the network's and not trusted.
 */
#ifndef DEVICES_NET_OFFLOAD_H
#define DEVICES_NET_OFFLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The Internet checksum (RFC 1071) of `len` bytes on top of the partial sum `sum`, folded but not
 * complemented. */
uint16_t net_sum(const uint8_t *data, size_t len, uint32_t sum);

/* Completes a checksum: the field at start + offset holds the sum of the pseudo header. False if it
 * is not inside the frame. */
bool net_finish_checksum(uint8_t *frame, size_t len, size_t start, size_t offset);

/* Whether the frame is IPv4 or IPv6 with a whole TCP or UDP packet whose checksum is right. */
bool net_verify_checksum(const uint8_t *frame, size_t len);

/* A TCP frame to be cut into segments of at most `mss` bytes of payload. */
struct net_segmenter {
	const uint8_t *frame;
	size_t len, mss;
	size_t ip, tcp, payload; /* offsets in the frame */
	size_t next;             /* of the first byte not yet sent */
	bool v6;
	unsigned index;
};
/* Reads the headers; false if this is no TCP frame over IPv4 (or IPv6) that can be cut. */
bool net_segmenter_init(struct net_segmenter *s, const uint8_t *frame, size_t len, size_t mss,
			bool v6);
/* The next segment into `out` (room for payload offset + mss bytes); its length, or 0 behind the
 * last. */
size_t net_segmenter_next(struct net_segmenter *s, uint8_t *out);

#endif
