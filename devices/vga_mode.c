/* SPDX-License-Identifier: MIT */
/*
 * From registers to picture: which kind of mode the CRTC, sequencer, graphics and attribute
 * controllers (or the DISPI registers) describe, how large it is, and at which address each scan
 * line starts.
 *
 * The result has two parts. `struct vga_mode` is the shape: when it changes, everything is redrawn.
 * `struct vga_scan` says which addresses are shown (start address, panning, split); when only that
 * changes, text needs just those cells redrawn that differ.
 *
 * Lines follow the CRTC's counters (IBM PS/2 Hardware Interface Technical Reference, "CRT
 * Controller Registers"; FreeVGA, "CRT Controller Registers", "Scrolling and panning"): the row
 * scan counter runs from the preset row to the maximum scan line, then the address advances by the
 * offset register; with double scan each line is shown twice; after the line named by line compare
 * the address and the row counter begin again at 0.
 *
 * Addresses: in word and doubleword mode the chip shifts its counter left, and in odd/even and
 * chain-4 mode the processor's addresses skip plane bytes in the same way. Both are left out on
 * both sides (see vga_mem.c), so a picture address is always the plain counter value. The one place
 * where it shows is the replacement of address bits 13 and 14 by the row counter (CGA's and
 * Hercules' interleaved lines), which moves down by as many bits as the shift would have been.
 *
 * Left out: counting by 2 and 4 (count-by bits of CRTC 14h and 17h), 9-dot graphics modes, and the
 * border around the picture.
 */
#include "devices/vga_internal.h"

enum { BLANK_WIDTH = 720, BLANK_HEIGHT = 400 };

static bool screen_is_off(const struct vga *v)
{
	const struct vga_regs *r = &v->regs;

	if (!(r->attr_index & ATTR_PAS) || (r->seq[SEQ_CLOCKING] & CLOCKING_SCREEN_OFF))
		return true;
	return !dispi_enabled(v) && !(r->crtc[CRTC_MODE] & CRTC_MODE_SYNC_ON);
}

static void derive_dispi(const struct vga *v, struct vga_mode *m, struct vga_scan *s)
{
	const uint16_t *d = v->regs.dispi;
	unsigned bits = dispi_bits_per_pixel(v);

	m->width = d[DISPI_XRES];
	m->height = d[DISPI_YRES];
	m->dot_width = 1;
	s->pitch = dispi_pitch(v);
	s->line_compare = UINT32_MAX;
	switch (d[DISPI_BPP]) {
	case 4: m->kind = VGA_PLANAR; break;
	case 15: m->kind = VGA_DISPI_15; break;
	case 16: m->kind = VGA_DISPI_16; break;
	case 24: m->kind = VGA_DISPI_24; break;
	case 32: m->kind = VGA_DISPI_32; break;
	default: m->kind = VGA_DISPI_8; break;
	}
	if (m->kind == VGA_PLANAR) {
		m->columns = m->width / 8;
		m->address_mask = v->vram_size / 4 - 1;
		s->start = d[DISPI_Y_OFFSET] * s->pitch + d[DISPI_X_OFFSET] / 8;
		s->pan = s->pan_below = d[DISPI_X_OFFSET] & 7;
	} else {
		m->address_mask = UINT32_MAX;
		s->start = d[DISPI_Y_OFFSET] * s->pitch + d[DISPI_X_OFFSET] * (bits / 8);
	}
}

/* Dots to shift left, from the pel panning register (IBM: "Horizontal PEL Panning Register"). */
static unsigned pel_panning(const struct vga *v, const struct vga_mode *m)
{
	unsigned pan = v->regs.attr[ATTR_PEL_PAN] & 0x0F;

	if (m->kind == VGA_256)
		return (pan & 7) >> 1;
	if (m->kind == VGA_TEXT && m->cell_width == 9)
		return pan >= 8 ? 0 : pan + 1;
	return pan & 7;
}

static unsigned with_overflow(const struct vga_regs *r, enum vga_crtc_reg low, unsigned bit8,
			      unsigned bit9)
{
	return r->crtc[low] | (r->crtc[CRTC_OVERFLOW] & bit8 ? 0x100u : 0) |
	       (r->crtc[CRTC_OVERFLOW] & bit9 ? 0x200u : 0);
}

