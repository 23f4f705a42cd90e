/* SPDX-License-Identifier: MIT */
/*
 * CPUID under KVM: the model's leaves, masked with what the kernel supports and what this engine
 * can carry.
 *
 * The model decides what the guest should see; KVM_GET_SUPPORTED_CPUID says what the processor and
 * the kernel can do. Of the feature words only bits in both remain, but for:
 *
 *   APIC, HTT, HYPERVISOR   describe the machine, whichever side models it
 *   TSC_DEADLINE            has a capability of its own, and like x2APIC needs the kernel's local
 *                           APIC
 *   XSAVE, AVX, FMA, F16C   left out: their registers are no part of struct cpu_state
 *   LM, SYSCALL, RDTSCP,    left out: 64-bit mode and the MSRs that these bring (STAR, TSC_AUX) are
 *   PDPE1GB, PCID           no part of it either
 *   VMX, SVM                left out: so is a nested guest's state
 *   CR8LEGACY               left out: it would be another way to the TPR of our own APIC model
 *
 * With the hypervisor bit the guest sees KVM's own leaves in place of the model's: the signature,
 * and of the paravirtual features those whose state this engine saves and resets: the clock, and
 * "port 80h need not be waited for". The rest is switched off in the kernel, too, where it can be,
 * so that no guest turns on what a system reset would not turn off.
 *
 * Documents: Linux, Documentation/virt/kvm/api.rst (4.46 KVM_GET_SUPPORTED_CPUID, 4.20
 * KVM_SET_CPUID2, 8.28 KVM_CAP_ENFORCE_PV_FEATURE_CPUID), x86/cpuid.rst; SDM vol. 2A, CPUID.
 */
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include "vmm/kvm_internal.h"
#include <errno.h>
#include <linux/kvm_para.h>
#include <stdlib.h>

enum {
	ENTRIES_MAX = 512,
	LEAF_FEATURES = 1,
};
#define LEAF_HYPERVISOR UINT32_C(0x40000000)
#define LEAF_PARAVIRT   UINT32_C(0x40000001)
#define LEAF_EXTENDED   UINT32_C(0x80000001)

/* Feature bits that only matter here (SDM vol. 2A, table 3-10 and 3-11; AMD APM vol. 3, E.4). */
#define EDX_HTT           UINT32_C(0x10000000)
#define ECX_VMX           UINT32_C(0x00000020)
#define ECX_FMA           UINT32_C(0x00001000)
#define ECX_PCID          UINT32_C(0x00020000)
#define ECX_X2APIC        UINT32_C(0x00200000)
#define ECX_TSC_DEADLINE  UINT32_C(0x01000000)
#define ECX_XSAVE         UINT32_C(0x04000000)
#define ECX_AVX           UINT32_C(0x10000000)
#define ECX_F16C          UINT32_C(0x20000000)
#define ECX_HYPERVISOR    UINT32_C(0x80000000)
#define EXT_EDX_SYSCALL   UINT32_C(0x00000800)
#define EXT_EDX_PDPE1GB   UINT32_C(0x04000000)
#define EXT_EDX_RDTSCP    UINT32_C(0x08000000)
#define EXT_EDX_LM        UINT32_C(0x20000000)
#define EXT_ECX_SVM       UINT32_C(0x00000004)
#define EXT_ECX_CR8LEGACY UINT32_C(0x00000010)

/* The words of struct cpu_model's plus and minus, and of cpu_feature_name(). */
enum { WORD_EDX, WORD_ECX, WORD_EXT_EDX, WORD_EXT_ECX, WORDS };

#define PARAVIRT_OFFERED                                                                           \
	((UINT32_C(1) << KVM_FEATURE_CLOCKSOURCE) | (UINT32_C(1) << KVM_FEATURE_CLOCKSOURCE2) |    \
	 (UINT32_C(1) << KVM_FEATURE_CLOCKSOURCE_STABLE_BIT) |                                     \
	 (UINT32_C(1) << KVM_FEATURE_NOP_IO_DELAY))

/* What the kernel supports; asked for once. */
static int load_supported(struct kvm_engine *k, struct error *err)
{
	struct kvm_cpuid2 *c;
	int rc;

	if (k->supported_cpuid)
		return 0;
	c = xcalloc(1, sizeof(*c) + ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2));
	c->nent = ENTRIES_MAX;
	rc = kvm_ioctl(k->kvm_fd, KVM_GET_SUPPORTED_CPUID, c);
	if (rc < 0) {
		free(c);
		return error_errno(err, -rc, "KVM does not say which CPU features it supports");
	}
	k->supported_cpuid = c;
	return 0;
}

static const struct kvm_cpuid_entry2 *find_leaf(const struct kvm_cpuid2 *c, uint32_t function)
{
	for (uint32_t i = 0; i < c->nent; i++)
		if (c->entries[i].function == function && c->entries[i].index == 0)
			return &c->entries[i];
	return NULL;
}

