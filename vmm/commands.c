/* SPDX-License-Identifier: MIT */
/*
 * What both monitors do (commands.h): screenshots, keys, media and memory. Each function checks
 * what it is told and answers with an error sentence; the monitors differ in syntax alone.
 */
#include "vmm/commands.h"
#include "core/input.h"
#include "core/memory.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include "ui/screenshot.h"
#include "vmm/machine.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Screen ---- */

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), end_len = strlen(end);
	return len >= end_len && !strcasecmp(text + len - end_len, end);
}

int command_screendump(struct machine *m, const char *path, const char *format, struct error *err)
{
	if (!m->display)
		return error_set(err, ENODEV, "there is no display adapter to take a picture of");
	if (!format)
		format = ends_with(path, ".png") ? "png" : "ppm";
	enum screenshot_format kind;
	int r = screenshot_format_parse(format, &kind, err);
	return r < 0 ? r : screenshot_display(m->display, path, kind, err);
}

/* ---- Keys ---- */

int command_parse_keys(const char *text, uint8_t keys[KEYS_AT_ONCE], size_t *count,
		       struct error *err)
{
	*count = 0;
	while (*text) {
		char name[32];
		size_t len = strcspn(text, "-");
		/* "minus" may be written as the character itself at the end: "shift--". */
		if (len == 0)
			len = 1;
		if (len >= sizeof(name))
			return error_set(err, EINVAL, "unknown key in '%s'", text);
		memcpy(name, text, len);
		name[len] = 0;
		text += len;
		int key;
		if (!strncmp(name, "0x", 2)) {
			uint64_t code;
			if (parse_u64(name, "key", 1, 0xFF, &code, err) < 0)
				return -EINVAL;
			key = (int)code;
		} else {
			key = !strcmp(name, "-") ? key_from_name("minus") : key_from_name(name);
		}
		if (key < 0)
			return error_set(err, EINVAL, "unknown key: '%s'", name);
		if (*count == KEYS_AT_ONCE)
			return error_set(err, EINVAL, "too many keys at once; at most %d",
					 KEYS_AT_ONCE);
		keys[(*count)++] = (uint8_t)key;
		if (*text == '-')
			text++;
	}
	return *count ? 0 : error_set(err, EINVAL, "no key given");
}

/* ---- Media ---- */

static struct drive *find_drive(struct machine *m, const char *id, struct error *err)
{
	struct drive *drive = drives_find(&m->drives, id);
	if (!drive)
		error_set(err, ENODEV, "Device '%s' not found", id);
	return drive;
}

static bool is_removable(struct drive *drive, const char *id, struct error *err)
{
	if (drive_get_kind(drive) != DRIVE_DISK)
		return true;
	error_set(err, EINVAL, "Device '%s' is not removable", id);
	return false;
}

int command_eject(struct machine *m, const char *id, bool force, struct error *err)
{
	struct drive *drive = find_drive(m, id, err);
	if (!drive || !is_removable(drive, id, err))
		return -err->code;
	return drive_eject(drive, force, err);
}

int command_change(struct machine *m, const char *id, const char *file, const char *format,
		   const char *mode, struct error *err)
{
	struct drive *drive = find_drive(m, id, err);
	if (!drive || !is_removable(drive, id, err))
		return -err->code;
	return drive_change(drive, file, format, mode, err);
}

int command_set_limits(struct machine *m, const char *id, const struct throttle_limits *limits,
		       const char *group, struct error *err)
{
	struct drive *drive = find_drive(m, id, err);
	if (!drive)
		return -err->code;
	if (!drive_inserted(drive))
		return error_set(err, ENOMEDIUM, "Device '%s' has no medium", id);
	return drive_set_limits(drive, limits, group, err);
}

/* ---- Memory ---- */

bool command_read_virtual(struct machine *m, unsigned cpu, uint32_t addr, void *buf, size_t len)
{
	bool was_running = machine_running(m), ok = true;
	uint8_t *out = buf;
	if (was_running)
		m->engine->ops->pause(m->engine);
	while (ok && len) {
		size_t piece = GUEST_PAGE_SIZE - (addr & (GUEST_PAGE_SIZE - 1));
		uint64_t gpa;
		if (piece > len)
			piece = len;
		ok = m->engine->ops->translate(m->engine, cpu, addr, &gpa) == 0 &&
		     mem_read(m->mem, gpa, out, piece);
		out += piece;
		addr += (uint32_t)piece;
		len -= piece;
	}
	if (was_running)
		m->engine->ops->resume(m->engine);
	return ok;
}

enum { SAVE_CHUNK = 65536 };

/* `cpu` < 0: physical addresses. */
static int save_memory(struct machine *m, int cpu, uint64_t addr, uint64_t size, const char *path,
		       struct error *err)
{
	uint8_t *chunk;
	int r = 0;
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0)
		return error_errno(err, errno, "cannot write '%s'", path);
	chunk = xmalloc(SAVE_CHUNK);
	while (size && r == 0) {
		size_t len = size < SAVE_CHUNK ? size : SAVE_CHUNK;
		if (cpu < 0)
			mem_read(m->mem, addr, chunk, len);
		else if (!command_read_virtual(m, (unsigned)cpu, (uint32_t)addr, chunk, len))
			r = error_set(err, EFAULT, "Invalid addr 0x%016llx/size %llu specified",
				      (unsigned long long)addr, (unsigned long long)size);
		if (r == 0 && (r = write_full(fd, chunk, len)) < 0)
			error_errno(err, -r, "cannot write '%s'", path);
		addr += len;
		size -= len;
	}
	free(chunk);
	close(fd);
	return r;
}

int command_pmemsave(struct machine *m, uint64_t addr, uint64_t size, const char *path,
		     struct error *err)
{
	return save_memory(m, -1, addr, size, path, err);
}

int command_memsave(struct machine *m, unsigned cpu, uint32_t addr, uint64_t size, const char *path,
		    struct error *err)
{
	if (cpu >= m->options->cpus)
		return error_set(err, EINVAL, "there is no CPU %u", cpu);
	return save_memory(m, (int)cpu, addr, size, path, err);
}
