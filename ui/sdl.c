/* SPDX-License-Identifier: MIT */
/*
 * The SDL2 window: theory of operation.
 *
 * One thread does all that concerns SDL: it loads the library, opens the window, waits for events
 * and refreshes. It takes the machine lock only around the display's refresh with the copy of what
 * changed, and around each key or mouse report; drawing and waiting happen without it. The other
 * threads reach it through two flags and a wake-up event.
 *
 * Refresh rate: about 60 a second while the picture changes, 30 when it rests, none while the
 * window is hidden. A refresh that finds nothing changed draws nothing.
 */
#include "ui/sdl.h"
#include "lib/loop.h"
#include "lib/text.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#ifdef HAVE_SDL2
#include "ui/sdl_internal.h"

enum {
	BUSY_INTERVAL_MS = 16,
	IDLE_INTERVAL_MS = 33,
	IDLE_AFTER_MS = 500, /* since the last change */
	HIDDEN_INTERVAL_MS = 1000,
};

bool sdl_ui_possible(void)
{
	const char *x11 = getenv("DISPLAY"), *wayland = getenv("WAYLAND_DISPLAY");

	return (x11 && *x11) || (wayland && *wayland);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void call_quit(void *opaque)
{
	struct sdl_ui *ui = opaque;

	ui->config.quit(ui->config.opaque);
}

static void close_requested(struct sdl_ui *ui)
{
	if (!ui->config.ignore_close && ui->config.quit)
		loop_call_schedule(ui->loop, &ui->quit_call);
}

static void window_event(struct sdl_ui *ui, const SDL_WindowEvent *event)
{
	switch (event->event) {
	case SDL_WINDOWEVENT_CLOSE: close_requested(ui); break;
	case SDL_WINDOWEVENT_FOCUS_GAINED: sdl_input_focus(ui, true); break;
	case SDL_WINDOWEVENT_FOCUS_LOST: sdl_input_focus(ui, false); break;
	case SDL_WINDOWEVENT_HIDDEN:
	case SDL_WINDOWEVENT_MINIMIZED: ui->visible = false; break;
	case SDL_WINDOWEVENT_SHOWN:
	case SDL_WINDOWEVENT_RESTORED:
	case SDL_WINDOWEVENT_EXPOSED:
		ui->visible = true;
		ui->present = true;
		break;
	case SDL_WINDOWEVENT_RESIZED: /* by the user or the window manager */
		if (!ui->full_screen)
			ui->user_sized = sdl_view_percent(ui) != 100;
		sdl_view_resized(ui);
		break;
	case SDL_WINDOWEVENT_SIZE_CHANGED: sdl_view_resized(ui); break;
	}
}

static void handle_event(struct sdl_ui *ui, const SDL_Event *event)
{
	switch (event->type) {
	case SDL_WINDOWEVENT: window_event(ui, &event->window); break;
	case SDL_RENDER_TARGETS_RESET:
	case SDL_RENDER_DEVICE_RESET: sdl_view_lost(ui); break;
	case SDL_KEYDOWN:
	case SDL_KEYUP:
	case SDL_MOUSEMOTION:
	case SDL_MOUSEBUTTONDOWN:
	case SDL_MOUSEBUTTONUP:
	case SDL_MOUSEWHEEL: sdl_input_event(ui, event); break;
	default:
		if (event->type == ui->wake_event)
			sdl_view_title(ui);
		break;
	}
}

/* Waits for the first event until `deadline_ms`, then takes all there are. */
static void wait_events(struct sdl_ui *ui, uint64_t deadline_ms)
{
	SDL_Event event;
	uint64_t now = now_ms();
	int timeout = deadline_ms > now ? (int)(deadline_ms - now) : 0;

	if (!ui->sdl.SDL_WaitEventTimeout(&event, timeout))
		return;
	do {
		handle_event(ui, &event);
	} while (ui->sdl.SDL_PollEvent(&event));
	sdl_input_flush_motion(ui);
}

static void run(struct sdl_ui *ui)
{
	uint64_t next_ms = 0, changed_ms = 0;

	while (!__atomic_load_n(&ui->stop, __ATOMIC_ACQUIRE)) {
		uint64_t now = now_ms();
		if (now >= next_ms && ui->visible) {
			if (sdl_view_refresh(ui))
				changed_ms = now;
			next_ms = now + (now - changed_ms < IDLE_AFTER_MS ? BUSY_INTERVAL_MS
									  : IDLE_INTERVAL_MS);
		} else if (ui->present && ui->visible) {
			sdl_view_present(ui);
		}
		wait_events(ui, ui->visible ? next_ms : now + HIDDEN_INTERVAL_MS);
	}
}

static void *ui_thread(void *opaque)
{
	struct sdl_ui *ui = opaque;

	ui->open_result = sdl_lib_open(&ui->sdl, &ui->open_error);
	bool loaded = ui->open_result == 0;
	if (loaded)
		ui->open_result = sdl_view_open(ui, &ui->open_error);
	bool opened = ui->open_result == 0;
	sem_post(&ui->opened);
	if (opened)
		run(ui);
	if (loaded)
		sdl_view_close(ui);
	/* The library stays loaded: what it loaded itself does not all survive dlclose(). */
	return NULL;
}

/* Starts the thread with all signals blocked: they are for the thread that runs the loop. */
static int start_thread(struct sdl_ui *ui)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int code = pthread_create(&ui->thread, NULL, ui_thread, ui);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return code;
}

