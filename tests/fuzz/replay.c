/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzz target without libFuzzer: over the files named, or over a fixed pseudo-random
 * sequence of inputs, which are the target's seeds, changed in the usual ways.
 *
 *   NAME_fuzz [--runs N | --times N] [--seed N] [FILE...]
 *   NAME_fuzz --write-seeds DIR
 *
 * --times: so many times as many runs as usual (with sanitizers a quarter of them is usual). An input that crashes the program, or keeps it busy
 * for HANG_SECONDS, is written to /tmp/minivm-NAME-PID, which is named on stderr.
 */
#include "lib/log.h"
#include "lib/text.h"
#include "tests/fuzz/fuzz.h"
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { HANG_SECONDS = 60, MAX_SEEDS = 256, MAX_FILE = 64 << 20 };

/* The sanitizers': also where they end the program without a signal. */
void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

static const uint8_t *current;
static size_t current_len;
static char crash_path[128];
static unsigned long run;

static void save_input(void)
{
	static const char text[] = "the input is in ";
	int fd = current ? open(crash_path, O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;

	if (fd < 0 || write(fd, current, current_len) < 0)
		return;
	close(fd);
	current = NULL;
	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0 ||
	    write(STDERR_FILENO, crash_path, strlen(crash_path)) < 0 ||
	    write(STDERR_FILENO, "\n", 1) < 0)
		return;
}

static void fatal_signal(int sig)
{
	save_input();
	signal(sig, SIG_DFL);
	raise(sig);
}

static void catch_signals(void)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM};

	snprintf(crash_path, sizeof(crash_path), "/tmp/minivm-%s-%d", fuzz_target.name,
		 (int)getpid());
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(save_input);
	for (size_t n = 0; n < sizeof(signals) / sizeof(signals[0]); n++)
		if (!__sanitizer_set_death_callback || signals[n] == SIGALRM)
			signal(signals[n], fatal_signal);
}

static void run_input(const uint8_t *data, size_t len)
{
	/* A copy of exactly its size: reading past its end is then seen by ASan. */
	uint8_t *copy = xmalloc(len ? len : 1);

	memcpy(copy, data, len);
	current = copy;
	current_len = len;
	alarm(HANG_SECONDS);
	LLVMFuzzerTestOneInput(copy, len);
	alarm(0);
	current = NULL;
	free(copy);
}

/* ---- Making inputs ---- */

static uint64_t random_state;

static uint32_t random32(void)
{
	random_state ^= random_state >> 12; /* xorshift64* */
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t)(random_state * UINT64_C(0x2545F4914F6CDD1D) >> 32);
}

static size_t random_below(size_t n)
{
	return n ? random32() % n : 0;
}

struct seed {
	uint8_t *data;
	size_t len;
};

static unsigned load_seeds(struct seed *seeds)
{
	uint8_t *buf = xmalloc(fuzz_target.max_len);
	unsigned count = 0;

	for (size_t len;
	     count < MAX_SEEDS && (len = fuzz_target.seed(count, buf, fuzz_target.max_len));
	     count++) {
		seeds[count].data = xmalloc(len);
		seeds[count].len = len;
		memcpy(seeds[count].data, buf, len);
	}
	free(buf);
	return count;
}

/* A number at the edge of something, in either byte order. */
static void put_telling_number(uint8_t *buf, size_t room)
{
	uint64_t v = (uint64_t)1 << random_below(64);
	size_t size = (size_t)1 << random_below(4);
	bool big = random_below(2);

	v += random_below(3) - 1;
	if (random_below(4) == 0)
		v = ~v;
	for (size_t n = 0; n < size && n < room; n++)
		buf[n] = (uint8_t)(v >> 8 * (big ? size - 1 - n : n));
}

