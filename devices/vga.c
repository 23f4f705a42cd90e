/* SPDX-License-Identifier: MIT */
/*
 * Standard VGA with Bochs VBE extensions: the registers, and the device as a whole.
 *
 * A VGA is five blocks behind a few ports: the sequencer (memory access, dot clock, fonts), the CRT
 * controller (timing, addresses, cursor), the graphics controller (what the processor's reads and
 * writes do to the four planes), the attribute controller (palette of 16) and the DAC (256
 * colours). Nothing happens when a register is written: the picture is computed from the registers
 * when somebody looks (vga_mode.c, vga_render.c, vga_text.c), the processor's window works on them
 * access by access (vga_mem.c), and the retrace bits follow from the virtual clock (vga_status.c).
 * DISPI (vga_dispi.c) overrides the mode registers while it is enabled.
 *
 *   port      write                    read
 *   3B4/3D4   CRTC index               the same       (3Bx or 3Dx: misc output bit 0)
 *   3B5/3D5   CRTC data                the same       (0..7 protected by register 11h bit 7)
 *   3BA/3DA   feature control          input status 1; resets the flip-flop of 3C0
 *   3C0       attribute index, data    index
 *   3C1                                attribute data
 *   3C2       misc output              input status 0
 *   3C4/3C5   sequencer index, data    the same
 *   3C6       DAC mask                 the same
 *   3C7       DAC read index           DAC state (3 reading, 0 writing)
 *   3C8       DAC write index          the same
 *   3C9       DAC data: red, green, blue, then the next index
 *   3CA/3CC                            feature control / misc output
 *   3CE/3CF   graphics index, data     the same
 *   1CE..1D0  DISPI index, data
 *
 * Documents: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem" (1991); "Hardware
 * Level VGA and SVGA Video Programming Information" (FreeVGA); Bochs VBE DISPI API.
 *
 * Left out: the vertical retrace interrupt (few adapters wire it, none to a PCI pin), the light
 * pen, the subsystem enable register 3C3h.
 */
#include "devices/vga.h"
#include "core/state.h"
#include "devices/vga_internal.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>

/* Bits that exist. */
static const uint8_t seq_mask[SEQ_REGS] = {0x03, 0x3D, 0x0F, 0x3F, 0x0E};
static const uint8_t gc_mask[GC_REGS] = {0x0F, 0x0F, 0x0F, 0x1F, 0x03, 0x7B, 0x0F, 0x0F, 0xFF};
static const uint8_t attr_mask[ATTR_REGS] = {
	0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F,
	0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0xEF, 0xFF, 0x3F, 0x0F, 0x0F,
};
enum {
	SEQ_INDEX_MASK = SEQ_REGS - 1,
	GC_INDEX_MASK = GC_REGS - 1,
	FEATURE_CONTROL_MASK = 0x0B,
	DAC_STATE_READING = 3,
	DAC_COMPONENT_6BIT = 0x3F,
	ATTR_STATE_DATA_NEXT = 0x80,
};

static bool dac_is_8bit(const struct vga *v)
{
	return v->regs.dispi[DISPI_ENABLE] & DISPI_8BIT_DAC;
}

static uint8_t dac_data_read(struct vga *v)
{
	struct vga_regs *r = &v->regs;
	uint8_t value = r->dac[3 * r->dac_read_index + r->dac_component];

	if (++r->dac_component == 3) {
		r->dac_component = 0;
		r->dac_read_index++;
	}
	return dac_is_8bit(v) ? value : value & DAC_COMPONENT_6BIT;
}

static void dac_data_write(struct vga *v, uint8_t value)
{
	struct vga_regs *r = &v->regs;

	r->dac_latch[r->dac_component] = dac_is_8bit(v) ? value : value & DAC_COMPONENT_6BIT;
	if (++r->dac_component < 3)
		return;
	r->dac_component = 0;
	memcpy(r->dac + 3 * r->dac_write_index, r->dac_latch, 3);
	r->dac_write_index++;
	v->colors_changed = true;
}

