/* SPDX-License-Identifier: MIT */
/*
 * What all character backends share: the queue to the outside (bounded, flushed when the descriptor
 * can take more), the read-ahead from the outside (read only while the front end keeps up, so that
 * pipes and sockets hold their writers back), and the front end, which is always called from the
 * loop. Backends: null and memory here, descriptors in chardev_fd.c, sockets in chardev_socket.c,
 * the multiplexer in chardev_mux.c.
 */
#include "core/chardev.h"
#include "core/chardev_internal.h"
#include "lib/bytes.h"
#include "lib/text.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FLUSH_PATIENCE_MS = 2000, SAFE_WRITE = 256 };

/* ---- output ---- */

static bool writable_now(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT);
}

/* Writes what goes without waiting. -1 when the other side is gone. */
static ssize_t write_now(struct chardev *chr, const uint8_t *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		size_t part = len - done;
		if (chr->out_blocking) {
			if (!writable_now(chr->fd_out))
				break;
			if (part > SAFE_WRITE)
				part = SAFE_WRITE;
		}
		ssize_t n = write(chr->fd_out, buf + done, part);
		if (n >= 0)
			done += (size_t)n;
		else if (errno == EAGAIN)
			break;
		else if (errno != EINTR)
			return -1;
	}
	return (ssize_t)done;
}

static void update_watches(struct chardev *chr)
{
	bool want_read =
		chr->connected && !chr->eof && chr->in.len < CHARDEV_IN_CHUNK && chr->attached;
	unsigned in = want_read ? LOOP_READ : 0, out = chr->out.len ? LOOP_WRITE : 0;

	if (chr->watch_in && chr->fd_in == chr->fd_out) {
		loop_fd_set_events(chr->watch_in, in | out);
		return;
	}
	if (chr->watch_in)
		loop_fd_set_events(chr->watch_in, in);
	if (chr->watch_out)
		loop_fd_set_events(chr->watch_out, out);
}

/* Nobody will read it. The front end may wait for it to leave. */
static void drop_output(struct chardev *chr)
{
	if (!chr->out.len)
		return;
	strbuf_consume(&chr->out, chr->out.len);
	chr->dropped = true;
	loop_call_schedule(chr->loop, &chr->call);
}

static void hang_up(struct chardev *chr)
{
	chardev_disconnect(chr);
	if (chr->class->hangup)
		chr->class->hangup(chr);
}

/* Writing failed. A socket is gone as a whole; a terminal or pipe may still be read. */
static void output_gone(struct chardev *chr)
{
	if (chr->fd_in == chr->fd_out) {
		hang_up(chr);
		return;
	}
	loop_fd_free(chr->watch_out);
	chr->watch_out = NULL;
	chr->fd_out = -1;
	drop_output(chr);
}

static void flush_queue(struct chardev *chr)
{
	if (!chr->connected || chr->fd_out < 0 || !chr->out.len)
		return;
	ssize_t n = write_now(chr, (const uint8_t *)chr->out.data, chr->out.len);
	if (n < 0) {
		output_gone(chr);
		return;
	}
	strbuf_consume(&chr->out, (size_t)n);
	if (!chr->out.len && chr->attached && chr->fe.drained)
		chr->fe.drained(chr->fe.opaque);
}

/* Queues up to `limit` bytes in all. */
static size_t write_bounded(struct chardev *chr, const void *buf, size_t len, size_t limit)
{
	const uint8_t *p = buf;
	size_t done = 0;

	if (!chr->connected || chr->fd_out < 0 || chr->broken)
		return len;
	if (chr->out.len == 0) {
		ssize_t n = write_now(chr, p, len);
		if (n < 0) {
			/* Done from the loop: the caller may be in the middle of anything. */
			chr->broken = true;
			loop_call_schedule(chr->loop, &chr->call);
			return len;
		}
		done = (size_t)n;
	}
	size_t room = limit > chr->out.len ? limit - chr->out.len : 0, part = len - done;
	if (part > room) {
		if (chr->drop_when_full)
			done = len - room;
		part = room;
	}
	if (part) {
		strbuf_append(&chr->out, p + done, part);
		done += part;
		update_watches(chr);
	}
	return done;
}

size_t chardev_write(struct chardev *chr, const void *buf, size_t len)
{
	return chr->class->write ? chr->class->write(chr, buf, len)
				 : write_bounded(chr, buf, len, CHARDEV_OUT_MAX);
}

void chardev_write_all(struct chardev *chr, const void *buf, size_t len)
{
	if (chr->class->below)
		chardev_write_all(chr->class->below(chr), buf, len);
	else if (chr->class->write)
		chr->class->write(chr, buf, len);
	else
		write_bounded(chr, buf, len, SIZE_MAX);
}

