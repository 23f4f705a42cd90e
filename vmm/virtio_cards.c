/* SPDX-License-Identifier: MIT */
/* From the properties of -device virtio-...-pci to virtio devices. */
#include "vmm/virtio_cards.h"
#include "devices/virtio_blk.h"
#include "lib/bytes.h"
#include "vmm/machine.h"
#include <errno.h>
#include <string.h>

enum { MIN_QUEUE_SIZE = 4, DEFAULT_QUEUE_SIZE = 256, MIN_BLOCK = 512 };

int virtio_card_options(const struct pci_device_args *args, unsigned vectors,
			struct virtio_pci_config *config, struct error *err)
{
	static const char *const switches[] = {"off", "on", "auto", NULL};
	uint64_t asked = vectors;
	bool indirect = true, event_idx = true, packed = false;
	/* auto: a conventional PCI bus, so both interfaces. */
	int legacy = 2, r;
	*config = (struct virtio_pci_config){.name = args->name, .devfn = args->devfn};
	if ((r = opts_get_enum(args->opts, "disable-legacy", switches, &legacy, err)) < 0 ||
	    (r = opts_get_bool(args->opts, "disable-modern", &config->disable_modern, err)) < 0 ||
	    (r = opts_get_u64(args->opts, "vectors", &asked, err)) < 0 ||
	    (r = opts_get_bool(args->opts, "indirect_desc", &indirect, err)) < 0 ||
	    (r = opts_get_bool(args->opts, "event_idx", &event_idx, err)) < 0 ||
	    (r = opts_get_bool(args->opts, "packed", &packed, err)) < 0)
		return r;
	if (asked > MSIX_VECTORS_MAX)
		return error_set(err, EINVAL, "vectors=%llu: a card has at most %d",
				 (unsigned long long)asked, MSIX_VECTORS_MAX);
	if (packed)
		return error_set(err, ENOTSUP,
				 "there are no packed virtqueues; leave packed=on out");
	config->disable_legacy = legacy == 1;
	config->vectors = (unsigned)asked;
	config->no_indirect = !indirect;
	config->no_event_idx = !event_idx;
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

static int read_switches(struct opts *opts, struct virtio_blk_config *c, struct error *err)
{
	static const char *const caches[] = {"off", "on", "auto", NULL};
	bool config_wce = true, discard = true, zeroes = true, share;
	int cache = 2, r;
	if ((r = opts_get_enum(opts, "write-cache", caches, &cache, err)) < 0 ||
	    (r = opts_get_bool(opts, "config-wce", &config_wce, err)) < 0 ||
	    (r = opts_get_bool(opts, "discard", &discard, err)) < 0 ||
	    (r = opts_get_bool(opts, "write-zeroes", &zeroes, err)) < 0 ||
	    /* The drive was opened with it (drives.c). */
	    (r = opts_get_bool(opts, "share-rw", &share, err)) < 0)
		return r;
	c->write_cache =
		cache == 2 ? !(drive_image_flags(c->drive) & IMAGE_WRITETHROUGH) : cache == 1;
	c->no_config_wce = !config_wce;
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
	opts_get(opts, "serial"); /* the drive has it (drives.c) */
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
	    (r = io_sizes(opts, c, err)) < 0 || (r = read_switches(opts, c, err)) < 0)
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
		"                 disable-legacy=on|off|auto,disable-modern=on|off,vectors=N",
	.properties =
		(const char *const[]){"drive", "serial", "num-queues", "queue-size",
				      "logical_block_size", "physical_block_size", "min_io_size",
				      "opt_io_size", "write-cache", "config-wce", "discard",
				      "write-zeroes", "share-rw", VIRTIO_PROPERTIES, NULL},
	.boot_child = "disk@0,0",
	.create = create_blk,
	.free = free_blk,
};
