/* SPDX-License-Identifier: MIT */
/*
 * Keys typed by commands (keys.h): presses and releases are queued as steps, and a timer does one
 * after the other with the waits between them.
 */
#include "vmm/keys.h"
#include "lib/clock.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>

/* A harness that types a file should not need to count; one that never stops is stopped. */
enum { STEPS_MAX = 4096 };

struct step {
	uint8_t key;
	bool down;
	unsigned wait_ms; /* after it */
};

struct key_typist {
	struct input *input;
	struct timer timer; /* pending while a step has yet to be done or waited for */
	struct step steps[STEPS_MAX];
	size_t first, count;
};

/* Does one step and waits as long as it says. */
static void next_step(void *opaque)
{
	struct key_typist *t = opaque;
	if (!t->count)
		return;
	struct step s = t->steps[t->first];
	t->first = (t->first + 1) % STEPS_MAX;
	t->count--;
	input_key(t->input, s.key, s.down);
	timer_set(&t->timer, clock_now(t->timer.clock) + s.wait_ms * (NS_PER_SEC / 1000));
}

struct key_typist *key_typist_new(struct clock *clock, struct input *input)
{
	struct key_typist *t = xcalloc(1, sizeof(*t));
	t->input = input;
	timer_init(&t->timer, clock, next_step, t);
	return t;
}

void key_typist_free(struct key_typist *t)
{
	if (!t)
		return;
	timer_cancel(&t->timer);
	free(t);
}

static void add(struct key_typist *t, uint8_t key, bool down, unsigned wait_ms)
{
	t->steps[(t->first + t->count++) % STEPS_MAX] = (struct step){key, down, wait_ms};
}

int key_typist_type(struct key_typist *t, const uint8_t *keys, size_t count, unsigned hold_ms,
		    struct error *err)
{
	if (count > KEYS_AT_ONCE)
		return error_set(err, EINVAL, "too many keys at once; at most %d", KEYS_AT_ONCE);
	if (t->count + 2 * count > STEPS_MAX)
		return error_set(err, EBUSY,
				 "too many keys are still to be typed; wait, or use a shorter "
				 "hold time");
	for (size_t n = 0; n < count; n++)
		add(t, keys[n], true, hold_ms);
	for (size_t n = count; n-- > 0;)
		add(t, keys[n], false, hold_ms);
	if (!t->timer.pending)
		timer_set(&t->timer, clock_now(t->timer.clock));
	return 0;
}
