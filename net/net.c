/* SPDX-License-Identifier: MIT */
/*
 * Ports and links (see net.h for the rules).
 *
 * A frame goes straight from the sender's buffers into the receiver's receive() unless the receiver
 * has no room, is sending itself at this moment, or has older frames waiting. Then it is copied to
 * the backlog of the receiver's queue, which a deferred call or net_receive_ready() delivers later.
 */
#include "net/net.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BACKLOG_FRAMES = 4096, BACKLOG_BYTES = 8 << 20 };

struct net {
	struct loop *loop;
	struct clock *clock;
	struct list ports;
	bool cards_held; /* the machine is stopped */
};

struct waiting_frame {
	struct list link;
	size_t len;
	uint8_t data[];
};

struct port_queue {
	struct list backlog; /* struct waiting_frame for this port */
	size_t frames, bytes;
	bool blocked;      /* receive() said no; net_receive_ready() clears it */
	bool wants_resume; /* net_try_send() failed on this queue of ours */
};

struct net_port {
	struct net *net;
	struct list link;
	enum net_kind kind;
	char *id;
	const char *model;
	const struct net_port_ops *ops;
	void *opaque;
	unsigned queues, used_queues;
	struct port_queue queue[NET_MAX_QUEUES];
	struct net_port *peer;
	bool down; /* by set_link */
	unsigned vnet_hdr;
	unsigned sending; /* depth of our sends */
	struct loop_call flush;
	struct list filters;
	struct net_port_stats stats;
};

/* ---- Vectors ---- */

size_t net_iov_size(const struct iovec *iov, int count)
{
	size_t len = 0;
	for (int n = 0; n < count; n++)
		if (__builtin_add_overflow(len, iov[n].iov_len, &len))
			return SIZE_MAX;
	return len;
}

size_t net_iov_copy(void *buf, size_t len, const struct iovec *iov, int count, size_t from)
{
	size_t done = 0;
	for (int n = 0; n < count && done < len; n++) {
		if (from >= iov[n].iov_len) {
			from -= iov[n].iov_len;
			continue;
		}
		size_t piece = iov[n].iov_len - from;
		if (piece > len - done)
			piece = len - done;
		memcpy((uint8_t *)buf + done, (const uint8_t *)iov[n].iov_base + from, piece);
		done += piece;
		from = 0;
	}
	return done;
}

/* ---- Ports ---- */

static void flush_call(void *opaque);

struct net *net_new(struct loop *loop, struct clock *clock)
{
	struct net *net = xcalloc(1, sizeof(*net));
	net->loop = loop;
	net->clock = clock;
	list_init(&net->ports);
	return net;
}

void net_free(struct net *net)
{
	if (!net)
		return;
	while (!list_empty(&net->ports))
		net_port_free(list_entry(net->ports.next, struct net_port, link));
	free(net);
}

struct loop *net_loop(const struct net *net)
{
	return net->loop;
}

struct clock *net_clock(const struct net *net)
{
	return net->clock;
}

struct net_port *net_port_new(struct net *net, enum net_kind kind, const char *id,
			      const char *model, unsigned queues, const struct net_port_ops *ops,
			      void *opaque, struct error *err)
{
	if (kind == NET_NIC ? net_find_nic(net, id) : net_find_backend(net, id)) {
		error_set(err, EEXIST, "there is a network device or backend with id=%s already",
			  id);
		return NULL;
	}
	struct net_port *port = xcalloc(1, sizeof(*port));
	port->net = net;
	port->kind = kind;
	port->id = xstrdup(id);
	port->model = model;
	port->queues = queues < 1 ? 1 : queues > NET_MAX_QUEUES ? NET_MAX_QUEUES : queues;
	port->used_queues = kind == NET_NIC ? 1 : port->queues;
	port->ops = ops;
	port->opaque = opaque;
	for (unsigned n = 0; n < NET_MAX_QUEUES; n++)
		list_init(&port->queue[n].backlog);
	list_init(&port->filters);
	loop_call_init(&port->flush, flush_call, port);
	list_push_back(&net->ports, &port->link);
	return port;
}

void net_port_free(struct net_port *port)
{
	if (!port)
		return;
	net_part(port);
	while (!list_empty(&port->filters))
		net_filter_detach(list_entry(port->filters.next, struct net_filter, link));
	net_drop_backlog(port);
	loop_call_cancel(port->net->loop, &port->flush);
	list_remove(&port->link);
	if (port->kind != NET_NIC && port->ops->free)
		port->ops->free(port->opaque);
	free(port->id);
	free(port);
}

