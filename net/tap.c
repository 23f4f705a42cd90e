/* SPDX-License-Identifier: MIT */
/*
 * TAP: a network interface of the host whose other end is this port. Frames go through the
 * descriptor one a read() or write(); with several queues there is a descriptor for each.
 *
 * The interface comes from /dev/net/tun (ifname=), from descriptors that were opened by somebody
 * else (fd=, fds=), or from QEMU's bridge helper (br=, helper=), which is set-uid root and sends a
 * descriptor whose interface is on a bridge already.
 *
 * Where the kernel can, frames on the descriptor begin with a struct virtio_net_hdr. A card that
 * asked for it exchanges it as it is, and checksums and segmentation are left to the kernel or to
 * the guest; for other cards it is stripped here, and the kernel is told to send finished frames.
 *
 * Documents: Linux, Documentation/networking/tuntap.rst, linux/if_tun.h; virtio 1.2, 5.1.6.
 */
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/text.h"
#include "net/netdev.h"
#include "net/tap_open.h"
#include <errno.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
	VNET_HDR_MAX = 12,
	FRAMES_A_TURN = 64, /* then others have their turn */
	OFFLOADS = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN,
};

struct tap;

struct tap_queue {
	struct tap *tap;
	unsigned n;
	int fd;
	struct loop_fd *watch;
	bool wait_write; /* receive() said no */
	bool attached;
	size_t held; /* bytes of the frame in `frame` that the card had no room for */
	uint8_t frame[NET_FRAME_MAX];
};

struct tap {
	struct net *net;
	struct net_port *port;
	struct tap_source source;
	struct tap_queue *queue[NET_MAX_QUEUES];
	unsigned queues;
	unsigned peer_hdr; /* what the card wants in front of frames; 0: none */
};

static void tap_ready(void *opaque, unsigned events);

/* Waits for what can be used now. */
static void update_watch(struct tap_queue *q)
{
	unsigned events = (q->held ? 0u : LOOP_READ) | (q->wait_write ? LOOP_WRITE : 0u);
	if (!q->attached)
		events = 0;
	if (!events) {
		loop_fd_free(q->watch);
		q->watch = NULL;
	} else if (q->watch) {
		loop_fd_set_events(q->watch, events);
	} else {
		struct error err = ERROR_INIT;
		q->watch = loop_fd_new(net_loop(q->tap->net), q->fd, events, tap_ready, q, &err);
		if (!q->watch)
			warn("tap: %s", err.text);
	}
}

/* ---- From the host to the card ---- */

static bool pass_up(struct tap_queue *q, size_t len)
{
	struct tap *tap = q->tap;
	size_t skip = tap->peer_hdr ? 0 : tap->source.hdr_len;
	if (len <= skip)
		return true;
	struct iovec iov = {q->frame + skip, len - skip};
	return net_try_send(tap->port, q->n, &iov, 1);
}

static void read_frames(struct tap_queue *q)
{
	for (unsigned n = 0; n < FRAMES_A_TURN && !q->held; n++) {
		ssize_t len = read(q->fd, q->frame, sizeof(q->frame));
		if (len < 0 && errno == EINTR)
			continue;
		if (len <= 0)
			return;
		if (!pass_up(q, (size_t)len))
			q->held = (size_t)len;
	}
}

static void tap_resume(void *opaque, unsigned queue)
{
	struct tap *tap = opaque;
	if (queue >= tap->queues || !tap->queue[queue]->held)
		return;
	struct tap_queue *q = tap->queue[queue];
	size_t len = q->held;
	q->held = 0;
	if (!pass_up(q, len))
		q->held = len;
	update_watch(q);
}

static void tap_ready(void *opaque, unsigned events)
{
	struct tap_queue *q = opaque;
	if ((events & (LOOP_WRITE | LOOP_ERROR)) && q->wait_write) {
		q->wait_write = false;
		net_receive_ready(q->tap->port, q->n);
	}
	if (events & (LOOP_READ | LOOP_ERROR))
		read_frames(q);
	if (events & LOOP_ERROR) {
		/* The interface was deleted under us. */
		warn("tap: '%s' is gone", q->tap->source.ifname);
		q->attached = false;
	}
	update_watch(q);
}

/* ---- From the card to the host ---- */

static bool tap_receive(void *opaque, unsigned queue, const struct iovec *iov, int count,
			size_t len)
{
	static const uint8_t no_offload[VNET_HDR_MAX];
	struct tap *tap = opaque;
	struct tap_queue *q = tap->queue[queue % tap->queues];
	struct iovec with_hdr[NET_IOV_MAX + 1];
	if (!q->attached)
		return true;
	if (tap->source.hdr_len && !tap->peer_hdr) {
		with_hdr[0] = (struct iovec){(void *)no_offload, tap->source.hdr_len};
		memcpy(with_hdr + 1, iov, (size_t)count * sizeof(*iov));
		iov = with_hdr;
		count++;
	}
	ssize_t r;
	do
		r = writev(q->fd, iov, count);
	while (r < 0 && errno == EINTR);
	if (r < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
		q->wait_write = true;
		update_watch(q);
		return false;
	}
	/* Anything else is a frame the host does not take: the interface is down (EIO), or the
	 * header is nonsense (EINVAL). */
	return true;
}

