/* SPDX-License-Identifier: MIT */
/* virtio-rng: sources that run dry or end, limits, resets while a buffer waits. */
#include "devices/virtio_rng.h"
#include "manual_clock.h"
#include "virtio_rig.h"
#include <string.h>

enum { BUFFERS = DRV_DATA, UNTOUCHED = 0xEE, PIPE_BYTES = 200, MS = 1000000, MOST = 65536 };

struct fixture {
	struct rig *r;
	struct drv d;
	struct virtio_rng *rng;
	int pipe; /* where its bytes come from; -1: the kernel */
	uint8_t next;
};

static struct fixture *start_with(bool from_pipe, uint64_t max_bytes, uint32_t period_ms)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct error err = ERROR_INIT;
	int fds[2] = {-1, -1};

	f->r = rig_new(true);
	drv_init(&f->d, f->r);
	if (from_pipe)
		assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
	f->pipe = fds[1];
	struct virtio_rng_config config = {
		.fd = fds[0], .max_bytes = max_bytes, .period_ms = period_ms};
	struct virtio_pci_config pci = {.name = "rng", .devfn = -1, .vectors = 2};
	f->rng = virtio_rng_new(&f->r->env, f->r->pci, &pci, &config, &err);
	assert_non_null(f->rng);
	return f;
}

static void drive(struct fixture *f, bool modern)
{
	struct virtio *v = container_of(virtio_rng_pci(f->rng), struct virtio, pci);
	drv_start(&f->d, v, modern, VIRTIO_F_RING_RESET | VIRTIO_F_INDIRECT_DESC, 1);
}

static struct fixture *start(bool from_pipe)
{
	struct fixture *f = start_with(from_pipe, 0, 1000);
	drive(f, true);
	return f;
}

static void stop(struct fixture *f)
{
	virtio_rng_free(f->rng);
	if (f->pipe >= 0)
		close(f->pipe);
	rig_free(f->r);
	free(f);
}

/* Puts bytes that count up into the pipe. */
static void feed(struct fixture *f, size_t len)
{
	uint8_t bytes[PIPE_BYTES];

	assert_true(len <= sizeof(bytes));
	for (size_t n = 0; n < len; n++)
		bytes[n] = f->next++;
	assert_int_equal(write(f->pipe, bytes, len), len);
}

/* A buffer at this place of the guest's memory. */
static void ask(struct fixture *f, uint64_t at, uint32_t len)
{
	uint8_t *buf = xmalloc(len + 1);

	memset(buf, UNTOUCHED, len + 1);
	put(&f->d, at, buf, len + 1);
	free(buf);
	drv_add(&f->d, 0, &(struct piece){at, len, true}, 1);
	drv_kick(&f->d, 0);
}

static uint32_t wait_for(struct fixture *f)
{
	uint32_t len;
	drv_wait(&f->d, 0, 1, NULL, &len);
	return len;
}

/* The `len` bytes count up from `first`, and nothing was written behind them. */
static void assert_bytes(struct fixture *f, uint64_t at, uint8_t first, uint32_t len)
{
	uint8_t bytes[PIPE_BYTES + 1];

	get(&f->d, at, bytes, len + 1);
	for (uint32_t n = 0; n < len; n++)
		assert_int_equal(bytes[n], (uint8_t)(first + n));
	assert_int_equal(bytes[len], UNTOUCHED);
}

static void buffers_are_filled_with_random_bytes(void **state)
{
	for (int modern = 0; modern < 2; modern++) {
		struct fixture *f = start_with(false, 0, 1000);
		enum { SIZE = 10000 };
		static uint8_t bytes[2][SIZE + 1];
		unsigned ones = 0;

		drive(f, modern);
		for (unsigned n = 0; n < 2; n++) {
			ask(f, BUFFERS, SIZE);
			assert_int_equal(wait_for(f), SIZE);
			get(&f->d, BUFFERS, bytes[n], SIZE + 1);
			assert_int_equal(bytes[n][SIZE], UNTOUCHED);
		}
		assert_int_equal(drv_isr(&f->d), 1);
		/* Not the same, and about half of the bits are set: 40,000, give or take 1,000. */
		assert_memory_not_equal(bytes[0], bytes[1], SIZE);
		for (unsigned n = 0; n < SIZE; n++)
			ones += (unsigned)__builtin_popcount(bytes[0][n]);
		assert_in_range(ones, SIZE * 4 - 1000, SIZE * 4 + 1000);
		stop(f);
	}
}

