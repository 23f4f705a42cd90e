/* SPDX-License-Identifier: MIT */
/* What the files of the SDL window share. */
#ifndef UI_SDL_INTERNAL_H
#define UI_SDL_INTERNAL_H

#include "core/input.h"
#include "lib/error.h"
#include "lib/loop.h"
#include "ui/sdl.h"
#include <SDL.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>

/* libSDL2's functions that the window uses. */
#define SDL_LIB_FUNCTIONS(X)                                                                       \
	X(SDL_CreateRenderer)                                                                      \
	X(SDL_CreateTexture)                                                                       \
	X(SDL_CreateWindow)                                                                        \
	X(SDL_DestroyRenderer)                                                                     \
	X(SDL_DestroyTexture)                                                                      \
	X(SDL_DestroyWindow)                                                                       \
	X(SDL_GetDisplayUsableBounds)                                                              \
	X(SDL_GetError)                                                                            \
	X(SDL_GetModState)                                                                         \
	X(SDL_GetWindowDisplayIndex)                                                               \
	X(SDL_GetWindowSize)                                                                       \
	X(SDL_InitSubSystem)                                                                       \
	X(SDL_PollEvent)                                                                           \
	X(SDL_PushEvent)                                                                           \
	X(SDL_Quit)                                                                                \
	X(SDL_RegisterEvents)                                                                      \
	X(SDL_RenderClear)                                                                         \
	X(SDL_RenderCopy)                                                                          \
	X(SDL_RenderPresent)                                                                       \
	X(SDL_RenderSetLogicalSize)                                                                \
	X(SDL_SetHint)                                                                             \
	X(SDL_SetRelativeMouseMode)                                                                \
	X(SDL_SetTextureBlendMode)                                                                 \
	X(SDL_SetWindowFullscreen)                                                                 \
	X(SDL_SetWindowGrab)                                                                       \
	X(SDL_SetWindowSize)                                                                       \
	X(SDL_SetWindowTitle)                                                                      \
	X(SDL_StopTextInput)                                                                       \
	X(SDL_UpdateTexture)                                                                       \
	X(SDL_WaitEventTimeout)

struct sdl_lib {
	void *handle;
#define SDL_LIB_MEMBER(name) __typeof__(name) *name;
	SDL_LIB_FUNCTIONS(SDL_LIB_MEMBER)
#undef SDL_LIB_MEMBER
};

struct display;

/* One window. Everything but `stop` and `stopped` belongs to its thread. */
struct sdl_ui {
	struct sdl_lib sdl;
	struct loop *loop;
	struct display *display;
	struct input *input;
	struct sdl_config config;
	char *name;
	struct loop_call quit_call;

	pthread_t thread;
	Uint32 wake_event;
	bool stop, stopped; /* atomic: set by other threads, which then push wake_event */
	sem_t opened;       /* the thread has opened the window or failed */
	int open_result;
	struct error open_error;

	SDL_Window *window;
	SDL_Renderer *renderer;
	SDL_Texture *texture;
	unsigned width, height; /* of the texture */
	bool texture_smooth;    /* scaled by linear filtering */
	bool user_sized;        /* the user chose a size: a new guest mode keeps it */
	bool visible, full_screen;
	bool upload_all, present; /* work for the next turn */
	unsigned updates_seen;    /* display->updates after our last refresh */

	bool grabbed, grab_before_full_screen;
	bool pressed[256]; /* keys the guest believes are down */
	unsigned buttons;
	int motion_x, motion_y; /* not yet sent */
	/* Caps Lock, Num Lock: does the guest move the LED when the key is tapped? */
	enum { LOCK_UNKNOWN, LOCK_ANSWERS, LOCK_SILENT } lock_led[2];
	bool lock_tapped[2];
	unsigned leds_before_tap;
};

/* Loads libSDL2. -ENOENT with the loader's reason. */
int sdl_lib_open(struct sdl_lib *lib, struct error *err);

/* The key at an SDL scancode's place on the keyboard; 0 for keys a PC keyboard does not have. */
uint8_t sdl_key(SDL_Scancode scancode);

/* sdl_view.c: the window and what it shows */
int sdl_view_open(struct sdl_ui *ui, struct error *err);
void sdl_view_close(struct sdl_ui *ui);
void sdl_view_title(struct sdl_ui *ui);
/* Refreshes the display and shows what changed; true if anything did. */
bool sdl_view_refresh(struct sdl_ui *ui);
void sdl_view_present(struct sdl_ui *ui);
void sdl_view_lost(struct sdl_ui *ui); /* the renderer lost its textures */
void sdl_view_resized(struct sdl_ui *ui);
void sdl_view_set_full_screen(struct sdl_ui *ui, bool on);
/* The window `percent` of the guest's picture in size. */
void sdl_view_scale(struct sdl_ui *ui, unsigned percent);
unsigned sdl_view_percent(struct sdl_ui *ui);

/* sdl_input.c: keyboard, mouse, grab, hot keys */
void sdl_input_event(struct sdl_ui *ui, const SDL_Event *event);
/* Sends the motion that was gathered. */
void sdl_input_flush_motion(struct sdl_ui *ui);
void sdl_input_focus(struct sdl_ui *ui, bool gained);
void sdl_input_grab(struct sdl_ui *ui, bool on);

#endif
