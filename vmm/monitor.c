/* SPDX-License-Identifier: MIT */
/*
 * The human monitor: a line editor on a character device and a table of commands. What `info` shows
 * stands in monitor_info.c.
 */
#include "vmm/monitor.h"
#include "bios/bios.h"
#include "core/chardev.h"
#include "core/iobus.h"
#include "core/memory.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/object.h"
#include "lib/text.h"
#include "vmm/commands.h"
#include "vmm/lineedit.h"
#include "vmm/machine.h"
#include "vmm/monitor_info.h"
#include "vmm/net_announce.h"
#include "vmm/nics.h"
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ARGS = 32, MAX_BACKLOG = 64 << 10 };

struct monitor {
	struct machine *m;
	struct chardev *chr;
	unsigned current_cpu;
	struct line_editor *editor;
	char completion[64];
	struct monitor *next;
};

/* One command line, split. */
struct call {
	struct machine *m;
	unsigned *cpu;
	struct strbuf *out;
	const char *arg[MAX_ARGS];
	size_t args;
	char format[16]; /* what followed "/" behind the command's name */
};

struct command {
	const char *name, *alias;
	size_t min_args, max_args;
	const char *params, *help;
	void (*run)(struct call *c);
};

static void fail(struct call *c, const struct error *err)
{
	strbuf_printf(c->out, "Error: %s\n", err->text);
}

static bool parse_number(struct call *c, const char *text, uint64_t max, uint64_t *out)
{
	struct error err = ERROR_INIT;
	if (parse_u64(text, "number", 0, max, out, &err) == 0)
		return true;
	fail(c, &err);
	return false;
}

/* ---- Commands ---- */

static void do_quit(struct call *c)
{
	machine_request_quit(c->m, 0, CAUSE_HOST_QUIT);
}

static void do_stop(struct call *c)
{
	machine_stop(c->m);
}

static void do_cont(struct call *c)
{
	struct error err = ERROR_INIT;
	if (machine_cont(c->m, &err) < 0)
		fail(c, &err);
}

static void do_reset(struct call *c)
{
	machine_request_reset(c->m, CAUSE_HOST_RESET);
}

static void do_powerdown(struct call *c)
{
	machine_powerdown(c->m);
}

static void do_nmi(struct call *c)
{
	for (unsigned n = 0; n < c->m->options->cpus; n++)
		c->m->engine->ops->nmi(c->m->engine, n);
}

static void do_sendkey(struct call *c)
{
	struct error err = ERROR_INIT;
	uint8_t keys[KEYS_AT_ONCE];
	size_t count;
	uint64_t hold_ms = KEY_HOLD_MS;
	if (c->args > 1 && !parse_number(c, c->arg[1], 60000, &hold_ms))
		return;
	if (command_parse_keys(c->arg[0], keys, &count, &err) < 0 ||
	    key_typist_type(c->m->typist, keys, count, (unsigned)hold_ms, &err) < 0)
		fail(c, &err);
}

static void do_screendump(struct call *c)
{
	struct error err = ERROR_INIT;
	const char *path = c->arg[0], *format = NULL;
	if (!strcmp(path, "-f")) {
		if (c->args < 3) {
			strbuf_puts(c->out, "usage: screendump [-f format] filename\n");
			return;
		}
		format = c->arg[1];
		path = c->arg[2];
	}
	if (command_screendump(c->m, path, format, &err) < 0)
		fail(c, &err);
}

static void do_object_add(struct call *c)
{
	struct error err = ERROR_INIT;
	if (object_add(c->m, c->arg[0], &err) < 0)
		fail(c, &err);
}

static void do_object_del(struct call *c)
{
	struct error err = ERROR_INIT;
	if (object_delete(c->arg[0], &err) < 0)
		fail(c, &err);
}

static void do_eject(struct call *c)
{
	struct error err = ERROR_INIT;
	bool force = !strcmp(c->arg[0], "-f");
	if (force && c->args < 2)
		strbuf_puts(c->out, "eject: device name expected\n");
	else if (command_eject(c->m, c->arg[force], force, &err) < 0)
		fail(c, &err);
}

static void do_change(struct call *c)
{
	struct error err = ERROR_INIT;
	const char *format = c->args > 2 ? c->arg[2] : NULL, *mode = c->args > 3 ? c->arg[3] : NULL;
	if (command_change(c->m, c->arg[0], c->arg[1], format, mode, &err) < 0)
		fail(c, &err);
}

