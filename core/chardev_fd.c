/* SPDX-License-Identifier: MIT */
/*
 * Chardevs on plain file descriptors: the terminal (stdio), files, named pipes and pseudo
 * terminals.
 *
 * The terminal is switched to raw input and put back when the program ends, also by a fatal signal.
 * O_NONBLOCK belongs to the open file that minivm shares with its shell, so it is never set on
 * stdin or stdout: stdout is opened again through /proc, and where that cannot be done it is
 * written only in small pieces that poll() promises to take.
 */
#include "core/chardev_internal.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

struct fds {
	int in, out;
	int extra; /* a pty's other end, kept open */
};

static void fds_close(struct chardev *chr)
{
	struct fds *f = chr->data;

	if (f->in > STDERR_FILENO)
		close(f->in);
	if (f->out > STDERR_FILENO && f->out != f->in)
		close(f->out);
	if (f->extra >= 0)
		close(f->extra);
	free(f);
}

static const struct chardev_class fd_class = {.close = fds_close};

static struct chardev *fds_new(struct loop *loop, const char *id, const struct chardev_class *class,
			       int in, int out)
{
	struct chardev *chr = chardev_alloc(loop, id, class);
	struct fds *f = xcalloc(1, sizeof(*f));

	f->in = in;
	f->out = out;
	f->extra = -1;
	chr->data = f;
	return chr;
}

/* ---- stdio ---- */

static struct termios saved_tty;
static volatile sig_atomic_t tty_is_raw;
static struct chardev *stdio_owner;
static bool default_signals = true;

void chardev_stdio_default_signals(bool on)
{
	default_signals = on;
}

bool chardev_stdio_signals(void)
{
	return default_signals;
}

/* Async-signal-safe: tcsetattr() is on POSIX's list. */
static void restore_tty(void)
{
	if (!tty_is_raw)
		return;
	tty_is_raw = 0;
	/* A background process would be stopped here. */
	void (*old)(int) = signal(SIGTTOU, SIG_IGN);
	tcsetattr(STDIN_FILENO, TCSANOW, &saved_tty);
	signal(SIGTTOU, old);
}

static void fatal_signal(int sig)
{
	restore_tty();
	signal(sig, SIG_DFL);
	raise(sig);
}

void chardev_stdio_catch_signals(void)
{
	static const int signals[] = {SIGHUP,  SIGINT, SIGQUIT, SIGTERM, SIGABRT,
				      SIGSEGV, SIGBUS, SIGILL,  SIGFPE};

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		struct sigaction old, act = {.sa_handler = fatal_signal};
		if (!sigaction(signals[i], NULL, &old) && old.sa_handler == SIG_DFL &&
		    !(old.sa_flags & SA_SIGINFO))
			sigaction(signals[i], &act, NULL);
	}
}

static void set_raw(bool signals)
{
	struct termios t = saved_tty;

	t.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	t.c_oflag |= OPOST;
	t.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN);
	if (!signals)
		t.c_lflag &= ~(tcflag_t)ISIG;
	t.c_cflag = (t.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
	t.c_cc[VMIN] = 1;
	t.c_cc[VTIME] = 0;
	void (*old)(int) = signal(SIGTTOU, SIG_IGN);
	tcsetattr(STDIN_FILENO, TCSANOW, &t);
	signal(SIGTTOU, old);
	tty_is_raw = 1;
}

static void stdio_close(struct chardev *chr)
{
	restore_tty();
	stdio_owner = NULL;
	fds_close(chr);
}

static const struct chardev_class stdio_class = {.close = stdio_close};

void chardev_stdio_keep_signals(struct chardev *chr)
{
	if (chr == stdio_owner && tty_is_raw)
		set_raw(false);
}

struct chardev *chardev_open_stdio(struct loop *loop, const char *id, bool signals,
				   struct error *err)
{
	static bool registered;
	struct stat st;

