/* SPDX-License-Identifier: MIT */
/*
 * Processes and threads: fork and wait, pipes, signals with handlers on their own stack, copy on
 * write, threads that fight for locks and atomic counters, mappings that come and go, timers.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, THREADS = 4, ROUNDS = 20000 };

static void forks(void)
{
	int sum = 0;
	for (int n = 0; n < 200; n++) {
		pid_t child = fork();
		int status;
		if (child == 0)
			_exit(n & 63);
		waitpid(child, &status, 0);
		sum += WEXITSTATUS(status);
	}
	printf("forks %d\n", sum);
}

/* A number goes around between two processes. */
static void pipes(void)
{
	int there[2], back[2];
	uint32_t v = 1;
	if (pipe(there) || pipe(back))
		return;
	pid_t child = fork();
	if (child == 0) {
		while (read(there[0], &v, 4) == 4) {
			v = v * 5 + 1;
			if (write(back[1], &v, 4) != 4 || v == 0)
				break;
		}
		_exit(0);
	}
	for (int n = 0; n < 2000; n++)
		if (write(there[1], &v, 4) != 4 || read(back[0], &v, 4) != 4)
			break;
	printf("pipes %08x\n", v);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static volatile sig_atomic_t signals_seen;

static void on_signal(int signal)
{
	signals_seen++;
}

static void signals(void)
{
	stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
	struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
	sigaltstack(&stack, NULL);
	sigaction(SIGUSR1, &a, NULL);
	for (int n = 0; n < 3000; n++)
		kill(getpid(), SIGUSR1);
	printf("signals %d\n", (int)signals_seen);
	/* A timer interrupts arithmetic, which must not notice. */
	sigaction(SIGALRM, &a, NULL);
	struct itimerval every = {{0, 2000}, {0, 2000}}, never = {{0, 0}, {0, 0}};
	setitimer(ITIMER_REAL, &every, NULL);
	double d = 1;
	uint32_t v = 1;
	for (int n = 0; n < 3000000; n++) {
		v = v * 1664525 + 1013904223;
		d += (double)v / 4294967296.0 / (d + 1);
	}
	setitimer(ITIMER_REAL, &never, NULL);
	printf("interrupted arithmetic %08x %a\n", v, d);
}

static void copy_on_write(void)
{
	enum { PAGES = 500 };
	uint32_t *m = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);
	uint32_t sum = 0;
	for (int n = 0; n < PAGES; n++)
		m[n * 1024] = (uint32_t)n;
	pid_t child = fork();
	if (child == 0) {
		for (int n = 0; n < PAGES; n++)
			m[n * 1024] += 1000;
		_exit(0);
	}
	waitpid(child, NULL, 0);
	for (int n = 0; n < PAGES; n++)
		sum += m[n * 1024];
	printf("copy on write %u\n", sum);
	munmap(m, PAGES * PAGE);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static unsigned locked_count, atomic_count, exchange_count, whose_turn;
static uint64_t wide_count;

static void *fight(void *argument)
{
	unsigned me = (unsigned)(uintptr_t)argument;
	for (int n = 0; n < ROUNDS; n++) {
		pthread_mutex_lock(&mutex);
		locked_count++;
		pthread_mutex_unlock(&mutex);
		__atomic_fetch_add(&atomic_count, 1, __ATOMIC_SEQ_CST);
		unsigned old = __atomic_load_n(&exchange_count, __ATOMIC_RELAXED);
		while (!__atomic_compare_exchange_n(&exchange_count, &old, old + 3, true,
						    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
			;
		__atomic_fetch_add(&wide_count, UINT64_C(0x100000001), __ATOMIC_SEQ_CST);
	}
	for (int n = 0; n < 50; n++) {
		pthread_mutex_lock(&mutex);
		while (whose_turn % THREADS != me)
			pthread_cond_wait(&turn, &mutex);
		whose_turn++;
		pthread_cond_broadcast(&turn);
		pthread_mutex_unlock(&mutex);
	}
	return NULL;
}

static void threads(void)
{
	pthread_t t[THREADS];
	for (unsigned n = 0; n < THREADS; n++)
		pthread_create(&t[n], NULL, fight, (void *)(uintptr_t)n);
	for (unsigned n = 0; n < THREADS; n++)
		pthread_join(t[n], NULL);
	printf("threads %u %u %u %llx %u\n", locked_count, atomic_count, exchange_count,
	       (unsigned long long)wide_count, whose_turn);
}

static uint32_t *shared_page;
static unsigned asked, answered, stale;

/* Reads the page each time that other memory was put there. */
static void *look(void *argument)
{
	for (unsigned n = 1; n <= 1000; n++) {
		while (__atomic_load_n(&asked, __ATOMIC_ACQUIRE) != n)
			sched_yield();
		if (*(volatile uint32_t *)shared_page != n)
			stale++;
		__atomic_store_n(&answered, n, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void mappings(void)
{
	pthread_t t;
	uint32_t sum = 0;
	shared_page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_create(&t, NULL, look, NULL);
	for (uint32_t n = 1; n <= 1000; n++) {
		mmap(shared_page, PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		sum += shared_page[0]; /* fresh memory is zero */
		shared_page[0] = n;
		mprotect(shared_page, PAGE, PROT_READ);
		__atomic_store_n(&asked, n, __ATOMIC_RELEASE);
		while (__atomic_load_n(&answered, __ATOMIC_ACQUIRE) != n)
			sched_yield();
		uint32_t *m = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		m[2048] = n;
		m = mremap(m, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE);
		sum = sum * 3 + m[2048] + m[4096];
		munmap(m, 8 * PAGE);
	}
	pthread_join(t, NULL);
	printf("mappings %08x, stale %u\n", sum, stale);
}

int main(void)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	forks();
	pipes();
	signals();
	copy_on_write();
	threads();
	mappings();
	return 0;
}
