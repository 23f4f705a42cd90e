/* SPDX-License-Identifier: MIT */
/* The NBD client with many requests in flight, and with servers that go and come. */
#include "tests/unit/block/nbd_words.h"

enum { THREADS = 16, ROUNDS = 50 };

/* Waits for a request of every thread, then answers them in the wrong order and piece by piece. */
static void *reversing_server(void *opaque)
{
	int fd = serve_handshake(THREADS * 4096);
	struct heard h[THREADS];
	for (int round = 0; round < ROUNDS; round++) {
		struct strbuf sb = STRBUF_INIT;
		for (int i = 0; i < THREADS; i++) {
			if (!hear(fd, &h[i]) || h[i].len != 4096) {
				close(fd);
				return "a request was wrong";
			}
		}
		for (int half = 1; half >= 0; half--)
			for (int i = THREADS - 1; i >= 0; i--)
				data_chunk(&sb, half == 0, h[i].cookie,
					   h[i].offset + (half ? 2048 : 0), 2048,
					   (uint8_t)(h[i].offset / 4096 + (unsigned)round));
		int rc = write_full(fd, strbuf_str(&sb), sb.len);
		strbuf_free(&sb);
		if (rc)
			return "the client is gone";
	}
	close(fd);
	return NULL;
}

static struct nbd_client *shared;
static unsigned turns[ROUNDS];

/* Reads its own page, in every round once. */
static void *reader(void *opaque)
{
	uint64_t page = (uintptr_t)opaque;
	uint8_t buf[4096];
	for (int round = 0; round < ROUNDS; round++) {
		struct iovec iov = {buf, sizeof(buf)};
		/* The server wants a request of each before it answers any. */
		if (nbd_client_read(shared, &iov, 1, page * 4096))
			return "a read failed";
		for (int i = 0; i < 4096; i++)
			if (buf[i] != (uint8_t)(page + (unsigned)round))
				return "a read returned another's data";
		__atomic_add_fetch(&turns[round], 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static struct nbd_client *connect_here(unsigned reconnect_delay)
{
	struct error err = ERROR_INIT;
	struct nbd_config config = {.socket = xstrdup("sock"),
				    .export = xstrdup("disk"),
				    .reconnect_delay = reconnect_delay};
	struct nbd_client *c = nbd_client_open(&config, &err);
	if (!c)
		fail_msg("%s", err.text);
	return c;
}

static void many_requests_are_in_flight_and_answered_in_any_order(void **state)
{
	pthread_t server, threads[THREADS];
	void *said;
	listen_at("sock");
	pthread_create(&server, NULL, reversing_server, NULL);
	shared = connect_here(0);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, reader, (void *)i);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &said);
		if (said)
			fail_msg("%s", (char *)said);
	}
	pthread_join(server, &said);
	if (said)
		fail_msg("%s", (char *)said);
	for (int round = 0; round < ROUNDS; round++)
		assert_int_equal(turns[round], THREADS);
	nbd_client_close(shared);
	close(listener);
}

enum { WRITES = 200 };

static uint8_t disk[THREADS * 4096];

/* Takes writes, forgets to answer the seventh of each connection and hangs up. */
static void *dying_server(void *opaque)
{
	for (;;) {
		int fd = serve_handshake(sizeof(disk));
		if (fd < 0)
			return NULL;
		struct heard h;
		for (int n = 0; n < 7 && hear(fd, &h); n++) {
			struct strbuf sb = STRBUF_INIT;
			if (h.type != NBD_CMD_WRITE || !range_in(h.offset, h.len, sizeof(disk)) ||
			    !read_bytes(fd, disk + h.offset, h.len))
				break;
			if (n == 6)
				break;
			chunk(&sb, true, NBD_REPLY_TYPE_NONE, h.cookie, 0);
			write_full(fd, strbuf_str(&sb), sb.len);
			strbuf_free(&sb);
		}
		close(fd);
	}
}

static void *writer(void *opaque)
{
	uint64_t page = (uintptr_t)opaque;
	uint8_t buf[4096];
	for (int n = 0; n < WRITES / THREADS; n++) {
		struct iovec iov = {buf, sizeof(buf)};
		memset(buf, (int)(page * 16) + n, sizeof(buf));
		if (nbd_client_write(shared, &iov, 1, page * 4096, 0))
			return "a write failed";
		if (memcmp(disk + page * 4096, buf, sizeof(buf)))
			return "a write was answered but not done";
	}
	return NULL;
}

static void requests_are_sent_again_after_a_reconnect(void **state)
{
	pthread_t server, threads[THREADS];
	void *said;
	listen_at("sock");
	pthread_create(&server, NULL, dying_server, NULL);
	shared = connect_here(1000);
	for (uintptr_t i = 0; i < THREADS / 4; i++)
		pthread_create(&threads[i], NULL, writer, (void *)i);
	for (int i = 0; i < THREADS / 4; i++) {
		pthread_join(threads[i], &said);
		if (said)
			fail_msg("%s", (char *)said);
	}
	nbd_client_close(shared);
	shutdown(listener, SHUT_RDWR);
	pthread_join(server, NULL);
	close(listener);
}

/* Hangs up on the first client's request; to the second it offers a longer export. */
static void *growing_server(void *opaque)
{
	struct heard h;
	for (uint64_t size = SIZE;; size += 512) {
		int fd = serve_handshake(size);
		if (fd < 0)
			return NULL;
		hear(fd, &h);
		close(fd);
	}
}

