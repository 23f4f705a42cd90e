/* SPDX-License-Identifier: MIT */
/* The VGA, programmed as a BIOS and a guest program it, judged by registers and pixels. */
#include "tests/unit/devices/vga_rig.h"
#include <time.h>

/* Glyph g of font table 0: line l holds the byte f(g, l). */
static uint8_t glyph_byte(unsigned glyph, unsigned line)
{
	return glyph == ' ' ? 0 : glyph * 7 + line * 29;
}

/* As INT 10h AX=1100h does it: plane 2, plain addressing at A0000h. */
static void load_font(struct rig *r, unsigned table_address)
{
	out_seq(r, 2, 0x04);
	out_seq(r, 4, 0x07);
	out_gc(r, 4, 0x02);
	out_gc(r, 5, 0x00);
	out_gc(r, 6, 0x04);
	for (unsigned g = 0; g < 256; g++)
		for (unsigned l = 0; l < 16; l++)
			poke(r, 0xA0000 + table_address + 32 * g + l,
			     glyph_byte(g, l) ^ (table_address ? 0xFF : 0));
	out_seq(r, 2, 0x03);
	out_seq(r, 4, 0x02);
	out_gc(r, 4, 0x00);
	out_gc(r, 5, 0x10);
	out_gc(r, 6, 0x0E);
}

static void text_mode(struct rig *r, const struct mode_table *mode)
{
	set_mode(r, mode);
	load_font(r, 0);
	for (unsigned i = 0; i < 2000; i++) {
		poke(r, 0xB8000 + 2 * i, ' ');
		poke(r, 0xB8000 + 2 * i + 1, 0x07);
	}
	out_crtc(r, 0x0A, 0x20); /* no cursor */
}

static void put_cell(struct rig *r, unsigned x, unsigned y, uint8_t ch, uint8_t attr)
{
	poke(r, 0xB8000 + 2 * (80 * y + x), ch);
	poke(r, 0xB8000 + 2 * (80 * y + x) + 1, attr);
}

static void assert_cell(struct rig *r, unsigned x, unsigned y, uint8_t ch, unsigned fg, unsigned bg)
{
	for (unsigned l = 0; l < 16; l++) {
		for (unsigned d = 0; d < 9; d++) {
			bool on = d < 8 ? glyph_byte(ch, l) >> (7 - d) & 1
					: (ch >= 0xC0 && ch <= 0xDF && (glyph_byte(ch, l) & 1));
			assert_int_equal(pixel(r, 9 * x + d, 16 * y + l), text_color(on ? fg : bg));
		}
	}
}

static void after_reset_the_screen_is_blank(void **state)
{
	struct rig *r = *state;
	struct surface *s = rig_refresh(r);

	assert_non_null(s->pixels);
	for (size_t i = 0; i < (size_t)s->width * s->height; i++)
		assert_int_equal(s->pixels[i], 0);
}

static void text_cells_show_glyphs_in_their_colors(void **state)
{
	struct rig *r = *state;

	text_mode(r, &mode_03);
	put_cell(r, 0, 0, 'A', 0x1F);
	put_cell(r, 79, 24, 'z', 0x4E);
	put_cell(r, 40, 12, 0xC4, 0x07); /* ninth dot repeats the eighth */
	put_cell(r, 41, 12, 0xB4, 0x07); /* here it does not */
	struct surface *s = rig_refresh(r);
	assert_int_equal(s->width, 720);
	assert_int_equal(s->height, 400);
	assert_cell(r, 0, 0, 'A', 0xF, 1);
	assert_cell(r, 79, 24, 'z', 0xE, 4);
	assert_cell(r, 40, 12, 0xC4, 7, 0);
	assert_cell(r, 41, 12, 0xB4, 7, 0);
	assert_cell(r, 1, 0, ' ', 7, 0);
}

