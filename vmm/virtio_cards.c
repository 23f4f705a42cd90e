/* SPDX-License-Identifier: MIT */
/* From the properties of -device virtio-...-pci to virtio devices. */
#include "vmm/virtio_cards.h"
#include "core/chardev.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_net.h"
#include "devices/virtio_rng.h"
#include "devices/virtio_serial.h"
#include "lib/bytes.h"
#include "vmm/backends.h"
#include "vmm/drives.h"
#include "vmm/machine.h"
#include "vmm/nics.h"
#include "vmm/rng.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MIN_QUEUE_SIZE = 4, DEFAULT_QUEUE_SIZE = 256, MIN_BLOCK = 512 };

static const char transitional[] = "-transitional", non_transitional[] = "-non-transitional";

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), end_len = strlen(end);
	return len > end_len && !strcmp(text + len - end_len, end);
}

size_t virtio_base_name(const char *driver)
{
	size_t len = strlen(driver);
	if (ends_with(driver, non_transitional))
		return len - strlen(non_transitional);
	return ends_with(driver, transitional) ? len - strlen(transitional) : len;
}

/* The drivers whose names say which interfaces the card has. */
static int fixed_interfaces(const struct pci_device_args *args, struct error *err)
{
	if (!args->driver[virtio_base_name(args->driver)] ||
	    (!opts_has(args->opts, "disable-legacy") && !opts_has(args->opts, "disable-modern")))
		return 0;
	return error_set(err, EINVAL,
			 "the driver's name says which interfaces the card has; leave "
			 "disable-legacy= and disable-modern= out");
}

int virtio_card_options(const struct pci_device_args *args, unsigned vectors,
			struct virtio_pci_config *config, struct error *err)
{
	static const char *const switches[] = {"off", "on", "auto", NULL};
	uint64_t asked = vectors;
	bool indirect = true, event_idx = true, packed = false, doorbells = true;
	bool ring_reset = true, any_layout = true;
	/* auto: a conventional PCI bus, so both interfaces. */
	int legacy = 2, r = fixed_interfaces(args, err);
	if (r < 0)
		return r;
	*config = (struct virtio_pci_config){.name = args->name, .devfn = args->devfn};
	if ((r = opts_get_enum(args->opts, "disable-legacy", switches, &legacy, err)) < 0 ||
	    (r = opts_get_bool(args->opts, "disable-modern", &config->disable_modern, err)) < 0 ||
	    (r = opts_get_u64(args->opts, "vectors", &asked, err)) < 0 ||
	    (r = opts_get_bool(args->opts, "indirect_desc", &indirect, err)) < 0 ||
	    (r = opts_get_bool(args->opts, "event_idx", &event_idx, err)) < 0 ||
	    (r = opts_get_bool(args->opts, "ioeventfd", &doorbells, err)) < 0 ||
	    (r = opts_get_bool(args->opts, "queue_reset", &ring_reset, err)) < 0 ||
	    (r = opts_get_bool(args->opts, "any_layout", &any_layout, err)) < 0 ||
	    (r = opts_get_bool(args->opts, "packed", &packed, err)) < 0)
		return r;
	if (asked > MSIX_VECTORS_MAX)
		return error_set(err, EINVAL, "vectors=%llu: a card has at most %d",
				 (unsigned long long)asked, MSIX_VECTORS_MAX);
	if (packed)
		return error_set(err, ENOTSUP,
				 "there are no packed virtqueues; leave packed=on out");
	config->disable_legacy = legacy == 1 || ends_with(args->driver, non_transitional);
	config->vectors = (unsigned)asked;
	config->no_indirect = !indirect;
	config->no_event_idx = !event_idx;
	config->no_doorbells = !doorbells;
	config->no_ring_reset = !ring_reset;
	config->no_any_layout = !any_layout;
	return 0;
}

/* ---- virtio-blk-pci ---- */

