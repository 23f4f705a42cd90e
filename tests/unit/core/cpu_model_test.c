/* SPDX-License-Identifier: MIT */
/* `-cpu` and the CPUID leaves that come of it. */
#include "core/cpu_model.h"
#include "lib/bytes.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct cpu_model parse(const char *spec)
{
	struct cpu_model m;
	struct error err = ERROR_INIT;
	assert_int_equal(cpu_model_parse(spec, &m, &err), 0);
	return m;
}

static void edits_are_applied_in_order(void **state)
{
	struct cpu_model m =
		parse("qemu32,-sse2,+sse3,nx=on,pae=off,+pae,family=5,stepping=2,mtrr=off");
	assert_false(m.features_edx & CPUID_SSE2);
	assert_true(m.features_edx & CPUID_PAE);
	assert_false(m.features_edx & CPUID_MTRR);
	assert_true(m.features_ecx & 1);
	assert_true(m.ext_features_edx & CPUID_EXT_NX);
	assert_int_equal(m.family, 5);
	assert_int_equal(m.stepping, 2);
	assert_int_equal(m.plus[0], CPUID_PAE);
	assert_int_equal(m.minus[0], CPUID_SSE2 | CPUID_MTRR);
	assert_int_equal(m.plus[2], CPUID_EXT_NX);
}

static void errors_name_the_nearest(void **state)
{
	static const struct {
		const char *spec, *expected;
	} cases[] = {
		{"qemu33", "'qemu32'"},
		{"pentium4,+sse", "known models"},
		{"qemu32,+see2", "'sse2'"},
		{"qemu32,ssse2", "'ss"},
		{"qemu32,pae=maybe", "'on' or 'off'"},
		{"qemu32,vendor=x", "12 characters"},
		{"qemu32,family=9999", "family"},
		{"", "known models"},
	};
	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		struct cpu_model m;
		struct error err = ERROR_INIT;
		assert_true(cpu_model_parse(cases[n].spec, &m, &err) < 0);
		assert_non_null(strstr(err.text, cases[n].expected));
	}
}

static void signature_has_extended_fields(void **state)
{
	assert_int_equal(
		cpu_model_signature(&(struct cpu_model){.family = 6, .model = 6, .stepping = 3}),
		0x663);
	assert_int_equal(cpu_model_signature(
				 &(struct cpu_model){.family = 26, .model = 0x44, .stepping = 0}),
			 0x00B40F40);
}

static void lookups_beyond_the_last_leaf_give_the_highest_basic_one(void **state)
{
	struct cpu_model m = parse("qemu32");
	struct cpuid_leaf leaf[CPUID_MAX_LEAVES], out, last;
	unsigned count = cpu_model_leaves(&m, 0, 1, leaf);
	cpuid_lookup(leaf, count, 4, 0, &last);
	assert_int_equal(last.eax & 0x1F, 1); /* L1 data */
	cpuid_lookup(leaf, count, 0x1000, 0, &out);
	assert_int_equal(out.eax, last.eax);
	cpuid_lookup(leaf, count, 0x80000100, 0, &out);
	assert_int_equal(out.eax, last.eax);
	cpuid_lookup(leaf, count, 4, 9, &out);
	assert_int_equal(out.eax, 0); /* no more caches */
	cpuid_lookup(leaf, count, 3, 0, &out);
	assert_int_equal(out.eax | out.ebx | out.ecx | out.edx, 0);
}

static void topology_counts_cores(void **state)
{
	struct cpu_model m = parse("qemu32");
	struct cpuid_leaf leaf[CPUID_MAX_LEAVES], out;
	unsigned count = cpu_model_leaves(&m, 3, 4, leaf);
	cpuid_lookup(leaf, count, 1, 0, &out);
	assert_int_equal(out.ebx >> 24, 3);
	assert_int_equal(out.ebx >> 16 & 0xFF, 4);
	assert_true(out.edx & 1 << 28);
	cpuid_lookup(leaf, count, 4, 0, &out);
	assert_int_equal(out.eax >> 26, 3);
	count = cpu_model_leaves(&m, 0, 1, leaf);
	cpuid_lookup(leaf, count, 1, 0, &out);
	assert_false(out.edx & 1 << 28);
}

static void brand_string_fills_three_leaves(void **state)
{
	struct cpu_model m = parse("pentium3,model-id=A processor with a name of its own");
	struct cpuid_leaf leaf[CPUID_MAX_LEAVES], out;
	char brand[49] = "";
	unsigned count = cpu_model_leaves(&m, 0, 1, leaf);
	for (unsigned n = 0; n < 3; n++) {
		cpuid_lookup(leaf, count, 0x80000002 + n, 0, &out);
		store_le32(brand + 16 * n, out.eax);
		store_le32(brand + 16 * n + 4, out.ebx);
		store_le32(brand + 16 * n + 8, out.ecx);
		store_le32(brand + 16 * n + 12, out.edx);
	}
	assert_string_equal(brand, m.brand);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(edits_are_applied_in_order),
		cmocka_unit_test(errors_name_the_nearest),
		cmocka_unit_test(signature_has_extended_fields),
		cmocka_unit_test(lookups_beyond_the_last_leaf_give_the_highest_basic_one),
		cmocka_unit_test(topology_counts_cores),
		cmocka_unit_test(brand_string_fills_three_leaves),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