static void an_export_of_another_size_is_not_used(void **state)
{
	pthread_t server;
	listen_at("sock");
	pthread_create(&server, NULL, growing_server, NULL);
	shared = connect_here(1);
	assert_int_equal(nbd_client_command(shared, NBD_CMD_FLUSH, 0, 0, 0), -EIO);
	assert_int_equal(nbd_client_export(shared)->size, SIZE);
	nbd_client_close(shared);
	shutdown(listener, SHUT_RDWR);
	pthread_join(server, NULL);
	close(listener);
}

static void a_server_that_appears_late_is_waited_for(void **state)
{
	pthread_t server;
	struct error err = ERROR_INIT;
	struct nbd_config config = {
		.socket = xstrdup("late"), .export = xstrdup("disk"), .open_timeout = 1};
	assert_null(nbd_client_open(&config, &err));
	assert_int_equal(err.code, ENOENT);
	/* The name is there already, but whoever connects is refused until there is a listener. */
	listen_at("sock");
	rename("sock", "hidden");
	assert_int_equal(shell("(sleep 0.2; mv hidden late) &"), 0);
	pthread_create(&server, NULL, growing_server, NULL);
	config = (struct nbd_config){
		.socket = xstrdup("late"), .export = xstrdup("disk"), .open_timeout = 600};
	struct nbd_client *c = nbd_client_open(&config, &err);
	assert_non_null(c);
	nbd_client_close(c);
	shutdown(listener, SHUT_RDWR);
	pthread_join(server, NULL);
	close(listener);
}

/* ---- Servers that die in the middle of payloads ---- */

enum { BIG = 256 * 1024, BIGS = 16, WAITERS = 4, DEATHS = 12 };

static uint8_t big_disk[(BIGS + WAITERS) * BIG];

/* The first connections end after some bytes, whatever they are; then all is done as it should be. */
static void *breaking_server(void *opaque)
{
	uint8_t *buf = malloc(BIG);
	for (unsigned n = 0;; n++) {
		struct heard h;
		int fd = serve_handshake(sizeof(big_disk));
		if (fd < 0)
			break;
		for (size_t left = n * 100003; n < DEATHS && left;) {
			size_t part = left < BIG ? left : BIG;
			if (!read_bytes(fd, buf, part))
				break;
			left -= part;
		}
		while (n >= DEATHS && hear(fd, &h)) {
			struct strbuf sb = STRBUF_INIT;
			if (h.type != NBD_CMD_WRITE ||
			    !range_in(h.offset, h.len, sizeof(big_disk)) ||
			    !read_bytes(fd, big_disk + h.offset, h.len))
				break;
			chunk(&sb, true, NBD_REPLY_TYPE_NONE, h.cookie, 0);
			write_full(fd, strbuf_str(&sb), sb.len);
			strbuf_free(&sb);
		}
		close(fd);
	}
	free(buf);
	return NULL;
}

struct big {
	struct nbd_request req;
	struct iovec iov;
	uint8_t data[BIG];
};

static struct big bigs[BIGS + WAITERS];
static unsigned bigs_done, bigs_failed; /* atomic */

static void big_done(struct nbd_request *req, int result)
{
	if (result)
		__atomic_add_fetch(&bigs_failed, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&bigs_done, 1, __ATOMIC_RELEASE);
}

/* One of those who wait for their replies meanwhile. */
static void *big_writer(void *opaque)
{
	struct big *b = opaque;
	big_done(NULL, nbd_client_write(shared, &b->iov, 1, (uint64_t)(b - bigs) * BIG, 0));
	return NULL;
}

static void payloads_that_broke_off_are_sent_whole(void **state)
{
	pthread_t server, threads[WAITERS];
	listen_at("sock");
	pthread_create(&server, NULL, breaking_server, NULL);
	shared = connect_here(1000);
	for (unsigned i = 0; i < BIGS + WAITERS; i++) {
		struct big *b = &bigs[i];
		fill(b->data, BIG);
		b->iov = (struct iovec){b->data, BIG};
		b->req = (struct nbd_request){.type = NBD_CMD_WRITE,
					      .offset = (uint64_t)i * BIG,
					      .len = BIG,
					      .iov = &b->iov,
					      .iovcnt = 1,
					      .done = big_done};
		if (i >= BIGS)
			pthread_create(&threads[i - BIGS], NULL, big_writer, b);
		else
			assert_true(nbd_client_submit(shared, &b->req));
	}
	for (unsigned i = 0; i < WAITERS; i++)
		pthread_join(threads[i], NULL);
	while (__atomic_load_n(&bigs_done, __ATOMIC_ACQUIRE) < BIGS + WAITERS)
		usleep(1000);
	assert_int_equal(bigs_failed, 0);
	for (unsigned i = 0; i < BIGS + WAITERS; i++)
		assert_memory_equal(bigs[i].data, big_disk + (size_t)i * BIG, BIG);
	nbd_client_close(shared);
	shutdown(listener, SHUT_RDWR);
	pthread_join(server, NULL);
	close(listener);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_requests_are_in_flight_and_answered_in_any_order),
		cmocka_unit_test(requests_are_sent_again_after_a_reconnect),
		cmocka_unit_test(payloads_that_broke_off_are_sent_whole),
		cmocka_unit_test(an_export_of_another_size_is_not_used),
		cmocka_unit_test(a_server_that_appears_late_is_waited_for),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, enter_scratch, leave_scratch);
}
