/* SPDX-License-Identifier: MIT */
/*
 * Text modes: character cells, fonts, cursor, blinking.
 *
 * Plane 0 holds characters, plane 1 attributes, plane 2 up to eight fonts of 256 glyphs, 32 bytes
 * each (FreeVGA, "VGA Text Mode Operation"). Attribute bit 3 picks font A or B where the character
 * map register names two different ones; it is the intensity bit as well. The cursor blinks every
 * 16 frames, characters every 32.
 *
 * What is on the surface is remembered as one word a cell, and both fonts as they were drawn, so
 * that a refresh draws only what differs; with nothing written and no blink due it does not even
 * look at the cells.
 */
#include "devices/vga_internal.h"
#include "lib/clock.h"
#include <stdlib.h>

enum {
	CELL_ATTR_SHIFT = 8,
	CELL_CURSOR = 1 << 16,
	CELL_BLINKED_OFF = 1 << 17,
	CELL_CURSOR_START_SHIFT = 18, /* with CELL_CURSOR: its shape */
	CELL_CURSOR_END_SHIFT = 23,
	TEXT_REFRESH_HZ = 70,
	CURSOR_PHASE_FRAMES = 8, /* on for 8 frames, off for 8 */
	BLINK_PHASE_FRAMES = 16,
	LINE_GRAPHICS_FIRST = 0xC0, /* the ninth dot of C0h..DFh may repeat the eighth */
	LINE_GRAPHICS_LAST = 0xDF,
};
#define CELL_UNKNOWN UINT32_MAX

struct text_cursor {
	uint32_t address;
	unsigned start, end; /* rows */
	bool exists;         /* not switched off */
	bool shown;          /* in this blink phase */
};

static struct text_cursor cursor_state(const struct vga *v, uint64_t frame)
{
	const uint8_t *crtc = v->regs.crtc;
	unsigned skew = (crtc[CRTC_CURSOR_END] & CURSOR_SKEW) >> CURSOR_SKEW_SHIFT;
	struct text_cursor c = {
		.address = ((crtc[CRTC_CURSOR_HIGH] << 8 | crtc[CRTC_CURSOR_LOW]) + skew) &
			   VGA_PLANE_MASK,
		.start = crtc[CRTC_CURSOR_START] & CURSOR_SCAN,
		.end = crtc[CRTC_CURSOR_END] & CURSOR_SCAN,
	};

	c.exists = !(crtc[CRTC_CURSOR_START] & CURSOR_OFF) && c.start <= c.end;
	c.shown = c.exists && (frame / CURSOR_PHASE_FRAMES) % 2 == 0;
	return c;
}

/* Copies one font out of plane 2; true if it differs from the copy. */
static bool load_font(struct vga *v, unsigned map, uint8_t font[VGA_FONT_BYTES])
{
	/* Maps 0..3 are 16 KiB apart; 4..7 lie in between. */
	uint32_t address = (map & 3) * 0x4000 + (map & 4 ? 0x2000 : 0);
	const uint8_t *plane2 = v->vram->host + address * 4 + 2;
	uint8_t differs = 0;

	for (unsigned i = 0; i < VGA_FONT_BYTES; i++) {
		differs |= font[i] ^ plane2[4 * i];
		font[i] = plane2[4 * i];
	}
	return differs;
}

static bool load_fonts(struct vga *v)
{
	unsigned map = v->regs.seq[SEQ_CHAR_MAP];
	bool a = load_font(v, (map >> 2 & 3) | (map >> 3 & 4), v->font[0]);
	bool b = load_font(v, (map & 3) | (map >> 2 & 4), v->font[1]);

	return a || b;
}

static bool prepare_cells(struct vga *v)
{
	size_t need = (size_t)v->strip_count * (v->mode.columns + 1);

	if (need > v->cells_allocated) {
		uint32_t *cells = realloc(v->cells, need * sizeof(*cells));
		if (!cells)
			return false;
		v->cells = cells;
		v->cells_allocated = need;
	}
	if (v->redraw)
		memset(v->cells, 0xFF, need * sizeof(*v->cells));
	return true;
}

/* The dots of one glyph line, leftmost in bit 8 for nine dots, bit 7 for eight. */
static unsigned glyph_dots(const struct vga *v, uint32_t cell, unsigned row)
{
	uint8_t ch = cell, attr = cell >> CELL_ATTR_SHIFT;
	unsigned dots = v->font[attr & TEXT_ATTR_FONT_A ? 0 : 1][ch * VGA_FONT_GLYPH_BYTES + row];
	unsigned all = (1u << v->mode.cell_width) - 1;

	if (v->mode.cell_width == 9) {
		bool extend = (v->regs.attr[ATTR_MODE] & ATTR_MODE_LINE_GRAPHICS) &&
			      ch >= LINE_GRAPHICS_FIRST && ch <= LINE_GRAPHICS_LAST;
		dots = dots << 1 | (extend ? dots & 1 : 0);
	}
	if (row == v->mode.underline_row &&
	    (attr & TEXT_ATTR_UNDERLINE_MASK) == TEXT_ATTR_UNDERLINE)
		dots = all;
	if (cell & CELL_BLINKED_OFF)
		dots = 0;
	if (cell & CELL_CURSOR) {
		unsigned start = cell >> CELL_CURSOR_START_SHIFT & CURSOR_SCAN;
		unsigned end = cell >> CELL_CURSOR_END_SHIFT & CURSOR_SCAN;
		if (row >= start && row <= end)
			dots = all;
	}
	return dots;
}