static void do_set_io_throttle(struct call *c)
{
	static const enum throttle_bucket order[] = {THROTTLE_BPS_TOTAL, THROTTLE_BPS_READ,
						     THROTTLE_BPS_WRITE, THROTTLE_OPS_TOTAL,
						     THROTTLE_OPS_READ,  THROTTLE_OPS_WRITE};
	struct error err = ERROR_INIT;
	struct throttle_limits limits = {0};
	for (int i = 0; i < (int)ARRAY_SIZE(order); i++)
		if (!parse_number(c, c->arg[i + 1], INT64_MAX, &limits.bucket[order[i]].avg))
			return;
	if (command_set_limits(c->m, c->arg[0], &limits, NULL, &err) < 0)
		fail(c, &err);
}

static void do_pmemsave(struct call *c)
{
	struct error err = ERROR_INIT;
	uint64_t addr, size;
	if (!parse_number(c, c->arg[0], UINT64_C(1) << 40, &addr) ||
	    !parse_number(c, c->arg[1], UINT64_C(1) << 40, &size))
		return;
	if (command_pmemsave(c->m, addr, size, c->arg[2], &err) < 0)
		fail(c, &err);
}

static void do_memsave(struct call *c)
{
	struct error err = ERROR_INIT;
	uint64_t addr, size;
	if (!parse_number(c, c->arg[0], UINT32_MAX, &addr) ||
	    !parse_number(c, c->arg[1], UINT64_C(1) << 32, &size))
		return;
	if (command_memsave(c->m, *c->cpu, (uint32_t)addr, size, c->arg[2], &err) < 0)
		fail(c, &err);
}

static void do_cpu(struct call *c)
{
	uint64_t cpu;
	if (parse_number(c, c->arg[0], c->m->options->cpus - 1, &cpu))
		*c->cpu = (unsigned)cpu;
}

static void do_info(struct call *c)
{
	monitor_info(c->m, *c->cpu, c->args ? c->arg[0] : NULL, c->args > 1 ? c->arg[1] : NULL,
		     c->out);
}

static void hostfwd(struct call *c, bool add)
{
	struct error err = ERROR_INIT;
	const char *netdev = c->args > 1 ? c->arg[0] : NULL;
	if (nics_hostfwd(c->m, add, netdev, c->arg[c->args - 1], &err) < 0)
		fail(c, &err);
}

static void do_hostfwd_add(struct call *c)
{
	hostfwd(c, true);
}

static void do_hostfwd_remove(struct call *c)
{
	hostfwd(c, false);
}

static void do_set_link(struct call *c)
{
	struct error err = ERROR_INIT;
	bool up = !strcmp(c->arg[1], "on");
	if (!up && strcmp(c->arg[1], "off") != 0)
		strbuf_puts(c->out, "Error: a link is either on or off\n");
	else if (nics_set_link(c->m, c->arg[0], up, &err) < 0)
		fail(c, &err);
}

/* announce_self [names separated by commas] */
static void do_announce_self(struct call *c)
{
	enum { MAX_NAMES = 64 };
	const char *names[MAX_NAMES + 1] = {0};
	struct announcement how = ANNOUNCEMENT_DEFAULT;
	struct error err = ERROR_INIT;
	char *copy = c->args ? xstrdup(c->arg[0]) : NULL, *save = NULL;
	size_t count = 0;
	for (char *name = copy ? strtok_r(copy, ",", &save) : NULL; name && count < MAX_NAMES;
	     name = strtok_r(NULL, ",", &save))
		names[count++] = name;
	if (net_announce(c->m, &how, c->args ? names : NULL, &err) < 0)
		fail(c, &err);
	free(copy);
}

static void do_netdev_add(struct call *c)
{
	struct error err = ERROR_INIT;
	if (nics_netdev_add(c->m, c->arg[0], &err) < 0)
		fail(c, &err);
}

static void do_netdev_del(struct call *c)
{
	struct error err = ERROR_INIT;
	if (nics_netdev_del(c->m, c->arg[0], &err) < 0)
		fail(c, &err);
}

static void do_log(struct call *c)
{
	struct error err = ERROR_INIT;
	if (!strcmp(c->arg[0], "none"))
		trace_mask = 0;
	else if (trace_enable(c->arg[0], &err) < 0)
		fail(c, &err);
}

