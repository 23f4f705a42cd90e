/* SPDX-License-Identifier: MIT */
/*
 * What the firmware is told (firmware.h): memory sizes and disk types in CMOS, the boot order and
 * ROMs through fw_cfg, ACPI and SMBIOS tables, a kernel to start directly. This file gathers it
 * from options and devices; bios/ knows its form.
 */
#include "vmm/firmware.h"
#include "bios/bios.h"
#include "devices/fdc.h"
#include "devices/fw_cfg.h"
#include "devices/i440fx.h"
#include "devices/mc146818.h"
#include "devices/piix3.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include "vmm/machine.h"
#include "vmm/pci_devices.h"
#include "vmm/properties.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	MAX_ROM_SIZE = 16 << 20,
	MAX_OPTION_ROMS = 8,
	MAX_BOOT_ENTRIES = IDE_SLOTS + FLOPPY_SLOTS + PCI_UNITS_MAX + MAX_OPTION_ROMS,
	BOOT_PATH = 96,
};

/* What bootindex= brings together. */
struct boot_list {
	struct firmware_boot_entry entry[MAX_BOOT_ENTRIES];
	char path[MAX_BOOT_ENTRIES][BOOT_PATH];
	size_t count;
};

/* The -L directories as rom_search takes them; free() the result. */
static const char **data_dirs(const struct options *o)
{
	const char **dirs = xcalloc(o->data_dirs.count + 1, sizeof(*dirs));
	for (size_t n = 0; n < o->data_dirs.count; n++)
		dirs[n] = o->data_dirs.item[n];
	return dirs;
}

void *firmware_load_rom(const struct options *o, const char *name, size_t *len, char path[4096],
			struct error *err)
{
	const char **dirs = data_dirs(o);
	struct rom_search search = {.dirs = dirs};
	void *data = rom_load(&search, name, MAX_ROM_SIZE, len, path, err);
	free(dirs);
	return data;
}

void firmware_print_dirs(const struct options *o)
{
	const char **dirs = data_dirs(o);
	struct rom_search search = {.dirs = dirs};
	rom_print_dirs(&search);
	free(dirs);
}

static void set_cmos(void *opaque, uint8_t index, uint8_t value)
{
	struct machine *m = opaque;
	mc146818_set_nvram(m->dev.rtc, index, value);
}

static void describe_disks(struct machine *m, struct firmware_config *config)
{
	for (int n = 0; n < IDE_SLOTS; n++) {
		struct drive *drive = m->drives.ide[n];
		if (!drive || drive_get_kind(drive) != DRIVE_DISK)
			continue;
		config->disk[n].present = true;
		ide_geometry(drive, &config->disk[n].geometry);
	}
	for (int n = 0; n < FLOPPY_SLOTS; n++)
		config->floppy[n] = (uint8_t)fdc_drive_type(m->drives.floppy[n]);
}

/* Where the path of one more entry goes; NULL if there is no index or no room. */
static char *add_entry(struct boot_list *list, int index)
{
	if (index < 0 || list->count == MAX_BOOT_ENTRIES)
		return NULL;
	char *path = list->path[list->count];
	list->entry[list->count++] = (struct firmware_boot_entry){.index = index, .path = path};
	return path;
}

static void boot_entries(struct machine *m, struct boot_list *list)
{
	char *path;
	for (unsigned n = 0; n < IDE_SLOTS; n++)
		if (m->drives.ide[n] && (path = add_entry(list, m->drives.ide_bootindex[n])))
			firmware_path_ide(path, PIIX3_SLOT, 1, n / 2, n % 2);
	for (unsigned n = 0; n < FLOPPY_SLOTS; n++)
		if (m->drives.floppy[n] && (path = add_entry(list, m->drives.floppy_bootindex[n])))
			firmware_path_floppy(path, n);
	struct list *it;
	list_for_each(it, &m->pci_devices)
	{
		const struct pci_unit *unit = list_entry(it, struct pci_unit, link);
		if ((path = add_entry(list, unit->bootindex)))
			firmware_path_pci(path, load_le16(unit->pci->config + PCI_CLASS),
					  unit->pci->devfn >> 3, unit->type->boot_child);
	}
}

static int check_entries(const struct boot_list *list, struct error *err)
{
	for (size_t a = 0; a < list->count; a++)
		for (size_t b = 0; b < a; b++)
			if (list->entry[a].index == list->entry[b].index)
				return error_set(err, EINVAL,
						 "bootindex=%d is given twice; each device needs "
						 "its own",
						 list->entry[a].index);
	return 0;
}

