/* SPDX-License-Identifier: MIT */
/*
 * The DSDT: what an operating system with ACPI must know about the board and cannot find out by
 * asking PCI. The root bridge with its windows, where each slot's interrupt pins go, the PIIX3's
 * four steerable interrupt links, the devices on the ISA bus, the CPUs, and how to switch off.
 *
 * Interrupt routing (82371SB "PIRQRC[A:D]", config offsets 60h..63h of the ISA bridge): bit 7 off,
 * bits 0..3 the ISA interrupt. Pin p of slot s goes to link (s + p - 1) mod 4. The links have the
 * same numbers at the 8259s and at the IOAPIC, so the routing does not depend on the mode.
 *
 * The firmware reads this table too: it looks for the devices whose ids it finds here.
 *
 * Documents: ACPI 6.4, chapters 5, 6 and 19; 82371SB/82371AB datasheets.
 */
#include "bios/aml.h"
#include "bios/internal.h"
#include "lib/bytes.h"
#include <stdio.h>

enum {
	ISA_SLOT = 1,
	PCI_SLOTS = 32,
	PCI_PINS = 4,
	PIRQ_CONFIG = 0x60,
	PIRQ_OFF = 0x80,
	SCI_IRQ = 9,
	/* In a buffer with one extended interrupt descriptor: the interrupt's number. */
	INTERRUPT_NUMBER_AT = 5,
	STA_PRESENT_ENABLED = 0x0b,
	STA_PRESENT_DISABLED = 0x09,
	STA_WORKING = 0x0f,
	IOAPIC_BASE_PAGE = 0xfec00,
};

static const char *const pirq_path[PCI_PINS] = {
	"\\_SB_.PCI0.ISA_.PRQA",
	"\\_SB_.PCI0.ISA_.PRQB",
	"\\_SB_.PCI0.ISA_.PRQC",
	"\\_SB_.PCI0.ISA_.PRQD",
};
static const char *const link_name[PCI_PINS] = {"LNKA", "LNKB", "LNKC", "LNKD"};

static void root_bridge_windows(struct aml *a, const struct firmware_config *c)
{
	/* Page by page up to the IOAPIC: BARs may lie anywhere between RAM and it. */
	uint32_t first = (uint32_t)round_up(c->low_ram, 4096);
	uint32_t last = (uint32_t)IOAPIC_BASE_PAGE * 4096u - 1;

	aml_name(a, "_CRS");
	aml_begin_resources(a);
	aml_res_bus_numbers(a, 0, 255);
	aml_res_io(a, 0xcf8, 0xcf8, 1, 8);
	aml_res_io_window(a, 0x0000, 0x0cf7);
	aml_res_io_window(a, 0x0d00, 0xffff);
	aml_res_memory_window32(a, true, 0x000a0000, 0x000bffff);
	if (first < last)
		aml_res_memory_window32(a, false, first, last);
	aml_end(a);
}

static void routing_entry(struct aml *a, unsigned slot, unsigned pin, const char *source)
{
	aml_begin_package(a, 4);
	aml_integer(a, (uint64_t)slot << 16 | 0xffff);
	aml_integer(a, pin);
	aml_name_string(a, source);
	aml_integer(a, 0);
	aml_end(a);
}

static void routing_table(struct aml *a)
{
	aml_name(a, "_PRT");
	aml_begin_package(a, PCI_SLOTS * PCI_PINS);
	for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
		for (unsigned pin = 0; pin < PCI_PINS; pin++) {
			/* The power management function's pin is wired to the SCI. */
			if (slot == ISA_SLOT && pin == 0)
				routing_entry(a, slot, pin, "LNKS");
			else
				routing_entry(a, slot, pin,
					      link_name[(slot + pin + PCI_PINS - 1) % PCI_PINS]);
		}
	}
	aml_end(a);
}

/* Resources of a link: its present interrupt is filled in by _CRS at `INTERRUPT_NUMBER_AT`. */
static void link_template(struct aml *a, const uint32_t *irq, unsigned count)
{
	aml_begin_resources(a);
	aml_res_interrupts(a, irq, count);
	aml_end(a);
}