static void a_text_refresh_draws_only_the_cell_that_changed(void **state)
{
	struct rig *r = *state;

	text_mode(r, &mode_03);
	rig_refresh(r);
	assert_int_equal(r->dirty.width, 720);
	unsigned updates = r->display->updates;
	rig_refresh(r);
	assert_int_equal(r->dirty.width, 0);
	assert_int_equal(r->display->updates, updates);
	put_cell(r, 10, 5, 'x', 0x07);
	rig_refresh(r);
	assert_int_equal(r->dirty.x, 90);
	assert_int_equal(r->dirty.y, 80);
	assert_int_equal(r->dirty.width, 9);
	assert_int_equal(r->dirty.height, 16);
	assert_cell(r, 10, 5, 'x', 7, 0);
	put_cell(r, 10, 5, 'x', 0x07); /* written, but the same */
	rig_refresh(r);
	assert_int_equal(r->dirty.width, 0);
}

static void a_new_font_redraws_the_text(void **state)
{
	struct rig *r = *state;

	text_mode(r, &mode_03);
	put_cell(r, 3, 3, 'q', 0x07);
	rig_refresh(r);
	out_seq(r, 2, 0x04);
	out_seq(r, 4, 0x07);
	out_gc(r, 5, 0x00);
	out_gc(r, 6, 0x04);
	poke(r, 0xA0000 + 32 * 'q', ~glyph_byte('q', 0));
	out_seq(r, 2, 0x03);
	out_seq(r, 4, 0x02);
	out_gc(r, 5, 0x10);
	out_gc(r, 6, 0x0E);
	rig_refresh(r);
	for (unsigned d = 0; d < 8; d++)
		assert_int_equal(pixel(r, 27 + d, 48),
				 text_color(glyph_byte('q', 0) >> (7 - d) & 1 ? 0 : 7));
}

static void attribute_bit_3_selects_the_second_font(void **state)
{
	struct rig *r = *state;

	text_mode(r, &mode_03);
	load_font(r, 0x4000);  /* table 1, inverted */
	out_seq(r, 3, 1 << 2); /* A: table 1, B: table 0 */
	put_cell(r, 0, 0, 'A', 0x0F);
	put_cell(r, 1, 0, 'A', 0x07);
	rig_refresh(r);
	for (unsigned d = 0; d < 8; d++) {
		bool on = glyph_byte('A', 2) >> (7 - d) & 1;
		assert_int_equal(pixel(r, d, 2), text_color(on ? 0 : 0xF));
		assert_int_equal(pixel(r, 9 + d, 2), text_color(on ? 7 : 0));
	}
}

static void cursor_covers_its_rows_of_its_cell(void **state)
{
	struct rig *r = *state;

	text_mode(r, &mode_03);
	out_crtc(r, 0x0A, 13);
	out_crtc(r, 0x0B, 14);
	out_crtc(r, 0x0E, (80 * 2 + 5) >> 8);
	out_crtc(r, 0x0F, (80 * 2 + 5) & 0xFF);
	rig_refresh(r); /* virtual time 0: cursor on */
	for (unsigned l = 0; l < 16; l++)
		assert_int_equal(pixel(r, 45, 32 + l), text_color(l == 13 || l == 14 ? 7 : 0));
	assert_int_equal(pixel(r, 54, 32 + 13), text_color(0));
	out_crtc(r, 0x0A, 13 | 0x20);
	rig_refresh(r);
	assert_int_equal(pixel(r, 45, 32 + 13), text_color(0));
	assert_int_equal(r->dirty.width, 9);
}

/* Lets virtual time go on until frames / `phase` is odd (or even). */
static void wait_for_phase(struct rig *r, unsigned phase, bool odd)
{
	const struct timespec pause = {.tv_nsec = 5000000};

	while ((ns_to_ticks(clock_now(r->env.clock), 70) / phase) % 2 != odd) {
		clock_start(r->env.clock);
		nanosleep(&pause, NULL);
		clock_stop(r->env.clock);
	}
}

