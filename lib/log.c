/* SPDX-License-Identifier: MIT */
/* Messages and trace output (log.h). Each line goes out in one write, so that lines of several
 * threads do not mix. */
#include "lib/log.h"
#include "lib/bytes.h"
#include "lib/error.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *name, *help;
} categories[] = {
	[TRACE_CPU] = {"cpu", "mode switches, resets, triple faults"},
	[TRACE_INT] = {"int", "interrupts and exceptions delivered"},
	[TRACE_IN_ASM] = {"in_asm", "each block as it is decoded"},
	[TRACE_OUT_ASM] = {"out_asm", "the host code of each block as it is translated"},
	[TRACE_EXEC] = {"exec", "each block as it is entered"},
	[TRACE_MMU] = {"mmu", "page walks and TLB flushes"},
	[TRACE_KVM] = {"kvm", "exits, memory slots, capabilities"},
	[TRACE_MEM] = {"mem", "memory regions mapped and unmapped"},
	[TRACE_IO] = {"io", "each port access"},
	[TRACE_MMIO] = {"mmio", "each access to memory-mapped registers"},
	[TRACE_UNASSIGNED] = {"unassigned", "accesses that no device answers"},
	[TRACE_IRQ] = {"irq", "interrupt lines, PIC, IOAPIC and local APIC"},
	[TRACE_TIMER] = {"timer", "PIT, RTC, APIC timer, PM timer"},
	[TRACE_PCI] = {"pci", "configuration space and BARs"},
	[TRACE_IDE] = {"ide", "ATA and ATAPI commands"},
	[TRACE_FDC] = {"fdc", "floppy controller commands"},
	[TRACE_DMA] = {"dma", "8237 and bus-master transfers"},
	[TRACE_PS2] = {"ps2", "keyboard controller, keyboard and mouse"},
	[TRACE_SERIAL] = {"serial", "serial and parallel ports"},
	[TRACE_VGA] = {"vga", "video modes and registers"},
	[TRACE_FW_CFG] = {"fw_cfg", "firmware configuration items read"},
	[TRACE_ACPI] = {"acpi", "power management registers"},
	[TRACE_BLOCK] = {"block", "disk requests and images opened"},
	[TRACE_QCOW2] = {"qcow2", "qcow2 clusters and tables"},
	[TRACE_NBD] = {"nbd", "network block device messages"},
	[TRACE_NET] = {"net", "packets and network back ends"},
	[TRACE_VIRTIO] = {"virtio", "virtio devices and queues"},
	[TRACE_MONITOR] = {"monitor", "monitor and QMP commands"},
	[TRACE_UI] = {"ui", "window and input events"},
};
_Static_assert(ARRAY_SIZE(categories) == TRACE_CATEGORIES, "each category has its line");
_Static_assert(TRACE_CATEGORIES <= 64, "trace_mask has one bit for each");

uint64_t trace_mask;
static FILE *trace_file; /* NULL: stderr */
static const char *program = "minivm";

void trace_write(enum trace_category category, const char *fmt, ...)
{
	FILE *f = __atomic_load_n(&trace_file, __ATOMIC_ACQUIRE);
	if (!f)
		f = stderr;
	va_list ap;
	va_start(ap, fmt);
	char text[1024];
	int n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n >= 0)
		fprintf(f, "%s: %s%s\n", categories[category].name, text,
			(size_t)n >= sizeof(text) ? "..." : "");
}

int trace_enable(const char *list, struct error *err)
{
	uint64_t mask = 0;
	while (*list) {
		size_t len = strcspn(list, ",");
		bool found = len == 3 && strncmp(list, "all", 3) == 0;
		if (found)
			mask = (UINT64_C(1) << TRACE_CATEGORIES) - 1;
		for (size_t i = 0; i < TRACE_CATEGORIES && !found; i++) {
			if (strlen(categories[i].name) == len &&
			    strncmp(categories[i].name, list, len) == 0) {
				mask |= UINT64_C(1) << i;
				found = true;
			}
		}
		if (!found && len) {
			const char *names[TRACE_CATEGORIES + 2];
			for (size_t i = 0; i < TRACE_CATEGORIES; i++)
				names[i] = categories[i].name;
			names[TRACE_CATEGORIES] = "all";
			names[TRACE_CATEGORIES + 1] = NULL;
			char word[64];
			snprintf(word, sizeof(word), "%.*s", (int)(len < 63 ? len : 63), list);
			const char *near = nearest_word(word, names);
			return error_set(
				err, EINVAL,
				"unknown trace category '%s'; %s%s%s('-d help' lists them)", word,
				near ? "did you mean '" : "", near ? near : "", near ? "'? " : "");
		}
		list += len;
		list += *list == ',';
	}
	trace_mask |= mask;
	return 0;
}

int trace_open_file(const char *path, struct error *err)
{
	FILE *f = fopen(path, "we");
	if (!f)
		return error_errno(err, errno, "cannot open trace file '%s'", path);
	FILE *old = __atomic_exchange_n(&trace_file, f, __ATOMIC_ACQ_REL);
	if (old)
		fclose(old);
	return 0;
}

void trace_help(void)
{
	puts("Trace categories (-d category,... ; -D FILE writes them to a file):");
	for (size_t i = 0; i < TRACE_CATEGORIES; i++)
		printf("  %-12s %s\n", categories[i].name, categories[i].help);
	printf("  %-12s %s\n", "all", "all of them");
}

void log_set_program(const char *name)
{
	program = name;
}

static void message(const char *kind, const char *fmt, va_list ap)
{
	struct strbuf sb = STRBUF_INIT;
	strbuf_printf(&sb, "%s: %s", program, kind);
	strbuf_vprintf(&sb, fmt, ap);
	strbuf_puts(&sb, "\n");
	fflush(stdout); /* keeps the order where both go to one place */
	write_full(STDERR_FILENO, sb.data, sb.len);
	strbuf_free(&sb);
}

void warn(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	message("warning: ", fmt, ap);
	va_end(ap);
}

void report(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	message("", fmt, ap);
	va_end(ap);
}
