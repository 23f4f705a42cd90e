/* SPDX-License-Identifier: MIT */
/*
 * minivm-nbd: serves a disk image by the NBD protocol. The protocol is in block/nbd_server*.c; here
 * are the command line, the sockets and the life of the process.
 *
 * The main thread waits for connections and hands them to the server. While as many clients are
 * there as --shared allows it does not accept any more: they wait in the kernel's queue. Without
 * --persistent the first client that has used the export ends the program when it is the last to
 * leave. SIGTERM, SIGINT and SIGHUP end it at any time, with everything on disk.
 */
#include "block/nbd_proto.h"
#include "block/nbd_server.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/object.h"
#include "lib/secret.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include "lib/tls.h"
#include "tools/nbd.h"
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_BITMAP_OPTIONS = 64, DEFAULT_HANDSHAKE_LIMIT_S = 10 };

struct options {
	struct nbd_source source;
	struct nbd_address address;
	const char *export_name, *description, *device, *pid_file;
	const char *tls_creds, *tls_hostname;
	const char *bitmap[MAX_BITMAP_OPTIONS + 1];
	unsigned bitmaps, shared, handshake_limit_s;
	bool read_only, persistent, fork, verbose, list, disconnect, depth;
	bool seen_cache, seen_discard, native;
	const char *detect_zeroes;
};

enum {
	OPT_CACHE = 256,
	OPT_AIO,
	OPT_DISCARD,
	OPT_DETECT_ZEROES,
	OPT_IMAGE_OPTS,
	OPT_OBJECT,
	OPT_TLS_CREDS,
	OPT_TLS_HOSTNAME,
	OPT_TLS_AUTHZ,
	OPT_FORK,
	OPT_PID_FILE,
	OPT_SELINUX,
	OPT_HANDSHAKE_LIMIT,
};

static const struct option longs[] = {
	{"help", 0, NULL, 'h'},
	{"version", 0, NULL, 'V'},
	{"port", 1, NULL, 'p'},
	{"bind", 1, NULL, 'b'},
	{"socket", 1, NULL, 'k'},
	{"shared", 1, NULL, 'e'},
	{"persistent", 0, NULL, 't'},
	{"verbose", 0, NULL, 'v'},
	{"export-name", 1, NULL, 'x'},
	{"description", 1, NULL, 'D'},
	{"offset", 1, NULL, 'o'},
	{"partition", 1, NULL, 'P'},
	{"allocation-depth", 0, NULL, 'A'},
	{"bitmap", 1, NULL, 'B'},
	{"list", 0, NULL, 'L'},
	{"object", 1, NULL, OPT_OBJECT},
	{"tls-creds", 1, NULL, OPT_TLS_CREDS},
	{"tls-hostname", 1, NULL, OPT_TLS_HOSTNAME},
	{"tls-authz", 1, NULL, OPT_TLS_AUTHZ},
	{"trace", 1, NULL, 'T'},
	{"fork", 0, NULL, OPT_FORK},
	{"pid-file", 1, NULL, OPT_PID_FILE},
	{"selinux-label", 1, NULL, OPT_SELINUX},
	{"handshake-limit", 1, NULL, OPT_HANDSHAKE_LIMIT},
	{"connect", 1, NULL, 'c'},
	{"disconnect", 0, NULL, 'd'},
	{"format", 1, NULL, 'f'},
	{"read-only", 0, NULL, 'r'},
	{"snapshot", 0, NULL, 's'},
	{"load-snapshot", 1, NULL, 'l'},
	{"nocache", 0, NULL, 'n'},
	{"cache", 1, NULL, OPT_CACHE},
	{"aio", 1, NULL, OPT_AIO},
	{"discard", 1, NULL, OPT_DISCARD},
	{"detect-zeroes", 1, NULL, OPT_DETECT_ZEROES},
	{"image-opts", 0, NULL, OPT_IMAGE_OPTS},
	{"force-share", 0, NULL, 'U'},
	{0},
};
static const char shorts[] = ":hVp:b:k:e:tvx:D:o:P:AB:LT:c:df:rsl:nU";

