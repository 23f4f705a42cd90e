/* SPDX-License-Identifier: MIT */
/*
 * From -netdev, -nic and -net to backends, cards and the links between them.
 *
 * There are three ways to write the same thing. -netdev makes a backend with a name, and a
 * card's netdev= plugs into it. -nic makes a backend and a card at once. The old -net puts each
 * card and each backend onto a hub of its own port; hub 0 unless hubid (or the old vlan) says else.
 * A machine that was told nothing has a card on a user network, as QEMU's has, unless -nodefaults
 * is given.
 *
 * A card without mac= gets an address from what identifies the machine: its UUID, its name, its
 * first disk, or else the whole command line. So it differs from machine to machine and stays
 * the same for the same machine; the n-th card's is n higher.
 */
#include "vmm/nics.h"
#include "core/iobus.h"
#include "devices/ne2000.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include "net/netdev.h"
#include "vmm/machine.h"
#include "vmm/net_announce.h"
#include "vmm/net_streams.h"
#include "vmm/pci_devices.h"
#include "vmm/properties.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CARDS_MAX = 32 };

struct isa_card {
	struct ne2000 *card;
	struct list link;
};

/* What the network part of a machine keeps (m->nics). */
struct nics {
	struct netdev_env env;
	struct net_streams streams;
	struct list isa; /* struct isa_card */
	uint8_t mac[CARDS_MAX][NET_MAC_LEN];
	unsigned cards; /* made or being made */
	unsigned hub_ports;
	struct list names; /* struct name */
};

/* Texts that live as long as the machine. */
struct name {
	struct list link;
	char text[];
};

static const char *keep_name(struct nics *n, const char *text)
{
	struct name *name = xcalloc(1, sizeof(*name) + strlen(text) + 1);
	strcpy(name->text, text);
	list_push_back(&n->names, &name->link);
	return name->text;
}

/* ---- Models ---- */

static const struct {
	const char *name, *alias, *help;
} models[] = {
	{"virtio-net-pci", "virtio", "virtio network card"},
	{"virtio-net-pci-transitional", NULL, "the same, with both interfaces always"},
	{"virtio-net-pci-non-transitional", NULL, "the same, of virtio 1 only"},
	{"ne2k_pci", NULL, "NE2000 on PCI (Realtek RTL8029)"},
	{"ne2k_isa", NULL, "NE2000 on ISA"},
};

static bool have_model(const char *name)
{
	return nics_is_isa_card(name) || pci_device_type_find(name) != NULL;
}

static const char *default_model(void)
{
	return have_model(models[0].name) ? models[0].name : "ne2k_pci";
}

void nics_print_models(void)
{
	puts("Available network cards:");
	for (size_t n = 0; n < ARRAY_SIZE(models); n++)
		if (have_model(models[n].name))
			printf("%-32s %s%s\n", models[n].name, models[n].help,
			       !strcmp(models[n].name, default_model()) ? " (default)" : "");
}

/* The driver of a model=, or NULL with a sentence. */
static const char *find_model(const char *name, struct error *err)
{
	const char *names[2 * ARRAY_SIZE(models) + 1] = {0};
	size_t count = 0;
	if (!name)
		return default_model();
	for (size_t n = 0; n < ARRAY_SIZE(models); n++) {
		if (!have_model(models[n].name))
			continue;
		if (!strcmp(name, models[n].name) ||
		    (models[n].alias && !strcmp(name, models[n].alias)))
			return models[n].name;
		names[count++] = models[n].name;
	}
	const char *near = nearest_word(name, names);
	if (near)
		error_set(err, EINVAL, "there is no network card '%s'; did you mean '%s'?", name,
			  near);
	else
		error_set(err, EINVAL,
			  "there is no network card '%s'; model=help lists those there "
			  "are",
			  name);
	return NULL;
}

bool nics_is_isa_card(const char *driver)
{
	return !strcmp(driver, "ne2k_isa");
}

const char *const nics_isa_keys[] = {"netdev", "mac", "iobase", "irq", "id", NULL};

void nics_device_help(void)
{
	puts("ne2k_isa         NE2000 network card: netdev=ID,mac=,iobase=0x300,irq=9");
}

/* ---- Addresses ---- */

