/* SPDX-License-Identifier: MIT */
/*
 * A drive's requests (drive.h).
 *
 *   submit -> [paused: waits] -> [throttle: waits] -> worker thread, image -> finished
 *                                                  \\-> io_uring, raw file -/
 *                                                  \\-> server, raw disk ---/
 *
 * A worker runs a request straight against the image. Requests for a raw disk on a server are just
 * sent, and end when its client hears the replies: any number is in flight. A flush needs no
 * ordering of its own: an image's flush covers all that was complete before it, and a device
 * completes a write before a guest can count on a flush for it. What has finished is told on the
 * worker, or is put on a list that one deferred call of the event loop hands back.
 *
 * A failed request is looked at before it is told: by rerror= and werror= the guest learns of it,
 * or not, or it is held until the machine goes on. Whatever is decided is an event for the loop.
 */
#include "block/drive_internal.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct drive_event {
	struct drive_event *next;
	struct drive_error error;
};

static void append(struct drive_request ***last, struct drive_request *req)
{
	req->next = NULL;
	**last = req;
	*last = &req->next;
}

/* ---- On a worker ---- */

static int run_request(struct image *img, const struct drive_request *req)
{
	int rc;
	if (!img)
		return -ENOMEDIUM;
	switch (req->op) {
	case DRIVE_READ: return image_preadv(img, req->iov, req->iovcnt, req->offset);
	case DRIVE_WRITE:
		if (req->fua)
			return image_pwritev_fua(img, req->iov, req->iovcnt, req->offset);
		return image_pwritev(img, req->iov, req->iovcnt, req->offset);
	case DRIVE_FLUSH: return image_flush(img);
	case DRIVE_DISCARD: rc = image_discard(img, req->offset, req->len); break;
	case DRIVE_WRITE_ZEROES:
		rc = image_write_zeroes(img, req->offset, req->len, !req->keep_allocated);
		break;
	default: return -EINVAL;
	}
	return rc == 0 && req->fua ? image_flush(img) : rc;
}

static enum drive_error_policy error_action(const struct drive *drive,
					    const struct drive_request *req)
{
	bool read = req->op == DRIVE_READ;
	enum drive_error_policy policy = read ? drive->rerror : drive->werror;
	if (policy == DRIVE_ERROR_DEFAULT)
		policy = read ? DRIVE_ERROR_REPORT : DRIVE_ERROR_ENOSPC;
	/* A floppy or CD that is not there is news for the guest and no fault of the host. */
	if (!drive->failed || req->result == -ENOMEDIUM)
		return DRIVE_ERROR_REPORT;
	if (policy == DRIVE_ERROR_ENOSPC)
		return req->result == -ENOSPC ? DRIVE_ERROR_STOP : DRIVE_ERROR_REPORT;
	return policy;
}

/* Decides about a failed request; true if it is held. Lock held. */
static bool note_error(struct drive *drive, struct drive_request *req)
{
	enum drive_error_policy action = error_action(drive, req);
	trace(TRACE_BLOCK, "%s: op %d at %" PRIu64 " failed: %s", drive->id, req->op, req->offset,
	      strerror(-req->result));
	if (drive->failed) {
		struct drive_event *event = xcalloc(1, sizeof(*event));
		event->error = (struct drive_error){req->op, -req->result, action};
		*drive->last_event = event;
		drive->last_event = &event->next;
		loop_call_schedule(drive->loop, &drive->call);
	}
	if (action == DRIVE_ERROR_IGNORE)
		req->result = 0;
	if (action != DRIVE_ERROR_STOP)
		return false;
	append(&drive->last_held, req);
	drive->held_count++;
	drive->stopped_on_error = true;
	drive->stopped_on_enospc = req->result == -ENOSPC;
	return true;
}

/* Drops one from those in flight. Lock held; once the lock is free again drive_free() may run. */
static void left(struct drive *drive)
{
	drive->in_flight--;
	pthread_cond_broadcast(&drive->progress);
}

