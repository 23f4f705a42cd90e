/* SPDX-License-Identifier: MIT */
/* The NE2000: PROM, remote DMA, receive ring and filter, commands that change nothing, bounds. */
#include "devices/ne2000.h"
#include "rig.h"
#include <string.h>

enum { BASE = 0x300, CR = BASE, DATA = BASE + 0x10, RESET = BASE + 0x1F, IRQ = 9 };
enum { STOP = 0x21, START = 0x22, PAGE1 = 0x40, READ = 0x0A, WRITE = 0x12, TRANSMIT = 0x26 };

struct fixture {
	struct rig rig;
	struct net *net;
	struct ne2000 *card;
	struct net_port *wire;
	uint8_t sent[2048];
	size_t sent_len;
};

static const uint8_t mac[NET_MAC_LEN] = {0x52, 0x54, 0, 1, 2, 3};

static bool wire_receive(void *opaque, unsigned queue, const struct iovec *iov, int count,
			 size_t len)
{
	struct fixture *f = opaque;
	f->sent_len = net_iov_copy(f->sent, sizeof(f->sent), iov, count, 0);
	return true;
}

static const struct net_port_ops wire_ops = {.receive = wire_receive};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct error err = ERROR_INIT;
	rig_init(&f->rig);
	f->net = net_new(f->rig.env.loop, f->rig.env.clock);
	f->wire = net_port_new(f->net, NET_BACKEND, "wire", "test", 1, &wire_ops, f, &err);
	struct nic_config nic = {.net = f->net, .id = "card", .peer = f->wire};
	memcpy(nic.mac, mac, sizeof(mac));
	f->card = ne2000_isa_new(&f->rig.env, &nic, 0, BASE, rig_line(&f->rig, IRQ), &err);
	assert_non_null(f->card);
	state_reset_all(f->rig.env.states);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	ne2000_free(f->card);
	net_free(f->net);
	rig_fini(&f->rig);
	free(f);
	return 0;
}

static void dma(struct fixture *f, uint16_t addr, uint16_t len, uint8_t command)
{
	outb(&f->rig, BASE + 0x0A, (uint8_t)len);
	outb(&f->rig, BASE + 0x0B, (uint8_t)(len >> 8));
	outb(&f->rig, BASE + 0x08, (uint8_t)addr);
	outb(&f->rig, BASE + 0x09, (uint8_t)(addr >> 8));
	outb(&f->rig, CR, command);
}

/* Ring 46..4F, BNRY 46, CURR 47, accepts its own address, interrupt on reception. */
static void start(struct fixture *f)
{
	struct rig *r = &f->rig;
	outb(r, CR, STOP);
	outb(r, BASE + 0x01, 0x46);
	outb(r, BASE + 0x02, 0x50);
	outb(r, BASE + 0x03, 0x46);
	outb(r, BASE + 0x0C, 0);
	outb(r, BASE + 0x0D, 0);
	outb(r, BASE + 0x0F, 1);
	outb(r, CR, STOP | PAGE1);
	outb(r, BASE + 0x07, 0x47);
	for (unsigned n = 0; n < NET_MAC_LEN; n++)
		outb(r, BASE + 1 + n, mac[n]);
	outb(r, CR, START);
}

static void arrive(struct fixture *f, const uint8_t *to, size_t len)
{
	uint8_t frame[1514] = {0};
	memcpy(frame, to, NET_MAC_LEN);
	frame[len - 1] = 0xA5;
	net_send_buf(f->wire, 0, frame, len);
}

static uint8_t curr(struct fixture *f)
{
	outb(&f->rig, CR, PAGE1);
	uint8_t value = inb(&f->rig, BASE + 0x07);
	outb(&f->rig, CR, 0);
	return value;
}

static void the_prom_tells_address_and_width(void **state)
{
	struct fixture *f = *state;
	dma(f, 0, 32, READ);
	for (unsigned n = 0; n < 32; n++) {
		uint8_t want = n / 2 < 6 ? mac[n / 2] : n >= 28 ? 0x57 : 0;
		assert_int_equal(inb(&f->rig, DATA), want);
	}
	assert_true(inb(&f->rig, BASE + 0x07) & 0x40);
}