static void cursor_and_characters_blink(void **state)
{
	struct rig *r = *state;

	text_mode(r, &mode_03);
	out_attr(r, 0x10, 0x0C); /* blinking on */
	put_cell(r, 0, 0, 0xFF, 0x87);
	out_crtc(r, 0x0A, 0);
	out_crtc(r, 0x0B, 0);
	out_crtc(r, 0x0F, 40);
	rig_refresh(r);
	assert_cell(r, 0, 0, 0xFF, 7, 0);
	assert_int_equal(pixel(r, 360, 0), text_color(7));
	wait_for_phase(r, 8, true);
	rig_refresh(r);
	assert_int_equal(pixel(r, 360, 0), text_color(0));
	wait_for_phase(r, 16, true);
	rig_refresh(r);
	assert_cell(r, 0, 0, 0xFF, 0, 0);
	out_attr(r, 0x10, 0x04); /* bit 7 is background intensity again */
	rig_refresh(r);
	assert_cell(r, 0, 0, 0xFF, 7, 8);
}

static void underline_shows_where_the_row_matches(void **state)
{
	struct rig *r = *state;

	text_mode(r, &mode_03);
	out_crtc(r, 0x14, 12);
	put_cell(r, 0, 0, ' ', 0x01);
	put_cell(r, 1, 0, ' ', 0x07);
	rig_refresh(r);
	assert_int_equal(pixel(r, 4, 12), text_color(1));
	assert_int_equal(pixel(r, 4, 11), text_color(0));
	assert_int_equal(pixel(r, 13, 12), text_color(0));
}

static void forty_columns_double_their_dots(void **state)
{
	struct rig *r = *state;

	text_mode(r, &mode_01);
	poke(r, 0xB8000, 'A');
	struct surface *s = rig_refresh(r);
	assert_int_equal(s->width, 720);
	for (unsigned d = 0; d < 16; d++)
		assert_int_equal(pixel(r, d, 5),
				 text_color(glyph_byte('A', 5) >> (7 - d / 2) & 1 ? 7 : 0));
}

static void fifty_rows_of_8x8(void **state)
{
	struct rig *r = *state;
	struct text_screen *screen = calloc(1, sizeof(*screen));

	text_mode(r, &mode_03);
	out_crtc(r, 0x09, 0x47);
	put_cell(r, 7, 24, 'X', 0x07);
	rig_refresh(r);
	assert_true(r->display->ops->text(r->display->opaque, screen));
	assert_int_equal(screen->columns, 80);
	assert_int_equal(screen->rows, 50);
	assert_int_equal(screen->cells[2 * (24 * 80 + 7)], 'X');
	for (unsigned d = 0; d < 8; d++)
		assert_int_equal(pixel(r, 63 + d, 24 * 8 + 3),
				 text_color(glyph_byte('X', 3) >> (7 - d) & 1 ? 7 : 0));
	free(screen);
}

static void text_screen_reports_cells_and_cursor(void **state)
{
	struct rig *r = *state;
	struct text_screen *screen = calloc(1, sizeof(*screen));

	assert_false(r->display->ops->text(r->display->opaque, screen));
	text_mode(r, &mode_03);
	put_cell(r, 2, 1, 'H', 0x1E);
	out_crtc(r, 0x0A, 13);
	out_crtc(r, 0x0B, 14);
	out_crtc(r, 0x0F, 82);
	assert_true(r->display->ops->text(r->display->opaque, screen));
	assert_int_equal(screen->columns, 80);
	assert_int_equal(screen->rows, 25);
	assert_int_equal(screen->cells[2 * 82], 'H');
	assert_int_equal(screen->cells[2 * 82 + 1], 0x1E);
	assert_int_equal(screen->cursor_x, 2);
	assert_int_equal(screen->cursor_y, 1);
	assert_true(screen->cursor_visible);
	/* Reading the text takes nothing from the picture. */
	rig_refresh(r);
	put_cell(r, 0, 0, 'Q', 0x07);
	assert_true(r->display->ops->text(r->display->opaque, screen));
	rig_refresh(r);
	assert_cell(r, 0, 0, 'Q', 7, 0);
	set_mode(r, &mode_13);
	assert_false(r->display->ops->text(r->display->opaque, screen));
	free(screen);
}

