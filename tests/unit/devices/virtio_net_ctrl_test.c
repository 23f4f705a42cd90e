/* SPDX-License-Identifier: MIT */
/* virtio-net's control queue: receive filters, addresses, VLANs, queues, offloads, announcements, and
 * what is not a command. */
#include "virtio_net_rig.h"

enum { OK = 0, ERR = 1 };
enum { RX = 0, MAC = 1, VLAN = 2, ANNOUNCE = 3, MQ = 4, OFFLOADS = 5 };
enum { PROMISC = 0, ALLMULTI, ALLUNI, NOMULTI, NOUNI, NOBCAST };
enum { TABLE_SET = 0, ADDR_SET = 1, VLAN_ADD = 0, VLAN_DEL = 1, TABLE_SIZE = 64 };
enum { CONFIG_STATUS = 6, LINK = 1, ANNOUNCED = 2, FRAME = 64 };

#define FILTERS                                                                                    \
	(VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX | VIRTIO_NET_F_CTRL_RX_EXTRA |                \
	 VIRTIO_NET_F_CTRL_VLAN | VIRTIO_NET_F_CTRL_MAC_ADDR)

static const uint8_t broadcast[6] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
static const uint8_t stranger[6] = {0x52, 0x54, 0, 9, 9, 9};
static const uint8_t group[6] = {0x01, 0, 0x5E, 0, 0, 1};

static struct net_fixture *start(uint64_t features)
{
	struct net_fixture *f = net_new_card(1, 0, 0);
	net_start(f, true, features);
	return f;
}

/* Whether a frame for this address reaches the guest; `vlan` < 0: without a tag. */
static bool comes_tagged(struct net_fixture *f, const uint8_t *to, int vlan)
{
	uint8_t frame[FRAME] = {0}, back[FRAME];

	memcpy(frame, to, 6);
	memcpy(frame + 6, stranger, 6);
	store_be16(frame + 12, vlan < 0 ? 0x88B5 : 0x8100);
	if (vlan >= 0)
		store_be16(frame + 14, (uint16_t)(0xE000 | vlan)); /* with a priority */
	frame[20] = 0x77;
	uint64_t at = net_post(f, 0, NET_HDR + FRAME);
	net_send_buf(f->wire, 0, frame, sizeof(frame));
	unsigned came = drv_returned(&f->d, 0);
	if (!came) {
		/* The buffer waits for another frame: it is taken out of the way. */
		assert_int_equal(net_command(f, RX, PROMISC, "\1", 1), OK);
		net_send_buf(f->wire, 0, frame, sizeof(frame));
		assert_int_equal(drv_returned(&f->d, 0), 1);
		assert_int_equal(net_command(f, RX, PROMISC, "\0", 1), OK);
	}
	get(&f->d, at + NET_HDR, back, sizeof(back));
	assert_memory_equal(back, frame, sizeof(frame));
	drv_wait(&f->d, 0, 1, NULL, NULL);
	return came;
}

static bool comes(struct net_fixture *f, const uint8_t *to)
{
	return comes_tagged(f, to, -1);
}

static void expect(struct net_fixture *f, bool own, bool other, bool multicast, bool everyone)
{
	assert_int_equal(comes(f, card_mac), own);
	assert_int_equal(comes(f, stranger), other);
	assert_int_equal(comes(f, group), multicast);
	assert_int_equal(comes(f, broadcast), everyone);
}

static void mode(struct net_fixture *f, uint8_t which, uint8_t on)
{
	assert_int_equal(net_command(f, RX, which, &on, 1), OK);
}

static struct net_rx_filter filter(struct net_fixture *f)
{
	struct net_rx_filter out;
	net_port_ops(f->port)->rx_filter(net_port_opaque(f->port), &out);
	return out;
}

static void receive_modes_let_through_what_they_say(void **state)
{
	struct net_fixture *f = start(FILTERS);

	expect(f, true, false, false, true);
	mode(f, ALLMULTI, 1);
	expect(f, true, false, true, true);
	assert_int_equal(filter(f).multicast, NET_RX_ALL);
	mode(f, NOMULTI, 1);
	expect(f, true, false, false, true);
	assert_int_equal(filter(f).multicast, NET_RX_NONE);
	mode(f, NOMULTI, 0);
	mode(f, ALLMULTI, 0);
	mode(f, ALLUNI, 1);
	expect(f, true, true, false, true);
	assert_int_equal(filter(f).unicast, NET_RX_ALL);
	mode(f, NOUNI, 1);
	expect(f, false, false, false, true);
	assert_int_equal(filter(f).unicast, NET_RX_NONE);
	mode(f, NOUNI, 0);
	mode(f, ALLUNI, 0);
	mode(f, NOBCAST, 1);
	expect(f, true, false, false, false);
	assert_false(filter(f).broadcast_allowed);
	mode(f, NOBCAST, 0);
	expect(f, true, false, false, true);
	net_stop(f);
}

