/* SPDX-License-Identifier: MIT */
/* virtio-serial: control messages, ports that open and close on either side, consoles, full
 * character devices, resets with data on the way, drivers that talk nonsense. */
#include "core/chardev.h"
#include "devices/virtio_serial.h"
#include "virtio_rig.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define F_MULTIPORT (UINT64_C(1) << 1)

enum { READY = 0, ADD = 1, PORT_READY = 3, CONSOLE = 4, OPEN = 6, NAME = 7 };
enum { CTRL_IN = 2, CTRL_OUT = 3, PORTS = 3, QUEUES = 2 * (PORTS + 1), CTRL_SIZE = 32 };
enum {
	CONTROL_BUFFERS = DRV_DATA,  /* from the card, 128 bytes each */
	MESSAGE = DRV_DATA + 0x4000, /* to the card */
	INPUT = DRV_DATA + 0x8000,   /* of the ports */
	BULK = DRV_RINGS + 0x80000,  /* behind the rings: much to send */
	BULK_PIECE = 39000,
	BULK_PIECES = 40, /* to DRV_DATA */
	CONTROL_BUFFER = 128,
	UNTOUCHED = 0xEE,
};

struct fixture {
	struct rig *r;
	struct drv d;
	struct virtio_serial *card;
	struct chardev *chr[PORTS];
	char folder[32], path[48];
	unsigned messages; /* buffers that the driver got back from the control queue */
};

static int queue_to_guest(unsigned port)
{
	return port ? 2 * (int)port + 2 : 0;
}

static int queue_from_guest(unsigned port)
{
	return queue_to_guest(port) + 1;
}

static struct fixture *new_card(void)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct error err = ERROR_INIT;

	f->r = rig_new(true);
	drv_init(&f->d, f->r);
	struct virtio_pci_config pci = {.name = "serial", .devfn = -1, .vectors = 2};
	f->card = virtio_serial_new(&f->r->env, f->r->pci, &pci, PORTS, &err);
	assert_non_null(f->card);
	return f;
}

static int add(struct fixture *f, int nr, bool console, const char *name, struct chardev *chr)
{
	struct error err = ERROR_INIT;
	return virtio_serial_add_port(f->card, nr, console, name, chr, &err);
}

/* A console on port 0, a port with a name on 1, one without on 2; on memory, but for `socket`. */
static struct fixture *new_ports(int socket)
{
	struct fixture *f = new_card();
	struct error err = ERROR_INIT;

	for (int n = 0; n < PORTS; n++) {
		if (n == socket) {
			strcpy(f->folder, "/tmp/minivm-test-XXXXXX");
			assert_non_null(mkdtemp(f->folder));
			snprintf(f->path, sizeof(f->path), "%s/s", f->folder);
			char *spec = xasprintf("unix:%s,server=on,wait=off", f->path);
			f->chr[n] = chardev_open(f->r->env.loop, "s", spec, &err);
			free(spec);
		} else {
			f->chr[n] = chardev_new_memory(f->r->env.loop);
		}
		assert_non_null(f->chr[n]);
		assert_int_equal(add(f, -1, n == 0, n == 1 ? "org.test.1" : NULL, f->chr[n]), 0);
	}
	return f;
}

static void drive(struct fixture *f, bool modern, uint64_t features)
{
	struct virtio *v = container_of(virtio_serial_pci(f->card), struct virtio, pci);

	drv_start(&f->d, v, modern, features, QUEUES);
	f->messages = 0;
	for (unsigned n = 0; n < CTRL_SIZE; n++)
		drv_add(&f->d, CTRL_IN,
			&(struct piece){CONTROL_BUFFERS + n * CONTROL_BUFFER, CONTROL_BUFFER, true},
			1);
	drv_kick(&f->d, CTRL_IN);
}

static void stop(struct fixture *f)
{
	virtio_serial_free(f->card);
	for (unsigned n = 0; n < PORTS; n++)
		chardev_free(f->chr[n]);
	if (f->folder[0])
		rmdir(f->folder);
	rig_free(f->r);
	free(f);
}

/* ---- the driver's side of the control queue ---- */

