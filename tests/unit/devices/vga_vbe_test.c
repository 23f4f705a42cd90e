/* SPDX-License-Identifier: MIT */
/* The VGA's modes beyond VGA (the DISPI registers) and its PCI function. */
#include "tests/unit/devices/vga_rig.h"

static void dispi_identifies_and_reports_capabilities(void **state)
{
	struct rig *r = *state;

	assert_int_equal(in_dispi(r, 0), 0xB0C5);
	out_dispi(r, 0, 0xB0C2);
	assert_int_equal(in_dispi(r, 0), 0xB0C2);
	out_dispi(r, 0, 0x1234);
	assert_int_equal(in_dispi(r, 0), 0xB0C2);
	assert_int_equal(in_dispi(r, 10), 256);
	out_dispi(r, 4, 2);
	assert_true(in_dispi(r, 1) >= 1920);
	assert_true(in_dispi(r, 2) >= 1200);
	assert_int_equal(in_dispi(r, 3), 32);
	assert_int_equal(in_dispi(r, 99), 0);
}

static void dispi_depths(void **state)
{
	static const struct {
		unsigned bpp, bytes;
		uint32_t value, rgb;
	} depth[] = {
		{8, 1, 0x21, 0},
		{15, 2, 0x7C1F, 0xFF00FF},
		{15, 2, 0x0200, 0x008400},
		{16, 2, 0xF81F, 0xFF00FF},
		{16, 2, 0x0400, 0x008200},
		{24, 3, 0x123456, 0x123456},
		{32, 4, 0xAA123456, 0x123456},
	};
	struct rig *r = *state;

	set_mode(r, &mode_13);
	for (unsigned i = 0; i < ARRAY_SIZE(depth); i++) {
		dispi_mode(r, 1024, 768, depth[i].bpp, 0x40);
		struct surface *s = rig_refresh(r);
		assert_int_equal(s->width, 1024);
		assert_int_equal(s->height, 768);
		assert_int_equal(pixel(r, 100, 700), depth[i].bpp == 8 ? rig_color(0) : 0);
		uint32_t at = RIG_FB + (700 * 1024 + 100) * depth[i].bytes;
		assert_true(mem_write(r->env.mem, at, &depth[i].value, depth[i].bytes));
		rig_refresh(r);
		assert_int_equal(pixel(r, 100, 700),
				 depth[i].bpp == 8 ? rig_color(0x21) : depth[i].rgb);
		assert_true(r->dirty.y <= 700 && r->dirty.y + r->dirty.height > 700);
		assert_true(r->dirty.height <= 6);
	}
}

static void dispi_8bit_dac(void **state)
{
	struct rig *r = *state;

	set_mode(r, &mode_13);
	dispi_mode(r, 640, 480, 8, 0x60);
	out8(r, 0x3C8, 7);
	out8(r, 0x3C9, 0xFE);
	out8(r, 0x3C9, 0x81);
	out8(r, 0x3C9, 0x03);
	poke(r, RIG_FB, 7);
	rig_refresh(r);
	assert_int_equal(pixel(r, 0, 0), 0xFE8103);
}

static void dispi_planar(void **state)
{
	struct rig *r = *state;

	set_mode(r, &mode_12);
	dispi_mode(r, 800, 600, 4, 0);
	out_seq(r, 2, 0x0C);
	poke(r, 0xA0000 + 100 * 599 + 99, 0x01);
	struct surface *s = rig_refresh(r);
	assert_int_equal(s->width, 800);
	assert_int_equal(pixel(r, 799, 599), text_color(12));
	assert_int_equal(pixel(r, 798, 599), text_color(0));
}

static void dispi_banks_show_vram_in_the_window(void **state)
{
	struct rig *r = *state;

	set_mode(r, &mode_13);
	dispi_mode(r, 640, 480, 8, 0);
	out_dispi(r, 5, 3);
	poke(r, 0xA1234, 0x42);
	assert_int_equal(peek(r, RIG_FB + 0x31234), 0x42);
	out_dispi(r, 5, 4);
	assert_int_equal(peek(r, 0xA1234), 0);
	out_dispi(r, 4, 1 | 0x80 | 0x10); /* 32 KiB units: bank 4 is 20000h */
	poke(r, RIG_FB + 0x20007, 0x17);
	assert_int_equal(peek(r, 0xA0007), 0x17);
	out_dispi(r, 5, 0xFFFF); /* bounded */
	poke(r, 0xAFFFF, 1);
	peek(r, 0xAFFFF);
	out_dispi(r, 4, 0);
	assert_int_equal(in_dispi(r, 5), 0);
}

