/* SPDX-License-Identifier: MIT */
/*
 * virtio-net: a network card on virtqueues (virtio 1.2, 5.1).
 *
 *   queues   2i receive, 2i + 1 transmit, the control queue behind them
 *   header   in front of each frame: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset,
 *            num_buffers (the last only with mergeable buffers or version 1)
 *
 * Frames move between the guest's buffers and the other end of the link (net/net.h) in the event
 * loop. A backend that understands virtio's headers (tap) gets and gives frames with them, so
 * that checksums and segmentation are the host kernel's affair; for any other the card does what the
 * header asks for itself (net_offload.c), which costs a fraction of what it would cost the guest's
 * CPU. What such a backend delivers is verified here, and the guest is told so.
 *
 * Left out: UFO, RSC, RSS and hash reports, notification coalescing, standby.
 */
#include "devices/virtio_net.h"
#include "block/iov.h"
#include "core/state.h"
#include "devices/net_offload.h"
#include "devices/virtio_net_internal.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>

enum config_offset {
	CONFIG_MAC = 0,
	CONFIG_STATUS = 6,
	CONFIG_PAIRS = 8,
	CONFIG_MTU = 10,
	CONFIG_SPEED = 12,
	CONFIG_DUPLEX = 16,
	CONFIG_SIZE = 17
};

/* 5.1.6. */
enum header_offset {
	HDR_FLAGS = 0,
	HDR_GSO_TYPE = 1,
	HDR_GSO_SIZE = 4,
	HDR_CSUM_START = 6,
	HDR_CSUM_OFFSET = 8,
	HDR_BUFFERS = 10,
};
enum { FLAG_NEEDS_CSUM = 1, FLAG_DATA_VALID = 2 };
enum { GSO_NONE = 0, GSO_TCPV4 = 1, GSO_TCPV6 = 4, GSO_ECN = 0x80 };

enum {
	PCI_DEVICE = 0x1000,
	CLASS_ETHERNET = 0x0200,
	CTRL_QUEUE_SIZE = 64,
	HEADERS_MAX = 256, /* Ethernet, IP and TCP headers of a segment */
	VERIFY_MAX = NET_FRAME_PLAIN + 8,
	TURN_SEGMENTS = 4096, /* cut for one queue before others have their turn */
};

static struct virtio_net *from_virtio(struct virtio *v)
{
	return container_of(v, struct virtio_net, virtio);
}

struct pci_device *virtio_net_pci(struct virtio_net *net)
{
	return &net->virtio.pci;
}

size_t virtio_net_header_size(const struct virtio_net *n)
{
	return virtio_has(&n->virtio, VIRTIO_NET_F_MRG_RXBUF | VIRTIO_F_VERSION_1)
		       ? NET_HEADER
		       : NET_HEADER_LEGACY;
}

static struct virtqueue *rx_queue(struct virtio_net *n, unsigned pair)
{
	return &n->virtio.queue[2 * pair];
}

static struct virtqueue *tx_queue(struct virtio_net *n, unsigned pair)
{
	return &n->virtio.queue[2 * pair + 1];
}

/* 5.1.2: where the control queue is depends on what was agreed on. */
static bool is_ctrl(const struct virtio_net *n, const struct virtqueue *q)
{
	unsigned pairs = virtio_has(&n->virtio, VIRTIO_NET_F_MQ) ? n->config.pairs : 1;
	return q->index == 2 * pairs && virtio_has(&n->virtio, VIRTIO_NET_F_CTRL_VQ);
}

/* ---- receive ---- */

/* Takes as many buffers as `len` bytes need. Their number; 0 if there are too few now; -1 if the
 * frame will never fit (or the device broke). */
static int take_buffers(struct virtio_net *n, struct virtqueue *q, size_t len)
{
	unsigned max = virtio_has(&n->virtio, VIRTIO_NET_F_MRG_RXBUF) ? NET_RX_CHAINS : 1;
	unsigned count = 0;
	size_t room = 0;

	while (room < len && count < max) {
		int r = virtqueue_pop(q, &n->rx_chain[count]);
		if (r < 0)
			return -1;
		if (r == 0) {
			virtqueue_unpop(q, count);
			return 0;
		}
		room += n->rx_chain[count++].in_len;
	}
	if (room >= len)
		return (int)count;
	/* A frame too long for a buffer is lost, and the buffer stays. */
	virtqueue_unpop(q, count);
	return -1;
}

