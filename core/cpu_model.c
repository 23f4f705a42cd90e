/* SPDX-License-Identifier: MIT */
/*
 * CPU models: the tables behind `-cpu`, and its parser. What CPUID answers for a model is made in
 * cpuid_leaves.c.
 *
 * A model says what the guest should see; an engine masks that with what it can run. "host" and
 * "max" start from all that has a name here ("host": that the host's own CPUID has too) and live on
 * that masking.
 */
#include "core/cpu_model.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum feature_word { WORD_EDX, WORD_ECX, WORD_EXT_EDX, WORD_EXT_ECX, FEATURE_WORDS };

/* QEMU's names, by bit. Bits without a name cannot be asked for. */
static const char *const feature_names[FEATURE_WORDS][32] = {
	[WORD_EDX] = {"fpu",  "vme",   "de",   "pse",     "tsc",  "msr", "pae",  "mce",
		      "cx8",  "apic",  NULL,   "sep",     "mtrr", "pge", "mca",  "cmov",
		      "pat",  "pse36", "pn",   "clflush", NULL,   "ds",  "acpi", "mmx",
		      "fxsr", "sse",   "sse2", "ss",      "ht",   "tm",  "ia64", "pbe"},
	[WORD_ECX] = {"pni",    "pclmulqdq", "dtes64", "monitor",      "ds-cpl", "vmx",    "smx",
		      "est",    "tm2",       "ssse3",  "cid",          NULL,     "fma",    "cx16",
		      "xtpr",   "pdcm",      NULL,     "pcid",         "dca",    "sse4.1", "sse4.2",
		      "x2apic", "movbe",     "popcnt", "tsc-deadline", "aes",    "xsave",  NULL,
		      "avx",    "f16c",      "rdrand", "hypervisor"},
	[WORD_EXT_EDX] = {[11] = "syscall",
			  [19] = "mp",
			  [20] = "nx",
			  [22] = "mmxext",
			  [25] = "fxsr-opt",
			  [26] = "pdpe1gb",
			  [27] = "rdtscp",
			  [29] = "lm",
			  [30] = "3dnowext",
			  [31] = "3dnow"},
	[WORD_EXT_ECX] = {[0] = "lahf-lm",
			  [1] = "cmp-legacy",
			  [2] = "svm",
			  [3] = "extapic",
			  [4] = "cr8legacy",
			  [5] = "abm",
			  [6] = "sse4a",
			  [7] = "misalignsse",
			  [8] = "3dnowprefetch",
			  [9] = "osvw"},
};

static const struct {
	const char *alias, *name;
} feature_aliases[] = {
	{"sse3", "pni"},      {"sse4-1", "sse4.1"},  {"sse4-2", "sse4.2"}, {"xd", "nx"},
	{"clfsh", "clflush"}, {"ffxsr", "fxsr-opt"}, {"i64", "lm"},
};

/* Names that an edit may have besides features. */
static const char *const property_names[] = {"family", "model",  "stepping", "level",
					     "xlevel", "vendor", "model-id"};

enum {
	F_486 = CPUID_FPU | CPUID_VME | CPUID_PSE,
	F_PENTIUM = F_486 | CPUID_DE | CPUID_TSC | CPUID_MSR | CPUID_MCE | CPUID_CX8 | CPUID_MMX |
		    CPUID_APIC,
	F_PENTIUM2 = F_PENTIUM | CPUID_PAE | CPUID_SEP | CPUID_MTRR | CPUID_PGE | CPUID_MCA |
		     CPUID_CMOV | CPUID_PAT | CPUID_FXSR | CPUID_PSE36,
	F_PENTIUM3 = F_PENTIUM2 | CPUID_SSE,
	F_QEMU32 = CPUID_FPU | CPUID_DE | CPUID_PSE | CPUID_TSC | CPUID_MSR | CPUID_PAE |
		   CPUID_MCE | CPUID_MCA | CPUID_CX8 | CPUID_APIC | CPUID_SEP | CPUID_MTRR |
		   CPUID_PGE | CPUID_CMOV | CPUID_PAT | CPUID_CLFSH | CPUID_MMX | CPUID_FXSR |
		   CPUID_SSE | CPUID_SSE2,
	F_KVM32 = F_QEMU32 | CPUID_PSE36,
	F_COREDUO = F_KVM32 | CPUID_VME,
	ECX_SSE3 = 1 << 0,
};
#define EXTENDED_LEAF UINT32_C(0x80000000)
#define INTEL         "GenuineIntel"