static void attr_write(struct vga *v, uint8_t value)
{
	struct vga_regs *r = &v->regs;
	unsigned index = r->attr_index & ATTR_INDEX;

	r->attr_data_next = !r->attr_data_next;
	if (r->attr_data_next) {
		r->attr_index = value & (ATTR_INDEX | ATTR_PAS);
		return;
	}
	if (index >= ATTR_REGS)
		return;
	value &= attr_mask[index];
	if (r->attr[index] == value)
		return;
	r->attr[index] = value;
	v->colors_changed = true;
	/* How attributes and planes become palette indexes. */
	if (index == ATTR_MODE || index == ATTR_PLANES)
		v->redraw = true;
}

static uint8_t crtc_read(const struct vga *v)
{
	const struct vga_regs *r = &v->regs;

	if (r->crtc_index < CRTC_REGS)
		return r->crtc[r->crtc_index];
	switch (r->crtc_index) {
	case CRTC_LATCH: return r->latch >> (8 * r->gc[GC_READ_MAP]);
	case CRTC_ATTR_STATE: return r->attr_data_next ? ATTR_STATE_DATA_NEXT : 0;
	default: return 0;
	}
}

static void crtc_write(struct vga *v, uint8_t value)
{
	struct vga_regs *r = &v->regs;
	unsigned index = r->crtc_index;

	if (index >= CRTC_REGS)
		return;
	if (index <= CRTC_OVERFLOW && (r->crtc[CRTC_VRETRACE_END] & VRETRACE_PROTECT)) {
		if (index != CRTC_OVERFLOW)
			return;
		value = (r->crtc[index] & ~OVERFLOW_LINE_COMPARE8) |
			(value & OVERFLOW_LINE_COMPARE8);
	}
	r->crtc[index] = value;
	v->timing_frame_ns = 0;
}

static void seq_write(struct vga *v, uint8_t value)
{
	struct vga_regs *r = &v->regs;

	r->seq[r->seq_index] = value & seq_mask[r->seq_index];
	if (r->seq_index == SEQ_CLOCKING)
		v->timing_frame_ns = 0;
	vga_window_update(v);
}

/* CRTC and status 1 answer at one of two places; the other is not decoded. */
static bool port_decoded(const struct vga *v, uint16_t port)
{
	bool mono = port < VGA_PORT_ATTR, color = port >= VGA_PORT_CRTC_COLOR;

	return v->regs.misc_output & MISC_COLOR ? !mono : !color;
}

uint8_t vga_port_read(struct vga *v, uint16_t port)
{
	struct vga_regs *r = &v->regs;

	if (!port_decoded(v, port))
		return 0xFF;
	switch (port) {
	case VGA_PORT_CRTC_MONO:
	case VGA_PORT_CRTC_COLOR: return r->crtc_index;
	case VGA_PORT_CRTC_MONO + 1:
	case VGA_PORT_CRTC_COLOR + 1: return crtc_read(v);
	case VGA_PORT_STATUS1_MONO:
	case VGA_PORT_STATUS1_COLOR: r->attr_data_next = false; return vga_status1(v);
	case VGA_PORT_ATTR: return r->attr_data_next ? 0 : r->attr_index;
	case VGA_PORT_ATTR_READ: {
		unsigned index = r->attr_index & ATTR_INDEX;
		return index < ATTR_REGS ? r->attr[index] : 0;
	}
	case VGA_PORT_MISC_WRITE: return STATUS0_SWITCH_SENSE;
	case VGA_PORT_SEQ: return r->seq_index;
	case VGA_PORT_SEQ_DATA: return r->seq[r->seq_index];
	case VGA_PORT_DAC_MASK: return r->dac_mask;
	case VGA_PORT_DAC_READ_INDEX: return r->dac_reading ? DAC_STATE_READING : 0;
	case VGA_PORT_DAC_WRITE_INDEX: return r->dac_write_index;
	case VGA_PORT_DAC_DATA: return dac_data_read(v);
	case VGA_PORT_FEATURE_READ: return r->feature_control;
	case VGA_PORT_MISC_READ: return r->misc_output;
	case VGA_PORT_GC: return r->gc_index;
	case VGA_PORT_GC_DATA: return r->gc[r->gc_index];
	default: return 0xFF;
	}
}

