/* SPDX-License-Identifier: MIT */
/* virtio-net's frames: into buffers of all sizes, out of chains of all shapes, with headers that the
 * backend understands and with ones that the card must deal with itself. */
#include "devices/net_offload.h"
#include "virtio_net_rig.h"

enum { FLAGS = 0, GSO_TYPE = 1, HDR_LEN = 2, GSO_SIZE = 4, CSUM_START = 6, CSUM_OFFSET = 8 };
enum { BUFFERS = 10, NEEDS_CSUM = 1, DATA_VALID = 2, GSO_TCPV4 = 1, GSO_UDP = 3, GSO_TCPV6 = 4 };
enum { IP = 14, TCP4 = 34, TCP6 = 54, TCP_LEN = 20, TCP_CSUM = 16, FIN_PSH_ACK = 0x19 };

#define ALL_OFFLOADS (NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN)
#define SENDING                                                                                    \
	(VIRTIO_NET_F_CSUM | VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6 |                     \
	 VIRTIO_NET_F_HOST_ECN)
#define RECEIVING                                                                                  \
	(VIRTIO_NET_F_MRG_RXBUF | VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4 |              \
	 VIRTIO_NET_F_GUEST_TSO6)

static struct net_fixture *start(uint64_t features)
{
	struct net_fixture *f = net_new_card(1, 0, 0);
	net_start(f, true, features);
	return f;
}

/* A frame for the card whose bytes tell where they belong and which frame it is. */
static void make_frame(uint8_t *frame, size_t len, uint8_t nr)
{
	for (size_t n = 0; n < len; n++)
		frame[n] = (uint8_t)(n * 5 + (n >> 8) * 3 + nr);
	memcpy(frame, card_mac, 6);
	store_be16(frame + 12, 0x88B5);
}

/* A TCP frame with the sum of the pseudo header where the checksum belongs. */
static size_t tcp_frame(uint8_t *f, size_t len, bool v6)
{
	size_t tcp = v6 ? TCP6 : TCP4, payload = tcp + TCP_LEN;
	uint8_t *addresses = f + IP + (v6 ? 8 : 12);
	size_t addresses_len = v6 ? 32 : 8;

	memset(f, 0, payload);
	memcpy(f, card_mac, 6);
	store_be16(f + 12, v6 ? 0x86DD : 0x0800);
	if (v6) {
		f[IP] = 0x60;
		store_be16(f + IP + 4, (uint16_t)(TCP_LEN + len));
		f[IP + 6] = 6;
	} else {
		f[IP] = 0x45;
		store_be16(f + IP + 2, (uint16_t)(20 + TCP_LEN + len));
		f[IP + 9] = 6;
	}
	for (size_t n = 0; n < addresses_len; n++)
		addresses[n] = (uint8_t)(10 + n);
	store_be32(f + tcp + 4, 5000);
	f[tcp + 12] = 0x50;
	f[tcp + 13] = FIN_PSH_ACK;
	for (size_t n = 0; n < len; n++)
		f[payload + n] = (uint8_t)(n * 7 + (n >> 8));
	uint32_t sum = net_sum(addresses, addresses_len, 0) + 6u + (uint32_t)(TCP_LEN + len);
	store_be16(f + tcp + TCP_CSUM, net_sum(NULL, 0, sum));
	return payload + len;
}

/* ---- receive ---- */

static void frames_come_with_a_header(void **state)
{
	for (int modern = 0; modern < 2; modern++) {
		struct net_fixture *f = net_new_card(1, 0, 0);
		uint8_t frame[100], back[NET_HDR + 100 + 1], header[NET_HDR] = {0};
		unsigned hdr = modern ? NET_HDR : NET_HDR_LEGACY;

		net_start(f, modern, 0);
		make_frame(frame, sizeof(frame), 1);
		uint64_t at = net_post(f, 0, 2000);
		net_send_buf(f->wire, 0, frame, sizeof(frame));
		uint32_t len;
		drv_wait(&f->d, 0, 1, NULL, &len);
		assert_int_equal(len, hdr + sizeof(frame));
		get(&f->d, at, back, hdr + sizeof(frame) + 1);
		header[BUFFERS] = 1;
		assert_memory_equal(back, header, hdr);
		assert_memory_equal(back + hdr, frame, sizeof(frame));
		assert_int_equal(back[hdr + sizeof(frame)], NET_UNTOUCHED);
		assert_int_equal(drv_isr(&f->d), 1);
		net_stop(f);
	}
}