static void buffers_may_be_cut_anywhere(void **state)
{
	struct fixture *f = start(true);
	uint8_t bytes[16];
	struct piece p[] = {{BUFFERS, 1, true}, {BUFFERS + 4, 0, true}, {BUFFERS + 8, 3, true}};

	memset(bytes, UNTOUCHED, sizeof(bytes));
	put(&f->d, BUFFERS, bytes, sizeof(bytes));
	feed(f, 4);
	drv_add_indirect(&f->d, 0, BUFFERS + 0x1000, p, 3);
	drv_kick(&f->d, 0);
	assert_int_equal(wait_for(f), 4);
	get(&f->d, BUFFERS, bytes, sizeof(bytes));
	assert_int_equal(bytes[0], 0);
	assert_int_equal(bytes[1], UNTOUCHED);
	assert_int_equal(bytes[7], UNTOUCHED);
	assert_memory_equal(bytes + 8, ((uint8_t[]){1, 2, 3, UNTOUCHED}), 4);
	stop(f);
}

/* Fewer bytes than it holds are allowed, so that no buffer keeps the loop for long. */
static void huge_buffers_get_a_part(void **state)
{
	struct fixture *f = start(false);

	ask(f, BUFFERS, 2 * MOST);
	assert_int_equal(wait_for(f), MOST);
	uint8_t behind;
	get(&f->d, BUFFERS + MOST, &behind, 1);
	assert_int_equal(behind, UNTOUCHED);
	stop(f);
}

static void buffers_without_room_come_back(void **state)
{
	struct fixture *f = start(true); /* which has nothing */
	uint32_t len;

	drv_add(&f->d, 0, &(struct piece){BUFFERS, 100, false}, 1);
	drv_add(&f->d, 0, &(struct piece){BUFFERS, 0, true}, 1);
	drv_kick(&f->d, 0);
	drv_wait(&f->d, 0, 2, NULL, &len);
	assert_int_equal(len, 0);
	stop(f);
}

static void a_buffer_waits_for_the_source(void **state)
{
	struct fixture *f = start(true);

	ask(f, BUFFERS, 50);
	ask(f, BUFFERS + 0x1000, 50);
	drv_idle(&f->d);
	assert_int_equal(drv_returned(&f->d, 0), 0);
	feed(f, 10);
	assert_int_equal(wait_for(f), 10); /* what there is */
	assert_bytes(f, BUFFERS, 0, 10);
	drv_idle(&f->d);
	assert_int_equal(drv_returned(&f->d, 0), 0);
	feed(f, 60);
	assert_int_equal(wait_for(f), 50);
	assert_bytes(f, BUFFERS + 0x1000, 10, 50);
	/* The rest is for the next one. */
	ask(f, BUFFERS, 50);
	assert_int_equal(wait_for(f), 10);
	assert_bytes(f, BUFFERS, 60, 10);
	stop(f);
}

static void a_source_may_end(void **state)
{
	struct fixture *f = start(true);

	feed(f, 5);
	close(f->pipe);
	f->pipe = -1;
	ask(f, BUFFERS, 50);
	assert_int_equal(wait_for(f), 5);
	ask(f, BUFFERS, 50);
	drv_kick(&f->d, 0);
	drv_idle(&f->d);
	assert_int_equal(drv_returned(&f->d, 0), 0);
	assert_bytes(f, BUFFERS, 0, 0);
	assert_int_equal(drv_status(&f->d), 15);
	drv_set_status(&f->d, 0);
	assert_int_equal(drv_status(&f->d), 0);
	stop(f);
}

/* While a buffer waits for bytes the source may end, too. */
static void a_source_may_end_while_a_buffer_waits(void **state)
{
	struct fixture *f = start(true);

	ask(f, BUFFERS, 50);
	drv_idle(&f->d);
	close(f->pipe);
	f->pipe = -1;
	drv_idle(&f->d);
	drv_idle(&f->d);
	assert_int_equal(drv_returned(&f->d, 0), 0);
	assert_bytes(f, BUFFERS, 0, 0);
	stop(f);
}

