/* SPDX-License-Identifier: MIT */
/*
 * CPUID under KVM: the model's leaves, masked with what the kernel supports.
 *
 * The model decides what the guest should see; KVM_GET_SUPPORTED_CPUID says what the processor and
 * the kernel can do. Of the feature words only bits in both remain. With the hypervisor bit in the
 * result the kernel's own leaves (4000_0000h on: KVM's signature and its paravirtual features) are
 * passed on.
 *
 * Document: Linux, Documentation/virt/kvm/api.rst (4.46 KVM_GET_SUPPORTED_CPUID), x86/cpuid.rst.
 */
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include "vmm/kvm_internal.h"
#include <errno.h>
#include <stdlib.h>

enum {
	ENTRIES_MAX = 512,
	LEAF_FEATURES = 1,
	LEAF_STRUCTURED = 7,
	FEATURE_HTT = 1 << 28,
};
#define LEAF_HYPERVISOR     UINT32_C(0x40000000)
#define LEAF_HYPERVISOR_END UINT32_C(0x40000001)
#define LEAF_EXTENDED       UINT32_C(0x80000001)

static struct kvm_cpuid2 *supported_cpuid(struct kvm_engine *k, struct error *err)
{
	struct kvm_cpuid2 *c =
		xcalloc(1, sizeof(*c) + ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2));
	int rc;

	c->nent = ENTRIES_MAX;
	rc = kvm_ioctl(k->kvm_fd, KVM_GET_SUPPORTED_CPUID, c);
	if (rc < 0) {
		free(c);
		error_errno(err, -rc, "KVM does not say which CPU features it supports");
		return NULL;
	}
	return c;
}

static const struct kvm_cpuid_entry2 *find_leaf(const struct kvm_cpuid2 *c, uint32_t function,
						uint32_t index)
{
	for (uint32_t i = 0; i < c->nent; i++)
		if (c->entries[i].function == function && c->entries[i].index == index)
			return &c->entries[i];
	return NULL;
}

/* Clears what the kernel lacks; complains once about what the user asked for by name. */
static void mask_word(uint32_t *word, uint32_t supported, uint32_t asked, bool strict,
		      const char *name)
{
	uint32_t dropped = *word & ~supported;

	*word &= supported;
	if (!strict)
		dropped &= asked;
	if (dropped)
		warn("KVM does not support CPU features of this model: %s bits %#x", name, dropped);
}

static void mask_leaf(struct kvm_engine *k, struct kvm_vcpu *v, const struct kvm_cpuid2 *sup,
		      struct cpuid_leaf *l)
{
	const struct cpu_model *m = k->base.config.model;
	const struct kvm_cpuid_entry2 *s = find_leaf(sup, l->function, l->index);
	/* A named model should be complete; "host" and "max" mean what there is. Once is enough. */
	bool strict = !m->host && !m->max && v->index == 0;
	uint32_t plus[4] = {0};

	if (v->index == 0)
		memcpy(plus, m->plus, sizeof(plus));
	switch (l->function) {
	case LEAF_FEATURES:
		/* These only describe the machine: the APIC is there whichever side models it, and
		 * how many CPUs there are is ours to say. */
		mask_word(&l->edx, (s ? s->edx : 0) | CPUID_APIC | FEATURE_HTT, plus[0], strict,
			  "CPUID.1:EDX");
		mask_word(&l->ecx, (s ? s->ecx : 0) | (uint32_t)CPUID_ECX_HYPERVISOR, plus[1],
			  strict, "CPUID.1:ECX");
		break;
	case LEAF_EXTENDED:
		mask_word(&l->edx, s ? s->edx : 0, plus[2], strict, "CPUID.80000001:EDX");
		mask_word(&l->ecx, s ? s->ecx : 0, plus[3], strict, "CPUID.80000001:ECX");
		break;
	case LEAF_STRUCTURED:
		if (l->index == 0) {
			l->ebx &= s ? s->ebx : 0;
			l->ecx &= s ? s->ecx : 0;
			l->edx &= s ? s->edx : 0;
		}
		break;
	default: break;
	}
}

int kvm_set_cpuid(struct kvm_engine *k, struct kvm_vcpu *v, struct error *err)
{
	struct kvm_cpuid2 *sup = supported_cpuid(k, err);
	struct cpuid_leaf leaf[CPUID_MAX_LEAVES];
	struct kvm_cpuid2 *out;
	bool hypervisor = false;
	unsigned n;
	int rc;

	if (!sup)
		return -err->code;
	n = cpu_model_leaves(k->base.config.model, v->index, k->base.config.cpus, leaf);
	out = xcalloc(1, sizeof(*out) + (n + 2) * sizeof(out->entries[0]));
	for (unsigned i = 0; i < n; i++) {
		mask_leaf(k, v, sup, &leaf[i]);
		if (leaf[i].function == LEAF_FEATURES)
			hypervisor = leaf[i].ecx & (uint32_t)CPUID_ECX_HYPERVISOR;
		out->entries[out->nent++] = (struct kvm_cpuid_entry2){
			.function = leaf[i].function,
			.index = leaf[i].index,
			.flags = leaf[i].indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
			.eax = leaf[i].eax,
			.ebx = leaf[i].ebx,
			.ecx = leaf[i].ecx,
			.edx = leaf[i].edx,
		};
	}
	for (uint32_t f = LEAF_HYPERVISOR; hypervisor && f <= LEAF_HYPERVISOR_END; f++) {
		const struct kvm_cpuid_entry2 *s = find_leaf(sup, f, 0);
		if (s)
			out->entries[out->nent++] = *s;
	}
	rc = kvm_ioctl(v->fd, KVM_SET_CPUID2, out);
	if (rc < 0)
		error_errno(err, -rc, "KVM refuses CPU model '%s'", k->base.config.model->name);
	free(out);
	free(sup);
	return rc;
}
