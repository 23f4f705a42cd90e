/* SPDX-License-Identifier: MIT */
/*
 * A chardev serves one front end, except for a mux (mux=on, or "mon:"), which serves its first one
 * itself and the others through ports.
 */
#include "vmm/backends.h"
#include "core/chardev.h"
#include "lib/optstr.h"
#include "lib/text.h"
#include "vmm/machine.h"
#include "vmm/monitor.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void quit_from_mux(void *opaque)
{
	machine_request_quit(opaque, 0, CAUSE_HOST_QUIT);
}

static struct named_chardev *find(struct machine *m, const char *id)
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

/* Opens a spec under a name that must be free; `mux` puts a multiplexer above it. */
static struct named_chardev *open_named(struct machine *m, const char *id, const char *spec,
					bool mux, struct error *err)
{
	if (find(m, id)) {
		error_set(err, EEXIST, "there are two character devices with id=%s", id);
		return NULL;
	}
	struct chardev *chr = chardev_open(m->loop, id, spec, err);
	if (!chr)
		return NULL;
	struct named_chardev *entry = xcalloc(1, sizeof(*entry));
	entry->id = xstrdup(id);
	entry->chr = mux ? chardev_new_mux(m->loop, chr, quit_from_mux, m) : chr;
	entry->mux = mux;
	list_push_back(&m->chardevs, &entry->link);
	return entry;
}

static struct chardev *take(struct named_chardev *entry, struct error *err)
{
	if (!entry->taken) {
		entry->taken = true;
		return entry->chr;
	}
	struct chardev *port = entry->mux ? chardev_mux_port(entry->chr) : NULL;
	if (!port)
		error_set(err, EBUSY, "character device '%s' is in use already%s", entry->id,
			  entry->mux ? " by as many as it can serve"
				     : "; mux=on lets it be shared");
	return port;
}

struct chardev *backend_take_named(struct machine *m, const char *id, struct error *err)
{
	struct named_chardev *entry = find(m, id);
	if (entry)
		return take(entry, err);
	error_set(err, ENOENT, "there is no -chardev with id=%s", id);
	return NULL;
}

struct chardev *backend_take(struct machine *m, const char *id, const char *spec, struct error *err)
{
	if (!strncmp(spec, "chardev:", 8))
		return backend_take_named(m, spec + 8, err);
	bool with_monitor = !strncmp(spec, "mon:", 4);
	struct named_chardev *entry =
		open_named(m, id, spec + (with_monitor ? 4 : 0), with_monitor, err);
	if (!entry)
		return NULL;
	struct chardev *chr = take(entry, err), *port = with_monitor ? take(entry, err) : NULL;
	if (port)
		monitor_new(m, port);
	return chr;
}

static int open_option(struct machine *m, const char *text, struct error *err)
{
	struct opts opts;
	int r = opts_parse(&opts, text, "backend", err);
	if (r < 0)
		return r;
	const char *id = opts_get(&opts, "id");
	bool mux = false;
	if (!id || !opts_get(&opts, "backend"))
		r = error_set(err, EINVAL, "it needs a backend and id=, as in stdio,id=con");
	else
		r = opts_get_bool(&opts, "mux", &mux, err);
	if (r == 0 && !open_named(m, id, text, mux, err))
		r = -err->code;
	opts_free(&opts);
	return r;
}

int backends_open(struct machine *m, struct error *err)
{
	/* -nographic: Ctrl-C is the guest's. */
	chardev_stdio_default_signals(!m->options->nographic);
	for (size_t n = 0; n < m->options->chardev.count; n++) {
		const char *text = m->options->chardev.item[n];
		int r = open_option(m, text, err);
		if (r < 0) {
			error_prefix(err, "-chardev %s", text);
			return r;
		}
	}
	return 0;
}

void backends_free(struct machine *m)
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
