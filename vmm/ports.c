/* SPDX-License-Identifier: MIT */
/*
 * Where the ports are (IBM PC/AT Technical Reference, "I/O Address Map"; COM3 and COM4 as SeaBIOS
 * and Linux look for them) and what they are connected to.
 */
#include "vmm/ports.h"
#include "core/chardev.h"
#include "devices/debug_exit.h"
#include "devices/debugcon.h"
#include "devices/parallel.h"
#include "devices/serial16550.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include "vmm/absent.h"
#include "vmm/backends.h"
#include "vmm/drives.h"
#include "vmm/machine.h"
#include "vmm/nics.h"
#include "vmm/pci_devices.h"
#include "vmm/properties.h"
#include "vmm/virtio_cards.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { ISA_DEBUGCON_PORT = 0xE9 }; /* where Bochs has it */

struct port_place {
	uint16_t base;
	uint8_t irq;
};
static const struct port_place serial_places[4] = {{0x3F8, 4}, {0x2F8, 3}, {0x3E8, 4}, {0x2E8, 3}};
static const struct port_place parallel_places[3] = {{0x378, 7}, {0x278, 5}, {0x3BC, 7}};

/* A backend for port number n of a list of -serial or -parallel arguments; *chr is NULL for a port
 * that is not there. */
static int open_port(struct machine *m, const struct arg_list *list, size_t n, const char *kind,
		     const char *fallback, struct chardev **chr, struct error *err)
{
	const char *spec = n < list->count ? list->item[n] : n == 0 ? fallback : "none";
	char id[48];
	*chr = NULL;
	if (!strcmp(spec, "none"))
		return 0;
	snprintf(id, sizeof(id), "%s%zu", kind, n);
	*chr = backend_take(m, id, spec, err);
	if (*chr)
		return 0;
	error_prefix(err, "-%s %s", kind, spec);
	return -err->code;
}

static const char *default_serial(const struct options *o)
{
	if (o->nographic)
		return o->monitor.count || o->mon.count ? "stdio" : "mon:stdio";
	return o->no_default_drives ? "none" : "null";
}

static int build_serial_and_parallel(struct machine *m, struct error *err)
{
	const struct options *o = m->options;
	struct chardev *chr;
	int r;
	if (o->serial.count > ARRAY_SIZE(serial_places))
		return error_set(err, EINVAL, "-serial: a PC has at most four serial ports");
	if (o->parallel.count > ARRAY_SIZE(parallel_places))
		return error_set(err, EINVAL, "-parallel: a PC has at most three parallel ports");
	for (size_t n = 0; n < ARRAY_SIZE(serial_places); n++) {
		if ((r = open_port(m, &o->serial, n, "serial", default_serial(o), &chr, err)) < 0)
			return r;
		if (chr)
			m->dev.serial[n] =
				serial16550_new(&m->env, (int)n, serial_places[n].base,
						machine_isa_line(m, serial_places[n].irq), chr);
	}
	for (size_t n = 0; n < ARRAY_SIZE(parallel_places); n++) {
		const char *fallback = o->no_default_drives ? "none" : "null";
		if ((r = open_port(m, &o->parallel, n, "parallel", fallback, &chr, err)) < 0)
			return r;
		if (chr)
			m->dev.parallel[n] =
				parallel_new(&m->env, (int)n, parallel_places[n].base,
					     machine_isa_line(m, parallel_places[n].irq), chr);
	}
	return 0;
}

static int add_debugcon(struct machine *m, uint16_t port, struct chardev *chr, struct error *err)
{
	for (size_t n = 0; n < ARRAY_SIZE(m->dev.debugcon); n++) {
		if (m->debugcon_port[n] == port)
			return error_set(err, EBUSY,
					 "there is a debug console at port 0x%x already", port);
		if (!m->dev.debugcon[n]) {
			m->dev.debugcon[n] = debugcon_new(&m->env, port, chr);
			m->debugcon_port[n] = port;
			return 0;
		}
	}
	return error_set(err, EINVAL, "there can be debug consoles at no more than %zu ports",
			 ARRAY_SIZE(m->dev.debugcon));
}

/* The firmware's log (port 0x402) and what guests write to the port that Bochs made known. */
static int build_debugcon(struct machine *m, size_t n, const char *spec, struct error *err)
{
	char id[48];
	if (!strcmp(spec, "none"))
		return 0;
	snprintf(id, sizeof(id), "debugcon%zu", n);
	struct chardev *chr = backend_take(m, id, spec, err);
	if (!chr)
		return -err->code;
	int r = add_debugcon(m, DEBUGCON_PORT, chr, err);
	return r < 0 ? r : add_debugcon(m, ISA_DEBUGCON_PORT, chr, err);
}

