/* SPDX-License-Identifier: MIT */
/* A saved machine in which single bytes are wrong: every device refuses its state or bounds it, and
 * then lives through whatever a guest does. */
#include "core/input.h"
#include "devices/fdc.h"
#include "devices/i8042.h"
#include "devices/i8237.h"
#include "devices/i8254.h"
#include "devices/i8259.h"
#include "devices/ide.h"
#include "devices/ioapic.h"
#include "devices/lapic.h"
#include "devices/mc146818.h"
#include "devices/piix3.h"
#include "devices/piix3_ide.h"
#include "devices/piix4_pm.h"
#include "devices/serial16550.h"
#include "devices/vga.h"
#include "storage_rig.h"
#include <string.h>

enum { ROUNDS = 3000, ACCESSES = 40, CHANGES = 2 };
#define IOAPIC_BASE UINT64_C(0xFEC00000)

struct machine {
	struct rig *r;
	struct input input;
	char *disk_path, *floppy_path;
	struct drive *disk, *cd, *floppy;
	struct lapic_set *lapics;
	struct i8259 *pic;
	struct ioapic *ioapic;
	struct i8254 *pit;
	struct i8237 *dma;
	struct fdc *fdc;
	struct mc146818 *rtc;
	struct i8042 *kbc;
	struct serial16550 *uart;
	struct piix3 *piix3;
	struct piix3_ide *ide;
	struct piix4_pm *pm;
	struct vga *vga;
};

static uint32_t seed = 1;

static uint32_t random32(void)
{
	seed = seed * 1664525 + 1013904223;
	return seed >> 8 | seed << 24;
}

static void ignore_level(void *opaque, unsigned cpu, bool level)
{
}

static void ignore(void *opaque, unsigned cpu)
{
}

static void ignore_sipi(void *opaque, unsigned cpu, uint8_t vector)
{
}

static int pic_ack(void *opaque)
{
	return i8259_ack(((struct machine *)opaque)->pic);
}

static void build(struct machine *m)
{
	static const struct lapic_ops ops = {ignore_level, ignore, ignore, ignore_sipi, pic_ack};
	struct error err = ERROR_INIT;
	struct irq_line isa[16];

	m->r = rig_new(true);
	const struct device_env *env = &m->r->env;
	m->disk_path = rig_image(2 << 20);
	m->floppy_path = rig_image(1440 * 1024);
	m->disk = rig_drive(m->r, DRIVE_DISK, m->disk_path, IMAGE_WRITABLE);
	m->cd = rig_drive(m->r, DRIVE_CDROM, m->disk_path, 0);
	m->floppy = rig_drive(m->r, DRIVE_FLOPPY, m->floppy_path, IMAGE_WRITABLE);
	m->lapics = lapic_set_new(env, 2, &ops, m);
	m->pic = i8259_new(env, lapic_lint0(m->lapics));
	m->ioapic = ioapic_new(env, IOAPIC_BASE, m->lapics, 0);
	for (int n = 0; n < 16; n++)
		isa[n] = i8259_line(m->pic, n);
	m->pit = i8254_new(env, isa[0]);
	m->dma = i8237_new(env);
	struct drive *floppies[2] = {m->floppy}, *drives[4] = {m->disk, m->cd};
	m->fdc = fdc_new(env, FDC_BASE, &isa[FDC_IRQ], m->dma, floppies);
	m->rtc = mc146818_new(env, isa[8], &(struct rtc_config){.base = RTC_UTC});
	m->kbc = i8042_new(env, isa[1], isa[12], &m->input);
	m->uart = serial16550_new(env, 0, 0x3F8, isa[4], NULL);
	m->piix3 = piix3_new(env, m->r->pci, isa, &err);
	m->ide = piix3_ide_new(env, m->r->pci, PCI_DEVFN(1, 1), &isa[14], &isa[15], drives, &err);
	m->pm = piix4_pm_new(env, m->r->pci, PCI_DEVFN(1, 3), &isa[9], &err);
	m->vga =
		vga_new(env, m->r->pci, PCI_DEVFN(2, 0), &(struct vga_config){.vram_mib = 1}, &err);
	assert_true(m->piix3 && m->ide && m->pm && m->vga);
	state_reset_all(env->states);
}

