/* SPDX-License-Identifier: MIT */
/*
 * PIIX3 (82371SB) function 0: the PCI-to-ISA bridge, 01.0, 8086:7000.
 *
 *   register  name      what it does here
 *   0x4C      IORT      ISA I/O recovery timer: a plain byte
 *   0x4E-4F   XBCS      chip selects: plain bits (ROM writes are the host bridge's matter)
 *   0x60-63   PIRQRCA-D 7 = not routed, 3:0 = ISA interrupt (3-7, 9-12, 14, 15)
 *   0x69 TOM, 0x70-71 MBIRQ, 0x76-77 MBDMA, 0x80 APICBASE, 0x82 DLC, 0xA0-AE SMI: plain bytes
 *
 *   port 0xCF9 RC   1 = full (hard) reset, 2 = reset the CPU when this bit goes from 0 to 1
 *
 * Each PIRQ raises the ISA interrupt that its PIRQRC names; several PIRQs on one are ORed. The
 * edge/level registers (0x4D0-1) are part of the 8259 model.
 *
 * Document: 82371FB/82371SB datasheet (Intel 290550), 2.2 (function 0 registers), 2.5.7 (RC).
 * Left out: ISA timing, positive decode by XBCS, the difference between a soft and a hard reset
 * (both reset the machine, as a triple fault does).
 */
#include "devices/piix3.h"
#include "core/iobus.h"
#include "core/state.h"
#include "devices/pci.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include <stdlib.h>

enum piix3_reg {
	REG_IORT = 0x4C,
	REG_XBCS = 0x4E,
	REG_PIRQRC = 0x60,
	REG_TOM = 0x69,
	REG_MSTAT = 0x6A,
	REG_MBIRQ0 = 0x70,
	REG_MBDMA0 = 0x76,
	REG_PCSC = 0x78,
	REG_APICBASE = 0x80,
	REG_DLC = 0x82,
	REG_SMICNTL = 0xA0,
	REG_SMIEN = 0xA2,
	REG_SEE = 0xA4,
	REG_FTMR = 0xA8,
	REG_SMIREQ = 0xAA,
	REG_CTLTMR = 0xAC,
};

enum { PIRQRC_OFF = 0x80, PIRQRC_IRQ = 0x0F, PIRQRC_WRITABLE = 0x8F };
enum { PIRQS = 4, ISA_IRQS = 16 };
/* PIRQRC values that the datasheet reserves: timer, keyboard, cascade, RTC and coprocessor. */
enum { NOT_ROUTABLE = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 8 | 1 << 13 };

enum { RESET_CONTROL = 0xCF9 };
enum rc_bits { RC_HARD = 1 << 1, RC_RESET_CPU = 1 << 2, RC_WRITABLE = RC_HARD | RC_RESET_CPU };

enum { VENDOR_INTEL = 0x8086, DEVICE_PIIX3 = 0x7000, CLASS_ISA_BRIDGE = 0x0601 };
enum { SUBSYSTEM_VENDOR = 0x1AF4, SUBSYSTEM = 0x1100 };

struct piix3 {
	uint8_t rc;
	uint8_t pirq_level[PIRQS];

	struct pci_device pci;
	struct iobus *io;
	struct state_registry *states;
	const struct machine_requests *requests;
	struct io_range *rc_range;
	struct irq_line isa[ISA_IRQS];
	bool isa_level[ISA_IRQS]; /* what PCI asks of each */
};

/* The ISA interrupt a PIRQ goes to, or -1. */
static int route(const struct piix3 *s, unsigned pirq)
{
	uint8_t reg = s->pci.config[REG_PIRQRC + pirq];
	unsigned irq = reg & PIRQRC_IRQ;

	return (reg & PIRQRC_OFF) || (NOT_ROUTABLE >> irq & 1) ? -1 : (int)irq;
}

/* Sets every ISA interrupt to what the PIRQs routed to it say; `all` repeats unchanged ones too. */
static void update_isa(struct piix3 *s, bool all)
{
	bool want[ISA_IRQS] = {false}, routed[ISA_IRQS] = {false};

	for (unsigned i = 0; i < PIRQS; i++) {
		int irq = route(s, i);
		if (irq < 0)
			continue;
		routed[irq] = true;
		want[irq] |= s->pirq_level[i] != 0;
	}
	for (unsigned irq = 0; irq < ISA_IRQS; irq++)
		if (want[irq] != s->isa_level[irq] || (all && routed[irq])) {
			s->isa_level[irq] = want[irq];
			irq_set(&s->isa[irq], want[irq]);
		}
}

static void set_pirq(void *opaque, int n, bool level)
{
	struct piix3 *s = opaque;

	s->pirq_level[n] = level;
	update_isa(s, false);
}

static void config_changed(struct pci_device *dev, unsigned first, unsigned count)
{
	if (ranges_overlap(first, count, REG_PIRQRC, PIRQS))
		update_isa(container_of(dev, struct piix3, pci), false);
}

