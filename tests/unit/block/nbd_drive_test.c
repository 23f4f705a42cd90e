/* SPDX-License-Identifier: MIT */
/* Disks on NBD servers: block sizes, and drives with many requests in flight. */
#include "block/drive.h"
#include "block/image.h"
#include "lib/loop.h"
#include "lib/optstr.h"
#include "tests/unit/block/nbd_words.h"

enum { MANY = 32, PAGE = 4096 };

static uint8_t disk[MANY * PAGE];

/* ---- Servers ---- */

/* A plain server of `disk` with blocks of 4 KiB that refuses everything else. */
static void *block_server(void *opaque)
{
	struct strbuf sb = STRBUF_INIT;
	uint8_t buf[CLIENT_WORDS];
	struct heard h;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	up_to_go(&sb, true);
	info_export(&sb, sizeof(disk), NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH);
	info_blocks(&sb, 4096, 4096, 8192);
	reply(&sb, NBD_OPT_GO, NBD_REP_ACK, 0);
	write_full(fd, strbuf_str(&sb), sb.len);
	strbuf_free(&sb);
	read_bytes(fd, buf, sizeof(buf));
	while (hear(fd, &h)) {
		bool ok = h.type == NBD_CMD_FLUSH ||
			  (h.offset % 4096 == 0 && h.len % 4096 == 0 && h.len && h.len <= 8192 &&
			   range_in(h.offset, h.len, sizeof(disk)));
		if (ok && h.type == NBD_CMD_WRITE)
			read_bytes(fd, disk + h.offset, h.len);
		if (ok && h.type == NBD_CMD_READ) {
			chunk(&sb, true, NBD_REPLY_TYPE_OFFSET_DATA, h.cookie, 8 + h.len);
			put(&sb, h.offset, 8);
			strbuf_append(&sb, disk + h.offset, h.len);
		} else if (ok) {
			simple_reply(&sb, 0, h.cookie);
		} else {
			chunk(&sb, true, NBD_REPLY_TYPE_ERROR, h.cookie, 6);
			put(&sb, NBD_EINVAL, 4);
			put(&sb, 0, 2);
		}
		write_full(fd, strbuf_str(&sb), sb.len);
		strbuf_free(&sb);
	}
	close(fd);
	return NULL;
}

/* A server of `disk` that answers when so many requests have come, the last first, and hangs up after so
 * many answers of one connection (0: never). */
struct gatherer {
	unsigned gather; /* atomic */
	unsigned answers;
	unsigned most; /* requests that were in flight at once */
};

static bool take(int fd, const struct heard *h)
{
	return !h->len || (range_in(h->offset, h->len, sizeof(disk)) &&
			   (h->type != NBD_CMD_WRITE || read_bytes(fd, disk + h->offset, h->len)));
}

static void answer(int fd, const struct heard *h)
{
	struct strbuf sb = STRBUF_INIT;
	if (h->type == NBD_CMD_READ) {
		chunk(&sb, true, NBD_REPLY_TYPE_OFFSET_DATA, h->cookie, 8 + h->len);
		put(&sb, h->offset, 8);
		strbuf_append(&sb, disk + h->offset, h->len);
	} else {
		chunk(&sb, true, NBD_REPLY_TYPE_NONE, h->cookie, 0);
	}
	write_full(fd, strbuf_str(&sb), sb.len);
	strbuf_free(&sb);
}

static void serve_one(int fd, struct gatherer *g)
{
	struct heard h[MANY];
	unsigned n = 0, answers = 0;
	while (hear(fd, &h[n]) && take(fd, &h[n])) {
		n++;
		g->most = n > g->most ? n : g->most;
		if (n < __atomic_load_n(&g->gather, __ATOMIC_ACQUIRE))
			continue;
		while (n) {
			answer(fd, &h[--n]);
			if (++answers == g->answers)
				return;
		}
	}
}

static void *gathering_server(void *opaque)
{
	int fd;
	while ((fd = serve_handshake(sizeof(disk))) >= 0) {
		serve_one(fd, opaque);
		close(fd);
	}
	return NULL;
}

static void gather(struct gatherer *g, unsigned n)
{
	__atomic_store_n(&g->gather, n, __ATOMIC_RELEASE);
}

static void start_server(pthread_t *thread, struct gatherer *g)
{
	listen_at("sock");
	pthread_create(thread, NULL, gathering_server, g);
}

static void stop_server(pthread_t thread)
{
	shutdown(listener, SHUT_RDWR);
	pthread_join(thread, NULL);
	close(listener);
}

