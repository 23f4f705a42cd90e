/* SPDX-License-Identifier: MIT */
/* Port input and output: permission, strings, what a fault in a string leaves behind. */
#include "tests/unit/cpu/pm_machine.h"

/* A device at 0x300 that counts: each read gives the next number, writes are remembered. */
struct counter {
	uint32_t next, written, writes, blocks;
	size_t largest_block;
};

static uint32_t counter_read(void *opaque, uint16_t port, unsigned size)
{
	struct counter *c = opaque;
	return c->next++;
}

static void counter_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct counter *c = opaque;
	c->written = value;
	c->writes++;
}

static size_t counter_read_block(void *opaque, uint16_t port, unsigned size, void *buf,
				 size_t count)
{
	struct counter *c = opaque;
	c->blocks++;
	if (count > c->largest_block)
		c->largest_block = count;
	for (size_t n = 0; n < count; n++)
		store_le((uint8_t *)buf + n * size, c->next++, size);
	return count;
}

static const struct io_ops counter_ops = {
	.read = counter_read,
	.write = counter_write,
	.read_block = counter_read_block,
	.sizes = 1 | 2 | 4,
};

static struct counter counter;

static int setup(void **state)
{
	pm_setup(state);
	struct pm *p = *state;
	counter = (struct counter){.next = 1};
	iobus_add(p->io, "counter", 0x300, 8, &counter_ops, &counter);
	return 0;
}

static void in_and_out_by_size(void **state)
{
	struct pm *p = *state;
	counter.next = 0x11223344;
	p->s.gpr[R_EAX] = 0xAAAAAAAA;
	p->s.gpr[R_EDX] = 0xFFFF0300;
	pm_run(p, 0x66, 0xED, 0xEF, 0xF4); /* IN AX, DX; OUT DX, EAX */
	assert_int_equal(p->s.gpr[R_EAX], 0xAAAA3344);
	assert_int_equal(counter.written, 0xAAAA3344);
}

static void permission_map_decides_beyond_iopl(void **state)
{
	enum { MAP = 0x68, PORT = 0x300 };
	struct pm *p = *state;
	uint8_t *map = p->ram + AT_TSS_A + MAP;
	pm_segment(p, TSS_A, AT_TSS_A, MAP + PORT / 8 + 1, P_TSS32_BUSY);
	memset(map, 0xFF, PORT / 8 + 2);
	map[PORT / 8] = 0xFC; /* 0x300 and 0x301 are allowed */
	const struct {
		uint8_t op[2];
		uint32_t port;
		bool ok;
	} cases[] = {
		{{0x90, 0xEC}, 0x300, true},  {{0x90, 0xEC}, 0x301, true},
		{{0x90, 0xEC}, 0x302, false}, {{0x66, 0xED}, 0x300, true},
		{{0x66, 0xED}, 0x301, false}, {{0x90, 0xED}, 0x300, false},
		{{0x90, 0xEC}, 0x2FF, false}, {{0x90, 0xEC}, 0x400, false},
		{{0x90, 0xEE}, 0x300, true},
	};
	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		uint8_t code[] = {cases[n].op[0], cases[n].op[1], 0xCD, VECTOR_TEST};
		pm_level(p, 3);
		p->s.gpr[R_EDX] = cases[n].port;
		pm_run_bytes(p, code, sizeof(code));
		assert_vector(p, cases[n].ok ? VECTOR_TEST : EXC_GP);
	}
	pm_level(p, 3);
	p->s.eflags |= FL_IOPL;
	p->s.gpr[R_EDX] = 0x302;
	pm_run(p, 0xEC, 0xCD, VECTOR_TEST);
	assert_vector(p, VECTOR_TEST);
}

