/* SPDX-License-Identifier: MIT */
/*
 * The processor state under KVM: struct cpu_state to and from the kernel's pieces (general
 * registers, special registers, FPU, debug registers, MSRs, events, activity).
 *
 * Only MSRs that the kernel lists, and lets be read, are transferred. Some kernels refuse to set
 * one that they list; such an MSR is noted, said once in the trace, and left alone from then on.
 *
 * A TSC of 0 (reset) is not taken literally: the kernel takes it, as it takes a value within a
 * second of the other CPUs', for a wish to have all TSCs agree, and they go on counting.
 *
 * Documents: Linux, Documentation/virt/kvm/api.rst: 4.11 to 4.14 KVM_GET/SET_REGS and SREGS, 4.18
 * and 4.19 KVM_GET/SET_MSRS, 4.31 and 4.32 KVM_GET/SET_VCPU_EVENTS, 4.33 and 4.34
 * KVM_GET/SET_DEBUGREGS, 4.38 and 4.39 KVM_GET/SET_MP_STATE, 4.42 and 4.43 KVM_GET/SET_XSAVE; SDM
 * vol. 1, 10.5.1 (FXSAVE), vol. 3A, 8.4 and 9.1 (INIT, SIPI), vol. 4 (MSR numbers).
 */
#include "lib/bytes.h"
#include "lib/log.h"
#include "vmm/kvm_internal.h"
#include <errno.h>
#include <stdlib.h>

enum {
	MSR_TSC = 0x10,
	MSR_SYSENTER_CS = 0x174,
	MSR_SYSENTER_ESP = 0x175,
	MSR_SYSENTER_EIP = 0x176,
	MSR_MISC_ENABLE = 0x1a0,
	MSR_MTRR_PHYS_BASE0 = 0x200,
	MSR_MTRR_FIX64K = 0x250,
	MSR_MTRR_FIX16K_80000 = 0x258,
	MSR_MTRR_FIX16K_A0000 = 0x259,
	MSR_MTRR_FIX4K_C0000 = 0x268,
	MSR_PAT = 0x277,
	MSR_MTRR_DEF_TYPE = 0x2ff,
	MTRR_PHYS_COUNT = 16, /* bases and masks */
	MTRR_FIXED_4K_COUNT = 8,
	LIST_MAX = 1024,
};

enum { XMM_REGS_32BIT = 8 };

/*
 * MSRs.
 */

union msr_batch {
	struct kvm_msrs list;
	uint8_t bytes[sizeof(struct kvm_msrs) + KVM_MSRS_MAX * sizeof(struct kvm_msr_entry)];
};

static bool msr_readable(struct kvm_engine *k, uint32_t index)
{
	union msr_batch b = {.list.nmsrs = 1};

	b.list.entries[0].index = index;
	return kvm_ioctl(k->vcpu[0].fd, KVM_GET_MSRS, &b) == 1;
}

static void want_msr(struct kvm_engine *k, const struct kvm_msr_list *list, uint32_t index)
{
	/* The MTRRs exist wherever the model has them; older kernels do not list them. */
	bool mtrr = index >= MSR_MTRR_PHYS_BASE0 && index <= MSR_MTRR_DEF_TYPE && index != MSR_PAT;
	bool listed = false;

	for (uint32_t i = 0; i < list->nmsrs; i++)
		listed |= list->indices[i] == index;
	if ((listed || mtrr) && k->msrs < KVM_MSRS_MAX && msr_readable(k, index))
		k->msr[k->msrs++] = index;
}

