/* SPDX-License-Identifier: MIT */
/*
 * The parser of the command line (options.h): looks each option up in option_table.c, whose row
 * parses its argument; prints -h and -version from the same table.
 */
#include "vmm/options.h"
#include "lib/bytes.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include "net/netdev.h"
#include "vmm/absent.h"
#include "vmm/drives.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#ifdef HAVE_SDL2
#include <SDL_version.h>
#endif
#ifdef HAVE_PNG
#include <png.h>
#endif
#ifdef HAVE_JSONC
#include <json-c/json_c_version.h>
#endif
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif
#ifdef HAVE_GNUTLS
#include <gnutls/gnutls.h>
#endif

void arg_list_add(struct arg_list *list, const char *arg)
{
	list->item = xrealloc(list->item, (list->count + 1) * sizeof(*list->item));
	list->item[list->count++] = arg;
}

static const char *nearest_option(const char *name)
{
	const char *names[256];
	size_t n = 0;
	for (const struct option_row *row = option_table; row->name; row++) {
		if (n + 3 < ARRAY_SIZE(names)) {
			names[n++] = row->name;
			if (row->alias)
				names[n++] = row->alias;
		}
	}
	names[n] = NULL;
	return nearest_word(name, names);
}

static const struct option_row *find_option(const char *name)
{
	for (const struct option_row *row = option_table; row->name; row++)
		if (!strcmp(row->name, name) || (row->alias && !strcmp(row->alias, name)))
			return row;
	return NULL;
}

static int unknown_option(const char *arg, const char *name, struct error *err)
{
	const char *near = nearest_option(name), *why = absent_option(name);
	if (why)
		return error_set(err, ENOTSUP, "%s: %s", arg, why);
	if (near)
		return error_set(err, EINVAL, "%s: unknown option; did you mean '-%s'?", arg, near);
	return error_set(err, EINVAL, "%s: unknown option; -h lists them", arg);
}

static void options_defaults(struct options *o)
{
	o->ram_bytes = 128 * MIB;
	o->cpus = 1;
	o->kernel_irqchip = true;
	o->vga = true;
	o->acpi = true;
}

bool options_use_stdio(const struct options *o)
{
	const struct arg_list *const lists[] = {&o->serial,  &o->parallel, &o->debugcon,
						&o->monitor, &o->qmp,      &o->chardev};
	for (size_t list = 0; list < ARRAY_SIZE(lists); list++)
		for (size_t n = 0; n < lists[list]->count; n++)
			if (!strncmp(lists[list]->item[n], "stdio", 5) ||
			    !strncmp(lists[list]->item[n], "mon:stdio", 9))
				return true;
	return false;
}

int options_parse(struct options *o, int argc, char **argv, struct error *err)
{
	options_defaults(o);
	o->argc = argc;
	o->argv = argv;
	for (int n = 1; n < argc; n++) {
		const char *arg = argv[n];
		if (arg[0] != '-' || !arg[1]) {
			/* A bare file name is the first disk, as in QEMU. */
			char *hda[] = {argv[0], (char *)"-hda", argv[n], NULL};
			const struct option_row *row = find_option("hda");
			int r = row->parse(o, row, hda[2], err);
			if (r < 0)
				return r;
			continue;
		}
		const char *name = arg + 1 + (arg[1] == '-');
		const struct option_row *row = find_option(name);
		if (!row)
			return unknown_option(arg, name, err);
		const char *value = NULL;
		if (row->arg) {
			if (n + 1 >= argc)
				return error_set(err, EINVAL, "%s needs an argument: %s", arg,
						 row->arg);
			value = argv[++n];
		}
		int r = row->parse(o, row, value, err);
		if (r != OPTIONS_RUN)
			return r;
	}
	if (o->nographic && o->daemonize)
		return error_set(err, EINVAL,
				 "-nographic needs the terminal that -daemonize gives up; "
				 "use -display none");
	if (o->daemonize && options_use_stdio(o))
		return error_set(err, EINVAL,
				 "stdio is the terminal that -daemonize gives up; use pty, file: "
				 "or unix:");
	if (o->initrd && !o->kernel)
		return error_set(err, EINVAL, "-initrd needs -kernel");
	if (o->append && !o->kernel)
		return error_set(err, EINVAL, "-append needs -kernel");
	return OPTIONS_RUN;
}

/* Reads bus=/unit= or index= into one number; -1 if none is given. */
static int parse_slot(struct drive_option *d, struct error *err)
{
	uint64_t bus = 0, unit = 0, index = 0;
	unsigned units = d->interface == IF_VIRTIO ? VIRTIO_SLOTS : 2;
	unsigned buses = d->interface == IF_IDE ? 2 : 1;
	bool has_index = opts_has(&d->opts, "index"), has_unit = opts_has(&d->opts, "unit");
	bool has_bus = opts_has(&d->opts, "bus");
	int r;
	if ((r = opts_get_u64(&d->opts, "index", &index, err)) < 0 ||
	    (r = opts_get_u64(&d->opts, "bus", &bus, err)) < 0 ||
	    (r = opts_get_u64(&d->opts, "unit", &unit, err)) < 0)
		return r;
	if (has_index && (has_unit || has_bus))
		return error_set(err, EINVAL, "%s %s: give either index= or bus=/unit=", d->option,
				 d->typed);
	if (index >= units * buses || bus >= buses || unit >= units)
		return error_set(
			err, EINVAL, "%s %s: there is no such slot; %s", d->option, d->typed,
			d->interface == IF_IDE ? "IDE has index 0 to 3 (bus 0 and 1, unit 0 and 1)"
			: d->interface == IF_VIRTIO ? "virtio disks have index 0 to 31"
						    : "there are floppy drives 0 and 1");
	d->index = has_index ? (int)index : has_unit || has_bus ? (int)(bus * units + unit) : -1;
	return 0;
}