static void help(void)
{
	printf("minivm-nbd version %s\n"
	       "usage: minivm-nbd [options] file\n"
	       "       minivm-nbd -L [options]\n"
	       "       minivm-nbd -d device\n"
	       "Serves a disk image by the NBD protocol.\n\n"
	       "Connections:\n"
	       "  -p, --port=PORT  TCP port to listen on (10809)\n"
	       "  -b, --bind=ADDRESS  address to listen on (0.0.0.0)\n"
	       "  -k, --socket=PATH  listens on a unix socket, whatever -b and -p say\n"
	       "  -e, --shared=N  up to N clients at once (1); 0: any number\n"
	       "  -t, --persistent  goes on when the last client has left\n"
	       "  -x, --export-name=NAME  name of the export (the empty one)\n"
	       "  -D, --description=TEXT  description of the export\n"
	       "  --handshake-limit=N  drops a client that has not chosen the export within N\n"
	       "      seconds (10); 0: never\n"
	       "  --fork  goes to the background as soon as clients can connect\n"
	       "  --pid-file=PATH  writes the server's process id there\n"
	       "  -L, --list  lists what the server at -b and -p, or at -k, exports\n"
	       "  -v, --verbose  tells of clients on stderr, with --fork, too\n\n"
	       "Encryption:\n"
	       "  --object type,id=ID,...  makes an object: a secret, TLS credentials; 'help' "
	       "lists\n"
	       "      the types\n"
	       "  --tls-creds=ID  clients must use TLS with these credentials; with -L this "
	       "client\n"
	       "      does\n"
	       "  --tls-hostname=NAME  with -L: the name that the server's certificate must be "
	       "for\n\n"
	       "Part of the image:\n"
	       "  -o, --offset=OFFSET  serves what is behind OFFSET\n"
	       "  -P, --partition=N  serves a partition of the MBR: 1 to 4, from 5 on logical "
	       "ones\n"
	       "  -A, --allocation-depth  tells which image of a chain holds what\n"
	       "  -B, --bitmap=NAME  tells what a dirty bitmap says\n\n"
	       "Image:\n"
	       "  -f, --format=FORMAT  format of the image; guessed if not given\n"
	       "  --image-opts  'file' is a list of options such as driver=qcow2,file.filename=x\n"
	       "  -r, --read-only  lets nobody write\n"
	       "  -s, --snapshot  what is written is forgotten at the end\n"
	       "  -l, --load-snapshot=NAME  serves an internal snapshot: its name or id, or\n"
	       "      snapshot.id=ID,snapshot.name=NAME\n"
	       "  -n, --nocache  the same as --cache=none\n"
	       "  --cache=MODE  none, writeback (usual), writethrough, directsync or unsafe\n"
	       "  --aio=MODE  threads, native or io_uring: all the same here, each client has "
	       "threads\n"
	       "  --discard=MODE  ignore (usual) or unmap\n"
	       "  --detect-zeroes=MODE  off (usual), on or unmap\n"
	       "  -U, --force-share  reads an image that another program writes to\n\n"
	       "Kernel:\n"
	       "  -c, --connect=DEVICE  makes the image a block device, such as /dev/nbd0\n"
	       "  -d, --disconnect  ends that\n\n"
	       "Others:\n"
	       "  -T, --trace=LIST  writes what is done to stderr: nbd, block, qcow2\n"
	       "  -V, --version  shows the version\n"
	       "  -h, --help  shows this\n",
	       MINIVM_VERSION);
}

static int usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int usage(const char *fmt, ...)
{
	struct strbuf sb = STRBUF_INIT;
	va_list ap;
	va_start(ap, fmt);
	strbuf_vprintf(&sb, fmt, ap);
	va_end(ap);
	report("%s; 'minivm-nbd --help' tells more", strbuf_str(&sb));
	strbuf_free(&sb);
	return -1;
}

static int fail(const struct error *err)
{
	report("%s", err->text);
	return 1;
}

/* ---- Command line ---- */

static int unknown_option(int c, char **argv, int at)
{
	const char *given = argv[optind - 1];
	if (c == ':')
		return usage("'%s' needs a value", given);
	if (optopt && optopt < 256)
		return usage("unknown option '-%c'", optopt);
	if (optind == at)
		given = argv[at];
	char word[64];
	snprintf(word, sizeof(word), "%.60s", strncmp(given, "--", 2) == 0 ? given + 2 : given);
	word[strcspn(word, "=")] = '\0';
	const char *names[ARRAY_SIZE(longs)];
	for (size_t i = 0; i < ARRAY_SIZE(longs); i++)
		names[i] = longs[i].name;
	const char *near = nearest_word(word, names);
	if (near && strcmp(near, word) == 0)
		return usage("'--%s' takes no value", word);
	if (near)
		return usage("unknown option '%s', did you mean '--%s'?", given, near);
	return usage("unknown option '%s'", given);
}

