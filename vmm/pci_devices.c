/* SPDX-License-Identifier: MIT */
/*
 * PCI cards by name. A card is made in the order of the command line, in the slot that addr= names
 * or the first free one; then its option ROM, which the firmware runs at start-up, is put behind
 * its ROM BAR.
 */
#include "vmm/pci_devices.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include "vmm/firmware.h"
#include "vmm/machine.h"
#include "vmm/nics.h"
#include "vmm/option_rom.h"
#include "vmm/properties.h"
#include "vmm/virtio_cards.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	KEYS_MAX = 64,
	ROM_SIZE_MIN = 4096, /* a ROM region consists of pages */
	ROM_SIZE_MAX = 16 << 20,
};

static const struct pci_device_type *const types[] = {
	&ne2k_pci_type,      &virtio_blk_card, &virtio_net_card,
	&virtio_serial_card, &virtio_rng_card, NULL,
};

/* What each of them takes besides its own properties. */
static const char *const common_keys[] = {
	"driver",  "id",     "bus",       "addr",          "romfile",
	"romsize", "rombar", "bootindex", "multifunction", NULL,
};

const struct pci_device_type *pci_device_type_find(const char *driver)
{
	size_t base = virtio_base_name(driver);
	for (size_t n = 0; types[n]; n++) {
		/* virtio-net-pci-transitional and its like. */
		bool variant = driver[base] && !strncmp(types[n]->driver, driver, base) &&
			       !types[n]->driver[base] && !strncmp(driver, "virtio-", 7);
		if (variant || !strcmp(types[n]->driver, driver) ||
		    (types[n]->alias && !strcmp(types[n]->alias, driver)))
			return types[n];
	}
	return NULL;
}

bool pci_device_print_properties(const char *driver)
{
	const struct pci_device_type *type = pci_device_type_find(driver);
	if (type)
		properties_print(driver, type->properties, common_keys);
	return type != NULL;
}

const char *pci_device_type_near(const char *driver)
{
	const char *names[ARRAY_SIZE(types)];
	for (size_t n = 0; n < ARRAY_SIZE(types); n++)
		names[n] = types[n] ? types[n]->driver : NULL;
	return nearest_word(driver, names);
}

void pci_devices_help(void)
{
	for (size_t n = 0; types[n]; n++)
		printf("%-16s %s\n", types[n]->driver, types[n]->help);
	puts("virtserialport   port of a virtio-serial card: chardev=ID,name=,nr=,bus=ID.0\n"
	     "virtconsole      the same as a console");
	if (types[0])
		puts("                 PCI cards also take "
		     "addr=SLOT,bus=pci.0,id=,bootindex=,romfile=,"
		     "rombar=0|1");
}

/* "5", "05.0", "0x5": a slot in hexadecimal, and function 0. */
static int parse_address(struct opts *opts, int *devfn, struct error *err)
{
	const char *text = opts_get(opts, "addr"), *bus = opts_get(opts, "bus");
	bool multifunction = false;
	int r = opts_get_bool(opts, "multifunction", &multifunction, err);
	*devfn = -1;
	if (r < 0)
		return r;
	if (bus && strcmp(bus, "pci.0") && strcmp(bus, "pci"))
		return error_set(err, EINVAL, "there is no bus '%s'; the PCI bus is pci.0", bus);
	if (multifunction)
		return error_set(err, ENOTSUP,
				 "a card has one function; leave multifunction=on out and give "
				 "each its own slot");
	if (!text)
		return 0;
	char *end;
	unsigned long slot = strtoul(text, &end, 16), function = 0;
	if (end != text && *end == '.' && end[1] >= '0' && end[1] <= '7') {
		function = (unsigned long)(end[1] - '0');
		end += 2;
	}
	if (end == text || *end || text[0] == '-' || slot > 31)
		return error_set(err, EINVAL,
				 "addr=%s is no PCI address; it must be a slot from 2 to 1f "
				 "(hexadecimal)",
				 text);
	if (function)
		return error_set(err, ENOTSUP,
				 "addr=%s: a card has one function; give each its own slot", text);
	*devfn = PCI_DEVFN(slot, 0);
	return 0;
}

