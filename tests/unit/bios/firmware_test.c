/* SPDX-License-Identifier: MIT */
/* Boot options, CMOS bytes, direct kernels (good ones and damaged ones), ROM search.
 */
#include "bios/internal.h"
#include "core/iobus.h"
#include "core/memory.h"
#include "core/state.h"
#include "devices/fw_cfg.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

struct rig {
	struct device_env env;
	struct fw_cfg *fw;
	uint8_t cmos[128];
	struct firmware_boot boot;
	struct firmware_config c;
	char kernel[64], initrd[64];
};

static void cmos_write(void *opaque, uint8_t index, uint8_t value)
{
	((uint8_t *)opaque)[index & 127] = value;
}

static int setup(void **state)
{
	struct rig *r = xcalloc(1, sizeof(*r));

	r->env = (struct device_env){
		.mem = memory_new(), .io = iobus_new(), .states = state_registry_new()};
	r->fw = fw_cfg_new(&r->env);
	firmware_boot_init(&r->boot);
	r->c = (struct firmware_config){
		.low_ram = 64 * MIB,
		.cpus = 2,
		.boot = &r->boot,
		.floppy_boot_check = true,
		.cmos_write = cmos_write,
		.cmos = r->cmos,
	};
	snprintf(r->kernel, sizeof(r->kernel), "/tmp/minivm-kernel-%d", getpid());
	snprintf(r->initrd, sizeof(r->initrd), "/tmp/minivm-initrd-%d", getpid());
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	unlink(r->kernel);
	unlink(r->initrd);
	fw_cfg_free(r->fw);
	state_registry_free(r->env.states);
	iobus_free(r->env.io);
	memory_free(r->env.mem);
	free(r);
	return 0;
}

