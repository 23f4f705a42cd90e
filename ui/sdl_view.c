/* SPDX-License-Identifier: MIT */
/*
 * The window's picture: a texture of the guest's size, scaled to the window with its aspect kept.
 *
 * Only the box that changed is uploaded, and only then is the window drawn. At whole-number scales
 * pixels stay sharp; in between they are filtered. The window takes the guest's size at each mode
 * change until the user gives it another, and never exceeds the desktop.
 */
#ifdef HAVE_SDL2
#include "core/display.h"
#include "lib/loop.h"
#include "ui/sdl_internal.h"
#include <errno.h>
#include <stdio.h>

enum { INITIAL_WIDTH = 720, INITIAL_HEIGHT = 400, REFRESH_TRIES = 2 };

static int sdl_failed(struct sdl_ui *ui, const char *what, struct error *err)
{
	return error_set(err, ENODEV, "cannot %s: %s; use -display none", what,
			 ui->sdl.SDL_GetError());
}

/* Cuts a size to the desktop, aspect kept. */
static void fit_desktop(struct sdl_ui *ui, int *width, int *height)
{
	SDL_Rect bounds;
	int screen = ui->sdl.SDL_GetWindowDisplayIndex(ui->window);

	if (screen < 0 || ui->sdl.SDL_GetDisplayUsableBounds(screen, &bounds) < 0 ||
	    bounds.w <= 0 || bounds.h <= 0)
		return;
	if (*width > bounds.w) {
		*height = (int)((int64_t)*height * bounds.w / *width);
		*width = bounds.w;
	}
	if (*height > bounds.h) {
		*width = (int)((int64_t)*width * bounds.h / *height);
		*height = bounds.h;
	}
	*width = *width < 1 ? 1 : *width;
	*height = *height < 1 ? 1 : *height;
}

static bool scale_is_whole(struct sdl_ui *ui)
{
	int w, h;

	ui->sdl.SDL_GetWindowSize(ui->window, &w, &h);
	return w >= (int)ui->width && h >= (int)ui->height &&
	       (w % ui->width == 0 || h % ui->height == 0);
}

/* Makes the texture for the picture's size and the window's scale. */
static bool make_texture(struct sdl_ui *ui)
{
	ui->texture_smooth = !scale_is_whole(ui);
	if (ui->texture)
		ui->sdl.SDL_DestroyTexture(ui->texture);
	ui->sdl.SDL_SetHint(SDL_HINT_RENDER_SCALE_QUALITY, ui->texture_smooth ? "1" : "0");
	ui->texture = ui->sdl.SDL_CreateTexture(ui->renderer, SDL_PIXELFORMAT_ARGB8888,
						SDL_TEXTUREACCESS_STREAMING, (int)ui->width,
						(int)ui->height);
	ui->upload_all = true;
	if (!ui->texture)
		return false; /* larger than the renderer can: the window stays black */
	/* The pixels' top byte is not alpha. */
	ui->sdl.SDL_SetTextureBlendMode(ui->texture, SDL_BLENDMODE_NONE);
	ui->sdl.SDL_RenderSetLogicalSize(ui->renderer, (int)ui->width, (int)ui->height);
	return true;
}

static void new_guest_size(struct sdl_ui *ui, unsigned width, unsigned height)
{
	ui->width = width;
	ui->height = height;
	if (!ui->user_sized && !ui->full_screen)
		sdl_view_scale(ui, 100);
	make_texture(ui);
}

int sdl_view_open(struct sdl_ui *ui, struct error *err)
{
	struct sdl_lib *sdl = &ui->sdl;

	/* Signals are the main thread's; a VM does not keep the screen awake; window manager keys
	 * go to the guest while the mouse is grabbed. */
	sdl->SDL_SetHint(SDL_HINT_NO_SIGNAL_HANDLERS, "1");
	sdl->SDL_SetHint(SDL_HINT_VIDEO_ALLOW_SCREENSAVER, "1");
	sdl->SDL_SetHint(SDL_HINT_VIDEO_X11_NET_WM_BYPASS_COMPOSITOR, "0");
	sdl->SDL_SetHint(SDL_HINT_GRAB_KEYBOARD, "1");
	if (sdl->SDL_InitSubSystem(SDL_INIT_VIDEO) < 0)
		return sdl_failed(ui, "open a window", err);
	ui->wake_event = sdl->SDL_RegisterEvents(1);
	ui->width = INITIAL_WIDTH;
	ui->height = INITIAL_HEIGHT;
	ui->window = sdl->SDL_CreateWindow("minivm", SDL_WINDOWPOS_UNDEFINED,
					   SDL_WINDOWPOS_UNDEFINED, (int)ui->width, (int)ui->height,
					   SDL_WINDOW_RESIZABLE | SDL_WINDOW_ALLOW_HIGHDPI);
	if (!ui->window)
		return sdl_failed(ui, "open a window", err);
	ui->renderer = sdl->SDL_CreateRenderer(ui->window, -1, 0);
	if (!ui->renderer || !make_texture(ui))
		return sdl_failed(ui, "draw in the window", err);
	/* Text input would start input methods that swallow keys. */
	sdl->SDL_StopTextInput();
	ui->visible = true;
	ui->present = true;
	sdl_view_title(ui);
	if (ui->config.full_screen)
		sdl_view_set_full_screen(ui, true);
	return 0;
}