/* What tells this machine from others. */
static char *machine_seed(const struct options *o)
{
	if (o->uuid)
		return xasprintf("uuid %s", o->uuid);
	if (o->name)
		return xasprintf("name %s", o->name);
	for (size_t n = 0; !o->snapshot && n < o->drive_count; n++) {
		struct drive_option *d = &o->drives[n];
		const char *file = NULL;
		for (size_t i = 0; i < d->opts.count; i++)
			if (!strcmp(d->opts.item[i].key, "file"))
				file = d->opts.item[i].value;
		if (!file || d->cdrom || d->interface == IF_FLOPPY)
			continue;
		char *path = realpath(file, NULL);
		char *seed = xasprintf("disk %s", path ? path : file);
		free(path);
		return seed;
	}
	struct strbuf line = STRBUF_INIT;
	for (int n = 0; n < o->argc; n++)
		strbuf_printf(&line, "%s ", o->argv[n]);
	return strbuf_steal(&line);
}

static int choose_mac(struct machine *m, struct opts *opts, struct nic_config *out,
		      struct error *err)
{
	struct nics *n = m->nics;
	const char *text = opts_get(opts, "mac"), *other = opts_get(opts, "macaddr");
	int r;
	if (!text)
		text = other;
	if (n->cards == CARDS_MAX)
		return error_set(err, ENOSPC, "there can be no more than %d network cards",
				 CARDS_MAX);
	if (text && (r = net_parse_mac(text, out->mac, err)) < 0)
		return r;
	if (!text) {
		char *seed = machine_seed(m->options);
		net_default_mac(seed, n->cards, out->mac);
		free(seed);
	}
	memcpy(n->mac[n->cards++], out->mac, NET_MAC_LEN);
	return 0;
}

int nic_config_parse(struct machine *m, struct opts *opts, const char *driver, const char *id,
		     struct nic_config *out, struct error *err)
{
	const char *netdev = opts_get(opts, "netdev");
	*out = (struct nic_config){.net = m->net};
	if (netdev && !(out->peer = net_find_backend(m->net, netdev)))
		return error_set(err, ENOENT, "there is no -netdev with id=%s", netdev);
	if (id) {
		out->id = keep_name(m->nics, id);
	} else {
		char text[64];
		for (unsigned n = 0;; n++) {
			snprintf(text, sizeof(text), "%s.%u", driver, n);
			if (!net_find_nic(m->net, text))
				break;
		}
		out->id = keep_name(m->nics, text);
	}
	return choose_mac(m, opts, out, err);
}

/* ---- NE2000 cards ---- */

struct port_owner {
	uint16_t base;
	const char *name;
};

static void find_owner(void *opaque, const char *name, uint16_t base, unsigned count)
{
	struct port_owner *o = opaque;
	if (base < o->base + NE2000_PORTS && o->base < base + count)
		o->name = name;
}

/* No BAR is mapped yet: what has ports now has them always. */
static int ports_are_free(struct machine *m, uint16_t iobase, struct error *err)
{
	struct port_owner o = {.base = iobase};
	iobus_for_each(m->env.io, find_owner, &o);
	if (!o.name)
		return 0;
	return error_set(err, EBUSY,
			 "iobase=0x%x: of the ports from 0x%x to 0x%x some belong to '%s'", iobase,
			 iobase, iobase + NE2000_PORTS - 1, o.name);
}

