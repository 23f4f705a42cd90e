/* SPDX-License-Identifier: MIT */
/* PCI configuration, BARs, interrupt routing through the PIIX3, the reset control register. */
#include "devices/pci.h"
#include "devices/piix3.h"
#include "storage_rig.h"
#include <string.h>

struct fixture {
	struct rig *r;
	struct piix3 *piix3;
	struct pci_device a, b;
	struct mem_region *mmio;
	uint64_t last_offset;
	uint16_t last_port;
};

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
	struct fixture *f = opaque;
	f->last_offset = offset;
	return 0x5A;
}

static void mmio_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
}

static uint32_t io_read(void *opaque, uint16_t port, unsigned size)
{
	struct fixture *f = opaque;
	f->last_port = port;
	return 0xA5;
}

static const struct mmio_ops mmio_ops = {.read = mmio_read, .write = mmio_write};
static const struct io_ops io_ops = {.read = io_read};

static struct fixture *start(void)
{
	static const struct pci_id id = {
		.vendor = 0x1234, .device = 0x1111, .class = 0x0300, .interrupt_pin = 1};
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct error err = ERROR_INIT;
	struct irq_line isa[16];

	f->r = rig_new(true);
	for (int i = 0; i < 16; i++)
		isa[i] = rig_line(f->r, i);
	f->piix3 = piix3_new(&f->r->env, f->r->pci, isa, &err);
	assert_non_null(f->piix3);
	assert_int_equal(pci_device_init(f->r->pci, &f->a, -1, "a", &id, &err), PCI_DEVFN(2, 0));
	assert_int_equal(pci_device_init(f->r->pci, &f->b, PCI_DEVFN(6, 0), "b", &id, &err),
			 PCI_DEVFN(6, 0));
	f->mmio = mem_region_new_mmio(f->r->env.mem, "mmio", 0x2000, &mmio_ops, f);
	pci_bar_mem(&f->a, 0, f->mmio, true);
	pci_bar_io(&f->a, 1, 0x20, &io_ops, f);
	return f;
}

static void stop(struct fixture *f)
{
	pci_device_fini(&f->a);
	pci_device_fini(&f->b);
	piix3_free(f->piix3);
	rig_free(f->r);
	free(f);
}

static void mechanism_1_needs_a_dword(void **state)
{
	struct fixture *f = start();

	assert_int_equal(config_in(f->r, PCI_DEVFN(2, 0), 0, 4), 0x11111234);
	assert_int_equal(config_in(f->r, PCI_DEVFN(2, 0), 2, 2), 0x1111);
	assert_int_equal(config_in(f->r, PCI_DEVFN(2, 0), 0x0B, 1), 3);
	assert_int_equal(config_in(f->r, PCI_DEVFN(3, 0), 0, 4), 0xFFFFFFFF);
	out(f->r, 0xCF8, 2, 0x1234);
	outb(f->r, 0xCFB, 0);
	assert_int_equal(in(f->r, 0xCF8, 4), 0x80001800);
	out(f->r, 0xCF8, 4, 0x80011000); /* bus 1 */
	assert_int_equal(in(f->r, 0xCFC, 4), 0xFFFFFFFF);
	out(f->r, 0xCF8, 4, 0x00001000); /* not enabled */
	assert_int_equal(in(f->r, 0xCFC, 4), 0xFFFFFFFF);
	stop(f);
}

static void bars_are_sized_and_move(void **state)
{
	struct fixture *f = start();
	unsigned d = PCI_DEVFN(2, 0);
	struct memory *mem = f->r->env.mem;

	config_out(f->r, d, 0x10, 4, 0xFFFFFFFF);
	assert_int_equal(config_in(f->r, d, 0x10, 4), 0xFFFFE008);
	config_out(f->r, d, 0x14, 4, 0xFFFFFFFF);
	assert_int_equal(config_in(f->r, d, 0x14, 4), 0xFFFFFFE1);
	config_out(f->r, d, 0x18, 4, 0xFFFFFFFF);
	assert_int_equal(config_in(f->r, d, 0x18, 4), 0);
	config_out(f->r, d, 0x10, 4, 0xE0000000);
	config_out(f->r, d, 0x14, 4, 0xC040);
	assert_null(memory_lookup(mem, 0xE0000000)->rd);
	assert_int_equal(inb(f->r, 0xC040), 0xFF);
	config_out(f->r, d, 0x04, 2, 3);
	assert_ptr_equal(memory_lookup(mem, 0xE0000000)->rd, f->mmio);
	assert_int_equal(inb(f->r, 0xC05F), 0xA5);
	assert_int_equal(f->last_port, 0xC05F);
	assert_int_equal(inb(f->r, 0xC060), 0xFF);
	config_out(f->r, d, 0x13, 1, 0xF0); /* one byte moves it */
	assert_null(memory_lookup(mem, 0xE0000000)->rd);
	assert_int_equal(mem_mmio_read(mem, 0xF0001004, 1), 0x5A);
	assert_int_equal(f->last_offset, 0x1004);
	/* sizing while decoded maps nothing at the top */
	config_out(f->r, d, 0x10, 4, 0xFFFFFFFF);
	assert_null(memory_lookup(mem, 0xFFFFE000)->rd);
	/* RAM is not hidden by a BAR on top of it */
	config_out(f->r, d, 0x10, 4, 0x00100000);
	assert_ptr_equal(memory_lookup(mem, 0x100000)->rd, f->r->ram);
	state_reset_all(f->r->env.states);
	assert_int_equal(inb(f->r, 0xC040), 0xFF);
	assert_int_equal(config_in(f->r, d, 0x14, 4), 1);
	stop(f);
}