static void say(struct fixture *f, uint32_t port, uint16_t event, uint16_t value)
{
	uint8_t m[8];

	store_le32(m, port);
	store_le16(m + 4, event);
	store_le16(m + 6, value);
	put(&f->d, MESSAGE, m, sizeof(m));
	drv_add(&f->d, CTRL_OUT, &(struct piece){MESSAGE, sizeof(m), false}, 1);
	drv_kick(&f->d, CTRL_OUT);
	drv_wait(&f->d, CTRL_OUT, 1, NULL, NULL);
}

/* The next message from the card, whose buffer goes into the ring again. */
static void expect_text(struct fixture *f, uint32_t port, uint16_t event, uint16_t value,
			const char *text)
{
	uint8_t m[CONTROL_BUFFER] = {0};
	uint64_t at = CONTROL_BUFFERS + f->messages++ % CTRL_SIZE * CONTROL_BUFFER;
	uint32_t len;

	drv_wait(&f->d, CTRL_IN, 1, NULL, &len);
	get(&f->d, at, m, sizeof(m));
	assert_int_equal(load_le32(m), port);
	assert_int_equal(load_le16(m + 4), event);
	assert_int_equal(load_le16(m + 6), value);
	assert_int_equal(len, 8 + (text ? strlen(text) : 0));
	if (text)
		assert_memory_equal(m + 8, text, strlen(text));
	drv_add(&f->d, CTRL_IN, &(struct piece){at, CONTROL_BUFFER, true}, 1);
	drv_kick(&f->d, CTRL_IN);
}

static void expect(struct fixture *f, uint32_t port, uint16_t event, uint16_t value)
{
	expect_text(f, port, event, value, NULL);
}

static void expect_silence(struct fixture *f)
{
	drv_idle(&f->d);
	assert_int_equal(drv_returned(&f->d, CTRL_IN), 0);
}

static struct fixture *start(int socket)
{
	struct fixture *f = new_ports(socket);
	drive(f, true, F_MULTIPORT | VIRTIO_F_RING_RESET);
	drv_idle(&f->d); /* character devices say that they are there */
	return f;
}

/* ---- data ---- */

/* A buffer for what comes to a port. */
static void offer(struct fixture *f, unsigned port, uint64_t at, uint32_t len)
{
	uint8_t bytes[256];

	memset(bytes, UNTOUCHED, sizeof(bytes));
	put(&f->d, at, bytes, len < sizeof(bytes) ? len + 1 : sizeof(bytes));
	drv_add(&f->d, (unsigned)queue_to_guest(port), &(struct piece){at, len, true}, 1);
	drv_kick(&f->d, (unsigned)queue_to_guest(port));
}

static unsigned arrived(struct fixture *f, unsigned port)
{
	drv_idle(&f->d);
	return drv_returned(&f->d, (unsigned)queue_to_guest(port));
}

static void assert_input(struct fixture *f, unsigned port, uint64_t at, const char *text)
{
	char back[256];
	uint32_t len;

	drv_wait(&f->d, (unsigned)queue_to_guest(port), 1, NULL, &len);
	assert_int_equal(len, strlen(text));
	get(&f->d, at, back, len);
	assert_memory_equal(back, text, len);
}

static void input(struct fixture *f, unsigned port, const char *text)
{
	chardev_memory_input(f->chr[port], text, strlen(text));
}

static void output(struct fixture *f, unsigned port, const char *text)
{
	put(&f->d, MESSAGE + 0x100, text, strlen(text));
	drv_add(&f->d, (unsigned)queue_from_guest(port),
		&(struct piece){MESSAGE + 0x100, (uint32_t)strlen(text), false}, 1);
	drv_kick(&f->d, (unsigned)queue_from_guest(port));
	drv_wait(&f->d, (unsigned)queue_from_guest(port), 1, NULL, NULL);
}

static void assert_output(struct fixture *f, unsigned port, const char *text)
{
	assert_string_equal(chardev_memory_output(f->chr[port], NULL), text);
}

/* ---- tests ---- */

