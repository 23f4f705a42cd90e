/* SPDX-License-Identifier: MIT */
/*
 * -kernel, -initrd and -append: a Linux kernel (bzImage or zImage) or a multiboot kernel, started
 * without a boot loader.
 *
 * A Linux image begins with its real-mode part: boot sector, setup sectors, and in them the header
 * that this file reads and fills in as a boot loader would. The pieces go into fw_cfg under the
 * numbers that other firmware knows too; our option ROM (optionrom.S) copies them to memory:
 *
 *                       modern (2.02 on)   older bzImage     zImage
 *   real-mode part      10000h             90000h            90000h
 *   command line        20000h             below 9A000h      below 9A000h
 *   protected-mode part 100000h            100000h           10000h
 *   initrd              as high as the header and the RAM allow
 *
 * Document: Linux, Documentation/arch/x86/boot.rst (section names in the code).
 */
#include "bios/internal.h"
#include "devices/fw_cfg.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>

#define ROM_NAME      "genroms/minivm-kernel.rom"
#define ROM_BOOT_PATH "/rom@" ROM_NAME

/* "The Real-Mode Kernel Header". */
enum {
	HDR_SETUP_SECTS = 0x1f1,
	HDR_VID_MODE = 0x1fa,
	HDR_MAGIC = 0x202,
	HDR_VERSION = 0x206,
	HDR_TYPE_OF_LOADER = 0x210,
	HDR_LOADFLAGS = 0x211,
	HDR_RAMDISK_IMAGE = 0x218,
	HDR_RAMDISK_SIZE = 0x21c,
	HDR_HEAP_END_PTR = 0x224,
	HDR_CMD_LINE_PTR = 0x228,
	HDR_INITRD_ADDR_MAX = 0x22c,
	HDR_CMDLINE_SIZE = 0x238,
	HDR_INIT_SIZE = 0x260,
	HDR_END = 0x270,
	/* Before 2.02 the command line was announced here. */
	OLD_CMDLINE_MAGIC = 0x20,
	OLD_CMDLINE_OFFSET = 0x22,
	OLD_MAGIC_VALUE = 0xa33f,

	LOADED_HIGH = 1 << 0,
	CAN_USE_HEAP = 1 << 7,
	LOADER_UNDEFINED = 0xff,
	DEFAULT_SETUP_SECTS = 4,
	MAX_SETUP_SECTS = 64, /* 32 KiB: what fits between 90000h and 98000h, and below 20000h */
	HEAP_GAP = 0x200,
	SECTOR = 512,
};
#define HDR_MAGIC_VALUE UINT32_C(0x53726448) /* "HdrS" */

/* "The Memory Layout". */
enum {
	REAL_MODERN = 0x10000,
	CMDLINE_MODERN = 0x20000,
	CMDLINE_MODERN_ROOM = 0x60000,
	REAL_OLD = 0x90000,
	OLD_END = 0x9a000,
	PROTECTED_HIGH = 0x100000,
	PROTECTED_LOW = 0x10000,
	OLD_CMDLINE_MAX = 255,
	/* The firmware keeps its tables in the last part of low RAM. */
	FIRMWARE_TOP = 1024 * 1024,
};
#define DEFAULT_INITRD_MAX UINT32_C(0x37ffffff)

enum { KERNEL_MAX = 1 << 30 };

struct linux_image {
	const char *path;
	uint8_t *file;
	size_t len;
	unsigned version;
	size_t setup_len;
	uint32_t real, cmdline, protected;
};

/* vga=NNN or vga=ask|normal|extended on the command line ("Special Command Line Options"). */
static uint16_t video_mode(const char *cmdline, uint16_t fallback)
{
	static const struct {
		const char *word;
		uint16_t mode;
	} named[] = {{"normal", 0xffff}, {"ext", 0xfffe}, {"extended", 0xfffe}, {"ask", 0xfffd}};
	const char *p = cmdline;

	for (; (p = strstr(p, "vga=")); p += 4) {
		const char *value = p + 4;
		size_t n = strcspn(value, " \t");
		if (p != cmdline && p[-1] != ' ' && p[-1] != '\t')
			continue;
		for (size_t i = 0; i < ARRAY_SIZE(named); i++)
			if (n == strlen(named[i].word) && !strncmp(value, named[i].word, n))
				return named[i].mode;
		return (uint16_t)strtoul(value, NULL, 0);
	}
	return fallback;
}

