/* SPDX-License-Identifier: MIT */
/* Lock-step mode: it sees what translated code does wrong, and nothing else. */
#include "cpu/jit.h"
#include "lib/strbuf.h"
#include "tests/unit/cpu/core_machine.h"

enum { MARK = 0x12345678, OTHER_MARK = 0x12345679 };

/* A machine whose translator is in lock-step whatever the runner asked for. */
static int setup(void **state)
{
	setenv("MINIVM_TEST_CPU", "verify", 1);
	return machine_setup(state);
}

static struct jit_cache *cache_of(struct machine *m)
{
	return m->cpu->code->jit;
}

/* Replaces what translated code has as an immediate; returns how often. */
static unsigned tamper(struct machine *m, uint32_t from, uint32_t to)
{
	struct jit_cache *jc = cache_of(m);
	unsigned found = 0;

	for (uint8_t *p = jc->hot_start; p + 4 <= jc->hot.at; p++) {
		if (load_le32(p) == from) {
			store_le32(p, to);
			found++;
		}
	}
	return found;
}

/* Runs `code` for a while, tampers with what was made of it, and goes on. */
static const char *difference_after(struct machine *m, const uint8_t *code, size_t len,
				    uint32_t from, uint32_t to)
{
	memcpy(m->ram + AT_CODE, code, len);
	soft_cpu_set_state(m->cpu, &m->s);
	assert_int_equal(soft_cpu_run(m->cpu, 20000), SOFT_BUDGET);
	assert_true(cache_of(m)->stats.verified > 100);
	assert_int_equal(cache_of(m)->stats.unverified, 0);
	assert_true(tamper(m, from, to) > 0);
	assert_int_equal(soft_cpu_run(m->cpu, 20000), SOFT_DIFFERS);
	/* It does not go on. */
	assert_int_equal(soft_cpu_run(m->cpu, 20000), SOFT_DIFFERS);
	return soft_cpu_difference(m->cpu);
}

static void a_wrong_register_is_a_difference(void **state)
{
	/* again: xor eax, MARK; inc ecx; jmp again */
	static const uint8_t code[] = {0x35, BYTES32(MARK), 0x41, 0xEB, 0xF8};
	const char *text = difference_after(*state, code, sizeof(code), MARK, OTHER_MARK);

	assert_non_null(strstr(text, "* eax"));
	assert_null(strstr(text, "* ecx"));
	assert_null(strstr(text, "* eip"));
	assert_non_null(strstr(text, "35 78 56 34 12"));
}

static void wrong_memory_is_a_difference(void **state)
{
	/* again: mov dword [AT_DATA], MARK; inc ecx; jmp again */
	static const uint8_t code[] = {0xC7, 0x05, BYTES32(AT_DATA), BYTES32(MARK), 0x41,
				       0xEB, 0xF3};
	const char *text = difference_after(*state, code, sizeof(code), MARK, OTHER_MARK);

	assert_non_null(strstr(text, "* memory at 00040000"));
	assert_null(strstr(text, "* eax"));
}

static void wrong_flags_are_a_difference(void **state)
{
	/* again: cmp ebx, MARK; inc ecx (which leaves CF); nop; jmp again */
	static const uint8_t code[] = {0x81, 0xFB, BYTES32(MARK), 0x41, 0x90, 0xEB, 0xF6};
	struct machine *m = *state;

	m->s.gpr[R_EBX] = MARK;
	assert_non_null(
		strstr(difference_after(m, code, sizeof(code), MARK, OTHER_MARK), "* flags"));
}

static void undefined_flags_are_none(void **state)
{
	/* again: add ebx, 3; imul eax, ebx; shl eax, 5; bsr edx, ebx; and eax, edx; jmp
	 * again */
	static const uint8_t code[] = {0x83, 0xC3, 0x03, 0x0F, 0xAF, 0xC3, 0xC1, 0xE0,
				       0x05, 0x0F, 0xBD, 0xD3, 0x21, 0xD0, 0xEB, 0xF0};
	struct machine *m = *state;

	memcpy(m->ram + AT_CODE, code, sizeof(code));
	soft_cpu_set_state(m->cpu, &m->s);
	assert_int_equal(soft_cpu_run(m->cpu, 20000), SOFT_BUDGET);
	assert_true(cache_of(m)->stats.verified > 100);
}

/* A device sees each access once, whatever is rehearsed. */
static void devices_are_touched_once(void **state)
{
	/* mov ecx, 100; again: inc ebx; mov [AT_MMIO], ebx; mov edx, [AT_MMIO + 8]; dec ecx; jnz
	 * again; hlt */
	static const uint8_t code[] = {
		0xB9, BYTES32(100),         0x43, 0x89, 0x1D, BYTES32(AT_MMIO), 0x8B,
		0x15, BYTES32(AT_MMIO + 8), 0x49, 0x75, 0xF0};
	struct machine *m = *state;

	machine_code(m, code, sizeof(code));
	machine_go(m, 100000);
	assert_ran(m, sizeof(code));
	assert_int_equal(m->mmio_writes, 100);
	assert_int_equal(m->mmio_reads, 100);
	assert_int_equal(m->mmio_value, 100);
	assert_int_equal(m->s.gpr[R_EDX], 8);
	assert_true(cache_of(m)->stats.verified > 100);
}

static void counters_are_told(void **state)
{
	static const uint8_t code[] = {0x40, 0xEB, 0xFD};
	struct machine *m = *state;
	struct strbuf out = STRBUF_INIT;

	memcpy(m->ram + AT_CODE, code, sizeof(code));
	soft_cpu_set_state(m->cpu, &m->s);
	assert_int_equal(soft_cpu_run(m->cpu, 2000), SOFT_BUDGET);
	assert_true(soft_cpu_translated_blocks(m->cpu) > 0);
	soft_cpu_describe_jit(m->cpu, &out);
	assert_non_null(strstr(strbuf_str(&out), "lock-step"));
	strbuf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_wrong_register_is_a_difference, setup,
						machine_teardown),
		cmocka_unit_test_setup_teardown(wrong_memory_is_a_difference, setup,
						machine_teardown),
		cmocka_unit_test_setup_teardown(wrong_flags_are_a_difference, setup,
						machine_teardown),
		cmocka_unit_test_setup_teardown(undefined_flags_are_none, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(devices_are_touched_once, setup, machine_teardown),
		cmocka_unit_test_setup_teardown(counters_are_told, setup, machine_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
