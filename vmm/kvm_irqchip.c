/* SPDX-License-Identifier: MIT */
/*
 * The interrupt chips and the timer inside the kernel: two 8259s, an IOAPIC, a local APIC for each
 * CPU, an 8254 with the speaker port. Their power-on state is read right after they were made, and
 * written back at each system reset. That state has no input levels: the kernel keeps those beside
 * it, so a reset lowers the lines first.
 *
 * Time while the machine stands still: the kernel's 8254 would go on and its missed ticks would all
 * come at the end, so its state is taken at the stop and loaded again, which starts its counters
 * anew; and the paravirtual clock is set back to what it was. A stop too short for a guest to tell
 * it from a busy host (a debugger's or the monitor's look at a register) leaves both alone.
 *
 * Document: Linux, Documentation/virt/kvm/api.rst: 4.24 KVM_CREATE_IRQCHIP, 4.25 KVM_IRQ_LINE, 4.26
 * and 4.27 KVM_GET/SET_IRQCHIP, 4.29 and 4.30 KVM_GET/SET_CLOCK, 4.52 KVM_SET_GSI_ROUTING, 4.57 and
 * 4.58 KVM_GET/SET_LAPIC, 4.70 KVM_KVMCLOCK_CTRL, 4.71 to 4.73 KVM_CREATE_PIT2, KVM_GET/SET_PIT2,
 * KVM_SIGNAL_MSI.
 */
#include "lib/bytes.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/text.h"
#include "vmm/kvm_internal.h"
#include <errno.h>
#include <stdlib.h>

#define SHORT_STOP_NS UINT64_C(10000000)

/* ISA interrupts go to the 8259s and to the IOAPIC's input of the same number, the timer's to
 * input 2; the IOAPIC's inputs from 16 on have no other way. */
int kvm_irqchip_set_routing(struct kvm_engine *k)
{
	enum { PIC_INPUTS = 8, TIMER = 0, CASCADE = 2, TIMER_PIN = 2 };
	size_t entries = KVM_ISA_IRQS + KVM_IOAPIC_PINS + k->routes_size;
	struct kvm_irq_routing *table =
		xcalloc(1, sizeof(*table) + entries * sizeof(struct kvm_irq_routing_entry));

	for (unsigned i = 0; i < KVM_ISA_IRQS; i++) {
		if (i == CASCADE)
			continue;
		table->entries[table->nr++] = (struct kvm_irq_routing_entry){
			.gsi = i,
			.type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = {i < PIC_INPUTS ? KVM_IRQCHIP_PIC_MASTER
						     : KVM_IRQCHIP_PIC_SLAVE,
				      i % PIC_INPUTS}};
	}
	for (unsigned i = 0; i < KVM_IOAPIC_PINS; i++) {
		if (i == CASCADE)
			continue;
		table->entries[table->nr++] = (struct kvm_irq_routing_entry){
			.gsi = i,
			.type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = {KVM_IRQCHIP_IOAPIC, i == TIMER ? TIMER_PIN : i}};
	}
	for (unsigned i = 0; i < k->routes_size; i++) {
		const struct kvm_route *r = &k->route[i];
		if (r->fd < 0)
			continue;
		table->entries[table->nr++] = (struct kvm_irq_routing_entry){
			.gsi = KVM_IOAPIC_PINS + i,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi = {.address_lo = (uint32_t)r->address,
				  .address_hi = (uint32_t)(r->address >> 32),
				  .data = r->data}};
	}
	int rc = kvm_ioctl(k->vm_fd, KVM_SET_GSI_ROUTING, table);
	free(table);
	return rc;
}

int kvm_irqchip_create(struct kvm_engine *k, struct error *err)
{
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	int rc = kvm_ioctl(k->vm_fd, KVM_CREATE_IRQCHIP, NULL);

	if (rc < 0)
		return error_errno(err, -rc,
				   "KVM cannot make interrupt chips; try kernel-irqchip=off");
	rc = kvm_ioctl(k->vm_fd, KVM_CREATE_PIT2, &pit);
	if (rc < 0)
		return error_errno(err, -rc, "KVM cannot make a timer; try kernel-irqchip=off");
	rc = kvm_irqchip_set_routing(k);
	if (rc < 0)
		return error_errno(err, -rc,
				   "KVM refuses the interrupt routing; try kernel-irqchip=off");
	return 0;
}