static void do_boot_set(struct call *c)
{
	struct error err = ERROR_INIT;
	if (firmware_set_boot_order(c->m->firmware, c->arg[0], &err) < 0)
		fail(c, &err);
	else
		strbuf_printf(c->out, "boot device list now set to %s\n", c->arg[0]);
}

/* "/fmt" of x, xp, i: count, format letter, size letter (b h w g). */
struct memory_format {
	uint64_t count;
	char letter;
	unsigned size;
};

static bool parse_format(struct call *c, struct memory_format *f)
{
	char *p = c->format;
	*f = (struct memory_format){1, 'x', 4};
	if (isdigit((unsigned char)*p))
		f->count = strtoull(p, &p, 10);
	for (; *p; p++) {
		switch (*p) {
		case 'b': f->size = 1; break;
		case 'h': f->size = 2; break;
		case 'w': f->size = 4; break;
		case 'g':
		case 'L': f->size = 8; break;
		case 'x':
		case 'd':
		case 'u':
		case 'o':
		case 'c': f->letter = *p; break;
		default: strbuf_printf(c->out, "invalid char in format: '%c'\n", *p); return false;
		}
	}
	if (f->letter == 'c')
		f->size = 1;
	if (f->count > 65536) {
		strbuf_puts(c->out, "at most 65536 items\n");
		return false;
	}
	return true;
}

static void print_item(struct strbuf *out, uint64_t value, const struct memory_format *f)
{
	unsigned bits = f->size * 8;
	switch (f->letter) {
	case 'x':
		strbuf_printf(out, " 0x%0*llx", (int)(f->size * 2), (unsigned long long)value);
		break;
	case 'o':
		strbuf_printf(out, " %#*llo", (int)((bits + 2) / 3), (unsigned long long)value);
		break;
	case 'u':
		strbuf_printf(out, " %*llu", (int)((bits * 10 + 32) / 33),
			      (unsigned long long)value);
		break;
	case 'd':
		strbuf_printf(out, " %*lld", (int)((bits * 10 + 32) / 33),
			      (long long)(value << (64 - bits)) >> (64 - bits));
		break;
	default:
		strbuf_printf(out, isprint((int)value) ? " '%c'" : " '\\x%02x'", (int)value);
		break;
	}
}

static void dump_memory(struct call *c, bool physical)
{
	struct memory_format f;
	uint64_t addr;
	if (!parse_format(c, &f) ||
	    !parse_number(c, c->arg[0], physical ? UINT64_C(1) << 40 : UINT32_MAX, &addr))
		return;
	unsigned per_line = f.letter == 'c' ? 8 : 16 / f.size;
	for (uint64_t n = 0; n < f.count; n++) {
		uint8_t bytes[8] = {0};
		uint64_t at = addr + n * f.size;
		if (n % per_line == 0)
			strbuf_printf(c->out, physical ? "%s%016llx:" : "%s%08llx:", n ? "\n" : "",
				      (unsigned long long)at);
		bool ok =
			physical ? (mem_read(c->m->mem, at, bytes, f.size), true)
				 : command_read_virtual(c->m, *c->cpu, (uint32_t)at, bytes, f.size);
		if (!ok) {
			strbuf_puts(c->out, " Cannot access memory");
			break;
		}
		print_item(c->out, load_le(bytes, f.size), &f);
	}
	strbuf_puts(c->out, "\n");
}

static void do_x(struct call *c)
{
	dump_memory(c, false);
}

static void do_xp(struct call *c)
{
	dump_memory(c, true);
}

/* Ports are bytes unless the format has a size. */
static unsigned port_size(const struct call *c, const struct memory_format *f)
{
	return !strpbrk(c->format, "bhwgL") ? 1 : f->size > 4 ? 4 : f->size;
}

static void do_port_read(struct call *c)
{
	struct memory_format f;
	uint64_t port;
	if (!parse_format(c, &f) || !parse_number(c, c->arg[0], 0xFFFF, &port))
		return;
	unsigned size = port_size(c, &f);
	strbuf_printf(c->out, "port%c[0x%04llx] = 0x%0*x\n",
		      size == 1   ? 'b'
		      : size == 2 ? 'w'
				  : 'l',
		      (unsigned long long)port, (int)(size * 2),
		      iobus_read(c->m->io, (uint16_t)port, size));
}