/* The header for a frame of a backend that has none: what we can vouch for. */
static void make_header(struct virtio_net *n, uint8_t header[NET_HEADER], const struct iovec *iov,
			int count, size_t len)
{
	memset(header, 0, NET_HEADER);
	if (!(n->guest_offloads & VIRTIO_NET_F_GUEST_CSUM) || len > VERIFY_MAX)
		return;
	const uint8_t *frame = iov->iov_base;
	if (iov->iov_len < len) {
		net_iov_copy(n->buffer, len, iov, count, 0);
		frame = n->buffer;
	}
	if (net_verify_checksum(frame, len))
		header[HDR_FLAGS] = FLAG_DATA_VALID;
}

/* Puts header and frame into the buffers taken, and returns them. */
static void fill_buffers(struct virtio_net *n, struct virtqueue *q, unsigned buffers,
			 const uint8_t *header, const struct iovec *iov, int count, size_t skip)
{
	size_t header_len = virtio_net_header_size(n);
	struct iov_iter from = iov_iter(iov, count);
	unsigned at = 0;
	size_t left = header_len + iov_total(iov, count) - skip;

	iov_advance(&from, skip);
	for (unsigned b = 0; b < buffers; b++) {
		struct virtio_chain *c = &n->rx_chain[b];
		size_t part = left < c->in_len ? left : c->in_len, done = 0;
		if (at < header_len) {
			done = header_len - at < part ? header_len - at : part;
			virtio_chain_write(c, header + at, done);
			at += (unsigned)done;
		}
		for (unsigned i = 0; i < c->in && done < part; i++) {
			struct iovec *to = &c->iov[c->out + i];
			size_t piece = to->iov_len < part - done ? to->iov_len : part - done;
			iov_read(&from, to->iov_base, piece);
			done += piece;
		}
		virtqueue_fill(q, c, part);
		left -= part;
	}
	virtqueue_flush(q);
	virtqueue_signal(q);
}

static bool receive(void *opaque, unsigned queue, const struct iovec *iov, int count, size_t len)
{
	struct virtio_net *n = opaque;
	unsigned pair = queue < n->pairs ? queue : 0;
	struct virtqueue *q = rx_queue(n, pair);
	size_t header_len = virtio_net_header_size(n), skip = n->backend_header ? header_len : 0;
	uint8_t header[NET_HEADER], start[32];

	if (!virtqueue_ready(q) || len < skip)
		return true;
	size_t have = net_iov_copy(start, sizeof(start), iov, count, skip);
	if (!virtio_net_wants(n, start, have))
		return true;
	int buffers = take_buffers(n, q, header_len + len - skip);
	if (buffers == 0) {
		/* The driver tells when it has put in more; look again, it may just have. */
		virtqueue_want_notify(q, true);
		buffers = take_buffers(n, q, header_len + len - skip);
		if (buffers == 0)
			return false;
	}
	if (buffers < 0)
		return true;
	virtqueue_want_notify(q, false);
	if (skip)
		net_iov_copy(header, header_len, iov, count, 0);
	else
		make_header(n, header, iov, count, len);
	if (header_len == NET_HEADER)
		store_le16(header + HDR_BUFFERS, (uint16_t)buffers);
	fill_buffers(n, q, (unsigned)buffers, header, iov, count, skip);
	return true;
}

/* ---- transmit ---- */