static void ports_make_themselves_known(void **state)
{
	struct fixture *f = start(2); /* whose socket nobody is on */

	assert_int_equal(drv_config(&f->d, 4), PORTS);
	expect_silence(f);
	say(f, 0, READY, 1);
	expect(f, 0, ADD, 1);
	expect(f, 1, ADD, 1);
	expect(f, 2, ADD, 1);
	expect_silence(f);
	say(f, 2, PORT_READY, 1);
	expect_silence(f);
	say(f, 1, PORT_READY, 1);
	expect_text(f, 1, NAME, 1, "org.test.1");
	expect(f, 1, OPEN, 1);
	say(f, 0, PORT_READY, 1);
	expect(f, 0, CONSOLE, 1);
	expect(f, 0, OPEN, 1);
	expect_silence(f);
	/* A driver that could not set a port up says so. */
	say(f, 1, PORT_READY, 0);
	say(f, 0, READY, 0);
	expect_silence(f);
	stop(f);
}

static void a_driver_without_multiport_has_port_0(void **state)
{
	for (int modern = 0; modern < 2; modern++) {
		struct fixture *f = new_ports(-1);
		drive(f, modern, 0);
		offer(f, 0, INPUT, 100);
		input(f, 0, "in");
		assert_input(f, 0, INPUT, "in");
		output(f, 0, "out");
		assert_output(f, 0, "out");
		say(f, 0, READY, 1);
		expect_silence(f);
		stop(f);
	}
}

static void input_waits_until_the_guest_opens_the_port(void **state)
{
	struct fixture *f = start(-1);

	for (unsigned port = 0; port < PORTS; port++) {
		offer(f, port, INPUT, 100);
		offer(f, port, INPUT + 0x200, 100);
		input(f, port, "first");
		assert_int_equal(arrived(f, port), 0);
		say(f, port, OPEN, 1);
		assert_input(f, port, INPUT, "first");
		say(f, port, OPEN, 0);
		input(f, port, "second");
		assert_int_equal(arrived(f, port), 0);
		say(f, port, OPEN, 1);
		assert_input(f, port, INPUT + 0x200, "second");
	}
	stop(f);
}

static void input_waits_for_buffers(void **state)
{
	struct fixture *f = start(-1);

	say(f, 1, OPEN, 1);
	input(f, 1, "abcdefgh");
	assert_int_equal(arrived(f, 1), 0);
	offer(f, 1, INPUT, 3);
	assert_input(f, 1, INPUT, "abc");
	assert_int_equal(arrived(f, 1), 0);
	offer(f, 1, INPUT, 0); /* no room: comes back and is no obstacle */
	offer(f, 1, INPUT + 0x100, 2);
	offer(f, 1, INPUT + 0x200, 200);
	assert_input(f, 1, INPUT, "");
	assert_input(f, 1, INPUT + 0x100, "de");
	assert_input(f, 1, INPUT + 0x200, "fgh");
	uint8_t behind;
	get(&f->d, INPUT + 0x203, &behind, 1);
	assert_int_equal(behind, UNTOUCHED);
	stop(f);
}

static void output_of_each_port_goes_to_its_device(void **state)
{
	struct fixture *f = start(-1);

	/* Whether or not the guest has said that it opened it. */
	output(f, 0, "console");
	output(f, 1, "one");
	say(f, 2, OPEN, 1);
	output(f, 2, "two, ");
	output(f, 2, "");
	output(f, 2, "more");
	assert_output(f, 0, "console");
	assert_output(f, 1, "one");
	assert_output(f, 2, "two, more");
	/* In pieces, some of them empty, some to write to. */
	put(&f->d, MESSAGE + 0x100, "abcdef", 6);
	drv_add(&f->d, 5,
		(struct piece[]){{MESSAGE + 0x100, 1, false},
				 {MESSAGE, 0, false},
				 {MESSAGE + 0x101, 5, false},
				 {INPUT, 10, true}},
		4);
	drv_kick(&f->d, 5);
	uint32_t len;
	drv_wait(&f->d, 5, 1, NULL, &len);
	assert_int_equal(len, 0);
	assert_output(f, 1, "oneabcdef");
	stop(f);
}

/* ---- a socket that is slow, full or gone ---- */

static int connect_to(struct fixture *f)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(at.sun_path, f->path);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

static uint8_t bulk_byte(size_t at)
{
	return (uint8_t)(at * 3 + (at >> 8) + (at >> 16));
}

