/* SPDX-License-Identifier: MIT */
/*
 * PIIX4 (82371AB) function 3: power management, 01.3, 8086:7113.
 *
 *   config     name
 *   0x40       PMBA       15:6 base of the PM I/O block, bit 0 = 1
 *   0x58       DEVACTB    bit 25 APMC_EN: set from the start, which tells SeaBIOS that SMM is taken
 *                         care of (no CPU here has SMM)
 *   0x80       PMREGMISC  bit 0: the PM I/O block is decoded
 *   0x90, 0xD2 SMBBA, SMBHSTCFG: plain bits
 *
 *   PM block   name
 *   0x00       PMSTS      0 TMROF_STS, 5 GBL_STS, 8 PWRBTN_STS, 10 RTC_STS, 15 RSM_STS; W1C
 *   0x02       PMEN       the same bits enable the SCI
 *   0x04       PMCNTRL    0 SCI_EN, 1 BRLD_EN, 2 GBL_RLS, 12:10 SUS_TYP, 13 SUS_EN
 *   0x08       PMTMR      24 bits, 3.579545 MHz, read-only
 *   0x0C-0x37  GPSTS, GLBSTS, DEVSTS read as 0; GPEN, PCNTRL, GLBEN, GLBCTL, DEVCTL, GPO:
 *              plain bits
 *
 *   port       name
 *   0xAFE0     GPE0       2 bytes of status (W1C), 2 of enable, where QEMU's pc has them
 *   0xB2, 0xB3 APMC, APMS SMI command and status: ACPI_ENABLE sets SCI_EN, ACPI_DISABLE clears it
 *
 * The SCI is a level: any enabled status while SCI_EN is set. The timer is computed when it is
 * read; a host timer runs only while the guest wants the overflow interrupt (every 2^23 ticks, 2.34
 * s). SUS_EN with SUS_TYP 0 (S5, soft off) ends the machine.
 *
 * Documents: 82371AB datasheet (Intel 290562), 7.1 (function 3 registers), 7.2 (I/O registers);
 * ACPI 1.0b, 4.7.3 (PM1 and timer). Left out: SMM and SMIs, the SMBus host, suspend states other
 * than S5, throttling.
 */
#include "devices/piix4_pm.h"
#include "core/iobus.h"
#include "core/state.h"
#include "devices/pci.h"
#include "lib/bytes.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/text.h"
#include <stdlib.h>

enum piix4_config {
	REG_PMBA = 0x40,
	REG_CNTA = 0x44,
	REG_CNTB = 0x48,
	REG_GPICTL = 0x4C,
	REG_DEVRESD = 0x50,
	REG_DEVACTA = 0x54,
	REG_DEVACTB = 0x58,
	REG_DEVRESA = 0x5C,
	REG_DEVRESJ = 0x7C,
	REG_PMREGMISC = 0x80,
	REG_SMBBA = 0x90,
	REG_SMBHSTCFG = 0xD2,
};
#define PMBA_WRITABLE  UINT32_C(0xFFC0)
#define SMBBA_WRITABLE UINT32_C(0xFFF0)
#define APMC_EN        (UINT32_C(1) << 25)
enum { BASE_IS_IO = 1, PMIOSE = 1 };

enum pm_offset {
	PM_STS = 0x00,
	PM_EN = 0x02,
	PM_CNTRL = 0x04,
	PM_TMR = 0x08,
	PM_GPSTS = 0x0C,
	PM_GPEN = 0x0E,
	PM_PCNTRL = 0x10,
	PM_GLBEN = 0x20,
	PM_GLBCTL = 0x28,
	PM_DEVCTL = 0x2C,
	PM_GPIREG = 0x30,
	PM_GPOREG = 0x34,
	PM_SIZE = 0x40,
};

enum pm1_bits {
	TMROF = 1 << 0,
	GBL = 1 << 5,
	PWRBTN = 1 << 8,
	RTC = 1 << 10,
	RSM = 1 << 15,
	STS_BITS = TMROF | GBL | PWRBTN | RTC | RSM,
	EN_BITS = TMROF | GBL | PWRBTN | RTC,
};
enum pm1_control {
	SCI_EN = 1 << 0,
	BRLD_EN = 1 << 1,
	SUS_TYP_SHIFT = 10,
	SUS_TYP = 7 << SUS_TYP_SHIFT,
	SUS_EN = 1 << 13,
	CNTRL_BITS = SCI_EN | BRLD_EN | SUS_TYP, /* GBL_RLS and SUS_EN act and read as 0 */
};

