/* SPDX-License-Identifier: MIT */
/*
 * Opening a TAP interface: by name, by descriptor, or through the bridge helper.
 *
 * The helper's protocol is QEMU's: it is started with --use-vnet --fd=N --br=BRIDGE, where N is one
 * end of a unix socket pair, and sends one byte with the interface's descriptor (SCM_RIGHTS).
 *
 * Document: Linux, Documentation/networking/tuntap.rst; unix(7), "Ancillary messages".
 */
#include "net/tap_open.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { VNET_HDR_PLAIN = 10, HELPER_ARGS_MAX = 64 };

static const char tun_path[] = "/dev/net/tun";
static const char default_bridge[] = "br0";
static const char default_script[] = "/etc/qemu-ifup";
static const char default_downscript[] = "/etc/qemu-ifdown";
static const char *const helpers[] = {
	"/usr/lib/qemu/qemu-bridge-helper",
	"/usr/libexec/qemu-bridge-helper",
	"/usr/local/libexec/qemu-bridge-helper",
};

const char *const tap_source_properties[] = {
	"ifname",   "script", "downscript", "br",    "helper",  "fd", "fds",
	"vnet_hdr", "queues", "sndbuf",     "vhost", "vhostfd", NULL,
};
const char *const tap_bridge_properties[] = {"br", "helper", NULL};

/* ---- Child processes ---- */

/* In the child, before exec: the signals that minivm blocks, as they were. */
static void unblock_signals(void)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_UNBLOCK, &all, NULL);
}