static void remote_dma_stays_in_its_memory(void **state)
{
	struct fixture *f = *state;
	static const uint16_t places[] = {0, 0x3FFF, 0xBFFF, 0xFFFE};
	for (unsigned n = 0; n < 4; n++) {
		dma(f, places[n], 0xFFFF, WRITE);
		for (unsigned i = 0; i < 0xFFFF; i++)
			outb(&f->rig, DATA, 0xEE);
	}
	dma(f, 0, 2, READ);
	assert_int_equal(inb(&f->rig, DATA), mac[0]);
	dma(f, 0x4000, 1, READ);
	assert_int_equal(inb(&f->rig, DATA), 0xEE);
}

static void frames_go_round_the_ring(void **state)
{
	struct fixture *f = *state;
	start(f);
	arrive(f, mac, 1000); /* four pages */
	assert_int_equal(curr(f), 0x4B);
	assert_true(f->rig.line[IRQ]);
	arrive(f, mac, 1000);
	assert_int_equal(curr(f), 0x4F);
	arrive(f, mac, 1000); /* does not fit before BNRY: waits */
	assert_int_equal(curr(f), 0x4F);
	outb(&f->rig, BASE + 0x03, 0x4E);
	loop_unlock(f->rig.env.loop);
	loop_run_once(f->rig.env.loop, 0);
	loop_lock(f->rig.env.loop);
	assert_int_equal(curr(f), 0x49);
	/* The header of the frame that goes round: status, next page, length with FCS. */
	dma(f, 0x4F00, 4, READ);
	assert_int_equal(inb(&f->rig, DATA), 0x01);
	assert_int_equal(inb(&f->rig, DATA), 0x49);
	assert_int_equal(inb(&f->rig, DATA) | inb(&f->rig, DATA) << 8, 1004);
}

static void only_wanted_frames_are_taken(void **state)
{
	struct fixture *f = *state;
	static const uint8_t other[6] = {0x52, 0x54, 0, 9, 9, 9},
			     all[6] = {255, 255, 255, 255, 255, 255};
	start(f);
	arrive(f, other, 60);
	arrive(f, all, 60);
	assert_int_equal(curr(f), 0x47);
	outb(&f->rig, BASE + 0x0C, 0x14); /* broadcast and promiscuous */
	arrive(f, other, 60);
	arrive(f, all, 60);
	assert_int_equal(curr(f), 0x49);
}

static void switching_pages_does_not_stop_it(void **state)
{
	struct fixture *f = *state;
	start(f);
	outb(&f->rig, CR, PAGE1);
	arrive(f, mac, 60);
	assert_int_equal(curr(f), 0x48);
	outb(&f->rig, CR, STOP);
	arrive(f, mac, 60);
	assert_int_equal(curr(f), 0x48);
}

static void a_frame_in_the_acknowledging_gap_is_signalled(void **state)
{
	struct fixture *f = *state;
	start(f);
	arrive(f, mac, 60);
	curr(f);
	arrive(f, mac, 60);
	outb(&f->rig, BASE + 0x07, 1);
	assert_true(f->rig.line[IRQ]);
	curr(f);
	outb(&f->rig, BASE + 0x07, 1);
	assert_false(f->rig.line[IRQ]);
}

static void frames_are_sent_from_memory(void **state)
{
	struct fixture *f = *state;
	start(f);
	dma(f, 0x4000, 64, WRITE);
	for (unsigned n = 0; n < 64; n++)
		outb(&f->rig, DATA, (uint8_t)n);
	outb(&f->rig, BASE + 0x04, 0x40);
	outb(&f->rig, BASE + 0x05, 64);
	outb(&f->rig, BASE + 0x06, 0);
	outb(&f->rig, CR, TRANSMIT);
	assert_int_equal(f->sent_len, 64);
	assert_int_equal(f->sent[63], 63);
	assert_true(inb(&f->rig, BASE + 0x07) & 2);
	f->sent_len = 0;
	outb(&f->rig, BASE + 0x0D, 2); /* loopback */
	outb(&f->rig, CR, TRANSMIT);
	assert_int_equal(f->sent_len, 0);
}

static void the_reset_port_resets(void **state)
{
	struct fixture *f = *state;
	start(f);
	inb(&f->rig, RESET);
	assert_int_equal(inb(&f->rig, CR), STOP);
	assert_true(inb(&f->rig, BASE + 0x07) & 0x80);
	rig_save_reset_load(&f->rig);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(the_prom_tells_address_and_width),
		TEST(remote_dma_stays_in_its_memory),
		TEST(frames_go_round_the_ring),
		TEST(only_wanted_frames_are_taken),
		TEST(switching_pages_does_not_stop_it),
		TEST(a_frame_in_the_acknowledging_gap_is_signalled),
		TEST(frames_are_sent_from_memory),
		TEST(the_reset_port_resets),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
