/* SPDX-License-Identifier: MIT */
/*
 * The command line's table: each option with its parser and its help. `-h` and minivm(1) are
 * printed from it.
 */
#include "core/cpu_model.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/object.h"
#include "lib/text.h"
#include "vmm/accel.h"
#include "vmm/firmware.h"
#include "vmm/json_opts.h"
#include "vmm/nics.h"
#include "vmm/options.h"
#include "vmm/ports.h"
#include "vmm/properties.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

/* A PC without 64-bit mode addresses 36 bits at most, and that with PAE (SDM vol. 3A, 4.1). */
#define MAX_RAM (64 * GIB)
/* The firmware needs room for itself and for the tables. */
#define MIN_RAM  (1 * MIB)
#define MAX_CPUS 32

static int parse_memory(struct options *o, const struct option_row *row, const char *arg,
			struct error *err)
{
	struct opts opts;
	int r = opts_parse(&opts, arg, "size", err);
	if (r < 0)
		return r;
	const char *size = opts_get(&opts, "size");
	uint64_t bytes = 0;
	if (!size)
		r = error_set(err, EINVAL, "-m needs a size, such as -m 256 or -m 1G");
	else
		r = parse_size(size, MIB, &bytes, err);
	if (r == 0)
		r = opts_check_unused(&opts, "-m", (const char *const[]){"size", NULL}, err);
	else if (size)
		error_prefix(err, "-m %s", arg);
	if (r == 0 && bytes < MIN_RAM)
		r = error_set(err, EINVAL, "-m %s: a PC needs at least 1 MiB of memory", arg);
	if (r == 0 && bytes > MAX_RAM)
		r = error_set(err, EINVAL,
			      "-m %s: that is more than the 64 GiB a 32-bit PC can address; the "
			      "number is "
			      "in MiB unless it has a suffix",
			      arg);
	o->ram_bytes = round_down(bytes, 4096);
	opts_free(&opts);
	return r;
}

static int parse_smp(struct options *o, const struct option_row *row, const char *arg,
		     struct error *err)
{
	struct opts opts;
	int r = opts_parse(&opts, arg, "cpus", err);
	if (r < 0)
		return r;
	uint64_t cpus = 0, sockets = 1, dies = 1, cores = 1, threads = 1, maxcpus = 0;
	bool topology = opts_has(&opts, "sockets") || opts_has(&opts, "cores") ||
			opts_has(&opts, "threads");
	if ((r = opts_get_u64(&opts, "cpus", &cpus, err)) < 0 ||
	    (r = opts_get_u64(&opts, "sockets", &sockets, err)) < 0 ||
	    (r = opts_get_u64(&opts, "dies", &dies, err)) < 0 ||
	    (r = opts_get_u64(&opts, "cores", &cores, err)) < 0 ||
	    (r = opts_get_u64(&opts, "threads", &threads, err)) < 0 ||
	    (r = opts_get_u64(&opts, "maxcpus", &maxcpus, err)) < 0 ||
	    (r = opts_check_unused(&opts, "-smp",
				   (const char *const[]){"cpus", "sockets", "dies", "cores",
							 "threads", "maxcpus", NULL},
				   err)) < 0)
		goto out;
	uint64_t product = MAX_CPUS + 1;
	if (sockets <= MAX_CPUS && dies <= MAX_CPUS && cores <= MAX_CPUS && threads <= MAX_CPUS)
		product = sockets * dies * cores * threads;
	if (!opts_has(&opts, "cpus"))
		cpus = topology ? product : maxcpus ? maxcpus : 1;
	if (cpus < 1 || cpus > MAX_CPUS)
		r = error_set(err, EINVAL, "-smp %s: the number of CPUs must be 1 to %d", arg,
			      MAX_CPUS);
	else if (topology && product != cpus)
		r = error_set(err, EINVAL,
			      "-smp %s: the topology has %llu CPUs, but %llu are asked for", arg,
			      (unsigned long long)product, (unsigned long long)cpus);
	else if (maxcpus && maxcpus != cpus)
		r = error_set(err, EINVAL,
			      "-smp %s: CPUs cannot be plugged in later; maxcpus must equal cpus",
			      arg);
	o->cpus = (unsigned)cpus;
out:
	opts_free(&opts);
	return r;
}

