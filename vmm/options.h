/* SPDX-License-Identifier: MIT */
/*
 * The command line: one table (option_table.c) from which the parser, `-h` and the man page are
 * made, and the settings that the machine is built from.
 */
#ifndef VMM_OPTIONS_H
#define VMM_OPTIONS_H

#include "lib/error.h"
#include "lib/optstr.h"
#include "ui/sdl.h"
#include "vmm/engine.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A list of option arguments in the order given. */
struct arg_list {
	const char **item;
	size_t count;
};

/* Where a drive goes. */
enum drive_interface { IF_IDE, IF_FLOPPY, IF_NONE, IF_VIRTIO };

/* One -drive, -hda, -cdrom, -fda ... */
struct drive_option {
	enum drive_interface interface;
	int index; /* IDE: bus * 2 + unit; floppy: unit; -1: the next free one */
	bool cdrom;
	bool share_rw;      /* -device ...,share-rw=on */
	const char *option; /* "-hda", "-drive": for messages */
	const char *typed;  /* the argument of that option */
	const char *id;     /* owned by opts, or NULL */
	struct opts opts;   /* what is left for the block layer, and owner of the strings */
};

enum display_kind { DISPLAY_DEFAULT, DISPLAY_NONE, DISPLAY_SDL };

struct options {
	int argc; /* the command line as it is */
	char **argv;
	uint64_t ram_bytes;
	unsigned cpus;
	const char *cpu;       /* NULL: the engine's default */
	struct arg_list accel; /* in order of preference; empty: automatic */
	bool kernel_irqchip;
	struct soft_settings soft;

	struct drive_option *drives;
	size_t drive_count;
	bool snapshot;
	bool no_default_drives; /* -nodefaults */

	struct arg_list boot; /* each -boot argument */
	const char *kernel, *initrd, *append;
	const char *bios;
	struct arg_list data_dirs; /* -L */

	struct arg_list serial, parallel, debugcon, monitor, qmp, chardev, mon, device;
	struct arg_list netdev, nic, net;
	struct arg_list object;
	struct arg_list option_rom;
	bool nographic;
	enum display_kind display;
	bool full_screen;
	bool ignore_close;
	enum sdl_grab_mod grab_mod;
	bool vga;
	const char *rtc;
	const char *uuid;
	bool acpi;
	bool no_fd_bootchk;

	bool no_reboot, no_shutdown, start_stopped;
	const char *name;
	const char *pidfile;
	bool daemonize;
};

/* What the command line asked for besides a machine. */
enum options_result {
	OPTIONS_RUN,  /* go on */
	OPTIONS_DONE, /* something was printed (-h, -version, -accel help): exit 0 */
};

/*
 * Parses argv into `o` (which must be zeroed). Strings point into argv or are never freed. Returns
 * enum options_result, or -EINVAL with a sentence.
 */
int options_parse(struct options *o, int argc, char **argv, struct error *err);

/* Adds a drive from -drive's argument; -hda and its like make such a `spec` of what was `typed`. */
int options_add_drive(struct options *o, const char *option, const char *typed, const char *spec,
		      struct error *err);
void arg_list_add(struct arg_list *list, const char *arg);
/* Whether a port, a monitor or a -chardev is on the terminal. */
bool options_use_stdio(const struct options *o);

/* One row of the table. */
struct option_row {
	const char *name;  /* without the dash: "m", "hda" */
	const char *alias; /* another spelling, or NULL */
	const char *arg;   /* "size", or NULL if it takes none */
	int (*parse)(struct options *o, const struct option_row *row, const char *arg,
		     struct error *err);
	const char *section; /* heading, on the first row of a section */
	const char *help;    /* sentences; lines separated by \n */
};
extern const struct option_row option_table[];
/* `-h`: the table as text. */
void options_print_help(void);
/* `-version`: version, what is built in. */
void options_print_version(void);

#endif