size_t chardev_backlog(const struct chardev *chr)
{
	if (chr->class->below)
		return chardev_backlog(chr->class->below(chr));
	return chr->class->write ? 0 : chr->out.len;
}

void chardev_flush(struct chardev *chr)
{
	if (chr->class->below) {
		chardev_flush(chr->class->below(chr));
		return;
	}
	while (chr->connected && chr->out.len && chr->fd_out >= 0) {
		struct pollfd p = {.fd = chr->fd_out, .events = POLLOUT};
		int n = poll(&p, 1, FLUSH_PATIENCE_MS);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* nobody reads: do not hang at exit */
		flush_queue(chr);
	}
}

/* ---- input ---- */

size_t chardev_input_room(const struct chardev *chr)
{
	return chr->in.len < CHARDEV_IN_CHUNK ? CHARDEV_IN_CHUNK - chr->in.len : 0;
}

void chardev_push_input(struct chardev *chr, const void *buf, size_t len)
{
	if (len)
		strbuf_append(&chr->in, buf, len);
}

/* One read from fd_in. False at its end. */
static bool read_some(struct chardev *chr)
{
	uint8_t buf[CHARDEV_IN_CHUNK];
	ssize_t n = read(chr->fd_in, buf, sizeof(buf));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0)
		return false;
	size_t len = (size_t)n;
	if (chr->class->filter)
		len = chr->class->filter(chr, buf, len);
	chardev_push_input(chr, buf, len);
	return true;
}

void chardev_deliver(struct chardev *chr)
{
	if (chr->attached && chr->told_open != chr->connected) {
		chr->told_open = chr->connected;
		if (chr->fe.opened)
			chr->fe.opened(chr->fe.opaque, chr->connected);
	}
	while (chr->in.len && chr->attached && chr->fe.can_receive && chr->fe.receive) {
		uint8_t buf[512];
		size_t len = chr->fe.can_receive(chr->fe.opaque);
		if (len == 0)
			break;
		if (len > chr->in.len)
			len = chr->in.len;
		if (len > sizeof(buf))
			len = sizeof(buf);
		memcpy(buf, chr->in.data, len);
		strbuf_consume(&chr->in, len);
		chr->fe.receive(chr->fe.opaque, buf, len);
	}
}

static void on_call(void *opaque)
{
	struct chardev *chr = opaque;

	if (chr->connected && chr->broken)
		output_gone(chr);
	chr->broken = false;
	chardev_deliver(chr);
	bool dropped = chr->dropped;
	chr->dropped = false;
	if (dropped && chr->attached && chr->fe.drained)
		chr->fe.drained(chr->fe.opaque);
	update_watches(chr);
}

static void on_out(void *opaque, unsigned events)
{
	struct chardev *chr = opaque;

	flush_queue(chr);
	if ((events & LOOP_ERROR) && chr->connected && chr->watch_out)
		output_gone(chr); /* the reader of a pipe is gone for good */
	chardev_deliver(chr);
	update_watches(chr);
}

static void on_in(void *opaque, unsigned events)
{
	struct chardev *chr = opaque;
	bool more = true;

	if ((events & LOOP_WRITE) && chr->fd_in == chr->fd_out)
		flush_queue(chr);
	if (!chr->connected)
		return;
	if (events & (LOOP_READ | LOOP_ERROR))
		more = read_some(chr);
	/* After a hang-up everything that was sent is taken at once, within bounds. */
	while ((events & LOOP_ERROR) && more && chr->in.len < CHARDEV_OUT_MAX) {
		size_t before = chr->in.len;
		more = read_some(chr) && chr->in.len != before;
	}
	if (!more || ((events & LOOP_ERROR) && chr->in.len >= CHARDEV_OUT_MAX)) {
		chr->eof = true;
		chardev_deliver(chr);
		if (chr->fd_in == chr->fd_out) {
			hang_up(chr);
		} else if (chr->watch_in) {
			loop_fd_free(chr->watch_in);
			chr->watch_in = NULL;
		}
	}
	chardev_deliver(chr);
	update_watches(chr);
}

void chardev_accept_input(struct chardev *chr)
{
	if (chr->in.len)
		loop_call_schedule(chr->loop, &chr->call);
}

/* ---- connection ---- */

void chardev_connect(struct chardev *chr, int fd_in, int fd_out)
{
	chr->connected = true;
	chr->fd_in = fd_in;
	chr->fd_out = fd_out;
	chr->eof = fd_in < 0;
	if (fd_in >= 0) {
		chr->watch_in = loop_fd_new(chr->loop, fd_in, 0, on_in, chr, NULL);
	}
	if (fd_out >= 0 && fd_out != fd_in)
		chr->watch_out = loop_fd_new(chr->loop, fd_out, 0, on_out, chr, NULL);
	update_watches(chr);
	loop_call_schedule(chr->loop, &chr->call);
}