static void promiscuous_cards_take_everything(void **state)
{
	struct net_fixture *f = start(FILTERS);
	uint8_t frame[FRAME] = {0};

	mode(f, NOBCAST, 1);
	mode(f, NOUNI, 1);
	mode(f, NOMULTI, 1);
	mode(f, PROMISC, 0x80); /* any value but zero is on */
	assert_true(filter(f).promiscuous);
	const uint8_t *const to[] = {card_mac, stranger, group, broadcast};
	for (unsigned n = 0; n < ARRAY_SIZE(to); n++) {
		net_post(f, 0, NET_HDR + FRAME);
		memcpy(frame, to[n], 6);
		store_be16(frame + 12, 0x8100); /* of a VLAN that was not asked for */
		net_send_buf(f->wire, 0, frame, sizeof(frame));
		drv_wait(&f->d, 0, 1, NULL, NULL);
	}
	net_stop(f);
}

static void without_the_control_queue_every_frame_comes(void **state)
{
	struct net_fixture *f = start(0);
	uint8_t frame[FRAME] = {0};
	const uint8_t *const to[] = {card_mac, stranger, group, broadcast};

	for (unsigned n = 0; n < ARRAY_SIZE(to); n++) {
		net_post(f, 0, NET_HDR + FRAME);
		memcpy(frame, to[n], 6);
		net_send_buf(f->wire, 0, frame, sizeof(frame));
		assert_int_equal(drv_returned(&f->d, 0), 1);
		drv_wait(&f->d, 0, 1, NULL, NULL);
	}
	/* What is too short for an Ethernet header is no frame. */
	net_post(f, 0, NET_HDR + FRAME);
	net_send_buf(f->wire, 0, frame, 13);
	assert_int_equal(drv_returned(&f->d, 0), 0);
	net_stop(f);
}

static void modes_need_their_features(void **state)
{
	struct net_fixture *f = start(VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX);

	assert_int_equal(net_command(f, RX, PROMISC, "\1", 1), OK);
	assert_int_equal(net_command(f, RX, ALLMULTI, "\1", 1), OK);
	for (uint8_t which = ALLUNI; which <= NOBCAST + 1; which++)
		assert_int_equal(net_command(f, RX, which, "\1", 1), ERR);
	assert_int_equal(net_command(f, VLAN, VLAN_ADD, "\1\0", 2), ERR);
	assert_int_equal(net_command(f, MAC, ADDR_SET, stranger, 6), ERR);
	assert_int_equal(net_command(f, MQ, 0, "\1\0", 2), ERR);
	assert_int_equal(net_command(f, OFFLOADS, 0, "\0\0\0\0\0\0\0\0", 8), ERR);
	assert_int_equal(net_command(f, ANNOUNCE, 0, NULL, 0), ERR);
	net_start(f, true, VIRTIO_NET_F_CTRL_VQ);
	assert_int_equal(net_command(f, RX, PROMISC, "\0", 1), ERR);
	assert_int_equal(net_command(f, MAC, TABLE_SET, "\0\0\0\0\0\0\0\0", 8), ERR);
	net_stop(f);
}

/* Writes a table of `count` addresses xx:00:00:00:nn:nn; the bytes used. */
static size_t table(uint8_t *at, uint8_t first, uint32_t count)
{
	store_le32(at, count);
	for (uint32_t n = 0; n < count; n++) {
		uint8_t *mac = at + 4 + 6 * n;
		memset(mac, 0, 6);
		mac[0] = first;
		store_be16(mac + 4, (uint16_t)n);
	}
	return 4 + 6 * count;
}

