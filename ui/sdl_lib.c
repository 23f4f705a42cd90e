/* SPDX-License-Identifier: MIT */
/*
 * libSDL2 at run time. Linked in the ordinary way it would bring some fifty libraries into every
 * start, most of which open no window; dlopen() costs only those that do.
 */
#ifdef HAVE_SDL2
#include "lib/bytes.h"
#include "ui/sdl_internal.h"
#include <dlfcn.h>
#include <errno.h>

int sdl_lib_open(struct sdl_lib *lib, struct error *err)
{
	static const char *const names[] = {
#define SDL_LIB_NAME(name) #name,
		SDL_LIB_FUNCTIONS(SDL_LIB_NAME)
#undef SDL_LIB_NAME
	};
	void **slots[] = {
#define SDL_LIB_SLOT(name) (void **)&lib->name,
		SDL_LIB_FUNCTIONS(SDL_LIB_SLOT)
#undef SDL_LIB_SLOT
	};

	lib->handle = dlopen("libSDL2-2.0.so.0", RTLD_NOW | RTLD_LOCAL);
	if (!lib->handle)
		return error_set(err, ENOENT,
				 "cannot load SDL2 for the window: %s; install it (Debian: "
				 "libsdl2-2.0-0) or use -display none",
				 dlerror());
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		*slots[i] = dlsym(lib->handle, names[i]);
		if (!*slots[i])
			return error_set(
				err, ENOENT,
				"this libSDL2 is too old, it has no '%s'; use -display none",
				names[i]);
	}
	return 0;
}
#else
typedef int sdl_lib_not_built_in; /* ISO C wants a declaration */
#endif