/* Buffers smaller than the header, than a frame, and made of many pieces. */
static void frames_are_spread_over_mergeable_buffers(void **state)
{
	static const uint32_t sizes[] = {1, 5, 11, 12, 13, 40, 100, 103, 206, 412, 1513, 1514};
	struct net_fixture *f = start(VIRTIO_NET_F_MRG_RXBUF);
	uint8_t frame[400], back[sizeof(frame) + NET_HDR];

	make_frame(frame, sizeof(frame), 3);
	for (unsigned n = 0; n < ARRAY_SIZE(sizes); n++) {
		uint32_t size = sizes[n], total = NET_HDR + sizeof(frame);
		unsigned count = (total + size - 1) / size;
		if (count > NET_QUEUE_SIZE - 1)
			continue;
		net_start(f, true, VIRTIO_NET_F_MRG_RXBUF);
		uint64_t at = f->rx_at;
		for (unsigned b = 0; b <= count; b++) /* one more than needed */
			net_post(f, 0, size);
		net_send_buf(f->wire, 0, frame, sizeof(frame));
		assert_int_equal(drv_returned(&f->d, 0), count);
		for (unsigned b = 0; b < count; b++)
			assert_int_equal(net_used_len(f, 0, b),
					 b + 1 < count ? size : total - b * size);
		get(&f->d, at, back, total);
		assert_int_equal(load_le16(back + BUFFERS), count);
		assert_memory_equal(back + NET_HDR, frame, sizeof(frame));
		uint8_t behind;
		get(&f->d, at + total, &behind, 1);
		assert_int_equal(behind, NET_UNTOUCHED);
	}
	net_stop(f);
}

static void buffers_may_have_many_pieces(void **state)
{
	struct net_fixture *f = start(VIRTIO_NET_F_MRG_RXBUF | VIRTIO_F_INDIRECT_DESC);
	enum { PIECES = 30, GAP = 32 };
	struct piece p[PIECES];
	uint8_t frame[500], whole[NET_HDR + sizeof(frame)];
	size_t at = 0;

	make_frame(frame, sizeof(frame), 9);
	net_fill_memory(f, NET_DRIVER_BUFFERS, NET_UNTOUCHED, PIECES * (PIECES + GAP));
	for (unsigned n = 0; n < PIECES; n++)
		p[n] = (struct piece){NET_DRIVER_BUFFERS + n * (PIECES + GAP), n, true};
	for (unsigned n = 0; n < 2; n++) {
		uint64_t table = NET_COMMAND + 0x400 * n;
		drv_add_indirect(&f->d, 0, table, p + 15 * n, 15);
	}
	drv_add(&f->d, 0, &(struct piece){NET_TX, 400, true}, 1);
	drv_kick(&f->d, 0);
	net_send_buf(f->wire, 0, frame, sizeof(frame));
	assert_int_equal(drv_returned(&f->d, 0), 3);
	assert_int_equal(net_used_len(f, 0, 0), 105);
	assert_int_equal(net_used_len(f, 0, 1), 330);
	assert_int_equal(net_used_len(f, 0, 2), sizeof(whole) - 435);
	for (unsigned n = 0; n < PIECES; n++) {
		uint8_t behind;
		get(&f->d, p[n].at, whole + at, n);
		get(&f->d, p[n].at + n, &behind, 1);
		assert_int_equal(behind, NET_UNTOUCHED);
		at += n;
	}
	get(&f->d, NET_TX, whole + at, sizeof(whole) - at);
	assert_memory_equal(whole + NET_HDR, frame, sizeof(frame));
	assert_int_equal(load_le16(whole + BUFFERS), 3);
	net_stop(f);
}

/* Frames that find too few buffers wait; none is lost, none overtakes another. */
static void frames_wait_for_buffers(void **state)
{
	for (int events = 0; events < 2; events++) {
		uint64_t features = VIRTIO_NET_F_MRG_RXBUF | (events ? VIRTIO_F_EVENT_IDX : 0);
		struct net_fixture *f = start(features);
		enum { FRAMES = 5, SIZE = 300, ROOM = 110 /* a third of it and its header */ };
		uint8_t frame[SIZE], back[NET_HDR + SIZE];

		/* While frames find buffers the driver need not tell of more. */
		net_post(f, 0, 1000);
		make_frame(frame, sizeof(frame), 0xFF);
		net_send_buf(f->wire, 0, frame, sizeof(frame));
		drv_wait(&f->d, 0, 1, NULL, NULL);
		if (!events)
			assert_int_equal(get16(&f->d, f->d.q[0].used), 1);
		uint64_t at = f->rx_at;
		net_post(f, 0, ROOM);
		net_post(f, 0, ROOM);
		for (uint8_t n = 0; n < FRAMES; n++) {
			make_frame(frame, sizeof(frame), n);
			net_send_buf(f->wire, 0, frame, sizeof(frame));
		}
		drv_idle(&f->d);
		assert_int_equal(drv_returned(&f->d, 0), 0);
		/* The driver is asked to tell of more. */
		if (!events)
			assert_int_equal(get16(&f->d, f->d.q[0].used), 0);
		else
			assert_int_equal(get16(&f->d, f->d.q[0].used + 4 + 8 * NET_QUEUE_SIZE), 3);
		for (unsigned n = 2; n < 3 * FRAMES; n++)
			net_post(f, 0, ROOM);
		drv_wait(&f->d, 0, 3 * FRAMES, NULL, NULL);
		for (uint8_t n = 0; n < FRAMES; n++) {
			make_frame(frame, sizeof(frame), n);
			get(&f->d, at + 3u * ROOM * n, back, sizeof(back));
			assert_int_equal(load_le16(back + BUFFERS), 3);
			assert_memory_equal(back + NET_HDR, frame, sizeof(frame));
		}
		net_stop(f);
	}
}

