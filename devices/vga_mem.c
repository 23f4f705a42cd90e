/* SPDX-License-Identifier: MIT */
/*
 * The processor's window onto display memory, A0000h..BFFFFh.
 *
 * A VGA has four planes of 64 KiB. They are stored interleaved: byte 4 * offset + plane of VRAM, so
 * that one 32-bit load fills the four latches and so that chain-4 memory, where the two low address
 * bits pick the plane, is simply linear: the picture of a 256-colour mode, the banked window and
 * the linear frame buffer are the same bytes in the same order.
 *
 * Three ways from a window address to (plane, offset):
 *   chain-4 (sequencer 4 bit 3)  plane = address & 3, offset = address >> 2
 *   odd/even (writes: sequencer 4 bit 2 clear; reads: graphics mode bit 4)
 *                                plane = address & 1 (with map mask or read map),
 *                                offset = address >> 1
 *   plain                        planes of the map mask, offset = address
 *
 * The chip keeps the skipped low offset bits (as 0, or taken from high address bits) and shifts the
 * CRTC's counter to match. Leaving out both gives the same pictures; only a guest that mixes the
 * addressings on the same bytes could tell (vga_mode.c says the same from the other side).
 *
 * Write path (FreeVGA, "Accessing the VGA Display Memory"; IBM, "Graphics Controller Registers"):
 *   mode 0  rotated data or set/reset, function with latches, bit mask
 *   mode 1  latches
 *   mode 2  data bits 0..3 as colour, function, bit mask
 *   mode 3  set/reset colour, function, bit mask = bit mask AND rotated data
 *
 * While the registers reduce all that to plain bytes (chain-4 or a DISPI mode, nothing masked or
 * rotated), VRAM itself is mapped into the window and accesses do not come here at all.
 */
#include "devices/vga_internal.h"

/* Bytes with all bits of plane n set where bit n of the index is set. */
static const uint32_t plane_bytes[16] = {
	0x00000000, 0x000000FF, 0x0000FF00, 0x0000FFFF, 0x00FF0000, 0x00FF00FF,
	0x00FFFF00, 0x00FFFFFF, 0xFF000000, 0xFF0000FF, 0xFF00FF00, 0xFF00FFFF,
	0xFFFF0000, 0xFFFF00FF, 0xFFFFFF00, 0xFFFFFFFF,
};

enum { ODD_PLANES = 0xA, EVEN_PLANES = 0x5 };

static bool is_packed_dispi(const struct vga *v)
{
	return dispi_enabled(v) && v->regs.dispi[DISPI_BPP] != 4;
}

/* Where the window is (IBM: "Miscellaneous Register", Memory Map). */
static void window_place(const struct vga *v, uint32_t *base, uint32_t *size)
{
	static const struct {
		uint32_t base, size;
	} map[4] = {
		{0xA0000, 0x20000},
		{0xA0000, 0x10000},
		{0xB0000, 0x08000},
		{0xB8000, 0x08000},
	};
	unsigned n = (v->regs.gc[GC_MISC] & GC_MISC_MAP) >> GC_MISC_MAP_SHIFT;

	if (is_packed_dispi(v))
		n = 1;
	*base = map[n].base;
	*size = map[n].size;
}

/* Whether a byte written is stored as it is, and one read comes straight from its place. */
static bool is_linear(const struct vga *v)
{
	const struct vga_regs *r = &v->regs;

	if (dispi_enabled(v))
		return is_packed_dispi(v);
	return (r->seq[SEQ_MEMORY] & SEQ_MEMORY_CHAIN4) && r->seq[SEQ_MAP_MASK] == 0x0F &&
	       !(r->gc[GC_MODE] & (GC_MODE_WRITE | GC_MODE_READ_COMPARE)) &&
	       r->gc[GC_ENABLE_SET_RESET] == 0 && r->gc[GC_ROTATE] == 0 &&
	       r->gc[GC_BIT_MASK] == 0xFF;
}

void vga_window_update(struct vga *v)
{
	uint32_t base = 0, size = 0, offset = dispi_bank_offset(v);

	if (is_linear(v) && (v->regs.misc_output & MISC_RAM_ENABLE))
		window_place(v, &base, &size);
	if (base == v->direct_base && size == v->direct_size && offset == v->direct_offset)
		return;
	memory_begin(v->env.mem);
	if (v->direct)
		mem_unmap(v->direct);
	v->direct = NULL;
	if (size) {
		v->direct = mem_map(v->env.mem, v->vram, offset, base, size, MEM_PRIO_VGA + 1);
		mem_mapping_set(v->direct, base, MEM_RW);
	}
	memory_commit(v->env.mem);
	v->direct_base = base;
	v->direct_size = size;
	v->direct_offset = offset;
}

/* Turns an offset into the window region into one into the enabled window. */
static bool window_offset(const struct vga *v, uint64_t offset, uint32_t *out)
{
	uint32_t base, size;

	window_place(v, &base, &size);
	*out = VGA_WINDOW_BASE + offset - base;
	return *out < size && (v->regs.misc_output & MISC_RAM_ENABLE);
}