static int parse_cpu(struct options *o, const struct option_row *row, const char *arg,
		     struct error *err)
{
	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		cpu_model_help();
		return OPTIONS_DONE;
	}
	struct cpu_model model;
	int r = cpu_model_parse(arg, &model, err);
	if (r < 0)
		return r;
	o->cpu = arg;
	return 0;
}

static int set_accel_property(struct options *o, const char *what, struct opts *opts,
			      struct error *err)
{
	static const char *const modes[] = {"on", "off", "split", NULL};
	int mode = 0;
	for (size_t n = 0; n < 2; n++) {
		static const char *const keys[] = {"kernel-irqchip", "kernel_irqchip"};
		bool given = opts_has(opts, keys[n]);
		int r = opts_get_enum(opts, keys[n], modes, &mode, err);
		if (r < 0)
			return r;
		if (given && mode == 2)
			return error_set(err, EINVAL,
					 "%s: kernel-irqchip=split is not supported; use on or off",
					 what);
		if (given)
			o->kernel_irqchip = mode == 0;
	}
	return 0;
}

static int parse_accel(struct options *o, const struct option_row *row, const char *arg,
		       struct error *err)
{
	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		accel_help();
		return OPTIONS_DONE;
	}
	struct opts *opts = xcalloc(1, sizeof(*opts));
	int r = opts_parse(opts, arg, "accel", err);
	if (r < 0)
		return r;
	const char *name = opts_get(opts, "accel");
	if ((r = accel_add(o, name ? name : "", err)) < 0)
		return r;
	if ((r = set_accel_property(o, "-accel", opts, err)) < 0)
		return r;
	bool soft = !strcmp(name, "soft") || !strcmp(name, "tcg");
	if (soft && (r = soft_settings_parse(&o->soft, opts, "-accel", err)) < 0)
		return r;
	static const char *const known[] = {"kernel-irqchip", "jit",    "tb-size",
					    "verify",         "thread", NULL};
	static const char *const known_to_kvm[] = {"kernel-irqchip", NULL};
	return opts_check_unused(opts, "-accel", soft ? known : known_to_kvm, err);
}

static int parse_enable_kvm(struct options *o, const struct option_row *row, const char *arg,
			    struct error *err)
{
	return accel_add(o, "kvm", err);
}

static int parse_machine(struct options *o, const struct option_row *row, const char *arg,
			 struct error *err)
{
	static const char *const types[] = {"pc", "pc-i440fx", "q35", NULL};
	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		puts("Supported machines are:\n"
		     "pc                   Standard PC (i440FX + PIIX, 1996) (default)");
		return OPTIONS_DONE;
	}
	struct opts *opts = xcalloc(1, sizeof(*opts));
	int r = opts_parse(opts, arg, "type", err);
	if (r < 0)
		return r;
	const char *type = opts_get(opts, "type");
	if (type && strcmp(type, "pc") && strcmp(type, "pc-i440fx") &&
	    strncmp(type, "pc-i440fx-", strlen("pc-i440fx-"))) {
		const char *near = nearest_word(type, types);
		if (near && strcmp(near, "q35"))
			return error_set(err, EINVAL, "-%s %s: unknown machine; did you mean '%s'?",
					 row->name, arg, near);
		return error_set(err, EINVAL, "-%s %s: unknown machine; the one there is: pc",
				 row->name, arg);
	}
	const char *accel = opts_get(opts, "accel");
	if (accel) {
		/* A colon separates the choices in order of preference. */
		char *copy = xstrdup(accel), *save = NULL;
		for (char *name = strtok_r(copy, ":", &save); name;
		     name = strtok_r(NULL, ":", &save))
			if ((r = accel_add(o, name, err)) < 0)
				return r;
	}
	if ((r = set_accel_property(o, "-machine", opts, err)) < 0 ||
	    (r = opts_get_bool(opts, "acpi", &o->acpi, err)) < 0)
		return r;
	/* What this PC has not may be switched off. */
	static const char *const missing[] = {"usb", "vmport", "hpet", "nvdimm", "smm", "hmat"};
	for (size_t n = 0; n < ARRAY_SIZE(missing); n++) {
		bool on = false;
		if ((r = opts_get_bool(opts, missing[n], &on, err)) < 0)
			return r;
		if (on)
			return error_set(err, ENOTSUP, "-%s %s: this PC has no %s", row->name, arg,
					 missing[n]);
	}
	return opts_check_unused(
		opts, "-machine",
		(const char *const[]){"type", "accel", "kernel-irqchip", "acpi", "usb", NULL}, err);
}