static void frames_too_long_for_a_buffer_are_lost(void **state)
{
	struct net_fixture *f = start(0);
	uint8_t frame[200];

	make_frame(frame, sizeof(frame), 1);
	uint64_t at = net_post(f, 0, NET_HDR + 199);
	net_post(f, 0, 2000);
	net_send_buf(f->wire, 0, frame, 200);
	assert_int_equal(drv_returned(&f->d, 0), 0);
	net_send_buf(f->wire, 0, frame, 199);
	assert_int_equal(drv_returned(&f->d, 0), 1); /* in the first buffer, which is still there */
	uint8_t back[199];
	get(&f->d, at + NET_HDR, back, sizeof(back));
	assert_memory_equal(back, frame, sizeof(back));
	/* Without mergeable buffers a second one never helps. */
	drv_wait(&f->d, 0, 1, NULL, NULL);
	net_start(f, true, 0);
	for (unsigned n = 0; n < 20; n++)
		net_post(f, 0, 50);
	net_send_buf(f->wire, 0, frame, 200);
	drv_idle(&f->d);
	assert_int_equal(drv_returned(&f->d, 0), 0);
	net_stop(f);
}

/* The software CPU must know of every byte, or it would run code that is no longer there. */
static void the_engine_is_told_what_was_written(void **state)
{
	struct net_fixture *f = start(VIRTIO_NET_F_MRG_RXBUF);
	uint8_t frame[300];

	make_frame(frame, sizeof(frame), 0x80);
	for (unsigned n = 0; n < 4; n++)
		net_post(f, 0, 100);
	struct drv_writes *w = drv_watch(&f->d);
	net_send_buf(f->wire, 0, frame, sizeof(frame));
	drv_wait(&f->d, 0, 4, NULL, NULL);
	assert_in_range(drv_check_writes(w, 2), 250, 400);
	net_stop(f);
}

static void read_only_buffers_take_nothing(void **state)
{
	struct net_fixture *f = start(VIRTIO_NET_F_MRG_RXBUF);
	uint8_t frame[200];

	make_frame(frame, sizeof(frame), 1);
	for (unsigned n = 0; n < NET_QUEUE_SIZE; n++)
		drv_add(&f->d, 0, &(struct piece){NET_DRIVER_BUFFERS, 2000, false}, 1);
	drv_kick(&f->d, 0);
	net_send_buf(f->wire, 0, frame, sizeof(frame));
	drv_idle(&f->d);
	assert_int_equal(drv_returned(&f->d, 0), 0);
	assert_int_equal(drv_status(&f->d), 15);
	net_stop(f);
}

/* What a backend without headers delivers is verified here. */
static void checksums_are_vouched_for(void **state)
{
	struct net_fixture *f = start(RECEIVING);
	uint8_t frame[1514], back[NET_HDR];

	for (int v6 = 0; v6 < 2; v6++) {
		size_t len = tcp_frame(frame, 777, v6);
		assert_true(net_finish_checksum(frame, len, v6 ? TCP6 : TCP4, TCP_CSUM));
		for (int damaged = 0; damaged < 2; damaged++) {
			frame[100] ^= (uint8_t)damaged;
			uint64_t at = net_post(f, 0, 2000);
			net_send_buf(f->wire, 0, frame, len);
			drv_wait(&f->d, 0, 1, NULL, NULL);
			get(&f->d, at, back, sizeof(back));
			assert_int_equal(back[FLAGS], damaged ? 0 : DATA_VALID);
			assert_int_equal(back[GSO_TYPE], 0);
		}
		/* In several pieces it is the same frame. */
		frame[100] ^= 1;
		uint8_t first[33];
		memcpy(first, frame, sizeof(first));
		struct iovec iov[] = {{first, 33}, {frame + 33, 1}, {frame + 34, len - 34}};
		memset(frame, 0, sizeof(first));
		uint64_t at = net_post(f, 0, 2000);
		net_send(f->wire, 0, iov, 3);
		drv_wait(&f->d, 0, 1, NULL, NULL);
		get(&f->d, at, back, sizeof(back));
		assert_int_equal(back[FLAGS], DATA_VALID);
		memcpy(frame, first, sizeof(first));
		net_start(f, true, 0);
		at = net_post(f, 0, 2000);
		net_send_buf(f->wire, 0, frame, len);
		drv_wait(&f->d, 0, 1, NULL, NULL);
		get(&f->d, at, back, sizeof(back));
		assert_int_equal(back[FLAGS], 0); /* the driver did not ask */
		net_start(f, true, RECEIVING);
	}
	net_stop(f);
}