/* A size that must be a power of two between min and max; `key` may be absent. */
static int power_of_2(struct opts *opts, const char *key, uint64_t min, uint64_t max, unsigned *out,
		      struct error *err)
{
	uint64_t value = *out;
	int r = opts_get_size(opts, key, &value, err);
	if (r < 0)
		return r;
	if (value < min || value > max || !is_power_of_2(value))
		return error_set(err, EINVAL, "%s must be a power of two from %llu to %llu", key,
				 (unsigned long long)min, (unsigned long long)max);
	*out = (unsigned)value;
	return 0;
}

/* Sizes in whole blocks that the guest is told as hints. */
static int io_sizes(struct opts *opts, struct virtio_blk_config *c, struct error *err)
{
	uint64_t min_io = 0, opt_io = 0;
	int r;
	if ((r = opts_get_size(opts, "min_io_size", &min_io, err)) < 0 ||
	    (r = opts_get_size(opts, "opt_io_size", &opt_io, err)) < 0)
		return r;
	if (min_io % c->logical_block || min_io / c->logical_block > UINT16_MAX)
		return error_set(err, EINVAL,
				 "min_io_size must be a multiple of logical_block_size and at most "
				 "%d blocks",
				 UINT16_MAX);
	if (opt_io % c->logical_block || opt_io > UINT32_MAX)
		return error_set(err, EINVAL,
				 "opt_io_size must be a multiple of logical_block_size below 4G");
	c->min_io = (unsigned)min_io;
	c->opt_io = (unsigned)opt_io;
	return 0;
}

/* How much the guest may discard or zero at once, and how it should be aligned. */
static int range_limits(struct opts *opts, struct virtio_blk_config *c, struct error *err)
{
	uint64_t granularity = c->logical_block, discard = VIRTIO_BLK_RANGE_MAX,
		 zeroes = VIRTIO_BLK_RANGE_MAX;
	int r;
	if ((r = opts_get_size(opts, "discard_granularity", &granularity, err)) < 0 ||
	    (r = opts_get_u64(opts, "max-discard-sectors", &discard, err)) < 0 ||
	    (r = opts_get_u64(opts, "max-write-zeroes-sectors", &zeroes, err)) < 0)
		return r;
	if (!granularity || granularity % c->logical_block || granularity > INT32_MAX)
		return error_set(err, EINVAL,
				 "discard_granularity must be a multiple of logical_block_size");
	if (discard < 1 || discard > VIRTIO_BLK_RANGE_MAX || zeroes < 1 ||
	    zeroes > VIRTIO_BLK_RANGE_MAX)
		return error_set(err, EINVAL,
				 "max-discard-sectors and max-write-zeroes-sectors must be 1 to %d",
				 VIRTIO_BLK_RANGE_MAX);
	c->discard_granularity = (unsigned)granularity;
	c->max_discard = (unsigned)discard;
	c->max_zeroes = (unsigned)zeroes;
	return 0;
}

static int read_switches(struct opts *opts, struct virtio_blk_config *c, struct error *err)
{
	static const char *const caches[] = {"off", "on", "auto", NULL};
	bool config_wce = true, discard = true, zeroes = true, merging = true, share;
	int cache = 2, r;
	if ((r = opts_get_enum(opts, "write-cache", caches, &cache, err)) < 0 ||
	    (r = opts_get_bool(opts, "config-wce", &config_wce, err)) < 0 ||
	    (r = opts_get_bool(opts, "discard", &discard, err)) < 0 ||
	    (r = opts_get_bool(opts, "write-zeroes", &zeroes, err)) < 0 ||
	    (r = opts_get_bool(opts, "request-merging", &merging, err)) < 0 ||
	    /* The drive was opened with it (drives.c). */
	    (r = opts_get_bool(opts, "share-rw", &share, err)) < 0)
		return r;
	c->write_cache =
		cache == 2 ? !(drive_image_flags(c->drive) & IMAGE_WRITETHROUGH) : cache == 1;
	c->no_config_wce = !config_wce;
	c->no_merging = !merging;
	c->no_discard = !discard || !drive_writable(c->drive);
	c->no_write_zeroes = !zeroes || !drive_writable(c->drive);
	return 0;
}