static int parse_drive(struct options *o, const struct option_row *row, const char *arg,
		       struct error *err)
{
	return options_add_drive(o, "-drive", arg, arg, err);
}

/* A file name as the value of an option string: commas doubled. */
static char *escape_commas(const char *text)
{
	char *out = xmalloc(2 * strlen(text) + 1), *p = out;
	for (; *text; text++) {
		*p++ = *text;
		if (*text == ',')
			*p++ = ',';
	}
	*p = 0;
	return out;
}

static int parse_drive_short(struct options *o, const struct option_row *row, const char *arg,
			     struct error *err)
{
	char *file = escape_commas(arg);
	char *spec;
	if (row->name[0] == 'h')
		spec = xasprintf("file=%s,if=ide,media=disk,index=%d", file, row->name[2] - 'a');
	else if (row->name[0] == 'f')
		spec = xasprintf("file=%s,if=floppy,index=%d", file, row->name[2] - 'a');
	else
		spec = xasprintf("file=%s,if=ide,media=cdrom,index=2", file);
	char *option = xasprintf("-%s", row->name);
	return options_add_drive(o, option, arg, spec, err);
}

static int parse_display(struct options *o, const struct option_row *row, const char *arg,
			 struct error *err)
{
	if (!strcmp(arg, "help")) {
		puts("Available display backend types:\nnone\nsdl");
		return OPTIONS_DONE;
	}
	struct opts *opts = xcalloc(1, sizeof(*opts));
	int r = opts_parse(opts, arg, "type", err);
	if (r < 0)
		return r;
	static const char *const kinds[] = {"none", "sdl", NULL};
	static const char *const grab_mods[] = {"lctrl-lalt", "lshift-lctrl-lalt", "rctrl", NULL};
	int kind = 0, grab_mod = SDL_GRAB_CTRL_ALT;
	bool window_close = true;
	if (!opts_has(opts, "type"))
		return error_set(err, EINVAL, "-display needs a type: sdl or none");
	if ((r = opts_get_enum(opts, "type", kinds, &kind, err)) < 0) {
		error_prefix(err, "-display %s", arg);
		return r;
	}
	o->display = kind ? DISPLAY_SDL : DISPLAY_NONE;
	if ((r = opts_get_bool(opts, "full-screen", &o->full_screen, err)) < 0 ||
	    (r = opts_get_bool(opts, "window-close", &window_close, err)) < 0 ||
	    (r = opts_get_enum(opts, "grab-mod", grab_mods, &grab_mod, err)) < 0)
		return r;
	o->ignore_close = !window_close;
	o->grab_mod = grab_mod;
	return opts_check_unused(
		opts, "-display",
		(const char *const[]){"full-screen", "window-close", "grab-mod", NULL}, err);
}

