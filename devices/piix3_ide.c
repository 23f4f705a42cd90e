/* SPDX-License-Identifier: MIT */
/*
 * PIIX3 (82371SB) function 1: the IDE controller, 01.1, 8086:7010, in legacy mode.
 *
 *   register  name
 *   0x20      BMIBA    BAR4: 16 I/O ports, 8 bus-master registers a channel (ide_bm.c)
 *   0x40-43   IDETIM   timing and decode enable of each channel: plain bits
 *   0x44      SIDETIM  slave timing: plain bits
 *
 *   primary   ports 0x1F0-7, 0x3F6, interrupt 14
 *   secondary ports 0x170-7, 0x376, interrupt 15
 *
 * Document: 82371FB/82371SB datasheet (Intel 290550), 2.3 (function 1 registers), 2.7 (bus master).
 * Left out: the legacy ports answer whether or not IDETIM enables them (as on QEMU, so that
 * firmware without a PCI set-up finds its disk); native mode.
 */
#include "devices/piix3_ide.h"
#include "devices/ide_internal.h"
#include "lib/text.h"
#include <stdlib.h>

enum piix3_ide_reg { REG_IDETIM0 = 0x40, REG_IDETIM1 = 0x42, REG_SIDETIM = 0x44 };

enum { VENDOR_INTEL = 0x8086, DEVICE_PIIX3_IDE = 0x7010, CLASS_IDE = 0x0101, BUS_MASTER = 0x80 };
enum { SUBSYSTEM_VENDOR = 0x1AF4, SUBSYSTEM = 0x1100, BMIBA = 4, CHANNELS = 2 };

struct piix3_ide {
	struct pci_device pci;
	struct ide_channel channel[CHANNELS];
	struct state_registry *states;
};

static uint32_t bm_read(void *opaque, uint16_t port, unsigned size)
{
	struct piix3_ide *s = opaque;
	uint32_t value = 0;

	for (unsigned i = 0; i < size; i++) {
		unsigned reg = (port + i) % (CHANNELS * BM_SIZE);
		value |= (uint32_t)ide_bm_read(&s->channel[reg / BM_SIZE], reg % BM_SIZE) << 8 * i;
	}
	return value;
}

static void bm_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct piix3_ide *s = opaque;

	for (unsigned i = 0; i < size; i++, value >>= 8) {
		unsigned reg = (port + i) % (CHANNELS * BM_SIZE);
		ide_bm_write(&s->channel[reg / BM_SIZE], reg % BM_SIZE, (uint8_t)value);
	}
}

static const struct io_ops bm_ops = {.read = bm_read, .write = bm_write, .sizes = 1 | 2 | 4};

static void channel_reset(void *opaque)
{
	ide_channel_reset(opaque);
}

static void channel_pre_save(void *opaque)
{
	ide_channel_drain(opaque);
}

static int channel_post_load(void *opaque, unsigned version, struct error *err)
{
	return ide_channel_post_load(opaque, err);
}

static const struct state_desc channel_state = {
	.name = "ide",
	.version = 1,
	.fields = ide_channel_fields,
	.reset = channel_reset,
	.pre_save = channel_pre_save,
	.post_load = channel_post_load,
};

struct piix3_ide *piix3_ide_new(const struct device_env *env, struct pci_bus *bus, int devfn,
				const struct irq_line *irq14, const struct irq_line *irq15,
				struct drive *const drives[4], struct error *err)
{
	static const struct pci_id id = {
		.vendor = VENDOR_INTEL,
		.device = DEVICE_PIIX3_IDE,
		.class = CLASS_IDE,
		.prog_if = BUS_MASTER,
		.subsystem_vendor = SUBSYSTEM_VENDOR,
		.subsystem = SUBSYSTEM,
	};
	struct piix3_ide *s = xcalloc(1, sizeof(*s));

	if (pci_device_init(bus, &s->pci, devfn, "piix3-ide", &id, err) < 0) {
		free(s);
		return NULL;
	}
	pci_config_define(&s->pci, PCI_STATUS, 2, PCI_STATUS_FAST_B2B | PCI_STATUS_DEVSEL_MEDIUM,
			  0);
	pci_config_define(&s->pci, REG_IDETIM0, 2, 0, UINT16_MAX);
	pci_config_define(&s->pci, REG_IDETIM1, 2, 0, UINT16_MAX);
	pci_config_define(&s->pci, REG_SIDETIM, 1, 0, UINT8_MAX);
	pci_bar_io(&s->pci, BMIBA, CHANNELS * BM_SIZE, &bm_ops, s);

	s->states = env->states;
	ide_channel_init(&s->channel[0], env, "ide0", 0x1F0, 0x3F6, irq14, &s->pci, drives);
	ide_channel_init(&s->channel[1], env, "ide1", 0x170, 0x376, irq15, &s->pci, drives + 2);
	for (int i = 0; i < CHANNELS; i++)
		state_register(env->states, &channel_state, i, &s->channel[i]);
	return s;
}

void piix3_ide_free(struct piix3_ide *s)
{
	if (!s)
		return;
	for (int i = 0; i < CHANNELS; i++) {
		state_unregister(s->states, &s->channel[i]);
		ide_channel_fini(&s->channel[i]);
	}
	pci_device_fini(&s->pci);
	free(s);
}