static void headers_of_the_backend_reach_the_guest(void **state)
{
	for (int merge = 0; merge < 2; merge++) {
		struct net_fixture *f = net_new_card(1, ALL_OFFLOADS, 0);
		uint8_t frame[NET_HDR + 3000], back[sizeof(frame)];

		net_start(f, true, merge ? RECEIVING : RECEIVING & ~VIRTIO_NET_F_MRG_RXBUF);
		assert_int_equal(f->hdr_len, NET_HDR);
		assert_int_equal(f->peer_offloads,
				 NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6);
		make_frame(frame + NET_HDR, 3000, 1);
		memset(frame, 0, NET_HDR);
		frame[FLAGS] = NEEDS_CSUM;
		frame[GSO_TYPE] = GSO_TCPV4;
		store_le16(frame + GSO_SIZE, 1460);
		store_le16(frame + CSUM_START, TCP4);
		store_le16(frame + CSUM_OFFSET, TCP_CSUM);
		store_le16(frame + BUFFERS, 0x7777);
		uint64_t at = f->rx_at;
		unsigned count = merge ? 3 : 1;
		for (unsigned n = 0; n < count; n++)
			net_post(f, 0, merge ? 1500 : 4000);
		net_send_buf(f->wire, 0, frame, sizeof(frame));
		assert_int_equal(drv_returned(&f->d, 0), count);
		get(&f->d, at, back, sizeof(back));
		assert_memory_equal(back, frame, BUFFERS);
		assert_int_equal(load_le16(back + BUFFERS), count);
		assert_memory_equal(back + NET_HDR, frame + NET_HDR, 3000);
		/* Half a header is no frame, and a reset ends the agreement. */
		drv_wait(&f->d, 0, count, NULL, NULL);
		net_post(f, 0, 4000);
		net_send_buf(f->wire, 0, frame, NET_HDR - 1);
		net_send_buf(f->wire, 0, frame, NET_HDR);
		assert_int_equal(drv_returned(&f->d, 0), 0);
		drv_set_status(&f->d, 0);
		assert_int_equal(f->hdr_len, 0);
		net_stop(f);
	}
}

static void backends_may_refuse_headers(void **state)
{
	struct net_fixture *f = net_new_card(1, ALL_OFFLOADS, 0);
	uint8_t frame[100], back[NET_HDR + 100];

	f->refuse_hdr = true;
	net_start(f, true, RECEIVING);
	make_frame(frame, sizeof(frame), 1);
	uint64_t at = net_post(f, 0, 2000);
	net_send_buf(f->wire, 0, frame, sizeof(frame));
	drv_wait(&f->d, 0, 1, NULL, NULL);
	get(&f->d, at, back, sizeof(back));
	assert_memory_equal(back + NET_HDR, frame, sizeof(frame));
	net_stop(f);
}

/* ---- transmit ---- */

/* A frame behind a header, in one piece; waits until the card is done with it. */
static void transmit(struct net_fixture *f, const uint8_t *header, const uint8_t *frame, size_t len)
{
	size_t hdr = f->d.modern ? NET_HDR : NET_HDR_LEGACY;

	put(&f->d, NET_TX, header, hdr);
	put(&f->d, NET_TX + hdr, frame, len);
	drv_add(&f->d, 1, &(struct piece){NET_TX, (uint32_t)(hdr + len), false}, 1);
	drv_kick(&f->d, 1);
	drv_wait(&f->d, 1, 1, NULL, NULL);
	/* Segments behind the first may come from the loop. */
	drv_idle(&f->d);
}

static void plain_frames_go_out_as_they_are(void **state)
{
	static const uint8_t none[NET_HDR];

	for (int modern = 0; modern < 2; modern++) {
		struct net_fixture *f = net_new_card(1, 0, 0);
		uint8_t frame[600];
		net_start(f, modern, 0);
		make_frame(frame, sizeof(frame), 1);
		transmit(f, none, frame, sizeof(frame));
		assert_int_equal(f->frames, 1);
		assert_int_equal(f->frame[0].len, sizeof(frame));
		assert_memory_equal(f->frame[0].data, frame, sizeof(frame));
		assert_int_equal(drv_isr(&f->d), 1);
		net_stop(f);
	}
}

