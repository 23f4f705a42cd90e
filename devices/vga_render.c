/* SPDX-License-Identifier: MIT */
/*
 * Drawing: brings the surface up to date with display memory, and only what changed of it.
 *
 * A refresh derives the mode (vga_mode.c), asks the dirty log of VRAM which pages were written, and
 * redraws those scan lines that show such a page. Text has its own, finer comparison (vga_text.c).
 * When registers that change the whole picture were written, everything is redrawn.
 *
 * Each line is bounded before it is read: addresses of VGA modes are masked to the 256 KiB that a
 * VGA has, and a DISPI line that does not lie wholly within VRAM is shown black.
 */
#include "devices/vga_internal.h"
#include <stdlib.h>

enum {
	PAGE_BITS = 12,
	/* The most pages that one refresh looks at: all of the largest VRAM. */
	MAX_DIRTY_WORDS = ((VGA_MAX_VRAM_MIB << 20) >> PAGE_BITS) / 64,
	/* Dots of the longest line in a VGA or planar mode, before doubling, and one address more
	 * for panning. */
	MAX_LINE_DOTS = DISPI_MAX_XRES + 16,
};

/* VRAM pages written since the last refresh, for pages [first, first + count). */
struct dirty_pages {
	uint32_t first, count;
	bool any;
	uint64_t bits[MAX_DIRTY_WORDS];
};

void vga_damage_add(struct vga_damage *d, unsigned x, unsigned y, unsigned width, unsigned height)
{
	if (!d->x1) {
		*d = (struct vga_damage){x, y, x + width, y + height};
		return;
	}
	d->x0 = x < d->x0 ? x : d->x0;
	d->y0 = y < d->y0 ? y : d->y0;
	d->x1 = x + width > d->x1 ? x + width : d->x1;
	d->y1 = y + height > d->y1 ? y + height : d->y1;
}

/* 6-bit DAC components fill 8 bits so that 63 becomes 255. */
static uint32_t dac_color(const struct vga *v, unsigned index)
{
	const uint8_t *c = v->regs.dac + 3 * (index & v->regs.dac_mask);

	if (v->regs.dispi[DISPI_ENABLE] & DISPI_8BIT_DAC)
		return (uint32_t)c[0] << 16 | c[1] << 8 | c[2];
	uint32_t rgb = (uint32_t)(c[0] & 0x3F) << 16 | (c[1] & 0x3F) << 8 | (c[2] & 0x3F);
	return rgb << 2 | (rgb >> 4 & 0x030303);
}

/* Recomputes colors[] and palette[]; true if one of them changed. */
static bool update_colors(struct vga *v)
{
	const struct vga_regs *r = &v->regs;
	uint32_t colors[256], palette[16];

	for (unsigned i = 0; i < 256; i++)
		colors[i] = dac_color(v, i);
	/* IBM: "Attribute Address 14, Color Select": bits 7-6 always, bits 5-4 if mode bit 7. */
	for (unsigned i = 0; i < 16; i++) {
		unsigned select = r->attr[ATTR_COLOR_SELECT], p = r->attr[ATTR_PALETTE + i] & 0x3F;
		if (r->attr[ATTR_MODE] & ATTR_MODE_PALETTE_54)
			p = (p & 0x0F) | (select & 0x03) << 4;
		palette[i] = colors[p | (select & 0x0C) << 4];
	}
	if (!memcmp(colors, v->colors, sizeof(colors)) &&
	    !memcmp(palette, v->palette, sizeof(palette)))
		return false;
	memcpy(v->colors, colors, sizeof(colors));
	memcpy(v->palette, palette, sizeof(palette));
	return true;
}

/* VRAM bytes [*start, *end) that line y shows. False: it reaches beyond VRAM. */
static bool line_bytes(const struct vga *v, unsigned y, uint64_t *start, uint64_t *end)
{
	static const uint8_t pixel_bytes[] = {
		[VGA_DISPI_8] = 1,  [VGA_DISPI_15] = 2, [VGA_DISPI_16] = 2,
		[VGA_DISPI_24] = 3, [VGA_DISPI_32] = 4,
	};
	uint64_t length = (uint64_t)v->mode.width * pixel_bytes[v->mode.kind];

	*start = v->lines[y].address;
	*end = *start + length;
	return range_in(*start, length, v->vram_size);
}

static bool pages_dirty(const struct dirty_pages *d, uint64_t start, uint64_t end)
{
	for (uint64_t page = start >> PAGE_BITS; page <= (end - 1) >> PAGE_BITS; page++) {
		uint64_t n = page - d->first;
		if (n < d->count && (d->bits[n / 64] >> (n % 64) & 1))
			return true;
	}
	return false;
}