void kvm_msrs_init(struct kvm_engine *k)
{
	static const uint32_t plain[] = {
		MSR_TSC,           MSR_SYSENTER_CS,        MSR_SYSENTER_ESP,
		MSR_SYSENTER_EIP,  MSR_MISC_ENABLE,        MSR_PAT,
		MSR_MTRR_FIX64K,   MSR_MTRR_FIX16K_80000,  MSR_MTRR_FIX16K_A0000,
		MSR_MTRR_DEF_TYPE, MSR_KVM_WALL_CLOCK_NEW, MSR_KVM_SYSTEM_TIME_NEW,
	};
	union {
		struct kvm_msr_list list;
		uint8_t bytes[sizeof(struct kvm_msr_list) + LIST_MAX * sizeof(uint32_t)];
	} all = {.list.nmsrs = LIST_MAX};

	if (kvm_ioctl(k->kvm_fd, KVM_GET_MSR_INDEX_LIST, &all) < 0)
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(plain); i++)
		want_msr(k, &all.list, plain[i]);
	for (uint32_t i = 0; i < MTRR_PHYS_COUNT; i++)
		want_msr(k, &all.list, MSR_MTRR_PHYS_BASE0 + i);
	for (uint32_t i = 0; i < MTRR_FIXED_4K_COUNT; i++)
		want_msr(k, &all.list, MSR_MTRR_FIX4K_C0000 + i);
}

/* Where an MSR is kept; `narrow` is set instead for 32-bit members. */
static uint64_t *msr_place(struct cpu_state *s, uint32_t index, uint32_t **narrow)
{
	*narrow = NULL;
	switch (index) {
	case MSR_TSC: return &s->tsc;
	case MSR_SYSENTER_CS: *narrow = &s->sysenter_cs; return NULL;
	case MSR_SYSENTER_ESP: *narrow = &s->sysenter_esp; return NULL;
	case MSR_SYSENTER_EIP: *narrow = &s->sysenter_eip; return NULL;
	case MSR_MISC_ENABLE: return &s->misc_enable;
	case MSR_PAT: return &s->pat;
	case MSR_MTRR_DEF_TYPE: return &s->mtrr_def_type;
	case MSR_KVM_WALL_CLOCK_NEW: return &s->kvm_wall_clock;
	case MSR_KVM_SYSTEM_TIME_NEW: return &s->kvm_system_time;
	case MSR_MTRR_FIX64K: return &s->mtrr_fixed[0];
	case MSR_MTRR_FIX16K_80000: return &s->mtrr_fixed[1];
	case MSR_MTRR_FIX16K_A0000: return &s->mtrr_fixed[2];
	default: break;
	}
	if (index >= MSR_MTRR_FIX4K_C0000)
		return &s->mtrr_fixed[3 + (index - MSR_MTRR_FIX4K_C0000) % MTRR_FIXED_4K_COUNT];
	return &s->mtrr_phys[(index - MSR_MTRR_PHYS_BASE0) % MTRR_PHYS_COUNT];
}

static void get_msrs(struct kvm_vcpu *v, struct cpu_state *s)
{
	struct kvm_engine *k = v->k;
	union msr_batch b = {.list.nmsrs = k->msrs};
	uint32_t *narrow;

	for (unsigned i = 0; i < k->msrs; i++)
		b.list.entries[i].index = k->msr[i];
	int got = kvm_ioctl(v->fd, KVM_GET_MSRS, &b);
	for (int i = 0; i < got; i++) {
		uint64_t *wide = msr_place(s, b.list.entries[i].index, &narrow);
		if (wide)
			*wide = b.list.entries[i].data;
		else
			*narrow = (uint32_t)b.list.entries[i].data;
	}
}

static void set_msrs(struct kvm_vcpu *v, const struct cpu_state *state)
{
	struct kvm_engine *k = v->k;
	struct cpu_state *s = (struct cpu_state *)state; /* msr_place() serves both directions */
	union msr_batch b = {.list.nmsrs = 0};
	unsigned which[KVM_MSRS_MAX], done = 0;
	uint32_t *narrow;

	for (unsigned i = 0; i < k->msrs; i++) {
		uint64_t *wide = msr_place(s, k->msr[i], &narrow);
		if (k->msr_unsettable[i])
			continue;
		which[b.list.nmsrs] = i;
		b.list.entries[b.list.nmsrs++] =
			(struct kvm_msr_entry){.index = k->msr[i], .data = wide ? *wide : *narrow};
	}
	/* The kernel stops at the first one that it refuses: go on behind it. */
	while (done < b.list.nmsrs) {
		union msr_batch rest = {.list.nmsrs = b.list.nmsrs - done};
		memcpy(rest.list.entries, b.list.entries + done,
		       rest.list.nmsrs * sizeof(rest.list.entries[0]));
		int n = kvm_ioctl(v->fd, KVM_SET_MSRS, &rest);
		if (n < 0)
			return;
		done += (unsigned)n;
		if (done < b.list.nmsrs) {
			k->msr_unsettable[which[done]] = true;
			trace(TRACE_KVM, "KVM refuses to set MSR %#x", b.list.entries[done].index);
			done++;
		}
	}
}

