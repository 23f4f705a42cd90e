/* SPDX-License-Identifier: MIT */
/* Block devices of the host: is one in use, is there a disc in a CD drive. */
#ifndef BLOCK_HOST_DEVICE_H
#define BLOCK_HOST_DEVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* Where the device, one of its partitions or, for a partition, nothing else is mounted: a malloc'ed
 * path, or NULL. */
char *host_device_mounted_at(dev_t dev);
/* The same by a mountinfo (proc(5)); `is_part` says of a device number of a line whether it is the
 * device or a part of it. For tests. */
char *host_device_find_mount(FILE *mountinfo,
			     bool (*is_part)(void *opaque, unsigned major, unsigned minor),
			     void *opaque);
/* Bytes of a logical sector of an open device; 512 if it cannot be told. */
unsigned host_device_sector(int fd);
/* The open device lets nobody write, although it opens for writing. */
bool host_device_read_only(int fd);
bool host_device_is_cd(dev_t dev);
/* 0 if there is a disc in the open CD drive, else -ENOMEDIUM or, while it spins up, -EAGAIN. */
int host_cd_status(int fd);

#endif
