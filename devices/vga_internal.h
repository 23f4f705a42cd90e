/* SPDX-License-Identifier: MIT */
/* What the files of the VGA share: registers by name, the device's struct, the seams between files.
 */
#ifndef DEVICES_VGA_INTERNAL_H
#define DEVICES_VGA_INTERNAL_H

#include "core/device.h"
#include "core/display.h"
#include "core/iobus.h"
#include "core/memory.h"
#include "devices/pci.h"
#include "devices/vga.h"
#include "lib/bytes.h"
#include <stdbool.h>
#include <stdint.h>

/* Ports (IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem"; FreeVGA). */
enum vga_port {
	VGA_PORT_CRTC_MONO = 0x3B4, /* index; data at +1 */
	VGA_PORT_STATUS1_MONO = 0x3BA,
	VGA_PORT_ATTR = 0x3C0, /* index and data, in turn */
	VGA_PORT_ATTR_READ = 0x3C1,
	VGA_PORT_MISC_WRITE = 0x3C2, /* read: input status 0 */
	VGA_PORT_SEQ = 0x3C4,
	VGA_PORT_SEQ_DATA = 0x3C5,
	VGA_PORT_DAC_MASK = 0x3C6,
	VGA_PORT_DAC_READ_INDEX = 0x3C7, /* read: DAC state */
	VGA_PORT_DAC_WRITE_INDEX = 0x3C8,
	VGA_PORT_DAC_DATA = 0x3C9,
	VGA_PORT_FEATURE_READ = 0x3CA,
	VGA_PORT_MISC_READ = 0x3CC,
	VGA_PORT_GC = 0x3CE,
	VGA_PORT_GC_DATA = 0x3CF,
	VGA_PORT_CRTC_COLOR = 0x3D4,
	VGA_PORT_STATUS1_COLOR = 0x3DA, /* write: feature control */
};

enum vga_misc_bits {
	MISC_COLOR = 0x01, /* CRTC and status at 3Dxh, else 3Bxh */
	MISC_RAM_ENABLE = 0x02,
	MISC_CLOCK = 0x0C,
	MISC_CLOCK_28MHZ = 0x04,
};

enum vga_status1_bits {
	STATUS1_DISPLAY_DISABLED = 0x01, /* in horizontal or vertical blanking */
	STATUS1_VRETRACE = 0x08,
};

enum { STATUS0_SWITCH_SENSE = 0x10 }; /* a colour monitor answers the DAC's comparator */

enum vga_seq_reg { SEQ_RESET, SEQ_CLOCKING, SEQ_MAP_MASK, SEQ_CHAR_MAP, SEQ_MEMORY, SEQ_REGS = 8 };
enum {
	CLOCKING_8DOT = 0x01,
	CLOCKING_HALF = 0x08, /* dot clock halved: every dot twice as wide */
	CLOCKING_SCREEN_OFF = 0x20,
	SEQ_MEMORY_ODD_EVEN_OFF = 0x04,
	SEQ_MEMORY_CHAIN4 = 0x08,
};

enum vga_gc_reg {
	GC_SET_RESET,
	GC_ENABLE_SET_RESET,
	GC_COLOR_COMPARE,
	GC_ROTATE,
	GC_READ_MAP,
	GC_MODE,
	GC_MISC,
	GC_COLOR_DONT_CARE,
	GC_BIT_MASK,
	GC_REGS = 16
};
enum {
	GC_ROTATE_COUNT = 0x07,
	GC_ROTATE_FUNCTION = 0x18,
	GC_ROTATE_FUNCTION_SHIFT = 3,
	GC_MODE_WRITE = 0x03,
	GC_MODE_READ_COMPARE = 0x08,
	GC_MODE_ODD_EVEN = 0x10,
	GC_MODE_SHIFT_INTERLEAVE = 0x20,
	GC_MODE_SHIFT_256 = 0x40,
	GC_MISC_GRAPHICS = 0x01,
	GC_MISC_MAP = 0x0C,
	GC_MISC_MAP_SHIFT = 2,
};

