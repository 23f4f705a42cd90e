/* SPDX-License-Identifier: MIT */
/*
 * Notifications of virtqueues that need not pass through a vCPU's thread.
 *
 * While the driver runs (DRIVER_OK) each enabled queue's notification register is offered to the
 * engine as a doorbell (core/doorbell.h):
 *
 *   legacy   the 16-bit port BAR 0 + 16, writes of the queue's number
 *   modern   its own dword in BAR 4's notification structure, writes of any size and value
 *
 * Both lead to one eventfd a queue, which the event loop watches. The registers move with their
 * BARs, so everything that changes status, queues or decoding brings the doorbells up to date. What
 * the engine refuses comes to the transport's callbacks, as it does where there are no doorbells.
 */
#include "core/device.h"
#include "devices/virtio.h"
#include "lib/log.h"
#include "lib/text.h"
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void rung(void *opaque, unsigned events)
{
	struct virtqueue *q = opaque;
	eventfd_t count;

	if (eventfd_read(q->bell_fd, &count) == 0)
		virtqueue_serve(q);
}

static bool open_bell(struct virtqueue *q)
{
	struct error err = ERROR_INIT;

	if (q->bell_fd)
		return true;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd <= 0)
		return false;
	q->bell_watch = loop_fd_new(q->virtio->env->loop, fd, LOOP_READ, rung, q, &err);
	if (!q->bell_watch) {
		close(fd);
		return false;
	}
	q->bell_fd = fd;
	return true;
}

static bool same(const struct doorbell *a, const struct doorbell *b)
{
	return a->address == b->address && a->port == b->port;
}

static void update(struct virtqueue *q, bool modern, bool wanted)
{
	struct virtqueue_bell *b = &q->bell[modern];
	struct doorbell now = {0};

	wanted = wanted && virtio_notify_register(q, modern, &now);
	if (wanted && (b->on || b->refused) && same(&b->bell, &now))
		return;
	if (b->on)
		doorbell_set(q->virtio->env->doorbells, &b->bell, q->bell_fd, false);
	b->on = b->refused = false;
	if (!wanted || !open_bell(q))
		return;
	b->bell = now;
	b->on = doorbell_set(q->virtio->env->doorbells, &now, q->bell_fd, true) == 0;
	b->refused = !b->on;
}

void virtio_update_doorbells(struct virtio *v)
{
	if (!v->env->doorbells || v->no_doorbells)
		return;
	for (unsigned n = 0; n < v->queues; n++) {
		struct virtqueue *q = &v->queue[n];
		bool wanted = q->enabled && (v->status & VIRTIO_DRIVER_OK);
		for (unsigned modern = 0; modern < ARRAY_SIZE(q->bell); modern++)
			update(q, modern, wanted);
	}
}

void virtqueue_drop_doorbells(struct virtqueue *q)
{
	for (unsigned modern = 0; modern < ARRAY_SIZE(q->bell); modern++)
		update(q, modern, false);
	if (!q->bell_fd)
		return;
	loop_fd_free(q->bell_watch);
	close(q->bell_fd);
	q->bell_fd = 0;
	q->bell_watch = NULL;
}