static int add_isa_card(struct machine *m, const char *text, struct error *err)
{
	struct opts opts;
	struct nic_config nic;
	uint64_t iobase = NE2000_ISA_IOBASE, irq = NE2000_ISA_IRQ;
	int r = opts_parse(&opts, text, "driver", err);
	if (r < 0)
		return r;
	opts_get(&opts, "driver");
	if ((r = opts_get_u64(&opts, "iobase", &iobase, err)) < 0 ||
	    (r = opts_get_u64(&opts, "irq", &irq, err)) < 0)
		goto out;
	if (iobase < 0x100 || iobase > 0x10000 - NE2000_PORTS || iobase % NE2000_PORTS) {
		r = error_set(err, EINVAL,
			      "iobase must be a multiple of 0x20, such as 0x280, 0x300, 0x320 or "
			      "0x340");
		goto out;
	}
	if (irq < 3 || irq >= ISA_IRQS || irq == 8 || irq == 13) {
		r = error_set(err, EINVAL,
			      "irq must be one that an ISA card can have: 3 to 7, 9 to "
			      "12, 14 or 15");
		goto out;
	}
	if ((r = ports_are_free(m, (uint16_t)iobase, err)) < 0)
		goto out;
	const char *id = opts_get(&opts, "id");
	if (id && (r = opts_check_id(id, err)) < 0)
		goto out;
	if ((r = nic_config_parse(m, &opts, "ne2k_isa", id, &nic, err)) < 0)
		goto out;
	if ((r = properties_check_absent(&opts, "ne2k_isa", err)) < 0)
		goto out;
	r = opts_check_unused(&opts, "ne2k_isa", nics_isa_keys, err);
	if (r < 0)
		goto out;
	int instance = (int)m->nics->cards - 1;
	struct ne2000 *card = ne2000_isa_new(&m->env, &nic, instance, (uint16_t)iobase,
					     machine_isa_line(m, (int)irq), err);
	if (!card) {
		r = -err->code;
		goto out;
	}
	struct isa_card *entry = xcalloc(1, sizeof(*entry));
	entry->card = card;
	list_push_back(&m->nics->isa, &entry->link);
out:
	opts_free(&opts);
	return r;
}

static void *ne2k_pci_create(const struct pci_device_args *args, struct pci_device **pci,
			     struct error *err)
{
	struct nic_config nic;
	struct machine *m = args->machine;
	if (nic_config_parse(m, args->opts, args->driver, args->id, &nic, err) < 0)
		return NULL;
	struct ne2000 *card = ne2000_pci_new(&m->env, &nic, (int)m->nics->cards - 1, m->dev.pci,
					     args->devfn, err);
	if (card)
		*pci = ne2000_pci_device(card);
	return card;
}

static void ne2k_pci_free(void *device)
{
	ne2000_free(device);
}

const struct pci_device_type ne2k_pci_type = {
	.driver = "ne2k_pci",
	.help = "NE2000 network card (RTL8029): netdev=ID,mac=",
	.properties = (const char *const[]){"netdev", "mac", "macaddr", NULL},
	.romfile = "pxe-ne2k_pci.rom",
	.boot_child = "ethernet-phy@0",
	.create = ne2k_pci_create,
	.free = ne2k_pci_free,
};

/* ---- Options ---- */

/* Appends ",key=value" with commas doubled. */
static void append_option(struct strbuf *out, const char *key, const char *value)
{
	strbuf_printf(out, ",%s=", key);
	for (; *value; value++) {
		if (*value == ',')
			strbuf_puts(out, ",");
		strbuf_append(out, value, 1);
	}
}

/* Keys of -nic and -net nic that belong to the card. */
static const char *const card_keys[] = {"mac",       "macaddr", "addr",   "vectors",
					"bootindex", "romfile", "iobase", "irq"};

static bool is_card_key(const char *key)
{
	for (size_t n = 0; n < ARRAY_SIZE(card_keys); n++)
		if (!strcmp(key, card_keys[n]))
			return true;
	return false;
}

/* A card for -nic or -net nic, on the backend `netdev` (or on none). */
static int add_card(struct machine *m, const char *option, struct opts *opts, const char *netdev,
		    struct error *err)
{
	const char *model = find_model(opts_get(opts, "model"), err);
	const char *id = opts_get(opts, "name");
	if (!id && !strcmp(option, "-net"))
		id = opts_get(opts, "id");
	struct strbuf text = STRBUF_INIT;
	int r = 0;
	if (!model) {
		error_prefix(err, "%s %s", option, opts->source);
		return -err->code;
	}
	strbuf_puts(&text, model);
	if (netdev)
		append_option(&text, "netdev", netdev);
	if (id)
		append_option(&text, "id", id);
	for (size_t n = 0; n < opts->count; n++) {
		if (!is_card_key(opts->item[n].key))
			continue;
		opts->item[n].used = true;
		append_option(&text,
			      !strcmp(opts->item[n].key, "macaddr") ? "mac" : opts->item[n].key,
			      opts->item[n].value);
	}
	if (nics_is_isa_card(model))
		r = add_isa_card(m, strbuf_str(&text), err);
	else if (!pci_device_add(m, NULL, strbuf_str(&text), err))
		r = -err->code;
	if (r < 0)
		error_prefix(err, "%s %s", option, opts->source);
	strbuf_free(&text);
	return r;
}

