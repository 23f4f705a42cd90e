/* SPDX-License-Identifier: MIT */
/*
 * Multiboot 1 kernels: an ELF file, or any file whose multiboot header says where it goes ("a.out
 * kludge"); modules from -initrd "file args,file2 args"; command line from -append.
 *
 * The kernel's segments are laid out here as they will be in memory, one contiguous image. Behind
 * it, page by page, come the modules, then strings and the module list. The information structure
 * lies in low memory, where the option ROM adds the memory map to it.
 *
 * Documents: Multiboot Specification 0.6.96; System V ABI (gabi), chapters 4 and 5 for ELF.
 */
#include "bios/internal.h"
#include "devices/fw_cfg.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include <elf.h>
#include <errno.h>
#include <stdlib.h>

/* The header (3.1). */
enum {
	SEARCH_BYTES = 8192,
	FLAG_ALIGN_MODULES = 1 << 0,
	FLAG_MEMORY_INFO = 1 << 1,
	FLAG_VIDEO = 1 << 2,
	FLAG_REQUIRED = 0xffff, /* a loader must refuse what it does not know of these */
	FLAG_ADDRESSES = 1 << 16,
};
#define HEADER_MAGIC UINT32_C(0x1badb002)

struct header {
	uint32_t magic, flags, checksum;
	uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};

/* The information structure (3.3). */
struct info {
	uint32_t flags;
	uint32_t mem_lower, mem_upper; /* KiB; the upper one by the option ROM */
	uint32_t boot_device;
	uint32_t cmdline;
	uint32_t mods_count, mods_addr;
	uint32_t syms[4];
	uint32_t mmap_length, mmap_addr; /* by the option ROM */
	uint32_t drives_length, drives_addr;
	uint32_t config_table;
	uint32_t boot_loader_name;
	uint32_t apm_table;
	uint32_t vbe[4];
};

enum {
	INFO_MEMORY = 1 << 0,
	INFO_CMDLINE = 1 << 2,
	INFO_MODULES = 1 << 3,
	INFO_MMAP = 1 << 6,
	INFO_LOADER_NAME = 1 << 9,
};

struct module {
	uint32_t start, end, string, reserved;
};

enum {
	INFO_ADDR = 0x9000, /* the option ROM's memory map lies below it */
	LOWEST = 0x100000,
	MODULES_MAX = 64,
	PAGE = 4096,
	BASE_MEMORY_KIB = 640,
	/* The firmware keeps its tables in the last part of low RAM. */
	FIRMWARE_TOP = 1024 * 1024,
};

/* The kernel and what follows it, as they lie in memory from `base` on. */
struct image {
	const char *path;
	uint64_t limit; /* no byte may lie at or above it */
	uint32_t base;
	struct strbuf bytes;
	uint32_t entry;
};

static long find_header(const uint8_t *file, size_t len, struct header *h)
{
	if (len > SEARCH_BYTES)
		len = SEARCH_BYTES;
	for (size_t at = 0; at + 12 <= len; at += 4) {
		uint32_t magic = load_le32(file + at), flags = load_le32(file + at + 4);
		if (magic != HEADER_MAGIC || magic + flags + load_le32(file + at + 8) != 0)
			continue;
		memset(h, 0, sizeof(*h));
		memcpy(h, file + at, at + sizeof(*h) <= len ? sizeof(*h) : 12);
		if ((h->flags & FLAG_ADDRESSES) && at + sizeof(*h) > len)
			continue;
		return (long)at;
	}
	return -1;
}

bool multiboot_detect(const uint8_t *file, size_t len)
{
	struct header h;

	return find_header(file, len, &h) >= 0;
}

/* Appends `len` zero bytes, or the bytes at `data`. The caller has bounded the sum. */
static void append(struct image *im, const void *data, size_t len)
{
	static const uint8_t zeros[PAGE];

	if (data) {
		strbuf_append(&im->bytes, data, len);
		return;
	}
	while (len) {
		size_t n = len < sizeof(zeros) ? len : sizeof(zeros);
		strbuf_append(&im->bytes, zeros, n);
		len -= n;
	}
}