/*
 * Segments and tables.
 */

static struct cpu_segment segment_from_kvm(const struct kvm_segment *k)
{
	bool present = k->present && !k->unusable;

	return (struct cpu_segment){
		.selector = k->selector,
		.base = (uint32_t)k->base,
		.limit = k->limit,
		.attr = (uint16_t)((k->type & SEG_TYPE) | (k->s ? SEG_S : 0) |
				   (k->dpl & 3) << SEG_DPL_SHIFT | (present ? SEG_P : 0) |
				   (k->avl ? SEG_AVL : 0) | (k->l ? SEG_L : 0) |
				   (k->db ? SEG_DB : 0) | (k->g ? SEG_G : 0)),
	};
}

static struct kvm_segment segment_to_kvm(const struct cpu_segment *s)
{
	/* Entry to the guest fails with a code or data segment that was never accessed (SDM vol.
	 * 3C, 26.3.1.2); one that is in a segment register has been. */
	bool accessed = (s->attr & SEG_S) && (s->attr & SEG_P);

	return (struct kvm_segment){
		.selector = s->selector,
		.base = s->base,
		.limit = s->limit,
		.type = (s->attr & SEG_TYPE) | (accessed ? SEG_ACCESSED : 0),
		.s = !!(s->attr & SEG_S),
		.dpl = (s->attr & SEG_DPL) >> SEG_DPL_SHIFT,
		.present = !!(s->attr & SEG_P),
		.avl = !!(s->attr & SEG_AVL),
		.l = !!(s->attr & SEG_L),
		.db = !!(s->attr & SEG_DB),
		.g = !!(s->attr & SEG_G),
		.unusable = !(s->attr & SEG_P),
	};
}

static void sregs_get(const struct kvm_sregs *r, struct cpu_state *s)
{
	const struct kvm_segment *const seg[6] = {&r->es, &r->cs, &r->ss, &r->ds, &r->fs, &r->gs};

	for (int i = 0; i < 6; i++)
		s->seg[i] = segment_from_kvm(seg[i]);
	s->ldt = segment_from_kvm(&r->ldt);
	s->tr = segment_from_kvm(&r->tr);
	s->gdt = (struct cpu_table){(uint32_t)r->gdt.base, r->gdt.limit};
	s->idt = (struct cpu_table){(uint32_t)r->idt.base, r->idt.limit};
	s->cr0 = (uint32_t)r->cr0;
	s->cr2 = (uint32_t)r->cr2;
	s->cr3 = (uint32_t)r->cr3;
	s->cr4 = (uint32_t)r->cr4;
	s->efer = r->efer;
	s->apic_base = r->apic_base;
}

static void sregs_set(struct kvm_sregs *r, const struct cpu_state *s)
{
	struct kvm_segment *const seg[6] = {&r->es, &r->cs, &r->ss, &r->ds, &r->fs, &r->gs};
	enum { TSS32_AVAILABLE = 9, TSS_BUSY_BIT = 2 };

	for (int i = 0; i < 6; i++)
		*seg[i] = segment_to_kvm(&s->seg[i]);
	r->ldt = segment_to_kvm(&s->ldt);
	r->tr = segment_to_kvm(&s->tr);
	/* Virtualisation hardware insists on a task register with a busy TSS in it (SDM vol. 3C,
	 * 26.3.1.2). */
	if (r->tr.unusable) {
		r->tr.unusable = 0;
		r->tr.present = 1;
		r->tr.s = 0;
		r->tr.type = TSS32_AVAILABLE;
	}
	r->tr.type |= TSS_BUSY_BIT;
	r->gdt.base = s->gdt.base;
	r->gdt.limit = s->gdt.limit;
	r->idt.base = s->idt.base;
	r->idt.limit = s->idt.limit;
	r->cr0 = s->cr0;
	r->cr2 = s->cr2;
	r->cr3 = s->cr3;
	r->cr4 = s->cr4;
	r->efer = s->efer;
	r->apic_base = s->apic_base;
	memset(r->interrupt_bitmap, 0, sizeof(r->interrupt_bitmap));
}