/* A hub's next port, called as QEMU calls it. */
static struct net_port *new_hubport(struct machine *m, unsigned hub, struct error *err)
{
	char id[48];
	snprintf(id, sizeof(id), "hub%uport%u", hub, m->nics->hub_ports++);
	return net_hubport_new(m->net, id, hub, err);
}

static int hub_number(struct opts *opts, unsigned *hub, struct error *err)
{
	uint64_t number = 0;
	int r = opts_get_u64(opts, opts_has(opts, "vlan") ? "vlan" : "hubid", &number, err);
	if (r == 0 && number > INT32_MAX)
		r = error_set(err, EINVAL, "the hub's number must be 0 to %d", INT32_MAX);
	*hub = (unsigned)number;
	return r;
}

/* An unused id for a backend that was given none: "user.0". */
static char *backend_id(struct machine *m, const char *type)
{
	for (unsigned n = 0;; n++) {
		char *id = xasprintf("%s.%u", type, n);
		if (!net_find_backend(m->net, id))
			return id;
		free(id);
	}
}

/* The backend of -net TYPE or -nic TYPE, without the card's keys. */
static struct net_port *open_backend(struct machine *m, const char *option, const char *text,
				     bool with_card, struct error *err)
{
	struct opts given, opts = {0};
	struct net_port *port = NULL;
	if (opts_parse(&given, text, "type", err) < 0) {
		error_prefix(err, "%s %s", option, text);
		return NULL;
	}
	opts.source = xstrdup(text);
	/* -nic without a type is the user network. */
	if (with_card && !opts_has(&given, "type"))
		opts_set(&given, "type", "user");
	const char *type = opts_get(&given, "type");
	for (size_t n = 0; n < given.count; n++) {
		const char *key = given.item[n].key;
		bool old = !with_card && (!strcmp(key, "vlan") || !strcmp(key, "hubid"));
		bool name = !strcmp(key, "name");
		bool card = with_card && (is_card_key(key) || !strcmp(key, "model") || name);
		if (!old && !card)
			opts_set(&opts, !with_card && name ? "id" : key, given.item[n].value);
	}
	if (type && !opts_has(&opts, "id")) {
		char *id = backend_id(m, type);
		opts_set(&opts, "id", id);
		free(id);
	}
	port = netdev_open(&m->nics->env, option, &opts, err);
	opts_free(&opts);
	opts_free(&given);
	return port;
}

static bool begins(const char *text, const char *word)
{
	size_t len = strlen(word);
	return !strncmp(text, word, len) && (!text[len] || text[len] == ',');
}

/* -net user,..., -net tap,... onto a hub. */
static int open_old_backend(struct machine *m, const char *text, struct error *err)
{
	struct opts opts;
	unsigned hub;
	struct net_port *port, *hubport;
	if (begins(text, "none") || begins(text, "nic"))
		return 0;
	int r = opts_parse(&opts, text, "type", err);
	if (r == 0) {
		r = hub_number(&opts, &hub, err);
		opts_free(&opts);
	}
	if (r < 0) {
		error_prefix(err, "-net %s", text);
		return r;
	}
	if (!(port = open_backend(m, "-net", text, false, err)) ||
	    !(hubport = new_hubport(m, hub, err)) || net_join(hubport, port, err) < 0)
		return -err->code;
	return 0;
}

static int add_old_card(struct machine *m, const char *text, struct error *err)
{
	struct opts opts;
	unsigned hub;
	int r = opts_parse(&opts, text, "type", err);
	if (r < 0)
		return r;
	opts_get(&opts, "type");
	const char *netdev = opts_get(&opts, "netdev");
	if ((r = hub_number(&opts, &hub, err)) == 0 && !netdev) {
		struct net_port *hubport = new_hubport(m, hub, err);
		r = hubport ? 0 : -err->code;
		netdev = hubport ? net_port_id(hubport) : NULL;
	}
	if (r < 0)
		error_prefix(err, "-net %s", text);
	else
		r = add_card(m, "-net", &opts, netdev, err);
	if (r == 0) {
		r = opts_check_unused(&opts, "-net nic",
				      (const char *const[]){"macaddr", "model", "netdev", "name",
							    "id", "addr", "vectors", NULL},
				      err);
	}
	opts_free(&opts);
	return r;
}