enum vga_crtc_reg {
	CRTC_HTOTAL = 0x00,
	CRTC_HDISPLAY_END = 0x01,
	CRTC_VTOTAL = 0x06,
	CRTC_OVERFLOW = 0x07,
	CRTC_PRESET_ROW = 0x08,
	CRTC_MAX_SCAN = 0x09,
	CRTC_CURSOR_START = 0x0A,
	CRTC_CURSOR_END = 0x0B,
	CRTC_START_HIGH = 0x0C,
	CRTC_START_LOW = 0x0D,
	CRTC_CURSOR_HIGH = 0x0E,
	CRTC_CURSOR_LOW = 0x0F,
	CRTC_VRETRACE_START = 0x10,
	CRTC_VRETRACE_END = 0x11,
	CRTC_VDISPLAY_END = 0x12,
	CRTC_OFFSET = 0x13,
	CRTC_UNDERLINE = 0x14,
	CRTC_MODE = 0x17,
	CRTC_LINE_COMPARE = 0x18,
	CRTC_REGS = 0x19,
	CRTC_LATCH = 0x22,      /* undocumented, read only: the latch that GC_READ_MAP selects */
	CRTC_ATTR_STATE = 0x24, /* undocumented, read only: bit 7 is the attribute flip-flop */
};
enum {
	OVERFLOW_VTOTAL8 = 0x01,
	OVERFLOW_VDISPLAY8 = 0x02,
	OVERFLOW_VRETRACE8 = 0x04,
	OVERFLOW_LINE_COMPARE8 = 0x10,
	OVERFLOW_VTOTAL9 = 0x20,
	OVERFLOW_VDISPLAY9 = 0x40,
	OVERFLOW_VRETRACE9 = 0x80,
	PRESET_ROW_SCAN = 0x1F,
	PRESET_BYTE_PAN = 0x60,
	PRESET_BYTE_PAN_SHIFT = 5,
	MAX_SCAN_LINES = 0x1F,
	MAX_SCAN_LINE_COMPARE9 = 0x40,
	MAX_SCAN_DOUBLE = 0x80,
	CURSOR_SCAN = 0x1F,
	CURSOR_OFF = 0x20,
	CURSOR_SKEW = 0x60,
	CURSOR_SKEW_SHIFT = 5,
	VRETRACE_END_SCAN = 0x0F,
	VRETRACE_PROTECT = 0x80, /* registers 0..7 cannot be written, but for line compare bit 8 */
	UNDERLINE_ROW = 0x1F,
	UNDERLINE_DWORD = 0x40,
	CRTC_MODE_MAP13 = 0x01, /* clear: address bit 13 is row scan bit 0 */
	CRTC_MODE_MAP14 = 0x02, /* clear: address bit 14 is row scan bit 1 */
	CRTC_MODE_SCAN_DIV2 = 0x04,
	CRTC_MODE_BYTE = 0x40,
	CRTC_MODE_SYNC_ON = 0x80,
};

enum vga_attr_reg {
	ATTR_PALETTE = 0x00,
	ATTR_MODE = 0x10,
	ATTR_OVERSCAN = 0x11,
	ATTR_PLANES = 0x12,
	ATTR_PEL_PAN = 0x13,
	ATTR_COLOR_SELECT = 0x14,
	ATTR_REGS = 0x15,
	ATTR_INDEX = 0x1F,
	ATTR_PAS = 0x20, /* index bit 5, palette address source: set while the screen is driven */
};
enum {
	ATTR_MODE_LINE_GRAPHICS = 0x04,
	ATTR_MODE_BLINK = 0x08,
	ATTR_MODE_PAN_COMPAT = 0x20, /* no panning below the split */
	ATTR_MODE_PALETTE_54 = 0x80,
};

/* Text attribute byte. */
enum {
	TEXT_ATTR_FG = 0x0F,
	TEXT_ATTR_FONT_A = 0x08,
	TEXT_ATTR_UNDERLINE_MASK = 0x77,
	TEXT_ATTR_UNDERLINE = 0x01,
	TEXT_ATTR_BLINK = 0x80,
};