static void pirq_link(struct aml *a, unsigned n)
{
	static const uint32_t possible[] = {5, 10, 11}, none[] = {0};

	aml_begin_device(a, link_name[n]);
	aml_name_eisaid(a, "_HID", "PNP0C0F");
	aml_name_integer(a, "_UID", n);
	aml_name(a, "_PRS");
	link_template(a, possible, ARRAY_SIZE(possible));

	/* If (PRQx & 0x80) Return (0x09) Else Return (0x0B) */
	aml_begin_method(a, "_STA", 0, false);
	aml_begin_if(a);
	aml_op(a, AML_AND);
	aml_name_string(a, pirq_path[n]);
	aml_integer(a, PIRQ_OFF);
	aml_no_target(a);
	aml_op(a, AML_RETURN);
	aml_integer(a, STA_PRESENT_DISABLED);
	aml_end(a);
	aml_op(a, AML_RETURN);
	aml_integer(a, STA_PRESENT_ENABLED);
	aml_end(a);

	/* PRQx |= 0x80 */
	aml_begin_method(a, "_DIS", 0, false);
	aml_op(a, AML_OR);
	aml_name_string(a, pirq_path[n]);
	aml_integer(a, PIRQ_OFF);
	aml_name_string(a, pirq_path[n]);
	aml_end(a);

	/* If (PRQx < 0x80) the template with PRQx in it, else with 0. */
	aml_begin_method(a, "_CRS", 0, true);
	aml_name(a, "BUF0");
	link_template(a, none, ARRAY_SIZE(none));
	aml_dword_field(a, "BUF0", INTERRUPT_NUMBER_AT, "IRQW");
	aml_begin_if(a);
	aml_op(a, AML_LESS);
	aml_name_string(a, pirq_path[n]);
	aml_integer(a, PIRQ_OFF);
	aml_op(a, AML_STORE);
	aml_name_string(a, pirq_path[n]);
	aml_name_string(a, "IRQW");
	aml_end(a);
	aml_op(a, AML_RETURN);
	aml_name_string(a, "BUF0");
	aml_end(a);

	/* PRQx = the number in the buffer handed in */
	aml_begin_method(a, "_SRS", 1, true);
	aml_dword_field(a, NULL, INTERRUPT_NUMBER_AT, "IRQW");
	aml_op(a, AML_STORE);
	aml_name_string(a, "IRQW");
	aml_name_string(a, pirq_path[n]);
	aml_end(a);
	aml_end(a);
}

/* The link of the power management function: always the SCI. */
static void sci_link(struct aml *a)
{
	static const uint32_t sci[] = {SCI_IRQ};

	aml_begin_device(a, "LNKS");
	aml_name_eisaid(a, "_HID", "PNP0C0F");
	aml_name_integer(a, "_UID", PCI_PINS);
	aml_name(a, "_PRS");
	link_template(a, sci, 1);
	aml_name_integer(a, "_STA", STA_PRESENT_ENABLED);
	aml_begin_method(a, "_DIS", 0, false);
	aml_end(a);
	aml_name(a, "_CRS");
	link_template(a, sci, 1);
	aml_begin_method(a, "_SRS", 1, false);
	aml_end(a);
	aml_end(a);
}

/* One range of ports that starts at `base` and cannot move. */
static void ports(struct aml *a, uint16_t base, uint8_t count)
{
	aml_res_io(a, base, base, 1, count);
}

static void begin_isa(struct aml *a, const char *name, const char *id)
{
	aml_begin_device(a, name);
	aml_name_eisaid(a, "_HID", id);
}

static void begin_crs(struct aml *a)
{
	aml_name(a, "_CRS");
	aml_begin_resources(a);
}

static void end_isa(struct aml *a)
{
	aml_end(a); /* resources */
	aml_end(a); /* device */
}