void vga_port_write(struct vga *v, uint16_t port, uint8_t value)
{
	struct vga_regs *r = &v->regs;

	if (!port_decoded(v, port))
		return;
	switch (port) {
	case VGA_PORT_CRTC_MONO:
	case VGA_PORT_CRTC_COLOR: r->crtc_index = value; break;
	case VGA_PORT_CRTC_MONO + 1:
	case VGA_PORT_CRTC_COLOR + 1: crtc_write(v, value); break;
	case VGA_PORT_STATUS1_MONO:
	case VGA_PORT_STATUS1_COLOR: r->feature_control = value & FEATURE_CONTROL_MASK; break;
	case VGA_PORT_ATTR: attr_write(v, value); break;
	case VGA_PORT_MISC_WRITE:
		r->misc_output = value;
		v->timing_frame_ns = 0;
		vga_window_update(v);
		break;
	case VGA_PORT_SEQ: r->seq_index = value & SEQ_INDEX_MASK; break;
	case VGA_PORT_SEQ_DATA: seq_write(v, value); break;
	case VGA_PORT_DAC_MASK:
		r->dac_mask = value;
		v->colors_changed = true;
		break;
	case VGA_PORT_DAC_READ_INDEX:
		r->dac_read_index = value;
		r->dac_component = 0;
		r->dac_reading = true;
		break;
	case VGA_PORT_DAC_WRITE_INDEX:
		r->dac_write_index = value;
		r->dac_component = 0;
		r->dac_reading = false;
		break;
	case VGA_PORT_DAC_DATA: dac_data_write(v, value); break;
	case VGA_PORT_GC: r->gc_index = value & GC_INDEX_MASK; break;
	case VGA_PORT_GC_DATA:
		r->gc[r->gc_index] = value & gc_mask[r->gc_index];
		vga_window_update(v);
		break;
	default: break;
	}
}

static uint32_t io_read(void *opaque, uint16_t port, unsigned size)
{
	return vga_port_read(opaque, port);
}

static void io_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	vga_port_write(opaque, port, value);
}

static const struct io_ops vga_io_ops = {.read = io_read, .write = io_write};

static uint32_t dispi_io_read(void *opaque, uint16_t port, unsigned size)
{
	struct vga *v = opaque;

	if (port == DISPI_PORT_INDEX)
		return v->regs.dispi_index;
	if (port > DISPI_PORT_DATA_ALIGNED)
		return UINT32_MAX; /* the register is read as a word */
	return dispi_read(v, v->regs.dispi_index);
}

static void dispi_io_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct vga *v = opaque;

	if (port == DISPI_PORT_INDEX)
		v->regs.dispi_index = value;
	else if (port <= DISPI_PORT_DATA_ALIGNED)
		dispi_write(v, v->regs.dispi_index, value);
}

static const struct io_ops dispi_io_ops = {
	.read = dispi_io_read,
	.write = dispi_io_write,
	.sizes = 1 | 2,
};

static const struct {
	uint16_t base;
	uint8_t count;
	const struct io_ops *ops;
} port_ranges[] = {
	{VGA_PORT_CRTC_MONO, 2, &vga_io_ops},     {VGA_PORT_STATUS1_MONO, 1, &vga_io_ops},
	{VGA_PORT_ATTR, 16, &vga_io_ops},         {VGA_PORT_CRTC_COLOR, 2, &vga_io_ops},
	{VGA_PORT_STATUS1_COLOR, 1, &vga_io_ops}, {DISPI_PORT_INDEX, DISPI_PORTS, &dispi_io_ops},
};

static const struct state_field vga_fields[] = {
	STATE_UINT(vga, regs.misc_output),    STATE_UINT(vga, regs.feature_control),
	STATE_UINT(vga, regs.seq_index),      STATE_UINTS(vga, regs.seq),
	STATE_UINT(vga, regs.gc_index),       STATE_UINTS(vga, regs.gc),
	STATE_UINT(vga, regs.crtc_index),     STATE_UINTS(vga, regs.crtc),
	STATE_UINT(vga, regs.attr_index),     STATE_UINTS(vga, regs.attr),
	STATE_UINT(vga, regs.attr_data_next), STATE_UINT(vga, regs.dac_mask),
	STATE_UINT(vga, regs.dac_read_index), STATE_UINT(vga, regs.dac_write_index),
	STATE_UINT(vga, regs.dac_component),  STATE_UINT(vga, regs.dac_reading),
	STATE_BYTES(vga, regs.dac_latch),     STATE_BYTES(vga, regs.dac),
	STATE_UINT(vga, regs.latch),          STATE_UINT(vga, regs.dispi_index),
	STATE_UINTS(vga, regs.dispi),         STATE_END,
};