static int read_blk_options(const struct pci_device_args *args, struct virtio_blk_config *c,
			    struct error *err)
{
	struct opts *opts = args->opts;
	struct machine *m = args->machine;
	const char *id = opts_get(opts, "drive"), *queues_text = opts_get(opts, "num-queues");
	uint64_t queues = m->options->cpus;
	int r;
	*c = (struct virtio_blk_config){.queue_size = DEFAULT_QUEUE_SIZE,
					.logical_block = MIN_BLOCK,
					.physical_block = MIN_BLOCK};
	/* What the drive has (drives.c). */
	for (size_t n = 0; drives_device_keys[n]; n++)
		opts_get(opts, drives_device_keys[n]);
	c->drive = id ? drives_find(&m->drives, id) : NULL;
	if (!c->drive)
		return error_set(err, EINVAL, "there is no drive '%s'", id ? id : "");
	if (queues_text && strcmp(queues_text, "auto") &&
	    (r = opts_get_u64(opts, "num-queues", &queues, err)) < 0)
		return r;
	if (queues < 1 || queues > VIRTIO_BLK_QUEUES_MAX)
		return error_set(err, EINVAL, "num-queues must be 1 to %d", VIRTIO_BLK_QUEUES_MAX);
	c->queues = (unsigned)queues;
	if ((r = power_of_2(opts, "queue-size", MIN_QUEUE_SIZE, VIRTQUEUE_SIZE_MAX, &c->queue_size,
			    err)) < 0 ||
	    (r = power_of_2(opts, "logical_block_size", MIN_BLOCK, VIRTIO_BLK_BLOCK_MAX,
			    &c->logical_block, err)) < 0)
		return r;
	c->physical_block = c->logical_block;
	if ((r = power_of_2(opts, "physical_block_size", c->logical_block, VIRTIO_BLK_BLOCK_MAX,
			    &c->physical_block, err)) < 0 ||
	    (r = io_sizes(opts, c, err)) < 0 || (r = range_limits(opts, c, err)) < 0 ||
	    (r = read_switches(opts, c, err)) < 0)
		return r;
	return 0;
}

static void *create_blk(const struct pci_device_args *args, struct pci_device **pci,
			struct error *err)
{
	struct virtio_blk_config config;
	struct virtio_pci_config card;
	if (read_blk_options(args, &config, err) < 0 ||
	    virtio_card_options(args, config.queues + 1, &card, err) < 0)
		return NULL;
	struct virtio_blk *blk =
		virtio_blk_new(&args->machine->env, args->machine->dev.pci, &card, &config, err);
	if (blk)
		*pci = virtio_blk_pci(blk);
	return blk;
}

static void free_blk(void *device)
{
	virtio_blk_free(device);
}

const struct pci_device_type virtio_blk_card = {
	.driver = "virtio-blk-pci",
	.alias = "virtio-blk",
	.help = "virtio disk: drive=ID,serial=,num-queues=,queue-size=,logical_block_size=,\n"
		"                 physical_block_size=,write-cache=,config-wce=,discard=,"
		"write-zeroes=,share-rw=,\n"
		"                 "
		"disable-legacy=on|off|auto,disable-modern=on|off,vectors=N,ioeventfd=on|off",
	.properties = (const char *const[]){"drive",
					    "serial",
					    "num-queues",
					    "queue-size",
					    "logical_block_size",
					    "physical_block_size",
					    "min_io_size",
					    "opt_io_size",
					    "write-cache",
					    "config-wce",
					    "discard",
					    "write-zeroes",
					    "share-rw",
					    "discard_granularity",
					    "max-discard-sectors",
					    "max-write-zeroes-sectors",
					    "request-merging",
					    "rerror",
					    "werror",
					    "cyls",
					    "heads",
					    "secs",
					    VIRTIO_PROPERTIES,
					    NULL},
	.boot_child = "disk@0,0",
	.create = create_blk,
	.free = free_blk,
};

/* ---- virtio-net-pci ---- */