/* Plane offset to VRAM byte: a VGA wraps at 64 KiB a plane, a planar DISPI mode at VRAM's end. */
static uint32_t plane_to_vram(const struct vga *v, uint32_t offset)
{
	uint32_t size = dispi_enabled(v) ? v->vram_size : VGA_MEMORY_BYTES;

	return 4 * offset & (size - 1);
}

static uint32_t alu(const struct vga *v, uint32_t data)
{
	switch ((v->regs.gc[GC_ROTATE] & GC_ROTATE_FUNCTION) >> GC_ROTATE_FUNCTION_SHIFT) {
	case 1: return data & v->regs.latch;
	case 2: return data | v->regs.latch;
	case 3: return data ^ v->regs.latch;
	default: return data;
	}
}

/* What the four planes would get, before the map mask. */
static uint32_t write_data(const struct vga *v, uint8_t value)
{
	const uint8_t *gc = v->regs.gc;
	unsigned rotate = gc[GC_ROTATE] & GC_ROTATE_COUNT;
	uint8_t rotated = value >> rotate | value << (8 - rotate);
	uint32_t set_reset = plane_bytes[gc[GC_SET_RESET]];
	uint32_t enable = plane_bytes[gc[GC_ENABLE_SET_RESET]];
	uint32_t mask = gc[GC_BIT_MASK] * 0x01010101u;
	uint32_t data;

	switch (gc[GC_MODE] & GC_MODE_WRITE) {
	case 0: data = (rotated * 0x01010101u & ~enable) | (set_reset & enable); break;
	case 1: return v->regs.latch;
	case 2: data = plane_bytes[value & 0x0F]; break;
	default:
		data = set_reset;
		mask = (gc[GC_BIT_MASK] & rotated) * 0x01010101u;
		break;
	}
	return (alu(v, data) & mask) | (v->regs.latch & ~mask);
}

static void write_byte(struct vga *v, uint32_t address, uint8_t value)
{
	const struct vga_regs *r = &v->regs;
	unsigned planes = r->seq[SEQ_MAP_MASK];
	uint32_t offset = address + dispi_bank_offset(v);

	if (r->seq[SEQ_MEMORY] & SEQ_MEMORY_CHAIN4) {
		planes &= 1u << (offset & 3);
		offset >>= 2;
	} else if (!(r->seq[SEQ_MEMORY] & SEQ_MEMORY_ODD_EVEN_OFF)) {
		planes &= offset & 1 ? ODD_PLANES : EVEN_PLANES;
		offset >>= 1;
	}
	if (!planes)
		return;
	uint32_t at = plane_to_vram(v, offset), mask = plane_bytes[planes];
	uint32_t old = load_le32(v->vram->host + at);

	store_le32(v->vram->host + at, (old & ~mask) | (write_data(v, value) & mask));
	mem_dirty_mark(v->vram, at, 4);
}

/* Read mode 1: a bit is set where all planes that count have the compared colour. */
static uint8_t color_compare(const struct vga *v)
{
	uint32_t differs = (v->regs.latch ^ plane_bytes[v->regs.gc[GC_COLOR_COMPARE]]) &
			   plane_bytes[v->regs.gc[GC_COLOR_DONT_CARE]];

	differs |= differs >> 16;
	return ~(differs | differs >> 8);
}

static uint8_t read_byte(struct vga *v, uint32_t address)
{
	struct vga_regs *r = &v->regs;
	unsigned plane = r->gc[GC_READ_MAP];
	uint32_t offset = address + dispi_bank_offset(v);

	if (r->seq[SEQ_MEMORY] & SEQ_MEMORY_CHAIN4) {
		plane = offset & 3;
		offset >>= 2;
	} else if (r->gc[GC_MODE] & GC_MODE_ODD_EVEN) {
		plane = (plane & 2) | (offset & 1);
		offset >>= 1;
	}
	r->latch = load_le32(v->vram->host + plane_to_vram(v, offset));
	if (r->gc[GC_MODE] & GC_MODE_READ_COMPARE)
		return color_compare(v);
	return r->latch >> (8 * plane);
}

static uint64_t window_read(void *opaque, uint64_t offset, unsigned size)
{
	struct vga *v = opaque;
	uint64_t value = 0;
	uint32_t at;

	for (unsigned i = 0; i < size; i++) {
		uint8_t byte = window_offset(v, offset + i, &at) ? read_byte(v, at) : 0xFF;
		value |= (uint64_t)byte << (8 * i);
	}
	return value;
}

static void window_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct vga *v = opaque;
	uint32_t at;

	for (unsigned i = 0; i < size; i++)
		if (window_offset(v, offset + i, &at))
			write_byte(v, at, value >> (8 * i));
}

const struct mmio_ops vga_window_ops = {
	.read = window_read,
	.write = window_write,
	.max_size = 4,
	.coalesce = true,
};