static int build_isa_debugcon(struct machine *m, struct opts *opts, struct error *err)
{
	uint64_t iobase = ISA_DEBUGCON_PORT;
	const char *id = opts_get(opts, "chardev");
	int r = opts_get_u64(opts, "iobase", &iobase, err);
	if (r == 0 && (iobase < 1 || iobase > 0xFFFF))
		r = error_set(err, EINVAL, "iobase must be a port number");
	if (r == 0 && !id)
		r = error_set(err, EINVAL, "it needs chardev=ID");
	if (r < 0)
		return r;
	struct chardev *chr = backend_take_named(m, id, err);
	return chr ? add_debugcon(m, (uint16_t)iobase, chr, err) : -err->code;
}

static int build_debug_exit(struct machine *m, struct opts *opts, struct error *err)
{
	uint64_t iobase = DEBUG_EXIT_PORT, iosize = 2;
	int r;
	if ((r = opts_get_u64(opts, "iobase", &iobase, err)) < 0 ||
	    (r = opts_get_u64(opts, "iosize", &iosize, err)) < 0)
		return r;
	if (iobase < 1 || iosize < 1 || iosize > 8 || iobase > 0x10000 - iosize)
		return error_set(err, EINVAL, "iobase must be a port number, iosize 1 to 8");
	if (m->dev.debug_exit)
		return error_set(err, EINVAL, "there is one already");
	m->dev.debug_exit = debug_exit_new(&m->env, (uint16_t)iobase, (unsigned)iosize);
	return 0;
}

void ports_device_help(void)
{
	puts("ide-hd           IDE disk: "
	     "drive=ID,bus=ide.0|ide.1,unit=0|1,bootindex=N,serial=TEXT\n"
	     "ide-cd           IDE CD-ROM drive: drive=ID (optional),bus=,unit=,bootindex=\n"
	     "floppy           floppy drive: drive=ID (optional),unit=,bootindex=\n"
	     "isa-debugcon     debug console: iobase=0xe9,chardev=ID\n"
	     "isa-debug-exit   writing v ends minivm with status 2v+1: iobase=0x501,iosize=2");
	nics_device_help();
	pci_devices_help();
}

static int unknown_device(const char *driver, struct error *err)
{
	static const char *const drivers[] = {
		"ide-hd", "ide-cd", "floppy", "isa-debugcon", "isa-debug-exit", "ne2k_isa", NULL};
	const char *why = absent_device(driver);
	if (why)
		return error_set(err, ENOTSUP, "%s", why);
	const char *near = nearest_word(driver, drivers);
	if (!near)
		near = pci_device_type_near(driver);
	if (near)
		return error_set(err, EINVAL, "unknown device; did you mean '%s'?", near);
	return error_set(err, EINVAL, "unknown device; -device help lists them");
}

static const char *const isa_device_keys[] = {"iobase", "iosize", "chardev", "id", NULL};

int ports_print_properties(const char *driver, struct error *err)
{
	if (pci_device_print_properties(driver))
		return 0;
	if (nics_is_isa_card(driver))
		properties_print(driver, nics_isa_keys, NULL);
	else if (drives_is_front_end(driver))
		properties_print(driver, drives_front_end_keys, NULL);
	else if (virtio_is_serial_port(driver))
		properties_print(driver, virtio_serial_port_keys, NULL);
	else if (!strcmp(driver, "isa-debug-exit"))
		properties_print(driver, (const char *const[]){"iobase", "iosize", "id", NULL},
				 NULL);
	else if (!strcmp(driver, "isa-debugcon"))
		properties_print(driver, (const char *const[]){"iobase", "chardev", "id", NULL},
				 NULL);
	else
		return unknown_device(driver, err);
	return 0;
}

static int build_device(struct machine *m, const char *text, struct error *err)
{
	struct opts opts;
	int r = opts_parse(&opts, text, "driver", err);
	if (r < 0)
		return r;
	const char *driver = opts_get(&opts, "driver");
	opts_get(&opts, "id");
	if (!driver)
		r = error_set(err, EINVAL, "it needs the device's name; -device help lists them");
	else if (drives_is_front_end(driver) || pci_device_type_find(driver) ||
		 nics_is_isa_card(driver) || virtio_is_serial_port(driver))
		goto out; /* drives_create(), pci_devices_build() or nics_build() makes it */
	else if (!strcmp(driver, "isa-debug-exit"))
		r = build_debug_exit(m, &opts, err);
	else if (!strcmp(driver, "isa-debugcon"))
		r = build_isa_debugcon(m, &opts, err);
	else
		r = unknown_device(driver, err);
	if (r == 0)
		r = opts_check_unused(&opts, driver, isa_device_keys, err);
	if (r < 0)
		error_prefix(err, "-device %s", text);
out:
	opts_free(&opts);
	return r;
}

int ports_build(struct machine *m, struct error *err)
{
	const struct options *o = m->options;
	int r = build_serial_and_parallel(m, err);
	for (size_t n = 0; r == 0 && n < o->debugcon.count; n++) {
		r = build_debugcon(m, n, o->debugcon.item[n], err);
		if (r < 0)
			error_prefix(err, "-debugcon %s", o->debugcon.item[n]);
	}
	for (size_t n = 0; r == 0 && n < o->device.count; n++)
		r = build_device(m, o->device.item[n], err);
	return r;
}