static void do_port_write(struct call *c)
{
	struct memory_format f;
	uint64_t port, value;
	if (!parse_format(c, &f) || !parse_number(c, c->arg[0], 0xFFFF, &port) ||
	    !parse_number(c, c->arg[1], UINT32_MAX, &value))
		return;
	iobus_write(c->m->io, (uint16_t)port, port_size(c, &f), (uint32_t)value);
}

static bool parse_delta(struct call *c, const char *text, int *out)
{
	char *end;
	long v = strtol(text, &end, 0);
	if (*end || end == text || v < -10000 || v > 10000) {
		strbuf_printf(c->out, "bad number '%s'\n", text);
		return false;
	}
	*out = (int)v;
	return true;
}

static unsigned pressed_buttons;

static void do_mouse_move(struct call *c)
{
	int dx, dy, dz = 0;
	if (parse_delta(c, c->arg[0], &dx) && parse_delta(c, c->arg[1], &dy) &&
	    (c->args < 3 || parse_delta(c, c->arg[2], &dz)))
		input_mouse(&c->m->input, dx, dy, dz, pressed_buttons);
}

static void do_mouse_button(struct call *c)
{
	/* The monitor counts 1 left, 2 middle, 4 right, as QEMU's does. */
	uint64_t state;
	if (!parse_number(c, c->arg[0], 7, &state))
		return;
	pressed_buttons = (state & 1 ? MOUSE_LEFT : 0u) | (state & 2 ? MOUSE_MIDDLE : 0u) |
			  (state & 4 ? MOUSE_RIGHT : 0u);
	input_mouse(&c->m->input, 0, 0, 0, pressed_buttons);
}

static void do_help(struct call *c);

static const struct command commands[] = {
	{"announce_self", NULL, 0, 1, "[cards]", "has network cards tell switches where they are",
	 do_announce_self},
	{"block_set_io_throttle", NULL, 7, 7, "device bps bps_rd bps_wr iops iops_rd iops_wr",
	 "limits a drive's bytes and operations a second (0: unlimited)", do_set_io_throttle},
	{"boot_set", NULL, 1, 1, "bootdevice", "new boot order, from the next reset on",
	 do_boot_set},
	{"change", NULL, 2, 4, "device filename [format [read-only-mode]]",
	 "puts another medium into a drive", do_change},
	{"cont", "c", 0, 0, "", "goes on", do_cont},
	{"cpu", NULL, 1, 1, "index", "the CPU that info registers and x mean", do_cpu},
	{"eject", NULL, 1, 2, "[-f] device", "takes the medium out (-f: even if it is locked)",
	 do_eject},
	{"help", "?", 0, 1, "[cmd]", "this list", do_help},
	{"hostfwd_add", NULL, 1, 2, "[netdev] tcp|udp:[hostaddr]:port-[guestaddr]:port",
	 "forwards a port of the host (or unix:path) into the user network", do_hostfwd_add},
	{"hostfwd_remove", NULL, 1, 2, "[netdev] tcp|udp:[hostaddr]:port", "forwards it no more",
	 do_hostfwd_remove},
	{"i", NULL, 1, 1, "/fmt port", "reads an I/O port", do_port_read},
	{"info", NULL, 0, 2, "[subcommand]",
	 "shows what is asked for; info alone lists what there is", do_info},
	{"log", NULL, 1, 1, "item1[,...]|none", "switches traces on (see -d help)", do_log},
	{"memsave", NULL, 3, 3, "addr size file", "saves memory at a virtual address to a file",
	 do_memsave},
	{"mouse_button", NULL, 1, 1, "state", "mouse buttons: 1 left, 2 middle, 4 right",
	 do_mouse_button},
	{"mouse_move", NULL, 2, 3, "dx dy [dz]", "moves the mouse", do_mouse_move},
	{"netdev_add", NULL, 1, 1, "type,id=id[,prop=value]", "makes a network backend",
	 do_netdev_add},
	{"netdev_del", NULL, 1, 1, "id", "takes a network backend away", do_netdev_del},
	{"nmi", NULL, 0, 0, "", "sends an NMI to all CPUs", do_nmi},
	{"o", NULL, 2, 2, "/fmt port value", "writes an I/O port", do_port_write},
	{"object_add", NULL, 1, 1, "type,id=id[,prop=value][,...]",
	 "makes an object that others name by its id (-object help lists the types)",
	 do_object_add},
	{"object_del", NULL, 1, 1, "id", "deletes an object", do_object_del},
	{"pmemsave", NULL, 3, 3, "addr size file", "saves physical memory to a file", do_pmemsave},
	{"quit", "q", 0, 0, "", "ends minivm", do_quit},
	{"screendump", NULL, 1, 3, "[-f format] filename",
	 "saves the screen as a PPM or PNG picture", do_screendump},
	{"sendkey", NULL, 1, 2, "keys [hold_ms]", "presses keys (e.g. 'sendkey ctrl-alt-f1')",
	 do_sendkey},
	{"set_link", NULL, 2, 2, "name on|off", "plugs a network cable in or out", do_set_link},
	{"stop", "s", 0, 0, "", "stops the guest", do_stop},
	{"system_powerdown", NULL, 0, 0, "", "presses the power button", do_powerdown},
	{"system_reset", NULL, 0, 0, "", "resets the machine", do_reset},
	{"x", NULL, 1, 1, "/fmt addr", "shows memory at a virtual address", do_x},
	{"xp", NULL, 1, 1, "/fmt addr", "shows memory at a physical address", do_xp},
};

