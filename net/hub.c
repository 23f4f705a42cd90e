/* SPDX-License-Identifier: MIT */
/*
 * A hub: what comes in at one port goes out at all others. A hub's port has no card behind it but
 * the other ports; it takes every frame, and each port's peer has its own backlog, so that a slow
 * member does not hold up the others.
 *
 * A hub exists while it has ports: the members of one are those with its number.
 */
#include "lib/text.h"
#include "net/net.h"
#include <stdlib.h>

struct hubport {
	struct net *net;
	struct net_port *port;
	unsigned hub;
};

struct delivery {
	struct hubport *from;
	const struct iovec *iov;
	int count;
};

static void pass_on(void *opaque, struct net_port *port)
{
	struct delivery *d = opaque;
	if (net_port_kind(port) != NET_HUBPORT || port == d->from->port)
		return;
	struct hubport *to = net_port_opaque(port);
	if (to->hub == d->from->hub)
		net_send(port, 0, d->iov, d->count);
}

static bool hub_receive(void *opaque, unsigned queue, const struct iovec *iov, int count,
			size_t len)
{
	struct delivery d = {.from = opaque, .iov = iov, .count = count};
	net_for_each(d.from->net, pass_on, &d);
	return true;
}

static void hub_describe(void *opaque, struct strbuf *out)
{
	struct hubport *h = opaque;
	strbuf_printf(out, "type=hubport,hubid=%u", h->hub);
}

static const struct net_port_ops hub_ops = {
	.receive = hub_receive, .describe = hub_describe, .free = free};

struct net_port *net_hubport_new(struct net *net, const char *id, unsigned hub, struct error *err)
{
	struct hubport *h = xcalloc(1, sizeof(*h));
	h->net = net;
	h->hub = hub;
	h->port = net_port_new(net, NET_HUBPORT, id, "hubport", 1, &hub_ops, h, err);
	if (!h->port) {
		free(h);
		return NULL;
	}
	return h->port;
}

int net_hubport_id(const struct net_port *port)
{
	const struct hubport *h = net_port_opaque(port);
	return net_port_kind(port) == NET_HUBPORT ? (int)h->hub : -1;
}