#define PM_TIMER_HZ   3579545
#define PM_TIMER_MASK UINT32_C(0xFFFFFF)
#define PM_OVERFLOW   UINT64_C(0x800000) /* TMROF is set whenever bit 23 changes */

enum { APMC = 0xB2, APMS = 0xB3 };
enum { VENDOR_INTEL = 0x8086, DEVICE_PIIX4_PM = 0x7113, CLASS_BRIDGE = 0x0680, REVISION = 3 };
enum { SUBSYSTEM_VENDOR = 0x1AF4, SUBSYSTEM = 0x1100, INTA = 1 };

struct piix4_pm {
	uint16_t sts, en, cntrl;
	uint16_t gpe_sts, gpe_en;
	uint8_t apmc, apms;
	uint8_t plain[PM_SIZE];
	uint64_t overflow; /* tick at which TMROF is set next, or was */
	struct timer overflow_timer;

	struct pci_device pci;
	struct irq_line sci;
	bool sci_level;
	struct clock *clock;
	struct iobus *io;
	struct state_registry *states;
	const struct machine_requests *requests;
	struct io_range *pm_range; /* while decoded */
	uint16_t pm_base;
	struct io_range *gpe_range, *apm_range;
};

/* ---- timer and SCI ---- */

static uint64_t ticks(const struct piix4_pm *s)
{
	return ns_to_ticks(clock_now(s->clock), PM_TIMER_HZ);
}

static void next_overflow(struct piix4_pm *s)
{
	s->overflow = round_down(ticks(s), PM_OVERFLOW) + PM_OVERFLOW;
}

/* Brings TMROF up to date, drives the SCI, and arms the timer if an overflow must interrupt. */
static void update(struct piix4_pm *s)
{
	if (ticks(s) >= s->overflow)
		s->sts |= TMROF;
	if ((s->en & TMROF) && !(s->sts & TMROF))
		timer_set(&s->overflow_timer, ticks_to_ns(s->overflow, PM_TIMER_HZ));
	else
		timer_cancel(&s->overflow_timer);

	bool level =
		(s->cntrl & SCI_EN) && ((s->sts & s->en & EN_BITS) || (s->gpe_sts & s->gpe_en));
	if (level == s->sci_level)
		return;
	trace(TRACE_ACPI, "SCI %s (status %04x, enable %04x)", level ? "up" : "down", s->sts,
	      s->en);
	s->sci_level = level;
	irq_set(&s->sci, level);
}

static void overflow_fired(void *opaque)
{
	update(opaque);
}

void piix4_pm_power_button(struct piix4_pm *s)
{
	s->sts |= PWRBTN;
	update(s);
}

bool piix4_pm_acpi_enabled(const struct piix4_pm *s)
{
	return s->cntrl & SCI_EN;
}

/* ---- the PM block ---- */

static uint8_t pm_read_byte(const struct piix4_pm *s, unsigned reg, uint32_t timer)
{
	unsigned shift = 8 * (reg & 1);

	switch (reg & ~1u) {
	case PM_STS: return (uint8_t)(s->sts >> shift);
	case PM_EN: return (uint8_t)(s->en >> shift);
	case PM_CNTRL: return (uint8_t)(s->cntrl >> shift);
	case PM_TMR:
	case PM_TMR + 2: return (uint8_t)(timer >> 8 * (reg - PM_TMR));
	default: return s->plain[reg];
	}
}

static uint32_t pm_read(void *opaque, uint16_t port, unsigned size)
{
	struct piix4_pm *s = opaque;
	unsigned reg = port - s->pm_base;
	uint32_t timer = (uint32_t)ticks(s) & PM_TIMER_MASK, value = 0;

	if (reg < PM_EN)
		update(s);
	for (unsigned i = 0; i < size && reg + i < PM_SIZE; i++)
		value |= (uint32_t)pm_read_byte(s, reg + i, timer) << 8 * i;
	return value;
}

static void suspend(struct piix4_pm *s)
{
	unsigned type = (s->cntrl & SUS_TYP) >> SUS_TYP_SHIFT;

	trace(TRACE_ACPI, "suspend type %u", type);
	if (type == PIIX4_SLP_TYP_S5 && s->requests && s->requests->shutdown)
		s->requests->shutdown(s->requests->opaque);
}