void chardev_disconnect(struct chardev *chr)
{
	loop_fd_free(chr->watch_in);
	loop_fd_free(chr->watch_out);
	chr->watch_in = chr->watch_out = NULL;
	chr->fd_in = chr->fd_out = -1;
	chr->connected = false;
	drop_output(chr);
	loop_call_schedule(chr->loop, &chr->call);
}

void chardev_attach(struct chardev *chr, const struct chardev_frontend *fe)
{
	chr->attached = fe != NULL;
	chr->fe = fe ? *fe : (struct chardev_frontend){0};
	chr->told_open = false;
	if (chr->class->attached)
		chr->class->attached(chr);
	if (fe)
		loop_call_schedule(chr->loop, &chr->call);
	update_watches(chr);
}

bool chardev_connected(const struct chardev *chr)
{
	return chr->connected;
}

const char *chardev_describe(const struct chardev *chr)
{
	return chr->description ? chr->description : "";
}

void chardev_set_description(struct chardev *chr, const char *fmt, ...)
{
	struct strbuf text = STRBUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	strbuf_vprintf(&text, fmt, ap);
	va_end(ap);
	free(chr->description);
	chr->description = strbuf_steal(&text);
}

struct chardev *chardev_alloc(struct loop *loop, const char *id, const struct chardev_class *class)
{
	struct chardev *chr = xcalloc(1, sizeof(*chr));

	chr->loop = loop;
	chr->class = class;
	chr->fd_in = chr->fd_out = -1;
	loop_call_init(&chr->call, on_call, chr);
	chr->id = id ? xstrdup(id) : NULL;
	return chr;
}

void chardev_free(struct chardev *chr)
{
	if (!chr)
		return;
	chr->attached = false;
	chardev_flush(chr);
	chardev_disconnect(chr);
	if (chr->class->close)
		chr->class->close(chr);
	loop_call_cancel(chr->loop, &chr->call);
	strbuf_free(&chr->in);
	strbuf_free(&chr->out);
	free(chr->description);
	free(chr->id);
	free(chr);
}

/* ---- null and memory ---- */

static size_t null_write(struct chardev *chr, const void *buf, size_t len)
{
	return len;
}

static size_t memory_write(struct chardev *chr, const void *buf, size_t len)
{
	strbuf_append(&chr->out, buf, len);
	return len;
}

static const struct chardev_class null_class = {.write = null_write};
static const struct chardev_class memory_class = {.write = memory_write};

static struct chardev *new_simple(struct loop *loop, const char *id,
				  const struct chardev_class *class, const char *what)
{
	struct chardev *chr = chardev_alloc(loop, id, class);
	chr->connected = true;
	chardev_set_description(chr, "%s", what);
	return chr;
}

struct chardev *chardev_new_memory(struct loop *loop)
{
	return new_simple(loop, NULL, &memory_class, "memory");
}

const char *chardev_memory_output(const struct chardev *chr, size_t *len)
{
	if (len)
		*len = chr->out.len;
	return strbuf_str(&chr->out);
}

void chardev_memory_input(struct chardev *chr, const void *buf, size_t len)
{
	chardev_push_input(chr, buf, len);
	chardev_deliver(chr);
}

/* ---- specs ---- */

/* The part of a spec behind its colon, split into the value and options. */
struct parsed {
	struct opts opts;
	const char *value;
};

static int parse_rest(struct parsed *p, const char *rest, struct error *err)
{
	int ret = opts_parse(&p->opts, rest, "value", err);
	if (ret)
		return ret;
	p->value = opts_get(&p->opts, "value");
	if (!p->value)
		p->value = "";
	return 0;
}

/* "HOST:PORT", ":PORT" or "[v6]:PORT". False if there is no port. */
static bool split_host_port(const char *value, char **host, char **port)
{
	const char *colon = strrchr(value, ':');

	if (!colon || !colon[1])
		return false;
	size_t len = (size_t)(colon - value);
	if (len >= 2 && value[0] == '[' && value[len - 1] == ']') {
		value++;
		len -= 2;
	}
	*host = xasprintf("%.*s", (int)len, value);
	*port = xstrdup(colon + 1);
	return true;
}

enum kind { STDIO, FILE_KIND, UNIX, TCP, TELNET, PTY, NULL_KIND, PIPE, SOCKET };

static const struct {
	const char *name;
	enum kind kind;
	bool colon; /* a value follows a colon */
} kinds[] = {
	{"stdio", STDIO, false},    {"file", FILE_KIND, true},  {"unix", UNIX, true},
	{"tcp", TCP, true},         {"telnet", TELNET, true},   {"pty", PTY, false},
	{"null", NULL_KIND, false}, {"none", NULL_KIND, false}, {"vc", NULL_KIND, false},
	{"pipe", PIPE, true},       {"socket", SOCKET, false},
};

