/* SPDX-License-Identifier: MIT */
/*
 * What the PC consists of: every device with its place and its interrupt, in the order in which a
 * reader would draw it.
 *
 * Interrupts: a device's ISA line, ORed with those of the others that share it, goes to the 8259s
 * and to the I/O APIC alike, either our models or KVM's. The 8259s' output goes to LINT0 of the
 * local APICs, which drive the CPUs' INTR pins.
 */
#include "vmm/machine.h"
#include "bios/bios.h"
#include "core/iobus.h"
#include "core/memory.h"
#include "core/state.h"
#include "devices/coprocessor.h"
#include "devices/debug_exit.h"
#include "devices/debugcon.h"
#include "devices/fdc.h"
#include "devices/fw_cfg.h"
#include "devices/i440fx.h"
#include "devices/i8042.h"
#include "devices/i8237.h"
#include "devices/i8254.h"
#include "devices/i8259.h"
#include "devices/ide.h"
#include "devices/ioapic.h"
#include "devices/lapic.h"
#include "devices/mc146818.h"
#include "devices/parallel.h"
#include "devices/pci.h"
#include "devices/pcspeaker.h"
#include "devices/piix3.h"
#include "devices/piix3_ide.h"
#include "devices/piix4_pm.h"
#include "devices/port92.h"
#include "devices/serial16550.h"
#include "devices/vga.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/text.h"
#include "vmm/accel.h"
#include "vmm/backends.h"
#include "vmm/consoles.h"
#include "vmm/firmware.h"
#include "vmm/monitor.h"
#include "vmm/nics.h"
#include "vmm/objects.h"
#include "vmm/pci_devices.h"
#include "vmm/ports.h"
#include "vmm/qmp.h"
#include "vmm/window.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VGA_SLOT = 2, IOAPIC_ID = 0 };
#define IOAPIC_BASE UINT64_C(0xFEC00000)

/* ---- Interrupt wiring ---- */

/* With our models: ISA interrupt n is the 8259s' input n and the I/O APIC's input n, but the timer
 * is the latter's input 2. */
static void isa_to_models(void *opaque, int n, bool level)
{
	struct machine *m = opaque;
	struct irq_line pic = i8259_line(m->dev.pic, n);
	struct irq_line apic = ioapic_line(m->dev.ioapic, n == 0 ? 2 : n);
	irq_set(&pic, level);
	irq_set(&apic, level);
}

/* Devices are taken apart when the engine is gone already. */
static void isa_to_kernel(void *opaque, int n, bool level)
{
	struct machine *m = opaque;
	if (m->engine)
		m->engine->ops->irqchip_set_gsi(m->engine, n, level);
}

/* Several devices may be on one line, so each is given an input of an OR gate in front of it. */
static void wire_interrupts(struct machine *m)
{
	for (int n = 0; n < ISA_IRQS; n++) {
		struct irq_line line = {isa_to_models, m, n};
		if (m->kernel_irqchip)
			line = (struct irq_line){isa_to_kernel, m, n};
		m->isa[n] = irq_or_new(m->states, n, line);
	}
}

struct irq_line machine_isa_line(struct machine *m, int n)
{
	return irq_or_input(m->isa[n]);
}

static void send_msi(void *opaque, uint64_t address, uint32_t data)
{
	struct machine *m = opaque;
	if (!m->kernel_irqchip)
		lapic_msi(m->dev.lapics, address, data);
	else if (m->engine)
		m->engine->ops->irqchip_msi(m->engine, address, data);
}

static int route_msi(void *opaque, int fd, uint64_t address, uint32_t data)
{
	struct machine *m = opaque;
	return m->engine && m->engine->ops->msi_route
		       ? m->engine->ops->msi_route(m->engine, fd, address, data)
		       : -ENOTSUP;
}

static void unroute_msi(void *opaque, int fd)
{
	struct machine *m = opaque;
	if (m->engine && m->engine->ops->msi_unroute)
		m->engine->ops->msi_unroute(m->engine, fd);
}

static int set_doorbell(void *opaque, const struct doorbell *bell, int fd, bool on)
{
	struct machine *m = opaque;
	return m->engine && m->engine->ops->doorbell
		       ? m->engine->ops->doorbell(m->engine, bell, fd, on)
		       : -ENOTSUP;
}

static int acknowledge(void *opaque, unsigned cpu)
{
	struct machine *m = opaque;
	return lapic_ack(m->dev.lapics, cpu);
}

static void apic_base_changed(void *opaque, unsigned cpu, uint64_t value)
{
	struct machine *m = opaque;
	if (m->dev.lapics)
		lapic_set_base(m->dev.lapics, cpu, value);
}

