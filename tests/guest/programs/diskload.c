/* SPDX-License-Identifier: MIT */
/*
 * diskload DEVICE THREADS BLOCKS ROUNDS: threads write and read blocks of 4 KiB at random places of a
 * device, past the page cache, so that as many requests are in flight as there are threads. Each
 * block's contents say which block it is and how often it was written; at the end every block is
 * read once more. Prints "ok" and how many blocks were written, or what was wrong.
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 4096, RUN = 8 };

static int fd;
static unsigned threads, blocks, rounds;
static uint8_t *version; /* of each block, by the one thread that owns it */
static int failed;

static void pattern(uint32_t *buf, unsigned block, unsigned round)
{
	for (unsigned n = 0; n < BLOCK / 4; n++)
		buf[n] = (block * 2654435761u) ^ (round << 24) ^ n;
}

static void check(const uint32_t *buf, unsigned block)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	uint32_t want[BLOCK / 4];

	pattern(want, block, version[block]);
	if (memcmp(buf, want, BLOCK)) {
		pthread_mutex_lock(&lock);
		if (!failed++)
			printf("block %u, written %u times: %08x instead of %08x\n", block,
			       version[block], buf[0], want[0]);
		pthread_mutex_unlock(&lock);
	}
}

static void transfer(int write, void *buf, unsigned block, unsigned count)
{
	size_t len = (size_t)count * BLOCK;
	off_t at = (off_t)block * BLOCK;
	ssize_t n = write ? pwrite(fd, buf, len, at) : pread(fd, buf, len, at);

	if (n != (ssize_t)len) {
		printf("%s of block %u: %s\n", write ? "write" : "read", block,
		       n < 0 ? strerror(errno) : "short");
		exit(1);
	}
}

static void *work(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg, share = blocks / threads, first = me * share;
	unsigned seed = me + 1;
	uint32_t *buf;

	if (posix_memalign((void **)&buf, BLOCK, RUN * BLOCK))
		exit(1);
	for (unsigned r = 0; r < rounds; r++) {
		unsigned count = 1 + rand_r(&seed) % RUN;
		unsigned at = first + rand_r(&seed) % (share - RUN);
		if (rand_r(&seed) % 3) {
			for (unsigned n = 0; n < count; n++)
				pattern(buf + n * (BLOCK / 4), at + n, ++version[at + n]);
			transfer(1, buf, at, count);
			continue;
		}
		transfer(0, buf, at, count);
		for (unsigned n = 0; n < count; n++)
			if (version[at + n])
				check(buf + n * (BLOCK / 4), at + n);
	}
	free(buf);
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned written = 0;

	if (argc != 5)
		return 2;
	threads = (unsigned)atoi(argv[2]);
	blocks = (unsigned)atoi(argv[3]);
	rounds = (unsigned)atoi(argv[4]);
	fd = open(argv[1], O_RDWR | O_DIRECT);
	if (fd < 0 || !threads || blocks / threads <= RUN) {
		perror(argv[1]);
		return 2;
	}
	version = calloc(blocks, 1);
	pthread_t *thread = calloc(threads, sizeof(*thread));
	for (unsigned n = 0; n < threads; n++)
		pthread_create(&thread[n], NULL, work, (void *)(uintptr_t)n);
	for (unsigned n = 0; n < threads; n++)
		pthread_join(thread[n], NULL);
	fsync(fd);
	void *buf;
	if (posix_memalign(&buf, BLOCK, BLOCK))
		return 1;
	for (unsigned n = 0; n < blocks; n++) {
		if (!version[n])
			continue;
		transfer(0, buf, n, 1);
		check(buf, n);
		written++;
	}
	printf(failed ? "%d blocks are wrong\n" : "ok %d\n", failed ? failed : (int)written);
	return failed != 0;
}