static int set_cache(struct options *o, const char *mode)
{
	static const struct {
		const char *name;
		unsigned flags;
	} modes[] = {{"none", IMAGE_DIRECT},
		     {"off", IMAGE_DIRECT},
		     {"writeback", 0},
		     {"writethrough", IMAGE_WRITETHROUGH},
		     {"directsync", IMAGE_DIRECT | IMAGE_WRITETHROUGH},
		     {"unsafe", IMAGE_NO_FLUSH}};
	if (o->seen_cache)
		return usage("the cache mode is given twice");
	o->seen_cache = true;
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		if (strcmp(mode, modes[i].name) == 0) {
			o->source.flags |= modes[i].flags;
			return 0;
		}
	}
	return usage("invalid cache mode '%s'; there are none, writeback, writethrough, directsync "
		     "and unsafe",
		     mode);
}

static int set_discard(struct options *o, const char *mode)
{
	if (o->seen_discard)
		return usage("--discard is given twice");
	o->seen_discard = true;
	if (strcmp(mode, "unmap") == 0 || strcmp(mode, "on") == 0)
		o->source.flags |= IMAGE_DISCARD;
	else if (strcmp(mode, "ignore") != 0 && strcmp(mode, "off") != 0)
		return usage("invalid discard mode '%s'; there are ignore and unmap", mode);
	return 0;
}

static int set_detect_zeroes(struct options *o)
{
	const char *mode = o->detect_zeroes;
	if (!mode || strcmp(mode, "off") == 0)
		return 0;
	if (strcmp(mode, "on") == 0) {
		o->source.flags |= IMAGE_DETECT_ZEROES;
	} else if (strcmp(mode, "unmap") == 0) {
		if (!(o->source.flags & IMAGE_DISCARD))
			return usage("--detect-zeroes=unmap needs --discard=unmap");
		o->source.flags |= IMAGE_DETECT_UNMAP;
	} else {
		return usage("invalid detect-zeroes mode '%s'; there are off, on and unmap", mode);
	}
	return 0;
}

static int add_object(const char *text)
{
	struct error err = ERROR_INIT;
	if (strcmp(text, "help") == 0) {
		object_print_help();
		exit(0);
	}
	if (object_add(NULL, text, &err) == 0)
		return 0;
	report("%s", err.text);
	return -1;
}

static int set_number(const char *text, const char *what, uint64_t min, uint64_t max, unsigned *out)
{
	struct error err = ERROR_INIT;
	uint64_t v;
	if (parse_u64(text, what, min, max, &v, &err))
		return usage("%s", err.text);
	*out = (unsigned)v;
	return 0;
}

static int set_trace(const char *list)
{
	struct error err = ERROR_INIT;
	if (strcmp(list, "help") == 0) {
		trace_help();
		exit(0);
	}
	return trace_enable(list, &err) ? usage("%s", err.text) : 0;
}