static void at_chips(struct aml *a)
{
	begin_isa(a, "PIC_", "PNP0000");
	begin_crs(a);
	ports(a, 0x20, 2);
	ports(a, 0xa0, 2);
	ports(a, 0x4d0, 2);
	aml_res_irq(a, 2);
	end_isa(a);

	begin_isa(a, "DMAC", "PNP0200");
	begin_crs(a);
	ports(a, 0x00, 16);
	ports(a, 0x80, 16);
	ports(a, 0xc0, 32);
	aml_res_dma(a, 4);
	end_isa(a);

	begin_isa(a, "TMR_", "PNP0100");
	begin_crs(a);
	ports(a, 0x40, 4);
	aml_res_irq(a, 0);
	end_isa(a);

	begin_isa(a, "SPKR", "PNP0800");
	begin_crs(a);
	ports(a, 0x61, 1);
	end_isa(a);

	begin_isa(a, "COPR", "PNP0C04");
	begin_crs(a);
	ports(a, 0xf0, 16);
	aml_res_irq(a, 13);
	end_isa(a);

	begin_isa(a, "RTC_", "PNP0B00");
	begin_crs(a);
	ports(a, 0x70, 8);
	aml_res_irq(a, 8);
	end_isa(a);

	begin_isa(a, "KBD_", "PNP0303");
	aml_name_integer(a, "_STA", STA_WORKING);
	begin_crs(a);
	ports(a, 0x60, 1);
	ports(a, 0x64, 1);
	aml_res_irq(a, 1);
	end_isa(a);

	begin_isa(a, "MOU_", "PNP0F13");
	aml_name_integer(a, "_STA", STA_WORKING);
	begin_crs(a);
	aml_res_irq(a, 12);
	end_isa(a);
}

/* What each drive of the floppy controller is (ACPI 9.9, "_FDI"); the type is CMOS byte 10h's. */
static void floppy_controller(struct aml *a, const struct firmware_config *c)
{
	static const struct {
		uint8_t cylinders, sectors, heads;
	} media[] = {{0, 0, 0}, {39, 9, 1}, {79, 15, 1}, {79, 9, 1}, {79, 18, 1}, {79, 36, 1}};
	enum { FDI_ELEMENTS = 16 };

	begin_isa(a, "FDC0", "PNP0700");
	aml_name_integer(a, "_STA", STA_WORKING);
	begin_crs(a);
	ports(a, 0x3f2, 4);
	ports(a, 0x3f7, 1);
	aml_res_irq(a, 6);
	aml_res_dma(a, 2);
	aml_end(a);
	for (unsigned i = 0; i < ARRAY_SIZE(c->floppy); i++) {
		unsigned type = c->floppy[i] < ARRAY_SIZE(media) ? c->floppy[i] : 0;
		char name[5];
		if (!type)
			continue;
		snprintf(name, sizeof(name), "FLP%c", (char)('A' + i));
		aml_begin_device(a, name);
		aml_name_integer(a, "_ADR", i);
		aml_name(a, "_FDI");
		aml_begin_package(a, FDI_ELEMENTS);
		/* Drive, type, highest cylinder, sectors, highest head, then INT 13h/8's parameter
		 * table: step rates, motor, 512 bytes, gaps, fill byte, settle and motor times. */
		const uint8_t fdi[FDI_ELEMENTS] = {
			(uint8_t)i,
			(uint8_t)type,
			media[type].cylinders,
			media[type].sectors,
			media[type].heads,
			0xaf,
			0x02,
			0x25,
			0x02,
			media[type].sectors,
			0x1b,
			0xff,
			0x6c,
			0xf6,
			0x0f,
			0x08,
		};
		for (unsigned k = 0; k < FDI_ELEMENTS; k++)
			aml_integer(a, fdi[k]);
		aml_end(a);
		aml_end(a);
	}
	aml_end(a);
}