static void draw_cell(struct vga *v, const struct vga_strip *strip, unsigned column, uint32_t cell,
		      struct vga_damage *damage)
{
	const struct vga_mode *m = &v->mode;
	uint8_t attr = cell >> CELL_ATTR_SHIFT;
	bool blink = v->regs.attr[ATTR_MODE] & ATTR_MODE_BLINK;
	uint8_t planes = v->regs.attr[ATTR_PLANES];
	uint32_t fg = v->palette[attr & TEXT_ATTR_FG & planes];
	uint32_t bg = v->palette[attr >> 4 & (blink ? 7 : 15) & planes];
	int x = (int)(column * m->cell_width) - v->lines[strip->first].pan;
	unsigned first = x < 0 ? -x : 0, end = m->cell_width;
	unsigned dots_across = m->width / m->dot_width;

	if (x >= (int)dots_across)
		return;
	if (x + (int)end > (int)dots_across)
		end = dots_across - x;
	if (first >= end)
		return;
	for (unsigned y = strip->first; y < strip->end; y++) {
		unsigned dots = glyph_dots(v, cell, v->lines[y].row) << first;
		unsigned top = 1u << (m->cell_width - 1);
		uint32_t *p = v->display.surface.pixels + (size_t)y * m->width +
			      (x + first) * m->dot_width;
		for (unsigned i = first; i < end; i++, dots <<= 1) {
			uint32_t color = dots & top ? fg : bg;
			*p++ = color;
			if (m->dot_width == 2)
				*p++ = color;
		}
	}
	vga_damage_add(damage, (x + first) * m->dot_width, strip->first,
		       (end - first) * m->dot_width, strip->end - strip->first);
}

static void draw_strip(struct vga *v, unsigned index, const struct text_cursor *cursor,
		       bool blinked_off, struct vga_damage *damage)
{
	const struct vga_strip *strip = &v->strips[index];
	uint32_t address = v->lines[strip->first].address;
	unsigned columns = v->mode.columns + (v->lines[strip->first].pan != 0);
	uint32_t *shown = v->cells + (size_t)index * (v->mode.columns + 1);
	bool can_blink = v->regs.attr[ATTR_MODE] & ATTR_MODE_BLINK;

	for (unsigned c = 0; c < columns; c++) {
		uint32_t at = (address + c) & VGA_PLANE_MASK;
		uint32_t cell = load_le16(v->vram->host + 4 * at);
		if (can_blink && (cell >> CELL_ATTR_SHIFT & TEXT_ATTR_BLINK)) {
			v->any_blinking = true;
			if (blinked_off)
				cell |= CELL_BLINKED_OFF;
		}
		if (cursor->shown && at == cursor->address)
			cell |= CELL_CURSOR | cursor->start << CELL_CURSOR_START_SHIFT |
				cursor->end << CELL_CURSOR_END_SHIFT;
		if (cell == shown[c])
			continue;
		shown[c] = cell;
		draw_cell(v, strip, c, cell, damage);
	}
}

void vga_text_refresh(struct vga *v, bool memory_changed, struct vga_damage *damage)
{
	uint64_t frame = ns_to_ticks(clock_now(v->env.clock), TEXT_REFRESH_HZ);
	struct text_cursor cursor = cursor_state(v, frame);
	bool blinked_off = (frame / BLINK_PHASE_FRAMES) % 2;
	uint32_t key = cursor.address | cursor.start << 16 | cursor.end << 21 |
		       (uint32_t)cursor.shown << 26 | (uint32_t)blinked_off << 27;
	uint32_t blink_bit = UINT32_C(1) << 27;

	memory_changed |= v->text_written;
	v->text_written = false;
	if ((memory_changed || v->redraw) && load_fonts(v))
		v->redraw = true;
	bool key_changed = v->any_blinking ? key != v->text_key
					   : (key & ~blink_bit) != (v->text_key & ~blink_bit);
	if (!memory_changed && !v->redraw && !v->lines_moved && !key_changed)
		return;
	if (!prepare_cells(v))
		return;
	v->text_key = key;
	v->any_blinking = false;
	for (unsigned i = 0; i < v->strip_count; i++)
		draw_strip(v, i, &cursor, blinked_off, damage);
}

bool vga_text_screen(void *opaque, struct text_screen *screen)
{
	struct vga *v = opaque;

	vga_mode_update(v);
	if (v->mode.kind != VGA_TEXT)
		return false;
	/* Fetching makes an engine that batches writes to the window deliver them. The next refresh
	 * has to know what was fetched here. */
	uint64_t pages;
	if (mem_dirty_fetch(v->env.mem, v->vram, 0, VGA_MEMORY_BYTES / GUEST_PAGE_SIZE, &pages))
		v->text_written = true;
	struct text_cursor cursor = cursor_state(v, 0);
	unsigned max_rows = sizeof(screen->cells) / (2 * VGA_MAX_COLUMNS);
	screen->columns = v->mode.columns;
	screen->rows = v->strip_count < max_rows ? v->strip_count : max_rows;
	screen->cursor_x = screen->cursor_y = 0;
	screen->cursor_visible = false;
	for (unsigned r = 0; r < screen->rows; r++) {
		uint32_t address = v->lines[v->strips[r].first].address;
		for (unsigned c = 0; c < screen->columns; c++) {
			uint32_t at = (address + c) & VGA_PLANE_MASK;
			memcpy(screen->cells + 2 * (r * screen->columns + c),
			       v->vram->host + 4 * at, 2);
			if (at == cursor.address) {
				screen->cursor_x = c;
				screen->cursor_y = r;
				screen->cursor_visible = cursor.exists;
			}
		}
	}
	return true;
}