static int wait_for(pid_t pid)
{
	int status;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run_script(const char *script, const char *ifname, struct error *err)
{
	if (access(script, X_OK) < 0)
		return error_errno(err, errno, "cannot run the script '%s'", script);
	pid_t pid = fork();
	if (pid < 0)
		return error_errno(err, errno, "cannot start the script '%s'", script);
	if (pid == 0) {
		unblock_signals();
		execl(script, script, ifname, (char *)NULL);
		_exit(127);
	}
	int status = wait_for(pid);
	if (status == 0)
		return 0;
	return error_set(err, EIO,
			 "the script '%s %s' failed with status %d; script=no leaves it out",
			 script, ifname, status);
}

/* ---- By name ---- */

static void user_name(char *name, size_t size)
{
	const struct passwd *who = getpwuid(getuid());
	if (who)
		snprintf(name, size, "%s", who->pw_name);
	else
		snprintf(name, size, "%u", (unsigned)getuid());
}

static int no_permission(int code, const char *ifname, unsigned queues, struct error *err)
{
	const char *name = *ifname && !strchr(ifname, '%') ? ifname : "tap0";
	char user[64];
	user_name(user, sizeof(user));
	return error_set(
		err, code,
		"cannot open the interface '%s': %s; without CAP_NET_ADMIN it must exist "
		"and be yours: 'sudo ip tuntap add dev %s mode tap%s user %s && sudo ip link "
		"set %s up', then ifname=%s,script=no,downscript=no",
		*ifname ? ifname : "tap%d", strerror(code), name, queues > 1 ? " multi_queue" : "",
		user, name, name);
}

static int open_tun(const char *ifname, unsigned queues, bool vnet_hdr, char got[16],
		    struct error *err)
{
	struct ifreq request = {0};
	int fd = open(tun_path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && (errno == EACCES || errno == EPERM))
		return error_set(err, errno,
				 "cannot open %s: %s; your user needs access to it, or use fd= or "
				 "the user network",
				 tun_path, strerror(errno));
	if (fd < 0)
		return error_errno(err, errno, "cannot open %s (is the module tun loaded?)",
				   tun_path);
	request.ifr_flags = IFF_TAP | IFF_NO_PI;
	if (vnet_hdr)
		request.ifr_flags |= IFF_VNET_HDR;
	if (queues > 1)
		request.ifr_flags |= IFF_MULTI_QUEUE;
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", ifname);
	if (ioctl(fd, TUNSETIFF, &request) < 0) {
		int code = errno;
		close(fd);
		if (code == EPERM || code == EACCES)
			return no_permission(code, ifname, queues, err);
		if (code == EBUSY)
			return error_set(err, code,
					 "the interface '%s' is in use by another program", ifname);
		if (code == EINVAL)
			return error_set(err, code, "the interface '%s' is not a tap device%s",
					 ifname,
					 queues > 1 ? " with several queues (multi_queue)"
						    : " with one queue");
		return error_errno(err, code, "cannot open the interface '%s'", ifname);
	}
	memcpy(got, request.ifr_name, 16);
	got[15] = 0;
	return fd;
}

static bool kernel_has_vnet_hdr(void)
{
	unsigned features = 0;
	int fd = open(tun_path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (ioctl(fd, TUNGETFEATURES, &features) < 0)
		features = 0;
	close(fd);
	return features & IFF_VNET_HDR;
}

static int open_by_name(struct tap_source *s, const char *ifname, unsigned queues, bool vnet_hdr,
			bool vnet_hdr_asked, struct error *err)
{
	bool able = vnet_hdr && kernel_has_vnet_hdr();
	if (vnet_hdr_asked && vnet_hdr && !able && access(tun_path, R_OK | W_OK) == 0)
		return error_set(err, ENOTSUP, "vnet_hdr=on: this kernel has no such header");
	for (unsigned n = 0; n < queues; n++) {
		int fd = open_tun(n ? s->ifname : ifname, queues, able, s->ifname, err);
		if (fd < 0)
			return fd;
		s->fd[s->fd_count++] = fd;
	}
	s->hdr_len = able ? VNET_HDR_PLAIN : 0;
	return 0;
}

/* ---- By descriptor ---- */

static int take_descriptor(struct tap_source *s, int fd, struct error *err)
{
	struct ifreq request = {0};
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0)
		return error_errno(err, errno, "descriptor %d", fd);
	if (ioctl(fd, TUNGETIFF, &request) < 0)
		return error_set(err, EINVAL, "descriptor %d is not a tap interface", fd);
	if ((request.ifr_flags & IFF_TUN) || !(request.ifr_flags & IFF_NO_PI))
		return error_set(err, EINVAL, "descriptor %d must be of mode IFF_TAP | IFF_NO_PI",
				 fd);
	if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return error_errno(err, errno, "descriptor %d", fd);
	unsigned hdr_len = 0;
	if (request.ifr_flags & IFF_VNET_HDR) {
		int len = VNET_HDR_PLAIN;
		if (ioctl(fd, TUNSETVNETHDRSZ, &len) < 0)
			return error_errno(err, errno, "descriptor %d: header size", fd);
		hdr_len = VNET_HDR_PLAIN;
	}
	if (s->fd_count && hdr_len != s->hdr_len)
		return error_set(err, EINVAL, "the descriptors differ in IFF_VNET_HDR");
	if (s->fd_count == NET_MAX_QUEUES)
		return error_set(err, EINVAL, "there can be at most %d queues", NET_MAX_QUEUES);
	s->hdr_len = hdr_len;
	memcpy(s->ifname, request.ifr_name, sizeof(s->ifname));
	s->ifname[sizeof(s->ifname) - 1] = 0;
	s->fd[s->fd_count++] = fd;
	return 0;
}

static int take_descriptors(struct tap_source *s, const char *list, struct error *err)
{
	char *copy = xstrdup(list), *save = NULL;
	int r = 0;
	if (!*copy)
		r = error_set(err, EINVAL, "fd= and fds= need numbers of open descriptors");
	for (char *part = strtok_r(copy, ":", &save); part && r == 0;
	     part = strtok_r(NULL, ":", &save)) {
		uint64_t fd;
		r = parse_u64(part, "a descriptor", 0, INT32_MAX, &fd, err);
		if (r == 0)
			r = take_descriptor(s, (int)fd, err);
	}
	free(copy);
	return r;
}

/* ---- Through the helper ---- */

static const char *find_helper(void)
{
	for (size_t n = 0; n < sizeof(helpers) / sizeof(*helpers); n++)
		if (access(helpers[n], X_OK) == 0)
			return helpers[n];
	return NULL;
}

static int receive_descriptor(int socket)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr message = {.msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control)};
	ssize_t r;
	do
		r = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	while (r < 0 && errno == EINTR);
	struct cmsghdr *c = r > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	int fd = -1;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

