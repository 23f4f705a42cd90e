/* SPDX-License-Identifier: MIT */
/* Prints minivm(1), or with --markdown docs/commands.md, from the tables that the program itself works with. */
#include "lib/strbuf.h"
#include "vmm/monitor.h"
#include "vmm/options.h"
#include <stdio.h>
#include <string.h>

/* A dash is a minus sign in roff only when escaped; a dot or quote at a line's start is a request.
 */
static void print_roff(const char *text)
{
	bool line_start = true;
	for (; *text; text++) {
		if (line_start && (*text == '.' || *text == '\''))
			fputs("\\&", stdout);
		if (*text == '-')
			fputs("\\-", stdout);
		else if (*text == '\\')
			fputs("\\e", stdout);
		else
			putchar(*text);
		line_start = *text == '\n';
	}
}

static void print_options(void)
{
	for (const struct option_row *row = option_table; row->name; row++) {
		if (row->section)
			printf(".SS %s\n", row->section);
		printf(".TP\n.B \\-%s", row->name);
		if (row->alias)
			printf(", \\-%s", row->alias);
		if (row->arg) {
			fputs(" \\fI", stdout);
			print_roff(row->arg);
			fputs("\\fR", stdout);
		}
		putchar('\n');
		print_roff(row->help);
		putchar('\n');
	}
}

static void print_markdown_options(void)
{
	for (const struct option_row *row = option_table; row->name; row++) {
		if (row->section)
			printf("\n### %s\n\n", row->section);
		printf("- `-%s%s%s", row->name, row->arg ? " " : "", row->arg ? row->arg : "");
		printf("`%s%s%s: ", row->alias ? " (also `-" : "", row->alias ? row->alias : "", row->alias ? "`)" : "");
		for (const char *p = row->help; *p; p++)
			putchar(*p == '\n' ? ' ' : *p);
		putchar('\n');
	}
}

/* The monitor's own help, "usage -- explanation" a line, as a list. */
static void print_markdown_commands(const char *help_command)
{
	struct strbuf help = STRBUF_INIT;
	unsigned cpu = 0;
	monitor_run(NULL, &cpu, help_command, &help);
	char *save = NULL;
	for (char *line = strtok_r(help.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *separator = strstr(line, " -- ");
		if (!separator)
			continue;
		*separator = 0;
		printf("- `%s`: %s\n", line, separator + 4);
	}
	strbuf_free(&help);
}

static void print_markdown(void)
{
	printf("# Options and monitor commands\n\n"
	       "Printed by `make docs` from the tables in the source; `minivm -h` and `help` in the monitor show the same.\n"
	       "\n## Command line\n");
	print_markdown_options();
	printf("\n## Monitor\n\n");
	print_markdown_commands("help");
	printf("\n### info\n\n");
	print_markdown_commands("help info");
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--markdown")) {
		print_markdown();
		return 0;
	}
	puts(".TH MINIVM 1 \"\" \"minivm " MINIVM_VERSION "\"\n"
	     ".SH NAME\nminivm \\- a small, fast x86 PC\n"
	     ".SH SYNOPSIS\n.B minivm\n[options] [disk image]\n"
	     ".SH DESCRIPTION\n"
	     "Runs a 32\\-bit x86 PC: on the kernel's virtual machines (KVM) where they can run "
	     "one, otherwise on\n"
	     "its own software CPU. Options, image formats, monitor and QMP follow QEMU's.\n"
	     ".SH OPTIONS");
	print_options();
	puts(".SH KEYS\n"
	     "In the window Ctrl\\-Alt\\-G grabs or releases the mouse and Ctrl\\-Alt\\-F toggles "
	     "full screen. With\n"
	     ".B \\-nographic\n"
	     "Ctrl\\-A x ends minivm, Ctrl\\-A c switches between serial port and monitor, "
	     "Ctrl\\-A h lists the rest.\n"
	     ".SH EXIT STATUS\n"
	     "0 when the guest powered off or the user quit; 1 after an error; with "
	     "isa\\-debug\\-exit the value the\n"
	     "guest chose (2v+1).\n"
	     ".SH ENVIRONMENT\n.TP\n.B MINIVM_DATADIR\nA directory that is searched for firmware.\n"
	     ".SH FILES\n.TP\n.I /usr/share/seabios\nSeaBIOS and SeaVGABIOS (package seabios).\n"
	     ".SH EXAMPLES\n.nf\n"
	     "minivm\\-img create \\-f qcow2 disk.qcow2 4G\n"
	     "minivm \\-m 256 \\-hda disk.qcow2 \\-cdrom installer.iso \\-boot d\n"
	     "minivm \\-m 256 \\-hda disk.qcow2 \\-nographic\n.fi\n"
	     ".SH SEE ALSO\n.BR minivm\\-img (1),\n.BR qemu\\-system\\-i386 (1)");
	return 0;
}