/* Whether a planar line, whose addresses may wrap, shows a dirty page. */
static bool planar_line_dirty(const struct vga *v, const struct dirty_pages *d, unsigned y)
{
	uint64_t size = ((uint64_t)v->mode.address_mask + 1) * 4;
	uint64_t start = (uint64_t)(v->lines[y].address & v->mode.address_mask) * 4;
	uint64_t end = start + (v->mode.columns + 1) * 4;

	if (end <= size)
		return pages_dirty(d, start, end);
	return pages_dirty(d, start, size) || pages_dirty(d, 0, end - size);
}

/* Fetches (and clears) the dirty bits of what the mode can show. */
static void fetch_dirty(struct vga *v, struct dirty_pages *d)
{
	uint64_t start = 0, end = VGA_MEMORY_BYTES;

	if (v->mode.kind >= VGA_DISPI_8) {
		uint64_t last_start, last_end;
		line_bytes(v, 0, &start, &last_end);
		line_bytes(v, v->mode.height - 1, &last_start, &last_end);
		start = start < v->vram_size ? start : v->vram_size - 1;
		end = last_end < v->vram_size ? last_end : v->vram_size;
	} else if (dispi_enabled(v)) {
		end = v->vram_size;
	}
	d->first = start >> PAGE_BITS;
	d->count = ((end - 1) >> PAGE_BITS) - d->first + 1;
	memset(d->bits, 0, div_round_up(d->count, 64) * sizeof(d->bits[0]));
	d->any = mem_dirty_fetch(v->env.mem, v->vram, d->first, d->count, d->bits);
}

/*
 * The bits of b, bit 7 first, one a byte. The multiplication puts copies of b 9 bits apart, so that
 * they do not overlap and bit 7 of byte k, taken alone, is bit 7 - k of b.
 */
static uint64_t expand(uint8_t b)
{
	return b * UINT64_C(0x8040201008040201) >> 7 & UINT64_C(0x0101010101010101);
}

/* Eight pixels of four planes, plane 0 being the lowest bit. */
static uint64_t planar_pixels(uint32_t planes)
{
	return expand(planes) | expand(planes >> 8) << 1 | expand(planes >> 16) << 2 |
	       expand(planes >> 24) << 3;
}

/*
 * CGA shift mode: planes 0 and 2 give the first four pixels, planes 1 and 3 the next four; each
 * pixel is two neighbouring bits of the lower plane below two of the upper (FreeVGA, "Graphics Mode
 * Register", Shift Reg).
 */
static uint64_t interleaved_pixels(uint32_t planes)
{
	uint64_t pixels = 0;

	for (unsigned i = 0; i < 8; i++) {
		uint32_t pair = planes >> (i < 4 ? 0 : 8);
		unsigned shift = 6 - 2 * (i & 3);
		uint64_t p = (pair >> shift & 3) | (pair >> 16 >> shift & 3) << 2;
		pixels |= p << (8 * i);
	}
	return pixels;
}

static void draw_vga_line(const struct vga *v, const struct vga_line *line, uint32_t *out)
{
	const struct vga_mode *m = &v->mode;
	uint8_t index[MAX_LINE_DOTS] __attribute__((aligned(8)));
	const uint32_t *colors = m->kind == VGA_256 ? v->colors : v->palette;
	uint64_t planes = (v->regs.attr[ATTR_PLANES] & 0x0F) * UINT64_C(0x0101010101010101);
	unsigned pixels = m->width / m->dot_width;
	unsigned step = m->kind == VGA_256 ? 4 : 8; /* pixels an address */
	unsigned addresses = div_round_up(pixels + line->pan, step);

	for (unsigned c = 0; c < addresses; c++) {
		uint32_t word = load_le32(v->vram->host +
					  4 * (size_t)((line->address + c) & m->address_mask));
		if (m->kind == VGA_256)
			store_le32(index + 4 * c, word);
		else if (m->kind == VGA_INTERLEAVED)
			store_le64(index + 8 * c, interleaved_pixels(word) & planes);
		else
			store_le64(index + 8 * c, planar_pixels(word) & planes);
	}
	const uint8_t *in = index + line->pan;
	switch (m->dot_width) {
	case 1:
		for (unsigned i = 0; i < pixels; i++)
			out[i] = colors[in[i]];
		break;
	case 2:
		for (unsigned i = 0; i < pixels; i++)
			out[2 * i] = out[2 * i + 1] = colors[in[i]];
		break;
	default:
		for (unsigned i = 0; i < m->width; i++)
			out[i] = colors[in[i / m->dot_width]];
		break;
	}
}