static void start_address_and_line_compare_split_the_text(void **state)
{
	struct rig *r = *state;

	text_mode(r, &mode_03);
	put_cell(r, 0, 0, 'T', 0x07);
	poke(r, 0xB8000 + 2 * 4000, 'S');
	poke(r, 0xB8000 + 2 * 4000 + 1, 0x07);
	out_crtc(r, 0x0C, 4000 >> 8);
	out_crtc(r, 0x0D, 4000 & 0xFF);
	rig_refresh(r);
	assert_cell(r, 0, 0, 'S', 7, 0);
	/* Lines 0..191 show the start address, 192 on shows address 0. */
	out_crtc(r, 0x18, 191);
	out_crtc(r, 0x07, 0x0F);
	out_crtc(r, 0x11, 0x0E);
	out_crtc(r, 0x07, 0x0F);
	out_crtc(r, 0x09, 0x0F);
	rig_refresh(r);
	assert_cell(r, 0, 0, 'S', 7, 0);
	assert_cell(r, 0, 12, 'T', 7, 0);
}

static void panning_shifts_text(void **state)
{
	struct rig *r = *state;

	text_mode(r, &mode_03);
	put_cell(r, 0, 0, 'A', 0x07);
	put_cell(r, 1, 0, 'B', 0x07);
	out_attr(r, 0x13, 2); /* 9-dot cells: 8 is none, 0 is one dot */
	rig_refresh(r);
	for (unsigned d = 0; d < 8; d++)
		assert_int_equal(pixel(r, 6 + d, 1),
				 text_color(glyph_byte('B', 1) >> (7 - d) & 1 ? 7 : 0));
	out_attr(r, 0x13, 8);
	out_crtc(r, 0x08, 3); /* preset row scan */
	rig_refresh(r);
	for (unsigned d = 0; d < 8; d++)
		assert_int_equal(pixel(r, d, 1),
				 text_color(glyph_byte('A', 4) >> (7 - d) & 1 ? 7 : 0));
}

static void mode_13h_shows_dac_colors_doubled(void **state)
{
	struct rig *r = *state;

	set_mode(r, &mode_13);
	for (unsigned i = 0; i < 64000; i++)
		poke(r, 0xA0000 + i, i * 3 + i / 320);
	struct surface *s = rig_refresh(r);
	assert_int_equal(s->width, 640);
	assert_int_equal(s->height, 400);
	for (unsigned y = 0; y < 400; y++)
		for (unsigned x = 0; x < 640; x++) {
			unsigned i = y / 2 * 320 + x / 2;
			assert_int_equal(pixel(r, x, y), rig_color((i * 3 + i / 320) & 0xFF));
		}
	poke(r, 0xA0000 + 320 * 100, 9);
	rig_refresh(r);
	assert_int_equal(pixel(r, 1, 201), rig_color(9));
	assert_true(r->dirty.y >= 178 && r->dirty.height <= 28);
	assert_int_equal(peek(r, 0xA0000 + 320 * 100), 9);
}

static void mode_x_addresses_planes(void **state)
{
	struct rig *r = *state;

	set_mode(r, &mode_13);
	out_seq(r, 4, 0x06);
	out_crtc(r, 0x14, 0x00);
	out_crtc(r, 0x17, 0xE3);
	for (unsigned p = 0; p < 4; p++) {
		out_seq(r, 2, 1 << p);
		poke(r, 0xA0000 + 80 * 10 + 5, 100 + p);
		poke(r, 0xA4000 + 80 * 10 + 5, 200 + p);
	}
	rig_refresh(r);
	for (unsigned p = 0; p < 4; p++)
		assert_int_equal(pixel(r, 2 * (20 + p), 20), rig_color(100 + p));
	/* Page flip, then half an address of panning. */
	out_crtc(r, 0x0C, 0x40);
	out_attr(r, 0x13, 4);
	rig_refresh(r);
	assert_int_equal(pixel(r, 2 * 18, 20), rig_color(200));
	out_gc(r, 4, 3);
	assert_int_equal(peek(r, 0xA4000 + 80 * 10 + 5), 203);
}

