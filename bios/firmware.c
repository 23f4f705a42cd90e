/* SPDX-License-Identifier: MIT */
/*
 * The machine as the firmware is told about it: fw_cfg items and CMOS bytes. Tables that are large
 * enough to deserve their own file are built there (acpi.c, smbios.c, kernel.c).
 *
 * CMOS bytes, beside the clock's own (the IBM AT's map, with the extensions that Bochs's BIOS
 * introduced and SeaBIOS reads):
 *
 *   10      floppy types, drive A in the high half
 *   12      hard disk types 0 and 1: F = see 19/1A
 *   14      equipment: floppies, FPU, PS/2 mouse
 *   15 16   base memory, KiB             17 18, 30 31  memory from 1 MiB, KiB
 *   19 1A   extended hard disk types     1B..23, 24..2C  geometry of hard disks 0 and 1
 *   34 35   memory from 16 MiB, 64 KiB   5B 5C 5D  memory from 4 GiB, 64 KiB
 *   38 3D   boot order (bootorder.c)     39  disk translations, 2 bits each
 *   5F      CPUs minus one
 */
#include "bios/internal.h"
#include "devices/fw_cfg.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>

enum cmos_byte {
	CMOS_FLOPPY_TYPES = 0x10,
	CMOS_DISK_TYPES = 0x12,
	CMOS_EQUIPMENT = 0x14,
	CMOS_BASE_KIB = 0x15,
	CMOS_EXTENDED_KIB = 0x17,
	CMOS_DISK0_EXT_TYPE = 0x19,
	CMOS_DISK1_EXT_TYPE = 0x1a,
	CMOS_DISK0_GEOMETRY = 0x1b,
	CMOS_DISK1_GEOMETRY = 0x24,
	CMOS_EXTENDED_KIB_AGAIN = 0x30,
	CMOS_ABOVE_16M = 0x34,
	CMOS_BOOT_38 = 0x38,
	CMOS_TRANSLATION = 0x39,
	CMOS_BOOT_3D = 0x3d,
	CMOS_ABOVE_4G = 0x5b,
	CMOS_SMP_COUNT = 0x5f,
};

enum {
	EQUIP_FLOPPY = 1 << 0,
	EQUIP_FPU = 1 << 1,
	EQUIP_PS2_MOUSE = 1 << 2,
	EQUIP_SECOND_FLOPPY = 1 << 6,
	DISK_TYPE_EXTENDED = 0x0f,
	DISK_TYPE_USER = 47,
	BASE_KIB = 640,
};

/* E820 types (ACPI 6.x, 15.1). */
enum { E820_RAM = 1, E820_RESERVED = 2 };

/* KVM on Intel processors needs three pages for its real-mode task and one for its identity map;
 * kept out of the guest's hands on every engine, so that the machine looks the same on each. */
#define KVM_PAGES_BASE UINT64_C(0xfeffc000)
#define KVM_PAGES_SIZE UINT64_C(0x4000)

#define DEFAULT_ORDER "cad"

struct firmware {
	struct firmware_boot boot;
	bool floppy_boot_check;
	void (*cmos_write)(void *opaque, uint8_t index, uint8_t value);
	void *cmos;
};

static void cmos_set(const struct firmware_config *c, unsigned index, unsigned value)
{
	c->cmos_write(c->cmos, (uint8_t)index, (uint8_t)value);
}

static void cmos_set16(const struct firmware_config *c, unsigned index, uint64_t value)
{
	unsigned v = value > UINT16_MAX ? UINT16_MAX : (unsigned)value;

	cmos_set(c, index, v & 0xff);
	cmos_set(c, index + 1, v >> 8);
}

static void cmos_memory(const struct firmware_config *c)
{
	uint64_t extended = c->low_ram > MIB ? (c->low_ram - MIB) / KIB : 0;
	uint64_t above_16m = c->low_ram > 16 * MIB ? (c->low_ram - 16 * MIB) / (64 * KIB) : 0;
	uint64_t above_4g = c->high_ram / (64 * KIB);

	cmos_set16(c, CMOS_BASE_KIB, c->low_ram / KIB < BASE_KIB ? c->low_ram / KIB : BASE_KIB);
	cmos_set16(c, CMOS_EXTENDED_KIB, extended);
	cmos_set16(c, CMOS_EXTENDED_KIB_AGAIN, extended);
	cmos_set16(c, CMOS_ABOVE_16M, above_16m);
	cmos_set(c, CMOS_ABOVE_4G, above_4g & 0xff);
	cmos_set(c, CMOS_ABOVE_4G + 1, above_4g >> 8 & 0xff);
	cmos_set(c, CMOS_ABOVE_4G + 2, above_4g >> 16 & 0xff);
}