/* The registers that can be written; everything else reads as it is. */
static bool plain_writable(unsigned reg)
{
	static const uint8_t first_last[][2] = {{PM_GPEN, PM_PCNTRL + 3},
						{PM_GLBEN, PM_GLBEN + 3},
						{PM_GLBCTL, PM_DEVCTL + 3},
						{PM_GPOREG, PM_GPOREG + 3}};
	for (size_t i = 0; i < ARRAY_SIZE(first_last); i++)
		if (reg >= first_last[i][0] && reg <= first_last[i][1])
			return true;
	return false;
}

/* Replaces one byte of a 16-bit register. */
static uint16_t with_byte(uint16_t old, unsigned shift, uint8_t value)
{
	return (uint16_t)((old & ~(0xFF << shift)) | value << shift);
}

static void pm_write_byte(struct piix4_pm *s, unsigned reg, uint8_t value)
{
	unsigned shift = 8 * (reg & 1);
	uint16_t bits = (uint16_t)(value << shift);

	switch (reg & ~1u) {
	case PM_STS:
		if (ticks(s) >= s->overflow)
			s->sts |= TMROF;
		if (bits & s->sts & TMROF)
			next_overflow(s);
		s->sts &= (uint16_t)~bits;
		break;
	case PM_EN: s->en = with_byte(s->en, shift, value) & EN_BITS; break;
	case PM_CNTRL:
		s->cntrl = with_byte(s->cntrl, shift, value) & CNTRL_BITS;
		if (bits & SUS_EN)
			suspend(s);
		break;
	default:
		if (plain_writable(reg))
			s->plain[reg] = value;
		break;
	}
}

static void pm_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct piix4_pm *s = opaque;
	unsigned reg = port - s->pm_base;

	for (unsigned i = 0; i < size && reg + i < PM_SIZE; i++)
		pm_write_byte(s, reg + i, (uint8_t)(value >> 8 * i));
	update(s);
}

static const struct io_ops pm_ops = {.read = pm_read, .write = pm_write, .sizes = 1 | 2 | 4};

/* ---- GPE0 and the SMI command port ---- */

static uint32_t gpe_read(void *opaque, uint16_t port, unsigned size)
{
	struct piix4_pm *s = opaque;
	unsigned reg = port - PIIX4_GPE0_BASE;

	return (uint8_t)((reg < 2 ? s->gpe_sts : s->gpe_en) >> 8 * (reg & 1));
}

static void gpe_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct piix4_pm *s = opaque;
	unsigned reg = port - PIIX4_GPE0_BASE, shift = 8 * (reg & 1);

	if (reg < 2)
		s->gpe_sts &= (uint16_t) ~(value << shift);
	else
		s->gpe_en = with_byte(s->gpe_en, shift, (uint8_t)value);
	update(s);
}

static const struct io_ops gpe_ops = {.read = gpe_read, .write = gpe_write};

static uint32_t apm_read(void *opaque, uint16_t port, unsigned size)
{
	struct piix4_pm *s = opaque;
	return port == APMC ? s->apmc : s->apms;
}

static void apm_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct piix4_pm *s = opaque;

	if (port == APMS) {
		s->apms = (uint8_t)value;
		return;
	}
	trace(TRACE_ACPI, "SMI command %02x", value);
	s->apmc = (uint8_t)value;
	/* What the firmware's SMI handler would do. */
	if (value == PIIX4_ACPI_ENABLE)
		s->cntrl |= SCI_EN;
	else if (value == PIIX4_ACPI_DISABLE)
		s->cntrl &= (uint16_t)~SCI_EN;
	update(s);
}

static const struct io_ops apm_ops = {.read = apm_read, .write = apm_write};

/* ---- configuration and state ---- */

static void config_changed(struct pci_device *dev, unsigned first, unsigned count)
{
	struct piix4_pm *s = container_of(dev, struct piix4_pm, pci);
	uint16_t base = (uint16_t)(load_le32(dev->config + REG_PMBA) & PMBA_WRITABLE);
	bool on = (dev->config[REG_PMREGMISC] & PMIOSE) && base != 0;

	if (on == (s->pm_range != NULL) && (!on || base == s->pm_base))
		return;
	if (s->pm_range)
		iobus_remove(s->io, s->pm_range);
	s->pm_range = on ? iobus_add(s->io, "piix4-pm", base, PM_SIZE, &pm_ops, s) : NULL;
	s->pm_base = base;
	trace(TRACE_ACPI, "PM registers %s at %04x", on ? "decoded" : "off", base);
}