/* on, off, or QEMU's 0 and 1. */
static int parse_rombar(struct opts *opts, bool *rombar, struct error *err)
{
	const char *text = opts_get(opts, "rombar");
	*rombar = true;
	if (text && (!strcmp(text, "0") || !strcmp(text, "1"))) {
		*rombar = *text == '1';
		return 0;
	}
	return opts_get_bool(opts, "rombar", rombar, err);
}

static int add_rom(struct machine *m, struct pci_unit *unit, struct opts *opts, struct error *err)
{
	const char *name = opts_get(opts, "romfile");
	bool rombar, asked = name != NULL;
	uint64_t bar_size = 0;
	int r = parse_rombar(opts, &rombar, err);
	if (r == 0)
		r = opts_get_size(opts, "romsize", &bar_size, err);
	if (r < 0)
		return r;
	if (bar_size &&
	    (!is_power_of_2(bar_size) || bar_size < ROM_SIZE_MIN || bar_size > ROM_SIZE_MAX))
		return error_set(err, EINVAL, "romsize must be a power of two from %d to %d",
				 ROM_SIZE_MIN, ROM_SIZE_MAX);
	if (!name)
		name = unit->type->romfile;
	if (!name || !*name || !rombar)
		return 0;
	char path[4096];
	size_t len;
	void *data = firmware_load_rom(m->options, name, &len, path, err);
	if (!data && !asked) {
		/* A machine runs without it; it only cannot be booted by this card. */
		trace(TRACE_PCI, "%s: no boot ROM: %s", unit->name, err->text);
		*err = ERROR_INIT;
		return 0;
	}
	if (!data)
		return -err->code;
	if (len == 0 || len > ROM_SIZE_MAX) {
		r = error_set(err, EINVAL,
			      "romfile=%s: an option ROM has between 1 byte and 16 MiB", name);
		goto out;
	}
	size_t size = ROM_SIZE_MIN;
	while (size < len)
		size *= 2;
	if (bar_size && bar_size < len) {
		r = error_set(err, EINVAL, "romsize=%llu is less than the %zu bytes of '%s'",
			      (unsigned long long)bar_size, len, path);
		goto out;
	}
	if (bar_size)
		size = bar_size;
	struct mem_region *rom = mem_region_new_rom(m->mem, unit->name, size, err);
	if (!rom) {
		r = -err->code;
		goto out;
	}
	memcpy(rom->host, data, len);
	/* One that the user chose is left as it is. */
	if (!asked)
		option_rom_set_ids(rom->host, len, load_le16(unit->pci->config + PCI_VENDOR_ID),
				   load_le16(unit->pci->config + PCI_DEVICE_ID));
	pci_bar_rom(unit->pci, rom);
out:
	free(data);
	return r;
}

static int check_unused(struct opts *opts, const struct pci_device_type *type, struct error *err)
{
	const char *keys[KEYS_MAX];
	size_t count = 0;
	for (size_t n = 0; type->properties && type->properties[n] && count < KEYS_MAX / 2; n++)
		keys[count++] = type->properties[n];
	for (size_t n = 0; common_keys[n]; n++)
		keys[count++] = common_keys[n];
	keys[count] = NULL;
	int r = properties_check_absent(opts, type->driver, err);
	if (r < 0)
		return r;
	return opts_check_unused(opts, type->driver, keys, err);
}

static void unit_free(struct pci_unit *unit)
{
	if (unit->device)
		unit->type->free(unit->device);
	free(unit->id);
	free(unit->name);
	free(unit);
}

