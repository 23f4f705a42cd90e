/* SPDX-License-Identifier: MIT */
/*
 * virtio-serial: byte streams between the guest and character devices (virtio 1.2, 5.3).
 *
 *   queues   port 0: 0 to the guest, 1 from it; control: 2 to the guest, 3 from it; port n from 1
 *            on: 2 n + 2 to the guest, 2 n + 3 from it
 *   control  id (4 bytes), event (2), value (2), for a name its characters
 *   events   0 device ready, 1 port add, 3 port ready, 4 console, 6 open, 7 name
 *
 * The guest announces that it is ready, is told of each port, answers, and is then told what the
 * port is called, whether it is a console and whether the host side is open; each side tells the
 * other when it opens and closes. A driver without the multiport feature knows port 0 alone.
 *
 * Flow control: bytes from outside are taken only as far as the guest has put buffers, and only
 * while it has the port open. Bytes from the guest stay in its ring while the character device's
 * queue is full; the bytes of the first buffer that are already written are counted.
 *
 * Left out: sizes of consoles, emergency writes.
 */
#include "devices/virtio_serial.h"
#include "core/chardev.h"
#include "core/state.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>

#define F_MULTIPORT (UINT64_C(1) << 1)

enum event {
	EVENT_DEVICE_READY = 0,
	EVENT_PORT_ADD = 1,
	EVENT_PORT_READY = 3,
	EVENT_CONSOLE = 4,
	EVENT_OPEN = 6,
	EVENT_NAME = 7,
};

enum {
	CONFIG_PORTS = 4,
	CONFIG_SIZE = 12,
	PCI_DEVICE = 0x1003,
	CLASS_COMMUNICATION = 0x0780,
	QUEUE_SIZE = 128,
	CONTROL_QUEUE_SIZE = 32,
	CTRL_RX = 2,
	CTRL_TX = 3,
	CONTROL_SIZE = 8,
	RECEIVE_MAX = 4096,   /* bytes taken from outside at once */
	MESSAGES_MAX = 256,   /* control messages that wait for a buffer */
	TURN_BYTES = 1 << 20, /* written for one port before others have their turn */
	PORTS = VIRTIO_SERIAL_PORTS_MAX,
};

struct serial_port {
	/* guest-visible */
	bool guest_open;
	uint64_t written; /* bytes of the first waiting buffer that left already */

	struct virtio_serial *card;
	unsigned nr;
	bool console, host_open;
	char name[VIRTIO_SERIAL_NAME_MAX + 1];
	struct chardev *chr; /* NULL: there is no such port */
};

struct message {
	uint8_t data[CONTROL_SIZE + VIRTIO_SERIAL_NAME_MAX + 1];
	size_t len;
};

struct virtio_serial {
	struct virtio virtio;
	struct serial_port port[PORTS];

	unsigned ports; /* room for */
	struct message message[MESSAGES_MAX];
	unsigned messages;
	struct virtio_chain chain;
	struct timer loaded; /* once the machine goes on after its state was loaded */
	struct state_registry *states;
};

static const struct state_field port_fields[] = {
	STATE_UINT(serial_port, guest_open),
	STATE_UINT(serial_port, written),
	STATE_END,
};

static const struct state_field serial_fields[] = {
	STATE_STRUCTS(virtio_serial, port, port_fields),
	STATE_END,
};

static struct virtio_serial *from_virtio(struct virtio *v)
{
	return container_of(v, struct virtio_serial, virtio);
}

struct pci_device *virtio_serial_pci(struct virtio_serial *s)
{
	return &s->virtio.pci;
}

static struct virtqueue *rx_queue(const struct serial_port *p)
{
	return &p->card->virtio.queue[p->nr ? 2 * p->nr + 2 : 0];
}

static struct virtqueue *tx_queue(const struct serial_port *p)
{
	return &p->card->virtio.queue[p->nr ? 2 * p->nr + 3 : 1];
}