static void mode_12h_write_modes_and_latches(void **state)
{
	struct rig *r = *state;

	set_mode(r, &mode_12);
	assert_int_equal(rig_refresh(r)->height, 480);
	/* Mode 0 with set/reset: colour 5 in the pixels of the bit mask. */
	out_gc(r, 0, 5);
	out_gc(r, 1, 0x0F);
	out_gc(r, 8, 0xF0);
	peek(r, 0xA0000);
	poke(r, 0xA0000, 0x00);
	/* Mode 2: colour 9 in the other half, the first half from the latches. */
	out_gc(r, 1, 0);
	out_gc(r, 5, 2);
	out_gc(r, 8, 0x0F);
	peek(r, 0xA0000);
	poke(r, 0xA0000, 9);
	/* Mode 1: copy all eight pixels. */
	out_gc(r, 5, 1);
	peek(r, 0xA0000);
	poke(r, 0xA0000 + 80, 0x55);
	/* Mode 3: set/reset colour 3 where rotated data AND bit mask. */
	out_gc(r, 5, 3);
	out_gc(r, 0, 3);
	out_gc(r, 3, 4);
	out_gc(r, 8, 0x3C);
	peek(r, 0xA0000 + 160);
	poke(r, 0xA0000 + 160, 0xF0); /* rotated by 4: 0F, with the mask: 0C */
	rig_refresh(r);
	for (unsigned x = 0; x < 8; x++) {
		unsigned expected = x < 4 ? 5 : 9;
		assert_int_equal(pixel(r, x, 0), text_color(expected));
		assert_int_equal(pixel(r, x, 1), text_color(expected));
		assert_int_equal(pixel(r, x, 2), text_color(x == 4 || x == 5 ? 3 : 0));
	}
	/* Functions with the latches: XOR colour 15 onto 5 and 9 gives 10 and 6. */
	out_gc(r, 5, 2);
	out_gc(r, 3, 0x18);
	out_gc(r, 8, 0xFF);
	peek(r, 0xA0000);
	poke(r, 0xA0000, 0x0F);
	rig_refresh(r);
	assert_int_equal(pixel(r, 0, 0), text_color(10));
	assert_int_equal(pixel(r, 7, 0), text_color(6));
	/* Read mode 1: which pixels have colour 10, planes all counting. */
	out_gc(r, 5, 8);
	out_gc(r, 2, 10);
	out_gc(r, 7, 0x0F);
	assert_int_equal(peek(r, 0xA0000), 0xF0);
	out_gc(r, 7, 0x00);
	assert_int_equal(peek(r, 0xA0000), 0xFF);
	/* Read mode 0 and the latch register. */
	out_gc(r, 5, 0);
	out_gc(r, 4, 1);
	assert_int_equal(peek(r, 0xA0000), 0xFF);
	assert_int_equal(in_indexed(r, 0x3D4, 0x22), 0xFF);
}

static void map_mask_protects_planes(void **state)
{
	struct rig *r = *state;

	set_mode(r, &mode_12);
	poke(r, 0xA0010, 0xFF);
	out_seq(r, 2, 0x05);
	poke(r, 0xA0010, 0x00);
	rig_refresh(r);
	assert_int_equal(pixel(r, 128, 0), text_color(0x0A));
}

static void mode_0dh_is_doubled_both_ways(void **state)
{
	struct rig *r = *state;

	set_mode(r, &mode_0d);
	out_seq(r, 2, 0x02);
	poke(r, 0xA0000 + 40 * 7 + 3, 0x80);
	struct surface *s = rig_refresh(r);
	assert_int_equal(s->width, 640);
	assert_int_equal(s->height, 400);
	for (unsigned y = 13; y <= 16; y++)
		for (unsigned x = 47; x <= 50; x++)
			assert_int_equal(
				pixel(r, x, y),
				rig_color((y == 14 || y == 15) && (x == 48 || x == 49) ? 2 : 0));
}

