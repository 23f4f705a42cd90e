/* SPDX-License-Identifier: MIT */
/* Pictures and text of what a display shows. */
#ifndef UI_SCREENSHOT_H
#define UI_SCREENSHOT_H

#include "core/display.h"
#include "lib/error.h"
#include "lib/strbuf.h"
#include <stdbool.h>

enum screenshot_format {
	SCREENSHOT_PPM,
	SCREENSHOT_PNG,
};

/* "ppm" or "png"; -EINVAL names both, and what is not built in. */
int screenshot_format_parse(const char *name, enum screenshot_format *format, struct error *err);
/* Writes the surface as it is. 0, or -errno with an error; an empty surface is -ENODATA. */
int screenshot_write(const struct surface *surface, const char *path, enum screenshot_format format,
		     struct error *err);
/* Brings the display up to date, then writes it. Lock held. */
int screenshot_display(struct display *display, const char *path, enum screenshot_format format,
		       struct error *err);

/* The text screen in UTF-8, one line a row, blanks at their ends left out. */
void screen_text(const struct text_screen *screen, struct strbuf *out);
/* As screen_text() of what the display shows now; false in a graphics mode. Lock held. */
bool screen_text_display(struct display *display, struct strbuf *out);
/* Unicode of a character of code page 437, as the VGA's font shows it (control codes are pictures).
 */
unsigned cp437_to_unicode(unsigned char c);

#endif
