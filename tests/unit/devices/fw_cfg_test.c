/* SPDX-License-Identifier: MIT */
/* fw_cfg as the firmware uses it: selector and data port, block reads, DMA, the directory. */
#include "core/iobus.h"
#include "core/memory.h"
#include "core/state.h"
#include "devices/fw_cfg.h"
#include "lib/bytes.h"
#include "lib/loop.h"
#include "lib/text.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SELECTOR = 0x510, DATA = 0x511, DMA_HIGH = 0x514, DMA_LOW = 0x518, DESCRIPTOR = 0x100 };
enum { ERROR = 1, READ = 2, SKIP = 4, SELECT = 8, WRITE = 16 };

struct rig {
	struct device_env env;
	struct fw_cfg *fw;
	struct mem_region *ram;
};

static int setup(void **state)
{
	struct rig *r = xcalloc(1, sizeof(*r));
	struct error err = ERROR_INIT;

	r->env = (struct device_env){
		.mem = memory_new(), .io = iobus_new(), .states = state_registry_new()};
	r->ram = mem_region_new_ram(r->env.mem, "ram", 64 * KIB, &err);
	mem_mapping_set(mem_map(r->env.mem, r->ram, 0, 0, 64 * KIB, MEM_PRIO_RAM), 0, MEM_RW);
	r->fw = fw_cfg_new(&r->env);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	fw_cfg_free(r->fw);
	state_registry_free(r->env.states);
	iobus_free(r->env.io);
	memory_free(r->env.mem);
	free(r);
	return 0;
}

static void select_key(struct rig *r, uint16_t key)
{
	iobus_write(r->env.io, SELECTOR, 2, key);
}

static uint8_t next(struct rig *r)
{
	return (uint8_t)iobus_read(r->env.io, DATA, 1);
}

/* Runs one DMA command; what the device left in the control word. */
static uint32_t dma(struct rig *r, uint32_t control, uint32_t len, uint64_t addr)
{
	uint8_t *d = r->ram->host + DESCRIPTOR;

	store_be32(d, control);
	store_be32(d + 4, len);
	store_be64(d + 8, addr);
	iobus_write(r->env.io, DMA_HIGH, 4, 0);
	iobus_write(r->env.io, DMA_LOW, 4, __builtin_bswap32(DESCRIPTOR));
	return load_be32(d);
}

static void signature_and_id_are_read_byte_by_byte_and_end_in_zeros(void **state)
{
	struct rig *r = *state;

	select_key(r, FW_CFG_SIGNATURE);
	assert_int_equal(next(r), 'Q');
	assert_int_equal(next(r), 'E');
	assert_int_equal(next(r), 'M');
	assert_int_equal(next(r), 'U');
	assert_int_equal(next(r), 0);
	select_key(r, FW_CFG_ID);
	assert_int_equal(next(r), 3);
	select_key(r, 0x3fff);
	assert_int_equal(next(r), 0);
	assert_int_equal(iobus_read(r->env.io, DMA_HIGH, 4), __builtin_bswap32(0x51454d55));
	assert_int_equal(iobus_read(r->env.io, DMA_LOW, 4), __builtin_bswap32(0x20434647));
}

static void block_read_gives_what_single_reads_give(void **state)
{
	struct rig *r = *state;
	uint8_t buf[8];

	fw_cfg_add_bytes(r->fw, FW_CFG_UUID, "abcde", 5);
	select_key(r, FW_CFG_UUID);
	assert_int_equal(next(r), 'a');
	iobus_read_block(r->env.io, DATA, 1, buf, sizeof(buf));
	assert_memory_equal(buf, "bcde\0\0\0\0", 8);
}

static void directory_is_sorted_and_big_endian(void **state)
{
	struct rig *r = *state;
	struct error err = ERROR_INIT;
	uint8_t dir[4 + 2 * 64];

	assert_int_equal(fw_cfg_add_file(r->fw, "etc/zulu", "zz", 2, &err), 0);
	assert_int_equal(fw_cfg_add_file(r->fw, "bootorder", "alpha", 5, &err), 0);
	select_key(r, FW_CFG_FILE_DIR);
	iobus_read_block(r->env.io, DATA, 1, dir, sizeof(dir));
	assert_int_equal(load_be32(dir), 2);
	assert_string_equal((char *)dir + 4 + 8, "bootorder");
	assert_int_equal(load_be32(dir + 4), 5);
	assert_int_equal(load_be16(dir + 8), 0x20);
	assert_string_equal((char *)dir + 68 + 8, "etc/zulu");
	select_key(r, load_be16(dir + 72));
	assert_int_equal(next(r), 'z');
}

static void files_can_be_replaced_and_removed(void **state)
{
	struct rig *r = *state;
	struct error err = ERROR_INIT;
	size_t len;

	fw_cfg_add_file(r->fw, "a", "1", 1, &err);
	fw_cfg_add_file(r->fw, "b", "2", 1, &err);
	fw_cfg_add_file(r->fw, "a", "long", 4, &err);
	assert_memory_equal(fw_cfg_file(r->fw, "a", &len), "long", 4);
	assert_true(fw_cfg_remove_file(r->fw, "a"));
	assert_null(fw_cfg_file(r->fw, "a", &len));
	assert_memory_equal(fw_cfg_file(r->fw, "b", &len), "2", 1);
	assert_false(fw_cfg_remove_file(r->fw, "a"));
	assert_int_equal(fw_cfg_add_file(r->fw, "", "x", 1, &err), -22);
}