static const struct model_row {
	const char *help;
	struct cpu_model model;
} models[] = {
	{"486 with CPUID",
	 {.name = "486",
	  .family = 4,
	  .model = 8,
	  .vendor = INTEL,
	  .max_basic = 1,
	  .features_edx = F_486}},
	{"Pentium MMX",
	 {.name = "pentium",
	  .family = 5,
	  .model = 4,
	  .stepping = 3,
	  .vendor = INTEL,
	  .max_basic = 1,
	  .features_edx = F_PENTIUM}},
	{"Pentium II",
	 {.name = "pentium2",
	  .family = 6,
	  .model = 5,
	  .stepping = 2,
	  .vendor = INTEL,
	  .max_basic = 2,
	  .features_edx = F_PENTIUM2}},
	{"Pentium III",
	 {.name = "pentium3",
	  .family = 6,
	  .model = 7,
	  .stepping = 3,
	  .vendor = INTEL,
	  .max_basic = 3,
	  .features_edx = F_PENTIUM3}},
	{"32-bit PC processor with SSE2 (the default)",
	 {.name = "qemu32",
	  .family = 6,
	  .model = 6,
	  .stepping = 3,
	  .vendor = INTEL,
	  .brand = "minivm Virtual CPU version 1",
	  .max_basic = 4,
	  .max_extended = EXTENDED_LEAF + 4,
	  .features_edx = F_QEMU32}},
	{"common 32-bit KVM processor",
	 {.name = "kvm32",
	  .family = 15,
	  .model = 6,
	  .stepping = 1,
	  .vendor = INTEL,
	  .brand = "Common 32-bit KVM processor",
	  .max_basic = 5,
	  .max_extended = EXTENDED_LEAF + 8,
	  .features_edx = F_KVM32,
	  .features_ecx = ECX_SSE3}},
	{"Core Duo",
	 {.name = "coreduo",
	  .family = 6,
	  .model = 14,
	  .stepping = 8,
	  .vendor = INTEL,
	  .brand = "Genuine Intel(R) CPU           T2600  @ 2.16GHz",
	  .max_basic = 10,
	  .max_extended = EXTENDED_LEAF + 8,
	  .features_edx = F_COREDUO,
	  .features_ecx = ECX_SSE3,
	  .ext_features_edx = CPUID_EXT_NX}},
	{"all that the engine can run",
	 {.name = "max",
	  .family = 6,
	  .model = 6,
	  .stepping = 3,
	  .vendor = INTEL,
	  .brand = "minivm Virtual CPU version 1",
	  .max_basic = 4,
	  .max_extended = EXTENDED_LEAF + 8,
	  .max = true}},
	{"the host's processor, as far as the engine can run it", {.name = "host", .host = true}},
};

static const char *const bool_on[] = {"on", "yes", "true", "y", NULL};
static const char *const bool_off[] = {"off", "no", "false", "n", NULL};

/* ---- Names ---- */

/* All names that a feature edit can have, NULL-terminated, for nearest_word(). */
static void list_edits(const char *list[FEATURE_WORDS * 32 + 32])
{
	unsigned count = 0;
	for (unsigned word = 0; word < FEATURE_WORDS; word++) {
		for (unsigned bit = 0; bit < 32; bit++) {
			if (feature_names[word][bit])
				list[count++] = feature_names[word][bit];
		}
	}
	for (unsigned n = 0; n < ARRAY_SIZE(feature_aliases); n++)
		list[count++] = feature_aliases[n].alias;
	for (unsigned n = 0; n < ARRAY_SIZE(property_names); n++)
		list[count++] = property_names[n];
	list[count] = NULL;
}

/* `name` as typed: underscores count as dashes, aliases are followed. */
static bool find_feature(const char *typed, unsigned *word, uint32_t *bit)
{
	char name[32];
	size_t len = strlen(typed);
	if (len >= sizeof(name))
		return false;
	for (size_t n = 0; n <= len; n++)
		name[n] = typed[n] == '_' ? '-' : typed[n];
	const char *wanted = name;
	for (unsigned n = 0; n < ARRAY_SIZE(feature_aliases); n++) {
		if (!strcmp(name, feature_aliases[n].alias))
			wanted = feature_aliases[n].name;
	}
	for (*word = 0; *word < FEATURE_WORDS; ++*word) {
		for (unsigned n = 0; n < 32; n++) {
			if (feature_names[*word][n] && !strcmp(wanted, feature_names[*word][n])) {
				*bit = UINT32_C(1) << n;
				return true;
			}
		}
	}
	return false;
}