static void frames_may_be_cut_anywhere(void **state)
{
	struct net_fixture *f = start(SENDING | VIRTIO_F_INDIRECT_DESC);
	uint8_t bytes[NET_HDR + 500] = {0}, frame[500];
	size_t len = tcp_frame(frame, 400, false);
	static const uint32_t cuts[] = {1, 5, 11, 12, 13, 12 + 14, 12 + 33, 12 + 35, 12 + 200};

	bytes[FLAGS] = NEEDS_CSUM;
	store_le16(bytes + CSUM_START, TCP4);
	store_le16(bytes + CSUM_OFFSET, TCP_CSUM);
	memcpy(bytes + NET_HDR, frame, len);
	put(&f->d, NET_TX, bytes, NET_HDR + len);
	for (unsigned n = 0; n < ARRAY_SIZE(cuts); n++) {
		struct piece p[] = {{NET_TX, 0, false},
				    {NET_TX, cuts[n], false},
				    {NET_TX + cuts[n], (uint32_t)(NET_HDR + len) - cuts[n], false}};
		drv_add_indirect(&f->d, 1, NET_COMMAND, p, 3);
		drv_kick(&f->d, 1);
		drv_wait(&f->d, 1, 1, NULL, NULL);
		assert_int_equal(f->frames, 1);
		assert_int_equal(f->frame[0].len, len);
		assert_true(net_verify_checksum(f->frame[0].data, len));
		net_forget_frames(f);
	}
	/* Byte by byte. */
	struct piece p[512];
	for (unsigned n = 0; n < NET_HDR + len; n++)
		p[n] = (struct piece){NET_TX + n, 1, false};
	drv_add_indirect(&f->d, 1, NET_COMMAND, p, (unsigned)(NET_HDR + len));
	drv_kick(&f->d, 1);
	drv_wait(&f->d, 1, 1, NULL, NULL);
	assert_int_equal(f->frames, 1);
	assert_true(net_verify_checksum(f->frame[0].data, len));
	net_stop(f);
}

static void large_frames_are_cut_for_backends_that_cannot(void **state)
{
	static uint8_t frame[NET_FRAME_MAX];

	for (int v6 = 0; v6 < 2; v6++) {
		struct net_fixture *f = start(SENDING);
		enum { PAYLOAD = 60000, MSS = 1448 };
		size_t len = tcp_frame(frame, PAYLOAD, v6), headers = len - PAYLOAD, seen = 0;
		size_t tcp = v6 ? TCP6 : TCP4;
		uint8_t header[NET_HDR] = {NEEDS_CSUM, v6 ? GSO_TCPV6 : GSO_TCPV4 | 0x80};

		store_le16(header + HDR_LEN, (uint16_t)headers);
		store_le16(header + GSO_SIZE, MSS);
		store_le16(header + CSUM_START, (uint16_t)tcp);
		store_le16(header + CSUM_OFFSET, TCP_CSUM);
		transmit(f, header, frame, len);
		assert_int_equal(f->frames, (PAYLOAD + MSS - 1) / MSS);
		for (unsigned n = 0; n < f->frames; n++) {
			const uint8_t *out = f->frame[n].data;
			size_t part = f->frame[n].len - headers;
			bool last = n + 1 == f->frames;
			assert_int_equal(part, last ? PAYLOAD - seen : MSS);
			assert_true(net_verify_checksum(out, f->frame[n].len));
			assert_int_equal(load_be32(out + tcp + 4), 5000 + seen);
			assert_int_equal(out[tcp + 13], last ? FIN_PSH_ACK : 0x10);
			assert_memory_equal(out + headers, frame + headers + seen, part);
			seen += part;
		}
		assert_int_equal(seen, PAYLOAD);
		net_stop(f);
	}
}

static void headers_go_to_backends_that_understand_them(void **state)
{
	struct net_fixture *f = net_new_card(1, ALL_OFFLOADS, 0);
	static uint8_t frame[8192];
	size_t len = tcp_frame(frame, 5000, false);
	uint8_t header[NET_HDR] = {NEEDS_CSUM, GSO_TCPV4};

	net_start(f, true, SENDING);
	store_le16(header + GSO_SIZE, 1448);
	transmit(f, header, frame, len);
	assert_int_equal(f->frames, 1);
	assert_int_equal(f->frame[0].len, NET_HDR + len);
	assert_memory_equal(f->frame[0].data, header, NET_HDR);
	assert_memory_equal(f->frame[0].data + NET_HDR, frame, len);
	net_stop(f);
}

