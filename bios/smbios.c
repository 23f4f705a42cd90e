/* SPDX-License-Identifier: MIT */
/*
 * SMBIOS 2.8 tables: what dmidecode and installers show about the machine. The firmware places
 * them, sets the address in the anchor and adds table type 0, which is about itself.
 *
 *   type  1 system       handle 0100h      type 17 memory devices   1100h...
 *         3 chassis             0300h           19 mapped addresses 1300h...
 *         4 processors          0400h...        32 boot information 2000h
 *        16 memory array        1000h          127 end              7F00h
 *
 * Document: DMTF DSP0134, version 2.8.
 */
#include "bios/internal.h"
#include "devices/fw_cfg.h"
#include "lib/bytes.h"
#include <stdio.h>
#include <string.h>

enum {
	ANCHOR_SIZE = 31,
	TYPE_SYSTEM = 1,
	TYPE_CHASSIS = 3,
	TYPE_PROCESSOR = 4,
	TYPE_MEMORY_ARRAY = 16,
	TYPE_MEMORY_DEVICE = 17,
	TYPE_MAPPED_ADDRESS = 19,
	TYPE_BOOT = 32,
	TYPE_END = 127,
	UNKNOWN = 2, /* in most enumerations of the specification */
	NO_HANDLE = 0xfffe,
	NO_CACHE = 0xffff,
};

#define DEVICE_MAX (16 * GIB)

struct smbios {
	struct strbuf out;
	size_t start; /* of the structure being written */
	struct strbuf strings;
	unsigned string_count, structures;
	size_t largest;
};

static void put(struct smbios *s, uint64_t value, unsigned size)
{
	strbuf_append(&s->out, &value, size);
}

static void begin(struct smbios *s, unsigned type, unsigned handle)
{
	s->start = s->out.len;
	s->string_count = 0;
	put(s, type, 1);
	put(s, 0, 1); /* length */
	put(s, handle, 2);
}

/* A string's number, which stands for it in the formatted part (6.1.3). */
static void put_string(struct smbios *s, const char *text)
{
	strbuf_append(&s->strings, text, strlen(text) + 1);
	put(s, ++s->string_count, 1);
}

static void end(struct smbios *s)
{
	s->out.data[s->start + 1] = (char)(s->out.len - s->start);
	if (s->string_count)
		strbuf_append(&s->out, s->strings.data, s->strings.len);
	else
		put(s, 0, 1);
	put(s, 0, 1);
	strbuf_consume(&s->strings, s->strings.len);
	s->structures++;
	if (s->out.len - s->start > s->largest)
		s->largest = s->out.len - s->start;
}

static void system_and_chassis(struct smbios *s, const struct firmware_config *c)
{
	uint8_t uuid[16];

	begin(s, TYPE_SYSTEM, 0x100);
	put_string(s, "minivm");
	put_string(s, "Standard PC (i440FX + PIIX)");
	put_string(s, MINIVM_VERSION);
	put(s, 0, 1); /* serial number */
	/* 7.2.1: the first three fields are little-endian in the table. */
	memcpy(uuid, c->uuid, sizeof(uuid));
	store_le32(uuid, load_be32(c->uuid));
	store_le16(uuid + 4, load_be16(c->uuid + 4));
	store_le16(uuid + 6, load_be16(c->uuid + 6));
	strbuf_append(&s->out, uuid, sizeof(uuid));
	put(s, 6, 1); /* woken by the power switch */
	put(s, 0, 2); /* SKU, family */
	end(s);

	begin(s, TYPE_CHASSIS, 0x300);
	put_string(s, "minivm");
	put(s, 1, 1); /* other */
	put_string(s, MINIVM_VERSION);
	put(s, 0, 2); /* serial number, asset tag */
	put(s, 3, 1); /* boot-up, power supply and thermal states: safe */
	put(s, 3, 1);
	put(s, 3, 1);
	put(s, UNKNOWN, 1);
	put(s, 0, 4); /* OEM */
	put(s, 0, 4); /* height, power cords, contained elements and their size */
	put(s, 0, 1); /* SKU */
	end(s);
}

static void processor(struct smbios *s, unsigned n)
{
	char socket[16];

	snprintf(socket, sizeof(socket), "CPU %u", n);
	begin(s, TYPE_PROCESSOR, 0x400 + n);
	put_string(s, socket);
	put(s, 3, 1); /* central processor */
	put(s, 1, 1); /* family: other */
	put_string(s, "minivm");
	put(s, 0, 8); /* id */
	put_string(s, MINIVM_VERSION);
	put(s, 0, 1);    /* voltage */
	put(s, 0, 2);    /* external clock */
	put(s, 2000, 2); /* maximum and current speed: nominal */
	put(s, 2000, 2);
	put(s, 0x41, 1); /* populated, enabled */
	put(s, 1, 1);    /* upgrade: other */
	put(s, NO_CACHE, 2);
	put(s, NO_CACHE, 2);
	put(s, NO_CACHE, 2);
	put(s, 0, 3);        /* serial number, asset tag, part number */
	put(s, 0x010101, 3); /* cores, enabled cores, threads */
	put(s, UNKNOWN, 2);  /* characteristics */
	put(s, 1, 2);        /* family 2: other */
	end(s);
}