static void shared_interrupts_are_counted(void **state)
{
	struct fixture *f = start();

	/* Slots 2 and 6, pin A: both PIRQB. */
	assert_int_equal(pci_pirq(2, 0), 1);
	assert_int_equal(pci_pirq(6, 0), 1);
	pci_set_irq(&f->a, true);
	for (int i = 0; i < 16; i++)
		assert_false(f->r->irq[i]); /* not routed yet */
	config_out(f->r, 8, 0x61, 1, 11);
	assert_true(f->r->irq[11]);
	pci_set_irq(&f->b, true);
	pci_set_irq(&f->a, false);
	assert_true(f->r->irq[11]);
	assert_int_equal(config_in(f->r, PCI_DEVFN(6, 0), 6, 2) & 8, 8);
	config_out(f->r, 8, 0x61, 1, 10);
	assert_false(f->r->irq[11]);
	assert_true(f->r->irq[10]);
	config_out(f->r, PCI_DEVFN(6, 0), 4, 2, 0x400); /* INTx disable */
	assert_false(f->r->irq[10]);
	config_out(f->r, PCI_DEVFN(6, 0), 4, 2, 0);
	assert_true(f->r->irq[10]);
	config_out(f->r, 8, 0x61, 1, 2); /* the cascade cannot be routed to */
	assert_false(f->r->irq[2]);
	config_out(f->r, 8, 0x61, 1, 10);
	state_reset_all(f->r->env.states);
	assert_false(f->r->irq[10]);
	stop(f);
}

static void state_is_restored(void **state)
{
	struct fixture *f = start();
	struct strbuf saved = STRBUF_INIT;
	struct error err = ERROR_INIT;

	config_out(f->r, 8, 0x61, 1, 11);
	config_out(f->r, PCI_DEVFN(2, 0), 0x14, 4, 0xC040);
	config_out(f->r, PCI_DEVFN(2, 0), 4, 2, 1);
	pci_set_irq(&f->a, true);
	state_save(f->r->env.states, &saved);
	state_reset_all(f->r->env.states);
	assert_false(f->r->irq[11]);
	assert_int_equal(state_load(f->r->env.states, saved.data, saved.len, &err), 0);
	assert_true(f->r->irq[11]);
	assert_int_equal(inb(f->r, 0xC040), 0xA5);
	pci_set_irq(&f->a, false);
	assert_false(f->r->irq[11]);
	strbuf_free(&saved);
	stop(f);
}

static void dma_needs_the_bus_master_bit_and_ram(void **state)
{
	struct fixture *f = start();
	uint8_t buf[8] = {1, 2, 3, 4, 5, 6, 7, 8};

	assert_false(pci_dma_write(&f->a, 0x1000, buf, 8));
	config_out(f->r, PCI_DEVFN(2, 0), 4, 2, 4);
	assert_true(pci_dma_write(&f->a, 0x1000, buf, 8));
	assert_memory_equal(f->r->ram->host + 0x1000, buf, 8);
	assert_false(pci_dma_read(&f->a, RIG_RAM - 4, buf, 8));
	assert_int_equal(buf[7], 0xFF);
	assert_false(pci_dma_read(&f->a, UINT64_MAX - 2, buf, 8));
	stop(f);
}

static void slots_are_found_and_refused(void **state)
{
	struct fixture *f = start();
	struct error err = ERROR_INIT;
	static const struct pci_id id = {.vendor = 1};
	struct pci_device d, e;

	assert_int_equal(pci_device_init(f->r->pci, &d, -1, "d", &id, &err), PCI_DEVFN(3, 0));
	assert_int_equal(pci_device_init(f->r->pci, &e, PCI_DEVFN(3, 0), "e", &id, &err), -16);
	assert_string_equal(err.text, "PCI address 03.0 of 'e' is taken by 'd'");
	pci_device_fini(&d);
	stop(f);
}

static void reset_control_register(void **state)
{
	struct fixture *f = start();

	outb(f->r, 0xCF9, 2);
	assert_int_equal(f->r->resets, 0);
	outb(f->r, 0xCF9, 6);
	assert_int_equal(f->r->resets, 1);
	outb(f->r, 0xCF9, 6);
	assert_int_equal(f->r->resets, 1);
	assert_int_equal(inb(f->r, 0xCF9), 6);
	stop(f);
}

static void info_lists_functions(void **state)
{
	struct fixture *f = start();
	struct strbuf out_text = STRBUF_INIT;

	config_out(f->r, PCI_DEVFN(2, 0), 0x14, 4, 0xC040);
	config_out(f->r, PCI_DEVFN(2, 0), 4, 2, 1);
	pci_info(f->r->pci, &out_text);
	assert_non_null(
		strstr(strbuf_str(&out_text), "    VGA controller: PCI device 1234:1111\n"));
	assert_non_null(strstr(strbuf_str(&out_text), "      BAR1: I/O at 0xc040 [0xc05f].\n"));
	assert_non_null(strstr(strbuf_str(&out_text), "    ISA bridge: PCI device 8086:7000\n"));
	strbuf_free(&out_text);
	stop(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mechanism_1_needs_a_dword),
		cmocka_unit_test(bars_are_sized_and_move),
		cmocka_unit_test(shared_interrupts_are_counted),
		cmocka_unit_test(state_is_restored),
		cmocka_unit_test(dma_needs_the_bus_master_bit_and_ram),
		cmocka_unit_test(slots_are_found_and_refused),
		cmocka_unit_test(reset_control_register),
		cmocka_unit_test(info_lists_functions),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
