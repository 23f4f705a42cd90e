/* SPDX-License-Identifier: MIT */
/*
 * The KVM engine: a virtual machine of the Linux kernel with one thread for each CPU.
 *
 * A vCPU's thread runs the guest with KVM_RUN, deals with what it comes back for (kvm_exit.c), and
 * parks on a condition while the machine is paused or its CPU has nothing to do. To get a thread
 * out of KVM_RUN another one sets immediate_exit in the run page and then sends a signal: whichever
 * side of the system call the thread is on, one of the two ends it.
 *
 * With the kernel's interrupt chips (the default) HLT, SIPI and interrupts never come here. Without
 * them (kernel-irqchip=off) our own models drive set_intr() and so on: the thread acknowledges an
 * interrupt and hands its vector to KVM when the guest can take one, and asks for an exit at that
 * moment ("interrupt window") when it cannot.
 *
 * Locks: the machine lock, then k->mutex. A thread that parks holds neither.
 *
 * Document: Linux, Documentation/virt/kvm/api.rst.
 */
#include "core/current_cpu.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/text.h"
#include "vmm/kvm_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define KICK_SIGNAL SIGUSR1

static struct kvm_engine *self(struct engine *e)
{
	return (struct kvm_engine *)e;
}

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
	int rc;

	do
		rc = ioctl(fd, request, arg);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : rc;
}

int kvm_ioctl_value(int fd, unsigned long request, unsigned long arg)
{
	int rc = ioctl(fd, request, arg);

	return rc < 0 ? -errno : rc;
}

/*
 * The vCPU threads.
 */

/* Makes a thread leave KVM_RUN, or return from the next one at once. k->mutex held. */
static void kick(struct kvm_vcpu *v)
{
	if (!v->has_thread || pthread_equal(v->thread, pthread_self()))
		return;
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	pthread_kill(v->thread, KICK_SIGNAL);
}

/* Nothing to run until someone asks. k->mutex held. */
static bool idle(const struct kvm_vcpu *v)
{
	if (v->stuck || v->activity == CPU_SHUTDOWN)
		return true;
	if (v->init)
		return false;
	if (v->activity == CPU_WAIT_SIPI)
		return !v->sipi;
	if (v->activity == CPU_HALTED)
		return !v->nmi && !(v->intr && v->run->if_flag);
	return false;
}

/* What other threads asked for since the last turn. */
struct requests {
	bool intr, nmi, init, sipi;
	bool halted; /* the CPU was in HLT until now */
	uint8_t sipi_vector;
};

/*
 * KVM_RUN. When memory slots are replaced (kvm_memory.c) there are moments at which guest memory is
 * missing; a CPU that fetches code or walks page tables then would go astray, so with several CPUs
 * the one that changes the slots keeps the others out meanwhile. None of the locks is held in here.
 */
static int enter_guest(struct kvm_vcpu *v)
{
	struct kvm_engine *k = v->k;
	int rc;

	if (k->cpus == 1)
		return ioctl(v->fd, KVM_RUN, NULL) < 0 ? -errno : 0;
	pthread_mutex_lock(&k->mutex);
	while (k->held)
		pthread_cond_wait(&k->wake, &k->mutex);
	v->inside = true;
	pthread_mutex_unlock(&k->mutex);
	rc = ioctl(v->fd, KVM_RUN, NULL) < 0 ? -errno : 0;
	pthread_mutex_lock(&k->mutex);
	v->inside = false;
	if (k->held)
		pthread_cond_broadcast(&k->quiet);
	pthread_mutex_unlock(&k->mutex);
	return rc;
}

void kvm_hold_vcpus(struct kvm_engine *k)
{
	if (k->cpus < 2)
		return;
	pthread_mutex_lock(&k->mutex);
	k->held = true;
	for (unsigned i = 0; i < k->cpus; i++)
		if (k->vcpu[i].inside)
			kick(&k->vcpu[i]);
	for (unsigned i = 0; i < k->cpus; i++)
		while (k->vcpu[i].inside)
			pthread_cond_wait(&k->quiet, &k->mutex);
	pthread_mutex_unlock(&k->mutex);
}