static struct net_port *find(struct net *net, const char *id, bool nic)
{
	struct list *it;
	list_for_each(it, &net->ports)
	{
		struct net_port *port = list_entry(it, struct net_port, link);
		if ((port->kind == NET_NIC) == nic && !strcmp(port->id, id))
			return port;
	}
	return NULL;
}

struct net_port *net_find_nic(struct net *net, const char *id)
{
	return find(net, id, true);
}

struct net_port *net_find_backend(struct net *net, const char *id)
{
	return find(net, id, false);
}

struct net_port *net_find(struct net *net, const char *id)
{
	struct net_port *port = net_find_backend(net, id);
	return port ? port : net_find_nic(net, id);
}

void net_for_each(struct net *net, void (*fn)(void *opaque, struct net_port *port), void *opaque)
{
	struct list *it, *tmp;
	list_for_each_safe(it, tmp, &net->ports) fn(opaque, list_entry(it, struct net_port, link));
}

const char *net_port_id(const struct net_port *port)
{
	return port->id;
}

const char *net_port_model(const struct net_port *port)
{
	return port->model;
}

enum net_kind net_port_kind(const struct net_port *port)
{
	return port->kind;
}

unsigned net_port_queues(const struct net_port *port)
{
	return port->queues;
}

void *net_port_opaque(const struct net_port *port)
{
	return port->opaque;
}

const struct net_port_ops *net_port_ops(const struct net_port *port)
{
	return port->ops;
}

const struct net_port_stats *net_port_stats(const struct net_port *port)
{
	return &port->stats;
}

struct net_port *net_peer(const struct net_port *port)
{
	return port->peer;
}

/* ---- Links ---- */

bool net_link_up(const struct net_port *port)
{
	return port->peer && !port->down && !port->peer->down;
}

bool net_port_is_down(const struct net_port *port)
{
	return port->down;
}

static void tell_link(struct net_port *port)
{
	if (port->ops->link_changed)
		port->ops->link_changed(port->opaque);
}

/* What waits can never be delivered now; senders that hold frames back go on (and lose them). */
static void forget_waiting(struct net_port *port)
{
	net_drop_backlog(port);
	for (unsigned n = 0; n < NET_MAX_QUEUES; n++)
		port->queue[n].blocked = false;
	loop_call_schedule(port->net->loop, &port->flush);
}

int net_join(struct net_port *a, struct net_port *b, struct error *err)
{
	struct net_port *busy = a->peer ? a : b->peer ? b : NULL;
	if (busy)
		return error_set(err, EBUSY,
				 "'%s' is connected to '%s' already; a hub (-netdev hubport) "
				 "connects more than two",
				 busy->id, busy->peer->id);
	if (a == b)
		return error_set(err, EINVAL, "'%s' cannot be connected to itself", a->id);
	a->peer = b;
	b->peer = a;
	tell_link(a);
	tell_link(b);
	return 0;
}

void net_part(struct net_port *port)
{
	struct net_port *peer = port->peer;
	if (!peer)
		return;
	net_set_vnet_hdr(port->kind == NET_NIC ? port : peer, 0);
	forget_waiting(port);
	forget_waiting(peer);
	port->peer = peer->peer = NULL;
	tell_link(port);
	tell_link(peer);
}

void net_set_link(struct net_port *port, bool up)
{
	bool was_up = net_link_up(port);
	port->down = !up;
	if (net_link_up(port) == was_up)
		return;
	trace(TRACE_NET, "%s: link %s", port->id, up ? "up" : "down");
	if (!up) {
		forget_waiting(port);
		forget_waiting(port->peer);
	}
	tell_link(port);
	tell_link(port->peer);
}

/* ---- Filters ---- */

void net_filter_attach(struct net_filter *filter, struct net_port *port)
{
	filter->port = port;
	list_push_back(&port->filters, &filter->link);
}

void net_filter_detach(struct net_filter *filter)
{
	if (!filter->port)
		return;
	filter->port = NULL;
	list_remove(&filter->link);
}

void net_describe_filters(const struct net_port *port, struct strbuf *out)
{
	struct list *it;
	if (!list_empty(&port->filters))
		strbuf_puts(out, "filters:\n");
	list_for_each(it, &port->filters)
	{
		struct net_filter *filter = list_entry(it, struct net_filter, link);
		strbuf_printf(out, "  - %s: ", filter->id ? filter->id : "");
		if (filter->describe)
			filter->describe(filter, out);
		strbuf_puts(out, "\n");
	}
}