static struct chardev *open_tcp(struct loop *loop, const char *id, struct parsed *p, bool telnet,
				struct error *err)
{
	char *host, *port;

	if (!split_host_port(p->value, &host, &port)) {
		error_set(err, EINVAL, "'%s' has no port; write tcp:HOST:PORT", p->value);
		return NULL;
	}
	struct chardev *chr =
		chardev_open_socket(loop, id, NULL, host, port, &p->opts, telnet, err);
	free(host);
	free(port);
	return chr;
}

/* The value, or for the `-chardev` way of writing the `path` option. */
static const char *path_of(struct parsed *p)
{
	const char *path = opts_get(&p->opts, "path");
	return path ? path : p->value;
}

static struct chardev *open_kind(struct loop *loop, const char *id, enum kind kind,
				 struct parsed *p, struct error *err)
{
	bool flag = kind == STDIO && chardev_stdio_signals(); /* signal=, append=off */

	switch (kind) {
	case STDIO:
		if (opts_get_bool(&p->opts, "signal", &flag, err))
			return NULL;
		return chardev_open_stdio(loop, id, flag, err);
	case FILE_KIND:
		if (opts_get_bool(&p->opts, "append", &flag, err))
			return NULL;
		return chardev_open_file(loop, id, path_of(p), flag, err);
	case UNIX: return chardev_open_socket(loop, id, p->value, NULL, NULL, &p->opts, false, err);
	case TCP: return open_tcp(loop, id, p, false, err);
	case TELNET: return open_tcp(loop, id, p, true, err);
	case PTY: return chardev_open_pty(loop, id, err);
	case PIPE: return chardev_open_pipe(loop, id, path_of(p), err);
	case SOCKET: {
		const char *path = opts_get(&p->opts, "path"), *host = opts_get(&p->opts, "host"),
			   *port = opts_get(&p->opts, "port");
		if (!path && !port) {
			error_set(err, EINVAL, "a socket needs path=PATH or host=HOST,port=PORT");
			return NULL;
		}
		return chardev_open_socket(loop, id, path, host ? host : "", port, &p->opts, false,
					   err);
	}
	default: return new_simple(loop, id, &null_class, "null");
	}
}

struct chardev *chardev_open(struct loop *loop, const char *id, const char *spec, struct error *err)
{
	static const char *const list[] = {"stdio",  "file", "unix",    "tcp", "telnet",
					   "pty",    "null", "none",    "vc",  "pipe",
					   "socket", "mon",  "chardev", NULL};
	size_t word = strcspn(spec, ":,");

	/* A reader that goes away must be an error of write(), not a signal. */
	signal(SIGPIPE, SIG_IGN);

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (strlen(kinds[i].name) != word || strncmp(kinds[i].name, spec, word))
			continue;
		struct parsed p = {0};
		struct chardev *chr = NULL;
		bool has_value = spec[word] == ':';
		/* "vc:80Cx24C" has a size that a chardev without a window has no use for. */
		if (kinds[i].kind == NULL_KIND)
			return new_simple(loop, id, &null_class, "null");
		if (has_value && !kinds[i].colon) {
			error_set(err, EINVAL, "'%s': nothing may follow '%s:'", spec,
				  kinds[i].name);
			return NULL;
		}
		const char *rest = spec + word + (spec[word] != '\0');
		/* "-chardev file,path=x": all that follows the comma are options. */
		char *text = has_value || !*rest ? xstrdup(rest) : xasprintf("value=,%s", rest);
		if (!parse_rest(&p, text, err)) {
			opts_get(&p.opts, "id");
			opts_get(&p.opts, "mux"); /* the caller's */
			if (kinds[i].colon && has_value && !*p.value)
				error_set(err, EINVAL, "'%s': a name must follow '%s:'", spec,
					  kinds[i].name);
			else
				chr = open_kind(loop, id, kinds[i].kind, &p, err);
			if (chr && opts_check_unused(&p.opts, kinds[i].name, NULL, err)) {
				chardev_free(chr);
				chr = NULL;
			}
			opts_free(&p.opts);
		}
		free(text);
		return chr;
	}
	char *name = xasprintf("%.*s", (int)word, spec);
	const char *nearest = nearest_word(name, list);
	error_set(err, EINVAL, "'%s' is not a character device%s%s%s", spec,
		  nearest ? "; did you mean '"
			  : "; use stdio, file:, unix:, tcp:, pty, pipe: or null",
		  nearest ? nearest : "", nearest ? "'?" : "");
	free(name);
	return NULL;
}
