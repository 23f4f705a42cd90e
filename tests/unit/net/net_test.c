/* SPDX-License-Identifier: MIT */
/* Ports, links, hubs, framing, addresses and the texts of the user network. */
#include "lib/bytes.h"
#include "lib/clock.h"
#include "lib/loop.h"
#include "net/frames.h"
#include "net/netdev.h"
#include "net/user_rules.h"
#include "net/user_syn.h"
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { KEPT = 64 };

/* A port that notes what it is sent. */
struct end {
	struct net_port *port;
	bool full;               /* takes nothing */
	const char *reply;       /* sent back from within receive() */
	bool in_receive, nested; /* receive() was called within our own send */
	bool sending;
	unsigned count, resumed, links;
	char frame[KEPT][32];
};

static bool end_receive(void *opaque, unsigned queue, const struct iovec *iov, int count,
			size_t len)
{
	struct end *e = opaque;
	if (e->sending)
		e->nested = true;
	if (e->full || e->count == KEPT)
		return false;
	size_t n = net_iov_copy(e->frame[e->count], sizeof(e->frame[0]) - 1, iov, count, 0);
	e->frame[e->count++][n] = 0;
	if (e->reply) {
		const char *reply = e->reply;
		e->reply = NULL;
		net_send_buf(e->port, 0, reply, strlen(reply));
	}
	return true;
}

static void end_resume(void *opaque, unsigned queue)
{
	struct end *e = opaque;
	e->resumed++;
}

static void end_link(void *opaque)
{
	struct end *e = opaque;
	e->links++;
}

static const struct net_port_ops end_ops = {
	.receive = end_receive, .resume = end_resume, .link_changed = end_link};

struct rig {
	struct loop *loop;
	struct clock *clock;
	struct net *net;
	struct end a, b, c;
};

static void make_end(struct rig *r, struct end *e, enum net_kind kind, const char *id)
{
	struct error err = ERROR_INIT;
	e->port = net_port_new(r->net, kind, id, "test", 1, &end_ops, e, &err);
	assert_non_null(e->port);
}

static int setup(void **state)
{
	struct error err = ERROR_INIT;
	struct rig *r = calloc(1, sizeof(*r));
	r->loop = loop_new(&err);
	r->clock = clock_new(r->loop);
	r->net = net_new(r->loop, r->clock);
	loop_lock(r->loop);
	make_end(r, &r->a, NET_NIC, "a");
	make_end(r, &r->b, NET_BACKEND, "b");
	make_end(r, &r->c, NET_BACKEND, "c");
	loop_unlock(r->loop);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;
	loop_lock(r->loop);
	net_free(r->net);
	loop_unlock(r->loop);
	clock_free(r->clock);
	loop_free(r->loop);
	free(r);
	return 0;
}

static void join(struct net_port *x, struct net_port *y)
{
	struct error err = ERROR_INIT;
	assert_int_equal(net_join(x, y, &err), 0);
}

static void send_text(struct end *from, const char *text)
{
	from->sending = true;
	net_send_buf(from->port, 0, text, strlen(text));
	from->sending = false;
}

static bool try_text(struct end *from, const char *text)
{
	struct iovec iov = {(void *)text, strlen(text)};
	return net_try_send(from->port, 0, &iov, 1);
}

static void turns(struct rig *r)
{
	for (int n = 0; n < 4; n++)
		loop_run_once(r->loop, 0);
}

static void a_frame_reaches_the_peer(void **state)
{
	struct rig *r = *state;
	struct iovec iov[] = {{(void *)"he", 2}, {(void *)"", 0}, {(void *)"llo", 3}};
	join(r->a.port, r->b.port);
	net_send(r->a.port, 0, iov, 3);
	assert_int_equal(r->b.count, 1);
	assert_string_equal(r->b.frame[0], "hello");
	assert_int_equal(net_port_stats(r->a.port)->sent_bytes, 5);
}

static void a_port_has_one_peer(void **state)
{
	struct rig *r = *state;
	struct error err = ERROR_INIT;
	join(r->a.port, r->b.port);
	assert_int_equal(net_join(r->c.port, r->b.port, &err), -EBUSY);
	assert_non_null(strstr(err.text, "'a'"));
	net_part(r->b.port);
	assert_null(net_peer(r->a.port));
	assert_int_equal(net_join(r->c.port, r->b.port, &err), 0);
}

