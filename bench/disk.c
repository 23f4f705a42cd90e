/* SPDX-License-Identifier: MIT */
/*
 * disk DEVICE read|write seq|rand DEPTH MS: keeps DEPTH transfers of 4 KiB in flight for MS
 * milliseconds, past the page cache, and prints how many ended in how many nanoseconds. Runs in a
 * guest; Linux' native asynchronous I/O by system calls, as no library is there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, DEPTH_MAX = 128 };

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	exit(1);
}

/* xorshift (G. Marsaglia, "Xorshift RNGs", 2003), the same places in every run. */
static uint32_t next_random(void)
{
	static uint32_t x = 2463534242u;

	x ^= x << 13;
	x ^= x >> 17;
	return x ^= x << 5;
}

int main(int argc, char **argv)
{
	static struct iocb cb[DEPTH_MAX], *list[DEPTH_MAX];
	static struct io_event done[DEPTH_MAX];
	aio_context_t context = 0;
	uint64_t size = 0, ended = 0, at = 0;

	if (argc != 6)
		return 1;
	int write = !strcmp(argv[2], "write"), seq = !strcmp(argv[3], "seq");
	int depth = atoi(argv[4]);
	uint64_t length = strtoull(argv[5], NULL, 10) * 1000000u;
	int fd = open(argv[1], O_DIRECT | (write ? O_RDWR : O_RDONLY));
	if (fd < 0 || depth < 1 || depth > DEPTH_MAX || ioctl(fd, BLKGETSIZE64, &size) < 0)
		fail(argv[1]);
	uint8_t *buf = aligned_alloc(BLOCK, (size_t)depth * BLOCK);
	if (!buf || syscall(SYS_io_setup, depth, &context) < 0)
		fail("io_setup");
	memset(buf, 0x5A, (size_t)depth * BLOCK);
	uint64_t blocks = size / BLOCK, start = now(), end = start + length, last = start;
	long free_count = depth;
	for (int n = 0; n < depth; n++)
		list[n] = &cb[n];
	for (;;) {
		for (long n = 0; n < free_count; n++) {
			uint64_t block = seq ? at++ % blocks : next_random() % blocks;
			struct iocb *c = list[n];
			*c = (struct iocb){
				.aio_lio_opcode = write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
				.aio_fildes = (uint32_t)fd,
				.aio_buf = (uintptr_t)(buf + (c - cb) * BLOCK),
				.aio_nbytes = BLOCK,
				.aio_offset = (int64_t)(block * BLOCK),
				.aio_data = (uint64_t)(c - cb),
			};
		}
		for (long sent = 0; sent < free_count;) {
			long r = syscall(SYS_io_submit, context, free_count - sent, list + sent);
			if (r < 0)
				fail("io_submit");
			sent += r;
		}
		free_count = syscall(SYS_io_getevents, context, 1, depth, done, NULL);
		if (free_count < 0)
			fail("io_getevents");
		for (long n = 0; n < free_count; n++) {
			if (done[n].res != BLOCK) {
				errno = done[n].res < 0 ? (int)-done[n].res : EIO;
				fail("transfer");
			}
			list[n] = &cb[done[n].data];
		}
		ended += (uint64_t)free_count;
		last = now();
		if (last >= end)
			break;
	}
	printf("blocks %llu ns %llu\n", (unsigned long long)ended,
	       (unsigned long long)(last - start));
	return 0;
}