static void run_filters(struct net_port *port, bool sent, const struct iovec *iov, int count,
			size_t len)
{
	struct list *it, *tmp;
	list_for_each_safe(it, tmp, &port->filters)
	{
		struct net_filter *filter = list_entry(it, struct net_filter, link);
		filter->frame(filter, sent, iov, count, len);
	}
}

static void show_to_filters(struct net_port *port, const struct iovec *iov, int count, size_t len)
{
	struct net_port *peer = port->peer;
	unsigned skip = net_vnet_hdr(port);
	struct iovec flat;
	uint8_t *copy = NULL;
	if (list_empty(&port->filters) && list_empty(&peer->filters))
		return;
	if (skip) {
		if (len <= skip)
			return;
		len -= skip;
		copy = xmalloc(len); /* at most NET_FRAME_MAX */
		net_iov_copy(copy, len, iov, count, skip);
		flat = (struct iovec){copy, len};
		iov = &flat;
		count = 1;
	}
	run_filters(port, true, iov, count, len);
	run_filters(peer, false, iov, count, len);
	free(copy);
}

/* ---- Frames ---- */

static void keep(struct net_port *to, unsigned queue, const struct iovec *iov, int count,
		 size_t len)
{
	struct port_queue *q = &to->queue[queue];
	struct waiting_frame *frame = NULL;
	if (q->frames < BACKLOG_FRAMES && q->bytes + len <= BACKLOG_BYTES)
		frame = malloc(sizeof(*frame) + len);
	if (!frame) {
		to->stats.lost++;
		return;
	}
	frame->len = len;
	net_iov_copy(frame->data, len, iov, count, 0);
	list_push_back(&q->backlog, &frame->link);
	q->frames++;
	q->bytes += len;
	if (!q->blocked)
		loop_call_schedule(to->net->loop, &to->flush);
}

/* Hands one frame over; false: no room, or no time. */
static bool hand_over(struct net_port *from, struct net_port *to, unsigned queue,
		      const struct iovec *iov, int count, size_t len)
{
	if (!to->ops->receive)
		return true;
	from->sending++;
	bool held = to->kind == NET_NIC && to->net->cards_held;
	bool taken = !held && to->ops->receive(to->opaque, queue, iov, count, len);
	from->sending--;
	if (!taken)
		to->queue[queue].blocked = true;
	return taken;
}

static bool may_deliver(const struct net_port *to, unsigned queue)
{
	return !to->sending && !to->queue[queue].blocked && list_empty(&to->queue[queue].backlog);
}

/* The receiver's queue for a sender's, or -1 when the frame cannot go anywhere. */
static int target(struct net_port *port, unsigned queue, const struct iovec *iov, int count,
		  size_t *len)
{
	*len = net_iov_size(iov, count);
	if (!net_link_up(port) || *len == 0 || *len > NET_FRAME_MAX || count > NET_IOV_MAX)
		return -1;
	return (int)(queue % port->peer->used_queues);
}

static void account(struct net_port *port, const struct iovec *iov, int count, size_t len)
{
	port->stats.sent++;
	port->stats.sent_bytes += len;
	trace(TRACE_NET, "%s -> %s: %zu bytes", port->id, port->peer->id, len);
	show_to_filters(port, iov, count, len);
}

void net_send(struct net_port *port, unsigned queue, const struct iovec *iov, int count)
{
	size_t len;
	int to = target(port, queue, iov, count, &len);
	if (to < 0)
		return;
	account(port, iov, count, len);
	if (!may_deliver(port->peer, (unsigned)to) ||
	    !hand_over(port, port->peer, (unsigned)to, iov, count, len))
		keep(port->peer, (unsigned)to, iov, count, len);
}

void net_send_buf(struct net_port *port, unsigned queue, const void *buf, size_t len)
{
	struct iovec iov = {(void *)buf, len};
	net_send(port, queue, &iov, 1);
}

bool net_try_send(struct net_port *port, unsigned queue, const struct iovec *iov, int count)
{
	size_t len;
	int to = target(port, queue, iov, count, &len);
	if (to < 0)
		return true;
	struct net_port *peer = port->peer;
	if (!may_deliver(peer, (unsigned)to) ||
	    !hand_over(port, peer, (unsigned)to, iov, count, len)) {
		port->queue[queue % NET_MAX_QUEUES].wants_resume = true;
		if (!peer->queue[to].blocked)
			loop_call_schedule(peer->net->loop, &peer->flush);
		return false;
	}
	account(port, iov, count, len);
	return true;
}

