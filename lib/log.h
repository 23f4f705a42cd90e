/* SPDX-License-Identifier: MIT */
/*
 * Messages to the user (stderr) and trace output (`-d category,...`, `-D file`).
 *
 * trace() costs one predictable branch while its category is off. All functions may be called from
 * any thread.
 */
#ifndef LIB_LOG_H
#define LIB_LOG_H

#include <stdbool.h>
#include <stdint.h>

/* Each category is listed by `-d help`; its name and one-line help stand in the table in log.c. */
enum trace_category {
	TRACE_CPU,        /* mode switches, resets, triple faults */
	TRACE_INT,        /* interrupts and exceptions delivered */
	TRACE_IN_ASM,     /* each block as it is decoded */
	TRACE_OUT_ASM,    /* each block as it is translated */
	TRACE_EXEC,       /* each block as it is entered */
	TRACE_MMU,        /* page walks and TLB flushes */
	TRACE_KVM,        /* exits, slots, capabilities */
	TRACE_MEM,        /* regions mapped and unmapped */
	TRACE_IO,         /* each port access */
	TRACE_MMIO,       /* each MMIO access */
	TRACE_UNASSIGNED, /* accesses that no device answers */
	TRACE_IRQ,        /* interrupt line changes, PIC, IOAPIC and LAPIC */
	TRACE_TIMER,      /* PIT, RTC, APIC timer, PM timer */
	TRACE_PCI,
	TRACE_IDE,
	TRACE_FDC,
	TRACE_DMA,
	TRACE_PS2,
	TRACE_SERIAL,
	TRACE_VGA,
	TRACE_FW_CFG,
	TRACE_ACPI,
	TRACE_BLOCK,
	TRACE_QCOW2,
	TRACE_NBD,
	TRACE_NET,
	TRACE_VIRTIO,
	TRACE_MONITOR,
	TRACE_UI,
	TRACE_CATEGORIES
};

struct error;

extern uint64_t trace_mask; /* bit per category; read by trace_on() only */

static inline bool trace_on(enum trace_category category)
{
	return __builtin_expect((trace_mask >> category) & 1, 0);
}

/* Writes one trace line (a newline is added). Use the trace() macro, which tests the category
 * first. */
void trace_write(enum trace_category category, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#define trace(category, ...)                                                                       \
	do {                                                                                       \
		if (trace_on(category))                                                            \
			trace_write(category, __VA_ARGS__);                                        \
	} while (0)

/* Switches categories on from a list such as "ide,pci". -EINVAL with the nearest name for a bad
 * one. */
int trace_enable(const char *list, struct error *err);
/* Sends trace lines to a file instead of stderr. */
int trace_open_file(const char *path, struct error *err);
/* Prints the table of categories to stdout (`-d help`). */
void trace_help(void);

/* Name printed before messages ("minivm" unless set). The string must stay valid. */
void log_set_program(const char *name);
/* "minivm: warning: ..." on stderr, one line. */
void warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* "minivm: ..." on stderr, one line: an error or information the user asked for. */
void report(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
