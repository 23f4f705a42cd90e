/* SPDX-License-Identifier: MIT */
/*
 * Keyboard and mouse of the window.
 *
 * Keys go to the guest by their place (sdl_keys.c) whenever the window has the keyboard focus; a
 * key the guest believes is down is released when the focus goes. The mouse is relative, so it goes
 * to the guest only while it is grabbed: a click into the window grabs it, the hot key lets it go.
 *
 * Hot keys, with Ctrl-Alt (or what grab-mod says): F full screen, G grab, U original size, + and -
 * scale.
 *
 * Caps Lock and Num Lock may change while another window has the focus. When it comes back and the
 * guest's LED disagrees with the host's state, the key is tapped once for the guest. A guest that
 * does not drive LEDs would be tapped again and again: one that left the LED as it was after a tap
 * is left alone from then on.
 */
#ifdef HAVE_SDL2
#include "lib/loop.h"
#include "ui/sdl_internal.h"

enum {
	LED_NUM = 2,
	LED_CAPS = 4,
	SCALE_STEP_PERCENT = 25,
	SCALE_MIN_PERCENT = 25,
	SCALE_MAX_PERCENT = 800,
	WHEEL_MAX = 7, /* a PS/2 packet's four bits */
};

static void send_key(struct sdl_ui *ui, uint8_t key, bool down)
{
	if (!down && !ui->pressed[key])
		return; /* its press was a hot key's, or came before the focus */
	ui->pressed[key] = down;
	loop_lock(ui->loop);
	input_key(ui->input, key, down);
	loop_unlock(ui->loop);
}

static void release_keys(struct sdl_ui *ui)
{
	for (unsigned key = 0; key < 256; key++)
		if (ui->pressed[key])
			send_key(ui, key, false);
}

static void send_mouse(struct sdl_ui *ui, int dx, int dy, int dz)
{
	loop_lock(ui->loop);
	input_mouse(ui->input, dx, dy, dz, ui->buttons);
	loop_unlock(ui->loop);
}

void sdl_input_flush_motion(struct sdl_ui *ui)
{
	if (ui->motion_x || ui->motion_y)
		send_mouse(ui, ui->motion_x, ui->motion_y, 0);
	ui->motion_x = ui->motion_y = 0;
}

void sdl_input_grab(struct sdl_ui *ui, bool on)
{
	if (ui->grabbed == on)
		return;
	ui->grabbed = on;
	ui->sdl.SDL_SetRelativeMouseMode(on ? SDL_TRUE : SDL_FALSE);
	ui->sdl.SDL_SetWindowGrab(ui->window, on ? SDL_TRUE : SDL_FALSE);
	if (!on && ui->buttons) {
		ui->buttons = 0;
		send_mouse(ui, 0, 0, 0);
	}
	sdl_view_title(ui);
}

static bool grab_mod_held(const struct sdl_ui *ui, Uint16 mod)
{
	switch (ui->config.grab_mod) {
	case SDL_GRAB_CTRL_ALT_SHIFT:
		return (mod & KMOD_LCTRL) && (mod & KMOD_LALT) && (mod & KMOD_LSHIFT);
	case SDL_GRAB_RIGHT_CTRL: return mod & KMOD_RCTRL;
	default: return (mod & KMOD_LCTRL) && (mod & KMOD_LALT);
	}
}

static void scale_by(struct sdl_ui *ui, int percent)
{
	int wanted = (int)sdl_view_percent(ui) + percent;

	if (!ui->full_screen && wanted >= SCALE_MIN_PERCENT && wanted <= SCALE_MAX_PERCENT)
		sdl_view_scale(ui, (unsigned)wanted);
}

static bool hot_key(struct sdl_ui *ui, const SDL_KeyboardEvent *key)
{
	if (!grab_mod_held(ui, key->keysym.mod))
		return false;
	switch (key->keysym.scancode) {
	case SDL_SCANCODE_F: sdl_view_set_full_screen(ui, !ui->full_screen); break;
	case SDL_SCANCODE_G: sdl_input_grab(ui, !ui->grabbed); break;
	case SDL_SCANCODE_U:
		if (!ui->full_screen)
			sdl_view_scale(ui, 100);
		break;
	case SDL_SCANCODE_EQUALS:
	case SDL_SCANCODE_KP_PLUS: scale_by(ui, SCALE_STEP_PERCENT); break;
	case SDL_SCANCODE_MINUS:
	case SDL_SCANCODE_KP_MINUS: scale_by(ui, -SCALE_STEP_PERCENT); break;
	default: return false;
	}
	/* The guest has seen the modifiers go down; it is not to see them held for ever. */
	release_keys(ui);
	return true;
}

