/* SPDX-License-Identifier: MIT */
/*
 * ACPI tables and how they get into the guest's memory.
 *
 * All tables but the root pointer form one file. The firmware decides where it lies in memory, so
 * it is handed a script besides: allocate these files, add the address of this one to the pointer
 * at that offset of the other, then compute the checksums (each step is one 128-byte command).
 *
 *   etc/acpi/tables   FACS, DSDT, FADT, MADT, RSDT
 *   etc/acpi/rsdp     root pointer, revision 0 (32-bit addresses)
 *   etc/table-loader  the script
 *
 * Documents: ACPI 6.4, chapter 5.2; 82371AB (PIIX4) chapter 7 for the power management registers,
 * whose base the firmware sets to 600h; QEMU, docs/specs (the loader's commands are described where
 * fw_cfg's named files are).
 */
#include "bios/internal.h"
#include "devices/fw_cfg.h"
#include "lib/bytes.h"
#include <string.h>

#define TABLES_FILE "etc/acpi/tables"
#define RSDP_FILE   "etc/acpi/rsdp"
#define LOADER_FILE "etc/table-loader"

enum {
	HEADER_SIZE = 36,
	HEADER_LENGTH_AT = 4,
	HEADER_CHECKSUM_AT = 9,
	FACS_SIZE = 64,
	FADT_SIZE = 244,
	RSDP_SIZE = 20,
	RSDP_CHECKSUM_AT = 8,
	RSDP_RSDT_AT = 16,
	TABLE_ALIGN = 16,
};

/* Power management registers as the firmware and the chip place them. */
enum {
	PM_BASE = 0x600,
	PM1_EVENT = PM_BASE + 0,
	PM1_CONTROL = PM_BASE + 4,
	PM_TIMER = PM_BASE + 8,
	GPE0 = 0xafe0,
	SMI_COMMAND = 0xb2,
	SMI_ACPI_ENABLE = 0xf1,
	SMI_ACPI_DISABLE = 0xf0,
	RESET_PORT = 0xcf9,
	RESET_HARD = 0x06, /* 82371SB "RC": full reset, now */
	RTC_CENTURY = 0x32,
	SCI_IRQ = 9,
};

/* FADT fields (5.2.9) by offset, and the flags used. */
enum {
	FADT_FIRMWARE_CTRL = 36,
	FADT_DSDT = 40,
	FADT_SCI_INT = 46,
	FADT_SMI_CMD = 48,
	FADT_ACPI_ENABLE = 52,
	FADT_ACPI_DISABLE = 53,
	FADT_PM1A_EVT = 56,
	FADT_PM1A_CNT = 64,
	FADT_PM_TMR = 76,
	FADT_GPE0 = 80,
	FADT_PM1_EVT_LEN = 88,
	FADT_PM1_CNT_LEN = 89,
	FADT_PM_TMR_LEN = 91,
	FADT_GPE0_LEN = 92,
	FADT_P_LVL2_LAT = 96,
	FADT_P_LVL3_LAT = 98,
	FADT_CENTURY = 108,
	FADT_BOOT_ARCH = 109,
	FADT_FLAGS = 112,
	FADT_RESET_REG = 116,
	FADT_RESET_VALUE = 128,
	FADT_X_DSDT = 140,
	FADT_X_PM1A_EVT = 148,
	FADT_X_PM1A_CNT = 172,
	FADT_X_PM_TMR = 208,
	FADT_X_GPE0 = 220,

	BOOT_LEGACY_DEVICES = 1 << 0,
	BOOT_8042 = 1 << 1,
	FLAG_WBINVD = 1 << 0,
	FLAG_PROC_C1 = 1 << 2,
	FLAG_NO_SLEEP_BUTTON = 1 << 5,
	FLAG_RTC_S4 = 1 << 7,
	FLAG_RESET_REG = 1 << 10,
	NO_C2 = 101, /* worst latencies that mean "not supported" */
	NO_C3 = 1001,
};

/* MADT structures (5.2.12). */
enum {
	MADT_LAPIC = 0,
	MADT_IOAPIC = 1,
	MADT_OVERRIDE = 2,
	MADT_LAPIC_NMI = 4,
	MADT_PCAT_COMPAT = 1,
	LAPIC_ENABLED = 1,
	ACTIVE_HIGH_LEVEL = 0x0d,
	ALL_CPUS = 0xff,
	TIMER_GSI = 2,
};
#define LAPIC_BASE  UINT32_C(0xfee00000)
#define IOAPIC_BASE UINT32_C(0xfec00000)

static void append(struct strbuf *out, uint64_t value, unsigned size)
{
	strbuf_append(out, &value, size);
}

void acpi_header(struct strbuf *out, const char signature[4], uint8_t revision)
{
	strbuf_append(out, signature, 4);
	append(out, 0, 4); /* length */
	append(out, revision, 1);
	append(out, 0, 1); /* checksum */
	strbuf_append(out, "MINIVM", 6);
	strbuf_append(out, "MINIVMPC", 8);
	append(out, 1, 4);
	strbuf_append(out, "MVM ", 4);
	append(out, 1, 4);
}

