/* SPDX-License-Identifier: MIT */
#include "tests/fuzz/virtio_host.h"
#include "core/chardev.h"
#include "core/state.h"
#include "devices/virtio_net.h"
#include "devices/virtio_rng.h"
#include "devices/virtio_serial.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PAIRS = 3, QUEUE_SIZE = 64, PORTS = 3, RNG_LIMIT = 1000, RNG_PERIOD_MS = 10, FRAME = 66000 };
#define SOCKET_PATH "virtio-serial-socket"

enum event {
	EVENT_FRAME,   /* queue, header (12), target, length (u16), where it is cut (u8) */
	EVENT_FULL,    /* the wire takes no frames now, or does again */
	EVENT_HEADERS, /* it refuses virtio's headers, or does not */
	EVENT_LINK,    /* which end (u8) */
	EVENT_INPUT,   /* of a serial port: port (u8), length (u16) */
	EVENT_CONNECT, /* to the port with the socket, or the end of it */
	EVENT_READ,    /* from that socket */
	EVENT_RANDOM,  /* length (u16): the source has bytes; at 0 it ends */
	EVENT_STATE, /* saved and loaded; how many bytes are damaged (u8), each: where (u16), to what (u8) */
	EVENTS
};

struct virtio_host {
	struct machine *m;
	struct net_port *wire;
	struct virtio_net *net;
	struct virtio_serial *serial;
	struct virtio_rng *rng;
	struct chardev *chr[PORTS];
	int socket, random;
	bool full, refuse_headers;
	unsigned ends_down;
};

/* Looks at every byte, so that a frame outside memory is seen. */
static bool wire_receive(void *opaque, unsigned queue, const struct iovec *iov, int count,
			 size_t len)
{
	static uint8_t copy[NET_FRAME_MAX];
	const struct virtio_host *h = opaque;

	if (len > sizeof(copy) || net_iov_copy(copy, len, iov, count, 0) != len)
		abort();
	return !h->full;
}

static unsigned wire_offloads(void *opaque)
{
	return NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN;
}

static int wire_set_header(void *opaque, unsigned len)
{
	return ((struct virtio_host *)opaque)->refuse_headers && len ? -1 : 0;
}

static void wire_set_offload(void *opaque, unsigned offloads)
{
	if (offloads & ~wire_offloads(opaque))
		abort();
}

static void wire_set_queues(void *opaque, unsigned queues)
{
	if (queues < 1 || queues > PAIRS)
		abort();
}

static const struct net_port_ops wire_ops = {
	.receive = wire_receive,
	.offloads = wire_offloads,
	.set_vnet_hdr = wire_set_header,
	.set_offload = wire_set_offload,
	.set_queues = wire_set_queues,
};

static void check(const void *made, const struct error *err)
{
	if (made)
		return;
	fprintf(stderr, "%s\n", err->text);
	abort();
}

static void add_net(struct virtio_host *h, unsigned slot)
{
	struct error err = ERROR_INIT;
	struct machine *m = h->m;

	h->wire = net_port_new(m->net, NET_BACKEND, "fuzz-wire", "test", PAIRS, &wire_ops, h, &err);
	check(h->wire, &err);
	struct virtio_net_config config = {
		.nic = {.net = m->net, .id = "fuzz-net", .mac = {0x52, 0x54}, .peer = h->wire},
		.pairs = PAIRS,
		.rx_size = QUEUE_SIZE,
		.tx_size = QUEUE_SIZE};
	struct virtio_pci_config pci = {
		.name = "fuzz-net", .devfn = (int)slot << 3, .vectors = 2 * PAIRS + 2};
	h->net = virtio_net_new(&m->env, m->dev.pci, &pci, &config, &err);
	check(h->net, &err);
}

static void add_serial(struct virtio_host *h, unsigned slot)
{
	struct error err = ERROR_INIT;
	struct machine *m = h->m;
	struct virtio_pci_config pci = {
		.name = "fuzz-serial", .devfn = (int)slot << 3, .vectors = 2};

	h->serial = virtio_serial_new(&m->env, m->dev.pci, &pci, PORTS, &err);
	check(h->serial, &err);
	for (unsigned n = 0; n < PORTS; n++) {
		h->chr[n] = n == 1 ? chardev_open(m->loop, "fuzz",
						  "unix:" SOCKET_PATH ",server=on,wait=off", &err)
				   : chardev_new_memory(m->loop);
		check(h->chr[n], &err);
		if (virtio_serial_add_port(h->serial, -1, n == 0, n == 2 ? "port.2" : NULL,
					   h->chr[n], &err) < 0)
			check(NULL, &err);
	}
}

static void add_rng(struct virtio_host *h, unsigned slot)
{
	struct error err = ERROR_INIT;
	struct machine *m = h->m;
	int fds[2];
	struct virtio_pci_config pci = {.name = "fuzz-rng", .devfn = (int)slot << 3, .vectors = 2};

	if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0)
		abort();
	h->random = fds[1];
	struct virtio_rng_config config = {
		.fd = fds[0], .max_bytes = RNG_LIMIT, .period_ms = RNG_PERIOD_MS};
	h->rng = virtio_rng_new(&m->env, m->dev.pci, &pci, &config, &err);
	check(h->rng, &err);
}