static void the_limit_holds_in_each_period(void **state)
{
	struct fixture *f = start_with(true, 100, 1000);

	drive(f, true);
	feed(f, 200);
	ask(f, BUFFERS, 64);
	assert_int_equal(wait_for(f), 64);
	assert_bytes(f, BUFFERS, 0, 64);
	ask(f, BUFFERS, 64);
	assert_int_equal(wait_for(f), 36);
	assert_bytes(f, BUFFERS, 64, 36);
	ask(f, BUFFERS, 64);
	drv_idle(&f->d);
	assert_int_equal(drv_returned(&f->d, 0), 0);
	advance(f->r->env.clock, UINT64_C(999) * MS);
	drv_kick(&f->d, 0);
	drv_idle(&f->d);
	assert_int_equal(drv_returned(&f->d, 0), 0);
	assert_bytes(f, BUFFERS, 0, 0);
	advance(f->r->env.clock, UINT64_C(1) * MS);
	assert_int_equal(wait_for(f), 64);
	assert_bytes(f, BUFFERS, 100, 64);
	/* What was not used is not saved up, however long nobody asks. */
	advance(f->r->env.clock, UINT64_C(50000) * MS);
	f->next = 200;
	feed(f, 100);
	ask(f, BUFFERS, 36);
	assert_int_equal(wait_for(f), 36);
	ask(f, BUFFERS, 80);
	assert_int_equal(wait_for(f), 64);
	ask(f, BUFFERS, 80);
	drv_idle(&f->d);
	assert_int_equal(drv_returned(&f->d, 0), 0);
	stop(f);
}

static void a_reset_begins_a_period_anew(void **state)
{
	struct fixture *f = start_with(false, 10, 1000);

	drive(f, true);
	ask(f, BUFFERS, 10);
	assert_int_equal(wait_for(f), 10);
	ask(f, BUFFERS, 10);
	drv_idle(&f->d);
	assert_int_equal(drv_returned(&f->d, 0), 0);
	drive(f, true);
	ask(f, BUFFERS, 20);
	assert_int_equal(wait_for(f), 10);
	stop(f);
}

/* The buffer that waited belongs to the driver again: nothing is written to it. */
static void resets_forget_the_waiting_buffer(void **state)
{
	enum { CARD, QUEUE, SYSTEM, KINDS };

	for (int kind = 0; kind < KINDS; kind++) {
		struct fixture *f = start(true);
		ask(f, BUFFERS, 50);
		drv_idle(&f->d);
		if (kind == CARD) {
			drv_set_status(&f->d, 0);
		} else if (kind == QUEUE) {
			common_set(&f->d, 22, 2, 0);
			common_set(&f->d, 58, 2, 1);
			assert_int_equal(common(&f->d, 28, 2), 0);
			assert_int_equal(drv_status(&f->d), 15);
		} else {
			state_reset_all(f->r->env.states);
		}
		feed(f, 10);
		drv_idle(&f->d);
		assert_bytes(f, BUFFERS, 0, 0);
		assert_int_equal(get16(&f->d, f->d.q[0].used + 2), 0);
		if (kind == QUEUE)
			drv_queue_setup(&f->d, 0);
		else
			drive(f, true);
		ask(f, BUFFERS, 50);
		assert_int_equal(wait_for(f), 10);
		assert_bytes(f, BUFFERS, 0, 10);
		stop(f);
	}
}

static void state_is_restored(void **state)
{
	struct fixture *f = start(true);
	struct strbuf image = STRBUF_INIT;

	ask(f, BUFFERS, 50);
	drv_idle(&f->d);
	state_save(f->r->env.states, &image);
	state_reset_all(f->r->env.states);
	assert_int_equal(state_load(f->r->env.states, image.data, image.len, NULL), 0);
	strbuf_free(&image);
	feed(f, 20);
	/* The waiting buffer is found without a new notification. */
	advance(f->r->env.clock, 0);
	assert_int_equal(wait_for(f), 20);
	assert_bytes(f, BUFFERS, 0, 20);
	stop(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buffers_are_filled_with_random_bytes),
		cmocka_unit_test(buffers_may_be_cut_anywhere),
		cmocka_unit_test(huge_buffers_get_a_part),
		cmocka_unit_test(buffers_without_room_come_back),
		cmocka_unit_test(a_buffer_waits_for_the_source),
		cmocka_unit_test(a_source_may_end),
		cmocka_unit_test(a_source_may_end_while_a_buffer_waits),
		cmocka_unit_test(the_limit_holds_in_each_period),
		cmocka_unit_test(a_reset_begins_a_period_anew),
		cmocka_unit_test(resets_forget_the_waiting_buffer),
		cmocka_unit_test(state_is_restored),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
