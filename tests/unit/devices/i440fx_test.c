/* SPDX-License-Identifier: MIT */
/* What answers where: RAM split, firmware ROM, PAM shadowing, SMRAM. */
#include "devices/i440fx.h"
#include "storage_rig.h"

enum { BRIDGE = 0, PAM0 = 0x59, SMRAM = 0x72, ROM_SIZE = 256 * 1024 };

struct fixture {
	struct rig *r;
	struct i440fx *bridge;
	struct mem_region *rom;
};

static struct fixture *start(void)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct error err = ERROR_INIT;

	f->r = rig_new(false);
	f->rom = mem_region_new_rom(f->r->env.mem, "bios", ROM_SIZE, &err);
	memset(f->rom->host, 0xB1, ROM_SIZE);
	f->bridge = i440fx_new(&f->r->env, f->r->pci, f->r->ram, f->rom, &err);
	assert_non_null(f->bridge);
	return f;
}

static void stop(struct fixture *f)
{
	i440fx_free(f->bridge);
	rig_free(f->r);
	free(f);
}

static uint8_t get(struct fixture *f, uint64_t gpa)
{
	uint8_t v;
	mem_read(f->r->env.mem, gpa, &v, 1);
	return v;
}

static void put(struct fixture *f, uint64_t gpa, uint8_t v)
{
	mem_write(f->r->env.mem, gpa, &v, 1);
}

static void ram_is_split_as_firmware_expects(void **state)
{
	assert_true(i440fx_low_ram(256 * MIB) == 256 * MIB);
	assert_true(i440fx_low_ram(3583 * MIB) == 3583 * MIB);
	assert_true(i440fx_low_ram(3584 * MIB) == 3 * GIB);
	assert_true(i440fx_low_ram(8 * GIB) == 3 * GIB);
}

static void rom_is_below_1m_and_below_4g(void **state)
{
	struct fixture *f = start();

	assert_int_equal(get(f, 0xFFFF0), 0xB1);
	assert_int_equal(get(f, 0xE0000), 0xB1);
	assert_int_equal(get(f, 0xDFFFF), 0xFF);
	assert_int_equal(get(f, 0xFFFFFFF0), 0xB1);
	assert_int_equal(get(f, 0xFFFC0000), 0xB1);
	assert_int_equal(get(f, 0xFFFBFFFF), 0xFF);
	put(f, 0xFFFF0, 0);
	assert_int_equal(get(f, 0xFFFF0), 0xB1);
	put(f, 0x9FFFF, 7);
	assert_int_equal(get(f, 0x9FFFF), 7);
	put(f, RIG_RAM - 1, 8);
	assert_int_equal(get(f, RIG_RAM - 1), 8);
	assert_int_equal(get(f, RIG_RAM), 0xFF);
	assert_int_equal(get(f, 0xA0000), 0xFF);
	stop(f);
}

static void pam_switches_reads_and_writes_apart(void **state)
{
	struct fixture *f = start();

	config_out(f->r, BRIDGE, PAM0, 1, 0x20); /* F0000: writes to RAM, reads from ROM */
	put(f, 0xF1234, 0x11);
	assert_int_equal(get(f, 0xF1234), 0xB1);
	config_out(f->r, BRIDGE, PAM0, 1, 0x10); /* reads from RAM, writes to nowhere */
	assert_int_equal(get(f, 0xF1234), 0x11);
	put(f, 0xF1234, 0x22);
	assert_int_equal(get(f, 0xF1234), 0x11);
	/* 16 KiB steps from C0000: PAM1 low, PAM1 high, ... PAM6 high = EC000 */
	for (unsigned i = 0; i < 12; i++) {
		uint32_t base = 0xC0000 + i * 0x4000;
		config_out(f->r, BRIDGE, PAM0 + 1 + i / 2, 1, i % 2 ? 0x30 : 0x03);
		put(f, base, 0x33);
		put(f, base + 0x3FFF, 0x44);
		assert_int_equal(get(f, base), 0x33);
		assert_int_equal(get(f, base + 0x3FFF), 0x44);
		config_out(f->r, BRIDGE, PAM0 + 1 + i / 2, 1, 0);
		assert_int_equal(get(f, base), base < 0xE0000 ? 0xFF : 0xB1);
	}
	config_out(f->r, BRIDGE, PAM0, 1, 0x30);
	state_reset_all(f->r->env.states);
	assert_int_equal(get(f, 0xF1234), 0xB1);
	stop(f);
}

static void smram_opens_and_locks(void **state)
{
	struct fixture *f = start();

	config_out(f->r, BRIDGE, SMRAM, 1, 0x4A);
	assert_int_equal(config_in(f->r, BRIDGE, SMRAM, 1), 0x4A);
	put(f, 0xA8000, 0x55);
	assert_int_equal(get(f, 0xA8000), 0x55);
	config_out(f->r, BRIDGE, SMRAM, 1, 0x0A);
	assert_int_equal(get(f, 0xA8000), 0xFF);
	config_out(f->r, BRIDGE, SMRAM, 1, 0x5A); /* lock closes it */
	assert_int_equal(config_in(f->r, BRIDGE, SMRAM, 1), 0x1A);
	assert_int_equal(get(f, 0xA8000), 0xFF);
	config_out(f->r, BRIDGE, SMRAM, 1, 0x4A);
	assert_int_equal(config_in(f->r, BRIDGE, SMRAM, 1), 0x1A);
	state_reset_all(f->r->env.states);
	assert_int_equal(config_in(f->r, BRIDGE, SMRAM, 1), 0x02);
	config_out(f->r, BRIDGE, SMRAM, 1, 0x4A);
	assert_int_equal(get(f, 0xA8000), 0x55);
	stop(f);
}

static void identity(void **state)
{
	struct fixture *f = start();
	assert_int_equal(config_in(f->r, BRIDGE, 0, 4), 0x12378086);
	assert_int_equal(config_in(f->r, BRIDGE, 0x0A, 2), 0x0600);
	stop(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ram_is_split_as_firmware_expects),
		cmocka_unit_test(rom_is_below_1m_and_below_4g),
		cmocka_unit_test(pam_switches_reads_and_writes_apart),
		cmocka_unit_test(smram_opens_and_locks),
		cmocka_unit_test(identity),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
