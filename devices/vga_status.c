/* SPDX-License-Identifier: MIT */
/*
 * Input status 1: where the beam is. Guests poll it to wait for retrace, to pace themselves and to
 * measure the frame rate, so it follows the virtual clock with the timing that the CRTC registers
 * describe (IBM PS/2 Hardware Interface Technical Reference, "Input Status Register 1" and "CRT
 * Controller Registers"): dots a line from horizontal total, lines a frame from vertical total, the
 * dot clock from misc output bits 2-3. A frame outside 40..200 Hz (registers half-programmed, or a
 * DISPI mode, which has no timing) counts as 640x480 at 60 Hz.
 */
#include "devices/vga_internal.h"
#include "lib/clock.h"

enum {
	CLOCK_25_HZ = 25175000,
	CLOCK_28_HZ = 28322000,
	FRAME_MIN_NS = 5000000,
	FRAME_MAX_NS = 25000000,
	/* VESA 640x480 at 60 Hz: 800 dots by 525 lines */
	DEFAULT_LINES = 525,
	DEFAULT_LINE_NS = 31778,
	DEFAULT_LINE_SHOWN_NS = 25422,
	DEFAULT_LINES_SHOWN = 480,
	DEFAULT_RETRACE_START = 490,
	DEFAULT_RETRACE_LINES = 2,
};

static void default_timing(struct vga *v)
{
	v->timing_line_ns = DEFAULT_LINE_NS;
	v->timing_line_shown_ns = DEFAULT_LINE_SHOWN_NS;
	v->timing_lines_shown = DEFAULT_LINES_SHOWN;
	v->timing_retrace_start = DEFAULT_RETRACE_START;
	v->timing_retrace_end = DEFAULT_RETRACE_START + DEFAULT_RETRACE_LINES;
	v->timing_frame_ns = (uint64_t)DEFAULT_LINES * DEFAULT_LINE_NS;
}

static unsigned overflowed(unsigned low, unsigned overflow, unsigned bit8, unsigned bit9)
{
	return low | (overflow & bit8 ? 0x100u : 0) | (overflow & bit9 ? 0x200u : 0);
}

static void compute_timing(struct vga *v)
{
	const uint8_t *c = v->regs.crtc;
	uint8_t clocking = v->regs.seq[SEQ_CLOCKING], overflow = c[CRTC_OVERFLOW];
	uint64_t clock =
		(v->regs.misc_output & MISC_CLOCK) == MISC_CLOCK_28MHZ ? CLOCK_28_HZ : CLOCK_25_HZ;
	/* "Horizontal total: characters a line less 5"; "vertical total: lines less 2". */
	unsigned characters = c[CRTC_HTOTAL] + 5;
	unsigned dots = characters * (clocking & CLOCKING_8DOT ? 8 : 9) *
			(clocking & CLOCKING_HALF ? 2 : 1);
	unsigned lines =
		overflowed(c[CRTC_VTOTAL], overflow, OVERFLOW_VTOTAL8, OVERFLOW_VTOTAL9) + 2;
	uint64_t line_ns = dots * NS_PER_SEC / clock;
	uint64_t frame_ns = line_ns * lines;

	if (dispi_enabled(v) || frame_ns < FRAME_MIN_NS || frame_ns > FRAME_MAX_NS) {
		default_timing(v);
		return;
	}
	unsigned start = overflowed(c[CRTC_VRETRACE_START], overflow, OVERFLOW_VRETRACE8,
				    OVERFLOW_VRETRACE9);
	/* The end is where the line counter's low four bits match. */
	unsigned length = (c[CRTC_VRETRACE_END] - start) & VRETRACE_END_SCAN;
	v->timing_frame_ns = frame_ns;
	v->timing_line_ns = line_ns;
	v->timing_line_shown_ns = line_ns * (c[CRTC_HDISPLAY_END] + 1u) / characters;
	v->timing_lines_shown =
		overflowed(c[CRTC_VDISPLAY_END], overflow, OVERFLOW_VDISPLAY8, OVERFLOW_VDISPLAY9) +
		1;
	v->timing_retrace_start = start;
	v->timing_retrace_end = start + (length ? length : VRETRACE_END_SCAN + 1);
}

uint8_t vga_status1(struct vga *v)
{
	if (!v->timing_frame_ns)
		compute_timing(v);
	uint64_t in_frame = clock_now(v->env.clock) % v->timing_frame_ns;
	unsigned line = in_frame / v->timing_line_ns;
	unsigned in_line = in_frame % v->timing_line_ns;
	uint8_t status = 0;

	if (line >= v->timing_lines_shown || in_line >= v->timing_line_shown_ns)
		status |= STATUS1_DISPLAY_DISABLED;
	if (line >= v->timing_retrace_start && line < v->timing_retrace_end)
		status |= STATUS1_VRETRACE;
	return status;
}