static void cmos_floppies(const struct firmware_config *c)
{
	unsigned equipment = EQUIP_FPU | EQUIP_PS2_MOUSE;

	cmos_set(c, CMOS_FLOPPY_TYPES, (c->floppy[0] & 15u) << 4 | (c->floppy[1] & 15u));
	if (c->floppy[0] || c->floppy[1])
		equipment |= EQUIP_FLOPPY;
	if (c->floppy[0] && c->floppy[1])
		equipment |= EQUIP_SECOND_FLOPPY;
	cmos_set(c, CMOS_EQUIPMENT, equipment);
}

/* One disk of the first IDE channel, in the layout of the AT's user-defined type 47. */
static void cmos_disk(const struct firmware_config *c, unsigned type_at, unsigned at,
		      const struct ide_geometry *g)
{
	enum { NO_PRECOMPENSATION = 0xff, CONTROL_NO_RETRIES = 0xc0, CONTROL_MANY_HEADS = 8 };

	cmos_set(c, type_at, DISK_TYPE_USER);
	cmos_set16(c, at, g->cylinders);
	cmos_set(c, at + 2, g->heads);
	cmos_set(c, at + 3, NO_PRECOMPENSATION);
	cmos_set(c, at + 4, NO_PRECOMPENSATION);
	cmos_set(c, at + 5, CONTROL_NO_RETRIES | (g->heads > 8 ? CONTROL_MANY_HEADS : 0));
	cmos_set16(c, at + 6, g->cylinders); /* landing zone */
	cmos_set(c, at + 8, g->sectors);
}

static void cmos_disks(const struct firmware_config *c)
{
	unsigned types = 0, translations = 0;

	if (c->disk[0].present) {
		types |= DISK_TYPE_EXTENDED << 4;
		cmos_disk(c, CMOS_DISK0_EXT_TYPE, CMOS_DISK0_GEOMETRY, &c->disk[0].geometry);
	}
	if (c->disk[1].present) {
		types |= DISK_TYPE_EXTENDED;
		cmos_disk(c, CMOS_DISK1_EXT_TYPE, CMOS_DISK1_GEOMETRY, &c->disk[1].geometry);
	}
	cmos_set(c, CMOS_DISK_TYPES, types);
	for (unsigned i = 0; i < ARRAY_SIZE(c->disk); i++)
		if (c->disk[i].present)
			translations |= (unsigned)c->disk[i].geometry.translation << (2 * i);
	cmos_set(c, CMOS_TRANSLATION, translations);
}

static void set_order(struct firmware *f, const char *letters)
{
	uint8_t byte_3d, byte_38;

	bootorder_cmos(letters, f->floppy_boot_check, &byte_3d, &byte_38);
	f->cmos_write(f->cmos, CMOS_BOOT_3D, byte_3d);
	f->cmos_write(f->cmos, CMOS_BOOT_38, byte_38);
}

static int add_memory_map(const struct firmware_config *c, struct fw_cfg *fw, struct error *err)
{
	struct e820_entry {
		uint64_t base, length;
		uint32_t type;
	} __attribute__((packed)) map[3];
	unsigned n = 0;

	map[n++] = (struct e820_entry){KVM_PAGES_BASE, KVM_PAGES_SIZE, E820_RESERVED};
	map[n++] = (struct e820_entry){0, c->low_ram, E820_RAM};
	if (c->high_ram)
		map[n++] = (struct e820_entry){4 * GIB, c->high_ram, E820_RAM};
	return fw_cfg_add_file(fw, "etc/e820", map, n * sizeof(map[0]), err);
}

/* -boot splash=: a JPEG or BMP picture; SeaBIOS looks for it under a name for each. */
static int add_splash(const char *file, struct fw_cfg *fw, struct error *err)
{
	enum { SPLASH_MAX = 16 * 1024 * 1024, JPEG_MAGIC = 0xd8ff };
	size_t len;
	uint8_t *data = read_file(file, SPLASH_MAX, &len, err);
	const char *name = NULL;
	int rc;

	if (!data)
		return err && err->code ? -err->code : -EIO;
	if (len >= 2 && load_le16(data) == JPEG_MAGIC)
		name = "bootsplash.jpg";
	else if (len >= 2 && !memcmp(data, "BM", 2))
		name = "bootsplash.bmp";
	rc = name ? fw_cfg_add_file(fw, name, data, len, err)
		  : error_set(err, EINVAL, "splash picture '%s' is neither JPEG nor BMP", file);
	free(data);
	return rc;
}