static bool room_for(const struct image *im, uint64_t len)
{
	return range_in((uint64_t)im->base + im->bytes.len, len, im->limit);
}

static int no_room(const struct image *im, const char *what, struct error *err)
{
	return error_set(err, ENOMEM,
			 "%s '%s' does not fit into memory; give the machine more with -m", what,
			 im->path);
}

/* "3.1.3 The address fields of Multiboot header". */
static int load_by_addresses(struct image *im, const uint8_t *file, size_t len, size_t header_at,
			     const struct header *h, struct error *err)
{
	uint64_t ahead = (uint64_t)h->header_addr - h->load_addr; /* of the header in the image */
	uint64_t start, bytes;

	if (h->header_addr < h->load_addr || ahead > header_at ||
	    (h->load_end_addr && h->load_end_addr < h->load_addr))
		return error_set(err, EINVAL,
				 "the multiboot header of '%s' has impossible addresses (header "
				 "%#x, load %#x to %#x)",
				 im->path, h->header_addr, h->load_addr, h->load_end_addr);
	start = header_at - ahead;
	bytes = h->load_end_addr ? h->load_end_addr - h->load_addr : len - start;
	if (!range_in(start, bytes, len))
		return error_set(err, EINVAL,
				 "'%s' is truncated: its multiboot header wants %llu bytes, there "
				 "are %zu",
				 im->path, (unsigned long long)bytes, len - (size_t)start);
	if (h->load_addr < LOWEST)
		return error_set(err, EINVAL,
				 "'%s' wants to be loaded at %#x; only addresses from "
				 "%#x up are free",
				 im->path, h->load_addr, LOWEST);
	im->base = h->load_addr;
	uint64_t end = h->load_addr + bytes;
	if (h->bss_end_addr > end)
		end = h->bss_end_addr;
	if (!room_for(im, end - im->base))
		return no_room(im, "kernel", err);
	append(im, file + start, (size_t)bytes);
	append(im, NULL, (size_t)(end - h->load_addr - bytes));
	im->entry = h->entry_addr;
	return 0;
}

/* One loadable segment, its file part checked against the file. */
static int elf_segment(const struct image *im, const uint8_t *file, size_t len, const Elf32_Ehdr *e,
		       unsigned i, Elf32_Phdr *p, struct error *err)
{
	memcpy(p, file + e->e_phoff + (size_t)i * sizeof(*p), sizeof(*p));
	if (p->p_type != PT_LOAD || p->p_memsz == 0)
		return 0;
	if (p->p_filesz > p->p_memsz || !range_in(p->p_offset, p->p_filesz, len))
		return error_set(err, EINVAL,
				 "ELF segment %u of '%s' is damaged (offset %#x, %u bytes in the "
				 "file, %u in memory)",
				 i, im->path, p->p_offset, p->p_filesz, p->p_memsz);
	if (p->p_paddr < LOWEST)
		return error_set(err, EINVAL,
				 "ELF segment %u of '%s' wants to be loaded at %#x; only addresses "
				 "from %#x up are free",
				 i, im->path, p->p_paddr, LOWEST);
	if (!range_in(p->p_paddr, p->p_memsz, im->limit))
		return no_room(im, "kernel", err);
	return 1;
}