static void memory_array(struct smbios *s, uint64_t ram, unsigned devices)
{
	uint64_t kib = ram / KIB;

	begin(s, TYPE_MEMORY_ARRAY, 0x1000);
	put(s, 1, 1); /* other location */
	put(s, 3, 1); /* system memory */
	put(s, 3, 1); /* no error correction */
	put(s, kib < 0x80000000 ? kib : 0x80000000, 4);
	put(s, NO_HANDLE, 2);
	put(s, devices, 2);
	put(s, kib < 0x80000000 ? 0 : ram, 8);
	end(s);
}

static void memory_device(struct smbios *s, unsigned n, uint64_t size)
{
	char locator[16];

	snprintf(locator, sizeof(locator), "DIMM %u", n);
	begin(s, TYPE_MEMORY_DEVICE, 0x1100 + n);
	put(s, 0x1000, 2);
	put(s, NO_HANDLE, 2);
	put(s, 0xffff, 2); /* widths unknown */
	put(s, 0xffff, 2);
	put(s, size / MIB < 0x7fff ? size / MIB : 0x7fff, 2);
	put(s, 9, 1); /* DIMM */
	put(s, 0, 1); /* not of a set */
	put_string(s, locator);
	put(s, 0, 1);       /* bank locator */
	put(s, 7, 1);       /* RAM */
	put(s, UNKNOWN, 2); /* detail: other */
	put(s, 0, 2);       /* speed */
	put_string(s, "minivm");
	put(s, 0, 3); /* serial number, asset tag, part number */
	put(s, 0, 1); /* rank */
	put(s, size / MIB < 0x7fff ? 0 : size / MIB, 4);
	put(s, 0, 2); /* configured speed */
	put(s, 0, 6); /* voltages */
	end(s);
}

static void mapped_address(struct smbios *s, unsigned n, uint64_t base, uint64_t size)
{
	uint64_t first = base / KIB, last = (base + size) / KIB - 1;
	bool wide = last >= UINT32_MAX;

	begin(s, TYPE_MAPPED_ADDRESS, 0x1300 + n);
	put(s, wide ? UINT32_MAX : first, 4);
	put(s, wide ? UINT32_MAX : last, 4);
	put(s, 0x1000, 2);
	put(s, 1, 1); /* partition width */
	put(s, wide ? base : 0, 8);
	put(s, wide ? base + size - 1 : 0, 8);
	end(s);
}

static void boot_and_end(struct smbios *s)
{
	begin(s, TYPE_BOOT, 0x2000);
	put(s, 0, 6);
	put(s, 0, 1); /* no errors detected */
	end(s);
	begin(s, TYPE_END, 0x7f00);
	end(s);
}

static uint8_t checksum(const uint8_t *p, size_t len)
{
	uint8_t sum = 0;

	while (len--)
		sum += *p++;
	return (uint8_t)-sum;
}

static void build_anchor(const struct smbios *s, uint8_t a[ANCHOR_SIZE])
{
	enum { CHECKSUM = 4, INTERMEDIATE = 16, INTERMEDIATE_CHECKSUM = 21 };

	memset(a, 0, ANCHOR_SIZE);
	memcpy(a, "_SM_", 4);
	a[5] = ANCHOR_SIZE;
	a[6] = 2;
	a[7] = 8;
	store_le16(a + 8, (uint16_t)s->largest);
	memcpy(a + INTERMEDIATE, "_DMI_", 5);
	store_le16(a + 22, (uint16_t)s->out.len);
	store_le16(a + 28, (uint16_t)s->structures);
	a[30] = 0x28;
	a[INTERMEDIATE_CHECKSUM] = checksum(a + INTERMEDIATE, ANCHOR_SIZE - INTERMEDIATE);
	a[CHECKSUM] = checksum(a, ANCHOR_SIZE);
}

int smbios_add(const struct firmware_config *c, struct fw_cfg *fw, struct error *err)
{
	struct smbios s = {0};
	uint8_t anchor[ANCHOR_SIZE];
	uint64_t ram = c->low_ram + c->high_ram;
	unsigned devices = (unsigned)div_round_up(ram, DEVICE_MAX);
	int rc;

	system_and_chassis(&s, c);
	for (unsigned i = 0; i < c->cpus; i++)
		processor(&s, i);
	memory_array(&s, ram, devices);
	for (unsigned i = 0; i < devices; i++)
		memory_device(&s, i,
			      ram - i * DEVICE_MAX < DEVICE_MAX ? ram - i * DEVICE_MAX
								: DEVICE_MAX);
	mapped_address(&s, 0, 0, c->low_ram);
	if (c->high_ram)
		mapped_address(&s, 1, 4 * GIB, c->high_ram);
	boot_and_end(&s);
	build_anchor(&s, anchor);
	rc = fw_cfg_add_file(fw, "etc/smbios/smbios-tables", s.out.data, s.out.len, err);
	if (rc == 0)
		rc = fw_cfg_add_file(fw, "etc/smbios/smbios-anchor", anchor, sizeof(anchor), err);
	strbuf_free(&s.out);
	strbuf_free(&s.strings);
	return rc;
}