/* ---- Drives on them ---- */

static struct loop *loop;

static struct drive *open_drive_as(unsigned reconnect_delay, enum drive_error_policy werror,
				   bool snapshot)
{
	struct opts opts;
	struct error err = ERROR_INIT;
	char text[128], *name;
	snprintf(text, sizeof(text), "driver=nbd,path=sock,export=disk,reconnect-delay=%u",
		 reconnect_delay);
	assert_int_equal(opts_parse(&opts, text, NULL, &err), 0);
	assert_int_equal(nbd_describe(NULL, &opts, &name, &err), 1);
	struct drive_config config = {.id = "disk0",
				      .kind = DRIVE_DISK,
				      .file = name,
				      .format = "nbd",
				      .image_flags = IMAGE_WRITABLE | IMAGE_DISCARD,
				      .opts = &opts,
				      .snapshot = snapshot,
				      .werror = werror};
	struct drive *d = drive_new(loop, &config, &err);
	if (!d)
		fail_msg("%s", err.text);
	free(name);
	opts_free(&opts);
	return d;
}

static struct drive *open_drive(unsigned reconnect_delay, enum drive_error_policy werror)
{
	return open_drive_as(reconnect_delay, werror, false);
}

struct page {
	struct drive_request req;
	struct iovec iov;
	uint8_t data[PAGE];
	int result;
	bool done;
};

static struct page pages[MANY];
static unsigned done_count; /* atomic */

static void page_done(struct drive_request *req, int result)
{
	struct page *p = req->opaque;
	p->result = result;
	p->done = true;
	__atomic_add_fetch(&done_count, 1, __ATOMIC_RELEASE);
}

/* One request for each page; every second is told on the thread that did it. */
static void submit_pages(struct drive *d, enum drive_op op)
{
	done_count = 0;
	for (unsigned i = 0; i < MANY; i++) {
		struct page *p = &pages[i];
		p->done = false;
		p->iov = (struct iovec){p->data, PAGE};
		p->req = (struct drive_request){.op = op,
						.offset = i * PAGE,
						.len = PAGE,
						.iov = &p->iov,
						.iovcnt = 1,
						.fua = op == DRIVE_WRITE && i % 4 == 0,
						.on_worker = i % 2,
						.done = page_done,
						.opaque = p};
		drive_submit(d, &p->req);
	}
}

static void all_must_be(int result)
{
	assert_int_equal(__atomic_load_n(&done_count, __ATOMIC_ACQUIRE), MANY);
	for (unsigned i = 0; i < MANY; i++) {
		assert_true(pages[i].done);
		assert_int_equal(pages[i].result, result);
	}
}

static void pages_must_equal_disk(void)
{
	for (unsigned i = 0; i < MANY; i++)
		assert_memory_equal(pages[i].data, disk + i * PAGE, PAGE);
}

static void fill_pages(void)
{
	for (unsigned i = 0; i < MANY; i++)
		fill(pages[i].data, PAGE);
}

static void all_requests_of_a_drive_are_in_flight_at_once(void **state)
{
	struct gatherer g = {.gather = 1};
	pthread_t server;
	start_server(&server, &g);
	loop_lock(loop);
	struct drive *d = open_drive(0, DRIVE_ERROR_REPORT);
	gather(&g, MANY);
	for (int round = 0; round < 20; round++) {
		/* The server answers none before it has all. */
		fill_pages();
		submit_pages(d, DRIVE_WRITE);
		drive_drain(d);
		all_must_be(0);
		pages_must_equal_disk();
		memset(pages, 0, sizeof(pages));
		submit_pages(d, DRIVE_READ);
		drive_drain(d);
		all_must_be(0);
		pages_must_equal_disk();
	}
	assert_int_equal(g.most, MANY);
	/* The last flush comes alone. */
	gather(&g, 1);
	drive_free(d);
	loop_unlock(loop);
	stop_server(server);
}

/* Each of these occupies a thread, but there are enough. */
static void so_are_those_of_an_overlay(void **state)
{
	struct gatherer g = {.gather = 1};
	pthread_t server;
	fill(disk, sizeof(disk));
	start_server(&server, &g);
	loop_lock(loop);
	struct drive *d = open_drive_as(0, DRIVE_ERROR_REPORT, true);
	gather(&g, MANY / 2);
	submit_pages(d, DRIVE_READ);
	drive_drain(d);
	all_must_be(0);
	pages_must_equal_disk();
	gather(&g, 1);
	drive_free(d);
	loop_unlock(loop);
	stop_server(server);
}