static void ui_destroy(struct sdl_ui *ui)
{
	sem_destroy(&ui->opened);
	free(ui->name);
	free(ui);
}

struct sdl_ui *sdl_ui_new(struct loop *loop, struct display *display, struct input *input,
			  const struct sdl_config *config, struct error *err)
{
	struct sdl_ui *ui = xcalloc(1, sizeof(*ui));

	ui->loop = loop;
	ui->display = display;
	ui->input = input;
	ui->config = *config;
	ui->name = config->name ? xstrdup(config->name) : NULL;
	sem_init(&ui->opened, 0, 0);
	loop_call_init(&ui->quit_call, call_quit, ui);
	int code = start_thread(ui);
	if (code) {
		error_errno(err, code, "cannot start the window's thread");
		ui_destroy(ui);
		return NULL;
	}
	while (sem_wait(&ui->opened) < 0 && errno == EINTR)
		continue;
	if (ui->open_result < 0) {
		error_set(err, ui->open_error.code, "%s", ui->open_error.text);
		pthread_join(ui->thread, NULL);
		ui_destroy(ui);
		return NULL;
	}
	return ui;
}

static void wake(struct sdl_ui *ui)
{
	SDL_Event event = {.type = ui->wake_event};

	ui->sdl.SDL_PushEvent(&event);
}

void sdl_ui_free(struct sdl_ui *ui)
{
	if (!ui)
		return;
	__atomic_store_n(&ui->stop, true, __ATOMIC_RELEASE);
	wake(ui);
	pthread_join(ui->thread, NULL);
	loop_lock(ui->loop);
	loop_call_cancel(ui->loop, &ui->quit_call);
	loop_unlock(ui->loop);
	ui_destroy(ui);
}

void sdl_ui_set_stopped(struct sdl_ui *ui, bool stopped)
{
	__atomic_store_n(&ui->stopped, stopped, __ATOMIC_RELAXED);
	wake(ui);
}

#else /* !HAVE_SDL2 */

bool sdl_ui_possible(void)
{
	return false;
}

struct sdl_ui *sdl_ui_new(struct loop *loop, struct display *display, struct input *input,
			  const struct sdl_config *config, struct error *err)
{
	error_set(err, ENOTSUP,
		  "no window: built without SDL2; use -display none, or rebuild with libsdl2-dev");
	return NULL;
}

void sdl_ui_free(struct sdl_ui *ui)
{
}

void sdl_ui_set_stopped(struct sdl_ui *ui, bool stopped)
{
}

#endif