static int parse_vga(struct options *o, const struct option_row *row, const char *arg,
		     struct error *err)
{
	if (!strcmp(arg, "help")) {
		puts("none                 no graphic card\nstd                  standard VGA "
		     "(default)");
		return OPTIONS_DONE;
	}
	if (!strcmp(arg, "std"))
		o->vga = true;
	else if (!strcmp(arg, "none"))
		o->vga = false;
	else
		return error_set(err, EINVAL, "-vga %s: unknown card; use std or none", arg);
	return 0;
}

static int add_network(struct options *o, const struct option_row *row, const char *arg,
		       struct error *err)
{
	char option[16];
	snprintf(option, sizeof(option), "-%s", row->name);
	if (!strcmp(row->name, "netdev") && !(arg = json_option(option, arg, "type", err)))
		return -err->code;
	int r = nics_check_option(o, option, arg, err);
	if (r == OPTIONS_RUN)
		arg_list_add(row->name[3] == 'd'   ? &o->netdev
			     : row->name[1] == 'i' ? &o->nic
						   : &o->net,
			     arg);
	return r;
}

static int parse_uuid(struct options *o, const struct option_row *row, const char *arg,
		      struct error *err)
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	bool good = strlen(arg) == strlen(form);
	for (size_t n = 0; good && form[n]; n++)
		good = form[n] == '-' ? arg[n] == '-'
				      : strchr("0123456789abcdefABCDEF", arg[n]) != NULL;
	if (!good)
		return error_set(err, EINVAL, "-uuid %s: it must look like %s", arg, form);
	o->uuid = arg;
	return 0;
}

static int parse_name(struct options *o, const struct option_row *row, const char *arg,
		      struct error *err)
{
	struct opts *opts = xcalloc(1, sizeof(*opts));
	int r = opts_parse(opts, arg, "guest", err);
	if (r < 0)
		return r;
	o->name = opts_get(opts, "guest");
	/* As ps shows it; the kernel keeps 15 characters. */
	const char *process = opts_get(opts, "process");
	if (process && prctl(PR_SET_NAME, process) < 0)
		return error_errno(err, errno, "-name %s: cannot set the process's name", arg);
	return opts_check_unused(opts, "-name", (const char *const[]){"guest", "process", NULL},
				 err);
}

static int parse_trace(struct options *o, const struct option_row *row, const char *arg,
		       struct error *err)
{
	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		trace_help();
		return OPTIONS_DONE;
	}
	return trace_enable(arg, err);
}

static int parse_trace_file(struct options *o, const struct option_row *row, const char *arg,
			    struct error *err)
{
	return trace_open_file(arg, err);
}

static int parse_help(struct options *o, const struct option_row *row, const char *arg,
		      struct error *err)
{
	options_print_help();
	return OPTIONS_DONE;
}

static int parse_version(struct options *o, const struct option_row *row, const char *arg,
			 struct error *err)
{
	options_print_version();
	return OPTIONS_DONE;
}

static int add_data_dir(struct options *o, const struct option_row *row, const char *arg,
			struct error *err)
{
	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		firmware_print_dirs(o);
		return OPTIONS_DONE;
	}
	arg_list_add(&o->data_dirs, arg);
	return 0;
}

static int add_device(struct options *o, const struct option_row *row, const char *arg,
		      struct error *err)
{
	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		ports_device_help();
		return OPTIONS_DONE;
	}
	if (!(arg = json_option("-device", arg, "driver", err)))
		return -err->code;
	char driver[64];
	if (properties_asked(arg, driver, sizeof(driver))) {
		int r = ports_print_properties(driver, err);
		if (r < 0)
			error_prefix(err, "-device %s", arg);
		return r < 0 ? r : OPTIONS_DONE;
	}
	arg_list_add(&o->device, arg);
	return 0;
}