/*
 * The loader script.
 */

enum loader_command { LOADER_ALLOCATE = 1, LOADER_ADD_POINTER = 2, LOADER_ADD_CHECKSUM = 3 };
enum loader_zone { ZONE_HIGH = 1, ZONE_FSEG = 2 };
enum { LOADER_ENTRY = 128, LOADER_NAME = 56 };

static void loader_name(struct strbuf *out, const char *name)
{
	char field[LOADER_NAME] = {0};

	memcpy(field, name, strlen(name));
	strbuf_append(out, field, sizeof(field));
}

static void loader_pad(struct strbuf *out)
{
	while (out->len % LOADER_ENTRY)
		append(out, 0, 1);
}

static void loader_allocate(struct strbuf *out, const char *file, uint32_t align,
			    enum loader_zone zone)
{
	append(out, LOADER_ALLOCATE, 4);
	loader_name(out, file);
	append(out, align, 4);
	append(out, zone, 1);
	loader_pad(out);
}

static void loader_pointer(struct strbuf *out, const char *in, size_t offset, unsigned size)
{
	append(out, LOADER_ADD_POINTER, 4);
	loader_name(out, in);
	loader_name(out, TABLES_FILE);
	append(out, offset, 4);
	append(out, size, 1);
	loader_pad(out);
}

static void loader_checksum(struct strbuf *out, const char *file, size_t at, size_t start,
			    size_t length)
{
	append(out, LOADER_ADD_CHECKSUM, 4);
	loader_name(out, file);
	append(out, at, 4);
	append(out, start, 4);
	append(out, length, 4);
	loader_pad(out);
}

/*
 * The tables.
 */

struct builder {
	struct strbuf tables, script;
};

static size_t begin_table(struct builder *b, unsigned align)
{
	while (b->tables.len % align)
		append(&b->tables, 0, 1);
	return b->tables.len;
}

static void end_table(struct builder *b, size_t start)
{
	size_t length = b->tables.len - start;

	store_le32(b->tables.data + start + HEADER_LENGTH_AT, (uint32_t)length);
	loader_checksum(&b->script, TABLES_FILE, start + HEADER_CHECKSUM_AT, start, length);
}

static size_t add_facs(struct builder *b)
{
	uint8_t facs[FACS_SIZE] = "FACS";
	size_t start = begin_table(b, FACS_SIZE);

	store_le32(facs + HEADER_LENGTH_AT, FACS_SIZE);
	strbuf_append(&b->tables, facs, sizeof(facs));
	return start;
}

static size_t add_dsdt(struct builder *b, const struct firmware_config *c)
{
	struct strbuf dsdt = STRBUF_INIT;
	size_t start = begin_table(b, TABLE_ALIGN);

	dsdt_build(c, &dsdt);
	strbuf_append(&b->tables, dsdt.data, dsdt.len);
	strbuf_free(&dsdt);
	end_table(b, start);
	return start;
}

/* A register in I/O space: the 32-bit field and the generic address structure (5.2.3.2). */
static void generic_address(uint8_t *at, uint64_t port, unsigned bits)
{
	enum { SYSTEM_IO = 1 };

	at[0] = SYSTEM_IO;
	at[1] = (uint8_t)bits;
	at[3] = bits == 32 ? 3 : bits == 16 ? 2 : 1; /* access: dword, word, byte */
	store_le64(at + 4, port);
}

static size_t add_fadt(struct builder *b, size_t facs, size_t dsdt)
{
	size_t start = begin_table(b, TABLE_ALIGN);
	uint8_t t[FADT_SIZE] = {0};

	store_le32(t + FADT_FIRMWARE_CTRL, (uint32_t)facs);
	store_le32(t + FADT_DSDT, (uint32_t)dsdt);
	store_le64(t + FADT_X_DSDT, dsdt);
	store_le16(t + FADT_SCI_INT, SCI_IRQ);
	store_le32(t + FADT_SMI_CMD, SMI_COMMAND);
	t[FADT_ACPI_ENABLE] = SMI_ACPI_ENABLE;
	t[FADT_ACPI_DISABLE] = SMI_ACPI_DISABLE;
	store_le32(t + FADT_PM1A_EVT, PM1_EVENT);
	store_le32(t + FADT_PM1A_CNT, PM1_CONTROL);
	store_le32(t + FADT_PM_TMR, PM_TIMER);
	store_le32(t + FADT_GPE0, GPE0);
	t[FADT_PM1_EVT_LEN] = 4;
	t[FADT_PM1_CNT_LEN] = 2;
	t[FADT_PM_TMR_LEN] = 4;
	t[FADT_GPE0_LEN] = 4;
	store_le16(t + FADT_P_LVL2_LAT, NO_C2);
	store_le16(t + FADT_P_LVL3_LAT, NO_C3);
	t[FADT_CENTURY] = RTC_CENTURY;
	store_le16(t + FADT_BOOT_ARCH, BOOT_LEGACY_DEVICES | BOOT_8042);
	store_le32(t + FADT_FLAGS, FLAG_WBINVD | FLAG_PROC_C1 | FLAG_NO_SLEEP_BUTTON | FLAG_RTC_S4 |
					   FLAG_RESET_REG);
	generic_address(t + FADT_RESET_REG, RESET_PORT, 8);
	t[FADT_RESET_VALUE] = RESET_HARD;
	generic_address(t + FADT_X_PM1A_EVT, PM1_EVENT, 32);
	generic_address(t + FADT_X_PM1A_CNT, PM1_CONTROL, 16);
	generic_address(t + FADT_X_PM_TMR, PM_TIMER, 32);
	generic_address(t + FADT_X_GPE0, GPE0, 32);
	t[FADT_X_GPE0 + 3] = 1; /* accessed by bytes: a status and an enable half of 2 each */

	acpi_header(&b->tables, "FACP", 3);
	strbuf_append(&b->tables, t + HEADER_SIZE, sizeof(t) - HEADER_SIZE);
	loader_pointer(&b->script, TABLES_FILE, start + FADT_FIRMWARE_CTRL, 4);
	loader_pointer(&b->script, TABLES_FILE, start + FADT_DSDT, 4);
	loader_pointer(&b->script, TABLES_FILE, start + FADT_X_DSDT, 8);
	end_table(b, start);
	return start;
}