static int add_boot_files(const struct firmware_config *c, const char *kernel_path,
			  struct fw_cfg *fw, struct error *err)
{
	const struct firmware_boot *b = c->boot;
	struct strbuf order = STRBUF_INIT;
	uint8_t value[4];
	int rc = 0;

	fw_cfg_add_u16(fw, FW_CFG_BOOT_MENU, b->menu);
	bootorder_text(c->boot_entries, c->boot_entry_count, kernel_path, b->strict, &order);
	if (order.len)
		rc = fw_cfg_add_file(fw, "bootorder", order.data, order.len, err);
	strbuf_free(&order);
	if (rc == 0 && b->splash_time >= 0) {
		store_le16(value, (uint16_t)b->splash_time);
		rc = fw_cfg_add_file(fw, "etc/boot-menu-wait", value, 2, err);
	}
	if (rc == 0 && b->reboot_timeout >= -1) {
		store_le32(value, (uint32_t)b->reboot_timeout);
		rc = fw_cfg_add_file(fw, "etc/boot-fail-wait", value, 4, err);
	}
	if (rc == 0 && b->splash[0])
		rc = add_splash(b->splash, fw, err);
	return rc;
}

/* Items with numbers, and small files with one value each. */
static int add_values(const struct firmware_config *c, struct fw_cfg *fw, struct error *err)
{
	/* S5 only, with the SLP_TYP of \_S5 in the DSDT; index = state, bit 7: supported. */
	static const uint8_t system_states[6] = {0x80, 0, 0, 0, 0, 0x80};

	fw_cfg_add_u64(fw, FW_CFG_RAM_SIZE, c->low_ram + c->high_ram);
	fw_cfg_add_u16(fw, FW_CFG_NB_CPUS, (uint16_t)c->cpus);
	fw_cfg_add_u16(fw, FW_CFG_MAX_CPUS, (uint16_t)c->cpus);
	/* The firmware then talks on COM1 too, where nobody sees a screen. */
	fw_cfg_add_u16(fw, FW_CFG_NOGRAPHIC, !c->graphical && c->serial[0]);
	fw_cfg_add_bytes(fw, FW_CFG_UUID, c->uuid, sizeof(c->uuid));
	/* The timer's IRQ 0 is wired to the IOAPIC's input 2. */
	fw_cfg_add_bytes(fw, FW_CFG_IRQ0_OVERRIDE, "\1", 1);
	return fw_cfg_add_file(fw, "etc/system-states", system_states, sizeof(system_states), err);
}

struct firmware *firmware_new(const struct firmware_config *c, struct fw_cfg *fw, struct error *err)
{
	const char *kernel_path = NULL;
	struct firmware *f;

	if (add_values(c, fw, err) < 0 || add_memory_map(c, fw, err) < 0)
		return NULL;
	if (!c->no_acpi && acpi_add(c, fw, err) < 0)
		return NULL;
	if (smbios_add(c, fw, err) < 0)
		return NULL;
	if (!c->kernel && (c->initrd || c->append)) {
		error_set(err, EINVAL, "%s is only allowed with -kernel",
			  c->initrd ? "-initrd" : "-append");
		return NULL;
	}
	if (c->kernel && kernel_add(c, fw, &kernel_path, err) < 0)
		return NULL;
	if (add_boot_files(c, kernel_path, fw, err) < 0)
		return NULL;
	cmos_memory(c);
	cmos_floppies(c);
	cmos_disks(c);
	cmos_set(c, CMOS_SMP_COUNT, c->cpus - 1);

	f = xcalloc(1, sizeof(*f));
	f->boot = *c->boot;
	if (!f->boot.order[0])
		strcpy(f->boot.order, DEFAULT_ORDER);
	f->floppy_boot_check = c->floppy_boot_check;
	f->cmos_write = c->cmos_write;
	f->cmos = c->cmos;
	set_order(f, f->boot.once[0] ? f->boot.once : f->boot.order);
	return f;
}

void firmware_reset(struct firmware *f)
{
	f->boot.once[0] = '\0';
	set_order(f, f->boot.order);
}

int firmware_set_boot_order(struct firmware *f, const char *letters, struct error *err)
{
	int rc = firmware_boot_check_order(letters, err);

	if (rc < 0)
		return rc;
	memcpy(f->boot.order, letters, strlen(letters) + 1);
	set_order(f, letters);
	return 0;
}

void firmware_free(struct firmware *f)
{
	free(f);
}
