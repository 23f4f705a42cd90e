/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/chardev.h"
#include "lib/bytes.h"
#include "lib/loop.h"
#include "lib/text.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct end {
	char got[4096];
	size_t len, room;
	int opens, closes, breaks;
};

static size_t end_room(void *opaque)
{
	return ((struct end *)opaque)->room;
}

static void end_receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct end *e = opaque;
	assert_true(len <= e->room);
	memcpy(e->got + e->len, buf, len);
	e->len += len;
	e->room -= len;
}

static void end_opened(void *opaque, bool open)
{
	struct end *e = opaque;
	if (open)
		e->opens++;
	else
		e->closes++;
}

static void end_break(void *opaque)
{
	((struct end *)opaque)->breaks++;
}

static struct chardev_frontend frontend(struct end *e)
{
	return (struct chardev_frontend){end_room, end_receive, end_opened, end_break, NULL, e};
}

static struct loop *loop;
static char dir[64];

static int setup(void **state)
{
	loop = loop_new(NULL);
	strcpy(dir, "/tmp/minivm-chardev-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char *command = xasprintf("rm -r '%s'", dir);
	int ret = system(command);
	free(command);
	loop_free(loop);
	return ret;
}

static void turn(int times)
{
	while (times--)
		loop_run_once(loop, 20000000);
}

static char *in_dir(const char *prefix, const char *name, const char *suffix)
{
	return xasprintf("%s%s/%s%s", prefix, dir, name, suffix);
}

static int connect_to(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

static void a_file_gets_all_bytes(void **state)
{
	char *spec = in_dir("file:", "out", ""), buf[16] = "";
	struct chardev *chr = chardev_open(loop, "f", spec, NULL);
	assert_non_null(chr);
	assert_int_equal(chardev_write(chr, "hello", 5), 5);
	assert_string_equal(chardev_describe(chr), spec);
	chardev_free(chr);
	FILE *f = fopen(spec + 5, "r");
	assert_int_equal(fread(buf, 1, sizeof(buf), f), 5);
	assert_string_equal(buf, "hello");
	fclose(f);
	free(spec);
}

static void bad_specs_are_refused_with_a_sentence(void **state)
{
	static const char *const bad[] = {
		"stdoi", "file:", "tcp:nohost", "pty:x", "chardev:no", "unix:/tmp/x,foo=on", ""};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct error err = ERROR_INIT;
		assert_null(chardev_open(loop, NULL, bad[i], &err));
		assert_true(err.code && err.text[0]);
	}
}

static void a_server_takes_one_peer_after_the_other(void **state)
{
	char *spec = in_dir("unix:", "s", ",server=on,wait=off"), *path = in_dir("", "s", "");
	struct chardev *chr = chardev_open(loop, "s", spec, NULL);
	struct end e = {.room = 1000};
	struct chardev_frontend fe = frontend(&e);
	char buf[16] = "";

	assert_non_null(chr);
	chardev_attach(chr, &fe);
	turn(1);
	assert_false(chardev_connected(chr));
	assert_memory_equal(chardev_describe(chr), "disconnected:unix:", 18);
	assert_int_equal(chardev_write(chr, "lost", 4), 4);
	for (int round = 1; round <= 2; round++) {
		int fd = connect_to(path);
		turn(3);
		assert_true(chardev_connected(chr));
		assert_int_equal(e.opens, round);
		chardev_write(chr, "abc", 3);
		assert_int_equal(read(fd, buf, sizeof(buf)), 3);
		assert_string_equal(buf, "abc");
		assert_int_equal(write(fd, "xyz", 3), 3);
		close(fd);
		turn(4);
		assert_int_equal(e.len, (size_t)round * 3);
		assert_int_equal(e.closes, round);
	}
	chardev_free(chr);
	assert_int_equal(access(path, F_OK), -1);
	free(spec);
	free(path);
}

static void a_slow_front_end_holds_the_peer_back(void **state)
{
	char *spec = in_dir("unix:", "b", ",server=on,wait=off"), *path = in_dir("", "b", "");
	struct chardev *chr = chardev_open(loop, "b", spec, NULL);
	struct end e = {.room = 0};
	struct chardev_frontend fe = frontend(&e);
	static char data[1 << 20];

	chardev_attach(chr, &fe);
	int fd = connect_to(path);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	size_t sent = 0;
	for (int i = 0; i < 50; i++) {
		ssize_t n = write(fd, data, sizeof(data));
		if (n > 0)
			sent += (size_t)n;
		loop_run_once(loop, 1000000);
	}
	assert_true(sent < sizeof(data)); /* the socket's buffer and a little more */
	assert_int_equal(e.len, 0);
	e.room = 10;
	chardev_accept_input(chr);
	turn(1);
	assert_int_equal(e.len, 10);
	close(fd);
	chardev_free(chr);
	free(spec);
	free(path);
}

static void a_full_queue_takes_no_more(void **state)
{
	char *spec = in_dir("unix:", "q", ",server=on,wait=off"), *path = in_dir("", "q", "");
	struct chardev *chr = chardev_open(loop, "q", spec, NULL);
	static char data[65536];
	size_t taken = 0, total = 0, n;

	int fd = connect_to(path);
	turn(2);
	while ((n = chardev_write(chr, data, sizeof(data))) == sizeof(data))
		taken += n;
	taken += n;
	assert_true(taken >= 1 << 20);
	assert_int_equal(chardev_write(chr, data, 1), 0);
	/* All that was taken arrives. */
	fcntl(fd, F_SETFL, O_NONBLOCK);
	for (int i = 0; i < 1000 && total < taken; i++) {
		ssize_t got = read(fd, data, sizeof(data));
		if (got > 0)
			total += (size_t)got;
		else
			loop_run_once(loop, 1000000);
	}
	assert_int_equal(total, taken);
	assert_int_equal(chardev_write(chr, data, 1), 1);
	close(fd);
	chardev_free(chr);
	free(spec);
	free(path);
}

static void a_peer_that_leaves_while_we_write_is_noticed(void **state)
{
	char *spec = in_dir("unix:", "w", ",server=on,wait=off"), *path = in_dir("", "w", "");
	struct chardev *chr = chardev_open(loop, "w", spec, NULL);
	int fd = connect_to(path);
	turn(2);
	close(fd);
	assert_int_equal(chardev_write(chr, "a", 1), 1);
	assert_int_equal(chardev_write(chr, "a", 1), 1);
	turn(3);
	assert_false(chardev_connected(chr));
	chardev_free(chr);
	free(spec);
	free(path);
}

static void a_client_reconnects(void **state)
{
	char *server_spec = in_dir("unix:", "r", ",server=on,wait=off");
	char *spec = in_dir("unix:", "r", ",reconnect=1"), *plain = in_dir("unix:", "r", "");
	struct error err = ERROR_INIT;

	assert_null(chardev_open(loop, NULL, plain, &err));
	assert_non_null(strstr(err.text, plain));
	struct chardev *client = chardev_open(loop, NULL, spec, NULL);
	assert_non_null(client);
	assert_false(chardev_connected(client));
	struct chardev *server = chardev_open(loop, NULL, server_spec, NULL);
	for (int i = 0; i < 300 && !chardev_connected(client); i++)
		loop_run_once(loop, 10000000);
	assert_true(chardev_connected(client));
	chardev_free(client);
	chardev_free(server);
	free(server_spec);
	free(spec);
	free(plain);
}

static void a_pty_carries_both_ways(void **state)
{
	int probe = posix_openpt(O_RDWR | O_NOCTTY);

	if (probe < 0) {
		print_message("SKIP: no pseudo-terminals here\n");
		skip();
	}
	close(probe);
	fflush(stdout);
	struct chardev *chr = chardev_open(loop, "p", "pty", NULL);
	struct end e = {.room = 100};
	struct chardev_frontend fe = frontend(&e);
	char buf[8] = "";

	assert_non_null(chr);
	chardev_attach(chr, &fe);
	int fd = open(chardev_describe(chr) + 4, O_RDWR | O_NOCTTY);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "in", 2), 2);
	turn(2);
	assert_int_equal(e.len, 2);
	chardev_write(chr, "out", 3);
	assert_int_equal(read(fd, buf, sizeof(buf)), 3);
	assert_string_equal(buf, "out");
	close(fd);
	turn(2);
	assert_true(chardev_connected(chr));
	chardev_free(chr);
}