static void ferr(void *opaque, unsigned cpu)
{
	struct machine *m = opaque;
	coprocessor_ferr(m->dev.coprocessor);
}

static void ignne(void *opaque)
{
	struct machine *m = opaque;
	if (m->engine->ops->ignne)
		m->engine->ops->ignne(m->engine);
}

static void lapic_intr(void *opaque, unsigned cpu, bool level)
{
	struct machine *m = opaque;
	m->engine->ops->set_intr(m->engine, cpu, level);
}

static void lapic_nmi(void *opaque, unsigned cpu)
{
	struct machine *m = opaque;
	m->engine->ops->nmi(m->engine, cpu);
}

static void lapic_init(void *opaque, unsigned cpu)
{
	struct machine *m = opaque;
	m->engine->ops->init(m->engine, cpu);
}

static void lapic_sipi(void *opaque, unsigned cpu, uint8_t vector)
{
	struct machine *m = opaque;
	m->engine->ops->sipi(m->engine, cpu, vector);
}

static int lapic_pic_ack(void *opaque)
{
	struct machine *m = opaque;
	return i8259_pending(m->dev.pic) ? i8259_ack(m->dev.pic) : -1;
}

/* ---- Parts ---- */

static int build_core(struct machine *m, struct error *err)
{
	m->loop = loop_new(err);
	if (!m->loop)
		return -err->code;
	m->clock = clock_new(m->loop);
	m->mem = memory_new();
	m->io = iobus_new();
	m->states = state_registry_new();
	m->typist = key_typist_new(m->clock, &m->input);
	machine_requests_init(m);
	m->msi = (struct msi_controller){
		.send = send_msi, .route = route_msi, .unroute = unroute_msi, .opaque = m};
	m->doorbells = (struct doorbell_ops){.set = set_doorbell, .opaque = m};
	m->env = (struct device_env){
		.mem = m->mem,
		.io = m->io,
		.clock = m->clock,
		.loop = m->loop,
		.states = m->states,
		.requests = &m->requests,
		.msi = &m->msi,
		.doorbells = &m->doorbells,
	};
	return 0;
}

static int build_engine(struct machine *m, struct error *err)
{
	int r = cpu_model_parse(m->options->cpu ? m->options->cpu : "qemu32", &m->model, err);
	if (r < 0)
		return r;
	struct engine_config config = {
		.cpus = m->options->cpus,
		.model = &m->model,
		.kernel_irqchip = m->options->kernel_irqchip,
		.mem = m->mem,
		.io = m->io,
		.loop = m->loop,
		.clock = m->clock,
		.ack = acknowledge,
		.apic_base_changed = apic_base_changed,
		.ferr = ferr,
		.event = machine_engine_event,
		.opaque = m,
	};
	m->engine = accel_create(m->options, &config, &m->notes, err);
	if (!m->engine)
		return -err->code;
	m->kernel_irqchip = m->engine->ops->has_irqchip && m->engine->ops->has_irqchip(m->engine);
	return 0;
}

/* The 8259s, 8254 and APICs, unless they are KVM's. */
static int build_interrupt_chips(struct machine *m)
{
	static const struct lapic_ops lapic_ops = {
		.set_intr = lapic_intr,
		.nmi = lapic_nmi,
		.init = lapic_init,
		.sipi = lapic_sipi,
		.pic_ack = lapic_pic_ack,
	};
	wire_interrupts(m);
	if (m->kernel_irqchip)
		return 0;
	m->dev.lapics = lapic_set_new(&m->env, m->options->cpus, &lapic_ops, m);
	m->dev.pic = i8259_new(&m->env, lapic_lint0(m->dev.lapics));
	m->dev.ioapic = ioapic_new(&m->env, IOAPIC_BASE, m->dev.lapics, IOAPIC_ID);
	m->dev.pit = i8254_new(&m->env, machine_isa_line(m, 0));
	m->dev.speaker = pcspeaker_new(&m->env, m->dev.pit);
	return 0;
}

static struct mem_region *load_bios(struct machine *m, struct error *err)
{
	size_t len;
	char path[4096];
	void *data = firmware_load_rom(
		m->options, m->options->bios ? m->options->bios : "bios-256k.bin", &len, path, err);
	if (!data)
		return NULL;
	if (len % (64 * KIB) || len > 16 * MIB) {
		error_set(err, EINVAL,
			  "'%s' is not a firmware image: its size, %zu bytes, is not a multiple of "
			  "64 KiB",
			  path, len);
		free(data);
		return NULL;
	}
	struct mem_region *rom = mem_region_new_rom(m->mem, "bios", len, err);
	if (rom)
		memcpy(rom->host, data, len);
	free(data);
	return rom;
}