/* -option-rom: SeaBIOS runs what it finds under genroms/. */
static int add_option_rom(struct machine *m, const char *text, struct boot_list *list,
			  struct error *err)
{
	enum { ROM_MAGIC = 0xAA55 }; /* PCI Firmware 3.0, 5.2 */
	struct opts opts;
	char found[4096], name[BOOT_PATH - 8];
	void *data = NULL;
	size_t len = 0;
	int index, r = opts_parse(&opts, text, "romfile", err);
	if (r < 0)
		return r;
	const char *file = opts_get(&opts, "romfile");
	if ((r = properties_bootindex(&opts, &index, err)) < 0 ||
	    (r = opts_check_unused(&opts, "-option-rom",
				   (const char *const[]){"romfile", "bootindex", NULL}, err)) < 0)
		goto out;
	if (!file) {
		r = error_set(err, EINVAL, "it must be a file and, if need be, bootindex= 0 to %d",
			      BOOTINDEX_MAX);
		goto out;
	}
	if (!(data = firmware_load_rom(m->options, file, &len, found, err))) {
		r = -err->code;
		goto out;
	}
	const char *slash = strrchr(found, '/');
	snprintf(name, sizeof(name), "genroms/%.70s", slash ? slash + 1 : found);
	if (len < 3 || load_le16(data) != ROM_MAGIC)
		r = error_set(err, EINVAL, "'%s' is no option ROM: it does not begin with 55 AA",
			      found);
	else if (fw_cfg_file(m->dev.fw_cfg, name, &(size_t){0}))
		r = error_set(err, EEXIST, "there is an option ROM of this name already");
	else
		r = fw_cfg_add_file(m->dev.fw_cfg, name, data, len, err);
	char *path = r == 0 ? add_entry(list, index) : NULL;
	if (path)
		snprintf(path, BOOT_PATH, "/rom@%s", name);
out:
	if (r < 0)
		error_prefix(err, "-option-rom %s", text);
	free(data);
	opts_free(&opts);
	return r;
}

static int add_option_roms(struct machine *m, struct boot_list *list, struct error *err)
{
	const struct arg_list *roms = &m->options->option_rom;
	int r = 0;
	if (roms->count > MAX_OPTION_ROMS)
		return error_set(err, EINVAL, "-option-rom: there can be at most %d",
				 MAX_OPTION_ROMS);
	for (size_t n = 0; n < roms->count && r == 0; n++)
		r = add_option_rom(m, roms->item[n], list, err);
	return r;
}

static void parse_uuid(const char *text, uint8_t uuid[16])
{
	unsigned n = 0;
	for (const char *p = text; *p && n < 32; p++) {
		if (*p == '-')
			continue;
		char digit[2] = {*p, 0};
		uuid[n / 2] = (uint8_t)(uuid[n / 2] << 4 | strtoul(digit, NULL, 16));
		n++;
	}
}

int firmware_build(struct machine *m, struct error *err)
{
	const struct options *o = m->options;
	struct firmware_boot *boot = xcalloc(1, sizeof(*boot));
	struct boot_list *list = xcalloc(1, sizeof(*list));
	int r = 0;
	firmware_boot_init(boot);
	for (size_t n = 0; n < o->boot.count && r == 0; n++) {
		r = firmware_boot_parse(o->boot.item[n], boot, err);
		if (r < 0)
			error_prefix(err, "-boot %s", o->boot.item[n]);
	}
	if (r < 0)
		goto out;
	m->dev.fw_cfg = fw_cfg_new(&m->env);
	boot_entries(m, list);
	if ((r = add_option_roms(m, list, err)) < 0 || (r = check_entries(list, err)) < 0)
		goto out;
	uint64_t low = i440fx_low_ram(o->ram_bytes);
	struct firmware_config config = {
		.low_ram = low,
		.high_ram = o->ram_bytes - low,
		.cpus = o->cpus,
		.graphical = !o->nographic,
		.fdc = true,
		.boot = boot,
		.floppy_boot_check = !o->no_fd_bootchk,
		.boot_entries = list->entry,
		.boot_entry_count = list->count,
		.kernel = o->kernel,
		.initrd = o->initrd,
		.append = o->append,
		.no_acpi = !o->acpi,
		.cmos_write = set_cmos,
		.cmos = m,
	};
	for (int n = 0; n < 4; n++)
		config.serial[n] = m->dev.serial[n] != NULL;
	for (int n = 0; n < 3; n++)
		config.parallel[n] = m->dev.parallel[n] != NULL;
	if (o->uuid)
		parse_uuid(o->uuid, config.uuid);
	describe_disks(m, &config);
	m->firmware = firmware_new(&config, m->dev.fw_cfg, err);
	if (!m->firmware)
		r = -err->code;
out:
	free(list);
	free(boot);
	return r;
}