/* BULK_PIECES buffers in the ring of a port; more than the character device and its socket hold. */
static void send_bulk(struct fixture *f, unsigned port)
{
	static uint8_t piece[BULK_PIECE];

	for (size_t n = 0; n < BULK_PIECES; n++) {
		for (size_t i = 0; i < sizeof(piece); i++)
			piece[i] = bulk_byte(n * sizeof(piece) + i);
		put(&f->d, BULK + n * BULK_PIECE, piece, sizeof(piece));
		drv_add(&f->d, (unsigned)queue_from_guest(port),
			&(struct piece){BULK + n * BULK_PIECE, BULK_PIECE, false}, 1);
	}
	drv_kick(&f->d, (unsigned)queue_from_guest(port));
}

static size_t receive_some(int fd, uint8_t *buf, size_t max)
{
	ssize_t n = recv(fd, buf, max, 0);
	if (n < 0)
		assert_int_equal(errno, EAGAIN);
	return n < 0 ? 0 : (size_t)n;
}

/* Enough turns for everything that can go to go. */
static unsigned settle(struct fixture *f, unsigned queue)
{
	unsigned before = UINT32_MAX;

	for (unsigned turn = 0; drv_returned(&f->d, queue) != before; turn++) {
		assert_true(turn < 1000);
		before = drv_returned(&f->d, queue);
		drv_idle(&f->d);
	}
	return before;
}

static bool socket_buffers_are_small(int fd)
{
	int size = 0;
	socklen_t len = sizeof(size);

	getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, &len);
	if (size <= 300 << 10)
		return true;
	print_message("SKIP: this host's sockets hold %d bytes\n", size);
	return false;
}

static struct fixture *start_full(unsigned port, int *fd)
{
	struct fixture *f = start((int)port);

	*fd = connect_to(f);
	if (!socket_buffers_are_small(*fd)) {
		close(*fd);
		stop(f);
		return NULL;
	}
	if (port)
		expect(f, port, OPEN, 1);
	send_bulk(f, port);
	unsigned returned = settle(f, (unsigned)queue_from_guest(port));
	assert_in_range(returned, 1, BULK_PIECES - 2);
	return f;
}

static void output_waits_for_a_slow_reader(void **state)
{
	static uint8_t buf[65536];
	struct fixture *f;
	size_t seen = 0;
	int fd;

	if (!(f = start_full(1, &fd)))
		skip();
	for (unsigned turn = 0; seen < (size_t)BULK_PIECES * BULK_PIECE; turn++) {
		assert_true(turn < 100000);
		size_t n = receive_some(fd, buf, sizeof(buf));
		for (size_t i = 0; i < n; i++)
			assert_int_equal(buf[i], bulk_byte(seen + i));
		seen += n;
		rig_turn(f->r);
	}
	drv_wait(&f->d, 5, BULK_PIECES, NULL, NULL);
	assert_int_equal(receive_some(fd, buf, sizeof(buf)), 0); /* and nothing twice */
	close(fd);
	stop(f);
}

/* A guest whose output waits must not wait for ever for a reader that has left. */
static void readers_that_leave_let_output_go(void **state)
{
	for (unsigned port = 0; port < 2; port++) { /* a console, and a port that closes */
		struct fixture *f;
		int fd;
		if (!(f = start_full(port, &fd)))
			skip();
		close(fd);
		drv_wait(&f->d, (unsigned)queue_from_guest(port), BULK_PIECES, NULL, NULL);
		if (port)
			expect(f, port, OPEN, 0);
		/* The next one gets only what is written from then on. */
		fd = connect_to(f);
		if (port)
			expect(f, port, OPEN, 1);
		for (unsigned turn = 0; !chardev_connected(f->chr[port]); turn++) {
			assert_true(turn < 10000);
			rig_turn(f->r);
		}
		output(f, port, "new");
		uint8_t buf[16];
		size_t n = 0;
		for (unsigned turn = 0; n == 0; turn++) {
			assert_true(turn < 10000);
			n = receive_some(fd, buf, sizeof(buf));
			rig_turn(f->r);
		}
		assert_int_equal(n, 3);
		assert_memory_equal(buf, "new", 3);
		close(fd);
		stop(f);
	}
}

