/* SPDX-License-Identifier: MIT */
/*
 * -daemonize and -pidfile (background.h). The parent waits at a pipe until the child, which has
 * built the machine, says that all is well; if it dies before, its error has already been printed
 * and the parent fails with it. The pid file is locked as long as minivm runs.
 */
#include "vmm/background.h"
#include "lib/log.h"
#include "lib/text.h"
#include "vmm/options.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void wait_for_child(int fd)
{
	char ok;
	ssize_t n;
	do
		n = read(fd, &ok, 1);
	while (n < 0 && errno == EINTR);
	_exit(n == 1 ? 0 : 1);
}

int background_start(struct background *b, const struct options *o, struct error *err)
{
	int fds[2];
	if (!o->daemonize)
		return 0;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return error_errno(err, errno, "-daemonize: cannot make a pipe");
	pid_t pid = fork();
	if (pid < 0)
		return error_errno(err, errno, "-daemonize: cannot fork");
	if (pid > 0) {
		close(fds[1]);
		wait_for_child(fds[0]);
	}
	close(fds[0]);
	b->ready_fd = fds[1];
	setsid();
	return 0;
}

static char pidfile_path[PATH_MAX]; /* absolute: the working directory changes */

static int write_pidfile(const char *path, struct error *err)
{
	/* The descriptor stays open, and with it the lock, until minivm ends. */
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return error_errno(err, errno, "cannot write pid file '%s'", path);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	if (fcntl(fd, F_SETLK, &lock) < 0) {
		close(fd);
		return error_errno(err, errno, "pid file '%s' belongs to a running process", path);
	}
	char text[32];
	int len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	int r = ftruncate(fd, 0) < 0 ? -errno : write_full(fd, text, (size_t)len);
	if (r < 0)
		return error_errno(err, -r, "cannot write pid file '%s'", path);
	if (!realpath(path, pidfile_path))
		pidfile_path[0] = 0;
	return 0;
}

static void print_notes(const char *notes)
{
	for (const char *end; *notes; notes = end + (*end == '\n')) {
		end = strchrnul(notes, '\n');
		report("%.*s", (int)(end - notes), notes);
	}
}

int background_ready(struct background *b, const struct options *o, const char *notes,
		     struct error *err)
{
	if (o->pidfile) {
		int r = write_pidfile(o->pidfile, err);
		if (r < 0)
			return r;
	}
	print_notes(notes);
	if (b->ready_fd < 0)
		return 0;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return error_errno(err, errno, "cannot open '/dev/null'");
	if (chdir("/") < 0)
		return error_errno(err, errno, "cannot change to '/'");
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	close(null);
	if (write(b->ready_fd, "1", 1) != 1)
		return error_errno(err, EPIPE, "-daemonize: the parent is gone");
	close(b->ready_fd);
	b->ready_fd = -1;
	return 0;
}

void background_end(void)
{
	if (pidfile_path[0])
		unlink(pidfile_path);
}
