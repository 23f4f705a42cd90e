/* SPDX-License-Identifier: MIT */
/*
 * The `info` subcommands of the human monitor: a table of names, and a function each that prints
 * what the machine's parts tell of themselves.
 */
#include "vmm/monitor_info.h"
#include "core/chardev.h"
#include "core/iobus.h"
#include "core/memory.h"
#include "core/state.h"
#include "devices/pci.h"
#include "lib/bytes.h"
#include "ui/screenshot.h"
#include "vmm/backends.h"
#include "vmm/drive_options.h"
#include "vmm/machine.h"
#include "vmm/nics.h"
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

struct info_call {
	struct machine *m;
	unsigned cpu;
	const char *arg;
	struct strbuf *out;
};

struct info_command {
	const char *name, *help;
	void (*run)(struct info_call *c);
};

static void info_version(struct info_call *c)
{
	strbuf_puts(c->out, MINIVM_VERSION " (minivm)\n");
}

static void info_status(struct info_call *c)
{
	if (machine_running(c->m))
		strbuf_puts(c->out, "VM status: running\n");
	else if (c->m->state == RUN_PAUSED)
		strbuf_puts(c->out, "VM status: paused\n");
	else
		strbuf_printf(c->out, "VM status: paused (%s)\n", run_state_name(c->m->state));
}

static void info_name(struct info_call *c)
{
	if (c->m->options->name)
		strbuf_printf(c->out, "%s\n", c->m->options->name);
}

static void info_uuid(struct info_call *c)
{
	strbuf_printf(c->out, "%s\n",
		      c->m->options->uuid ? c->m->options->uuid
					  : "00000000-0000-0000-0000-000000000000");
}

static void info_kvm(struct info_call *c)
{
	strbuf_printf(c->out, "kvm support: %s\n",
		      !strcmp(c->m->engine->ops->name, "kvm") ? "enabled"
		      : access("/dev/kvm", F_OK) == 0         ? "disabled"
							      : "not compiled");
}

static void info_engine(struct info_call *c)
{
	c->m->engine->ops->describe(c->m->engine, c->out);
}

static void info_jit(struct info_call *c)
{
	if (c->m->engine->ops->describe_jit)
		c->m->engine->ops->describe_jit(c->m->engine, c->out);
	else
		strbuf_puts(c->out, "JIT information is only available with -accel soft\n");
}

static void info_cpus(struct info_call *c)
{
	for (unsigned n = 0; n < c->m->options->cpus; n++)
		strbuf_printf(c->out, "%c CPU #%u: thread_id=%d\n", n == c->cpu ? '*' : ' ', n,
			      (int)getpid());
}

static void info_registers(struct info_call *c)
{
	struct error err = ERROR_INIT;
	bool all = c->arg && !strcmp(c->arg, "-a");
	for (unsigned n = 0; n < c->m->options->cpus; n++) {
		struct cpu_state state;
		if (!all && n != c->cpu)
			continue;
		strbuf_printf(c->out, "\nCPU#%u\n", n);
		if (machine_cpu_state(c->m, n, &state, &err) < 0)
			strbuf_printf(c->out, "Error: %s\n", err.text);
		else
			cpu_state_print(&state, c->out);
	}
}

/* What keeps requests from running as they come. */
static void describe_queue(struct strbuf *out, struct drive *drive)
{
	struct throttle_limits limits;
	const char *group = drive_throttle_group(drive);
	unsigned flags = drive_image_flags(drive);
	if (strcmp(drive_io_status(drive), "ok"))
		strbuf_printf(out, "    I/O status:       %s\n", drive_io_status(drive));
	if (flags & (IMAGE_DETECT_ZEROES | IMAGE_DETECT_UNMAP))
		strbuf_printf(out, "    Detect zeroes:    %s\n",
			      flags & IMAGE_DETECT_UNMAP ? "unmap" : "on");
	if (!group)
		return;
	drive_get_limits(drive, &limits);
	strbuf_puts(out, "    I/O throttling:  ");
	for (int half = 0; half < THROTTLE_NAMES; half += 3)
		for (int max = 0; max < 2; max++)
			for (int i = half; i < half + 3; i++) {
				const struct throttle_limit *l =
					&limits.bucket[throttle_names[i].bucket];
				strbuf_printf(out, " %s%s=%" PRIu64, throttle_names[i].qmp,
					      max ? "_max" : "", max ? l->max : l->avg);
			}
	strbuf_printf(out, " iops_size=%" PRIu64 " group=%s\n", limits.iops_size, group);
}

static void describe_drive(struct strbuf *out, struct drive *drive)
{
	if (drive_inserted(drive))
		strbuf_printf(out, "%s: %s (%s%s)\n", drive_id(drive), drive_file(drive),
			      drive_format(drive), drive_writable(drive) ? "" : ", read-only");
	else
		strbuf_printf(out, "%s: [not inserted]\n", drive_id(drive));
	if (drive_get_kind(drive) != DRIVE_DISK)
		strbuf_printf(out, "    Removable device: %slocked, tray %s\n",
			      drive_locked(drive) ? "" : "not ",
			      drive_tray_open(drive) ? "open" : "closed");
	if (drive_inserted(drive)) {
		unsigned flags = drive_image_flags(drive);
		strbuf_printf(out, "    Cache mode:       %s%s%s\n",
			      flags & IMAGE_WRITETHROUGH ? "writethrough" : "writeback",
			      flags & IMAGE_DIRECT ? ", direct" : "",
			      flags & IMAGE_NO_FLUSH ? ", ignore flushes" : "");
	}
	if (drive_backing_file(drive))
		strbuf_printf(out, "    Backing file:     %s\n", drive_backing_file(drive));
	if (drive_inserted(drive))
		describe_queue(out, drive);
	strbuf_puts(out, "\n");
}