static const struct state_field pm_fields[] = {
	STATE_UINT(piix4_pm, sts),
	STATE_UINT(piix4_pm, en),
	STATE_UINT(piix4_pm, cntrl),
	STATE_UINT(piix4_pm, gpe_sts),
	STATE_UINT(piix4_pm, gpe_en),
	STATE_UINT(piix4_pm, apmc),
	STATE_UINT(piix4_pm, apms),
	STATE_BYTES(piix4_pm, plain),
	STATE_UINT(piix4_pm, overflow),
	STATE_TIMER(piix4_pm, overflow_timer),
	STATE_END,
};

static void pm_reset(void *opaque)
{
	struct piix4_pm *s = opaque;
	next_overflow(s);
	update(s);
}

static void pm_pre_save(void *opaque)
{
	update(opaque);
}

static int pm_post_load(void *opaque, unsigned version, struct error *err)
{
	struct piix4_pm *s = opaque;

	s->sts &= STS_BITS;
	s->en &= EN_BITS;
	s->cntrl &= CNTRL_BITS;
	s->sci_level =
		!((s->cntrl & SCI_EN) && ((s->sts & s->en & EN_BITS) || (s->gpe_sts & s->gpe_en)));
	update(s);
	return 0;
}

static const struct state_desc pm_state = {
	.name = "piix4_pm",
	.version = 1,
	.fields = pm_fields,
	.reset = pm_reset,
	.pre_save = pm_pre_save,
	.post_load = pm_post_load,
};

static void define_registers(struct pci_device *pci)
{
	pci_config_define(pci, PCI_STATUS, 2, PCI_STATUS_FAST_B2B | PCI_STATUS_DEVSEL_MEDIUM, 0);
	pci_config_define(pci, REG_PMBA, 4, BASE_IS_IO, PMBA_WRITABLE);
	for (unsigned reg = REG_CNTA; reg < REG_DEVACTB; reg += 4)
		pci_config_define(pci, reg, 4, 0, UINT32_MAX);
	pci_config_define(pci, REG_DEVACTB, 4, APMC_EN, UINT32_MAX);
	for (unsigned reg = REG_DEVRESA; reg <= REG_DEVRESJ; reg += 4)
		pci_config_define(pci, reg, 4, 0, UINT32_MAX);
	pci_config_define(pci, REG_PMREGMISC, 1, 0, PMIOSE);
	pci_config_define(pci, REG_SMBBA, 4, BASE_IS_IO, SMBBA_WRITABLE);
	for (unsigned i = 0; i < 5; i++) /* SMBHSTCFG, SMBSLVC, SMBSHDW1, SMBSHDW2, SMBREV */
		pci_config_define(pci, REG_SMBHSTCFG + i, 1, 0, i < 4 ? UINT8_MAX : 0);
}

struct piix4_pm *piix4_pm_new(const struct device_env *env, struct pci_bus *bus, int devfn,
			      const struct irq_line *sci, struct error *err)
{
	static const struct pci_id id = {
		.vendor = VENDOR_INTEL,
		.device = DEVICE_PIIX4_PM,
		.class = CLASS_BRIDGE,
		.revision = REVISION,
		.subsystem_vendor = SUBSYSTEM_VENDOR,
		.subsystem = SUBSYSTEM,
		.interrupt_pin = INTA,
	};
	struct piix4_pm *s = xcalloc(1, sizeof(*s));

	if (pci_device_init(bus, &s->pci, devfn, "PIIX4_PM", &id, err) < 0) {
		free(s);
		return NULL;
	}
	define_registers(&s->pci);
	s->sci = *sci;
	s->clock = env->clock;
	s->io = env->io;
	s->states = env->states;
	s->requests = env->requests;
	timer_init(&s->overflow_timer, env->clock, overflow_fired, s);
	s->gpe_range =
		iobus_add(env->io, "piix4-gpe0", PIIX4_GPE0_BASE, PIIX4_GPE0_LEN, &gpe_ops, s);
	s->apm_range = iobus_add(env->io, "piix4-apm", APMC, 2, &apm_ops, s);
	s->pci.config_changed = config_changed;
	next_overflow(s);
	state_register(env->states, &pm_state, 0, s);
	return s;
}

void piix4_pm_free(struct piix4_pm *s)
{
	if (!s)
		return;
	timer_cancel(&s->overflow_timer);
	state_unregister(s->states, s);
	if (s->pm_range)
		iobus_remove(s->io, s->pm_range);
	iobus_remove(s->io, s->gpe_range);
	iobus_remove(s->io, s->apm_range);
	pci_device_fini(&s->pci);
	free(s);
}