static const struct {
	const char *key;
	uint64_t feature;
} net_switches[] = {
	{"csum", VIRTIO_NET_F_CSUM},
	{"guest_csum", VIRTIO_NET_F_GUEST_CSUM},
	{"guest_tso4", VIRTIO_NET_F_GUEST_TSO4},
	{"guest_tso6", VIRTIO_NET_F_GUEST_TSO6},
	{"guest_ecn", VIRTIO_NET_F_GUEST_ECN},
	{"host_tso4", VIRTIO_NET_F_HOST_TSO4},
	{"host_tso6", VIRTIO_NET_F_HOST_TSO6},
	{"host_ecn", VIRTIO_NET_F_HOST_ECN},
	{"mrg_rxbuf", VIRTIO_NET_F_MRG_RXBUF},
	{"status", VIRTIO_NET_F_STATUS},
	{"ctrl_vq", VIRTIO_NET_F_CTRL_VQ},
	{"ctrl_rx", VIRTIO_NET_F_CTRL_RX},
	{"ctrl_vlan", VIRTIO_NET_F_CTRL_VLAN},
	{"ctrl_rx_extra", VIRTIO_NET_F_CTRL_RX_EXTRA},
	{"ctrl_mac_addr", VIRTIO_NET_F_CTRL_MAC_ADDR},
	{"ctrl_guest_offloads", VIRTIO_NET_F_GUEST_OFFLOADS},
	{"guest_announce", VIRTIO_NET_F_ANNOUNCE},
};

/* speed= in Mbit/s (-1: unknown) and duplex=. */
static int link_speed(struct opts *opts, struct virtio_net_config *c, struct error *err)
{
	static const char *const duplexes[] = {"half", "full", NULL};
	const char *speed = opts_get(opts, "speed");
	uint64_t number = 0;
	int duplex = VIRTIO_NET_DUPLEX_UNKNOWN, r = 0;
	bool known = speed && strcmp(speed, "-1") != 0;
	if (known && (r = opts_get_u64(opts, "speed", &number, err)) < 0)
		return r;
	if (number > INT32_MAX)
		return error_set(err, EINVAL, "speed must be 0 to %d megabits a second, or -1",
				 INT32_MAX);
	if ((r = opts_get_enum(opts, "duplex", duplexes, &duplex, err)) < 0)
		return r;
	c->has_speed = known || duplex != VIRTIO_NET_DUPLEX_UNKNOWN;
	c->speed = known ? (uint32_t)number : (uint32_t)VIRTIO_NET_SPEED_UNKNOWN;
	c->duplex = (uint8_t)duplex;
	return 0;
}

static int read_net_options(const struct pci_device_args *args, struct virtio_net_config *c,
			    struct error *err)
{
	enum { MIN_MTU = 68, MIN_NET_QUEUE = 64 };
	struct opts *opts = args->opts;
	uint64_t mtu = 0;
	bool mq = true;
	int r;
	*c = (struct virtio_net_config){.rx_size = DEFAULT_QUEUE_SIZE,
					.tx_size = DEFAULT_QUEUE_SIZE};
	if ((r = nic_config_parse(args->machine, opts, "virtio-net-pci", args->id, &c->nic, err)) <
		    0 ||
	    (r = power_of_2(opts, "rx_queue_size", MIN_NET_QUEUE, VIRTQUEUE_SIZE_MAX, &c->rx_size,
			    err)) < 0 ||
	    (r = power_of_2(opts, "tx_queue_size", MIN_NET_QUEUE, VIRTQUEUE_SIZE_MAX, &c->tx_size,
			    err)) < 0 ||
	    (r = opts_get_u64(opts, "host_mtu", &mtu, err)) < 0 ||
	    (r = opts_get_bool(opts, "mq", &mq, err)) < 0)
		return r;
	if ((r = link_speed(opts, c, err)) < 0)
		return r;
	if (mtu && (mtu < MIN_MTU || mtu > UINT16_MAX))
		return error_set(err, EINVAL, "host_mtu must be %d to %d", MIN_MTU, UINT16_MAX);
	c->mtu = (uint16_t)mtu;
	for (size_t n = 0; n < ARRAY_SIZE(net_switches); n++) {
		bool on = true;
		if ((r = opts_get_bool(opts, net_switches[n].key, &on, err)) < 0)
			return r;
		if (!on)
			c->without |= net_switches[n].feature;
	}
	c->pairs = mq && c->nic.peer ? net_port_queues(c->nic.peer) : 1;
	return 0;
}