static void what_a_dying_server_did_not_answer_is_sent_again(void **state)
{
	struct gatherer g = {.gather = 1, .answers = 7};
	pthread_t server;
	start_server(&server, &g);
	loop_lock(loop);
	struct drive *d = open_drive(1000, DRIVE_ERROR_REPORT);
	for (int round = 0; round < 10; round++) {
		fill_pages();
		submit_pages(d, DRIVE_WRITE);
		/* This one a worker waits for, while the others are under way. */
		assert_int_equal(drive_pread(d, (uint8_t[512]){0}, 512, 0), 0);
		drive_drain(d);
		all_must_be(0);
		pages_must_equal_disk();
	}
	gather(&g, 1);
	drive_free(d);
	loop_unlock(loop);
	stop_server(server);
}

static unsigned errors;

static void note_error(void *opaque, struct drive *d, const struct drive_error *error)
{
	assert_int_equal(error->code, EIO);
	errors++;
}

static void requests_that_failed_are_held_and_go_again(void **state)
{
	struct gatherer g = {.gather = 1, .answers = 10};
	pthread_t server;
	start_server(&server, &g);
	loop_lock(loop);
	struct drive *d = open_drive(0, DRIVE_ERROR_STOP);
	drive_on_error(d, note_error, NULL);
	gather(&g, MANY);
	fill_pages();
	submit_pages(d, DRIVE_WRITE);
	drive_drain(d);
	assert_int_equal(drive_held(d), MANY - 10);
	assert_int_equal(done_count, 10);
	assert_string_equal(drive_io_status(d), "failed");
	gather(&g, 1);
	while (drive_held(d)) {
		drive_retry(d);
		drive_drain(d);
	}
	all_must_be(0);
	assert_true(errors >= MANY - 10);
	pages_must_equal_disk();
	drive_on_error(d, NULL, NULL);
	drive_free(d);
	loop_unlock(loop);
	stop_server(server);
}

static void a_server_that_hung_up_on_an_idle_drive_is_called_again(void **state)
{
	struct gatherer g = {.gather = 1, .answers = MANY};
	pthread_t server;
	start_server(&server, &g);
	loop_lock(loop);
	struct drive *d = open_drive(1000, DRIVE_ERROR_REPORT);
	for (int round = 0; round < 5; round++) {
		fill_pages();
		submit_pages(d, DRIVE_WRITE);
		drive_drain(d);
		all_must_be(0);
		pages_must_equal_disk();
	}
	drive_free(d);
	loop_unlock(loop);
	stop_server(server);
}

/* ---- Requests larger than the socket ---- */

enum { BIG = 1024 * 1024, BIGS = 16 };

static uint8_t *big_disk;
static bool may_listen; /* atomic */

/* Reads nothing before it may. */
static void *deaf_server(void *opaque)
{
	struct heard h;
	int fd = serve_handshake((uint64_t)BIG * BIGS);
	while (!__atomic_load_n(&may_listen, __ATOMIC_ACQUIRE))
		usleep(1000);
	while (hear(fd, &h)) {
		struct strbuf sb = STRBUF_INIT;
		if (h.type == NBD_CMD_WRITE)
			read_bytes(fd, big_disk + h.offset, h.len);
		chunk(&sb, true, NBD_REPLY_TYPE_NONE, h.cookie, 0);
		write_full(fd, strbuf_str(&sb), sb.len);
		strbuf_free(&sb);
	}
	close(fd);
	return NULL;
}

static void submitting_never_waits_for_the_server(void **state)
{
	struct drive_request *req = calloc(BIGS, sizeof(*req));
	struct page *page = calloc(1, sizeof(*page));
	struct iovec iov[BIGS];
	uint8_t *data = malloc((size_t)BIG * BIGS);
	pthread_t server;
	big_disk = calloc(BIGS, BIG);
	listen_at("sock");
	pthread_create(&server, NULL, deaf_server, NULL);
	loop_lock(loop);
	struct drive *d = open_drive(0, DRIVE_ERROR_REPORT);
	done_count = 0;
	for (unsigned i = 0; i < BIGS; i++) {
		fill(data + (size_t)i * BIG, BIG);
		iov[i] = (struct iovec){data + (size_t)i * BIG, BIG};
		req[i] = (struct drive_request){.op = DRIVE_WRITE,
						.offset = (uint64_t)i * BIG,
						.len = BIG,
						.iov = &iov[i],
						.iovcnt = 1,
						.on_worker = true,
						.done = page_done,
						.opaque = page};
		drive_submit(d, &req[i]);
	}
	assert_int_equal(done_count, 0);
	__atomic_store_n(&may_listen, true, __ATOMIC_RELEASE);
	drive_drain(d);
	assert_int_equal(__atomic_load_n(&done_count, __ATOMIC_ACQUIRE), BIGS);
	assert_int_equal(page->result, 0);
	assert_memory_equal(data, big_disk, (size_t)BIG * BIGS);
	drive_free(d);
	loop_unlock(loop);
	pthread_join(server, NULL);
	close(listener);
	free(big_disk);
	free(data);
	free(page);
	free(req);
}

