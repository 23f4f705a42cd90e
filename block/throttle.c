/* SPDX-License-Identifier: MIT */
/*
 * Throttling (throttle.h) with leaky buckets, behaving as QEMU's docs/throttle.txt describes.
 *
 * Each limit has a bucket. A request pours its bytes, or its operations, into the buckets that
 * count it; they leak at the rate of `avg`. A request may go as long as none of its buckets is over
 * its rim, so one request may overfill a bucket, and the next one then waits until it has leaked
 * down to the rim:
 *
 *   without max:  rim = avg / 10             (a tenth of a second's worth at once)
 *   with max:     rim = max * length         (a burst of `length` seconds at the rate of max)
 *   length > 1:   a second bucket leaks at `max` with the rim max / 10, so that not the whole burst
 *                 comes in its first instant.
 *
 * What has to wait stands in a queue a direction, first come first served among all drives of the
 * group, and a thread of the group, started when first needed, lets it go.
 */
#include "block/throttle.h"
#include "lib/bytes.h"
#include "lib/clock.h"
#include "lib/text.h"
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What QEMU takes at most: the arithmetic below stays exact enough in a double. */
#define VALUE_MAX UINT64_C(1000000000000000)

struct bucket {
	double level, burst_level;
};

struct waiting {
	struct throttle_item *first, **last;
};

struct throttle_group {
	struct throttle_group *next; /* of all_groups */
	char *name;
	unsigned users;

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t wake;
	struct throttle_limits limits;
	bool enabled;
	struct bucket bucket[THROTTLE_BUCKETS];
	uint64_t leaked_at; /* ns, CLOCK_MONOTONIC */
	struct waiting waiting[2];
	pthread_t thread;
	bool thread_runs, quit;
};

static pthread_mutex_t groups_lock = PTHREAD_MUTEX_INITIALIZER;
static struct throttle_group *all_groups;

static const enum throttle_bucket buckets_of[2][4] = {
	{THROTTLE_BPS_TOTAL, THROTTLE_OPS_TOTAL, THROTTLE_BPS_READ, THROTTLE_OPS_READ},
	{THROTTLE_BPS_TOTAL, THROTTLE_OPS_TOTAL, THROTTLE_BPS_WRITE, THROTTLE_OPS_WRITE},
};

static bool counts_operations(enum throttle_bucket b)
{
	return b >= THROTTLE_OPS_TOTAL;
}

bool throttle_enabled(const struct throttle_limits *limits)
{
	for (int i = 0; i < THROTTLE_BUCKETS; i++)
		if (limits->bucket[i].avg)
			return true;
	return false;
}

int throttle_check(const struct throttle_limits *limits, struct error *err)
{
	static const char *const names[THROTTLE_BUCKETS] = {"bps",  "bps_rd",  "bps_wr",
							    "iops", "iops_rd", "iops_wr"};
	const struct throttle_limit *b = limits->bucket;
	static const int totals[2] = {THROTTLE_BPS_TOTAL, THROTTLE_OPS_TOTAL};
	for (int i = 0; i < 2; i++) {
		const struct throttle_limit *t = &b[totals[i]];
		if ((t->avg && (t[1].avg || t[2].avg)) || (t->max && (t[1].max || t[2].max)))
			return error_set(
				err, EINVAL, "%s and %s or %s cannot be limited at the same time",
				names[totals[i]], names[totals[i] + 1], names[totals[i] + 2]);
	}
	if (limits->iops_size && !b[THROTTLE_OPS_TOTAL].avg && !b[THROTTLE_OPS_READ].avg &&
	    !b[THROTTLE_OPS_WRITE].avg)
		return error_set(err, EINVAL, "iops-size needs a limit of iops");
	for (int i = 0; i < THROTTLE_BUCKETS; i++) {
		if (b[i].avg > VALUE_MAX || b[i].max > VALUE_MAX || b[i].length > VALUE_MAX ||
		    (b[i].max && b[i].length > VALUE_MAX / b[i].max))
			return error_set(err, EINVAL,
					 "the limits of %s must lie within 0 and %" PRIu64,
					 names[i], VALUE_MAX);
		if (b[i].max && !b[i].avg)
			return error_set(err, EINVAL, "a burst of %s needs its long-term limit too",
					 names[i]);
		if (b[i].max && b[i].max < b[i].avg)
			return error_set(err, EINVAL, "the burst of %s is lower than its limit",
					 names[i]);
		if (b[i].length > 1 && !b[i].max)
			return error_set(err, EINVAL,
					 "the burst length of %s needs the burst's height (max)",
					 names[i]);
	}
	return 0;
}

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