static int build_memory_and_pci(struct machine *m, struct error *err)
{
	m->ram = mem_region_new_ram(m->mem, "ram", m->options->ram_bytes, err);
	if (!m->ram) {
		error_prefix(err, "-m %llu", (unsigned long long)(m->options->ram_bytes / MIB));
		return -err->code;
	}
	struct mem_region *bios = load_bios(m, err);
	if (!bios)
		return -err->code;
	m->dev.pci = pci_bus_new(&m->env);
	struct irq_line isa[ISA_IRQS];
	for (int n = 0; n < ISA_IRQS; n++)
		isa[n] = machine_isa_line(m, n);
	if (!(m->dev.host_bridge = i440fx_new(&m->env, m->dev.pci, m->ram, bios, err)) ||
	    !(m->dev.piix3 = piix3_new(&m->env, m->dev.pci, isa, err)))
		return -err->code;
	return 0;
}

static int build_isa_devices(struct machine *m, struct error *err)
{
	struct rtc_config rtc = {.base = RTC_UTC};
	if (m->options->rtc && rtc_config_parse(m->options->rtc, &rtc, err) < 0)
		return -err->code;
	m->dev.dma = i8237_new(&m->env);
	m->dev.rtc = mc146818_new(&m->env, machine_isa_line(m, 8), &rtc);
	m->dev.kbc = i8042_new(&m->env, machine_isa_line(m, 1), machine_isa_line(m, 12), &m->input);
	m->dev.port92 = port92_new(&m->env);
	m->dev.coprocessor = coprocessor_new(&m->env, machine_isa_line(m, 13), ignne, m);
	return ports_build(m, err);
}

static void tray_moved(void *opaque, struct drive *drive, bool open)
{
	machine_emit(opaque, EVENT_TRAY_MOVED, CAUSE_HOST_QUIT, drive_id(drive), open);
}

static int build_drives(struct machine *m, struct error *err)
{
	int r = drives_create(&m->drives, m->options, m->loop, err);
	if (r < 0)
		return r;
	for (int n = 0; n < IDE_SLOTS; n++)
		if (m->drives.ide[n])
			drive_on_tray_moved(m->drives.ide[n], tray_moved, m);
	for (unsigned n = 0; n < DRIVE_PLACES; n++)
		if (drives_at(&m->drives, n))
			drive_on_error(drives_at(&m->drives, n), machine_drive_failed, m);
	struct irq_line irq14 = machine_isa_line(m, 14), irq15 = machine_isa_line(m, 15);
	m->dev.ide = piix3_ide_new(&m->env, m->dev.pci, PCI_DEVFN(PIIX3_SLOT, 1), &irq14, &irq15,
				   m->drives.ide, err);
	if (!m->dev.ide)
		return -err->code;
	struct irq_line irq6 = machine_isa_line(m, FDC_IRQ);
	m->dev.fdc = fdc_new(&m->env, FDC_BASE, &irq6, m->dev.dma, m->drives.floppy);
	struct irq_line sci = machine_isa_line(m, PIIX4_SCI_IRQ);
	m->dev.pm = piix4_pm_new(&m->env, m->dev.pci, PCI_DEVFN(PIIX3_SLOT, 3), &sci, err);
	return m->dev.pm ? 0 : -err->code;
}

static int build_vga(struct machine *m, struct error *err)
{
	if (!m->options->vga)
		return 0;
	size_t len;
	char path[4096];
	void *rom = firmware_load_rom(m->options, "vgabios-stdvga.bin", &len, path, err);
	if (!rom)
		return -err->code;
	struct vga_config config = {.rom = rom, .rom_size = len};
	m->dev.vga = vga_new(&m->env, m->dev.pci, PCI_DEVFN(VGA_SLOT, 0), &config, err);
	free(rom);
	if (!m->dev.vga)
		return -err->code;
	m->display = vga_display(m->dev.vga);
	return 0;
}

int machine_reset_all(struct machine *m, struct error *err)
{
	state_reset_all(m->states);
	memory_set_a20(m->mem, true);
	if (m->kernel_irqchip)
		m->engine->ops->irqchip_reset(m->engine);
	for (unsigned n = 0; n < m->options->cpus; n++) {
		struct cpu_state state;
		cpu_state_reset(&state, n == 0, cpu_model_signature(&m->model));
		int r = m->engine->ops->set_state(m->engine, n, &state, err);
		if (r < 0)
			return r;
	}
	if (m->started && m->firmware)
		firmware_reset(m->firmware);
	return 0;
}

