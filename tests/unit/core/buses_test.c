/* SPDX-License-Identifier: MIT */
/* Memory view, I/O bus, state registry, key names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/input.h"
#include "core/iobus.h"
#include "core/memory.h"
#include "core/state.h"
#include "lib/bytes.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

static unsigned views, cleared, hook_bytes;
static struct {
	uint64_t offset, value;
	unsigned size, calls;
} seen;

static void on_view(void *opaque)
{
	views++;
}

static void on_cleared(void *opaque, struct mem_region *region)
{
	cleared++;
}

static void on_written(void *opaque, const uint8_t *host, size_t len)
{
	hook_bytes += (unsigned)len;
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
	seen.offset = offset;
	seen.size = size;
	seen.calls++;
	return UINT64_C(0x8877665544332211) >> (offset % 8 * 8);
}

static void mmio_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	seen.offset = offset;
	seen.size = size;
	seen.value = value;
	seen.calls++;
}

static void higher_priority_wins_reads_and_writes_apart(void **state)
{
	struct memory *mem = memory_new();
	struct mem_region *ram = mem_region_new_ram(mem, "ram", MIB, NULL);
	struct mem_region *rom = mem_region_new_rom(mem, "rom", 64 * KIB, NULL);
	struct mem_mapping *low = mem_map(mem, ram, 0, 0, MIB, MEM_PRIO_RAM);
	struct mem_mapping *bios = mem_map(mem, rom, 0, 0xF0000, 64 * KIB, MEM_PRIO_ROM);
	struct mem_mapping *pam = mem_map(mem, ram, 0xF0000, 0xF0000, 64 * KIB, MEM_PRIO_PAM);
	uint8_t byte = 0xAA;
	size_t count;

	memset(rom->host, 0x55, 16);
	mem_mapping_set(low, 0, MEM_RW);
	mem_mapping_set(bios, 0xF0000, MEM_RW);
	assert_false(mem_write(mem, 0xF0000, &byte, 1)); /* ROM */
	assert_int_equal(mem_mmio_read(mem, 0xF0000, 1), 0x55);
	mem_mapping_set(pam, 0xF0000, MEM_W); /* reads from ROM, writes to RAM */
	assert_true(mem_write(mem, 0xF0000, &byte, 1));
	assert_int_equal(mem_mmio_read(mem, 0xF0000, 1), 0x55);
	mem_mapping_set(pam, 0xF0000, MEM_R);
	assert_int_equal(mem_mmio_read(mem, 0xF0000, 1), 0xAA);
	assert_false(mem_write(mem, 0xF0000, &byte, 1));
	mem_mapping_set(pam, 0xF0000, MEM_RW);
	const struct mem_range *view = memory_view(mem, &count);
	assert_int_equal(count, 1); /* all RAM again: one range */
	assert_int_equal(view->end, MIB);
	mem_mapping_set(pam, 0xF0000, 0);
	mem_unmap(bios);
	memory_view(mem, &count);
	assert_int_equal(count, 1);
	memory_free(mem);
}

static void holes_read_as_ones(void **state)
{
	struct memory *mem = memory_new();
	struct mem_region *ram = mem_region_new_ram(mem, "ram", 8 * KIB, NULL);
	uint8_t buf[8];

	mem_mapping_set(mem_map(mem, ram, 0, 0x10000, 8 * KIB, 0), 0x10000, MEM_RW);
	assert_false(mem_read(mem, 0xFFFC, buf, 8));
	assert_int_equal(load_le64(buf), 0x00000000FFFFFFFF);
	assert_false(mem_read(mem, UINT64_MAX - 3, buf, 8));
	assert_int_equal(load_le64(buf), UINT64_MAX);
	assert_false(mem_write(mem, UINT64_MAX - 3, buf, 8));
	assert_int_equal(mem_mmio_read(mem, 0x11FFE, 4), 0xFFFFFFFF); /* crosses the end */
	const struct mem_range *r = memory_lookup(mem, 0x500);
	assert_true(!r->rd && !r->wr && r->end == 0x10000);
	assert_int_equal(memory_lookup(mem, UINT64_MAX)->start, 0x12000);
	size_t len = 0x4000;
	assert_ptr_equal(mem_dma_map(mem, 0x10800, &len, true), ram->host + 0x800);
	assert_int_equal(len, 0x1800);
	assert_null(mem_dma_map(mem, 0x12000, &len, true));
	memory_free(mem);
}

