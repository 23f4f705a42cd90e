/* SPDX-License-Identifier: MIT */
/*
 * The Bochs VBE DISPI interface: high-resolution modes by sixteen 16-bit registers instead of CRTC
 * timings. SeaVGABIOS and the guests' "bochs" drivers program it.
 *
 *   0 ID              reads B0C5h; a guest may ask for an older version by writing B0C0h..B0C5h
 *   1 XRES  2 YRES    3 BPP (4 8 15 16 24 32)
 *   4 ENABLE          01 enabled, 02 get capabilities (1..3 read as maxima), 10 bank unit 32 KiB,
 *                     20 8-bit DAC, 40 linear frame buffer, 80 do not clear memory
 *   5 BANK            which bank the window at A0000h shows
 *   6 VIRT_WIDTH      pixels a line; 7 VIRT_HEIGHT: lines that fit (read only)
 *   8 X_OFFSET  9 Y_OFFSET   the picture's place in the virtual screen
 *   A VIDEO_MEMORY_64K       VRAM in 64 KiB units (read only)
 *
 * Ports: index at 1CEh, data at 1CFh or 1D0h, 16 bits each. Document: "Bochs VBE Display API", by
 * its authors in Bochs' source documentation; QEMU's docs/specs/standard-vga.txt for the MMIO form.
 *
 * While a mode is enabled its registers always describe a picture that lies within VRAM: values
 * that do not are cut (widths to multiples of 8, heights to what fits) or set back to 0 (offsets).
 */
#include "devices/vga_internal.h"
#include "lib/log.h"

unsigned dispi_bits_per_pixel(const struct vga *v)
{
	unsigned bpp = v->regs.dispi[DISPI_BPP];
	return bpp == 15 ? 16 : bpp;
}

uint32_t dispi_pitch(const struct vga *v)
{
	unsigned width = v->regs.dispi[DISPI_VIRT_WIDTH], bits = dispi_bits_per_pixel(v);

	return bits == 4 ? width / 8 : width * (bits / 8);
}

static unsigned cut(unsigned value, unsigned min, unsigned max)
{
	return value < min ? min : value > max ? max : value;
}

void dispi_fix(struct vga *v)
{
	uint16_t *d = v->regs.dispi;

	switch (d[DISPI_BPP]) {
	case 4:
	case 8:
	case 15:
	case 16:
	case 24:
	case 32: break;
	default: d[DISPI_BPP] = 8; break;
	}
	d[DISPI_XRES] = cut(d[DISPI_XRES] & ~7u, 8, DISPI_MAX_XRES);
	d[DISPI_VIRT_WIDTH] = cut(d[DISPI_VIRT_WIDTH] & ~7u, d[DISPI_XRES], 2 * DISPI_MAX_XRES);

	/* 4 bits a pixel: a plane is a quarter of VRAM. */
	uint32_t available = d[DISPI_BPP] == 4 ? v->vram_size / 4 : v->vram_size;
	uint32_t pitch = dispi_pitch(v), lines = available / pitch;
	uint32_t banks = v->vram_size / (d[DISPI_ENABLE] & DISPI_BANK_32K ? 0x8000 : VGA_BANK_SIZE);

	d[DISPI_YRES] = cut(d[DISPI_YRES], 1, lines < DISPI_MAX_YRES ? lines : DISPI_MAX_YRES);
	if (d[DISPI_Y_OFFSET] + (uint32_t)d[DISPI_YRES] > lines)
		d[DISPI_Y_OFFSET] = 0;
	if (d[DISPI_X_OFFSET] + (uint32_t)d[DISPI_XRES] > d[DISPI_VIRT_WIDTH])
		d[DISPI_X_OFFSET] = 0;
	/* The window shows 64 KiB from the bank on. */
	if (dispi_bank_offset(v) > v->vram_size - VGA_BANK_SIZE)
		d[DISPI_BANK] %= banks - (d[DISPI_ENABLE] & DISPI_BANK_32K ? 1 : 0);
}

void dispi_reset(struct vga *v)
{
	v->regs.dispi[DISPI_ID] = DISPI_ID5;
}

uint16_t dispi_read(struct vga *v, unsigned index)
{
	const uint16_t *d = v->regs.dispi;

	if (index >= DISPI_REGS)
		return 0;
	if (d[DISPI_ENABLE] & DISPI_GETCAPS) {
		switch (index) {
		case DISPI_XRES: return DISPI_MAX_XRES;
		case DISPI_YRES: return DISPI_MAX_YRES;
		case DISPI_BPP: return DISPI_MAX_BPP;
		}
	}
	switch (index) {
	case DISPI_VIDEO_MEMORY_64K: return v->vram_size / 0x10000;
	case DISPI_VIRT_HEIGHT:
		if (dispi_enabled(v)) {
			uint32_t available = d[DISPI_BPP] == 4 ? v->vram_size / 4 : v->vram_size;
			uint32_t lines = available / dispi_pitch(v);
			return lines < UINT16_MAX ? lines : UINT16_MAX;
		}
		return d[DISPI_VIRT_HEIGHT];
	default: return d[index];
	}
}

static void clear_screen(struct vga *v)
{
	const uint16_t *d = v->regs.dispi;
	uint64_t bytes = (uint64_t)dispi_pitch(v) * d[DISPI_YRES] * (d[DISPI_BPP] == 4 ? 4 : 1);

	memset(v->vram->host, 0, bytes);
	mem_dirty_mark(v->vram, 0, bytes);
}

static void write_enable(struct vga *v, uint16_t value)
{
	uint16_t *d = v->regs.dispi;
	bool was_enabled = dispi_enabled(v);

	d[DISPI_ENABLE] = value & DISPI_ENABLE_BITS;
	v->colors_changed = true; /* the DAC may have changed its width */
	if (dispi_enabled(v) && !was_enabled) {
		d[DISPI_VIRT_WIDTH] = 0;
		d[DISPI_X_OFFSET] = 0;
		d[DISPI_Y_OFFSET] = 0;
		dispi_fix(v);
		trace(TRACE_VGA, "vbe: %ux%u, %u bits", d[DISPI_XRES], d[DISPI_YRES], d[DISPI_BPP]);
		if (!(value & DISPI_NOCLEARMEM))
			clear_screen(v);
	} else if (!dispi_enabled(v)) {
		d[DISPI_BANK] = 0;
	}
}

void dispi_write(struct vga *v, unsigned index, uint16_t value)
{
	uint16_t *d = v->regs.dispi;

	switch (index) {
	case DISPI_ID:
		if (value >= DISPI_ID0 && value <= DISPI_ID5)
			d[DISPI_ID] = value;
		return;
	case DISPI_ENABLE: write_enable(v, value); break;
	case DISPI_XRES:
	case DISPI_YRES:
	case DISPI_BPP:
	case DISPI_BANK:
	case DISPI_VIRT_WIDTH:
	case DISPI_X_OFFSET:
	case DISPI_Y_OFFSET: d[index] = value; break;
	default: return; /* read only or unknown */
	}
	if (dispi_enabled(v))
		dispi_fix(v);
	vga_window_update(v);
}