/* Bochs VBE DISPI interface: index at 1CEh, data at 1CFh (and 1D0h). */
enum {
	DISPI_PORT_INDEX = 0x1CE,
	DISPI_PORT_DATA = 0x1CF,
	DISPI_PORT_DATA_ALIGNED = 0x1D0,
	DISPI_PORTS = 4, /* the aligned data word ends at 1D1h */
};
enum dispi_reg {
	DISPI_ID,
	DISPI_XRES,
	DISPI_YRES,
	DISPI_BPP,
	DISPI_ENABLE,
	DISPI_BANK,
	DISPI_VIRT_WIDTH,
	DISPI_VIRT_HEIGHT,
	DISPI_X_OFFSET,
	DISPI_Y_OFFSET,
	DISPI_VIDEO_MEMORY_64K,
	DISPI_REGS
};
enum {
	DISPI_ID0 = 0xB0C0,
	DISPI_ID5 = 0xB0C5,
	DISPI_ENABLED = 0x01,
	DISPI_GETCAPS = 0x02,
	DISPI_BANK_32K = 0x10,
	DISPI_8BIT_DAC = 0x20,
	DISPI_LFB_ENABLED = 0x40,
	DISPI_NOCLEARMEM = 0x80,
	DISPI_ENABLE_BITS = 0xF3,
	DISPI_MAX_XRES = 7680,
	DISPI_MAX_YRES = 4320,
	DISPI_MAX_BPP = 32,
};

enum {
	VGA_WINDOW_BASE = 0xA0000,
	VGA_WINDOW_SIZE = 0x20000,
	VGA_BANK_SIZE = 0x10000,
	VGA_PLANE_MASK = 0xFFFF,    /* 64 KiB a plane */
	VGA_MEMORY_BYTES = 0x40000, /* what the VGA itself addresses; the rest is DISPI's */
	VGA_FONT_GLYPH_BYTES = 32,
	VGA_FONT_BYTES = 256 * VGA_FONT_GLYPH_BYTES,
	VGA_MAX_HEIGHT = DISPI_MAX_YRES,
	VGA_MAX_COLUMNS = 256,
};

/* Everything the guest can see but display memory. */
struct vga_regs {
	uint8_t misc_output, feature_control;
	uint8_t seq_index, seq[SEQ_REGS];
	uint8_t gc_index, gc[GC_REGS];
	uint8_t crtc_index, crtc[CRTC_REGS];
	uint8_t attr_index, attr[ATTR_REGS];
	bool attr_data_next; /* the flip-flop of 3C0h */
	uint8_t dac_mask, dac_read_index, dac_write_index;
	uint8_t dac_component; /* 0..2: the next of red, green, blue at 3C9h */
	bool dac_reading;      /* the last index written was the read index */
	uint8_t dac_latch[3];  /* written components wait here until blue completes them */
	uint8_t dac[3 * 256];
	uint32_t latch; /* one byte a plane, plane 0 lowest */
	uint16_t dispi_index, dispi[DISPI_REGS];
};

enum vga_kind {
	VGA_BLANK,
	VGA_TEXT,
	VGA_PLANAR,      /* one bit a plane: 16 colours, or fewer by the plane enable register */
	VGA_INTERLEAVED, /* two bits a pixel, CGA's 4 colours */
	VGA_256,
	VGA_DISPI_8,
	VGA_DISPI_15,
	VGA_DISPI_16,
	VGA_DISPI_24,
	VGA_DISPI_32,
};

/* The shape of the picture. Compared with memcmp: zero it first. */
struct vga_mode {
	uint32_t kind; /* enum vga_kind */
	uint32_t width, height;
	uint32_t columns;    /* character clocks (addresses) a line */
	uint32_t cell_width; /* text: 8 or 9 */
	uint32_t dot_width;  /* surface pixels a dot: 1, 2 or 4 */
	uint32_t address_mask;
	uint32_t underline_row;
	uint32_t char_map; /* text: the fonts */
};

/* Which addresses its lines show. Compared with memcmp: zero it first. */
struct vga_scan {
	uint32_t start, pitch; /* plane addresses, or bytes in packed DISPI modes */
	uint32_t line_compare; /* the last line before the split */
	uint32_t preset_row, max_row;
	uint32_t double_scan;
	uint32_t pan, pan_below;     /* dots, above and below the split */
	uint32_t row_bit0, row_bit1; /* address bits that row scan bits 0 and 1 replace, or 0 */
};

/* Where a scan line starts. */
struct vga_line {
	uint32_t address; /* character/plane address, or byte offset for packed DISPI modes */
	uint8_t row;      /* row scan counter: the glyph's line */
	uint8_t pan;      /* dots to shift left */
};

/* Scan lines [first, end) that show one row of text cells, none of them split by line compare. */
struct vga_strip {
	uint16_t first, end;
};