static int add_nic(struct machine *m, const char *text, struct net_port *backend, struct error *err)
{
	struct opts opts;
	int r = opts_parse(&opts, text, "type", err);
	if (r == 0) {
		r = add_card(m, "-nic", &opts, net_port_id(backend), err);
		opts_free(&opts);
	}
	return r;
}

int nics_netdev_add_opts(struct machine *m, struct opts *opts, struct error *err)
{
	return netdev_open(&m->nics->env, "-netdev", opts, err) ? 0 : -err->code;
}

int nics_netdev_add(struct machine *m, const char *text, struct error *err)
{
	struct opts opts;
	int r = opts_parse(&opts, text, "type", err);
	if (r < 0)
		return r;
	r = nics_netdev_add_opts(m, &opts, err);
	opts_free(&opts);
	return r;
}

static bool has_default_network(const struct options *o)
{
	return !o->no_default_drives && !o->netdev.count && !o->nic.count && !o->net.count;
}

/* The n-th -nic's backend is found again by its place among the ports. */
static int open_nic_backends(struct machine *m, struct error *err)
{
	const struct arg_list *list = &m->options->nic;
	m->nic_backends = xcalloc(list->count + 1, sizeof(*m->nic_backends));
	for (size_t n = 0; n < list->count; n++) {
		if (begins(list->item[n], "none"))
			continue;
		m->nic_backends[n] = open_backend(m, "-nic", list->item[n], true, err);
		if (!m->nic_backends[n])
			return -err->code;
	}
	if (!has_default_network(m->options))
		return 0;
#ifdef HAVE_SLIRP
	m->nic_backends[0] = open_backend(m, "-nic", "user", true, err);
	return m->nic_backends[0] ? 0 : -err->code;
#else
	return 0;
#endif
}

int nics_open_backends(struct machine *m, struct error *err)
{
	const struct options *o = m->options;
	struct nics *n = m->nics = xcalloc(1, sizeof(*n));
	int r = 0;
	list_init(&n->isa);
	list_init(&n->names);
	m->net = net_new(m->loop, m->clock);
	n->streams = net_streams_of(m);
	n->env = (struct netdev_env){.net = m->net, .streams = &n->streams};
	for (size_t i = 0; i < o->netdev.count && r == 0; i++)
		r = nics_netdev_add(m, o->netdev.item[i], err);
	for (size_t i = 0; i < o->net.count && r == 0; i++)
		r = open_old_backend(m, o->net.item[i], err);
	return r < 0 ? r : open_nic_backends(m, err);
}

static int build_isa_cards(struct machine *m, struct error *err)
{
	const struct arg_list *list = &m->options->device;
	int r = 0;
	for (size_t n = 0; n < list->count && r == 0; n++) {
		const char *text = list->item[n];
		if (begins(text, "ne2k_isa") || begins(text, "driver=ne2k_isa"))
			r = add_isa_card(m, text, err);
		if (r < 0)
			error_prefix(err, "-device %s", text);
	}
	return r;
}

struct hub_members {
	struct net *net;
	int hub;
	const struct net_port *first;
	bool card, network;
};

static void count_members(void *opaque, struct net_port *port)
{
	struct hub_members *h = opaque;
	if (net_hubport_id(port) != h->hub)
		return;
	const struct net_port *peer = net_peer(port);
	if (!h->first)
		h->first = port;
	if (peer && net_port_kind(peer) == NET_NIC)
		h->card = true;
	else if (peer)
		h->network = true;
}

/* A card or a backend that nothing is connected to is most likely a mistake. */
static void warn_unused(void *opaque, struct net_port *port)
{
	struct hub_members h = {.net = opaque, .hub = net_hubport_id(port)};
	if (net_peer(port) || h.hub >= 0) {
		if (h.hub < 0)
			return;
		net_for_each(h.net, count_members, &h);
		if (h.first != port)
			return;
		if (!h.card)
			warn("hub %d has no network card", h.hub);
		else if (!h.network)
			warn("hub %d is connected to no network", h.hub);
	} else if (net_port_kind(port) == NET_NIC) {
		warn("the network card '%s' is connected to nothing (no netdev=)",
		     net_port_id(port));
	} else {
		warn("the network backend '%s' is connected to no card", net_port_id(port));
	}
}