static int set_option(struct options *o, int c, const char *value)
{
	switch (c) {
	case 'h': help(); exit(0);
	case 'V': printf("minivm-nbd version %s\n", MINIVM_VERSION); exit(0);
	case 'p': o->address.port = value; break;
	case 'b': o->address.bind = value; break;
	case 'k':
		if (value[0] != '/')
			return usage("socket path '%s' must be absolute", value);
		o->address.path = value;
		break;
	case 'e': return set_number(value, "--shared", 0, INT_MAX, &o->shared);
	case 't': o->persistent = true; break;
	case 'v': o->verbose = true; break;
	case 'x': o->export_name = value; break;
	case 'D': o->description = value; break;
	case 'o': o->source.offset = value; break;
	case 'P': return set_number(value, "--partition", 1, 128, &o->source.partition);
	case 'A': o->depth = true; break;
	case 'B':
		if (o->bitmaps == MAX_BITMAP_OPTIONS)
			return usage("there can be %d bitmaps at most", MAX_BITMAP_OPTIONS);
		o->bitmap[o->bitmaps++] = value;
		break;
	case 'L': o->list = true; break;
	case 'T': return set_trace(value);
	case 'c': o->device = value; break;
	case 'd': o->disconnect = true; break;
	case 'f': o->source.format = value; break;
	case 'r': o->read_only = true; break;
	case 's': o->source.snapshot = true; break;
	case 'l': o->source.load_snapshot = value; break;
	case 'n': return set_cache(o, "none");
	case 'U': o->source.flags |= IMAGE_FORCE_SHARE; break;
	case OPT_CACHE: return set_cache(o, value);
	case OPT_AIO:
		if (strcmp(value, "threads") && strcmp(value, "native") &&
		    strcmp(value, "io_uring"))
			return usage(
				"invalid aio mode '%s'; there are threads, native and io_uring",
				value);
		o->native = strcmp(value, "native") == 0;
		break;
	case OPT_DISCARD: return set_discard(o, value);
	case OPT_DETECT_ZEROES: o->detect_zeroes = value; break;
	case OPT_IMAGE_OPTS: o->source.image_opts = true; break;
	case OPT_OBJECT: return add_object(value);
	case OPT_TLS_CREDS: o->tls_creds = value; break;
	case OPT_TLS_HOSTNAME: o->tls_hostname = value; break;
	case OPT_TLS_AUTHZ:
		return usage("--tls-authz is not supported; sign only the certificates of clients "
			     "that may connect");
	case OPT_FORK: o->fork = true; break;
	case OPT_PID_FILE: o->pid_file = value; break;
	case OPT_SELINUX: return usage("--selinux-label is not supported");
	case OPT_HANDSHAKE_LIMIT:
		return set_number(value, "--handshake-limit", 0, INT_MAX / 1000,
				  &o->handshake_limit_s);
	}
	return 0;
}

/* What goes together; 0, or -1 after saying what does not. */
static int check_options(struct options *o, int argc, char **argv)
{
	if (o->list) {
		if (argc > optind)
			return usage("--list takes no file, but '%s' is given", argv[optind]);
		if (o->device || o->disconnect)
			return usage("--list does not go with -c or -d");
		if (o->export_name || o->description || o->source.offset || o->source.partition ||
		    o->bitmaps || o->depth || o->shared != 1 || o->source.format)
			return usage("--list does not go with options for what is served");
		if (o->source.snapshot || o->source.load_snapshot || o->source.image_opts)
			return usage("--list does not go with options for an image");
	} else {
		if (argc == optind)
			return usage(o->disconnect ? "-d: the device is missing"
						   : "a file is missing");
		if (argc > optind + 1)
			return usage("'%s' is one file too many", argv[optind + 1]);
		o->source.name = argv[optind];
		if (o->tls_hostname)
			return usage("--tls-hostname only goes with --list");
	}
	if (o->source.image_opts && o->source.format)
		return usage("--image-opts and -f do not go together: say driver=");
	if (o->native && !(o->source.flags & IMAGE_DIRECT) && !o->source.image_opts)
		return usage("--aio=native needs --cache=none or --cache=directsync");
	if (o->tls_creds && o->device)
		return usage("TLS does not go with -c");
	if (nbd_activated()) {
		if (o->device || o->disconnect || o->list)
			return usage("socket activation does not go with -c, -d or --list");
		if (o->address.path || o->address.bind || o->address.port)
			return usage("socket activation does not go with -k, -b or -p");
	}
	return set_detect_zeroes(o);
}

static int parse(struct options *o, int argc, char **argv)
{
	opterr = 0;
	for (;;) {
		int at = optind;
		int c = getopt_long(argc, argv, shorts, longs, NULL);
		if (c == -1)
			return check_options(o, argc, argv);
		if (c == '?' || c == ':')
			return unknown_option(c, argv, at);
		if (set_option(o, c, optarg))
			return -1;
	}
}

/* ---- Background ---- */

/* Waits for the child to be ready, or to have said why not; the exit status. */
static int await_child(int fd)
{
	char ready = 0;
	ssize_t n;
	do
		n = read(fd, &ready, 1);
	while (n < 0 && errno == EINTR);
	return n == 1 && ready ? 0 : 1;
}

/* Returns in the child only, with the end of a pipe to say that it is ready. */
static int go_background(struct error *err)
{
	int pipe_fd[2];
	if (pipe2(pipe_fd, O_CLOEXEC) < 0)
		return error_errno(err, errno, "cannot fork");
	/* The activated socket is meant for this process: the child goes on under its id. */
	bool activated = nbd_activated();
	pid_t pid = fork();
	if (pid < 0)
		return error_errno(err, errno, "cannot fork");
	if (pid) {
		close(pipe_fd[1]);
		_exit(await_child(pipe_fd[0]));
	}
	close(pipe_fd[0]);
	setsid();
	if (activated) {
		char own[32];
		snprintf(own, sizeof(own), "%ld", (long)getpid());
		setenv("LISTEN_PID", own, 1);
	}
	return pipe_fd[1];
}

