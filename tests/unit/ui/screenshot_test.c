/* SPDX-License-Identifier: MIT */
/* Screenshots read back, and the text screen as a person reads it. */
#include "lib/text.h"
#include "ui/screenshot.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#ifdef HAVE_PNG
#include <png.h>
#endif

enum { WIDTH = 5, HEIGHT = 3 };

static uint32_t pixels[WIDTH * HEIGHT];
static struct surface surface = {pixels, WIDTH, HEIGHT};
static char path[] = "/tmp/screenshot_test_XXXXXX";

static int setup(void **state)
{
	for (unsigned i = 0; i < WIDTH * HEIGHT; i++)
		pixels[i] = 0xEE000000 | (i * 0x0A0B0C & 0xFFFFFF); /* the top byte is not colour */
	strcpy(path + strlen(path) - 6, "XXXXXX");
	int fd = mkstemp(path);
	return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
	return unlink(path);
}

static void ppm_holds_the_pixels(void **state)
{
	struct error err = ERROR_INIT;
	size_t len;

	assert_int_equal(screenshot_write(&surface, path, SCREENSHOT_PPM, &err), 0);
	uint8_t *data = read_file(path, 1000, &len, &err);
	assert_non_null(data);
	static const char header[] = "P6\n5 3\n255\n";
	assert_int_equal(len, strlen(header) + 3 * WIDTH * HEIGHT);
	assert_memory_equal(data, header, strlen(header));
	for (unsigned i = 0; i < WIDTH * HEIGHT; i++) {
		const uint8_t *p = data + strlen(header) + 3 * i;
		assert_int_equal(p[0] << 16 | p[1] << 8 | p[2], pixels[i] & 0xFFFFFF);
	}
	free(data);
}

static void png_holds_the_pixels(void **state)
{
#ifdef HAVE_PNG
	struct error err = ERROR_INIT;
	png_image image = {.version = PNG_IMAGE_VERSION};
	uint8_t rgb[3 * WIDTH * HEIGHT];

	assert_int_equal(screenshot_write(&surface, path, SCREENSHOT_PNG, &err), 0);
	assert_true(png_image_begin_read_from_file(&image, path));
	assert_int_equal(image.width, WIDTH);
	assert_int_equal(image.height, HEIGHT);
	image.format = PNG_FORMAT_RGB;
	assert_true(png_image_finish_read(&image, NULL, rgb, 0, NULL));
	for (unsigned i = 0; i < WIDTH * HEIGHT; i++)
		assert_int_equal(rgb[3 * i] << 16 | rgb[3 * i + 1] << 8 | rgb[3 * i + 2],
				 pixels[i] & 0xFFFFFF);
#else
	skip();
#endif
}

static void errors_name_the_file_and_the_reason(void **state)
{
	struct error err = ERROR_INIT;
	struct surface none = {NULL, 0, 0};
	enum screenshot_format format;

	assert_int_equal(screenshot_write(&surface, "/nowhere/x.ppm", SCREENSHOT_PPM, &err),
			 -ENOENT);
	assert_non_null(strstr(err.text, "'/nowhere/x.ppm': No such file"));
	assert_int_equal(screenshot_write(&none, path, SCREENSHOT_PPM, &err), -ENODATA);
	assert_int_equal(screenshot_write(&surface, "/dev/full", SCREENSHOT_PPM, &err), -ENOSPC);
	assert_int_equal(screenshot_format_parse("gif", &format, &err), -EINVAL);
	assert_int_equal(screenshot_format_parse("ppm", &format, &err), 0);
	assert_int_equal(format, SCREENSHOT_PPM);
#ifdef HAVE_PNG
	assert_int_equal(screenshot_write(&surface, "/dev/full", SCREENSHOT_PNG, &err), -ENOSPC);
#endif
}

static void text_is_utf8_with_trimmed_rows(void **state)
{
	static const char row[] = "\xC9\xCD\xBB Ab\x01\x82";
	struct text_screen *screen = calloc(1, sizeof(*screen));
	struct strbuf out = STRBUF_INIT;

	screen->columns = 20;
	screen->rows = 3;
	for (unsigned i = 0; i < 60; i++)
		screen->cells[2 * i] = i < 20 ? (i < strlen(row) ? row[i] : ' ') : 0;
	screen->cells[2 * 59] = 'z';
	screen_text(screen, &out);
	assert_string_equal(strbuf_str(&out), "╔═╗ Ab☺é\n\n                   z\n");
	strbuf_free(&out);
	free(screen);
}

static void every_code_page_437_character_is_distinct(void **state)
{
	/* 00h, 20h and FFh are blank; all others have a picture of their own. */
	for (unsigned a = 1; a < 255; a++)
		for (unsigned b = a + 1; b < 255; b++)
			assert_int_not_equal(cp437_to_unicode(a), cp437_to_unicode(b));
	assert_int_equal(cp437_to_unicode(0), ' ');
	assert_int_equal(cp437_to_unicode(255), ' ');
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(ppm_holds_the_pixels),
		T(png_holds_the_pixels),
		T(errors_name_the_file_and_the_reason),
		T(text_is_utf8_with_trimmed_rows),
		T(every_code_page_437_character_is_distinct),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