/* Part of the first waiting buffer has left: it is not counted against the next driver's first. */
static void resets_forget_what_waits(void **state)
{
	enum { CARD, QUEUE, SYSTEM, KINDS };
	static uint8_t buf[65536];

	for (int kind = 0; kind < KINDS; kind++) {
		struct fixture *f;
		int fd;
		if (!(f = start_full(1, &fd)))
			skip();
		if (kind == CARD) {
			drv_set_status(&f->d, 0);
		} else if (kind == QUEUE) {
			common_set(&f->d, 22, 2, 5);
			common_set(&f->d, 58, 2, 1);
			assert_int_equal(common(&f->d, 28, 2), 0);
		} else {
			state_reset_all(f->r->env.states);
		}
		uint16_t used = get16(&f->d, f->d.q[5].used + 2);
		/* What was queued leaves; the rest does not. */
		size_t seen = 0, n;
		for (unsigned quiet = 0; quiet < 5; quiet += n == 0) {
			n = receive_some(fd, buf, sizeof(buf));
			seen += n;
			rig_turn(f->r);
		}
		assert_true(seen < (size_t)BULK_PIECES * BULK_PIECE);
		assert_int_equal(get16(&f->d, f->d.q[5].used + 2), used);
		if (kind == QUEUE)
			drv_queue_setup(&f->d, 5);
		else
			drive(f, true, F_MULTIPORT);
		output(f, 1, "anew");
		for (unsigned turn = 0; (n = receive_some(fd, buf, sizeof(buf))) == 0; turn++) {
			assert_true(turn < 10000);
			rig_turn(f->r);
		}
		assert_int_equal(n, 4);
		assert_memory_equal(buf, "anew", 4);
		close(fd);
		stop(f);
	}
}

static void a_reset_closes_the_guests_side(void **state)
{
	struct fixture *f = start(-1);

	say(f, 1, OPEN, 1);
	drive(f, true, F_MULTIPORT);
	offer(f, 1, INPUT, 100);
	input(f, 1, "x");
	assert_int_equal(arrived(f, 1), 0);
	say(f, 1, OPEN, 1);
	assert_input(f, 1, INPUT, "x");
	stop(f);
}

static void opening_and_closing_outside_is_told(void **state)
{
	struct fixture *f = start(1);

	for (unsigned n = 0; n < 2; n++) {
		int fd = connect_to(f);
		expect(f, 1, OPEN, 1);
		close(fd);
		expect(f, 1, OPEN, 0);
	}
	/* With nobody there output is dropped, and the guest goes on. */
	output(f, 1, "lost");
	/* A driver that comes later hears how it is now. */
	drive(f, true, F_MULTIPORT);
	say(f, 1, PORT_READY, 1);
	expect_text(f, 1, NAME, 1, "org.test.1");
	expect_silence(f);
	stop(f);
}

static void consoles_stay_open(void **state)
{
	struct fixture *f = start(0);
	int fd = connect_to(f);

	drv_idle(&f->d);
	close(fd);
	expect_silence(f);
	output(f, 0, "lost");
	stop(f);
}

/* A state saved while a reader was there is loaded where there is none. */
static void loaded_guests_hear_whether_ports_are_open(void **state)
{
	struct fixture *f = start(1);
	struct strbuf image = STRBUF_INIT;
	int fd = connect_to(f);

	expect(f, 1, OPEN, 1);
	say(f, 1, OPEN, 1);
	state_save(f->r->env.states, &image);
	drv_set_status(&f->d, 0);
	close(fd);
	drv_idle(&f->d);
	assert_int_equal(state_load(f->r->env.states, image.data, image.len, NULL), 0);
	strbuf_free(&image);
	expect(f, 1, OPEN, 0);
	expect(f, 2, OPEN, 1);
	/* The guest's side is as it was. */
	offer(f, 1, INPUT, 100);
	fd = connect_to(f);
	expect(f, 1, OPEN, 1);
	assert_int_equal(write(fd, "hello", 5), 5);
	assert_input(f, 1, INPUT, "hello");
	close(fd);
	stop(f);
}

/* ---- nonsense ---- */

