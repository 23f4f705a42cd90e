/* SPDX-License-Identifier: MIT */
/*
 * The programs of the CPU benchmark in one file, so that a guest needs only one.
 *
 *   rows list                  group, name and description of each row, separated by tabs
 *   rows run NAME|GROUP|all [N]
 *                              runs rows with N units of work each (1); prints name, checksum, microseconds of CPU time
 *   rows serve [DIR]           takes rows from standard input, for a driver on the other side of a pipe or serial line
 *
 * Protocol of serve, one line each: the driver sends "NAME N"; the row sets itself up and answers "begin"; the driver
 * reads its clocks and sends "go"; the row works and answers "end CHECKSUM CPU-US WALL-US". Between "end" and the
 * next command nothing runs, so the driver's clocks bracket the work. A row that fails answers "fail" and a sentence.
 * "quit" ends the program. CPU time is that of the row's process and of the helpers it has waited for.
 */
#include "row.h"
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static const struct row *const tables[] = {
	integer_rows,    algorithm_rows, interpreter_rows, tool_rows,   mix_rows, x87_rows,
	scalar_sse_rows, simd_rows,      copy_rows,        system_rows, code_rows};

void fail(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	printf("fail ");
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	_exit(1);
}

void *must_alloc(size_t size)
{
	void *p = malloc(size);
	if (!p)
		fail("no memory for %zu bytes", size);
	return p;
}

static uint64_t usage_us(int who)
{
	struct rusage u;
	getrusage(who, &u);
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
	       (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static uint64_t cpu_us(void)
{
	return usage_us(RUSAGE_SELF) + usage_us(RUSAGE_CHILDREN);
}

static uint64_t wall_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint32_t work(const struct row *row, uint64_t count)
{
	uint32_t first = 0;
	for (uint64_t n = 0; n < count; n++) {
		uint32_t sum = row->once();
		if (!n)
			first = sum;
		else if (sum != first)
			fail("%s: unit %llu gave checksum %08x, the first one %08x", row->name,
			     (unsigned long long)n, sum, first);
	}
	if (row->finish)
		row->finish();
	return first;
}

static bool read_line(char *line, size_t size)
{
	if (!fgets(line, (int)size, stdin))
		return false;
	line[strcspn(line, "\r\n")] = 0;
	return true;
}

/* Runs one row in this process, which may be left in any state. */
static void run(const struct row *row, uint64_t count, bool served)
{
	char line[64];

	if (row->setup)
		row->setup();
	if (served) {
		printf("begin\n");
		fflush(stdout);
		if (!read_line(line, sizeof(line)) || strcmp(line, "go"))
			fail("%s: expected go", row->name);
	}
	uint64_t cpu = cpu_us(), wall = wall_us();
	uint32_t sum = work(row, count);
	cpu = cpu_us() - cpu;
	wall = wall_us() - wall;
	if (served)
		printf("end %08x %llu %llu\n", sum, (unsigned long long)cpu,
		       (unsigned long long)wall);
	else
		printf("%-16s %08x %10llu us\n", row->name, sum, (unsigned long long)cpu);
	fflush(stdout);
}

/* A process of its own for each row: what one leaves behind is no concern of the next. */
static bool run_apart(const struct row *row, uint64_t count, bool served)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		fail("fork: %s", strerror(errno));
	if (!pid) {
		run(row, count, served);
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status)) {
		printf("fail %s: ended by signal %d\n", row->name, WTERMSIG(status));
		fflush(stdout);
	}
	return status == 0;
}

static const struct row *find(const char *name)
{
	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
		for (const struct row *row = tables[t]; row->name; row++)
			if (!strcmp(row->name, name))
				return row;
	return NULL;
}

static int serve(void)
{
	struct termios t;
	char line[64], name[32];
	unsigned long long count;

	if (!tcgetattr(0, &t)) {
		t.c_lflag &= (tcflag_t) ~(ECHO | ISIG);
		t.c_oflag &= (tcflag_t)~OPOST;
		tcsetattr(0, TCSANOW, &t);
	}
	setvbuf(stdin, NULL, _IONBF, 0); /* the rows' processes read it, too */
	printf("ready\n");
	fflush(stdout);
	while (read_line(line, sizeof(line)) && strcmp(line, "quit")) {
		const struct row *row;
		if (sscanf(line, "%31s %llu", name, &count) != 2 || !(row = find(name))) {
			printf("fail there is no row '%s'\n", line);
			fflush(stdout);
			continue;
		}
		run_apart(row, count, true);
	}
	return 0;
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";
	bool good = true;
	int ran = 0;

	if (!strcmp(command, "nothing")) /* what the fork-exec row starts */
		return 42;
	if (!strcmp(command, "serve")) {
		if (argc > 2 && chdir(argv[2]))
			fail("cannot enter '%s': %s", argv[2], strerror(errno));
		return serve();
	}
	if (strcmp(command, "list") && (strcmp(command, "run") || argc < 3)) {
		fprintf(stderr, "usage: rows list | run NAME|GROUP|all [N] | serve [DIR]\n");
		return 2;
	}
	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
		for (const struct row *row = tables[t]; row->name; row++)
			if (!strcmp(command, "list")) {
				printf("%s\t%s\t%s\n", row->group, row->name, row->what);
				ran++;
			} else if (!strcmp(argv[2], "all") || !strcmp(argv[2], row->name) ||
				   !strcmp(argv[2], row->group)) {
				good &= run_apart(row, argc > 3 ? strtoull(argv[3], NULL, 0) : 1,
						  false);
				ran++;
			}
	if (!ran)
		fprintf(stderr, "rows: there is no row or group '%s'\n", argv[2]);
	return good && ran ? 0 : 1;
}
