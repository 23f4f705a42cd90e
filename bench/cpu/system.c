/* SPDX-License-Identifier: MIT */
/*
 * What a kernel does for programs: system calls, processes that talk, fork and exec, page faults, cached files,
 * signals. Processes that take turns are bound to one CPU, so that a host with several behaves as the guest.
 */
#include "row.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };

static void check(const char *what, int64_t result)
{
	if (result < 0)
		fail("%s: %s", what, strerror(errno));
}

static void one_cpu(void)
{
	cpu_set_t set;
	int cpu = sched_getcpu();
	CPU_ZERO(&set);
	CPU_SET(cpu < 0 ? 0 : cpu, &set);
	check("sched_setaffinity", sched_setaffinity(0, sizeof(set), &set));
}

static pid_t process;

static void parent_setup(void)
{
	process = getppid();
}

static uint32_t getppid_once(void)
{
	for (int n = 0; n < 2000; n++)
		if (syscall(SYS_getppid) != process)
			fail("getppid: another process");
	return 2000;
}

/* ---- Two processes and two pipes, a byte back and forth ---- */

static int there[2], back[2];
static pid_t peer;

/* Starts the other process, which does not outlive this one. */
static bool in_peer(void)
{
	peer = fork();
	check("fork", peer);
	if (!peer)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return !peer;
}

static void pingpong_setup(void)
{
	one_cpu();
	check("pipe", pipe(there));
	check("pipe", pipe(back));
	if (in_peer()) {
		uint8_t byte;
		close(there[1]);
		while (read(there[0], &byte, 1) == 1) {
			byte ^= 0x5A;
			if (write(back[1], &byte, 1) != 1)
				break;
		}
		_exit(0);
	}
	close(there[0]);
}

static uint32_t pingpong_once(void)
{
	uint32_t hash = HASH_START;
	for (int n = 0; n < 100; n++) {
		uint8_t byte = (uint8_t)n;
		if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
			fail("pingpong: %s", strerror(errno));
		if (byte != (uint8_t)(n ^ 0x5A))
			fail("pingpong: wrong byte");
		hash = hash_word(hash, byte);
	}
	return hash;
}

static void end_peer(void)
{
	int status;
	close(there[1]);
	check("waitpid", waitpid(peer, &status, 0));
	if (status)
		fail("the other process ended with status %x", status);
}

/* ---- Two processes that yield to each other; they count their turns in shared memory ---- */

static struct turns {
	volatile uint32_t mine, yours, done;
} * turns;

static void yield_setup(void)
{
	one_cpu();
	turns = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (turns == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	check("pipe", pipe(there));
	if (in_peer()) {
		uint8_t byte;
		/* It does not spin before the work begins. */
		if (read(there[0], &byte, 1) != 1)
			_exit(1);
		while (!turns->done) {
			turns->yours = turns->mine;
			sched_yield();
		}
		_exit(0);
	}
}

static uint32_t yield_once(void)
{
	if (!turns->mine && write(there[1], "", 1) != 1)
		fail("write: %s", strerror(errno));
	/* The other one has had its turn when it has copied the number. */
	for (int n = 0; n < 100; n++) {
		turns->mine++;
		while (turns->yours != turns->mine)
			sched_yield();
	}
	return 100;
}

static void yield_finish(void)
{
	turns->done = 1;
	end_peer();
}

/* ---- fork, and fork with exec ---- */

static uint32_t fork_once(void)
{
	int status;
	pid_t pid = fork();
	check("fork", pid);
	if (!pid)
		_exit(7);
	check("waitpid", waitpid(pid, &status, 0));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 7)
		fail("fork: the child ended with status %x", status);
	return 7;
}

static uint32_t exec_once(void)
{
	int status;
	pid_t pid = fork();
	check("fork", pid);
	if (!pid) {
		execl("/proc/self/exe", "rows", "nothing", NULL);
		_exit(127);
	}
	check("waitpid", waitpid(pid, &status, 0));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 42)
		fail("fork-exec: the program ended with status %x", status);
	return 42;
}

/* ---- Page faults: map, touch, unmap; and copy on write after fork ---- */

static uint32_t faults_once(void)
{
	enum { PAGES = 64 };
	uint32_t sum = 0;
	uint8_t *p = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);
	if (p == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	for (uint32_t n = 0; n < PAGES; n++)
		p[n * PAGE + n] = (uint8_t)(n + 1);
	for (uint32_t n = 0; n < PAGES * PAGE; n += 63)
		sum += p[n];
	check("munmap", munmap(p, PAGES * PAGE));
	return sum;
}

static uint8_t *shared_pages;
enum { COW_PAGES = 128 };