static void key_event(struct sdl_ui *ui, const SDL_KeyboardEvent *event)
{
	uint8_t key = sdl_key(event->keysym.scancode);

	if (event->type == SDL_KEYDOWN && !event->repeat && hot_key(ui, event))
		return;
	if (event->repeat && !ui->pressed[key])
		return; /* a hot key held down */
	if (key)
		send_key(ui, key, event->type == SDL_KEYDOWN);
}

static void button_event(struct sdl_ui *ui, const SDL_MouseButtonEvent *event)
{
	static const uint8_t masks[] = {
		[SDL_BUTTON_LEFT] = MOUSE_LEFT,
		[SDL_BUTTON_MIDDLE] = MOUSE_MIDDLE,
		[SDL_BUTTON_RIGHT] = MOUSE_RIGHT,
	};
	unsigned mask = event->button < sizeof(masks) ? masks[event->button] : 0;

	if (!ui->grabbed) {
		if (event->type == SDL_MOUSEBUTTONDOWN && mask == MOUSE_LEFT)
			sdl_input_grab(ui, true);
		return;
	}
	unsigned buttons =
		event->type == SDL_MOUSEBUTTONDOWN ? ui->buttons | mask : ui->buttons & ~mask;
	if (buttons == ui->buttons)
		return;
	ui->buttons = buttons;
	send_mouse(ui, 0, 0, 0);
}

static void wheel_event(struct sdl_ui *ui, const SDL_MouseWheelEvent *event)
{
	/* SDL counts up away from the user, PS/2 towards the user. */
	int dz = event->direction == SDL_MOUSEWHEEL_FLIPPED ? event->y : -event->y;

	dz = dz > WHEEL_MAX ? WHEEL_MAX : dz < -WHEEL_MAX ? -WHEEL_MAX : dz;
	if (ui->grabbed && dz)
		send_mouse(ui, 0, 0, dz);
}

void sdl_input_event(struct sdl_ui *ui, const SDL_Event *event)
{
	if (event->type == SDL_MOUSEMOTION) {
		if (ui->grabbed) {
			ui->motion_x += event->motion.xrel;
			ui->motion_y += event->motion.yrel;
		}
		return;
	}
	sdl_input_flush_motion(ui);
	switch (event->type) {
	case SDL_KEYDOWN:
	case SDL_KEYUP: key_event(ui, &event->key); break;
	case SDL_MOUSEBUTTONDOWN:
	case SDL_MOUSEBUTTONUP: button_event(ui, &event->button); break;
	case SDL_MOUSEWHEEL: wheel_event(ui, &event->wheel); break;
	}
}

static void resync_locks(struct sdl_ui *ui)
{
	static const struct {
		unsigned led;
		SDL_Keymod mod;
		SDL_Scancode scancode;
	} locks[2] = {
		{LED_CAPS, KMOD_CAPS, SDL_SCANCODE_CAPSLOCK},
		{LED_NUM, KMOD_NUM, SDL_SCANCODE_NUMLOCKCLEAR},
	};
	SDL_Keymod mod = ui->sdl.SDL_GetModState();

	loop_lock(ui->loop);
	unsigned leds = ui->input->leds;
	loop_unlock(ui->loop);
	for (unsigned i = 0; i < 2; i++) {
		if (ui->lock_tapped[i]) {
			bool moved = (leds ^ ui->leds_before_tap) & locks[i].led;
			if (ui->lock_led[i] == LOCK_UNKNOWN)
				ui->lock_led[i] = moved ? LOCK_ANSWERS : LOCK_SILENT;
			ui->lock_tapped[i] = false;
		}
		bool host_on = mod & locks[i].mod, guest_on = leds & locks[i].led;
		if (host_on == guest_on || ui->lock_led[i] == LOCK_SILENT)
			continue;
		send_key(ui, sdl_key(locks[i].scancode), true);
		send_key(ui, sdl_key(locks[i].scancode), false);
		ui->lock_tapped[i] = true;
	}
	ui->leds_before_tap = leds;
}

void sdl_input_focus(struct sdl_ui *ui, bool gained)
{
	if (gained) {
		resync_locks(ui);
		return;
	}
	release_keys(ui);
	sdl_input_flush_motion(ui);
	if (!ui->full_screen)
		sdl_input_grab(ui, false);
}
#else
typedef int sdl_input_not_built_in; /* ISO C wants a declaration */
#endif