static void a_pipe_is_two_fifos(void **state)
{
	char *spec = in_dir("pipe:", "p", ""), *in = in_dir("", "p", ".in"),
	     *out = in_dir("", "p", ".out");
	struct end e = {.room = 100};
	struct chardev_frontend fe = frontend(&e);
	char buf[8] = "";

	assert_int_equal(mkfifo(in, 0600), 0);
	assert_int_equal(mkfifo(out, 0600), 0);
	struct chardev *chr = chardev_open(loop, NULL, spec, NULL);
	assert_non_null(chr);
	chardev_attach(chr, &fe);
	int w = open(in, O_WRONLY), r = open(out, O_RDONLY);
	assert_int_equal(write(w, "in", 2), 2);
	turn(2);
	assert_memory_equal(e.got, "in", 2);
	chardev_write(chr, "out", 3);
	assert_int_equal(read(r, buf, sizeof(buf)), 3);
	close(w);
	close(r);
	chardev_free(chr);
	free(spec);
	free(in);
	free(out);
}

static int quits;

static void on_quit(void *opaque)
{
	quits++;
}

static void the_mux_switches_and_escapes(void **state)
{
	struct chardev *below = chardev_new_memory(loop);
	struct chardev *mux = chardev_new_mux(loop, below, on_quit, NULL);
	struct chardev *monitor = chardev_mux_port(mux);
	struct end serial = {.room = 100}, mon = {.room = 100};
	struct chardev_frontend sfe = frontend(&serial), mfe = frontend(&mon);

	/* The monitor attaches first, and still the first port starts with the focus. */
	chardev_attach(monitor, &mfe);
	chardev_attach(mux, &sfe);
	turn(2);
	assert_int_equal(serial.opens, 1);
	assert_int_equal(mon.opens, 0);
	chardev_memory_input(below, "ab\x01\x01", 4);
	assert_memory_equal(serial.got, "ab\x01", 3);
	chardev_memory_input(below, "\x01", 1);
	chardev_memory_input(below, "cquit", 5);
	assert_memory_equal(mon.got, "quit", 4);
	assert_int_equal(mon.opens, 1);
	assert_int_equal(serial.closes, 1);
	chardev_memory_input(below,
			     "\x01"
			     "c\x01"
			     "b",
			     4);
	assert_int_equal(serial.breaks, 1);
	assert_int_equal(serial.len, 3);
	quits = 0;
	/* Works while the guest does not read. */
	serial.room = 0;
	chardev_memory_input(below, "zzz\x01x", 5);
	assert_int_equal(quits, 1);
	chardev_memory_input(below, "\x01h", 2);
	assert_non_null(strstr(chardev_memory_output(below, NULL), "Ctrl-A c"));
	chardev_write(monitor, "(qemu)", 6);
	assert_non_null(strstr(chardev_memory_output(below, NULL), "(qemu)"));
	chardev_free(mux);
}

