/* SPDX-License-Identifier: MIT */
/*
 * Image locks that QEMU and minivm understand of each other.
 *
 * A process that uses permission i (enum file_perm) of an image holds a shared lock on byte 100 + i
 * of the file; one that does not want others to use permission i holds a shared lock on byte 200 +
 * i. Everybody first takes its own locks and then tests whether a byte that contradicts them is
 * locked by somebody else; since all take before they test, at least one of two that start at once
 * gives way. The locks are open-file-description locks (fcntl(2), "Open file description locks"):
 * two openings within one process exclude each other too, and closing another descriptor of the
 * file drops nothing. The bytes need not exist in the file.
 */
#include "block/file.h"
#include "lib/text.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PERM_BASE = 100, SHARED_BASE = 200, PERM_COUNT = 4 };

/* True if somebody else has locked the byte. */
static bool byte_taken(int fd, int byte)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
	return fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}

/* True if the open file /proc/PID/fdinfo/FD holds an open-file-description lock on the byte. Such
 * a line reads "lock:	1: OFDLCK ADVISORY READ -1 fe:01:1234 100 101". */
static bool holds_lock(const char *fdinfo, int byte)
{
	FILE *f = fopen(fdinfo, "re");
	char line[256];
	bool found = false;
	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f)) {
		unsigned long long start, end;
		if (strncmp(line, "lock:", 5) != 0 || !strstr(line, "OFDLCK"))
			continue;
		if (sscanf(line, "%*s %*s %*s %*s %*s %*s %*s %llu %llu", &start, &end) == 2)
			found = start <= (unsigned)byte && (unsigned)byte <= end;
		else
			found = strstr(line, " EOF") != NULL;
	}
	fclose(f);
	return found;
}

/* Does any descriptor of the process hold a lock on that byte of the file? */
static bool process_holds(const char *pid, const struct stat *file, int byte)
{
	char path[64 + 2 * NAME_MAX];
	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	DIR *dir = opendir(path);
	bool found = false;
	if (!dir)
		return false;
	for (struct dirent *d; !found && (d = readdir(dir));) {
		struct stat st;
		snprintf(path, sizeof(path), "/proc/%s/fd/%s", pid, d->d_name);
		if (d->d_name[0] == '.' || stat(path, &st) < 0 || st.st_dev != file->st_dev ||
		    st.st_ino != file->st_ino)
			continue;
		snprintf(path, sizeof(path), "/proc/%s/fdinfo/%s", pid, d->d_name);
		found = holds_lock(path, byte);
	}
	closedir(dir);
	return found;
}

/* "'qemu-system-i38' (process 4711)", "this process" or "another process" */
static void describe_holder(int fd, int byte, char *out, size_t size)
{
	struct stat st;
	snprintf(out, size, "another process");
	DIR *proc = fstat(fd, &st) == 0 ? opendir("/proc") : NULL;
	if (!proc)
		return;
	/* This process has its own lock on one of the bytes: look at the others first. */
	char self[32];
	snprintf(self, sizeof(self), "%d", (int)getpid());
	bool found = false;
	for (struct dirent *d; !found && (d = readdir(proc));) {
		if (d->d_name[0] < '1' || d->d_name[0] > '9' || strcmp(d->d_name, self) == 0 ||
		    !process_holds(d->d_name, &st, byte))
			continue;
		char path[32 + NAME_MAX], name[64] = "";
		snprintf(path, sizeof(path), "/proc/%s/comm", d->d_name);
		FILE *f = fopen(path, "re");
		if (f) {
			if (!fgets(name, sizeof(name), f))
				name[0] = '\0';
			name[strcspn(name, "\n")] = '\0';
			fclose(f);
		}
		snprintf(out, size, "'%s' (process %.20s)", name, d->d_name);
		found = true;
	}
	closedir(proc);
	if (!found && process_holds(self, &st, byte))
		snprintf(out, size, "this process, which has it open twice");
}

static int conflict(int fd, int byte, const char *what, const char *doing, struct error *err)
{
	char holder[160];
	describe_holder(fd, byte, holder, sizeof(holder));
	return error_set(err, EBUSY, "%s: it is locked by %s, %s", what, holder, doing);
}

int file_lock(int fd, const char *what, unsigned perms, unsigned unshared, struct error *err)
{
	for (int i = 0; i < PERM_COUNT; i++) {
		for (int base = PERM_BASE; base <= SHARED_BASE; base += SHARED_BASE - PERM_BASE) {
			unsigned mask = base == PERM_BASE ? perms : unshared;
			struct flock fl = {.l_type = F_RDLCK,
					   .l_whence = SEEK_SET,
					   .l_start = base + i,
					   .l_len = 1};
			if (!(mask & (1u << i)) || fcntl(fd, F_OFD_SETLK, &fl) == 0)
				continue;
			if (errno == EAGAIN || errno == EACCES)
				return conflict(fd, base + i, what, "which locks it as a whole",
						err);
			return 0; /* a file system without locks */
		}
	}
	for (int i = 0; i < PERM_COUNT; i++) {
		static const char *const forbids[PERM_COUNT] = {
			"which lets nobody else read it", "which lets nobody else write to it",
			"which lets nobody else touch it", "which lets nobody else resize it"};
		static const char *const does[PERM_COUNT] = {
			"which is reading it", "which has it open for writing",
			"which is rewriting it", "which has it open for writing"};
		if ((perms & (1u << i)) && byte_taken(fd, SHARED_BASE + i))
			return conflict(fd, SHARED_BASE + i, what, forbids[i], err);
		if ((unshared & (1u << i)) && byte_taken(fd, PERM_BASE + i))
			return conflict(fd, PERM_BASE + i, what, does[i], err);
	}
	return 0;
}