static void exec_helper(const char *helper, const char *bridge, int fd, int messages)
{
	char *fd_arg = xasprintf("--fd=%d", fd), *br_arg = xasprintf("--br=%s", bridge);
	unblock_signals();
	if (messages >= 0)
		dup2(messages, STDERR_FILENO);
	/* A helper with arguments of its own is a command line, which may name the bridge. */
	if (strpbrk(helper, " \t")) {
		if (strstr(helper, "--br="))
			*br_arg = 0;
		char *line = xasprintf("%s --use-vnet %s %s", helper, fd_arg, br_arg);
		execl("/bin/sh", "sh", "-c", line, (char *)NULL);
	} else {
		execl(helper, helper, "--use-vnet", fd_arg, br_arg, (char *)NULL);
	}
	_exit(127);
}

/* The first line of what the helper had to say. */
static void read_messages(int fd, char *text, size_t size)
{
	ssize_t len = fd >= 0 ? pread(fd, text, size - 1, 0) : -1;
	text[len > 0 ? len : 0] = 0;
	text[strcspn(text, "\r\n")] = 0;
}

static int open_by_helper(struct tap_source *s, const char *helper, const char *bridge,
			  struct error *err)
{
	char said[256];
	int pair[2];
	if (!helper && !(helper = find_helper()))
		return error_set(err, ENOENT,
				 "there is no qemu-bridge-helper; install qemu-system-common or "
				 "name one with helper=");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, errno, "cannot make a socket for '%s'", helper);
	int messages = memfd_create("messages", MFD_CLOEXEC);
	pid_t pid = fork();
	if (pid == 0) {
		fcntl(pair[1], F_SETFD, 0);
		exec_helper(helper, bridge, pair[1], messages);
	}
	close(pair[1]);
	int fd = pid < 0 ? -1 : receive_descriptor(pair[0]);
	close(pair[0]);
	int status = pid < 0 ? -1 : wait_for(pid);
	read_messages(messages, said, sizeof(said));
	if (messages >= 0)
		close(messages);
	if (fd < 0 && status == 127)
		return error_set(err, ENOENT, "cannot run the bridge helper '%s'", helper);
	if (fd < 0)
		return error_set(
			err, EPERM,
			"'%s' gave no interface on bridge '%s' (%s%sstatus %d); the bridge must "
			"exist, /etc/qemu/bridge.conf must allow it ('allow %s') and the helper "
			"must be set-uid root",
			helper, bridge, said, *said ? ", " : "", status, bridge);
	int r = take_descriptor(s, fd, err);
	if (r < 0) {
		close(fd);
		return r;
	}
	if (*said)
		warn("%s: %s", helper, said);
	s->helper = xstrdup(helper);
	s->bridge = xstrdup(bridge);
	return 0;
}

/* ---- All together ---- */

/* What is not given is QEMU's script where the host has one; "no" is none. */
static char *choose_script(struct opts *opts, const char *key, const char *fallback)
{
	const char *given = opts_get(opts, key);
	if (!given)
		return access(fallback, X_OK) == 0 ? xstrdup(fallback) : NULL;
	return strcmp(given, "no") && *given ? xstrdup(given) : NULL;
}

static int conflict(struct opts *opts, const char *way, const char *const *others,
		    struct error *err)
{
	for (; *others; others++)
		if (opts_has(opts, *others))
			return error_set(err, EINVAL, "'%s' does not go with '%s'", *others, way);
	return 0;
}

