/* SPDX-License-Identifier: MIT */
/* What the monitors know about networks: info network, set_link, hostfwd_add and so on. */
#include "lib/text.h"
#include "net/netdev.h"
#include "vmm/machine.h"
#include "vmm/nics.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct listing {
	struct strbuf *out;
	struct machine *m;
	int hub;
	struct net_port *found;
	unsigned count;
};

static void print_port(struct strbuf *out, struct net_port *port)
{
	strbuf_printf(out, "%s: index=0,", net_port_id(port));
	if (net_port_ops(port)->describe)
		net_port_ops(port)->describe(net_port_opaque(port), out);
	if (net_port_is_down(port))
		strbuf_puts(out, " (link down)");
	strbuf_puts(out, "\n");
	net_describe_filters(port, out);
}

static void print_member(void *opaque, struct net_port *port)
{
	struct listing *l = opaque;
	if (net_hubport_id(port) != l->hub)
		return;
	strbuf_printf(l->out, " \\ %s", net_port_id(port));
	if (net_peer(port)) {
		strbuf_puts(l->out, ": ");
		print_port(l->out, net_peer(port));
	} else {
		strbuf_puts(l->out, "\n");
	}
}

static void find_lowest(void *opaque, struct net_port *port)
{
	struct listing *l = opaque;
	int hub = net_hubport_id(port);
	if (hub > l->hub && (!l->found || hub < net_hubport_id(l->found)))
		l->found = port;
}

static void print_link(void *opaque, struct net_port *port)
{
	struct listing *l = opaque;
	struct net_port *peer = net_peer(port);
	if (net_port_kind(port) == NET_HUBPORT || (peer && net_port_kind(peer) == NET_HUBPORT))
		return;
	/* A card with its backend below it; a backend alone only if it has no card. */
	if (net_port_kind(port) != NET_NIC && peer)
		return;
	print_port(l->out, port);
	if (peer) {
		strbuf_puts(l->out, " \\ ");
		print_port(l->out, peer);
	}
}

void nics_info(struct machine *m, struct strbuf *out)
{
	struct listing l = {.out = out, .m = m, .hub = -1};
	for (;;) {
		l.found = NULL;
		net_for_each(m->net, find_lowest, &l);
		if (!l.found)
			break;
		l.hub = net_hubport_id(l.found);
		strbuf_printf(out, "hub %d\n", l.hub);
		net_for_each(m->net, print_member, &l);
	}
	net_for_each(m->net, print_link, &l);
}

static void print_user(void *opaque, struct net_port *port)
{
	struct listing *l = opaque;
	if (!user_is(port))
		return;
	int hub = net_peer(port) ? net_hubport_id(net_peer(port)) : -1;
	if (hub >= 0)
		strbuf_printf(l->out, "Hub %d (%s):\n", hub, net_port_id(port));
	else
		strbuf_printf(l->out, "%s:\n", net_port_id(port));
	user_info(port, l->out);
}

void nics_info_user(struct machine *m, struct strbuf *out)
{
	struct listing l = {.out = out};
	net_for_each(m->net, print_user, &l);
}

static void find_user(void *opaque, struct net_port *port)
{
	struct listing *l = opaque;
	if (!user_is(port))
		return;
	l->found = port;
	l->count++;
}

int nics_hostfwd(struct machine *m, bool add, const char *netdev, const char *rule,
		 struct error *err)
{
	struct listing l = {0};
	if (netdev) {
		l.found = net_find_backend(m->net, netdev);
		if (!l.found || !user_is(l.found))
			return error_set(err, ENOENT, "there is no user network with id=%s",
					 netdev);
	} else {
		net_for_each(m->net, find_user, &l);
		if (!l.count)
			return error_set(err, ENOENT, "there is no user network");
		if (l.count > 1)
			return error_set(err, EINVAL,
					 "there are several user networks; name one of them first");
	}
	return add ? user_hostfwd_add(l.found, rule, err) : user_hostfwd_remove(l.found, rule, err);
}

int nics_set_link(struct machine *m, const char *name, bool up, struct error *err)
{
	/* Card and backend may have the same name; then the cable is cut at both its ends. */
	struct net_port *nic = net_find_nic(m->net, name);
	struct net_port *backend = net_find_backend(m->net, name);
	if (!nic && !backend)
		return error_set(err, ENODEV, "Device '%s' not found", name);
	if (backend)
		net_set_link(backend, up);
	if (nic)
		net_set_link(nic, up);
	return 0;
}

int nics_netdev_del(struct machine *m, const char *id, struct error *err)
{
	struct net_port *port = net_find_backend(m->net, id);
	if (!port)
		return error_set(err, ENODEV, "Device '%s' not found", id);
	net_port_free(port);
	return 0;
}
