/* SPDX-License-Identifier: MIT */
/*
 * Block devices of the host (host_device.h).
 *
 * A disk that is mounted here and written by a guest at the same time is destroyed, and nothing in
 * the kernel objects; so before a device is opened for writing /proc/self/mountinfo is searched for
 * it and, for a whole disk, for its partitions (/sys/dev/block/M:N/<name>M/partition; the
 * partition's parent folder is its disk).
 *
 * CD drives: linux/cdrom.h, CDROM_DRIVE_STATUS. They are opened with O_NONBLOCK, which succeeds
 * without a disc.
 */
#include "block/host_device.h"
#include "lib/text.h"
#include <errno.h>
#include <limits.h>
#include <linux/cdrom.h>
#include <linux/fs.h>
#include <linux/major.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

/* "\040" and its like stand for white space and backslashes (proc(5)). */
static void unescape(char *s)
{
	char *out = s;
	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*out++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*out++ = *s;
		}
	}
	*out = 0;
}

char *host_device_find_mount(FILE *mountinfo,
			     bool (*is_part)(void *opaque, unsigned major, unsigned minor),
			     void *opaque)
{
	char *line = NULL, *found = NULL;
	size_t room = 0;
	while (!found && getline(&line, &room, mountinfo) > 0) {
		unsigned major, minor;
		char *where = NULL;
		/* ID, parent's ID, device, root, mount point */
		if (sscanf(line, "%*u %*u %u:%u %*s %ms", &major, &minor, &where) == 3 &&
		    is_part(opaque, major, minor)) {
			unescape(where);
			found = where;
		} else {
			free(where);
		}
	}
	free(line);
	return found;
}

/* True for the device itself and for a partition of it. */
static bool is_device_or_part(void *opaque, unsigned major, unsigned minor)
{
	const dev_t *dev = opaque;
	if (*dev == makedev(major, minor))
		return true;
	char path[96], disk[PATH_MAX], part[PATH_MAX];
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(*dev), minor(*dev));
	if (!realpath(path, disk))
		return false;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major, minor);
	if (!realpath(path, part))
		return false;
	size_t n = strlen(disk);
	return strncmp(part, disk, n) == 0 && part[n] == '/';
}

char *host_device_mounted_at(dev_t dev)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *where = f ? host_device_find_mount(f, is_device_or_part, &dev) : NULL;
	if (f)
		fclose(f);
	return where;
}

unsigned host_device_sector(int fd)
{
	int size = 0;
	/* A power of two, and no more than a page on any host. */
	if (ioctl(fd, BLKSSZGET, &size) < 0 || size < 512 || size > 65536 || (size & (size - 1)))
		return 512;
	return (unsigned)size;
}

bool host_device_read_only(int fd)
{
	int read_only = 0;
	return ioctl(fd, BLKROGET, &read_only) == 0 && read_only;
}

bool host_device_is_cd(dev_t dev)
{
	return major(dev) == SCSI_CDROM_MAJOR;
}

int host_cd_status(int fd)
{
	switch (ioctl(fd, CDROM_DRIVE_STATUS, CDSL_CURRENT)) {
	case CDS_NO_DISC:
	case CDS_TRAY_OPEN: return -ENOMEDIUM;
	case CDS_DRIVE_NOT_READY: return -EAGAIN;
	default: return 0; /* a disc, or a drive that cannot tell */
	}
}
