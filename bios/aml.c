/* SPDX-License-Identifier: MIT */
/* The AML writer; see aml.h. Section numbers are those of ACPI 6.4. */
#include "bios/aml.h"
#include "lib/bytes.h"
#include <string.h>

/* Opcodes (20.3). */
enum {
	OP_ZERO = 0x00,
	OP_ONE = 0x01,
	OP_NAME = 0x08,
	OP_BYTE = 0x0a,
	OP_WORD = 0x0b,
	OP_DWORD = 0x0c,
	OP_STRING = 0x0d,
	OP_QWORD = 0x0e,
	OP_SCOPE = 0x10,
	OP_BUFFER = 0x11,
	OP_PACKAGE = 0x12,
	OP_METHOD = 0x14,
	OP_DUAL_NAME = 0x2e,
	OP_MULTI_NAME = 0x2f,
	OP_EXT = 0x5b,
	OP_ARG0 = 0x68,
	OP_EXT_REGION = 0x80,
	OP_EXT_FIELD = 0x81,
	OP_EXT_DEVICE = 0x82,
	OP_EXT_PROCESSOR = 0x83,
	OP_CREATE_DWORD_FIELD = 0x8a,
	OP_IF = 0xa0,
	METHOD_SERIALIZED = 1 << 3,
	FIELD_BYTE_PRESERVE = 0x01,
};

/* Resource descriptor tags (6.4.2, 6.4.3) and the flags used. */
enum {
	RES_IRQ_NO_FLAGS = 0x22,
	RES_DMA = 0x2a,
	RES_IO = 0x47,
	RES_END = 0x79,
	RES_DWORD_SPACE = 0x87,
	RES_WORD_SPACE = 0x88,
	RES_INTERRUPT = 0x89,
	IO_DECODE_16 = 1,
	SPACE_MEMORY = 0,
	SPACE_IO = 1,
	SPACE_BUS = 2,
	SPACE_MIN_FIXED = 1 << 2,
	SPACE_MAX_FIXED = 1 << 3,
	SPACE_IO_ENTIRE_RANGE = 3,
	SPACE_MEMORY_WRITABLE = 1,
	SPACE_MEMORY_CACHEABLE = 1 << 1,
	INTERRUPT_CONSUMER = 1 << 0,
	INTERRUPT_SHARED = 1 << 3,
};

static void byte(struct aml *a, unsigned v)
{
	uint8_t b = (uint8_t)v;

	strbuf_append(a->out, &b, 1);
}

static void word(struct aml *a, unsigned v)
{
	byte(a, v);
	byte(a, v >> 8);
}

static void dword(struct aml *a, uint32_t v)
{
	word(a, v & 0xffff);
	word(a, v >> 16);
}

static void qword(struct aml *a, uint64_t v)
{
	dword(a, (uint32_t)v);
	dword(a, (uint32_t)(v >> 32));
}

/* 20.2.2: root and parent prefixes, then one segment, two, or a counted list. */
void aml_name_string(struct aml *a, const char *name)
{
	unsigned segments = *name != '\0';

	while (*name == '\\' || *name == '^')
		byte(a, (uint8_t)*name++);
	if (!*name) {
		byte(a, OP_ZERO);
		return;
	}
	for (const char *p = name; *p; p++)
		segments += *p == '.';
	if (segments == 2) {
		byte(a, OP_DUAL_NAME);
	} else if (segments > 2) {
		byte(a, OP_MULTI_NAME);
		byte(a, segments);
	}
	while (segments--) {
		for (int i = 0; i < 4; i++)
			byte(a, *name && *name != '.' ? (uint8_t)*name++ : '_');
		if (*name == '.')
			name++;
	}
}

void aml_integer(struct aml *a, uint64_t v)
{
	if (v <= 1) {
		byte(a, v ? OP_ONE : OP_ZERO);
	} else if (v <= UINT8_MAX) {
		byte(a, OP_BYTE);
		byte(a, (unsigned)v);
	} else if (v <= UINT16_MAX) {
		byte(a, OP_WORD);
		word(a, (unsigned)v);
	} else if (v <= UINT32_MAX) {
		byte(a, OP_DWORD);
		dword(a, (uint32_t)v);
	} else {
		byte(a, OP_QWORD);
		qword(a, v);
	}
}