static void info_block(struct info_call *c)
{
	for (unsigned n = 0; n < DRIVE_PLACES; n++)
		if (drives_at(&c->m->drives, n))
			describe_drive(c->out, drives_at(&c->m->drives, n));
}

static void info_chardev(struct info_call *c)
{
	struct list *it;
	list_for_each(it, &c->m->chardevs)
	{
		struct named_chardev *entry = list_entry(it, struct named_chardev, link);
		strbuf_printf(c->out, "%s: filename=%s\n", entry->id, chardev_describe(entry->chr));
	}
}

static void info_pci(struct info_call *c)
{
	pci_info(c->m->dev.pci, c->out);
}

static void info_network(struct info_call *c)
{
	nics_info(c->m, c->out);
}

static void info_usernet(struct info_call *c)
{
	nics_info_user(c->m, c->out);
}

static void print_port_range(void *opaque, const char *name, uint16_t base, unsigned count)
{
	struct info_call *c = opaque;
	strbuf_printf(c->out, "  %04x-%04x: %s\n", base, base + count - 1, name);
}

static void info_ioports(struct info_call *c)
{
	iobus_for_each(c->m->io, print_port_range, c);
}

static void info_mtree(struct info_call *c)
{
	size_t count;
	const struct mem_range *range = memory_view(c->m->mem, &count);
	strbuf_printf(c->out, "A20 gate: %s\n", memory_a20(c->m->mem) ? "on" : "off");
	for (size_t n = 0; n < count; n++, range++) {
		static const char *const kinds[] = {
			[MEM_RAM] = "ram", [MEM_ROM] = "rom", [MEM_MMIO] = "i/o"};
		const struct mem_region *r = range->rd ? range->rd : range->wr;
		strbuf_printf(
			c->out, "  %016llx-%016llx (%s): %s @%016llx",
			(unsigned long long)range->start, (unsigned long long)range->end - 1,
			kinds[r->kind], r->name,
			(unsigned long long)(range->rd ? range->rd_offset : range->wr_offset));
		if (range->rd != range->wr)
			strbuf_printf(c->out, " [writes: %s]",
				      range->wr ? range->wr->name : "nowhere");
		strbuf_puts(c->out, "\n");
	}
}

static void info_state(struct info_call *c)
{
	if (!state_print(c->m->states, c->arg, c->out))
		strbuf_printf(c->out, "there is no device '%s'; info state shows all\n", c->arg);
}

static void info_pic(struct info_call *c)
{
	c->arg = "i8259";
	info_state(c);
	c->arg = "ioapic";
	info_state(c);
}

static void info_lapic(struct info_call *c)
{
	c->arg = "lapic";
	info_state(c);
}

static void info_screen(struct info_call *c)
{
	if (!c->m->display || !screen_text_display(c->m->display, c->out))
		strbuf_puts(c->out, "not in a text mode\n");
}

static const struct info_command commands[] = {
	{"block", "drives and their media", info_block},
	{"chardev", "character devices", info_chardev},
	{"cpus", "CPUs", info_cpus},
	{"engine", "what runs the guest, with counters", info_engine},
	{"ioports", "I/O ports and their devices", info_ioports},
	{"jit", "the translator: blocks, sizes, counters", info_jit},
	{"kvm", "whether KVM is in use", info_kvm},
	{"lapic", "local APICs", info_lapic},
	{"mtree", "guest-physical memory", info_mtree},
	{"name", "the machine's name", info_name},
	{"network", "network cards and backends", info_network},
	{"pci", "PCI functions", info_pci},
	{"pic", "interrupt controllers", info_pic},
	{"registers", "registers of the current CPU (-a: of all)", info_registers},
	{"screen", "the text screen as text", info_screen},
	{"state", "[device]: the state of devices, every field", info_state},
	{"status", "running or stopped", info_status},
	{"usernet", "connections of user networks", info_usernet},
	{"uuid", "the machine's UUID", info_uuid},
	{"version", "version", info_version},
};

size_t monitor_info_count(void)
{
	return ARRAY_SIZE(commands);
}

const char *monitor_info_name(size_t n)
{
	return commands[n].name;
}

void monitor_info_help(struct strbuf *out)
{
	for (size_t n = 0; n < ARRAY_SIZE(commands); n++)
		strbuf_printf(out, "info %s -- %s\n", commands[n].name, commands[n].help);
}

void monitor_info(struct machine *m, unsigned cpu, const char *what, const char *arg,
		  struct strbuf *out)
{
	struct info_call c = {.m = m, .cpu = cpu, .arg = arg, .out = out};
	if (!what) {
		monitor_info_help(out);
		return;
	}
	for (size_t n = 0; n < ARRAY_SIZE(commands); n++) {
		if (!strcmp(commands[n].name, what)) {
			commands[n].run(&c);
			return;
		}
	}
	strbuf_printf(out, "unknown command: 'info %s'\n", what);
}