static void rep_ins_moves_blocks(void **state)
{
	struct pm *p = *state;
	p->s.gpr[R_ECX] = 1000;
	p->s.gpr[R_EDI] = AT_DATA + 0xF00;
	p->s.gpr[R_EDX] = 0x300;
	pm_run(p, 0xF3, 0x66, 0x6D, 0xF4);
	assert_int_equal(p->s.gpr[R_ECX], 0);
	assert_int_equal(p->s.gpr[R_EDI], AT_DATA + 0xF00 + 2000);
	for (unsigned n = 0; n < 1000; n++)
		assert_int_equal(pm_ld16(p, AT_DATA + 0xF00 + 2 * n), n + 1);
	assert_true(counter.blocks >= 4 && counter.blocks < 20);
	assert_true(counter.largest_block <= 256);
}

static void rep_ins_downwards(void **state)
{
	struct pm *p = *state;
	p->s.eflags |= FL_DF;
	p->s.gpr[R_ECX] = 3;
	p->s.gpr[R_EDI] = AT_DATA + 8;
	p->s.gpr[R_EDX] = 0x300;
	pm_run(p, 0xF3, 0x6D, 0xF4);
	assert_int_equal(p->s.gpr[R_EDI], AT_DATA - 4);
	assert_int_equal(pm_ld32(p, AT_DATA), 3);
	assert_int_equal(pm_ld32(p, AT_DATA + 8), 1);
}

static void rep_with_zero_count_does_nothing(void **state)
{
	struct pm *p = *state;
	p->s.gpr[R_EDX] = 0x300;
	p->s.gpr[R_EDI] = 0xFFFFFFF0;
	pm_run(p, 0xF3, 0x6C, 0xF3, 0x6F, 0xF4);
	assert_int_equal(p->s.eip, AT_CODE + 5);
	assert_int_equal(counter.next, 1);
}

static void ins_fault_keeps_what_was_moved(void **state)
{
	struct pm *p = *state;
	/* ES: IN_LDT, limit 0xFF: the 65th dword does not fit. */
	pm_load(p, S_ES, IN_LDT);
	p->s.gpr[R_ECX] = 100;
	p->s.gpr[R_EDX] = 0x300;
	pm_run(p, 0xF3, 0x6D);
	assert_fault(p, EXC_GP, 0, 0);
	assert_int_equal(p->s.gpr[R_ECX], 36);
	assert_int_equal(p->s.gpr[R_EDI], 0x100);
	assert_int_equal(counter.next, 65); /* nothing was taken from the device in vain */
}

static void outs_with_16_bit_addresses_wraps(void **state)
{
	struct pm *p = *state;
	p->s.gpr[R_ESI] = 0xABCDFFFE;
	p->s.gpr[R_ECX] = 0xFFFF0002;
	p->s.gpr[R_EDX] = 0x300;
	store_le16(p->ram, 0x5678);
	pm_run(p, 0x67, 0xF3, 0x66, 0x6F, 0xF4);
	assert_int_equal(p->s.gpr[R_ESI], 0xABCD0002);
	assert_int_equal(p->s.gpr[R_ECX], 0xFFFF0000);
	assert_int_equal(counter.written, 0x5678);
	assert_int_equal(counter.writes, 2);
}

static void single_step_stops_between_items(void **state)
{
	struct pm *p = *state;
	p->s.eflags |= FL_TF;
	p->s.gpr[R_ECX] = 5;
	p->s.gpr[R_EDI] = AT_DATA;
	p->s.gpr[R_EDX] = 0x300;
	pm_run(p, 0xF3, 0x6C, 0xF4);
	assert_vector(p, EXC_DB);
	assert_int_equal(pm_stack(p, 0), AT_CODE);
	assert_int_equal(p->s.gpr[R_ECX], 4);
}

#define IO_TEST(name) cmocka_unit_test_setup_teardown(name, setup, pm_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IO_TEST(in_and_out_by_size),
		IO_TEST(permission_map_decides_beyond_iopl),
		IO_TEST(rep_ins_moves_blocks),
		IO_TEST(rep_ins_downwards),
		IO_TEST(rep_with_zero_count_does_nothing),
		IO_TEST(ins_fault_keeps_what_was_moved),
		IO_TEST(outs_with_16_bit_addresses_wraps),
		IO_TEST(single_step_stops_between_items),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
