/* SPDX-License-Identifier: MIT */
/* What the files of the KVM engine share. linux/kvm.h is included here and nowhere else. */
#ifndef VMM_KVM_INTERNAL_H
#define VMM_KVM_INTERNAL_H

#include "core/memory.h"
#include "vmm/engine.h"
#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include <pthread.h>

enum {
	KVM_MSRS_MAX = 64,
	KVM_SLOTS_MAX = 128,
	KVM_ISA_IRQS = 16,
	KVM_IOAPIC_PINS = 24,
	KVM_ROUTES_MAX = 1024, /* GSIs for messages; the kernel has 4096 in all */
};

/* Pages that KVM needs for itself below 4 GiB on some Intel processors: one page table and three
 * pages of TSS (api.rst, 4.40 and 4.36). They touch the largest firmware ROM (16 MiB) from below,
 * and the firmware's memory map reserves them. */
#define KVM_IDENTITY_MAP_ADDR UINT64_C(0xfeffc000)
#define KVM_TSS_ADDR          UINT64_C(0xfeffd000)

/* A memory slot as KVM knows it; size 0: free. */
struct kvm_slot {
	uint64_t gpa, size;
	uint8_t *host;
	struct mem_region *region;
	uint64_t offset; /* in the region */
	uint32_t flags;
};

/* A range for which KVM queues writes. */
struct kvm_coalesced {
	uint64_t gpa, size;
};

struct kvm_vcpu {
	struct kvm_engine *k;
	unsigned index;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	bool has_thread;

	/* Guarded by k->mutex. */
	bool waiting;   /* parked, not inside KVM_RUN nor in an exit's handler */
	bool inside;    /* in KVM_RUN; kept only where there are several CPUs */
	bool intr;      /* the INTR input, from our models */
	bool nmi, init; /* requests */
	bool sipi;
	uint8_t sipi_vector;
	bool stuck;       /* after an internal error, until its state is set again */
	uint8_t activity; /* enum cpu_activity; KVM keeps HALTED and WAIT_SIPI with its own chips */
	uint32_t intr_seen; /* counts interrupts injected */

	bool access_open;   /* its own thread's: the last exit's access is not yet finished */
	uint64_t apic_base; /* as last reported to the machine */
	uint64_t exits[64]; /* by reason, for describe() */
};

/* The power-on state of the in-kernel chips, read back right after they were made. */
struct kvm_chips {
	struct kvm_irqchip pic_master, pic_slave, ioapic;
	struct kvm_pit_state2 pit;
};

/* An interrupt message that an eventfd sends; its GSI is KVM_IOAPIC_PINS + its place in the
 * table. */
struct kvm_route {
	int fd; /* -1: free */
	uint64_t address;
	uint32_t data;
};

struct kvm_engine {
	struct engine base;
	int kvm_fd, vm_fd;
	size_t run_size;
	bool irqchip;
	bool vcpu_events, debugregs, xsave, kvmclock_ctrl, adjust_clock;
	bool smm, tsc_deadline;
	struct kvm_cpuid2 *supported_cpuid;

	/* MSRs that state transfer covers: those KVM lists and lets be read. */
	uint32_t msr[KVM_MSRS_MAX];
	unsigned msrs;
	bool msr_unsettable[KVM_MSRS_MAX];

	struct kvm_slot slot[KVM_SLOTS_MAX];
	struct kvm_coalesced zone[KVM_SLOTS_MAX];
	unsigned zones;
	struct kvm_coalesced_mmio_ring *ring;
	unsigned ring_page;
	struct mem_listener listener;
	bool slots_stale; /* the view changed while all CPUs stood still: see kvm_memory_sync() */
	bool slot_error_told;

	/* kvm_notify.c */
	bool ioeventfd, ioeventfd_any, irqfd;
	unsigned doorbells; /* in the kernel now */
	struct kvm_route *route;
	unsigned routes, routes_size; /* in use, entries of the table */