/* Does in software what the header asks for. False if the backend has no room yet. */
static bool send_offloaded(struct virtio_net *n, unsigned pair, const uint8_t *header,
			   const struct iovec *iov, int count, size_t len)
{
	uint8_t gso = header[HDR_GSO_TYPE] & (uint8_t)~GSO_ECN;
	struct net_segmenter s;

	net_iov_copy(n->buffer, len, iov, count, 0);
	if (gso == GSO_NONE) {
		if (!net_finish_checksum(n->buffer, len, load_le16(header + HDR_CSUM_START),
					 load_le16(header + HDR_CSUM_OFFSET)))
			return true;
		struct iovec whole = {n->buffer, len};
		return net_try_send(n->port, pair, &whole, 1);
	}
	if ((gso != GSO_TCPV4 && gso != GSO_TCPV6) ||
	    !net_segmenter_init(&s, n->buffer, len, load_le16(header + HDR_GSO_SIZE),
				gso == GSO_TCPV6) ||
	    s.payload > HEADERS_MAX)
		return true; /* lost, as on a card that cannot make sense of it */
	size_t part;
	for (unsigned i = 0; (part = net_segmenter_next(&s, n->segment)) > 0; i++) {
		struct iovec one = {n->segment, part};
		/* Only the whole frame can wait; what follows its first segment goes to the backlog. */
		if (i == 0 && !net_try_send(n->port, pair, &one, 1))
			return false;
		if (i > 0)
			net_send(n->port, pair, &one, 1);
		n->turn_segments++;
	}
	return true;
}

/* Sends one chain. False if the backend has no room: the chain is given back to the queue. */
static bool transmit(struct virtio_net *n, unsigned pair, struct virtio_chain *c)
{
	size_t header_len = virtio_net_header_size(n), len = c->out_len;
	uint8_t header[NET_HEADER] = {0};
	int count = (int)c->out;

	if (len <= header_len || len > NET_FRAME_MAX || count > NET_IOV_MAX)
		return true;
	if (n->backend_header)
		return net_try_send(n->port, pair, c->iov, count);
	virtio_chain_read(c, header, header_len);
	len -= header_len;
	const struct iovec *iov = c->iov;
	while (count && iov->iov_len == 0) {
		iov++;
		count--;
	}
	if ((header[HDR_FLAGS] & FLAG_NEEDS_CSUM) ||
	    (header[HDR_GSO_TYPE] & (uint8_t)~GSO_ECN) != GSO_NONE)
		return send_offloaded(n, pair, header, iov, count, len);
	return net_try_send(n->port, pair, iov, count);
}

static void serve_tx(struct virtio_net *n, struct virtqueue *q)
{
	unsigned left = virtqueue_budget(q), pair = q->index / 2;
	bool any = false;

	n->turn_segments = 0;
	virtqueue_want_notify(q, false);
	while (left) {
		int r = virtqueue_pop(q, &n->tx_chain);
		if (r < 0)
			return;
		if (r == 0) {
			virtqueue_want_notify(q, true);
			if (virtqueue_empty(q))
				break;
			virtqueue_want_notify(q, false);
			continue;
		}
		if (!transmit(n, pair, &n->tx_chain)) {
			/* resume() goes on. */
			virtqueue_unpop(q, 1);
			break;
		}
		virtqueue_fill(q, &n->tx_chain, 0);
		any = true;
		/* A frame may be asked to become as many segments as it has bytes. */
		left = n->turn_segments < TURN_SEGMENTS ? left - 1 : 0;
	}
	if (any) {
		virtqueue_flush(q);
		virtqueue_signal(q);
	}
	if (!left)
		virtqueue_kick(q);
}

static void resume(void *opaque, unsigned queue)
{
	struct virtio_net *n = opaque;
	virtqueue_kick(tx_queue(n, queue < n->config.pairs ? queue : 0));
}

static void serve(struct virtqueue *q)
{
	struct virtio_net *n = from_virtio(q->virtio);

	if (is_ctrl(n, q))
		virtio_net_serve_ctrl(n, q);
	else if (q->index % 2)
		serve_tx(n, q);
	else
		net_receive_ready(n->port, q->index / 2);
}

/* ---- link and backend ---- */

static void link_changed(void *opaque)
{
	struct virtio_net *n = opaque;
	if (virtio_has(&n->virtio, VIRTIO_NET_F_STATUS))
		virtio_config_changed(&n->virtio);
}