static void a_full_port_gets_its_frames_in_order_later(void **state)
{
	struct rig *r = *state;
	join(r->a.port, r->b.port);
	r->b.full = true;
	send_text(&r->a, "1");
	send_text(&r->a, "2");
	assert_false(try_text(&r->a, "3"));
	r->b.full = false;
	/* Older frames are still waiting: this one must not overtake them. */
	send_text(&r->a, "4");
	assert_int_equal(r->b.count, 0);
	loop_lock(r->loop);
	net_receive_ready(r->b.port, 0);
	loop_unlock(r->loop);
	turns(r);
	assert_int_equal(r->b.count, 3);
	assert_string_equal(r->b.frame[0], "1");
	assert_string_equal(r->b.frame[1], "2");
	assert_string_equal(r->b.frame[2], "4");
	assert_int_equal(r->a.resumed, 1);
	assert_true(try_text(&r->a, "3"));
}

static void cards_that_are_held_get_their_frames_later(void **state)
{
	struct rig *r = *state;
	join(r->a.port, r->b.port);
	net_hold_cards(r->net, true);
	send_text(&r->b, "1");
	assert_false(try_text(&r->b, "2"));
	send_text(&r->a, "out");
	net_receive_ready(r->a.port, 0); /* a card may be reset meanwhile */
	turns(r);
	assert_int_equal(r->a.count, 0);
	assert_int_equal(r->b.count, 1); /* only cards are held */
	loop_lock(r->loop);
	net_hold_cards(r->net, false);
	loop_unlock(r->loop);
	turns(r);
	assert_int_equal(r->a.count, 1);
	assert_string_equal(r->a.frame[0], "1");
	assert_int_equal(r->b.resumed, 1);
	assert_true(try_text(&r->b, "2"));
}

static void an_answer_comes_after_the_send(void **state)
{
	struct rig *r = *state;
	join(r->a.port, r->b.port);
	r->b.reply = "pong";
	send_text(&r->a, "ping");
	assert_int_equal(r->a.count, 0);
	turns(r);
	assert_int_equal(r->a.count, 1);
	assert_string_equal(r->a.frame[0], "pong");
	assert_false(r->a.nested);
}

static void nothing_passes_a_link_that_is_down(void **state)
{
	struct rig *r = *state;
	join(r->a.port, r->b.port);
	unsigned told = r->a.links;
	r->b.full = true;
	send_text(&r->a, "old");
	assert_false(try_text(&r->a, "held"));
	net_set_link(r->b.port, false);
	assert_false(net_link_up(r->a.port));
	assert_int_equal(r->a.links, told + 1);
	assert_int_equal(r->b.links, 2);
	r->b.full = false;
	send_text(&r->a, "lost");
	turns(r);
	/* Who held a frame back may go on. */
	assert_int_equal(r->a.resumed, 1);
	net_set_link(r->b.port, true);
	turns(r);
	assert_int_equal(r->b.count, 0);
	send_text(&r->a, "new");
	assert_string_equal(r->b.frame[0], "new");
}

static void a_hub_repeats_to_all_others(void **state)
{
	struct rig *r = *state;
	struct error err = ERROR_INIT;
	struct net_port *hub[4];
	static const char *const ids[] = {"h0", "h1", "h2", "other"};
	for (int n = 0; n < 4; n++)
		hub[n] = net_hubport_new(r->net, ids[n], n == 3 ? 1 : 0, &err);
	join(r->a.port, hub[0]);
	join(hub[1], r->b.port);
	join(r->c.port, hub[2]);
	send_text(&r->a, "all");
	turns(r);
	assert_int_equal(r->a.count, 0);
	assert_int_equal(r->b.count, 1);
	assert_int_equal(r->c.count, 1);
	/* An answer to one while another is full reaches the one and waits for the other. */
	r->c.full = true;
	send_text(&r->b, "answer");
	turns(r);
	assert_int_equal(r->a.count, 1);
	r->c.full = false;
	net_receive_ready(r->c.port, 0);
	turns(r);
	assert_int_equal(r->c.count, 2);
	assert_int_equal(net_hubport_id(hub[3]), 1);
	assert_int_equal(net_hubport_id(r->a.port), -1);
}

static void impossible_lengths_are_lost(void **state)
{
	struct rig *r = *state;
	static uint8_t big[NET_FRAME_MAX + 1];
	join(r->a.port, r->b.port);
	net_send_buf(r->a.port, 0, big, 0);
	net_send_buf(r->a.port, 0, big, sizeof(big));
	assert_int_equal(r->b.count, 0);
}

struct watcher {
	struct net_filter filter;
	unsigned sent, received;
};

static void watch(struct net_filter *filter, bool sent, const struct iovec *iov, int count,
		  size_t len)
{
	struct watcher *w = container_of(filter, struct watcher, filter);
	*(sent ? &w->sent : &w->received) += 1;
}