void aml_string(struct aml *a, const char *text)
{
	byte(a, OP_STRING);
	strbuf_append(a->out, text, strlen(text) + 1);
}

static unsigned hex_digit(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);
}

/* 19.3.4: three letters of 5 bits, four hexadecimal digits, big-endian. */
void aml_eisaid(struct aml *a, const char *id)
{
	uint32_t v = (uint32_t)(id[0] - '@') << 26 | (uint32_t)(id[1] - '@') << 21 |
		     (uint32_t)(id[2] - '@') << 16 | hex_digit(id[3]) << 12 |
		     hex_digit(id[4]) << 8 | hex_digit(id[5]) << 4 | hex_digit(id[6]);

	byte(a, OP_DWORD);
	dword(a, __builtin_bswap32(v));
}

void aml_name(struct aml *a, const char *name)
{
	byte(a, OP_NAME);
	aml_name_string(a, name);
}

void aml_name_integer(struct aml *a, const char *name, uint64_t value)
{
	aml_name(a, name);
	aml_integer(a, value);
}

void aml_name_eisaid(struct aml *a, const char *name, const char *id)
{
	aml_name(a, name);
	aml_eisaid(a, id);
}

static void open_package(struct aml *a)
{
	a->open[a->depth].at = a->out->len;
	a->open[a->depth].resources = false;
	a->depth++;
}

void aml_begin_scope(struct aml *a, const char *name)
{
	byte(a, OP_SCOPE);
	open_package(a);
	aml_name_string(a, name);
}

void aml_begin_device(struct aml *a, const char *name)
{
	byte(a, OP_EXT);
	byte(a, OP_EXT_DEVICE);
	open_package(a);
	aml_name_string(a, name);
}

void aml_begin_processor(struct aml *a, const char *name, uint8_t id, uint32_t pblk,
			 uint8_t pblk_len)
{
	byte(a, OP_EXT);
	byte(a, OP_EXT_PROCESSOR);
	open_package(a);
	aml_name_string(a, name);
	byte(a, id);
	dword(a, pblk);
	byte(a, pblk_len);
}

void aml_begin_method(struct aml *a, const char *name, unsigned args, bool serialized)
{
	byte(a, OP_METHOD);
	open_package(a);
	aml_name_string(a, name);
	byte(a, args | (serialized ? METHOD_SERIALIZED : 0));
}

void aml_begin_package(struct aml *a, uint8_t elements)
{
	byte(a, OP_PACKAGE);
	open_package(a);
	byte(a, elements);
}

void aml_begin_if(struct aml *a)
{
	byte(a, OP_IF);
	open_package(a);
}

void aml_begin_field(struct aml *a, const char *region)
{
	byte(a, OP_EXT);
	byte(a, OP_EXT_FIELD);
	open_package(a);
	aml_name_string(a, region);
	byte(a, FIELD_BYTE_PRESERVE);
}

void aml_begin_resources(struct aml *a)
{
	byte(a, OP_BUFFER);
	open_package(a);
	a->open[a->depth - 1].resources = true;
}

/* 20.2.4: the length counts its own bytes; the first byte's top bits say how many follow. */
static unsigned encode_length(uint8_t out[4], size_t body)
{
	unsigned extra = body + 1 < 64 ? 0 : body + 2 < 4096 ? 1 : body + 3 < 1 << 20 ? 2 : 3;
	size_t total = body + 1 + extra;

	if (extra == 0) {
		out[0] = (uint8_t)total;
		return 1;
	}
	out[0] = (uint8_t)(extra << 6 | (total & 15));
	for (unsigned i = 1; i <= extra; i++)
		out[i] = (uint8_t)(total >> (4 + 8 * (i - 1)));
	return 1 + extra;
}

static void insert(struct aml *a, size_t at, const void *bytes, size_t len)
{
	size_t old = a->out->len;

	strbuf_append(a->out, bytes, len);
	memmove(a->out->data + at + len, a->out->data + at, old - at);
	memcpy(a->out->data + at, bytes, len);
}