/* ---- Buckets (lock held) ---- */

static void leak(struct throttle_group *g)
{
	uint64_t now = now_ns();
	double seconds = (double)(now - g->leaked_at) / 1e9;
	g->leaked_at = now;
	for (int i = 0; i < THROTTLE_BUCKETS; i++) {
		struct bucket *b = &g->bucket[i];
		const struct throttle_limit *l = &g->limits.bucket[i];
		b->level -= (double)l->avg * seconds;
		b->burst_level -= (double)l->max * seconds;
		if (b->level < 0)
			b->level = 0;
		if (b->burst_level < 0)
			b->burst_level = 0;
	}
}

/* Seconds until the bucket is down to its rim. */
static double bucket_wait(const struct bucket *b, const struct throttle_limit *l)
{
	if (!l->avg)
		return 0;
	uint64_t length = l->length ? l->length : 1;
	double rim = l->max ? (double)l->max * (double)length : (double)l->avg / 10;
	if (b->level > rim)
		return (b->level - rim) / (double)l->avg;
	if (l->max && length > 1 && b->burst_level > (double)l->max / 10)
		return (b->burst_level - (double)l->max / 10) / (double)l->max;
	return 0;
}

static double wait_of(const struct throttle_group *g, bool write)
{
	double wait = 0;
	for (int i = 0; i < 4; i++) {
		enum throttle_bucket n = buckets_of[write][i];
		double w = bucket_wait(&g->bucket[n], &g->limits.bucket[n]);
		if (w > wait)
			wait = w;
	}
	return wait;
}

static void pour(struct throttle_group *g, const struct throttle_item *item)
{
	double ops = 1;
	if (g->limits.iops_size && item->bytes > g->limits.iops_size)
		ops = (double)item->bytes / (double)g->limits.iops_size;
	for (int i = 0; i < 4; i++) {
		enum throttle_bucket n = buckets_of[item->write][i];
		double units = counts_operations(n) ? ops : (double)item->bytes;
		g->bucket[n].level += units;
		g->bucket[n].burst_level += units;
	}
}

/* ---- The group's thread ---- */

static void append(struct waiting *w, struct throttle_item *item)
{
	item->next = NULL;
	*w->last = item;
	w->last = &item->next;
}

static struct throttle_item *take_first(struct waiting *w)
{
	struct throttle_item *item = w->first;
	w->first = item->next;
	if (!w->first)
		w->last = &w->first;
	return item;
}

/* Moves what may go now to `ready`; seconds until something else may, or -1 if nothing waits. */
static double collect(struct throttle_group *g, struct waiting *ready)
{
	double next = -1;
	leak(g);
	for (int write = 0; write < 2; write++) {
		struct waiting *w = &g->waiting[write];
		while (w->first) {
			double wait = g->enabled ? wait_of(g, write) : 0;
			if (wait > 0) {
				if (next < 0 || wait < next)
					next = wait;
				break;
			}
			struct throttle_item *item = take_first(w);
			pour(g, item);
			append(ready, item);
		}
	}
	return next;
}

static void run_all(struct throttle_item *item)
{
	while (item) {
		struct throttle_item *next = item->next;
		item->go(item);
		item = next;
	}
}

static void *group_thread(void *arg)
{
	struct throttle_group *g = arg;
	pthread_mutex_lock(&g->lock);
	while (!g->quit) {
		struct waiting ready = {.last = &ready.first};
		double wait = collect(g, &ready);
		if (ready.first) {
			pthread_mutex_unlock(&g->lock);
			run_all(ready.first);
			pthread_mutex_lock(&g->lock);
		} else if (wait < 0) {
			pthread_cond_wait(&g->wake, &g->lock);
		} else {
			/* An hour at most: the limits may change, which wakes anyway. */
			uint64_t until = now_ns() + (wait > 3600 ? 3600 * NS_PER_SEC
								 : (uint64_t)(wait * 1e9) + 1);
			struct timespec t = {.tv_sec = (time_t)(until / NS_PER_SEC),
					     .tv_nsec = (long)(until % NS_PER_SEC)};
			pthread_cond_timedwait(&g->wake, &g->lock, &t);
		}
	}
	pthread_mutex_unlock(&g->lock);
	return NULL;
}