static int load_elf(struct image *im, const uint8_t *file, size_t len, struct error *err)
{
	Elf32_Ehdr e;
	Elf32_Phdr p;
	uint64_t low = UINT64_MAX, high = 0;
	uint64_t entry;
	int rc;

	if (len < sizeof(e) || memcmp(file, ELFMAG, SELFMAG))
		return error_set(err, ENOEXEC,
				 "multiboot kernel '%s' is no ELF file, and its header has no load "
				 "addresses",
				 im->path);
	memcpy(&e, file, sizeof(e));
	if (e.e_ident[EI_CLASS] != ELFCLASS32 || e.e_machine != EM_386)
		return error_set(err, ENOEXEC, "multiboot kernel '%s' is not for 32-bit x86",
				 im->path);
	if (e.e_phentsize != sizeof(p) ||
	    !range_in(e.e_phoff, (uint64_t)e.e_phnum * sizeof(p), len))
		return error_set(
			err, EINVAL,
			"the ELF header of '%s' is damaged (%u program headers of %u bytes "
			"at %#x)",
			im->path, e.e_phnum, e.e_phentsize, e.e_phoff);
	entry = e.e_entry;
	for (unsigned i = 0; i < e.e_phnum; i++) {
		rc = elf_segment(im, file, len, &e, i, &p, err);
		if (rc < 0)
			return rc;
		if (rc == 0)
			continue;
		if (p.p_paddr < low)
			low = p.p_paddr;
		if ((uint64_t)p.p_paddr + p.p_memsz > high)
			high = (uint64_t)p.p_paddr + p.p_memsz;
		/* Paging is off: a virtual entry address means the physical one. */
		if (e.e_entry >= p.p_vaddr && e.e_entry - p.p_vaddr < p.p_memsz)
			entry = (uint64_t)p.p_paddr + (e.e_entry - p.p_vaddr);
	}
	if (!high)
		return error_set(err, EINVAL, "multiboot kernel '%s' has nothing to load",
				 im->path);
	im->base = (uint32_t)low;
	append(im, NULL, (size_t)(high - low));
	for (unsigned i = 0; i < e.e_phnum; i++)
		if (elf_segment(im, file, len, &e, i, &p, NULL) > 0)
			memcpy(im->bytes.data + (p.p_paddr - low), file + p.p_offset, p.p_filesz);
	im->entry = (uint32_t)entry;
	return 0;
}

/* The address that the next appended byte gets. */
static uint32_t here(const struct image *im)
{
	return im->base + (uint32_t)im->bytes.len;
}

static int align_page(struct image *im, struct error *err)
{
	size_t pad = (size_t)(round_up(here(im), PAGE) - here(im));

	if (!room_for(im, pad))
		return no_room(im, "kernel", err);
	append(im, NULL, pad);
	return 0;
}

/* A string behind what there is; its address. Room was checked. */
static uint32_t add_text(struct image *im, const char *text)
{
	uint32_t at = here(im);

	append(im, text, strlen(text) + 1);
	return at;
}

/* One element of -initrd: "file args". */
static int load_module(struct image *im, const char *spec, struct module *m, struct error *err)
{
	size_t name_len = strcspn(spec, " "), len;
	char *path = xmalloc(name_len + 1);
	void *data;
	int rc;

	memcpy(path, spec, name_len);
	path[name_len] = '\0';
	data = read_file(path, INT32_MAX, &len, err);
	rc = data ? align_page(im, err) : err && err->code ? -err->code : -EIO;
	if (rc == 0 && !room_for(im, len))
		rc = error_set(
			err, ENOMEM,
			"module '%s' does not fit into memory; give the machine more with -m",
			path);
	if (rc == 0) {
		m->start = here(im);
		append(im, data, len);
		m->end = here(im);
	}
	free(data);
	free(path);
	return rc;
}