static void *create_net(const struct pci_device_args *args, struct pci_device **pci,
			struct error *err)
{
	struct virtio_net_config config;
	struct virtio_pci_config card;
	if (read_net_options(args, &config, err) < 0 ||
	    virtio_card_options(args, 2 * config.pairs + 2, &card, err) < 0)
		return NULL;
	struct virtio_net *net =
		virtio_net_new(&args->machine->env, args->machine->dev.pci, &card, &config, err);
	if (net)
		*pci = virtio_net_pci(net);
	return net;
}

static void free_net(void *device)
{
	virtio_net_free(device);
}

const struct pci_device_type virtio_net_card = {
	.driver = "virtio-net-pci",
	.alias = "virtio-net",
	.help = "virtio network card: netdev=ID,mac=,mq=on|off,host_mtu=,rx_queue_size=,"
		"tx_queue_size=,\n"
		"                 csum=, guest_csum=, host_tso4= and other features =on|off",
	.properties = (const char *const[]){"netdev",
					    "mac",
					    "rx_queue_size",
					    "tx_queue_size",
					    "host_mtu",
					    "speed",
					    "duplex",
					    "mq",
					    "csum",
					    "guest_csum",
					    "guest_tso4",
					    "guest_tso6",
					    "guest_ecn",
					    "host_tso4",
					    "host_tso6",
					    "host_ecn",
					    "mrg_rxbuf",
					    "status",
					    "ctrl_vq",
					    "ctrl_rx",
					    "ctrl_vlan",
					    "ctrl_rx_extra",
					    "ctrl_mac_addr",
					    "ctrl_guest_offloads",
					    "guest_announce",
					    VIRTIO_PROPERTIES,
					    NULL},
	.romfile = "pxe-virtio.rom",
	.boot_child = "ethernet-phy@0",
	.create = create_net,
	.free = free_net,
};

/* ---- virtio-rng-pci ---- */

static void *create_rng(const struct pci_device_args *args, struct pci_device **pci,
			struct error *err)
{
	struct virtio_rng_config config = {.fd = -1};
	struct virtio_pci_config card;
	const char *id = opts_get(args->opts, "rng");
	uint64_t period = 65536;
	if (opts_get_u64(args->opts, "max-bytes", &config.max_bytes, err) < 0 ||
	    opts_get_u64(args->opts, "period", &period, err) < 0 ||
	    virtio_card_options(args, 2, &card, err) < 0)
		return NULL;
	if (period < 1 || period > UINT32_MAX) {
		error_set(err, EINVAL, "period must be 1 to %u milliseconds", UINT32_MAX);
		return NULL;
	}
	config.period_ms = (uint32_t)period;
	if (id && rng_open(id, &config, err) < 0)
		return NULL;
	struct virtio_rng *rng =
		virtio_rng_new(&args->machine->env, args->machine->dev.pci, &card, &config, err);
	if (rng)
		*pci = virtio_rng_pci(rng);
	else if (config.fd >= 0)
		close(config.fd);
	return rng;
}

static void free_rng(void *device)
{
	virtio_rng_free(device);
}

const struct pci_device_type virtio_rng_card = {
	.driver = "virtio-rng-pci",
	.alias = "virtio-rng",
	.help = "random numbers from the host: rng=ID (an -object rng-random, rng-builtin or "
		"rng-egd),"
		"max-bytes=,period=",
	.properties = (const char *const[]){"rng", "max-bytes", "period", VIRTIO_PROPERTIES, NULL},
	.create = create_rng,
	.free = free_rng,
};

/* ---- virtio-serial-pci and its ports ---- */