const char *cpu_feature_name(unsigned word, unsigned bit)
{
	return word < FEATURE_WORDS && bit < 32 ? feature_names[word][bit] : NULL;
}

static bool word_in(const char *word, const char *const *list)
{
	for (; *list; list++) {
		if (!strcmp(word, *list))
			return true;
	}
	return false;
}

/* ---- Parsing ---- */

static uint32_t *feature_word(struct cpu_model *m, unsigned word)
{
	uint32_t *const words[FEATURE_WORDS] = {&m->features_edx, &m->features_ecx,
						&m->ext_features_edx, &m->ext_features_ecx};
	return words[word];
}

static void edit_feature(struct cpu_model *m, unsigned word, uint32_t bit, bool on)
{
	uint32_t *features = feature_word(m, word);
	if (on) {
		*features |= bit;
		m->plus[word] |= bit;
		m->minus[word] &= ~bit;
	} else {
		*features &= ~bit;
		m->minus[word] |= bit;
		m->plus[word] &= ~bit;
	}
	/* A feature of the extended leaves needs them. */
	if (on && word >= WORD_EXT_EDX && m->max_extended < EXTENDED_LEAF + 1)
		m->max_extended = EXTENDED_LEAF + 1;
}

static int unknown_edit(const char *name, struct error *err)
{
	const char *list[FEATURE_WORDS * 32 + 32];
	list_edits(list);
	const char *near = nearest_word(name, list);
	return error_set(err, EINVAL, "-cpu: unknown feature or property '%s'; %s%s%s", name,
			 near ? "did you mean '" : "", near ? near : "see -cpu help",
			 near ? "'?" : "");
}

static int parse_feature(struct cpu_model *m, const char *name, bool on, struct error *err)
{
	unsigned word;
	uint32_t bit;
	if (!find_feature(name, &word, &bit))
		return unknown_edit(name, err);
	edit_feature(m, word, bit, on);
	return 0;
}

static int parse_number(const char *key, const char *value, uint64_t min, uint64_t max,
			uint32_t *out, struct error *err)
{
	uint64_t v;
	char what[32];
	snprintf(what, sizeof(what), "-cpu %s", key);
	int r = parse_u64(value, what, min, max, &v, err);
	if (r == 0)
		*out = (uint32_t)v;
	return r;
}

/* key=value: a property, or a feature with on or off. */
static int parse_assignment(struct cpu_model *m, const char *key, const char *value,
			    struct error *err)
{
	if (!strcmp(key, "family"))
		return parse_number(key, value, 0, 0xFF + 0xF, &m->family, err);
	if (!strcmp(key, "model"))
		return parse_number(key, value, 0, 0xFF, &m->model, err);
	if (!strcmp(key, "stepping"))
		return parse_number(key, value, 0, 0xF, &m->stepping, err);
	if (!strcmp(key, "level"))
		return parse_number(key, value, 0, 0x20, &m->max_basic, err);
	if (!strcmp(key, "xlevel"))
		return parse_number(key, value, EXTENDED_LEAF, EXTENDED_LEAF + 0x20,
				    &m->max_extended, err);
	if (!strcmp(key, "vendor")) {
		if (strlen(value) != sizeof(m->vendor) - 1)
			return error_set(err, EINVAL,
					 "-cpu vendor '%s' must have exactly 12 characters", value);
		memcpy(m->vendor, value, sizeof(m->vendor));
		return 0;
	}
	if (!strcmp(key, "model-id")) {
		if (strlen(value) >= sizeof(m->brand))
			return error_set(err, EINVAL,
					 "-cpu model-id '%s' is longer than 48 characters", value);
		memset(m->brand, 0, sizeof(m->brand));
		memcpy(m->brand, value, strlen(value));
		if (m->max_extended < EXTENDED_LEAF + 4)
			m->max_extended = EXTENDED_LEAF + 4;
		return 0;
	}
	unsigned word;
	uint32_t bit;
	if (!find_feature(key, &word, &bit))
		return unknown_edit(key, err);
	if (!word_in(value, bool_on) && !word_in(value, bool_off))
		return error_set(err, EINVAL, "-cpu %s=%s: the value must be 'on' or 'off'", key,
				 value);
	edit_feature(m, word, bit, word_in(value, bool_on));
	return 0;
}

static int parse_edit(struct cpu_model *m, char *edit, struct error *err)
{
	if (edit[0] == '+' || edit[0] == '-')
		return parse_feature(m, edit + 1, edit[0] == '+', err);
	char *value = strchr(edit, '=');
	if (!value)
		return parse_feature(m, edit, true, err);
	*value++ = '\0';
	return parse_assignment(m, edit, value, err);
}