/* Delivers what waits for a queue until the port has no room. */
static void deliver_backlog(struct net_port *port, unsigned queue)
{
	struct port_queue *q = &port->queue[queue];
	while (port->peer && !port->sending && !q->blocked && !list_empty(&q->backlog)) {
		struct waiting_frame *frame =
			list_entry(q->backlog.next, struct waiting_frame, link);
		struct iovec iov = {frame->data, frame->len};
		/* Out of the list first: receive() may call net_receive_ready() or drop all. */
		list_remove(&frame->link);
		if (!hand_over(port->peer, port, queue, &iov, 1, frame->len)) {
			list_push_front(&q->backlog, &frame->link);
			return;
		}
		q->frames -= q->frames ? 1 : 0;
		q->bytes -= q->bytes >= frame->len ? frame->len : q->bytes;
		free(frame);
	}
}

void net_take_waiting(struct net_port *port)
{
	for (unsigned n = 0; n < port->used_queues; n++)
		deliver_backlog(port, n);
}

/* From the loop: backlog that waited for a send to end, then senders that hold frames back. */
static void flush_call(void *opaque)
{
	struct net_port *port = opaque;
	for (unsigned n = 0; n < port->queues; n++)
		deliver_backlog(port, n);
	struct net_port *peer = port->peer;
	struct net_port *ends[] = {peer, port};
	for (unsigned end = 0; end < ARRAY_SIZE(ends); end++) {
		struct net_port *sender = ends[end];
		if (!sender || !sender->ops->resume)
			continue;
		for (unsigned n = 0; n < NET_MAX_QUEUES; n++) {
			struct net_port *to = sender->peer;
			if (!sender->queue[n].wants_resume ||
			    (to && net_link_up(sender) && !may_deliver(to, n % to->used_queues)))
				continue;
			sender->queue[n].wants_resume = false;
			sender->ops->resume(sender->opaque, n);
		}
	}
}

void net_receive_ready(struct net_port *port, unsigned queue)
{
	struct port_queue *q = &port->queue[queue % NET_MAX_QUEUES];
	q->blocked = false;
	struct net_port *peer = port->peer;
	bool waiting = !list_empty(&q->backlog);
	for (unsigned n = 0; peer && n < NET_MAX_QUEUES; n++)
		waiting = waiting || peer->queue[n].wants_resume;
	if (waiting)
		loop_call_schedule(port->net->loop, &port->flush);
}

void net_hold_cards(struct net *net, bool hold)
{
	struct list *it;
	net->cards_held = hold;
	list_for_each(it, &net->ports)
	{
		struct net_port *port = list_entry(it, struct net_port, link);
		for (unsigned n = 0; !hold && port->kind == NET_NIC && n < port->queues; n++)
			net_receive_ready(port, n); /* one without room says so again */
	}
}

void net_drop_backlog(struct net_port *port)
{
	for (unsigned n = 0; n < NET_MAX_QUEUES; n++) {
		struct port_queue *q = &port->queue[n];
		while (!list_empty(&q->backlog)) {
			struct waiting_frame *frame =
				list_entry(q->backlog.next, struct waiting_frame, link);
			list_remove(&frame->link);
			free(frame);
		}
		q->frames = q->bytes = 0;
	}
}

/* ---- Offloads ---- */

unsigned net_peer_offloads(const struct net_port *port)
{
	const struct net_port *peer = port->peer;
	return peer && peer->ops->offloads ? peer->ops->offloads(peer->opaque) : 0;
}

int net_set_vnet_hdr(struct net_port *port, unsigned hdr_len)
{
	struct net_port *peer = port->peer;
	if (hdr_len == port->vnet_hdr)
		return 0;
	if (!peer || !peer->ops->set_vnet_hdr)
		return -ENOTSUP;
	int r = peer->ops->set_vnet_hdr(peer->opaque, hdr_len);
	if (r == 0)
		port->vnet_hdr = hdr_len;
	return r;
}

unsigned net_vnet_hdr(const struct net_port *port)
{
	return port->vnet_hdr ? port->vnet_hdr : port->peer ? port->peer->vnet_hdr : 0;
}

void net_set_peer_offload(struct net_port *port, unsigned offloads)
{
	struct net_port *peer = port->peer;
	if (peer && peer->ops->set_offload)
		peer->ops->set_offload(peer->opaque, offloads);
}

void net_use_queues(struct net_port *port, unsigned queues)
{
	struct net_port *peer = port->peer;
	if (queues < 1 || queues > port->queues)
		return;
	port->used_queues = queues;
	if (peer && peer->ops->set_queues)
		peer->ops->set_queues(peer->opaque, queues < peer->queues ? queues : peer->queues);
}

unsigned net_peer_queues(const struct net_port *port)
{
	return port->peer ? port->peer->queues : 1;
}