/* PAE's four page directory pointers, as CR3 points at them. */
static void read_pdptes(struct kvm_vcpu *v, struct cpu_state *s)
{
	memset(s->pdpte, 0, sizeof(s->pdpte));
	if ((s->cr0 & CR0_PG) && (s->cr4 & CR4_PAE))
		mem_read(v->k->base.config.mem, s->cr3 & ~UINT32_C(31), s->pdpte, sizeof(s->pdpte));
}

/*
 * FPU and SSE.
 */

static void fpu_get(const struct kvm_fpu *f, uint8_t *x)
{
	memset(x, 0, 512);
	store_le16(x + FX_CW, f->fcw);
	store_le16(x + FX_SW, f->fsw);
	x[FX_TAGS] = f->ftwx;
	store_le16(x + FX_FOP, f->last_opcode);
	store_le32(x + FX_FIP, (uint32_t)f->last_ip);
	store_le32(x + FX_FDP, (uint32_t)f->last_dp);
	store_le32(x + FX_MXCSR, f->mxcsr);
	store_le32(x + FX_MXCSR_MASK, 0xffff);
	for (int i = 0; i < 8; i++)
		memcpy(x + FX_ST + 16 * i, f->fpr[i], 10);
	memcpy(x + FX_XMM, f->xmm, 16 * XMM_REGS_32BIT);
}

static void fpu_set(struct kvm_fpu *f, const uint8_t *x)
{
	memset(f, 0, sizeof(*f));
	f->fcw = load_le16(x + FX_CW);
	f->fsw = load_le16(x + FX_SW);
	f->ftwx = x[FX_TAGS];
	f->last_opcode = load_le16(x + FX_FOP);
	f->last_ip = load_le32(x + FX_FIP);
	f->last_dp = load_le32(x + FX_FDP);
	f->mxcsr = load_le32(x + FX_MXCSR);
	for (int i = 0; i < 8; i++)
		memcpy(f->fpr[i], x + FX_ST + 16 * i, 10);
	memcpy(f->xmm, x + FX_XMM, 16 * XMM_REGS_32BIT);
}

/*
 * KVM_GET_FPU and KVM_SET_FPU leave MXCSR out, so the XSAVE image serves where the kernel has it:
 * its legacy area is an FXSAVE image (SDM vol. 1, 13.4.1), and XSTATE_BV behind that says which
 * parts are not in their initial state.
 */
enum { XSTATE_BV = 512, XSTATE_X87_SSE = 3, MXCSR_VALID = 0xffff };

static int fpu_read(struct kvm_vcpu *v, uint8_t *x)
{
	struct kvm_xsave image;
	struct kvm_fpu fpu;
	int rc;

	if (!v->k->xsave) {
		rc = kvm_ioctl(v->fd, KVM_GET_FPU, &fpu);
		if (rc == 0)
			fpu_get(&fpu, x);
		return rc;
	}
	rc = kvm_ioctl(v->fd, KVM_GET_XSAVE, &image);
	if (rc < 0)
		return rc;
	memset(x, 0, 512);
	memcpy(x, image.region, FX_XMM + 16 * XMM_REGS_32BIT);
	/* The high halves of 64-bit instruction and data pointers. */
	memset(x + FX_FIP + 4, 0, 4);
	memset(x + FX_FDP + 4, 0, 4);
	store_le32(x + FX_MXCSR_MASK, MXCSR_VALID);
	for (int i = 0; i < 8; i++)
		memset(x + FX_ST + 16 * i + 10, 0, 6);
	return 0;
}