/* Checks the header and decides where things go. */
static int linux_layout(struct linux_image *k, const char *append, struct error *err)
{
	unsigned sects = k->file[HDR_SETUP_SECTS] ? k->file[HDR_SETUP_SECTS] : DEFAULT_SETUP_SECTS;
	bool high = k->file[HDR_LOADFLAGS] & LOADED_HIGH;
	size_t cmdline_len = strlen(append) + 1, room;

	k->version = load_le16(k->file + HDR_VERSION);
	if (k->version < 0x200 || k->version >= 0x300)
		return error_set(err, EINVAL,
				 "kernel '%s' has boot protocol %u.%02u; only version 2 is known",
				 k->path, k->version >> 8, k->version & 255);
	if (sects > MAX_SETUP_SECTS)
		return error_set(err, EINVAL,
				 "kernel '%s' is damaged: its header claims %u setup sectors, at "
				 "most %d are possible",
				 k->path, sects, MAX_SETUP_SECTS);
	k->setup_len = (sects + 1) * (size_t)SECTOR;
	if (k->setup_len >= k->len)
		return error_set(err, EINVAL,
				 "kernel '%s' is truncated: %zu bytes, but its setup alone has %zu",
				 k->path, k->len, k->setup_len);

	if (k->version >= 0x202 && high) {
		k->real = REAL_MODERN;
		k->cmdline = CMDLINE_MODERN;
		k->protected = PROTECTED_HIGH;
		room = k->version >= 0x206 ? load_le32(k->file + HDR_CMDLINE_SIZE)
					   : OLD_CMDLINE_MAX;
		if (room > CMDLINE_MODERN_ROOM - 1)
			room = CMDLINE_MODERN_ROOM - 1;
	} else {
		k->real = REAL_OLD;
		k->cmdline =
			OLD_END - (uint32_t)(cmdline_len < 256 ? round_up(cmdline_len, 16) : 256);
		k->protected = high ? PROTECTED_HIGH : PROTECTED_LOW;
		room = OLD_CMDLINE_MAX;
	}
	if (cmdline_len - 1 > room)
		return error_set(
			err, E2BIG,
			"the command line has %zu characters; kernel '%s' takes at most %zu",
			cmdline_len - 1, k->path, room);
	if (!high && k->len - k->setup_len > REAL_OLD - PROTECTED_LOW)
		return error_set(err, EINVAL,
				 "kernel '%s' claims to be a zImage but is too large for one",
				 k->path);
	return 0;
}

/* The end of the memory that the kernel needs to unpack itself. */
static uint64_t linux_end(const struct linux_image *k)
{
	uint64_t size = k->len - k->setup_len;

	if (k->version >= 0x20a && load_le32(k->file + HDR_INIT_SIZE) > size)
		size = load_le32(k->file + HDR_INIT_SIZE);
	return k->protected + size;
}

/* Reads the initrd, places it and announces it in the header. */
static int linux_initrd(const struct firmware_config *c, struct linux_image *k, struct fw_cfg *fw,
			struct boot_plan *plan, struct error *err)
{
	uint64_t top = c->low_ram - FIRMWARE_TOP;
	uint64_t limit =
		k->version >= 0x203 ? load_le32(k->file + HDR_INITRD_ADDR_MAX) : DEFAULT_INITRD_MAX;
	size_t len;
	uint8_t *data;
	uint64_t base;

	data = read_file(c->initrd, KERNEL_MAX, &len, err);
	if (!data)
		return err && err->code ? -err->code : -EIO;
	if (limit + 1 < top)
		top = limit + 1;
	base = len < top ? round_down(top - len, 4096) : 0;
	if (base < linux_end(k)) {
		free(data);
		return error_set(
			err, ENOMEM,
			"initrd '%s' (%zu MiB) does not fit into memory beside the kernel; "
			"give the machine more with -m",
			c->initrd, (size_t)div_round_up(len, MIB));
	}
	store_le32(k->file + HDR_RAMDISK_IMAGE, (uint32_t)base);
	store_le32(k->file + HDR_RAMDISK_SIZE, (uint32_t)len);
	plan->copy[plan->copies++] =
		(struct boot_copy){FW_CFG_INITRD_DATA, (uint32_t)base, (uint32_t)len};
	fw_cfg_add_u32(fw, FW_CFG_INITRD_ADDR, (uint32_t)base);
	fw_cfg_add_u32(fw, FW_CFG_INITRD_SIZE, (uint32_t)len);
	fw_cfg_give_bytes(fw, FW_CFG_INITRD_DATA, data, len);
	return 0;
}