/* The port whose data queue this is, or NULL. */
static struct serial_port *port_of(struct virtio_serial *s, const struct virtqueue *q)
{
	unsigned nr = q->index < CTRL_RX ? 0 : q->index / 2u - 1;
	if (q->index == CTRL_RX || q->index == CTRL_TX || nr >= PORTS || !s->port[nr].chr)
		return NULL;
	return &s->port[nr];
}

static bool multiport(const struct virtio_serial *s)
{
	return virtio_has(&s->virtio, F_MULTIPORT);
}

/* ---- control messages to the guest ---- */

static void send_messages(struct virtio_serial *s)
{
	struct virtqueue *q = &s->virtio.queue[CTRL_RX];
	unsigned sent = 0;

	while (sent < s->messages && virtqueue_pop(q, &s->chain) > 0) {
		const struct message *m = &s->message[sent++];
		size_t done = virtio_chain_write(&s->chain, m->data, m->len);
		virtqueue_push(q, &s->chain, done);
	}
	if (!sent)
		return;
	memmove(s->message, s->message + sent, (s->messages - sent) * sizeof(*s->message));
	s->messages -= sent;
	virtqueue_signal(q);
}

static void tell(struct virtio_serial *s, unsigned nr, enum event event, uint16_t value,
		 const char *text)
{
	if (!multiport(s) || !virtio_running(&s->virtio) || s->messages == MESSAGES_MAX)
		return;
	struct message *m = &s->message[s->messages++];
	store_le32(m->data, nr);
	store_le16(m->data + 4, (uint16_t)event);
	store_le16(m->data + 6, value);
	m->len = CONTROL_SIZE;
	if (text) {
		size_t len = strnlen(text, VIRTIO_SERIAL_NAME_MAX);
		memcpy(m->data + m->len, text, len);
		m->len += len;
	}
	trace(TRACE_VIRTIO, "%s: port %u: event %u, %u", s->virtio.pci.name, nr, event, value);
	send_messages(s);
}

/* ---- from outside to the guest ---- */

/* Drops buffers without room, which would block the others. */
static bool next_buffer(struct virtio_serial *s, struct virtqueue *q)
{
	while (virtqueue_pop(q, &s->chain) > 0) {
		if (s->chain.in_len)
			return true;
		virtqueue_push(q, &s->chain, 0);
	}
	return false;
}

static size_t can_receive(void *opaque)
{
	struct serial_port *p = opaque;
	struct virtio_serial *s = p->card;
	struct virtqueue *q = rx_queue(p);

	if (!virtqueue_ready(q) || (multiport(s) && !p->guest_open) || !next_buffer(s, q))
		return 0;
	virtqueue_unpop(q, 1);
	return s->chain.in_len < RECEIVE_MAX ? s->chain.in_len : RECEIVE_MAX;
}

static void receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct serial_port *p = opaque;
	struct virtio_serial *s = p->card;
	struct virtqueue *q = rx_queue(p);

	while (len && next_buffer(s, q)) {
		size_t done = virtio_chain_write(&s->chain, buf, len);
		virtqueue_push(q, &s->chain, done);
		buf += done;
		len -= done;
	}
	virtqueue_signal(q);
}

static void opened(void *opaque, bool open)
{
	struct serial_port *p = opaque;

	/* A console is always there; a reader may come later (5.3.6.1). */
	if (p->console || p->host_open == open)
		return;
	p->host_open = open;
	tell(p->card, p->nr, EVENT_OPEN, open, NULL);
}

/* ---- from the guest ---- */

/* Writes the first chain's bytes behind those already written, at most *budget. True if all have
 * left. */
static bool write_chain(struct serial_port *p, struct virtio_chain *c, size_t *budget)
{
	size_t skip = (size_t)p->written;

	for (unsigned n = 0; n < c->out; n++) {
		size_t len = c->iov[n].iov_len;
		if (skip >= len) {
			skip -= len;
			continue;
		}
		const uint8_t *from = (const uint8_t *)c->iov[n].iov_base + skip;
		size_t part = len - skip < *budget ? len - skip : *budget;
		size_t done = p->host_open ? chardev_write(p->chr, from, part) : part;
		p->written += done;
		*budget -= done;
		if (done < len - skip)
			return false;
		skip = 0;
	}
	return true;
}