static void address_tables_filter(void **state)
{
	struct net_fixture *f = start(FILTERS);
	uint8_t data[0x1000];
	size_t len = table(data, 0x02, 3);

	len += table(data + len, 0x03, TABLE_SIZE);
	assert_int_equal(net_command(f, MAC, TABLE_SET, data, len), OK);
	expect(f, true, false, false, true);
	assert_true(comes(f, (uint8_t[6]){2, 0, 0, 0, 0, 2}));
	assert_false(comes(f, (uint8_t[6]){2, 0, 0, 0, 0, 3}));
	assert_true(comes(f, (uint8_t[6]){3, 0, 0, 0, 0, TABLE_SIZE - 1}));
	assert_false(comes(f, (uint8_t[6]){3, 0, 0, 0, 0, TABLE_SIZE}));
	assert_int_equal(filter(f).unicasts, 3);
	assert_int_equal(filter(f).multicasts, TABLE_SIZE);
	/* The modes stand above the table. */
	mode(f, NOUNI, 1);
	assert_false(comes(f, (uint8_t[6]){2, 0, 0, 0, 0, 2}));
	/* An empty table takes the place of a full one; a reset does, too. */
	mode(f, NOUNI, 0);
	len = table(data, 0, 0);
	len += table(data + len, 0x03, 1);
	assert_int_equal(net_command(f, MAC, TABLE_SET, data, len), OK);
	assert_false(comes(f, (uint8_t[6]){2, 0, 0, 0, 0, 2}));
	assert_true(comes(f, (uint8_t[6]){3, 0, 0, 0, 0, 0}));
	net_start(f, true, FILTERS);
	assert_false(comes(f, (uint8_t[6]){3, 0, 0, 0, 0, 0}));
	net_stop(f);
}

static void tables_too_large_take_all_of_their_kind(void **state)
{
	struct net_fixture *f = start(FILTERS);
	uint8_t data[0x1000];
	size_t len = table(data, 0x02, TABLE_SIZE + 1);

	len += table(data + len, 0x03, 0);
	assert_int_equal(net_command(f, MAC, TABLE_SET, data, len), OK);
	expect(f, true, true, false, true);
	assert_true(filter(f).unicast_overflow && !filter(f).multicast_overflow);
	len = table(data, 0x02, 0);
	len += table(data + len, 0x03, TABLE_SIZE + 1);
	assert_int_equal(net_command(f, MAC, TABLE_SET, data, len), OK);
	expect(f, true, false, true, true);
	assert_true(!filter(f).unicast_overflow && filter(f).multicast_overflow);
	net_stop(f);
}

/* A command that fails changes nothing. */
static void malformed_tables_leave_the_old_ones(void **state)
{
	struct net_fixture *f = start(FILTERS);
	uint8_t data[0x1000];
	size_t len = table(data, 0x02, 1);

	len += table(data + len, 0x03, 1);
	assert_int_equal(net_command(f, MAC, TABLE_SET, data, len), OK);
	size_t first = table(data, 0x06, 2), both = first + table(data + first, 0x07, 2);
	for (size_t cut = 0; cut < both; cut++)
		assert_int_equal(net_command(f, MAC, TABLE_SET, data, cut), ERR);
	store_le32(data, 0x80000000); /* times 6 is zero in 32 bits */
	assert_int_equal(net_command(f, MAC, TABLE_SET, data, both), ERR);
	store_le32(data, UINT32_MAX);
	assert_int_equal(net_command(f, MAC, TABLE_SET, data, both), ERR);
	table(data, 0x06, 2);
	store_le32(data + first, UINT32_MAX);
	assert_int_equal(net_command(f, MAC, TABLE_SET, data, both), ERR);
	assert_int_equal(net_command(f, MAC, 2, data, both), ERR);
	assert_true(comes(f, (uint8_t[6]){2, 0, 0, 0, 0, 0}));
	assert_true(comes(f, (uint8_t[6]){3, 0, 0, 0, 0, 0}));
	assert_false(comes(f, (uint8_t[6]){6, 0, 0, 0, 0, 0}));
	assert_false(comes(f, (uint8_t[6]){7, 0, 0, 0, 0, 0}));
	assert_false(filter(f).unicast_overflow || filter(f).multicast_overflow);
	net_stop(f);
}

static void assert_address(struct net_fixture *f, const uint8_t *mac)
{
	for (unsigned n = 0; n < 6; n++)
		assert_int_equal(drv_config(&f->d, n), mac[n]);
}

