/* SPDX-License-Identifier: MIT */
/* The types of backends, and addresses of cards. */
#include "net/netdev.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#ifdef HAVE_SLIRP
#include <libslirp.h>
#endif

static const struct netdev_type *const types[] = {
	&netdev_user,  &netdev_tap, &netdev_socket,  &netdev_stream,
	&netdev_dgram, &netdev_vde, &netdev_hubport, &netdev_bridge,
};

/* Types that QEMU has and this program does not. */
static const struct {
	const char *name, *why;
} absent[] = {
	{"dump", "use -object filter-dump,id=ID,netdev=ID,file=FILE"},
	{"l2tpv3", "there are no L2TPv3 tunnels; use socket, or a tunnel of the host and tap"},
	{"vhost-user", "there is no vhost; use tap"},
	{"vhost-vdpa", "there is no vhost; use tap"},
	{"netmap", "netmap is not on Linux; use tap"},
	{"af-xdp", "there is no AF_XDP; use tap"},
};

const struct netdev_type *netdev_type_find(const char *name, struct error *err)
{
	const char *names[ARRAY_SIZE(types) + 1] = {0};
	for (size_t n = 0; n < ARRAY_SIZE(types); n++) {
		if (!strcmp(types[n]->name, name))
			return types[n];
		names[n] = types[n]->name;
	}
	for (size_t n = 0; n < ARRAY_SIZE(absent); n++) {
		if (!strcmp(absent[n].name, name)) {
			error_set(err, ENOTSUP, "%s", absent[n].why);
			return NULL;
		}
	}
	const char *near = nearest_word(name, names);
	if (near)
		error_set(err, EINVAL, "there is no backend '%s'; did you mean '%s'?", name, near);
	else
		error_set(err, EINVAL, "there is no backend '%s'; -netdev help lists them", name);
	return NULL;
}

/* Unknown keys are refused before anything is opened or a script run. */
static int check_keys(struct opts *opts, const struct netdev_type *type, struct error *err)
{
	struct opts unknown = {0};
	for (size_t n = 0; n < opts->count; n++) {
		struct opt *item = &opts->item[n];
		bool known = item->used;
		for (size_t k = 0; type->properties[k] && !known; k++)
			known = !strcmp(item->key, type->properties[k]);
		if (!known)
			opts_set(&unknown, item->key, item->value);
	}
	int r = opts_check_unused(&unknown, type->name, type->properties, err);
	opts_free(&unknown);
	return r;
}

/* What the type knows but did not read goes with another of its ways. */
static int check_unread(const struct opts *opts, const struct netdev_type *type, struct error *err)
{
	for (size_t n = 0; n < opts->count; n++)
		if (!opts->item[n].used)
			return error_set(err, EINVAL, "%s: '%s' does not go with the rest",
					 type->name, opts->item[n].key);
	return 0;
}

struct net_port *netdev_open(const struct netdev_env *env, const char *option, struct opts *opts,
			     struct error *err)
{
	const char *name = opts_get(opts, "type"), *id = opts_get(opts, "id");
	const struct netdev_type *type = NULL;
	struct net_port *port = NULL;
	if (!name)
		error_set(err, EINVAL, "it needs a type; -netdev help lists them");
	else if (!id || !*id)
		error_set(err, EINVAL, "it needs id= for a card to name it");
	else if (opts_check_id(id, err) == 0)
		type = netdev_type_find(name, err);
	if (type && check_keys(opts, type, err) == 0)
		port = type->open(env, id, opts, err);
	if (port && check_unread(opts, type, err) < 0) {
		net_port_free(port);
		port = NULL;
	}
	if (!port)
		error_prefix(err, "%s %s", option, opts->source);
	return port;
}

void netdev_print_help(void)
{
	puts("Backends (-netdev TYPE,id=ID,...):");
	for (size_t n = 0; n < ARRAY_SIZE(types); n++)
		printf("%-8s %s\n", types[n]->name, types[n]->help);
}