static unsigned guest_offload_bits(const struct virtio_net *n)
{
	static const struct {
		uint64_t feature;
		unsigned offload;
	} map[] = {
		{VIRTIO_NET_F_GUEST_CSUM, NET_OFFLOAD_CSUM},
		{VIRTIO_NET_F_GUEST_TSO4, NET_OFFLOAD_TSO4},
		{VIRTIO_NET_F_GUEST_TSO6, NET_OFFLOAD_TSO6},
		{VIRTIO_NET_F_GUEST_ECN, NET_OFFLOAD_ECN},
	};
	unsigned bits = 0;
	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		if (n->guest_offloads & map[i].feature)
			bits |= map[i].offload;
	return bits;
}

void virtio_net_apply_offloads(struct virtio_net *n)
{
	if (n->backend_header)
		net_set_peer_offload(n->port, guest_offload_bits(n));
}

void virtio_net_apply_pairs(struct virtio_net *n)
{
	net_use_queues(n->port, n->pairs);
	/* What waits in a queue that now counts. */
	for (unsigned i = 0; i < n->pairs; i++)
		net_receive_ready(n->port, i);
}

/* Headers as the driver's features say, if the backend can deal with them. */
static void apply_header(struct virtio_net *n, bool wanted)
{
	unsigned size =
		wanted && net_peer_offloads(n->port) ? (unsigned)virtio_net_header_size(n) : 0;
	n->backend_header = net_set_vnet_hdr(n->port, size) == 0 && size > 0;
}

static void negotiated(struct virtio *v)
{
	struct virtio_net *n = from_virtio(v);

	n->guest_offloads = v->features & (VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4 |
					   VIRTIO_NET_F_GUEST_TSO6 | VIRTIO_NET_F_GUEST_ECN);
	if (virtio_has(v, VIRTIO_NET_F_CTRL_RX))
		n->promisc = false;
	apply_header(n, true);
	virtio_net_apply_offloads(n);
}

static void started(struct virtio *v)
{
	struct virtio_net *n = from_virtio(v);
	virtio_net_apply_pairs(n);
}

/* ---- configuration ---- */

static void get_config(struct virtio *v, uint8_t *config)
{
	struct virtio_net *n = from_virtio(v);

	memcpy(config + CONFIG_MAC, n->mac, sizeof(n->mac));
	store_le16(config + CONFIG_STATUS,
		   (uint16_t)(n->status | (net_link_up(n->port) ? NET_STATUS_LINK : 0)));
	store_le16(config + CONFIG_PAIRS, (uint16_t)n->config.pairs);
	store_le16(config + CONFIG_MTU, n->config.mtu);
	if (n->config.has_speed) {
		store_le32(config + CONFIG_SPEED, n->config.speed);
		config[CONFIG_DUPLEX] = n->config.duplex;
	}
}

static void set_config(struct virtio *v, const uint8_t *config, unsigned offset, unsigned size)
{
	struct virtio_net *n = from_virtio(v);

	/* 5.1.4.2: legacy drivers write the address here; others have the control queue. */
	if (offset < NET_MAC_LEN && !virtio_has(v, VIRTIO_F_VERSION_1))
		memcpy(n->mac, config + CONFIG_MAC, sizeof(n->mac));
}

static void reset_state(struct virtio_net *n)
{
	memcpy(n->mac, n->config.nic.mac, sizeof(n->mac));
	n->status = 0;
	n->pairs = 1;
	n->guest_offloads = 0;
	virtio_net_reset_filters(n);
}

static void reset(struct virtio *v)
{
	struct virtio_net *n = from_virtio(v);

	reset_state(n);
	timer_cancel(&n->announce);
	if (!n->port)
		return;
	net_drop_backlog(n->port);
	apply_header(n, false);
	net_use_queues(n->port, 1);
}

static void reset_queue(struct virtqueue *q)
{
	/* Nothing is in flight between two turns of the loop. */
}

/* ---- state ---- */