static void mmio_is_split_and_widened(void **state)
{
	static const struct mmio_ops narrow = {mmio_read, mmio_write, 2, 0, false};
	static const struct mmio_ops wide = {mmio_read, mmio_write, 4, 4, false};
	struct memory *mem = memory_new();
	struct mem_region *a = mem_region_new_mmio(mem, "a", 0x100, &narrow, NULL);
	struct mem_region *b = mem_region_new_mmio(mem, "b", 0x100, &wide, NULL);

	mem_mapping_set(mem_map(mem, a, 0, 0x1000, 0x100, 0), 0x1000, MEM_RW);
	mem_mapping_set(mem_map(mem, b, 0, 0x2000, 0x100, 0), 0x2000, MEM_RW);
	memset(&seen, 0, sizeof(seen));
	assert_int_equal(mem_mmio_read(mem, 0x1000, 8), 0x8877665544332211);
	assert_int_equal(seen.calls, 4);
	mem_mmio_write(mem, 0x1010, 4, 0xAABBCCDD);
	assert_int_equal(seen.offset, 0x12);
	assert_int_equal(seen.value, 0xAABB);
	assert_int_equal(mem_mmio_read(mem, 0x2001, 1), 0x22);
	assert_int_equal(seen.size, 4);
	assert_int_equal(seen.offset, 0);
	assert_int_equal(mem_mmio_read(mem, 0x2003, 2), 0x5544);
	memory_free(mem);
}

static void listeners_hear_of_each_change_once(void **state)
{
	struct memory *mem = memory_new();
	struct mem_region *ram = mem_region_new_ram(mem, "ram", 64 * KIB, NULL);
	struct mem_listener listener = {.view_changed = on_view, .dirty_cleared = on_cleared};
	struct mem_mapping *m = mem_map(mem, ram, 0, 0, 64 * KIB, 0);
	uint64_t bitmap[1];

	memory_add_listener(mem, &listener);
	memory_set_write_hook(mem, on_written, NULL);
	views = cleared = hook_bytes = 0;
	memory_begin(mem);
	mem_mapping_set(m, 0, MEM_RW);
	mem_mapping_set(m, 0x10000, MEM_RW);
	assert_int_equal(views, 0);
	memory_commit(mem);
	assert_int_equal(views, 1);
	mem_mapping_set(m, 0x10000, MEM_RW); /* no change */
	assert_int_equal(views, 1);
	memory_set_a20(mem, false);
	memory_set_a20(mem, false);
	assert_int_equal(views, 2);
	assert_false(memory_a20(mem));
	mem_region_log_dirty(mem, ram, true);
	assert_int_equal(views, 3);
	uint8_t data[5000] = {0};
	assert_true(mem_write(mem, 0x11FFF, data, sizeof(data)));
	assert_int_equal(hook_bytes, sizeof(data));
	assert_true(mem_dirty_fetch(mem, ram, 0, 16, bitmap));
	assert_int_equal(bitmap[0], 0x0E);
	assert_int_equal(cleared, 1);
	assert_false(mem_dirty_fetch(mem, ram, 0, 16, bitmap));
	assert_int_equal(cleared, 1);
	mem_dma_wrote(mem, 0x10000, 1);
	assert_true(mem_dirty_fetch(mem, ram, 0, 1, bitmap));
	mem_dirty_mark(ram, 64 * KIB - 1, 2); /* out of bounds: ignored */
	assert_false(mem_dirty_fetch(mem, ram, 0, 16, bitmap));
	memory_free(mem);
}

/* ---- I/O bus ---- */

static uint32_t io_read(void *opaque, uint16_t port, unsigned size)
{
	seen.calls++;
	return size == 1 ? port & 0xFFu : 0xDEADBEEF;
}

static void io_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	seen.calls++;
	seen.offset = port;
	seen.size = size;
	seen.value = value;
}

static size_t io_read_block(void *opaque, uint16_t port, unsigned size, void *buf, size_t count)
{
	size_t n = count > 3 ? 3 : count; /* moves a few, the bus asks again */
	seen.calls++;
	memset(buf, 0x77, n * size);
	return n;
}

