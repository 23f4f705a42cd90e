/* SPDX-License-Identifier: MIT */
/*
 * The CPUID leaves that come of a CPU model, and looking them up (SDM vol. 2A, "CPUID").
 *
 *   0 vendor, highest leaf      2, 4 caches             80000000h..80000001h extended features
 *   1 signature, features, APIC id and count of CPUs    80000002h..80000004h brand string
 *   40000000h hypervisor's name, if leaf 1 tells of one  80000006h L2 cache, 80000008h address
 * sizes
 *
 * The CPUs of a machine are the cores of one package.
 */
#include "core/cpu_model.h"
#include "lib/bytes.h"

enum {
	ECX_OSXSAVE = 1 << 27, /* follows CR4, never a model's */
	EDX_HTT = 1 << 28,
	HYPERVISOR_LEAF = 0x40000000,
};
#define EXTENDED_LEAF UINT32_C(0x80000000)

uint32_t cpu_model_signature(const struct cpu_model *m)
{
	uint32_t family = m->family, extended = 0;
	if (family > 15) {
		extended = family - 15;
		family = 15;
	}
	return m->stepping | (m->model & 0xF) << 4 | family << 8 | (m->model >> 4) << 16 |
	       extended << 20;
}

static void add_leaf(struct cpuid_leaf *leaf, unsigned *count, struct cpuid_leaf value)
{
	if (*count < CPUID_MAX_LEAVES)
		leaf[(*count)++] = value;
}

/* Leaf 4: one cache. IDs of cores are counted in powers of two. */
static struct cpuid_leaf cache_leaf(unsigned index, unsigned type, unsigned level, unsigned ways,
				    unsigned sets, unsigned cpus)
{
	enum { LINE_BYTES = 64, SELF_INITIALIZING = 1 << 8 };
	unsigned ids = 1;
	while (ids < cpus && ids < 64)
		ids *= 2;
	return (struct cpuid_leaf){
		.function = 4,
		.index = index,
		.indexed = true,
		.eax = type | level << 5 | SELF_INITIALIZING | (ids - 1) << 26,
		.ebx = (LINE_BYTES - 1) | (ways - 1) << 22,
		.ecx = sets - 1,
	};
}

static void add_basic_leaves(const struct cpu_model *m, unsigned apic_id, unsigned cpus,
			     struct cpuid_leaf *leaf, unsigned *count)
{
	/* Descriptors of leaf 2 (table 3-12): 2Ch L1 data 32 KB, 30h L1 code 32 KB, 7Dh L2 2 MB,
	 * all 8 ways of 64 bytes. */
	enum { CACHES = 0x2C307D, LEAF2_ONCE = 1, CLFLUSH_LINE = 8 };
	uint32_t edx = m->features_edx;
	uint32_t ebx = (uint32_t)apic_id << 24;
	if (edx & CPUID_CLFSH)
		ebx |= CLFLUSH_LINE << 8;
	if (cpus > 1) {
		edx |= EDX_HTT; /* the count of logical processors is valid; leaf 4 says that they
				   are cores */
		ebx |= (cpus & 0xFF) << 16;
	} else {
		edx &= ~(uint32_t)EDX_HTT;
	}
	add_leaf(leaf, count,
		 (struct cpuid_leaf){.function = 0,
				     .eax = m->max_basic,
				     .ebx = load_le32(m->vendor),
				     .edx = load_le32(m->vendor + 4),
				     .ecx = load_le32(m->vendor + 8)});
	add_leaf(leaf, count,
		 (struct cpuid_leaf){.function = 1,
				     .eax = cpu_model_signature(m),
				     .ebx = ebx,
				     .ecx = m->features_ecx & ~(uint32_t)ECX_OSXSAVE,
				     .edx = edx});
	if (m->max_basic >= 2)
		add_leaf(leaf, count,
			 (struct cpuid_leaf){.function = 2, .eax = LEAF2_ONCE, .edx = CACHES});
	if (m->max_basic >= 4) {
		add_leaf(leaf, count, cache_leaf(0, 1, 1, 8, 64, cpus));
		add_leaf(leaf, count, cache_leaf(1, 2, 1, 8, 64, cpus));
		add_leaf(leaf, count, cache_leaf(2, 3, 2, 8, 4096, cpus));
	}
}