/* ---- Block sizes ---- */

static void block_sizes_of_the_server_are_kept_to(void **state)
{
	static uint8_t want[sizeof(disk)], buf[sizeof(disk)];
	pthread_t server;
	struct error err = ERROR_INIT;
	memset(disk, 0, sizeof(disk));
	listen_at("sock");
	pthread_create(&server, NULL, block_server, NULL);
	struct image *img =
		image_open("nbd+unix:///disk?socket=sock", "raw", IMAGE_WRITABLE, NULL, &err);
	if (!img)
		fail_msg("%s", err.text);
	for (int n = 0; n < 300; n++) {
		uint64_t at = rnd_below(sizeof(disk)), len = 1 + rnd_below(20000);
		if (len > sizeof(disk) - at)
			len = sizeof(disk) - at;
		if (n % 3 == 0) {
			memset(want + at, 0, len);
			assert_int_equal(image_write_zeroes(img, at, len, false), 0);
		} else {
			fill(want + at, len);
			assert_int_equal(image_pwrite(img, want + at, len, at), 0);
		}
		at = rnd_below(sizeof(disk));
		len = sizeof(disk) - at;
		assert_int_equal(image_pread(img, buf, len, at), 0);
		assert_memory_equal(buf, want + at, len);
	}
	assert_memory_equal(disk, want, sizeof(disk));
	assert_int_equal(image_flush(img), 0);
	image_close(img);
	pthread_join(server, NULL);
	close(listener);
}

/* Requests at any place, many at once, each in a range of its own. */
static void block_sizes_are_kept_to_with_many_in_flight(void **state)
{
	static uint8_t want[sizeof(disk)];
	pthread_t server;
	memset(disk, 0, sizeof(disk));
	listen_at("sock");
	pthread_create(&server, NULL, block_server, NULL);
	loop_lock(loop);
	struct drive *d = open_drive(0, DRIVE_ERROR_REPORT);
	for (int round = 0; round < 20; round++) {
		done_count = 0;
		for (unsigned i = 0; i < MANY; i++) {
			/* Whole pages, and parts that share theirs with the neighbours. */
			bool whole = rnd() % 2;
			uint64_t from = whole ? 0 : rnd_below(PAGE / 2);
			uint64_t len = whole ? PAGE : 1 + rnd_below(PAGE / 2);
			struct page *p = &pages[i];
			fill(p->data, PAGE);
			memcpy(want + i * PAGE + from, p->data, len);
			p->iov = (struct iovec){p->data, len};
			p->req = (struct drive_request){.op = DRIVE_WRITE,
							.offset = i * PAGE + from,
							.len = len,
							.iov = &p->iov,
							.iovcnt = 1,
							.on_worker = true,
							.done = page_done,
							.opaque = p};
			drive_submit(d, &p->req);
		}
		drive_drain(d);
		all_must_be(0);
		assert_memory_equal(disk, want, sizeof(disk));
	}
	drive_free(d);
	loop_unlock(loop);
	pthread_join(server, NULL);
	close(listener);
}

static int setup(void **state)
{
	struct error err = ERROR_INIT;
	loop = loop_new(&err);
	return loop ? enter_scratch(state) : -1;
}

static int teardown(void **state)
{
	loop_free(loop);
	return leave_scratch(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_requests_of_a_drive_are_in_flight_at_once),
		cmocka_unit_test(so_are_those_of_an_overlay),
		cmocka_unit_test(what_a_dying_server_did_not_answer_is_sent_again),
		cmocka_unit_test(requests_that_failed_are_held_and_go_again),
		cmocka_unit_test(a_server_that_hung_up_on_an_idle_drive_is_called_again),
		cmocka_unit_test(submitting_never_waits_for_the_server),
		cmocka_unit_test(block_sizes_of_the_server_are_kept_to),
		cmocka_unit_test(block_sizes_are_kept_to_with_many_in_flight),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, setup, teardown);
}