static void nonsense_in_the_control_queue_is_harmless(void **state)
{
	struct fixture *f = start(-1);
	static const uint32_t ports[] = {PORTS, 30, 31, 0x80000000, UINT32_MAX};

	for (unsigned n = 0; n < ARRAY_SIZE(ports); n++)
		for (uint16_t event = 1; event < 10; event++)
			say(f, ports[n], event, 1);
	/* What only the card says, and what nobody says. */
	for (unsigned port = 0; port < PORTS; port++) {
		say(f, port, ADD, 1);
		say(f, port, CONSOLE, 1);
		say(f, port, NAME, 1);
		say(f, port, 2, 1);
		say(f, port, 5, 1);
		say(f, port, 0xFFFF, 1);
	}
	expect_silence(f);
	say(f, 0, READY, 1);
	for (unsigned port = 0; port < PORTS; port++)
		expect(f, port, ADD, 1);
	/* The same message, too short, empty, or with nothing to read. */
	for (uint32_t len = 0; len < 8; len++) {
		drv_add(&f->d, CTRL_OUT, &(struct piece){MESSAGE, len, false}, 1);
		drv_add(&f->d, CTRL_OUT, &(struct piece){MESSAGE, len, true}, 1);
	}
	drv_kick(&f->d, CTRL_OUT);
	drv_wait(&f->d, CTRL_OUT, 16, NULL, NULL);
	expect_silence(f);
	assert_int_equal(drv_status(&f->d), 15);
	say(f, 0, READY, 1);
	expect(f, 0, ADD, 1);
	stop(f);
}

/* Answers that the driver leaves no buffers for are kept within bounds. */
static void answers_nobody_takes_are_bounded(void **state)
{
	enum { ASKED = 300, MOST = 256 };
	struct fixture *f = new_ports(-1);
	struct virtio *v = container_of(virtio_serial_pci(f->card), struct virtio, pci);
	unsigned got = 0;

	drv_start(&f->d, v, true, F_MULTIPORT, QUEUES);
	drv_idle(&f->d);
	for (unsigned n = 0; n < ASKED; n++)
		say(f, 0, READY, 1);
	for (;;) {
		drv_add(&f->d, CTRL_IN, &(struct piece){CONTROL_BUFFERS, CONTROL_BUFFER, true}, 1);
		drv_kick(&f->d, CTRL_IN);
		for (unsigned turn = 0; turn < 3 && !drv_returned(&f->d, CTRL_IN); turn++)
			rig_turn(f->r);
		if (!drv_returned(&f->d, CTRL_IN))
			break;
		drv_wait(&f->d, CTRL_IN, 1, NULL, NULL);
		uint8_t m[8], want[8] = {(uint8_t)(got % PORTS), 0, 0, 0, ADD, 0, 1, 0};
		get(&f->d, CONTROL_BUFFERS, m, sizeof(m));
		assert_memory_equal(m, want, sizeof(m));
		got++;
	}
	assert_int_equal(got, MOST);
	stop(f);
}

/* A name that does not fit into the driver's buffer is cut; no byte lands behind it. */
static void small_control_buffers_cut_messages(void **state)
{
	struct fixture *f = new_ports(-1);
	struct virtio *v = container_of(virtio_serial_pci(f->card), struct virtio, pci);
	uint8_t m[32];
	uint32_t len;

	drv_start(&f->d, v, true, F_MULTIPORT, QUEUES);
	drv_idle(&f->d);
	memset(m, UNTOUCHED, sizeof(m));
	put(&f->d, CONTROL_BUFFERS, m, sizeof(m));
	drv_add(&f->d, CTRL_IN, &(struct piece){CONTROL_BUFFERS, 11, true}, 1);
	drv_kick(&f->d, CTRL_IN);
	say(f, 1, PORT_READY, 1);
	drv_wait(&f->d, CTRL_IN, 1, NULL, &len);
	assert_int_equal(len, 11);
	get(&f->d, CONTROL_BUFFERS, m, sizeof(m));
	assert_memory_equal(m + 8, "org", 3);
	assert_int_equal(m[11], UNTOUCHED);
	stop(f);
}

