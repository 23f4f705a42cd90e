/* SPDX-License-Identifier: MIT */
#include "vmm/chardevs.h"
#include "core/chardev.h"
#include "devices/debug_exit.h"
#include "devices/debugcon.h"
#include "devices/parallel.h"
#include "devices/serial16550.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include "vmm/drives.h"
#include "vmm/machine.h"
#include "vmm/monitor.h"
#include "vmm/qmp.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEBUG_CONSOLE_PORT = 0xE9 };

static void quit_from_mux(void *opaque)
{
	machine_request_quit(opaque, 0, CAUSE_HOST_QUIT);
}

static struct named_chardev *remember(struct machine *m, const char *id, struct chardev *chr,
				      bool mux)
{
	struct named_chardev *entry = xcalloc(1, sizeof(*entry));
	entry->id = xstrdup(id);
	entry->chr = chr;
	entry->mux = mux;
	list_push_back(&m->chardevs, &entry->link);
	return entry;
}

static struct named_chardev *find_chardev(struct machine *m, const char *id)
{
	struct list *it;
	list_for_each(it, &m->chardevs)
	{
		struct named_chardev *entry = list_entry(it, struct named_chardev, link);
		if (!strcmp(entry->id, id))
			return entry;
	}
	return NULL;
}

static bool is_none(const char *spec)
{
	return !strcmp(spec, "none") || !strcmp(spec, "null") || !strncmp(spec, "vc", 2);
}

/* Puts a mux above a backend. */
static struct chardev *add_mux(struct machine *m, struct chardev *below)
{
	return chardev_new_mux(m->loop, below, quit_from_mux, m);
}

/* A mux serves one front end itself and the others through ports. */
static struct chardev *mux_front(struct named_chardev *entry)
{
	if (entry->mux_taken)
		return chardev_mux_port(entry->chr);
	entry->mux_taken = true;
	return entry->chr;
}

/*
 * A backend from a spec as -serial takes it, known as `id` from then on. "mon:" puts a mux with a
 * monitor above it.
 */
static struct chardev *open_spec(struct machine *m, const char *id, const char *spec,
				 struct error *err)
{
	if (!strncmp(spec, "chardev:", 8)) {
		struct named_chardev *entry = find_chardev(m, spec + 8);
		if (!entry) {
			error_set(err, ENOENT, "there is no -chardev with id=%s", spec + 8);
			return NULL;
		}
		return entry->mux ? mux_front(entry) : entry->chr;
	}
	bool with_monitor = !strncmp(spec, "mon:", 4);
	struct chardev *chr = chardev_open(m->loop, id, spec + (with_monitor ? 4 : 0), err);
	if (!chr)
		return NULL;
	if (!with_monitor) {
		remember(m, id, chr, false);
		return chr;
	}
	struct chardev *mux = add_mux(m, chr);
	remember(m, id, mux, true)->mux_taken = true;
	monitor_new(m, chardev_mux_port(mux));
	return mux;
}

/* ---- -chardev ---- */

static int add_server_options(struct opts *opts, char **spec, struct error *err)
{
	bool server = false, wait = true;
	uint64_t reconnect = 0;
	int r;
	if ((r = opts_get_bool(opts, "server", &server, err)) < 0 ||
	    (r = opts_get_bool(opts, "wait", &wait, err)) < 0 ||
	    (r = opts_get_u64(opts, "reconnect", &reconnect, err)) < 0)
		return r;
	char *full = xasprintf("%s%s%s", *spec, server ? ",server=on" : "",
			       server ? wait ? ",wait=on" : ",wait=off" : "");
	free(*spec);
	*spec = full;
	if (reconnect) {
		full = xasprintf("%s,reconnect=%llu", *spec, (unsigned long long)reconnect);
		free(*spec);
		*spec = full;
	}
	return 0;
}