static int make(struct machine *m, struct pci_unit *unit, struct opts *opts, struct error *err)
{
	const char *driver = opts_get(opts, "driver"), *id = opts_get(opts, "id");
	struct pci_device_args args = {.machine = m, .opts = opts, .driver = driver, .id = id};
	int r;
	if (!driver || !(unit->type = pci_device_type_find(driver)))
		return error_set(err, EINVAL, "there is no PCI card '%s'; -device help lists them",
				 driver ? driver : "");
	if (id && (r = opts_check_id(id, err)) < 0)
		return r;
	if (id && pci_device_by_id(m, id))
		return error_set(err, EEXIST, "there is a device with id=%s already", id);
	if ((r = parse_address(opts, &args.devfn, err)) < 0 ||
	    (r = properties_bootindex(opts, &unit->bootindex, err)) < 0)
		return r;
	unit->id = id ? xstrdup(id) : NULL;
	unit->name = xstrdup(id ? id : driver);
	args.name = unit->name;
	unit->device = unit->type->create(&args, &unit->pci, err);
	if (!unit->device)
		return -err->code;
	r = add_rom(m, unit, opts, err);
	return r < 0 ? r : check_unused(opts, unit->type, err);
}

struct pci_unit *pci_device_add(struct machine *m, const char *option, const char *text,
				struct error *err)
{
	struct opts opts;
	struct pci_unit *unit = xcalloc(1, sizeof(*unit));
	int r = opts_parse(&opts, text, "driver", err);
	if (r == 0) {
		r = make(m, unit, &opts, err);
		opts_free(&opts);
	}
	if (r < 0) {
		if (option)
			error_prefix(err, "%s %s", option, text);
		unit_free(unit);
		return NULL;
	}
	list_push_back(&m->pci_devices, &unit->link);
	return unit;
}

struct pci_unit *pci_device_by_id(struct machine *m, const char *id)
{
	struct list *it;
	list_for_each(it, &m->pci_devices)
	{
		struct pci_unit *unit = list_entry(it, struct pci_unit, link);
		if (unit->id && !strcmp(unit->id, id))
			return unit;
	}
	return NULL;
}

/* Whether this -device is one of ours. */
static bool is_card(const char *text)
{
	char driver[64];
	size_t len = strcspn(text, ",");
	if (!strncmp(text, "driver=", 7)) {
		text += 7;
		len = strcspn(text, ",");
	}
	if (len >= sizeof(driver))
		return false;
	memcpy(driver, text, len);
	driver[len] = 0;
	return pci_device_type_find(driver) != NULL;
}

/* -drive if=virtio: a card for each. */
static int build_virtio_disks(struct machine *m, struct error *err)
{
	for (unsigned n = 0; n < VIRTIO_SLOTS; n++) {
		struct strbuf text = STRBUF_INIT;
		if (!m->drives.virtio_needs_card[n])
			continue;
		strbuf_puts(&text, "virtio-blk-pci,drive=");
		for (const char *p = drive_id(m->drives.virtio[n]); *p; p++)
			strbuf_printf(&text, "%s%c", *p == ',' ? "," : "", *p);
		struct pci_unit *unit =
			pci_device_add(m, "-drive if=virtio:", strbuf_str(&text), err);
		strbuf_free(&text);
		if (!unit)
			return -err->code;
	}
	return 0;
}

int pci_devices_build(struct machine *m, struct error *err)
{
	const struct options *o = m->options;
	for (size_t n = 0; n < o->device.count; n++)
		if (is_card(o->device.item[n]) &&
		    !pci_device_add(m, "-device", o->device.item[n], err))
			return -err->code;
	int r = build_virtio_disks(m, err);
	return r < 0 ? r : virtio_build_serial_ports(m, err);
}

void pci_devices_free(struct machine *m)
{
	struct list *it, *next;
	list_for_each_safe(it, next, &m->pci_devices)
	{
		struct pci_unit *unit = list_entry(it, struct pci_unit, link);
		list_remove(&unit->link);
		unit_free(unit);
	}
}
