/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: what comes in on a QMP connection and on a monitor. The first byte says which of
 * them, and in pieces of what size; the rest is sent. Commands that write files may do so in the
 * folder made for it: slashes become underlines, unless they start the format of a monitor
 * command that shows memory or ports.
 */
#include "core/chardev.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/rig.h"
#include "vmm/monitor.h"
#include "vmm/qmp.h"
#include <ctype.h>
#include <stdlib.h>

enum { FLAG_QMP = 1, FLAG_PRETTY = 2, FLAG_NEGOTIATED = 4 };

static bool is_format(const uint8_t *text, size_t at)
{
	return at >= 2 && text[at - 1] == ' ' && strchr("xpio", text[at - 2]) &&
	       (at == 2 || !isalnum(text[at - 3]) || text[at - 3] == 'x');
}

static void keep_in_folder(uint8_t *text, size_t len)
{
	for (size_t n = 0; n < len; n++) {
		if (text[n] == '/' && !is_format(text, n))
			text[n] = '_';
		if (n && text[n] == 'u' && text[n - 1] == '\\')
			text[n] = 'n'; /* no slash in hexadecimal, either */
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char greeting[] = "{\"execute\": \"qmp_capabilities\"}\n";
	static const char *const options[] = {
		"-m", "2", "-drive", "if=none,id=cd0,media=cdrom", "-device", "ide-cd,drive=cd0",
		NULL};
	struct fuzz_input in = fuzz_input(data, size);
	struct error err = ERROR_INIT;
	uint8_t flags = fuzz_u8(&in), text[256];
	size_t piece = 1 + (flags >> 3) * 8, len;

	struct machine *m = rig_machine(options, &err);
	if (!m) {
		report("%s", err.text);
		abort();
	}
	loop_lock(m->loop);
	struct chardev *chr = chardev_new_memory(m->loop);
	if (flags & FLAG_QMP)
		qmp_new(m, chr, flags & FLAG_PRETTY);
	else
		monitor_new(m, chr);
	if (flags & FLAG_QMP && flags & FLAG_NEGOTIATED)
		chardev_memory_input(chr, greeting, sizeof(greeting) - 1);
	while ((len = fuzz_left(&in) < piece ? fuzz_left(&in) : piece)) {
		fuzz_take(&in, text, len);
		keep_in_folder(text, len);
		chardev_memory_input(chr, text, len);
		rig_settle(m);
	}
	for (unsigned n = 0; n < 4; n++)
		rig_advance(m, 100000000);
	monitor_free_all(m);
	qmp_free_all(m);
	chardev_free(chr);
	loop_unlock(m->loop);
	trace_mask = 0; /* what `log` switched on */
	rig_machine_free(m);
	return 0;
}

static size_t seed(unsigned n, uint8_t *buf, size_t max)
{
	static const char *const texts[] = {
		"\xFF{\"execute\": \"query-commands\", \"id\": [1, {\"a\": null}]}\n",
		"\xFF{\"execute\": \"query-status\"} {\"execute\": \"query-block\"}\n",
		"\xFF{\"execute\": \"stop\"}{\"execute\": \"cont\"}{\"execute\": "
		"\"system_reset\"}\n",
		"\xFF{\"execute\": \"send-key\", \"arguments\": {\"keys\": [{\"type\": \"qcode\", "
		"\"data\": \"ctrl\"}, {\"type\": \"number\", \"data\": 28}], \"hold-time\": 50}}\n",
		"\xFF{\"execute\": \"pmemsave\", \"arguments\": {\"val\": 4096, \"size\": 16, "
		"\"filename\": \"mem\"}}\n",
		"\xFF{\"execute\": \"memsave\", \"arguments\": {\"val\": 0, \"size\": 99, "
		"\"filename\": \"v\", \"cpu-index\": 0}}\n",
		"\xFF{\"execute\": \"screendump\", \"arguments\": {\"filename\": \"s.png\", "
		"\"format\": \"png\"}}\n",
		"\xFF{\"execute\": \"eject\", \"arguments\": {\"device\": \"cd0\", \"force\": "
		"true}}\n",
		"\xFF{\"execute\": \"blockdev-change-medium\", \"arguments\": {\"device\": "
		"\"cd0\", "
		"\"filename\": \"bios-256k.bin\", \"format\": \"raw\", \"read-only-mode\": "
		"\"retain\"}}\n",
		"\xFF{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": "
		"\"info registers\", \"cpu-index\": 0}}\n",
		"\x37{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": []}} "
		"{\"execute\": 5} {} [] \"x\" 1e999 {\"execute\":\"quit\"}\n",
		"\xF8help\nhelp info\ninfo status\ninfo registers\ninfo mtree\ninfo block\n",
		"\xF8xp /16xb 0x400\nxp /4i 0xffff0\nx /2dw 0\ni /b 0x60\no /w 0x80 7\n",
		"\xF8sendkey ctrl-alt-f1 200\nmouse_move 5 -3 1\nmouse_button 3\nnmi\ncpu 0\n",
		"\xF8pmemsave 0 100 \"a b\"\nmemsave 0 16 f\nscreendump -f png t\nscreendump u\n",
		"\xF8"
		"change cd0 bios-256k.bin raw read-only\neject -f cd0\nboot_set dc\n",
		"\xF8stop\ncont\nsystem_reset\nsystem_powerdown\nlog ide,pci\nlog none\nquit\n",
		"\xF8info pci\ninfo qtree\ninfo pic\ninfo irq\ninfo tlb\ninfo mem\ninfo "
		"chardev\ninfo ioports\ninfo engine\ninfo vga\ninfo cpus\ninfo version\n",
		"\xF8inf\tst\t\n\x1b[A\n\x01\x02\x7f\x7f he\x15\x03info st\x1b[D\x1b[Da\n",
	};

	return n < ARRAY_SIZE(texts) ? fuzz_text_seed(texts[n], buf, max) : 0;
}

const struct fuzz_target fuzz_target = {.name = "qmp", .runs = 3000, .max_len = 4096, .seed = seed};