/* "socket,path=P,server=on" -> "unix:P,server=on", the form that chardev_open() takes. */
static char *spec_from_chardev(struct opts *opts, const char *backend, struct error *err)
{
	const char *path = opts_get(opts, "path");
	if (!strcmp(backend, "stdio") || !strcmp(backend, "null") || !strcmp(backend, "pty") ||
	    !strcmp(backend, "vc"))
		return xstrdup(backend);
	if (!strcmp(backend, "file") || !strcmp(backend, "pipe")) {
		if (path)
			return xasprintf("%s:%s", backend, path);
		error_set(err, EINVAL, "-chardev %s needs path=", backend);
		return NULL;
	}
	if (!strcmp(backend, "socket")) {
		const char *host = opts_get(opts, "host"), *port = opts_get(opts, "port");
		if (!path && !port) {
			error_set(err, EINVAL, "-chardev socket needs path=, or host= and port=");
			return NULL;
		}
		char *spec = path ? xasprintf("unix:%s", path)
				  : xasprintf("tcp:%s:%s", host ? host : "", port);
		if (add_server_options(opts, &spec, err) < 0) {
			free(spec);
			return NULL;
		}
		return spec;
	}
	static const char *const backends[] = {"stdio", "null", "pty",    "vc",
					       "file",  "pipe", "socket", NULL};
	const char *near = nearest_word(backend, backends);
	error_set(err, EINVAL, "-chardev %s: unknown backend; %s%s", backend,
		  near ? "did you mean " : "",
		  near ? near : "there are stdio, file, pipe, pty, socket and null");
	return NULL;
}

static int open_chardev_option(struct machine *m, const char *text, struct error *err)
{
	struct opts opts;
	int r = opts_parse(&opts, text, "backend", err);
	if (r < 0)
		return r;
	const char *id = opts_get(&opts, "id"), *backend = opts_get(&opts, "backend");
	bool mux = false;
	char *spec = NULL;
	struct chardev *chr = NULL;
	if (!id || !backend)
		r = error_set(err, EINVAL, "-chardev %s: it needs a backend and id=", text);
	else if (find_chardev(m, id))
		r = error_set(err, EEXIST, "-chardev %s: the id is taken", text);
	else if ((r = opts_get_bool(&opts, "mux", &mux, err)) == 0 &&
		 (spec = spec_from_chardev(&opts, backend, err)) == NULL)
		r = -err->code;
	if (r == 0)
		r = opts_check_unused(&opts, "-chardev",
				      (const char *const[]){"id", "path", "host", "port", "server",
							    "wait", "mux", "reconnect", NULL},
				      err);
	if (r == 0 && !(chr = chardev_open(m->loop, id, spec, err)))
		r = -err->code;
	if (r == 0)
		remember(m, id, mux ? add_mux(m, chr) : chr, mux);
	free(spec);
	opts_free(&opts);
	return r;
}

