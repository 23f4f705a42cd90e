/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: kernels. The input is split into the file of -kernel, the file of -initrd and the
 * text of -append; firmware_new() loads them, and reads the fw_cfg items that it made of them as
 * the option ROM would.
 */
#include "bios/bios.h"
#include "devices/fw_cfg.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/rig.h"
#include <elf.h>
#include <stdlib.h>

enum { HEAD = 4, MAX_APPEND = 255 };

static void cmos_write(void *opaque, uint8_t index, uint8_t value)
{
}

/* The sum of all bytes of the items that hold a kernel: whatever is claimed must be there. */
static unsigned read_items(const struct fw_cfg *fw)
{
	static const uint16_t keys[] = {FW_CFG_KERNEL_DATA, FW_CFG_INITRD_DATA, FW_CFG_CMDLINE_DATA,
					FW_CFG_SETUP_DATA, FW_CFG_FILE_DIR};
	unsigned sum = 0;

	for (size_t n = 0; n < ARRAY_SIZE(keys); n++) {
		size_t len = 0;
		const uint8_t *item = fw_cfg_item(fw, keys[n], &len);
		for (size_t at = 0; item && at < len; at++)
			sum += item[at];
	}
	return sum;
}

/* Input: flags, length of append, length of initrd (u16), append, initrd, kernel. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input(data, size);
	uint8_t flags = fuzz_u8(&in), append_len = fuzz_u8(&in);
	uint16_t initrd_len = fuzz_u16(&in);
	char append[MAX_APPEND + 1] = "", *initrd_list = NULL;
	struct firmware_boot boot;
	struct error err = ERROR_INIT;

	fuzz_take(&in, append, append_len);
	if (initrd_len > fuzz_left(&in))
		initrd_len = (uint16_t)fuzz_left(&in);
	if (flags & 1) {
		const char *path = fuzz_file(1, in.at, initrd_len);
		initrd_list = flags & 2 ? xasprintf("%s %s,%s", path, append, path) : xstrdup(path);
	}
	in.at += initrd_len;
	const char *kernel = fuzz_file(0, in.at, fuzz_left(&in));

	struct machine *m = rig_machine(NULL, &err);
	if (!m)
		abort();
	loop_lock(m->loop);
	struct fw_cfg *fw = m->dev.fw_cfg;
	firmware_boot_init(&boot);
	struct firmware_config config = {
		.low_ram = (flags & 4 ? 1 : 64) * MIB,
		.cpus = 1,
		.boot = &boot,
		.kernel = kernel,
		.initrd = initrd_list,
		.append = flags & 8 ? append : NULL,
		.cmos_write = cmos_write,
	};
	struct firmware *firmware = firmware_new(&config, fw, &err);
	volatile unsigned sum = read_items(fw);
	(void)sum;
	if (firmware)
		firmware_free(firmware);
	loop_unlock(m->loop);
	rig_machine_free(m);
	free(initrd_list);
	return 0;
}

/* ---- Seeds ---- */

enum { KERNEL_MAX = 16384 };

static size_t linux_kernel(uint8_t *k)
{
	enum { SETUP_SECTORS = 2, LEN = 512 * (SETUP_SECTORS + 1) + 1000 };

	k[0x1F1] = SETUP_SECTORS;
	store_le16(k + 0x1FE, 0xAA55);
	memcpy(k + 0x202, "HdrS", 4);
	store_le16(k + 0x206, 0x020C);
	k[0x211] = 1;                      /* LOAD_HIGH */
	store_le32(k + 0x214, 0x100000);   /* code32_start */
	store_le32(k + 0x22C, 0x37FFFFFF); /* initrd_addr_max */
	store_le32(k + 0x230, 0x1000000);  /* kernel_alignment */
	k[0x234] = 1;                      /* relocatable */
	store_le32(k + 0x238, 2047);       /* cmdline_size */
	store_le32(k + 0x260, 0x400000);   /* init_size */
	return LEN;
}

static void multiboot_header(uint8_t *at, uint32_t flags)
{
	store_le32(at, 0x1BADB002);
	store_le32(at + 4, flags);
	store_le32(at + 8, -(0x1BADB002 + flags));
}

static size_t multiboot_elf(uint8_t *k)
{
	Elf32_Ehdr *e = (void *)k;
	Elf32_Phdr *p = (void *)(k + sizeof(*e));

	memcpy(e->e_ident, ELFMAG, SELFMAG);
	e->e_ident[EI_CLASS] = ELFCLASS32;
	e->e_ident[EI_DATA] = ELFDATA2LSB;
	e->e_ident[EI_VERSION] = EV_CURRENT;
	e->e_type = ET_EXEC;
	e->e_machine = EM_386;
	e->e_version = EV_CURRENT;
	e->e_entry = 0x100010;
	e->e_phoff = sizeof(*e);
	e->e_ehsize = sizeof(*e);
	e->e_phentsize = sizeof(*p);
	e->e_phnum = 2;
	p[0] = (Elf32_Phdr){PT_LOAD, 0x200, 0x100000, 0x100000, 0x300, 0x800, PF_R | PF_X, 4096};
	p[1] = (Elf32_Phdr){PT_LOAD, 0x500, 0x102000, 0x102000, 0x100, 0x5000, PF_R | PF_W, 4096};
	multiboot_header(k + 0x200, 3);
	return 0x600;
}

static size_t multiboot_raw(uint8_t *k)
{
	multiboot_header(k + 0x40, 0x10003);
	store_le32(k + 0x4C, 0x100040); /* header, load, load end, bss end, entry */
	store_le32(k + 0x50, 0x100000);
	store_le32(k + 0x54, 0x100300);
	store_le32(k + 0x58, 0x101000);
	store_le32(k + 0x5C, 0x100060);
	return 0x300;
}

static size_t seed(unsigned n, uint8_t *buf, size_t max)
{
	static size_t (*const make[])(uint8_t *) = {linux_kernel, multiboot_elf, multiboot_raw};
	static const uint8_t flags[] = {0, 1 | 8, 1 | 2 | 8, 1 | 4 | 8};
	static uint8_t kernel[KERNEL_MAX];
	static const char append[] = "root=/dev/sda1 vga=0x318 mem=32M";
	enum { INITRD = 300 };

	if (n >= ARRAY_SIZE(make) * ARRAY_SIZE(flags))
		return 0;
	memset(kernel, 0, sizeof(kernel));
	size_t len = make[n / ARRAY_SIZE(flags)](kernel);
	uint8_t *at = buf;
	*at++ = flags[n % ARRAY_SIZE(flags)];
	*at++ = sizeof(append) - 1;
	store_le16(at, INITRD);
	memcpy(at + 2, append, sizeof(append) - 1);
	at += 2 + sizeof(append) - 1;
	memset(at, 0x5A, INITRD);
	memcpy(at + INITRD, kernel, len);
	return (size_t)(at + INITRD + len - buf);
}

const struct fuzz_target fuzz_target = {
	.name = "kernel", .runs = 3000, .max_len = KERNEL_MAX, .seed = seed};
