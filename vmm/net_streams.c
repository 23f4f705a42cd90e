/* SPDX-License-Identifier: MIT */
/*
 * Character devices for guestfwd= (net_streams.h): net/ asks for a stream of bytes by QEMU's
 * description of a chardev and gets one through a table of functions, so that it need not know
 * character devices.
 */
#include "vmm/net_streams.h"
#include "core/chardev.h"
#include "lib/text.h"
#include "vmm/backends.h"
#include <stdlib.h>

struct net_stream {
	struct chardev *chr;
	struct net_stream_user user;
};

static struct net_stream *stream_open(void *opaque, const char *id, const char *spec,
				      const struct net_stream_user *user, struct error *err)
{
	struct chardev *chr = backend_take(opaque, id, spec, err);
	if (!chr)
		return NULL;
	struct net_stream *s = xcalloc(1, sizeof(*s));
	s->chr = chr;
	s->user = *user;
	chardev_attach(chr, &(struct chardev_frontend){.can_receive = user->can_receive,
						       .receive = user->receive,
						       .opaque = user->opaque});
	return s;
}

static size_t stream_write(struct net_stream *s, const void *buf, size_t len)
{
	return chardev_write(s->chr, buf, len);
}

static void stream_accept(struct net_stream *s)
{
	chardev_accept_input(s->chr);
}

/* The character device itself belongs to the machine's list of them. */
static void stream_close(struct net_stream *s)
{
	chardev_attach(s->chr, NULL);
	free(s);
}

struct net_streams net_streams_of(struct machine *m)
{
	return (struct net_streams){.open = stream_open,
				    .write = stream_write,
				    .accept = stream_accept,
				    .close = stream_close,
				    .opaque = m};
}
