/* SPDX-License-Identifier: MIT */
/* The event loop, the machine lock, the virtual clock and its timers. */
#include "lib/clock.h"
#include "lib/loop.h"
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop *loop;

static int setup(void **state)
{
	loop = loop_new(NULL);
	return loop ? 0 : -1;
}

static int teardown(void **state)
{
	loop_free(loop);
	return 0;
}

static char order[32];

static void note(void *opaque)
{
	assert_true(loop_locked_by_me(loop));
	strcat(order, opaque);
}

static void calls_run_in_order_with_the_lock_held(void **state)
{
	order[0] = 0;
	struct loop_call c, d;
	loop_call_init(&c, note, "c");
	loop_call_init(&d, note, "d");
	loop_defer(loop, note, "a");
	loop_call_schedule(loop, &c);
	loop_call_schedule(loop, &c);
	loop_call_schedule(loop, &d);
	loop_defer(loop, note, "b");
	loop_lock(loop);
	loop_call_cancel(loop, &d);
	loop_unlock(loop);
	assert_false(loop_locked_by_me(loop));
	loop_run_once(loop, -1);
	assert_string_equal(order, "acb");
	loop_call_schedule(loop, &d);
	loop_run_once(loop, -1);
	assert_string_equal(order, "acbd");
}

static void reschedule_self(void *opaque)
{
	struct loop_call *c = opaque;
	order[strlen(order) + 1] = 0;
	order[strlen(order)] = 's';
	loop_call_schedule(loop, c);
}

static void a_call_that_reschedules_itself_runs_once_a_turn(void **state)
{
	order[0] = 0;
	struct loop_call c;
	loop_call_init(&c, reschedule_self, &c);
	loop_call_schedule(loop, &c);
	loop_run_once(loop, 0);
	assert_string_equal(order, "s");
	loop_run_once(loop, 0);
	assert_string_equal(order, "ss");
	loop_lock(loop);
	loop_call_cancel(loop, &c);
	loop_unlock(loop);
	loop_run_once(loop, 0);
	assert_string_equal(order, "ss");
}

static struct loop_fd *h[2];
static int fd_calls;

static void free_both(void *opaque, unsigned events)
{
	assert_true(events & LOOP_READ);
	fd_calls++;
	loop_fd_free(h[0]);
	loop_fd_free(h[1]);
}

static void fds_can_be_freed_inside_callbacks(void **state)
{
	int p[2];
	assert_int_equal(pipe(p), 0);
	int twin = dup(p[0]);
	fd_calls = 0;
	loop_lock(loop);
	h[0] = loop_fd_new(loop, p[0], LOOP_READ, free_both, NULL, NULL);
	h[1] = loop_fd_new(loop, twin, LOOP_READ, free_both, NULL, NULL);
	loop_unlock(loop);
	assert_int_equal(write(p[1], "x", 1), 1);
	loop_run_once(loop, -1);
	loop_run_once(loop, 0);
	assert_int_equal(fd_calls, 1);
	close(p[0]);
	close(p[1]);
	close(twin);
}

static unsigned seen_events;

static void see(void *opaque, unsigned events)
{
	seen_events = events;
}

static void hangup_is_an_error_and_regular_files_are_always_ready(void **state)
{
	int p[2];
	assert_int_equal(pipe(p), 0);
	loop_lock(loop);
	struct loop_fd *a = loop_fd_new(loop, p[0], 0, see, NULL, NULL);
	loop_unlock(loop);
	close(p[1]);
	seen_events = 0;
	loop_run_once(loop, -1);
	assert_int_equal(seen_events, LOOP_ERROR);
	loop_lock(loop);
	loop_fd_free(a);
	loop_unlock(loop);
	close(p[0]);

	int fd = open("/proc/self/exe", O_RDONLY);
	loop_lock(loop);
	a = loop_fd_new(loop, fd, LOOP_READ, see, NULL, NULL);
	loop_unlock(loop);
	assert_non_null(a);
	seen_events = 0;
	loop_run_once(loop, -1);
	assert_int_equal(seen_events, LOOP_READ);
	loop_lock(loop);
	loop_fd_free(a);
	loop_unlock(loop);
	close(fd);
}

static void *quit_later(void *opaque)
{
	usleep(5000);
	loop_quit(loop);
	return NULL;
}

static void quit_from_another_thread_ends_the_run(void **state)
{
	pthread_t t;
	assert_int_equal(pthread_create(&t, NULL, quit_later, NULL), 0);
	loop_run(loop);
	pthread_join(t, NULL);
}

static bool hog_stop;

static void *hog(void *opaque)
{
	while (!__atomic_load_n(&hog_stop, __ATOMIC_RELAXED)) {
		loop_lock(loop);
		for (volatile int i = 0; i < 2000; i++)
			;
		loop_unlock(loop);
	}
	return NULL;
}