/* Headers that make no sense: the frame is lost, the buffer comes back, the card goes on. */
static void senseless_headers_lose_the_frame(void **state)
{
	struct net_fixture *f = start(SENDING);
	static uint8_t frame[8192];
	size_t len = tcp_frame(frame, 4000, false);
	static const struct {
		uint8_t flags, gso;
		uint16_t size, start, offset;
	} bad[] = {
		{NEEDS_CSUM, 0, 0, 0xFFFF, 0},
		{NEEDS_CSUM, 0, 0, 4053, 0},
		{NEEDS_CSUM, 0, 0, TCP4, 0xFFFF},
		{NEEDS_CSUM, 0, 0, TCP4, 4020},
		{NEEDS_CSUM, GSO_TCPV4, 0, TCP4, TCP_CSUM},
		{NEEDS_CSUM, GSO_TCPV6, 1448, TCP4, TCP_CSUM},
		{NEEDS_CSUM, GSO_UDP, 1448, TCP4, TCP_CSUM},
		{0, 2, 1448, 0, 0},
		{0, 0x7F, 1448, 0, 0},
	};

	for (unsigned n = 0; n < ARRAY_SIZE(bad); n++) {
		uint8_t header[NET_HDR] = {bad[n].flags, bad[n].gso};
		store_le16(header + GSO_SIZE, bad[n].size);
		store_le16(header + CSUM_START, bad[n].start);
		store_le16(header + CSUM_OFFSET, bad[n].offset);
		transmit(f, header, frame, len);
		assert_int_equal(f->frames, 0);
	}
	assert_int_equal(drv_status(&f->d), 15);
	static const uint8_t none[NET_HDR];
	transmit(f, none, frame, len);
	assert_int_equal(f->frames, 1);
	net_stop(f);
}

static void chains_that_are_no_frames_come_back(void **state)
{
	struct net_fixture *f = start(VIRTIO_F_INDIRECT_DESC);
	static const uint32_t lengths[] = {
		0, 1, NET_HDR - 1, NET_HDR, NET_FRAME_MAX + NET_HDR + 1, 0x60000};

	for (unsigned n = 0; n < ARRAY_SIZE(lengths); n++) {
		drv_add(&f->d, 1, &(struct piece){NET_TX, lengths[n], false}, 1);
		drv_kick(&f->d, 1);
		drv_wait(&f->d, 1, 1, NULL, NULL);
	}
	/* Nor if the header asks for work on it. */
	put(&f->d, NET_TX, (uint8_t[]){NEEDS_CSUM}, 1);
	drv_add(&f->d, 1, &(struct piece){NET_TX, 0x40000, false}, 1);
	drv_kick(&f->d, 1);
	drv_wait(&f->d, 1, 1, NULL, NULL);
	/* Buffers to write to, where the card reads. */
	drv_add(&f->d, 1, &(struct piece){NET_TX, 500, true}, 1);
	drv_kick(&f->d, 1);
	drv_wait(&f->d, 1, 1, NULL, NULL);
	assert_int_equal(f->frames, 0);
	assert_int_equal(drv_status(&f->d), 15);
	net_stop(f);
}

/* The shortest segments: as many as bytes. What the wire does not take waits, within bounds. */
static void segments_of_one_byte(void **state)
{
	struct net_fixture *f = start(SENDING);
	static uint8_t frame[1024];
	enum { PAYLOAD = 50 };
	size_t len = tcp_frame(frame, PAYLOAD, false);
	uint8_t header[NET_HDR] = {NEEDS_CSUM, GSO_TCPV4};

	store_le16(header + GSO_SIZE, 1);
	transmit(f, header, frame, len);
	assert_int_equal(f->frames, PAYLOAD);
	net_stop(f);
}

/* Many large frames in the smallest segments do not keep the loop for one long turn. */
static void a_busy_sender_leaves_the_loop_to_others(void **state)
{
	struct net_fixture *f = start(SENDING);
	enum { FRAMES = 8, PAYLOAD = 3000 };
	static uint8_t bytes[NET_HDR + 4096];
	size_t len = NET_HDR + tcp_frame(bytes + NET_HDR, PAYLOAD, false);

	f->only_count = true;
	bytes[FLAGS] = NEEDS_CSUM;
	bytes[GSO_TYPE] = GSO_TCPV4;
	store_le16(bytes + GSO_SIZE, 1);
	put(&f->d, NET_TX, bytes, len);
	for (unsigned n = 0; n < FRAMES; n++)
		drv_add(&f->d, 1, &(struct piece){NET_TX, (uint32_t)len, false}, 1);
	drv_kick(&f->d, 1);
	rig_turn(f->r);
	assert_in_range(drv_returned(&f->d, 1), 1, FRAMES - 1);
	drv_wait(&f->d, 1, FRAMES, NULL, NULL);
	assert_int_equal(f->counted, FRAMES * PAYLOAD);
	net_stop(f);
}