static int fpu_write(struct kvm_vcpu *v, const uint8_t *x)
{
	struct kvm_xsave image;
	struct kvm_fpu fpu;
	uint8_t *to = (uint8_t *)image.region;
	int rc;

	if (!v->k->xsave) {
		fpu_set(&fpu, x);
		return kvm_ioctl(v->fd, KVM_SET_FPU, &fpu);
	}
	rc = kvm_ioctl(v->fd, KVM_GET_XSAVE, &image);
	if (rc < 0)
		return rc;
	memcpy(to, x, FX_XMM + 16 * XMM_REGS_32BIT);
	/* The kernel's layout is the 64-bit one: selectors would be high halves of pointers. */
	memset(to + FX_FIP + 4, 0, 4);
	memset(to + FX_FDP + 4, 0, 4);
	store_le32(to + FX_MXCSR, load_le32(x + FX_MXCSR) & MXCSR_VALID);
	store_le32(to + XSTATE_BV, load_le32(to + XSTATE_BV) | XSTATE_X87_SSE);
	return kvm_ioctl(v->fd, KVM_SET_XSAVE, &image);
}

/*
 * Events and activity.
 */

static void events_get(const struct kvm_vcpu_events *e, struct cpu_state *s)
{
	s->exception_pending = e->exception.injected;
	s->exception_vector = e->exception.nr;
	s->exception_has_error = e->exception.has_error_code;
	s->exception_error = e->exception.error_code;
	s->interrupt_injected = e->interrupt.injected;
	s->interrupt_vector = e->interrupt.nr;
	s->interrupt_shadow = e->interrupt.shadow != 0;
	s->nmi_pending = e->nmi.pending || e->nmi.injected;
	s->nmi_masked = e->nmi.masked;
}

static void events_set(struct kvm_vcpu_events *e, const struct cpu_state *s, bool smm)
{
	memset(e, 0, sizeof(*e));
	e->exception.injected = s->exception_pending;
	e->exception.nr = s->exception_vector;
	e->exception.has_error_code = s->exception_has_error;
	e->exception.error_code = s->exception_error;
	e->interrupt.injected = s->interrupt_injected;
	e->interrupt.nr = s->interrupt_vector;
	e->interrupt.shadow = s->interrupt_shadow;
	e->nmi.pending = s->nmi_pending;
	e->nmi.masked = s->nmi_masked;
	e->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
	/* Out of SMM, where a guest may have sent itself, and no INIT latched. */
	if (smm)
		e->flags |= KVM_VCPUEVENT_VALID_SMM;
}

static uint8_t activity_get(struct kvm_vcpu *v)
{
	struct kvm_mp_state mp;

	if (v->activity == CPU_SHUTDOWN || !v->k->irqchip ||
	    kvm_ioctl(v->fd, KVM_GET_MP_STATE, &mp) < 0)
		return v->activity;
	switch (mp.mp_state) {
	case KVM_MP_STATE_HALTED: return CPU_HALTED;
	case KVM_MP_STATE_UNINITIALIZED:
	case KVM_MP_STATE_INIT_RECEIVED:
	case KVM_MP_STATE_SIPI_RECEIVED: return CPU_WAIT_SIPI;
	default: return CPU_RUNNING;
	}
}

static int activity_set(struct kvm_vcpu *v, uint8_t activity)
{
	struct kvm_mp_state mp = {.mp_state = KVM_MP_STATE_RUNNABLE};

	if (!v->k->irqchip) {
		v->activity = activity;
		return 0;
	}
	v->activity = activity == CPU_SHUTDOWN ? CPU_SHUTDOWN : CPU_RUNNING;
	if (activity == CPU_HALTED)
		mp.mp_state = KVM_MP_STATE_HALTED;
	else if (activity == CPU_WAIT_SIPI)
		mp.mp_state = KVM_MP_STATE_INIT_RECEIVED;
	return kvm_ioctl(v->fd, KVM_SET_MP_STATE, &mp);
}

/*
 * The whole.
 */

