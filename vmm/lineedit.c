/* SPDX-License-Identifier: MIT */
/*
 * Keys: those of a VT100 (ECMA-48 cursor sequences ESC [ A..D, H, F and ESC [ 1~ 3~ 4~) and the
 * control characters that shells share. The screen is changed with printable characters and
 * backspaces alone, so that it works wherever a line can be typed.
 */
#include "vmm/lineedit.h"
#include "lib/text.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { HISTORY = 32 };

enum {
	CTRL_A = 1,
	CTRL_B,
	CTRL_C,
	CTRL_D,
	CTRL_E,
	CTRL_F,
	CTRL_H = 8,
	TAB,
	CTRL_K = 11,
	CTRL_N = 14,
	CTRL_P = 16,
	CTRL_U = 21,
	CTRL_W = 23,
	ESCAPE = 27,
	DELETE = 127
};

enum sequence { NONE, AFTER_ESCAPE, AFTER_BRACKET };

struct line_editor {
	struct line_editor_ops ops;
	char line[LINE_MAX_LEN + 1];
	size_t len, cursor;
	char *history[HISTORY]; /* oldest first */
	size_t history_count, history_pos;
	enum sequence sequence;
	uint8_t number; /* in ESC [ n ~ */
	bool was_return;
};

struct line_editor *line_editor_new(const struct line_editor_ops *ops)
{
	struct line_editor *e = xcalloc(1, sizeof(*e));
	e->ops = *ops;
	return e;
}

void line_editor_free(struct line_editor *e)
{
	for (size_t n = 0; n < e->history_count; n++)
		free(e->history[n]);
	free(e);
}

void line_editor_reset(struct line_editor *e)
{
	e->len = e->cursor = 0;
	e->sequence = NONE;
	e->was_return = false;
	e->history_pos = e->history_count;
}

static void put(struct line_editor *e, const char *text, size_t len)
{
	if (len)
		e->ops.output(e->ops.opaque, text, len);
}

static void back(struct line_editor *e, size_t count)
{
	while (count--)
		put(e, "\b", 1);
}

static void move_to(struct line_editor *e, size_t place)
{
	if (place < e->cursor)
		back(e, e->cursor - place);
	else
		put(e, e->line + e->cursor, place - e->cursor);
	e->cursor = place;
}

static void insert(struct line_editor *e, const char *text, size_t len)
{
	if (len > LINE_MAX_LEN - e->len)
		return;
	memmove(e->line + e->cursor + len, e->line + e->cursor, e->len - e->cursor);
	memcpy(e->line + e->cursor, text, len);
	e->len += len;
	put(e, e->line + e->cursor, e->len - e->cursor);
	e->cursor += len;
	back(e, e->len - e->cursor);
}

/* Removes the bytes from `from` to `to` and leaves the cursor there. */
static void erase(struct line_editor *e, size_t from, size_t to)
{
	size_t gone = to - from;
	move_to(e, from);
	memmove(e->line + from, e->line + to, e->len - to);
	e->len -= gone;
	put(e, e->line + from, e->len - from);
	for (size_t n = 0; n < gone; n++)
		put(e, " ", 1);
	back(e, gone + e->len - from);
}

static void remember(struct line_editor *e)
{
	if (!e->len || (e->history_count && !strcmp(e->history[e->history_count - 1], e->line)))
		return;
	if (e->history_count == HISTORY) {
		free(e->history[0]);
		memmove(e->history, e->history + 1, (HISTORY - 1) * sizeof(e->history[0]));
		e->history_count--;
	}
	e->history[e->history_count++] = xstrdup(e->line);
}

static void enter(struct line_editor *e)
{
	move_to(e, e->len);
	e->line[e->len] = 0;
	put(e, "\r\n", 2);
	remember(e);
	e->len = e->cursor = 0;
	e->history_pos = e->history_count;
	e->ops.enter(e->ops.opaque, e->line);
}

static void recall(struct line_editor *e, int step)
{
	if ((step < 0 && e->history_pos == 0) || (step > 0 && e->history_pos >= e->history_count))
		return;
	e->history_pos = (size_t)((long)e->history_pos + step);
	erase(e, 0, e->len);
	if (e->history_pos < e->history_count)
		insert(e, e->history[e->history_pos], strlen(e->history[e->history_pos]));
}

static void complete(struct line_editor *e)
{
	e->line[e->len] = 0;
	const char *more = e->ops.complete(e->ops.opaque, e->line, e->cursor);
	if (more)
		insert(e, more, strlen(more));
}

static void erase_word(struct line_editor *e)
{
	size_t start = e->cursor;
	while (start && e->line[start - 1] == ' ')
		start--;
	while (start && e->line[start - 1] != ' ')
		start--;
	erase(e, start, e->cursor);
}

static void end_of_sequence(struct line_editor *e, uint8_t byte)
{
	e->sequence = NONE;
	switch (byte) {
	case 'A': recall(e, -1); break;
	case 'B': recall(e, 1); break;
	case 'C': move_to(e, e->cursor + (e->cursor < e->len)); break;
	case 'D': move_to(e, e->cursor - (e->cursor > 0)); break;
	case 'H': move_to(e, 0); break;
	case 'F': move_to(e, e->len); break;
	case '~':
		if (e->number == 1)
			move_to(e, 0);
		else if (e->number == 4)
			move_to(e, e->len);
		else if (e->number == 3 && e->cursor < e->len)
			erase(e, e->cursor, e->cursor + 1);
		break;
	default: break;
	}
}

static void control(struct line_editor *e, uint8_t byte)
{
	switch (byte) {
	case CTRL_A: move_to(e, 0); break;
	case CTRL_B: move_to(e, e->cursor - (e->cursor > 0)); break;
	case CTRL_F: move_to(e, e->cursor + (e->cursor < e->len)); break;
	case CTRL_E: move_to(e, e->len); break;
	case CTRL_C: erase(e, 0, e->len); break;
	case CTRL_U: erase(e, 0, e->cursor); break;
	case CTRL_K: erase(e, e->cursor, e->len); break;
	case CTRL_W: erase_word(e); break;
	case CTRL_P: recall(e, -1); break;
	case CTRL_N: recall(e, 1); break;
	case CTRL_D:
		if (e->cursor < e->len)
			erase(e, e->cursor, e->cursor + 1);
		break;
	case CTRL_H:
	case DELETE:
		if (e->cursor)
			erase(e, e->cursor - 1, e->cursor);
		break;
	case TAB: complete(e); break;
	case ESCAPE: e->sequence = AFTER_ESCAPE; break;
	default: break;
	}
}

void line_editor_input(struct line_editor *e, uint8_t byte)
{
	bool was_return = e->was_return;
	e->was_return = byte == '\r';
	if (e->sequence == AFTER_ESCAPE) {
		e->sequence = byte == '[' || byte == 'O' ? AFTER_BRACKET : NONE;
		e->number = 0;
	} else if (e->sequence == AFTER_BRACKET) {
		if (byte >= '0' && byte <= '9')
			e->number = (uint8_t)(e->number * 10 + byte - '0');
		else
			end_of_sequence(e, byte);
	} else if (byte == '\r' || byte == '\n') {
		/* CR LF is one line end. */
		if (byte == '\r' || !was_return)
			enter(e);
	} else if (byte < ' ' || byte == DELETE) {
		control(e, byte);
	} else {
		char c = (char)byte;
		insert(e, &c, 1);
	}
}