static void cga_modes_interleave_lines(void **state)
{
	struct rig *r = *state;

	set_mode(r, &mode_04);
	poke(r, 0xB8000, 0x1B);          /* line 0: colours 0 1 2 3 */
	poke(r, 0xB8000 + 0x2000, 0xE4); /* line 1: colours 3 2 1 0 */
	poke(r, 0xB8000 + 80, 0xFF);     /* line 2 */
	struct surface *s = rig_refresh(r);
	assert_int_equal(s->width, 640);
	assert_int_equal(s->height, 400);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(pixel(r, 2 * i, 0), rig_color(mode_04.attr[i]));
		assert_int_equal(pixel(r, 2 * i + 1, 3), rig_color(mode_04.attr[3 - i]));
		assert_int_equal(pixel(r, 2 * i, 4), rig_color(mode_04.attr[3]));
	}
	set_mode(r, &mode_06);
	for (unsigned i = 0; i < 0x4000; i++)
		poke(r, 0xB8000 + i, 0);
	poke(r, 0xB8000 + 1, 0xA0);
	poke(r, 0xB8000 + 0x2000 + 80, 0x01); /* line 3 */
	s = rig_refresh(r);
	assert_int_equal(s->width, 640);
	assert_int_equal(pixel(r, 8, 0), rig_color(0x17));
	assert_int_equal(pixel(r, 9, 0), rig_color(0));
	assert_int_equal(pixel(r, 10, 1), rig_color(0x17));
	assert_int_equal(pixel(r, 7, 6), rig_color(0x17));
	assert_int_equal(pixel(r, 7, 4), rig_color(0));
}

static void memory_map_selects_the_window(void **state)
{
	struct rig *r = *state;

	set_mode(r, &mode_12);
	poke(r, 0xA0000, 0x5A);
	assert_int_equal(peek(r, 0xA0000), 0x5A);
	assert_int_equal(peek(r, 0xB0000), 0xFF);
	out_gc(r, 6, 0x09); /* B0000, 32 KiB */
	assert_int_equal(peek(r, 0xA0000), 0xFF);
	assert_int_equal(peek(r, 0xB0000), 0x5A);
	assert_int_equal(peek(r, 0xB8000), 0xFF);
	out_gc(r, 6, 0x0D); /* B8000, 32 KiB */
	assert_int_equal(peek(r, 0xB0000), 0xFF);
	assert_int_equal(peek(r, 0xB8000), 0x5A);
	out8(r, 0x3C2, mode_12.misc & ~0x02); /* RAM off */
	assert_int_equal(peek(r, 0xB8000), 0xFF);
}

static void crtc_protection_and_mono_ports(void **state)
{
	struct rig *r = *state;

	set_mode(r, &mode_03);
	out_crtc(r, 0x01, 0x10);
	assert_int_equal(in_indexed(r, 0x3D4, 0x01), 0x4F);
	out_crtc(r, 0x07, 0xEF); /* only bit 4 gets through */
	assert_int_equal(in_indexed(r, 0x3D4, 0x07), 0x0F);
	assert_int_equal(in8(r, 0x3B4), 0xFF);
	out8(r, 0x3C2, mode_03.misc & ~0x01);
	assert_int_equal(in8(r, 0x3D4), 0xFF);
	assert_int_equal(in_indexed(r, 0x3B4, 0x01), 0x4F);
}

static void attribute_flip_flop(void **state)
{
	struct rig *r = *state;

	set_mode(r, &mode_03);
	in8(r, 0x3DA);
	out8(r, 0x3C0, 0x13);
	assert_int_equal(in_indexed(r, 0x3D4, 0x24), 0x80);
	assert_int_equal(in8(r, 0x3C1), 0x08);
	out8(r, 0x3C0, 0x05);
	assert_int_equal(in8(r, 0x3C1), 0x05);
	assert_int_equal(in_indexed(r, 0x3D4, 0x24), 0x00);
	out8(r, 0x3C0, 0x13);
	in8(r, 0x3DA);
	out8(r, 0x3C0, 0x12);
	assert_int_equal(in8(r, 0x3C1), 0x0F);
}

static void dac_reads_back_and_masks(void **state)
{
	struct rig *r = *state;

	set_mode(r, &mode_13);
	out8(r, 0x3C7, 20);
	assert_int_equal(in8(r, 0x3C7), 3);
	assert_int_equal(in8(r, 0x3C9), 20);
	assert_int_equal(in8(r, 0x3C9), 43);
	assert_int_equal(in8(r, 0x3C9), 20 ^ 0x15);
	assert_int_equal(in8(r, 0x3C9), 21);
	out8(r, 0x3C8, 1);
	assert_int_equal(in8(r, 0x3C7), 0);
	poke(r, 0xA0000, 0xF3);
	out8(r, 0x3C6, 0x0F);
	rig_refresh(r);
	assert_int_equal(pixel(r, 0, 0), rig_color(3));
}