	struct kvm_chips chips;
	struct kvm_lapic_state *lapic; /* one a CPU, power-on */
	struct kvm_clock_data clock;
	struct kvm_pit_state2 paused_pit;
	bool clock_saved;
	uint64_t paused_ns; /* CLOCK_MONOTONIC at the stop */

	pthread_mutex_t mutex;
	pthread_cond_t wake;  /* vCPU threads wait here */
	pthread_cond_t quiet; /* pause() and kvm_hold_vcpus() wait here */
	bool paused, stopping;
	bool held;       /* no CPU may enter KVM_RUN: the memory slots are being changed */
	bool sync_ready; /* mutex and conditions exist */

	unsigned cpus; /* created so far */
	struct kvm_vcpu *vcpu;
};

/* ioctl() that goes on after EINTR; -errno or its value. */
int kvm_ioctl(int fd, unsigned long request, void *arg);
/* For requests whose argument is a number; -errno or the value. */
int kvm_ioctl_value(int fd, unsigned long request, unsigned long arg);

/* kvm.c: between these no CPU is inside KVM_RUN. Machine lock held; not nested. */
void kvm_hold_vcpus(struct kvm_engine *k);
void kvm_release_vcpus(struct kvm_engine *k);

/* kvm_memory.c */
/* Follows the view of config.mem from now on, until kvm_memory_fini(). */
int kvm_memory_init(struct kvm_engine *k, struct error *err);
/* Brings the slots up to date with what changed while the CPUs stood still. Machine lock held;
 * before the CPUs run, and before the kernel is asked to look at guest memory. */
void kvm_memory_sync(struct kvm_engine *k);
void kvm_memory_fini(struct kvm_engine *k);
/* Hands queued writes to the devices. Lock held. */
void kvm_flush_coalesced(struct kvm_engine *k);

/* kvm_cpuid.c */
/* Gives the CPU what the guest is to see; before it runs. */
int kvm_set_cpuid(struct kvm_engine *k, struct kvm_vcpu *v, struct error *err);

/* kvm_state.c */
/* Finds out which MSRs the kernel has; before the first of the next two. */
void kvm_msrs_init(struct kvm_engine *k);
/* struct engine_ops.get_state and set_state; the CPU stands still. `err` may be NULL. */
int kvm_get_state(struct kvm_vcpu *v, struct cpu_state *s, struct error *err);
int kvm_set_state(struct kvm_vcpu *v, const struct cpu_state *s, struct error *err);
/* INIT and SIPI for a CPU whose local APIC is ours. */
void kvm_cpu_init(struct kvm_vcpu *v);
void kvm_cpu_sipi(struct kvm_vcpu *v, uint8_t vector);

/* kvm_irqchip.c */
int kvm_irqchip_create(struct kvm_engine *k, struct error *err);
/* After the vCPUs exist: remembers the power-on state. */
int kvm_irqchip_snapshot(struct kvm_engine *k, struct error *err);
/* struct engine_ops of that name. */
void kvm_irqchip_reset(struct engine *e);
void kvm_irqchip_set_gsi(void *engine, int gsi, bool level);
void kvm_irqchip_msi(struct engine *e, uint64_t address, uint32_t data);
/* Tells the kernel what each GSI is: its chips' inputs and k->route. */
int kvm_irqchip_set_routing(struct kvm_engine *k);
/* The kernel's clocks stand still between these. */
void kvm_clocks_stop(struct kvm_engine *k);
void kvm_clocks_start(struct kvm_engine *k);

/* kvm_notify.c: struct engine_ops of that name. */
int kvm_msi_route(struct engine *e, int fd, uint64_t address, uint32_t data);
void kvm_msi_unroute(struct engine *e, int fd);
int kvm_doorbell(struct engine *e, const struct doorbell *bell, int fd, bool on);

/* kvm_exit.c */
/* Deals with what KVM_RUN came back for; `rc` is its result. */
void kvm_handle_exit(struct kvm_vcpu *v, int rc);
/* A report of everything known about a vCPU that cannot go on. */
void kvm_report(struct kvm_vcpu *v, const char *what, struct strbuf *out);
const char *kvm_exit_name(unsigned reason);

#endif