static int add_object(struct options *o, const struct option_row *row, const char *arg,
		      struct error *err)
{
	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		object_print_help();
		return OPTIONS_DONE;
	}
	if (!(arg = json_option("-object", arg, "qom-type", err)))
		return -err->code;
	arg_list_add(&o->object, arg);
	return 0;
}

/* Options that set one string, add to one list, or set one switch. */
#define STRING_OPTION(function, member)                                                            \
	static int function(struct options *o, const struct option_row *row, const char *arg,      \
			    struct error *err)                                                     \
	{                                                                                          \
		o->member = arg;                                                                   \
		return 0;                                                                          \
	}
#define LIST_OPTION(function, member)                                                              \
	static int function(struct options *o, const struct option_row *row, const char *arg,      \
			    struct error *err)                                                     \
	{                                                                                          \
		arg_list_add(&o->member, arg);                                                     \
		return 0;                                                                          \
	}
#define SWITCH_OPTION(function, member, value)                                                     \
	static int function(struct options *o, const struct option_row *row, const char *arg,      \
			    struct error *err)                                                     \
	{                                                                                          \
		o->member = value;                                                                 \
		return 0;                                                                          \
	}
STRING_OPTION(set_kernel, kernel)
STRING_OPTION(set_initrd, initrd)
STRING_OPTION(set_append, append)
STRING_OPTION(set_bios, bios)
STRING_OPTION(set_rtc, rtc)
STRING_OPTION(set_pidfile, pidfile)
LIST_OPTION(add_boot, boot)
LIST_OPTION(add_serial, serial)
LIST_OPTION(add_parallel, parallel)
LIST_OPTION(add_debugcon, debugcon)
LIST_OPTION(add_monitor, monitor)
LIST_OPTION(add_qmp, qmp)
LIST_OPTION(add_chardev, chardev)
LIST_OPTION(add_mon, mon)
LIST_OPTION(add_option_rom, option_rom)
SWITCH_OPTION(set_snapshot, snapshot, true)
SWITCH_OPTION(set_nographic, nographic, true)
SWITCH_OPTION(set_full_screen, full_screen, true)
SWITCH_OPTION(set_no_reboot, no_reboot, true)
SWITCH_OPTION(set_no_shutdown, no_shutdown, true)
SWITCH_OPTION(set_no_acpi, acpi, false)
SWITCH_OPTION(set_no_fd_bootchk, no_fd_bootchk, true)
SWITCH_OPTION(set_perfmap, soft.perf_map, true)
SWITCH_OPTION(set_start_stopped, start_stopped, true)
SWITCH_OPTION(set_daemonize, daemonize, true)
SWITCH_OPTION(set_nodefaults, no_default_drives, true)