static void finished(struct drive *drive, struct drive_request *req)
{
	pthread_mutex_lock(&drive->lock);
	if (req->result && note_error(drive, req)) {
		left(drive);
	} else if (req->on_worker) {
		pthread_mutex_unlock(&drive->lock);
		req->done(req, req->result);
		pthread_mutex_lock(&drive->lock);
		left(drive);
	} else {
		append(&drive->last_finished, req);
		loop_call_schedule(drive->loop, &drive->call);
		pthread_cond_broadcast(&drive->progress);
	}
	pthread_mutex_unlock(&drive->lock);
}

static void run_work(struct work *work)
{
	struct drive_request *req = container_of(work, struct drive_request, work);
	req->result = run_request(req->drive->image, req);
	finished(req->drive, req);
}

/* ---- Submitting ---- */

/* A transfer of a raw file by io_uring was not whole: a worker does it again and finds out why. */
static void ring_done(struct ring_item *item, bool whole)
{
	struct drive_request *req = container_of(item, struct drive_request, ring);
	image_straight_end(req->drive->image, item->write);
	if (whole) {
		req->result = 0;
		finished(req->drive, req);
	} else {
		work_submit(&req->work);
	}
}

static bool start_on_ring(struct drive_request *req)
{
	struct drive *drive = req->drive;
	bool write = req->op == DRIVE_WRITE;
	if (!drive->ring || !drive->image || req->fua || (!write && req->op != DRIVE_READ))
		return false;
	int fd = image_straight_begin(drive->image, write, req->iov, req->iovcnt, req->offset,
				      req->len);
	if (fd < 0)
		return false;
	req->ring = (struct ring_item){.fd = fd,
				       .write = write,
				       .iov = req->iov,
				       .iovcnt = req->iovcnt,
				       .offset = req->offset,
				       .len = req->len,
				       .done = ring_done};
	ring_submit(&req->ring);
	return true;
}

static void remote_done(struct remote_request *remote, int result)
{
	struct drive_request *req = container_of(remote, struct drive_request, remote);
	req->result = result;
	finished(req->drive, req);
}

static bool start_on_server(struct drive_request *req)
{
	static const enum remote_op ops[] = {[DRIVE_READ] = REMOTE_READ,
					     [DRIVE_WRITE] = REMOTE_WRITE,
					     [DRIVE_FLUSH] = REMOTE_FLUSH};
	struct image *img = req->drive->image;
	if (!img || req->op > DRIVE_FLUSH || !image_can_submit(img))
		return false;
	req->remote = (struct remote_request){.op = ops[req->op],
					      .fua = req->fua && req->op == DRIVE_WRITE,
					      .offset = req->offset,
					      .len = req->len,
					      .iov = req->iov,
					      .iovcnt = req->iovcnt,
					      .done = remote_done};
	return image_submit(img, &req->remote);
}

static void start_now(struct drive_request *req)
{
	req->work = (struct work){.run = run_work};
	if (start_on_ring(req) || start_on_server(req))
		return;
	req->work.remote = req->drive->image && image_is_remote(req->drive->image);
	work_submit(&req->work);
}

static void throttle_over(struct throttle_item *item)
{
	start_now(container_of(item, struct drive_request, throttle));
}

/* It counts as in flight already. */
static void start(struct drive_request *req, struct throttle_group *throttle)
{
	if (!throttle || req->op == DRIVE_FLUSH) {
		start_now(req);
		return;
	}
	req->throttle = (struct throttle_item){.owner = req->drive,
					       .bytes = req->len,
					       .write = req->op != DRIVE_READ,
					       .go = throttle_over};
	throttle_submit(throttle, &req->throttle);
}