static void madt_override(struct strbuf *t, unsigned irq, unsigned gsi, unsigned flags)
{
	append(t, MADT_OVERRIDE, 1);
	append(t, 10, 1);
	append(t, 0, 1); /* ISA */
	append(t, irq, 1);
	append(t, gsi, 4);
	append(t, flags, 2);
}

static size_t add_madt(struct builder *b, const struct firmware_config *c)
{
	/* The SCI, and the interrupts to which PCI links can be steered. */
	static const uint8_t level_irq[] = {5, 9, 10, 11};
	struct strbuf *t = &b->tables;
	size_t start = begin_table(b, TABLE_ALIGN);

	acpi_header(t, "APIC", 1);
	append(t, LAPIC_BASE, 4);
	append(t, MADT_PCAT_COMPAT, 4);
	for (unsigned i = 0; i < c->cpus; i++) {
		append(t, MADT_LAPIC, 1);
		append(t, 8, 1);
		append(t, i, 1); /* processor object */
		append(t, i, 1); /* APIC */
		append(t, LAPIC_ENABLED, 4);
	}
	append(t, MADT_IOAPIC, 1);
	append(t, 12, 1);
	append(t, 0, 2); /* id, reserved */
	append(t, IOAPIC_BASE, 4);
	append(t, 0, 4); /* its first global interrupt */
	madt_override(t, 0, TIMER_GSI, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(level_irq); i++)
		madt_override(t, level_irq[i], level_irq[i], ACTIVE_HIGH_LEVEL);
	append(t, MADT_LAPIC_NMI, 1);
	append(t, 6, 1);
	append(t, ALL_CPUS, 1);
	append(t, 0, 2);
	append(t, 1, 1); /* LINT1 */
	end_table(b, start);
	return start;
}

static size_t add_rsdt(struct builder *b, const size_t *table, unsigned count)
{
	size_t start = begin_table(b, TABLE_ALIGN);

	acpi_header(&b->tables, "RSDT", 1);
	for (unsigned i = 0; i < count; i++) {
		loader_pointer(&b->script, TABLES_FILE, b->tables.len, 4);
		append(&b->tables, table[i], 4);
	}
	end_table(b, start);
	return start;
}

int acpi_add(const struct firmware_config *c, struct fw_cfg *fw, struct error *err)
{
	struct builder b = {0};
	uint8_t rsdp[RSDP_SIZE] = "RSD PTR ";
	size_t facs, dsdt, listed[2];
	int rc;

	loader_allocate(&b.script, RSDP_FILE, TABLE_ALIGN, ZONE_FSEG);
	loader_allocate(&b.script, TABLES_FILE, FACS_SIZE, ZONE_HIGH);
	facs = add_facs(&b);
	dsdt = add_dsdt(&b, c);
	listed[0] = add_fadt(&b, facs, dsdt);
	listed[1] = add_madt(&b, c);
	memcpy(rsdp + RSDP_CHECKSUM_AT + 1, "MINIVM", 6);
	store_le32(rsdp + RSDP_RSDT_AT, (uint32_t)add_rsdt(&b, listed, ARRAY_SIZE(listed)));
	loader_pointer(&b.script, RSDP_FILE, RSDP_RSDT_AT, 4);
	loader_checksum(&b.script, RSDP_FILE, RSDP_CHECKSUM_AT, 0, RSDP_SIZE);

	rc = fw_cfg_add_file(fw, TABLES_FILE, b.tables.data, b.tables.len, err);
	if (rc == 0)
		rc = fw_cfg_add_file(fw, RSDP_FILE, rsdp, sizeof(rsdp), err);
	if (rc == 0)
		rc = fw_cfg_add_file(fw, LOADER_FILE, b.script.data, b.script.len, err);
	strbuf_free(&b.tables);
	strbuf_free(&b.script);
	return rc;
}