static void serve_tx(struct serial_port *p)
{
	struct virtio_serial *s = p->card;
	struct virtqueue *q = tx_queue(p);
	unsigned left = virtqueue_budget(q);
	size_t bytes = TURN_BYTES;
	bool any = false;

	for (; left && bytes && virtqueue_pop(q, &s->chain) > 0; left--) {
		if (!write_chain(p, &s->chain, &bytes)) {
			/* drained() goes on, or the next turn. */
			virtqueue_unpop(q, 1);
			break;
		}
		p->written = 0;
		virtqueue_push(q, &s->chain, 0);
		any = true;
	}
	if (any)
		virtqueue_signal(q);
	if (!left || !bytes)
		virtqueue_kick(q);
}

static void drained(void *opaque)
{
	struct serial_port *p = opaque;
	virtqueue_kick(tx_queue(p));
}

static void port_ready(struct virtio_serial *s, struct serial_port *p)
{
	if (p->console)
		tell(s, p->nr, EVENT_CONSOLE, 1, NULL);
	if (p->name[0])
		tell(s, p->nr, EVENT_NAME, 1, p->name);
	if (p->host_open)
		tell(s, p->nr, EVENT_OPEN, 1, NULL);
}

static void control(struct virtio_serial *s, const uint8_t message[CONTROL_SIZE])
{
	uint32_t nr = load_le32(message);
	uint16_t event = load_le16(message + 4), value = load_le16(message + 6);

	trace(TRACE_VIRTIO, "%s: guest: port %u, event %u, %u", s->virtio.pci.name, nr, event,
	      value);
	if (event == EVENT_DEVICE_READY) {
		for (unsigned n = 0; value && n < PORTS; n++)
			if (s->port[n].chr)
				tell(s, n, EVENT_PORT_ADD, 1, NULL);
		return;
	}
	struct serial_port *p = nr < PORTS && s->port[nr].chr ? &s->port[nr] : NULL;
	if (!p)
		return;
	if (event == EVENT_PORT_READY && value) {
		port_ready(s, p);
	} else if (event == EVENT_OPEN) {
		p->guest_open = value != 0;
		if (p->guest_open)
			chardev_accept_input(p->chr);
	}
}

static void serve_control(struct virtio_serial *s)
{
	struct virtqueue *q = &s->virtio.queue[CTRL_TX];

	for (unsigned left = virtqueue_budget(q); left; left--) {
		uint8_t message[CONTROL_SIZE];
		if (virtqueue_pop(q, &s->chain) <= 0)
			return;
		size_t have = virtio_chain_read(&s->chain, message, sizeof(message));
		virtqueue_push(q, &s->chain, 0);
		virtqueue_signal(q);
		if (have == sizeof(message))
			control(s, message);
	}
	virtqueue_kick(q);
}

static void serve(struct virtqueue *q)
{
	struct virtio_serial *s = from_virtio(q->virtio);
	struct serial_port *p = port_of(s, q);

	if (q->index == CTRL_RX)
		send_messages(s);
	else if (q->index == CTRL_TX)
		serve_control(s);
	else if (p && q == tx_queue(p))
		serve_tx(p);
	else if (p)
		chardev_accept_input(p->chr);
}

/* ---- state ---- */

/* Who is connected now need not be who was there when the state was saved. */
static void tell_who_is_there(void *opaque)
{
	struct virtio_serial *s = opaque;

	for (unsigned n = 0; n < PORTS; n++) {
		struct serial_port *p = &s->port[n];
		if (!p->chr)
			continue;
		if (!p->console)
			tell(s, n, EVENT_OPEN, p->host_open, NULL);
		if (p->guest_open)
			chardev_accept_input(p->chr);
	}
}

static int post_load(void *opaque, unsigned version, struct error *err)
{
	struct virtio_serial *s = opaque;
	timer_set(&s->loaded, 0);
	return 0;
}

static const struct state_desc serial_desc = {
	.name = "virtio-serial",
	.version = 1,
	.fields = serial_fields,
	.post_load = post_load,
};

