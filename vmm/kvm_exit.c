/* SPDX-License-Identifier: MIT */
/*
 * What KVM_RUN comes back for: port and memory accesses go to the buses, a triple fault and errors
 * that cannot be handled to the machine.
 *
 * Document: Linux, Documentation/virt/kvm/api.rst, 5 "The kvm_run structure".
 */
#include "core/current_cpu.h"
#include "core/iobus.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "vmm/kvm_internal.h"
#include <errno.h>
#include <stdio.h>

static const char *const exit_names[] = {
	[KVM_EXIT_UNKNOWN] = "unknown",
	[KVM_EXIT_EXCEPTION] = "exception",
	[KVM_EXIT_IO] = "io",
	[KVM_EXIT_HYPERCALL] = "hypercall",
	[KVM_EXIT_DEBUG] = "debug",
	[KVM_EXIT_HLT] = "hlt",
	[KVM_EXIT_MMIO] = "mmio",
	[KVM_EXIT_IRQ_WINDOW_OPEN] = "irq-window",
	[KVM_EXIT_SHUTDOWN] = "shutdown",
	[KVM_EXIT_FAIL_ENTRY] = "fail-entry",
	[KVM_EXIT_INTR] = "interrupted",
	[KVM_EXIT_SET_TPR] = "set-tpr",
	[KVM_EXIT_TPR_ACCESS] = "tpr-access",
	[KVM_EXIT_NMI] = "nmi",
	[KVM_EXIT_INTERNAL_ERROR] = "internal-error",
	[KVM_EXIT_SYSTEM_EVENT] = "system-event",
};

const char *kvm_exit_name(unsigned reason)
{
	return reason < ARRAY_SIZE(exit_names) && exit_names[reason] ? exit_names[reason] : "other";
}

static void handle_io(struct kvm_vcpu *v)
{
	struct kvm_run *run = v->run;
	struct iobus *io = v->k->base.config.io;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	unsigned size = run->io.size;
	bool in = run->io.direction == KVM_EXIT_IO_IN;

	if (run->io.count > 1) {
		if (in)
			iobus_read_block(io, run->io.port, size, data, run->io.count);
		else
			iobus_write_block(io, run->io.port, size, data, run->io.count);
	} else if (in) {
		store_le(data, iobus_read(io, run->io.port, size), size);
	} else {
		iobus_write(io, run->io.port, size, (uint32_t)load_le(data, size));
	}
}

static void handle_mmio(struct kvm_vcpu *v)
{
	struct kvm_run *run = v->run;
	struct memory *mem = v->k->base.config.mem;
	unsigned len = run->mmio.len <= 8 ? run->mmio.len : 8;
	uint64_t gpa = run->mmio.phys_addr;
	bool whole = is_power_of_2(len);

	if (!memory_a20(mem))
		gpa &= ~UINT64_C(0x100000);
	if (run->mmio.is_write && whole)
		mem_mmio_write(mem, gpa, len, load_le(run->mmio.data, len));
	else if (run->mmio.is_write)
		mem_write(mem, gpa, run->mmio.data, len);
	else if (whole)
		store_le(run->mmio.data, mem_mmio_read(mem, gpa, len), len);
	else
		mem_read(mem, gpa, run->mmio.data, len);
}

/* The bytes at CS:EIP, as far as they are mapped. */
static void print_code(struct kvm_vcpu *v, const struct cpu_state *s, struct strbuf *out)
{
	enum { BYTES = 16 };

	strbuf_printf(out, "code at %08x:", s->seg[S_CS].base + s->eip);
	for (unsigned i = 0; i < BYTES; i++) {
		struct kvm_translation t = {.linear_address =
						    (uint32_t)(s->seg[S_CS].base + s->eip + i)};
		uint8_t byte;
		if (kvm_ioctl(v->fd, KVM_TRANSLATE, &t) < 0 || !t.valid ||
		    !mem_read(v->k->base.config.mem, t.physical_address, &byte, 1)) {
			strbuf_puts(out, " ??");
			break;
		}
		strbuf_printf(out, " %02x", byte);
	}
	strbuf_puts(out, "\n");
}

void kvm_report(struct kvm_vcpu *v, const char *what, struct strbuf *out)
{
	struct cpu_state s;
	struct error err = ERROR_INIT;

	strbuf_printf(out, "KVM cannot go on with CPU %u: %s\n", v->index, what);
	if (kvm_get_state(v, &s, &err) < 0) {
		strbuf_printf(out, "%s\n", err.text);
		return;
	}
	cpu_state_print(&s, out);
	print_code(v, &s, out);
}

static void internal_error(struct kvm_vcpu *v, const char *what)
{
	struct engine_config *c = &v->k->base.config;
	struct strbuf detail = STRBUF_INIT;

	kvm_report(v, what, &detail);
	pthread_mutex_lock(&v->k->mutex);
	v->stuck = true;
	pthread_mutex_unlock(&v->k->mutex);
	c->event(c->opaque, v->index, ENGINE_INTERNAL_ERROR, strbuf_str(&detail));
	strbuf_free(&detail);
}