static void derive_legacy(const struct vga *v, struct vga_mode *m, struct vga_scan *s)
{
	const struct vga_regs *r = &v->regs;
	const uint8_t *crtc = r->crtc;
	unsigned dots = 8;

	if (!(r->gc[GC_MISC] & GC_MISC_GRAPHICS)) {
		m->kind = VGA_TEXT;
		m->underline_row = crtc[CRTC_UNDERLINE] & UNDERLINE_ROW;
		m->char_map = r->seq[SEQ_CHAR_MAP];
		dots = r->seq[SEQ_CLOCKING] & CLOCKING_8DOT ? 8 : 9;
	} else if (r->gc[GC_MODE] & GC_MODE_SHIFT_256) {
		m->kind = VGA_256;
	} else if (r->gc[GC_MODE] & GC_MODE_SHIFT_INTERLEAVE) {
		m->kind = VGA_INTERLEAVED;
	} else {
		m->kind = VGA_PLANAR;
	}
	m->columns = crtc[CRTC_HDISPLAY_END] + 1u;
	m->cell_width = dots;
	/* A 256-colour pixel lasts two dots; half the dot clock doubles each dot. */
	m->dot_width = m->kind == VGA_256 ? 2 : 1;
	if (r->seq[SEQ_CLOCKING] & CLOCKING_HALF)
		m->dot_width *= 2;
	m->width = m->columns * dots * (r->seq[SEQ_CLOCKING] & CLOCKING_HALF ? 2 : 1);
	m->height = with_overflow(r, CRTC_VDISPLAY_END, OVERFLOW_VDISPLAY8, OVERFLOW_VDISPLAY9) + 1;
	if (crtc[CRTC_MODE] & CRTC_MODE_SCAN_DIV2)
		m->height *= 2;
	m->address_mask = VGA_PLANE_MASK;

	s->start = crtc[CRTC_START_HIGH] << 8 | crtc[CRTC_START_LOW];
	s->start += (crtc[CRTC_PRESET_ROW] & PRESET_BYTE_PAN) >> PRESET_BYTE_PAN_SHIFT;
	s->pitch = crtc[CRTC_OFFSET] * 2u;
	s->line_compare = crtc[CRTC_LINE_COMPARE] |
			  (crtc[CRTC_OVERFLOW] & OVERFLOW_LINE_COMPARE8 ? 0x100u : 0) |
			  (crtc[CRTC_MAX_SCAN] & MAX_SCAN_LINE_COMPARE9 ? 0x200u : 0);
	if (crtc[CRTC_MODE] & CRTC_MODE_SCAN_DIV2)
		s->line_compare = s->line_compare * 2 + 1;
	s->preset_row = crtc[CRTC_PRESET_ROW] & PRESET_ROW_SCAN;
	s->max_row = crtc[CRTC_MAX_SCAN] & MAX_SCAN_LINES;
	s->double_scan = !!(crtc[CRTC_MAX_SCAN] & MAX_SCAN_DOUBLE);
	s->pan = pel_panning(v, m);
	s->pan_below = r->attr[ATTR_MODE] & ATTR_MODE_PAN_COMPAT ? 0 : s->pan;
	if (m->kind != VGA_TEXT) {
		unsigned shift = crtc[CRTC_UNDERLINE] & UNDERLINE_DWORD ? 2
				 : crtc[CRTC_MODE] & CRTC_MODE_BYTE     ? 0
									: 1;
		if (!(crtc[CRTC_MODE] & CRTC_MODE_MAP13))
			s->row_bit0 = 1u << (13 - shift);
		if (!(crtc[CRTC_MODE] & CRTC_MODE_MAP14))
			s->row_bit1 = 1u << (14 - shift);
	}
}

static uint32_t replace_bits(uint32_t address, const struct vga_scan *s, unsigned row)
{
	address &= ~(s->row_bit0 | s->row_bit1);
	if (row & 1)
		address |= s->row_bit0;
	if (row & 2)
		address |= s->row_bit1;
	return address;
}

/* Runs the CRTC's counters over the frame. */
static void build_lines(struct vga *v)
{
	const struct vga_scan *s = &v->scan;
	uint32_t address = s->start;
	unsigned row = s->preset_row, pan = s->pan, repeat = 0;
	bool new_strip = true;

	v->strip_count = 0;
	for (unsigned y = 0; y < v->mode.height; y++) {
		v->lines[y] = (struct vga_line){
			.address = replace_bits(address, s, row),
			.row = row,
			.pan = pan,
		};
		if (new_strip)
			v->strips[v->strip_count++].first = y;
		v->strips[v->strip_count - 1].end = y + 1;
		new_strip = false;
		if (y == s->line_compare) {
			address = 0;
			row = repeat = 0;
			pan = s->pan_below;
			new_strip = true;
		} else if (s->double_scan && !repeat) {
			repeat = 1;
		} else if (row == s->max_row) {
			address += s->pitch;
			row = repeat = 0;
			new_strip = true;
		} else {
			/* A preset row above the maximum counts through the counter's 5 bits. */
			row = (row + 1) & MAX_SCAN_LINES;
			repeat = 0;
		}
	}
}

void vga_mode_update(struct vga *v)
{
	struct vga_mode m;
	struct vga_scan s;

	memset(&m, 0, sizeof(m));
	memset(&s, 0, sizeof(s));
	if (screen_is_off(v)) {
		m.kind = VGA_BLANK;
		m.width = v->mode.width ? v->mode.width : BLANK_WIDTH;
		m.height = v->mode.height ? v->mode.height : BLANK_HEIGHT;
	} else if (dispi_enabled(v)) {
		derive_dispi(v, &m, &s);
	} else {
		derive_legacy(v, &m, &s);
	}
	bool reshaped = memcmp(&m, &v->mode, sizeof(m)) != 0;
	if (!reshaped && memcmp(&s, &v->scan, sizeof(s)) == 0)
		return;
	uint32_t start = s.start;
	s.start = v->scan.start;
	if (reshaped || m.kind != VGA_TEXT || memcmp(&s, &v->scan, sizeof(s)) != 0)
		v->redraw = true;
	s.start = start;
	v->mode = m;
	v->scan = s;
	v->lines_moved = true;
	build_lines(v);
}
