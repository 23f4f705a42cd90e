/* SPDX-License-Identifier: MIT */
#include "devices/i8259.h"
#include "rig.h"

struct fixture {
	struct rig rig;
	struct i8259 *pic;
	struct irq_line irq[16];
};

/* As a PC's firmware sets it up: vectors 08h and 70h, everything unmasked. */
static void init_pics(struct fixture *f, uint8_t icw4)
{
	static const uint16_t ports[] = {0x20, 0xA0};
	for (int i = 0; i < 2; i++) {
		outb(&f->rig, ports[i], 0x11);
		outb(&f->rig, (uint16_t)(ports[i] + 1), i ? 0x70 : 0x08);
		outb(&f->rig, (uint16_t)(ports[i] + 1), i ? 2 : 4);
		outb(&f->rig, (uint16_t)(ports[i] + 1), icw4);
		outb(&f->rig, (uint16_t)(ports[i] + 1), 0);
	}
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	rig_init(&f->rig);
	f->pic = i8259_new(&f->rig.env, rig_line(&f->rig, 0));
	for (int i = 0; i < 16; i++)
		f->irq[i] = i8259_line(f->pic, i);
	state_reset_all(f->rig.env.states);
	init_pics(f, 1);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	i8259_free(f->pic);
	rig_fini(&f->rig);
	free(f);
	return 0;
}

static uint8_t read_isr(struct fixture *f, uint16_t port)
{
	outb(&f->rig, port, 0x0B);
	return inb(&f->rig, port);
}

static uint8_t read_irr(struct fixture *f, uint16_t port)
{
	outb(&f->rig, port, 0x0A);
	return inb(&f->rig, port);
}

static void an_edge_is_latched_and_acknowledged(void **state)
{
	struct fixture *f = *state;
	irq_pulse(&f->irq[3]);
	assert_true(i8259_pending(f->pic));
	assert_true(f->rig.line[0]);
	assert_int_equal(read_irr(f, 0x20), 0x08);
	assert_int_equal(i8259_ack(f->pic), 0x0B);
	assert_false(i8259_pending(f->pic));
	assert_int_equal(read_isr(f, 0x20), 0x08);
	assert_int_equal(read_irr(f, 0x20), 0);
	outb(&f->rig, 0x20, 0x20);
	assert_int_equal(read_isr(f, 0x20), 0);
}

static void a_line_that_stays_high_is_one_edge(void **state)
{
	struct fixture *f = *state;
	irq_raise(&f->irq[4]);
	assert_int_equal(i8259_ack(f->pic), 0x0C);
	outb(&f->rig, 0x20, 0x20);
	assert_false(i8259_pending(f->pic));
	irq_raise(&f->irq[4]);
	assert_false(i8259_pending(f->pic));
	irq_lower(&f->irq[4]);
	irq_raise(&f->irq[4]);
	assert_true(i8259_pending(f->pic));
}

static void the_slave_comes_through_the_cascade(void **state)
{
	struct fixture *f = *state;
	irq_pulse(&f->irq[14]);
	assert_int_equal(i8259_ack(f->pic), 0x76);
	assert_int_equal(read_isr(f, 0x20), 0x04);
	assert_int_equal(read_isr(f, 0xA0), 0x40);
	/* A lower-priority request of the slave waits for both EOIs. */
	irq_pulse(&f->irq[15]);
	outb(&f->rig, 0x20, 0x20);
	assert_false(i8259_pending(f->pic));
	outb(&f->rig, 0xA0, 0x20);
	assert_true(i8259_pending(f->pic));
	assert_int_equal(i8259_ack(f->pic), 0x77);
}

static void higher_priority_nests_and_lower_waits(void **state)
{
	struct fixture *f = *state;
	irq_pulse(&f->irq[4]);
	assert_int_equal(i8259_ack(f->pic), 0x0C);
	irq_pulse(&f->irq[5]);
	assert_false(i8259_pending(f->pic));
	irq_pulse(&f->irq[1]);
	assert_true(i8259_pending(f->pic));
	assert_int_equal(i8259_ack(f->pic), 0x09);
	outb(&f->rig, 0x20, 0x20); /* ends IRQ 1, the highest in service */
	assert_int_equal(read_isr(f, 0x20), 0x10);
	outb(&f->rig, 0x20, 0x64); /* specific EOI of level 4 */
	assert_int_equal(read_isr(f, 0x20), 0);
	assert_int_equal(i8259_ack(f->pic), 0x0D);
}

static void the_mask_holds_back_but_does_not_forget(void **state)
{
	struct fixture *f = *state;
	outb(&f->rig, 0x21, 0x08);
	irq_pulse(&f->irq[3]);
	assert_false(i8259_pending(f->pic));
	assert_int_equal(inb(&f->rig, 0x21), 0x08);
	outb(&f->rig, 0x21, 0);
	assert_true(i8259_pending(f->pic));
}

static void a_request_that_vanishes_is_spurious(void **state)
{
	struct fixture *f = *state;
	outb(&f->rig, 0x4D1, 0x08); /* IRQ 11 level */
	assert_int_equal(inb(&f->rig, 0x4D1), 0x08);
	assert_int_equal(i8259_ack(f->pic), 0x0F);
	assert_int_equal(read_isr(f, 0x20), 0);
	irq_raise(&f->irq[11]);
	assert_true(i8259_pending(f->pic));
	irq_lower(&f->irq[11]);
	assert_false(i8259_pending(f->pic));
	assert_int_equal(i8259_ack(f->pic), 0x0F);
}

