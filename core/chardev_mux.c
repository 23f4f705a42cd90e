/* SPDX-License-Identifier: MIT */
/*
 * The multiplexer behind mon: and -nographic. The mux itself is the first port; chardev_mux_port()
 * adds more. Ports without front end never get the focus. Output of all ports goes out as it comes;
 * input goes to the port that has the focus. Getting and losing the focus looks to a front end like
 * a peer that connects and leaves, so a monitor shows its prompt.
 *
 * Ctrl-A is the escape. Each port keeps its own read-ahead, so that the keys behind Ctrl-A work
 * even while the guest does not read its serial port.
 */
#include "core/chardev.h"
#include "core/chardev_internal.h"
#include "lib/text.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PORTS = 8, ESCAPE = 1 /* Ctrl-A */ };

struct mux {
	struct chardev *below;
	struct chardev *port[MAX_PORTS]; /* 0 is the mux itself */
	unsigned ports, focus;
	bool escaped;  /* the last byte was Ctrl-A */
	bool switched; /* the user chose the focus */
	void (*quit)(void *opaque);
	void *quit_opaque;
};

static size_t mux_write(struct chardev *chr, const void *buf, size_t len)
{
	struct mux *mux = chr->data;
	return chardev_write(mux->below, buf, len);
}

static struct chardev *mux_below(const struct chardev *chr)
{
	const struct mux *mux = chr->data;
	return mux->below;
}

static void mux_close(struct chardev *chr)
{
	struct mux *mux = chr->data;

	for (unsigned i = 1; i < mux->ports; i++)
		chardev_free(mux->port[i]);
	chardev_free(mux->below);
	free(mux);
}

static void mux_attached(struct chardev *chr);

static const struct chardev_class mux_class = {
	.below = mux_below,
	.write = mux_write,
	.attached = mux_attached,
	.close = mux_close,
};
static const struct chardev_class port_class = {
	.below = mux_below,
	.write = mux_write,
	.attached = mux_attached,
};

static void set_focus(struct mux *mux, unsigned focus)
{
	struct chardev *old = mux->port[mux->focus], *new = mux->port[focus];

	mux->focus = focus;
	if (old != new) {
		old->connected = false;
		chardev_deliver(old);
	}
	new->connected = chardev_connected(mux->below);
	chardev_deliver(new);
}

/* Until the user chooses, the first port that has a front end has the focus. Front ends hear of it
 * from the loop, when all are in place. */
static void mux_attached(struct chardev *chr)
{
	struct mux *mux = chr->data;

	if (mux->switched)
		return;
	mux->port[mux->focus]->connected = false;
	for (mux->focus = 0; mux->focus + 1 < mux->ports; mux->focus++)
		if (mux->port[mux->focus]->attached)
			break;
	mux->port[mux->focus]->connected = chardev_connected(mux->below);
}

static void next_focus(struct mux *mux)
{
	unsigned n = mux->focus;

	mux->switched = true;
	do
		n = (n + 1) % mux->ports;
	while (n != mux->focus && !mux->port[n]->attached);
	set_focus(mux, n);
}

static void print_help(struct mux *mux)
{
	static const char text[] = "\r\n"
				   "Ctrl-A h       this help\r\n"
				   "Ctrl-A c       switch between serial console and monitor\r\n"
				   "Ctrl-A b       send a break\r\n"
				   "Ctrl-A x       leave the emulator\r\n"
				   "Ctrl-A Ctrl-A  send Ctrl-A\r\n";
	chardev_write(mux->below, text, sizeof(text) - 1);
}

static void command(struct mux *mux, uint8_t key)
{
	struct chardev *focus = mux->port[mux->focus];

	switch (tolower(key)) {
	case 'h':
	case '?': print_help(mux); break;
	case 'c': next_focus(mux); break;
	case 'b':
		if (focus->fe.send_break)
			focus->fe.send_break(focus->fe.opaque);
		break;
	case 'x':
		if (mux->quit)
			mux->quit(mux->quit_opaque);
		break;
	case ESCAPE: chardev_push_input(focus, &key, 1); break;
	default: break;
	}
}

static size_t mux_can_receive(void *opaque)
{
	struct mux *mux = opaque;
	return chardev_input_room(mux->port[mux->focus]);
}

static void mux_receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct mux *mux = opaque;

	for (size_t i = 0; i < len; i++) {
		if (mux->escaped) {
			mux->escaped = false;
			command(mux, buf[i]);
		} else if (buf[i] == ESCAPE) {
			mux->escaped = true;
		} else {
			chardev_push_input(mux->port[mux->focus], &buf[i], 1);
		}
	}
	chardev_deliver(mux->port[mux->focus]);
}

static void mux_opened(void *opaque, bool open)
{
	struct mux *mux = opaque;

	mux->escaped = false;
	set_focus(mux, mux->focus);
}

static void mux_drained(void *opaque)
{
	struct mux *mux = opaque;

	for (unsigned i = 0; i < mux->ports; i++)
		if (mux->port[i]->attached && mux->port[i]->fe.drained)
			mux->port[i]->fe.drained(mux->port[i]->fe.opaque);
	chardev_deliver(mux->port[mux->focus]);
}

static struct chardev *add_port(struct mux *mux, struct loop *loop,
				const struct chardev_class *class)
{
	struct chardev *chr = chardev_alloc(loop, NULL, class);

	chr->data = mux;
	chr->connected = mux->ports == mux->focus && chardev_connected(mux->below);
	chardev_set_description(chr, "mux:%s", chardev_describe(mux->below));
	mux->port[mux->ports++] = chr;
	return chr;
}

struct chardev *chardev_new_mux(struct loop *loop, struct chardev *below,
				void (*quit)(void *opaque), void *opaque)
{
	struct mux *mux = xcalloc(1, sizeof(*mux));
	struct chardev_frontend fe = {
		.can_receive = mux_can_receive,
		.receive = mux_receive,
		.opened = mux_opened,
		.drained = mux_drained,
		.opaque = mux,
	};

	mux->below = below;
	mux->quit = quit;
	mux->quit_opaque = opaque;
	chardev_stdio_keep_signals(below);
	struct chardev *chr = add_port(mux, loop, &mux_class);
	chardev_attach(below, &fe);
	return chr;
}

struct chardev *chardev_mux_port(struct chardev *chr)
{
	struct mux *mux = chr->class == &mux_class ? chr->data : NULL;

	if (!mux || mux->ports == MAX_PORTS)
		return NULL;
	return add_port(mux, chr->loop, &port_class);
}
