/* SPDX-License-Identifier: MIT */
/*
 * Sockets of minivm-nbd: those it listens on, its own or systemd's (sd_listen_fds(3): LISTEN_PID is
 * this process, LISTEN_FDS sockets from descriptor 3 on), and the one that --list connects.
 */
#include "lib/text.h"
#include "tools/nbd.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIRST_ACTIVATED = 3 };

int nbd_activated(void)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	uint64_t n, owner;
	if (!pid || !fds || parse_u64(pid, "LISTEN_PID", 1, INT32_MAX, &owner, NULL) ||
	    (pid_t)owner != getpid() ||
	    parse_u64(fds, "LISTEN_FDS", 1, INT32_MAX - FIRST_ACTIVATED, &n, NULL))
		return 0;
	return (int)n;
}

static int set_flags(int fd, bool blocking)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ||
	    fcntl(fd, F_SETFL, blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

static int take_activated(int n, int fds[NBD_LISTENERS], struct error *err)
{
	if (n != 1)
		return error_set(err, EINVAL, "socket activation with %d sockets; one is expected",
				 n);
	struct stat st;
	if (fstat(FIRST_ACTIVATED, &st) < 0 || !S_ISSOCK(st.st_mode))
		return error_set(err, EINVAL,
				 "LISTEN_FDS is set, but file descriptor %d is no socket",
				 FIRST_ACTIVATED);
	int rc = set_flags(FIRST_ACTIVATED, false);
	if (rc)
		return error_errno(err, -rc, "cannot use the activated socket");
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	fds[0] = FIRST_ACTIVATED;
	return 1;
}

static int unix_address(const char *path, struct sockaddr_un *un, struct error *err)
{
	*un = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(un->sun_path))
		return error_set(err, ENAMETOOLONG,
				 "socket path '%s' is too long; at most %zu bytes are possible",
				 path, sizeof(un->sun_path) - 1);
	memcpy(un->sun_path, path, strlen(path));
	return 0;
}

static int listen_unix(const char *path, int fds[NBD_LISTENERS], struct error *err)
{
	struct sockaddr_un un;
	struct stat st;
	int rc = unix_address(path, &un, err);
	if (rc)
		return rc;
	/* A socket that a dead server left is in the way; nothing else is removed. */
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof(un)) < 0 ||
	    listen(fd, SOMAXCONN) < 0 || (rc = set_flags(fd, false)) < 0) {
		rc = error_errno(err, rc ? -rc : errno, "cannot listen on '%s'", path);
		if (fd >= 0)
			close(fd);
		return rc;
	}
	fds[0] = fd;
	return 1;
}

static struct addrinfo *resolve(const struct nbd_address *a, bool passive, struct error *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = passive ? AI_PASSIVE : AI_ADDRCONFIG};
	struct addrinfo *list = NULL;
	const char *host = a->bind ? a->bind : "0.0.0.0", *port = a->port ? a->port : "10809";
	uint64_t number;
	if (host[0] == '\0')
		host = NULL;
	/* getaddrinfo() would cut a number to 16 bits. */
	if (port[0] >= '0' && port[0] <= '9' && parse_u64(port, "port", 0, 65535, &number, err))
		return NULL;
	int code = getaddrinfo(host, port, &hints, &list);
	if (code) {
		error_set(err, code == EAI_SYSTEM ? errno : EINVAL,
			  "cannot resolve address '%s', port '%s': %s", host ? host : "", port,
			  gai_strerror(code));
		return NULL;
	}
	return list;
}

static int listen_tcp(const struct nbd_address *a, int fds[NBD_LISTENERS], struct error *err)
{
	struct addrinfo *list = resolve(a, true, err);
	int n = 0, rc = 0;
	if (!list)
		return -EINVAL;
	for (struct addrinfo *i = list; i && n < NBD_LISTENERS; i = i->ai_next) {
		int on = 1;
		int fd = socket(i->ai_family, i->ai_socktype | SOCK_CLOEXEC, i->ai_protocol);
		if (fd >= 0) {
			setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
			if (i->ai_family == AF_INET6)
				setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
			if (bind(fd, i->ai_addr, i->ai_addrlen) == 0 &&
			    listen(fd, SOMAXCONN) == 0 && set_flags(fd, false) == 0) {
				fds[n++] = fd;
				continue;
			}
		}
		rc = -errno;
		if (fd >= 0)
			close(fd);
		/* A name's other addresses may be of a family that the host lacks; one in use is an
		 * error in any case. */
		if (rc == -EADDRINUSE)
			break;
	}
	freeaddrinfo(list);
	if (n && rc != -EADDRINUSE)
		return n;
	while (n)
		close(fds[--n]);
	return error_errno(err, -rc, "cannot listen on '%s', port '%s'",
			   a->bind ? a->bind : "0.0.0.0", a->port ? a->port : "10809");
}

int nbd_listen(const struct nbd_address *a, int fds[NBD_LISTENERS], struct error *err)
{
	int activated = nbd_activated();
	if (activated)
		return take_activated(activated, fds, err);
	return a->path ? listen_unix(a->path, fds, err) : listen_tcp(a, fds, err);
}

int nbd_connect(const struct nbd_address *a, struct error *err)
{
	int code = 0;
	if (a->path) {
		struct sockaddr_un un;
		int rc = unix_address(a->path, &un, err);
		if (rc)
			return rc;
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0)
			return fd;
		code = errno;
		if (fd >= 0)
			close(fd);
		return error_errno(err, code, "cannot connect to '%s'", a->path);
	}
	struct addrinfo *list = resolve(a, false, err);
	if (!list)
		return -EINVAL;
	for (struct addrinfo *i = list; i; i = i->ai_next) {
		int fd = socket(i->ai_family, i->ai_socktype | SOCK_CLOEXEC, i->ai_protocol);
		if (fd >= 0 && connect(fd, i->ai_addr, i->ai_addrlen) == 0) {
			freeaddrinfo(list);
			return fd;
		}
		code = errno;
		if (fd >= 0)
			close(fd);
	}
	freeaddrinfo(list);
	return error_errno(err, code, "cannot connect to '%s', port '%s'",
			   a->bind ? a->bind : "0.0.0.0", a->port ? a->port : "10809");
}