static void color_select_replaces_palette_bits(void **state)
{
	struct rig *r = *state;

	set_mode(r, &mode_12);
	poke(r, 0xA0000, 0x80); /* colour 15, palette 3F */
	out_attr(r, 0x14, 0x05);
	rig_refresh(r);
	assert_int_equal(pixel(r, 0, 0), rig_color(0x7F));
	out_attr(r, 0x10, 0x81);
	rig_refresh(r);
	assert_int_equal(pixel(r, 0, 0), rig_color(0x5F));
}

/* A busy machine may miss pulses of 64 us, but those it sees are whole frames apart. */
static void retrace_follows_the_clock(void **state)
{
	enum { EDGES = 5 };
	const uint64_t frame_ns = UINT64_C(900) * 449 * NS_PER_SEC / 28322000;
	struct rig *r = *state;
	uint64_t first_ns = 0;
	unsigned edges = 0, off_beat = 0;
	bool last = true;

	set_mode(r, &mode_03);
	clock_start(r->env.clock);
	while (edges < EDGES && off_beat < EDGES && clock_now(r->env.clock) < 20 * NS_PER_SEC) {
		uint8_t status = in8(r, 0x3DA);
		uint64_t now = clock_now(r->env.clock);
		bool retrace = status & 0x08;
		bool on_beat = (now - first_ns) % frame_ns < frame_ns / 50 ||
			       (now - first_ns) % frame_ns > frame_ns - frame_ns / 50;
		assert_true(!retrace || (status & 0x01));
		/* Off the beat only if the thread slept between status and time. */
		if (retrace && !last) {
			first_ns = edges ? first_ns : now;
			if (edges && !on_beat)
				off_beat++;
			else
				edges++;
		}
		last = retrace;
	}
	clock_stop(r->env.clock);
	assert_int_equal(edges, EDGES);
}

static void state_survives_save_and_load(void **state)
{
	struct rig *r = *state;
	struct strbuf saved = STRBUF_INIT;
	struct error err = ERROR_INIT;

	text_mode(r, &mode_03);
	put_cell(r, 0, 0, 'A', 0x1F);
	state_save(r->env.states, &saved);
	state_reset_all(r->env.states);
	rig_refresh(r);
	assert_int_equal(pixel(r, 0, 0), 0);
	assert_int_equal(state_load(r->env.states, saved.data, saved.len, &err), 0);
	rig_refresh(r);
	assert_cell(r, 0, 0, 'A', 0xF, 1);
	strbuf_free(&saved);
}

#define T(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(after_reset_the_screen_is_blank),
		T(text_cells_show_glyphs_in_their_colors),
		T(a_text_refresh_draws_only_the_cell_that_changed),
		T(a_new_font_redraws_the_text),
		T(attribute_bit_3_selects_the_second_font),
		T(cursor_covers_its_rows_of_its_cell),
		T(cursor_and_characters_blink),
		T(underline_shows_where_the_row_matches),
		T(forty_columns_double_their_dots),
		T(fifty_rows_of_8x8),
		T(text_screen_reports_cells_and_cursor),
		T(start_address_and_line_compare_split_the_text),
		T(panning_shifts_text),
		T(mode_13h_shows_dac_colors_doubled),
		T(mode_x_addresses_planes),
		T(mode_12h_write_modes_and_latches),
		T(map_mask_protects_planes),
		T(mode_0dh_is_doubled_both_ways),
		T(cga_modes_interleave_lines),
		T(memory_map_selects_the_window),
		T(crtc_protection_and_mono_ports),
		T(attribute_flip_flop),
		T(dac_reads_back_and_masks),
		T(color_select_replaces_palette_bits),
		T(retrace_follows_the_clock),
		T(state_survives_save_and_load),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