static void dispi_offsets_pan_within_the_virtual_screen(void **state)
{
	struct rig *r = *state;
	uint32_t value = 0x00ABCDEF;

	set_mode(r, &mode_13);
	dispi_mode(r, 640, 480, 32, 0x40);
	out_dispi(r, 6, 1024);
	assert_int_equal(in_dispi(r, 6), 1024);
	assert_int_equal(in_dispi(r, 7), (16 << 20) / 4096);
	out_dispi(r, 8, 16);
	out_dispi(r, 9, 100);
	mem_write(r->env.mem, RIG_FB + (100 * 1024 + 16) * 4, &value, 4);
	rig_refresh(r);
	assert_int_equal(pixel(r, 0, 0), value);
	out_dispi(r, 9, 0xFFFF); /* beyond VRAM */
	assert_int_equal(in_dispi(r, 9), 0);
	out_dispi(r, 8, 1000); /* beyond the line */
	assert_int_equal(in_dispi(r, 8), 0);
}

static void dispi_sizes_are_cut_to_vram(void **state)
{
	struct rig *r = *state;

	set_mode(r, &mode_13);
	dispi_mode(r, 0xFFFF, 0xFFFF, 32, 0);
	struct surface *s = rig_refresh(r);
	assert_true((uint64_t)s->width * s->height * 4 <= 16 << 20);
	dispi_mode(r, 1, 0, 77, 0);
	s = rig_refresh(r);
	assert_int_equal(s->width, 8);
	assert_int_equal(s->height, 1);
	dispi_mode(r, 1920, 1200, 32, 0);
	s = rig_refresh(r);
	assert_int_equal(s->width, 1920);
	assert_int_equal(s->height, 1200);
}

static void dispi_clears_unless_told_not_to(void **state)
{
	struct rig *r = *state;

	set_mode(r, &mode_13);
	poke(r, RIG_FB + 1000, 0x77);
	dispi_mode(r, 640, 480, 8, 0x80);
	assert_int_equal(peek(r, RIG_FB + 1000), 0x77);
	dispi_mode(r, 640, 480, 8, 0);
	assert_int_equal(peek(r, RIG_FB + 1000), 0);
}

static void pci_function_and_mmio(void **state)
{
	struct rig *r = *state;
	uint16_t word = 0x0A55;
	uint8_t sum = 0, edid[128];

	assert_int_equal(pci_config_read(r->pci, RIG_VGA_DEVFN, 0, 4), 0x11111234);
	assert_int_equal(pci_config_read(r->pci, RIG_VGA_DEVFN, PCI_CLASS, 2), 0x0300);
	assert_int_equal(pci_config_read(r->pci, RIG_VGA_DEVFN, PCI_BAR0, 4), RIG_FB | 8);
	pci_config_write(r->pci, RIG_VGA_DEVFN, PCI_ROM_ADDRESS, 4, 0xFEA00001);
	assert_int_equal(peek(r, 0xFEA00000), 0x55);
	assert_int_equal(peek(r, 0xFEA00001), 0xAA);
	/* VGA ports: index and data in one word. */
	set_mode(r, &mode_12);
	word = 0x03 | 0x15 << 8;
	mem_write(r->env.mem, RIG_MMIO + 0x400 + 0x0E, &word, 2);
	assert_int_equal(in_indexed(r, 0x3CE, 3), 0x15);
	mem_read(r->env.mem, RIG_MMIO + 0x400 + 0x0E, &word, 2);
	assert_int_equal(word, 0x1503);
	/* DISPI registers, flat. */
	word = 800;
	mem_write(r->env.mem, RIG_MMIO + 0x502, &word, 2);
	assert_int_equal(in_dispi(r, 1), 800);
	mem_read(r->env.mem, RIG_MMIO + 0x500, &word, 2);
	assert_int_equal(word, 0xB0C5);
	mem_read(r->env.mem, RIG_MMIO, edid, sizeof(edid));
	for (unsigned i = 0; i < 128; i++)
		sum += edid[i];
	assert_int_equal(sum, 0);
	assert_int_equal(edid[54 + 2] | (edid[54 + 4] & 0xF0) << 4, 1280);
	assert_int_equal(edid[54 + 5] | (edid[54 + 7] & 0xF0) << 4, 800);
}

#define T(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(dispi_identifies_and_reports_capabilities),
		T(dispi_depths),
		T(dispi_8bit_dac),
		T(dispi_planar),
		T(dispi_banks_show_vram_in_the_window),
		T(dispi_offsets_pan_within_the_virtual_screen),
		T(dispi_sizes_are_cut_to_vram),
		T(dispi_clears_unless_told_not_to),
		T(pci_function_and_mmio),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