int kvm_get_state(struct kvm_vcpu *v, struct cpu_state *s, struct error *err)
{
	struct kvm_regs r;
	struct kvm_sregs sr;
	struct kvm_debugregs dbg;
	struct kvm_vcpu_events ev;
	int rc;

	memset(s, 0, sizeof(*s));
	if ((rc = kvm_ioctl(v->fd, KVM_GET_REGS, &r)) < 0 ||
	    (rc = kvm_ioctl(v->fd, KVM_GET_SREGS, &sr)) < 0 || (rc = fpu_read(v, s->fxsave)) < 0)
		return error_errno(err, -rc, "cannot read the state of CPU %u from KVM", v->index);
	const uint64_t gpr[8] = {r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi};
	for (int i = 0; i < 8; i++)
		s->gpr[i] = (uint32_t)gpr[i];
	s->eip = (uint32_t)r.rip;
	s->eflags = (uint32_t)r.rflags;
	sregs_get(&sr, s);
	if (v->k->debugregs && kvm_ioctl(v->fd, KVM_GET_DEBUGREGS, &dbg) == 0) {
		for (int i = 0; i < 4; i++)
			s->dr[i] = (uint32_t)dbg.db[i];
		s->dr[6] = (uint32_t)dbg.dr6;
		s->dr[7] = (uint32_t)dbg.dr7;
	}
	if (v->k->vcpu_events && kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &ev) == 0)
		events_get(&ev, s);
	get_msrs(v, s);
	read_pdptes(v, s);
	s->activity = activity_get(v);
	return 0;
}

int kvm_set_state(struct kvm_vcpu *v, const struct cpu_state *s, struct error *err)
{
	const uint32_t *g = s->gpr;
	struct kvm_regs r = {
		.rax = g[R_EAX],
		.rcx = g[R_ECX],
		.rdx = g[R_EDX],
		.rbx = g[R_EBX],
		.rsp = g[R_ESP],
		.rbp = g[R_EBP],
		.rsi = g[R_ESI],
		.rdi = g[R_EDI],
		.rip = s->eip,
		.rflags = s->eflags | FL_1,
	};
	struct kvm_debugregs dbg = {.dr6 = s->dr[6], .dr7 = s->dr[7]};
	struct kvm_vcpu_events ev;
	struct kvm_sregs sr;
	int rc;

	if ((rc = kvm_ioctl(v->fd, KVM_GET_SREGS, &sr)) < 0)
		return error_errno(err, -rc, "cannot read the state of CPU %u from KVM", v->index);
	sregs_set(&sr, s);
	/* Activity first: KVM drops events that are set while a CPU waits for SIPI. */
	if ((rc = activity_set(v, s->activity)) < 0 ||
	    (rc = kvm_ioctl(v->fd, KVM_SET_SREGS, &sr)) < 0 ||
	    (rc = kvm_ioctl(v->fd, KVM_SET_REGS, &r)) < 0 || (rc = fpu_write(v, s->fxsave)) < 0)
		return error_errno(err, -rc, "KVM refuses the state of CPU %u", v->index);
	for (int i = 0; i < 4; i++)
		dbg.db[i] = s->dr[i];
	if (v->k->debugregs)
		kvm_ioctl(v->fd, KVM_SET_DEBUGREGS, &dbg);
	if (v->k->vcpu_events) {
		events_set(&ev, s, v->k->smm);
		kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &ev);
	}
	set_msrs(v, s);
	v->stuck = false;
	/* What the run page says about the guest is of before. */
	v->run->ready_for_interrupt_injection = 0;
	v->run->if_flag = (s->eflags & FL_IF) != 0;
	return 0;
}

void kvm_cpu_init(struct kvm_vcpu *v)
{
	struct cpu_state s;

	if (kvm_get_state(v, &s, NULL) < 0)
		return;
	cpu_state_signal_init(&s, cpu_model_signature(v->k->base.config.model));
	kvm_set_state(v, &s, NULL);
}

void kvm_cpu_sipi(struct kvm_vcpu *v, uint8_t vector)
{
	struct kvm_sregs sr;
	struct kvm_regs r;

	if (kvm_ioctl(v->fd, KVM_GET_SREGS, &sr) < 0 || kvm_ioctl(v->fd, KVM_GET_REGS, &r) < 0)
		return;
	sr.cs.selector = (uint16_t)(vector << 8);
	sr.cs.base = (uint64_t)vector << 12;
	r.rip = 0;
	kvm_ioctl(v->fd, KVM_SET_SREGS, &sr);
	kvm_ioctl(v->fd, KVM_SET_REGS, &r);
	v->activity = CPU_RUNNING;
}