static void warn_same_macs(const struct nics *n)
{
	for (unsigned a = 0; a < n->cards; a++)
		for (unsigned b = 0; b < a; b++) {
			const uint8_t *mac = n->mac[a];
			if (!memcmp(mac, n->mac[b], NET_MAC_LEN))
				warn("two network cards have the same MAC address "
				     "%02x:%02x:%02x:%02x:%02x:%02x",
				     mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
		}
}

void nics_warn(struct machine *m)
{
	net_for_each(m->net, warn_unused, m->net);
	warn_same_macs(m->nics);
}

int nics_build(struct machine *m, struct error *err)
{
	const struct options *o = m->options;
	int r = build_isa_cards(m, err);
	for (size_t n = 0; n < o->net.count && r == 0; n++)
		if (begins(o->net.item[n], "nic"))
			r = add_old_card(m, o->net.item[n], err);
	for (size_t n = 0; n < o->nic.count && r == 0; n++)
		if (m->nic_backends[n])
			r = add_nic(m, o->nic.item[n], m->nic_backends[n], err);
	if (r == 0 && has_default_network(o) && m->nic_backends[0])
		r = add_nic(m, "user", m->nic_backends[0], err);
	return r;
}

void nics_free(struct machine *m)
{
	struct nics *n = m->nics;
	if (!n)
		return;
	while (!list_empty(&n->isa)) {
		struct isa_card *entry = list_entry(n->isa.next, struct isa_card, link);
		list_remove(&entry->link);
		ne2000_free(entry->card);
		free(entry);
	}
	net_announce_free(m);
	net_free(m->net);
	m->net = NULL;
	while (!list_empty(&n->names)) {
		struct name *name = list_entry(n->names.next, struct name, link);
		list_remove(&name->link);
		free(name);
	}
	free(m->nic_backends);
	free(n);
	m->nics = NULL;
}

int nics_check_option(struct options *o, const char *option, const char *arg, struct error *err)
{
	struct opts opts;
	bool netdev = !strcmp(option, "-netdev");
	int r = opts_parse(&opts, arg, "type", err);
	if (r < 0)
		return r;
	const char *type = opts_get(&opts, "type"), *model = opts_get(&opts, "model");
	const char *mac = opts_get(&opts, "mac"), *macaddr = opts_get(&opts, "macaddr");
	uint8_t address[NET_MAC_LEN];
	r = OPTIONS_RUN;
	if (type && (!strcmp(type, "help") || !strcmp(type, "?"))) {
		netdev_print_help();
		r = OPTIONS_DONE;
	} else if (!netdev && model && (!strcmp(model, "help") || !strcmp(model, "?"))) {
		nics_print_models();
		r = OPTIONS_DONE;
	} else if (!type && !strcmp(option, "-nic")) {
		r = OPTIONS_RUN;
	} else if (!type) {
		r = error_set(err, EINVAL, "%s %s: it needs a type; -netdev help lists them",
			      option, arg);
	} else if (netdev || (strcmp(type, "none") && strcmp(type, "nic"))) {
		if (!netdev_type_find(type, err))
			r = -err->code;
	} else if (!strcmp(type, "nic") && !strcmp(option, "-nic")) {
		r = error_set(err, EINVAL,
			      "-nic makes card and backend: -nic user,model=..., or -net nic");
	} else if (!strcmp(type, "none") && opts.count > 1) {
		r = error_set(err, EINVAL, "none has no parameters");
	}
	if (r == OPTIONS_RUN && !strcmp(option, "-net") && !strcmp(type, "hubport"))
		r = error_set(err, EINVAL,
			      "-net is on a hub already; hubport goes with -netdev and -nic");
	if (r == OPTIONS_RUN && !netdev && (mac || macaddr))
		r = net_parse_mac(mac ? mac : macaddr, address, err);
	if (r < 0 && strncmp(err->text, option, strlen(option)))
		error_prefix(err, "%s %s", option, arg);
	opts_free(&opts);
	return r;
}