static void write_file(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(path, "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	fclose(f);
}

static void order_goes_to_cmos_and_once_is_for_the_first_boot(void **state)
{
	struct rig *r = *state;
	struct error err = ERROR_INIT;

	assert_int_equal(firmware_boot_parse("order=dcn,once=a,menu=on", &r->boot, &err), 0);
	struct firmware *f = firmware_new(&r->c, r->fw, &err);
	assert_non_null(f);
	assert_int_equal(r->cmos[0x3d], 0x01);
	firmware_reset(f);
	assert_int_equal(r->cmos[0x3d], 0x23);
	assert_int_equal(r->cmos[0x38], 0x40);
	assert_int_equal(firmware_set_boot_order(f, "c", &err), 0);
	assert_int_equal(r->cmos[0x3d], 0x02);
	assert_int_equal(firmware_set_boot_order(f, "z", &err), -EINVAL);
	firmware_free(f);
}

static void bad_boot_options_are_refused(void **state)
{
	struct firmware_boot boot;

	static const char *const bad[] = {
		"q",      "cc",        "acdn", "order=x", "splash-time=x", "reboot-timeout=70000",
		"menu=2", "nonsense=1"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error err = ERROR_INIT;
		firmware_boot_init(&boot);
		assert_int_equal(firmware_boot_parse(bad[i], &boot, &err), -EINVAL);
		assert_true(err.text[0]);
	}
}

static void memory_sizes_are_in_cmos_as_the_bios_reads_them(void **state)
{
	struct rig *r = *state;
	struct error err = ERROR_INIT;

	r->c.low_ram = 3 * GIB;
	r->c.high_ram = 5 * GIB;
	struct firmware *f = firmware_new(&r->c, r->fw, &err);
	assert_non_null(f);
	assert_int_equal(load_le16(r->cmos + 0x15), 640);
	assert_int_equal(load_le16(r->cmos + 0x17), 0xffff);
	assert_int_equal(load_le16(r->cmos + 0x34), (3 * GIB - 16 * MIB) / (64 * KIB));
	assert_int_equal(r->cmos[0x5b] | r->cmos[0x5c] << 8 | r->cmos[0x5d] << 16,
			 5 * GIB / (64 * KIB));
	assert_int_equal(r->cmos[0x5f], 1);
	firmware_free(f);
}

static void bootindex_decides_the_order_of_paths(void **state)
{
	struct firmware_boot_entry e[2] = {{5, "/late"}, {1, "/early"}};
	struct strbuf sb = STRBUF_INIT;

	bootorder_text(e, 2, "/rom", true, &sb);
	assert_string_equal(sb.data, "/rom\n/early\n/late\nHALT");
	assert_int_equal(sb.len, strlen(sb.data) + 1);
	strbuf_free(&sb);
}

/* A bzImage of boot protocol 2.10 with 4 setup sectors and 4 KiB of kernel. */
static void make_bzimage(uint8_t image[2560 + 4096])
{
	memset(image, 0, 2560 + 4096);
	image[0x1f1] = 4;
	store_le16(image + 0x1fe, 0xaa55);
	memcpy(image + 0x202, "HdrS", 4);
	store_le16(image + 0x206, 0x20a);
	image[0x211] = 1;
	store_le32(image + 0x22c, 0x37ffffff);
	store_le32(image + 0x238, 255);
	store_le32(image + 0x260, 0x10000);
	memset(image + 2560, 0x5a, 4096);
}

static struct firmware *boot_kernel(struct rig *r, const void *file, size_t len, struct error *err)
{
	write_file(r->kernel, file, len);
	r->c.kernel = r->kernel;
	*err = ERROR_INIT;
	return firmware_new(&r->c, r->fw, err);
}

static uint32_t item32(struct rig *r, uint16_t key)
{
	size_t len;
	const void *p = fw_cfg_item(r->fw, key, &len);

	assert_non_null(p);
	assert_int_equal(len, 4);
	return load_le32(p);
}

static void bzimage_is_split_placed_and_filled_in(void **state)
{
	struct rig *r = *state;
	struct error err;
	uint8_t image[2560 + 4096], initrd[10000] = {7};
	size_t len;

	make_bzimage(image);
	write_file(r->initrd, initrd, sizeof(initrd));
	r->c.initrd = r->initrd;
	r->c.append = "root=/dev/sda vga=0x317 quiet";
	struct firmware *f = boot_kernel(r, image, sizeof(image), &err);
	assert_non_null(f);
	assert_int_equal(item32(r, FW_CFG_KERNEL_ADDR), 0x100000);
	assert_int_equal(item32(r, FW_CFG_KERNEL_SIZE), 4096);
	assert_int_equal(item32(r, FW_CFG_SETUP_ADDR), 0x10000);
	uint32_t initrd_at = item32(r, FW_CFG_INITRD_ADDR);
	assert_true(initrd_at % 4096 == 0);
	assert_true(initrd_at > 0x110000 && initrd_at + sizeof(initrd) <= 63 * MIB);
	const uint8_t *setup_part = fw_cfg_item(r->fw, FW_CFG_SETUP_DATA, &len);
	assert_int_equal(len, 2560);
	assert_int_equal(load_le32(setup_part + 0x218), initrd_at);
	assert_int_equal(load_le32(setup_part + 0x21c), sizeof(initrd));
	assert_int_equal(load_le32(setup_part + 0x228), item32(r, FW_CFG_CMDLINE_ADDR));
	assert_int_equal(load_le16(setup_part + 0x1fa), 0x317);
	assert_string_equal(fw_cfg_item(r->fw, FW_CFG_CMDLINE_DATA, &len), r->c.append);
	const uint8_t *rom = fw_cfg_file(r->fw, "genroms/minivm-kernel.rom", &len);
	uint8_t sum = 0;
	assert_non_null(rom);
	assert_int_equal(len, rom[2] * 512);
	for (size_t i = 0; i < len; i++)
		sum += rom[i];
	assert_int_equal(sum, 0);
	assert_string_equal(fw_cfg_file(r->fw, "bootorder", &len),
			    "/rom@genroms/minivm-kernel.rom");
	firmware_free(f);
}

static void damaged_and_unfit_linux_kernels_are_refused(void **state)
{
	struct rig *r = *state;
	struct error err;
	uint8_t image[2560 + 4096];
	char line[300];

	make_bzimage(image);
	assert_null(boot_kernel(r, image, 2000, &err)); /* ends within the setup part */
	assert_non_null(strstr(err.text, "truncated"));
	image[0x1f1] = 200;
	assert_null(boot_kernel(r, image, sizeof(image), &err));
	make_bzimage(image);
	store_le16(image + 0x206, 0x0700);
	assert_null(boot_kernel(r, image, sizeof(image), &err));
	make_bzimage(image);
	store_le32(image + 0x260, UINT32_MAX);
	assert_null(boot_kernel(r, image, sizeof(image), &err));
	assert_int_equal(err.code, ENOMEM);
	make_bzimage(image);
	memset(line, 'x', sizeof(line) - 1);
	line[sizeof(line) - 1] = '\0';
	r->c.append = line;
	assert_null(boot_kernel(r, image, sizeof(image), &err));
	assert_int_equal(err.code, E2BIG);
	r->c.append = NULL;
	memset(image, 0, sizeof(image));
	assert_null(boot_kernel(r, image, sizeof(image), &err));
	assert_int_equal(err.code, ENOEXEC);
}

/* An ELF file with a multiboot header and one segment. */
struct mb_elf {
	Elf32_Ehdr e;
	Elf32_Phdr p;
	uint32_t header[3];
	uint8_t code[64];
};

static struct mb_elf make_elf(void)
{
	struct mb_elf m = {
		.e = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
		      .e_type = ET_EXEC,
		      .e_machine = EM_386,
		      .e_entry = 0xc0100010,
		      .e_phoff = offsetof(struct mb_elf, p),
		      .e_phentsize = sizeof(Elf32_Phdr),
		      .e_phnum = 1},
		.p = {.p_type = PT_LOAD,
		      .p_offset = offsetof(struct mb_elf, code),
		      .p_vaddr = 0xc0100000,
		      .p_paddr = 0x200000,
		      .p_filesz = 64,
		      .p_memsz = 8192},
		.header = {0x1badb002, 3, -(0x1badb002u + 3)},
	};

	memset(m.code, 0x90, sizeof(m.code));
	return m;
}