static size_t change(uint8_t *buf, size_t len, size_t max, const struct seed *other)
{
	size_t at = random_below(len), n = 1 + random_below(random_below(4) ? 8 : 64);

	switch (random_below(8)) {
	case 0: /* one bit */
		if (len)
			buf[at] ^= (uint8_t)(1 << random_below(8));
		break;
	case 1: /* one byte */
		if (len)
			buf[at] = (uint8_t)random32();
		break;
	case 2: put_telling_number(buf + at, len - at); break;
	case 3: /* cut out */
		if (n > len - at)
			n = len - at;
		memmove(buf + at, buf + at + n, len - at - n);
		return len - n;
	case 4: /* put in, random or repeated */
		if (n > max - len)
			n = max - len;
		memmove(buf + at + n, buf + at, len - at);
		if (random_below(2) || at < n)
			for (size_t i = 0; i < n; i++)
				buf[at + i] = (uint8_t)random32();
		else
			memcpy(buf + at, buf + at - n, n);
		return len + n;
	case 5: /* from another seed, over this one or inserted */
	{
		size_t from = random_below(other->len);
		n = 1 + random_below(other->len - from);
		if (n > max - at)
			n = max - at;
		memcpy(buf + at, other->data + from, n);
		return at + n > len ? at + n : len;
	}
	case 6: /* appended */
		n = other->len < max - len ? other->len : max - len;
		memcpy(buf + len, other->data, n);
		return len + n;
	case 7: /* the end cut off, rarely */
		if (random_below(8) == 0)
			return at;
		break;
	}
	return len;
}

static size_t make_input(uint8_t *buf, const struct seed *seeds, unsigned count)
{
	size_t max = fuzz_target.max_len, len = 0;

	if (!count || random_below(8) == 0) {
		len = random_below(1 + random_below(max));
		for (size_t n = 0; n < len; n++)
			buf[n] = (uint8_t)random32();
		return len;
	}
	const struct seed *seed = &seeds[random_below(count)];
	len = seed->len;
	memcpy(buf, seed->data, len);
	for (size_t n = 1 + random_below(1 + random_below(16)); n; n--)
		len = change(buf, len, max, &seeds[random_below(count)]);
	return len;
}

static void run_sequence(uint64_t seed, unsigned long runs)
{
	static struct seed seeds[MAX_SEEDS];
	unsigned count = load_seeds(seeds);
	uint8_t *buf = xmalloc(fuzz_target.max_len);

	for (unsigned n = 0; n < count; n++)
		run_input(seeds[n].data, seeds[n].len);
	for (run = 0; run < runs; run++) {
		/* Each run has a number of its own, so that one can be repeated without the others.
		 */
		random_state = (seed * 1000003 + run) * UINT64_C(0x9E3779B97F4A7C15) | 1;
		for (unsigned n = 0; n < 4; n++)
			random32();
		run_input(buf, make_input(buf, seeds, count));
	}
	free(buf);
	for (unsigned n = 0; n < count; n++)
		free(seeds[n].data);
	fprintf(stderr, "%s: %u seeds and %lu inputs made of them, seed %llu\n", fuzz_target.name,
		count, runs, (unsigned long long)seed);
}

/* ---- Files ---- */

static int run_file(const char *path)
{
	struct error err = ERROR_INIT;
	size_t len;
	uint8_t *data = read_file(path, MAX_FILE, &len, &err);

	if (!data) {
		report("%s", err.text);
		return 1;
	}
	run_input(data, len);
	free(data);
	return 0;
}

static int write_seeds(const char *dir)
{
	static struct seed seeds[MAX_SEEDS];
	unsigned count = load_seeds(seeds);
	int status = 0;

	for (unsigned n = 0; n < count; n++) {
		char *path = xasprintf("%s/seed-%u", dir, n);
		int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
		if (fd < 0 || write_full(fd, seeds[n].data, seeds[n].len) < 0) {
			perror(path);
			status = 1;
		}
		if (fd >= 0)
			close(fd);
		free(path);
		free(seeds[n].data);
	}
	return status;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"runs", 1, NULL, 'r'},
						{"times", 1, NULL, 't'},
						{"seed", 1, NULL, 's'},
						{"write-seeds", 1, NULL, 'w'},
						{0}};
	unsigned long usual = fuzz_target.runs / (__sanitizer_set_death_callback ? 4 : 1);
	unsigned long runs = usual;
	uint64_t seed = 1;
	int option, status = 0;

	log_set_program(fuzz_target.name);
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'r': runs = strtoul(optarg, NULL, 0); break;
		case 't': runs = usual * strtoul(optarg, NULL, 0); break;
		case 's': seed = strtoull(optarg, NULL, 0); break;
		case 'w': return write_seeds(optarg);
		default: return 2;
		}
	}
	catch_signals();
	for (int n = optind; n < argc; n++)
		status |= run_file(argv[n]);
	if (optind == argc)
		run_sequence(seed, runs);
	return status;
}