static void print_usage(struct strbuf *out, const struct command *cmd)
{
	strbuf_printf(out, "%s%s%s%s%s -- %s\n", cmd->name, cmd->alias ? "|" : "",
		      cmd->alias ? cmd->alias : "", *cmd->params && *cmd->params != '/' ? " " : "",
		      cmd->params, cmd->help);
}

static const struct command *find_command(const char *name)
{
	for (size_t n = 0; n < ARRAY_SIZE(commands); n++)
		if (!strcmp(commands[n].name, name) ||
		    (commands[n].alias && !strcmp(commands[n].alias, name)))
			return &commands[n];
	return NULL;
}

static void do_help(struct call *c)
{
	const struct command *one = c->args ? find_command(c->arg[0]) : NULL;
	if (c->args && !one) {
		strbuf_printf(c->out, "unknown command: '%s'\n", c->arg[0]);
		return;
	}
	if (one) {
		if (!strcmp(one->name, "info"))
			monitor_info_help(c->out);
		else
			print_usage(c->out, one);
		return;
	}
	for (size_t n = 0; n < ARRAY_SIZE(commands); n++)
		print_usage(c->out, &commands[n]);
}

/* ---- Lines ---- */

/* Splits at white space; "quoted words" may hold it, with \" \\ \n inside. False for an unfinished
 * quote. */
static bool split_line(char *line, struct call *c)
{
	char *in = line;
	while (true) {
		while (isspace((unsigned char)*in))
			in++;
		if (!*in || c->args == MAX_ARGS)
			return true;
		char *out = in;
		bool quoted = *in == '"';
		c->arg[c->args++] = out;
		in += quoted;
		while (*in && (quoted ? *in != '"' : !isspace((unsigned char)*in))) {
			if (quoted && *in == '\\' && in[1])
				in++;
			*out++ = *in++;
		}
		if (quoted && !*in)
			return false;
		if (*in)
			in++;
		*out = 0;
	}
}

void monitor_run(struct machine *m, unsigned *current_cpu, const char *line, struct strbuf *out)
{
	struct call c = {.m = m, .cpu = current_cpu, .out = out};
	char *copy = xstrdup(line);
	if (!split_line(copy, &c)) {
		strbuf_puts(out, "unfinished quote\n");
	} else if (c.args) {
		char *name = xstrdup(c.arg[0]);
		char *slash = strchr(name, '/');
		if (slash) {
			*slash = 0;
			snprintf(c.format, sizeof(c.format), "%s", slash + 1);
		}
		c.args--;
		memmove(c.arg, c.arg + 1, c.args * sizeof(c.arg[0]));
		/* "xp /4xw addr" as well as "xp/4xw addr". */
		if (!slash && c.args && c.arg[0][0] == '/' && strlen(name) <= 2) {
			snprintf(c.format, sizeof(c.format), "%s", c.arg[0] + 1);
			c.args--;
			memmove(c.arg, c.arg + 1, c.args * sizeof(c.arg[0]));
		}
		const struct command *cmd = find_command(name);
		if (!cmd && (!strcmp(name, "device_add") || !strcmp(name, "device_del")))
			strbuf_puts(out, "Error: devices cannot come or go while the machine "
					 "runs; give -device on the command line\n");
		else if (!cmd)
			strbuf_printf(out, "unknown command: '%s'\n", name);
		else if (c.args < cmd->min_args || c.args > cmd->max_args)
			print_usage(out, cmd);
		else
			cmd->run(&c);
		free(name);
	}
	free(copy);
}