void drive_submit(struct drive *drive, struct drive_request *req)
{
	req->drive = drive;
	trace(TRACE_BLOCK, "%s: op %d at %" PRIu64 ", %" PRIu64 " bytes", drive->id, req->op,
	      req->offset, req->len);
	pthread_mutex_lock(&drive->lock);
	struct throttle_group *throttle = drive->throttle;
	bool go = drive->paused == 0;
	if (go)
		drive->in_flight++;
	else
		append(&drive->last_waiting, req);
	pthread_mutex_unlock(&drive->lock);
	if (go)
		start(req, throttle);
}

void drive_pause(struct drive *drive)
{
	pthread_mutex_lock(&drive->lock);
	drive->paused++;
	pthread_mutex_unlock(&drive->lock);
}

void drive_resume(struct drive *drive)
{
	struct drive_request *req = NULL;
	pthread_mutex_lock(&drive->lock);
	if (--drive->paused == 0) {
		req = drive->waiting;
		drive->waiting = NULL;
		drive->last_waiting = &drive->waiting;
		for (struct drive_request *r = req; r; r = r->next)
			drive->in_flight++;
	}
	struct throttle_group *throttle = drive->throttle;
	pthread_mutex_unlock(&drive->lock);
	while (req) {
		struct drive_request *next = req->next;
		start(req, throttle);
		req = next;
	}
}

/* ---- In the loop ---- */

/* Tells what has failed and hands back what has finished. Machine lock held. */
static void complete(void *opaque)
{
	struct drive *drive = opaque;
	for (;;) {
		pthread_mutex_lock(&drive->lock);
		struct drive_event *event = drive->events;
		struct drive_request *req = event ? NULL : drive->finished;
		if (event) {
			drive->events = event->next;
			if (!drive->events)
				drive->last_event = &drive->events;
		} else if (req) {
			drive->finished = req->next;
			if (!drive->finished)
				drive->last_finished = &drive->finished;
			left(drive);
		}
		pthread_mutex_unlock(&drive->lock);
		if (event && drive->failed)
			drive->failed(drive->failed_opaque, drive, &event->error);
		free(event);
		if (req)
			req->done(req, req->result);
		else if (!event)
			return;
	}
}

void drive_drain(struct drive *drive)
{
	pthread_mutex_lock(&drive->lock);
	while (drive->in_flight) {
		if (drive->finished) {
			pthread_mutex_unlock(&drive->lock);
			complete(drive);
			pthread_mutex_lock(&drive->lock);
		} else if (drive->throttle) {
			/* What other threads submit meanwhile may be delayed again, and be let go
			 * with the next progress or by the group's thread. */
			struct throttle_group *throttle = drive->throttle;
			pthread_mutex_unlock(&drive->lock);
			throttle_release(throttle, drive);
			pthread_mutex_lock(&drive->lock);
			if (drive->in_flight && !drive->finished)
				pthread_cond_wait(&drive->progress, &drive->lock);
		} else {
			pthread_cond_wait(&drive->progress, &drive->lock);
		}
	}
	bool events = drive->events;
	pthread_mutex_unlock(&drive->lock);
	if (events)
		complete(drive);
}

/* ---- Errors ---- */

void drive_on_error(struct drive *drive,
		    void (*failed)(void *opaque, struct drive *drive,
				   const struct drive_error *error),
		    void *opaque)
{
	pthread_mutex_lock(&drive->lock);
	drive->failed = failed;
	drive->failed_opaque = opaque;
	pthread_mutex_unlock(&drive->lock);
}

unsigned drive_held(struct drive *drive)
{
	pthread_mutex_lock(&drive->lock);
	unsigned count = drive->held_count;
	pthread_mutex_unlock(&drive->lock);
	return count;
}

const char *drive_io_status(struct drive *drive)
{
	pthread_mutex_lock(&drive->lock);
	const char *status = !drive->stopped_on_error   ? "ok"
			     : drive->stopped_on_enospc ? "nospace"
							: "failed";
	pthread_mutex_unlock(&drive->lock);
	return status;
}