/* Pixels of the surface that changed: [x0, x1) by [y0, y1); empty when x1 is 0. */
struct vga_damage {
	unsigned x0, y0, x1, y1;
};

struct vga {
	struct vga_regs regs;

	struct device_env env;
	struct mem_region *vram;
	uint32_t vram_size; /* a power of two, at least 1 MiB */
	struct mem_region *window_region;
	struct mem_mapping *window; /* the callbacks */
	struct mem_mapping
		*direct; /* VRAM itself in the window while that is equivalent; or NULL */
	uint32_t direct_base, direct_size, direct_offset;
	struct io_range *ports[6];

	bool has_pci;
	struct pci_device pci;
	struct mem_region *mmio, *rom;
	uint8_t edid[128];

	/* The picture: derived from the registers by vga_mode_update(). */
	struct display display;
	struct vga_mode mode;
	struct vga_line lines[VGA_MAX_HEIGHT];
	bool redraw; /* the whole surface is out of date */
	bool colors_changed;
	uint32_t colors[256]; /* DAC as XRGB, by DAC index */
	uint32_t palette[16]; /* attribute palette as XRGB */
	struct vga_scan scan;
	bool lines_moved; /* lines[] show other addresses than at the last refresh */

	/* Text: what is on the surface now. */
	struct vga_strip strips[VGA_MAX_HEIGHT];
	unsigned strip_count;
	uint32_t *cells; /* strip_count * cells_per_strip */
	size_t cells_allocated;
	bool any_blinking;
	bool text_written;               /* dirty bits were fetched by somebody who drew nothing */
	uint32_t text_key;               /* cursor and blink phase at the last refresh */
	uint8_t font[2][VGA_FONT_BYTES]; /* A (attribute bit 3 set), B */

	uint64_t timing_frame_ns; /* 0: compute again */
	uint32_t timing_line_ns, timing_line_shown_ns, timing_lines_shown, timing_retrace_start,
		timing_retrace_end;
};

/* vga.c */
uint8_t vga_port_read(struct vga *v, uint16_t port);
void vga_port_write(struct vga *v, uint16_t port, uint8_t value);

/* vga_status.c */
uint8_t vga_status1(struct vga *v);

/* vga_mem.c: the legacy window */
extern const struct mmio_ops vga_window_ops;
/* Maps VRAM itself into the window if the registers make that equivalent, or removes it. */
void vga_window_update(struct vga *v);

/* vga_dispi.c */
uint16_t dispi_read(struct vga *v, unsigned index);
void dispi_write(struct vga *v, unsigned index, uint16_t value);
void dispi_reset(struct vga *v);
/* Brings the registers of an enabled mode into what VRAM can hold. */
void dispi_fix(struct vga *v);
unsigned dispi_bits_per_pixel(const struct vga *v);
/* Bytes a line; for 4 bits a pixel, plane bytes a line. */
uint32_t dispi_pitch(const struct vga *v);

static inline bool dispi_enabled(const struct vga *v)
{
	return v->regs.dispi[DISPI_ENABLE] & DISPI_ENABLED;
}

/* VRAM offset of the banked window. */
static inline uint32_t dispi_bank_offset(const struct vga *v)
{
	uint32_t unit = v->regs.dispi[DISPI_ENABLE] & DISPI_BANK_32K ? 0x8000 : 0x10000;
	return dispi_enabled(v) ? v->regs.dispi[DISPI_BANK] * unit : 0;
}

/* vga_pci.c */
int vga_pci_init(struct vga *v, struct pci_bus *bus, int devfn, const struct vga_config *config,
		 struct error *err);
void vga_pci_fini(struct vga *v);

/* vga_edid.c */
void vga_edid_fill(uint8_t edid[128], unsigned width, unsigned height);

/* vga_mode.c: derives mode, scan, lines and strips from the registers; cheap when nothing changed.
 */
void vga_mode_update(struct vga *v);

/* vga_render.c */
extern const struct display_ops vga_display_ops;
void vga_damage_add(struct vga_damage *d, unsigned x, unsigned y, unsigned width, unsigned height);

/* vga_text.c */
bool vga_text_screen(void *opaque, struct text_screen *screen);
/* Draws the cells that differ from what is shown. `memory_changed`: VGA memory was written to. */
void vga_text_refresh(struct vga *v, bool memory_changed, struct vga_damage *damage);

#endif