static void a_filter_sees_both_directions(void **state)
{
	struct rig *r = *state;
	struct watcher w = {.filter.frame = watch};
	join(r->a.port, r->b.port);
	net_filter_attach(&w.filter, r->b.port);
	send_text(&r->a, "in");
	send_text(&r->b, "out");
	assert_int_equal(w.sent, 1);
	assert_int_equal(w.received, 1);
	net_port_free(r->b.port);
	assert_null(w.filter.port);
}

static void ids_are_unique(void **state)
{
	struct rig *r = *state;
	struct error err = ERROR_INIT;
	assert_null(net_hubport_new(r->net, "b", 0, &err));
	assert_int_equal(err.code, EEXIST);
}

static void a_card_may_be_called_as_its_backend_is(void **state)
{
	static const struct net_port_ops nothing = {0};
	struct rig *r = *state;
	struct error err = ERROR_INIT;
	struct net_port *nic =
		net_port_new(r->net, NET_NIC, "hub", "card", 1, &nothing, NULL, &err);
	struct net_port *hub = net_hubport_new(r->net, "hub", 0, &err);
	assert_non_null(nic);
	assert_non_null(hub);
	assert_ptr_equal(net_find_nic(r->net, "hub"), nic);
	assert_ptr_equal(net_find_backend(r->net, "hub"), hub);
	assert_null(net_port_new(r->net, NET_NIC, "hub", "card", 1, &nothing, NULL, &err));
	assert_int_equal(err.code, EEXIST);
	net_port_free(nic);
}

/* ---- Framing ---- */

static unsigned feed(struct frame_reader *reader, const uint8_t *data, size_t len, size_t piece)
{
	unsigned frames = 0;
	while (len) {
		uint8_t *at;
		size_t want;
		if (frame_reader_want(reader, &at, &want) < 0)
			return UINT32_MAX;
		if (want > piece)
			want = piece;
		if (want > len)
			want = len;
		memcpy(at, data, want);
		data += want;
		len -= want;
		if (frame_reader_got(reader, want)) {
			size_t n;
			const uint8_t *frame = frame_reader_frame(reader, &n);
			assert_int_equal(n, 3 + frames);
			assert_memory_equal(frame, "abcdef", n);
			frames++;
			frame_reader_next(reader);
		}
	}
	return frames;
}

static void frames_are_put_together_from_any_pieces(void **state)
{
	static const uint8_t stream[] = "\0\0\0\3abc\0\0\0\4abcd\0\0\0\5abcde";
	for (size_t piece = 1; piece < sizeof(stream); piece++) {
		struct frame_reader *reader = calloc(1, sizeof(*reader));
		assert_int_equal(feed(reader, stream, sizeof(stream) - 1, piece), 3);
		free(reader);
	}
}

static void impossible_frame_lengths_are_refused(void **state)
{
	static const char *const streams[] = {"\0\0\0\0x", "\xff\xff\xff\xffx", "\0\2\0\0x"};
	for (size_t n = 0; n < ARRAY_SIZE(streams); n++) {
		struct frame_reader *reader = calloc(1, sizeof(*reader));
		assert_int_equal(feed(reader, (const uint8_t *)streams[n], 5, 5), UINT32_MAX);
		free(reader);
	}
}

/* ---- Texts ---- */

static void addresses_of_cards(void **state)
{
	static const char *const bad[] = {"",
					  "52:54:00:12:34",
					  "52:54:00:12:34:5g",
					  "52:54:00:12:34:567",
					  "52:54:00:12:34:56:78",
					  "525400123456",
					  "01:00:00:00:00:01",
					  "ff:ff:ff:ff:ff:ff",
					  "00:00:00:00:00:00"};
	uint8_t mac[NET_MAC_LEN];
	struct error err = ERROR_INIT;
	assert_int_equal(net_parse_mac("52:54:0:aB:34-56", mac, &err), 0);
	assert_memory_equal(mac, "\x52\x54\x00\xab\x34\x56", 6);
	for (size_t n = 0; n < ARRAY_SIZE(bad); n++)
		assert_int_equal(net_parse_mac(bad[n], mac, &err), -EINVAL);
}

static void default_addresses_differ_and_stay(void **state)
{
	uint8_t mac[64][NET_MAC_LEN], again[NET_MAC_LEN];
	char seed[32];
	for (int n = 0; n < 64; n++) {
		snprintf(seed, sizeof(seed), "name vm%d", n);
		net_default_mac(seed, 0, mac[n]);
		assert_memory_equal(mac[n], "\x52\x54\x00", 3);
		net_default_mac(seed, 0, again);
		assert_memory_equal(mac[n], again, sizeof(again));
		net_default_mac(seed, 1, again);
		assert_memory_not_equal(mac[n], again, sizeof(again));
		for (int other = 0; other < n; other++)
			assert_memory_not_equal(mac[n], mac[other], sizeof(again));
	}
}