void netdev_built_with(struct strbuf *with, struct strbuf *without)
{
#ifdef HAVE_SLIRP
	strbuf_printf(with, ", libslirp %s", slirp_version_string());
#else
	strbuf_puts(without, ", libslirp (user network)");
#endif
#ifdef HAVE_VDE
	strbuf_puts(with, ", libvdeplug");
#else
	strbuf_puts(without, ", libvdeplug (vde network)");
#endif
}

/* ---- Hub ports ---- */

static struct net_port *hubport_open(const struct netdev_env *env, const char *id,
				     struct opts *opts, struct error *err)
{
	uint64_t hub = 0;
	const char *netdev = opts_get(opts, "netdev");
	struct net_port *other = NULL;
	if (!opts_has(opts, "hubid"))
		error_set(err, EINVAL, "hubport needs hubid=N");
	else if (opts_get_u64(opts, "hubid", &hub, err) == 0 && hub > INT32_MAX)
		error_set(err, EINVAL, "'hubid' must be 0 to %d", INT32_MAX);
	else if (netdev && !(other = net_find_backend(env->net, netdev)))
		error_set(err, ENOENT, "there is no backend with id=%s; it must come first",
			  netdev);
	if (err->code)
		return NULL;
	struct net_port *port = net_hubport_new(env->net, id, (unsigned)hub, err);
	if (port && other && net_join(port, other, err) < 0) {
		net_port_free(port);
		return NULL;
	}
	return port;
}

const struct netdev_type netdev_hubport = {
	.name = "hubport",
	.help = "hubid=N,netdev=ID: a port of hub N, for a card or for another backend",
	.properties = (const char *const[]){"hubid", "netdev", NULL},
	.open = hubport_open,
};

/* ---- Addresses ---- */

int net_parse_mac(const char *text, uint8_t mac[NET_MAC_LEN], struct error *err)
{
	const char *p = text;
	for (unsigned n = 0; n < NET_MAC_LEN; n++) {
		unsigned value = 0, digits = 0;
		for (; isxdigit((unsigned char)*p) && digits < 2; p++, digits++)
			value = value * 16 +
				(unsigned)(isdigit((unsigned char)*p)
						   ? *p - '0'
						   : tolower((unsigned char)*p) - 'a' + 10);
		bool last = n == NET_MAC_LEN - 1;
		if (!digits || (last ? *p != 0 : *p != ':' && *p != '-'))
			return error_set(err, EINVAL,
					 "'%s' is not a MAC address; it must be six pairs of "
					 "hexadecimal digits such as 52:54:00:12:34:56",
					 text);
		mac[n] = (uint8_t)value;
		p += !last;
	}
	if (mac[0] & 1)
		return error_set(
			err, EINVAL,
			"'%s' is a multicast address (its first byte is odd), which no card "
			"can have",
			text);
	static const uint8_t zero[NET_MAC_LEN];
	if (!memcmp(mac, zero, NET_MAC_LEN))
		return error_set(err, EINVAL, "'%s' is no address of a card", text);
	return 0;
}

void net_default_mac(const char *seed, unsigned n, uint8_t mac[NET_MAC_LEN])
{
	/* Two checksums, mixed: neighbouring names give unlike addresses. */
	uint32_t hash = (uint32_t)crc32(0, (const Bytef *)seed, (uInt)strlen(seed));
	hash ^= (uint32_t)adler32(1, (const Bytef *)seed, (uInt)strlen(seed)) * 0x9E3779B1u;
	hash = (hash ^ hash >> 15) * 0x85EBCA6Bu;
	hash = ((hash ^ hash >> 13) + n) & 0xFFFFFF;
	mac[0] = 0x52;
	mac[1] = 0x54;
	mac[2] = 0x00;
	mac[3] = (uint8_t)(hash >> 16);
	mac[4] = (uint8_t)(hash >> 8);
	mac[5] = (uint8_t)hash;
}
