/* SPDX-License-Identifier: MIT */
/* The software engine: its thread, turns, sleeping, pausing, events. */
#include "core/iobus.h"
#include "core/memory.h"
#include "lib/bytes.h"
#include "lib/clock.h"
#include "lib/loop.h"
#include "lib/optstr.h"
#include "vmm/engine.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	AT_COUNTER = 0x500, /* a dword for each CPU */
	AT_CODE = 0x1000,
	AT_HANDLER = 0x2000,
	VECTOR = 0x20,
	MAX_CPUS = 4,
};

struct vm {
	struct loop *loop;
	struct clock *clock;
	struct memory *mem;
	struct iobus *io;
	struct cpu_model model;
	struct engine *e;
	uint8_t *ram;
	unsigned acks, triple_faults;
};

static int ack(void *opaque, unsigned cpu)
{
	struct vm *vm = opaque;
	vm->acks++;
	vm->e->ops->set_intr(vm->e, cpu, false);
	return VECTOR;
}

static void event(void *opaque, unsigned cpu, enum engine_event event, const char *detail)
{
	struct vm *vm = opaque;
	if (event == ENGINE_TRIPLE_FAULT)
		vm->triple_faults++;
}

/* Real mode, flat at 0, from AT_CODE on. */
static void set_state(struct vm *vm, unsigned cpu)
{
	struct cpu_state s;
	struct error err = ERROR_INIT;
	cpu_state_reset(&s, cpu == 0, cpu_model_signature(&vm->model));
	for (unsigned n = 0; n < 6; n++) {
		s.seg[n].selector = 0;
		s.seg[n].base = 0;
	}
	s.eip = AT_CODE;
	s.gpr[R_ESP] = 0x8000;
	assert_int_equal(vm->e->ops->set_state(vm->e, cpu, &s, &err), 0);
}

static struct vm *start(const uint8_t *code, size_t len, unsigned cpus)
{
	struct error err = ERROR_INIT;
	struct vm *vm = calloc(1, sizeof(*vm));
	vm->loop = loop_new(&err);
	vm->clock = clock_new(vm->loop);
	vm->mem = memory_new();
	vm->io = iobus_new();
	struct mem_region *ram = mem_region_new_ram(vm->mem, "ram", MIB, &err);
	mem_mapping_set(mem_map(vm->mem, ram, 0, 0, MIB, MEM_PRIO_RAM), 0, MEM_RW);
	vm->ram = ram->host;
	assert_int_equal(cpu_model_parse("qemu32", &vm->model, &err), 0);
	struct engine_config config = {
		.cpus = cpus,
		.model = &vm->model,
		.mem = vm->mem,
		.io = vm->io,
		.loop = vm->loop,
		.clock = vm->clock,
		.ack = ack,
		.event = event,
		.opaque = vm,
	};
	/* The runner runs this program a second time, with MINIVM_TEST_CPU=interpreter. */
	const char *what = getenv("MINIVM_TEST_CPU");
	struct soft_settings settings = {
		.jit = what && !strcmp(what, "interpreter") ? SOFT_JIT_OFF : SOFT_JIT_AUTO};
	vm->e = engine_new_soft(&config, &settings, &err);
	assert_non_null(vm->e);
	memcpy(vm->ram + AT_CODE, code, len);
	/* INC DWORD [AT_COUNTER + 16]; IRET */
	static const uint8_t handler[] = {0x66, 0xFF, 0x06, 0x10, 0x05, 0xCF};
	memcpy(vm->ram + AT_HANDLER, handler, sizeof(handler));
	store_le32(vm->ram + 4 * VECTOR, AT_HANDLER);
	for (unsigned n = 0; n < cpus; n++)
		set_state(vm, n);
	assert_int_equal(vm->e->ops->start(vm->e, &err), 0);
	loop_lock(vm->loop);
	clock_start(vm->clock);
	vm->e->ops->resume(vm->e);
	loop_unlock(vm->loop);
	return vm;
}

static void stop(struct vm *vm)
{
	vm->e->ops->free(vm->e);
	iobus_free(vm->io);
	memory_free(vm->mem);
	clock_free(vm->clock);
	loop_free(vm->loop);
	free(vm);
}

static uint32_t counter(struct vm *vm, unsigned n)
{
	return __atomic_load_n((uint32_t *)(vm->ram + AT_COUNTER + 4 * n), __ATOMIC_SEQ_CST);
}

/* Waits until the counter reached `value`; fails after a minute. */
static void wait_counter(struct vm *vm, unsigned n, uint32_t value)
{
	for (unsigned tries = 0; counter(vm, n) < value; tries++) {
		assert_true(tries < 60000);
		usleep(1000);
	}
}