static void frames_stay_in_the_ring_while_the_backend_is_full(void **state)
{
	static const uint8_t none[NET_HDR];
	struct net_fixture *f = start(SENDING);
	enum { FRAMES = 6, SIZE = 300, EACH = 1024 };
	uint8_t frame[SIZE];

	f->full = true;
	for (uint8_t n = 0; n < FRAMES; n++) {
		uint64_t at = NET_TX + EACH * n;
		make_frame(frame, sizeof(frame), n);
		put(&f->d, at, none, NET_HDR);
		put(&f->d, at + NET_HDR, frame, sizeof(frame));
		drv_add(&f->d, 1, &(struct piece){at, NET_HDR + SIZE, false}, 1);
	}
	drv_kick(&f->d, 1);
	drv_idle(&f->d);
	assert_int_equal(drv_returned(&f->d, 1), 0);
	f->full = false;
	net_receive_ready(f->wire, 0);
	drv_wait(&f->d, 1, FRAMES, NULL, NULL);
	assert_int_equal(f->frames, FRAMES);
	for (uint8_t n = 0; n < FRAMES; n++) {
		make_frame(frame, sizeof(frame), n);
		assert_memory_equal(f->frame[n].data, frame, sizeof(frame));
	}
	net_stop(f);
}

/* ---- life ---- */

static void reset_forgets_what_waits(void **state)
{
	for (int alone = 0; alone < 2; alone++) { /* the card, or a queue of it */
		struct net_fixture *f = start(VIRTIO_F_RING_RESET);
		uint8_t frame[200];
		static const uint8_t none[NET_HDR];

		/* Two frames wait for buffers, two buffers for the wire. */
		make_frame(frame, sizeof(frame), 1);
		net_send_buf(f->wire, 0, frame, sizeof(frame));
		net_send_buf(f->wire, 0, frame, sizeof(frame));
		f->full = true;
		put(&f->d, NET_TX, none, NET_HDR);
		for (unsigned n = 0; n < 2; n++)
			drv_add(&f->d, 1, &(struct piece){NET_TX, 200, false}, 1);
		drv_kick(&f->d, 1);
		drv_idle(&f->d);
		if (alone) {
			for (unsigned q = 0; q < 2; q++) {
				common_set(&f->d, 22, 2, q);
				common_set(&f->d, 58, 2, 1);
				assert_int_equal(common(&f->d, 28, 2), 0);
			}
			assert_int_equal(drv_status(&f->d), 15);
		} else {
			drv_set_status(&f->d, 0);
		}
		f->full = false;
		net_receive_ready(f->wire, 0);
		drv_idle(&f->d);
		assert_int_equal(f->frames, 0);
		assert_int_equal(get16(&f->d, f->d.q[1].used + 2), 0);
		/* Frames that come while nobody listens are gone; it goes on as a new one. */
		net_send_buf(f->wire, 0, frame, sizeof(frame));
		if (alone) {
			drv_queue_setup(&f->d, 0);
			drv_queue_setup(&f->d, 1);
		} else {
			net_start(f, true, 0);
		}
		make_frame(frame, sizeof(frame), 7);
		transmit(f, none, frame, sizeof(frame));
		assert_int_equal(f->frames, 1);
		drv_idle(&f->d);
		assert_int_equal(drv_returned(&f->d, 0), 0);
		uint64_t at = net_post(f, 0, 2000);
		drv_idle(&f->d);
		if (!drv_returned(&f->d, 0))
			net_send_buf(f->wire, 0, frame, sizeof(frame));
		drv_wait(&f->d, 0, 1, NULL, NULL);
		uint8_t back[200];
		get(&f->d, at + NET_HDR, back, sizeof(back));
		if (!alone)
			assert_memory_equal(back, frame, sizeof(back));
		net_stop(f);
	}
}

/* Rings of before the reset are not looked at afterwards. */
static void old_rings_are_left_alone(void **state)
{
	struct net_fixture *f = start(0);
	uint8_t frame[200], before[2000], after[2000];

	make_frame(frame, sizeof(frame), 1);
	uint64_t at = net_post(f, 0, 2000);
	drv_set_status(&f->d, 0);
	get(&f->d, at, before, sizeof(before));
	net_send_buf(f->wire, 0, frame, sizeof(frame));
	drv_kick(&f->d, 0);
	drv_idle(&f->d);
	get(&f->d, at, after, sizeof(after));
	assert_memory_equal(before, after, sizeof(before));
	assert_int_equal(get16(&f->d, f->d.q[0].used + 2), 0);
	net_stop(f);
}