static uint32_t rc_read(void *opaque, uint16_t port, unsigned size)
{
	struct piix3 *s = opaque;
	return s->rc;
}

static void rc_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct piix3 *s = opaque;

	bool rising = (value & RC_RESET_CPU) && !(s->rc & RC_RESET_CPU);
	s->rc = value & RC_WRITABLE;
	if (rising && s->requests && s->requests->reset) {
		trace(TRACE_CPU, "reset through port 0xCF9");
		s->requests->reset(s->requests->opaque);
	}
}

static const struct io_ops rc_ops = {.read = rc_read, .write = rc_write};

static const struct state_field piix3_fields[] = {
	STATE_UINT(piix3, rc),
	STATE_UINTS(piix3, pirq_level),
	STATE_END,
};

static int piix3_post_load(void *opaque, unsigned version, struct error *err)
{
	struct piix3 *s = opaque;

	s->rc &= RC_WRITABLE;
	update_isa(s, true);
	return 0;
}

static const struct state_desc piix3_state = {
	.name = "piix3",
	.version = 1,
	.fields = piix3_fields,
	.post_load = piix3_post_load,
};

static void define_registers(struct pci_device *pci)
{
	/* Power-on values of the datasheet's register table. */
	static const struct {
		uint8_t reg, size;
		uint16_t value, wmask;
	} table[] = {
		{REG_IORT, 1, 0x4D, 0xFF},        {REG_XBCS, 2, 0x0003, 0x01FF},
		{REG_TOM, 1, 0x02, 0xFE},         {REG_MSTAT, 2, 0x0000, 0x00FF},
		{REG_MBIRQ0, 1, 0x80, 0xEF},      {REG_MBIRQ0 + 1, 1, 0x80, 0xEF},
		{REG_MBDMA0, 1, 0x0C, 0x8F},      {REG_MBDMA0 + 1, 1, 0x0C, 0x8F},
		{REG_PCSC, 2, 0x0002, 0xFFFF},    {REG_APICBASE, 1, 0x00, 0x7F},
		{REG_DLC, 1, 0x00, 0x0F},         {REG_SMICNTL, 1, 0x08, 0x1F},
		{REG_SMIEN, 2, 0x0000, 0x01FF},   {REG_SEE, 2, 0x0000, 0xFFFF},
		{REG_SEE + 2, 2, 0x0000, 0xFFFF}, {REG_FTMR, 1, 0x0F, 0xFF},
		{REG_SMIREQ, 2, 0x0000, 0x01FF},  {REG_CTLTMR, 1, 0x00, 0xFF},
	};
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		pci_config_define(pci, table[i].reg, table[i].size, table[i].value, table[i].wmask);
	for (unsigned i = 0; i < PIRQS; i++)
		pci_config_define(pci, REG_PIRQRC + i, 1, PIRQRC_OFF, PIRQRC_WRITABLE);
	/* The bridge always forwards I/O, memory and ISA masters. */
	pci_config_define(pci, PCI_COMMAND, 2,
			  PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER,
			  PCI_COMMAND_SERR);
	pci_config_define(pci, PCI_STATUS, 2, PCI_STATUS_DEVSEL_MEDIUM, 0);
}

struct piix3 *piix3_new(const struct device_env *env, struct pci_bus *bus,
			const struct irq_line isa[16], struct error *err)
{
	static const struct pci_id id = {
		.vendor = VENDOR_INTEL,
		.device = DEVICE_PIIX3,
		.class = CLASS_ISA_BRIDGE,
		.subsystem_vendor = SUBSYSTEM_VENDOR,
		.subsystem = SUBSYSTEM,
		.multifunction = true,
	};
	struct piix3 *s = xcalloc(1, sizeof(*s));

	if (pci_device_init(bus, &s->pci, PCI_DEVFN(PIIX3_SLOT, 0), "PIIX3", &id, err) < 0) {
		free(s);
		return NULL;
	}
	define_registers(&s->pci);
	s->io = env->io;
	s->states = env->states;
	s->requests = env->requests;
	memcpy(s->isa, isa, sizeof(s->isa));
	/* After the configuration ports, so that byte 0xCF9 of them is ours. */
	s->rc_range = iobus_add(env->io, "piix3-reset-control", RESET_CONTROL, 1, &rc_ops, s);
	state_register(env->states, &piix3_state, 0, s);

	struct irq_line pirq[PIRQS];
	for (int i = 0; i < PIRQS; i++)
		pirq[i] = (struct irq_line){.set = set_pirq, .opaque = s, .n = i};
	pci_bus_set_pirq(bus, pirq);
	s->pci.config_changed = config_changed;
	return s;
}

void piix3_free(struct piix3 *s)
{
	static const struct irq_line none[PIRQS];

	if (!s)
		return;
	pci_bus_set_pirq(s->pci.bus, none);
	iobus_remove(s->io, s->rc_range);
	state_unregister(s->states, s);
	pci_device_fini(&s->pci);
	free(s);
}