static void cow_setup(void)
{
	shared_pages = mmap(NULL, COW_PAGES * PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (shared_pages == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	memset(shared_pages, 0x11, COW_PAGES * PAGE);
}

static uint32_t cow_once(void)
{
	int status;
	pid_t pid = fork();
	check("fork", pid);
	if (!pid) {
		uint32_t sum = 0;
		for (int n = 0; n < COW_PAGES * PAGE; n += PAGE)
			shared_pages[n]++;
		for (int n = 0; n < COW_PAGES * PAGE; n += PAGE / 2)
			sum += shared_pages[n];
		_exit(sum == COW_PAGES * (0x11 + 0x12) ? 0 : 1);
	}
	check("waitpid", waitpid(pid, &status, 0));
	if (status || shared_pages[0] != 0x11)
		fail("copy-on-write: the child ended with status %x", status);
	return 0x11;
}

/* ---- A file of 256 KiB in the page cache, read by 16 KiB ---- */

enum { FILE_SIZE = 256 * 1024, PIECE = 16 * 1024 };
static int file;
static uint8_t piece[PIECE];

static void readfile_setup(void)
{
	uint32_t seed = 16;
	file = open("cached", O_RDWR | O_CREAT | O_TRUNC, 0600);
	check("open", file);
	for (int n = 0; n < FILE_SIZE / PIECE; n++) {
		for (int k = 0; k < PIECE; k++)
			piece[k] = (uint8_t)(next_random(&seed) >> 9);
		if (write(file, piece, PIECE) != PIECE)
			fail("write: %s", strerror(errno));
	}
}

static uint32_t readfile_once(void)
{
	uint32_t hash = HASH_START, got = 0;
	for (int pass = 0; pass < 4; pass++) {
		check("lseek", lseek(file, 0, SEEK_SET));
		for (;;) {
			ssize_t n = read(file, piece, PIECE);
			check("read", n);
			if (!n)
				break;
			got += (uint32_t)n;
			hash = hash_bytes(hash, piece + 128, 32);
		}
	}
	if (got != 4 * FILE_SIZE)
		fail("readfile: %u bytes", got);
	return hash;
}

/* ---- Files by name: stat, open, close, create, delete ---- */

static uint32_t files_once(void)
{
	char name[32];
	for (int n = 0; n < 40; n++) {
		snprintf(name, sizeof(name), "name%d", n);
		int f = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
		check("create", f);
		if (write(f, name, sizeof(name)) != sizeof(name))
			fail("write: %s", strerror(errno));
		close(f);
	}
	for (int n = 0; n < 40; n++) {
		snprintf(name, sizeof(name), "name%d", n);
		check("access", access(name, R_OK));
		check("unlink", unlink(name));
	}
	return 40;
}

/* ---- Signals: to oneself, and by a page fault that the handler repairs ---- */

static volatile uint32_t handled;
static uint8_t *guarded;

static void on_user(int signal)
{
	handled++;
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
	handled++;
	if ((uint8_t *)info->si_addr != guarded)
		_exit(1);
	mprotect(guarded, PAGE, PROT_READ | PROT_WRITE);
}

static void signal_setup(void)
{
	struct sigaction user = {.sa_handler = on_user},
			 fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
	check("sigaction", sigaction(SIGUSR1, &user, NULL));
	check("sigaction", sigaction(SIGSEGV, &fault, NULL));
	guarded = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (guarded == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
}

static uint32_t signal_once(void)
{
	handled = 0;
	for (int n = 0; n < 200; n++)
		kill(process, SIGUSR1);
	if (handled != 200)
		fail("signals: %u of 200 arrived", handled);
	return handled;
}

static void to_self_setup(void)
{
	signal_setup();
	process = getpid();
}

static uint32_t segv_once(void)
{
	handled = 0;
	for (uint32_t n = 0; n < 100; n++) {
		check("mprotect", mprotect(guarded, PAGE, PROT_READ));
		*(volatile uint8_t *)guarded = (uint8_t)n;
	}
	if (handled != 100 || *guarded != 99)
		fail("segv: %u of 100 faults", handled);
	return handled;
}

const struct row system_rows[] = {
	{"system", "getppid", "2000 system calls that do nothing", parent_setup, getppid_once,
	 NULL},
	{"system", "pingpong", "a byte through two pipes and back, 100 times", pingpong_setup,
	 pingpong_once, end_peer},
	{"system", "yield", "100 turns of two processes by sched_yield", yield_setup, yield_once,
	 yield_finish},
	{"system", "fork", "fork and wait", NULL, fork_once, NULL},
	{"system", "fork-exec", "fork, exec of a static program, wait", NULL, exec_once, NULL},
	{"system", "pagefault", "mmap, touch 64 pages, munmap", NULL, faults_once, NULL},
	{"system", "copyonwrite", "fork, the child writes to 128 pages", cow_setup, cow_once, NULL},
	{"system", "readfile", "a cached file of 256 KiB, four times", readfile_setup,
	 readfile_once, NULL},
	{"system", "files", "create, write, look up and delete 40 files", NULL, files_once, NULL},
	{"system", "signals", "200 signals to oneself", to_self_setup, signal_once, NULL},
	{"system", "segv", "100 page faults repaired by a signal handler", signal_setup, segv_once,
	 NULL},
	{NULL, NULL, NULL, NULL, NULL, NULL},
};