static void paused(struct vm *vm, bool on)
{
	loop_lock(vm->loop);
	if (on)
		vm->e->ops->pause(vm->e);
	else
		vm->e->ops->resume(vm->e);
	loop_unlock(vm->loop);
}

/* INC DWORD [AT_COUNTER]; JMP to it */
static const uint8_t counting[] = {0x66, 0xFF, 0x06, 0x00, 0x05, 0xEB, 0xF9};
/* STI; HLT; JMP to HLT */
static const uint8_t sleeping[] = {0xFB, 0xF4, 0xEB, 0xFD};

static void pause_stands_still_and_resume_goes_on(void **state)
{
	struct vm *vm = start(counting, sizeof(counting), 1);
	for (unsigned n = 0; n < 20; n++) {
		wait_counter(vm, 0, counter(vm, 0) + 1);
		paused(vm, true);
		uint32_t value = counter(vm, 0);
		usleep(2000);
		assert_int_equal(counter(vm, 0), value);
		struct cpu_state s;
		assert_int_equal(vm->e->ops->get_state(vm->e, 0, &s, NULL), 0);
		assert_in_range(s.eip, AT_CODE, AT_CODE + sizeof(counting));
		paused(vm, false);
	}
	stop(vm);
}

static uint64_t process_cpu_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

static void halted_cpu_sleeps_until_an_interrupt(void **state)
{
	struct vm *vm = start(sleeping, sizeof(sleeping), 1);
	for (uint32_t n = 1; n <= 200; n++) {
		loop_lock(vm->loop);
		vm->e->ops->set_intr(vm->e, 0, true);
		loop_unlock(vm->loop);
		wait_counter(vm, 4, n);
	}
	assert_int_equal(vm->acks, 200);
	uint64_t before = process_cpu_ns();
	usleep(100000);
	assert_true(process_cpu_ns() - before < 20000000);
	stop(vm);
}

static void cpus_take_turns_after_sipi(void **state)
{
	/* MOV BX, AX (the CPU's number); SHL BX, 2; INC DWORD [BX + AT_COUNTER]; JMP */
	static const uint8_t code[] = {0x89, 0xC3, 0xC1, 0xE3, 0x02, 0x66,
				       0xFF, 0x87, 0x00, 0x05, 0xEB, 0xF9};
	/* At 0x3000, for SIPI: MOV AX, 1; JMP AT_CODE */
	static const uint8_t startup[] = {0xB8, 0x01, 0x00, 0xEA, 0x00, 0x10, 0x00, 0x00};
	struct vm *vm = start(code, sizeof(code), 2);
	wait_counter(vm, 0, 100000);
	assert_int_equal(counter(vm, 1), 0);
	loop_lock(vm->loop);
	mem_write(vm->mem, 0x3000, startup, sizeof(startup));
	vm->e->ops->init(vm->e, 1);
	vm->e->ops->sipi(vm->e, 1, 3);
	loop_unlock(vm->loop);
	wait_counter(vm, 1, 100000);
	for (unsigned n = 0; n < 3; n++) { /* each goes on while the other runs */
		wait_counter(vm, 0, counter(vm, 0) + 1000);
		wait_counter(vm, 1, counter(vm, 1) + 1000);
	}
	stop(vm);
}

/* The lock is free only inside the owner's loop, between two jumps: the other must get it all the
 * same. */
static void spinning_cpu_gives_up_its_turn(void **state)
{
	enum { AT_LOCK = 0x600 };
	static const uint8_t owner[] = {
		0xC6, 0x06, 0x00, 0x06, 0x00,             /* again: MOV BYTE [AT_LOCK], 0 */
		0xF3, 0x90,                               /* wait: PAUSE */
		0xF0, 0x0F, 0xBA, 0x2E, 0x00, 0x06, 0x00, /* LOCK BTS WORD [AT_LOCK], 0 */
		0x72, 0xF5,                               /* JC wait */
		0xEB, 0xEE,                               /* JMP again */
	};
	static const uint8_t other[] = {
		0xF3, 0x90,                               /* wait: PAUSE */
		0xF0, 0x0F, 0xBA, 0x2E, 0x00, 0x06, 0x00, /* LOCK BTS WORD [AT_LOCK], 0 */
		0x72, 0xF5,                               /* JC wait */
		0x66, 0xFF, 0x06, 0x04, 0x05,             /* INC DWORD [AT_COUNTER + 4] */
		0xC6, 0x06, 0x00, 0x06, 0x00,             /* MOV BYTE [AT_LOCK], 0 */
		0xEA, 0x00, 0x00, 0x00, 0x03,             /* JMP 0300:0000 */
	};
	struct vm *vm = start(owner, sizeof(owner), 2);
	loop_lock(vm->loop);
	mem_write(vm->mem, 0x3000, other, sizeof(other));
	vm->e->ops->init(vm->e, 1);
	vm->e->ops->sipi(vm->e, 1, 3);
	loop_unlock(vm->loop);
	wait_counter(vm, 1, 100);
	stop(vm);
}