void kvm_release_vcpus(struct kvm_engine *k)
{
	if (k->cpus < 2)
		return;
	pthread_mutex_lock(&k->mutex);
	k->held = false;
	pthread_cond_broadcast(&k->wake);
	pthread_mutex_unlock(&k->mutex);
}

/*
 * KVM finishes the instruction behind a port or memory exit (takes the answer, moves EIP) on the
 * next KVM_RUN. Before the state is looked at or replaced that has to be done, without running
 * further: with immediate_exit set.
 */
static void finish_access(struct kvm_vcpu *v)
{
	while (v->access_open) {
		__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		int rc = enter_guest(v);
		v->access_open = false;
		kvm_handle_exit(v, rc);
	}
}

/* Parks while there is nothing to do; false at the end of the engine. */
static bool wait_for_work(struct kvm_vcpu *v, struct requests *r)
{
	struct kvm_engine *k = v->k;

	pthread_mutex_lock(&k->mutex);
	while (!k->stopping && (k->paused || idle(v))) {
		if (v->access_open) {
			pthread_mutex_unlock(&k->mutex);
			finish_access(v);
			pthread_mutex_lock(&k->mutex);
			continue;
		}
		if (!v->waiting) {
			v->waiting = true;
			pthread_cond_broadcast(&k->quiet);
		}
		pthread_cond_wait(&k->wake, &k->mutex);
	}
	v->waiting = k->stopping;
	/* Before the requests are read: one that comes later sets it again. */
	__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	*r = (struct requests){
		.intr = v->intr,
		.nmi = v->nmi,
		.init = v->init,
		.sipi = v->sipi,
		.halted = v->activity == CPU_HALTED,
		.sipi_vector = v->sipi_vector,
	};
	v->nmi = v->init = v->sipi = false;
	if (v->activity == CPU_HALTED)
		v->activity = CPU_RUNNING;
	pthread_cond_broadcast(&k->quiet);
	bool go_on = !k->stopping;
	pthread_mutex_unlock(&k->mutex);
	return go_on;
}

/*
 * Hands an interrupt to KVM if the guest can take one now; asks to be told if it cannot
 * (api.rst, 4.16 KVM_INTERRUPT and 5, ready_for_interrupt_injection). False: there was none any
 * more.
 */
static bool inject_interrupt(struct kvm_vcpu *v)
{
	struct engine_config *c = &v->k->base.config;
	struct kvm_run *run = v->run;
	struct kvm_interrupt irq;
	int vector;

	if (!run->ready_for_interrupt_injection) {
		run->request_interrupt_window = 1;
		return true;
	}
	loop_lock(c->loop);
	current_cpu = (int)v->index;
	vector = c->ack(c->opaque, v->index);
	current_cpu = -1;
	loop_unlock(c->loop);
	if (vector < 0)
		return false;
	trace(TRACE_INT, "cpu %u: interrupt %#x", v->index, (unsigned)vector);
	irq.irq = (uint32_t)vector;
	kvm_ioctl(v->fd, KVM_INTERRUPT, &irq);
	v->intr_seen++;
	/* One is on its way; another may be waiting behind it. */
	run->ready_for_interrupt_injection = 0;
	run->request_interrupt_window = __atomic_load_n(&v->intr, __ATOMIC_SEQ_CST);
	return true;
}

static void serve_requests(struct kvm_vcpu *v, const struct requests *r)
{
	if (r->init)
		kvm_cpu_init(v);
	if (r->sipi && v->activity == CPU_WAIT_SIPI)
		kvm_cpu_sipi(v, r->sipi_vector);
	if (r->nmi)
		kvm_ioctl(v->fd, KVM_NMI, NULL);
	v->run->request_interrupt_window = 0;
	if (!r->intr || v->activity != CPU_RUNNING)
		return;
	/* An interrupt that was withdrawn at the last moment does not end a HLT. */
	if (!inject_interrupt(v) && r->halted && !r->nmi && !r->init)
		v->activity = CPU_HALTED;
}