static const struct state_field net_fields[] = {
	STATE_BYTES(virtio_net, mac),
	STATE_UINT(virtio_net, status),
	STATE_UINT(virtio_net, promisc),
	STATE_UINT(virtio_net, allmulti),
	STATE_UINT(virtio_net, alluni),
	STATE_UINT(virtio_net, nomulti),
	STATE_UINT(virtio_net, nouni),
	STATE_UINT(virtio_net, nobcast),
	STATE_BYTES(virtio_net, unicast),
	STATE_BYTES(virtio_net, multicast),
	STATE_UINT(virtio_net, unicasts),
	STATE_UINT(virtio_net, multicasts),
	STATE_UINT(virtio_net, unicast_overflow),
	STATE_UINT(virtio_net, multicast_overflow),
	STATE_UINTS(virtio_net, vlan),
	STATE_UINT(virtio_net, pairs),
	STATE_UINT(virtio_net, guest_offloads),
	STATE_END,
};

/* The machine goes on after a load: switches shall learn where the card is now. */
static void announce(void *opaque)
{
	struct virtio_net *n = opaque;
	n->status |= NET_STATUS_ANNOUNCE;
	virtio_config_changed(&n->virtio);
}

static int net_post_load(void *opaque, unsigned version, struct error *err)
{
	struct virtio_net *n = opaque;

	if (n->pairs < 1 || n->pairs > n->config.pairs)
		n->pairs = 1;
	if (n->unicasts > NET_MAC_TABLE)
		n->unicasts = 0;
	if (n->multicasts > NET_MAC_TABLE)
		n->multicasts = 0;
	n->status &= NET_STATUS_ANNOUNCE;
	n->guest_offloads &= n->virtio.features;
	apply_header(n, n->virtio.status & VIRTIO_DRIVER_OK);
	virtio_net_apply_offloads(n);
	virtio_net_apply_pairs(n);
	if (virtio_has(&n->virtio, VIRTIO_NET_F_ANNOUNCE))
		timer_set(&n->announce, 0);
	return 0;
}

static void net_state_reset(void *opaque)
{
	reset_state(opaque);
}

static const struct state_desc net_desc = {
	.name = "virtio-net",
	.version = 1,
	.fields = net_fields,
	.reset = net_state_reset,
	.post_load = net_post_load,
};

/* ---- device ---- */

static const struct virtio_type net_type = {
	.name = "virtio-net",
	.id = VIRTIO_ID_NET,
	.pci_class = CLASS_ETHERNET,
	.legacy_device_id = PCI_DEVICE,
	.config_size = CONFIG_SIZE,
	.get_config = get_config,
	.set_config = set_config,
	.negotiated = negotiated,
	.started = started,
	.reset = reset,
	.reset_queue = reset_queue,
	.serve = serve,
};

static void describe(void *opaque, struct strbuf *out)
{
	const struct virtio_net *n = opaque;
	strbuf_printf(out, "type=nic,model=%s,macaddr=%02x:%02x:%02x:%02x:%02x:%02x",
		      net_port_model(n->port), n->mac[0], n->mac[1], n->mac[2], n->mac[3],
		      n->mac[4], n->mac[5]);
}

/* announce_self: in the guest's name, and the guest is asked to speak for itself. */
static void announce_self(void *opaque)
{
	struct virtio_net *n = opaque;
	net_send_announcement(n->port, n->mac);
	if (virtio_has(&n->virtio, VIRTIO_NET_F_ANNOUNCE))
		announce(n);
}

static const struct net_port_ops port_ops = {
	.receive = receive,
	.announce = announce_self,
	.describe = describe,
	.resume = resume,
	.link_changed = link_changed,
	.rx_filter = virtio_net_rx_filter,
};