/* Signals are for the main thread. Lock held. */
static bool have_thread(struct throttle_group *g)
{
	if (g->thread_runs)
		return true;
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	g->thread_runs = pthread_create(&g->thread, NULL, group_thread, g) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return g->thread_runs;
}

void throttle_submit(struct throttle_group *g, struct throttle_item *item)
{
	pthread_mutex_lock(&g->lock);
	bool now = !g->enabled && !g->waiting[item->write].first;
	if (!now && !g->waiting[item->write].first) {
		leak(g);
		now = wait_of(g, item->write) <= 0;
		if (now)
			pour(g, item);
	}
	if (!now && have_thread(g)) {
		append(&g->waiting[item->write], item);
		pthread_cond_signal(&g->wake);
	} else {
		now = true; /* without a thread it would wait for ever */
	}
	pthread_mutex_unlock(&g->lock);
	if (now)
		item->go(item);
}

void throttle_release(struct throttle_group *g, const void *owner)
{
	struct waiting ready = {.last = &ready.first};
	pthread_mutex_lock(&g->lock);
	for (int write = 0; write < 2; write++) {
		struct waiting kept = {.last = &kept.first}, *w = &g->waiting[write];
		while (w->first) {
			struct throttle_item *item = take_first(w);
			append(item->owner == owner ? &ready : &kept, item);
		}
		if (kept.first) {
			w->first = kept.first;
			w->last = kept.last;
		}
	}
	pthread_mutex_unlock(&g->lock);
	run_all(ready.first);
}

void throttle_set(struct throttle_group *g, const struct throttle_limits *limits)
{
	pthread_mutex_lock(&g->lock);
	g->limits = *limits;
	g->enabled = throttle_enabled(limits);
	memset(g->bucket, 0, sizeof(g->bucket));
	g->leaked_at = now_ns();
	pthread_cond_signal(&g->wake);
	pthread_mutex_unlock(&g->lock);
}

void throttle_get(struct throttle_group *g, struct throttle_limits *limits)
{
	pthread_mutex_lock(&g->lock);
	*limits = g->limits;
	pthread_mutex_unlock(&g->lock);
}

const char *throttle_group_name(const struct throttle_group *g)
{
	return g->name;
}

struct throttle_group *throttle_group_get(const char *name)
{
	struct throttle_group *g;
	pthread_mutex_lock(&groups_lock);
	for (g = all_groups; g && strcmp(g->name, name); g = g->next)
		;
	if (!g) {
		pthread_condattr_t attr;
		g = xcalloc(1, sizeof(*g));
		g->name = xstrdup(name);
		pthread_mutex_init(&g->lock, NULL);
		pthread_condattr_init(&attr);
		pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
		pthread_cond_init(&g->wake, &attr);
		pthread_condattr_destroy(&attr);
		for (int i = 0; i < 2; i++)
			g->waiting[i].last = &g->waiting[i].first;
		g->leaked_at = now_ns();
		g->next = all_groups;
		all_groups = g;
	}
	g->users++;
	pthread_mutex_unlock(&groups_lock);
	return g;
}

void throttle_group_put(struct throttle_group *g)
{
	if (!g)
		return;
	pthread_mutex_lock(&groups_lock);
	bool last = --g->users == 0;
	if (last) {
		struct throttle_group **p = &all_groups;
		while (*p != g)
			p = &(*p)->next;
		*p = g->next;
	}
	pthread_mutex_unlock(&groups_lock);
	if (!last)
		return;
	pthread_mutex_lock(&g->lock);
	g->quit = true;
	pthread_cond_signal(&g->wake);
	pthread_mutex_unlock(&g->lock);
	if (g->thread_runs)
		pthread_join(g->thread, NULL);
	pthread_cond_destroy(&g->wake);
	pthread_mutex_destroy(&g->lock);
	free(g->name);
	free(g);
}