/* The parent may go; nobody reads what is said from here on. */
static void say_ready(int ready, bool verbose)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		if (!verbose)
			dup2(null, STDERR_FILENO);
		close(null);
	}
	if (write_full(ready, "\1", 1))
		warn("cannot tell that the server runs");
	close(ready);
}

/* The file stays locked while the process lives. */
static int write_pid_file(const char *path, struct error *err)
{
	char text[32];
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return error_errno(err, errno, "cannot create '%s'", path);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	if (fcntl(fd, F_SETLK, &lock) < 0) {
		int code = errno;
		close(fd);
		return code == EAGAIN || code == EACCES
			       ? error_set(err, EBUSY,
					   "'%s' is locked: the process it names still runs", path)
			       : error_errno(err, code, "cannot lock '%s'", path);
	}
	int len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	int rc = ftruncate(fd, 0) < 0 ? -errno : write_full(fd, text, (size_t)len);
	if (rc) {
		close(fd);
		return error_errno(err, -rc, "cannot write '%s'", path);
	}
	return 0;
}

/* ---- Serving ---- */

struct life {
	int event; /* an eventfd: a client has gone */
	bool used; /* atomic: one of them had come as far as using the export */
};

static void client_gone(void *opaque, bool negotiated)
{
	struct life *life = opaque;
	if (negotiated)
		__atomic_store_n(&life->used, true, __ATOMIC_RELEASE);
	if (eventfd_write(life->event, 1) < 0)
		warn("a client's end goes unnoticed");
}

static void accept_one(const struct options *o, int listener, struct nbd_server *server)
{
	struct error err = ERROR_INIT;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd >= 0 && nbd_server_add_client(server, fd, &err))
		warn("%s", err.text);
	else if (fd >= 0 && o->verbose)
		report("a client has connected");
	/* Without a descriptor or memory the connection stays in the queue: do not spin on it. */
	if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
		warn("cannot accept a client: %s", strerror(errno));
		poll(NULL, 0, 100);
	}
}

/* Until a signal or the last client's end. */
static void serve(const struct options *o, struct nbd_server *server, struct life *life,
		  int signals, const int *listeners, int count)
{
	struct pollfd fds[NBD_LISTENERS + 2];
	for (;;) {
		unsigned clients = nbd_server_clients(server);
		if (!clients && !o->persistent && __atomic_load_n(&life->used, __ATOMIC_ACQUIRE))
			return;
		bool full = o->shared && clients >= o->shared;
		fds[0] = (struct pollfd){.fd = signals, .events = POLLIN};
		fds[1] = (struct pollfd){.fd = life->event, .events = POLLIN};
		for (int i = 0; i < count; i++)
			fds[2 + i] =
				(struct pollfd){.fd = full ? -1 : listeners[i], .events = POLLIN};
		if (poll(fds, (nfds_t)(2 + count), -1) < 0)
			continue;
		if (fds[0].revents)
			return;
		eventfd_t left;
		if (fds[1].revents && eventfd_read(life->event, &left) == 0 && o->verbose)
			report("%llu client%s left", (unsigned long long)left,
			       left == 1 ? " has" : "s have");
		for (int i = 0; i < count; i++) {
			if (!fds[2 + i].revents)
				continue;
			if (!o->shared || nbd_server_clients(server) < o->shared)
				accept_one(o, listeners[i], server);
		}
	}
}

struct device_thread {
	int device, event;
	int result;
	struct error err;
};

static void *run_device(void *arg)
{
	struct device_thread *t = arg;
	t->result = nbd_device_run(t->device, &t->err);
	eventfd_write(t->event, 1);
	return NULL;
}

