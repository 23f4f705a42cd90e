/* SPDX-License-Identifier: MIT */
/*
 * A writer of ACPI machine language: each function appends one piece of byte code. Packages (terms
 * with a length in front) are opened with aml_begin_*() and closed with aml_end(), which puts in
 * the length.
 *
 * Document: ACPI specification 6.x, chapter 20 "ACPI Machine Language", and 6.4 "Resource Data
 * Types".
 */
#ifndef BIOS_AML_H
#define BIOS_AML_H

#include "lib/strbuf.h"
#include <stdbool.h>
#include <stdint.h>

enum { AML_DEPTH = 16 };

struct aml {
	struct strbuf *out;
	/* Where the length of each open package goes. */
	struct {
		size_t at;
		bool resources;
	} open[AML_DEPTH];
	unsigned depth;
};

/* Names: "\\_SB_", "^PRQA", "_CRS", "PCI0.ISA_" are encoded as ACPI writes them; each segment is
 * padded to four characters with '_'. */
void aml_name_string(struct aml *a, const char *name);

/* Data. The shortest encoding of an integer is chosen. */
void aml_integer(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *text);
/* "PNP0A03" as the compressed 32-bit id. */
void aml_eisaid(struct aml *a, const char *id);

/* Name (name, ...): follow it with one data item. */
void aml_name(struct aml *a, const char *name);
void aml_name_integer(struct aml *a, const char *name, uint64_t value);
void aml_name_eisaid(struct aml *a, const char *name, const char *id);

void aml_begin_scope(struct aml *a, const char *name);
void aml_begin_device(struct aml *a, const char *name);
void aml_begin_processor(struct aml *a, const char *name, uint8_t id, uint32_t pblk,
			 uint8_t pblk_len);
void aml_begin_method(struct aml *a, const char *name, unsigned args, bool serialized);
void aml_begin_package(struct aml *a, uint8_t elements);
void aml_begin_if(struct aml *a); /* then a predicate and the body */
/* Field (region, ByteAcc, NoLock, Preserve): follow with aml_field_unit()s. */
void aml_begin_field(struct aml *a, const char *region);
/* ResourceTemplate inside a buffer: follow with aml_res_*(). */
void aml_begin_resources(struct aml *a);
void aml_end(struct aml *a);

enum aml_space { AML_SYSTEM_MEMORY = 0, AML_SYSTEM_IO = 1, AML_PCI_CONFIG = 2 };
void aml_region(struct aml *a, const char *name, enum aml_space space, uint64_t offset,
		uint64_t length);
void aml_field_unit(struct aml *a, const char *name4, unsigned bits);

/* Operators; operands follow (and for most a target, which aml_no_target() leaves out). */
enum aml_op {
	AML_STORE = 0x70,
	AML_AND = 0x7b,
	AML_OR = 0x7d,
	AML_LESS = 0x95,
	AML_RETURN = 0xa4,
};
void aml_op(struct aml *a, enum aml_op op);
void aml_no_target(struct aml *a);
/* CreateDWordField (buffer, offset, name); buffer NULL: Arg0. */
void aml_dword_field(struct aml *a, const char *buffer, uint64_t offset, const char *name);

/* Resource descriptors. */
void aml_res_io(struct aml *a, uint16_t min, uint16_t max, uint8_t align, uint8_t length);
void aml_res_irq(struct aml *a, unsigned irq);
void aml_res_dma(struct aml *a, unsigned channel);
void aml_res_bus_numbers(struct aml *a, uint16_t min, uint16_t max);
void aml_res_io_window(struct aml *a, uint16_t min, uint16_t max);
void aml_res_memory_window32(struct aml *a, bool cacheable, uint32_t min, uint32_t max);
/* Extended interrupt, level, active high, shared. */
void aml_res_interrupts(struct aml *a, const uint32_t *irq, unsigned count);

#endif