static void triple_fault_is_told_once(void **state)
{
	/* LIDT of a zero limit, then UD2. */
	static const uint8_t code[] = {0x0F, 0x01, 0x1E, 0x00, 0x06, 0x0F, 0x0B};
	struct vm *vm = start(code, sizeof(code), 1);
	for (unsigned tries = 0; !__atomic_load_n(&vm->triple_faults, __ATOMIC_SEQ_CST); tries++) {
		assert_true(tries < 60000);
		usleep(1000);
	}
	usleep(10000);
	paused(vm, true);
	assert_int_equal(vm->triple_faults, 1);
	/* The machine resets it. */
	memcpy(vm->ram + AT_CODE, counting, sizeof(counting));
	set_state(vm, 0);
	paused(vm, false);
	wait_counter(vm, 0, 10);
	stop(vm);
}

static void tscs_set_while_paused_agree(void **state)
{
	struct vm *vm = start(counting, sizeof(counting), 2);
	struct cpu_state a, b;
	wait_counter(vm, 0, 1000);
	paused(vm, true);
	set_state(vm, 0);
	usleep(2000);
	set_state(vm, 1);
	assert_int_equal(vm->e->ops->get_state(vm->e, 0, &a, NULL), 0);
	assert_int_equal(vm->e->ops->get_state(vm->e, 1, &b, NULL), 0);
	assert_int_equal(a.tsc, b.tsc);
	stop(vm);
}

static void writes_by_devices_change_running_code(void **state)
{
	struct vm *vm = start(counting, sizeof(counting), 1);
	wait_counter(vm, 0, 1000);
	loop_lock(vm->loop);
	const uint8_t to_second = 0x04; /* the displacement: AT_COUNTER + 4 */
	mem_write(vm->mem, AT_CODE + 3, &to_second, 1);
	loop_unlock(vm->loop);
	wait_counter(vm, 1, 1000);
	stop(vm);
}

static void describe_counts(void **state)
{
	struct vm *vm = start(counting, sizeof(counting), 1);
	struct strbuf out = STRBUF_INIT;
	wait_counter(vm, 0, 2000000);
	paused(vm, true);
	vm->e->ops->describe(vm->e, &out);
	assert_non_null(strstr(strbuf_str(&out), "MIPS"));
	strbuf_free(&out);
	stop(vm);
}

/* What is said of the properties, or NULL if they are taken. */
static const char *refusal(const char *text, struct soft_settings *s)
{
	static struct error err;
	struct opts opts;
	err = ERROR_INIT;
	*s = (struct soft_settings){0};
	assert_int_equal(opts_parse(&opts, text, NULL, &err), 0);
	int r = soft_settings_parse(s, &opts, "-accel", &err);
	opts_free(&opts);
	return r ? err.text : NULL;
}

static void properties_are_checked(void **state)
{
	struct soft_settings s;
	assert_non_null(strstr(refusal("thread=multi", &s), "single"));
	assert_non_null(strstr(refusal("tb-size=0", &s), "tb-size"));
	assert_non_null(strstr(refusal("tb-size=9999999", &s), "tb-size"));
	assert_non_null(strstr(refusal("jit=maybe", &s), "jit"));
	assert_non_null(strstr(refusal("verify=1,jit=off", &s), "verify"));
	assert_null(refusal("jit=off,thread=single", &s));
	assert_int_equal(s.jit, SOFT_JIT_OFF);
	assert_null(refusal("tb-size=32,verify=7", &s));
	assert_int_equal(s.jit, SOFT_JIT_ON);
	assert_int_equal(s.code_size, 32 * MIB);
	assert_int_equal(s.verify, 7);
	assert_null(refusal("", &s));
	assert_int_equal(s.jit, SOFT_JIT_AUTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pause_stands_still_and_resume_goes_on),
		cmocka_unit_test(halted_cpu_sleeps_until_an_interrupt),
		cmocka_unit_test(cpus_take_turns_after_sipi),
		cmocka_unit_test(spinning_cpu_gives_up_its_turn),
		cmocka_unit_test(triple_fault_is_told_once),
		cmocka_unit_test(tscs_set_while_paused_agree),
		cmocka_unit_test(writes_by_devices_change_running_code),
		cmocka_unit_test(describe_counts),
		cmocka_unit_test(properties_are_checked),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
