/* SPDX-License-Identifier: MIT */
/*
 * VDE: a port of a vde_switch, through libvdeplug, which knows where switches listen and how to
 * talk to them. A datagram on its descriptor is a frame.
 *
 * Document: libvdeplug(3).
 */
#include "net/netdev.h"

#ifdef HAVE_VDE
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/text.h"
#include <errno.h>
#include <fcntl.h>
#include <libvdeplug.h>
#include <stdlib.h>

enum { FRAMES_A_TURN = 64 };

struct vde {
	struct net *net;
	struct net_port *port;
	VDECONN *plug;
	struct loop_fd *watch;
	char *sock;
	bool wait_write, gone;
	size_t held;
	uint8_t frame[NET_FRAME_MAX];
};

static void vde_ready(void *opaque, unsigned events);

static void update_watch(struct vde *v)
{
	unsigned events = (v->held ? 0u : LOOP_READ) | (v->wait_write ? LOOP_WRITE : 0u);
	if (!events || v->gone) {
		loop_fd_free(v->watch);
		v->watch = NULL;
	} else if (v->watch) {
		loop_fd_set_events(v->watch, events);
	} else {
		v->watch = loop_fd_new(net_loop(v->net), vde_datafd(v->plug), events, vde_ready, v,
				       NULL);
	}
}

static void pass_up(struct vde *v, size_t len)
{
	struct iovec iov = {v->frame, len};
	v->held = net_try_send(v->port, 0, &iov, 1) ? 0 : len;
}

static void vde_ready(void *opaque, unsigned events)
{
	struct vde *v = opaque;
	if (events & LOOP_WRITE) {
		v->wait_write = false;
		net_receive_ready(v->port, 0);
	}
	for (unsigned n = 0; n < FRAMES_A_TURN && !v->held; n++) {
		ssize_t len = vde_recv(v->plug, v->frame, sizeof(v->frame), 0);
		if (len < 0 && errno == EINTR)
			continue;
		if (len <= 0)
			break;
		pass_up(v, (size_t)len);
	}
	if (events & LOOP_ERROR) {
		warn("vde: the switch '%s' is gone", v->sock);
		v->gone = true;
	}
	update_watch(v);
}

static void vde_resume(void *opaque, unsigned queue)
{
	struct vde *v = opaque;
	if (v->held)
		pass_up(v, v->held);
	update_watch(v);
}

static bool vde_receive(void *opaque, unsigned queue, const struct iovec *iov, int count,
			size_t len)
{
	struct vde *v = opaque;
	uint8_t *copy = NULL;
	const void *frame = iov->iov_base;
	ssize_t r;
	if (v->gone)
		return true;
	if (count > 1) {
		copy = xmalloc(len); /* at most NET_FRAME_MAX */
		net_iov_copy(copy, len, iov, count, 0);
		frame = copy;
	}
	do
		r = vde_send(v->plug, frame, len, 0);
	while (r < 0 && errno == EINTR);
	free(copy);
	if (r < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
		v->wait_write = true;
		update_watch(v);
		return false;
	}
	return true;
}

static void vde_describe(void *opaque, struct strbuf *out)
{
	struct vde *v = opaque;
	strbuf_printf(out, "type=vde,sock=%s%s", v->sock, v->gone ? " (gone)" : "");
}

static void vde_free(void *opaque)
{
	struct vde *v = opaque;
	loop_fd_free(v->watch);
	if (v->plug)
		vde_close(v->plug);
	free(v->sock);
	free(v);
}

static const struct net_port_ops vde_ops = {
	.receive = vde_receive,
	.resume = vde_resume,
	.describe = vde_describe,
	.free = vde_free,
};

static int nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

static int plug_in(struct vde *v, struct opts *opts, struct error *err)
{
	const char *sock = opts_get(opts, "sock"), *group = opts_get(opts, "group");
	uint64_t port = 0, mode = 0700;
	char program[] = "minivm";
	int r;
	if ((r = opts_get_u64(opts, "port", &port, err)) < 0)
		return r;
	const char *mode_text = opts_get(opts, "mode");
	if (mode_text) {
		char *end;
		mode = strtoul(mode_text, &end, 8);
		if (!*mode_text || *end || mode > 07777)
			return error_set(err, EINVAL,
					 "'mode' must be an octal number such as 0700");
	}
	if (port > UINT16_MAX)
		return error_set(err, EINVAL, "'port' must be 0 to %d", UINT16_MAX);
	struct vde_open_args args = {
		.port = (int)port, .group = (char *)group, .mode = (mode_t)mode};
	v->sock = xstrdup(sock ? sock : "");
	errno = 0;
	v->plug = vde_open(v->sock, program, &args);
	if (!v->plug)
		return error_set(err, errno ? errno : ENOENT,
				 "cannot plug into the switch '%s'; is vde_switch running?",
				 sock ? sock : "(default)");
	if (nonblocking(vde_datafd(v->plug)) < 0)
		return error_errno(err, errno, "vde");
	return 0;
}

static struct net_port *vde_plug_open(const struct netdev_env *env, const char *id,
				      struct opts *opts, struct error *err)
{
	struct vde *v = xcalloc(1, sizeof(*v));
	v->net = env->net;
	if (plug_in(v, opts, err) == 0)
		v->port = net_port_new(env->net, NET_BACKEND, id, "vde", 1, &vde_ops, v, err);
	if (!v->port) {
		vde_free(v);
		return NULL;
	}
	update_watch(v);
	return v->port;
}

#else

#include <errno.h>

static struct net_port *vde_plug_open(const struct netdev_env *env, const char *id,
				      struct opts *opts, struct error *err)
{
	error_set(err, ENOTSUP,
		  "the vde network needs libvdeplug, which this build lacks; install "
		  "libvdeplug-dev and build again");
	return NULL;
}

#endif

const struct netdev_type netdev_vde = {
	.name = "vde",
	.help = "sock=DIRECTORY,port=,group=,mode=: a port of a vde_switch",
	.properties = (const char *const[]){"sock", "port", "group", "mode", NULL},
	.open = vde_plug_open,
};
