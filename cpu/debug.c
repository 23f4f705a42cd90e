/* SPDX-License-Identifier: MIT */
/*
 * Debug registers (SDM vol. 3B, chapter 17) and the debugger's own breakpoints.
 *
 * DR7 enables up to four breakpoints: on execution (a fault before the instruction), on data writes
 * or accesses and, with CR4.DE, on port accesses (traps after the instruction). Hits of the last
 * three are noted in c->db_status and end the block; the run loop then delivers #DB. Pages with a
 * data breakpoint have slow TLB entries, so nothing is tested elsewhere.
 */
#include "core/memory.h"
#include "cpu/code.h"

enum debug_type { DEBUG_EXEC, DEBUG_WRITE, DEBUG_IO, DEBUG_ACCESS };

static bool debug_enabled(const struct soft_cpu *c, unsigned n)
{
	return c->dr[7] >> (2 * n) & 3; /* Ln or Gn */
}

static enum debug_type debug_type(const struct soft_cpu *c, unsigned n)
{
	return (enum debug_type)(c->dr[7] >> (16 + 4 * n) & 3);
}

/* LENn: 1, 2, 8 (as 4 in 32-bit processors before it was defined), 4. */
static unsigned debug_length(const struct soft_cpu *c, unsigned n)
{
	static const uint8_t length[4] = {1, 2, 8, 4};
	return length[c->dr[7] >> (18 + 4 * n) & 3];
}

/* First address of breakpoint n: the low bits that its length covers are ignored. */
static uint32_t debug_start(const struct soft_cpu *c, unsigned n)
{
	return c->dr[n] & ~(uint32_t)(debug_length(c, n) - 1);
}

static bool is_data(enum debug_type t)
{
	return t == DEBUG_WRITE || t == DEBUG_ACCESS;
}

void debug_changed(struct soft_cpu *c)
{
	c->watch_code = c->breakpoints > 0;
	c->watch_data = false;
	for (unsigned n = 0; n < 4; n++) {
		if (!debug_enabled(c, n))
			continue;
		if (debug_type(c, n) == DEBUG_EXEC)
			c->watch_code = true;
		else if (is_data(debug_type(c, n)))
			c->watch_data = true;
	}
	tlb_flush_all(c);
}

bool debug_page_watched(const struct soft_cpu *c, uint32_t linear)
{
	for (unsigned n = 0; n < 4; n++)
		if (debug_enabled(c, n) && is_data(debug_type(c, n)) &&
		    (c->dr[n] & PAGE_ADDR) == (linear & PAGE_ADDR))
			return true;
	return false;
}

void debug_data_access(struct soft_cpu *c, uint32_t linear, unsigned len, bool write)
{
	for (unsigned n = 0; n < 4; n++) {
		enum debug_type type = debug_type(c, n);
		uint32_t start = debug_start(c, n);

		if (!debug_enabled(c, n) ||
		    !(type == DEBUG_ACCESS || (type == DEBUG_WRITE && write)))
			continue;
		if (linear - start < debug_length(c, n) || start - linear < len) {
			c->db_status |= 1u << n;
			cpu_end_block(c);
		}
	}
}

void debug_io_access(struct soft_cpu *c, uint16_t port, unsigned size)
{
	if (!(c->cr4 & CR4_DE))
		return;
	for (unsigned n = 0; n < 4; n++) {
		uint32_t start = debug_start(c, n);
		if (!debug_enabled(c, n) || debug_type(c, n) != DEBUG_IO)
			continue;
		if (port - start < debug_length(c, n) || start - port < size) {
			c->db_status |= 1u << n;
			cpu_end_block(c);
		}
	}
}

uint32_t debug_code_match(const struct soft_cpu *c, uint32_t linear)
{
	uint32_t hits = 0;

	for (unsigned n = 0; n < 4; n++)
		if (debug_enabled(c, n) && debug_type(c, n) == DEBUG_EXEC && c->dr[n] == linear)
			hits |= 1u << n;
	return hits;
}

bool debug_code_page(const struct soft_cpu *c, uint32_t linear)
{
	for (unsigned n = 0; n < 4; n++)
		if (debug_enabled(c, n) && debug_type(c, n) == DEBUG_EXEC &&
		    !((c->dr[n] ^ linear) & PAGE_ADDR))
			return true;
	for (unsigned n = 0; n < c->breakpoints; n++)
		if (!((c->breakpoint[n] ^ linear) & PAGE_ADDR))
			return true;
	return false;
}

bool debug_breakpoint_at(const struct soft_cpu *c, uint32_t linear)
{
	for (unsigned n = 0; n < c->breakpoints; n++)
		if (c->breakpoint[n] == linear)
			return true;
	return false;
}

void soft_cpu_set_breakpoint(struct soft_cpu *c, uint32_t linear, bool on)
{
	for (unsigned n = 0; n < c->breakpoints; n++) {
		if (c->breakpoint[n] != linear)
			continue;
		if (!on)
			c->breakpoint[n] = c->breakpoint[--c->breakpoints];
		debug_changed(c);
		return;
	}
	if (on && c->breakpoints < ARRAY_SIZE(c->breakpoint))
		c->breakpoint[c->breakpoints++] = linear;
	debug_changed(c);
}