/* What is derived from the registers is out of date. */
static void registers_replaced(struct vga *v)
{
	v->colors_changed = true;
	v->redraw = true;
	v->timing_frame_ns = 0;
	vga_window_update(v);
}

static void vga_reset(void *opaque)
{
	struct vga *v = opaque;

	v->regs.dac_mask = 0xFF;
	dispi_reset(v);
	registers_replaced(v);
}

static int vga_post_load(void *opaque, unsigned version, struct error *err)
{
	struct vga *v = opaque;
	struct vga_regs *r = &v->regs;

	r->seq_index &= SEQ_INDEX_MASK;
	r->gc_index &= GC_INDEX_MASK;
	r->dac_component %= 3;
	for (unsigned i = 0; i < SEQ_REGS; i++)
		r->seq[i] &= seq_mask[i];
	for (unsigned i = 0; i < GC_REGS; i++)
		r->gc[i] &= gc_mask[i];
	for (unsigned i = 0; i < ATTR_REGS; i++)
		r->attr[i] &= attr_mask[i];
	r->dispi[DISPI_ENABLE] &= DISPI_ENABLE_BITS;
	if (dispi_enabled(v))
		dispi_fix(v);
	mem_dirty_mark(v->vram, 0, v->vram_size);
	registers_replaced(v);
	return 0;
}

static const struct state_desc vga_state = {
	.name = "vga",
	.version = 1,
	.fields = vga_fields,
	.reset = vga_reset,
	.post_load = vga_post_load,
};

static void add_ports(struct vga *v)
{
	_Static_assert(ARRAY_SIZE(port_ranges) == ARRAY_SIZE(v->ports), "one handle a range");

	for (unsigned i = 0; i < ARRAY_SIZE(port_ranges); i++)
		v->ports[i] = iobus_add(v->env.io, "vga", port_ranges[i].base, port_ranges[i].count,
					port_ranges[i].ops, v);
}

static int make_memory(struct vga *v, const struct vga_config *config, struct error *err)
{
	unsigned mib = config->vram_mib ? config->vram_mib : VGA_DEFAULT_VRAM_MIB;

	if (mib > VGA_MAX_VRAM_MIB)
		return error_set(err, EINVAL, "display memory of %u MiB is too large; at most %u",
				 mib, VGA_MAX_VRAM_MIB);
	v->vram_size = MIB;
	while (v->vram_size < mib * MIB)
		v->vram_size *= 2;
	v->vram = mem_region_new_ram(v->env.mem, "vga.vram", v->vram_size, err);
	if (!v->vram)
		return -ENOMEM;
	mem_region_log_dirty(v->env.mem, v->vram, true);
	v->window_region =
		mem_region_new_mmio(v->env.mem, "vga.window", VGA_WINDOW_SIZE, &vga_window_ops, v);
	v->window = mem_map(v->env.mem, v->window_region, 0, VGA_WINDOW_BASE, VGA_WINDOW_SIZE,
			    MEM_PRIO_VGA);
	mem_mapping_set(v->window, VGA_WINDOW_BASE, MEM_RW);
	return 0;
}

struct vga *vga_new(const struct device_env *env, struct pci_bus *pci, int devfn,
		    const struct vga_config *config, struct error *err)
{
	struct vga *v = xcalloc(1, sizeof(*v));

	v->env = *env;
	v->display = (struct display){.ops = &vga_display_ops, .opaque = v};
	if (make_memory(v, config, err) < 0 ||
	    (pci && vga_pci_init(v, pci, devfn, config, err) < 0)) {
		vga_free(v);
		return NULL;
	}
	add_ports(v);
	state_register(env->states, &vga_state, 0, v);
	vga_reset(v);
	return v;
}

void vga_free(struct vga *v)
{
	if (!v)
		return;
	if (v->ports[0])
		state_unregister(v->env.states, v);
	for (unsigned i = 0; i < ARRAY_SIZE(v->ports); i++)
		if (v->ports[i])
			iobus_remove(v->env.io, v->ports[i]);
	vga_pci_fini(v);
	if (v->direct)
		mem_unmap(v->direct);
	if (v->window)
		mem_unmap(v->window);
	free(v->display.surface.pixels);
	free(v->cells);
	free(v);
}

struct display *vga_display(struct vga *v)
{
	return &v->display;
}