/* ---- device ---- */

static void get_config(struct virtio *v, uint8_t *config)
{
	store_le32(config + CONFIG_PORTS, from_virtio(v)->ports);
}

static void reset(struct virtio *v)
{
	struct virtio_serial *s = from_virtio(v);

	s->messages = 0;
	timer_cancel(&s->loaded);
	for (unsigned n = 0; n < PORTS; n++) {
		s->port[n].guest_open = false;
		s->port[n].written = 0;
	}
}

static void reset_queue(struct virtqueue *q)
{
	struct serial_port *p = port_of(from_virtio(q->virtio), q);

	if (p && q == tx_queue(p))
		p->written = 0;
}

static const struct virtio_type serial_type = {
	.name = "virtio-serial",
	.id = VIRTIO_ID_CONSOLE,
	.pci_class = CLASS_COMMUNICATION,
	.legacy_device_id = PCI_DEVICE,
	.config_size = CONFIG_SIZE,
	.get_config = get_config,
	.reset = reset,
	.reset_queue = reset_queue,
	.serve = serve,
};

int virtio_serial_add_port(struct virtio_serial *s, int nr, bool console, const char *name,
			   struct chardev *chr, struct error *err)
{
	if (nr < 0)
		for (nr = console ? 0 : 1; nr < (int)s->ports && s->port[nr].chr; nr++)
			;
	if (nr >= (int)s->ports)
		return error_set(err, EINVAL,
				 "the card has ports 0 to %u; see its max_ports=", s->ports - 1);
	if (nr == 0 && !console)
		return error_set(err, EINVAL,
				 "port 0 is only for a virtconsole; take nr=1 or more");
	if (s->port[nr].chr)
		return error_set(err, EBUSY, "port %d of the card is taken", nr);
	for (unsigned n = 0; name && n < PORTS; n++)
		if (s->port[n].chr && !strcmp(s->port[n].name, name))
			return error_set(err, EINVAL, "there is a port with name=%s already", name);
	if (name && strlen(name) > VIRTIO_SERIAL_NAME_MAX)
		return error_set(err, EINVAL, "name=%s is longer than %d characters", name,
				 VIRTIO_SERIAL_NAME_MAX);
	struct serial_port *p = &s->port[nr];
	*p = (struct serial_port){.card = s,
				  .nr = (unsigned)nr,
				  .console = console,
				  .host_open = console || chardev_connected(chr),
				  .chr = chr};
	if (name)
		memcpy(p->name, name, strlen(name) + 1);
	struct chardev_frontend fe = {.can_receive = can_receive,
				      .receive = receive,
				      .opened = opened,
				      .drained = drained,
				      .opaque = p};
	chardev_attach(chr, &fe);
	return 0;
}

struct virtio_serial *virtio_serial_new(const struct device_env *env, struct pci_bus *bus,
					const struct virtio_pci_config *pci, unsigned ports,
					struct error *err)
{
	struct virtio_serial *s = xcalloc(1, sizeof(*s));

	s->ports = ports;
	s->states = env->states;
	timer_init(&s->loaded, env->clock, tell_who_is_there, s);
	if (virtio_init(&s->virtio, env, bus, &serial_type, F_MULTIPORT, pci, err) < 0) {
		free(s);
		return NULL;
	}
	for (unsigned n = 0; n < 2 * (ports + 1); n++)
		virtio_add_queue(&s->virtio,
				 n == CTRL_RX || n == CTRL_TX ? CONTROL_QUEUE_SIZE : QUEUE_SIZE);
	state_register(env->states, &serial_desc, s->virtio.pci.devfn, s);
	return s;
}

void virtio_serial_free(struct virtio_serial *s)
{
	if (!s)
		return;
	for (unsigned n = 0; n < PORTS; n++)
		if (s->port[n].chr)
			chardev_attach(s->port[n].chr, NULL);
	state_unregister(s->states, s);
	virtio_fini(&s->virtio);
	virtio_chain_free(&s->chain);
	free(s);
}