static int build(struct machine *m, struct error *err)
{
	int r;
	if ((r = build_engine(m, err)) < 0 ||         /* what runs the guest */
	    (r = build_interrupt_chips(m)) < 0 ||     /* 8259, 8254, APICs */
	    (r = build_memory_and_pci(m, err)) < 0 || /* RAM, ROM, host bridge, ISA bridge */
	    (r = objects_create(m, OBJECT_FIRST, err)) < 0 || /* -object */
	    (r = backends_open(m, err)) < 0 ||                /* -chardev */
	    (r = build_isa_devices(m, err)) < 0 ||            /* DMA, RTC, keyboard, serial ports */
	    (r = build_vga(m, err)) < 0 ||                    /* display */
	    (r = build_drives(m, err)) < 0 ||                 /* IDE, floppy, power management */
	    (r = nics_open_backends(m, err)) < 0 ||           /* -netdev */
	    (r = objects_create(m, OBJECT_LAST, err)) < 0 ||  /* those on netdevs */
	    (r = pci_devices_build(m, err)) < 0 ||            /* -device's PCI cards */
	    (r = nics_build(m, err)) < 0 ||                   /* -nic, ISA network cards */
	    (r = firmware_build(m, err)) < 0 || /* fw_cfg: tables, boot order, kernel */
	    (r = consoles_build(m, err)) < 0)   /* monitors, QMP */
		return r;
	nics_warn(m);
	return machine_reset_all(m, err);
}

struct machine *machine_new(struct options *o, struct error *err)
{
	struct machine *m = xcalloc(1, sizeof(*m));
	m->options = o;
	m->state = RUN_PRELAUNCH;
	m->signal_fd = -1;
	list_init(&m->listeners);
	list_init(&m->chardevs);
	list_init(&m->pci_devices);
	if (build_core(m, err) < 0) {
		free(m);
		return NULL;
	}
	loop_lock(m->loop);
	int r = build(m, err);
	loop_unlock(m->loop);
	if (r == 0)
		r = window_open(m, err);
	if (r < 0) {
		machine_free(m);
		return NULL;
	}
	return m;
}

static void free_devices(struct machine *m)
{
	struct machine_devices *d = &m->dev;
#define FREE(member, function)                                                                     \
	do {                                                                                       \
		if (d->member)                                                                     \
			function(d->member);                                                       \
	} while (0)
	pci_devices_free(m);
	nics_free(m);
	FREE(vga, vga_free);
	FREE(fdc, fdc_free);
	FREE(ide, piix3_ide_free);
	FREE(pm, piix4_pm_free);
	FREE(debug_exit, debug_exit_free);
	for (size_t n = 0; n < ARRAY_SIZE(d->debugcon); n++)
		FREE(debugcon[n], debugcon_free);
	for (size_t n = 0; n < ARRAY_SIZE(d->parallel); n++)
		FREE(parallel[n], parallel_free);
	for (size_t n = 0; n < ARRAY_SIZE(d->serial); n++)
		FREE(serial[n], serial16550_free);
	FREE(coprocessor, coprocessor_free);
	FREE(port92, port92_free);
	FREE(kbc, i8042_free);
	FREE(rtc, mc146818_free);
	FREE(dma, i8237_free);
	FREE(piix3, piix3_free);
	FREE(host_bridge, i440fx_free);
	FREE(pci, pci_bus_free);
	FREE(speaker, pcspeaker_free);
	FREE(pit, i8254_free);
	FREE(ioapic, ioapic_free);
	FREE(pic, i8259_free);
	FREE(lapics, lapic_set_free);
	if (m->firmware)
		firmware_free(m->firmware);
	FREE(fw_cfg, fw_cfg_free);
#undef FREE
	for (int n = 0; n < ISA_IRQS; n++)
		irq_or_free(m->isa[n]);
}

void machine_free(struct machine *m)
{
	window_close(m);
	struct engine *engine = m->engine;
	m->engine = NULL;
	if (engine)
		engine->ops->free(engine); /* joins the vCPU threads, which may want the lock */
	loop_lock(m->loop);
	key_typist_free(m->typist);
	monitor_free_all(m);
	qmp_free_all(m);
	object_free_all(OBJECT_LAST);
	free_devices(m);
	drives_free(&m->drives);
	backends_free(m);
	object_free_all(OBJECT_FIRST);
	machine_unwatch_signals(m);
	loop_unlock(m->loop);
	state_registry_free(m->states);
	iobus_free(m->io);
	memory_free(m->mem);
	clock_free(m->clock);
	loop_free(m->loop);
	strbuf_free(&m->notes);
	free(m);
}