static void queues_of_ports_that_are_not_there_are_ignored(void **state)
{
	struct fixture *f = new_card();

	f->chr[0] = chardev_new_memory(f->r->env.loop);
	assert_int_equal(add(f, 2, false, NULL, f->chr[0]), 0);
	drive(f, true, F_MULTIPORT);
	for (unsigned port = 0; port < 2; port++) {
		drv_add(&f->d, (unsigned)queue_from_guest(port),
			&(struct piece){MESSAGE, 10, false}, 1);
		drv_kick(&f->d, (unsigned)queue_from_guest(port));
		drv_add(&f->d, (unsigned)queue_to_guest(port), &(struct piece){INPUT, 10, true}, 1);
		drv_kick(&f->d, (unsigned)queue_to_guest(port));
	}
	drv_idle(&f->d);
	assert_int_equal(drv_returned(&f->d, 1), 0);
	assert_int_equal(drv_status(&f->d), 15);
	say(f, 0, READY, 1);
	expect(f, 2, ADD, 1);
	expect_silence(f);
	stop(f);
}

/* ---- which ports a card can have ---- */

static void ports_have_numbers_and_names_of_their_own(void **state)
{
	struct fixture *f = new_card();
	char name[80];

	for (unsigned n = 0; n < PORTS; n++)
		f->chr[n] = chardev_new_memory(f->r->env.loop);
	assert_int_equal(add(f, 0, false, NULL, f->chr[0]), -EINVAL); /* 0 is for consoles */
	assert_int_equal(add(f, PORTS, false, NULL, f->chr[0]), -EINVAL);
	memset(name, 'n', sizeof(name));
	name[VIRTIO_SERIAL_NAME_MAX + 1] = 0;
	assert_int_equal(add(f, 1, false, name, f->chr[0]), -EINVAL);
	name[VIRTIO_SERIAL_NAME_MAX] = 0;
	assert_int_equal(add(f, 2, false, name, f->chr[0]), 0);
	assert_int_equal(add(f, 2, false, NULL, f->chr[1]), -EBUSY);
	assert_int_equal(add(f, 1, false, name, f->chr[1]), -EINVAL);
	/* The first free one: 1 for a port, which leaves 0 for a console, and then none. */
	assert_int_equal(add(f, -1, false, "b", f->chr[1]), 0);
	assert_int_equal(add(f, -1, false, "c", f->chr[2]), -EINVAL);
	assert_int_equal(add(f, -1, true, "c", f->chr[2]), 0);
	assert_int_equal(add(f, -1, true, "d", f->chr[2]), -EINVAL);
	drive(f, true, F_MULTIPORT);
	drv_idle(&f->d);
	say(f, 2, PORT_READY, 1);
	expect_text(f, 2, NAME, 1, name);
	expect(f, 2, OPEN, 1);
	say(f, 1, PORT_READY, 1);
	expect_text(f, 1, NAME, 1, "b");
	expect(f, 1, OPEN, 1);
	say(f, 0, PORT_READY, 1);
	expect(f, 0, CONSOLE, 1);
	expect_text(f, 0, NAME, 1, "c");
	expect(f, 0, OPEN, 1);
	stop(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ports_make_themselves_known),
		cmocka_unit_test(a_driver_without_multiport_has_port_0),
		cmocka_unit_test(input_waits_until_the_guest_opens_the_port),
		cmocka_unit_test(input_waits_for_buffers),
		cmocka_unit_test(output_of_each_port_goes_to_its_device),
		cmocka_unit_test(output_waits_for_a_slow_reader),
		cmocka_unit_test(readers_that_leave_let_output_go),
		cmocka_unit_test(resets_forget_what_waits),
		cmocka_unit_test(a_reset_closes_the_guests_side),
		cmocka_unit_test(opening_and_closing_outside_is_told),
		cmocka_unit_test(consoles_stay_open),
		cmocka_unit_test(loaded_guests_hear_whether_ports_are_open),
		cmocka_unit_test(nonsense_in_the_control_queue_is_harmless),
		cmocka_unit_test(answers_nobody_takes_are_bounded),
		cmocka_unit_test(small_control_buffers_cut_messages),
		cmocka_unit_test(queues_of_ports_that_are_not_there_are_ignored),
		cmocka_unit_test(ports_have_numbers_and_names_of_their_own),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