static void add_extended_leaves(const struct cpu_model *m, struct cpuid_leaf *leaf, unsigned *count)
{
	enum { L2_2MB_8WAY_64B = 2048 << 16 | 6 << 12 | 64, VIRTUAL_BITS = 32 };
	if (m->max_extended < EXTENDED_LEAF)
		return;
	add_leaf(leaf, count,
		 (struct cpuid_leaf){.function = EXTENDED_LEAF, .eax = m->max_extended});
	if (m->max_extended >= EXTENDED_LEAF + 1)
		add_leaf(leaf, count,
			 (struct cpuid_leaf){.function = EXTENDED_LEAF + 1,
					     .ecx = m->ext_features_ecx,
					     .edx = m->ext_features_edx});
	for (unsigned n = 0; n < 3 && m->max_extended >= EXTENDED_LEAF + 2 + n; n++) {
		char part[16];
		memcpy(part, m->brand + 16 * n, sizeof(part));
		add_leaf(leaf, count,
			 (struct cpuid_leaf){.function = EXTENDED_LEAF + 2 + n,
					     .eax = load_le32(part),
					     .ebx = load_le32(part + 4),
					     .ecx = load_le32(part + 8),
					     .edx = load_le32(part + 12)});
	}
	if (m->max_extended >= EXTENDED_LEAF + 6)
		add_leaf(
			leaf, count,
			(struct cpuid_leaf){.function = EXTENDED_LEAF + 6, .ecx = L2_2MB_8WAY_64B});
	if (m->max_extended >= EXTENDED_LEAF + 8) {
		unsigned physical = m->features_edx & (CPUID_PAE | CPUID_PSE36) ? 36 : 32;
		add_leaf(leaf, count,
			 (struct cpuid_leaf){.function = EXTENDED_LEAF + 8,
					     .eax = physical | VIRTUAL_BITS << 8});
	}
}

unsigned cpu_model_leaves(const struct cpu_model *model, unsigned apic_id, unsigned cpus,
			  struct cpuid_leaf leaf[CPUID_MAX_LEAVES])
{
	static const char hypervisor[] = "minivmminivm";
	unsigned count = 0;
	add_basic_leaves(model, apic_id, cpus, leaf, &count);
	if (model->features_ecx & CPUID_ECX_HYPERVISOR)
		add_leaf(leaf, &count,
			 (struct cpuid_leaf){.function = HYPERVISOR_LEAF,
					     .eax = HYPERVISOR_LEAF,
					     .ebx = load_le32(hypervisor),
					     .ecx = load_le32(hypervisor + 4),
					     .edx = load_le32(hypervisor + 8)});
	add_extended_leaves(model, leaf, &count);
	return count;
}

static const struct cpuid_leaf *find_leaf(const struct cpuid_leaf *leaves, unsigned count,
					  uint32_t function, uint32_t index)
{
	for (unsigned n = 0; n < count; n++) {
		if (leaves[n].function == function &&
		    (!leaves[n].indexed || leaves[n].index == index))
			return &leaves[n];
	}
	return NULL;
}

/* Within a range that the processor has, a leaf without data is zeros; beyond it, the highest basic
 * leaf answers. */
void cpuid_lookup(const struct cpuid_leaf *leaves, unsigned count, uint32_t function,
		  uint32_t index, struct cpuid_leaf *out)
{
	const struct cpuid_leaf *first = find_leaf(leaves, count, function & 0xF0000000, 0);
	if (!first || function > first->eax) {
		const struct cpuid_leaf *basic = find_leaf(leaves, count, 0, 0);
		function = basic ? basic->eax : 0;
	}
	const struct cpuid_leaf *leaf = find_leaf(leaves, count, function, index);
	*out = leaf ? *leaf : (struct cpuid_leaf){.function = function, .index = index};
}
