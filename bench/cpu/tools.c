/* SPDX-License-Identifier: MIT */
/*
 * Everyday tools: applets of the busybox that the environment variable BUSYBOX names (/bin/busybox otherwise), over
 * files generated in the working directory. The checksum is that of what the tool prints.
 */
#include "row.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINES = 1500 };

static const char *busybox(void)
{
	const char *path = getenv("BUSYBOX");
	return path ? path : "/bin/busybox";
}

/* Runs `busybox ARGV...` and returns the hash of its output, or writes that to a file. */
static uint32_t tool(char *const argv[], const char *to)
{
	int ends[2], status;
	if (pipe(ends))
		fail("pipe: %s", strerror(errno));
	pid_t pid = fork();
	if (pid < 0)
		fail("fork: %s", strerror(errno));
	if (!pid) {
		int out = to ? open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600) : ends[1];
		dup2(out, 1);
		close(ends[0]);
		close(ends[1]);
		/* An environment of its own: locale and time zone are the same everywhere. */
		char *const env[] = {"PATH=/bin", "LC_ALL=C", "TZ=UTC0", NULL};
		execve(busybox(), argv, env);
		_exit(127);
	}
	close(ends[1]);
	static uint8_t buffer[65536];
	uint32_t hash = HASH_START;
	size_t filled = 0;
	for (;;) {
		ssize_t got = read(ends[0], buffer + filled, sizeof(buffer) - filled);
		if (got < 0)
			fail("read: %s", strerror(errno));
		filled += (size_t)got;
		/* By whole buffers: how a pipe cuts its data is nobody's business. */
		if (filled == sizeof(buffer) || !got) {
			hash = hash_bytes(hash, buffer, filled);
			filled = 0;
		}
		if (!got)
			break;
	}
	close(ends[0]);
	if (waitpid(pid, &status, 0) != pid || status)
		fail("'%s %s' ended with status %x", busybox(), argv[1], status);
	return hash;
}

#define TOOL(to, ...) tool((char *const[]){"busybox", __VA_ARGS__, NULL}, to)

/* text: lines of words and numbers, as logs have them. */
static void make_text(void)
{
	static const char *const words[] = {
		"error", "kernel:", "page",    "session", "opened", "for",     "user", "root",
		"usb",   "device",  "timeout", "after",   "daemon", "started", "eth0", "link"};
	FILE *f = fopen("text", "w");
	uint32_t seed = 11;
	if (!f)
		fail("cannot create 'text': %s", strerror(errno));
	for (int n = 0; n < LINES; n++) {
		uint32_t count = 3 + next_random(&seed) % 6;
		fprintf(f, "%u", next_random(&seed) % 100000);
		while (count--)
			fprintf(f, " %s", words[next_random(&seed) >> 28]);
		fprintf(f, " 0x%x\n", next_random(&seed));
	}
	if (fclose(f))
		fail("cannot write 'text': %s", strerror(errno));
}

/* The compressed text and a folder of 64 files. */
static void make_all(void)
{
	char name[32];
	make_text();
	TOOL("text.gz", "gzip", "-c", "text");
	TOOL(NULL, "rm", "-rf", "tree");
	mkdir("tree", 0700);
	for (int n = 0; n < 64; n++) {
		uint32_t seed = (uint32_t)n + 1;
		snprintf(name, sizeof(name), "tree/file%d", n);
		FILE *f = fopen(name, "w");
		if (!f)
			fail("cannot create '%s': %s", name, strerror(errno));
		for (int k = 0; k < 600; k++)
			fprintf(f, "%u\n", next_random(&seed));
		fclose(f);
	}
	TOOL("tree.tar", "tar", "c", "tree");
}

static uint32_t gzip_once(void)
{
	return TOOL(NULL, "gzip", "-c", "text");
}

static uint32_t gunzip_once(void)
{
	return TOOL(NULL, "gunzip", "-c", "text.gz");
}

static uint32_t bzip2_once(void)
{
	return TOOL(NULL, "bzip2", "-c", "text");
}

static uint32_t md5sum_once(void)
{
	return TOOL(NULL, "md5sum", "text", "text.gz", "text", "text");
}

static uint32_t sha1sum_once(void)
{
	return TOOL(NULL, "sha1sum", "text", "text.gz", "text", "text");
}

static uint32_t sort_once(void)
{
	return TOOL(NULL, "sort", "text");
}

static uint32_t grep_once(void)
{
	return TOOL(NULL, "grep", "-E", "usb.*(time|root)|[a-f]+[0-9]{3}$", "text");
}

static uint32_t awk_once(void)
{
	return TOOL(NULL, "awk",
		    "{ n[$2] += $1; l += length($0) } END { for (w in n) s += n[w]; print s, l, "
		    "n[\"usb\"] }",
		    "text");
}

static uint32_t sed_once(void)
{
	return TOOL(NULL, "sed", "-e", "s/\\([a-z]*\\) \\([a-z]*\\)/\\2 \\1/g", "-e", "/root/d",
		    "text");
}

/* The archives hold times, so the checksum is that of the files that come out. */
static uint32_t tar_once(void)
{
	TOOL(NULL, "rm", "-rf", "out");
	mkdir("out", 0700);
	TOOL(NULL, "tar", "x", "-f", "tree.tar", "-C", "out");
	TOOL(NULL, "tar", "c", "-C", "out", "tree");
	return TOOL(NULL, "sh", "-c", "cat out/tree/file*");
}

static uint32_t shell_once(void)
{
	return TOOL(NULL, "sh", "-c",
		    "n=0; s=; while [ $n -lt 1500 ]; do n=$((n + 1)); case $n in *7) s=$s$n;; "
		    "esac; done; echo $s");
}

const struct row tool_rows[] = {
	{"busybox", "gzip", "busybox gzip of a 75 KB text", make_text, gzip_once, NULL},
	{"busybox", "gunzip", "busybox gunzip of the same", make_all, gunzip_once, NULL},
	{"busybox", "bzip2", "busybox bzip2 of the same", make_text, bzip2_once, NULL},
	{"busybox", "md5sum", "busybox md5sum of 240 KB", make_all, md5sum_once, NULL},
	{"busybox", "sha1sum", "busybox sha1sum of 240 KB", make_all, sha1sum_once, NULL},
	{"busybox", "sort", "busybox sort of 1500 lines", make_text, sort_once, NULL},
	{"busybox", "grep", "busybox grep -E over 1500 lines", make_text, grep_once, NULL},
	{"busybox", "awk", "busybox awk over 1500 lines", make_text, awk_once, NULL},
	{"busybox", "sed", "busybox sed over 1500 lines", make_text, sed_once, NULL},
	{"busybox", "tar", "busybox tar of 64 files, packed and unpacked", make_all, tar_once,
	 NULL},
	{"busybox", "shell", "a loop in busybox sh", NULL, shell_once, NULL},
	{NULL, NULL, NULL, NULL, NULL, NULL},
};