/* What a boot loader writes into the header ("Details of Header Fields"). */
static void linux_fill_header(struct linux_image *k, const char *append)
{
	uint8_t *h = k->file;

	store_le16(h + HDR_VID_MODE, video_mode(append, load_le16(h + HDR_VID_MODE)));
	h[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
	if (k->version >= 0x201) {
		h[HDR_LOADFLAGS] |= CAN_USE_HEAP;
		store_le16(h + HDR_HEAP_END_PTR,
			   (uint16_t)((k->cmdline - k->real - HEAP_GAP) & 0xffff));
	}
	if (k->version >= 0x202) {
		store_le32(h + HDR_CMD_LINE_PTR, k->cmdline);
	} else {
		store_le16(h + OLD_CMDLINE_MAGIC, OLD_MAGIC_VALUE);
		store_le16(h + OLD_CMDLINE_OFFSET, (uint16_t)(k->cmdline - k->real));
	}
}

static void linux_piece(struct fw_cfg *fw, struct boot_plan *plan, unsigned addr_key,
			unsigned size_key, unsigned data_key, uint32_t addr, const void *data,
			size_t len)
{
	fw_cfg_add_u32(fw, (uint16_t)addr_key, addr);
	fw_cfg_add_u32(fw, (uint16_t)size_key, (uint32_t)len);
	fw_cfg_add_bytes(fw, (uint16_t)data_key, data, len);
	plan->copy[plan->copies++] = (struct boot_copy){(uint16_t)data_key, addr, (uint32_t)len};
}

static int linux_load(const struct firmware_config *c, uint8_t *file, size_t len, struct fw_cfg *fw,
		      struct boot_plan *plan, struct error *err)
{
	struct linux_image k = {.path = c->kernel, .file = file, .len = len};
	const char *append = c->append ? c->append : "";
	int rc = linux_layout(&k, append, err);

	if (rc < 0)
		return rc;
	if (c->low_ram < 2 * FIRMWARE_TOP || linux_end(&k) > c->low_ram - FIRMWARE_TOP)
		return error_set(
			err, ENOMEM,
			"kernel '%s' needs %llu MiB of memory; give the machine more with "
			"-m",
			c->kernel,
			(unsigned long long)div_round_up(linux_end(&k) + FIRMWARE_TOP, MIB));
	if (c->initrd) {
		rc = linux_initrd(c, &k, fw, plan, err);
		if (rc < 0)
			return rc;
	}
	linux_fill_header(&k, append);
	linux_piece(fw, plan, FW_CFG_CMDLINE_ADDR, FW_CFG_CMDLINE_SIZE, FW_CFG_CMDLINE_DATA,
		    k.cmdline, append, strlen(append) + 1);
	linux_piece(fw, plan, FW_CFG_SETUP_ADDR, FW_CFG_SETUP_SIZE, FW_CFG_SETUP_DATA, k.real, file,
		    k.setup_len);
	linux_piece(fw, plan, FW_CFG_KERNEL_ADDR, FW_CFG_KERNEL_SIZE, FW_CFG_KERNEL_DATA,
		    k.protected, file + k.setup_len, len - k.setup_len);
	/* "Running the kernel": entry 20h paragraphs into the real-mode part. */
	plan->data_segment = (uint16_t)(k.real >> 4);
	plan->code_segment = (uint16_t)((k.real >> 4) + 0x20);
	plan->code_offset = 0;
	plan->stack = (uint16_t)(k.cmdline - k.real - 16);
	return 0;
}

int kernel_add(const struct firmware_config *c, struct fw_cfg *fw, const char **boot_path,
	       struct error *err)
{
	struct boot_plan plan = {0};
	size_t len, rom_len;
	uint8_t *file = read_file(c->kernel, KERNEL_MAX, &len, err);
	void *rom;
	int rc;

	if (!file)
		return err && err->code ? -err->code : -EIO;
	if (len >= HDR_END && load_le32(file + HDR_MAGIC) == HDR_MAGIC_VALUE)
		rc = linux_load(c, file, len, fw, &plan, err);
	else if (multiboot_detect(file, len))
		rc = multiboot_load(c, file, len, fw, &plan, err);
	else
		rc = error_set(err, ENOEXEC,
			       "'%s' is neither a Linux kernel (bzImage) nor a multiboot kernel",
			       c->kernel);
	free(file);
	if (rc < 0)
		return rc;
	rom = bootrom_build(&plan, &rom_len);
	rc = fw_cfg_add_file(fw, ROM_NAME, rom, rom_len, err);
	free(rom);
	*boot_path = ROM_BOOT_PATH;
	return rc;
}