static void tear_down(struct machine *m)
{
	vga_free(m->vga);
	piix4_pm_free(m->pm);
	piix3_ide_free(m->ide);
	piix3_free(m->piix3);
	serial16550_free(m->uart);
	i8042_free(m->kbc);
	mc146818_free(m->rtc);
	fdc_free(m->fdc);
	i8237_free(m->dma);
	i8254_free(m->pit);
	ioapic_free(m->ioapic);
	i8259_free(m->pic);
	lapic_set_free(m->lapics);
	drive_free(m->disk);
	drive_free(m->cd);
	drive_free(m->floppy);
	rig_free(m->r);
	unlink(m->disk_path);
	unlink(m->floppy_path);
	free(m->disk_path);
	free(m->floppy_path);
}

/* Anything a guest may do, mostly where something is. */
static void access_something(struct machine *m)
{
	static const uint16_t ports[] = {
		0x00,  0x08,  0x0A,  0x20,  0x21,  0x40,  0x43,   0x60,  0x64,  0x70,  0x71,
		0xA0,  0xA1,  0xCF8, 0xCFC, 0x1CE, 0x1D0, 0x1F0,  0x1F0, 0x1F0, 0x1F1, 0x1F2,
		0x1F6, 0x1F7, 0x3C0, 0x3C4, 0x3C9, 0x3CE, 0x3D4,  0x3D5, 0x3DA, 0x3F2, 0x3F4,
		0x3F5, 0x3F5, 0x3F7, 0x3F6, 0x3F8, 0x3FD, 0xC000, 0xB2,  0x4D0, 0xAFE0};
	static const uint64_t bases[] = {0xFEE00000, IOAPIC_BASE, 0xA0000, 0xB8000};
	uint32_t what = random32(), value = random32();
	uint16_t port = (uint16_t)(ports[what % ARRAY_SIZE(ports)] + (what >> 8 & 3));
	unsigned size = 1u << (what >> 12) % 3;

	if ((what >> 16 & 15) == 0) {
		uint64_t gpa = bases[what >> 20 & 3] + (value >> 16 & 0xFFC);
		if (what >> 22 & 1)
			mem_mmio_read(m->r->env.mem, gpa, 4);
		else
			mem_mmio_write(m->r->env.mem, gpa, 4, value);
	} else if (what >> 21 & 1) {
		in(m->r, port, size);
	} else {
		out(m->r, port, size, value);
	}
}

/* Changes one byte, but none of the IDE channels' buffers, which are most of the file. */
static void damage(struct strbuf *saved)
{
	static const char name[] = "\x06"
				   "buffer";
	enum { NAME = sizeof(name) - 1, HEADER = NAME + 9, BUFFER = 65536 };
	size_t at = random32() % (saved->len - 2 * BUFFER);

	for (size_t i = 0; i + HEADER + BUFFER < saved->len && i <= at; i++)
		if (!memcmp(saved->data + i, name, NAME)) {
			at += BUFFER;
			i += HEADER + BUFFER - 1;
		}
	saved->data[at] = (char)random32();
}

static void damaged_states_are_refused_or_harmless(void **state)
{
	struct machine m = {0};
	unsigned loaded = 0;

	build(&m);
	for (int round = 0; round < ROUNDS; round++) {
		struct strbuf saved = STRBUF_INIT;
		struct error err = ERROR_INIT;
		struct surface surface;
		struct rect dirty;

		for (int i = 0; i < ACCESSES; i++)
			access_something(&m);
		if (round % 16 == 8)
			rig_turn(m.r);
		state_save(m.r->env.states, &saved);
		for (int i = 0; i < CHANGES; i++)
			damage(&saved);
		loaded += state_load(m.r->env.states, saved.data, saved.len, &err) == 0;
		struct display *display = vga_display(m.vga);
		display->ops->refresh(display->opaque, &surface, &dirty, false);
		strbuf_free(&saved);
		if (round % 16 == 0)
			state_reset_all(m.r->env.states);
	}
	assert_true(loaded > ROUNDS / 10);
	tear_down(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(damaged_states_are_refused_or_harmless),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
