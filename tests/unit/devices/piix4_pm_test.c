/* SPDX-License-Identifier: MIT */
/* ACPI power management: timer, power button, soft-off, ACPI mode. */
#include "devices/piix4_pm.h"
#include "storage_rig.h"

enum { DEVFN = 11, BASE = 0x600, SCI = 9 };

struct fixture {
	struct rig *r;
	struct piix4_pm *pm;
};

static struct fixture *start(void)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct error err = ERROR_INIT;

	f->r = rig_new(true);
	struct irq_line sci = rig_line(f->r, SCI);
	f->pm = piix4_pm_new(&f->r->env, f->r->pci, DEVFN, &sci, &err);
	assert_non_null(f->pm);
	config_out(f->r, DEVFN, 0x40, 4, BASE | 1);
	config_out(f->r, DEVFN, 0x80, 1, 1);
	return f;
}

static void stop(struct fixture *f)
{
	piix4_pm_free(f->pm);
	rig_free(f->r);
	free(f);
}

static void block_moves_with_its_base(void **state)
{
	struct fixture *f = start();

	assert_int_equal(config_in(f->r, DEVFN, 0x40, 4), BASE | 1);
	assert_int_equal(in(f->r, BASE + 4, 2), 0);
	config_out(f->r, DEVFN, 0x40, 4, 0xB000);
	assert_int_equal(in(f->r, BASE + 4, 2), 0xFFFF);
	assert_int_equal(in(f->r, 0xB004, 2), 0);
	config_out(f->r, DEVFN, 0x80, 1, 0);
	assert_int_equal(in(f->r, 0xB004, 2), 0xFFFF);
	stop(f);
}

static void timer_runs_at_its_rate(void **state)
{
	struct fixture *f = start();
	uint64_t before = clock_now(f->r->env.clock);
	uint32_t a = in(f->r, BASE + 8, 4);

	while (clock_now(f->r->env.clock) < before + NS_PER_SEC / 50)
		rig_turn(f->r);
	uint32_t b = in(f->r, BASE + 8, 4);
	uint64_t after = clock_now(f->r->env.clock);
	uint32_t ticks = (b - a) & 0xFFFFFF;
	assert_in_range(ticks, 3579545 / 50, ns_to_ticks(after - before, 3579545) + 1);
	assert_int_equal(b >> 24, 0);
	stop(f);
}

static void firmware_switches_to_acpi_mode(void **state)
{
	struct fixture *f = start();

	assert_false(piix4_pm_acpi_enabled(f->pm));
	outb(f->r, 0xB2, PIIX4_ACPI_ENABLE);
	assert_true(piix4_pm_acpi_enabled(f->pm));
	assert_int_equal(in(f->r, BASE + 4, 2), 1);
	outb(f->r, 0xB2, PIIX4_ACPI_DISABLE);
	assert_false(piix4_pm_acpi_enabled(f->pm));
	assert_int_equal(config_in(f->r, DEVFN, 0x5B, 1) & 2, 2);
	stop(f);
}

static void power_button_raises_the_sci(void **state)
{
	struct fixture *f = start();

	outb(f->r, 0xB2, PIIX4_ACPI_ENABLE);
	piix4_pm_power_button(f->pm);
	assert_false(f->r->irq[SCI]); /* not enabled */
	out(f->r, BASE + 2, 2, 1 << 8);
	assert_true(f->r->irq[SCI]);
	assert_int_equal(in(f->r, BASE, 2) & 1 << 8, 1 << 8);
	out(f->r, BASE, 2, 1 << 8);
	assert_false(f->r->irq[SCI]);
	assert_int_equal(in(f->r, BASE, 2) & 1 << 8, 0);
	piix4_pm_power_button(f->pm);
	assert_true(f->r->irq[SCI]);
	state_reset_all(f->r->env.states);
	assert_false(f->r->irq[SCI]);
	stop(f);
}

static void s5_ends_the_machine(void **state)
{
	struct fixture *f = start();

	out(f->r, BASE + 4, 2, 1 << 13 | 3 << 10);
	assert_int_equal(f->r->shutdowns, 0);
	out(f->r, BASE + 4, 2, 1 | PIIX4_SLP_TYP_S5 << 10);
	assert_int_equal(f->r->shutdowns, 0);
	out(f->r, BASE + 4, 2, 1 | PIIX4_SLP_TYP_S5 << 10 | 1 << 13);
	assert_int_equal(f->r->shutdowns, 1);
	assert_int_equal(in(f->r, BASE + 4, 2), 1);
	stop(f);
}

static void gpe_block_is_there(void **state)
{
	struct fixture *f = start();

	assert_int_equal(in(f->r, PIIX4_GPE0_BASE, 4), 0);
	out(f->r, PIIX4_GPE0_BASE, 4, 0x0203FFFF);
	assert_int_equal(in(f->r, PIIX4_GPE0_BASE, 4), 0x02030000);
	stop(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(block_moves_with_its_base),
		cmocka_unit_test(timer_runs_at_its_rate),
		cmocka_unit_test(firmware_switches_to_acpi_mode),
		cmocka_unit_test(power_button_raises_the_sci),
		cmocka_unit_test(s5_ends_the_machine),
		cmocka_unit_test(gpe_block_is_there),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
