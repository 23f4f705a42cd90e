/* SPDX-License-Identifier: MIT */
/* Where fuzz targets keep files: see fuzz.h. */
#include "lib/text.h"
#include "tests/fuzz/fuzz.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static char folder[] = "/tmp/minivm-fuzz-XXXXXX";
static pid_t owner;

static void leave(void)
{
	DIR *dir = getpid() == owner ? opendir(folder) : NULL;

	if (!dir)
		return;
	for (struct dirent *e; (e = readdir(dir));)
		unlinkat(dirfd(dir), e->d_name, 0);
	closedir(dir);
	rmdir(folder);
}

void fuzz_sandbox(void)
{
	if (owner)
		return;
	owner = getpid();
	if (!mkdtemp(folder) || chdir(folder) < 0 || !freopen("/dev/null", "w", stdout)) {
		perror(folder);
		exit(1);
	}
	atexit(leave);
}

const char *fuzz_file(unsigned slot, const void *data, size_t len)
{
	static struct {
		int fd;
		char path[40];
	} file[FUZZ_FILES];

	if (!file[slot].path[0]) {
		file[slot].fd = memfd_create("fuzz", MFD_CLOEXEC);
		snprintf(file[slot].path, sizeof(file[slot].path), "/proc/self/fd/%d",
			 file[slot].fd);
	}
	if (ftruncate(file[slot].fd, (off_t)len) < 0 ||
	    pwrite_full(file[slot].fd, data, len, 0) < 0) {
		perror("memfd");
		exit(1);
	}
	return file[slot].path;
}
