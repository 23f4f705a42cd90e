/* SPDX-License-Identifier: MIT */
/*
 * -monitor, -qmp and -mon (consoles.h): each is a character device with a monitor or a QMP server
 * behind it. With -nographic the human monitor gets the terminal if no other option wants it.
 */
#include "vmm/consoles.h"
#include "core/chardev.h"
#include "lib/optstr.h"
#include "vmm/backends.h"
#include "vmm/machine.h"
#include "vmm/monitor.h"
#include "vmm/qmp.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* -mon chardev=ID,mode=readline|control,pretty=on|off */
static int build_mon(struct machine *m, const char *text, struct error *err)
{
	static const char *const modes[] = {"readline", "control", NULL};
	static const char *const known[] = {"chardev", "mode", "pretty", NULL};
	struct opts opts;
	struct chardev *chr = NULL;
	bool pretty = false;
	int mode = 0;
	int r = opts_parse(&opts, text, "chardev", err);
	if (r < 0)
		return r;
	const char *id = opts_get(&opts, "chardev");
	if (!id)
		r = error_set(err, EINVAL, "it needs chardev=ID");
	else if ((r = opts_get_enum(&opts, "mode", modes, &mode, err)) == 0 &&
		 (r = opts_get_bool(&opts, "pretty", &pretty, err)) == 0 &&
		 (r = opts_check_unused(&opts, "-mon", known, err)) == 0 &&
		 !(chr = backend_take_named(m, id, err)))
		r = -err->code;
	if (chr && mode == 1)
		qmp_new(m, chr, pretty);
	else if (chr)
		monitor_new(m, chr);
	opts_free(&opts);
	if (r < 0)
		error_prefix(err, "-mon %s", text);
	return r;
}

/* -monitor and -qmp, which are numbered together. */
static int build_console(struct machine *m, bool qmp, const char *spec, unsigned *number,
			 struct error *err)
{
	char id[48];
	if (!strcmp(spec, "none"))
		return 0;
	snprintf(id, sizeof(id), "compat_monitor%u", (*number)++);
	struct chardev *chr = backend_take(m, id, spec, err);
	if (!chr) {
		error_prefix(err, "-%s %s", qmp ? "qmp" : "monitor", spec);
		return -err->code;
	}
	if (qmp)
		qmp_new(m, chr, false);
	else
		monitor_new(m, chr);
	return 0;
}

/* -nographic with a -serial that does not need the terminal leaves it to the monitor. */
static bool terminal_is_free(const struct options *o)
{
	return o->nographic && o->serial.count && !o->monitor.count && !o->mon.count &&
	       !options_use_stdio(o);
}

int consoles_build(struct machine *m, struct error *err)
{
	const struct options *o = m->options;
	unsigned number = 0;
	int r = 0;
	for (size_t n = 0; r == 0 && n < o->monitor.count; n++)
		r = build_console(m, false, o->monitor.item[n], &number, err);
	for (size_t n = 0; r == 0 && n < o->qmp.count; n++)
		r = build_console(m, true, o->qmp.item[n], &number, err);
	for (size_t n = 0; r == 0 && n < o->mon.count; n++)
		r = build_mon(m, o->mon.item[n], err);
	if (r == 0 && terminal_is_free(o))
		r = build_console(m, false, "stdio", &number, err);
	return r;
}