static void address_can_be_set(void **state)
{
	struct net_fixture *f = start(FILTERS);
	const uint8_t other[6] = {0x52, 0x54, 1, 2, 3, 4};

	assert_address(f, card_mac);
	for (size_t len = 0; len < 6; len++)
		assert_int_equal(net_command(f, MAC, ADDR_SET, other, len), ERR);
	assert_address(f, card_mac);
	assert_int_equal(net_command(f, MAC, ADDR_SET, other, 6), OK);
	assert_address(f, other);
	assert_true(comes(f, other));
	assert_false(comes(f, card_mac));
	/* The configuration is read-only to a driver of version 1; a legacy driver writes it. */
	drv_set_config(&f->d, 5, 0x99);
	assert_address(f, other);
	net_start(f, true, FILTERS);
	assert_address(f, card_mac);
	net_start(f, false, 0);
	drv_set_config(&f->d, 5, 0x99);
	assert_int_equal(drv_config(&f->d, 5), 0x99);
	net_stop(f);
}

static bool vlan_comes(struct net_fixture *f, int vlan)
{
	return comes_tagged(f, card_mac, vlan);
}

static uint8_t vlan(struct net_fixture *f, uint8_t command, uint16_t id)
{
	uint8_t bytes[2];
	store_le16(bytes, id);
	return net_command(f, VLAN, command, bytes, 2);
}

static void vlans_are_filtered(void **state)
{
	struct net_fixture *f = start(FILTERS);
	static const uint16_t ids[] = {0, 1, 63, 64, 4095};

	for (unsigned n = 0; n < ARRAY_SIZE(ids); n++) {
		assert_false(vlan_comes(f, ids[n]));
		assert_int_equal(vlan(f, VLAN_ADD, ids[n]), OK);
		assert_true(vlan_comes(f, ids[n]));
		for (unsigned other = 0; other < ARRAY_SIZE(ids); other++)
			assert_int_equal(vlan_comes(f, ids[other]), other <= n);
	}
	assert_false(vlan_comes(f, 65));
	assert_false(comes_tagged(f, stranger, 64)); /* still not for this card */
	assert_true(comes(f, card_mac));             /* nothing is asked of frames without a tag */
	assert_int_equal(vlan(f, VLAN_DEL, 64), OK);
	assert_false(vlan_comes(f, 64));
	assert_true(vlan_comes(f, 63));
	assert_int_equal(vlan(f, VLAN_DEL, 64), OK);
	assert_int_equal(vlan(f, VLAN_ADD, 4096), ERR);
	assert_int_equal(vlan(f, VLAN_ADD, 0xFFFF), ERR);
	assert_int_equal(vlan(f, 2, 1), ERR);
	assert_int_equal(net_command(f, VLAN, VLAN_ADD, "\5", 1), ERR);
	assert_false(vlan_comes(f, 5));
	net_start(f, true, FILTERS);
	assert_false(vlan_comes(f, 63));
	/* Without the feature tags are nothing special. */
	net_start(f, true, FILTERS & ~VIRTIO_NET_F_CTRL_VLAN);
	assert_true(vlan_comes(f, 7));
	assert_int_equal(filter(f).vlan, NET_RX_ALL);
	net_stop(f);
}

static void filters_are_part_of_the_state(void **state)
{
	struct net_fixture *f = start(FILTERS);
	struct strbuf image = STRBUF_INIT;
	const uint8_t other[6] = {0x52, 0x54, 1, 2, 3, 4};
	uint8_t data[64];
	size_t len = table(data, 0x02, 1);

	len += table(data + len, 0x03, 1);
	assert_int_equal(net_command(f, MAC, TABLE_SET, data, len), OK);
	assert_int_equal(net_command(f, MAC, ADDR_SET, other, 6), OK);
	assert_int_equal(vlan(f, VLAN_ADD, 100), OK);
	mode(f, NOBCAST, 1);
	state_save(f->r->env.states, &image);
	state_reset_all(f->r->env.states);
	assert_true(filter(f).promiscuous);
	assert_int_equal(state_load(f->r->env.states, image.data, image.len, NULL), 0);
	strbuf_free(&image);
	expect(f, false, false, false, false);
	assert_true(comes(f, other));
	assert_true(comes(f, (uint8_t[6]){2, 0, 0, 0, 0, 0}));
	assert_true(comes(f, (uint8_t[6]){3, 0, 0, 0, 0, 0}));
	assert_true(comes_tagged(f, other, 100));
	assert_false(comes_tagged(f, other, 101));
	net_stop(f);
}