static const struct io_ops byte_ops = {.read = io_read, .write = io_write};
static const struct io_ops word_ops = {
	.read = io_read, .write = io_write, .read_block = io_read_block, .sizes = 1 | 2 | 4};

static void ports_split_to_their_owners(void **state)
{
	struct iobus *bus = iobus_new();
	struct io_range *a = iobus_add(bus, "a", 0x10, 4, &byte_ops, NULL);
	struct io_range *b = iobus_add(bus, "b", 0x20, 4, &word_ops, NULL);

	assert_int_equal(iobus_read(bus, 0x10, 4), 0x13121110);
	assert_int_equal(iobus_read(bus, 0x12, 4), 0xFFFF1312);
	assert_int_equal(iobus_read(bus, 0x20, 4), 0xDEADBEEF);
	assert_int_equal(iobus_read(bus, 0x20, 2), 0xBEEF);
	/* An access that leaves the range is never handed over whole. */
	assert_int_equal(iobus_read(bus, 0x23, 2), 0xFF23);
	assert_int_equal(iobus_read(bus, 0xFFFF, 2), 0xFFFF);
	iobus_write(bus, 0x10, 2, 0xABCD);
	assert_int_equal(seen.offset, 0x11);
	assert_int_equal(seen.value, 0xAB);
	struct io_range *c = iobus_add(bus, "c", 0x12, 2, &word_ops, NULL);
	assert_int_equal(iobus_read(bus, 0x12, 2), 0xBEEF);
	/* A range that goes away gives its ports back to whom it took them from. */
	struct io_range *d = iobus_add(bus, "d", 0x13, 2, &word_ops, NULL);
	iobus_remove(bus, c);
	assert_int_equal(iobus_read(bus, 0x12, 1), 0x12);
	assert_int_equal(iobus_read(bus, 0x13, 2), 0xBEEF);
	iobus_remove(bus, d);
	assert_int_equal(iobus_read(bus, 0x12, 2), 0x1312);
	assert_int_equal(iobus_read(bus, 0x14, 1), 0xFF);
	iobus_remove(bus, a);
	assert_int_equal(iobus_read(bus, 0x10, 1), 0xFF);
	iobus_remove(bus, b);
	iobus_free(bus);
}

static void blocks_go_on_until_done(void **state)
{
	struct iobus *bus = iobus_new();
	uint16_t buf[10] = {0};

	iobus_add(bus, "b", 0x20, 4, &word_ops, NULL);
	iobus_add(bus, "a", 0x30, 4, &byte_ops, NULL);
	seen.calls = 0;
	iobus_read_block(bus, 0x20, 2, buf, 10);
	assert_int_equal(seen.calls, 4);
	assert_int_equal(buf[9], 0x7777);
	seen.calls = 0;
	iobus_write_block(bus, 0x20, 2, buf, 10);
	assert_int_equal(seen.calls, 10);
	iobus_read_block(bus, 0x30, 2, buf, 2);
	assert_int_equal(buf[1], 0x3130);
	iobus_free(bus);
}

/* ---- state ---- */

struct thing {
	uint32_t number;
	uint8_t bytes[4];
	struct inner {
		uint16_t a;
		bool b;
	} inner[2];
	unsigned resets, loads;
	bool damaged; /* post_load finds so */
};

static const struct state_field inner_fields[] = {STATE_UINT(inner, a), STATE_UINT(inner, b),
						  STATE_END};
static const struct state_field thing_fields[] = {
	STATE_UINT(thing, number), STATE_BYTES(thing, bytes),
	STATE_STRUCTS(thing, inner, inner_fields), STATE_END};

static void thing_reset(void *opaque)
{
	((struct thing *)opaque)->resets++;
}

static int thing_post_load(void *opaque, unsigned version, struct error *err)
{
	struct thing *thing = opaque;
	thing->loads++;
	return thing->damaged ? error_set(err, EINVAL, "damaged") : 0;
}

static const struct state_desc thing_desc = {
	.name = "thing",
	.version = 1,
	.fields = thing_fields,
	.reset = thing_reset,
	.post_load = thing_post_load,
};

