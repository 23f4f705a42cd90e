/* SPDX-License-Identifier: MIT */
/*
 * What the firmware needs to know about the machine: fw_cfg items, CMOS bytes, ACPI and SMBIOS
 * tables, boot order, directly booted kernels. The machine builder fills a struct firmware_config,
 * calls firmware_new() once all devices exist, and firmware_reset() at each system reset.
 */
#ifndef BIOS_BIOS_H
#define BIOS_BIOS_H

#include "devices/ide.h"
#include "lib/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fw_cfg;
struct firmware;

/* Floppy drive types, as in CMOS byte 10h. */
enum floppy_cmos_type {
	FLOPPY_CMOS_NONE = 0,
	FLOPPY_CMOS_360K = 1,
	FLOPPY_CMOS_1_2M = 2,
	FLOPPY_CMOS_720K = 3,
	FLOPPY_CMOS_1_44M = 4,
	FLOPPY_CMOS_2_88M = 5,
};

/* `-boot`. */
struct firmware_boot {
	char order[8]; /* letters, first first; "" : the default */
	char once[8];  /* for the first boot only; "" : none */
	bool menu;
	bool strict;        /* give up when nothing in the list boots */
	int splash_time;    /* ms the splash picture or the menu prompt stays; -1: default */
	int reboot_timeout; /* ms before trying again; -1: never; -2: firmware's default */
	char splash[4096];  /* picture file; "" : none */
};

/* Parses `-boot` arguments into `boot`, which must hold earlier ones or firmware_boot_init()'s
 * defaults. -EINVAL with one sentence. */
void firmware_boot_init(struct firmware_boot *boot);
int firmware_boot_parse(const char *spec, struct firmware_boot *boot, struct error *err);
/* -EINVAL if letters are unknown, repeated or too many. */
int firmware_boot_check_order(const char *letters, struct error *err);

/* A device with bootindex=. */
struct firmware_boot_entry {
	int index;
	const char *path; /* SeaBIOS's, see firmware_path_*() */
};

/* Paths of the usual devices in SeaBIOS's notation; they write into `out` and return it. `slot` and
 * `function` are PCI's. */
char *firmware_path_ide(char out[96], unsigned slot, unsigned function, unsigned channel,
			unsigned unit);
char *firmware_path_floppy(char out[96], unsigned unit);
/* A card with a boot ROM or a driver in the firmware: its PCI class (base class << 8 | subclass)
 * and what is below it in the path ("disk@0,0"; NULL: nothing). */
char *firmware_path_pci(char out[96], unsigned class, unsigned slot, const char *child);

struct firmware_config {
	/* RAM from 0 up to the PCI hole, and from 4 GiB upwards; bytes. */
	uint64_t low_ram, high_ram;
	unsigned cpus;
	bool graphical;   /* false: -nographic */
	uint8_t uuid[16]; /* as SMBIOS and fw_cfg show it; all zero: not set */

	/* What is on the ISA bus (CMOS equipment, ACPI device list). */
	uint8_t floppy[2]; /* enum floppy_cmos_type */
	bool fdc;
	bool serial[4];
	bool parallel[3];
	/* IDE disks by channel * 2 + unit (CD-ROM drives are not disks). */
	struct {
		bool present;
		struct ide_geometry geometry;
	} disk[4];

	const struct firmware_boot *boot; /* copied */
	bool floppy_boot_check;           /* refuse floppies without 55 AA (QEMU's default) */
	const struct firmware_boot_entry *boot_entries; /* copied */
	size_t boot_entry_count;

	const char *kernel, *initrd, *append; /* NULL: none */

	bool no_acpi;

	/* Sets a CMOS byte so that it survives reset. Lock held. */
	void (*cmos_write)(void *opaque, uint8_t index, uint8_t value);
	void *cmos;
};

/*
 * Puts everything into fw_cfg and CMOS. NULL with one sentence when a kernel or a boot option
 * cannot be used. `config` is not needed afterwards; `fw` must outlive the result.
 */
struct firmware *firmware_new(const struct firmware_config *config, struct fw_cfg *fw,
			      struct error *err);
/* A system reset: the once= order has had its turn. Call it each time the machine resets (not at
 * the first start). Lock held. */
void firmware_reset(struct firmware *firmware);
/* Changes the order from the monitor (`boot_set`); -EINVAL for bad letters. */
int firmware_set_boot_order(struct firmware *firmware, const char *letters, struct error *err);
void firmware_free(struct firmware *firmware);

/* Where ROM files are looked for: the user's -L directories in order, then $MINIVM_DATADIR, then
 * the installed and the distributions' places. */
struct rom_search {
	const char *const *dirs; /* -L, NULL-terminated; may be NULL */
};
/*
 * Loads a ROM file: `name` with a '/' is a path, otherwise it is searched. Returns malloc'ed
 * contents of at most `max` bytes (never 0) or NULL with a sentence that names the file, the
 * directories tried and the package to install. `path` (may be NULL) becomes where it was found.
 */
void *rom_load(const struct rom_search *search, const char *name, size_t max, size_t *len,
	       char path[4096], struct error *err);
/* As rom_load() without the loading: 0 and the path, or -ENOENT. */
int rom_find(const struct rom_search *search, const char *name, char path[4096], struct error *err);
/* Prints the directories in order (`-L help`). */
void rom_print_dirs(const struct rom_search *search);

#endif