int kvm_irqchip_snapshot(struct kvm_engine *k, struct error *err)
{
	struct kvm_chips *c = &k->chips;
	int rc = 0;

	c->pic_master.chip_id = KVM_IRQCHIP_PIC_MASTER;
	c->pic_slave.chip_id = KVM_IRQCHIP_PIC_SLAVE;
	c->ioapic.chip_id = KVM_IRQCHIP_IOAPIC;
	if ((rc = kvm_ioctl(k->vm_fd, KVM_GET_IRQCHIP, &c->pic_master)) < 0 ||
	    (rc = kvm_ioctl(k->vm_fd, KVM_GET_IRQCHIP, &c->pic_slave)) < 0 ||
	    (rc = kvm_ioctl(k->vm_fd, KVM_GET_IRQCHIP, &c->ioapic)) < 0 ||
	    (rc = kvm_ioctl(k->vm_fd, KVM_GET_PIT2, &c->pit)) < 0)
		return error_errno(err, -rc, "cannot read KVM's interrupt chips");
	k->lapic = xcalloc(k->base.config.cpus, sizeof(*k->lapic));
	for (unsigned i = 0; i < k->base.config.cpus; i++) {
		rc = kvm_ioctl(k->vcpu[i].fd, KVM_GET_LAPIC, &k->lapic[i]);
		if (rc < 0)
			return error_errno(err, -rc, "cannot read KVM's local APIC %u", i);
	}
	return 0;
}

static void told(const char *what, int rc)
{
	if (rc < 0)
		warn("KVM does not reset its %s: %s", what, strerror(-rc));
}

/*
 * A local APIC goes back to xAPIC mode at its own address before its registers are written: their
 * layout depends on the mode. What the state transfer says about IA32_APIC_BASE comes later.
 */
static int reset_lapic(struct kvm_engine *k, unsigned cpu)
{
	enum { MSR_APIC_BASE = 0x1b };
	struct cpu_state reset;
	union {
		struct kvm_msrs list;
		uint8_t bytes[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
	} base = {.list.nmsrs = 1};

	cpu_state_reset(&reset, cpu == 0, 0);
	base.list.entries[0] =
		(struct kvm_msr_entry){.index = MSR_APIC_BASE, .data = reset.apic_base};
	kvm_ioctl(k->vcpu[cpu].fd, KVM_SET_MSRS, &base);
	return kvm_ioctl(k->vcpu[cpu].fd, KVM_SET_LAPIC, &k->lapic[cpu]);
}

void kvm_irqchip_reset(struct engine *e)
{
	struct kvm_engine *k = (struct kvm_engine *)e;
	struct kvm_chips c = k->chips;

	if (!k->irqchip)
		return;
	for (int gsi = 0; gsi < KVM_IOAPIC_PINS; gsi++)
		kvm_irqchip_set_gsi(k, gsi, false);
	told("first 8259", kvm_ioctl(k->vm_fd, KVM_SET_IRQCHIP, &c.pic_master));
	told("second 8259", kvm_ioctl(k->vm_fd, KVM_SET_IRQCHIP, &c.pic_slave));
	told("IOAPIC", kvm_ioctl(k->vm_fd, KVM_SET_IRQCHIP, &c.ioapic));
	told("8254", kvm_ioctl(k->vm_fd, KVM_SET_PIT2, &c.pit));
	for (unsigned i = 0; i < k->base.config.cpus; i++)
		told("local APIC", reset_lapic(k, i));
	/* What pause() kept is of before the reset. */
	if (k->clock_saved)
		k->paused_pit = c.pit;
}

void kvm_irqchip_set_gsi(void *engine, int gsi, bool level)
{
	struct kvm_engine *k = engine;
	struct kvm_irq_level l = {.irq = (uint32_t)gsi, .level = level};

	trace(TRACE_IRQ, "gsi %d %s", gsi, level ? "up" : "down");
	kvm_ioctl(k->vm_fd, KVM_IRQ_LINE, &l);
}

void kvm_irqchip_msi(struct engine *e, uint64_t address, uint32_t data)
{
	struct kvm_engine *k = (struct kvm_engine *)e;
	struct kvm_msi msi = {
		.address_lo = (uint32_t)address,
		.address_hi = (uint32_t)(address >> 32),
		.data = data,
	};

	trace(TRACE_IRQ, "msi %llx %x", (unsigned long long)address, data);
	kvm_ioctl(k->vm_fd, KVM_SIGNAL_MSI, &msi);
}

void kvm_clocks_stop(struct kvm_engine *k)
{
	k->paused_ns = host_clock_ns();
	k->clock_saved = false;
	if (k->irqchip && kvm_ioctl(k->vm_fd, KVM_GET_PIT2, &k->paused_pit) < 0)
		return;
	if (k->adjust_clock)
		kvm_ioctl(k->vm_fd, KVM_GET_CLOCK, &k->clock);
	k->clock_saved = true;
}

void kvm_clocks_start(struct kvm_engine *k)
{
	if (!k->clock_saved)
		return;
	k->clock_saved = false;
	if (host_clock_ns() - k->paused_ns < SHORT_STOP_NS)
		return;
	if (k->adjust_clock) {
		struct kvm_clock_data c = {.clock = k->clock.clock};
		kvm_ioctl(k->vm_fd, KVM_SET_CLOCK, &c);
	}
	if (k->irqchip)
		kvm_ioctl(k->vm_fd, KVM_SET_PIT2, &k->paused_pit);
	/* Tells guests that know that their watchdogs should not bark. */
	for (unsigned i = 0; k->kvmclock_ctrl && i < k->base.config.cpus; i++)
		kvm_ioctl(k->vcpu[i].fd, KVM_KVMCLOCK_CTRL, NULL);
}
