/* SPDX-License-Identifier: MIT */
/* Checksums and TCP segmentation in software. */
#include "devices/net_offload.h"
#include "lib/bytes.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>

enum { IP = 14, TCP = 34, PAYLOAD = 54, FIN_PSH_ACK = 0x19 };

/* A TCP frame over IPv4 with `len` bytes of payload and the checksum of the pseudo header. */
static size_t tcp_frame(uint8_t *f, size_t len)
{
	memset(f, 0, PAYLOAD);
	store_be16(f + 12, 0x0800);
	f[IP] = 0x45;
	store_be16(f + IP + 2, (uint16_t)(40 + len));
	store_be16(f + IP + 4, 7);
	f[IP + 8] = 64;
	f[IP + 9] = 6;
	store_be32(f + IP + 12, 0x0A00020F);
	store_be32(f + IP + 16, 0x0A000202);
	store_be32(f + TCP + 4, 1000);
	f[TCP + 12] = 0x50;
	f[TCP + 13] = FIN_PSH_ACK;
	for (size_t n = 0; n < len; n++)
		f[PAYLOAD + n] = (uint8_t)(n * 7);
	uint32_t sum = net_sum(f + IP + 12, 8, 0) + 6u + (uint32_t)(20 + len);
	store_be16(f + TCP + 16, net_sum(NULL, 0, sum));
	return PAYLOAD + len;
}

static void example_of_rfc_1071(void **state)
{
	static const uint8_t data[] = {0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7};
	assert_int_equal(net_sum(data, sizeof(data), 0), 0xDDF2);
}

static void partial_checksums_are_completed(void **state)
{
	uint8_t f[256];
	size_t len = tcp_frame(f, 101);
	assert_false(net_verify_checksum(f, len));
	assert_true(net_finish_checksum(f, len, TCP, 16));
	assert_true(net_verify_checksum(f, len));
	f[PAYLOAD] ^= 1;
	assert_false(net_verify_checksum(f, len));
	assert_false(net_finish_checksum(f, len, len, 0));
	assert_false(net_finish_checksum(f, len, TCP, len - TCP - 1));
}

static void large_frames_become_segments(void **state)
{
	static uint8_t f[8192], out[8192];
	struct net_segmenter s;
	size_t len = tcp_frame(f, 3500), part, seen = 0;
	unsigned count = 0;

	assert_true(net_segmenter_init(&s, f, len, 1460, false));
	while ((part = net_segmenter_next(&s, out))) {
		bool last = seen + part - PAYLOAD == 3500;
		assert_true(net_verify_checksum(out, part));
		assert_int_equal(net_sum(out + IP, 20, 0), 0xFFFF);
		assert_int_equal(load_be16(out + IP + 4), 7 + count);
		assert_int_equal(load_be32(out + TCP + 4), 1000 + seen);
		assert_int_equal(out[TCP + 13], last ? FIN_PSH_ACK : 0x10);
		assert_memory_equal(out + PAYLOAD, f + PAYLOAD + seen, part - PAYLOAD);
		seen += part - PAYLOAD;
		count++;
	}
	assert_int_equal(seen, 3500);
	assert_int_equal(count, 3);
}

static void what_is_no_tcp_frame_is_not_cut(void **state)
{
	uint8_t f[256];
	struct net_segmenter s;
	size_t len = tcp_frame(f, 100);
	assert_false(net_segmenter_init(&s, f, len, 0, false));
	assert_false(net_segmenter_init(&s, f, len, 10, true));
	for (size_t n = 0; n < PAYLOAD; n++)
		assert_false(net_segmenter_init(&s, f, n, 10, false));
	f[TCP + 12] = 0xF0; /* a header longer than the frame */
	assert_false(net_segmenter_init(&s, f, PAYLOAD, 10, false));
	f[TCP + 12] = 0x40;
	assert_false(net_segmenter_init(&s, f, len, 10, false));
	f[TCP + 12] = 0x50;
	f[IP + 9] = 17;
	assert_false(net_segmenter_init(&s, f, len, 10, false));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(example_of_rfc_1071),
		cmocka_unit_test(partial_checksums_are_completed),
		cmocka_unit_test(large_frames_become_segments),
		cmocka_unit_test(what_is_no_tcp_frame_is_not_cut),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
