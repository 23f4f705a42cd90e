/* SPDX-License-Identifier: MIT */
/* fw_cfg: the paravirtual channel through which firmware reads what the machine looks like. See
 * fw_cfg.c. */
#ifndef DEVICES_FW_CFG_H
#define DEVICES_FW_CFG_H

#include "core/device.h"
#include "lib/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fw_cfg;

/* The numbered items (QEMU docs/specs/fw_cfg, "Firmware Configuration Items"). */
enum fw_cfg_key {
	FW_CFG_SIGNATURE = 0x00,
	FW_CFG_ID = 0x01,
	FW_CFG_UUID = 0x02,
	FW_CFG_RAM_SIZE = 0x03,
	FW_CFG_NOGRAPHIC = 0x04,
	FW_CFG_NB_CPUS = 0x05,
	FW_CFG_KERNEL_ADDR = 0x07,
	FW_CFG_KERNEL_SIZE = 0x08,
	FW_CFG_INITRD_ADDR = 0x0a,
	FW_CFG_INITRD_SIZE = 0x0b,
	FW_CFG_BOOT_DEVICE = 0x0c,
	FW_CFG_NUMA = 0x0d,
	FW_CFG_BOOT_MENU = 0x0e,
	FW_CFG_MAX_CPUS = 0x0f,
	FW_CFG_KERNEL_ENTRY = 0x10,
	FW_CFG_KERNEL_DATA = 0x11,
	FW_CFG_INITRD_DATA = 0x12,
	FW_CFG_CMDLINE_ADDR = 0x13,
	FW_CFG_CMDLINE_SIZE = 0x14,
	FW_CFG_CMDLINE_DATA = 0x15,
	FW_CFG_SETUP_ADDR = 0x16,
	FW_CFG_SETUP_SIZE = 0x17,
	FW_CFG_SETUP_DATA = 0x18,
	FW_CFG_FILE_DIR = 0x19,
	FW_CFG_FILE_FIRST = 0x20,
	/* x86's own items. */
	FW_CFG_IRQ0_OVERRIDE = 0x8002,
};

enum {
	FW_CFG_FILE_NAME_MAX = 55, /* bytes of a file's name, without the terminating NUL */
};

struct fw_cfg *fw_cfg_new(const struct device_env *env);
void fw_cfg_free(struct fw_cfg *fw);

/* Sets an item's contents (a copy is taken); one that was there is replaced. Lock held, the guest
 * not reading (construction or reset). */
void fw_cfg_add_bytes(struct fw_cfg *fw, uint16_t key, const void *data, size_t len);
void fw_cfg_add_u16(struct fw_cfg *fw, uint16_t key, uint16_t value);
void fw_cfg_add_u32(struct fw_cfg *fw, uint16_t key, uint32_t value);
void fw_cfg_add_u64(struct fw_cfg *fw, uint16_t key, uint64_t value);
/* As fw_cfg_add_bytes() for large items: `data` is malloc'ed and now belongs to `fw`. */
void fw_cfg_give_bytes(struct fw_cfg *fw, uint16_t key, void *data, size_t len);

/*
 * Adds a named file, or replaces its contents. Keys follow the sorted order of the names, so they
 * are fixed only when all files are there. -EINVAL for a name that is empty or too long, -ENOSPC
 * when the directory is full.
 */
int fw_cfg_add_file(struct fw_cfg *fw, const char *name, const void *data, size_t len,
		    struct error *err);
/* As fw_cfg_add_file(); the guest may overwrite the contents by DMA, and `written` (may be NULL) is
 * told, lock held. The size stays. */
int fw_cfg_add_writable_file(struct fw_cfg *fw, const char *name, const void *data, size_t len,
			     void (*written)(void *opaque), void *opaque, struct error *err);
/* Removes a file; false if there is none of that name. */
bool fw_cfg_remove_file(struct fw_cfg *fw, const char *name);

/* What a key or a file holds now, NULL if nothing (tests, `info`). Valid until it is replaced. */
const void *fw_cfg_item(const struct fw_cfg *fw, uint16_t key, size_t *len);
const void *fw_cfg_file(const struct fw_cfg *fw, const char *name, size_t *len);

#endif