static void *create_serial(const struct pci_device_args *args, struct pci_device **pci,
			   struct error *err)
{
	struct virtio_pci_config card;
	uint64_t ports = VIRTIO_SERIAL_PORTS_MAX;
	if (opts_get_u64(args->opts, "max_ports", &ports, err) < 0 ||
	    virtio_card_options(args, 2, &card, err) < 0)
		return NULL;
	if (ports < 1 || ports > VIRTIO_SERIAL_PORTS_MAX) {
		error_set(err, EINVAL, "max_ports must be 1 to %d", VIRTIO_SERIAL_PORTS_MAX);
		return NULL;
	}
	struct virtio_serial *serial = virtio_serial_new(
		&args->machine->env, args->machine->dev.pci, &card, (unsigned)ports, err);
	if (serial)
		*pci = virtio_serial_pci(serial);
	return serial;
}

static void free_serial(void *device)
{
	virtio_serial_free(device);
}

const struct pci_device_type virtio_serial_card = {
	.driver = "virtio-serial-pci",
	.alias = "virtio-serial",
	.help = "card for virtconsole and virtserialport: max_ports=31",
	.properties = (const char *const[]){"max_ports", VIRTIO_PROPERTIES, NULL},
	.create = create_serial,
	.free = free_serial,
};

bool virtio_is_serial_port(const char *driver)
{
	return !strcmp(driver, "virtserialport") || !strcmp(driver, "virtconsole");
}

/* The card that bus= names ("ID.0"), or the first one. */
static struct virtio_serial *find_serial(struct machine *m, const char *bus, struct error *err)
{
	struct list *it;
	list_for_each(it, &m->pci_devices)
	{
		struct pci_unit *unit = list_entry(it, struct pci_unit, link);
		if (unit->type != &virtio_serial_card)
			continue;
		const char *name = unit->id ? unit->id : "virtio-serial-bus";
		size_t len = strlen(name);
		if (!bus || (!strncmp(bus, name, len) && !strcmp(bus + len, ".0")))
			return unit->device;
	}
	if (bus)
		error_set(err, EINVAL,
			  "there is no bus '%s'; -device virtio-serial-pci,id=ID makes bus ID.0",
			  bus);
	else
		error_set(err, EINVAL, "there is no card for it; add -device virtio-serial-pci");
	return NULL;
}

const char *const virtio_serial_port_keys[] = {"chardev", "name", "nr", "bus", "id", NULL};

/* The port of the nth -device. */
static int add_port(struct machine *m, size_t n, struct opts *opts, const char *driver,
		    struct error *err)
{
	const char *chardev = opts_get(opts, "chardev"), *name = opts_get(opts, "name");
	const char *bus = opts_get(opts, "bus");
	uint64_t nr = 0;
	bool has_nr = opts_has(opts, "nr");
	opts_get(opts, "id");
	int r = opts_get_u64(opts, "nr", &nr, err);
	if (r < 0)
		return r;
	struct virtio_serial *card = find_serial(m, bus, err);
	if (!card)
		return -err->code;
	if ((r = opts_check_unused(opts, driver, virtio_serial_port_keys, err)) < 0)
		return r;
	/* A port with nobody at its other end is there all the same. */
	char null_id[32];
	snprintf(null_id, sizeof(null_id), "%s%zu", driver, n);
	struct chardev *chr = chardev ? backend_take_named(m, chardev, err)
				      : backend_take(m, null_id, "null", err);
	if (!chr)
		return -err->code;
	return virtio_serial_add_port(card, has_nr ? (int)(nr < INT16_MAX ? nr : INT16_MAX) : -1,
				      !strcmp(driver, "virtconsole"), name, chr, err);
}

int virtio_build_serial_ports(struct machine *m, struct error *err)
{
	const struct options *o = m->options;
	for (size_t n = 0; n < o->device.count; n++) {
		const char *text = o->device.item[n];
		struct opts opts;
		int r = opts_parse(&opts, text, "driver", err);
		if (r < 0)
			return r;
		const char *driver = opts_get(&opts, "driver");
		if (driver && virtio_is_serial_port(driver))
			r = add_port(m, n, &opts, driver, err);
		opts_free(&opts);
		if (r < 0) {
			error_prefix(err, "-device %s", text);
			return r;
		}
	}
	return 0;
}