void aml_end(struct aml *a)
{
	uint8_t len[4];

	a->depth--;
	size_t at = a->open[a->depth].at;
	if (a->open[a->depth].resources) {
		/* The end tag with a checksum of zero, which means "not checked", and the buffer's
		 * size in front of its bytes. */
		byte(a, RES_END);
		byte(a, 0);
		struct strbuf size_bytes = STRBUF_INIT;
		struct aml size = {.out = &size_bytes};
		aml_integer(&size, a->out->len - at);
		insert(a, at, size_bytes.data, size_bytes.len);
		strbuf_free(&size_bytes);
	}
	unsigned n = encode_length(len, a->out->len - at);
	insert(a, at, len, n);
}

void aml_region(struct aml *a, const char *name, enum aml_space space, uint64_t offset,
		uint64_t length)
{
	byte(a, OP_EXT);
	byte(a, OP_EXT_REGION);
	aml_name_string(a, name);
	byte(a, space);
	aml_integer(a, offset);
	aml_integer(a, length);
}

void aml_field_unit(struct aml *a, const char *name4, unsigned bits)
{
	uint8_t len[4];

	if (name4)
		strbuf_append(a->out, name4, 4);
	else
		byte(a, OP_ZERO); /* a gap */
	/* The width has a package length's encoding without counting itself. */
	if (bits < 64) {
		byte(a, bits);
		return;
	}
	len[0] = (uint8_t)(1 << 6 | (bits & 15));
	len[1] = (uint8_t)(bits >> 4);
	strbuf_append(a->out, len, 2);
}

void aml_op(struct aml *a, enum aml_op op)
{
	byte(a, op);
}

void aml_no_target(struct aml *a)
{
	byte(a, OP_ZERO);
}

void aml_dword_field(struct aml *a, const char *buffer, uint64_t offset, const char *name)
{
	byte(a, OP_CREATE_DWORD_FIELD);
	if (buffer)
		aml_name_string(a, buffer);
	else
		byte(a, OP_ARG0);
	aml_integer(a, offset);
	aml_name_string(a, name);
}

void aml_res_io(struct aml *a, uint16_t min, uint16_t max, uint8_t align, uint8_t length)
{
	byte(a, RES_IO);
	byte(a, IO_DECODE_16);
	word(a, min);
	word(a, max);
	byte(a, align);
	byte(a, length);
}

void aml_res_irq(struct aml *a, unsigned irq)
{
	byte(a, RES_IRQ_NO_FLAGS);
	word(a, 1u << irq);
}

void aml_res_dma(struct aml *a, unsigned channel)
{
	byte(a, RES_DMA);
	byte(a, 1u << channel);
	byte(a, 0); /* compatibility timing, no bus mastering, 8-bit transfers */
}

static void word_space(struct aml *a, unsigned type, unsigned flags, uint16_t min, uint16_t max)
{
	byte(a, RES_WORD_SPACE);
	word(a, 13);
	byte(a, type);
	byte(a, SPACE_MIN_FIXED | SPACE_MAX_FIXED);
	byte(a, flags);
	word(a, 0); /* granularity */
	word(a, min);
	word(a, max);
	word(a, 0); /* translation */
	word(a, (unsigned)(max - min) + 1);
}

void aml_res_bus_numbers(struct aml *a, uint16_t min, uint16_t max)
{
	word_space(a, SPACE_BUS, 0, min, max);
}

void aml_res_io_window(struct aml *a, uint16_t min, uint16_t max)
{
	word_space(a, SPACE_IO, SPACE_IO_ENTIRE_RANGE, min, max);
}

void aml_res_memory_window32(struct aml *a, bool cacheable, uint32_t min, uint32_t max)
{
	byte(a, RES_DWORD_SPACE);
	word(a, 23);
	byte(a, SPACE_MEMORY);
	byte(a, SPACE_MIN_FIXED | SPACE_MAX_FIXED);
	byte(a, SPACE_MEMORY_WRITABLE | (cacheable ? SPACE_MEMORY_CACHEABLE : 0));
	dword(a, 0);
	dword(a, min);
	dword(a, max);
	dword(a, 0);
	dword(a, max - min + 1);
}

void aml_res_interrupts(struct aml *a, const uint32_t *irq, unsigned count)
{
	byte(a, RES_INTERRUPT);
	word(a, 2 + 4 * count);
	byte(a, INTERRUPT_CONSUMER | INTERRUPT_SHARED);
	byte(a, count);
	for (unsigned i = 0; i < count; i++)
		dword(a, irq[i]);
}