/* ---- What a card asks for ---- */

static unsigned tap_offloads(void *opaque)
{
	struct tap *tap = opaque;
	return tap->source.hdr_len ? OFFLOADS : 0;
}

static int tap_set_vnet_hdr(void *opaque, unsigned hdr_len)
{
	struct tap *tap = opaque;
	int len = (int)hdr_len;
	if (!tap->source.hdr_len || hdr_len > VNET_HDR_MAX)
		return -ENOTSUP;
	for (unsigned n = 0; hdr_len && n < tap->queues; n++)
		if (ioctl(tap->queue[n]->fd, TUNSETVNETHDRSZ, &len) < 0)
			return -errno;
	if (hdr_len)
		tap->source.hdr_len = hdr_len;
	else
		for (unsigned n = 0; n < tap->queues; n++)
			ioctl(tap->queue[n]->fd, TUNSETOFFLOAD, 0);
	tap->peer_hdr = hdr_len;
	return 0;
}

static void tap_set_offload(void *opaque, unsigned offloads)
{
	struct tap *tap = opaque;
	if (!tap->source.hdr_len)
		return;
	for (unsigned n = 0; n < tap->queues; n++)
		if (ioctl(tap->queue[n]->fd, TUNSETOFFLOAD, (unsigned long)offloads) < 0)
			trace(TRACE_NET, "tap: offloads %x refused", offloads);
}

static void tap_set_queues(void *opaque, unsigned queues)
{
	struct tap *tap = opaque;
	for (unsigned n = 0; tap->queues > 1 && n < tap->queues; n++) {
		struct tap_queue *q = tap->queue[n];
		bool attach = n < queues;
		struct ifreq request = {0};
		request.ifr_flags = attach ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
		if (attach == q->attached || ioctl(q->fd, TUNSETQUEUE, &request) < 0)
			continue;
		q->attached = attach;
		update_watch(q);
	}
}

static void tap_describe(void *opaque, struct strbuf *out)
{
	struct tap *tap = opaque;
	if (tap->source.helper)
		strbuf_printf(out, "type=tap,helper=%s,br=%s,", tap->source.helper,
			      tap->source.bridge);
	else
		strbuf_puts(out, "type=tap,");
	strbuf_printf(out, "ifname=%s,vnet_hdr=%s,queues=%u", tap->source.ifname,
		      tap->source.hdr_len ? "on" : "off", tap->queues);
	if (tap->source.script)
		strbuf_printf(out, ",script=%s", tap->source.script);
}

static void tap_free(void *opaque)
{
	struct tap *tap = opaque;
	for (unsigned n = 0; n < tap->queues; n++) {
		loop_fd_free(tap->queue[n]->watch);
		free(tap->queue[n]);
	}
	tap_source_close(&tap->source);
	free(tap);
}

static const struct net_port_ops tap_ops = {
	.receive = tap_receive,
	.resume = tap_resume,
	.offloads = tap_offloads,
	.set_vnet_hdr = tap_set_vnet_hdr,
	.set_offload = tap_set_offload,
	.set_queues = tap_set_queues,
	.describe = tap_describe,
	.free = tap_free,
};

static struct net_port *open_port(const struct netdev_env *env, const char *id, struct opts *opts,
				  bool bridge, struct error *err)
{
	struct tap *tap = xcalloc(1, sizeof(*tap));
	tap->net = env->net;
	if (tap_source_open(&tap->source, opts, bridge, err) < 0) {
		free(tap);
		return NULL;
	}
	tap->queues = tap->source.fd_count;
	for (unsigned n = 0; n < tap->queues; n++) {
		struct tap_queue *q = tap->queue[n] = xcalloc(1, sizeof(*q));
		*q = (struct tap_queue){
			.tap = tap, .n = n, .fd = tap->source.fd[n], .attached = true};
	}
	tap->port = net_port_new(env->net, NET_BACKEND, id, "tap", tap->queues, &tap_ops, tap, err);
	if (!tap->port) {
		tap_free(tap);
		return NULL;
	}
	for (unsigned n = 0; n < tap->queues; n++)
		update_watch(tap->queue[n]);
	/* Until the card says otherwise it has one queue. */
	tap_set_queues(tap, 1);
	return tap->port;
}

static struct net_port *tap_open(const struct netdev_env *env, const char *id, struct opts *opts,
				 struct error *err)
{
	return open_port(env, id, opts, false, err);
}

static struct net_port *bridge_open(const struct netdev_env *env, const char *id, struct opts *opts,
				    struct error *err)
{
	return open_port(env, id, opts, true, err);
}

const struct netdev_type netdev_tap = {
	.name = "tap",
	.help = "ifname=,script=FILE|no,downscript=FILE|no,br=,helper=,fd=,fds=a:b,vnet_hdr=on|off,"
		"queues=",
	.properties = tap_source_properties,
	.open = tap_open,
};

const struct netdev_type netdev_bridge = {
	.name = "bridge",
	.help = "br=BRIDGE,helper=FILE: a tap interface that the set-uid bridge helper puts on a "
		"bridge",
	.properties = tap_bridge_properties,
	.open = bridge_open,
};