struct virtio_host *virtio_host_new(struct machine *m, unsigned slot)
{
	struct virtio_host *h = xcalloc(1, sizeof(*h));

	h->m = m;
	h->socket = -1;
	add_net(h, slot);
	add_serial(h, slot + 1);
	add_rng(h, slot + 2);
	return h;
}

void virtio_host_free(struct virtio_host *h)
{
	virtio_net_free(h->net);
	virtio_serial_free(h->serial);
	virtio_rng_free(h->rng);
	for (unsigned n = 0; n < PORTS; n++)
		chardev_free(h->chr[n]);
	if (h->socket >= 0)
		close(h->socket);
	if (h->random >= 0)
		close(h->random);
	free(h);
}

static void frame(struct virtio_host *h, struct fuzz_input *in)
{
	static const uint8_t targets[][6] = {{0x52, 0x54},
					     {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF},
					     {0x01, 0, 0x5E, 0, 0, 1},
					     {2, 0, 0, 0, 0, 9}};
	static uint8_t data[FRAME];
	unsigned queue = fuzz_u8(in) % PAIRS, at = net_vnet_hdr(h->wire);

	fuzz_take(in, data, 12);
	uint8_t target = fuzz_u8(in);
	memcpy(data + at, targets[target % ARRAY_SIZE(targets)], 6);
	store_be16(data + at + 12, target & 0x80 ? 0x8100 : 0x0800);
	store_be16(data + at + 14, target & 0x80 ? target & 0x7F : 0x4500);
	size_t len = fuzz_u16(in), cut = fuzz_u8(in);
	/* An IPv4 packet of TCP or UDP, but for its checksums. */
	store_be16(data + at + 16, (uint16_t)(len - 14));
	data[at + 23] = data[1] & 1 ? 6 : 17;
	data[at + 40] = 1;
	if (cut > len)
		cut = len;
	struct iovec iov[] = {{data, cut}, {data + cut, len - cut}};
	net_send(h->wire, queue, iov, 2);
}

static void connection(struct virtio_host *h)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = SOCKET_PATH};

	if (h->socket >= 0) {
		close(h->socket);
		h->socket = -1;
		return;
	}
	h->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (connect(h->socket, (struct sockaddr *)&to, sizeof(to)) == 0)
		return;
	close(h->socket);
	h->socket = -1;
}

static void serial_input(struct virtio_host *h, struct fuzz_input *in)
{
	static const uint8_t data[UINT16_MAX];
	unsigned port = fuzz_u8(in) % PORTS;
	size_t len = fuzz_u16(in);

	if (port != 1)
		chardev_memory_input(h->chr[port], data, len % 8192);
	else if (h->socket >= 0 && send(h->socket, data, len, MSG_NOSIGNAL) < 0)
		connection(h);
}

static void random_bytes(struct virtio_host *h, struct fuzz_input *in)
{
	static const uint8_t data[4096];
	size_t len = fuzz_u16(in) % (sizeof(data) + 1);

	if (h->random < 0 || (len && write(h->random, data, len) >= 0) || len)
		return;
	close(h->random);
	h->random = -1;
}

static void save_and_load(struct virtio_host *h, struct fuzz_input *in)
{
	struct strbuf image = STRBUF_INIT;
	struct error err = ERROR_INIT;

	state_save(h->m->states, &image);
	for (unsigned n = fuzz_u8(in) % 8; n; n--) {
		size_t at = fuzz_u16(in);
		image.data[at % image.len] = (char)fuzz_u8(in);
	}
	state_load(h->m->states, image.data, image.len, &err);
	strbuf_free(&image);
}

void virtio_host_event(struct virtio_host *h, struct fuzz_input *in)
{
	static uint8_t sink[65536];
	enum event event = fuzz_u8(in) % EVENTS;
	unsigned bit;

	switch (event) {
	case EVENT_FRAME: frame(h, in); break;
	case EVENT_FULL:
		h->full = !h->full;
		for (unsigned n = 0; !h->full && n < PAIRS; n++)
			net_receive_ready(h->wire, n);
		break;
	case EVENT_HEADERS: h->refuse_headers = !h->refuse_headers; break;
	case EVENT_LINK:
		bit = 1 + fuzz_u8(in) % 2;
		h->ends_down ^= bit;
		net_set_link(bit == 1 ? h->wire : net_find(h->m->net, "fuzz-net"),
			     !(h->ends_down & bit));
		break;
	case EVENT_INPUT: serial_input(h, in); break;
	case EVENT_CONNECT: connection(h); break;
	case EVENT_READ:
		if (h->socket >= 0 && recv(h->socket, sink, sizeof(sink), 0) == 0)
			connection(h);
		break;
	case EVENT_RANDOM: random_bytes(h, in); break;
	case EVENT_STATE: save_and_load(h, in); break;
	case EVENTS: break;
	}
}