static void handle_internal_error(struct kvm_vcpu *v)
{
	const struct kvm_run *run = v->run;
	static const char *const sub[] = {
		[KVM_INTERNAL_ERROR_EMULATION] = "it cannot emulate this instruction",
		[KVM_INTERNAL_ERROR_SIMUL_EX] = "exceptions at the same time",
		[KVM_INTERNAL_ERROR_DELIVERY_EV] = "an event could not be delivered",
		[KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "the processor left the guest for a "
							      "reason that KVM does not know",
	};
	unsigned code = run->internal.suberror;
	struct strbuf what = STRBUF_INIT;

	strbuf_printf(&what, "internal error %u (%s)", code,
		      code < ARRAY_SIZE(sub) && sub[code] ? sub[code] : "unknown");
	for (unsigned i = 0; i < run->internal.ndata && i < 16; i++)
		strbuf_printf(&what, "%s%#llx", i ? " " : ", data ",
			      (unsigned long long)run->internal.data[i]);
	internal_error(v, strbuf_str(&what));
	strbuf_free(&what);
}

static void triple_fault(struct kvm_vcpu *v)
{
	struct engine_config *c = &v->k->base.config;

	pthread_mutex_lock(&v->k->mutex);
	v->activity = CPU_SHUTDOWN;
	pthread_mutex_unlock(&v->k->mutex);
	c->event(c->opaque, v->index, ENGINE_TRIPLE_FAULT, "triple fault");
}

static void dispatch(struct kvm_vcpu *v)
{
	struct kvm_run *run = v->run;
	struct engine_config *c = &v->k->base.config;
	char what[128];

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		v->access_open = true;
		handle_io(v);
		break;
	case KVM_EXIT_MMIO:
		v->access_open = true;
		handle_mmio(v);
		break;
	case KVM_EXIT_SHUTDOWN: triple_fault(v); break;
	case KVM_EXIT_HLT:
		pthread_mutex_lock(&v->k->mutex);
		v->activity = CPU_HALTED;
		pthread_mutex_unlock(&v->k->mutex);
		break;
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_INTR:
	case KVM_EXIT_SET_TPR: break;
	case KVM_EXIT_DEBUG:
		pthread_mutex_lock(&v->k->mutex);
		v->stuck = true;
		pthread_mutex_unlock(&v->k->mutex);
		c->event(c->opaque, v->index, ENGINE_BREAKPOINT, "breakpoint");
		break;
	case KVM_EXIT_INTERNAL_ERROR: handle_internal_error(v); break;
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(what, sizeof(what), "entering the guest failed, hardware reason %#llx",
			 (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		internal_error(v, what);
		break;
	case KVM_EXIT_UNKNOWN:
		snprintf(what, sizeof(what), "exit for an unknown hardware reason %#llx",
			 (unsigned long long)run->hw.hardware_exit_reason);
		internal_error(v, what);
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		snprintf(what, sizeof(what), "system event %u", run->system_event.type);
		internal_error(v, what);
		break;
	default:
		snprintf(what, sizeof(what), "exit %u (%s) is not known", run->exit_reason,
			 kvm_exit_name(run->exit_reason));
		internal_error(v, what);
		break;
	}
}

/* The guest moved its local APIC; KVM says so in the run page when the APIC is not its own. */
static void check_apic_base(struct kvm_vcpu *v)
{
	struct engine_config *c = &v->k->base.config;

	if (v->k->irqchip || v->run->apic_base == v->apic_base)
		return;
	v->apic_base = v->run->apic_base;
	if (c->apic_base_changed)
		c->apic_base_changed(c->opaque, v->index, v->apic_base);
}

void kvm_handle_exit(struct kvm_vcpu *v, int rc)
{
	struct kvm_engine *k = v->k;
	struct loop *loop = k->base.config.loop;
	char what[128];

	if (rc == -EINTR || rc == -EAGAIN)
		return;
	if (rc == 0) {
		v->exits[v->run->exit_reason < ARRAY_SIZE(v->exits) ? v->run->exit_reason : 0]++;
		if (v->run->exit_reason == KVM_EXIT_INTR)
			return;
		trace(TRACE_KVM, "cpu %u: exit %s", v->index, kvm_exit_name(v->run->exit_reason));
	}
	loop_lock(loop);
	current_cpu = (int)v->index;
	kvm_flush_coalesced(k);
	check_apic_base(v);
	if (rc == 0) {
		dispatch(v);
	} else {
		snprintf(what, sizeof(what), "KVM_RUN failed: %s", strerror(-rc));
		internal_error(v, what);
	}
	current_cpu = -1;
	loop_unlock(loop);
}