/* n bits of a component to 8, so that all ones become 255. */
static uint32_t widen5(uint32_t c)
{
	return c << 3 | c >> 2;
}

static uint32_t widen6(uint32_t c)
{
	return c << 2 | c >> 4;
}

static void draw_packed_line(const struct vga *v, const uint8_t *in, uint32_t *out)
{
	unsigned width = v->mode.width;

	switch (v->mode.kind) {
	case VGA_DISPI_8:
		for (unsigned i = 0; i < width; i++)
			out[i] = v->colors[in[i]];
		break;
	case VGA_DISPI_15:
		for (unsigned i = 0; i < width; i++) {
			uint32_t p = load_le16(in + 2 * i);
			out[i] = widen5(p >> 10 & 0x1F) << 16 | widen5(p >> 5 & 0x1F) << 8 |
				 widen5(p & 0x1F);
		}
		break;
	case VGA_DISPI_16:
		for (unsigned i = 0; i < width; i++) {
			uint32_t p = load_le16(in + 2 * i);
			out[i] = widen5(p >> 11) << 16 | widen6(p >> 5 & 0x3F) << 8 |
				 widen5(p & 0x1F);
		}
		break;
	case VGA_DISPI_24:
		for (unsigned i = 0; i < width; i++)
			out[i] = (uint32_t)in[3 * i + 2] << 16 | in[3 * i + 1] << 8 | in[3 * i];
		break;
	default:
		for (unsigned i = 0; i < width; i++)
			out[i] = load_le32(in + 4 * i) & 0xFFFFFF;
		break;
	}
}

static void refresh_graphics(struct vga *v, const struct dirty_pages *d, struct vga_damage *damage)
{
	const struct vga_mode *m = &v->mode;
	bool packed = m->kind >= VGA_DISPI_8;

	if (!v->redraw && !d->any)
		return;
	for (unsigned y = 0; y < m->height; y++) {
		uint32_t *out = v->display.surface.pixels + (size_t)y * m->width;
		uint64_t start = 0, end = 0;
		bool inside = !packed || line_bytes(v, y, &start, &end);
		bool dirty = v->redraw || (packed ? inside && pages_dirty(d, start, end)
						  : planar_line_dirty(v, d, y));
		if (!dirty)
			continue;
		if (!inside)
			memset(out, 0, m->width * sizeof(*out));
		else if (packed)
			draw_packed_line(v, v->vram->host + start, out);
		else if (y && v->lines[y].address == v->lines[y - 1].address &&
			 v->lines[y].pan == v->lines[y - 1].pan) /* up to date by now */
			memcpy(out, out - m->width, m->width * sizeof(*out));
		else
			draw_vga_line(v, &v->lines[y], out);
		vga_damage_add(damage, 0, y, m->width, 1);
	}
}

/* Gives the surface the mode's size. False if the host has no memory for it: the old one stays. */
static bool resize_surface(struct vga *v)
{
	struct surface *s = &v->display.surface;

	if (s->pixels && s->width == v->mode.width && s->height == v->mode.height)
		return true;
	uint32_t *pixels = calloc((size_t)v->mode.width * v->mode.height, sizeof(*pixels));
	if (!pixels)
		return false;
	free(s->pixels);
	*s = (struct surface){pixels, v->mode.width, v->mode.height};
	v->redraw = true;
	return true;
}

static void vga_refresh(void *opaque, struct surface *surface, struct rect *dirty, bool full)
{
	struct vga *v = opaque;
	struct vga_damage damage = {0};
	struct dirty_pages pages;

	*dirty = (struct rect){0};
	vga_mode_update(v);
	if (full)
		v->redraw = true;
	if (v->colors_changed && update_colors(v))
		v->redraw = true;
	v->colors_changed = false;
	if (!resize_surface(v))
		return;
	if (v->mode.kind == VGA_BLANK) {
		if (v->redraw) {
			memset(v->display.surface.pixels, 0,
			       (size_t)v->mode.width * v->mode.height * sizeof(uint32_t));
			vga_damage_add(&damage, 0, 0, v->mode.width, v->mode.height);
		}
	} else {
		fetch_dirty(v, &pages);
		if (v->mode.kind == VGA_TEXT)
			vga_text_refresh(v, pages.any, &damage);
		else
			refresh_graphics(v, &pages, &damage);
	}
	v->redraw = v->lines_moved = false;
	*surface = v->display.surface;
	if (damage.x1) {
		*dirty = (struct rect){damage.x0, damage.y0, damage.x1 - damage.x0,
				       damage.y1 - damage.y0};
		v->display.updates++;
	}
}

const struct display_ops vga_display_ops = {
	.refresh = vga_refresh,
	.text = vga_text_screen,
};