static void multiboot_elf_is_laid_out_with_its_modules(void **state)
{
	struct rig *r = *state;
	struct error err;
	struct mb_elf m = make_elf();
	char list[200];
	size_t len;

	write_file(r->initrd, "MODULE", 6);
	snprintf(list, sizeof(list), "%s one,%s two", r->initrd, r->initrd);
	r->c.initrd = list;
	r->c.append = "arg";
	struct firmware *f = boot_kernel(r, &m, sizeof(m), &err);
	assert_non_null(f);
	assert_int_equal(item32(r, FW_CFG_KERNEL_ADDR), 0x200000);
	assert_int_equal(item32(r, FW_CFG_KERNEL_ENTRY), 0x200010);
	const uint8_t *image = fw_cfg_item(r->fw, FW_CFG_KERNEL_DATA, &len);
	const uint8_t *info = fw_cfg_item(r->fw, FW_CFG_INITRD_DATA, &len);
	assert_int_equal(image[0], 0x90);
	assert_int_equal(image[64], 0);
	assert_int_equal(load_le32(info + 20), 2);
	const uint8_t *mods = image + (load_le32(info + 24) - 0x200000);
	assert_int_equal(load_le32(mods) % 4096, 0);
	assert_memory_equal(image + (load_le32(mods + 16) - 0x200000), "MODULE", 6);
	assert_int_equal(load_le32(mods + 4) - load_le32(mods), 6);
	firmware_free(f);
}

static void damaged_multiboot_kernels_are_refused(void **state)
{
	struct rig *r = *state;
	struct error err;

	struct mb_elf bad[8];
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		bad[i] = make_elf();
	bad[0].p.p_offset = 0xfffffff0;
	bad[1].p.p_filesz = 0x7fffffff;
	bad[2].p.p_memsz = UINT32_MAX;
	bad[3].p.p_paddr = 0x7c00;
	bad[4].p.p_paddr = 0xfffff000;
	bad[5].e.e_phnum = 0xffff;
	bad[6].e.e_phoff = 0xfffffff0;
	bad[7].header[1] = 0x8003;
	bad[7].header[2] = -(0x1badb002u + 0x8003);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_null(boot_kernel(r, &bad[i], sizeof(bad[i]), &err));
		assert_true(err.text[0]);
	}
	/* The a.out kludge with addresses that do not fit together. */
	uint32_t h[8] = {0x1badb002, 0x10000, -(0x1badb002u + 0x10000), 0x300000, 0x200000, 0,
			 0,          0};
	assert_null(boot_kernel(r, h, sizeof(h), &err));
	h[3] = h[4] = 0x200000;
	h[5] = 0xffffffff;
	assert_null(boot_kernel(r, h, sizeof(h), &err));
	h[5] = 0;
	h[6] = 0xfffffff0; /* bss */
	assert_null(boot_kernel(r, h, sizeof(h), &err));
	assert_int_equal(err.code, ENOMEM);
}

static void missing_rom_names_the_package(void **state)
{
	static const char *const dirs[] = {"/nonexistent-dir", NULL};
	struct rom_search s = {.dirs = dirs};
	struct error err = ERROR_INIT;
	size_t len;

	assert_null(rom_load(&s, "vgabios-none.bin", 1 << 20, &len, NULL, &err));
	assert_int_equal(err.code, ENOENT);
	assert_non_null(strstr(err.text, "/nonexistent-dir"));
	assert_non_null(strstr(err.text, "apt install seabios"));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(order_goes_to_cmos_and_once_is_for_the_first_boot),
		T(bad_boot_options_are_refused),
		T(memory_sizes_are_in_cmos_as_the_bios_reads_them),
		T(bootindex_decides_the_order_of_paths),
		T(bzimage_is_split_placed_and_filled_in),
		T(damaged_and_unfit_linux_kernels_are_refused),
		T(multiboot_elf_is_laid_out_with_its_modules),
		T(damaged_multiboot_kernels_are_refused),
		T(missing_rom_names_the_package),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