static void a_mux_whose_own_port_is_unused_serves_the_others(void **state)
{
	struct chardev *below = chardev_new_memory(loop);
	struct chardev *mux = chardev_new_mux(loop, below, NULL, NULL);
	struct chardev *first = chardev_mux_port(mux), *second = chardev_mux_port(mux);
	struct end a = {.room = 100}, b = {.room = 100};
	struct chardev_frontend afe = frontend(&a), bfe = frontend(&b);

	chardev_attach(second, &bfe);
	chardev_attach(first, &afe);
	turn(1);
	chardev_memory_input(below,
			     "1\x01"
			     "c2\x01"
			     "c3",
			     7);
	assert_memory_equal(a.got, "13", 2);
	assert_memory_equal(b.got, "2", 1);
	chardev_free(mux);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_file_gets_all_bytes),
		T(bad_specs_are_refused_with_a_sentence),
		T(a_server_takes_one_peer_after_the_other),
		T(a_slow_front_end_holds_the_peer_back),
		T(a_full_queue_takes_no_more),
		T(a_peer_that_leaves_while_we_write_is_noticed),
		T(a_client_reconnects),
		T(a_pty_carries_both_ways),
		T(a_pipe_is_two_fifos),
		T(the_mux_switches_and_escapes),
		T(a_mux_whose_own_port_is_unused_serves_the_others),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