int chardevs_open_all(struct machine *m, struct error *err)
{
	for (size_t n = 0; n < m->options->chardev.count; n++) {
		int r = open_chardev_option(m, m->options->chardev.item[n], err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- Ports ---- */

struct port_place {
	uint16_t base;
	uint8_t irq;
};
static const struct port_place serial_places[4] = {{0x3F8, 4}, {0x2F8, 3}, {0x3E8, 4}, {0x2E8, 3}};
static const struct port_place parallel_places[3] = {{0x378, 7}, {0x278, 5}, {0x3BC, 7}};

/* A backend for port number n of a list of -serial or -parallel arguments. */
static int open_port(struct machine *m, const struct arg_list *list, size_t n, const char *kind,
		     const char *fallback, bool *present, struct chardev **chr, struct error *err)
{
	const char *spec = n < list->count ? list->item[n] : n == 0 ? fallback : "none";
	char id[48];
	*chr = NULL;
	*present = strcmp(spec, "none") != 0;
	if (is_none(spec))
		return 0;
	snprintf(id, sizeof(id), "%s%zu", kind, n);
	*chr = open_spec(m, id, spec, err);
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
	bool present;
	struct chardev *chr;
	int r;
	if (o->serial.count > ARRAY_SIZE(serial_places))
		return error_set(err, EINVAL, "-serial: a PC has at most four serial ports");
	if (o->parallel.count > ARRAY_SIZE(parallel_places))
		return error_set(err, EINVAL, "-parallel: a PC has at most three parallel ports");
	for (size_t n = 0; n < ARRAY_SIZE(serial_places); n++) {
		if ((r = open_port(m, &o->serial, n, "serial", default_serial(o), &present, &chr,
				   err)) < 0)
			return r;
		if (present)
			m->dev.serial[n] = serial16550_new(&m->env, (int)n, serial_places[n].base,
							   m->isa[serial_places[n].irq], chr);
	}
	for (size_t n = 0; n < ARRAY_SIZE(parallel_places); n++) {
		const char *fallback = o->no_default_drives ? "none" : "null";
		if ((r = open_port(m, &o->parallel, n, "parallel", fallback, &present, &chr, err)) <
		    0)
			return r;
		if (present)
			m->dev.parallel[n] = parallel_new(&m->env, (int)n, parallel_places[n].base,
							  m->isa[parallel_places[n].irq], chr);
	}
	return 0;
}

static int add_debugcon(struct machine *m, uint16_t port, struct chardev *chr, struct error *err)
{
	for (size_t n = 0; n < ARRAY_SIZE(m->dev.debugcon); n++) {
		if (!m->dev.debugcon[n]) {
			m->dev.debugcon[n] = debugcon_new(&m->env, port, chr);
			return 0;
		}
	}
	return error_set(err, EINVAL, "there can be at most %zu debug consoles",
			 ARRAY_SIZE(m->dev.debugcon));
}

static int build_isa_debugcon(struct machine *m, struct opts *opts, const char *text,
			      struct error *err)
{
	uint64_t iobase = DEBUG_CONSOLE_PORT;
	const char *id = opts_get(opts, "chardev");
	int r = opts_get_u64(opts, "iobase", &iobase, err);
	if (r == 0 && (iobase < 1 || iobase > 0xFFFF))
		r = error_set(err, EINVAL, "-device %s: iobase must be a port number", text);
	if (r == 0 && !id)
		r = error_set(err, EINVAL, "-device %s: it needs chardev=ID", text);
	if (r < 0)
		return r;
	char *spec = xasprintf("chardev:%s", id);
	struct chardev *chr = open_spec(m, id, spec, err);
	free(spec);
	return chr ? add_debugcon(m, (uint16_t)iobase, chr, err) : -err->code;
}

static int build_debug_exit(struct machine *m, struct opts *opts, const char *text,
			    struct error *err)
{
	uint64_t iobase = DEBUG_EXIT_PORT, iosize = 2;
	int r;
	if ((r = opts_get_u64(opts, "iobase", &iobase, err)) < 0 ||
	    (r = opts_get_u64(opts, "iosize", &iosize, err)) < 0)
		return r;
	if (iobase < 1 || iosize < 1 || iosize > 8 || iobase + iosize > 0x10000)
		return error_set(err, EINVAL,
				 "-device %s: iobase must be a port number, iosize 1 to 8", text);
	if (m->dev.debug_exit)
		return error_set(err, EINVAL, "-device %s: there is one already", text);
	m->dev.debug_exit = debug_exit_new(&m->env, (uint16_t)iobase, (unsigned)iosize);
	return 0;
}

void chardevs_device_help(void)
{
	puts("ide-hd           IDE disk: "
	     "drive=ID,bus=ide.0|ide.1,unit=0|1,bootindex=N,serial=TEXT\n"
	     "ide-cd           IDE CD-ROM drive: drive=ID (optional),bus=,unit=,bootindex=\n"
	     "floppy           floppy drive: drive=ID (optional),unit=,bootindex=\n"
	     "isa-debugcon     debug console: iobase=0xe9,chardev=ID\n"
	     "isa-debug-exit   writing v ends minivm with status 2v+1: iobase=0x501,iosize=2");
}

static int build_device(struct machine *m, const char *text, struct error *err)
{
	static const char *const drivers[] = {"ide-hd",       "ide-cd",         "floppy",
					      "isa-debugcon", "isa-debug-exit", NULL};
	struct opts opts;
	int r = opts_parse(&opts, text, "driver", err);
	if (r < 0)
		return r;
	const char *driver = opts_get(&opts, "driver");
	if (driver && drives_is_front_end(driver)) {
		opts_free(&opts);
		return 0;
	}
	opts_get(&opts, "id");
	if (driver && !strcmp(driver, "isa-debug-exit")) {
		r = build_debug_exit(m, &opts, text, err);
	} else if (driver && !strcmp(driver, "isa-debugcon")) {
		r = build_isa_debugcon(m, &opts, text, err);
	} else {
		const char *near = driver ? nearest_word(driver, drivers) : NULL;
		r = error_set(err, EINVAL, "-device %s: unknown device; %s%s%s", text,
			      near ? "did you mean '" : "-device help lists them", near ? near : "",
			      near ? "'?" : "");
	}
	if (r == 0)
		r = opts_check_unused(
			&opts, "-device",
			(const char *const[]){"iobase", "iosize", "chardev", "id", NULL}, err);
	opts_free(&opts);
	return r;
}

int chardevs_build_ports(struct machine *m, struct error *err)
{
	const struct options *o = m->options;
	int r = build_serial_and_parallel(m, err);
	for (size_t n = 0; r == 0 && n < o->debugcon.count; n++) {
		char id[48];
		snprintf(id, sizeof(id), "debugcon%zu", n);
		if (!strcmp(o->debugcon.item[n], "none"))
			continue;
		struct chardev *chr = open_spec(m, id, o->debugcon.item[n], err);
		if (!chr)
			error_prefix(err, "-debugcon %s", o->debugcon.item[n]);
		r = chr ? add_debugcon(m, DEBUGCON_PORT, chr, err) : -err->code;
	}
	for (size_t n = 0; r == 0 && n < o->device.count; n++)
		r = build_device(m, o->device.item[n], err);
	return r;
}

/* ---- Monitors ---- */

static int build_mon(struct machine *m, const char *text, struct error *err)
{
	static const char *const modes[] = {"readline", "control", NULL};
	struct opts opts;
	int mode = 0;
	int r = opts_parse(&opts, text, "chardev", err);
	if (r < 0)
		return r;
	const char *id = opts_get(&opts, "chardev");
	bool pretty = false;
	if (!id)
		r = error_set(err, EINVAL, "-mon %s: it needs chardev=ID", text);
	else if ((r = opts_get_enum(&opts, "mode", modes, &mode, err)) == 0 &&
		 (r = opts_get_bool(&opts, "pretty", &pretty, err)) == 0)
		r = opts_check_unused(&opts, "-mon",
				      (const char *const[]){"chardev", "mode", "pretty", NULL},
				      err);
	if (r == 0) {
		char *spec = xasprintf("chardev:%s", id);
		struct chardev *chr = open_spec(m, id, spec, err);
		free(spec);
		if (!chr)
			r = -err->code;
		else if (mode == 1)
			qmp_new(m, chr, pretty);
		else
			monitor_new(m, chr);
	}
	opts_free(&opts);
	return r;
}

int chardevs_build_monitors(struct machine *m, struct error *err)
{
	const struct options *o = m->options;
	for (size_t n = 0; n < o->monitor.count + o->qmp.count; n++) {
		bool qmp = n >= o->monitor.count;
		const char *spec = qmp ? o->qmp.item[n - o->monitor.count] : o->monitor.item[n];
		char id[48];
		if (is_none(spec))
			continue;
		snprintf(id, sizeof(id), "%s%zu", qmp ? "compat_qmp" : "compat_monitor", n);
		struct chardev *chr = open_spec(m, id, spec, err);
		if (!chr) {
			error_prefix(err, "-%s %s", qmp ? "qmp" : "monitor", spec);
			return -err->code;
		}
		if (qmp)
			qmp_new(m, chr, false);
		else
			monitor_new(m, chr);
	}
	for (size_t n = 0; n < o->mon.count; n++) {
		int r = build_mon(m, o->mon.item[n], err);
		if (r < 0)
			return r;
	}
	/* -nographic with a -serial of its own leaves the terminal to the monitor. */
	if (o->nographic && o->serial.count && !o->monitor.count && !o->mon.count) {
		for (size_t n = 0; n < o->serial.count; n++)
			if (strstr(o->serial.item[n], "stdio"))
				return 0;
		struct error ignored = ERROR_INIT;
		struct chardev *chr = open_spec(m, "compat_monitor0", "stdio", &ignored);
		if (chr)
			monitor_new(m, chr);
	}
	return 0;
}

void chardevs_free(struct machine *m)
{
	struct list *it, *next;
	list_for_each_safe(it, next, &m->chardevs)
	{
		struct named_chardev *entry = list_entry(it, struct named_chardev, link);
		list_remove(it);
		chardev_flush(entry->chr);
		chardev_free(entry->chr);
		free(entry->id);
		free(entry);
	}
}