/* A machine whose state was loaded asks its driver to make itself known on the network. */
static void announcement_is_asked_for_until_acknowledged(void **state)
{
	struct net_fixture *f = start(FILTERS | VIRTIO_NET_F_STATUS | VIRTIO_NET_F_ANNOUNCE);
	struct strbuf image = STRBUF_INIT;

	assert_int_equal(drv_config(&f->d, CONFIG_STATUS), LINK);
	state_save(f->r->env.states, &image);
	assert_int_equal(state_load(f->r->env.states, image.data, image.len, NULL), 0);
	drv_isr(&f->d);
	for (unsigned turn = 0; drv_config(&f->d, CONFIG_STATUS) == LINK; turn++) {
		assert_true(turn < 10000);
		rig_turn(f->r);
	}
	assert_int_equal(drv_config(&f->d, CONFIG_STATUS), LINK | ANNOUNCED);
	assert_int_equal(drv_isr(&f->d) & 2, 2);
	assert_int_equal(net_command(f, ANNOUNCE, 1, NULL, 0), ERR);
	assert_int_equal(drv_config(&f->d, CONFIG_STATUS), LINK | ANNOUNCED);
	assert_int_equal(net_command(f, ANNOUNCE, 0, NULL, 0), OK);
	assert_int_equal(drv_config(&f->d, CONFIG_STATUS), LINK);
	/* Not of a driver that does not know it. */
	net_start(f, true, FILTERS | VIRTIO_NET_F_STATUS);
	image.len = 0;
	state_save(f->r->env.states, &image);
	assert_int_equal(state_load(f->r->env.states, image.data, image.len, NULL), 0);
	drv_idle(&f->d);
	assert_int_equal(drv_config(&f->d, CONFIG_STATUS), LINK);
	strbuf_free(&image);
	net_stop(f);
}

static void link_is_told(void **state)
{
	struct net_fixture *f = start(VIRTIO_NET_F_STATUS);
	uint8_t generation = (uint8_t)common(&f->d, 21, 1);

	net_set_link(f->wire, false);
	assert_int_equal(drv_config(&f->d, CONFIG_STATUS), 0);
	assert_int_equal(drv_isr(&f->d), 2);
	assert_int_not_equal(common(&f->d, 21, 1), generation);
	net_set_link(f->wire, true);
	assert_int_equal(drv_config(&f->d, CONFIG_STATUS), LINK);
	assert_int_equal(drv_isr(&f->d), 2);
	net_start(f, true, 0);
	net_set_link(f->wire, false);
	assert_int_equal(drv_isr(&f->d), 0); /* the driver does not look there */
	net_stop(f);
}

/* Which receive queue a frame of the wire's queue ends in. */
static int queue_of_frame(struct net_fixture *f, unsigned wire_queue, unsigned pairs)
{
	uint8_t frame[FRAME] = {0};
	int found = -1;

	memcpy(frame, card_mac, 6);
	for (unsigned n = 0; n < pairs; n++)
		net_post(f, n, NET_HDR + FRAME);
	net_send_buf(f->wire, wire_queue, frame, sizeof(frame));
	for (unsigned n = 0; n < pairs; n++)
		if (drv_returned(&f->d, 2 * n)) {
			assert_int_equal(found, -1);
			drv_wait(&f->d, 2 * n, 1, NULL, NULL);
			found = (int)n;
		}
	return found;
}

static uint8_t set_pairs(struct net_fixture *f, uint16_t pairs)
{
	uint8_t bytes[2];
	store_le16(bytes, pairs);
	return net_command(f, MQ, 0, bytes, 2);
}

static void queue_pairs_can_be_switched_on(void **state)
{
	struct net_fixture *f = net_new_card(3, 0, 0);

	net_start(f, true, FILTERS | VIRTIO_NET_F_MQ);
	assert_int_equal(drv_config(&f->d, 8), 3);
	assert_int_equal(f->peer_queues, 1);
	assert_int_equal(queue_of_frame(f, 2, 3), 0); /* one pair until the driver asks for more */
	assert_int_equal(set_pairs(f, 2), OK);
	assert_int_equal(f->peer_queues, 2);
	assert_int_equal(queue_of_frame(f, 0, 3), 0);
	assert_int_equal(queue_of_frame(f, 1, 3), 1);
	assert_int_equal(set_pairs(f, 0), ERR);
	assert_int_equal(set_pairs(f, 4), ERR);
	assert_int_equal(set_pairs(f, 0xFFFF), ERR);
	assert_int_equal(net_command(f, MQ, 0, "\3", 1), ERR);
	assert_int_equal(net_command(f, MQ, 1, "\3\0", 2), ERR);
	assert_int_equal(f->peer_queues, 2);
	assert_int_equal(set_pairs(f, 3), OK);
	assert_int_equal(f->peer_queues, 3);
	assert_int_equal(queue_of_frame(f, 2, 3), 2);
	/* A reset leaves one; and without the feature the control queue is behind the first pair. */
	net_start(f, true, FILTERS);
	assert_int_equal(f->peer_queues, 1);
	assert_int_equal(set_pairs(f, 2), ERR);
	assert_int_equal(net_command(f, RX, PROMISC, "\1", 1), OK);
	net_stop(f);
}

