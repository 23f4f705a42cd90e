/* SPDX-License-Identifier: MIT */
#include "tests/fuzz/rig.h"
#include "lib/bytes.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/devices/manual_clock.h"
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { SLOT_DISK = FUZZ_FILES - 4, SLOT_DISK2, SLOT_CD, SLOT_FLOPPY, ROM_SIZE = 64 << 10 };

static void write_rom(const char *folder, const char *name, size_t len)
{
	uint8_t *rom = xcalloc(1, len);
	char *path = xasprintf("%s/%s", folder, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	store_le16(rom, 0xAA55); /* an option ROM's signature; to the BIOS it is nothing */
	rom[2] = (uint8_t)(len / 512);
	if (fd < 0 || write_full(fd, rom, len) < 0) {
		perror(path);
		exit(1);
	}
	close(fd);
	free(path);
	free(rom);
}

const char *rig_firmware_dir(void)
{
	static char *folder;

	if (!folder) {
		fuzz_sandbox();
		folder = getcwd(NULL, 0);
		write_rom(folder, "bios-256k.bin", ROM_SIZE);
		write_rom(folder, "vgabios-stdvga.bin", ROM_SIZE / 2);
	}
	return folder;
}

struct machine *rig_machine(const char *const *options, struct error *err)
{
	struct options *o = xcalloc(1, sizeof(*o));
	char *argv[64] = {"minivm", "-accel",      "soft", "-display",
			  "none",   "-nodefaults", "-L",   (char *)rig_firmware_dir()};
	int argc = 8;

	while (options && *options && argc + 1 < (int)ARRAY_SIZE(argv))
		argv[argc++] = (char *)*options++;
	struct machine *m =
		options_parse(o, argc, argv, err) == OPTIONS_RUN ? machine_new(o, err) : NULL;
	if (!m)
		free(o);
	return m;
}

void rig_machine_free(struct machine *m)
{
	struct options *o = m->options;

	machine_free(m);
	for (size_t n = 0; n < o->drive_count; n++)
		opts_free(&o->drives[n].opts);
	free(o->drives);
	free(o);
}

static void fill(uint8_t *data, size_t len, size_t unit)
{
	for (size_t at = 0; at < len; at++)
		data[at] = (uint8_t)(at % unit ? at * 7 : at / unit);
}

const char *const *rig_drives(void)
{
	static uint8_t disk[RIG_DISK_SIZE], cd[RIG_CD_SIZE], floppy[RIG_FLOPPY_SIZE];
	static char hda[80], hdb[80], cdrom[80], fda[80];
	static const char *const options[] = {"-drive", hda,      "-drive", hdb, "-drive",
					      cdrom,    "-drive", fda,      NULL};

	if (!disk[513]) {
		fill(disk, sizeof(disk), 512);
		fill(cd, sizeof(cd), 2048);
		fill(floppy, sizeof(floppy), 512);
	}
	snprintf(hda, sizeof(hda), "file=%s,format=raw,index=0,file.locking=off",
		 fuzz_file(SLOT_DISK, disk, sizeof(disk)));
	snprintf(hdb, sizeof(hdb), "file=%s,format=raw,index=1,file.locking=off",
		 fuzz_file(SLOT_DISK2, disk, sizeof(disk) / 2));
	snprintf(cdrom, sizeof(cdrom), "file=%s,format=raw,index=2,media=cdrom,file.locking=off",
		 fuzz_file(SLOT_CD, cd, sizeof(cd)));
	snprintf(fda, sizeof(fda), "file=%s,format=raw,if=floppy,file.locking=off",
		 fuzz_file(SLOT_FLOPPY, floppy, sizeof(floppy)));
	return options;
}

void rig_advance(struct machine *m, uint64_t ns)
{
	enum { MOST_CALLS = 2000 };
	uint64_t end = m->clock->now + ns;
	struct timer *t;

	for (unsigned n = 0; n < MOST_CALLS; n++) {
		t = first_timer(m->clock);
		if (!t || t->deadline_ns > end)
			break;
		if (t->deadline_ns > m->clock->now)
			m->clock->now = t->deadline_ns;
		timer_cancel(t);
		t->fn(t->opaque);
	}
	m->clock->now = end;
}

void rig_settle(struct machine *m)
{
	for (unsigned n = 0; n < DRIVE_PLACES; n++)
		if (drives_at(&m->drives, n))
			drive_drain(drives_at(&m->drives, n));
	loop_unlock(m->loop);
	loop_run_once(m->loop, 0);
	loop_lock(m->loop);
}