static void forward_rules(void **state)
{
	static const char *const bad[] = {"",
					  "tcp",
					  "tcp:80-:80x",
					  "tcp::80",
					  "tcp::80-80",
					  "icmp::1-:1",
					  "tcp:host:1-:2",
					  "tcp::1-:0",
					  "tcp::65536-:1",
					  "unix:-:22",
					  "tcp:[::1:1-:2",
					  "tcp:[::1]:1-1.2.3.4:2",
					  "tcp:[::1]:1-:2"};
	struct hostfwd f;
	struct error err = ERROR_INIT;
	assert_int_equal(hostfwd_parse("tcp::2222-:22", &f, &err), 0);
	assert_false(f.udp);
	assert_int_equal(ntohs(f.host.in.sin_port), 2222);
	assert_int_equal(ntohs(f.guest.in.sin_port), 22);
	assert_int_equal(hostfwd_parse("udp:127.0.0.1:53-10.0.2.15:5353", &f, &err), 0);
	assert_true(f.udp);
	assert_int_equal(f.host.in.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
	assert_int_equal(f.guest.in.sin_addr.s_addr, htonl(0x0A00020F));
	assert_int_equal(hostfwd_parse("tcp:[::1]:80-[fec0::15]:80", &f, &err), 0);
	assert_int_equal(f.host.any.sa_family, AF_INET6);
	assert_int_equal(hostfwd_parse("unix:/run/a-b-:22", &f, &err), 0);
	assert_string_equal(f.host.un.sun_path, "/run/a-b");
	/* The host chooses; but it cannot say which to remove. */
	assert_int_equal(hostfwd_parse("tcp::0-:80", &f, &err), 0);
	assert_int_equal(f.host.in.sin_port, 0);
	assert_true(hostfwd_parse_host("tcp::0", &f, &err) < 0);
	for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
		err = ERROR_INIT;
		assert_true(hostfwd_parse(bad[n], &f, &err) < 0);
		assert_true(err.text[0]);
	}
}

static void guest_forward_rules(void **state)
{
	static const char *const bad[] = {"",         "udp:10.0.2.9:1-null", "tcp:10.0.2.9:1-",
					  "tcp::1-x", "tcp:10.0.2.9:0-x",    "tcp:10.0.2.9:1"};
	struct guestfwd f;
	struct error err = ERROR_INIT;
	assert_int_equal(guestfwd_parse("tcp:10.0.2.9:80-cmd:/bin/cat -", &f, &err), 0);
	assert_string_equal(f.command, "/bin/cat -");
	assert_int_equal(f.port, 80);
	assert_int_equal(guestfwd_parse("10.0.2.9:80-tcp:localhost:1", &f, &err), 0);
	assert_string_equal(f.stream, "tcp:localhost:1");
	for (size_t n = 0; n < ARRAY_SIZE(bad); n++)
		assert_true(guestfwd_parse(bad[n], &f, &err) < 0);
}

static void networks(void **state)
{
	static const char *const bad[] = {
		"", "10.0.0.0/31", "10.0.0.0/0", "10.0.0.0/255.0.255.0", "x/24", "10.0.0.0/"};
	struct in_addr net, mask;
	struct error err = ERROR_INIT;
	assert_int_equal(user_parse_net("10.1.2.3/24", &net, &mask, &err), 0);
	assert_int_equal(ntohl(net.s_addr), 0x0A010200);
	assert_int_equal(ntohl(mask.s_addr), 0xFFFFFF00);
	assert_int_equal(user_parse_net("172.16.0.0/255.240.0.0", &net, &mask, &err), 0);
	assert_int_equal(ntohl(mask.s_addr), 0xFFF00000);
	assert_int_equal(user_parse_net("192.168.7.0", &net, &mask, &err), 0);
	assert_int_equal(ntohl(mask.s_addr), 0xFFFFFF00);
	for (size_t n = 0; n < ARRAY_SIZE(bad); n++)
		assert_true(user_parse_net(bad[n], &net, &mask, &err) < 0);
}

