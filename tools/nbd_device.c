/* SPDX-License-Identifier: MIT */
/*
 * The kernel's NBD client (linux/nbd.h): /dev/nbdX is given one end of a socket pair, the server
 * here has the other. NBD_DO_IT blocks as long as the device is in use; NBD_DISCONNECT, from
 * anywhere, ends it.
 */
#include "block/nbd_server.h"
#include "lib/bytes.h"
#include "tools/nbd.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/nbd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BLOCK = 512 };

static int device_open(const char *path, struct error *err)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	return error_errno(err, errno, "cannot open '%s'%s", path,
			   errno == ENOENT ? " (is the kernel's nbd module loaded?)" : "");
}

int nbd_device_connect(const char *path, struct nbd_server *server, uint64_t size, bool read_only,
		       struct error *err)
{
	int pair[2] = {-1, -1};
	uint16_t flags = 0;
	int fd = device_open(path, err);
	if (fd < 0)
		return fd;
	/* The server's end is the server's from add_kernel() on. */
	int rc = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ? -errno : 0;
	if (rc) {
		error_errno(err, -rc, "cannot connect '%s'", path);
		close(fd);
		return rc;
	}
	int on = read_only;
	rc = nbd_server_add_kernel(server, pair[1], &flags, err);
	if (rc)
		goto fail;
	/* NBD_SET_SOCK says -EBUSY where another server has the device. */
	if (ioctl(fd, NBD_SET_SOCK, (unsigned long)pair[0]) < 0 ||
	    ioctl(fd, NBD_SET_BLKSIZE, (unsigned long)BLOCK) < 0 ||
	    ioctl(fd, NBD_SET_SIZE_BLOCKS, (unsigned long)(size / BLOCK)) < 0 ||
	    (ioctl(fd, NBD_SET_FLAGS, (unsigned long)flags) < 0 && errno != ENOTTY) ||
	    (read_only && ioctl(fd, BLKROSET, &on) < 0)) {
		rc = error_errno(err, errno, "cannot connect '%s'", path);
		ioctl(fd, NBD_CLEAR_SOCK);
		goto fail;
	}
	close(pair[0]);
	return fd;
fail:
	close(pair[0]);
	close(fd);
	return rc;
}

int nbd_device_run(int device, struct error *err)
{
	int rc = ioctl(device, NBD_DO_IT) < 0 && errno != EPIPE && errno != ENOTCONN ? -errno : 0;
	ioctl(device, NBD_CLEAR_QUE);
	ioctl(device, NBD_CLEAR_SOCK);
	close(device);
	return rc ? error_errno(err, -rc, "the NBD device failed") : 0;
}

void nbd_device_stop(int device)
{
	ioctl(device, NBD_DISCONNECT);
}

int nbd_device_disconnect(const char *path, struct error *err)
{
	int fd = device_open(path, err);
	if (fd < 0)
		return fd;
	int rc = 0;
	if (ioctl(fd, NBD_CLEAR_QUE) < 0 || ioctl(fd, NBD_DISCONNECT) < 0 ||
	    ioctl(fd, NBD_CLEAR_SOCK) < 0)
		rc = error_errno(err, errno, "cannot disconnect '%s'", path);
	close(fd);
	return rc;
}
