/* SPDX-License-Identifier: MIT */
/* What the files of bios/ share among themselves. */
#ifndef BIOS_INTERNAL_H
#define BIOS_INTERNAL_H

#include "bios/bios.h"
#include "lib/strbuf.h"

/* Contents of fw_cfg's "bootorder": paths by rising index, one a line, each ended by a newline but
 * the last, NUL-terminated. `first` (may be NULL) comes before all. Empty when there is nothing. */
void bootorder_text(const struct firmware_boot_entry *entries, size_t count, const char *first,
		    bool strict, struct strbuf *out);
/* The CMOS bytes 3Dh and 38h for an order; letters must have been checked. */
void bootorder_cmos(const char *letters, bool floppy_check, uint8_t *byte_3d, uint8_t *byte_38);

/* The ACPI tables and the loader script that places them; see acpi.c. */
int acpi_add(const struct firmware_config *config, struct fw_cfg *fw, struct error *err);
/* The definition block of the DSDT (header included, checksum not computed). */
void dsdt_build(const struct firmware_config *config, struct strbuf *out);
/* Appends an ACPI table header (length and checksum to be filled in). */
void acpi_header(struct strbuf *out, const char signature[4], uint8_t revision);

/* SMBIOS tables; see smbios.c. */
int smbios_add(const struct firmware_config *config, struct fw_cfg *fw, struct error *err);

/*
 * -kernel: recognises the file, puts its pieces into fw_cfg, and adds the option ROM that boots it.
 * `*boot_path` becomes the ROM's path for the boot order.
 */
int kernel_add(const struct firmware_config *config, struct fw_cfg *fw, const char **boot_path,
	       struct error *err);

/* One copy that the option ROM makes before it jumps: an fw_cfg item to a physical address. */
struct boot_copy {
	uint16_t key;
	uint32_t dest;
	uint32_t len;
};

enum { BOOT_COPIES_MAX = 4 };

/* How the option ROM hands over. */
struct boot_plan {
	struct boot_copy copy[BOOT_COPIES_MAX];
	unsigned copies;
	bool protected_mode;
	/* Real mode: jump to segment:offset with all data segments and SS = `data_segment`. */
	uint16_t data_segment, stack, code_segment, code_offset;
	/* Protected mode (multiboot): entry point, and the physical address (below 64 KiB) of the
	 * information structure, which gets the memory map. */
	uint32_t entry, info;
};

/* The ROM with the plan filled in, checksummed; malloc'ed. */
void *bootrom_build(const struct boot_plan *plan, size_t *len);

/* Multiboot 1 kernels; see multiboot.c. True if the file has the header. */
bool multiboot_detect(const uint8_t *file, size_t len);
int multiboot_load(const struct firmware_config *config, const uint8_t *file, size_t len,
		   struct fw_cfg *fw, struct boot_plan *plan, struct error *err);

#endif
