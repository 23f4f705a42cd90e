/* SPDX-License-Identifier: MIT */
/* The ACPI tables: placed as the loader script says, checked sum by sum and by the AML compiler. */
#include "bios/internal.h"
#include "core/iobus.h"
#include "core/memory.h"
#include "core/state.h"
#include "devices/fw_cfg.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { RSDP_BASE = 0xf5000, TABLES_BASE = 0x7fe0000 };

struct fixture {
	struct device_env env;
	struct fw_cfg *fw;
	uint8_t rsdp[64];
	uint8_t tables[64 * 1024];
	size_t tables_len;
};

static struct firmware_config config(void)
{
	static const struct firmware_boot boot;

	return (struct firmware_config){
		.low_ram = 128 * MIB,
		.cpus = 2,
		.floppy = {FLOPPY_CMOS_1_44M, FLOPPY_CMOS_NONE},
		.fdc = true,
		.serial = {true, true},
		.parallel = {true},
		.boot = &boot,
	};
}

static uint8_t *file_at(struct fixture *f, const char *name, uint64_t *base)
{
	bool root = !strcmp(name, "etc/acpi/rsdp");

	*base = root ? RSDP_BASE : TABLES_BASE;
	return root ? f->rsdp : f->tables;
}

/* What the firmware does with the script. */
static void run_loader(struct fixture *f)
{
	size_t len, n;
	const uint8_t *script = fw_cfg_file(f->fw, "etc/table-loader", &len);
	uint64_t base, ignored;

	assert_non_null(script);
	assert_int_equal(len % 128, 0);
	for (size_t at = 0; at < len; at += 128) {
		const uint8_t *c = script + at;
		const char *name = (const char *)c + 4;
		uint8_t *data = file_at(f, name, &base);
		switch (load_le32(c)) {
		case 1: {
			const void *contents = fw_cfg_file(f->fw, name, &n);
			assert_non_null(contents);
			assert_true(base % load_le32(c + 60) == 0);
			assert_true(n <= (data == f->rsdp ? sizeof(f->rsdp) : sizeof(f->tables)));
			memcpy(data, contents, n);
			if (data == f->tables)
				f->tables_len = n;
			break;
		}
		case 2: {
			unsigned size = c[120];
			uint32_t offset = load_le32(c + 116);
			file_at(f, (const char *)c + 60, &base);
			store_le(data + offset, load_le(data + offset, size) + base, size);
			break;
		}
		case 3: {
			uint32_t offset = load_le32(c + 60), start = load_le32(c + 64);
			uint32_t length = load_le32(c + 68);
			uint8_t sum = 0;
			for (uint32_t i = 0; i < length; i++)
				sum += data[start + i];
			data[offset] = (uint8_t)(data[offset] - sum);
			break;
		}
		default: fail();
		}
	}
	(void)ignored;
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct firmware_config c = config();
	struct error err = ERROR_INIT;

	f->env = (struct device_env){
		.mem = memory_new(), .io = iobus_new(), .states = state_registry_new()};
	f->fw = fw_cfg_new(&f->env);
	if (acpi_add(&c, f->fw, &err) < 0)
		return -1;
	run_loader(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fw_cfg_free(f->fw);
	state_registry_free(f->env.states);
	iobus_free(f->env.io);
	memory_free(f->env.mem);
	free(f);
	return 0;
}

static uint8_t *table(struct fixture *f, uint32_t addr, const char *signature)
{
	assert_true(addr >= TABLES_BASE && addr - TABLES_BASE < f->tables_len - 36);
	uint8_t *t = f->tables + (addr - TABLES_BASE);
	uint32_t len = load_le32(t + 4);
	uint8_t sum = 0;

	assert_memory_equal(t, signature, 4);
	if (!memcmp(signature, "FACS", 4)) {
		assert_int_equal(addr % 64, 0);
		return t;
	}
	assert_true(addr - TABLES_BASE + len <= f->tables_len);
	for (uint32_t i = 0; i < len; i++)
		sum += t[i];
	assert_int_equal(sum, 0);
	return t;
}

static void every_table_is_reached_from_the_root_pointer_and_sums_to_zero(void **state)
{
	struct fixture *f = *state;
	uint8_t sum = 0;

	assert_memory_equal(f->rsdp, "RSD PTR ", 8);
	for (int i = 0; i < 20; i++)
		sum += f->rsdp[i];
	assert_int_equal(sum, 0);

	uint8_t *rsdt = table(f, load_le32(f->rsdp + 16), "RSDT");
	assert_int_equal(load_le32(rsdt + 4), 36 + 2 * 4);
	uint8_t *fadt = table(f, load_le32(rsdt + 36), "FACP");
	table(f, load_le32(fadt + 36), "FACS");
	table(f, load_le32(fadt + 40), "DSDT");
	assert_int_equal(load_le64(fadt + 140), load_le32(fadt + 40));
	assert_int_equal(load_le32(fadt + 56), 0x600);
	assert_int_equal(load_le32(fadt + 64), 0x604);
	assert_int_equal(load_le32(fadt + 76), 0x608);
	table(f, load_le32(rsdt + 40), "APIC");
}

static void madt_has_a_local_apic_for_each_cpu(void **state)
{
	struct fixture *f = *state;
	uint8_t *rsdt = table(f, load_le32(f->rsdp + 16), "RSDT");
	uint8_t *madt = table(f, load_le32(rsdt + 40), "APIC");
	uint32_t len = load_le32(madt + 4), at = 44;
	unsigned cpus = 0, ioapics = 0, timer_gsi = 0;

	while (at < len) {
		assert_true(madt[at + 1] >= 2);
		cpus += madt[at] == 0;
		ioapics += madt[at] == 1;
		if (madt[at] == 2 && madt[at + 3] == 0)
			timer_gsi = load_le32(madt + at + 4);
		at += madt[at + 1];
	}
	assert_int_equal(at, len);
	assert_int_equal(cpus, 2);
	assert_int_equal(ioapics, 1);
	assert_int_equal(timer_gsi, 2);
}

/* Writes a table to a file and has iasl disassemble it and compile the result again. */
static void check_with_iasl(const uint8_t *t, const char *name)
{
	char dir[] = "/tmp/minivm-acpi-XXXXXX", path[128];

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/%s.aml", dir, name);
	FILE *out = fopen(path, "wb");
	assert_non_null(out);
	fwrite(t, 1, load_le32(t + 4), out);
	fclose(out);
	char *cmd =
		xasprintf("cd %s && iasl -d %s.aml >log 2>&1 && ! grep -i -E "
			  "'error|invalid|warning|could not' log && iasl -ve %s.dsl >log2 2>&1 || "
			  "{ cat log*; exit 1; }",
			  dir, name, name);
	int status = system(cmd);
	free(cmd);
	cmd = xasprintf("rm -r %s", dir);
	if (system(cmd))
		print_message("left over: %s\n", dir);
	free(cmd);
	assert_int_equal(status, 0);
}

static void iasl_reads_every_table_and_compiles_it_again(void **state)
{
	struct fixture *f = *state;

	if (system("iasl -v >/dev/null 2>&1")) {
		print_message("SKIP: no iasl (package acpica-tools)\n");
		skip();
	}
	uint8_t *rsdt = table(f, load_le32(f->rsdp + 16), "RSDT");
	uint8_t *fadt = table(f, load_le32(rsdt + 36), "FACP");
	check_with_iasl(table(f, load_le32(fadt + 40), "DSDT"), "dsdt");
	check_with_iasl(fadt, "facp");
	check_with_iasl(table(f, load_le32(rsdt + 40), "APIC"), "apic");
	check_with_iasl(rsdt, "rsdt");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			every_table_is_reached_from_the_root_pointer_and_sums_to_zero, setup,
			teardown),
		cmocka_unit_test_setup_teardown(madt_has_a_local_apic_for_each_cpu, setup,
						teardown),
		cmocka_unit_test_setup_teardown(iasl_reads_every_table_and_compiles_it_again, setup,
						teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