void sdl_view_close(struct sdl_ui *ui)
{
	if (ui->texture)
		ui->sdl.SDL_DestroyTexture(ui->texture);
	if (ui->renderer)
		ui->sdl.SDL_DestroyRenderer(ui->renderer);
	if (ui->window)
		ui->sdl.SDL_DestroyWindow(ui->window);
	ui->sdl.SDL_Quit();
}

void sdl_view_title(struct sdl_ui *ui)
{
	static const char *const release[] = {
		[SDL_GRAB_CTRL_ALT] = "Ctrl+Alt+G",
		[SDL_GRAB_CTRL_ALT_SHIFT] = "Ctrl+Alt+Shift+G",
		[SDL_GRAB_RIGHT_CTRL] = "Right Ctrl+G",
	};
	char title[256];
	bool stopped = __atomic_load_n(&ui->stopped, __ATOMIC_RELAXED);

	snprintf(title, sizeof(title), "minivm%s%.100s%s%s%s%s%s", ui->name ? " (" : "",
		 ui->name ? ui->name : "", ui->name ? ")" : "", stopped ? " [Stopped]" : "",
		 ui->grabbed ? " - Press " : "", ui->grabbed ? release[ui->config.grab_mod] : "",
		 ui->grabbed ? " to release grab" : "");
	ui->sdl.SDL_SetWindowTitle(ui->window, title);
}

void sdl_view_present(struct sdl_ui *ui)
{
	ui->sdl.SDL_RenderClear(ui->renderer);
	if (ui->texture)
		ui->sdl.SDL_RenderCopy(ui->renderer, ui->texture, NULL, NULL);
	ui->sdl.SDL_RenderPresent(ui->renderer);
	ui->present = false;
}

/* Copies a part of the surface into the texture. Lock held. */
static void upload(struct sdl_ui *ui, const struct surface *s, struct rect box)
{
	SDL_Rect where = {(int)box.x, (int)box.y, (int)box.width, (int)box.height};

	if (ui->texture && box.width)
		ui->sdl.SDL_UpdateTexture(ui->texture, &where,
					  s->pixels + (size_t)box.y * s->width + box.x,
					  (int)(s->width * sizeof(uint32_t)));
}

bool sdl_view_refresh(struct sdl_ui *ui)
{
	struct display *d = ui->display;
	bool changed = false;

	/* A second try when the size changed: the texture is made without the lock. */
	for (unsigned i = 0; i < REFRESH_TRIES; i++) {
		struct rect dirty;

		loop_lock(ui->loop);
		d->ops->refresh(d->opaque, &d->surface, &dirty, false);
		struct surface s = d->surface;
		bool same_size = s.width == ui->width && s.height == ui->height;
		/* Somebody else took a dirty box in between: our copy misses it. */
		if (d->updates != ui->updates_seen + (dirty.width != 0))
			ui->upload_all = true;
		ui->updates_seen = d->updates;
		if (s.pixels && same_size) {
			if (ui->upload_all)
				dirty = (struct rect){0, 0, s.width, s.height};
			upload(ui, &s, dirty);
			ui->upload_all = false;
			changed = dirty.width != 0;
		}
		loop_unlock(ui->loop);
		if (!s.pixels || same_size)
			break;
		new_guest_size(ui, s.width, s.height);
	}
	if (changed || ui->present)
		sdl_view_present(ui);
	return changed;
}

void sdl_view_lost(struct sdl_ui *ui)
{
	make_texture(ui);
	ui->present = true;
}

void sdl_view_resized(struct sdl_ui *ui)
{
	if (ui->texture_smooth == scale_is_whole(ui))
		make_texture(ui);
	ui->present = true;
}

void sdl_view_set_full_screen(struct sdl_ui *ui, bool on)
{
	if (ui->sdl.SDL_SetWindowFullscreen(ui->window, on ? SDL_WINDOW_FULLSCREEN_DESKTOP : 0) < 0)
		return;
	ui->full_screen = on;
	if (on) {
		ui->grab_before_full_screen = ui->grabbed;
		sdl_input_grab(ui, true);
	} else {
		if (!ui->user_sized)
			sdl_view_scale(ui, 100);
		sdl_input_grab(ui, ui->grab_before_full_screen);
	}
	sdl_view_resized(ui);
}

void sdl_view_scale(struct sdl_ui *ui, unsigned percent)
{
	int w = (int)(ui->width * percent / 100), h = (int)(ui->height * percent / 100);

	fit_desktop(ui, &w, &h);
	ui->sdl.SDL_SetWindowSize(ui->window, w, h);
	ui->user_sized = percent != 100;
	sdl_view_resized(ui);
}

unsigned sdl_view_percent(struct sdl_ui *ui)
{
	int w, h;

	ui->sdl.SDL_GetWindowSize(ui->window, &w, &h);
	unsigned by_width = (unsigned)w * 100 / ui->width;
	unsigned by_height = (unsigned)h * 100 / ui->height;
	return by_width < by_height ? by_width : by_height;
}
#else
typedef int sdl_view_not_built_in; /* ISO C wants a declaration */
#endif