static void *vcpu_thread(void *opaque)
{
	struct kvm_vcpu *v = opaque;
	struct requests r;
	char name[16];

	snprintf(name, sizeof(name), "kvm-cpu%u", v->index);
	pthread_setname_np(pthread_self(), name);
	while (wait_for_work(v, &r)) {
		serve_requests(v, &r);
		/* INIT may have put it to sleep. */
		if (v->activity != CPU_RUNNING)
			continue;
		int rc = enter_guest(v);
		v->access_open = false;
		kvm_handle_exit(v, rc);
	}
	return NULL;
}

static void on_kick(int sig)
{
	/* Its arrival is all that matters: it interrupts the system call. */
}

static int start(struct engine *e, struct error *err)
{
	struct kvm_engine *k = self(e);
	/* KVM_RUN ends with EINTR all the same; the system calls of a device's code go on. */
	struct sigaction action = {.sa_handler = on_kick, .sa_flags = SA_RESTART};
	sigset_t all, old;
	int rc = 0;

	sigaction(KICK_SIGNAL, &action, NULL);
	/* Signals to the program are for its other threads. */
	sigfillset(&all);
	sigdelset(&all, KICK_SIGNAL);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (unsigned i = 0; i < k->cpus && rc == 0; i++) {
		rc = pthread_create(&k->vcpu[i].thread, NULL, vcpu_thread, &k->vcpu[i]);
		k->vcpu[i].has_thread = rc == 0;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc ? error_errno(err, rc, "cannot start a vCPU thread") : 0;
}

static void hold_all(struct engine *e)
{
	struct kvm_engine *k = self(e);

	pthread_mutex_lock(&k->mutex);
	k->paused = true;
	for (unsigned i = 0; i < k->cpus; i++) {
		struct kvm_vcpu *v = &k->vcpu[i];
		if (v->has_thread && !v->waiting)
			kick(v);
	}
	pthread_mutex_unlock(&k->mutex);
}

static void pause_all(struct engine *e)
{
	struct kvm_engine *k = self(e);

	hold_all(e);
	loop_unlock(e->config.loop);
	pthread_mutex_lock(&k->mutex);
	for (unsigned i = 0; i < k->cpus; i++)
		while (k->vcpu[i].has_thread && !k->vcpu[i].waiting)
			pthread_cond_wait(&k->quiet, &k->mutex);
	pthread_mutex_unlock(&k->mutex);
	loop_lock(e->config.loop);
	kvm_flush_coalesced(k);
	kvm_clocks_stop(k);
}

static void resume_all(struct engine *e)
{
	struct kvm_engine *k = self(e);

	kvm_memory_sync(k);
	kvm_clocks_start(k);
	pthread_mutex_lock(&k->mutex);
	k->paused = false;
	pthread_cond_broadcast(&k->wake);
	pthread_mutex_unlock(&k->mutex);
}

/*
 * Signals from our interrupt controller models, and NMI.
 */

static struct kvm_vcpu *vcpu_of(struct engine *e, unsigned cpu)
{
	return cpu < self(e)->cpus ? &self(e)->vcpu[cpu] : NULL;
}

static void wake_up(struct kvm_vcpu *v)
{
	if (v->waiting)
		pthread_cond_broadcast(&v->k->wake);
	else
		kick(v);
}

static void set_intr(struct engine *e, unsigned cpu, bool level)
{
	struct kvm_vcpu *v = vcpu_of(e, cpu);

	if (!v)
		return;
	pthread_mutex_lock(&v->k->mutex);
	bool rises = level && !v->intr;
	v->intr = level;
	if (rises)
		wake_up(v);
	pthread_mutex_unlock(&v->k->mutex);
}

static void request_nmi(struct engine *e, unsigned cpu)
{
	struct kvm_vcpu *v = vcpu_of(e, cpu);

	if (!v)
		return;
	pthread_mutex_lock(&v->k->mutex);
	v->nmi = true;
	wake_up(v);
	pthread_mutex_unlock(&v->k->mutex);
}

static void request_init(struct engine *e, unsigned cpu)
{
	struct kvm_vcpu *v = vcpu_of(e, cpu);

	if (!v)
		return;
	pthread_mutex_lock(&v->k->mutex);
	v->init = true;
	v->sipi = false; /* one from before is void */
	wake_up(v);
	pthread_mutex_unlock(&v->k->mutex);
}

static void request_sipi(struct engine *e, unsigned cpu, uint8_t vector)
{
	struct kvm_vcpu *v = vcpu_of(e, cpu);

	if (!v)
		return;
	pthread_mutex_lock(&v->k->mutex);
	v->sipi = true;
	v->sipi_vector = vector;
	wake_up(v);
	pthread_mutex_unlock(&v->k->mutex);
}

/*
 * State, translation, description.
 */

static int get_state(struct engine *e, unsigned cpu, struct cpu_state *s, struct error *err)
{
	struct kvm_vcpu *v = vcpu_of(e, cpu);

	return v ? kvm_get_state(v, s, err) : error_set(err, EINVAL, "there is no CPU %u", cpu);
}

static int set_state(struct engine *e, unsigned cpu, const struct cpu_state *s, struct error *err)
{
	struct kvm_vcpu *v = vcpu_of(e, cpu);

	if (!v)
		return error_set(err, EINVAL, "there is no CPU %u", cpu);
	/* With PAE the kernel reads the page directory pointers from guest memory. */
	if ((s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE))
		kvm_memory_sync(v->k);
	pthread_mutex_lock(&v->k->mutex);
	v->nmi = v->init = v->sipi = false;
	v->apic_base = s->apic_base;
	int rc = kvm_set_state(v, s, err);
	pthread_mutex_unlock(&v->k->mutex);
	return rc;
}

static bool has_irqchip(struct engine *e)
{
	return self(e)->irqchip;
}

static int translate(struct engine *e, unsigned cpu, uint32_t va, uint64_t *gpa)
{
	struct kvm_vcpu *v = vcpu_of(e, cpu);
	struct kvm_translation t = {.linear_address = va};

	if (v)
		kvm_memory_sync(v->k);
	if (!v || kvm_ioctl(v->fd, KVM_TRANSLATE, &t) < 0 || !t.valid)
		return -EFAULT;
	*gpa = t.physical_address;
	return 0;
}

static void describe(struct engine *e, struct strbuf *out)
{
	struct kvm_engine *k = self(e);
	unsigned slots = 0;

	for (unsigned i = 0; i < KVM_SLOTS_MAX; i++)
		slots += k->slot[i].size != 0;
	strbuf_printf(out,
		      "kvm: %u CPUs, interrupt chips %s, %u memory slots, %u coalesced ranges\n",
		      k->cpus, k->irqchip ? "in the kernel" : "our own", slots, k->zones);
	strbuf_printf(out, "doorbells in the kernel %u, interrupt messages routed %u\n",
		      k->doorbells, k->routes);
	for (unsigned i = 0; i < k->cpus; i++) {
		const struct kvm_vcpu *v = &k->vcpu[i];
		strbuf_printf(out, "cpu %u exits:", i);
		for (unsigned r = 0; r < ARRAY_SIZE(v->exits); r++)
			if (v->exits[r])
				strbuf_printf(out, " %s %" PRIu64, kvm_exit_name(r), v->exits[r]);
		if (v->intr_seen)
			strbuf_printf(out, "; interrupts injected %u", v->intr_seen);
		strbuf_puts(out, "\n");
	}
}

/*
 * Construction.
 */

static void free_engine(struct engine *e)
{
	struct kvm_engine *k = self(e);

	if (k->sync_ready) {
		/* A thread may be in a device's callback, which needs the lock to end. */
		bool locked = loop_locked_by_me(e->config.loop);
		if (locked)
			loop_unlock(e->config.loop);
		pthread_mutex_lock(&k->mutex);
		k->stopping = true;
		pthread_cond_broadcast(&k->wake);
		for (unsigned i = 0; i < k->cpus; i++)
			kick(&k->vcpu[i]);
		pthread_mutex_unlock(&k->mutex);
		for (unsigned i = 0; i < k->cpus; i++)
			if (k->vcpu[i].has_thread)
				pthread_join(k->vcpu[i].thread, NULL);
		if (locked)
			loop_lock(e->config.loop);
		pthread_mutex_destroy(&k->mutex);
		pthread_cond_destroy(&k->wake);
		pthread_cond_destroy(&k->quiet);
	}
	kvm_memory_fini(k);
	for (unsigned i = 0; i < k->cpus; i++) {
		if (k->vcpu[i].run)
			munmap(k->vcpu[i].run, k->run_size);
		if (k->vcpu[i].fd >= 0)
			close(k->vcpu[i].fd);
	}
	if (k->vm_fd >= 0)
		close(k->vm_fd);
	if (k->kvm_fd >= 0)
		close(k->kvm_fd);
	free(k->vcpu);
	free(k->lapic);
	free(k->route);
	free(k->supported_cpuid);
	free(k);
}

static const struct engine_ops kvm_ops = {
	.name = "kvm",
	.free = free_engine,
	.start = start,
	.hold = hold_all,
	.pause = pause_all,
	.resume = resume_all,
	.set_intr = set_intr,
	.nmi = request_nmi,
	.init = request_init,
	.sipi = request_sipi,
	.get_state = get_state,
	.set_state = set_state,
	.has_irqchip = has_irqchip,
	.irqchip_set_gsi = kvm_irqchip_set_gsi,
	.irqchip_reset = kvm_irqchip_reset,
	.irqchip_msi = kvm_irqchip_msi,
	.msi_route = kvm_msi_route,
	.msi_unroute = kvm_msi_unroute,
	.doorbell = kvm_doorbell,
	.translate = translate,
	.describe = describe,
};

static bool capable(struct kvm_engine *k, int capability)
{
	return kvm_ioctl_value(k->kvm_fd, KVM_CHECK_EXTENSION, (unsigned long)capability) > 0;
}

static int open_kvm(struct kvm_engine *k, struct error *err)
{
	int rc;

	rc = kvm_check_access(err);
	if (rc < 0)
		return rc;
	k->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (k->kvm_fd < 0)
		return error_errno(err, errno, "cannot open /dev/kvm");
	rc = kvm_ioctl_value(k->kvm_fd, KVM_GET_API_VERSION, 0);
	if (rc != KVM_API_VERSION)
		return error_set(err, ENOTSUP, "/dev/kvm has interface version %d instead of %d",
				 rc, KVM_API_VERSION);
	if (!capable(k, KVM_CAP_IMMEDIATE_EXIT) || !capable(k, KVM_CAP_USER_MEMORY))
		return error_set(err, ENOTSUP, "this kernel's KVM is too old; use -accel soft");
	rc = kvm_ioctl_value(k->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
	if (rc > 0 && k->base.config.cpus > (unsigned)rc)
		return error_set(err, EINVAL, "KVM here runs at most %d CPUs", rc);
	k->vcpu_events = capable(k, KVM_CAP_VCPU_EVENTS);
	k->debugregs = capable(k, KVM_CAP_DEBUGREGS);
	k->xsave = capable(k, KVM_CAP_XSAVE);
	k->kvmclock_ctrl = capable(k, KVM_CAP_KVMCLOCK_CTRL);
	k->adjust_clock = capable(k, KVM_CAP_ADJUST_CLOCK);
	k->ioeventfd = capable(k, KVM_CAP_IOEVENTFD);
	k->ioeventfd_any = capable(k, KVM_CAP_IOEVENTFD_ANY_LENGTH);
	k->irqfd = capable(k, KVM_CAP_IRQFD) && capable(k, KVM_CAP_SIGNAL_MSI);
	k->smm = capable(k, KVM_CAP_X86_SMM);
	k->tsc_deadline = capable(k, KVM_CAP_TSC_DEADLINE_TIMER);
	return 0;
}

/* api.rst, 4.40: the identity map's place is told before the first CPU is made. */
static int place_own_pages(struct kvm_engine *k, struct error *err)
{
	uint64_t identity = KVM_IDENTITY_MAP_ADDR;
	int rc = 0;

	if (capable(k, KVM_CAP_SET_IDENTITY_MAP_ADDR))
		rc = kvm_ioctl(k->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	if (rc >= 0 && capable(k, KVM_CAP_SET_TSS_ADDR))
		rc = kvm_ioctl_value(k->vm_fd, KVM_SET_TSS_ADDR, KVM_TSS_ADDR);
	return rc < 0 ? error_errno(err, -rc, "KVM finds no place for its own pages at %#llx",
				    (unsigned long long)KVM_IDENTITY_MAP_ADDR)
		      : 0;
}

static int create_vm(struct kvm_engine *k, struct error *err)
{
	do
		k->vm_fd = ioctl(k->kvm_fd, KVM_CREATE_VM, 0UL);
	while (k->vm_fd < 0 && errno == EINTR);
	if (k->vm_fd < 0 && errno == EBUSY)
		return error_errno(err, errno,
				   "KVM cannot make a virtual machine while another hypervisor "
				   "(VirtualBox, VMware) holds the processor's virtualisation");
	if (k->vm_fd < 0)
		return error_errno(err, errno, "KVM cannot make a virtual machine");
	return place_own_pages(k, err);
}

static int create_vcpu(struct kvm_engine *k, unsigned index, struct error *err)
{
	struct kvm_vcpu *v = &k->vcpu[index];
	void *run;
	int rc;

	v->k = k;
	v->index = index;
	v->fd = kvm_ioctl_value(k->vm_fd, KVM_CREATE_VCPU, index);
	k->cpus = index + 1;
	if (v->fd < 0)
		return error_errno(err, -v->fd, "KVM cannot make CPU %u", index);
	run = mmap(NULL, k->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (run == MAP_FAILED)
		return error_errno(err, errno, "cannot map the run page of CPU %u", index);
	v->run = run;
	rc = kvm_set_cpuid(k, v, err);
	if (rc < 0)
		return rc;
	if (index == 0 && k->ring_page && k->run_size >= ((size_t)k->ring_page + 1) * 4096)
		k->ring = (struct kvm_coalesced_mmio_ring *)((uint8_t *)run +
							     (size_t)k->ring_page * 4096);
	return 0;
}

static int create_vcpus(struct kvm_engine *k, struct error *err)
{
	int size = kvm_ioctl_value(k->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

	if (size < (int)sizeof(struct kvm_run))
		return error_set(err, ENOTSUP, "KVM does not say how large a CPU's run page is");
	k->run_size = (size_t)size;
	k->vcpu = xcalloc(k->base.config.cpus, sizeof(*k->vcpu));
	for (unsigned i = 0; i < k->base.config.cpus; i++) {
		int rc = create_vcpu(k, i, err);
		if (rc < 0)
			return rc;
	}
	kvm_msrs_init(k);
	return 0;
}

static int build(struct kvm_engine *k, struct error *err)
{
	int rc = open_kvm(k, err);

	if (rc < 0)
		return rc;
	rc = create_vm(k, err);
	if (rc < 0)
		return rc;
	if (k->base.config.kernel_irqchip) {
		rc = kvm_irqchip_create(k, err);
		if (rc < 0)
			return rc;
		k->irqchip = true;
	}
	rc = kvm_memory_init(k, err);
	if (rc < 0)
		return rc;
	rc = create_vcpus(k, err);
	if (rc < 0)
		return rc;
	return k->irqchip ? kvm_irqchip_snapshot(k, err) : 0;
}

struct engine *engine_new_kvm(const struct engine_config *config, struct error *err)
{
	struct kvm_engine *k = xcalloc(1, sizeof(*k));
	struct error local = ERROR_INIT;

	k->base.ops = &kvm_ops;
	k->base.config = *config;
	k->kvm_fd = k->vm_fd = -1;
	k->paused = true;
	pthread_mutex_init(&k->mutex, NULL);
	pthread_cond_init(&k->wake, NULL);
	pthread_cond_init(&k->quiet, NULL);
	k->sync_ready = true;
	if (build(k, err ? err : &local) < 0) {
		free_engine(&k->base);
		return NULL;
	}
	return &k->base;
}