static void write_out(void *opaque, const char *text, size_t len)
{
	struct monitor *mon = opaque;
	chardev_write_all(mon->chr, text, len);
}

static void prompt(struct monitor *mon)
{
	static const char text[] = "(qemu) ";
	write_out(mon, text, sizeof(text) - 1);
}

/* Terminals want CR before LF. */
static void write_lines(struct monitor *mon, const char *text)
{
	for (const char *end; *text; text = end) {
		end = strchrnul(text, '\n');
		write_out(mon, text, (size_t)(end - text));
		if (*end) {
			write_out(mon, "\r\n", 2);
			end++;
		}
	}
}

static void run_line(void *opaque, char *line)
{
	struct monitor *mon = opaque;
	struct strbuf out = STRBUF_INIT;
	monitor_run(mon->m, &mon->current_cpu, line, &out);
	write_lines(mon, strbuf_str(&out));
	strbuf_free(&out);
	prompt(mon);
}

/* The rest of the one name of `count` that begins with `start`, or NULL. */
static const char *unique_rest(const char *(*name)(size_t n), size_t count, const char *start,
			       size_t len)
{
	const char *match = NULL;
	for (size_t n = 0; n < count; n++) {
		if (strncmp(name(n), start, len))
			continue;
		if (match)
			return NULL;
		match = name(n);
	}
	return match ? match + len : NULL;
}

static const char *command_name(size_t n)
{
	return commands[n].name;
}

/* Completes a command, or what follows "info". */
static const char *complete(void *opaque, const char *line, size_t len)
{
	static const char info[] = "info ";
	struct monitor *mon = opaque;
	const char *rest;
	if (len >= sizeof(info) - 1 && !strncmp(line, info, sizeof(info) - 1))
		rest = unique_rest(monitor_info_name, monitor_info_count(), line + sizeof(info) - 1,
				   len - (sizeof(info) - 1));
	else if (memchr(line, ' ', len))
		return NULL;
	else
		rest = unique_rest(command_name, ARRAY_SIZE(commands), line, len);
	if (!rest)
		return NULL;
	snprintf(mon->completion, sizeof(mon->completion), "%s ", rest);
	return mon->completion;
}

/* A peer that does not read gets no more commands run. */
static size_t monitor_can_receive(void *opaque)
{
	struct monitor *mon = opaque;
	return chardev_backlog(mon->chr) > MAX_BACKLOG ? 0 : 16;
}

static void monitor_drained(void *opaque)
{
	struct monitor *mon = opaque;
	chardev_accept_input(mon->chr);
}

static void monitor_receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct monitor *mon = opaque;
	while (len--)
		line_editor_input(mon->editor, *buf++);
}

static void monitor_opened(void *opaque, bool open)
{
	struct monitor *mon = opaque;
	if (!open)
		return;
	line_editor_reset(mon->editor);
	write_lines(mon, "minivm " MINIVM_VERSION " monitor - type 'help' for more information\n");
	prompt(mon);
}

struct monitor *monitor_new(struct machine *m, struct chardev *chr)
{
	struct monitor *mon = xcalloc(1, sizeof(*mon));
	mon->m = m;
	mon->chr = chr;
	mon->editor = line_editor_new(&(struct line_editor_ops){
		.output = write_out, .enter = run_line, .complete = complete, .opaque = mon});
	mon->next = m->monitors;
	m->monitors = mon;
	const struct chardev_frontend frontend = {
		.can_receive = monitor_can_receive,
		.receive = monitor_receive,
		.opened = monitor_opened,
		.drained = monitor_drained,
		.opaque = mon,
	};
	chardev_attach(chr, &frontend);
	return mon;
}

void monitor_free_all(struct machine *m)
{
	while (m->monitors) {
		struct monitor *mon = m->monitors;
		m->monitors = mon->next;
		chardev_attach(mon->chr, NULL);
		line_editor_free(mon->editor);
		free(mon);
	}
}