/* Splits "a x,b y" (",," is a comma) and loads each; *count modules, each with its words. */
static int load_modules(struct image *im, const char *list, struct module *modules, char **words,
			unsigned *count, struct error *err)
{
	const char *p = list;

	while (p && *p) {
		struct strbuf word = STRBUF_INIT;
		int rc;

		for (; *p && (*p != ',' || p[1] == ','); p++) {
			strbuf_append(&word, p, 1);
			p += *p == ',';
		}
		if (*p == ',')
			p++;
		if (*count == MODULES_MAX) {
			strbuf_free(&word);
			return error_set(err, E2BIG, "-initrd names more than %d modules",
					 MODULES_MAX);
		}
		words[*count] = xstrdup(strbuf_str(&word));
		strbuf_free(&word);
		rc = load_module(im, words[*count], &modules[*count], err);
		++*count;
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* The strings, the module list, and the information structure that points at them. */
static int add_info(struct image *im, const struct firmware_config *c, struct module *modules,
		    char **words, unsigned count, struct info *info, struct error *err)
{
	char *cmdline =
		xasprintf("%s%s%s", c->kernel, c->append ? " " : "", c->append ? c->append : "");
	uint64_t need = strlen(cmdline) + 64 + count * sizeof(modules[0]) + 2 * PAGE;
	int rc;

	for (unsigned i = 0; i < count; i++)
		need += strlen(words[i]) + 1;
	rc = room_for(im, need) ? align_page(im, err) : no_room(im, "command line of", err);
	if (rc == 0) {
		*info = (struct info){
			.flags = INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_MMAP |
				 INFO_LOADER_NAME,
			.mem_lower = BASE_MEMORY_KIB,
			.cmdline = add_text(im, cmdline),
			.boot_loader_name = add_text(im, "minivm"),
			.mods_count = count,
		};
		for (unsigned i = 0; i < count; i++)
			modules[i].string = add_text(im, words[i]);
		append(im, NULL, (size_t)(round_up(here(im), 16) - here(im)));
		info->mods_addr = here(im);
		append(im, modules, count * sizeof(modules[0]));
	}
	free(cmdline);
	return rc;
}

static int load_kernel(struct image *im, const uint8_t *file, size_t len, struct error *err)
{
	struct header h;
	long at = find_header(file, len, &h);

	if (at < 0)
		return error_set(err, ENOEXEC, "'%s' has no multiboot header", im->path);
	if (h.flags & FLAG_REQUIRED &
	    ~(uint32_t)(FLAG_ALIGN_MODULES | FLAG_MEMORY_INFO | FLAG_VIDEO))
		return error_set(
			err, EINVAL,
			"multiboot kernel '%s' requires features that are not known (flags "
			"%#x)",
			im->path, h.flags);
	if (h.flags & FLAG_ADDRESSES)
		return load_by_addresses(im, file, len, (size_t)at, &h, err);
	return load_elf(im, file, len, err);
}

int multiboot_load(const struct firmware_config *c, const uint8_t *file, size_t len,
		   struct fw_cfg *fw, struct boot_plan *plan, struct error *err)
{
	struct image im = {.path = c->kernel};
	struct module modules[MODULES_MAX] = {0};
	char *words[MODULES_MAX] = {0};
	unsigned count = 0;
	struct info info;
	int rc;

	if (c->low_ram < 2 * (uint64_t)LOWEST)
		return error_set(err, ENOMEM, "a multiboot kernel needs at least 2 MiB of memory");
	im.limit = c->low_ram - FIRMWARE_TOP;
	rc = load_kernel(&im, file, len, err);
	if (rc == 0)
		rc = load_modules(&im, c->initrd, modules, words, &count, err);
	if (rc == 0)
		rc = add_info(&im, c, modules, words, count, &info, err);
	if (rc == 0) {
		plan->protected_mode = true;
		plan->entry = im.entry;
		plan->info = INFO_ADDR;
		plan->copy[plan->copies++] =
			(struct boot_copy){FW_CFG_KERNEL_DATA, im.base, (uint32_t)im.bytes.len};
		plan->copy[plan->copies++] =
			(struct boot_copy){FW_CFG_INITRD_DATA, INFO_ADDR, sizeof(info)};
		fw_cfg_add_u32(fw, FW_CFG_KERNEL_ENTRY, im.entry);
		fw_cfg_add_u32(fw, FW_CFG_KERNEL_ADDR, im.base);
		fw_cfg_add_u32(fw, FW_CFG_KERNEL_SIZE, (uint32_t)im.bytes.len);
		fw_cfg_add_u32(fw, FW_CFG_INITRD_ADDR, INFO_ADDR);
		fw_cfg_add_u32(fw, FW_CFG_INITRD_SIZE, sizeof(info));
		fw_cfg_add_bytes(fw, FW_CFG_INITRD_DATA, &info, sizeof(info));
		size_t bytes = im.bytes.len;
		fw_cfg_give_bytes(fw, FW_CFG_KERNEL_DATA, strbuf_steal(&im.bytes), bytes);
	}
	for (unsigned i = 0; i < count; i++)
		free(words[i]);
	strbuf_free(&im.bytes);
	return rc;
}
