/* SPDX-License-Identifier: MIT */
/*
 * Finding ROM files: firmware, VGA BIOS, network boot ROMs. They come from the distribution's
 * packages, and every distribution has its own places for them.
 */
#include "bios/bios.h"
#include "lib/bytes.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static const char *const system_dirs[] = {
	MINIVM_PREFIX "/share/minivm",
	"/usr/share/minivm",
	"/usr/share/seabios",    /* Debian, Ubuntu, Fedora */
	"/usr/share/seavgabios", /* Fedora */
	"/usr/share/qemu",       /* Arch, openSUSE, and where QEMU was built from source */
	"/usr/share/qemu-firmware",
	"/usr/local/share/qemu",
	"/usr/share/vgabios",
	"/usr/lib/ipxe/qemu",   /* Debian, Ubuntu */
	"/usr/share/ipxe/qemu", /* Fedora */
	"/usr/share/ipxe",
};

/* Which package has a file, by the start of its name. */
static const struct {
	const char *start;
	const char *debian, *fedora, *arch;
} packages[] = {
	{"vgabios", "seabios", "seavgabios-bin", "seabios"},
	{"bios", "seabios", "seabios-bin", "seabios"},
	{"pxe-", "ipxe-qemu", "ipxe-roms-qemu", "qemu-common"},
	{"efi-", "ipxe-qemu", "ipxe-roms-qemu", "qemu-common"},
};

static bool is_file(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* The i-th directory to try, NULL behind the last. */
static const char *search_dir(const struct rom_search *search, size_t i)
{
	size_t user = 0;

	while (search && search->dirs && search->dirs[user])
		user++;
	if (i < user)
		return search->dirs[i];
	i -= user;
	const char *env = getenv("MINIVM_DATADIR");
	if (env && *env) {
		if (i == 0)
			return env;
		i--;
	}
	return i < ARRAY_SIZE(system_dirs) ? system_dirs[i] : NULL;
}

static void not_found(const struct rom_search *search, const char *name, struct error *err)
{
	struct strbuf tried = STRBUF_INIT;
	const char *dir;

	for (size_t i = 0; (dir = search_dir(search, i)); i++)
		strbuf_printf(&tried, "%s%s", i ? ", " : "", dir);
	for (size_t i = 0; i < ARRAY_SIZE(packages); i++) {
		if (strncmp(name, packages[i].start, strlen(packages[i].start)))
			continue;
		error_set(
			err, ENOENT,
			"ROM file '%s' not found in %s; install it with 'apt install %s' (Debian, "
			"Ubuntu), 'dnf install %s' (Fedora) or 'pacman -S %s' (Arch), or name its "
			"directory with -L",
			name, strbuf_str(&tried), packages[i].debian, packages[i].fedora,
			packages[i].arch);
		strbuf_free(&tried);
		return;
	}
	error_set(err, ENOENT, "ROM file '%s' not found in %s; name its directory with -L", name,
		  strbuf_str(&tried));
	strbuf_free(&tried);
}

int rom_find(const struct rom_search *search, const char *name, char path[4096], struct error *err)
{
	const char *dir;

	if (!*name)
		return error_set(err, EINVAL, "the name of a ROM file is empty");
	/* As a path first, so that `-bios ./mine.bin` and `-bios mine.bin` mean the file here. */
	if (is_file(name)) {
		snprintf(path, 4096, "%s", name);
		return 0;
	}
	if (strchr(name, '/'))
		return error_errno(err, errno ? errno : ENOENT, "cannot open ROM file '%s'", name);
	for (size_t i = 0; (dir = search_dir(search, i)); i++) {
		int n = snprintf(path, 4096, "%s/%s", dir, name);
		if (n > 0 && n < 4096 && is_file(path))
			return 0;
	}
	not_found(search, name, err);
	return -ENOENT;
}

void *rom_load(const struct rom_search *search, const char *name, size_t max, size_t *len,
	       char path[4096], struct error *err)
{
	char found[4096];
	void *data;

	if (rom_find(search, name, found, err) < 0)
		return NULL;
	data = read_file(found, max, len, err);
	if (!data)
		return NULL;
	if (*len == 0) {
		free(data);
		error_set(err, EINVAL, "ROM file '%s' is empty", found);
		return NULL;
	}
	if (path)
		memcpy(path, found, strlen(found) + 1);
	return data;
}

void rom_print_dirs(const struct rom_search *search)
{
	const char *dir;

	for (size_t i = 0; (dir = search_dir(search, i)); i++)
		puts(dir);
}