static int open_source(struct tap_source *s, struct opts *opts, struct error *err)
{
	static const char *const with_fd[] = {"ifname", "script", "downscript", "br",
					      "helper", "queues", "vnet_hdr",   NULL};
	static const char *const with_br[] = {"ifname", "script",   "downscript",
					      "queues", "vnet_hdr", NULL};
	const char *fd = opts_get(opts, "fd"), *fds = opts_get(opts, "fds");
	const char *br = opts_get(opts, "br"), *helper = opts_get(opts, "helper");
	const char *ifname = opts_get(opts, "ifname");
	uint64_t queues = 1, sndbuf = 0;
	bool vnet_hdr = true, vhost = false;
	int r;
	if ((r = opts_get_bool(opts, "vhost", &vhost, err)) < 0 ||
	    (r = opts_get_bool(opts, "vnet_hdr", &vnet_hdr, err)) < 0 ||
	    (r = opts_get_u64(opts, "queues", &queues, err)) < 0 ||
	    (r = opts_get_size(opts, "sndbuf", &sndbuf, err)) < 0)
		return r;
	if (vhost || opts_has(opts, "vhostfd"))
		return error_set(err, ENOTSUP, "there is no vhost; leave vhost=on out");
	if (queues < 1 || queues > NET_MAX_QUEUES)
		return error_set(err, EINVAL, "'queues' must be 1 to %d", NET_MAX_QUEUES);
	if (ifname && strlen(ifname) >= sizeof(s->ifname))
		return error_set(err, EINVAL, "'ifname' has more than %zu characters",
				 sizeof(s->ifname) - 1);
	if (fd && fds)
		return error_set(err, EINVAL, "give either fd= or fds=");
	if (fd || fds) {
		if ((r = conflict(opts, fd ? "fd" : "fds", with_fd, err)) < 0)
			return r;
		return take_descriptors(s, fd ? fd : fds, err);
	}
	if (br || helper) {
		if ((r = conflict(opts, br ? "br" : "helper", with_br, err)) < 0)
			return r;
		return open_by_helper(s, helper, br ? br : default_bridge, err);
	}
	r = open_by_name(s, ifname ? ifname : "tap%d", (unsigned)queues, vnet_hdr,
			 opts_has(opts, "vnet_hdr"), err);
	if (r < 0)
		return r;
	int limit = sndbuf > INT32_MAX ? INT32_MAX : (int)sndbuf;
	for (unsigned n = 0; limit && n < s->fd_count; n++)
		if (ioctl(s->fd[n], TUNSETSNDBUF, &limit) < 0)
			return error_errno(err, errno, "sndbuf=%d", limit);
	s->script = choose_script(opts, "script", default_script);
	s->downscript = choose_script(opts, "downscript", default_downscript);
	return s->script ? run_script(s->script, s->ifname, err) : 0;
}

static int open_bridge(struct tap_source *s, struct opts *opts, struct error *err)
{
	const char *br = opts_get(opts, "br");
	return open_by_helper(s, opts_get(opts, "helper"), br ? br : default_bridge, err);
}

int tap_source_open(struct tap_source *s, struct opts *opts, bool bridge, struct error *err)
{
	*s = (struct tap_source){0};
	int r = bridge ? open_bridge(s, opts, err) : open_source(s, opts, err);
	if (r < 0) {
		/* The script that failed has nothing to undo. */
		free(s->downscript);
		s->downscript = NULL;
		tap_source_close(s);
		return r;
	}
	/* Finished frames until a card asks for more. */
	int len = (int)s->hdr_len;
	for (unsigned n = 0; len && n < s->fd_count; n++)
		if (ioctl(s->fd[n], TUNSETVNETHDRSZ, &len) == 0)
			ioctl(s->fd[n], TUNSETOFFLOAD, 0);
	return 0;
}

void tap_source_close(struct tap_source *s)
{
	struct error err = ERROR_INIT;
	if (s->downscript && run_script(s->downscript, s->ifname, &err) < 0)
		warn("%s", err.text);
	for (unsigned n = 0; n < s->fd_count; n++)
		close(s->fd[n]);
	free(s->script);
	free(s->downscript);
	free(s->helper);
	free(s->bridge);
	*s = (struct tap_source){0};
}