static uint8_t set_offloads(struct net_fixture *f, uint64_t offloads)
{
	uint8_t bytes[8];
	store_le64(bytes, offloads);
	return net_command(f, OFFLOADS, 0, bytes, 8);
}

static void offloads_of_the_guest_can_be_changed(void **state)
{
	struct net_fixture *f = net_new_card(
		1, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN, 0);
	const uint64_t wanted = VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4 |
				VIRTIO_NET_F_GUEST_ECN | VIRTIO_NET_F_GUEST_OFFLOADS;

	net_start(f, true, FILTERS | wanted);
	assert_int_equal(f->peer_offloads, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_ECN);
	assert_int_equal(set_offloads(f, VIRTIO_NET_F_GUEST_CSUM), OK);
	assert_int_equal(f->peer_offloads, NET_OFFLOAD_CSUM);
	/* Not agreed on, or no offload of the guest's. */
	assert_int_equal(set_offloads(f, VIRTIO_NET_F_GUEST_TSO6), ERR);
	assert_int_equal(set_offloads(f, VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_CSUM), ERR);
	assert_int_equal(set_offloads(f, UINT64_C(1) << 63), ERR);
	assert_int_equal(net_command(f, OFFLOADS, 0, "\0\0\0\0\0\0\0", 7), ERR);
	assert_int_equal(net_command(f, OFFLOADS, 1, "\0\0\0\0\0\0\0\0", 8), ERR);
	assert_int_equal(f->peer_offloads, NET_OFFLOAD_CSUM);
	assert_int_equal(set_offloads(f, 0), OK);
	assert_int_equal(f->peer_offloads, 0);
	net_start(f, true, FILTERS | VIRTIO_NET_F_GUEST_CSUM);
	assert_int_equal(f->peer_offloads, NET_OFFLOAD_CSUM);
	assert_int_equal(set_offloads(f, 0), ERR);
	net_stop(f);
}

static void what_is_no_command_is_refused(void **state)
{
	struct net_fixture *f = start(FILTERS | VIRTIO_NET_F_ANNOUNCE);
	uint8_t ack = NET_UNTOUCHED, some[64] = {0};

	for (unsigned class = OFFLOADS + 1; class < 256; class += 50)
		assert_int_equal(net_command(f, (uint8_t) class, 0, some, sizeof(some)), ERR);
	assert_int_equal(net_command(f, RX, 200, some, sizeof(some)), ERR);
	assert_int_equal(net_command(f, RX, PROMISC, NULL, 0), ERR);
	/* Half a header, or none at all. */
	for (uint32_t len = 0; len < 2; len++) {
		put(&f->d, NET_ANSWER, &ack, 1);
		struct piece p[] = {{NET_COMMAND, 1, false}, {NET_ANSWER, 1, true}};
		drv_add(&f->d, f->ctrl, len ? p : p + 1, len ? 2 : 1);
		drv_kick(&f->d, f->ctrl);
		drv_wait(&f->d, f->ctrl, 1, NULL, NULL);
		uint8_t got;
		get(&f->d, NET_ANSWER, &got, 1);
		assert_int_equal(got, ERR);
	}
	expect(f, true, false, false, true); /* nothing of it had an effect */
	assert_int_equal(drv_status(&f->d), 15);
	net_stop(f);
}

