/* SPDX-License-Identifier: MIT */
/*
 * The interrupt chips and the timer inside the kernel: two 8259s, an IOAPIC, a local APIC for each
 * CPU, an 8254 with the speaker port. Their power-on state is read right after they were made, and
 * written back at each system reset.
 *
 * Document: Linux, Documentation/virt/kvm/api.rst (4.24 to 4.27, 4.52, 4.57, 4.71).
 */
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include "vmm/kvm_internal.h"
#include <errno.h>
#include <stdlib.h>

/* ISA interrupts go to the 8259s and to the IOAPIC's input of the same number, the timer's to
 * input 2; the IOAPIC's inputs from 16 on have no other way. */
static int set_routing(struct kvm_engine *k)
{
	enum { PIC_INPUTS = 8, TIMER = 0, CASCADE = 2, TIMER_PIN = 2 };
	union {
		struct kvm_irq_routing table;
		uint8_t bytes[sizeof(struct kvm_irq_routing) +
			      (KVM_ISA_IRQS + KVM_IOAPIC_PINS) *
				      sizeof(struct kvm_irq_routing_entry)];
	} r = {.bytes = {0}};

	for (unsigned i = 0; i < KVM_ISA_IRQS; i++) {
		if (i == CASCADE)
			continue;
		r.table.entries[r.table.nr++] = (struct kvm_irq_routing_entry){
			.gsi = i,
			.type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = {i < PIC_INPUTS ? KVM_IRQCHIP_PIC_MASTER
						     : KVM_IRQCHIP_PIC_SLAVE,
				      i % PIC_INPUTS}};
	}
	for (unsigned i = 0; i < KVM_IOAPIC_PINS; i++) {
		if (i == CASCADE)
			continue;
		r.table.entries[r.table.nr++] = (struct kvm_irq_routing_entry){
			.gsi = i,
			.type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = {KVM_IRQCHIP_IOAPIC, i == TIMER ? TIMER_PIN : i}};
	}
	return kvm_ioctl(k->vm_fd, KVM_SET_GSI_ROUTING, &r);
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
	rc = set_routing(k);
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

void kvm_irqchip_reset(struct engine *e)
{
	struct kvm_engine *k = (struct kvm_engine *)e;
	struct kvm_chips c = k->chips;

	if (!k->irqchip)
		return;
	told("first 8259", kvm_ioctl(k->vm_fd, KVM_SET_IRQCHIP, &c.pic_master));
	told("second 8259", kvm_ioctl(k->vm_fd, KVM_SET_IRQCHIP, &c.pic_slave));
	told("IOAPIC", kvm_ioctl(k->vm_fd, KVM_SET_IRQCHIP, &c.ioapic));
	told("8254", kvm_ioctl(k->vm_fd, KVM_SET_PIT2, &c.pit));
	for (unsigned i = 0; i < k->base.config.cpus; i++)
		told("local APIC", kvm_ioctl(k->vcpu[i].fd, KVM_SET_LAPIC, &k->lapic[i]));
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

void kvm_clocks_stop(struct kvm_engine *k)
{
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