static void serial_and_parallel(struct aml *a, const struct firmware_config *c)
{
	static const struct {
		uint16_t base;
		uint8_t irq;
	} com[] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}},
	  lpt[] = {{0x378, 7}, {0x278, 5}, {0x3bc, 7}};
	char name[5];

	for (unsigned i = 0; i < ARRAY_SIZE(com); i++) {
		if (!c->serial[i])
			continue;
		snprintf(name, sizeof(name), "COM%c", (char)('1' + i));
		begin_isa(a, name, "PNP0501");
		aml_name_integer(a, "_UID", i + 1);
		aml_name_integer(a, "_STA", STA_WORKING);
		begin_crs(a);
		ports(a, com[i].base, 8);
		aml_res_irq(a, com[i].irq);
		end_isa(a);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(lpt); i++) {
		if (!c->parallel[i])
			continue;
		snprintf(name, sizeof(name), "LPT%c", (char)('1' + i));
		begin_isa(a, name, "PNP0400");
		aml_name_integer(a, "_UID", i + 1);
		aml_name_integer(a, "_STA", STA_WORKING);
		begin_crs(a);
		ports(a, lpt[i].base, 8);
		aml_res_irq(a, lpt[i].irq);
		end_isa(a);
	}
}

/* Ports that belong to no device with a driver of its own. */
static void board_resources(struct aml *a)
{
	aml_begin_device(a, "MBRD");
	aml_name_eisaid(a, "_HID", "PNP0C02");
	aml_name_integer(a, "_UID", 0);
	begin_crs(a);
	ports(a, 0x92, 1);   /* A20 and fast reset */
	ports(a, 0xb2, 2);   /* APM */
	ports(a, 0x600, 64); /* power management, where the firmware puts it */
	ports(a, 0x700, 16); /* SMBus */
	ports(a, 0xafe0, 4); /* general purpose events */
	end_isa(a);

	aml_begin_device(a, "FWCF");
	aml_name(a, "_HID");
	aml_string(a, "QEMU0002");
	aml_name_integer(a, "_STA", STA_PRESENT_ENABLED);
	begin_crs(a);
	ports(a, 0x510, 12);
	end_isa(a);
}

static void isa_bridge(struct aml *a, const struct firmware_config *c)
{
	aml_begin_device(a, "ISA_");
	aml_name_integer(a, "_ADR", (uint64_t)ISA_SLOT << 16);
	aml_region(a, "PIRQ", AML_PCI_CONFIG, PIRQ_CONFIG, PCI_PINS);
	aml_begin_field(a, "PIRQ");
	aml_field_unit(a, "PRQA", 8);
	aml_field_unit(a, "PRQB", 8);
	aml_field_unit(a, "PRQC", 8);
	aml_field_unit(a, "PRQD", 8);
	aml_end(a);
	at_chips(a);
	if (c->fdc)
		floppy_controller(a, c);
	serial_and_parallel(a, c);
	board_resources(a);
	aml_end(a);
}

static void processors(struct aml *a, unsigned cpus)
{
	aml_begin_scope(a, "\\_PR_");
	for (unsigned i = 0; i < cpus; i++) {
		char name[5];
		snprintf(name, sizeof(name), "C%03X", i & 0xfff);
		aml_begin_processor(a, name, (uint8_t)i, 0, 0);
		aml_end(a);
	}
	aml_end(a);
}

void dsdt_build(const struct firmware_config *c, struct strbuf *out)
{
	struct aml writer = {.out = out}, *a = &writer;

	acpi_header(out, "DSDT", 1);
	/* Soft-off: SLP_TYP 0 for PM1a and PM1b (82371AB, "PMCNTRL": 000 = soft off). */
	aml_name(a, "\\_S5_");
	aml_begin_package(a, 4);
	for (int i = 0; i < 4; i++)
		aml_integer(a, 0);
	aml_end(a);

	processors(a, c->cpus);
	aml_begin_scope(a, "\\_SB_");
	aml_begin_device(a, "PCI0");
	aml_name_eisaid(a, "_HID", "PNP0A03");
	aml_name_integer(a, "_UID", 0);
	aml_name_integer(a, "_ADR", 0);
	root_bridge_windows(a, c);
	routing_table(a);
	isa_bridge(a, c);
	aml_end(a);
	for (unsigned i = 0; i < PCI_PINS; i++)
		pirq_link(a, i);
	sci_link(a);
	aml_end(a);
}
