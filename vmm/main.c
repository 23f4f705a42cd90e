/* SPDX-License-Identifier: MIT */
/* minivm: reads the command line, builds the machine, runs it. */
#include "core/chardev.h"
#include "lib/log.h"
#include "vmm/background.h"
#include "vmm/machine.h"
#include "vmm/objects.h"
#include "vmm/options.h"

static int run(struct options *o)
{
	struct error err = ERROR_INIT;
	struct background background = {.ready_fd = -1};
	int status = 1;

	/* The parent that waits for -daemonize can be interrupted; from here on the loop reads
	 * them.
	 */
	if (background_start(&background, o, &err) < 0)
		goto fail;
	machine_block_signals();
	chardev_stdio_catch_signals(); /* before the translator, which takes faults */
	struct machine *m = machine_new(o, &err);
	if (!m)
		goto fail;
	if (background_ready(&background, o, strbuf_str(&m->notes), &err) == 0)
		status = machine_run(m, &err);
	machine_free(m);
	background_end();
	if (status >= 0 && !err.code)
		return status;
fail:
	report("%s", err.text);
	return 1;
}

int main(int argc, char **argv)
{
	struct error err = ERROR_INIT;
	static struct options o; /* its strings live as long as the program */
	objects_init();
	int r = options_parse(&o, argc, argv, &err);

	if (r < 0) {
		report("%s", err.text);
		return 1;
	}
	return r == OPTIONS_DONE ? 0 : run(&o);
}