int options_add_drive(struct options *o, const char *option, const char *typed, const char *spec,
		      struct error *err)
{
	static const char *const interfaces[] = {"ide", "floppy", "none", "virtio", NULL};
	static const char *const media[] = {"disk", "cdrom", NULL};
	struct drive_option d = {.index = -1, .option = option, .typed = typed};
	int r = opts_parse(&d.opts, spec, "file", err);
	if (r < 0)
		return r;
	int interface = IF_IDE, medium = 0;
	const char *kind = opts_get(&d.opts, "if"), *why = kind ? absent_interface(kind) : NULL;
	if (why)
		return error_set(err, ENOTSUP, "%s %s: %s", option, typed, why);
	if ((r = opts_get_enum(&d.opts, "if", interfaces, &interface, err)) < 0 ||
	    (r = opts_get_enum(&d.opts, "media", media, &medium, err)) < 0) {
		error_prefix(err, "%s %s", option, typed);
		return r;
	}
	d.interface = interface;
	d.cdrom = medium == 1;
	if (interface != IF_NONE && (r = parse_slot(&d, err)) < 0)
		return r;
	d.id = opts_get(&d.opts, "id");
	if (interface == IF_NONE && !d.id)
		return error_set(err, EINVAL, "%s %s: if=none needs id= for -device to name it",
				 option, typed);
	for (size_t n = 0; d.id && n < o->drive_count; n++)
		if (o->drives[n].id && !strcmp(o->drives[n].id, d.id))
			return error_set(err, EEXIST, "%s %s: there is a drive with id=%s already",
					 option, typed, d.id);
	o->drives = xrealloc(o->drives, (o->drive_count + 1) * sizeof(*o->drives));
	o->drives[o->drive_count++] = d;
	return 0;
}

void options_print_help(void)
{
	printf("minivm " MINIVM_VERSION ": a small, fast x86 PC\n\n"
	       "usage: minivm [options] [disk image]\n");
	for (const struct option_row *row = option_table; row->name; row++) {
		char left[80];
		if (row->section)
			printf("\n%s\n", row->section);
		snprintf(left, sizeof(left), "-%s%s%s%s%s", row->name, row->alias ? ", -" : "",
			 row->alias ? row->alias : "", row->arg ? " " : "",
			 row->arg ? row->arg : "");
		printf("  %-28s", left);
		if (strlen(left) > 27)
			printf("\n%30s", "");
		for (const char *p = row->help; *p; p++) {
			putchar(*p);
			if (*p == '\n')
				printf("%30s", "");
		}
		putchar('\n');
	}
	printf("\nDuring emulation: Ctrl-Alt-G grabs the mouse, Ctrl-Alt-F toggles full screen;\n"
	       "with -nographic Ctrl-A x quits, Ctrl-A c goes to the monitor, Ctrl-A h helps.\n");
}

void options_print_version(void)
{
	printf("minivm version " MINIVM_VERSION "\n");
	printf("engines: kvm, soft\n");
	printf("built with: zlib " ZLIB_VERSION);
#ifdef HAVE_ZSTD
	printf(", zstd " ZSTD_VERSION_STRING);
#endif
#ifdef HAVE_LIBURING
	printf(", liburing");
#endif
#ifdef HAVE_GNUTLS
	printf(", GnuTLS " GNUTLS_VERSION);
#endif
#ifdef HAVE_JSONC
	printf(", json-c " JSON_C_VERSION);
#endif
#ifdef HAVE_PNG
	printf(", libpng " PNG_LIBPNG_VER_STRING);
#endif
#ifdef HAVE_SDL2
	printf(", SDL %d.%d.%d", SDL_MAJOR_VERSION, SDL_MINOR_VERSION, SDL_PATCHLEVEL);
#endif
#ifdef HAVE_CAPSTONE
	printf(", capstone");
#endif
	struct strbuf with = STRBUF_INIT, without = STRBUF_INIT;
	netdev_built_with(&with, &without);
	printf("%s", strbuf_str(&with));
	printf("\nbuilt without:");
	const char *separator = " ";
#ifndef HAVE_ZSTD
	printf("%szstd (zstd-compressed qcow2 images)", separator), separator = ", ";
#endif
#ifndef HAVE_LIBURING
	printf("%sliburing (io_uring for disks)", separator), separator = ", ";
#endif
#ifndef HAVE_GNUTLS
	printf("%sGnuTLS (TLS)", separator), separator = ", ";
#endif
#ifndef HAVE_CAPSTONE
	printf("%scapstone (-d out_asm as assembly)", separator), separator = ", ";
#endif
#ifndef HAVE_PNG
	printf("%slibpng (PNG screenshots)", separator), separator = ", ";
#endif
#ifndef HAVE_SDL2
	printf("%sSDL2 (window)", separator), separator = ", ";
#endif
	if (without.len)
		printf("%s%s", separator, strbuf_str(&without) + 2), separator = ", ";
	strbuf_free(&with);
	strbuf_free(&without);
	printf("%s\n", *separator == ' ' ? " nothing" : "");
}