/* What the guest may see of each feature word. */
static void allowed_features(struct kvm_engine *k, uint32_t allowed[WORDS])
{
	static const struct kvm_cpuid_entry2 none;
	const struct kvm_cpuid_entry2 *basic = find_leaf(k->supported_cpuid, LEAF_FEATURES);
	const struct kvm_cpuid_entry2 *extended = find_leaf(k->supported_cpuid, LEAF_EXTENDED);

	basic = basic ? basic : &none;
	extended = extended ? extended : &none;
	allowed[WORD_EDX] = basic->edx | CPUID_APIC | EDX_HTT;
	allowed[WORD_ECX] = (basic->ecx & ~(ECX_VMX | ECX_FMA | ECX_PCID | ECX_TSC_DEADLINE |
					    ECX_XSAVE | ECX_AVX | ECX_F16C)) |
			    ECX_HYPERVISOR;
	if (k->irqchip && k->tsc_deadline)
		allowed[WORD_ECX] |= ECX_TSC_DEADLINE;
	if (!k->irqchip)
		allowed[WORD_ECX] &= ~ECX_X2APIC;
	allowed[WORD_EXT_EDX] =
		extended->edx & ~(EXT_EDX_SYSCALL | EXT_EDX_PDPE1GB | EXT_EDX_RDTSCP | EXT_EDX_LM);
	allowed[WORD_EXT_ECX] = extended->ecx & ~(EXT_ECX_SVM | EXT_ECX_CR8LEGACY);
}

/* One line that names what the guest will miss. A named model should be complete; "host" and "max"
 * mean what there is, and only features that the user added by name are missed. */
static void tell_lacking(const struct cpu_model *m, const uint32_t allowed[WORDS])
{
	const uint32_t *const has[WORDS] = {&m->features_edx, &m->features_ecx,
					    &m->ext_features_edx, &m->ext_features_ecx};
	struct strbuf list = STRBUF_INIT;

	for (unsigned w = 0; w < WORDS; w++) {
		uint32_t lacking = *has[w] & ~allowed[w];
		if (m->host || m->max)
			lacking &= m->plus[w];
		for (unsigned bit = 0; bit < 32; bit++)
			if ((lacking >> bit & 1) && cpu_feature_name(w, bit))
				strbuf_printf(&list, " %s", cpu_feature_name(w, bit));
	}
	if (list.len)
		warn("the guest's CPU '%s' will lack what KVM cannot offer here:%s", m->name,
		     strbuf_str(&list));
	strbuf_free(&list);
}

static void add_leaf(struct kvm_cpuid2 *out, const struct cpuid_leaf *l)
{
	out->entries[out->nent++] = (struct kvm_cpuid_entry2){
		.function = l->function,
		.index = l->index,
		.flags = l->indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
		.eax = l->eax,
		.ebx = l->ebx,
		.ecx = l->ecx,
		.edx = l->edx,
	};
}

/* KVM's signature and features; false if the kernel has none, and the model's leaf stands. */
static bool add_paravirt(const struct kvm_engine *k, struct kvm_cpuid2 *out)
{
	const struct kvm_cpuid_entry2 *name = find_leaf(k->supported_cpuid, LEAF_HYPERVISOR);
	const struct kvm_cpuid_entry2 *features = find_leaf(k->supported_cpuid, LEAF_PARAVIRT);

	if (!name || !features)
		return false;
	struct kvm_cpuid_entry2 n = *name, f = *features;
	n.eax = LEAF_PARAVIRT; /* the last one */
	f.eax &= PARAVIRT_OFFERED;
	f.edx = 0;
	out->entries[out->nent++] = n;
	out->entries[out->nent++] = f;
	return true;
}

static void enforce_paravirt(struct kvm_vcpu *v)
{
	struct kvm_enable_cap cap = {.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = {1}};
	int rc = kvm_ioctl(v->fd, KVM_ENABLE_CAP, &cap);

	if (rc < 0)
		trace(TRACE_KVM, "paravirtual features cannot be switched off: %s", strerror(-rc));
}

int kvm_set_cpuid(struct kvm_engine *k, struct kvm_vcpu *v, struct error *err)
{
	const struct cpu_model *m = k->base.config.model;
	struct cpuid_leaf leaf[CPUID_MAX_LEAVES];
	uint32_t allowed[WORDS];
	bool paravirt = false;
	struct kvm_cpuid2 *out;
	unsigned n;
	int rc = load_supported(k, err);

	if (rc < 0)
		return rc;
	allowed_features(k, allowed);
	if (v->index == 0)
		tell_lacking(m, allowed);
	n = cpu_model_leaves(m, v->index, k->base.config.cpus, leaf);
	out = xcalloc(1, sizeof(*out) + (n + 2) * sizeof(out->entries[0]));
	if (m->features_ecx & ECX_HYPERVISOR)
		paravirt = add_paravirt(k, out);
	for (unsigned i = 0; i < n; i++) {
		struct cpuid_leaf *l = &leaf[i];
		if (l->function == LEAF_HYPERVISOR && paravirt)
			continue; /* the kernel answers with the first of two */
		if (l->function == LEAF_FEATURES) {
			l->edx &= allowed[WORD_EDX];
			l->ecx &= allowed[WORD_ECX];
		} else if (l->function == LEAF_EXTENDED) {
			l->edx &= allowed[WORD_EXT_EDX];
			l->ecx &= allowed[WORD_EXT_ECX];
		}
		add_leaf(out, l);
	}
	rc = kvm_ioctl(v->fd, KVM_SET_CPUID2, out);
	if (rc < 0)
		error_errno(err, -rc, "KVM refuses CPU model '%s'", m->name);
	else
		enforce_paravirt(v);
	free(out);
	return rc;
}
