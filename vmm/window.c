/* SPDX-License-Identifier: MIT */
/*
 * The window (window.h): whether there is to be one, by -display and the host's screen, and what
 * its close button and the machine's stops mean for each other.
 */
#include "vmm/window.h"
#include "lib/log.h"
#include "ui/sdl.h"
#include "vmm/machine.h"
#include <errno.h>
#include <stdlib.h>

static void closed(void *opaque)
{
	machine_request_quit(opaque, 0, CAUSE_HOST_UI);
}

static void show_stopped(void *opaque, enum machine_event event, enum run_cause cause,
			 const char *drive_id, bool tray_open)
{
	struct machine *m = opaque;
	(void)cause;
	(void)drive_id;
	(void)tray_open;
	if (event == EVENT_STOP || event == EVENT_RESUME)
		sdl_ui_set_stopped(m->sdl, event == EVENT_STOP);
}

int window_open(struct machine *m, struct error *err)
{
	const struct options *o = m->options;
	if (o->nographic || o->display == DISPLAY_NONE || !m->display)
		return 0;
	if (o->display == DISPLAY_DEFAULT && !sdl_ui_possible()) {
		warn("no screen to open a window on; running without one (-nographic puts the "
		     "serial console here)");
		return 0;
	}
	/* SDL would find itself an invisible screen. */
	if (o->display == DISPLAY_SDL && !sdl_ui_possible() && !getenv("SDL_VIDEODRIVER"))
		return error_set(err, ENODEV,
				 "-display sdl: there is no screen, neither DISPLAY nor "
				 "WAYLAND_DISPLAY is set; use -nographic or -display none");
	const struct sdl_config config = {
		.name = o->name,
		.full_screen = o->full_screen,
		.grab_mod = o->grab_mod,
		.ignore_close = o->ignore_close,
		.quit = closed,
		.opaque = m,
	};
	m->sdl = sdl_ui_new(m->loop, m->display, &m->input, &config, err);
	if (!m->sdl)
		return -err->code;
	m->window_listener = (struct machine_listener){.event = show_stopped, .opaque = m};
	loop_lock(m->loop);
	machine_add_listener(m, &m->window_listener);
	loop_unlock(m->loop);
	return 0;
}

void window_close(struct machine *m)
{
	if (!m->sdl)
		return;
	loop_lock(m->loop);
	machine_remove_listener(&m->window_listener);
	loop_unlock(m->loop);
	sdl_ui_free(m->sdl);
	m->sdl = NULL;
}