/* The sum over pseudo header and segment, which is 0xFFFF for a good checksum (RFC 9293, 3.1). */
static unsigned tcp_sum(const uint8_t *ip, size_t addresses, size_t size, const uint8_t *tcp,
			size_t len)
{
	uint32_t sum = 6 + (uint32_t)len;
	for (size_t i = 0; i < 2 * size; i += 2)
		sum += load_be16(ip + addresses + i);
	for (size_t i = 0; i < len; i += 2)
		sum += load_be16(tcp + i);
	while (sum >> 16)
		sum = (sum & 0xFFFF) + (sum >> 16);
	return sum;
}

/* libslirp forgets what a connection has buffered when it reads a second MSS option. */
static void repeated_syns_lose_their_mss_option(void **state)
{
	static const uint8_t v4[] = {0x45, 0, 0,  48, 0, 1,  0x40, 0, 64, 6,
				     0,    0, 10, 0,  2, 15, 10,   0, 2,  2};
	static const uint8_t v6[40] = {0x60, 0,  0,    0,    0,         28,
				       6,    64, 0xfe, 0xc0, [23] = 15, [39] = 2};
	struct user_syns *syns = calloc(1, sizeof(*syns));

	for (unsigned n = 0; n < 8; n++) {
		bool six = n & 1, odd = n & 2, small = n & 4;
		size_t header = six ? sizeof(v6) : sizeof(v4), tcp = 14 + header, len = tcp + 28;
		uint8_t frame[128] = {0}, first[128];
		unsigned mss = (six ? 1440u : 1460u) - small;
		/* SYN and ACK; the option at an even or at an odd place. */
		uint8_t segment[28] = {0x1B, 0x58, 0xC9, (uint8_t)n, 1, 2,    3,
				       4,    5,    6,    7,          8, 0x70, 0x12};
		uint8_t *option = segment + (odd ? 21 : 20);
		memset(segment + 20, 1, 8);
		option[0] = 2;
		option[1] = 4;
		store_be16(option + 2, (uint16_t)mss);
		store_be16(frame + 12, six ? 0x86DD : 0x0800);
		memcpy(frame + 14, six ? v6 : v4, header);
		memcpy(frame + tcp, segment, sizeof(segment));
		size_t addresses = six ? 8 : 12, size = six ? 16 : 4;
		unsigned sum = tcp_sum(frame + 14, addresses, size, frame + tcp, 28);
		store_be16(frame + tcp + 16, (uint16_t)~sum);
		memcpy(first, frame, sizeof(first));

		assert_int_equal(user_repeated_mss(syns, frame, len), 0);
		size_t at = user_repeated_mss(syns, frame, len);
		if (small) {
			assert_int_equal(at, 0);
			continue;
		}
		assert_int_equal(at, tcp + (size_t)(option - segment));
		user_erase_mss(frame, at);
		assert_int_equal(frame[at] | frame[at + 1] | frame[at + 2] | frame[at + 3], 1);
		assert_int_equal(tcp_sum(frame + 14, addresses, size, frame + tcp, 28), 0xFFFF);
		assert_int_equal(user_repeated_mss(syns, frame, len), 0);
		/* What is cut off, of another protocol, a fragment or no SYN is left alone. */
		for (size_t cut = 0; cut < len; cut++)
			assert_int_equal(user_repeated_mss(syns, first, cut), 0);
		first[tcp + 13] = 0x10;
		assert_int_equal(user_repeated_mss(syns, first, len), 0);
		first[tcp + 13] = 0x12;
		first[six ? 20 : 23] = 17;
		assert_int_equal(user_repeated_mss(syns, first, len), 0);
	}
	free(syns);
}

int main(void)
{
#define WITH_RIG(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		WITH_RIG(a_frame_reaches_the_peer),
		WITH_RIG(a_port_has_one_peer),
		WITH_RIG(a_full_port_gets_its_frames_in_order_later),
		WITH_RIG(cards_that_are_held_get_their_frames_later),
		WITH_RIG(an_answer_comes_after_the_send),
		WITH_RIG(nothing_passes_a_link_that_is_down),
		WITH_RIG(a_hub_repeats_to_all_others),
		WITH_RIG(impossible_lengths_are_lost),
		WITH_RIG(a_filter_sees_both_directions),
		WITH_RIG(ids_are_unique),
		WITH_RIG(a_card_may_be_called_as_its_backend_is),
		cmocka_unit_test(frames_are_put_together_from_any_pieces),
		cmocka_unit_test(impossible_frame_lengths_are_refused),
		cmocka_unit_test(addresses_of_cards),
		cmocka_unit_test(default_addresses_differ_and_stay),
		cmocka_unit_test(forward_rules),
		cmocka_unit_test(guest_forward_rules),
		cmocka_unit_test(networks),
		cmocka_unit_test(repeated_syns_lose_their_mss_option),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
