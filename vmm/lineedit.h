/* SPDX-License-Identifier: MIT */
/* A one-line editor on a terminal or socket: cursor keys, history, the control keys of a shell. */
#ifndef VMM_LINEEDIT_H
#define VMM_LINEEDIT_H

#include <stddef.h>
#include <stdint.h>

enum { LINE_MAX_LEN = 4095 };

struct line_editor_ops {
	void (*output)(void *opaque, const char *text, size_t len);
	/* A line is finished; it may be changed in place. */
	void (*enter)(void *opaque, char *line);
	/* What may follow `line`, which has `len` bytes before the cursor: a string to insert, or
	 * NULL. */
	const char *(*complete)(void *opaque, const char *line, size_t len);
	void *opaque;
};

struct line_editor;

struct line_editor *line_editor_new(const struct line_editor_ops *ops);
void line_editor_free(struct line_editor *e);
/* One byte from the user. */
void line_editor_input(struct line_editor *e, uint8_t byte);
/* Forgets the line being written (another user has come). */
void line_editor_reset(struct line_editor *e);

#endif