static void a_level_interrupt_comes_again_until_it_is_served(void **state)
{
	struct fixture *f = *state;
	outb(&f->rig, 0x4D0, 0xFF);
	assert_int_equal(inb(&f->rig, 0x4D0), 0xF8);
	irq_raise(&f->irq[5]);
	assert_int_equal(i8259_ack(f->pic), 0x0D);
	assert_false(i8259_pending(f->pic));
	outb(&f->rig, 0x20, 0x20);
	assert_true(i8259_pending(f->pic));
	irq_lower(&f->irq[5]);
	assert_false(i8259_pending(f->pic));
}

static void rotation_moves_the_lowest_priority(void **state)
{
	struct fixture *f = *state;
	irq_pulse(&f->irq[0]);
	i8259_ack(f->pic);
	outb(&f->rig, 0x20, 0xA0); /* rotate on non-specific EOI: IRQ 0 is lowest now */
	irq_pulse(&f->irq[0]);
	irq_pulse(&f->irq[1]);
	assert_int_equal(i8259_ack(f->pic), 0x09);
	outb(&f->rig, 0x20, 0x20);
	outb(&f->rig, 0x20, 0xC3); /* set priority: 3 lowest, so 4 highest */
	irq_pulse(&f->irq[4]);
	assert_int_equal(i8259_ack(f->pic), 0x0C);
}

static void special_mask_mode_lets_lower_ones_in(void **state)
{
	struct fixture *f = *state;
	irq_pulse(&f->irq[3]);
	i8259_ack(f->pic);
	irq_pulse(&f->irq[6]);
	assert_false(i8259_pending(f->pic));
	outb(&f->rig, 0x21, 0x08);
	assert_false(i8259_pending(f->pic));
	outb(&f->rig, 0x20, 0x68);
	assert_true(i8259_pending(f->pic));
	assert_int_equal(i8259_ack(f->pic), 0x0E);
	outb(&f->rig, 0x20, 0x20); /* does not touch the masked IRQ 3 */
	assert_int_equal(read_isr(f, 0x20), 0x08);
}

static void poll_acknowledges(void **state)
{
	struct fixture *f = *state;
	outb(&f->rig, 0x20, 0x0C);
	assert_int_equal(inb(&f->rig, 0x20), 0);
	irq_pulse(&f->irq[6]);
	outb(&f->rig, 0x20, 0x0C);
	assert_int_equal(inb(&f->rig, 0x20), 0x86);
	assert_int_equal(read_isr(f, 0x20), 0x40);
}

static void auto_eoi_leaves_nothing_in_service(void **state)
{
	struct fixture *f = *state;
	init_pics(f, 3);
	irq_pulse(&f->irq[1]);
	irq_pulse(&f->irq[2 + 8]);
	assert_int_equal(i8259_ack(f->pic), 0x09);
	assert_int_equal(i8259_ack(f->pic), 0x72);
	assert_int_equal(read_isr(f, 0x20), 0);
	assert_int_equal(read_isr(f, 0xA0), 0);
}

static void special_fully_nested_mode_nests_the_slave(void **state)
{
	struct fixture *f = *state;
	irq_pulse(&f->irq[12]);
	i8259_ack(f->pic);
	irq_pulse(&f->irq[8]);
	assert_false(i8259_pending(f->pic)); /* the master still serves its input 2 */
	init_pics(f, 0x11);
	irq_pulse(&f->irq[12]);
	assert_int_equal(i8259_ack(f->pic), 0x74);
	irq_pulse(&f->irq[8]);
	assert_true(i8259_pending(f->pic));
	assert_int_equal(i8259_ack(f->pic), 0x70);
}

static void initialization_clears_and_blocks(void **state)
{
	struct fixture *f = *state;
	outb(&f->rig, 0x21, 0xFF);
	irq_pulse(&f->irq[1]);
	outb(&f->rig, 0x20, 0x11);
	assert_int_equal(read_irr(f, 0x20), 0);
	irq_pulse(&f->irq[1]);
	assert_false(i8259_pending(f->pic));
	outb(&f->rig, 0x21, 0x25); /* low three bits are the input's */
	outb(&f->rig, 0x21, 4);
	outb(&f->rig, 0x21, 1);
	assert_int_equal(inb(&f->rig, 0x21), 0);
	assert_int_equal(i8259_ack(f->pic), 0x21);
}

static void state_survives_saving(void **state)
{
	struct fixture *f = *state;
	irq_raise(&f->irq[14]);
	outb(&f->rig, 0xA1, 0x21);
	rig_save_reset_load(&f->rig);
	assert_int_equal(inb(&f->rig, 0xA1), 0x21);
	assert_true(f->rig.line[0]);
	assert_int_equal(i8259_ack(f->pic), 0x76);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(an_edge_is_latched_and_acknowledged),
		T(a_line_that_stays_high_is_one_edge),
		T(the_slave_comes_through_the_cascade),
		T(higher_priority_nests_and_lower_waits),
		T(the_mask_holds_back_but_does_not_forget),
		T(a_request_that_vanishes_is_spurious),
		T(a_level_interrupt_comes_again_until_it_is_served),
		T(rotation_moves_the_lowest_priority),
		T(special_mask_mode_lets_lower_ones_in),
		T(poll_acknowledges),
		T(auto_eoi_leaves_nothing_in_service),
		T(special_fully_nested_mode_nests_the_slave),
		T(initialization_clears_and_blocks),
		T(state_survives_saving),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