static void dma_copies_pads_with_zeros_and_clears_the_control_word(void **state)
{
	struct rig *r = *state;

	fw_cfg_add_bytes(r->fw, FW_CFG_UUID, "abcde", 5);
	memset(r->ram->host + 0x200, 0xff, 16);
	assert_int_equal(dma(r, (uint32_t)FW_CFG_UUID << 16 | SELECT | READ, 2, 0x200), 0);
	assert_int_equal(dma(r, SKIP, 1, 0), 0);
	assert_int_equal(dma(r, READ, 4, 0x202), 0);
	assert_memory_equal(r->ram->host + 0x200, "abde\0\0\xff", 7);
}

static void dma_to_nowhere_sets_the_error_bit(void **state)
{
	struct rig *r = *state;

	assert_int_equal(dma(r, SELECT | READ, 4, 0x20000), ERROR);
	assert_int_equal(dma(r, SELECT | READ, UINT32_MAX, 0xf000), ERROR);
	assert_int_equal(dma(r, SELECT | READ, 4, UINT64_MAX), ERROR);
}

static void count_writes(void *opaque)
{
	++*(int *)opaque;
}

static void guest_writes_only_where_it_may_and_within_the_size(void **state)
{
	struct rig *r = *state;
	struct error err = ERROR_INIT;
	int writes = 0;
	size_t len;

	fw_cfg_add_file(r->fw, "ro", "1234", 4, &err);
	fw_cfg_add_writable_file(r->fw, "rw", "1234", 4, count_writes, &writes, &err);
	memcpy(r->ram->host + 0x200, "abcdefgh", 8);
	assert_int_equal(dma(r, 0x20u << 16 | SELECT | WRITE, 4, 0x200), ERROR);
	assert_int_equal(dma(r, 0x21u << 16 | SELECT | WRITE, 5, 0x200), ERROR);
	assert_int_equal(writes, 0);
	assert_int_equal(dma(r, 0x21u << 16 | SELECT | WRITE, 4, 0x200), 0);
	assert_int_equal(writes, 1);
	assert_memory_equal(fw_cfg_file(r->fw, "ro", &len), "1234", 4);
	assert_memory_equal(fw_cfg_file(r->fw, "rw", &len), "abcd", 4);
}

/* A length that no item has must not hold the machine up: the rest goes on from the loop. */
static void long_dma_goes_on_in_the_loop(void **state)
{
	enum { BIG = 100 << 20 };
	struct rig *old = *state;
	struct rig r = {.env = old->env};
	struct error err = ERROR_INIT;
	unsigned turns = 0;

	fw_cfg_free(old->fw);
	r.env.loop = loop_new(&err);
	loop_lock(r.env.loop);
	r.ram = mem_region_new_ram(r.env.mem, "big", BIG, &err);
	mem_mapping_set(mem_map(r.env.mem, r.ram, 0, 0, BIG, MEM_PRIO_ROM), 0, MEM_RW);
	r.fw = fw_cfg_new(&r.env);
	fw_cfg_add_bytes(r.fw, FW_CFG_UUID, "abcde", 5);
	r.ram->host[BIG - 1] = 0xff;
	assert_int_not_equal(dma(&r, (uint32_t)FW_CFG_UUID << 16 | SELECT | READ, BIG - 4096, 4096),
			     0);
	assert_memory_equal(r.ram->host + 4096, "abcde", 6);
	assert_int_equal(r.ram->host[BIG - 1], 0xff);
	while (load_be32(r.ram->host + DESCRIPTOR) && turns++ < 100) {
		loop_unlock(r.env.loop);
		loop_run_once(r.env.loop, 1000);
		loop_lock(r.env.loop);
	}
	assert_in_range(turns, 1, 10);
	assert_int_equal(r.ram->host[BIG - 1], 0);
	/* A new command ends the one before, a reset both. */
	dma(&r, READ, BIG - 4096, 4096);
	assert_int_equal(dma(&r, SKIP, 1, 0), 0);
	dma(&r, READ, BIG - 4096, 4096);
	state_reset_all(r.env.states);
	loop_unlock(r.env.loop);
	loop_run_once(r.env.loop, 0);
	loop_lock(r.env.loop);
	fw_cfg_free(r.fw);
	loop_unlock(r.env.loop);
	loop_free(r.env.loop);
	old->fw = fw_cfg_new(&old->env);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(signature_and_id_are_read_byte_by_byte_and_end_in_zeros),
		T(block_read_gives_what_single_reads_give),
		T(directory_is_sorted_and_big_endian),
		T(files_can_be_replaced_and_removed),
		T(dma_copies_pads_with_zeros_and_clears_the_control_word),
		T(dma_to_nowhere_sets_the_error_bit),
		T(long_dma_goes_on_in_the_loop),
		T(guest_writes_only_where_it_may_and_within_the_size),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