/* The kernel's client, until the device is disconnected or a signal comes. */
static int serve_device(const struct options *o, struct nbd_server *server, struct life *life,
			int signals, int ready, struct error *err)
{
	bool read_only = o->read_only || o->source.load_snapshot;
	int fd = nbd_device_connect(o->device, server, o->source.size, read_only, err);
	if (fd < 0)
		return fd;
	struct device_thread t = {.device = fd, .event = life->event};
	pthread_t thread;
	int code = pthread_create(&thread, NULL, run_device, &t);
	if (code) {
		close(fd);
		return error_errno(err, code, "cannot start a thread");
	}
	if (o->verbose || !o->fork)
		fprintf(stderr, "NBD device %s is now connected to %s\n", o->device,
			o->source.name);
	if (ready >= 0)
		say_ready(ready, o->verbose);
	struct pollfd fds[] = {{.fd = signals, .events = POLLIN},
			       {.fd = life->event, .events = POLLIN}};
	while (poll(fds, 2, -1) < 0)
		;
	if (fds[0].revents)
		nbd_device_stop(fd);
	pthread_join(thread, NULL);
	if (t.result)
		*err = t.err;
	return t.result;
}

/* SIGTERM and the like as a file; blocked in all threads. */
static int signal_file(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

static int add_export(const struct options *o, struct nbd_server *server, struct image *img,
		      struct error *err)
{
	struct nbd_export_config export = {
		.name = o->export_name ? o->export_name : "",
		.description = o->description,
		.image = img,
		.offset = o->source.from,
		.size = o->source.size,
		.read_only = o->read_only || !image_writable(img),
		.multi_conn = o->shared != 1,
		.allocation_depth = o->depth,
		.bitmaps = o->bitmap,
	};
	return nbd_server_add_export(server, &export, err);
}

/* From the open image to the end. */
static int run(struct options *o, struct image *img, struct tls_creds *tls, int ready,
	       struct error *err)
{
	struct life life = {.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	int listeners[NBD_LISTENERS], count = 0, rc = 0, signals = signal_file();
	if (life.event < 0 || signals < 0)
		return error_errno(err, errno, "cannot start serving");
	struct nbd_server_config config = {.tls = tls,
					   .handshake_limit_ms = o->handshake_limit_s * 1000,
					   .gone = client_gone,
					   .opaque = &life};
	struct nbd_server *server = nbd_server_new(&config);
	rc = add_export(o, server, img, err);
	if (!rc && !o->device) {
		count = nbd_listen(&o->address, listeners, err);
		rc = count < 0 ? count : 0;
	}
	if (!rc && o->pid_file)
		rc = write_pid_file(o->pid_file, err);
	if (!rc && o->device) {
		rc = serve_device(o, server, &life, signals, ready, err);
	} else if (!rc) {
		if (ready >= 0)
			say_ready(ready, o->verbose);
		serve(o, server, &life, signals, listeners, count);
	}
	for (int i = 0; i < count; i++)
		close(listeners[i]);
	if (count > 0 && o->address.path)
		unlink(o->address.path);
	nbd_server_free(server);
	close(signals);
	close(life.event);
	return rc;
}

static int open_and_run(struct options *o, struct tls_creds *tls)
{
	struct error err = ERROR_INIT;
	int ready = -1;
	if (o->fork && (ready = go_background(&err)) < 0)
		return fail(&err);
	struct image *img = nbd_open(&o->source, &err);
	int rc = img ? run(o, img, tls, ready, &err) : -EINVAL;
	image_close(img);
	return rc ? fail(&err) : 0;
}

int main(int argc, char **argv)
{
	static const struct object_type *const types[] = {&secret_type, &tls_creds_x509_type,
							  &tls_creds_psk_type, &tls_creds_anon_type,
							  NULL};
	struct options o = {.shared = 1, .handshake_limit_s = DEFAULT_HANDSHAKE_LIMIT_S};
	struct error err = ERROR_INIT;
	struct tls_creds *tls = NULL;
	log_set_program("minivm-nbd");
	object_set_types(types);
	if (parse(&o, argc, argv))
		return 1;
	if (o.disconnect) {
		if (nbd_device_disconnect(o.source.name, &err))
			return fail(&err);
		printf("%s disconnected\n", o.source.name);
		return 0;
	}
	if (o.tls_creds) {
		tls = tls_creds_find(o.tls_creds, o.list ? TLS_CLIENT : TLS_SERVER, &err);
		if (!tls)
			return fail(&err);
	}
	if (!o.read_only && !o.source.load_snapshot && !o.source.snapshot)
		o.source.flags |= IMAGE_WRITABLE;
	int status;
	if (o.list)
		status = nbd_list(&o.address, tls, o.tls_hostname, &err) ? fail(&err) : 0;
	else
		status = open_and_run(&o, tls);
	tls_creds_unref(tls);
	object_free_all(OBJECT_FIRST);
	object_free_all(OBJECT_LAST);
	return status;
}