static double seconds(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void a_thread_that_locks_all_the_time_does_not_starve_the_loop(void **state)
{
	pthread_t t;
	hog_stop = false;
	assert_int_equal(pthread_create(&t, NULL, hog, NULL), 0);
	double start = seconds();
	for (int i = 0; i < 200; i++) {
		loop_wake(loop);
		loop_run_once(loop, -1);
	}
	double took = seconds() - start;
	__atomic_store_n(&hog_stop, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	/* 200 turns take the lock 400 times; each is behind one hold of a few microseconds (and
	 * perhaps a time slice of a busy host). */
	assert_true(took < 60.0);
}

static struct clock *clk;
static int fired;
static uint64_t fired_at;

static void fire(void *opaque)
{
	fired++;
	fired_at = clock_now(clk);
}

static void *set_from_other_thread(void *opaque)
{
	usleep(2000);
	loop_lock(loop);
	timer_set(opaque, clock_now(clk) + 100000);
	loop_unlock(loop);
	return NULL;
}

static void timers_fire_in_order_and_wake_the_loop(void **state)
{
	clk = clock_new(loop);
	struct timer a, b;
	timer_init(&a, clk, note, "a");
	timer_init(&b, clk, note, "b");
	order[0] = 0;
	loop_lock(loop);
	timer_set(&a, 2000000);
	timer_set(&b, 1000000);
	loop_unlock(loop);
	/* a stopped clock fires nothing */
	loop_run_once(loop, 3000000);
	assert_string_equal(order, "");
	assert_int_equal(clock_now(clk), 0);
	loop_lock(loop);
	clock_start(clk);
	loop_unlock(loop);
	while (strlen(order) < 2)
		loop_run_once(loop, -1);
	assert_string_equal(order, "ba");
	assert_false(a.pending);

	/* the loop sleeps without a deadline; a timer from another thread must wake it */
	struct timer c;
	timer_init(&c, clk, fire, NULL);
	fired = 0;
	pthread_t t;
	assert_int_equal(pthread_create(&t, NULL, set_from_other_thread, &c), 0);
	while (!fired)
		loop_run_once(loop, -1);
	pthread_join(t, NULL);
	assert_true(fired_at >= c.deadline_ns);

	loop_lock(loop);
	timer_set(&c, clock_now(clk));
	timer_cancel(&c);
	clock_stop(clk);
	uint64_t frozen = clock_now(clk);
	loop_unlock(loop);
	usleep(1000);
	assert_int_equal(clock_now(clk), frozen);
	loop_run_once(loop, 0);
	assert_int_equal(fired, 1);
	clock_free(clk);
}

static void ticks_convert_exactly(void **state)
{
	assert_int_equal(ns_to_ticks(NS_PER_SEC, 1193182), 1193182);
	assert_int_equal(ticks_to_ns(1193182, 1193182), NS_PER_SEC);
	static const uint32_t hz[] = {1, 18, 32768, 1193182, 3579545, 1000000000, 4294967295u};
	uint64_t x = 88172645463325252u;
	for (int i = 0; i < 100000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		uint32_t f = hz[i % 7];
		uint64_t ns = x >> (i % 40);
		unsigned __int128 wide = (unsigned __int128)ns * f / NS_PER_SEC;
		if (wide > UINT64_MAX)
			continue;
		uint64_t ticks = ns_to_ticks(ns, f);
		assert_true(ticks == (uint64_t)wide);
		/* the first ns that counts `ticks` is not later than this one, and the ns before it
		 * counts fewer */
		uint64_t first = ticks_to_ns(ticks, f);
		assert_true(first <= ns);
		assert_true(ns_to_ticks(first, f) == ticks);
		if (first && ticks)
			assert_true(ns_to_ticks(first - 1, f) < ticks);
	}
	assert_true(ticks_to_ns(UINT64_MAX, 1) == UINT64_MAX);
	assert_true(ticks_to_ns(5, 0) == UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(calls_run_in_order_with_the_lock_held, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_call_that_reschedules_itself_runs_once_a_turn,
						setup, teardown),
		cmocka_unit_test_setup_teardown(fds_can_be_freed_inside_callbacks, setup, teardown),
		cmocka_unit_test_setup_teardown(
			hangup_is_an_error_and_regular_files_are_always_ready, setup, teardown),
		cmocka_unit_test_setup_teardown(quit_from_another_thread_ends_the_run, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			a_thread_that_locks_all_the_time_does_not_starve_the_loop, setup, teardown),
		cmocka_unit_test_setup_teardown(timers_fire_in_order_and_wake_the_loop, setup,
						teardown),
		cmocka_unit_test(ticks_convert_exactly),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
