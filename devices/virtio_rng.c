/* SPDX-License-Identifier: MIT */
/*
 * virtio-rng: each buffer that the driver puts into the one queue comes back with random bytes
 * (virtio 1.2, 5.4), from getrandom(2), from a file such as /dev/hwrng, or from a source of the
 * caller's.
 *
 * A file that has nothing now is watched, and the buffer waits in its ring. With a limit the rest
 * waits for the next period, by the guest's clock.
 */
#include "devices/virtio_rng.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum {
	QUEUE_SIZE = 8,
	PCI_DEVICE = 0x1005,
	CLASS_OTHER = 0x00FF,
	REQUEST_MAX = 65536, /* bytes given to one buffer: fewer than it holds is allowed */
	PIECE = 4096,
};

struct virtio_rng {
	struct virtio virtio;
	struct virtio_rng_config config;
	uint64_t left; /* bytes in this period */
	struct timer period;
	struct loop_fd *watch; /* while the file has nothing */
	bool failed;           /* told once */
	struct virtio_chain chain;
};

static struct virtio_rng *from_virtio(struct virtio *v)
{
	return container_of(v, struct virtio_rng, virtio);
}

struct pci_device *virtio_rng_pci(struct virtio_rng *rng)
{
	return &rng->virtio.pci;
}

static void stop_watching(struct virtio_rng *rng)
{
	if (rng->watch)
		loop_fd_free(rng->watch);
	rng->watch = NULL;
}

static void readable(void *opaque, unsigned events)
{
	struct virtio_rng *rng = opaque;
	stop_watching(rng);
	virtqueue_kick(&rng->virtio.queue[0]);
}

/* Up to `len` random bytes; 0 if there are none now. */
static size_t read_source(struct virtio_rng *rng, uint8_t *buf, size_t len)
{
	ssize_t n;

	if (rng->config.source)
		return rng->config.source->read(rng->config.source->opaque, buf, len);
	do
		n = rng->config.fd < 0 ? getrandom(buf, len, 0) : read(rng->config.fd, buf, len);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		return (size_t)n;
	if (n < 0 && errno == EAGAIN && !rng->watch) {
		rng->watch = loop_fd_new(rng->virtio.env->loop, rng->config.fd, LOOP_READ, readable,
					 rng, NULL);
		if (rng->watch)
			return 0;
	}
	if (!rng->failed && !rng->watch)
		warn("%s: its source gives no more random bytes: %s", rng->virtio.pci.name,
		     n == 0 ? "end of file" : strerror(errno));
	rng->failed = true;
	return 0;
}

static size_t fill(struct virtio_rng *rng, size_t want)
{
	uint8_t piece[PIECE];
	size_t done = 0;

	while (done < want) {
		size_t part = want - done < sizeof(piece) ? want - done : sizeof(piece);
		part = read_source(rng, piece, part);
		if (part == 0)
			break;
		done += virtio_chain_write(&rng->chain, piece, part);
	}
	return done;
}

static void source_ready(void *opaque)
{
	struct virtio_rng *rng = opaque;
	virtqueue_kick(&rng->virtio.queue[0]);
}

static void new_period(void *opaque)
{
	struct virtio_rng *rng = opaque;
	rng->left = rng->config.max_bytes;
	virtqueue_kick(&rng->virtio.queue[0]);
}

/* How many bytes may be given now. */
static size_t allowance(struct virtio_rng *rng, size_t want)
{
	if (!rng->config.max_bytes)
		return want;
	if (!rng->period.pending)
		timer_set(&rng->period, clock_now(rng->virtio.env->clock) +
						rng->config.period_ms * UINT64_C(1000000));
	return want < rng->left ? want : (size_t)rng->left;
}

static void serve(struct virtqueue *q)
{
	struct virtio_rng *rng = from_virtio(q->virtio);

	for (unsigned left = virtqueue_budget(q); left; left--) {
		int r = virtqueue_pop(q, &rng->chain);
		if (r <= 0)
			return;
		size_t want = rng->chain.in_len < REQUEST_MAX ? rng->chain.in_len : REQUEST_MAX;
		size_t done = fill(rng, allowance(rng, want));
		if (done == 0 && want) {
			/* It waits for the source or the next period. */
			virtqueue_unpop(q, 1);
			return;
		}
		if (rng->config.max_bytes)
			rng->left -= done;
		virtqueue_push(q, &rng->chain, done);
		virtqueue_signal(q);
	}
	virtqueue_kick(q);
}

static void get_config(struct virtio *v, uint8_t *config)
{
}

static void reset(struct virtio *v)
{
	struct virtio_rng *rng = from_virtio(v);

	stop_watching(rng);
	rng->left = rng->config.max_bytes;
	timer_cancel(&rng->period);
}

static void reset_queue(struct virtqueue *q)
{
	stop_watching(from_virtio(q->virtio));
}

static const struct virtio_type rng_type = {
	.name = "virtio-rng",
	.id = VIRTIO_ID_ENTROPY,
	.pci_class = CLASS_OTHER,
	.legacy_device_id = PCI_DEVICE,
	.get_config = get_config,
	.reset = reset,
	.reset_queue = reset_queue,
	.serve = serve,
};

struct virtio_rng *virtio_rng_new(const struct device_env *env, struct pci_bus *bus,
				  const struct virtio_pci_config *pci,
				  const struct virtio_rng_config *config, struct error *err)
{
	struct virtio_rng *rng = xcalloc(1, sizeof(*rng));

	rng->config = *config;
	rng->left = config->max_bytes;
	timer_init(&rng->period, env->clock, new_period, rng);
	if (virtio_init(&rng->virtio, env, bus, &rng_type, 0, pci, err) < 0) {
		free(rng);
		return NULL;
	}
	virtio_add_queue(&rng->virtio, QUEUE_SIZE);
	if (config->source)
		config->source->attach(config->source->opaque, source_ready, rng);
	return rng;
}

void virtio_rng_free(struct virtio_rng *rng)
{
	if (!rng)
		return;
	if (rng->config.source)
		rng->config.source->attach(rng->config.source->opaque, NULL, NULL);
	virtio_fini(&rng->virtio);
	virtio_chain_free(&rng->chain);
	if (rng->config.fd >= 0)
		close(rng->config.fd);
	free(rng);
}
