/* SPDX-License-Identifier: MIT */
/*
 * A CD drive of the host as the guest's: the disc comes and goes by the host drive's own button.
 *
 * The drive is asked once a second, by a timerfd in the loop, whether there is a disc and whether it
 * was changed since (linux/cdrom.h: CDROM_DRIVE_STATUS, CDROM_MEDIA_CHANGED); the image is opened
 * and closed accordingly, and the guest learns of it as of any change of the medium.
 */
#include "block/drive_internal.h"
#include "block/host_device.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/cdrom.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct drive_host {
	struct drive *drive;
	char *file, *format;
	int fd, timer;
	struct loop_fd *watch;
	bool told; /* the user knows that the disc cannot be opened */
};

void drive_host_seen(struct drive *drive, const char *file, const char *format, bool disc,
		     bool changed)
{
	struct error err = ERROR_INIT;
	if (drive->image && (!disc || changed))
		drive_remove_medium(drive);
	if (drive->image || !disc)
		return;
	int rc = drive_insert_medium(drive, file, format, drive->image_flags, &err);
	if (rc && rc != -ENOMEDIUM && drive->host && !drive->host->told) {
		drive->host->told = true;
		warn("%s: %s", drive->id, err.text);
	} else if (!rc && drive->host) {
		drive->host->told = false;
	}
}

static void look(void *opaque, unsigned events)
{
	struct drive_host *host = opaque;
	uint64_t ticks;
	if (read(host->timer, &ticks, sizeof(ticks)) != sizeof(ticks))
		return;
	int status = host_cd_status(host->fd);
	if (status == -EAGAIN)
		return;
	bool changed = status == 0 && ioctl(host->fd, CDROM_MEDIA_CHANGED, CDSL_CURRENT) == 1;
	drive_host_seen(host->drive, host->file, host->format, status == 0, changed);
}

static void stop(struct drive_host *host)
{
	loop_fd_free(host->watch);
	if (host->timer >= 0)
		close(host->timer);
	if (host->fd >= 0)
		close(host->fd);
	free(host->file);
	free(host->format);
	free(host);
}

void drive_host_watch(struct drive *drive, const char *file, const char *format)
{
	const struct itimerspec second = {.it_interval.tv_sec = 1, .it_value.tv_sec = 1};
	struct stat st;
	if (drive->host)
		stop(drive->host);
	drive->host = NULL;
	if (!file || drive->kind != DRIVE_CDROM || stat(file, &st) < 0 || !S_ISBLK(st.st_mode) ||
	    !host_device_is_cd(st.st_rdev))
		return;
	struct drive_host *host = xcalloc(1, sizeof(*host));
	host->drive = drive;
	host->file = xstrdup(file);
	host->format = format ? xstrdup(format) : NULL;
	host->fd = open(file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	host->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (host->fd >= 0 && host->timer >= 0 &&
	    timerfd_settime(host->timer, 0, &second, NULL) == 0)
		host->watch = loop_fd_new(drive->loop, host->timer, LOOP_READ, look, host, NULL);
	if (!host->watch) {
		warn("%s: changes of the disc in '%s' will not be noticed", drive->id, file);
		stop(host);
		return;
	}
	drive->host = host;
}