static void commands_may_be_cut_anywhere(void **state)
{
	struct net_fixture *f = start(FILTERS | VIRTIO_F_INDIRECT_DESC);
	const uint8_t other[6] = {0x52, 0x54, 1, 2, 3, 4};
	uint8_t bytes[8] = {MAC, ADDR_SET}, ack[2] = {NET_UNTOUCHED, NET_UNTOUCHED};
	struct piece p[10];

	memcpy(bytes + 2, other, 6);
	put(&f->d, NET_COMMAND, bytes, sizeof(bytes));
	put(&f->d, NET_ANSWER, ack, sizeof(ack));
	for (unsigned n = 0; n < 8; n++)
		p[n] = (struct piece){NET_COMMAND + n, 1, false};
	p[8] = (struct piece){NET_ANSWER, 0, true};
	p[9] = (struct piece){NET_ANSWER, 2, true};
	drv_add_indirect(&f->d, f->ctrl, NET_COMMAND + 0x100, p, 10);
	drv_kick(&f->d, f->ctrl);
	uint32_t len;
	drv_wait(&f->d, f->ctrl, 1, NULL, &len);
	assert_int_equal(len, 1);
	get(&f->d, NET_ANSWER, ack, sizeof(ack));
	assert_int_equal(ack[0], OK);
	assert_int_equal(ack[1], NET_UNTOUCHED);
	assert_address(f, other);
	net_stop(f);
}

static void no_room_for_the_answer_breaks_the_device(void **state)
{
	struct net_fixture *f = start(FILTERS);

	put(&f->d, NET_COMMAND, (uint8_t[]){RX, PROMISC, 1}, 3);
	drv_add(&f->d, f->ctrl, &(struct piece){NET_COMMAND, 3, false}, 1);
	drv_kick(&f->d, f->ctrl);
	drv_idle(&f->d);
	assert_int_equal(drv_status(&f->d), 15 | 64);
	assert_int_equal(drv_returned(&f->d, f->ctrl), 0);
	assert_false(filter(f).promiscuous);
	net_start(f, true, FILTERS);
	assert_int_equal(net_command(f, RX, PROMISC, "\1", 1), OK);
	net_stop(f);
}

/* More commands than one turn serves. */
static void many_commands_at_once(void **state)
{
	struct net_fixture *f = start(FILTERS);
	enum { COUNT = 32 };

	for (unsigned n = 0; n < COUNT; n++) {
		uint8_t bytes[4] = {VLAN, VLAN_ADD};
		store_le16(bytes + 2, (uint16_t)(n * 100));
		put(&f->d, NET_COMMAND + 4 * n, bytes, 4);
		drv_add(&f->d, f->ctrl,
			(struct piece[]){{NET_COMMAND + 4 * n, 4, false},
					 {NET_ANSWER + n, 1, true}},
			2);
	}
	net_fill_memory(f, NET_ANSWER, NET_UNTOUCHED, COUNT + 1);
	drv_kick(&f->d, f->ctrl);
	drv_wait(&f->d, f->ctrl, COUNT, NULL, NULL);
	uint8_t acks[COUNT + 1];
	get(&f->d, NET_ANSWER, acks, sizeof(acks));
	for (unsigned n = 0; n < COUNT; n++)
		assert_int_equal(acks[n], OK);
	assert_int_equal(acks[COUNT], NET_UNTOUCHED);
	for (unsigned n = 0; n < 4096; n++)
		assert_int_equal(filter(f).vlans[n / 64] >> n % 64 & 1,
				 n % 100 == 0 && n / 100 < COUNT);
	net_stop(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(receive_modes_let_through_what_they_say),
		cmocka_unit_test(promiscuous_cards_take_everything),
		cmocka_unit_test(without_the_control_queue_every_frame_comes),
		cmocka_unit_test(modes_need_their_features),
		cmocka_unit_test(address_tables_filter),
		cmocka_unit_test(tables_too_large_take_all_of_their_kind),
		cmocka_unit_test(malformed_tables_leave_the_old_ones),
		cmocka_unit_test(address_can_be_set),
		cmocka_unit_test(vlans_are_filtered),
		cmocka_unit_test(filters_are_part_of_the_state),
		cmocka_unit_test(announcement_is_asked_for_until_acknowledged),
		cmocka_unit_test(link_is_told),
		cmocka_unit_test(queue_pairs_can_be_switched_on),
		cmocka_unit_test(offloads_of_the_guest_can_be_changed),
		cmocka_unit_test(what_is_no_command_is_refused),
		cmocka_unit_test(commands_may_be_cut_anywhere),
		cmocka_unit_test(no_room_for_the_answer_breaks_the_device),
		cmocka_unit_test(many_commands_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