static uint64_t offered(const struct virtio_net *n)
{
	uint64_t f = VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_MAC |
		     VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6 | VIRTIO_NET_F_HOST_ECN |
		     VIRTIO_NET_F_MRG_RXBUF | VIRTIO_NET_F_STATUS | VIRTIO_NET_F_CTRL_VQ |
		     VIRTIO_NET_F_CTRL_RX | VIRTIO_NET_F_CTRL_VLAN | VIRTIO_NET_F_CTRL_RX_EXTRA |
		     VIRTIO_NET_F_ANNOUNCE | VIRTIO_NET_F_CTRL_MAC_ADDR;
	unsigned peer = net_peer_offloads(n->port);

	/* Large frames to the guest come from backends that make them. */
	if (peer & NET_OFFLOAD_CSUM) {
		f |= VIRTIO_NET_F_GUEST_OFFLOADS;
		f |= peer & NET_OFFLOAD_TSO4 ? VIRTIO_NET_F_GUEST_TSO4 : 0;
		f |= peer & NET_OFFLOAD_TSO6 ? VIRTIO_NET_F_GUEST_TSO6 : 0;
		f |= peer & NET_OFFLOAD_ECN ? VIRTIO_NET_F_GUEST_ECN : 0;
	}
	if (n->config.mtu)
		f |= VIRTIO_NET_F_MTU;
	if (n->config.has_speed)
		f |= VIRTIO_NET_F_SPEED_DUPLEX;
	if (n->config.pairs > 1)
		f |= VIRTIO_NET_F_MQ;
	f &= ~n->config.without;
	/* 5.1.3.1: what needs what. */
	if (!(f & VIRTIO_NET_F_CSUM))
		f &= ~(VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6 | VIRTIO_NET_F_HOST_ECN);
	if (!(f & VIRTIO_NET_F_GUEST_CSUM))
		f &= ~(VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6 | VIRTIO_NET_F_GUEST_ECN);
	if (!(f & VIRTIO_NET_F_CTRL_VQ))
		f &= ~(VIRTIO_NET_F_CTRL_RX | VIRTIO_NET_F_CTRL_VLAN | VIRTIO_NET_F_CTRL_RX_EXTRA |
		       VIRTIO_NET_F_ANNOUNCE | VIRTIO_NET_F_CTRL_MAC_ADDR | VIRTIO_NET_F_MQ |
		       VIRTIO_NET_F_GUEST_OFFLOADS);
	return f;
}

static int open_port(struct virtio_net *n, struct error *err)
{
	const struct nic_config *nic = &n->config.nic;

	n->port = net_port_new(nic->net, NET_NIC, nic->id, "virtio-net-pci", n->config.pairs,
			       &port_ops, n, err);
	if (!n->port)
		return -err->code;
	return nic->peer ? net_join(n->port, nic->peer, err) : 0;
}

static void free_memory(struct virtio_net *n)
{
	if (n->port)
		net_port_free(n->port);
	for (unsigned i = 0; i < NET_RX_CHAINS; i++)
		virtio_chain_free(&n->rx_chain[i]);
	virtio_chain_free(&n->tx_chain);
	virtio_chain_free(&n->ctrl_chain);
	free(n->buffer);
	free(n->segment);
	free(n);
}

struct virtio_net *virtio_net_new(const struct device_env *env, struct pci_bus *bus,
				  const struct virtio_pci_config *pci,
				  const struct virtio_net_config *config, struct error *err)
{
	struct virtio_net *n = xcalloc(1, sizeof(*n));

	n->config = *config;
	n->states = env->states;
	n->buffer = xcalloc(1, NET_FRAME_MAX);
	n->segment = xcalloc(1, HEADERS_MAX + UINT16_MAX);
	timer_init(&n->announce, env->clock, announce, n);
	reset_state(n);
	if (open_port(n, err) < 0 ||
	    virtio_init(&n->virtio, env, bus, &net_type, offered(n), pci, err) < 0) {
		free_memory(n);
		return NULL;
	}
	for (unsigned i = 0; i < config->pairs; i++) {
		virtio_add_queue(&n->virtio, config->rx_size);
		virtio_add_queue(&n->virtio, config->tx_size);
	}
	virtio_add_queue(&n->virtio, CTRL_QUEUE_SIZE);
	state_register(env->states, &net_desc, n->virtio.pci.devfn, n);
	return n;
}

void virtio_net_free(struct virtio_net *n)
{
	if (!n)
		return;
	state_unregister(n->states, n);
	virtio_fini(&n->virtio);
	free_memory(n);
}