	if (stdio_owner) {
		error_set(err, EBUSY,
			  "stdio is used twice; use mon:stdio to share it between a serial port "
			  "and the monitor");
		return NULL;
	}
	if (isatty(STDIN_FILENO) && !tcgetattr(STDIN_FILENO, &saved_tty)) {
		if (!registered) {
			registered = true;
			atexit(restore_tty);
		}
		chardev_stdio_catch_signals();
		set_raw(signals);
	}
	int out = STDOUT_FILENO;
	bool regular = !fstat(out, &st) && S_ISREG(st.st_mode);
	if (!regular) {
		int own = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (own >= 0)
			out = own;
	}
	struct chardev *chr = fds_new(loop, id, &stdio_class, STDIN_FILENO, out);
	stdio_owner = chr;
	chr->out_blocking = out == STDOUT_FILENO && !regular;
	chardev_set_description(chr, "stdio");
	chardev_connect(chr, STDIN_FILENO, out);
	return chr;
}

/* ---- files and pipes ---- */

struct chardev *chardev_open_file(struct loop *loop, const char *id, const char *path, bool append,
				  struct error *err)
{
	if (!*path) {
		error_set(err, EINVAL, "a file chardev needs a path: file:PATH");
		return NULL;
	}
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (append ? O_APPEND : O_TRUNC), 0666);
	if (fd < 0) {
		error_errno(err, errno, "cannot open '%s' for writing", path);
		return NULL;
	}
	struct stat st;
	if (!fstat(fd, &st) && !S_ISREG(st.st_mode))
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	struct chardev *chr = fds_new(loop, id, &fd_class, -1, fd);
	chardev_set_description(chr, "file:%s", path);
	chardev_connect(chr, -1, fd);
	return chr;
}

struct chardev *chardev_open_pipe(struct loop *loop, const char *id, const char *path,
				  struct error *err)
{
	/* Two FIFOs PATH.in and PATH.out, or one PATH. O_RDWR: opening does not wait for a peer,
	 * and the pipe never reports a hang-up. */
	char *in_path = xasprintf("%s.in", path), *out_path = xasprintf("%s.out", path);
	int in = open(in_path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	int out = open(out_path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	int code = errno;

	free(in_path);
	free(out_path);
	if (in < 0 || out < 0) {
		if (in >= 0)
			close(in);
		if (out >= 0)
			close(out);
		in = out = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (in < 0) {
			error_errno(err, *path ? errno : code,
				    "cannot open pipe '%s' (nor '%s.in' and '%s.out'); make it "
				    "with mkfifo",
				    path, path, path);
			return NULL;
		}
	}
	struct chardev *chr = fds_new(loop, id, &fd_class, in, out);
	chr->drop_when_full = true;
	chardev_set_description(chr, "pipe:%s", path);
	chardev_connect(chr, in, out);
	return chr;
}

/* ---- pseudo terminals ---- */

struct chardev *chardev_open_pty(struct loop *loop, const char *id, struct error *err)
{
	char name[64];
	struct termios t;
	int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave = -1;

	if (fd < 0 || grantpt(fd) || unlockpt(fd) || ptsname_r(fd, name, sizeof(name)) ||
	    (slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0) {
		error_errno(err, errno, "cannot make a pseudo terminal");
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	if (!tcgetattr(slave, &t)) {
		cfmakeraw(&t);
		tcsetattr(slave, TCSANOW, &t);
	}
	fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
	struct chardev *chr = fds_new(loop, id, &fd_class, fd, fd);
	/* With our own hold on the other end, its last user leaving is no hang-up. */
	((struct fds *)chr->data)->extra = slave;
	chr->drop_when_full = true;
	chardev_set_description(chr, "pty:%s", name);
	printf("char device redirected to %s (label %s)\n", name, id ? id : "chardev");
	fflush(stdout);
	chardev_connect(chr, fd, fd);
	return chr;
}