/* ---- Models that are made of what is there ---- */

static uint32_t all_named(unsigned word)
{
	uint32_t bits = 0;
	for (unsigned n = 0; n < 32; n++)
		bits |= feature_names[word][n] ? UINT32_C(1) << n : 0;
	return bits;
}

static void fill_max(struct cpu_model *m)
{
	for (unsigned word = 0; word < FEATURE_WORDS; word++)
		*feature_word(m, word) = all_named(word);
}

static void fill_host(struct cpu_model *m)
{
	uint32_t a, b, c, d;
	fill_max(m);
	__cpuid(0, a, b, c, d);
	m->max_basic = a;
	store_le32(m->vendor, b);
	store_le32(m->vendor + 4, d);
	store_le32(m->vendor + 8, c);
	__cpuid(1, a, b, c, d);
	m->stepping = a & 0xF;
	m->family = a >> 8 & 0xF;
	m->model = a >> 4 & 0xF;
	if (m->family == 6 || m->family == 15)
		m->model |= a >> 12 & 0xF0;
	if (m->family == 15)
		m->family += a >> 20 & 0xFF;
	m->features_edx &= d;
	m->features_ecx &= c;
	__cpuid(EXTENDED_LEAF, a, b, c, d);
	m->max_extended = a < EXTENDED_LEAF + 8 ? a : EXTENDED_LEAF + 8;
	if (a >= EXTENDED_LEAF + 1) {
		__cpuid(EXTENDED_LEAF + 1, a, b, c, d);
		m->ext_features_edx &= d;
		m->ext_features_ecx &= c;
	}
	if (m->max_extended >= EXTENDED_LEAF + 4) {
		for (unsigned n = 0; n < 3; n++) {
			__cpuid(EXTENDED_LEAF + 2 + n, a, b, c, d);
			store_le32(m->brand + 16 * n, a);
			store_le32(m->brand + 16 * n + 4, b);
			store_le32(m->brand + 16 * n + 8, c);
			store_le32(m->brand + 16 * n + 12, d);
		}
	}
	/* The leaves made here describe four; what the host has above them is an engine's to pass
	 * through. */
	if (m->max_basic > 4)
		m->max_basic = 4;
}

static int unknown_model(const char *name, struct error *err)
{
	const char *list[ARRAY_SIZE(models) + 1];
	char all[256] = "";
	for (unsigned n = 0; n < ARRAY_SIZE(models); n++) {
		list[n] = models[n].model.name;
		size_t len = strlen(all);
		snprintf(all + len, sizeof(all) - len, "%s%s", n ? ", " : "", list[n]);
	}
	list[ARRAY_SIZE(models)] = NULL;
	const char *near = nearest_word(name, list);
	return error_set(err, EINVAL, "unknown CPU model '%s'; %s%s%sknown models: %s", name,
			 near ? "did you mean '" : "", near ? near : "", near ? "'? " : "", all);
}

int cpu_model_parse(const char *spec, struct cpu_model *model, struct error *err)
{
	char *copy = xstrdup(spec), *rest = copy;
	const char *name = strsep(&rest, ",");
	const struct model_row *row = NULL;
	int r = 0;

	for (unsigned n = 0; n < ARRAY_SIZE(models); n++) {
		if (!strcmp(name, models[n].model.name))
			row = &models[n];
	}
	if (!row) {
		r = unknown_model(name, err);
		goto out;
	}
	*model = row->model;
	if (model->max)
		fill_max(model);
	else if (model->host)
		fill_host(model);
	model->features_ecx |= CPUID_ECX_HYPERVISOR;
	for (char *edit; r == 0 && (edit = strsep(&rest, ",")) != NULL;) {
		if (*edit)
			r = parse_edit(model, edit, err);
	}
out:
	free(copy);
	return r;
}

void cpu_model_help(void)
{
	printf("Available CPUs:\n");
	for (unsigned n = 0; n < ARRAY_SIZE(models); n++)
		printf("x86 %-10s %s\n", models[n].model.name, models[n].help);
	printf("\nRecognized CPUID flags (+NAME, -NAME, NAME=on|off):\n");
	const char *list[FEATURE_WORDS * 32 + 32];
	unsigned column = 0;
	list_edits(list);
	for (const char **name = list; *name; name++) {
		if (column + strlen(*name) + 1 > 76) {
			printf("\n");
			column = 0;
		}
		if (column == 0)
			printf(" ");
		column += (unsigned)printf(" %s", *name);
	}
	printf("\n");
}