static void state_is_restored(void **state)
{
	struct net_fixture *f = net_new_card(2, ALL_OFFLOADS, 0);
	struct strbuf image = STRBUF_INIT;
	uint8_t frame[NET_HDR + 200] = {0};

	net_start(f, true, RECEIVING | VIRTIO_NET_F_MQ | VIRTIO_NET_F_CTRL_VQ);
	assert_int_equal(net_command(f, 4, 0, "\2\0", 2), 0);
	uint64_t at = net_post(f, 1, 2000);
	state_save(f->r->env.states, &image);
	drv_set_status(&f->d, 0);
	assert_int_equal(f->hdr_len, 0);
	assert_int_equal(f->peer_queues, 1);
	assert_int_equal(state_load(f->r->env.states, image.data, image.len, NULL), 0);
	strbuf_free(&image);
	assert_int_equal(f->hdr_len, NET_HDR);
	assert_int_equal(f->peer_queues, 2);
	assert_int_equal(f->peer_offloads, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6);
	make_frame(frame + NET_HDR, 200, 1);
	net_send_buf(f->wire, 1, frame, sizeof(frame));
	drv_wait(&f->d, 2, 1, NULL, NULL);
	uint8_t back[200];
	get(&f->d, at + NET_HDR, back, sizeof(back));
	assert_memory_equal(back, frame + NET_HDR, sizeof(back));
	net_stop(f);
}

static uint64_t offered(struct net_fixture *f)
{
	uint64_t offered = 0;

	net_start(f, true, 0);
	for (unsigned i = 0; i < 2; i++) {
		common_set(&f->d, 0, 4, i);
		offered |= common(&f->d, 4, 4) << 32 * i;
	}
	return offered;
}

static void features_follow_backend_and_properties(void **state)
{
	struct net_fixture *f = net_new_card(1, 0, 0);
	const uint64_t large = VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6 |
			       VIRTIO_NET_F_GUEST_ECN | VIRTIO_NET_F_GUEST_OFFLOADS;

	assert_int_equal(offered(f) & (large | VIRTIO_NET_F_MQ), 0);
	assert_int_equal(offered(f) & (SENDING | VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_MTU),
			 SENDING | VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_MTU);
	assert_int_equal(drv_config(&f->d, 10) | drv_config(&f->d, 11) << 8, 1400);
	net_stop(f);
	f = net_new_card(2, ALL_OFFLOADS, 0);
	assert_int_equal(offered(f) & (large | VIRTIO_NET_F_MQ), large | VIRTIO_NET_F_MQ);
	net_stop(f);
	/* What needs a feature that is off is off, too. */
	f = net_new_card(2, ALL_OFFLOADS,
			 VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_CTRL_VQ);
	assert_int_equal(offered(f) & (large | SENDING | VIRTIO_NET_F_MQ | VIRTIO_NET_F_CTRL_RX |
				       VIRTIO_NET_F_CTRL_VLAN | VIRTIO_NET_F_ANNOUNCE |
				       VIRTIO_NET_F_CTRL_MAC_ADDR | VIRTIO_NET_F_CTRL_RX_EXTRA),
			 0);
	net_stop(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_come_with_a_header),
		cmocka_unit_test(frames_are_spread_over_mergeable_buffers),
		cmocka_unit_test(buffers_may_have_many_pieces),
		cmocka_unit_test(frames_wait_for_buffers),
		cmocka_unit_test(frames_too_long_for_a_buffer_are_lost),
		cmocka_unit_test(the_engine_is_told_what_was_written),
		cmocka_unit_test(read_only_buffers_take_nothing),
		cmocka_unit_test(checksums_are_vouched_for),
		cmocka_unit_test(headers_of_the_backend_reach_the_guest),
		cmocka_unit_test(backends_may_refuse_headers),
		cmocka_unit_test(plain_frames_go_out_as_they_are),
		cmocka_unit_test(frames_may_be_cut_anywhere),
		cmocka_unit_test(large_frames_are_cut_for_backends_that_cannot),
		cmocka_unit_test(headers_go_to_backends_that_understand_them),
		cmocka_unit_test(senseless_headers_lose_the_frame),
		cmocka_unit_test(chains_that_are_no_frames_come_back),
		cmocka_unit_test(segments_of_one_byte),
		cmocka_unit_test(a_busy_sender_leaves_the_loop_to_others),
		cmocka_unit_test(frames_stay_in_the_ring_while_the_backend_is_full),
		cmocka_unit_test(reset_forgets_what_waits),
		cmocka_unit_test(old_rings_are_left_alone),
		cmocka_unit_test(state_is_restored),
		cmocka_unit_test(features_follow_backend_and_properties),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
