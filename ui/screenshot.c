/* SPDX-License-Identifier: MIT */
/*
 * Screenshots: binary PPM ("P6", netpbm's ppm(5)) always, PNG where libpng is built in. Both are
 * written row by row, so that a picture needs no second copy in memory.
 */
#include "ui/screenshot.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_PNG
#include <png.h>
#endif

int screenshot_format_parse(const char *name, enum screenshot_format *format, struct error *err)
{
	if (!strcmp(name, "ppm")) {
		*format = SCREENSHOT_PPM;
		return 0;
	}
	if (strcmp(name, "png"))
		return error_set(err, EINVAL, "unknown picture format '%s'; use ppm or png", name);
#ifdef HAVE_PNG
	*format = SCREENSHOT_PNG;
	return 0;
#else
	return error_set(err, ENOTSUP,
			 "no 'png' pictures: built without libpng; use ppm, or rebuild with it");
#endif
}

static int write_ppm(FILE *f, const struct surface *s)
{
	uint8_t *row = malloc(3 * (size_t)s->width);
	bool ok = row && fprintf(f, "P6\n%u %u\n255\n", s->width, s->height) > 0;

	for (unsigned y = 0; ok && y < s->height; y++) {
		const uint32_t *in = s->pixels + (size_t)y * s->width;
		for (unsigned x = 0; x < s->width; x++) {
			row[3 * x] = in[x] >> 16;
			row[3 * x + 1] = in[x] >> 8;
			row[3 * x + 2] = in[x];
		}
		ok = fwrite(row, 3, s->width, f) == s->width;
	}
	int code = row ? errno : ENOMEM;
	free(row);
	return ok ? 0 : -(code ? code : EIO);
}

#ifdef HAVE_PNG
/* libpng reports by longjmp(); everything it owns hangs on `png` and `info`. */
static int write_png(FILE *f, const struct surface *s)
{
	png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
	png_infop info = png ? png_create_info_struct(png) : NULL;

	if (!info) {
		png_destroy_write_struct(&png, NULL);
		return -ENOMEM;
	}
	if (setjmp(png_jmpbuf(png))) {
		png_destroy_write_struct(&png, &info);
		return errno ? -errno : -EIO;
	}
	png_init_io(png, f);
	/* Screens are flat: fast compression does nearly as well as the slow one. */
	png_set_compression_level(png, 3);
	png_set_IHDR(png, info, s->width, s->height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
		     PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
	png_write_info(png, info);
	/* Pixels are B, G, R, unused in memory. */
	png_set_bgr(png);
	png_set_filler(png, 0, PNG_FILLER_AFTER);
	for (unsigned y = 0; y < s->height; y++)
		png_write_row(png, (png_const_bytep)(s->pixels + (size_t)y * s->width));
	png_write_end(png, NULL);
	png_destroy_write_struct(&png, &info);
	return 0;
}
#else
static int write_png(FILE *f, const struct surface *s)
{
	return -ENOTSUP;
}
#endif

int screenshot_write(const struct surface *surface, const char *path, enum screenshot_format format,
		     struct error *err)
{
	if (!surface->pixels || !surface->width || !surface->height)
		return error_set(err, ENODATA, "cannot write screenshot '%s': there is no picture",
				 path);
	FILE *f = fopen(path, "wb");
	if (!f)
		return error_errno(err, errno, "cannot write screenshot '%s'", path);
	errno = 0;
	int ret = format == SCREENSHOT_PNG ? write_png(f, surface) : write_ppm(f, surface);
	if (fclose(f) && !ret)
		ret = -errno;
	if (ret < 0)
		return error_errno(err, -ret, "cannot write screenshot '%s'", path);
	return 0;
}

int screenshot_display(struct display *display, const char *path, enum screenshot_format format,
		       struct error *err)
{
	struct rect dirty;

	display->ops->refresh(display->opaque, &display->surface, &dirty, false);
	return screenshot_write(&display->surface, path, format, err);
}