/* Takes the held requests, which count as in flight from now on. */
static struct drive_request *take_held(struct drive *drive)
{
	pthread_mutex_lock(&drive->lock);
	struct drive_request *req = drive->held;
	drive->held = NULL;
	drive->last_held = &drive->held;
	drive->in_flight += drive->held_count;
	drive->held_count = 0;
	drive->stopped_on_error = false;
	pthread_mutex_unlock(&drive->lock);
	return req;
}

void drive_retry(struct drive *drive)
{
	struct drive_request *req = take_held(drive);
	while (req) {
		struct drive_request *next = req->next;
		start_now(req);
		req = next;
	}
}

void drive_fail_held(struct drive *drive)
{
	struct drive_request *req = take_held(drive);
	while (req) {
		struct drive_request *next = req->next;
		pthread_mutex_lock(&drive->lock);
		left(drive);
		pthread_mutex_unlock(&drive->lock);
		req->done(req, req->result);
		req = next;
	}
}

/* ---- Limits ---- */

void drive_get_limits(struct drive *drive, struct throttle_limits *limits)
{
	*limits = (struct throttle_limits){0};
	if (drive->throttle)
		throttle_get(drive->throttle, limits);
}

const char *drive_throttle_group(struct drive *drive)
{
	return drive->throttle ? throttle_group_name(drive->throttle) : NULL;
}

/* Puts the drive in another group; nothing of it is left in the old one. */
static void change_group(struct drive *drive, const char *name)
{
	drive_pause(drive);
	drive_drain(drive);
	struct throttle_group *old = drive->throttle;
	pthread_mutex_lock(&drive->lock);
	drive->throttle = name ? throttle_group_get(name) : NULL;
	pthread_mutex_unlock(&drive->lock);
	throttle_group_put(old);
	drive_resume(drive);
}

int drive_set_limits(struct drive *drive, const struct throttle_limits *limits, const char *group,
		     struct error *err)
{
	int rc = throttle_check(limits, err);
	if (rc)
		return rc;
	if (!throttle_enabled(limits)) {
		/* The last member's group ends with it; others keep their limits. */
		change_group(drive, NULL);
		return 0;
	}
	const char *now = drive_throttle_group(drive);
	const char *wanted = group ? group : now ? now : drive->id;
	if (!now || strcmp(now, wanted))
		change_group(drive, wanted);
	throttle_set(drive->throttle, limits);
	return 0;
}

/* ---- Life ---- */

int drive_queue_init(struct drive *drive, const struct drive_config *config, struct error *err)
{
	drive->rerror = config->rerror;
	drive->werror = config->werror;
	drive->last_waiting = &drive->waiting;
	drive->last_finished = &drive->finished;
	drive->last_held = &drive->held;
	drive->last_event = &drive->events;
	loop_call_init(&drive->call, complete, drive);
	pthread_mutex_init(&drive->lock, NULL);
	pthread_cond_init(&drive->progress, NULL);
	struct error ignored = ERROR_INIT;
	bool try = config->aio == DRIVE_AIO_URING ||
		   (config->aio == DRIVE_AIO_BEST && (config->image_flags & IMAGE_DIRECT));
	drive->ring = try && ring_start(config->aio == DRIVE_AIO_URING ? err : &ignored) == 0;
	if (config->aio == DRIVE_AIO_URING && !drive->ring)
		return -err->code;
	bool limited = config->limits && throttle_enabled(config->limits);
	int rc = config->limits ? throttle_check(config->limits, err) : 0;
	if (rc)
		return rc;
	if (limited || config->throttle_group)
		drive->throttle = throttle_group_get(config->throttle_group ? config->throttle_group
									    : drive->id);
	if (limited)
		throttle_set(drive->throttle, config->limits);
	return 0;
}

void drive_queue_fini(struct drive *drive)
{
	loop_call_cancel(drive->loop, &drive->call);
	while (drive->events) {
		struct drive_event *event = drive->events;
		drive->events = event->next;
		free(event);
	}
	throttle_group_put(drive->throttle);
	pthread_cond_destroy(&drive->progress);
	pthread_mutex_destroy(&drive->lock);
}