const struct option_row option_table[] = {
	{"h", "help", NULL, parse_help, "General", "Prints this help."},
	{"version", NULL, NULL, parse_version, NULL, "Prints the version and what is built in."},
	{"name", NULL, "text", parse_name, NULL, "Names the machine; the window's title shows it."},
	{"uuid", NULL, "uuid", parse_uuid, NULL, "The system UUID that SMBIOS tells the guest."},

	{"machine", "M", "type[,accel=a:b]", parse_machine, "Machine and CPU",
	 "The machine: pc. Properties: accel=kvm|soft (several with ':', the first that works),\n"
	 "kernel-irqchip=on|off, acpi=on|off."},
	{"accel", NULL, "kvm|soft[,...]|help", parse_accel, NULL,
	 "What runs the guest's instructions. kvm: the kernel's virtual machines. soft (or tcg): "
	 "the software\n"
	 "CPU. help: what this host offers. Given more than once: the first that works. Without "
	 "it, kvm if\n"
	 "it can run a PC, else soft. kvm,kernel-irqchip=off uses minivm's own interrupt "
	 "controllers.\n"
	 "soft,jit=off interprets instead of translating; tb-size=MiB bounds the translated code\n"
	 "(default 16); verify=N checks each N-th entry into translated code against the "
	 "interpreter\n"
	 "(1: all of it, slowly) and stops with a report and exit status 1 at the first "
	 "difference."},
	{"enable-kvm", NULL, NULL, parse_enable_kvm, NULL, "The same as -accel kvm."},
	{"perfmap", NULL, NULL, set_perfmap, NULL,
	 "Writes /tmp/perf-PID.map, by which perf(1) names the code that the software CPU "
	 "translated."},
	{"m", NULL, "size", parse_memory, NULL,
	 "Memory in MiB, or with suffix K, M or G (default 128 MiB, at most 64 GiB)."},
	{"smp", NULL, "n", parse_smp, NULL,
	 "Number of CPUs, 1 to 32; also cpus=,sockets=,cores=,threads= whose product must agree."},
	{"cpu", NULL, "model[,+f,-f]", parse_cpu, NULL,
	 "CPU model and features to add or take away; help lists them."},

	{"hda", NULL, "file", parse_drive_short, "Disks and other media",
	 "Disk image (or block device) as first IDE disk, primary master."},
	{"hdb", NULL, "file", parse_drive_short, NULL, "Primary slave."},
	{"hdc", NULL, "file", parse_drive_short, NULL, "Secondary master (where -cdrom goes too)."},
	{"hdd", NULL, "file", parse_drive_short, NULL, "Secondary slave."},
	{"cdrom", NULL, "file", parse_drive_short, NULL,
	 "CD-ROM image in the drive at the secondary master."},
	{"fda", NULL, "file", parse_drive_short, NULL, "Floppy image in drive A."},
	{"fdb", NULL, "file", parse_drive_short, NULL, "Floppy image in drive B."},
	{"drive", NULL, "property=value,...", parse_drive, NULL,
	 "A drive: file=, if=ide|virtio|floppy|none, index=, bus=, unit=, media=disk|cdrom, "
	 "format=, "
	 "readonly=on,\n"
	 "snapshot=on, cache=writeback|none|writethrough|directsync|unsafe, discard=ignore|unmap,\n"
	 "detect-zeroes=off|on|unmap, copy-on-read=on, id=, serial=, cyls=,heads=,secs=,\n"
	 "locking=auto|on|off, force-share=on, aio=threads|io_uring|native (native is io_uring "
	 "with\n"
	 "cache.direct=on; without aio= that, else threads). driver=, file.filename= and the like\n"
	 "are taken as QEMU's; offset= and size= make a part of a raw file the disk, cache-size=,\n"
	 "l2-cache-size=, refcount-cache-size= and data-file= are for qcow2. "
	 "rerror=report|ignore|stop and\n"
	 "werror=enospc|report|ignore|stop say what a failed request does: stop (and enospc on a "
	 "full\n"
	 "disk) pauses the machine in state io-error, and cont tries again. Limits a second:\n"
	 "throttling.bps-total= (-read, -write) and throttling.iops-total= (-read, -write), each "
	 "with\n"
	 "-max= and -max-length= for bursts, throttling.iops-size=, throttling.group= for drives "
	 "that\n"
	 "share them; bps=, bps_rd=, bps_wr=, iops=, iops_rd=, iops_wr= are short for them.\n"
	 "A disk on an NBD server is file=nbd://HOST[:PORT]/EXPORT, "
	 "file=nbd+unix:///EXPORT?socket=PATH\n"
	 "(nbds: with TLS), or driver=nbd (or file.driver=nbd, its keys then with file. before "
	 "them)\n"
	 "with host=,port= or path=, and export=, tls-creds=, tls-hostname=, reconnect-delay= "
	 "(seconds in\n"
	 "which requests wait for a server that went away, 0: they fail), open-timeout=. Such "
	 "names do\n"
	 "for -hda and its like, for -cdrom, and as backing files, too."},
	{"snapshot", NULL, NULL, set_snapshot, NULL,
	 "Writes go to temporary files and are gone when minivm ends."},

	{"boot", NULL, "[order=]drives", add_boot, "Boot",
	 "Boot order: a floppy, c disk, d CD-ROM, n network; order=,once=,menu=on,splash-time=ms,\n"
	 "reboot-timeout=ms."},
	{"kernel", NULL, "file", set_kernel, NULL,
	 "Boots a Linux bzImage or a multiboot kernel directly."},
	{"initrd", NULL, "file", set_initrd, NULL,
	 "Initial ramdisk; for multiboot \"file args,file2 args\" are the modules."},
	{"append", NULL, "text", set_append, NULL, "The kernel's command line."},
	{"bios", NULL, "file", set_bios, NULL, "Firmware image instead of SeaBIOS' bios-256k.bin."},
	{"option-rom", NULL, "file[,bootindex=n]", add_option_rom, NULL,
	 "An option ROM that the firmware runs at start-up, such as a boot ROM for an ISA network "
	 "card."},
	{"L", NULL, "dir", add_data_dir, NULL,
	 "Looks for firmware here first; help lists where it is looked for."},

	{"nographic", NULL, NULL, set_nographic, "Display and consoles",
	 "No window; serial port and monitor on the terminal (Ctrl-A h for help)."},
	{"display", NULL, "sdl|none", parse_display, NULL,
	 "A window, or none. sdl,full-screen=on,window-close=off,\n"
	 "grab-mod=lctrl-lalt|lshift-lctrl-lalt|rctrl."},
	{"vga", NULL, "std|none", parse_vga, NULL, "The display adapter."},
	{"full-screen", NULL, NULL, set_full_screen, NULL, "Starts in full screen."},
	{"serial", NULL, "dev", add_serial, NULL,
	 "The next serial port (up to four): stdio, file:PATH, unix:PATH[,server=on,wait=off],\n"
	 "tcp:HOST:PORT[,server=on], pty, pipe:PATH, null, none, mon:stdio, chardev:ID."},
	{"parallel", NULL, "dev", add_parallel, NULL, "The parallel port (up to three), likewise."},
	{"debugcon", NULL, "dev", add_debugcon, NULL,
	 "What is written to the debug console: the firmware's log (port 0x402) and guests' own\n"
	 "(port 0xe9)."},
	{"monitor", NULL, "dev", add_monitor, NULL, "The monitor, likewise."},
	{"qmp", NULL, "dev", add_qmp, NULL, "The JSON control protocol, likewise."},
	{"chardev", NULL, "backend,id=id,...", add_chardev, NULL,
	 "A character device for -serial chardev:ID, -mon and -device."},
	{"mon", NULL, "[chardev=]id,mode=", add_mon, NULL,
	 "A monitor on a -chardev; mode=readline or control (QMP)."},

	{"device", NULL, "driver[,prop=value]", add_device, "Devices",
	 "ide-hd, ide-cd (drive=,bus=ide.N,unit=,bootindex=), floppy (drive=,unit=),\n"
	 "virtio-blk-pci (drive=), virtio-net-pci (netdev=,mac=), virtio-rng-pci (rng=),\n"
	 "virtio-serial-pci with virtserialport and virtconsole (chardev=,name=),\n"
	 "isa-debug-exit (iobase=,iosize=), isa-debugcon (iobase=,chardev=), ne2k_pci and "
	 "ne2k_isa\n"
	 "(netdev=,mac=). help lists them; DRIVER,help lists the properties of one. The virtio "
	 "cards have\n"
	 "QEMU's properties as far as what they ask for is there, and also QEMU's names with "
	 "-transitional\n"
	 "and -non-transitional."},
	{"object", NULL, "type,id=id[,prop=value]", add_object, NULL,
	 "Makes an object that other options name by its id; help lists the types and their "
	 "properties.\n"
	 "-object, -device and -netdev may also be written as JSON, as in "
	 "{\"qom-type\":type,\"id\":id}."},
	{"rtc", NULL, "base=,clock=", set_rtc, NULL,
	 "The real-time clock: base=utc|localtime|YYYY-MM-DD[THH:MM:SS], clock=host|vm."},
	{"no-fd-bootchk", NULL, NULL, set_no_fd_bootchk, NULL,
	 "Boots floppies without the signature 55 AA too."},
	{"no-acpi", NULL, NULL, set_no_acpi, NULL, "No ACPI tables."},
	{"nodefaults", NULL, NULL, set_nodefaults, NULL,
	 "Only the drives, ports and consoles asked for; otherwise there is an empty floppy and CD "
	 "drive,\n"
	 "a serial and a parallel port."},

	{"netdev", NULL, "type,id=id[,prop=value]", add_network, "Network",
	 "A network backend for a card's netdev=ID; help lists the types and their properties.\n"
	 "user: the guest's connections become the host's: net=addr/len, host=, dhcpstart=, dns=,\n"
	 "hostname=, domainname=, dnssearch=, ipv4=on|off, ipv6=on|off, ipv6-net=, ipv6-host=,\n"
	 "ipv6-dns=, restrict=on, hostfwd=tcp|udp:[hostaddr]:port-[guestaddr]:port (as often as "
	 "needed; host port 0: a free one, info usernet says which),\n"
	 "hostfwd=unix:path-[guestaddr]:port for a unix socket of the host,\n"
	 "guestfwd=tcp:addr:port-chardev|cmd:command, tftp=dir, bootfile=file, tftp-server-name=.\n"
	 "tap: an interface of the host: ifname=, script=file|no, downscript=file|no, br=bridge,\n"
	 "helper=, fd=, fds=a:b, vnet_hdr=on|off, queues=n. bridge: an interface that the set-uid "
	 "helper\n"
	 "puts on a bridge: br=, helper=.\n"
	 "socket: to other machines: listen=[host]:port, connect=host:port, mcast=group:port,\n"
	 "udp=host:port with localaddr=; stream and dgram: the same with addr.type=inet|unix|fd.\n"
	 "vde: sock=dir, a port of a vde_switch. hubport: hubid=n[,netdev=id], a port of a hub."},
	{"nic", NULL, "type[,model=][,mac=]", add_network, NULL,
	 "A card and its backend at once: user (without a type), tap, socket, ... with the "
	 "properties of\n"
	 "-netdev, "
	 "and\n"
	 "model= (model=help lists the cards), mac=, addr=, bootindex=, romfile=. none: no card. "
	 "Without any\n"
	 "network option there is a card on a user network, unless -nodefaults is given. Without "
	 "mac= "
	 "the\n"
	 "address comes from -uuid, -name or the first disk."},
	{"net", NULL, "nic|user|tap|...", add_network, NULL,
	 "The old form: -net nic,model=,macaddr= makes a card, -net user and others a backend; "
	 "both "
	 "are on\n"
	 "hub 0. none: no card."},

	{"S", NULL, NULL, set_start_stopped, "Running",
	 "Starts stopped; cont in the monitor goes on."},
	{"no-reboot", NULL, NULL, set_no_reboot, NULL, "Ends when the guest reboots."},
	{"no-shutdown", NULL, NULL, set_no_shutdown, NULL,
	 "Stops instead of ending when the guest powers off."},
	{"pidfile", NULL, "file", set_pidfile, NULL, "Writes the process id there."},
	{"daemonize", NULL, NULL, set_daemonize, NULL,
	 "Goes to the background once the machine is built."},
	{"d", NULL, "category,...", parse_trace, NULL,
	 "Traces to stderr; help lists the categories."},
	{"D", NULL, "file", parse_trace_file, NULL, "Traces to a file."},
	{NULL, NULL, NULL, NULL, NULL, NULL},
};
