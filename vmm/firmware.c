/* SPDX-License-Identifier: MIT */
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
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROM_SIZE = 16 << 20, MAX_BOOT_ENTRIES = IDE_SLOTS + FLOPPY_SLOTS + PCI_UNITS_MAX };

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

static size_t boot_entries(struct machine *m, struct firmware_boot_entry entry[MAX_BOOT_ENTRIES],
			   char path[MAX_BOOT_ENTRIES][96])
{
	size_t count = 0;
	for (unsigned n = 0; n < IDE_SLOTS; n++) {
		if (!m->drives.ide[n] || m->drives.ide_bootindex[n] < 0)
			continue;
		entry[count].index = m->drives.ide_bootindex[n];
		entry[count].path = firmware_path_ide(path[count], PIIX3_SLOT, 1, n / 2, n % 2);
		count++;
	}
	for (unsigned n = 0; n < FLOPPY_SLOTS; n++) {
		if (!m->drives.floppy[n] || m->drives.floppy_bootindex[n] < 0)
			continue;
		entry[count].index = m->drives.floppy_bootindex[n];
		entry[count].path = firmware_path_floppy(path[count], n);
		count++;
	}
	struct list *it;
	list_for_each(it, &m->pci_devices)
	{
		const struct pci_unit *unit = list_entry(it, struct pci_unit, link);
		if (unit->bootindex < 0 || count == MAX_BOOT_ENTRIES)
			continue;
		entry[count].index = unit->bootindex;
		entry[count].path =
			firmware_path_pci(path[count], load_le16(unit->pci->config + PCI_CLASS),
					  unit->pci->devfn >> 3, unit->type->boot_child);
		count++;
	}
	return count;
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
	struct firmware_boot_entry entries[MAX_BOOT_ENTRIES];
	char paths[MAX_BOOT_ENTRIES][96];
	int r = 0;
	firmware_boot_init(boot);
	for (size_t n = 0; n < o->boot.count && r == 0; n++) {
		r = firmware_boot_parse(o->boot.item[n], boot, err);
		if (r < 0)
			error_prefix(err, "-boot %s", o->boot.item[n]);
	}
	if (r < 0)
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
		.boot_entries = entries,
		.boot_entry_count = boot_entries(m, entries, paths),
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
	m->dev.fw_cfg = fw_cfg_new(&m->env);
	m->firmware = firmware_new(&config, m->dev.fw_cfg, err);
	if (!m->firmware)
		r = -err->code;
out:
	free(boot);
	return r;
}
