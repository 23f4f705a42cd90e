/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: command lines. Each line of the input is an argument. What they make is built where
 * it touches nothing but the folder made for it: no slashes, no network, no waiting for a peer.
 */
#include "bios/bios.h"
#include "core/cpu_model.h"
#include "devices/mc146818.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/rig.h"
#include <stdlib.h>

enum { MAX_TEXT = 2048, MAX_ARGS = 40 };

static void parse_pieces(const char *text)
{
	struct error err = ERROR_INIT;
	struct firmware_boot boot;
	struct cpu_model model;
	struct rtc_config rtc = {.base = RTC_UTC};
	struct opts opts;
	uint64_t number;
	bool flag;

	firmware_boot_init(&boot);
	firmware_boot_parse(text, &boot, &err);
	cpu_model_parse(text, &model, &err);
	rtc_config_parse(text, &rtc, &err);
	parse_size(text, 1, &number, &err);
	if (opts_parse(&opts, text, "file", &err) == 0) {
		opts_get_size(&opts, "size", &number, &err);
		opts_get_u64(&opts, "index", &number, &err);
		opts_get_bool(&opts, "readonly", &flag, &err);
		opts_check_unused(&opts, "-drive", NULL, &err);
	}
	opts_free(&opts);
}

static bool harmless(const char *text)
{
	static const char *const words[] = {"tcp",  "udp",  "telnet",    "websocket", "server",
					    "pty",  "pipe", "socket",    "tty",       "nbd",
					    "http", "-D",   "daemonize", "stdio",     "mon",
					    "sdl",  "kvm",  "-qmp",      "serial",    "ssh",
					    "tap",  "vde",  "dgram",     "stream",    "cmd:"};

	for (size_t n = 0; n < ARRAY_SIZE(words); n++)
		if (strstr(text, words[n]))
			return false;
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[MAX_TEXT], *save = NULL;
	const char *arg[MAX_ARGS + 1] = {0};
	struct error err = ERROR_INIT;
	size_t len = size < MAX_TEXT ? size : MAX_TEXT - 1;
	unsigned count = 0;

	rig_firmware_dir(); /* moves into the folder */
	for (size_t n = 0; n < len; n++)
		text[n] = data[n] == '/' ? '_' : data[n] ? (char)data[n] : ' ';
	text[len] = 0;
	bool build = harmless(text);
	for (char *line = strtok_r(text, "\n", &save); line && count < MAX_ARGS;
	     line = strtok_r(NULL, "\n", &save)) {
		parse_pieces(line);
		arg[count++] = line;
	}
	if (build) {
		struct machine *m = rig_machine(arg, &err);
		if (m)
			rig_machine_free(m);
	} else {
		struct options *o = xcalloc(1, sizeof(*o));
		char *argv[MAX_ARGS + 2] = {"minivm"};
		bool file = false; /* -D opens one */
		for (unsigned n = 0; n < count; n++) {
			argv[n + 1] = (char *)arg[n];
			file |= strstr(arg[n], "-D") != NULL;
		}
		if (!file)
			options_parse(o, (int)count + 1, argv, &err);
		for (size_t n = 0; n < o->drive_count; n++)
			opts_free(&o->drives[n].opts);
		free(o->drives);
		free(o);
	}
	trace_mask = 0; /* what -d switched on */
	return 0;
}

static size_t seed(unsigned n, uint8_t *buf, size_t max)
{
	static const char *const texts[] = {
		"-m\n256\n-smp\n2,sockets=1\n-cpu\nqemu32,+sse,-nx\n-hda\nbios-256k.bin\n",
		"-drive\nfile=bios-256k.bin,format=raw,if=ide,index=1,media=disk,cache=none,"
		"readonly=on\n"
		"-snapshot\n",
		"-drive\nif=none,id=d,file=bios-256k.bin,format=raw\n-device\nide-hd,drive=d,"
		"bootindex=1,bus="
		"ide.1,unit=0\n",
		"-fda\nbios-256k.bin\n-cdrom\nvgabios-stdvga.bin\n-boot\norder=dc,once=a,menu=on,"
		"splash-time="
		"5\n",
		"-serial\nfile:out,,put\n-serial\ntcp:host:1,server=on,wait=off\n-parallel\nnull\n",
		"-chardev\nnull,id=a\n-serial\nchardev:a\n-debugcon\nfile:debug\n-device\nisa-"
		"debug-exit,iobase=0xf4\n",
		"-chardev\nsocket,id=s,path=x,server=on,wait=off\n-mon\nchardev=s,mode=control\n",
		"-machine\npc,accel=soft:kvm,kernel-irqchip=off\n-M\npc\n-accel\nsoft,jit=off\n",
		"-rtc\nbase=2020-01-01T00:00:00,clock=vm\n-name\nguest=x,process=y\n-"
		"uuid\n00112233-4455-6677-8899-"
		"aabbccddeeff\n",
		"-kernel\nbios-256k.bin\n-initrd\nvgabios-stdvga.bin\n-append\nconsole=ttyS0 "
		"x=\"y\"\n",
		"-h\n-version\n-accel\nhelp\n-cpu\nhelp\n-device\nhelp\n-d\nhelp\n-L\nhelp\n",
		"-nographic\n-vga\nnone\n-display\nsdl,window-close=off\n-no-reboot\n-no-"
		"shutdown\n-S\n",
		"-drive\nfile=json:{},format=qcow2\n-drive\nfile=x.qcow2,backing.file=y,size=1."
		"5G\n-nic\nnone\n",
		"-drive\nfile=bios-256k.bin,format=raw,snapshot=on,serial=ab,werror=stop,cyls=5,"
		"heads=3,secs=2\n",
	};

	return n < ARRAY_SIZE(texts) ? fuzz_text_seed(texts[n], buf, max) : 0;
}

const struct fuzz_target fuzz_target = {
	.name = "options", .runs = 5000, .max_len = 1024, .seed = seed};