static void states_save_load_and_print(void **state)
{
	struct state_registry *reg = state_registry_new();
	struct thing one = {.number = 0x1234, .bytes = {1, 2, 3, 4}, .inner[1] = {77, true}};
	struct thing two = {.number = 5};
	struct strbuf image = STRBUF_INIT, text = STRBUF_INIT;
	struct error err = ERROR_INIT;

	state_register(reg, &thing_desc, 0, &one);
	state_register(reg, &thing_desc, 1, &two);
	state_save(reg, &image);
	state_reset_all(reg);
	assert_int_equal(one.number, 0);
	assert_int_equal(one.inner[1].a, 0);
	assert_int_equal(one.resets, 1);
	assert_int_equal(state_load(reg, image.data, image.len, &err), 0);
	assert_int_equal(one.number, 0x1234);
	assert_int_equal(one.inner[1].a, 77);
	assert_int_equal(two.number, 5);
	assert_int_equal(two.loads, 1);
	assert_true(state_print(reg, "thing.0", &text));
	assert_non_null(strstr(strbuf_str(&text), "inner[1].a = 004d"));
	assert_null(strstr(strbuf_str(&text), "thing.1"));
	assert_false(state_print(reg, "nothing", &text));

	/* Every shorter file is refused and changes nothing. */
	for (size_t len = 0; len < image.len; len++) {
		one.number = 9;
		assert_true(state_load(reg, image.data, len, &err) < 0);
		assert_int_equal(one.number, 9);
	}
	/* A single wrong byte never crashes. */
	for (size_t i = 0; i < image.len; i++) {
		image.data[i] ^= 0x5A;
		state_load(reg, image.data, image.len, &err);
		image.data[i] ^= 0x5A;
	}
	state_unregister(reg, &two);
	assert_true(state_load(reg, image.data, image.len, &err) < 0);
	assert_non_null(strstr(err.text, "thing.1"));
	strbuf_free(&image);
	strbuf_free(&text);
	state_registry_free(reg);
}

static void a_bool_is_loaded_as_true_or_false(void **state)
{
	struct state_registry *reg = state_registry_new();
	struct thing one = {.inner[1] = {0x4142, true}};
	struct strbuf image = STRBUF_INIT;
	uint8_t raw;

	state_register(reg, &thing_desc, 0, &one);
	state_save(reg, &image);
	assert_int_equal(image.data[image.len - 1], 1);
	image.data[image.len - 1] = 0x5A;
	assert_int_equal(state_load(reg, image.data, image.len, NULL), 0);
	memcpy(&raw, &one.inner[1].b, 1);
	assert_int_equal(raw, 1);
	strbuf_free(&image);
	state_registry_free(reg);
}

/* What one device finds damaged must not stay in the others either. */
static void a_refused_state_leaves_reset_devices(void **state)
{
	struct state_registry *reg = state_registry_new();
	struct thing one = {.number = 0x1234}, two = {.number = 5};
	struct strbuf image = STRBUF_INIT;
	struct error err = ERROR_INIT;

	state_register(reg, &thing_desc, 0, &one);
	state_register(reg, &thing_desc, 1, &two);
	state_save(reg, &image);
	two.damaged = true;
	assert_true(state_load(reg, image.data, image.len, &err) < 0);
	assert_non_null(strstr(err.text, "thing.1"));
	assert_int_equal(one.number, 0);
	assert_int_equal(two.number, 0);
	assert_int_equal(one.resets, 2); /* before and after */
	strbuf_free(&image);
	state_registry_free(reg);
}

/* ---- keys ---- */

static void keys_have_names(void **state)
{
	assert_int_equal(key_from_name("ret"), 0x1C);
	assert_int_equal(key_from_name("kp_enter"), 0x9C);
	assert_int_equal(key_from_name("delete"), 0xD3);
	assert_int_equal(key_from_name("nokey"), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(higher_priority_wins_reads_and_writes_apart),
		cmocka_unit_test(holes_read_as_ones),
		cmocka_unit_test(mmio_is_split_and_widened),
		cmocka_unit_test(listeners_hear_of_each_change_once),
		cmocka_unit_test(ports_split_to_their_owners),
		cmocka_unit_test(blocks_go_on_until_done),
		cmocka_unit_test(states_save_load_and_print),
		cmocka_unit_test(a_bool_is_loaded_as_true_or_false),
		cmocka_unit_test(a_refused_state_leaves_reset_devices),
		cmocka_unit_test(keys_have_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
