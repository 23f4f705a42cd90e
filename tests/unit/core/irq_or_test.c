/* SPDX-License-Identifier: MIT */
/* Shared interrupt lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above first */
#include <cmocka.h>

#include "core/irq_or.h"
#include "core/state.h"

static bool line;
static unsigned changes;

static void set_line(void *opaque, int n, bool level)
{
	assert_int_equal(n, 4);
	line = level;
	changes++;
}

struct shared {
	struct state_registry *states;
	struct irq_or *gate;
	struct irq_line com1, com3;
};

static void setup(struct shared *s)
{
	line = false;
	s->states = state_registry_new();
	s->gate = irq_or_new(s->states, 4, (struct irq_line){set_line, NULL, 4});
	s->com1 = irq_or_input(s->gate);
	s->com3 = irq_or_input(s->gate);
	changes = 0;
}

static void teardown(struct shared *s)
{
	irq_or_free(s->gate);
	state_registry_free(s->states);
}

static void one_device_cannot_lower_what_another_holds(void **state)
{
	struct shared s;

	setup(&s);
	irq_raise(&s.com1);
	assert_true(line);
	irq_raise(&s.com3);
	assert_int_equal(changes, 1);
	irq_lower(&s.com1);
	assert_true(line);
	irq_lower(&s.com1); /* said twice: counts once */
	assert_true(line);
	irq_lower(&s.com3);
	assert_false(line);
	assert_int_equal(changes, 2);
	teardown(&s);
}

static void reset_and_load_put_the_line_right(void **state)
{
	struct shared s;
	struct strbuf image = STRBUF_INIT;

	setup(&s);
	irq_raise(&s.com3);
	state_save(s.states, &image);
	state_reset_all(s.states);
	assert_false(line);
	assert_int_equal(state_load(s.states, image.data, image.len, NULL), 0);
	assert_true(line);
	irq_lower(&s.com1);
	assert_true(line);
	irq_lower(&s.com3);
	assert_false(line);
	strbuf_free(&image);
	teardown(&s);
}

static void inputs_beyond_the_last_are_not_connected(void **state)
{
	struct shared s;
	struct irq_line input = {0};

	setup(&s);
	for (int n = 2; n <= IRQ_OR_INPUTS; n++) {
		input = irq_or_input(s.gate);
		if (n == IRQ_OR_INPUTS - 1) {
			irq_raise(&input);
			assert_true(line);
			irq_lower(&input);
		}
	}
	irq_raise(&input);
	assert_false(line);
	teardown(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_device_cannot_lower_what_another_holds),
		cmocka_unit_test(reset_and_load_put_the_line_right),
		cmocka_unit_test(inputs_beyond_the_last_are_not_connected),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
