/* SPDX-License-Identifier: MIT */
/* The coprocessor's error latch: FERR#, IRQ13, port F0h. */
#include "devices/coprocessor.h"
#include "rig.h"

struct fixture {
	struct rig rig;
	struct coprocessor *dev;
	unsigned ignne;
};

static void on_ignne(void *opaque)
{
	((struct fixture *)opaque)->ignne++;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	rig_init(&f->rig);
	f->dev = coprocessor_new(&f->rig.env, rig_line(&f->rig, 13), on_ignne, f);
	state_reset_all(f->rig.env.states);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	coprocessor_free(f->dev);
	rig_fini(&f->rig);
	free(f);
	return 0;
}

static void ferr_is_one_edge_until_cleared(void **state)
{
	struct fixture *f = *state;
	coprocessor_ferr(f->dev);
	coprocessor_ferr(f->dev); /* the stopped CPU tells again and again */
	assert_true(f->rig.line[13]);
	assert_int_equal(f->rig.edges[13], 1);
	outb(&f->rig, 0xF0, 0);
	assert_false(f->rig.line[13]);
	assert_int_equal(f->ignne, 1);
	coprocessor_ferr(f->dev);
	assert_int_equal(f->rig.edges[13], 2);
}

static void f1_clears_without_ignne(void **state)
{
	struct fixture *f = *state;
	coprocessor_ferr(f->dev);
	outb(&f->rig, 0xF1, 0);
	assert_false(f->rig.line[13]);
	assert_int_equal(f->ignne, 0);
}

static void reset_lowers_the_line(void **state)
{
	struct fixture *f = *state;
	coprocessor_ferr(f->dev);
	state_reset_all(f->rig.env.states);
	assert_false(f->rig.line[13]);
	assert_int_equal(inb(&f->rig, 0xF0), 0xFF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(ferr_is_one_edge_until_cleared, setup, teardown),
		cmocka_unit_test_setup_teardown(f1_clears_without_ignne, setup, teardown),
		cmocka_unit_test_setup_teardown(reset_lowers_the_line, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
