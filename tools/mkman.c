/* SPDX-License-Identifier: MIT */
/*
 * Prints the manual from what the programs themselves say:
 *
 *   mkman               minivm(1), from the table of options
 *   mkman --markdown    docs/commands.md, from that and the monitor's help
 *   mkman --img <help   minivm-img(1), from the text of `minivm-img --help`
 *   mkman --nbd <help   minivm-nbd(1), from the text of `minivm-nbd --help`
 */
#include "lib/strbuf.h"
#include "vmm/monitor.h"
#include "vmm/options.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* ---- roff ---- */

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

/* ---- docs/commands.md ---- */

static void print_markdown_options(void)
{
	for (const struct option_row *row = option_table; row->name; row++) {
		if (row->section)
			printf("\n### %s\n\n", row->section);
		printf("- `-%s%s%s", row->name, row->arg ? " " : "", row->arg ? row->arg : "");
		printf("`%s%s%s: ", row->alias ? " (also `-" : "", row->alias ? row->alias : "",
		       row->alias ? "`)" : "");
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
	for (char *line = strtok_r(help.data, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
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
	       "Printed by `make docs` from the tables in the source; `minivm -h` and `help` in "
	       "the monitor show the same.\n"
	       "\n## Command line\n");
	print_markdown_options();
	printf("\n## Monitor\n\n");
	print_markdown_commands("help");
	printf("\n### info\n\n");
	print_markdown_commands("help info");
}

/* ---- minivm(1) ---- */

static void print_page(void)
{
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
}

/* ---- minivm-img(1), minivm-nbd(1) ---- */

/* A line of the help below "Commands:" ("  name syntax", then "      what it does") or "Options:"
 * ("  option  what it means", then lines set in further). */
static void print_img_entry(const char *line)
{
	size_t indent = strspn(line, " ");
	const char *term = line + indent, *gap = strstr(term, "  ");
	char word[128];

	if (indent > 2) {
		print_roff(term);
		putchar('\n');
		return;
	}
	puts(".TP");
	size_t len = gap ? (size_t)(gap - term) : strcspn(term, " ");
	snprintf(word, sizeof(word), "%.*s", (int)(len < sizeof(word) ? len : sizeof(word) - 1),
		 term);
	fputs(".B ", stdout);
	print_roff(word);
	fputs(gap ? "\n" : "\\fR", stdout);
	print_roff(gap ? gap + strspn(gap, " ") : term + len);
	putchar('\n');
}

static const char img_head[] =
	".TH MINIVM\\-IMG 1 \"\" \"minivm " MINIVM_VERSION "\"\n"
	".SH NAME\nminivm\\-img \\- makes and examines disk images\n"
	".SH SYNOPSIS\n.B minivm\\-img\n[\\-h | \\-V] command [options]\n"
	".SH DESCRIPTION\n"
	"Works on disk images of minivm and QEMU. Commands, options, output and exit codes "
	"are\n"
	"those of\n.BR qemu\\-img (1).\n"
	"Images in use are locked: one that a running machine writes to is refused.";

static const char nbd_head[] =
	".TH MINIVM\\-NBD 1 \"\" \"minivm " MINIVM_VERSION "\"\n"
	".SH NAME\nminivm\\-nbd \\- serves a disk image by the NBD protocol\n"
	".SH SYNOPSIS\n.B minivm\\-nbd\n[options] file\n.br\n.B minivm\\-nbd\n\\-L "
	"[options]\n.br\n.B minivm\\-nbd\n\\-d device\n"
	".SH DESCRIPTION\n"
	"Makes a disk image, of any format that minivm knows, an export of the Network Block "
	"Device\n"
	"protocol. Options, output and exit codes are those of\n.BR qemu\\-nbd (8).\n"
	"The server ends when its last client has left, or goes on with\n.BR \\-t .\n"
	"A client that has not chosen an export within ten seconds is dropped. SIGTERM ends "
	"the server\n"
	"with everything on disk. Systemd may hand over the listening socket (LISTEN_FDS).";

static const char img_tail[] =
	".SH SEE ALSO\n.BR minivm (1),\n.BR minivm\\-nbd (1),\n.BR qemu\\-img (1)";

static const char nbd_tail[] =
	".SH EXAMPLES\n.nf\n"
	"minivm\\-nbd \\-t \\-k /run/disk.sock disk.qcow2\n"
	"minivm \\-hda 'nbd+unix:///?socket=/run/disk.sock'\n"
	"minivm\\-nbd \\-r \\-e 5 \\-x disk \\-\\-object "
	"tls\\-creds\\-x509,id=t,endpoint=server,dir=/etc/pki/qemu \\-\\-tls\\-creds t disk.img\n"
	".fi\n"
	".SH SEE ALSO\n.BR minivm (1),\n.BR minivm\\-img (1),\n.BR qemu\\-nbd (8)";

/* Between the head and the references: what the program's own help says. */
static void print_help_page(const char *head, const char *tail)
{
	char line[1024];
	bool body = false, gap = false;

	puts(head);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		size_t len = strlen(line);
		bool heading = len > 1 && line[0] != ' ' && line[len - 1] == ':';
		if (heading) {
			fputs(".SH ", stdout);
			for (size_t n = 0; n + 1 < len; n++)
				putchar(toupper((unsigned char)line[n]));
			putchar('\n');
			body = true;
		} else if (body && line[0] == ' ') {
			print_img_entry(line);
		} else if (body && len) {
			if (gap)
				puts(".PP");
			print_roff(line);
			putchar('\n');
		}
		gap = len == 0;
	}
	puts(tail);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "--markdown"))
		print_markdown();
	else if (!strcmp(what, "--img"))
		print_help_page(img_head, img_tail);
	else if (!strcmp(what, "--nbd"))
		print_help_page(nbd_head, nbd_tail);
	else
		print_page();
	return 0;
}
